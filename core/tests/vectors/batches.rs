//! `batches.json`: bodies with the records in them, and bodies to be refused.

use minikafka_core::batch::{BatchBuilder, BatchView, Columns, FinishedBatch, RecordRef, RecordView};
use minikafka_core::checksum::crc32c;
use minikafka_core::entry::{Codec, EntryHeader};
use minikafka_core::{
    Offset, Partition, PartitionKey, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, Sequence, Timestamp, TopicId,
};
use serde::{Deserialize, Serialize};

use crate::{Hex, golden, malformed};

const ABOUT: &str = "\
    Batch bodies (docs/DATA_FILE.md section 1). Bytes are hexadecimal. `header` holds the fields of the \
    entry header that a body is read with. `built`: an encoder must give exactly these bytes for these \
    records. Of `malformed` bodies, `error` is the name of the refusal. Two refusals are not here: \
    not_columnar (no body needed) and record_bytes (2 MiB).";

const RULE: &str = "\
    Record i of 0..1000: key: none if i % 10 == 3, otherwise the decimal digits of i % 100. Value: none \
    if i % 50 == 7, otherwise (i * 7) % 40 bytes, of which byte j is (i + j) % 256. Timestamp: \
    1700000000000 + i - (i % 3) * 5. Headers: if i % 25 == 0, one named n with i as two bytes, \
    little-endian; if i % 100 == 0, after it one named é with no bytes.";

#[derive(Serialize, Deserialize)]
struct Batches {
    about: String,
    valid: Vec<Valid>,
    malformed: Vec<Malformed>,
}

#[derive(Serialize, Deserialize)]
struct Valid {
    name: String,
    built: bool,
    header: HeaderFields,
    body: Hex,
    body_crc: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    records: Vec<Record>,
}

/// A body to be refused.
#[derive(Serialize, Deserialize)]
pub struct Malformed {
    /// What is wrong, in words.
    pub name: String,
    /// Name of the refusal.
    pub error: String,
    /// The column at fault, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The header it comes with.
    pub header: HeaderFields,
    /// The bytes.
    pub body: Hex,
}

/// The fields of an entry header that say something about its body.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HeaderFields {
    /// As in the header, like all the others.
    pub uncompressed_bytes: u32,
    pub record_count: u32,
    pub base_offset: u64,
    pub last_offset_delta: u32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    offset: u64,
    timestamp: i64,
    key: Option<Hex>,
    value: Option<Hex>,
    headers: Vec<(String, Hex)>,
}

impl HeaderFields {
    fn header(&self, body: &[u8]) -> EntryHeader {
        let batch = FinishedBatch {
            body: body.to_vec(),
            codec: Codec::None,
            uncompressed_bytes: self.uncompressed_bytes,
            record_count: self.record_count,
            last_offset_delta: self.last_offset_delta,
            base_timestamp: Timestamp(self.base_timestamp),
            max_timestamp: Timestamp(self.max_timestamp),
        };
        let range = RangeKey { ring: RingId(1), range: RangeId(0) };
        let partition = PartitionKey { topic: TopicId(1), partition: Partition(0) };
        let mut header = batch.header(range, partition, (ProducerId::NONE, ProducerEpoch(0), Sequence(0)));
        header.base_offset = Offset(self.base_offset);
        header
    }
}

impl Record {
    fn new(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Hex::from(*value))).collect();
        Self { offset: 0, timestamp, key: key.map(Hex::from), value: value.map(Hex::from), headers }
    }

    fn of_rule(i: usize) -> Self {
        let key = (i % 10 != 3).then(|| (i % 100).to_string());
        let value: Option<Vec<u8>> = (i % 50 != 7).then(|| (0..(i * 7) % 40).map(|j| (i + j) as u8).collect());
        let number = (i as u16).to_le_bytes();
        let headers: &[(&str, &[u8])] = match i {
            _ if i.is_multiple_of(100) => &[("n", &number), ("é", b"")],
            _ if i.is_multiple_of(25) => &[("n", &number)],
            _ => &[],
        };
        let timestamp = 1_700_000_000_000 + i as i64 - (i as i64 % 3) * 5;
        Self::new(timestamp, key.as_deref().map(str::as_bytes), value.as_deref(), headers)
    }

    fn of_view(record: &RecordView<'_>) -> Self {
        let headers: Vec<_> = record.headers.clone().collect();
        Self { offset: record.offset.0, ..Self::new(record.timestamp.0, record.key, record.value, &headers) }
    }
}

fn build(records: &[Record]) -> FinishedBatch {
    let mut builder = BatchBuilder::with_capacity(1024);
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())).collect();
        let record = RecordRef {
            key: record.key.as_ref().map(|key| key.0.as_slice()),
            value: record.value.as_ref().map(|value| value.0.as_slice()),
            timestamp: Timestamp(record.timestamp),
            headers: &headers,
        };
        builder.push(record).expect("a vector fits in a batch");
    }
    builder.finish()
}

/// A batch that a builder gives.
fn built(name: &str, base_offset: u64, mut records: Vec<Record>) -> Valid {
    let batch = build(&records);
    for (record, offset) in records.iter_mut().zip(base_offset..) {
        record.offset = offset;
    }
    let header = HeaderFields {
        uncompressed_bytes: batch.uncompressed_bytes,
        record_count: batch.record_count,
        base_offset,
        last_offset_delta: batch.last_offset_delta,
        base_timestamp: batch.base_timestamp.0,
        max_timestamp: batch.max_timestamp.0,
    };
    let body_crc = crc32c(&batch.body);
    Valid { name: name.to_owned(), built: true, header, body: Hex(batch.body), body_crc, rule: None, records }
}

/// A batch whose columns a builder would not give.
fn unusual(name: &str, columns: &Columns, mut header: HeaderFields, records: Vec<Record>) -> Valid {
    let body = columns.encode();
    header.uncompressed_bytes = body.len() as u32;
    let body_crc = crc32c(&body);
    Valid { name: name.to_owned(), built: false, header, body: Hex(body), body_crc, rule: None, records }
}

fn valid() -> Vec<Valid> {
    let mut thousand = built("a thousand records by a rule", 5000, (0..1000).map(Record::of_rule).collect());
    thousand.rule = Some(RULE.to_owned());
    thousand.records.clear();
    let mut all = ordinary();
    all.extend(unusual_ones());
    all.push(thousand);
    all
}

fn ordinary() -> Vec<Valid> {
    let value = |value| Record::new(1_700_000_000_000, None, Some(value), &[]);
    let keyed = |key, value| Record::new(1_700_000_000_000, key, value, &[]);
    let timed = |timestamp| Record::new(timestamp, None, Some(b"t"), &[]);
    let with_headers = |headers| Record::new(0, None, Some(b"v"), headers);
    vec![
        built("one plain record", 0, vec![value(b"hello")]),
        built("keys and values", 10, vec![keyed(Some(b"k1"), Some(b"v1")), keyed(Some(b"key2"), Some(b"value2"))]),
        built(
            "some keys absent",
            0,
            vec![keyed(None, Some(b"a")), keyed(Some(b"k"), Some(b"b")), keyed(None, Some(b"c"))],
        ),
        built("nine records, the last without a key", 0, {
            let mut records = vec![keyed(Some(b"k"), Some(b"v")); 8];
            records.push(keyed(None, Some(b"v")));
            records
        }),
        built("tombstones", 7, vec![keyed(Some(b"gone"), None), keyed(Some(b"kept"), Some(b"v"))]),
        built("a tombstone without a key, alone", 0, vec![keyed(None, None)]),
        built(
            "empty keys and values are present",
            0,
            vec![keyed(Some(b""), Some(b"")), keyed(None, None), keyed(Some(b""), Some(b"x"))],
        ),
        built(
            "headers",
            0,
            vec![
                with_headers(&[("trace", b"\x01\x02"), ("trace", b"again"), ("empty", b"")]),
                with_headers(&[]),
                with_headers(&[("", b"a name may be empty")]),
            ],
        ),
        built("header names beyond ASCII", 0, vec![with_headers(&[("größe", b"1"), ("名前", b"2"), ("🦀", b"3")])]),
        built("headers that begin late", 0, vec![with_headers(&[]), with_headers(&[("late", b"1")])]),
        built("timestamps", 3, vec![timed(1_700_000_000_000), timed(1_699_999_999_999), timed(1_700_000_000_250)]),
        built("extreme timestamps", 0, vec![timed(-1), timed(i64::MAX - 1), timed(i64::MIN + 1)]),
    ]
}

fn unusual_ones() -> Vec<Valid> {
    vec![
        unusual(
            "offset deltas, as compaction leaves them",
            &Columns {
                value_offsets: vec![0, 1, 2, 3],
                values: b"abc".to_vec(),
                offset_deltas: vec![0, 4, 9],
                ..Columns::default()
            },
            HeaderFields { base_offset: 100, ..malformed::header_fields(3, 9) },
            [(100, b"a"), (104, b"b"), (109, b"c")]
                .map(|(offset, value)| Record { offset, ..Record::new(0, None, Some(value), &[]) })
                .to_vec(),
        ),
        unusual(
            "bitmaps and deltas that say nothing",
            &Columns {
                key_offsets: vec![0, 0],
                value_offsets: vec![0, 1],
                values: b"a".to_vec(),
                key_validity: vec![0],
                value_validity: vec![1],
                timestamp_deltas: vec![0],
                header_counts: vec![0, 0],
                header_name_offsets: vec![0],
                header_value_offsets: vec![0],
                offset_deltas: vec![0],
                ..Columns::default()
            },
            malformed::header_fields(1, 0),
            vec![Record::new(0, None, Some(b"a"), &[])],
        ),
    ]
}

#[test]
fn batches() {
    let generated = Batches { about: ABOUT.to_owned(), valid: valid(), malformed: malformed::batches() };
    let batches = golden("batches.json", &generated);
    for batch in &batches.valid {
        let name = &batch.name;
        let records: Vec<Record> = match &batch.rule {
            Some(_) => (0..1000).map(|i| Record { offset: 5000 + i as u64, ..Record::of_rule(i) }).collect(),
            None => batch.records.clone(),
        };
        let header = batch.header.header(&batch.body.0);
        let header = EntryHeader::decode_unsealed(&header.encode_unsealed()).unwrap();
        let view = BatchView::parse(&batch.body.0, &header).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read: Vec<_> = view.iter().map(|record| Record::of_view(&record)).collect();
        assert_eq!(read, records, "{name}");
        assert_eq!(header.body_crc, batch.body_crc, "{name}");
        if batch.built {
            assert_eq!(build(&records).body, batch.body.0, "{name}");
        }
    }
    for batch in &batches.malformed {
        let refused = BatchView::parse(&batch.body.0, &batch.header.header(&batch.body.0));
        let error = refused.err().unwrap_or_else(|| panic!("accepted: {}", batch.name));
        let column = error.column().map(|column| column.name());
        assert_eq!((error.name(), column), (batch.error.as_str(), batch.column.as_deref()), "{}", batch.name);
    }
}
