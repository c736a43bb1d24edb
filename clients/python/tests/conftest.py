"""What tests share: the golden vectors, a real broker, topics of their own."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from minikafka import Client

from .broker import Broker, binary
from .fake_cluster import FakeCluster

REPOSITORY = Path(__file__).parents[3]

logging.getLogger("minikafka").setLevel(logging.DEBUG)


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """Golden vectors by the name of their file."""

    def load(name: str) -> Any:
        return json.loads((REPOSITORY / "tests" / "vectors" / f"{name}.json").read_text())

    return load


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A real broker that tests share; they use topics of their own."""
    if binary() is None:
        pytest.skip("no broker: build it (cargo build -p minikafka), or name it in MINIKAFKA_BINARY")
    with Broker() as running:
        yield running


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    """A client of the real broker."""
    with Client(broker.gateway) as connected:
        yield connected


_numbers = itertools.count()


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """The name of a topic that no other test uses; it is not made yet."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return f"{name[:80]}-{next(_numbers)}"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A cluster of one fake server, which does what tests tell it."""
    with FakeCluster() as running:
        yield running
