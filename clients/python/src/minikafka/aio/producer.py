"""The asyncio producer."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Callable, Final

from ..protocol import delivery as plain
from ..protocol.delivery import Delivered, DeliveredRun, Run
from ..protocol.error_code import ErrorCode
from ..protocol.errors import BufferFullError, UnknownTopicError
from ..protocol.record_arguments import HeadersArgument
from .producer_engine import ProducerEngine

#: After so many records that found memory at once, the loop gets a turn: the producer's own sender needs it.
_SENDS_PER_TURN: Final = 256


class Delivery(plain.Delivery):
    """What one record will be stored as: await it, or drop it; a later ``flush()`` tells of failures."""

    __slots__ = ()

    def __await__(self) -> Generator[object, None, Delivered]:
        """Waits, for at most the delivery timeout, until the record is stored on every member of its chain.

        :raises MiniKafkaError: why it is not stored.
        """
        if self.completion.outcome is None:
            yield from _ended(self.completion.when_done)
        return self.completion.delivered(self.index)


class ManyDelivery(plain.ManyDelivery):
    """What the records of one ``send_many`` will be stored as: await it, or drop it."""

    def __await__(self) -> Generator[object, None, list[DeliveredRun]]:
        """Waits, for at most the delivery timeout, until every record is stored: where, in runs.

        :raises MiniKafkaError: the first failure.
        """
        if not self.done():
            yield from _ended(self.when_done)
        return self.delivered()


class Producer:
    """Sends records to any topics; made by :meth:`Client.producer`.

    Records of one partition are stored in the order in which ``send`` took them, exactly once. A record whose delivery
    fails is not stored, unless the error says that the outcome is unknown (``error.outcome_unknown``); later records
    are stored without it.
    """

    def __init__(self, engine: ProducerEngine) -> None:
        self._engine = engine
        self._gathering = engine.gathering
        self._sends = 0

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
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
        delivery = self._gathering.send(topic, value, key, headers=headers, partition=partition, timestamp=timestamp)
        if delivery is None:
            delivery = await self._send_later(topic, value, key, headers, partition, timestamp)
        self._sends += 1
        if not self._sends % _SENDS_PER_TURN:
            await asyncio.sleep(0)
        assert isinstance(delivery, Delivery)
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

    async def send_many(
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
            await self._engine.prepare(topic)
        runs: list[Run] = []
        for wanted in self._gathering.push_many(topic, values, keys, partition, runs):
            await self._engine.reserve(wanted)
        await asyncio.sleep(0)
        return ManyDelivery(runs)

    async def flush(self) -> None:
        """Sends what is gathered without lingering, and waits until everything accepted before this call is stored or
        has failed: at most the delivery timeout.

        :raises MiniKafkaError: the first failure of any record since the last flush, whether or not it was awaited.
        """
        await self._engine.flush()

    async def close(self) -> None:
        """Takes no further record, and flushes.

        :raises MiniKafkaError: as :meth:`flush`.
        """
        await self._engine.close()

    async def _send_later(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: HeadersArgument,
        partition: int | None,
        timestamp: int | None,
    ) -> plain.Delivery:
        if not self._gathering.knows(topic):
            await self._engine.prepare(topic)
        reserved = 0
        while True:
            delivery = self._gathering.push(topic, value, key, headers, partition, timestamp, reserved)
            if delivery is not None:
                return delivery
            reserved = self._gathering.cost(value, key, headers)
            await self._engine.reserve(reserved)


def _ended(when_done: Callable[[Callable[[], object]], None]) -> Generator[object, None, None]:
    """Waits for a callback."""
    ended = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    when_done(tell)
    yield from ended
