//! What it costs a shard to count one produced batch, replicated to a successor: every clock that is read for it, every
//! histogram, its topic, and its way through the stages.
//!
//! `cargo bench -p minikafka-bench --bench counting`; beside it stands what a batch costs the shard in all (docs/OPERATIONS.md).

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use minikafka_broker::{Clock, Stages, TopicTable};
use minikafka_core::histogram::DurationHistogram;
use minikafka_core::{LogIndex, TopicId};

fn counting(criterion: &mut Criterion) {
    let clock = Clock::new();
    let [receive, checksum, durable, successor, produce, reply] = <[DurationHistogram; 6]>::default();
    let (topics, stages) = (TopicTable::default(), Stages::default());
    topics.set_topics_max(50);
    (1..=50).for_each(|topic| topics.count(TopicId(topic), |counts| counts.produced_records += 1));
    let mut index = 0;
    criterion.bench_function("count one batch", |bencher| {
        bencher.iter(|| {
            index += 1;
            let began_ns = clock.counted_ns();
            receive.record(black_box(0));
            checksum.record(clock.counted_ns().saturating_sub(began_ns));
            // When its time is up is asked for anyway, and marked.
            stages.appended(LogIndex(index), clock.marked_ns(), true);
            stages.durable(LogIndex(index), || clock.counted_ns(), &durable);
            stages.acknowledged(LogIndex(index), || clock.counted_ns(), &successor);
            produce.record(clock.marked_ns().saturating_sub(began_ns));
            topics.count(TopicId(1 + black_box(index) % 50), |counts| counts.produced_bytes += 4_096);
            // Replies leave together; this is as if each left alone.
            let queued = quanta::Instant::now();
            reply.record(queued.elapsed().as_nanos() as u64);
        });
    });
    black_box((receive, checksum, durable, successor, produce, reply));
}

criterion_group!(benches, counting);
criterion_main!(benches);
