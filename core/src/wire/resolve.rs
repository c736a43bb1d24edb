//! What clients ask of gateways: the map, and topics.

use super::codec::wire_struct;
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::topic::{TopicConfig, TopicConfigChange, TopicState};

wire_struct! {
    /// Asks for the map.
    ResolveRequest {
        /// Topics wanted, by name.
        topics: Vec<String>,
        /// All topics, whatever `topics` says.
        all_topics: bool,
        /// Whether nodes and rings are wanted too.
        with_rings: bool,
        /// Create the topics that do not exist, where the cluster allows that.
        create_missing: bool,
    }
}

wire_struct! {
    /// A node and where its shards listen.
    NodeAddress {
        /// The node.
        node: NodeId,
        /// Where it stands; empty: nobody said.
        rack: String,
        /// `host:port` of shard 0, 1, …
        shards: Vec<String>,
    }
}

wire_struct! {
    /// One place in a chain, as clients need it.
    ChainPlace {
        /// The node.
        node: NodeId,
        /// Its shard.
        shard: ShardId,
    }
}

wire_struct! {
    /// The chain of one range.
    RangeChain {
        /// Its epoch; 0: the range was never active.
        epoch: Epoch,
        /// Head first.
        places: Vec<ChainPlace>,
    }
}

wire_struct! {
    /// One ring: `chains.len()` is its number of ranges, a power of two.
    RingMap {
        /// The ring.
        ring: RingId,
        /// Members a chain should have.
        replication: u16,
        /// The chain of range 0, 1, …
        chains: Vec<RangeChain>,
    }
}

wire_struct! {
    /// A partition that does not lie where its token says.
    Placement {
        /// The partition.
        partition: Partition,
        /// The range that holds it.
        range: RangeId,
    }
}

wire_struct! {
    /// A topic as its record says.
    TopicDescription {
        /// Its name.
        name: String,
        /// What went wrong with this topic (`unknown_topic`, …); then the rest means nothing.
        error: Option<ErrorCode>,
        /// Its id; 0 with an error.
        topic: TopicId,
        /// How many partitions it has.
        partitions: u32,
        /// The ring it lies on.
        ring: RingId,
        /// Where it is in its life.
        state: TopicState,
        /// Its settings.
        config: TopicConfig,
        /// Consulted before the token.
        placement: Vec<Placement>,
    }
}

wire_struct! {
    /// The map.
    ResolveReply {
        /// The cluster.
        cluster: ClusterId,
        /// The ring on which consumer groups lie.
        internal_ring: RingId,
        /// Live nodes.
        nodes: Vec<NodeAddress>,
        /// Every ring in use.
        rings: Vec<RingMap>,
        /// The topics asked for.
        topics: Vec<TopicDescription>,
    }
}

wire_struct! {
    /// Creates a topic. Answered with a [`TopicDescription`] once every partition is open.
    CreateTopicRequest {
        /// Its name.
        name: String,
        /// How many partitions; 0: the server's default.
        partitions: u32,
        /// Members per chain; 0: the cluster's default.
        replication: u16,
        /// Its settings.
        config: TopicConfig,
        /// Answer `timed_out` after this long; the creation goes on.
        timeout_ms: u32,
    }
}

wire_struct! {
    /// Deletes a topic. Answered with an empty head once no partition is readable any more.
    DeleteTopicRequest {
        /// Its name.
        name: String,
        /// Answer `timed_out` after this long; the deletion goes on.
        timeout_ms: u32,
    }
}

wire_struct! {
    /// Changes settings of a topic. Answered with a [`TopicDescription`] once every partition has them.
    AlterTopicRequest {
        /// Its name.
        name: String,
        /// What changes.
        change: TopicConfigChange,
        /// Answer `timed_out` after this long; the change goes on.
        timeout_ms: u32,
    }
}
