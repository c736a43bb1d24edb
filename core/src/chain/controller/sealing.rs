//! From the claim that was won to the one decision of its epoch (R5b to R5d, R9).

use std::collections::BTreeMap;

use super::alert::AlertReason;
use super::decide::{Sealed, Terms, decide_first, decide_next};
use super::learning::{Learner, Progress};
use super::machine::raise;
use super::need::{Brokers, is_same, live_again, possible_wish};
use super::outbox::Outbox;
use super::range::{Phase, RangeState, Seal};
use super::seats::try_next_seat;
use super::{ChunkController, Destination, Known, is_stale, position, range_id};
use crate::chain::ChainMember;
use crate::coordination::{ActiveChain, BrokerRecord, RangeRecord};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::{PROGRESS_POLL_MS, SUSPECT_WAIT_MS};
use crate::wire::{SealRange, SealReply, SealReport};

/// Asks everybody for a promise.
pub(super) fn begin_seal(
    now_ms: u64,
    wait_ms: u64,
    state: &mut RangeState,
    record: &RangeRecord,
    epoch: Epoch,
    asked: Vec<ChainMember>,
) {
    let doubtful = record.active.as_ref().map(|active| state.suspicions.doubtful(active, now_ms)).unwrap_or_default();
    state.phase = Phase::Sealing(Seal {
        epoch,
        asked,
        sealed: BTreeMap::new(),
        lost: Default::default(),
        doubtful,
        doubtful_until_ms: now_ms + wait_ms.min(SUSPECT_WAIT_MS),
        until_ms: now_ms + wait_ms,
        is_holding: false,
        is_elsewhere: false,
    });
}

/// Sends, or repeats, what a seal asks.
pub(super) fn send_seal(seal: &Seal, range: RangeId, outbox: &mut Outbox) {
    for member in &seal.asked {
        outbox.seal(member, SealRange { range, epoch: seal.epoch, members: seal.asked.clone() });
    }
}

impl ChunkController {
    pub(super) fn sealed(
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
            let Phase::Sealing(seal) = &mut state.phase else { continue };
            let asked = seal.asked.iter().find(|member| member.node == to.node && member.shard == to.shard);
            let Some(member) = asked.filter(|_| seal.epoch == asked_range.epoch) else { continue };
            let same = reply.is_some_and(|r| r.incarnation == member.incarnation && r.store == member.store);
            // The process that was asked is gone, and nobody will promise in its name: that takes another epoch.
            seal.is_elsewhere |= reply.is_some() && !same;
            let mut is_better = false;
            match reports.get(&asked_range.range).copied().filter(|_| same) {
                Some(report) if report.error.is_none() && report.promised == seal.epoch => {
                    seal.lost.remove(&to.node);
                    // Of a report that was repeated only this may be new: that its log was mended.
                    is_better = seal.sealed.get(&to.node).is_none_or(|before| before.damaged && !report.damaged);
                    if is_better {
                        seal.sealed.insert(to.node, report.clone());
                    }
                }
                Some(report) => {
                    seal.lost.insert(to.node);
                    state.seen = state.seen.max(report.promised);
                    if let (Some(ErrorCode::NotOwner), Some(broker)) = (report.error, self.brokers.get(&to.node)) {
                        try_next_seat(&mut self.seats, broker, at, to.shard);
                        seal.is_elsewhere = true;
                    }
                    if let Some(error) = report.error.filter(|error| !is_stale(*error)) {
                        let reason = AlertReason::Refused { node: to.node, error: error.into() };
                        raise(state, asked_range.range, reason, outbox);
                    }
                }
                None => drop(seal.lost.insert(to.node)),
            }
            let Phase::Sealing(seal) = &state.phase else { continue };
            let is_over = seal.unanswered().next().is_none();
            // While holding, only another promise, a higher one or a mended log can change anything.
            let is_news = !seal.is_holding || is_better || state.seen > seal.epoch || seal.is_elsewhere;
            if is_over && is_news {
                concluded.push(at);
            }
        }
        concluded.into_iter().for_each(|at| self.conclude_seal(now_ms, at, outbox));
    }

    /// The wait for promises is over; of those that are held, it is time to ask again.
    pub(super) fn seal_expired(&mut self, now_ms: u64, at: usize, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        match &mut self.ranges[at].phase {
            Phase::Sealing(seal) if seal.is_holding => {
                seal.until_ms = now_ms + PROGRESS_POLL_MS;
                send_seal(seal, range_id(chunk, at), outbox);
            }
            _ => self.conclude_seal(now_ms, at, outbox),
        }
    }

    /// Fixes the one decision of the epoch, holds what there is, or gives the epoch up.
    fn conclude_seal(&mut self, now_ms: u64, at: usize, outbox: &mut Outbox) {
        let Some(Known { chunk, .. }) = &self.known else { return };
        let (record, range) = (&chunk.ranges[at], range_id(chunk, at));
        let state = &mut self.ranges[at];
        let Phase::Sealing(seal) = &mut state.phase else { return };
        let reports: Vec<Sealed<'_>> =
            seal.asked.iter().filter_map(|m| seal.sealed.get(&m.node).map(|report| (*m, report))).collect();
        let is_complete = reports.len() == seal.asked.len();
        let unwanted = record.active.as_ref().map(|active| state.suspicions.unwanted(active, now_ms));
        let wish = self.desired.get(&range).filter(|nodes| possible_wish(nodes, chunk.replication));
        let terms = Terms {
            epoch: seal.epoch,
            replication: chunk.replication,
            wish: wish.map(Vec::as_slice),
            unwanted: unwanted.as_deref().unwrap_or_default(),
            bad_sources: &state.suspicions.bad_sources,
        };
        let decided = match &record.active {
            None => decide_first(seal.epoch, &seal.asked, &reports),
            Some(active) => decide_next(&terms, active, &reports),
        };
        let stale = state.seen > seal.epoch;
        let unsealed = seal.asked.iter().map(|member| member.node).filter(|node| !seal.sealed.contains_key(node));
        state.silent.extend(unsealed);
        state.silent.retain(|node| !seal.sealed.contains_key(node));
        let is_elsewhere = matches!(&state.phase, Phase::Sealing(seal) if seal.is_elsewhere);
        let is_back = record.active.as_ref().is_some_and(|active| is_member_back(active, &self.brokers, state));
        let has_help = is_elsewhere || is_back || is_learner_there(state);
        let Phase::Sealing(seal) = &mut state.phase else { return };
        match decided {
            Ok(decision) => {
                let asked = std::mem::take(&mut seal.asked);
                for member in asked.iter().filter(|member| !decision.chain.contains(member)) {
                    if let Some(learner) = state.learners.get_mut(&member.node) {
                        learner.missed_seal();
                    }
                }
                for node in unwanted.iter().flatten() {
                    if decision.chain.iter().all(|member| member.node != *node) {
                        state.suspicions.leave_out(*node, now_ms);
                    }
                }
                self.begin_reconcile(now_ms, at, decision, asked, outbox);
            }
            // Who answered meanwhile was not asked: that takes another epoch.
            Err(AlertReason::BelowFloor { .. }) if !stale && has_help => state.back_off(now_ms, &self.settings),
            Err(AlertReason::Damaged { .. }) if !stale && (is_elsewhere || is_back) => {
                state.back_off(now_ms, &self.settings);
            }
            // The damaged mend each other, or the range waits for who has what they lost.
            Err(reason @ (AlertReason::BelowFloor { .. } | AlertReason::Damaged { .. })) if !stale => {
                (seal.is_holding, seal.until_ms) = (true, now_ms + PROGRESS_POLL_MS);
                raise(state, range, reason, outbox);
            }
            // Who did not answer may have what is missing.
            Err(reason) if stale || !is_complete || reason.is_passing() => {
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
}

/// Whether a member of the chain came back meanwhile and was not asked.
fn is_member_back(active: &ActiveChain, brokers: &Brokers, state: &RangeState) -> bool {
    let Phase::Sealing(seal) = &state.phase else { return false };
    let is_asked = |broker: &&BrokerRecord| seal.asked.iter().any(|m| m.node == broker.node && is_same(m, broker));
    let live = active.chain.iter().filter_map(|member| live_again(member, brokers));
    let mut back = live.filter(|broker| !is_asked(broker) && !state.suspicions.has_failed(broker));
    back.next().is_some()
}

/// Whether a learner answers that was not asked, and could help the chain above its floor.
fn is_learner_there(state: &RangeState) -> bool {
    let Phase::Sealing(seal) = &state.phase else { return false };
    let answers = |learner: &Learner| learner.progress != Progress::Unknown && !seal.asked.contains(&learner.member);
    state.learners.values().any(answers)
}
