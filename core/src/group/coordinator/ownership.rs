//! Who gets what: targets, and the entries that bring ownership there.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Group, Member, Surroundings, Then};
use crate::chain::planted::{PlantedBug, is_planted};
use crate::control::{ControlEntry, OwnerChange};
use crate::group::assignment::{Candidate, assign};
use crate::group::{InstanceName, Ownership};
use crate::ids::*;
use crate::limits::{OWNERS_ENTRY_PARTITIONS_MAX, REBALANCE_PAUSE_MS, REVOCATION_TIMEOUT_MS};

/// New owners of partitions; 0: nobody.
type Changes = BTreeMap<PartitionKey, MemberId>;

impl Group {
    /// Puts the next change of owners, and of what members are assigned, on its way, if there is one.
    pub fn settle_ownership(&mut self, around: &mut Surroundings<'_>) {
        let is_target_new = self.needs_target;
        if self.needs_target {
            if self.targeted_at.is_some_and(|at| around.now < at + REBALANCE_PAUSE_MS) {
                return;
            }
            self.set_target(around);
        }
        if !self.is_unsettled {
            return;
        }
        self.is_unsettled = false;
        let changes = self.changes(is_target_new, around);
        let assigned = self.news(&changes, around);
        if changes.is_empty() && assigned.is_empty() {
            return;
        }
        let (group, generation) = (around.name.clone(), self.generation.next());
        let owners = self.owner_changes(changes);
        self.append(ControlEntry::GroupOwners { group, generation, owners }, Then::Assigned(assigned), around);
    }

    /// Works out whose each partition should be. As long as somebody was not heard, nobody loses anything by it.
    fn set_target(&mut self, around: &Surroundings<'_>) {
        (self.needs_target, self.is_unsettled, self.targeted_at) = (false, true, Some(around.now));
        let is_everybody_heard = self.members.values().all(|member| member.topics.is_some());
        self.topics = self.wanted_topics(around);
        let candidate = |(id, member): (&MemberId, &Member)| Candidate {
            member: *id,
            topics: match &member.topics {
                Some(topics) => topics.keys().copied().collect(),
                None => member.assigned.iter().map(|partition| partition.topic).collect(),
            },
            takes: member.topics.is_some(),
        };
        let owned = around.committed.ownerships().filter(|(partition, _)| !self.released.contains(partition));
        let current = owned.map(|(partition, Ownership { member, .. })| {
            (partition, self.successors.get(&member).copied().unwrap_or(member))
        });
        self.target = assign(self.members.iter().map(candidate), &self.topics, current, is_everybody_heard);
    }

    /// The topics that members want, and how many partitions each has: those of who was not heard, as far as it has them.
    fn wanted_topics(&self, around: &Surroundings<'_>) -> BTreeMap<TopicId, u32> {
        let mut topics: BTreeMap<TopicId, u32> = BTreeMap::new();
        let mut at_least = |topic: TopicId, partitions: u32| {
            let count = topics.entry(topic).or_default();
            *count = (*count).max(partitions);
        };
        for (topic, partitions) in self.members.values().filter_map(|member| member.topics.as_ref()).flatten() {
            at_least(*topic, *partitions);
        }
        let is_unheard = |member: MemberId| self.members.get(&member).is_some_and(|member| member.topics.is_none());
        for (partition, ownership) in around.committed.ownerships() {
            if is_unheard(ownership.member) {
                at_least(partition.topic, partition.partition.0.saturating_add(1));
            }
        }
        topics
    }

    /// Which partitions change hands now: those that their owners do not keep, and those that nobody has.
    fn changes(&mut self, is_target_new: bool, around: &Surroundings<'_>) -> Changes {
        let mut changes = Changes::new();
        for (partition, Ownership { member, .. }) in around.committed.ownerships() {
            let wanted = self.wanted(partition);
            if self.keeps(member, partition, wanted, around.now) {
                continue;
            }
            if wanted == Some(member) && !is_target_new {
                // It gave back what it should have: whether it should is worked out anew first.
                (self.needs_target, self.is_unsettled) = (true, true);
                continue;
            }
            if changes.len() == OWNERS_ENTRY_PARTITIONS_MAX {
                self.is_unsettled = true;
                return changes;
            }
            changes.insert(partition, wanted.unwrap_or(MemberId::NONE));
        }
        for (partition, wanted) in &self.target {
            if changes.len() == OWNERS_ENTRY_PARTITIONS_MAX {
                self.is_unsettled = true;
                return changes;
            }
            if around.committed.ownership(*partition).is_none() && self.members.contains_key(wanted) {
                changes.insert(*partition, *wanted);
            }
        }
        changes
    }

    /// Whose a partition should be, if that is somebody.
    fn wanted(&self, partition: PartitionKey) -> Option<MemberId> {
        self.target.get(&partition).copied().filter(|member| self.members.contains_key(member))
    }

    /// Whether an owner keeps a partition for now; it is asked for it when it should not.
    fn keeps(&mut self, owner: MemberId, partition: PartitionKey, wanted: Option<MemberId>, now: u64) -> bool {
        if !self.members.contains_key(&owner) || self.released.contains(&partition) {
            return false;
        }
        if wanted == Some(owner) {
            self.asked_back.remove(&partition);
            return true;
        }
        let since = *self.asked_back.entry(partition).or_insert(now);
        !self.is_overdue(since, now) && !is_planted(PlantedBug::GroupReleasedWithoutReport)
    }

    pub fn is_overdue(&self, since: u64, now: u64) -> bool {
        now.saturating_sub(since) >= REVOCATION_TIMEOUT_MS
    }

    /// What members are assigned with these changes, of those for whom that is something else than before.
    fn news(&self, changes: &Changes, around: &Surroundings<'_>) -> BTreeMap<MemberId, BTreeSet<PartitionKey>> {
        let mut assigned: BTreeMap<MemberId, BTreeSet<PartitionKey>> =
            self.members.keys().map(|id| (*id, BTreeSet::new())).collect();
        let kept = around.committed.ownerships().filter(|(partition, _)| !changes.contains_key(partition));
        let kept = kept.map(|(partition, ownership)| (partition, ownership.member));
        for (partition, owner) in kept.chain(changes.iter().map(|(partition, owner)| (*partition, *owner))) {
            if self.target.get(&partition) == Some(&owner)
                && let Some(assigned) = assigned.get_mut(&owner)
            {
                assigned.insert(partition);
            }
        }
        // What is given again to who gave it back is news, although it is the same.
        let is_given_again =
            |id: &MemberId, member: &Member| member.assigned.iter().any(|partition| changes.get(partition) == Some(id));
        assigned.retain(|id, assigned| {
            let member = self.members.get(id);
            member.is_some_and(|member| member.assigned != *assigned || is_given_again(id, member))
        });
        assigned
    }

    fn owner_changes(&self, changes: Changes) -> Vec<OwnerChange> {
        let mut owners: BTreeMap<MemberId, Vec<PartitionKey>> = BTreeMap::new();
        for (partition, owner) in changes {
            owners.entry(owner).or_default().push(partition);
        }
        let change = |(id, partitions): (MemberId, Vec<PartitionKey>)| {
            let member = self.members.get(&id);
            OwnerChange {
                member: id,
                instance: member.map_or_else(InstanceName::none, |member| member.instance.clone()),
                session_timeout_ms: member.map_or(0, |member| member.session_timeout_ms),
                partitions,
            }
        };
        owners.into_iter().map(change).collect()
    }

    /// A change of owners is committed, and with it what these members are assigned.
    pub fn assigned(
        &mut self,
        entry: &ControlEntry,
        assigned: BTreeMap<MemberId, BTreeSet<PartitionKey>>,
        around: &Surroundings<'_>,
    ) {
        let ControlEntry::GroupOwners { generation, owners, .. } = entry else { return };
        self.generation = *generation;
        for partition in owners.iter().flat_map(|change| &change.partitions) {
            self.released.remove(partition);
            self.asked_back.remove(partition);
        }
        for (id, assigned) in assigned {
            if let Some(member) = self.members.get_mut(&id) {
                (member.assigned, member.assigned_since) = (assigned, *generation);
            }
        }
        self.successors.retain(|older, _| around.committed.owner(*older).is_some());
        // Who came, went and released meanwhile was not looked at.
        self.is_unsettled = true;
    }
}
