//! Reading frames from a byte stream.
//!
//! Small frames are parsed out of one buffer, many per read. Bulk gets memory of exactly its size: what is already
//! buffered is copied there, the rest is received straight into it, so a large fetch reply is not copied again.
//! Sizes are checked before memory is taken for them.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use minikafka_core::limits;
use minikafka_core::wire::frame::FrameLimits;
use minikafka_core::wire::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one read asks the system for when nothing large is expected.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// A frame as received: its header and head are verified, its bulk carries checksums of its own.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// The message's fields.
    pub head: Bytes,
    /// What stands behind them.
    pub bulk: Bytes,
}

/// Why there is no next frame.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The stream failed, ended inside a frame, or took too long over one.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Cuts a byte stream into frames. Serves both ends: clients read replies with it, fake servers read requests.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
    allowed: FrameLimits,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `source` frames that are no larger than `allowed`.
    pub fn new(source: R, allowed: FrameLimits) -> Self {
        Self { source, buffer: BytesMut::with_capacity(READ_BUFFER_BYTES), allowed }
    }

    /// The next frame, or none at the end of the stream. Waits as long as it takes for a frame to begin; from then on it
    /// has 30 seconds to arrive. Not cancel-safe inside a frame with bulk: a reader belongs to one task.
    ///
    /// # Errors
    /// [`ReadError::Io`] or [`ReadError::Frame`]; the stream cannot be read further.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        if self.buffer.is_empty() && !self.read_some().await? {
            return Ok(None);
        }
        match self.buffered_frame()? {
            Some(frame) => Ok(Some(frame)),
            None => {
                let deadline = Duration::from_millis(limits::FRAME_DEADLINE_MS);
                let frame = tokio::time::timeout(deadline, self.rest_of_frame()).await;
                let too_slow = |_| io::Error::new(io::ErrorKind::TimedOut, "a frame took longer than 30 s to arrive");
                frame.map_err(too_slow)?.map(Some)
            }
        }
    }

    /// A frame that is wholly in the buffer: no timer, no wait.
    fn buffered_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        let Some(bytes) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(bytes, self.allowed)?;
        if self.buffer.len() < FRAME_HEADER_BYTES + header.payload_bytes() {
            return Ok(None);
        }
        let (header, head) = self.cut_head(header)?;
        // Copied, so that a few fetched bytes do not keep the whole read buffer alive.
        let bulk = Bytes::copy_from_slice(&self.buffer.split_to(header.bulk_bytes as usize));
        Ok(Some(Frame { header, head, bulk }))
    }

    async fn rest_of_frame(&mut self) -> Result<Frame, ReadError> {
        self.fill(FRAME_HEADER_BYTES).await?;
        let bytes = self.buffer.first_chunk().expect("a header's worth of bytes was just filled");
        let header = FrameHeader::decode(bytes, self.allowed)?;
        self.fill(FRAME_HEADER_BYTES + header.head_bytes as usize).await?;
        let (header, head) = self.cut_head(header)?;
        let bulk = self.receive_bulk(header.bulk_bytes as usize).await?;
        Ok(Frame { header, head, bulk })
    }

    /// Cuts header and head, which are in the buffer, and verifies their checksum.
    fn cut_head(&mut self, header: FrameHeader) -> Result<(FrameHeader, Bytes), FrameError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes.copy_from_slice(&self.buffer.split_to(FRAME_HEADER_BYTES));
        let head = self.buffer.split_to(header.head_bytes as usize).freeze();
        header.verify(&bytes, &head).map(|()| (header, head))
    }

    async fn receive_bulk(&mut self, bulk_bytes: usize) -> Result<Bytes, ReadError> {
        let mut bulk = BytesMut::with_capacity(bulk_bytes);
        let buffered = self.buffer.len().min(bulk_bytes);
        bulk.extend_from_slice(&self.buffer.split_to(buffered));
        while bulk.len() < bulk_bytes {
            let missing = bulk_bytes - bulk.len();
            if self.source.read_buf(&mut (&mut bulk).limit(missing)).await? == 0 {
                return Err(ended_inside().into());
            }
        }
        Ok(bulk.freeze())
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), ReadError> {
        while self.buffer.len() < bytes {
            self.buffer.reserve(bytes - self.buffer.len());
            if !self.read_some().await? {
                return Err(ended_inside().into());
            }
        }
        Ok(())
    }

    /// Whether the stream goes on.
    async fn read_some(&mut self) -> Result<bool, ReadError> {
        if self.buffer.capacity() - self.buffer.len() < READ_BUFFER_BYTES / 4 {
            self.buffer.reserve(READ_BUFFER_BYTES);
        }
        Ok(self.source.read_buf(&mut self.buffer).await? > 0)
    }
}

fn ended_inside() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended inside a frame")
}

#[cfg(test)]
mod tests;
