"""The queue: the rules of docs/CLIENTS.md section 5, at a cluster in memory and at a real broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import minikafka
from minikafka import Client, Delivered, InvalidOptionError, Queue, aio

from .broker import Broker, binary
from .fake_cluster import FakeCluster
from .waiting import PATIENCE, until, until_async


def connect(address: str) -> Queue:
    return minikafka.connect(address)


@pytest.fixture(params=["in memory", "of a broker"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a queue is that has only one test's records."""
    if request.param == "in memory":
        cluster: FakeCluster = request.getfixturevalue("cluster")
        yield cluster.address
    elif binary() is None:
        pytest.skip("no broker: build it (cargo build -p minikafka), or name it in MINIKAFKA_BINARY")
    else:
        with Broker() as broker:
            yield broker.gateway


def keys_of_one_partition(count: int) -> list[bytes]:
    from zlib import crc32

    return [key for key in (b"%d" % number for number in range(10_000)) if crc32(key) % 8 == 3][:count]


def test_what_is_pushed_is_pulled_in_the_order_of_its_key(address: str) -> None:
    with connect(address) as queue:
        first = queue.push(b"k", b"0")
        assert isinstance(first, Delivered) and first.offset == 0
        for number in range(1, 20):
            queue.push(b"k", b"%d" % number)
        assert [queue.pull(PATIENCE) for _ in range(20)] == [(b"k", b"%d" % number) for number in range(20)]
        assert queue.pull(timeout=0.01) is None
    with Client(address) as client:
        assert client.describe_topic("queue").partitions == 8


def test_a_pull_acknowledges_the_one_before_and_close_the_last(address: str) -> None:
    with connect(address) as queue:
        for number in range(4):
            queue.push(b"k", b"%d" % number)
        queue.pull(PATIENCE)
        queue.pull(PATIENCE)
    with connect(address) as queue:
        assert queue.pull(PATIENCE) == (b"k", b"2")


def test_what_is_in_hand_when_a_consumer_dies_is_given_out_again(address: str) -> None:
    with connect(address) as queue:
        for number in range(3):
            queue.push(b"k", b"%d" % number)
        dying = connect(address)
        assert dying.pull(PATIENCE) == (b"k", b"0")
        assert dying.pull(PATIENCE) == (b"k", b"1")
        # It commits and goes, but the last one is not acknowledged.
        dying._last = None
        dying.close()
        assert queue.pull(PATIENCE) == (b"k", b"1")


def test_ack_and_nack(address: str) -> None:
    with connect(address) as queue:
        for number in range(3):
            queue.push(b"k", b"%d" % number)
        first = queue.pull(PATIENCE, ack=False)
        second = queue.pull(PATIENCE, ack=False)
        assert first is not None and second is not None
        assert (first.key, first.value, second.value) == (b"k", b"0", b"1")
        second.nack()
        first.nack()
        first.ack()
        again = [queue.pull(PATIENCE, ack=False) for _ in range(3)]
        assert [each.value for each in again if each] == [b"0", b"1", b"2"], "before anything behind them"
        for each in again:
            assert each is not None
            each.ack()
    with connect(address) as queue:
        assert queue.pull(timeout=0.05) is None, "everything is acknowledged"


def test_each_record_goes_to_one_consumer(address: str) -> None:
    with connect(address) as producer, connect(address) as one, connect(address) as other:
        found: list[Any] = []

        def pull() -> bool:
            for queue in (one, other):
                item = queue.pull(timeout=0)
                if item is not None:
                    found.append(item)
            return len(found) >= 200

        # Both join before anything is there.
        until(lambda: pull() or (one._consumer and other._consumer and len(other._consumer.assignment()) == 4))
        for number in range(200):
            producer.push(b"%d" % number, b"%d" % number)
        until(pull)
        assert sorted(found) == sorted((b"%d" % number, b"%d" % number) for number in range(200))


def test_a_subscription_calls_for_each_record_and_again_after_an_error(address: str) -> None:
    key, *_ = keys_of_one_partition(1)
    calls: list[bytes | None] = []
    done = threading.Event()

    def callback(_: bytes | None, value: bytes | None) -> None:
        calls.append(value)
        if calls.count(b"1") == 1 and value == b"1":
            raise RuntimeError("the application's mistake")
        if value == b"3":
            done.set()

    with connect(address) as queue:
        for number in range(4):
            queue.push(key, b"%d" % number)
        queue.subscribe(callback)
        assert done.wait(PATIENCE)
        with pytest.raises(InvalidOptionError):
            queue.pull()
        with pytest.raises(InvalidOptionError):
            queue.subscribe(callback)
    assert calls == [b"0", b"1", b"1", b"2", b"3"]
    with connect(address) as queue:
        assert queue.pull(timeout=0.05) is None


def test_a_partition_that_moves_takes_along_what_was_not_acknowledged(address: str) -> None:
    with connect(address) as queue:
        for number in range(40):
            queue.push(b"%d" % number, b"x")
        first = [queue.pull(PATIENCE, ack=False) for _ in range(40)]
        for each in first:
            assert each is not None
            each.nack()
        with connect(address) as other:
            values = [other.pull(PATIENCE) for _ in range(3)]
            assert all(value is not None for value in values)
            assert queue._consumer is not None and other._consumer is not None
            mine = {partition for _, partition in queue._consumer.assignment()}
            again = []
            while (delivery := queue.pull(timeout=0, ack=False)) is not None:
                again.append(delivery._record.partition)
            assert set(again) <= mine, "what went to the other one is not given out here"


def test_the_asyncio_queue(address: str) -> None:
    async def test() -> None:
        async with aio.connect(address) as queue:
            for number in range(5):
                await queue.push(b"k", b"%d" % number)
            assert await queue.pull(PATIENCE) == (b"k", b"0")
            delivery = await queue.pull(PATIENCE, ack=False)
            assert delivery is not None and delivery.value == b"1"
            delivery.nack()
            calls: list[bytes | None] = []

            async def callback(_: bytes | None, value: bytes | None) -> None:
                calls.append(value)
                if len(calls) == 2:
                    raise RuntimeError("the application's mistake")

            await queue.subscribe(callback)
            await until_async(lambda: len(calls) == 5)
            assert calls == [b"1", b"2", b"2", b"3", b"4"]
            with pytest.raises(InvalidOptionError):
                await queue.pull()

    asyncio.run(asyncio.wait_for(test(), 50))
