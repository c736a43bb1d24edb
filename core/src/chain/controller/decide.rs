//! The one decision of an epoch: source, end and chain, from what the sealed members reported. Pure.

use super::min_in_sync;
use super::need::AlertReason;
use crate::chain::ChainMember;
use crate::coordination::ActiveChain;
use crate::ids::*;
use crate::wire::SealReport;

/// What an epoch will be. Fixed once; any other choice takes a higher epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The epoch.
    pub epoch: Epoch,
    /// Who has the log that counts; none: the range begins, and every log is empty.
    pub source: Option<ChainMember>,
    /// The source's end, which every member must reach exactly.
    pub start: LogPoint,
    /// Head first.
    pub chain: Vec<ChainMember>,
}

/// A member that promised, and what it reported.
pub(super) type Sealed<'a> = (ChainMember, &'a SealReport);

/// Decides for a range that was never active: every log must be empty.
pub(super) fn decide_first(
    epoch: Epoch,
    asked: &[ChainMember],
    sealed: &[Sealed<'_>],
) -> Result<Decision, AlertReason> {
    if let Some(missing) = asked.iter().find(|member| sealed.iter().all(|(other, _)| other != *member)) {
        return Err(AlertReason::Silent { node: missing.node });
    }
    let is_empty = |report: &SealReport| {
        report.end == LogPoint::START && report.last_epoch == Epoch(0) && report.known_committed == LogIndex(0)
    };
    match sealed.iter().find(|(_, report)| !is_empty(report)) {
        Some((member, _)) => Err(AlertReason::LogWithoutRecord { node: member.node }),
        None => Ok(Decision { epoch, source: None, start: LogPoint::START, chain: asked.to_vec() }),
    }
}

/// Decides for a range that acted before.
///
/// A survivor is a member of the last active chain with the right store and a marker at or above its epoch; the source
/// is the survivor with the highest (last epoch, end). Nobody else can be the source. A damaged log is none (R12), but for
/// that of the only member: it is activated at its own end, serves what is good, and takes no writes.
pub(super) fn decide_next(
    epoch: Epoch,
    active: &ActiveChain,
    replication: u16,
    sealed: &[Sealed<'_>],
) -> Result<Decision, AlertReason> {
    let survives = |(member, report): &&Sealed<'_>| {
        report.marker >= active.epoch && active.chain.iter().any(|m| m.node == member.node && m.store == member.store)
    };
    let named: Vec<&Sealed<'_>> = sealed.iter().filter(survives).collect();
    // R12: what is left of a damaged log is no source for others. It is better than nothing where there are no others.
    let is_only = active.chain.len() == 1;
    let survivors: Vec<_> = named.iter().copied().filter(|(_, report)| is_only || !report.damaged).collect();
    if let Some((member, _)) = named.first().filter(|_| survivors.is_empty()) {
        return Err(AlertReason::Damaged { node: member.node });
    }
    let Some((source, best)) = survivors.iter().max_by_key(|(_, report)| (report.last_epoch, report.end.index)) else {
        return Err(no_survivor(sealed, active));
    };
    if let Some((ahead, _)) = sealed.iter().find(|(_, report)| report.last_epoch > active.epoch) {
        return Err(AlertReason::EpochAhead { node: ahead.node });
    }
    let committed = sealed.iter().map(|(_, report)| report.known_committed).max().unwrap_or_default();
    if best.end.index < committed.max(active.start.index) {
        return Err(AlertReason::BehindCommitted { node: source.node });
    }
    if survivors.len() < min_in_sync(replication) {
        return Err(AlertReason::BelowFloor { members: survivors.len(), floor: min_in_sync(replication) });
    }
    let chain = survivors.iter().map(|(member, _)| *member).collect();
    Ok(Decision { epoch, source: Some(*source), start: best.end, chain })
}

fn no_survivor(sealed: &[Sealed<'_>], active: &ActiveChain) -> AlertReason {
    match sealed.first() {
        Some((member, _)) => AlertReason::NotASurvivor { node: member.node },
        None => AlertReason::Silent { node: active.chain.first().map_or(NodeId(0), |member| member.node) },
    }
}
