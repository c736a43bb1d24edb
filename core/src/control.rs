//! Control entries: what changes a range besides records (`docs/DATA_FILE.md`, section 3).
//!
//! They go through the same log as batches, so every member agrees on them, and recovery replays them.

use crate::ids::*;
use crate::topic::TopicConfig;
use crate::wire::codec::{DecodeError, Reader, Wire};

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
}

impl ControlEntry {
    /// The partition concerned.
    pub const fn partition(&self) -> PartitionKey {
        match self {
            Self::PartitionOpen { partition, .. }
            | Self::PartitionConfig { partition, .. }
            | Self::PartitionDelete { partition }
            | Self::LogStart { partition, .. } => *partition,
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
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind: u16 = reader.take()?;
        let partition = reader.take()?;
        Ok(match kind {
            1 => Self::PartitionOpen {
                partition,
                config: reader.take()?,
                version: reader.take()?,
                start_offset: reader.take()?,
                previous: reader.take()?,
            },
            2 => Self::PartitionConfig { partition, config: reader.take()?, version: reader.take()? },
            3 => Self::PartitionDelete { partition },
            4 => Self::LogStart { partition, log_start: reader.take()? },
            _ => return Err(DecodeError::Field { field: "control kind" }),
        })
    }
}
