//! Answers: one [`Reply`] per request, to be sent from any task of the executor, in any order.

use std::fmt;
use std::rc::Rc;

use minikafka_core::ErrorCode;
use minikafka_core::wire::frame::Envelope;
use minikafka_core::wire::{ErrorReply, Explained, FrameHeader, Wire};

use crate::connection_state::ConnectionState;
use crate::room::RoomPermit;
use crate::service::Hangup;
use crate::shared_bytes::SharedBytes;

/// The way back to one peer. Cheap to clone; outlives the connection, whereupon it discards what it is given.
#[derive(Clone)]
pub struct ReplyQueue {
    connection: Rc<ConnectionState>,
}

impl ReplyQueue {
    /// Queues a frame; the connection's task sends all that is queued with one system call. Never waits: who sends
    /// much asks for [`Reply::room`] first.
    pub fn push_frame(&self, envelope: Envelope, head: &[u8], bulk: Vec<SharedBytes>) {
        self.connection.push(envelope, head, bulk, None);
    }

    /// Ends the connection at once; what is queued is lost. For a link that a newer one replaces.
    pub fn cut(&self) {
        self.connection.close();
    }

    /// Whether the peer can still be reached, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.connection.is_closed()
    }
}

impl fmt::Debug for ReplyQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplyQueue {{ open: {} }}", self.is_open())
    }
}

/// The answer owed to one request, and its place in the connection's window of requests in flight.
///
/// One that is dropped unsent answers `timed_out`, so that no client waits for ever.
#[must_use = "dropping a reply answers `timed_out`"]
pub struct Reply {
    connection: Rc<ConnectionState>,
    envelope: Envelope,
    window_bytes: u64,
    room: Option<RoomPermit>,
    answered: bool,
}

impl Reply {
    /// For a request that has entered the window with `window_bytes`.
    pub(crate) fn new(connection: &Rc<ConnectionState>, request: &FrameHeader, window_bytes: u64) -> Self {
        Self {
            connection: Rc::clone(connection),
            envelope: Envelope::reply(request, None),
            window_bytes,
            room: None,
            answered: false,
        }
    }

    /// Answers with `message`.
    pub fn send(self, message: &impl Wire) {
        self.send_with_bulk(message, Vec::new());
    }

    /// Answers with `message` and stored bytes, which are sent without being copied.
    pub fn send_with_bulk(mut self, message: &impl Wire, bulk: Vec<SharedBytes>) {
        self.answered = true;
        let room = self.room.take();
        self.connection.push_message(self.envelope, message, bulk, room);
    }

    /// Answers a request that asked to be explained.
    pub fn send_explained<M: Wire>(mut self, explained: &Explained<M>, bulk: Vec<SharedBytes>) {
        self.envelope = self.envelope.explained();
        self.send_with_bulk(explained, bulk);
    }

    /// Answers with a head that is encoded already.
    pub fn send_encoded(mut self, head: &[u8], bulk: Vec<SharedBytes>) {
        self.answered = true;
        let room = self.room.take();
        self.connection.push(self.envelope, head, bulk, room);
    }

    /// Leaves the request without an answer, because its api has none.
    pub fn owe_nothing(mut self) {
        self.answered = true;
    }

    /// Answers with an error and the code's own advice.
    pub fn fail(self, code: ErrorCode) {
        self.fail_with(code, &ErrorReply::of(code));
    }

    /// Answers with an error.
    pub fn fail_with(mut self, code: ErrorCode, error: &ErrorReply) {
        self.answer_error(code, error);
    }

    /// Waits until `bytes` of bulk may be queued for this peer, first come, first served; the place is given back
    /// when the answer has left. What bounds memory when many fetches of one connection are answered at once.
    ///
    /// # Errors
    /// [`Hangup`] when the connection has ended.
    pub async fn room(&mut self, bytes: usize) -> Result<(), Hangup> {
        self.room = None;
        self.room = Some(self.connection.room(bytes).await?);
        Ok(())
    }

    /// Whether the peer can still be reached, as far as is known; a long poll may give up when it cannot.
    pub fn is_open(&self) -> bool {
        !self.connection.is_closed()
    }

    /// The way back to this request's peer.
    pub fn queue(&self) -> ReplyQueue {
        ReplyQueue { connection: Rc::clone(&self.connection) }
    }

    pub(crate) fn answer_error(&mut self, code: ErrorCode, error: &ErrorReply) {
        if !std::mem::replace(&mut self.answered, true) {
            let envelope = Envelope { error: Some(code), ..self.envelope };
            self.connection.push_message(envelope, error, Vec::new(), None);
        }
    }

    pub(crate) fn connection(&self) -> &ConnectionState {
        &self.connection
    }

    pub(crate) fn envelope(&self) -> Envelope {
        self.envelope
    }

    pub(crate) fn note_answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered && !self.connection.is_closed() {
            self.connection.net.stats.replies_forgotten.increment();
            let error = ErrorReply::because("the server gave this request up; its outcome is unknown");
            self.answer_error(ErrorCode::TimedOut, &error);
        }
        self.connection.leave(self.window_bytes);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("envelope", &self.envelope).field("answered", &self.answered).finish()
    }
}
