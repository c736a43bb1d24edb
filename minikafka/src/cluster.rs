//! `minikafka cluster`: how the cluster is, and which nodes hold which ranges: drained, moved, rebalanced.
//!
//! It speaks to the HTTP port of a gateway, in the shapes of `minikafka_gateway::admin`, and follows to the controller. What
//! it begins goes on without it.

use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use minikafka_core::coordination::{OperationState, OperationTask};
use minikafka_core::{NodeId, RangeId, RingId, limits};
use minikafka_gateway::admin::*;

use crate::cli::GlobalOptions;
use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::output::Output;

mod create;
mod http;
mod restart;
mod show;

use create::CreateOptions;
use http::Gateways;
use restart::{RestartOptions, WaitOptions};
use show::{LogLevelOf, LogLevelsShown, OperationShown, PlanShown, StatusShown};

/// Between two looks at an operation that is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Write a new cluster's record to its coordinator and draw its secret; once, before any broker or gateway starts.
    Create(CreateOptions),
    /// Show brokers, rings, operations, and what is wrong.
    Status(HttpOptions),
    /// Show what an operation would move, and how much that is. Nothing is done.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Take all ranges from a node. It gets no others until the operation is aborted, so it can be stopped for good.
    Drain(DrainOptions),
    /// Bring one range to other nodes.
    Move(MoveOptions),
    /// Give a node that was drained back: it may get ranges again, of which a rebalance gives it its share.
    Readmit {
        /// The node's number.
        #[arg(value_name = "NODE")]
        node: u32,
        #[command(flatten)]
        http: HttpOptions,
    },
    /// Spread ranges evenly over all nodes: after one was added, or given back.
    Rebalance(RebalanceOptions),
    /// Return when every range has all its members, and nothing changes any more.
    Wait(WaitOptions),
    /// Restart one node by a command, in order: wait until the cluster can do without it, restart it, wait until it is back.
    Restart(RestartOptions),
    /// Show or change what processes log, until they end: of each HTTP port that is named, a gateway's or a broker's.
    LogLevel {
        /// The new filter, such as info,minikafka_broker=debug; without it, nothing is changed.
        #[arg(value_name = "FILTER", value_parser = logging::filter)]
        filter: Option<String>,
        #[command(flatten)]
        http: HttpOptions,
    },
    /// End an operation. What was moved stays moved; a drained node may get ranges again.
    Abort {
        /// Its number, as `cluster status` shows it.
        #[arg(value_name = "OPERATION")]
        operation: u64,
        #[command(flatten)]
        http: HttpOptions,
    },
}

/// Where to ask.
#[derive(Clone, Debug, Args)]
pub struct HttpOptions {
    /// HTTP ports of gateways; any of them will do.
    #[arg(
        long,
        value_name = "HOST:PORT[,…]",
        env = "MINIKAFKA_HTTP",
        default_value = "localhost:8090",
        value_delimiter = ','
    )]
    http: Vec<String>,
}

/// What to plan.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Take all ranges from a node.
    Drain(DrainOptions),
    /// Bring one range to other nodes.
    Move(MoveOptions),
    /// Spread ranges evenly over all nodes.
    Rebalance(RebalanceOptions),
}

/// How an operation is carried out.
#[derive(Debug, Args)]
pub struct OperationOptions {
    #[command(flatten)]
    http: HttpOptions,
    /// Ranges that are moved at the same time: more is faster, and leaves less for clients [default: 4].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=limits::MOVES_AT_ONCE_MAX as i64))]
    at_once: Option<u16>,
    /// Return when it is done, not when it has begun; interrupted, it goes on all the same. A plan is not waited for.
    #[arg(long)]
    wait: bool,
}

/// Options of `minikafka cluster drain`.
#[derive(Debug, Args)]
pub struct DrainOptions {
    /// The node's number.
    #[arg(value_name = "NODE")]
    node: u32,
    #[command(flatten)]
    operation: OperationOptions,
}

/// Options of `minikafka cluster move`.
#[derive(Debug, Args)]
pub struct MoveOptions {
    /// The range, such as 3/17: range 17 of the ring of three copies.
    #[arg(value_name = "RING/RANGE", value_parser = range)]
    range: (u16, u32),
    /// As many nodes as the ring has copies, the head first, such as 4,1,2.
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', required = true)]
    to: Vec<u32>,
    #[command(flatten)]
    operation: OperationOptions,
}

/// Options of `minikafka cluster rebalance`.
#[derive(Debug, Args)]
pub struct RebalanceOptions {
    #[command(flatten)]
    operation: OperationOptions,
}

/// Does what was asked with the cluster.
pub fn run(command: &ClusterCommand, global: &GlobalOptions, output: &mut Output) -> Outcome {
    match command {
        ClusterCommand::Create(options) => create::run(options, output),
        ClusterCommand::Status(http) => status(&mut Gateways::new(&http.http, global.timeout), output),
        ClusterCommand::Plan(planned) => {
            let (request, options) = planned.request();
            let plan = Gateways::new(&options.http.http, global.timeout).post("/v1/plans", &request)?;
            output.show(&PlanShown(plan))
        }
        ClusterCommand::Drain(options) => begin(&options.request(), &options.operation, global, output),
        ClusterCommand::Move(options) => begin(&options.request(), &options.operation, global, output),
        ClusterCommand::Rebalance(options) => begin(&options.request(), &options.operation, global, output),
        ClusterCommand::Readmit { node, http } => {
            output.show(&OperationShown(readmit(&mut Gateways::new(&http.http, global.timeout), NodeId(*node))?))
        }
        ClusterCommand::Wait(options) => restart::wait(options, global, output),
        ClusterCommand::Restart(options) => restart::run(options, global, output),
        ClusterCommand::LogLevel { filter, http } => log_level(filter.as_deref(), &http.http, global, output),
        ClusterCommand::Abort { operation, http } => {
            let mut gateways = Gateways::new(&http.http, global.timeout);
            output.show(&OperationShown(gateways.delete(&format!("/v1/operations/{operation}"))?))
        }
    }
}

fn status(gateways: &mut Gateways, output: &mut Output) -> Outcome {
    let mut cluster: ClusterStatus = gateways.get("/v1/cluster")?;
    // A gateway that has lost the coordinator knows nobody; another one may.
    for _ in 1..gateways.count() {
        if cluster.controller.is_some() {
            break;
        }
        gateways.turn_to_next();
        cluster = gateways.get("/v1/cluster").unwrap_or(cluster);
    }
    // Only the controller knows what ranges wait for.
    if let Some(controller) = cluster.controller.as_ref().filter(|it| !it.is_this && !it.http.is_empty()) {
        gateways.prefer(&controller.http);
        cluster = gateways.get("/v1/cluster")?;
    }
    let BrokersStatus { brokers } = gateways.get("/v1/brokers")?;
    let RingsStatus { rings } = gateways.get("/v1/rings")?;
    let OperationsStatus { operations } = gateways.get("/v1/operations")?;
    output.show(&StatusShown { cluster, brokers, rings, operations })
}

fn log_level(filter: Option<&str>, http: &[String], global: &GlobalOptions, output: &mut Output) -> Outcome {
    let mut processes = Vec::new();
    for address in http {
        // Each process has a filter of its own: none speaks for another.
        let mut process = Gateways::new(std::slice::from_ref(address), global.timeout);
        let LogLevel { filter } = match filter {
            Some(filter) => process.put("/v1/log-level", &LogLevel { filter: filter.to_owned() })?,
            None => process.get("/v1/log-level")?,
        };
        processes.push(LogLevelOf { address: address.clone(), filter });
    }
    output.show(&LogLevelsShown(processes))
}

/// Ends the drain of a node.
fn readmit(gateways: &mut Gateways, node: NodeId) -> Outcome<OperationStatus> {
    let OperationsStatus { operations } = gateways.get("/v1/operations")?;
    let is_its = |it: &&OperationStatus| it.task == OperationTask::Drain(node) && it.state != OperationState::Aborted;
    let not_drained = || Failure::new(Exit::NotFound, format!("node {node} is not drained: nothing is to be done"));
    let OperationStatus { operation, .. } = operations.iter().rfind(is_its).ok_or_else(not_drained)?;
    gateways.delete(&format!("/v1/operations/{operation}"))
}

/// Follows an operation to its end, which it tells to people.
fn follow(gateways: &mut Gateways, mut operation: OperationStatus, quiet: bool) -> Outcome<OperationStatus> {
    let mut told = None;
    while operation.state == OperationState::Running {
        if !quiet && told != Some(operation.moved) {
            eprintln!("operation {}: {} of {} ranges moved", operation.operation, operation.moved, operation.ranges);
            told = Some(operation.moved);
        }
        thread::sleep(LOOK);
        operation = gateways.get(&format!("/v1/operations/{}", operation.operation))?;
    }
    Ok(operation)
}

/// Begins an operation, and waits for its end where that is wanted.
fn begin(request: &PlanRequest, options: &OperationOptions, global: &GlobalOptions, output: &mut Output) -> Outcome {
    let mut gateways = Gateways::new(&options.http.http, global.timeout);
    let mut operation: OperationStatus = gateways.post("/v1/operations", request)?;
    if options.wait {
        operation = follow(&mut gateways, operation, output.is_json())?;
    }
    let is_aborted = operation.state == OperationState::Aborted;
    let number = operation.operation;
    output.show(&OperationShown(OperationStatus { moves: None, ..operation }))?;
    match is_aborted {
        true => Err(Failure::failed(format!("operation {number} was aborted; what was moved stays moved"))),
        false => Ok(()),
    }
}

impl PlanCommand {
    fn request(&self) -> (PlanRequest, &OperationOptions) {
        match self {
            Self::Drain(options) => (options.request(), &options.operation),
            Self::Move(options) => (options.request(), &options.operation),
            Self::Rebalance(options) => (options.request(), &options.operation),
        }
    }
}

impl DrainOptions {
    fn request(&self) -> PlanRequest {
        PlanRequest { drain: Some(NodeId(self.node)), at_once: self.operation.at_once, ..PlanRequest::default() }
    }
}

impl MoveOptions {
    fn request(&self) -> PlanRequest {
        let (ring, range) = self.range;
        let to = self.to.iter().copied().map(NodeId).collect();
        let wanted = MoveRequest { ring: RingId(ring), range: RangeId(range), to };
        PlanRequest { move_range: Some(wanted), at_once: self.operation.at_once, ..PlanRequest::default() }
    }
}

impl RebalanceOptions {
    fn request(&self) -> PlanRequest {
        let rebalance = Some(RebalanceRequest::default());
        PlanRequest { rebalance, at_once: self.operation.at_once, ..PlanRequest::default() }
    }
}

fn range(text: &str) -> Result<(u16, u32), String> {
    let parsed = text.split_once('/').and_then(|(ring, range)| Some((ring.parse().ok()?, range.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is no range: write ring and range, such as 3/17"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_ring_and_a_number() {
        assert_eq!(range("3/17"), Ok((3, 17)));
        for bad in ["3", "3/", "/17", "3/17/1", "x/1", "70000/1"] {
            assert!(range(bad).expect_err("no range").contains("3/17"), "{bad}");
        }
    }
}
