//! Buffers of a shard in which something arrives, handed out only while it does.
//!
//! Last in, first out, by power-of-two size, so the buffer in use is the one still in the cache, and a thousand idle
//! connections hold none at all. What is kept is bounded; the rest goes back to the allocator.

use std::cell::{Cell, RefCell};

use minikafka_core::limits;

const SIZE_MIN: usize = limits::RECEIVE_BUFFER_BYTES_MIN as usize;
const SIZE_MAX: usize = limits::READ_BYTES_MAX as usize;
const CLASSES: usize = (SIZE_MAX / SIZE_MIN).ilog2() as usize + 1;
const _: () = assert!(SIZE_MIN.is_power_of_two() && SIZE_MAX.is_power_of_two() && SIZE_MIN < SIZE_MAX);

/// Spare buffers, `limits::SPARE_BUFFERS_BYTES_MAX` at most.
#[derive(Debug, Default)]
pub struct BufferPool {
    spare: [RefCell<Vec<Box<[u8]>>>; CLASSES],
    spare_bytes: Cell<usize>,
}

fn class_of(size: usize) -> Option<usize> {
    (size.is_power_of_two() && (SIZE_MIN..=SIZE_MAX).contains(&size)).then(|| (size / SIZE_MIN).ilog2() as usize)
}

impl BufferPool {
    /// A buffer of at least `bytes`, a power of two. Its contents are whatever they were.
    pub fn take(&self, bytes: usize) -> Box<[u8]> {
        let size = bytes.next_power_of_two().max(SIZE_MIN);
        let spare = class_of(size).and_then(|class| self.spare[class].borrow_mut().pop());
        if spare.is_some() {
            self.spare_bytes.set(self.spare_bytes.get() - size);
        }
        spare.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub fn put(&self, buffer: Box<[u8]>) {
        let (size, kept) = (buffer.len(), self.spare_bytes.get());
        if let Some(class) = class_of(size)
            && kept + size <= limits::SPARE_BUFFERS_BYTES_MAX as usize
        {
            self.spare_bytes.set(kept + size);
            self.spare[class].borrow_mut().push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_buffer_given_back_is_the_next_taken() {
        let pool = BufferPool::default();
        let buffer = pool.take(SIZE_MIN + 1);
        assert_eq!(buffer.len(), SIZE_MIN * 2);
        let address = buffer.as_ptr();
        pool.put(buffer);
        assert_eq!(pool.take(1).len(), SIZE_MIN, "another class");
        let again = pool.take(SIZE_MIN * 2);
        assert_eq!(again.as_ptr(), address);
        assert_eq!(pool.spare_bytes.get(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = BufferPool::default();
        let many: Vec<_> = (0..64).map(|_| pool.take(SIZE_MAX)).collect();
        many.into_iter().for_each(|buffer| pool.put(buffer));
        pool.put(pool.take(SIZE_MAX * 2));
        assert_eq!(pool.spare_bytes.get(), limits::SPARE_BUFFERS_BYTES_MAX as usize);
    }
}
