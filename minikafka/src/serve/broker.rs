//! `minikafka broker`: the shards of one node of a cluster.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use minikafka_broker::{Broker, BrokerConfig, BrokerHandle};
use minikafka_core::{ClusterId, NodeId, limits};
use serde::Serialize;

use super::broker_http::{BrokerHttp, BrokerHttpPlan, PORT};
use super::membership::{Membership, MembershipOptions};
use super::options::in_brackets;
use super::shard_options::ShardOptions;
use super::{check_machine, create_directory, lost_shard, one_thread_runtime};
use crate::config::ConfigOptions;
use crate::exit::{Failure, Outcome};
use crate::logging::Logs;
use crate::output::Output;
use crate::shutdown::Shutdown;

/// Options of `minikafka broker`.
#[derive(Clone, Debug, Args)]
pub struct BrokerOptions {
    /// The number of this node, different from every other's in the cluster.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), env = "MINIKAFKA_NODE_ID")]
    node_id: u32,
    /// The address on which shards listen; 0.0.0.0 is every one, and needs --advertise.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", env = "MINIKAFKA_HOST")]
    host: IpAddr,
    /// The host name or address by which clients, gateways and other brokers reach this node [default: the one of --host].
    #[arg(long, value_name = "HOST", env = "MINIKAFKA_ADVERTISE")]
    advertise: Option<String>,
    /// Where its records are kept; created when it is missing.
    #[arg(long, value_name = "DIR", default_value = "minikafka-data", env = "MINIKAFKA_DATA_DIR")]
    data_dir: PathBuf,
    /// Where it serves HTTP, which is /metrics, /healthz and /v1/log-level; it has no secret, so keep it where only operators are
    /// [default: port 19600 of --host, or not at all where that is taken].
    #[arg(long, value_name = "IP:PORT", env = "MINIKAFKA_BROKER_HTTP")]
    http: Option<SocketAddr>,
    /// Where the machine stands: the members of a chain are spread over racks.
    #[arg(long, value_name = "NAME", default_value = "", value_parser = rack, env = "MINIKAFKA_RACK")]
    rack: String,
    /// Where more of this stands.
    #[command(flatten)]
    _config: ConfigOptions,
    /// Where its cluster is.
    #[command(flatten)]
    membership: MembershipOptions,
    /// How its shards run.
    #[command(flatten)]
    shards: ShardOptions,
}

/// What is told once every shard listens and the node is registered.
#[derive(Debug, Serialize)]
struct Ready {
    command: &'static str,
    version: &'static str,
    node: u32,
    cluster: String,
    shards: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    data_dir: String,
}

/// Runs a broker until it is asked to stop, or must.
pub fn run(options: &BrokerOptions, logs: &Logs, output: &mut Output) -> Outcome {
    let advertise = options.advertise()?;
    options.shards.check_ports()?;
    check_machine(&options.data_dir)?;
    create_directory(&options.data_dir)?;
    one_thread_runtime()?.block_on(async {
        let mut shutdown = Shutdown::listen().map_err(|error| Failure::io("listening for signals", &error))?;
        let membership = options.membership.join().await?;
        let cluster = membership.cluster.cluster;
        let config = options.config(advertise, &membership);
        // Starting blocks until every shard listens and the node is registered.
        let starting = tokio::task::spawn_blocking(move || Broker::start(config, membership.session));
        let mut broker = tokio::select! {
            started = starting => started.map_err(broken)?.map_err(broken)?,
            signal = shutdown.asked() => {
                tracing::info!(signal, "stopping before the node was registered");
                std::process::exit(0);
            }
        };
        let http = match BrokerHttp::start(options.http(), broker.metrics(), logs).await {
            Ok(http) => http,
            Err(failure) => {
                tokio::task::spawn_blocking(move || broker.stop()).await.map_err(broken)?.map_err(broken)?;
                return Err(failure);
            }
        };
        output.show(&options.ready(cluster, &broker, http.as_ref()))?;
        let ended = tokio::select! {
            signal = shutdown.asked() => {
                tracing::info!(signal, "stopping: answering what is in flight, then closing");
                Ok(())
            }
            shard = broker.shard_ended() => Err(lost_shard(shard)),
        };
        let stopped = tokio::task::spawn_blocking(move || broker.stop()).await.map_err(broken)?.map_err(broken);
        tracing::info!("stopped");
        ended.and(stopped)
    })
}

fn broken(error: impl fmt::Display) -> Failure {
    Failure::failed(format!("the broker: {error}"))
}

impl BrokerOptions {
    fn advertise(&self) -> Outcome<String> {
        match &self.advertise {
            Some(host) => Ok(in_brackets(host.clone())),
            None if self.host.is_unspecified() => Err(Failure::usage(format!(
                "--host {} is no address that others could connect to: say with --advertise by which host name or \
                 address they reach this node",
                self.host
            ))),
            None => Ok(in_brackets(self.host.to_string())),
        }
    }

    fn config(&self, advertise: String, membership: &Membership) -> BrokerConfig {
        let (cluster, secret) = (membership.cluster.cluster, membership.secret.clone());
        let base = BrokerConfig::new(NodeId(self.node_id), cluster, secret, self.data_dir.clone());
        BrokerConfig {
            listen_host: self.host.to_string(),
            advertise_host: advertise,
            rack: self.rack.clone(),
            ..self.shards.settings(base)
        }
    }

    fn http(&self) -> BrokerHttpPlan {
        let address = self.http.unwrap_or(SocketAddr::new(self.host, PORT));
        BrokerHttpPlan { address, is_optional: self.http.is_none() }
    }

    fn ready(&self, cluster: ClusterId, broker: &BrokerHandle, http: Option<&BrokerHttp>) -> Ready {
        Ready {
            command: "broker",
            version: env!("CARGO_PKG_VERSION"),
            node: self.node_id,
            cluster: format!("{:016x}", cluster.0),
            shards: broker.shard_addresses().to_vec(),
            http: http.map(|http| http.address.to_string()),
            data_dir: self.data_dir.display().to_string(),
        }
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "MiniKafka {} (broker, node {}) is ready", self.version, self.node)?;
        writeln!(f, "  cluster  {}", self.cluster)?;
        writeln!(f, "  shards   {}", self.shards.join(", "))?;
        self.http.iter().try_for_each(|http| writeln!(f, "  http     {http}"))?;
        write!(f, "  data     {}", self.data_dir)
    }
}

fn rack(text: &str) -> Result<String, String> {
    match text.len() <= limits::TEXT_BYTES_MAX && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(format!("a rack is a name of at most {} bytes", limits::TEXT_BYTES_MAX)),
    }
}
