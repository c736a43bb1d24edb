//! Where partitions begin for certain: their log starts without what is not committed yet.
//!
//! The fold of the log moves a log start when the entry is appended. A disk may free what lies below only when no
//! truncation can bring the old start back, so this remembers the starts from before the uncommitted entries.

use std::collections::HashMap;

use crate::control::ControlEntry;
use crate::ids::*;
use crate::range_state::RangeState;

/// Log starts from before the uncommitted entries that move them, or delete their partition.
#[derive(Clone, Debug, Default)]
pub(super) struct UncommittedStarts {
    before: HashMap<PartitionKey, Before>,
    settled: LogIndex,
}

/// The start before the first of the uncommitted entries, kept until the last one is committed: with several under
/// way it is too low for a while, which only frees less.
#[derive(Clone, Debug)]
struct Before {
    log_start: Offset,
    first: LogIndex,
    last: LogIndex,
}

impl UncommittedStarts {
    /// Entry `index` is about to be folded into `state`.
    pub fn note(&mut self, state: &RangeState, index: LogIndex, control: Option<&ControlEntry>) {
        let Some(ControlEntry::LogStart { partition, .. } | ControlEntry::PartitionDelete { partition }) = control
        else {
            return;
        };
        if let Some(before) = self.before.get_mut(partition) {
            before.last = index;
        } else if let Some(partition_state) = state.partition(*partition) {
            let before = Before { log_start: partition_state.log_start, first: index, last: index };
            self.before.insert(*partition, before);
        }
    }

    /// A control entry of `partition` is among what is committed, up to index `committed`.
    pub fn committed(&mut self, partition: PartitionKey, committed: LogIndex) {
        if let Some(before) = self.before.get(&partition).filter(|before| before.last <= committed) {
            self.settled = self.settled.max(before.last);
            self.before.remove(&partition);
        }
    }

    /// Everything is committed.
    pub fn all_committed(&mut self) {
        let newest = self.before.values().map(|before| before.last).max();
        self.settled = newest.map_or(self.settled, |newest| self.settled.max(newest));
        self.before.clear();
    }

    /// The newest entry that moved a start for certain, since this member began.
    pub const fn settled(&self) -> LogIndex {
        self.settled
    }

    /// The log was cut to `end`.
    pub fn truncated(&mut self, end: LogIndex) {
        self.before.retain(|_, before| before.first <= end);
        self.before.values_mut().for_each(|before| before.last = before.last.min(end));
    }

    /// The start that is certain; none: the partition is certainly gone, or was never here.
    pub fn of(&self, partition: PartitionKey, state: &RangeState) -> Option<Offset> {
        match self.before.get(&partition) {
            Some(before) => Some(before.log_start),
            None => state.partition(partition).map(|partition| partition.log_start),
        }
    }
}
