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
    /// The newest entry about a group that was folded in this life: what its state says of groups is that of this point.
    pub groups_at: LogPoint,
}

impl Replica {
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
