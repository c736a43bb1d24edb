"""What was given out and what was handled, exactly, whatever the application does in the middle of a batch."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minikafka.protocol.errors import ClosedError, DamagedError, InvalidOptionError, MiniKafkaError
from minikafka.protocol.fetched_entries import FetchedEntry, verified
from minikafka.protocol.handled import Handled
from minikafka.protocol.options import ConsumerOptions
from minikafka.protocol.reading import Reading
from minikafka.protocol.records import Batch, Record

from .entries import PARTITION, entries, topic


def reading(*, automatic: bool = True, grouped: bool = True, position: int = 10) -> Reading:
    """A reading of one partition, whose batches are put where the fetcher would put them."""
    made = Reading(ConsumerOptions(), 1, is_grouped=grouped, is_automatic=automatic)
    made.assign(topic(), PARTITION.partition, position, is_starting=False)
    return made


def bring(made: Reading, base: int, counts: list[int]) -> None:
    progress = made.progress.get(PARTITION)
    assert progress is not None
    found, damage = verified(memoryview(entries(base, counts)), PARTITION, base)
    assert damage is None
    for entry in found:
        progress.batches.append(entry)
        progress.buffered_bytes += entry.buffered_bytes
        made.progress.buffered_bytes += entry.buffered_bytes
        progress.fetch_from = entry.header.next_offset
    made.progress._announce(progress)


def offsets(made: Reading, count: int) -> list[int]:
    records = [made.next_record() for _ in range(count)]
    return [record.offset for record in records if record is not None]


def committable(made: Reading) -> int:
    return made.committable()[PARTITION]


def test_a_record_is_handled_when_the_next_one_is_asked_for() -> None:
    made = reading()
    bring(made, 10, [3, 2])
    assert committable(made) == 10
    assert offsets(made, 1) == [10]
    assert (committable(made), made.position(PARTITION)) == (10, 11)
    assert offsets(made, 2) == [11, 12]
    assert (committable(made), made.position(PARTITION)) == (12, 13)
    assert offsets(made, 3) == [13, 14]
    assert (committable(made), made.position(PARTITION)) == (15, 15), "it was asked for more, in vain"


def test_a_batch_is_handled_when_the_next_one_is_asked_for_and_the_last_at_close() -> None:
    made = reading()
    bring(made, 10, [3, 2])
    assert len(made.next_batch() or ()) == 3
    assert committable(made) == 10
    assert len(made.next_batch() or ()) == 2
    assert committable(made) == 13
    made.close()
    assert committable(made) == 15
    with pytest.raises(ClosedError):
        made.next_batch()


def test_records_and_batches_can_be_mixed() -> None:
    made = reading()
    bring(made, 10, [5, 2])
    assert offsets(made, 2) == [10, 11]
    batch = made.next_batch()
    assert batch is not None
    assert (batch.first_offset, len(batch), [record.offset for record in batch]) == (12, 3, [12, 13, 14])
    assert committable(made) == 12
    assert offsets(made, 1) == [15]


def test_by_acknowledgement_the_lowest_that_is_open_is_committed() -> None:
    made = reading(automatic=False)
    bring(made, 10, [5])
    records = [made.next_record() for _ in range(5)]
    for place, expected in ((1, 10), (0, 12), (4, 12), (3, 12), (2, 15)):
        record = records[place]
        assert record is not None
        record.ack()
        assert committable(made) == expected
        record.ack()
        assert committable(made) == expected, "twice is as once"
    assert not made.is_outstanding(PARTITION)


def test_a_batch_is_acknowledged_as_a_whole() -> None:
    made = reading(automatic=False)
    bring(made, 10, [3, 2])
    first, second = made.next_batch(), made.next_batch()
    assert first is not None and second is not None
    second.ack()
    assert committable(made) == 10
    first.ack()
    assert committable(made) == 15


def test_a_seek_in_the_middle_of_a_batch_leaves_nothing_of_it() -> None:
    made = reading(automatic=False)
    bring(made, 10, [5])
    handing = made.next_records()
    assert handing is not None
    first = next(handing.records)
    assert made.seek(PARTITION, 40)
    assert list(handing.records) == []
    assert (made.position(PARTITION), committable(made)) == (40, 40)
    first.ack()
    assert committable(made) == 40, "what was handled before the seek says nothing"
    assert made.next_record() is None


def test_a_pause_puts_the_rest_back() -> None:
    made = reading()
    bring(made, 10, [5])
    handing = made.next_records()
    assert handing is not None
    next(handing.records)
    made.pause([PARTITION])
    assert list(handing.records) == []
    assert made.position(PARTITION) == 11
    assert made.next_record() is None
    made.resume([PARTITION])
    assert offsets(made, 9) == [11, 12, 13, 14]


def test_a_withdrawn_partition_gives_out_nothing_and_waits_for_what_it_gave() -> None:
    made = reading()
    bring(made, 10, [5])
    handing = made.next_records()
    assert handing is not None
    next(handing.records)
    next(handing.records)
    made.withdraw([PARTITION])
    assert list(handing.records) == []
    assert made.is_outstanding(PARTITION), "the second one is in hand"
    assert committable(made) == 11
    assert made.next_record() is None
    assert not made.is_outstanding(PARTITION), "it was asked for the next one"
    assert committable(made) == 12
    made.forget([PARTITION])
    assert made.committable() == {}


def test_a_batch_that_was_opened_while_its_partition_was_taken_away_is_not_given_out() -> None:
    made = reading()
    bring(made, 10, [5])
    opened = Batch.open

    def open_meanwhile(name: str, entry: FetchedEntry, position: int) -> Batch | None:
        made.withdraw([PARTITION])
        return opened(name, entry, position)

    Batch.open = staticmethod(open_meanwhile)  # type: ignore[assignment, method-assign]
    try:
        assert made.next_record() is None
    finally:
        Batch.open = opened  # type: ignore[method-assign]


def test_what_can_not_be_read_is_told_and_can_be_sought_past() -> None:
    made = reading()
    bring(made, 10, [3])
    progress = made.progress.get(PARTITION)
    assert progress is not None
    entry = progress.batches[0]
    broken = bytearray(entry.body)
    broken[-4:] = b"\xff\xff\xff\x7f"
    progress.batches[0] = entry._replace(body=memoryview(broken))
    with pytest.raises(DamagedError, match="offset 10"):
        made.next_record()
    with pytest.raises(DamagedError):
        made.next_record()
    made.seek(PARTITION, 13)
    bring(made, 13, [1])
    assert offsets(made, 1) == [13]


def test_the_end_and_the_lag() -> None:
    made = reading()
    assert (made.lag(PARTITION), made.is_at_end()) == (None, False)
    bring(made, 10, [5])
    progress = made.progress.get(PARTITION)
    assert progress is not None
    progress.committed_end = 15
    assert (made.lag(PARTITION), made.is_at_end()) == (5, False)
    offsets(made, 4)
    assert (made.lag(PARTITION), made.is_at_end()) == (1, False)
    offsets(made, 1)
    assert (made.lag(PARTITION), made.is_at_end()) == (0, True)


def test_without_a_group_there_is_nothing_to_acknowledge() -> None:
    made = reading(grouped=False)
    bring(made, 10, [1])
    record = made.next_record()
    assert record is not None
    with pytest.raises(InvalidOptionError, match="group"):
        record.ack()


def test_a_reading_that_has_failed_says_so_every_time() -> None:
    made = reading()
    made.fail(MiniKafkaError("fenced"))
    for _ in range(2):
        with pytest.raises(MiniKafkaError, match="fenced"):
            made.next_record()


def test_an_error_that_is_told_again_and_again_does_not_grow() -> None:
    made = reading()
    made.fail(MiniKafkaError("fenced"))
    lengths = set()
    for _ in range(20):
        with pytest.raises(MiniKafkaError) as told:
            made.next_record()
        lengths.add(len(told.traceback))
    assert len(lengths) == 1


def test_a_record_that_is_kept_does_not_keep_its_batch() -> None:
    made = reading()
    bring(made, 10, [3])
    record = made.next_record()
    assert isinstance(record, Record)
    assert (record.value, record.timestamp, record.topic) == ((10).to_bytes(8, "little"), 10, "orders")
    kept = [getattr(record._source, name) for name in record._source.__slots__]
    assert not any(isinstance(each, (Batch, memoryview)) and len(each) > 0 for each in kept)


@settings(deadline=None)
@given(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=4))
def test_any_order_of_acknowledgements_commits_the_lowest_open_one(order: list[int], missing: set[int]) -> None:
    """Against a plain set; some offsets have no record, as after a compaction."""
    present = [offset for offset in range(12) if offset not in missing]
    handled = Handled(0)
    gaps = [(offset, offset + 1) for offset in sorted(missing)]
    handled.give(0, 12, gaps)
    open_offsets = set(present)
    for offset in order:
        if offset in open_offsets:
            handled.mark(offset, offset + 1)
            open_offsets.discard(offset)
            assert handled.committable == min(open_offsets, default=12)


def test_giving_out_can_be_stopped_from_another_thread_exactly() -> None:
    """Every record was either given out or is in the rest, however the threads fall."""
    for _ in range(50):
        batch = Batch.open("orders", verified(memoryview(entries(0, [2000])), PARTITION, 0)[0][0], 0)
        assert batch is not None
        made = reading(position=0)
        bring(made, 0, [2000])
        handing = made.next_records()
        assert handing is not None
        rest: list[Batch | None] = []
        stopper = threading.Thread(target=lambda into=rest, handing=handing: into.append(handing.stop()))
        given = []
        for record in handing.records:
            given.append(record.offset)
            if len(given) == 10:
                stopper.start()
        stopper.join()
        left = list(rest[0].offsets) if rest[0] is not None else []
        assert given + left == list(range(2000))
        assert handing.next_offset == len(given)
