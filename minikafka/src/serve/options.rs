//! Options of `minikafka dev` and `minikafka server`, and the plan that both come down to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use minikafka_core::limits;
use minikafka_storage::disk::Durability;

use crate::exit::{Failure, Outcome};
use crate::quantity;

/// Port of the gateway unless said otherwise.
const GATEWAY_PORT: u16 = 9000;

/// Options that both have.
#[derive(Clone, Debug, Args)]
pub struct NodeOptions {
    /// Where everything is kept; created when it is missing.
    #[arg(long, value_name = "DIR", default_value = "minikafka-data")]
    data_dir: PathBuf,
    /// How many shards, one thread and one port each [default: the machine's cores less one, at least one].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    cores: Option<u16>,
    /// Shard c listens on this port + c; 0: any free ports.
    #[arg(long, value_name = "PORT", default_value_t = 19_100)]
    port_base: u16,
    /// Memory of each shard for receiving, writing and recent data.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = quantity::bytes)]
    memory_per_shard: u64,
    /// How writes are made durable.
    #[arg(long, value_enum, default_value_t)]
    durability: DurabilityChoice,
    /// Largest segment file, a power of two from 8M to 256M. Deleted records give their space back segment by segment.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = segment_bytes)]
    segment_bytes_max: u64,
    /// Segment files that each shard keeps for their next use; beyond that, space goes back to the file system.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = quantity::bytes)]
    recycled_bytes_max: u64,
    /// How often old records are looked for that topics no longer want.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = quantity::duration)]
    retention_check: Duration,
    /// Microseconds for which an idle shard looks for more to do before it sleeps: 150 take a quarter off the latency of single
    /// records and cost processor time; not for a core that takes the disk's interrupts.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000))]
    spin_us: u64,
    /// Batch bytes that each connection may produce per second, such as 50M; over it, its client has to wait [default: none].
    #[arg(long, value_name = "RATE", value_parser = quantity::rate)]
    produce_quota_per_connection: Option<u64>,
    /// Partitions of a topic that does not say how many.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=limits::TOPIC_PARTITIONS_MAX as i64))]
    default_partitions: u32,
}

/// Options of `minikafka dev`.
#[derive(Clone, Debug, Args)]
pub struct DevOptions {
    /// What `server` has too.
    #[command(flatten)]
    node: NodeOptions,
    /// Where the gateway listens; port 0: any free one.
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), GATEWAY_PORT))]
    gateway_listen: SocketAddr,
    /// How many nodes, each with its own shards, in this one process; topics have a copy on each of up to three. Node k, counted
    /// from 0, listens from --port-base + 100 k on.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5))]
    nodes: u16,
}

/// Options of `minikafka server`.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// What `dev` has too.
    #[command(flatten)]
    node: NodeOptions,
    /// The address on which shards and gateway listen; 0.0.0.0 is every one, and needs --advertise.
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into())]
    listen: IpAddr,
    /// The host name or address by which clients reach this machine [default: the one of --listen].
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Where the gateway listens, if not on port 9000 of --listen; port 0: any free one.
    #[arg(long, value_name = "IP:PORT")]
    gateway_listen: Option<SocketAddr>,
    /// Create a topic when a producer asks for one that does not exist.
    #[arg(long)]
    auto_create_topics: bool,
}

/// How writes are made durable, as the operator says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DurabilityChoice {
    /// As a probe of the device at start says.
    #[default]
    Auto,
    /// Every write by itself (O_DSYNC): for devices with FUA or without a volatile cache.
    Dsync,
    /// One fdatasync for several writes.
    #[value(name = "group_fdatasync")]
    GroupFdatasync,
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
    /// How many shards each.
    pub cores: u16,
    /// Port of the first shard; 0: any.
    pub port_base: u16,
    /// The address on which shards listen.
    pub listen: IpAddr,
    /// The host that clients are told.
    pub advertise: String,
    /// Where the gateway listens.
    pub gateway_listen: SocketAddr,
    /// Memory of each shard.
    pub memory_bytes_per_shard: u64,
    /// None: a probe chooses.
    pub durability: Option<Durability>,
    /// Largest segment file.
    pub segment_bytes_max: u64,
    /// Segment files kept by each shard.
    pub recycled_bytes_max: u64,
    /// How often retention looks.
    pub retention_check: Duration,
    /// How long an idle shard looks for more to do.
    pub spin: Duration,
    /// Batch bytes a second of each connection; none: no quota.
    pub produce_quota_per_connection: Option<u64>,
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
        let last_port = u32::from(plan.port_base) + u32::from(self.nodes - 1) * 100 + u32::from(plan.cores) - 1;
        if plan.port_base != 0 && (last_port > u32::from(u16::MAX) || (self.nodes > 1 && plan.cores > 100)) {
            return Err(Failure::usage(format!(
                "--port-base {} leaves no ports for {} nodes of {} shards",
                plan.port_base, self.nodes, plan.cores
            )));
        }
        Ok(Plan { nodes: self.nodes, ..plan })
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
        self.node.to_plan("server", self.listen, advertise, gateway_listen, self.auto_create_topics)
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
        let cores = self.cores.unwrap_or_else(default_cores);
        if self.port_base != 0 && self.port_base.checked_add(cores - 1).is_none() {
            return Err(Failure::usage(format!("--port-base {} leaves no ports for {cores} shards", self.port_base)));
        }
        Ok(Plan {
            command,
            data_dir: self.data_dir.clone(),
            nodes: 1,
            cores,
            port_base: self.port_base,
            listen,
            advertise: if advertise.contains(':') { format!("[{advertise}]") } else { advertise },
            gateway_listen,
            memory_bytes_per_shard: self.memory_per_shard,
            durability: match self.durability {
                DurabilityChoice::Auto => None,
                DurabilityChoice::Dsync => Some(Durability::Dsync),
                DurabilityChoice::GroupFdatasync => Some(Durability::GroupFdatasync),
            },
            segment_bytes_max: self.segment_bytes_max,
            recycled_bytes_max: self.recycled_bytes_max,
            retention_check: self.retention_check,
            spin: Duration::from_micros(self.spin_us),
            produce_quota_per_connection: self.produce_quota_per_connection.filter(|&rate| rate > 0),
            auto_create_topics,
            default_partitions: self.default_partitions,
        })
    }
}

fn segment_bytes(text: &str) -> Result<u64, String> {
    let bytes = quantity::bytes(text)?;
    let allowed = limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX;
    if bytes.is_power_of_two() && allowed.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("{text:?} is no segment size: write 8M, 16M, 32M, 64M, 128M or 256M"))
    }
}

/// One core is left to the system, the gateway and the disk's interrupts.
fn default_cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    u16::try_from(cores.saturating_sub(1).max(1)).unwrap_or(u16::MAX)
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
        assert_eq!((plan.gateway_listen.to_string().as_str(), plan.port_base), ("127.0.0.1:9000", 19_100));
        assert!(plan.auto_create_topics && plan.cores >= 1 && plan.durability.is_none());
        assert_eq!(plan.default_partitions, 8);
        assert_eq!((plan.retention_check, plan.produce_quota_per_connection), (Duration::from_secs(10), None));
    }

    #[test]
    fn a_server_tells_clients_where_it_is() {
        let wrong = plan("minikafka server --listen 0.0.0.0").unwrap_err();
        assert_eq!(wrong.kind, Exit::Usage);
        assert!(wrong.message.contains("--advertise"));
        let right =
            plan("minikafka server --listen 0.0.0.0 --advertise broker-1 --durability group_fdatasync").unwrap();
        assert_eq!((right.advertise.as_str(), right.gateway_listen.to_string().as_str()), ("broker-1", "0.0.0.0:9000"));
        assert!(!right.auto_create_topics);
        assert_eq!(right.durability, Some(Durability::GroupFdatasync));
        assert_eq!(plan("minikafka server --listen ::1").unwrap().advertise, "[::1]");
    }

    #[test]
    fn what_cannot_be_is_refused_clearly() {
        for bad in ["12M", "4M", "512M"] {
            let line = ["minikafka", "dev", "--segment-bytes-max", bad];
            let refused = Cli::try_parse_from(line).expect_err("no segment size").to_string();
            assert!(refused.contains("write 8M"), "{refused}");
        }
        assert!(plan("minikafka dev --port-base 65400 --nodes 3").unwrap_err().message.contains("3 nodes"));
        assert!(Cli::try_parse_from(["minikafka", "dev", "--nodes", "6"]).is_err());
        assert_eq!(plan("minikafka dev --nodes 3").unwrap().nodes, 3);
        assert!(plan("minikafka dev --port-base 65535 --cores 2").unwrap_err().message.contains("--port-base"));
    }
}
