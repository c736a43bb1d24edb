//! Batches there and back, and everything a stranger may send instead.
//!
//! The refusals are pinned one by one in `tests/vectors/batches.json`; here are the ones too large for it, and the
//! properties that hold for any records and any bytes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::*;
use crate::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use crate::ids::*;
use crate::{checksum, limits};

const RANGE: RangeKey = RangeKey { ring: RingId(3), range: RangeId(17) };
const PARTITION: PartitionKey = PartitionKey { topic: TopicId(9), partition: Partition(4) };
const PRODUCER: (ProducerId, ProducerEpoch, Sequence) = (ProducerId(77), ProducerEpoch(1), Sequence(5));

/// A record that owns its bytes, to compare with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: i64,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Owned {
    fn lend<T>(&self, borrower: impl FnOnce(RecordRef<'_>) -> T) -> T {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        borrower(RecordRef {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            timestamp: Timestamp(self.timestamp),
            headers: &headers,
        })
    }

    fn of(record: &RecordView<'_>) -> Self {
        Self {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp: record.timestamp.0,
            headers: record.headers.clone().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        }
    }
}

pub(super) fn build(records: &[Owned]) -> FinishedBatch {
    let mut builder = BatchBuilder::with_capacity(0);
    for record in records {
        record.lend(|record| builder.push(record)).expect("these records fit");
    }
    builder.finish()
}

pub(super) fn header_of(batch: &FinishedBatch) -> EntryHeader {
    batch.header(RANGE, PARTITION, PRODUCER)
}

/// A header that announces what these columns should hold, whether they do or not.
fn header_for(columns: &Columns, body: &[u8]) -> EntryHeader {
    let record_count = columns.value_offsets.len().saturating_sub(1) as u32;
    let batch = FinishedBatch {
        body: body.to_vec(),
        codec: Codec::None,
        uncompressed_bytes: body.len() as u32,
        record_count,
        last_offset_delta: columns.offset_deltas.last().copied().unwrap_or(record_count.saturating_sub(1)),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
    };
    header_of(&batch)
}

/// Reads every byte of every record, each of which must lie within `body`.
fn read_all(view: &BatchView<'_>, body: &[u8]) {
    let bounds = body.as_ptr_range();
    let within = |bytes: &[u8]| {
        let range = bytes.as_ptr_range();
        assert!(
            bytes.is_empty() || bounds.start <= range.start && range.end <= bounds.end,
            "bytes outside of the body"
        );
    };
    assert_eq!(view.iter().count(), view.len());
    for record in view {
        record.key.map(within);
        record.value.map(within);
        for (name, value) in record.headers {
            within(name.as_bytes());
            within(value);
        }
    }
    assert!(view.get(view.len()).is_none());
}

fn some_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::weighted(0.8, vec(any::<u8>(), 0..40))
}

fn some_record() -> impl Strategy<Value = Owned> {
    let headers = prop_oneof![4 => Just(Vec::new()), 1 => vec((".{0,6}", vec(any::<u8>(), 0..9)), 0..4)];
    let timestamp = prop_oneof![3 => Just(1_000), 1 => -5_000_i64..5_000, 1 => i64::MIN / 2..i64::MAX / 2];
    (some_bytes(), some_bytes(), timestamp, headers).prop_map(|(key, value, timestamp, headers)| Owned {
        key,
        value,
        timestamp,
        headers,
    })
}

/// Batches of every kind: with and without keys, tombstones, headers and differing timestamps.
fn some_records() -> impl Strategy<Value = Vec<Owned>> {
    let plain = (vec(any::<u8>(), 0..40)).prop_map(|value| Owned { value: Some(value), ..Owned::default() });
    let keyed = (some_bytes(), vec(any::<u8>(), 0..9)).prop_map(|(key, value)| Owned {
        key,
        value: Some(value),
        timestamp: 12,
        headers: Vec::new(),
    });
    prop_oneof![vec(plain, 1..40), vec(keyed, 1..40), vec(some_record(), 1..40)]
}

/// Records so small that damage mostly hits offsets, bitmaps and deltas rather than data.
fn tiny_records() -> impl Strategy<Value = Vec<Owned>> {
    let bytes = || option::weighted(0.7, vec(any::<u8>(), 0..3));
    let headers = prop_oneof![Just(Vec::new()), vec(("[a\u{e9}]{1,2}", vec(any::<u8>(), 0..2)), 1..3)];
    let timestamp = prop_oneof![Just(i64::MAX), Just(i64::MAX - 1)];
    let record = (bytes(), bytes(), timestamp, headers);
    vec(record.prop_map(|(key, value, timestamp, headers)| Owned { key, value, timestamp, headers }), 1..5)
}

/// Columns that break rules of every kind, yet often enough only few of them.
fn some_columns() -> impl Strategy<Value = Columns> {
    let totals = || prop_oneof![Just(vec![]), Just(vec![0, 2, 4]), Just(vec![0, 0, 2]), vec(-1_i32..6, 0..4)];
    let data = || prop_oneof![Just(vec![]), Just(vec![b'a'; 4]), Just("ééa".into()), vec(any::<u8>(), 0..6)];
    let bits = || prop_oneof![3 => Just(vec![]), 1 => Just(vec![2_u8]), 1 => vec(any::<u8>(), 0..3)];
    let headers = (totals(), totals(), data(), totals(), data());
    let deltas = (
        prop_oneof![Just(vec![]), vec(any::<i64>(), 0..4)],
        prop_oneof![Just(vec![]), Just(vec![0, 7]), vec(any::<u32>(), 0..4)],
    );
    (totals(), data(), totals(), data(), bits(), bits(), headers, deltas).prop_map(
        |(key_offsets, keys, value_offsets, values, key_validity, value_validity, headers, deltas)| Columns {
            key_offsets,
            keys,
            value_offsets,
            values,
            key_validity,
            value_validity,
            header_counts: headers.0,
            header_name_offsets: headers.1,
            header_names: headers.2,
            header_value_offsets: headers.3,
            header_values: headers.4,
            timestamp_deltas: deltas.0,
            offset_deltas: deltas.1,
        },
    )
}

/// One way of damaging bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Overwrite(prop::sample::Index, u32),
    Truncate(prop::sample::Index),
    Move { from: prop::sample::Index, to: prop::sample::Index, len: usize },
}

fn some_damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    let number = prop_oneof![0_u32..20, any::<u32>(), Just(i32::MIN as u32), Just(u32::MAX)];
    prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), number).prop_map(|(at, number)| Damage::Overwrite(at, number)),
        any::<Index>().prop_map(Damage::Truncate),
        (any::<Index>(), any::<Index>(), 0_usize..32).prop_map(|(from, to, len)| Damage::Move { from, to, len }),
    ]
}

fn damage(body: &mut Vec<u8>, damage: &Damage) {
    if body.len() < 4 {
        return;
    }
    match damage {
        Damage::Flip(at, bit) => *at.get_mut(body) ^= 1 << bit,
        Damage::Overwrite(at, number) => {
            let at = at.index(body.len() / 4) * 4;
            body[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        Damage::Truncate(at) => body.truncate(at.index(body.len())),
        Damage::Move { from, to, len } => {
            let (from, to) = (from.index(body.len()), to.index(body.len()));
            let len = (*len).min(body.len() - from.max(to));
            body.copy_within(from..from + len, to);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn records_survive_the_way_there_and_back(records in some_records(), first in 0..u64::from(u32::MAX)) {
        let batch = build(&records);
        let mut header = EntryHeader::decode_unsealed(&header_of(&batch).encode_unsealed()).unwrap();
        header.base_offset = Offset(first);
        let view = BatchView::parse(&batch.body, &header).unwrap();
        prop_assert_eq!(view.iter().map(|record| Owned::of(&record)).collect::<Vec<_>>(), &records[..]);
        for (index, record) in view.iter().enumerate() {
            prop_assert_eq!(record.offset, Offset(first + index as u64));
        }
        prop_assert_eq!(header.max_timestamp, view.iter().map(|record| record.timestamp).max().unwrap());
        prop_assert_eq!(header.body_crc, checksum::crc32c(&batch.body));
    }

    #[test]
    fn the_announced_size_is_exact_after_every_push(records in some_records()) {
        let mut builder = BatchBuilder::with_capacity(100);
        for record in &records {
            let before = builder.body_bytes() as u32;
            let mut probe = before;
            while !record.lend(|record| builder.would_fit(&record, probe)) {
                probe += 1;
            }
            record.lend(|record| builder.push(record)).unwrap();
            prop_assert_eq!(builder.body_bytes(), probe.max(before) as usize);
        }
        let announced = builder.body_bytes();
        prop_assert_eq!(builder.finish().body.len(), announced);
        prop_assert_eq!(builder.record_count(), 0);
    }

    #[test]
    fn the_hand_written_archive_is_rkyvs(columns in some_columns()) {
        let by_rkyv: AlignedVec = rkyv::to_bytes::<rancor::Error>(&columns).unwrap();
        prop_assert_eq!(&columns.encode()[..], &by_rkyv[..]);
    }

    #[test]
    fn rkyv_reads_what_the_builder_writes(records in some_records()) {
        let batch = build(&records);
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(&batch.body);
        let archived = rkyv::access::<ArchivedColumns, rancor::Error>(&aligned).unwrap();
        let header = header_of(&batch);
        let view = BatchView::parse(&aligned, &header).unwrap();

        let bytes_of = |offsets: &[rkyv::rend::i32_le]| -> Vec<u8> {
            offsets.iter().flat_map(|offset| offset.to_native().to_le_bytes()).collect()
        };
        prop_assert_eq!(view.keys_column().data(), archived.keys.as_slice());
        prop_assert_eq!(view.keys_column().offset_bytes(), bytes_of(&archived.key_offsets));
        prop_assert_eq!(view.keys_column().validity(), archived.key_validity.as_slice());
        prop_assert_eq!(view.values_column().data(), archived.values.as_slice());
        prop_assert_eq!(view.values_column().offset_bytes(), bytes_of(&archived.value_offsets));
        prop_assert_eq!(view.values_column().validity(), archived.value_validity.as_slice());
        let deltas = archived.timestamp_deltas.iter().flat_map(|delta| delta.to_native().to_le_bytes());
        prop_assert_eq!(view.timestamp_delta_bytes(), deltas.collect::<Vec<_>>());
        let headers: Vec<_> = view.iter().flat_map(|record| record.headers).collect();
        let names: String = headers.iter().map(|(name, _)| *name).collect();
        prop_assert_eq!(names.as_bytes(), archived.header_names.as_slice());
        let values: Vec<u8> = headers.iter().flat_map(|(_, value)| value.to_vec()).collect();
        prop_assert_eq!(&values, archived.header_values.as_slice());
    }

    #[test]
    fn alignment_in_memory_does_not_matter(records in some_records()) {
        let batch = build(&records);
        let header = header_of(&batch);
        for shift in 1..16 {
            let mut shifted = AlignedVec::<16>::new();
            shifted.resize(shift, 0xa5);
            shifted.extend_from_slice(&batch.body);
            let view = BatchView::parse(&shifted[shift..], &header).unwrap();
            prop_assert_eq!(view.iter().map(|record| Owned::of(&record)).collect::<Vec<_>>(), &records[..]);
        }
    }

    #[test]
    fn columns_of_any_content_are_refused_or_read(columns in some_columns(), base in any::<i64>()) {
        let body = columns.encode();
        let mut header = header_for(&columns, &body);
        header.base_timestamp = Timestamp(base);
        if let Ok(view) = BatchView::parse(&body, &header) {
            read_all(&view, &body);
        }
    }

    /// Whatever we accept, rkyv's own validation accepts: a reader that goes through it sees no other bytes.
    #[test]
    fn damaged_bodies_are_refused_or_read_within_bounds(
        records in prop_oneof![1 => some_records(), 4 => tiny_records()],
        damages in vec(some_damage(), 1..4),
        in_root in any::<bool>(),
    ) {
        let batch = build(&records);
        let mut body = batch.body.clone();
        if in_root {
            let mut root = body.split_off(body.len() - ROOT_BYTES);
            damages.iter().for_each(|one| damage(&mut root, one));
            body.extend_from_slice(&root);
        } else {
            damages.iter().for_each(|one| damage(&mut body, one));
        }
        let mut header = header_of(&batch);
        header.uncompressed_bytes = body.len() as u32;
        let Ok(view) = BatchView::parse(&body, &header) else { return Ok(()) };
        read_all(&view, &body);
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(&body);
        prop_assert!(rkyv::access::<ArchivedColumns, rancor::Error>(&aligned).is_ok(), "rkyv refuses what we accept");
    }
}

#[test]
fn damage_in_the_right_place_is_accepted_so_the_property_is_not_empty() {
    let mut batch = build(&[Owned { value: Some(b"abcd".to_vec()), ..Owned::default() }]);
    let header = header_of(&batch);
    batch.body[8] ^= 1;
    let view = BatchView::parse(&batch.body, &header).expect("a changed value breaks no rule but the CRC");
    assert_eq!(view.get(0).and_then(|record| record.value), Some(&b"`bcd"[..]));
}

#[test]
fn a_record_too_large_is_found_in_a_body_of_allowed_size() {
    let largest = limits::RECORD_BYTES_MAX as i32;
    let name = |index: u8| vec![b'a' + index; 2];
    let mut columns = Columns {
        key_offsets: vec![0, 2, 4],
        keys: vec![b'k'; 4],
        value_offsets: vec![0, 10, 10 + largest - 6],
        values: vec![b'v'; 10 + largest as usize - 6],
        header_counts: vec![0, 1, 2],
        header_name_offsets: vec![0, 2, 4],
        header_names: [name(0), name(1)].concat(),
        header_value_offsets: vec![0, 3, 5],
        header_values: vec![b'h'; 5],
        ..Columns::default()
    };
    let body = columns.encode();
    let header = header_for(&columns, &body);
    assert!(BatchView::parse(&body, &header).is_ok(), "exactly at the limit");

    columns.header_value_offsets = vec![0, 2, 5];
    let body = columns.encode();
    let refused = BatchView::parse(&body, &header).unwrap_err();
    assert_eq!(refused, BatchError::RecordBytes { record: 1, bytes: limits::RECORD_BYTES_MAX + 1 });
}

#[test]
fn offsets_that_wrap_around_are_refused() {
    // Steps of 2^30 come back to 0 modulo 2^32, which a check of differences alone would take for data of length 0.
    let columns = Columns { value_offsets: vec![0, 1 << 30, i32::MIN, -(1 << 30), 0], ..Columns::default() };
    let body = columns.encode();
    let refused = BatchView::parse(&body, &header_for(&columns, &body)).unwrap_err();
    assert_eq!(refused, BatchError::Column { column: Column::ValueOffsets, fault: ColumnFault::Decreases });
}

#[test]
fn only_columnar_batches_are_read() {
    let batch = build(&[Owned::default()]);
    let header = header_of(&batch);
    let control = EntryHeader { kind: EntryKind::Control, body_format: BodyFormat::Control, ..header };
    assert_eq!(BatchView::parse(&batch.body, &control).unwrap_err().name(), "not_columnar");
    let foreign = EntryHeader { body_format: BodyFormat::Control, ..header };
    assert_eq!(BatchView::parse(&batch.body, &foreign).unwrap_err(), BatchError::NotColumnar);
}
