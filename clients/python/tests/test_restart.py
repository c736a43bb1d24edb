"""A broker that is killed, and comes back: nothing acknowledged is lost, nothing is there twice, nobody notices."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from minikafka import Client, DeadlineExceededError, NoGatewayError, ProducerOptions

from .broker import Broker, binary
from .waiting import PATIENCE, until


@pytest.fixture
def mortal() -> Iterator[Broker]:
    """A broker of this test's own."""
    if binary() is None:
        pytest.skip("no broker: build it (cargo build -p minikafka), or name it in MINIKAFKA_BINARY")
    with Broker() as broker:
        yield broker


def test_nothing_is_lost_and_nothing_twice_when_the_broker_dies(mortal: Broker) -> None:
    with Client(mortal.gateway) as client:
        client.create_topic("orders", partitions=4)
        stop = threading.Event()
        sent = 0
        failures: list[BaseException] = []

        def send() -> None:
            nonlocal sent
            try:
                with client.producer(ProducerOptions(batch_bytes=8 << 10, buffer_bytes=1 << 20)) as producer:
                    while not stop.is_set():
                        producer.send("orders", b"%d" % sent, b"key-%d" % (sent % 13))
                        sent += 1
            except BaseException as error:  # told to the test
                failures.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        found: dict[bytes, list[int]] = {}
        with client.consumer("orders") as consumer:

            def read(more: int) -> int:
                """Reads until so many more records have come; how many have, in all."""
                wanted = sum(map(len, found.values())) + more
                while sum(map(len, found.values())) < wanted:
                    record = consumer.poll(PATIENCE)
                    assert record is not None and record.key is not None and record.value is not None
                    found.setdefault(record.key, []).append(int(record.value))
                return wanted

            for _ in range(2):
                read(2000)
                mortal.kill()
                mortal.start()
                read(2000)
            stop.set()
            sender.join(60)
            assert not sender.is_alive() and not failures, failures
            read(sent - sum(map(len, found.values())))
            assert until(consumer.is_at_end)
        for key, numbers in found.items():
            assert numbers == list(range(int(key[4:]), sent, 13)), "each once, and in order"
        assert client.counters().connections_lost > 0


def test_a_delivery_that_can_not_be_made_says_that_in_time(mortal: Broker) -> None:
    with Client(mortal.gateway) as client:
        client.create_topic("orders", partitions=1)
        with client.producer(ProducerOptions(delivery_timeout=1.0)) as producer:
            producer.send("orders", b"x").result(PATIENCE)
            mortal.kill()
            error = producer.send("orders", b"y").exception(PATIENCE)
            assert isinstance(error, DeadlineExceededError)
            assert error.retriable and "orders" in str(error)
            with pytest.raises(DeadlineExceededError):
                producer.flush()
        mortal.start()
        with client.producer() as producer:
            assert producer.send("orders", b"z").result(PATIENCE).offset in (1, 2)


def test_a_client_whose_gateway_is_gone_says_so_and_goes_on_when_it_is_back(mortal: Broker) -> None:
    with Client(mortal.gateway) as client:
        assert client.list_topics() == []
        mortal.kill()
        with pytest.raises(NoGatewayError):
            client.list_topics()
        mortal.start()
        assert client.list_topics() == []
