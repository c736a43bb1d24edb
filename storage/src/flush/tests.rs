//! Flush headers and runs: what verifies, and what does not.

use super::*;

fn header() -> FlushHeader {
    FlushHeader {
        generation: Generation(0x1122_3344_5566_7788),
        number: FlushNumber(7),
        length: 64 + 256,
        first_index: LogIndex(12),
        durable_index: LogIndex(11),
        previous_hash: RunningHash(99),
        marker: Epoch(3),
        marker_only: true,
        size_class: 23,
    }
}

#[test]
fn header_survives_the_round_trip() {
    assert_eq!(FlushHeader::decode(&header().encode()), Some(header()));
    assert_eq!(header().padded_bytes(), 4096);
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let bytes = header().encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(FlushHeader::decode(&flipped), None, "bit {bit}");
    }
}

#[test]
fn short_and_empty_bytes_are_no_header() {
    assert_eq!(FlushHeader::decode(&header().encode()[..63]), None);
    assert_eq!(FlushHeader::decode(&[0; 64]), None);
}
