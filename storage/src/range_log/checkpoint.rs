//! What a clean stop leaves so that the next start need not scan (`docs/DATA_FILE.md`, section 10).
//!
//! For each segment without a footer, the footer that it would have were it sealed now, in a file beside the segments. The
//! file is gone, durably, before the log that it describes changes: whoever finds it finds the log as it was. It is never
//! needed: a missing, torn or damaged one, or one that does not fit the segments, only means a scan.

use std::path::Path;
use std::rc::Rc;

use minikafka_core::LogPoint;
use minikafka_core::limits::READ_BYTES_MAX;

use super::roll::{PreparedFooter, prepare_footer};
use super::state::{Inner, State};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::{DiskError, DiskResult, LogError};
use crate::flush::FlushHeader;
use crate::footer::{self, Trailer};
use crate::segment::{Contents, LogSegment, SegmentFile, UnsealedSegment};

/// The file's name, in the directory of its range.
pub(super) const CHECKPOINT_NAME: &str = "clean-stop.checkpoint";
/// Where it is written before it has its name.
const UNFINISHED_NAME: &str = "clean-stop.tmp";

/// What the file says of one segment: a footer, its trailer first.
struct Part {
    trailer: Trailer,
    body: Vec<u8>,
}

/// Takes the checkpoint away, if there is one, and gives the segments without a footer what it says of them. Returns the
/// state as of the end when it fits the segments, which must be `sound`; then nothing needs to be scanned.
pub(super) async fn take<D: Disk>(
    disk: &D,
    dir: &Path,
    segments: &mut [LogSegment<D>],
    sound: bool,
) -> Result<Option<Vec<u8>>, DiskError> {
    let path = dir.join(CHECKPOINT_NAME);
    if !disk.list(dir).await.on("list", dir)?.iter().any(|name| name == CHECKPOINT_NAME) {
        return Ok(None);
    }
    let bytes = read(disk, &path).await;
    disk.remove(&path).await.on("remove", &path)?;
    disk.sync_dir(dir).await.on("sync directory", dir)?;
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(%error, "the checkpoint of a clean stop cannot be read; scanning instead");
            return Ok(None);
        }
    };
    let parts = decode(&bytes, segments).filter(|_| sound);
    let fits = match &parts {
        Some(parts) => is_followed_by_nothing(disk, segments, parts).await?,
        None => false,
    };
    match parts.filter(|_| fits) {
        Some(parts) => Ok(restore(segments, parts)),
        None => {
            tracing::warn!(path = %path.display(), "the checkpoint of a clean stop does not fit its log; scanning instead");
            Ok(None)
        }
    }
}

async fn read<D: Disk>(disk: &D, path: &Path) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path).await.on("open", path)?;
    let result = async {
        let size = file.size().await.on("ask for the size of", path)?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size / BLOCK_BYTES as u64 * BLOCK_BYTES as u64 {
            let rest = (size - bytes.len() as u64) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let count = rest.min(READ_BYTES_MAX.into()) as usize;
            let chunk = file.read_at(bytes.len() as u64, count).await.on("read", path)?;
            bytes.extend_from_slice((*chunk).as_ref());
        }
        Ok(bytes)
    };
    let bytes = result.await;
    file.close().await.on("close", path)?;
    bytes
}

/// The parts, if they are whole and about the first of the segments that have no footer, in order.
fn decode<D: Disk>(mut bytes: &[u8], segments: &[LogSegment<D>]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let (sealed, unsealed) =
        segments.split_at(segments.iter().take_while(|segment| segment.sealed().is_some()).count());
    let is_whole = sealed.windows(2).all(|pair| pair[0].end == pair[1].start);
    if !is_whole || unsealed.iter().any(|segment| segment.sealed().is_some()) {
        return None;
    }
    let mut unsealed = unsealed.iter();
    let mut end = sealed.last().map_or(LogPoint::START, |segment| segment.end);
    while !bytes.is_empty() {
        let segment = unsealed.next()?;
        let trailer = Trailer::decode(bytes, segment.file.name.generation)?;
        let (body, rest) = bytes[BLOCK_BYTES..].split_at_checked(trailer.padded_body_bytes() as usize)?;
        let has_flushes = !segment.file.is_failed() && trailer.footer_position <= segment.file.bytes;
        let follows = has_flushes && end == trailer.start;
        if !follows || !footer::body_matches(&trailer, body) || footer::decode_index(&trailer, body).is_none() {
            return None;
        }
        end = trailer.end;
        parts.push(Part { trailer, body: body.to_vec() });
        bytes = rest;
    }
    (!parts.is_empty()).then_some(parts)
}

/// Whether no flush was written after what the parts describe: neither to the last segment nor to one behind it.
async fn is_followed_by_nothing<D: Disk>(
    disk: &D,
    segments: &[LogSegment<D>],
    parts: &[Part],
) -> Result<bool, DiskError> {
    let described = segments.iter().filter(|segment| segment.sealed().is_none());
    let ends = parts.iter().map(|part| part.trailer.footer_position).chain(std::iter::repeat(0));
    for (segment, end) in described.zip(ends) {
        if has_flush_at(disk, &segment.file, end).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a flush of this file, or may be one.
async fn has_flush_at<D: Disk>(disk: &D, file: &SegmentFile<D>, position: u64) -> Result<bool, DiskError> {
    if position + BLOCK_BYTES as u64 > file.bytes {
        return Ok(false);
    }
    let mut unreadable = Vec::new();
    let block = file.read_damaged(disk, position, BLOCK_BYTES, &mut unreadable).await?;
    let header = FlushHeader::decode((*block).as_ref());
    let has_flush = header.is_some_and(|header| header.generation == file.name.generation);
    Ok(has_flush || !unreadable.is_empty())
}

/// Fills the segments in; returns the state as of the end.
fn restore<D: Disk>(segments: &mut [LogSegment<D>], parts: Vec<Part>) -> Option<Vec<u8>> {
    let count = parts.len();
    let mut snapshot = None;
    let unsealed = segments.iter_mut().filter(|segment| segment.sealed().is_none());
    for (at, (segment, Part { trailer, body })) in unsealed.zip(parts).enumerate() {
        let own = footer::snapshot(&trailer, &body).to_vec();
        let is_last = at + 1 == count;
        segment.start = trailer.start;
        segment.end = trailer.end;
        segment.contents = Contents::Unsealed(Box::new(UnsealedSegment {
            index: footer::decode_index(&trailer, &body).unwrap_or_default(),
            write_position: trailer.footer_position,
            snapshot: (!is_last).then(|| own.clone()),
            rolled: !is_last,
            last_flush_number: trailer.last_flush_number,
            marker: trailer.marker,
            last_epoch: trailer.last_epoch,
            first_timestamp: trailer.first_timestamp,
            last_timestamp: trailer.last_timestamp,
            ..UnsealedSegment::default()
        }));
        snapshot = is_last.then_some(own);
    }
    snapshot
}

/// The state of a log whose segments a checkpoint has filled in, and the files that hold nothing.
pub(super) fn restored_state<D: Disk>(
    segments: Vec<LogSegment<D>>,
    snapshot_bytes: usize,
) -> (State<D>, Vec<Rc<SegmentFile<D>>>) {
    let mut state = State::empty();
    let mut unused = Vec::new();
    state.last_segment_number = segments.last().map_or(0, LogSegment::number);
    state.snapshot_bytes = snapshot_bytes;
    for segment in segments {
        let (number, marker) = match &segment.contents {
            Contents::Sealed(sealed) => (sealed.trailer.last_flush_number.0, sealed.trailer.marker),
            Contents::Unsealed(unsealed) if unsealed.write_position > 0 => {
                (unsealed.last_flush_number.0, unsealed.marker)
            }
            Contents::Unsealed(_) => {
                unused.push(segment.file);
                continue;
            }
        };
        state.last_flush_number = state.last_flush_number.max(number);
        state.marker = state.marker.max(marker);
        state.end = segment.end;
        state.segments.push_back(segment);
    }
    state.durable = state.end.index;
    state.covered = state.end.index;
    state.durable_flush_number = state.last_flush_number;
    (state, unused)
}

impl<D: Disk> Inner<D> {
    /// Leaves a checkpoint of a log in which nothing happens any more; `snapshot` is the range's state as of its end.
    pub async fn write_checkpoint(&self, snapshot: Vec<u8>) -> Result<(), LogError> {
        let Some(bytes) = self.encode_checkpoint(snapshot) else { return Ok(()) };
        let (disk, dir) = (&self.storage.disk, &self.dir);
        let unfinished = dir.join(UNFINISHED_NAME);
        write(disk, &unfinished, &bytes, self.storage.config.flush_bytes_max).await?;
        disk.rename(&unfinished, &dir.join(CHECKPOINT_NAME)).await.on("rename", &unfinished)?;
        disk.sync_dir(dir).await.on("sync directory", dir)?;
        Ok(())
    }

    /// None when there is nothing to describe, or something is not as it should be.
    fn encode_checkpoint(&self, snapshot: Vec<u8>) -> Option<Vec<u8>> {
        let mut state = self.state.borrow_mut();
        // Damage that costs no state is met again by reads; the rest is what the next scan must find.
        let is_sound = state.failure.is_none() && state.loss.is_none() && state.lost.is_empty();
        if !is_sound || state.durable != state.end.index || state.covered < state.end.index {
            return None;
        }
        let active = state.active_mut().and_then(LogSegment::unsealed_mut)?;
        active.snapshot = Some(snapshot);
        let first = state.segments.iter().rposition(|segment| segment.sealed().is_some()).map_or(0, |at| at + 1);
        let mut bytes = Vec::new();
        for segment in state.segments.range(first..) {
            // One that lost its state to a cut would need a replay, which is what a scan does.
            segment.unsealed().filter(|unsealed| unsealed.snapshot.is_some())?;
            let PreparedFooter { trailer, body, .. } = prepare_footer(segment);
            bytes.extend_from_slice(&trailer.encode());
            bytes.extend_from_slice(&body);
        }
        Some(bytes)
    }
}

async fn write<D: Disk>(disk: &D, path: &Path, bytes: &[u8], chunk_bytes: usize) -> Result<(), DiskError> {
    let file = disk.create(path, bytes.len() as u64).await.on("create", path)?;
    let result = async {
        let chunk_bytes = chunk_bytes.next_multiple_of(BLOCK_BYTES);
        for (at, chunk) in bytes.chunks(chunk_bytes).enumerate() {
            let mut buffer = disk.allocate(chunk.len());
            buffer.as_mut().copy_from_slice(chunk);
            file.write_durable(Rc::new(buffer), (at * chunk_bytes) as u64).await.on("write", path)?;
        }
        Ok(())
    };
    let written = result.await;
    file.close().await.on("close", path)?;
    written
}
