//! Ranges that move between real brokers while records are written: a node is drained by the command line, the gateway that
//! controls it goes, another one goes on, and no record is lost or doubled.
//!
//! What a gateway answers to what, and what waits for whom, is in `gateway/tests`; here are real logs and links.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use minikafka_broker::{Broker, BrokerConfig, BrokerHandle};
use minikafka_client::core::{ClusterId, NodeId, Partition};
use minikafka_client::{Client, ConsumerOptions, ProducerOptions, ProducerRecord, StartAt, TopicOptions};
use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
use minikafka_gateway::{Gateway, GatewayConfig, GatewayHandle, create_cluster};
use minikafka_tests::process::{self, NodeSetup};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at something that takes a while.
const LOOK: Duration = Duration::from_millis(20);
const NODES: u32 = 4;
const DRAINED: u32 = 2;
const PARTITIONS: u32 = 4;
const SECRET: &[u8] = b"a secret of this test's cluster";

/// A cluster in this process, with chains of three.
struct Cluster {
    _directory: TempDir,
    coordinator: EmbeddedCoordinator,
    brokers: Vec<BrokerHandle>,
}

impl Cluster {
    async fn start() -> Self {
        let directory = process::directory().expect("a directory beside the build");
        let coordinator = EmbeddedCoordinator::open(&directory.path().join("coordinator")).expect("it opens");
        let session = CoordinatorClient::new(Arc::new(coordinator.session()));
        let cluster = create_cluster(&session, SECRET, 3).await.expect("a cluster").cluster;
        let mut brokers = Vec::new();
        for node in 1..=NODES {
            brokers.push(start_broker(&directory, cluster, node, &coordinator).await);
        }
        Self { _directory: directory, coordinator, brokers }
    }

    async fn gateway(&self) -> GatewayHandle {
        let any_port = ([127, 0, 0, 1], 0).into();
        let config = GatewayConfig::new(any_port, SECRET.to_vec(), Arc::new(self.coordinator.session()));
        let config = GatewayConfig { ranges: 8, http_listen: Some(any_port), ..config };
        Gateway::start(config).await.expect("a gateway starts")
    }

    async fn end(self) {
        for broker in self.brokers {
            let stopped = tokio::task::spawn_blocking(|| broker.stop()).await;
            stopped.expect("a thread").expect("an orderly end");
        }
    }
}

async fn start_broker(
    directory: &TempDir,
    cluster: ClusterId,
    node: u32,
    coordinator: &EmbeddedCoordinator,
) -> BrokerHandle {
    let data_dir = directory.path().join(format!("node-{node}"));
    let config = BrokerConfig {
        port_base: 0,
        memory_bytes_per_shard: 64 << 20,
        segment_bytes_max: 8 << 20,
        ..BrokerConfig::new(NodeId(node), cluster, SECRET.to_vec(), data_dir)
    };
    let session = Arc::new(coordinator.session());
    let started = tokio::task::spawn_blocking(move || Broker::start(config, session)).await;
    started.expect("a thread").expect("a broker starts")
}

/// Runs `minikafka cluster …` against an HTTP port; what it prints as JSON.
async fn cluster_command(line: &str, http: &str) -> Value {
    let arguments = format!("cluster {line} --json --http {http}");
    let output = tokio::task::spawn_blocking(move || {
        process::run(&arguments.split_whitespace().collect::<Vec<_>>(), b"").expect("the binary runs")
    });
    let output = output.await.expect("a thread");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn http(gateway: &GatewayHandle) -> String {
    gateway.http_address().expect("it was asked for HTTP").to_string()
}

/// The nodes of all chains of a topic's ring, by a fresh map.
async fn chains(client: &Client) -> Vec<Vec<u32>> {
    let map = client.refresh_map().await.expect("a map");
    let ring = map.rings().find(|ring| ring.replication == 3).expect("the ring");
    ring.chains.iter().map(|chain| chain.places.iter().map(|place| place.node.0).collect()).collect()
}

async fn until_chains(client: &Client, what: impl Fn(&[u32]) -> bool) {
    while !chains(client).await.iter().all(|chain| what(chain)) {
        sleep(LOOK).await;
    }
}

/// Writes numbered records until told to stop; returns how many were acknowledged, which is all of them.
async fn write_until(client: Client, stop: Arc<AtomicBool>, written: Arc<AtomicU32>) -> u32 {
    let producer = client.producer("orders", ProducerOptions::default()).await.expect("a producer");
    let mut number = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let mut deliveries = Vec::new();
        for _ in 0..20 {
            let value = [&number.to_le_bytes()[..], &[7u8; 400]].concat();
            let record = ProducerRecord::value(&value).to(Partition(number % PARTITIONS));
            deliveries.push(producer.send(record).await.expect("it is taken"));
            number += 1;
        }
        for delivery in deliveries {
            delivery.await.expect("it is acknowledged");
        }
        written.store(number, Ordering::Relaxed);
    }
    number
}

/// Every record, once each.
async fn check_records(client: &Client, count: u32) {
    let options = ConsumerOptions { start: StartAt::Earliest, ..ConsumerOptions::default() };
    let mut consumer = client.consumer("orders", options).await.expect("a consumer");
    let mut seen = BTreeSet::new();
    while seen.len() < count as usize {
        let record = consumer.next().await.expect("a record");
        let value = record.value.expect("a value");
        let number = u32::from_le_bytes(value[..4].try_into().expect("four bytes"));
        assert!(number < count && seen.insert(number), "record {number} of {count} comes again, or was never written");
    }
}

async fn until_written(written: &AtomicU32, count: u32) {
    while written.load(Ordering::Relaxed) < count {
        sleep(LOOK).await;
    }
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async { timeout(PATIENCE, work).await.expect("it must not take this long") })
}

#[test]
fn a_node_is_drained_under_load_whoever_controls_and_nothing_is_lost() {
    within(async {
        let cluster = Cluster::start().await;
        let (first, second) = (cluster.gateway().await, cluster.gateway().await);
        let addresses = [&first, &second].map(|gateway| gateway.address().to_string());
        let client = Client::builder(&addresses).connect().await.expect("a gateway answers");
        let options = TopicOptions { partitions: PARTITIONS, replication: 3, ..TopicOptions::default() };
        client.create_topic("orders", options).await.expect("a topic");
        until_chains(&client, |chain| chain.len() == 3).await;
        assert!(chains(&client).await.iter().any(|chain| chain.contains(&DRAINED)));

        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let writing = tokio::spawn(write_until(client.clone(), stop.clone(), written.clone()));
        until_written(&written, 200).await;
        // Asked of the one that does not control: it says who does, and the command follows.
        let plan = cluster_command(&format!("plan drain {DRAINED}"), &http(&second)).await;
        let planned = plan["moves"].as_array().expect("moves").len();
        // Every range is in some of these plans, and some have records.
        let mut bytes = 0;
        for node in 1..=NODES {
            let plan = cluster_command(&format!("plan drain {node}"), &http(&first)).await;
            assert_eq!(plan["unknown_sizes"], 0, "members tell how much they hold");
            bytes += plan["bytes"].as_u64().expect("a number");
        }
        assert!(bytes > 200 * 400, "{bytes} bytes in all plans, where 200 records of 400 bytes were written");
        let begun = cluster_command(&format!("drain {DRAINED} --at-once 1"), &http(&second)).await;
        assert_eq!((&begun["state"], begun["ranges"].as_u64()), (&Value::from("running"), Some(planned as u64)));
        first.shutdown().await;
        let id = begun["operation"].as_u64().expect("a number");
        loop {
            let status = cluster_command("status", &http(&second)).await;
            let operations = status["operations"].as_array().expect("a list").clone();
            let operation = operations.iter().find(|it| it["operation"] == id).expect("it outlives its gateway");
            if operation["state"] == "done" {
                break;
            }
            sleep(LOOK).await;
        }
        until_chains(&client, |chain| chain.len() == 3 && !chain.contains(&DRAINED)).await;
        let seen = written.load(Ordering::Relaxed);
        until_written(&written, seen + 200).await;
        // Given back and rebalanced, it has its share again, of ranges that go on all the time.
        cluster_command(&format!("abort {id}"), &http(&second)).await;
        let back = cluster_command("rebalance --wait", &http(&second)).await;
        assert_eq!(back["state"], "done");
        let held = chains(&client).await.iter().filter(|chain| chain.contains(&DRAINED)).count();
        assert_eq!(held, 6, "8 ranges of 3 copies on 4 nodes");
        stop.store(true, Ordering::Relaxed);
        let count = writing.await.expect("the writer ends by itself");
        check_records(&client, count).await;
        second.shutdown().await;
        cluster.end().await;
    });
}

#[test]
fn dev_serves_http_unless_its_usual_port_is_taken_and_must_where_a_port_is_named() {
    let directory = process::directory().expect("a directory beside the build");
    let port = process::free_ports(1).expect("a free port").to_string();
    let http = format!("127.0.0.1:{port}");
    let mut setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
    setup.more = vec!["--http".into(), http.clone()];
    let node = setup.start().expect("a node starts");
    let status = process::run(&["cluster", "status", "--http", &http], b"").expect("the binary runs");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && text.contains("under-replicated") && text.contains("live"), "{text}");
    let unknown = process::run(&["cluster", "drain", "9", "--http", &http], b"").expect("the binary runs");
    assert_eq!(unknown.status.code(), Some(4), "{}", String::from_utf8_lossy(&unknown.stderr));
    // Another one on the same port does not start; without naming it, it starts whatever is on the usual one.
    let other = process::directory().expect("a directory beside the build");
    let mut setup = NodeSetup::new(other.path(), "dev").expect("the binary and free ports");
    setup.more = vec!["--http".into(), http];
    let refused = setup.start().expect_err("the port is taken").to_string();
    assert!(refused.contains("--http") || refused.contains("http"), "{refused}");
    setup.more.clear();
    setup.start().expect("a node starts").stop().expect("an orderly end");
    node.stop().expect("an orderly end");
}
