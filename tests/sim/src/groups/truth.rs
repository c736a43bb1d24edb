//! What is true of the group: what its range committed about it, entry by entry, and what must follow from that.
//!
//! Learned from the logs of heads as they grow and from what the world knows to be committed, never from a coordinator.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use minikafka_core::group::GroupState;
use minikafka_core::wire::{GroupCommitReply, GroupHeartbeatReply};
use minikafka_core::*;

use crate::client::partition_key;
use crate::invariants::{Checked, Violation};

/// Generations of which owners are remembered.
const GENERATIONS_KEPT: usize = 200;

/// See the module's description.
pub struct GroupTruth {
    /// What heads appended about the group, by index: not known to be committed yet.
    appended: BTreeMap<LogIndex, Vec<(RunningHash, GroupState)>>,
    /// What a head has, all of which is committed up to here.
    head_at: Option<(LogIndex, GroupState)>,
    /// What is committed.
    state: GroupState,
    at: LogIndex,
    /// Owners by generation, the newest last.
    generations: VecDeque<(GroupGeneration, BTreeMap<PartitionKey, MemberId>)>,
    /// Where the group was in partitions while members owned them.
    held: BTreeSet<(PartitionKey, MemberId, Offset)>,
    /// Generations, and commits that moved a partition on.
    pub counts: (u64, u64),
    /// Of each partition: which records were handed out, or are deleted.
    handed: Vec<Vec<bool>>,
}

/// From what is committed to what is committed next.
pub struct Change {
    at: LogIndex,
    before: GroupState,
    after: GroupState,
}

impl Change {
    /// Partitions that an owner lost: to whom.
    pub fn taken(&self) -> impl Iterator<Item = (PartitionKey, MemberId, Option<MemberId>)> {
        self.before.ownerships().filter_map(|(partition, owned)| {
            let to = self.after.ownership(partition).map(|owned| owned.member);
            (to != Some(owned.member)).then_some((partition, owned.member, to))
        })
    }
}

impl GroupTruth {
    pub fn new(partitions: usize) -> Self {
        Self {
            appended: BTreeMap::new(),
            head_at: None,
            state: GroupState::default(),
            at: LogIndex(0),
            generations: VecDeque::new(),
            held: BTreeSet::new(),
            counts: (0, 0),
            handed: vec![Vec::new(); partitions],
        }
    }

    /// A head's log says this about groups from a point on.
    pub fn appended(&mut self, point: LogPoint, state: Option<&GroupState>) {
        if point.index <= self.at {
            return;
        }
        let known = self.appended.entry(point.index).or_default();
        if known.iter().all(|(hash, _)| *hash != point.hash) {
            known.push((point.hash, state.cloned().unwrap_or_default()));
        }
    }

    /// A head's log says this about groups, and nothing of it is uncommitted.
    pub fn is_at(&mut self, committed: LogIndex, state: Option<&GroupState>) {
        let is_known = state.map_or(self.state == GroupState::default(), |state| *state == self.state);
        if committed > self.at && !(is_known && self.appended.is_empty()) {
            self.head_at = Some((committed, state.cloned().unwrap_or_default()));
        }
    }

    /// The next change that is committed, if one is.
    pub fn next_committed(
        &mut self,
        committed: LogIndex,
        hash_at: impl Fn(LogIndex) -> Option<RunningHash>,
    ) -> Option<Change> {
        loop {
            if let Some(change) = self.next_appended(committed, &hash_at) {
                return Some(change);
            }
            // What happened in between, nobody who lives saw. What was appended and is not part of it came to nothing.
            let (at, after) = self.head_at.take()?;
            self.appended = self.appended.split_off(&at.next());
            if after != self.state {
                return Some(Change { at, before: self.state.clone(), after });
            }
            self.at = self.at.max(at);
        }
    }

    /// The next change that a head was seen to append and that is committed, as long as all are known up to there.
    fn next_appended(
        &mut self,
        committed: LogIndex,
        hash_at: impl Fn(LogIndex) -> Option<RunningHash>,
    ) -> Option<Change> {
        let until = self.head_at.as_ref().map_or(committed, |(at, _)| committed.min(*at));
        while let Some(entry) = self.appended.first_entry().filter(|entry| *entry.key() <= until) {
            let index = *entry.key();
            let hash = hash_at(index)?;
            // What was appended in an epoch that came to nothing is not there.
            if let Some((_, after)) = entry.remove().into_iter().find(|(appended, _)| *appended == hash) {
                return Some(Change { at: index, before: self.state.clone(), after });
            }
        }
        None
    }

    /// A change is committed.
    pub fn apply(&mut self, change: Change) -> Checked {
        let Change { at, before, after } = change;
        if after.generation() < before.generation() {
            let what =
                format!("the group's generation goes back to {} from {}", after.generation(), before.generation());
            return Err(Violation::data(what));
        }
        for (partition, commit) in after.commits() {
            let was = before.commit(partition).map(|commit| commit.offset);
            if was == Some(commit.offset) {
                continue;
            }
            if was.is_some_and(|was| was > commit.offset) {
                let what = format!("the group's commit of {partition} goes back from {was:?} to {}", commit.offset);
                return Err(Violation::data(what));
            }
            self.counts.1 += 1;
            let handed = &self.handed[partition.partition.0 as usize];
            let skipped =
                (0..commit.offset.0).find(|offset| !handed.get(*offset as usize).is_some_and(|handed| *handed));
            if let Some(skipped) = skipped {
                let what = format!("{partition}: {} is committed, and {skipped} was never handed out", commit.offset);
                return Err(Violation::data(what));
            }
        }
        if after.generation() > before.generation() {
            self.counts.0 += after.generation().0 - before.generation().0;
            let owners = after.ownerships().map(|(partition, owned)| (partition, owned.member)).collect();
            self.generations.push_back((after.generation(), owners));
            if self.generations.len() > GENERATIONS_KEPT {
                self.generations.pop_front();
            }
        }
        for (partition, commit) in after.commits() {
            if let Some(owned) = after.ownership(partition) {
                self.held.insert((partition, owned.member, commit.offset));
            }
        }
        (self.state, self.at) = (after, at);
        Ok(())
    }

    /// A member is told what it may read.
    pub fn told(&self, member: MemberId, reply: &GroupHeartbeatReply) -> Checked {
        let GroupHeartbeatReply { generation, assigned } = reply;
        if *generation == GroupGeneration(0) && assigned.is_empty() {
            return Ok(());
        }
        let Some((_, owners)) = self.generations.iter().find(|(known, _)| known == generation) else {
            let is_old = self.generations.front().is_some_and(|(oldest, _)| generation < oldest);
            let what = format!("member {member} is told generation {generation}, which is not committed");
            return if is_old { Ok(()) } else { Err(Violation::data(what)) };
        };
        for of in assigned {
            if owners.get(&of.partition) != Some(&member) {
                let owner = owners.get(&of.partition);
                let what = format!("member {member} is told to read {}, which is {owner:?}'s", of.partition);
                return Err(Violation::data(what));
            }
            let commit = self.state.commit(of.partition).map(|commit| commit.offset);
            if of.committed.is_some_and(|told| commit.is_none_or(|commit| told > commit)) {
                let what =
                    format!("member {member} is told to begin {} at {:?}, not {commit:?}", of.partition, of.committed);
                return Err(Violation::data(what));
            }
        }
        Ok(())
    }

    /// A member is told what it committed.
    pub fn acknowledged(&self, member: MemberId, reply: &GroupCommitReply) -> Checked {
        for outcome in reply.partitions.iter().filter(|outcome| outcome.error.is_none()) {
            let partition = outcome.partition;
            if self.state.commit(partition).is_none() {
                let what = format!("member {member} is told that it committed for {partition}, and nothing is");
                return Err(Violation::data(what));
            }
        }
        Ok(())
    }

    /// A commit of a member that was acknowledged is there, and was its to make.
    pub fn check_acknowledged(&self, member: MemberId, partition: PartitionKey, offset: Offset) -> Checked {
        let commit = self.state.commit(partition).map(|commit| commit.offset);
        if commit.is_none_or(|commit| commit < offset) {
            let what = format!("member {member} committed {partition} at {offset}, and the group is at {commit:?}");
            return Err(Violation::data(what));
        }
        if !self.held.contains(&(partition, member, offset)) {
            let what = format!("member {member} committed {partition} at {offset} while it was somebody else's");
            return Err(Violation::data(what));
        }
        Ok(())
    }

    /// Records of a partition were handed out, or are deleted.
    pub fn handed_out(&mut self, partition: u32, from: u64, to: u64) {
        let handed = &mut self.handed[partition as usize];
        if handed.len() < to as usize {
            handed.resize(to as usize, false);
        }
        handed[from as usize..to as usize].fill(true);
    }

    /// Where the group is in a partition.
    pub fn commit_of(&self, partition: u32) -> Option<u64> {
        self.state.commit(partition_key(partition)).map(|commit| commit.offset.0)
    }

    /// Whose a partition is.
    pub fn owner_of(&self, partition: u32) -> Option<MemberId> {
        self.state.ownership(partition_key(partition)).map(|owned| owned.member)
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.handed.len() as u32
    }
}

#[cfg(test)]
mod tests;
