"""The sender of one topic of a producer: it owns every partition's queue, and decides nothing itself.

It is told of records that were gathered, of answers, connections, a newer map and of time, tells the queues, and does
what they say: seal a batch, send it, complete its deliveries. A record's way: ``gathering`` takes it → :meth:`_enqueue`
→ ``sealing`` → :meth:`_send_ready` → the connection → :meth:`_answered` → the queue → :meth:`_finish` → its delivery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Final

from ..protocol.delivery import Completion
from ..protocol.errors import ClosedError, MiniKafkaError
from ..protocol.gathering import Gathering
from ..protocol.lanes import Lane, OpenBatch, TopicLanes
from ..protocol.producer_queue import Outcome, PartitionQueue, QueueSettings, Resolved
from ..protocol.randomness import Randomness
from .cluster import Cluster
from .dispatch import Dispatcher, Flight
from .sealing import SealedBatch, is_slow_to_seal, seal

_log = logging.getLogger("minikafka")

#: A lane whose lock is held by an application that is just sending is looked at again after this, in seconds.
_BUSY_PAUSE: Final = 0.001


class _Batch:
    """A batch that has left its gathering."""

    __slots__ = ("charged_bytes", "completion", "record_count", "sealed", "ticket")

    def __init__(self, completion: Completion, ticket: int, charged_bytes: int, record_count: int) -> None:
        self.completion = completion
        self.ticket = ticket
        self.charged_bytes = charged_bytes
        self.record_count = record_count
        #: None while it is being compressed.
        self.sealed: SealedBatch | None = None


class LaneSender:
    """One partition as its sender sees it."""

    def __init__(self, lane: Lane, queue: PartitionQueue[_Batch]) -> None:
        self.lane = lane
        self.queue = queue
        #: Waits for an address to take requests.
        self.is_parked = False
        self.waits_for_map = False
        #: The map by which the last attempt was addressed.
        self.map_version = 0
        self.timer: asyncio.TimerHandle | None = None


class Sender:
    """See the module's description. All of it runs on the client's loop, but for :meth:`wake`."""

    def __init__(self, cluster: Cluster, gathering: Gathering, lanes: TopicLanes, seed: int) -> None:
        self._cluster = cluster
        self._gathering = gathering
        self._lanes = lanes
        self._options = gathering.options
        self._loop = asyncio.get_running_loop()
        self._is_woken = False
        self._hurries = gathering.hurries()
        self._is_refreshing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolved: list[Resolved[_Batch]] = []
        self._dispatcher = Dispatcher(cluster, lanes.topic, self._options, self._answered, self._reachable)
        self._parked: dict[str, list[LaneSender]] = {}
        randomness = Randomness(seed)
        self._senders = [LaneSender(lane, self._queue(lane.partition, randomness.number())) for lane in lanes.lanes]

    def wake(self) -> None:
        """Something was announced, or a flush, a wait for memory or the close has begun. Any thread may call."""
        if not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._look)
            except RuntimeError:
                # The loop is closed; whoever waits is told so by the close of the client.
                _log.debug("nobody sends any more: the loop of topic %s is closed", self._lanes.topic.name)

    def abort(self) -> None:
        """Sends nothing any more: everything that is not resolved fails as closed, its outcome unknown or not sent."""
        error = ClosedError("producer")
        self._dispatcher.close()
        for task in self._tasks:
            task.cancel()
        for sender in self._senders:
            if sender.timer is not None:
                sender.timer.cancel()
            for batch in sender.queue.drain():
                self._resolve(batch, error)
            opened = sender.lane.open
            for gathered in [*sender.lane.full, *([opened] if opened is not None else [])]:
                self._resolve(_left(gathered), error)
            sender.lane.full.clear()
            sender.lane.open = None

    def _queue(self, partition: int, seed: int) -> PartitionQueue[_Batch]:
        options = self._options
        settings = QueueSettings(
            topic=self._lanes.topic.name,
            partition=partition,
            idempotent=options.idempotent,
            in_flight_max=options.in_flight_max if options.idempotent else 1,
            delivery_timeout=options.delivery_timeout,
            seed=seed,
        )
        return PartitionQueue(settings)

    def _look(self) -> None:
        # Taken back first: what is announced from now on wakes again.
        self._is_woken = False
        hurries = self._gathering.hurries()
        if hurries != self._hurries:
            # Every batch may have become due.
            self._hurries = hurries
            for sender in self._senders:
                if sender.lane.open is not None or sender.lane.full:
                    self._pump(sender)
        while self._lanes.announced:
            self._pump(self._senders[self._lanes.announced.popleft().partition])

    def _pump(self, sender: LaneSender) -> None:
        """Does everything for one partition that can be done now."""
        now = self._loop.time()
        self._take_full(sender)
        self._take_overdue(sender, now)
        sender.queue.tick(now, self._resolved)
        while True:
            self._send_ready(sender, now)
            if not self._take_due(sender, now) and not self._follow_map(sender, now):
                break
        self._finish()
        self._set_timer(sender, now)

    def _take_full(self, sender: LaneSender) -> None:
        """Full batches enter the queue whether or not they can be sent, so that their deadlines count."""
        sender.lane.is_announced = False
        while True:
            full = sender.lane.take_full()
            if full is None:
                return
            self._enqueue(sender, full)

    def _take_overdue(self, sender: LaneSender, now: float) -> None:
        """A batch whose delivery has taken too long before it could even leave enters the queue, to fail there."""
        opened = sender.lane.open
        if opened is not None and opened.opened_at + self._options.delivery_timeout <= now:
            batch, _ = sender.lane.take_due(lambda batch: batch is opened)
            if batch is not None:
                self._enqueue(sender, batch)

    def _take_due(self, sender: LaneSender, now: float) -> bool:
        """The batch that is being filled leaves when it would be sent at once and need not linger. While the queue can
        not send, it rather goes on filling."""
        if sender.is_parked or not sender.queue.would_send():
            return False
        is_idle = self._options.send_when_idle and sender.queue.is_empty()

        def is_due(batch: OpenBatch) -> bool:
            lingered = now - batch.opened_at >= self._options.linger
            return is_idle or lingered or not self._gathering.may_linger(batch)

        batch, is_answered = sender.lane.take_due(is_due)
        if not is_answered:
            self._set_timer_at(sender, now + _BUSY_PAUSE)
            return False
        if batch is None:
            return False
        self._lanes.sticky.batch_left(sender.lane.partition, batch.body_bytes(), now)
        self._enqueue(sender, batch)
        return True

    def _enqueue(self, sender: LaneSender, opened: OpenBatch) -> None:
        self._gathering.memory.give_back(opened.room)
        batch = _left(opened)
        deadline = opened.opened_at + self._options.delivery_timeout
        key = sender.queue.push(batch, batch.record_count, deadline)
        topic_id, partition = self._lanes.topic.topic, sender.lane.partition
        if is_slow_to_seal(opened, self._options):
            # Off the loop, which others need; their order is the queue's.
            self._run(self._seal_elsewhere(sender, key, opened, topic_id))
        else:
            batch.sealed = seal(opened, topic_id, partition, self._options)

    async def _seal_elsewhere(self, sender: LaneSender, key: int, opened: OpenBatch, topic_id: int) -> None:
        sealing = partial(seal, opened, topic_id, sender.lane.partition, self._options)
        sealed = await self._loop.run_in_executor(None, sealing)
        batch = sender.queue.get(key)
        if batch is not None:
            batch.sealed = sealed
        self._pump(sender)

    def _send_ready(self, sender: LaneSender, now: float) -> None:
        """Sends what the queue wants to be sent."""
        while not sender.is_parked:
            attempt = sender.queue.next_to_send()
            batch = sender.queue.get(attempt.key) if attempt is not None else None
            if attempt is None or batch is None or batch.sealed is None:
                return
            cluster_map = self._cluster.maps.current
            sender.map_version = cluster_map.version
            sent = self._dispatcher.try_send(cluster_map, sender.lane.partition, attempt, batch.sealed, now)
            if isinstance(sent, MiniKafkaError):
                sender.queue.could_not_send(now, sent, self._resolved)
                return
            if isinstance(sent, str):
                sender.is_parked = True
                self._parked.setdefault(sent, []).append(sender)
                return
            if attempt.number > 1:
                self._cluster.counters.batches_retried += 1
            sender.queue.sent(attempt)

    def _answered(self, flight: Flight, outcome: Outcome) -> None:
        sender = self._senders[flight.partition]
        sender.queue.answered(self._loop.time(), flight.attempt, outcome, self._resolved)
        self._pump(sender)

    def _reachable(self, address: str, error: MiniKafkaError | None) -> None:
        """An address can take requests again, or can not be reached."""
        for sender in self._parked.pop(address, []):
            sender.is_parked = False
            if error is not None:
                sender.queue.could_not_send(self._loop.time(), error, self._resolved)
            self._pump(sender)

    def _follow_map(self, sender: LaneSender, now: float) -> bool:
        """Refreshes the map when the queue asks for it; true when somebody has done so since its last attempt."""
        if not sender.queue.take_map_wish():
            return False
        if self._cluster.maps.current.version > sender.map_version:
            sender.queue.map_refreshed(now, self._resolved)
            return True
        sender.waits_for_map = True
        if not self._is_refreshing:
            self._is_refreshing = True
            self._run(self._refresh_map(sender.map_version))
        return False

    async def _refresh_map(self, seen: int) -> None:
        await self._cluster.map_after(seen)
        self._is_refreshing = False
        for sender in self._senders:
            if sender.waits_for_map:
                sender.waits_for_map = False
                sender.queue.map_refreshed(self._loop.time(), self._resolved)
                self._pump(sender)

    def _finish(self) -> None:
        """Completes what the queues have resolved."""
        resolved, self._resolved = self._resolved, []
        for done in resolved:
            self._resolve(done.payload, done.outcome)

    def _resolve(self, batch: _Batch, outcome: Outcome) -> None:
        counters = self._cluster.counters
        error = outcome if isinstance(outcome, MiniKafkaError) else None
        if error is not None:
            counters.records_failed += batch.record_count
        else:
            counters.batches_sent += 1
            counters.records_sent += batch.record_count
            counters.bytes_sent += len(batch.sealed.body) if batch.sealed is not None else 0
        # Completed first: who is told of the end of a flush finds every delivery done.
        batch.completion.complete(outcome)
        self._gathering.memory.give_back(batch.charged_bytes)
        self._gathering.unresolved.resolve(batch.ticket, error)

    def _set_timer(self, sender: LaneSender, now: float) -> None:
        times = [sender.queue.wake_at()]
        opened = sender.lane.open
        if opened is not None:
            times.append(opened.opened_at + self._options.delivery_timeout)
            if not sender.is_parked and sender.queue.would_send():
                # A batch that has lingered and could not be sent waits for the queue, not for time.
                times.append(opened.opened_at + self._options.linger)
        at = min((time for time in times if time is not None), default=None)
        if at is not None:
            self._set_timer_at(sender, max(at, now + _BUSY_PAUSE))

    def _set_timer_at(self, sender: LaneSender, at: float) -> None:
        """A timer that is early only looks, so one is armed anew only to be earlier."""
        if sender.timer is not None:
            if sender.timer.when() <= at:
                return
            sender.timer.cancel()
        sender.timer = self._loop.call_at(at, self._timer_fired, sender)

    def _timer_fired(self, sender: LaneSender) -> None:
        sender.timer = None
        self._pump(sender)

    def _run(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _left(opened: OpenBatch) -> _Batch:
    charged_bytes = opened.charged_bytes - opened.room
    return _Batch(opened.completion, opened.ticket, charged_bytes, opened.record_count)
