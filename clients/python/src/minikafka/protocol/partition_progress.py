"""How far one partition has been fetched and read, and what an answer means for it.

Pure. An answer leads to an :class:`Outcome`: ask again at once, ask another member at once, ask again after a back-off
(with a newer map if so), or stand still with an error until the application seeks.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, Literal, NamedTuple

from .chain_members import ChainMembers
from .error_code import ErrorCode
from .errors import DamagedError, DataDamagedError, MalformedReplyError, MiniKafkaError, broker_error
from .fetched_entries import FetchedEntry
from .messages.data import FetchedPartition, PartitionKey, RangeKey
from .messages.topics import TopicDescription

_log = logging.getLogger("minikafka")

#: The same position is damaged this often before its partition stands still.
DAMAGES_MAX: Final = 3
#: A partition is followed to older ranges this often without a record in between.
HOPS_MAX: Final = 16
#: Answers without data that came at once and are taken for chance.
EMPTY_ANSWERS_MAX: Final = 2
#: Then this long a pause is made, in seconds.
EMPTY_ANSWER_PAUSE: Final = 0.020

OutOfRange = Literal["earliest", "latest", "error"]


class Outcome(NamedTuple):
    """What to do about one partition."""

    kind: Literal["ask", "back-off", "fail"]
    needs_map: bool = False
    server_asks: float = 0.0
    error: MiniKafkaError | None = None


ASK: Final = Outcome("ask")


def back_off(*, needs_map: bool = False, server_asks: float = 0.0) -> Outcome:
    """Ask again after a while."""
    return Outcome("back-off", needs_map, server_asks)


def fail(error: MiniKafkaError) -> Outcome:
    """Stand still."""
    return Outcome("fail", error=error)


class PartitionAnswer(NamedTuple):
    """One partition's part of an answer, its entries verified."""

    fetched: FetchedPartition
    entries: list[FetchedEntry]
    #: What is wrong behind the entries, if anything.
    damage: str | None


class Skipped(NamedTuple):
    """Records that were left out because they are damaged: from the first of them to before the first one behind."""

    topic: str
    partition: int
    first: int
    end: int


class PartitionProgress:
    """See the module's description."""

    def __init__(self, topic: TopicDescription, partition: int, position: int, *, is_starting: bool) -> None:
        self.topic = topic
        self.partition = partition
        self.key = PartitionKey(topic.topic, partition)
        self.is_paused = False
        #: The user is to hear first that the group assigned it.
        self.is_held = False
        self.is_idle = True
        self.is_ready = False
        #: The application does not read it any more.
        self.is_removed = False
        #: Grows when the application seeks: answers to older questions do not count.
        self.generation = 0
        self.committed_end: int | None = None
        self.batches: deque[FetchedEntry] = deque()
        self.buffered_bytes = 0
        self.restart(position, is_starting=is_starting)

    def restart(self, position: int, *, is_starting: bool = False) -> None:
        """The application goes on at ``position``; ``is_starting``: or where the log begins, if that is later."""
        self.generation += 1
        #: Offset of the next record for the application, and of the next one to be fetched.
        self.position = position
        self.fetch_from = position
        self.is_starting = is_starting
        self.batches.clear()
        self.buffered_bytes = 0
        #: Older offsets are in this range, below this offset.
        self.elsewhere: tuple[RangeKey, int] | None = None
        self.members = ChainMembers()
        self.hops = self.failures = self.damages = self.empty_answers = 0
        self.retry_at: float | None = None
        #: It stands still until a seek.
        self.failed: MiniKafkaError | None = None
        self.failure_was_told = False

    @property
    def is_still(self) -> bool:
        """Nothing is fetched for it, nor handed out."""
        return self.is_paused or self.is_held

    @property
    def is_behind(self) -> bool:
        """Whether there is certainly more to be fetched."""
        return self.committed_end is not None and self.fetch_from < self.committed_end

    @property
    def target(self) -> str:
        """What errors are about."""
        return f"topic {self.topic.name} partition {self.partition}"

    def take_entries(self, answer: PartitionAnswer) -> None:
        """Takes what was fetched; it waits for the application."""
        self.is_starting = False
        self.failures = 0
        end = answer.fetched.committed_end
        for entry in answer.entries:
            self.hops = self.damages = self.empty_answers = 0
            self.fetch_from = entry.header.next_offset
            self.buffered_bytes += entry.buffered_bytes
            end = max(end, self.fetch_from)
            self.batches.append(entry)
        if self.elsewhere is None:
            # Members learn of commits one after the other; none of it is ever taken back.
            self.committed_end = max(self.committed_end or 0, end)
        elif self.fetch_from >= self.elsewhere[1]:
            # An older range knows only its own end; the partition's own log begins here.
            self.elsewhere = None

    def take_error(self, code: ErrorCode, fetched: FetchedPartition, out_of_range: OutOfRange) -> Outcome:
        """The head, or who else is believed, answered with an error."""
        error = broker_error(code, self.target, epoch=fetched.epoch)
        if code is ErrorCode.MOVED:
            return self._follow(fetched) or fail(error)
        if code is ErrorCode.OFFSET_OUT_OF_RANGE:
            return self._reset("earliest" if self.is_starting else out_of_range, fetched) or fail(error)
        if not code.retriable:
            return fail(error)
        if code is ErrorCode.UNKNOWN_PARTITION:
            # An older range that no longer has it is not worth asking again.
            self.elsewhere = None
        return back_off(needs_map=error.wants_map)

    def take_damage(self, reason: str) -> Outcome:
        """What came does not match its checksums or structure."""
        self.damages += 1
        _log.warning("%s offset %d: fetched data are damaged: %s", self.target, self.fetch_from, reason)
        if self.damages < DAMAGES_MAX:
            return back_off()
        return fail(DamagedError(self.topic.name, self.partition, self.fetch_from, reason))

    def take_damaged_records(self, fetched: FetchedPartition, *, skips: bool) -> tuple[Outcome, Skipped | None]:
        """Records are damaged where they are stored: stands still, or goes on behind them."""
        self.is_starting = False
        first = self.fetch_from
        if self.elsewhere is None:
            self.committed_end = fetched.committed_end
        resume = fetched.resume if fetched.resume is not None and fetched.resume > first else None
        if not skips:
            return fail(DataDamagedError(self.topic.name, self.partition, first, resume)), None
        if resume is None:
            # The end of what is known; whether there was more, nobody can tell.
            if not self.failures:
                _log.warning("%s offset %d: records at the end may be lost", self.target, first)
            return back_off(), None
        _log.warning("%s: damaged records from %d to before %d were skipped", self.target, first, resume)
        self.failures = 0
        self._go_to(resume)
        return ASK, Skipped(self.topic.name, self.partition, first, resume)

    def take_failure(self, error: MiniKafkaError) -> Outcome:
        """The request as a whole failed."""
        if isinstance(error, MalformedReplyError):
            return self.take_damage(str(error))
        if error.retriable:
            return back_off(needs_map=error.wants_map, server_asks=error.retry_after)
        return fail(error)

    def pause_after_empty_answer(self, *, came_at_once: bool) -> Outcome | None:
        """Answers without data that come at once must not make the client spin."""
        self.empty_answers = self.empty_answers + 1 if came_at_once else 0
        return back_off(server_asks=EMPTY_ANSWER_PAUSE) if self.empty_answers > EMPTY_ANSWERS_MAX else None

    def _follow(self, fetched: FetchedPartition) -> Outcome | None:
        """Older offsets are in another range, until the log that named it begins."""
        self.hops += 1
        if fetched.previous is None or self.hops > HOPS_MAX or fetched.log_start <= self.fetch_from:
            return None
        self.elsewhere = (fetched.previous, fetched.log_start)
        return ASK

    def _reset(self, policy: OutOfRange, fetched: FetchedPartition) -> Outcome | None:
        """The position does not exist: goes where the policy says, or nowhere."""
        self.hops += 1
        if policy == "error" or self.hops > HOPS_MAX:
            return None
        if policy == "earliest":
            position = fetched.log_start
        elif self.elsewhere is None:
            position = fetched.committed_end
        else:
            # The end of an older range is not the partition's.
            position = self.elsewhere[1]
        _log.info("%s: position reset from %d to %d", self.target, self.fetch_from, position)
        self._go_to(position)
        if self.elsewhere is not None and position >= self.elsewhere[1]:
            self.elsewhere = None
        return ASK

    def _go_to(self, position: int) -> None:
        self.fetch_from = position
        if not self.batches:
            self.position = position
