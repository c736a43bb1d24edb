//! Frames out of a stream that arrives in whatever pieces: the pieces must not matter.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use minikafka_client::connection::{Frame, FrameReader};
use minikafka_core::wire::frame::FrameLimits;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::{REPAIR, repair};

/// Sizes of the pieces: bytes of the input itself, so that they follow from it.
const CUTS: usize = 8;

/// A stream that gives its bytes in pieces.
struct Pieces<'a> {
    left: &'a [u8],
    /// Sizes of the next pieces, over and over; none: all at once.
    cuts: &'a [u8],
    number: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let cut = self.cuts.get(self.number % self.cuts.len().max(1)).map_or(usize::MAX, |cut| usize::from(*cut) + 1);
        self.number += 1;
        let (piece, left) = self.left.split_at(cut.min(buffer.remaining()).min(self.left.len()));
        buffer.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    // The reader's deadline needs a clock; nothing here ever waits.
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread().enable_time().build().expect("a runtime without I/O always builds"),
    );
}

/// The frames of a stream, and how it ends.
fn read(bytes: &[u8], cuts: &[u8]) -> (Vec<Frame>, String) {
    let pieces = Pieces { left: bytes, cuts, number: 0 };
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let mut reader = FrameReader::new(pieces, FrameLimits::REQUEST);
            let mut frames = Vec::new();
            loop {
                match reader.next().await {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => return (frames, "end".to_owned()),
                    Err(error) => return (frames, error.to_string()),
                }
            }
        })
    })
}

/// Frames, whole and cut.
pub fn frame(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let Some((cuts, bytes)) = rest.split_first_chunk::<CUTS>() else { return };
    let mut bytes = bytes.to_vec();
    if mode & REPAIR != 0 {
        repair::frames(&mut bytes);
    }
    let (whole, end) = read(&bytes, &[]);
    let (cut, cut_end) = read(&bytes, cuts);
    assert_eq!(end, cut_end, "the end does not depend on how the bytes arrive");
    assert_eq!(whole.len(), cut.len(), "frames do not depend on how the bytes arrive");
    for (one, other) in whole.iter().zip(&cut) {
        assert_eq!((one.header, &one.head, &one.bulk), (other.header, &other.head, &other.bulk));
        assert_eq!(one.head.len() + one.bulk.len(), one.header.payload_bytes());
    }
}
