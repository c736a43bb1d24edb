"""Topics: created, described, listed, altered, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from ..protocol.error_code import ErrorCode
from ..protocol.errors import broker_error
from ..protocol.messages import Api
from ..protocol.messages.hello import Empty
from ..protocol.messages.topics import (
    STATE_NAMES,
    AlterTopicRequest,
    CreateTopicRequest,
    DeleteTopicRequest,
    ResolveReply,
    ResolveRequest,
    TopicConfig,
    TopicConfigChange,
    TopicDescription,
)
from ..protocol.names import check_topic_name
from .cluster import Cluster


@dataclass(frozen=True)
class Topic:
    """A topic as its record says."""

    name: str
    #: Random, never used again: a topic created again under the same name is another one.
    id: int
    partitions: int
    #: ``creating``, ``ready``, ``deleting`` or ``altering``.
    state: str
    config: TopicConfig

    @classmethod
    def of(cls, description: TopicDescription) -> Topic:
        """What a server has told."""
        state = STATE_NAMES[description.state]
        return cls(description.name, description.topic, description.partitions, state, description.config)


async def create_topic(
    cluster: Cluster, name: str, partitions: int, replication: int, config: TopicConfig
) -> TopicDescription:
    """Creates a topic; returns once every partition is open."""
    check_topic_name(name)
    deadline, timeout_ms = _deadline(cluster)
    request = CreateTopicRequest(name, partitions, replication, config, timeout_ms)
    created = await cluster.gateways.ask_controller(Api.CREATE_TOPIC, request, TopicDescription, deadline=deadline)
    topic = created.reply
    if created.error is not None:
        if not created.maybe_done or created.error.code is not ErrorCode.TOPIC_EXISTS:
            raise created.error
        # An earlier attempt, whose answer was lost, may have created it: then it looks as was asked.
        existing = (await describe_topics(cluster, [name]))[0]
        if existing.error is not None or existing.config != config or partitions not in (0, existing.partitions):
            raise created.error
        topic = existing
    return _learned(cluster, topic)


async def alter_topic(cluster: Cluster, name: str, change: TopicConfigChange) -> TopicDescription:
    """Changes settings of a topic; returns once every partition has them."""
    check_topic_name(name)
    deadline, timeout_ms = _deadline(cluster)
    request = AlterTopicRequest(name, change, timeout_ms)
    # Made twice it is as made once, so it does not matter whether an attempt without an answer was carried out.
    altered = await cluster.gateways.ask_controller(Api.ALTER_TOPIC, request, TopicDescription, deadline=deadline)
    if altered.error is not None:
        raise altered.error
    return _learned(cluster, altered.reply)


async def delete_topic(cluster: Cluster, name: str) -> None:
    """Deletes a topic with all its records; returns once none of them can be read any more."""
    check_topic_name(name)
    deadline, timeout_ms = _deadline(cluster)
    request = DeleteTopicRequest(name, timeout_ms)
    deleted = await cluster.gateways.ask_controller(Api.DELETE_TOPIC, request, Empty, deadline=deadline)
    if deleted.error is not None and not (deleted.maybe_done and deleted.error.code is ErrorCode.UNKNOWN_TOPIC):
        raise deleted.error
    cluster.maps.forget(name)


async def describe_topics(cluster: Cluster, names: Iterable[str]) -> list[TopicDescription]:
    """Topics by name, in their order; one that does not exist has its ``error`` set."""
    names = list(names)
    told = {topic.name: topic for topic in await _resolve(cluster, names, all_topics=False)}
    for name in names:
        if name not in told:
            raise broker_error(ErrorCode.UNKNOWN_TOPIC, f"topic {name}")
    return [told[name] for name in names]


async def list_topics(cluster: Cluster) -> list[TopicDescription]:
    """Every topic of the cluster, ordered by name."""
    return sorted(await _resolve(cluster, [], all_topics=True), key=lambda topic: topic.name)


async def _resolve(cluster: Cluster, names: list[str], *, all_topics: bool) -> list[TopicDescription]:
    cluster.refuse_when_closed()
    request = ResolveRequest(names, all_topics, with_rings=False, create_missing=False)
    _, reply = await cluster.gateways.ask_any(Api.RESOLVE, request, ResolveReply)
    return reply.topics


def _learned(cluster: Cluster, topic: object) -> TopicDescription:
    assert isinstance(topic, TopicDescription)
    if topic.error is not None:
        raise broker_error(topic.error, f"topic {topic.name}")
    cluster.maps.learn(topic)
    return topic


def _deadline(cluster: Cluster) -> tuple[float, int]:
    """When to give up, and how long the server may take: a little less, so that its answer still arrives."""
    timeout = cluster.options.request_timeout
    server_timeout = max(timeout - 0.5, timeout / 2)
    cluster.refuse_when_closed()
    return asyncio.get_running_loop().time() + timeout, int(server_timeout * 1000)
