//! A segment: its file, which may still be in preparation, and what the log knows about its contents.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::entry::EntryHeader;
use minikafka_core::{Epoch, FlushNumber, Generation, LogIndex, LogPoint, Timestamp};

use crate::disk::{BLOCK_BYTES, Disk, DiskFile, SharedBytes};
use crate::error::{Damage, DamageKind, DiskError, DiskResult};
use crate::footer::{self, Trailer};
use crate::freed_runs::{self, FreedRuns};
use crate::index::{FlushSpan, SegmentIndex};
use crate::partition_filter::PartitionFilter;
use crate::wait::Notify;

/// Number and generation of a segment: its file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    /// Grows within a range log.
    pub number: u64,
    /// Random.
    pub generation: Generation,
}

impl SegmentName {
    /// `<number>-<generation>.segment`, both as 16 hexadecimal digits.
    pub fn file_name(&self) -> String {
        format!("{:016x}-{:016x}.segment", self.number, self.generation.0)
    }

    /// The name behind a file name, if it is one.
    pub fn parse(file_name: &str) -> Option<Self> {
        let (number, generation) = file_name.strip_suffix(".segment")?.split_once('-')?;
        let hexadecimal = |digits: &str| {
            let is_right = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            if is_right { u64::from_str_radix(digits, 16).ok() } else { None }
        };
        Some(Self { number: hexadecimal(number)?, generation: Generation(hexadecimal(generation)?) })
    }
}

/// Takes from sorted names those in whose place there is a mended file: of two with one number, the higher generation counts
/// (`docs/DATA_FILE.md`, section 12).
pub(crate) fn take_replaced(names: &mut Vec<SegmentName>) -> Vec<SegmentName> {
    let is_replaced = |pair: &[SegmentName]| pair[0].number == pair[1].number;
    let replaced: Vec<SegmentName> = names.windows(2).filter(|pair| is_replaced(pair)).map(|pair| pair[0]).collect();
    names.retain(|name| !replaced.contains(name));
    replaced
}

enum FileState<D: Disk> {
    /// Being taken from the pool or allocated.
    Preparing,
    /// There, not open.
    Closed,
    Open(D::File),
    Failed(DiskError),
}

/// A segment's file. Readers hold it while they read, so that it is not given away under them.
pub(crate) struct SegmentFile<D: Disk> {
    pub name: SegmentName,
    pub path: PathBuf,
    /// Its size class, or its size when found.
    pub bytes: u64,
    state: RefCell<FileState<D>>,
    changed: Notify,
    waits_for_space: Cell<bool>,
    wanted: Cell<bool>,
    is_punched: Cell<bool>,
    has_unreadable: Cell<bool>,
}

impl<D: Disk> SegmentFile<D> {
    /// A file that someone is preparing and will announce.
    pub fn preparing(dir: &Path, name: SegmentName, bytes: u64) -> Self {
        Self::new(dir, name, bytes, FileState::Preparing)
    }

    /// A file that is there and cannot be opened: a block of it counts as one that cannot be read.
    pub fn unreadable(dir: &Path, name: SegmentName, error: DiskError) -> Self {
        Self::new(dir, name, BLOCK_BYTES as u64, FileState::Failed(error))
    }

    /// A file that is there and open.
    pub fn open(dir: &Path, name: SegmentName, bytes: u64, file: D::File) -> Self {
        Self::new(dir, name, bytes, FileState::Open(file))
    }

    fn new(dir: &Path, name: SegmentName, bytes: u64, state: FileState<D>) -> Self {
        Self {
            name,
            path: dir.join(name.file_name()),
            bytes,
            state: RefCell::new(state),
            changed: Notify::default(),
            waits_for_space: Cell::new(false),
            wanted: Cell::new(false),
            is_punched: Cell::new(false),
            has_unreadable: Cell::new(false),
        }
    }

    /// Whether the file cannot be used at all.
    pub fn is_failed(&self) -> bool {
        matches!(&*self.state.borrow(), FileState::Failed(_))
    }

    /// Announces the end of the preparation.
    pub fn prepared(&self, result: Result<D::File, DiskError>) {
        *self.state.borrow_mut() = match result {
            Ok(file) => FileState::Open(file),
            Err(error) => FileState::Failed(error),
        };
        self.waits_for_space.set(false);
        self.changed.notify_all();
    }

    /// Says that the preparation, or a write that makes the file grow, found no space and will try again; or that it did.
    pub fn set_waits_for_space(&self, waits: bool) {
        self.waits_for_space.set(waits);
        self.changed.notify_all();
    }

    /// Whether the preparation or a write found no space the last time it tried.
    pub fn waits_for_space(&self) -> bool {
        self.waits_for_space.get()
    }

    /// Whether somebody waits for the file, or has it.
    pub fn is_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// Says that there is a sidecar, hence that there may be holes.
    pub fn set_punched(&self) {
        self.is_punched.set(true);
    }

    /// Whether there may be holes.
    pub fn is_punched(&self) -> bool {
        self.is_punched.get()
    }

    /// Whether the file is used again when its segment is gone. One with holes is not, nor one with a block that cannot be
    /// read: behind the end of another log, such a block could be one that was acknowledged.
    pub fn is_reusable(&self) -> bool {
        !self.is_punched.get() && !self.has_unreadable.get()
    }

    /// Whether [`SegmentFile::file`] waits for nothing.
    pub fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), FileState::Open(_))
    }

    /// The open file; waits for its preparation, opens it when it is closed.
    pub async fn file(&self, disk: &D) -> Result<D::File, DiskError> {
        self.wanted.set(true);
        let ready = self.changed.wait_for(|| match &*self.state.borrow() {
            FileState::Preparing => None,
            FileState::Closed => Some(Ok(None)),
            FileState::Open(file) => Some(Ok(Some(file.clone()))),
            FileState::Failed(error) => Some(Err(error.clone())),
        });
        if let Some(file) = ready.await? {
            return Ok(file);
        }
        let opened = disk.open(&self.path).await.on("open", &self.path)?;
        let mut state = self.state.borrow_mut();
        if let FileState::Open(file) = &*state {
            // Someone else was faster; ours closes itself.
            return Ok(file.clone());
        }
        *state = FileState::Open(opened.clone());
        Ok(opened)
    }

    /// Reads whole blocks: those that cannot be read come as zeros, which no checksum matches,
    /// and are told to `unreadable`, by position.
    pub async fn read_damaged(
        &self,
        disk: &D,
        position: u64,
        bytes: usize,
        unreadable: &mut Vec<u64>,
    ) -> Result<SharedBytes, DiskError> {
        let file = match &*self.state.borrow() {
            FileState::Failed(_) => None,
            _ => Some(self.file(disk)),
        };
        let Some(file) = file else {
            unreadable.extend((position..position + bytes as u64).step_by(BLOCK_BYTES));
            return Ok(Rc::new(vec![0; bytes]));
        };
        let file = file.await?;
        match file.read_at(position, bytes).await {
            Ok(read) => return Ok(read),
            Err(error) if is_passing(&error) => return Err(DiskError::new("read", &self.path, error)),
            Err(_) => {}
        }
        let mut all = vec![0; bytes];
        for (at, block) in all.chunks_mut(BLOCK_BYTES).enumerate() {
            let position = position + (at * BLOCK_BYTES) as u64;
            match file.read_at(position, block.len()).await {
                Ok(read) => block.copy_from_slice((*read).as_ref()),
                Err(error) if is_passing(&error) => return Err(DiskError::new("read", &self.path, error)),
                Err(error) => {
                    tracing::error!(path = %self.path.display(), position, %error, "a block cannot be read");
                    self.has_unreadable.set(true);
                    unreadable.push(position);
                }
            }
        }
        Ok(Rc::new(all))
    }

    /// Writes durably what may lie beyond the file's end. No space there: nothing was written, and it may be tried again.
    /// (Space is asked for first, so that a write that fails is a failed write.)
    pub async fn write_durable(&self, disk: &D, buffer: Rc<D::Buffer>, position: u64) -> Result<(), DiskError> {
        let file = self.file(disk).await?;
        let end = position + (*buffer).as_ref().len() as u64;
        if end > file.size().await.on("ask for the size of", &self.path)? {
            file.grow(end).await.on("grow", &self.path)?;
        }
        file.write_durable(buffer, position).await.on("write", &self.path)
    }

    /// Bytes of the file as it is now.
    pub async fn size(&self, disk: &D) -> Result<u64, DiskError> {
        self.file(disk).await?.size().await.on("ask for the size of", &self.path)
    }

    /// Closes the file; reading opens it again.
    pub async fn close(&self) -> Result<(), DiskError> {
        let file = match &mut *self.state.borrow_mut() {
            state @ FileState::Open(_) => std::mem::replace(state, FileState::Closed),
            _ => return Ok(()),
        };
        match file {
            FileState::Open(file) => file.close().await.on("close", &self.path),
            _ => Ok(()),
        }
    }
}

/// Whether an error says something about this moment and nothing about the medium.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
}

/// What the log knows about a segment.
pub(crate) struct LogSegment<D: Disk> {
    pub file: Rc<SegmentFile<D>>,
    /// End of the log before this segment.
    pub start: LogPoint,
    /// End of the log with this segment.
    pub end: LogPoint,
    pub contents: Contents,
}

pub(crate) enum Contents {
    /// With a footer: never written again.
    Sealed(Box<SealedSegment>),
    /// Being written, or rolled and waiting for its footer.
    Unsealed(Box<UnsealedSegment>),
}

/// What stays in memory of a sealed segment: at most 4 KiB for the filter, 48 KiB for freed runs (none, mostly), and less
/// than 400 bytes besides. Its index is loaded from the footer when it is needed, and kept in a cache of bounded size.
pub(crate) struct SealedSegment {
    pub trailer: Trailer,
    /// Tells which footers are worth loading.
    pub filter: PartitionFilter,
    /// Of entries that are not freed.
    pub entry_bytes: u64,
    pub freed: FreedRuns,
    /// Whether the holes are surely punched; a crash may have come between.
    pub holes_done: bool,
    /// Nothing in it is live.
    pub is_dead: bool,
    /// More of it may be dead than was looked at.
    pub is_dirty: bool,
    /// What the last look found, when something was dead.
    pub dying: Option<Dying>,
}

/// A sealed segment of which something is dead, as it was when it was looked at.
pub(crate) struct Dying {
    /// Dead bytes then.
    pub dead_bytes: u64,
    /// End of the log then.
    pub end: LogIndex,
    /// Time of the log's last entry at the first look.
    pub since: Timestamp,
}

impl SealedSegment {
    /// What a footer says, its body matching its trailer.
    pub fn new(trailer: Trailer, body: &[u8]) -> Self {
        Self {
            filter: PartitionFilter::new(trailer.partition_count as usize, footer::decode_keys(&trailer, body)),
            entry_bytes: footer::decode_flushes(&trailer, body).map(|flush| u64::from(flush.bytes)).sum(),
            trailer,
            freed: FreedRuns::default(),
            holes_done: true,
            is_dead: false,
            is_dirty: true,
            dying: None,
        }
    }

    /// Adds the runs of a sidecar, whose holes may not be there yet; `None`: one that does not verify.
    pub fn with_sidecar(mut self, body: &[u8], runs: Option<FreedRuns>) -> Self {
        self.holes_done = false;
        if let Some(runs) = runs {
            self.set_freed(runs, footer::decode_flushes(&self.trailer, body).collect::<Vec<_>>().iter());
        }
        self
    }

    /// Takes a new list of runs into account; `flushes` are all of the segment's.
    pub fn set_freed<'a>(&mut self, runs: FreedRuns, flushes: impl Iterator<Item = &'a FlushSpan>) {
        self.entry_bytes = runs.left_bytes(flushes);
        self.freed = runs;
    }
}

#[derive(Default)]
pub(crate) struct UnsealedSegment {
    pub index: SegmentIndex,
    /// Where the next flush goes.
    pub write_position: u64,
    /// The range's state as of the end, once rolled.
    pub snapshot: Option<Vec<u8>>,
    pub rolled: bool,
    pub last_flush_number: FlushNumber,
    /// Bytes that the file had when its flushes were written, at least.
    pub file_bytes_min: u64,
    pub marker: Epoch,
    pub last_epoch: Epoch,
    pub first_timestamp: Timestamp,
    pub last_timestamp: Timestamp,
}

impl UnsealedSegment {
    /// Sets what stands for the segment's last entry while it has none: the log's last one.
    pub fn set_last_before(&mut self, epoch: Epoch, timestamp: Timestamp) {
        (self.last_epoch, self.first_timestamp, self.last_timestamp) = (epoch, timestamp, timestamp);
    }

    /// Takes an entry into account that will be at `position`.
    pub fn add(&mut self, header: &EntryHeader, previous: LogPoint, flush_position: u64, position: u64) {
        if self.index.is_empty() {
            self.first_timestamp = header.append_timestamp;
        }
        self.index.add(header, previous.hash, flush_position, position);
        self.last_epoch = header.epoch;
        self.last_timestamp = header.append_timestamp;
    }
}

impl<D: Disk> LogSegment<D> {
    /// A segment without anything in it, behind `start`.
    pub fn empty(file: Rc<SegmentFile<D>>, start: LogPoint) -> Self {
        Self { file, start, end: start, contents: Contents::Unsealed(Box::default()) }
    }

    pub fn unsealed(&self) -> Option<&UnsealedSegment> {
        match &self.contents {
            Contents::Unsealed(unsealed) => Some(unsealed),
            Contents::Sealed(_) => None,
        }
    }

    pub fn unsealed_mut(&mut self) -> Option<&mut UnsealedSegment> {
        match &mut self.contents {
            Contents::Unsealed(unsealed) => Some(unsealed),
            Contents::Sealed(_) => None,
        }
    }

    pub fn sealed(&self) -> Option<&SealedSegment> {
        match &self.contents {
            Contents::Sealed(sealed) => Some(sealed),
            Contents::Unsealed(_) => None,
        }
    }

    pub fn sealed_mut(&mut self) -> Option<&mut SealedSegment> {
        match &mut self.contents {
            Contents::Sealed(sealed) => Some(sealed),
            Contents::Unsealed(_) => None,
        }
    }

    /// Bytes of the file, which grows when flushes or footer need more than its class has.
    pub fn file_bytes(&self) -> u64 {
        let used = match &self.contents {
            Contents::Sealed(sealed) => {
                sealed.trailer.footer_position + sealed.trailer.padded_body_bytes() + BLOCK_BYTES as u64
            }
            Contents::Unsealed(unsealed) => unsealed.write_position,
        };
        self.file.bytes.max(used)
    }

    /// What to report of a segment whose list of freed runs does not verify.
    pub fn sidecar_damage(&self) -> Option<Damage> {
        let is_lost =
            self.file.is_punched() && self.sealed().is_some_and(|sealed| sealed.freed.iter().next().is_none());
        is_lost.then(|| Damage {
            path: freed_runs::sidecar_path(&self.file.path),
            position: 0,
            first_index: self.start.index.next(),
            last_index: self.start.index,
            kind: DamageKind::FreedRuns,
        })
    }

    pub fn number(&self) -> u64 {
        self.file.name.number
    }

    /// The highest number of a flush in it, or before it.
    pub fn last_flush_number(&self) -> u64 {
        match &self.contents {
            Contents::Sealed(sealed) => sealed.trailer.last_flush_number.0,
            Contents::Unsealed(unsealed) => unsealed.last_flush_number.0,
        }
    }

    /// The highest marker in it.
    pub fn marker(&self) -> Epoch {
        match &self.contents {
            Contents::Sealed(sealed) => sealed.trailer.marker,
            Contents::Unsealed(unsealed) => unsealed.marker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip_and_others_are_refused() {
        let name = SegmentName { number: 0x1f, generation: Generation(u64::MAX) };
        assert_eq!(name.file_name(), "000000000000001f-ffffffffffffffff.segment");
        assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        for other in [
            "1-2.segment",
            "000000000000001F-ffffffffffffffff.segment",
            "x.tmp",
            "+00000000000001f-ffffffffffffffff.segment",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
