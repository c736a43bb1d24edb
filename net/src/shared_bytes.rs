//! Bytes that several owners hold and that are sent without being copied.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// A part of a buffer that someone else (the log, a cache) holds too. Sent as it is, never copied.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Rc<dyn AsRef<[u8]>>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The part `range` of `owner`, whose bytes must stay the same as long as it lives.
    ///
    /// # Panics
    /// When `range` is not within `owner`.
    pub fn new(owner: Rc<dyn AsRef<[u8]>>, range: Range<usize>) -> Self {
        let length = (*owner).as_ref().len();
        assert!(range.start <= range.end && range.end <= length, "range {range:?} of a buffer of {length} bytes");
        Self { owner, range }
    }

    /// All of `owner`.
    pub fn whole(owner: Rc<dyn AsRef<[u8]>>) -> Self {
        let range = 0..(*owner).as_ref().len();
        Self { owner, range }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::whole(Rc::new(bytes))
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({:?})", self.range)
    }
}
