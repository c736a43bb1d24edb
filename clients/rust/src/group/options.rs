//! Settings of a consumer that belongs to a group.

use std::time::Duration;

use minikafka_core::limits;

use crate::consumer::{ConsumerOptions, OnDamage, OutOfRangePolicy, ReadFrom};
use crate::error::{Error, Result};

/// When a record counts as handled, and may be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// When the application asks for another one, commits, or closes the consumer.
    #[default]
    Automatic,
    /// When [`super::GroupRecord::ack`] was called. The group goes on at the lowest record that was handed out and not
    /// acknowledged. While 65,536 are, no others are handed out.
    ByRecord,
}

/// Where a group begins in a partition of which nobody committed anything, or where what was committed is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupStart {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// Behind the last record, which is committed at once.
    Latest,
    /// Nowhere: [`Error::NoCommit`] is returned (or `offset_out_of_range`), and the application seeks.
    Error,
}

/// Settings of a [`super::GroupConsumer`]. Each is set by the application.
#[derive(Clone, Debug)]
pub struct GroupConsumerOptions {
    /// For so long the client may be silent before its partitions go to others; heartbeats are its own, whatever the
    /// application does. 1 s to 10 min. Default: 10 s.
    pub session_timeout: Duration,
    /// What was handled is committed this often. Default: 5 s.
    pub commit_interval: Duration,
    /// When a record counts as handled. Default: automatically.
    pub acknowledge: Acknowledge,
    /// Where to begin without a commit. Default: at the earliest record.
    pub start: GroupStart,
    /// A name, unique in the group, that makes this consumer a *static* member: a new process of the same name takes its
    /// partitions over at once, and fences this one. Default: none.
    pub instance: Option<String>,
    /// Fetched bytes that wait for the application, of all topics together. At least 64 KiB for each. Default: 32 MiB.
    pub prefetch_bytes_max: usize,
    /// As [`ConsumerOptions::partition_fetch_bytes_max`]. Default: 1 MiB.
    pub partition_fetch_bytes_max: u32,
    /// As [`ConsumerOptions::fetch_wait`]. Default: 500 ms.
    pub fetch_wait: Duration,
    /// As [`ConsumerOptions::read_from`]. Default: the head.
    pub read_from: ReadFrom,
    /// As [`ConsumerOptions::on_damage`]. Default: the error is returned.
    pub on_damage: OnDamage,
}

impl Default for GroupConsumerOptions {
    fn default() -> Self {
        let ConsumerOptions { prefetch_bytes_max, partition_fetch_bytes_max, fetch_wait, read_from, on_damage, .. } =
            ConsumerOptions::default();
        Self {
            session_timeout: Duration::from_millis(limits::SESSION_TIMEOUT_MS_DEFAULT.into()),
            commit_interval: Duration::from_secs(5),
            acknowledge: Acknowledge::default(),
            start: GroupStart::default(),
            instance: None,
            prefetch_bytes_max,
            partition_fetch_bytes_max,
            fetch_wait,
            read_from,
            on_damage,
        }
    }
}

impl GroupConsumerOptions {
    /// Refuses settings outside of their range.
    pub(super) fn check(&self, topics: usize) -> Result<()> {
        let refuse = |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.into() });
        let millis = |millis: u32| Duration::from_millis(millis.into());
        let timeouts = millis(limits::SESSION_TIMEOUT_MS_MIN)..=millis(limits::SESSION_TIMEOUT_MS_MAX);
        if !timeouts.contains(&self.session_timeout) {
            return refuse("session_timeout", "it must be 1 s to 10 min");
        }
        if self.commit_interval < Duration::from_millis(10) {
            return refuse("commit_interval", "it must be at least 10 ms");
        }
        if topics == 0 || topics > limits::GROUP_TOPICS_MAX {
            return refuse("topics", "name 1 to 4,096 topics");
        }
        if self.instance.as_ref().is_some_and(String::is_empty) {
            return refuse("instance", "it must not be empty");
        }
        self.of_topic(topics).check()
    }

    /// Those of reading one of so many topics.
    pub(super) fn of_topic(&self, topics: usize) -> ConsumerOptions {
        let out_of_range = match self.start {
            GroupStart::Earliest => OutOfRangePolicy::Earliest,
            GroupStart::Latest => OutOfRangePolicy::Latest,
            GroupStart::Error => OutOfRangePolicy::Error,
        };
        ConsumerOptions {
            prefetch_bytes_max: self.prefetch_bytes_max / topics,
            partition_fetch_bytes_max: self.partition_fetch_bytes_max,
            fetch_wait: self.fetch_wait,
            read_from: self.read_from.clone(),
            on_damage: self.on_damage,
            out_of_range,
            ..ConsumerOptions::default()
        }
    }
}
