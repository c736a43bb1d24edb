//! Giving back the space of dead entries: whole segments from the log's beginning, holes in the sealed ones behind.
//!
//! ```text
//!   sealed --nothing live, at the beginning, not the newest--> pool (or unlinked, when it has holes)
//!     \--dead run of 64 KiB and more--> sidecar written, renamed, synced --> known to readers --> punched
//! ```
//!
//! A footer is looked at again only when the log start of one of its partitions moved into or past it. Control entries are
//! in no extent, hence dead as soon as their segment is sealed: each later snapshot has their effect. Absent: deciding
//! what is dead. Members of a chain free space each for itself.

use std::rc::Rc;

use minikafka_core::limits::FREE_BY_ROLLING_BYTES_MIN;
use minikafka_core::{Offset, PartitionKey};

use super::recovery::log_error;
use super::state::{Inner, State};
use crate::disk::Disk;
use crate::error::{LogError, ReadError};
use crate::footer::Trailer;
use crate::freed_runs::FreedRuns;
use crate::index::{PartitionExtents, SegmentIndex};
use crate::segment::{Dying, LogSegment, SegmentFile};

mod gaps;
mod punching;

use gaps::Gap;

/// What one call gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Segment files that went to the pool or were unlinked.
    pub segments_dropped: u64,
    /// Their bytes, those punched before included.
    pub bytes_dropped: u64,
    /// Bytes of new holes in segments that stay.
    pub bytes_punched: u64,
    /// At least half of the active segment, and [`FREE_BY_ROLLING_BYTES_MIN`], is dead: after a roll, and once that is
    /// committed, it can be freed.
    pub should_roll: bool,
}

/// What a log takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogUsage {
    /// Entries as stored, live, or dead and not freed; those that a truncation left void count until their segment goes.
    pub entry_bytes: u64,
    /// Sizes of the segment files, holes included.
    pub file_bytes: u64,
    /// Bytes of the holes in them.
    pub freed_bytes: u64,
    /// Segment files, without the one prepared ahead.
    pub segments: u64,
}

/// How far a partition is dead, and up to where the sealed segments were marked accordingly.
pub(super) struct DeadTo {
    log_start: Option<Offset>,
    /// Segments numbered below have nothing more to give.
    segment: u64,
}

/// A sealed segment that is being looked at.
pub(super) struct Candidate<D: Disk> {
    file: Rc<SegmentFile<D>>,
    trailer: Trailer,
    freed: FreedRuns,
    index: Rc<SegmentIndex>,
}

/// Says that space is being freed, for as long as it lives; a call that is dropped half-way ends it, too.
pub(super) struct Freeing<'a, D: Disk>(&'a Inner<D>);

impl<D: Disk> Drop for Freeing<'_, D> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().freeing = false;
        self.0.changed.notify_all();
    }
}

type LogStarts<'a> = &'a dyn Fn(PartitionKey) -> Option<Offset>;

impl<D: Disk> Inner<D> {
    pub async fn free_space(&self, log_start_of: LogStarts<'_>) -> Result<Freed, LogError> {
        let mut freed = Freed::default();
        let Some(_freeing) = self.begin_freeing()? else { return Ok(freed) };
        self.mark_dying(log_start_of).await?;
        self.drop_dead(&mut freed).await?;
        let mut from = 0;
        loop {
            let Some(number) = self.state.borrow().next_dirty(from) else { break };
            match self.free_segment(number, log_start_of, &mut freed).await {
                Ok(()) => from = number + 1,
                Err(ReadError::Disk(error)) => return Err(error.into()),
                // What cannot be read stays; repair replaces it.
                Err(error) => {
                    from = number + 1;
                    tracing::warn!(range = %self.range, %error, "a segment cannot be freed");
                }
            }
        }
        let state = self.state.borrow();
        freed.should_roll = !state.stopped && state.should_roll(log_start_of);
        Ok(freed)
    }

    pub(super) fn begin_freeing(&self) -> Result<Option<Freeing<'_, D>>, LogError> {
        let mut state = self.state.borrow_mut();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.freeing || state.stopped {
            return Ok(None);
        }
        state.freeing = true;
        Ok(Some(Freeing(self)))
    }

    /// Ends the freeing of space for good.
    pub async fn stop_freeing(&self) {
        self.state.borrow_mut().stopped = true;
        self.changed.wait_for(|| (!self.state.borrow().freeing).then_some(())).await;
    }

    /// Marks the segments in which a partition's log start has moved since the last time.
    async fn mark_dying(&self, log_start_of: LogStarts<'_>) -> Result<(), LogError> {
        let moved: Vec<(PartitionKey, Option<Offset>, u64)> = {
            let state = self.state.borrow();
            let now = state.dead.iter().map(|(key, dead)| (*key, dead.log_start, log_start_of(*key), dead.segment));
            now.filter(|(_, before, now, _)| before != now).map(|(key, _, now, segment)| (key, now, segment)).collect()
        };
        for (key, log_start, from) in moved {
            let reached = self.mark_dead(key, log_start, from).await?;
            let mut state = self.state.borrow_mut();
            match log_start {
                Some(_) => drop(state.dead.insert(key, DeadTo { log_start, segment: reached })),
                None => drop(state.dead.remove(&key)),
            }
        }
        Ok(())
    }

    /// Marks the segments from number `from` on that have something of the partition below `log_start`; returns where
    /// to go on when the log start moves again.
    async fn mark_dead(&self, key: PartitionKey, log_start: Option<Offset>, from: u64) -> Result<u64, LogError> {
        let mut reached = from;
        let sealed = self.state.borrow().sealed_numbers(from);
        for number in sealed {
            let ends = |partition: &PartitionExtents| (partition.first_offset(), partition.end_offset);
            let ends = match self.look(number, key, ends).await {
                Ok(Some(ends)) => ends,
                Ok(None) | Err(ReadError::Damaged(_)) => continue,
                Err(error) => return Err(log_error(error)),
            };
            reached = number;
            if log_start.is_some_and(|log_start| log_start <= ends.0) {
                return Ok(reached);
            }
            self.set_dirty(number);
            if log_start.is_some_and(|log_start| log_start < ends.1) {
                return Ok(reached);
            }
        }
        Ok(reached)
    }

    /// Looks at a sealed segment: drops it, punches what is dead in it, or leaves it.
    async fn free_segment(&self, number: u64, log_start_of: LogStarts<'_>, freed: &mut Freed) -> Result<(), ReadError> {
        let found = {
            let mut state = self.state.borrow_mut();
            let segment = state.segment_mut(number);
            segment.and_then(|segment| {
                let file = segment.file.clone();
                let sealed = segment.sealed_mut()?;
                sealed.is_dirty = false;
                Some((file, sealed.trailer, sealed.freed.clone()))
            })
        };
        let Some((file, trailer, runs)) = found else { return Ok(()) };
        let index = self.load_index(&file, &trailer).await?;
        let candidate = Candidate { file, trailer, freed: runs, index };
        // The caller's function is not called while the state is borrowed: it may ask the log.
        let live = gaps::live(&candidate.index, log_start_of);
        let starts = candidate.index.partitions().filter_map(|(key, _)| Some((*key, log_start_of(*key)?)));
        let starts: Vec<(PartitionKey, Offset)> = starts.collect();
        let gaps = {
            let mut state = self.state.borrow_mut();
            state.note_partitions(number, starts);
            if let Some(sealed) = state.segment_mut(number).and_then(LogSegment::sealed_mut) {
                sealed.is_dead = live.is_empty();
            }
            gaps::between(&candidate.index, &trailer, &live)
        };
        let can_drop = self.state.borrow().droppable();
        let patient = !can_drop && self.should_wait(number, &gaps, live.is_empty());
        let done = if patient {
            self.set_dirty(number);
            Ok(())
        } else if can_drop {
            // Whoever drops a file waits for all who hold it. If this one stays after all, it is looked at again.
            drop(candidate);
            self.set_dirty(number);
            self.drop_dead(freed).await
        } else {
            self.punch(&candidate, gaps, freed).await
        };
        if done.is_err() {
            self.set_dirty(number);
        }
        done.map_err(|error| match error {
            LogError::Disk(error) => ReadError::Disk(error),
            other => unreachable!("giving space back fails by the disk alone, not by {other}"),
        })
    }

    /// Whether holes would come too early: a segment that is dying goes back to the pool whole, if it is left alone until it
    /// is dead, and punched files never do.
    fn should_wait(&self, number: u64, gaps: &[Gap], is_dead: bool) -> bool {
        let patience_ms = self.storage.config.punch_patience_ms;
        let dead_bytes = gaps.iter().map(|gap| gap.end - gap.position).sum();
        let mut state = self.state.borrow_mut();
        let (end, now) = (state.end.index, state.last_timestamp);
        let needs_space = state.waits_for_space();
        let Some(sealed) = state.segment_mut(number).and_then(LogSegment::sealed_mut) else { return false };
        let since = sealed.dying.as_ref().map_or(now, |dying| dying.since);
        let before = sealed.dying.replace(Dying { dead_bytes, end, since });
        if patience_ms == 0 || needs_space {
            return false;
        }
        // One that is dead altogether waits for the next footer, which comes as long as the log grows.
        let goes_on = before.is_none_or(|before| before.dead_bytes != dead_bytes || (is_dead && before.end != end));
        goes_on && now.0.saturating_sub(since.0) < patience_ms
    }

    fn set_dirty(&self, number: u64) {
        if let Some(sealed) = self.state.borrow_mut().segment_mut(number).and_then(LogSegment::sealed_mut) {
            sealed.is_dirty = true;
        }
    }

    /// Gives the dead segments at the log's beginning back, oldest first.
    async fn drop_dead(&self, freed: &mut Freed) -> Result<(), LogError> {
        loop {
            let dropped = {
                let mut state = self.state.borrow_mut();
                if state.droppable() && !state.stopped { state.segments.pop_front() } else { None }
            };
            let Some(segment) = dropped else { return Ok(()) };
            let bytes = segment.file_bytes();
            self.give_back(segment.file).await?;
            freed.bytes_dropped += bytes;
            freed.segments_dropped += 1;
        }
    }
}

impl<D: Disk> State<D> {
    pub fn usage(&self) -> LogUsage {
        let mut usage = LogUsage { segments: self.segments.len() as u64, ..LogUsage::default() };
        for segment in &self.segments {
            usage.file_bytes += segment.file_bytes();
            usage.entry_bytes += segment.unsealed().map_or(0, |unsealed| unsealed.index.entry_bytes());
            if let Some(sealed) = segment.sealed() {
                usage.entry_bytes += sealed.entry_bytes;
                usage.freed_bytes += sealed.freed.hole_bytes();
            }
        }
        usage
    }

    /// Whether the oldest segment is dead and a later one has a footer, where the state begins.
    fn droppable(&self) -> bool {
        let mut sealed = self.segments.iter().map(LogSegment::sealed);
        let is_dead = sealed.next().flatten().is_some_and(|oldest| oldest.is_dead);
        is_dead && sealed.any(|later| later.is_some())
    }

    /// The numbers of sealed segments from `from` on.
    fn sealed_numbers(&self, from: u64) -> Vec<u64> {
        let at = self.segments.partition_point(|segment| segment.number() < from);
        let sealed = self.segments.range(at..).filter(|segment| segment.sealed().is_some());
        sealed.map(LogSegment::number).collect()
    }

    /// Whether the log cannot go on for want of a segment.
    fn waits_for_space(&self) -> bool {
        let next = self.next.as_ref().is_some_and(|next| next.waits_for_space());
        next || self.active().is_some_and(|active| active.file.waits_for_space())
    }

    fn next_dirty(&self, from: u64) -> Option<u64> {
        if self.stopped {
            return None;
        }
        let at = self.segments.partition_point(|segment| segment.number() < from);
        let mut later = self.segments.range(at..);
        let is_dirty = |segment: &&LogSegment<D>| segment.sealed().is_some_and(|sealed| sealed.is_dirty);
        later.find(is_dirty).map(LogSegment::number)
    }

    /// Begins to watch the partitions of a segment, with their log starts of now, unless they are watched.
    fn note_partitions(&mut self, number: u64, starts: Vec<(PartitionKey, Offset)>) {
        for (key, log_start) in starts {
            self.dead.entry(key).or_insert(DeadTo { log_start: Some(log_start), segment: number });
        }
    }

    /// Whether so much of the active segment is dead that it should end.
    fn should_roll(&self, log_start_of: LogStarts<'_>) -> bool {
        let Some(unsealed) = self.active().and_then(LogSegment::unsealed) else { return false };
        if unsealed.write_position < FREE_BY_ROLLING_BYTES_MIN {
            return false;
        }
        let dead = |(key, partition): (&PartitionKey, &PartitionExtents)| {
            let count = partition.dead_extents(log_start_of(*key));
            partition.extents[..count].iter().map(|extent| u64::from(extent.own_bytes)).sum::<u64>()
        };
        let dead_bytes: u64 = unsealed.index.partitions().map(dead).sum();
        dead_bytes >= FREE_BY_ROLLING_BYTES_MIN && dead_bytes * 2 >= unsealed.write_position
    }
}
