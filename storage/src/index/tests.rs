//! The index of a segment: extents, lookups by offset and by time.

use minikafka_core::Partition;

use super::*;
use crate::testing::batch_header;

fn index_of(rows: &[(u32, u64, u32, u64)]) -> SegmentIndex {
    // (partition, flush position, body bytes, position)
    let mut index = SegmentIndex::default();
    let mut offsets = BTreeMap::<u32, u64>::new();
    for (at, (partition, flush_position, body_bytes, position)) in rows.iter().enumerate() {
        let mut header = batch_header(*partition, *body_bytes);
        header.index = LogIndex(at as u64 + 1);
        let offset = offsets.entry(*partition).or_default();
        header.base_offset = Offset(*offset);
        *offset += 1;
        header.append_timestamp = Timestamp(100 * (at as i64 + 1));
        index.add(&header, RunningHash(at as u64), *flush_position, *position);
    }
    index
}

fn key(partition: u32) -> PartitionKey {
    PartitionKey { partition: Partition(partition), ..batch_header(0, 0).partition_key() }
}

#[test]
fn near_entries_of_a_partition_share_an_extent_within_a_flush() {
    let index = index_of(&[(0, 64, 16, 64), (1, 64, 16, 208), (0, 64, 16, 352), (0, 4160, 16, 4160)]);
    let extents = index.extents_from(key(0), Offset(0));
    assert_eq!(extents.len(), 2);
    assert_eq!((extents[0].position, extents[0].bytes, extents[0].last_index), (64, 432, LogIndex(3)));
    assert_eq!(index.extents_from(key(0), Offset(1)).len(), 2, "offset 1 is within the first extent");
    assert_eq!(index.extents_from(key(0), Offset(2)).len(), 1);
    assert_eq!(index.flushes().len(), 2);
}

#[test]
fn far_entries_get_extents_of_their_own() {
    let index = index_of(&[(0, 64, 16, 64), (1, 64, 17_000, 208), (0, 64, 16, 17_344)]);
    assert_eq!(index.extents_from(key(0), Offset(0)).len(), 2);
    assert_eq!(index.extent_count(), 3);
}

#[test]
fn a_cut_forgets_and_clips() {
    let mut index = index_of(&[(0, 64, 16, 64), (0, 64, 16, 208), (1, 64, 16, 352), (1, 4160, 16, 4160)]);
    index.cut(LogIndex(1));
    assert_eq!(index.extents_from(key(0), Offset(0))[0].last_index, LogIndex(1));
    assert!(index.extents_from(key(1), Offset(0)).is_empty());
    assert_eq!((index.flushes().len(), index.flushes()[0].last_index, index.extent_count()), (1, LogIndex(1), 1));
    index.cut(LogIndex(0));
    assert!(index.is_empty());
}

#[test]
fn time_leads_to_the_first_flush_that_may_qualify() {
    let index = index_of(&[(0, 64, 16, 64), (0, 64, 16, 208), (0, 4160, 16, 4160)]);
    assert_eq!(index.first_index_at(Timestamp(1)), Some(LogIndex(1)));
    assert_eq!(index.first_index_at(Timestamp(200)), Some(LogIndex(1)));
    assert_eq!(index.first_index_at(Timestamp(201)), Some(LogIndex(3)));
    assert_eq!(index.first_index_at(Timestamp(301)), None);
}
