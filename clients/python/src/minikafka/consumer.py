"""The synchronous consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from types import TracebackType
from typing import Callable, TypeVar

from .aio.consumer_engine import ConsumerEngine, PartitionArgument
from .loop_thread import LoopThread
from .protocol.options import TopicPartition
from .protocol.partition_progress import Skipped
from .protocol.records import Batch, Record

T = TypeVar("T")


class Consumer:
    """Reads records: those of one partition in order, each once; made by :meth:`Client.consumer`.

    It belongs to one thread; fetching ahead, heartbeats and commits go on in the background until it is closed. Lost
    connections, moved ranges and other failures that pass are waited out, however long they take. What a partition can
    not go on with is raised once (``OffsetOutOfRangeError``, ``DataDamagedError``, ``DamagedError``, …): that partition
    stands still until a seek, the others go on; when no other is left, it is raised again by every call.
    """

    def __init__(self, engine: ConsumerEngine, loop: LoopThread) -> None:
        self._engine = engine
        self._loop = loop
        self._reading = engine.reading
        self._ready = threading.Event()
        self._reading.on_ready = self._ready.set

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        """Records, as they come; it never ends by itself. ``break`` and iterate again: nothing is left out."""
        return chain.from_iterable(self._records())

    def batches(self) -> Iterator[Batch]:
        """Batches, as they come: columns instead of records; it never ends by itself. Can be mixed with records: the
        next batch is then what is left of the one that was begun."""
        while True:
            batch = self.poll_batch(None)
            assert batch is not None, "without a time-out, it waits for one"
            yield batch

    def poll(self, timeout: float | None = None) -> Record | None:
        """The next record; None: none came within ``timeout`` seconds. 0 only looks; without one it waits."""
        return self._within(timeout, self._reading.next_record)

    def poll_batch(self, timeout: float | None = None) -> Batch | None:
        """The next batch; None: none came within ``timeout`` seconds. 0 only looks; without one it waits."""
        return self._within(timeout, self._reading.next_batch)

    def seek(self, partition: PartitionArgument, offset: int) -> None:
        """Goes on at ``offset``. A failed partition goes on, too.

        :param partition: its number, or ``TopicPartition(topic, number)`` where several topics are read.
        :raises NoSuchPartitionError: it is not read here now.
        """
        self._engine.seek(partition, offset)

    def seek_to_time(self, time: datetime) -> None:
        """Goes on, in every partition that is read now, at the first batch appended at or after a time."""
        self._loop.run(self._engine.seek_to_time(time))

    def pause(self, *partitions: PartitionArgument) -> None:
        """Hands out no records of these partitions until they are resumed."""
        self._reading.pause(self._engine.keys(partitions))

    def resume(self, *partitions: PartitionArgument) -> None:
        """Undoes :meth:`pause`."""
        self._reading.resume(self._engine.keys(partitions))

    def position(self, partition: PartitionArgument) -> int | None:
        """The offset of the record that comes next; None: not read here now. A partition that began at "earliest"
        says 0 until its shard was heard of."""
        return self._reading.position(self._engine.key(partition))

    def positions(self) -> dict[TopicPartition, int]:
        """The same for every partition that is read now."""
        return self._engine.positions()

    def committed_end(self, partition: PartitionArgument) -> int | None:
        """The offset behind the last committed record, as last heard. None: not heard yet, or not read here now."""
        return self._reading.committed_end(self._engine.key(partition))

    def lag(self, partition: PartitionArgument) -> int | None:
        """How many offsets lie between the position and the committed end. None: not heard yet."""
        return self._reading.lag(self._engine.key(partition))

    def is_at_end(self) -> bool:
        """Whether every partition has been read up to its committed end, as last heard."""
        return self._reading.is_at_end()

    def assignment(self) -> list[TopicPartition]:
        """The partitions that are read now."""
        return self._engine.assignment()

    def skipped(self) -> list[Skipped]:
        """What was left out under ``on_damage="skip"``; the latest 1,024 stretches."""
        return list(self._reading.progress.skipped)

    def fetches_by_node(self) -> dict[int, int]:
        """How many answers with records each node has given: where this consumer reads from (``read_from``)."""
        return dict(self._reading.progress.fetches_by_node)

    def commit(self) -> None:
        """Commits what was handled.

        :raises InvalidOptionError: there is no group.
        :raises BrokerError: ``not_assigned``: a partition belongs to another member by now.
        """
        self._loop.run(self._engine.commit())

    def close(self, *, leave_for_good: bool = False) -> None:
        """Commits what was handled and leaves the group, if there is one; reads nothing any more.

        :param leave_for_good: a static member (``GroupOptions.instance``) gives its partitions to others at once,
            instead of keeping them for its session time-out.
        """
        if not self._reading.is_closed:
            self._loop.run(self._engine.close(for_good=leave_for_good))

    def _records(self) -> Iterator[Iterator[Record]]:
        """The records of one batch after the other."""
        while True:
            self._ready.clear()
            handing = self._reading.next_records()
            if handing is None:
                self._ready.wait()
            else:
                yield handing.records

    def _within(self, timeout: float | None, look: Callable[[], T | None]) -> T | None:
        deadline = time.monotonic() + timeout if timeout is not None else None
        while True:
            self._ready.clear()
            found = look()
            if found is not None:
                return found
            left = deadline - time.monotonic() if deadline is not None else None
            if left is not None and left <= 0:
                return None
            self._ready.wait(left)
