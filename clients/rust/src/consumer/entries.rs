//! Fetched bytes: cut into entries and verified before anybody relies on them.
//!
//! Every byte is checked: headers by their own checksum, bodies by theirs, padding by being zero, and the order of
//! offsets, indexes and epochs by growing. (The running hash chains entries of all partitions of a range, so one
//! partition's entries alone cannot be checked against it.)

use std::sync::Arc;

use bytes::Bytes;
use minikafka_core::checksum::crc32c;
use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::{LogIndex, Offset, PartitionKey};

use crate::explain::Explain;

/// A batch as fetched: verified, but neither decompressed nor parsed.
#[derive(Clone, Debug)]
pub(super) struct FetchedEntry {
    pub header: EntryHeader,
    pub body: Bytes,
    /// Of the fetch that brought it, if that was asked for.
    pub explain: Option<Arc<Explain>>,
}

impl FetchedEntry {
    /// What it holds of the consumer's memory.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.header.entry_bytes()
    }
}

/// The batches of `partition` in `bytes` that reach beyond `position`, up to the first damage, which comes with them.
pub(super) fn verified(
    bytes: &Bytes,
    partition: PartitionKey,
    position: Offset,
) -> (Vec<FetchedEntry>, Option<String>) {
    let mut entries = Vec::new();
    let mut cursor = Cursor { at: 0, next_offset: position, index: LogIndex(0) };
    while cursor.at < bytes.len() {
        match cursor.next(bytes, partition) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => {}
            Err(damage) => return (entries, Some(damage)),
        }
    }
    (entries, None)
}

/// How far the bytes have been verified.
struct Cursor {
    at: usize,
    next_offset: Offset,
    index: LogIndex,
}

impl Cursor {
    /// The next entry, or none when it holds nothing that was asked for.
    fn next(&mut self, bytes: &Bytes, partition: PartitionKey) -> Result<Option<FetchedEntry>, String> {
        let header = EntryHeader::decode(&bytes[self.at..]).map_err(|error| error.to_string())?;
        let (start, end) = (self.at + minikafka_core::entry::ENTRY_HEADER_BYTES, self.at + header.entry_bytes());
        if end > bytes.len() {
            return Err(format!("an entry of {} bytes is cut off", header.entry_bytes()));
        }
        let body_end = start + header.body_bytes as usize;
        if bytes[body_end..end].iter().any(|byte| *byte != 0) {
            return Err("the padding of an entry is not zero".to_owned());
        }
        let found = crc32c(&bytes[start..body_end]);
        if found != header.body_crc {
            return Err(format!("a body's checksum is {:#010x}, computed {found:#010x}", header.body_crc));
        }
        if header.partition_key() != partition {
            return Err(format!("an entry belongs to partition {}", header.partition_key()));
        }
        if header.index <= self.index {
            return Err(format!("entry {} follows entry {}", header.index, self.index));
        }
        let is_first = self.at == 0;
        (self.at, self.index) = (end, header.index);
        if header.kind != EntryKind::Batch || is_first && header.next_offset() <= self.next_offset {
            return Ok(None);
        }
        if !is_first && header.base_offset < self.next_offset {
            return Err(format!("offset {} follows offset {}", header.base_offset, self.next_offset));
        }
        self.next_offset = header.next_offset();
        Ok(Some(FetchedEntry { header, body: bytes.slice(start..body_end), explain: None }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use minikafka_core::batch::{BatchBuilder, RecordRef};
    use minikafka_core::*;

    use super::*;

    pub(in crate::consumer) const PARTITION: PartitionKey = PartitionKey { topic: TopicId(5), partition: Partition(1) };

    /// Entries of `records` records each, from offset `base` on.
    pub(in crate::consumer) fn entries(base: u64, counts: &[u64]) -> Vec<u8> {
        let (mut out, mut base) = (Vec::new(), base);
        for (number, count) in counts.iter().enumerate() {
            let mut builder = BatchBuilder::with_capacity(0);
            for offset in base..base + count {
                let value = offset.to_le_bytes();
                let record = RecordRef { value: Some(&value), ..RecordRef::at(Timestamp(offset as i64)) };
                builder.push(record).expect("a small record");
            }
            let finished = builder.finish();
            let range = RangeKey { ring: RingId(1), range: RangeId(0) };
            let producer = (ProducerId::NONE, ProducerEpoch(0), Sequence(0));
            let mut header = finished.header(range, PARTITION, producer);
            (header.base_offset, header.index) = (Offset(base), LogIndex(base + number as u64 + 1));
            out.extend_from_slice(&header.encode());
            out.extend_from_slice(&finished.body);
            out.resize(out.len().next_multiple_of(16), 0);
            base += count;
        }
        out
    }

    #[test]
    fn entries_from_the_position_on() {
        let bytes = Bytes::from(entries(10, &[3, 1, 2]));
        let bases = |position| -> Vec<u64> {
            let (entries, damage) = verified(&bytes, PARTITION, Offset(position));
            assert_eq!(damage, None);
            entries.iter().map(|entry| entry.header.base_offset.0).collect()
        };
        assert_eq!(bases(10), [10, 13, 14]);
        assert_eq!(bases(12), [10, 13, 14], "the first one holds the position");
        assert_eq!(bases(13), [13, 14], "an entry below the position is not wanted");
        assert_eq!(bases(5), [10, 13, 14], "a hole below is what compaction leaves");
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_what_is_before_it_is_kept() {
        let good = entries(10, &[3, 2]);
        let second =
            minikafka_core::entry::entry_bytes(u32::from_le_bytes(*good[8..].first_chunk().expect("a header")));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (entries, damage) = verified(&bad.into(), PARTITION, Offset(10));
            assert!(damage.is_some(), "bit {bit} went unnoticed");
            assert_eq!(entries.len(), usize::from(bit / 8 >= second), "bit {bit}");
        }
    }

    #[test]
    fn cut_repeated_and_foreign_entries_are_noticed() {
        let good = entries(10, &[3, 2]);
        for length in 1..good.len() {
            let (entries, damage) = verified(&good[..length].to_vec().into(), PARTITION, Offset(10));
            assert!(damage.is_some() || entries.len() == 1, "cut at {length}");
        }
        let repeated = [&good[..], &good[..]].concat();
        assert!(verified(&repeated.into(), PARTITION, Offset(10)).1.is_some());
        let other = PartitionKey { topic: TopicId(6), ..PARTITION };
        assert!(verified(&good.into(), other, Offset(10)).1.is_some());
    }
}
