//! The task of one connection: reads frames, hands them on, sends replies.
//!
//! Reading and writing are polled by one task, reading first: whatever the requests of one wake pushed leaves with one
//! system call afterwards.

use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use minikafka_core::limits;
use minikafka_core::wire::frame::{Envelope, FRAME_HEADER_BYTES};
use minikafka_core::wire::{FrameError, FrameHeader};

use crate::connection_state::ConnectionState;
use crate::deadline::DeadlineKind;
use crate::handshake::{Handshake, Refused, Verdict};
use crate::receive_buffer::ReceiveBuffer;
use crate::reply::Reply;
use crate::service::{Bulk, Hangup, Request, Service};
use crate::turn::FRAME_COST_BYTES;

/// Bulk of this size or more is received into the caller's buffer.
const LARGE_BULK_BYTES_MIN: usize = limits::UNCOPIED_BODY_BYTES_MIN as usize;
/// One receive of large bulk, and what the kernel waits for before it wakes us: small enough for the second-level
/// cache, where the checksum then finds it.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer sends no more, or the socket failed.
    Gone,
    /// The peer was told why, or the server stops: unread input is discarded so that the last replies arrive.
    Told,
}

impl From<Hangup> for End {
    fn from(_: Hangup) -> Self {
        Self::Told
    }
}

/// Drives a connection to its end.
pub(crate) async fn run<S: Service>(state: Rc<ConnectionState>, service: Rc<S>) {
    let mut reading = pin!(read(&state, &*service));
    let mut end = None;
    poll_fn(|context| {
        state.task.enter(context.waker());
        let poll = loop {
            if end.is_none()
                && let Poll::Ready(reason) = reading.as_mut().poll(context)
            {
                end = Some(reason);
                state.finish();
            }
            state.task.looking();
            let flushed = state.poll_flush(context);
            if end.is_some() && (state.is_closed() || (flushed.is_ready() && state.is_answered())) {
                break Poll::Ready(());
            }
            if !state.task.is_noted() {
                break Poll::Pending;
            }
        };
        state.task.leave();
        poll
    })
    .await;
    if end == Some(End::Told) && !state.is_closed() {
        linger(&state).await;
    }
    state.close();
    state.transport.close();
}

/// Says that no more will come, and discards input until the peer has seen it.
async fn linger(state: &ConnectionState) {
    state.transport.shutdown(Shutdown::Write);
    state.transport.expect(1);
    state.due_for_reading(state.net.sweeps.linger, DeadlineKind::Linger);
    let mut left = limits::LINGER_BYTES_MAX as usize;
    let mut sink = state.net.pool.take(1);
    while left > 0 && !state.is_closed() {
        match poll_fn(|context| state.transport.poll_receive(context, &mut sink)).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                state.count_received(count);
                left = left.saturating_sub(count);
            }
        }
        state.turn().await;
    }
    state.net.pool.put(sink);
}

/// Reads and hands on request after request.
async fn read<S: Service>(state: &Rc<ConnectionState>, service: &S) -> End {
    let mut reader = Reader { state, buffer: ReceiveBuffer::default() };
    let mut handshake = Handshake::new();
    let end = loop {
        if let Err(end) = reader.serve_next(&mut handshake, service).await {
            break end;
        }
        glommio::yield_if_needed().await;
    };
    reader.buffer.release(&state.net.pool);
    end
}

struct Reader<'a> {
    state: &'a Rc<ConnectionState>,
    buffer: ReceiveBuffer,
}

impl Reader<'_> {
    async fn serve_next<S: Service>(&mut self, handshake: &mut Handshake, service: &S) -> Result<(), End> {
        let state = self.state;
        state.turn().await;
        poll_fn(|_| state.poll_room()).await?;
        let header = self.next_frame(handshake).await?;
        let head_end = FRAME_HEADER_BYTES + header.head_bytes as usize;
        let bulk_bytes = header.bulk_bytes as usize;
        let bytes = self.buffer.bytes();
        let buffered = &bytes[head_end..bytes.len().min(head_end + bulk_bytes)];
        let handled = head_end + buffered.len();
        let head = &bytes[FRAME_HEADER_BYTES..head_end];
        state.bulk_in_socket.set(bulk_bytes - buffered.len());
        state.input_arrived();
        state.net.stats.frames_received.increment();
        state.read_turn.borrow_mut().spend(FRAME_COST_BYTES);
        let verdict = handshake.frame_arrived(&header, head, &state.net.config.identity, &state.net.config.nonce);
        match verdict {
            Ok(Verdict::Serve(api)) => {
                let frame_bytes = (FRAME_HEADER_BYTES + header.payload_bytes()) as u64;
                poll_fn(|_| state.poll_enter(frame_bytes)).await?;
                let reply = Reply::new(state, &header, frame_bytes);
                let session = handshake.session().ok_or(End::Told)?;
                let bulk = Bulk { connection: state, buffered, length: bulk_bytes };
                service.handle(Request { api, header, head, bulk, session, reply }).await?;
            }
            Ok(Verdict::Answer(head)) => state.push(Envelope::reply(&header, None), &head, Vec::new(), None),
            Err(refused) => {
                state.refuse(Envelope::reply(&header, None), &refused);
                if refused.closes {
                    return Err(End::Told);
                }
            }
        }
        self.buffer.consume(handled);
        if bulk_bytes >= LARGE_BULK_BYTES_MIN {
            self.skip_rest_of_bulk().await?;
            self.buffer.note_large_bulk();
        }
        Ok(())
    }

    /// Waits until the next frame is here: header and head, and the bulk unless it is large.
    async fn next_frame(&mut self, handshake: &Handshake) -> Result<FrameHeader, End> {
        loop {
            let header = self.buffer.header(handshake.frame_limits()).map_err(|error| self.malformed(&error))?;
            if let (Some(header), Some(bytes)) = (header, self.buffer.header_bytes()) {
                if let Err(refused) = handshake.header_arrived(&header) {
                    self.state.refuse(Envelope::reply(&header, None), &refused);
                    return Err(End::Told);
                }
                let head_end = FRAME_HEADER_BYTES + header.head_bytes as usize;
                let bulk_bytes = header.bulk_bytes as usize;
                let needed = if bulk_bytes < LARGE_BULK_BYTES_MIN { head_end + bulk_bytes } else { head_end };
                if self.buffer.bytes().len() >= needed {
                    let head = &self.buffer.bytes()[FRAME_HEADER_BYTES..head_end];
                    header.verify(bytes, head).map_err(|error| self.malformed(&error))?;
                    return Ok(header);
                }
            }
            self.fill().await?;
        }
    }

    /// Receives at least one byte.
    async fn fill(&mut self) -> Result<(), End> {
        let Self { state, buffer } = self;
        state.turn().await;
        state.await_input(!buffer.is_empty());
        let received = poll_fn(|context| {
            if state.is_closed() {
                return Poll::Ready(Ok(0));
            }
            if state.is_draining() {
                return Poll::Ready(Err(None));
            }
            buffer.poll_fill(context, &*state.transport, &state.net.pool).map_err(Some)
        })
        .await;
        match received {
            Ok(0) if buffer.is_empty() => Err(End::Gone),
            Ok(0) => {
                state.broken(&io::ErrorKind::UnexpectedEof.into());
                Err(End::Gone)
            }
            Ok(count) => {
                state.count_received(count);
                Ok(())
            }
            Err(None) => Err(End::Told),
            Err(Some(error)) => {
                state.broken(&error);
                Err(End::Gone)
            }
        }
    }

    /// Tells the peer that these bytes are no frame. Its correlation is repeated only where it can be trusted.
    fn malformed(&self, error: &FrameError) -> End {
        let mut envelope = Envelope { api: 0, version: 0, correlation: 0, is_reply: true, explain: false, error: None };
        if let (FrameError::TooLarge { .. } | FrameError::Field(_), Some(bytes)) = (error, self.buffer.header_bytes()) {
            envelope.api = u16::from_le_bytes([bytes[12], bytes[13]]);
            envelope.version = bytes[14];
            envelope.correlation = bytes[16..24].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        self.state.refuse(envelope, &Refused::and_close(error.code(), error.to_string()));
        End::Told
    }

    /// Receives and discards what the service left of the current frame's bulk.
    async fn skip_rest_of_bulk(&mut self) -> Result<(), End> {
        let state = self.state;
        if state.bulk_in_socket.get() == 0 {
            return Ok(());
        }
        let mut sink = state.net.pool.take(limits::RECEIVE_BUFFER_BYTES_MAX as usize);
        let mut skipped = Ok(());
        while state.bulk_in_socket.get() > 0 && skipped.is_ok() {
            let count = state.bulk_in_socket.get().min(sink.len());
            state.net.stats.bytes_skipped.add(count);
            skipped = state.receive_bulk(&mut sink[..count], |_| {}).await;
        }
        state.net.pool.put(sink);
        skipped.map_err(End::from)
    }
}

impl ConnectionState {
    /// Receives the next bytes of the current frame's bulk, all of `destination`, and shows each piece that `arrived`.
    ///
    /// The kernel wakes us only when much is there, and for the last piece when all of it is: a fifth less processor
    /// time for 1 MiB than a wake for whatever has arrived, the same for 256 KiB.
    pub(crate) async fn receive_bulk(
        &self,
        destination: &mut [u8],
        mut arrived: impl FnMut(&[u8]),
    ) -> Result<(), Hangup> {
        self.due_for_reading(self.net.sweeps.frame, DeadlineKind::Frame);
        let mut received = 0;
        while received < destination.len() {
            let piece_end = destination.len().min(received + PIECE_BYTES_MAX);
            let piece = &mut destination[received..piece_end];
            self.transport.expect(piece.len());
            let count = poll_fn(|context| {
                if self.is_closed() {
                    return Poll::Ready(Ok(0));
                }
                self.transport.poll_receive(context, piece)
            })
            .await
            .and_then(|count| if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) });
            let count = count.map_err(|error| {
                self.broken(&error);
                Hangup::new()
            })?;
            arrived(&piece[..count]);
            received += count;
            self.bulk_in_socket.set(self.bulk_in_socket.get() - count);
            self.count_received(count);
            self.turn().await;
        }
        self.transport.expect(1);
        self.input_arrived();
        Ok(())
    }

    /// Lets other connections have their turn, when this one's is over.
    async fn turn(&self) {
        poll_fn(|context| self.read_turn.borrow_mut().poll(context)).await;
    }

    pub(crate) fn count_received(&self, count: usize) {
        self.read_turn.borrow_mut().spend(count);
        self.net.stats.receives.increment();
        self.net.stats.bytes_received.add(count);
    }
}
