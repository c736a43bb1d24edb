//! Settings of a consumer.

use std::collections::BTreeMap;
use std::time::Duration;

use minikafka_core::{Offset, Partition, Timestamp, limits};

use crate::error::{Error, Result};

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// After the last committed record.
    Latest,
    /// At this offset, in every partition.
    Offset(Offset),
    /// At the first batch appended at or after this time.
    Time(Timestamp),
}

/// What happens when a position lies below the log's start (deleted by retention) or beyond its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRangePolicy {
    /// Go on with the first record that is there.
    Earliest,
    /// Go on with the next record that is written.
    Latest,
    /// Return the error, and let the application seek.
    #[default]
    Error,
}

/// What happens at records that are damaged on the broker's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Return [`Error::DataDamaged`], and let the application decide.
    #[default]
    Stop,
    /// Go on with the first record behind the damage that can be read; [`super::Consumer::skipped`] tells what was left out.
    Skip,
}

/// Which member of a chain records are read from. All of them serve the same log, each up to what it knows to be committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The head: it is the first to know that a record is committed, and has recent records in memory.
    #[default]
    Head,
    /// A member in this rack if there is one, otherwise as [`ReadFrom::Head`]: spares the traffic between racks.
    Nearest {
        /// As brokers are told by `--rack`.
        rack: String,
    },
    /// Partitions are spread over the members of their chains: spares the heads of topics that many read.
    Any,
}

/// Records that were left out because they are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Of this partition.
    pub partition: Partition,
    /// The first of them.
    pub from: Offset,
    /// The first one behind them.
    pub to: Offset,
}

/// Settings of a [`super::Consumer`]. Each is set by the application.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Where to begin. Default: earliest.
    pub start: StartAt,
    /// Where to begin in particular partitions, instead of `start`. Default: nowhere.
    pub start_offsets: BTreeMap<Partition, Offset>,
    /// Which partitions to read. Default: none given, all of them.
    pub partitions: Option<Vec<Partition>>,
    /// Fetched bytes that wait for the application, requests under way included; one batch (4 MiB) per shard may come on
    /// top. At least 64 KiB. Default: 32 MiB.
    pub prefetch_bytes_max: usize,
    /// Bytes of one partition in one fetch. At least 4 KiB. Default: 1 MiB.
    pub partition_fetch_bytes_max: u32,
    /// How long a shard may hold a fetch that has fewer than `fetch_bytes_min` bytes. At most 30 s. Default: 500 ms.
    pub fetch_wait: Duration,
    /// See `fetch_wait`. Default: 1.
    pub fetch_bytes_min: u32,
    /// Which members to read from. One that cannot be reached, does not act in the chain any more or lags behind what was
    /// read already is left alone for some seconds, while another one is read from. Default: the head.
    pub read_from: ReadFrom,
    /// What happens to a position that does not exist. Default: the error is returned.
    pub out_of_range: OutOfRangePolicy,
    /// What happens at records that are damaged on the broker's disk. Default: the error is returned.
    pub on_damage: OnDamage,
    /// Ask the brokers where the time of each fetch went: [`super::FetchedRecords::explain`]. Default: false.
    pub explain: bool,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            start: StartAt::default(),
            start_offsets: BTreeMap::new(),
            partitions: None,
            prefetch_bytes_max: 32 << 20,
            partition_fetch_bytes_max: 1 << 20,
            fetch_wait: Duration::from_millis(500),
            fetch_bytes_min: 1,
            read_from: ReadFrom::default(),
            out_of_range: OutOfRangePolicy::default(),
            on_damage: OnDamage::default(),
            explain: false,
        }
    }
}

impl ConsumerOptions {
    /// Refuses settings outside of their range.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.into() });
        if self.prefetch_bytes_max < 64 << 10 {
            return refuse("prefetch_bytes_max", "it must be at least 64 KiB");
        }
        if !(4 << 10..=limits::FETCH_BYTES_MAX).contains(&self.partition_fetch_bytes_max) {
            return refuse("partition_fetch_bytes_max", "it must be 4 KiB to 16 MiB");
        }
        if self.fetch_wait > Duration::from_millis(limits::FETCH_WAIT_MS_MAX.into()) {
            return refuse("fetch_wait", "it must be at most 30 s");
        }
        if self.partitions.as_ref().is_some_and(Vec::is_empty) {
            return refuse("partitions", "name at least one, or none given for all");
        }
        Ok(())
    }
}
