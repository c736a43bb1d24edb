//! What handles requests: the broker's side of a connection.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use minikafka_core::wire::{Api, FrameHeader, Wire};
use minikafka_core::{ErrorCode, checksum};
use thiserror::Error;

use crate::connection_state::ConnectionState;
use crate::handshake::{Refused, Session};
use crate::reply::Reply;

/// Handles the requests of all connections of a shard.
pub trait Service: 'static {
    /// Handles one request of a connection; the next one of that connection is read when this is done. So it receives
    /// the bulk and starts the work, and leaves waiting (for commits, for data) to other tasks, which take the
    /// [`Reply`] along. Waiting here for memory is right: it is what stops a fast peer.
    ///
    /// Always driven to its end, also when the connection ends meanwhile. Bulk that was not received is discarded.
    ///
    /// # Errors
    /// [`Hangup`] ends the connection: what is queued and in flight is answered, nothing more is read.
    fn handle(&self, request: Request<'_>) -> impl Future<Output = Result<(), Hangup>>;
}

/// The connection has ended, or is to end; whoever ought to know of the reason knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection ends")]
pub struct Hangup(());

impl Hangup {
    /// Ends the connection, when returned from [`Service::handle`].
    #[must_use]
    #[expect(clippy::new_without_default, reason = "ending a connection is nobody's default")]
    pub const fn new() -> Self {
        Self(())
    }
}

/// One request: checksum verified, sizes within limits, allowed to this peer. Its fields are not decoded yet.
pub struct Request<'a> {
    /// What is asked.
    pub api: Api,
    /// The frame's header.
    pub header: FrameHeader,
    /// Message fields.
    pub head: &'a [u8],
    /// What stands behind them.
    pub bulk: Bulk<'a>,
    /// Who asks.
    pub session: &'a Session,
    /// The answer owed.
    pub reply: Reply,
}

impl Request<'_> {
    /// Address of who asks.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.reply.connection().peer
    }

    /// Decodes the head.
    ///
    /// # Errors
    /// [`Hangup`] when it is not that message; the peer has then been told `malformed_frame`.
    pub fn message<M: Wire>(&mut self) -> Result<M, Hangup> {
        M::from_bytes(self.head).map_err(|error| {
            let message = format!("{:?}: {error}", self.api);
            let refused = Refused { code: ErrorCode::MalformedFrame, message, closes: true };
            self.reply.connection().refuse(self.reply.envelope(), &refused);
            self.reply.note_answered();
            Hangup::new()
        })
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("api", &self.api).field("header", &self.header).finish_non_exhaustive()
    }
}

/// The bytes behind a request's head: a batch body. Small bulk is here, large bulk is still arriving.
pub struct Bulk<'a> {
    pub(crate) connection: &'a ConnectionState,
    pub(crate) buffered: &'a [u8],
    pub(crate) length: usize,
}

impl<'a> Bulk<'a> {
    /// How many bytes there are, without those that were received already.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All bytes, if they are here: always so below `limits::UNCOPIED_BODY_BYTES_MIN`.
    pub fn whole(&self) -> Option<&'a [u8]> {
        (self.buffered.len() == self.length).then_some(self.buffered)
    }

    /// Receives all bytes into `destination`, large bulk straight from the socket. Returns their CRC-32C, computed
    /// while each piece is in the cache.
    ///
    /// # Errors
    /// [`Hangup`] when the connection ends before they are here; `destination` then holds a part.
    ///
    /// # Panics
    /// When `destination` is not exactly as long.
    pub async fn receive_into(mut self, destination: &mut [u8]) -> Result<u32, Hangup> {
        assert_eq!(destination.len(), self.length, "the destination is as long as the bulk");
        let mut crc = 0;
        self.receive(destination, |piece| crc = checksum::crc32c_append(crc, piece)).await?;
        Ok(crc)
    }

    /// Receives the next bytes into `destination`, as [`Bulk::receive_into`] does all of them, and looks at none of them.
    ///
    /// # Errors
    /// [`Hangup`] when the connection ends before they are here; `destination` then holds a part.
    ///
    /// # Panics
    /// When there are not so many left.
    pub async fn receive_part(&mut self, destination: &mut [u8]) -> Result<(), Hangup> {
        self.receive(destination, |_| {}).await
    }

    async fn receive(&mut self, destination: &mut [u8], mut arrived: impl FnMut(&[u8])) -> Result<(), Hangup> {
        self.length = self.length.checked_sub(destination.len()).expect("no more is asked for than there is");
        let (buffered, rest) = self.buffered.split_at(self.buffered.len().min(destination.len()));
        self.buffered = rest;
        let (here, arriving) = destination.split_at_mut(buffered.len());
        here.copy_from_slice(buffered);
        arrived(here);
        if arriving.is_empty() { Ok(()) } else { self.connection.receive_bulk(arriving, arrived).await }
    }
}

impl fmt::Debug for Bulk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bulk {{ {} of {} bytes here }}", self.buffered.len(), self.length)
    }
}
