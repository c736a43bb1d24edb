//! Where things are in one segment: by partition and offset, by index, and by time.
//!
//! The same structure serves segments being written and sealed ones, whose footer holds it (`docs/DATA_FILE.md`, section
//! 5). An extent says where to look, not what is there: whoever reads it walks its entries and picks. Absent: any I/O.

use std::collections::BTreeMap;

use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::limits::{EXTENT_GAP_BYTES_MAX, SEGMENT_EXTENTS_MAX, SEGMENT_FLUSHES_MAX};
use minikafka_core::{LogIndex, LogPoint, Offset, PartitionKey, RunningHash, Timestamp};

/// A run of whole entries within one flush that begins and ends with an entry of its partition. Others may stand between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Base offset of its first entry.
    pub first_offset: Offset,
    /// Index of its first entry.
    pub first_index: LogIndex,
    /// Index of its last live entry; those above it are void.
    pub last_index: LogIndex,
    /// In the segment file.
    pub position: u64,
    /// Of the run.
    pub bytes: u32,
}

/// The entries of one flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlushSpan {
    /// Index of its first entry.
    pub first_index: LogIndex,
    /// Index of its last live entry.
    pub last_index: LogIndex,
    /// Of the first entry, in the segment file.
    pub position: u64,
    /// Of all entries, void ones included.
    pub bytes: u32,
    /// No live entry was appended later than this.
    pub last_timestamp: Timestamp,
    /// Running hash before the first entry.
    pub previous_hash: RunningHash,
}

/// The index of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    partitions: BTreeMap<PartitionKey, Vec<Extent>>,
    flushes: Vec<FlushSpan>,
    extent_count: usize,
}

impl SegmentIndex {
    /// Adds an entry at `position`, behind all others, in the flush whose first entry is at `flush_position`.
    pub fn add(&mut self, header: &EntryHeader, previous_hash: RunningHash, flush_position: u64, position: u64) {
        let bytes = header.entry_bytes() as u32;
        match self.flushes.last_mut() {
            Some(flush) if flush.position == flush_position => {
                flush.last_index = header.index;
                flush.bytes = (position - flush_position) as u32 + bytes;
                flush.last_timestamp = header.append_timestamp;
            }
            _ => self.flushes.push(FlushSpan {
                first_index: header.index,
                last_index: header.index,
                position,
                bytes,
                last_timestamp: header.append_timestamp,
                previous_hash,
            }),
        }
        if header.kind == EntryKind::Batch {
            self.add_extent(header, flush_position, position);
        }
    }

    fn add_extent(&mut self, header: &EntryHeader, flush_position: u64, position: u64) {
        let bytes = header.entry_bytes() as u32;
        let extents = self.partitions.entry(header.partition_key()).or_default();
        if let Some(last) = extents.last_mut() {
            let end = last.position + u64::from(last.bytes);
            let is_near = last.position >= flush_position && position - end <= u64::from(EXTENT_GAP_BYTES_MAX);
            if is_near {
                last.last_index = header.index;
                last.bytes = (position - last.position) as u32 + bytes;
                return;
            }
        }
        extents.push(Extent {
            first_offset: header.base_offset,
            first_index: header.index,
            last_index: header.index,
            position,
            bytes,
        });
        self.extent_count += 1;
    }

    /// Forgets everything above `last`.
    pub fn cut(&mut self, last: LogIndex) {
        let live = self.flushes.partition_point(|flush| flush.first_index <= last);
        self.flushes.truncate(live);
        if let Some(flush) = self.flushes.last_mut() {
            flush.last_index = flush.last_index.min(last);
        }
        for extents in self.partitions.values_mut() {
            extents.truncate(extents.partition_point(|extent| extent.first_index <= last));
            if let Some(extent) = extents.last_mut() {
                extent.last_index = extent.last_index.min(last);
            }
        }
        self.partitions.retain(|_, extents| !extents.is_empty());
        self.extent_count = self.partitions.values().map(Vec::len).sum();
    }

    /// Whether another segment should be begun for the index's sake.
    pub fn is_full(&self) -> bool {
        self.extent_count >= SEGMENT_EXTENTS_MAX as usize || self.flushes.len() >= SEGMENT_FLUSHES_MAX as usize
    }

    /// Whether there is no live entry.
    pub fn is_empty(&self) -> bool {
        self.flushes.is_empty()
    }

    /// Extents of a partition from the one that may contain `from`, in order.
    pub fn extents_from(&self, partition: PartitionKey, from: Offset) -> &[Extent] {
        let extents = self.partitions.get(&partition).map_or(&[][..], Vec::as_slice);
        let at_or_below = extents.partition_point(|extent| extent.first_offset <= from);
        &extents[at_or_below.saturating_sub(1)..]
    }

    /// Every partition with its extents, sorted.
    pub fn partitions(&self) -> impl Iterator<Item = (&PartitionKey, &[Extent])> {
        self.partitions.iter().map(|(key, extents)| (key, extents.as_slice()))
    }

    /// Flushes from the one that contains `index`, or the next one, in order.
    pub fn flushes_from(&self, index: LogIndex) -> &[FlushSpan] {
        &self.flushes[self.flushes.partition_point(|flush| flush.last_index < index)..]
    }

    /// All flushes with live entries, in order.
    pub fn flushes(&self) -> &[FlushSpan] {
        &self.flushes
    }

    /// First index of the first flush that may have an entry appended at `timestamp` or later.
    pub fn first_index_at(&self, timestamp: Timestamp) -> Option<LogIndex> {
        let at = self.flushes.partition_point(|flush| flush.last_timestamp < timestamp);
        self.flushes.get(at).map(|flush| flush.first_index)
    }

    /// End of the log before this segment's first live entry.
    pub fn start(&self) -> Option<LogPoint> {
        let first = self.flushes.first()?;
        Some(LogPoint { index: LogIndex(first.first_index.0 - 1), hash: first.previous_hash })
    }

    /// Rows of the extent table.
    pub fn extent_count(&self) -> usize {
        self.extent_count
    }

    /// Memory this takes, roughly.
    pub fn memory_bytes(&self) -> u64 {
        let rows = self.extent_count * size_of::<Extent>() + self.flushes.len() * size_of::<FlushSpan>();
        (rows + self.partitions.len() * 64) as u64
    }

    /// Puts a decoded index together; `extents` must be sorted per partition, `flushes` in order.
    pub fn from_tables(partitions: BTreeMap<PartitionKey, Vec<Extent>>, flushes: Vec<FlushSpan>) -> Self {
        let extent_count = partitions.values().map(Vec::len).sum();
        Self { partitions, flushes, extent_count }
    }
}

#[cfg(test)]
mod tests;
