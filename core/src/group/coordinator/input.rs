//! What happens to a coordinator, and what it wants done.

use crate::control::ControlEntry;
use crate::error_code::ErrorCode;
use crate::group::{GroupName, GroupTable};
use crate::ids::*;
use crate::wire::group::{GroupCommitReply, GroupCommitRequest, GroupHeartbeatReply, GroupHeartbeatRequest};

/// Names a request of the interpreter: the machine only gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happens to a coordinator.
#[derive(Clone, Debug)]
pub enum Input {
    /// The range's head begins to act in an epoch.
    Activated {
        /// The groups of its log, all of which is committed.
        groups: GroupTable,
    },
    /// It acts no more: entries on their way may be committed, or not.
    Deposed {
        /// What whoever waits is told.
        code: ErrorCode,
        /// The epoch to refresh to.
        epoch: Epoch,
    },
    /// A member says what it has, and waits for news. Range and epoch were looked at.
    Heartbeat {
        /// To be answered.
        request: RequestId,
        /// What it says.
        heartbeat: GroupHeartbeatRequest,
    },
    /// Somebody commits offsets. Range and epoch were looked at.
    Commit {
        /// To be answered.
        request: RequestId,
        /// What.
        commit: GroupCommitRequest,
    },
    /// Somebody deletes a group.
    Delete {
        /// To be answered.
        request: RequestId,
        /// Which.
        group: GroupName,
    },
    /// The group's entry is committed.
    Written {
        /// Whose.
        group: GroupName,
        /// When the head accepted it.
        appended: Timestamp,
    },
    /// The group's entry was not appended, or is not known to be committed.
    WriteRefused {
        /// Whose.
        group: GroupName,
        /// Why.
        code: ErrorCode,
        /// The epoch to refresh to, where the code asks for that.
        epoch: Epoch,
    },
    /// About [`TICK_MS`](crate::limits::TICK_MS) passed.
    Tick {
        /// What the clock on the wall says.
        wall: Timestamp,
        /// The rest of the chain was lately heard. Otherwise somebody else may coordinate by now.
        hears_chain: bool,
    },
}

/// What the interpreter must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append an entry, then say [`Input::Written`] or [`Input::WriteRefused`]; one at a time for each group.
    Append {
        /// Whose.
        group: GroupName,
        /// What.
        entry: ControlEntry,
    },
    /// Answer a request.
    Answer {
        /// Which.
        request: RequestId,
        /// How.
        answer: Answer,
    },
}

/// The outcome of a request. All that it tells is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a heartbeat.
    Heartbeat(GroupHeartbeatReply),
    /// To a commit.
    Committed(GroupCommitReply),
    /// The group is deleted.
    Deleted,
    /// Not done, or its outcome is not known (the code's meaning says which).
    Refused(Refusal),
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: ErrorCode,
    /// The epoch to refresh to, where the code asks for that.
    pub epoch: Epoch,
    /// What happened, where that is more than the code's own advice.
    pub message: Option<&'static str>,
}

impl Refusal {
    /// With the code's own advice.
    pub const fn of(code: ErrorCode) -> Self {
        Self { code, epoch: Epoch(0), message: None }
    }

    /// And says why.
    pub const fn because(code: ErrorCode, message: &'static str) -> Self {
        Self { code, epoch: Epoch(0), message: Some(message) }
    }
}
