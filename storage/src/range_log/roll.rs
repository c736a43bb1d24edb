//! From one segment to the next, and the footer that seals what is behind.
//!
//! ```text
//!   prepared --begin--> active --roll(snapshot)--> rolled --committed and durable--> sealed --drop--> pool
//! ```
//!
//! A footer is written only once its segment's last index is committed, oldest segment first, so that truncation never
//! reaches one and recovery finds sealed segments before unsealed ones.

use std::rc::Rc;

use minikafka_core::checksum;
use minikafka_core::limits::SNAPSHOT_BYTES_MAX;

use super::state::{Inner, SPACE_RETRY, State};
use crate::LogError;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::DiskResult;
use crate::flush::FLUSH_HEADER_BYTES;
use crate::footer::{self, Trailer};
use crate::segment::{Contents, LogSegment, SealedSegment, SegmentFile};

/// Room that a segment keeps for empty flushes, when it is large enough.
const EMPTY_FLUSH_ROOM_BYTES: u64 = 64 << 10;
/// Bytes of index rows that one more entry may need.
const INDEX_ROW_BYTES: usize = 96;
/// A segment that fills faster than this is followed by one twice as large, if the log is large enough for it.
const SEGMENT_FAST_MS: i64 = 60_000;
/// A segment that fills slower than this is followed by one half as large.
const SEGMENT_SLOW_MS: i64 = 3_600_000;
/// A segment is at most so small a part of what the log holds: a log that keeps little would otherwise hold several times of it
/// in segments that are mostly dead, and never get a file back that was written before.
const SEGMENTS_MIN: u64 = 4;

impl<D: Disk> State<D> {
    /// Whether an entry of `entry_bytes` belongs into the next segment.
    pub fn must_roll(&self, entry_bytes: usize) -> bool {
        // While it is cut, dropped or closed nothing is appended, whoever asks.
        let Some(active) = self.active().filter(|_| !self.stopped) else { return false };
        let Some(unsealed) = active.unsealed() else { return false };
        let open_bytes = self.open.as_ref().map_or(0, |open| open.padded_bytes());
        if unsealed.write_position + open_bytes == 0 {
            return false;
        }
        let index = &unsealed.index;
        let rows = index.extent_count() * 60 + index.flushes().len() * 32 + INDEX_ROW_BYTES;
        let footer = (rows + self.snapshot_bytes + self.snapshot_bytes / 4).next_multiple_of(BLOCK_BYTES);
        let entry = (FLUSH_HEADER_BYTES + entry_bytes).next_multiple_of(BLOCK_BYTES);
        let room = EMPTY_FLUSH_ROOM_BYTES.min(active.file.bytes / 16);
        let needed = unsealed.write_position + open_bytes + (entry + footer + BLOCK_BYTES) as u64 + room;
        needed > active.file.bytes || index.is_full()
    }

    /// Ends the active segment with the state as of its end.
    pub fn roll(&mut self, log: &Inner<D>, snapshot: Vec<u8>) {
        assert!(snapshot.len() as u64 <= SNAPSHOT_BYTES_MAX, "a snapshot of {} bytes is too large", snapshot.len());
        assert!(!self.stopped, "{} does not roll while it is truncated or closed", log.range);
        if self.open.is_some() {
            self.close_open(log);
        }
        self.snapshot_bytes = snapshot.len();
        let Some(active) = self.active_mut() else { return };
        let bytes = active.file.bytes;
        if let Some(unsealed) = active.unsealed_mut() {
            unsealed.snapshot = Some(snapshot);
            unsealed.rolled = true;
        }
        self.begin_segment(log, bytes);
    }

    /// Makes the prepared segment the active one, or one of `bytes` whose file will be there in a moment.
    pub fn begin_segment(&mut self, log: &Inner<D>, bytes: u64) {
        let file = self.next.take().unwrap_or_else(|| self.prepare_segment(&log.storage, &log.dir, bytes));
        let mut segment = LogSegment::empty(file, self.end);
        if let Some(unsealed) = segment.unsealed_mut() {
            unsealed.set_last_before(self.last_epoch, self.last_timestamp);
        }
        self.segments.push_back(segment);
    }

    /// Has the next segment prepared once the active one is half full.
    pub fn prepare_ahead(&mut self, log: &Inner<D>) {
        if self.next.is_some() {
            return;
        }
        let now = self.last_timestamp;
        let Some(active) = self.active() else { return };
        let Some(unsealed) = active.unsealed() else { return };
        if unsealed.write_position < active.file.bytes / 2 {
            return;
        }
        let config = &log.storage.config;
        let filled_ms = now.0.saturating_sub(unsealed.first_timestamp.0).saturating_mul(2);
        let bytes = match filled_ms {
            ..SEGMENT_FAST_MS => active.file.bytes.saturating_mul(2),
            SEGMENT_SLOW_MS.. => active.file.bytes / 2,
            _ => active.file.bytes,
        };
        let held: u64 = self.segments.iter().map(LogSegment::file_bytes).sum();
        let largest = 1 << (held / SEGMENTS_MIN).max(config.segment_bytes_min).ilog2();
        let bytes = bytes.next_power_of_two().min(largest).clamp(config.segment_bytes_min, config.segment_bytes_max);
        self.next = Some(self.prepare_segment(&log.storage, &log.dir, bytes));
    }

    /// The oldest segment that has no footer, if its footer may be written now.
    fn sealable(&self) -> Option<usize> {
        // A segment below a sealed one lost its footer to rot: the state as of its end is not known any more.
        let at = self.segments.iter().rposition(|segment| segment.sealed().is_some()).map_or(0, |at| at + 1);
        let segment = self.segments.get(at)?;
        let is_rolled = segment.unsealed().is_some_and(|unsealed| unsealed.rolled && unsealed.snapshot.is_some());
        let is_settled = segment.end.index <= self.committed.min(self.durable);
        let is_written = self.in_flight.iter().all(|flush| flush.segment != segment.number());
        (is_rolled && is_settled && is_written).then_some(at)
    }
}

/// A footer about to be written.
pub(super) struct PreparedFooter<D: Disk> {
    file: Rc<SegmentFile<D>>,
    pub trailer: Trailer,
    pub body: Vec<u8>,
}

impl<D: Disk> Inner<D> {
    /// Starts to seal the oldest unsealed segment if that may be done and is not being done.
    pub fn seal_next(self: &Rc<Self>) {
        let prepared = {
            let mut state = self.state.borrow_mut();
            if state.sealing || state.stopped || state.failure.is_some() || state.loss.is_some() {
                return;
            }
            let Some(at) = state.sealable() else { return };
            state.sealing = true;
            prepare_footer(&state.segments[at])
        };
        self.storage.disk.spawn(self.clone().seal(prepared));
    }

    async fn seal(self: Rc<Self>, footer: PreparedFooter<D>) {
        let written = self.write_footer(&footer).await;
        self.state.borrow_mut().sealing = false;
        match written {
            Ok(()) => {
                self.sealed(footer);
                self.seal_next();
                self.notify();
            }
            Err(LogError::Disk(error)) if error.is_ungrown() => {
                tracing::warn!(%error, "no space for a footer beyond its segment's size; trying again");
                self.notify();
                self.storage.disk.sleep(SPACE_RETRY).await;
                self.seal_next();
            }
            Err(error) => self.fail(error),
        }
    }

    pub async fn write_footer(&self, footer: &PreparedFooter<D>) -> Result<(), LogError> {
        let disk = &self.storage.disk;
        let path = &footer.file.path;
        let file = footer.file.file(disk).await?;
        let size = file.size().await.on("ask for the size of", path)?;
        let trailer = footer.trailer.encode();
        let end = footer.trailer.footer_position + footer.trailer.padded_body_bytes();
        let file_bytes = size.max(footer.file.bytes).max(end + BLOCK_BYTES as u64);
        if file_bytes > size {
            file.grow(file_bytes).await.on("grow", path)?;
        }
        let chunk_bytes = self.storage.config.flush_bytes_max.next_multiple_of(BLOCK_BYTES);
        let body_chunks = footer.body.chunks(chunk_bytes).enumerate();
        let body_chunks =
            body_chunks.map(|(at, chunk)| (footer.trailer.footer_position + (at * chunk_bytes) as u64, chunk));
        let trailer_chunk = (file_bytes - BLOCK_BYTES as u64, &trailer[..]);
        for (position, chunk) in body_chunks.chain([trailer_chunk]) {
            let mut buffer = disk.allocate(chunk.len());
            buffer.as_mut().copy_from_slice(chunk);
            let _permit = self.storage.flush_budget.take(chunk.len() as u64).await;
            footer.file.write_durable(disk, Rc::new(buffer), position).await?;
        }
        Ok(())
    }

    fn sealed(&self, footer: PreparedFooter<D>) {
        let mut state = self.state.borrow_mut();
        let number = footer.file.name.number;
        if let Some(segment) = state.segments.iter_mut().find(|segment| segment.number() == number) {
            let sealed = SealedSegment::new(footer.trailer, &footer.body);
            let before = std::mem::replace(&mut segment.contents, Contents::Sealed(Box::new(sealed)));
            if let Contents::Unsealed(mut unsealed) = before {
                unsealed.index.shrink();
                self.storage.footers.insert(footer.file.name.generation, Rc::new(unsealed.index));
            }
        }
    }
}

/// The footer of a segment with a snapshot, as it is now.
pub(super) fn prepare_footer<D: Disk>(segment: &LogSegment<D>) -> PreparedFooter<D> {
    let unsealed = segment.unsealed().expect("a footer is prepared for an unsealed segment");
    let snapshot = unsealed.snapshot.as_deref().expect("a footer needs a snapshot");
    let body = footer::encode_body(&unsealed.index, segment.start, snapshot);
    let (extents, flushes) = (unsealed.index.extent_count(), unsealed.index.flushes().len());
    let partitions = unsealed.index.partitions().count();
    let trailer = Trailer {
        generation: segment.file.name.generation,
        body_crc: checksum::crc32c(&body),
        footer_position: unsealed.write_position,
        footer_bytes: footer::body_bytes(partitions, extents, flushes, snapshot.len()),
        start: segment.start,
        end: segment.end,
        last_flush_number: unsealed.last_flush_number,
        marker: unsealed.marker,
        last_epoch: unsealed.last_epoch,
        first_timestamp: unsealed.first_timestamp,
        last_timestamp: unsealed.last_timestamp,
        partition_count: partitions as u32,
        extent_count: extents as u32,
        flush_count: flushes as u32,
        snapshot_bytes: snapshot.len() as u64,
    };
    PreparedFooter { file: segment.file.clone(), trailer, body }
}
