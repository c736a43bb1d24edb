"""A TCP server that speaks the protocol's frames, and does with each request what a test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from types import TracebackType
from typing import Callable

from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.fields import Message
from minikafka.protocol.frames import REQUEST_LIMITS, Frame, FrameReader, encode_frame
from minikafka.protocol.messages import Api
from minikafka.protocol.messages.hello import ErrorReply, HelloReply


class Peer:
    """One client's connection."""

    def __init__(self, server: FakeServer, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.writer = writer

    def reply(self, frame: Frame, message: Message, bulk: bytes = b"") -> None:
        """Answers a request."""
        head = message.encode()
        header = frame.header
        start = encode_frame(header.api, header.correlation, head, len(bulk), is_reply=True)
        self.send(start + bulk)

    def refuse(
        self, frame: Frame, code: ErrorCode, message: str = "", *, epoch: int = 0, retry_after_ms: int = 0
    ) -> None:
        """Answers a request with an error."""
        head = ErrorReply(epoch, retry_after_ms, message).encode()
        header = frame.header
        self.send(encode_frame(header.api, header.correlation, head, is_reply=True, error=code))

    def send(self, data: bytes) -> None:
        """Sends whatever bytes."""
        self.writer.write(data)

    def close(self) -> None:
        """Ends the connection, without a word."""
        self.writer.transport.abort()


Handler = Callable[[Peer, Frame], Awaitable[None]]


def hello_reply(**changes: object) -> HelloReply:
    """What a server says of itself."""
    fields: dict[str, object] = {
        "protocol": 1,
        "nonce": bytes(16),
        "cluster": 7,
        "node": 1,
        "shard": 0,
        "server_version": "test",
        "batch_body_bytes_max": 4 << 20,
        "record_bytes_max": 2 << 20,
        "in_flight_max": 1024,
        "idle_deadline_ms": 600_000,
    }
    return HelloReply(**{**fields, **changes})  # type: ignore[arg-type]


class FakeServer:
    """Runs on a loop of its own, on a thread; hellos are answered, everything else is the handler's."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self._handler = handler
        self._port = port
        self.loop = asyncio.new_event_loop()
        self.peers: set[Peer] = set()
        #: Every request that came, hellos left out.
        self.requests: list[Api] = []
        self._thread = threading.Thread(target=self._run, name="fake-server", daemon=True)
        self._listening = threading.Event()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> FakeServer:
        self._thread.start()
        assert self._listening.wait(10), "the fake server does not listen"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    def call(self, function: Callable[[], object]) -> None:
        """Calls a function on the server's loop, and waits for it."""
        done = threading.Event()

        def calling() -> None:
            try:
                function()
            finally:
                done.set()

        self.loop.call_soon_threadsafe(calling)
        assert done.wait(10)

    def drop_connections(self, then: Callable[[], object] = lambda: None) -> None:
        """Ends every connection, without a word, and does something before anybody can connect again."""

        def dropping() -> None:
            for peer in list(self.peers):
                peer.close()
            then()

        self.call(dropping)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._listen())
        self._listening.set()
        self.loop.run_forever()
        assert self._server is not None
        self._server.close()
        for peer in list(self.peers):
            peer.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, writer)
        self.peers.add(peer)
        frames = FrameReader(REQUEST_LIMITS)
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                data = await reader.read(len(frames.free_space()))
                if not data:
                    return
                frames.free_space()[: len(data)] = data
                for frame in frames.received(len(data)):
                    task = asyncio.ensure_future(self._handle(peer, frame))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        except ConnectionError:
            return
        finally:
            self.peers.discard(peer)
            for task in tasks:
                task.cancel()
            writer.close()

    async def _handle(self, peer: Peer, frame: Frame) -> None:
        if frame.header.api == Api.HELLO:
            peer.reply(frame, hello_reply())
            return
        self.requests.append(Api(frame.header.api))
        await self._handler(peer, frame)
