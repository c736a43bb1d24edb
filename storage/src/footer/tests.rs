//! Footers: round trip, and every damage noticed.

use super::*;
use crate::testing::batch_header;

fn sample() -> (Trailer, Vec<u8>, SegmentIndex) {
    let start = LogPoint { index: LogIndex(10), hash: RunningHash(5) };
    let mut index = SegmentIndex::default();
    for at in 0..20u64 {
        let mut header = batch_header(at as u32 % 3, 100);
        header.index = LogIndex(11 + at);
        header.base_offset = Offset(at);
        let flush_position = at / 4 * 4096 + 64;
        index.add(&header, RunningHash(at), flush_position, flush_position + at % 4 * 240);
    }
    let body = encode_body(&index, start, b"the state");
    let trailer = Trailer {
        generation: Generation(77),
        body_crc: checksum::crc32c(&body),
        footer_position: 5 * 4096,
        footer_bytes: (3 * 32 + index.extent_count() * 28 + index.flushes().len() * 32 + 9) as u64,
        start,
        end: LogPoint { index: LogIndex(30), hash: RunningHash(6) },
        last_flush_number: FlushNumber(5),
        marker: Epoch(1),
        last_epoch: Epoch(2),
        first_timestamp: Timestamp(1),
        last_timestamp: Timestamp(9),
        partition_count: 3,
        extent_count: index.extent_count() as u32,
        flush_count: 5,
        snapshot_bytes: 9,
    };
    (trailer, body, index)
}

#[test]
fn a_footer_survives_the_round_trip() {
    let (trailer, body, index) = sample();
    assert_eq!(Trailer::decode(&trailer.encode(), Generation(77)), Some(trailer));
    assert!(body_matches(&trailer, &body));
    assert_eq!(decode_index(&trailer, &body).as_ref(), Some(&index));
    assert_eq!(snapshot(&trailer, &body), b"the state");
    let keys: Vec<PartitionKey> = index.partitions().map(|(key, _)| *key).collect();
    assert_eq!(decode_keys(&trailer, &body).collect::<Vec<_>>(), keys);
    assert_eq!(decode_flushes(&trailer, &body).collect::<Vec<_>>(), index.flushes());
    assert_eq!(
        keys.iter().map(|key| index.partition(*key).map(|p| p.end_offset.0)).collect::<Vec<_>>(),
        [Some(19), Some(20), Some(18)]
    );
}

#[test]
fn another_generation_or_any_flipped_bit_is_noticed() {
    let (trailer, body, _) = sample();
    assert_eq!(Trailer::decode(&trailer.encode(), Generation(78)), None);
    for bit in 0..4096 * 8 {
        let mut bytes = trailer.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Trailer::decode(&bytes, Generation(77)), None, "trailer bit {bit}");
        let mut bytes = body.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!body_matches(&trailer, &bytes), "body bit {bit}");
    }
}
