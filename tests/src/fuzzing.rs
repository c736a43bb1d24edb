//! What the fuzzers run, as plain functions: `fuzz/` feeds them with what libFuzzer finds, `tests/corpora.rs` with what it
//! found before.
//!
//! Each takes any bytes and panics when a promise is broken: no parser panics by itself, what decodes encodes to what
//! decodes to the same, and nothing is taken for good whose checksum does not match. Fuzzers do not guess checksums, so the
//! first byte of an input may ask for them to be set right before the bytes are parsed.

use std::fmt::Debug;

use minikafka_core::batch::{BatchBuildError, BatchBuilder, BatchView, RecordRef};
use minikafka_core::chain::peer::PeerMessage;
use minikafka_core::control::ControlEntry;
use minikafka_core::coordination::{BrokerRecord, ClusterRecord, GatewayRecord, RingChunk, TopicBucket};
use minikafka_core::entry::{BodyFormat, Codec, ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use minikafka_core::range_state::RangeState;
use minikafka_core::wire::*;
use minikafka_core::*;
use minikafka_storage::inspect::{FooterImage, SegmentImage, parse_promises};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[path = "fuzzing/frames.rs"]
mod frames;
#[path = "fuzzing/repair.rs"]
pub mod repair;
#[path = "fuzzing/segments.rs"]
mod segments;

pub use frames::frame;
pub use segments::segment;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("frame", frame),
    ("messages", messages),
    ("batch_body", batch_body),
    ("entry", entry),
    ("segment", segment),
    ("footer", footer),
    ("promise", promise),
    ("control", control),
    ("coordination", coordination),
];

/// Generation of the files that are made up.
pub const GENERATION: Generation = Generation(0x1122_3344_5566_7788);
/// The first byte of an input asks for checksums to be set right.
pub const REPAIR: u8 = 1;

fn round_trip<M: Wire + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = M::from_bytes(bytes) {
        let again = M::from_bytes(&message.to_bytes());
        assert_eq!(again.as_ref(), Ok(&message), "{} is not what it was encoded from", std::any::type_name::<M>());
    }
}

/// Every message of the protocol.
pub fn messages(data: &[u8]) {
    round_trip::<Hello>(data);
    round_trip::<HelloReply>(data);
    round_trip::<Proof>(data);
    round_trip::<ErrorReply>(data);
    round_trip::<ProduceRequest>(data);
    round_trip::<ProduceReply>(data);
    round_trip::<FetchRequest>(data);
    round_trip::<FetchReply>(data);
    round_trip::<Explained<ProduceReply>>(data);
    round_trip::<Explained<FetchReply>>(data);
    round_trip::<ListOffsetsRequest>(data);
    round_trip::<ListOffsetsReply>(data);
    round_trip::<ResolveRequest>(data);
    round_trip::<ResolveReply>(data);
    round_trip::<CreateTopicRequest>(data);
    round_trip::<DeleteTopicRequest>(data);
    round_trip::<TopicDescription>(data);
    round_trip::<SealRequest>(data);
    round_trip::<SealReply>(data);
    round_trip::<ReconcileRequest>(data);
    round_trip::<ActivateRequest>(data);
    round_trip::<RangesReply>(data);
    round_trip::<AppendControlRequest>(data);
    round_trip::<AppendControlReply>(data);
    round_trip::<LearnRequest>(data);
    round_trip::<LearnReply>(data);
    round_trip::<MeasureRequest>(data);
    round_trip::<MeasureReply>(data);
    round_trip::<PeerMessage<RunBytes>>(data);
    round_trip::<ComplainRequest>(data);
    round_trip::<GroupHeartbeatRequest>(data);
    round_trip::<GroupHeartbeatReply>(data);
    round_trip::<GroupCommitRequest>(data);
    round_trip::<GroupCommitReply>(data);
    round_trip::<GroupOffsetsRequest>(data);
    round_trip::<GroupOffsetsReply>(data);
    round_trip::<GroupDescribeRequest>(data);
    round_trip::<GroupDescribeReply>(data);
    round_trip::<GroupListRequest>(data);
    round_trip::<GroupListReply>(data);
    round_trip::<GroupDeleteRequest>(data);
    round_trip::<RangeState>(data);
}

/// Records, more exactly last offset delta, base timestamp and body: what a batch body's validity depends on.
fn batch_header(data: &[u8]) -> Option<(EntryHeader, &[u8])> {
    let (count, rest) = data.split_first_chunk::<4>()?;
    let (delta, rest) = rest.split_first_chunk::<4>()?;
    let (timestamp, body) = rest.split_first_chunk::<8>()?;
    let header = EntryHeader {
        kind: EntryKind::Batch,
        body_format: BodyFormat::Columnar,
        codec: Codec::None,
        body_bytes: body.len() as u32,
        uncompressed_bytes: body.len() as u32,
        range: RangeKey { ring: RingId(1), range: RangeId(2) },
        attributes: 0,
        epoch: Epoch(1),
        index: LogIndex(1),
        topic: TopicId(3),
        partition: Partition(4),
        record_count: u32::from_le_bytes(*count),
        base_offset: Offset(0),
        last_offset_delta: u32::from_le_bytes(*delta),
        base_sequence: Sequence(0),
        base_timestamp: Timestamp(i64::from_le_bytes(*timestamp)),
        max_timestamp: Timestamp(0),
        append_timestamp: Timestamp(0),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(0),
        body_crc: checksum::crc32c(body),
        running_hash: RunningHash(0),
    };
    Some((header, body))
}

/// A batch body: what is valid is read whole, and built again from its records.
pub fn batch_body(data: &[u8]) {
    let Some((header, body)) = batch_header(data) else { return };
    let Ok(view) = BatchView::parse(body, &header) else { return };
    assert_eq!(view.iter().count(), header.record_count as usize, "every record is there");
    let mut builder = BatchBuilder::with_capacity(body.len());
    for record in view.iter() {
        let headers: Vec<(&str, &[u8])> = record.headers.clone().collect();
        let pushed = RecordRef { key: record.key, value: record.value, timestamp: record.timestamp, headers: &headers };
        match builder.push(pushed) {
            Ok(_) => {}
            // Columns of another shape may be larger, and timestamps too far apart for one base begin another batch.
            Err(BatchBuildError::Full) => return,
            Err(error) => panic!("a record that was read cannot be written: {error}"),
        }
    }
    let batch = builder.finish();
    let rebuilt_header =
        batch.header(header.range, header.partition_key(), (ProducerId::NONE, ProducerEpoch(0), Sequence(0)));
    let rebuilt = BatchView::parse(&batch.body, &rebuilt_header).expect("what the builder writes is valid");
    for (one, other) in view.iter().zip(rebuilt.iter()) {
        assert_eq!((one.key, one.value, one.timestamp), (other.key, other.value, other.timestamp));
        assert!(one.headers.eq(other.headers), "headers of a record");
    }
}

/// An entry header; whole, and as producers send it.
pub fn entry(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if mode & REPAIR != 0 {
        repair::entry_header(&mut bytes);
    }
    if let Ok(header) = EntryHeader::decode(&bytes) {
        assert_eq!(header.encode()[..], bytes[..ENTRY_HEADER_BYTES], "a header is the bytes it was decoded from");
        let _ = (header.next_offset(), header.entry_bytes(), header.hash_after(RunningHash(1)));
    }
    if let Ok(header) = EntryHeader::decode_unsealed(&bytes) {
        let again = EntryHeader::decode_unsealed(&header.encode_unsealed());
        assert_eq!(again.as_ref(), Ok(&header));
    }
}

/// A footer: the body, then the trailer, as the whole of a file. Its snapshot is taken for a range's state.
pub fn footer(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let mut file = bytes.to_vec();
    file.resize(file.len().next_multiple_of(4096), 0);
    if mode & REPAIR != 0 {
        repair::footer(&mut file, GENERATION);
    }
    let image = SegmentImage::new(&file[..], GENERATION).expect("memory can be read");
    let FooterImage::Good(footer) = image.footer().expect("memory can be read") else { return };
    let rows = footer.partitions().collect::<Vec<_>>();
    assert!(rows.is_sorted_by_key(|row| row.partition), "the partition table is sorted");
    assert_eq!(rows.iter().map(|row| row.extents).sum::<usize>(), footer.row_counts().0, "every extent is someone's");
    round_trip::<RangeState>(footer.snapshot());
}

/// A promise file.
pub fn promise(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let mut file = bytes.to_vec();
    if mode & REPAIR != 0 {
        file.resize(file.len().next_multiple_of(8192), 0);
        repair::promise_slots(&mut file);
    }
    let (table, faults) = parse_promises(&file);
    let is_sorted = table.promises.is_sorted_by_key(|promise| promise.range);
    assert!(is_sorted && (table.sequence > 0 || table.promises.is_empty() || !faults.is_empty() || mode & REPAIR != 0));
}

/// Control entries, one behind the other, each in front of it its length: folded into a range's state.
pub fn control(data: &[u8]) {
    let mut state = RangeState::default();
    let mut rest = data;
    let mut index = LogIndex(0);
    while let Some((&length, behind)) = rest.split_first() {
        let (bytes, behind) = behind.split_at(behind.len().min(length.into()));
        rest = behind;
        round_trip::<ControlEntry>(bytes);
        let Ok(control) = ControlEntry::from_bytes(bytes) else { continue };
        index = index.next();
        let (header, _) = batch_header(&[0; 16]).expect("long enough for a header");
        let header = EntryHeader { kind: EntryKind::Control, body_format: BodyFormat::Control, index, ..header };
        state.apply(&header, Some(&control));
        let partition = control.partition().and_then(|partition| state.partition(partition));
        assert!(partition.is_none_or(|partition| partition.log_start <= partition.next_offset));
    }
    assert_eq!(RangeState::restore(&state.snapshot()).as_ref(), Ok(&state), "a state is what its snapshot says");
}

/// The records of the coordinator.
pub fn coordination(data: &[u8]) {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
        let Ok(record) = serde_json::from_slice::<T>(data) else { return };
        let text = serde_json::to_vec(&record).expect("a record that was read can be written");
        let again: T = serde_json::from_slice(&text).expect("a record that was written can be read");
        assert_eq!(again, record);
    }
    check::<ClusterRecord>(data);
    check::<BrokerRecord>(data);
    check::<GatewayRecord>(data);
    check::<RingChunk>(data);
    check::<TopicBucket>(data);
    if let Ok(chunk) = serde_json::from_slice::<RingChunk>(data) {
        let _ = chunk.ranges.iter().map(|range| range.epoch_max()).max();
    }
}
