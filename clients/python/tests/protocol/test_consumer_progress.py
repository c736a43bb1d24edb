"""What is asked and what an answer means, without a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minikafka.protocol.chain_members import LEFT_ALONE
from minikafka.protocol.consumer_progress import Progress, ShardFetch, Taken
from minikafka.protocol.entry import EntryHeader
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.errors import (
    ConnectionLostError,
    DamagedError,
    DataDamagedError,
    MiniKafkaError,
    broker_error,
)
from minikafka.protocol.fetched_entries import verified
from minikafka.protocol.messages.data import FetchedPartition, RangeKey
from minikafka.protocol.messages.topics import Placement
from minikafka.protocol.options import ConsumerOptions, Nearest
from minikafka.protocol.partition_progress import PartitionAnswer, PartitionProgress, Skipped

from .entries import PARTITION, cluster_map, entries, topic

THREE = ([0, 1, 2], [0, 1, 2])


def fetched(error: ErrorCode | None = None, **changes: Any) -> FetchedPartition:
    fields = {"epoch": 4, "log_start": 0, "committed_end": 0, "previous": None, "resume": None, "entries_bytes": 0}
    return FetchedPartition(partition=PARTITION, error=error, **{**fields, **changes})


class World:
    """One partition, from offset 10 on."""

    def __init__(self, *, chains: Any = (), start: bool = False, **options: Any) -> None:
        self.progress = Progress(ConsumerOptions(**options), seed=1)
        self.progress.add(PartitionProgress(topic(), PARTITION.partition, 10, is_starting=start))
        self.map = cluster_map(*chains)
        self.now = 100.0

    def plan(self) -> list[ShardFetch]:
        return self.progress.plan(self.now, self.map)

    def only_fetch(self) -> ShardFetch:
        (fetch,) = self.plan()
        return fetch

    def answer(self, fetch: ShardFetch, base: int, counts: list[int]) -> None:
        found, damage = verified(memoryview(entries(base, counts)), PARTITION, fetch.asked[0].position)
        part = PartitionAnswer(fetched(committed_end=base + sum(counts)), found, damage)
        self.absorb(fetch, [part])

    def refuse(self, fetch: ShardFetch, part: FetchedPartition) -> None:
        self.absorb(fetch, [PartitionAnswer(part, [], None)])

    def absorb(self, fetch: ShardFetch, answer: Any) -> None:
        self.progress.absorb(self.now, self.now, fetch, answer)

    def wait_for_retry(self) -> None:
        at = self.progress.wake_at(self.now)
        assert at is not None, "a failure is followed by a back-off"
        self.now = at

    def taken(self) -> Taken:
        taken = self.progress.take()
        assert isinstance(taken, Taken), taken
        return taken

    def failure(self) -> MiniKafkaError:
        failure = self.progress.take()
        assert isinstance(failure, MiniKafkaError), failure
        return failure

    @property
    def partition(self) -> PartitionProgress:
        progress = self.progress.get(PARTITION)
        assert progress is not None
        return progress


def asked_offset(fetch: ShardFetch) -> int:
    return fetch.request.partitions[0].offset


def test_a_partition_is_in_one_request_and_goes_on_behind_what_came() -> None:
    world = World()
    fetch = world.only_fetch()
    assert (fetch.address, asked_offset(fetch), fetch.request.partitions[0].epoch) == ("shard-0:1", 10, 4)
    assert not world.plan(), "it is under way"
    world.answer(fetch, 10, [3, 2])
    assert asked_offset(world.only_fetch()) == 15, "while the application works"
    assert world.partition.position == 10
    taken = world.taken()
    assert (taken.position, taken.entry.header.base_offset) == (10, 10)
    assert world.partition.position == 13
    world.taken()
    assert world.progress.take() is None
    assert (world.progress.buffered_bytes, world.partition.position) == (0, 15)


def test_what_waits_is_bounded_per_partition_and_in_total() -> None:
    world = World(partition_fetch_bytes=4 << 10)
    fetch = world.only_fetch()
    assert fetch.request.partitions[0].bytes_max == 4 << 10
    world.answer(fetch, 10, [400])
    assert not world.plan(), "the partition's share is full"
    world.taken()
    fetch = world.only_fetch()
    assert world.progress.reserved_bytes == fetch.request.bytes_max
    world.progress.buffered_bytes += 32 << 20
    world.absorb(fetch, broker_error(ErrorCode.OVERLOADED, "test"))
    world.wait_for_retry()
    assert not world.plan(), "the memory of all is full"
    assert world.progress.reserved_bytes == 0


@pytest.mark.parametrize(
    ("code", "wants_map"), [(ErrorCode.NOT_OWNER, True), (ErrorCode.STALE, True), (ErrorCode.OVERLOADED, False)]
)
def test_failures_back_off_and_ask_for_a_newer_map_once(code: ErrorCode, wants_map: bool) -> None:
    world = World()
    world.refuse(world.only_fetch(), fetched(code))
    assert world.progress.take_map_wish() == (world.map.version if wants_map else None)
    assert world.progress.take_map_wish() is None
    assert not world.plan(), "it does not spin"
    world.wait_for_retry()
    world.only_fetch()


def test_a_beyond_committed_position_is_never_reset() -> None:
    world = World(out_of_range="earliest")
    world.refuse(world.only_fetch(), fetched(ErrorCode.BEYOND_COMMITTED))
    world.wait_for_retry()
    assert asked_offset(world.only_fetch()) == 10


def test_empty_answers_that_come_at_once_do_not_make_it_spin() -> None:
    world = World()
    for asked in range(10):
        fetches = world.plan()
        if not fetches:
            break
        world.answer(fetches[0], 10, [])
        assert asked < 9, "it spins"
    world.wait_for_retry()
    world.only_fetch()


def test_a_seek_makes_answers_to_older_questions_void() -> None:
    world = World()
    older = world.only_fetch()
    assert world.progress.seek(PARTITION, 40)
    newer = world.only_fetch()
    assert asked_offset(newer) == 40
    world.answer(older, 10, [5])
    assert world.progress.take() is None
    assert not world.plan(), "the newer question is still under way"
    world.answer(newer, 40, [2])
    world.taken()
    assert (world.partition.position, world.progress.reserved_bytes) == (42, 0)


def test_a_failure_waits_for_what_came_before_and_is_told_again_when_nothing_else_can_come() -> None:
    world = World()
    world.answer(world.only_fetch(), 10, [5])
    world.refuse(world.only_fetch(), fetched(ErrorCode.OFFSET_OUT_OF_RANGE))
    assert not world.plan()
    world.taken()
    for _ in range(3):
        assert world.failure().code is ErrorCode.OFFSET_OUT_OF_RANGE
    assert world.progress.seek(PARTITION, 12)
    assert world.progress.take() is None
    world.only_fetch()


@pytest.mark.parametrize(("policy", "position"), [("earliest", 12), ("latest", 30)])
def test_a_position_that_does_not_exist_goes_where_the_policy_says(policy: str, position: int) -> None:
    world = World(out_of_range=policy)
    world.refuse(world.only_fetch(), fetched(ErrorCode.OFFSET_OUT_OF_RANGE, log_start=12, committed_end=30))
    assert (asked_offset(world.only_fetch()), world.partition.position) == (position, position)


def test_who_starts_at_the_earliest_goes_to_where_the_log_begins() -> None:
    world = World(start=True)
    world.refuse(world.only_fetch(), fetched(ErrorCode.OFFSET_OUT_OF_RANGE, log_start=70, committed_end=90))
    assert asked_offset(world.only_fetch()) == 70


def test_older_offsets_are_read_where_the_shard_says_until_its_own_begin() -> None:
    world = World()
    moved = fetched(ErrorCode.MOVED, log_start=15, previous=RangeKey(1, 1))
    world.refuse(world.only_fetch(), moved)
    fetch = world.only_fetch()
    assert (fetch.address, fetch.request.partitions[0].range) == ("shard-1:1", RangeKey(1, 1))
    world.answer(fetch, 10, [5])
    assert world.partition.committed_end is None, "an older range does not know the end"
    fetch = world.only_fetch()
    assert (fetch.address, asked_offset(fetch)) == ("shard-0:1", 15)


def test_two_ranges_that_name_each_other_are_given_up() -> None:
    world = World()
    for turn in range(50):
        fetches = world.plan()
        if not fetches:
            break
        other = RangeKey(1, 1 - fetches[0].request.partitions[0].range.range)
        world.refuse(fetches[0], fetched(ErrorCode.MOVED, log_start=15, previous=other))
        assert turn < 49, "it follows forever"
    assert world.failure().code is ErrorCode.MOVED


def test_damage_is_asked_for_again_and_then_told() -> None:
    world = World()
    for attempt in range(3):
        world.absorb(world.only_fetch(), [PartitionAnswer(fetched(), [], "flipped")])
        if attempt < 2:
            assert world.progress.take() is None
            world.wait_for_retry()
    failure = world.failure()
    assert isinstance(failure, DamagedError) and failure.offset == 10


def test_a_paused_partition_is_neither_asked_for_nor_handed_out() -> None:
    world = World()
    fetch = world.only_fetch()
    world.progress.set_paused([PARTITION], is_paused=True)
    world.answer(fetch, 10, [5])
    assert world.progress.take() is None and not world.plan()
    world.progress.set_paused([PARTITION], is_paused=False)
    world.taken()
    world.only_fetch()


def test_damaged_records_stop_their_partition_with_an_error_that_says_which() -> None:
    world = World()
    world.answer(world.only_fetch(), 10, [3])
    world.refuse(world.only_fetch(), fetched(ErrorCode.DATA_DAMAGED, resume=20, committed_end=30))
    world.taken()
    failure = world.failure()
    assert isinstance(failure, DataDamagedError) and (failure.first, failure.resume) == (13, 20)
    assert not world.plan(), "it stands still"
    assert world.partition.position == 13


def test_damaged_records_are_skipped_and_told_when_that_is_wanted() -> None:
    world = World(on_damage="skip")
    world.answer(world.only_fetch(), 10, [3])
    world.refuse(world.only_fetch(), fetched(ErrorCode.DATA_DAMAGED, resume=20, committed_end=30))
    assert world.partition.position == 10, "what came before is not read yet"
    assert asked_offset(world.only_fetch()) == 20, "at once"
    world.taken()
    assert world.partition.position == 20, "the next record is behind the damage"
    assert list(world.progress.skipped) == [Skipped("orders", 1, 13, 20)]


def test_damage_at_the_end_is_asked_again_after_a_while() -> None:
    world = World(on_damage="skip")
    world.refuse(world.only_fetch(), fetched(ErrorCode.DATA_DAMAGED, committed_end=10))
    assert not world.plan()
    world.wait_for_retry()
    assert asked_offset(world.only_fetch()) == 10
    assert not world.progress.skipped


def test_the_member_of_the_rack_is_read_from_and_others_while_it_fails() -> None:
    world = World(chains=THREE, read_from=Nearest("rack-2"))
    fetch = world.only_fetch()
    assert fetch.address == "shard-2:1"
    world.answer(fetch, 10, [3])
    fetch = world.only_fetch()
    assert (fetch.address, asked_offset(fetch)) == ("shard-2:1", 13)
    world.absorb(fetch, ConnectionLostError("shard-2:1", "gone"))
    world.wait_for_retry()
    for base in (13, 14):
        fetch = world.only_fetch()
        assert (fetch.address, asked_offset(fetch)) == ("shard-0:1", base)
        world.answer(fetch, base, [1])
    world.now += LEFT_ALONE
    assert world.only_fetch().address == "shard-2:1", "it goes back"


@pytest.mark.parametrize(
    ("read_from", "address"), [(Nearest("elsewhere"), "shard-0:1"), ("head", "shard-0:1"), ("any", "shard-1:1")]
)
def test_who_is_read_from(read_from: Any, address: str) -> None:
    assert World(chains=THREE, read_from=read_from).only_fetch().address == address


def test_a_member_that_does_not_act_any_more_is_left_at_once_but_not_for_an_old_map() -> None:
    world = World(chains=THREE, read_from=Nearest("rack-1"))
    world.refuse(world.only_fetch(), fetched(ErrorCode.STALE, epoch=5))
    assert world.progress.take_map_wish() == world.map.version, "the map is what is old"
    world.map = cluster_map(*THREE, epoch=5)
    world.wait_for_retry()
    fetch = world.only_fetch()
    assert (fetch.address, fetch.request.partitions[0].epoch) == ("shard-1:1", 5)
    world.refuse(fetch, fetched(ErrorCode.STALE, epoch=5))
    fetch = world.only_fetch()
    assert fetch.address == "shard-0:1", "at once"
    world.refuse(fetch, fetched(ErrorCode.OVERLOADED))
    world.wait_for_retry()
    assert world.only_fetch().address == "shard-0:1", "the head's refusal is waited out as ever"


def test_a_member_that_lags_is_asked_again_and_then_left_alone() -> None:
    world = World(chains=THREE, read_from=Nearest("rack-1"))
    for _ in range(2):
        fetch = world.only_fetch()
        assert fetch.address == "shard-1:1"
        world.refuse(fetch, fetched(ErrorCode.BEYOND_COMMITTED))
        assert not world.plan(), "it does not spin"
        world.wait_for_retry()
    world.refuse(world.only_fetch(), fetched(ErrorCode.BEYOND_COMMITTED))
    assert world.only_fetch().address == "shard-0:1"


def test_only_the_head_says_where_a_log_begins_and_ends() -> None:
    world = World(chains=THREE, read_from=Nearest("rack-1"), out_of_range="earliest")
    world.answer(world.only_fetch(), 10, [5])
    world.refuse(world.only_fetch(), fetched(ErrorCode.OFFSET_OUT_OF_RANGE, committed_end=12))
    fetch = world.only_fetch()
    assert (fetch.address, asked_offset(fetch)) == ("shard-0:1", 15)
    world.refuse(fetch, fetched(committed_end=13))
    assert world.partition.committed_end == 15, "what is committed stays so"


def test_a_removed_partition_is_forgotten_with_what_it_held() -> None:
    world = World()
    world.answer(world.only_fetch(), 10, [5])
    fetch = world.only_fetch()
    world.progress.remove(PARTITION)
    world.answer(fetch, 15, [5])
    assert (world.progress.take(), world.progress.buffered_bytes, world.progress.reserved_bytes) == (None, 0, 0)
    assert not world.plan()


def test_partitions_that_are_far_behind_are_asked_for_in_two_requests() -> None:
    world = World()
    other = PartitionProgress(topic(), 0, 10, is_starting=False)
    world.progress.add(other)
    world.map = cluster_map([0], [0])
    (fetch,) = world.plan()
    parts = [
        PartitionAnswer(replace(fetched(committed_end=99), partition=asked.progress.key), [], None)
        for asked in fetch.asked
    ]
    world.absorb(fetch, parts)
    assert [len(half.asked) for half in world.plan()] == [1, 1]


def test_partitions_that_wait_at_their_end_keep_nothing_from_what_is_there() -> None:
    world = World(partition_fetch_bytes=4 << 10)
    world.map = cluster_map(topic=replace(topic(), placement=[Placement(number, 0) for number in range(6)]))
    fetch = world.only_fetch()
    for number in (2, 3, 4):
        world.progress.add(PartitionProgress(topic(), number, 0, is_starting=False))
        assert world.only_fetch().request.bytes_max == 4 << 10, "what can come, not all that there is memory for"
    world.progress.add(PartitionProgress(topic(), 5, 0, is_starting=False))
    assert not world.plan(), "as many requests wait as may"
    world.answer(fetch, 10, [200, 200, 200])
    (waiting,) = world.plan()
    assert [asked.progress.partition for asked in waiting.asked] == [5], "there is no room for more of partition 1"
    world.partition.committed_end = 1000
    taken = world.taken()
    assert not world.progress.may_fetch(taken)
    world.taken()
    assert world.progress.may_fetch(world.taken())
    assert asked_offset(world.only_fetch()) == 610


def test_an_entry_that_goes_back_in_its_log_is_noticed() -> None:
    first, second = entries(10, [3]), bytearray(entries(13, [2]))
    header = EntryHeader.decode(bytes(second))._replace(log_index=2)
    second[: len(header.encode())] = header.encode()
    found, damage = verified(memoryview(first + bytes(second)), PARTITION, 10)
    assert (len(found), damage) == (1, "entry 2 follows entry 11")


def test_fetched_bytes_that_are_flipped_cut_repeated_or_foreign_are_noticed() -> None:
    good = entries(10, [3, 2])
    first = len(entries(10, [3]))
    for bit in range(0, len(good) * 8, 3):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        found, damage = verified(memoryview(bad), PARTITION, 10)
        assert damage is not None, f"bit {bit} went unnoticed"
        assert len(found) == (bit // 8 >= first)
    for length in range(1, len(good)):
        found, damage = verified(memoryview(good)[:length], PARTITION, 10)
        assert damage is not None or len(found) == 1
    assert verified(memoryview(good + good), PARTITION, 10)[1] is not None
    assert verified(memoryview(good), PARTITION._replace(topic=6), 10)[1] is not None
    for position, bases in ((10, [10, 13]), (12, [10, 13]), (13, [13]), (5, [10, 13])):
        found, damage = verified(memoryview(good), PARTITION, position)
        assert ([entry.header.base_offset for entry in found], damage) == (bases, None)
