//! The cluster's few shared facts: their records, their places, and what a coordinator must be able to do.
//!
//! Records are JSON, so that an operator can read them with the coordinator's own tools. The trait is a small
//! versioned key space with ephemeral keys and watches, which ZooKeeper has and the embedded coordinator imitates.

mod operation;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::chain::ChainMember;
use crate::ids::*;
use crate::limits;
use crate::topic::{TopicConfig, TopicState};

pub use operation::{OperationRecord, OperationState, OperationTask, RangeMove};

/// `/cluster`: written once, when the cluster is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The cluster.
    pub cluster: ClusterId,
    /// Replication of group state, fixed for the life of the cluster.
    pub internal_replication: u16,
    /// Version of these records: [`RECORDS_FORMAT`].
    pub format: u16,
    /// What [`secret_check`](crate::wire::secret_check) makes of the cluster secret, so that a wrong one is told at start;
    /// empty in records of the first releases: unknown.
    #[serde(default)]
    pub secret_check: String,
}

/// Version of the records of this release.
pub const RECORDS_FORMAT: u16 = 1;

/// `/brokers/<node>`, ephemeral: a live broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRecord {
    /// The node.
    pub node: NodeId,
    /// `host:port` of shard 0, 1, … as others reach them.
    pub shards: Vec<String>,
    /// Where it stands; empty: nobody said.
    pub rack: String,
    /// Its process.
    pub incarnation: Incarnation,
    /// Its disk.
    pub store: StoreId,
    /// Its release.
    pub version: String,
}

/// `/gateways/<writer>`, ephemeral: a live gateway. The lowest creation order is the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// This gateway session.
    pub writer: WriterId,
    /// `host:port` of its native port.
    pub address: String,
    /// `host:port` of its HTTP port; empty: none.
    pub http: String,
}

/// A chain that acts, or acted last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveChain {
    /// Its epoch.
    pub epoch: Epoch,
    /// Head first.
    pub chain: Vec<ChainMember>,
    /// The end every member was reconciled to.
    pub start: LogPoint,
}

/// A change under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingChange {
    /// The epoch it will have.
    pub epoch: Epoch,
    /// The controller session that makes it.
    pub writer: WriterId,
}

/// The record of one range: it decides, whatever the ring proposes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRecord {
    /// None: never active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveChain>,
    /// None: nothing under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

impl RangeRecord {
    /// The highest epoch this record has seen.
    pub fn epoch_max(&self) -> Epoch {
        let active = self.active.as_ref().map_or(Epoch(0), |active| active.epoch);
        self.pending.map_or(active, |pending| pending.epoch.max(active))
    }
}

/// `/rings/<replication>/<chunk>`: up to 256 ranges, changed by one compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingChunk {
    /// The ring.
    pub ring: RingId,
    /// Members a chain should have.
    pub replication: u16,
    /// Ranges of the whole ring, a power of two.
    pub ranges_total: u32,
    /// The range of `ranges[0]`.
    pub first: RangeId,
    /// Their records.
    pub ranges: Vec<RangeRecord>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRecord {
    /// Its id.
    pub topic: TopicId,
    /// How many partitions.
    pub partitions: u32,
    /// The ring it lies on.
    pub ring: RingId,
    /// Where it is in its life.
    pub state: TopicState,
    /// Its settings.
    pub config: TopicConfig,
    /// Their version; grows with every change.
    pub config_version: ConfigVersion,
    /// Partitions that do not lie where their token says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub placement: BTreeMap<Partition, RangeId>,
}

/// `/topics/<bucket>`: topics by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicBucket {
    /// The topics.
    pub topics: BTreeMap<String, TopicRecord>,
}

/// Where records are, below the coordinator's root.
pub mod path {
    use super::*;

    /// The cluster's record.
    pub const CLUSTER: &str = "/cluster";
    /// Parent of the live brokers.
    pub const BROKERS: &str = "/brokers";
    /// Parent of the live gateways.
    pub const GATEWAYS: &str = "/gateways";
    /// Parent of the rings.
    pub const RINGS: &str = "/rings";
    /// Parent of the topic buckets.
    pub const TOPICS: &str = "/topics";
    /// Parent of the operators' operations.
    pub const OPERATIONS: &str = "/operations";

    /// A live broker.
    pub fn broker(node: NodeId) -> String {
        format!("{BROKERS}/{node}")
    }

    /// An operation.
    pub fn operation(operation: OperationId) -> String {
        format!("{OPERATIONS}/{operation}")
    }

    /// A chunk of a ring.
    pub fn ring_chunk(replication: u16, chunk: u32) -> String {
        format!("{RINGS}/{replication}/{chunk}")
    }

    /// The bucket of a topic name.
    pub fn topic_bucket(name: &str) -> String {
        format!("{TOPICS}/{}", crate::checksum::crc32c(name.as_bytes()) % limits::TOPIC_BUCKETS)
    }
}

/// Version of a key's value; grows with each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyVersion(pub i64);

/// A key's value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Vec<u8>,
    /// Their version.
    pub version: KeyVersion,
}

/// How long a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLife {
    /// Until it is deleted.
    Persistent,
    /// Until the session that created it ends.
    Ephemeral,
    /// Ephemeral, and the coordinator appends a growing number to its name.
    EphemeralSequential,
}

/// What a coordinator is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorRequest {
    /// Reads a key.
    Get {
        /// Which.
        path: String,
    },
    /// Creates a key, and its parents where they are missing.
    Create {
        /// Which.
        path: String,
        /// Its first value.
        value: Vec<u8>,
        /// How long it lives.
        life: KeyLife,
    },
    /// Changes a key if it is still at a version.
    CompareAndSet {
        /// Which.
        path: String,
        /// Its new value.
        value: Vec<u8>,
        /// The version it must have.
        version: KeyVersion,
    },
    /// Deletes a key if it is still at a version.
    Delete {
        /// Which.
        path: String,
        /// The version it must have.
        version: KeyVersion,
    },
    /// Lists a key's children by name, sorted.
    Children {
        /// Of which.
        path: String,
    },
}

/// What a coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorReply {
    /// To a get: the value, if the key exists.
    Value(Option<Versioned>),
    /// To a create: the path as created (a sequential key has its number) and its version.
    Created {
        /// The path.
        path: String,
        /// The first version.
        version: KeyVersion,
    },
    /// To a compare-and-set.
    Set(KeyVersion),
    /// To a delete.
    Deleted,
    /// To children; empty too where the parent does not exist.
    Children(Vec<String>),
}

/// Why a coordinator did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CoordinationError {
    /// Create: the key is there already.
    #[error("{path} exists already")]
    Exists {
        /// Which.
        path: String,
    },
    /// Compare-and-set or delete: the key is not there.
    #[error("{path} does not exist")]
    Missing {
        /// Which.
        path: String,
    },
    /// Compare-and-set or delete: somebody was faster. Read again and decide anew.
    #[error("{path} is no longer at the version that was read")]
    Conflict {
        /// Which.
        path: String,
    },
    /// The outcome is unknown: it may have happened. Read before trying again.
    #[error("the coordinator did not answer ({reason}); whether the change happened is unknown")]
    Unknown {
        /// What is known.
        reason: String,
    },
    /// It did not happen, and cannot while the coordinator is away.
    #[error("the coordinator cannot be reached ({reason}); check --coordinator and that it runs")]
    Unavailable {
        /// What is known.
        reason: String,
    },
    /// What is stored is not what this release writes.
    #[error("{path} holds something else than a record of this release: {reason}")]
    Malformed {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a coordinator tells by itself. Hints only: read to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorEvent {
    /// A key below a watched path was created, changed or deleted, perhaps several times.
    Changed {
        /// The key, or the watched path itself when it is not known which.
        path: String,
    },
    /// A session begins: register ephemerals again and read everything again.
    SessionStarted,
    /// Contact is lost; ephemerals may still be there, or not.
    SessionSuspended,
    /// The session is over and its ephemerals are gone; another begins by itself.
    SessionExpired,
}

/// Receives the outcome of one request.
pub type CoordinatorCallback = Box<dyn FnOnce(Result<CoordinatorReply, CoordinationError>) + Send>;
/// Receives events; called from the coordinator's thread, so it must only pass them on.
pub type CoordinatorWatcher = Box<dyn Fn(CoordinatorEvent) + Send + Sync>;

/// One session with a coordinator. Callbacks come from the coordinator's own thread, in the order of the requests.
pub trait Coordinator: Send + Sync {
    /// Asks something; `done` is called exactly once.
    fn submit(&self, request: CoordinatorRequest, done: CoordinatorCallback);

    /// Watches everything below `prefix` until the session is closed. The watcher also hears of the session.
    fn watch(&self, prefix: &str, watcher: CoordinatorWatcher);

    /// Ends the session: its ephemerals go at once.
    fn close(&self);
}
