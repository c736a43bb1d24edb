"""One member of a consumer group: what it tells its coordinator, and what an answer means (``docs/GROUPS.md``).

Pure and synchronous: time, answers and what the application has finished come in; heartbeats and events come out.

::

                    answered                     unknown_member to a heartbeat that said all
        ┌─────────┐          ┌────────┐        (everything it had is lost, and it joins anew)
    ──▶ │ JOINING │ ───────▶ │ MEMBER │ ─────────────────────┐
        └─────────┘          └────────┘                      ▼
             ▲                 │    │                   back to JOINING
             └─────────────────┼────┼────────────────────────┘
                       leave() │    │ member_fenced, or an error that no retry mends
                               ▼    ▼
                      ┌─────────┐  ┌────────┐
                      │ LEAVING │  │ FAILED │      LEAVING ends as LEFT, when answered or given up
                      └─────────┘  └────────┘

A partition that is missing in an answer is *revoked*: reading stops, what was handled is committed, and only then the
next heartbeat no longer lists it. One that was given to others meanwhile is missing, too: its commit is refused, and it
is lost. One that is read here and told again with a place to go on from was somebody else's meanwhile: it is lost, and
read anew. A heartbeat leaves out what this coordinator was told before; one that has just taken over answers
``unknown_member`` and is told everything. Who joins anew does so as somebody else, under another id.

Every request has a higher sequence than all before it, commits and attempts included: one that is overtaken on its way
changes nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Union

from . import backoff, limits
from .error_code import ErrorCode
from .errors import MiniKafkaError
from .messages.data import PartitionKey, RangeKey
from .messages.groups import (
    INTENT_LEAVE,
    INTENT_LEAVE_FOR_GOOD,
    INTENT_STAY,
    GroupHeartbeatReply,
    GroupHeartbeatRequest,
    Subscription,
)
from .randomness import Randomness

#: Seconds for which the next heartbeat is held back while partitions are being released: most releases are quicker than
#: that, and are then told without another round trip.
RELEASE_PATIENCE: Final = 0.1
#: As long as one is being released, a heartbeat asks to be answered after this, so that the release is told soon.
RELEASING_WAIT_MS: Final = 200


class MemberState(Enum):
    """See the module's diagram."""

    JOINING = "joining"
    MEMBER = "member"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"


class Assigned(NamedTuple):
    """These partitions are to be read now: where the group goes on, None where it has committed nothing."""

    partitions: Mapping[PartitionKey, int | None]
    #: The generation that says so: it tells this turn from earlier and later ones.
    turn: int


class Revoked(NamedTuple):
    """Reading these partitions must stop; then :meth:`GroupMember.released` is called."""

    partitions: list[PartitionKey]


class Lost(NamedTuple):
    """These partitions belong to others by now: nothing of them may be committed."""

    partitions: list[PartitionKey]


class Failed(NamedTuple):
    """The membership is over; a :class:`Lost` came before, if it had partitions."""

    error: MiniKafkaError


Event = Union[Assigned, Revoked, Lost, Failed]


@dataclass(frozen=True)
class MemberSettings:
    """What a member is told once."""

    group: str
    #: Empty: a dynamic member.
    instance: str
    client_name: str
    session_timeout_ms: int
    #: Random: ids and jitter follow from it.
    seed: int


class Heartbeat(NamedTuple):
    """What is to be sent to the coordinator now, as far as it does not depend on where that is."""

    generation: int
    wait_ms_max: int
    intent: int
    subscribed: tuple[tuple[int, int], ...]
    owned: frozenset[PartitionKey]


#: Who is asked: the coordinator's address, and the epoch in which it coordinates.
Coordinator = tuple[str, int]


class Committer(NamedTuple):
    """Who commits, and by which ownership: a commit that is sent late must not pass for one of a later turn."""

    member: int
    generation: int


class GroupMember:
    """See the module's description. Times are seconds."""

    def __init__(self, settings: MemberSettings) -> None:
        self.settings = settings
        self.state = MemberState.JOINING
        self.generation = 0
        self._randomness = Randomness(settings.seed)
        #: Who it is; another one whenever it joins.
        self.member = self._randomness.member_id()
        self._sequence = 0
        self._subscribed: tuple[tuple[int, int], ...] = ()
        #: Partitions that are this member's, those that are being released included, and the generation that said so.
        self._owned: dict[PartitionKey, int] = {}
        self._releasing: set[PartitionKey] = set()
        #: What the last answer confirmed, and whose it was.
        self._told: tuple[Coordinator, tuple[tuple[int, int], ...], frozenset[PartitionKey]] | None = None
        self._intent = INTENT_STAY
        self._failures = 0
        self._not_before = 0.0
        self._events: list[Event] = []

    @property
    def owned(self) -> frozenset[PartitionKey]:
        """The partitions that are this member's, those that are being released included."""
        return frozenset(self._owned)

    def turn_of(self, partition: PartitionKey) -> int | None:
        """Which turn of a partition is this member's now; None: none is."""
        return self._owned.get(partition)

    @property
    def is_over(self) -> bool:
        """Whether no heartbeat is due any more."""
        return self.state in (MemberState.LEFT, MemberState.FAILED)

    def subscribe(self, topics: Mapping[int, int]) -> None:
        """Wants to read these topics, by id, with the number of partitions that the map says."""
        self._subscribed = tuple(sorted(topics.items()))

    def next_at(self) -> float:
        """When the next heartbeat is due, unless one is under way."""
        return self._not_before

    def heartbeat(self) -> Heartbeat:
        """The next heartbeat."""
        wait_ms = min(limits.HEARTBEAT_WAIT_MS_MAX, self.settings.session_timeout_ms // 3)
        if self._releasing:
            wait_ms = min(wait_ms, RELEASING_WAIT_MS)
        if self._intent != INTENT_STAY:
            wait_ms = 0
        return Heartbeat(self.generation, wait_ms, self._intent, self._subscribed, self.owned)

    def request(
        self, heartbeat: Heartbeat, range_key: RangeKey, epoch: int, *, says_all: bool
    ) -> GroupHeartbeatRequest:
        """The message of a heartbeat, to be sent once."""
        return GroupHeartbeatRequest(
            range=range_key,
            epoch=epoch,
            group=self.settings.group,
            member=self.member,
            sequence=self.next_sequence(),
            generation=heartbeat.generation,
            instance=self.settings.instance,
            client_name=self.settings.client_name,
            session_timeout_ms=self.settings.session_timeout_ms,
            wait_ms_max=heartbeat.wait_ms_max,
            intent=heartbeat.intent,
            subscribed=[Subscription(*topic) for topic in heartbeat.subscribed] if says_all else None,
            owned=sorted(heartbeat.owned) if says_all else None,
        )

    def next_sequence(self) -> int:
        """The sequence of the next request, of whatever kind."""
        self._sequence += 1
        return self._sequence

    def committer(self) -> Committer:
        """Who commits what is handled by now."""
        return Committer(self.member, self.generation)

    def must_say_all(self, coordinator: Coordinator, heartbeat: Heartbeat) -> bool:
        """Whether this coordinator has to be told everything: it was not, or something has changed since."""
        return self._told != (coordinator, heartbeat.subscribed, heartbeat.owned) or heartbeat.intent != INTENT_STAY

    def answered(self, now: float, coordinator: Coordinator, heartbeat: Heartbeat, reply: GroupHeartbeatReply) -> None:
        """A heartbeat was answered."""
        if self._is_of_the_past(heartbeat):
            return
        if self.state is MemberState.LEAVING:
            self.state = MemberState.LEFT
            return
        if reply.generation < self.generation:
            # Of the past, or of a coordinator that is: it is asked again.
            self._back_off(now, needs_map=True, server_asks=0.0)
            return
        self.state = MemberState.MEMBER
        self.generation = reply.generation
        self._failures = 0
        self._not_before = now
        self._told = (coordinator, heartbeat.subscribed, heartbeat.owned)
        assigned = {part.partition: part.committed for part in reply.assigned}
        anew = {key for key, at in assigned.items() if at is not None and key in self._owned}
        self._lose(sorted(anew))
        missing = sorted(self._owned.keys() - self._releasing - assigned.keys())
        if missing:
            self._releasing.update(missing)
            self._events.append(Revoked(missing))
            self._not_before = now + RELEASE_PATIENCE
        # What this heartbeat said it owned and was released since is told again, with the place to go on from.
        released = heartbeat.owned - anew
        new = {key: at for key, at in assigned.items() if key not in self._owned and key not in released}
        if new:
            self._owned.update(dict.fromkeys(new, reply.generation))
            self._events.append(Assigned(new, reply.generation))

    def failed(self, now: float, heartbeat: Heartbeat, error: MiniKafkaError, *, said_all: bool) -> None:
        """A heartbeat was refused, or got no answer."""
        if self._is_of_the_past(heartbeat):
            return
        code = error.code
        if self.state is MemberState.LEAVING and code is not None and not code.retriable:
            # Whoever does not know this member, or does not let it, needs no good-bye.
            self.state = MemberState.LEFT
        elif code is ErrorCode.UNKNOWN_MEMBER:
            self._unknown(now, said_all=said_all)
        elif not error.retriable:
            self._lose(sorted(self._owned))
            self.state = MemberState.FAILED
            self._events.append(Failed(error))
        else:
            self._back_off(now, needs_map=error.wants_map, server_asks=error.retry_after)

    def released(self, partitions: list[PartitionKey]) -> None:
        """These partitions are not read any more, and what was handled of them is committed."""
        for key in partitions:
            # One that was lost and came again meanwhile is not the one that is released.
            if key in self._releasing:
                self._releasing.discard(key)
                del self._owned[key]
        if not self._releasing and not self._failures:
            self._not_before = 0.0

    def refused(self, committer: Committer, partitions: list[PartitionKey]) -> None:
        """A commit was answered ``not_assigned``: these belong to others, unless they have become its own since."""
        if committer.member == self.member:
            self._lose([key for key in partitions if self._owned.get(key, self.generation + 1) <= committer.generation])

    def leave(self, *, for_good: bool) -> None:
        """From now on says good-bye. A static member keeps its partitions there, for its session time-out, unless it
        goes for good; so it goes on to report them: what is not reported is released."""
        if not self.is_over:
            self.state = MemberState.LEAVING
            self._intent = INTENT_LEAVE_FOR_GOOD if for_good else INTENT_LEAVE
            self._not_before = 0.0

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _is_of_the_past(self, heartbeat: Heartbeat) -> bool:
        """An answer to a heartbeat of before the leave says nothing any more."""
        return self.is_over or (self.state is MemberState.LEAVING and heartbeat.intent == INTENT_STAY)

    def _unknown(self, now: float, *, said_all: bool) -> None:
        self._told = None
        if not said_all:
            # A coordinator that has just taken over, or one that has expelled this member: it is told everything.
            self._not_before = now
            return
        had_something = bool(self._owned)
        self._lose(sorted(self._owned))
        self.state = MemberState.JOINING
        self.member = self._randomness.member_id()
        self.generation = 0
        if had_something:
            self._not_before = now
        else:
            self._back_off(now, needs_map=False, server_asks=0.0)

    def _lose(self, partitions: list[PartitionKey]) -> None:
        if partitions:
            self._events.append(Lost(partitions))
        for key in partitions:
            del self._owned[key]
            self._releasing.discard(key)

    def _back_off(self, now: float, *, needs_map: bool, server_asks: float) -> None:
        self._failures += 1
        jitter = self._randomness.fraction()
        self._not_before = now + backoff.wait_of(self._failures, jitter, needs_map=needs_map, server_asks=server_asks)
