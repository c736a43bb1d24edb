"""Where records come in: order, batches, memory, many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Optional
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minikafka.protocol.batch_view import BatchView
from minikafka.protocol.delivery import Delivery, Run
from minikafka.protocol.errors import (
    ClosedError,
    InvalidRecordError,
    NoSuchPartitionError,
    RecordTooLargeError,
)
from minikafka.protocol.gathering import Gathering
from minikafka.protocol.lanes import OpenBatch, TopicLanes
from minikafka.protocol.memory import Memory
from minikafka.protocol.messages.topics import STATE_READY, TopicConfig, TopicDescription
from minikafka.protocol.options import ProducerOptions
from minikafka.protocol.producer_queue import Stored
from minikafka.protocol.sticky import STAY_MAX, Sticky
from minikafka.protocol.unresolved import Unresolved


class Clock:
    """The wall clock and the other one."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def gathering(
    *, partitions: int = 4, batch_bytes_max: int = 4 << 20, **options: Any
) -> tuple[Gathering, TopicLanes, Clock]:
    clock = Clock()
    made = Gathering(ProducerOptions(**options), Delivery, clock, clock)
    config = TopicConfig(batch_bytes_max=batch_bytes_max)
    lanes = made.new_lanes(TopicDescription("orders", None, 5, partitions, 1, STATE_READY, config, []), 0)
    made.add(lanes)
    return made, lanes, clock


def taken(made: Gathering, lanes: TopicLanes, partition: int) -> Iterator[OpenBatch]:
    """Every batch of a partition, in order, its memory given back as a sender does."""
    while True:
        batch, is_answered = lanes.lanes[partition].take_due(lambda _: True)
        assert is_answered
        if batch is None:
            return
        made.memory.give_back(batch.charged_bytes)
        yield batch


def rows(batch: OpenBatch) -> list[tuple[Optional[bytes], Optional[bytes], int, list[tuple[str, bytes]]]]:
    """What a reader sees of a batch."""
    finished = batch.build()
    view = BatchView.parse(memoryview(finished.body), finished.header(5, 0))
    keys = list(view.keys.iterate()) if len(view.keys) else [None] * view.record_count
    values = list(view.values.iterate())
    return [
        (keys[index], values[index], view.timestamps[index], view.headers[index]) for index in range(view.record_count)
    ]


def test_records_of_one_key_go_to_its_partition_in_order() -> None:
    made, lanes, _ = gathering()
    deliveries = [made.send("orders", b"v%d" % number, b"k%d" % (number % 7)) for number in range(50)]
    found: dict[bytes, list[bytes]] = {}
    for partition in range(4):
        for batch in taken(made, lanes, partition):
            for key, value, timestamp, _ in rows(batch):
                assert key is not None and value is not None and crc32(key) % 4 == partition
                assert timestamp == 1_000_000
                found.setdefault(key, []).append(value)
    assert found == {b"k%d" % key: [b"v%d" % number for number in range(key, 50, 7)] for key in range(7)}
    assert {delivery.partition for delivery in deliveries} == {crc32(b"k%d" % key) % 4 for key in range(7)}
    assert made.memory.free_bytes == made.memory.bytes_max


def test_a_delivery_knows_its_place() -> None:
    made, lanes, _ = gathering(partitions=1)
    deliveries = [made.send("orders", b"v") for _ in range(3)]
    (batch,) = taken(made, lanes, 0)
    batch.completion.complete(Stored(100, 7))
    delivered = [delivery.completion.delivered(delivery.index) for delivery in deliveries]
    assert [each.offset for each in delivered] == [100, 101, 102]
    assert deliveries[0].done()


sent = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=3),
        st.none() | st.binary(max_size=300),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2),
    ),
    min_size=1,
    max_size=60,
)


@settings(deadline=None)
@given(sent, st.booleans())
def test_whatever_is_sent_comes_out_in_order_within_its_bounds(records: list[Any], small: bool) -> None:
    made, lanes, _ = gathering(partitions=1, batch_bytes=1024 if small else 256 << 10)
    for key, value, timestamp, headers in records:
        assert made.push("orders", value, key, headers, None, timestamp) is not None
    found = []
    for batch in taken(made, lanes, 0):
        body = batch.build().body
        assert len(body) <= batch.body_bytes() and (len(body) <= lanes.batch_bytes_max or batch.record_count == 1)
        found += rows(batch)
    expected = [(key, value, 1_000_000 if at is None else at, headers) for key, value, at, headers in records]
    assert found == expected
    assert made.memory.free_bytes == made.memory.bytes_max


@settings(deadline=None)
@given(
    st.lists(st.none() | st.binary(max_size=400), max_size=80),
    st.sampled_from(["none", "keys", "partition"]),
    st.lists(st.binary(max_size=5), max_size=5),
)
def test_many_come_out_as_one_by_one(values: list[Any], how: str, before: list[bytes]) -> None:
    made, lanes, _ = gathering(batch_bytes=2048, buffer_bytes=100_000)
    for value in before:
        made.push("orders", value, None, None, 2, None)
    keys = [b"%d" % (number % 5) for number in range(len(values))] if how == "keys" else None
    runs: list[Run] = []
    assert list(made.push_many("orders", values, keys, 2 if how == "partition" else None, runs)) == []
    found: dict[int, list[Any]] = {}
    for partition in range(4):
        base = 0
        for batch in taken(made, lanes, partition):
            found.setdefault(partition, []).extend(row[:2] for row in rows(batch))
            batch.completion.complete(Stored(base, 0))
            base += batch.record_count
    early = [(None, value) for value in before]
    if before:
        assert found[2][: len(before)] == early
        found[2] = found[2][len(before) :]
    everything = [row for partition in found for row in found[partition]]
    if keys is not None:
        for partition in range(4):
            wanted = [(key, value) for key, value in zip(keys, values) if crc32(key) % 4 == partition]
            assert found.get(partition, []) == wanted
    elif how == "partition":
        assert found.get(2, []) == [(None, value) for value in values]
    expected: list[Any] = list(zip(keys, values)) if keys is not None else [(None, value) for value in values]
    assert sorted(everything, key=repr) == sorted(expected, key=repr)
    assert sum(run.record_count for run in runs) == len(values)
    places = {(run.completion.partition, run.delivered().first.offset) for run in runs}
    assert len(places) == len(runs), "no two runs are in one place"
    assert made.memory.free_bytes == made.memory.bytes_max


def test_what_finds_no_memory_is_not_taken_until_some_is_reserved() -> None:
    made, lanes, _ = gathering(partitions=1, buffer_bytes=2048)
    woken: list[object] = []
    made.wake = woken.append
    while made.push("orders", b"x" * 100, None, None, None, None) is not None:
        pass
    cost = made.cost(b"x" * 100, None, None)
    assert made.memory.free_bytes < cost
    granted: list[bool] = []
    woken.clear()
    reservation = made.reserve(cost, lambda: granted.append(True))
    assert woken and made.memory.is_awaited(), "who waits makes the sender hurry"
    (batch,) = taken(made, lanes, 0)
    assert granted and reservation.is_granted
    assert made.push("orders", b"x" * 100, None, None, None, None, cost) is not None
    assert made.memory.free_bytes == made.memory.bytes_max - cost
    assert batch.record_count > 5


def test_what_was_reserved_and_is_not_needed_goes_back() -> None:
    made, _, _ = gathering(partitions=1)
    made.push("orders", b"x", None, None, None, None)
    taken_before = made.memory.free_bytes
    assert made.memory.take(500)
    assert made.push("orders", b"y", None, None, None, None, 500) is not None
    assert made.memory.free_bytes == taken_before, "there was room in the batch"
    assert made.memory.take(500)
    with pytest.raises(NoSuchPartitionError):
        made.push("orders", b"z", None, None, 9, None, 500)
    assert made.memory.free_bytes == taken_before


def test_many_wait_for_memory_piece_by_piece() -> None:
    made, lanes, _ = gathering(partitions=1, buffer_bytes=4096, batch_bytes=1024)
    runs: list[Run] = []
    waited = 0
    found = []
    for wanted in made.push_many("orders", [b"%03d" % number * 30 for number in range(200)], None, None, runs):
        waited += 1
        reservation = made.reserve(wanted, lambda: None)
        for batch in taken(made, lanes, 0):
            found += [row[1] for row in rows(batch)]
        assert reservation.is_granted
    for batch in taken(made, lanes, 0):
        found += [row[1] for row in rows(batch)]
    assert waited > 3
    assert found == [b"%03d" % number * 30 for number in range(200)]
    assert made.memory.free_bytes == 4096


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"value": "text"}, InvalidRecordError),
        ({"value": b"", "key": 7}, (InvalidRecordError, TypeError)),
        ({"value": b"", "headers": {"name": "text"}}, InvalidRecordError),
        ({"value": b"", "headers": [("n", b"")] * 1025}, InvalidRecordError),
        ({"value": b"", "partition": 4}, NoSuchPartitionError),
        ({"value": b"", "timestamp": 1 << 63}, InvalidRecordError),
        ({"value": b"", "timestamp": 1.5}, InvalidRecordError),
        ({"value": b"x" * ((2 << 20) + 1)}, RecordTooLargeError),
        ({"value": b"x" * 6000}, RecordTooLargeError),
    ],
)
def test_records_that_can_never_be_sent_are_refused_at_once(arguments: Any, error: Any) -> None:
    made, lanes, _ = gathering(batch_bytes_max=5000)
    with pytest.raises(error):
        made.send("orders", **arguments)
    assert all(lane.open is None for lane in lanes.lanes)
    assert made.memory.free_bytes == made.memory.bytes_max


def test_a_record_that_is_larger_than_batches_should_be_goes_alone() -> None:
    made, lanes, _ = gathering(partitions=1, batch_bytes=1024)
    for value in (b"a", b"x" * 5000, b"b"):
        made.send("orders", value)
    assert [[row[1] for row in rows(batch)] for batch in taken(made, lanes, 0)] == [[b"a"], [b"x" * 5000], [b"b"]]


def test_nothing_comes_in_after_the_close() -> None:
    made, lanes, _ = gathering(partitions=1)
    made.send("orders", b"v", b"k")
    made.close()
    with pytest.raises(ClosedError):
        made.send("orders", b"v", b"k")
    with pytest.raises(ClosedError):
        list(made.push_many("orders", [b"v"], None, None, []))
    assert [batch.record_count for batch in taken(made, lanes, 0)] == [1]


def test_timestamps_follow_the_clock_by_milliseconds() -> None:
    made, lanes, clock = gathering(partitions=1)
    for now in (5.0001, 5.0009, 5.0011, 5.2, 5.1, 6.0):
        clock.now = now
        made.send("orders", b"v")
    (batch,) = taken(made, lanes, 0)
    assert [row[2] for row in rows(batch)] == [5000, 5000, 5001, 5200, 5200, 6000], "a clock that goes back waits"


def test_the_present_does_not_go_into_a_batch_that_begins_far_away() -> None:
    """Cause: only a timestamp that was given was looked at. Effect: the difference could not be written, and the sender
    failed. Fix: the present is looked at, too, and such a batch takes nothing without a thought."""
    made, lanes, _ = gathering(partitions=1)
    for timestamp in (-(2**63), None, None, 2**63 - 1, None):
        made.send("orders", b"v", timestamp=timestamp)
    assert len([row for batch in taken(made, lanes, 0) for row in rows(batch)]) == 5


def test_a_lane_that_takes_a_record_just_now_is_not_waited_for() -> None:
    made, lanes, _ = gathering(partitions=1)
    made.send("orders", b"v")
    with lanes.lanes[0].lock:
        assert lanes.lanes[0].take_due(lambda _: True) == (None, False)
    assert lanes.lanes[0].take_due(lambda _: True)[0] is not None


def test_a_full_batch_is_not_overtaken_by_the_one_behind_it() -> None:
    made, lanes, _ = gathering(partitions=1, batch_bytes=1024)
    for number in range(20):
        made.send("orders", b"%03d" % number * 30)
    found = [row[1] for batch in taken(made, lanes, 0) for row in rows(batch)]
    assert found == [b"%03d" % number * 30 for number in range(20)]


def test_the_sender_is_told_of_a_lane_once_until_it_looks() -> None:
    made, lanes, _ = gathering(partitions=1, batch_bytes=1024)
    woken: list[object] = []
    made.wake = woken.append
    made.send("orders", b"x" * 300)
    assert len(lanes.announced) == 1 and woken
    made.send("orders", b"x" * 300)
    assert len(lanes.announced) == 1
    lanes.announced.clear()
    lanes.lanes[0].is_announced = False
    made.send("orders", b"x" * 300)
    made.send("orders", b"x" * 300)
    assert len(lanes.announced) == 1, "a batch became full"


def test_many_threads_keep_the_order_of_each() -> None:
    made, lanes, _ = gathering(partitions=2, batch_bytes=4096)

    def send(thread: int) -> None:
        for number in range(2000):
            made.send("orders", b"%d" % number, b"thread-%d" % thread)

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    found: dict[bytes, list[int]] = {}
    while any(thread.is_alive() for thread in threads) or any(lane.open or lane.full for lane in lanes.lanes):
        for partition in range(2):
            batch, _ = lanes.lanes[partition].take_due(lambda _: True)
            if batch is not None:
                made.memory.give_back(batch.charged_bytes)
                for key, value, _, _ in rows(batch):
                    assert key is not None and value is not None
                    found.setdefault(key, []).append(int(value))
    assert found == {b"thread-%d" % thread: list(range(2000)) for thread in range(4)}
    assert made.memory.free_bytes == made.memory.bytes_max


def test_memory_is_given_in_the_order_of_the_waits() -> None:
    memory = Memory(100)
    granted: list[str] = []
    assert memory.take(80)
    memory.reserve(50, lambda: granted.append("large"))
    memory.reserve(10, lambda: granted.append("small"))
    assert not memory.take(1), "nobody overtakes who waits"
    assert granted == []
    memory.give_back(30)
    assert granted == ["large"]
    memory.give_back(50)
    assert granted == ["large", "small"]
    waiting = memory.reserve(90, lambda: granted.append("never"))
    memory.cancel(waiting)
    memory.give_back(60)
    assert memory.free_bytes == 100
    assert granted == ["large", "small"]
    last = memory.reserve(100, lambda: granted.append("last"))
    memory.reserve(100, lambda: granted.append("let go"))
    memory.close()
    assert last.is_granted and granted[-1] == "let go"
    with pytest.raises(ClosedError):
        memory.reserve(1, lambda: None)


def test_a_flush_waits_for_what_was_there_and_tells_the_first_failure_once() -> None:
    unresolved = Unresolved()
    first, second = unresolved.open(), unresolved.open()
    done: list[str] = []
    unresolved.when_before(unresolved.next_ticket, lambda: done.append("both"))
    later = unresolved.open()
    unresolved.resolve(second, ClosedError("producer"))
    assert done == []
    unresolved.resolve(first, None)
    assert done == ["both"]
    assert isinstance(unresolved.take_failure(), ClosedError)
    assert unresolved.take_failure() is None
    unresolved.resolve(later, None)
    assert unresolved.is_empty()
    unresolved.when_before(99, lambda: done.append("nothing open"))
    assert done == ["both"], "of what is not opened yet it is not said that it is done"


def test_the_sticky_partition_moves_on_after_enough_bytes_or_time() -> None:
    sticky = Sticky(3, 1000, 7, 0.0)
    assert sticky.current == 1
    sticky.batch_left(1, 400, 0.0)
    assert sticky.current == 1
    sticky.batch_left(1, 600, 0.0)
    assert sticky.current == 2
    sticky.batch_left(1, 5000, 0.0)
    assert sticky.current == 2, "batches of other partitions do not count"
    sticky.batch_left(2, 1, STAY_MAX)
    assert sticky.current == 0
