//! Gaps in an index: where they begin and end, and which are worth a hole.

use minikafka_core::{Epoch, FlushNumber, Generation, LogPoint, Partition, RunningHash, Timestamp};

use super::*;
use crate::freed_runs::{FreedBytes, FreedRun};
use crate::testing::batch_header;

const MIN: u64 = 64 << 10;

/// Entries of (partition, entry bytes) in flushes.
fn segment(flushes: &[&[(u32, u32)]]) -> (SegmentIndex, Trailer) {
    let mut index = SegmentIndex::default();
    let (mut position, mut last, mut offset) = (0, 100, 0);
    for flush in flushes {
        let first = position + FLUSH_HEADER_BYTES as u64;
        let mut at = first;
        for (partition, bytes) in *flush {
            last += 1;
            let mut header = batch_header(*partition, bytes - 128);
            (header.index, header.base_offset) = (LogIndex(last), Offset(offset));
            offset += 1;
            index.add(&header, RunningHash(last - 1), first, at);
            at += u64::from(*bytes);
        }
        position = at.next_multiple_of(4096);
    }
    let trailer = Trailer {
        generation: Generation(1),
        body_crc: 0,
        footer_position: position,
        footer_bytes: 0,
        start: LogPoint { index: LogIndex(100), hash: RunningHash(0) },
        end: LogPoint { index: LogIndex(last), hash: RunningHash(0) },
        last_flush_number: FlushNumber(1),
        marker: Epoch(0),
        last_epoch: Epoch(0),
        first_timestamp: Timestamp(0),
        last_timestamp: Timestamp(0),
        partition_count: 0,
        extent_count: 0,
        flush_count: 0,
        snapshot_bytes: 0,
    };
    (index, trailer)
}

/// The gaps when everything is dead but these partitions.
fn gaps_around(index: &SegmentIndex, trailer: &Trailer, live_partitions: &[u32]) -> Vec<(u64, u64, u64, u64)> {
    let log_start = |key: PartitionKey| live_partitions.contains(&key.partition.0).then_some(Offset(0));
    let gaps = between(index, trailer, &live(index, &log_start));
    gaps.iter().map(|gap| (gap.position, gap.end, gap.first_index.0, gap.last_index.0)).collect()
}

#[test]
fn gaps_lie_between_live_entries_and_spare_the_flush_header_before_one() {
    let (index, trailer) = segment(&[&[(0, 1024), (1, 32_768), (0, 1024)], &[(1, 4096)], &[(0, 512), (1, 512)]]);
    assert!(gaps_around(&index, &trailer, &[0, 1]).is_empty());
    assert_eq!(gaps_around(&index, &trailer, &[]), [(0, trailer.footer_position, 101, 106)]);
    let third = 36_864 + 8192;
    assert_eq!(
        gaps_around(&index, &trailer, &[0]),
        [
            (64 + 1024, 64 + 1024 + 32_768, 102, 102),
            (64 + 2048 + 32_768, third, 104, 104),
            (third + 64 + 512, trailer.footer_position, 106, 106),
        ]
    );
    // Partition 1 begins within the first flush, and the second flush begins with it.
    assert_eq!(
        gaps_around(&index, &trailer, &[1]),
        [
            (0, 64 + 1024, 101, 101),
            (64 + 1024 + 32_768, 36_864, 103, 103),
            (36_864 + 64 + 4096, third + 64 + 512, 105, 105),
        ]
    );
}

#[test]
fn an_extent_is_live_until_its_last_entry_is_not() {
    let (index, trailer) = segment(&[&[(0, 512), (0, 512)], &[(0, 512)], &[(0, 512)]]);
    let dead_to = |log_start: u64| {
        let live = live(&index, &|_: PartitionKey| Some(Offset(log_start)));
        between(&index, &trailer, &live).first().map_or(100, |gap| gap.last_index.0)
    };
    assert_eq!((0..=5).map(dead_to).collect::<Vec<_>>(), [100, 100, 102, 103, 104, 104]);
}

#[test]
fn extents_that_overlap_are_one() {
    let (index, _) = segment(&[&[(0, 512), (1, 512), (0, 512), (1, 512), (2, 512)]]);
    let all = live(&index, &|key: PartitionKey| (key.partition < Partition(2)).then_some(Offset(0)));
    let (first_index, last_index) = (LogIndex(101), LogIndex(104));
    assert_eq!(all, [Live { position: 64, end: 64 + 2048, first_index, last_index }]);
}

#[test]
fn a_hole_must_add_enough() {
    let (_, trailer) = segment(&[&[(0, 1 << 20), (1, 512)]]);
    let gap = |position, end| Gap { position, end, first_index: LogIndex(101), last_index: LogIndex(101) };
    let freed = |position: u64, end: u64| {
        let (first_index, last_index) = (LogIndex(101), LogIndex(101));
        let (hash_before, hash_after) = (RunningHash(0), RunningHash(0));
        let run = FreedRun { first_index, last_index, hash_before, hash_after };
        FreedRuns::new(vec![FreedBytes { run, position, bytes: end - position }])
    };
    let worth = |gap, runs: &FreedRuns| !worth_punching(vec![gap], runs, &trailer, MIN).is_empty();
    let none = FreedRuns::default();
    assert!(worth(gap(4096, 4096 + MIN), &none) && !worth(gap(4097, 4096 + MIN), &none), "whole blocks count");
    assert!(worth(gap(0, 3 * MIN), &freed(0, 2 * MIN)) && !worth(gap(0, 3 * MIN - 1), &freed(0, 2 * MIN)));
    assert!(!worth(gap(MIN, 9 * MIN), &freed(0, 2 * MIN)), "a run that sticks out is left alone");
    let whole = Gap { last_index: trailer.end.index, ..gap(0, 8192) };
    assert!(worth(whole, &none) && !worth(whole, &freed(0, 8192)), "a dead segment gives everything, once");
}
