//! The sending end of a stream: entries to the successor, as the log has them.
//!
//! One task per range, for as long as it has a stream, reads behind what it sent and sends what it read: what was just
//! appended is still in memory, what a successor lacks comes from the disk, by the same code. It stays within
//! [`STREAM_WINDOW_BYTES`] of what is acknowledged; appends and acknowledgements wake it. Absent: any decision when a
//! stream begins or is over, which is the machine's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{Complaint, ComplaintReason, PeerBody};
use minikafka_core::limits::{PEER_MESSAGE_CHARGE_BYTES, READ_BYTES_MAX, STREAM_WINDOW_BYTES};
use minikafka_core::{Epoch, LogIndex, StreamId};
use minikafka_storage::SharedSlice;
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Notify;

use super::{Range, entries};
use crate::peers::Room;

/// The stream to the successor, if there is one.
#[derive(Default)]
pub(super) struct Outgoing {
    stream: RefCell<Option<Stream>>,
    /// Appended, acknowledged, begun or stopped: the task looks again.
    changed: Notify,
    /// Whether the task runs.
    pumping: Cell<bool>,
}

struct Stream {
    epoch: Epoch,
    stream: StreamId,
    to: ChainMember,
    /// The last entry that was sent, or is with the successor.
    sent: LogIndex,
    /// Messages not acknowledged: the last entry of each, and what it counts for.
    unacknowledged: VecDeque<(LogIndex, u64)>,
    unacknowledged_bytes: u64,
}

/// What the task does next.
struct Next {
    epoch: Epoch,
    stream: StreamId,
    to: ChainMember,
    from: LogIndex,
    bytes_max: usize,
}

impl Stream {
    fn next(&self, end: LogIndex) -> Option<Next> {
        let room = STREAM_WINDOW_BYTES.saturating_sub(self.unacknowledged_bytes);
        (self.sent < end && room > 0).then(|| Next {
            epoch: self.epoch,
            stream: self.stream,
            to: self.to,
            from: self.sent.next(),
            bytes_max: room.min(READ_BYTES_MAX.into()) as usize,
        })
    }

    fn acknowledged(&mut self, index: LogIndex) {
        while let Some(&(last, bytes)) = self.unacknowledged.front()
            && last <= index
        {
            self.unacknowledged.pop_front();
            self.unacknowledged_bytes -= bytes;
        }
    }
}

impl Outgoing {
    /// There is more to send.
    pub fn appended(&self) {
        self.changed.notify_all();
    }

    /// Nothing more is sent on any stream.
    pub fn stop(&self) {
        self.stream.replace(None);
        self.changed.notify_all();
    }

    pub fn is_on(&self, epoch: Epoch, stream: StreamId) -> bool {
        self.successor(epoch, stream).is_some()
    }

    /// Who is at the other end of this stream; none when it is over.
    pub fn successor(&self, epoch: Epoch, stream: StreamId) -> Option<ChainMember> {
        let now = self.stream.borrow();
        now.as_ref().filter(|now| now.stream == stream && now.epoch == epoch).map(|now| now.to)
    }

    /// Waits for something to send; none when there is no stream any more.
    async fn next(&self, end: impl Fn() -> LogIndex) -> Option<Next> {
        let next = || match &*self.stream.borrow() {
            None => Some(None),
            Some(stream) => stream.next(end()).map(Some),
        };
        self.changed.wait_for(next).await
    }
}

impl<D: Disk> Range<D> {
    /// Sends what comes behind `after` on this stream, instead of any older one.
    pub(super) fn stream_from(self: &Rc<Self>, epoch: Epoch, stream: StreamId, to: ChainMember, after: LogIndex) {
        let begun = Stream { epoch, stream, to, sent: after, unacknowledged: VecDeque::new(), unacknowledged_bytes: 0 };
        self.outgoing.stream.replace(Some(begun));
        if self.outgoing.pumping.replace(true) {
            return self.outgoing.changed.notify_all();
        }
        let range = self.clone();
        self.shared.disk.spawn(async move { range.pump().await });
    }

    /// The successor has everything up to `index`.
    pub(super) fn stream_acknowledged(&self, epoch: Epoch, stream: StreamId, index: LogIndex) {
        if let Some(now) = &mut *self.outgoing.stream.borrow_mut()
            && (now.epoch, now.stream) == (epoch, stream)
        {
            now.acknowledged(index);
        }
        self.outgoing.changed.notify_all();
    }

    async fn pump(&self) {
        while let Some(next) = self.outgoing.next(|| self.log.end().index).await {
            let Next { epoch, stream, to, from, bytes_max } = next;
            let room = self.shared.peers.room(&to, bytes_max as u64).await;
            if !self.outgoing.is_on(epoch, stream) {
                continue;
            }
            let read = self.log.read_index(from, bytes_max).await;
            if !self.outgoing.is_on(epoch, stream) {
                continue;
            }
            match read {
                Ok(runs) => {
                    let (runs, last) = entries::up_to(runs, LogIndex(u64::MAX));
                    match last {
                        Some(last) => self.send_entries(runs, last, room),
                        None => self.cannot_stream(epoch, from, &"the log does not find it"),
                    }
                }
                Err(error) => self.cannot_stream(epoch, from, &error),
            }
        }
        self.outgoing.pumping.set(false);
    }

    fn send_entries(&self, entries: Vec<SharedSlice>, last: LogIndex, room: Room) {
        let bytes = entries::total_bytes(&entries) + PEER_MESSAGE_CHARGE_BYTES;
        let committed = self.replica.borrow().committed();
        let (to, epoch, stream, after) = {
            let mut outgoing = self.outgoing.stream.borrow_mut();
            let Some(now) = &mut *outgoing else { return };
            let after = std::mem::replace(&mut now.sent, last);
            now.unacknowledged.push_back((last, bytes));
            now.unacknowledged_bytes += bytes;
            (now.to, now.epoch, now.stream, after)
        };
        self.ask_successor((&to, epoch, stream), after, last);
        self.say_with(&to, epoch, PeerBody::Entries { stream, committed, entries }, room);
    }

    /// The own log does not give what the successor lacks: trying again would not help, another chain does.
    fn cannot_stream(&self, epoch: Epoch, from: LogIndex, reason: &dyn std::fmt::Display) {
        tracing::error!(range = %self.key, entry = %from, %reason, "cannot send an entry to the successor; the stream ends");
        self.outgoing.stop();
        let me = self.shared.me.node;
        let reason = ComplaintReason::WriteFailed;
        self.complain(Complaint { range: self.key, epoch, by: me, about: me, reason });
    }
}
