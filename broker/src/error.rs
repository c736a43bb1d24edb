//! Why a broker does not start, or stops.

use std::io;

use minikafka_core::coordination::CoordinationError;
use minikafka_core::{RangeKey, ShardId};
use minikafka_storage::LogError;
use thiserror::Error;

/// What happened, to what, and what to do.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The data directory cannot be used.
    #[error("{0}")]
    Storage(#[from] LogError),
    /// A shard cannot listen.
    #[error("shard {shard} {source}; stop what uses the port, or choose another --port-base")]
    Listen {
        /// Which.
        shard: ShardId,
        /// Where, and why not.
        source: io::Error,
    },
    /// A shard's thread or io_uring could not be set up.
    #[error("shard {shard} cannot start: {reason}; `minikafka doctor` names what the machine lacks")]
    Executor {
        /// Which.
        shard: ShardId,
        /// Why not.
        reason: String,
    },
    /// The coordinator refused.
    #[error("cannot register with the coordinator: {0}")]
    Coordination(#[from] CoordinationError),
    /// Another process has this node id.
    #[error(
        "a broker with node id {node} is registered already, at {address}; stop it, or give this one another --node-id"
    )]
    DuplicateNode {
        /// Its node id, and this one's.
        node: minikafka_core::NodeId,
        /// Where its first shard listens.
        address: String,
    },
    /// A shard ended by itself.
    #[error("shard {shard} ended unexpectedly; its log has the reason")]
    ShardLost {
        /// Which.
        shard: ShardId,
    },
    /// A range's snapshot is not of this release.
    #[error("the snapshot of range {range} cannot be read: {reason}; was it written by a newer release?")]
    Snapshot {
        /// Which.
        range: RangeKey,
        /// Why not.
        reason: String,
    },
}
