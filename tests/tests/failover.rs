//! Clients ride through: brokers and gateways of one process end as if killed, in the middle of producing and of consuming.
//!
//! Every record that was acknowledged is read, once, in order; nobody waits for long. The machinery is that of
//! `replication.rs`; what the clients do in detail is tested in `clients/rust`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use minikafka_client::core::{NodeId, Partition};
use minikafka_client::{Client, Consumer, ConsumerOptions, ProducerOptions, ProducerRecord, ReadFrom, TopicOptions};
use minikafka_tests::in_process::{Cluster, ClusterSetup, LOOK, await_chains, chain};
use minikafka_tests::process;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "orders";
const PARTITIONS: u32 = 6;
/// Records are sent until so many are, however fast that is.
const RECORDS: u32 = 3_000;

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async { timeout(PATIENCE, work).await.expect("it must not take this long") })
}

async fn start(gateways: usize) -> (Cluster, Client) {
    let parent = process::build_directory().expect("a directory beside the build");
    let cluster = Cluster::start(&parent, ClusterSetup { gateways, ..ClusterSetup::default() }).await;
    let client = cluster.client().await;
    let options = TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() };
    client.create_topic(TOPIC, options).await.expect("a topic");
    await_chains(&client, TOPIC, PARTITIONS, 3, None).await;
    (cluster, client)
}

/// Sends records 0, 1, … to the partitions in turn, and waits until all are acknowledged.
fn produce(client: &Client, sent: Arc<AtomicU32>) -> JoinHandle<()> {
    let client = client.clone();
    tokio::spawn(async move {
        let options = ProducerOptions { batch_bytes_max: 2 << 10, ..ProducerOptions::default() };
        let producer = client.producer(TOPIC, options).await.expect("a producer");
        let mut deliveries = Vec::new();
        for number in 0..RECORDS {
            let value = number.to_le_bytes();
            let record = ProducerRecord::value(&value).to(Partition(number % PARTITIONS));
            deliveries.push(producer.send(record).await.expect("it is taken"));
            sent.store(number + 1, Ordering::Relaxed);
            if number % 4 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let stored = delivery.await.unwrap_or_else(|error| panic!("record {number}: {error}"));
            // Also: nothing was stored twice before it.
            let offset = number as u64 / u64::from(PARTITIONS);
            assert_eq!(stored.offset.map(|offset| offset.0), Some(offset), "record {number}");
        }
    })
}

/// Waits until so many records were sent.
async fn await_sent(sent: &AtomicU32, count: u32) {
    while sent.load(Ordering::Relaxed) < count {
        sleep(LOOK).await;
    }
}

/// Reads every record: those of a partition in order, each once.
async fn read_all(consumer: &mut Consumer) {
    let mut next: BTreeMap<Partition, u32> = (0..PARTITIONS).map(|number| (Partition(number), number)).collect();
    for _ in 0..RECORDS {
        let record = consumer.next().await.expect("a record");
        let expected = next.get_mut(&record.partition).expect("a partition of the topic");
        let value = record.value.expect("a value");
        assert_eq!(value[..], expected.to_le_bytes(), "partition {} offset {}", record.partition, record.offset);
        *expected += PARTITIONS;
    }
    let more = consumer.next_batch_within(Duration::from_millis(300)).await.expect("no error");
    assert!(more.is_none(), "something was stored twice");
}

#[test]
fn producing_and_consuming_go_on_when_head_after_head_dies() {
    within(async {
        let (mut cluster, client) = start(1).await;
        let mut consumer = client.consumer(TOPIC, ConsumerOptions::default()).await.expect("a consumer");
        let sent = Arc::new(AtomicU32::new(0));
        let producing = produce(&client, sent.clone());
        let reading = tokio::spawn(async move { read_all(&mut consumer).await });
        for kill in 0..2 {
            await_sent(&sent, (kill + 1) * RECORDS / 3).await;
            let node = chain(&client, TOPIC, kill).await[0];
            cluster.cut(node).await.expect("a thread");
            await_chains(&client, TOPIC, PARTITIONS, 2, Some(node)).await;
            cluster.restart(node).await;
            await_chains(&client, TOPIC, PARTITIONS, 3, None).await;
        }
        producing.await.expect("every record is acknowledged");
        reading.await.expect("every record is read");
        cluster.end().await;
    });
}

#[test]
fn a_consumer_reads_from_its_rack_and_goes_on_when_that_member_dies() {
    within(async {
        let (mut cluster, client) = start(1).await;
        let sent = Arc::new(AtomicU32::new(0));
        let producing = produce(&client, sent.clone());
        // Every node is in every chain; this one is the head of some of them.
        let near = chain(&client, TOPIC, 0).await[1];
        let read_from = ReadFrom::Nearest { rack: format!("rack-{near}") };
        let options = ConsumerOptions { read_from, ..ConsumerOptions::default() };
        let mut consumer = client.consumer(TOPIC, options).await.expect("a consumer");
        let mut next: BTreeMap<Partition, u32> = (0..PARTITIONS).map(|number| (Partition(number), number)).collect();
        let mut read = 0;
        while read < RECORDS / 3 {
            take(&mut consumer, &mut next, &mut read).await;
        }
        let served = consumer.fetches_by_node();
        let of_near = served.get(&NodeId(near)).copied().unwrap_or(0);
        let of_all: u64 = served.values().sum();
        assert!(of_near * 10 >= of_all * 9, "nearly all from node {near}: {served:?}");
        cluster.cut(near).await.expect("a thread");
        while read < RECORDS {
            take(&mut consumer, &mut next, &mut read).await;
        }
        producing.await.expect("every record is acknowledged");
        let others = consumer.fetches_by_node().into_iter().filter(|(node, _)| node.0 != near);
        assert!(others.map(|(_, count)| count).sum::<u64>() > 0, "somebody else served the rest");
        let more = consumer.next_batch_within(Duration::from_millis(300)).await.expect("no error");
        assert!(more.is_none(), "something came twice");
        // It comes back, and is read from again.
        cluster.restart(near).await;
        await_chains(&client, TOPIC, PARTITIONS, 3, None).await;
        let before = consumer.fetches_by_node().get(&NodeId(near)).copied();
        let producer = client.producer(TOPIC, ProducerOptions::default()).await.expect("a producer");
        while consumer.fetches_by_node().get(&NodeId(near)).copied() == before {
            producer.send(ProducerRecord::value(b"more")).await.expect("taken").await.expect("stored");
            consumer.next().await.expect("a record");
        }
        cluster.end().await;
    });
}

/// Reads one record, which must be the next of its partition.
async fn take(consumer: &mut Consumer, next: &mut BTreeMap<Partition, u32>, read: &mut u32) {
    let record = consumer.next().await.expect("a record");
    let expected = next.get_mut(&record.partition).expect("a partition of the topic");
    assert_eq!(record.value.expect("a value")[..], expected.to_le_bytes(), "partition {}", record.partition);
    *expected += PARTITIONS;
    *read += 1;
}

#[test]
fn clients_of_several_gateways_do_not_need_each_of_them() {
    within(async {
        let (mut cluster, _) = start(2).await;
        let client = cluster.client().await;
        let sent = Arc::new(AtomicU32::new(0));
        let producing = produce(&client, sent.clone());
        await_sent(&sent, RECORDS / 3).await;
        // The elected one: the other takes over, and then finds out which chains are broken.
        cluster.stop_gateway(0).await;
        let node = chain(&client, TOPIC, 0).await[0];
        cluster.cut(node).await.expect("a thread");
        producing.await.expect("every record is acknowledged");
        let mut consumer = client.consumer(TOPIC, ConsumerOptions::default()).await.expect("a consumer");
        read_all(&mut consumer).await;
        cluster.end().await;
    });
}
