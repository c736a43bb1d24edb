//! Fetch: long-poll over several partitions of this shard; and looking offsets up.
//!
//! Only committed entries leave, as they are stored. A fetch first takes memory from the shard's fetch budget, first come
//! first served, and keeps it until its reply has left: slow readers wait for each other and not for producers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future;
use minikafka_core::entry::EntryHeader;
use minikafka_core::wire::{
    FetchPartition, FetchReply, FetchRequest, FetchedPartition, ListOffsetsPartition, ListOffsetsReply,
    ListOffsetsRequest, ListedOffset, OffsetQuery, Stage,
};
use minikafka_core::{Epoch, ErrorCode, LogIndex, Offset, PartitionKey, RangeKey, limits};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::{Permit, join_all};
use minikafka_storage::{ReadError, Reader, SharedSlice};
use quanta::Instant;

use crate::explain::Trace;
use crate::range::{PartitionOffsets, Range};
use crate::shard::Shard;

/// Readers remembered per shard.
const READERS_MAX: usize = 32;

/// Where consumers are, so that a sequential one finds what was read ahead for it. The oldest is forgotten, and what was read
/// ahead for the oldest is given up when there is no memory for others.
#[derive(Default)]
pub struct Readers {
    readers: RefCell<VecDeque<(ReaderKey, Reader)>>,
}

/// A connection's reading of one partition.
type ReaderKey = (Option<SocketAddr>, PartitionKey);
/// A range and what may be read of a partition in it; or why not, and the epoch to refresh to.
type Readable<D> = Result<(Rc<Range<D>>, PartitionOffsets), (ErrorCode, Epoch)>;
/// Waits for one partition.
type Wait<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Readers {
    fn take(&self, key: ReaderKey) -> Reader {
        let mut readers = self.readers.borrow_mut();
        let place = readers.iter().position(|(other, _)| *other == key);
        place.and_then(|place| readers.remove(place)).map(|(_, reader)| reader).unwrap_or_default()
    }

    fn put(&self, key: ReaderKey, reader: Reader, is_memory_full: bool) {
        let mut readers = self.readers.borrow_mut();
        if readers.len() == READERS_MAX {
            readers.pop_front();
        }
        if is_memory_full {
            readers.iter_mut().any(|(_, oldest)| oldest.forget_ahead());
        }
        readers.push_back((key, reader));
    }
}

/// A fetch that is answered: the message, and the entries behind it.
pub struct Fetched {
    /// The head of the reply.
    pub reply: FetchReply,
    /// The bulk of the reply.
    pub entries: Vec<SharedSlice>,
    /// Kept until the reply has left.
    pub permit: Permit,
}

impl<D: Disk> Shard<D> {
    /// Answers a fetch of connection `connection`, when enough is there or it has waited long enough; its stages are noted in
    /// `trace`, if there is one.
    pub async fn fetch(
        &self,
        connection: Option<SocketAddr>,
        request: &FetchRequest,
        trace: Option<&Trace>,
    ) -> Fetched {
        let ended = |stage| trace.into_iter().for_each(|trace| trace.ended(stage, self.clock().monotonic_ns()));
        let wait = Duration::from_millis(request.wait_ms_max.min(limits::FETCH_WAIT_MS_MAX).into());
        let began = self.clock().monotonic();
        let (deadline, mended_by) = (began + wait, began + Duration::from_millis(limits::MEND_READ_WAIT_MS));
        let mut waited_ns = 0;
        loop {
            let (before, mended) = (self.ends(request), self.mended());
            let mut fetched = self.fetch_once(connection, request, trace).await;
            let bytes: u64 = fetched.reply.partitions.iter().map(|p| u64::from(p.entries_bytes)).sum();
            let damaged = self.damaged_ranges(request, &fetched.reply);
            if !damaged.is_empty() {
                let was_mended = || damaged.iter().any(|range| range.was_mended_since(mended));
                let may_wait = bytes == 0 && self.clock().monotonic() < mended_by;
                if may_wait && (was_mended() || Self::were_mended(&damaged, self.until(mended_by)).await) {
                    ended(Stage::Mend);
                    continue;
                }
                self.ask_again_for_mended(request, &mut fetched.reply, mended);
            }
            let has_error = fetched.reply.partitions.iter().any(|partition| partition.error.is_some());
            let remaining = deadline.saturating_duration_since(self.clock().monotonic());
            if has_error || bytes >= u64::from(request.bytes_min) || remaining.is_zero() {
                self.count_fetched(&fetched, bytes, waited_ns);
                return fetched;
            }
            drop(fetched);
            let changed = self.ends_change(request, &before);
            let since_ns = self.clock().monotonic_ns();
            future::or(changed, self.disk().sleep(remaining)).await;
            waited_ns += self.clock().monotonic_ns().saturating_sub(since_ns);
            ended(Stage::Wait);
        }
    }

    fn count_fetched(&self, fetched: &Fetched, bytes: u64, waited_ns: u64) {
        self.metrics.fetches.add(1);
        self.metrics.fetched_bytes.add(bytes);
        self.metrics.fetched_records.add(fetched.entries.iter().map(|run| records_in(run)).sum());
        let is_damaged = |read: &&FetchedPartition| read.error == Some(ErrorCode::DataDamaged);
        self.metrics.damaged_reads.add(fetched.reply.partitions.iter().filter(is_damaged).count() as u64);
        if waited_ns > 0 {
            self.metrics.took.fetch_wait.record(waited_ns);
        }
        for partition in fetched.reply.partitions.iter().filter(|partition| partition.entries_bytes > 0) {
            let bytes = u64::from(partition.entries_bytes);
            self.metrics.topics.count(partition.partition.topic, |counts| counts.fetched_bytes += bytes);
        }
    }

    /// The ranges of which damage was met.
    fn damaged_ranges(&self, request: &FetchRequest, reply: &FetchReply) -> Vec<Rc<Range<D>>> {
        let damaged = request.partitions.iter().zip(&reply.partitions);
        let damaged = damaged.filter(|(_, read)| read.error == Some(ErrorCode::DataDamaged));
        damaged.filter_map(|(wanted, _)| self.range(wanted.range)).collect()
    }

    /// Waits until it was tried to mend these; false when that is not about to happen, or takes too long.
    async fn were_mended(damaged: &[Rc<Range<D>>], late: impl Future<Output = ()>) -> bool {
        let tried = async {
            let mut tried = false;
            for range in damaged {
                tried |= range.mending().await;
            }
            tried
        };
        let late = async {
            late.await;
            false
        };
        future::or(tried, late).await
    }

    /// Damage that was mended since the shard had `mended` so much, or may be soon, is none to be told of: the reader shall ask
    /// again.
    fn ask_again_for_mended(&self, request: &FetchRequest, reply: &mut FetchReply, mended: u64) {
        let is_hopeful = |range: &Rc<Range<D>>| range.was_mended_since(mended) || range.may_be_mended();
        for (wanted, read) in request.partitions.iter().zip(&mut reply.partitions) {
            let is_damaged = read.error == Some(ErrorCode::DataDamaged);
            if is_damaged && self.range(wanted.range).is_some_and(|range| is_hopeful(&range)) {
                (read.error, read.resume) = (Some(ErrorCode::CatchingUp), None);
            }
        }
    }

    async fn until(&self, deadline: Instant) {
        self.disk().sleep(deadline.saturating_duration_since(self.clock().monotonic())).await;
    }

    async fn fetch_once(
        &self,
        connection: Option<SocketAddr>,
        request: &FetchRequest,
        trace: Option<&Trace>,
    ) -> Fetched {
        let bytes_max = request.bytes_max.clamp(1, limits::FETCH_BYTES_MAX) as usize;
        let began_ns = self.clock().monotonic_ns();
        let permit = self.fetch_budget.take(bytes_max as u64).await;
        let reading_ns = self.clock().monotonic_ns();
        self.metrics.took.fetch_memory.record(reading_ns.saturating_sub(began_ns));
        if let Some(trace) = trace {
            trace.ended(Stage::Memory, reading_ns);
        }
        let (mut partitions, mut entries, mut left) = (Vec::new(), Vec::new(), bytes_max);
        for wanted in &request.partitions {
            let (mut fetched, slices) = match self.look_up(wanted) {
                Ok((range, offsets)) => self.read(connection, &range, offsets, wanted, left).await,
                Err(refused) => (refused, Vec::new()),
            };
            if left < bytes_max && fetched.entries_bytes as usize > left {
                // One entry is always sent, but only the first of a reply may go beyond what was asked for.
                fetched.entries_bytes = 0;
            } else {
                left = left.saturating_sub(fetched.entries_bytes as usize);
                entries.extend(slices);
            }
            partitions.push(fetched);
        }
        if !entries.is_empty() {
            self.metrics.took.fetch_read.record(self.clock().monotonic_ns().saturating_sub(reading_ns));
        }
        if let Some(trace) = trace {
            trace.ended(Stage::Read, self.clock().monotonic_ns());
        }
        Fetched { reply: FetchReply { partitions }, entries, permit }
    }

    /// The range and offsets of a partition that may be read from where the client wants, or the refusal.
    fn look_up(&self, wanted: &FetchPartition) -> Result<(Rc<Range<D>>, PartitionOffsets), FetchedPartition> {
        let refused = |code, epoch| FetchedPartition {
            partition: wanted.partition,
            error: Some(code),
            epoch,
            log_start: Offset(0),
            committed_end: Offset(0),
            previous: None,
            resume: None,
            entries_bytes: 0,
        };
        let (range, offsets) = self
            .readable(wanted.range, wanted.partition, wanted.epoch)
            .map_err(|(code, epoch)| refused(code, epoch))?;
        let PartitionOffsets { log_start, committed_end, next_offset, previous } = offsets;
        let code = match wanted.offset {
            offset if offset < log_start && previous.is_some() => ErrorCode::Moved,
            offset if offset < log_start || offset > next_offset => ErrorCode::OffsetOutOfRange,
            offset if offset > committed_end => ErrorCode::BeyondCommitted,
            _ => return Ok((range, offsets)),
        };
        Err(FetchedPartition { log_start, committed_end, previous, ..refused(code, range.epoch()) })
    }

    /// The range of a partition, if a client that believes in `believed` may read from it.
    pub(crate) fn readable(&self, range: RangeKey, partition: PartitionKey, believed: Epoch) -> Readable<D> {
        let range = self.range(range).ok_or((ErrorCode::NotOwner, Epoch(0)))?;
        let epoch = range.epoch();
        range.check_read(believed).map_err(|code| (code, epoch))?;
        let offsets = range.offsets(partition).ok_or((ErrorCode::PartitionNotReady, epoch))?;
        Ok((range, offsets))
    }

    async fn read(
        &self,
        connection: Option<SocketAddr>,
        range: &Range<D>,
        offsets: PartitionOffsets,
        wanted: &FetchPartition,
        left: usize,
    ) -> (FetchedPartition, Vec<SharedSlice>) {
        let mut fetched = FetchedPartition {
            partition: wanted.partition,
            error: None,
            epoch: range.epoch(),
            log_start: offsets.log_start,
            committed_end: offsets.committed_end,
            previous: None,
            resume: None,
            entries_bytes: 0,
        };
        // At the end of a range that lost entries, reading tells whether this partition may have had more.
        let is_at_end = wanted.offset == offsets.committed_end && range.log().loss().is_none();
        if is_at_end || left == 0 {
            return (fetched, Vec::new());
        }
        let key = (connection, wanted.partition);
        let mut reader = self.readers.take(key);
        let bytes_max = left.min(wanted.bytes_max.max(1) as usize);
        let up_to = range.readable_index();
        match range.log().read_partition(wanted.partition, wanted.offset, up_to, bytes_max, &mut reader).await {
            // No index knows of them, and the range's state does: their segment is gone.
            Ok(slices) if slices.is_empty() && wanted.offset < offsets.committed_end => {
                fetched.error = Some(ErrorCode::DataDamaged);
                fetched.resume = Some(offsets.committed_end);
                (fetched, slices)
            }
            Ok(slices) => {
                fetched.entries_bytes = slices.iter().map(|slice| slice.len() as u32).sum();
                self.readers.put(key, reader, self.storage.is_read_ahead_full());
                (fetched, slices)
            }
            Err(error @ (ReadError::Damaged(_) | ReadError::Dropped { .. } | ReadError::Freed { .. }))
                if is_damage(&error, range, wanted) =>
            {
                // The log said so when the damage was found; a reader that asks again and again is no news.
                tracing::debug!(range = %range.key(), partition = %wanted.partition, %error, "cannot read");
                let after = match error {
                    ReadError::Damaged(damage) => damage.last_index,
                    _ => LogIndex(0),
                };
                let behind = range.log().readable_behind(after, wanted.partition, wanted.offset, up_to).await;
                let end = Some(offsets.committed_end).filter(|end| *end > wanted.offset);
                fetched.resume = behind.unwrap_or_default().or(end);
                fetched.error = Some(ErrorCode::DataDamaged);
                (fetched, Vec::new())
            }
            Err(error) => match (error, self.look_up(wanted)) {
                // Deleted while it was read: the log start is another one by now.
                (ReadError::Dropped { .. } | ReadError::Freed { .. }, Err(refused)) => (refused, Vec::new()),
                (error, _) => {
                    tracing::error!(range = %range.key(), partition = %wanted.partition, %error, "cannot read");
                    fetched.error = Some(read_error_code(&error));
                    (fetched, Vec::new())
                }
            },
        }
    }

    /// The committed end of each partition; none where it cannot be read.
    fn ends(&self, request: &FetchRequest) -> Vec<Option<Offset>> {
        request.partitions.iter().map(|wanted| self.end(wanted)).collect()
    }

    fn end(&self, wanted: &FetchPartition) -> Option<Offset> {
        let readable = self.readable(wanted.range, wanted.partition, wanted.epoch);
        readable.ok().map(|(_, offsets)| offsets.committed_end)
    }

    /// Waits until one of the partitions has another end than before.
    async fn ends_change(&self, request: &FetchRequest, before: &[Option<Offset>]) {
        let waits = request.partitions.iter().zip(before).filter_map(|(wanted, &before)| {
            let range = self.range(wanted.range)?;
            let wait: Wait<'_> = Box::pin(async move {
                range.committed().wait_for(|| (self.end(wanted) != before).then_some(())).await;
            });
            Some(wait)
        });
        let mut waits: Vec<_> = waits.collect();
        future::poll_fn(|context| {
            let ready = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Looks offsets up.
    pub async fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsReply {
        let one = async |wanted: &ListOffsetsPartition| {
            let (error, epoch, offset) = match self.list_offset(wanted).await {
                Ok((epoch, offset)) => (None, epoch, offset),
                Err((code, epoch)) => (Some(code), epoch, Offset(0)),
            };
            ListedOffset { partition: wanted.partition, error, epoch, offset }
        };
        ListOffsetsReply { partitions: join_all(request.partitions.iter().map(one)).await }
    }

    async fn list_offset(&self, wanted: &ListOffsetsPartition) -> Result<(Epoch, Offset), (ErrorCode, Epoch)> {
        let (range, offsets) = self.readable(wanted.range, wanted.partition, wanted.epoch)?;
        let epoch = range.epoch();
        let offset = match wanted.query {
            OffsetQuery::Earliest => offsets.log_start,
            OffsetQuery::Latest => offsets.committed_end,
            OffsetQuery::AppendedAtOrAfter(timestamp) => {
                let found = range.log().offset_at_time(wanted.partition, timestamp).await;
                let found = found.map_err(|error| (read_error_code(&error), epoch))?;
                found.map_or(offsets.committed_end, |offset| offset.clamp(offsets.log_start, offsets.committed_end))
            }
        };
        Ok((epoch, offset))
    }
}

/// Records of entries that the log verified when it read them.
fn records_in(run: &[u8]) -> u64 {
    let (mut rest, mut records) = (run, 0);
    while let Ok(header) = EntryHeader::decode_unsealed(rest) {
        records += u64::from(header.record_count);
        rest = rest.get(header.entry_bytes()..).unwrap_or_default();
    }
    records
}

/// Whether a read met something that is live and not there. What is below the log start may go while it is read; only above
/// it has the log no business to begin later or to have freed anything.
fn is_damage<D: Disk>(error: &ReadError, range: &Range<D>, wanted: &FetchPartition) -> bool {
    let is_live = || range.offsets(wanted.partition).is_some_and(|now| now.log_start <= wanted.offset);
    matches!(error, ReadError::Damaged(_)) || is_live()
}

fn read_error_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::Damaged(_) => ErrorCode::DataDamaged,
        ReadError::Disk(_) => ErrorCode::RangeFailed,
        ReadError::Dropped { .. } | ReadError::Freed { .. } => ErrorCode::OffsetOutOfRange,
    }
}
