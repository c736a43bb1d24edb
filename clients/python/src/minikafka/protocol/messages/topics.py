"""What clients ask of gateways: the map, and topics (``docs/PROTOCOL.md`` section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Optional

from .. import limits
from ..fields import I64, U16, U32, U64, Bool, Choice, MaybeError, Message, Text

STATE_CREATING: Final = 1
STATE_READY: Final = 2
STATE_DELETING: Final = 3
STATE_ALTERING: Final = 4

#: As the protocol numbers them, by name.
STATE_NAMES: Final = {
    STATE_CREATING: "creating",
    STATE_READY: "ready",
    STATE_DELETING: "deleting",
    STATE_ALTERING: "altering",
}


@dataclass
class TopicConfig(Message):
    """Settings of a topic."""

    #: Records older than this, by append time, may be deleted; milliseconds. Negative: never.
    retention_ms: I64 = -1
    #: Oldest records are deleted while a partition is larger than this. Negative: never.
    retention_bytes: I64 = -1
    #: Largest batch body accepted, 1 to 4 MiB.
    batch_bytes_max: U32 = limits.BATCH_BODY_BYTES_MAX
    #: Body bytes that each shard takes per second, for all partitions of the topic that it heads. 0: unlimited.
    produce_bytes_per_second: U64 = 0


@dataclass
class TopicConfigChange(Message):
    """Which settings of a topic change, and to what; none: as it is."""

    retention_ms: Optional[I64] = None
    retention_bytes: Optional[I64] = None
    batch_bytes_max: Optional[U32] = None
    produce_bytes_per_second: Optional[U64] = None


@dataclass
class ResolveRequest(Message):
    """Asks for the map."""

    topics: list[Text]
    all_topics: Bool
    #: Whether nodes and rings are wanted too.
    with_rings: Bool
    create_missing: Bool


@dataclass
class NodeAddress(Message):
    """A live node and where its shards listen."""

    node: U32
    rack: Text
    #: ``host:port`` of shard 0, 1, …
    shards: list[Text]


@dataclass
class ChainPlace(Message):
    """One place in a chain."""

    node: U32
    shard: U16


@dataclass
class RangeChain(Message):
    """The chain of one range, head first. Epoch 0: it was never active."""

    epoch: U64
    places: list[ChainPlace]


@dataclass
class RingMap(Message):
    """One ring: the number of its chains, a power of two, is its number of ranges."""

    ring: U16
    replication: U16
    chains: list[RangeChain]


@dataclass
class Placement(Message):
    """A partition that does not lie where its token says."""

    partition: U32
    range: U32


@dataclass
class TopicDescription(Message):
    """A topic as its record says."""

    name: Text
    #: What went wrong with this topic (``unknown_topic``, …); then the rest means nothing.
    error: MaybeError
    #: Its id, never used again; 0 with an error.
    topic: U64
    partitions: U32
    ring: U16
    state: Annotated[int, Choice("topic state", *STATE_NAMES)]
    config: TopicConfig
    #: Consulted before the token.
    placement: list[Placement]


@dataclass
class ResolveReply(Message):
    """The map."""

    cluster: U64
    #: The ring on which the cluster keeps its own state: groups lie there.
    internal_ring: U16
    nodes: list[NodeAddress]
    rings: list[RingMap]
    topics: list[TopicDescription]


@dataclass
class CreateTopicRequest(Message):
    """Creates a topic; answered with its description once every partition is open."""

    name: Text
    #: 0: the server's default.
    partitions: U32
    #: Members per chain; 0: the cluster's default.
    replication: U16
    config: TopicConfig
    timeout_ms: U32


@dataclass
class DeleteTopicRequest(Message):
    """Deletes a topic; answered with nothing once no partition is readable any more."""

    name: Text
    timeout_ms: U32


@dataclass
class AlterTopicRequest(Message):
    """Changes settings of a topic; answered with its description once every partition has them."""

    name: Text
    change: TopicConfigChange
    timeout_ms: U32
