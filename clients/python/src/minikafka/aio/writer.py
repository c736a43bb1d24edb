"""What a connection has to send: as much as there is, in one call into the system, without copying it.

Before Python 3.12, asyncio joins what it is given to write, and keeps copies of what the system does not take at once:
for batches that are hundreds of kilobytes long, that costs as much as sending them. So they are sent here, from where
they are, through a second handle on the connection's socket. Only when the system takes no more, a piece goes through
asyncio, which tells when it can be gone on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from itertools import islice
from typing import Final

#: Pieces of one call; the system takes at most 1,024.
_PIECES_MAX: Final = 512
#: Whether the system can send several pieces at once; without it, all of it goes through asyncio.
SENDS_PIECES: Final = hasattr(socket.socket, "sendmsg")
#: So much goes through asyncio when the system takes no more.
_WAITING_BYTES: Final = 64 << 10


class Writer:
    """See the module's description. It decides nothing about time: its owner is told of every pause."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # Any byte that waits in the transport is a pause: nothing may overtake it.
        transport.set_write_buffer_limits(high=0)
        self._pieces: deque[bytes | memoryview] = deque()
        self._is_paused = False
        self._socket: socket.socket | None = None
        connected = transport.get_extra_info("socket")
        if connected is not None and SENDS_PIECES:
            self._socket = socket.socket(fileno=os.dup(connected.fileno()))
            self._socket.setblocking(False)

    def write(self, pieces: list[bytes]) -> None:
        """Sends pieces, now or when the system takes more.

        :raises OSError: the connection is broken.
        """
        self._pieces.extend(pieces)
        if not self._is_paused:
            self._send()

    def pause(self) -> None:
        """Bytes wait in the transport."""
        self._is_paused = True

    def resume(self) -> None:
        """Nothing waits in the transport any more.

        :raises OSError: the connection is broken.
        """
        self._is_paused = False
        self._send()

    def close(self) -> None:
        """Sends nothing any more."""
        self._pieces.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self) -> None:
        if self._socket is None:
            self._transport.writelines(self._pieces)
            self._pieces.clear()
            return
        while self._pieces and not self._is_paused:
            try:
                sent = self._socket.sendmsg(list(islice(self._pieces, _PIECES_MAX)))
            except (BlockingIOError, InterruptedError):
                sent = 0
            if not self._drop(sent):
                self._wait()

    def _drop(self, sent: int) -> bool:
        """Forgets so many bytes; true when the system has taken all that it was given."""
        pieces = self._pieces
        given = min(len(pieces), _PIECES_MAX)
        while given and sent >= len(pieces[0]):
            sent -= len(pieces.popleft())
            given -= 1
        if sent:
            pieces[0] = memoryview(pieces[0])[sent:]
        return not given

    def _wait(self) -> None:
        """Lets asyncio tell when the system takes more; it calls ``pause`` and, later, ``resume``."""
        piece = memoryview(self._pieces.popleft())
        self._transport.write(piece[:_WAITING_BYTES])
        if len(piece) > _WAITING_BYTES:
            self._pieces.appendleft(piece[_WAITING_BYTES:])
