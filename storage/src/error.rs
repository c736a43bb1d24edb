//! What can go wrong, one type per kind of caller. Each says what happened, to what, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minikafka_core::LogIndex;
use thiserror::Error;

use crate::freed_runs::FreedRun;

/// A disk operation failed.
#[derive(Clone, Debug, Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct DiskError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: Arc<io::Error>,
}

impl DiskError {
    /// An error of `operation` on `path`.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Whether a file could not grow for lack of space: nothing was written, so it may be tried again.
    pub fn is_ungrown(&self) -> bool {
        self.operation == "grow" && self.is_no_space()
    }

    /// Whether it is the file that cannot be used, and not the process that lacks something (descriptors, memory, rights).
    pub fn is_of_file(&self) -> bool {
        let lacks = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES, libc::EPERM, libc::EINTR, libc::EAGAIN];
        !self.source.raw_os_error().is_some_and(|code| lacks.contains(&code))
            && !matches!(
                self.source.kind(),
                io::ErrorKind::OutOfMemory | io::ErrorKind::PermissionDenied | io::ErrorKind::Interrupted
            )
    }

    /// Whether freeing space would help.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Adds operation and path to an I/O result.
pub(crate) trait DiskResult<T> {
    fn on(self, operation: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> DiskResult<T> for io::Result<T> {
    fn on(self, operation: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError::new(operation, path, source))
    }
}

/// What is wrong with bytes that had been durable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DamageKind {
    /// A flush header or an entry header does not verify, or is not there.
    #[error("entries are unreadable")]
    Unreadable,
    /// A batch's body does not match its checksum; its header is good.
    #[error("the body does not match its checksum")]
    Body,
    /// A control entry's body does not match its checksum: what it changed is not known.
    #[error("the body of a control entry does not match its checksum")]
    Control,
    /// Padding that must be zero is not; the entries around it are good.
    #[error("padding is not zero; no entry is affected")]
    Padding,
    /// The log begins above its first index and the snapshot from which it should begin cannot be read.
    #[error("the snapshot before these entries is lost")]
    Snapshot,
    /// A segment's footer was there and does not verify any more.
    #[error("the segment's footer does not verify")]
    Footer,
    /// A segment's list of freed runs does not verify: what was freed looks unreadable.
    #[error("the list of its freed entries does not verify")]
    FreedRuns,
    /// Entries, each good, that do not follow from one another, or that do not belong here.
    #[error("entries do not follow from one another")]
    Hash,
    /// A reader found an entry where an earlier one should be: something between is not there.
    #[error("entries are missing before this place")]
    Missing,
}

impl DamageKind {
    /// Whether the range's state misses something when such entries are folded: offsets and producers stand in headers,
    /// which are good where only a batch's body, padding or a footer is not.
    pub const fn loses_state(&self) -> bool {
        matches!(self, Self::Unreadable | Self::Control | Self::Snapshot | Self::Hash | Self::Missing)
    }
}

/// Rot: something that had been durable cannot be read. Reported, never cut away; a neighbour has the entries.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{} is damaged at byte {position} (entries {first_index} to {last_index}): {kind}; repair this range from another \
     member of its chain, or restore the file from a backup and restart",
    path.display()
)]
pub struct Damage {
    /// The segment file.
    pub path: PathBuf,
    /// Where in it.
    pub position: u64,
    /// First entry concerned.
    pub first_index: LogIndex,
    /// Last entry concerned; below `first_index` when none is.
    pub last_index: LogIndex,
    /// What is wrong.
    pub kind: DamageKind,
}

/// The log cannot go on, or cannot be opened.
#[derive(Clone, Debug, Error)]
pub enum LogError {
    /// A disk operation failed. After a failed durable write the log is poisoned: nothing more becomes durable.
    #[error("{0}; the range log stops here and must be recovered by a restart, or from another member of its chain")]
    Disk(#[from] DiskError),
    /// Rot took entries of which not even the header is known; the log serves what is good and takes nothing new.
    #[error("{0}; until then the range serves what is good and takes no writes")]
    Damaged(Damage),
    /// A truncation to where this log cannot go.
    #[error("cannot truncate to entry {to} (hash {hash:#018x}): {reason}")]
    Truncate {
        /// The requested end.
        to: LogIndex,
        /// Its hash as requested.
        hash: u64,
        /// What speaks against it.
        reason: &'static str,
    },
    /// A file that is not what its place says.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// An entry was not taken. Nothing of it is in the log.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// No space for another segment; retriable. The log goes on by itself once there is.
    #[error(
        "the disk has no space for another segment of this range; free space or retain less, writes resume by themselves"
    )]
    NoSpace,
    /// More than `UNDURABLE_BYTES_MAX` wait to become durable; retriable, wait for `append_space`.
    #[error("{0} bytes of this range wait for the disk; wait for space before appending")]
    Backlog(u64),
    /// A durable write failed or rot was found: this log takes nothing more.
    #[error("{0}")]
    Failed(LogError),
}

/// A read failed. Other entries may still be readable.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// What is there does not verify.
    #[error("{0}")]
    Damaged(Damage),
    /// The entry is dead, and its space was given back.
    #[error("entry {} was freed: entries {} to {} are dead; go on behind them", run.first_index, run.first_index, run.last_index)]
    Freed {
        /// All entries that went with it.
        run: FreedRun,
    },
    /// Below the first entry this log still has.
    #[error("entry {index} is gone, this log begins at {first}; read it from another member or from {first}")]
    Dropped {
        /// The entry asked for.
        index: LogIndex,
        /// The first one here.
        first: LogIndex,
    },
}
