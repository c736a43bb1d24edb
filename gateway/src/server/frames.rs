//! Taking frames from a client that may be slow, wrong or hostile.
//!
//! Memory grows with the bytes that arrived, not with the bytes announced, and bulk (which no gateway request has) is
//! thrown away in small pieces.

use std::io;
use std::time::Duration;

use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout, timeout_at};

/// A request as received; its head is verified.
#[derive(Debug)]
pub(super) struct RequestFrame {
    pub(super) header: FrameHeader,
    pub(super) head: Vec<u8>,
}

/// Why there is no next frame.
#[derive(Debug, Error)]
pub(super) enum TakeError {
    /// The client closed the connection between two frames.
    #[error("closed by the client")]
    Closed,
    /// Nothing, or not all of a frame, came in time.
    #[error("{0}")]
    TooSlow(&'static str),
    /// The stream failed or ended inside a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not a frame. The envelope repeats what they say of themselves, where that can be believed.
    #[error("{error}")]
    Malformed { error: FrameError, envelope: Option<Envelope> },
}

/// What a hello or a proof may take: nobody has been heard yet, so nobody gets much memory.
pub(super) const OPENING: FrameLimits = FrameLimits { head_bytes_max: 4096, bulk_bytes_max: 0 };

/// The next frame: its first byte within `idle`, all of it within `whole` from then on.
pub(super) async fn take<R: AsyncRead + Unpin>(
    source: &mut R,
    allowed: FrameLimits,
    idle: Duration,
    whole: Duration,
) -> Result<RequestFrame, TakeError> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let first = timeout(idle, source.read(&mut bytes)).await;
    let got = first.map_err(|_| TakeError::TooSlow("no frame came within the deadline"))??;
    if got == 0 {
        return Err(TakeError::Closed);
    }
    let rest = async {
        source.read_exact(&mut bytes[got..]).await?;
        take_rest(source, allowed, &bytes).await
    };
    let frame = timeout_at(Instant::now() + whole, rest).await;
    frame.map_err(|_| TakeError::TooSlow("a frame took too long to arrive"))?
}

async fn take_rest<R: AsyncRead + Unpin>(
    source: &mut R,
    allowed: FrameLimits,
    bytes: &[u8; FRAME_HEADER_BYTES],
) -> Result<RequestFrame, TakeError> {
    let malformed = |error| {
        let believed = matches!(error, FrameError::TooLarge { .. } | FrameError::Field(_));
        TakeError::Malformed { error, envelope: believed.then(|| envelope(bytes)) }
    };
    let header = FrameHeader::decode(bytes, allowed).map_err(malformed)?;
    let mut head = Vec::new();
    (&mut *source).take(u64::from(header.head_bytes)).read_to_end(&mut head).await?;
    if head.len() < header.head_bytes as usize {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    header.verify(bytes, &head).map_err(malformed)?;
    if header.is_reply || header.error.is_some() {
        return Err(malformed(FrameError::Field("flags or error")));
    }
    let mut bulk = (&mut *source).take(u64::from(header.bulk_bytes));
    if tokio::io::copy(&mut bulk, &mut tokio::io::sink()).await? < u64::from(header.bulk_bytes) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(RequestFrame { header, head })
}

/// The reply to a frame that was not decoded: its api, version and correlation as they stand.
fn envelope(bytes: &[u8; FRAME_HEADER_BYTES]) -> Envelope {
    Envelope {
        api: u16::from_le_bytes([bytes[12], bytes[13]]),
        version: bytes[14],
        correlation: bytes[16..24].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        is_reply: true,
        explain: false,
        error: None,
    }
}
