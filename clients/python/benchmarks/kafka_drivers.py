"""The same loads with clients of Kafka, against a Kafka that is running: each driver only if its package is installed.

Each waits for the acknowledgement of every replica (``acks=all``), as this client always does. What Kafka acknowledges
is in memory unless it is configured otherwise; what MiniKafka acknowledges is on stable storage.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Callable

from .workloads import Load, Measured, Stopwatch

#: Driver and workload; the arguments are the address and the load.
Driver = Callable[[str, Load], Measured]


def _topic(address: str, load: Load) -> str:
    from confluent_kafka.admin import AdminClient, NewTopic

    name = f"benchmark-{os.getpid()}-{time.monotonic_ns()}"
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(name, load.partitions, 1)])[name].result()
    return name


def _confluent_producer(address: str) -> Any:
    from confluent_kafka import Producer

    return Producer(
        {
            "bootstrap.servers": address,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "batch.size": 256 << 10,
            "queue.buffering.max.messages": 1_000_000,
        }
    )


def _fill(address: str, load: Load) -> str:
    topic = _topic(address, load)
    _confluent_send(_confluent_producer(address), topic, load)
    return topic


def _confluent_send(producer: Any, topic: str, load: Load) -> None:
    failed = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    for _ in load.chunks:
        for key, value in zip(load.keys, load.values):
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)
    producer.flush()
    assert not failed, failed[0]


def confluent_send(address: str, load: Load) -> Measured:
    """confluent-kafka: a call and a callback for each record."""
    topic = _topic(address, load)
    producer = _confluent_producer(address)
    with Stopwatch() as watch:
        _confluent_send(producer, topic, load)
    return watch.measured(load.records)


def confluent_iterate(address: str, load: Load) -> Measured:
    """confluent-kafka: batches of 10,000 messages, key and value of each looked at."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    topic = _fill(address, load)
    consumer = Consumer({"bootstrap.servers": address, "group.id": "benchmark", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(load.partitions)])
    count = 0
    with Stopwatch() as watch:
        while count < load.records:
            for message in consumer.consume(10_000, timeout=5.0):
                if message.error() is None and message.key() is not None and message.value() is not None:
                    count += 1
    consumer.close()
    return watch.measured(count)


def kafka_python_send(address: str, load: Load) -> Measured:
    """kafka-python: a call and a future for each record."""
    from kafka import KafkaProducer

    topic = _topic(address, load)
    producer = KafkaProducer(bootstrap_servers=address, acks="all", linger_ms=5, batch_size=256 << 10)
    with Stopwatch() as watch:
        for _ in load.chunks:
            for key, value in zip(load.keys, load.values):
                future = producer.send(topic, value, key)
        producer.flush()
    assert future.succeeded()
    producer.close()
    return watch.measured(load.records)


def kafka_python_iterate(address: str, load: Load) -> Measured:
    """kafka-python: ``for record in consumer``."""
    from kafka import KafkaConsumer, TopicPartition

    topic = _fill(address, load)
    consumer = KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, number) for number in range(load.partitions)])
    consumer.seek_to_beginning()
    count = 0
    with Stopwatch() as watch:
        for _ in consumer:
            count += 1
            if count == load.records:
                break
    consumer.close()
    return watch.measured(count)


def aiokafka_send(address: str, load: Load) -> Measured:
    """aiokafka: an awaited call and a future for each record."""
    from aiokafka import AIOKafkaProducer

    topic = _topic(address, load)

    async def running() -> Measured:
        producer = AIOKafkaProducer(
            bootstrap_servers=address, acks="all", linger_ms=5, max_batch_size=256 << 10, enable_idempotence=True
        )
        async with producer:
            with Stopwatch() as watch:
                for _ in load.chunks:
                    for key, value in zip(load.keys, load.values):
                        await producer.send(topic, value, key)
                await producer.flush()
        return watch.measured(load.records)

    return asyncio.run(running())


def aiokafka_iterate(address: str, load: Load) -> Measured:
    """aiokafka: ``async for record in consumer``."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    topic = _fill(address, load)

    async def running() -> Measured:
        consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, auto_offset_reset="earliest")
        count = 0
        async with consumer:
            consumer.assign([TopicPartition(topic, number) for number in range(load.partitions)])
            with Stopwatch() as watch:
                async for _ in consumer:
                    count += 1
                    if count == load.records:
                        break
        return watch.measured(count)

    return asyncio.run(running())


DRIVERS: dict[str, Driver] = {
    "confluent-kafka send": confluent_send,
    "confluent-kafka iterate": confluent_iterate,
    "kafka-python send": kafka_python_send,
    "kafka-python iterate": kafka_python_iterate,
    "aiokafka send": aiokafka_send,
    "aiokafka iterate": aiokafka_iterate,
}
