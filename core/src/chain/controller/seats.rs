//! Which shard of a process opens which range.
//!
//! A process opens a range on one shard only, and only it knows on which. A shard is dealt by the range's rank among those
//! that the node holds in this chunk, not by what other shards hold: ranges spread to ±1, and a controller that takes over
//! half way chooses the same shard of the same process. A range that a node does not hold yet goes to the shard with the
//! fewest seats. Where two controllers came to choose differently, the process refuses, and the next shard is tried.

use std::collections::{BTreeMap, BTreeSet};

use super::need::Brokers;
use crate::coordination::{BrokerRecord, RangeRecord, RingChunk};
use crate::ids::*;
use crate::ring::placement::{self, Place, PlaceName};

/// The seats of each process, by position in the chunk; those held are fixed at the first question, others when asked for.
pub(super) type SeatBook = BTreeMap<NodeId, (Incarnation, Vec<Option<ShardId>>)>;

/// Which nodes hold which range, and on which shards.
pub(super) struct Seats<'a> {
    /// By position in the chunk; head first.
    pub(super) nodes: Vec<Vec<NodeId>>,
    chunk: &'a RingChunk,
    book: &'a mut SeatBook,
}

impl<'a> Seats<'a> {
    pub(super) fn new(
        chunk: &'a RingChunk,
        brokers: &Brokers,
        draining: &BTreeSet<NodeId>,
        book: &'a mut SeatBook,
    ) -> Self {
        let mut nodes: Vec<Vec<NodeId>> = chunk.ranges.iter().map(active_nodes).collect();
        if nodes.iter().any(Vec::is_empty) {
            propose_missing(&mut nodes, chunk, brokers, draining);
        }
        Self { nodes, chunk, book }
    }

    /// The shard of a process that opens the range at a position.
    pub(super) fn shard(&mut self, broker: &BrokerRecord, at: usize) -> ShardId {
        if self.book.get(&broker.node).is_none_or(|(incarnation, _)| *incarnation != broker.incarnation) {
            let seats = (broker.incarnation, self.deal(broker));
            self.book.insert(broker.node, seats);
        }
        let Some((_, seats)) = self.book.get_mut(&broker.node) else { return ShardId(0) };
        if seats[at].is_none() {
            let load = |shard: &u16| seats.iter().filter(|seat| **seat == Some(ShardId(*shard))).count();
            seats[at] = (0..shards(broker)).min_by_key(load).map(ShardId);
        }
        seats[at].unwrap_or_default()
    }

    /// Deals the node's ranges to its shards in turn, but for those that the record says this process opened already.
    fn deal(&self, broker: &BrokerRecord) -> Vec<Option<ShardId>> {
        let mut seats = vec![None; self.nodes.len()];
        let held = (0..self.nodes.len()).filter(|at| self.nodes[*at].contains(&broker.node));
        for (rank, at) in held.enumerate() {
            let members = self.chunk.ranges[at].active.iter().flat_map(|active| &active.chain);
            let opened = members.into_iter().find(|member| member.incarnation == broker.incarnation);
            let dealt = ShardId((rank % usize::from(shards(broker))) as u16);
            seats[at] = Some(opened.map_or(dealt, |member| member.shard));
        }
        seats
    }
}

/// The process did not open a range where it was asked: the next shard is tried next time.
pub(super) fn try_next_seat(book: &mut SeatBook, broker: &BrokerRecord, at: usize, refused: ShardId) -> ShardId {
    let next = ShardId(refused.0.saturating_add(1) % shards(broker));
    if let Some((incarnation, seats)) = book.get_mut(&broker.node)
        && *incarnation == broker.incarnation
        && seats.get(at) == Some(&Some(refused))
    {
        seats[at] = Some(next);
    }
    next
}

fn shards(broker: &BrokerRecord) -> u16 {
    broker.shards.len().clamp(1, usize::from(u16::MAX)) as u16
}

fn active_nodes(record: &RangeRecord) -> Vec<NodeId> {
    record.active.iter().flat_map(|active| active.chain.iter().map(|member| member.node)).collect()
}

/// Places for ranges that were never active, next to those that others hold already.
fn propose_missing(nodes: &mut [Vec<NodeId>], chunk: &RingChunk, brokers: &Brokers, draining: &BTreeSet<NodeId>) {
    let live: Vec<Place> =
        brokers.values().filter(|broker| !draining.contains(&broker.node)).flat_map(places).collect();
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
