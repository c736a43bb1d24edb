//! Runs: stretches of whole entries, found through the indexes, fetched from memory or by few aligned reads.

use std::ops::Range;
use std::rc::Rc;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use minikafka_core::limits::{READ_BYTES_MAX, READ_GAP_BYTES_MAX, READS_IN_FLIGHT_MAX};
use minikafka_core::{LogIndex, Offset, PartitionKey, RunningHash};

use super::state::{Inner, State};
use crate::disk::{BLOCK_BYTES, Disk, SharedBytes};
use crate::error::{Damage, DamageKind, ReadError};
use crate::footer::{self, Trailer};
use crate::freed_runs::Piece;
use crate::index::{Extent, SegmentIndex};
use crate::segment::{Contents, SegmentFile};
use crate::slice::SharedSlice;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Entries of a partition from an offset on.
    Partition(PartitionKey, Offset),
    /// All entries.
    Everything,
}

/// A stretch of whole entries with consecutive indexes.
pub(super) struct Run<D: Disk> {
    pub segment: Rc<SegmentFile<D>>,
    pub position: u64,
    pub bytes: u32,
    pub first_index: LogIndex,
    pub last_index: LogIndex,
    /// Running hash before the first entry, where it is known.
    pub previous_hash: Option<RunningHash>,
    /// Set when it was in memory; what comes from disk is verified.
    memory: Option<SharedSlice>,
}

/// A run with its bytes.
pub(super) struct FetchedRun<D: Disk> {
    pub run: Run<D>,
    pub bytes: SharedSlice,
    pub from_disk: bool,
}

/// Runs of one segment.
struct Planned<D: Disk> {
    runs: Vec<Run<D>>,
    /// There are more, which would be too much.
    is_full: bool,
}

/// How much is planned.
#[derive(Clone, Copy)]
struct Room {
    bytes: usize,
    /// Nothing is planned yet: one run is taken, whatever its size.
    is_empty: bool,
}

/// Where a segment's index is.
enum IndexPlace<D: Disk> {
    /// In the state: its runs were taken already.
    Taken(Planned<D>),
    /// In a footer that must be looked up.
    Footer(Rc<SegmentFile<D>>, Trailer),
}

impl<D: Disk> Inner<D> {
    /// Runs that may hold what is `wanted` at indexes above `after` and up to `up_to`, of about `bytes_max` bytes but one at
    /// least if there is one.
    pub async fn plan(
        &self,
        wanted: Wanted,
        after: LogIndex,
        up_to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Run<D>>, ReadError> {
        let mut runs: Vec<Run<D>> = Vec::new();
        let mut room = Room { bytes: bytes_max.max(1), is_empty: true };
        let mut number = self.first_segment(wanted, after).await?;
        while let Some((this, place)) = number.and_then(|number| self.index_place(number, wanted, after..up_to, room)) {
            let found = match place {
                IndexPlace::Taken(found) => found,
                IndexPlace::Footer(segment, trailer) => {
                    let index = self.load_index(&segment, &trailer).await?;
                    self.state.borrow().runs_of(&segment, &index, wanted, after..up_to, room)
                }
            };
            let bytes = found.runs.iter().map(|run| run.bytes as usize).sum();
            runs.extend(found.runs);
            room = Room { bytes: room.bytes.saturating_sub(bytes), is_empty: runs.is_empty() };
            if found.is_full || room.bytes == 0 {
                break;
            }
            number = Some(this + 1);
        }
        Ok(runs)
    }

    /// The bytes of runs, in order; runs near each other share a read.
    pub async fn fetch(&self, runs: Vec<Run<D>>) -> Result<Vec<FetchedRun<D>>, ReadError> {
        let groups: Vec<Vec<_>> = self.fetch_in_order(runs).try_collect().await?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// The same, group after group as they come in.
    pub fn fetch_in_order(&self, runs: Vec<Run<D>>) -> impl Stream<Item = Result<Vec<FetchedRun<D>>, ReadError>> {
        stream::iter(group(runs)).map(|group| self.fetch_group(group)).buffered(READS_IN_FLIGHT_MAX)
    }

    /// The index of a sealed segment, from the cache or its footer.
    pub async fn load_index(
        &self,
        segment: &Rc<SegmentFile<D>>,
        trailer: &Trailer,
    ) -> Result<Rc<SegmentIndex>, ReadError> {
        if let Some(index) = self.storage.footers.get(trailer.generation) {
            return Ok(index);
        }
        let bytes = trailer.padded_body_bytes() as usize;
        let mut unreadable = Vec::new();
        let position = trailer.footer_position;
        let body = segment.read_damaged(&self.storage.disk, position, bytes, &mut unreadable).await?;
        let body = (*body).as_ref();
        let index = if footer::body_matches(trailer, body) { footer::decode_index(trailer, body) } else { None };
        let Some(index) = index else {
            let damage = Damage {
                path: segment.path.clone(),
                position: trailer.footer_position,
                first_index: trailer.start.index.next(),
                last_index: trailer.end.index,
                kind: DamageKind::Footer,
            };
            self.state.borrow_mut().note_damage(&damage);
            return Err(ReadError::Damaged(damage));
        };
        let index = Rc::new(index);
        self.storage.footers.insert(trailer.generation, index.clone());
        Ok(index)
    }

    /// The first segment numbered `number` or above, and its runs or where to find them.
    fn index_place(
        &self,
        number: u64,
        wanted: Wanted,
        range: Range<LogIndex>,
        room: Room,
    ) -> Option<(u64, IndexPlace<D>)> {
        let state = self.state.borrow();
        let at = state.segments.partition_point(|segment| segment.number() < number);
        let segment = state.segments.get(at)?;
        if segment.start.index >= range.end {
            return None;
        }
        let place = match &segment.contents {
            Contents::Unsealed(unsealed) => {
                IndexPlace::Taken(state.runs_of(&segment.file, &unsealed.index, wanted, range, room))
            }
            Contents::Sealed(sealed) => match wanted {
                Wanted::Partition(partition, _) if !sealed.filter.may_contain(partition) => {
                    IndexPlace::Taken(Planned { runs: Vec::new(), is_full: false })
                }
                _ => IndexPlace::Footer(segment.file.clone(), sealed.trailer),
            },
        };
        Some((segment.number(), place))
    }

    async fn fetch_group(&self, group: Vec<Run<D>>) -> Result<Vec<FetchedRun<D>>, ReadError> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(Vec::new()) };
        let (start, end) = whole_blocks(first.position, last.position + u64::from(last.bytes));
        let bytes: Option<SharedBytes> = if first.memory.is_some() {
            None
        } else {
            let bytes = (end - start) as usize;
            Some(first.segment.read_damaged(&self.storage.disk, start, bytes, &mut Vec::new()).await?)
        };
        let fetched = group.into_iter().filter_map(|mut run| {
            let slice = match (&bytes, run.memory.take()) {
                (_, Some(memory)) => memory,
                (Some(bytes), None) => {
                    let at = (run.position - start) as usize;
                    SharedSlice::new(bytes.clone(), at..at + run.bytes as usize)
                }
                (None, None) => return None,
            };
            Some(FetchedRun { run, bytes: slice, from_disk: bytes.is_some() })
        });
        Ok(fetched.collect())
    }
}

impl<D: Disk> State<D> {
    /// Runs of one segment with indexes above `range.start` and up to `range.end`, as far as there is room. Of everything only
    /// whole flushes are taken that fit: what is read of one and not used would be read again.
    fn runs_of(
        &self,
        segment: &Rc<SegmentFile<D>>,
        index: &SegmentIndex,
        wanted: Wanted,
        range: Range<LogIndex>,
        room: Room,
    ) -> Planned<D> {
        let (mut taken, mut is_full) = (0, false);
        let freed = self.freed_of(segment.name.number);
        let hash_before = |index_wanted: LogIndex| {
            let flush = index.flushes_from(index_wanted).first().filter(|flush| flush.first_index == index_wanted);
            flush.map(|flush| flush.previous_hash)
        };
        let from_extent = |extent: &Extent| (extent.position, extent.bytes, extent.first_index, extent.last_index);
        // An extent that was freed in part is of a dead partition, or of dead offsets.
        let is_left = |extent: &&Extent| freed.overlapping(extent.first_index, extent.last_index).is_none();
        let is_above = |(_, _, _, last): &Piece| *last > range.start;
        let fits = |(_, bytes, first, _): &Piece| {
            if *first > range.end {
                return false;
            }
            let needs_all = matches!(wanted, Wanted::Everything) && (taken > 0 || !room.is_empty);
            is_full = taken + if needs_all { *bytes as usize } else { 1 } > room.bytes;
            taken += *bytes as usize;
            !is_full
        };
        let run = |piece: Piece| Run { previous_hash: hash_before(piece.2), ..self.run(segment, piece) };
        let runs = match wanted {
            Wanted::Partition(partition, from) => {
                let extents = index.extents_from(partition, from).iter().filter(is_left).map(from_extent);
                extents.filter(is_above).take_while(fits).map(run).collect()
            }
            Wanted::Everything => {
                let flushes = index.flushes_from(range.start.next()).iter().flat_map(|flush| freed.pieces(flush));
                flushes.filter(is_above).take_while(fits).map(run).collect()
            }
        };
        Planned { runs, is_full }
    }

    /// The run that an extent says.
    pub fn run_of(&self, segment: &Rc<SegmentFile<D>>, extent: &Extent) -> Run<D> {
        self.run(segment, (extent.position, extent.bytes, extent.first_index, extent.last_index))
    }

    /// The run of whole entries that a piece of a segment is.
    pub fn run(&self, segment: &Rc<SegmentFile<D>>, (position, bytes, first_index, last_index): Piece) -> Run<D> {
        let memory = self.memory_of(segment.name.number, position, bytes);
        Run { segment: segment.clone(), position, bytes, first_index, last_index, previous_hash: None, memory }
    }

    fn memory_of(&self, segment: u64, position: u64, bytes: u32) -> Option<SharedSlice> {
        if let Some((start, flush)) = self.in_memory(segment, position, bytes.into()) {
            let at = (position - start) as usize;
            return Some(SharedSlice::new(flush, at..at + bytes as usize));
        }
        // What is still being filled cannot be shared: it is copied.
        let active = self.active().filter(|active| active.number() == segment)?;
        let at = position.checked_sub(active.unsealed()?.write_position)? as usize;
        let copy = self.open.as_ref()?.bytes().get(at..at + bytes as usize)?.to_vec();
        let length = copy.len();
        Some(SharedSlice::new(Rc::new(copy), 0..length))
    }
}

/// Puts runs that one read should fetch together; runs in memory stand alone.
fn group<D: Disk>(runs: Vec<Run<D>>) -> Vec<Vec<Run<D>>> {
    let mut groups: Vec<Vec<Run<D>>> = Vec::new();
    for run in runs {
        let joins = groups.last().is_some_and(|group| joins(group, &run));
        match groups.last_mut() {
            Some(group) if joins => group.push(run),
            _ => groups.push(vec![run]),
        }
    }
    groups
}

fn joins<D: Disk>(group: &[Run<D>], run: &Run<D>) -> bool {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return false };
    let last_end = last.position + u64::from(last.bytes);
    let (start, end) = whole_blocks(first.position, run.position + u64::from(run.bytes));
    first.memory.is_none()
        && run.memory.is_none()
        && Rc::ptr_eq(&first.segment, &run.segment)
        && run.position >= last_end
        && run.position - last_end <= u64::from(READ_GAP_BYTES_MAX)
        && end - start <= u64::from(READ_BYTES_MAX)
}

/// The blocks in which `start..end` lies.
const fn whole_blocks(start: u64, end: u64) -> (u64, u64) {
    let block = BLOCK_BYTES as u64;
    (start / block * block, end.next_multiple_of(block))
}
