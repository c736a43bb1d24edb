//! The shapes of the HTTP API (`docs/GATEWAY.md`, section 4): what `/v1` takes and answers, as JSON.
//!
//! The gateway writes them, the command line reads them. Numbers of 64 random bits are strings of hexadecimal digits, because
//! many readers of JSON have no such integers. Fields may be added; whoever reads must not mind.

use minikafka_core::coordination::{OperationState, OperationTask};
use minikafka_core::topic::{TopicConfig, TopicState};
use minikafka_core::{ConfigVersion, Epoch, LogIndex, NodeId, OperationId, RangeId, RingId, ShardId};
use serde::{Deserialize, Serialize};

pub mod groups;

/// `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its id, 16 hexadecimal digits.
    pub cluster: String,
    /// Members of a chain of the cluster's own state.
    pub internal_replication: u16,
    /// The elected gateway; none: nobody knows at the moment.
    pub controller: Option<ControllerStatus>,
    /// Brokers that are registered.
    pub brokers: usize,
    /// Rings.
    pub rings: usize,
    /// Ranges of all rings.
    pub ranges: usize,
    /// Ranges of which fewer members live than the ring replicates.
    pub ranges_under_replicated: usize,
    /// Ranges of which too few members live for writes.
    pub ranges_below_min: usize,
    /// Topics.
    pub topics: usize,
    /// Operations that move ranges now.
    pub operations_running: usize,
    /// What ranges wait for. Only the controller knows: null elsewhere.
    pub alerts: Option<Vec<AlertStatus>>,
}

/// The elected gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// `host:port` of its native port.
    pub address: String,
    /// `host:port` of its HTTP port; empty: it has none.
    pub http: String,
    /// It is the gateway that answered.
    pub is_this: bool,
}

/// Ranges that wait for a node or an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertStatus {
    /// Their ring.
    pub ring: RingId,
    /// How many of this chunk of the ring.
    pub ranges: usize,
    /// The first of them.
    pub first: RangeId,
    /// For what, and what helps.
    pub message: String,
}

/// `GET /v1/brokers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokersStatus {
    /// By number: those that are registered, and those that are away and belong to a chain or are drained.
    pub brokers: Vec<BrokerStatus>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Its number.
    pub node: NodeId,
    /// Whether it is registered.
    pub live: bool,
    /// Where it stands; empty: nobody said, or it is away.
    pub rack: String,
    /// `host:port` of its shards; none: it is away.
    pub shards: Vec<String>,
    /// Its process, 16 hexadecimal digits; empty: it is away.
    pub incarnation: String,
    /// Its release; empty: it is away.
    pub version: String,
    /// Ranges that it heads.
    pub ranges_head: usize,
    /// Ranges that it holds, headed ones included.
    pub ranges_member: usize,
    /// Whether it is drained.
    pub drain: DrainStatus,
}

/// Whether a node is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainStatus {
    /// It may get ranges.
    #[default]
    No,
    /// Its ranges are being moved, and it gets no new ones.
    Draining,
    /// It gets no ranges until its operation is aborted.
    Drained,
}

/// `GET /v1/rings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingsStatus {
    /// By replication.
    pub rings: Vec<RingStatus>,
}

/// One ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStatus {
    /// Its number, which is its replication.
    pub ring: RingId,
    /// Members that a chain should have.
    pub replication: u16,
    /// Members without which a chain takes no writes.
    pub members_min: usize,
    /// Ranges.
    pub ranges: u32,
    /// Ranges that never had a chain.
    pub never_active: usize,
    /// Ranges whose chain is being changed.
    pub pending: usize,
    /// Ranges of which fewer members live than the ring replicates.
    pub under_replicated: usize,
    /// Ranges of which fewer than `members_min` live.
    pub below_min: usize,
}

/// `GET /v1/rings/{replication}/ranges`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangesStatus {
    /// The ring.
    pub ring: RingId,
    /// In order.
    pub ranges: Vec<RangeStatus>,
    /// Where to go on with `?from=`; null: these were the last.
    pub next: Option<RangeId>,
}

/// One range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeStatus {
    /// Its number.
    pub range: RangeId,
    /// Epoch of the chain; 0: it never had one.
    pub epoch: Epoch,
    /// Head first.
    pub chain: Vec<MemberStatus>,
    /// The epoch of a change under way.
    pub pending: Option<Epoch>,
    /// Fewer members live than the ring replicates.
    pub under_replicated: bool,
    /// Too few members live for writes.
    pub below_min: bool,
    /// Where it is being moved to, and by whose wish.
    pub moving: Option<MovingStatus>,
    /// Who copies it in the background. Only the controller knows: null elsewhere.
    pub learners: Option<Vec<LearnerView>>,
}

/// One member of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its node.
    pub node: NodeId,
    /// The shard there.
    pub shard: ShardId,
    /// Whether the node is registered, with the disk that holds the range.
    pub live: bool,
}

/// A move that an operation lists and that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingStatus {
    /// The operation.
    pub operation: OperationId,
    /// Head first.
    pub to: Vec<NodeId>,
}

/// A node that copies a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnerView {
    /// Which.
    pub node: NodeId,
    /// The last entry that it has.
    pub end: LogIndex,
    /// The last entry that there is to copy; 0: not known yet.
    pub limit: LogIndex,
    /// It lacks so little that it joins with the next change.
    pub ready: bool,
}

/// `GET /v1/topics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicsStatus {
    /// By name.
    pub topics: Vec<TopicStatus>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicStatus {
    /// Its name.
    pub name: String,
    /// Its id, 16 hexadecimal digits.
    pub id: String,
    /// How many partitions.
    pub partitions: u32,
    /// The ring that it lies on, which is its replication.
    pub ring: RingId,
    /// Where it is in its life.
    pub state: TopicState,
    /// Its settings.
    pub config: TopicConfig,
    /// Their version.
    pub config_version: ConfigVersion,
}

/// `GET /healthz`: 200 when `ok`, else 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// This gateway has a coordinator and knows the controller.
    pub ok: bool,
    /// It is the controller.
    pub is_controller: bool,
}

/// `GET` and body of `PUT /v1/log-level`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// A level, or levels of targets: `info,minikafka_broker=debug`.
    pub filter: String,
}

/// Body of `POST /v1/plans` and `POST /v1/operations`: exactly one of the first three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Take all ranges from this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<NodeId>,
    /// Bring one range to these nodes.
    #[serde(default, rename = "move", skip_serializing_if = "Option::is_none")]
    pub move_range: Option<MoveRequest>,
    /// Spread ranges evenly over all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<RebalanceRequest>,
    /// Ranges that are moved at the same time; none: [`minikafka_core::limits::MOVES_AT_ONCE_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u16>,
}

/// Bring a range to nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The ring.
    pub ring: RingId,
    /// The range.
    pub range: RangeId,
    /// As many as the ring replicates, head first.
    pub to: Vec<NodeId>,
}

/// Spread ranges evenly: there is nothing to say about it yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebalanceRequest {}

/// Answer to `POST /v1/plans`: what the operation would do. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// What was asked.
    pub task: OperationTask,
    /// Ranges that would be moved at the same time.
    pub at_once: u16,
    /// Every range that would be moved.
    pub moves: Vec<PlannedMove>,
    /// Bytes to copy, newcomers counted; of the ranges whose size is known.
    pub bytes: u64,
    /// Ranges whose members did not tell their size.
    pub unknown_sizes: usize,
    /// How long it takes at `copy_bytes_per_second` for each of the ranges that are moved at the same time; an empty one
    /// takes some seconds, too, until it is certain that there is nothing to copy.
    pub expected_seconds: u64,
    /// The speed that is reckoned with; what disks, network and other traffic allow is not known before.
    pub copy_bytes_per_second: u64,
}

/// One range that would be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMove {
    /// The ring.
    pub ring: RingId,
    /// The range.
    pub range: RangeId,
    /// Its nodes now, head first.
    pub from: Vec<NodeId>,
    /// Its nodes then, head first.
    pub to: Vec<NodeId>,
    /// Bytes that newcomers copy; null: no member told.
    pub bytes: Option<u64>,
}

/// `GET /v1/operations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationsStatus {
    /// By number, without their moves.
    pub operations: Vec<OperationStatus>,
}

/// `GET /v1/operations/{id}`, and the answer to `POST /v1/operations` and `DELETE /v1/operations/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// Its number.
    pub operation: OperationId,
    /// What is wanted.
    pub task: OperationTask,
    /// Where it is in its life.
    pub state: OperationState,
    /// Ranges that are moved at the same time.
    pub at_once: u16,
    /// When it began, in milliseconds since 1970.
    pub began_unix_ms: i64,
    /// When it was done or aborted.
    pub ended_unix_ms: Option<i64>,
    /// Ranges to move, moved ones included.
    pub ranges: usize,
    /// Ranges moved.
    pub moved: usize,
    /// Nodes that are away and to which ranges are to be moved: these ranges wait.
    pub waits_for: Vec<NodeId>,
    /// Every range; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Vec<MoveStatus>>,
}

/// One range of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveStatus {
    /// The ring.
    pub ring: RingId,
    /// The range.
    pub range: RangeId,
    /// Its nodes when that was planned, head first.
    pub from: Vec<NodeId>,
    /// Its nodes when it is done, head first.
    pub to: Vec<NodeId>,
    /// Whether it is there.
    pub done: bool,
    /// Who copies it. Only the controller knows: null elsewhere.
    pub learners: Option<Vec<LearnerView>>,
}

/// Body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorStatus,
}

/// What went wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// A word that stays the same, as `docs/GATEWAY.md` lists them.
    pub code: String,
    /// What happened, to what.
    pub message: String,
    /// What to do.
    pub fix: String,
}
