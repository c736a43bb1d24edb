//! One connection as its tasks share it: what waits to be sent, what is in flight, what is due, and whether it lives.
//!
//! ```text
//!  Open --- no more input (end of stream, error, drain) ---> Finishing --- all answered and sent ---> (closed)
//!    `------------- overdue, broken, server gone ---------------- ` ------------------------------> Closed
//! ```
//! Everything happens on one executor; no borrow is held across an await.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use minikafka_core::histogram::COUNTED;
use minikafka_core::wire::frame::Envelope;
use minikafka_core::wire::{Api, ErrorReply, Wire};
use quanta::Instant;

use crate::deadline::{DeadlineKind, Due};
use crate::handshake::Refused;
use crate::outgoing::{Outgoing, SLICES_PER_SEND};
use crate::room::{Room, RoomPermit};
use crate::service::Hangup;
use crate::shard_net::ShardNet;
use crate::shared_bytes::SharedBytes;
use crate::stats::Counter;
use crate::transport::Transport;
use crate::turn::Turn;
use crate::window::{Window, WindowBounds};

/// A head that needed more scratch space than this does not keep it.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Requests are read, replies are sent.
    Open,
    /// Nothing more is read; replies are still sent.
    Finishing,
    /// The socket is shut; replies are discarded.
    Closed,
}

/// Shared by a connection's task, the replies it has handed out, and the sweep.
pub(crate) struct ConnectionState {
    pub(crate) net: Rc<ShardNet>,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) task: TaskWaker,
    pub(crate) read_turn: RefCell<Turn>,
    write_turn: RefCell<Turn>,
    /// Bytes of the current frame's bulk that are still in the socket.
    pub(crate) bulk_in_socket: Cell<usize>,
    pub(crate) peer: Option<SocketAddr>,
    phase: Cell<Phase>,
    draining: Cell<bool>,
    outgoing: RefCell<Outgoing>,
    /// When the first of what waits to be sent was queued.
    queued_at: Cell<Option<Instant>>,
    room: Rc<Room>,
    window: Window,
    /// Whether reading waits for the window or for room, and wants to be woken when there is some.
    reader_waits: Cell<bool>,
    read_due: Due,
    write_due: Due,
}

impl ConnectionState {
    pub(crate) fn new(net: &Rc<ShardNet>, transport: Box<dyn Transport>, peer: Option<SocketAddr>) -> Rc<Self> {
        let state = Self {
            net: Rc::clone(net),
            transport,
            task: TaskWaker::default(),
            read_turn: RefCell::default(),
            write_turn: RefCell::default(),
            bulk_in_socket: Cell::new(0),
            peer,
            phase: Cell::new(Phase::Open),
            draining: Cell::new(false),
            outgoing: RefCell::default(),
            queued_at: Cell::new(None),
            room: Room::new(net.config.reply_bytes_max),
            window: Window::default(),
            reader_waits: Cell::new(false),
            read_due: Due::default(),
            write_due: Due::default(),
        };
        state.read_due.set(net.now() + net.sweeps.hello, DeadlineKind::Hello);
        Rc::new(state)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase.get() == Phase::Closed
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether every request has been answered; the answers may not have left.
    pub(crate) fn is_answered(&self) -> bool {
        self.window.is_empty()
    }

    /// Reads no more requests; those in flight are answered, then the connection ends.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.task.wake();
    }

    /// Nothing more is read; what is in flight has a deadline now.
    pub(crate) fn finish(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Finishing);
            self.due_for_reading(self.net.sweeps.finish, DeadlineKind::Finish);
        }
    }

    /// Ends the connection at once, whatever waits.
    pub(crate) fn close(&self) {
        if self.phase.replace(Phase::Closed) == Phase::Closed {
            return;
        }
        self.read_due.clear();
        self.write_due.clear();
        self.outgoing.borrow_mut().clear();
        self.room.close();
        self.transport.shutdown(Shutdown::Both);
        self.task.wake();
    }

    /// Ends the connection because its socket failed.
    pub(crate) fn broken(&self, error: &io::Error) {
        if !self.is_closed() {
            self.net.stats.connections_broken.increment();
            tracing::debug!(peer = ?self.peer, %error, "connection broken");
            self.close();
        }
    }

    /// Queues a frame. On a closed connection it is discarded.
    pub(crate) fn push(&self, envelope: Envelope, head: &[u8], bulk: Vec<SharedBytes>, room: Option<RoomPermit>) {
        if self.is_closed() {
            return;
        }
        if self.outgoing.borrow().bytes() == 0 {
            self.queued_at.set(COUNTED.then(Instant::now));
        }
        self.outgoing.borrow_mut().push_frame(envelope, head, bulk, room);
        self.net.stats.replies.increment();
        if let Some(code) = envelope.error {
            self.net.stats.count_error(code);
        }
        self.task.wake();
    }

    /// Queues a frame whose head is `message`.
    pub(crate) fn push_message(
        &self,
        envelope: Envelope,
        message: &impl Wire,
        bulk: Vec<SharedBytes>,
        room: Option<RoomPermit>,
    ) {
        let mut scratch = self.net.scratch.take();
        scratch.clear();
        message.put(&mut scratch);
        self.push(envelope, &scratch, bulk, room);
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            self.net.scratch.replace(scratch);
        }
    }

    /// Answers a frame that is not served, and says so in the log.
    pub(crate) fn refuse(&self, envelope: Envelope, refused: &Refused) {
        if self.net.log.pass() {
            let (code, api) = (refused.code.name(), Api::from_number(envelope.api));
            tracing::warn!(peer = ?self.peer, code, ?api, closes = refused.closes, "refused: {}", refused.message);
        }
        let envelope = Envelope { error: Some(refused.code), is_reply: true, ..envelope };
        self.push_message(envelope, &ErrorReply::because(refused.message.as_str()), Vec::new(), None);
    }

    /// Waits until `bytes` of replies may be queued, in the order of asking.
    pub(crate) async fn room(&self, bytes: usize) -> Result<RoomPermit, Hangup> {
        self.room.wait(bytes).await
    }

    /// Waits until the peer has read enough of its replies. A peer that does not read is not read from.
    pub(crate) fn poll_room(&self) -> Poll<Result<(), Hangup>> {
        let has_room = self.outgoing.borrow().bytes() < self.net.config.reply_bytes_max;
        self.poll_reader(has_room, &self.net.stats.room_waits)
    }

    /// Enters a request into the window, once there is place for it.
    pub(crate) fn poll_enter(&self, bytes: u64) -> Poll<Result<(), Hangup>> {
        let config = &self.net.config;
        let bounds = WindowBounds { requests_max: config.in_flight_max, bytes_max: config.in_flight_bytes_max };
        let entered = self.poll_reader(self.window.admits(bytes, bounds), &self.net.stats.window_waits);
        if entered == Poll::Ready(Ok(())) {
            self.window.enter(bytes);
        }
        entered
    }

    /// Lets the reader go on if it may, else notes that it waits, counting each wait once.
    fn poll_reader(&self, may_go_on: bool, waits: &Counter) -> Poll<Result<(), Hangup>> {
        if self.is_closed() {
            return Poll::Ready(Err(Hangup::new()));
        }
        if !self.reader_waits.replace(!may_go_on) && !may_go_on {
            waits.increment();
        }
        if may_go_on { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// A request has been answered. Queuing the answer, just before, has woken whoever waits for this.
    pub(crate) fn leave(&self, bytes: u64) {
        self.window.leave(bytes);
    }

    /// Sends what waits, a bounded amount each time. Ready when nothing waits.
    pub(crate) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_closed() || self.outgoing.borrow().bytes() == 0 {
                self.all_left();
                self.write_due.clear();
                return Poll::Ready(());
            }
            if self.write_turn.borrow_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let sent = {
                let outgoing = self.outgoing.borrow();
                let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
                let filled = outgoing.slices(&mut slices);
                self.transport.poll_send(context, &slices[..filled])
            };
            match sent {
                Poll::Ready(Ok(0)) => self.broken(&io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.sent(count),
                Poll::Ready(Err(error)) => self.broken(&error),
                Poll::Pending => {
                    if !self.write_due.is_set(DeadlineKind::Write) {
                        self.write_due.set(self.net.now() + self.net.sweeps.write, DeadlineKind::Write);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Nothing waits to be sent.
    fn all_left(&self) {
        if let Some(queued_at) = self.queued_at.take() {
            let ns = u64::try_from(queued_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.net.stats.replies_left.record(ns);
        }
    }

    fn sent(&self, count: usize) {
        self.net.stats.sends.increment();
        self.net.stats.bytes_sent.add(count);
        self.write_turn.borrow_mut().spend(count);
        let (a_piece_left, has_room) = {
            let mut outgoing = self.outgoing.borrow_mut();
            (outgoing.advance(count), outgoing.bytes() < self.net.config.reply_bytes_max)
        };
        if a_piece_left {
            self.write_due.clear();
        }
        if has_room && self.reader_waits.get() {
            self.task.wake();
        }
    }

    /// The next input is due so many sweeps from now.
    pub(crate) fn due_for_reading(&self, sweeps: u64, kind: DeadlineKind) {
        self.read_due.set(self.net.now() + sweeps, kind);
    }

    /// Input is awaited: the rest of a frame, or the next one. The first is the hello's, whose deadline is running.
    pub(crate) fn await_input(&self, in_a_frame: bool) {
        let sweeps = &self.net.sweeps;
        if self.read_due.is_set(DeadlineKind::Hello) {
        } else if !in_a_frame {
            self.due_for_reading(sweeps.idle, DeadlineKind::Idle);
        } else if !self.read_due.is_set(DeadlineKind::Frame) {
            self.due_for_reading(sweeps.frame, DeadlineKind::Frame);
        }
    }

    /// Nothing is expected from the peer for now.
    pub(crate) fn input_arrived(&self) {
        self.read_due.clear();
    }

    /// Ends the connection if something was due by now.
    pub(crate) fn end_if_overdue(&self, now: u64) {
        let Some(kind) = self.read_due.overdue(now).or_else(|| self.write_due.overdue(now)) else {
            return;
        };
        if kind == DeadlineKind::Idle && !self.window.is_empty() {
            return self.due_for_reading(self.net.sweeps.idle, kind);
        }
        self.net.stats.count_deadline(kind);
        if kind != DeadlineKind::Linger && self.net.log.pass() {
            tracing::warn!(peer = ?self.peer, deadline = kind.name(), "connection ended: a deadline passed");
        }
        self.close();
    }
}

/// Wakes the one task of a connection; while it runs, notes that it has to look again.
#[derive(Default)]
pub(crate) struct TaskWaker {
    waker: RefCell<Option<Waker>>,
    running: Cell<bool>,
    again: Cell<bool>,
}

impl TaskWaker {
    pub(crate) fn wake(&self) {
        if self.running.get() {
            self.again.set(true);
        } else if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The task runs from here on.
    pub(crate) fn enter(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        self.running.set(true);
    }

    /// What was noted so far is about to be looked at.
    pub(crate) fn looking(&self) {
        self.again.set(false);
    }

    /// Whether something was noted since.
    pub(crate) fn is_noted(&self) -> bool {
        self.again.get()
    }

    /// The task no longer runs.
    pub(crate) fn leave(&self) {
        self.running.set(false);
    }
}
