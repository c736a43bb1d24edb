"""Where a producer's records come in: the batch that is being filled, per partition, within a bound of memory.

A record costs one lock, that of its partition, and a few appends; memory is taken for many records at once, so nothing
that partitions share is touched. The sender hears of a batch when it is opened and when it is full, not of records. It
never waits for a partition's lock: an application that sends without pause holds it most of the time, and who waits for
a lock of a thread that keeps the interpreter busy waits very long.

Nothing here does I/O. Clocks are passed in; who finds no memory is told so, and waits in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Callable, Final
from zlib import crc32

from . import limits
from .delivery import Completion, Delivery, Run
from .errors import ClosedError, InvalidRecordError, RecordTooLargeError
from .lanes import (
    BODY_BYTES_MIN,
    HEADER_PLACES,
    KEY_PLACES,
    RECORD_OVERHEAD_BYTES,
    VALUE_PLACES,
    Lane,
    OpenBatch,
    TopicLanes,
)
from .memory import Memory, Reservation
from .messages.topics import TopicDescription
from .options import ProducerOptions
from .record_arguments import (
    HeadersArgument,
    ManyRecords,
    all_bytes,
    as_bytes,
    by_partition,
    check_timestamp,
    header_pairs,
)
from .unresolved import Unresolved

#: Memory is taken in pieces of this size, or of one larger record.
ALLOWANCE_BYTES: Final = 16 << 10


class Gathering:
    """The records of a producer that are not on their way. Any thread may send; see the module's description."""

    def __init__(
        self,
        options: ProducerOptions,
        delivery_class: type[Delivery],
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.options = options
        self.memory = Memory(options.buffer_bytes)
        self.unresolved = Unresolved()
        self.is_closed = False
        #: Batches with tickets below this do not linger.
        self.flush_before = 0
        self._delivery_class = delivery_class
        self._wall_clock = wall_clock
        self._clock = clock
        self._topics: dict[str, TopicLanes] = {}
        #: What becomes of records that are not like the one before them: a producer that can wait puts itself here.
        self.otherwise: Callable[..., Any] = self.push
        #: Tells the sender of a topic that it has something to look at.
        self.wake: Callable[[TopicLanes], object] = lambda _: None

    def new_lanes(self, topic: TopicDescription, first: int) -> TopicLanes:
        """The lanes of a topic, into which no record goes before :meth:`add`; ``first`` is a random number."""
        return TopicLanes(topic, self.options, first, self._clock())

    def add(self, lanes: TopicLanes) -> None:
        """From now on records of this topic are taken."""
        self._topics[lanes.topic.name] = lanes

    def knows(self, topic: str) -> bool:
        """Whether records of this topic are taken."""
        return topic in self._topics

    def topics(self) -> list[TopicLanes]:
        """Every topic that records were sent to."""
        return list(self._topics.values())

    def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        headers: HeadersArgument = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> Any:
        """Takes a record that is like the one before it, at the least cost; whatever else is up to ``otherwise``."""
        lanes = self._topics.get(topic)
        if lanes is not None and type(value) is bytes and headers is None and partition is None and timestamp is None:
            if key is None:
                lane = lanes.lanes[lanes.sticky.current]
                cost = len(value) + RECORD_OVERHEAD_BYTES
            else:
                lane = lanes.lanes[crc32(key) % lanes.count]
                cost = len(key) + len(value) + RECORD_OVERHEAD_BYTES
            lane.lock.acquire()
            try:
                batch = lane.open
                if batch is not None and batch.room >= cost and batch.takes is (type(key) is bytes):
                    now = self._wall_clock()
                    if now >= batch.next_tick:
                        batch.tick(now)
                    batch.room -= cost
                    values = batch.values
                    delivery = _new_delivery(self._delivery_class)
                    delivery.completion = batch.completion
                    delivery.index = len(values)
                    if key is not None:
                        batch.keys.append(key)
                    values.append(value)
                    return delivery
            finally:
                lane.lock.release()
        return self.otherwise(topic, value, key, headers, partition, timestamp)

    def push(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: HeadersArgument,
        partition: int | None,
        timestamp: int | None,
        reserved: int = 0,
    ) -> Delivery | None:
        """Takes any record into the batch of its partition: other columns, a new batch, more memory.

        None: it was not taken, because the topic is not known yet, or there is no memory: then reserve :meth:`cost`
        bytes, and call again with so much ``reserved``, which is used or given back.
        """
        lanes = self._topics.get(topic)
        if lanes is None:
            return None
        try:
            value, key, pairs = as_bytes(value, "value"), as_bytes(key, "key"), header_pairs(headers)
            check_timestamp(timestamp)
            cost = self.cost(value, key, pairs)
            lane = lanes.lanes[self._choose(lanes, key, partition)]
            with lane.lock:
                batch, granted = self._batch_for(lanes, lane, cost, key, pairs, timestamp, reserved)
                if batch is None:
                    return None
                reserved = 0 if granted == reserved else reserved
                index = batch.append(value, key, pairs, timestamp, self._wall_clock(), cost)
                delivery = _new_delivery(self._delivery_class)
                delivery.completion, delivery.index = batch.completion, index
                return delivery
        finally:
            if reserved:
                self.memory.give_back(reserved)
            if lanes.announced:
                self.wake(lanes)

    def cost(self, value: bytes | None, key: bytes | None, headers: HeadersArgument) -> int:
        """What a record takes of the producer's memory.

        :raises RecordTooLargeError: more than there is.
        """
        record_bytes = (
            len(value or b"") + len(key or b"") + sum(len(n.encode()) + len(v) for n, v in header_pairs(headers))
        )
        if record_bytes > limits.RECORD_BYTES_MAX:
            raise RecordTooLargeError(record_bytes, limits.RECORD_BYTES_MAX)
        cost = record_bytes + RECORD_OVERHEAD_BYTES
        if cost > self.memory.bytes_max:
            raise RecordTooLargeError(record_bytes, self.memory.bytes_max - RECORD_OVERHEAD_BYTES)
        return cost

    def reserve(self, wanted: int, callback: Callable[[], object]) -> Reservation:
        """Waits for memory; as long as somebody does, nothing lingers.

        :raises ClosedError: the producer has ended.
        """
        reservation = self.memory.reserve(wanted, callback)
        self._wake_all()
        return reservation

    def start_flush(self) -> int:
        """Nothing that was accepted before this call lingers any more; the ticket after the last of it."""
        end = self.unresolved.next_ticket
        self.flush_before = max(self.flush_before, end)
        self._wake_all()
        return end

    def close(self) -> None:
        """Takes no further record."""
        self.is_closed = True
        for lanes in self.topics():
            for lane in lanes.lanes:
                # Under the lock of each lane: who holds it has not seen that it is closed.
                with lane.lock:
                    if lane.open is not None:
                        self._fill(lanes, lane, lane.open)
        self._wake_all()

    def may_linger(self, batch: OpenBatch) -> bool:
        """Whether a batch may linger, as far as flushes, waiting callers and a close are concerned."""
        return batch.ticket >= self.flush_before and not self.memory.is_awaited() and not self.is_closed

    def hurries(self) -> tuple[int, int, bool]:
        """Changes whenever a flush, a wait for memory or the close begins: then batches that lingered may be due."""
        return self.flush_before, self.memory.waits, self.is_closed

    def push_many(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes] | None,
        partition: int | None,
        runs: list[Run],
    ) -> Iterator[int]:
        """Takes many records in their order, and says in ``runs`` where they went.

        Yields how many bytes of memory must be reserved before it can go on; what was reserved is used.
        """
        lanes = self._topics[topic]
        if keys is not None and len(keys) != len(values):
            raise InvalidRecordError(f"there are {len(values)} values and {len(keys)} keys: give each a key, or none")
        values, has_absent = all_bytes(values, "value")
        if partition is not None or keys is None:
            lane = lanes.lanes[lanes.check(partition)] if partition is not None else None
            if keys is not None:
                keys, has_absent_keys = all_bytes(keys, "key")
                if has_absent_keys:
                    raise InvalidRecordError("some keys are None: give each record a key, or none")
            yield from self._push_run(lanes, lane, ManyRecords(values, keys, has_absent), runs)
            return
        for lane, (lane_keys, lane_values) in zip(lanes.lanes, by_partition(keys, values, lanes.count)):
            yield from self._push_run(lanes, lane, ManyRecords(lane_values, lane_keys, has_absent), runs)

    def _push_run(self, lanes: TopicLanes, lane: Lane | None, records: ManyRecords, runs: list[Run]) -> Iterator[int]:
        """Records of one lane, or, without one, of those that take the records without a key."""
        at = reserved = 0
        while at < records.count:
            chosen = lane if lane is not None else lanes.lanes[lanes.sticky.current]
            with chosen.lock:
                batch, end, wanted = self._piece(lanes, chosen, records, at)
                is_there = reserved >= wanted or self.memory.take(wanted)
                if is_there:
                    batch = batch or self._open(lanes, chosen)
                    batch.charged_bytes += wanted
                    runs.append(Run(batch.completion, len(batch.values), end - at))
                    batch.tick(self._wall_clock())
                    batch.extend(*records.slice(at, end))
                    batch.has_absent_values = batch.has_absent_values or records.has_absent
                    at = end
            if lanes.announced:
                self.wake(lanes)
            if reserved:
                # What was reserved was used, or is too little by now, because another piece fits.
                self.memory.give_back(reserved - wanted if is_there else reserved)
                reserved = 0
            elif not is_there:
                reserved = wanted
                yield wanted

    def _piece(self, lanes: TopicLanes, lane: Lane, records: ManyRecords, at: int) -> tuple[OpenBatch | None, int, int]:
        """The records from ``at`` on that go into the open batch, or into the next one (None): to before which, and
        what they take of the memory."""
        self._refuse_when_closed()
        memory = self.memory.bytes_max
        batch = lane.open
        if batch is not None:
            is_alike = batch.takes is records.is_keyed and not batch.headers
            room = lanes.batch_bytes_max - batch.body_bytes() if is_alike else 0
            end, cost = records.fitting(at, room, memory)
            if end > at:
                return batch, end, cost
            self._fill(lanes, lane, batch)
        end, cost = records.fitting(at, lanes.batch_bytes_max - BODY_BYTES_MIN, memory)
        if end > at:
            return None, end, cost
        cost = records.cost(at, at + 1)
        self._check_single(lanes, cost - RECORD_OVERHEAD_BYTES, BODY_BYTES_MIN + records.places)
        return None, at + 1, cost

    def _batch_for(
        self,
        lanes: TopicLanes,
        lane: Lane,
        cost: int,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        timestamp: int | None,
        reserved: int,
    ) -> tuple[OpenBatch | None, int]:
        """The batch that takes such a record, with memory for it, and what it was granted; None: there is no memory."""
        self._refuse_when_closed()
        record_bytes = cost - RECORD_OVERHEAD_BYTES
        batch = lane.open
        at = timestamp if timestamp is not None else int(self._wall_clock() * 1000)
        if batch is not None and not batch.fits(lanes.batch_bytes_max, record_bytes, key, headers, at):
            self._fill(lanes, lane, batch)
            batch = None
        if batch is None:
            fixed = BODY_BYTES_MIN + VALUE_PLACES + KEY_PLACES + 4 + HEADER_PLACES * len(headers)
            self._check_single(lanes, record_bytes, fixed)
        elif batch.room >= cost:
            return batch, 0
        granted = reserved if reserved >= cost else self._allowance(lanes, batch, cost)
        if not granted:
            return None, 0
        batch = batch or self._open(lanes, lane)
        batch.charged_bytes += granted
        batch.room += granted
        return batch, granted

    def _choose(self, lanes: TopicLanes, key: bytes | None, partition: int | None) -> int:
        """The partition of a record: as it says, by its key, or the one that is being filled."""
        if partition is not None:
            return lanes.check(partition)
        return crc32(key) % lanes.count if key is not None else lanes.sticky.current

    def _allowance(self, lanes: TopicLanes, batch: OpenBatch | None, cost: int) -> int:
        """Memory for this record and, if there is enough, for some that follow in its batch; 0: there is none."""
        body_room = lanes.batch_bytes_max - (batch.body_bytes() if batch is not None else BODY_BYTES_MIN)
        allowance = min(ALLOWANCE_BYTES, body_room)
        if allowance > cost and self.memory.take(allowance):
            return allowance
        return cost if self.memory.take(cost) else 0

    def _check_single(self, lanes: TopicLanes, record_bytes: int, fixed_bytes: int) -> None:
        """A record may be larger than batches should become, but must fit in one."""
        bytes_max = min(lanes.body_bytes_max - fixed_bytes, limits.RECORD_BYTES_MAX)
        bytes_max = min(bytes_max, self.memory.bytes_max - RECORD_OVERHEAD_BYTES)
        if record_bytes > bytes_max:
            raise RecordTooLargeError(record_bytes, bytes_max)

    def _refuse_when_closed(self) -> None:
        """Asked under the lane's lock: once the sender has seen every lane after a close, nothing comes in any more."""
        if self.is_closed:
            raise ClosedError("producer")

    def _open(self, lanes: TopicLanes, lane: Lane) -> OpenBatch:
        completion = Completion(lanes.topic.name, lane.partition)
        batch = OpenBatch(completion, self.unresolved.open(), self._clock())
        lane.open = batch
        self._announce(lanes, lane)
        return batch

    def _fill(self, lanes: TopicLanes, lane: Lane, batch: OpenBatch) -> None:
        """The open batch takes no more records."""
        lane.open = None
        lane.full.append(batch)
        lanes.sticky.batch_left(lane.partition, batch.body_bytes(), self._clock())
        self._announce(lanes, lane)

    def _announce(self, lanes: TopicLanes, lane: Lane) -> None:
        """The sender is told once the lane's lock is free again: woken, it would find it held."""
        if not lane.is_announced:
            lane.is_announced = True
            lanes.announced.append(lane)

    def _wake_all(self) -> None:
        for lanes in self.topics():
            self.wake(lanes)


#: Without ``__init__``, which would be called for every record.
_new_delivery: Final = object.__new__
