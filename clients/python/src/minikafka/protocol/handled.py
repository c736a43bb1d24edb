"""What an application has handled of one partition: from it follows the offset that its group may go on with."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock


class Handled:
    """Offsets that were given out and those that were handled, from a first position on. Any thread may call.

    What is handled in order costs a comparison; what is handled out of order is remembered until the gap before it
    closes, so that is bounded by what an application holds without handling it.
    """

    def __init__(self, position: int) -> None:
        #: The lowest offset that is not handled: what may be committed.
        self.committable = position
        #: The offset behind the last one that was given out.
        self.given_to = position
        #: From here on nothing will be handled here any more; None: everything may be.
        self._given_back: int | None = None
        self._handled: set[int] = set()
        #: Stretches in which there is no record (compaction, damage, a seek), by their first offset.
        self._gaps: dict[int, int] = {}
        self._lock = Lock()

    @property
    def is_outstanding(self) -> bool:
        """Whether something was given out that is not handled, and may still be."""
        end = self.given_to if self._given_back is None else min(self.given_to, self._given_back)
        return self.committable < end

    def give(self, first: int, end: int, gaps: Iterable[tuple[int, int]] = ()) -> None:
        """The records from ``first`` to before ``end`` are given out, but for gaps between them."""
        with self._lock:
            if first > self.given_to:
                self._gaps[self.given_to] = first
            self._gaps.update(gaps)
            self.given_to = max(self.given_to, end)
            self._advance()

    def mark(self, first: int, end: int) -> None:
        """The records from ``first`` to before ``end`` are handled."""
        with self._lock:
            if first <= self.committable:
                self.committable = max(self.committable, end)
            else:
                self._handled.update(range(first, end))
            if self._handled or self._gaps:
                self._advance()

    def take_back(self, offset: int) -> None:
        """Nothing from ``offset`` on will be handled here any more: nobody needs to wait for it."""
        with self._lock:
            self._given_back = offset if self._given_back is None else min(self._given_back, offset)

    def mark_all_before(self, end: int) -> None:
        """Every record before ``end`` is handled."""
        self.mark(self.committable, end)

    def _advance(self) -> None:
        """Goes on over everything that is handled or not there."""
        while True:
            at = self.committable
            for first, end in list(self._gaps.items()):
                if first <= self.committable:
                    del self._gaps[first]
                    self.committable = max(self.committable, end)
            while self.committable in self._handled:
                self._handled.discard(self.committable)
                self.committable += 1
            if self.committable == at:
                break
        if self._handled:
            self._handled = {offset for offset in self._handled if offset > self.committable}
