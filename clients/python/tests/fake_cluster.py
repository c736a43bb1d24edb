"""A cluster of one fake server, which is gateway, shard and coordinator: enough of a broker to test a client against,
and to let it see what a real one does seldom: refusals, lost answers, connections that break, ranges that move."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Callable

from minikafka.protocol.entry import EntryHeader
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.frames import Frame
from minikafka.protocol.messages import Api
from minikafka.protocol.messages.data import (
    FetchedPartition,
    FetchReply,
    FetchRequest,
    ListedOffset,
    ListOffsetsReply,
    ListOffsetsRequest,
    PartitionKey,
    ProduceReply,
    ProduceRequest,
)
from minikafka.protocol.messages.topics import (
    STATE_READY,
    ChainPlace,
    CreateTopicRequest,
    NodeAddress,
    RangeChain,
    ResolveReply,
    ResolveRequest,
    RingMap,
    TopicConfig,
    TopicDescription,
)

from .fake_coordinator import FakeCoordinator
from .fake_server import FakeServer, Peer

#: What a test may do with a request instead of what a broker does; true: it was dealt with.
Interceptor = Callable[[Peer, Frame], bool]

_PADDING = 16


class FakeLog:
    """One partition: entries as stored, and what was seen of producers."""

    def __init__(self) -> None:
        self.entries: list[tuple[EntryHeader, bytes]] = []
        self.end = 0
        #: By producer: the next sequence, and where its batches are.
        self.producers: dict[int, tuple[int, dict[int, int]]] = {}

    def produce(self, header: EntryHeader, body: bytes) -> int | ErrorCode:
        """Stores a batch once; its base offset."""
        if header.producer_id >= 0:
            following, places = self.producers.get(header.producer_id, (0, {}))
            if header.base_sequence in places:
                return places[header.base_sequence]
            if header.base_sequence != following:
                return ErrorCode.OUT_OF_ORDER if places else ErrorCode.UNKNOWN_PRODUCER
            places = {**places, header.base_sequence: self.end}
            self.producers[header.producer_id] = (following + header.record_count, places)
        stored = header._replace(base_offset=self.end, epoch=1, log_index=len(self.entries) + 1, append_timestamp=1000)
        self.entries.append((stored, body))
        self.end = stored.next_offset
        return stored.base_offset

    def fetch(self, offset: int) -> bytes:
        """The entries from the one on that holds an offset."""
        found = [(header, body) for header, body in self.entries if header.next_offset > offset]
        return b"".join(header.encode() + body + bytes(-len(body) % _PADDING) for header, body in found)


class FakeCluster:
    """See the module's description. Everything below runs on the server's loop."""

    def __init__(self) -> None:
        self._server = FakeServer(self._handle)
        self.epoch = 1
        self.topics: dict[str, TopicDescription] = {}
        self.logs: dict[PartitionKey, FakeLog] = {}
        self.coordinator = FakeCoordinator(self._server.loop.time)
        #: Looked at first; each deals with one request, and is gone then.
        self.intercept_next: dict[Api, deque[Interceptor]] = {}
        #: Fetches that wait for more.
        self._waiting: list[asyncio.Future[None]] = []

    def __enter__(self) -> FakeCluster:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, traceback)

    @property
    def server(self) -> FakeServer:
        """The server."""
        return self._server

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._server.address

    def intercept(self, api: Api, *interceptors: Interceptor) -> None:
        """Deals with the next requests of this kind otherwise."""
        self.intercept_next.setdefault(api, deque()).extend(interceptors)

    def refuse(self, api: Api, code: ErrorCode, times: int = 1) -> None:
        """Refuses the next requests of this kind."""

        def refusing(peer: Peer, frame: Frame) -> bool:
            peer.refuse(frame, code)
            return True

        self.intercept(api, *[refusing] * times)

    def add_topic(self, name: str, partitions: int) -> TopicDescription:
        """Makes a topic."""
        number = len(self.topics) + 1
        topic = TopicDescription(name, None, number << 40, partitions, 1, STATE_READY, TopicConfig(), [])
        self.topics[name] = topic
        self.logs.update({PartitionKey(topic.topic, partition): FakeLog() for partition in range(partitions)})
        return topic

    def stored(self, topic: str) -> int:
        """How many records it has."""
        key = self.topics[topic].topic
        return sum(log.end for (of, _), log in self.logs.items() if of == key)

    async def _handle(self, peer: Peer, frame: Frame) -> None:
        api = Api(frame.header.api)
        waiting = self.intercept_next.get(api)
        if waiting and waiting.popleft()(peer, frame):
            return
        if api in (Api.GROUP_HEARTBEAT, Api.GROUP_COMMIT, Api.GROUP_OFFSETS, Api.GROUP_DESCRIBE, Api.GROUP_DELETE):
            await self.coordinator.handle(peer, frame)
        elif api is Api.FETCH:
            await self._fetch(peer, frame)
        else:
            handlers = {
                Api.RESOLVE: self._resolve,
                Api.CREATE_TOPIC: self._create,
                Api.PRODUCE: self._produce,
                Api.LIST_OFFSETS: self._list_offsets,
            }
            handlers[api](peer, frame)

    def _resolve(self, peer: Peer, frame: Frame) -> None:
        request = ResolveRequest.decode(frame.head)
        names = list(self.topics) if request.all_topics else request.topics
        unknown = TopicDescription("", ErrorCode.UNKNOWN_TOPIC, 0, 0, 0, STATE_READY, TopicConfig(), [])
        for name in names:
            if request.create_missing and name not in self.topics:
                self.add_topic(name, 4)
        topics = [self.topics.get(name) or TopicDescription(name, *list(vars(unknown).values())[1:]) for name in names]
        chain = RangeChain(self.epoch, [ChainPlace(1, 0)])
        rings = [RingMap(1, 1, [chain, chain])] if request.with_rings else []
        nodes = [NodeAddress(1, "", [self.address])] if request.with_rings else []
        peer.reply(frame, ResolveReply(7, 1, nodes, rings, topics))

    def _create(self, peer: Peer, frame: Frame) -> None:
        request = CreateTopicRequest.decode(frame.head)
        if request.name in self.topics:
            peer.refuse(frame, ErrorCode.TOPIC_EXISTS)
        else:
            peer.reply(frame, self.add_topic(request.name, request.partitions or 4))

    def _produce(self, peer: Peer, frame: Frame) -> None:
        request = ProduceRequest.decode(frame.head)
        if request.epoch != self.epoch:
            peer.refuse(frame, ErrorCode.STALE, epoch=self.epoch)
            return
        header = request.header
        log = self.logs[PartitionKey(header.topic_id, header.partition)]
        offset = log.produce(header, bytes(frame.bulk))
        if isinstance(offset, ErrorCode):
            peer.refuse(frame, offset)
        else:
            peer.reply(frame, ProduceReply(offset, 1000))
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _fetch(self, peer: Peer, frame: Frame) -> None:
        request = FetchRequest.decode(frame.head)
        parts = [(asked.partition, self.logs[asked.partition]) for asked in request.partitions]
        deadline = self.server.loop.time() + request.wait_ms_max / 1000
        while all(log.end <= asked.offset for asked, (_, log) in zip(request.partitions, parts)):
            waiter: asyncio.Future[None] = self.server.loop.create_future()
            self._waiting.append(waiter)
            done, _ = await asyncio.wait({waiter}, timeout=deadline - self.server.loop.time())
            if not done:
                break
        bulk, fetched = b"", []
        for asked, (key, log) in zip(request.partitions, parts):
            entries = log.fetch(asked.offset)
            bulk += entries
            fetched.append(FetchedPartition(key, None, self.epoch, 0, log.end, None, None, len(entries)))
        peer.reply(frame, FetchReply(fetched), bulk)

    def _list_offsets(self, peer: Peer, frame: Frame) -> None:
        request = ListOffsetsRequest.decode(frame.head)
        listed = [
            ListedOffset(asked.partition, None, self.epoch, self.logs[asked.partition].end if asked.kind else 0)
            for asked in request.partitions
        ]
        peer.reply(frame, ListOffsetsReply(listed))
