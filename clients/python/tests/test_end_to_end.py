"""The synchronous client against a real broker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from minikafka import (
    BrokerError,
    BufferFullError,
    Client,
    ClientOptions,
    ClosedError,
    ConsumerOptions,
    DeadlineExceededError,
    InvalidOptionError,
    NoGatewayError,
    NoSuchPartitionError,
    OffsetOutOfRangeError,
    ProducerOptions,
    Record,
    RecordTooLargeError,
    TopicConfig,
    TopicConfigChange,
    TopicExistsError,
    TopicPartition,
    UnknownTopicError,
)

from .broker import Broker
from .waiting import PATIENCE, until


def read_all(client: Client, topic: str, count: int, **arguments: Any) -> list[Record]:
    """So many records of a topic."""
    with client.consumer(topic, **arguments) as consumer:
        records = [consumer.poll(PATIENCE) for _ in range(count)]
        assert all(record is not None for record in records), f"only {sum(map(bool, records))} of {count} came"
        assert until(consumer.is_at_end)
        assert consumer.poll(0) is None, "no more than were sent"
        return [record for record in records if record is not None]


def test_a_record_comes_back_as_it_was_sent(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=4)
    headers = [("trace", b"\x00\xff"), ("trace", b""), ("é", b"x")]
    with client.producer() as producer:
        sent = producer.send(topic, b"value", b"key", headers=headers, timestamp=123_456).result(PATIENCE)
    assert (sent.topic, sent.offset) == (topic, 0)
    (record,) = read_all(client, topic, 1)
    assert (record.topic, record.partition, record.offset) == (topic, sent.partition, 0)
    assert (record.key, record.value, record.timestamp) == (b"key", b"value", 123_456)
    assert (record.headers, record.append_timestamp) == (headers, sent.append_timestamp)


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_every_codec_nulls_empties_and_a_mebibyte(client: Client, topic: str, compression: Any) -> None:
    client.create_topic(topic, partitions=1)
    values = [b"", None, b"x", b"ab" * (1 << 19), os.urandom(1 << 20), None, b""]
    keys = [b"", None, b"k", None, b"k" * 100, b"", None]
    options = ProducerOptions(compression=compression)
    with client.producer(options) as producer:
        for key, value in zip(keys, values):
            producer.send(topic, value, key, headers={"n": b""} if value else None)
    records = read_all(client, topic, len(values))
    assert [(record.key, record.value) for record in records] == list(zip(keys, values))
    assert [record.headers for record in records] == [[("n", b"")] if value else [] for value in values]
    assert [record.offset for record in records] == list(range(len(values)))


def test_many_records_keep_the_order_of_their_keys(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=8)
    keys = [b"user-%d" % (number % 97) for number in range(30_000)]
    values = [b"%d" % number for number in range(30_000)]
    with client.producer(ProducerOptions(batch_bytes=16 << 10)) as producer:
        runs = producer.send_many(topic, values[:20_000], keys[:20_000]).result(PATIENCE)
        for key, value in zip(keys[20_000:], values[20_000:]):
            producer.send(topic, value, key)
    assert sum(run.record_count for run in runs) == 20_000
    last: dict[bytes, int] = {}
    records = read_all(client, topic, 30_000)
    for record in records:
        assert record.key is not None and record.value is not None
        assert int(record.value) > last.get(record.key, -1)
        last[record.key] = int(record.value)
    assert len({record.value for record in records}) == 30_000


def test_records_without_keys_spread_over_partitions(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=4)
    with client.producer() as producer:
        deliveries = [producer.send(topic, b"x" * 50_000) for _ in range(60)]
    assert {delivery.result().partition for delivery in deliveries} == {0, 1, 2, 3}
    with client.producer() as producer:
        assert producer.send(topic, b"", partition=2).result().partition == 2


def test_batches_are_columns(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=1)
    with client.producer() as producer:
        producer.send_many(topic, [b"a", b"bc", None], [b"1", b"2", b"3"]).result(PATIENCE)
    with client.consumer(topic) as consumer:
        batch = next(consumer.batches())
        assert (len(batch), batch.first_offset, batch.next_offset) == (3, 0, 3)
        assert (bytes(batch.values.data), batch.values.offsets.tolist()) == (b"abc", [0, 1, 3, 3])
        assert (bytes(batch.keys.data), batch.values.validity.tolist()) == (b"123", [0b011])
        assert [record.value for record in batch] == [b"a", b"bc", None]
        assert (batch.values[1], batch.values[2], list(batch.offsets)) == (b"bc", None, [0, 1, 2])


def test_where_a_consumer_begins(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=1)
    with client.producer() as producer:
        before = [producer.send(topic, b"%d" % number).result(PATIENCE) for number in range(3)]
        middle = before[2].append_timestamp
        assert middle is not None
        # The next batch must not be appended within the same millisecond.
        until(lambda: datetime.now(timezone.utc).timestamp() * 1000 > middle + 2)
        for number in range(3, 6):
            producer.send(topic, b"%d" % number).result(PATIENCE)
    time = datetime.fromtimestamp((middle + 1) / 1000, timezone.utc)
    assert client.offsets_at(topic, time) == {0: 3}
    for start, first in (("earliest", 0), (4, 4), (time, 3)):
        assert read_all(client, topic, 6 - first, start=start)[0].offset == first
    assert read_all(client, topic, 1, options=ConsumerOptions(start_offsets={0: 5}))[0].offset == 5
    with client.consumer(topic, start="latest") as consumer, client.producer() as producer:
        producer.send(topic, b"new").result(PATIENCE)
        record = consumer.poll(PATIENCE)
        assert record is not None and record.value == b"new"
    with pytest.raises(InvalidOptionError, match="time zone"):
        client.offsets_at(topic, datetime(2026, 1, 1))
    assert client.offsets_at(topic, datetime.now(timezone.utc) + timedelta(days=1)) == {0: 7}


def test_seek_pause_resume_position_and_lag(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=2)
    with client.producer() as producer:
        for number in range(10):
            producer.send(topic, b"%d" % number, partition=number % 2)
    with client.consumer(topic) as consumer:
        until(lambda: consumer.lag(0) == 5 and consumer.lag(1) == 5)
        consumer.pause(1)
        assert [record.offset for record in (consumer.poll(PATIENCE) for _ in range(5)) if record] == [0, 1, 2, 3, 4]
        assert (consumer.position(0), consumer.lag(0), consumer.committed_end(0)) == (5, 0, 5)
        assert consumer.poll(0) is None
        consumer.seek(0, 3)
        record = consumer.poll(PATIENCE)
        assert record is not None and (record.partition, record.offset) == (0, 3)
        consumer.resume(1)
        rest = [consumer.poll(PATIENCE) for _ in range(6)]
        assert sorted((r.partition, r.offset) for r in rest if r) == [(0, 4), *((1, offset) for offset in range(5))]
        assert consumer.positions() == {TopicPartition(topic, 0): 5, TopicPartition(topic, 1): 5}
        assert until(consumer.is_at_end)
        consumer.seek_to_time(datetime.fromtimestamp(0, timezone.utc))
        assert consumer.positions() == {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}
        with pytest.raises(NoSuchPartitionError):
            consumer.seek(2, 0)


def test_several_topics_and_some_partitions(client: Client, topic: str) -> None:
    names = [f"{topic}-a", f"{topic}-b"]
    for name in names:
        client.create_topic(name, partitions=2)
    with client.producer() as producer:
        for name in names:
            for partition in range(2):
                producer.send(name, name.encode(), partition=partition)
    with client.consumer(names) as consumer:
        found = {(record.topic, record.partition) for record in (consumer.poll(PATIENCE) for _ in range(4)) if record}
        assert len(found) == 4
        assert consumer.position(TopicPartition(names[0], 1)) == 1
        with pytest.raises(InvalidOptionError, match="several topics"):
            consumer.seek(0, 0)
    assert {record.partition for record in read_all(client, names[0], 1, partitions=[1])} == {1}


def test_topics_are_made_described_altered_listed_and_deleted(client: Client, topic: str) -> None:
    made = client.create_topic(topic, partitions=3, config=TopicConfig(retention_ms=1000))
    assert (made.name, made.partitions, made.state, made.config.retention_ms) == (topic, 3, "ready", 1000)
    with pytest.raises(TopicExistsError):
        client.create_topic(topic)
    altered = client.alter_topic(topic, TopicConfigChange(retention_ms=5000))
    assert (altered.config.retention_ms, altered.id) == (5000, made.id)
    assert client.describe_topic(topic) == altered
    assert topic in [each.name for each in client.list_topics()]
    client.delete_topic(topic)
    with pytest.raises(UnknownTopicError):
        client.describe_topic(topic)
    with pytest.raises(UnknownTopicError):
        client.delete_topic(topic)
    with pytest.raises(BrokerError, match="invalid_topic_name"):
        client.create_topic("a/b")


def test_deleted_records_are_gone_and_a_position_below_them_is_told(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=1)
    with client.producer() as producer:
        for number in range(10):
            producer.send(topic, b"%d" % number).result(PATIENCE)
    assert client.delete_records(topic, {0: 4}) == {0: 4}
    assert client.earliest_offsets(topic) == {0: 4}
    assert client.latest_offsets(topic) == {0: 10}
    assert [record.offset for record in read_all(client, topic, 6)] == [4, 5, 6, 7, 8, 9]
    with client.consumer(topic, start=1) as consumer:
        for _ in range(2):
            with pytest.raises(OffsetOutOfRangeError):
                consumer.poll(PATIENCE)
        consumer.seek(0, 9)
        record = consumer.poll(PATIENCE)
        assert record is not None and record.offset == 9
    options = ConsumerOptions(out_of_range="latest")
    with client.consumer(topic, start=1, options=options) as consumer:
        until(lambda: consumer.position(0) == 10)


def test_an_unknown_topic_is_made_where_the_cluster_does_so(client: Client, broker: Broker, topic: str) -> None:
    with client.producer() as producer:
        assert producer.send(topic, b"hello").result(PATIENCE).offset == 0
    with Client(broker.gateway, ClientOptions(create_missing_topics=False)) as strict:
        with strict.producer() as producer, pytest.raises(UnknownTopicError):
            producer.send(f"{topic}-not", b"hello")


def test_memory_bounds_what_is_accepted(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=1)
    with client.producer(ProducerOptions(buffer_bytes=10_000)) as producer:
        deliveries = [producer.send(topic, b"x" * 1000) for _ in range(200)]
        assert [delivery.result(PATIENCE).offset for delivery in deliveries] == list(range(200))
        with pytest.raises(RecordTooLargeError, match=r"at most 9976"):
            producer.send(topic, b"x" * 20_000)
        full = 0
        for _ in range(2000):
            try:
                producer.try_send(topic, b"x" * 3000)
            except BufferFullError:
                full += 1
        assert full > 0
    assert client.latest_offsets(topic)[0] == 2200 - full


def test_a_refused_record_fails_alone(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=1)
    # Batches are so small that the large record goes alone.
    with client.producer(ProducerOptions(batch_bytes=1024)) as producer:
        producer.send(topic, b"before").result(PATIENCE)
        client.alter_topic(topic, TopicConfigChange(batch_bytes_max=1000))
        refused = producer.send(topic, b"x" * 5000)
        after = producer.send(topic, b"after")
        error = refused.exception(PATIENCE)
        assert isinstance(error, BrokerError) and error.code.table_name == "batch_too_large"
        assert after.result(PATIENCE).offset == 1
        with pytest.raises(BrokerError, match="batch_too_large"):
            producer.flush()
        producer.flush()
    assert [record.value for record in read_all(client, topic, 2)] == [b"before", b"after"]


def test_many_threads_send_through_one_producer(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=4)
    with client.producer() as producer:

        def send(thread: int) -> None:
            for number in range(500):
                producer.send(topic, b"%d" % number, b"thread-%d" % thread)

        threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found: dict[bytes, list[int]] = {}
    for record in read_all(client, topic, 2000):
        assert record.key is not None and record.value is not None
        found.setdefault(record.key, []).append(int(record.value))
    assert found == {b"thread-%d" % thread: list(range(500)) for thread in range(4)}


def test_a_delivery_calls_back_and_can_be_waited_for_with_a_time_out(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=1)
    called = threading.Event()
    # A linger that never ends by itself, and nothing that makes an idle partition send at once.
    with client.producer(ProducerOptions(linger=3600, send_when_idle=False)) as producer:
        delivery = producer.send(topic, b"x")
        delivery.add_done_callback(lambda done: called.set() if done.done() else None)
        with pytest.raises(DeadlineExceededError):
            delivery.result(0.01)
        assert not delivery.done()
        producer.flush()
        assert delivery.done() and called.wait(PATIENCE)
        late: list[object] = []
        delivery.add_done_callback(late.append)
        assert late == [delivery], "at once, because it is so already"


def test_waiting_for_the_client_on_its_own_thread_is_refused(client: Client, topic: str) -> None:
    client.create_topic(topic, partitions=1)
    errors: list[BaseException] = []
    done = threading.Event()
    with client.producer() as producer:

        def wait_there(_: object) -> None:
            try:
                producer.flush()
            except InvalidOptionError as error:
                errors.append(error)
            done.set()

        producer.send(topic, b"x").add_done_callback(wait_there)
        assert done.wait(PATIENCE)
    assert len(errors) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_client_that_was_made_before_a_fork_says_so(broker: Broker) -> None:
    program = f"""
import os
from minikafka import Client, InvalidOptionError
client = Client({broker.gateway!r})
client.list_topics()
if os.fork() == 0:
    try:
        client.list_topics()
    except InvalidOptionError as error:
        os._exit(0 if "forked" in str(error) else 1)
    os._exit(2)
client.close()
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False, timeout=30).returncode == 0


def test_a_closed_client_leaves_no_thread_behind(broker: Broker, topic: str) -> None:
    before = set(threading.enumerate())
    with Client(broker.gateway) as client, client.producer(ProducerOptions(compression="zstd")) as producer:
        producer.send_many(topic, [b"x" * 1000] * 1000).result(PATIENCE)
        assert set(threading.enumerate()) > before
    until(lambda: set(threading.enumerate()) <= before)


def test_everything_answers_closed_afterwards(broker: Broker, topic: str) -> None:
    client = Client(broker.gateway)
    producer = client.producer()
    sent = producer.send(topic, b"flushed by close")
    consumer = client.consumer(topic)
    client.close()
    assert sent.result(0).offset == 0
    client.close()
    producer.close()
    consumer.close()
    for call in (
        lambda: producer.send(topic, b"late"),
        lambda: producer.send_many(topic, [b"late"]),
        consumer.poll,
        client.producer,
        lambda: client.consumer(topic),
        client.list_topics,
        lambda: client.create_topic("late"),
    ):
        with pytest.raises(ClosedError):
            call()


def test_gateways_that_do_not_answer_are_passed_over(broker: Broker, topic: str) -> None:
    with Client(["127.0.0.1:1", broker.gateway, "127.0.0.1:1"]) as client:
        for _ in range(3):
            assert isinstance(client.list_topics(), list)
        client.create_topic(topic, partitions=1)
    with Client(["127.0.0.1:1", "nonsense"], ClientOptions(request_timeout=1)) as client:
        with pytest.raises(NoGatewayError, match=r"127\.0\.0\.1:1, nonsense"):
            client.list_topics()
    with pytest.raises(InvalidOptionError):
        Client([])


def test_counters_tell_what_was_done(broker: Broker, topic: str) -> None:
    with Client(broker.gateway) as client:
        client.create_topic(topic, partitions=1)
        with client.producer() as producer:
            producer.send_many(topic, [b"x"] * 10).result(PATIENCE)
        read_all(client, topic, 10)
        counters = client.counters()
        assert (counters.records_sent, counters.records_received, counters.records_failed) == (10, 10, 0)
        assert counters.bytes_sent == counters.bytes_received > 0
        assert counters.connections_opened >= 3
        with pytest.raises(UnknownTopicError):
            client.describe_topic("unheard-of")
        assert client.counters() is not counters


def test_a_wrong_cluster_is_refused(broker: Broker) -> None:
    with Client(broker.gateway, ClientOptions(cluster=12345)) as client:
        with pytest.raises(BrokerError, match="wrong_cluster"):
            client.list_topics()
