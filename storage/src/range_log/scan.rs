//! What counts: the rules of `docs/DATA_FILE.md`, section 3, applied to the segments of one log in order.
//!
//! The scan takes footers and flushes in the order they were written and keeps the log as it stood after each: a flush that
//! begins at or below the end cuts it, one that begins above leaves a hole. Only at the end is every hole either rot (some
//! later flush knew it durable: reported) or the torn end (all above is dropped).

use std::ops::Range;
use std::rc::Rc;

use minikafka_core::limits::READ_BYTES_MAX;
use minikafka_core::{Epoch, LogIndex, LogPoint, RangeKey, RunningHash};

use super::RecoveryVisitor;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{Damage, DamageKind, LogError};
use crate::flush::{self, Chain, FLUSH_HEADER_BYTES, FlushHeader};
use crate::footer::Trailer;
use crate::segment::{Contents, LogSegment, SegmentFile};
use crate::slice::SharedSlice;

/// More flushes than the files of a log can hold behind the last one that was read.
const FLUSHES_UNSEEN_MAX: u64 = 1 << 32;

/// A log being put together from its segments.
pub(super) struct Scan<'a, D: Disk, V> {
    pub disk: &'a D,
    pub visitor: &'a mut V,
    pub segments: Vec<LogSegment<D>>,
    /// The segment up to which the state comes from a snapshot, if any.
    pub base: Option<usize>,
    pub end: LogPoint,
    pub last_flush_number: u64,
    pub marker: Epoch,
    pub covered: LogIndex,
    /// Entries up to here were given to the visitor, or are in its snapshot.
    pub delivered: LogIndex,
    /// A cut went below `delivered`: the visitor must begin again.
    pub restart: bool,
    /// Something was cut: what is remembered of last entries is stale.
    pub has_cut: bool,
    pub torn_bytes: u64,
    pub damage: Vec<Damage>,
    sealed_end: LogIndex,
    holes: Vec<Hole>,
    /// The first file should begin with the log's first entry, and does not.
    has_lost_beginning: bool,
    /// The last hole reaches to where the next flush begins.
    gap_open: bool,
    /// Flushes do not stand in the order of their numbers: they are looked for first, and taken in that order.
    is_disordered: bool,
    range: RangeKey,
    /// Where the flush behind the last one taken begins: what is missing is missing there.
    next_place: Option<(usize, u64)>,
    /// Flushes may be there that could not be read: what is written from now on needs higher numbers than theirs.
    has_unseen: bool,
    /// How much of `damage` was found before the scan.
    damage_before: usize,
}

/// Entries that should be there and do not count.
#[derive(Clone, Debug)]
struct Hole {
    segment: Option<usize>,
    position: u64,
    first_index: LogIndex,
    last_index: LogIndex,
    kind: DamageKind,
    /// End of the log below it.
    before: LogPoint,
    /// A later flush knew its first entry durable.
    covered: bool,
    /// Something of this very file is missing, not the files before it.
    is_in_file: bool,
}

impl<'a, D: Disk, V: RecoveryVisitor> Scan<'a, D, V> {
    /// A scan of `segments`, whose state begins with the sealed segment `base`.
    pub fn new(
        disk: &'a D,
        visitor: &'a mut V,
        range: RangeKey,
        segments: Vec<LogSegment<D>>,
        base: Option<usize>,
        damage: Vec<Damage>,
    ) -> Self {
        let delivered = base.map_or(LogIndex(0), |base| segments[base].end.index);
        Self {
            disk,
            visitor,
            segments,
            base,
            end: LogPoint::START,
            last_flush_number: 0,
            marker: Epoch(0),
            covered: LogIndex(0),
            delivered,
            restart: false,
            has_cut: false,
            torn_bytes: 0,
            damage_before: damage.len(),
            damage,
            sealed_end: LogIndex(0),
            holes: Vec::new(),
            has_lost_beginning: false,
            has_unseen: false,
            gap_open: false,
            is_disordered: false,
            next_place: None,
            range,
        }
    }

    /// Takes every segment into account, then settles what the holes are.
    pub async fn run(&mut self) -> Result<(), LogError> {
        self.take_all().await?;
        if self.is_disordered {
            self.begin_again();
            self.take_all().await?;
        }
        self.settle_holes();
        self.settle_borders();
        if self.has_unseen {
            self.last_flush_number += FLUSHES_UNSEEN_MAX;
        }
        Ok(())
    }

    /// Forgets what was found, to look again with less trust; the visitor must begin again, too.
    fn begin_again(&mut self) {
        tracing::error!(dir = ?self.segments.first().map(|segment| &segment.file.path), "flushes stand in the wrong order");
        for segment in self.segments.iter_mut().filter(|segment| segment.unsealed().is_some()) {
            *segment = LogSegment::empty(segment.file.clone(), LogPoint::START);
        }
        (self.end, self.last_flush_number, self.marker) = (LogPoint::START, 0, Epoch(0));
        (self.covered, self.sealed_end, self.torn_bytes) = (LogIndex(0), LogIndex(0), 0);
        (self.restart, self.has_cut, self.gap_open) = (true, true, false);
        self.next_place = None;
        self.holes.clear();
        self.damage.truncate(self.damage_before);
    }

    async fn take_all(&mut self) -> Result<(), LogError> {
        for at in 0..self.segments.len() {
            match self.segments[at].sealed().map(|sealed| sealed.trailer) {
                Some(trailer) => self.take_sealed(at, &trailer),
                None => self.scan_segment(at).await?,
            }
            let lost_footer = self.base.is_some_and(|base| at < base) && self.segments[at].unsealed().is_some();
            if lost_footer {
                let position = self.segments[at].file.bytes.saturating_sub(BLOCK_BYTES as u64);
                self.report(Some(at), position, self.end.index.next(), self.end.index, DamageKind::Footer);
            }
        }
        Ok(())
    }

    fn take_sealed(&mut self, at: usize, trailer: &Trailer) {
        if at == 0 {
            self.end = trailer.start;
        }
        if trailer.start.index < self.end.index {
            self.cut(trailer.start);
        } else if trailer.start.index > self.end.index {
            self.open_gap(Some(at), 0, trailer.start);
        } else if trailer.start.hash == self.end.hash {
            // What a file that was cut off may have held is known not to have been there.
            self.holes.retain(|hole| hole.first_index <= trailer.start.index);
        } else {
            self.report(Some(at), 0, trailer.start.index.next(), trailer.start.index, DamageKind::Hash);
        }
        self.cover(trailer.end.index);
        self.gap_open = false;
        self.next_place = None;
        self.end = trailer.end;
        self.sealed_end = trailer.end.index;
        self.last_flush_number = self.last_flush_number.max(trailer.last_flush_number.0);
        self.marker = self.marker.max(trailer.marker);
    }

    async fn scan_segment(&mut self, at: usize) -> Result<(), LogError> {
        let mut window = Window::new(self.segments[at].file.clone());
        match self.is_disordered {
            false => self.scan_in_place(at, &mut window).await?,
            true => self.scan_in_order(at, &mut window).await?,
        }
        if self.is_truncated(at) {
            let position = window.file_bytes;
            self.report(Some(at), position, self.end.index.next(), self.end.index, DamageKind::Footer);
            self.missing_at(at, position);
        } else if self.segments[at].file.is_punched() {
            // It was sealed, for only then is there a sidecar; what it ended with may be in its holes.
            self.missing_at(at, window.file_bytes);
            let unsealed = self.segments[at].unsealed_mut().expect("only those are scanned");
            unsealed.write_position = unsealed.write_position.max(window.file_bytes);
        }
        Ok(())
    }

    /// Takes flushes as they stand in the file, which is the order in which they were written.
    async fn scan_in_place(&mut self, at: usize, window: &mut Window<D>) -> Result<(), LogError> {
        let (mut position, mut expected) = (0, 0);
        while position + BLOCK_BYTES as u64 <= window.file_bytes {
            let mut step = BLOCK_BYTES as u64;
            if let Some((header, bytes)) = self.flush_at(at, window, position).await? {
                // Flushes are written front to back: one that is out of its place was put there by something else.
                self.is_disordered |= header.number.0 <= self.last_flush_number;
                let is_taken = self.take_flush(at, position, &header, &bytes, window).await?;
                if is_taken {
                    expected = position + header.padded_bytes() as u64;
                    step = if flush::is_whole(&header, &bytes) { header.padded_bytes() as u64 } else { step };
                }
            } else if window.is_unreadable(position..position + step) {
                let is_end = position == expected;
                if is_end {
                    // Whether a flush began here cannot be known, so what it held may have been acknowledged.
                    self.missing_at(at, position);
                }
                let unsealed = self.segments[at].unsealed_mut().expect("flushes are scanned in unsealed segments");
                // A write would make the block readable, and the doubt forgotten; a flush that ends before it would cast
                // doubt on what never was; and how far reaches what began here is not known.
                if is_end {
                    unsealed.write_position = window.file_bytes;
                } else if unsealed.write_position > 0 {
                    unsealed.write_position = unsealed.write_position.max(position + step);
                }
            }
            position += step;
        }
        Ok(())
    }

    /// Takes flushes in the order of their numbers, wherever they stand: for a file whose blocks changed places.
    async fn scan_in_order(&mut self, at: usize, window: &mut Window<D>) -> Result<(), LogError> {
        let mut found = Vec::new();
        let mut position = 0;
        while position + BLOCK_BYTES as u64 <= window.file_bytes {
            let mut step = BLOCK_BYTES as u64;
            if let Some((header, bytes)) = self.flush_at(at, window, position).await? {
                found.push((header.number, position));
                step = if flush::is_whole(&header, &bytes) { header.padded_bytes() as u64 } else { step };
            }
            position += step;
        }
        found.sort_unstable();
        for (_, position) in found {
            if let Some((header, bytes)) = self.flush_at(at, window, position).await? {
                self.take_flush(at, position, &header, &bytes, window).await?;
            }
        }
        Ok(())
    }

    /// The flush of this file's generation that begins at `position`, if one does.
    async fn flush_at(
        &self,
        at: usize,
        window: &mut Window<D>,
        position: u64,
    ) -> Result<Option<(FlushHeader, SharedSlice)>, LogError> {
        let block = window.get(self.disk, position, BLOCK_BYTES).await?;
        let generation = self.segments[at].file.name.generation;
        let header = FlushHeader::decode(&block).filter(|header| {
            header.generation == generation && position + header.padded_bytes() as u64 <= window.file_bytes
        });
        let Some(header) = header else { return Ok(None) };
        let bytes = window.get(self.disk, position, header.padded_bytes()).await?;
        Ok(Some((header, bytes)))
    }

    /// Whether the file is shorter than its flushes say that it was.
    fn is_truncated(&self, at: usize) -> bool {
        let segment = &self.segments[at];
        segment.unsealed().is_some_and(|unsealed| unsealed.file_bytes_min > segment.file.bytes)
    }

    /// Notes that what may have followed the end at this place cannot be known: rot, whatever comes later.
    fn missing_at(&mut self, at: usize, position: u64) {
        self.has_unseen = true;
        self.hole(Some(at), position, self.end.index.next(), DamageKind::Unreadable, self.end);
        if let Some(hole) = self.holes.last_mut() {
            (hole.covered, hole.is_in_file) = (true, true);
        }
        self.gap_open = true;
    }

    /// Takes a flush into account; false when it does not count.
    async fn take_flush(
        &mut self,
        at: usize,
        position: u64,
        header: &FlushHeader,
        bytes: &[u8],
        window: &Window<D>,
    ) -> Result<bool, LogError> {
        let previous = header.previous();
        if header.number.0 <= self.last_flush_number {
            return Ok(false);
        }
        if previous.index < self.sealed_end && !header.marker_only {
            self.report(Some(at), position, header.first_index, previous.index, DamageKind::Hash);
            return Ok(false);
        }
        self.last_flush_number = header.number.0;
        self.marker = self.marker.max(header.marker);
        let unsealed = self.segments[at].unsealed_mut().expect("flushes are scanned in unsealed segments");
        unsealed.write_position = unsealed.write_position.max(position + header.padded_bytes() as u64);
        unsealed.last_flush_number = header.number;
        unsealed.marker = unsealed.marker.max(header.marker);
        // A file's size is durable with the first durable write to it.
        if unsealed.index.start().is_some_and(|start| header.durable_index > start.index) {
            unsealed.file_bytes_min = unsealed.file_bytes_min.max(header.file_bytes_min());
        }
        if header.marker_only {
            self.cover(header.durable_index);
            return Ok(true);
        }
        let known = self.hash_at(previous.index).await?;
        if known.is_some_and(|hash| hash != previous.hash) {
            self.replace(at, position, previous).await?;
        } else if previous.index < self.end.index
            || self.holes.iter().any(|hole| hole.first_index >= header.first_index)
        {
            self.cut(previous);
        } else if previous.index > self.end.index {
            self.open_gap(Some(at), position, previous);
        }
        // Also what is missing right before this flush, which may be the last one.
        self.cover(header.durable_index);
        self.gap_open = false;
        self.next_place = Some((at, position + header.padded_bytes() as u64));
        let holes_before = self.holes.len();
        self.take_entries(at, position, header, bytes);
        if window.is_unreadable(position..position + header.padded_bytes() as u64) {
            // A torn write can be read; a block that cannot be is damage, and may have been acknowledged.
            self.holes[holes_before..].iter_mut().for_each(|hole| hole.covered = true);
        }
        Ok(true)
    }

    fn take_entries(&mut self, at: usize, position: u64, header: &FlushHeader, bytes: &[u8]) {
        let run = &bytes[..header.length as usize];
        let mut from = FLUSH_HEADER_BYTES;
        let mut before_last = self.end;
        let mut chain = Chain::behind(Some(self.end.hash));
        while from < run.len() {
            let index = self.end.index.next();
            let entry = match flush::entry_at(run, from) {
                Ok(entry) if entry.header.index == index && entry.header.range == self.range => entry,
                _ => {
                    self.hole(Some(at), position + from as u64, index, DamageKind::Unreadable, self.end);
                    self.gap_open = true;
                    self.torn_bytes += (run.len() - from) as u64;
                    return;
                }
            };
            let follows = chain.takes(&entry.header);
            let kind = if follows { entry.check_body(run).err() } else { Some(DamageKind::Hash) };
            if let Some(kind) = kind {
                self.hole(Some(at), position + from as u64, index, kind, self.end);
            }
            let unsealed = self.segments[at].unsealed_mut().expect("flushes are scanned in unsealed segments");
            let first = position + FLUSH_HEADER_BYTES as u64;
            unsealed.add(&entry.header, self.end, first, position + from as u64);
            before_last = self.end;
            self.end = LogPoint { index, hash: entry.header.running_hash };
            self.deliver(at, &entry, run);
            from = entry.end();
        }
        let is_padded = bytes[run.len()..].iter().all(|byte| *byte == 0);
        if !is_padded && before_last.index < self.end.index {
            let place = position + run.len() as u64;
            self.hole(Some(at), place, self.end.index, DamageKind::Padding, before_last);
        }
    }

    /// Gives an entry to the visitor if all before it were given.
    fn deliver(&mut self, at: usize, entry: &flush::FoundEntry, run: &[u8]) {
        let is_next = entry.header.index == self.delivered.next();
        if !is_next || !self.holes.is_empty() || self.restart || self.base.is_some_and(|base| at <= base) {
            return;
        }
        self.take_snapshots(at);
        self.visitor.entry(&entry.header, entry.body(run));
        self.delivered = entry.header.index;
    }

    /// Gives the segments below `at` that have no footer the state as of now.
    pub fn take_snapshots(&mut self, at: usize) {
        let first = self.base.map_or(0, |base| base + 1);
        for segment in &mut self.segments[first.min(at)..at] {
            if let Some(unsealed) = segment.unsealed_mut()
                && unsealed.snapshot.is_none()
            {
                unsealed.snapshot = Some(self.visitor.take_snapshot());
            }
        }
    }

    /// Notes that a later flush knew entries up to `index` durable.
    fn cover(&mut self, index: LogIndex) {
        for hole in &mut self.holes {
            hole.covered |= hole.first_index <= index;
        }
        self.covered = self.covered.max(index);
    }

    /// Makes `point` the end: entries and holes above it are void.
    fn cut(&mut self, point: LogPoint) {
        self.has_cut = true;
        if point.index < self.delivered {
            self.restart = true;
        }
        self.holes.retain(|hole| hole.first_index <= point.index);
        for hole in &mut self.holes {
            hole.last_index = hole.last_index.min(point.index);
        }
        for segment in &mut self.segments {
            if let Contents::Unsealed(unsealed) = &mut segment.contents {
                unsealed.index.cut(point.index);
            }
        }
        self.end = point;
    }

    /// Notes that everything between the end and `next` is missing, and goes on from there.
    fn open_gap(&mut self, segment: Option<usize>, position: u64, next: LogPoint) {
        if !self.gap_open {
            let first_index = self.end.index.next();
            let (segment, position) = match self.next_place {
                Some((segment, position)) => (Some(segment), position),
                None => (segment, position),
            };
            self.hole(segment, position, first_index, DamageKind::Unreadable, self.end);
        }
        if let Some(hole) = self.holes.last_mut() {
            hole.last_index = next.index;
            hole.is_in_file |= position > 0;
        }
        self.end = next;
    }

    /// Goes on from `point`, where the log has another entry: what led to it is missing. A crash alone does not do that,
    /// but a void segment that went away does, and then a later flush cuts below `point`.
    async fn replace(&mut self, segment: usize, position: u64, point: LogPoint) -> Result<(), LogError> {
        let index = LogIndex(point.index.0.saturating_sub(1));
        let hash = self.hash_at(index).await?.unwrap_or_default();
        let before = LogPoint { index, hash };
        self.cut(before);
        self.hole(Some(segment), position, point.index, DamageKind::Hash, before);
        self.cover(point.index);
        self.end = point;
        Ok(())
    }

    fn hole(&mut self, segment: Option<usize>, position: u64, index: LogIndex, kind: DamageKind, before: LogPoint) {
        let (covered, is_in_file) = (false, false);
        self.holes.push(Hole {
            segment,
            position,
            first_index: index,
            last_index: index,
            kind,
            before,
            covered,
            is_in_file,
        });
    }

    /// Reports rot, and drops the torn end.
    fn settle_holes(&mut self) {
        let holes = std::mem::take(&mut self.holes);
        let torn = holes.iter().filter(|hole| !hole.covered).min_by_key(|hole| hole.first_index).cloned();
        let end = torn.as_ref().map_or(LogIndex(u64::MAX - 1), |hole| hole.before.index);
        let base_end = self.base.map_or(LogIndex(0), |base| self.segments[base].end.index);
        for hole in holes.iter().filter(|hole| hole.covered && hole.first_index <= end.next()) {
            let is_start = hole.before == LogPoint::START && hole.kind == DamageKind::Unreadable;
            // The state comes from a later snapshot.
            let is_below_base = hole.last_index <= base_end;
            if is_start && is_below_base && !hole.is_in_file {
                continue; // Retention took what stood there.
            }
            self.has_lost_beginning |= is_start && is_below_base;
            let last_index = match hole.kind {
                // The entries themselves are good.
                DamageKind::Padding => hole.before.index,
                _ => hole.last_index,
            };
            let kind = if is_start && !is_below_base { DamageKind::Snapshot } else { hole.kind.clone() };
            self.report(hole.segment, hole.position, hole.first_index, last_index, kind);
        }
        if let Some(hole) = torn {
            let unsealed = self.segments.iter().filter_map(LogSegment::unsealed);
            let void = unsealed.flat_map(|unsealed| unsealed.index.flushes_from(hole.first_index));
            self.torn_bytes += void.map(|flush| u64::from(flush.bytes)).sum::<u64>();
            self.cut(hole.before);
        } else {
            self.torn_bytes = 0;
        }
    }

    fn report(
        &mut self,
        segment: Option<usize>,
        position: u64,
        first_index: LogIndex,
        last_index: LogIndex,
        kind: DamageKind,
    ) {
        let Some(segment) = segment.or_else(|| self.segments.len().checked_sub(1)) else { return };
        let path = self.segments[segment].file.path.clone();
        let damage = Damage { path, position, first_index, last_index, kind };
        tracing::error!(%damage, "rot");
        self.damage.push(damage);
    }

    /// Settles where every segment starts and ends.
    fn settle_borders(&mut self) {
        let mut next = self.end;
        for segment in self.segments.iter_mut().rev() {
            if let Contents::Unsealed(unsealed) = &segment.contents {
                segment.end = next;
                segment.start = unsealed.index.start().unwrap_or(next);
            }
            next = segment.start;
        }
        let first = self.segments.first_mut().filter(|segment| segment.unsealed().is_some());
        if let Some(first) = first.filter(|_| self.has_lost_beginning) {
            first.start = LogPoint::START;
        }
    }

    /// The running hash at `index`, where it is known.
    async fn hash_at(&self, index: LogIndex) -> Result<Option<RunningHash>, LogError> {
        if index == self.end.index {
            return Ok(Some(self.end.hash));
        }
        let in_hole = |hole: &Hole| (hole.first_index..=hole.last_index).contains(&index);
        if index > self.end.index || self.holes.iter().any(in_hole) {
            return Ok(None);
        }
        if index == LogIndex(0) {
            return Ok(Some(RunningHash(0)));
        }
        for segment in &self.segments {
            let Some(unsealed) = segment.unsealed() else { continue };
            let Some(span) = unsealed.index.flushes_from(index).first().filter(|span| span.first_index <= index) else {
                continue;
            };
            let start = span.position - FLUSH_HEADER_BYTES as u64;
            let bytes = (FLUSH_HEADER_BYTES + span.bytes as usize).next_multiple_of(BLOCK_BYTES);
            let bytes = segment.file.read_damaged(self.disk, start, bytes, &mut Vec::new()).await?;
            let run = &(*bytes).as_ref()[FLUSH_HEADER_BYTES..FLUSH_HEADER_BYTES + span.bytes as usize];
            let mut at = 0;
            while let Ok(entry) = flush::entry_at(run, at) {
                if entry.header.index == index {
                    return Ok(Some(entry.header.running_hash));
                }
                at = entry.end();
            }
        }
        Ok(None)
    }
}

/// Reads a file front to back in large pieces.
struct Window<D: Disk> {
    file: Rc<SegmentFile<D>>,
    file_bytes: u64,
    start: u64,
    bytes: Option<SharedSlice>,
    /// Positions of blocks that could not be read.
    unreadable: Vec<u64>,
}

impl<D: Disk> Window<D> {
    fn new(file: Rc<SegmentFile<D>>) -> Self {
        let file_bytes = file.bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        Self { file, file_bytes, start: 0, bytes: None, unreadable: Vec::new() }
    }

    /// Whether a block of these bytes, which were looked at, could not be read.
    fn is_unreadable(&self, bytes: Range<u64>) -> bool {
        self.unreadable.iter().any(|position| bytes.contains(position))
    }

    async fn get(&mut self, disk: &D, position: u64, bytes: usize) -> Result<SharedSlice, LogError> {
        if let Some(window) = &self.bytes {
            let at = position.checked_sub(self.start).map_or(usize::MAX, |at| at as usize);
            if at.checked_add(bytes).is_some_and(|end| end <= window.len()) {
                return Ok(window.slice(at..at + bytes));
            }
        }
        let rest = (self.file_bytes - position) as usize;
        let length = bytes.max(READ_BYTES_MAX as usize).min(rest);
        let read = self.file.read_damaged(disk, position, length, &mut self.unreadable).await?;
        let window = SharedSlice::new(read, 0..length);
        self.start = position;
        self.bytes = Some(window.clone());
        Ok(window.slice(0..bytes))
    }
}
