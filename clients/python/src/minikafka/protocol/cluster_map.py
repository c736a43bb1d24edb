"""The map: which node and shard owns which range, and what topics are made of (``docs/PROTOCOL.md``, "Resolve").

A :class:`ClusterMap` is an immutable snapshot; everything that is asked of it is computed. A newer snapshot replaces it
when a server or a lost connection shows that it is out of date.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from . import limits
from .messages.data import RangeKey
from .messages.topics import RangeChain, ResolveReply, RingMap, TopicDescription
from .partitioner import range_of_token, token_of_group, token_of_partition


class RangeMember(NamedTuple):
    """One of those that hold a range: all of them serve reads, only the head takes writes."""

    node: int
    #: The rack of that node; empty: not told.
    rack: str
    #: ``host:port`` of its shard.
    address: str
    is_head: bool


class RangeOwner(NamedTuple):
    """Where requests about a range go: the shard that heads the chain, and the chain's epoch."""

    address: str
    epoch: int


class _Node(NamedTuple):
    rack: str
    shards: tuple[str, ...]


_NO_CHAIN: Final = RangeChain(0, [])


@dataclass(frozen=True)
class ClusterMap:
    """A snapshot of nodes, rings, and the topics that this client has asked about."""

    #: Grows with every snapshot of one client; 0: nothing is known yet.
    version: int = 0
    cluster: int = 0
    _nodes: Mapping[int, _Node] = field(default_factory=dict)
    _rings: Mapping[int, RingMap] = field(default_factory=dict)
    _topics: Mapping[str, TopicDescription] = field(default_factory=dict)
    #: Where groups lie.
    _internal_ring: int = 0

    def topic(self, name: str) -> TopicDescription | None:
        """A topic as last told; its ``error`` is set when the gateway knows none. None: nobody asked about it yet."""
        return self._topics.get(name)

    def usable_topic(self, name: str) -> TopicDescription | None:
        """A topic that exists."""
        topic = self._topics.get(name)
        return topic if topic is not None and topic.error is None else None

    def topic_of_id(self, topic_id: int) -> TopicDescription | None:
        """The topic with this id, if it is one that was asked about."""
        for topic in self._topics.values():
            if topic.topic == topic_id and topic.error is None:
                return topic
        return None

    def range_of(self, topic: TopicDescription, partition: int) -> RangeKey | None:
        """The range that holds a partition: as its placement says, otherwise by its token. None: unknown ring."""
        # The map's own description, if it is of the same topic: its placement is newer.
        known = self._topics.get(topic.name)
        if known is not None and known.topic == topic.topic and known.error is None:
            topic = known
        for placement in topic.placement:
            if placement.partition == partition:
                return RangeKey(topic.ring, placement.range)
        ring = self._rings.get(topic.ring)
        if ring is None:
            return None
        token = token_of_partition(topic.topic, partition)
        return RangeKey(topic.ring, range_of_token(token, len(ring.chains)))

    def range_of_group(self, group: str) -> RangeKey | None:
        """The range that coordinates a group. None: its ring is not known."""
        ring = self._rings.get(self._internal_ring)
        if ring is None:
            return None
        return RangeKey(ring.ring, range_of_token(token_of_group(group), len(ring.chains)))

    def group_ranges(self) -> list[RangeKey]:
        """Every range that may coordinate groups."""
        ring = self._rings.get(self._internal_ring)
        return [RangeKey(ring.ring, number) for number in range(len(ring.chains))] if ring is not None else []

    def owner_of(self, key: RangeKey) -> RangeOwner | None:
        """The head of a range's chain. None when the range has no chain, or its head no known address."""
        members = self.members_of(key)
        if not members or not members[0].is_head:
            return None
        return RangeOwner(members[0].address, self.epoch_of(key))

    def members_of(self, key: RangeKey) -> list[RangeMember]:
        """The members of a range's chain that have a known address, the head first if it has one."""
        members = []
        for place, at in enumerate(self._chain_of(key).places):
            node = self._nodes.get(at.node)
            if node is not None and at.shard < len(node.shards):
                members.append(RangeMember(at.node, node.rack, node.shards[at.shard], place == 0))
        return members

    def epoch_of(self, key: RangeKey) -> int:
        """The newest epoch known of a range; 0 when nothing is known."""
        return self._chain_of(key).epoch

    def succeeded_by(self, reply: ResolveReply) -> ClusterMap:
        """The snapshot that follows this one. Topics that were not asked for this time are kept.

        :raises ValueError: the reply contradicts itself.
        """
        _check(reply)
        rings = {ring.ring: self._with_newer_chains(ring) for ring in reply.rings}
        nodes = {node.node: _Node(node.rack, tuple(node.shards)) for node in reply.nodes}
        topics = {**self._topics, **{topic.name: topic for topic in reply.topics}}
        return ClusterMap(self.version + 1, reply.cluster, nodes, rings, topics, reply.internal_ring)

    def with_topic(self, topic: TopicDescription) -> ClusterMap:
        """The same snapshot with a topic that was just described."""
        return replace(self, _topics={**self._topics, topic.name: topic})

    def without_topic(self, name: str) -> ClusterMap:
        """The same snapshot without a topic that was deleted."""
        return replace(self, _topics={known: topic for known, topic in self._topics.items() if known != name})

    def _chain_of(self, key: RangeKey) -> RangeChain:
        ring = self._rings.get(key.ring)
        return ring.chains[key.range] if ring is not None and key.range < len(ring.chains) else _NO_CHAIN

    def has_chains_of(self, other: ClusterMap) -> bool:
        """Whether nothing is known that ``other`` does not know: somebody needed to know more."""
        return self._rings == other._rings

    def _with_newer_chains(self, ring: RingMap) -> RingMap:
        """Gateways may lag behind each other; a client never goes back to an older epoch of a range."""
        known = self._rings.get(ring.ring)
        if known is None or len(known.chains) != len(ring.chains):
            return ring
        pairs = zip(known.chains, ring.chains)
        return replace(ring, chains=[old if old.epoch > new.epoch else new for old, new in pairs])


def _check(reply: ResolveReply) -> None:
    """What the computations above rely on."""
    ranges = {ring.ring: len(ring.chains) for ring in reply.rings}
    for count in ranges.values():
        if count < 1 or count & (count - 1) or count > limits.RANGES_MAX:
            raise ValueError("the number of ranges of a ring is not a power of two")
    for topic in reply.topics:
        if topic.error is not None:
            continue
        if not 0 < topic.partitions <= limits.TOPIC_PARTITIONS_MAX:
            raise ValueError("a topic's partition count is outside its range")
        count = ranges.get(topic.ring, limits.RANGES_MAX)
        if any(placement.range >= count for placement in topic.placement):
            raise ValueError("a partition is placed in a range that its ring does not have")


@dataclass(frozen=True)
class Addressed:
    """What a request was addressed by."""

    address: str
    range: RangeKey
    epoch: int

    def holds(self, cluster: ClusterMap) -> bool:
        """Whether the map still says so."""
        if cluster.epoch_of(self.range) > self.epoch:
            return False
        return any(member.address == self.address for member in cluster.members_of(self.range))
