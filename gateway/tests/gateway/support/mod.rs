//! A cluster in one process: the embedded coordinator, gateways, and fake nodes that speak real frames.

pub mod flaky;
pub mod http;
pub mod node;

use std::sync::Arc;
use std::time::Duration;

use minikafka_client::{ConnectOptions, Connection, Error};
use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
use minikafka_core::coordination::{Coordinator, RingChunk, TopicBucket, path};
use minikafka_core::topic::{TopicConfig, TopicConfigChange};
use minikafka_core::wire::{
    AlterTopicRequest, Api, CreateTopicRequest, DeleteTopicRequest, Reader, ResolveReply, ResolveRequest,
    TopicDescription, Wire,
};
use minikafka_core::*;
use minikafka_gateway::{Gateway, GatewayConfig, GatewayHandle, create_cluster};
use node::FakeNode;

pub const SECRET: &[u8] = b"the secret of this cluster";
/// Whatever is waited for must happen within this.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub store: EmbeddedCoordinator,
    pub client: CoordinatorClient,
}

impl Cluster {
    pub async fn new(internal_replication: u16) -> Self {
        let store = EmbeddedCoordinator::in_memory();
        let client = CoordinatorClient::new(Arc::new(store.session()));
        create_cluster(&client, SECRET, internal_replication).await.expect("a coordinator in memory");
        Self { store, client }
    }

    pub fn config(&self) -> GatewayConfig {
        self.config_with(Arc::new(self.store.session()))
    }

    pub fn config_with(&self, session: Arc<dyn Coordinator>) -> GatewayConfig {
        GatewayConfig::new("127.0.0.1:0".parse().expect("an address"), SECRET.to_vec(), session)
    }

    pub async fn gateway(&self) -> GatewayHandle {
        Gateway::start(self.config()).await.expect("a gateway starts")
    }

    /// A gateway with an HTTP port, and rings of few ranges.
    pub async fn http_gateway(&self, ranges: u32) -> GatewayHandle {
        let http_listen = Some("127.0.0.1:0".parse().expect("an address"));
        let config = GatewayConfig { http_listen, ranges, ..self.config() };
        Gateway::start(config).await.expect("a gateway starts")
    }

    pub async fn node(&self, node: u32, shards: u16) -> FakeNode {
        FakeNode::start(&self.store, NodeId(node), shards).await
    }

    pub async fn ring(&self, replication: u16) -> Option<RingChunk> {
        let read = self.client.read(&path::ring_chunk(replication, 0)).await;
        read.expect("a coordinator in memory").map(|(chunk, _)| chunk)
    }

    /// Waits until every range of a ring is active at `epoch`, nothing is pending, and the shards know it.
    pub async fn until_ring_acts(&self, replication: u16, epoch: u64, nodes: &[&FakeNode]) -> RingChunk {
        until(&format!("ring {replication} to act in epoch {epoch}"), || async {
            let chunk = self.ring(replication).await?;
            let settled = chunk.ranges.iter().all(|range| {
                range.pending.is_none() && range.active.as_ref().is_some_and(|active| active.epoch == Epoch(epoch))
            });
            let acting: usize = nodes.iter().map(|node| node.acting(RingId(replication))).sum();
            (settled && acting == chunk.ranges.len() * usize::from(replication)).then_some(chunk)
        })
        .await
    }

    pub async fn bucket(&self, topic: &str) -> TopicBucket {
        let read = self.client.read(&path::topic_bucket(topic)).await;
        read.expect("a coordinator in memory").map(|(bucket, _)| bucket).unwrap_or_default()
    }
}

/// Asks again until there is an answer.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub async fn until_controller(gateway: &GatewayHandle) {
    until("the election", || async { gateway.is_controller().then_some(()) }).await;
}

/// A client of one gateway.
pub struct Client(pub Connection);

impl Client {
    pub async fn new(gateway: &GatewayHandle) -> Self {
        let options = ConnectOptions { client_name: "test".into(), ..ConnectOptions::default() };
        Self(Connection::connect(&gateway.address().to_string(), &options).await.expect("a gateway that listens"))
    }

    pub async fn create(&self, request: &CreateTopicRequest) -> Result<TopicDescription, (ErrorCode, String)> {
        self.0.call(Api::CreateTopic, request, DEADLINE).await.map_err(refusal)
    }

    pub async fn delete(&self, name: &str) -> Result<(), (ErrorCode, String)> {
        let request = DeleteTopicRequest { name: name.into(), timeout_ms: 10_000 };
        self.0.call::<_, Empty>(Api::DeleteTopic, &request, DEADLINE).await.map(drop).map_err(refusal)
    }

    pub async fn alter(
        &self,
        name: &str,
        change: TopicConfigChange,
        timeout_ms: u32,
    ) -> Result<TopicDescription, (ErrorCode, String)> {
        let request = AlterTopicRequest { name: name.into(), change, timeout_ms };
        self.0.call(Api::AlterTopic, &request, DEADLINE).await.map_err(refusal)
    }

    pub async fn resolve(&self, request: &ResolveRequest) -> Result<ResolveReply, (ErrorCode, String)> {
        self.0.call(Api::Resolve, request, DEADLINE).await.map_err(refusal)
    }

    /// One topic as the gateway describes it.
    pub async fn describe(&self, name: &str, create_missing: bool) -> TopicDescription {
        let request =
            ResolveRequest { topics: vec![name.into()], all_topics: false, with_rings: false, create_missing };
        self.resolve(&request).await.expect("a map").topics.remove(0)
    }
}

pub fn create_request(name: &str, partitions: u32) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.into(),
        partitions,
        replication: 0,
        config: TopicConfig::default(),
        timeout_ms: 10_000,
    }
}

fn refusal(error: Error) -> (ErrorCode, String) {
    match error {
        Error::Broker(broker) => (broker.code, broker.message.clone()),
        other => panic!("expected an answer, not {other}"),
    }
}

/// A reply without fields.
pub struct Empty;

impl Wire for Empty {
    fn put(&self, _: &mut Vec<u8>) {}
    fn take(_: &mut Reader<'_>) -> Result<Self, minikafka_core::wire::DecodeError> {
        Ok(Self)
    }
}
