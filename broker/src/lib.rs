//! The broker: one shard per core, each a thread with its own io_uring, ranges, connections and memory.
//!
//! `Broker::start` opens the data directory, starts the shards and registers the node; from then on the controller (in a
//! gateway) tells each shard which ranges to hold. A shard interprets `core`'s state machines over `storage` and `net`;
//! the protocol's decisions are all in `core`.

mod broker;
mod clock;
mod complaints;
mod config;
mod control;
mod copy_pace;
mod delete_records;
mod directory;
mod error;
mod explain;
mod fetch;
mod groups;
mod metrics;
mod owners;
mod peers;
mod produce;
mod quota;
mod range;
mod receive;
mod registration;
mod retention;
mod scrub;
mod service;
mod shard;
mod shard_thread;

pub use broker::{Broker, BrokerHandle};
pub use clock::{Clock, ManualClock};
pub use config::BrokerConfig;
pub use error::BrokerError;
pub use explain::Trace;
pub use fetch::Fetched;
pub use metrics::{BrokerMetrics, CHAPTERS as METRICS, Stages, TopicTable};
pub use owners::RangeOwners;
pub use peers::{NoPeers, Peers, Room};
pub use range::{Changed, Completion, GroupCompletion, PartitionOffsets, Range};
pub use shard::{Shard, ShardSetup, TICK};
