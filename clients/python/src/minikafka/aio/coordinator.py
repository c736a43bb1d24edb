"""Asking the coordinator of a group, wherever it is by now (``docs/GROUPS.md`` sections 1 and 5)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable, Final, NamedTuple, TypeVar

from ..protocol import backoff
from ..protocol.error_code import ErrorCode
from ..protocol.errors import BrokerError, MiniKafkaError, broker_error
from ..protocol.fields import Message
from ..protocol.group_member import Committer
from ..protocol.messages import Api
from ..protocol.messages.data import PartitionKey, RangeKey
from ..protocol.messages.groups import (
    GROUP_STATE_NAMES,
    CommittedOffset,
    GroupCommitReply,
    GroupCommitRequest,
    GroupDeleteRequest,
    GroupDescribeReply,
    GroupDescribeRequest,
    GroupListRange,
    GroupListReply,
    GroupListRequest,
    GroupOffsetsReply,
    GroupOffsetsRequest,
    ListedRange,
)
from ..protocol.messages.hello import Empty
from ..protocol.names import check_group_name
from .cluster import Cluster
from .pool import PoolLane

M = TypeVar("M", bound=Message)


class Place(NamedTuple):
    """Where a group is coordinated, as the map says."""

    address: str
    range: RangeKey
    epoch: int


@dataclass(frozen=True)
class Group:
    """Who is in a group, and who has what."""

    name: str
    #: ``empty``, ``stable`` or ``rebalancing``.
    state: str
    generation: int
    members: list[GroupMemberInfo]


@dataclass(frozen=True)
class GroupMemberInfo:
    """One member: its partitions by topic id, those that it owns and those that it is to have."""

    member: int
    instance: str
    client_name: str
    #: Milliseconds since it was last heard.
    silent_ms: int
    owned: list[PartitionKey]
    target: list[PartitionKey]


def place_of(cluster: Cluster, group: str) -> Place:
    """Where a group is coordinated.

    :raises BrokerError: ``partition_not_ready``, as long as the map does not say.
    """
    current = cluster.maps.current
    range_key = current.range_of_group(group)
    owner = current.owner_of(range_key) if range_key is not None else None
    if range_key is None or owner is None:
        raise broker_error(ErrorCode.PARTITION_NOT_READY, f"group {group} has no coordinator in the map")
    return Place(owner.address, range_key, owner.epoch)


async def ask(
    cluster: Cluster,
    group: str,
    api: Api,
    request: Callable[[Place], Message],
    reply: type[M],
    *,
    deadline: float | None = None,
) -> M:
    """Asks until there is an answer, following the map, at most until the deadline (the loop's time).

    :raises MiniKafkaError: what no retry mends, or the last failure at the deadline.
    """
    check_group_name(group)
    loop = asyncio.get_running_loop()
    deadline = deadline if deadline is not None else cluster.request_deadline()
    failures = 0
    while True:
        seen = cluster.maps.current.version
        try:
            place = place_of(cluster, group)
            connection = await cluster.pool.connect(place.address, PoolLane.REQUESTS)
            left = max(deadline - loop.time(), 0.001)
            return await connection.call(api, request(place), reply, timeout=left)
        except BrokerError as caught:
            error: MiniKafkaError = caught.about(f"group {group} at {caught.target}")
        except MiniKafkaError as caught:
            error = caught
        failures += 1
        wait = backoff.wait_of(failures, random.random(), needs_map=error.wants_map, server_asks=error.retry_after)
        if not error.retriable or loop.time() + wait >= deadline:
            raise error
        if error.wants_map:
            await cluster.map_after(seen)
        await asyncio.sleep(wait)


#: Who commits without being a member, for partitions that nobody owns.
TOOL: Final = Committer(member=0, generation=0)


async def commit(
    cluster: Cluster,
    group: str,
    offsets: dict[PartitionKey, int],
    *,
    committer: Committer = TOOL,
    next_sequence: Callable[[], int] = lambda: 0,
    deadline: float | None = None,
) -> dict[PartitionKey, ErrorCode]:
    """Commits offsets; what of them was refused, by partition."""
    committed = [CommittedOffset(key, offset, "") for key, offset in offsets.items()]

    def request(place: Place) -> Message:
        # Each attempt has a sequence of its own.
        return GroupCommitRequest(
            place.range, place.epoch, group, committer.member, next_sequence(), committer.generation, committed
        )

    reply = await ask(cluster, group, Api.GROUP_COMMIT, request, GroupCommitReply, deadline=deadline)
    return {part.partition: part.error for part in reply.partitions if part.error is not None}


async def offsets(cluster: Cluster, group: str, keys: Iterable[PartitionKey] | None = None) -> dict[PartitionKey, int]:
    """Where a group is, in all partitions of which it has committed something, or in these."""
    wanted = list(keys) if keys is not None else None
    reply = await ask(
        cluster,
        group,
        Api.GROUP_OFFSETS,
        lambda place: GroupOffsetsRequest(place.range, place.epoch, group, wanted),
        GroupOffsetsReply,
    )
    return {part.partition: part.offset for part in reply.offsets}


async def describe(cluster: Cluster, group: str) -> Group:
    """Who is in a group."""
    reply = await ask(
        cluster,
        group,
        Api.GROUP_DESCRIBE,
        lambda place: GroupDescribeRequest(place.range, place.epoch, group),
        GroupDescribeReply,
    )
    members = [
        GroupMemberInfo(each.member, each.instance, each.client_name, each.silent_ms, each.owned, each.target)
        for each in reply.members
    ]
    return Group(group, GROUP_STATE_NAMES[reply.state], reply.generation, members)


async def delete(cluster: Cluster, group: str) -> None:
    """Deletes a group without members, commits included."""
    await ask(
        cluster,
        group,
        Api.GROUP_DELETE,
        lambda place: GroupDeleteRequest(place.range, place.epoch, group),
        Empty,
    )


async def names(cluster: Cluster) -> dict[str, str]:
    """Every group of the cluster, with its state.

    :raises MiniKafkaError: ranges that do not answer before the time-out; then the list would not be whole.
    """
    loop = asyncio.get_running_loop()
    deadline = cluster.request_deadline()
    if not cluster.maps.current.version:
        await cluster.maps.newer_than(0)
    found: dict[str, str] = {}
    left = cluster.maps.current.group_ranges()
    failures = 0
    while left:
        seen = cluster.maps.current.version
        listed, error = await _list_once(cluster, left, timeout=max(deadline - loop.time(), 0.001))
        for of_range in listed:
            found.update((group.group, GROUP_STATE_NAMES[group.state]) for group in of_range.groups)
        answered = {of_range.range for of_range in listed}
        left = [key for key in left if key not in answered]
        if error is None or not left:
            continue
        # A list that was too long for one answer goes on at once.
        failures = 0 if answered else failures + 1
        wait = backoff.wait_of(failures, random.random(), needs_map=error.wants_map, server_asks=error.retry_after)
        if not error.retriable or loop.time() + wait >= deadline:
            raise error
        if error.wants_map:
            await cluster.map_after(seen)
        if failures:
            await asyncio.sleep(wait)
    return dict(sorted(found.items()))


async def _list_once(
    cluster: Cluster, keys: Iterable[RangeKey], timeout: float
) -> tuple[list[ListedRange], MiniKafkaError | None]:
    """Asks every head once: the ranges that were answered, and why others were not."""
    current = cluster.maps.current
    shards: dict[str, list[GroupListRange]] = {}
    error: MiniKafkaError | None = None
    for key in keys:
        owner = current.owner_of(key)
        if owner is not None:
            shards.setdefault(owner.address, []).append(GroupListRange(key, owner.epoch))
        else:
            error = broker_error(ErrorCode.PARTITION_NOT_READY, f"range {key.ring}/{key.range} has no head in the map")
    answered: list[ListedRange] = []
    for address, ranges in shards.items():
        try:
            connection = await cluster.pool.connect(address, PoolLane.REQUESTS)
            reply = await connection.call(Api.GROUP_LIST, GroupListRequest(ranges), GroupListReply, timeout=timeout)
        except MiniKafkaError as caught:
            error = caught
            continue
        for listed in reply.ranges:
            if listed.error is None:
                answered.append(listed)
            else:
                error = broker_error(listed.error, f"groups of range {listed.range.ring}/{listed.range.range}")
    return answered, error
