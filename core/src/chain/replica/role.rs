//! Where a member stands, and what it keeps while it acts.

use crate::entry::{EntryHeader, EntryKind};
use crate::ids::*;

/// The states of the diagram in [`super`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no chain since its start.
    Idle,
    /// A promise is being made durable, and writes in flight are finishing.
    Sealing,
    /// Promised; waits for the controller's decision.
    Sealed,
    /// The log is being brought to its exact end.
    Reconciling,
    /// Reconciled; waits to be named by the record.
    Reconciled,
    /// Acts in its epoch.
    Active(Active),
    /// A durable write failed.
    Failed,
}

/// What a member keeps while it acts in an epoch. Nothing of it outlives the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// The epoch.
    pub(super) epoch: Epoch,
    place: usize,
    length: usize,
    pub(super) successor_acknowledged: LogIndex,
    pub(super) acknowledged_upstream: LogIndex,
    pub(super) told_committed: LogIndex,
}

impl Active {
    /// Acknowledgements restart at `start`: none of an older epoch counts.
    pub(super) fn new(epoch: Epoch, place: usize, length: usize, start: LogIndex) -> Self {
        Self {
            epoch,
            place,
            length,
            successor_acknowledged: start,
            acknowledged_upstream: start,
            told_committed: start,
        }
    }

    /// Whether it takes writes.
    pub const fn is_head(&self) -> bool {
        self.place == 0
    }

    /// Whether somebody stands behind it.
    pub const fn has_successor(&self) -> bool {
        self.place + 1 < self.length
    }

    /// The epoch it acts in.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What is held here and by everybody behind.
    pub(super) fn held(&self, durable: LogIndex) -> LogIndex {
        if self.has_successor() { durable.min(self.successor_acknowledged) } else { durable }
    }
}

/// An entry that is appended but not known to be committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uncommitted {
    pub index: LogIndex,
    pub hash: RunningHash,
    /// None: a control entry.
    pub partition: Option<PartitionKey>,
    /// The partition of either kind.
    pub concerns: PartitionKey,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub append_timestamp: Timestamp,
}

impl Uncommitted {
    pub fn of(header: &EntryHeader) -> Self {
        let is_batch = header.kind == EntryKind::Batch;
        Self {
            index: header.index,
            hash: header.running_hash,
            partition: is_batch.then(|| header.partition_key()),
            concerns: header.partition_key(),
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            append_timestamp: header.append_timestamp,
        }
    }
}
