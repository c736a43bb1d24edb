//! The queue: `push` and `pull`, for whoever needs no more than that (`docs/CLIENTS.md`, section 5).
//!
//! A topic and a group of the same name. `attendant`, a task, owns the consumer, so that the group is attended to whether or
//! not anybody pulls; it gives a record to whoever pulls, and holds the record's partition until that is acknowledged or
//! given back.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::{ErrorCode, Offset, Partition};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::consumer::{ConsumerRecord, OnDamage};
use crate::error::{Error, Result};
use crate::group::{Acknowledge, GroupConsumerOptions, GroupRecord};
use crate::producer::{Producer, ProducerOptions, ProducerRecord};
use crate::topics::TopicOptions;

mod attendant;

use attendant::{Close, Pull, Settled};

/// Pulls that wait for the attendant; more wait with their callers.
const PULLS_WAITING_MAX: usize = 64;
/// What a callback failed at is given out again after this, at first.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// And at last.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Settings of a [`Queue`]. Each is set by the application.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// The topic, and the group. Default: `queue`.
    pub name: String,
    /// Partitions of the topic, when it is created: as many records can be handled at a time. Default: 8.
    pub partitions: u32,
    /// As [`GroupConsumerOptions::session_timeout`]. Default: 10 s.
    pub session_timeout: Duration,
    /// What was acknowledged is committed this often. Default: 1 s.
    pub commit_interval: Duration,
    /// As [`crate::ConsumerOptions::on_damage`]. Default: the error is returned, once.
    pub on_damage: OnDamage,
}

impl Default for QueueOptions {
    fn default() -> Self {
        let group = GroupConsumerOptions::default();
        Self {
            name: "queue".to_owned(),
            partitions: 8,
            session_timeout: group.session_timeout,
            commit_interval: Duration::from_secs(1),
            on_damage: group.on_damage,
        }
    }
}

/// A queue: each record goes to one consumer, in order per key, and again if that dies before it acknowledged it. Cheap to
/// clone. It joins the group with the first pull or subscription, and leaves when the last clone is dropped or one is closed.
///
/// Delivery is by partition: while a record is out, those behind it in its partition wait.
///
/// ```no_run
/// use minikafka_client::{Client, QueueOptions};
///
/// # async fn run(client: Client) -> minikafka_client::Result<()> {
/// let mut queue = client.queue(QueueOptions::default()).await?;
/// queue.push(Some(b"customer 7"), b"bought").await?;
/// let record = queue.pull().await?;
/// println!("{:?}", record.value);
/// queue.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    /// Acknowledged by the next pull. Clones do not have it.
    previous: Previous,
}

#[derive(Debug, Default)]
struct Previous(Option<QueueDelivery>);

impl Clone for Previous {
    fn clone(&self) -> Self {
        Self(None)
    }
}

struct Shared {
    client: Client,
    options: QueueOptions,
    /// Made by the first push.
    producer: Mutex<Option<Producer>>,
    attendance: Mutex<Attendance>,
}

#[derive(Debug, Default)]
enum Attendance {
    /// Nobody has pulled.
    #[default]
    Absent,
    Present(Attendant),
    Closed,
}

/// The way to the task.
#[derive(Clone, Debug)]
struct Attendant {
    pulls: mpsc::Sender<Pull>,
    closes: mpsc::Sender<Close>,
}

/// Where a pushed record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its partition.
    pub partition: Partition,
    /// Its offset. None: it is stored, but the broker no longer remembers where.
    pub offset: Option<Offset>,
}

/// A record that is out: acknowledge it, or give it back. Dropped, it is given back.
#[derive(Debug)]
pub struct QueueDelivery {
    record: GroupRecord,
    is_settled: bool,
    settled: mpsc::UnboundedSender<Settled>,
}

impl Client {
    /// The queue of a cluster, created when it is missing.
    ///
    /// # Errors
    /// As [`Client::create_topic`].
    pub async fn queue(&self, options: QueueOptions) -> Result<Queue> {
        let topic = TopicOptions { partitions: options.partitions, ..TopicOptions::default() };
        let known = self.describe_topics(&[&options.name]).await?;
        if known.iter().all(|topic| topic.error == Some(ErrorCode::UnknownTopic)) {
            match self.create_topic(&options.name, topic).await {
                Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
                created => drop(created?),
            }
        }
        let (producer, attendance) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { client: self.clone(), options, producer, attendance });
        Ok(Queue { shared, previous: Previous(None) })
    }
}

impl Queue {
    /// Stores a record; returns when it is stored. Records of one key are pulled in the order in which they were pushed.
    ///
    /// # Errors
    /// As [`Producer::send`] and its delivery.
    pub async fn push(&self, key: Option<&[u8]>, value: &[u8]) -> Result<Pushed> {
        let producer = self.producer().await?;
        let record = ProducerRecord { key, ..ProducerRecord::value(value) };
        let sent = producer.send(record).await;
        let delivered = match sent {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        };
        match delivered {
            Ok(delivery) => Ok(Pushed { partition: delivery.partition, offset: delivery.offset }),
            Err(error) => {
                // The topic was deleted, and may be created anew: that is another one.
                if error.code() == Some(ErrorCode::UnknownTopic) {
                    self.shared.producer.lock().await.take();
                }
                Err(error)
            }
        }
    }

    async fn producer(&self) -> Result<Producer> {
        let mut producer = self.shared.producer.lock().await;
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        if matches!(*self.shared.attendance.lock().await, Attendance::Closed) {
            return Err(Error::Closed("queue"));
        }
        let made = self.shared.client.producer(&self.shared.options.name, ProducerOptions::default()).await?;
        Ok(producer.insert(made).clone())
    }

    /// The next record. The one that this handle pulled before is acknowledged. Waits as long as it takes; cancel-safe.
    ///
    /// # Errors
    /// As [`crate::GroupConsumer::next_batch`].
    pub async fn pull(&mut self) -> Result<ConsumerRecord> {
        if let Some(previous) = self.previous.0.take() {
            previous.ack();
        }
        let delivery = self.pull_delivery().await?;
        let record = ConsumerRecord::clone(&delivery);
        self.previous.0 = Some(delivery);
        Ok(record)
    }

    /// [`Queue::pull`] for at most `wait`; none when nothing came.
    ///
    /// # Errors
    /// As [`Queue::pull`].
    pub async fn pull_within(&mut self, wait: Duration) -> Result<Option<ConsumerRecord>> {
        tokio::time::timeout(wait, self.pull()).await.map_or(Ok(None), |result| result.map(Some))
    }

    /// The next record, to be acknowledged or given back by whoever has it. Many can be out at a time, each of another
    /// partition. Cancel-safe.
    ///
    /// # Errors
    /// As [`Queue::pull`].
    pub async fn pull_delivery(&self) -> Result<QueueDelivery> {
        let (pull, delivery) = oneshot::channel();
        self.attendant().await?.pulls.send(pull).await.map_err(|_| Error::Closed("queue"))?;
        delivery.await.map_err(|_| Error::Closed("queue"))?
    }

    /// Calls back for each record, one at a time, from a task of its own. Success acknowledges the record; after an error
    /// it is given out again, before those behind it, after a pause of 100 ms that doubles to 10 s.
    pub fn subscribe<F, A, E>(&self, callback: F) -> Subscription
    where
        F: FnMut(ConsumerRecord) -> A + Send + 'static,
        A: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(call_back(self.clone(), callback, stopped));
        Subscription { stop, task }
    }

    /// Acknowledges what this handle pulled last, commits, and leaves the group; for all clones.
    ///
    /// # Errors
    /// As [`crate::GroupConsumer::close`].
    pub async fn close(mut self) -> Result<()> {
        if let Some(previous) = self.previous.0.take() {
            previous.ack();
        }
        // First of all: others wait for its partitions, and no push makes another producer from then on.
        let left = self.leave().await;
        let producer = self.shared.producer.lock().await.take();
        let flushed = match producer {
            Some(producer) => producer.close().await,
            None => Ok(()),
        };
        left.and(flushed)
    }

    async fn leave(&self) -> Result<()> {
        let before = std::mem::replace(&mut *self.shared.attendance.lock().await, Attendance::Closed);
        let Attendance::Present(attendant) = before else { return Ok(()) };
        let (done, closed) = oneshot::channel();
        match attendant.closes.send(done).await {
            Ok(()) => closed.await.unwrap_or(Ok(())),
            // It ended before, and told why.
            Err(_) => Ok(()),
        }
    }

    async fn attendant(&self) -> Result<Attendant> {
        let mut attendance = self.shared.attendance.lock().await;
        match &*attendance {
            Attendance::Present(attendant) if !attendant.pulls.is_closed() => return Ok(attendant.clone()),
            // The membership that ended is told; this is another one.
            Attendance::Present(_) | Attendance::Absent => {}
            Attendance::Closed => return Err(Error::Closed("queue")),
        }
        let options = &self.shared.options;
        let consumer_options = GroupConsumerOptions {
            session_timeout: options.session_timeout,
            commit_interval: options.commit_interval,
            acknowledge: Acknowledge::ByRecord,
            on_damage: options.on_damage,
            ..GroupConsumerOptions::default()
        };
        let consumer = self.shared.client.group_consumer(&options.name, &[&options.name], consumer_options).await?;
        let (pulls, pulls_made) = mpsc::channel(PULLS_WAITING_MAX);
        let (closes, close) = mpsc::channel(1);
        tokio::spawn(attendant::attend(consumer, pulls_made, close));
        let attendant = Attendant { pulls, closes };
        *attendance = Attendance::Present(attendant.clone());
        Ok(attendant)
    }
}

impl QueueDelivery {
    /// The record is handled.
    pub fn ack(mut self) {
        self.is_settled = true;
        // Without its attendant nobody can commit it any more: it is given out again, elsewhere.
        let _ = self.settled.send(Settled::Handled(self.record.clone()));
    }

    /// The record is given out again, before those behind it.
    pub fn nack(self) {
        drop(self);
    }
}

impl Deref for QueueDelivery {
    type Target = ConsumerRecord;

    fn deref(&self) -> &ConsumerRecord {
        &self.record
    }
}

impl Drop for QueueDelivery {
    fn drop(&mut self) {
        if !self.is_settled {
            let _ = self.settled.send(Settled::GivenBack(self.record.clone()));
        }
    }
}

/// A callback that is called for each record, until this is stopped or dropped.
#[derive(Debug)]
pub struct Subscription {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Subscription {
    /// Waits until the callback that is running, if any, has returned; then no other one is called.
    ///
    /// # Errors
    /// What ended it before, if that is not [`Queue::close`].
    pub async fn stop(self) -> Result<()> {
        drop(self.stop);
        match self.task.await {
            Ok(Err(Error::Closed(_))) | Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_panicked) => Err(Error::Closed("subscription")),
        }
    }
}

async fn call_back<F, A, E>(queue: Queue, mut callback: F, mut stopped: oneshot::Receiver<()>) -> Result<()>
where
    F: FnMut(ConsumerRecord) -> A + Send + 'static,
    A: Future<Output = Result<(), E>> + Send,
    E: fmt::Display + Send,
{
    // Of each partition the record that failed last, and how often: at most one of a partition is out.
    let mut failed: BTreeMap<Partition, (Offset, u32)> = BTreeMap::new();
    loop {
        let delivery = tokio::select! {
            biased;
            _ = &mut stopped => return Ok(()),
            delivery = queue.pull_delivery() => delivery,
        };
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(error @ (Error::Closed(_) | Error::Broker(_))) => return Err(error),
            Err(error) => {
                // A partition stands still; the others go on.
                tracing::error!(%error, "a subscription goes on without a partition");
                tokio::time::sleep(RETRY_PAUSE_MIN).await;
                continue;
            }
        };
        let (partition, offset) = (delivery.partition, delivery.offset);
        let Err(error) = callback(ConsumerRecord::clone(&delivery)).await else {
            delivery.ack();
            failed.remove(&partition);
            continue;
        };
        let before = failed.get(&partition).filter(|(of, _)| *of == offset).map_or(0, |(_, times)| *times);
        failed.insert(partition, (offset, before + 1));
        let pause = RETRY_PAUSE_MIN.saturating_mul(1 << before.min(10)).min(RETRY_PAUSE_MAX);
        tracing::warn!(%partition, %offset, %error, ?pause, "a callback failed; the record comes again");
        // Held meanwhile: those behind it wait, other partitions do not.
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            delivery.nack();
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("options", &self.options).finish_non_exhaustive()
    }
}
