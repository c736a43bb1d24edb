//! How the shards of a node run: options that every command with a broker has.

use std::time::Duration;

use clap::{Args, ValueEnum};
use minikafka_broker::BrokerConfig;
use minikafka_core::limits;
use minikafka_storage::disk::Durability;

use crate::exit::{Failure, Outcome};
use crate::quantity;

/// Options of the shards of one node.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Shards")]
pub struct ShardOptions {
    /// How many shards, one thread and one port each [default: the machine's cores less one, at least one].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024), env = "MINIKAFKA_CORES")]
    cores: Option<u16>,
    /// The core of the first shard, counted from 0 among those that the process may use; the other shards take the next ones.
    /// Brokers that share a machine need different ones (`dev` gives each node its own as far as there are enough).
    #[arg(long, value_name = "NUMBER", default_value_t = 0, env = "MINIKAFKA_FIRST_CORE")]
    first_core: u16,
    /// Shard c listens on this port + c; 0: any free ports.
    #[arg(long, value_name = "PORT", default_value_t = 19_100, env = "MINIKAFKA_PORT_BASE")]
    pub port_base: u16,
    /// Memory of each shard for receiving, writing and recent data.
    #[arg(long, value_name = "SIZE", default_value = "256M", env = "MINIKAFKA_MEMORY_PER_SHARD",
          value_parser = quantity::bytes)]
    memory_per_shard: u64,
    /// How writes are made durable.
    #[arg(long, value_enum, default_value_t, env = "MINIKAFKA_DURABILITY")]
    durability: DurabilityChoice,
    /// Largest segment file, a power of two from 8M to 256M. Deleted records give their space back segment by segment.
    #[arg(long, value_name = "SIZE", default_value = "64M", env = "MINIKAFKA_SEGMENT_BYTES_MAX",
          value_parser = segment_bytes)]
    segment_bytes_max: u64,
    /// Segment files that each shard keeps for their next use; beyond that, space goes back to the file system.
    #[arg(long, value_name = "SIZE", default_value = "2G", env = "MINIKAFKA_RECYCLED_BYTES_MAX",
          value_parser = quantity::bytes)]
    recycled_bytes_max: u64,
    /// How often old records are looked for that topics no longer want.
    #[arg(long, value_name = "DURATION", default_value = "10s", env = "MINIKAFKA_RETENTION_CHECK",
          value_parser = quantity::duration)]
    retention_check: Duration,
    /// What each shard reads per second to find damage on its disk before a reader does, or none.
    #[arg(long, value_name = "RATE", default_value = "4M", value_parser = quantity::rate, env = "MINIKAFKA_SCRUB_RATE")]
    scrub_rate: u64,
    /// What each shard sends per second to replicas that are being filled, after a loss or for a move, such as 50M: clients
    /// notice less of it, and it takes longer. It must be more than what is written meanwhile [default: as much as it can].
    #[arg(long, value_name = "RATE", value_parser = copy_rate, env = "MINIKAFKA_COPY_RATE")]
    copy_rate: Option<u64>,
    /// Microseconds for which an idle shard looks for more to do before it sleeps: 150 take a quarter off the latency of single
    /// records and cost processor time; not for a core that takes the disk's interrupts.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, env = "MINIKAFKA_SPIN_US",
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    spin_us: u64,
    /// How many topics each shard counts by themselves in its metrics; the others are counted together.
    #[arg(long, value_name = "COUNT", default_value_t = limits::METRIC_TOPICS_DEFAULT, env = "MINIKAFKA_METRICS_TOPICS")]
    metrics_topics: u16,
    /// Batch bytes that each connection may produce per second, such as 50M; over it, its client has to wait [default: none].
    #[arg(long, value_name = "RATE", value_parser = quantity::rate, env = "MINIKAFKA_PRODUCE_QUOTA_PER_CONNECTION")]
    produce_quota_per_connection: Option<u64>,
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

impl ShardOptions {
    /// How many.
    pub fn cores(&self) -> u16 {
        self.cores.unwrap_or_else(default_cores)
    }

    /// Whether every shard has a port.
    pub fn check_ports(&self) -> Outcome {
        let (port_base, cores) = (self.port_base, self.cores());
        match port_base == 0 || port_base.checked_add(cores - 1).is_some() {
            true => Ok(()),
            false => Err(Failure::usage(format!("--port-base {port_base} leaves no ports for {cores} shards"))),
        }
    }

    /// These settings, and of `base` what they do not say.
    pub fn settings(&self, base: BrokerConfig) -> BrokerConfig {
        BrokerConfig {
            port_base: self.port_base,
            shards: self.cores(),
            first_core: self.first_core,
            memory_bytes_per_shard: self.memory_per_shard,
            durability: match self.durability {
                DurabilityChoice::Auto => None,
                DurabilityChoice::Dsync => Some(Durability::Dsync),
                DurabilityChoice::GroupFdatasync => Some(Durability::GroupFdatasync),
            },
            segment_bytes_max: self.segment_bytes_max,
            recycled_bytes_max: self.recycled_bytes_max,
            retention_check: self.retention_check,
            scrub_bytes_per_second: Some(self.scrub_rate).filter(|&rate| rate > 0),
            copy_bytes_per_second: self.copy_rate.filter(|&rate| rate > 0),
            spin: Duration::from_micros(self.spin_us),
            metric_topics: self.metrics_topics,
            produce_quota_per_connection: self.produce_quota_per_connection.filter(|&rate| rate > 0),
            ..base
        }
    }
}

fn copy_rate(text: &str) -> Result<u64, String> {
    match quantity::rate(text)? {
        rate if rate > 0 && rate < limits::COPY_BYTES_PER_SECOND_MIN => {
            Err(format!("{text:?} is too little for replicas to get ready at all: write 1M or more, or 0 for no limit"))
        }
        rate => Ok(rate),
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
    use minikafka_core::{ClusterId, NodeId};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        shards: ShardOptions,
    }

    fn settings(line: &str) -> Result<BrokerConfig, clap::Error> {
        let base = BrokerConfig::new(NodeId(1), ClusterId(1), Vec::new(), "data".into());
        Line::try_parse_from(line.split_whitespace()).map(|line| line.shards.settings(base))
    }

    #[test]
    fn defaults_are_those_of_the_broker() {
        let config = settings("x").expect("nothing is required");
        let base = BrokerConfig::new(NodeId(1), ClusterId(1), Vec::new(), "data".into());
        assert_eq!((config.port_base, config.durability), (base.port_base, base.durability));
        assert_eq!(config.memory_bytes_per_shard, base.memory_bytes_per_shard);
        assert_eq!(
            (config.segment_bytes_max, config.recycled_bytes_max),
            (base.segment_bytes_max, base.recycled_bytes_max)
        );
        assert_eq!((config.retention_check, config.spin), (base.retention_check, base.spin));
        assert_eq!(config.scrub_bytes_per_second, base.scrub_bytes_per_second);
        assert_eq!(config.produce_quota_per_connection, None);
    }

    #[test]
    fn what_is_said_is_set_and_what_cannot_be_is_refused() {
        let config =
            settings("x --durability group_fdatasync --cores 3 --first-core 4 --spin-us 150").expect("good options");
        assert_eq!((config.durability, config.shards), (Some(Durability::GroupFdatasync), 3));
        assert_eq!(config.first_core, 4);
        assert_eq!(config.spin, Duration::from_micros(150));
        let rate = |line| settings(line).map(|config| config.copy_bytes_per_second).ok();
        assert_eq!((rate("x"), rate("x --copy-rate 0")), (Some(None), Some(None)));
        assert_eq!((rate("x --copy-rate 50M"), rate("x --copy-rate 100K")), (Some(Some(50 << 20)), None));
        for bad in ["12M", "4M", "512M"] {
            let refused = settings(&format!("x --segment-bytes-max {bad}")).expect_err("no segment size").to_string();
            assert!(refused.contains("write 8M"), "{refused}");
        }
    }
}
