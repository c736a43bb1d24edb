//! What is dead between what is live in one segment: pure arithmetic on its index.

use minikafka_core::{LogIndex, Offset, PartitionKey};

use crate::flush::FLUSH_HEADER_BYTES;
use crate::footer::Trailer;
use crate::freed_runs::{self, FreedRuns};
use crate::index::{Extent, SegmentIndex};

/// A stretch of extents of which some entry is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub position: u64,
    pub end: u64,
    pub first_index: LogIndex,
    pub last_index: LogIndex,
}

/// All dead entries between two live stretches, and the bytes from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub position: u64,
    pub end: u64,
    pub first_index: LogIndex,
    pub last_index: LogIndex,
}

impl Gap {
    /// The whole blocks in it: position and length.
    pub const fn hole(&self) -> (u64, u64) {
        freed_runs::hole(self.position, self.end)
    }
}

/// The live stretches, in order; extents that overlap or touch are one.
pub(super) fn live(index: &SegmentIndex, log_start_of: &dyn Fn(PartitionKey) -> Option<Offset>) -> Vec<Live> {
    let mut extents: Vec<&Extent> = Vec::new();
    for (key, partition) in index.partitions() {
        extents.extend(&partition.extents[partition.dead_extents(log_start_of(*key))..]);
    }
    extents.sort_unstable_by_key(|extent| extent.position);
    let mut live: Vec<Live> = Vec::new();
    for extent in extents {
        let end = extent.position + u64::from(extent.bytes);
        match live.last_mut().filter(|last| extent.position <= last.end) {
            Some(last) => {
                last.end = last.end.max(end);
                last.last_index = last.last_index.max(extent.last_index);
            }
            None => {
                let (first_index, last_index) = (extent.first_index, extent.last_index);
                live.push(Live { position: extent.position, end, first_index, last_index });
            }
        }
    }
    live
}

/// The gaps before, between and behind live stretches that have entries.
pub(super) fn between(index: &SegmentIndex, trailer: &Trailer, live: &[Live]) -> Vec<Gap> {
    let mut gaps = Vec::with_capacity(live.len() + 1);
    let (mut position, mut first_index) = (0, trailer.start.index.next());
    for next in live {
        let is_first = |flush: &&crate::index::FlushSpan| flush.position == next.position;
        // A live entry keeps the flush header before it, as far as that helps who reads the file without its footer.
        let has_header = index.flushes_from(next.first_index).first().filter(is_first).is_some();
        let header = if has_header { FLUSH_HEADER_BYTES as u64 } else { 0 };
        let last_index = LogIndex(next.first_index.0 - 1);
        gaps.push(Gap { position, end: next.position - header, first_index, last_index });
        (position, first_index) = (next.end, next.last_index.next());
    }
    gaps.push(Gap { position, end: trailer.footer_position, first_index, last_index: trailer.end.index });
    gaps.retain(|gap| gap.first_index <= gap.last_index && gap.position < gap.end);
    gaps
}

/// The gaps that would add enough to the holes that are there; anything, when the whole segment is one gap.
pub(super) fn worth_punching(gaps: Vec<Gap>, freed: &FreedRuns, trailer: &Trailer, bytes_min: u64) -> Vec<Gap> {
    let is_worth = |gap: &Gap| {
        let is_whole = gap.first_index == trailer.start.index.next() && gap.last_index == trailer.end.index;
        let touches = |run: &&freed_runs::FreedBytes| run.end() > gap.position && run.position < gap.end;
        let inside = |run: &freed_runs::FreedBytes| run.position >= gap.position && run.end() <= gap.end;
        let old_bytes: u64 = freed.iter().filter(touches).map(|run| run.hole().1).sum();
        // What was freed is dead for good, so a run that sticks out would be a log start that went back.
        let is_consistent = freed.iter().filter(touches).all(inside);
        let new_bytes = gap.hole().1.saturating_sub(old_bytes);
        is_consistent && (new_bytes >= bytes_min || (is_whole && new_bytes > 0))
    };
    gaps.into_iter().filter(is_worth).collect()
}

#[cfg(test)]
mod tests;
