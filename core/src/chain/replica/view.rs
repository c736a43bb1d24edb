//! What a member is at, for whoever watches it: the simulator compares members by this after every step.

use super::{Replica, Standing};
use crate::ids::*;

/// A member at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Highest promise, durable or not.
    pub promised: Epoch,
    /// Last epoch into which the log was reconciled.
    pub marker: Epoch,
    /// Where the log ends.
    pub end: LogPoint,
    /// Durable up to here.
    pub durable: LogIndex,
    /// Known to be committed up to here.
    pub known_committed: LogPoint,
    /// The epoch in which it acts, if it does.
    pub acts_in: Option<Epoch>,
    /// Whether it acts as head.
    pub is_head: bool,
    /// Whether a durable write failed.
    pub failed: bool,
    /// Whether its log lost entries for which its state is not known.
    pub damaged: bool,
    /// The newest entry about a group that was folded in this life: what its state says of groups is that of this point.
    pub groups_at: LogPoint,
}

/// What a member is to its range, in one word, for whoever looks at it from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberRole {
    /// In no chain, and told to do nothing.
    Idle,
    /// Copies from a chain that it is no member of.
    Learning,
    /// Sealed, and not yet told whether it acts.
    Changing,
    /// The only member of its chain.
    Alone,
    /// Takes writes.
    Head,
    /// Between head and tail.
    Middle,
    /// The last one.
    Tail,
    /// A durable write failed.
    Failed,
}

impl MemberRole {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Idle, Self::Learning, Self::Changing, Self::Alone, Self::Head, Self::Middle, Self::Tail, Self::Failed];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Learning => "learning",
            Self::Changing => "changing",
            Self::Alone => "alone",
            Self::Head => "head",
            Self::Middle => "middle",
            Self::Tail => "tail",
            Self::Failed => "failed",
        }
    }
}

impl Replica {
    /// What this member is to its range now.
    pub fn role(&self) -> MemberRole {
        match &self.standing {
            Standing::Idle => MemberRole::Idle,
            Standing::Learning(_) => MemberRole::Learning,
            Standing::Sealing | Standing::Sealed | Standing::Reconciling | Standing::Reconciled => MemberRole::Changing,
            Standing::Active(active) => match (active.is_head(), active.has_successor()) {
                (true, true) => MemberRole::Head,
                (true, false) => MemberRole::Alone,
                (false, true) => MemberRole::Middle,
                (false, false) => MemberRole::Tail,
            },
            Standing::Failed => MemberRole::Failed,
        }
    }

    /// What the successor acknowledged in the epoch in which this member acts; none without a successor.
    pub fn successor_acknowledged_index(&self) -> Option<LogIndex> {
        match &self.standing {
            Standing::Active(active) => active.downstream.as_ref().map(|downstream| downstream.acknowledged),
            _ => None,
        }
    }

    /// Where this member is.
    pub fn view(&self) -> MemberView {
        let active = match &self.standing {
            Standing::Active(active) => Some(active),
            _ => None,
        };
        MemberView {
            promised: self.promised,
            marker: self.marker,
            end: self.state.end(),
            durable: self.durable,
            known_committed: self.committed,
            acts_in: active.map(|active| active.epoch()),
            is_head: active.is_some_and(|active| active.is_head()),
            failed: matches!(self.standing, Standing::Failed),
            damaged: self.damaged,
            groups_at: self.groups_at,
        }
    }

    /// The points of its log that are not known to be committed, in order, from an index on.
    pub fn uncommitted_points(&self, from: LogIndex) -> impl Iterator<Item = LogPoint> {
        let points = self.uncommitted.iter().map(|entry| LogPoint { index: entry.index, hash: entry.hash });
        let skipped = self.uncommitted.partition_point(|entry| entry.index < from);
        points.skip(skipped)
    }
}
