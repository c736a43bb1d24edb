//! The controller against a world of nodes: what must happen with chains of one, one scenario each; `chains` has
//! those of longer ones, `random` what must never happen.

mod chains;
mod random;
mod world;

use super::*;
use crate::chain::ChainMember;
use crate::coordination::{ActiveChain, PendingChange, RangeRecord};
use world::*;

fn one_node(ranges: u32, shards: u16) -> World {
    let mut world = World::new(1, ranges, &[shards]);
    world.add_controller();
    world.settle(0);
    world
}

fn active(world: &World, range: usize) -> &ActiveChain {
    world.chunk.ranges[range].active.as_ref().expect("an active range")
}

fn write_everywhere(world: &mut World) {
    (0..world.chunk.ranges.len() as u32).for_each(|range| world.write(RangeId(range)));
}

#[test]
fn a_ring_begins_in_epoch_1_with_one_claim_and_one_seal_per_shard() {
    let world = one_node(256, 4);
    assert!(world.is_whole());
    for (at, record) in world.chunk.ranges.iter().enumerate() {
        let active = record.active.as_ref().expect("every range is active");
        assert_eq!((active.epoch, active.start), (Epoch(1), LogPoint::START));
        assert_eq!(active.chain.len(), 1);
        assert_eq!(active.chain[0].shard, ShardId(at as u16 % 4));
    }
    let seals = world.delivered.iter().filter(|(_, message)| matches!(message, Message::Seal(_))).count();
    assert_eq!(seals, 4, "one seal per shard");
    assert!(world.cas_count <= 5, "one claim and at most one commit per shard, not {}", world.cas_count);
    assert!(world.alerts.is_empty(), "{:?}", world.alerts);
}

#[test]
fn a_restarted_member_is_readmitted_in_a_new_epoch_with_all_it_had() {
    let mut world = one_node(16, 2);
    write_everywhere(&mut world);
    world.restart(1, 2);
    world.settle(0);
    assert!(world.is_whole());
    let first = active(&world, 0).clone();
    assert_eq!((first.epoch, first.start.index), (Epoch(2), LogIndex(1)));
    assert_eq!(first.chain[0].incarnation, world.node(1).broker.incarnation);
    write_everywhere(&mut world);
    assert!(world.committed.values().all(|log| log.len() == 2));
}

#[test]
fn another_number_of_shards_spreads_the_ranges_anew() {
    for shards in [1, 3, 8] {
        let mut world = one_node(256, 4);
        write_everywhere(&mut world);
        world.restart(1, shards);
        world.settle(0);
        assert!(world.is_whole());
        let held = |shard| (0..256).filter(|range| active(&world, *range).chain[0].shard == ShardId(shard)).count();
        assert!((0..shards).all(|shard| held(shard).abs_diff(256 / usize::from(shards)) <= 1), "{shards} shards");
    }
}

#[test]
fn a_wiped_disk_is_not_a_survivor_and_the_old_one_is_welcome() {
    let mut world = one_node(8, 2);
    write_everywhere(&mut world);
    let before = world.chunk.clone();
    let (store, disks) = (world.node(1).broker.store, world.node(1).disks.clone());
    world.wipe(1);
    world.settle(60_000);
    assert_eq!(world.chunk, before, "nothing changes for a wiped disk");
    let alert =
        Alert { ring: RING, ranges: (0..8).map(RangeId).collect(), reason: AlertReason::WipedDisk { node: NodeId(1) } };
    assert_eq!(world.alerts, std::slice::from_ref(&alert), "said once, for all ranges");
    assert_eq!(world.controllers[0].alerts(), [alert]);
    world.node(1).broker.store = store;
    world.node(1).disks = disks;
    world.restart(1, 2);
    world.settle(0);
    assert!(world.is_whole());
    assert!(world.controllers[0].alerts().is_empty());
}

#[test]
fn a_lost_log_under_the_right_store_is_not_a_survivor() {
    let mut world = one_node(2, 1);
    write_everywhere(&mut world);
    world.node(1).disks.insert(RangeId(1), Disk::default());
    world.restart(1, 1);
    world.settle(60_000);
    assert_eq!(active(&world, 0).epoch, Epoch(2));
    assert_eq!(active(&world, 1).epoch, Epoch(1), "the other range waits");
    assert_eq!(world.alerts.len(), 1);
    assert_eq!(world.alerts[0].reason, AlertReason::NotASurvivor { node: NodeId(1) });
}

#[test]
fn a_node_that_is_away_changes_nothing() {
    let mut world = one_node(4, 1);
    let before = world.chunk.clone();
    world.stop(1);
    world.settle(60_000);
    assert_eq!(world.chunk, before);
    assert_eq!(world.alerts[0].reason, AlertReason::NodeGone { node: NodeId(1) });
    world.restart(1, 1);
    world.settle(0);
    assert!(world.is_whole());
}

#[test]
fn data_that_the_coordinator_does_not_know_are_not_overwritten() {
    let mut world = one_node(1, 1);
    write_everywhere(&mut world);
    world.chunk.ranges[0] = RangeRecord::default();
    world.version = KeyVersion(1000);
    world.controllers.clear();
    world.events.clear();
    world.add_controller();
    world.settle(60_000);
    assert!(world.chunk.ranges[0].active.is_none());
    assert_eq!(world.alerts.len(), 1);
    assert_eq!(world.alerts[0].reason, AlertReason::LogWithoutRecord { node: NodeId(1) });
    assert_eq!(world.node(1).disks[&RangeId(0)].log.len(), 1);
}

#[test]
fn an_orphaned_claim_is_taken_over_under_a_higher_epoch() {
    let mut world = one_node(4, 2);
    world.chunk.ranges[2].pending = Some(PendingChange { epoch: Epoch(7), writer: WriterId(1) });
    world.version = KeyVersion(world.version.0 + 1);
    world.controllers.clear();
    world.add_controller();
    world.settle(0);
    assert!(world.is_whole());
    assert_eq!(active(&world, 2).epoch, Epoch(8));
    assert_eq!(active(&world, 1).epoch, Epoch(1), "the others are only told again");
}

#[test]
fn a_claim_that_appears_meanwhile_gets_time_before_it_is_taken_over() {
    let mut world = one_node(1, 1);
    world.chunk.ranges[0].pending = Some(PendingChange { epoch: Epoch(2), writer: WriterId(1) });
    world.version = KeyVersion(world.version.0 + 1);
    let read = Input::ChunkRead { chunk: world.chunk.clone(), version: world.version };
    world.input(0, read);
    world.settle(limits::ORPHAN_WAIT_MS - 1);
    assert!(world.chunk.ranges[0].pending.is_some());
    world.settle(limits::ORPHAN_WAIT_MS);
    assert!(world.is_whole(), "{:?}", world.chunk);
    assert_eq!(active(&world, 0).epoch, Epoch(3));
}

#[test]
fn a_lost_seal_reply_costs_an_epoch_and_a_lost_reconcile_reply_only_time() {
    for (lost, epoch) in [("seal", 2), ("reconcile", 1)] {
        let mut world = World::new(1, 1, &[1]);
        world.add_controller();
        let mut dropped = false;
        while let Some(event) = (!world.events.is_empty()).then(|| world.events.remove(0)) {
            let event = match event {
                Event::Tell { controller, input } => match *input {
                    Input::Answered { to, message, .. } if !dropped && name(&message) == lost => {
                        dropped = true;
                        let input = Box::new(Input::Answered { to, message, answer: Answer::Lost });
                        Event::Tell { controller, input }
                    }
                    input => Event::Tell { controller, input: Box::new(input) },
                },
                other => other,
            };
            world.run(event, false);
        }
        world.settle(limits::PROGRESS_POLL_MS);
        assert!(world.is_whole());
        assert_eq!(active(&world, 0).epoch, Epoch(epoch), "after a lost {lost} reply");
    }
}

#[test]
fn a_lost_activate_reply_repeats_the_notice_in_the_same_epoch() {
    let mut world = World::new(1, 1, &[1]);
    world.add_controller();
    let is_activate = |event: &Event| matches!(event, Event::Deliver { message: Message::Activate(_), .. });
    while let Some(event) = (!world.events.is_empty()).then(|| world.events.remove(0)) {
        if !is_activate(&event) {
            world.run(event, false);
        }
    }
    assert!(!world.is_whole());
    world.settle(limits::ACTIVATE_WAIT_MS + limits::CHANGE_RETRY_MS_MIN);
    assert!(world.is_whole());
    assert_eq!(active(&world, 0).epoch, Epoch(1));
}

#[test]
fn an_unknown_commit_is_found_in_the_record_and_told() {
    let mut world = World::new(1, 4, &[1]);
    world.add_controller();
    while let Some(event) = (!world.events.is_empty()).then(|| world.events.remove(0)) {
        let commits = matches!(&event, Event::Cas { chunk, .. } if chunk.ranges[0].active.is_some());
        world.run(event, commits);
    }
    assert!(world.is_whole());
    assert_eq!(active(&world, 0).epoch, Epoch(1));
}

#[test]
fn a_head_that_missed_its_activation_is_told_again() {
    let mut world = one_node(2, 1);
    world.delivered.clear();
    world.input(0, Input::ControlRefused { range: RangeId(1), epoch: Epoch(1) });
    world.settle(0);
    let told: Vec<&str> = world.delivered.iter().map(|(_, message)| name(message)).collect();
    assert_eq!(told, ["activate"]);
}

#[test]
fn chains_of_three_need_three_nodes_to_begin_and_two_to_go_on() {
    let mut world = World::new(3, 8, &[2, 2, 2]);
    world.stop(3);
    world.add_controller();
    world.settle(0);
    assert_eq!(world.alerts[0].reason, AlertReason::TooFewNodes { live: 2, wanted: 3 });
    world.restart(3, 2);
    world.settle(0);
    assert!(world.is_whole());
    write_everywhere(&mut world);
    world.stop(2);
    world.settle(0);
    assert!(world.is_whole());
    assert!((0..8).all(|range| active(&world, range).chain.len() == 2));
    world.stop(1);
    world.settle(0);
    assert!(world.alerts.iter().any(|alert| alert.reason == AlertReason::BelowFloor { members: 1, floor: 2 }));
    world.restart(1, 2);
    world.settle(0);
    assert!(world.is_whole());
    write_everywhere(&mut world);
    assert!(world.committed.values().all(|log| log.len() == 2));
}

static NOBODY: std::collections::BTreeSet<NodeId> = std::collections::BTreeSet::new();

fn terms(replication: u16) -> decide::Terms<'static> {
    decide::Terms { epoch: Epoch(6), replication, wish: None, unwanted: &[], bad_sources: &NOBODY }
}

#[test]
fn the_source_is_the_survivor_with_the_highest_last_epoch_and_end() {
    let member = |node| ChainMember {
        node: NodeId(node),
        shard: ShardId(0),
        store: StoreId(node.into()),
        incarnation: Incarnation(node.into()),
    };
    let report = |last_epoch, index, marker, known_committed| crate::wire::SealReport {
        range: RangeId(0),
        error: None,
        promised: Epoch(6),
        marker: Epoch(marker),
        end: LogPoint { index: LogIndex(index), hash: RunningHash(index) },
        last_epoch: Epoch(last_epoch),
        known_committed: LogIndex(known_committed),
        damaged: false,
    };
    let active = ActiveChain { epoch: Epoch(5), chain: vec![member(1), member(2), member(3)], start: LogPoint::START };
    let check = |reports: [crate::wire::SealReport; 3], expected: Result<u32, AlertReason>| {
        let sealed: Vec<_> = (1..).map(member).zip(&reports).collect();
        let decided = decide::decide_next(&terms(3), &active, &sealed);
        assert_eq!(decided.map(|decision| decision.source.expect("a source").node.0), expected);
    };
    check([report(5, 9, 5, 3), report(5, 8, 5, 3), report(4, 99, 5, 3)], Ok(1));
    check([report(4, 9, 5, 3), report(5, 8, 5, 3), report(5, 12, 4, 3)], Ok(2));
    check(
        [report(5, 9, 5, 3), report(6, 8, 5, 3), report(5, 7, 5, 3)],
        Err(AlertReason::EpochAhead { node: NodeId(2) }),
    );
    check(
        [report(5, 9, 5, 3), report(5, 8, 5, 9), report(5, 9, 4, 10)],
        Err(AlertReason::BehindCommitted { node: NodeId(1) }),
    );
    // Below the floor a member that lost its log begins anew, with the survivor as its source.
    check([report(5, 9, 5, 3), report(5, 8, 4, 9), report(5, 9, 4, 9)], Ok(1));
    check(
        [report(5, 9, 4, 3), report(5, 8, 4, 9), report(5, 9, 4, 9)],
        Err(AlertReason::NotASurvivor { node: NodeId(1) }),
    );
    let damaged = |report| crate::wire::SealReport { damaged: true, ..report };
    check([damaged(report(5, 9, 5, 3)), report(5, 8, 5, 3), report(5, 7, 5, 3)], Ok(2));
    check(
        [damaged(report(5, 9, 5, 3)), report(5, 8, 5, 9), report(5, 9, 4, 9)],
        Err(AlertReason::BehindCommitted { node: NodeId(2) }),
    );
    let sealed = [damaged(report(5, 9, 5, 3)), report(5, 8, 5, 3)];
    let sealed: Vec<_> = (1..).map(member).zip(&sealed).collect();
    let decision = decide::decide_next(&terms(3), &active, &sealed).expect("the floor needs the damaged one");
    assert_eq!((decision.source, decision.chain), (Some(member(2)), vec![member(2), member(1)]));
    assert_eq!(decision.start.index, LogIndex(8), "what it has beyond was never committed");
    check(
        [damaged(report(5, 9, 5, 3)), damaged(report(5, 8, 5, 3)), report(5, 9, 4, 9)],
        Err(AlertReason::Damaged { node: NodeId(1) }),
    );
}

#[test]
fn the_only_member_is_activated_with_a_damaged_log_but_not_with_a_short_one() {
    let (node, store, incarnation) = (NodeId(1), StoreId(1), Incarnation(1));
    let me = ChainMember { node, shard: ShardId(0), store, incarnation };
    let start = LogPoint { index: LogIndex(9), hash: RunningHash(9) };
    let active = ActiveChain { epoch: Epoch(5), chain: vec![me], start };
    let report = |index, marker| crate::wire::SealReport {
        range: RangeId(0),
        error: None,
        promised: Epoch(6),
        marker: Epoch(marker),
        end: LogPoint { index: LogIndex(index), hash: RunningHash(index) },
        last_epoch: Epoch(5),
        known_committed: LogIndex(0),
        damaged: true,
    };
    let decide = |report| decide::decide_next(&terms(1), &active, &[(me, &report)]);
    let decision = decide(report(12, 5)).expect("there is nobody else");
    assert_eq!((decision.chain, decision.start.index), (vec![me], LogIndex(12)), "at its own end");
    assert_eq!(decide(report(8, 5)), Err(AlertReason::BehindCommitted { node }), "an end below the start is rot");
    assert_eq!(decide(report(12, 4)), Err(AlertReason::NotASurvivor { node }));
}

fn name(message: &Message) -> &'static str {
    match message {
        Message::Seal(_) => "seal",
        Message::Reconcile(_) => "reconcile",
        Message::Activate(_) => "activate",
        Message::Learn(_) => "learn",
    }
}
