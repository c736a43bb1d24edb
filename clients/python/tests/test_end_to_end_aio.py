"""The asyncio client against a real broker: the same engines as the synchronous one, so here is what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timezone
from typing import Any, Callable

import pytest

from minikafka import (
    BufferFullError,
    ClosedError,
    DeadlineExceededError,
    NoGatewayError,
    ProducerOptions,
    TopicConfigChange,
    UnknownTopicError,
    aio,
)

from .broker import Broker
from .waiting import PATIENCE, until_async


def run(broker: Broker, test: Callable[[aio.Client], Awaitable[None]]) -> None:
    """Runs a test with a client of its own, on a loop of its own."""

    async def running() -> None:
        async with aio.Client(broker.gateway) as client:
            await asyncio.wait_for(test(client), 50)

    asyncio.run(running())


def test_records_are_sent_and_read(broker: Broker, topic: str) -> None:
    async def test(client: aio.Client) -> None:
        await client.create_topic(topic, partitions=4)
        async with client.producer() as producer:
            delivery = await producer.send(topic, b"value", b"key", headers={"n": b"1"})
            assert (await delivery).offset == 0
            assert (await delivery) == (await delivery), "awaited as often as one likes"
            many = await producer.send_many(topic, [b"%d" % number for number in range(3000)])
            runs = await many
            assert sum(each.record_count for each in runs) == 3000
            together = await asyncio.gather(*[await producer.send(topic, b"x") for _ in range(50)])
            assert len({(each.partition, each.offset) for each in together}) == 50
            assert producer.try_send(topic, b"x").partition in range(4)
        async with await client.consumer(topic) as consumer:
            count = 0
            async for record in consumer:
                count += 1
                if record.key == b"key":
                    assert (record.value, record.headers) == (b"value", [("n", b"1")])
                if count == 3052:
                    break
            assert await until_async(consumer.is_at_end)
            assert await consumer.poll(0) is None
            consumer.seek(runs[0].first.partition, 0)
            async for batch in consumer.batches():
                assert (batch.partition, batch.first_offset) == (runs[0].first.partition, 0)
                break

    run(broker, test)


def test_breaking_out_of_the_middle_of_a_batch_leaves_nothing_out(broker: Broker, topic: str) -> None:
    async def test(client: aio.Client) -> None:
        await client.create_topic(topic, partitions=1)
        async with client.producer() as producer:
            await (await producer.send_many(topic, [b"%d" % number for number in range(100)]))
        found = []
        async with await client.consumer(topic) as consumer:
            for end in (10, 40, 100):
                async for record in consumer:
                    found.append(record.offset)
                    if len(found) == end:
                        break
        assert found == list(range(100))

    run(broker, test)


def test_an_application_that_sends_without_pause_lets_its_sender_run(broker: Broker, topic: str) -> None:
    async def test(client: aio.Client) -> None:
        await client.create_topic(topic, partitions=2)
        async with client.producer(ProducerOptions(buffer_bytes=64 << 10, batch_bytes=8 << 10)) as producer:
            first = await producer.send(topic, b"first")
            sent = 0
            while not first.done():
                await producer.send(topic, b"x" * 100)
                sent += 1
                assert sent < 1_000_000, "its sender never ran"
            full = 0
            for _ in range(2000):
                try:
                    producer.try_send(topic, b"x" * 1000)
                except BufferFullError:
                    full += 1
            assert full > 0

    run(broker, test)


def test_topics_offsets_and_errors(broker: Broker, topic: str) -> None:
    async def test(client: aio.Client) -> None:
        made = await client.create_topic(topic, partitions=2)
        assert await client.describe_topic(topic) == made
        assert (await client.alter_topic(topic, TopicConfigChange(retention_ms=1000))).config.retention_ms == 1000
        async with client.producer() as producer:
            for _ in range(5):
                await (await producer.send(topic, b"x", partition=1))
        assert await client.latest_offsets(topic) == {0: 0, 1: 5}
        assert await client.delete_records(topic, {1: 2}) == {1: 2}
        assert await client.earliest_offsets(topic) == {0: 0, 1: 2}
        assert await client.offsets_at(topic, datetime.fromtimestamp(0, timezone.utc)) == {0: 0, 1: 2}
        assert topic in [each.name for each in await client.list_topics()]
        await client.delete_topic(topic)
        with pytest.raises(UnknownTopicError):
            await client.describe_topic(topic)
        assert client.counters().records_sent == 5

    run(broker, test)


def test_a_wait_that_is_cancelled_takes_nothing_away(broker: Broker, topic: str) -> None:
    async def test(client: aio.Client) -> None:
        await client.create_topic(topic, partitions=1)
        async with await client.consumer(topic) as consumer, client.producer() as producer:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(consumer.poll(), 0.05)
            delivery = await producer.send(topic, b"x")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_never_done(), 0.01)
            assert (await delivery).offset == 0
            record = await consumer.poll(PATIENCE)
            assert record is not None and record.value == b"x"

    async def _never_done() -> None:
        await asyncio.Event().wait()

    run(broker, test)


def test_everything_answers_closed_afterwards(broker: Broker, topic: str) -> None:
    async def test(_: aio.Client) -> None:
        client = aio.Client(broker.gateway)
        producer = client.producer()
        delivery = await producer.send(topic, b"flushed by close")
        consumer = await client.consumer(topic)
        await client.close()
        await client.close()
        assert (await delivery).offset == 0
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: producer.send(topic, b"late"),
            consumer.poll,
            client.list_topics,
            lambda: client.consumer(topic),
        ]
        for call in calls:
            with pytest.raises(ClosedError):
                await call()

    run(broker, test)


def test_a_client_without_a_gateway_says_so(broker: Broker) -> None:
    async def test(_: aio.Client) -> None:
        async with aio.Client("127.0.0.1:1") as client:
            with pytest.raises(NoGatewayError):
                await client.list_topics()

    run(broker, test)


def test_a_delivery_timeout_is_told(broker: Broker, topic: str) -> None:
    async def test(client: aio.Client) -> None:
        options = ProducerOptions(linger=3600, send_when_idle=False, delivery_timeout=0.2)
        await client.create_topic(topic, partitions=1)
        producer = client.producer(options)
        delivery = await producer.send(topic, b"x")
        with pytest.raises(DeadlineExceededError):
            await asyncio.wait_for(delivery, PATIENCE)
        await asyncio.gather(producer.close(), return_exceptions=True)

    run(broker, test)
