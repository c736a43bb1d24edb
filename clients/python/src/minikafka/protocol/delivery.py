"""Telling many waiters that one batch is stored.

A record's :class:`Delivery` is a handle on its batch and a number: making one costs two references, and nothing else
happens until somebody asks.
"""

from __future__ import annotations

import logging
from typing import Callable, NamedTuple

from .explain import Explain
from .producer_queue import Outcome, Stored

_log = logging.getLogger("minikafka")


class Delivered(NamedTuple):
    """Where a record was stored, on stable storage of every member of its chain."""

    topic: str
    partition: int
    #: None: it is stored, but the broker no longer remembers where (``duplicate_sequence``).
    offset: int | None
    #: The head's clock when it accepted the record, ms since the Unix epoch. None: as for the offset.
    append_timestamp: int | None
    #: Where the time of its batch went; the same for all records of it. None: nobody asked, the broker is of a release
    #: that can not tell, or the batch is stored where nobody remembers.
    explain: Explain | None = None


class DeliveredRun(NamedTuple):
    """Where records of one partition were stored that follow each other: so many of them from ``first`` on."""

    first: Delivered
    record_count: int


class Completion:
    """The end of one batch, awaited by all who sent a record in it. Any thread may ask; one completes."""

    __slots__ = ("_waiters", "outcome", "partition", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.outcome: Outcome | None = None
        self._waiters: list[Callable[[], object]] = []

    def complete(self, outcome: Outcome) -> None:
        """Says how the batch ended. Only the first time counts."""
        if self.outcome is None:
            self.outcome = outcome
            self._tell()

    def when_done(self, callback: Callable[[], object]) -> None:
        """Calls back once, when the batch has ended: at once if it has, otherwise from whoever completes it."""
        self._waiters.append(callback)
        # Looked at after the append: whoever completes it has either seen the callback, or has set the outcome before.
        if self.outcome is not None:
            self._tell()

    def _tell(self) -> None:
        while self._waiters:
            try:
                callback = self._waiters.pop()
            except IndexError:
                return
            try:
                callback()
            except Exception:
                _log.exception("a delivery callback of topic %s has failed", self.topic)

    def delivered(self, index: int) -> Delivered:
        """Where the record at ``index`` of the batch is.

        :raises MiniKafkaError: why it is not stored.
        """
        outcome = self.outcome
        if isinstance(outcome, Stored):
            offset = outcome.base_offset + index if outcome.base_offset is not None else None
            return Delivered(self.topic, self.partition, offset, outcome.append_timestamp, outcome.explain)
        assert outcome is not None, "a batch is asked where it is only after it has ended"
        # An error that is raised again and again must not gather a longer traceback each time.
        raise outcome.with_traceback(None)


class Delivery:
    """What one record will be stored as. :class:`minikafka.Delivery` waits for it, :class:`minikafka.aio.Delivery` is
    awaited."""

    __slots__ = ("completion", "index")

    completion: Completion
    #: The record's place in its batch.
    index: int

    @property
    def topic(self) -> str:
        """The topic that the record goes to."""
        return self.completion.topic

    @property
    def partition(self) -> int:
        """The partition that the record goes to."""
        return self.completion.partition

    def done(self) -> bool:
        """Whether the record is stored or has failed for good."""
        return self.completion.outcome is not None


class Run(NamedTuple):
    """Records that follow each other in one batch."""

    completion: Completion
    first: int
    record_count: int

    def delivered(self) -> DeliveredRun:
        """Where they are.

        :raises MiniKafkaError: why they are not stored.
        """
        return DeliveredRun(self.completion.delivered(self.first), self.record_count)


class ManyDelivery:
    """What the records of one ``send_many`` will be stored as."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs

    def __len__(self) -> int:
        """How many records."""
        return sum(run.record_count for run in self._runs)

    def done(self) -> bool:
        """Whether every record is stored or has failed for good."""
        return all(run.completion.outcome is not None for run in self._runs)

    def delivered(self) -> list[DeliveredRun]:
        """Where they are, in runs; the records of one partition in their order.

        :raises MiniKafkaError: the first failure.
        """
        return [run.delivered() for run in self._runs]

    def when_done(self, callback: Callable[[], object], at: int = 0) -> None:
        """Calls back once, when every record is stored or has failed for good."""
        while at < len(self._runs) and self._runs[at].completion.outcome is not None:
            at += 1
        if at == len(self._runs):
            callback()
            return
        # Each batch that ends leads on to the next one that has not, so that one callback at a time is enough.
        self._runs[at].completion.when_done(lambda: self.when_done(callback, at))
