//! Headers there and back, and their refusals; the bytes themselves are pinned by `tests/vectors/entries.json`.

use proptest::prelude::*;

use super::*;

fn batch_header() -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Batch,
        body_format: BodyFormat::Columnar,
        codec: Codec::None,
        body_bytes: 1000,
        uncompressed_bytes: 1000,
        range: RangeKey { ring: RingId(3), range: RangeId(200) },
        attributes: 0,
        epoch: Epoch(4),
        index: LogIndex(55),
        topic: TopicId(6),
        partition: Partition(7),
        record_count: 10,
        base_offset: Offset(800),
        last_offset_delta: 9,
        base_sequence: Sequence(10),
        base_timestamp: Timestamp(11),
        max_timestamp: Timestamp(12),
        append_timestamp: Timestamp(13),
        producer_id: ProducerId(14),
        producer_epoch: ProducerEpoch(15),
        body_crc: 16,
        running_hash: RunningHash(17),
    }
}

fn control_header() -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Control,
        body_format: BodyFormat::Control,
        record_count: 0,
        last_offset_delta: 0,
        ..batch_header()
    }
}

/// Encodes `base` changed by `change`, sealed with a right checksum, and returns the field that decoding refuses.
fn refused_field(base: EntryHeader, change: impl FnOnce(&mut EntryHeader)) -> &'static str {
    let mut header = base;
    change(&mut header);
    match (EntryHeader::decode(&header.encode()), EntryHeader::decode_unsealed(&header.encode_unsealed())) {
        (Err(EntryError::Field { field, .. }), Err(EntryError::Field { field: unsealed, .. })) if field == unsealed => {
            field
        }
        other => panic!("expected both ways to refuse one field, got {other:?}"),
    }
}

#[test]
fn headers_survive_the_way_there_and_back() {
    for header in [batch_header(), control_header()] {
        assert_eq!(EntryHeader::decode(&header.encode()), Ok(header));
        assert_eq!(EntryHeader::decode_unsealed(&header.encode_unsealed()), Ok(header));
    }
}

#[test]
fn bytes_behind_a_header_are_left_alone() {
    let bytes = [&batch_header().encode()[..], b"body"].concat();
    assert_eq!(EntryHeader::decode(&bytes), Ok(batch_header()));
}

#[test]
fn a_field_outside_its_range_is_refused() {
    let batch = batch_header;
    assert_eq!(refused_field(batch(), |header| header.body_format = BodyFormat::Control), "body_format");
    assert_eq!(refused_field(control_header(), |header| header.body_format = BodyFormat::Columnar), "body_format");
    assert_eq!(refused_field(batch(), |header| header.attributes = 1), "attributes");
    assert_eq!(refused_field(batch(), |header| header.body_bytes = limits::BATCH_BODY_BYTES_MAX + 1), "body_bytes");
    assert_eq!(refused_field(batch(), |header| header.uncompressed_bytes = 999), "uncompressed_bytes");
    let too_large = |header: &mut EntryHeader| {
        header.codec = Codec::Lz4;
        header.uncompressed_bytes = limits::BATCH_UNCOMPRESSED_BYTES_MAX + 1;
    };
    assert_eq!(refused_field(batch(), too_large), "uncompressed_bytes");
    assert_eq!(refused_field(batch(), |header| header.record_count = 0), "record_count");
    assert_eq!(refused_field(batch(), |header| header.record_count = limits::BATCH_RECORDS_MAX + 1), "record_count");
    assert_eq!(refused_field(control_header(), |header| header.record_count = 1), "record_count");
    assert_eq!(refused_field(batch(), |header| header.last_offset_delta = 8), "last_offset_delta");
    assert_eq!(refused_field(batch(), |header| header.base_offset = Offset(1 << 63)), "base_offset");
    assert_eq!(refused_field(batch(), |header| header.base_sequence = Sequence(-1)), "base_sequence");
}

#[test]
fn what_looks_unusual_but_is_allowed_is_accepted() {
    let accepted = |change: fn(&mut EntryHeader)| {
        let mut header = batch_header();
        change(&mut header);
        assert_eq!(EntryHeader::decode(&header.encode()), Ok(header));
    };
    accepted(|header| header.last_offset_delta = u32::MAX);
    accepted(|header| (header.codec, header.uncompressed_bytes) = (Codec::Zstd, 5));
    accepted(|header| (header.producer_id, header.base_sequence) = (ProducerId::NONE, Sequence(-1)));
    accepted(|header| header.base_offset = Offset(i64::MAX as u64));
}

#[test]
fn what_is_no_header_is_refused() {
    let bytes = batch_header().encode();
    assert_eq!(EntryHeader::decode(&bytes[..127]), Err(EntryError::Short(127)));
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes;
        bytes[at] = byte;
        EntryHeader::decode(&bytes)
    };
    assert!(matches!(with(0, 0), Err(EntryError::Magic(_))));
    assert_eq!(with(4, 2), Err(EntryError::Version(2)));
    for (at, byte, field) in [(5, 3, "kind"), (6, 2, "body_format"), (7, 3, "codec")] {
        assert_eq!(with(at, byte), Err(EntryError::Field { field, value: byte.into() }));
    }
    for at in [106, 107, 124, 127] {
        assert!(matches!(with(at, 1), Err(EntryError::Field { field: "reserved", .. })), "byte {at}");
    }
}

#[test]
fn no_byte_of_a_sealed_header_is_outside_of_its_checksum() {
    let bytes = batch_header().encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(EntryHeader::decode(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn the_running_hash_covers_what_decides_and_chains() {
    let mut header = batch_header();
    let first = header.seal(RunningHash(1));
    assert_eq!((first, header.running_hash), (header.hash_after(RunningHash(1)), first));
    assert_ne!(first, header.hash_after(RunningHash(2)));
    header.running_hash = RunningHash(99);
    assert_eq!(header.hash_after(RunningHash(1)), first, "the hash is not part of its own input");
    header.body_crc ^= 1;
    assert_ne!(header.hash_after(RunningHash(1)), first, "the body is covered through its checksum");
}

#[test]
fn sizes_and_offsets_follow_from_the_fields() {
    let header = EntryHeader { body_bytes: 1, ..batch_header() };
    assert_eq!((header.entry_bytes(), entry_bytes(0), entry_bytes(16), entry_bytes(17)), (144, 128, 144, 160));
    assert_eq!(header.next_offset(), Offset(810));
    assert_eq!(header.partition_key(), PartitionKey { topic: TopicId(6), partition: Partition(7) });
}

proptest! {
    #[test]
    fn any_128_bytes_are_refused_or_mean_what_they_say(
        random in any::<[u8; 32]>(),
        at in 8_usize..96,
        keep_crc in any::<bool>(),
    ) {
        let mut bytes = batch_header().encode_unsealed();
        bytes[at..at + 32].copy_from_slice(&random);
        if !keep_crc {
            let crc = checksum::crc32c(&bytes);
            bytes[120..124].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(header) = EntryHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
        if let Ok(header) = EntryHeader::decode_unsealed(&bytes) {
            prop_assert_eq!(&header.encode_unsealed()[..120], &bytes[..120]);
        }
    }
}
