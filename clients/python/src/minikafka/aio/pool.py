"""Connections shared by everything in one client: one per address and lane.

Requests that wait for data (fetches, heartbeats) have a lane of their own, so that a large fetch reply does not delay
the acknowledgements behind it. Opening is coalesced: who asks while a connection is being opened gets its outcome.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from ..protocol.counters import Counters
from ..protocol.errors import ClosedError, ConnectFailedError
from ..protocol.options import ClientOptions
from .connection import Connection


class PoolLane(Enum):
    """What a connection is used for."""

    #: Produce, offsets, maps, topics, groups: small replies.
    REQUESTS = "requests"
    #: Fetches: large replies.
    FETCHES = "fetches"


class ConnectionPool:
    """The connections of a client."""

    def __init__(self, options: ClientOptions, counters: Counters) -> None:
        self._options = options
        self._counters = counters
        self._openings: dict[tuple[str, PoolLane], asyncio.Task[Connection]] = {}
        self._is_closed = False

    def live(self, address: str, lane: PoolLane) -> Connection | None:
        """The live connection, if there is one."""
        opening = self._openings.get((address, lane))
        if opening is None or not _has_led_to_connection(opening):
            return None
        connection = opening.result()
        return connection if connection.ended is None else None

    async def connect(self, address: str, lane: PoolLane) -> Connection:
        """The live connection, or a new one.

        :raises ConnectFailedError: and what else :meth:`Connection.open` raises.
        """
        # Shielded: who gives up does not take the attempt away from others who wait for it.
        return await asyncio.shield(self._opening(address, lane))

    async def connect_within(self, address: str, lane: PoolLane, patience: float) -> Connection:
        """:meth:`connect`, but given up as failed after ``patience``; the attempt goes on, and who asks again joins
        it."""
        try:
            return await asyncio.wait_for(self.connect(address, lane), patience)
        except asyncio.TimeoutError:
            raise ConnectFailedError(address, f"not open within {patience:g} s, and still trying") from None

    async def close(self) -> None:
        """Ends every connection."""
        self._is_closed = True
        openings = list(self._openings.values())
        self._openings.clear()
        for opening in openings:
            if _has_led_to_connection(opening):
                opening.result().end(ClosedError("client"))
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)

    def _opening(self, address: str, lane: PoolLane) -> asyncio.Task[Connection]:
        """The attempt to join: the current one unless it has failed, or led to a connection that ended since."""
        if self._is_closed:
            raise ClosedError("client")
        # Ended connections leave whenever somebody asks for a new one, so what is kept is bounded by live addresses.
        self._openings = {key: opening for key, opening in self._openings.items() if not _is_over(opening)}
        opening = self._openings.get((address, lane))
        if opening is None:
            opening = asyncio.ensure_future(Connection.open(address, self._options, self._counters))
            # A failure that nobody waits for any more is not worth a warning of the loop.
            opening.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._openings[address, lane] = opening
        return opening


def _has_led_to_connection(opening: asyncio.Task[Connection]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None


def _is_over(opening: asyncio.Task[Connection]) -> bool:
    return opening.done() and (not _has_led_to_connection(opening) or opening.result().ended is not None)
