//! Several real brokers over loopback, gateways and an embedded coordinator in this process.
//!
//! The links, the disks and the executors are the ones that ship. A broker can be stopped, cut (others see what a killed
//! process leaves: its connections end, its session does not) and started again on the same disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use minikafka_broker::{Broker, BrokerConfig, BrokerHandle};
use minikafka_client::core::coordination::Coordinator;
use minikafka_client::core::{ClusterId, NodeId, Partition};
use minikafka_client::{Client, ClientOptions};
use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
use minikafka_gateway::{Gateway, GatewayConfig, GatewayHandle, create_cluster};
use tempfile::TempDir;
use tokio::time::sleep;

/// Between two looks at something that takes a while.
pub const LOOK: Duration = Duration::from_millis(20);
const SECRET: &[u8] = b"a secret of this test's cluster";
/// Memory of a broker: enough for a test, little enough for many.
const MEMORY_BYTES: u64 = 64 << 20;
const SEGMENT_BYTES: u64 = 8 << 20;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct ClusterSetup {
    /// Brokers, numbered from 1.
    pub nodes: u32,
    /// Gateways; the first one is elected.
    pub gateways: usize,
    /// Ranges of each ring.
    pub ranges: u32,
}

impl Default for ClusterSetup {
    fn default() -> Self {
        Self { nodes: 3, gateways: 1, ranges: 8 }
    }
}

/// A running cluster, each of its brokers in a rack of its own: `rack-1`, `rack-2`, …
pub struct Cluster {
    directory: TempDir,
    coordinator: EmbeddedCoordinator,
    cluster: ClusterId,
    /// Those that run.
    pub brokers: BTreeMap<u32, BrokerHandle>,
    /// Of those that run, and of those that were cut.
    sessions: BTreeMap<u32, Arc<dyn Coordinator>>,
    /// In the order in which they were started; ended ones leave a gap.
    pub gateways: Vec<Option<GatewayHandle>>,
    gateway_addresses: Vec<String>,
}

impl Cluster {
    /// Starts brokers and gateways, in a directory of its own below `parent`.
    pub async fn start(parent: &Path, setup: ClusterSetup) -> Self {
        let directory = tempfile::tempdir_in(parent).expect("a directory beside the build");
        let coordinator = EmbeddedCoordinator::open(&directory.path().join("coordinator")).expect("it opens");
        let session = CoordinatorClient::new(Arc::new(coordinator.session()));
        let cluster = create_cluster(&session, SECRET, 3).await.expect("a cluster").cluster;
        let (brokers, sessions) = (BTreeMap::new(), BTreeMap::new());
        let (gateways, gateway_addresses) = (Vec::new(), Vec::new());
        let mut this = Self { directory, coordinator, cluster, brokers, sessions, gateways, gateway_addresses };
        for node in 1..=setup.nodes {
            this.restart(node).await;
        }
        for _ in 0..setup.gateways {
            let any_port = ([127, 0, 0, 1], 0).into();
            let config = GatewayConfig::new(any_port, SECRET.to_vec(), Arc::new(this.coordinator.session()));
            let gateway = Gateway::start(GatewayConfig { ranges: setup.ranges, ..config }).await;
            let gateway = gateway.expect("a gateway starts");
            this.gateway_addresses.push(gateway.address().to_string());
            this.gateways.push(Some(gateway));
        }
        this
    }

    /// A client that knows all gateways, also those that have ended.
    pub async fn client(&self) -> Client {
        self.client_with(ClientOptions::default()).await
    }

    /// The same, with these settings.
    pub async fn client_with(&self, options: ClientOptions) -> Client {
        Client::builder(&self.gateway_addresses).options(options).connect().await.expect("a gateway answers")
    }

    /// A session of its own with the coordinator.
    pub fn session(&self) -> CoordinatorClient {
        CoordinatorClient::new(Arc::new(self.coordinator.session()))
    }

    /// Starts a node, for the first time or again; what it had on its disk is there.
    pub async fn restart(&mut self, node: u32) {
        // What is left of the process before, if it was cut.
        if let Some(session) = self.sessions.remove(&node) {
            session.close();
        }
        let session: Arc<dyn Coordinator> = Arc::new(self.coordinator.session());
        self.sessions.insert(node, session.clone());
        let data_dir = self.directory.path().join(format!("node-{node}"));
        let config = BrokerConfig {
            port_base: 0,
            rack: format!("rack-{node}"),
            memory_bytes_per_shard: MEMORY_BYTES,
            segment_bytes_max: SEGMENT_BYTES,
            ..BrokerConfig::new(NodeId(node), self.cluster, SECRET.to_vec(), data_dir)
        };
        let started = tokio::task::spawn_blocking(move || Broker::start(config, session)).await;
        self.brokers.insert(node, started.expect("a thread").expect("a broker starts"));
    }

    /// Ends a broker, of which the coordinator is told.
    pub async fn stop(&mut self, node: u32) {
        let broker = self.brokers.remove(&node).expect("it runs");
        let stopped = tokio::task::spawn_blocking(|| broker.stop()).await;
        stopped.expect("a thread").expect("an orderly end");
        self.sessions.remove(&node);
    }

    /// Ends a broker as a crash looks to all others; the coordinator is not told. Its connections are cut when the returned
    /// handle runs on; it is done when the broker's files are closed.
    pub fn cut(&mut self, node: u32) -> tokio::task::JoinHandle<()> {
        let broker = self.brokers.remove(&node).expect("it runs");
        tokio::task::spawn_blocking(|| broker.cut().expect("its files are closed"))
    }

    /// Ends a broker as a stopped process looks to all others: for `pause` its connections stay open and nothing is answered.
    pub fn silence(&mut self, node: u32, pause: Duration) -> tokio::task::JoinHandle<()> {
        let broker = self.brokers.remove(&node).expect("it runs");
        tokio::task::spawn_blocking(move || broker.fall_silent(pause).expect("its files are closed"))
    }

    /// Ends a gateway.
    pub async fn stop_gateway(&mut self, number: usize) {
        let gateway = self.gateways[number].take().expect("it runs");
        gateway.shutdown().await;
    }

    /// Ends everything that runs.
    pub async fn end(mut self) {
        for node in self.brokers.keys().copied().collect::<Vec<_>>() {
            self.stop(node).await;
        }
        for gateway in self.gateways.into_iter().flatten() {
            gateway.shutdown().await;
        }
    }
}

/// The nodes of a partition's chain, head first, by a fresh map.
pub async fn chain(client: &Client, topic: &str, partition: u32) -> Vec<u32> {
    let map = client.refresh_map().await.expect("a map");
    let topic = client.topic(topic).await.expect("the topic");
    let range = map.range_of(&topic, Partition(partition)).expect("its range");
    let ring = map.rings().find(|ring| ring.ring == range.ring).expect("its ring");
    ring.chains[range.range.0 as usize].places.iter().map(|place| place.node.0).collect()
}

/// Waits until the chains of all partitions of a topic have so many members and none of them is `without`.
pub async fn await_chains(client: &Client, topic: &str, partitions: u32, members: usize, without: Option<u32>) {
    for partition in 0..partitions {
        loop {
            let nodes = chain(client, topic, partition).await;
            if nodes.len() == members && without.is_none_or(|node| !nodes.contains(&node)) {
                break;
            }
            sleep(LOOK).await;
        }
    }
}
