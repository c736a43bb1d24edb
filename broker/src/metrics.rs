//! What a shard counts. Plain cells on its own thread: counting costs an addition.

mod definitions;
mod shard_values;
mod source;
mod stages;
mod topics;

use std::cell::Cell;

use minikafka_core::chain::peer::ComplaintReason;
use minikafka_core::histogram::DurationHistogram;

pub use definitions::CHAPTERS;
pub(crate) use shard_values::{expose_links, expose_loop, expose_net};
pub(crate) use source::Asked;
pub use source::BrokerMetrics;
pub use stages::Stages;
pub use topics::TopicTable;

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
    /// Bytes of those segments.
    pub bytes_dropped: Counter,
    /// Bytes freed inside others.
    pub bytes_punched: Counter,
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
    /// Records in the batches of those.
    pub fetched_records: Counter,
    /// Records appended that another member sent.
    pub replicated_records: Counter,
    /// Body bytes of those.
    pub replicated_bytes: Counter,
    /// Epochs promised.
    pub promises: Counter,
    /// Complaints left, by reason.
    complaints: [Counter; COMPLAINT_REASONS.len()],
    /// Durable writes that failed.
    pub durable_write_errors: Counter,
    /// Entries that had rotted and were copied from another member.
    pub mended_entries: Counter,
    /// Bytes that other members sent to mend rot.
    pub mended_bytes: Counter,
    /// Heartbeats of members of consumer groups.
    pub group_heartbeats: Counter,
    /// Commits of consumer groups.
    pub group_commits: Counter,
    /// What is counted by topic.
    pub topics: TopicTable,
    /// How long things take.
    pub took: Took,
}

/// Durations of the stages of requests; what they are is in `definitions`.
#[derive(Debug, Default)]
pub struct Took {
    /// A produce request.
    pub produce: DurationHistogram,
    /// Until its body is in memory.
    pub receive: DurationHistogram,
    /// Checking it.
    pub checksum: DurationHistogram,
    /// From the append until it is durable.
    pub durable: DurationHistogram,
    /// From the append until the successor has it.
    pub successor: DurationHistogram,
    /// A fetch request.
    pub fetch: DurationHistogram,
    /// Waiting for memory.
    pub fetch_memory: DurationHistogram,
    /// Reading.
    pub fetch_read: DurationHistogram,
    /// Waiting for new records.
    pub fetch_wait: DurationHistogram,
    /// Waiting until the client has taken earlier replies.
    pub fetch_room: DurationHistogram,
}

/// Every reason to complain, with its name.
const COMPLAINT_REASONS: [(ComplaintReason, &str); 4] = [
    (ComplaintReason::LinkLost, "link_lost"),
    (ComplaintReason::Stalled, "stalled"),
    (ComplaintReason::Silent, "silent"),
    (ComplaintReason::WriteFailed, "write_failed"),
];

impl ShardMetrics {
    /// A complaint was left.
    pub fn count_complaint(&self, reason: ComplaintReason) {
        let at = COMPLAINT_REASONS.iter().position(|(known, _)| *known == reason);
        self.complaints[at.unwrap_or_default()].add(1);
    }
}

/// How long an event loop kept others waiting.
#[derive(Debug, Default)]
pub struct LoopDelay {
    /// How much later than asked for a timer fired.
    pub delay: DurationHistogram,
    /// How often that was very much.
    pub stalls: Counter,
}
