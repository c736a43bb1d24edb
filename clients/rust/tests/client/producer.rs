//! The producer end to end: batching, order, exactly-once under faults, back-pressure, deadlines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use minikafka_client::core::entry::Codec;
use minikafka_client::core::topic::TopicConfig;
use minikafka_client::core::wire::{Api, TopicDescription};
use minikafka_client::core::{ErrorCode, Offset, Partition};
use minikafka_client::{DeliveryFuture, Error, Producer, ProducerOptions, ProducerRecord};
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::Notify;

use crate::cluster::{Cluster, Fault, within};

/// Small batches, so that a few records are many of them.
fn small_batches() -> ProducerOptions {
    ProducerOptions { batch_bytes_max: 1024, ..ProducerOptions::default() }
}

async fn started(partitions: u32, options: ProducerOptions) -> (Cluster, TopicDescription, Producer) {
    let cluster = Cluster::start(2).await;
    let topic = cluster.create_topic("orders", partitions);
    let producer = cluster.client().await.producer("orders", options).await.expect("a producer");
    (cluster, topic, producer)
}

fn value(number: usize) -> Vec<u8> {
    let mut value = vec![0; 100];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// Sends numbered records to one partition.
async fn send(producer: &Producer, partition: u32, numbers: std::ops::Range<usize>) -> Vec<DeliveryFuture> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = value(number);
        deliveries
            .push(producer.send(ProducerRecord::value(&record).to(Partition(partition))).await.expect("accepted"));
    }
    deliveries
}

/// Every record is stored once, in order, and its delivery says where.
async fn check_stored(cluster: &Cluster, topic: &TopicDescription, partition: u32, deliveries: Vec<DeliveryFuture>) {
    let count = deliveries.len();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        let delivery = within("a delivery", delivery).await.unwrap_or_else(|error| panic!("record {number}: {error}"));
        assert_eq!((delivery.partition, delivery.offset), (Partition(partition), Some(Offset(number as u64))));
    }
    assert_eq!(cluster.values(topic, partition), (0..count).map(value).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_are_stored_in_order_and_deliveries_say_where() {
    let (cluster, topic, producer) = started(3, small_batches()).await;
    let mut deliveries = Vec::new();
    for partition in 0..3 {
        deliveries.push(send(&producer, partition, 0..500).await);
    }
    for (partition, deliveries) in deliveries.into_iter().enumerate() {
        check_stored(&cluster, &topic, partition as u32, deliveries).await;
    }
    assert!(cluster.requests(Api::Produce) < 300, "records travel in batches");
}

#[tokio::test]
async fn keys_choose_the_partition_and_keyless_records_are_spread() {
    let (cluster, topic, producer) = started(4, small_batches()).await;
    for number in 0..400 {
        let key = format!("key-{}", number % 40);
        let delivery = producer.send(ProducerRecord::keyed(key.as_bytes(), b"v")).await.expect("accepted");
        assert_eq!(delivery.partition(), producer.partition_of(key.as_bytes()));
    }
    producer.flush().await.expect("stored");
    let keyed: Vec<usize> = (0..4).map(|partition| cluster.values(&topic, partition).len()).collect();
    for number in 0..400 {
        drop(producer.send(ProducerRecord::value(&value(number))).await.expect("accepted"));
    }
    producer.flush().await.expect("stored");
    for partition in 0..4 {
        let keyless = cluster.values(&topic, partition).len() - keyed[partition as usize];
        assert!(keyless >= 40, "partition {partition} got {keyless} of 400 keyless records");
    }
}

#[tokio::test]
async fn no_fault_loses_repeats_or_reorders() {
    let refusals = [
        ErrorCode::NotOwner,
        ErrorCode::Stale,
        ErrorCode::PartitionNotReady,
        ErrorCode::OutOfOrder,
        ErrorCode::Overloaded,
        ErrorCode::DiskFull,
        ErrorCode::CorruptBatch,
        ErrorCode::UnknownPartition,
        ErrorCode::ShuttingDown,
        ErrorCode::BelowMinInSync,
    ];
    let mut faults: Vec<_> = refusals.into_iter().map(Fault::Refuse).collect();
    faults.extend([ErrorCode::TimedOut, ErrorCode::RangeFailed].map(Fault::Deny));
    faults.extend([Fault::CloseBefore, Fault::CloseAfter, Fault::DamageHead, Fault::Truncate, Fault::LieAboutSize]);
    faults.push(Fault::WrongCorrelation);
    for fault in faults {
        for position in [0, 1, 3] {
            let (cluster, topic, producer) = started(1, small_batches()).await;
            cluster.script(Api::Produce, vec![Fault::None; position]);
            cluster.script(Api::Produce, [fault.clone()]);
            let deliveries = send(&producer, 0, 0..60).await;
            check_stored(&cluster, &topic, 0, deliveries).await;
            assert_eq!(cluster.faults_left(Api::Produce), 0, "{fault:?} happened");
        }
    }
}

#[test]
fn any_weather_stores_every_record_once_in_order() {
    let fault = proptest::sample::select(vec![
        Fault::None,
        Fault::None,
        Fault::None,
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::Refuse(ErrorCode::Overloaded),
        Fault::Refuse(ErrorCode::Stale),
        Fault::Deny(ErrorCode::TimedOut),
        Fault::Truncate,
    ]);
    let weather = (proptest::collection::vec(fault, 0..30), proptest::collection::vec(0_usize..4, 0..6));
    let mut runner = TestRunner::new(Config { cases: 25, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&weather, |(faults, moves)| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let (cluster, topic, producer) = started(2, small_batches()).await;
            cluster.script(Api::Produce, faults);
            let sending = async { (send(&producer, 0, 0..150).await, send(&producer, 1, 0..150).await) };
            let moving = async {
                for to in moves {
                    cluster.move_range(cluster.range_of(&topic, to as u32 % 2), to / 2);
                    if to == 3 {
                        cluster.close_connections();
                    }
                    tokio::task::yield_now().await;
                }
            };
            let ((first, second), ()) = tokio::join!(sending, moving);
            check_stored(&cluster, &topic, 0, first).await;
            check_stored(&cluster, &topic, 1, second).await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_lagging_gateway_only_delays() {
    let (cluster, topic, producer) = started(1, small_batches()).await;
    let range = cluster.range_of(&topic, 0);
    let stale = cluster.state().heads.clone();
    cluster.state().published = Some(stale);
    cluster.move_range(range, 1);
    cluster.move_range(range, 0);
    let deliveries = send(&producer, 0, 0..20).await;
    cluster.wait_until("two refreshes", |state| state.requests[&(Api::Resolve as u16)] >= 4).await;
    cluster.state().published = None;
    check_stored(&cluster, &topic, 0, deliveries).await;
}

#[tokio::test]
async fn a_failure_for_good_fails_its_batch_alone() {
    let (cluster, topic, producer) = started(1, small_batches()).await;
    cluster.script(Api::Produce, [Fault::None, Fault::Refuse(ErrorCode::BatchTooLarge)]);
    let deliveries = send(&producer, 0, 0..60).await;
    let (mut stored, mut failed) = (Vec::new(), 0);
    for (number, delivery) in deliveries.into_iter().enumerate() {
        match delivery.await {
            Ok(delivery) => {
                assert_eq!(delivery.offset, Some(Offset(stored.len() as u64)));
                stored.push(value(number));
            }
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::BatchTooLarge));
                assert!(error.to_string().contains("topic orders partition 0"), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0 && failed <= 10, "one batch failed, not {failed} records");
    assert_eq!(cluster.values(&topic, 0), stored);
    assert_eq!(producer.flush().await.expect_err("told once").code(), Some(ErrorCode::BatchTooLarge));
    producer.flush().await.expect("and only once");
}

#[tokio::test]
async fn a_stored_batch_whose_offset_is_forgotten_counts_as_stored() {
    let (cluster, _, producer) = started(1, small_batches()).await;
    cluster.script(Api::Produce, [Fault::Deny(ErrorCode::DuplicateSequence)]);
    let delivery = send(&producer, 0, 0..1).await.remove(0).await.expect("stored");
    assert_eq!((delivery.offset, delivery.append_timestamp), (None, None));
}

#[tokio::test]
async fn a_forgotten_producer_goes_on() {
    let (cluster, topic, producer) = started(1, small_batches()).await;
    let mut deliveries = send(&producer, 0, 0..30).await;
    producer.flush().await.expect("stored");
    cluster.state().logs.values_mut().for_each(|log| log.forget_producers());
    deliveries.extend(send(&producer, 0, 30..90).await);
    check_stored(&cluster, &topic, 0, deliveries).await;
}

#[tokio::test]
async fn memory_is_bounded_and_given_out_in_order() {
    let options = ProducerOptions { buffer_bytes_max: 4096, ..small_batches() };
    let (cluster, topic, producer) = started(1, options).await;
    let gate = Arc::new(Notify::new());
    cluster.script(Api::Produce, [Fault::Hold(gate.clone())]);
    let mut deliveries = Vec::new();
    let refused = loop {
        let record = value(deliveries.len());
        match producer.try_send(ProducerRecord::value(&record).to(Partition(0))) {
            Ok(delivery) => deliveries.push(delivery),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::BufferFull) && refused.is_retriable());
    assert_eq!(deliveries.len(), 4096 / 124);
    let next = deliveries.len();
    let waiting: Vec<_> = (next..next + 50)
        .map(|number| {
            let producer = producer.clone();
            tokio::spawn(async move { send(&producer, 0, number..number + 1).await })
        })
        .collect();
    cluster.wait_until("the held batch", |state| state.requests.contains_key(&(Api::Produce as u16))).await;
    gate.notify_one();
    for waiting in waiting {
        deliveries.extend(within("memory", waiting).await.expect("no panic"));
    }
    check_stored(&cluster, &topic, 0, deliveries).await;
    let large = producer.send(ProducerRecord::value(&[0; 5000])).await.expect_err("never");
    assert!(matches!(large, Error::RecordTooLarge { bytes: 5000, .. }), "{large}");
}

#[tokio::test]
async fn nothing_lingers_while_somebody_waits_for_memory() {
    let hour = Duration::from_secs(3600);
    let options =
        ProducerOptions { buffer_bytes_max: 4096, linger: hour, send_when_idle: false, ..ProducerOptions::default() };
    let (cluster, topic, producer) = started(1, options).await;
    let deliveries = within("memory", send(&producer, 0, 0..200)).await;
    within("the rest", producer.flush()).await.expect("stored");
    check_stored(&cluster, &topic, 0, deliveries).await;
}

#[tokio::test]
async fn a_delivery_fails_at_its_deadline_and_says_that_its_outcome_is_unknown() {
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(100), ..small_batches() };
    let (cluster, _, producer) = started(1, options).await;
    cluster.script(Api::Produce, [Fault::Silence]);
    let start = Instant::now();
    let error = send(&producer, 0, 0..1).await.remove(0).await.expect_err("never answered");
    assert!(matches!(&error, Error::DeadlineExceeded { outcome_unknown: true, .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    cluster.script(Api::Produce, vec![Fault::Refuse(ErrorCode::DiskFull); 1000]);
    let error = send(&producer, 0, 1..2).await.remove(0).await.expect_err("always refused");
    assert!(matches!(&error, Error::DeadlineExceeded { outcome_unknown: false, .. }), "{error}");
    assert!(error.to_string().contains("disk_full"), "{error}");
    cluster.state().faults.clear();
    let other = cluster.client().await.producer("orders", small_batches()).await.expect("a producer");
    let delivery = send(&other, 0, 2..3).await.remove(0).await.expect("stored");
    assert_eq!(delivery.offset, Some(Offset(1)), "the first one was stored, its answer was lost");
}

#[tokio::test]
async fn a_head_that_never_answers_is_left_when_its_range_has_moved() {
    let (cluster, topic, producer) = started(1, small_batches()).await;
    let mut deliveries = send(&producer, 0, 0..50).await;
    producer.flush().await.expect("stored");
    let head = cluster.state().heads[cluster.range_of(&topic, 0).range.0 as usize].0;
    // Stored, but nobody ever hears of it: the head was cut off without a trace.
    cluster.script(Api::Produce, vec![Fault::Silence; 8]);
    let start = Instant::now();
    deliveries.extend(send(&producer, 0, 50..100).await);
    let is_begun = |state: &crate::cluster::State| state.faults[&(Api::Produce as u16)].len() < 8;
    cluster.wait_until("the batches in flight", is_begun).await;
    cluster.state().faults.clear();
    cluster.move_range(cluster.range_of(&topic, 0), 1 - head);
    producer.flush().await.expect("stored by the new head, once");
    assert!(start.elapsed() < Duration::from_secs(4), "not only after the request's deadline: {:?}", start.elapsed());
    check_stored(&cluster, &topic, 0, deliveries).await;
}

#[tokio::test]
async fn a_head_that_never_says_hello_is_left_when_its_range_has_moved() {
    let (cluster, topic, producer) = started(1, small_batches()).await;
    let head = cluster.state().heads[cluster.range_of(&topic, 0).range.0 as usize].0;
    // The first connection is taken and never used; only the second one leads anywhere.
    cluster.script(Api::Hello, [Fault::Silence]);
    let start = Instant::now();
    let deliveries = send(&producer, 0, 0..50).await;
    cluster.wait_until("a connection", |state| state.faults[&(Api::Hello as u16)].is_empty()).await;
    cluster.move_range(cluster.range_of(&topic, 0), 1 - head);
    producer.flush().await.expect("stored by the new head");
    assert!(start.elapsed() < Duration::from_secs(4), "before opening was given up: {:?}", start.elapsed());
    check_stored(&cluster, &topic, 0, deliveries).await;
}

/// What a killed process had open may take connections for a while yet. Producers waited for a hello until the time to
/// connect was over, 5 s, though the range was somebody else's within a fifth of a second.
#[tokio::test]
async fn a_shard_that_never_says_hello_is_left_when_another_one_owns_its_range() {
    let (cluster, topic, producer) = started(1, small_batches()).await;
    cluster.script(Api::Hello, [Fault::Silence]);
    let start = Instant::now();
    let deliveries = send(&producer, 0, 0..1).await;
    let range = cluster.range_of(&topic, 0);
    let owner = cluster.state().heads[range.range.0 as usize].0;
    cluster.move_range(range, 1 - owner);
    check_stored(&cluster, &topic, 0, deliveries).await;
    assert!(start.elapsed() < Duration::from_secs(4), "after {:?}", start.elapsed());
    assert_eq!(cluster.faults_left(Api::Hello), 0, "a shard was silent");
}

#[tokio::test]
async fn linger_gathers_and_flush_close_and_drop_send() {
    let hour = Duration::from_secs(3600);
    let lingering = ProducerOptions { linger: hour, send_when_idle: false, ..ProducerOptions::default() };
    let (cluster, topic, producer) = started(1, lingering.clone()).await;
    let mut deliveries = send(&producer, 0, 0..100).await;
    producer.flush().await.expect("stored");
    assert_eq!(cluster.requests(Api::Produce), 1, "one batch");
    deliveries.extend(send(&producer, 0, 100..200).await);
    let clone = producer.clone();
    producer.close().await.expect("stored");
    check_stored(&cluster, &topic, 0, deliveries).await;
    let refused = clone.send(ProducerRecord::value(b"late")).await.expect_err("closed");
    assert!(matches!(refused, Error::Closed("producer")));

    let (cluster, topic, producer) = started(1, lingering).await;
    let deliveries = send(&producer, 0, 0..100).await;
    drop(producer);
    check_stored(&cluster, &topic, 0, deliveries).await;

    let idle = ProducerOptions { linger: hour, ..ProducerOptions::default() };
    let (cluster, topic, producer) = started(1, idle).await;
    let deliveries = send(&producer, 0, 0..1).await;
    check_stored(&cluster, &topic, 0, deliveries).await;
}

#[tokio::test]
async fn a_runtime_that_ends_leaves_no_delivery_waiting() {
    let (delivery, producer) = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (cluster, _, producer) = started(1, small_batches()).await;
            cluster.script(Api::Produce, [Fault::Silence]);
            (send(&producer, 0, 0..1).await.remove(0), producer)
        })
    })
    .join()
    .expect("no panic");
    assert!(matches!(delivery.await, Err(Error::Closed("producer"))));
    assert!(matches!(producer.flush().await, Err(Error::Closed("producer"))));
}

#[tokio::test]
async fn compressed_batches_hold_the_same_records() {
    for codec in [Codec::Lz4, Codec::Zstd] {
        let options =
            ProducerOptions { codec, batch_bytes_max: 64 << 10, send_when_idle: false, ..ProducerOptions::default() };
        let (cluster, topic, producer) = started(1, options).await;
        let deliveries = send(&producer, 0, 0..3000).await;
        check_stored(&cluster, &topic, 0, deliveries).await;
        let key = (cluster.range_of(&topic, 0), crate::cluster::key(&topic, 0));
        let state = cluster.state();
        let entries = &state.logs[&key].entries;
        assert!(entries.iter().all(|entry| entry.header.codec == codec), "{codec:?}");
        assert!(entries[0].body.len() < 20_000, "{codec:?} made {} bytes", entries[0].body.len());
    }
}

#[tokio::test]
async fn many_records_at_once_keep_their_order_across_batches() {
    let options = ProducerOptions { buffer_bytes_max: 8192, ..small_batches() };
    let (cluster, topic, producer) = started(2, options).await;
    let values: Vec<_> = (0..300).map(value).collect();
    let records = values.iter().map(|value| ProducerRecord::value(value));
    let runs = producer.send_batch(Some(Partition(1)), records).await.expect("accepted").await.expect("stored");
    let mut next = 0;
    for run in &runs {
        assert_eq!(run.first.offset, Some(Offset(next)));
        next += u64::from(run.record_count);
    }
    assert_eq!(next, 300);
    assert_eq!(cluster.values(&topic, 1), values);
    let none = producer.send_batch(None, []).await.expect("accepted").await.expect("nothing to store");
    assert!(none.is_empty());
}

#[tokio::test]
async fn records_that_can_never_be_stored_are_refused_at_once() {
    let cluster = Cluster::start(1).await;
    let config = TopicConfig { batch_bytes_max: 2000, ..TopicConfig::default() };
    cluster.state().create_topic("small", 1, config);
    let producer = cluster.client().await.producer("small", ProducerOptions::default()).await.expect("a producer");
    let error = producer.send(ProducerRecord::value(&[0; 2000])).await.expect_err("too large");
    assert!(matches!(error, Error::RecordTooLarge { bytes: 2000, bytes_max: 1500.. }), "{error}");
    let error = producer.send(ProducerRecord::value(b"x").to(Partition(1))).await.expect_err("no such partition");
    assert!(matches!(error, Error::NoSuchPartition { partitions: 1, .. }), "{error}");
    let headers = vec![("h", &b"v"[..]); 2000];
    let record = ProducerRecord { headers: &headers[..1025], ..ProducerRecord::value(b"x") };
    let error = producer.send(record).await.expect_err("too many headers");
    assert!(matches!(error, Error::InvalidRecord { .. }), "{error}");
    producer.send(ProducerRecord::value(&[0; 1000])).await.expect("accepted").await.expect("stored");
    producer.close().await.expect("nothing is left");
}

#[tokio::test]
async fn without_numbers_order_holds() {
    let options = ProducerOptions { idempotent: false, ..small_batches() };
    let (cluster, topic, producer) = started(1, options).await;
    cluster.script(Api::Produce, [Fault::None, Fault::Refuse(ErrorCode::Overloaded), Fault::CloseBefore]);
    let deliveries = send(&producer, 0, 0..60).await;
    check_stored(&cluster, &topic, 0, deliveries).await;
}

/// A quota that is used up delays, and neither reorders nor loses nor fails anything.
#[tokio::test]
async fn a_throttled_producer_waits_as_told_and_keeps_order() {
    let (cluster, topic, producer) = started(1, small_batches()).await;
    const WAIT: Duration = Duration::from_millis(400);
    let throttle = || Fault::Throttle(WAIT.as_millis() as u32);
    // The second batch of the first flight, whose successors are then out of order; and the first of the next.
    cluster.script(Api::Produce, [Fault::None, throttle()]);
    let begun = Instant::now();
    let mut deliveries = send(&producer, 0, 0..50).await;
    within("all of it", producer.flush()).await.expect("stored");
    cluster.script(Api::Produce, [throttle()]);
    deliveries.extend(send(&producer, 0, 50..100).await);
    check_stored(&cluster, &topic, 0, deliveries).await;
    assert_eq!(cluster.faults_left(Api::Produce), 0);
    let took = begun.elapsed();
    assert!(took >= 2 * WAIT, "it was told to wait twice, and took {took:?}");
}
