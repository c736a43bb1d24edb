//! The one queue of the world: what happens when, and in which order at the same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual microseconds since the beginning of the world.
pub type Time = u64;

/// A millisecond of virtual time.
pub const MS: Time = 1_000;
/// A second of virtual time.
pub const SECOND: Time = 1_000 * MS;

/// Events by time; those of one time in the order in which they were added.
pub struct Queue<E> {
    now: Time,
    added: u64,
    heap: BinaryHeap<Reverse<(Time, u64, Held<E>)>>,
}

/// An event, which has no order of its own.
struct Held<E>(E);

impl<E> PartialEq for Held<E> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<E> Eq for Held<E> {}
impl<E> PartialOrd for Held<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Held<E> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<E> Queue<E> {
    /// Nothing, at time 0.
    pub fn new() -> Self {
        Self { now: 0, added: 0, heap: BinaryHeap::new() }
    }

    /// The time of the event that was taken last.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Events to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Adds an event; one of the past happens now.
    pub fn add(&mut self, at: Time, event: E) {
        self.added += 1;
        self.heap.push(Reverse((at.max(self.now), self.added, Held(event))));
    }

    /// Takes the next event and goes to its time.
    pub fn take(&mut self) -> Option<E> {
        let Reverse((at, _, Held(event))) = self.heap.pop()?;
        self.now = at;
        Some(event)
    }
}
