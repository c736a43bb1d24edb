//! The one decision of an epoch: source, end and chain, from what the sealed members reported. Pure.

use std::collections::BTreeSet;

use super::alert::AlertReason;
use super::min_in_sync;
use crate::chain::ChainMember;
use crate::chain::planted::{PlantedBug, is_planted};
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

/// What a decision depends on besides the reports.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) epoch: Epoch,
    pub(super) replication: u16,
    /// The nodes the operator wants.
    pub(super) wish: Option<&'a [NodeId]>,
    /// Nodes to do without where the floor allows, the worst first.
    pub(super) unwanted: &'a [NodeId],
    /// Nodes that could not read what others wanted to copy.
    pub(super) bad_sources: &'a BTreeSet<NodeId>,
}

/// Decides for a range that acted before, from the reports of members of its last chain, in their order, and of newcomers.
///
/// A survivor is a member of the last active chain with the right store and a marker at or above its epoch; the source
/// is the survivor with the highest (last epoch, end) of those that can be read from. Nobody else can be the source. A
/// damaged log is none (R12): its member is taken in only where the floor needs it, to be mended or to copy everything. But
/// that of the only member is activated at its own end, serves what is good, and takes no writes.
pub(super) fn decide_next(
    terms: &Terms<'_>,
    active: &ActiveChain,
    sealed: &[Sealed<'_>],
) -> Result<Decision, AlertReason> {
    let is_named = |member: &ChainMember| active.chain.iter().any(|m| m.node == member.node && m.store == member.store);
    let survives = |(member, report): &&Sealed<'_>| {
        // R5c: who left the chain is no survivor, whatever it has.
        if is_planted(PlantedBug::FormerMemberAsSource) {
            return report.marker > Epoch(0);
        }
        let is_replaced = is_planted(PlantedBug::OnlyMemberNotSealed) && active.chain.len() == 1;
        is_replaced || report.marker >= active.epoch && is_named(member)
    };
    let named: Vec<&Sealed<'_>> = sealed.iter().filter(survives).collect();
    // R12: what is left of a damaged log is no source for others. It is better than nothing where there are no others.
    let is_only = active.chain.len() == 1;
    let survivors: Vec<_> = named.iter().copied().filter(|(_, report)| is_only || !report.damaged).collect();
    if let Some((member, _)) = named.first().filter(|_| survivors.is_empty()) {
        return Err(AlertReason::Damaged { node: member.node });
    }
    // Who cannot be read from is the source only where nobody else is: each survivor has what is committed, and more than
    // that helps nobody who does not get it. Of equals the first.
    let rank = |(member, report): &&&Sealed<'_>| {
        (!terms.bad_sources.contains(&member.node), report.last_epoch, report.end.index)
    };
    let best = match is_planted(PlantedBug::ShortestSurvivorAsSource) {
        true => survivors.iter().min_by_key(rank),
        false => survivors.iter().rev().max_by_key(rank),
    };
    let Some((source, best)) = best else {
        return Err(no_survivor(sealed, active));
    };
    if let Some((ahead, _)) = sealed.iter().find(|(_, report)| report.last_epoch > active.epoch) {
        return Err(AlertReason::EpochAhead { node: ahead.node });
    }
    let committed = sealed.iter().map(|(_, report)| report.known_committed).max().unwrap_or_default();
    if best.end.index < committed.max(active.start.index) {
        return Err(AlertReason::BehindCommitted { node: source.node });
    }
    let survivors: Vec<ChainMember> = survivors.iter().map(|(member, _)| *member).collect();
    // Nobody can copy all of a damaged log.
    let others = sealed.iter().filter(|(member, _)| !best.damaged && !survivors.contains(member));
    // A member that lost its log, or entries of it that nobody has, was not asked to learn before, so it is taken in only
    // where it is needed.
    let (mut returning, newcomers): (Vec<_>, Vec<_>) = others.partition(|(member, _)| is_named(member));
    returning.sort_by_key(|(_, report)| report.damaged);
    let newcomers = newcomers.iter().filter(|(_, report)| !report.damaged).map(|(member, _)| *member).collect();
    let returning = returning.iter().map(|(member, _)| *member).collect();
    let chain = choose(terms, survivors, newcomers, returning)?;
    Ok(Decision { epoch: terms.epoch, source: Some(*source), start: best.end, chain })
}

/// The next chain: survivors, then newcomers, then whom the floor needs; without the unwanted, and as the operator wants it.
fn choose(
    terms: &Terms<'_>,
    survivors: Vec<ChainMember>,
    newcomers: Vec<ChainMember>,
    returning: Vec<ChainMember>,
) -> Result<Vec<ChainMember>, AlertReason> {
    let floor = min_in_sync(terms.replication);
    let survived = |member: &ChainMember| survivors.contains(member);
    let mut chain: Vec<ChainMember> = survivors.iter().copied().chain(newcomers).collect();
    let lacking = floor.saturating_sub(chain.len());
    chain.extend(returning.into_iter().take(lacking));
    if chain.len() < floor {
        return Err(AlertReason::BelowFloor { members: chain.len(), floor });
    }
    for unwanted in terms.unwanted {
        // Who held the range before is worth more than being rid of it: newcomers alone are fewer copies than there were.
        let is_last = chain.iter().filter(|member| survived(member)).all(|member| member.node == *unwanted);
        if chain.len() > floor && !is_last {
            chain.retain(|member| member.node != *unwanted);
        }
    }
    if let Some(wish) = terms.wish {
        chain.sort_by_key(|member| wish.iter().position(|node| *node == member.node).unwrap_or(usize::MAX));
    }
    chain.truncate(terms.wish.map_or(usize::from(terms.replication), <[NodeId]>::len));
    Ok(chain)
}

fn no_survivor(sealed: &[Sealed<'_>], active: &ActiveChain) -> AlertReason {
    match sealed.first() {
        Some((member, _)) => AlertReason::NotASurvivor { node: member.node },
        None => AlertReason::Silent { node: active.chain.first().map_or(NodeId(0), |member| member.node) },
    }
}
