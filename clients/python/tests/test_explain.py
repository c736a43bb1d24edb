"""Explain: what is told reaches who asked, and nobody asks who can not tell."""

from __future__ import annotations

import pytest

from minikafka import Client, ConsumerOptions, Explain, ProducerOptions

from .broker import Broker, binary
from .fake_cluster import FakeCluster

PRODUCER = ProducerOptions(explain=True)
CONSUMER = ConsumerOptions(explain=True)


def check(told: Explain | None, hops: int, *stages: str) -> Explain:
    """Every stage lies within its hop, the first hop within the round trip, and its stages are these."""
    assert told is not None
    assert len(told.hops) == hops
    assert told.hops[0].whole_us <= told.round_trip * 1e6
    for hop in told.hops:
        assert all(span.start_us + span.took_us <= hop.whole_us for span in hop.stages)
    assert {span.name for span in told.hops[0].stages} == set(stages)
    return told


def test_a_chain_of_three_and_a_fetch_are_explained(topic: str) -> None:
    if binary() is None:
        pytest.skip("no broker: build it (cargo build -p minikafka), or name it in MINIKAFKA_BINARY")
    with Broker("--nodes", "3") as broker, Client(broker.gateway) as client:
        client.create_topic(topic, partitions=1)
        with client.producer(options=PRODUCER) as producer:
            delivered = producer.send(topic, b"bought").result()
        stages = ("receive", "checksum", "append", "durable", "successor", "answer")
        told = check(delivered.explain, 3, *stages)
        waited = told.hops[0].took_us("successor")
        assert waited is not None
        assert told.hops[1].whole_us <= waited + 1_000, "the head waited for its successor"
        assert len({hop.node for hop in told.hops}) == 3
        with client.consumer(topic, start="earliest", options=CONSUMER) as consumer:
            batch = consumer.poll_batch(10)
            assert batch is not None
            check(batch.explain, 1, "memory", "read", "room")


def test_an_older_server_is_not_asked() -> None:
    with FakeCluster() as cluster, Client(cluster.address) as client:
        with client.producer(options=PRODUCER) as producer:
            assert producer.send("orders", b"bought").result(10).explain is None
        with client.consumer("orders", start="earliest", options=CONSUMER) as consumer:
            batch = consumer.poll_batch(10)
            assert batch is not None
            assert batch.explain is None
