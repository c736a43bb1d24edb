//! A run of bytes within shared memory: what reads return and what the wire sends, without a copy.

use std::fmt;
use std::ops::{Deref, Range};

use crate::disk::SharedBytes;

/// Part of a buffer that was read or written; cheap to clone, keeps the buffer alive.
#[derive(Clone)]
pub struct SharedSlice {
    bytes: SharedBytes,
    range: Range<usize>,
}

impl SharedSlice {
    /// The bytes `range` of `bytes`; panics when they are not there.
    pub fn new(bytes: SharedBytes, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= (*bytes).as_ref().len(),
            "slice {range:?} is outside its buffer"
        );
        Self { bytes, range }
    }

    /// A part of this slice; panics when it is not there.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.end <= self.len(), "slice {range:?} is outside a slice of {} bytes", self.len());
        Self::new(self.bytes.clone(), self.range.start + range.start..self.range.start + range.end)
    }
}

impl Deref for SharedSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for SharedSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSlice({} bytes)", self.len())
    }
}
