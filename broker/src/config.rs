//! What a broker must be told.

use std::path::PathBuf;
use std::time::Duration;

use minikafka_core::{ClusterId, NodeId, limits};
use minikafka_net::Deadlines;
use minikafka_storage::disk::Durability;

/// Settings of one broker process.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Its number in the cluster.
    pub node: NodeId,
    /// Where its shards listen: an address of this machine, without a port.
    pub listen_host: String,
    /// The host by which others reach it.
    pub advertise_host: String,
    /// Shard c listens on `port_base + c`.
    pub port_base: u16,
    /// How many shards: threads, each on a core of its own where there are enough.
    pub shards: u16,
    /// The core of the first shard, counted from 0 among those that the process may use; the others take the next ones, and
    /// behind the last core comes the first.
    pub first_core: u16,
    /// Where its data is. One process at a time.
    pub data_dir: PathBuf,
    /// Where it stands; empty: nobody said.
    pub rack: String,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// What peers and controllers must prove to know.
    pub cluster_secret: Vec<u8>,
    /// Memory of each shard for receiving, flushing and recent data.
    pub memory_bytes_per_shard: u64,
    /// How writes are made durable; none: as a probe of the device says.
    pub durability: Option<Durability>,
    /// Largest segment file; a power of two. Small ones give space back sooner, large ones cost less.
    pub segment_bytes_max: u64,
    /// Segment files that each shard keeps for their next use, instead of giving their space to the file system.
    pub recycled_bytes_max: u64,
    /// When connections are given up.
    pub deadlines: Deadlines,
    /// How often retention looks for what may be deleted.
    pub retention_check: Duration,
    /// What each shard reads in a second to find damage before a reader does; none: nothing.
    pub scrub_bytes_per_second: Option<u64>,
    /// What each shard lets learners copy from it in a second, all together; none: as much as they can.
    pub copy_bytes_per_second: Option<u64>,
    /// How long an idle shard looks for more to do before it gives its core up: shorter latencies for processor time.
    pub spin: Duration,
    /// How many topics each shard counts by themselves.
    pub metric_topics: u16,
    /// Body bytes that each connection may produce per second; over it, the connection is not read for a while.
    pub produce_quota_per_connection: Option<u64>,
}

impl BrokerConfig {
    /// The defaults of a node of `cluster` on this machine.
    pub fn new(node: NodeId, cluster: ClusterId, cluster_secret: Vec<u8>, data_dir: PathBuf) -> Self {
        Self {
            node,
            listen_host: "127.0.0.1".to_owned(),
            advertise_host: "127.0.0.1".to_owned(),
            port_base: 19_100,
            shards: 1,
            first_core: 0,
            data_dir,
            rack: String::new(),
            cluster,
            cluster_secret,
            memory_bytes_per_shard: limits::SHARD_MEMORY_BYTES_DEFAULT,
            durability: None,
            segment_bytes_max: limits::SEGMENT_BYTES_DEFAULT,
            recycled_bytes_max: limits::SEGMENT_POOL_BYTES_DEFAULT,
            deadlines: Deadlines::default(),
            retention_check: Duration::from_millis(limits::RETENTION_CHECK_MS),
            scrub_bytes_per_second: Some(limits::SCRUB_BYTES_PER_SECOND),
            copy_bytes_per_second: None,
            spin: Duration::ZERO,
            metric_topics: limits::METRIC_TOPICS_DEFAULT,
            produce_quota_per_connection: None,
        }
    }
}
