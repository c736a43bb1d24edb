"""Which partition takes the records that have no key.

They stick to one partition while a batch of it fills, so that batches are large (KIP-480). The next one is chosen when
a batch leaves after enough bytes or enough time (KIP-794): at high rates a batch that left early, because nothing was
in flight, does not scatter the records over ever more tiny batches; at low rates every record that comes alone goes to
another partition.
"""

from __future__ import annotations

from typing import Final

#: Seconds after which a partition is left, at the end of a batch.
STAY_MAX: Final = 0.020


class Sticky:
    """The current choice. Any thread may call; a lost update only moves on a batch later."""

    __slots__ = ("_bytes", "_bytes_max", "_partitions", "_since", "current")

    def __init__(self, partitions: int, bytes_max: int, first: int, now: float) -> None:
        #: The first one is random, so that producers do not move in step.
        self.current = first % partitions
        self._partitions = partitions
        self._bytes_max = bytes_max
        self._bytes = 0
        self._since = now

    def batch_left(self, partition: int, count: int, now: float) -> None:
        """A batch of ``partition`` has left with so many bytes."""
        if partition != self.current:
            return
        self._bytes += count
        if self._bytes >= self._bytes_max or now - self._since >= STAY_MAX:
            self._bytes, self._since = 0, now
            self.current = (partition + 1) % self._partitions
