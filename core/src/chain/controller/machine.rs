//! The transitions of the table in the parent module.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Decision, Sealed, decide_first, decide_next};
use super::need::{AlertReason, Need, Seats, need};
use super::outbox::Outbox;
use super::range::{Phase, RangeState};
use super::{Answer, CasOutcome, ChunkController, Destination, Known, Message, is_stale, position, range_id};
use crate::chain::ChainMember;
use crate::coordination::{ActiveChain, BrokerRecord, KeyVersion, PendingChange, RangeRecord, RingChunk};
use crate::ids::*;
use crate::wire::{ActivateRange, RangeOutcome, ReconcileRange, SealRange, SealReply, SealReport};

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
    }

    pub(super) fn cas_done(&mut self, now_ms: u64, outcome: CasOutcome, outbox: &mut Outbox) {
        let (Some(proposed), Some(known)) = (self.in_flight.take(), self.known.as_mut()) else { return };
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
        let Some(Known { chunk, .. }) = &self.known else { return };
        for (state, record) in self.ranges.iter_mut().zip(&chunk.ranges) {
            let another = |member: &ChainMember| {
                self.brokers.get(&member.node).is_some_and(|broker| broker.incarnation != member.incarnation)
            };
            let active = record.active.as_ref().map_or(&[][..], |active| &active.chain);
            let is_claiming = matches!(state.phase, Phase::Claiming { .. });
            if !is_claiming
                && (state.participants().iter().any(another) || is_telling(state) && active.iter().any(another))
            {
                state.phase = Phase::Idle;
            }
            if record.active.is_none() || active.iter().any(|member| changed.contains(&member.node)) {
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
        self.ranges[at].told = None;
        self.ranges[at].retry_at_ms = now_ms;
        if epoch > chunk.ranges[at].epoch_max() && !self.reading && self.in_flight.is_none() {
            self.reading = true;
            outbox.read();
        }
    }

    /// Phases whose deadline is over.
    pub(super) fn expire(&mut self, now_ms: u64, outbox: &mut Outbox) {
        for at in 0..self.ranges.len() {
            let state = &mut self.ranges[at];
            if state.phase == Phase::Idle || state.deadline_ms().is_none_or(|deadline| deadline > now_ms) {
                continue;
            }
            match state.phase {
                Phase::Sealing { .. } => self.conclude_seal(now_ms, at, outbox),
                _ => state.back_off(now_ms, &self.settings),
            }
        }
    }

    /// Idle ranges whose time has come: tells members, or claims an epoch for all that need a change.
    pub(super) fn start_what_is_due(&mut self, now_ms: u64, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let is_due = |state: &RangeState| state.phase == Phase::Idle && state.retry_at_ms <= now_ms;
        if self.reading || !self.ranges.iter().any(is_due) {
            return;
        }
        let mut seats = Seats::new(chunk, &self.brokers, &mut self.seats);
        for (at, (state, record)) in self.ranges.iter_mut().zip(&chunk.ranges).enumerate() {
            if !is_due(state) {
                continue;
            }
            match need(record, state, chunk.replication, &self.brokers, &mut seats, at) {
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
                asked.iter().for_each(|member| outbox.seal(member, range, epoch));
                let (sealed, lost) = Default::default();
                let until_ms = now_ms + self.settings.seal_wait_ms;
                state.phase = Phase::Sealing { epoch, asked, sealed, lost, until_ms };
            }
            Phase::Decided { decision } if is_committed(record, &decision) => {
                state.broken = false;
                tell(state, record, range, now_ms + self.settings.activate_wait_ms, outbox);
            }
            phase @ Phase::Activating { .. } if before == Some(record) => state.phase = phase,
            phase => {
                state.phase = phase;
                if state.claimed().is_some_and(|epoch| !is_mine(epoch)) || is_telling(state) {
                    state.phase = Phase::Idle;
                }
            }
        }
        if before.is_some_and(|before| before == record) || state.phase != Phase::Idle {
            return;
        }
        // Somebody else changed it meanwhile: leave them time to finish, then take over.
        let began = record.pending.filter(|pending| pending.writer != self.writer);
        let was_known = before.is_none_or(|before| before.pending == began);
        let wait_ms = if began.is_some() && !was_known { self.settings.orphan_wait_ms } else { 0 };
        let writer_spread_ms = if wait_ms > 0 { self.writer.0 % (wait_ms / 2 + 1) } else { 0 };
        state.retry_at_ms = now_ms + wait_ms + writer_spread_ms;
    }

    fn sealed(
        &mut self,
        now_ms: u64,
        to: Destination,
        asked_ranges: &[SealRange],
        reply: Option<&SealReply>,
        outbox: &mut Outbox,
    ) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let reports: BTreeMap<RangeId, &SealReport> =
            reply.iter().flat_map(|reply| reply.ranges.iter().map(|report| (report.range, report))).collect();
        let mut concluded = Vec::new();
        for asked_range in asked_ranges {
            let Some(at) = position(chunk, asked_range.range) else { continue };
            let state = &mut self.ranges[at];
            let Phase::Sealing { epoch, asked, sealed, lost, .. } = &mut state.phase else { continue };
            let Some(member) = asked.iter().find(|member| member.node == to.node && member.shard == to.shard) else {
                continue;
            };
            if *epoch != asked_range.epoch {
                continue;
            }
            let report = reports.get(&asked_range.range).copied();
            let same = reply.is_some_and(|r| r.incarnation == member.incarnation && r.store == member.store);
            match report.filter(|_| same) {
                Some(report) if report.error.is_none() && report.promised == *epoch => {
                    sealed.entry(to.node).or_insert_with(|| report.clone());
                }
                Some(report) => {
                    lost.insert(to.node);
                    state.seen = state.seen.max(report.promised);
                    if let Some(error) = report.error.filter(|error| !is_stale(*error)) {
                        let reason = AlertReason::Refused { node: to.node, error: error.into() };
                        raise(state, asked_range.range, reason, outbox);
                    }
                }
                None => drop(lost.insert(to.node)),
            }
            let Phase::Sealing { asked, sealed, lost, .. } = &state.phase else { continue };
            if asked.iter().all(|member| sealed.contains_key(&member.node) || lost.contains(&member.node)) {
                concluded.push(at);
            }
        }
        concluded.into_iter().for_each(|at| self.conclude_seal(now_ms, at, outbox));
    }

    /// Fixes the one decision of the epoch, or gives the epoch up.
    fn conclude_seal(&mut self, now_ms: u64, at: usize, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let (record, range) = (&chunk.ranges[at], range_id(chunk, at));
        let state = &mut self.ranges[at];
        let Phase::Sealing { epoch, asked, sealed, .. } = &state.phase else { return };
        let reports: Vec<Sealed<'_>> =
            asked.iter().filter_map(|member| sealed.get(&member.node).map(|report| (*member, report))).collect();
        let decided = match &record.active {
            None => decide_first(*epoch, asked, &reports),
            Some(active) => decide_next(*epoch, active, chunk.replication, &reports),
        };
        let stale = state.seen > *epoch;
        match decided {
            Ok(decision) => {
                for member in &decision.chain {
                    let source = decision.source.filter(|source| source != member);
                    let (epoch, end) = (decision.epoch, decision.start);
                    outbox.reconcile(member, ReconcileRange { range, epoch, end, source });
                }
                let missing = decision.chain.iter().map(|member| member.node).collect();
                let until_ms = now_ms + self.settings.reconcile_wait_ms;
                state.phase = Phase::Reconciling { decision, missing, until_ms };
            }
            Err(reason) if stale || reason.is_passing() => {
                // Being overtaken, or one lost message, is no news; failing again and again is.
                if !stale && state.failures >= 3 && state.alert.is_none() {
                    raise(state, range, reason, outbox);
                }
                state.back_off(now_ms, &self.settings);
            }
            Err(reason) => {
                raise(state, range, reason, outbox);
                state.wait_for_change();
            }
        }
    }

    fn reconciled(
        &mut self,
        now_ms: u64,
        to: Destination,
        asked: &ReconcileRange,
        outcome: Option<&RangeOutcome>,
        outbox: &mut Outbox,
    ) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let Some(at) = position(chunk, asked.range) else { return };
        let state = &mut self.ranges[at];
        let Phase::Reconciling { decision, missing, .. } = &mut state.phase else { return };
        if decision.epoch != asked.epoch || !missing.contains(&to.node) {
            return;
        }
        match outcome {
            Some(RangeOutcome { error: None, .. }) => {
                missing.remove(&to.node);
                if missing.is_empty() {
                    state.phase = Phase::Decided { decision: decision.clone() };
                }
            }
            Some(RangeOutcome { error: Some(error), epoch, .. }) => {
                state.seen = state.seen.max(*epoch);
                if !is_stale(*error) && state.failures >= 3 {
                    let reason = AlertReason::Refused { node: to.node, error: (*error).into() };
                    raise(state, asked.range, reason, outbox);
                }
                state.back_off(now_ms, &self.settings);
            }
            // It may have been done, so the same epoch must not be tried again.
            None => state.back_off(now_ms, &self.settings),
        }
    }

    fn activated(
        &mut self,
        now_ms: u64,
        to: Destination,
        asked: &ActivateRange,
        outcome: Option<&RangeOutcome>,
        outbox: &mut Outbox,
    ) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let Some(at) = position(chunk, asked.range) else { return };
        let state = &mut self.ranges[at];
        let Phase::Activating { epoch, missing, .. } = &mut state.phase else { return };
        if *epoch != asked.epoch || !missing.contains(&to.node) {
            return;
        }
        match outcome {
            Some(RangeOutcome { error: None, .. }) => {
                missing.remove(&to.node);
                if missing.is_empty() {
                    let epoch = *epoch;
                    state.settled(epoch);
                }
            }
            Some(RangeOutcome { error: Some(error), epoch: promised, .. }) => {
                state.seen = state.seen.max(*promised);
                state.broken = !is_stale(*error);
                if is_stale(*error) && !self.reading {
                    self.reading = true;
                    outbox.read();
                }
                state.back_off(now_ms, &self.settings);
            }
            None => state.back_off(now_ms, &self.settings),
        }
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

fn raise(state: &mut RangeState, range: RangeId, reason: AlertReason, outbox: &mut Outbox) {
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
        Answer::Seal(_) | Answer::Lost => BTreeMap::new(),
    }
}
