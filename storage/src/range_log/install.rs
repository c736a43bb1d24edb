//! Copying a sealed segment whole: it is built beside the log, under a temporary name, and put behind it when complete.
//!
//! ```text
//!   begin_segment -> entries, freed runs -> ... -> install: flushes durable -> footer -> sidecar -> renamed -> in the log
//! ```
//!
//! The file is this log's own in every way: its generation, its flush numbers, its marker, so nothing in it says more about
//! this log than is true. Entries are packed; a freed run takes no bytes, only a row of the sidecar. Promise: a crash
//! leaves the log with the segment or without it. Absent: whether what is copied follows, which the caller has checked.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::entry::EntryHeader;
use minikafka_core::limits::{FREED_RUNS_MAX, SNAPSHOT_BYTES_MAX};
use minikafka_core::{Epoch, FlushNumber, Generation, LogIndex, LogPoint, Timestamp};
use thiserror::Error;

use super::roll::prepare_footer;
use super::state::{Inner, State};
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{DiskError, DiskResult, LogError};
use crate::flush::{FLUSH_HEADER_BYTES, FlushHeader};
use crate::freed_runs::{self, FreedBytes, FreedRun, FreedRuns};
use crate::segment::{Contents, LogSegment, SealedSegment, SegmentFile, SegmentName, UnsealedSegment};

/// A sealed segment that is being copied.
pub struct SegmentCopy<D: Disk> {
    disk: D,
    /// Where the file is until it is complete.
    temporary: PathBuf,
    segment: LogSegment<D>,
    /// Complete up to here.
    at: LogPoint,
    /// The flush being filled: room for its header, then entries.
    open: Vec<u8>,
    /// End of the log before it.
    open_previous: LogPoint,
    /// Where the last entry written or being filled in ends.
    entries_end: u64,
    runs: Vec<FreedBytes>,
    flush_bytes_max: usize,
    marker: Epoch,
    /// The last flush before it.
    flushes_before: u64,
}

/// What a new segment file is begun with.
pub(super) struct Beginning {
    pub name: SegmentName,
    /// The log before it.
    pub start: LogPoint,
    /// The log with it.
    pub end: LogPoint,
    pub marker: Epoch,
    /// The last flush before it.
    pub flushes_before: u64,
    /// Size class of the file.
    pub bytes: u64,
}

/// Why an item was not taken; the copy is to be discarded.
#[derive(Debug, Error)]
pub enum InstallError {
    /// It does not follow what there is, or leads beyond the segment's end.
    #[error("it does not follow entry {0}")]
    DoesNotFollow(LogIndex),
    /// The disk has no room for it.
    #[error("{0}")]
    NoSpace(DiskError),
    /// A write failed.
    #[error("{0}")]
    Disk(DiskError),
}

impl From<DiskError> for InstallError {
    fn from(error: DiskError) -> Self {
        if error.is_no_space() { Self::NoSpace(error) } else { Self::Disk(error) }
    }
}

impl<D: Disk> SegmentCopy<D> {
    /// The log before it.
    pub const fn start(&self) -> LogPoint {
        self.segment.start
    }

    /// The log with it.
    pub const fn end(&self) -> LogPoint {
        self.segment.end
    }

    /// How far it is.
    pub const fn at(&self) -> LogPoint {
        self.at
    }

    /// Whether entries were left out because they are freed.
    pub(super) fn has_freed(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Epoch and time of the last entry added; none: there was none.
    pub(super) fn last(&self) -> Option<(Epoch, Timestamp)> {
        let unsealed = self.segment.unsealed().filter(|unsealed| !unsealed.index.is_empty())?;
        Some((unsealed.last_epoch, unsealed.last_timestamp))
    }

    /// The next entry as stored: header, body, padding; the caller has verified its checksums.
    pub async fn add_entry(&mut self, header: &EntryHeader, entry: &[u8]) -> Result<(), InstallError> {
        assert_eq!(entry.len(), header.entry_bytes(), "an entry is added whole");
        let next = LogPoint { index: header.index, hash: header.running_hash };
        let follows = header.index == self.at.index.next() && header.hash_after(self.at.hash) == header.running_hash;
        if !follows || !self.leads_to_end(next) {
            return Err(InstallError::DoesNotFollow(self.at.index));
        }
        if self.has_open() && self.open.len() + entry.len() > self.flush_bytes_max {
            self.write_flush().await?;
        }
        if !self.has_open() {
            self.open.resize(FLUSH_HEADER_BYTES, 0);
            self.open_previous = self.at;
        }
        let previous = self.at;
        let unsealed = self.segment.unsealed_mut().expect("it is not sealed before it is complete");
        let position = unsealed.write_position + self.open.len() as u64;
        unsealed.add(header, previous, unsealed.write_position + FLUSH_HEADER_BYTES as u64, position);
        self.open.extend_from_slice(entry);
        self.entries_end = position + entry.len() as u64;
        self.at = next;
        Ok(())
    }

    /// Everything behind what there is, up to `to`, was freed at the source.
    pub async fn add_freed(&mut self, to: LogPoint) -> Result<(), InstallError> {
        if to.index <= self.at.index || !self.leads_to_end(to) {
            return Err(InstallError::DoesNotFollow(self.at.index));
        }
        self.write_flush().await?;
        let position = self.entries_end;
        let bytes = self.write_position() - position;
        let run = FreedRun {
            first_index: self.at.index.next(),
            last_index: to.index,
            hash_before: self.at.hash,
            hash_after: to.hash,
        };
        let is_full = self.runs.len() == FREED_RUNS_MAX;
        match self.runs.last_mut() {
            Some(last) if last.run.last_index == self.at.index => {
                (last.run.last_index, last.run.hash_after) = (to.index, to.hash);
            }
            _ if is_full => return Err(InstallError::DoesNotFollow(self.at.index)),
            _ => self.runs.push(FreedBytes { run, position, bytes }),
        }
        self.at = to;
        Ok(())
    }

    /// Gives the file up.
    pub async fn discard(self) -> Result<(), LogError> {
        self.segment.file.close().await?;
        self.disk.remove(&self.temporary).await.on("remove", &self.temporary)?;
        Ok(())
    }

    fn leads_to_end(&self, next: LogPoint) -> bool {
        let end = self.segment.end;
        next.index < end.index || next == end
    }

    const fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn write_position(&self) -> u64 {
        self.segment.unsealed().map_or(0, |unsealed| unsealed.write_position)
    }

    /// Writes the flush being filled, if there is one, durably.
    async fn write_flush(&mut self) -> Result<(), DiskError> {
        if !self.has_open() {
            return Ok(());
        }
        let file = self.segment.file.clone();
        let unsealed = self.segment.unsealed_mut().expect("it is not sealed before it is complete");
        let number = FlushNumber(unsealed.last_flush_number.0 + 1);
        let header = FlushHeader {
            generation: file.name.generation,
            number,
            length: self.open.len() as u32,
            first_index: self.open_previous.index.next(),
            durable_index: self.open_previous.index,
            previous_hash: self.open_previous.hash,
            marker: self.marker,
            marker_only: false,
            size_class: file.bytes.max(1).ilog2() as u8,
        };
        let padded = self.open.len().next_multiple_of(BLOCK_BYTES);
        let mut buffer = self.disk.allocate(padded);
        let (entries, padding) = buffer.as_mut().split_at_mut(self.open.len());
        entries.copy_from_slice(&self.open);
        entries[..FLUSH_HEADER_BYTES].copy_from_slice(&header.encode());
        padding.fill(0);
        file.write_durable(&self.disk, Rc::new(buffer), unsealed.write_position).await?;
        unsealed.write_position += padded as u64;
        unsealed.last_flush_number = number;
        self.open.clear();
        Ok(())
    }
}

impl<D: Disk> Inner<D> {
    pub async fn begin_segment(&self, start: LogPoint, end: LogPoint) -> Result<SegmentCopy<D>, LogError> {
        let beginning = {
            let mut state = self.state.borrow_mut();
            state.check_install(start, end)?;
            state.last_segment_number += 1;
            let generation = Generation(self.storage.disk.random_u64());
            let name = SegmentName { number: state.last_segment_number, generation };
            let (marker, flushes_before) = (state.marker, state.last_flush_number);
            let bytes = self.storage.config.segment_bytes_min;
            Beginning { name, start, end, marker, flushes_before, bytes }
        };
        self.begin_file(beginning).await
    }

    /// A segment file beside the log, under its temporary name.
    pub(super) async fn begin_file(&self, beginning: Beginning) -> Result<SegmentCopy<D>, LogError> {
        let Beginning { name, start, end, marker, flushes_before, bytes } = beginning;
        let temporary = temporary_path(&self.dir, name);
        let (file, _) = self.storage.pool.take(&temporary, bytes).await?;
        let file = Rc::new(SegmentFile::open(&self.dir, name, bytes, file));
        let contents = Contents::Unsealed(Box::new(UnsealedSegment {
            last_flush_number: FlushNumber(flushes_before),
            marker,
            ..UnsealedSegment::default()
        }));
        Ok(SegmentCopy {
            disk: self.storage.disk.clone(),
            temporary,
            segment: LogSegment { file, start, end, contents },
            at: start,
            open: Vec::new(),
            open_previous: start,
            entries_end: 0,
            runs: Vec::new(),
            flush_bytes_max: self.storage.config.flush_bytes_max,
            marker,
            flushes_before,
        })
    }

    pub async fn install(
        &self,
        copy: SegmentCopy<D>,
        snapshot: Vec<u8>,
        last: (Epoch, Timestamp),
    ) -> Result<(), LogError> {
        assert!(snapshot.len() as u64 <= SNAPSHOT_BYTES_MAX, "a snapshot of {} bytes is too large", snapshot.len());
        assert_eq!(copy.at, copy.segment.end, "only what is complete is put into a log");
        {
            let mut state = self.state.borrow_mut();
            state.check_install(copy.start(), copy.end())?;
            if state.last_flush_number != copy.flushes_before || state.marker != copy.marker {
                return Err(refused(copy.end(), "the log was written to since the copy began"));
            }
            state.stopped = true;
        }
        let installed = self.install_stopped(copy, snapshot, last).await;
        self.state.borrow_mut().stopped = false;
        installed
    }

    async fn install_stopped(
        &self,
        copy: SegmentCopy<D>,
        snapshot: Vec<u8>,
        (last_epoch, last_timestamp): (Epoch, Timestamp),
    ) -> Result<(), LogError> {
        let snapshot_bytes = snapshot.len();
        let segment = self.finish_sealed(copy, snapshot, (last_epoch, last_timestamp)).await?;
        let trailer = segment.sealed().expect("it was sealed just now").trailer;
        let mut state = self.state.borrow_mut();
        state.last_flush_number = trailer.last_flush_number.0;
        state.durable_flush_number = state.last_flush_number;
        (state.end, state.durable, state.covered) = (segment.end, segment.end.index, segment.end.index);
        state.committed = state.committed.max(segment.end.index);
        (state.last_epoch, state.last_timestamp) = (last_epoch, last_timestamp);
        state.snapshot_bytes = snapshot_bytes;
        state.segments.push_back(segment);
        Ok(())
    }

    /// Completes a file with footer and sidecar, durably, and gives it its name.
    pub(super) async fn finish_sealed(
        &self,
        mut copy: SegmentCopy<D>,
        snapshot: Vec<u8>,
        (last_epoch, last_timestamp): (Epoch, Timestamp),
    ) -> Result<LogSegment<D>, LogError> {
        copy.write_flush().await?;
        if let Some(unsealed) = copy.segment.unsealed_mut() {
            if unsealed.index.is_empty() {
                unsealed.first_timestamp = last_timestamp;
            }
            (unsealed.last_epoch, unsealed.last_timestamp) = (last_epoch, last_timestamp);
            (unsealed.snapshot, unsealed.rolled) = (Some(snapshot), true);
        }
        let footer = prepare_footer(&copy.segment);
        self.write_footer(&footer).await?;
        let mut sealed = SealedSegment::new(footer.trailer, &footer.body);
        let SegmentCopy { temporary, segment, runs, .. } = copy;
        let (file, start, end) = (segment.file.clone(), segment.start, segment.end);
        if !runs.is_empty() {
            let runs = FreedRuns::new(runs);
            file.set_punched();
            freed_runs::write(&self.storage.disk, &file.path, file.name.generation, &runs).await?;
            let flushes = segment.unsealed().map(|unsealed| unsealed.index.flushes()).unwrap_or_default();
            sealed.set_freed(runs, flushes.iter());
        }
        self.give_name(&temporary, &file).await?;
        Ok(LogSegment { file, start, end, contents: Contents::Sealed(Box::new(sealed)) })
    }

    /// Completes a file that ends without a footer, durably, and gives it its name; `is_last` closes it with an empty flush,
    /// which knows all others durable.
    pub(super) async fn finish_unsealed(
        &self,
        mut copy: SegmentCopy<D>,
        is_last: bool,
    ) -> Result<LogSegment<D>, LogError> {
        copy.write_flush().await?;
        if is_last {
            copy.open_previous = copy.at;
            copy.open.resize(FLUSH_HEADER_BYTES, 0);
            copy.write_flush().await?;
        }
        self.give_name(&copy.temporary, &copy.segment.file).await?;
        if let Some(unsealed) = copy.segment.unsealed_mut() {
            unsealed.rolled = true;
        }
        Ok(copy.segment)
    }

    async fn give_name(&self, temporary: &Path, file: &SegmentFile<D>) -> Result<(), LogError> {
        let disk = &self.storage.disk;
        // Readers open it again, under the name that it has then.
        file.close().await?;
        disk.rename(temporary, &file.path).await.on("rename", temporary)?;
        disk.sync_dir(&self.dir).await.on("sync directory", &self.dir)?;
        Ok(())
    }
}

impl<D: Disk> State<D> {
    /// Whether everything is sealed, or there is nothing.
    pub fn takes_segments(&self) -> bool {
        let is_idle = self.in_flight.is_empty() && self.open.is_none() && self.next.is_none() && !self.sealing;
        let is_fit = self.loss.is_none() && self.failure.is_none() && !self.stopped;
        is_idle && is_fit && self.segments.iter().all(|segment| segment.sealed().is_some())
    }

    fn check_install(&self, start: LogPoint, end: LogPoint) -> Result<(), LogError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let follows = self.end == start || self.end == LogPoint::START;
        match self.takes_segments() && follows && end.index > start.index {
            true => Ok(()),
            false => Err(refused(end, "the log ends elsewhere")),
        }
    }
}

fn refused(end: LogPoint, reason: &'static str) -> LogError {
    LogError::Truncate { to: end.index, hash: end.hash.0, reason }
}

/// Where a segment is until it is complete; recovery removes what is left of such.
fn temporary_path(dir: &Path, name: SegmentName) -> PathBuf {
    dir.join(format!("{}.tmp", name.file_name()))
}
