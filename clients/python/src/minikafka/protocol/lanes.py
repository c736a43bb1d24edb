"""The records of each partition that are not on their way: the batch that is being filled, and those that are full."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Callable, Final

from . import limits
from .batch_builder import FinishedBatch, build_batch
from .batch_layout import GAPS_BYTES_MAX, ROOT_BYTES
from .delivery import Completion
from .errors import NoSuchPartitionError
from .messages.topics import TopicDescription
from .options import ProducerOptions
from .sticky import Sticky

#: What a record costs of the producer's memory besides its bytes: its places in the columns.
RECORD_OVERHEAD_BYTES: Final = 24
#: Elements of the columns that every record has at most, besides its key and its headers: value offset, timestamp and
#: validity.
VALUE_PLACES: Final = 4 + 8 + 1
KEY_PLACES: Final = 4
#: Running count of a record; offsets of name and value of a header.
_HEADER_COUNT_PLACES: Final = 4
HEADER_PLACES: Final = 8
#: Every column of offsets has one element more than there are records or headers.
BODY_BYTES_MIN: Final = ROOT_BYTES + GAPS_BYTES_MAX + 5 * 4

#: Between timestamps of less than this, the difference is one of 64 bits.
_NEAR_TIMESTAMP: Final = 1 << 62
_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1


class OpenBatch:
    """A batch that is being filled, or waits to be sealed. Its lane's lock guards it until it has left."""

    __slots__ = (
        "charged_bytes",
        "completion",
        "has_absent_keys",
        "has_absent_values",
        "header_count",
        "headers",
        "is_keyed",
        "keys",
        "next_tick",
        "opened_at",
        "room",
        "takes",
        "ticket",
        "timestamps",
        "values",
    )

    def __init__(self, completion: Completion, ticket: int, opened_at: float) -> None:
        self.completion = completion
        self.ticket = ticket
        self.opened_at = opened_at
        #: One per record, or none as long as no record has a key.
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        #: Runs of equal timestamps: (first record, ms).
        self.timestamps: list[tuple[int, int]] = []
        #: The wall clock, in seconds, from which on a record begins another run.
        self.next_tick = float("-inf")
        self.headers: dict[int, list[tuple[str, bytes]]] = {}
        self.header_count = 0
        #: Whether every record so far has a key (True), or none has (False); None: some have.
        self.is_keyed: bool | None = None
        #: The same, if another record like them needs no thought; else None.
        self.takes: bool | None = None
        self.has_absent_keys = False
        self.has_absent_values = False
        #: Memory that it has taken, and what of it is left for records to come.
        self.charged_bytes = 0
        self.room = 0

    @property
    def record_count(self) -> int:
        """Records in it."""
        return len(self.values)

    def body_bytes(self, records: int = 0, data_bytes: int = 0) -> int:
        """At most so long is its body, with so many more records of so many bytes."""
        count = len(self.values)
        used = self.charged_bytes - self.room
        data = used - count * RECORD_OVERHEAD_BYTES + data_bytes
        places = VALUE_PLACES + (KEY_PLACES if self.keys else 0) + (_HEADER_COUNT_PLACES if self.headers else 0)
        return BODY_BYTES_MIN + data + (count + records) * places + self.header_count * HEADER_PLACES

    def fits(
        self,
        bytes_max: int,
        record_bytes: int,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        timestamp: int,
    ) -> bool:
        """Whether the body has at most ``bytes_max`` bytes with such a record, and can say its timestamp."""
        if not _INT64_MIN <= timestamp - self.timestamps[0][1] <= _INT64_MAX:
            return False
        count = len(self.values) + 1
        new_places = KEY_PLACES * count if key is not None and not self.keys else 0
        new_places += _HEADER_COUNT_PLACES * count if headers and not self.headers else 0
        body = self.body_bytes(1, record_bytes + HEADER_PLACES * len(headers) + new_places)
        return body <= bytes_max and count <= limits.BATCH_RECORDS_MAX

    def tick(self, now: float) -> None:
        """The next record's timestamp is the wall clock's, as long as it stays within this millisecond."""
        now_ms = int(now * 1000)
        self._begin_run(now_ms)
        self.next_tick = (now_ms + 1) / 1000

    def append(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: list[tuple[str, bytes]],
        timestamp: int | None,
        now: float,
        cost: int,
    ) -> int:
        """Takes any record and returns its place."""
        index = len(self.values)
        if timestamp is None:
            self.tick(now)
        else:
            self._begin_run(timestamp)
            self.next_tick = float("-inf")
        is_near = -_NEAR_TIMESTAMP < self.timestamps[0][1] < _NEAR_TIMESTAMP
        if index == 0:
            self.is_keyed = key is not None
        elif self.is_keyed is not (key is not None):
            self.is_keyed, self.has_absent_keys = None, True
            self.keys = self.keys or [None] * index
        # From a first timestamp that is far away, the present may be too far to be said.
        self.takes = self.is_keyed if is_near else None
        if key is not None or self.keys:
            self.keys.append(key)
        self.has_absent_values = self.has_absent_values or value is None
        self.values.append(value)
        if headers:
            self.headers[index] = headers
            self.header_count += len(headers)
        self.room -= cost
        return index

    def extend(self, values: Sequence[bytes | None], keys: Sequence[bytes] | None) -> None:
        """Takes many records that are alike, whose memory is charged and whose time has been told."""
        self.is_keyed = self.takes = keys is not None
        self.keys.extend(keys or ())
        self.values.extend(values)

    def _begin_run(self, timestamp: int) -> None:
        if not self.timestamps or self.timestamps[-1][1] != timestamp:
            self.timestamps.append((len(self.values), timestamp))

    def build(self) -> FinishedBatch:
        """The batch as it is sent, uncompressed."""
        return build_batch(
            self.keys,
            self.values,
            self.timestamps,
            self.headers,
            has_absent_keys=self.has_absent_keys,
            has_absent_values=self.has_absent_values,
        )


class Lane:
    """The records of one partition that are not on their way: the batch that is being filled, and full ones."""

    __slots__ = ("full", "is_announced", "lock", "open", "partition")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.lock = Lock()
        self.open: OpenBatch | None = None
        self.full: deque[OpenBatch] = deque()
        #: The sender has been told that there is something to look at.
        self.is_announced = False

    def take_full(self) -> OpenBatch | None:
        """The next full batch."""
        return self.full.popleft() if self.full else None

    def take_due(self, is_due: Callable[[OpenBatch], bool]) -> tuple[OpenBatch | None, bool]:
        """The next full batch, or else the one that is being filled if ``is_due`` says so; and false when the lane is
        just taking a record: look again a moment later."""
        if not self.lock.acquire(blocking=False):
            return None, False
        try:
            # Under one lock: a batch that becomes full must not be overtaken by the one that is opened behind it.
            batch = self.take_full()
            if batch is None and self.open is not None and is_due(self.open):
                batch, self.open = self.open, None
            return batch, True
        finally:
            self.lock.release()


class TopicLanes:
    """The lanes of one topic."""

    def __init__(self, topic: TopicDescription, options: ProducerOptions, first: int, now: float) -> None:
        self.topic = topic
        self.count = topic.partitions
        self.lanes = [Lane(partition) for partition in range(topic.partitions)]
        #: No body may be larger.
        self.body_bytes_max = topic.config.batch_bytes_max
        #: A batch does not grow beyond this, except for a single record.
        self.batch_bytes_max = min(options.batch_bytes, self.body_bytes_max)
        self.sticky = Sticky(topic.partitions, self.batch_bytes_max, first, now)
        #: Lanes with something to look at.
        self.announced: deque[Lane] = deque()

    def check(self, partition: int) -> int:
        """Refuses a partition that the topic does not have."""
        if not 0 <= partition < self.count:
            raise NoSuchPartitionError(self.topic.name, partition, f"the topic has {self.count} partitions, from 0 on")
        return partition
