//! Where things are in one segment: by partition and offset, by index, and by time.
//!
//! The same structure serves segments being written and sealed ones, whose footer holds it (`docs/DATA_FILE.md`, section
//! 5). An extent says where to look, not what is there: whoever reads it walks its entries and picks. Absent: any I/O.

use std::collections::BTreeMap;

use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::limits::{EXTENT_GAP_BYTES_MAX, SEGMENT_EXTENTS_MAX, SEGMENT_FLUSHES_MAX};
use minikafka_core::{LogIndex, LogPoint, Offset, PartitionKey, RunningHash, Timestamp};

/// Memory of one partition in an index, without its extents: tree node, vector and the allocator's share.
const PARTITION_MEMORY_BYTES: usize = 96;

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
    /// Of the partition's own live entries in it, or fewer where a truncation cut it.
    pub own_bytes: u32,
}

/// What one partition has in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionExtents {
    /// In order, never empty.
    pub extents: Vec<Extent>,
    /// Offset behind the last live entry, or above it while `is_bound`.
    pub end_offset: Offset,
    /// A truncation cut the last extent: its end and own bytes are known only after reading it again.
    is_bound: bool,
}

impl PartitionExtents {
    /// What is in `extents`, which end before `end_offset`.
    pub const fn new(extents: Vec<Extent>, end_offset: Offset) -> Self {
        Self { extents, end_offset, is_bound: false }
    }

    /// Offset of the first entry.
    pub fn first_offset(&self) -> Offset {
        self.extents.first().map_or(self.end_offset, |extent| extent.first_offset)
    }

    /// Offset behind extent `at`.
    pub fn end_of(&self, at: usize) -> Offset {
        self.extents.get(at + 1).map_or(self.end_offset, |next| next.first_offset)
    }

    /// How many extents, from the first on, lie entirely below `log_start`; `None`: the whole partition is gone.
    pub fn dead_extents(&self, log_start: Option<Offset>) -> usize {
        match log_start {
            Some(log_start) if log_start < self.end_offset => {
                self.extents.partition_point(|extent| extent.first_offset <= log_start).saturating_sub(1)
            }
            _ => self.extents.len(),
        }
    }
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
    partitions: BTreeMap<PartitionKey, PartitionExtents>,
    flushes: Vec<FlushSpan>,
    extent_count: usize,
    entry_bytes: u64,
}

impl SegmentIndex {
    /// Adds an entry at `position`, behind all others, in the flush whose first entry is at `flush_position`.
    pub fn add(&mut self, header: &EntryHeader, previous_hash: RunningHash, flush_position: u64, position: u64) {
        let bytes = header.entry_bytes() as u32;
        self.entry_bytes += u64::from(bytes);
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
        let partition = self.partitions.entry(header.partition_key()).or_default();
        (partition.end_offset, partition.is_bound) = (header.next_offset(), false);
        let extents = &mut partition.extents;
        if let Some(last) = extents.last_mut() {
            let end = last.position + u64::from(last.bytes);
            // (A flush may stand below the one before it, in a file whose blocks changed places.)
            let gap = position.checked_sub(end);
            let is_near =
                last.position >= flush_position && gap.is_some_and(|gap| gap <= u64::from(EXTENT_GAP_BYTES_MAX));
            if is_near {
                last.last_index = header.index;
                last.bytes = (position - last.position) as u32 + bytes;
                last.own_bytes += bytes;
                return;
            }
        }
        extents.push(Extent {
            first_offset: header.base_offset,
            first_index: header.index,
            last_index: header.index,
            position,
            bytes,
            own_bytes: bytes,
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
        for partition in self.partitions.values_mut() {
            let live = partition.extents.partition_point(|extent| extent.first_index <= last);
            if let Some(void) = partition.extents.get(live) {
                (partition.end_offset, partition.is_bound) = (void.first_offset, false);
            }
            partition.extents.truncate(live);
            if let Some(extent) = partition.extents.last_mut().filter(|extent| extent.last_index > last) {
                (extent.last_index, extent.own_bytes) = (last, 0);
                partition.is_bound = true;
            }
        }
        self.partitions.retain(|_, partition| !partition.extents.is_empty());
        self.count();
    }

    fn count(&mut self) {
        self.extent_count = self.partitions.values().map(|partition| partition.extents.len()).sum();
        self.entry_bytes = self.flushes.iter().map(|flush| u64::from(flush.bytes)).sum();
    }

    /// Extents that were cut, last of their partition each: [`SegmentIndex::settle`] wants what is really in them.
    pub fn cut_extents(&self) -> Vec<(PartitionKey, Extent)> {
        let cut = self.partitions.iter().filter(|(_, partition)| partition.is_bound);
        cut.filter_map(|(key, partition)| Some((*key, *partition.extents.last()?))).collect()
    }

    /// Says where a partition whose last extent was cut really ends, and how many bytes that extent has of it.
    pub fn settle(&mut self, key: PartitionKey, end_offset: Offset, own_bytes: u32) {
        let Some(partition) = self.partitions.get_mut(&key).filter(|partition| partition.is_bound) else { return };
        (partition.end_offset, partition.is_bound) = (end_offset, false);
        if let Some(extent) = partition.extents.last_mut() {
            extent.own_bytes = own_bytes;
        }
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
        let extents = self.partitions.get(&partition).map_or(&[][..], |partition| &partition.extents);
        let at_or_below = extents.partition_point(|extent| extent.first_offset <= from);
        &extents[at_or_below.saturating_sub(1)..]
    }

    /// What a partition has here, if anything.
    pub fn partition(&self, key: PartitionKey) -> Option<&PartitionExtents> {
        self.partitions.get(&key)
    }

    /// Every partition with what it has, sorted.
    pub fn partitions(&self) -> impl Iterator<Item = (&PartitionKey, &PartitionExtents)> {
        self.partitions.iter()
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

    /// Bytes of all entries, void ones of cut flushes included.
    pub fn entry_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// Gives back memory that was reserved for more.
    pub fn shrink(&mut self) {
        self.flushes.shrink_to_fit();
        self.partitions.values_mut().for_each(|partition| partition.extents.shrink_to_fit());
    }

    /// Memory this takes, once [shrunk](Self::shrink), allocator included: 40 bytes an extent, 48 a flush, and about
    /// [`PARTITION_MEMORY_BYTES`] a partition. 10,000 partitions of one extent each take 1.4 MB
    /// (`tests/footer_memory.rs` counts), an index at its limits of 131,072 extents and 65,536 flushes 8.4 MB.
    pub fn memory_bytes(&self) -> u64 {
        let rows = self.extent_count * size_of::<Extent>() + self.flushes.len() * size_of::<FlushSpan>();
        (rows + self.partitions.len() * PARTITION_MEMORY_BYTES) as u64
    }

    /// Puts a decoded index together; extents must be sorted per partition, `flushes` in order.
    pub fn from_tables(partitions: BTreeMap<PartitionKey, PartitionExtents>, flushes: Vec<FlushSpan>) -> Self {
        let mut index = Self { partitions, flushes, extent_count: 0, entry_bytes: 0 };
        index.count();
        index
    }
}

#[cfg(test)]
mod tests;
