//! Mending: a damaged segment is written anew, from what is good of it here and what others have of the same entries.
//!
//! ```text
//!   damaged stretch -> new file beside the log <- good entries of the old one, freed runs, entries of a source
//!                        complete: footer, sidecar, renamed -> takes the old one's place -> the old one goes
//! ```
//!
//! An entry is known by its place in the chain of hashes: what follows the entry before it, and is followed by the one
//! behind, is that entry, whoever gave it. So nothing is asked about epochs, and nothing is ever cut: until the new file
//! is whole the old one stays, and a crash leaves one or the other (`docs/DATA_FILE.md`, section 12). Absent: where entries
//! come from, and when a log is mended, which are the caller's.

use std::future::Future;
use std::rc::Rc;

use minikafka_core::{Epoch, Generation, LogIndex, LogPoint, Timestamp};
use thiserror::Error;

use super::install::{Beginning, InstallError, SegmentCopy};
use super::recovery::{self, Footer, read_footer};
use super::state::{Inner, State};
use super::{RecoveryReport, RecoveryVisitor};
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{Damage, DamageKind, LogError, ReadError};
use crate::flush::{self, FLUSH_LENGTH_MAX};
use crate::freed_runs::{FreedRuns, Piece};
use crate::segment::{LogSegment, SegmentFile, SegmentName};
use crate::slice::SharedSlice;

/// Entries asked for at once where those before them were damaged, too.
const ASKED_MAX: u64 = 1024;

/// What a log has damaged, within one segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedStretch {
    /// The log before it.
    pub start: LogPoint,
    /// The log with it.
    pub end: LogPoint,
    /// Of the segment file: there, or to be made.
    number: u64,
    /// Of the file that is there.
    generation: Option<Generation>,
    /// It has a footer, or lies where only segments with one do: it can be mended while the log is in use.
    pub is_sealed: bool,
}

/// Who may have what is damaged here.
pub trait EntrySource {
    /// What comes behind `after`; `None`: nobody has it now. It need not be verified.
    fn entries_behind(&self, after: LogPoint, until: LogIndex) -> impl Future<Output = Option<Lost>>;
}

/// What somebody has of that which is damaged here.
#[derive(Clone)]
pub enum Lost {
    /// Entries as stored, whole and in order, one at least, up to the index asked for.
    Entries(Vec<SharedSlice>),
    /// Nothing: everything up to this point was freed there, because it is dead.
    Freed(LogPoint),
}

/// Why a stretch is not mended. The log is as it was.
#[derive(Debug, Error)]
pub enum MendError {
    /// Nobody has an entry that is lost here.
    #[error("nobody has entry {0}")]
    Nobody(LogIndex),
    /// What a source gave is not what is lost.
    #[error("what came for entry {0} is not that entry")]
    Foreign(LogIndex),
    /// No entries would do: a state is lost that is in none of them.
    #[error("entries do not help: {0}")]
    Beyond(&'static str),
    /// The log changed meanwhile.
    #[error("not now: {0}")]
    NotNow(&'static str),
    /// The disk has no room for another segment.
    #[error("{0}")]
    NoSpace(LogError),
    /// The log failed, or its disk.
    #[error("{0}")]
    Log(LogError),
}

impl<E: Into<LogError>> From<E> for MendError {
    fn from(error: E) -> Self {
        match error.into() {
            LogError::Disk(error) if error.is_no_space() => Self::NoSpace(error.into()),
            error => Self::Log(error),
        }
    }
}

/// Where entries of the old file are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Places {
    /// Also where they may be, as far as one follows the other.
    Guessed,
    /// Only where flushes are known to have them.
    Known,
}

/// The state with which a mended segment ends.
enum Snapshot {
    /// Its old footer has it.
    Kept(Vec<u8>, (Epoch, Timestamp)),
    /// It is folded, from here.
    Folded(Option<Vec<u8>>),
    /// It lies below a later one, and the state as of its end is lost: it goes without a footer, which it had lost.
    Lost(&'static str),
    /// It has none: it is not sealed.
    None,
}

impl<D: Disk> Inner<D> {
    /// Writes a stretch anew. One that is sealed takes its place at once; another one does when the log is recovered again.
    pub async fn mend(
        self: &Rc<Self>,
        stretch: &DamagedStretch,
        source: &impl EntrySource,
        visitor: &mut impl RecoveryVisitor,
    ) -> Result<(), MendError> {
        let snapshot = self.snapshot_for(stretch).await?;
        if let Snapshot::Lost(reason) = snapshot
            && !self.state.borrow().is_damaged(stretch)
        {
            return Err(MendError::Beyond(reason));
        }
        let is_last = self.state.borrow().beginning(stretch, self).1;
        let copy = match self.write_anew(stretch, source, &snapshot, Places::Guessed, visitor).await {
            // What stands where it might be can be what a truncation left void, and lead astray.
            Err(MendError::Nobody(_) | MendError::Foreign(_)) => {
                self.write_anew(stretch, source, &snapshot, Places::Known, visitor).await?
            }
            written => written?,
        };
        match snapshot {
            Snapshot::None | Snapshot::Lost(_) if copy.has_freed() => {
                copy.discard().await?;
                Err(MendError::Beyond("entries are freed elsewhere that only a sealed segment can lack"))
            }
            Snapshot::None => Ok(self.finish_unsealed(copy, is_last).await.map(drop)?),
            Snapshot::Lost(_) => self.replace(stretch, copy, None).await,
            Snapshot::Kept(snapshot, last) => self.replace(stretch, copy, Some((snapshot, last))).await,
            Snapshot::Folded(_) => {
                let last = self.last_entry(&copy);
                self.replace(stretch, copy, Some((visitor.take_snapshot(), last))).await
            }
        }
    }

    /// A new file with all of a stretch, which has no footer yet.
    async fn write_anew(
        &self,
        stretch: &DamagedStretch,
        source: &impl EntrySource,
        snapshot: &Snapshot,
        places: Places,
        visitor: &mut impl RecoveryVisitor,
    ) -> Result<SegmentCopy<D>, MendError> {
        let (beginning, _) = self.state.borrow().beginning(stretch, self);
        let mut copy = self.begin_file(beginning).await?;
        let mut fold = Fold(None);
        if let Snapshot::Folded(before) = snapshot {
            visitor.snapshot(before.as_deref());
            fold = Fold(Some(&mut *visitor));
        }
        match self.fill(&mut copy, stretch, source, places, &mut fold).await {
            Ok(()) => Ok(copy),
            Err(error) => {
                copy.discard().await?;
                Err(error)
            }
        }
    }

    /// Reads what is there of a log whose unsealed segments were mended.
    pub async fn recover_again(
        self: &Rc<Self>,
        visitor: &mut impl RecoveryVisitor,
    ) -> Result<RecoveryReport, LogError> {
        self.settle().await?;
        self.stop_freeing().await;
        let files: Vec<_> = self.state.borrow().segments.iter().map(|segment| segment.file.clone()).collect();
        for file in files {
            file.close().await?;
        }
        let (fresh, report) = recovery::recover(self.storage.clone(), self.range, visitor).await?;
        self.state.swap(&fresh.state);
        self.seal_next();
        self.notify();
        Ok(report)
    }

    async fn snapshot_for(&self, stretch: &DamagedStretch) -> Result<Snapshot, MendError> {
        if !stretch.is_sealed {
            return Ok(Snapshot::None);
        }
        let sealed = {
            let state = self.state.borrow();
            let sealed = state.segment(stretch.number).filter(|segment| segment.sealed().is_some());
            sealed.map(|segment| segment.file.clone())
        };
        if let Some(file) = sealed
            && let Footer::Good(trailer, body) = read_footer(&self.storage.disk, &file).await?
        {
            let snapshot = crate::footer::snapshot(&trailer, &body).to_vec();
            return Ok(Snapshot::Kept(snapshot, (trailer.last_epoch, trailer.last_timestamp)));
        }
        if stretch.start == LogPoint::START {
            return Ok(Snapshot::Folded(None));
        }
        let before = {
            let state = self.state.borrow();
            let ends_there = |segment: &&LogSegment<D>| segment.sealed().is_some() && segment.end == stretch.start;
            state.segments.iter().find(ends_there).map(|segment| segment.file.clone())
        };
        let Some(before) = before else { return Ok(Snapshot::Lost("the state before it is not known")) };
        match read_footer(&self.storage.disk, &before).await? {
            Footer::Good(trailer, body) => {
                Ok(Snapshot::Folded(Some(crate::footer::snapshot(&trailer, &body).to_vec())))
            }
            Footer::None | Footer::Damaged(_) => Ok(Snapshot::Lost("the footer before it is damaged, too")),
        }
    }

    /// What there is of the file that is mended.
    async fn old_file(&self, stretch: &DamagedStretch) -> Result<OldFile<D>, MendError> {
        let (file, trailer, unsealed, freed) = {
            let state = self.state.borrow();
            let segment = state.segment(stretch.number);
            let trailer = segment.and_then(LogSegment::sealed).map(|sealed| sealed.trailer);
            let unsealed = segment.and_then(LogSegment::unsealed).map(|unsealed| unsealed.index.flushes().to_vec());
            (segment.map(|segment| segment.file.clone()), trailer, unsealed, state.freed_of(stretch.number))
        };
        let flushes = match (&file, trailer) {
            (Some(file), Some(trailer)) => match self.load_index(file, &trailer).await {
                Ok(index) => index.flushes().to_vec(),
                Err(ReadError::Disk(error)) => return Err(error.into()),
                Err(_) => Vec::new(),
            },
            _ => unsealed.unwrap_or_default(),
        };
        let pieces = flushes.iter().flat_map(|flush| freed.pieces(flush)).collect();
        Ok(OldFile { file: file.filter(|file| !file.is_failed()), pieces, freed })
    }

    /// Fills a file from its start to its end.
    async fn fill(
        &self,
        copy: &mut SegmentCopy<D>,
        stretch: &DamagedStretch,
        source: &impl EntrySource,
        places: Places,
        fold: &mut Fold<'_, impl RecoveryVisitor>,
    ) -> Result<(), MendError> {
        let old = self.old_file(stretch).await?;
        // Where the next entry begins in the old file, and how many are asked for when it is damaged.
        let (mut place, mut asked) = (None, 1);
        while copy.at() != copy.end() {
            let before = copy.at();
            if let Some(freed) =
                old.freed.at_or_above(before.index.next()).filter(|freed| freed.run.contains(before.index.next()))
            {
                add_freed(copy, freed.run.borders()[1], fold).await?;
                place = Some(freed.end());
                continue;
            }
            let next = before.index.next();
            place = match old.piece_of(next) {
                Some(piece) if piece.2 == next => Some(piece.0),
                Some(_) => place,
                None => place.filter(|_| places == Places::Guessed),
            };
            if let Some(at) = place {
                let run = old.read(&self.storage.disk, at, next).await?;
                let bytes = self.add(copy, &run, old.last_from(next), fold).await?;
                place = Some(at + bytes);
                if bytes > 0 {
                    asked = 1;
                    continue;
                }
            }
            let until = old.lost_until(next, asked).min(copy.end().index);
            asked = (asked * 2).min(ASKED_MAX);
            match source.entries_behind(before, until).await.ok_or(MendError::Nobody(next))? {
                Lost::Entries(runs) => {
                    for run in runs {
                        let bytes = self.add(copy, &run, until, fold).await?;
                        place = place.map(|place| place + bytes);
                    }
                }
                // A run may end in a later segment here.
                Lost::Freed(to) if to.index > copy.end().index => add_freed(copy, copy.end(), fold).await?,
                Lost::Freed(to) => add_freed(copy, to, fold).await?,
            }
            if copy.at() == before {
                return Err(MendError::Foreign(next));
            }
        }
        Ok(())
    }

    /// Adds entries up to `last`, or the first that is not what follows; their bytes.
    async fn add(
        &self,
        copy: &mut SegmentCopy<D>,
        run: &[u8],
        last: LogIndex,
        fold: &mut Fold<'_, impl RecoveryVisitor>,
    ) -> Result<u64, MendError> {
        let mut at = 0;
        while let Ok(entry) = flush::entry_at(run, at) {
            let is_within = entry.header.range == self.range && entry.header.index <= last;
            if !is_within || entry.check_body(run).is_err() {
                break;
            }
            match copy.add_entry(&entry.header, &run[at..entry.end()]).await {
                Ok(()) => {}
                Err(InstallError::DoesNotFollow(_)) => break,
                Err(error) => return Err(unfit(error, copy.at())),
            }
            if let Some(visitor) = &mut fold.0 {
                visitor.entry(&entry.header, entry.body(run));
            }
            at = entry.end();
        }
        Ok(at as u64)
    }

    /// Epoch and time of the last entry in a file that is complete, or of the one before it.
    fn last_entry(&self, copy: &SegmentCopy<D>) -> (Epoch, Timestamp) {
        copy.last().unwrap_or_else(|| {
            let state = self.state.borrow();
            let before = state.segments.iter().rev().filter(|segment| segment.end == copy.start());
            let trailer = before.filter_map(LogSegment::sealed).map(|sealed| sealed.trailer).next();
            trailer.map_or_else(Default::default, |trailer| (trailer.last_epoch, trailer.last_timestamp))
        })
    }

    /// Puts a file, sealed with the state and the last entry as of its end if they are known, into the place of the old one,
    /// if the log still has that, and gives the old one back.
    async fn replace(
        self: &Rc<Self>,
        stretch: &DamagedStretch,
        copy: SegmentCopy<D>,
        end: Option<(Vec<u8>, (Epoch, Timestamp))>,
    ) -> Result<(), MendError> {
        let Some(_freeing) = self.begin_freeing()? else {
            copy.discard().await?;
            return Err(MendError::NotNow("space is being freed, or the log is being cut"));
        };
        let old = self.state.borrow().segment(stretch.number).map(|segment| segment.file.clone());
        if !self.state.borrow().still_has(stretch) {
            copy.discard().await?;
            return Err(MendError::NotNow("the log has changed there"));
        }
        // Who reads the old file goes on with it; under its number there is another one in a moment.
        if let Some(old) = old.as_ref().filter(|old| !old.is_failed()) {
            drop(old.file(&self.storage.disk).await?);
        }
        let segment = match end {
            Some((snapshot, last)) => self.finish_sealed(copy, snapshot, last).await?,
            None => self.finish_unsealed(copy, false).await?,
        };
        tracing::info!(path = %segment.file.path.display(), "mended");
        self.state.borrow_mut().put_mended(segment);
        if let Some(old) = old {
            self.give_back(old).await?;
        }
        self.notify();
        Ok(())
    }
}

/// What there is of the file that is mended.
struct OldFile<D: Disk> {
    /// None: it is missing, or cannot be opened.
    file: Option<Rc<SegmentFile<D>>>,
    /// Stretches of entries whose places are known.
    pieces: Vec<Piece>,
    freed: FreedRuns,
}

/// Who folds the entries of a segment whose footer is lost; nobody where the footer is there.
struct Fold<'a, V>(Option<&'a mut V>);

impl<D: Disk> OldFile<D> {
    fn piece_of(&self, index: LogIndex) -> Option<&Piece> {
        self.pieces.iter().find(|(_, _, first, last)| (*first..=*last).contains(&index))
    }

    /// The bytes from a place on where entry `index` may begin, as far as those behind it may reach.
    async fn read(&self, disk: &D, place: u64, index: LogIndex) -> Result<SharedSlice, MendError> {
        let nothing = SharedSlice::new(Rc::new(Vec::new()), 0..0);
        let Some(file) = &self.file else { return Ok(nothing) };
        let size = file.size(disk).await? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let next_piece = self.pieces.iter().find(|(_, _, first, _)| *first > index).map_or(size, |piece| piece.0);
        let end = self.piece_of(index).map_or(next_piece, |piece| piece.0 + u64::from(piece.1));
        let end = end.min(size).min(place + FLUSH_LENGTH_MAX as u64);
        if end <= place {
            return Ok(nothing);
        }
        let block = BLOCK_BYTES as u64;
        let start = place / block * block;
        let bytes = (end.next_multiple_of(block).min(size) - start) as usize;
        let read = file.read_damaged(disk, start, bytes, &mut Vec::new()).await?;
        Ok(SharedSlice::new(read, (place - start) as usize..(end - start) as usize))
    }

    /// The last entry that may stand where `index` does: what comes behind it there is void, or another flush's.
    fn last_from(&self, index: LogIndex) -> LogIndex {
        let next = || self.pieces.iter().find(|(_, _, first, _)| *first > index);
        let before_next = || next().map_or(LogIndex(u64::MAX), |piece| LogIndex(piece.2.0 - 1));
        self.piece_of(index).map_or_else(before_next, |piece| piece.3)
    }

    /// The last of `asked` entries from `index` on, or of all whose places are not known.
    fn lost_until(&self, index: LogIndex, asked: u64) -> LogIndex {
        let freed = self.freed.at_or_above(index).map_or(LogIndex(u64::MAX), |freed| freed.run.first_index);
        let known = match self.piece_of(index) {
            Some(piece) => piece.3.min(LogIndex(index.0 + asked - 1)),
            None => self.last_from(index),
        };
        known.min(LogIndex(freed.0 - 1))
    }
}

async fn add_freed<D: Disk, V>(copy: &mut SegmentCopy<D>, to: LogPoint, fold: &Fold<'_, V>) -> Result<(), MendError> {
    if fold.0.is_some() {
        return Err(MendError::Beyond("what was freed of it is in no other state"));
    }
    let before = copy.at();
    copy.add_freed(to).await.map_err(|error| unfit(error, before))
}

fn unfit(error: InstallError, at: LogPoint) -> MendError {
    match error {
        InstallError::DoesNotFollow(_) => MendError::Foreign(at.index.next()),
        InstallError::NoSpace(error) | InstallError::Disk(error) => error.into(),
    }
}

impl<D: Disk> State<D> {
    /// The first stretch with damage that ends above `after`.
    pub fn damaged_stretch(&self, after: LogIndex) -> Option<DamagedStretch> {
        let base = self.segments.iter().rposition(|segment| segment.sealed().is_some());
        let mut before = match (base, self.segments.front()) {
            (Some(_), Some(first)) => first.start,
            _ => LogPoint::START,
        };
        for (at, segment) in self.segments.iter().enumerate() {
            let is_below = base.is_some_and(|base| at < base);
            let (start, end, number) = (segment.start, segment.end, segment.number());
            let has_footer = segment.sealed().is_some();
            let is_missing = before.index < start.index;
            let (number_before, generation) = (number.saturating_sub(1), Some(segment.file.name.generation));
            let missing =
                DamagedStretch { start: before, end: start, number: number_before, generation: None, is_sealed: true };
            let own = DamagedStretch { start, end, number, generation, is_sealed: has_footer || is_below };
            let found = match (is_missing, has_footer) {
                (true, true) => Some(missing).filter(|missing| self.segment(missing.number).is_none()),
                (true, false) => Some(DamagedStretch { start: before, ..own }),
                (false, _) => Some(own).filter(|own| !has_footer && is_below || self.is_damaged(own)),
            };
            if let Some(found) = found.filter(|found| found.end.index > after && found.end.index > found.start.index) {
                return Some(found);
            }
            before = end;
        }
        None
    }

    fn is_damaged(&self, stretch: &DamagedStretch) -> bool {
        let concerns = |damage: &&Damage| {
            damage.first_index <= damage.last_index
                && damage.first_index <= stretch.end.index
                && damage.last_index > stretch.start.index
                && damage.kind != DamageKind::FreedRuns
        };
        self.damage.iter().chain(&self.lost).any(|damage| concerns(&damage))
    }

    /// How a file for a stretch begins, and whether it is the log's last.
    fn beginning(&self, stretch: &DamagedStretch, log: &Inner<D>) -> (Beginning, bool) {
        let at = self.segments.partition_point(|segment| segment.number() < stretch.number);
        let flushes_before = at.checked_sub(1).map_or(0, |before| self.segments[before].last_flush_number());
        let own = self.segment(stretch.number);
        let marker = own.or(self.segments.get(at)).map_or(self.marker, LogSegment::marker);
        let config = &log.storage.config;
        let bytes = own.map_or(config.segment_bytes_min, |own| own.file.bytes);
        let bytes = bytes.next_power_of_two().clamp(config.segment_bytes_min, config.segment_bytes_max);
        // Of two files with one number, the higher generation counts.
        let below = own.map_or(0, |own| own.file.name.generation.0);
        let above = u64::MAX - below;
        let generation = Generation(below + 1 + log.storage.disk.random_u64() % above.max(1));
        let name = SegmentName { number: stretch.number, generation };
        let beginning = Beginning { name, start: stretch.start, end: stretch.end, marker, flushes_before, bytes };
        (beginning, self.segments.back().is_some_and(|last| last.number() == stretch.number))
    }

    fn still_has(&self, stretch: &DamagedStretch) -> bool {
        match (self.segment(stretch.number), stretch.generation) {
            // A file whose beginning is lost begins later than what it stands for.
            (Some(segment), Some(old)) => segment.file.name.generation == old && segment.end == stretch.end,
            (None, None) => {
                let at = self.segments.partition_point(|segment| segment.number() < stretch.number);
                let before = at.checked_sub(1).map(|before| self.segments[before].end);
                before == Some(stretch.start) && self.segments.get(at).is_some_and(|next| next.start == stretch.end)
            }
            _ => false,
        }
    }

    /// Puts a mended segment where the damaged one is, or is missing.
    fn put_mended(&mut self, segment: LogSegment<D>) {
        let (number, start, end) = (segment.number(), segment.start, segment.end);
        let within = |damage: &Damage| damage.first_index > start.index && damage.last_index <= end.index;
        self.damage.retain(|damage| !within(damage));
        self.lost.retain(|damage| !within(damage));
        // They name places in the old file.
        self.recent.retain(|flush| flush.segment != number);
        let at = self.segments.partition_point(|segment| segment.number() < number);
        match self.segments.get_mut(at).filter(|there| there.number() == number) {
            Some(there) => *there = segment,
            None => self.segments.insert(at, segment),
        }
    }
}
