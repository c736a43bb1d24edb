//! The interpreter of `core::chain::controller`, run by the elected gateway, and the driver of topics.
//!
//! It decides nothing: records and brokers go into the machines, compare-and-sets and messages come out, and each ends
//! as one task whose result goes back in. Everything it needs after a restart is in the coordinator.

mod operation_driver;
mod topic_driver;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use minikafka_core::chain::controller::{
    Answer, CasOutcome, ChunkController, ControllerSettings, Destination, Input, Message, Output,
};
use minikafka_core::chain::peer::Complaint;
use minikafka_core::coordination::{
    BrokerRecord, CoordinationError, KeyLife, KeyVersion, RangeRecord, RingChunk, path,
};
use minikafka_core::wire::Api;
use minikafka_core::*;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::gateway::Shared;
use crate::links::LinkError;
use crate::map::ClusterMap;
use operation_driver::OperationDriver;
use topic_driver::ControlRefusal;

/// Replication and number of a chunk.
type ChunkKey = (u16, u32);

/// Refused control entries that wait to be told to the machines; more are dropped, because they come again.
const REFUSALS_MAX: usize = 1024;
/// Complaints that wait to be told to the machines; more are dropped, because they are hints.
const COMPLAINTS_WAITING_MAX: usize = limits::COMPLAINTS_WAITING_MAX;

/// Runs until dropped: when the election is lost, or the gateway stops.
pub(crate) async fn run(shared: Arc<Shared>, writer: WriterId) {
    let (refusals, mut refused) = mpsc::channel(REFUSALS_MAX);
    let (complaints, mut complained) = mpsc::channel(COMPLAINTS_WAITING_MAX);
    shared.complaints.lock().unwrap_or_else(PoisonError::into_inner).replace(complaints);
    let mut map = shared.map.subscribe();
    let mut controller = Controller {
        shared,
        writer,
        began: Instant::now(),
        machines: BTreeMap::new(),
        creating: BTreeSet::new(),
        topics: BTreeSet::new(),
        operations: OperationDriver::default(),
        brokers: None,
        aligned: None,
        tasks: JoinSet::new(),
        refusals,
    };
    loop {
        let now = map.borrow_and_update().clone();
        controller.align(&now);
        let due = controller.next_deadline();
        tokio::select! {
            changed = map.changed() => if changed.is_err() { return },
            Some(done) = controller.tasks.join_next() => controller.task_done(done),
            Some(complaint) = complained.recv() => controller.complained(complaint, &mut complained),
            Some(refusal) = refused.recv() => controller.control_refused(&refusal),
            () = tokio::time::sleep_until(due) => controller.tick(),
        }
    }
}

/// What a task brings back.
enum Done {
    Input(ChunkKey, Box<Input>),
    /// A chunk was created, or is there already.
    Created(ChunkKey),
    /// A topic is ready, gone, or somebody else's.
    Topic(TopicId),
    /// How far an operation is was written, or read.
    Operation(OperationId),
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.shared.alerts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.learners.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.complaints.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

struct Controller {
    shared: Arc<Shared>,
    writer: WriterId,
    /// The machines' time begins here.
    began: Instant,
    machines: BTreeMap<ChunkKey, ChunkController>,
    /// Chunks that are being created.
    creating: BTreeSet<ChunkKey>,
    /// Topics that are being opened or deleted.
    topics: BTreeSet<TopicId>,
    /// What operators want.
    operations: OperationDriver,
    /// The brokers that the machines know.
    brokers: Option<BTreeMap<NodeId, BrokerRecord>>,
    /// The map that all this was last brought in line with.
    aligned: Option<Arc<ClusterMap>>,
    tasks: JoinSet<Done>,
    refusals: mpsc::Sender<ControlRefusal>,
}

impl Controller {
    /// Brings everything in line with the map: rings that are needed, machines of their chunks, topics and operations in work.
    fn align(&mut self, map: &Arc<ClusterMap>) {
        let is_aligned = self.aligned.as_ref().is_some_and(|aligned| Arc::ptr_eq(aligned, map));
        if is_aligned && !self.operations.is_due() {
            return;
        }
        self.aligned = Some(map.clone());
        if self.brokers.as_ref() != Some(&map.brokers) {
            self.shared.links.retain(&map.brokers);
            self.brokers = Some(map.brokers.clone());
            for key in self.machines.keys().copied().collect::<Vec<_>>() {
                self.step(key, Input::Brokers(map.brokers.values().cloned().collect()));
            }
        }
        for (&key, chunk) in &map.chunks {
            if !self.machines.contains_key(&key) {
                self.machines.insert(key, ChunkController::new(self.writer, ControllerSettings::default()));
                self.step(key, Input::Draining(self.operations.draining.clone()));
                self.step(key, Input::Brokers(map.brokers.values().cloned().collect()));
            }
            if self.machines[&key].version().is_some_and(|known| known < chunk.version) {
                self.step(key, Input::ChunkRead { chunk: chunk.record.clone(), version: chunk.version });
            }
        }
        self.create_rings(map);
        self.drive_topics(map);
        self.drive_operations(map);
    }

    /// Rings of the cluster's own replication, of the default one, and of every topic's.
    fn create_rings(&mut self, map: &ClusterMap) {
        let topics = map.buckets.values().flat_map(|bucket| bucket.record.topics.values());
        let mut wanted: BTreeSet<u16> = topics.map(|topic| topic.ring.0).collect();
        wanted.extend([self.shared.cluster.internal_replication, self.shared.default_replication()]);
        for replication in wanted {
            let total = map.ranges_total(replication).unwrap_or(self.shared.config.ranges);
            for chunk in 0..total.div_ceil(limits::RANGES_PER_CHUNK) {
                let key = (replication, chunk);
                if !map.chunks.contains_key(&key) && self.creating.insert(key) {
                    self.tasks.spawn(create_chunk(self.shared.clone(), key, total));
                }
            }
        }
    }

    fn drive_topics(&mut self, map: &ClusterMap) {
        for (name, topic) in map.unsettled() {
            if self.topics.len() >= limits::TOPICS_IN_WORK_MAX {
                return;
            }
            if self.topics.insert(topic.topic) {
                let (shared, refusals) = (self.shared.clone(), self.refusals.clone());
                let (name, topic) = (name.to_owned(), topic.topic);
                self.tasks.spawn(async move {
                    topic_driver::settle(&shared, &name, topic, &refusals).await;
                    Done::Topic(topic)
                });
            }
        }
    }

    fn task_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Input(key, input)) => self.step(key, *input),
            Ok(Done::Created(key)) => {
                self.creating.remove(&key);
                self.aligned = None;
            }
            Ok(Done::Topic(topic)) => {
                self.topics.remove(&topic);
                self.aligned = None;
            }
            Ok(Done::Operation(operation)) => self.operation_written(operation),
            // A task that panicked is a defect of ours; what it owed to a machine will never come.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn control_refused(&mut self, refusal: &ControlRefusal) {
        let key = (refusal.range.ring.0, refusal.range.range.0 / limits::RANGES_PER_CHUNK);
        self.step(key, Input::ControlRefused { range: refusal.range.range, epoch: refusal.epoch });
    }

    /// Takes all complaints that are there, so that what broke together is changed together.
    fn complained(&mut self, first: Complaint, others: &mut mpsc::Receiver<Complaint>) {
        let mut by_chunk: BTreeMap<ChunkKey, Vec<Complaint>> = BTreeMap::new();
        let others = std::iter::from_fn(|| others.try_recv().ok());
        for complaint in std::iter::once(first).chain(others).take(COMPLAINTS_WAITING_MAX) {
            let Complaint { range, epoch, by, about, reason } = complaint;
            tracing::debug!(%range, %epoch, %by, %about, ?reason, "a member complains about its chain");
            by_chunk.entry((range.ring.0, range.range.0 / limits::RANGES_PER_CHUNK)).or_default().push(complaint);
        }
        for (key, complaints) in by_chunk {
            self.step(key, Input::Complaints(complaints));
        }
    }

    fn tick(&mut self) {
        for key in self.machines.keys().copied().collect::<Vec<_>>() {
            self.step(key, Input::Tick);
        }
    }

    fn next_deadline(&self) -> Instant {
        // Without a deadline of its own it wakes now and then; nothing depends on that.
        const LONG: u64 = 60_000;
        let due = self.machines.values().filter_map(ChunkController::next_deadline_ms).min();
        let due = self.began + Duration::from_millis(due.unwrap_or(u64::MAX).min(self.now_ms() + LONG));
        self.operations.due.map_or(due, |operations| operations.min(due))
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn step(&mut self, key: ChunkKey, input: Input) {
        let now_ms = self.now_ms();
        let Some(machine) = self.machines.get_mut(&key) else { return };
        for output in machine.step(now_ms, input) {
            match output {
                Output::ReadChunk => drop(self.tasks.spawn(read_chunk(self.shared.clone(), key))),
                Output::Cas { chunk, version } => {
                    drop(self.tasks.spawn(compare_and_set(self.shared.clone(), key, chunk, version)));
                }
                Output::Send { to, message } => {
                    self.shared.actions.count_message(&message);
                    let broker = self.brokers.as_ref().and_then(|brokers| brokers.get(&to.node)).cloned();
                    drop(self.tasks.spawn(send(self.shared.clone(), key, broker, to, message)));
                }
                Output::Alert(alert) => tracing::warn!(
                    ring = alert.ring.0,
                    ranges = alert.ranges.len(),
                    first = alert.ranges.first().map(|range| range.0),
                    "ranges wait: {}",
                    alert.reason
                ),
            }
        }
        let alerts = self.machines.get(&key).map(ChunkController::alerts).unwrap_or_default();
        self.shared.alerts.lock().unwrap_or_else(PoisonError::into_inner).insert(key, alerts);
        let learners = self.machines.get(&key).map(ChunkController::learners).unwrap_or_default();
        self.shared.learners.lock().unwrap_or_else(PoisonError::into_inner).insert(key, learners);
    }
}

/// Creates a chunk without chains; its machine does the rest.
async fn create_chunk(shared: Arc<Shared>, key: ChunkKey, ranges_total: u32) -> Done {
    let (replication, number) = key;
    let first = number * limits::RANGES_PER_CHUNK;
    let ranges = limits::RANGES_PER_CHUNK.min(ranges_total - first);
    let chunk = RingChunk {
        ring: RingId(replication),
        replication,
        ranges_total,
        first: RangeId(first),
        ranges: vec![RangeRecord::default(); ranges as usize],
    };
    let path = path::ring_chunk(replication, number);
    let mut backoff = Backoff::default();
    loop {
        match shared.client.create(&path, &chunk, KeyLife::Persistent).await {
            Ok((_, version)) => {
                shared.map.set_chunk(replication, number, chunk, version);
                return Done::Created(key);
            }
            Err(CoordinationError::Exists { .. }) => {
                if let Ok(Some((chunk, version))) = shared.client.read(&path).await {
                    shared.map.set_chunk(replication, number, chunk, version);
                    return Done::Created(key);
                }
            }
            Err(error) => tracing::warn!(%path, %error, "cannot create a ring"),
        }
        backoff.wait().await;
    }
}

/// Reads until it can be read.
async fn read_chunk(shared: Arc<Shared>, key: ChunkKey) -> Done {
    let path = path::ring_chunk(key.0, key.1);
    let mut backoff = Backoff::default();
    loop {
        match shared.client.read::<RingChunk>(&path).await {
            Ok(Some((chunk, version))) => {
                shared.map.set_chunk(key.0, key.1, chunk.clone(), version);
                return Done::Input(key, Box::new(Input::ChunkRead { chunk, version }));
            }
            Ok(None) => tracing::error!(%path, "the record of a ring is gone; restore the coordinator"),
            Err(error) => tracing::warn!(%path, %error, "cannot read a ring"),
        }
        backoff.wait().await;
    }
}

async fn compare_and_set(shared: Arc<Shared>, key: ChunkKey, chunk: RingChunk, version: KeyVersion) -> Done {
    let path = path::ring_chunk(key.0, key.1);
    let outcome = match shared.client.compare_and_set(&path, &chunk, version).await {
        Ok(version) => {
            shared.map.set_chunk(key.0, key.1, chunk, version);
            CasOutcome::Won(version)
        }
        Err(CoordinationError::Unknown { .. }) => CasOutcome::Unknown,
        Err(error) => {
            tracing::debug!(%path, %error, "a change of a ring was not made");
            CasOutcome::Conflict
        }
    };
    shared.actions.count_cas(&outcome);
    Done::Input(key, Box::new(Input::CasDone(outcome)))
}

async fn send(
    shared: Arc<Shared>,
    key: ChunkKey,
    broker: Option<BrokerRecord>,
    to: Destination,
    message: Message,
) -> Done {
    let answer = match &broker {
        Some(broker) => ask(&shared, broker, to.shard, &message).await.unwrap_or_else(|error| {
            tracing::debug!(node = to.node.0, shard = to.shard.0, %error, "a shard did not answer");
            Answer::Lost
        }),
        None => Answer::Lost,
    };
    Done::Input(key, Box::new(Input::Answered { to, message, answer }))
}

async fn ask(shared: &Shared, broker: &BrokerRecord, shard: ShardId, message: &Message) -> Result<Answer, LinkError> {
    let links = &shared.links;
    let wait = Duration::from_millis;
    Ok(match message {
        Message::Seal(request) => {
            Answer::Seal(links.call(broker, shard, Api::Seal, request, wait(limits::SEAL_WAIT_MS)).await?)
        }
        Message::Reconcile(request) => {
            // Not for all of the copying: it is asked again, and tells how far it is.
            let wait = wait(limits::RECONCILE_ANSWER_WAIT_MS);
            Answer::Ranges(links.call(broker, shard, Api::Reconcile, request, wait).await?)
        }
        Message::Activate(request) => {
            Answer::Ranges(links.call(broker, shard, Api::Activate, request, wait(limits::ACTIVATE_WAIT_MS)).await?)
        }
        Message::Learn(request) => {
            let wait = wait(limits::LEARN_ANSWER_WAIT_MS);
            Answer::Learn(links.call(broker, shard, Api::Learn, request, wait).await?)
        }
    })
}
