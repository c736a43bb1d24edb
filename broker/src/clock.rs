//! The broker's only clocks; below it time is passed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minikafka_core::Timestamp;
use quanta::Instant;

#[cfg(test)]
use std::{cell::Cell, rc::Rc};

/// Wall time for append timestamps, monotonic time for deadlines.
#[derive(Clone, Debug)]
pub struct Clock {
    monotonic: quanta::Clock,
    began: Instant,
    /// What tests have added to the wall time of this clock and its clones.
    #[cfg(test)]
    ahead_ms: Rc<Cell<i64>>,
}

impl Clock {
    /// A clock; calibrates the processor's time-stamp counter once per process.
    pub fn new() -> Self {
        let monotonic = quanta::Clock::new();
        let began = monotonic.now();
        Self {
            monotonic,
            began,
            #[cfg(test)]
            ahead_ms: Rc::default(),
        }
    }

    /// Milliseconds since the Unix epoch; a clock before 1970 counts as 1970.
    pub fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        #[cfg(test)]
        let now_ms = now_ms + self.ahead_ms.get();
        Timestamp(now_ms)
    }

    /// Lets wall time pass.
    #[cfg(test)]
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.set(self.ahead_ms.get() + by.as_millis() as i64);
    }

    /// Nanoseconds since this clock was made; never goes back.
    pub fn monotonic_ns(&self) -> u64 {
        let since = self.monotonic().saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Never goes back.
    pub fn monotonic(&self) -> Instant {
        self.monotonic.now()
    }
}
