"""One connection to a shard or a gateway: many requests in flight, replies matched by correlation.

What is in flight is bounded by the window that the server told in its hello (at most 1,024 requests and 32 MiB). When
the connection ends, for whatever reason, every request in flight ends with the same error. Nothing here retries: that
needs to know what a request means.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar, Union

from .. import _version
from ..protocol import limits
from ..protocol.counters import Counters
from ..protocol.error_code import ErrorCode
from ..protocol.errors import (
    ClosedError,
    ConnectFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    MalformedReplyError,
    MiniKafkaError,
    broker_error,
)
from ..protocol.fields import DecodeError, Message
from ..protocol.frames import FRAME_HEADER_BYTES, Frame, FrameError, FrameReader, encode_frame
from ..protocol.messages import Api
from ..protocol.messages.explain import EXPLAIN_PROTOCOL
from ..protocol.messages.hello import PROTOCOL_MAX, PROTOCOL_MIN, ROLE_CLIENT, ErrorReply, Hello, HelloReply
from ..protocol.options import ClientOptions
from .writer import Writer

_log = logging.getLogger("minikafka")

#: A silent connection is probed after so many seconds, then so often, and ends after so many probes: a dead peer is
#: noticed within seconds instead of the system's hours.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3))
#: Sent bytes that stay unacknowledged this long end the connection, in milliseconds.
_UNACKNOWLEDGED_MS_MAX: Final = 15_000

M = TypeVar("M", bound=Message)


class Reply(NamedTuple):
    """What a server answered: the message's fields, and what stands behind them."""

    head: bytes
    bulk: memoryview
    #: The fields end with an explanation.
    explain: bool = False


#: A request ends with a reply or an error. As values, because most are looked at by callbacks.
Answer = Union[Reply, MiniKafkaError]


class _Waiting(NamedTuple):
    future: asyncio.Future[Answer]
    request_bytes: int


class Connection(asyncio.BufferedProtocol):
    """A connection that said hello. It belongs to the event loop that it was opened on."""

    def __init__(self, address: str, counters: Counters) -> None:
        self.address = address
        #: Why it has ended; None: it has not.
        self.ended: MiniKafkaError | None = None
        self.server: HelloReply | None = None
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._writer: Writer | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._next_correlation = 0
        self._requests_max = 1
        self._bytes_in_flight = 0
        self._outgoing: list[bytes] = []
        self._room_waiters: list[asyncio.Future[None]] = []
        self._write_deadline: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, address: str, options: ClientOptions, counters: Counters) -> Connection:
        """Opens a connection to ``address`` (``host:port``) and says hello.

        :raises ConnectFailedError: the system or the time limit refuses.
        :raises BrokerError: the server does.
        :raises MalformedReplyError: the server does not speak this protocol.
        """
        connection = cls(address, counters)
        try:
            await asyncio.wait_for(connection._open(options), options.connect_timeout)
        except asyncio.TimeoutError:
            reason = f"no hello within {options.connect_timeout:g} s"
            connection.end(ConnectFailedError(address, reason))
            raise ConnectFailedError(address, reason) from None
        except OSError as error:
            connection.end(ConnectFailedError(address, str(error)))
            raise ConnectFailedError(address, str(error)) from error
        except BaseException:
            connection.end(ClosedError("connection"))
            raise
        counters.connections_opened += 1
        return connection

    def try_request(
        self, api: Api, head: bytes, bulk: bytes = b"", *, explain: bool = False
    ) -> asyncio.Future[Answer] | None:
        """Sends a request at once; None: the window is full, then await :meth:`room` and try again.

        Requests leave in the order of the calls.

        :param explain: asks where the time goes; a server of an older release, which cannot tell, is not asked.

        :raises MiniKafkaError: why this connection has ended.
        """
        if self.ended is not None:
            raise self.ended.with_traceback(None)
        request_bytes = min(FRAME_HEADER_BYTES + len(head) + len(bulk), limits.CONNECTION_IN_FLIGHT_BYTES_MAX)
        if not self._has_room(request_bytes):
            return None
        correlation = self._next_correlation
        self._next_correlation += 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[correlation] = _Waiting(future, request_bytes)
        self._bytes_in_flight += request_bytes
        self._counters.requests_sent += 1
        self._counters.requests_in_flight += 1
        if not self._outgoing:
            # Whatever else is sent before the loop comes around leaves in the same call into the system.
            self._loop.call_soon(self._write_outgoing)
        explain = explain and self.server is not None and self.server.protocol >= EXPLAIN_PROTOCOL
        self._outgoing.append(encode_frame(api, correlation, head, len(bulk), explain=explain))
        if bulk:
            self._outgoing.append(bulk)
        return future

    async def room(self, payload_bytes: int) -> None:
        """Waits until a request of so many bytes (head and bulk) would find room.

        :raises MiniKafkaError: why the connection has ended.
        """
        request_bytes = min(FRAME_HEADER_BYTES + payload_bytes, limits.CONNECTION_IN_FLIGHT_BYTES_MAX)
        while self.ended is None and not self._has_room(request_bytes):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._room_waiters.append(waiter)
            await waiter
        if self.ended is not None:
            raise self.ended.with_traceback(None)

    async def request(self, api: Api, head: bytes, *, timeout: float, explain: bool = False) -> Reply:
        """Sends a request and awaits its reply, both together for at most ``timeout`` seconds.

        :raises BrokerError: the server's code.
        :raises ConnectionLostError: the outcome is unknown.
        :raises DeadlineExceededError: the same.
        """
        deadline = self._loop.time() + timeout
        try:
            future = self.try_request(api, head, explain=explain)
            while future is None:
                await asyncio.wait_for(self.room(len(head)), deadline - self._loop.time())
                future = self.try_request(api, head, explain=explain)
            answer = await asyncio.wait_for(future, deadline - self._loop.time())
        except asyncio.TimeoutError:
            what = f"{api.name.lower()} request to {self.address}"
            raise DeadlineExceededError(what, timeout, outcome_unknown=True) from None
        if isinstance(answer, MiniKafkaError):
            # Who shares a connection shares the error that ended it.
            raise answer.with_traceback(None)
        return answer

    async def call(self, api: Api, request: Message, reply: type[M], *, timeout: float) -> M:
        """Sends a message and decodes the reply's fields. As :meth:`request` otherwise."""
        answer = await self.request(api, request.encode(), timeout=timeout)
        return self.decode(reply, answer.head)

    def decode(self, kind: type[M], head: bytes) -> M:
        """Decodes a message's fields.

        :raises MalformedReplyError: naming this connection's peer.
        """
        try:
            return kind.decode(head)
        except DecodeError as error:
            raise MalformedReplyError(self.address, kind.__name__, error) from error

    def end(self, error: MiniKafkaError) -> None:
        """Ends the connection once: every request in flight ends with this error."""
        if self.ended is not None:
            return
        self.ended = error
        _log.debug("connection to %s ended: %s", self.address, error)
        if not isinstance(error, ClosedError):
            self._counters.connections_lost += 1
        if self._transport is not None and self._writer is not None:
            self._writer.close()
            self._transport.abort()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
        waiting, self._waiting = self._waiting, {}
        self._counters.requests_in_flight -= len(waiting)
        for waiter in waiting.values():
            if not waiter.future.done():
                waiter.future.set_result(error)
        self._tell_room()

    def end_because(self, reason: str) -> None:
        """Ends a connection that the caller no longer trusts, telling its other users why."""
        self.end(ConnectionLostError(self.address, reason))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The system has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writer = Writer(transport)
        _configure(transport.get_extra_info("socket"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to receive to."""
        del sizehint
        return self._reader.free_space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        try:
            for frame in self._reader.received(nbytes):
                self._deliver(frame)
        except FrameError as error:
            self.end(MalformedReplyError(self.address, "frame", error))
        except MiniKafkaError as error:
            self.end(error)

    def eof_received(self) -> bool:
        """The server sends nothing any more."""
        inside = " inside a frame" if self._reader.is_inside_frame else ""
        self.end_because(f"the server closed it{inside}")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The system says that it is over."""
        self.end_because(str(exc) if exc is not None else "the server closed it")

    def pause_writing(self) -> None:
        """The server does not read as fast as is written; it must go on within a while."""
        if self._writer is not None:
            self._writer.pause()
        within = limits.WRITE_DEADLINE_MS / 1000
        reason = f"the server did not read for {within:g} s"
        self._write_deadline = self._loop.call_later(within, self.end_because, reason)

    def resume_writing(self) -> None:
        """What was written has left."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        self._write(self._writer.resume if self._writer is not None else None)

    async def _open(self, options: ClientOptions) -> None:
        host, port = split_address(self.address)
        await self._loop.create_connection(lambda: self, host, port)
        hello = Hello(
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            role=ROLE_CLIENT,
            nonce=secrets.token_bytes(16),
            cluster=options.cluster,
            client_name=options.client_name,
            client_version=f"python {_version.VERSION}",
        )
        future = self.try_request(Api.HELLO, hello.encode())
        assert future is not None, "nothing else is in flight before the hello"
        answer = await future
        if isinstance(answer, ConnectionLostError):
            raise ConnectFailedError(self.address, "the server closed the connection instead of answering hello")
        if isinstance(answer, MiniKafkaError):
            raise answer
        self.server = self.decode(HelloReply, answer.head)
        if not PROTOCOL_MIN <= self.server.protocol <= PROTOCOL_MAX:
            raise broker_error(ErrorCode.UNSUPPORTED_VERSION, self.address)
        self._requests_max = min(max(self.server.in_flight_max, 1), limits.CONNECTION_IN_FLIGHT_MAX)

    def _has_room(self, request_bytes: int) -> bool:
        has_bytes = self._bytes_in_flight + request_bytes <= limits.CONNECTION_IN_FLIGHT_BYTES_MAX
        return len(self._waiting) < self._requests_max and has_bytes

    def _write_outgoing(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._writer is not None and self.ended is None:
            writer = self._writer
            self._write(lambda: writer.write(outgoing))

    def _write(self, writing: Callable[[], None] | None) -> None:
        if writing is None or self.ended is not None:
            return
        try:
            writing()
        except OSError as error:
            self.end_because(str(error))

    def _deliver(self, frame: Frame) -> None:
        """Hands a reply to whoever asked; an error when nobody did."""
        header = frame.header
        answer: Answer = self._error_of(frame) if header.error else Reply(frame.head, frame.bulk, header.explain)
        waiting = self._waiting.pop(header.correlation, None) if header.is_reply else None
        if waiting is None:
            unasked = MalformedReplyError(self.address, "frame", "it answers no request")
            raise answer if isinstance(answer, MiniKafkaError) else unasked
        self._bytes_in_flight -= waiting.request_bytes
        self._counters.requests_in_flight -= 1
        if not waiting.future.done():
            # Who was cancelled, or no longer waits, is not interested.
            waiting.future.set_result(answer)
        if self._room_waiters:
            self._tell_room()

    def _error_of(self, frame: Frame) -> MiniKafkaError:
        """The error that a reply's head explains."""
        code = ErrorCode.from_number(frame.header.error) or ErrorCode.INTERNAL
        self._counters.errors[code] += 1
        try:
            reply = ErrorReply.decode(frame.head)
        except DecodeError as error:
            return MalformedReplyError(self.address, "error reply", error)
        retry_after = reply.retry_after_ms / 1000
        return broker_error(code, self.address, reply.message, epoch=reply.epoch, retry_after=retry_after)

    def _tell_room(self) -> None:
        waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, IPv6 hosts in brackets.

    :raises ConnectFailedError: it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConnectFailedError(address, "an address is host:port")
    return host.strip("[]"), int(port)


def _configure(connected: socket.socket | None) -> None:
    if connected is None:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Some of these are not there on every system; then its own defaults hold.
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS_MAX)):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
