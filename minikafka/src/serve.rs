//! What serves. Here `minikafka dev` and `minikafka server`: coordinator, brokers and gateway in one process; `broker` and
//! `gateway` below are the processes of a cluster.
//!
//! `server` has one node, `dev` as
//! many as it is told, each with a directory, ports and a coordinator session of its own; their links are real ones.
//!
//! Started from the ground up, stopped from the top down: the gateway goes first, so that nothing new begins, then the
//! brokers, which answer what is in flight and make everything durable, then the coordinator.

use std::fmt;
use std::fs::DirBuilder;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

use minikafka_broker::{Broker, BrokerConfig, BrokerHandle};
use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
use minikafka_core::{ClusterId, NodeId, ShardId};
use minikafka_gateway::{Gateway, GatewayConfig, GatewayError, GatewayHandle, create_cluster};
use serde::Serialize;

use crate::exit::{Failure, Outcome};
use crate::logging::Logs;
use crate::output::Output;
use crate::shutdown::Shutdown;
use crate::{cluster_secret, doctor, process_limits};

pub mod broker;
mod broker_http;
pub mod gateway;
pub mod membership;
pub mod options;
mod shard_options;

use broker_http::{BrokerHttp, BrokerHttpPlan};
use options::Plan;

/// The first node, and the only one of a single-node cluster.
const FIRST_NODE: u16 = 1;
/// Copies of the cluster's own state, and of a topic that does not say how many, where there are nodes enough.
pub const REPLICATION_MAX: u16 = 3;
/// Between the first ports of two nodes.
const PORTS_PER_NODE: u16 = 100;

/// What is told once everything listens.
#[derive(Debug, Serialize)]
struct Ready {
    command: &'static str,
    version: &'static str,
    gateway: String,
    /// Where HTTP is served, if it is.
    http: Option<String>,
    /// Where brokers tell their metrics, if they do.
    broker_http: Vec<String>,
    shards: Vec<String>,
    data_dir: String,
    cluster: String,
    auto_create_topics: bool,
}

/// Everything that runs.
struct Node {
    coordinator: EmbeddedCoordinator,
    brokers: Vec<BrokerHandle>,
    broker_http: Vec<BrokerHttp>,
    gateway: GatewayHandle,
    cluster: ClusterId,
}

/// Runs a node until it is asked to stop, or must.
pub fn run(plan: &Plan, logs: &Logs, output: &mut Output) -> Outcome {
    check_machine(&plan.data_dir)?;
    create_directory(&plan.data_dir)?;
    one_thread_runtime()?.block_on(async {
        let mut shutdown = Shutdown::listen().map_err(|error| Failure::io("listening for signals", &error))?;
        let mut node = Node::start(plan, logs).await?;
        output.show(&node.ready(plan))?;
        let ended = tokio::select! {
            signal = shutdown.asked() => {
                tracing::info!(signal, "stopping: answering what is in flight, then closing");
                Ok(())
            }
            shard = shard_ended(&mut node.brokers) => Err(shard),
        };
        let stopped = node.stop().await;
        ended.map_err(lost_shard).and(stopped)
    })
}

/// What waits beside the shards: a runtime with one thread.
pub fn one_thread_runtime() -> Outcome<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| Failure::io("starting threads", &error))
}

/// Waits until any shard of any broker ends.
async fn shard_ended(brokers: &mut [BrokerHandle]) -> ShardId {
    let mut endings: Vec<_> = brokers.iter_mut().map(|broker| Box::pin(broker.shard_ended())).collect();
    poll_fn(|context| {
        let ended = endings.iter_mut().find_map(|ending| match ending.as_mut().poll(context) {
            Poll::Ready(shard) => Some(shard),
            Poll::Pending => None,
        });
        ended.map_or(Poll::Pending, Poll::Ready)
    })
    .await
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
    async fn start(plan: &Plan, logs: &Logs) -> Outcome<Self> {
        let failed = |error: &dyn fmt::Display| Failure::failed(error.to_string());
        // The coordinator's lock keeps a second process out of the whole data directory.
        let coordinator =
            EmbeddedCoordinator::open(&plan.data_dir.join("coordinator")).map_err(|error| failed(&error))?;
        let secret = cluster_secret::load_or_create(&plan.data_dir.join(cluster_secret::FILE_NAME))?;
        let session = CoordinatorClient::new(Arc::new(coordinator.session()));
        check_nodes(plan)?;
        let created = create_cluster(&session, &secret, plan.nodes.min(REPLICATION_MAX)).await;
        let cluster = created.map_err(|error| failed(&error))?.cluster;

        let mut brokers = Vec::new();
        for at in 0..plan.nodes {
            let config = plan.broker(at, cluster, &secret);
            let session = Arc::new(coordinator.session());
            // Starting blocks until every shard listens; the coordinator answers from its own thread meanwhile.
            let started = tokio::task::spawn_blocking(move || Broker::start(config, session)).await;
            match started.map_err(|error| failed(&error))? {
                Ok(broker) => brokers.push(broker),
                Err(error) => {
                    stop_brokers(brokers).await?;
                    return Err(failed(&error));
                }
            }
        }

        let mut broker_http = Vec::new();
        for (at, broker) in (0..plan.nodes).zip(&brokers) {
            if let Some(plan) = plan.broker_http(at) {
                broker_http.extend(BrokerHttp::start(plan, broker.metrics(), logs).await?);
            }
        }

        let mut config = GatewayConfig::new(plan.gateway_listen, secret, Arc::new(coordinator.session()));
        config.advertise = plan.gateway_advertise();
        config.http_listen = plan.http;
        config.http_is_optional = plan.http_is_optional;
        config.advertise_http = plan.http.filter(|http| http.port() != 0).map(|http| advertised_http(plan, http));
        config.log_filter = Some(Arc::new(logs.clone()));
        config.auto_create_topics = plan.auto_create_topics;
        config.default_partitions = plan.default_partitions;
        config.default_replication = plan.nodes.min(REPLICATION_MAX);
        match Gateway::start(config).await {
            Ok(gateway) => Ok(Self { coordinator, brokers, broker_http, gateway, cluster }),
            Err(error) => {
                stop_brokers(brokers).await?;
                Err(gateway_failed(&error, "--gateway-listen"))
            }
        }
    }

    fn ready(&self, plan: &Plan) -> Ready {
        Ready {
            command: plan.command,
            version: env!("CARGO_PKG_VERSION"),
            gateway: advertised(plan, self.gateway.address()),
            http: self.gateway.http_address().map(|address| advertised_http(plan, address)),
            broker_http: self.broker_http.iter().map(|http| http.address.to_string()).collect(),
            shards: self.brokers.iter().flat_map(BrokerHandle::shard_addresses).cloned().collect(),
            data_dir: plan.data_dir.display().to_string(),
            cluster: format!("{:016x}", self.cluster.0),
            auto_create_topics: plan.auto_create_topics,
        }
    }

    async fn stop(self) -> Outcome {
        drop(self.broker_http);
        self.gateway.shutdown().await;
        stop_brokers(self.brokers).await?;
        drop(self.coordinator);
        tracing::info!("stopped");
        Ok(())
    }
}

/// Stops all of them at the same time, because they wait for each other's acknowledgements; tells the first error.
async fn stop_brokers(brokers: Vec<BrokerHandle>) -> Outcome {
    let stopping: Vec<_> =
        brokers.into_iter().map(|broker| tokio::task::spawn_blocking(move || broker.stop())).collect();
    let mut first = Ok(());
    for stopped in stopping {
        let failed = |error: &dyn fmt::Display| Failure::failed(format!("stopping a broker: {error}"));
        let stopped = match stopped.await {
            Ok(stopped) => stopped.map_err(|error| failed(&error)),
            Err(error) => Err(failed(&error)),
        };
        first = first.and(stopped);
    }
    first
}

/// The data of more nodes than are started would be missing from every chain.
fn check_nodes(plan: &Plan) -> Outcome {
    let beyond = plan.node_dir(plan.nodes);
    match beyond.exists() {
        true => Err(Failure::usage(format!(
            "--nodes {}: {} is there, so this data directory is one of more nodes; start as many",
            plan.nodes,
            beyond.display()
        ))),
        false => Ok(()),
    }
}

fn gateway_failed(error: &GatewayError, option: &str) -> Failure {
    let advice = match error {
        GatewayError::Listen { port: "http", .. } => {
            "; stop what uses the port, or choose another with --http".to_owned()
        }
        GatewayError::Listen { .. } => format!("; stop what uses the port, or choose another with {option}"),
        _ => String::new(),
    };
    Failure::failed(format!("the gateway cannot start: {error}{advice}"))
}

/// The gateway's address as clients reach it.
fn advertised(plan: &Plan, listening: SocketAddr) -> String {
    format!("{}:{}", plan.advertise, listening.port())
}

/// The HTTP port's address as operators and other gateways reach it.
fn advertised_http(plan: &Plan, listening: SocketAddr) -> String {
    match listening.ip().is_unspecified() {
        true => advertised(plan, listening),
        false => listening.to_string(),
    }
}

impl Plan {
    /// Where node number `at`, counted from 0, keeps its data.
    fn node_dir(&self, at: u16) -> PathBuf {
        self.data_dir.join(format!("node-{}", FIRST_NODE + at))
    }

    /// Settings of node number `at`, counted from 0.
    fn broker(&self, at: u16, cluster: ClusterId, secret: &[u8]) -> BrokerConfig {
        let node = NodeId(u32::from(FIRST_NODE + at));
        let config = self.shards.settings(BrokerConfig::new(node, cluster, secret.to_vec(), self.node_dir(at)));
        BrokerConfig {
            listen_host: self.listen.to_string(),
            advertise_host: self.advertise.clone(),
            port_base: if config.port_base == 0 { 0 } else { config.port_base + at * PORTS_PER_NODE },
            first_core: config.first_core.saturating_add(at.saturating_mul(config.shards)),
            ..config
        }
    }

    /// Where node number `at`, counted from 0, serves HTTP, if it does.
    fn broker_http(&self, at: u16) -> Option<BrokerHttpPlan> {
        let port = self.broker_http_port.checked_add(at).filter(|_| self.broker_http_port > 0)?;
        Some(BrokerHttpPlan { address: SocketAddr::new(self.listen, port), is_optional: true })
    }

    /// None with port 0, which only the gateway knows once it listens.
    fn gateway_advertise(&self) -> Option<String> {
        (self.gateway_listen.port() != 0).then(|| advertised(self, self.gateway_listen))
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "MiniKafka {} ({}) is ready", self.version, self.command)?;
        writeln!(f, "  gateway  {}", self.gateway)?;
        if let Some(http) = &self.http {
            writeln!(f, "  http     {http}")?;
        }
        if !self.broker_http.is_empty() {
            writeln!(f, "  metrics  {}", self.broker_http.join(", "))?;
        }
        writeln!(f, "  shards   {}", self.shards.join(", "))?;
        writeln!(f, "  data     {}", self.data_dir)?;
        let topics = if self.auto_create_topics { "create themselves" } else { "minikafka topic create NAME" };
        write!(f, "  topics   {topics}\nCtrl-C stops it; what is acknowledged survives that, and kill -9 too.")
    }
}
