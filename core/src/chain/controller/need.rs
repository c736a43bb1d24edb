//! What a range needs, from its record and the live brokers. Pure.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::min_in_sync;
use super::range::RangeState;
use crate::chain::ChainMember;
use crate::coordination::{ActiveChain, BrokerRecord, RangeRecord, RingChunk};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::ring::placement::{self, Place, PlaceName};

/// Why a range waits, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum AlertReason {
    /// Every member of the last chain is away.
    #[error("node {node} is away, and with it every member of the chain: start it again")]
    NodeGone {
        /// The head of that chain.
        node: NodeId,
    },
    /// The node is back with another store, and nobody else has the data.
    #[error(
        "node {node} has another disk than the one that holds this data: start it with its old data directory; the \
         range is not created again by itself"
    )]
    WipedDisk {
        /// The node.
        node: NodeId,
    },
    /// The log that the node has is older than the last chain, or is not there any more.
    #[error(
        "node {node} has lost the log of this range, or part of it: bring its old data directory back; the range is \
         not created again by itself"
    )]
    NotASurvivor {
        /// The node.
        node: NodeId,
    },
    /// Too few members to be safe.
    #[error("{members} members of the chain can be reached and {floor} are needed: bring a node back")]
    BelowFloor {
        /// How many there are.
        members: usize,
        /// How many there must be.
        floor: usize,
    },
    /// Too few nodes to begin.
    #[error("{live} nodes are live and a new chain needs {wanted}: start more nodes")]
    TooFewNodes {
        /// Live nodes.
        live: usize,
        /// Members of a chain.
        wanted: usize,
    },
    /// Nobody is left whose log is whole.
    #[error(
        "the log of node {node} is damaged, and no whole one can be reached: bring the other members of its chain back, \
         or restore the files that its log names from a backup"
    )]
    Damaged {
        /// The node.
        node: NodeId,
    },
    /// A log without a record: the coordinator's data are not those of this node.
    #[error(
        "node {node} has data of a range that the coordinator knows nothing of: check that --coordinator and the data \
         directory belong together"
    )]
    LogWithoutRecord {
        /// The node.
        node: NodeId,
    },
    /// A log with entries of an epoch that the record has not reached.
    #[error("node {node} has entries of a later epoch than the coordinator's record: was the coordinator restored?")]
    EpochAhead {
        /// The node.
        node: NodeId,
    },
    /// The best log that is left ends before something that was acknowledged.
    #[error("the log of node {node} ends below what was committed: bring the other members of its chain back")]
    BehindCommitted {
        /// The node.
        node: NodeId,
    },
    /// The node is registered but does not answer.
    #[error("node {node} is registered but does not answer the controller: check its ports and --advertise")]
    Silent {
        /// The node.
        node: NodeId,
    },
    /// The node answered with an error.
    #[error("node {node} refuses ({error}): see its log")]
    Refused {
        /// The node.
        node: NodeId,
        /// The error.
        error: RefusedWith,
    },
}

/// An [`ErrorCode`] that can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedWith(u16);

impl From<ErrorCode> for RefusedWith {
    fn from(code: ErrorCode) -> Self {
        Self(code as u16)
    }
}

impl std::fmt::Display for RefusedWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(ErrorCode::from_number(self.0).map_or("unknown error", ErrorCode::name))
    }
}

impl AlertReason {
    /// Whether trying again may help although no broker changed.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Refused { .. } | Self::BelowFloor { .. })
    }
}

/// What a range needs.
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Its members should hear (again) that they may act.
    Tell,
    /// A change; these are to be sealed.
    Change(Vec<ChainMember>),
    /// Something that is not there.
    Wait(AlertReason),
}

pub(super) type Brokers = BTreeMap<NodeId, BrokerRecord>;

/// What a range needs. `seats` says which shard of a node opens which range after a restart.
pub(super) fn need(
    record: &RangeRecord,
    state: &RangeState,
    replication: u16,
    brokers: &Brokers,
    seats: &mut Seats<'_>,
    at: usize,
) -> Need {
    let Some(active) = &record.active else { return first_chain(replication, brokers, seats, at) };
    let intact = active.chain.iter().all(|member| brokers.get(&member.node).is_some_and(|b| is_same(member, b)));
    let disturbed = record.pending.is_some() || state.broken || state.seen > record.epoch_max();
    if intact && !disturbed {
        return if state.told == Some(active.epoch) { Need::Nothing } else { Need::Tell };
    }
    let chain = next_chain(active, brokers, seats, at);
    if chain.is_empty() {
        return Need::Wait(nobody_left(active, brokers));
    }
    let floor = min_in_sync(replication);
    if chain.len() < floor {
        return Need::Wait(AlertReason::BelowFloor { members: chain.len(), floor });
    }
    Need::Change(chain)
}

fn first_chain(replication: u16, brokers: &Brokers, seats: &mut Seats<'_>, at: usize) -> Need {
    let proposed: Vec<&BrokerRecord> = seats.nodes[at].iter().filter_map(|node| brokers.get(node)).collect();
    let chain: Vec<ChainMember> = proposed.into_iter().map(|broker| member(broker, seats.shard(broker, at))).collect();
    if chain.len() < usize::from(replication) {
        return Need::Wait(AlertReason::TooFewNodes { live: brokers.len(), wanted: usize::from(replication) });
    }
    Need::Change(chain)
}

/// The members of the last chain that are live with the same store, in their order. Learners come later.
fn next_chain(active: &ActiveChain, brokers: &Brokers, seats: &mut Seats<'_>, at: usize) -> Vec<ChainMember> {
    let mut back = |old: &ChainMember| {
        let broker = brokers.get(&old.node).filter(|broker| broker.store == old.store && !broker.shards.is_empty())?;
        Some(if is_same(old, broker) { *old } else { member(broker, seats.shard(broker, at)) })
    };
    active.chain.iter().filter_map(&mut back).collect()
}

fn nobody_left(active: &ActiveChain, brokers: &Brokers) -> AlertReason {
    let wiped = active.chain.iter().find(|member| brokers.contains_key(&member.node));
    match wiped {
        Some(member) => AlertReason::WipedDisk { node: member.node },
        None => AlertReason::NodeGone { node: active.chain.first().map_or(NodeId(0), |member| member.node) },
    }
}

/// Whether a member is the very process that the record names.
fn is_same(member: &ChainMember, broker: &BrokerRecord) -> bool {
    member.store == broker.store
        && member.incarnation == broker.incarnation
        && usize::from(member.shard.0) < broker.shards.len()
}

fn member(broker: &BrokerRecord, shard: ShardId) -> ChainMember {
    ChainMember { node: broker.node, shard, store: broker.store, incarnation: broker.incarnation }
}

/// Which nodes hold which range.
pub(super) struct Seats<'a> {
    /// By position in the chunk; head first.
    nodes: Vec<Vec<NodeId>>,
    book: &'a mut SeatBook,
}

/// Which of a process's shards opens which range, by position in the chunk; fixed at the first question.
///
/// A shard is chosen by the range's rank among the node's ranges of this chunk, not by what other shards hold: ranges
/// spread to ±1, and a controller that takes over half way chooses the same shard of the same process. Should it not,
/// because chains of several members changed in between, the process refuses: a range is opened by one shard only.
pub(super) type SeatBook = BTreeMap<NodeId, (Incarnation, Vec<ShardId>)>;

impl<'a> Seats<'a> {
    pub(super) fn new(chunk: &RingChunk, brokers: &Brokers, book: &'a mut SeatBook) -> Self {
        let mut nodes: Vec<Vec<NodeId>> = chunk.ranges.iter().map(active_nodes).collect();
        if nodes.iter().any(Vec::is_empty) {
            propose_missing(&mut nodes, chunk, brokers);
        }
        Self { nodes, book }
    }

    fn shard(&mut self, broker: &BrokerRecord, at: usize) -> ShardId {
        if self.book.get(&broker.node).is_none_or(|(incarnation, _)| *incarnation != broker.incarnation) {
            let seats = (broker.incarnation, self.deal(broker));
            self.book.insert(broker.node, seats);
        }
        self.book.get(&broker.node).and_then(|(_, seats)| seats.get(at)).copied().unwrap_or_default()
    }

    /// Deals the node's ranges to its shards in turn, then all others.
    fn deal(&self, broker: &BrokerRecord) -> Vec<ShardId> {
        let shards = broker.shards.len().clamp(1, usize::from(u16::MAX));
        let is_held = |at: &usize| self.nodes[*at].contains(&broker.node);
        let (held, others): (Vec<usize>, Vec<usize>) = (0..self.nodes.len()).partition(is_held);
        let mut seats = vec![ShardId(0); self.nodes.len()];
        for (rank, at) in held.into_iter().chain(others).enumerate() {
            seats[at] = ShardId((rank % shards) as u16);
        }
        seats
    }
}

fn active_nodes(record: &RangeRecord) -> Vec<NodeId> {
    record.active.iter().flat_map(|active| active.chain.iter().map(|member| member.node)).collect()
}

/// Places for ranges that were never active, next to those that others hold already.
fn propose_missing(nodes: &mut [Vec<NodeId>], chunk: &RingChunk, brokers: &Brokers) {
    let live: Vec<Place> = brokers.values().flat_map(places).collect();
    let held = |record: &RangeRecord| -> Vec<PlaceName> {
        record.active.iter().flat_map(|active| active.chain.iter().map(|member| (member.node, member.shard))).collect()
    };
    let current: Vec<Vec<PlaceName>> = chunk.ranges.iter().map(held).collect();
    let proposed = placement::propose(&live, usize::from(chunk.replication), &current);
    for (chain, proposed) in nodes.iter_mut().zip(proposed).filter(|(chain, _)| chain.is_empty()) {
        *chain = proposed.into_iter().map(|(node, _)| node).collect();
    }
}

fn places(broker: &BrokerRecord) -> impl Iterator<Item = Place> + '_ {
    let shards: BTreeSet<u16> = (0..broker.shards.len().min(usize::from(u16::MAX)) as u16).collect();
    shards.into_iter().map(|shard| Place { node: broker.node, shard: ShardId(shard), rack: broker.rack.clone() })
}
