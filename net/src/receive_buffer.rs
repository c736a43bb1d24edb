//! Received bytes of one connection that are not handled yet.
//!
//! The memory is the shard's pool's: taken when there is input, given back when everything has been handled. Its size
//! follows the input between [`limits::RECEIVE_BUFFER_BYTES_MIN`] and [`limits::RECEIVE_BUFFER_BYTES_MAX`]; beyond
//! that, and beyond what has actually arrived, it doubles at most, whatever a frame announces.

use std::task::{Context, Poll, ready};

use minikafka_core::limits;
use minikafka_core::wire::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameLimits};

use crate::buffer_pool::BufferPool;
use crate::transport::Transport;

const SIZE_MIN: usize = limits::RECEIVE_BUFFER_BYTES_MIN as usize;
const SIZE_MAX: usize = limits::RECEIVE_BUFFER_BYTES_MAX as usize;
/// Behind a large bulk another one is likely: so little of it is received into the wrong place.
const BESIDE_LARGE_BULK_BYTES: usize = 4 << 10;

/// Bytes from the socket, a window `start..end` of `memory`.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    size_wanted: usize,
    after_large_bulk: bool,
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self { memory: Box::default(), start: 0, end: 0, size_wanted: SIZE_MIN, after_large_bulk: false }
    }
}

impl ReceiveBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The header at the front, once it is there. Sizes are checked, the checksum needs the head.
    pub(crate) fn header(&self, allowed: FrameLimits) -> Result<Option<FrameHeader>, FrameError> {
        self.header_bytes().map(|bytes| FrameHeader::decode(bytes, allowed)).transpose()
    }

    /// The first bytes as received, once there are enough for a header.
    pub(crate) fn header_bytes(&self) -> Option<&[u8; FRAME_HEADER_BYTES]> {
        self.bytes().first_chunk()
    }

    /// Forgets the first `count` bytes: they have been handled.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "{count} bytes consumed, {} were there", self.end - self.start);
        self.start += count;
        self.after_large_bulk = false;
    }

    /// The frame just consumed had bulk that did not go through this buffer.
    pub(crate) fn note_large_bulk(&mut self) {
        self.after_large_bulk = true;
    }

    /// Receives more, at least one byte unless the peer is done (0). Waiting without bytes holds no memory.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        transport: &dyn Transport,
        pool: &BufferPool,
    ) -> Poll<std::io::Result<usize>> {
        self.make_room(pool);
        let room = self.memory.len() - self.end;
        let wanted = if self.after_large_bulk { room.min(BESIDE_LARGE_BULK_BYTES) } else { room };
        let received = transport.poll_receive(context, &mut self.memory[self.end..self.end + wanted]);
        if received.is_pending() && self.is_empty() {
            self.release(pool);
        }
        let count = ready!(received)?;
        self.end += count;
        self.follow(count, wanted);
        Poll::Ready(Ok(count))
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self, pool: &BufferPool) {
        pool.put(std::mem::take(&mut self.memory));
        (self.start, self.end) = (0, 0);
    }

    fn make_room(&mut self, pool: &BufferPool) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            if self.memory.len() != self.size_wanted {
                pool.put(std::mem::replace(&mut self.memory, pool.take(self.size_wanted)));
            }
        } else if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.memory.len() {
            let mut larger = pool.take(self.memory.len() * 2);
            larger[..self.end].copy_from_slice(&self.memory);
            self.size_wanted = larger.len().min(SIZE_MAX);
            pool.put(std::mem::replace(&mut self.memory, larger));
        }
    }

    /// Wants a larger buffer next time when this one was filled, a smaller one when it stayed nearly empty.
    fn follow(&mut self, count: usize, wanted: usize) {
        if self.after_large_bulk {
            self.size_wanted = SIZE_MIN;
        } else if count == wanted {
            self.size_wanted = (self.size_wanted * 2).min(SIZE_MAX);
        } else if self.end < self.size_wanted / 4 {
            self.size_wanted = (self.size_wanted / 2).max(SIZE_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{self, IoSlice};
    use std::net::Shutdown;
    use std::task::Waker;

    use super::*;

    /// Gives what it was given, as much at a time as is asked for.
    struct Canned(RefCell<Vec<u8>>);

    impl Transport for Canned {
        fn poll_receive(&self, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
            let mut left = self.0.borrow_mut();
            let count = into.len().min(left.len());
            if count == 0 {
                return Poll::Pending;
            }
            into[..count].copy_from_slice(&left[..count]);
            left.drain(..count);
            Poll::Ready(Ok(count))
        }
        fn poll_send(&self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn expect(&self, _: usize) {}
        fn shutdown(&self, _: Shutdown) {}
        fn close(&self) {}
    }

    fn fill(buffer: &mut ReceiveBuffer, transport: &Canned, pool: &BufferPool) -> bool {
        buffer.poll_fill(&mut Context::from_waker(Waker::noop()), transport, pool).is_ready()
    }

    #[test]
    fn bytes_survive_growth_and_moves_and_memory_is_given_back() {
        let sent: Vec<u8> = (0..900_000u32).map(|at| (at % 251) as u8).collect();
        let transport = Canned(RefCell::new(sent.clone()));
        let (pool, mut buffer) = (BufferPool::default(), ReceiveBuffer::default());
        let mut received = Vec::new();
        while fill(&mut buffer, &transport, &pool) {
            // Handle two thirds each time, so that the rest has to move.
            let count = buffer.bytes().len() * 2 / 3;
            received.extend_from_slice(&buffer.bytes()[..count]);
            buffer.consume(count);
        }
        received.extend_from_slice(buffer.bytes());
        buffer.consume(buffer.bytes().len());
        assert_eq!(received, sent);
        assert!(!fill(&mut buffer, &transport, &pool));
        assert!(buffer.memory.is_empty(), "an idle connection holds a buffer");
    }

    #[test]
    fn little_is_received_behind_a_large_bulk() {
        let transport = Canned(RefCell::new(vec![1; 100_000]));
        let (pool, mut buffer) = (BufferPool::default(), ReceiveBuffer::default());
        buffer.note_large_bulk();
        assert!(fill(&mut buffer, &transport, &pool));
        assert_eq!(buffer.bytes().len(), BESIDE_LARGE_BULK_BYTES);
        buffer.consume(10);
        assert!(fill(&mut buffer, &transport, &pool));
        assert_eq!(buffer.bytes().len(), SIZE_MIN - BESIDE_LARGE_BULK_BYTES + BESIDE_LARGE_BULK_BYTES);
    }
}
