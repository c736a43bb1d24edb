//! One connection to a shard or a gateway: many requests in flight, replies matched by correlation.
//!
//! A reader task and a writer task own the socket. Requests of one caller leave in the order in which they were made;
//! replies come in any order. What is in flight is bounded by the window that the server told in its hello (at most
//! 1,024 requests and 32 MiB): [`Connection::request`] waits for room in FIFO order, [`Connection::try_request`] does
//! not wait. When the connection ends, for whatever reason, every request in flight fails with the same typed error.
//!
//! Nothing here retries: that needs to know what a request means.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use minikafka_core::limits;
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::{
    Api, EXPLAIN_PROTOCOL, ErrorReply, Explained, Explanation, FRAME_HEADER_BYTES, HelloReply, Wire, encode_frame,
};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::error::{BrokerError, Error, Result};

mod frame_reader;
mod handshake;
mod socket;
mod writer;

pub use frame_reader::{Frame, FrameReader, ReadError};
pub use handshake::{ClusterSecret, ConnectOptions};

/// A connection that said hello. Cheap to clone; it closes when the last clone and the last pending reply are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: Arc<Inner>,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message's fields.
    pub head: Bytes,
    /// What stands behind them: fetched entries, otherwise empty.
    pub bulk: Bytes,
    /// Whether the fields end with an explanation.
    pub explain: bool,
}

/// A request that is in flight. Dropping it forgets the reply; the server carries the request out all the same.
#[derive(Debug)]
#[must_use = "a pending reply does nothing unless awaited"]
pub struct PendingReply {
    reply: oneshot::Receiver<Result<Reply>>,
    connection: Arc<Inner>,
}

/// Why [`Connection::try_request`] did not send.
#[derive(Clone, Debug)]
pub enum TryRequestError {
    /// The window is full: await [`Connection::room`], then try again.
    Full,
    /// It can never be sent here.
    Failed(Error),
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<writer::Outgoing>,
    tasks: [JoinHandle<()>; 2],
}

/// What the tasks share with the handles.
#[derive(Debug)]
struct Shared {
    address: Arc<str>,
    server: HelloReply,
    requests_room: Semaphore,
    bytes_room: Semaphore,
    waiting: Mutex<Waiting>,
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct Waiting {
    next_correlation: u64,
    by_correlation: HashMap<u64, Waiter>,
    ended: Option<Error>,
}

#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Result<Reply>>,
    request_bytes: usize,
}

impl Connection {
    /// Opens a connection to `address` (`host:port`), says hello, and proves the cluster secret if the role asks for it.
    ///
    /// # Errors
    /// [`Error::ConnectFailed`] when the system or the time limit refuses, [`Error::Broker`] when the server does,
    /// [`Error::Malformed`] when it does not speak this protocol.
    pub async fn connect(address: &str, options: &ConnectOptions) -> Result<Self> {
        let address: Arc<str> = address.into();
        match tokio::time::timeout(options.connect_timeout, Self::open(&address, options)).await {
            Ok(connection) => connection,
            Err(_) => Err(Error::ConnectFailed {
                reason: format!("no hello within {} ms", options.connect_timeout.as_millis()).into(),
                address,
            }),
        }
    }

    async fn open(address: &Arc<str>, options: &ConnectOptions) -> Result<Self> {
        let failed =
            |error: std::io::Error| Error::ConnectFailed { address: address.clone(), reason: error.to_string().into() };
        let stream = TcpStream::connect(&**address).await.map_err(failed)?;
        socket::configure(&stream).map_err(failed)?;
        let (source, mut sink) = stream.into_split();
        let mut frames = FrameReader::new(source, FrameLimits::REPLY);
        let server = handshake::shake_hands(address, &mut frames, &mut sink, options).await?;
        let requests_max = server.in_flight_max.clamp(1, limits::CONNECTION_IN_FLIGHT_MAX);
        let shared = Arc::new(Shared {
            address: address.clone(),
            server,
            requests_room: Semaphore::new(requests_max as usize),
            bytes_room: Semaphore::new(limits::CONNECTION_IN_FLIGHT_BYTES_MAX as usize),
            waiting: Mutex::new(Waiting {
                next_correlation: handshake::CORRELATIONS_USED,
                by_correlation: HashMap::new(),
                ended: None,
            }),
            ended: watch::Sender::new(false),
        });
        // Unbounded as a type, bounded by the window: nothing is queued here without room in it.
        let (outgoing, queue) = mpsc::unbounded_channel();
        let tasks = [
            tokio::spawn(read_replies(shared.clone(), frames)),
            tokio::spawn(writer::write_requests(shared.clone(), sink, queue)),
        ];
        Ok(Self { inner: Arc::new(Inner { shared, outgoing, tasks }) })
    }

    /// Sends a request and awaits its reply, both together for at most `deadline`. `head` are the message's fields,
    /// `bulk` what follows them (a batch body), empty for most requests.
    ///
    /// Dropping the future before it is done is safe; whether the request was sent is then unknown.
    ///
    /// # Errors
    /// [`Error::Broker`] with the server's code, [`Error::ConnectionLost`], [`Error::DeadlineExceeded`],
    /// [`Error::Malformed`], or [`Error::Closed`] after [`Connection::close`].
    pub async fn request(&self, api: Api, head: &[u8], bulk: Bytes, deadline: Duration) -> Result<Reply> {
        self.request_as((api, false), head, bulk, deadline).await
    }

    /// The same, asking to be explained if so.
    pub(crate) async fn request_as(
        &self,
        (api, explain): (Api, bool),
        head: &[u8],
        bulk: Bytes,
        deadline: Duration,
    ) -> Result<Reply> {
        let exchange = async {
            loop {
                match self.try_request_as((api, explain), head, bulk.clone()) {
                    Ok(pending) => return pending.await,
                    Err(TryRequestError::Full) => self.room(head.len() + bulk.len()).await?,
                    Err(TryRequestError::Failed(error)) => return Err(error),
                }
            }
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(self.deadline_exceeded(api, deadline)),
        }
    }

    /// Sends a message without bulk and decodes the reply's fields. As [`Connection::request`] otherwise.
    pub async fn call<Q: Wire, A: Wire>(&self, api: Api, request: &Q, deadline: Duration) -> Result<A> {
        let reply = self.request(api, &request.to_bytes(), Bytes::new(), deadline).await?;
        self.decode("reply", &reply.head)
    }

    /// Sends a request at once, or not at all. Requests made by one caller, one after the other, leave in that order.
    ///
    /// # Errors
    /// [`TryRequestError::Full`] when the window has no room; otherwise why this connection cannot take it.
    pub fn try_request(&self, api: Api, head: &[u8], bulk: Bytes) -> Result<PendingReply, TryRequestError> {
        self.try_request_as((api, false), head, bulk)
    }

    /// The same, asking to be explained if so; a server of an older release, which cannot, is not asked.
    pub(crate) fn try_request_as(
        &self,
        (api, explain): (Api, bool),
        head: &[u8],
        bulk: Bytes,
    ) -> Result<PendingReply, TryRequestError> {
        let shared = &self.inner.shared;
        let request_bytes = request_bytes(head.len() + bulk.len());
        let Ok(request_room) = shared.requests_room.try_acquire() else {
            return Err(self.full_or_ended());
        };
        let Ok(bytes_room) = shared.bytes_room.try_acquire_many(request_bytes as u32) else {
            return Err(self.full_or_ended());
        };
        let (sender, reply) = oneshot::channel();
        let mut waiting = shared.waiting();
        if let Some(error) = &waiting.ended {
            return Err(TryRequestError::Failed(error.clone()));
        }
        // Both kinds of room are given back when the reply is here.
        request_room.forget();
        bytes_room.forget();
        let correlation = waiting.next_correlation;
        waiting.next_correlation += 1;
        waiting.by_correlation.insert(correlation, Waiter { reply: sender, request_bytes });
        let mut start = Vec::with_capacity(FRAME_HEADER_BYTES + head.len());
        let explain = explain && shared.server.protocol >= EXPLAIN_PROTOCOL;
        let envelope = Envelope { explain, ..Envelope::request(api, correlation) };
        encode_frame(&mut start, envelope, head, bulk.len() as u32);
        // Sent under the lock, so that frames leave in the order of their correlations. A writer that is gone has
        // failed, or is about to fail, every waiter, this one included.
        let _ = self.inner.outgoing.send(writer::Outgoing { start, bulk });
        drop(waiting);
        Ok(PendingReply { reply, connection: self.inner.clone() })
    }

    /// Waits until a request of `payload_bytes` (head and bulk) would find room, in FIFO order with others who wait.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn room(&self, payload_bytes: usize) -> Result<()> {
        let shared = &self.inner.shared;
        let both = async {
            let _request = shared.requests_room.acquire().await?;
            shared.bytes_room.acquire_many(request_bytes(payload_bytes) as u32).await.map(drop)
        };
        both.await.map_err(|_| shared.end_error())
    }

    /// Decodes a message's fields.
    ///
    /// # Errors
    /// [`Error::Malformed`], naming this connection's peer.
    pub fn decode<A: Wire>(&self, what: &'static str, head: &[u8]) -> Result<A> {
        A::from_bytes(head).map_err(|error| Error::malformed(&self.inner.shared.address, what, error))
    }

    /// Decodes a reply's fields, and its explanation if it has one.
    pub(crate) fn decode_explained<A: Wire>(
        &self,
        what: &'static str,
        reply: &Reply,
    ) -> Result<(A, Option<Explanation>)> {
        if !reply.explain {
            return self.decode(what, &reply.head).map(|message| (message, None));
        }
        let Explained { message, explanation } = self.decode(what, &reply.head)?;
        Ok((message, Some(explanation)))
    }

    /// Where this connection leads, as given to [`Connection::connect`].
    pub fn address(&self) -> &Arc<str> {
        &self.inner.shared.address
    }

    /// What the server said of itself: node, shard, limits.
    pub fn server(&self) -> &HelloReply {
        &self.inner.shared.server
    }

    /// Closes the connection at once; every request in flight fails with [`Error::ConnectionLost`].
    pub fn close(&self) {
        self.end_because("closed by this client");
    }

    /// Closes a connection that the caller no longer trusts, telling its other users why.
    pub(crate) fn end_because(&self, reason: &str) {
        self.inner.shared.end(self.inner.shared.lost(reason));
        self.inner.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        *self.inner.shared.ended.borrow()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        // An error would mean that the sender is gone, but it lives as long as this handle.
        let _ = self.inner.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn full_or_ended(&self) -> TryRequestError {
        match &self.inner.shared.waiting().ended {
            Some(error) => TryRequestError::Failed(error.clone()),
            None => TryRequestError::Full,
        }
    }

    fn deadline_exceeded(&self, api: Api, within: Duration) -> Error {
        Error::DeadlineExceeded {
            what: format!("{api:?} request to {}", self.inner.shared.address).into(),
            within,
            outcome_unknown: true,
        }
    }
}

impl PendingReply {
    /// Awaits the reply for at most `deadline` from now.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn within(self, api: Api, deadline: Duration) -> Result<Reply> {
        let connection = Connection { inner: self.connection.clone() };
        match tokio::time::timeout(deadline, self).await {
            Ok(reply) => reply,
            Err(_) => Err(connection.deadline_exceeded(api, deadline)),
        }
    }
}

impl Future for PendingReply {
    type Output = Result<Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.reply).poll(context));
        Poll::Ready(reply.unwrap_or_else(|_| Err(self.connection.shared.end_error())))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end(Error::Closed("connection"));
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, reason: impl ToString) -> Error {
        Error::ConnectionLost { address: self.address.clone(), reason: reason.to_string().into() }
    }

    fn end_error(&self) -> Error {
        self.waiting().ended.clone().unwrap_or_else(|| self.lost("the connection ended"))
    }

    /// Ends the connection once: all who wait learn why, and nobody can start to wait any more.
    fn end(&self, error: Error) {
        let waiters = {
            let mut waiting = self.waiting();
            if waiting.ended.is_some() {
                return;
            }
            waiting.ended = Some(error.clone());
            std::mem::take(&mut waiting.by_correlation)
        };
        self.requests_room.close();
        self.bytes_room.close();
        self.ended.send_replace(true);
        for waiter in waiters.into_values() {
            // Who no longer waits is not interested.
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// Hands a reply to whoever asked; an error when nobody did.
    fn deliver(&self, frame: Frame) -> Result<()> {
        let waiter = self.waiting().by_correlation.remove(&frame.header.correlation);
        let reply = self.reply_of(&frame);
        let Some(waiter) = waiter.filter(|_| frame.header.is_reply) else {
            let unasked = || Error::malformed(&self.address, "frame", "it answers no request");
            return Err(reply.err().unwrap_or_else(unasked));
        };
        self.requests_room.add_permits(1);
        self.bytes_room.add_permits(waiter.request_bytes);
        let _ = waiter.reply.send(reply.map(|()| Reply {
            head: frame.head,
            bulk: frame.bulk,
            explain: frame.header.explain,
        }));
        Ok(())
    }

    fn reply_of(&self, frame: &Frame) -> Result<()> {
        match frame.header.error {
            None => Ok(()),
            Some(code) => Err(broker_error(&self.address, code, &frame.head)),
        }
    }
}

/// The error that a reply's head explains.
fn broker_error(address: &Arc<str>, code: minikafka_core::ErrorCode, head: &[u8]) -> Error {
    match ErrorReply::from_bytes(head) {
        Ok(reply) => Error::Broker(Arc::new(BrokerError {
            code,
            message: reply.message,
            epoch: reply.epoch,
            retry_after: Duration::from_millis(reply.retry_after_ms.into()),
            target: address.clone(),
        })),
        Err(error) => Error::malformed(address, "error reply", error),
    }
}

/// Bytes of the window that a request takes; one that is larger than the window takes all of it.
fn request_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).min(limits::CONNECTION_IN_FLIGHT_BYTES_MAX as usize)
}

/// Reads replies until the connection ends.
async fn read_replies(shared: Arc<Shared>, mut frames: FrameReader<tokio::net::tcp::OwnedReadHalf>) {
    let mut ended = shared.ended.subscribe();
    let error = loop {
        let next = tokio::select! {
            next = frames.next() => next,
            _ = ended.wait_for(|ended| *ended) => return,
        };
        match next {
            Ok(Some(frame)) => {
                if let Err(error) = shared.deliver(frame) {
                    break error;
                }
            }
            Ok(None) => break shared.lost("the server closed it"),
            Err(ReadError::Frame(error)) => break Error::malformed(&shared.address, "frame", error),
            Err(ReadError::Io(error)) => break shared.lost(error),
        }
    };
    tracing::debug!(address = %shared.address, %error, "connection ended");
    shared.end(error);
}
