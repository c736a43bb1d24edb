//! What an answer to a fetch means for its partitions.

use std::time::{Duration, Instant};

use minikafka_core::wire::FetchedPartition;
use minikafka_core::{ErrorCode, Offset};

use super::{Asked, PartitionProgress, Progress, ShardFetch};
use crate::consumer::entries::FetchedEntry;
use crate::consumer::options::{OnDamage, OutOfRangePolicy, Skipped};
use crate::error::Error;

/// The same position is damaged this often before its partition stands still.
const DAMAGES_MAX: u32 = 3;
/// Stretches of damaged records that are remembered.
const SKIPPED_MAX: usize = 1024;
/// A partition is followed to older ranges this often without a record in between.
const HOPS_MAX: u32 = 16;
/// Answers without data that came at once and are taken for chance.
const EMPTY_ANSWERS_MAX: u32 = 2;
/// Then this long a pause is made.
const EMPTY_ANSWER_PAUSE: Duration = Duration::from_millis(20);
/// "At once", whatever the shard was asked to wait.
const AT_ONCE: Duration = Duration::from_millis(5);

/// One partition's part of an answer, its entries verified.
#[derive(Debug)]
pub(in crate::consumer) struct PartitionAnswer {
    pub fetched: FetchedPartition,
    pub entries: Vec<FetchedEntry>,
    /// What is wrong behind the entries, if anything.
    pub damage: Option<String>,
}

/// What to do about one partition.
#[derive(Debug)]
enum PartitionOutcome {
    /// Ask again at once.
    Ask,
    /// Ask another member at once.
    Elsewhere { needs_map: bool },
    /// Ask again after a back-off, with a newer map if so.
    BackOff { server_asks: Duration, needs_map: bool },
    /// Stand still until a seek.
    Fail(Error),
}

impl Progress {
    /// An answer has come, or none will. `sent_at` is when its request left.
    pub(in crate::consumer) fn absorb(
        &mut self,
        now: Instant,
        sent_at: Instant,
        fetch: ShardFetch,
        answer: Result<Vec<PartitionAnswer>, Error>,
    ) {
        self.reserved_bytes -= fetch.request.bytes_max as usize;
        let kind = (fetch.address, fetch.is_behind);
        if let Some(count) = self.in_flight.get_mut(&kind) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&kind);
            }
        }
        let came_at_once = now.saturating_duration_since(sent_at) < (self.fetch_wait / 2).max(AT_ONCE);
        match answer {
            Ok(answers) => {
                let is_empty = answers.iter().all(|answer| answer.fetched.error.is_none() && answer.entries.is_empty());
                let served = answers.iter().position(|answer| !answer.entries.is_empty());
                if let Some(asked) = served.and_then(|at| fetch.asked.get(at)) {
                    *self.fetches_by_node.entry(asked.node).or_default() += 1;
                }
                // Who got nothing comes first in the next request.
                let (with, without): (Vec<_>, Vec<_>) =
                    fetch.asked.iter().zip(answers).partition(|(_, answer)| !answer.entries.is_empty());
                for (asked, answer) in without.into_iter().chain(with) {
                    if let Some(index) = self.current(asked) {
                        let is_suspicious = is_empty && came_at_once;
                        let outcome = match self.turn_away(now, asked, &answer.fetched) {
                            Some(outcome) => outcome,
                            None => self.take_answer(index, answer, is_suspicious),
                        };
                        self.conclude(index, now, fetch.map_version, outcome);
                    }
                }
            }
            Err(error) => {
                for asked in &fetch.asked {
                    if let Some(index) = self.current(asked) {
                        if self.partitions[index].members.failed(now, asked.node, asked.is_head) {
                            tracing::debug!(%error, node = %asked.node, "records are read elsewhere for a while");
                        }
                        let outcome = self.take_failure(index, &error);
                        self.conclude(index, now, fetch.map_version, outcome);
                    }
                }
            }
        }
    }

    /// The partition of a question that still counts.
    fn current(&self, asked: &Asked) -> Option<usize> {
        (self.partitions[asked.index].generation == asked.generation).then_some(asked.index)
    }

    fn conclude(&mut self, index: usize, now: Instant, map_version: u64, outcome: PartitionOutcome) {
        let partition = &mut self.partitions[index];
        match outcome {
            PartitionOutcome::Ask => partition.retry_at = None,
            PartitionOutcome::Elsewhere { needs_map } => {
                self.outdated_map = self.outdated_map.max(needs_map.then_some(map_version));
                partition.retry_at = None;
            }
            PartitionOutcome::BackOff { server_asks, needs_map } => {
                self.outdated_map = self.outdated_map.max(needs_map.then_some(map_version));
                partition.back_off(now, needs_map, server_asks);
            }
            PartitionOutcome::Fail(error) => partition.failed = Some(error),
        }
        partition.is_idle = true;
        self.idle.push_back(index);
        self.announce(index);
    }

    /// What a member behind the head cannot serve is asked of others: another one at once, or the same one soon again.
    fn turn_away(&mut self, now: Instant, asked: &Asked, fetched: &FetchedPartition) -> Option<PartitionOutcome> {
        let members = &mut self.partitions[asked.index].members;
        let Some(code) = fetched.error else {
            members.served();
            return None;
        };
        let goes_elsewhere = match code {
            _ if asked.is_head => return None,
            // The map is out of date, not the member.
            ErrorCode::Stale if fetched.epoch > asked.epoch => false,
            ErrorCode::BeyondCommitted => members.lags(now, asked.node, asked.is_head),
            // Also where a log begins and ends is the head's to say.
            ErrorCode::OffsetOutOfRange => members.failed(now, asked.node, asked.is_head),
            code if code.is_retriable() || code == ErrorCode::DataDamaged => {
                members.failed(now, asked.node, asked.is_head)
            }
            _ => return None,
        };
        let needs_map = matches!(code, ErrorCode::Stale | ErrorCode::NotOwner);
        Some(match goes_elsewhere {
            true => PartitionOutcome::Elsewhere { needs_map },
            false => PartitionOutcome::BackOff { server_asks: Duration::ZERO, needs_map },
        })
    }

    fn take_answer(&mut self, index: usize, answer: PartitionAnswer, is_suspicious: bool) -> PartitionOutcome {
        let PartitionAnswer { fetched, entries, damage } = answer;
        if let Some(code) = fetched.error {
            return self.take_error(index, code, &fetched);
        }
        let partition = &mut self.partitions[index];
        partition.is_starting = false;
        partition.failures = 0;
        let mut end = fetched.committed_end;
        for entry in entries {
            (partition.hops, partition.damages, partition.empty_answers) = (0, 0, 0);
            partition.fetch_from = entry.header.next_offset();
            partition.buffered_bytes += entry.buffered_bytes();
            self.buffered_bytes += entry.buffered_bytes();
            end = end.max(partition.fetch_from);
            partition.batches.push_back(entry);
        }
        match partition.elsewhere {
            // An older range knows only its own end.
            Some((_, until)) => {
                if partition.fetch_from >= until {
                    partition.elsewhere = None;
                }
            }
            // Members learn of commits one after the other; none of it is ever taken back.
            None => partition.committed_end = partition.committed_end.max(Some(end)),
        }
        if let Some(damage) = damage {
            return self.take_damage(index, damage);
        }
        let partition = &mut self.partitions[index];
        partition.empty_answers = if is_suspicious { partition.empty_answers + 1 } else { 0 };
        if partition.empty_answers > EMPTY_ANSWERS_MAX {
            return PartitionOutcome::BackOff { server_asks: EMPTY_ANSWER_PAUSE, needs_map: false };
        }
        PartitionOutcome::Ask
    }

    fn take_error(&mut self, index: usize, code: ErrorCode, fetched: &FetchedPartition) -> PartitionOutcome {
        let target = format!("topic {} partition {}", self.topic.name, self.partitions[index].partition);
        let error = Error::broker_with(code, target, String::new(), fetched.epoch);
        if code == ErrorCode::DataDamaged {
            return self.take_damaged_range(index, fetched);
        }
        let partition = &mut self.partitions[index];
        match code {
            ErrorCode::Moved => partition.follow(fetched).unwrap_or(PartitionOutcome::Fail(error)),
            ErrorCode::OffsetOutOfRange => {
                let policy = if partition.is_starting { OutOfRangePolicy::Earliest } else { self.out_of_range };
                partition.reset(policy, fetched).unwrap_or(PartitionOutcome::Fail(error))
            }
            code if code.is_retriable() => {
                if code == ErrorCode::UnknownPartition {
                    // An older range that no longer has it is not worth asking again.
                    partition.elsewhere = None;
                }
                PartitionOutcome::BackOff { server_asks: Duration::ZERO, needs_map: error.wants_refresh() }
            }
            _ => PartitionOutcome::Fail(error),
        }
    }

    /// Records are damaged where they are stored: stands still, or goes on behind them.
    fn take_damaged_range(&mut self, index: usize, fetched: &FetchedPartition) -> PartitionOutcome {
        let topic = &self.topic.name;
        let partition = &mut self.partitions[index];
        partition.is_starting = false;
        let (number, first) = (partition.partition, partition.fetch_from);
        if partition.elsewhere.is_none() {
            partition.committed_end = Some(fetched.committed_end);
        }
        let resume = fetched.resume.filter(|resume| *resume > first);
        if self.on_damage == OnDamage::Stop {
            let topic = topic.as_str().into();
            return PartitionOutcome::Fail(Error::DataDamaged { topic, partition: number, first, resume });
        }
        let Some(to) = resume else {
            // The end of what is known; whether there was more, nobody can tell.
            if partition.failures == 0 {
                tracing::warn!(%topic, partition = %number, offset = %first, "records at the end may be lost");
            }
            return PartitionOutcome::BackOff { server_asks: Duration::ZERO, needs_map: false };
        };
        tracing::warn!(%topic, partition = %number, from = %first, %to, "damaged records were skipped");
        partition.failures = 0;
        partition.fetch_from = to;
        if partition.batches.is_empty() {
            partition.position = to;
        }
        if self.skipped.len() == SKIPPED_MAX {
            self.skipped.remove(0);
        }
        self.skipped.push(Skipped { partition: number, from: first, to });
        PartitionOutcome::Ask
    }

    fn take_damage(&mut self, index: usize, reason: String) -> PartitionOutcome {
        let partition = &mut self.partitions[index];
        partition.damages += 1;
        let (number, offset) = (partition.partition, partition.fetch_from);
        tracing::warn!(topic = %self.topic.name, partition = %number, %offset, reason, "fetched data are damaged");
        if partition.damages < DAMAGES_MAX {
            return PartitionOutcome::BackOff { server_asks: Duration::ZERO, needs_map: false };
        }
        PartitionOutcome::Fail(Error::Damaged {
            topic: self.topic.name.as_str().into(),
            partition: number,
            offset,
            reason: reason.into(),
        })
    }

    fn take_failure(&mut self, index: usize, error: &Error) -> PartitionOutcome {
        match error {
            Error::Malformed { .. } => self.take_damage(index, error.to_string()),
            error if error.is_retriable() => {
                PartitionOutcome::BackOff { server_asks: error.retry_after(), needs_map: error.wants_refresh() }
            }
            error => PartitionOutcome::Fail(error.clone()),
        }
    }
}

impl PartitionProgress {
    /// Older offsets are in another range, until the log that named it begins.
    fn follow(&mut self, fetched: &FetchedPartition) -> Option<PartitionOutcome> {
        let range = fetched.previous?;
        self.hops += 1;
        if self.hops > HOPS_MAX || fetched.log_start <= self.fetch_from {
            return None;
        }
        self.elsewhere = Some((range, fetched.log_start));
        // The range may be new to the map.
        Some(PartitionOutcome::Ask)
    }

    /// The position does not exist: goes where the policy says, or nowhere.
    fn reset(&mut self, policy: OutOfRangePolicy, fetched: &FetchedPartition) -> Option<PartitionOutcome> {
        let position = match policy {
            OutOfRangePolicy::Earliest => fetched.log_start,
            OutOfRangePolicy::Latest if self.elsewhere.is_none() => fetched.committed_end,
            // The end of an older range is not the partition's.
            OutOfRangePolicy::Latest => self.elsewhere.map_or(Offset(0), |(_, until)| until),
            OutOfRangePolicy::Error => return None,
        };
        self.hops += 1;
        if self.hops > HOPS_MAX {
            return None;
        }
        tracing::info!(partition = %self.partition, from = %self.fetch_from, to = %position, "position reset");
        self.fetch_from = position;
        if self.batches.is_empty() {
            self.position = position;
        }
        if self.elsewhere.is_some_and(|(_, until)| position >= until) {
            self.elsewhere = None;
        }
        Some(PartitionOutcome::Ask)
    }
}
