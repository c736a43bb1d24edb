//! Reads: by partition and offset, by index, by time.
//!
//! A read plans runs from the indexes, fetches them, and walks their entries to pick what is wanted. Everything that comes
//! from disk is verified, header and body; what does not verify is reported with its place and never handed out.

use std::pin::pin;
use std::rc::Rc;

use futures_util::StreamExt;
use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::{LogIndex, LogPoint, Offset, PartitionKey, RangeKey, Timestamp};

use super::read_ahead::ReadAhead;
use super::runs::{FetchedRun, Wanted};
use super::state::Inner;
use crate::disk::Disk;
use crate::error::{Damage, DamageKind, ReadError};
use crate::flush::{self, Chain, FoundEntry};
use crate::slice::SharedSlice;

/// Remembers where a consumer of one partition is, and what was read ahead for it.
#[derive(Default)]
pub struct Reader {
    next: Option<Offset>,
    /// Log and index of the entry before `next`: where to go on looking.
    after: Option<(RangeKey, LogIndex)>,
    ahead: Option<Rc<ReadAhead>>,
}

impl Reader {
    /// Gives up what was read ahead; whether there was anything.
    pub fn forget_ahead(&mut self) -> bool {
        self.ahead.take().is_some()
    }
}

/// What a read picked.
#[derive(Clone, Default)]
pub(super) struct Found {
    pub slices: Vec<SharedSlice>,
    bytes: usize,
    count: usize,
    first: Option<EntryHeader>,
    pub last: Option<EntryHeader>,
    /// The last entry of the partition below the offset wanted.
    passed: LogIndex,
    pub from_disk: bool,
    /// Where the last slice ends in its run, so that an adjacent entry extends it.
    open_slice: Option<(usize, usize)>,
}

/// What to pick from runs.
pub(super) struct Pick {
    pub wanted: Wanted,
    pub after: LogIndex,
    pub up_to: LogIndex,
    pub bytes_max: usize,
    /// A jump in what is found, where nothing may be missing, is damage.
    pub is_gapless: bool,
}

impl Pick {
    /// Whether `header`, found next, leaves something out.
    fn leaves_out(&self, header: &EntryHeader, last: Option<&EntryHeader>) -> bool {
        match self.wanted {
            Wanted::Everything => header.index > last.map_or(self.after, |last| last.index).next(),
            Wanted::Partition(_, from) => header.base_offset > last.map_or(from, EntryHeader::next_offset),
        }
    }
}

impl<D: Disk> Inner<D> {
    pub async fn read_partition(
        self: &Rc<Self>,
        partition: PartitionKey,
        from: Offset,
        up_to: LogIndex,
        bytes_max: usize,
        reader: &mut Reader,
    ) -> Result<Vec<SharedSlice>, ReadError> {
        let up_to = up_to.min(self.state.borrow().durable);
        let is_sequential = reader.next == Some(from);
        let mut ahead = reader.ahead.take().filter(|ahead| ahead.suits(self.range, from, bytes_max));
        let mut found = match &ahead {
            Some(ahead) => ahead.take(bytes_max).await?,
            None => Found::default(),
        };
        if found.count == 0 {
            ahead = None;
            let wanted = Wanted::Partition(partition, from);
            let known = reader.after.filter(|(range, _)| is_sequential && *range == self.range);
            let after = known.map_or(LogIndex(0), |(_, index)| index);
            found = self.find(Pick { wanted, after, up_to, bytes_max, is_gapless: true }).await?;
        }
        if let Some(last) = &found.last {
            let next = (last.next_offset(), last.index);
            (reader.next, reader.after) = (Some(next.0), Some((self.range, next.1)));
            if found.from_disk && is_sequential {
                let ahead = ahead.unwrap_or_else(|| ReadAhead::new(self.range, partition, next, bytes_max));
                ahead.read_on(self, up_to);
                reader.ahead = Some(ahead);
            }
        }
        Ok(found.slices)
    }

    pub async fn read_index(
        &self,
        from: LogIndex,
        up_to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<SharedSlice>, ReadError> {
        let (first, end, freed) = {
            let state = self.state.borrow();
            (state.first_index(), state.end.index.min(up_to), state.freed_at_or_above(from))
        };
        if from < first {
            return Err(ReadError::Dropped { index: from, first });
        }
        if let Some(run) = freed.filter(|run| run.contains(from)) {
            return Err(ReadError::Freed { run });
        }
        let after = LogIndex(from.0 - 1);
        // A freed run is an item of its own: what is read ends before it.
        let up_to = freed.map_or(end, |run| end.min(run.borders()[0].index));
        let pick = Pick { wanted: Wanted::Everything, after, up_to, bytes_max, is_gapless: true };
        Ok(self.find(pick).await?.slices)
    }

    /// The header of entry `index`; `None` when it is not in this log.
    pub async fn header_at(&self, index: LogIndex) -> Result<Option<EntryHeader>, ReadError> {
        let after = LogIndex(index.0.saturating_sub(1));
        let pick = Pick { wanted: Wanted::Everything, after, up_to: index, bytes_max: 1, is_gapless: false };
        Ok(self.find(pick).await?.last)
    }

    /// The log's point at `index`; `None` when it is not known here (any more).
    pub async fn point_at(&self, index: LogIndex) -> Result<Option<LogPoint>, ReadError> {
        let known = {
            let state = self.state.borrow();
            let borders = state.segments.iter().flat_map(|segment| [segment.start, segment.end]);
            let freed = state.freed_at_or_above(index).into_iter().flat_map(|run| run.borders());
            borders.chain([state.end]).chain(freed).find(|point| point.index == index)
        };
        match known {
            Some(point) => Ok(Some(point)),
            None => {
                let header = self.header_at(index).await?;
                Ok(header.map(|header| LogPoint { index, hash: header.running_hash }))
            }
        }
    }

    pub async fn offset_at_time(
        &self,
        partition: PartitionKey,
        timestamp: Timestamp,
    ) -> Result<Option<Offset>, ReadError> {
        let up_to = self.state.borrow().durable;
        let Some(mut after) = self.index_before_time(timestamp).await? else { return Ok(None) };
        loop {
            let runs = self.plan(Wanted::Partition(partition, Offset(0)), after, up_to, 1).await?;
            let Some(last) = runs.last().map(|run| run.last_index) else { return Ok(None) };
            for fetched in self.fetch(runs).await? {
                let mut hit = None;
                self.walk(&fetched, |entry, _| {
                    let is_it = entry.header.partition_key() == partition
                        && entry.header.kind == EntryKind::Batch
                        && entry.header.append_timestamp >= timestamp;
                    if is_it {
                        hit = Some(entry.header.base_offset);
                    }
                    Ok(is_it)
                })?;
                if hit.is_some() {
                    return Ok(hit);
                }
            }
            after = last;
        }
    }

    /// An index below which every entry was appended before `timestamp`; `None`: all were.
    pub async fn index_before_time(&self, timestamp: Timestamp) -> Result<Option<LogIndex>, ReadError> {
        let mut number = 0;
        loop {
            let (segment, sealed) = {
                let state = self.state.borrow();
                let mut later = state.segments.iter().filter(|segment| segment.number() >= number);
                let qualifies = |segment: &&crate::segment::LogSegment<D>| match &segment.contents {
                    crate::segment::Contents::Sealed(sealed) => sealed.trailer.last_timestamp >= timestamp,
                    crate::segment::Contents::Unsealed(unsealed) => unsealed.last_timestamp >= timestamp,
                };
                let Some(segment) = later.find(qualifies) else { return Ok(None) };
                match segment.unsealed() {
                    Some(unsealed) => {
                        if let Some(first) = unsealed.index.first_index_at(timestamp) {
                            return Ok(Some(LogIndex(first.0 - 1)));
                        }
                        (segment.file.clone(), None)
                    }
                    None => (segment.file.clone(), segment.sealed().map(|sealed| sealed.trailer)),
                }
            };
            if let Some(trailer) = sealed
                && let Some(first) = self.load_index(&segment, &trailer).await?.first_index_at(timestamp)
            {
                return Ok(Some(LogIndex(first.0 - 1)));
            }
            number = segment.name.number + 1;
        }
    }

    /// The first offset above `after` that can be read; see [`super::RangeLog::readable_behind`].
    pub async fn readable_behind(
        &self,
        mut after: LogIndex,
        partition: PartitionKey,
        from: Offset,
        up_to: LogIndex,
    ) -> Result<Option<Offset>, ReadError> {
        let up_to = up_to.min(self.state.borrow().durable);
        loop {
            let wanted = Wanted::Partition(partition, from);
            match self.find(Pick { wanted, after, up_to, bytes_max: 1, is_gapless: false }).await {
                Ok(found) => return Ok(found.first.map(|header| header.base_offset.max(from))),
                Err(ReadError::Damaged(more)) => after = more.last_index.max(after.next()),
                Err(ReadError::Freed { run }) => after = run.last_index.max(after.next()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The stretch that was lost nearest below `before`, and above `after`.
    fn lost_between(&self, after: LogIndex, before: LogIndex) -> Option<Damage> {
        let state = self.state.borrow();
        let between = |lost: &&Damage| lost.last_index > after && lost.first_index < before;
        state.lost.iter().filter(between).max_by_key(|lost| lost.first_index).cloned()
    }

    /// Plans and fetches until something is found or there is nothing more.
    pub async fn find(&self, mut pick: Pick) -> Result<Found, ReadError> {
        let mut found = Found::default();
        loop {
            let runs = self.plan(pick.wanted, pick.after, pick.up_to, pick.bytes_max).await?;
            let Some(last) = runs.last().map(|run| run.last_index) else {
                // Nothing found may be nothing there, or just what was lost.
                let lost = self.lost_between(pick.after.max(found.passed), LogIndex(u64::MAX));
                let lost = lost.filter(|_| pick.is_gapless && found.count == 0);
                return lost.map_or(Ok(found), |lost| Err(ReadError::Damaged(lost)));
            };
            let mut ended = Ok(false);
            let mut fetching = pin!(self.fetch_in_order(runs));
            // What was read first is verified while the rest is being read; no read is given up half-way.
            while let Some(fetched) = fetching.next().await {
                if matches!(ended, Ok(false)) {
                    ended = fetched.and_then(|fetched| self.pick_from_all(&fetched, &pick, &mut found));
                }
            }
            match ended {
                // What is good is handed out; the damage is met again by the next read.
                Err(error) if found.count == 0 => return Err(error),
                Ok(false) if found.count == 0 => pick.after = last,
                _ => return Ok(found),
            }
        }
    }

    /// Picks from runs in order; true when there is enough.
    fn pick_from_all(&self, runs: &[FetchedRun<D>], pick: &Pick, found: &mut Found) -> Result<bool, ReadError> {
        for fetched in runs {
            if self.pick_from(fetched, pick, found)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Picks from one run; true when there is enough.
    fn pick_from(&self, fetched: &FetchedRun<D>, pick: &Pick, found: &mut Found) -> Result<bool, ReadError> {
        found.open_slice = None;
        found.from_disk |= fetched.from_disk;
        self.walk(fetched, |entry, check| {
            let header = &entry.header;
            if header.index > pick.up_to {
                return Ok(true);
            }
            let is_wanted = match pick.wanted {
                Wanted::Everything => true,
                Wanted::Partition(partition, from) => {
                    header.kind == EntryKind::Batch
                        && header.partition_key() == partition
                        && header.next_offset() > from
                }
            };
            if header.index <= pick.after || !is_wanted {
                if matches!(pick.wanted, Wanted::Partition(partition, _) if header.partition_key() == partition) {
                    found.passed = header.index;
                }
                return Ok(false);
            }
            if found.count > 0 && found.bytes + header.entry_bytes() > pick.bytes_max {
                return Ok(true);
            }
            if pick.is_gapless && pick.leaves_out(header, found.last.as_ref()) {
                let after = found.last.map_or(pick.after.max(found.passed), |last| last.index);
                return Err(self.left_out(fetched, entry, after));
            }
            check()?;
            found.add(fetched, entry);
            Ok(false)
        })
    }

    /// What is missing between entry `after` and this one: something known to be lost, something freed while the reader was
    /// on its way, or something that no index tells of.
    fn left_out(&self, fetched: &FetchedRun<D>, entry: &FoundEntry, after: LogIndex) -> ReadError {
        let index = entry.header.index;
        let lost = self.lost_between(after, index);
        let (freed, first) = {
            let state = self.state.borrow();
            (state.freed_at_or_above(after.next()).filter(|run| run.first_index < index), state.first_index())
        };
        match freed {
            Some(run) if lost.is_none() => return ReadError::Freed { run },
            None if lost.is_none() && after.next() < first => return ReadError::Dropped { index: after.next(), first },
            _ => {}
        }
        let damage = lost.unwrap_or_else(|| Damage {
            path: fetched.run.segment.path.clone(),
            position: fetched.run.position + entry.at as u64,
            first_index: after.next(),
            last_index: LogIndex(index.0 - 1),
            kind: DamageKind::Missing,
        });
        self.state.borrow_mut().note_damage(&damage);
        ReadError::Damaged(damage)
    }

    /// Walks the live entries of a run until `visit` returns true; gives it a way to verify the body. True: `visit` did.
    pub fn walk(
        &self,
        fetched: &FetchedRun<D>,
        mut visit: impl FnMut(&FoundEntry, &dyn Fn() -> Result<(), ReadError>) -> Result<bool, ReadError>,
    ) -> Result<bool, ReadError> {
        let run = &fetched.run;
        let damaged = |at: usize, first_index: LogIndex, last_index: LogIndex, kind: DamageKind| {
            // Freed since it was planned: what is gone is dead, not damaged. Its segment may have gone since, too.
            let (freed, first) = {
                let state = self.state.borrow();
                (state.freed_of(run.segment.name.number), state.first_index())
            };
            if let Some(run) = freed.overlapping(first_index, last_index) {
                return ReadError::Freed { run: *run };
            }
            if last_index < first {
                return ReadError::Dropped { index: first_index, first };
            }
            let position = run.position + at as u64;
            let damage = Damage { path: run.segment.path.clone(), position, first_index, last_index, kind };
            self.state.borrow_mut().note_damage(&damage);
            ReadError::Damaged(damage)
        };
        let mut at = 0;
        let mut index = run.first_index;
        let mut chain = Chain::behind(run.previous_hash);
        let strange = self.state.borrow().strange_entries(run.first_index, run.last_index);
        while index <= run.last_index {
            let entry = flush::entry_at(&fetched.bytes, at).map_err(|kind| damaged(at, index, run.last_index, kind))?;
            if entry.header.index != index || entry.header.range != self.range {
                return Err(damaged(at, index, run.last_index, DamageKind::Hash));
            }
            let follows = !fetched.from_disk || chain.takes(&entry.header) && !strange.contains(&index);
            let check = || match fetched.from_disk {
                true if !follows => Err(damaged(at, index, index, DamageKind::Hash)),
                true => entry.check_body(&fetched.bytes).map_err(|kind| damaged(at, index, index, kind)),
                false => Ok(()),
            };
            if visit(&entry, &check)? {
                return Ok(true);
            }
            at = entry.end();
            index = index.next();
        }
        Ok(false)
    }
}

impl Found {
    /// Bytes of the entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what was found right behind it.
    pub fn append(&mut self, more: Self) {
        self.slices.extend(more.slices);
        self.bytes += more.bytes;
        self.count += more.count;
        self.first = self.first.or(more.first);
        self.last = more.last.or(self.last);
        self.from_disk |= more.from_disk;
        self.open_slice = None;
    }

    fn add<D: Disk>(&mut self, fetched: &FetchedRun<D>, entry: &FoundEntry) {
        let start = match self.open_slice.take() {
            Some((start, end)) if end == entry.at => {
                self.slices.pop();
                start
            }
            _ => entry.at,
        };
        self.slices.push(fetched.bytes.slice(start..entry.end()));
        self.open_slice = Some((start, entry.end()));
        self.bytes += entry.header.entry_bytes();
        self.count += 1;
        self.first.get_or_insert(entry.header);
        self.last = Some(entry.header);
    }
}
