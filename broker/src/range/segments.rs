//! Sealed segments that are copied whole, and the log that is dropped to begin with them (R7).
//!
//! The parts of a segment come one after the other and go into a [`SegmentCopy`] beside the log; when it is complete and the
//! machine still wants it, the log ends with it, and the range's state is the segment's snapshot. A copy that is not gone
//! on with is given up when another one begins. Absent: what is asked for next, which is the machine's to say.

use std::rc::Rc;

use minikafka_core::chain::peer::{SegmentCursor, SegmentItem, SegmentPart};
use minikafka_core::chain::replica::Input;
use minikafka_core::limits::SNAPSHOT_BYTES_MAX;
use minikafka_core::range_state::RangeState;
use minikafka_core::{CopyId, ErrorCode, LogIndex, LogPoint};
use minikafka_storage::disk::Disk;
use minikafka_storage::{InstallError, LogError, SegmentCopy, SharedSlice};

use super::Range;
use super::entries::Entries;

/// A segment as far as it came.
pub(super) struct CopiedSegment<D: Disk> {
    copy: SegmentCopy<D>,
    snapshot: Vec<u8>,
    /// Bytes that the snapshot will have, once known.
    snapshot_total: Option<u64>,
}

/// Why a part was not taken.
enum Refused {
    /// It is not what it should be.
    Malformed(String),
    /// The disk would not have it.
    Disk(InstallError),
}

impl From<InstallError> for Refused {
    fn from(error: InstallError) -> Self {
        match error {
            InstallError::DoesNotFollow(_) => Self::Malformed(error.to_string()),
            error => Self::Disk(error),
        }
    }
}

/// Bytes that a part brings.
pub(super) fn total_bytes(part: &SegmentPart<SharedSlice>) -> u64 {
    let bytes = |item: &SegmentItem<SharedSlice>| match item {
        SegmentItem::Entries(bytes) | SegmentItem::Snapshot { bytes, .. } => bytes.len() as u64,
        SegmentItem::Freed(_) => 0,
    };
    part.items.iter().map(bytes).sum()
}

impl<D: Disk> CopiedSegment<D> {
    fn cursor(&self) -> SegmentCursor {
        SegmentCursor { end: self.copy.end().index, at: self.copy.at(), snapshot_bytes: self.snapshot.len() as u64 }
    }

    /// Whether a part begins where this stands.
    fn goes_on_with(&self, part: &SegmentPart<SharedSlice>) -> bool {
        (self.copy.start(), self.copy.end(), self.copy.at()) == (part.start, part.end, part.at)
    }

    fn is_complete(&self) -> bool {
        self.copy.at() == self.copy.end() && self.snapshot_total == Some(self.snapshot.len() as u64)
    }

    fn add_snapshot(&mut self, total: u64, bytes: &[u8]) -> Result<(), Refused> {
        let end = self.snapshot.len() as u64 + bytes.len() as u64;
        let is_possible = self.copy.at() == self.copy.end() && end <= total && total <= SNAPSHOT_BYTES_MAX;
        if !is_possible || self.snapshot_total.is_some_and(|known| known != total) {
            return Err(Refused::Malformed(format!("a snapshot of {total} bytes that ends at {end}")));
        }
        self.snapshot_total = Some(total);
        self.snapshot.extend_from_slice(bytes);
        Ok(())
    }
}

impl<D: Disk> Range<D> {
    /// Where a copy request stands in a segment, when the log could take one behind `after`.
    pub(super) fn segment_cursor(&self, after: LogPoint, until: LogIndex) -> Option<SegmentCursor> {
        if until <= after.index || after != self.log.end() || !self.log.takes_segments() {
            return None;
        }
        let copied = self.copied_segment.borrow();
        let fits = copied.as_ref().filter(|copied| after == LogPoint::START || copied.copy.start() == after);
        let nothing = SegmentCursor { end: LogIndex(0), at: after, snapshot_bytes: 0 };
        Some(fits.map_or(nothing, CopiedSegment::cursor))
    }

    /// Takes a part of a segment.
    pub(super) async fn take_segment(self: &Rc<Self>, copy: CopyId, limit: LogIndex, part: SegmentPart<SharedSlice>) {
        if !self.replica.borrow().awaits_copy(copy) {
            return;
        }
        let taken = match self.segment_for(&part).await {
            Ok(mut copied) => match self.add_items(&mut copied, part.items).await {
                Ok(()) => Ok(copied),
                Err(refused) => {
                    self.give_up(copied).await;
                    Err(refused)
                }
            },
            Err(refused) => Err(refused),
        };
        let code = match taken {
            Ok(copied) => return self.segment_grew(copy, limit, copied),
            Err(Refused::Disk(InstallError::Disk(error))) => return self.write_failed(&error.into()),
            Err(Refused::Disk(error)) => {
                tracing::error!(range = %self.key, %error, "disk_full: a segment cannot be copied");
                ErrorCode::DiskFull
            }
            Err(Refused::Malformed(reason)) => {
                tracing::error!(range = %self.key, %reason, "the source of a copy sent what is no part of a segment");
                ErrorCode::CorruptBatch
            }
        };
        self.drive(Input::CopyFailed { copy, code });
    }

    /// The segment that a part goes on with, or a new one.
    async fn segment_for(&self, part: &SegmentPart<SharedSlice>) -> Result<CopiedSegment<D>, Refused> {
        let before = self.copied_segment.take();
        match before {
            Some(copied) if copied.goes_on_with(part) => return Ok(copied),
            Some(copied) => self.give_up(copied).await,
            None => {}
        }
        if part.at != part.start {
            return Err(Refused::Malformed(format!("it begins at {:?} and not at {:?}", part.at, part.start)));
        }
        match self.log.begin_segment(part.start, part.end).await {
            Ok(copy) => Ok(CopiedSegment { copy, snapshot: Vec::new(), snapshot_total: None }),
            Err(LogError::Disk(error)) => Err(Refused::Disk(error.into())),
            Err(error) => Err(Refused::Malformed(error.to_string())),
        }
    }

    async fn add_items(
        &self,
        copied: &mut CopiedSegment<D>,
        items: Vec<SegmentItem<SharedSlice>>,
    ) -> Result<(), Refused> {
        for item in items {
            match item {
                SegmentItem::Entries(run) => {
                    let mut at = 0;
                    for entry in Entries::of(self.key, &run) {
                        let header = entry.map_err(Refused::Malformed)?.header;
                        let end = at + header.entry_bytes();
                        copied.copy.add_entry(&header, &run[at..end]).await?;
                        at = end;
                    }
                }
                SegmentItem::Freed(to) => copied.copy.add_freed(to).await?,
                SegmentItem::Snapshot { total, bytes } => copied.add_snapshot(total, &bytes)?,
            }
        }
        Ok(())
    }

    fn segment_grew(self: &Rc<Self>, copy: CopyId, limit: LogIndex, copied: CopiedSegment<D>) {
        let (at, end) = (copied.copy.at().index, copied.copy.end());
        let is_complete = copied.is_complete();
        *self.copied_segment.borrow_mut() = Some(copied);
        self.drive(match is_complete {
            true => Input::SegmentReady { copy, limit, end },
            false => Input::SegmentPart { copy, limit, at },
        });
    }

    /// A file that is left behind is removed by the next start.
    async fn give_up(&self, copied: CopiedSegment<D>) {
        if let Err(error) = copied.copy.discard().await {
            tracing::warn!(range = %self.key, %error, "cannot remove a segment that was copied in part");
        }
    }

    /// The log goes on with the segment that is complete.
    pub(super) fn install_segment(self: &Rc<Self>) {
        self.inbox.set_truncating(true);
        let copied = self.copied_segment.take().expect("the machine was told of it just now");
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let installed = range.install(copied).await;
            range.inbox.set_truncating(false);
            match installed {
                Ok(state) => {
                    range.drive(Input::Truncated { state: Box::new(state) });
                    range.log_moved();
                }
                Err(error @ (LogError::Truncate { .. } | LogError::Format { .. })) => {
                    tracing::error!(range = %range.key, %error, "cannot go on with a copied segment");
                    range.drive(Input::CutRefused);
                }
                Err(error) => range.write_failed(&error),
            }
        });
    }

    async fn install(&self, CopiedSegment { copy, snapshot, .. }: CopiedSegment<D>) -> Result<RangeState, LogError> {
        let end = copy.end();
        let state = RangeState::restore(&snapshot).ok().filter(|state| state.end() == end);
        let Some(state) = state else {
            let path = self.log.dir().to_owned();
            self.give_up(CopiedSegment { copy, snapshot, snapshot_total: None }).await;
            let reason = format!("the state that came with entry {} is none, or not of this release", end.index);
            return Err(LogError::Format { path, reason });
        };
        let last = (state.last_epoch(), state.last_append_timestamp());
        self.log.install(copy, snapshot, last).await?;
        Ok(state)
    }

    /// Drops the log; what is copied comes from the beginning then.
    pub(super) fn start_over(self: &Rc<Self>) {
        tracing::warn!(range = %self.key, "what comes next was freed at the source; copying everything anew");
        self.inbox.set_truncating(true);
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let dropped = range.log.start_over().await;
            range.inbox.set_truncating(false);
            match dropped {
                Ok(()) => range.drive(Input::Truncated { state: Box::default() }),
                Err(error) => range.write_failed(&error),
            }
        });
    }
}
