"""The fetcher of a consumer: it makes the requests that ``progress`` plans, and hands it the answers."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ..protocol.cluster_map import ClusterMap
from ..protocol.consumer_progress import ShardFetch
from ..protocol.errors import ConnectionLostError, DeadlineExceededError, MalformedReplyError, MiniKafkaError
from ..protocol.explain import Explain
from ..protocol.fetched_entries import verified
from ..protocol.messages import Api
from ..protocol.messages.data import FetchReply
from ..protocol.messages.explain import FetchExplained
from ..protocol.partition_progress import PartitionAnswer
from ..protocol.reading import Reading
from .cluster import OVERDUE, Cluster
from .connection import Connection, Reply
from .pool import PoolLane
from .waiting import wait_until

_log = logging.getLogger("minikafka")

#: An answer may be late by so many seconds, beyond what the shard was asked to wait, before its connection counts as
#: dead.
_ANSWER_SLACK: Final = 10.0
#: A connection that is not open after this counts as failed for now.
_CONNECT_PATIENCE: Final = 1.0
#: A partition with less than one in so many bytes of an answer gets a copy of them, so that its few bytes do not keep
#: the whole answer in memory.
_SLICE_SHARE: Final = 16


class Fetcher:
    """Fetches until it is closed. It runs on the client's loop; :meth:`wake` may be called by any thread."""

    def __init__(self, cluster: Cluster, reading: Reading) -> None:
        self._cluster = cluster
        self._reading = reading
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[ClusterMap] | None = None
        reading.wake_fetcher = self.wake
        self._running = asyncio.ensure_future(self._run())

    def wake(self) -> None:
        """The application has taken something, or wants something else."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def close(self) -> None:
        """Fetches nothing any more."""
        tasks = [self._running, *self._asking, *([self._refreshing] if self._refreshing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                self._woken.clear()
                await wait_until(self._woken, self._make_requests())
        except Exception as error:
            # A mistake of ours: whoever waits for records must not wait for ever.
            _log.exception("the fetcher has failed")
            self._reading.fail(MiniKafkaError(f"the fetcher has failed, please report it: {error!r}"))

    def _make_requests(self) -> float | None:
        """Makes the requests that are due; when to look again, if nothing happens before."""
        now = self._loop.time()
        cluster_map = self._cluster.maps.current
        with self._reading.lock:
            progress = self._reading.progress
            fetches = progress.plan(now, cluster_map)
            outdated, wake_at = progress.take_map_wish(), progress.wake_at(now)
        for fetch in fetches:
            task = asyncio.ensure_future(self._ask(fetch))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        if outdated is not None and cluster_map.version <= outdated and self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._cluster.map_after(outdated))
            self._refreshing.add_done_callback(self._refreshed)
        return wake_at

    def _refreshed(self, _: asyncio.Task[ClusterMap]) -> None:
        self._refreshing = None
        self._woken.set()

    async def _ask(self, fetch: ShardFetch) -> None:
        """Makes one request, and hands over its answer, verified."""
        sent_at = self._loop.time()
        answer: list[PartitionAnswer] | MiniKafkaError
        try:
            answer = await self._answers(fetch)
        except MiniKafkaError as error:
            answer = error
        with self._reading.lock:
            self._reading.progress.absorb(self._loop.time(), sent_at, fetch, answer)
        self._woken.set()
        self._reading.on_ready()

    async def _answers(self, fetch: ShardFetch) -> list[PartitionAnswer]:
        pool = self._cluster.pool
        connection = await pool.connect_within(fetch.address, PoolLane.FETCHES, _CONNECT_PATIENCE)
        try:
            sent_at = self._loop.time()
            reply = await self._reply(fetch, connection)
            answers = _cut(fetch, *_decoded(connection, reply, self._loop.time() - sent_at), reply)
        except (DeadlineExceededError, MalformedReplyError):
            connection.end_because("a fetch was not answered properly in time")
            raise
        counters = self._cluster.counters
        for answer in answers:
            counters.batches_received += len(answer.entries)
            counters.records_received += sum(entry.header.record_count for entry in answer.entries)
            counters.bytes_received += sum(entry.header.body_bytes for entry in answer.entries)
        return answers

    async def _reply(self, fetch: ShardFetch, connection: Connection) -> Reply:
        """The reply; or an error as soon as the map says that none will come."""
        wait = fetch.request.wait_ms_max / 1000
        asking = asyncio.ensure_future(
            connection.request(Api.FETCH, fetch.request.encode(), timeout=wait + _ANSWER_SLACK, explain=fetch.explain)
        )
        moving: asyncio.Task[ConnectionLostError] | None = None
        try:
            done, _ = await asyncio.wait({asking}, timeout=wait + OVERDUE)
            if not done:
                moving = asyncio.ensure_future(self._cluster.moved(0, fetch.addressed()))
                await asyncio.wait({asking, moving}, return_when=asyncio.FIRST_COMPLETED)
            if moving is not None and not asking.done():
                raise moving.result()
            return asking.result()
        finally:
            asking.cancel()
            if moving is not None:
                moving.cancel()


def _decoded(connection: Connection, answer: Reply, round_trip: float) -> tuple[FetchReply, Explain | None]:
    """The fields of an answer, and where its time went, if it says so."""
    if not answer.explain:
        return connection.decode(FetchReply, answer.head), None
    reply = connection.decode(FetchExplained, answer.head)
    return reply, Explain(round_trip, reply.hops)


def _cut(fetch: ShardFetch, reply: FetchReply, explain: Explain | None, answer: Reply) -> list[PartitionAnswer]:
    """Cuts an answer into those of its partitions."""
    asked = [question.partition for question in fetch.request.partitions]
    if [fetched.partition for fetched in reply.partitions] != asked:
        reason = "it is about other partitions than were asked for"
        raise MalformedReplyError(fetch.address, "fetch reply", reason)
    if sum(fetched.entries_bytes for fetched in reply.partitions) != len(answer.bulk):
        reason = "its partitions' bytes do not add up to the bytes that came"
        raise MalformedReplyError(fetch.address, "fetch reply", reason)
    answers = []
    at = 0
    for fetched, question in zip(reply.partitions, fetch.asked):
        data = answer.bulk[at : at + fetched.entries_bytes]
        at += fetched.entries_bytes
        if len(data) < len(answer.bulk) // _SLICE_SHARE:
            data = memoryview(bytes(data))
        entries, damage = verified(data, fetched.partition, question.position)
        if explain is not None:
            entries = [entry._replace(explain=explain) for entry in entries]
        answers.append(PartitionAnswer(fetched, entries, damage))
    return answers
