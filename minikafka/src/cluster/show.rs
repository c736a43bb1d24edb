//! Cluster, plans and operations as people read them.

use std::fmt;

use minikafka_core::NodeId;
use minikafka_core::coordination::{OperationState, OperationTask};
use minikafka_gateway::admin::*;
use serde::Serialize;

use crate::output::table;
use crate::quantity;

/// Moves of a plan that people are shown; machines get all.
const MOVES_SHOWN: usize = 40;

/// All of `minikafka cluster status`.
#[derive(Debug, Serialize)]
pub struct StatusShown {
    /// The cluster.
    pub cluster: ClusterStatus,
    /// Its nodes.
    pub brokers: Vec<BrokerStatus>,
    /// Its rings.
    pub rings: Vec<RingStatus>,
    /// What operators wanted of it.
    pub operations: Vec<OperationStatus>,
}

/// A plan.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct PlanShown(pub PlanStatus);

/// An operation.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct OperationShown(pub OperationStatus);

/// What processes log.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct LogLevelsShown(pub Vec<LogLevelOf>);

/// What one process logs.
#[derive(Debug, Serialize)]
pub struct LogLevelOf {
    /// Its HTTP port.
    pub address: String,
    /// Its filter.
    pub filter: String,
}

impl fmt::Display for LogLevelsShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.0.iter().map(|of| vec![of.address.clone(), of.filter.clone()]).collect();
        write!(f, "{}", table(&["http", "logs"], &rows))
    }
}

impl fmt::Display for StatusShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, brokers, rings, operations } = self;
        let controller = cluster.controller.as_ref().map_or("none is known", |controller| &controller.address);
        writeln!(f, "cluster     {}", cluster.cluster)?;
        writeln!(f, "controller  {controller}")?;
        writeln!(f, "topics      {}\n", cluster.topics)?;
        let rows: Vec<_> = brokers.iter().map(broker_row).collect();
        writeln!(f, "{}\n", table(&["node", "state", "rack", "shards", "heads", "ranges", "version"], &rows))?;
        let rows: Vec<_> = rings.iter().map(ring_row).collect();
        let head = ["ring", "ranges", "changing", "without chain", "under-replicated", "too few for writes"];
        write!(f, "{}", table(&head, &rows))?;
        if !operations.is_empty() {
            let rows: Vec<_> = operations.iter().map(operation_row).collect();
            write!(f, "\n\n{}", table(&OPERATION_HEAD, &rows))?;
        }
        match &cluster.alerts {
            None => write!(f, "\n\nWhat ranges wait for only the controller knows, and it cannot be asked."),
            Some(alerts) => alerts.iter().try_for_each(|alert| {
                let AlertStatus { ring, ranges, first, message } = alert;
                write!(f, "\n\n{ranges} ranges of ring {ring} wait, {ring}/{first} among them: {message}")
            }),
        }
    }
}

fn broker_row(broker: &BrokerStatus) -> Vec<String> {
    let state = match (broker.live, broker.drain) {
        (false, DrainStatus::No) => "away",
        (false, _) => "away, drained",
        (true, DrainStatus::No) => "live",
        (true, DrainStatus::Draining) => "draining",
        (true, DrainStatus::Drained) => "drained",
    };
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    vec![
        broker.node.to_string(),
        state.to_owned(),
        or_dash(&broker.rack),
        broker.shards.len().to_string(),
        broker.ranges_head.to_string(),
        broker.ranges_member.to_string(),
        or_dash(&broker.version),
    ]
}

fn ring_row(ring: &RingStatus) -> Vec<String> {
    let counts = [ring.pending, ring.never_active, ring.under_replicated, ring.below_min];
    let numbers = [ring.ring.to_string(), ring.ranges.to_string()];
    numbers.into_iter().chain(counts.iter().map(usize::to_string)).collect()
}

const OPERATION_HEAD: [&str; 6] = ["operation", "task", "state", "moved", "at once", "waits for nodes"];

fn operation_row(operation: &OperationStatus) -> Vec<String> {
    let OperationStatus { operation, task, state, at_once, ranges, moved, waits_for, .. } = operation;
    let waits_for = if waits_for.is_empty() { "-".to_owned() } else { nodes(waits_for) };
    let moved = format!("{moved} of {ranges}");
    vec![operation.to_string(), task_name(*task), state_name(*state).to_owned(), moved, at_once.to_string(), waits_for]
}

fn task_name(task: OperationTask) -> String {
    match task {
        OperationTask::Drain(node) => format!("drain node {node}"),
        OperationTask::Move => "move".to_owned(),
        OperationTask::Rebalance => "rebalance".to_owned(),
    }
}

const fn state_name(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Done => "done",
        OperationState::Aborted => "aborted",
    }
}

fn nodes(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for OperationShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&table(&OPERATION_HEAD, &[operation_row(&self.0)]))
    }
}

impl fmt::Display for PlanShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlanStatus { task, at_once, moves, bytes, unknown_sizes, expected_seconds, copy_bytes_per_second } =
            &self.0;
        if moves.is_empty() {
            return write!(f, "{}: nothing to move", task_name(*task));
        }
        let row = |wanted: &PlannedMove| {
            let bytes = wanted.bytes.map_or_else(|| "unknown".to_owned(), quantity::show_bytes);
            vec![format!("{}/{}", wanted.ring, wanted.range), nodes(&wanted.from), nodes(&wanted.to), bytes]
        };
        let rows: Vec<_> = moves.iter().take(MOVES_SHOWN).map(row).collect();
        writeln!(f, "{}", table(&["range", "from nodes", "to nodes", "to copy"], &rows))?;
        if moves.len() > MOVES_SHOWN {
            writeln!(f, "and {} more: --json shows all", moves.len() - MOVES_SHOWN)?;
        }
        let (count, copied) = (moves.len(), quantity::show_bytes(*bytes));
        write!(f, "\n{}: {count} ranges, {at_once} at a time, {copied} to copy", task_name(*task))?;
        if *unknown_sizes > 0 {
            write!(f, ", and {unknown_sizes} ranges of unknown size")?;
        }
        let speed = quantity::show_bytes(*copy_bytes_per_second);
        write!(f, "; about {expected_seconds} s if each copies {speed}/s. Nothing was done.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minikafka_core::{OperationId, RangeId, RingId};

    #[test]
    fn a_plan_says_what_how_much_and_that_nothing_was_done() {
        let wanted = |range: u32, bytes| PlannedMove {
            ring: RingId(3),
            range: RangeId(range),
            from: vec![NodeId(1), NodeId(2)],
            to: vec![NodeId(4), NodeId(2)],
            bytes,
        };
        let plan = PlanStatus {
            task: OperationTask::Drain(NodeId(1)),
            at_once: 4,
            moves: vec![wanted(0, Some(1 << 20)), wanted(17, None)],
            bytes: 1 << 20,
            unknown_sizes: 1,
            expected_seconds: 1,
            copy_bytes_per_second: 50 << 20,
        };
        let text = PlanShown(plan.clone()).to_string();
        for part in
            ["3/17   1, 2        4, 2      unknown", "2 ranges, 4 at a time", "1 ranges of unknown", "Nothing was done"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(PlanShown(PlanStatus { moves: Vec::new(), ..plan }).to_string(), "drain node 1: nothing to move");
    }

    #[test]
    fn an_operation_is_one_line_of_a_table() {
        let operation = OperationStatus {
            operation: OperationId(7),
            task: OperationTask::Rebalance,
            state: OperationState::Running,
            at_once: 4,
            began_unix_ms: 0,
            ended_unix_ms: None,
            ranges: 9,
            moved: 3,
            waits_for: vec![NodeId(2), NodeId(5)],
            moves: None,
        };
        let text = OperationShown(operation).to_string();
        assert!(text.lines().nth(1).is_some_and(|line| line.contains("3 of 9") && line.ends_with("2, 5")), "{text}");
    }
}
