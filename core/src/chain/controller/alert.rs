//! Why a range waits, and what helps: said to operators.

use thiserror::Error;

use crate::error_code::ErrorCode;
use crate::ids::*;

/// Why a range waits, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum AlertReason {
    /// Every member of the last chain is away.
    #[error("node {node} is away, and with it every member of the chain: start it again")]
    NodeGone {
        /// The head of that chain.
        node: NodeId,
    },
    /// The node is back with another store, and nobody else has the data.
    #[error(
        "node {node} has another disk than the one that holds this data: start it with its old data directory; the \
         range is not created again by itself"
    )]
    WipedDisk {
        /// The node.
        node: NodeId,
    },
    /// The log that the node has is older than the last chain, or is not there any more.
    #[error(
        "node {node} has lost the log of this range, or part of it: bring its old data directory back; the range is \
         not created again by itself"
    )]
    NotASurvivor {
        /// The node.
        node: NodeId,
    },
    /// Too few members to be safe.
    #[error("{members} members of the chain can be reached and {floor} are needed: bring a node back")]
    BelowFloor {
        /// How many there are.
        members: usize,
        /// How many there must be.
        floor: usize,
    },
    /// Too few nodes to begin.
    #[error("{live} nodes are live and a new chain needs {wanted}: start more nodes")]
    TooFewNodes {
        /// Live nodes.
        live: usize,
        /// Members of a chain.
        wanted: usize,
    },
    /// Nobody is left whose log is whole.
    #[error(
        "the log of node {node} is damaged, and no whole one can be reached: it is mended as soon as another member has what \
         it lost. Bring the other members of its chain back, start the node again if its disk only failed to read for a \
         while, or restore the files that its log names from a backup"
    )]
    Damaged {
        /// The node.
        node: NodeId,
    },
    /// A durable write failed on every member that is left.
    #[error("a durable write of node {node} failed, and no other member of its chain is left: restart it; see its log")]
    WriteFailed {
        /// The node.
        node: NodeId,
    },
    /// A log without a record: the coordinator's data are not those of this node.
    #[error(
        "node {node} has data of a range that the coordinator knows nothing of: check that --coordinator and the data \
         directory belong together"
    )]
    LogWithoutRecord {
        /// The node.
        node: NodeId,
    },
    /// A log with entries of an epoch that the record has not reached.
    #[error("node {node} has entries of a later epoch than the coordinator's record: was the coordinator restored?")]
    EpochAhead {
        /// The node.
        node: NodeId,
    },
    /// The best log that is left ends before something that was acknowledged.
    #[error("the log of node {node} ends below what was committed: bring the other members of its chain back")]
    BehindCommitted {
        /// The node.
        node: NodeId,
    },
    /// The node is registered but does not answer.
    #[error("node {node} is registered but does not answer the controller: check its ports and --advertise")]
    Silent {
        /// The node.
        node: NodeId,
    },
    /// The node answered with an error.
    #[error("node {node} refuses ({error}): see its log")]
    Refused {
        /// The node.
        node: NodeId,
        /// The error.
        error: RefusedWith,
    },
}

/// An [`ErrorCode`] that can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedWith(u16);

impl From<ErrorCode> for RefusedWith {
    fn from(code: ErrorCode) -> Self {
        Self(code as u16)
    }
}

impl std::fmt::Display for RefusedWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(ErrorCode::from_number(self.0).map_or("unknown error", ErrorCode::name))
    }
}

impl AlertReason {
    /// Whether trying again may help although no broker changed.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Refused { .. })
    }
}
