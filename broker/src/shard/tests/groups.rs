//! Consumer groups on a shard of one: what was told is there after any crash.
//!
//! Proof that they can fail: with `GroupToldBeforeCommitted` in force, `what_was_committed_is_there_after_any_crash` ends with
//! "40 is gone" at seed 0.

use minikafka_core::group::coordinator::{Answer as GroupAnswer, Refusal};
use minikafka_core::group::{GroupName, InstanceName};

use super::*;

pub(super) const MEMBER: MemberId = MemberId(77);

pub(super) fn group() -> GroupName {
    GroupName::new("g").expect("a good name")
}

/// A heartbeat of [`MEMBER`], which wants the 4 partitions of topic 9 and is told when it is the owner of all.
pub(super) fn heartbeat(
    epoch: Epoch,
    sequence: u64,
    generation: u64,
    owned: u32,
    wait_ms_max: u32,
) -> GroupHeartbeatRequest {
    let partition = |number| PartitionKey { topic: TopicId(9), partition: Partition(number) };
    GroupHeartbeatRequest {
        range: RANGE,
        epoch,
        group: group(),
        member: MEMBER,
        sequence: GroupSequence(sequence),
        generation: GroupGeneration(generation),
        instance: InstanceName::none(),
        client_name: String::new(),
        session_timeout_ms: 10_000,
        wait_ms_max,
        intent: MemberIntent::Stay,
        subscribed: Some(vec![TopicSubscription { topic: TopicId(9), partitions: 4 }]),
        owned: Some((0..owned).map(partition).collect()),
    }
}

pub(super) fn commit(epoch: Epoch, sequence: u64, generation: u64, offset: u64) -> GroupCommitRequest {
    let partition = PartitionKey { topic: TopicId(9), partition: Partition(0) };
    GroupCommitRequest {
        range: RANGE,
        epoch,
        group: group(),
        member: MEMBER,
        sequence: GroupSequence(sequence),
        generation: GroupGeneration(generation),
        offsets: vec![CommittedOffset { partition, offset: Offset(offset), metadata: "note".into() }],
    }
}

/// Something to be told, and whether it was.
pub(super) type Told = Rc<RefCell<Option<GroupAnswer>>>;

pub(super) fn note(told: &Told) -> crate::GroupCompletion {
    let told = told.clone();
    Box::new(move |answer| assert!(told.borrow_mut().replace(answer).is_none(), "a request is answered once"))
}

/// Waits, in virtual time, until something is told.
pub(super) async fn told(shard: &Rc<Shard<SimDisk>>, told: &Told) -> GroupAnswer {
    for _ in 0..60_000 {
        if let Some(answer) = told.borrow_mut().take() {
            return answer;
        }
        shard.disk().sleep(Duration::from_millis(1)).await;
    }
    panic!("nothing is told");
}

pub(super) async fn ask_heartbeat(shard: &Rc<Shard<SimDisk>>, heartbeat: GroupHeartbeatRequest) -> GroupAnswer {
    let answer = Told::default();
    shard.group_heartbeat(heartbeat, note(&answer));
    told(shard, &answer).await
}

pub(super) async fn ask_commit(shard: &Rc<Shard<SimDisk>>, commit: GroupCommitRequest) -> GroupAnswer {
    let answer = Told::default();
    shard.group_commit(commit, note(&answer));
    told(shard, &answer).await
}

/// Where the group is in partition 0.
pub(super) fn committed_offset(shard: &Rc<Shard<SimDisk>>, epoch: Epoch) -> Option<u64> {
    let asked = GroupOffsetsRequest { range: RANGE, epoch, group: group(), partitions: None };
    let offsets = shard.group_offsets(&asked).ok()?.offsets;
    offsets.first().map(|committed| committed.offset.0)
}

pub(super) fn generation_of(answer: &GroupAnswer) -> u64 {
    match answer {
        GroupAnswer::Heartbeat(reply) => reply.generation.0,
        other => panic!("{other:?}"),
    }
}

fn is_done(answer: &GroupAnswer) -> bool {
    matches!(answer, GroupAnswer::Committed(reply) if reply.partitions.iter().all(|outcome| outcome.error.is_none()))
}

#[test]
fn what_was_committed_is_there_after_any_crash() {
    for seed in 0..30 {
        println!("seed {seed}");
        let executor = SimExecutor::new(seed);
        let durability = [Durability::Dsync, Durability::GroupFdatasync][seed as usize % 2];
        let mut disk = SimDisk::new(&executor, durability);
        let mut acknowledged = 0;
        for life in 1..=4u64 {
            let done = Rc::new(Cell::new(acknowledged));
            let (disk_now, noted) = (disk.clone(), done.clone());
            let began = disk.moment();
            let task = executor.run(async move {
                let life = Life::begin(disk_now, life, life).await;
                assert!(
                    committed_offset(&life.shard, life.epoch).unwrap_or(0) >= noted.get(),
                    "{} is gone",
                    noted.get()
                );
                let joined = ask_heartbeat(&life.shard, heartbeat(life.epoch, life.epoch.0 * 1_000, 0, 0, 3_000)).await;
                // A new coordinator takes the owner of its log as it is, and tells it what it has.
                let generation = generation_of(&joined);
                let shard = life.shard.clone();
                life.shard.disk().spawn(async move {
                    for number in 1..=40 {
                        let request = commit(life.epoch, life.epoch.0 * 1_000 + number, generation, noted.get() + 1);
                        assert!(is_done(&ask_commit(&shard, request).await));
                        noted.set(noted.get() + 1);
                    }
                });
                life.shard.clone()
            });
            for _ in 0..executor.random(|random| random.below(400)) {
                executor.step();
            }
            let moment = disk.moment();
            assert!(moment > began);
            acknowledged = done.get();
            executor.abandon();
            drop(task);
            disk = disk.crash_at(moment, seed * 31 + life, &executor);
        }
        let found = executor.run(async move {
            let life = Life::begin(disk, 9, 5).await;
            committed_offset(&life.shard, life.epoch).unwrap_or(0)
        });
        assert!(
            found >= acknowledged && found <= acknowledged + 1,
            "{acknowledged} was acknowledged, {found} is there"
        );
        assert!(acknowledged > 0, "something was");
    }
}

#[test]
fn a_group_lives_on_in_snapshots_when_its_entries_are_freed() {
    let executor = SimExecutor::new(1);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let restarted = disk.clone();
    executor.run(async move {
        let life = Life::begin(disk, 1, 1).await;
        ask_heartbeat(&life.shard, heartbeat(life.epoch, 1, 0, 0, 3_000)).await;
        for number in 0..4_000 {
            assert!(is_done(&ask_commit(&life.shard, commit(life.epoch, 10 + number, 1, number)).await));
        }
        let stopping = Cell::new(false);
        for _ in 0..3 {
            life.shard.retention_round(true, &stopping).await;
        }
        assert!(life.shard.metrics.segments_dropped.get() > 0, "entries about groups take space for ever");
        life.shard.close().await.expect("closes");
    });
    let offset = executor.run(async move {
        let life = Life::begin(restarted, 2, 2).await;
        committed_offset(&life.shard, life.epoch)
    });
    assert_eq!(offset, Some(3_999));
}

#[test]
fn whoever_waits_is_told_when_the_coordinator_ends() {
    let executor = SimExecutor::new(2);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    executor.run(async move {
        let mut life = Life::begin(disk, 1, 1).await;
        let joined = ask_heartbeat(&life.shard, heartbeat(life.epoch, 1, 0, 0, 3_000)).await;
        let waits = Told::default();
        life.shard.group_heartbeat(heartbeat(life.epoch, 2, 1, 4, 3_000), note(&waits));
        assert!(waits.borrow().is_none() && generation_of(&joined) == 1);
        life.epoch = Epoch(2);
        life.change_epoch().await;
        let refused = |code| Some(GroupAnswer::Refused(Refusal { epoch: Epoch(2), ..Refusal::of(code) }));
        assert_eq!(waits.borrow_mut().take(), refused(ErrorCode::NotOwner));
        // Its successor is asked with the old epoch, then with the right one.
        let stale = Told::default();
        life.shard.group_heartbeat(heartbeat(Epoch(1), 3, 1, 4, 0), note(&stale));
        assert_eq!(stale.borrow_mut().take(), refused(ErrorCode::Stale));
        let taken = ask_heartbeat(&life.shard, heartbeat(life.epoch, 4, 1, 4, 0)).await;
        assert_eq!(generation_of(&taken), 1, "it has what it had");
        let waits = Told::default();
        life.shard.group_heartbeat(heartbeat(life.epoch, 5, 1, 4, 3_000), note(&waits));
        life.shard.close().await.expect("closes");
        let stopping = Some(GroupAnswer::Refused(Refusal::of(ErrorCode::ShuttingDown)));
        assert_eq!(waits.borrow_mut().take(), stopping);
    });
}

#[test]
fn entries_about_groups_come_from_their_coordinator_alone() {
    let executor = SimExecutor::new(3);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    executor.run(async move {
        let life = Life::begin(disk, 1, 1).await;
        let refused = life.control(ControlEntry::GroupDelete { group: group() }).await;
        assert_eq!(refused, Some(ErrorCode::InvalidArgument));
        let list = GroupListRequest { ranges: vec![GroupListRange { range: RANGE, epoch: life.epoch }] };
        assert_eq!(life.shard.group_list(&list).ranges[0].groups, []);
        ask_heartbeat(&life.shard, heartbeat(life.epoch, 1, 0, 0, 3_000)).await;
        let names: Vec<_> = life.shard.group_list(&list).ranges[0].groups.iter().map(|of| of.group.clone()).collect();
        assert_eq!(names, [group()]);
        let other = RangeKey { ring: RingId(1), range: RangeId(6) };
        let list = GroupListRequest { ranges: vec![GroupListRange { range: other, epoch: life.epoch }] };
        assert_eq!(life.shard.group_list(&list).ranges[0].error, Some(ErrorCode::NotOwner));
    });
}
