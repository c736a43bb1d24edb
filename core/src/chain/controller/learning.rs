//! Learners: nodes that copy a range in the background before they join its chain (R7).
//!
//! Learning is not an epoch: it goes on beside whatever the range does, and survives changes of the record that leave the
//! learner what it is. A learner is asked again and again, because the answer tells how far it is. It is also the proof that
//! a node can be reached before anything is sealed for its sake (R8), so a refusal counts as an answer.

use std::collections::{BTreeMap, BTreeSet};

use super::need::{Brokers, View, live_again, member, possible_wish};
use super::outbox::Outbox;
use super::range::{Phase, RangeState};
use super::seats::{Seats, try_next_seat};
use super::{Answer, ChunkController, Destination, Known, position, range_id};
use crate::chain::ChainMember;
use crate::coordination::{ActiveChain, BrokerRecord, RingChunk};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::{LEARN_GAP_MAX, LEARNER_SEALS_MISSED_MAX, PROGRESS_POLL_MS, PROGRESS_SILENCE_MS};
use crate::ring::placement::{Room, newcomer};
use crate::wire::{LearnRange, LearnReport, LearnRequest};

/// How near a learner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has not answered yet.
    Unknown,
    /// It can be reached.
    Answers,
    /// It lacks little.
    Ready,
}

/// A node that copies a range in the background, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnerStatus {
    /// The range.
    pub range: RangeId,
    /// Who copies it.
    pub node: NodeId,
    /// The last entry that it has.
    pub end: LogIndex,
    /// The last entry that its source had to give; 0: it has not said so yet.
    pub limit: LogIndex,
    /// It lacks so little that it joins with the next change.
    pub is_ready: bool,
}

/// A node that learns.
#[derive(Clone, Debug)]
pub(super) struct Learner {
    pub(super) member: ChainMember,
    pub(super) progress: Progress,
    /// It learned already: the range is opened on this shard.
    is_opened: bool,
    /// Sources it was given without getting further.
    sources_tried: usize,
    end: LogIndex,
    limit: Option<LogIndex>,
    /// Changes that were made without it, because it did not promise.
    seals_missed: u32,
    /// When it answered last.
    heard_ms: u64,
    /// When it last got further.
    moved_ms: u64,
    poll_at_ms: u64,
}

impl Learner {
    fn new(member: ChainMember, now_ms: u64) -> Self {
        Self {
            member,
            progress: Progress::Unknown,
            is_opened: false,
            sources_tried: 0,
            end: LogIndex(0),
            limit: None,
            seals_missed: 0,
            heard_ms: now_ms,
            moved_ms: now_ms,
            poll_at_ms: now_ms,
        }
    }

    pub(super) fn status(&self, range: RangeId) -> LearnerStatus {
        let is_ready = self.progress == Progress::Ready;
        LearnerStatus { range, node: self.member.node, end: self.end, limit: self.limit.unwrap_or_default(), is_ready }
    }

    /// Whom to copy from: the tail works least, so the chain's members from behind, those that can serve first.
    fn source(&self, active: &ActiveChain, brokers: &Brokers, bad: &BTreeSet<NodeId>) -> Option<ChainMember> {
        let mut sources: Vec<ChainMember> = active.chain.iter().rev().copied().collect();
        sources.retain(|source| source.node != self.member.node);
        let is_there = |s: &ChainMember| brokers.get(&s.node).is_some_and(|b| b.incarnation == s.incarnation);
        sources.sort_by_key(|source| (!is_there(source), bad.contains(&source.node)));
        let there = sources.iter().filter(|source| is_there(source)).count().max(1);
        sources.get(self.sources_tried % there).copied()
    }

    /// A change for its sake was made without it. What it said of itself before does not count any more.
    pub(super) fn missed_seal(&mut self) {
        self.seals_missed += 1;
        self.progress = Progress::Unknown;
    }

    /// Takes what it says about itself, in the active epoch.
    fn report(&mut self, now_ms: u64, report: &LearnReport) {
        if (self.end, self.limit) != (report.end, report.limit) {
            (self.end, self.limit) = (report.end, report.limit);
            (self.moved_ms, self.sources_tried) = (now_ms, 0);
        }
        let is_near = report.limit.is_some_and(|limit| limit.0.saturating_sub(report.end.0) <= LEARN_GAP_MAX);
        let is_ready = report.error.is_none() && is_near;
        self.progress = if is_ready { Progress::Ready } else { Progress::Answers };
    }
}

impl ChunkController {
    /// Lets nodes learn where a chain lacks members, and asks those that learn how far they are.
    pub(super) fn teach(&mut self, now_ms: u64, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let mut seats = Seats::new(chunk, &self.brokers, &self.draining, &mut self.seats);
        let mut held = None;
        for (at, state) in self.ranges.iter_mut().enumerate() {
            let Some(active) = &chunk.ranges[at].active else { continue };
            let range = range_id(chunk, at);
            let wish = self.desired.get(&range).filter(|nodes| possible_wish(nodes, chunk.replication));
            let view = View {
                now_ms,
                replication: chunk.replication,
                brokers: &self.brokers,
                wish: wish.map(|nodes| nodes.as_slice()),
                draining: &self.draining,
            };
            drop_learners(&view, active, state);
            let wanted = wanted(&view, active, state);
            if wanted > 0 || view.wish.is_some() {
                let held = held.get_or_insert_with(|| places_held(chunk));
                add_learners(&view, active, state, &mut seats, at, wanted, held);
            }
            if state.return_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                state.look_again(now_ms);
            }
            let waits = wanted > 0 || view.wish.is_some();
            state.return_at_ms = if waits { state.suspicions.next_return_ms(now_ms) } else { None };
            ask(&view, active, state, range, outbox);
        }
    }

    /// What came of a learn request.
    pub(super) fn learned(
        &mut self,
        now_ms: u64,
        to: Destination,
        request: &LearnRequest,
        answer: &Answer,
        outbox: &mut Outbox,
    ) {
        let (Some(Known { chunk, .. }), Answer::Learn(reply)) = (&self.known, answer) else { return };
        let reports: BTreeMap<RangeId, &LearnReport> =
            reply.ranges.iter().map(|report| (report.range, report)).collect();
        for asked in &request.ranges {
            let Some(at) = position(chunk, asked.range) else { continue };
            let (Some(report), Some(active)) = (reports.get(&asked.range), &chunk.ranges[at].active) else { continue };
            let state = &mut self.ranges[at];
            let Some(learner) = state.learners.get_mut(&to.node) else { continue };
            let ChainMember { shard, store, incarnation, .. } = learner.member;
            if (shard, store, incarnation) != (to.shard, reply.store, reply.incarnation) || asked.epoch != active.epoch
            {
                continue;
            }
            state.silent.remove(&to.node);
            let before = learner.progress;
            learner.heard_ms = now_ms;
            learner.report(now_ms, report);
            match report.error {
                None | Some(ErrorCode::CatchingUp) => learner.is_opened = true,
                // It waits for its turn, which is no fault of its source.
                Some(ErrorCode::Throttled) => (learner.is_opened, learner.moved_ms) = (true, now_ms),
                // Its source answers so too, when it was started again; then the learner is a learner all the same.
                Some(ErrorCode::NotOwner) if learner.is_opened => {
                    learner.sources_tried += 1;
                }
                Some(ErrorCode::NotOwner) => {
                    if let Some(broker) = self.brokers.get(&to.node) {
                        learner.member.shard = try_next_seat(&mut self.seats, broker, at, shard);
                    }
                    // Of this shard nothing is known.
                    learner.progress = Progress::Unknown;
                }
                // It promised more than this controller knows of: the record tells.
                Some(ErrorCode::Stale) if report.promised > chunk.ranges[at].epoch_max().max(state.seen) => {
                    state.seen = report.promised;
                    if !self.reading && self.in_flight.is_none() {
                        self.reading = true;
                        outbox.read();
                    }
                }
                Some(ErrorCode::Stale) => {}
                Some(error) => {
                    if error == ErrorCode::DataDamaged {
                        state.suspicions.bad_sources.insert(asked.source.node);
                    }
                    learner.sources_tried += 1;
                }
            }
            if learner.progress != before && learner.progress != Progress::Unknown {
                state.look_again(now_ms);
            }
        }
    }
}

/// How many nodes the chain lacks, if there is anybody to copy from.
fn wanted(view: &View<'_>, active: &ActiveChain, state: &RangeState) -> usize {
    let is_fit = |broker: &BrokerRecord| {
        !state.suspicions.has_failed(broker) && !state.suspicions.is_left_out(broker.node, view.now_ms)
    };
    let live: Vec<&BrokerRecord> = active.chain.iter().filter_map(|old| live_again(old, view.brokers)).collect();
    if live.is_empty() {
        return 0;
    }
    let mut fit: BTreeSet<NodeId> =
        live.into_iter().filter(|broker| is_fit(broker)).map(|broker| broker.node).collect();
    // Below the floor nobody waits for the coordinator to tell that who does not promise is gone.
    if fit.iter().filter(|node| !state.silent.contains(node)).count() < view.floor() {
        fit.retain(|node| !state.silent.contains(node));
    }
    let outside = |node: &&NodeId| !fit.contains(node) && view.brokers.get(node).is_some_and(is_fit);
    let wished = view.wish.iter().flat_map(|wish| wish.iter()).filter(outside).count();
    view.size().saturating_sub(fit.len() + wished)
}

/// Learners that have become members, are gone or another process, say nothing, get nowhere, or do not promise.
fn drop_learners(view: &View<'_>, active: &ActiveChain, state: &mut RangeState) {
    let RangeState { learners, suspicions, phase, .. } = state;
    let sources = active.chain.len().max(1);
    let below = active.chain.iter().filter(|old| live_again(old, view.brokers).is_some()).count() < view.floor();
    let under_way: Vec<NodeId> = phase.participants().iter().map(|member| member.node).collect();
    learners.retain(|node, learner| {
        if under_way.contains(node) {
            // It has other things to do than to answer.
            learner.heard_ms = view.now_ms;
            learner.moved_ms = view.now_ms;
        }
        let Learner { member, .. } = learner;
        let lives = view.brokers.get(node).is_some_and(|broker| {
            broker.incarnation == member.incarnation && broker.store == member.store && !suspicions.has_failed(broker)
        });
        let joined = active.chain.iter().any(|m| m.node == *node && m.store == member.store);
        if !lives || joined || view.keeps_out(*node) {
            return false;
        }
        if view.now_ms >= learner.moved_ms + PROGRESS_SILENCE_MS * 2 {
            (learner.sources_tried, learner.moved_ms) = (learner.sources_tried + 1, view.now_ms);
        }
        let is_silent = view.now_ms >= learner.heard_ms + PROGRESS_SILENCE_MS;
        let is_useless = learner.sources_tried >= 2 * sources || learner.seals_missed >= LEARNER_SEALS_MISSED_MAX;
        if is_silent || is_useless && !below {
            suspicions.leave_out(*node, view.now_ms);
            return false;
        }
        true
    });
}

/// Who is wished for, whatever the number, and then `wanted` others.
fn add_learners(
    view: &View<'_>,
    active: &ActiveChain,
    state: &mut RangeState,
    seats: &mut Seats<'_>,
    at: usize,
    wanted: usize,
    held: &mut BTreeMap<NodeId, usize>,
) {
    let is_member =
        |broker: &BrokerRecord| active.chain.iter().any(|m| m.node == broker.node && m.store == broker.store);
    let may = |state: &RangeState, broker: &BrokerRecord, is_urgent: bool| {
        !is_member(broker)
            && !broker.shards.is_empty()
            && !state.suspicions.has_failed(broker)
            && (is_urgent || !state.suspicions.is_left_out(broker.node, view.now_ms))
            && !state.learners.contains_key(&broker.node)
    };
    let wish = view.wish.unwrap_or_default();
    for broker in wish.iter().filter_map(|node| view.brokers.get(node)) {
        if may(state, broker, false) {
            let learner = Learner::new(member(broker, seats.shard(broker, at)), view.now_ms);
            state.learners.insert(broker.node, learner);
        }
    }
    let others = |state: &RangeState| state.learners.keys().filter(|node| !wish.contains(node)).count();
    while others(state) > wanted {
        let Some(node) = state.learners.keys().rev().find(|node| !wish.contains(node)).copied() else { break };
        state.learners.remove(&node);
    }
    let live = active.chain.iter().filter(|old| live_again(old, view.brokers).is_some());
    let mut chain: Vec<NodeId> = live.map(|member| member.node).chain(state.learners.keys().copied()).collect();
    while others(state) < wanted {
        let rooms = |is_urgent: bool| -> Vec<Room<'_>> {
            let may = |broker: &&BrokerRecord| !view.keeps_out(broker.node) && may(state, broker, is_urgent);
            let brokers = view.brokers.values().filter(may);
            brokers.map(|broker| room(broker, held)).collect()
        };
        // Below the floor somebody who stays out is better than nobody.
        let is_urgent = chain.len() < view.floor();
        let rack = |node: NodeId| view.brokers.get(&node).map_or("", |broker| broker.rack.as_str());
        let found = newcomer(&rooms(false), &chain, rack).or_else(|| newcomer(&rooms(is_urgent), &chain, rack));
        let Some(broker) = found.and_then(|node| view.brokers.get(&node)) else { break };
        state.learners.insert(broker.node, Learner::new(member(broker, seats.shard(broker, at)), view.now_ms));
        *held.entry(broker.node).or_default() += 1;
        chain.push(broker.node);
    }
}

fn room<'a>(broker: &'a BrokerRecord, held: &BTreeMap<NodeId, usize>) -> Room<'a> {
    let held = held.get(&broker.node).copied().unwrap_or_default();
    Room { node: broker.node, rack: &broker.rack, shards: broker.shards.len(), held }
}

/// Ranges of the chunk that each node holds.
fn places_held(chunk: &RingChunk) -> BTreeMap<NodeId, usize> {
    let mut held = BTreeMap::new();
    let members = chunk.ranges.iter().flat_map(|record| record.active.iter().flat_map(|active| &active.chain));
    members.for_each(|member| *held.entry(member.node).or_default() += 1);
    held
}

/// Sends what is due.
fn ask(view: &View<'_>, active: &ActiveChain, state: &mut RangeState, range: RangeId, outbox: &mut Outbox) {
    let under_way: Vec<NodeId> = state.phase.participants().iter().map(|member| member.node).collect();
    for learner in state.learners.values_mut().filter(|learner| !under_way.contains(&learner.member.node)) {
        if learner.poll_at_ms > view.now_ms {
            continue;
        }
        learner.poll_at_ms = view.now_ms + PROGRESS_POLL_MS;
        let Some(source) = learner.source(active, view.brokers, &state.suspicions.bad_sources) else { continue };
        let (epoch, chain) = (active.epoch, active.chain.clone());
        outbox.learn(&learner.member, LearnRange { range, epoch, chain, source });
    }
}

impl RangeState {
    /// A learner got further: what waits for one looks again.
    fn look_again(&mut self, now_ms: u64) {
        match &self.phase {
            Phase::Idle if self.failures == 0 => self.retry_at_ms = now_ms,
            Phase::Sealing(seal) if seal.is_holding => {
                self.phase = Phase::Idle;
                self.retry_at_ms = now_ms;
            }
            _ => {}
        }
    }

    /// When a learner is asked next, or may be looked for again.
    pub(super) fn learning_deadline_ms(&self) -> Option<u64> {
        let busy = self.phase.participants();
        let asked = self.learners.values().filter(|l| !busy.iter().any(|member| member.node == l.member.node));
        asked.map(|learner| learner.poll_at_ms).chain(self.return_at_ms).min()
    }
}
