"""A server that lies, stalls, breaks off or sends noise can not crash a client, nor make it hang: every call ends, with
an error that says what happened."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minikafka import Client, ClientOptions, ConsumerOptions, MiniKafkaError, NoGatewayError, ProducerOptions
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.frames import Frame, encode_frame
from minikafka.protocol.messages import Api
from minikafka.protocol.messages.data import FetchedPartition, FetchReply, FetchRequest, PartitionKey

from .fake_cluster import FakeCluster
from .fake_server import Peer, hello_reply
from .waiting import PATIENCE, until

Script = Callable[[socket.socket], None]

#: Every call of the client under test ends within this, and a little.
DEADLINE = 0.4


class HostileServer:
    """Accepts connections, and does to each what the script says."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> HostileServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._script(connection)


def read_request(connection: socket.socket) -> tuple[int, int]:
    """Api and correlation of the next request."""
    start = b""
    while len(start) < 32:
        piece = connection.recv(32 - len(start))
        if not piece:
            raise OSError("the client has gone")
        start += piece
    head, bulk = struct.unpack_from("<II", start, 4)
    left = head + bulk
    while left:
        left -= len(connection.recv(left))
    return struct.unpack_from("<H", start, 12)[0], struct.unpack_from("<Q", start, 16)[0]


def after_hello(then: Callable[[socket.socket, int, int], None]) -> Script:
    """Says hello as it should be, and then does something to every request."""

    def script(connection: socket.socket) -> None:
        api, correlation = read_request(connection)
        connection.sendall(encode_frame(api, correlation, hello_reply().encode(), is_reply=True))
        while True:
            then(connection, *read_request(connection))

    return script


def sends(data: bytes) -> Script:
    """Sends bytes instead of a hello, then nothing more."""

    def script(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.recv(1 << 20)
        time.sleep(PATIENCE)

    return script


def closes(connection: socket.socket) -> None:
    connection.close()


def stays_silent(connection: socket.socket) -> None:
    time.sleep(PATIENCE)
    connection.close()


def trickles(connection: socket.socket) -> None:
    """A byte of a good hello reply at a time, and never the last."""
    api, correlation = read_request(connection)
    for byte in encode_frame(api, correlation, hello_reply().encode(), is_reply=True)[:-1]:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def frame_with(**changes: object) -> Callable[[socket.socket, int, int], None]:
    def then(connection: socket.socket, api: int, correlation: int) -> None:
        fields = {"api": api, "correlation": correlation, "head": b"", "bulk_bytes": 0, "is_reply": True, **changes}
        connection.sendall(encode_frame(**fields))  # type: ignore[arg-type]

    return then


def cut_off(connection: socket.socket, api: int, correlation: int) -> None:
    connection.sendall(encode_frame(api, correlation, bytes(100), 5000, is_reply=True)[:50])
    connection.close()


def noise(connection: socket.socket, api: int, correlation: int) -> None:
    connection.sendall(os.urandom(4096))


def nothing(connection: socket.socket, api: int, correlation: int) -> None:
    """No answer, ever."""


HELLOS = {
    "it closes at once": closes,
    "it says nothing": stays_silent,
    "it says hello a byte at a time": trickles,
    "it speaks HTTP": sends(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + bytes(64)),
    "it announces four gigabytes": sends(b"MKw1" + b"\xff" * 60),
    "it sends noise": sends(os.urandom(1000)),
}

REPLIES = {
    "another correlation": frame_with(correlation=999),
    "a request instead of a reply": frame_with(is_reply=False),
    "a head that is cut": frame_with(head=b"\x01"),
    "a list of four thousand million": frame_with(head=bytes(8) + b"\xff" * 4),
    "an unknown error": frame_with(error=9999, head=bytes(14)),
    "an error without an explanation": frame_with(error=6, head=b""),
    "a bulk that never comes": frame_with(bulk_bytes=1 << 20),
    "a head that never comes": lambda c, api, n: c.sendall(encode_frame(api, n, bytes(9999), is_reply=True)[:40]),
    "a frame that is cut off": cut_off,
    "noise": noise,
    "no answer": nothing,
}


@pytest.fixture
def quick() -> ClientOptions:
    return ClientOptions(connect_timeout=DEADLINE, request_timeout=DEADLINE)


@pytest.fixture(autouse=True)
def short_gateway_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway has 5 s to answer; tests have not."""
    monkeypatch.setattr("minikafka.aio.gateways.ANSWER_DEADLINE", DEADLINE)


@pytest.mark.parametrize("script", HELLOS.values(), ids=HELLOS)
def test_a_server_that_says_no_proper_hello(script: Script, quick: ClientOptions) -> None:
    with HostileServer(script) as server, Client(server.address, quick) as client:
        began = time.monotonic()
        with pytest.raises(NoGatewayError, match=server.address):
            client.list_topics()
        with pytest.raises(MiniKafkaError):
            client.create_topic("orders")
        assert time.monotonic() - began < 10 * DEADLINE


@pytest.mark.parametrize("then", REPLIES.values(), ids=REPLIES)
def test_a_server_that_answers_with_something_else(
    then: Callable[[socket.socket, int, int], None], quick: ClientOptions
) -> None:
    with HostileServer(after_hello(then)) as server, Client(server.address, quick) as client:
        began = time.monotonic()
        with pytest.raises(MiniKafkaError):
            client.list_topics()
        with pytest.raises(MiniKafkaError):
            client.create_topic("orders")
        with client.producer() as producer, pytest.raises(MiniKafkaError):
            producer.send("orders", b"x")
        assert time.monotonic() - began < 15 * DEADLINE


def test_an_answer_that_nobody_asked_for_ends_the_connection(quick: ClientOptions) -> None:
    then = REPLIES["another correlation"]
    with HostileServer(after_hello(then)) as server, Client(server.address, quick) as client:
        with pytest.raises(NoGatewayError, match="it answers no request"):
            client.list_topics()


def test_a_server_that_does_not_read_can_not_hold_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minikafka.protocol.limits.WRITE_DEADLINE_MS", 300)
    with FakeCluster() as cluster, Client(cluster.address) as client:
        client.create_topic("orders", partitions=1)

        def stop_reading(peer: Peer, frame: Frame) -> bool:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            return True

        options = ProducerOptions(delivery_timeout=2.0, batch_bytes=1 << 20, buffer_bytes=32 << 20)
        producer = client.producer(options)
        cluster.intercept(Api.PRODUCE, *[stop_reading] * 100)
        deliveries = [producer.send("orders", b"x" * (1 << 20)) for _ in range(20)]
        errors = [delivery.exception(PATIENCE) for delivery in deliveries]
        assert all(error is not None for error in errors)
        with pytest.raises(MiniKafkaError):
            producer.close()
        assert client.counters().connections_lost > 0


@pytest.mark.parametrize("sends_pieces", [True, False])
def test_large_batches_pass_whole_however_slowly_they_are_read(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, sends_pieces: bool
) -> None:
    monkeypatch.setattr("minikafka.aio.writer.SENDS_PIECES", sends_pieces)
    cluster.add_topic("orders", 1)

    def reads_on_later(peer: Peer, frame: Frame) -> bool:
        transport = peer.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        cluster.server.loop.call_later(0.02, transport.resume_reading)  # type: ignore[attr-defined]
        return False

    cluster.intercept(Api.PRODUCE, *[reads_on_later] * 8)
    values: list[bytes | None] = [os.urandom(900_000 + number) for number in range(16)]
    with Client(cluster.address) as client:
        with client.producer(ProducerOptions(batch_bytes=1 << 20)) as producer:
            for value in values:
                producer.send("orders", value)
        with client.consumer("orders") as consumer:
            assert [record.value for record in (consumer.poll(PATIENCE) for _ in values) if record] == values


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    st.booleans(),
)
def test_fetched_bytes_that_are_changed_never_reach_the_application(
    cluster: FakeCluster, cut: int, changes: list[tuple[int, int]], extends: bool
) -> None:
    """Whatever is done to a fetch reply, records come as they were written: the client asks again."""
    if "orders" not in cluster.topics:
        cluster.add_topic("orders", 1)
        with Client(cluster.address) as client, client.producer() as producer:
            producer.send_many("orders", [b"%d" % number for number in range(100)]).result(PATIENCE)

    def hostile(peer: Peer, frame: Frame) -> bool:
        request = FetchRequest.decode(frame.head)
        (asked,) = request.partitions
        entries = bytearray(cluster.logs[asked.partition].fetch(asked.offset))
        for at, value in changes:
            entries[at % len(entries)] = value
        entries = entries[: len(entries) - cut * 16] + (b"\0" * 16 if extends else b"")
        part = FetchedPartition(asked.partition, None, 1, 0, 100, None, None, len(entries))
        peer.reply(frame, FetchReply([part]), bytes(entries))
        return True

    cluster.intercept_next.clear()
    cluster.intercept(Api.FETCH, hostile)
    with Client(cluster.address) as client, client.consumer("orders") as consumer:
        records = [consumer.poll(PATIENCE) for _ in range(100)]
        assert [record.value for record in records if record] == [b"%d" % number for number in range(100)]


def test_a_fetch_reply_about_other_partitions_is_refused(cluster: FakeCluster) -> None:
    cluster.add_topic("orders", 1)

    def foreign(peer: Peer, frame: Frame) -> bool:
        part = FetchedPartition(PartitionKey(1, 1), None, 1, 0, 0, None, None, 0)
        peer.reply(frame, FetchReply([part]))
        return True

    def lying(peer: Peer, frame: Frame) -> bool:
        (asked,) = FetchRequest.decode(frame.head).partitions
        part = FetchedPartition(asked.partition, None, 1, 0, 0, None, None, 1000)
        peer.reply(frame, FetchReply([part]), bytes(500))
        return True

    cluster.intercept(Api.FETCH, foreign, lying)
    with Client(cluster.address) as client, client.consumer("orders") as consumer, client.producer() as producer:
        producer.send("orders", b"x").result(PATIENCE)
        record = consumer.poll(PATIENCE)
        assert record is not None and record.value == b"x"
        assert client.counters().connections_lost >= 2, "such connections are not used again"


def test_an_answer_that_never_comes_is_not_waited_for_once_the_map_says_so(cluster: FakeCluster) -> None:
    """A broker that was cut off without a trace closes nothing: the map tells that others have its ranges by now."""
    cluster.add_topic("orders", 1)

    def swallow(peer: Peer, frame: Frame) -> bool:
        cluster.epoch = 2
        return True

    with Client(cluster.address) as client, client.producer() as producer:
        producer.send("orders", b"first").result(PATIENCE)
        cluster.intercept(Api.PRODUCE, swallow)
        began = time.monotonic()
        assert producer.send("orders", b"second").result(PATIENCE).offset == 1
        assert time.monotonic() - began < 5, "long before its request timeout of 30 s"


def test_a_produce_reply_of_another_length_is_not_believed(cluster: FakeCluster) -> None:
    cluster.add_topic("orders", 1)

    def short(peer: Peer, frame: Frame) -> bool:
        header = frame.header
        peer.send(encode_frame(header.api, header.correlation, b"short", is_reply=True))
        return True

    cluster.intercept(Api.PRODUCE, short)
    with Client(cluster.address) as client, client.producer() as producer:
        assert producer.send("orders", b"x").result(PATIENCE).offset == 0, "it was sent again"
        assert client.counters().connections_lost == 1
        assert client.counters().batches_retried == 1


def test_a_server_that_refuses_for_good_is_not_asked_again(cluster: FakeCluster) -> None:
    cluster.add_topic("orders", 1)
    cluster.refuse(Api.FETCH, ErrorCode.UNSUPPORTED, times=1)
    with Client(cluster.address) as client:
        with client.consumer("orders", options=ConsumerOptions(fetch_wait=0.1)) as consumer:
            for _ in range(2):
                with pytest.raises(MiniKafkaError, match="unsupported"):
                    consumer.poll(PATIENCE)
            asked = cluster.server.requests.count(Api.FETCH)
            consumer.seek(0, 0)
            until(lambda: cluster.server.requests.count(Api.FETCH) > asked)
