//! What a range deletes by itself, and the disk space that its deleted records give back.
//!
//! The head decides which records are too old or too many, by the append timestamps of its own clock, and appends log
//! starts, so that every member agrees. Once they are committed, each member frees space on its own disk: never before,
//! because a truncation could bring an uncommitted log start back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use minikafka_core::chain::replica::Answer;
use minikafka_core::control::ControlEntry;
use minikafka_core::topic::TopicConfig;
use minikafka_core::{Epoch, ErrorCode, LogIndex, Offset, PartitionKey, RangeKey, Timestamp, limits};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::join_all;
use minikafka_storage::{Freed, RetentionPolicy};

use super::Range;

/// Lets others of the shard have their turn: a timer makes the executor look at its I/O, where yielding would not.
const PAUSE: Duration = Duration::from_micros(1);
/// A commit that takes longer is left to come by itself, so that the other ranges have their turn.
const COMMIT_WAIT: Duration = Duration::from_millis(limits::CONTROL_WAIT_MS);

/// Where a range is with its upkeep.
#[derive(Default)]
pub(super) struct Upkeep {
    /// The log starts by which space was last freed; none: not since this range began to act.
    freed: Cell<Option<LogIndex>>,
    /// The newest segment when retention was last applied.
    segment: Cell<u64>,
    deleting: Trouble,
    freeing: Trouble,
}

/// What goes wrong at every round is told once.
#[derive(Default)]
struct Trouble(RefCell<Option<String>>);

impl Trouble {
    fn note(&self, range: RangeKey, now: Option<String>) {
        let before = self.0.replace(now.clone());
        match now {
            Some(now) if before.as_ref() != Some(&now) => tracing::warn!(%range, "{now}; tried again at every check"),
            None if before.is_some() => tracing::info!(%range, "retention works again"),
            _ => {}
        }
    }
}

/// What retention means for one partition at a time; none: it keeps everything.
fn policy(config: &TopicConfig, now: Timestamp) -> Option<RetentionPolicy> {
    let limit = |value: i64| (value >= 0).then_some(value);
    let policy = RetentionPolicy {
        delete_before: limit(config.retention_ms).map(|ms| Timestamp(now.0.saturating_sub(ms))),
        bytes_max: limit(config.retention_bytes).map(i64::cast_unsigned),
    };
    (policy != RetentionPolicy::default()).then_some(policy)
}

impl<D: Disk> Range<D> {
    /// As head, moves the log starts of all partitions that hold more than their topic wants; returns how many. What
    /// goes wrong with one partition does not stop the others. Ends early when `stopping`.
    pub async fn retain(self: &Rc<Self>, stopping: &Cell<bool>) -> usize {
        let Some(epoch) = self.replica.borrow().head_epoch() else { return 0 };
        let (mut moved, mut trouble, mut entries) = (0, None, Vec::new());
        for partitions in self.limited_partitions().chunks(limits::RETENTION_TURN_PARTITIONS_MAX) {
            if stopping.get() {
                return moved;
            }
            for &partition in partitions {
                match self.retention_start(partition).await {
                    Ok(start) => entries.extend(start.map(|start| (partition, start))),
                    Err(error) => drop(trouble.get_or_insert(error)),
                }
            }
            if entries.len() >= limits::RETENTION_ENTRIES_MAX {
                moved += self.move_starts(epoch, std::mem::take(&mut entries), &mut trouble).await;
            }
            self.shared.disk.sleep(PAUSE).await;
        }
        moved += self.move_starts(epoch, entries, &mut trouble).await;
        self.upkeep.deleting.note(self.key, trouble.map(|trouble| format!("cannot delete old records: {trouble}")));
        moved
    }

    /// Partitions whose topic does not keep everything, and that hold something.
    fn limited_partitions(&self) -> Vec<PartitionKey> {
        let replica = self.replica.borrow();
        let limited = replica.state().partitions().filter(|(_, state)| {
            (state.config.retention_ms >= 0 || state.config.retention_bytes >= 0) && state.log_start < state.next_offset
        });
        limited.map(|(partition, _)| partition).collect()
    }

    /// Where a partition should begin now, if not where it does.
    async fn retention_start(&self, partition: PartitionKey) -> Result<Option<Offset>, String> {
        let (Some(config), Some(offsets)) = (self.config_of(partition), self.offsets(partition)) else {
            return Ok(None);
        };
        let Some(policy) = policy(&config, self.shared.clock.wall()) else { return Ok(None) };
        let (start, end) = (offsets.log_start, offsets.committed_end);
        let found = self.log.retention_start(partition, start, end, policy).await;
        let found = found.map_err(|error| format!("partition {partition}: {error}"))?;
        Ok(found.map(|offset| offset.min(end)).filter(|offset| *offset > start))
    }

    /// Appends log starts and waits for their commit; returns how many are.
    async fn move_starts(
        self: &Rc<Self>,
        epoch: Epoch,
        entries: Vec<(PartitionKey, Offset)>,
        trouble: &mut Option<String>,
    ) -> usize {
        let append =
            |(partition, log_start)| self.append_control(ControlEntry::LogStart { partition, log_start }, epoch);
        let answers = async { Some(join_all(entries.into_iter().map(append)).await) };
        let late = async {
            self.shared.disk.sleep(COMMIT_WAIT).await;
            None
        };
        let Some(answers) = future::or(answers, late).await else {
            trouble.get_or_insert(format!("log starts are not committed after {} s", COMMIT_WAIT.as_secs()));
            return 0;
        };
        let mut moved = 0;
        for answer in answers {
            match answer {
                Answer::Done { .. } => moved += 1,
                // Another head decides now, or none.
                Answer::Refused { code: ErrorCode::NotOwner | ErrorCode::Stale | ErrorCode::ShuttingDown, .. } => {}
                Answer::Refused { code, .. } => drop(trouble.get_or_insert(format!("{code}: {}", code.advice()))),
            }
        }
        moved
    }

    /// Whether the log took another segment since this was last asked: then an old one may be given back in exchange, so that
    /// a log that grows fast lives on recycled files.
    pub fn has_grown(&self) -> bool {
        let now = self.log.segment_number();
        self.upkeep.segment.replace(now) != now
    }

    /// Whether the last round went wrong.
    pub fn has_upkeep_trouble(&self) -> bool {
        self.upkeep.deleting.0.borrow().is_some() || self.upkeep.freeing.0.borrow().is_some()
    }

    /// Whether log starts were committed since space was last freed, or it never was.
    pub fn owes_space(&self) -> bool {
        let replica = self.replica.borrow();
        replica.acts() && self.upkeep.freed.get() != Some(replica.log_starts_settled())
    }

    /// Frees on this disk what is gone for every member, if this member acts in a chain.
    pub async fn free_space(&self) -> Freed {
        let settled = {
            let replica = self.replica.borrow();
            if !replica.acts() {
                return Freed::default();
            }
            replica.log_starts_settled()
        };
        // Asked while it goes on, so a partition that is opened meanwhile is known; starts only grow.
        let log_start_of = |partition| self.replica.borrow().committed_log_start(partition);
        self.upkeep.freed.set(Some(settled));
        match self.log.free_space(&log_start_of).await {
            Ok(freed) => {
                self.upkeep.freeing.note(self.key, None);
                self.roll_if_worth_it(&freed);
                freed
            }
            Err(error) => {
                self.upkeep.freeing.note(self.key, Some(format!("cannot free space: {error}")));
                Freed::default()
            }
        }
    }

    /// Only sealed segments give space back: one that holds mostly what is gone is ended early.
    fn roll_if_worth_it(&self, freed: &Freed) {
        if freed.should_roll && self.replica.borrow().acts() && self.log.failed().is_none() {
            self.roll();
            // What was rolled is looked at again once it is sealed.
            self.upkeep.freed.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_a_policy() {
        let now = Timestamp(100_000);
        let of = |retention_ms, retention_bytes| {
            policy(&TopicConfig { retention_ms, retention_bytes, ..TopicConfig::default() }, now)
        };
        assert_eq!(of(-1, -1), None, "everything is kept");
        let (before, bytes) = (Some(Timestamp(40_000)), Some(7));
        assert_eq!(of(60_000, -1), Some(RetentionPolicy { delete_before: before, bytes_max: None }));
        assert_eq!(of(-1, 7), Some(RetentionPolicy { delete_before: None, bytes_max: bytes }));
        assert_eq!(of(60_000, 7), Some(RetentionPolicy { delete_before: before, bytes_max: bytes }));
        assert_eq!(of(0, 0).and_then(|policy| policy.delete_before), Some(now), "nothing is kept");
        assert!(of(i64::MAX, -1).and_then(|policy| policy.delete_before).is_some_and(|before| before.0 < 0));
    }
}
