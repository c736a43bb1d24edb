//! Recently written flushes, kept in memory for readers at the tail, and footers loaded for those far behind.
//!
//! Both are bounded per shard and forget the oldest first. Whoever uses an item keeps it alive by its reference.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use minikafka_core::Generation;

use crate::disk::SharedBytes;
use crate::index::SegmentIndex;

/// The recent flushes of a shard, all logs together.
pub(crate) struct RecentCache {
    bytes_max: u64,
    bytes: Cell<u64>,
    slots: RefCell<VecDeque<(u64, Rc<RecentSlot>)>>,
}

/// A flush that may be forgotten at any time.
#[derive(Default)]
pub(crate) struct RecentSlot {
    flush: RefCell<Option<SharedBytes>>,
}

impl RecentSlot {
    /// The flush, if it is still there.
    pub fn get(&self) -> Option<SharedBytes> {
        self.flush.borrow().clone()
    }
}

impl RecentCache {
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: Cell::new(0), slots: RefCell::default() }
    }

    /// Keeps a flush that takes `bytes` of memory, at the cost of the oldest ones.
    pub fn insert(&self, flush: SharedBytes, bytes: u64) -> Rc<RecentSlot> {
        let slot = Rc::new(RecentSlot { flush: RefCell::new(Some(flush)) });
        let mut slots = self.slots.borrow_mut();
        slots.push_back((bytes, slot.clone()));
        self.bytes.set(self.bytes.get() + bytes);
        while self.bytes.get() > self.bytes_max
            && let Some((bytes, oldest)) = slots.pop_front()
        {
            self.bytes.set(self.bytes.get() - bytes);
            oldest.flush.take();
        }
        slot
    }
}

/// The loaded footer indexes of a shard, least recently used first.
pub(crate) struct FooterCache {
    bytes_max: u64,
    loaded: RefCell<VecDeque<(Generation, Rc<SegmentIndex>)>>,
}

impl FooterCache {
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, loaded: RefCell::default() }
    }

    /// The index of a segment, if it is loaded.
    pub fn get(&self, generation: Generation) -> Option<Rc<SegmentIndex>> {
        let mut loaded = self.loaded.borrow_mut();
        let at = loaded.iter().position(|(other, _)| *other == generation)?;
        let found = loaded.remove(at)?;
        loaded.push_back(found.clone());
        Some(found.1)
    }

    /// Keeps an index, at the cost of those not used for longest.
    pub fn insert(&self, generation: Generation, index: Rc<SegmentIndex>) {
        let mut loaded = self.loaded.borrow_mut();
        loaded.retain(|(other, _)| *other != generation);
        loaded.push_back((generation, index));
        let mut bytes: u64 = loaded.iter().map(|(_, index)| index.memory_bytes()).sum();
        while bytes > self.bytes_max
            && loaded.len() > 1
            && let Some((_, oldest)) = loaded.pop_front()
        {
            bytes -= oldest.memory_bytes();
        }
    }
}
