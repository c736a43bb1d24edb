//! What waits to be sent on one connection: small replies gathered in one buffer, stored bytes by reference.
//!
//! ```text
//! push: [ replies, one behind the other ][ shared ][ shared ][ replies ... ]  -> one vectored send takes many pieces
//! ```

use std::collections::VecDeque;
use std::io::IoSlice;

use minikafka_core::wire::frame::{Envelope, encode_frame};

use crate::room::RoomPermit;
use crate::shared_bytes::SharedBytes;

/// Slices of one send; the kernel takes up to 1,024, few are needed to fill a socket's buffer.
pub(crate) const SLICES_PER_SEND: usize = 64;
/// An owned buffer of at most this capacity is kept for the next replies; idle connections stay small.
const KEPT_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Replies are gathered up to this size, so that each buffer leaves, and is counted as progress, by itself.
const GATHERED_BYTES_MAX: usize = 256 << 10;

enum Piece {
    /// Whole replies and heads of replies.
    Gathered(Vec<u8>),
    /// Bulk as it is stored.
    Shared(SharedBytes),
    /// All of a reply has left up to here: its share of the connection's reply room is free again.
    Release { _room: RoomPermit },
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Gathered(bytes) => bytes,
            Self::Shared(shared) => shared.as_slice(),
            Self::Release { .. } => &[],
        }
    }
}

/// Pieces in the order in which they leave.
#[derive(Default)]
pub(crate) struct Outgoing {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have left already.
    sent_of_first: usize,
    /// Bytes still to leave.
    bytes: usize,
    kept: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a frame, and gives `room` back once the frame has left.
    pub(crate) fn push_frame(
        &mut self,
        envelope: Envelope,
        head: &[u8],
        bulk: Vec<SharedBytes>,
        room: Option<RoomPermit>,
    ) {
        let bulk_bytes: usize = bulk.iter().map(SharedBytes::len).sum();
        let announced =
            u32::try_from(bulk_bytes).expect("a reply's bulk is at most limits::FETCH_BYTES_MAX and an entry");
        let gathered = self.gathered();
        let before = gathered.len();
        encode_frame(gathered, envelope, head, announced);
        self.bytes += gathered.len() - before + bulk_bytes;
        self.pieces.extend(bulk.into_iter().filter(|shared| !shared.is_empty()).map(Piece::Shared));
        self.pieces.extend(room.map(|room| Piece::Release { _room: room }));
    }

    /// The buffer at the end of the queue that takes whole replies.
    fn gathered(&mut self) -> &mut Vec<u8> {
        let appendable = matches!(self.pieces.back(), Some(Piece::Gathered(last)) if last.len() < GATHERED_BYTES_MAX);
        if !appendable {
            self.pieces.push_back(Piece::Gathered(std::mem::take(&mut self.kept)));
        }
        match self.pieces.back_mut() {
            Some(Piece::Gathered(last)) => last,
            _ => unreachable!("the last piece was just seen or made to be gathered"),
        }
    }

    /// The next bytes to leave, and how many slices they are.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; SLICES_PER_SEND]) -> usize {
        let mut filled = 0;
        let mut skip = self.sent_of_first;
        for piece in &self.pieces {
            let bytes = &piece.bytes()[std::mem::take(&mut skip)..];
            if filled == SLICES_PER_SEND {
                break;
            }
            if !bytes.is_empty() {
                into[filled] = IoSlice::new(bytes);
                filled += 1;
            }
        }
        filled
    }

    /// Notes that `count` bytes have left; says whether a piece left completely.
    pub(crate) fn advance(&mut self, count: usize) -> bool {
        assert!(count <= self.bytes, "{count} bytes left, {} were queued", self.bytes);
        self.bytes -= count;
        self.sent_of_first += count;
        let mut progressed = false;
        while let Some(first) = self.pieces.front() {
            let length = first.bytes().len();
            if self.sent_of_first < length {
                break;
            }
            self.sent_of_first -= length;
            progressed = true;
            let left = self.pieces.pop_front();
            if let Some(Piece::Gathered(mut buffer)) = left
                && buffer.capacity() <= KEPT_BUFFER_BYTES_MAX
            {
                buffer.clear();
                self.kept = buffer;
            }
        }
        progressed
    }

    /// Forgets everything: the connection is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minikafka_core::wire::Api;

    fn all_bytes(outgoing: &Outgoing) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
        let filled = outgoing.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn small_replies_share_a_buffer_and_bulk_is_not_copied() {
        let mut outgoing = Outgoing::default();
        let envelope = Envelope::request(Api::Fetch, 1);
        let stored = SharedBytes::from(vec![7; 100]);
        let address = stored.as_slice().as_ptr();
        outgoing.push_frame(envelope, b"a", vec![], None);
        outgoing.push_frame(envelope, b"b", vec![stored.clone(), SharedBytes::from(vec![])], None);
        outgoing.push_frame(envelope, b"c", vec![], None);
        let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
        assert_eq!(outgoing.slices(&mut slices), 3, "two heads, the bulk, another head");
        assert_eq!(slices[1].as_ptr(), address);
        assert_eq!(outgoing.bytes(), 3 * 33 + 100);
    }

    #[test]
    fn any_split_of_the_sends_gives_the_same_bytes() {
        for step in 1..80 {
            let mut outgoing = Outgoing::default();
            for head in 0..5u8 {
                let bulk = (0..head).map(|part| SharedBytes::from(vec![part; usize::from(part) * 9])).collect();
                outgoing.push_frame(Envelope::request(Api::Fetch, 1), &[head], bulk, None);
            }
            let expected = all_bytes(&outgoing);
            let mut sent = Vec::new();
            while outgoing.bytes() > 0 {
                let next = all_bytes(&outgoing);
                let count = step.min(next.len());
                sent.extend_from_slice(&next[..count]);
                outgoing.advance(count);
            }
            assert_eq!(sent, expected, "in steps of {step}");
            assert!(outgoing.pieces.is_empty());
        }
    }
}
