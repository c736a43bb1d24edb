//! What was found to be good, counted.

use std::collections::BTreeMap;

use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::{LogIndex, Offset, PartitionKey, Timestamp};

/// What a range has of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionTally {
    /// Batches.
    pub entries: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the entries, headers and padding included.
    pub bytes: u64,
    /// Offset of the first record found.
    pub first_offset: Offset,
    /// Offset behind the last one.
    pub next_offset: Offset,
    /// When the last batch was appended.
    pub last_timestamp: Timestamp,
}

/// Good entries, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub entries: u64,
    /// Those that are control entries.
    pub control_entries: u64,
    /// Records in the batches.
    pub records: u64,
    /// Bytes of the entries, headers and padding included.
    pub bytes: u64,
    /// The last one.
    pub last_index: LogIndex,
    /// Batches by partition.
    pub partitions: BTreeMap<PartitionKey, PartitionTally>,
}

impl Tally {
    /// Counts an entry.
    pub fn add(&mut self, header: &EntryHeader) {
        let bytes = header.entry_bytes() as u64;
        self.entries += 1;
        self.bytes += bytes;
        self.last_index = self.last_index.max(header.index);
        if header.kind == EntryKind::Control {
            self.control_entries += 1;
            return;
        }
        let records = u64::from(header.record_count);
        self.records += records;
        let partition = self.partitions.entry(header.partition_key()).or_insert(PartitionTally {
            entries: 0,
            records: 0,
            bytes: 0,
            first_offset: header.base_offset,
            next_offset: header.base_offset,
            last_timestamp: header.append_timestamp,
        });
        partition.entries += 1;
        partition.records += records;
        partition.bytes += bytes;
        partition.first_offset = partition.first_offset.min(header.base_offset);
        partition.next_offset = partition.next_offset.max(header.next_offset());
        partition.last_timestamp = partition.last_timestamp.max(header.append_timestamp);
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.entries += other.entries;
        self.control_entries += other.control_entries;
        self.records += other.records;
        self.bytes += other.bytes;
        self.last_index = self.last_index.max(other.last_index);
        for (key, found) in &other.partitions {
            let partition =
                self.partitions.entry(*key).or_insert(PartitionTally { entries: 0, records: 0, bytes: 0, ..*found });
            partition.entries += found.entries;
            partition.records += found.records;
            partition.bytes += found.bytes;
            partition.first_offset = partition.first_offset.min(found.first_offset);
            partition.next_offset = partition.next_offset.max(found.next_offset);
            partition.last_timestamp = partition.last_timestamp.max(found.last_timestamp);
        }
    }
}
