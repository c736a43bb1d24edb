"""What producers and consumers need of their client: map, connections, options, counters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from ..protocol.cluster_map import Addressed, ClusterMap
from ..protocol.counters import Counters
from ..protocol.errors import ClosedError, ConnectionLostError, InvalidOptionError, MiniKafkaError
from ..protocol.messages.topics import TopicDescription
from ..protocol.options import ClientOptions
from .gateways import Gateways
from .map_keeper import MapKeeper
from .pool import ConnectionPool

_log = logging.getLogger("minikafka")

#: An answer is overdue after so many seconds, beyond what its server was asked to wait.
OVERDUE: Final = 0.5
#: Then the map is looked at this often.
LOOK: Final = 0.2


class Closable(Protocol):
    """A producer or a consumer."""

    async def close(self) -> None:
        """Finishes what was begun, and ends."""


class Cluster:
    """One cluster, as one client sees it. It belongs to the event loop that it is first used on."""

    def __init__(self, addresses: Sequence[str], options: ClientOptions) -> None:
        if not addresses:
            raise InvalidOptionError("gateways", "at least one host:port is needed")
        self.options = options
        self.counters = Counters()
        self.pool = ConnectionPool(options, self.counters)
        self.gateways = Gateways(list(addresses), self.pool)
        self.maps = MapKeeper(self.gateways, create_missing=options.create_missing_topics)
        self.is_closed = False
        #: The last refresh of the map has failed.
        self._is_map_missed = False
        #: Producers and consumers that are not closed.
        self.opened: list[Closable] = []

    def refuse_when_closed(self) -> None:
        """:raises ClosedError: the client was closed."""
        if self.is_closed:
            raise ClosedError("client")

    def request_deadline(self) -> float:
        """When a request that begins now must be done, in the loop's time."""
        self.refuse_when_closed()
        return asyncio.get_running_loop().time() + self.options.request_timeout

    async def close(self) -> None:
        """Flushes producers, leaves groups, ends connections.

        :raises MiniKafkaError: the first failure of a record that no flush has told yet.
        """
        if self.is_closed:
            return
        try:
            outcomes = await asyncio.gather(*[each.close() for each in list(self.opened)], return_exceptions=True)
        finally:
            self.is_closed = True
            await self.pool.close()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def topic(self, name: str) -> TopicDescription:
        """A topic as the map has it; asked for, and if allowed created, when the map does not have it."""
        return await self.maps.topic(name, deadline=self.request_deadline())

    async def map_after(self, seen: int) -> ClusterMap:
        """A map newer than ``seen``; when no gateway answers, the current one: the data path goes on with what is
        known."""
        try:
            newer = await self.maps.newer_than(seen)
        except MiniKafkaError as error:
            # Said once: as long as gateways are away, it is tried many times a second.
            _log.log(logging.DEBUG if self._is_map_missed else logging.WARNING, "map not refreshed: %s", error)
            self._is_map_missed = True
            return self.maps.current
        self._is_map_missed = False
        return newer

    async def moved(self, after: float, addressed: Sequence[Addressed]) -> ConnectionLostError:
        """Ends when ``after`` is over and the map, looked at again and again, sends requests like these elsewhere.

        Of such requests nothing is heard although their connection seems to live: their server may have been cut off
        without a trace, and others may own its ranges by now.
        """
        await asyncio.sleep(after)
        while True:
            moved = await self.look_for_move(addressed)
            if moved is not None:
                return moved
            await asyncio.sleep(LOOK)

    async def look_for_move(self, addressed: Sequence[Addressed]) -> ConnectionLostError | None:
        """Whether the map, as it is now, sends requests like one of these elsewhere; then they are over."""
        try:
            current = await self.maps.no_older_than(LOOK)
        except MiniKafkaError:
            # Without a gateway, what is known goes on to count.
            current = self.maps.current
        for request in addressed:
            if not request.holds(current):
                epoch = current.epoch_of(request.range)
                name = f"{request.range.ring}/{request.range.range}"
                reason = f"no answer, and range {name} is in epoch {epoch} by now"
                return ConnectionLostError(request.address, reason)
        return None
