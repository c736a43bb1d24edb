//! Which segment holds what: the search through sealed segments, whose indexes are in their footers.
//!
//! A partition's offsets grow with the segments, so a few probes find any of them. A probe loads a footer through the
//! shard's cache; filters in memory spare the segments that do not have the partition at all.

use minikafka_core::{LogIndex, Offset, PartitionKey};

use super::runs::Wanted;
use super::state::Inner;
use crate::disk::Disk;
use crate::error::ReadError;
use crate::index::PartitionExtents;
use crate::segment::Contents;

impl<D: Disk> Inner<D> {
    /// The number of the segment in which to begin to look for entries above `after`.
    pub async fn first_segment(&self, wanted: Wanted, after: LogIndex) -> Result<Option<u64>, ReadError> {
        let above = {
            let state = self.state.borrow();
            let at = state.segments.partition_point(|segment| segment.end.index <= after);
            state.segments.get(at).map(|segment| segment.number())
        };
        match wanted {
            // Who knows an index has read up to it: going on from there finds the next one soonest.
            Wanted::Partition(partition, from) if after == LogIndex(0) => self.segment_of(partition, from).await,
            _ => Ok(above),
        }
    }

    /// The segment that holds `from`, or else the first one with a later offset of the partition.
    async fn segment_of(&self, partition: PartitionKey, from: Offset) -> Result<Option<u64>, ReadError> {
        let mut candidates = self.segments_with(partition);
        let (mut at_or_below, mut above): (Option<u64>, Option<u64>) = (None, None);
        // Most readers are near the end: it is asked first.
        let mut at = candidates.len().saturating_sub(1);
        while let Some(number) = candidates.get(at).copied() {
            match self.look(number, partition, PartitionExtents::first_offset).await {
                Ok(None) => drop(candidates.remove(at)),
                Ok(Some(first)) if first <= from => {
                    at_or_below = Some(number);
                    candidates.drain(..=at);
                }
                Ok(Some(_)) => {
                    above = Some(above.map_or(number, |known| known.min(number)));
                    candidates.truncate(at);
                }
                // What is wanted may be in it: then whoever reads on from here meets the damage.
                Err(ReadError::Damaged(_)) => {
                    above = Some(above.map_or(number, |known| known.min(number)));
                    candidates.remove(at);
                }
                Err(error) => return Err(error),
            }
            at = candidates.len() / 2;
        }
        Ok(at_or_below.or(above))
    }

    /// The segments that may have the partition, oldest first.
    pub fn segments_with(&self, partition: PartitionKey) -> Vec<u64> {
        let state = self.state.borrow();
        let with = state.segments.iter().filter(|segment| match &segment.contents {
            Contents::Sealed(sealed) => sealed.filter.may_contain(partition),
            Contents::Unsealed(unsealed) => unsealed.index.partition(partition).is_some(),
        });
        with.map(|segment| segment.number()).collect()
    }

    /// What `look` sees in the extents that a partition has in a segment; `None`: there are none, or no such segment.
    pub async fn look<T>(
        &self,
        number: u64,
        partition: PartitionKey,
        look: impl FnOnce(&PartitionExtents) -> T,
    ) -> Result<Option<T>, ReadError> {
        let (file, trailer) = {
            let state = self.state.borrow();
            let Some(segment) = state.segment(number) else { return Ok(None) };
            match &segment.contents {
                Contents::Unsealed(unsealed) => return Ok(unsealed.index.partition(partition).map(look)),
                Contents::Sealed(sealed) if !sealed.filter.may_contain(partition) => return Ok(None),
                Contents::Sealed(sealed) => (segment.file.clone(), sealed.trailer),
            }
        };
        let index = self.load_index(&file, &trailer).await?;
        Ok(index.partition(partition).map(look))
    }
}
