//! What truncations cut in two: the last extents of some partitions, read again to know where they end.
//!
//! An index knows extents, not entries. Where a cut goes through one, the partition's end and the extent's bytes are
//! bounds until its entries were walked; unknown, they would keep a dead segment for ever.

use minikafka_core::entry::EntryKind;
use minikafka_core::{Offset, PartitionKey};

use super::recovery::log_error;
use super::state::Inner;
use crate::disk::Disk;
use crate::error::LogError;
use crate::index::Extent;
use crate::segment::LogSegment;

impl<D: Disk> Inner<D> {
    /// Reads again what truncations cut in two, to know where its partitions end.
    pub async fn settle_cut_extents(&self) -> Result<(), LogError> {
        let cut: Vec<(u64, PartitionKey, Extent)> = {
            let state = self.state.borrow();
            let unsealed = state.segments.iter().filter_map(|segment| Some((segment.number(), segment.unsealed()?)));
            let cut = unsealed.map(|(number, unsealed)| (number, unsealed.index.cut_extents()));
            cut.flat_map(|(number, cut)| cut.into_iter().map(move |(key, extent)| (number, key, extent))).collect()
        };
        for (number, key, extent) in cut {
            let Some((end_offset, own_bytes)) = self.read_cut_extent(number, key, &extent).await? else { continue };
            let mut state = self.state.borrow_mut();
            if let Some(unsealed) = state.segment_mut(number).and_then(LogSegment::unsealed_mut) {
                unsealed.index.settle(key, end_offset, own_bytes);
            }
        }
        Ok(())
    }

    /// The end and the bytes of a partition's live entries in an extent; `None` when they cannot be read.
    async fn read_cut_extent(
        &self,
        number: u64,
        key: PartitionKey,
        extent: &Extent,
    ) -> Result<Option<(Offset, u32)>, LogError> {
        let run = {
            let state = self.state.borrow();
            state.segment(number).map(|segment| state.run_of(&segment.file, extent))
        };
        let Some(run) = run else { return Ok(None) };
        let mut found = None;
        for fetched in self.fetch(vec![run]).await.map_err(log_error)? {
            let walked = self.walk(&fetched, |entry, _| {
                if entry.header.kind == EntryKind::Batch && entry.header.partition_key() == key {
                    let bytes = found.map_or(0, |(_, bytes)| bytes) + entry.header.entry_bytes() as u32;
                    found = Some((entry.header.next_offset(), bytes));
                }
                Ok(false)
            });
            if walked.is_err() {
                return Ok(None);
            }
        }
        Ok(found)
    }
}
