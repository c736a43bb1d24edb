//! The map: which node and shard owns which range, and what topics are made of (`docs/PROTOCOL.md`, "Resolve").
//!
//! A [`ClusterMap`] is an immutable snapshot; everything that is asked of it is computed, nothing is fetched. A newer
//! snapshot replaces it when a server or a lost connection shows that it is out of date (`keeper`).

use std::collections::HashMap;
use std::sync::Arc;

use minikafka_core::group::GroupName;
use minikafka_core::ring::{group_range, range_of_token, token};
use minikafka_core::wire::{NodeAddress, ResolveReply, RingMap, TopicDescription};
use minikafka_core::{ClusterId, Epoch, NodeId, Partition, PartitionKey, RangeId, RangeKey, RingId, TopicId, limits};

mod keeper;

pub(crate) use keeper::MapKeeper;

/// A snapshot of nodes, rings, and the topics this client has asked about.
#[derive(Clone, Debug, Default)]
pub struct ClusterMap {
    version: u64,
    cluster: ClusterId,
    internal_ring: RingId,
    nodes: HashMap<NodeId, Node>,
    rings: HashMap<RingId, RingMap>,
    topics: HashMap<Arc<str>, Arc<TopicDescription>>,
}

/// A live node.
#[derive(Clone, Debug)]
struct Node {
    rack: Arc<str>,
    /// `host:port` of each shard.
    shards: Vec<Arc<str>>,
}

/// One of those that hold a range: all of them serve reads, only the first takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeMember {
    /// Its node.
    pub node: NodeId,
    /// The rack of that node; empty: not told.
    pub rack: Arc<str>,
    /// `host:port` of its shard.
    pub address: Arc<str>,
    /// Whether it is the head.
    pub is_head: bool,
}

/// Where requests about a range go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeOwner {
    /// `host:port` of the shard that heads the chain.
    pub address: Arc<str>,
    /// The epoch of the chain, to be named in every request.
    pub epoch: Epoch,
}

impl ClusterMap {
    /// Grows with every snapshot of one client; 0: nothing is known yet.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Shard addresses of every live node.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &[Arc<str>])> {
        self.nodes.iter().map(|(id, node)| (*id, &node.shards[..]))
    }

    /// Every ring in use.
    pub fn rings(&self) -> impl Iterator<Item = &RingMap> {
        self.rings.values()
    }

    /// A topic by name; its `error` is set when the gateway knows none. None: nobody asked about it yet.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicDescription>> {
        self.topics.get(name)
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicDescription>> {
        self.topics.values().find(|topic| topic.topic == id && topic.error.is_none())
    }

    /// The range that holds a partition: as `placement` says, otherwise by its token. None when the ring is unknown.
    pub fn range_of(&self, topic: &TopicDescription, partition: Partition) -> Option<RangeKey> {
        let placed = topic.placement.iter().find(|placement| placement.partition == partition);
        let range = match placed {
            Some(placement) => placement.range,
            None => {
                let ranges = self.rings.get(&topic.ring)?.chains.len() as u32;
                range_of_token(token(PartitionKey { topic: topic.topic, partition }), ranges)
            }
        };
        Some(RangeKey { ring: topic.ring, range })
    }

    /// The range of a consumer group, whose head coordinates it. None when its ring is unknown.
    pub fn range_of_group(&self, group: &GroupName) -> Option<RangeKey> {
        let ranges = self.rings.get(&self.internal_ring)?.chains.len() as u32;
        Some(RangeKey { ring: self.internal_ring, range: group_range(group, ranges) })
    }

    /// Every range in which consumer groups may lie.
    pub fn group_ranges(&self) -> impl Iterator<Item = RangeKey> {
        let ranges = self.rings.get(&self.internal_ring).map_or(0, |ring| ring.chains.len() as u32);
        (0..ranges).map(|range| RangeKey { ring: self.internal_ring, range: RangeId(range) })
    }

    /// The head of a range's chain. None when the range has no chain, or its head no known address.
    pub fn owner_of(&self, range: RangeKey) -> Option<RangeOwner> {
        let head = self.members_of(range).next().filter(|member| member.is_head)?;
        Some(RangeOwner { address: head.address, epoch: self.epoch_of(range) })
    }

    /// The members of a range's chain that have a known address, the head first if it has one.
    pub fn members_of(&self, range: RangeKey) -> impl Iterator<Item = RangeMember> {
        let chain = self.rings.get(&range.ring).and_then(|ring| ring.chains.get(range.range.0 as usize));
        chain.into_iter().flat_map(|chain| &chain.places).enumerate().filter_map(|(place, at)| {
            let node = self.nodes.get(&at.node)?;
            let address = node.shards.get(usize::from(at.shard.0))?.clone();
            Some(RangeMember { node: at.node, rack: node.rack.clone(), address, is_head: place == 0 })
        })
    }

    /// The newest epoch known of a range; 0 when nothing is known.
    pub fn epoch_of(&self, range: RangeKey) -> Epoch {
        let chain = self.rings.get(&range.ring).and_then(|ring| ring.chains.get(range.range.0 as usize));
        chain.map_or(Epoch(0), |chain| chain.epoch)
    }

    /// The snapshot that follows this one. Topics that were not asked for this time are kept.
    pub(crate) fn succeeded_by(&self, reply: ResolveReply) -> Result<Self, &'static str> {
        check(&reply)?;
        let mut topics = self.topics.clone();
        for topic in reply.topics {
            topics.insert(topic.name.as_str().into(), Arc::new(topic));
        }
        let mut rings: HashMap<_, _> = reply.rings.into_iter().map(|ring| (ring.ring, ring)).collect();
        for (id, ring) in &mut rings {
            self.keep_newer_chains(*id, ring);
        }
        let shards = |shards: Vec<String>| shards.into_iter().map(Arc::from).collect();
        let node = |node: NodeAddress| (node.node, Node { rack: node.rack.into(), shards: shards(node.shards) });
        let nodes = reply.nodes.into_iter().map(node).collect();
        let (cluster, internal_ring) = (reply.cluster, reply.internal_ring);
        Ok(Self { version: self.version + 1, cluster, internal_ring, nodes, rings, topics })
    }

    /// Whether nothing is known that `other` does not know: somebody needed to know more.
    pub(crate) fn has_chains_of(&self, other: &Self) -> bool {
        self.rings == other.rings
    }

    /// Gateways may lag behind each other; a client never goes back to an older epoch of a range.
    fn keep_newer_chains(&self, id: RingId, ring: &mut RingMap) {
        let Some(known) = self.rings.get(&id).filter(|known| known.chains.len() == ring.chains.len()) else {
            return;
        };
        for (chain, known) in ring.chains.iter_mut().zip(&known.chains) {
            if known.epoch > chain.epoch {
                *chain = known.clone();
            }
        }
    }
}

/// What the computations above rely on.
fn check(reply: &ResolveReply) -> Result<(), &'static str> {
    for ring in &reply.rings {
        if !ring.chains.len().is_power_of_two() || ring.chains.len() > limits::RANGES_MAX as usize {
            return Err("the number of ranges of a ring is not a power of two");
        }
    }
    for topic in reply.topics.iter().filter(|topic| topic.error.is_none()) {
        if topic.partitions == 0 || topic.partitions > limits::TOPIC_PARTITIONS_MAX {
            return Err("a topic's partition count is outside its range");
        }
        let in_ring = |range: RangeId| {
            let ring = reply.rings.iter().find(|ring| ring.ring == topic.ring);
            ring.is_none_or(|ring| (range.0 as usize) < ring.chains.len())
        };
        if !topic.placement.iter().all(|placement| in_ring(placement.range)) {
            return Err("a partition is placed in a range that its ring does not have");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
