//! Batches that are not what their headers say: refused whole, before anything of them is written.

use minikafka_client::core::batch::{BatchView, Columns, FinishedBatch};
use minikafka_client::core::entry::{Codec, ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use minikafka_client::core::wire::{Api, ProduceReply, ProduceRequest, Wire};
use minikafka_client::core::{
    Epoch, ErrorCode, LogIndex, Offset, ProducerEpoch, ProducerId, RunningHash, Sequence, Timestamp, checksum, limits,
};
use minikafka_tests::raw::{RawClient, frame_with};
use minikafka_tests::source;
use serde::Deserialize;

use super::scene::{Scene, Target, produce};

/// As many malformed bodies as there were when this was written: a file that lost some proves less.
const MALFORMED_MIN: usize = 57;

/// The part of `tests/vectors/batches.json` that is needed here.
#[derive(Deserialize)]
struct Vectors {
    malformed: Vec<Malformed>,
}

#[derive(Deserialize)]
struct Malformed {
    name: String,
    error: String,
    header: HeaderFields,
    body: String,
}

#[derive(Deserialize)]
struct HeaderFields {
    uncompressed_bytes: u32,
    record_count: u32,
    base_offset: u64,
    last_offset_delta: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Malformed {
    fn body(&self) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&self.body[at..at + 2], 16).expect("hexadecimal digits");
        (0..self.body.len()).step_by(2).map(digit).collect()
    }

    fn request(&self, target: &Target) -> (ProduceRequest, Vec<u8>) {
        let batch = FinishedBatch {
            body: self.body(),
            codec: Codec::None,
            uncompressed_bytes: self.header.uncompressed_bytes,
            record_count: self.header.record_count,
            last_offset_delta: self.header.last_offset_delta,
            base_timestamp: Timestamp(self.header.base_timestamp),
            max_timestamp: Timestamp(self.header.max_timestamp),
        };
        request(target, batch)
    }
}

fn request(target: &Target, batch: FinishedBatch) -> (ProduceRequest, Vec<u8>) {
    let producer = (ProducerId::NONE, ProducerEpoch(0), Sequence(0));
    let header = batch.header(target.range, target.partition, producer);
    (ProduceRequest { epoch: target.epoch, timeout_ms: 10_000, header }, batch.body)
}

#[test]
fn bodies_whose_columns_lie() {
    let mut scene = Scene::start();
    let path = source::repository().join("tests/vectors/batches.json");
    let vectors: Vectors =
        serde_json::from_slice(&std::fs::read(path).expect("the vectors are there")).expect("vectors as documented");
    assert!(vectors.malformed.len() >= MALFORMED_MIN, "only {} malformed bodies", vectors.malformed.len());
    let mut refused_as_batch = 0;
    for (number, malformed) in vectors.malformed.iter().enumerate() {
        assert_eq!(malformed.header.base_offset, 0, "a producer sends no offset");
        let target = &scene.targets[number % scene.targets.len()];
        let (request, body) = malformed.request(target);
        let what = format!("{} ({})", malformed.name, malformed.error);
        let mut client = RawClient::greeted(&target.address);
        // What the entry header says by itself is part of the frame; the rest is the batch's.
        if EntryHeader::decode_unsealed(&request.header.encode_unsealed()).is_err() {
            client.send(&produce(&request, &body));
            client.is_refused(ErrorCode::MalformedFrame, &what);
            continue;
        }
        let answer = client.ask(&produce(&request, &body));
        answer.is_error(ErrorCode::InvalidBatch, &what);
        // For this very reason, and not for another that the vectors have by the way (most have offsets of compaction).
        let reason = BatchView::parse(&body, &request.header).expect_err("it is malformed");
        assert_eq!((reason.name(), reason.to_string()), (malformed.error.as_str(), answer.message()), "{what}");
        refused_as_batch += 1;
    }
    assert!(refused_as_batch >= MALFORMED_MIN - 5, "only {refused_as_batch} got as far as their columns");
    scene.undisturbed();
    scene.finish();
}

#[test]
fn bodies_that_were_damaged() {
    let mut scene = Scene::start();
    let target = scene.targets[1].clone();
    let mut client = RawClient::greeted(&target.address);
    for size in [1, 5_000, 255 << 10, 256 << 10, 1 << 20] {
        let value = vec![9; size];
        let (request, body) = target.batch(&[&value]);
        for at in [0, body.len() / 2, body.len() - 1] {
            let mut damaged = body.clone();
            damaged[at] ^= 0x10;
            let what = format!("byte {at} of {}", body.len());
            client.ask(&produce(&request, &damaged)).is_error(ErrorCode::CorruptBatch, &what);
        }
        let mut lying = request.clone();
        lying.header.body_crc ^= 1;
        client.ask(&produce(&lying, &body)).is_error(ErrorCode::CorruptBatch, "a wrong checksum");
    }
    scene.undisturbed();
    scene.finish();
}

#[test]
fn headers_that_contradict_their_batch() {
    let mut scene = Scene::start();
    let target = scene.targets[2].clone();
    let (good, body) = target.batch(&[b"one", b"two"]);
    let spoil = |change: &dyn Fn(&mut EntryHeader)| {
        let mut request = good.clone();
        change(&mut request.header);
        request
    };
    let mut client = RawClient::greeted(&target.address);
    for (what, request) in [
        ("an epoch, which is the broker's", spoil(&|header| header.epoch = Epoch(1))),
        ("an index, which is the broker's", spoil(&|header| header.index = LogIndex(1))),
        ("an offset, which is the broker's", spoil(&|header| header.base_offset = Offset(1))),
        ("a time, which is the broker's", spoil(&|header| header.append_timestamp = Timestamp(1))),
        ("a hash, which is the broker's", spoil(&|header| header.running_hash = RunningHash(1))),
        ("a last offset beyond its records", spoil(&|header| header.last_offset_delta = 5)),
        ("a length unlike the frame's", spoil(&|header| (header.body_bytes, header.uncompressed_bytes) = (8, 8))),
    ] {
        client.ask(&produce(&request, &body)).is_error(ErrorCode::InvalidBatch, what);
    }
    let header_at = ProduceRequest::to_bytes(&good).len() - ENTRY_HEADER_BYTES;
    for (what, at, value) in [
        ("another magic", 0, 0xff),
        ("another version", 4, 2),
        ("no known kind", 5, 3),
        ("a control entry with records", 5, EntryKind::Control as u8),
        ("no known body format", 6, 9),
        ("no known codec", 7, 3),
        ("attributes", 18, 1),
        ("a body over the limit", 11, 0xff),
        ("a negative sequence", 71, 0x80),
        ("reserved bits", 106, 1),
        ("more reserved bits", 124, 1),
    ] {
        let mut request = good.clone();
        request.header.producer_id = ProducerId(5);
        let mut head = request.to_bytes();
        head[header_at + at] = value;
        let mut client = RawClient::greeted(&target.address);
        client.send(&frame_with(Api::Produce, 7, &head, &body));
        client.is_refused(ErrorCode::MalformedFrame, what);
    }
    scene.undisturbed();
    scene.finish();
}

/// Columns of one record, which no builder would put together.
fn one_record(value_bytes: usize) -> Columns {
    Columns {
        value_offsets: vec![0, i32::try_from(value_bytes).expect("less than 2 GiB")],
        values: vec![3; value_bytes],
        ..Columns::default()
    }
}

fn batch_of(columns: &Columns, record_count: u32) -> FinishedBatch {
    let body = columns.encode();
    FinishedBatch {
        codec: Codec::None,
        uncompressed_bytes: body.len() as u32,
        body,
        record_count,
        last_offset_delta: record_count - 1,
        base_timestamp: Timestamp(1),
        max_timestamp: Timestamp(1),
    }
}

#[test]
fn records_and_batches_over_their_limits() {
    let mut scene = Scene::start();
    let target = scene.targets[3].clone();
    let mut client = RawClient::greeted(&target.address);
    let (too_large, body) = request(&target, batch_of(&one_record(limits::RECORD_BYTES_MAX as usize + 1), 1));
    client.ask(&produce(&too_large, &body)).is_error(ErrorCode::RecordTooLarge, "one byte over the limit");
    let compacted = Columns { offset_deltas: vec![0], ..one_record(1) };
    let (request_of_compaction, body) = request(&target, batch_of(&compacted, 1));
    client.ask(&produce(&request_of_compaction, &body)).is_error(ErrorCode::InvalidBatch, "offsets of compaction");

    let small = scene.topic_of_one("small", 2_000);
    let mut client = RawClient::greeted(&small.address);
    let (too_large, body) = small.batch(&[&[1; 2_000]]);
    client.ask(&produce(&too_large, &body)).is_error(ErrorCode::BatchTooLarge, "over the topic's own limit");
    assert_eq!(small.offsets(), (Offset(0), Offset(0)));
    let (fits, body) = small.batch(&[&[1; 1_500]]);
    client.ask(&produce(&fits, &body)).good::<ProduceReply>();
    scene.undisturbed();
    scene.finish();
}

#[test]
fn sequences_out_of_their_order() {
    let mut scene = Scene::start();
    let small = scene.topic_of_one("sequences", 1 << 20);
    let mut client = RawClient::greeted(&small.address);
    let mut send = |producer: i64, epoch: i16, sequence: i32, value: &[u8]| {
        let (mut request, body) = small.batch(&[value]);
        request.header.producer_id = ProducerId(producer);
        request.header.producer_epoch = ProducerEpoch(epoch);
        request.header.base_sequence = Sequence(sequence);
        request.header.body_crc = checksum::crc32c(&body);
        client.ask(&produce(&request, &body))
    };
    send(1, 0, 5, b"x").is_error(ErrorCode::UnknownProducer, "a producer that does not begin with 0");
    let first: ProduceReply = send(1, 3, 0, b"first").good();
    send(1, 3, 2, b"third").is_error(ErrorCode::OutOfOrder, "one is missing");
    let second: ProduceReply = send(1, 3, 1, b"second").good();
    assert_eq!((first.base_offset, second.base_offset), (Offset(0), Offset(1)));
    for (sequence, expected) in [(0, first.base_offset), (1, second.base_offset)] {
        assert_eq!(send(1, 3, sequence, b"again").good::<ProduceReply>().base_offset, expected, "its original offset");
    }
    send(1, 2, 2, b"old").is_error(ErrorCode::ProducerFenced, "an older instance");
    assert_eq!(small.offsets(), (Offset(0), Offset(2)));
    scene.undisturbed();
    scene.finish();
}
