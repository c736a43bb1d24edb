"""The examples of the README are run as they stand there, against a real broker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from minikafka import Client

from .broker import Broker

README = Path(__file__).parents[1] / "README.md"
#: The repository's own has one, too.
READMES = (README, Path(__file__).parents[3] / "README.md")

EXAMPLES = [
    example
    for readme in READMES
    for example in re.findall(r"^```python\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)
]


class EnoughError(Exception):
    """Ends an example that would go on for ever."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.strip().splitlines()[-1][:40])
def test_an_example(example: str, broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    address = broker.gateway
    with Client(address) as client:
        names = [topic.name for topic in client.list_topics()]
        if "orders" in names and 'create_topic("orders"' in example:
            client.delete_topic("orders")
        elif "orders" not in names and 'create_topic("orders"' not in example:
            client.create_topic("orders", partitions=2)
        if 'create_topic("orders"' not in example:
            with client.producer() as producer:
                producer.send_many("orders", [b"value"] * 10, [b"key"] * 10)
    handled: list[Any] = []

    def handle(*what: object) -> None:
        handled.append(what)
        if len(handled) == 5:
            raise EnoughError

    try:
        exec(
            compile(example.replace("localhost:9000", address), str(README), "exec"),
            {"Client": Client, "handle": handle},
        )
    except EnoughError:
        assert handled
    else:
        assert "handle(" not in example and capsys.readouterr().out, "it printed something"


def test_examples_are_short() -> None:
    assert len(EXAMPLES) >= 11
    assert all(sum(bool(line) for line in example.splitlines()) < 10 for example in EXAMPLES)
