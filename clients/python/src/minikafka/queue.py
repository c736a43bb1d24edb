"""The queue: ``push(key, value)``, ``pull() -> (key, value)``, ``subscribe(callback)``.

One topic of 8 partitions, ``queue``, made when it is missing, and one group that starts at the earliest record: records
of one key come in order, each to one consumer, and are given out again if it dies before they were acknowledged. While
a consumer holds a record of a partition, others wait for those behind it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, overload

from .aio.client import Gateways
from .client import Client
from .consumer import Consumer
from .protocol.delivery import Delivered
from .protocol.errors import ClosedError, InvalidOptionError, MiniKafkaError, TopicExistsError
from .protocol.options import ClientOptions, GroupOptions
from .protocol.records import Record
from .protocol.redelivery import (
    QUEUE_GROUP,
    QUEUE_PARTITIONS,
    QUEUE_TOPIC,
    Item,
    QueueDelivery,
    Redelivery,
    pause_after,
)

_log = logging.getLogger("minikafka")

#: What is called for each record.
Callback = Callable[["bytes | None", "bytes | None"], object]
#: How often a subscription looks whether it was closed, while nothing comes.
_LOOK = 0.1


class Queue:
    """The queue of a cluster; made by :func:`connect`, closed as a context manager or by ``close()``.

    It belongs to one thread, but for :meth:`push`.
    """

    def __init__(self, gateways: Gateways, options: ClientOptions | None = None) -> None:
        self._client = Client(gateways, options)
        self._producer = self._client.producer()
        self._redelivery = Redelivery()
        self._consumer: Consumer | None = None
        #: What the last ``pull()`` returned, which the next one acknowledges.
        self._last: Record | None = None
        self._subscription: threading.Thread | None = None
        self._is_closed = threading.Event()
        self._is_there = False

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def push(self, key: bytes | None, value: bytes | None) -> Delivered:
        """Puts a record at the end; returns when it is stored on every replica: partition and offset.

        :param key: records of one key come in their order; None: of no order.
        :raises MiniKafkaError: it is not stored, or that is unknown (``error.outcome_unknown``).
        """
        self._make_topic()
        return self._producer.send(QUEUE_TOPIC, value=value, key=key).result()

    @overload
    def pull(self, timeout: float | None = None, *, ack: Literal[True] = True) -> Item | None: ...
    @overload
    def pull(self, timeout: float | None = None, *, ack: Literal[False]) -> QueueDelivery | None: ...
    def pull(self, timeout: float | None = None, *, ack: bool = True) -> Item | QueueDelivery | None:
        """The next record, as ``(key, value)``; None after ``timeout`` seconds. Without one it waits.

        Acknowledges the record that it returned before: whoever dies with one in hand has not handled it.

        :param ack: False: returns a delivery with ``ack()`` and ``nack()`` instead, and acknowledges nothing by itself.
        """
        if self._subscription is not None:
            raise InvalidOptionError("pull", "this queue gives its records to a subscription: connect another one")
        self._acknowledge_last()
        record = self._redelivery.take() or self._consuming().poll(timeout)
        if record is None:
            return None
        if not ack:
            return QueueDelivery(record, self._redelivery)
        self._last = record
        return record.key, record.value

    def subscribe(self, callback: Callback) -> None:
        """Calls ``callback(key, value)`` for each record, one at a time, on a thread of its own, until ``close()``.

        A return acknowledges the record; an error gives it out again, after a pause of 100 ms that doubles to 10 s.
        """
        if self._subscription is not None:
            raise InvalidOptionError("subscribe", "this queue has a subscription already: connect another one")
        self._acknowledge_last()
        consumer = self._consuming()
        self._subscription = threading.Thread(
            target=self._run, args=(consumer, callback), name="minikafka-subscription", daemon=True
        )
        self._subscription.start()

    def close(self) -> None:
        """Acknowledges what ``pull`` returned last, commits, and leaves. A callback that runs is waited for."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        if self._subscription is not None and self._subscription is not threading.current_thread():
            self._subscription.join()
        self._acknowledge_last()
        self._client.close()

    def _make_topic(self) -> None:
        if self._is_there:
            return
        try:
            self._client.describe_topic(QUEUE_TOPIC)
        except MiniKafkaError:
            try:
                self._client.create_topic(QUEUE_TOPIC, partitions=QUEUE_PARTITIONS)
            except TopicExistsError:
                # Somebody else was quicker.
                _log.debug("the topic of the queue exists")
        self._is_there = True

    def _consuming(self) -> Consumer:
        if self._consumer is None:
            self._make_topic()
            membership = GroupOptions(handled="ack", on_revoked=self._redelivery.drop, on_lost=self._redelivery.drop)
            self._consumer = self._client.consumer(QUEUE_TOPIC, group=QUEUE_GROUP, membership=membership)
        return self._consumer

    def _acknowledge_last(self) -> None:
        if self._last is not None:
            self._last.ack()
            self._last = None

    def _run(self, consumer: Consumer, callback: Callback) -> None:
        failures = 0
        while not self._is_closed.is_set():
            try:
                record = self._redelivery.take() or consumer.poll(_LOOK)
            except ClosedError:
                return
            except MiniKafkaError:
                _log.exception("the queue's subscription ends")
                return
            if record is None:
                continue
            try:
                callback(record.key, record.value)
            except Exception:
                failures += 1
                _log.exception("a callback has failed on a record of the queue, which is given out again")
                self._redelivery.add(record)
                self._is_closed.wait(pause_after(failures))
            else:
                failures = 0
                record.ack()


def connect(gateways: Gateways, options: ClientOptions | None = None) -> Queue:
    """The queue of a cluster.

    :param gateways: one ``host:port`` or several.
    """
    return Queue(gateways, options)
