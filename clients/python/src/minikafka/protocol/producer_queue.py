"""The unanswered batches of one partition: what is sent when, under which sequence, and what an answer means.

Pure and synchronous: time, answers and the end of a map refresh come in; attempts to make and resolved batches come
out. The promise: records are stored in the order of ``push``, each at most once; a batch resolved as stored is stored
exactly once; one that failed is not stored, unless its error says that the outcome is unknown. (Without idempotence,
order holds, but a batch whose answer was lost may be stored again.)

::

                     a retriable failure              nothing in flight any more
         ┌─────────┐                    ┌──────────┐                             ┌─────────┐
     ──▶ │ FLOWING │ ─────────────────▶ │ DRAINING │ ──────────────────────────▶ │ WAITING │
         └─────────┘                    └──────────┘                             └─────────┘
              ▲                               back-off over and map refreshed         │
              └───────────────────────────────────────────────────────────────────────┘

Only FLOWING sends. Batches in flight are always the front of the queue, so after a failure everything unanswered goes
again, in order and under the same sequences, one batch at a time until the first success.

**Lines.** A *line* is a producer id with its sequences. The broker stores a sequence of a line only directly behind its
predecessor; so when one batch of a line is certainly not stored, none behind it is. A line breaks when a batch leaves
the queue without being stored (a failure that no retry mends, or its deadline), or when the broker has forgotten the
producer. What comes behind the break then waits until everything before it is resolved, and goes on a new line, under a
new producer id, from sequence 0. It is never renumbered under the old id: a copy of an old attempt may still sit in a
network buffer, and its old sequence must not come true there. Batches behind the break that may be stored themselves
fail with :class:`OutcomeUnknownError`: under a new line they could be stored twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar, Union

from . import backoff
from .entry import NO_PRODUCER
from .error_code import ErrorCode
from .errors import DeadlineExceededError, MiniKafkaError, OutcomeUnknownError, broker_error
from .explain import Explain
from .randomness import Randomness

#: A refresh of the map is waited for at most this long: the data path goes on without gateways.
MAP_WAIT_MAX: Final = 1.0
#: The oldest batch is answered ``out_of_order`` this often before its line counts as broken: its predecessors are
#: acknowledged, so the broker has lost what it should remember.
FRONT_OUT_OF_ORDER_MAX: Final = 3
#: Sequences are 31 bits; behind the largest comes 0.
_SEQUENCES: Final = 1 << 31

P = TypeVar("P")


class Stored(NamedTuple):
    """Where a batch is stored; nothing, when the broker no longer remembers."""

    base_offset: int | None = None
    #: The head's clock when it accepted the batch, ms since the Unix epoch.
    append_timestamp: int | None = None
    #: Where its time went, if that was asked for.
    explain: Explain | None = None


Outcome = Union[Stored, MiniKafkaError]


class Attempt(NamedTuple):
    """One sending of one batch."""

    #: Names the batch within its queue.
    key: int
    #: Counts the attempts of this batch, from 1.
    number: int
    producer_id: int
    sequence: int
    #: When the batch fails whatever happens.
    deadline: float


@dataclass(frozen=True)
class Resolved(Generic[P]):
    """A batch that left the queue."""

    payload: P
    outcome: Outcome


@dataclass(frozen=True)
class QueueSettings:
    """What a queue is told once. Times are seconds."""

    topic: str
    partition: int
    idempotent: bool
    in_flight_max: int
    delivery_timeout: float
    #: Producer ids and jitter follow from it.
    seed: int


class _Phase(Enum):
    FLOWING = "flowing"
    DRAINING = "draining"
    WAITING = "waiting"


class _Queued(Generic[P]):
    __slots__ = (
        "attempts",
        "deadline",
        "in_flight",
        "key",
        "last_error",
        "maybe_stored",
        "out_of_order",
        "payload",
        "record_count",
        "sequence",
    )

    def __init__(self, key: int, payload: P, record_count: int, deadline: float) -> None:
        self.key = key
        self.payload = payload
        self.record_count = record_count
        self.deadline = deadline
        #: Assigned when it is first sent on the current line.
        self.sequence: int | None = None
        self.attempts = 0
        self.in_flight = False
        #: An attempt on the current line ended without telling whether it was stored.
        self.maybe_stored = False
        self.out_of_order = 0
        self.last_error: MiniKafkaError | None = None


class _Break(NamedTuple):
    """Where the current line ends."""

    #: Batches from here on need a new line.
    start: int
    #: Whether the batch that broke it is certainly not stored; then nothing behind it is.
    certain: bool


class PartitionQueue(Generic[P]):
    """See the module's description. ``P`` is the batch itself, which the queue never looks at. Times are seconds."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._randomness = Randomness(settings.seed)
        self._batches: deque[_Queued[P]] = deque()
        self._by_key: dict[int, _Queued[P]] = {}
        self._next_key = 0
        self._in_flight = 0
        self._phase = _Phase.FLOWING
        #: While draining: what the server asked for, and whether the map is out of date.
        self._server_asks = 0.0
        self._needs_map = False
        #: While waiting: until when, and how long a refresh is waited for (None: not, or not any more).
        self._until = 0.0
        self._map_until: float | None = None
        #: Retriable failures since the last success.
        self._failures = 0
        self._break: _Break | None = None
        self._wants_map = False
        #: The current line: who numbers, and the sequence of the next batch.
        self.producer_id = NO_PRODUCER
        self._next_sequence = 0
        self._begin_line()

    def push(self, payload: P, record_count: int, deadline: float) -> int:
        """Puts a batch at the end and returns its key. Deadlines must not decrease from push to push."""
        batch = _Queued(self._next_key, payload, record_count, deadline)
        self._next_key += 1
        self._batches.append(batch)
        self._by_key[batch.key] = batch
        return batch.key

    def next_to_send(self) -> Attempt | None:
        """The batch to be sent now, if one is: the caller sends it and says so with :meth:`sent`, or leaves it."""
        if self._phase is not _Phase.FLOWING or self._in_flight >= len(self._batches):
            return None
        batch = self._batches[self._in_flight]
        assert not batch.in_flight, "what is in flight must be the front of the queue"
        if not self._is_in_window(batch.key) or (self._break is not None and batch.key >= self._break.start):
            return None
        sequence = batch.sequence if batch.sequence is not None else self._next_sequence
        return Attempt(batch.key, batch.attempts + 1, self.producer_id, sequence, batch.deadline)

    def sent(self, attempt: Attempt) -> None:
        """The attempt that :meth:`next_to_send` just gave is on its way."""
        batch = self._batches[self._in_flight]
        assert batch.key == attempt.key, "batches must be sent in order"
        if batch.sequence is None:
            batch.sequence = self._next_sequence
            if self._settings.idempotent:
                self._next_sequence = (self._next_sequence + batch.record_count) % _SEQUENCES
        batch.attempts = attempt.number
        batch.in_flight = True
        self._in_flight += 1

    def could_not_send(self, now: float, error: MiniKafkaError, out: list[Resolved[P]]) -> None:
        """The next batch could not even be sent: everything waits as after a failure, and nothing was written."""
        self._retry_later(error)
        if self._in_flight < len(self._batches):
            self._batches[self._in_flight].last_error = error
        self._settle(now, out)

    def answered(self, now: float, attempt: Attempt, outcome: Outcome, out: list[Resolved[P]]) -> None:
        """An attempt was answered, or failed without an answer. Answers to batches that are resolved are ignored."""
        batch = self._by_key.get(attempt.key)
        if batch is None or not batch.in_flight or batch.attempts != attempt.number:
            return
        batch.in_flight = False
        self._in_flight -= 1
        if isinstance(outcome, Stored):
            self._stored(batch, outcome, out)
        else:
            self._failed(batch, outcome, out)
        self._settle(now, out)

    def tick(self, now: float, out: list[Resolved[P]]) -> None:
        """Time has passed."""
        while self._batches and self._batches[0].deadline <= now:
            self._expire_front(out)
        self._settle(now, out)

    def map_refreshed(self, now: float, out: list[Resolved[P]]) -> None:
        """The refresh that :meth:`take_map_wish` asked for has ended, well or not."""
        self._map_until = None
        self._settle(now, out)

    def take_map_wish(self) -> bool:
        """Whether the map should be refreshed; said once per failure."""
        wish, self._wants_map = self._wants_map, False
        return wish

    def wake_at(self) -> float | None:
        """When :meth:`tick` has something to do, if nothing else happens before."""
        times = [self._batches[0].deadline] if self._batches else []
        if self._phase is _Phase.WAITING:
            times.append(self._until if self._map_until is None else max(self._map_until, self._until))
        return min(times, default=None)

    def would_send(self) -> bool:
        """Whether a batch pushed now would be sent at once."""
        return (
            self._phase is _Phase.FLOWING
            and len(self._batches) == self._in_flight
            and self._is_in_window(self._next_key)
            and self._break is None
        )

    def is_empty(self) -> bool:
        """Whether every batch is resolved."""
        return not self._batches

    def get(self, key: int) -> P | None:
        """A batch that is not resolved yet."""
        batch = self._by_key.get(key)
        return batch.payload if batch is not None else None

    def drain(self) -> list[P]:
        """Takes every batch out, resolved or not; for a producer that ends."""
        payloads = [batch.payload for batch in self._batches]
        self._batches.clear()
        self._by_key.clear()
        self._in_flight = 0
        return payloads

    def _is_in_window(self, key: int) -> bool:
        """Whether a batch may be sent before the oldest one is resolved.

        The window counts batches from that one on, answered or not, because the broker remembers the places of so many.
        While it is unclear whether the broker takes anything, one batch is enough to find out.
        """
        window = 1 if self._failures else self._settings.in_flight_max
        return not self._batches or key - self._batches[0].key < window

    def _stored(self, batch: _Queued[P], stored: Stored, out: list[Resolved[P]]) -> None:
        self._failures = 0
        self._resolve(batch, stored, out)

    def _failed(self, batch: _Queued[P], error: MiniKafkaError, out: list[Resolved[P]]) -> None:
        code = error.code
        is_front = batch is self._batches[0]
        if code is ErrorCode.DUPLICATE_SEQUENCE:
            self._stored(batch, Stored(), out)
        elif code is ErrorCode.UNKNOWN_PRODUCER:
            # As long as a predecessor is not stored, a broker may not know this producer yet.
            if is_front:
                self._break_from(batch.key, certain=not batch.maybe_stored)
            self._retry_later(error)
        elif code is not None and not code.retriable:
            self._give_up(batch, error, out)
        else:
            batch.maybe_stored = batch.maybe_stored or error.outcome_unknown
            batch.last_error = error
            batch.out_of_order += is_front and code is ErrorCode.OUT_OF_ORDER
            if batch.out_of_order >= FRONT_OUT_OF_ORDER_MAX:
                batch.out_of_order = 0
                self._break_from(batch.key, certain=not batch.maybe_stored)
            self._retry_later(error)

    def _give_up(self, batch: _Queued[P], error: MiniKafkaError, out: list[Resolved[P]]) -> None:
        """A failure that no retry mends."""
        certain = not batch.maybe_stored and not error.outcome_unknown
        self._mend_line_behind(batch, certain=certain)
        self._resolve(batch, self._outcome_unknown(error) if batch.maybe_stored else error, out)

    def _expire_front(self, out: list[Resolved[P]]) -> None:
        batch = self._batches[0]
        unknown = batch.in_flight or batch.maybe_stored
        settings = self._settings
        why = f" (last failure: {batch.last_error})" if batch.last_error is not None else ""
        error = DeadlineExceededError(
            f"delivery to topic {settings.topic} partition {settings.partition}{why}",
            settings.delivery_timeout,
            outcome_unknown=unknown,
        )
        self._in_flight -= batch.in_flight
        self._mend_line_behind(batch, certain=not unknown)
        self._resolve(batch, error, out)

    def _mend_line_behind(self, batch: _Queued[P], *, certain: bool) -> None:
        """``batch`` is about to leave without being stored."""
        if batch.sequence is None or not self._settings.idempotent:
            return
        place = self._batches.index(batch) + 1
        is_last_sent = place == len(self._batches) or self._batches[place].sequence is None
        if certain and is_last_sent and self._break is None:
            # Every attempt was answered, so no copy of it is on its way: its sequence is free again.
            self._next_sequence = batch.sequence
        else:
            self._break_from(batch.key, certain=certain)

    def _break_from(self, start: int, *, certain: bool) -> None:
        if self._break is None or self._break.start > start:
            self._break = _Break(start, certain)

    def _retry_later(self, error: MiniKafkaError) -> None:
        if self._phase is not _Phase.DRAINING:
            self._phase, self._server_asks, self._needs_map = _Phase.DRAINING, 0.0, False
        self._server_asks = max(self._server_asks, error.retry_after)
        self._needs_map = self._needs_map or error.wants_map

    def _resolve(self, batch: _Queued[P], outcome: Outcome, out: list[Resolved[P]]) -> None:
        self._batches.remove(batch)
        del self._by_key[batch.key]
        out.append(Resolved(batch.payload, outcome))

    def _settle(self, now: float, out: list[Resolved[P]]) -> None:
        """Takes every step that needs nothing but time."""
        if self._phase is _Phase.DRAINING and self._in_flight == 0:
            self._failures += 1
            wait = backoff.wait_of(
                self._failures,
                self._randomness.fraction(),
                needs_map=self._needs_map,
                server_asks=self._server_asks,
            )
            if self._failures == 1 and self._needs_map and not self._server_asks:
                # A new map is all that is missing.
                wait = 0.0
            self._wants_map = self._wants_map or self._needs_map
            self._phase, self._until = _Phase.WAITING, now + wait
            self._map_until = now + MAP_WAIT_MAX if self._needs_map else None
        broken = self._break
        if broken is not None and not self._in_flight:
            self._start_new_line_at(broken, out)
        if self._phase is _Phase.WAITING and self._until <= now and (self._map_until is None or self._map_until <= now):
            self._phase = _Phase.FLOWING

    def _start_new_line_at(self, broken: _Break, out: list[Resolved[P]]) -> None:
        """Once everything before the break is resolved, what is behind it goes on a new line."""
        if self._batches and self._batches[0].key < broken.start:
            return
        # Behind a batch that is certainly not stored, nothing is: the run of doubtful ones ends there.
        while not broken.certain and self._batches and self._batches[0].maybe_stored:
            batch = self._batches[0]
            reason = batch.last_error or broker_error(ErrorCode.UNKNOWN_PRODUCER, self._settings.topic)
            self._resolve(batch, self._outcome_unknown(reason), out)
        for batch in self._batches:
            batch.sequence, batch.maybe_stored = None, False
        self._begin_line()
        self._break = None

    def _begin_line(self) -> None:
        """A random 63-bit id from sequence 0 on; without idempotence, the id that means none."""
        self.producer_id = self._randomness.number() >> 1 if self._settings.idempotent else NO_PRODUCER
        self._next_sequence = 0

    def _outcome_unknown(self, reason: MiniKafkaError) -> OutcomeUnknownError:
        return OutcomeUnknownError(self._settings.topic, self._settings.partition, reason)
