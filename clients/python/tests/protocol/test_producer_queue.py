"""The queue against a model of a broker and of the worst network: whatever happens, records are stored in order, once.

The broker deduplicates as docs/PROTOCOL.md says. Requests of one connection arrive in order, replies come in any order,
connections break with requests in their buffers that may still arrive much later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.errors import (
    ConnectFailedError,
    ConnectionLostError,
    MiniKafkaError,
    OutcomeUnknownError,
    broker_error,
)
from minikafka.protocol.producer_queue import (
    Attempt,
    Outcome,
    PartitionQueue,
    QueueSettings,
    Resolved,
    Stored,
)

#: A batch on its way: record ids.
Records = tuple[int, ...]
Event = Callable[["World"], None]

REFUSALS = [
    ErrorCode.OVERLOADED,
    ErrorCode.NOT_OWNER,
    ErrorCode.DISK_FULL,
    ErrorCode.INVALID_BATCH,
    ErrorCode.BATCH_TOO_LARGE,
]
DENIALS = [ErrorCode.TIMED_OUT, ErrorCode.STALE, ErrorCode.RANGE_FAILED, ErrorCode.INTERNAL]


@dataclass
class Request:
    attempt: Attempt
    records: Records


@dataclass
class Remembered:
    next: int = 0
    stored: list[tuple[int, int]] = field(default_factory=list)


class ModelBroker:
    def __init__(self) -> None:
        self.log: list[int] = []
        self.producers: dict[int, Remembered] = {}

    def produce(self, request: Request) -> Outcome:
        attempt = request.attempt
        if attempt.producer_id < 0:
            return self.append(request.records)
        known = self.producers.get(attempt.producer_id)
        if known is None:
            if attempt.sequence != 0:
                return refusal(ErrorCode.UNKNOWN_PRODUCER)
            known = self.producers[attempt.producer_id] = Remembered()
        for sequence, offset in known.stored:
            if sequence == attempt.sequence:
                return Stored(offset, 0)
        if attempt.sequence < known.next:
            return refusal(ErrorCode.DUPLICATE_SEQUENCE)
        if attempt.sequence > known.next:
            return refusal(ErrorCode.OUT_OF_ORDER)
        known.next = attempt.sequence + len(request.records)
        known.stored = [*known.stored, (attempt.sequence, len(self.log))][-8:]
        return self.append(request.records)

    def append(self, records: Records) -> Stored:
        base = len(self.log)
        self.log.extend(records)
        return Stored(base, 0)


def refusal(code: ErrorCode) -> MiniKafkaError:
    return broker_error(code, "model")


class World:
    def __init__(self, *, idempotent: bool, seed: int) -> None:
        self.queue: PartitionQueue[Records] = PartitionQueue(
            QueueSettings("model", 0, idempotent, 8 if idempotent else 1, 10.0, seed)
        )
        self.broker = ModelBroker()
        #: Sent on the current connection, not yet arrived.
        self.under_way: list[Request] = []
        self.answered: list[tuple[Request, Outcome]] = []
        #: Left behind in the buffers of lost connections.
        self.late: list[Request] = []
        self.now = 100.0
        self.next_record = 0
        self.pushed: list[Records] = []
        self.resolved: list[Resolved[Records]] = []
        #: Sequence 0 of these was acknowledged to the client.
        self.may_forget: list[int] = []

    def push(self, count: int) -> None:
        records = tuple(range(self.next_record, self.next_record + count))
        self.next_record += count
        self.pushed.append(records)
        self.queue.push(records, count, self.now + 10)

    def send(self) -> None:
        attempt = self.queue.next_to_send()
        if attempt is not None:
            records = self.queue.get(attempt.key)
            assert records is not None
            self.queue.sent(attempt)
            self.under_way.append(Request(attempt, records))

    def arrive(self, denial: ErrorCode | None = None, *, reaches_log: bool = True) -> None:
        """The broker takes the oldest request that has not arrived; or refuses it; or stores it and denies that."""
        if not self.under_way:
            return
        request = self.under_way.pop(0)
        answer = self.broker.produce(request) if reaches_log else refusal(ErrorCode.INTERNAL)
        if denial is not None and (not reaches_log or isinstance(answer, Stored)):
            answer = refusal(denial)
        self.answered.append((request, answer))

    def reply(self, which: int) -> None:
        if self.answered:
            request, answer = self.answered.pop(which % len(self.answered))
            if isinstance(answer, Stored) and request.attempt.sequence == 0:
                self.may_forget.append(request.attempt.producer_id)
            self.queue.answered(self.now, request.attempt, answer, self.resolved)

    def lose_connection(self, dropped: int) -> None:
        under_way, self.under_way = self.under_way, []
        answered, self.answered = self.answered, []
        for request in [request for request, _ in answered] + under_way:
            self.queue.answered(self.now, request.attempt, ConnectionLostError("model", "reset"), self.resolved)
        self.late += under_way[: max(len(under_way) - dropped, 0)]

    def arrive_late(self, which: int) -> None:
        if self.late:
            self.broker.produce(self.late.pop(which % len(self.late)))

    def forget(self) -> None:
        """The broker forgets producers, but none whose very first batch is in doubt: that no client can survive."""
        in_doubt = {r.attempt.producer_id for r in self.under_way + self.late if r.attempt.sequence == 0}
        for producer in self.may_forget:
            if producer not in in_doubt:
                self.broker.producers.pop(producer, None)

    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds / 1000
        self.queue.tick(self.now, self.resolved)

    def refresh_map(self) -> None:
        self.queue.take_map_wish()
        self.queue.map_refreshed(self.now, self.resolved)

    def cannot_connect(self) -> None:
        if self.queue.next_to_send() is not None:
            self.queue.could_not_send(self.now, ConnectFailedError("model", "refused"), self.resolved)

    def finish(self) -> None:
        """Lets everything arrive and time pass until nothing is open."""
        for _ in range(10_000):
            if self.queue.is_empty():
                break
            self.send()
            self.arrive()
            self.reply(0)
            self.refresh_map()
            self.pass_time(3)
        while self.late:
            self.arrive_late(0)
        while self.under_way:
            self.arrive()

    def check(self, *, idempotent: bool) -> None:
        assert self.queue.is_empty(), "every batch must be resolved in the end"
        assert len(self.resolved) == len(self.pushed), "each batch is resolved once"
        outcomes = {resolved.payload: resolved.outcome for resolved in self.resolved}
        last_place = -1
        for records in self.pushed:
            places = [at for at, record in enumerate(self.broker.log) if record == records[0]]
            outcome = outcomes[records]
            if isinstance(outcome, Stored):
                assert len(places) == 1 or (not idempotent and places), f"{records} at {places}"
                assert tuple(self.broker.log[places[-1] : places[-1] + len(records)]) == records
                assert places[-1] > last_place, f"{records} overtook its predecessor"
                last_place = places[-1]
                assert not idempotent or outcome.base_offset == places[-1], "the window keeps it known"
            elif outcome.outcome_unknown:
                assert len(places) <= 1 or not idempotent, f"{records} at {places}"
            else:
                assert not places or not idempotent, f"{records} failed, but is stored"


def step(weight: int, strategy: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    return [strategy] * weight


def events(*, late: bool) -> st.SearchStrategy[list[tuple[str, tuple[Any, ...]]]]:
    small = st.integers(0, 7)
    choices = [
        *step(6, st.tuples(st.just("push"), st.tuples(st.integers(1, 3)))),
        *step(12, st.just(("send", ()))),
        *step(12, st.just(("arrive", ()))),
        *step(2, st.tuples(st.just("refuse"), st.tuples(st.sampled_from(REFUSALS)))),
        st.tuples(st.just("deny"), st.tuples(st.sampled_from(DENIALS))),
        *step(12, st.tuples(st.just("reply"), st.tuples(small))),
        st.tuples(st.just("lose_connection"), st.tuples(small)),
        *(step(1, st.tuples(st.just("arrive_late"), st.tuples(small))) if late else []),
        st.just(("forget", ())),
        *step(3, st.tuples(st.just("pass_time"), st.tuples(st.integers(1, 39) | st.integers(500, 5999)))),
        *step(2, st.just(("refresh_map", ()))),
        st.just(("cannot_connect", ())),
    ]
    return st.lists(st.one_of(choices), min_size=1, max_size=150)


def run(world: World, happenings: list[tuple[str, tuple[Any, ...]]]) -> None:
    for name, arguments in happenings:
        if name == "refuse":
            world.arrive(arguments[0], reaches_log=False)
        elif name == "deny":
            world.arrive(arguments[0])
        else:
            getattr(world, name)(*arguments)


@settings(max_examples=300, deadline=None)
@given(events(late=True), st.integers(0, 2**64 - 1))
def test_stored_once_and_in_order_whatever_happens(happenings: list[Any], seed: int) -> None:
    world = World(idempotent=True, seed=seed)
    run(world, happenings)
    world.finish()
    world.check(idempotent=True)


@settings(max_examples=100, deadline=None)
@given(events(late=False), st.integers(0, 2**64 - 1))
def test_without_numbers_order_still_holds(happenings: list[Any], seed: int) -> None:
    world = World(idempotent=False, seed=seed)
    run(world, happenings)
    # A late arrival would overtake: nothing but numbers can prevent that.
    world.late.clear()
    world.finish()
    world.check(idempotent=False)


def world_with(batches: int, seed: int) -> World:
    world = World(idempotent=True, seed=seed)
    push_and_send(world, batches)
    return world


def push_and_send(world: World, batches: int) -> None:
    for _ in range(batches):
        world.push(2)
        world.send()


def test_in_flight_is_bounded_and_then_flows_again() -> None:
    world = world_with(12, 1)
    assert len(world.under_way) == 8
    assert not world.queue.would_send()
    world.arrive()
    world.reply(0)
    world.send()
    assert len(world.under_way) == 8


def test_a_refused_batch_that_was_the_last_gives_its_sequence_back() -> None:
    world = world_with(2, 2)
    world.arrive()
    world.arrive(ErrorCode.INVALID_BATCH, reaches_log=False)
    world.reply(1)
    producer_id = world.queue.producer_id
    push_and_send(world, 1)
    assert (world.under_way[0].attempt.sequence, world.under_way[0].attempt.producer_id) == (2, producer_id)


def test_a_refused_batch_with_others_behind_it_begins_a_new_producer_id() -> None:
    """Cause: the batch behind was looked for by its number, and that one had been stored and was gone already; so the
    sequence was used again although a later one was in flight. Fix: what stands behind is looked for where it
    stands."""
    world = world_with(3, 2)
    world.arrive(ErrorCode.INVALID_BATCH, reaches_log=False)
    producer_id = world.queue.producer_id
    batch = world.under_way[0]
    world.queue.answered(world.now, batch.attempt, Stored(0, 0), world.resolved)
    world.reply(0)
    assert world.queue.next_to_send() is None, "what is in flight is on the old line"
    world.queue.answered(world.now, world.under_way[1].attempt, refusal(ErrorCode.OUT_OF_ORDER), world.resolved)
    world.pass_time(1000)
    attempt = world.queue.next_to_send()
    assert attempt is not None
    assert attempt.sequence == 0 and attempt.producer_id != producer_id


def test_sequences_wrap_from_the_largest_to_zero() -> None:
    world = World(idempotent=True, seed=3)
    world.queue._next_sequence = (1 << 31) - 1
    push_and_send(world, 2)
    assert [request.attempt.sequence for request in world.under_way] == [(1 << 31) - 1, 1]


def test_a_forgotten_producer_goes_on_under_a_new_id() -> None:
    world = world_with(1, 4)
    world.arrive()
    world.reply(0)
    world.forget()
    push_and_send(world, 3)
    forgotten = world.under_way[0].attempt.producer_id
    world.finish()
    world.check(idempotent=True)
    assert all(isinstance(resolved.outcome, Stored) for resolved in world.resolved)
    assert world.queue.producer_id != forgotten


def test_a_batch_in_doubt_of_a_forgotten_producer_is_not_sent_again() -> None:
    world = world_with(1, 5)
    world.arrive()
    world.reply(0)
    push_and_send(world, 2)
    world.arrive()
    world.lose_connection(8)
    world.forget()
    world.finish()
    world.check(idempotent=True)
    assert sum(isinstance(resolved.outcome, OutcomeUnknownError) for resolved in world.resolved) == 2


def test_a_broker_that_does_not_know_the_producer_yet_has_not_forgotten_it() -> None:
    world = world_with(2, 6)
    producer_id = world.queue.producer_id
    world.arrive(ErrorCode.OVERLOADED, reaches_log=False)
    world.arrive()
    outcome = world.answered[1][1]
    assert isinstance(outcome, MiniKafkaError) and outcome.code is ErrorCode.UNKNOWN_PRODUCER
    world.finish()
    world.check(idempotent=True)
    assert all(isinstance(resolved.outcome, Stored) for resolved in world.resolved)
    assert world.queue.producer_id == producer_id


def test_an_answer_that_is_late_holds_the_window() -> None:
    world = world_with(8, 7)
    for _ in range(8):
        world.arrive()
    for _ in range(7):
        world.reply(1)
    push_and_send(world, 1)
    assert not world.under_way
    world.reply(0)
    world.send()
    assert len(world.under_way) == 1


def test_after_a_failure_one_batch_finds_out_before_the_others_follow() -> None:
    world = world_with(4, 7)
    for _ in range(4):
        world.arrive(ErrorCode.OVERLOADED, reaches_log=False)
    for _ in range(4):
        world.reply(0)
    world.pass_time(1000)
    for _ in range(4):
        world.send()
    assert len(world.under_way) == 1
    world.arrive()
    world.reply(0)
    for _ in range(4):
        world.send()
    assert len(world.under_way) == 3


def test_a_delivery_that_is_over_says_whether_it_may_be_stored() -> None:
    world = world_with(2, 8)
    world.arrive(ErrorCode.OVERLOADED, reaches_log=False)
    world.reply(0)
    world.pass_time(10_000)
    outcomes = [resolved.outcome for resolved in world.resolved]
    assert all(isinstance(outcome, MiniKafkaError) for outcome in outcomes)
    assert [getattr(outcome, "outcome_unknown", None) for outcome in outcomes] == [False, True]
    with pytest.raises(TimeoutError, match="overloaded"):
        raise outcomes[0]  # type: ignore[misc]


def test_a_server_that_asks_for_a_pause_gets_it_and_no_longer_than_two_seconds() -> None:
    for asked, expected in ((0.3, 0.3), (9000.0, 2.0)):
        world = world_with(1, 9)
        (request,) = world.under_way
        error = broker_error(ErrorCode.THROTTLED, "model", retry_after=asked)
        world.queue.answered(world.now, request.attempt, error, world.resolved)
        assert world.queue.wake_at() == pytest.approx(world.now + expected)
