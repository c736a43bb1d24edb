//! The broker's only clocks; below it time is passed in.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minikafka_core::Timestamp;
use minikafka_core::histogram::COUNTED;
use quanta::Instant;

/// Where the wall time of a clock that stands still begins: somewhere in 2023.
const MANUAL_BEGINS: Timestamp = Timestamp(1_700_000_000_000);

/// Wall time for append timestamps, monotonic time for deadlines.
#[derive(Clone, Debug)]
pub struct Clock {
    monotonic: quanta::Clock,
    /// What the counter said when this clock was made.
    began: u64,
    wall: Wall,
    /// What durations that are counted were last measured from: looking at a clock costs more than counting.
    counted_ns: Rc<Cell<u64>>,
}

/// Where wall time comes from.
#[derive(Clone, Debug)]
enum Wall {
    System,
    Manual(Rc<Cell<Timestamp>>),
}

/// Moves the time of a [`Clock::manual`] and its clones; for simulations, where nothing may depend on real time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    monotonic: Arc<quanta::Mock>,
    wall: Rc<Cell<Timestamp>>,
}

impl Clock {
    /// A clock; calibrates the processor's time-stamp counter once per process.
    pub fn new() -> Self {
        let monotonic = quanta::Clock::new();
        Self { began: monotonic.raw(), monotonic, wall: Wall::System, counted_ns: Rc::default() }
    }

    /// A clock that stands still but for what its handle lets pass.
    pub fn manual() -> (Self, ManualClock) {
        let (monotonic, mock) = quanta::Clock::mock();
        let wall = Rc::new(Cell::new(MANUAL_BEGINS));
        let began = monotonic.raw();
        let clock = Self { began, monotonic, wall: Wall::Manual(wall.clone()), counted_ns: Rc::default() };
        (clock, ManualClock { monotonic: mock, wall })
    }

    /// Milliseconds since the Unix epoch; a clock before 1970 counts as 1970.
    pub fn wall(&self) -> Timestamp {
        match &self.wall {
            Wall::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Wall::Manual(wall) => wall.get(),
        }
    }

    /// Nanoseconds since this clock was made; never goes back.
    pub fn monotonic_ns(&self) -> u64 {
        self.ns_of(self.monotonic.raw())
    }

    /// The same for durations that are only counted: not read in a build that counts none.
    pub fn counted_ns(&self) -> u64 {
        if COUNTED {
            self.mark();
        }
        self.counted_ns.get()
    }

    /// The time, also for what is counted until somebody looks again.
    pub fn mark(&self) -> Instant {
        let counter = self.monotonic.raw();
        self.counted_ns.set(self.ns_of(counter));
        self.monotonic.scaled(counter)
    }

    /// When [`Clock::counted_ns`] or [`Clock::mark`] looked last: for who comes right behind.
    pub fn marked_ns(&self) -> u64 {
        self.counted_ns.get()
    }

    fn ns_of(&self, counter: u64) -> u64 {
        self.monotonic.delta_as_nanos(self.began, counter)
    }

    /// Never goes back.
    pub fn monotonic(&self) -> Instant {
        self.monotonic.now()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualClock {
    /// Lets time pass, monotonic and wall time alike.
    pub fn advance(&self, by: Duration) {
        self.monotonic.increment(by);
        self.wall.set(Timestamp(self.wall.get().0 + by.as_millis() as i64));
    }

    /// Sets the wall time alone: an operator, or a time server, corrected it, perhaps backwards.
    pub fn set_wall(&self, to: Timestamp) {
        self.wall.set(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_until_it_is_advanced() {
        let (clock, hand) = Clock::manual();
        let before = (clock.wall(), clock.monotonic(), clock.monotonic_ns());
        assert_eq!((clock.wall(), clock.monotonic(), clock.monotonic_ns()), before);
        hand.advance(Duration::from_millis(1_500));
        assert_eq!(clock.clone().wall().0, before.0.0 + 1_500);
        assert_eq!(clock.monotonic().saturating_duration_since(before.1), Duration::from_millis(1_500));
        hand.set_wall(Timestamp(7));
        assert_eq!((clock.wall(), clock.monotonic_ns()), (Timestamp(7), 1_500_000_000));
    }
}
