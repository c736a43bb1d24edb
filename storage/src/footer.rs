//! The footer of a sealed segment: what recovery and readers need without scanning it (`docs/DATA_FILE.md`, section 5).

use std::collections::BTreeMap;

use minikafka_core::checksum;
use minikafka_core::limits::{LOG_INDEX_MAX, SEGMENT_EXTENTS_MAX, SEGMENT_FLUSHES_MAX, SNAPSHOT_BYTES_MAX};
use minikafka_core::{
    Epoch, FlushNumber, Generation, LogIndex, LogPoint, Offset, Partition, PartitionKey, RunningHash, Timestamp,
    TopicId,
};

use crate::disk::BLOCK_BYTES;
use crate::flush::Fields;
use crate::index::{Extent, FlushSpan, PartitionExtents, SegmentIndex};

/// First four bytes of a trailer: "MKs1".
pub const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"MKs1");
/// Version written today.
pub const FOOTER_VERSION: u16 = 1;

const PARTITION_ROW_BYTES: usize = 32;
const EXTENT_ROW_BYTES: usize = 28;
const FLUSH_ROW_BYTES: usize = 32;
const TRAILER_USED_BYTES: usize = 144;

/// The trailer: the segment in short, and where its footer body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub generation: Generation,
    pub body_crc: u32,
    pub footer_position: u64,
    pub footer_bytes: u64,
    /// End of the log before the segment.
    pub start: LogPoint,
    /// End of the log with the segment.
    pub end: LogPoint,
    pub last_flush_number: FlushNumber,
    pub marker: Epoch,
    pub last_epoch: Epoch,
    pub first_timestamp: Timestamp,
    pub last_timestamp: Timestamp,
    pub partition_count: u32,
    pub extent_count: u32,
    pub flush_count: u32,
    pub snapshot_bytes: u64,
}

impl Trailer {
    /// Encodes the last 4 KiB of the file.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &FOOTER_MAGIC.to_le_bytes());
        put(8, &self.generation.0.to_le_bytes());
        put(16, &FOOTER_VERSION.to_le_bytes());
        put(20, &self.body_crc.to_le_bytes());
        put(24, &self.footer_position.to_le_bytes());
        put(32, &self.footer_bytes.to_le_bytes());
        put(40, &(self.start.index.0 + 1).to_le_bytes());
        put(48, &self.end.index.0.to_le_bytes());
        put(56, &self.start.hash.0.to_le_bytes());
        put(64, &self.end.hash.0.to_le_bytes());
        put(72, &self.last_flush_number.0.to_le_bytes());
        put(80, &self.marker.0.to_le_bytes());
        put(88, &self.last_epoch.0.to_le_bytes());
        put(96, &self.first_timestamp.0.to_le_bytes());
        put(104, &self.last_timestamp.0.to_le_bytes());
        put(112, &self.partition_count.to_le_bytes());
        put(116, &self.extent_count.to_le_bytes());
        put(120, &self.flush_count.to_le_bytes());
        put(128, &self.snapshot_bytes.to_le_bytes());
        let crc = checksum::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the last 4 KiB of a file; `None` when they are no trailer of this generation.
    pub fn decode(bytes: &[u8], generation: Generation) -> Option<Self> {
        let block: [u8; BLOCK_BYTES] = *bytes.first_chunk()?;
        let fields = Fields(&block);
        if fields.u32(0) != FOOTER_MAGIC || fields.u64(8) != generation.0 || fields.u16(16) != FOOTER_VERSION {
            return None;
        }
        let mut zeroed = block;
        zeroed[4..8].fill(0);
        let crc_matches = fields.u32(4) == checksum::crc32c(&zeroed);
        let zeros = fields.u16(18) == 0 && fields.u32(124) == 0 && block[136..].iter().all(|byte| *byte == 0);
        let first_index = fields.u64(40);
        if !crc_matches || !zeros || first_index == 0 {
            return None;
        }
        let trailer = Self {
            generation,
            body_crc: fields.u32(20),
            footer_position: fields.u64(24),
            footer_bytes: fields.u64(32),
            start: LogPoint { index: LogIndex(first_index - 1), hash: RunningHash(fields.u64(56)) },
            end: LogPoint { index: LogIndex(fields.u64(48)), hash: RunningHash(fields.u64(64)) },
            last_flush_number: FlushNumber(fields.u64(72)),
            marker: Epoch(fields.u64(80)),
            last_epoch: Epoch(fields.u64(88)),
            first_timestamp: Timestamp(fields.u64(96) as i64),
            last_timestamp: Timestamp(fields.u64(104) as i64),
            partition_count: fields.u32(112),
            extent_count: fields.u32(116),
            flush_count: fields.u32(120),
            snapshot_bytes: fields.u64(128),
        };
        trailer.is_sane().then_some(trailer)
    }

    /// Whether a block is a trailer, of whichever file.
    pub fn is_any(block: &[u8; BLOCK_BYTES]) -> bool {
        Self::decode(block, Generation(Fields(block).u64(8))).is_some()
    }

    /// Bytes of the body on disk.
    pub const fn padded_body_bytes(&self) -> u64 {
        self.footer_bytes.next_multiple_of(BLOCK_BYTES as u64)
    }

    /// Whether the counts can be true, so that nothing is allocated for those that cannot.
    fn is_sane(&self) -> bool {
        let [partitions, extents, flushes] =
            [self.partition_count, self.extent_count, self.flush_count].map(|count| count as usize);
        // Flushes in progress when the index became full may exceed the limits a little.
        self.extent_count / 2 <= SEGMENT_EXTENTS_MAX
            && self.flush_count / 2 <= SEGMENT_FLUSHES_MAX
            && self.partition_count <= self.extent_count
            && self.snapshot_bytes <= SNAPSHOT_BYTES_MAX
            && self.footer_bytes == body_bytes(partitions, extents, flushes, self.snapshot_bytes as usize)
            && self.footer_position.is_multiple_of(BLOCK_BYTES as u64)
            && self.end.index >= self.start.index
            && self.end.index.0.max(self.last_flush_number.0) <= LOG_INDEX_MAX
    }
}

/// Whether a block that is no trailer of this generation was one. All that a trailer says is in its first sector, which a
/// torn write leaves whole or leaves out; the zeros behind it may be old bytes then.
pub(crate) fn is_rotten_trailer(bytes: &[u8], generation: Generation) -> bool {
    let fields = Fields(bytes);
    let mut whole = bytes.to_vec();
    whole[TRAILER_USED_BYTES..].fill(0);
    (fields.u32(0) == FOOTER_MAGIC && fields.u64(8) == generation.0) && Trailer::decode(&whole, generation).is_none()
}

/// Bytes of a footer body before its padding.
pub(crate) const fn body_bytes(partitions: usize, extents: usize, flushes: usize, snapshot: usize) -> u64 {
    let tables = partitions * PARTITION_ROW_BYTES + extents * EXTENT_ROW_BYTES + flushes * FLUSH_ROW_BYTES;
    (tables + snapshot) as u64
}

/// Encodes the footer body: tables and snapshot, padded to whole blocks.
pub(crate) fn encode_body(index: &SegmentIndex, start: LogPoint, snapshot: &[u8]) -> Vec<u8> {
    let base = start.index.0 + 1;
    let mut body = Vec::new();
    for (key, partition) in index.partitions() {
        body.extend_from_slice(&key.topic.0.to_le_bytes());
        body.extend_from_slice(&key.partition.0.to_le_bytes());
        body.extend_from_slice(&(partition.extents.len() as u32).to_le_bytes());
        body.extend_from_slice(&partition.first_offset().0.to_le_bytes());
        body.extend_from_slice(&partition.end_offset.0.to_le_bytes());
    }
    for extent in index.partitions().flat_map(|(_, partition)| &partition.extents) {
        body.extend_from_slice(&extent.first_offset.0.to_le_bytes());
        body.extend_from_slice(&relative(extent.first_index, base));
        body.extend_from_slice(&relative(extent.last_index, base));
        body.extend_from_slice(&(extent.position as u32).to_le_bytes());
        body.extend_from_slice(&extent.bytes.to_le_bytes());
        body.extend_from_slice(&extent.own_bytes.to_le_bytes());
    }
    for flush in index.flushes() {
        body.extend_from_slice(&relative(flush.first_index, base));
        body.extend_from_slice(&relative(flush.last_index, base));
        body.extend_from_slice(&(flush.position as u32).to_le_bytes());
        body.extend_from_slice(&flush.bytes.to_le_bytes());
        body.extend_from_slice(&flush.last_timestamp.0.to_le_bytes());
        body.extend_from_slice(&flush.previous_hash.0.to_le_bytes());
    }
    body.extend_from_slice(snapshot);
    body.resize(body.len().next_multiple_of(BLOCK_BYTES), 0);
    body
}

fn relative(index: LogIndex, base: u64) -> [u8; 4] {
    ((index.0 - base) as u32).to_le_bytes()
}

/// Whether `body` (padded) is what `trailer` announces.
pub(crate) fn body_matches(trailer: &Trailer, body: &[u8]) -> bool {
    body.len() as u64 == trailer.padded_body_bytes()
        && checksum::crc32c(body) == trailer.body_crc
        && body[trailer.footer_bytes as usize..].iter().all(|byte| *byte == 0)
}

/// Decodes the index of a body that matches its trailer; `None` when its tables contradict each other.
pub(crate) fn decode_index(trailer: &Trailer, body: &[u8]) -> Option<SegmentIndex> {
    let base = trailer.start.index.0 + 1;
    let (partition_rows, rest) = body.split_at_checked(trailer.partition_count as usize * PARTITION_ROW_BYTES)?;
    let (extent_rows, rest) = rest.split_at_checked(trailer.extent_count as usize * EXTENT_ROW_BYTES)?;
    let (flush_rows, _) = rest.split_at_checked(trailer.flush_count as usize * FLUSH_ROW_BYTES)?;
    let mut extents = extent_rows.chunks_exact(EXTENT_ROW_BYTES).map(|row| decode_extent(row, base));
    let mut partitions = BTreeMap::new();
    for row in partition_rows.chunks_exact(PARTITION_ROW_BYTES) {
        let fields = Fields(row);
        let key = PartitionKey { topic: TopicId(fields.u64(0)), partition: Partition(fields.u32(8)) };
        let count = fields.u32(12) as usize;
        let own: Vec<Extent> = extents.by_ref().take(count).collect();
        if own.len() != count || own.first()?.first_offset != Offset(fields.u64(16)) {
            return None;
        }
        partitions.insert(key, PartitionExtents::new(own, Offset(fields.u64(24))));
    }
    let flushes = flush_rows.chunks_exact(FLUSH_ROW_BYTES).map(|row| decode_flush(row, base)).collect();
    extents.next().is_none().then(|| SegmentIndex::from_tables(partitions, flushes))
}

/// The partitions of a body that matches its trailer, sorted.
pub(crate) fn decode_keys(trailer: &Trailer, body: &[u8]) -> impl Iterator<Item = PartitionKey> {
    let rows = &body[..trailer.partition_count as usize * PARTITION_ROW_BYTES];
    rows.chunks_exact(PARTITION_ROW_BYTES).map(|row| {
        let fields = Fields(row);
        PartitionKey { topic: TopicId(fields.u64(0)), partition: Partition(fields.u32(8)) }
    })
}

/// The flushes of a body that matches its trailer, in order.
pub(crate) fn decode_flushes(trailer: &Trailer, body: &[u8]) -> impl Iterator<Item = FlushSpan> {
    let base = trailer.start.index.0 + 1;
    let before =
        trailer.partition_count as usize * PARTITION_ROW_BYTES + trailer.extent_count as usize * EXTENT_ROW_BYTES;
    let rows = &body[before..before + trailer.flush_count as usize * FLUSH_ROW_BYTES];
    rows.chunks_exact(FLUSH_ROW_BYTES).map(move |row| decode_flush(row, base))
}

/// The snapshot of a body that matches its trailer.
pub(crate) fn snapshot<'a>(trailer: &Trailer, body: &'a [u8]) -> &'a [u8] {
    &body[(trailer.footer_bytes - trailer.snapshot_bytes) as usize..trailer.footer_bytes as usize]
}

fn decode_extent(row: &[u8], base: u64) -> Extent {
    let fields = Fields(row);
    Extent {
        first_offset: Offset(fields.u64(0)),
        first_index: LogIndex(base + u64::from(fields.u32(8))),
        last_index: LogIndex(base + u64::from(fields.u32(12))),
        position: fields.u32(16).into(),
        bytes: fields.u32(20),
        own_bytes: fields.u32(24),
    }
}

fn decode_flush(row: &[u8], base: u64) -> FlushSpan {
    let fields = Fields(row);
    FlushSpan {
        first_index: LogIndex(base + u64::from(fields.u32(0))),
        last_index: LogIndex(base + u64::from(fields.u32(4))),
        position: fields.u32(8).into(),
        bytes: fields.u32(12),
        last_timestamp: Timestamp(fields.u64(16) as i64),
        previous_hash: RunningHash(fields.u64(24)),
    }
}

const _: () = assert!(TRAILER_USED_BYTES < BLOCK_BYTES);

#[cfg(test)]
mod tests;
