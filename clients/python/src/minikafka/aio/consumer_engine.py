"""What both consumers are made of: the reading, which the application's thread may use, and on the loop a fetcher, and
a membership if there is a group."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Union

from ..protocol.errors import InvalidOptionError, NoSuchPartitionError
from ..protocol.messages.data import QUERY_LATEST, QUERY_TIME, PartitionKey
from ..protocol.messages.topics import TopicDescription
from ..protocol.names import check_group_name
from ..protocol.options import ConsumerOptions, GroupOptions, StartAt, TopicPartition
from ..protocol.reading import Reading
from .cluster import Cluster
from .fetcher import Fetcher
from .membership import Invoke, Membership
from .partition_requests import check_partitions, list_offsets

#: A partition by its number, where one topic is read; or by topic and number.
PartitionArgument = Union[int, TopicPartition]


@dataclass(frozen=True)
class ReadingPlan:
    """What a consumer was asked to read, as its client's ``consumer`` describes it."""

    topics: Union[str, Sequence[str]]
    group: str | None
    start: StartAt
    partitions: Sequence[int] | None
    options: ConsumerOptions
    membership: GroupOptions

    def check(self) -> None:
        """:raises InvalidOptionError: the arguments do not go together."""
        if not self.topics:
            raise InvalidOptionError("topics", "name at least one")
        is_one = isinstance(self.topics, str) or len(self.topics) == 1
        if self.group is not None:
            check_group_name(self.group)
            if self.start not in ("earliest", "latest", "error"):
                reason = "in a group it is earliest, latest or error, for partitions without a committed offset"
                raise InvalidOptionError("start", reason)
            if self.partitions is not None or self.options.start_offsets:
                raise InvalidOptionError("partitions", "in a group, the servers say who reads what")
            return
        if self.start == "error":
            raise InvalidOptionError("start", "'error' is for groups, whose partitions may have no committed offset")
        if (self.partitions is not None or self.options.start_offsets) and not is_one:
            raise InvalidOptionError("partitions", "partitions and start_offsets need one topic")
        if self.partitions is not None and not self.partitions:
            raise InvalidOptionError("partitions", "name at least one, or leave them out for all")


class ConsumerEngine:
    """A consumer without its face. Made and closed on the client's loop."""

    def __init__(self, cluster: Cluster, plan: ReadingPlan, topics: Sequence[TopicDescription]) -> None:
        self._cluster = cluster
        self._topics = {topic.name: topic for topic in topics}
        self._names = {topic.topic: topic.name for topic in topics}
        self.reading = Reading(
            plan.options,
            secrets.randbits(64),
            is_grouped=plan.group is not None,
            is_automatic=plan.membership.handled == "automatic",
        )
        self._fetcher = Fetcher(cluster, self.reading)
        self._membership: Membership | None = None
        cluster.opened.append(self)

    @classmethod
    async def open(cls, cluster: Cluster, plan: ReadingPlan, invoke: Invoke) -> ConsumerEngine:
        """Begins to read, or to join.

        :raises MiniKafkaError: a topic that does not exist, a start that can not be found out, …
        """
        plan.check()
        names = [plan.topics] if isinstance(plan.topics, str) else list(dict.fromkeys(plan.topics))
        topics = await asyncio.gather(*[cluster.topic(name) for name in names])
        if plan.group is not None:
            engine = cls(cluster, plan, topics)
            engine._membership = Membership(
                cluster, plan.group, topics, engine.reading, plan.membership, plan.start, invoke
            )
            return engine
        starts = await asyncio.gather(*[_starts(cluster, topic, plan) for topic in topics])
        engine = cls(cluster, plan, topics)
        for topic, positions in zip(topics, starts):
            for partition, (position, is_starting) in positions.items():
                engine.reading.assign(topic, partition, position, is_starting=is_starting)
        return engine

    @property
    def topics(self) -> list[str]:
        """The topics that are read."""
        return list(self._topics)

    def key(self, partition: PartitionArgument) -> PartitionKey:
        """The partition that is meant.

        :raises NoSuchPartitionError: there is none.
        """
        if isinstance(partition, TopicPartition):
            name, number = partition
        elif len(self._topics) == 1:
            name, number = next(iter(self._topics)), partition
        else:
            raise InvalidOptionError(
                "partition", "this consumer reads several topics: name it TopicPartition(topic, number)"
            )
        topic = self._topics.get(name)
        if topic is None:
            raise NoSuchPartitionError(name, number, "this consumer does not read the topic")
        check_partitions(topic, [number])
        return PartitionKey(topic.topic, number)

    def keys(self, partitions: Iterable[PartitionArgument]) -> list[PartitionKey]:
        """The partitions that are meant."""
        return [self.key(partition) for partition in partitions]

    def name(self, key: PartitionKey) -> TopicPartition:
        """A partition, as applications name it."""
        return TopicPartition(self._names[key.topic], key.partition)

    def assignment(self) -> list[TopicPartition]:
        """The partitions that are read now."""
        return sorted(map(self.name, self.reading.partitions()))

    def positions(self) -> dict[TopicPartition, int]:
        """For every partition that is read now, the offset of the record that comes next."""
        positions = {self.name(key): self.reading.position(key) for key in self.reading.partitions()}
        return {partition: position for partition, position in sorted(positions.items()) if position is not None}

    def seek(self, partition: PartitionArgument, offset: int) -> None:
        """Goes on at ``offset``.

        :raises NoSuchPartitionError: it is not read here now.
        """
        key = self.key(partition)
        if not self.reading.seek(key, offset):
            raise NoSuchPartitionError(*self.name(key), "this consumer does not read it now")

    async def seek_to_time(self, time: datetime) -> None:
        """Goes on, in every partition that is read now, at the first batch appended at or after a time."""
        timestamp = timestamp_ms(time)
        for name, topic in self._topics.items():
            read = [key.partition for key in self.reading.partitions() if self._names[key.topic] == name]
            for partition, offset in (await list_offsets(self._cluster, topic, read, QUERY_TIME, timestamp)).items():
                self.reading.seek(PartitionKey(topic.topic, partition), offset)

    async def commit(self) -> None:
        """Commits what was handled.

        :raises InvalidOptionError: there is no group.
        """
        if self._membership is None:
            raise InvalidOptionError("group", "this consumer has no group, so there is nothing to commit")
        await self._membership.commit()

    async def close(self, *, for_good: bool = False) -> None:
        """Reads nothing any more, commits and leaves."""
        if self.reading.is_closed:
            return
        self._cluster.opened.remove(self)
        self.reading.close()
        try:
            if self._membership is not None:
                await self._membership.close(for_good=for_good)
        finally:
            await self._fetcher.close()


def timestamp_ms(time: datetime) -> int:
    """Milliseconds since the Unix epoch.

    :raises InvalidOptionError: the time has no time zone, so it could be any of many.
    """
    if time.tzinfo is None:
        raise InvalidOptionError("time", f"{time} has no time zone: use datetime(…, tzinfo=timezone.utc)")
    return int(time.timestamp() * 1000)


async def _starts(cluster: Cluster, topic: TopicDescription, plan: ReadingPlan) -> dict[int, tuple[int, bool]]:
    """Where each partition begins; true: or where its log begins. "Earliest" asks nobody: it begins at 0, and the
    shards say where that is."""
    wanted = sorted(set(plan.partitions if plan.partitions is not None else range(topic.partitions)))
    offsets = plan.options.start_offsets
    check_partitions(topic, [*wanted, *offsets])
    starts = {partition: (offset, False) for partition, offset in offsets.items() if partition in wanted}
    missing = [partition for partition in wanted if partition not in offsets]
    if plan.start == "earliest":
        starts.update((partition, (0, True)) for partition in missing)
    elif isinstance(plan.start, int):
        starts.update((partition, (plan.start, False)) for partition in missing)
    else:
        is_time = isinstance(plan.start, datetime)
        timestamp = timestamp_ms(plan.start) if isinstance(plan.start, datetime) else 0
        found = await list_offsets(cluster, topic, missing, QUERY_TIME if is_time else QUERY_LATEST, timestamp)
        starts.update((partition, (offset, False)) for partition, offset in found.items())
    return dict(sorted(starts.items()))
