//! `minikafka gateway`: tells clients who owns what; the elected one controls the chains.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::{ArgAction, Args};
use minikafka_core::limits;
use minikafka_gateway::{Gateway, GatewayConfig};
use serde::Serialize;

use super::membership::{Membership, MembershipOptions};
use super::options::in_brackets;
use super::{gateway_failed, one_thread_runtime};
use crate::config::ConfigOptions;
use crate::exit::{Failure, Outcome};
use crate::logging::Logs;
use crate::output::Output;
use crate::shutdown::Shutdown;

/// Options of `minikafka gateway`.
#[derive(Clone, Debug, Args)]
pub struct GatewayOptions {
    /// Where it listens; port 0: any free one. 0.0.0.0 is every address, and needs --advertise.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9000", env = "MINIKAFKA_LISTEN")]
    listen: SocketAddr,
    /// The host name or address by which clients and brokers reach it [default: the one of --listen].
    #[arg(long, value_name = "HOST", env = "MINIKAFKA_ADVERTISE")]
    advertise: Option<String>,
    /// Where HTTP is served: what `minikafka cluster` asks. It has no secret, so keep it where only operators are [default: not
    /// at all].
    #[arg(long, value_name = "IP:PORT", env = "MINIKAFKA_HTTP_LISTEN")]
    http: Option<SocketAddr>,
    /// Create a topic when a producer asks for one that does not exist.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", value_name = "true|false", env = "MINIKAFKA_AUTO_CREATE_TOPICS")]
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say how many.
    #[arg(long, value_name = "COUNT", default_value_t = 8, env = "MINIKAFKA_DEFAULT_PARTITIONS",
          value_parser = clap::value_parser!(u32).range(1..=limits::TOPIC_PARTITIONS_MAX as i64))]
    default_partitions: u32,
    /// Copies of a topic that does not say how many [default: those of the cluster's own state].
    #[arg(long, value_name = "COUNT", env = "MINIKAFKA_DEFAULT_REPLICATION",
          value_parser = clap::value_parser!(u16).range(1..=limits::CHAIN_MAX as i64))]
    default_replication: Option<u16>,
    /// Where more of this stands.
    #[command(flatten)]
    _config: ConfigOptions,
    /// Where its cluster is.
    #[command(flatten)]
    membership: MembershipOptions,
}

/// What is told once it listens.
#[derive(Debug, Serialize)]
struct Ready {
    command: &'static str,
    version: &'static str,
    cluster: String,
    gateway: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
}

/// Runs a gateway until it is asked to stop.
pub fn run(options: &GatewayOptions, logs: &Logs, output: &mut Output) -> Outcome {
    let host = options.host()?;
    one_thread_runtime()?.block_on(async {
        let mut shutdown = Shutdown::listen().map_err(|error| Failure::io("listening for signals", &error))?;
        let membership = options.membership.join().await?;
        let cluster = format!("{:016x}", membership.cluster.cluster.0);
        let mut config = options.config(&host, membership);
        config.log_filter = Some(Arc::new(logs.clone()));
        let gateway = Gateway::start(config).await.map_err(|error| gateway_failed(&error, "--listen"))?;
        let ready = Ready {
            command: "gateway",
            version: env!("CARGO_PKG_VERSION"),
            cluster,
            gateway: format!("{host}:{}", gateway.address().port()),
            http: gateway.http_address().map(|http| format!("{host}:{}", http.port())),
        };
        output.show(&ready)?;
        let signal = shutdown.asked().await;
        tracing::info!(signal, "stopping");
        gateway.shutdown().await;
        tracing::info!("stopped");
        Ok(())
    })
}

impl GatewayOptions {
    fn host(&self) -> Outcome<String> {
        match &self.advertise {
            Some(host) => Ok(in_brackets(host.clone())),
            None if self.listen.ip().is_unspecified() => Err(Failure::usage(format!(
                "--listen {} is no address that a client could connect to: say with --advertise by which host name or \
                 address clients and brokers reach this gateway",
                self.listen
            ))),
            None => Ok(in_brackets(self.listen.ip().to_string())),
        }
    }

    fn config(&self, host: &str, membership: Membership) -> GatewayConfig {
        let mut config = GatewayConfig::new(self.listen, membership.secret, membership.session);
        // With port 0 only the gateway knows, once it listens, and then its address is this machine's.
        config.advertise = (self.listen.port() != 0).then(|| format!("{host}:{}", self.listen.port()));
        config.http_listen = self.http;
        config.advertise_http = self.http.filter(|http| http.port() != 0).map(|http| format!("{host}:{}", http.port()));
        config.auto_create_topics = self.auto_create_topics;
        config.default_partitions = self.default_partitions;
        config.default_replication = self.default_replication.unwrap_or(0);
        config
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "MiniKafka {} (gateway) is ready", self.version)?;
        writeln!(f, "  cluster  {}", self.cluster)?;
        write!(f, "  gateway  {}", self.gateway)?;
        self.http.iter().try_for_each(|http| write!(f, "\n  http     {http}"))
    }
}
