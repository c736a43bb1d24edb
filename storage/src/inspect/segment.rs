//! One segment file, as it lies: its flushes in order of position, their entries, its footer.
//!
//! This says what is there, not what counts: a flush that a later one cut away is there, too. Whether entries belong to the
//! log is the recovery's to say ([`super::verify_range`]).

use std::fs::File;
use std::io;
use std::path::Path;

use minikafka_core::entry::EntryHeader;
use minikafka_core::limits::{BLOCK_BYTES as BLOCK, READ_BYTES_MAX};
use minikafka_core::{Epoch, FlushNumber, Generation, LogPoint, Offset, PartitionKey, Timestamp};

use super::image::{Image, Window};
use crate::disk::BLOCK_BYTES;
use crate::error::DamageKind;
use crate::flush::{self, FLUSH_HEADER_BYTES, FLUSH_MAGIC, Fields, FlushHeader};
use crate::footer::{self, FOOTER_MAGIC, Trailer};
use crate::index::{PartitionExtents, SegmentIndex};
use crate::segment::SegmentName;

/// A segment file to look into.
#[derive(Debug)]
pub struct SegmentImage<I> {
    image: I,
    generation: Generation,
    /// Whole blocks of the file.
    bytes: u64,
}

/// The footer of a file.
pub enum FooterImage {
    /// None: the segment is not sealed. (Old bytes of a recycled file are none, either.)
    None,
    /// There is a trailer, or was, and it does not verify.
    BadTrailer,
    /// The trailer verifies, what it leads to does not.
    BadBody {
        /// Where the body is.
        position: u64,
    },
    /// A footer that verifies.
    Good(Box<Footer>),
}

/// A footer that verifies.
pub struct Footer {
    pub(super) trailer: Trailer,
    pub(super) index: SegmentIndex,
    pub(super) snapshot: Vec<u8>,
}

/// A row of a footer's partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// The partition.
    pub partition: PartitionKey,
    /// Runs of entries that the index has of it.
    pub extents: usize,
    /// Offset of the segment's first record of it.
    pub first_offset: Offset,
    /// Offset behind its last one.
    pub end_offset: Offset,
}

/// What stands at a position of a segment.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A flush whose header verifies.
    Flush(FlushImage<'a>),
    /// A block that was a flush header of this file, and does not verify.
    RottenHeader {
        /// Where.
        position: u64,
    },
}

/// A flush whose header verifies.
#[derive(Clone, Copy, Debug)]
pub struct FlushImage<'a> {
    /// Where its header is.
    pub position: u64,
    /// Its header.
    pub header: FlushHeader,
    bytes: &'a [u8],
}

/// An entry as it lies in a flush.
#[derive(Clone, Debug)]
pub struct EntryImage<'a> {
    /// Where it begins in the file.
    pub position: u64,
    /// Its header, which verifies.
    pub header: EntryHeader,
    /// Its body as stored; verified when `damage` is none.
    pub body: &'a [u8],
    /// What is wrong with body or padding.
    pub damage: Option<DamageKind>,
}

/// The flushes of a segment, in order of position; see [`SegmentImage::pieces`].
pub struct Pieces<'a, I> {
    window: Window<'a, I>,
    generation: Generation,
    position: u64,
    end: u64,
    last_number: FlushNumber,
}

impl SegmentImage<File> {
    /// Opens a file named `<number>-<generation>.segment`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| SegmentName::parse(&name.to_string_lossy()));
        let name = name.ok_or_else(|| {
            let reason = "not the name of a segment file (<number>-<generation>.segment, 16 hexadecimal digits each)";
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        })?;
        Self::new(File::open(path)?, name.generation)
    }
}

impl<I: Image> SegmentImage<I> {
    /// A segment file of a generation.
    pub fn new(image: I, generation: Generation) -> io::Result<Self> {
        let bytes = image.bytes()? / u64::from(BLOCK) * u64::from(BLOCK);
        Ok(Self { image, generation, bytes })
    }

    /// Bytes of the file, in whole blocks.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drawn when the file was put to use.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Where the trailer is, or would be.
    pub const fn trailer_position(&self) -> u64 {
        self.bytes.saturating_sub(BLOCK_BYTES as u64)
    }

    /// Reads and verifies the footer.
    pub fn footer(&self) -> io::Result<FooterImage> {
        let position = self.trailer_position();
        if self.bytes == 0 {
            return Ok(FooterImage::None);
        }
        let mut block = [0; BLOCK_BYTES];
        self.image.read_at(position, &mut block)?;
        let Some(trailer) = Trailer::decode(&block, self.generation) else {
            let rotten = is_rotten(&block, FOOTER_MAGIC, self.generation, Trailer::is_any(&block));
            return Ok(if rotten { FooterImage::BadTrailer } else { FooterImage::None });
        };
        let bad = FooterImage::BadBody { position: trailer.footer_position };
        let end = trailer.footer_position.checked_add(trailer.padded_body_bytes());
        if end.is_none_or(|end| end > position) {
            return Ok(bad);
        }
        let mut body = Vec::new();
        while (body.len() as u64) < trailer.padded_body_bytes() {
            let at = body.len();
            let rest = trailer.padded_body_bytes() as usize - at;
            body.resize(at + rest.min(READ_BYTES_MAX as usize), 0);
            self.image.read_at(trailer.footer_position + at as u64, &mut body[at..])?;
        }
        let index = footer::body_matches(&trailer, &body).then(|| footer::decode_index(&trailer, &body)).flatten();
        let Some(index) = index else { return Ok(bad) };
        let snapshot = footer::snapshot(&trailer, &body).to_vec();
        Ok(FooterImage::Good(Box::new(Footer { trailer, index, snapshot })))
    }

    /// The flushes before `end` (a footer's position, or the end of the file), in order of position.
    pub fn pieces(&self, end: u64) -> Pieces<'_, I> {
        let end = end.min(self.bytes);
        Pieces {
            window: Window::new(&self.image, end),
            generation: self.generation,
            position: 0,
            end,
            last_number: FlushNumber(0),
        }
    }

    /// Bytes of the file.
    pub(super) fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.image.read_at(position, buffer)
    }
}

impl<I: Image> Pieces<'_, I> {
    /// The next flush, or what was one; none at the end.
    #[allow(clippy::should_implement_trait, reason = "an item borrows the window, which no iterator's may")]
    pub fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        let block_bytes = BLOCK_BYTES as u64;
        while self.position + block_bytes <= self.end {
            let position = self.position;
            let block = self.window.get(position, BLOCK_BYTES)?;
            let decoded = FlushHeader::decode(block);
            let is_own =
                |header: &FlushHeader| header.generation == self.generation && header.number > self.last_number;
            let fits = |header: &FlushHeader| position + header.padded_bytes() as u64 <= self.end;
            match decoded.filter(|header| is_own(header) && fits(header)) {
                Some(header) => {
                    self.last_number = header.number;
                    self.position += header.padded_bytes() as u64;
                    let bytes = self.window.get(position, header.padded_bytes())?;
                    return Ok(Some(Piece::Flush(FlushImage { position, header, bytes })));
                }
                None => {
                    self.position += block_bytes;
                    if is_rotten(block, FLUSH_MAGIC, self.generation, decoded.is_some()) {
                        return Ok(Some(Piece::RottenHeader { position }));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl<'a> FlushImage<'a> {
    /// The entries in order, up to the first whose header does not verify. An error says where that is.
    pub fn entries(&self) -> impl Iterator<Item = Result<EntryImage<'a>, u64>> + use<'a> {
        let (position, run) = (self.position, &self.bytes[..self.header.length as usize]);
        entries_of(run, FLUSH_HEADER_BYTES, position)
    }

    /// Whether zeros follow the last entry up to the next block.
    pub fn is_padded(&self) -> bool {
        self.bytes[self.header.length as usize..].iter().all(|byte| *byte == 0)
    }
}

/// The entries of a run that lies at `position` of a file, from byte `from` of it on.
pub(super) fn entries_of(run: &[u8], from: usize, position: u64) -> impl Iterator<Item = Result<EntryImage<'_>, u64>> {
    let mut at = Some(from);
    std::iter::from_fn(move || {
        let from = at.filter(|at| *at < run.len())?;
        let Ok(found) = flush::entry_at(run, from) else {
            at = None;
            return Some(Err(position + from as u64));
        };
        at = Some(found.end());
        let damage = found.check_body(run).err();
        Some(Ok(EntryImage { position: position + from as u64, header: found.header, body: found.body(run), damage }))
    })
}

/// Whether a block was a header of this file and is none any more. Old bytes of a recycled file are not: those verify, or
/// are entries. A header lies within one sector, so that a torn write leaves it old or new.
fn is_rotten(block: &[u8], magic: u32, generation: Generation, verifies: bool) -> bool {
    let fields = Fields(block);
    let found = fields.u32(0);
    let has_other_magic = [FLUSH_MAGIC, FOOTER_MAGIC].iter().any(|other| *other == found && *other != magic);
    !verifies && !has_other_magic && (found == magic || fields.u64(8) == generation.0)
}

impl Footer {
    /// End of the log before the segment.
    pub const fn start(&self) -> LogPoint {
        self.trailer.start
    }

    /// End of the log with the segment.
    pub const fn end(&self) -> LogPoint {
        self.trailer.end
    }

    /// Where the footer's body is; the flushes end there.
    pub const fn position(&self) -> u64 {
        self.trailer.footer_position
    }

    /// Bytes of the footer's body.
    pub const fn body_bytes(&self) -> u64 {
        self.trailer.footer_bytes
    }

    /// Highest flush number in the segment.
    pub const fn last_flush_number(&self) -> FlushNumber {
        self.trailer.last_flush_number
    }

    /// Highest marker in the segment.
    pub const fn marker(&self) -> Epoch {
        self.trailer.marker
    }

    /// Epoch of the last entry.
    pub const fn last_epoch(&self) -> Epoch {
        self.trailer.last_epoch
    }

    /// When the first and the last entry were appended.
    pub const fn timestamps(&self) -> (Timestamp, Timestamp) {
        (self.trailer.first_timestamp, self.trailer.last_timestamp)
    }

    /// Rows of the extent table and of the flush table.
    pub fn row_counts(&self) -> (usize, usize) {
        (self.index.extent_count(), self.index.flushes().len())
    }

    /// The partition table.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionRow> {
        let row = |(partition, found): (&PartitionKey, &PartitionExtents)| PartitionRow {
            partition: *partition,
            extents: found.extents.len(),
            first_offset: found.first_offset(),
            end_offset: found.end_offset,
        };
        self.index.partitions().map(row)
    }

    /// The range's state as of [`Footer::end`].
    pub fn snapshot(&self) -> &[u8] {
        &self.snapshot
    }
}
