"""The queue for asyncio: see :mod:`minikafka.queue`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Literal, overload

from ..protocol.delivery import Delivered
from ..protocol.errors import InvalidOptionError, MiniKafkaError, TopicExistsError
from ..protocol.options import ClientOptions, GroupOptions
from ..protocol.records import Record
from ..protocol.redelivery import (
    QUEUE_GROUP,
    QUEUE_PARTITIONS,
    QUEUE_TOPIC,
    Item,
    QueueDelivery,
    Redelivery,
    pause_after,
)
from .client import Client, Gateways
from .consumer import Consumer
from .producer import Producer

_log = logging.getLogger("minikafka")

#: What is called for each record.
Callback = Callable[["bytes | None", "bytes | None"], Awaitable[object]]


class Queue:
    """The queue of a cluster; made by :func:`connect`, closed as an async context manager or by ``close()``."""

    def __init__(self, gateways: Gateways, options: ClientOptions | None = None) -> None:
        self._client = Client(gateways, options)
        self._producer: Producer | None = None
        self._redelivery = Redelivery()
        self._consumer: Consumer | None = None
        #: What the last ``pull()`` returned, which the next one acknowledges.
        self._last: Record | None = None
        self._subscription: asyncio.Task[None] | None = None
        self._is_there = False

    async def __aenter__(self) -> Queue:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def push(self, key: bytes | None, value: bytes | None) -> Delivered:
        """Puts a record at the end; returns when it is stored on every replica: partition and offset."""
        await self._make_topic()
        if self._producer is None:
            self._producer = self._client.producer()
        return await (await self._producer.send(QUEUE_TOPIC, value=value, key=key))

    @overload
    async def pull(self, timeout: float | None = None, *, ack: Literal[True] = True) -> Item | None: ...
    @overload
    async def pull(self, timeout: float | None = None, *, ack: Literal[False]) -> QueueDelivery | None: ...
    async def pull(self, timeout: float | None = None, *, ack: bool = True) -> Item | QueueDelivery | None:
        """The next record, as ``(key, value)``; None after ``timeout`` seconds. Without one it waits.

        Acknowledges the record that it returned before: whoever dies with one in hand has not handled it.

        :param ack: False: returns a delivery with ``ack()`` and ``nack()`` instead, and acknowledges nothing by itself.
        """
        if self._subscription is not None:
            raise InvalidOptionError("pull", "this queue gives its records to a subscription: connect another one")
        self._acknowledge_last()
        record = self._redelivery.take() or await (await self._consuming()).poll(timeout)
        if record is None:
            return None
        if not ack:
            return QueueDelivery(record, self._redelivery)
        self._last = record
        return record.key, record.value

    async def subscribe(self, callback: Callback) -> None:
        """Awaits ``callback(key, value)`` for each record, one at a time, in a task of its own, until ``close()``.

        A return acknowledges the record; an error gives it out again, after a pause of 100 ms that doubles to 10 s.
        """
        if self._subscription is not None:
            raise InvalidOptionError("subscribe", "this queue has a subscription already: connect another one")
        self._acknowledge_last()
        self._subscription = asyncio.ensure_future(self._run(await self._consuming(), callback))

    async def close(self) -> None:
        """Acknowledges what ``pull`` returned last, commits, and leaves. A callback that runs is cancelled."""
        if self._subscription is not None:
            self._subscription.cancel()
            await asyncio.gather(self._subscription, return_exceptions=True)
        self._acknowledge_last()
        await self._client.close()

    async def _make_topic(self) -> None:
        if self._is_there:
            return
        try:
            await self._client.describe_topic(QUEUE_TOPIC)
        except MiniKafkaError:
            try:
                await self._client.create_topic(QUEUE_TOPIC, partitions=QUEUE_PARTITIONS)
            except TopicExistsError:
                # Somebody else was quicker.
                _log.debug("the topic of the queue exists")
        self._is_there = True

    async def _consuming(self) -> Consumer:
        if self._consumer is None:
            await self._make_topic()
            membership = GroupOptions(handled="ack", on_revoked=self._redelivery.drop, on_lost=self._redelivery.drop)
            self._consumer = await self._client.consumer(QUEUE_TOPIC, group=QUEUE_GROUP, membership=membership)
        return self._consumer

    def _acknowledge_last(self) -> None:
        if self._last is not None:
            self._last.ack()
            self._last = None

    async def _run(self, consumer: Consumer, callback: Callback) -> None:
        failures = 0
        while True:
            try:
                record = self._redelivery.take() or await consumer.poll()
            except MiniKafkaError:
                _log.exception("the queue's subscription ends")
                return
            if record is None:
                continue
            try:
                await callback(record.key, record.value)
            except Exception:
                failures += 1
                _log.exception("a callback has failed on a record of the queue, which is given out again")
                self._redelivery.add(record)
                await asyncio.sleep(pause_after(failures))
            else:
                failures = 0
                record.ack()


def connect(gateways: Gateways, options: ClientOptions | None = None) -> Queue:
    """The queue of a cluster.

    :param gateways: one ``host:port`` or several.
    """
    return Queue(gateways, options)
