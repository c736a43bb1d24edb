//! Bytes that wait to leave on one connection: small frames side by side in one buffer, large bodies where they lie.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;

/// Bodies below this are copied beside their header: cheaper than one more piece of a vectored write.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// Past this, nothing more is staged until it has left.
const STAGED_BYTES_MAX: usize = 512 << 10;
/// Pieces of one vectored write.
const PIECES_MAX: usize = 64;
/// The buffer of small frames is moved to its front when this much of it has left.
const COMPACT_BYTES: usize = 1 << 20;

#[derive(Debug)]
enum Piece {
    /// A stretch of the buffer.
    Near { from: usize, to: usize },
    /// What is left of a body.
    Far { body: Rc<[u8]>, from: usize },
}

/// What waits to leave.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    near: Vec<u8>,
    pieces: VecDeque<Piece>,
    staged: usize,
}

impl Outgoing {
    /// Whether more may be staged.
    pub fn is_short(&self) -> bool {
        self.staged < STAGED_BYTES_MAX
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Stages bytes that are copied.
    pub fn push(&mut self, bytes: &[u8]) {
        let from = self.near.len();
        self.near.extend_from_slice(bytes);
        self.staged += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Near { to, .. }) if *to == from => *to = self.near.len(),
            _ => self.pieces.push_back(Piece::Near { from, to: self.near.len() }),
        }
    }

    /// Stages a body; a large one is not copied.
    pub fn push_body(&mut self, body: &Rc<[u8]>) {
        if body.len() < COPIED_BYTES_MAX {
            return self.push(body);
        }
        self.staged += body.len();
        self.pieces.push_back(Piece::Far { body: body.clone(), from: 0 });
    }

    /// Writes as much as is taken. Says whether the sink takes no more for now.
    pub fn write_to(&mut self, sink: &mut impl Write) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut filled = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(match piece {
                    Piece::Near { from, to } => &self.near[*from..*to],
                    Piece::Far { body, from } => &body[*from..],
                });
                filled += 1;
            }
            match sink.write_vectored(&slices[..filled]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.left(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// So many bytes have left.
    fn left(&mut self, mut bytes: usize) {
        self.staged -= bytes;
        while bytes > 0 {
            let Some(front) = self.pieces.front_mut() else { break };
            let (from, end) = match front {
                Piece::Near { from, to } => (from, *to),
                Piece::Far { body, from } => (from, body.len()),
            };
            let taken = bytes.min(end - *from);
            *from += taken;
            bytes -= taken;
            if *from == end {
                self.pieces.pop_front();
            }
        }
        self.compact();
    }

    fn compact(&mut self) {
        let first_near = self.pieces.iter().find_map(|piece| match piece {
            Piece::Near { from, .. } => Some(*from),
            Piece::Far { .. } => None,
        });
        match first_near {
            None => self.near.clear(),
            Some(gone) if gone >= COMPACT_BYTES => {
                self.near.drain(..gone);
                for piece in &mut self.pieces {
                    if let Piece::Near { from, to } = piece {
                        (*from, *to) = (*from - gone, *to - gone);
                    }
                }
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes a call, then none.
    struct Sink {
        taken: Vec<u8>,
        per_call: usize,
        calls: usize,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.calls == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.calls -= 1;
            let count = bytes.len().min(self.per_call);
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_leaves_in_order_whatever_the_sink_takes() {
        let body: Rc<[u8]> = (0..10_000u32).map(|i| i as u8).collect();
        for per_call in [1, 7, 4096, 1 << 20] {
            let (mut out, mut expected) = (Outgoing::default(), Vec::new());
            let mut sink = Sink { taken: Vec::new(), per_call, calls: 0 };
            for round in 0..20u8 {
                out.push(&[round; 100]);
                expected.extend_from_slice(&[round; 100]);
                out.push_body(&body);
                expected.extend_from_slice(&body);
                sink.calls = 30;
                out.write_to(&mut sink).expect("the sink takes or blocks");
            }
            sink.calls = usize::MAX;
            assert!(!out.write_to(&mut sink).expect("the sink takes"));
            assert!(out.is_empty() && out.staged == 0);
            assert!(sink.taken == expected, "pieces of {per_call} bytes arrive in another order");
        }
    }
}
