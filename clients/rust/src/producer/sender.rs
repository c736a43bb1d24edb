//! The sender of a producer: one task that owns every partition's queue, and decides nothing itself.
//!
//! It waits for records that were gathered, for answers, for connections, for a newer map and for time, tells the
//! queues, and does what they say: seal a batch, send it, complete its deliveries. A record's way: `intake` gathers it
//! → [`Sender::take_batches`] → sealing → [`Sender::send_ready`] → the connection → [`Event::Answered`] → the queue →
//! [`Sender::finish`] → its delivery future.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use minikafka_core::{Partition, PartitionKey};
use tokio::sync::{Semaphore, mpsc};

use super::delivery::Completion;
use super::gathering::OpenBatch;
use super::intake::Intake;
use super::queue::{Attempt, BatchKey, PartitionQueue, QueueSettings, Resolved, Stored};
use super::sealing::{LARGE_BODY_BYTES, SealedBatch, compress, seal};
use super::unresolved::Ticket;
use crate::client::ClientShared;
use crate::error::{Error, Result};

mod dispatch;

/// Events taken before timers and new records are looked at again.
const EVENTS_PER_TURN: usize = 64;

/// What the sender's own tasks tell it. Bounded by what is in flight: one for each batch, address and refresh.
#[derive(Debug)]
enum Event {
    /// An attempt was answered, or failed.
    Answered { partition: Partition, attempt: Attempt, answer: Result<Stored> },
    /// A batch was compressed.
    Sealed { partition: Partition, key: BatchKey, sealed: SealedBatch },
    /// An address can take requests again, or cannot be reached.
    Reachable { address: Arc<str>, outcome: Result<()> },
    /// A map refresh has ended, well or not.
    MapRefreshed,
}

/// A batch that has left its gathering.
#[derive(Debug)]
struct Batch {
    completion: Arc<Completion>,
    ticket: Ticket,
    charged_bytes: usize,
    /// None while it is being compressed.
    sealed: Option<SealedBatch>,
}

/// One partition as its sender sees it.
#[derive(Debug)]
struct Lane {
    queue: PartitionQueue<Batch>,
    /// Waits for an address, among those in `parked`.
    is_parked: bool,
    waits_for_map: bool,
    /// The map by which the last attempt was addressed.
    map_version: u64,
    timer: Option<Instant>,
}

/// See the module's description.
pub(super) struct Sender {
    client: Arc<ClientShared>,
    intake: Arc<Intake>,
    lanes: Vec<Lane>,
    timers: BTreeSet<(Instant, Partition)>,
    parked: HashMap<Arc<str>, Vec<Partition>>,
    is_refreshing: bool,
    /// The flushes and waits that had begun, and whether the producer was closed, when all partitions were last looked
    /// at for batches that must not linger any more.
    hurries: ((u64, u64), bool),
    compressors: Arc<Semaphore>,
    events: mpsc::UnboundedReceiver<Event>,
    event_sender: mpsc::UnboundedSender<Event>,
    resolved: Vec<Resolved<Batch>>,
}

impl Sender {
    pub(super) fn new(client: Arc<ClientShared>, intake: Arc<Intake>) -> Self {
        let seed: u64 = rand::random();
        let lane = |partition: u32| Lane {
            queue: PartitionQueue::new(QueueSettings {
                topic: intake.topic.name.as_str().into(),
                partition: Partition(partition),
                idempotent: intake.options.idempotent,
                in_flight_max: if intake.options.idempotent { intake.options.in_flight_max as usize } else { 1 },
                delivery_timeout: intake.options.delivery_timeout,
                // Far apart, so that the ids of two partitions do not meet.
                seed: seed ^ u64::from(partition) << 32,
            }),
            is_parked: false,
            waits_for_map: false,
            map_version: 0,
            timer: None,
        };
        let (event_sender, events) = mpsc::unbounded_channel();
        let compressors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            lanes: (0..intake.topic.partitions).map(lane).collect(),
            client,
            intake,
            timers: BTreeSet::new(),
            parked: HashMap::new(),
            is_refreshing: false,
            hurries: ((0, 0), false),
            compressors: Arc::new(Semaphore::new(compressors)),
            events,
            event_sender,
            resolved: Vec::new(),
        }
    }

    /// Runs until the producer is closed and everything it accepted is resolved.
    pub(super) async fn run(mut self) {
        let intake = self.intake.clone();
        let mut announced = Vec::new();
        loop {
            // Read before everything else: once every partition was looked at after a close, nothing can come in.
            let is_closed = intake.is_closed();
            intake.take_announced(&mut announced);
            let now = Instant::now();
            announced.drain(..).for_each(|partition| self.pump(partition, now));
            self.stop_lingering(is_closed, now);
            self.fire_timers(now);
            if is_closed && intake.unresolved.is_empty() {
                return;
            }
            let next_timer = self.timers.first().map(|(at, _)| (*at).into());
            tokio::select! {
                Some(event) = self.events.recv() => self.take_events(event),
                () = intake.woken() => {}
                () = tokio::time::sleep_until(next_timer.unwrap_or_else(tokio::time::Instant::now)),
                    if next_timer.is_some() => {}
            }
        }
    }

    fn take_events(&mut self, first: Event) {
        let now = Instant::now();
        self.take_event(first, now);
        for _ in 1..EVENTS_PER_TURN {
            let Ok(event) = self.events.try_recv() else { return };
            self.take_event(event, now);
        }
    }

    fn take_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Answered { partition, attempt, answer } => {
                let lane = &mut self.lanes[partition.0 as usize];
                lane.queue.answered(now, &attempt, answer, &mut self.resolved);
                self.pump(partition, now);
            }
            Event::Sealed { partition, key, sealed } => {
                if let Some(batch) = self.lanes[partition.0 as usize].queue.get_mut(key) {
                    batch.sealed = Some(sealed);
                }
                self.pump(partition, now);
            }
            Event::Reachable { address, outcome } => {
                for partition in self.parked.remove(&address).unwrap_or_default() {
                    let lane = &mut self.lanes[partition.0 as usize];
                    lane.is_parked = false;
                    if let Err(error) = &outcome {
                        lane.queue.could_not_send(now, error.clone(), &mut self.resolved);
                    }
                    self.pump(partition, now);
                }
            }
            Event::MapRefreshed => {
                self.is_refreshing = false;
                for partition in (0..self.lanes.len() as u32).map(Partition) {
                    let lane = &mut self.lanes[partition.0 as usize];
                    if std::mem::take(&mut lane.waits_for_map) {
                        lane.queue.map_refreshed(now, &mut self.resolved);
                        self.pump(partition, now);
                    }
                }
            }
        }
    }

    /// When a flush, a close or a caller that waits for memory has begun, every batch may have become due.
    fn stop_lingering(&mut self, is_closed: bool, now: Instant) {
        let hurries = (self.intake.hurries(), is_closed);
        if hurries != self.hurries {
            self.hurries = hurries;
            (0..self.lanes.len() as u32).for_each(|partition| self.pump(Partition(partition), now));
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(&(at, partition)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            self.lanes[partition.0 as usize].timer = None;
            self.pump(partition, now);
        }
    }

    /// Does everything for one partition that can be done now.
    fn pump(&mut self, partition: Partition, now: Instant) {
        self.lanes[partition.0 as usize].queue.tick(now, &mut self.resolved);
        self.take_full_batches(partition);
        loop {
            self.send_ready(partition, now);
            if !self.take_due_batch(partition, now) && !self.follow_map(partition, now) {
                break;
            }
        }
        self.finish();
        self.set_timer(partition);
    }

    /// Full batches enter the queue whether or not they can be sent, so that their deadlines count.
    fn take_full_batches(&mut self, partition: Partition) {
        let intake = self.intake.clone();
        intake.gathering(partition).looked_at();
        loop {
            let Some(full) = intake.gathering(partition).take_full() else { return };
            self.enqueue(partition, full);
        }
    }

    /// The batch that is being filled leaves when it would be sent at once and need not linger. While the queue cannot
    /// send, it rather goes on filling.
    fn take_due_batch(&mut self, partition: Partition, now: Instant) -> bool {
        let intake = self.intake.clone();
        let lane = &self.lanes[partition.0 as usize];
        if lane.is_parked || !lane.queue.would_send() {
            return false;
        }
        let is_idle = intake.options.send_when_idle && lane.queue.is_empty();
        let lingered = |batch: &OpenBatch| now.saturating_duration_since(batch.opened_at) >= intake.options.linger;
        let is_due = |batch: &OpenBatch| is_idle || lingered(batch) || !intake.may_linger(batch);
        let due = intake.gathering(partition).take_next(is_due);
        match due {
            Some(batch) => {
                intake.sticky.batch_left(partition, batch.builder.body_bytes(), now);
                self.enqueue(partition, batch);
                true
            }
            None => false,
        }
    }

    fn enqueue(&mut self, partition: Partition, open: OpenBatch) {
        let OpenBatch { builder, completion, ticket, opened_at, charged_bytes } = open;
        let intake = &self.intake;
        let finished = intake.recycler.finish(builder);
        let (codec, zstd_level) = (intake.options.codec, intake.options.zstd_level);
        let partition_key = PartitionKey { topic: intake.topic.topic, partition };
        let record_count = finished.record_count;
        let is_slow = codec != minikafka_core::entry::Codec::None && finished.body.len() >= LARGE_BODY_BYTES;
        let lane = &mut self.lanes[partition.0 as usize];
        let deadline = opened_at + intake.options.delivery_timeout;
        let mut batch = Batch { completion, ticket, charged_bytes, sealed: None };
        if !is_slow {
            batch.sealed = Some(seal(compress(finished, codec, zstd_level), partition_key));
            lane.queue.push(batch, record_count, deadline);
            return;
        }
        let key = lane.queue.push(batch, record_count, deadline);
        let (events, compressors) = (self.event_sender.clone(), self.compressors.clone());
        tokio::spawn(async move {
            // At most one compression for each core; the semaphore is never closed.
            let _turn = compressors.acquire().await;
            let sealing = move || seal(compress(finished, codec, zstd_level), partition_key);
            if let Ok(sealed) = tokio::task::spawn_blocking(sealing).await {
                let _ = events.send(Event::Sealed { partition, key, sealed });
            }
        });
    }

    /// Completes what the queues have resolved.
    fn finish(&mut self) {
        for Resolved { payload: batch, result } in self.resolved.drain(..) {
            self.intake.release(batch.charged_bytes);
            self.intake.unresolved.resolve(batch.ticket, result.as_ref().err());
            batch.completion.complete(result);
            if let Some(sealed) = batch.sealed {
                self.intake.recycler.take_back(sealed.body);
            }
        }
    }

    fn set_timer(&mut self, partition: Partition) {
        let lane = &mut self.lanes[partition.0 as usize];
        let linger_until =
            self.intake.gathering(partition).opened_at().map(|opened_at| opened_at + self.intake.options.linger);
        // A batch that has lingered and could not be sent waits for the queue, not for time.
        let lingering = linger_until.filter(|_| !lane.is_parked && lane.queue.would_send());
        let timer = lane.queue.wake_at().into_iter().chain(lingering).min();
        if timer != lane.timer {
            if let Some(old) = lane.timer {
                self.timers.remove(&(old, partition));
            }
            self.timers.extend(timer.map(|at| (at, partition)));
            lane.timer = timer;
        }
    }
}

impl Drop for Sender {
    /// The sender ends after a close, or with its runtime: then nobody must wait for what cannot happen any more.
    fn drop(&mut self) {
        self.intake.end();
        self.finish();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let mut gathering = self.intake.gathering(Partition(number as u32));
            let gathered = std::iter::from_fn(|| gathering.take_next(|_| true));
            let gathered = gathered.map(|batch| (batch.completion, batch.ticket));
            for (completion, ticket) in lane.queue.drain().map(|batch| (batch.completion, batch.ticket)).chain(gathered)
            {
                let error = Error::Closed("producer");
                self.intake.unresolved.resolve(ticket, Some(&error));
                completion.complete(Err(error));
            }
        }
    }
}
