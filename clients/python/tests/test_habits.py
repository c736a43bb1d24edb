"""Habits of the code that are easily lost: what the protocol package may use, and documents that say what is."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest

import minikafka
from minikafka.aio.waiting import wait_until
from minikafka.protocol.error_code import ErrorCode

PACKAGE = Path(minikafka.__file__).parent
REPOSITORY = Path(__file__).parents[3]

#: What does I/O, reads clocks, draws random numbers or runs things.
IMPURE = {
    "asyncio",
    "datetime",
    "os",
    "random",
    "secrets",
    "select",
    "selectors",
    "socket",
    "subprocess",
    "threading",
    "time",
}  #: One lock is not I/O: the application may be on another thread than the sender. And a type of an option.
ALLOWED = {("threading", "Lock"), ("datetime", "datetime")}


def sources(below: Path) -> list[Path]:
    return sorted(below.rglob("*.py"))


@pytest.mark.parametrize("source", sources(PACKAGE / "protocol"), ids=lambda path: path.name)
def test_the_protocol_package_is_pure(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert not {name.name.split(".")[0] for name in node.names} & IMPURE, source
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in IMPURE:
            assert all((node.module, name.name) in ALLOWED for name in node.names), source
        elif isinstance(node, ast.ImportFrom) and node.level > 0:
            assert not str(node.module).startswith(("aio", "client", "producer", "consumer")) or node.level == 1, source


@pytest.mark.parametrize("source", sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_tell_one_story_and_functions_fit_on_a_screen(source: Path) -> None:
    text = source.read_text()
    assert len(text.splitlines()) <= 450, "split it"
    assert source.stem not in {"utils", "helpers", "common", "misc", "types", "manager"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 70, f"{node.name} is longer than a screen"


def test_the_error_table_is_that_of_the_documents() -> None:
    rows = {}
    for document in ("PROTOCOL", "GROUPS"):
        text = (REPOSITORY / "docs" / f"{document}.md").read_text()
        for row in re.finditer(r"^\| (\d+) \| `(\w+)` \| (yes|no) \| (.*) \|$", text, re.MULTILINE):
            code, name, retriable, said = row.groups()
            rows[int(code)] = (name, retriable == "yes", said)
    for number, (name, retriable, said) in rows.items():
        code = ErrorCode(number)
        assert (code.table_name, code.retriable) == (name, retriable)
        if not 133 <= code <= 137:
            # The documents of groups say when, not what to do.
            assert code.advice == said
    assert {int(code) for code in ErrorCode} == set(rows)


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for module in (minikafka, minikafka.aio):
        for name in module.__all__:
            assert hasattr(module, name)
            assert name in ("__version__", "StartAt") or getattr(module, name).__doc__, name


def test_a_cancellation_that_comes_together_with_the_event_is_not_lost() -> None:
    """Cause: asyncio.wait_for, before Python 3.12, returns the result when both come at once. Effect: a fetcher that
    was being closed went round once more, and closing its consumer never ended. Fix: wait_until."""

    async def test() -> None:
        for at in (None, asyncio.get_running_loop().time() + 50):
            event = asyncio.Event()
            waiting = asyncio.ensure_future(wait_until(event, at))
            await asyncio.sleep(0)
            event.set()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(test())


def test_an_event_is_waited_for_no_longer_than_asked() -> None:
    async def test() -> None:
        event = asyncio.Event()
        await asyncio.wait_for(wait_until(event, asyncio.get_running_loop().time() + 0.01), 10)
        assert event.is_set()

    asyncio.run(test())
