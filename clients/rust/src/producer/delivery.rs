//! Telling many waiters that one batch is stored.
//!
//! A record's [`DeliveryFuture`] is a handle on its batch and a number: making one costs a reference count, and nothing
//! is allocated until somebody waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use minikafka_core::{Offset, Partition, Timestamp};

use super::queue::Stored;
use crate::error::Result;
use crate::explain::Explain;

/// Where a record was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its partition.
    pub partition: Partition,
    /// Its offset. None: it is stored, but the broker no longer remembers where (`duplicate_sequence`).
    pub offset: Option<Offset>,
    /// The head's clock when it accepted the record. None: as for the offset.
    pub append_timestamp: Option<Timestamp>,
    /// Where the time of its batch went; the same for all records of it. None: nobody asked ([`super::ProducerOptions`]), the
    /// broker is of a release that cannot tell, or the batch is stored where nobody remembers.
    pub explain: Option<Arc<Explain>>,
}

/// Where a run of records was stored: their offsets follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredRun {
    /// The first record.
    pub first: Delivery,
    /// How many records.
    pub record_count: u32,
}

/// Resolves when the record is stored on every member of its chain, or has failed for good. Dropping it does not take
/// the record back.
#[derive(Debug)]
#[must_use = "a record may fail after it was accepted; await its delivery, or flush"]
pub struct DeliveryFuture {
    run: Run,
    slot: Option<u32>,
}

/// Resolves when all records of one `send_batch` are stored, to where they are: one run for each batch they went into,
/// in order; or to the first failure.
#[derive(Debug)]
#[must_use = "records may fail after they were accepted; await their delivery, or flush"]
pub struct BatchDelivery {
    waiting: std::vec::IntoIter<Run>,
    current: Option<(Run, Option<u32>)>,
    delivered: Vec<DeliveredRun>,
}

/// Records that follow each other in one batch.
#[derive(Debug)]
pub(super) struct Run {
    pub completion: Arc<Completion>,
    /// The first one, relative to the batch.
    pub first: u32,
    pub record_count: u32,
}

/// The end of one batch, awaited by all who sent a record in it.
#[derive(Debug)]
pub(super) struct Completion {
    partition: Partition,
    outcome: OnceLock<Result<Stored>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Completion {
    pub(super) fn new(partition: Partition) -> Arc<Self> {
        Arc::new(Self { partition, outcome: OnceLock::new(), wakers: Mutex::default() })
    }

    /// Says how the batch ended. Only the first time counts.
    pub(super) fn complete(&self, outcome: Result<Stored>) {
        // Set before the wakers are taken: who registers later sees it.
        let _ = self.outcome.set(outcome);
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, slot: &mut Option<u32>, context: &mut Context<'_>) -> Poll<&Result<Stored>> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        match slot.and_then(|slot| wakers.get_mut(slot as usize)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                *slot = Some(wakers.len() as u32);
                wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Run {
    fn delivered(&self, stored: &Stored) -> DeliveredRun {
        let offset = stored.base_offset.map(|base| Offset(base.0 + u64::from(self.first)));
        let partition = self.completion.partition;
        let explain = stored.explain.clone();
        let first = Delivery { partition, offset, append_timestamp: stored.append_timestamp, explain };
        DeliveredRun { first, record_count: self.record_count }
    }
}

impl DeliveryFuture {
    pub(super) fn new(completion: Arc<Completion>, relative: u32) -> Self {
        Self { run: Run { completion, first: relative, record_count: 1 }, slot: None }
    }

    /// The partition that the record goes to.
    pub fn partition(&self) -> Partition {
        self.run.completion.partition
    }
}

impl Future for DeliveryFuture {
    type Output = Result<Delivery>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outcome = ready!(this.run.completion.poll(&mut this.slot, context));
        Poll::Ready(outcome.as_ref().map(|stored| this.run.delivered(stored).first).map_err(Clone::clone))
    }
}

impl BatchDelivery {
    pub(super) fn new(runs: Vec<Run>) -> Self {
        let delivered = Vec::with_capacity(runs.len());
        let mut waiting = runs.into_iter();
        let current = waiting.next().map(|run| (run, None));
        Self { waiting, current, delivered }
    }
}

impl Future for BatchDelivery {
    type Output = Result<Vec<DeliveredRun>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        while let Some((run, slot)) = &mut this.current {
            match ready!(run.completion.poll(slot, context)) {
                Ok(stored) => this.delivered.push(run.delivered(stored)),
                Err(error) => return Poll::Ready(Err(error.clone())),
            }
            this.current = this.waiting.next().map(|run| (run, None));
        }
        Poll::Ready(Ok(std::mem::take(&mut this.delivered)))
    }
}
