//! What a shard has counted and what it holds now, put into an exposition when somebody asks.

use std::time::Duration;

use minikafka_core::RangeKey;
use minikafka_core::chain::replica::MemberRole;
use minikafka_core::histogram::CountedDurations;
use minikafka_core::limits::METRIC_RANGES_MAX;
use minikafka_metrics::Exposition;
use minikafka_net::{DeadlineKind, NetStats};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::ByteBudget;

use super::definitions::*;
use super::{COMPLAINT_REASONS, LoopDelay};
use crate::range::Range;
use crate::shard::Shard;

impl<D: Disk> Shard<D> {
    /// Everything this shard knows by itself.
    pub(crate) fn expose(&self, to: &mut Exposition) {
        let shard = self.me().shard.to_string();
        self.expose_throughput(&shard, to);
        self.expose_latency(to);
        self.expose_waiting(to);
        self.expose_ranges(&shard, to);
        self.expose_disk(to);
        to.add(&SHARDS, &[], 1_u64);
    }

    fn expose_throughput(&self, shard: &str, to: &mut Exposition) {
        let metrics = &self.metrics;
        to.add(&PRODUCE_RECORDS, &[shard], metrics.produced_records.get());
        to.add(&PRODUCE_BYTES, &[shard], metrics.produced_bytes.get());
        to.add(&FETCH_RECORDS, &[shard], metrics.fetched_records.get());
        to.add(&FETCH_BYTES, &[shard], metrics.fetched_bytes.get());
        to.add(&REPLICATE_RECORDS, &[shard], metrics.replicated_records.get());
        to.add(&REPLICATE_BYTES, &[shard], metrics.replicated_bytes.get());
        metrics.topics.for_each(|topic, counts| {
            to.add(&TOPIC_PRODUCE_RECORDS, &[topic], counts.produced_records);
            to.add(&TOPIC_PRODUCE_BYTES, &[topic], counts.produced_bytes);
            to.add(&TOPIC_FETCH_BYTES, &[topic], counts.fetched_bytes);
        });
    }

    fn expose_latency(&self, to: &mut Exposition) {
        let took = &self.metrics.took;
        to.add_durations(&PRODUCE, &[], &took.produce.counted());
        let stages = [
            ("receive", &took.receive),
            ("checksum", &took.checksum),
            ("durable", &took.durable),
            ("successor", &took.successor),
        ];
        for (stage, took) in stages {
            to.add_durations(&PRODUCE_STAGE, &[stage], &took.counted());
        }
        to.add_durations(&FETCH, &[], &took.fetch.counted());
        let stages = [
            ("memory", &took.fetch_memory),
            ("read", &took.fetch_read),
            ("wait", &took.fetch_wait),
            ("room", &took.fetch_room),
        ];
        for (stage, took) in stages {
            to.add_durations(&FETCH_STAGE, &[stage], &took.counted());
        }
    }

    fn expose_waiting(&self, to: &mut Exposition) {
        let mut budget = |name: &str, budget: &ByteBudget| {
            to.add(&BUDGET_USED, &[name], budget.bytes_used());
            to.add(&BUDGET_LIMIT, &[name], budget.bytes_max());
        };
        budget("produce", &self.produce_budget);
        budget("fetch", &self.fetch_budget);
        budget("peer", &self.peer_budget);
        let metrics = &self.metrics;
        to.add(&WINDOW_STALLS, &["quota"], metrics.connection_pauses.get());
        to.add(&PRODUCE_THROTTLED, &[], metrics.produce_throttled.get());
        to.add(&PRODUCE_TIMEOUTS, &[], metrics.produce_timeouts.get());
        to.add(&GROUP_HEARTBEATS, &[], metrics.group_heartbeats.get());
        to.add(&GROUP_COMMITS, &[], metrics.group_commits.get());
    }

    fn expose_ranges(&self, shard: &str, to: &mut Exposition) {
        for role in MemberRole::ALL {
            to.add(&RANGES, &[role.name()], 0_u64);
        }
        let now_ns = self.clock().monotonic_ns();
        let (mut named, mut lag_entries, mut since_ns) = (0, 0, now_ns);
        for range in self.ranges() {
            let member = RangeNow::of(&range);
            to.add(&RANGES, &[member.role.name()], 1_u64);
            to.add(&REQUESTS_WAITING, &[], range.requests_waiting());
            to.add(&APPEND_BACKLOG, &[], range.log().append_backlog_bytes());
            lag_entries = lag_entries.max(member.lag_entries.unwrap_or_default());
            since_ns = since_ns.min(range.unacknowledged_since_ns().unwrap_or(now_ns));
            if member.holds_something && named < METRIC_RANGES_MAX {
                named += 1;
                member.expose(to);
            }
        }
        to.add(&LARGEST_LAG, &[shard], lag_entries);
        to.add(&LARGEST_LAG_SECONDS, &[shard], Duration::from_nanos(now_ns - since_ns).as_secs_f64());
        to.add(&REQUESTS_WAITING, &[], 0_u64);
        to.add(&APPEND_BACKLOG, &[], 0_u64);
        to.add(&CHANGES, &[], self.metrics.promises.get());
        for ((_, reason), count) in COMPLAINT_REASONS.iter().zip(&self.metrics.complaints) {
            to.add(&COMPLAINTS, &[reason], count.get());
        }
    }

    fn expose_disk(&self, to: &mut Exposition) {
        let metrics = &self.metrics;
        for what in ["entries", "files", "holes"] {
            to.add(&LOG_BYTES, &[what], 0_u64);
        }
        let (mut damaged_entries, mut damaged_ranges, mut segments) = (0, 0_u64, 0);
        for range in self.ranges() {
            let usage = range.log().usage();
            to.add(&LOG_BYTES, &["entries"], usage.entry_bytes);
            to.add(&LOG_BYTES, &["files"], usage.file_bytes);
            to.add(&LOG_BYTES, &["holes"], usage.freed_bytes);
            segments += usage.segments;
            if range.log().has_damage() {
                damaged_ranges += 1;
                let damage = range.log().damage();
                damaged_entries +=
                    damage.iter().map(|at| (at.last_index.0 + 1).saturating_sub(at.first_index.0)).sum::<u64>();
            }
        }
        to.add(&SEGMENTS, &[], segments);
        to.add(&DAMAGED_ENTRIES, &[], damaged_entries);
        to.add(&DAMAGED_RANGES, &[], damaged_ranges);
        to.add(&POOL_BYTES, &[], self.storage.pool().bytes());
        let taken = self.segments_taken();
        to.add(&SEGMENTS_TAKEN, &["recycled"], taken.recycled);
        to.add(&SEGMENTS_TAKEN, &["created"], taken.created);
        to.add(&FREED_BYTES, &["dropped"], metrics.bytes_dropped.get());
        to.add(&FREED_BYTES, &["punched"], metrics.bytes_punched.get());
        to.add(&LOG_STARTS_MOVED, &[], metrics.log_starts_moved.get());
        to.add(&RETENTION_FAILURES, &[], metrics.retention_failures.get());
        to.add(&DURABLE_WRITE_ERRORS, &[], metrics.durable_write_errors.get());
        to.add(&SCRUBBED_BYTES, &[], metrics.scrubbed_bytes.get());
        to.add(&MENDED_ENTRIES, &[], metrics.mended_entries.get());
        to.add(&MENDED_BYTES, &[], metrics.mended_bytes.get());
        to.add(&DAMAGED_READS, &[], metrics.damaged_reads.get());
    }
}

/// A range at the moment of being asked.
struct RangeNow {
    key: RangeKey,
    epoch: u64,
    role: MemberRole,
    /// Appended here and not acknowledged by the successor, if there is one.
    lag_entries: Option<u64>,
    holds_something: bool,
}

impl RangeNow {
    fn of<D: Disk>(range: &Range<D>) -> Self {
        range.with_member(|member| {
            let end = member.view().end.index.0;
            let acknowledged = member.successor_acknowledged_index();
            Self {
                key: range.key(),
                epoch: member.epoch().0,
                role: member.role(),
                lag_entries: acknowledged.map(|index| end.saturating_sub(index.0)),
                holds_something: end > 0,
            }
        })
    }

    fn expose(&self, to: &mut Exposition) {
        let (ring, range) = (self.key.ring.0.to_string(), self.key.range.0.to_string());
        to.add(&RANGE_EPOCH, &[&ring, &range], self.epoch);
        to.add(&RANGE_ROLE, &[&ring, &range, self.role.name()], 1_u64);
        if let Some(lag) = self.lag_entries {
            to.add(&RANGE_LAG, &[&ring, &range], lag);
        }
    }
}

/// What the connections of a shard did.
pub(crate) fn expose_net(shard: &str, stats: &NetStats, to: &mut Exposition) {
    to.add(&NETWORK_BYTES, &["received"], stats.bytes_received.get());
    to.add(&NETWORK_BYTES, &["sent"], stats.bytes_sent.get());
    to.add(&WINDOW_STALLS, &["requests"], stats.window_waits.get());
    to.add(&WINDOW_STALLS, &["replies"], stats.room_waits.get());
    to.add(&CONNECTIONS, &[shard], stats.connections_open());
    to.add(&CONNECTIONS_TOTAL, &["accepted"], stats.connections_accepted.get());
    to.add(&CONNECTIONS_TOTAL, &["refused"], stats.connections_refused.get());
    to.add(&CONNECTIONS_TOTAL, &["failed"], stats.accepts_failed.get());
    to.add(&CONNECTIONS_TOTAL, &["broken"], stats.connections_broken.get());
    for kind in DeadlineKind::ALL {
        to.add(&DEADLINES, &[kind.name()], stats.deadlines(kind));
    }
    to.add(&REQUESTS, &[], stats.frames_received.get());
    for &code in minikafka_core::ErrorCode::ALL {
        to.add(&ERRORS, &[code.name()], stats.errors(code));
    }
    let left: CountedDurations = stats.replies_left.counted();
    to.add_durations(&PRODUCE_STAGE, &["reply"], &left);
}

/// How its event loop did.
pub(crate) fn expose_loop(shard: &str, event_loop: &LoopDelay, to: &mut Exposition) {
    to.add_durations(&LOOP_DELAY, &[], &event_loop.delay.counted());
    to.add(&LOOP_STALLS, &[shard], event_loop.stalls.get());
}

/// Links of a shard that ended.
pub(crate) fn expose_links(links_lost: u64, to: &mut Exposition) {
    to.add(&LINKS_LOST, &[], links_lost);
}
