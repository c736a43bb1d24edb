"""Records that a consumer of the queue did not handle, and that are given out again, here, before anything behind them
(``docs/CLIENTS.md`` section 5)."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from threading import Lock
from typing import Final, Optional

from .options import TopicPartition
from .records import Record

#: A record, as the queue gives it out: key and value.
Item = tuple[Optional[bytes], Optional[bytes]]

#: The topic, its partitions and the group of the queue.
QUEUE_TOPIC: Final = "queue"
QUEUE_PARTITIONS: Final = 8
QUEUE_GROUP: Final = "queue"

#: The pause after the first failure of a callback, which doubles; and the longest one. Seconds.
_PAUSE_FIRST: Final = 0.1
_PAUSE_LONGEST: Final = 10.0


def pause_after(failures: int) -> float:
    """How long a record waits that a callback has failed on so often, in a row."""
    return min(_PAUSE_FIRST * (1 << min(failures - 1, 20)), _PAUSE_LONGEST)


class Redelivery:
    """Records to be given out again, those of a partition in their order. Any thread may call."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._heap: list[tuple[int, int, Record]] = []

    def add(self, record: Record) -> None:
        """This one was not handled."""
        with self._lock:
            heappush(self._heap, (record.partition, record.offset, record))

    def take(self) -> Record | None:
        """The next one; None: there is none."""
        with self._lock:
            return heappop(self._heap)[2] if self._heap else None

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions belong to others, who are given their records."""
        gone = {partition for _, partition in partitions}
        with self._lock:
            dropped = [each for each in self._heap if each[0] in gone]
            self._heap = [each for each in self._heap if each[0] not in gone]
            heapify(self._heap)
        for _, _, record in dropped:
            record.give_back()


class QueueDelivery:
    """A record that its receiver acknowledges: by ``ack()``, or by ``nack()`` to have it given out again."""

    def __init__(self, record: Record, redelivery: Redelivery) -> None:
        self.key = record.key
        self.value = record.value
        self._record = record
        self._redelivery = redelivery
        self._is_done = False

    def ack(self) -> None:
        """It is handled: nobody gets it again. Only the first ``ack`` or ``nack`` counts."""
        if not self._is_done:
            self._is_done = True
            self._record.ack()

    def nack(self) -> None:
        """It is not handled: it is given out again, here, before anything behind it."""
        if not self._is_done:
            self._is_done = True
            self._redelivery.add(self._record)

    def __repr__(self) -> str:
        return f"QueueDelivery(key={self.key!r}, value={self.value!r})"
