//! Where operations are, and what is to be done next, from the map alone: records say what is wanted, rings what is done.
//! Pure, and without memory, so that a controller that takes over goes on where the last one stopped.
//!
//! A move is done once its chain is the wished one; that of a drain once the node is not in the chain, whoever else is. Of
//! each operation, the first moves that are not done and whose nodes are all live are wished for, as many as it moves at once;
//! a move to a node that is away does not keep the others waiting. A drain looks for ranges until the node holds none.

use std::collections::{BTreeMap, BTreeSet};

use minikafka_core::coordination::{KeyVersion, OperationRecord, OperationState, OperationTask, RangeMove};
use minikafka_core::{NodeId, RangeKey, limits};

use super::now;
use super::plan::{self, Rooms};
use crate::map::{At, ClusterMap};

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Advance {
    /// Where ranges shall be; every other range has no wish.
    pub(crate) wishes: BTreeMap<RangeKey, Vec<NodeId>>,
    /// Nodes that get no ranges.
    pub(crate) draining: BTreeSet<NodeId>,
    /// Records that say less than what is true by now, and the versions they were read at.
    pub(crate) changed: Vec<(OperationRecord, KeyVersion)>,
}

/// Looks at everything. `long_away` are nodes for which drains wait no longer.
pub(crate) fn advance(map: &ClusterMap, long_away: &BTreeSet<NodeId>) -> Advance {
    let mut advance = Advance { draining: map.draining().into_keys().collect(), ..Advance::default() };
    for At { record, version } in map.operations.values().map(|at| &**at) {
        let may_go_on = record.state == OperationState::Running || record.draining().is_some();
        if !may_go_on {
            continue;
        }
        let now = brought_up_to_date(map, record, long_away);
        let open = now.moves.iter().filter(|wanted| !wanted.done && is_possible(map, wanted));
        for wanted in open.take(usize::from(now.at_once)) {
            // Where two operations want the same range, the older one has its will first.
            advance.wishes.entry(plan::key(wanted)).or_insert_with(|| wanted.to.clone());
        }
        if now != *record {
            advance.changed.push((now, *version));
        }
    }
    advance
}

/// Nodes that are away and that open moves of an operation are to.
pub(crate) fn waits_for(map: &ClusterMap, record: &OperationRecord) -> BTreeSet<NodeId> {
    let open = record.moves.iter().filter(|wanted| !is_done(map, record.task, wanted));
    let is_open = record.state == OperationState::Running;
    let nodes = open.filter(|_| is_open).flat_map(|wanted| wanted.to.iter().copied());
    nodes.filter(|node| !map.brokers.contains_key(node)).collect()
}

/// Whether a move is done.
pub(crate) fn is_done(map: &ClusterMap, task: OperationTask, wanted: &RangeMove) -> bool {
    let settled = || map.settled(plan::key(wanted));
    wanted.done
        || settled().is_some_and(|nodes| match task {
            OperationTask::Drain(node) => !nodes.contains(&node),
            OperationTask::Move | OperationTask::Rebalance => nodes == wanted.to,
        })
}

fn is_possible(map: &ClusterMap, wanted: &RangeMove) -> bool {
    wanted.to.iter().all(|node| map.brokers.contains_key(node))
}

fn brought_up_to_date(map: &ClusterMap, record: &OperationRecord, long_away: &BTreeSet<NodeId>) -> OperationRecord {
    let mut record = record.clone();
    let task = record.task;
    for wanted in &mut record.moves {
        wanted.done = is_done(map, task, wanted);
    }
    let mut is_complete = record.moves.iter().all(|wanted| wanted.done);
    if let OperationTask::Drain(node) = task {
        choose_others(map, &mut record, node, long_away);
        if is_complete {
            extend(map, &mut record, node);
            is_complete = !map.holds(node);
        }
    }
    match (record.state, is_complete) {
        (OperationState::Running, true) => {
            (record.state, record.ended) = (OperationState::Done, Some(now()));
        }
        // A change that had begun before anybody knew of the drain brought it a range all the same.
        (OperationState::Done, false) => (record.state, record.ended) = (OperationState::Running, None),
        _ => {}
    }
    record
}

/// Moves of a drain to nodes that do not come back go elsewhere.
fn choose_others(map: &ClusterMap, record: &mut OperationRecord, node: NodeId, long_away: &BTreeSet<NodeId>) {
    let is_stuck = |wanted: &RangeMove| !wanted.done && wanted.to.iter().any(|to| long_away.contains(to));
    if !record.moves.iter().any(is_stuck) {
        return;
    }
    let out = map.draining().into_keys().chain([node]).chain(long_away.iter().copied()).collect();
    let mut rooms = Rooms::new(map, out);
    for wanted in record.moves.iter_mut().filter(|wanted| is_stuck(wanted)) {
        let Some((mut chain, replication)) = map.chain_of(plan::key(wanted)) else { continue };
        chain.retain(|member| !long_away.contains(member));
        if let Some(to) = rooms.without(&chain, node, replication) {
            (wanted.from, wanted.to) = (chain, to);
        }
    }
}

/// Lists ranges that the node has beyond those that are done.
fn extend(map: &ClusterMap, record: &mut OperationRecord, node: NodeId) {
    if !map.holds(node) {
        return;
    }
    let out = map.draining().into_keys().chain([node]).collect();
    let mut more = plan::leave(map, node, &mut Rooms::new(map, out));
    more.truncate(limits::OPERATION_MOVES_MAX);
    if more.is_empty() {
        return;
    }
    record.moved_before = u32::try_from(record.moved()).unwrap_or(u32::MAX);
    record.moves = more;
}
