//! A segment: its file, which may still be in preparation, and what the log knows about its contents.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::entry::EntryHeader;
use minikafka_core::{Epoch, FlushNumber, Generation, LogPoint, Offset, PartitionKey, Timestamp};

use crate::disk::{Disk, DiskFile, SharedBytes};
use crate::error::{DiskError, DiskResult};
use crate::footer::Trailer;
use crate::index::SegmentIndex;
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
}

impl<D: Disk> SegmentFile<D> {
    /// A file that someone is preparing and will announce.
    pub fn preparing(dir: &Path, name: SegmentName, bytes: u64) -> Self {
        Self::new(dir, name, bytes, FileState::Preparing)
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
        }
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

    /// Says that the preparation found no space and will try again.
    pub fn set_waits_for_space(&self) {
        self.waits_for_space.set(true);
    }

    /// Whether the preparation found no space the last time it tried.
    pub fn waits_for_space(&self) -> bool {
        self.waits_for_space.get()
    }

    /// The open file; waits for its preparation, opens it when it is closed.
    pub async fn file(&self, disk: &D) -> Result<D::File, DiskError> {
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

    /// Reads whole blocks.
    pub async fn read(&self, disk: &D, position: u64, bytes: usize) -> Result<SharedBytes, DiskError> {
        self.file(disk).await?.read_at(position, bytes).await.on("read", &self.path)
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

pub(crate) struct SealedSegment {
    pub trailer: Trailer,
    /// Partitions with their first offset, sorted: tells which footers are worth loading.
    pub partitions: Vec<(PartitionKey, Offset)>,
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

    pub fn number(&self) -> u64 {
        self.file.name.number
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
