//! One node restarted in order, as a rolling upgrade does with each: `minikafka cluster restart`, and the waiting in it,
//! `minikafka cluster wait`.
//!
//! ```text
//! every range whole ─> (drained) ─> the operator's command ─> registered by a new process ─> (readmitted, rebalanced) ─> whole
//! ```
//!
//! Waiting before is what makes it safe: a range that misses a member already would have too few without another one.

use std::fmt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use minikafka_core::coordination::OperationState;
use minikafka_core::{NodeId, limits};
use minikafka_gateway::admin::*;
use serde::Serialize;

use super::http::Gateways;
use super::{HttpOptions, LOOK, follow, readmit};
use crate::cli::GlobalOptions;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::quantity;

/// Options of `minikafka cluster wait`.
#[derive(Debug, Args)]
pub struct WaitOptions {
    /// Give up when it takes longer.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = quantity::duration)]
    within: Duration,
    #[command(flatten)]
    http: HttpOptions,
}

/// Options of `minikafka cluster restart`.
#[derive(Debug, Args)]
pub struct RestartOptions {
    /// The node's number.
    #[arg(value_name = "NODE")]
    node: u32,
    /// What restarts its process, for `sh -c`: 'ssh broker-2 systemctl restart minikafka-broker'.
    #[arg(long, value_name = "COMMAND")]
    with: String,
    /// Take all ranges from it before, and rebalance afterwards: no range has a member less meanwhile. Needs a node more than
    /// ranges have copies, and copies everything twice.
    #[arg(long)]
    drain: bool,
    /// With --drain: ranges that are moved at the same time [default: 4].
    #[arg(long, value_name = "COUNT", requires = "drain",
          value_parser = clap::value_parser!(u16).range(1..=limits::MOVES_AT_ONCE_MAX as i64))]
    at_once: Option<u16>,
    #[command(flatten)]
    wait: WaitOptions,
}

/// A cluster that is whole.
#[derive(Debug, Serialize)]
struct Whole {
    brokers: usize,
    ranges: u32,
}

/// A node that was restarted.
#[derive(Debug, Serialize)]
struct Restarted {
    node: NodeId,
    incarnation: String,
    version_before: String,
    version: String,
    seconds: u64,
}

/// What there was to see when nothing more was waited for.
struct Seen {
    brokers: Vec<BrokerStatus>,
    rings: Vec<RingStatus>,
}

/// Waits until every range has all its members.
pub fn wait(options: &WaitOptions, global: &GlobalOptions, output: &mut Output) -> Outcome {
    let mut gateways = Gateways::new(&options.http.http, global.timeout);
    let seen = await_whole(&mut gateways, Instant::now() + options.within)?;
    let (brokers, ranges) = (seen.brokers.len(), seen.rings.iter().map(|ring| ring.ranges).sum());
    output.show(&Whole { brokers, ranges })
}

/// Restarts one node.
pub fn run(options: &RestartOptions, global: &GlobalOptions, output: &mut Output) -> Outcome {
    let (began, node) = (Instant::now(), NodeId(options.node));
    let deadline = || Instant::now() + options.wait.within;
    let quiet = output.is_json();
    let say = |what: &str| {
        if !quiet {
            eprintln!("{what}");
        }
    };
    let mut gateways = Gateways::new(&options.wait.http.http, global.timeout);

    say("waiting until every range has all its members");
    let seen = await_whole(&mut gateways, deadline())?;
    let before = seen.live(node).cloned();
    let before = before.ok_or_else(|| Failure::new(Exit::NotFound, format!("node {node} is not registered")))?;
    if options.drain {
        let drain = PlanRequest { drain: Some(node), at_once: options.at_once, ..PlanRequest::default() };
        operate(&mut gateways, &drain, quiet)?;
    }
    say(&format!("restarting node {node}: {}", options.with));
    restart_by(&options.with).map_err(|failure| failure.after_drain(options))?;
    let is_back = |seen: &Seen| seen.live(node).is_some_and(|it| it.incarnation != before.incarnation);
    let back = await_seen(&mut gateways, deadline(), &is_back, |_| format!("node {node} is not registered again"));
    let after = back.map_err(|failure| failure.after_drain(options))?.live(node).cloned().unwrap_or(before.clone());
    say(&format!("node {node} is back; waiting until every range has all its members"));
    if options.drain {
        readmit(&mut gateways, node)?;
        let rebalance = Some(RebalanceRequest::default());
        operate(&mut gateways, &PlanRequest { rebalance, at_once: options.at_once, ..PlanRequest::default() }, quiet)?;
    }
    await_whole(&mut gateways, deadline())?;
    output.show(&Restarted {
        node,
        incarnation: after.incarnation,
        version_before: before.version,
        version: after.version,
        seconds: began.elapsed().as_secs(),
    })
}

/// An operation, to its end.
fn operate(gateways: &mut Gateways, request: &PlanRequest, quiet: bool) -> Outcome {
    let operation = gateways.post("/v1/operations", request)?;
    let OperationStatus { operation, state, .. } = follow(gateways, operation, quiet)?;
    match state {
        OperationState::Aborted => Err(Failure::failed(format!("operation {operation} was aborted by somebody"))),
        _ => Ok(()),
    }
}

/// What it prints goes to standard error: standard output is for the result.
fn restart_by(command: &str) -> Outcome {
    let status = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.map_err(|error| Failure::io("sh", &error))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::failed(format!("the command that restarts the node ended with {status}: {command}"))),
    }
}

fn await_whole(gateways: &mut Gateways, deadline: Instant) -> Outcome<Seen> {
    await_seen(gateways, deadline, &Seen::is_whole, Seen::missing)
}

/// Looks until what is seen is as wanted. A gateway that does not answer is asked again: it may be the one that restarts.
fn await_seen(
    gateways: &mut Gateways,
    deadline: Instant,
    is_wanted: &dyn Fn(&Seen) -> bool,
    what: impl Fn(&Seen) -> String,
) -> Outcome<Seen> {
    loop {
        let seen = match Seen::look(gateways) {
            Ok(seen) if is_wanted(&seen) => return Ok(seen),
            Ok(seen) => what(&seen),
            Err(failure) if failure.kind == Exit::Unreachable => failure.message,
            Err(failure) => return Err(failure),
        };
        if Instant::now() > deadline {
            return Err(Failure::new(
                Exit::Unreachable,
                format!("not in time: {seen}; see `minikafka cluster status`"),
            ));
        }
        thread::sleep(LOOK);
    }
}

impl Seen {
    fn look(gateways: &mut Gateways) -> Outcome<Self> {
        // Brokers first: a map that has a new process has not yet given it ranges, or has.
        let BrokersStatus { brokers } = gateways.get("/v1/brokers")?;
        let RingsStatus { rings } = gateways.get("/v1/rings")?;
        Ok(Self { brokers, rings })
    }

    fn live(&self, node: NodeId) -> Option<&BrokerStatus> {
        self.brokers.iter().find(|broker| broker.node == node && broker.live)
    }

    /// Whether every range has all its members and none changes.
    fn is_whole(&self) -> bool {
        !self.rings.is_empty() && self.rings.iter().all(|ring| incomplete(ring) == 0)
    }

    fn missing(&self) -> String {
        let away = self.brokers.iter().filter(|broker| !broker.live).map(|broker| broker.node.to_string());
        let away: Vec<_> = away.collect();
        let ranges: usize = self.rings.iter().map(incomplete).sum();
        match away.is_empty() {
            true => format!("{ranges} ranges miss a member or change"),
            false => format!("{ranges} ranges miss a member or change; away: node {}", away.join(", ")),
        }
    }
}

/// Ranges without a chain, in a change, or with a member less; one may be counted twice.
fn incomplete(ring: &RingStatus) -> usize {
    ring.never_active + ring.pending + ring.under_replicated
}

impl Failure {
    /// What is left to do when a node that was drained is not back.
    fn after_drain(mut self, options: &RestartOptions) -> Self {
        if options.drain {
            self.message = format!("{}; node {} stays drained until `cluster readmit`", self.message, options.node);
        }
        self
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whole: {} ranges on {} nodes", self.ranges, self.brokers)
    }
}

impl fmt::Display for Restarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, version_before, version, seconds, .. } = self;
        write!(f, "node {node} was restarted in {seconds} s: version {version_before}, now {version}")
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::RingId;

    use super::*;

    fn ring(never_active: usize, pending: usize, under_replicated: usize) -> RingStatus {
        let ring = RingId(3);
        let (replication, members_min, ranges, below_min) = (3, 2, 256, 0);
        RingStatus { ring, replication, members_min, ranges, never_active, pending, under_replicated, below_min }
    }

    #[test]
    fn whole_is_a_cluster_whose_ranges_all_are() {
        let is_whole = |rings: Vec<RingStatus>| Seen { brokers: Vec::new(), rings }.is_whole();
        assert!(is_whole(vec![ring(0, 0, 0), ring(0, 0, 0)]));
        for rings in [vec![], vec![ring(1, 0, 0)], vec![ring(0, 1, 0)], vec![ring(0, 0, 0), ring(0, 0, 1)]] {
            assert!(!is_whole(rings));
        }
    }

    #[test]
    fn a_command_that_fails_is_told() {
        assert!(restart_by("true").is_ok());
        assert!(restart_by("exit 3").expect_err("it fails").message.contains("exit 3"));
    }
}
