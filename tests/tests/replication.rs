//! Three real brokers over loopback, a gateway and an embedded coordinator in one process: chains of three replicate, every
//! member serves every record, a broker that goes is replaced, and one that comes back learns and joins.
//!
//! The links, the disks and the executors are the ones that ship. What crashes, cuts and slow disks do to chains is searched
//! by `tests/sim`; here it is shown that the same machines do it over sockets.

use std::time::Duration;

use minikafka_client::core::batch::BatchView;
use minikafka_client::core::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use minikafka_client::core::wire::{Api, FetchPartition, FetchReply, FetchRequest, Wire};
use minikafka_client::core::{ErrorCode, Offset, Partition, PartitionKey};
use minikafka_client::{Client, Producer, ProducerOptions, ProducerRecord, TopicOptions};
use minikafka_tests::in_process::{Cluster, ClusterSetup, LOOK, await_chains, chain};
use minikafka_tests::process;
use tokio::time::{sleep, timeout};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 4;

async fn start() -> Cluster {
    let parent = process::build_directory().expect("a directory beside the build");
    Cluster::start(&parent, ClusterSetup::default()).await
}

/// Record `number`: told by its number, some of them so large that their batch is never copied.
fn value(number: u32) -> Vec<u8> {
    let bytes = if number % 50 == 7 { 300_000 } else { 20 + number as usize % 500 };
    number.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// Produces these records, one partition after the other, and waits until all are acknowledged.
async fn produce(producer: &Producer, numbers: std::ops::Range<u32>) {
    let mut deliveries = Vec::new();
    for number in numbers {
        let value = value(number);
        let record = ProducerRecord::value(&value).to(Partition(number % PARTITIONS));
        deliveries.push(producer.send(record).await.expect("it is taken"));
    }
    producer.flush().await.expect("it flushes");
    for delivery in deliveries {
        delivery.await.expect("it is acknowledged");
    }
}

/// Every value of a partition, as one member serves it, once it knows that all of them are committed.
async fn read(client: &Client, topic: &str, partition: u32, node: u32, end: u64) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = Vec::new();
    while (values.len() as u64) < end {
        let map = client.refresh_map().await.expect("a map");
        let described = client.topic(topic).await.expect("the topic");
        let range = map.range_of(&described, Partition(partition)).expect("its range");
        let address = map.nodes().find(|(id, _)| id.0 == node).expect("the node is there").1[0].to_string();
        let wanted = FetchPartition {
            range,
            epoch: map.epoch_of(range),
            partition: PartitionKey { topic: described.topic, partition: Partition(partition) },
            offset: Offset(values.len() as u64),
            bytes_max: 4 << 20,
        };
        let request = FetchRequest { wait_ms_max: 100, bytes_min: 1, bytes_max: 4 << 20, partitions: vec![wanted] };
        let connection = client.connection(&address).await.expect("the shard answers");
        let reply = connection.request(Api::Fetch, &request.to_bytes(), Default::default(), PATIENCE).await;
        let reply = reply.expect("a reply");
        let fetched = FetchReply::from_bytes(&reply.head).expect("a fetch reply");
        match fetched.partitions[0].error {
            None => take_values(&reply.bulk, &mut values),
            // It has just changed its chain, or knows of no commit yet.
            Some(ErrorCode::Stale | ErrorCode::BeyondCommitted | ErrorCode::NotOwner) => sleep(LOOK).await,
            Some(error) => panic!("node {node}, partition {partition}: {}", error.name()),
        }
    }
    values
}

/// Adds the records of these entries that are behind the ones that are there.
fn take_values(mut entries: &[u8], values: &mut Vec<Vec<u8>>) {
    // The buffer may lie anywhere, and the columns of a batch want to lie at multiples of four.
    while !entries.is_empty() {
        let header = EntryHeader::decode(entries).expect("a good entry");
        let body = entries[ENTRY_HEADER_BYTES..][..header.body_bytes as usize].to_vec();
        let view = BatchView::parse(&body, &header).expect("a good batch");
        for (at, record) in view.iter().enumerate() {
            if header.base_offset.0 + at as u64 == values.len() as u64 {
                values.push(record.value.expect("a value").to_vec());
            }
        }
        entries = &entries[header.entry_bytes()..];
    }
}

/// Every member of every chain serves exactly the records `0..count`, in order.
async fn check_members(client: &Client, topic: &str, count: u32) {
    for partition in 0..PARTITIONS {
        let expected: Vec<_> = (0..count).filter(|number| number % PARTITIONS == partition).map(value).collect();
        for node in chain(client, topic, partition).await {
            let values = read(client, topic, partition, node, expected.len() as u64).await;
            assert!(values == expected, "node {node}, partition {partition}: other records than were acknowledged");
        }
    }
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async { timeout(PATIENCE, work).await.expect("it must not take this long") })
}

async fn topic(client: &Client) -> Producer {
    let options = TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() };
    client.create_topic("orders", options).await.expect("a topic");
    client.producer("orders", ProducerOptions::default()).await.expect("a producer")
}

#[test]
fn every_member_of_a_chain_of_three_serves_what_was_acknowledged() {
    within(async {
        let cluster = start().await;
        let client = cluster.client().await;
        let producer = topic(&client).await;
        await_chains(&client, "orders", PARTITIONS, 3, None).await;
        produce(&producer, 0..400).await;
        check_members(&client, "orders", 400).await;
        cluster.end().await;
    });
}

#[test]
fn a_broker_that_goes_is_left_out_and_one_that_comes_back_joins() {
    within(async {
        let mut cluster = start().await;
        let client = cluster.client().await;
        let producer = topic(&client).await;
        produce(&producer, 0..200).await;
        cluster.stop(2).await;
        produce(&producer, 200..400).await;
        await_chains(&client, "orders", PARTITIONS, 2, Some(2)).await;
        check_members(&client, "orders", 400).await;
        cluster.restart(2).await;
        await_chains(&client, "orders", PARTITIONS, 3, None).await;
        produce(&producer, 400..500).await;
        check_members(&client, "orders", 500).await;
        cluster.end().await;
    });
}

/// The coordinator is not told: the broken links alone are what makes the others complain.
#[test]
fn a_broken_link_alone_replaces_a_broker() {
    within(async {
        let mut cluster = start().await;
        let client = cluster.client().await;
        let producer = topic(&client).await;
        produce(&producer, 0..100).await;
        cluster.cut(3).await.expect("a thread");
        produce(&producer, 100..300).await;
        await_chains(&client, "orders", PARTITIONS, 2, Some(3)).await;
        check_members(&client, "orders", 300).await;
        cluster.end().await;
    });
}
