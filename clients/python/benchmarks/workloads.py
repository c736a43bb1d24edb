"""What is measured of this client: acknowledged records, and records read."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from dataclasses import dataclass
from typing import Callable

from minikafka import Client, ProducerOptions, aio

#: Records of one call of ``send_many``, and values that differ.
CHUNK = 10_000


@dataclass(frozen=True)
class Load:
    """What is sent and read."""

    records: int
    values: list[bytes]
    keys: list[bytes]
    partitions: int

    @classmethod
    def of(cls, records: int, value_bytes: int, partitions: int) -> Load:
        """So many records of so many bytes."""
        values = [os.urandom(value_bytes) for _ in range(CHUNK)]
        keys = [b"user-%05d" % number for number in range(CHUNK)]
        return cls(-(-records // CHUNK) * CHUNK, values, keys, partitions)

    @property
    def chunks(self) -> range:
        """How often all values are sent."""
        return range(self.records // CHUNK)


@dataclass(frozen=True)
class Measured:
    """One run."""

    records: int
    seconds: float
    #: Of this process, user and system.
    cpu_seconds: float


class Stopwatch:
    """Measures what is done within it."""

    def __enter__(self) -> Stopwatch:
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.cpu_seconds = time.process_time() - self._cpu_began

    def measured(self, records: int) -> Measured:
        """The run."""
        return Measured(records, self.seconds, self.cpu_seconds)


_numbers = itertools.count()


def _topic(client: Client, load: Load) -> str:
    name = f"benchmark-{os.getpid()}-{next(_numbers)}"
    client.create_topic(name, partitions=load.partitions)
    return name


def send(client: Client, load: Load) -> Measured:
    """One call, with a key and a future, for each record."""
    topic = _topic(client, load)
    with client.producer() as producer, Stopwatch() as watch:
        for _ in load.chunks:
            for key, value in zip(load.keys, load.values):
                future = producer.send(topic, value, key)
        producer.flush()
    assert future.done()
    client.delete_topic(topic)
    return watch.measured(load.records)


def send_many(client: Client, load: Load) -> Measured:
    """One call for 10,000 records without keys."""
    return _send_many(client, load, None)


def send_many_keyed(client: Client, load: Load) -> Measured:
    """One call for 10,000 records with keys."""
    return _send_many(client, load, load.keys)


def _send_many(client: Client, load: Load, keys: list[bytes] | None) -> Measured:
    topic = _topic(client, load)
    with client.producer() as producer, Stopwatch() as watch:
        for _ in load.chunks:
            future = producer.send_many(topic, load.values, keys)
        producer.flush()
    assert future.done()
    client.delete_topic(topic)
    return watch.measured(load.records)


def _filled(client: Client, load: Load) -> str:
    topic = _topic(client, load)
    with client.producer(ProducerOptions()) as producer:
        for _ in load.chunks:
            producer.send_many(topic, load.values, load.keys)
    return topic


def iterate(client: Client, load: Load) -> Measured:
    """``for record in consumer``, key and value of each looked at."""
    topic = _filled(client, load)
    count = value_bytes = 0
    with client.consumer(topic) as consumer, Stopwatch() as watch:
        for record in consumer:
            if record.value is not None and record.key is not None:
                value_bytes += len(record.value)
            count += 1
            if count == load.records:
                break
    client.delete_topic(topic)
    return watch.measured(count)


def columns(client: Client, load: Load) -> Measured:
    """``for batch in consumer.batches()``: verified and validated, not cut into records."""
    topic = _filled(client, load)
    count = value_bytes = 0
    with client.consumer(topic) as consumer, Stopwatch() as watch:
        for batch in consumer.batches():
            value_bytes += len(batch.values.data)
            count += len(batch)
            if count == load.records:
                break
    client.delete_topic(topic)
    return watch.measured(count)


def send_aio(client: Client, load: Load) -> Measured:
    """The asyncio producer: one awaited call for each record."""
    topic = _topic(client, load)

    async def running() -> Measured:
        async with aio.Client(client.gateways) as other, other.producer() as producer:
            with Stopwatch() as watch:
                for _ in load.chunks:
                    for key, value in zip(load.keys, load.values):
                        await producer.send(topic, value, key)
                await producer.flush()
        return watch.measured(load.records)

    measured = asyncio.run(running())
    client.delete_topic(topic)
    return measured


def iterate_aio(client: Client, load: Load) -> Measured:
    """``async for record in consumer``."""
    topic = _filled(client, load)

    async def running() -> Measured:
        count = 0
        async with aio.Client(client.gateways) as other, await other.consumer(topic) as consumer:
            with Stopwatch() as watch:
                async for _ in consumer:
                    count += 1
                    if count == load.records:
                        break
        return watch.measured(count)

    measured = asyncio.run(running())
    client.delete_topic(topic)
    return measured


WORKLOADS: dict[str, Callable[[Client, Load], Measured]] = {
    "send": send,
    "send_many": send_many,
    "send_many_keyed": send_many_keyed,
    "iterate": iterate,
    "columns": columns,
    "send_aio": send_aio,
    "iterate_aio": iterate_aio,
}


def latencies(client: Client, load: Load, count: int) -> tuple[float, float]:
    """Median and 99th percentile, in microseconds, of one record at a time, acknowledged."""
    topic = _topic(client, load)
    took = []
    with client.producer() as producer:
        producer.send(topic, load.values[0], load.keys[0]).result()
        for key, value in itertools.islice(itertools.cycle(zip(load.keys, load.values)), count):
            began = time.perf_counter()
            producer.send(topic, value, key).result()
            took.append((time.perf_counter() - began) * 1e6)
    client.delete_topic(topic)
    return statistics.median(took), statistics.quantiles(took, n=100)[98]
