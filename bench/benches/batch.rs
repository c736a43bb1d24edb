//! How fast one core builds, checks and reads batches of 100-byte values.
//!
//! `cargo bench -p minikafka-bench --bench batch`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use minikafka_core::batch::{BatchBuilder, BatchView, FinishedBatch, RecordRef};
use minikafka_core::checksum::crc32c;
use minikafka_core::entry::EntryHeader;
use minikafka_core::{
    Partition, PartitionKey, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, Sequence, Timestamp, TopicId,
};

const VALUE: [u8; 100] = [7; 100];
const BODY_BYTES: [u32; 3] = [16 << 10, 256 << 10, 1 << 20];

/// Fills a batch up to `body_bytes` and finishes it into `memory`.
fn build(builder: &mut BatchBuilder, body_bytes: u32, memory: Vec<u8>) -> FinishedBatch {
    let record = RecordRef { value: Some(&VALUE), ..RecordRef::at(Timestamp(1)) };
    while builder.would_fit(&record, body_bytes) {
        builder.push(record).expect("it fits");
    }
    builder.finish_into(memory)
}

fn header(batch: &FinishedBatch) -> EntryHeader {
    let range = RangeKey { ring: RingId(1), range: RangeId(0) };
    let partition = PartitionKey { topic: TopicId(1), partition: Partition(0) };
    batch.header(range, partition, (ProducerId::NONE, ProducerEpoch(0), Sequence(0)))
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for body_bytes in BODY_BYTES {
        let mut builder = BatchBuilder::with_capacity(body_bytes as usize);
        let batch = build(&mut builder, body_bytes, Vec::new());
        let entry = header(&batch);
        group.throughput(Throughput::Elements(batch.record_count.into()));
        let mut memory = Vec::new();
        group.bench_function(BenchmarkId::new("build", body_bytes), |bencher| {
            bencher.iter(|| memory = black_box(build(&mut builder, body_bytes, std::mem::take(&mut memory))).body);
        });
        group.bench_function(BenchmarkId::new("parse", body_bytes), |bencher| {
            bencher.iter(|| black_box(BatchView::parse(&batch.body, &entry)).map(|view| view.len()));
        });
        group.bench_function(BenchmarkId::new("iterate", body_bytes), |bencher| {
            let view = BatchView::parse(&batch.body, &entry).expect("just built");
            bencher.iter(|| view.iter().map(|record| record.value.map_or(0, <[u8]>::len)).sum::<usize>());
        });
        group.throughput(Throughput::Bytes(batch.body.len() as u64));
        group.bench_function(BenchmarkId::new("crc32c", body_bytes), |bencher| {
            bencher.iter(|| crc32c(black_box(&batch.body)));
        });
    }
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
