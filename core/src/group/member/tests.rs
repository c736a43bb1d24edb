//! A member, step by step: what it says, and what it makes of answers.

use super::*;
use crate::wire::group::{CommitOutcome, CommittedOffset, GroupCommitReply, GroupCommitRequest};

struct World {
    member: Member,
    out: VecDeque<Output>,
}

fn partition(number: u32) -> PartitionKey {
    PartitionKey { topic: TopicId(7), partition: Partition(number) }
}

fn topics(partitions: u32) -> Vec<TopicSubscription> {
    vec![TopicSubscription { topic: TopicId(7), partitions }]
}

fn offset(number: u32, offset: u64) -> CommittedOffset {
    CommittedOffset { partition: partition(number), offset: Offset(offset), metadata: String::new() }
}

fn reply(generation: u64, assigned: &[u32]) -> GroupHeartbeatReply {
    let of = |number: &u32| AssignedPartition { partition: partition(*number), committed: None };
    GroupHeartbeatReply { generation: GroupGeneration(generation), assigned: assigned.iter().map(of).collect() }
}

impl World {
    /// A member that is about to join, in epoch 1.
    fn new() -> Self {
        let settings = MemberSettings {
            group: GroupName::new("g").expect("a good name"),
            instance: InstanceName::none(),
            client_name: "test".into(),
            session_timeout_ms: 10_000,
            wait_ms_max: 3_000,
        };
        let mut world = Self { member: Member::new(settings, 42), out: VecDeque::new() };
        world.step(Input::Subscribe { topics: topics(4) });
        assert!(world.out.is_empty(), "it does not know where its coordinator is");
        world.coordinator(1);
        world
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.member.step(input, &mut out);
        self.out.extend(out);
    }

    fn coordinator(&mut self, epoch: u64) {
        let range = RangeKey { ring: RingId(3), range: RangeId(9) };
        self.step(Input::Coordinator { range, epoch: Epoch(epoch) });
    }

    fn take(&mut self) -> Output {
        self.out.pop_front().expect("something is wanted")
    }

    #[track_caller]
    fn heartbeat(&mut self) -> GroupHeartbeatRequest {
        match self.take() {
            Output::SendHeartbeat(heartbeat) => heartbeat,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn commit(&mut self) -> GroupCommitRequest {
        match self.take() {
            Output::SendCommit(commit) => commit,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, heartbeat: &GroupHeartbeatRequest, generation: u64, assigned: &[u32]) {
        let reply = reply(generation, assigned);
        self.step(Input::HeartbeatAnswered { sequence: heartbeat.sequence, reply });
    }

    fn refuse(&mut self, heartbeat: &GroupHeartbeatRequest, code: ErrorCode) {
        self.step(Input::HeartbeatFailed { sequence: heartbeat.sequence, failure: Failure::Refused(code) });
    }

    /// A member that reads these, and its heartbeat that waits.
    fn reading(numbers: &[u32]) -> (Self, GroupHeartbeatRequest) {
        let mut world = Self::new();
        let joins = world.heartbeat();
        world.answer(&joins, 5, numbers);
        assert!(matches!(world.take(), Output::Assigned(assigned) if assigned.len() == numbers.len()));
        let waits = world.heartbeat();
        (world, waits)
    }
}

#[test]
fn it_joins_with_everything_and_leaves_out_what_is_known() {
    let mut world = World::new();
    let joins = world.heartbeat();
    assert_eq!(
        (joins.generation, &joins.subscribed, &joins.owned),
        (GroupGeneration(0), &Some(topics(4)), &Some(vec![]))
    );
    assert_ne!(joins.member, MemberId::NONE);
    world.answer(&joins, 5, &[0, 1]);
    assert!(matches!(world.take(), Output::Assigned(_)));
    let told = world.heartbeat();
    assert!(told.sequence > joins.sequence && told.member == joins.member);
    assert_eq!(
        (told.generation, told.subscribed, told.owned.map(|owned| owned.len())),
        (GroupGeneration(5), None, Some(2))
    );
    let sequence = told.sequence;
    world.step(Input::HeartbeatAnswered { sequence, reply: reply(5, &[0, 1]) });
    let idle = world.heartbeat();
    assert_eq!((idle.subscribed, idle.owned), (None, None));
    assert!(world.out.is_empty(), "one at a time");
}

#[test]
fn what_is_missing_is_given_back_and_said_at_once() {
    let (mut world, waits) = World::reading(&[0, 1, 2]);
    world.answer(&waits, 6, &[0]);
    assert_eq!(world.take(), Output::Revoke(vec![partition(1), partition(2)]));
    let revoking = world.heartbeat();
    assert_eq!(revoking.owned, None, "it is not done with them");
    world.step(Input::Released { partitions: vec![partition(1)] });
    let released = world.heartbeat();
    assert_eq!(released.owned, Some(vec![partition(0), partition(2)]), "said while the other one waits there");
    world.answer(&revoking, 7, &[0, 1, 3]);
    assert!(world.out.is_empty(), "the older one is not waited for any more, whatever it says");
    // 1 comes back with the newer one; 2, which is on its way back, stays that.
    world.answer(&released, 8, &[0, 1, 2]);
    assert!(
        matches!(world.take(), Output::Assigned(assigned) if assigned.len() == 1 && assigned[0].partition == partition(1))
    );
    assert_eq!(world.member.returning().collect::<Vec<_>>(), [partition(2)]);
}

#[test]
fn a_new_coordinator_is_told_everything() {
    let (mut world, waits) = World::reading(&[0, 1]);
    world.coordinator(2);
    let moved = world.heartbeat();
    assert_eq!((moved.epoch, moved.generation), (Epoch(2), GroupGeneration(5)));
    assert_eq!((moved.subscribed, moved.owned.map(|owned| owned.len())), (Some(topics(4)), Some(2)));
    world.refuse(&waits, ErrorCode::NotOwner);
    assert!(world.out.is_empty(), "the old one is not waited for any more");
    assert_eq!(world.member.reading().count(), 2, "it goes on reading");
}

#[test]
fn what_is_not_answered_is_asked_again_after_a_pause_with_everything() {
    let (mut world, waits) = World::reading(&[0]);
    world.step(Input::HeartbeatFailed { sequence: waits.sequence, failure: Failure::Unanswered });
    let pause = |exchange, failures, needs_map| Output::Pause { exchange, failures, needs_map };
    assert_eq!(world.take(), pause(Exchange::Heartbeat, 1, true));
    world.step(Input::Subscribe { topics: topics(5) });
    assert!(world.out.is_empty(), "it pauses, whatever is news");
    world.step(Input::Resume(Exchange::Heartbeat));
    let again = world.heartbeat();
    assert_eq!((again.subscribed.clone(), again.owned.clone()), (Some(topics(5)), Some(vec![partition(0)])));
    world.refuse(&again, ErrorCode::Overloaded);
    assert_eq!(world.take(), pause(Exchange::Heartbeat, 2, false));
    world.step(Input::Resume(Exchange::Heartbeat));
    let third = world.heartbeat();
    world.answer(&third, 5, &[0]);
    let fourth = world.heartbeat();
    world.refuse(&fourth, ErrorCode::Stale);
    assert_eq!(world.take(), pause(Exchange::Heartbeat, 1, true), "failures in a row");
}

#[test]
fn an_expelled_member_loses_all_and_joins_as_another() {
    let (mut world, waits) = World::reading(&[0, 1]);
    world.refuse(&waits, ErrorCode::UnknownMember);
    let full = world.heartbeat();
    assert!(
        full.owned.is_some() && full.subscribed.is_some(),
        "it had left something out, so it says everything first"
    );
    world.refuse(&full, ErrorCode::UnknownMember);
    assert_eq!(world.take(), Output::Lost(vec![partition(0), partition(1)]));
    let anew = world.heartbeat();
    assert!(anew.member != waits.member && anew.sequence > full.sequence);
    assert_eq!((anew.generation, anew.owned.clone()), (GroupGeneration(0), Some(vec![])));
    world.refuse(&anew, ErrorCode::UnknownMember);
    assert!(matches!(world.take(), Output::Pause { .. }), "it does not spin");
}

#[test]
fn a_fenced_member_loses_all_and_ends() {
    let (mut world, waits) = World::reading(&[0]);
    world.step(Input::Commit { commit: CommitId(1), offsets: vec![offset(0, 9)] });
    world.commit();
    world.refuse(&waits, ErrorCode::MemberFenced);
    assert_eq!(world.take(), Output::Lost(vec![partition(0)]));
    assert_eq!(world.take(), Output::CommitFailed { commit: CommitId(1), code: ErrorCode::UnknownMember });
    assert_eq!(world.take(), Output::Failed(ErrorCode::MemberFenced));
    assert!(world.member.has_ended());
    world.coordinator(3);
    assert!(world.out.is_empty());
    world.step(Input::Commit { commit: CommitId(2), offsets: vec![] });
    assert!(matches!(world.take(), Output::CommitFailed { .. }));
}

#[test]
fn it_leaves_and_says_so_until_it_is_heard() {
    let (mut world, _) = World::reading(&[0]);
    world.step(Input::Leave { for_good: false });
    let leaves = world.heartbeat();
    assert_eq!((leaves.intent, leaves.owned.clone()), (MemberIntent::Leave, Some(vec![])));
    world.step(Input::HeartbeatFailed { sequence: leaves.sequence, failure: Failure::Unanswered });
    assert!(matches!(world.take(), Output::Pause { .. }));
    world.step(Input::Resume(Exchange::Heartbeat));
    let again = world.heartbeat();
    assert_eq!(again.intent, MemberIntent::Leave);
    world.answer(&again, 6, &[]);
    assert_eq!(world.take(), Output::Left);
    assert!(world.member.has_ended() && world.out.is_empty());
}

#[test]
fn commits_go_one_after_the_other_and_their_attempts_are_newer_each_time() {
    let (mut world, _) = World::reading(&[0, 1]);
    world.step(Input::Commit { commit: CommitId(1), offsets: vec![offset(0, 9), offset(3, 1)] });
    world.step(Input::Commit { commit: CommitId(2), offsets: vec![offset(0, 12)] });
    let first = world.commit();
    assert_eq!(first.offsets, [offset(0, 9)], "what it does not have is not asked for");
    assert!(world.out.is_empty());
    world.step(Input::CommitFailed { sequence: first.sequence, failure: Failure::Unanswered });
    assert_eq!(world.take(), Output::Pause { exchange: Exchange::Commit, failures: 1, needs_map: true });
    world.step(Input::Resume(Exchange::Commit));
    let again = world.commit();
    assert!(again.sequence > first.sequence && again.offsets == first.offsets);
    let outcome = |number, error| CommitOutcome { partition: partition(number), error };
    let answer = |request: &GroupCommitRequest, partitions| Input::CommitAnswered {
        sequence: request.sequence,
        reply: GroupCommitReply { partitions },
    };
    world.step(answer(&again, vec![outcome(0, None)]));
    let partitions = vec![outcome(0, None), outcome(3, Some(ErrorCode::NotAssigned))];
    assert_eq!(world.take(), Output::Committed { commit: CommitId(1), partitions });
    let second = world.commit();
    world.step(answer(&second, vec![outcome(0, Some(ErrorCode::NotAssigned))]));
    assert_eq!(world.take(), Output::Lost(vec![partition(0)]), "it is somebody else's");
    assert!(matches!(world.take(), Output::Committed { commit: CommitId(2), .. }));
    assert_eq!(world.heartbeat().owned, Some(vec![partition(1)]));
    assert_eq!(world.member.reading().collect::<Vec<_>>(), [partition(1)]);
}

#[test]
fn a_refused_commit_fails_alone() {
    let (mut world, _) = World::reading(&[0]);
    world.step(Input::Commit { commit: CommitId(1), offsets: vec![offset(0, 9)] });
    let commit = world.commit();
    let failure = Failure::Refused(ErrorCode::InvalidArgument);
    world.step(Input::CommitFailed { sequence: commit.sequence, failure });
    assert_eq!(world.take(), Output::CommitFailed { commit: CommitId(1), code: ErrorCode::InvalidArgument });
}

#[test]
fn an_older_generation_is_not_believed() {
    let (mut world, waits) = World::reading(&[0]);
    world.answer(&waits, 4, &[]);
    assert!(matches!(world.take(), Output::Pause { .. }));
    assert_eq!((world.member.generation(), world.member.reading().count()), (GroupGeneration(5), 1));
}
