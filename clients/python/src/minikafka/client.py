"""The synchronous client: where an application begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Union

from .aio.client import Client as AioClient
from .aio.client import Gateways, addresses
from .aio.cluster import Cluster
from .aio.consumer_engine import ConsumerEngine, ReadingPlan
from .aio.coordinator import Group
from .aio.producer_engine import ProducerEngine
from .aio.topics import Topic
from .consumer import Consumer
from .loop_thread import LoopThread
from .producer import Delivery, Producer
from .protocol.counters import Counters
from .protocol.messages.topics import TopicConfig, TopicConfigChange
from .protocol.options import ClientOptions, ConsumerOptions, GroupOptions, ProducerOptions, StartAt


class Client:
    """A handle on one cluster: holds the map and the connections that its producers and consumers share.

    Any thread may use it. Calls raise :class:`MiniKafkaError`; those about topics, offsets and groups retry what is
    worth it, for at most ``ClientOptions.request_timeout`` (30 s).

    :param gateways: one ``host:port`` or several; any of them will do. Nothing is sent before the first call.
    :param options: settings, see :class:`ClientOptions`.
    """

    def __init__(self, gateways: Gateways, options: ClientOptions | None = None) -> None:
        self._cluster = Cluster(addresses(gateways), options or ClientOptions())
        #: The gateways, as given.
        self.gateways = addresses(gateways)
        self._aio = AioClient.of(self._cluster)
        self._loop = LoopThread()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def producer(self, options: ProducerOptions | None = None) -> Producer:
        """A producer for any topics; use it as a context manager, or close it.

        :raises InvalidOptionError: the extra of its compression is not installed.
        """
        self._cluster.refuse_when_closed()
        settings = options or ProducerOptions()
        engine = self._loop.call(lambda: ProducerEngine(self._cluster, settings, Delivery))
        return Producer(engine, self._loop)

    def consumer(
        self,
        topics: Union[str, Sequence[str]],
        *,
        group: str | None = None,
        start: StartAt = "earliest",
        partitions: Sequence[int] | None = None,
        options: ConsumerOptions | None = None,
        membership: GroupOptions | None = None,
    ) -> Consumer:
        """A consumer of one topic or several; use it as a context manager, or close it.

        :param group: the group that it joins; None: it reads for itself, all partitions or those of ``partitions``.
        :param start: where it begins; in a group, where it begins in partitions without a committed offset.
        :param partitions: some partitions of one topic, without a group.
        :param options: settings of the reading.
        :param membership: settings of the membership in the group.
        :raises UnknownTopicError: a topic that does not exist, and that the cluster does not create by itself.
        """
        self._cluster.refuse_when_closed()
        plan = ReadingPlan(topics, group, start, partitions, options or ConsumerOptions(), membership or GroupOptions())
        engine = self._loop.run(ConsumerEngine.open(self._cluster, plan, self._loop.call_back))
        return Consumer(engine, self._loop)

    def create_topic(
        self, name: str, *, partitions: int = 0, replication: int = 0, config: TopicConfig | None = None
    ) -> Topic:
        """Creates a topic and returns once every partition is open.

        :param partitions: at most 10,000; 0: the server's default.
        :param replication: copies of each record; 0: the cluster's default.
        :raises TopicExistsError: a topic of this name exists.
        """
        return self._loop.run(
            self._aio.create_topic(name, partitions=partitions, replication=replication, config=config)
        )

    def describe_topic(self, name: str) -> Topic:
        """A topic by name.

        :raises UnknownTopicError: there is none.
        """
        return self._loop.run(self._aio.describe_topic(name))

    def list_topics(self) -> list[Topic]:
        """Every topic of the cluster, ordered by name."""
        return self._loop.run(self._aio.list_topics())

    def alter_topic(self, name: str, change: TopicConfigChange) -> Topic:
        """Changes settings of a topic and returns once every partition has them.

        Producers that run already keep to the batch size that they began with; a smaller one refuses their larger
        batches.
        """
        return self._loop.run(self._aio.alter_topic(name, change))

    def delete_topic(self, name: str) -> None:
        """Deletes a topic with all its records and returns once none of them can be read any more."""
        self._loop.run(self._aio.delete_topic(name))

    def delete_records(self, topic: str, before: Mapping[int, int]) -> dict[int, int]:
        """Deletes the records of partitions below an offset each; one beyond the end means the end.

        Returns, once it is committed, the first offset that is left in each. Repeating it does no harm.
        """
        return self._loop.run(self._aio.delete_records(topic, before))

    def earliest_offsets(self, topic: str) -> dict[int, int]:
        """The first offset that can be read, for every partition."""
        return self._loop.run(self._aio.earliest_offsets(topic))

    def latest_offsets(self, topic: str) -> dict[int, int]:
        """The offset behind the last committed record, for every partition."""
        return self._loop.run(self._aio.latest_offsets(topic))

    def offsets_at(self, topic: str, time: datetime) -> dict[int, int]:
        """For every partition, the first offset of the first batch appended at or after a time (with a time zone);
        where there is none, the latest."""
        return self._loop.run(self._aio.offsets_at(topic, time))

    def list_groups(self) -> dict[str, str]:
        """Every consumer group, with its state: ``empty``, ``stable`` or ``rebalancing``."""
        return self._loop.run(self._aio.list_groups())

    def describe_group(self, group: str) -> Group:
        """Who is in a group, and who has what.

        :raises BrokerError: ``unknown_group``.
        """
        return self._loop.run(self._aio.describe_group(group))

    def group_offsets(self, group: str, topic: str) -> dict[int, int]:
        """Where a group goes on, in the partitions of a topic of which it has committed something."""
        return self._loop.run(self._aio.group_offsets(group, topic))

    def delete_group(self, group: str) -> None:
        """Deletes a group without members, commits included.

        :raises BrokerError: ``group_not_empty``, ``unknown_group``.
        """
        self._loop.run(self._aio.delete_group(group))

    def counters(self) -> Counters:
        """What this client has done so far."""
        return self._cluster.counters.snapshot()

    def close(self) -> None:
        """Flushes producers, leaves groups, ends connections. Afterwards everything answers "closed".

        :raises MiniKafkaError: the first failure of a record that no flush has told yet.
        """
        if not self._cluster.is_closed:
            try:
                self._loop.run(self._cluster.close())
            finally:
                self._loop.stop()
