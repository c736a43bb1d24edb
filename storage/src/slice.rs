//! A run of bytes within shared memory: what reads return and what the wire sends, without a copy.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

use crate::disk::SharedBytes;

/// Part of a buffer that was read or written; cheap to clone, keeps the buffer alive.
#[derive(Clone)]
pub struct SharedSlice {
    bytes: SharedBytes,
    range: Range<usize>,
    /// The same buffer by its type, where it may be taken back.
    owner: Option<Rc<dyn Any>>,
}

impl SharedSlice {
    /// The bytes `range` of `bytes`; panics when they are not there.
    pub fn new(bytes: SharedBytes, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= (*bytes).as_ref().len(),
            "slice {range:?} is outside its buffer"
        );
        Self { bytes, range, owner: None }
    }

    /// The same; who holds it last may take the buffer back with [`SharedSlice::into_owner`].
    pub fn of_owner<T: AsRef<[u8]> + 'static>(owner: Rc<T>, range: Range<usize>) -> Self {
        Self { owner: Some(owner.clone()), ..Self::new(owner, range) }
    }

    /// The buffer, if it is such a one, was given to [`SharedSlice::of_owner`], and nobody else holds it.
    pub fn into_owner<T: AsRef<[u8]> + 'static>(self) -> Result<T, Self> {
        let Self { bytes, range, owner } = self;
        match owner.map(Rc::downcast::<T>) {
            Some(Ok(owner)) => {
                drop(bytes);
                Rc::try_unwrap(owner).map_err(|owner| Self::of_owner(owner, range))
            }
            Some(Err(owner)) => Err(Self { bytes, range, owner: Some(owner) }),
            None => Err(Self { bytes, range, owner: None }),
        }
    }

    /// A part of this slice; panics when it is not there.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.end <= self.len(), "slice {range:?} is outside a slice of {} bytes", self.len());
        let range = self.range.start + range.start..self.range.start + range.end;
        Self { owner: self.owner.clone(), ..Self::new(self.bytes.clone(), range) }
    }
}

impl AsRef<[u8]> for SharedSlice {
    fn as_ref(&self) -> &[u8] {
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_back_to_who_holds_it_last_and_knows_what_it_is() {
        let slice = SharedSlice::of_owner(Rc::new(vec![1u8, 2, 3]), 1..3);
        let part = slice.slice(1..2);
        let slice = slice.into_owner::<Vec<u8>>().expect_err("another one holds it");
        assert_eq!((&*slice, &*part), (&[2, 3][..], &[3][..]));
        drop(part);
        let slice = slice.into_owner::<Box<[u8]>>().map(drop).expect_err("it is no text");
        assert_eq!(slice.into_owner::<Vec<u8>>().expect("the last one"), [1, 2, 3]);
        assert!(
            SharedSlice::new(Rc::new(vec![1u8]), 0..1).into_owner::<Vec<u8>>().is_err(),
            "it was not to be had back"
        );
    }
}
