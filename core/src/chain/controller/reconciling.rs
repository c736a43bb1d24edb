//! From the decision to the members that act under it (R5e, R5f).

use std::collections::BTreeMap;

use super::alert::AlertReason;
use super::decide::Decision;
use super::machine::raise;
use super::outbox::Outbox;
use super::range::{Catching, Phase, Reconcile};
use super::sealing::{begin_seal, send_seal};
use super::{ChunkController, Destination, Known, is_stale, position, range_id};
use crate::chain::ChainMember;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::{PROGRESS_POLL_MS, PROGRESS_SILENCE_MS};
use crate::wire::{ActivateRange, RangeOutcome, ReconcileRange};

impl ChunkController {
    pub(super) fn begin_reconcile(
        &mut self,
        now_ms: u64,
        at: usize,
        decision: Decision,
        asked: Vec<ChainMember>,
        outbox: &mut Outbox,
    ) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let catching = Catching { end: LogIndex(0), heard_ms: now_ms, moved_ms: now_ms };
        let missing: BTreeMap<NodeId, Catching> = decision.chain.iter().map(|member| (member.node, catching)).collect();
        let reconcile = Reconcile { decision, asked, missing, poll_at_ms: now_ms + PROGRESS_POLL_MS };
        send_reconcile(&reconcile, range_id(chunk, at), outbox);
        self.ranges[at].phase = Phase::Reconciling(reconcile);
    }

    /// Asks again those that are not done: replies get lost, and members that copy tell how far they are.
    pub(super) fn poll_reconcile(&mut self, now_ms: u64, at: usize, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let reconcile_wait_ms = self.settings.reconcile_wait_ms;
        let Phase::Reconciling(reconcile) = &mut self.ranges[at].phase else { return };
        let is_over = |member: &Catching| {
            now_ms >= member.heard_ms + reconcile_wait_ms.min(PROGRESS_SILENCE_MS)
                || now_ms >= member.moved_ms + reconcile_wait_ms
        };
        if let Some((&node, _)) = reconcile.missing.iter().find(|(_, member)| is_over(member)) {
            return self.give_up_reconcile(now_ms, at, Some(node), outbox);
        }
        reconcile.poll_at_ms = now_ms + PROGRESS_POLL_MS;
        send_reconcile(reconcile, range_id(chunk, at), outbox);
    }

    pub(super) fn reconciled(
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
        let Phase::Reconciling(Reconcile { decision, missing, .. }) = &mut state.phase else { return };
        if decision.epoch != asked.epoch {
            return;
        }
        let Some(member) = missing.get_mut(&to.node) else { return };
        match outcome {
            Some(RangeOutcome { error: None, .. }) => {
                missing.remove(&to.node);
                if missing.is_empty() {
                    state.phase = Phase::Decided { decision: decision.clone() };
                }
            }
            Some(RangeOutcome { error: Some(ErrorCode::CatchingUp), end, .. }) => {
                member.heard_ms = now_ms;
                if *end > member.end {
                    (member.end, member.moved_ms) = (*end, now_ms);
                }
            }
            Some(RangeOutcome { error: Some(error), epoch, .. }) => {
                state.seen = state.seen.max(*epoch);
                if *error == ErrorCode::DataDamaged
                    && let Some(source) = asked.source
                {
                    state.suspicions.bad_sources.insert(source.node);
                    return self.give_up_reconcile(now_ms, at, None, outbox);
                }
                let copied =
                    |member: &ChainMember| asked.source != Some(*member) && !missing.contains_key(&member.node);
                if *error == ErrorCode::TimedOut
                    && let Some(source) = asked.source.filter(|_| !decision.chain.iter().any(copied))
                {
                    // Of those who copy nobody is done: the source may be cut off from all of them, and not from here.
                    state.suspicions.not_reached(source.node, now_ms);
                    return self.give_up_reconcile(now_ms, at, None, outbox);
                }
                let blamed = Some(to.node).filter(|_| !is_stale(*error));
                if blamed.is_some() && state.failures >= 3 {
                    let reason = AlertReason::Refused { node: to.node, error: (*error).into() };
                    raise(state, asked.range, reason, outbox);
                }
                self.give_up_reconcile(now_ms, at, blamed, outbox);
            }
            // It may have been done: the same question again tells.
            None => {}
        }
    }

    /// The decision cannot be carried out. Who is to blame is left out of the next one where the floor allows.
    fn give_up_reconcile(&mut self, now_ms: u64, at: usize, blamed: Option<NodeId>, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let state = &mut self.ranges[at];
        let Phase::Reconciling(reconcile) = &mut state.phase else { return };
        if let Some(node) = blamed.filter(|node| reconcile.decision.source.is_none_or(|source| source.node != *node)) {
            state.suspicions.leave_out(node, now_ms);
            state.learners.remove(&node);
        }
        // R5d: any other choice takes a higher epoch.
        if is_planted(PlantedBug::SecondDecision) {
            let (epoch, asked) = (reconcile.decision.epoch, std::mem::take(&mut reconcile.asked));
            begin_seal(now_ms, self.settings.seal_wait_ms, state, &chunk.ranges[at], epoch, asked);
            if let Phase::Sealing(seal) = &state.phase {
                send_seal(seal, range_id(chunk, at), outbox);
            }
            return;
        }
        state.back_off(now_ms, &self.settings);
    }

    pub(super) fn activated(
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

/// Asks whoever is not done, the source too.
fn send_reconcile(reconcile: &Reconcile, range: RangeId, outbox: &mut Outbox) {
    let Decision { epoch, start: end, source, chain } = &reconcile.decision;
    for member in chain.iter().filter(|member| reconcile.missing.contains_key(&member.node)) {
        let source = source.filter(|source| source != member);
        outbox.reconcile(member, ReconcileRange { range, epoch: *epoch, end: *end, source });
    }
}
