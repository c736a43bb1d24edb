//! What a consumer of a group hands out: records that can be acknowledged.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use minikafka_core::{Offset, Partition, PartitionKey};

use super::handled::Turn;
use super::shared::Shared;
use crate::consumer::{ConsumerRecord, FetchedRecords};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Which of its partitions.
    pub partition: Partition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.topic, self.partition)
    }
}

/// A record as [`super::GroupConsumer::next`] hands it out: a [`ConsumerRecord`] that knows its topic and can be
/// acknowledged, from any task.
#[derive(Clone, Debug)]
pub struct GroupRecord {
    pub(super) record: ConsumerRecord,
    pub(super) ticket: Ticket,
}

/// Records of one partition as [`super::GroupConsumer::next_batch`] hands them out: [`FetchedRecords`] that know their
/// topic and can be acknowledged.
#[derive(Clone, Debug)]
pub struct GroupRecords {
    pub(super) records: FetchedRecords,
    pub(super) ticket: Ticket,
}

/// What was handed out, for its acknowledgement.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) topic: Arc<str>,
    pub(super) partition: PartitionKey,
    pub(super) turn: Turn,
    pub(super) first: Offset,
}

impl GroupRecord {
    /// The topic it comes from.
    pub fn topic(&self) -> &str {
        &self.ticket.topic
    }

    /// Without what it needs to be acknowledged.
    pub fn into_record(self) -> ConsumerRecord {
        self.record
    }

    /// It is handled: the group does not need it again. Matters under [`super::Acknowledge::ByRecord`]; repeated, or after
    /// its partition went to somebody else, it does nothing.
    pub fn ack(&self) {
        self.ticket.acknowledge();
    }
}

impl Deref for GroupRecord {
    type Target = ConsumerRecord;
    fn deref(&self) -> &ConsumerRecord {
        &self.record
    }
}

impl GroupRecords {
    /// The topic they come from.
    pub fn topic(&self) -> &str {
        &self.ticket.topic
    }

    /// All of them are handled, as [`GroupRecord::ack`].
    pub fn ack(&self) {
        self.ticket.acknowledge();
    }
}

impl Deref for GroupRecords {
    type Target = FetchedRecords;
    fn deref(&self) -> &FetchedRecords {
        &self.records
    }
}

impl Ticket {
    fn acknowledge(&self) {
        self.shared.acknowledge(self.partition, self.turn, self.first);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from {}", self.topic, self.partition.partition, self.first)
    }
}
