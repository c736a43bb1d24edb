//! Options of `minikafka dev` and `minikafka server`, and the plan that both come down to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgAction, Args};
use minikafka_core::limits;

use super::shard_options::ShardOptions;
use crate::config::ConfigOptions;
use crate::exit::{Failure, Outcome};

/// Port of the gateway unless said otherwise.
const GATEWAY_PORT: u16 = 9000;
/// Port of HTTP unless said otherwise.
const HTTP_PORT: u16 = 8090;

/// Options that both have.
#[derive(Clone, Debug, Args)]
pub struct NodeOptions {
    /// Where everything is kept; created when it is missing.
    #[arg(long, value_name = "DIR", default_value = "minikafka-data", env = "MINIKAFKA_DATA_DIR")]
    data_dir: PathBuf,
    /// Partitions of a topic that does not say how many.
    #[arg(long, value_name = "COUNT", default_value_t = 8, env = "MINIKAFKA_DEFAULT_PARTITIONS",
          value_parser = clap::value_parser!(u32).range(1..=limits::TOPIC_PARTITIONS_MAX as i64))]
    default_partitions: u32,
    /// Where brokers tell their metrics: node k, counted from 0, on this port + k, or not at all where that is taken; 0: nowhere.
    #[arg(long, value_name = "PORT", default_value_t = super::broker_http::PORT, env = "MINIKAFKA_BROKER_HTTP_PORT")]
    broker_http_port: u16,
    /// Where more of this stands.
    #[command(flatten)]
    _config: ConfigOptions,
    /// How its shards run.
    #[command(flatten)]
    shards: ShardOptions,
}

/// Options of `minikafka dev`.
#[derive(Clone, Debug, Args)]
pub struct DevOptions {
    /// Where the gateway listens; port 0: any free one.
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), GATEWAY_PORT),
          env = "MINIKAFKA_GATEWAY_LISTEN")]
    gateway_listen: SocketAddr,
    /// How many nodes, each with its own shards, in this one process; topics have a copy on each of up to three. Node k, counted
    /// from 0, listens from --port-base + 100 k on.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5), env = "MINIKAFKA_NODES")]
    nodes: u16,
    /// Where HTTP is served: what `minikafka cluster` asks [default: 127.0.0.1:8090, or not at all where that is taken].
    #[arg(long, value_name = "IP:PORT", env = "MINIKAFKA_HTTP_LISTEN")]
    http: Option<SocketAddr>,
    /// What `server` has too.
    #[command(flatten)]
    node: NodeOptions,
}

/// Options of `minikafka server`.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// The address on which shards and gateway listen; 0.0.0.0 is every one, and needs --advertise.
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into(), env = "MINIKAFKA_HOST")]
    listen: IpAddr,
    /// The host name or address by which clients reach this machine [default: the one of --listen].
    #[arg(long, value_name = "HOST", env = "MINIKAFKA_ADVERTISE")]
    advertise: Option<String>,
    /// Where the gateway listens, if not on port 9000 of --listen; port 0: any free one.
    #[arg(long, value_name = "IP:PORT", env = "MINIKAFKA_GATEWAY_LISTEN")]
    gateway_listen: Option<SocketAddr>,
    /// Create a topic when a producer asks for one that does not exist.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", value_name = "true|false", env = "MINIKAFKA_AUTO_CREATE_TOPICS")]
    auto_create_topics: bool,
    /// Where HTTP is served: what `minikafka cluster` asks. It has no secret, so keep it where only operators are [default: not
    /// at all].
    #[arg(long, value_name = "IP:PORT", env = "MINIKAFKA_HTTP_LISTEN")]
    http: Option<SocketAddr>,
    /// What `dev` has too.
    #[command(flatten)]
    node: NodeOptions,
}

/// What is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `dev` or `server`.
    pub command: &'static str,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// How many nodes.
    pub nodes: u16,
    /// How the shards of each run.
    pub shards: ShardOptions,
    /// The address on which shards listen.
    pub listen: IpAddr,
    /// The host that clients are told.
    pub advertise: String,
    /// Where the gateway listens.
    pub gateway_listen: SocketAddr,
    /// Where HTTP is served; none: nowhere.
    pub http: Option<SocketAddr>,
    /// Go on without HTTP where its port is taken.
    pub http_is_optional: bool,
    /// Where the first node tells its metrics; 0: nowhere.
    pub broker_http_port: u16,
    /// Whether topics create themselves.
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say how many.
    pub default_partitions: u32,
}

impl DevOptions {
    /// What these options mean.
    pub fn to_plan(&self) -> Outcome<Plan> {
        let listen = self.gateway_listen.ip();
        let advertise = if listen.is_unspecified() { Ipv4Addr::LOCALHOST.to_string() } else { listen.to_string() };
        let plan = self.node.to_plan("dev", listen, advertise, self.gateway_listen, true)?;
        let (port_base, cores) = (plan.shards.port_base, plan.shards.cores());
        let last_port = u32::from(port_base) + u32::from(self.nodes - 1) * 100 + u32::from(cores) - 1;
        if port_base != 0 && (last_port > u32::from(u16::MAX) || (self.nodes > 1 && cores > 100)) {
            return Err(Failure::usage(format!(
                "--port-base {port_base} leaves no ports for {} nodes of {cores} shards",
                self.nodes
            )));
        }
        let http = self.http.unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HTTP_PORT));
        Ok(Plan { nodes: self.nodes, http: Some(http), http_is_optional: self.http.is_none(), ..plan })
    }
}

impl ServerOptions {
    /// What these options mean.
    pub fn to_plan(&self) -> Outcome<Plan> {
        let advertise = match &self.advertise {
            Some(host) => host.clone(),
            None if self.listen.is_unspecified() => {
                return Err(Failure::usage(format!(
                    "--listen {} is no address that a client could connect to: say with --advertise by which host name \
                     or address clients reach this machine",
                    self.listen
                )));
            }
            None => self.listen.to_string(),
        };
        let gateway_listen = self.gateway_listen.unwrap_or(SocketAddr::new(self.listen, GATEWAY_PORT));
        let plan = self.node.to_plan("server", self.listen, advertise, gateway_listen, self.auto_create_topics)?;
        Ok(Plan { http: self.http, ..plan })
    }
}

impl NodeOptions {
    fn to_plan(
        &self,
        command: &'static str,
        listen: IpAddr,
        advertise: String,
        gateway_listen: SocketAddr,
        auto_create_topics: bool,
    ) -> Outcome<Plan> {
        self.shards.check_ports()?;
        Ok(Plan {
            command,
            data_dir: self.data_dir.clone(),
            nodes: 1,
            shards: self.shards.clone(),
            listen,
            advertise: in_brackets(advertise),
            gateway_listen,
            http: None,
            http_is_optional: false,
            auto_create_topics,
            broker_http_port: self.broker_http_port,
            default_partitions: self.default_partitions,
        })
    }
}

/// An IPv6 address before a port stands in brackets.
pub fn in_brackets(host: String) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::exit::Exit;

    fn plan(line: &str) -> Outcome<Plan> {
        match Cli::try_parse_from(line.split_whitespace()).expect("a good command line").command {
            Command::Dev(options) => options.to_plan(),
            Command::Server(options) => options.to_plan(),
            _ => unreachable!("only dev and server have plans"),
        }
    }

    #[test]
    fn dev_is_local_and_creates_topics() {
        let plan = plan("minikafka dev").unwrap();
        assert_eq!((plan.gateway_listen.to_string().as_str(), plan.shards.port_base), ("127.0.0.1:9000", 19_100));
        assert!(plan.auto_create_topics && plan.shards.cores() >= 1);
        assert_eq!(plan.default_partitions, 8);
        let http = plan.http.map(|http| http.to_string());
        assert_eq!((http.as_deref(), plan.http_is_optional), (Some("127.0.0.1:8090"), true));
    }

    #[test]
    fn a_server_tells_clients_where_it_is() {
        let wrong = plan("minikafka server --listen 0.0.0.0").unwrap_err();
        assert_eq!(wrong.kind, Exit::Usage);
        assert!(wrong.message.contains("--advertise"));
        let right = plan("minikafka server --listen 0.0.0.0 --advertise broker-1").unwrap();
        assert_eq!((right.advertise.as_str(), right.gateway_listen.to_string().as_str()), ("broker-1", "0.0.0.0:9000"));
        assert!(!right.auto_create_topics && right.http.is_none());
        assert_eq!(plan("minikafka server --listen ::1").unwrap().advertise, "[::1]");
    }

    #[test]
    fn what_cannot_be_is_refused_clearly() {
        assert!(plan("minikafka dev --port-base 65400 --nodes 3").unwrap_err().message.contains("3 nodes"));
        assert!(Cli::try_parse_from(["minikafka", "dev", "--nodes", "6"]).is_err());
        assert_eq!(plan("minikafka dev --nodes 3").unwrap().nodes, 3);
        assert!(
            !plan("minikafka dev --http 127.0.0.1:8090").unwrap().http_is_optional,
            "a port that was named must be had"
        );
        assert!(plan("minikafka dev --port-base 65535 --cores 2").unwrap_err().message.contains("--port-base"));
    }
}
