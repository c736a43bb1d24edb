"""Which batches are not resolved yet: what ``flush`` waits for."""

from __future__ import annotations

from threading import Lock
from typing import Callable

from .errors import MiniKafkaError


class Unresolved:
    """Numbers batches in the order in which they were opened, across partitions. Any thread may call."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._next = 0
        #: In the order of their tickets.
        self._open: dict[int, None] = {}
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        #: Not yet told by a flush.
        self._first_failure: MiniKafkaError | None = None

    @property
    def next_ticket(self) -> int:
        """The ticket that the next batch will get."""
        return self._next

    def open(self) -> int:
        """The ticket of a batch that is being opened."""
        with self._lock:
            ticket = self._next
            self._next += 1
            self._open[ticket] = None
            return ticket

    def resolve(self, ticket: int, failure: MiniKafkaError | None) -> None:
        """The batch is stored or has failed."""
        with self._lock:
            self._open.pop(ticket, None)
            if self._first_failure is None:
                self._first_failure = failure
            done = self._done()
        for callback in done:
            callback()

    def is_empty(self) -> bool:
        """Whether every batch is resolved."""
        return not self._open

    def when_before(self, end: int, callback: Callable[[], object]) -> None:
        """Calls back once every batch with a ticket before ``end`` is resolved."""
        with self._lock:
            self._waiting.append((end, callback))
            done = self._done()
        for waiting in done:
            waiting()

    def take_failure(self) -> MiniKafkaError | None:
        """The first failure that no earlier call has returned."""
        with self._lock:
            failure, self._first_failure = self._first_failure, None
            return failure

    def _done(self) -> list[Callable[[], object]]:
        oldest = next(iter(self._open), self._next)
        done = [callback for end, callback in self._waiting if end <= oldest]
        if done:
            self._waiting = [waiting for waiting in self._waiting if waiting[0] > oldest]
        return done
