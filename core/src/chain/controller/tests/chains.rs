//! Chains of several members: what must happen, one scenario for each row of the table.

use std::cell::Cell;

use super::*;
use crate::chain::peer::ComplaintReason;
use crate::coordination::BrokerRecord;
use crate::error_code::ErrorCode;
use crate::wire::{LearnRange, LearnReply, LearnReport, SealRange, SealReply, SealReport, SealRequest};

/// Three members for each range, on `nodes` nodes, with something in every log.
fn three(nodes: usize, ranges: u32) -> World {
    let mut world = World::new(3, ranges, &vec![2; nodes]);
    world.add_controller();
    world.settle(0);
    assert!(world.is_full());
    write_everywhere(&mut world);
    world.delivered.clear();
    world
}

fn nodes(world: &World, range: usize) -> Vec<u32> {
    active(world, range).chain.iter().map(|member| member.node.0).collect()
}

fn sent(world: &World, kind: &str) -> usize {
    world.delivered.iter().filter(|(_, message)| name(message) == kind).count()
}

fn complain(world: &mut World, by: u32, about: u32, reason: ComplaintReason) {
    let range = RangeKey { ring: RING, range: RangeId(0) };
    let epoch = active(world, 0).epoch;
    let complaint = Complaint { range, epoch, by: NodeId(by), about: NodeId(about), reason };
    world.input(0, Input::Complaints(vec![complaint]));
    world.settle(0);
}

/// A node that is registered and deaf.
fn settle_without(world: &mut World, deaf: u32, ms: u64) {
    settle_with(world, ms, |to, _| (to.node == NodeId(deaf)).then_some(Answer::Lost));
}

/// Some messages are answered by the test.
fn settle_with(world: &mut World, ms: u64, answered: impl Fn(&Destination, &Message) -> Option<Answer>) {
    let until = world.now_ms + ms;
    while world.now_ms <= until {
        let mut steps = 0;
        while !world.events.is_empty() {
            steps += 1;
            assert!(steps < 1_000, "it goes round and round");
            let event = world.events.remove(0);
            if let Event::Deliver { controller, to, message } = &event
                && let Some(answer) = answered(to, message)
            {
                world.input(*controller, Input::Answered { to: *to, message: message.clone(), answer });
                continue;
            }
            world.run(event, false);
        }
        world.now_ms += 20;
        world.input(0, Input::Tick);
    }
}

/// A controller that has not heard yet that two members were wiped and started again asks the processes that they were, and
/// nobody answers in their name: it must not wait for them, nor keep who they are now from learning. Found by a seed.
#[test]
fn who_was_asked_and_is_another_process_by_now_is_asked_as_what_it_is() {
    let mut world = World::new(3, 1, &[1; 3]);
    world.add_controller();
    world.settle(0);
    write_everywhere(&mut world);
    world.controllers.clear();
    world.events.clear();
    world.add_controller();
    world.wipe(1);
    world.wipe(2);
    // The watch is late: it tells between the claim and its answer.
    let is_news = |event: &Event| matches!(event, Event::Tell { input, .. } if matches!(**input, Input::Brokers(_)));
    let (mut news, others): (Vec<_>, Vec<_>) = world.events.drain(..).partition(is_news);
    world.events = others;
    while !news.is_empty() {
        while !world.events.is_empty() {
            let event = world.events.remove(0);
            if matches!(event, Event::Cas { .. }) {
                news.drain(..).for_each(|event| world.run(event, false));
            }
            world.run(event, false);
        }
        world.now_ms += 20;
        world.input(0, Input::Tick);
    }
    world.settle(60_000);
    assert!(world.is_whole(), "{:?}", world.alerts);
    write_everywhere(&mut world);
    assert_eq!(world.committed[&RangeId(0)].len(), 2, "what was there before is there");
}

#[test]
fn a_member_that_is_away_leaves_and_a_spare_learns_and_joins() {
    let mut world = three(4, 1);
    let gone = nodes(&world, 0)[1];
    world.stop(gone);
    world.settle(0);
    assert!(world.is_whole());
    let kept = world.actives[&(RangeId(0), Epoch(2))].chain.iter().map(|member| member.node.0).collect::<Vec<_>>();
    assert_eq!(kept.len(), 2, "first without the member");
    assert_eq!((active(&world, 0).epoch, active(&world, 0).chain.len()), (Epoch(3), 3), "then with a learner");
    assert_eq!(nodes(&world, 0)[..2], kept, "who was there keeps the order");
    assert!(!nodes(&world, 0).contains(&gone) && world.is_whole());
    assert!(sent(&world, "learn") > 0, "nobody joins without having been asked to learn");
}

#[test]
fn a_learner_with_a_gap_is_not_taken_in() {
    let mut world = three(4, 1);
    for _ in 0..limits::LEARN_GAP_MAX + 8 {
        world.write(RangeId(0));
    }
    let gone = nodes(&world, 0)[2];
    world.stop(gone);
    world.settle(limits::PROGRESS_POLL_MS);
    assert_eq!(active(&world, 0).chain.len(), 2, "two entries an answer: it lacks more than the gap");
    world.settle(5 * limits::PROGRESS_POLL_MS);
    assert!(world.chunk.ranges[0].pending.is_some(), "near enough after a few answers");
    world.settle(80 * limits::PROGRESS_POLL_MS);
    assert!(world.is_full(), "the rest is copied while sealed");
}

/// It says that it is ready, and never promises: each claim for its sake costs the range an epoch. Claims followed each other
/// within a millisecond, for as long as the learner was not asked how far it is, which it never was.
#[test]
fn a_learner_that_does_not_promise_costs_two_epochs_and_is_left_out() {
    let refuses = |to: &Destination, asked: &SealRequest, broker: &BrokerRecord| {
        let report = |asked: &SealRange| SealReport {
            range: asked.range,
            error: Some(ErrorCode::RangeFailed),
            promised: asked.epoch,
            marker: Epoch(0),
            end: LogPoint::START,
            last_epoch: Epoch(0),
            known_committed: LogIndex(0),
            damaged: false,
        };
        assert_eq!(to.node, broker.node);
        Answer::Seal(SealReply {
            incarnation: broker.incarnation,
            store: broker.store,
            ranges: asked.ranges.iter().map(report).collect(),
        })
    };
    for is_deaf in [true, false] {
        let mut world = three(4, 1);
        let spare = (1..=4).find(|node| !nodes(&world, 0).contains(node)).expect("one is not in the chain");
        let broker = world.node(spare).broker.clone();
        let gone = nodes(&world, 0)[2];
        world.stop(gone);
        let before = active(&world, 0).epoch.0;
        settle_with(&mut world, limits::EJECT_MS_MIN / 2, |to, message| match message {
            Message::Seal(_) if is_deaf && to.node == broker.node => Some(Answer::Lost),
            Message::Seal(asked) if to.node == broker.node => Some(refuses(to, asked, &broker)),
            _ => None,
        });
        let claims = u64::from(limits::LEARNER_SEALS_MISSED_MAX);
        assert_eq!(active(&world, 0).epoch.0, before + 1 + claims, "without the member, and twice for the learner");
        assert_eq!(nodes(&world, 0).len(), 2);
        assert!(world.is_whole(), "{}", world.unwell());
        world.settle(2 * limits::EJECT_MS_MIN);
        assert!(nodes(&world, 0).contains(&spare), "it is asked again when it was out for a while");
    }
}

#[test]
fn an_empty_range_gets_its_member_back_at_once() {
    let mut world = World::new(3, 1, &[1; 4]);
    world.add_controller();
    world.settle(0);
    let gone = nodes(&world, 0)[0];
    world.stop(gone);
    world.settle(3 * limits::PROGRESS_POLL_MS);
    assert!(world.is_full());
}

#[test]
fn below_the_floor_the_last_survivor_is_held_until_somebody_answers() {
    let mut world = three(3, 1);
    world.stop(1);
    world.stop(2);
    world.settle(0);
    let before = active(&world, 0).clone();
    assert!(world.alerts.iter().any(|alert| matches!(alert.reason, AlertReason::BelowFloor { members: 1, floor: 2 })));
    world.delivered.clear();
    let epoch = world.chunk.ranges[0].pending.expect("claimed and held").epoch;
    world.settle(10 * limits::PROGRESS_POLL_MS);
    assert_eq!(sent(&world, "seal"), 10, "asked again and again, so that it serves reads");
    assert_eq!(active(&world, 0), &before, "the old record stays");
    assert_eq!(world.chunk.ranges[0].pending.map(|pending| pending.epoch), Some(epoch), "in one epoch");
    // A wiped disk is a newcomer: it answers, and copies everything.
    world.wipe(1);
    world.settle(limits::PROGRESS_POLL_MS * 4);
    assert!(world.is_whole(), "{}", world.unwell());
    assert_eq!(nodes(&world, 0), [3, 1]);
    assert!(active(&world, 0).epoch > epoch, "a held epoch is not used for somebody else");
    write_everywhere(&mut world);
    assert!(world.committed.values().all(|log| log.len() == 2));
}

/// Both dead ones are still registered: the coordinator takes seconds to notice. The spare is not kept waiting for that.
#[test]
fn below_the_floor_a_spare_learns_before_the_coordinator_knows_who_is_dead() {
    let mut world = three(4, 1);
    let chain = nodes(&world, 0);
    let dead = [chain[0], chain[1]];
    world.input(
        0,
        Input::Complaints(vec![Complaint {
            range: RangeKey { ring: RING, range: RangeId(0) },
            epoch: active(&world, 0).epoch,
            by: NodeId(chain[2]),
            about: NodeId(chain[1]),
            reason: ComplaintReason::LinkLost,
        }]),
    );
    settle_with(&mut world, 1_000, |to, _| dead.contains(&to.node.0).then_some(Answer::Lost));
    let spare = (1..=4).find(|node| !chain.contains(node)).expect("one is not in the chain");
    assert_eq!(nodes(&world, 0), [chain[2], spare]);
    write_everywhere(&mut world);
    assert!(world.committed.values().all(|log| log.len() == 2));
    world.settle(2 * limits::EJECT_MS_MIN);
    assert!(world.is_full(), "and whoever answers again comes back: {}", world.unwell());
}

#[test]
fn below_the_floor_a_member_that_comes_back_while_the_seal_is_answered_is_asked_too() {
    let mut world = three(3, 1);
    (1..=3).for_each(|node| world.stop(node));
    world.settle(0);
    world.restart(3, 2);
    // Claimed with the only one there is; the others come before it answered.
    while !matches!(world.events.first(), Some(Event::Deliver { message: Message::Seal(_), .. })) {
        assert!(!world.events.is_empty(), "the survivor is sealed");
        let event = world.events.remove(0);
        world.run(event, false);
    }
    (1..=2).for_each(|node| world.restart(node, 2));
    let seal = world.events.remove(0);
    world.events.push(seal);
    world.settle(2 * limits::CHANGE_RETRY_MS_MAX);
    assert!(world.is_whole() && world.is_full(), "{}", world.unwell());
}

#[test]
fn all_survivors_gone_waits_for_one_of_them() {
    let mut world = three(4, 1);
    let members = nodes(&world, 0);
    members.iter().for_each(|node| world.stop(*node));
    world.settle(60_000);
    assert!(world.alerts.iter().any(|alert| matches!(alert.reason, AlertReason::NodeGone { .. })));
    world.restart(members[2], 2);
    world.settle(limits::PROGRESS_POLL_MS * 4);
    assert!(world.is_whole(), "one survivor and a spare are enough: {}", world.unwell());
}

#[test]
fn who_answers_the_seal_stays_and_is_left_out_when_complained_about_again() {
    let mut world = three(3, 1);
    complain(&mut world, 1, 2, ComplaintReason::LinkLost);
    assert_eq!((active(&world, 0).epoch, nodes(&world, 0)), (Epoch(2), vec![1, 2, 3]), "it answered");
    complain(&mut world, 1, 2, ComplaintReason::Stalled);
    assert_eq!((active(&world, 0).epoch, nodes(&world, 0)), (Epoch(3), vec![1, 3]), "again in the next epoch");
    world.settle(limits::EJECT_MS_MIN - 1_000);
    assert_eq!(nodes(&world, 0), [1, 3], "it stays out for a while");
    world.settle(1_000 + 4 * limits::PROGRESS_POLL_MS);
    assert_eq!(nodes(&world, 0), [1, 3, 2]);
}

#[test]
fn a_complaint_of_another_epoch_or_of_a_stranger_changes_nothing() {
    let mut world = three(4, 1);
    let before = world.chunk.clone();
    let stranger = (1..=4).find(|node| !nodes(&world, 0).contains(node)).expect("a spare");
    complain(&mut world, stranger, 1, ComplaintReason::LinkLost);
    let range = RangeKey { ring: RING, range: RangeId(0) };
    let (by, about, reason) = (NodeId(1), NodeId(2), ComplaintReason::Silent);
    world.input(0, Input::Complaints(vec![Complaint { range, epoch: Epoch(7), by, about, reason }]));
    world.settle(0);
    assert_eq!(world.chunk, before);
}

#[test]
fn the_floor_keeps_whom_everybody_complains_about() {
    let mut world = three(3, 1);
    world.stop(3);
    world.settle(0);
    for _ in 0..6 {
        complain(&mut world, 1, 2, ComplaintReason::LinkLost);
        world.settle(100);
    }
    assert_eq!(nodes(&world, 0), [1, 2]);
    assert!(active(&world, 0).epoch <= Epoch(8), "one change for each complaint at most");
}

#[test]
fn whose_disk_failed_leaves_at_once_until_it_is_started_again() {
    let mut world = three(3, 1);
    complain(&mut world, 2, 2, ComplaintReason::WriteFailed);
    assert_eq!(nodes(&world, 0), [1, 3]);
    world.settle(20 * limits::EJECT_MS_MIN);
    assert_eq!(nodes(&world, 0), [1, 3], "time does not heal a disk");
    world.restart(2, 2);
    world.settle(4 * limits::PROGRESS_POLL_MS);
    assert_eq!(nodes(&world, 0), [1, 3, 2]);
}

#[test]
fn a_member_that_does_not_answer_the_seal_is_left_behind() {
    let mut world = three(3, 1);
    complain_and_lose(&mut world, 2);
    assert_eq!(nodes(&world, 0), [1, 3]);
    assert!(world.now_ms < limits::SEAL_WAIT_MS, "nobody waited long for who was complained about");
}

#[test]
fn who_dies_again_and_again_is_replaced_at_once_every_time() {
    let mut world = three(3, 1);
    for life in 2..9 {
        complain_and_lose(&mut world, 2);
        assert_eq!(nodes(&world, 0), [1, 3], "life {life}: a chain does not flap because processes are killed");
        world.restart(2, life);
        world.settle(8 * limits::PROGRESS_POLL_MS);
        assert_eq!(nodes(&world, 0), [1, 3, 2], "life {life}");
    }
}

fn complain_and_lose(world: &mut World, about: u32) {
    let range = RangeKey { ring: RING, range: RangeId(0) };
    let epoch = active(world, 0).epoch;
    let (by, about_node, reason) = (NodeId(1), NodeId(about), ComplaintReason::LinkLost);
    world.input(0, Input::Complaints(vec![Complaint { range, epoch, by, about: about_node, reason }]));
    settle_without(world, about, limits::SUSPECT_WAIT_MS + 100);
}

#[test]
fn a_wish_moves_a_range_in_one_change_after_everybody_learned() {
    let mut world = three(6, 1);
    let before = nodes(&world, 0);
    let wanted: Vec<u32> = (1..=6).filter(|node| !before.contains(node)).collect();
    let wish = Some(wanted.iter().copied().map(NodeId).collect());
    world.input(0, Input::Desired { range: RangeId(0), nodes: wish });
    world.settle(4 * limits::PROGRESS_POLL_MS);
    assert_eq!((active(&world, 0).epoch, nodes(&world, 0)), (Epoch(2), wanted.clone()), "one change, in this order");
    let turned: Vec<NodeId> = wanted.iter().rev().copied().map(NodeId).collect();
    world.input(0, Input::Desired { range: RangeId(0), nodes: Some(turned) });
    world.settle(0);
    assert_eq!(nodes(&world, 0), wanted.iter().rev().copied().collect::<Vec<_>>(), "a reorder needs no learner");
    write_everywhere(&mut world);
    world.input(0, Input::Desired { range: RangeId(0), nodes: Some(vec![NodeId(1); 3]) });
    world.settle(60_000);
    assert!(world.is_full() && active(&world, 0).epoch == Epoch(3), "an impossible wish is none");
}

#[test]
fn who_learned_only_for_a_wish_stops_when_it_is_withdrawn() {
    let mut world = three(4, 1);
    let spare = (1..=4).find(|node| !nodes(&world, 0).contains(node)).expect("one of four");
    let wish = nodes(&world, 0)[..2].iter().copied().chain([spare]).map(NodeId).collect();
    world.input(0, Input::Desired { range: RangeId(0), nodes: Some(wish) });
    assert_eq!(world.controllers[0].learners().len(), 1);
    world.input(0, Input::Desired { range: RangeId(0), nodes: None });
    assert!(world.controllers[0].learners().is_empty());
    world.settle(4 * limits::PROGRESS_POLL_MS);
    assert!(!nodes(&world, 0).contains(&spare) && active(&world, 0).epoch == Epoch(1), "nothing came of it");
}

fn drain(world: &mut World, draining: &[u32]) {
    world.input(0, Input::Draining(draining.iter().copied().map(NodeId).collect()));
    world.settle(4 * limits::PROGRESS_POLL_MS);
}

#[test]
fn a_draining_node_is_in_no_first_chain() {
    let mut world = World::new(3, 8, &[2; 4]);
    world.add_controller();
    world.input(0, Input::Draining(BTreeSet::from([NodeId(2)])));
    world.settle(0);
    assert!(world.is_full());
    assert!((0..8).all(|range| !nodes(&world, range).contains(&2)), "one of the others is in its place");
    // With too few others the ring waits, and says for what.
    let mut world = World::new(3, 1, &[2; 3]);
    world.add_controller();
    drain(&mut world, &[2]);
    assert!(world.chunk.ranges[0].active.is_none());
    let alerts = world.controllers[0].alerts();
    assert_eq!(alerts[0].reason, AlertReason::TooFewNodes { live: 2, wanted: 3 });
    drain(&mut world, &[]);
    assert!(world.is_full(), "it is drained no more");
}

#[test]
fn a_draining_node_keeps_what_it_holds_and_takes_nobody_s_place() {
    let mut world = three(4, 1);
    let spare = (1..=4).find(|node| !nodes(&world, 0).contains(node)).expect("one of four");
    let (kept, gone) = (nodes(&world, 0)[0], nodes(&world, 0)[1]);
    drain(&mut world, &[spare, kept]);
    world.stop(gone);
    world.settle(4 * limits::PROGRESS_POLL_MS);
    assert_eq!(nodes(&world, 0).len(), 2, "nobody is in the place of who left");
    assert!(nodes(&world, 0).contains(&kept));
    assert!(world.controllers[0].learners().is_empty());
    drain(&mut world, &[]);
    assert!(nodes(&world, 0).contains(&spare));
}

#[test]
fn a_node_that_is_drained_while_it_learns_stops_learning_unless_it_is_wished_for() {
    let mut world = three(4, 1);
    let spare = (1..=4).find(|node| !nodes(&world, 0).contains(node)).expect("one of four");
    let wish: Vec<u32> = nodes(&world, 0)[..2].iter().copied().chain([spare]).collect();
    let gone = nodes(&world, 0)[2];
    world.stop(gone);
    settle_without(&mut world, spare, limits::PROGRESS_POLL_MS);
    let learners: Vec<NodeId> = world.controllers[0].learners().iter().map(|learner| learner.node).collect();
    assert_eq!(learners, [NodeId(spare)]);
    drain(&mut world, &[spare]);
    assert!(world.controllers[0].learners().is_empty() && !nodes(&world, 0).contains(&spare));
    let nodes_wished = Some(wish.iter().copied().map(NodeId).collect());
    world.input(0, Input::Desired { range: RangeId(0), nodes: nodes_wished });
    world.settle(4 * limits::PROGRESS_POLL_MS);
    assert_eq!(nodes(&world, 0), wish, "an explicit wish goes before");
}

#[test]
fn a_wished_node_that_stays_out_for_a_while_is_asked_again() {
    let mut world = three(4, 1);
    let spare = (1..=4).find(|node| !nodes(&world, 0).contains(node)).expect("one of four");
    let wish: Vec<NodeId> = nodes(&world, 0)[..2].iter().copied().chain([spare]).map(NodeId).collect();
    world.input(0, Input::Desired { range: RangeId(0), nodes: Some(wish.clone()) });
    settle_without(&mut world, spare, limits::PROGRESS_SILENCE_MS + 1_000);
    assert!(!nodes(&world, 0).contains(&spare), "it did not answer");
    world.settle(2 * limits::EJECT_MS_MIN);
    assert_eq!(nodes(&world, 0), wish.iter().map(|node| node.0).collect::<Vec<_>>());
}

#[test]
fn a_member_that_copies_for_long_is_not_given_up_and_one_that_stands_still_is() {
    let mut world = three(3, 1);
    for _ in 0..200 {
        world.write(RangeId(0));
    }
    world.stop(1);
    world.stop(2);
    world.settle(0);
    world.wipe(1);
    // Two entries an answer: a hundred polls, more than any silence may last.
    world.settle(110 * limits::PROGRESS_POLL_MS);
    assert!(world.is_whole());
    assert_eq!(nodes(&world, 0), [3, 1]);
    assert_eq!(active(&world, 0).epoch.0, world.chunk.ranges[0].epoch_max().0);
}

/// One that stands still is left out after a while; one whose source lets others copy first is not.
#[test]
fn a_learner_that_waits_for_its_turn_is_not_given_up() {
    for (error, is_kept) in [(ErrorCode::Throttled, true), (ErrorCode::TimedOut, false)] {
        let mut world = three(4, 1);
        let gone = nodes(&world, 0)[2];
        let spare = (1..=4).find(|node| !nodes(&world, 0).contains(node)).expect("one is not in the chain");
        let BrokerRecord { store, incarnation, .. } = world.node(spare).broker.clone();
        world.stop(gone);
        let asked = Cell::new(0);
        settle_with(&mut world, 60_000, |to, message| match message {
            Message::Learn(request) if to.node == NodeId(spare) => {
                asked.set(asked.get() + 1);
                let report = |asked: &LearnRange| LearnReport {
                    range: asked.range,
                    error: Some(error),
                    promised: Epoch(0),
                    end: LogIndex(0),
                    limit: Some(LogIndex(10_000)),
                };
                let ranges = request.ranges.iter().map(report).collect();
                Some(Answer::Learn(LearnReply { store, incarnation, ranges }))
            }
            _ => None,
        });
        let polls = 60_000 / limits::PROGRESS_POLL_MS;
        assert_eq!(asked.get() > polls * 9 / 10, is_kept, "{error:?}: asked {} times", asked.get());
    }
}

/// A head that lost the other brokers, and not the controller, has the longest log, and nobody can copy it. It was chosen as
/// the source again and again, and those who could not copy were left out for it.
#[test]
fn a_source_that_nobody_can_copy_from_is_done_without() {
    let mut world = three(3, 1);
    world.cuts = [(1, 2), (1, 3), (2, 1), (3, 1)].map(|(from, to)| (NodeId(from), NodeId(to))).into();
    world.write(RangeId(0));
    complain(&mut world, 2, 1, ComplaintReason::LinkLost);
    world.settle(1_000);
    assert_eq!(nodes(&world, 0), [2, 3]);
    assert!(world.is_whole());
    world.cuts.clear();
    world.settle(limits::EJECT_MS_MIN);
    assert_eq!(nodes(&world, 0), [2, 3, 1]);
}

#[test]
fn a_member_that_alone_cannot_copy_is_left_out_and_not_its_source() {
    let mut world = three(3, 1);
    world.cuts = [(NodeId(1), NodeId(3))].into();
    world.write(RangeId(0));
    complain(&mut world, 2, 3, ComplaintReason::Stalled);
    world.settle(1_000);
    assert_eq!(nodes(&world, 0), [1, 2]);
    assert!(world.is_whole());
}

/// Every survivor's log is damaged: the range waits, and goes on by itself as soon as one of them was mended from the others.
#[test]
fn a_range_whose_logs_are_all_damaged_waits_until_one_is_mended() {
    let mut world = three(3, 1);
    let chain = nodes(&world, 0);
    for node in &chain {
        world.node(*node).disks.get_mut(&RangeId(0)).expect("a log").damaged = true;
    }
    let epoch = active(&world, 0).epoch;
    chain.iter().for_each(|node| world.restart(*node, 1));
    world.settle(2_000);
    assert_eq!(active(&world, 0).epoch, epoch, "nobody is a survivor: {}", world.unwell());
    let waits = |alert: &Alert| matches!(alert.reason, AlertReason::Damaged { .. });
    assert!(world.controllers[0].alerts().iter().any(waits), "{:?}", world.controllers[0].alerts());
    let sealed = world.chunk.ranges[0].pending.expect("a change is under way").epoch;
    world.settle(5_000);
    assert_eq!(world.chunk.ranges[0].pending.expect("still").epoch, sealed, "it waits in one epoch");

    for node in &chain[..2] {
        world.node(*node).disks.get_mut(&RangeId(0)).expect("a log").damaged = false;
    }
    world.settle(2_000);
    assert!(active(&world, 0).epoch >= sealed, "{}", world.unwell());
    assert!(world.controllers[0].alerts().is_empty(), "{:?}", world.controllers[0].alerts());
    write_everywhere(&mut world);
    assert!(world.committed.values().all(|log| log.len() == 2));
}
