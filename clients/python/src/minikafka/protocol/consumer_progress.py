"""How far each partition has been fetched and read: what to ask which shard, and what an answer means.

Pure and synchronous: time, the map and answers come in; requests and batches come out. A partition is in at most one
request. What waits for the application is bounded: requests reserve their share of the prefetch memory before they
leave. Every failure is followed by a back-off, and so is an answer without data that came at once: nothing spins.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from . import backoff, limits
from .cluster_map import Addressed, ClusterMap, RangeMember
from .error_code import ErrorCode
from .errors import MiniKafkaError
from .fetched_entries import FetchedEntry
from .messages.data import FetchedPartition, FetchPartition, FetchRequest, PartitionKey
from .options import ConsumerOptions
from .partition_progress import ASK, Outcome, PartitionAnswer, PartitionProgress, Skipped, back_off
from .randomness import Randomness

_log = logging.getLogger("minikafka")

#: Requests in flight to one shard for partitions that are behind; and as many that wait for data: one, and others for
#: partitions that were not in it.
FETCHES_PER_SHARD_MAX: Final = 4
#: With less memory than this, nothing is asked for.
FETCH_BYTES_MIN: Final = 32 << 10
#: More than this is asked for by several requests, so that one answer is made while another one is received; a
#: partition's own limit may be more.
FETCH_BYTES_MAX: Final = 2 << 20
#: Stretches of damaged records that are remembered.
SKIPPED_MAX: Final = 1024
#: "At once", in seconds, whatever the shard was asked to wait.
AT_ONCE: Final = 0.005


class Asked(NamedTuple):
    """One partition of a request: an answer counts only while the partition is still in the same generation."""

    progress: PartitionProgress
    generation: int
    position: int
    member: RangeMember
    epoch: int

    @property
    def is_current(self) -> bool:
        """Whether the answer still counts."""
        return self.generation == self.progress.generation and not self.progress.is_removed


#: A partition, who is asked, and what.
_Question = tuple[PartitionProgress, RangeMember, FetchPartition]


class ShardFetch(NamedTuple):
    """A request to one shard; the partitions are in the order of the request."""

    address: str
    request: FetchRequest
    asked: list[Asked]
    map_version: int
    #: Whether some of it is certainly there, so that the shard does not wait.
    is_behind: bool = False
    #: Whether to ask where the time goes.
    explain: bool = False

    def addressed(self) -> list[Addressed]:
        """What the request was addressed by."""
        return [Addressed(self.address, asked.range, asked.epoch) for asked in self.request.partitions]


class Taken(NamedTuple):
    """Something for the application."""

    progress: PartitionProgress
    entry: FetchedEntry
    position: int


class Progress:
    """See the module's description. Times are seconds."""

    def __init__(self, options: ConsumerOptions, seed: int) -> None:
        self._options = options
        self._randomness = Randomness(seed)
        self._partitions: dict[PartitionKey, PartitionProgress] = {}
        #: Partitions that are in no request, the longest waiting first.
        self._idle: deque[PartitionProgress] = deque()
        #: Partitions with something for the application, each once.
        self._ready: deque[PartitionProgress] = deque()
        self.buffered_bytes = 0
        self.reserved_bytes = 0
        #: Whether nothing was asked for because there is no memory for it.
        self._lacks_room = False
        #: Requests by address, and whether they are for something that is certainly there.
        self._in_flight: Counter[tuple[str, bool]] = Counter()
        #: The newest map that has turned out to be out of date.
        self._outdated_map: int | None = None
        #: Answers with records, by node; bounded by the nodes of the cluster.
        self.fetches_by_node: Counter[int] = Counter()
        #: What was left out, the oldest first.
        self.skipped: deque[Skipped] = deque(maxlen=SKIPPED_MAX)

    def add(self, progress: PartitionProgress) -> None:
        """Reads this partition, too."""
        assert progress.key not in self._partitions, f"{progress.target} is read already"
        self._partitions[progress.key] = progress
        self._idle.append(progress)

    def remove(self, key: PartitionKey) -> None:
        """Does not read this partition any more."""
        progress = self._partitions.pop(key)
        progress.is_removed = True
        self.buffered_bytes -= progress.buffered_bytes
        progress.restart(progress.position)

    def get(self, key: PartitionKey) -> PartitionProgress | None:
        """A partition that is read here."""
        return self._partitions.get(key)

    def partitions(self) -> Iterable[PartitionProgress]:
        """All that are read here."""
        return self._partitions.values()

    def plan(self, now: float, cluster: ClusterMap) -> list[ShardFetch]:
        """The requests to be made now."""
        room = self._options.prefetch_bytes - self.buffered_bytes - self.reserved_bytes
        self._lacks_room = room < FETCH_BYTES_MIN
        if self._lacks_room:
            return []
        shards: dict[str, list[_Question]] = {}
        idle, self._idle = self._idle, deque()
        for progress in idle:
            if progress.is_removed:
                continue
            question = self._question(progress, now, cluster)
            if question is None:
                self._idle.append(progress)
            else:
                shards.setdefault(question[0].address, []).append((progress, *question))
        requests = [(address, half) for address, asked in shards.items() for half in _halves(asked)]
        share = min(room // max(len(requests), 1), max(FETCH_BYTES_MAX, self._options.partition_fetch_bytes))
        return [self._fetch(address, asked, share, cluster.version) for address, asked in requests]

    def wake_at(self, now: float) -> float | None:
        """When :meth:`plan` has something to do, if nothing else happens before."""
        waiting = (
            progress.retry_at
            for progress in self._idle
            if progress.retry_at is not None and progress.failed is None and not progress.is_still
        )
        return min((at for at in waiting if at > now), default=None)

    def take_map_wish(self) -> int | None:
        """A map newer than this version is needed; said once per failure."""
        wish, self._outdated_map = self._outdated_map, None
        return wish

    def absorb(
        self,
        now: float,
        sent_at: float,
        fetch: ShardFetch,
        answer: Sequence[PartitionAnswer] | MiniKafkaError,
    ) -> None:
        """An answer has come, or none will. ``sent_at`` is when its request left."""
        self.reserved_bytes -= fetch.request.bytes_max
        kind = (fetch.address, fetch.is_behind)
        self._in_flight[kind] -= 1
        if not self._in_flight[kind]:
            del self._in_flight[kind]
        if isinstance(answer, MiniKafkaError):
            for asked in fetch.asked:
                if asked.is_current:
                    if asked.progress.members.failed(now, asked.member.node, is_head=asked.member.is_head):
                        _log.debug("records are read elsewhere for a while than at %s: %s", fetch.address, answer)
                    self._conclude(asked.progress, now, fetch.map_version, asked.progress.take_failure(answer))
            return
        came_at_once = now - sent_at < max(self._options.fetch_wait / 2, AT_ONCE)
        is_empty = all(part.fetched.error is None and not part.entries for part in answer)
        served = next((asked.member.node for asked, part in zip(fetch.asked, answer) if part.entries), None)
        if served is not None:
            self.fetches_by_node[served] += 1
        for asked, part in _with_nothing_first(fetch.asked, answer):
            if asked.is_current:
                outcome = self._turn_away(now, asked, part.fetched)
                if outcome is None:
                    outcome = self._take_answer(asked.progress, part, is_suspicious=is_empty and came_at_once)
                self._conclude(asked.progress, now, fetch.map_version, outcome)

    def take(self) -> Taken | MiniKafkaError | None:
        """The next batch for the application, partitions taking turns; or the next failure, told once. None:
        nothing."""
        while self._ready:
            progress = self._ready.popleft()
            progress.is_ready = False
            if progress.is_still or progress.is_removed:
                continue
            if progress.batches:
                return self._take_batch(progress)
            if progress.failed is not None and not progress.failure_was_told:
                progress.failure_was_told = True
                return progress.failed
        # Nothing can come any more: better told again than waited for in vain.
        active = [progress for progress in self._partitions.values() if not progress.is_still]
        return active[-1].failed if active and all(progress.failed is not None for progress in active) else None

    def may_fetch(self, taken: Taken) -> bool:
        """Whether more can be fetched now that the application has taken this."""
        return bool(self._idle) if self._lacks_room else taken.progress.is_idle and self._has_room(taken.progress)

    def fail(self, progress: PartitionProgress, position: int, error: MiniKafkaError) -> None:
        """A batch turned out to be unreadable: its partition goes back and stands still."""
        self._restart(progress, position)
        progress.failed, progress.failure_was_told = error, True

    def seek(self, key: PartitionKey, position: int) -> bool:
        """The application goes on at ``position``. False: the partition is not read here."""
        progress = self._partitions.get(key)
        if progress is not None:
            self._restart(progress, position)
        return progress is not None

    def put_back(self, progress: PartitionProgress, entry: FetchedEntry, position: int) -> None:
        """Puts back what was taken and not read."""
        progress.position = position
        progress.buffered_bytes += entry.buffered_bytes
        self.buffered_bytes += entry.buffered_bytes
        progress.batches.appendleft(entry)
        self._announce(progress)

    def set_paused(self, keys: Iterable[PartitionKey], is_paused: bool) -> None:
        """Hands out nothing of these partitions, or does again. Those that are not read here do not matter."""
        for key in keys:
            progress = self._partitions.get(key)
            if progress is not None:
                progress.is_paused = is_paused
                self._announce(progress)

    def begin(self, keys: Iterable[PartitionKey]) -> None:
        """Hands out records of partitions that were held, unless their user paused them meanwhile."""
        for key in keys:
            progress = self._partitions.get(key)
            if progress is not None:
                progress.is_held = False
                self._announce(progress)

    def _question(
        self, progress: PartitionProgress, now: float, cluster: ClusterMap
    ) -> tuple[RangeMember, FetchPartition] | None:
        """Whom to ask what about a partition, if it is time to."""
        is_due = progress.retry_at is None or progress.retry_at <= now
        if progress.is_still or progress.failed is not None or not is_due or not self._has_room(progress):
            return None
        range_key = (
            progress.elsewhere[0] if progress.elsewhere else cluster.range_of(progress.topic, progress.partition)
        )
        member = None
        if range_key is not None:
            read_from = self._options.read_from
            member = progress.members.choose(now, read_from, cluster, range_key, progress.partition)
        if range_key is None or member is None:
            self._wish_map(cluster.version)
            self._back_off(progress, now, needs_map=True, server_asks=0.0)
            return None
        if self._in_flight[member.address, progress.is_behind] >= FETCHES_PER_SHARD_MAX:
            return None
        epoch = cluster.epoch_of(range_key)
        room = self._options.partition_fetch_bytes - progress.buffered_bytes
        return member, FetchPartition(range_key, epoch, progress.key, progress.fetch_from, room)

    def _has_room(self, progress: PartitionProgress) -> bool:
        return progress.buffered_bytes < self._options.partition_fetch_bytes

    def _fetch(
        self,
        address: str,
        asked: list[_Question],
        bytes_max: int,
        map_version: int,
    ) -> ShardFetch:
        # What does not fit in one request waits for the next turn.
        self._idle.extend(progress for progress, _, _ in asked[limits.REQUEST_PARTITIONS_MAX :])
        asked = asked[: limits.REQUEST_PARTITIONS_MAX]
        for progress, _, _ in asked:
            progress.is_idle = False
        # Reserved is what can come, so that requests that wait at the end leave the others their memory.
        bytes_max = min(bytes_max, sum(question.bytes_max for _, _, question in asked))
        self.reserved_bytes += bytes_max
        is_behind = any(progress.is_behind for progress, _, _ in asked)
        self._in_flight[address, is_behind] += 1
        request = FetchRequest(
            wait_ms_max=int(self._options.fetch_wait * 1000),
            bytes_min=max(self._options.fetch_bytes_min, 1),
            bytes_max=bytes_max,
            partitions=[question for _, _, question in asked],
        )
        questions = [
            Asked(progress, progress.generation, question.offset, member, question.epoch)
            for progress, member, question in asked
        ]
        return ShardFetch(address, request, questions, map_version, is_behind, self._options.explain)

    def _turn_away(self, now: float, asked: Asked, fetched: FetchedPartition) -> Outcome | None:
        """What a member behind the head can not serve is asked of others: another one at once, or the same one
        again."""
        members, member, code = asked.progress.members, asked.member, fetched.error
        if code is None:
            members.served()
            return None
        if member.is_head:
            return None
        if code is ErrorCode.STALE and fetched.epoch > asked.epoch:
            # The map is out of date, not the member.
            goes_elsewhere = False
        elif code is ErrorCode.BEYOND_COMMITTED:
            goes_elsewhere = members.lags(now, member.node, is_head=False)
        elif code.retriable or code in (ErrorCode.OFFSET_OUT_OF_RANGE, ErrorCode.DATA_DAMAGED):
            # Also where a log begins and ends is the head's to say.
            goes_elsewhere = members.failed(now, member.node, is_head=False)
        else:
            return None
        needs_map = code in (ErrorCode.STALE, ErrorCode.NOT_OWNER)
        return Outcome("ask", needs_map) if goes_elsewhere else back_off(needs_map=needs_map)

    def _take_answer(self, progress: PartitionProgress, part: PartitionAnswer, *, is_suspicious: bool) -> Outcome:
        code = part.fetched.error
        if code is ErrorCode.DATA_DAMAGED:
            outcome, skipped = progress.take_damaged_records(part.fetched, skips=self._options.on_damage == "skip")
            if skipped is not None:
                self.skipped.append(skipped)
            return outcome
        if code is not None:
            return progress.take_error(code, part.fetched, self._options.out_of_range)
        before = progress.buffered_bytes
        progress.take_entries(part)
        self.buffered_bytes += progress.buffered_bytes - before
        if part.damage is not None:
            return progress.take_damage(part.damage)
        return progress.pause_after_empty_answer(came_at_once=is_suspicious) or ASK

    def _conclude(self, progress: PartitionProgress, now: float, map_version: int, outcome: Outcome) -> None:
        if outcome.needs_map:
            self._wish_map(map_version)
        if outcome.kind == "fail":
            progress.failed = outcome.error
        elif outcome.kind == "back-off":
            self._back_off(progress, now, needs_map=outcome.needs_map, server_asks=outcome.server_asks)
        else:
            progress.retry_at = None
        progress.is_idle = True
        self._idle.append(progress)
        self._announce(progress)

    def _take_batch(self, progress: PartitionProgress) -> Taken:
        entry = progress.batches.popleft()
        progress.buffered_bytes -= entry.buffered_bytes
        self.buffered_bytes -= entry.buffered_bytes
        position = progress.position
        progress.position = max(position, entry.header.next_offset)
        if not progress.batches:
            # Behind it may be records that were skipped.
            progress.position = max(progress.position, progress.fetch_from)
        self._announce(progress)
        return Taken(progress, entry, position)

    def _restart(self, progress: PartitionProgress, position: int) -> None:
        self.buffered_bytes -= progress.buffered_bytes
        progress.restart(position)
        # A request that is under way for the old position no longer counts, so the partition is free for a new one.
        if not progress.is_idle:
            progress.is_idle = True
            self._idle.appendleft(progress)

    def _back_off(self, progress: PartitionProgress, now: float, *, needs_map: bool, server_asks: float) -> None:
        progress.failures += 1
        jitter = self._randomness.fraction()
        wait = backoff.wait_of(progress.failures, jitter, needs_map=needs_map, server_asks=server_asks)
        progress.retry_at = now + wait

    def _wish_map(self, version: int) -> None:
        self._outdated_map = version if self._outdated_map is None else max(self._outdated_map, version)

    def _announce(self, progress: PartitionProgress) -> None:
        has_something = progress.batches or (progress.failed is not None and not progress.failure_was_told)
        if has_something and not progress.is_ready and not progress.is_still:
            progress.is_ready = True
            self._ready.append(progress)


def _halves(asked: list[_Question]) -> list[list[_Question]]:
    """Partitions that are far behind are asked for in two requests, so that a shard reads for one while the other's
    answer is received; what is at the end waits in one."""
    middle = len(asked) // 2
    is_behind = all(progress.is_behind for progress, _, _ in asked)
    return [asked[:middle], asked[middle:]] if middle and is_behind else [asked]


def _with_nothing_first(
    asked: Sequence[Asked], answer: Sequence[PartitionAnswer]
) -> Iterator[tuple[Asked, PartitionAnswer]]:
    """Who got nothing comes first in the next request."""
    pairs = list(zip(asked, answer))
    yield from (pair for pair in pairs if not pair[1].entries)
    yield from (pair for pair in pairs if pair[1].entries)
