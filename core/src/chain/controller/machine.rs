//! The transitions of the table in the parent module.

use std::collections::{BTreeMap, BTreeSet};

use super::alert::AlertReason;
use super::decide::Decision;
use super::need::{Need, View, need, possible_wish};
use super::outbox::Outbox;
use super::range::{Phase, RangeState};
use super::sealing::{begin_seal, send_seal};
use super::seats::Seats;
use super::{Answer, CasOutcome, ChunkController, Destination, Known, Message, position, range_id};
use crate::chain::ChainMember;
use crate::chain::peer::Complaint;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::coordination::{ActiveChain, BrokerRecord, KeyVersion, PendingChange, RangeRecord, RingChunk};
use crate::ids::*;
use crate::wire::{ActivateRange, RangeOutcome};

impl ChunkController {
    /// A record was read. One that is older than what is known, or that a change in flight may be replacing, says nothing.
    pub(super) fn chunk_read(&mut self, now_ms: u64, chunk: RingChunk, version: KeyVersion, outbox: &mut Outbox) {
        if self.in_flight.is_some() || self.known.as_ref().is_some_and(|known| version < known.version) {
            return;
        }
        self.reading = false;
        self.ranges.resize_with(chunk.ranges.len(), RangeState::default);
        let before = self.known.replace(Known { chunk, version });
        self.adopt_all(now_ms, before.map(|known| known.chunk), outbox);
        // What became of it is in the record that was read: sending it again would undo what others did since.
        if let Some(unknown) = self.unknown.take().filter(|_| is_planted(PlantedBug::LostCasApplied)) {
            outbox.cas(unknown.clone(), version);
            self.in_flight = Some(unknown);
        }
    }

    pub(super) fn cas_done(&mut self, now_ms: u64, outcome: CasOutcome, outbox: &mut Outbox) {
        let (Some(proposed), Some(known)) = (self.in_flight.take(), self.known.as_mut()) else { return };
        if is_planted(PlantedBug::LostCasApplied) && outcome == CasOutcome::Unknown {
            self.unknown = Some(proposed.clone());
        }
        if let CasOutcome::Won(version) = outcome {
            let before = std::mem::replace(known, Known { chunk: proposed, version });
            self.adopt_all(now_ms, Some(before.chunk), outbox);
            return;
        }
        for state in &mut self.ranges {
            if matches!(state.phase, Phase::Claiming { .. }) {
                state.back_off(now_ms, &self.settings);
            }
        }
        self.reading = true;
        outbox.read();
    }

    /// Brokers came, went or restarted: whoever waits for one of them tries now, whoever counted on one starts over.
    pub(super) fn brokers_changed(&mut self, now_ms: u64, brokers: Vec<BrokerRecord>) {
        let brokers: BTreeMap<NodeId, BrokerRecord> = brokers.into_iter().map(|broker| (broker.node, broker)).collect();
        let nodes: BTreeSet<NodeId> = self.brokers.keys().chain(brokers.keys()).copied().collect();
        let changed: BTreeSet<NodeId> =
            nodes.into_iter().filter(|node| self.brokers.get(node) != brokers.get(node)).collect();
        self.brokers = brokers;
        if changed.is_empty() {
            return;
        }
        // What is held against a node ends with its process, not with its registration.
        let mut restarted = Vec::new();
        for broker in self.brokers.values() {
            if self.processes.insert(broker.node, broker.incarnation) != Some(broker.incarnation) {
                restarted.push(broker.node);
            }
        }
        let Some(Known { chunk, .. }) = &self.known else { return };
        for (state, record) in self.ranges.iter_mut().zip(&chunk.ranges) {
            let gone = |member: &ChainMember| {
                self.brokers.get(&member.node).is_none_or(|broker| broker.incarnation != member.incarnation)
            };
            restarted.iter().for_each(|node| state.suspicions.forgive(*node));
            state.silent.retain(|node| !changed.contains(node));
            let active = record.active.as_ref().map_or(&[][..], |active| &active.chain);
            let is_claiming = matches!(state.phase, Phase::Claiming { .. });
            let counted_on =
                state.phase.participants().iter().any(gone) || is_telling(state) && active.iter().any(gone);
            let is_held = matches!(&state.phase, Phase::Sealing(seal) if seal.is_holding);
            let concerns = active.iter().any(|member| changed.contains(&member.node));
            if counted_on && !is_claiming || is_held && concerns {
                state.phase = Phase::Idle;
                state.retry_at_ms = now_ms;
            }
            if record.active.is_none() || concerns {
                state.failures = 0;
                state.retry_at_ms = now_ms;
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        now_ms: u64,
        to: Destination,
        message: &Message,
        answer: Answer,
        outbox: &mut Outbox,
    ) {
        match (message, answer) {
            (Message::Seal(request), Answer::Seal(reply)) => {
                self.sealed(now_ms, to, &request.ranges, Some(&reply), outbox);
            }
            (Message::Seal(request), _) => self.sealed(now_ms, to, &request.ranges, None, outbox),
            (Message::Learn(request), answer) => self.learned(now_ms, to, request, &answer, outbox),
            (Message::Reconcile(request), answer) => {
                let outcomes = outcomes(answer);
                for range in &request.ranges {
                    self.reconciled(now_ms, to, range, outcomes.get(&range.range), outbox);
                }
            }
            (Message::Activate(request), answer) => {
                let outcomes = outcomes(answer);
                for range in &request.ranges {
                    self.activated(now_ms, to, range, outcomes.get(&range.range), outbox);
                }
            }
        }
    }

    /// A head does not know its own activation, or knows a later epoch: the record tells which, and repeating the notice
    /// helps in the first case.
    pub(super) fn control_refused(&mut self, now_ms: u64, range: RangeId, epoch: Epoch, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let Some(at) = position(chunk, range) else { return };
        let state = &mut self.ranges[at];
        state.told = None;
        if state.failures == 0 && state.alert.is_none() {
            // Of one that tries already, or waits for a node, it is no news that nobody acts.
            state.retry_at_ms = now_ms;
        }
        if epoch > chunk.ranges[at].epoch_max() && !self.reading && self.in_flight.is_none() {
            self.reading = true;
            outbox.read();
        }
    }

    /// A member says that its chain does not work.
    pub(super) fn complained(&mut self, now_ms: u64, complaint: &Complaint) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let Some(at) = position(chunk, complaint.range.range).filter(|_| complaint.range.ring == chunk.ring) else {
            return;
        };
        let (state, Some(active)) = (&mut self.ranges[at], &chunk.ranges[at].active) else { return };
        let Some(due_ms) = state.suspicions.complain(now_ms, active, complaint, &self.settings) else { return };
        if is_telling(state) && due_ms <= now_ms {
            state.phase = Phase::Idle;
        }
        if state.is_idle() && state.failures == 0 {
            state.retry_at_ms = due_ms;
        }
    }

    /// The operator wants other nodes, or none in particular. Who learned only because of the wish stops.
    pub(super) fn desire(&mut self, now_ms: u64, range: RangeId, nodes: Option<Vec<NodeId>>) {
        let wanted = nodes.clone().unwrap_or_default();
        let before = match nodes {
            Some(nodes) => self.desired.insert(range, nodes),
            None => self.desired.remove(&range),
        };
        let at = self.known.as_ref().and_then(|known| position(&known.chunk, range));
        let Some(state) = at.map(|at| &mut self.ranges[at]) else { return };
        let is_wished_no_more = |node: &NodeId| before.iter().flatten().any(|n| n == node) && !wanted.contains(node);
        state.learners.retain(|node, _| !is_wished_no_more(node));
        if state.failures == 0 {
            state.retry_at_ms = now_ms;
        }
    }

    /// The operator drains other nodes than before. A first chain that lacked nodes may have them now, or lack one.
    pub(super) fn drain(&mut self, now_ms: u64, nodes: BTreeSet<NodeId>) {
        if self.draining == nodes {
            return;
        }
        self.draining = nodes;
        let Some(Known { chunk, .. }) = &self.known else { return };
        for (state, _) in self.ranges.iter_mut().zip(&chunk.ranges).filter(|(_, record)| record.active.is_none()) {
            state.retry_at_ms = now_ms;
        }
    }

    /// Phases whose deadline is over.
    pub(super) fn expire(&mut self, now_ms: u64, outbox: &mut Outbox) {
        for at in 0..self.ranges.len() {
            let state = &mut self.ranges[at];
            if state.is_idle() || state.deadline_ms().is_none_or(|deadline| deadline > now_ms) {
                continue;
            }
            match state.phase {
                Phase::Sealing(_) => self.seal_expired(now_ms, at, outbox),
                Phase::Reconciling(_) => self.poll_reconcile(now_ms, at, outbox),
                // Who neither acts nor refuses, again and again, is found out by a seal.
                Phase::Activating { .. } if state.failures >= 3 => {
                    state.broken = true;
                    state.back_off(now_ms, &self.settings);
                }
                _ => state.back_off(now_ms, &self.settings),
            }
        }
    }

    /// Idle ranges whose time has come: tells members, or claims an epoch for all that need a change.
    pub(super) fn start_what_is_due(&mut self, now_ms: u64, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let is_due = |state: &RangeState| state.is_idle() && state.retry_at_ms <= now_ms;
        if self.reading || !self.ranges.iter().any(is_due) {
            return;
        }
        let mut seats = Seats::new(chunk, &self.brokers, &self.draining, &mut self.seats);
        for (at, (state, record)) in self.ranges.iter_mut().zip(&chunk.ranges).enumerate() {
            if !is_due(state) {
                continue;
            }
            let wish = self.desired.get(&range_id(chunk, at)).filter(|nodes| possible_wish(nodes, chunk.replication));
            let view = View {
                now_ms,
                replication: chunk.replication,
                brokers: &self.brokers,
                wish: wish.map(|nodes| nodes.as_slice()),
                draining: &self.draining,
            };
            match need(&view, record.active.as_ref(), record.pending.is_some(), state, &mut seats, at) {
                Need::Nothing => state.rest(),
                Need::Tell => tell(state, record, range_id(chunk, at), now_ms + self.settings.activate_wait_ms, outbox),
                // While a compare-and-set is in flight its outcome comes first.
                Need::Change(_) if self.in_flight.is_some() => {}
                Need::Change(asked) => {
                    let epoch = Epoch(record.epoch_max().max(state.seen).0.saturating_add(1));
                    state.phase = Phase::Claiming { epoch, asked };
                }
                Need::Wait(reason) => {
                    raise(state, range_id(chunk, at), reason, outbox);
                    state.wait_for_change();
                }
            }
        }
    }

    /// One compare-and-set for every claim and every decision there is, unless one is in flight.
    pub(super) fn compare_and_set(&mut self, outbox: &mut Outbox) {
        let Some(Known { chunk, version }) = &self.known else { return };
        let wants = |state: &RangeState| matches!(state.phase, Phase::Claiming { .. } | Phase::Decided { .. });
        if self.in_flight.is_some() || self.reading || !self.ranges.iter().any(wants) {
            return;
        }
        let mut proposed = chunk.clone();
        for (record, state) in proposed.ranges.iter_mut().zip(&self.ranges) {
            match &state.phase {
                Phase::Claiming { epoch, .. } => {
                    record.pending = Some(PendingChange { epoch: *epoch, writer: self.writer });
                }
                Phase::Decided { decision } => {
                    let Decision { epoch, start, chain, .. } = decision.clone();
                    *record = RangeRecord { active: Some(ActiveChain { epoch, chain, start }), pending: None };
                }
                _ => {}
            }
        }
        outbox.cas(proposed.clone(), *version);
        self.in_flight = Some(proposed);
    }

    fn adopt_all(&mut self, now_ms: u64, before: Option<RingChunk>, outbox: &mut Outbox) {
        for at in 0..self.ranges.len() {
            let before = before.as_ref().and_then(|chunk| chunk.ranges.get(at));
            self.adopt(now_ms, at, before, outbox);
        }
    }

    /// Goes on from what the record says now.
    fn adopt(&mut self, now_ms: u64, at: usize, before: Option<&RangeRecord>, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let (record, range) = (&chunk.ranges[at], range_id(chunk, at));
        let state = &mut self.ranges[at];
        let is_mine = |epoch| record.pending == Some(PendingChange { epoch, writer: self.writer });
        match std::mem::take(&mut state.phase) {
            Phase::Claiming { epoch, asked } if is_mine(epoch) => {
                begin_seal(now_ms, self.settings.seal_wait_ms, state, record, epoch, asked);
                if let Phase::Sealing(seal) = &state.phase {
                    send_seal(seal, range, outbox);
                }
            }
            Phase::Decided { decision } if is_committed(record, &decision) => {
                state.broken = false;
                tell(state, record, range, now_ms + self.settings.activate_wait_ms, outbox);
            }
            phase @ Phase::Activating { .. } if before == Some(record) => state.phase = phase,
            phase => {
                state.phase = phase;
                // What was not seen to happen may have happened all the same: the record counts.
                let is_lost = |epoch| !is_mine(epoch) && !is_planted(PlantedBug::WatchSkippedStates);
                if state.claimed().is_some_and(is_lost) || is_telling(state) {
                    state.phase = Phase::Idle;
                }
            }
        }
        if before.is_some_and(|before| before == record) || !state.is_idle() {
            return;
        }
        // Somebody else changed it meanwhile: leave them time to finish, then take over.
        let began = record.pending.filter(|pending| pending.writer != self.writer);
        let was_known = before.is_none_or(|before| before.pending == began);
        let wait_ms = if began.is_some() && !was_known { self.settings.orphan_wait_ms } else { 0 };
        let writer_spread_ms = if wait_ms > 0 { self.writer.0 % (wait_ms / 2 + 1) } else { 0 };
        state.retry_at_ms = now_ms + wait_ms + writer_spread_ms;
    }
}

/// Sends what the record says to every member.
fn tell(state: &mut RangeState, record: &RangeRecord, range: RangeId, until_ms: u64, outbox: &mut Outbox) {
    let Some(ActiveChain { epoch, chain, start }) = &record.active else { return };
    for member in chain {
        outbox.activate(member, ActivateRange { range, epoch: *epoch, chain: chain.clone(), start: *start });
    }
    let missing = chain.iter().map(|member| member.node).collect();
    state.phase = Phase::Activating { epoch: *epoch, missing, until_ms };
}

pub(super) fn raise(state: &mut RangeState, range: RangeId, reason: AlertReason, outbox: &mut Outbox) {
    if state.alert.as_ref() != Some(&reason) {
        outbox.alert(range, reason.clone());
        state.alert = Some(reason);
    }
}

fn is_telling(state: &RangeState) -> bool {
    matches!(state.phase, Phase::Activating { .. })
}

fn is_committed(record: &RangeRecord, decision: &Decision) -> bool {
    let committed = |active: &ActiveChain| {
        active.epoch == decision.epoch && active.chain == decision.chain && active.start == decision.start
    };
    record.pending.is_none() && record.active.as_ref().is_some_and(committed)
}

fn outcomes(answer: Answer) -> BTreeMap<RangeId, RangeOutcome> {
    match answer {
        Answer::Ranges(reply) => reply.ranges.into_iter().map(|outcome| (outcome.range, outcome)).collect(),
        Answer::Seal(_) | Answer::Learn(_) | Answer::Lost => BTreeMap::new(),
    }
}
