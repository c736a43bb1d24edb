//! What members of consumer groups, and tools, ask of a shard (`docs/GROUPS.md`, section 5).

use minikafka_core::group::coordinator::{Answer, Refusal};
use minikafka_core::wire::{
    GroupCommitRequest, GroupDeleteRequest, GroupDescribeReply, GroupDescribeRequest, GroupHeartbeatRequest,
    GroupListReply, GroupListRequest, GroupOffsetsReply, GroupOffsetsRequest, ListedGroups,
};
use minikafka_core::{Epoch, ErrorCode, RangeKey, limits};
use minikafka_storage::disk::Disk;

use crate::range::GroupCompletion;
use crate::shard::Shard;

/// Bytes of a group in a list besides its name.
const SUMMARY_BYTES: usize = 2 + 1 + 4;

impl<D: Disk> Shard<D> {
    /// A member says what it has; `done` is called when there is something to tell it, or its wait is over.
    pub fn group_heartbeat(&self, heartbeat: GroupHeartbeatRequest, done: GroupCompletion) {
        self.metrics.group_heartbeats.add(1);
        match self.range(heartbeat.range) {
            Some(range) => range.group_heartbeat(heartbeat, done),
            None => not_here(done),
        }
    }

    /// Commits offsets; `done` is called when they are committed, or why not.
    pub fn group_commit(&self, commit: GroupCommitRequest, done: GroupCompletion) {
        self.metrics.group_commits.add(1);
        match self.range(commit.range) {
            Some(range) => range.group_commit(commit, done),
            None => not_here(done),
        }
    }

    /// Deletes a group; `done` is called when that is committed, or why not.
    pub fn group_delete(&self, delete: GroupDeleteRequest, done: GroupCompletion) {
        match self.range(delete.range) {
            Some(range) => range.group_delete(delete, done),
            None => not_here(done),
        }
    }

    /// Where a group is.
    ///
    /// # Errors
    /// Why that cannot be told here.
    pub fn group_offsets(&self, asked: &GroupOffsetsRequest) -> Result<GroupOffsetsReply, Refusal> {
        if asked.partitions.as_ref().is_some_and(|wanted| wanted.len() > limits::GROUP_PARTITIONS_MAX) {
            return Err(Refusal::because(ErrorCode::InvalidArgument, "a group has at most 65,536 partitions"));
        }
        let range = self.range(asked.range).ok_or(Refusal::of(ErrorCode::NotOwner))?;
        let offsets =
            range.look_at_groups(asked.epoch, |groups| groups.offsets(&asked.group, asked.partitions.as_deref()))?;
        offsets.map_err(Refusal::of)
    }

    /// Who is in a group.
    ///
    /// # Errors
    /// Why that cannot be told here.
    pub fn group_describe(&self, asked: &GroupDescribeRequest) -> Result<GroupDescribeReply, Refusal> {
        let range = self.range(asked.range).ok_or(Refusal::of(ErrorCode::NotOwner))?;
        range.look_at_groups(asked.epoch, |groups| groups.describe(&asked.group))?.map_err(Refusal::of)
    }

    /// Which groups there are. Ranges for which the answer has no room are to be asked for again.
    pub fn group_list(&self, asked: &GroupListRequest) -> GroupListReply {
        let mut bytes_left = limits::GROUP_LIST_BYTES_MAX;
        let listed = |wanted: &minikafka_core::wire::GroupListRange| {
            self.list_range(wanted.range, wanted.epoch, &mut bytes_left)
        };
        GroupListReply { ranges: asked.ranges.iter().map(listed).collect() }
    }

    fn list_range(&self, key: RangeKey, believed: Epoch, bytes_left: &mut usize) -> ListedGroups {
        let refused = |Refusal { code, epoch, .. }: Refusal| ListedGroups {
            range: key,
            error: Some(code),
            epoch,
            groups: Vec::new(),
        };
        let Some(range) = self.range(key) else { return refused(Refusal::of(ErrorCode::NotOwner)) };
        let groups = match range.look_at_groups(believed, |groups| groups.list()) {
            Ok(groups) => groups,
            Err(refusal) => return refused(refusal),
        };
        let bytes: usize = groups.iter().map(|group| SUMMARY_BYTES + group.group.as_str().len()).sum();
        // The first one always fits: its groups are bounded.
        if bytes > *bytes_left && *bytes_left < limits::GROUP_LIST_BYTES_MAX {
            return refused(Refusal::of(ErrorCode::Overloaded));
        }
        *bytes_left = bytes_left.saturating_sub(bytes);
        ListedGroups { range: key, error: None, epoch: range.epoch(), groups }
    }

    /// Tells everybody who waits for news of a group that the broker stops.
    pub(crate) fn stop_groups(&self) {
        self.ranges().iter().for_each(|range| range.stop_groups());
    }
}

fn not_here(done: GroupCompletion) {
    done(Answer::Refused(Refusal::of(ErrorCode::NotOwner)));
}
