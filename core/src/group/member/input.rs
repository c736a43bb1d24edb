//! What happens to a member, and what it wants done.

use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::wire::group::{
    AssignedPartition, CommitOutcome, CommittedOffset, GroupCommitReply, GroupCommitRequest, GroupHeartbeatReply,
    GroupHeartbeatRequest, TopicSubscription,
};

/// Names a commit of the driver: the machine only gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// The two kinds of requests that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Heartbeats.
    Heartbeat,
    /// Commits.
    Commit,
}

/// Why a request has no answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A server said so.
    Refused(ErrorCode),
    /// The connection broke, could not be opened, or nothing came in time: the outcome is unknown.
    Unanswered,
}

/// What happens to a member.
#[derive(Clone, Debug)]
pub enum Input {
    /// The map says where the group's coordinator is.
    Coordinator {
        /// The group's range.
        range: RangeKey,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The application wants these topics, which have so many partitions, and no others.
    Subscribe {
        /// All of them.
        topics: Vec<TopicSubscription>,
    },
    /// A heartbeat was answered.
    HeartbeatAnswered {
        /// Which.
        sequence: GroupSequence,
        /// How.
        reply: GroupHeartbeatReply,
    },
    /// A heartbeat was refused, or not answered.
    HeartbeatFailed {
        /// Which.
        sequence: GroupSequence,
        /// Why.
        failure: Failure,
    },
    /// The application is done with partitions that it was asked to give back, and has committed what it wants of them.
    Released {
        /// Which.
        partitions: Vec<PartitionKey>,
    },
    /// The application commits.
    Commit {
        /// To be told.
        commit: CommitId,
        /// What.
        offsets: Vec<CommittedOffset>,
    },
    /// A commit was answered.
    CommitAnswered {
        /// Which.
        sequence: GroupSequence,
        /// How.
        reply: GroupCommitReply,
    },
    /// A commit was refused whole, or not answered.
    CommitFailed {
        /// Which.
        sequence: GroupSequence,
        /// Why.
        failure: Failure,
    },
    /// It shall leave; whatever it has is given up. Commits that are wanted should be answered first.
    Leave {
        /// Also as a static member.
        for_good: bool,
    },
    /// The pause that was asked for is over.
    Resume(Exchange),
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a heartbeat to where its range is headed; say what becomes of it.
    SendHeartbeat(GroupHeartbeatRequest),
    /// Send a commit there; say what becomes of it.
    SendCommit(GroupCommitRequest),
    /// Wait a while, the longer the more failures there were, then say [`Input::Resume`].
    Pause {
        /// Of which kind of request.
        exchange: Exchange,
        /// Failures in a row.
        failures: u32,
        /// Look at the map meanwhile, and say where the coordinator is.
        needs_map: bool,
    },
    /// These partitions may be read, from where it is said.
    Assigned(Vec<AssignedPartition>),
    /// Stop reading these, commit what was handled, then say [`Input::Released`].
    Revoke(Vec<PartitionKey>),
    /// These are somebody else's: stop reading them; nothing can be committed.
    Lost(Vec<PartitionKey>),
    /// A commit is answered.
    Committed {
        /// Which.
        commit: CommitId,
        /// In its order.
        partitions: Vec<CommitOutcome>,
    },
    /// A commit came to nothing.
    CommitFailed {
        /// Which.
        commit: CommitId,
        /// Why.
        code: ErrorCode,
    },
    /// It has left.
    Left,
    /// It ended because of this, and has nothing any more.
    Failed(ErrorCode),
}
