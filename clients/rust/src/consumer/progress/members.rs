//! Which member of its chain a partition is read from, and which ones it leaves alone for a while.
//!
//! Pure. Whatever is chosen, positions only go forward and every member serves the same log: a choice costs time at worst.

use std::time::{Duration, Instant};

use minikafka_core::{NodeId, Partition, RangeKey};

use crate::consumer::options::ReadFrom;
use crate::map::{ClusterMap, RangeMember};

/// A member that failed is left alone for so long, then it is preferred again.
pub(in crate::consumer) const LEFT_ALONE: Duration = Duration::from_secs(3);
/// A member that does not know yet what was read elsewhere is asked so often before it is left alone: one message behind is
/// no reason.
const LAGS_MAX: u32 = 3;

/// What one partition remembers of its chain's members. Bounded by the members that were in it within [`LEFT_ALONE`].
#[derive(Debug, Default)]
pub(super) struct Members {
    left_alone: Vec<(NodeId, Instant)>,
    /// Answers of members behind the head, in a row, that they are behind.
    lags: u32,
}

impl Members {
    /// The member to ask: as preferred, among those that are not left alone; when all are, the head.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        read_from: &ReadFrom,
        (map, range, partition): (&ClusterMap, RangeKey, Partition),
    ) -> Option<RangeMember> {
        self.left_alone.retain(|(_, until)| *until > now);
        let is_asked = |member: &RangeMember| self.left_alone.iter().all(|(node, _)| *node != member.node);
        let members: Vec<RangeMember> = match read_from {
            ReadFrom::Head => return map.members_of(range).next().filter(|member| member.is_head),
            ReadFrom::Nearest { .. } | ReadFrom::Any => map.members_of(range).collect(),
        };
        let preferred = match read_from {
            ReadFrom::Nearest { rack } => members.iter().filter(|m| *m.rack == **rack).find(|m| is_asked(m)),
            _ => {
                let turn = partition.0 as usize % members.len().max(1);
                members[turn..].iter().chain(&members[..turn]).find(|member| is_asked(member))
            }
        };
        preferred.or_else(|| members.iter().find(|member| is_asked(member))).or(members.first()).cloned()
    }

    /// A member failed. True: it is left alone from now on, and another one may be asked at once.
    pub(super) fn failed(&mut self, now: Instant, node: NodeId, is_head: bool) -> bool {
        if self.left_alone.iter().any(|(other, _)| *other == node) {
            return false;
        }
        self.lags = 0;
        self.left_alone.push((node, now + LEFT_ALONE));
        !is_head
    }

    /// A member knows less than what was read already. True, as [`Self::failed`], when it is so for too long.
    pub(super) fn lags(&mut self, now: Instant, node: NodeId, is_head: bool) -> bool {
        self.lags += 1;
        self.lags >= LAGS_MAX && self.failed(now, node, is_head)
    }

    /// A member served what was asked.
    pub(super) fn served(&mut self) {
        self.lags = 0;
    }
}
