//! What counts: the rules of `docs/DATA_FILE.md`, section 3, applied to the segments of one log in order.
//!
//! The scan takes footers and flushes in the order they were written and keeps the log as it stood after each: a flush that
//! begins at or below the end cuts it, one that begins above leaves a hole. Only at the end is every hole either rot (some
//! later flush knew it durable: reported) or the torn end (all above is dropped).

use std::rc::Rc;

use minikafka_core::limits::READ_BYTES_MAX;
use minikafka_core::{Epoch, LogIndex, LogPoint, RunningHash};

use super::RecoveryVisitor;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{Damage, DamageKind, LogError};
use crate::flush::{self, FLUSH_HEADER_BYTES, FlushHeader};
use crate::footer::Trailer;
use crate::segment::{Contents, LogSegment, SegmentFile};
use crate::slice::SharedSlice;

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
    /// The last hole reaches to where the next flush begins.
    gap_open: bool,
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
}

impl<'a, D: Disk, V: RecoveryVisitor> Scan<'a, D, V> {
    /// A scan of `segments`, whose state begins with the sealed segment `base`.
    pub fn new(disk: &'a D, visitor: &'a mut V, segments: Vec<LogSegment<D>>, base: Option<usize>) -> Self {
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
            damage: Vec::new(),
            sealed_end: LogIndex(0),
            holes: Vec::new(),
            gap_open: false,
        }
    }

    /// Takes every segment into account, then settles what the holes are.
    pub async fn run(&mut self) -> Result<(), LogError> {
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
        self.settle_holes();
        self.settle_borders();
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
        } else if trailer.start.hash != self.end.hash {
            self.report(Some(at), 0, trailer.start.index.next(), trailer.start.index, DamageKind::Hash);
        }
        self.cover(trailer.end.index);
        self.gap_open = false;
        self.end = trailer.end;
        self.sealed_end = trailer.end.index;
        self.last_flush_number = self.last_flush_number.max(trailer.last_flush_number.0);
        self.marker = self.marker.max(trailer.marker);
    }

    async fn scan_segment(&mut self, at: usize) -> Result<(), LogError> {
        let mut window = Window::new(self.segments[at].file.clone());
        let mut position = 0;
        while position + BLOCK_BYTES as u64 <= window.file_bytes {
            let block = window.get(self.disk, position, BLOCK_BYTES).await?;
            let generation = self.segments[at].file.name.generation;
            let counting = FlushHeader::decode(&block).filter(|header| {
                header.generation == generation
                    && header.number.0 > self.last_flush_number
                    && position + header.padded_bytes() as u64 <= window.file_bytes
            });
            let taken = match counting {
                Some(header) => {
                    let bytes = window.get(self.disk, position, header.padded_bytes()).await?;
                    self.take_flush(at, position, &header, &bytes).await?
                }
                None => 0,
            };
            position += (taken as u64).max(BLOCK_BYTES as u64);
        }
        Ok(())
    }

    /// Takes a flush into account; the bytes it takes, or 0 when it does not count.
    async fn take_flush(
        &mut self,
        at: usize,
        position: u64,
        header: &FlushHeader,
        bytes: &[u8],
    ) -> Result<usize, LogError> {
        let previous = header.previous();
        if previous.index < self.sealed_end {
            self.report(Some(at), position, header.first_index, previous.index, DamageKind::Hash);
            return Ok(0);
        }
        let known = self.hash_at(previous.index).await?;
        self.last_flush_number = header.number.0;
        self.marker = self.marker.max(header.marker);
        self.cover(header.durable_index);
        if known.is_some_and(|hash| hash != previous.hash) {
            self.replace(at, position, previous).await?;
        } else if previous.index < self.end.index
            || self.holes.iter().any(|hole| hole.first_index >= header.first_index)
        {
            self.cut(previous);
        } else if previous.index > self.end.index {
            self.open_gap(Some(at), position, previous);
        }
        self.gap_open = false;
        self.take_entries(at, position, header, bytes);
        let unsealed = self.segments[at].unsealed_mut().expect("flushes are scanned in unsealed segments");
        unsealed.write_position = position + header.padded_bytes() as u64;
        unsealed.last_flush_number = header.number;
        unsealed.marker = unsealed.marker.max(header.marker);
        Ok(header.padded_bytes())
    }

    fn take_entries(&mut self, at: usize, position: u64, header: &FlushHeader, bytes: &[u8]) {
        let run = &bytes[..header.length as usize];
        let mut from = FLUSH_HEADER_BYTES;
        let mut before_last = self.end;
        while from < run.len() {
            let index = self.end.index.next();
            let entry = match flush::entry_at(run, from) {
                Ok(entry) if entry.header.index == index => entry,
                _ => {
                    self.hole(Some(at), position + from as u64, index, DamageKind::Unreadable, self.end);
                    self.gap_open = true;
                    self.torn_bytes += (run.len() - from) as u64;
                    return;
                }
            };
            let kind = if entry.header.hash_after(self.end.hash) != entry.header.running_hash {
                Some(DamageKind::Hash)
            } else {
                entry.check_body(run).err()
            };
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
            self.hole(segment, position, first_index, DamageKind::Unreadable, self.end);
        }
        if let Some(hole) = self.holes.last_mut() {
            hole.last_index = next.index;
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
        let hole = Hole { segment, position, first_index: index, last_index: index, kind, before, covered: false };
        self.holes.push(hole);
    }

    /// Reports rot, and drops the torn end.
    fn settle_holes(&mut self) {
        let holes = std::mem::take(&mut self.holes);
        let torn = holes.iter().filter(|hole| !hole.covered).min_by_key(|hole| hole.first_index).cloned();
        let end = torn.as_ref().map_or(LogIndex(u64::MAX), |hole| hole.before.index);
        for hole in holes.iter().filter(|hole| hole.covered && hole.first_index <= end) {
            let last_index = match hole.kind {
                // The entries themselves are good.
                DamageKind::Padding => hole.before.index,
                _ => hole.last_index,
            };
            let is_start = hole.before == LogPoint::START && hole.kind == DamageKind::Unreadable;
            let kind = if is_start { DamageKind::Snapshot } else { hole.kind.clone() };
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
            let bytes = segment.file.read(self.disk, start, bytes).await?;
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
}

impl<D: Disk> Window<D> {
    fn new(file: Rc<SegmentFile<D>>) -> Self {
        let file_bytes = file.bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        Self { file, file_bytes, start: 0, bytes: None }
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
        let read = self.file.read(disk, position, length).await?;
        let window = SharedSlice::new(read, 0..length);
        self.start = position;
        self.bytes = Some(window.clone());
        Ok(window.slice(0..bytes))
    }
}
