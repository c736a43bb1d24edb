//! What an operation would move, from the map alone. Pure: nothing is asked, nothing is done.

use std::collections::{BTreeMap, BTreeSet};

use minikafka_core::coordination::{
    ActiveChain, BrokerRecord, OperationRecord, OperationState, OperationTask, RangeMove, RingChunk,
};
use minikafka_core::ring::placement::{self, Place, PlaceName, Room};
use minikafka_core::{NodeId, OperationId, RangeId, RangeKey, ShardId, limits};

use super::OperationError;
use crate::admin::{MoveRequest, PlanRequest};
use crate::map::ClusterMap;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) task: OperationTask,
    pub(crate) at_once: u16,
    pub(crate) moves: Vec<RangeMove>,
}

/// Plans what is asked for, or says why that cannot be.
pub(crate) fn plan(map: &ClusterMap, request: &PlanRequest) -> Result<Plan, OperationError> {
    let at_once = request.at_once.unwrap_or(limits::MOVES_AT_ONCE_DEFAULT);
    if at_once == 0 || at_once > limits::MOVES_AT_ONCE_MAX {
        return Err(invalid(format!("at_once is {at_once}: 1 to {}", limits::MOVES_AT_ONCE_MAX)));
    }
    let (task, mut moves) = match (request.drain, &request.move_range, request.rebalance) {
        (Some(node), None, None) => (OperationTask::Drain(node), drain(map, node)?),
        (None, Some(wanted), None) => (OperationTask::Move, move_range(map, wanted)?),
        (None, None, Some(_)) => (OperationTask::Rebalance, rebalance(map)),
        _ => return Err(invalid("say exactly one of drain, move and rebalance".to_owned())),
    };
    let under_way: BTreeMap<RangeKey, OperationId> = open_moves(map).map(|(at, wanted)| (key(wanted), at)).collect();
    if let Some((range, operation)) = moves.iter().find_map(|wanted| under_way.get_key_value(&key(wanted))) {
        return Err(OperationError::Moving { range: *range, operation: *operation });
    }
    moves.truncate(limits::OPERATION_MOVES_MAX);
    Ok(Plan { task, at_once, moves })
}

/// The range of a move.
pub(crate) fn key(wanted: &RangeMove) -> RangeKey {
    RangeKey { ring: wanted.ring, range: wanted.range }
}

/// Moves of running operations that are not done.
fn open_moves(map: &ClusterMap) -> impl Iterator<Item = (OperationId, &RangeMove)> {
    let running = map.operations.values().map(|at| &at.record).filter(|record| record.state == OperationState::Running);
    let moves = running.flat_map(|record| record.moves.iter().map(|wanted| (record.operation, wanted)));
    moves.filter(|(_, wanted)| !wanted.done)
}

/// Every range that ever had a chain.
fn chains(map: &ClusterMap) -> impl Iterator<Item = (RangeKey, &RingChunk, &ActiveChain)> {
    map.chunks.values().map(|chunk| &chunk.record).flat_map(|chunk| {
        let ranges = chunk.ranges.iter().enumerate();
        ranges.filter_map(move |(at, record)| {
            let range = RangeKey { ring: chunk.ring, range: RangeId(chunk.first.0 + at as u32) };
            record.active.as_ref().map(|active| (range, chunk, active))
        })
    })
}

fn nodes(active: &ActiveChain) -> Vec<NodeId> {
    active.chain.iter().map(|member| member.node).collect()
}

fn drain(map: &ClusterMap, node: NodeId) -> Result<Vec<RangeMove>, OperationError> {
    let held = || chains(map).filter(|(_, _, active)| active.chain.iter().any(|member| member.node == node));
    if !map.brokers.contains_key(&node) && held().next().is_none() {
        return Err(OperationError::UnknownNode { node });
    }
    let draining = map.draining();
    if let Some(&operation) = draining.get(&node) {
        return Err(OperationError::Draining { node, operation });
    }
    if let Some((operation, wanted)) = open_moves(map).find(|(_, wanted)| wanted.to.contains(&node)) {
        return Err(OperationError::Moving { range: key(wanted), operation });
    }
    let mut rooms = Rooms::new(map, draining.keys().copied().chain([node]).collect());
    let left = rooms.candidates().count();
    if let Some((range, chunk, _)) = held().find(|(_, chunk, _)| left < usize::from(chunk.replication)) {
        let (ring, replication) = (range.ring, chunk.replication);
        return Err(OperationError::BelowReplication { ring, replication, node, left });
    }
    Ok(leave(map, node, &mut rooms))
}

/// How the ranges of a node leave it: whoever has the most room takes its place. Ranges for which nobody has room are not
/// among them.
pub(super) fn leave(map: &ClusterMap, node: NodeId, rooms: &mut Rooms<'_>) -> Vec<RangeMove> {
    let mut moves = Vec::new();
    for (range, chunk, active) in chains(map) {
        let from = nodes(active);
        if let Some(to) = rooms.without(&from, node, usize::from(chunk.replication)) {
            moves.push(RangeMove { ring: range.ring, range: range.range, from, to, done: false });
        }
    }
    moves
}

fn move_range(map: &ClusterMap, wanted: &MoveRequest) -> Result<Vec<RangeMove>, OperationError> {
    let MoveRequest { ring, range, to } = wanted;
    let range = RangeKey { ring: *ring, range: *range };
    let total = map.ranges_total(ring.0).ok_or(OperationError::UnknownRing { ring: *ring })?;
    let (chunk, at) =
        map.chunk_of(range).ok_or(OperationError::UnknownRange { range, last: total.saturating_sub(1) })?;
    let replication = usize::from(chunk.record.replication);
    if to.len() != replication || to.iter().collect::<BTreeSet<_>>().len() != replication {
        return Err(invalid(format!("a chain of ring {ring} has {replication} different nodes, head first")));
    }
    if let Some(node) = to.iter().find(|node| !map.brokers.contains_key(node)) {
        return Err(OperationError::UnknownNode { node: *node });
    }
    let draining = map.draining();
    if let Some((node, operation)) = to.iter().find_map(|node| draining.get_key_value(node)) {
        return Err(OperationError::Draining { node: *node, operation: *operation });
    }
    let Some(active) = &chunk.record.ranges[at].active else {
        return Err(invalid(format!("range {range} has no chain yet: GET /v1/cluster tells what it waits for")));
    };
    let from = nodes(active);
    let is_there = from == *to;
    let wanted = RangeMove { ring: *ring, range: range.range, from, to: to.clone(), done: false };
    Ok(if is_there { Vec::new() } else { vec![wanted] })
}

/// Chunk by chunk, as first chains are chosen: every node that lives and is not drained holds as many to ±1 as its shards are
/// among all shards.
fn rebalance(map: &ClusterMap) -> Vec<RangeMove> {
    let draining = map.draining();
    let live: Vec<Place> =
        map.brokers.values().filter(|broker| !draining.contains_key(&broker.node)).flat_map(places).collect();
    let mut moves = Vec::new();
    for chunk in map.chunks.values().map(|chunk| &chunk.record) {
        let replication = usize::from(chunk.replication);
        let held = |active: &ActiveChain| -> Vec<PlaceName> {
            active.chain.iter().map(|member| (member.node, member.shard)).collect()
        };
        let current: Vec<Vec<PlaceName>> =
            chunk.ranges.iter().map(|record| record.active.as_ref().map_or_else(Vec::new, held)).collect();
        let proposed = placement::propose(&live, replication, &current);
        for (at, (record, chain)) in chunk.ranges.iter().zip(proposed).enumerate() {
            let Some(active) = &record.active else { continue };
            let (from, to) = (nodes(active), chain.into_iter().map(|(node, _)| node).collect::<Vec<_>>());
            // With too few nodes nothing is better than what is.
            if from != to && to.len() == replication {
                let range = RangeId(chunk.first.0 + at as u32);
                moves.push(RangeMove { ring: chunk.ring, range, from, to, done: false });
            }
        }
    }
    moves
}

fn places(broker: &BrokerRecord) -> impl Iterator<Item = Place> + '_ {
    let shards = 0..u16::try_from(broker.shards.len()).unwrap_or(u16::MAX);
    shards.map(|shard| Place { node: broker.node, shard: ShardId(shard), rack: broker.rack.clone() })
}

fn invalid(reason: String) -> OperationError {
    OperationError::Invalid { reason }
}

/// Nodes that ranges could go to, and what they hold, planned moves included.
pub(super) struct Rooms<'a> {
    map: &'a ClusterMap,
    /// Nodes that get nothing.
    out: BTreeSet<NodeId>,
    held: BTreeMap<NodeId, usize>,
    heads: BTreeMap<NodeId, usize>,
}

impl<'a> Rooms<'a> {
    pub(super) fn new(map: &'a ClusterMap, out: BTreeSet<NodeId>) -> Self {
        let (mut held, mut heads): (BTreeMap<NodeId, usize>, BTreeMap<NodeId, usize>) = Default::default();
        for head in chains(map).filter_map(|(_, _, active)| active.chain.first()) {
            *heads.entry(head.node).or_default() += 1;
        }
        let members = chains(map).flat_map(|(_, _, active)| active.chain.iter().map(|member| member.node));
        members.for_each(|node| *held.entry(node).or_default() += 1);
        for (_, wanted) in open_moves(map) {
            let newcomers = wanted.to.iter().filter(|node| !wanted.from.contains(node));
            newcomers.for_each(|node| *held.entry(*node).or_default() += 1);
        }
        Self { map, out, held, heads }
    }

    fn candidates(&self) -> impl Iterator<Item = &'a BrokerRecord> {
        let brokers = self.map.brokers.values().filter(|broker| !broker.shards.is_empty());
        brokers.filter(|broker| !self.out.contains(&broker.node))
    }

    /// A chain without a node that belongs to it, full again: the place of the node is another's, and the head, where it was
    /// that, is whoever heads the fewest. None: it does not belong to it, or nobody has room.
    pub(super) fn without(&mut self, chain: &[NodeId], node: NodeId, replication: usize) -> Option<Vec<NodeId>> {
        let place = chain.iter().position(|member| *member == node)?;
        let mut to: Vec<NodeId> = chain.iter().copied().filter(|member| *member != node).collect();
        to.insert(place, self.newcomer(&to)?);
        while to.len() < replication {
            let Some(newcomer) = self.newcomer(&to) else { break };
            to.push(newcomer);
        }
        if place == 0 {
            let heads = |node: &NodeId| self.heads.get(node).copied().unwrap_or_default();
            let idlest = (0..to.len()).min_by_key(|at| heads(&to[*at])).unwrap_or_default();
            to[..=idlest].rotate_right(1);
            *self.heads.entry(to[0]).or_default() += 1;
        }
        Some(to)
    }

    fn newcomer(&mut self, chain: &[NodeId]) -> Option<NodeId> {
        let held = |node: &NodeId| self.held.get(node).copied().unwrap_or_default();
        let room = |broker: &'a BrokerRecord| {
            let BrokerRecord { node, rack, shards, .. } = broker;
            Room { node: *node, rack, shards: shards.len(), held: held(node) }
        };
        let rooms: Vec<Room<'_>> = self.candidates().map(room).collect();
        let rack = |node: NodeId| self.map.brokers.get(&node).map_or("", |broker| broker.rack.as_str());
        let newcomer = placement::newcomer(&rooms, chain, rack)?;
        *self.held.entry(newcomer).or_default() += 1;
        Some(newcomer)
    }
}

impl ClusterMap {
    /// Nodes that get no ranges, and by whose wish.
    pub(crate) fn draining(&self) -> BTreeMap<NodeId, OperationId> {
        let draining = |record: &OperationRecord| Some((record.draining()?, record.operation));
        self.operations.values().filter_map(|at| draining(&at.record)).collect()
    }

    /// The nodes of a range, if nothing is under way with it.
    pub(super) fn settled(&self, range: RangeKey) -> Option<Vec<NodeId>> {
        let (chunk, at) = self.chunk_of(range)?;
        let record = &chunk.record.ranges[at];
        record.active.as_ref().filter(|_| record.pending.is_none()).map(nodes)
    }

    /// Whether the chain of any range names the node.
    pub(super) fn holds(&self, node: NodeId) -> bool {
        chains(self).any(|(_, _, active)| active.chain.iter().any(|member| member.node == node))
    }

    /// The nodes of a range, and how many it should have.
    pub(super) fn chain_of(&self, range: RangeKey) -> Option<(Vec<NodeId>, usize)> {
        let (chunk, at) = self.chunk_of(range)?;
        let active = chunk.record.ranges[at].active.as_ref()?;
        Some((nodes(active), usize::from(chunk.record.replication)))
    }
}
