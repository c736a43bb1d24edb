//! What other members say to a range.
//!
//! What brings entries, or must keep its place among them, goes through one queue and one task, because taking an entry
//! may wait for the log; everything else goes to the machine at once. Bytes from a peer are checked before they are
//! believed: what is malformed ends the stream or the copy with `corrupt_batch`. The queue is bounded: what does not fit
//! is lost, like what a broken connection loses.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use futures_lite::future;
use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{CopyOutcome, PeerBody, PeerMessage};
use minikafka_core::chain::replica::{Input, RequestId};
use minikafka_core::control::ControlEntry;
use minikafka_core::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use minikafka_core::limits::{PEER_INBOX_BYTES_MAX, PEER_MESSAGE_CHARGE_BYTES};
use minikafka_core::{CopyId, Epoch, ErrorCode, LogIndex, StreamId};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Notify;
use minikafka_storage::{Body, SharedSlice};

use super::entries::{self, Entries, Entry};
use super::{Appending, Range, segments};
use crate::receive::whole_body;
use crate::shard::TICK;

/// The body of an entry from a peer is at hand when the machine asks for it: nobody waits for an answer about it.
const FROM_PEER: RequestId = RequestId(u64::MAX);

type Message = PeerMessage<SharedSlice>;

/// Messages that wait for their turn.
#[derive(Default)]
pub(super) struct Inbox {
    queue: RefCell<VecDeque<Message>>,
    bytes: Cell<u64>,
    /// Whether the task runs.
    working: Cell<bool>,
    /// The log is being cut: it takes nothing until that is done.
    truncating: Cell<bool>,
    /// The range is closed: nothing is taken any more.
    closed: Cell<bool>,
    /// Who is told when an entry of the accepted stream is no entry.
    predecessor: Cell<Option<ChainMember>>,
    changed: Notify,
}

impl Inbox {
    /// While the log is being cut, nothing is appended to it.
    pub fn set_truncating(&self, truncating: bool) {
        self.truncating.set(truncating);
        self.changed.notify_all();
    }

    /// Takes nothing any more.
    pub fn close(&self) {
        self.closed.set(true);
        self.queue.borrow_mut().clear();
        self.changed.notify_all();
    }

    /// The machine took a stream.
    pub fn accepted(&self, from: ChainMember) {
        self.predecessor.set(Some(from));
    }

    async fn truncated(&self) {
        let done = || (!self.truncating.get() || self.closed.get()).then_some(());
        self.changed.wait_for(done).await;
    }
}

/// What a message counts for: entries are shared with the connection's buffers, so they take memory for as long.
fn charge(message: &Message) -> u64 {
    let entries = match &message.body {
        PeerBody::Entries { entries, .. }
        | PeerBody::CopyReply { outcome: CopyOutcome::Agreed { entries, .. }, .. } => entries::total_bytes(entries),
        PeerBody::CopyReply { outcome: CopyOutcome::Segment { part, .. }, .. } => segments::total_bytes(part),
        _ => 0,
    };
    entries + PEER_MESSAGE_CHARGE_BYTES
}

impl<D: Disk> Range<D> {
    /// Takes a message of another member, in the order in which its connection brought it.
    pub fn receive(self: &Rc<Self>, message: Message) {
        if self.inbox.closed.get() {
            return;
        }
        let epoch = message.epoch;
        match message.body {
            PeerBody::CopyReply { copy, outcome } => {
                if let Err(outcome) = self.mending.take_answer(copy, outcome) {
                    self.queue(Message { body: PeerBody::CopyReply { copy, outcome }, ..message });
                }
            }
            PeerBody::Entries { .. } => {
                self.explain_received();
                self.queue(message);
            }
            PeerBody::OpenStream { .. } | PeerBody::Committed { .. } => self.queue(message),
            PeerBody::Explain { index, .. } if self.epoch() == epoch => self.explain_asked(index),
            PeerBody::Explained { stream, index, hops } if self.outgoing.is_on(epoch, stream) => {
                self.successor_explained(index, hops);
            }
            PeerBody::Explain { .. } | PeerBody::Explained { .. } => {}
            PeerBody::StreamOpened { stream, end } => self.drive(Input::StreamOpened { epoch, stream, end }),
            PeerBody::StreamRefused { stream, code } => self.drive(Input::StreamRefused { epoch, stream, code }),
            PeerBody::Acknowledged { stream, index } => {
                if let Some(successor) = self.outgoing.successor(epoch, stream) {
                    self.successor_acknowledged(&successor, index);
                }
                self.drive(Input::SuccessorAcknowledged { epoch, stream, index });
                self.stream_acknowledged(epoch, stream, index);
            }
            PeerBody::CopyRequest { copy, from, to, purpose, after, until, segment } => {
                self.answer_copy((epoch, purpose), (copy, from, to), (after, until), segment);
            }
        }
    }

    /// The connection to another member is lost.
    pub fn peer_lost(self: &Rc<Self>, member: ChainMember) {
        self.mending.peer_lost(member);
        self.drive(Input::PeerLost { member });
    }

    fn queue(self: &Rc<Self>, message: Message) {
        let bytes = self.inbox.bytes.get() + charge(&message);
        if bytes > PEER_INBOX_BYTES_MAX {
            tracing::warn!(range = %self.key, bytes, "more came from other members than this range can hold; dropped");
            return;
        }
        self.inbox.bytes.set(bytes);
        self.inbox.queue.borrow_mut().push_back(message);
        if !self.inbox.working.replace(true) {
            let range = self.clone();
            self.shared.disk.spawn(async move {
                // Perhaps polled while the machine is being driven; what comes next drives it itself.
                future::yield_now().await;
                range.work_off().await;
            });
        }
    }

    async fn work_off(self: &Rc<Self>) {
        loop {
            let Some(message) = self.inbox.queue.borrow_mut().pop_front() else { break };
            let bytes = charge(&message);
            self.take(message).await;
            self.inbox.bytes.set(self.inbox.bytes.get() - bytes);
        }
        self.inbox.working.set(false);
        if self.inbox.closed.get() {
            self.inbox.bytes.set(0);
        }
    }

    async fn take(self: &Rc<Self>, Message { epoch, body, .. }: Message) {
        match body {
            PeerBody::OpenStream { stream, from, to } => {
                self.drive(Input::StreamRequested { epoch, stream, from, to });
            }
            PeerBody::Committed { stream, index } => self.drive(Input::CommittedAdvanced { epoch, stream, index }),
            PeerBody::Entries { stream, committed, entries } => {
                self.take_stream((epoch, stream), committed, entries).await;
            }
            PeerBody::CopyReply { copy, outcome: CopyOutcome::Agreed { limit, entries } } => {
                self.take_copy(copy, limit, entries).await;
            }
            PeerBody::CopyReply { copy, outcome: CopyOutcome::Segment { limit, part } } => {
                self.take_segment(copy, limit, part).await;
            }
            PeerBody::CopyReply { copy, outcome: CopyOutcome::Gone { limit } } => {
                self.drive(Input::CopyGone { copy, limit });
            }
            PeerBody::CopyReply { copy, outcome: CopyOutcome::Disagreed { limit } } => {
                self.drive(Input::CopyDisagreed { copy, limit });
            }
            PeerBody::CopyReply { copy, outcome: CopyOutcome::Refused { code } } => {
                self.drive(Input::CopyFailed { copy, code });
            }
            _ => unreachable!("only what brings entries, or keeps its place among them, is queued"),
        }
    }

    async fn take_stream(
        self: &Rc<Self>,
        (epoch, stream): (Epoch, StreamId),
        committed: LogIndex,
        runs: Vec<SharedSlice>,
    ) {
        // R1; the machine would not take it either, and need not be asked again while the disk is full.
        let is_current = || self.epoch() == epoch;
        let input = |header, control| {
            let request = FROM_PEER;
            Input::Replicate { request, epoch, stream, header, control, committed }
        };
        match self.take_entries(runs, &is_current, &input).await {
            Ok(_) => {}
            Err(reason) => self.refuse_malformed(stream, &reason),
        }
    }

    async fn take_copy(self: &Rc<Self>, copy: CopyId, limit: LogIndex, runs: Vec<SharedSlice>) {
        let promised = self.epoch();
        let is_current = || self.epoch() == promised;
        let input = |header, control| Input::Copied { request: FROM_PEER, copy, header, control };
        match self.take_entries(runs, &is_current, &input).await {
            Ok(true) => self.drive(Input::CopyEnded { copy, limit }),
            Ok(false) => {}
            Err(reason) => {
                tracing::error!(range = %self.key, %reason, "the source of a copy sent what is no entry");
                self.drive(Input::CopyFailed { copy, code: ErrorCode::CorruptBatch });
            }
        }
    }

    /// Takes entries one by one. False when one of them cannot be taken any more; an error when it is none.
    async fn take_entries(
        self: &Rc<Self>,
        runs: Vec<SharedSlice>,
        is_current: &dyn Fn() -> bool,
        input: &dyn Fn(EntryHeader, Option<ControlEntry>) -> Input,
    ) -> Result<bool, String> {
        for mut run in runs {
            let mut at = 0;
            while let Some(entry) = Entries::of(self.key, &run[at..]).next() {
                let Entry { header, control } = entry?;
                if !self.admit(&header, is_current).await {
                    return Ok(false);
                }
                let (input, end) = (input(header, control), at + header.entry_bytes());
                let trace = self.explained.take_asked(header.index);
                self.shared.clock.counted_ns();
                self.shared.metrics.replicated_records.add(header.record_count.into());
                self.shared.metrics.replicated_bytes.add(header.body_bytes.into());
                if at == 0 {
                    match whole_body::<D>(run, &header) {
                        Ok(body) => {
                            self.drive_with(input, Some(Appending { body: Body::Whole(body), trace }));
                            break;
                        }
                        Err(shared) => run = shared,
                    }
                }
                let body = &run[at + ENTRY_HEADER_BYTES..][..header.body_bytes as usize];
                self.drive_with(input, Some(Appending { body: Body::Copied(body), trace }));
                at = end;
            }
        }
        Ok(true)
    }

    /// Waits until the log takes an entry, and rolls it if it must be; nothing may be awaited between this and the append.
    /// False when that cannot be any more: closed, or no longer of an epoch in which it would be taken.
    ///
    /// A full disk stops the range here: nothing more is acknowledged, and the predecessor will complain.
    async fn admit(&self, header: &EntryHeader, is_current: &dyn Fn() -> bool) -> bool {
        let mut told = false;
        loop {
            self.inbox.truncated().await;
            self.append_space().await;
            if self.inbox.closed.get() || !is_current() {
                return false;
            }
            // Whatever does not follow the end is the machine's to ignore or to refuse: the log is not asked for room.
            let follows = header.index == self.log.end().index.next();
            if self.inbox.truncating.get() {
                continue;
            }
            match self.make_room_if(follows, header.entry_bytes()) {
                // A failed log takes nothing, and the machine knows.
                Ok(()) | Err(ErrorCode::RangeFailed) => return true,
                Err(ErrorCode::DiskFull) => {
                    if !told {
                        tracing::error!(range = %self.key, "disk_full: this member of the chain takes no entries");
                    }
                    told = true;
                    self.shared.disk.sleep(TICK).await;
                }
                Err(_) => {}
            }
        }
    }

    fn make_room_if(&self, needed: bool, bytes: usize) -> Result<(), ErrorCode> {
        if needed { self.make_room(bytes) } else { Ok(()) }
    }

    /// The machine is not asked: whatever comes later on this stream leaves a gap, which it will refuse.
    fn refuse_malformed(&self, stream: StreamId, reason: &str) {
        tracing::error!(range = %self.key, reason, "the predecessor sent what is no entry; the stream is over");
        if let Some(predecessor) = self.inbox.predecessor.get() {
            let code = ErrorCode::CorruptBatch;
            self.say(&predecessor, self.epoch(), PeerBody::StreamRefused { stream, code });
        }
    }
}
