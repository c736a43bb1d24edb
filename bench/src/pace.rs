//! When requests are meant to be sent, and the clock that says how late they are.
//!
//! In an open loop a request has an intended time that no earlier reply can move: a server that stalls for a second is
//! seen by every request that was meant to be sent in that second (Gil Tene's "coordinated omission"). In a closed loop
//! the next request waits for a place in the window, and its latency begins when it is sent.

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Nanoseconds since a [`Clock`] was started.
pub type Nanos = u64;

/// Nanoseconds of a second.
pub const SECOND: Nanos = 1_000_000_000;

/// A monotonic clock that costs a few nanoseconds to read.
#[derive(Clone, Debug)]
pub struct Clock {
    clock: quanta::Clock,
    start: quanta::Instant,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Self {
        let clock = quanta::Clock::new();
        let start = clock.now();
        Self { clock, start }
    }

    /// Time since the start.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.clock.now().duration_since(self.start).as_nanos() as Nanos
    }
}

/// How the requests of an open loop are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// At equal intervals.
    #[default]
    Even,
    /// At exponentially distributed intervals, as independent senders would.
    Poisson,
}

/// When the next request is due.
#[derive(Debug)]
pub enum Pace {
    /// As soon as there is a place in the window.
    Closed,
    /// At a rate of its own.
    Open(Schedule),
}

/// Intended times at a rate, whatever becomes of the requests.
#[derive(Debug)]
pub struct Schedule {
    interval: f64,
    next: f64,
    arrivals: Arrivals,
    random: SmallRng,
}

impl Schedule {
    /// `per_second` requests a second from `start` on.
    pub fn new(start: Nanos, per_second: f64, arrivals: Arrivals, seed: u64) -> Self {
        assert!(per_second > 0.0, "a schedule without a rate never comes to its first request");
        let interval = SECOND as f64 / per_second;
        Self { interval, next: start as f64, arrivals, random: SmallRng::seed_from_u64(seed) }
    }

    /// When the next request is due.
    pub fn due(&self) -> Nanos {
        self.next as Nanos
    }

    fn advance(&mut self) {
        self.next += match self.arrivals {
            Arrivals::Even => self.interval,
            Arrivals::Poisson => -(1.0 - self.random.random::<f64>()).ln() * self.interval,
        };
    }
}

impl Pace {
    /// The intended time of a request that may be sent now; none when the next one is not due yet.
    #[inline]
    pub fn take(&mut self, now: Nanos) -> Option<Nanos> {
        match self {
            Self::Closed => Some(now),
            Self::Open(schedule) => {
                let due = schedule.due();
                if due > now {
                    return None;
                }
                schedule.advance();
                Some(due)
            }
        }
    }

    /// When the next request is due; none in a closed loop, where only a reply can tell.
    pub fn due(&self) -> Option<Nanos> {
        match self {
            Self::Closed => None,
            Self::Open(schedule) => Some(schedule.due()),
        }
    }
}

#[cfg(test)]
mod tests;
