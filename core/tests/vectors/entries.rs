//! `entries.json`: a log of entry headers as producers send them and as logs hold them, and headers to be refused.

use minikafka_core::entry::{BodyFormat, Codec, EntryError, EntryHeader, EntryKind};
use minikafka_core::{
    Epoch, LogIndex, Offset, Partition, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, RunningHash, Sequence,
    Timestamp, TopicId, limits,
};
use serde::{Deserialize, Serialize};

use crate::{Hex, golden};

const ABOUT: &str = "\
    Entry headers (docs/DATA_FILE.md section 2). `log` is a range log: entry by entry the fields, the \
    header as its producer sends it (what the head fills in is zero, no header_crc), and as logs hold \
    it. Of `malformed` headers, `sealed` says whether the header comes from a log (header_crc counts), \
    and `error` is the name of the refusal.";

#[derive(Serialize, Deserialize)]
struct Entries {
    about: String,
    log: Vec<Entry>,
    malformed: Vec<Malformed>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    fields: Fields,
    unsealed: Hex,
    previous_hash: u64,
    running_hash: u64,
    header_crc: u32,
    sealed: Hex,
}

#[derive(Serialize, Deserialize)]
struct Malformed {
    name: String,
    sealed: bool,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    bytes: Hex,
}

/// The fields, without the hash and checksum that follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fields {
    kind: u8,
    body_format: u8,
    codec: u8,
    body_bytes: u32,
    uncompressed_bytes: u32,
    ring: u16,
    range: u32,
    epoch: u64,
    index: u64,
    topic_id: u64,
    partition: u32,
    record_count: u32,
    base_offset: u64,
    last_offset_delta: u32,
    base_sequence: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    append_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    body_crc: u32,
}

impl Fields {
    fn header(self) -> EntryHeader {
        EntryHeader {
            kind: if self.kind == 1 { EntryKind::Batch } else { EntryKind::Control },
            body_format: if self.body_format == 1 { BodyFormat::Columnar } else { BodyFormat::Control },
            codec: Codec::from_number(self.codec).expect("a codec of the format"),
            body_bytes: self.body_bytes,
            uncompressed_bytes: self.uncompressed_bytes,
            range: RangeKey { ring: RingId(self.ring), range: RangeId(self.range) },
            attributes: 0,
            epoch: Epoch(self.epoch),
            index: LogIndex(self.index),
            topic: TopicId(self.topic_id),
            partition: Partition(self.partition),
            record_count: self.record_count,
            base_offset: Offset(self.base_offset),
            last_offset_delta: self.last_offset_delta,
            base_sequence: Sequence(self.base_sequence),
            base_timestamp: Timestamp(self.base_timestamp),
            max_timestamp: Timestamp(self.max_timestamp),
            append_timestamp: Timestamp(self.append_timestamp),
            producer_id: ProducerId(self.producer_id),
            producer_epoch: ProducerEpoch(self.producer_epoch),
            body_crc: self.body_crc,
            running_hash: RunningHash(0),
        }
    }
}

/// What the producer knows: the head fills in the rest.
fn as_produced(mut header: EntryHeader) -> EntryHeader {
    header.epoch = Epoch(0);
    header.index = LogIndex(0);
    header.base_offset = Offset(0);
    header.append_timestamp = Timestamp(0);
    header.running_hash = RunningHash(0);
    header
}

/// A header as a producer sends it.
pub fn produced() -> EntryHeader {
    as_produced(PLAIN.header())
}

const PLAIN: Fields = Fields {
    kind: 1,
    body_format: 1,
    codec: 0,
    body_bytes: 125,
    uncompressed_bytes: 125,
    ring: 3,
    range: 17,
    epoch: 1,
    index: 1,
    topic_id: 0x1122_3344_5566_7788,
    partition: 5,
    record_count: 1,
    base_offset: 0,
    last_offset_delta: 0,
    base_sequence: 0,
    base_timestamp: 1_700_000_000_000,
    max_timestamp: 1_700_000_000_000,
    append_timestamp: 1_700_000_000_003,
    producer_id: -1,
    producer_epoch: 0,
    body_crc: 0xdead_beef,
};

const CONTROL: Fields = Fields {
    kind: 2,
    body_format: 0,
    body_bytes: 40,
    uncompressed_bytes: 40,
    index: 2,
    record_count: 0,
    base_offset: 0,
    base_timestamp: 0,
    max_timestamp: 0,
    append_timestamp: 1_700_000_000_004,
    body_crc: 0x0bad_cafe,
    ..PLAIN
};

/// Every field as large as it may be or unlike its neighbours, so that none can stand in for another.
const LARGE: Fields = Fields {
    codec: 2,
    body_bytes: limits::BATCH_BODY_BYTES_MAX,
    uncompressed_bytes: limits::BATCH_UNCOMPRESSED_BYTES_MAX,
    ring: u16::MAX,
    range: u32::MAX - 1,
    epoch: u64::MAX - 2,
    index: 3,
    topic_id: u64::MAX - 3,
    partition: u32::MAX - 4,
    record_count: limits::BATCH_RECORDS_MAX,
    base_offset: i64::MAX as u64,
    last_offset_delta: u32::MAX - 5,
    base_sequence: i32::MAX,
    base_timestamp: i64::MIN,
    max_timestamp: i64::MAX - 6,
    append_timestamp: i64::MAX - 7,
    producer_id: i64::MAX - 8,
    producer_epoch: i16::MIN,
    body_crc: u32::MAX - 9,
    ..PLAIN
};

fn log() -> Vec<Entry> {
    let mut previous = RunningHash(0);
    let entries = [("a plain batch", PLAIN), ("a control entry", CONTROL), ("a batch of extremes", LARGE)];
    let mut seal = |(name, fields): (&str, Fields)| {
        let mut header = fields.header();
        let previous_hash = previous.0;
        previous = header.seal(previous);
        let sealed = header.encode();
        Entry {
            name: name.to_owned(),
            fields,
            unsealed: as_produced(header).encode_unsealed().as_slice().into(),
            previous_hash,
            running_hash: header.running_hash.0,
            header_crc: u32::from_le_bytes(sealed[120..124].try_into().expect("four bytes")),
            sealed: sealed.as_slice().into(),
        }
    };
    entries.map(&mut seal).into()
}

fn malformed() -> Vec<Malformed> {
    let produced = as_produced(PLAIN.header()).encode_unsealed();
    let control = as_produced(CONTROL.header()).encode_unsealed();
    let broken = |base: &[u8], sealed, name: &str, (error, field): (&str, &str), at: usize, bytes: &[u8]| {
        let mut header = base.to_vec();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        let field = (!field.is_empty()).then(|| field.to_owned());
        Malformed { name: name.to_owned(), sealed, error: error.to_owned(), field, bytes: Hex(header) }
    };
    let batch = |name: &str, fault, at, bytes: &[u8]| broken(&produced, false, name, fault, at, bytes);
    let over = |limit: u32| (limit + 1).to_le_bytes();
    let short = |name: &str, len: usize| broken(&produced[..len], false, name, ("short", ""), 0, &[]);
    let mut sealed = PLAIN.header();
    sealed.seal(RunningHash(0));
    let sealed = sealed.encode();
    vec![
        short("nothing at all", 0),
        short("a byte too few", 127),
        batch("another magic", ("magic", ""), 3, b"2"),
        batch("a newer version", ("version", ""), 4, &[2]),
        batch("no kind", ("field", "kind"), 5, &[0]),
        batch("an unknown kind", ("field", "kind"), 5, &[3]),
        batch("a foreign batch, reserved", ("field", "body_format"), 6, &[2]),
        batch("a batch with a control entry's body", ("field", "body_format"), 6, &[0]),
        broken(&control, false, "a control entry with columns", ("field", "body_format"), 6, &[1]),
        batch("an unknown codec", ("field", "codec"), 7, &[3]),
        batch("a body too large", ("field", "body_bytes"), 8, &over(limits::BATCH_BODY_BYTES_MAX)),
        batch("two sizes of one uncompressed body", ("field", "uncompressed_bytes"), 12, &[124]),
        batch("a body too large once decompressed", ("field", "uncompressed_bytes"), 7, &{
            let mut bytes = [2, 125, 0, 0, 0, 0, 0, 0, 0];
            bytes[5..].copy_from_slice(&over(limits::BATCH_UNCOMPRESSED_BYTES_MAX));
            bytes
        }),
        batch("an unknown attribute", ("field", "attributes"), 18, &[1]),
        batch("a batch without records", ("field", "record_count"), 52, &[0]),
        batch("too many records", ("field", "record_count"), 52, &over(limits::BATCH_RECORDS_MAX)),
        broken(&control, false, "a control entry with records", ("field", "record_count"), 52, &[1]),
        batch("a base offset beyond 63 bits", ("field", "base_offset"), 63, &[0x80]),
        batch("more records than offsets", ("field", "last_offset_delta"), 52, &[2]),
        batch("an idempotent producer with a negative sequence", ("field", "base_sequence"), 68, &{
            let mut bytes = [0; 36];
            bytes[..4].copy_from_slice(&(-1_i32).to_le_bytes());
            bytes
        }),
        batch("something in the reserved bytes at 106", ("field", "reserved"), 107, &[1]),
        batch("something in the reserved bytes at 124", ("field", "reserved"), 124, &[1]),
        broken(&sealed, true, "a flipped bit in a field", ("header_crc", ""), 24, &[sealed[24] ^ 4]),
        broken(&sealed, true, "a flipped bit in the running hash", ("header_crc", ""), 119, &[sealed[119] ^ 0x80]),
        broken(&sealed, true, "a flipped bit in the checksum", ("header_crc", ""), 120, &[sealed[120] ^ 1]),
        broken(&produced, true, "a produced header in a log", ("header_crc", ""), 0, &[]),
    ]
}

/// Name of a refusal, and the field it is about.
fn fault_of(error: &EntryError) -> (&'static str, Option<&'static str>) {
    match error {
        EntryError::Short(_) => ("short", None),
        EntryError::Magic(_) => ("magic", None),
        EntryError::Version(_) => ("version", None),
        EntryError::HeaderCrc { .. } => ("header_crc", None),
        EntryError::Field { field, .. } => ("field", Some(field)),
    }
}

#[test]
fn entries() {
    let generated = Entries { about: ABOUT.to_owned(), log: log(), malformed: malformed() };
    let entries = golden("entries.json", &generated);
    let mut previous = RunningHash(0);
    for entry in &entries.log {
        let name = &entry.name;
        let mut header =
            EntryHeader::decode_unsealed(&entry.unsealed.0).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(header, as_produced(entry.fields.header()), "{name}");
        // What the head does with it.
        header.epoch = Epoch(entry.fields.epoch);
        header.index = LogIndex(entry.fields.index);
        header.base_offset = Offset(entry.fields.base_offset);
        header.append_timestamp = Timestamp(entry.fields.append_timestamp);
        assert_eq!(previous.0, entry.previous_hash, "{name}");
        previous = header.seal(previous);
        assert_eq!(previous.0, entry.running_hash, "{name}");
        assert_eq!(header.encode().as_slice(), entry.sealed.0, "{name}");
        assert_eq!(entry.sealed.0[120..124], entry.header_crc.to_le_bytes(), "{name}");
        assert_eq!(EntryHeader::decode(&entry.sealed.0), Ok(header), "{name}");
    }
    for header in &entries.malformed {
        let decode = if header.sealed { EntryHeader::decode } else { EntryHeader::decode_unsealed };
        let error = decode(&header.bytes.0).expect_err(&header.name);
        assert_eq!(fault_of(&error), (header.error.as_str(), header.field.as_deref()), "{}", header.name);
    }
}
