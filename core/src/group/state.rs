//! What the log says of a range's groups (`docs/GROUPS.md`, section 2): a fold of control entries.
//!
//! Every member of the range's chain has the same; snapshots have it (`docs/DATA_FILE.md`, section 13). It takes whatever
//! the log says. Absent: bounds and permissions, which are the coordinator's before it appends; who lives.

use std::collections::BTreeMap;

use super::{GroupName, InstanceName};
use crate::control::{ControlEntry, OwnerChange};
use crate::ids::*;
use crate::wire::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::wire::group::CommittedOffset;

/// Bytes of a snapshot that an owned partition takes.
const OWNED_BYTES: u64 = 12 + 8;
/// Bytes that an owner takes besides.
const OWNER_BYTES: u64 = 8 + 2 + 4 + 4;
/// Bytes that a commit takes besides its metadata.
const COMMIT_BYTES: u64 = 12 + 8 + 2;
/// Bytes that a group takes besides its name.
const GROUP_BYTES: u64 = 2 + 8 + 8 + 4 + 4;

/// The groups of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupTable {
    groups: BTreeMap<GroupName, GroupState>,
    bytes: u64,
}

/// One group, as the log has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    generation: GroupGeneration,
    changed: Timestamp,
    ownerships: BTreeMap<PartitionKey, Ownership>,
    owners: BTreeMap<MemberId, Owner>,
    commits: BTreeMap<PartitionKey, Commit>,
    bytes: u64,
}

/// Whose a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Whose.
    pub member: MemberId,
    /// Since this generation.
    pub since: GroupGeneration,
}

/// A member that owns something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its instance name, if it has one.
    pub instance: InstanceName,
    /// How long it may be silent.
    pub session_timeout_ms: u32,
    /// How many partitions it owns.
    partitions: usize,
}

/// Where a group goes on in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// What its committer said besides.
    pub metadata: Box<str>,
}

impl GroupTable {
    /// A group, if the log has it.
    pub fn get(&self, group: &GroupName) -> Option<&GroupState> {
        self.groups.get(group)
    }

    /// All groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupName, &GroupState)> {
        self.groups.iter()
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Bytes that they take in a snapshot.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Folds an entry in; one that is not about groups changes nothing. `appended`: when the head accepted it.
    pub fn apply(&mut self, entry: &ControlEntry, appended: Timestamp) {
        let Some(group) = entry.group() else { return };
        let before = self.groups.get(group).map_or(0, |state| state.bytes);
        match entry {
            ControlEntry::GroupOwners { group, generation, owners } => {
                self.change(group, appended, |state| state.apply_owners(*generation, owners));
            }
            ControlEntry::GroupCommit { group, offsets } => {
                self.change(group, appended, |state| state.apply_commits(offsets));
            }
            _ => drop(self.groups.remove(group)),
        }
        self.bytes = self.bytes - before + self.groups.get(group).map_or(0, |state| state.bytes);
    }

    fn change(&mut self, group: &GroupName, appended: Timestamp, change: impl FnOnce(&mut GroupState)) {
        let state = self.groups.entry(group.clone()).or_insert_with(|| GroupState::named(group));
        state.changed = appended;
        change(state);
    }
}

impl GroupState {
    fn named(group: &GroupName) -> Self {
        Self { bytes: GROUP_BYTES + group.as_str().len() as u64, ..Self::default() }
    }

    /// Counts the changes of ownership.
    pub const fn generation(&self) -> GroupGeneration {
        self.generation
    }

    /// When its last entry was accepted.
    pub const fn changed(&self) -> Timestamp {
        self.changed
    }

    /// Whose a partition is; none: nobody's.
    pub fn ownership(&self, partition: PartitionKey) -> Option<Ownership> {
        self.ownerships.get(&partition).copied()
    }

    /// Every owned partition, sorted.
    pub fn ownerships(&self) -> impl Iterator<Item = (PartitionKey, Ownership)> {
        self.ownerships.iter().map(|(partition, ownership)| (*partition, *ownership))
    }

    /// Every member that owns something, by id.
    pub fn owners(&self) -> impl Iterator<Item = (MemberId, &Owner)> {
        self.owners.iter().map(|(member, owner)| (*member, owner))
    }

    /// A member, if it owns something.
    pub fn owner(&self, member: MemberId) -> Option<&Owner> {
        self.owners.get(&member)
    }

    /// Where it goes on in a partition.
    pub fn commit(&self, partition: PartitionKey) -> Option<&Commit> {
        self.commits.get(&partition)
    }

    /// Every commit, by partition.
    pub fn commits(&self) -> impl Iterator<Item = (PartitionKey, &Commit)> {
        self.commits.iter().map(|(partition, commit)| (*partition, commit))
    }

    /// How many partitions have a commit.
    pub fn commit_count(&self) -> usize {
        self.commits.len()
    }

    fn apply_owners(&mut self, generation: GroupGeneration, changes: &[OwnerChange]) {
        self.generation = self.generation.max(generation);
        for change in changes {
            for partition in &change.partitions {
                self.release(*partition);
                if change.member != MemberId::NONE {
                    self.give(*partition, change, generation);
                }
            }
        }
    }

    fn release(&mut self, partition: PartitionKey) {
        let Some(Ownership { member, .. }) = self.ownerships.remove(&partition) else { return };
        self.bytes -= OWNED_BYTES;
        let Some(owner) = self.owners.get_mut(&member) else { return };
        owner.partitions -= 1;
        if owner.partitions == 0 {
            self.bytes -= OWNER_BYTES + owner.instance.as_str().len() as u64;
            self.owners.remove(&member);
        }
    }

    fn give(&mut self, partition: PartitionKey, change: &OwnerChange, since: GroupGeneration) {
        let member = change.member;
        self.ownerships.insert(partition, Ownership { member, since });
        let fresh = || Owner { instance: InstanceName::none(), session_timeout_ms: 0, partitions: 0 };
        let owner = self.owners.entry(member).or_insert_with(fresh);
        if owner.partitions > 0 {
            self.bytes -= OWNER_BYTES + owner.instance.as_str().len() as u64;
        }
        owner.partitions += 1;
        owner.instance = change.instance.clone();
        owner.session_timeout_ms = change.session_timeout_ms;
        self.bytes += OWNED_BYTES + OWNER_BYTES + owner.instance.as_str().len() as u64;
    }

    fn apply_commits(&mut self, offsets: &[CommittedOffset]) {
        for CommittedOffset { partition, offset, metadata } in offsets {
            let commit = Commit { offset: *offset, metadata: metadata.as_str().into() };
            self.bytes += COMMIT_BYTES + commit.metadata.len() as u64;
            if let Some(before) = self.commits.insert(*partition, commit) {
                self.bytes -= COMMIT_BYTES + before.metadata.len() as u64;
            }
        }
    }
}

wire_struct! {
    /// A partition in the list of its owner.
    OwnedRow {
        /// Which.
        partition: PartitionKey,
        /// Since when it is this owner's.
        since: GroupGeneration,
    }
}

wire_struct! {
    /// A member that owns something, in a snapshot.
    OwnerRow {
        /// Who.
        member: MemberId,
        /// Its instance name, if it has one.
        instance: InstanceName,
        /// How long it may be silent.
        session_timeout_ms: u32,
        /// What it owns; not empty.
        owned: Vec<OwnedRow>,
    }
}

wire_struct! {
    /// One group in a snapshot.
    GroupRow {
        /// Its name.
        group: GroupName,
        /// Its generation.
        generation: GroupGeneration,
        /// When its last entry was accepted.
        changed: Timestamp,
        /// Members that own something, by id.
        owners: Vec<OwnerRow>,
        /// Where it goes on.
        commits: Vec<CommittedOffset>,
    }
}

impl GroupRow {
    fn of(group: &GroupName, state: &GroupState) -> Self {
        let mut owned: BTreeMap<MemberId, Vec<OwnedRow>> = BTreeMap::new();
        for (partition, Ownership { member, since }) in state.ownerships() {
            owned.entry(member).or_default().push(OwnedRow { partition, since });
        }
        let owner = |(member, owner): (MemberId, &Owner)| OwnerRow {
            member,
            instance: owner.instance.clone(),
            session_timeout_ms: owner.session_timeout_ms,
            owned: owned.remove(&member).unwrap_or_default(),
        };
        let owners = state.owners().map(owner).collect();
        let commits = state.commits().map(|(partition, commit)| commit.to_committed(partition)).collect();
        Self { group: group.clone(), generation: state.generation, changed: state.changed, owners, commits }
    }

    fn into_state(self) -> Result<GroupState, DecodeError> {
        let mut state = GroupState { changed: self.changed, ..GroupState::named(&self.group) };
        state.generation = self.generation;
        for OwnerRow { member, instance, session_timeout_ms, owned } in self.owners {
            let is_listed = member == MemberId::NONE || owned.is_empty() || state.owners.contains_key(&member);
            let change = OwnerChange { member, instance, session_timeout_ms, partitions: Vec::new() };
            for OwnedRow { partition, since } in owned {
                if is_listed || state.ownerships.contains_key(&partition) {
                    return Err(DecodeError::Field { field: "owned partition" });
                }
                state.give(partition, &change, since);
            }
            if !state.owners.contains_key(&member) {
                return Err(DecodeError::Field { field: "partition owner" });
            }
        }
        state.apply_commits(&self.commits);
        Ok(state)
    }
}

impl Commit {
    /// With its partition.
    pub fn to_committed(&self, partition: PartitionKey) -> CommittedOffset {
        CommittedOffset { partition, offset: self.offset, metadata: self.metadata.to_string() }
    }
}

impl Wire for GroupTable {
    fn put(&self, out: &mut Vec<u8>) {
        (self.groups.len() as u32).put(out);
        self.groups.iter().for_each(|(group, state)| GroupRow::of(group, state).put(out));
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut table = Self::default();
        for _ in 0..reader.take::<u32>()? {
            let row: GroupRow = reader.take()?;
            let (group, state) = (row.group.clone(), row.into_state()?);
            table.bytes += state.bytes;
            if table.groups.insert(group, state).is_some() {
                return Err(DecodeError::Field { field: "group listed twice" });
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
