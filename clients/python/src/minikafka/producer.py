"""The synchronous producer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Callable

from .aio.producer_engine import ProducerEngine
from .loop_thread import LoopThread
from .protocol import delivery as plain
from .protocol.delivery import Delivered, DeliveredRun, Run
from .protocol.error_code import ErrorCode
from .protocol.errors import (
    BufferFullError,
    ClosedError,
    DeadlineExceededError,
    MiniKafkaError,
    UnknownTopicError,
)
from .protocol.record_arguments import HeadersArgument


class Delivery(plain.Delivery):
    """What one record will be stored as. Dropping it does not take the record back; a later ``flush()`` tells of
    failures."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> Delivered:
        """Where the record is stored, on stable storage of every member of its chain. Waits, without a ``timeout`` for
        at most the producer's delivery timeout.

        :param timeout: seconds.
        :raises DeadlineExceededError: not within ``timeout``; the record is on its way all the same.
        :raises MiniKafkaError: why it is not stored.
        """
        if self.completion.outcome is None:
            _wait(self.completion.when_done, timeout, f"delivery to topic {self.topic} partition {self.partition}")
        return self.completion.delivered(self.index)

    def exception(self, timeout: float | None = None) -> MiniKafkaError | None:
        """Why the record is not stored; None: it is. Waits as :meth:`result` does."""
        try:
            self.result(timeout)
        except MiniKafkaError as error:
            if not self.done():
                raise
            return error
        return None

    def add_done_callback(self, callback: Callable[[Delivery], object]) -> None:
        """Calls back once the record is stored or has failed, on the client's own thread: it must be quick, and not
        wait for the client. At once, here, if that is so already."""
        self.completion.when_done(lambda: callback(self))


class ManyDelivery(plain.ManyDelivery):
    """What the records of one ``send_many`` will be stored as."""

    def result(self, timeout: float | None = None) -> list[DeliveredRun]:
        """Where the records are stored, in runs; the records of one partition in their order. Waits as
        :meth:`Delivery.result` does.

        :raises MiniKafkaError: the first failure.
        """
        if not self.done():
            _wait(self.when_done, timeout, "delivery of many records")
        return self.delivered()


class Producer:
    """Sends records to any topics, from any number of threads; made by :meth:`Client.producer`.

    Records of one partition are stored in the order in which ``send`` took them, exactly once. A record whose delivery
    fails is not stored, unless the error says that the outcome is unknown (``error.outcome_unknown``); later records
    are stored without it.
    """

    def __init__(self, engine: ProducerEngine, loop: LoopThread) -> None:
        self._engine = engine
        self._loop = loop
        self._gathering = engine.gathering
        self._gathering.otherwise = self._send_otherwise
        # The same call without a layer in between, which would cost a tenth of it.
        self.send = self._gathering.send  # type: ignore[method-assign]

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        headers: HeadersArgument = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> Delivery:
        """Takes a record into the batch of its partition; waits only for memory (and, once per topic, for the map).

        :param value: None makes it a tombstone.
        :param key: records of one key go to one partition and keep their order.
        :param headers: a mapping of names to bytes, or pairs; names may then repeat.
        :param partition: the partition; None: by the key, or the one that is being filled.
        :param timestamp: ms since the Unix epoch; None: now.
        :raises RecordTooLargeError: over 2 MiB, the topic's batch size, or ``buffer_bytes``.
        :raises InvalidRecordError: keys and values are bytes, headers are pairs of str and bytes, at most 1,024.
        :raises NoSuchPartitionError: the topic does not have it.
        """
        delivery: Delivery = self._gathering.send(
            topic, value, key, headers=headers, partition=partition, timestamp=timestamp
        )
        return delivery

    def try_send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        headers: HeadersArgument = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> Delivery:
        """:meth:`send` without waiting, to a topic that this producer has sent to before.

        :raises BufferFullError: there is no memory.
        :raises UnknownTopicError: nothing was sent to the topic yet.
        """
        delivery = self._gathering.push(topic, value, key, headers, partition, timestamp)
        if delivery is None:
            if not self._gathering.knows(topic):
                raise UnknownTopicError(ErrorCode.UNKNOWN_TOPIC, f"topic {topic}", "send() to it first, which can wait")
            raise BufferFullError
        assert isinstance(delivery, Delivery)
        return delivery

    def send_many(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes] | None = None,
        *,
        partition: int | None = None,
    ) -> ManyDelivery:
        """Takes many records in their order: several times cheaper per record than :meth:`send`.

        :param keys: one per value; None: no record has a key.
        :raises MiniKafkaError: as :meth:`send`; the records before the one at fault may be sent.
        """
        if not self._gathering.knows(topic):
            self._loop.run(self._engine.prepare(topic))
        runs: list[Run] = []
        for wanted in self._gathering.push_many(topic, values, keys, partition, runs):
            self._reserve(wanted)
        return ManyDelivery(runs)

    def flush(self) -> None:
        """Sends what is gathered without lingering, and waits until everything accepted before this call is stored or
        has failed: at most the delivery timeout.

        :raises MiniKafkaError: the first failure of any record since the last flush, whether or not it was awaited.
        """
        self._loop.run(self._engine.flush())

    def close(self) -> None:
        """Takes no further record, and flushes.

        :raises MiniKafkaError: as :meth:`flush`.
        """
        if not self._gathering.is_closed:
            self._loop.run(self._engine.close())

    def _send_otherwise(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: HeadersArgument,
        partition: int | None,
        timestamp: int | None,
    ) -> plain.Delivery:
        if not self._gathering.knows(topic):
            self._loop.run(self._engine.prepare(topic))
        reserved = 0
        while True:
            delivery = self._gathering.push(topic, value, key, headers, partition, timestamp, reserved)
            if delivery is not None:
                return delivery
            reserved = self._gathering.cost(value, key, headers)
            self._reserve(reserved)

    def _reserve(self, wanted: int) -> None:
        """Waits for memory, which comes at the latest when a delivery times out."""
        granted = threading.Event()
        reservation = self._gathering.reserve(wanted, granted.set)
        try:
            granted.wait()
        except BaseException:
            self._gathering.memory.cancel(reservation)
            raise
        if not reservation.is_granted:
            raise ClosedError("producer")


def _wait(when_done: Callable[[Callable[[], object]], None], timeout: float | None, what: str) -> None:
    """Waits for a callback."""
    done = threading.Event()
    since = time.monotonic()
    when_done(done.set)
    if not done.wait(timeout):
        raise DeadlineExceededError(what, time.monotonic() - since, outcome_unknown=True)
