//! What an open log knows. No method here waits, so the state is never borrowed across an await.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::{Epoch, Generation, LogIndex, LogPoint, PartitionKey, RangeKey, Timestamp};

use super::append::{ClosedFlush, FlushInFlight, OpenFlush, Turn};
use super::freeing::DeadTo;
use crate::disk::{Disk, SharedBytes};
use crate::error::{Damage, DamageKind, DiskResult, LogError};
use crate::freed_runs::{FreedRun, FreedRuns};
use crate::recent::RecentSlot;
use crate::segment::{LogSegment, SegmentFile, SegmentName};
use crate::shard_storage::ShardStorage;
use crate::wait::{FifoGate, Notify};

/// How long a segment that found no space waits before it tries again.
pub(super) const SPACE_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Damage remembered and logged per range: a disk that dies must not fill memory and logs, too.
const DAMAGE_MAX: usize = 10_000;

/// A log's shared innards: its tasks hold them, too.
pub(super) struct Inner<D: Disk> {
    pub storage: Rc<ShardStorage<D>>,
    pub range: RangeKey,
    pub dir: PathBuf,
    pub state: RefCell<State<D>>,
    /// Something that tasks wait for has changed: durability, failure, flushes in flight, sealing.
    pub changed: Notify,
    /// Those who wait for room in the backlog.
    pub space: FifoGate,
    pub listener: RefCell<Option<Rc<dyn Fn()>>>,
}

pub(super) struct State<D: Disk> {
    /// In order; the last one, when unsealed and not rolled, is the active one.
    pub segments: VecDeque<LogSegment<D>>,
    /// Prepared ahead for the next roll.
    pub next: Option<Rc<SegmentFile<D>>>,
    pub last_segment_number: u64,
    pub end: LogPoint,
    pub last_epoch: Epoch,
    pub last_timestamp: Timestamp,
    pub marker: Epoch,
    /// The flush being filled.
    pub open: Option<OpenFlush<D>>,
    /// What the last flush that had to wait came to: room for as much is made for the next one.
    pub gathered_bytes: usize,
    /// Whether the open flush waits for its turn among those of other logs.
    pub turn: Turn,
    /// Closed flushes that no task has taken yet.
    pub to_start: Vec<ClosedFlush<D>>,
    /// Segments whose files no task prepares yet.
    pub to_prepare: Vec<Rc<SegmentFile<D>>>,
    /// In order of number; completions come in any order.
    pub in_flight: VecDeque<FlushInFlight<D>>,
    pub last_flush_number: u64,
    pub durable_flush_number: u64,
    pub durable: LogIndex,
    /// The highest `durable_index` in a durable flush header: below it, damage is known to be rot.
    pub covered: LogIndex,
    pub backlog_bytes: u64,
    pub committed: LogIndex,
    pub snapshot_bytes: usize,
    pub recent: VecDeque<RecentFlush>,
    /// A footer is being written.
    pub sealing: bool,
    /// Space is being freed.
    pub freeing: bool,
    /// How far each partition that sealed segments have is dead, as far as that was looked at.
    pub dead: BTreeMap<PartitionKey, DeadTo>,
    /// No appends: a truncation is under way, or the log is closed.
    pub stopped: bool,
    pub failure: Option<LogError>,
    pub damage: Vec<Damage>,
    /// Entries that recovery could not find: they are in no index.
    pub lost: Vec<Damage>,
    /// The first of them without which the range's state is not known: nothing is appended, truncated or sealed.
    pub loss: Option<Damage>,
}

/// A flush that may still be in memory.
pub(super) struct RecentFlush {
    pub segment: u64,
    pub position: u64,
    pub bytes: u64,
    pub slot: Rc<RecentSlot>,
}

impl<D: Disk> State<D> {
    /// A log without anything in it.
    pub fn empty() -> Self {
        Self {
            segments: VecDeque::new(),
            next: None,
            last_segment_number: 0,
            end: LogPoint::START,
            last_epoch: Epoch(0),
            last_timestamp: Timestamp(0),
            marker: Epoch(0),
            open: None,
            gathered_bytes: 0,
            turn: Turn::Free,
            to_start: Vec::new(),
            to_prepare: Vec::new(),
            in_flight: VecDeque::new(),
            last_flush_number: 0,
            durable_flush_number: 0,
            durable: LogIndex(0),
            covered: LogIndex(0),
            backlog_bytes: 0,
            committed: LogIndex(0),
            snapshot_bytes: 0,
            recent: VecDeque::new(),
            sealing: false,
            freeing: false,
            dead: BTreeMap::new(),
            stopped: false,
            failure: None,
            damage: Vec::new(),
            lost: Vec::new(),
            loss: None,
        }
    }

    /// The segment that takes appends, if there is one.
    pub fn active(&self) -> Option<&LogSegment<D>> {
        self.segments.back().filter(|segment| segment.unsealed().is_some_and(|unsealed| !unsealed.rolled))
    }

    /// The segment that takes appends, if there is one.
    pub fn active_mut(&mut self) -> Option<&mut LogSegment<D>> {
        self.segments.back_mut().filter(|segment| segment.unsealed().is_some_and(|unsealed| !unsealed.rolled))
    }

    /// First index this log still has.
    pub fn first_index(&self) -> LogIndex {
        self.segments.front().map_or(self.end.index, |segment| segment.start.index).next()
    }

    /// End of the newest sealed segment: nothing below is ever truncated.
    pub fn sealed_end(&self) -> LogPoint {
        let sealed = self.segments.iter().rev().find(|segment| segment.sealed().is_some());
        sealed.map_or(LogPoint::START, |segment| segment.end)
    }

    /// The segment with this number.
    pub fn segment(&self, number: u64) -> Option<&LogSegment<D>> {
        let at = self.segments.partition_point(|segment| segment.number() < number);
        self.segments.get(at).filter(|segment| segment.number() == number)
    }

    /// The segment with this number.
    pub fn segment_mut(&mut self, number: u64) -> Option<&mut LogSegment<D>> {
        let at = self.segments.partition_point(|segment| segment.number() < number);
        self.segments.get_mut(at).filter(|segment| segment.number() == number)
    }

    /// What was freed of a segment.
    pub fn freed_of(&self, number: u64) -> FreedRuns {
        let sealed = self.segment(number).and_then(LogSegment::sealed);
        sealed.map_or_else(FreedRuns::default, |sealed| sealed.freed.clone())
    }

    /// The freed run that contains `index`, or the first one above it.
    pub fn freed_at_or_above(&self, index: LogIndex) -> Option<FreedRun> {
        let at = self.segments.partition_point(|segment| segment.end.index < index);
        let mut sealed = self.segments.range(at..).filter_map(LogSegment::sealed);
        sealed.find_map(|sealed| sealed.freed.at_or_above(index)).map(|freed| freed.run)
    }

    /// The bytes of a flush (header included) that lie in memory, and where it starts.
    pub fn in_memory(&self, segment: u64, position: u64, bytes: u64) -> Option<(u64, SharedBytes)> {
        let contains = |start: u64, length: u64| start <= position && position + bytes <= start + length;
        let in_flight = self
            .in_flight
            .iter()
            .find(|flush| flush.segment == segment && contains(flush.position, flush.padded_bytes()));
        if let Some(flush) = in_flight {
            return Some((flush.position, flush.buffer.clone()));
        }
        let at = self.recent.partition_point(|flush| (flush.segment, flush.position) <= (segment, position));
        let flush = self.recent.get(at.checked_sub(1)?)?;
        let found = flush.segment == segment && contains(flush.position, flush.bytes);
        found.then(|| flush.slot.get()).flatten().map(|bytes| (flush.position, bytes))
    }

    /// Entries, among these, that recovery found not to follow: their checksums are right all the same.
    pub fn strange_entries(&self, first: LogIndex, last: LogIndex) -> Vec<LogIndex> {
        let strange = self.damage.iter().filter(|damage| damage.kind == DamageKind::Hash);
        let within = strange.filter(|damage| damage.first_index <= last && damage.last_index >= first);
        within.flat_map(|damage| (damage.first_index.0..=damage.last_index.0).map(LogIndex)).collect()
    }

    /// Rot of which something is still there, or should be.
    pub fn standing_damage(&self) -> impl Iterator<Item = &Damage> {
        let first = self.first_index();
        let stands = move |damage: &&Damage| damage.first_index > damage.last_index || damage.last_index >= first;
        self.damage.iter().filter(stands)
    }

    /// Remembers rot that a read found.
    pub fn note_damage(&mut self, damage: &Damage) {
        let is_known = |known: &Damage| {
            known.path == damage.path
                && known.kind == damage.kind
                && known.first_index <= damage.first_index
                && damage.last_index <= known.last_index
        };
        if !self.damage.iter().any(is_known) && self.damage.len() < DAMAGE_MAX {
            tracing::error!(%damage, "rot");
            self.damage.push(damage.clone());
        }
    }
}

impl<D: Disk> State<D> {
    /// Settles the name of another segment of `bytes`; [`Inner::pump`] prepares its file.
    pub fn prepare_segment(&mut self, storage: &ShardStorage<D>, dir: &Path, bytes: u64) -> Rc<SegmentFile<D>> {
        self.last_segment_number += 1;
        let generation = Generation(storage.disk.random_u64());
        let name = SegmentName { number: self.last_segment_number, generation };
        let file = Rc::new(SegmentFile::preparing(dir, name, bytes));
        self.to_prepare.push(file.clone());
        file
    }
}

impl<D: Disk> Inner<D> {
    /// A log in `dir` with this state.
    pub fn new(storage: Rc<ShardStorage<D>>, range: RangeKey, dir: PathBuf, state: State<D>) -> Self {
        Self {
            storage,
            range,
            dir,
            state: RefCell::new(state),
            changed: Notify::default(),
            space: FifoGate::default(),
            listener: RefCell::new(None),
        }
    }

    /// Starts what the state has decided: segment preparations, flushes, waiting for a turn. Call it without borrowing the state.
    pub fn pump(self: &Rc<Self>) {
        let (segments, flushes, turn) = {
            let mut state = self.state.borrow_mut();
            let turn = state.turn;
            if let Turn::Wanted(_) = turn {
                state.turn = Turn::Awaited;
            }
            (std::mem::take(&mut state.to_prepare), std::mem::take(&mut state.to_start), turn)
        };
        for segment in segments {
            self.storage.disk.spawn(prepare(self.storage.clone(), segment));
        }
        for flush in flushes {
            self.storage.disk.spawn(self.clone().write_flush(flush));
        }
        if let Turn::Wanted(bytes) = turn {
            self.storage.disk.spawn(self.clone().take_turn(bytes));
        }
    }

    /// Stops the log for good: nothing becomes durable any more.
    pub fn fail(&self, error: LogError) {
        tracing::error!(range = %self.range, %error, "range log failed");
        self.state.borrow_mut().failure.get_or_insert(error);
        self.notify();
    }

    /// Tells everyone that something changed.
    pub fn notify(&self) {
        self.changed.notify_all();
        self.space.wake_first();
        let listener = self.listener.borrow().clone();
        if let Some(listener) = listener {
            listener();
        }
    }
}

/// Gets a file for a segment; waits for space as long as there is none. A new one is written ahead until it is wanted.
async fn prepare<D: Disk>(storage: Rc<ShardStorage<D>>, segment: Rc<SegmentFile<D>>) {
    loop {
        match storage.pool.take(&segment.path, segment.bytes).await {
            Err(error) if error.is_no_space() => {
                if Rc::strong_count(&segment) == 1 {
                    return; // The log was closed meanwhile.
                }
                tracing::warn!(%error, "no space for a segment; trying again");
                segment.set_waits_for_space(true);
                storage.disk.sleep(SPACE_RETRY).await;
            }
            Err(error) => return segment.prepared(Err(error)),
            Ok((file, is_new)) => {
                let stop = || segment.is_wanted() || storage.is_busy();
                let written = match is_new {
                    true => storage.write_zeros(&file, segment.bytes, stop).await.on("write", &segment.path),
                    false => Ok(()),
                };
                return segment.prepared(written.map(|()| file));
            }
        }
    }
}
