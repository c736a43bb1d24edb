//! Three real brokers over loopback, a gateway and an embedded coordinator in one process: chains of three replicate, every
//! member serves every record, a broker that goes is replaced, and one that comes back learns and joins.
//!
//! The links, the disks and the executors are the ones that ship. What crashes, cuts and slow disks do to chains is searched
//! by `tests/sim`; here it is shown that the same machines do it over sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use minikafka_broker::{Broker, BrokerConfig, BrokerHandle};
use minikafka_client::core::batch::BatchView;
use minikafka_client::core::coordination::Coordinator;
use minikafka_client::core::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use minikafka_client::core::wire::{Api, FetchPartition, FetchReply, FetchRequest, Wire};
use minikafka_client::core::{ClusterId, ErrorCode, NodeId, Offset, Partition, PartitionKey};
use minikafka_client::{Client, Producer, ProducerOptions, ProducerRecord, TopicOptions};
use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
use minikafka_gateway::{Gateway, GatewayConfig, GatewayHandle, create_cluster};
use minikafka_tests::process;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that takes a while.
const LOOK: Duration = Duration::from_millis(20);
const NODES: u32 = 3;
const PARTITIONS: u32 = 4;
const SECRET: &[u8] = b"a secret of this test's cluster";

/// A cluster in this process.
struct Cluster {
    directory: TempDir,
    coordinator: EmbeddedCoordinator,
    cluster: ClusterId,
    brokers: BTreeMap<u32, BrokerHandle>,
    gateway: GatewayHandle,
}

impl Cluster {
    async fn start() -> Self {
        let directory = process::directory().expect("a directory beside the build");
        let coordinator = EmbeddedCoordinator::open(&directory.path().join("coordinator")).expect("it opens");
        let session = CoordinatorClient::new(Arc::new(coordinator.session()));
        let cluster = create_cluster(&session, SECRET, 3).await.expect("a cluster").cluster;
        let any_port = ([127, 0, 0, 1], 0).into();
        let mut brokers = BTreeMap::new();
        for node in 1..=NODES {
            let session = Arc::new(coordinator.session());
            brokers.insert(node, start_broker(&directory, cluster, node, session).await);
        }
        let config = GatewayConfig::new(any_port, SECRET.to_vec(), Arc::new(coordinator.session()));
        let gateway = Gateway::start(GatewayConfig { ranges: 8, ..config }).await.expect("a gateway starts");
        Self { directory, coordinator, cluster, brokers, gateway }
    }

    async fn client(&self) -> Client {
        Client::builder([self.gateway.address().to_string()]).connect().await.expect("a gateway answers")
    }

    /// Starts a node again; what it had on its disk is there.
    async fn restart(&mut self, node: u32) {
        let session = Arc::new(self.coordinator.session());
        let broker = start_broker(&self.directory, self.cluster, node, session).await;
        self.brokers.insert(node, broker);
    }

    /// Ends a broker, of which the coordinator is told.
    async fn stop(&mut self, node: u32) {
        let broker = self.brokers.remove(&node).expect("it runs");
        let stopped = tokio::task::spawn_blocking(|| broker.stop()).await;
        stopped.expect("a thread").expect("an orderly end");
    }

    async fn end(mut self) {
        for node in 1..=NODES {
            if self.brokers.contains_key(&node) {
                self.stop(node).await;
            }
        }
        self.gateway.shutdown().await;
    }
}

async fn start_broker(
    directory: &TempDir,
    cluster: ClusterId,
    node: u32,
    session: Arc<dyn Coordinator>,
) -> BrokerHandle {
    let data_dir = directory.path().join(format!("node-{node}"));
    let config = BrokerConfig {
        port_base: 0,
        memory_bytes_per_shard: 64 << 20,
        segment_bytes_max: 8 << 20,
        ..BrokerConfig::new(NodeId(node), cluster, SECRET.to_vec(), data_dir)
    };
    let started = tokio::task::spawn_blocking(move || Broker::start(config, session)).await;
    started.expect("a thread").expect("a broker starts")
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

/// The nodes of a partition's chain, head first, by a fresh map.
async fn chain(client: &Client, topic: &str, partition: u32) -> Vec<u32> {
    let map = client.refresh_map().await.expect("a map");
    let topic = client.topic(topic).await.expect("the topic");
    let range = map.range_of(&topic, Partition(partition)).expect("its range");
    let ring = map.rings().find(|ring| ring.ring == range.ring).expect("its ring");
    ring.chains[range.range.0 as usize].places.iter().map(|place| place.node.0).collect()
}

/// Waits until all chains of the topic have so many members and none of them is `without`.
async fn await_chains(client: &Client, topic: &str, members: usize, without: Option<u32>) {
    for partition in 0..PARTITIONS {
        loop {
            let nodes = chain(client, topic, partition).await;
            if nodes.len() == members && without.is_none_or(|node| !nodes.contains(&node)) {
                break;
            }
            sleep(LOOK).await;
        }
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
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let producer = topic(&client).await;
        await_chains(&client, "orders", 3, None).await;
        produce(&producer, 0..400).await;
        check_members(&client, "orders", 400).await;
        cluster.end().await;
    });
}

#[test]
fn a_broker_that_goes_is_left_out_and_one_that_comes_back_joins() {
    within(async {
        let mut cluster = Cluster::start().await;
        let client = cluster.client().await;
        let producer = topic(&client).await;
        produce(&producer, 0..200).await;
        cluster.stop(2).await;
        produce(&producer, 200..400).await;
        await_chains(&client, "orders", 2, Some(2)).await;
        check_members(&client, "orders", 400).await;
        cluster.restart(2).await;
        await_chains(&client, "orders", 3, None).await;
        produce(&producer, 400..500).await;
        check_members(&client, "orders", 500).await;
        cluster.end().await;
    });
}

/// The coordinator is not told: the broken links alone are what makes the others complain.
#[test]
fn a_broken_link_alone_replaces_a_broker() {
    within(async {
        let mut cluster = Cluster::start().await;
        let client = cluster.client().await;
        let producer = topic(&client).await;
        produce(&producer, 0..100).await;
        let session: Arc<dyn Coordinator> = Arc::new(cluster.coordinator.session());
        cluster.stop(3).await;
        let broker = start_broker(&cluster.directory, cluster.cluster, 3, session.clone()).await;
        await_chains(&client, "orders", 3, None).await;
        produce(&producer, 100..200).await;
        // Its shards end; its session, of which this test has a handle, goes on.
        tokio::task::spawn_blocking(move || drop(broker)).await.expect("a thread");
        produce(&producer, 200..300).await;
        await_chains(&client, "orders", 2, Some(3)).await;
        check_members(&client, "orders", 300).await;
        drop(session);
        cluster.end().await;
    });
}
