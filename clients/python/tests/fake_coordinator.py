"""A small coordinator of consumer groups, as docs/GROUPS.md describes them: assignment, release, expulsion, fencing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Callable

from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.frames import Frame
from minikafka.protocol.messages import Api
from minikafka.protocol.messages.data import PartitionKey
from minikafka.protocol.messages.groups import (
    INTENT_LEAVE,
    INTENT_STAY,
    AssignedPartition,
    CommittedOffset,
    CommittedPartition,
    GroupCommitReply,
    GroupCommitRequest,
    GroupDeleteRequest,
    GroupDescribeReply,
    GroupDescribeRequest,
    GroupHeartbeatReply,
    GroupHeartbeatRequest,
    GroupMemberDescription,
    GroupOffsetsReply,
    GroupOffsetsRequest,
)
from minikafka.protocol.messages.hello import Empty

from .fake_server import Peer


@dataclass
class Member:
    """One member, as the coordinator knows it."""

    number: int
    instance: str
    topics: dict[int, int]
    heard: float
    session: float
    #: What it said last that it owns, and what it was told last.
    reported: set[PartitionKey] = field(default_factory=set)
    told: frozenset[PartitionKey] | None = None
    is_fenced: bool = False


@dataclass
class FakeGroup:
    """What survives (owners, commits, generation), and who lives."""

    generation: int = 0
    owner: dict[PartitionKey, int] = field(default_factory=dict)
    #: Of owners, also of those that have left.
    instances: dict[int, str] = field(default_factory=dict)
    commits: dict[PartitionKey, int] = field(default_factory=dict)
    members: dict[int, Member] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self) -> None:
        """Wakes the heartbeats that wait."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def target(self, number: int) -> set[PartitionKey]:
        """What a member should have: partitions in turn, owners first, so that as few as possible move."""
        members = {each: member for each, member in self.members.items() if not member.is_fenced}
        targets: dict[int, set[PartitionKey]] = {each: set() for each in members}
        for topic in {topic for member in members.values() for topic in member.topics}:
            subscribed = sorted(each for each, member in members.items() if topic in member.topics)
            count = max(members[each].topics[topic] for each in subscribed)
            most = -(-count // len(subscribed))
            open_keys = []
            for partition in range(count):
                key = PartitionKey(topic, partition)
                owner = self.owner.get(key, 0)
                if owner in subscribed and sum(held.topic == topic for held in targets[owner]) < most:
                    targets[owner].add(key)
                else:
                    open_keys.append(key)
            for key in open_keys:
                fewest = min(subscribed, key=lambda each: (sum(held.topic == topic for held in targets[each]), each))
                targets[fewest].add(key)
        return targets.get(number, set())


class FakeCoordinator:
    """Answers the requests of groups. It runs on the server's loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.groups: dict[str, FakeGroup] = {}
        #: Every heartbeat that came, in order.
        self.heartbeats: list[GroupHeartbeatRequest] = []
        #: Every commit that was taken.
        self.commits: list[tuple[int, PartitionKey, int]] = []

    def group(self, name: str) -> FakeGroup:
        """A group, made when it is first named."""
        return self.groups.setdefault(name, FakeGroup())

    def take_over(self) -> None:
        """Forgets who lives, as a coordinator that has just taken over does; owners and commits stay."""
        for group in self.groups.values():
            group.members.clear()
            group.change()

    def expel(self, name: str, number: int) -> None:
        """Expels a member, as if it had not been heard."""
        group = self.groups[name]
        del group.members[number]
        group.owner = {key: owner for key, owner in group.owner.items() if owner != number}
        group.generation += 1
        group.change()

    async def handle(self, peer: Peer, frame: Frame) -> None:
        """Answers one request."""
        if frame.header.api == Api.GROUP_HEARTBEAT:
            await self._heartbeat(peer, frame)
        elif frame.header.api == Api.GROUP_COMMIT:
            self._commit(peer, frame)
        elif frame.header.api == Api.GROUP_OFFSETS:
            request = GroupOffsetsRequest.decode(frame.head)
            commits = self.group(request.group).commits
            peer.reply(frame, GroupOffsetsReply([CommittedOffset(key, at, "") for key, at in sorted(commits.items())]))
        elif frame.header.api == Api.GROUP_DESCRIBE:
            self._describe(peer, frame)
        else:
            self._delete(peer, frame)

    async def _heartbeat(self, peer: Peer, frame: Frame) -> None:
        request = GroupHeartbeatRequest.decode(frame.head)
        self.heartbeats.append(request)
        group = self.group(request.group)
        self._expel_silent(group)
        member = group.members.get(request.member)
        if member is None:
            if request.subscribed is None or request.owned is None:
                peer.refuse(frame, ErrorCode.UNKNOWN_MEMBER)
                return
            member = self._join(group, request)
        if member.is_fenced:
            peer.refuse(frame, ErrorCode.MEMBER_FENCED)
            return
        member.heard = self._clock()
        if request.intent != INTENT_STAY:
            self._leave(group, member, for_good=request.intent != INTENT_LEAVE)
            peer.reply(frame, GroupHeartbeatReply(group.generation, []))
            return
        if request.subscribed is not None:
            member.topics = {topic.topic: topic.partitions for topic in request.subscribed}
        if request.owned is not None:
            self._take_report(group, member, set(request.owned))
        await self._answer(peer, frame, request, group, member)

    async def _answer(
        self, peer: Peer, frame: Frame, request: GroupHeartbeatRequest, group: FakeGroup, member: Member
    ) -> None:
        """Answers at once when there is something new, otherwise after a while."""
        deadline = self._clock() + request.wait_ms_max / 1000
        while True:
            if group.members.get(member.number) is not member:
                peer.refuse(frame, ErrorCode.UNKNOWN_MEMBER)
                return
            if member.is_fenced:
                peer.refuse(frame, ErrorCode.MEMBER_FENCED)
                return
            assigned = self._assign(group, member)
            left = deadline - self._clock()
            if assigned != member.told or request.generation != group.generation or left <= 0:
                break
            try:
                await asyncio.wait_for(group.changed.wait(), left)
            except asyncio.TimeoutError:
                continue
        member.told = assigned
        parts = [
            AssignedPartition(key, None if key in member.reported else group.commits.get(key))
            for key in sorted(assigned)
        ]
        peer.reply(frame, GroupHeartbeatReply(group.generation, parts))

    def _join(self, group: FakeGroup, request: GroupHeartbeatRequest) -> Member:
        topics = {topic.topic: topic.partitions for topic in request.subscribed or []}
        member = Member(request.member, request.instance, topics, self._clock(), request.session_timeout_ms / 1000)
        for other, instance in list(group.instances.items()):
            if request.instance and instance == request.instance and other != member.number:
                # A static member's successor has its partitions from the start.
                group.owner = {key: member.number if owner == other else owner for key, owner in group.owner.items()}
                del group.instances[other]
                if other in group.members:
                    group.members[other].is_fenced = True
        group.instances[member.number] = request.instance
        group.members[member.number] = member
        group.change()
        return member

    def _leave(self, group: FakeGroup, member: Member, *, for_good: bool) -> None:
        group.members.pop(member.number, None)
        if for_good or not member.instance:
            group.owner = {key: owner for key, owner in group.owner.items() if owner != member.number}
            group.generation += 1
        group.change()

    def _take_report(self, group: FakeGroup, member: Member, owned: set[PartitionKey]) -> None:
        released = {key for key in member.reported if key not in owned}
        for key in released:
            if group.owner.get(key) == member.number:
                del group.owner[key]
        member.reported = {key for key in owned if group.owner.get(key) == member.number}
        if released:
            group.generation += 1
            group.change()

    def _assign(self, group: FakeGroup, member: Member) -> frozenset[PartitionKey]:
        """What a member is to read now: of its target what is its own, or free."""
        target = group.target(member.number)
        for key in target:
            if key not in group.owner:
                group.owner[key] = member.number
                group.generation += 1
        return frozenset(key for key in target if group.owner.get(key) == member.number)

    def _expel_silent(self, group: FakeGroup) -> None:
        for number, member in list(group.members.items()):
            if self._clock() - member.heard > member.session:
                del group.members[number]
                group.owner = {key: owner for key, owner in group.owner.items() if owner != number}
                group.generation += 1

    def _commit(self, peer: Peer, frame: Frame) -> None:
        request = GroupCommitRequest.decode(frame.head)
        group = self.group(request.group)
        answers = []
        for part in request.offsets:
            is_owner = group.owner.get(part.partition, 0) == request.member
            if is_owner:
                group.commits[part.partition] = part.offset
                self.commits.append((request.member, part.partition, part.offset))
            answers.append(CommittedPartition(part.partition, None if is_owner else ErrorCode.NOT_ASSIGNED))
        peer.reply(frame, GroupCommitReply(answers))

    def _describe(self, peer: Peer, frame: Frame) -> None:
        name = GroupDescribeRequest.decode(frame.head).group
        if name not in self.groups:
            peer.refuse(frame, ErrorCode.UNKNOWN_GROUP)
            return
        group = self.groups[name]
        members = [
            GroupMemberDescription(
                each.number,
                each.instance,
                "",
                0,
                sorted(each.topics),
                sorted(each.reported),
                sorted(group.target(each.number)),
            )
            for each in group.members.values()
        ]
        peer.reply(frame, GroupDescribeReply(group.generation, 1 if members else 0, members))

    def _delete(self, peer: Peer, frame: Frame) -> None:
        name = GroupDeleteRequest.decode(frame.head).group
        if self.group(name).members:
            peer.refuse(frame, ErrorCode.GROUP_NOT_EMPTY)
        else:
            del self.groups[name]
            peer.reply(frame, Empty())
