//! Reading ahead for a sequential reader: the disk reads on while what it read before is verified, sent and taken.
//!
//! A chain of chunks, each beginning where the one before ended; few of them wait for their reader. Their memory comes from
//! a budget of the shard that nobody waits for: a reader for whom nothing is left reads when it is asked. Absent: guessing
//! who is sequential ([`super::read`] knows), and reading on in what lies in memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use minikafka_core::limits::{READ_AHEAD_CHUNK_BYTES, READ_AHEAD_CHUNKS};
use minikafka_core::{LogIndex, Offset, PartitionKey, RangeKey};

use super::read::{Found, Pick};
use super::runs::Wanted;
use super::state::Inner;
use crate::disk::Disk;
use crate::error::ReadError;
use crate::wait::{Notify, Permit};

/// What is read ahead for one reader of one partition. Dropped, it reads no further.
pub(super) struct ReadAhead {
    range: RangeKey,
    partition: PartitionKey,
    chunk_bytes: usize,
    /// Offset that the reader wants next, if it is sequential.
    wanted: Cell<Offset>,
    /// Where the next chunk begins: its offset, and the index of the entry before.
    next: Cell<(Offset, LogIndex)>,
    up_to: Cell<LogIndex>,
    reading: Cell<bool>,
    chunks: RefCell<VecDeque<Chunk>>,
    changed: Notify,
}

struct Chunk {
    found: Result<Found, ReadError>,
    _permit: Permit,
}

impl ReadAhead {
    /// Nothing yet, from `next` on, for a reader that takes `bytes_max` at a time.
    pub fn new(range: RangeKey, partition: PartitionKey, next: (Offset, LogIndex), bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            range,
            partition,
            chunk_bytes: bytes_max.min(READ_AHEAD_CHUNK_BYTES as usize),
            wanted: Cell::new(next.0),
            next: Cell::new(next),
            up_to: Cell::default(),
            reading: Cell::new(false),
            chunks: RefCell::default(),
            changed: Notify::default(),
        })
    }

    /// Whether this is what a read of so many bytes at `from` wants.
    pub fn suits(&self, range: RangeKey, from: Offset, bytes_max: usize) -> bool {
        self.range == range && self.wanted.get() == from && self.chunk_bytes <= bytes_max
    }

    /// What is there, after waiting for the first of it; nothing when nothing was read ahead.
    pub async fn take(&self, bytes_max: usize) -> Result<Found, ReadError> {
        let first = self.changed.wait_for(|| match self.chunks.borrow_mut().pop_front() {
            None if self.reading.get() => None,
            chunk => Some(chunk),
        });
        let Some(first) = first.await else { return Ok(Found::default()) };
        let mut found = first.found?;
        while let Some(more) = self.take_ready(bytes_max.saturating_sub(found.bytes())) {
            found.append(more);
        }
        if let Some(last) = &found.last {
            self.wanted.set(last.next_offset());
        }
        Ok(found)
    }

    /// The next chunk, if it is there, and good, and of `bytes_max` at most.
    fn take_ready(&self, bytes_max: usize) -> Option<Found> {
        let mut chunks = self.chunks.borrow_mut();
        let fits = |chunk: &Chunk| chunk.found.as_ref().is_ok_and(|found| found.bytes() <= bytes_max);
        if !chunks.front().is_some_and(fits) {
            return None;
        }
        chunks.pop_front().and_then(|chunk| chunk.found.ok())
    }

    /// Reads on, up to index `up_to`, unless enough waits already or there is no memory for it.
    pub fn read_on<D: Disk>(self: &Rc<Self>, log: &Rc<Inner<D>>, up_to: LogIndex) {
        self.up_to.set(up_to);
        if self.reading.get() {
            return;
        }
        let Some(mut permit) = self.permit(log) else { return };
        self.reading.set(true);
        let (reading, this) = (log.clone(), self.clone());
        log.storage.disk.spawn(async move {
            while let Some(next) = this.read_chunk(&reading, permit).await {
                permit = next;
            }
        });
    }

    /// Reads one chunk; the permit for another one, if another one should follow.
    async fn read_chunk<D: Disk>(self: &Rc<Self>, log: &Rc<Inner<D>>, permit: Permit) -> Option<Permit> {
        let (from, after) = self.next.get();
        let wanted = Wanted::Partition(self.partition, from);
        let pick = Pick { wanted, after, up_to: self.up_to.get(), bytes_max: self.chunk_bytes, is_gapless: true };
        let found = log.find(pick).await;
        let last = found.as_ref().ok().and_then(|found| found.last);
        let is_worth_more = last.is_some() && found.as_ref().is_ok_and(|found| found.from_disk);
        if let Some(last) = last {
            self.next.set((last.next_offset(), last.index));
        }
        if last.is_some() || found.is_err() {
            self.chunks.borrow_mut().push_back(Chunk { found, _permit: permit });
        }
        // Nobody but this task holds it: the reader is gone.
        let is_read = Rc::strong_count(self) > 1;
        let more = if is_worth_more && is_read { self.permit(log) } else { None };
        self.reading.set(more.is_some());
        self.changed.notify_all();
        more
    }

    /// Memory for another chunk. The second half of the budget is for the first chunks of readers.
    fn permit<D: Disk>(&self, log: &Inner<D>) -> Option<Permit> {
        let budget = &log.storage.read_ahead_budget;
        let waiting = self.chunks.borrow().len();
        let is_fair = waiting == 0 || budget.bytes_used() < budget.bytes_max() / 2;
        let wants = waiting < READ_AHEAD_CHUNKS && is_fair;
        wants.then(|| budget.try_take(self.chunk_bytes as u64)).flatten()
    }
}
