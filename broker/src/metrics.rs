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
    /// Entry bytes sent to consumers.
    pub fetched_bytes: Counter,
    /// Fetch requests answered.
    pub fetches: Counter,
}
