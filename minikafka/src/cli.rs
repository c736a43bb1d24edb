//! The command line: every command, option, default and help text.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use minikafka_bench::BenchCommand;
use minikafka_sim::command::SimCommand;

use crate::cluster::ClusterCommand;
use crate::config::ConfigCommand;
use crate::consume::ConsumeCommand;
use crate::exit::EXIT_CODES;
use crate::group::GroupCommand;
use crate::log::LogCommand;
use crate::produce::ProduceCommand;
use crate::serve::broker::BrokerOptions;
use crate::serve::gateway::GatewayOptions;
use crate::serve::options::{DevOptions, ServerOptions};
use crate::topic::TopicCommand;
use crate::{logging, quantity};

/// The heading of what is logged, which is also a table of the configuration file.
pub const LOG_HEADING: &str = "Log";

/// A durable message broker: an acknowledged record is on stable storage.
#[derive(Debug, Parser)]
#[command(name = "minikafka", version, propagate_version = true, max_term_width = 120, after_help = EXIT_CODES)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalOptions {
    /// Where gateways listen; any of them will do.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT[,…]",
        env = "MINIKAFKA_GATEWAY",
        default_value = "localhost:9000",
        value_delimiter = ','
    )]
    pub gateway: Vec<String>,
    /// Answer for machines: one JSON document a line, errors on standard error included.
    #[arg(long, global = true)]
    pub json: bool,
    /// Give up on a request after this long.
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = quantity::duration)]
    pub timeout: Duration,
    /// What is logged.
    #[command(flatten)]
    pub log: LogOptions,
}

/// What is logged to standard error, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = LOG_HEADING)]
pub struct LogOptions {
    /// What is logged to standard error: error, warn, info, debug, trace, off, or such a level and target=level pairs, such as
    /// info,minikafka_broker=debug [default: info of what serves, warn otherwise].
    #[arg(id = "log-level", long, global = true, value_name = "FILTER", value_parser = logging::filter, env = "RUST_LOG")]
    pub level: Option<String>,
    /// How it is written: text, one JSON object a line, or whichever suits: text on a terminal.
    #[arg(
        id = "log-format",
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        env = "MINIKAFKA_LOG_FORMAT"
    )]
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run broker, gateway and coordinator in one process, to develop against: topics create themselves.
    Dev(DevOptions),
    /// Run a single production node: broker, gateway and coordinator in one process.
    Server(ServerOptions),
    /// Run one node of a cluster.
    Broker(BrokerOptions),
    /// Run a gateway of a cluster: it tells clients who owns what; one of them controls the chains.
    Gateway(GatewayOptions),
    /// Create, list, describe, alter and delete topics, and delete their oldest records.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// List, describe, reset and delete groups of consumers.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show the cluster, and move ranges between its nodes: drain, move, rebalance.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Write a record for each line of files or standard input.
    Produce(ProduceCommand),
    /// Print the records of a topic.
    Consume(ConsumeCommand),
    /// Measure: how fast a broker is beside how fast its machine could be.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Simulate a cluster in a hostile world, replayed by seed.
    Sim(SimCommand),
    /// Look into a data directory without a broker: verify every byte, or dump what is there. Never writes.
    #[command(subcommand)]
    Log(LogCommand),
    /// Check configuration files, or print every setting with its meaning.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check what this machine has and lacks to run a broker, with the fix for what it lacks.
    Doctor(DoctorOptions),
}

/// Options of `minikafka doctor`.
#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// The directory in which a broker would keep its data; it need not exist.
    #[arg(long, value_name = "DIR", default_value = "minikafka-data")]
    pub data_dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn gateways_may_be_several_and_stand_behind_the_command() {
        let cli = Cli::parse_from(["minikafka", "topic", "list", "--gateway", "a:1,b:2", "--timeout", "5s"]);
        assert_eq!(cli.global.gateway, ["a:1", "b:2"]);
        assert_eq!(cli.global.timeout, Duration::from_secs(5));
    }

    #[test]
    fn every_option_says_what_it_does() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
