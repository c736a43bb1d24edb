//! Opening a log: find its segments, verify footers, scan what has none, rebuild the state.
//!
//! Footers are read and verified whole; only segments without one are scanned. What was found is synced before it is called
//! durable: after a mere kill of the process, part of it may still be in a volatile cache.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::limits::READ_BYTES_MAX;
use minikafka_core::{LogIndex, LogPoint, RangeKey};

use super::checkpoint::{self, CHECKPOINT_NAME};
use super::runs::Wanted;
use super::scan::Scan;
use super::state::{Inner, State};
use super::{Opened, RangeLog, RecoveryReport, RecoveryVisitor};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::{Damage, DamageKind, DiskError, DiskResult, LogError, ReadError};
use crate::footer::{self, Trailer};
use crate::freed_runs;
use crate::segment::{self, Contents, LogSegment, SealedSegment, SegmentFile, SegmentName};
use crate::shard_storage::ShardStorage;

/// The segments of a directory, oldest first, and the state from which the newest footer begins.
struct Loaded<D: Disk> {
    segments: Vec<LogSegment<D>>,
    /// The newest sealed segment.
    base: Option<usize>,
    snapshot: Option<Vec<u8>>,
    /// Footers and sidecars that were there and are not whole.
    damage: Vec<Damage>,
}

/// Opens and recovers the log of `range`.
pub(super) async fn open<D: Disk>(
    storage: Rc<ShardStorage<D>>,
    range: RangeKey,
    visitor: &mut impl RecoveryVisitor,
) -> Result<Opened<D>, LogError> {
    let (inner, report) = recover(storage, range, visitor).await?;
    inner.seal_next();
    Ok(Opened { log: RangeLog { inner }, report })
}

/// Recovers the log of `range`; nothing is written to it yet.
pub(super) async fn recover<D: Disk>(
    storage: Rc<ShardStorage<D>>,
    range: RangeKey,
    visitor: &mut impl RecoveryVisitor,
) -> Result<(Rc<Inner<D>>, RecoveryReport), LogError> {
    let dir = storage.range_dir(range);
    let mut loaded = load(&storage.disk, &dir).await?;
    let is_sound = loaded.damage.is_empty();
    if let Some(snapshot) = checkpoint::take(&storage.disk, &dir, &mut loaded.segments, is_sound).await? {
        visitor.snapshot(Some(&snapshot));
        return open_at_checkpoint(storage, range, dir, loaded.segments, snapshot.len()).await;
    }
    visitor.snapshot(loaded.snapshot.as_deref());
    let mut state = State::empty();
    state.last_segment_number = loaded.segments.last().map_or(0, LogSegment::number);
    state.snapshot_bytes = loaded.snapshot.as_ref().map_or(0, Vec::len);
    let mut scan = Scan::new(&storage.disk, visitor, range, loaded.segments, loaded.base, loaded.damage);
    scan.run().await?;
    sync(&storage.disk, &dir, &scan.segments, scan.base).await?;
    let (torn_bytes, delivered, restart) = (scan.torn_bytes, scan.delivered, scan.restart);
    let has_cut = scan.has_cut;
    let unused = take_scan(&mut state, scan);
    release(&storage, unused).await?;
    let inner = Rc::new(Inner::new(storage, range, dir, state));
    if has_cut {
        inner.refresh_last_entries().await?;
        inner.settle_cut_extents().await?;
    }
    inner.settle_last_entry();
    if restart {
        inner.replay_from_footer(visitor).await?;
    } else {
        inner.replay(visitor, delivered).await?;
    }
    let report = report(&inner, torn_bytes);
    Ok((inner, report))
}

/// Opens a log that stopped cleanly: its segments are filled in, its state is told.
async fn open_at_checkpoint<D: Disk>(
    storage: Rc<ShardStorage<D>>,
    range: RangeKey,
    dir: PathBuf,
    segments: Vec<LogSegment<D>>,
    snapshot_bytes: usize,
) -> Result<(Rc<Inner<D>>, RecoveryReport), LogError> {
    let (state, unused) = checkpoint::restored_state(segments, snapshot_bytes);
    release(&storage, unused).await?;
    let inner = Rc::new(Inner::new(storage, range, dir, state));
    inner.settle_last_entry();
    let report = RecoveryReport { from_checkpoint: true, ..report(&inner, 0) };
    Ok((inner, report))
}

/// Gives files that hold nothing back to the pool.
async fn release<D: Disk>(storage: &ShardStorage<D>, unused: Vec<Rc<SegmentFile<D>>>) -> Result<(), LogError> {
    for segment in unused {
        segment.close().await?;
        storage.pool.release(&segment.path, segment.bytes).await?;
    }
    Ok(())
}

fn report<D: Disk>(inner: &Inner<D>, torn_bytes: u64) -> RecoveryReport {
    let state = inner.state.borrow();
    RecoveryReport {
        end: state.end,
        first_index: state.first_index(),
        last_epoch: state.last_epoch,
        last_timestamp: state.last_timestamp,
        marker: state.marker,
        has_file: !state.segments.is_empty(),
        torn_bytes,
        from_checkpoint: false,
        damage: state.damage.clone(),
        loss: state.loss.clone(),
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
    // What lies below the newest snapshot is in it.
    let base_end = scan.base.map_or(LogIndex(0), |base| state.segments[base].end.index);
    state.lost = scan.damage.iter().filter(|damage| is_loss(damage)).cloned().collect();
    state.loss = state.lost.iter().find(|damage| damage.last_index > base_end).cloned();
    state.damage = scan.damage;
    unused
}

/// Whether entries are concerned that the fold misses.
fn is_loss(damage: &Damage) -> bool {
    damage.kind.loses_state() && damage.first_index <= damage.last_index
}

async fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Loaded<D>, LogError> {
    let (mut names, mut sidecars) = (Vec::new(), Vec::new());
    for file_name in disk.list(dir).await.on("list", dir)? {
        let path = dir.join(&file_name);
        match SegmentName::parse(&file_name) {
            Some(name) => names.push(name),
            None if let Some(name) = freed_runs::parse_sidecar(&file_name) => sidecars.push(name),
            None if file_name.ends_with(".tmp") => disk.remove(&path).await.on("remove", &path)?,
            None if file_name == CHECKPOINT_NAME => {}
            None => tracing::warn!(path = %path.display(), "not a segment file, left alone"),
        }
    }
    names.sort();
    remove_replaced(disk, dir, &mut names).await?;
    freed_runs::remove_orphans(disk, dir, &names, &sidecars).await?;
    let mut loaded = Loaded { segments: Vec::new(), base: None, snapshot: None, damage: Vec::new() };
    for name in names {
        let (segment, snapshot) = load_segment(disk, dir, name, sidecars.contains(&name), &mut loaded.damage).await?;
        loaded.damage.extend(segment.sidecar_damage());
        if let Some(snapshot) = snapshot {
            loaded.base = Some(loaded.segments.len());
            loaded.snapshot = Some(snapshot);
        }
        loaded.segments.push(segment);
    }
    Ok(loaded)
}

/// Removes segments in whose place there is a mended one.
async fn remove_replaced<D: Disk>(disk: &D, dir: &Path, names: &mut Vec<SegmentName>) -> Result<(), DiskError> {
    let replaced = segment::take_replaced(names);
    if replaced.is_empty() {
        return Ok(());
    }
    // After a mere kill the mended ones may not be durable under their names.
    disk.sync_dir(dir).await.on("sync directory", dir)?;
    for name in &replaced {
        let path = dir.join(name.file_name());
        disk.remove(&path).await.on("remove", &path)?;
    }
    disk.sync_dir(dir).await.on("sync directory", dir)
}

/// A segment, and its snapshot when it has a footer.
async fn load_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
    has_sidecar: bool,
    damage: &mut Vec<Damage>,
) -> Result<(LogSegment<D>, Option<Vec<u8>>), LogError> {
    let path = dir.join(name.file_name());
    let opened = match disk.open(&path).await {
        Ok(file) => file.size().await.map(|bytes| (file, bytes)),
        Err(error) => Err(error),
    };
    let file = match opened.on("open", &path) {
        Ok((file, bytes)) => Rc::new(SegmentFile::open(dir, name, bytes, file)),
        Err(error) if error.is_of_file() => {
            tracing::error!(%error, "a segment cannot be opened, its entries are missing");
            let file = Rc::new(SegmentFile::unreadable(dir, name, error));
            return Ok((LogSegment::empty(file, LogPoint::START), None));
        }
        Err(error) => return Err(error.into()),
    };
    if has_sidecar {
        file.set_punched();
    }
    let mut segment = LogSegment::empty(file.clone(), LogPoint::START);
    let (trailer, body) = match read_footer(disk, &file).await? {
        Footer::Good(trailer, body) => (*trailer, body),
        Footer::None => return Ok((segment, None)),
        Footer::Damaged(position) => {
            // No entry is concerned: the segment's flushes are scanned instead.
            let (first_index, last_index) = (LogIndex(1), LogIndex(0));
            let found = Damage { path: path.clone(), position, first_index, last_index, kind: DamageKind::Footer };
            tracing::error!(damage = %found, "rot");
            damage.push(found);
            return Ok((segment, None));
        }
    };
    segment.start = trailer.start;
    segment.end = trailer.end;
    let mut sealed = SealedSegment::new(trailer, &body);
    if has_sidecar {
        sealed = sealed.with_sidecar(&body, freed_runs::read(disk, &path, &trailer).await?);
    }
    segment.contents = Contents::Sealed(Box::new(sealed));
    // Readers open it again; a log may have more sealed segments than the process may open files.
    file.close().await?;
    Ok((segment, Some(footer::snapshot(&trailer, &body).to_vec())))
}

/// What stands where a footer should be.
pub(super) enum Footer {
    Good(Box<Trailer>, Vec<u8>),
    /// Nothing, or what a crash left of one.
    None,
    /// One that was whole once, and what is wrong with it is here.
    Damaged(u64),
}

/// The footer of a file. A torn trailer has its first sector or has it not; the body is durable before.
pub(super) async fn read_footer<D: Disk>(disk: &D, file: &SegmentFile<D>) -> Result<Footer, DiskError> {
    let block = BLOCK_BYTES as u64;
    let file_bytes = file.size(disk).await?;
    if file_bytes < block || !file_bytes.is_multiple_of(block) {
        return Ok(Footer::None);
    }
    let place = file_bytes - block;
    let mut unreadable = Vec::new();
    let bytes = file.read_damaged(disk, place, BLOCK_BYTES, &mut unreadable).await?;
    let Some(trailer) = Trailer::decode((*bytes).as_ref(), file.name.generation) else {
        let is_rot = !unreadable.is_empty() || footer::is_rotten_trailer((*bytes).as_ref(), file.name.generation);
        return Ok(if is_rot { Footer::Damaged(place) } else { Footer::None });
    };
    let end = trailer.footer_position.checked_add(trailer.padded_body_bytes());
    if end.is_none_or(|end| end > place) {
        return Ok(Footer::Damaged(place));
    }
    let mut body = Vec::new();
    while (body.len() as u64) < trailer.padded_body_bytes() {
        let rest = trailer.padded_body_bytes() as usize - body.len();
        let position = trailer.footer_position + body.len() as u64;
        let chunk = file.read_damaged(disk, position, rest.min(READ_BYTES_MAX as usize), &mut unreadable).await?;
        body.extend_from_slice((*chunk).as_ref());
    }
    let is_good = footer::body_matches(&trailer, &body) && footer::decode_index(&trailer, &body).is_some();
    Ok(if is_good { Footer::Good(Box::new(trailer), body) } else { Footer::Damaged(trailer.footer_position) })
}

/// Makes durable what was found where that is not known: unsealed segments, the newest sealed one, and the names.
async fn sync<D: Disk>(disk: &D, dir: &Path, segments: &[LogSegment<D>], base: Option<usize>) -> Result<(), DiskError> {
    for (at, segment) in segments.iter().enumerate() {
        if (segment.unsealed().is_some() || Some(at) == base) && !segment.file.is_failed() {
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
                Ok(None) | Err(ReadError::Damaged(_) | ReadError::Dropped { .. } | ReadError::Freed { .. }) => {}
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
            Footer::Good(trailer, body) => visitor.snapshot(Some(footer::snapshot(&trailer, &body))),
            Footer::None | Footer::Damaged(_) => {
                let reason = "its footer no longer verifies; repair this range from another member of its chain";
                return Err(LogError::Format { path: file.path.clone(), reason: reason.to_owned() });
            }
        }
        self.replay(visitor, end).await
    }

    /// Gives the visitor every entry above `after`, and each rolled segment its snapshot.
    pub async fn replay(&self, visitor: &mut impl RecoveryVisitor, mut after: LogIndex) -> Result<(), LogError> {
        let end = self.state.borrow().end.index;
        let mut untold = self.losses_above(after);
        loop {
            let runs = match self.plan(Wanted::Everything, after, end, READ_BYTES_MAX as usize).await {
                Ok(runs) => runs,
                Err(error) => return Err(log_error(error)),
            };
            let Some(last) = runs.last().map(|run| run.last_index) else { break };
            for fetched in self.fetch(runs).await.map_err(log_error)? {
                self.take_snapshots(visitor, fetched.run.segment.name.number);
                let walked = self.walk(&fetched, |entry, check| {
                    let header = &entry.header;
                    if header.index <= after {
                        return Ok(false);
                    }
                    while untold.front().is_some_and(|lost| lost.first_index < header.index)
                        && let Some(lost) = untold.pop_front()
                    {
                        visitor.damaged(&lost);
                    }
                    match check() {
                        Err(ReadError::Damaged(Damage { kind: DamageKind::Body, .. })) => visitor.header(header),
                        Err(ReadError::Damaged(Damage { kind: DamageKind::Padding, .. })) | Ok(()) => {
                            visitor.entry(header, entry.body(&fetched.bytes));
                        }
                        Err(ReadError::Damaged(damage)) => self.note_loss(&damage, visitor),
                        Err(error) => return Err(error),
                    }
                    Ok(false)
                });
                match walked {
                    Err(ReadError::Damaged(damage)) => self.note_loss(&damage, visitor),
                    Err(error) => return Err(log_error(error)),
                    Ok(_) => {}
                }
            }
            after = last;
        }
        untold.iter().for_each(|lost| visitor.damaged(lost));
        let active = self.state.borrow().segments.back().map_or(0, LogSegment::number);
        self.take_snapshots(visitor, active);
        Ok(())
    }

    /// What was lost above an index, in order.
    fn losses_above(&self, after: LogIndex) -> VecDeque<Damage> {
        let state = self.state.borrow();
        let mut losses: Vec<Damage> = state.lost.iter().filter(|lost| lost.last_index > after).cloned().collect();
        losses.sort_by_key(|lost| lost.first_index);
        losses.into()
    }

    /// Takes damage into account that the replay met and the scan did not: it came in between.
    fn note_loss(&self, damage: &Damage, visitor: &mut impl RecoveryVisitor) {
        let mut state = self.state.borrow_mut();
        let holds = |lost: &Damage| lost.first_index <= damage.first_index && damage.last_index <= lost.last_index;
        if is_loss(damage) && !state.lost.iter().any(holds) {
            state.lost.push(damage.clone());
            state.loss.get_or_insert_with(|| damage.clone());
            visitor.damaged(damage);
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

pub(super) fn log_error(error: ReadError) -> LogError {
    match error {
        ReadError::Freed { run } => unreachable!("nothing is freed above a footer, but {run:?} was"),
        ReadError::Disk(error) => error.into(),
        ReadError::Damaged(damage) => LogError::Damaged(damage),
        ReadError::Dropped { index, first } => unreachable!("plans begin at {first}, not at the dropped {index}"),
    }
}
