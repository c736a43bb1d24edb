//! One outgoing connection to another shard, as peer: it proves the cluster secret, sends frames that have no reply, ends.
//!
//! ```text
//!  opening (connect, hello, prove) ---> open ---> ended, told once
//!     `--- refused, too late ------------^ broken, refused, too much waits, nothing leaves, cut
//! ```
//! What is sent while it is opening waits. Frames leave in the order in which they were sent; those that wait at the end are
//! lost. Stored bytes are sent from where they are. Never waits: who sends much asks for [`Link::room`] first, and what is
//! sent without it is bounded by [`LINK_QUEUE_BYTES_MAX`], past which the link ends. A peer that takes nothing for
//! [`LINK_STALL_MS`] ends it, too. Absent: opening another one, which is its owner's decision.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::future;
use glommio::net::TcpStream;
use glommio::timer::Timer;
use glommio::{TaskQueueHandle, spawn_local_into};
use minikafka_core::limits::{
    LINK_ENTRIES_BYTES_MAX, LINK_LOOK_MS, LINK_OPEN_WAIT_MS, LINK_QUEUE_BYTES_MAX, LINK_STALL_MS,
};
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::{
    Api, ErrorReply, FRAME_HEADER_BYTES, FrameHeader, Hello, HelloReply, PROTOCOL_MAX, PROTOCOL_MIN, Proof, Prover,
    Role, Wire, check_proof, encode_frame, prove,
};
use minikafka_core::{ClusterId, ErrorCode, NodeId, ShardId};
use thiserror::Error;

use crate::connection_state::TaskWaker;
use crate::handshake::ClusterSecret;
use crate::outgoing::{Outgoing, SLICES_PER_SEND};
use crate::room::{Room, RoomPermit};
use crate::service::Hangup;
use crate::shared_bytes::SharedBytes;
use crate::transport::{TcpTransport, Transport};
use crate::turn::Turn;

/// What a peer may answer to hello and proof, and say before it closes the link.
const ANSWER_LIMITS: FrameLimits = FrameLimits { head_bytes_max: 4 << 10, bulk_bytes_max: 0 };
/// A head that needed more scratch space than this does not keep it.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// What all links of a shard are opened with.
pub struct LinkConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// What both ends prove to know.
    pub secret: ClusterSecret,
    /// Who opens, for the other end's log.
    pub name: String,
    /// Draws 16 unpredictable bytes.
    pub nonce: Box<dyn Fn() -> [u8; 16]>,
    /// Where links run.
    pub queue: TaskQueueHandle,
}

impl fmt::Debug for LinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkConfig").field("cluster", &self.cluster).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The shard at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTarget {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whose it must be.
    pub node: NodeId,
    /// Which it must be.
    pub shard: ShardId,
}

/// Why a link ended.
#[derive(Debug, Error)]
pub enum LinkEnd {
    /// It could not be opened in time.
    #[error("no connection within {LINK_OPEN_WAIT_MS} ms")]
    TooLate,
    /// The socket failed, or the other end closed it.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The other end refused.
    #[error("refused as {}: {message}", code.name())]
    Refused {
        /// As what.
        code: ErrorCode,
        /// Why.
        message: String,
    },
    /// What lives there is not what was expected, or does not know the secret.
    #[error("{0}")]
    Stranger(String),
    /// More waits than may wait.
    #[error("more than {LINK_QUEUE_BYTES_MAX} bytes wait to be sent")]
    Overflow,
    /// Nothing left for too long.
    #[error("nothing left for {LINK_STALL_MS} ms although something waits")]
    Stalled,
    /// Its owner did not want it any more.
    #[error("cut")]
    Cut,
}

/// Room for stored bytes on a link, given back when they have left.
#[must_use = "room that is dropped is free again"]
pub struct LinkRoom(RoomPermit);

impl fmt::Debug for LinkRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkRoom(..)")
    }
}

/// The sending end. Clones share it.
#[derive(Clone)]
pub struct Link {
    state: Rc<LinkState>,
}

struct LinkState {
    outgoing: RefCell<Outgoing>,
    room: Rc<Room>,
    task: TaskWaker,
    /// Set once: it is about to end, or has.
    ending: Cell<bool>,
    /// What both ends speak, once it is open.
    protocol: Cell<Option<u16>>,
    end: Cell<Option<LinkEnd>>,
    bytes_sent: Cell<u64>,
    scratch: Cell<Vec<u8>>,
    write_turn: RefCell<Turn>,
}

impl Link {
    /// Begins to open a link. `ended` is called once, when it could not be opened or is over.
    pub fn open(target: LinkTarget, config: Rc<LinkConfig>, ended: impl FnOnce(LinkEnd) + 'static) -> Self {
        let state = Rc::new(LinkState {
            outgoing: RefCell::default(),
            room: Room::new(LINK_ENTRIES_BYTES_MAX),
            task: TaskWaker::default(),
            ending: Cell::new(false),
            protocol: Cell::new(None),
            end: Cell::new(None),
            bytes_sent: Cell::new(0),
            scratch: Cell::default(),
            write_turn: RefCell::default(),
        });
        let link = Self { state: state.clone() };
        let queue = config.queue;
        let run = async move {
            // Perhaps polled by whoever opens it, who is told later.
            future::yield_now().await;
            let end = run(&state, target, &config).await;
            // What its owner did to it meanwhile comes first.
            let end = state.end.take().unwrap_or(end);
            state.ending.set(true);
            state.outgoing.borrow_mut().clear();
            state.room.close();
            ended(end);
        };
        match spawn_local_into(run, queue) {
            Ok(task) => drop(task.detach()),
            Err(error) => tracing::error!(%error, "the task queue of links is gone"),
        }
        link
    }

    /// Sends a frame with its bulk, after all that was sent before. Lost if the link ends first.
    pub fn send(&self, api: Api, message: &impl Wire, bulk: Vec<SharedBytes>, room: Option<LinkRoom>) {
        let state = &self.state;
        if state.ending.get() {
            return;
        }
        let mut head = state.scratch.take();
        head.clear();
        message.put(&mut head);
        let bulk_bytes = bulk.iter().map(SharedBytes::len).sum();
        let room = room.map(|LinkRoom(mut permit)| {
            permit.shrink_to(bulk_bytes);
            permit
        });
        let waiting = {
            let mut outgoing = state.outgoing.borrow_mut();
            outgoing.push_frame(Envelope::request(api, 0), &head, bulk, room);
            outgoing.bytes()
        };
        if head.capacity() <= SCRATCH_BYTES_MAX {
            state.scratch.set(head);
        }
        match waiting > LINK_QUEUE_BYTES_MAX {
            true => state.end_with(LinkEnd::Overflow),
            false => state.task.wake(),
        }
    }

    /// Waits until `bytes` of stored bytes may wait on this link, first come, first served.
    ///
    /// # Errors
    /// [`Hangup`] when it has ended.
    pub fn room(&self, bytes: usize) -> impl Future<Output = Result<LinkRoom, Hangup>> + use<> {
        let wait = self.state.room.wait(bytes);
        async move { wait.await.map(LinkRoom) }
    }

    /// Ends it; what waits is lost.
    pub fn cut(&self) {
        self.state.end_with(LinkEnd::Cut);
    }

    /// The protocol that both ends speak; none while it is being opened.
    pub fn protocol(&self) -> Option<u16> {
        self.state.protocol.get()
    }

    /// Whether it has not ended, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.state.ending.get()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link {{ open: {} }}", self.is_open())
    }
}

async fn run(state: &LinkState, target: LinkTarget, config: &LinkConfig) -> LinkEnd {
    let late = async {
        Timer::new(Duration::from_millis(LINK_OPEN_WAIT_MS)).await;
        Err(LinkEnd::TooLate)
    };
    match future::or(open(target, config), late).await {
        Ok((transport, protocol)) => {
            state.protocol.set(Some(protocol));
            tracing::debug!(node = %target.node, shard = %target.shard, address = %target.address, "link opened");
            let end = drive(state, &transport).await;
            transport.shutdown(Shutdown::Both);
            end
        }
        Err(end) => end,
    }
}

/// Connects, and proves to each other to know the secret; the connection, and the protocol that both ends speak.
async fn open(target: LinkTarget, config: &LinkConfig) -> Result<(TcpTransport, u16), LinkEnd> {
    let wait = Duration::from_millis(LINK_OPEN_WAIT_MS);
    let stream = TcpStream::connect_timeout(target.address, wait).await.map_err(io::Error::from)?;
    let transport = TcpTransport::new(stream)?;
    let nonce = (config.nonce)();
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role: Role::Peer,
        nonce,
        cluster: config.cluster,
        client_name: config.name.clone(),
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let server: HelloReply = ask(&transport, Api::Hello, &hello).await?;
    if (server.node, server.shard) != (target.node, target.shard) {
        let LinkTarget { address, node, shard } = target;
        return Err(LinkEnd::Stranger(format!(
            "{address} is node {} shard {}, not node {node} shard {shard}: check --advertise",
            server.node, server.shard
        )));
    }
    let secret = &config.secret;
    let proof = prove(secret.bytes(), Prover::Opener, Role::Peer, &nonce, &server.nonce);
    let answer: Proof = ask(&transport, Api::Prove, &proof).await?;
    if !check_proof(&answer, secret.bytes(), Prover::Server, Role::Peer, &nonce, &server.nonce) {
        return Err(LinkEnd::Stranger(format!("{} does not know the cluster secret", target.address)));
    }
    Ok((transport, server.protocol))
}

/// One request and its reply, while nothing else is under way.
async fn ask<A: Wire>(transport: &TcpTransport, api: Api, request: &impl Wire) -> Result<A, LinkEnd> {
    let mut frame = Vec::new();
    encode_frame(&mut frame, Envelope::request(api, 0), &request.to_bytes(), 0);
    let mut sent = 0;
    while sent < frame.len() {
        sent += poll_fn(|context| transport.poll_send(context, &[IoSlice::new(&frame[sent..])])).await?;
    }
    let mut answer = Answer::default();
    loop {
        if let Some((header, head)) = answer.frame()? {
            answer_error(&header, head)?;
            return A::from_bytes(head).map_err(|error| LinkEnd::Stranger(format!("{api:?}: {error}")));
        }
        poll_fn(|context| answer.poll_receive(context, transport)).await?;
    }
}

fn answer_error(header: &FrameHeader, head: &[u8]) -> Result<(), LinkEnd> {
    let Some(code) = header.error else { return Ok(()) };
    let message = ErrorReply::from_bytes(head).map(|reply| reply.message).unwrap_or_default();
    Err(LinkEnd::Refused { code, message })
}

/// What the other end says: little, and on an open link only why it closes it.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    /// Receives some more. There is never more than one short frame.
    fn poll_receive(&mut self, context: &mut Context<'_>, transport: &TcpTransport) -> Poll<io::Result<()>> {
        let mut piece = [0; 512];
        transport.poll_receive(context, &mut piece).map(|count| match count? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.bytes.extend_from_slice(&piece[..count]);
                Ok(())
            }
        })
    }

    fn frame(&self) -> Result<Option<(FrameHeader, &[u8])>, LinkEnd> {
        let Some((header_bytes, rest)) = self.bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let no_frame = |error| LinkEnd::Stranger(format!("the other end sent what is no frame: {error}"));
        let header = FrameHeader::decode(header_bytes, ANSWER_LIMITS).map_err(no_frame)?;
        let Some(head) = rest.get(..header.head_bytes as usize) else { return Ok(None) };
        header.verify(header_bytes, head).map_err(no_frame)?;
        Ok(Some((header, head)))
    }
}

/// Sends until something ends it.
async fn drive(state: &LinkState, transport: &TcpTransport) -> LinkEnd {
    let mut answer = Answer::default();
    let mut watch = StallWatch::new();
    poll_fn(|context| {
        state.task.enter(context.waker());
        let poll = loop {
            if let Some(end) = state.end.take() {
                break Poll::Ready(end);
            }
            if let Poll::Ready(end) = poll_answer(&mut answer, context, transport) {
                break Poll::Ready(end);
            }
            state.task.looking();
            if let Poll::Ready(Err(error)) = state.poll_flush(context, transport) {
                break Poll::Ready(error.into());
            }
            if watch.poll(context, state).is_ready() {
                break Poll::Ready(LinkEnd::Stalled);
            }
            if !state.task.is_noted() {
                break Poll::Pending;
            }
        };
        state.task.leave();
        poll
    })
    .await
}

/// Ready when the other end says that, or why, it is over.
fn poll_answer(answer: &mut Answer, context: &mut Context<'_>, transport: &TcpTransport) -> Poll<LinkEnd> {
    loop {
        match answer.poll_receive(context, transport) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
            Poll::Ready(Ok(())) => {}
        }
        match answer.frame() {
            Ok(None) => {}
            Ok(Some((header, head))) => {
                let unasked = || LinkEnd::Stranger("the other end answered what has no answer".to_owned());
                return Poll::Ready(answer_error(&header, head).err().unwrap_or_else(unasked));
            }
            Err(end) => return Poll::Ready(end),
        }
    }
}

impl LinkState {
    fn end_with(&self, end: LinkEnd) {
        if !self.ending.replace(true) {
            self.end.set(Some(end));
            self.task.wake();
        }
    }

    /// Sends what waits, a bounded amount each time. Ready when nothing waits, or the socket failed.
    fn poll_flush(&self, context: &mut Context<'_>, transport: &TcpTransport) -> Poll<io::Result<()>> {
        while self.outgoing.borrow().bytes() > 0 {
            if self.write_turn.borrow_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let sent = {
                let outgoing = self.outgoing.borrow();
                let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
                let filled = outgoing.slices(&mut slices);
                transport.poll_send(context, &slices[..filled])
            };
            match sent {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.bytes_sent.set(self.bytes_sent.get() + count as u64);
                    self.write_turn.borrow_mut().spend(count);
                    self.outgoing.borrow_mut().advance(count);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Looks now and then whether something leaves while something waits.
struct StallWatch {
    timer: Timer,
    bytes_sent: u64,
    still_ms: u64,
}

impl StallWatch {
    const LOOK: Duration = Duration::from_millis(LINK_LOOK_MS);

    fn new() -> Self {
        Self { timer: Timer::new(Self::LOOK), bytes_sent: 0, still_ms: 0 }
    }

    /// Ready when nothing left for too long.
    fn poll(&mut self, context: &mut Context<'_>, state: &LinkState) -> Poll<()> {
        while Pin::new(&mut self.timer).poll(context).is_ready() {
            self.timer = Timer::new(Self::LOOK);
            let (waits, sent) = (state.outgoing.borrow().bytes() > 0, state.bytes_sent.get());
            self.still_ms = if waits && sent == self.bytes_sent { self.still_ms + LINK_LOOK_MS } else { 0 };
            self.bytes_sent = sent;
            if self.still_ms >= LINK_STALL_MS {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
