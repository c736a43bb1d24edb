"""What members of a group, and tools, ask of its coordinator (``docs/GROUPS.md`` section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Optional

from .. import limits
from ..fields import U32, U64, Choice, GroupName, InstanceName, MaybeError, Message, ShortText, Text
from .data import PartitionField, RangeField

INTENT_STAY: Final = 0
INTENT_LEAVE: Final = 1
#: Also a static member gives its partitions away at once.
INTENT_LEAVE_FOR_GOOD: Final = 2

GROUP_STATE_NAMES: Final = {0: "empty", 1: "stable", 2: "rebalancing"}


@dataclass
class Subscription(Message):
    """A topic that a member wants to read, with the number of partitions that its map says."""

    topic: U64
    partitions: U32


@dataclass
class GroupHeartbeatRequest(Message):
    """Joins, stays, reports and leaves. What is None is as in the last one that this coordinator answered."""

    range: RangeField
    epoch: U64
    group: GroupName
    member: U64
    #: Grows with every request of this member, attempts included.
    sequence: U64
    #: The last one that was told; 0: joins.
    generation: U64
    instance: InstanceName
    client_name: Text
    session_timeout_ms: U32
    wait_ms_max: U32
    intent: Annotated[int, Choice("intent", INTENT_STAY, INTENT_LEAVE, INTENT_LEAVE_FOR_GOOD)]
    subscribed: Optional[list[Subscription]]
    owned: Optional[list[PartitionField]]


@dataclass
class AssignedPartition(Message):
    """A partition that the member is to read."""

    partition: PartitionField
    #: Where to go on. None: the member reads it already, or nobody has committed anything yet. Told of what the member
    #: reads, it belonged to somebody else meanwhile, and is read anew.
    committed: Optional[U64]


@dataclass
class GroupHeartbeatReply(Message):
    """All that the member is to read now."""

    generation: U64
    assigned: list[AssignedPartition]


@dataclass
class CommittedOffset(Message):
    """The group goes on with this partition at this offset: the next one to read."""

    partition: PartitionField
    offset: U64
    metadata: Annotated[str, ShortText("commit metadata", limits.COMMIT_METADATA_BYTES_MAX)]


@dataclass
class GroupCommitRequest(Message):
    """Commits offsets; member 0, with sequence and generation 0, is a tool."""

    range: RangeField
    epoch: U64
    group: GroupName
    member: U64
    sequence: U64
    #: The last one that the member was told when it collected the offsets.
    generation: U64
    offsets: list[CommittedOffset]


@dataclass
class CommittedPartition(Message):
    """Whether one partition was committed."""

    partition: PartitionField
    error: MaybeError


@dataclass
class GroupCommitReply(Message):
    """In the order of the request."""

    partitions: list[CommittedPartition]


@dataclass
class GroupOffsetsRequest(Message):
    """Asks where a group is; without a list, in all partitions that it has committed."""

    range: RangeField
    epoch: U64
    group: GroupName
    partitions: Optional[list[PartitionField]]


@dataclass
class GroupOffsetsReply(Message):
    """Those partitions that have a committed offset."""

    offsets: list[CommittedOffset]


@dataclass
class GroupDescribeRequest(Message):
    """Asks who is in a group."""

    range: RangeField
    epoch: U64
    group: GroupName


@dataclass
class GroupMemberDescription(Message):
    """One member."""

    member: U64
    instance: InstanceName
    client_name: Text
    silent_ms: U64
    topics: list[U64]
    owned: list[PartitionField]
    target: list[PartitionField]


@dataclass
class GroupDescribeReply(Message):
    """Who is in a group, and who has what."""

    generation: U64
    state: Annotated[int, Choice("group state", *GROUP_STATE_NAMES)]
    members: list[GroupMemberDescription]


@dataclass
class GroupListRange(Message):
    """One range whose groups are wanted."""

    range: RangeField
    epoch: U64


@dataclass
class GroupListRequest(Message):
    """Asks a shard for the groups of ranges that it heads."""

    ranges: list[GroupListRange]


@dataclass
class ListedGroup(Message):
    """One group."""

    group: GroupName
    state: Annotated[int, Choice("group state", *GROUP_STATE_NAMES)]
    members: U32


@dataclass
class ListedRange(Message):
    """The groups of one range."""

    range: RangeField
    #: ``overloaded``: the answer had no room for it, ask for it again.
    error: MaybeError
    epoch: U64
    groups: list[ListedGroup]


@dataclass
class GroupListReply(Message):
    """In the order of the request."""

    ranges: list[ListedRange]


@dataclass
class GroupDeleteRequest(Message):
    """Deletes a group without members, commits included."""

    range: RangeField
    epoch: U64
    group: GroupName
