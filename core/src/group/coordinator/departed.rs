//! Members that are gone, by the last that was heard of them.
//!
//! A request may arrive late, and twice, also when its member was expelled meanwhile or left. A member's sequences therefore
//! outlive it: otherwise the first joining of a member, delayed on a dead connection, would bring it back without anybody
//! behind it, and what the living process leaves out of its heartbeats would be taken for what that old one said. Requests of
//! another epoch are refused before they come here, so a new coordinator needs to know nothing of this.
//! Bounded: the oldest are forgotten.

use std::collections::{BTreeMap, VecDeque};

use crate::group::GroupName;
use crate::ids::*;
use crate::limits::DEPARTED_MEMBERS_REMEMBERED_MAX;

/// The newest requests of a member that were heard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequences {
    pub heartbeat: GroupSequence,
    pub commit: GroupSequence,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub(super) struct Departed {
    sequences: BTreeMap<(GroupName, MemberId), Sequences>,
    /// Oldest first.
    order: VecDeque<(GroupName, MemberId)>,
}

impl Departed {
    /// What was last heard of a member, if it was one before.
    pub fn get(&self, group: &GroupName, member: MemberId) -> Option<Sequences> {
        self.sequences.get(&(group.clone(), member)).copied()
    }

    /// A member is gone.
    pub fn note(&mut self, group: &GroupName, member: MemberId, sequences: Sequences) {
        let key = (group.clone(), member);
        if self.sequences.insert(key.clone(), sequences).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > DEPARTED_MEMBERS_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sequences.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let group = GroupName::new("g").expect("a good name");
        let mut departed = Departed::default();
        let sequences = |heartbeat| Sequences { heartbeat: GroupSequence(heartbeat), ..Sequences::default() };
        for member in 0..=DEPARTED_MEMBERS_REMEMBERED_MAX as u64 {
            departed.note(&group, MemberId(member), sequences(member));
        }
        departed.note(&group, MemberId(1), sequences(9));
        assert!(departed.get(&group, MemberId(0)).is_none());
        assert_eq!(departed.get(&group, MemberId(1)).map(|known| known.heartbeat.0), Some(9));
        assert_eq!(
            (departed.sequences.len(), departed.order.len()),
            (DEPARTED_MEMBERS_REMEMBERED_MAX, departed.sequences.len())
        );
    }
}
