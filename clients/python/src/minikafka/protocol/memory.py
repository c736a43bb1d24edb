"""The memory that a producer's records may take, and who waits for some."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Callable

from .errors import ClosedError


class Reservation:
    """Somebody who waits for memory: it is theirs when ``callback`` was called."""

    __slots__ = ("callback", "is_granted", "wanted")

    def __init__(self, wanted: int, callback: Callable[[], object]) -> None:
        self.wanted = wanted
        self.callback = callback
        self.is_granted = False


class Memory:
    """A number of bytes, given to those who wait in the order in which they came. Any thread may call."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._free = bytes_max
        self._waiting: deque[Reservation] = deque()
        self._lock = Lock()
        self._is_closed = False
        #: How often somebody had to wait: when it changes, batches should not linger.
        self.waits = 0

    @property
    def free_bytes(self) -> int:
        """What nobody has."""
        return self._free

    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def take(self, wanted: int) -> bool:
        """Takes memory if there is so much, and nobody waits for it."""
        with self._lock:
            if self._waiting or self._free < wanted:
                return False
            self._free -= wanted
            return True

    def reserve(self, wanted: int, callback: Callable[[], object]) -> Reservation:
        """Waits for memory: calls back once it is there, which may be at once, or once nothing can come any more.

        :raises ClosedError: the producer has ended.
        """
        assert wanted <= self.bytes_max, "who wants more than there is would wait forever"
        reservation = Reservation(wanted, callback)
        with self._lock:
            if self._is_closed:
                raise ClosedError("producer")
            self._waiting.append(reservation)
            self.waits += 1
        self.give_back(0)
        return reservation

    def cancel(self, reservation: Reservation) -> None:
        """Does not wait any more; what was granted already is given back."""
        with self._lock:
            if reservation in self._waiting:
                self._waiting.remove(reservation)
        self.give_back(reservation.wanted if reservation.is_granted else 0)

    def give_back(self, count: int) -> None:
        """So many bytes are free again."""
        granted: list[Reservation] = []
        with self._lock:
            self._free += count
            while self._waiting and self._waiting[0].wanted <= self._free:
                reservation = self._waiting.popleft()
                self._free -= reservation.wanted
                reservation.is_granted = True
                granted.append(reservation)
        for reservation in granted:
            reservation.callback()

    def close(self) -> None:
        """Lets everybody go who waits, with nothing."""
        with self._lock:
            self._is_closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
        for reservation in waiting:
            reservation.callback()
