//! Operations: what operators want done with ranges. Checked and planned here, written to the coordinator, where they outlive
//! every controller, and carried out by whoever is elected (`controller::operation_driver`).
//!
//! The records are the truth: what is wanted stands in them, what is done shows in the rings. [`progress`] puts the two
//! together, and keeps nothing. Only the controller changes them.

pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod sizes;

use std::time::{SystemTime, UNIX_EPOCH};

use minikafka_core::coordination::{CoordinationError, KeyLife, OperationRecord, OperationState, OperationTask, path};
use minikafka_core::{NodeId, OperationId, RangeKey, RingId, Timestamp, limits};
use thiserror::Error;

use crate::admin::PlanRequest;
use crate::backoff::Backoff;
use crate::gateway::Shared;
use crate::map::{ClusterMap, keeper};
use plan::Plan;

/// Why an operation is not begun, shown or aborted.
#[derive(Debug, Error)]
pub(crate) enum OperationError {
    #[error("{reason}")]
    Invalid { reason: String },
    #[error("there is no ring {ring}")]
    UnknownRing { ring: RingId },
    #[error("range {range} is not there: the ring has ranges 0 to {last}")]
    UnknownRange { range: RangeKey, last: u32 },
    #[error("node {node} is not registered, and no chain names it")]
    UnknownNode { node: NodeId },
    #[error("there is no operation {operation}")]
    UnknownOperation { operation: String },
    #[error(
        "ring {ring} keeps {replication} copies on as many nodes, and without node {node} only {left} live nodes are left \
         that take ranges"
    )]
    BelowReplication { ring: RingId, replication: u16, node: NodeId, left: usize },
    #[error("node {node} is drained by operation {operation}")]
    Draining { node: NodeId, operation: OperationId },
    #[error("operation {operation} is moving range {range}")]
    Moving { range: RangeKey, operation: OperationId },
    #[error("there are {} operations, and none of them has ended", limits::OPERATIONS_MAX)]
    TooMany,
    #[error("operation {operation} has ended already")]
    Ended { operation: OperationId },
    #[error(transparent)]
    Coordinator(#[from] CoordinationError),
}

/// The map with the brokers that are registered now: a node that has just been started counts, whether or not a watch has
/// told of it yet.
pub(crate) async fn map_to_plan(shared: &Shared) -> Result<ClusterMap, CoordinationError> {
    let brokers = keeper::brokers(&shared.client).await?;
    Ok(ClusterMap { brokers, ..(*shared.map.current()).clone() })
}

/// Plans an operation and writes it down; from then on it is carried out, whoever is the controller.
pub(crate) async fn begin(shared: &Shared, request: &PlanRequest) -> Result<OperationRecord, OperationError> {
    // One at a time, so that no two plans are made for the same ranges.
    let _alone = shared.beginning.lock().await;
    keeper::read(&shared.client, &shared.map, path::OPERATIONS).await?;
    loop {
        let map = map_to_plan(shared).await?;
        let Plan { task, at_once, moves } = plan::plan(&map, request)?;
        make_room(shared, &map).await?;
        let last = map.operations.keys().next_back().copied().unwrap_or_default();
        let record = OperationRecord {
            operation: OperationId(last.0 + 1),
            task,
            state: OperationState::Running,
            at_once,
            began: now(),
            ended: None,
            moved_before: 0,
            moves,
        };
        let path = path::operation(record.operation);
        match shared.client.create(&path, &record, KeyLife::Persistent).await {
            Ok((_, version)) => {
                shared.map.set_operation(record.clone(), version);
                return Ok(record);
            }
            // An earlier controller's, or our own, whose outcome is read.
            Err(error @ (CoordinationError::Exists { .. } | CoordinationError::Unknown { .. })) => {
                keeper::read(&shared.client, &shared.map, &path).await?;
                match shared.map.current().operations.get(&record.operation) {
                    Some(found) if found.record == record => return Ok(record),
                    Some(_) => {}
                    None => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends an operation: what was moved stays moved, and a drained node may get ranges again.
pub(crate) async fn abort(shared: &Shared, operation: OperationId) -> Result<OperationRecord, OperationError> {
    let path = path::operation(operation);
    let mut backoff = Backoff::default();
    loop {
        let unknown = || OperationError::UnknownOperation { operation: operation.to_string() };
        let (mut record, version) = shared.client.read::<OperationRecord>(&path).await?.ok_or_else(unknown)?;
        let holds = record.state == OperationState::Running || record.draining().is_some();
        if !holds {
            return Err(OperationError::Ended { operation });
        }
        record.state = OperationState::Aborted;
        record.ended = Some(now());
        match shared.client.compare_and_set(&path, &record, version).await {
            Ok(version) => {
                shared.map.set_operation(record.clone(), version);
                return Ok(record);
            }
            // Its progress was written meanwhile.
            Err(CoordinationError::Conflict { .. }) => backoff.wait().await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deletes the oldest ended operation when there are too many.
async fn make_room(shared: &Shared, map: &ClusterMap) -> Result<(), OperationError> {
    if map.operations.len() < limits::OPERATIONS_MAX {
        return Ok(());
    }
    let has_ended = |record: &OperationRecord| record.state != OperationState::Running && record.draining().is_none();
    let oldest = map.operations.values().find(|at| has_ended(&at.record)).ok_or(OperationError::TooMany)?;
    let path = path::operation(oldest.record.operation);
    match shared.client.delete(&path, oldest.version).await {
        Ok(()) | Err(CoordinationError::Missing { .. } | CoordinationError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(keeper::read(&shared.client, &shared.map, &path).await?)
}

/// The wall clock, for people only.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What an operation's task is about, in the words of a log.
pub(crate) fn describe(task: OperationTask) -> String {
    match task {
        OperationTask::Drain(node) => format!("drain node {node}"),
        OperationTask::Move => "move".to_owned(),
        OperationTask::Rebalance => "rebalance".to_owned(),
    }
}

#[cfg(test)]
mod tests;
