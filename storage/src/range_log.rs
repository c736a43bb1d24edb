//! One range's log: append, group commit, roll, read, truncate, recover.
//!
//! The caller (the broker's shard) decides indexes, epochs and hashes; the log puts them on disk, says when they are
//! durable, and finds them again. One log is used by one thread; its methods take `&self`, and those that are not `async`
//! never wait.
//!
//! ```text
//!   append -> open flush buffer -> flush in flight -> durable -> (committed, by set_committed)
//!             (copied entries)     (write_durable)    durable_index
//!   active segment -- roll(snapshot) --> rolled segment -- last index committed --> sealed (footer)
//! ```

use std::path::Path;
use std::rc::Rc;

use minikafka_core::chain::peer::{SegmentCursor, SegmentPart};
use minikafka_core::entry::EntryHeader;
use minikafka_core::{Epoch, LogIndex, LogPoint, Offset, PartitionKey, RangeKey, Timestamp};

use crate::disk::Disk;
use crate::error::{AppendError, Damage, LogError, ReadError};
use crate::shard_storage::ShardStorage;
use crate::slice::SharedSlice;

mod append;
mod checkpoint;
mod cut;
mod freeing;
mod install;
mod locate;
mod mend;
mod offer;
mod read;
mod read_ahead;
mod recovery;
mod retain;
mod roll;
mod runs;
mod scan;
mod sidecars;
mod start_over;
mod state;
mod truncate;

pub use freeing::{Freed, LogUsage};
pub use install::{InstallError, SegmentCopy};
pub use mend::{DamagedStretch, EntrySource, Lost, MendError};
pub use read::Reader;
pub use retain::RetentionPolicy;
use state::Inner;

/// Rebuilds the range's state while a log is recovered or truncated.
pub trait RecoveryVisitor {
    /// Begin (again) from this snapshot; `None`: from nothing. Comes before the first entry, and once more when a
    /// truncation is found on disk after entries above it were already delivered.
    fn snapshot(&mut self, snapshot: Option<&[u8]>);

    /// The next entry, verified.
    fn entry(&mut self, header: &EntryHeader, body: &[u8]);

    /// The state as of the last entry, for the footer of a segment that was rolled but not sealed.
    fn take_snapshot(&mut self) -> Vec<u8>;

    /// The next entry, a batch whose header is verified and whose body is damaged.
    fn header(&mut self, header: &EntryHeader);

    /// Entries that had been durable and of which nothing is known; the next entry comes from behind them.
    fn damaged(&mut self, damage: &Damage);
}

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// End of the log; all of it is durable.
    pub end: LogPoint,
    /// First index that this log still has; `end.index + 1` when it has none.
    pub first_index: LogIndex,
    /// Epoch of the last entry; 0 without one.
    pub last_epoch: Epoch,
    /// Append timestamp of the last entry; 0 without one.
    pub last_timestamp: Timestamp,
    /// Epoch into which the log was last reconciled; 0 without a file (then the promise file knows).
    pub marker: Epoch,
    /// Whether there is a file: a range that should have one and has none lost its log.
    pub has_file: bool,
    /// Bytes of flushes dropped as a torn end.
    pub torn_bytes: u64,
    /// A clean stop had left a checkpoint, so nothing was scanned.
    pub from_checkpoint: bool,
    /// Rot. Everything else is served.
    pub damage: Vec<Damage>,
    /// The first of it without which the state is not known: then the log takes no entries.
    pub loss: Option<Damage>,
}

/// An open log and what its recovery found.
pub struct Opened<D: Disk> {
    /// The log.
    pub log: RangeLog<D>,
    /// What was found.
    pub report: RecoveryReport,
}

/// Where an entry's body is.
pub enum Body<'a, D: Disk> {
    /// To be copied, once, into the current flush buffer.
    Copied(&'a [u8]),
    /// In a buffer of [`RangeLog::body_buffer`], to be written from there.
    Whole(BodyBuffer<D>),
}

/// A buffer into which a large body is received, so that it is written and forwarded without a copy.
pub struct BodyBuffer<D: Disk> {
    buffer: D::Buffer,
    body_bytes: usize,
}

/// What became of an appended entry.
pub struct Appended {
    /// The whole entry (header, body, padding), when its body was [`Body::Whole`]: the same memory that goes to disk, to be
    /// forwarded from. Copied bodies are the caller's to forward.
    pub entry: Option<SharedSlice>,
}

/// The log of one range. Clones share it.
#[derive(Clone)]
pub struct RangeLog<D: Disk> {
    inner: Rc<Inner<D>>,
}

impl<D: Disk> RangeLog<D> {
    /// Opens and recovers the log in `storage.range_dir(range)`; a range that never had data has no directory.
    pub async fn open(
        storage: Rc<ShardStorage<D>>,
        range: RangeKey,
        visitor: &mut impl RecoveryVisitor,
    ) -> Result<Opened<D>, LogError> {
        recovery::open(storage, range, visitor).await
    }

    /// A buffer to receive a body into, for [`Body::Whole`].
    pub fn body_buffer(&self, body_bytes: u32) -> BodyBuffer<D> {
        BodyBuffer::new(&self.inner.storage.disk, body_bytes)
    }

    /// Takes an entry; it becomes durable by itself. `header` is final (index, epoch, offsets, running hash): its index must be
    /// the end's + 1 and its hash must follow, [`RangeLog::must_roll`] must have been heeded, or this panics.
    pub fn append(&self, header: &EntryHeader, body: Body<'_, D>) -> Result<Appended, AppendError> {
        self.inner.append(header, body)
    }

    /// Whether [`RangeLog::append`] would take an entry now: nothing is half done after an append that is asked for first.
    pub fn check_append(&self) -> Result<(), AppendError> {
        self.inner.state.borrow().check_append(&self.inner)
    }

    /// Whether an entry of `entry_bytes` (header, body, padding) needs [`RangeLog::roll`] first.
    pub fn must_roll(&self, entry_bytes: usize) -> bool {
        self.inner.state.borrow().must_roll(entry_bytes)
    }

    /// Whether the segment after the current one finds no space: a roll would leave nowhere to write to for the time being.
    pub fn next_waits_for_space(&self) -> bool {
        self.inner.state.borrow().next.as_ref().is_some_and(|next| next.waits_for_space())
    }

    /// Ends the current segment; `snapshot` is the range's state as of [`RangeLog::end`]. Never waits: the next segment
    /// was prepared ahead.
    pub fn roll(&self, snapshot: Vec<u8>) {
        self.inner.roll(snapshot);
    }

    /// Says that entries up to `index` are committed: rolled segments below it get their footers in the background.
    pub fn set_committed(&self, index: LogIndex) {
        {
            let mut state = self.inner.state.borrow_mut();
            state.committed = state.committed.max(index);
        }
        self.inner.seal_next();
    }

    /// The last entry appended.
    pub fn end(&self) -> LogPoint {
        self.inner.state.borrow().end
    }

    /// The last entry before the flush that gathers entries now, or the end: what comes behind it can only be read by
    /// copying that flush.
    pub fn gathered_index(&self) -> LogIndex {
        self.inner.state.borrow().gathered_index()
    }

    /// Bytes that a flush gathers at most.
    pub fn flush_bytes_max(&self) -> usize {
        self.inner.storage.config.flush_bytes_max
    }

    /// First index this log still has.
    pub fn first_index(&self) -> LogIndex {
        self.inner.state.borrow().first_index()
    }

    /// Epoch of the last entry.
    pub fn last_epoch(&self) -> Epoch {
        self.inner.state.borrow().last_epoch
    }

    /// Append timestamp of the last entry.
    pub fn last_timestamp(&self) -> Timestamp {
        self.inner.state.borrow().last_timestamp
    }

    /// Highest index that survives a power loss.
    pub fn durable_index(&self) -> LogIndex {
        self.inner.state.borrow().durable
    }

    /// Waits until the durable index is above `index`; fails when the log does.
    pub async fn durable_above(&self, index: LogIndex) -> Result<LogIndex, LogError> {
        self.inner
            .changed
            .wait_for(|| {
                let state = self.inner.state.borrow();
                match &state.failure {
                    Some(failure) => Some(Err(failure.clone())),
                    None => (state.durable > index).then_some(Ok(state.durable)),
                }
            })
            .await
    }

    /// Calls `listener` (which must not await, and may call the log) whenever the durable index grew, when entries that were
    /// gathered can be read, and when the log failed.
    pub fn on_durable(&self, listener: impl Fn() + 'static) {
        *self.inner.listener.borrow_mut() = Some(Rc::new(listener));
    }

    /// The damage for which this log takes no entries, only markers: its state misses what was lost.
    pub fn loss(&self) -> Option<Damage> {
        self.inner.state.borrow().loss.clone()
    }

    /// The first offset at `from` or above that can be read of a partition above index `after`, up to which a read met
    /// damage; `None`: there is none up to index `up_to`.
    pub async fn readable_behind(
        &self,
        after: LogIndex,
        partition: PartitionKey,
        from: Offset,
        up_to: LogIndex,
    ) -> Result<Option<Offset>, ReadError> {
        self.inner.readable_behind(after, partition, from, up_to).await
    }

    /// The durable write that failed, for which nothing more becomes durable here.
    pub fn failed(&self) -> Option<LogError> {
        self.inner.state.borrow().failure.clone()
    }

    /// Rot found so far, by recovery and by reads, but for what was mended or is gone.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.state.borrow().standing_damage().cloned().collect()
    }

    /// Grows with every segment that the log begins or prepares.
    pub fn segment_number(&self) -> u64 {
        self.inner.state.borrow().last_segment_number
    }

    /// Whether the log has a file (a marker then lives in it).
    pub fn has_file(&self) -> bool {
        !self.inner.state.borrow().segments.is_empty()
    }

    /// Bytes appended and not yet durable.
    pub fn append_backlog_bytes(&self) -> u64 {
        self.inner.state.borrow().backlog_bytes
    }

    /// Waits, first come first served, until the backlog leaves room for more.
    pub async fn append_space(&self) -> Result<(), LogError> {
        self.inner.append_space().await
    }

    /// Entries of a partition from the one that contains `from`, as stored, up to index `up_to` (known committed) and about
    /// `max_bytes`, but one at least if there is one. Adjacent entries share a slice. Empty: nothing there yet.
    pub async fn read_partition(
        &self,
        partition: PartitionKey,
        from: Offset,
        up_to: LogIndex,
        max_bytes: usize,
        reader: &mut Reader,
    ) -> Result<Vec<SharedSlice>, ReadError> {
        self.inner.read_partition(partition, from, up_to, max_bytes, reader).await
    }

    /// Entries in order of index, from exactly `from`, as stored, durable or not, about `max_bytes` but one at least if there is one.
    pub async fn read_index(&self, from: LogIndex, max_bytes: usize) -> Result<Vec<SharedSlice>, ReadError> {
        self.read_index_up_to(from, LogIndex(u64::MAX), max_bytes).await
    }

    /// The same, and nothing above `up_to`.
    pub async fn read_index_up_to(
        &self,
        from: LogIndex,
        up_to: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<SharedSlice>, ReadError> {
        self.inner.read_index(from, up_to, max_bytes).await
    }

    /// Base offset of the partition's first entry appended at `timestamp` or later; `None`: there is none.
    pub async fn offset_at_time(
        &self,
        partition: PartitionKey,
        timestamp: Timestamp,
    ) -> Result<Option<Offset>, ReadError> {
        self.inner.offset_at_time(partition, timestamp).await
    }

    /// The log's point at `index`, for comparing logs; `None` when it is not in this log (any more).
    pub async fn point_at(&self, index: LogIndex) -> Result<Option<LogPoint>, ReadError> {
        self.inner.point_at(index).await
    }

    /// First offset that `partition` should keep: everything below was appended before `policy.delete_before`, or lies beyond
    /// the newest `policy.bytes_max` bytes (entries as stored). Never below `log_start`, never above `up_to` (the
    /// committed end offset). Whole index extents and flushes are counted, so it may keep a little more than asked,
    /// never less. `None`: nothing to delete.
    pub async fn retention_start(
        &self,
        partition: PartitionKey,
        log_start: Offset,
        up_to: Offset,
        policy: RetentionPolicy,
    ) -> Result<Option<Offset>, ReadError> {
        self.inner.retention_start(partition, log_start, up_to, policy).await
    }

    /// Gives back the space of what is dead: `log_start_of(partition)` is the first live offset, `None` for a partition that
    /// is not (or no longer) open here. The log starts and deletions that say so must be committed and durable, and
    /// never go back. Dead sealed segments at the log's beginning go back to the pool, but for the newest sealed one;
    /// dead runs of [`FREED_RUN_BYTES_MIN`](minikafka_core::limits::FREED_RUN_BYTES_MIN) and more in other sealed
    /// segments are punched, control entries among them (every later snapshot has their effect). Cheap when nothing died
    /// since the last call; does nothing while another call is running, or the log is truncated.
    ///
    /// # Errors
    /// What the disk refused, after which a later call tries again; or why the log failed: a damaged log frees nothing.
    pub async fn free_space(&self, log_start_of: &dyn Fn(PartitionKey) -> Option<Offset>) -> Result<Freed, LogError> {
        self.inner.free_space(log_start_of).await
    }

    /// What the log takes, without asking the disk.
    pub fn usage(&self) -> LogUsage {
        self.inner.state.borrow().usage()
    }

    /// Makes `point` the end, durably, and replays the state from the last footer. Waits for flushes in flight; nothing may be
    /// appended meanwhile. Refused below a sealed segment (those are committed) and where the hash differs.
    pub async fn truncate_to(&self, point: LogPoint, visitor: &mut impl RecoveryVisitor) -> Result<(), LogError> {
        self.inner.truncate_to(point, visitor).await
    }

    /// Drops everything this log has, durably, newest first; it goes on as one that is empty and has no marker. Nothing may
    /// be appended meanwhile. For who copies the range anew and on whose log nobody counts.
    pub async fn start_over(&self) -> Result<(), LogError> {
        self.inner.start_over().await
    }

    /// Whether a sealed segment can be put behind what this log has: then all of that is sealed, or there is nothing.
    pub fn takes_segments(&self) -> bool {
        self.inner.state.borrow().takes_segments()
    }

    /// A part of what is behind `after` in the sealed segment where that is, or of the log's first segment when `after` is the
    /// very beginning; freed runs in it are items of their own. `None`: no sealed segment that ends at or below `up_to` has
    /// it, or this log has another entry at `after`, or freed it. About `bytes_max` bytes.
    pub async fn offer_segment(
        &self,
        after: LogPoint,
        cursor: SegmentCursor,
        up_to: LogIndex,
        bytes_max: usize,
    ) -> Result<Option<SegmentPart<SharedSlice>>, ReadError> {
        self.inner.offer_segment(after, cursor, up_to, bytes_max).await
    }

    /// Begins to copy a sealed segment, or the rest of one, from `start`, where this log ends unless it is empty, to `end`.
    pub async fn begin_segment(&self, start: LogPoint, end: LogPoint) -> Result<SegmentCopy<D>, LogError> {
        self.inner.begin_segment(start, end).await
    }

    /// Puts a complete copy behind the log, durably and at once, as a sealed segment whose state is `snapshot`, and last entry
    /// of this epoch and time. Nothing may be appended meanwhile. Listeners are not called.
    pub async fn install(
        &self,
        copy: SegmentCopy<D>,
        snapshot: Vec<u8>,
        last: (Epoch, Timestamp),
    ) -> Result<(), LogError> {
        self.inner.install(copy, snapshot, last).await
    }

    /// Whether there is any [`RangeLog::damage`].
    pub fn has_damage(&self) -> bool {
        self.inner.state.borrow().standing_damage().next().is_some()
    }

    /// Whether a list of freed runs could not be read, so that what it stands for counts as damage.
    pub fn has_unread_sidecars(&self) -> bool {
        self.inner.state.borrow().unread_sidecars().next().is_some()
    }

    /// Asks the disk for these again; how many are known now. Readers and the log's damage know at once.
    ///
    /// # Errors
    /// The log has failed, or the disk.
    pub async fn reread_sidecars(&self) -> Result<u32, LogError> {
        self.inner.reread_sidecars().await
    }

    /// The first stretch with damage that ends above `after`, as far as damage was met.
    pub fn damaged_stretch(&self, after: LogIndex) -> Option<DamagedStretch> {
        self.inner.state.borrow().damaged_stretch(after)
    }

    /// Writes a damaged stretch anew from what is good here and what `source` has, every entry verified by its place in the
    /// chain of hashes. A sealed one takes its place at once, beside whatever the log does. One without a footer needs a
    /// log that nobody appends to, as a log with a loss is, and counts after [`RangeLog::recover_again`]. `visitor` folds
    /// where a footer is lost; its state means nothing afterwards.
    ///
    /// # Errors
    /// Nothing has changed, and it may be tried again, unless the log failed.
    pub async fn mend(
        &self,
        stretch: &DamagedStretch,
        source: &impl EntrySource,
        visitor: &mut impl RecoveryVisitor,
    ) -> Result<(), MendError> {
        self.inner.mend(stretch, source, visitor).await
    }

    /// Recovers the log once more, as its files are now; nothing may be appended, read or cut meanwhile.
    pub async fn recover_again(&self, visitor: &mut impl RecoveryVisitor) -> Result<RecoveryReport, LogError> {
        self.inner.recover_again(visitor).await
    }

    /// Makes the marker durable by an empty flush. `false`: there is no file to hold it, the promise file must.
    pub async fn persist_marker(&self, epoch: Epoch) -> Result<bool, LogError> {
        self.inner.persist_marker(epoch).await
    }

    /// Epoch into which this log was last reconciled.
    pub fn marker(&self) -> Epoch {
        self.inner.state.borrow().marker
    }

    /// Closes the last flush with an empty one when the log is idle and that was not done yet; cheap to call from a tick.
    pub fn seal_tail(&self) {
        self.inner.seal_tail();
    }

    /// Waits for what is in flight, closes the last flush, closes the files. The next opening scans what has no footer.
    pub async fn close(&self) -> Result<(), LogError> {
        self.inner.close(None).await
    }

    /// The same, and leaves what the next opening needs instead of a scan; `snapshot` gives the range's state as of the
    /// end once nothing is in flight any more.
    pub async fn close_with_checkpoint(&self, snapshot: impl Fn() -> Vec<u8>) -> Result<(), LogError> {
        self.inner.close(Some(&snapshot)).await
    }

    /// Removes everything this log has, giving its files to the pool: for a range that moved away.
    pub async fn delete(&self) -> Result<(), LogError> {
        self.inner.delete().await
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }
}
