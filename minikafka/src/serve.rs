//! `minikafka dev` and `minikafka server`: coordinator, broker and gateway of one node in one process.
//!
//! Started from the ground up, stopped from the top down: the gateway goes first, so that nothing new begins, then the
//! broker, which answers what is in flight and makes everything durable, then the coordinator.

use std::fmt;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use minikafka_broker::{Broker, BrokerConfig, BrokerHandle};
use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
use minikafka_core::{ClusterId, NodeId, ShardId};
use minikafka_gateway::{Gateway, GatewayConfig, GatewayError, GatewayHandle, create_cluster};
use serde::Serialize;

use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::shutdown::Shutdown;
use crate::{cluster_secret, doctor, process_limits};

pub mod options;

use options::Plan;

/// The only node of a single-node cluster.
const NODE: NodeId = NodeId(1);
/// Copies of the cluster's own state: there is one node.
const INTERNAL_REPLICATION: u16 = 1;

/// What is told once everything listens.
#[derive(Debug, Serialize)]
struct Ready {
    command: &'static str,
    version: &'static str,
    gateway: String,
    shards: Vec<String>,
    data_dir: String,
    cluster: String,
    auto_create_topics: bool,
}

/// Everything that runs.
struct Node {
    coordinator: EmbeddedCoordinator,
    broker: BrokerHandle,
    gateway: GatewayHandle,
    cluster: ClusterId,
}

/// Runs a node until it is asked to stop, or must.
pub fn run(plan: &Plan, output: &mut Output) -> Outcome {
    check_machine(&plan.data_dir)?;
    create_directory(&plan.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("starting threads", &error))?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen().map_err(|error| Failure::io("listening for signals", &error))?;
        let mut node = Node::start(plan).await?;
        output.show(&node.ready(plan))?;
        let ended = tokio::select! {
            signal = shutdown.asked() => {
                tracing::info!(signal, "stopping: answering what is in flight, then closing");
                Ok(())
            }
            shard = node.broker.shard_ended() => Err(shard),
        };
        let stopped = node.stop().await;
        ended.map_err(lost_shard).and(stopped)
    })
}

fn lost_shard(shard: ShardId) -> Failure {
    Failure::failed(format!(
        "shard {shard} ended by itself: the log above says why; nothing acknowledged is lost, start again once it is fixed"
    ))
}

/// Raises limits, says what could be better, and refuses to start where a broker could not keep its promises.
fn check_machine(data_dir: &Path) -> Outcome {
    let diagnosis = doctor::examine(data_dir, process_limits::raise());
    for complaint in diagnosis.complaints(doctor::Verdict::Warning) {
        tracing::warn!("{complaint}");
    }
    if diagnosis.ok {
        return Ok(());
    }
    let missing = diagnosis.complaints(doctor::Verdict::Missing);
    Err(Failure::failed(format!("a broker cannot run here.\n  {}", missing.join("\n  "))))
}

/// Records and the cluster secret are nobody else's business.
fn create_directory(data_dir: &Path) -> Outcome {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    created.map_err(|error| Failure::io(data_dir.display(), &error))
}

impl Node {
    async fn start(plan: &Plan) -> Outcome<Self> {
        let failed = |error: &dyn fmt::Display| Failure::failed(error.to_string());
        // The coordinator's lock keeps a second process out of the whole data directory.
        let coordinator =
            EmbeddedCoordinator::open(&plan.data_dir.join("coordinator")).map_err(|error| failed(&error))?;
        let secret = cluster_secret::load_or_create(&plan.data_dir)?;
        let session = CoordinatorClient::new(Arc::new(coordinator.session()));
        let created = create_cluster(&session, INTERNAL_REPLICATION).await;
        let cluster = created.map_err(|error| failed(&error))?.cluster;

        let config = BrokerConfig {
            listen_host: plan.listen.to_string(),
            advertise_host: plan.advertise.clone(),
            port_base: plan.port_base,
            shards: plan.cores,
            memory_bytes_per_shard: plan.memory_bytes_per_shard,
            durability: plan.durability,
            segment_bytes_max: plan.segment_bytes_max,
            recycled_bytes_max: plan.recycled_bytes_max,
            retention_check: plan.retention_check,
            spin: plan.spin,
            produce_quota_per_connection: plan.produce_quota_per_connection,
            ..BrokerConfig::new(NODE, cluster, secret.clone(), plan.data_dir.join(format!("node-{NODE}")))
        };
        let broker_session = Arc::new(coordinator.session());
        // Starting blocks until every shard listens; the coordinator answers from its own thread meanwhile.
        let started = tokio::task::spawn_blocking(move || Broker::start(config, broker_session)).await;
        let broker = started.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;

        let mut config = GatewayConfig::new(plan.gateway_listen, secret, Arc::new(coordinator.session()));
        config.advertise = plan.gateway_advertise();
        config.auto_create_topics = plan.auto_create_topics;
        config.default_partitions = plan.default_partitions;
        match Gateway::start(config).await {
            Ok(gateway) => Ok(Self { coordinator, broker, gateway, cluster }),
            Err(error) => {
                stop_broker(broker).await?;
                Err(gateway_failed(&error))
            }
        }
    }

    fn ready(&self, plan: &Plan) -> Ready {
        Ready {
            command: plan.command,
            version: env!("CARGO_PKG_VERSION"),
            gateway: advertised(plan, self.gateway.address()),
            shards: self.broker.shard_addresses().to_vec(),
            data_dir: plan.data_dir.display().to_string(),
            cluster: format!("{:016x}", self.cluster.0),
            auto_create_topics: plan.auto_create_topics,
        }
    }

    async fn stop(self) -> Outcome {
        self.gateway.shutdown().await;
        stop_broker(self.broker).await?;
        drop(self.coordinator);
        tracing::info!("stopped");
        Ok(())
    }
}

async fn stop_broker(broker: BrokerHandle) -> Outcome {
    let stopped = tokio::task::spawn_blocking(move || broker.stop()).await;
    let stopped = stopped.map_err(|error| Failure::failed(format!("stopping the broker: {error}")))?;
    stopped.map_err(|error| Failure::failed(format!("stopping the broker: {error}")))
}

fn gateway_failed(error: &GatewayError) -> Failure {
    let advice = match error {
        GatewayError::Listen { .. } => "; stop what uses the port, or choose another with --gateway-listen",
        _ => "",
    };
    Failure::failed(format!("the gateway cannot start: {error}{advice}"))
}

/// The gateway's address as clients reach it.
fn advertised(plan: &Plan, listening: SocketAddr) -> String {
    format!("{}:{}", plan.advertise, listening.port())
}

impl Plan {
    /// None with port 0, which only the gateway knows once it listens.
    fn gateway_advertise(&self) -> Option<String> {
        (self.gateway_listen.port() != 0).then(|| advertised(self, self.gateway_listen))
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "MiniKafka {} ({}) is ready", self.version, self.command)?;
        writeln!(f, "  gateway  {}", self.gateway)?;
        writeln!(f, "  shards   {}", self.shards.join(", "))?;
        writeln!(f, "  data     {}", self.data_dir)?;
        let topics = if self.auto_create_topics { "create themselves" } else { "minikafka topic create NAME" };
        write!(f, "  topics   {topics}\nCtrl-C stops it; what is acknowledged survives that, and kill -9 too.")
    }
}
