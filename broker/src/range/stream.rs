//! The sending end of a stream: entries to the successor, as the log has them.
//!
//! One task per range, for as long as it has a stream, reads behind what it sent and sends what it read: what was just
//! appended is still in memory, what a successor lacks comes from the disk, by the same code. It stays within
//! [`STREAM_WINDOW_BYTES`] of what is acknowledged; appends and acknowledgements wake it. What a flush still gathers would
//! have to be copied, again and again while it grows, so it is sent only while little else is on its way, much as Nagle's
//! algorithm does: before that flush is on disk nothing of it is committed anyway. Absent: any decision when a stream begins
//! or is over, which is the machine's.

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

/// This part of a full flush on its way is much.
const BUSY_SHARE: u64 = 8;

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
    /// With so many, what a flush still gathers waits until it is closed.
    busy_bytes: u64,
}

/// What the task does next.
struct Next {
    epoch: Epoch,
    stream: StreamId,
    to: ChainMember,
    from: LogIndex,
    up_to: LogIndex,
    bytes_max: usize,
}

/// How far a log goes.
#[derive(Clone, Copy)]
struct Ends {
    /// Before the flush that gathers entries.
    gathered: LogIndex,
    /// All of it.
    last: LogIndex,
}

impl Stream {
    fn next(&self, ends: Ends) -> Option<Next> {
        let room = STREAM_WINDOW_BYTES.saturating_sub(self.unacknowledged_bytes);
        let is_busy = self.unacknowledged_bytes >= self.busy_bytes;
        let up_to = if is_busy { ends.gathered } else { ends.last };
        (self.sent < up_to && room > 0).then(|| Next {
            epoch: self.epoch,
            stream: self.stream,
            to: self.to,
            from: self.sent.next(),
            up_to,
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
    /// There may be more to send: something was appended, or a flush took what it gathered.
    pub fn look(&self) {
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
    async fn next(&self, ends: impl Fn() -> Ends) -> Option<Next> {
        let next = || match &*self.stream.borrow() {
            None => Some(None),
            Some(stream) => stream.next(ends()).map(Some),
        };
        self.changed.wait_for(next).await
    }
}

impl<D: Disk> Range<D> {
    /// Sends what comes behind `after` on this stream, instead of any older one.
    pub(super) fn stream_from(self: &Rc<Self>, epoch: Epoch, stream: StreamId, to: ChainMember, after: LogIndex) {
        let begun = Stream {
            epoch,
            stream,
            to,
            sent: after,
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
            busy_bytes: self.log.flush_bytes_max() as u64 / BUSY_SHARE,
        };
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
        let ends = || Ends { gathered: self.log.gathered_index(), last: self.log.end().index };
        while let Some(next) = self.outgoing.next(ends).await {
            let Next { epoch, stream, to, from, up_to, bytes_max } = next;
            let room = self.shared.peers.room(&to, bytes_max as u64).await;
            if !self.outgoing.is_on(epoch, stream) {
                continue;
            }
            let read = self.log.read_index_up_to(from, up_to, bytes_max).await;
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

#[cfg(test)]
mod tests {
    use minikafka_core::{Incarnation, NodeId, ShardId, StoreId};

    use super::*;

    #[test]
    fn what_a_flush_gathers_waits_while_much_is_on_its_way() {
        let to = ChainMember { node: NodeId(2), shard: ShardId(0), store: StoreId(3), incarnation: Incarnation(4) };
        let mut stream = Stream {
            epoch: Epoch(1),
            stream: StreamId(1),
            to,
            sent: LogIndex(10),
            unacknowledged: VecDeque::from([(LogIndex(9), 999), (LogIndex(10), 1)]),
            unacknowledged_bytes: 1000,
            busy_bytes: 1000,
        };
        let up_to = |stream: &Stream, gathered, last| {
            stream.next(Ends { gathered: LogIndex(gathered), last: LogIndex(last) }).map(|next| next.up_to)
        };
        assert_eq!(up_to(&stream, 10, 15), None, "a flush gathers all that there is to send");
        assert_eq!(up_to(&stream, 12, 15), Some(LogIndex(12)));
        stream.acknowledged(LogIndex(9));
        assert_eq!(up_to(&stream, 10, 15), Some(LogIndex(15)), "little is on its way");
    }
}
