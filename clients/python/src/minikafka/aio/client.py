"""The asyncio client: where an application begins."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Union

from ..protocol.counters import Counters
from ..protocol.errors import broker_error
from ..protocol.messages.data import QUERY_EARLIEST, QUERY_LATEST, QUERY_TIME
from ..protocol.messages.topics import TopicConfig, TopicConfigChange
from ..protocol.options import (
    ClientOptions,
    ConsumerOptions,
    GroupOptions,
    ProducerOptions,
    RebalanceCallback,
    StartAt,
    TopicPartition,
)
from . import coordinator, partition_requests, topics
from .cluster import Cluster
from .consumer import Consumer
from .consumer_engine import ConsumerEngine, ReadingPlan, timestamp_ms
from .producer import Delivery, Producer
from .producer_engine import ProducerEngine
from .topics import Topic

#: One gateway or several, each ``host:port``.
Gateways = Union[str, Iterable[str]]


class Client:
    """A handle on one cluster: holds the map and the connections that its producers and consumers share.

    It belongs to the event loop that it is used on. Calls raise :class:`MiniKafkaError`; those about topics, offsets
    and groups retry what is worth it, for at most ``ClientOptions.request_timeout`` (30 s).

    :param gateways: one ``host:port`` or several; any of them will do. Nothing is sent before the first call.
    :param options: settings, see :class:`ClientOptions`.
    """

    def __init__(self, gateways: Gateways, options: ClientOptions | None = None) -> None:
        self._cluster = Cluster(addresses(gateways), options or ClientOptions())

    @classmethod
    def of(cls, cluster: Cluster) -> Client:
        """The client of a cluster that is there already: what the synchronous client stands on."""
        client = cls("")
        client._cluster = cluster  # its own
        return client

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def producer(self, options: ProducerOptions | None = None) -> Producer:
        """A producer for any topics; use it as an async context manager, or close it.

        :raises InvalidOptionError: the extra of its compression is not installed.
        """
        self._cluster.refuse_when_closed()
        return Producer(ProducerEngine(self._cluster, options or ProducerOptions(), Delivery))

    async def consumer(
        self,
        topics: Union[str, Sequence[str]],
        *,
        group: str | None = None,
        start: StartAt = "earliest",
        partitions: Sequence[int] | None = None,
        options: ConsumerOptions | None = None,
        membership: GroupOptions | None = None,
    ) -> Consumer:
        """A consumer of one topic or several; use it as an async context manager, or close it.

        :param group: the group that it joins; None: it reads for itself, all partitions or those of ``partitions``.
        :param start: where it begins; in a group, where it begins in partitions without a committed offset.
        :param partitions: some partitions of one topic, without a group.
        :param options: settings of the reading.
        :param membership: settings of the membership in the group.
        :raises UnknownTopicError: a topic that does not exist, and that the cluster does not create by itself.
        """
        self._cluster.refuse_when_closed()
        plan = ReadingPlan(topics, group, start, partitions, options or ConsumerOptions(), membership or GroupOptions())
        return Consumer(await ConsumerEngine.open(self._cluster, plan, _invoke))

    async def create_topic(
        self, name: str, *, partitions: int = 0, replication: int = 0, config: TopicConfig | None = None
    ) -> Topic:
        """Creates a topic and returns once every partition is open.

        :param partitions: at most 10,000; 0: the server's default.
        :param replication: copies of each record; 0: the cluster's default.
        :raises TopicExistsError: a topic of this name exists.
        """
        created = await topics.create_topic(self._cluster, name, partitions, replication, config or TopicConfig())
        return Topic.of(created)

    async def describe_topic(self, name: str) -> Topic:
        """A topic by name.

        :raises UnknownTopicError: there is none.
        """
        (topic,) = await topics.describe_topics(self._cluster, [name])
        if topic.error is not None:
            raise broker_error(topic.error, f"topic {name}")
        return Topic.of(topic)

    async def list_topics(self) -> list[Topic]:
        """Every topic of the cluster, ordered by name."""
        return [Topic.of(topic) for topic in await topics.list_topics(self._cluster) if topic.error is None]

    async def alter_topic(self, name: str, change: TopicConfigChange) -> Topic:
        """Changes settings of a topic and returns once every partition has them.

        Producers that run already keep to the batch size that they began with; a smaller one refuses their larger
        batches.
        """
        return Topic.of(await topics.alter_topic(self._cluster, name, change))

    async def delete_topic(self, name: str) -> None:
        """Deletes a topic with all its records and returns once none of them can be read any more."""
        await topics.delete_topic(self._cluster, name)

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> dict[int, int]:
        """Deletes the records of partitions below an offset each; one beyond the end means the end.

        Returns, once it is committed, the first offset that is left in each. Repeating it does no harm.
        """
        return await partition_requests.delete_records(self._cluster, await self._cluster.topic(topic), before)

    async def earliest_offsets(self, topic: str) -> dict[int, int]:
        """The first offset that can be read, for every partition."""
        return await self._offsets(topic, QUERY_EARLIEST, 0)

    async def latest_offsets(self, topic: str) -> dict[int, int]:
        """The offset behind the last committed record, for every partition."""
        return await self._offsets(topic, QUERY_LATEST, 0)

    async def offsets_at(self, topic: str, time: datetime) -> dict[int, int]:
        """For every partition, the first offset of the first batch appended at or after a time (with a time zone);
        where there is none, the latest."""
        return await self._offsets(topic, QUERY_TIME, timestamp_ms(time))

    async def list_groups(self) -> dict[str, str]:
        """Every consumer group, with its state: ``empty``, ``stable`` or ``rebalancing``."""
        self._cluster.refuse_when_closed()
        return await coordinator.names(self._cluster)

    async def describe_group(self, group: str) -> coordinator.Group:
        """Who is in a group, and who has what.

        :raises BrokerError: ``unknown_group``.
        """
        self._cluster.refuse_when_closed()
        return await coordinator.describe(self._cluster, group)

    async def group_offsets(self, group: str, topic: str) -> dict[int, int]:
        """Where a group goes on, in the partitions of a topic of which it has committed something."""
        description = await self._cluster.topic(topic)
        offsets = await coordinator.offsets(self._cluster, group)
        return {key.partition: offset for key, offset in sorted(offsets.items()) if key.topic == description.topic}

    async def delete_group(self, group: str) -> None:
        """Deletes a group without members, commits included.

        :raises BrokerError: ``group_not_empty``, ``unknown_group``.
        """
        self._cluster.refuse_when_closed()
        await coordinator.delete(self._cluster, group)

    def counters(self) -> Counters:
        """What this client has done so far."""
        return self._cluster.counters.snapshot()

    async def close(self) -> None:
        """Flushes producers, leaves groups, ends connections. Afterwards everything answers "closed".

        :raises MiniKafkaError: the first failure of a record that no flush has told yet.
        """
        await self._cluster.close()

    async def _offsets(self, topic: str, kind: int, timestamp: int) -> dict[int, int]:
        description = await self._cluster.topic(topic)
        partitions = range(description.partitions)
        return await partition_requests.list_offsets(self._cluster, description, partitions, kind, timestamp)


def addresses(gateways: Gateways) -> list[str]:
    """The gateways, however they are given."""
    return [gateways] if isinstance(gateways, str) else list(gateways)


async def _invoke(callback: RebalanceCallback, partitions: list[TopicPartition]) -> None:
    outcome = callback(partitions)
    if inspect.isawaitable(outcome):
        await outcome
