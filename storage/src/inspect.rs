//! Reading a data directory without a broker: what operators' tools (`minikafka log verify`, `minikafka log dump`) stand on.
//!
//! Nothing here writes, locks or needs an executor: files are read through `std::fs`, in pieces of bounded size, whatever
//! their size is. What the log *is* after a restart is not decided here a second time: [`verify_range`] runs the recovery
//! itself over a disk that only reads, and adds what recovery leaves to readers (the entries of sealed segments, compared
//! with their index, byte by byte) and what it has no need to tell (headers and trailers that rotted without harm).
//!
//! A finding names file, byte, entries, and what to do. A torn end is none: nothing of it was ever acknowledged.

use std::fmt;
use std::path::PathBuf;

use minikafka_core::limits::INSPECT_FINDINGS_MAX;
use minikafka_core::{LogIndex, LogPoint};

use crate::error::DamageKind;

mod data_dir;
mod image;
mod owner;
mod promises;
mod range;
mod read_only_disk;
mod sealed;
mod segment;
mod tally;

pub use data_dir::{DataDir, Place, PoolFiles, RangeDir};
pub use image::Image;
pub use promises::{PromiseTable, parse as parse_promises, read_promises};
pub use range::{RangeVerdict, TornEnd, verify_range, verify_segment, visit_left};
pub use read_only_disk::ReadOnlyDisk;
pub use segment::{EntryImage, FlushImage, Footer, FooterImage, PartitionRow, Piece, Pieces, SegmentImage};
pub use tally::{PartitionTally, Tally};

/// What does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Entries, as recovery and readers name it.
    Entries(DamageKind),
    /// A flush header, though its entries are found without it, or it had none.
    FlushHeader,
    /// The trailer of the footer.
    Trailer,
    /// Tables and snapshot of a footer whose trailer is good.
    FooterBody,
    /// A footer whose tables do not say what the entries are; its checksums are right.
    Index(&'static str),
    /// The list of what was freed of a segment, or an entry of it.
    FreedRuns(&'static str),
    /// A footer's snapshot, whose checksum is right, does not decode or ends elsewhere.
    Snapshot,
    /// One slot of a promise file; the other one holds the promises.
    PromiseSlot,
    /// A promise file without a slot that verifies.
    Promises(String),
    /// The identity of the data directory.
    Store(String),
    /// The promises know of a log that is not there.
    LostLog,
    /// The file cannot be read, or recovery refuses it.
    File(String),
}

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file (for a lost log: its directory).
    pub path: PathBuf,
    /// Where in it.
    pub position: u64,
    /// First and last entry that cannot be had from here any more, if any.
    pub entries: Option<(LogIndex, LogIndex)>,
    /// What is wrong.
    pub fault: Fault,
}

impl Fault {
    /// A word for machines.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Entries(DamageKind::Body) => "body",
            Self::Entries(DamageKind::Padding) => "padding",
            Self::Entries(DamageKind::Snapshot) => "lost_snapshot",
            Self::Entries(DamageKind::Footer) => "lost_footer",
            Self::Entries(DamageKind::Hash) => "hash",
            Self::Entries(DamageKind::Control) => "control_body",
            Self::Entries(DamageKind::Missing) => "missing",
            Self::Entries(DamageKind::Unreadable) => "unreadable",
            Self::FlushHeader => "flush_header",
            Self::Trailer => "trailer",
            Self::FooterBody => "footer_body",
            Self::Index(_) => "index",
            Self::FreedRuns(_) | Self::Entries(DamageKind::FreedRuns) => "freed_runs",
            Self::Snapshot => "snapshot",
            Self::PromiseSlot => "promise_slot",
            Self::Promises(_) => "promises",
            Self::Store(_) => "store",
            Self::LostLog => "lost_log",
            Self::File(_) => "file",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(kind) => kind.fmt(f),
            Self::FlushHeader => f.write_str("a flush header does not verify"),
            Self::Trailer => f.write_str("the segment's trailer does not verify"),
            Self::FooterBody => f.write_str("the segment's footer does not match its trailer"),
            Self::Index(what) => write!(f, "the segment's index contradicts its entries: {what}"),
            Self::FreedRuns(what) => write!(f, "the segment's list of freed runs: {what}"),
            Self::Snapshot => f.write_str("the snapshot in the footer is not the state at the segment's end"),
            Self::PromiseSlot => f.write_str("a slot of the promise file does not verify"),
            Self::Promises(reason) | Self::Store(reason) | Self::File(reason) => f.write_str(reason),
            Self::LostLog => f.write_str("the promise file knows of a log that is not here"),
        }
    }
}

impl Finding {
    /// Whether something is lost on this disk. Otherwise the broker does without, or writes it again.
    pub const fn is_loss(&self) -> bool {
        match self.fault {
            Fault::Entries(_) => self.entries.is_some(),
            Fault::FlushHeader | Fault::Trailer | Fault::PromiseSlot => false,
            _ => true,
        }
    }

    /// What it means and what to do.
    pub const fn advice(&self) -> &'static str {
        match self.fault {
            Fault::Entries(_) if self.entries.is_some() => {
                "rot: this had been durable. Never cut it away: take the disk out of use and restore this range from \
                 another member of its chain"
            }
            Fault::Entries(_) => "rot, and no entry is lost. The disk is not to be trusted: replace it",
            Fault::FlushHeader => {
                "no entry that is known to have been durable is lost by it alone. Unless the machine just lost power, \
                 the disk is not to be trusted: replace it"
            }
            Fault::Trailer => {
                "nothing is lost: a crash while the segment was sealed leaves this, and so does rot. The broker scans \
                 the segment when it starts and seals it anew when it is the newest one"
            }
            Fault::FooterBody => {
                "rot, or a crash while the segment was sealed. Its entries are found by scanning; where the log's start \
                 was dropped, the state before them is lost: restore this range from another member of its chain"
            }
            Fault::FreedRuns(_) => {
                "rot: without the list, freed space looks like lost entries. Records that are still to be read may be \
                 unreachable: restore this range from another member of its chain"
            }
            Fault::Index(_) | Fault::Snapshot => {
                "not rot, since the checksums are right: keep a copy of the file and report it as a defect of MiniKafka"
            }
            Fault::PromiseSlot => {
                "the other slot holds the promises. A power loss while promises were written leaves this, and so does rot"
            }
            Fault::Promises(_) => {
                "its promises are lost, so this node must not vote: wipe its directory and let it join as new"
            }
            Fault::Store(_) => {
                "restore the file `store` from a copy, or wipe the directory and let the node join as new"
            }
            Fault::LostLog => "restore this range from another member of its chain; without one, its records are lost",
            Fault::File(_) => "see whether the file system and the disk are sound",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: byte {}", self.path.display(), self.position)?;
        match self.entries {
            Some((first, last)) if first == last => write!(f, ", entry {first}")?,
            Some((first, last)) => write!(f, ", entries {first} to {last}")?,
            None => {}
        }
        write!(f, ": {}; {}", self.fault, self.advice())
    }
}

/// Findings up to a bound; the others are counted.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The first ones.
    pub list: Vec<Finding>,
    /// How many more there were.
    pub left_out: u64,
}

impl Findings {
    /// Adds one, unless the same place was named before.
    pub(crate) fn push(&mut self, finding: Finding) {
        if self.list.iter().any(|other| (&other.path, other.position) == (&finding.path, finding.position)) {
            return;
        }
        if self.list.len() < INSPECT_FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.left_out += 1;
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.list.len() as u64 + self.left_out
    }
}

/// Whether a snapshot is the state at a point.
pub type SnapshotCheck = fn(&[u8], LogPoint) -> bool;

/// The check of what brokers write: a snapshot of `core`'s range state.
pub fn is_range_state(snapshot: &[u8], end: LogPoint) -> bool {
    minikafka_core::range_state::RangeState::restore(snapshot).is_ok_and(|state| state.end() == end)
}
