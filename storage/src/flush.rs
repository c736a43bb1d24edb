//! The flush: header codec, and walking the entries behind it (`docs/DATA_FILE.md`, section 3).

use minikafka_core::checksum;
use minikafka_core::entry::{self, ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use minikafka_core::limits::{BATCH_BODY_BYTES_MAX, FLUSH_BYTES_MAX, LOG_INDEX_MAX};
use minikafka_core::{Epoch, FlushNumber, Generation, LogIndex, LogPoint, RunningHash};

use crate::disk::BLOCK_BYTES;
use crate::error::DamageKind;

/// Bytes of a flush header.
pub const FLUSH_HEADER_BYTES: usize = 64;
/// First four bytes of every flush: "MKf1".
pub const FLUSH_MAGIC: u32 = u32::from_le_bytes(*b"MKf1");
/// Version written today.
pub const FLUSH_VERSION: u16 = 1;
/// Flag of a flush that only carries a marker.
const MARKER_ONLY: u16 = 1;
/// It and six bits of the size class.
const FLAGS_KNOWN: u16 = MARKER_ONLY | 0x3f00;
/// Where the body of a flush's first entry starts.
pub const FIRST_BODY_AT: usize = FLUSH_HEADER_BYTES + ENTRY_HEADER_BYTES;
/// Header and entries of a flush at most: one entry of the largest size. Whoever reads a flush takes memory for it.
pub const FLUSH_LENGTH_MAX: usize = FLUSH_HEADER_BYTES + entry::entry_bytes(BATCH_BODY_BYTES_MAX);

/// What stands in front of every flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushHeader {
    /// Of the segment file.
    pub generation: Generation,
    /// Place in the order of flushes.
    pub number: FlushNumber,
    /// Bytes of header and entries.
    pub length: u32,
    /// Index of the first entry, or of the next one when there is none.
    pub first_index: LogIndex,
    /// Highest index that was durable when this was filled in.
    pub durable_index: LogIndex,
    /// Running hash before `first_index`.
    pub previous_hash: RunningHash,
    /// Epoch into which the log was last reconciled.
    pub marker: Epoch,
    /// Carries a marker and says nothing about entries: what the log of damaged entries is marked with.
    pub marker_only: bool,
    /// Power of two, as an exponent, of bytes that the file has at least: a shorter file was cut off. 0: not told.
    pub size_class: u8,
}

impl FlushHeader {
    /// Encodes the header with its checksum.
    pub fn encode(&self) -> [u8; FLUSH_HEADER_BYTES] {
        let mut bytes = [0; FLUSH_HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &FLUSH_MAGIC.to_le_bytes());
        put(8, &self.generation.0.to_le_bytes());
        put(16, &self.number.0.to_le_bytes());
        put(24, &self.length.to_le_bytes());
        put(28, &FLUSH_VERSION.to_le_bytes());
        let marker_only = if self.marker_only { MARKER_ONLY } else { 0 };
        put(30, &(marker_only | u16::from(self.size_class) << 8).to_le_bytes());
        put(32, &self.first_index.0.to_le_bytes());
        put(40, &self.durable_index.0.to_le_bytes());
        put(48, &self.previous_hash.0.to_le_bytes());
        put(56, &self.marker.0.to_le_bytes());
        let crc = checksum::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a header; `None` when the bytes are none (old bytes, a torn write and rot all look like that).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header: [u8; FLUSH_HEADER_BYTES] = *bytes.first_chunk()?;
        let fields = Fields(&header);
        if fields.u32(0) != FLUSH_MAGIC || fields.u16(28) != FLUSH_VERSION || fields.u16(30) & !FLAGS_KNOWN != 0 {
            return None;
        }
        let mut zeroed = header;
        zeroed[4..8].fill(0);
        let length = fields.u32(24);
        let sane = (FLUSH_HEADER_BYTES..=FLUSH_LENGTH_MAX).contains(&(length as usize)) && fields.u64(32) > 0;
        let sane = sane && [16, 32, 40].iter().all(|at| fields.u64(*at) <= LOG_INDEX_MAX);
        if fields.u32(4) != checksum::crc32c(&zeroed) || !sane {
            return None;
        }
        Some(Self {
            generation: Generation(fields.u64(8)),
            number: FlushNumber(fields.u64(16)),
            length,
            first_index: LogIndex(fields.u64(32)),
            durable_index: LogIndex(fields.u64(40)),
            previous_hash: RunningHash(fields.u64(48)),
            marker: Epoch(fields.u64(56)),
            marker_only: fields.u16(30) & MARKER_ONLY != 0,
            size_class: (fields.u16(30) >> 8) as u8,
        })
    }

    /// Bytes that the file had when this was written, at least.
    pub const fn file_bytes_min(&self) -> u64 {
        if self.size_class == 0 { 0 } else { 1 << self.size_class }
    }

    /// Bytes the flush takes on disk.
    pub const fn padded_bytes(&self) -> usize {
        (self.length as usize).next_multiple_of(BLOCK_BYTES)
    }

    /// The end of the log before this flush.
    pub const fn previous(&self) -> LogPoint {
        LogPoint { index: LogIndex(self.first_index.0 - 1), hash: self.previous_hash }
    }
}

const _: () = assert!(FLUSH_LENGTH_MAX >= FLUSH_BYTES_MAX as usize);

/// Little-endian fields of a slice that is known to be long enough.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.0[at..at + N]);
        field
    }
}

/// An entry found in a run of entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundEntry {
    pub header: EntryHeader,
    /// Where the entry begins in the run.
    pub at: usize,
}

impl FoundEntry {
    /// Where the next entry begins.
    pub fn end(&self) -> usize {
        self.at + self.header.entry_bytes()
    }

    /// The body within the run.
    pub fn body<'a>(&self, run: &'a [u8]) -> &'a [u8] {
        let start = self.at + ENTRY_HEADER_BYTES;
        &run[start..start + self.header.body_bytes as usize]
    }

    /// Whether body and padding are what they should be.
    pub fn check_body(&self, run: &[u8]) -> Result<(), DamageKind> {
        let body = self.body(run);
        if checksum::crc32c(body) != self.header.body_crc {
            let is_control = self.header.kind == EntryKind::Control;
            return Err(if is_control { DamageKind::Control } else { DamageKind::Body });
        }
        let padding = &run[self.at + ENTRY_HEADER_BYTES + body.len()..self.end()];
        if padding.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(DamageKind::Padding) }
    }
}

/// Follows running hashes from entry to entry. Blocks that still hold an older life of the log follow from one another, and
/// not from what stands before them: those are the strange ones, and what comes behind them is taken at its word.
pub(crate) struct Chain {
    before: Option<RunningHash>,
    strange: Option<RunningHash>,
}

impl Chain {
    /// A chain of entries behind `before`; `None`: not known, the first entry is taken at its word.
    pub const fn behind(before: Option<RunningHash>) -> Self {
        Self { before, strange: None }
    }

    /// Whether the next entry belongs there.
    pub fn takes(&mut self, header: &EntryHeader) -> bool {
        let follows = |hash| header.hash_after(hash) == header.running_hash;
        let is_strange = match self.strange {
            Some(strange) => follows(strange),
            None => self.before.is_some_and(|before| !follows(before)),
        };
        self.strange = is_strange.then_some(header.running_hash);
        self.before = Some(header.running_hash);
        !is_strange
    }
}

/// Whether a flush is whole by itself: entries that follow from one another, good bodies, zero padding.
pub(crate) fn is_whole(header: &FlushHeader, bytes: &[u8]) -> bool {
    let run = &bytes[..header.length as usize];
    let (mut at, mut previous) = (FLUSH_HEADER_BYTES, header.previous());
    while at < run.len() {
        let Ok(entry) = entry_at(run, at) else { return false };
        let follows = entry.header.index == previous.index.next()
            && entry.header.hash_after(previous.hash) == entry.header.running_hash;
        if !follows || entry.check_body(run).is_err() {
            return false;
        }
        previous = LogPoint { index: entry.header.index, hash: entry.header.running_hash };
        at = entry.end();
    }
    bytes[run.len()..].iter().all(|byte| *byte == 0)
}

/// The entry at `at` of a run of whole entries; its header is verified, its body is not.
pub(crate) fn entry_at(run: &[u8], at: usize) -> Result<FoundEntry, DamageKind> {
    let bytes = run.get(at..).unwrap_or_default();
    let header = EntryHeader::decode(bytes).map_err(|_| DamageKind::Unreadable)?;
    let found = FoundEntry { header, at };
    if found.end() > run.len() { Err(DamageKind::Unreadable) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
