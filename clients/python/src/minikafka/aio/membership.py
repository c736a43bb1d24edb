"""A consumer's membership in its group: heartbeats, commits, and what becomes of partitions that come and go.

The member machine (``protocol.group_member``) decides; this sends what it says, and runs what its events ask for. It
goes on whatever the application does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from typing import Callable, Final

from ..protocol.cluster_map import Addressed
from ..protocol.error_code import ErrorCode
from ..protocol.errors import (
    ConnectionLostError,
    MiniKafkaError,
    OffsetOutOfRangeError,
    broker_error,
)
from ..protocol.group_member import Assigned, Failed, GroupMember, Heartbeat, Lost, MemberSettings, Revoked
from ..protocol.messages import Api
from ..protocol.messages.data import QUERY_LATEST, PartitionKey
from ..protocol.messages.groups import GroupHeartbeatReply
from ..protocol.messages.topics import TopicDescription
from ..protocol.options import GroupOptions, RebalanceCallback, StartAt, TopicPartition
from ..protocol.reading import Reading
from . import coordinator
from .cluster import OVERDUE, Cluster
from .partition_requests import list_offsets
from .pool import PoolLane
from .waiting import wait_until

_log = logging.getLogger("minikafka")

#: An answer may be late by so many seconds, beyond what the coordinator was asked to wait.
_ANSWER_SLACK: Final = 5.0
#: A connection that is not open after this counts as failed for now.
_CONNECT_PATIENCE: Final = 1.0
#: A newer map is waited for so long; then it goes on with what is known.
_MAP_PATIENCE: Final = 1.0
#: How often it is looked whether what was given out of a revoked partition is handled by now.
_HANDLED_LOOK: Final = 0.02
#: A good-bye is tried for so long.
_LEAVE_PATIENCE: Final = 5.0

#: Runs an application's callback where applications expect it.
Invoke = Callable[[RebalanceCallback, "list[TopicPartition]"], Awaitable[object]]


class Membership:
    """See the module's description. It runs on the client's loop."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        topics: Iterable[TopicDescription],
        reading: Reading,
        options: GroupOptions,
        start: StartAt,
        invoke: Invoke,
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._topics = {topic.topic: topic for topic in topics}
        self._reading = reading
        self._options = options
        self._start = start
        self._invoke = invoke
        self._loop = asyncio.get_running_loop()
        settings = MemberSettings(
            group=group,
            instance=options.instance or "",
            client_name=cluster.options.client_name,
            session_timeout_ms=int(options.session_timeout * 1000),
            seed=secrets.randbits(64),
        )
        self._member = GroupMember(settings)
        self._member.subscribe({topic.topic: topic.partitions for topic in self._topics.values()})
        #: What is read, and since which turn; what is on its way out is not.
        self._assigned: dict[PartitionKey, int] = {}
        self._committed: dict[PartitionKey, int] = {}
        self._commits = asyncio.Lock()
        self._callbacks = asyncio.Lock()
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating = self._begin(self._beat_on())
        self._committing = self._begin(self._commit_on())

    @property
    def owned(self) -> frozenset[PartitionKey]:
        """The partitions that are this member's, those that are being released included."""
        return self._member.owned

    async def commit(self) -> None:
        """Commits what was handled.

        :raises MiniKafkaError: why it is not committed.
        """
        await self._commit(self._reading.committable())

    async def close(self, *, for_good: bool) -> None:
        """Commits what was handled, and leaves."""
        self._beating.cancel()
        self._committing.cancel()
        owned = sorted(self._assigned)
        self._reading.withdraw(owned)
        try:
            if not self._member.is_over:
                await self._call_back(self._options.on_revoked, owned)
                deadline = self._loop.time() + min(_LEAVE_PATIENCE, self._cluster.options.request_timeout)
                await self._commit(self._reading.committable(), deadline)
        except MiniKafkaError as error:
            _log.warning("group %s: what was handled last is not committed: %s", self._group, error)
        finally:
            self._member.leave(for_good=for_good)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._say_good_bye()

    # Heartbeats.

    async def _beat_on(self) -> None:
        while not self._member.is_over:
            await self._until(float("inf"))
            await self._beat()
            self._take_events()

    async def _until(self, at: float) -> None:
        """Waits until a heartbeat is due, at most until a time."""
        while min(at, self._member.next_at()) > self._loop.time():
            self._woken.clear()
            await wait_until(self._woken, min(at, self._member.next_at()))

    async def _beat(self) -> None:
        """One heartbeat, and what its answer means."""
        heartbeat, says_all = self._member.heartbeat(), True
        seen = self._cluster.maps.current.version
        try:
            place = coordinator.place_of(self._cluster, self._group)
            says_all = self._member.must_say_all((place.address, place.epoch), heartbeat)
            reply = await self._ask(place, heartbeat, says_all=says_all)
            self._member.answered(self._loop.time(), (place.address, place.epoch), heartbeat, reply)
        except MiniKafkaError as error:
            _log.debug("group %s: heartbeat failed: %s", self._group, error)
            self._member.failed(self._loop.time(), heartbeat, error, said_all=says_all)
            if error.wants_map:
                await self._refresh_map(seen)

    async def _ask(self, place: coordinator.Place, heartbeat: Heartbeat, *, says_all: bool) -> GroupHeartbeatReply:
        connection = await self._cluster.pool.connect_within(place.address, PoolLane.REQUESTS, _CONNECT_PATIENCE)
        request = self._member.request(heartbeat, place.range, place.epoch, says_all=says_all)
        wait = heartbeat.wait_ms_max / 1000
        asking = asyncio.ensure_future(
            connection.call(Api.GROUP_HEARTBEAT, request, GroupHeartbeatReply, timeout=wait + _ANSWER_SLACK)
        )
        moving: asyncio.Task[ConnectionLostError] | None = None
        try:
            done, _ = await asyncio.wait({asking}, timeout=wait + OVERDUE)
            if not done:
                addressed = [Addressed(place.address, place.range, place.epoch)]
                moving = asyncio.ensure_future(self._cluster.moved(0, addressed))
                await asyncio.wait({asking, moving}, return_when=asyncio.FIRST_COMPLETED)
            if moving is not None and not asking.done():
                raise moving.result()
            return asking.result()
        finally:
            asking.cancel()
            if moving is not None:
                moving.cancel()

    async def _refresh_map(self, seen: int) -> None:
        refreshing = asyncio.ensure_future(self._cluster.map_after(seen))
        await asyncio.wait({refreshing}, timeout=_MAP_PATIENCE)

    async def _say_good_bye(self) -> None:
        deadline = self._loop.time() + min(_LEAVE_PATIENCE, self._cluster.options.request_timeout)
        while not self._member.is_over and self._loop.time() < deadline:
            await self._until(deadline)
            await self._beat()

    # Partitions come and go.

    def _take_events(self) -> None:
        for event in self._member.take_events():
            if isinstance(event, Assigned):
                self._assigned.update(dict.fromkeys(event.partitions, event.turn))
                self._begin(self._assign(event.partitions, event.turn))
            elif isinstance(event, Revoked):
                self._stop_reading(event.partitions)
                self._begin(self._release(event.partitions))
            elif isinstance(event, Lost):
                self._stop_reading(event.partitions)
                self._reading.forget(event.partitions)
                self._begin(self._call_back(self._options.on_lost, event.partitions))
            else:
                assert isinstance(event, Failed)
                self._reading.fail(event.error)

    def _stop_reading(self, keys: Iterable[PartitionKey]) -> None:
        for key in keys:
            self._assigned.pop(key, None)
        self._reading.withdraw(keys)

    async def _assign(self, partitions: Mapping[PartitionKey, int | None], turn: int) -> None:
        try:
            starts = await self._starts(partitions)
        except MiniKafkaError as error:
            self._reading.fail(error)
            return
        # What was taken away meanwhile is not read, also if it came back: that is another turn.
        keys = [key for key in starts if self._assigned.get(key) == turn]
        for key in keys:
            position, is_starting = starts[key]
            self._committed[key] = position
            self._reading.assign(self._topics[key.topic], key.partition, position, is_starting=is_starting, held=True)
        await self._call_back(self._options.on_assigned, keys)
        self._reading.begin(key for key in keys if self._assigned.get(key) == turn)

    async def _starts(self, partitions: Mapping[PartitionKey, int | None]) -> dict[PartitionKey, tuple[int, bool]]:
        """Where to begin in each; true: or where the log begins, if that is later."""
        starts: dict[PartitionKey, tuple[int, bool]] = {}
        open_keys: list[PartitionKey] = []
        for key, committed in partitions.items():
            topic = self._topics.get(key.topic)
            if topic is None or key.partition >= topic.partitions:
                _log.warning("group %s: assigned %s, which was not subscribed to", self._group, key)
            elif committed is not None:
                starts[key] = (committed, False)
            elif self._start == "error":
                target = f"group {self._group}: topic {topic.name} partition {key.partition} has no committed offset"
                raise OffsetOutOfRangeError(ErrorCode.OFFSET_OUT_OF_RANGE, target)
            elif self._start == "earliest":
                starts[key] = (0, True)
            else:
                open_keys.append(key)
        for topic_id in {key.topic for key in open_keys}:
            of_topic = [key.partition for key in open_keys if key.topic == topic_id]
            ends = await list_offsets(self._cluster, self._topics[topic_id], of_topic, QUERY_LATEST)
            starts.update((PartitionKey(topic_id, partition), (end, False)) for partition, end in ends.items())
        return starts

    async def _release(self, keys: list[PartitionKey]) -> None:
        """Releases partitions, each once what was given out of it is handled, or has taken too long, and is
        committed."""
        turns = {key: self._member.turn_of(key) for key in keys}
        await self._call_back(self._options.on_revoked, keys)
        deadline = self._loop.time() + self._options.revocation_wait
        # What is lost meanwhile is not released any more, also if it comes back.
        while keys := [key for key in keys if self._member.turn_of(key) == turns[key]]:
            is_late = self._loop.time() >= deadline
            ready = [key for key in keys if is_late or not self._reading.is_outstanding(key)]
            if ready:
                await self._commit_and_release(ready)
            else:
                await asyncio.sleep(_HANDLED_LOOK)

    async def _commit_and_release(self, keys: list[PartitionKey]) -> None:
        turns = {key: self._member.turn_of(key) for key in keys}
        handled = self._reading.committable()
        try:
            await self._commit({key: handled[key] for key in keys if key in handled})
        except MiniKafkaError as error:
            _log.warning("group %s: what was handled of %s is not committed: %s", self._group, keys, error)
        keys = [key for key in keys if self._member.turn_of(key) == turns[key]]
        self._reading.forget(keys)
        self._member.released(keys)
        self._woken.set()

    async def _call_back(self, callback: RebalanceCallback | None, keys: Iterable[PartitionKey]) -> None:
        partitions = [TopicPartition(self._topics[key.topic].name, key.partition) for key in keys]
        if callback is None or not partitions:
            return
        async with self._callbacks:
            try:
                await self._invoke(callback, partitions)
            except Exception:
                _log.exception("group %s: a callback of the application has failed", self._group)

    # Commits.

    async def _commit_on(self) -> None:
        while True:
            await asyncio.sleep(self._options.commit_interval)
            try:
                await self._commit(self._reading.committable())
            except MiniKafkaError as error:
                _log.warning("group %s: not committed, tried again in a while: %s", self._group, error)

    async def _commit(self, offsets: Mapping[PartitionKey, int], deadline: float | None = None) -> None:
        async with self._commits:
            owned = self._member.owned
            changed = {
                key: offset for key, offset in offsets.items() if key in owned and self._committed.get(key) != offset
            }
            if not changed:
                return
            # By which ownership these were handled is told as it is now, however late the commit arrives.
            committer = self._member.committer()
            refused = await coordinator.commit(
                self._cluster,
                self._group,
                changed,
                committer=committer,
                next_sequence=self._member.next_sequence,
                deadline=deadline,
            )
            self._committed.update((key, offset) for key, offset in changed.items() if key not in refused)
        lost = [key for key, code in refused.items() if code is ErrorCode.NOT_ASSIGNED]
        self._member.refused(committer, lost)
        self._take_events()
        for key, code in refused.items():
            topic = self._topics[key.topic].name
            raise broker_error(code, f"group {self._group}: commit of topic {topic} partition {key.partition}")

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A mistake of ours: whoever waits for records must not wait for ever.
            _log.error("group %s: the membership has failed", self._group, exc_info=task.exception())
            self._reading.fail(MiniKafkaError(f"the membership has failed, please report it: {task.exception()!r}"))
