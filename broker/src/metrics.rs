//! What a shard counts. Plain cells on its own thread: counting costs an addition.

use std::cell::Cell;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get() + count);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Counters of one shard.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// Records accepted.
    pub produced_records: Counter,
    /// Body bytes accepted.
    pub produced_bytes: Counter,
    /// Produce requests refused before the log saw them.
    pub produce_refused: Counter,
    /// Produce requests answered `timed_out`.
    pub produce_timeouts: Counter,
    /// Batches refused because their topic's quota was used up.
    pub produce_throttled: Counter,
    /// How often a connection was not read because its quota was used up.
    pub connection_pauses: Counter,
    /// Log starts that retention moved.
    pub log_starts_moved: Counter,
    /// Segments given back because nothing in them is live.
    pub segments_dropped: Counter,
    /// Bytes of those segments, and bytes freed inside others.
    pub bytes_freed: Counter,
    /// Rounds of retention that failed for a range.
    pub retention_failures: Counter,
    /// Entry bytes read only to see whether they can be.
    pub scrubbed_bytes: Counter,
    /// Entry bytes sent to consumers.
    pub fetched_bytes: Counter,
    /// Partitions of fetches answered `data_damaged`.
    pub damaged_reads: Counter,
    /// Fetch requests answered.
    pub fetches: Counter,
    /// Heartbeats of members of consumer groups.
    pub group_heartbeats: Counter,
    /// Commits of consumer groups.
    pub group_commits: Counter,
}
