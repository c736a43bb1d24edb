"""What both producers are made of: the gathering, which any thread may use, and a sender per topic, on the loop."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Callable

from ..protocol import compression
from ..protocol.delivery import Delivery
from ..protocol.errors import ClosedError
from ..protocol.gathering import Gathering
from ..protocol.lanes import TopicLanes
from ..protocol.options import ProducerOptions
from .cluster import Cluster
from .sender import Sender


class ProducerEngine:
    """A producer without its face. Made and closed on the client's loop."""

    def __init__(self, cluster: Cluster, options: ProducerOptions, delivery_class: type[Delivery]) -> None:
        compression.require(options.compression)
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self.gathering = Gathering(options, delivery_class, time.time, self._loop.time)
        self.gathering.wake = self._wake
        self._senders: dict[str, Sender] = {}
        cluster.opened.append(self)

    async def prepare(self, topic: str) -> None:
        """Makes the gathering know a topic.

        :raises BrokerError: ``unknown_topic``, ``invalid_topic_name``.
        :raises NoGatewayError: none answers.
        """
        if self.gathering.is_closed:
            raise ClosedError("producer")
        description = await self._cluster.topic(topic)
        if not self.gathering.knows(topic):
            # The sender first: whoever finds the topic known may send at once.
            lanes = self.gathering.new_lanes(description, secrets.randbits(32))
            self._senders[topic] = Sender(self._cluster, self.gathering, lanes, secrets.randbits(64))
            self.gathering.add(lanes)

    async def reserve(self, wanted: int) -> None:
        """Waits for memory.

        :raises ClosedError: the producer has ended.
        """
        granted = asyncio.Event()
        reservation = self.gathering.reserve(wanted, self.on_loop(granted.set))
        try:
            await granted.wait()
        except BaseException:
            self.gathering.memory.cancel(reservation)
            raise
        if not reservation.is_granted:
            raise ClosedError("producer")

    async def flush(self) -> None:
        """Sends what is gathered without lingering, and waits until everything accepted before this call is stored or
        has failed.

        :raises MiniKafkaError: the first failure since the last flush.
        """
        await self._all_before(self.gathering.start_flush())

    async def close(self) -> None:
        """Takes no further record, and flushes.

        :raises MiniKafkaError: as :meth:`flush`.
        """
        if self.gathering.is_closed:
            return
        self.gathering.close()
        self._cluster.opened.remove(self)
        try:
            await self._all_before(self.gathering.start_flush())
        finally:
            self.abort()

    def abort(self) -> None:
        """Ends at once: what is not stored fails as closed."""
        self.gathering.close()
        for sender in self._senders.values():
            sender.abort()
        self.gathering.memory.close()

    async def _all_before(self, end: int) -> None:
        done = asyncio.Event()
        self.gathering.unresolved.when_before(end, self.on_loop(done.set))
        await done.wait()
        failure = self.gathering.unresolved.take_failure()
        if failure is not None:
            raise failure

    def on_loop(self, callback: Callable[[], object]) -> Callable[[], object]:
        """The same callback, for whatever thread calls it."""
        return lambda: self._loop.call_soon_threadsafe(callback)

    def _wake(self, lanes: TopicLanes) -> None:
        sender = self._senders.get(lanes.topic.name)
        if sender is not None:
            sender.wake()
