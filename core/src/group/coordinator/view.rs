//! What a coordinator tells of its groups to whoever looks: only what is committed, and what it knows of members.

use std::collections::{BTreeMap, BTreeSet};

use super::Coordinator;
use super::group::{Group, Member};
use crate::error_code::ErrorCode;
use crate::group::{GroupName, GroupState};
use crate::ids::*;
use crate::wire::group::{
    CommittedOffset, GroupDescribeReply, GroupOffsetsReply, GroupPhase, GroupSummary, MemberDescription,
};

impl Coordinator {
    /// Where a group is, in these partitions or in all.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownGroup`].
    pub fn offsets(
        &self,
        name: &GroupName,
        partitions: Option<&[PartitionKey]>,
    ) -> Result<GroupOffsetsReply, ErrorCode> {
        let Some(state) = self.table.get(name) else {
            let is_known = self.groups.contains_key(name);
            return if is_known { Ok(GroupOffsetsReply { offsets: Vec::new() }) } else { Err(ErrorCode::UnknownGroup) };
        };
        let offsets: Vec<CommittedOffset> = match partitions {
            None => state.commits().map(|(partition, commit)| commit.to_committed(partition)).collect(),
            Some(partitions) => {
                let wanted: BTreeSet<PartitionKey> = partitions.iter().copied().collect();
                wanted.into_iter().filter_map(|of| state.commit(of).map(|commit| commit.to_committed(of))).collect()
            }
        };
        Ok(GroupOffsetsReply { offsets })
    }

    /// Who is in a group.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownGroup`].
    pub fn describe(&self, name: &GroupName) -> Result<GroupDescribeReply, ErrorCode> {
        let (state, group) = (self.table.get(name), self.groups.get(name));
        if state.is_none() && group.is_none() {
            return Err(ErrorCode::UnknownGroup);
        }
        let generation = state.map_or(GroupGeneration(0), GroupState::generation);
        let mut owned =
            by_member(state.iter().flat_map(|state| state.ownerships()).map(|(of, owned)| (of, owned.member)));
        let mut target = by_member(group.iter().flat_map(|group| &group.target).map(|(of, member)| (*of, *member)));
        let described = |(id, member): (&MemberId, &Member)| MemberDescription {
            member: *id,
            instance: member.instance.clone(),
            client_name: member.client_name.clone(),
            silent_ms: self.clock.awake_ms.saturating_sub(member.heard_at),
            topics: member.topics.iter().flatten().map(|(topic, _)| *topic).collect(),
            owned: owned.remove(id).unwrap_or_default(),
            target: target.remove(id).unwrap_or_default(),
        };
        let members = group.iter().flat_map(|group| &group.members).map(described).collect();
        Ok(GroupDescribeReply { generation, phase: phase(state, group), members })
    }

    /// All groups, by name.
    pub fn list(&self) -> Vec<GroupSummary> {
        let names: BTreeSet<&GroupName> = self.table.iter().map(|(name, _)| name).chain(self.groups.keys()).collect();
        let summary = |name: &GroupName| {
            let group = self.groups.get(name);
            GroupSummary {
                group: name.clone(),
                phase: phase(self.table.get(name), group),
                members: group.map_or(0, |group| group.members.len() as u32),
            }
        };
        names.into_iter().map(summary).collect()
    }
}

fn by_member(pairs: impl Iterator<Item = (PartitionKey, MemberId)>) -> BTreeMap<MemberId, Vec<PartitionKey>> {
    let mut by_member: BTreeMap<MemberId, Vec<PartitionKey>> = BTreeMap::new();
    pairs.for_each(|(partition, member)| by_member.entry(member).or_default().push(partition));
    by_member
}

fn phase(state: Option<&GroupState>, group: Option<&Group>) -> GroupPhase {
    let Some(group) = group.filter(|group| !group.members.is_empty()) else { return GroupPhase::Empty };
    let owned: BTreeMap<PartitionKey, MemberId> =
        state.iter().flat_map(|state| state.ownerships()).map(|(partition, owned)| (partition, owned.member)).collect();
    let is_settled = !group.needs_target && owned == group.target;
    if is_settled { GroupPhase::Stable } else { GroupPhase::Rebalancing }
}
