"""The member machine without a network: table by table of docs/GROUPS.md, and then whatever happens."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.errors import ConnectionLostError, MemberFencedError, MiniKafkaError, broker_error
from minikafka.protocol.group_member import (
    RELEASE_PATIENCE,
    RELEASING_WAIT_MS,
    Assigned,
    Event,
    Failed,
    GroupMember,
    Heartbeat,
    Lost,
    MemberSettings,
    MemberState,
    Revoked,
)
from minikafka.protocol.messages.data import PartitionKey, RangeKey
from minikafka.protocol.messages.groups import AssignedPartition, GroupHeartbeatReply

HERE = ("coordinator:1", 4)
ELSEWHERE = ("coordinator:2", 5)
A, B, C = (PartitionKey(7, number) for number in range(3))


class World:
    def __init__(self) -> None:
        self.member = GroupMember(MemberSettings("billing", "", "test", 10_000, seed=1))
        self.member.subscribe({7: 3})
        self.now = 100.0

    def answer(
        self,
        *assigned: PartitionKey,
        committed: Optional[int] = None,
        heartbeat: Heartbeat | None = None,
        at: Any = HERE,
    ) -> list[Event]:
        """The next heartbeat is answered with these partitions."""
        heartbeat = heartbeat or self.member.heartbeat()
        known = heartbeat.owned
        parts = [AssignedPartition(key, None if key in known else committed) for key in assigned]
        self.member.answered(self.now, at, heartbeat, GroupHeartbeatReply(self.member.generation + 1, parts))
        return self.member.take_events()

    def fail(self, error: MiniKafkaError, *, said_all: bool = True) -> list[Event]:
        self.member.failed(self.now, self.member.heartbeat(), error, said_all=said_all)
        return self.member.take_events()

    def says_all(self, at: Any = HERE) -> bool:
        return self.member.must_say_all(at, self.member.heartbeat())


def joined(*keys: PartitionKey) -> World:
    world = World()
    world.answer(*keys)
    return world


def test_a_member_joins_owning_nothing_and_is_given_partitions_with_their_places() -> None:
    world = World()
    heartbeat = world.member.heartbeat()
    assert (heartbeat.owned, heartbeat.generation, heartbeat.wait_ms_max) == (frozenset(), 0, 3000)
    request = world.member.request(heartbeat, RangeKey(1, 2), 4, says_all=True)
    assert (request.member, request.session_timeout_ms, len(request.subscribed or ())) == (
        world.member.member,
        10_000,
        1,
    )
    assert world.answer(A, B, committed=17) == [Assigned({A: 17, B: 17}, 1)]
    assert world.member.state is MemberState.MEMBER
    assert world.member.owned == {A, B}


def test_what_was_told_is_left_out_until_something_changes() -> None:
    world = World()
    assert world.says_all()
    world.answer()
    assert not world.says_all()
    world.answer(A)
    assert world.says_all(), "it owns something new"
    world.answer(A)
    assert not world.says_all()
    assert world.says_all(ELSEWHERE), "another coordinator was not told"
    heartbeat = world.member.heartbeat()
    request = world.member.request(heartbeat, RangeKey(1, 2), 4, says_all=False)
    assert (request.subscribed, request.owned) == (None, None)


def test_a_missing_partition_is_revoked_and_listed_until_it_is_released() -> None:
    world = joined(A, B)
    assert world.answer(A) == [Revoked([B])]
    assert world.member.next_at() == world.now + RELEASE_PATIENCE, "most releases are quicker than that"
    assert world.member.heartbeat().owned == {A, B}
    assert world.member.heartbeat().wait_ms_max == RELEASING_WAIT_MS
    assert world.answer(A) == [], "it is being released"
    world.member.released([B])
    assert world.member.next_at() <= world.now, "told at once"
    assert world.member.heartbeat().owned == {A}
    assert world.says_all()


def test_a_partition_that_comes_back_while_it_is_released_is_given_anew_with_its_place() -> None:
    world = joined(A, B)
    world.answer(A)
    said_that_it_owns = world.member.heartbeat()
    world.member.released([B])
    assert world.answer(A, B, heartbeat=said_that_it_owns) == [], "that answer does not know where to go on"
    assert world.answer(A, B, committed=40) == [Assigned({B: 40}, 4)]


def test_a_coordinator_that_took_over_is_told_everything_and_moves_nothing() -> None:
    world = joined(A, B)
    assert world.fail(broker_error(ErrorCode.UNKNOWN_MEMBER, "x"), said_all=False) == []
    assert world.says_all(ELSEWHERE)
    assert world.member.heartbeat().owned == {A, B}
    assert world.answer(A, B, at=ELSEWHERE) == []


def test_what_others_got_meanwhile_is_lost_once_its_commit_is_refused() -> None:
    world = joined(A, B)
    assert world.answer(A) == [Revoked([B])]
    world.member.refused(world.member.committer(), [B])
    assert world.member.take_events() == [Lost([B])]
    assert world.member.owned == {A}


def test_what_was_somebody_elses_meanwhile_is_lost_and_read_anew() -> None:
    """The answer tells where to go on in a partition that this member says it reads: others went on there."""
    world = joined(A, B)
    late = world.member.committer()
    heartbeat = world.member.heartbeat()
    reply = GroupHeartbeatReply(5, [AssignedPartition(A, 30), AssignedPartition(B, None)])
    world.member.answered(world.now, HERE, heartbeat, reply)
    assert world.member.take_events() == [Lost([A]), Assigned({A: 30}, 5)]
    assert (world.member.turn_of(A), world.member.turn_of(B)) == (5, 1)
    world.member.refused(late, [A, B])
    assert world.member.take_events() == [Lost([B])], "a commit of the first turn says nothing of the second one"


def test_an_answer_of_an_older_generation_is_not_believed() -> None:
    world = joined(A)
    world.answer(A)
    world.member.answered(world.now, HERE, world.member.heartbeat(), GroupHeartbeatReply(1, []))
    assert (world.member.take_events(), world.member.owned, world.member.generation) == ([], frozenset({A}), 2)
    assert world.member.next_at() > world.now


def test_every_request_has_a_higher_sequence() -> None:
    world = joined(A)
    heartbeat = world.member.heartbeat()
    first = world.member.request(heartbeat, RangeKey(1, 2), 4, says_all=True)
    commit = world.member.next_sequence()
    again = world.member.request(heartbeat, RangeKey(1, 2), 4, says_all=True)
    assert first.sequence < commit < again.sequence


def test_an_expelled_member_loses_everything_and_joins_anew_as_somebody_else() -> None:
    world = joined(A, B)
    before = world.member.committer()
    assert world.fail(broker_error(ErrorCode.UNKNOWN_MEMBER, "x")) == [Lost([A, B])]
    assert (world.member.state, world.member.owned) == (MemberState.JOINING, frozenset())
    assert world.member.next_at() <= world.now
    assert world.says_all()
    assert (world.member.member != before.member, world.member.heartbeat().generation) == (True, 0)
    assert world.answer(C, committed=3) == [Assigned({C: 3}, 1)]
    world.member.refused(before, [C])
    assert world.member.take_events() == [], "who it was before says nothing of who it is"


def test_a_coordinator_that_never_lets_it_join_does_not_make_it_spin() -> None:
    world = World()
    for _ in range(3):
        assert world.fail(broker_error(ErrorCode.UNKNOWN_MEMBER, "x")) == []
        assert world.member.next_at() > world.now


def test_a_fenced_member_stops_and_says_why() -> None:
    world = joined(A)
    lost, failed = world.fail(broker_error(ErrorCode.MEMBER_FENCED, "x"))
    assert lost == Lost([A])
    assert isinstance(failed, Failed) and isinstance(failed.error, MemberFencedError)
    assert world.member.is_over


def test_a_lost_coordinator_is_looked_for_while_everything_is_kept() -> None:
    world = joined(A)
    for _ in range(5):
        assert world.fail(ConnectionLostError("coordinator:1", "gone")) == []
        assert 0 < world.member.next_at() - world.now <= 0.032, "often at first: a chain is changed within a moment"
    assert world.member.owned == {A}
    assert world.answer(A) == []


def test_a_leaving_member_says_so_at_once_and_releases_nothing_by_it() -> None:
    world = joined(A)
    waiting = world.member.heartbeat()
    world.member.leave(for_good=False)
    heartbeat = world.member.heartbeat()
    assert (heartbeat.intent, heartbeat.owned, heartbeat.wait_ms_max) == (1, frozenset({A}), 0), (
        "a static one keeps them there"
    )
    assert world.says_all()
    assert world.answer(A, heartbeat=waiting) == [], "an answer of before says nothing any more"
    assert not world.member.is_over
    world.answer()
    assert world.member.is_over


def test_leaving_for_good_is_another_intent() -> None:
    world = joined(A)
    world.member.leave(for_good=True)
    assert world.member.heartbeat().intent == 2


@pytest.mark.parametrize("code", [ErrorCode.UNKNOWN_MEMBER, ErrorCode.MEMBER_FENCED, ErrorCode.UNKNOWN_GROUP])
def test_who_is_not_known_need_not_say_good_bye(code: ErrorCode) -> None:
    world = joined(A)
    world.member.leave(for_good=False)
    world.fail(broker_error(code, "x"))
    assert world.member.state is MemberState.LEFT


def test_a_refused_commit_means_that_the_partition_is_lost() -> None:
    world = joined(A, B)
    world.member.refused(world.member.committer(), [A])
    assert world.member.take_events() == [Lost([A])]
    world.answer(B)
    world.member.refused(world.member.committer(), [])
    assert world.member.take_events() == []


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("answer"), st.sets(st.sampled_from([A, B, C]))),
            st.tuples(st.just("unknown"), st.booleans()),
            st.tuples(st.just("lost"), st.none()),
            st.tuples(st.just("release"), st.none()),
        ),
        max_size=40,
    )
)
def test_whatever_happens_reading_agrees_with_what_is_owned(happenings: list[tuple[str, Any]]) -> None:
    """What an application would read, by the events alone: never more than the member says it owns, and each partition
    is given once before it is taken away."""
    world = World()
    read: set[PartitionKey] = set()
    releasing: set[PartitionKey] = set()
    for what, detail in happenings:
        if what == "answer":
            events = world.answer(*sorted(detail), committed=1)
        elif what == "unknown":
            events = world.fail(broker_error(ErrorCode.UNKNOWN_MEMBER, "x"), said_all=detail)
        elif what == "lost":
            events = world.fail(ConnectionLostError("coordinator:1", "gone"))
        else:
            world.member.released(sorted(releasing))
            releasing.clear()
            events = world.member.take_events()
        for event in events:
            if isinstance(event, Assigned):
                assert not read & event.partitions.keys() and not releasing & event.partitions.keys()
                read |= event.partitions.keys()
            elif isinstance(event, Revoked):
                assert read >= set(event.partitions)
                read -= set(event.partitions)
                releasing |= set(event.partitions)
            elif isinstance(event, Lost):
                read -= set(event.partitions)
                releasing -= set(event.partitions)
        assert world.member.owned == read | releasing
        assert world.member.heartbeat().owned == world.member.owned
