//! Sidecars: round trip, every damage noticed; and what is left of a flush.

use minikafka_core::Timestamp;

use super::*;

fn freed(first: u64, last: u64, position: u64, end: u64) -> FreedBytes {
    let run = FreedRun {
        first_index: LogIndex(first),
        last_index: LogIndex(last),
        hash_before: RunningHash(first * 7),
        hash_after: RunningHash(last * 11),
    };
    FreedBytes { run, position, bytes: end - position }
}

fn flush(first: u64, last: u64, position: u64, bytes: u32) -> FlushSpan {
    FlushSpan {
        first_index: LogIndex(first),
        last_index: LogIndex(last),
        position,
        bytes,
        last_timestamp: Timestamp(0),
        previous_hash: RunningHash(0),
    }
}

#[test]
fn a_sidecar_survives_the_round_trip_and_any_flipped_bit_is_noticed() {
    let runs = FreedRuns::new((1..=100).map(|at| freed(at * 10, at * 10 + 4, at << 20, (at << 20) + 9000)).collect());
    let bytes = encode(Generation(9), &runs);
    assert_eq!(bytes.len(), 2 * 4096, "100 rows need a second block");
    assert_eq!(decode(&bytes, Generation(9)).map(|found| found.0), Some(runs.0.clone()));
    assert!(decode(&bytes, Generation(8)).is_none() && decode(&bytes[..4096], Generation(9)).is_none());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&flipped, Generation(9)).is_none(), "bit {bit}");
    }
    let overlapping = FreedRuns::new(vec![freed(1, 5, 0, 9000), freed(5, 6, 9000, 9001)]);
    assert!(decode(&encode(Generation(9), &overlapping), Generation(9)).is_none(), "runs that overlap are refused");
}

#[test]
fn a_flush_keeps_what_was_not_freed() {
    let index = LogIndex;
    let span = flush(10, 19, 1000, 1000);
    let pieces = |runs: Vec<FreedBytes>| FreedRuns::new(runs).pieces(&span);
    assert_eq!(pieces(vec![]), [(1000, 1000, index(10), index(19))]);
    assert_eq!(pieces(vec![freed(1, 9, 0, 936), freed(20, 22, 2000, 9000)]), [(1000, 1000, index(10), index(19))]);
    assert_eq!(pieces(vec![freed(5, 11, 500, 1200)]), [(1200, 800, index(12), index(19))]);
    assert_eq!(pieces(vec![freed(18, 40, 1800, 9000)]), [(1000, 800, index(10), index(17))]);
    assert_eq!(
        pieces(vec![freed(12, 13, 1200, 1400), freed(15, 15, 1500, 1600)]),
        [(1000, 200, index(10), index(11)), (1400, 100, index(14), index(14)), (1600, 400, index(16), index(19)),]
    );
    assert!(pieces(vec![freed(1, 40, 0, 9000)]).is_empty());
    assert_eq!(FreedRuns::new(vec![freed(5, 11, 500, 1200)]).left_bytes([span].iter()), 800);
}

#[test]
fn a_hole_is_whole_blocks() {
    assert_eq!(hole(0, 8192), (0, 8192));
    assert_eq!(hole(1, 8192), (4096, 4096));
    assert_eq!(hole(1, 8191), (4096, 0));
    assert_eq!(hole(5000, 5001).1, 0);
}

#[test]
fn sidecars_are_named_after_their_segments() {
    let name = SegmentName { number: 3, generation: Generation(77) };
    let path = sidecar_path(Path::new(&name.file_name()));
    assert_eq!(path.to_str().and_then(parse_sidecar), Some(name));
    assert_eq!(parse_sidecar(&name.file_name()), None);
}
