//! Deadlines without timers: each connection notes when it is due, and one sweep per shard looks at all of them.
//!
//! Time is counted in sweeps, so noting a deadline reads no clock, and time in which the shard itself did not run is
//! not held against its peers.

use std::cell::Cell;
use std::time::Duration;

use minikafka_core::limits;

/// What was due when a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeadlineKind {
    /// The hello had not arrived.
    Hello,
    /// A frame had begun and not ended.
    Frame,
    /// No frame had come for long, and none was in flight.
    Idle,
    /// A reply had not left, because the peer does not read.
    Write,
    /// After the last request, its replies were not ready and gone.
    Finish,
    /// After an error, the peer went on sending.
    Linger,
}

impl DeadlineKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Hello, Self::Frame, Self::Idle, Self::Write, Self::Finish, Self::Linger];

    /// For logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Frame => "frame",
            Self::Idle => "idle",
            Self::Write => "write",
            Self::Finish => "finish",
            Self::Linger => "linger",
        }
    }
}

/// How long each phase of a connection may take, and how often that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From accept to a complete hello.
    pub hello: Duration,
    /// From the first byte of a frame's head to its last, and again for large bulk.
    pub frame: Duration,
    /// Without any frame, and with none in flight.
    pub idle: Duration,
    /// For each reply, or each shared buffer of a reply, to leave.
    pub write: Duration,
    /// For replies still to come once the peer sends no more.
    pub finish: Duration,
    /// For discarding input after an error that closes the connection.
    pub linger: Duration,
    /// How often deadlines are looked at: their precision.
    pub sweep: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            hello: Duration::from_millis(limits::HELLO_DEADLINE_MS),
            frame: Duration::from_millis(limits::FRAME_DEADLINE_MS),
            idle: Duration::from_millis(limits::IDLE_DEADLINE_MS),
            write: Duration::from_millis(limits::WRITE_DEADLINE_MS),
            finish: Duration::from_millis(limits::FINISH_DEADLINE_MS),
            linger: Duration::from_millis(limits::LINGER_MS),
            sweep: Duration::from_millis(limits::DEADLINE_SWEEP_MS),
        }
    }
}

/// The same, counted in sweeps; each at least long enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepCounts {
    pub(crate) hello: u64,
    pub(crate) frame: u64,
    pub(crate) idle: u64,
    pub(crate) write: u64,
    pub(crate) finish: u64,
    pub(crate) linger: u64,
}

impl From<Deadlines> for SweepCounts {
    fn from(deadlines: Deadlines) -> Self {
        let sweep_us = deadlines.sweep.as_micros().max(1);
        // One more, because the current sweep is partly over.
        let sweeps = |deadline: Duration| deadline.as_micros().div_ceil(sweep_us) as u64 + 1;
        Self {
            hello: sweeps(deadlines.hello),
            frame: sweeps(deadlines.frame),
            idle: sweeps(deadlines.idle),
            write: sweeps(deadlines.write),
            finish: sweeps(deadlines.finish),
            linger: sweeps(deadlines.linger),
        }
    }
}

/// When one direction of a connection is due, in sweeps.
#[derive(Debug, Default)]
pub(crate) struct Due(Cell<Option<(u64, DeadlineKind)>>);

impl Due {
    pub(crate) fn set(&self, at: u64, kind: DeadlineKind) {
        self.0.set(Some((at, kind)));
    }

    pub(crate) fn clear(&self) {
        self.0.set(None);
    }

    pub(crate) fn is_set(&self, kind: DeadlineKind) -> bool {
        self.0.get().is_some_and(|(_, set)| set == kind)
    }

    /// What is overdue at `now`.
    pub(crate) fn overdue(&self, now: u64) -> Option<DeadlineKind> {
        self.0.get().filter(|(at, _)| *at <= now).map(|(_, kind)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_never_comes_early() {
        let deadlines = Deadlines {
            hello: Duration::from_millis(1_001),
            sweep: Duration::from_millis(500),
            ..Deadlines::default()
        };
        assert_eq!(SweepCounts::from(deadlines).hello, 4);
        let due = Due::default();
        assert_eq!(due.overdue(u64::MAX), None);
        due.set(4, DeadlineKind::Hello);
        assert_eq!((due.overdue(3), due.overdue(4)), (None, Some(DeadlineKind::Hello)));
        due.clear();
        assert_eq!(due.overdue(u64::MAX), None);
    }
}
