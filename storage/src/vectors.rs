//! The golden vectors of the disk formats, `tests/vectors/disk.json`: blessed with
//! `MINIKAFKA_BLESS=1 cargo test -p minikafka-storage vectors`, and read back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use minikafka_core::{
    Epoch, FlushNumber, Generation, LogIndex, LogPoint, RangeId, RangeKey, RingId, RunningHash, Timestamp,
};
use serde_json::{Value, json};

use crate::flush::FlushHeader;
use crate::footer::Trailer;
use crate::freed_runs::{self, FreedBytes, FreedRun, FreedRuns};
use crate::promise_file::{self, Promise};

const ABOUT: &str = "\
    Disk formats (docs/DATA_FILE.md sections 3, 5, 6 and 9). `fields` are what `bytes` say; a trailer is \
    zero behind its first 144 bytes, up to 4,096, a list of freed runs behind its rows. Every single flipped bit of \
    `bytes` is refused.";

const FLUSH: FlushHeader = FlushHeader {
    generation: Generation(0x1122_3344_5566_7788),
    number: FlushNumber(7),
    length: 64 + 256,
    first_index: LogIndex(12),
    durable_index: LogIndex(11),
    previous_hash: RunningHash(0x0102_0304_0506_0708),
    marker: Epoch(3),
    marker_only: false,
    size_class: 23,
};

const TRAILER: Trailer = Trailer {
    generation: FLUSH.generation,
    body_crc: 0xdead_beef,
    footer_position: 1 << 20,
    footer_bytes: 32 + 2 * 28 + 3 * 32 + 100,
    start: LogPoint { index: LogIndex(11), hash: FLUSH.previous_hash },
    end: LogPoint { index: LogIndex(99), hash: RunningHash(0x1020_3040_5060_7080) },
    last_flush_number: FlushNumber(9),
    marker: Epoch(3),
    last_epoch: Epoch(3),
    first_timestamp: Timestamp(1_790_000_000_000),
    last_timestamp: Timestamp(1_790_000_000_123),
    partition_count: 1,
    extent_count: 2,
    flush_count: 3,
    snapshot_bytes: 100,
};

fn promises() -> Vec<Promise> {
    let range = |range| RangeKey { ring: RingId(1), range: RangeId(range) };
    vec![
        Promise { range: range(5), promised: Epoch(4), marker: Epoch(0), has_log: true },
        Promise { range: range(6), promised: Epoch(4), marker: Epoch(4), has_log: false },
    ]
}

fn freed() -> FreedRuns {
    let run = |first_index, last_index, hash_before, hash_after| FreedRun {
        first_index: LogIndex(first_index),
        last_index: LogIndex(last_index),
        hash_before: RunningHash(hash_before),
        hash_after: RunningHash(hash_after),
    };
    FreedRuns::new(vec![
        FreedBytes { run: run(12, 30, FLUSH.previous_hash.0, 0x77), position: 0, bytes: 70_000 },
        FreedBytes { run: run(41, 44, 0x78, 0x79), position: 131_072, bytes: 1 << 17 },
    ])
}

fn sidecar() -> Vec<u8> {
    freed_runs::encode(FLUSH.generation, &freed())
}

fn promise_slot() -> Vec<u8> {
    let table: BTreeMap<_, _> = promises().into_iter().map(|promise| (promise.range, promise)).collect();
    promise_file::encode_slot(&table, 2, 4096)[..32 + 2 * 24].to_vec()
}

fn generated() -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let flush = json!({"generation": FLUSH.generation.0, "number": 7, "length": 320, "first_index": 12,
        "durable_index": 11, "previous_hash": FLUSH.previous_hash.0, "marker": 3,
        "marker_only": false, "size_class": 23});
    let trailer = json!({"generation": FLUSH.generation.0, "body_crc": TRAILER.body_crc, "footer_position": 1 << 20,
        "footer_bytes": TRAILER.footer_bytes, "first_index": 12, "last_index": 99,
        "hash_before": TRAILER.start.hash.0, "hash_after": TRAILER.end.hash.0, "last_flush_number": 9, "marker": 3,
        "last_epoch": 3, "first_timestamp": TRAILER.first_timestamp.0, "last_timestamp": TRAILER.last_timestamp.0,
        "partition_count": 1, "extent_count": 2, "flush_count": 3, "snapshot_bytes": 100});
    let promise = |promise: &Promise| {
        json!({"ring": promise.range.ring.0, "range": promise.range.range.0, "promised": promise.promised.0,
            "marker": promise.marker.0, "has_log": promise.has_log})
    };
    let slot = json!({"sequence": 2, "promises": promises().iter().map(promise).collect::<Vec<_>>()});
    let freed_run = |freed: &FreedBytes| {
        json!({"first_index": freed.run.first_index.0, "last_index": freed.run.last_index.0, "position": freed.position,
            "bytes": freed.bytes, "hash_before": freed.run.hash_before.0, "hash_after": freed.run.hash_after.0})
    };
    let freed_runs =
        json!({"generation": FLUSH.generation.0, "runs": freed().iter().map(freed_run).collect::<Vec<_>>()});
    json!({
        "about": ABOUT,
        "flush_header": {"fields": flush, "bytes": hex(&FLUSH.encode())},
        "segment_trailer": {"fields": trailer, "bytes": hex(&TRAILER.encode()[..144])},
        "freed_runs": {"fields": freed_runs, "bytes": hex(&sidecar()[..32 + 2 * 48])},
        "promise_slot": {"fields": slot, "bytes": hex(&promise_slot())},
    })
}

#[test]
fn vectors_are_what_is_written_and_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/disk.json");
    let text = serde_json::to_string_pretty(&generated()).expect("vectors are plain data") + "\n";
    if std::env::var_os("MINIKAFKA_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).expect("the repository is writable when blessing");
    }
    let stored = std::fs::read_to_string(&path).expect("the vectors are in the repository");
    assert_eq!(stored, text, "a format changed; if it was meant to, bless it with MINIKAFKA_BLESS=1");

    assert_eq!(FlushHeader::decode(&FLUSH.encode()), Some(FLUSH));
    assert_eq!(Trailer::decode(&TRAILER.encode(), TRAILER.generation), Some(TRAILER));
    let found = freed_runs::decode(&sidecar(), FLUSH.generation).expect("just written");
    assert!(found.iter().eq(freed().iter()));
    let (sequence, table) = promise_file::decode_slot(&promise_slot()).expect("just written");
    assert_eq!((sequence, table.into_values().collect::<Vec<_>>()), (2, promises()));
}

#[test]
fn every_flipped_bit_is_refused() {
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    let slot = promise_slot();
    for bit in 0..slot.len() * 8 {
        assert!(promise_file::decode_slot(&flipped(&slot, bit)).is_none(), "promise slot, bit {bit}");
    }
    let sidecar = sidecar();
    for bit in 0..sidecar.len() * 8 {
        let found = freed_runs::decode(&flipped(&sidecar, bit), FLUSH.generation);
        assert!(found.is_none(), "freed runs, bit {bit}");
    }
    let trailer = TRAILER.encode();
    for bit in 0..trailer.len() * 8 {
        assert_eq!(Trailer::decode(&flipped(&trailer, bit), TRAILER.generation), None, "trailer, bit {bit}");
    }
}
