//! The Rust client of MiniKafka: produce and consume over raw TCP, on tokio.
//!
//! Begin with [`Client::builder`]; it leads to a [`Producer`] and a [`Consumer`] of a topic, and to the methods about
//! topics and offsets. [`Connection`] is the layer below, for whoever speaks the protocol directly.
//!
//! - A [`Producer`] gathers records into batches per partition, keeps several batches in flight, and retries in order
//!   under one sequence of numbers, so that every record is stored exactly once and in order (`producer`).
//! - A [`Consumer`] fetches ahead of the application within a bound of memory, verifies every checksum, and follows
//!   partitions when they move (`consumer`).
//! - A [`GroupConsumer`] reads what its group assigns to it, and commits how far it came (`group`); a [`Queue`]
//!   is less than that: push and pull (`queue`).
//! - All follow the map of the cluster: a client with a fresh map talks straight to the core that owns its data.
//!
//! Protocol and formats: `docs/PROTOCOL.md`, `docs/DATA_FILE.md`.

mod backoff;
mod client;
pub mod connection;
pub mod consumer;
mod error;
mod explain;
mod gateway;
pub mod group;
mod map;
mod offsets;
mod overdue;
mod partition_requests;
mod pool;
pub mod producer;
pub mod queue;
mod topics;

pub use client::{Client, ClientBuilder, ClientOptions};
pub use connection::{ClusterSecret, ConnectOptions, Connection, Reply};
pub use consumer::{
    Consumer, ConsumerOptions, ConsumerRecord, FetchedRecords, OnDamage, OutOfRangePolicy, ReadFrom, Skipped, StartAt,
};
pub use error::{BrokerError, Error, Result};
pub use explain::{Explain, Hop, Stage, StageSpan};
pub use group::{
    Acknowledge, GroupConsumer, GroupConsumerOptions, GroupDescription, GroupMember, GroupRecord, GroupRecords,
    GroupStart, ListedGroup, PartitionLag, TopicPartition,
};
pub use map::{ClusterMap, RangeMember, RangeOwner};
pub use producer::{BatchDelivery, DeliveredRun, Delivery, DeliveryFuture, Producer, ProducerOptions, ProducerRecord};
pub use queue::{Pushed, Queue, QueueDelivery, QueueOptions, Subscription};
pub use topics::TopicOptions;

/// The shared words of the protocol: ids, error codes, messages, batches.
pub use minikafka_core as core;
pub use minikafka_core::entry::Codec;
pub use minikafka_core::wire::OffsetQuery;
pub use minikafka_core::wire::group::GroupPhase;
