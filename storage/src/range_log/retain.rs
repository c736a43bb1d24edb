//! What retention may delete of a partition: by time and by bytes, from the indexes alone.

use minikafka_core::{Offset, PartitionKey, Timestamp};

use super::state::Inner;
use crate::disk::Disk;
use crate::error::ReadError;
use crate::index::PartitionExtents;

/// What of a partition may be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Entries that were appended before this.
    pub delete_before: Option<Timestamp>,
    /// Entries beyond the newest of this many bytes (as stored, headers and padding included).
    pub bytes_max: Option<u64>,
}

impl<D: Disk> Inner<D> {
    pub async fn retention_start(
        &self,
        partition: PartitionKey,
        log_start: Offset,
        up_to: Offset,
        policy: RetentionPolicy,
    ) -> Result<Option<Offset>, ReadError> {
        if log_start >= up_to {
            return Ok(None);
        }
        let mut start = log_start;
        if let Some(time) = policy.delete_before {
            start = start.max(self.start_by_time(partition, time).await?.unwrap_or(up_to));
        }
        if let Some(bytes_max) = policy.bytes_max {
            start = start.max(self.start_by_bytes(partition, log_start, up_to, bytes_max).await?);
        }
        let start = start.min(up_to);
        Ok((start > log_start).then_some(start))
    }

    /// First offset in the first flush, of those that may have entries appended at `time` or later, that has the
    /// partition; `None`: it has nothing there.
    async fn start_by_time(&self, partition: PartitionKey, time: Timestamp) -> Result<Option<Offset>, ReadError> {
        let Some(after) = self.index_before_time(time).await? else { return Ok(None) };
        let first_above = |partition: &PartitionExtents| {
            let at = partition.extents.partition_point(|extent| extent.first_index <= after);
            partition.extents.get(at).map(|extent| extent.first_offset)
        };
        for number in self.segments_with(partition) {
            let is_older = self.state.borrow().segment(number).is_none_or(|segment| segment.end.index <= after);
            if !is_older && let Some(Some(offset)) = self.look(number, partition, first_above).await? {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// First offset of the newest extents below `up_to` that make `bytes_max` bytes; `log_start` when all do not.
    async fn start_by_bytes(
        &self,
        partition: PartitionKey,
        log_start: Offset,
        up_to: Offset,
        bytes_max: u64,
    ) -> Result<Offset, ReadError> {
        if self.state.borrow().usage().entry_bytes <= bytes_max {
            return Ok(log_start);
        }
        let mut kept = 0;
        let mut count = |partition: &PartitionExtents| {
            for (at, extent) in partition.extents.iter().enumerate().rev() {
                let end = partition.end_of(at);
                if end > up_to {
                    // Some of it may be uncommitted, hence go away: it is kept and not counted.
                    continue;
                }
                if kept >= bytes_max || end <= log_start {
                    return Some(end.max(log_start));
                }
                kept += u64::from(extent.own_bytes);
            }
            None
        };
        for number in self.segments_with(partition).into_iter().rev() {
            if let Some(Some(start)) = self.look(number, partition, &mut count).await? {
                return Ok(start);
            }
        }
        Ok(log_start)
    }
}
