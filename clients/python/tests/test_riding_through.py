"""What a client owes its user while servers refuse, lose answers and move (docs/PROTOCOL.md, "Riding through"): records
are stored once and in order, and read once and in order."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minikafka import (
    BrokerError,
    Client,
    ClientOptions,
    ConnectionLostError,
    OutcomeUnknownError,
    ProducerOptions,
    TopicExistsError,
)
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.frames import Frame
from minikafka.protocol.messages import Api
from minikafka.protocol.messages.data import PartitionKey, ProduceRequest

from .fake_cluster import FakeCluster, Interceptor
from .fake_server import Peer
from .waiting import PATIENCE, until


def refuses(code: ErrorCode, *, epoch: int = 0, retry_after_ms: int = 0) -> Interceptor:
    def refusing(peer: Peer, frame: Frame) -> bool:
        peer.refuse(frame, code, epoch=epoch, retry_after_ms=retry_after_ms)
        return True

    return refusing


def passes(peer: Peer, frame: Frame) -> bool:
    return False


def breaks(peer: Peer, frame: Frame) -> bool:
    peer.close()
    return True


def stores_and(cluster: FakeCluster, then: Interceptor) -> Interceptor:
    """Stores the batch, and answers otherwise: what a client can not tell from not storing it."""

    def storing(peer: Peer, frame: Frame) -> bool:
        request = ProduceRequest.decode(frame.head)
        log = cluster.logs[PartitionKey(request.header.topic_id, request.header.partition)]
        log.produce(request.header, bytes(frame.bulk))
        return then(peer, frame)

    return storing


MOVES = ["refuse", "break", "store and break", "store and time out", "pass", "pass", "pass", "new epoch"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(MOVES), max_size=12), st.lists(st.sampled_from(["refuse", "break", "pass"]), max_size=5)
)
def test_each_record_is_stored_once_and_read_once_in_order(
    cluster: FakeCluster, produces: list[str], fetches: list[str]
) -> None:
    name = f"orders-{len(cluster.topics)}"
    cluster.add_topic(name, 2)
    cluster.intercept_next.clear()

    def moves(peer: Peer, frame: Frame) -> bool:
        cluster.epoch += 1
        return refuses(ErrorCode.STALE, epoch=cluster.epoch)(peer, frame)

    interceptors: dict[str, Interceptor] = {
        "refuse": refuses(ErrorCode.NOT_OWNER),
        "break": breaks,
        "store and break": stores_and(cluster, breaks),
        "store and time out": stores_and(cluster, refuses(ErrorCode.TIMED_OUT)),
        "pass": passes,
        "new epoch": moves,
    }
    cluster.intercept(Api.PRODUCE, *[interceptors[move] for move in produces])
    cluster.intercept(Api.FETCH, *[interceptors[move] for move in fetches])
    with Client(cluster.address) as client:
        with client.producer(ProducerOptions(batch_bytes=1024)) as producer:
            sent = [producer.send(name, b"%d" % number, b"%d" % (number % 5)) for number in range(300)]
        offsets = {(delivery.partition, delivery.result(0).offset) for delivery in sent}
        assert len(offsets) == 300
        with client.consumer(name) as consumer:
            records = [consumer.poll(PATIENCE) for _ in range(300)]
            last: dict[bytes, int] = {}
            for record in records:
                assert record is not None and record.key is not None and record.value is not None
                assert int(record.value) > last.get(record.key, -1)
                last[record.key] = int(record.value)
            assert until(consumer.is_at_end)
            assert consumer.poll(0) is None


def test_a_pause_that_the_server_asks_for_is_made(cluster: FakeCluster) -> None:
    cluster.add_topic("orders", 1)
    cluster.intercept(Api.PRODUCE, refuses(ErrorCode.THROTTLED, retry_after_ms=300))
    with Client(cluster.address) as client, client.producer() as producer:
        began = time.monotonic()
        producer.send("orders", b"x").result(PATIENCE)
        assert time.monotonic() - began >= 0.3
        assert client.counters().errors[ErrorCode.THROTTLED] == 1
        assert client.counters().batches_retried == 1


def test_a_forgotten_producer_goes_on_under_another_id(cluster: FakeCluster) -> None:
    topic = cluster.add_topic("orders", 1)
    log = cluster.logs[PartitionKey(topic.topic, 0)]
    with Client(cluster.address) as client, client.producer() as producer:
        producer.send("orders", b"1").result(PATIENCE)
        cluster.server.call(log.producers.clear)
        assert producer.send("orders", b"2").result(PATIENCE).offset == 1
        assert len({header.producer_id for header, _ in log.entries}) == 2


def test_what_may_be_stored_under_a_forgotten_producer_is_told_and_not_sent_again(cluster: FakeCluster) -> None:
    topic = cluster.add_topic("orders", 1)
    log = cluster.logs[PartitionKey(topic.topic, 0)]

    def forgets(peer: Peer, frame: Frame) -> bool:
        log.producers.clear()
        return False

    with Client(cluster.address) as client, client.producer() as producer:
        producer.send("orders", b"1").result(PATIENCE)
        cluster.intercept(Api.PRODUCE, stores_and(cluster, breaks), forgets)
        error = producer.send("orders", b"2").exception(PATIENCE)
        assert isinstance(error, OutcomeUnknownError) and error.outcome_unknown
        assert log.end == 2
        with pytest.raises(OutcomeUnknownError):
            producer.flush()


def test_without_idempotence_records_are_not_numbered(cluster: FakeCluster) -> None:
    topic = cluster.add_topic("orders", 1)
    log = cluster.logs[PartitionKey(topic.topic, 0)]
    with Client(cluster.address) as client, client.producer(ProducerOptions(idempotent=False)) as producer:
        for number in range(5):
            producer.send("orders", b"%d" % number)
        producer.flush()
    assert {(header.producer_id, header.base_sequence) for header, _ in log.entries} == {(-1, 0)}


def test_a_creation_whose_answer_was_lost_is_taken_for_its_own(cluster: FakeCluster) -> None:
    def creates_and_breaks(peer: Peer, frame: Frame) -> bool:
        cluster.add_topic("orders", 3)
        return breaks(peer, frame)

    cluster.intercept(Api.CREATE_TOPIC, creates_and_breaks)
    with Client(cluster.address) as client:
        assert client.create_topic("orders", partitions=3).partitions == 3
        with pytest.raises(TopicExistsError):
            client.create_topic("orders", partitions=3)


def test_the_controller_that_is_named_is_asked(cluster: FakeCluster) -> None:
    with FakeCluster() as controller:

        def names_controller(peer: Peer, frame: Frame) -> bool:
            peer.refuse(frame, ErrorCode.NOT_CONTROLLER, controller.address)
            return True

        cluster.intercept(Api.CREATE_TOPIC, names_controller)
        with Client(cluster.address) as client:
            client.create_topic("orders", partitions=3)
        assert list(controller.topics) == ["orders"]
        assert not cluster.topics


def test_a_topic_that_is_known_is_not_asked_about_again(cluster: FakeCluster) -> None:
    cluster.add_topic("orders", 1)
    with Client(cluster.address) as client:
        for _ in range(3):
            with client.producer() as producer:
                producer.send("orders", b"x").result(PATIENCE)
        assert cluster.server.requests.count(Api.RESOLVE) == 1


def test_offsets_are_asked_again_of_whoever_owns_the_partition_by_then(cluster: FakeCluster) -> None:
    cluster.add_topic("orders", 3)
    cluster.intercept(Api.LIST_OFFSETS, refuses(ErrorCode.NOT_OWNER), breaks, refuses(ErrorCode.OVERLOADED))
    with Client(cluster.address) as client:
        assert client.latest_offsets("orders") == {0: 0, 1: 0, 2: 0}
    cluster.intercept(Api.LIST_OFFSETS, *[refuses(ErrorCode.OVERLOADED)] * 1000)
    with Client(cluster.address, ClientOptions(request_timeout=0.3)) as client:
        began = time.monotonic()
        with pytest.raises(BrokerError, match="overloaded"):
            client.latest_offsets("orders")
        assert time.monotonic() - began < 5


def test_a_silent_gateway_is_not_waited_for_alone(cluster: FakeCluster) -> None:
    cluster.add_topic("orders", 1)

    def stays_silent(peer: Peer, frame: Frame) -> bool:
        return True

    with FakeCluster() as silent:
        silent.intercept(Api.RESOLVE, *[stays_silent] * 100)
        for order in ([silent.address, cluster.address], [cluster.address, silent.address]):
            with Client(order) as client:
                began = time.monotonic()
                assert [topic.name for topic in client.list_topics()] == ["orders"]
                assert time.monotonic() - began < 3, "long before its deadline of 5 s"


def test_a_gateway_that_lags_for_ever_is_not_believed_for_ever(cluster: FakeCluster) -> None:
    # One that has lost its coordinator tells its old map for ever; the head that it names is none any more.
    cluster.epoch = 2
    cluster.add_topic("orders", 1)
    with FakeCluster() as lagging:
        lagging.add_topic("orders", 1)
        lagging.refuse(Api.PRODUCE, ErrorCode.STALE, times=10_000)
        for _ in range(4):  # whichever is asked first
            with Client([lagging.address, cluster.address]) as client, client.producer() as producer:
                producer.send("orders", value=b"one").result(10)
    assert cluster.stored("orders") == 4


def test_a_connection_that_breaks_tells_every_request_that_waits(cluster: FakeCluster) -> None:
    with Client(cluster.address, ClientOptions(request_timeout=0.2)) as client:
        cluster.intercept(Api.CREATE_TOPIC, *[breaks] * 1000)
        with pytest.raises(ConnectionLostError, match="sending again is safe"):
            client.create_topic("orders")
