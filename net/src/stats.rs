//! What a shard's connections did: plain counters, read by the broker's metrics.

use std::cell::Cell;

use minikafka_core::ErrorCode;
use minikafka_core::histogram::DurationHistogram;

use crate::deadline::DeadlineKind;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    pub(crate) fn add(&self, count: usize) {
        self.0.set(self.0.get() + count as u64);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }
}

/// Counters of one shard's connections, since its start.
#[derive(Debug, Default)]
pub struct NetStats {
    /// Connections taken.
    pub connections_accepted: Counter,
    /// Connections sent away because the shard was at its connection limit.
    pub connections_refused: Counter,
    /// Accepts that failed (out of descriptors, for instance).
    pub accepts_failed: Counter,
    /// Connections that ended, for whatever reason.
    pub connections_closed: Counter,
    /// Connections that ended because reading or writing failed, or in the middle of a frame.
    pub connections_broken: Counter,
    /// Well-formed frames received.
    pub frames_received: Counter,
    /// Bytes received.
    pub bytes_received: Counter,
    /// Receive system calls that brought bytes.
    pub receives: Counter,
    /// Replies queued, errors included.
    pub replies: Counter,
    /// Requests that were dropped without an answer; they were answered `timed_out`.
    pub replies_forgotten: Counter,
    /// Bytes sent.
    pub bytes_sent: Counter,
    /// Send system calls that took bytes.
    pub sends: Counter,
    /// How often reading paused because the window of requests in flight was full.
    pub window_waits: Counter,
    /// How often reading paused because the peer does not read its replies.
    pub room_waits: Counter,
    /// Bytes of refused requests that were received only to be discarded.
    pub bytes_skipped: Counter,
    /// Log lines that were counted and not written.
    pub log_lines_suppressed: Counter,
    /// From the first reply queued on a connection with nothing to send until everything queued has left.
    pub replies_left: DurationHistogram,
    deadlines: [Counter; DeadlineKind::ALL.len()],
    errors: ErrorCounters,
    open: Cell<u32>,
}

impl NetStats {
    /// Connections open now.
    pub fn connections_open(&self) -> u32 {
        self.open.get()
    }

    /// Connections ended by this deadline.
    pub fn deadlines(&self, kind: DeadlineKind) -> u64 {
        self.deadlines[kind as usize].get()
    }

    /// Error replies with this code.
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors.of(code).get()
    }

    pub(crate) fn count_deadline(&self, kind: DeadlineKind) {
        self.deadlines[kind as usize].increment();
    }

    pub(crate) fn count_error(&self, code: ErrorCode) {
        self.errors.of(code).increment();
    }

    pub(crate) fn connection_opened(&self) {
        self.connections_accepted.increment();
        self.open.set(self.open.get() + 1);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections_closed.increment();
        self.open.set(self.open.get() - 1);
    }
}

/// A counter per error code, in the order of the table.
#[derive(Debug)]
struct ErrorCounters(Vec<Counter>);

impl Default for ErrorCounters {
    fn default() -> Self {
        Self(ErrorCode::ALL.iter().map(|_| Counter::default()).collect())
    }
}

impl ErrorCounters {
    fn of(&self, code: ErrorCode) -> &Counter {
        let at = ErrorCode::ALL.iter().position(|known| *known == code);
        &self.0[at.expect("every code is in the table")]
    }
}
