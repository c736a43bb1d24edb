//! Bytes to inspect, wherever they are: a file, or memory. Only whole, positioned reads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file, or something that looks like one.
pub trait Image {
    /// Its length.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills the buffer from `position`; fails with `UnexpectedEof` beyond the end.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Image for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, position)
    }
}

impl Image for &[u8] {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        let wanted = start.checked_add(buffer.len()).and_then(|end| self.get(start..end));
        buffer.copy_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Reads an image front to back in pieces of at least [`WINDOW_BYTES`].
pub(super) struct Window<'a, I> {
    image: &'a I,
    /// Where the piece starts.
    start: u64,
    piece: Vec<u8>,
    end: u64,
}

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

impl<'a, I: Image> Window<'a, I> {
    /// Reads up to `end`.
    pub fn new(image: &'a I, end: u64) -> Self {
        Self { image, start: 0, piece: Vec::new(), end }
    }

    /// `bytes` at `position`, which must end at or before the window's end.
    pub fn get(&mut self, position: u64, bytes: usize) -> io::Result<&[u8]> {
        let at = position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let is_there = at.and_then(|at| at.checked_add(bytes)).is_some_and(|end| end <= self.piece.len());
        if !is_there {
            let rest = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
            if bytes > rest {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.piece.resize(bytes.max(WINDOW_BYTES).min(rest), 0);
            self.start = position;
            self.image.read_at(position, &mut self.piece)?;
        }
        let at = (position - self.start) as usize;
        Ok(&self.piece[at..at + bytes])
    }
}
