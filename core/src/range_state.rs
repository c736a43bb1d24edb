//! What a range log adds up to: its end, its partitions, its producers, its groups.
//!
//! A pure fold over entries. Recovery folds the snapshot of the last footer and the entries behind it; a head folds each
//! entry as it appends it. Equal logs give equal states and equal snapshots.

use std::collections::BTreeMap;

use crate::control::ControlEntry;
use crate::dedup::ProducerTable;
use crate::entry::{EntryHeader, EntryKind};
use crate::group::GroupTable;
use crate::ids::*;
use crate::topic::TopicConfig;
use crate::wire::codec::{DecodeError, Reader, Wire, wire_struct};

/// Version of a snapshot's form.
const SNAPSHOT_VERSION: u16 = 2;
/// The form of releases that knew no groups.
const SNAPSHOT_VERSION_WITHOUT_GROUPS: u16 = 1;

wire_struct! {
    /// A partition that is open in this range.
    PartitionState {
        /// Its topic's settings.
        config: TopicConfig,
        /// Their version.
        config_version: ConfigVersion,
        /// First offset that may be fetched here.
        log_start: Offset,
        /// Offset of the next record.
        next_offset: Offset,
        /// Where offsets below the first one here are, if anywhere.
        previous: Option<RangeKey>,
    }
}

/// The fold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeState {
    end: LogPoint,
    last_epoch: Epoch,
    last_append_timestamp: Timestamp,
    partitions: BTreeMap<PartitionKey, PartitionState>,
    producers: ProducerTable,
    groups: GroupTable,
}

impl RangeState {
    /// The end of the log.
    pub const fn end(&self) -> LogPoint {
        self.end
    }

    /// Epoch of the last entry; 0 for an empty log.
    pub const fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// When the last entry was accepted.
    pub const fn last_append_timestamp(&self) -> Timestamp {
        self.last_append_timestamp
    }

    /// A partition, if it is open here.
    pub fn partition(&self, key: PartitionKey) -> Option<&PartitionState> {
        self.partitions.get(&key)
    }

    /// Every open partition.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionKey, &PartitionState)> {
        self.partitions.iter().map(|(&key, state)| (key, state))
    }

    /// The producers.
    pub const fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// The groups.
    pub const fn groups(&self) -> &GroupTable {
        &self.groups
    }

    /// Whether a control entry would change nothing, because its effect is there already. What groups do counts as done only
    /// when it is appended: their coordinator says nothing twice.
    pub fn holds(&self, entry: &ControlEntry) -> bool {
        let partition = entry.partition().and_then(|partition| self.partition(partition));
        match entry {
            ControlEntry::PartitionOpen { .. } => partition.is_some(),
            ControlEntry::PartitionConfig { version, .. } => partition.is_none_or(|p| p.config_version >= *version),
            ControlEntry::PartitionDelete { .. } => partition.is_none(),
            ControlEntry::LogStart { log_start, .. } => partition.is_none_or(|p| p.log_start >= *log_start),
            ControlEntry::GroupOwners { .. } | ControlEntry::GroupCommit { .. } => false,
            ControlEntry::GroupDelete { group } => self.groups.get(group).is_none(),
        }
    }

    /// Folds the next entry in. `control` is the decoded body of a control entry, none for a batch.
    pub fn apply(&mut self, header: &EntryHeader, control: Option<&ControlEntry>) {
        debug_assert!(header.index > self.end.index, "entries are folded in order");
        debug_assert_eq!(control.is_some(), header.kind == EntryKind::Control, "control entries come with their body");
        self.end = LogPoint { index: header.index, hash: header.running_hash };
        self.last_epoch = header.epoch;
        self.last_append_timestamp = header.append_timestamp;
        match control {
            Some(control) => self.apply_control(control, header.append_timestamp),
            None => {
                if let Some(partition) = self.partitions.get_mut(&header.partition_key()) {
                    partition.next_offset = header.next_offset();
                }
                self.producers.apply(header);
            }
        }
    }

    /// Opens a partition that entries are about to name and whose opening is lost, so that they can be read. Only for a
    /// state that misses entries, and takes no new ones.
    pub fn open_unknown(&mut self, key: PartitionKey, start_offset: Offset) {
        self.partitions.entry(key).or_insert(PartitionState {
            config: TopicConfig::default(),
            config_version: ConfigVersion(0),
            log_start: start_offset,
            next_offset: start_offset,
            previous: None,
        });
    }

    /// Forgets who wrote what: a bug that tests plant (`DedupLostWithSegment`), never done otherwise.
    pub fn forget_producers(&mut self) {
        self.producers = ProducerTable::default();
    }

    /// Sets the end of a log whose last entries are lost.
    pub fn end_at(&mut self, end: LogPoint) {
        self.end = end;
    }

    fn apply_control(&mut self, control: &ControlEntry, appended: Timestamp) {
        match control {
            ControlEntry::PartitionOpen { partition, config, version, start_offset, previous } => {
                self.partitions.entry(*partition).or_insert(PartitionState {
                    config: *config,
                    config_version: *version,
                    log_start: *start_offset,
                    next_offset: *start_offset,
                    previous: *previous,
                });
            }
            ControlEntry::PartitionConfig { partition, config, version } => {
                if let Some(state) = self.partitions.get_mut(partition)
                    && state.config_version < *version
                {
                    (state.config, state.config_version) = (*config, *version);
                }
            }
            ControlEntry::PartitionDelete { partition } => {
                self.partitions.remove(partition);
                self.producers.forget_partition(*partition);
            }
            ControlEntry::LogStart { partition, log_start } => {
                if let Some(state) = self.partitions.get_mut(partition) {
                    state.log_start = state.log_start.max((*log_start).min(state.next_offset));
                }
            }
            ControlEntry::GroupOwners { .. } | ControlEntry::GroupCommit { .. } | ControlEntry::GroupDelete { .. } => {
                self.groups.apply(control, appended);
            }
        }
    }

    /// The state as bytes, for a footer (`docs/DATA_FILE.md`, section 13).
    pub fn snapshot(&self) -> Vec<u8> {
        self.to_bytes()
    }

    /// The state of a footer.
    pub fn restore(snapshot: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(snapshot)
    }
}

impl Wire for RangeState {
    fn put(&self, out: &mut Vec<u8>) {
        SNAPSHOT_VERSION.put(out);
        self.end.put(out);
        self.last_epoch.put(out);
        self.last_append_timestamp.put(out);
        (self.partitions.len() as u32).put(out);
        for (key, state) in &self.partitions {
            key.put(out);
            state.put(out);
        }
        self.producers.put(out);
        self.groups.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let has_groups = match reader.take::<u16>()? {
            SNAPSHOT_VERSION => true,
            SNAPSHOT_VERSION_WITHOUT_GROUPS => false,
            _ => return Err(DecodeError::Field { field: "snapshot version" }),
        };
        let (end, last_epoch, last_append_timestamp) = (reader.take()?, reader.take()?, reader.take()?);
        let mut partitions = BTreeMap::new();
        for _ in 0..reader.take::<u32>()? {
            partitions.insert(reader.take()?, reader.take()?);
        }
        let producers = reader.take()?;
        let groups = if has_groups { reader.take()? } else { GroupTable::default() };
        Ok(Self { end, last_epoch, last_append_timestamp, partitions, producers, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_a_release_without_groups_is_read() {
        let state = RangeState { last_epoch: Epoch(7), ..RangeState::default() };
        let mut old = state.snapshot();
        old[..2].copy_from_slice(&SNAPSHOT_VERSION_WITHOUT_GROUPS.to_le_bytes());
        old.truncate(old.len() - size_of::<u32>());
        assert_eq!(RangeState::restore(&old), Ok(state));
        old[0] = 3;
        assert_eq!(RangeState::restore(&old), Err(DecodeError::Field { field: "snapshot version" }));
    }
}
