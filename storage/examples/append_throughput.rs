//! Measures appends to range logs on the real disk, one shard, beside the plain figures of the design's section 11:
//! `cargo run --release -p minikafka-storage --example append_throughput -- DIRECTORY [seconds] [core]`.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use minikafka_core::checksum;
use minikafka_core::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use minikafka_core::limits::UNCOPIED_BODY_BYTES_MIN;
use minikafka_core::{
    Epoch, LogIndex, LogPoint, Offset, Partition, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, RunningHash,
    Sequence, ShardId, Timestamp, TopicId,
};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::dma::{DmaDisk, choose_durability};
use minikafka_storage::{Body, Damage, RangeLog, RecoveryVisitor, ShardStorage, StorageConfig};

/// A state of nothing.
struct NoState;

impl RecoveryVisitor for NoState {
    fn snapshot(&mut self, _snapshot: Option<&[u8]>) {}
    fn entry(&mut self, _header: &EntryHeader, _body: &[u8]) {}
    fn header(&mut self, _header: &EntryHeader) {}
    fn take_snapshot(&mut self) -> Vec<u8> {
        Vec::new()
    }
    fn damaged(&mut self, _damage: &Damage) {}
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| "append-throughput".to_owned()));
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(4);
    let core = arguments.next().and_then(|core| core.parse().ok()).unwrap_or(0);
    std::fs::create_dir_all(&dir).expect("create the directory");
    let builder = LocalExecutorBuilder::new(Placement::Fixed(core)).io_memory(256 << 20);
    let thread = builder.spawn(move || async move {
        println!("chosen here: {:?}", choose_durability(&dir).await.expect("a choice"));
        for durability in [Durability::Dsync, Durability::GroupFdatasync] {
            for kib in [16, 64, 256, 1024] {
                one_range(&dir, durability, kib << 10, Duration::from_secs(seconds)).await;
            }
            many_ranges(&dir, durability, 64, Duration::from_secs(seconds)).await;
        }
    });
    thread.expect("an executor").join().expect("the measurement runs");
}

fn header(range: RangeKey, index: u64, partition: u32, body: &[u8]) -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Batch,
        body_format: BodyFormat::Columnar,
        codec: Codec::None,
        body_bytes: body.len() as u32,
        uncompressed_bytes: body.len() as u32,
        range,
        attributes: 0,
        epoch: Epoch(1),
        index: LogIndex(index),
        topic: TopicId(1),
        partition: Partition(partition),
        record_count: 1,
        base_offset: Offset(index / 64),
        last_offset_delta: 0,
        base_sequence: Sequence(0),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        append_timestamp: Timestamp(0),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(0),
        body_crc: checksum::crc32c(body),
        running_hash: RunningHash(0),
    }
}

async fn open(dir: &Path, durability: Durability, ranges: u32) -> Vec<RangeLog<DmaDisk>> {
    let disk = DmaDisk::open(dir, durability).await.expect("a disk");
    let config = StorageConfig { pool_bytes_max: 4 << 30, ..StorageConfig::default() };
    let storage = Rc::new(ShardStorage::open(disk, dir, ShardId(0), 1, config).await.expect("storage"));
    let mut logs = Vec::new();
    for range in 0..ranges {
        let range = RangeKey { ring: RingId(1), range: RangeId(range) };
        logs.push(RangeLog::open(storage.clone(), range, &mut NoState).await.expect("a log").log);
    }
    logs
}

/// Appends one entry and keeps the log short.
fn append(log: &RangeLog<DmaDisk>, range: u32, body: &[u8], end: &mut LogPoint) {
    let range = RangeKey { ring: RingId(1), range: RangeId(range) };
    let mut header = header(range, end.index.0 + 1, (end.index.0 % 64) as u32, body);
    *end = LogPoint { index: header.index, hash: header.seal(end.hash) };
    if log.must_roll(header.entry_bytes()) {
        log.roll(Vec::new());
    }
    let body = if body.len() as u32 >= UNCOPIED_BODY_BYTES_MIN {
        Body::Whole(log.body_buffer(body.len() as u32))
    } else {
        Body::Copied(body)
    };
    log.append(&header, body).expect("append");
}

async fn one_range(dir: &Path, durability: Durability, body_bytes: usize, duration: Duration) {
    let logs = open(dir, durability, 1).await;
    let log = &logs[0];
    let body = vec![0x5a; body_bytes];
    let mut end = LogPoint::START;
    // The first part fills the pool, so that the second one writes to recycled files, as a log in use does.
    for measured in [false, true] {
        let (start, from) = (Instant::now(), end.index.0);
        while start.elapsed() < duration {
            log.append_space().await.expect("space");
            append(log, 0, &body, &mut end);
            if end.index.0.is_multiple_of(256) {
                log.set_committed(log.durable_index());
                log.free_space(&|_| None).await.expect("free space");
            }
        }
        log.durable_above(LogIndex(end.index.0 - 1)).await.expect("durable");
        let bytes = (end.index.0 - from) as f64 * body_bytes as f64;
        if measured {
            let rate = bytes / start.elapsed().as_secs_f64() / 1e6;
            println!("{durability:?}, one range, batches of {} KiB: {rate:.0} MB/s", body_bytes >> 10);
        }
    }
    log.delete().await.expect("delete");
}

async fn many_ranges(dir: &Path, durability: Durability, ranges: u32, duration: Duration) {
    append_to_all(dir, durability, ranges, duration).await;
    let rate = append_to_all(dir, durability, ranges, duration / 2).await;
    println!("{durability:?}, {ranges} ranges, one append of 4 KiB in flight each: {rate:.0} appends/s");
}

/// Appends per second; the second call writes to the files of the first.
async fn append_to_all(dir: &Path, durability: Durability, ranges: u32, duration: Duration) -> f64 {
    let logs = open(dir, durability, ranges).await;
    let count = Rc::new(Cell::new(0u64));
    let deadline = Instant::now() + duration;
    let mut tasks = Vec::new();
    for (range, log) in logs.iter().cloned().enumerate() {
        let count = count.clone();
        tasks.push(glommio::spawn_local(async move {
            let body = vec![0x5a; 4096 - 64 - 128];
            let mut end = LogPoint::START;
            while Instant::now() < deadline {
                append(&log, range as u32, &body, &mut end);
                log.durable_above(LogIndex(end.index.0 - 1)).await.expect("durable");
                count.set(count.get() + 1);
            }
        }));
    }
    for task in tasks {
        task.await;
    }
    for log in logs {
        log.delete().await.expect("delete");
    }
    count.get() as f64 / duration.as_secs_f64()
}
