//! The broker's only clocks; below it time is passed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minikafka_core::Timestamp;
use quanta::Instant;

/// Wall time for append timestamps, monotonic time for deadlines.
#[derive(Clone, Debug)]
pub struct Clock {
    monotonic: quanta::Clock,
}

impl Clock {
    /// A clock; calibrates the processor's time-stamp counter once per process.
    pub fn new() -> Self {
        Self { monotonic: quanta::Clock::new() }
    }

    /// Milliseconds since the Unix epoch; a clock before 1970 counts as 1970.
    pub fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Never goes back.
    pub fn monotonic(&self) -> Instant {
        self.monotonic.now()
    }
}
