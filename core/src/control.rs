//! Control entries: what changes a range besides records (`docs/DATA_FILE.md`, section 3).
//!
//! They go through the same log as batches, so every member agrees on them, and recovery replays them.

use crate::group::{GroupName, InstanceName};
use crate::ids::*;
use crate::topic::TopicConfig;
use crate::wire::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::wire::group::CommittedOffset;

wire_struct! {
    /// What a member of a group owns from now on, besides what it owns already.
    OwnerChange {
        /// Who; 0: nobody.
        member: MemberId,
        /// Its instance name, if it has one.
        instance: InstanceName,
        /// How long it may be silent.
        session_timeout_ms: u32,
        /// What.
        partitions: Vec<PartitionKey>,
    }
}

/// The body of an entry of kind control. Each is idempotent: applied twice, it is as applied once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEntry {
    /// Opens a partition in this range.
    PartitionOpen {
        /// Which.
        partition: PartitionKey,
        /// Its topic's settings.
        config: TopicConfig,
        /// Their version.
        version: ConfigVersion,
        /// Offset of the first record it will hold here.
        start_offset: Offset,
        /// Where older offsets are, if anywhere.
        previous: Option<RangeKey>,
    },
    /// Changes the settings, unless they are of this version or a newer one already.
    PartitionConfig {
        /// Which.
        partition: PartitionKey,
        /// The new settings.
        config: TopicConfig,
        /// Their version.
        version: ConfigVersion,
    },
    /// Deletes a partition and all its records.
    PartitionDelete {
        /// Which.
        partition: PartitionKey,
    },
    /// Records below `log_start` are gone.
    LogStart {
        /// Which.
        partition: PartitionKey,
        /// First offset that is still there.
        log_start: Offset,
    },
    /// Partitions of a group have other owners.
    GroupOwners {
        /// Which group.
        group: GroupName,
        /// Its generation with this change.
        generation: GroupGeneration,
        /// Who owns what; in order, should they contradict each other.
        owners: Vec<OwnerChange>,
    },
    /// A group goes on elsewhere.
    GroupCommit {
        /// Which group.
        group: GroupName,
        /// Where.
        offsets: Vec<CommittedOffset>,
    },
    /// Deletes a group.
    GroupDelete {
        /// Which.
        group: GroupName,
    },
}

impl ControlEntry {
    /// The partition of this range that is concerned; none: a group is, whose partitions may lie anywhere.
    pub const fn partition(&self) -> Option<PartitionKey> {
        match self {
            Self::PartitionOpen { partition, .. }
            | Self::PartitionConfig { partition, .. }
            | Self::PartitionDelete { partition }
            | Self::LogStart { partition, .. } => Some(*partition),
            Self::GroupOwners { .. } | Self::GroupCommit { .. } | Self::GroupDelete { .. } => None,
        }
    }

    /// The group that is concerned, if one is.
    pub const fn group(&self) -> Option<&GroupName> {
        match self {
            Self::GroupOwners { group, .. } | Self::GroupCommit { group, .. } | Self::GroupDelete { group } => {
                Some(group)
            }
            _ => None,
        }
    }
}

impl Wire for ControlEntry {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::PartitionOpen { partition, config, version, start_offset, previous } => {
                1u16.put(out);
                partition.put(out);
                config.put(out);
                version.put(out);
                start_offset.put(out);
                previous.put(out);
            }
            Self::PartitionConfig { partition, config, version } => {
                2u16.put(out);
                partition.put(out);
                config.put(out);
                version.put(out);
            }
            Self::PartitionDelete { partition } => {
                3u16.put(out);
                partition.put(out);
            }
            Self::LogStart { partition, log_start } => {
                4u16.put(out);
                partition.put(out);
                log_start.put(out);
            }
            Self::GroupOwners { group, generation, owners } => {
                5u16.put(out);
                group.put(out);
                generation.put(out);
                owners.put(out);
            }
            Self::GroupCommit { group, offsets } => {
                6u16.put(out);
                group.put(out);
                offsets.put(out);
            }
            Self::GroupDelete { group } => {
                7u16.put(out);
                group.put(out);
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind: u16 = reader.take()?;
        Ok(match kind {
            1 => Self::PartitionOpen {
                partition: reader.take()?,
                config: reader.take()?,
                version: reader.take()?,
                start_offset: reader.take()?,
                previous: reader.take()?,
            },
            2 => Self::PartitionConfig { partition: reader.take()?, config: reader.take()?, version: reader.take()? },
            3 => Self::PartitionDelete { partition: reader.take()? },
            4 => Self::LogStart { partition: reader.take()?, log_start: reader.take()? },
            5 => Self::GroupOwners { group: reader.take()?, generation: reader.take()?, owners: reader.take()? },
            6 => Self::GroupCommit { group: reader.take()?, offsets: reader.take()? },
            7 => Self::GroupDelete { group: reader.take()? },
            _ => return Err(DecodeError::Field { field: "control kind" }),
        })
    }
}
