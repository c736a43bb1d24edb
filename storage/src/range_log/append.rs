//! Append and group commit: entries into flushes, flushes onto the disk, durability in order.
//!
//! A flush starts at once when none of this log's is in flight and the shard's budget has room for it; else when it is full, or
//! it is this log's turn: where hundreds of logs are written to, each gathers entries while the others write. Completions come
//! in any order; the durable index follows the longest completed run. A failed durable write stops the log (R11 of `docs/REPLICATION.md`).

use std::rc::Rc;

use minikafka_core::entry::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader};
use minikafka_core::{FlushNumber, LogIndex, LogPoint};

use super::state::{Inner, RecentFlush, SPACE_RETRY, State};
use super::{Appended, Body, BodyBuffer};
use crate::disk::{BLOCK_BYTES, Disk, SharedBytes};
use crate::error::{AppendError, LogError};
use crate::flush::{FIRST_BODY_AT, FLUSH_HEADER_BYTES, FlushHeader};
use crate::segment::SegmentFile;
use crate::slice::SharedSlice;
use crate::wait::Permit;

/// The flush being filled; its place in the active segment is settled.
pub(super) struct OpenFlush<D: Disk> {
    buffer: D::Buffer,
    used: usize,
    /// End of the log before it.
    previous: LogPoint,
    /// Others are in flight, so it gathers entries until they are done.
    waits: bool,
}

/// A flush that is complete in memory and not yet handed to the disk.
pub(super) struct ClosedFlush<D: Disk> {
    number: u64,
    segment: Rc<SegmentFile<D>>,
    position: u64,
    buffer: Rc<D::Buffer>,
    /// Its part of the budget for flushes in flight, if it has that already.
    permit: Option<Permit>,
}

/// Where a log is in the queue of those whose flush finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Not in it.
    Free,
    /// To be put there, for so many bytes.
    Wanted(u64),
    /// In it.
    Awaited,
}

impl<D: Disk> ClosedFlush<D> {
    fn padded_bytes(&self) -> u64 {
        (*self.buffer).as_ref().len() as u64
    }
}

/// A flush on its way.
pub(super) struct FlushInFlight<D: Disk> {
    pub number: u64,
    pub segment: u64,
    pub position: u64,
    pub buffer: Rc<D::Buffer>,
    /// Highest index in it, or before it when it is empty.
    last_index: LogIndex,
    durable_index: LogIndex,
    entry_bytes: u64,
    done: bool,
}

impl<D: Disk> FlushInFlight<D> {
    pub fn padded_bytes(&self) -> u64 {
        (*self.buffer).as_ref().len() as u64
    }
}

impl<D: Disk> Inner<D> {
    pub fn append(self: &Rc<Self>, header: &EntryHeader, body: Body<'_, D>) -> Result<Appended, AppendError> {
        let appended = self.state.borrow_mut().append(self, header, body);
        self.pump();
        appended
    }

    pub fn roll(self: &Rc<Self>, snapshot: Vec<u8>) {
        self.state.borrow_mut().roll(self, snapshot);
        self.pump();
    }

    /// Waits for room in the backlog, first come first served.
    pub async fn append_space(&self) -> Result<(), crate::LogError> {
        let bytes_max = self.storage.config.undurable_bytes_max;
        self.space
            .pass(|| {
                let state = self.state.borrow();
                match &state.failure {
                    Some(failure) => Some(Err(failure.clone())),
                    None => (state.backlog_bytes < bytes_max).then_some(Ok(())),
                }
            })
            .await
    }

    /// Closes the open flush, or makes an empty one, and waits until it and all before are durable.
    pub async fn flush_now(self: &Rc<Self>) -> Result<(), crate::LogError> {
        let number = {
            let mut state = self.state.borrow_mut();
            if state.open.is_some() {
                state.close_open(self)
            } else {
                state.close_empty(self)
            }
            state.last_flush_number
        };
        self.pump();
        self.wait_durable_flush(number).await
    }

    /// Waits until flush `number` and all before are durable.
    pub async fn wait_durable_flush(&self, number: u64) -> Result<(), crate::LogError> {
        self.changed
            .wait_for(|| {
                let state = self.state.borrow();
                match &state.failure {
                    Some(failure) => Some(Err(failure.clone())),
                    None => (state.durable_flush_number >= number).then_some(Ok(())),
                }
            })
            .await
    }

    /// Waits for this log's turn, and writes what the open flush has gathered by then.
    pub async fn take_turn(self: Rc<Self>, bytes: u64) {
        let permit = self.storage.flush_budget.take(bytes).await;
        let flush = {
            let mut state = self.state.borrow_mut();
            state.turn = Turn::Free;
            let is_due = state.open.is_some() && state.in_flight.is_empty() && state.failure.is_none();
            if is_due {
                state.close_open_with(&self, Some(permit));
            }
            is_due.then(|| state.to_start.pop()).flatten()
        };
        if let Some(flush) = flush {
            // Who reads the end of the log may read what was gathered.
            self.notify();
            self.write_flush(flush).await;
        }
    }

    /// The task of one flush.
    pub async fn write_flush(self: Rc<Self>, mut flush: ClosedFlush<D>) {
        let disk = &self.storage.disk;
        let mut permit = flush.permit.take();
        loop {
            let result = async {
                flush.segment.file(disk).await?;
                let _permit = match permit.take() {
                    Some(permit) => permit,
                    None => self.storage.flush_budget.take(self.storage.flush_charge(flush.padded_bytes())).await,
                };
                flush.segment.write_durable(disk, flush.buffer.clone(), flush.position).await
            };
            match result.await {
                Ok(()) => break,
                Err(error) if error.is_ungrown() => {
                    if self.state.borrow().stopped {
                        return; // The log was closed meanwhile; nobody was told of this flush.
                    }
                    tracing::warn!(%error, "no space for a flush beyond its segment's size; trying again");
                    flush.segment.set_waits_for_space(true);
                    self.changed.notify_all();
                    disk.sleep(SPACE_RETRY).await;
                }
                Err(error) => return self.fail(error.into()),
            }
        }
        if flush.segment.waits_for_space() {
            flush.segment.set_waits_for_space(false);
        }
        self.flush_done(flush.number);
    }

    fn flush_done(self: &Rc<Self>, number: u64) {
        let grew = {
            let mut state = self.state.borrow_mut();
            if state.failure.is_some() {
                return;
            }
            let grew = state.complete(number);
            if state.in_flight.is_empty() && state.open.is_some() {
                state.close_in_turn(self);
            }
            grew
        };
        self.pump();
        if grew {
            self.seal_next();
            self.notify();
        }
    }
}

impl<D: Disk> State<D> {
    fn append(&mut self, log: &Inner<D>, header: &EntryHeader, body: Body<'_, D>) -> Result<Appended, AppendError> {
        self.check_appendable(log, header)?;
        assert_eq!(header.index, self.end.index.next(), "the entry after {} is appended next", self.end.index);
        assert_eq!(header.running_hash, header.hash_after(self.end.hash), "the running hash follows the log's end");
        assert!(!self.must_roll(header.entry_bytes()), "roll before entry {} is appended", header.index);
        if self.active().is_none() {
            self.begin_segment(log, log.storage.config.segment_bytes_min);
        }
        let entry = match body {
            Body::Copied(bytes) => {
                self.append_copied(log, header, bytes);
                None
            }
            Body::Whole(buffer) => Some(self.append_whole(log, header, buffer)),
        };
        self.backlog_bytes += header.entry_bytes() as u64;
        self.end = LogPoint { index: header.index, hash: header.running_hash };
        self.last_epoch = header.epoch;
        self.last_timestamp = header.append_timestamp;
        let is_full = self.open.as_ref().is_some_and(|open| open.used >= log.storage.config.flush_bytes_max);
        if is_full {
            self.close_open(log);
        } else if self.open.is_some() && self.in_flight.is_empty() {
            self.close_in_turn(log);
        }
        self.prepare_ahead(log);
        Ok(Appended { entry })
    }

    fn check_appendable(&self, log: &Inner<D>, header: &EntryHeader) -> Result<(), AppendError> {
        assert!(!self.stopped, "nothing is appended to {} while it is truncated or closed", log.range);
        assert_eq!(header.range, log.range, "an entry belongs to its range's log");
        self.check_append(log)
    }

    /// Whether an entry would be taken now.
    pub fn check_append(&self, log: &Inner<D>) -> Result<(), AppendError> {
        if let Some(failure) = &self.failure {
            return Err(AppendError::Failed(failure.clone()));
        }
        if let Some(loss) = &self.loss {
            return Err(AppendError::Failed(LogError::Damaged(loss.clone())));
        }
        if self.active().is_some_and(|active| active.file.waits_for_space()) {
            return Err(AppendError::NoSpace);
        }
        if self.backlog_bytes >= log.storage.config.undurable_bytes_max {
            return Err(AppendError::Backlog(self.backlog_bytes));
        }
        Ok(())
    }

    fn append_copied(&mut self, log: &Inner<D>, header: &EntryHeader, body: &[u8]) {
        assert_eq!(body.len(), header.body_bytes as usize, "the header tells the body's length");
        let entry_bytes = header.entry_bytes();
        let flush_bytes_max = log.storage.config.flush_bytes_max;
        if self.open.as_ref().is_some_and(|open| open.used + entry_bytes > flush_bytes_max) {
            self.close_open(log);
        }
        let disk = &log.storage.disk;
        let mut open = self.open.take().unwrap_or_else(|| {
            // What is written at once takes one entry, what waits gathers about as much as the last time.
            let waits = !self.in_flight.is_empty() || self.turn != Turn::Free;
            let expected = if waits { self.gathered_bytes.min(flush_bytes_max) } else { 0 };
            OpenFlush { waits, ..OpenFlush::new(disk, self.end, entry_bytes.max(expected)) }
        });
        open.reserve(disk, entry_bytes, flush_bytes_max);
        let at = open.used;
        let entry = &mut open.buffer.as_mut()[at..at + entry_bytes];
        entry[..ENTRY_HEADER_BYTES].copy_from_slice(&header.encode());
        let (filled, padding) = entry[ENTRY_HEADER_BYTES..].split_at_mut(body.len());
        filled.copy_from_slice(body);
        padding.fill(0);
        open.used += entry_bytes;
        self.open = Some(open);
        self.index_entry(header, at);
    }

    /// A flush of one entry, from the caller's buffer.
    fn append_whole(&mut self, log: &Inner<D>, header: &EntryHeader, body: BodyBuffer<D>) -> SharedSlice {
        assert_eq!(body.body_bytes, header.body_bytes as usize, "the header tells the body's length");
        if self.open.is_some() {
            self.close_open(log);
        }
        let mut buffer = body.buffer;
        buffer.as_mut()[FLUSH_HEADER_BYTES..FIRST_BODY_AT].copy_from_slice(&header.encode());
        self.index_entry(header, FLUSH_HEADER_BYTES);
        let used = FLUSH_HEADER_BYTES + header.entry_bytes();
        let previous = self.end;
        let flush = OpenFlush { buffer, used, previous, waits: false };
        let bytes: SharedBytes = self.close(log, flush, header.index, None);
        SharedSlice::new(bytes, FLUSH_HEADER_BYTES..used)
    }

    /// Enters an entry at `at` of the flush that comes next into the active segment's index.
    fn index_entry(&mut self, header: &EntryHeader, at: usize) {
        let previous = self.end;
        let active = self.active_mut().expect("entries go into the active segment");
        active.end = LogPoint { index: header.index, hash: header.running_hash };
        let unsealed = active.unsealed_mut().expect("the active segment is not sealed");
        let flush_position = unsealed.write_position + FLUSH_HEADER_BYTES as u64;
        unsealed.add(header, previous, flush_position, unsealed.write_position + at as u64);
    }

    /// The last entry before the flush being filled.
    pub fn gathered_index(&self) -> LogIndex {
        self.open.as_ref().map_or(self.end.index, |open| open.previous.index)
    }

    /// Closes the flush being filled.
    pub fn close_open(&mut self, log: &Inner<D>) {
        self.close_open_with(log, None);
    }

    fn close_open_with(&mut self, log: &Inner<D>, permit: Option<Permit>) {
        let open = self.open.take().expect("there is a flush to close");
        if open.waits {
            self.gathered_bytes = open.used;
        }
        self.close(log, open, self.end.index, permit);
    }

    /// Closes the flush being filled if it may be written now; else it goes on gathering until it is this log's turn.
    fn close_in_turn(&mut self, log: &Inner<D>) {
        // A flush that waits for its file keeps nothing of the budget meanwhile.
        let has_file = self.active().is_some_and(|active| active.file.is_open());
        let Some(open) = self.open.as_mut().filter(|_| has_file) else { return self.close_open(log) };
        let bytes = log.storage.flush_charge(open.padded_bytes());
        match log.storage.flush_budget.try_take(bytes) {
            Some(permit) => self.close_open_with(log, Some(permit)),
            None => {
                open.waits = true;
                if self.turn == Turn::Free {
                    self.turn = Turn::Wanted(bytes);
                }
            }
        }
    }

    /// Closes a flush without entries.
    pub fn close_empty(&mut self, log: &Inner<D>) {
        debug_assert!(self.open.is_none(), "an empty flush comes after what is open");
        if self.active().is_none() {
            self.begin_segment(log, log.storage.config.segment_bytes_min);
        }
        let empty = OpenFlush::new(&log.storage.disk, self.end, 0);
        self.close(log, empty, self.end.index, None);
    }

    /// Fills in the flush header and hands the flush over for writing.
    fn close(
        &mut self,
        log: &Inner<D>,
        open: OpenFlush<D>,
        last_index: LogIndex,
        permit: Option<Permit>,
    ) -> Rc<D::Buffer> {
        let OpenFlush { mut buffer, used, previous, .. } = open;
        let padded = used.next_multiple_of(BLOCK_BYTES);
        let allocated = D::allocation_bytes(buffer.as_ref().len());
        self.last_flush_number += 1;
        let (number, marker, durable_index) = (self.last_flush_number, self.marker, self.durable);
        let active = self.active_mut().expect("flushes go into the active segment");
        let file = active.file.clone();
        let unsealed = active.unsealed_mut().expect("the active segment is not sealed");
        let position = unsealed.write_position;
        unsealed.write_position += padded as u64;
        unsealed.last_flush_number = FlushNumber(number);
        unsealed.marker = marker;
        let header = FlushHeader {
            generation: file.name.generation,
            number: FlushNumber(number),
            length: used as u32,
            first_index: previous.index.next(),
            durable_index,
            previous_hash: previous.hash,
            marker,
            marker_only: self.loss.is_some(),
            size_class: file.bytes.max(1).ilog2() as u8,
        };
        buffer.as_mut()[..FLUSH_HEADER_BYTES].copy_from_slice(&header.encode());
        buffer.as_mut()[used..padded].fill(0);
        D::trim(&mut buffer, padded);
        let buffer = Rc::new(buffer);
        self.in_flight.push_back(FlushInFlight {
            number,
            segment: file.name.number,
            position,
            buffer: buffer.clone(),
            last_index,
            durable_index,
            entry_bytes: (used - FLUSH_HEADER_BYTES) as u64,
            done: false,
        });
        if used > FLUSH_HEADER_BYTES {
            self.keep_recent(log, file.name.number, position, buffer.clone(), allocated);
        }
        self.to_start.push(ClosedFlush { number, segment: file, position, buffer: buffer.clone(), permit });
        buffer
    }

    /// Keeps a flush for readers at the tail.
    fn keep_recent(&mut self, log: &Inner<D>, segment: u64, position: u64, buffer: Rc<D::Buffer>, allocated: usize) {
        while self.recent.front().is_some_and(|oldest| oldest.slot.get().is_none()) {
            self.recent.pop_front();
        }
        let bytes = (*buffer).as_ref().len() as u64;
        let slot = log.storage.recent.insert(buffer, allocated as u64);
        self.recent.push_back(RecentFlush { segment, position, bytes, slot });
    }

    /// Notes that a flush is on disk; true when the durable prefix grew.
    fn complete(&mut self, number: u64) -> bool {
        if let Some(flush) = self.in_flight.iter_mut().find(|flush| flush.number == number) {
            flush.done = true;
        }
        let before = self.durable_flush_number;
        while self.in_flight.front().is_some_and(|flush| flush.done)
            && let Some(flush) = self.in_flight.pop_front()
        {
            self.durable_flush_number = flush.number;
            self.durable = flush.last_index;
            self.covered = flush.durable_index;
            self.backlog_bytes -= flush.entry_bytes;
        }
        self.durable_flush_number > before
    }
}

impl<D: Disk> OpenFlush<D> {
    /// Room for so many bytes of entries.
    fn new(disk: &D, previous: LogPoint, entry_bytes: usize) -> Self {
        let bytes = D::allocation_bytes((FLUSH_HEADER_BYTES + entry_bytes).next_multiple_of(BLOCK_BYTES));
        Self { buffer: disk.allocate(bytes), used: FLUSH_HEADER_BYTES, previous, waits: false }
    }

    /// Bytes the flush takes on disk so far.
    pub fn padded_bytes(&self) -> u64 {
        self.used.next_multiple_of(BLOCK_BYTES) as u64
    }

    /// What is in it so far, header place included.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.as_ref()[..self.used]
    }

    /// Makes room for another entry, doubling the buffer.
    fn reserve(&mut self, disk: &D, entry_bytes: usize, flush_bytes_max: usize) {
        let needed = (self.used + entry_bytes).next_multiple_of(BLOCK_BYTES);
        let allocated = self.buffer.as_ref().len();
        if needed <= allocated {
            return;
        }
        let doubled = (allocated * 2).min(flush_bytes_max.next_multiple_of(BLOCK_BYTES));
        let mut larger = disk.allocate(needed.max(doubled));
        larger.as_mut()[..self.used].copy_from_slice(&self.buffer.as_ref()[..self.used]);
        self.buffer = larger;
    }
}

impl<D: Disk> BodyBuffer<D> {
    /// Room for a body of `body_bytes`, behind room for a flush header and an entry header.
    pub fn new(disk: &D, body_bytes: u32) -> Self {
        let body_bytes = body_bytes as usize;
        let mut buffer = disk.allocate((FIRST_BODY_AT + body_bytes).next_multiple_of(BLOCK_BYTES));
        buffer.as_mut()[FIRST_BODY_AT + body_bytes..].fill(0);
        Self { buffer, body_bytes }
    }

    /// Room for a whole entry of `entry_bytes` (header, body, padding), behind room for a flush header.
    pub fn for_entry(disk: &D, entry_bytes: usize) -> Self {
        assert!(entry_bytes >= ENTRY_HEADER_BYTES, "an entry has a header");
        Self::new(disk, (entry_bytes - ENTRY_HEADER_BYTES) as u32)
    }

    /// The whole entry that the buffer has room for.
    pub fn entry(&self) -> &[u8] {
        &self.buffer.as_ref()[FLUSH_HEADER_BYTES..FIRST_BODY_AT + self.body_bytes]
    }

    /// The whole entry, to be received into.
    pub fn entry_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[FLUSH_HEADER_BYTES..FIRST_BODY_AT + self.body_bytes]
    }

    /// The buffer of an entry whose body has `body_bytes`: what stands behind them is its padding, which is zero.
    #[must_use]
    pub fn holding(self, body_bytes: u32) -> Self {
        let (room, body_bytes) = (self.body_bytes, body_bytes as usize);
        assert_eq!(room, body_bytes.next_multiple_of(ENTRY_ALIGNMENT), "the entry fills the buffer");
        Self { body_bytes, ..self }
    }

    /// Memory that a buffer for a body of `body_bytes` takes.
    pub fn memory_bytes(body_bytes: u32) -> u64 {
        D::allocation_bytes((FIRST_BODY_AT + body_bytes as usize).next_multiple_of(BLOCK_BYTES)) as u64
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.buffer.as_ref()[FIRST_BODY_AT..FIRST_BODY_AT + self.body_bytes]
    }

    /// The body, to be received into.
    pub fn body_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[FIRST_BODY_AT..FIRST_BODY_AT + self.body_bytes]
    }
}
