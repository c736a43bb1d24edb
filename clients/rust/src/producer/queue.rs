//! The unanswered batches of one partition: what is sent when, under which sequence, and what an answer means.
//!
//! Pure and synchronous: time, answers and the end of a map refresh come in; attempts to make and resolved batches come
//! out. The promise: records are stored in the order of `push`, each at most once; a batch resolved as stored is stored
//! exactly once; one that failed is not stored, unless its error says that the outcome is unknown. (Without
//! idempotence, order holds, but a batch whose answer was lost may be stored again.)
//!
//! ```text
//!                  a retriable failure              nothing in flight any more
//!      ┌─────────┐                    ┌──────────┐                             ┌─────────┐
//!  ──▶ │ Flowing │ ─────────────────▶ │ Draining │ ──────────────────────────▶ │ Waiting │
//!      └─────────┘                    └──────────┘                             └─────────┘
//!           ▲                               back-off over and map refreshed         │
//!           └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Only Flowing sends. Batches in flight are always the front of the queue, so after a failure everything unanswered
//! goes again, in order and under the same sequences, one batch at a time until the first success.
//!
//! **Lines.** A *line* is a producer id with its sequences. The broker stores a sequence of a line only directly behind
//! its predecessor; so when one batch of a line is certainly not stored, none behind it is. A line breaks when a batch
//! leaves the queue without being stored (a failure that no retry mends, or its deadline), or when the broker has
//! forgotten the producer. What comes behind the break then waits until everything before it is resolved, and goes
//! on a new line, under a new producer id, from sequence 0. It is never renumbered under the old id: a copy of an old
//! attempt may still sit in a network buffer, and its old sequence must not come true there. Batches behind the break
//! that may be stored themselves fail as [`Error::OutcomeUnknown`]: under a new line they could be stored twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use minikafka_core::{ErrorCode, Offset, Partition, ProducerId, Sequence, Timestamp};

use super::line::{Line, Randomness};
use crate::backoff;
use crate::error::{Error, Result};
use crate::explain::Explain;

/// A refresh of the map is waited for at most this long: the data path goes on without gateways.
const MAP_WAIT_MAX: Duration = Duration::from_secs(1);
/// The oldest batch is answered `out_of_order` this often before its line counts as broken: its predecessors are
/// acknowledged, so the broker has lost what it should remember.
const FRONT_OUT_OF_ORDER_MAX: u32 = 3;

/// Names a batch within its queue; grows with every push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchKey(u64);

/// One sending of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub key: BatchKey,
    /// Counts the attempts of this batch, from 1.
    pub number: u32,
    pub producer_id: ProducerId,
    pub sequence: Sequence,
    /// When the batch fails whatever happens.
    pub deadline: Instant,
}

/// Where a batch is stored; nothing, when the broker no longer remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub base_offset: Option<Offset>,
    pub append_timestamp: Option<Timestamp>,
    pub explain: Option<Arc<Explain>>,
}

/// A batch that left the queue.
#[derive(Debug)]
pub(super) struct Resolved<P> {
    pub payload: P,
    pub result: Result<Stored>,
}

/// What a queue is told once.
#[derive(Clone, Debug)]
pub(super) struct QueueSettings {
    pub topic: Arc<str>,
    pub partition: Partition,
    pub idempotent: bool,
    pub in_flight_max: usize,
    pub delivery_timeout: Duration,
    /// Producer ids and jitter follow from it.
    pub seed: u64,
}

/// See the module's description. `P` is the batch itself, which the queue never looks at.
#[derive(Debug)]
pub(super) struct PartitionQueue<P> {
    settings: QueueSettings,
    randomness: Randomness,
    line: Line,
    batches: VecDeque<Queued<P>>,
    next_key: BatchKey,
    in_flight: usize,
    phase: Phase,
    /// Retriable failures since the last success.
    failures: u32,
    broken: Option<Break>,
    wants_map: bool,
}

#[derive(Debug)]
struct Queued<P> {
    key: BatchKey,
    payload: P,
    record_count: u32,
    deadline: Instant,
    /// Assigned when it is first sent on the current line.
    sequence: Option<Sequence>,
    attempts: u32,
    in_flight: bool,
    /// An attempt on the current line ended without telling whether it was stored.
    maybe_stored: bool,
    out_of_order: u32,
    last_error: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Flowing,
    Draining { server_asks: Duration, needs_map: bool },
    Waiting { until: Instant, map_until: Option<Instant> },
}

/// Where the current line ends.
#[derive(Clone, Copy, Debug)]
struct Break {
    /// Batches from here on need a new line.
    from: BatchKey,
    /// Whether the batch that broke it is certainly not stored; then nothing behind it is.
    certain: bool,
}

impl<P> PartitionQueue<P> {
    pub(super) fn new(settings: QueueSettings) -> Self {
        let mut randomness = Randomness::new(settings.seed);
        let line = Line::new(&mut randomness, settings.idempotent);
        Self {
            settings,
            randomness,
            line,
            batches: VecDeque::new(),
            next_key: BatchKey(0),
            in_flight: 0,
            phase: Phase::Flowing,
            failures: 0,
            broken: None,
            wants_map: false,
        }
    }

    /// Puts a batch at the end. Deadlines must not decrease from push to push.
    pub(super) fn push(&mut self, payload: P, record_count: u32, deadline: Instant) -> BatchKey {
        let key = self.next_key;
        self.next_key = BatchKey(key.0 + 1);
        self.batches.push_back(Queued {
            key,
            payload,
            record_count,
            deadline,
            sequence: None,
            attempts: 0,
            in_flight: false,
            maybe_stored: false,
            out_of_order: 0,
            last_error: None,
        });
        key
    }

    /// The batch to be sent now, if one is: the caller sends it and says so with [`PartitionQueue::sent`], or leaves it.
    pub(super) fn next_to_send(&self) -> Option<Attempt> {
        let batch = self.batches.get(self.in_flight)?;
        if self.phase != Phase::Flowing || !self.is_in_window(batch.key) {
            return None;
        }
        debug_assert!(!batch.in_flight, "what is in flight must be the front of the queue");
        if self.broken.is_some_and(|broken| batch.key >= broken.from) {
            return None;
        }
        Some(Attempt {
            key: batch.key,
            number: batch.attempts + 1,
            producer_id: self.line.producer_id,
            sequence: batch.sequence.unwrap_or(self.line.next),
            deadline: batch.deadline,
        })
    }

    /// The attempt that [`PartitionQueue::next_to_send`] just gave is on its way.
    pub(super) fn sent(&mut self, attempt: &Attempt) {
        let batch = &mut self.batches[self.in_flight];
        assert_eq!(batch.key, attempt.key, "batches must be sent in order");
        if batch.sequence.is_none() {
            batch.sequence = Some(self.line.next);
            self.line.next = self.line.next.advance(if self.settings.idempotent { batch.record_count } else { 0 });
        }
        batch.attempts = attempt.number;
        batch.in_flight = true;
        self.in_flight += 1;
    }

    /// The next batch could not even be sent: everything waits as after a failure, and nothing was written.
    pub(super) fn could_not_send(&mut self, now: Instant, error: Error, out: &mut Vec<Resolved<P>>) {
        self.retry_later(&error);
        if let Some(batch) = self.batches.get_mut(self.in_flight) {
            batch.last_error = Some(error);
        }
        self.settle(now, out);
    }

    /// An attempt was answered, or failed without an answer. Answers to batches that are resolved already are ignored.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        attempt: &Attempt,
        answer: Result<Stored>,
        out: &mut Vec<Resolved<P>>,
    ) {
        let Ok(index) = self.batches.binary_search_by_key(&attempt.key, |batch| batch.key) else {
            return;
        };
        let batch = &mut self.batches[index];
        if !batch.in_flight || batch.attempts != attempt.number {
            return;
        }
        batch.in_flight = false;
        self.in_flight -= 1;
        match answer {
            Ok(stored) => self.stored(index, stored, out),
            Err(error) => self.failed(index, error, out),
        }
        self.settle(now, out);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Resolved<P>>) {
        while self.batches.front().is_some_and(|batch| batch.deadline <= now) {
            self.expire_front(out);
        }
        self.settle(now, out);
    }

    /// The refresh that [`PartitionQueue::take_map_wish`] asked for has ended, well or not.
    pub(super) fn map_refreshed(&mut self, now: Instant, out: &mut Vec<Resolved<P>>) {
        if let Phase::Waiting { map_until, .. } = &mut self.phase {
            *map_until = None;
        }
        self.settle(now, out);
    }

    /// Whether the map should be refreshed; asked once per failure.
    pub(super) fn take_map_wish(&mut self) -> bool {
        std::mem::take(&mut self.wants_map)
    }

    /// When [`PartitionQueue::tick`] has something to do, if nothing else happens before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let deadline = self.batches.front().map(|batch| batch.deadline);
        let waited = match self.phase {
            Phase::Waiting { until, map_until } => Some(map_until.unwrap_or(until).max(until)),
            Phase::Flowing | Phase::Draining { .. } => None,
        };
        deadline.into_iter().chain(waited).min()
    }

    /// Whether a batch pushed now would be sent at once.
    pub(super) fn would_send(&self) -> bool {
        self.phase == Phase::Flowing
            && self.batches.len() == self.in_flight
            && self.is_in_window(self.next_key)
            && self.broken.is_none()
    }

    /// Whether a batch may be sent before the oldest one is resolved. The window counts batches from that one on,
    /// answered or not, because the broker remembers the places of so many. While it is unclear whether the broker
    /// takes anything, one batch is enough to find out.
    fn is_in_window(&self, key: BatchKey) -> bool {
        let window = if self.failures > 0 { 1 } else { self.settings.in_flight_max as u64 };
        self.batches.front().is_none_or(|oldest| key.0 - oldest.key.0 < window)
    }

    /// Whether every batch is resolved.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// A batch that is not resolved yet.
    pub(super) fn get_mut(&mut self, key: BatchKey) -> Option<&mut P> {
        let index = self.batches.binary_search_by_key(&key, |batch| batch.key).ok()?;
        Some(&mut self.batches[index].payload)
    }

    /// Takes every batch out, resolved or not; for a producer that ends.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = P> {
        self.in_flight = 0;
        self.batches.drain(..).map(|batch| batch.payload)
    }

    fn stored(&mut self, index: usize, stored: Stored, out: &mut Vec<Resolved<P>>) {
        self.failures = 0;
        self.resolve(index, Ok(stored), out);
    }

    fn failed(&mut self, index: usize, error: Error, out: &mut Vec<Resolved<P>>) {
        let batch = &mut self.batches[index];
        match error.code() {
            Some(ErrorCode::DuplicateSequence) => self.stored(index, Stored::default(), out),
            // As long as a predecessor is not stored, a broker may not know this producer yet.
            Some(ErrorCode::UnknownProducer) if index > 0 => self.retry_later(&error),
            Some(ErrorCode::UnknownProducer) => {
                let certain = !batch.maybe_stored;
                self.break_from(self.batches[index].key, certain);
                self.retry_later(&error);
            }
            Some(code) if !code.is_retriable() => self.give_up(index, error, out),
            code => {
                batch.maybe_stored |= error.is_outcome_unknown();
                batch.out_of_order += u32::from(index == 0 && code == Some(ErrorCode::OutOfOrder));
                if batch.out_of_order >= FRONT_OUT_OF_ORDER_MAX {
                    batch.out_of_order = 0;
                    let (key, certain) = (batch.key, !batch.maybe_stored);
                    self.break_from(key, certain);
                }
                self.retry_later(&error);
                self.batches[index].last_error = Some(error);
            }
        }
    }

    /// A failure that no retry mends.
    fn give_up(&mut self, index: usize, error: Error, out: &mut Vec<Resolved<P>>) {
        let batch = &self.batches[index];
        let certain = !batch.maybe_stored && !error.is_outcome_unknown();
        let error = if batch.maybe_stored { self.outcome_unknown(&error) } else { error };
        self.mend_line_behind(index, certain);
        self.resolve(index, Err(error), out);
    }

    fn expire_front(&mut self, out: &mut Vec<Resolved<P>>) {
        let Some(batch) = self.batches.front() else { return };
        let unknown = batch.in_flight || batch.maybe_stored;
        let QueueSettings { topic, partition, delivery_timeout, .. } = &self.settings;
        let why = batch.last_error.as_ref().map_or(String::new(), |error| format!(" (last failure: {error})"));
        let error = Error::DeadlineExceeded {
            what: format!("delivery to topic {topic} partition {partition}{why}").into(),
            within: *delivery_timeout,
            outcome_unknown: unknown,
        };
        self.in_flight -= usize::from(batch.in_flight);
        self.mend_line_behind(0, !unknown);
        self.resolve(0, Err(error), out);
    }

    /// The batch at `index` is about to leave without being stored.
    fn mend_line_behind(&mut self, index: usize, certain: bool) {
        let batch = &self.batches[index];
        let (Some(sequence), true) = (batch.sequence, self.settings.idempotent) else {
            return;
        };
        let is_last_sent = self.batches.get(index + 1).is_none_or(|next| next.sequence.is_none());
        if certain && is_last_sent && self.broken.is_none() {
            // Every attempt was answered, so no copy of it is on its way: its sequence is free again.
            self.line.next = sequence;
        } else {
            self.break_from(batch.key, certain);
        }
    }

    fn break_from(&mut self, from: BatchKey, certain: bool) {
        let first = Break { from, certain };
        self.broken = Some(match self.broken {
            Some(broken) if broken.from <= from => broken,
            _ => first,
        });
    }

    fn retry_later(&mut self, error: &Error) {
        let (asked, needed) = match self.phase {
            Phase::Draining { server_asks, needs_map } => (server_asks, needs_map),
            _ => (Duration::ZERO, false),
        };
        let needs_map = needed || error.wants_refresh();
        self.phase = Phase::Draining { server_asks: asked.max(error.retry_after()), needs_map };
    }

    fn resolve(&mut self, index: usize, result: Result<Stored>, out: &mut Vec<Resolved<P>>) {
        if let Some(batch) = self.batches.remove(index) {
            out.push(Resolved { payload: batch.payload, result });
        }
    }

    /// Takes every step that needs nothing but time.
    fn settle(&mut self, now: Instant, out: &mut Vec<Resolved<P>>) {
        if let Phase::Draining { server_asks, needs_map } = self.phase
            && self.in_flight == 0
        {
            self.failures = self.failures.saturating_add(1);
            let jitter = self.randomness.fraction();
            let mut wait = match needs_map {
                true => backoff::wait_for_map(self.failures, jitter, server_asks),
                false => backoff::wait_after(self.failures, jitter, server_asks),
            };
            if self.failures == 1 && needs_map && server_asks.is_zero() {
                // A new map is all that is missing.
                wait = Duration::ZERO;
            }
            self.wants_map |= needs_map;
            self.phase = Phase::Waiting { until: now + wait, map_until: needs_map.then(|| now + MAP_WAIT_MAX) };
        }
        let starts_new_line =
            |broken: &Break| self.in_flight == 0 && self.batches.front().is_none_or(|front| front.key >= broken.from);
        if let Some(broken) = self.broken.filter(starts_new_line) {
            self.start_new_line(broken, out);
        }
        if let Phase::Waiting { until, map_until } = self.phase
            && until <= now
            && map_until.is_none_or(|map_until| map_until <= now)
        {
            self.phase = Phase::Flowing;
        }
    }

    fn start_new_line(&mut self, broken: Break, out: &mut Vec<Resolved<P>>) {
        // Behind a batch that is certainly not stored, nothing is: the run of doubtful ones ends there.
        while !broken.certain && self.batches.front().is_some_and(|front| front.maybe_stored) {
            let reason = self.batches[0].last_error.take().unwrap_or_else(|| self.forgotten());
            let error = self.outcome_unknown(&reason);
            self.resolve(0, Err(error), out);
        }
        for batch in &mut self.batches {
            (batch.sequence, batch.maybe_stored) = (None, false);
        }
        self.line = Line::new(&mut self.randomness, self.settings.idempotent);
        self.broken = None;
    }

    fn forgotten(&self) -> Error {
        Error::broker(ErrorCode::UnknownProducer, self.settings.topic.clone())
    }

    fn outcome_unknown(&self, reason: &Error) -> Error {
        Error::OutcomeUnknown {
            topic: self.settings.topic.clone(),
            partition: self.settings.partition,
            reason: reason.to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests;
