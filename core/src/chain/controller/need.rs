//! What a range needs, from its record, the live brokers, and what is known of learners and suspects. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::alert::AlertReason;
use super::learning::Progress;
use super::min_in_sync;
use super::range::RangeState;
use super::seats::Seats;
use crate::chain::ChainMember;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::coordination::{ActiveChain, BrokerRecord};
use crate::ids::*;

/// What a range needs.
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Its members should hear (again) that they may act.
    Tell,
    /// A change; these are to be sealed: members of the last chain in their order, then newcomers.
    Change(Vec<ChainMember>),
    /// Something that is not there.
    Wait(AlertReason),
}

pub(super) type Brokers = BTreeMap<NodeId, BrokerRecord>;

/// What ranges are judged by.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) now_ms: u64,
    pub(super) replication: u16,
    pub(super) brokers: &'a Brokers,
    /// The nodes that the operator wants, if they are a possible chain.
    pub(super) wish: Option<&'a [NodeId]>,
    /// Nodes that get no ranges.
    pub(super) draining: &'a BTreeSet<NodeId>,
}

impl View<'_> {
    /// Members that the chain shall have.
    pub(super) fn size(&self) -> usize {
        self.wish.map_or(usize::from(self.replication), <[NodeId]>::len)
    }

    /// Whether a node that does not hold the range is not to get it.
    pub(super) fn keeps_out(&self, node: NodeId) -> bool {
        self.draining.contains(&node) && !self.wish.is_some_and(|wish| wish.contains(&node))
    }

    pub(super) fn floor(&self) -> usize {
        min_in_sync(self.replication)
    }
}

/// A wish that can be fulfilled: distinct nodes, neither below the floor nor more than the ring replicates.
pub(super) fn possible_wish(nodes: &[NodeId], replication: u16) -> bool {
    let is_distinct = nodes.iter().enumerate().all(|(at, node)| !nodes[..at].contains(node));
    is_distinct && (min_in_sync(replication)..=usize::from(replication)).contains(&nodes.len())
}

/// What the range at a position needs. `seats` says which shard of a node opens it after a restart.
pub(super) fn need(
    view: &View<'_>,
    active: Option<&ActiveChain>,
    is_pending: bool,
    state: &RangeState,
    seats: &mut Seats<'_>,
    at: usize,
) -> Need {
    let Some(active) = active else { return first_chain(view, seats, at) };
    let intact = active.chain.iter().all(|member| view.brokers.get(&member.node).is_some_and(|b| is_same(member, b)));
    let disturbed = is_pending || state.broken || state.seen > active.epoch || state.suspicions.disturb(active);
    if intact && !disturbed && !gains(view, active, state) {
        return if state.told == Some(active.epoch) { Need::Nothing } else { Need::Tell };
    }
    let members = next_members(view, active, state, seats, at);
    let counted_on = members.iter().filter(|member| !state.silent.contains(&member.node)).count();
    let newcomers = newcomers(view, state, counted_on);
    // R7: at least one survivor is always sealed, hence the only member of a chain of one.
    if is_planted(PlantedBug::OnlyMemberNotSealed) && active.chain.len() == 1 && !newcomers.is_empty() {
        return Need::Change(newcomers);
    }
    // R5c: without a survivor the range waits, whoever else has been in its chain before.
    let is_waited_for = !is_planted(PlantedBug::FormerMemberAsSource) || newcomers.is_empty();
    if members.is_empty() && is_waited_for {
        return Need::Wait(nobody_left(view.brokers, active, state));
    }
    Need::Change(members.into_iter().chain(newcomers).collect())
}

fn first_chain(view: &View<'_>, seats: &mut Seats<'_>, at: usize) -> Need {
    let nodes = view.wish.map_or_else(|| seats.nodes[at].clone(), <[NodeId]>::to_vec);
    let proposed: Vec<&BrokerRecord> = nodes.iter().filter_map(|node| view.brokers.get(node)).collect();
    let chain: Vec<ChainMember> = proposed.into_iter().map(|broker| member(broker, seats.shard(broker, at))).collect();
    if chain.len() < view.size() {
        let live = view.brokers.keys().filter(|node| !view.keeps_out(**node)).count();
        return Need::Wait(AlertReason::TooFewNodes { live, wanted: view.size() });
    }
    Need::Change(chain)
}

/// Whether a chain that works would be better with those who are ready.
fn gains(view: &View<'_>, active: &ActiveChain, state: &RangeState) -> bool {
    let is_ready = |node: &NodeId| state.learners.get(node).is_some_and(|learner| learner.progress == Progress::Ready);
    let holds = |node: &NodeId| active.chain.iter().any(|member| member.node == *node);
    match view.wish {
        Some(wish) if !active.chain.iter().map(|member| &member.node).eq(wish) => {
            let grows = active.chain.len() < wish.len() && wish.iter().any(is_ready);
            let is_fit = |node: &NodeId| holds(node) && !state.suspicions.is_left_out(*node, view.now_ms);
            grows || wish.iter().all(|node| is_ready(node) || is_fit(node))
        }
        _ => active.chain.len() < view.size() && state.learners.keys().any(is_ready),
    }
}

/// The members of the last chain that are live with the same store, in their order, but for those whose disk failed.
fn next_members(
    view: &View<'_>,
    active: &ActiveChain,
    state: &RangeState,
    seats: &mut Seats<'_>,
    at: usize,
) -> Vec<ChainMember> {
    let mut back = |old: &ChainMember| {
        let broker = live_again(old, view.brokers).filter(|broker| !state.suspicions.has_failed(broker))?;
        Some(if is_same(old, broker) { *old } else { member(broker, seats.shard(broker, at)) })
    };
    let members: Vec<ChainMember> = active.chain.iter().filter_map(&mut back).collect();
    // Whom others cannot copy from is treated as one who cannot be reached, where that leaves enough: every survivor has
    // what is committed (R5c), and the longest log helps nobody who does not get it.
    let in_reach = |member: &&ChainMember| !state.suspicions.is_out_of_reach(member.node, view.now_ms);
    let reached: Vec<ChainMember> = members.iter().filter(in_reach).copied().collect();
    if reached.len() >= view.floor() { reached } else { members }
}

/// Who joins: learners that are ready, and while that is not enough, whoever is known to be reachable (R8, R9).
fn newcomers(view: &View<'_>, state: &RangeState, members: usize) -> Vec<ChainMember> {
    let with = |progress| state.learners.values().filter(move |learner| learner.progress == progress);
    let ready: Vec<ChainMember> = with(Progress::Ready).map(|learner| learner.member).collect();
    let counted_on = ready.iter().filter(|member| !state.silent.contains(&member.node)).count();
    let lacking = view.floor().saturating_sub(members + counted_on);
    ready.into_iter().chain(with(Progress::Answers).map(|learner| learner.member).take(lacking)).collect()
}

fn nobody_left(brokers: &Brokers, active: &ActiveChain, state: &RangeState) -> AlertReason {
    let failed = |member: &&ChainMember| brokers.get(&member.node).is_some_and(|b| state.suspicions.has_failed(b));
    if let Some(member) = active.chain.iter().find(failed) {
        return AlertReason::WriteFailed { node: member.node };
    }
    match active.chain.iter().find(|member| brokers.contains_key(&member.node)) {
        Some(member) => AlertReason::WipedDisk { node: member.node },
        None => AlertReason::NodeGone { node: active.chain.first().map_or(NodeId(0), |member| member.node) },
    }
}

/// The broker of a member, if it is live and has the same disk.
pub(super) fn live_again<'a>(member: &ChainMember, brokers: &'a Brokers) -> Option<&'a BrokerRecord> {
    brokers.get(&member.node).filter(|broker| broker.store == member.store && !broker.shards.is_empty())
}

/// Whether a member is the very process that the record names.
pub(super) fn is_same(member: &ChainMember, broker: &BrokerRecord) -> bool {
    member.store == broker.store
        && member.incarnation == broker.incarnation
        && usize::from(member.shard.0) < broker.shards.len()
}

pub(super) fn member(broker: &BrokerRecord, shard: ShardId) -> ChainMember {
    ChainMember { node: broker.node, shard, store: broker.store, incarnation: broker.incarnation }
}
