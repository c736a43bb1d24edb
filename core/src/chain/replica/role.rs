//! Where a member stands, and what it keeps while it acts.

use super::stream::{Downstream, Upstream};
use crate::chain::ChainMember;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::entry::{EntryHeader, EntryKind};
use crate::ids::*;
use crate::limits::{SILENCE_TICKS_MAX, SUSPICION_TICKS};

/// The states of the diagram in [`super`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no chain since its start.
    Idle,
    /// Copies in the background from a chain of this epoch, which it is no member of (R7).
    Learning(Epoch),
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
    epoch: Epoch,
    /// None: this member is the head.
    pub(super) upstream: Option<Upstream>,
    /// None: this member is the tail.
    pub(super) downstream: Option<Downstream>,
    /// A higher epoch that somebody behind promised: in this one nothing will be committed any more.
    pub(super) overtaken_by: Option<Epoch>,
}

impl Active {
    /// At `place` of `chain`. Acknowledgements restart at `start`: none of an older epoch counts.
    pub(super) fn new(epoch: Epoch, place: usize, chain: &[ChainMember], start: LogIndex) -> Self {
        let predecessor = place.checked_sub(1).and_then(|before| chain.get(before));
        let successor = chain.get(place + 1);
        let behind_successor = chain.len().saturating_sub(place + 2) as u32;
        Self {
            epoch,
            upstream: predecessor.map(|predecessor| Upstream::new(*predecessor, start)),
            downstream: successor.map(|successor| Downstream::new(*successor, behind_successor, start)),
            overtaken_by: None,
        }
    }

    /// Whether it takes writes.
    pub const fn is_head(&self) -> bool {
        self.upstream.is_none()
    }

    /// Whether somebody stands behind it.
    pub const fn has_successor(&self) -> bool {
        self.downstream.is_some()
    }

    /// Whether the successor, if there is one, was heard within the time after which it is complained about.
    pub fn hears_successor(&self) -> bool {
        self.downstream.as_ref().is_none_or(|downstream| downstream.quiet_ticks < SUSPICION_TICKS)
    }

    /// The epoch it acts in.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// R3: what is held here and, in this epoch, by everybody behind.
    pub(super) fn held(&self, durable: LogIndex) -> LogIndex {
        match &self.downstream {
            Some(_) if self.is_head() && is_planted(PlantedBug::CommitBeforeAllDurable) => durable,
            Some(downstream) => durable.min(downstream.acknowledged),
            None => durable,
        }
    }

    /// R4: no neighbour was heard for too long. A chain of one has none to hear.
    pub(super) fn is_silent(&self) -> bool {
        let upstream = self.upstream.as_ref().map(|upstream| upstream.quiet_ticks);
        let downstream = self.downstream.as_ref().map(|downstream| downstream.quiet_ticks);
        upstream.into_iter().chain(downstream).min().is_some_and(|quiet_ticks| quiet_ticks >= SILENCE_TICKS_MAX)
    }
}

/// An entry that is appended but not known to be committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uncommitted {
    pub index: LogIndex,
    pub hash: RunningHash,
    /// None: a control entry.
    pub partition: Option<PartitionKey>,
    /// The partition of either kind; of a control entry about a group, topic 0, which is nobody's.
    pub concerns: PartitionKey,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub append_timestamp: Timestamp,
}

impl Uncommitted {
    /// Stands for the end of a log whose last entries are not known one by one; only for a planted bug.
    pub fn end_of(end: LogPoint) -> Self {
        let nowhere = PartitionKey { topic: TopicId(0), partition: Partition(0) };
        Self {
            index: end.index,
            hash: end.hash,
            partition: None,
            concerns: nowhere,
            base_offset: Offset(0),
            next_offset: Offset(0),
            append_timestamp: Timestamp(0),
        }
    }

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
