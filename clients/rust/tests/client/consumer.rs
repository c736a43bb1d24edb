//! The consumer end to end: starts, order, prefetch, pauses, and everything that can go wrong with a fetch.

use std::collections::BTreeMap;
use std::time::Duration;

use minikafka_client::core::entry::Codec;
use minikafka_client::core::wire::{Api, TopicDescription};
use minikafka_client::core::{ErrorCode, Offset, Partition, RangeId, Timestamp};
use minikafka_client::{
    Client, Consumer, ConsumerOptions, Error, OutOfRangePolicy, ProducerOptions, ProducerRecord, StartAt,
};

use crate::cluster::{Cluster, Fault, key, within};

/// Partitions with `count` numbered records each, in batches of a few.
async fn filled(partitions: u32, count: u64) -> (Cluster, TopicDescription, Client) {
    let cluster = Cluster::start(2).await;
    let topic = cluster.create_topic("orders", partitions);
    let client = cluster.client().await;
    for partition in 0..partitions {
        produce(&client, partition, 0..count).await;
    }
    (cluster, topic, client)
}

async fn produce(client: &Client, partition: u32, numbers: std::ops::Range<u64>) {
    let options = ProducerOptions { batch_bytes_max: 1024, ..ProducerOptions::default() };
    let producer = client.producer("orders", options).await.expect("a producer");
    let values: Vec<_> = numbers.map(u64::to_le_bytes).collect();
    let records = values.iter().map(|value| ProducerRecord::value(value));
    producer.send_batch(Some(Partition(partition)), records).await.expect("accepted").await.expect("stored");
}

/// Reads `count` records and checks that each partition's come in order, from `first` on, none twice.
async fn read(consumer: &mut Consumer, count: usize, first: u64) {
    let mut next: BTreeMap<Partition, u64> = BTreeMap::new();
    let mut read = 0;
    while read < count {
        let batch = within("a batch", consumer.next_batch()).await.expect("a batch");
        let next = next.entry(batch.partition()).or_insert(first);
        assert_eq!(batch.first_offset(), Offset(*next));
        for record in batch.records() {
            assert_eq!(record.offset, Offset(*next));
            assert_eq!(record.value, Some(&next.to_le_bytes()[..]));
            *next += 1;
            read += 1;
        }
        assert_eq!(batch.next_offset(), Offset(*next));
    }
    assert_eq!(read, count);
}

async fn consumer(client: &Client, options: ConsumerOptions) -> Consumer {
    client.consumer("orders", options).await.expect("a consumer")
}

#[tokio::test]
async fn all_partitions_are_read_from_the_start_to_the_end() {
    let (cluster, _, client) = filled(5, 300).await;
    let mut consumer = consumer(&client, ConsumerOptions::default()).await;
    assert!(!consumer.is_at_end());
    read(&mut consumer, 1500, 0).await;
    assert!(consumer.is_at_end());
    assert!((0..5).all(|partition| consumer.committed_end(Partition(partition)) == Some(Offset(300))));
    assert_eq!(consumer.positions(), (0..5).map(|p| (Partition(p), Offset(300))).collect::<Vec<_>>());
    assert!(cluster.requests(Api::Fetch) < 40, "{} fetches", cluster.requests(Api::Fetch));
    // A long poll sees what comes later.
    let (records, ()) = tokio::join!(consumer.next(), produce(&client, 3, 300..301));
    assert_eq!(records.expect("a record").offset, Offset(300));
    assert!(consumer.is_at_end());
}

#[tokio::test]
async fn an_idle_consumer_waits_at_the_shard_and_is_cancel_safe() {
    let (cluster, _, client) = filled(2, 1).await;
    let options = ConsumerOptions { start: StartAt::Latest, ..ConsumerOptions::default() };
    let mut consumer = consumer(&client, options).await;
    for _ in 0..10 {
        assert!(consumer.next_batch_within(Duration::from_millis(20)).await.expect("no error").is_none());
    }
    let fetches = cluster.requests(Api::Fetch);
    assert!(fetches <= 4, "an idle consumer made {fetches} fetches");
    assert_eq!(cluster.state().wait_ms_max_seen, 500);
    produce(&client, 1, 1..50).await;
    let first = within("a record", consumer.next()).await.expect("a record");
    assert_eq!((first.partition, first.offset), (Partition(1), Offset(1)));
    let rest = within("the rest", consumer.next_batch()).await.expect("a batch");
    assert_eq!(rest.first_offset(), Offset(2));
}

#[tokio::test]
async fn consumers_start_where_they_are_told() {
    let (_, topic, client) = filled(2, 100).await;
    let start = |start| ConsumerOptions { start, ..ConsumerOptions::default() };
    let mut at_offset = consumer(&client, start(StartAt::Offset(Offset(37)))).await;
    read(&mut at_offset, 126, 37).await;
    let latest = consumer(&client, start(StartAt::Latest)).await;
    assert_eq!(latest.positions(), [(Partition(0), Offset(100)), (Partition(1), Offset(100))]);
    let late = consumer(&client, start(StartAt::Time(Timestamp(i64::MAX)))).await;
    assert_eq!(late.positions(), latest.positions());
    let chosen = ConsumerOptions {
        partitions: Some(vec![Partition(1)]),
        start_offsets: BTreeMap::from([(Partition(1), Offset(90))]),
        ..ConsumerOptions::default()
    };
    let mut chosen = consumer(&client, chosen).await;
    read(&mut chosen, 10, 90).await;
    let wrong = ConsumerOptions { partitions: Some(vec![Partition(topic.partitions)]), ..ConsumerOptions::default() };
    let error = client.consumer("orders", wrong).await.expect_err("no such partition");
    assert!(matches!(error, Error::NoSuchPartition { .. }), "{error}");
}

#[tokio::test]
async fn single_records_and_batches_can_be_mixed_with_seeks_and_pauses() {
    let (_, _, client) = filled(2, 40).await;
    let mut consumer = consumer(&client, ConsumerOptions::default()).await;
    let first = within("a record", consumer.next()).await.expect("a record");
    let (paused, other) = (first.partition, Partition(1 - first.partition.0));
    let second = within("a record", consumer.next()).await.expect("a record");
    assert_eq!((second.partition, second.offset), (paused, Offset(1)));
    assert!(consumer.positions().contains(&(paused, Offset(2))));
    consumer.pause(&[paused]);
    for offset in 0..40 {
        let record = within("a record", consumer.next()).await.expect("a record");
        assert_eq!((record.partition, record.offset), (other, Offset(offset)));
    }
    assert!(consumer.next_batch_within(Duration::ZERO).await.expect("no error").is_none());
    consumer.resume(&[paused]);
    let third = within("a record", consumer.next()).await.expect("a record");
    assert_eq!((third.partition, third.offset), (paused, Offset(2)));
    let rest = within("the rest", consumer.next_batch()).await.expect("a batch");
    assert_eq!(rest.first_offset(), Offset(3));
    consumer.seek(other, Offset(38)).expect("it is read");
    consumer.seek(paused, Offset(40)).expect("it is read");
    let after = within("a record", consumer.next()).await.expect("a record");
    assert_eq!((after.partition, after.offset), (other, Offset(38)));
    assert!(consumer.seek(Partition(2), Offset(0)).is_err());
}

#[tokio::test]
async fn no_fault_loses_or_repeats_records() {
    let mut faults: Vec<_> = [
        ErrorCode::NotOwner,
        ErrorCode::Stale,
        ErrorCode::Overloaded,
        ErrorCode::BeyondCommitted,
        ErrorCode::ShuttingDown,
        ErrorCode::UnknownPartition,
    ]
    .into_iter()
    .map(Fault::Refuse)
    .collect();
    faults.extend([Fault::CloseBefore, Fault::CloseAfter, Fault::DamageHead, Fault::DamageBulk, Fault::Truncate]);
    faults.extend([Fault::LieAboutSize, Fault::WrongCorrelation]);
    for fault in faults {
        let (cluster, _, client) = filled(2, 200).await;
        cluster.script(Api::Fetch, [Fault::None, fault.clone(), fault.clone()]);
        let options = ConsumerOptions { partition_fetch_bytes_max: 4 << 10, ..ConsumerOptions::default() };
        let mut consumer = consumer(&client, options).await;
        read(&mut consumer, 400, 0).await;
        assert_eq!(cluster.faults_left(Api::Fetch), 0, "{fault:?} happened");
    }
}

#[tokio::test]
async fn ranges_move_and_connections_break_while_reading() {
    let (cluster, topic, client) = filled(4, 500).await;
    let options = ConsumerOptions { partition_fetch_bytes_max: 4 << 10, ..ConsumerOptions::default() };
    let mut consumer = consumer(&client, options).await;
    let mut next = [0_u64; 4];
    for turn in 0_u32.. {
        if turn % 8 == 0 && turn < 80 {
            let range = cluster.range_of(&topic, turn / 8 % 4);
            let head = cluster.state().heads[range.range.0 as usize].0;
            cluster.move_range(range, 1 - head);
        }
        if turn % 30 == 5 && turn < 120 {
            cluster.close_connections();
        }
        let batch = within("a batch", consumer.next_batch()).await.expect("a batch");
        let next = &mut next[batch.partition().0 as usize];
        assert_eq!(batch.first_offset(), Offset(*next));
        *next = batch.next_offset().0;
        if consumer.is_at_end() {
            break;
        }
    }
    assert_eq!(next, [500; 4]);
}

#[tokio::test]
async fn lasting_damage_stops_one_partition_and_says_where() {
    let (cluster, topic, client) = filled(2, 100).await;
    let broken = (cluster.range_of(&topic, 0), key(&topic, 0));
    {
        let mut state = cluster.state();
        let entry = &mut state.logs.get_mut(&broken).expect("the log").entries[0];
        let mut body = entry.body.to_vec();
        body[9] ^= 1;
        entry.body = body.into();
    }
    let mut consumer = consumer(&client, ConsumerOptions::default()).await;
    let mut read = 0;
    let error = loop {
        match within("a batch or an error", consumer.next_batch()).await {
            Ok(batch) => {
                assert_eq!(batch.partition(), Partition(1));
                read += batch.len();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Damaged { partition: Partition(0), offset: Offset(0), .. }), "{error}");
    let second = cluster.state().logs[&broken].entries[1].header.base_offset;
    consumer.seek(Partition(0), second).expect("it is read");
    while !consumer.is_at_end() {
        read += within("a batch", consumer.next_batch()).await.expect("a batch").len();
    }
    assert_eq!(read as u64, 200 - second.0);
}

#[tokio::test]
async fn a_position_that_is_gone_follows_the_policy() {
    let (cluster, topic, client) = filled(1, 100).await;
    let log = (cluster.range_of(&topic, 0), key(&topic, 0));
    let start = {
        let mut state = cluster.state();
        let log = state.logs.get_mut(&log).expect("the log");
        log.entries.drain(..1);
        log.start = log.entries[0].header.base_offset.0;
        log.start
    };
    let from_zero = |out_of_range| ConsumerOptions {
        start: StartAt::Offset(Offset(0)),
        out_of_range,
        ..ConsumerOptions::default()
    };
    let mut earliest = consumer(&client, from_zero(OutOfRangePolicy::Earliest)).await;
    assert_eq!(within("a record", earliest.next()).await.expect("a record").offset, Offset(start));
    let mut latest = consumer(&client, from_zero(OutOfRangePolicy::Latest)).await;
    let (next, ()) = tokio::join!(latest.next(), async {
        cluster.wait_until("the reset", |state| state.requests[&(Api::Fetch as u16)] >= 3).await;
        produce(&client, 0, 100..101).await;
    });
    assert!(next.expect("a record").offset >= Offset(100));
    let mut error = consumer(&client, from_zero(OutOfRangePolicy::Error)).await;
    for _ in 0..2 {
        let error = within("the error", error.next()).await.expect_err("out of range");
        assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange), "told again: nothing else can come");
    }
    error.seek(Partition(0), Offset(start)).expect("it is read");
    assert_eq!(within("a record", error.next()).await.expect("a record").offset, Offset(start));
    // "Earliest" does not need to know where that is.
    let mut from_earliest = consumer(&client, ConsumerOptions::default()).await;
    assert_eq!(within("a record", from_earliest.next()).await.expect("a record").offset, Offset(start));
}

#[tokio::test]
async fn a_partition_is_followed_to_where_its_older_offsets_are() {
    let (cluster, topic, client) = filled(1, 100).await;
    let first = cluster.range_of(&topic, 0).range;
    cluster.state().replace("orders", 0, RangeId((first.0 + 1) % 8));
    client.refresh_map().await.expect("a map");
    produce(&client, 0, 100..200).await;
    let mut reading = consumer(&client, ConsumerOptions::default()).await;
    read(&mut reading, 200, 0).await;
    let (late, ()) = tokio::join!(reading.next(), produce(&client, 0, 200..201));
    assert_eq!(late.expect("a record").offset, Offset(200));
    let options = ConsumerOptions { start: StartAt::Offset(Offset(150)), ..ConsumerOptions::default() };
    read(&mut consumer(&client, options).await, 51, 150).await;
}

#[tokio::test]
async fn memory_is_bounded_while_the_application_works() {
    let (cluster, topic, client) = filled(1, 5000).await;
    let options = ConsumerOptions {
        prefetch_bytes_max: 64 << 10,
        partition_fetch_bytes_max: 16 << 10,
        ..ConsumerOptions::default()
    };
    let mut consumer = consumer(&client, options).await;
    cluster.wait_until("prefetching", |state| state.requests.contains_key(&(Api::Fetch as u16))).await;
    let mut read = 0;
    while read < 100 {
        read += within("a batch", consumer.next_batch()).await.expect("a batch").len();
    }
    let fetches = cluster.requests(Api::Fetch);
    let log = &cluster.state().logs[&(cluster.range_of(&topic, 0), key(&topic, 0))];
    let bytes: usize = log.entries.iter().map(|entry| entry.header.entry_bytes()).sum();
    assert!(fetches * (16 << 10) < bytes / 2, "{fetches} fetches of 16 KiB for 100 of 5,000 records, {bytes} bytes");
}

#[tokio::test]
async fn compressed_batches_are_read() {
    let cluster = Cluster::start(1).await;
    cluster.create_topic("orders", 1);
    let client = cluster.client().await;
    for (turn, codec) in [Codec::Lz4, Codec::Zstd, Codec::None].into_iter().enumerate() {
        let options = ProducerOptions { codec, ..ProducerOptions::default() };
        let producer = client.producer("orders", options).await.expect("a producer");
        let values: Vec<_> = (turn as u64 * 1000..(turn as u64 + 1) * 1000).map(u64::to_le_bytes).collect();
        let headers = [("trace", &b"abc"[..])];
        let record = |value| ProducerRecord { headers: &headers, ..ProducerRecord::keyed(b"k", value) };
        let delivery = producer.send_batch(Some(Partition(0)), values.iter().map(|value| record(value))).await;
        delivery.expect("accepted").await.expect("stored");
    }
    let mut consumer = consumer(&client, ConsumerOptions::default()).await;
    for offset in 0..3000_u64 {
        let record = within("a record", consumer.next()).await.expect("a record");
        assert_eq!((record.offset, record.value.as_deref()), (Offset(offset), Some(&offset.to_le_bytes()[..])));
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert_eq!((record.headers[0].0.as_str(), &record.headers[0].1[..]), ("trace", &b"abc"[..]));
    }
}

#[tokio::test]
async fn a_deleted_topic_is_an_error_not_a_wait() {
    let (cluster, _, client) = filled(1, 10).await;
    let mut consumer = consumer(&client, ConsumerOptions::default()).await;
    read(&mut consumer, 10, 0).await;
    cluster.script(Api::Fetch, vec![Fault::Refuse(ErrorCode::UnknownTopic); 3]);
    produce(&client, 0, 10..11).await;
    loop {
        match within("the error", consumer.next()).await {
            Ok(record) => assert_eq!(record.offset, Offset(10)),
            Err(error) => break assert_eq!(error.code(), Some(ErrorCode::UnknownTopic)),
        }
    }
}

#[tokio::test]
async fn a_shard_that_never_answers_is_left_when_its_range_has_moved() {
    let (cluster, topic, client) = filled(1, 100).await;
    cluster.script(Api::Fetch, [Fault::Silence]);
    let mut consumer = consumer(&client, ConsumerOptions::default()).await;
    cluster.wait_until("the fetch", |state| state.faults[&(Api::Fetch as u16)].is_empty()).await;
    let head = cluster.state().heads[cluster.range_of(&topic, 0).range.0 as usize].0;
    cluster.move_range(cluster.range_of(&topic, 0), 1 - head);
    let start = std::time::Instant::now();
    read(&mut consumer, 100, 0).await;
    assert!(start.elapsed() < Duration::from_secs(5), "not only after the fetch's deadline: {:?}", start.elapsed());
}
