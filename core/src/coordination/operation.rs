//! `/operations/<id>`: what an operator wants done with ranges. It outlives every controller, and each goes on where the
//! last one stopped: what is done shows in the rings, what is wanted here.

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// An operation, persistent; written by the controller with compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Its number.
    pub operation: OperationId,
    /// What is wanted.
    pub task: OperationTask,
    /// Where it is in its life.
    pub state: OperationState,
    /// Ranges that are moved at the same time.
    pub at_once: u16,
    /// When it began.
    pub began: Timestamp,
    /// When it was done or aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Moves that were done and are no longer listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moved_before: u32,
    /// What is moved; at most [`crate::limits::OPERATION_MOVES_MAX`].
    pub moves: Vec<RangeMove>,
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationTask {
    /// A node without ranges, which gets none either until the operation is aborted.
    Drain(NodeId),
    /// Ranges on the nodes that the operator names.
    Move,
    /// Ranges spread evenly over all nodes.
    Rebalance,
}

/// Where an operation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Ranges are moved.
    Running,
    /// All are where they should be. A drained node still gets none.
    Done,
    /// The operator wants it no more. What was moved stays moved.
    Aborted,
}

/// One range that changes its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeMove {
    /// The ring.
    pub ring: RingId,
    /// The range.
    pub range: RangeId,
    /// Its nodes when that was planned, head first.
    pub from: Vec<NodeId>,
    /// Its nodes when it is done, head first.
    pub to: Vec<NodeId>,
    /// It was there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl OperationRecord {
    /// The node that gets no ranges because of this operation.
    pub fn draining(&self) -> Option<NodeId> {
        match self.task {
            OperationTask::Drain(node) if self.state != OperationState::Aborted => Some(node),
            _ => None,
        }
    }

    /// Moves that are done.
    pub fn moved(&self) -> usize {
        self.moved_before as usize + self.moves.iter().filter(|range| range.done).count()
    }

    /// Moves there are, done or not.
    pub fn moves_total(&self) -> usize {
        self.moved_before as usize + self.moves.len()
    }
}

// Serde asks by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
