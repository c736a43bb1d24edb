//! Opening a log: find its segments, verify footers, scan what has none, rebuild the state.
//!
//! Footers are read and verified whole; only segments without one are scanned. What was found is synced before it is called
//! durable: after a mere kill of the process, part of it may still be in a volatile cache.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use minikafka_core::limits::READ_BYTES_MAX;
use minikafka_core::{LogIndex, RangeKey};

use super::runs::Wanted;
use super::scan::Scan;
use super::state::{Inner, State};
use super::{Opened, RangeLog, RecoveryReport, RecoveryVisitor};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::{Damage, DamageKind, DiskError, DiskResult, LogError, ReadError};
use crate::footer::{self, Trailer};
use crate::segment::{Contents, LogSegment, SealedSegment, SegmentFile, SegmentName};
use crate::shard_storage::ShardStorage;
use crate::wait::{FifoGate, Notify};

/// The segments of a directory, oldest first, and the state from which the newest footer begins.
struct Loaded<D: Disk> {
    segments: Vec<LogSegment<D>>,
    /// The newest sealed segment.
    base: Option<usize>,
    snapshot: Option<Vec<u8>>,
}

/// Opens and recovers the log of `range`.
pub(super) async fn open<D: Disk>(
    storage: Rc<ShardStorage<D>>,
    range: RangeKey,
    visitor: &mut impl RecoveryVisitor,
) -> Result<Opened<D>, LogError> {
    let dir = storage.range_dir(range);
    let loaded = load(&storage.disk, &dir).await?;
    visitor.snapshot(loaded.snapshot.as_deref());
    let mut state = State::empty();
    state.last_segment_number = loaded.segments.last().map_or(0, LogSegment::number);
    state.snapshot_bytes = loaded.snapshot.as_ref().map_or(0, Vec::len);
    let mut scan = Scan::new(&storage.disk, visitor, loaded.segments, loaded.base);
    scan.run().await?;
    sync(&storage.disk, &dir, &scan.segments, scan.base).await?;
    let (torn_bytes, delivered, restart) = (scan.torn_bytes, scan.delivered, scan.restart);
    let has_cut = scan.has_cut;
    let unused = take_scan(&mut state, scan);
    for segment in unused {
        segment.close().await?;
        storage.pool.release(&segment.path, segment.bytes).await?;
    }
    let inner = Rc::new(Inner {
        storage,
        range,
        dir,
        state: RefCell::new(state),
        changed: Notify::default(),
        space: FifoGate::default(),
        listener: RefCell::new(None),
    });
    if has_cut {
        inner.refresh_last_entries().await?;
    }
    inner.settle_last_entry();
    if restart {
        inner.replay_from_footer(visitor).await?;
    } else {
        inner.replay(visitor, delivered).await?;
    }
    inner.seal_next();
    let log = RangeLog { inner };
    let report = report(&log, torn_bytes);
    Ok(Opened { log, report })
}

fn report<D: Disk>(log: &RangeLog<D>, torn_bytes: u64) -> RecoveryReport {
    let state = log.inner.state.borrow();
    RecoveryReport {
        end: state.end,
        first_index: state.first_index(),
        last_epoch: state.last_epoch,
        last_timestamp: state.last_timestamp,
        marker: state.marker,
        has_file: !state.segments.is_empty(),
        torn_bytes,
        damage: state.damage.clone(),
    }
}

/// Moves what the scan found into the state; returns the files that hold nothing.
fn take_scan<D: Disk, V>(state: &mut State<D>, scan: Scan<'_, D, V>) -> Vec<Rc<SegmentFile<D>>> {
    let has_flush = |segment: &LogSegment<D>| segment.unsealed().is_none_or(|unsealed| unsealed.write_position > 0);
    let active = scan.segments.iter().rposition(has_flush);
    let is_damaged = !scan.damage.is_empty();
    let mut unused = Vec::new();
    for (at, mut segment) in scan.segments.into_iter().enumerate() {
        // A void segment may hold the flush that cut the log to where it starts; it goes once a later entry cuts there, too.
        let is_void = segment.unsealed().is_some_and(|unsealed| unsealed.index.is_empty());
        let is_needed = Some(at) == active || is_damaged || segment.start.index >= scan.end.index;
        if Some(at) > active || (is_void && !is_needed) {
            unused.push(segment.file);
            continue;
        }
        if let Some(unsealed) = segment.unsealed_mut() {
            unsealed.rolled = Some(at) != active;
        }
        state.segments.push_back(segment);
    }
    state.end = scan.end;
    state.durable = scan.end.index;
    state.covered = scan.covered.min(scan.end.index);
    state.marker = scan.marker;
    state.last_flush_number = scan.last_flush_number;
    state.durable_flush_number = scan.last_flush_number;
    let fatal = scan.damage.iter().find(|damage| damage.first_index <= damage.last_index).cloned();
    state.failure = fatal.map(LogError::Damaged);
    state.lost = lost(&scan.damage);
    state.damage = scan.damage;
    unused
}

/// The stretch of entries that are in no index.
fn lost(damage: &[Damage]) -> Option<Damage> {
    let is_loss = |damage: &&Damage| {
        matches!(damage.kind, DamageKind::Unreadable | DamageKind::Snapshot) && damage.first_index <= damage.last_index
    };
    let last_index = damage.iter().filter(is_loss).map(|damage| damage.last_index).max()?;
    Some(Damage { last_index, ..damage.iter().find(is_loss)?.clone() })
}

async fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Loaded<D>, LogError> {
    let mut names = Vec::new();
    for file_name in disk.list(dir).await.on("list", dir)? {
        let path = dir.join(&file_name);
        match SegmentName::parse(&file_name) {
            Some(name) => names.push(name),
            None if file_name.ends_with(".tmp") => disk.remove(&path).await.on("remove", &path)?,
            None => tracing::warn!(path = %path.display(), "not a segment file, left alone"),
        }
    }
    names.sort();
    let mut loaded = Loaded { segments: Vec::new(), base: None, snapshot: None };
    for name in names {
        let (segment, snapshot) = load_segment(disk, dir, name).await?;
        if let Some(snapshot) = snapshot {
            loaded.base = Some(loaded.segments.len());
            loaded.snapshot = Some(snapshot);
        }
        loaded.segments.push(segment);
    }
    Ok(loaded)
}

/// A segment, and its snapshot when it has a footer.
async fn load_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
) -> Result<(LogSegment<D>, Option<Vec<u8>>), LogError> {
    let path = dir.join(name.file_name());
    let opened = disk.open(&path).await.on("open", &path)?;
    let bytes = opened.size().await.on("ask for the size of", &path)?;
    let file = Rc::new(SegmentFile::open(dir, name, bytes, opened));
    let mut segment = LogSegment::empty(file.clone(), minikafka_core::LogPoint::START);
    let Some((trailer, body)) = read_footer(disk, &file).await? else { return Ok((segment, None)) };
    segment.start = trailer.start;
    segment.end = trailer.end;
    let partitions = footer::decode_partitions(&trailer, &body);
    segment.contents = Contents::Sealed(Box::new(SealedSegment { trailer, partitions }));
    // Readers open it again; a log may have more sealed segments than the process may open files.
    file.close().await?;
    Ok((segment, Some(footer::snapshot(&trailer, &body).to_vec())))
}

/// The footer of a file, if it has one that verifies.
async fn read_footer<D: Disk>(disk: &D, file: &SegmentFile<D>) -> Result<Option<(Trailer, Vec<u8>)>, DiskError> {
    let block = BLOCK_BYTES as u64;
    let file_bytes = file.size(disk).await?;
    if file_bytes < block || !file_bytes.is_multiple_of(block) {
        return Ok(None);
    }
    let bytes = file.read(disk, file_bytes - block, BLOCK_BYTES).await?;
    let Some(trailer) = Trailer::decode((*bytes).as_ref(), file.name.generation) else { return Ok(None) };
    let end = trailer.footer_position.checked_add(trailer.padded_body_bytes());
    if end.is_none_or(|end| end > file_bytes - block) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while (body.len() as u64) < trailer.padded_body_bytes() {
        let rest = trailer.padded_body_bytes() as usize - body.len();
        let position = trailer.footer_position + body.len() as u64;
        let chunk = file.read(disk, position, rest.min(READ_BYTES_MAX as usize)).await?;
        body.extend_from_slice((*chunk).as_ref());
    }
    let is_good = footer::body_matches(&trailer, &body) && footer::decode_index(&trailer, &body).is_some();
    Ok(is_good.then_some((trailer, body)))
}

/// Makes durable what was found where that is not known: unsealed segments, the newest sealed one, and the names.
async fn sync<D: Disk>(disk: &D, dir: &Path, segments: &[LogSegment<D>], base: Option<usize>) -> Result<(), DiskError> {
    for (at, segment) in segments.iter().enumerate() {
        if segment.unsealed().is_some() || Some(at) == base {
            segment.file.file(disk).await?.sync().await.on("sync", &segment.file.path)?;
        }
    }
    if segments.is_empty() { Ok(()) } else { disk.sync_dir(dir).await.on("sync directory", dir) }
}

impl<D: Disk> Inner<D> {
    /// Reads again what is remembered of the last entry of each unsealed segment, after a cut.
    pub async fn refresh_last_entries(&self) -> Result<(), LogError> {
        let ends: Vec<(u64, LogIndex)> = {
            let state = self.state.borrow();
            let unsealed = state.segments.iter().filter(|segment| segment.unsealed().is_some());
            unsealed.map(|segment| (segment.number(), segment.end.index)).collect()
        };
        let mut last = self.state.borrow().sealed_last();
        for (number, index) in ends {
            match self.header_at(index).await {
                Ok(Some(header)) => last = (header.epoch, header.append_timestamp),
                Ok(None) | Err(ReadError::Damaged(_) | ReadError::Dropped { .. }) => {}
                Err(ReadError::Disk(error)) => return Err(error.into()),
            }
            let mut state = self.state.borrow_mut();
            let segment = state.segments.iter_mut().find(|segment| segment.number() == number);
            if let Some(unsealed) = segment.and_then(LogSegment::unsealed_mut) {
                (unsealed.last_epoch, unsealed.last_timestamp) = last;
            }
        }
        Ok(())
    }

    /// Takes epoch and time of the log's last entry from the last segment that has one, and hands them on to void ones.
    pub fn settle_last_entry(&self) {
        let mut state = self.state.borrow_mut();
        let mut last = state.sealed_last();
        let newest_sealed = state.segments.iter().rposition(|segment| segment.sealed().is_some());
        let first = newest_sealed.map_or(0, |at| at + 1);
        for unsealed in state.segments.range_mut(first..).filter_map(LogSegment::unsealed_mut) {
            if unsealed.index.is_empty() {
                unsealed.set_last_before(last.0, last.1);
            } else {
                last = (unsealed.last_epoch, unsealed.last_timestamp);
            }
        }
        (state.last_epoch, state.last_timestamp) = last;
    }

    /// Rebuilds the visitor's state from the newest footer on.
    pub async fn replay_from_footer(&self, visitor: &mut impl RecoveryVisitor) -> Result<(), LogError> {
        let newest = {
            let mut state = self.state.borrow_mut();
            for unsealed in state.segments.iter_mut().filter_map(LogSegment::unsealed_mut) {
                unsealed.snapshot = None;
            }
            let newest = state.segments.iter().rev().find(|segment| segment.sealed().is_some());
            newest.map(|segment| (segment.file.clone(), segment.end.index))
        };
        let Some((file, end)) = newest else {
            visitor.snapshot(None);
            return self.replay(visitor, LogIndex(0)).await;
        };
        match read_footer(&self.storage.disk, &file).await? {
            Some((trailer, body)) => visitor.snapshot(Some(footer::snapshot(&trailer, &body))),
            None => {
                let reason = "its footer no longer verifies; repair this range from another member of its chain";
                return Err(LogError::Format { path: file.path.clone(), reason: reason.to_owned() });
            }
        }
        self.replay(visitor, end).await
    }

    /// Gives the visitor every entry above `after`, and each rolled segment its snapshot.
    pub async fn replay(&self, visitor: &mut impl RecoveryVisitor, mut after: LogIndex) -> Result<(), LogError> {
        let end = self.state.borrow().end.index;
        let mut told = Vec::new();
        loop {
            let runs = match self.plan(Wanted::Everything, after, end, READ_BYTES_MAX as usize).await {
                Ok(runs) => runs,
                Err(error) => return Err(log_error(error)),
            };
            let Some(last) = runs.last().map(|run| run.last_index) else { break };
            for fetched in self.fetch(runs).await.map_err(log_error)? {
                self.tell_damage(visitor, fetched.run.first_index, &mut told);
                self.take_snapshots(visitor, fetched.run.segment.name.number);
                let walked = self.walk(&fetched, |entry, check| {
                    if entry.header.index <= after {
                        return Ok(false);
                    }
                    match check() {
                        Ok(()) => visitor.entry(&entry.header, entry.body(&fetched.bytes)),
                        Err(_) => self.tell_damage(visitor, entry.header.index.next(), &mut told),
                    }
                    Ok(false)
                });
                if walked.is_err() {
                    self.tell_damage(visitor, fetched.run.last_index.next(), &mut told);
                }
            }
            after = last;
        }
        self.tell_damage(visitor, LogIndex(u64::MAX), &mut told);
        let active = self.state.borrow().segments.back().map_or(0, LogSegment::number);
        self.take_snapshots(visitor, active);
        Ok(())
    }

    /// Tells the visitor of damage below `index` that it was not told of.
    fn tell_damage(&self, visitor: &mut impl RecoveryVisitor, index: LogIndex, told: &mut Vec<LogIndex>) {
        let damage = self.state.borrow().damage.clone();
        for damage in damage.iter().filter(|damage| damage.first_index < index) {
            if damage.first_index <= damage.last_index && !told.contains(&damage.first_index) {
                told.push(damage.first_index);
                visitor.damaged(damage);
            }
        }
    }

    /// Gives the unsealed segments numbered below `number` the state as of now.
    fn take_snapshots(&self, visitor: &mut impl RecoveryVisitor, number: u64) {
        let mut state = self.state.borrow_mut();
        let newest = state.segments.iter().rev().find(|segment| segment.sealed().is_some()).map(LogSegment::number);
        for segment in state.segments.iter_mut() {
            if segment.number() >= number || Some(segment.number()) < newest {
                continue;
            }
            if let Some(unsealed) = segment.unsealed_mut()
                && unsealed.snapshot.is_none()
            {
                unsealed.snapshot = Some(visitor.take_snapshot());
            }
        }
    }
}

impl<D: Disk> State<D> {
    /// Epoch and time of the last entry in a sealed segment.
    fn sealed_last(&self) -> (minikafka_core::Epoch, minikafka_core::Timestamp) {
        let sealed = self.segments.iter().rev().find_map(LogSegment::sealed);
        sealed.map_or_else(Default::default, |sealed| (sealed.trailer.last_epoch, sealed.trailer.last_timestamp))
    }
}

fn log_error(error: ReadError) -> LogError {
    match error {
        ReadError::Disk(error) => error.into(),
        ReadError::Damaged(damage) => LogError::Damaged(damage),
        ReadError::Dropped { index, first } => unreachable!("plans begin at {first}, not at the dropped {index}"),
    }
}
