//! The freed runs of a segment, and the sidecar that lists them before their blocks are punched (`docs/DATA_FILE.md`,
//! section 9).
//!
//! Promise: a hole in a segment file is covered by a durable sidecar, or the file was never punched. A sidecar that does
//! not verify is not used: its holes then read as zeros, which is damage like any other.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::limits::FREED_RUNS_MAX;
use minikafka_core::{Generation, LogIndex, LogPoint, RunningHash, checksum};

use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::{DiskError, DiskResult};
use crate::flush::Fields;
use crate::footer::Trailer;
use crate::index::FlushSpan;
use crate::segment::{SegmentName, is_passing};

/// First four bytes of a sidecar: "MKr1".
pub const FREED_MAGIC: u32 = u32::from_le_bytes(*b"MKr1");
/// Version written today.
pub const FREED_VERSION: u16 = 1;

const HEADER_BYTES: usize = 32;
const ROW_BYTES: usize = 48;
const SUFFIX: &str = ".freed";

/// Entries whose space was given back: they are passed over as one, which takes index and hash from before to after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreedRun {
    /// First entry of the run.
    pub first_index: LogIndex,
    /// Last entry of the run.
    pub last_index: LogIndex,
    /// Running hash at `first_index - 1`.
    pub hash_before: RunningHash,
    /// Running hash at `last_index`.
    pub hash_after: RunningHash,
}

/// A freed run and the bytes of the segment file that it stands for: all between the live entries around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreedBytes {
    pub run: FreedRun,
    pub position: u64,
    pub bytes: u64,
}

/// Position, bytes, first and last index of whole entries that stand one behind the other.
pub(crate) type Piece = (u64, u32, LogIndex, LogIndex);

/// The freed runs of one segment, in order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreedRuns(Rc<[FreedBytes]>);

impl FreedRun {
    /// Whether the run has entry `index`.
    pub fn contains(&self, index: LogIndex) -> bool {
        (self.first_index..=self.last_index).contains(&index)
    }

    /// The log's points before and after the run.
    pub fn borders(&self) -> [LogPoint; 2] {
        let before = LogPoint { index: LogIndex(self.first_index.0 - 1), hash: self.hash_before };
        [before, LogPoint { index: self.last_index, hash: self.hash_after }]
    }
}

impl FreedBytes {
    /// Where the bytes end.
    pub const fn end(&self) -> u64 {
        self.position + self.bytes
    }

    /// The whole blocks among the bytes: position and length of the hole.
    pub const fn hole(&self) -> (u64, u64) {
        hole(self.position, self.end())
    }
}

/// The whole blocks of `position..end`: position and length.
pub(crate) const fn hole(position: u64, end: u64) -> (u64, u64) {
    let block = BLOCK_BYTES as u64;
    let (start, end) = (position.next_multiple_of(block), end / block * block);
    (start, end.saturating_sub(start))
}

impl FreedRuns {
    /// These runs, which are in order and do not overlap.
    pub fn new(mut runs: Vec<FreedBytes>) -> Self {
        runs.sort_by_key(|freed| freed.position);
        Self(runs.into())
    }

    /// The runs in order.
    pub fn iter(&self) -> impl Iterator<Item = &FreedBytes> {
        self.0.iter()
    }

    /// The run that contains `index`, or the first one above it.
    pub fn at_or_above(&self, index: LogIndex) -> Option<&FreedBytes> {
        self.0.get(self.0.partition_point(|freed| freed.run.last_index < index))
    }

    /// The first run that has an entry of `first..=last`.
    pub fn overlapping(&self, first: LogIndex, last: LogIndex) -> Option<&FreedRun> {
        self.at_or_above(first).map(|freed| &freed.run).filter(|run| run.first_index <= last)
    }

    /// Bytes of the holes.
    pub fn hole_bytes(&self) -> u64 {
        self.0.iter().map(|freed| freed.hole().1).sum()
    }

    /// What is left of the entries of a flush.
    pub fn pieces(&self, flush: &FlushSpan) -> Vec<Piece> {
        let end = flush.position + u64::from(flush.bytes);
        let (mut position, mut first) = (flush.position, flush.first_index);
        let mut pieces = Vec::with_capacity(1);
        let mut next = self.0.partition_point(|freed| freed.run.last_index < first);
        while let Some(freed) = self.0.get(next).filter(|freed| freed.run.first_index <= flush.last_index) {
            if freed.run.first_index > first {
                let bytes = freed.position.saturating_sub(position) as u32;
                pieces.push((position, bytes, first, LogIndex(freed.run.first_index.0 - 1)));
            }
            (position, first) = (freed.end(), freed.run.last_index.next());
            next += 1;
        }
        if first <= flush.last_index {
            pieces.push((position, end.saturating_sub(position) as u32, first, flush.last_index));
        }
        pieces
    }

    /// Bytes of entries that are left.
    pub fn left_bytes<'a>(&self, flushes: impl Iterator<Item = &'a FlushSpan>) -> u64 {
        flushes.flat_map(|flush| self.pieces(flush)).map(|piece| u64::from(piece.1)).sum()
    }

    /// Whether all of it can be in the segment of `trailer`.
    fn fits(&self, trailer: &Trailer) -> bool {
        let inside = |freed: &FreedBytes| {
            freed.run.first_index > trailer.start.index
                && freed.run.last_index <= trailer.end.index
                && freed.end() <= trailer.footer_position
        };
        self.0.iter().all(inside)
    }
}

/// Encodes a sidecar, padded to whole blocks.
pub(crate) fn encode(generation: Generation, runs: &FreedRuns) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&FREED_MAGIC.to_le_bytes());
    bytes[8..16].copy_from_slice(&generation.0.to_le_bytes());
    bytes[16..18].copy_from_slice(&FREED_VERSION.to_le_bytes());
    bytes[20..24].copy_from_slice(&(runs.0.len() as u32).to_le_bytes());
    for freed in runs.iter() {
        let FreedRun { first_index, last_index, hash_before, hash_after } = freed.run;
        for field in [first_index.0, last_index.0, freed.position, freed.bytes, hash_before.0, hash_after.0] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    let crc = checksum::crc32c(&bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Decodes a sidecar of this generation; `None` when it is none, or not whole.
pub(crate) fn decode(bytes: &[u8], generation: Generation) -> Option<FreedRuns> {
    if bytes.len() < BLOCK_BYTES || !bytes.len().is_multiple_of(BLOCK_BYTES) {
        return None;
    }
    let fields = Fields(bytes);
    let count = fields.u32(20) as usize;
    let used = HEADER_BYTES + count.checked_mul(ROW_BYTES)?;
    let is_sidecar = fields.u32(0) == FREED_MAGIC
        && fields.u64(8) == generation.0
        && fields.u16(16) == FREED_VERSION
        && used.next_multiple_of(BLOCK_BYTES) == bytes.len();
    let mut zeroed = bytes.to_vec();
    zeroed[4..8].fill(0);
    if !is_sidecar || fields.u32(4) != checksum::crc32c(&zeroed) {
        return None;
    }
    let zeros = fields.u16(18) == 0 && fields.u64(24) == 0 && bytes[used..].iter().all(|byte| *byte == 0);
    let runs: Vec<FreedBytes> = bytes[HEADER_BYTES..used].chunks_exact(ROW_BYTES).map(decode_row).collect();
    let is_run = |freed: &FreedBytes| {
        freed.run.first_index.0 > 0
            && freed.run.first_index <= freed.run.last_index
            && freed.position.checked_add(freed.bytes).is_some()
    };
    let is_ordered =
        |pair: &[FreedBytes]| pair[0].run.last_index < pair[1].run.first_index && pair[0].end() <= pair[1].position;
    let is_sane = runs.iter().all(is_run) && runs.windows(2).all(is_ordered);
    (zeros && is_sane).then(|| FreedRuns(runs.into()))
}

fn decode_row(row: &[u8]) -> FreedBytes {
    let fields = Fields(row);
    let run = FreedRun {
        first_index: LogIndex(fields.u64(0)),
        last_index: LogIndex(fields.u64(8)),
        hash_before: RunningHash(fields.u64(32)),
        hash_after: RunningHash(fields.u64(40)),
    };
    FreedBytes { run, position: fields.u64(16), bytes: fields.u64(24) }
}

/// The sidecar of a segment file.
pub(crate) fn sidecar_path(segment: &Path) -> PathBuf {
    let mut name = segment.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// The segment behind a sidecar's file name, if it is one.
pub(crate) fn parse_sidecar(file_name: &str) -> Option<SegmentName> {
    SegmentName::parse(file_name.strip_suffix(SUFFIX)?)
}

/// Replaces the sidecar of a segment; done means durable, and only then may blocks be punched.
pub(crate) async fn write<D: Disk>(
    disk: &D,
    segment: &Path,
    generation: Generation,
    runs: &FreedRuns,
) -> Result<(), DiskError> {
    let path = sidecar_path(segment);
    let mut temporary = path.clone().into_os_string();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let bytes = encode(generation, runs);
    let mut buffer = disk.allocate(bytes.len());
    buffer.as_mut().copy_from_slice(&bytes);
    let file = match disk.create(&temporary, bytes.len() as u64).await {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // An earlier attempt failed half-way.
            disk.remove(&temporary).await.on("remove", &temporary)?;
            disk.create(&temporary, bytes.len() as u64).await
        }
        created => created,
    };
    let file = file.on("create", &temporary)?;
    let written = file.write_durable(Rc::new(buffer), 0).await.on("write", &temporary);
    file.close().await.on("close", &temporary)?;
    written?;
    disk.rename(&temporary, &path).await.on("rename", &temporary)?;
    let dir = path.parent().unwrap_or(&path);
    disk.sync_dir(dir).await.on("sync directory", dir)
}

/// Removes the sidecar of a segment that is durably gone; there is none when writing it failed.
pub(crate) async fn remove<D: Disk>(disk: &D, segment: &Path) -> Result<(), DiskError> {
    let path = sidecar_path(segment);
    match disk.remove(&path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.on("remove", &path),
    }
}

/// The runs that a segment's sidecar lists; `None` when it does not verify.
pub(crate) async fn read<D: Disk>(disk: &D, segment: &Path, trailer: &Trailer) -> Result<Option<FreedRuns>, DiskError> {
    let path = sidecar_path(segment);
    let file = disk.open(&path).await.on("open", &path)?;
    let size = file.size().await.on("ask for the size of", &path)?;
    let is_possible = size <= SIDECAR_BYTES_MAX && size > 0 && size.is_multiple_of(BLOCK_BYTES as u64);
    let read = if is_possible { Some(file.read_at(0, size as usize).await.on("read", &path)) } else { None };
    file.close().await.on("close", &path)?;
    let bytes = match read {
        Some(Ok(bytes)) => bytes,
        // What cannot be read is damaged, as in a segment.
        Some(Err(error)) if !is_passing(&error.source) => {
            tracing::error!(%error, "rot");
            return Ok(None);
        }
        Some(Err(error)) => return Err(error),
        None => return Ok(None),
    };
    Ok(decode((*bytes).as_ref(), trailer.generation).filter(|runs| runs.fits(trailer)))
}

/// Removes the sidecars of segments that are gone: a segment goes before its sidecar, and a crash may come between.
pub(crate) async fn remove_orphans<D: Disk>(
    disk: &D,
    dir: &Path,
    segments: &[SegmentName],
    sidecars: &[SegmentName],
) -> Result<(), DiskError> {
    for name in sidecars.iter().filter(|name| !segments.contains(name)) {
        let path = sidecar_path(&dir.join(name.file_name()));
        disk.remove(&path).await.on("remove", &path)?;
    }
    Ok(())
}

/// The largest sidecar.
const SIDECAR_BYTES_MAX: u64 = ((HEADER_BYTES + FREED_RUNS_MAX * ROW_BYTES).next_multiple_of(BLOCK_BYTES)) as u64;

#[cfg(test)]
mod tests;
