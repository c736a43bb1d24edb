//! Where records come in: memory, choice of the partition, and the batch being filled. Shared by all handles of a
//! producer and its sender.
//!
//! A record takes one lock, that of its partition, and one step on the memory's counter. The sender hears of a batch
//! when it is opened and when it is full, not of records.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use minikafka_core::batch::RecordRef;
use minikafka_core::checksum::partition_of_key;
use minikafka_core::wire::TopicDescription;
use minikafka_core::{Partition, Timestamp};
use tokio::sync::{Notify, Semaphore, TryAcquireError};

use super::ProducerRecord;
use super::delivery::{DeliveryFuture, Run};
use super::gathering::{BatchSource, Gathered, Gathering, OpenBatch};
use super::options::ProducerOptions;
use super::sealing::Recycler;
use super::sticky::Sticky;
use super::unresolved::{Ticket, Unresolved};
use crate::error::{Error, Result};

/// What a record costs of the producer's memory besides its bytes: its places in the columns.
const RECORD_OVERHEAD_BYTES: usize = 24;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Intake {
    pub options: ProducerOptions,
    pub topic: Arc<TopicDescription>,
    pub unresolved: Unresolved,
    pub recycler: Recycler,
    pub sticky: Sticky,
    partitions: Box<[Mutex<Gathering>]>,
    memory: Semaphore,
    /// Calls that wait for memory: as long as there are any, nothing lingers.
    waiting_for_memory: AtomicU32,
    announced: Mutex<Vec<Partition>>,
    /// Such calls so far.
    waits: AtomicU64,
    /// Batches with tickets below this do not linger.
    flush_before: AtomicU64,
    closed: AtomicBool,
    wake_sender: Notify,
}

impl Intake {
    pub(super) fn new(topic: Arc<TopicDescription>, options: ProducerOptions) -> Self {
        let now = Instant::now();
        Self {
            unresolved: Unresolved::default(),
            recycler: Recycler::new(options.batch_bytes_max),
            sticky: Sticky::new(topic.partitions, options.batch_bytes_max as usize, now),
            partitions: (0..topic.partitions).map(|_| Mutex::default()).collect(),
            memory: Semaphore::new(options.buffer_bytes_max),
            waiting_for_memory: AtomicU32::new(0),
            waits: AtomicU64::new(0),
            announced: Mutex::default(),
            flush_before: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            wake_sender: Notify::new(),
            topic,
            options,
        }
    }

    /// Takes a record, waiting for memory.
    pub(super) async fn send(&self, record: &ProducerRecord<'_>) -> Result<DeliveryFuture> {
        let cost = self.cost_of(record)?;
        if !self.try_reserve(cost)? {
            self.reserve(cost).await?;
        }
        self.push(record, cost)
    }

    /// Takes a record if there is memory for it.
    pub(super) fn try_send(&self, record: &ProducerRecord<'_>) -> Result<DeliveryFuture> {
        let cost = self.cost_of(record)?;
        if !self.try_reserve(cost)? {
            return Err(Error::BufferFull);
        }
        self.push(record, cost)
    }

    /// Takes records of one partition as long as there is memory, at least `first`; returns the one that found none.
    pub(super) async fn send_run<'a>(
        &self,
        partition: Partition,
        first: ProducerRecord<'a>,
        rest: &mut impl Iterator<Item = ProducerRecord<'a>>,
        runs: &mut Vec<Run>,
    ) -> Result<Option<ProducerRecord<'a>>> {
        let cost = self.cost_of(&first)?;
        if !self.try_reserve(cost)? {
            self.reserve(cost).await?;
        }
        self.push_run(partition, (first, cost), rest, runs)
    }

    fn push(&self, record: &ProducerRecord<'_>, cost: usize) -> Result<DeliveryFuture> {
        let result = self.choose(record).and_then(|partition| {
            let mut gathering = self.open_gathering(partition)?;
            let gathered = gathering.push(record_ref(record, None), cost, &self.source(partition))?;
            drop(gathering);
            if gathered.full_bytes > 0 {
                self.sticky.batch_left(partition, gathered.full_bytes, Instant::now());
            }
            if gathered.announce {
                self.announce(partition);
            }
            Ok(DeliveryFuture::new(gathered.completion, gathered.relative))
        });
        if result.is_err() {
            self.memory.add_permits(cost);
        }
        result
    }

    /// Under one lock: at most until a batch is full, so that the sender is not kept out.
    fn push_run<'a>(
        &self,
        partition: Partition,
        first: (ProducerRecord<'a>, usize),
        rest: &mut impl Iterator<Item = ProducerRecord<'a>>,
        runs: &mut Vec<Run>,
    ) -> Result<Option<ProducerRecord<'a>>> {
        let now = now();
        let source = self.source(partition);
        let mut gathering = self.open_gathering(partition).inspect_err(|_| self.memory.add_permits(first.1))?;
        let (mut announce, mut full_bytes) = (false, 0);
        let (mut record, mut cost) = first;
        let result = loop {
            let gathered = match gathering.push(record_ref(&record, Some(now)), cost, &source) {
                Ok(gathered) => gathered,
                Err(error) => {
                    self.memory.add_permits(cost);
                    break Err(error);
                }
            };
            announce |= gathered.announce;
            full_bytes += gathered.full_bytes;
            let begins_batch = gathered.relative == 0 && !runs.is_empty();
            extend_runs(runs, gathered);
            let Some(next) = rest.next() else { break Ok(None) };
            let reserved = self.cost_of(&next).and_then(|cost| Ok(self.try_reserve(cost)?.then_some(cost)));
            match reserved {
                Ok(Some(reserved)) if !begins_batch => (record, cost) = (next, reserved),
                Ok(reserved) => {
                    self.memory.add_permits(reserved.unwrap_or(0));
                    break Ok(Some(next));
                }
                Err(error) => break Err(error),
            }
        };
        drop(gathering);
        self.sticky.batch_left(partition, full_bytes, Instant::now());
        if announce {
            self.announce(partition);
        }
        result
    }

    /// The partition of a record: as it says, by its key, or the one that is being filled.
    fn choose(&self, record: &ProducerRecord<'_>) -> Result<Partition> {
        match (record.partition, record.key) {
            (Some(partition), _) => self.check(partition),
            (None, Some(key)) => Ok(partition_of_key(key, self.topic.partitions)),
            (None, None) => Ok(self.sticky.current()),
        }
    }

    /// Refuses a partition that the topic does not have.
    pub(super) fn check(&self, partition: Partition) -> Result<Partition> {
        crate::offsets::check_partitions(&self.topic, &[partition]).map(|()| partition)
    }

    fn cost_of(&self, record: &ProducerRecord<'_>) -> Result<usize> {
        let bytes = record_ref(record, Some(Timestamp(0))).record_bytes();
        let cost = bytes + RECORD_OVERHEAD_BYTES;
        if cost > self.options.buffer_bytes_max {
            let bytes_max = (self.options.buffer_bytes_max - RECORD_OVERHEAD_BYTES) as u64;
            return Err(Error::RecordTooLarge { bytes: bytes as u64, bytes_max });
        }
        Ok(cost)
    }

    /// Whether there was memory. Who waits is served first: released memory goes to them before anybody can take it.
    fn try_reserve(&self, cost: usize) -> Result<bool> {
        match self.memory.try_acquire_many(cost as u32) {
            Ok(permits) => {
                permits.forget();
                Ok(true)
            }
            Err(TryAcquireError::NoPermits) => Ok(false),
            Err(TryAcquireError::Closed) => Err(closed()),
        }
    }

    async fn reserve(&self, cost: usize) -> Result<()> {
        struct Waiting<'a>(&'a AtomicU32);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting_for_memory.fetch_add(1, Ordering::Relaxed);
        self.waits.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting_for_memory);
        self.wake_sender.notify_one();
        self.memory.acquire_many(cost as u32).await.map_err(|_| closed())?.forget();
        Ok(())
    }

    /// Records that held so many bytes are resolved.
    pub(super) fn release(&self, bytes: usize) {
        self.memory.add_permits(bytes);
    }

    /// Nothing that was accepted before this call lingers any more; the ticket after the last of it.
    pub(super) fn start_flush(&self) -> Ticket {
        let end = self.unresolved.next();
        self.flush_before.fetch_max(end.0, Ordering::Relaxed);
        self.wake_sender.notify_one();
        end
    }

    /// Takes no further record. The sender goes on until everything accepted is resolved.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake_sender.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The sender is gone: whoever waits for memory would wait forever.
    pub(super) fn end(&self) {
        self.close();
        self.memory.close();
    }

    /// Whether a batch may linger, as far as flushes, waiting callers and a close are concerned.
    pub(super) fn may_linger(&self, batch: &OpenBatch) -> bool {
        batch.ticket.0 >= self.flush_before.load(Ordering::Relaxed)
            && self.waiting_for_memory.load(Ordering::Relaxed) == 0
            && !self.is_closed()
    }

    /// Changes whenever a flush or a wait for memory begins: then batches that lingered may be due.
    pub(super) fn hurries(&self) -> (u64, u64) {
        (self.flush_before.load(Ordering::Relaxed), self.waits.load(Ordering::Relaxed))
    }

    /// Waits until there may be something for the sender to do.
    pub(super) async fn woken(&self) {
        self.wake_sender.notified().await;
    }

    /// Partitions where a batch was opened or has become full since the last call.
    pub(super) fn take_announced(&self, into: &mut Vec<Partition>) {
        std::mem::swap(into, &mut self.announced.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The records of a partition that are not on their way.
    pub(super) fn gathering(&self, partition: Partition) -> MutexGuard<'_, Gathering> {
        self.partitions[partition.0 as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for a new record. Asked under the lock: once the sender has seen every partition after a close, nothing
    /// can come in any more.
    fn open_gathering(&self, partition: Partition) -> Result<MutexGuard<'_, Gathering>> {
        let gathering = self.gathering(partition);
        if self.is_closed() { Err(closed()) } else { Ok(gathering) }
    }

    fn announce(&self, partition: Partition) {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).push(partition);
        self.wake_sender.notify_one();
    }

    fn source(&self, partition: Partition) -> BatchSource<'_> {
        let body_bytes_max = self.topic.config.batch_bytes_max;
        BatchSource {
            partition,
            batch_bytes_max: self.options.batch_bytes_max.min(body_bytes_max),
            body_bytes_max,
            unresolved: &self.unresolved,
            recycler: &self.recycler,
        }
    }
}

fn extend_runs(runs: &mut Vec<Run>, gathered: Gathered) {
    match runs.last_mut() {
        Some(run)
            if Arc::ptr_eq(&run.completion, &gathered.completion)
                && run.first + run.record_count == gathered.relative =>
        {
            run.record_count += 1;
        }
        _ => runs.push(Run { completion: gathered.completion, first: gathered.relative, record_count: 1 }),
    }
}

fn record_ref<'a>(record: &ProducerRecord<'a>, time: Option<Timestamp>) -> RecordRef<'a> {
    let timestamp = record.timestamp.or(time).unwrap_or_else(now);
    RecordRef { key: record.key, value: record.value, timestamp, headers: record.headers }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn closed() -> Error {
    Error::Closed("producer")
}
