//! The consumer of one topic.
//!
//! `fetcher`, a task, asks every shard concerned, ahead of the application and within a bound of memory; `progress`,
//! pure, decides what to ask and what an answer means; `entries` verifies every fetched byte; `records` decompresses,
//! validates and cuts. A batch's way: shard → `fetcher` → `entries` → `progress` → [`Consumer::next_batch`] → `records`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::wire::{OffsetQuery, TopicDescription};
use minikafka_core::{NodeId, Offset, Partition};
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;

use crate::client::ClientShared;
use crate::error::{Error, Result};

mod entries;
mod fetcher;
mod options;
mod progress;
mod records;

pub use options::{ConsumerOptions, OnDamage, OutOfRangePolicy, ReadFrom, Skipped, StartAt};
pub use records::{ConsumerRecord, FetchedRecords};

use progress::{Progress, Taken};

/// Reads records of one topic: those of one partition in order, each once. It belongs to one task; its prefetching goes
/// on in the background until it is dropped.
///
/// Lost connections, moved ranges and other failures that pass are waited out, however long they take.
///
/// ```no_run
/// use minikafka_client::{Client, ConsumerOptions};
///
/// # async fn run(client: Client) -> minikafka_client::Result<()> {
/// let mut consumer = client.consumer("orders", ConsumerOptions::default()).await?;
/// while !consumer.is_at_end() {
///     let batch = consumer.next_batch().await?;
///     for record in batch.records() {
///         println!("{} {:?} {:?}", record.offset, record.key, record.value);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    topic: Arc<TopicDescription>,
    shared: Arc<fetcher::Shared>,
    fetcher: JoinHandle<()>,
    current: Option<Current>,
}

/// A batch that [`Consumer::next`] is in the middle of.
#[derive(Debug)]
struct Current {
    batch: FetchedRecords,
    records: VecDeque<ConsumerRecord>,
}

impl Consumer {
    pub(crate) async fn start(
        client: Arc<ClientShared>,
        topic: Arc<TopicDescription>,
        options: ConsumerOptions,
    ) -> Result<Self> {
        options.check()?;
        let starts = starts(&client, &topic, &options).await?;
        let progress = Progress::new(topic.clone(), &options, starts);
        let shared = Arc::new(fetcher::Shared::new(progress));
        let fetcher = tokio::spawn(fetcher::fetch_ahead(client, shared.clone()));
        Ok(Self { topic, shared, fetcher, current: None })
    }

    /// The next batch of any partition that is not paused, partitions taking turns. Waits as long as it takes for one (a
    /// long poll without a deadline of its own); cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// What a partition cannot go on with: `offset_out_of_range` under [`OutOfRangePolicy::Error`], [`Error::DataDamaged`]
    /// under [`OnDamage::Stop`], [`Error::Damaged`],
    /// `unknown_topic`, … That partition then stands still until a `seek`; the others go on. When no other is left, the
    /// error is returned again by every call.
    pub async fn next_batch(&mut self) -> Result<FetchedRecords> {
        if let Some(batch) = self.rest_of_current() {
            return Ok(batch);
        }
        // An application that always finds a batch must still let its own fetcher run.
        consume_budget().await;
        loop {
            if let Some(result) = self.try_next_batch() {
                return result;
            }
            if self.fetcher.is_finished() {
                return Err(Error::Closed("consumer"));
            }
            self.shared.ready.notified().await;
        }
    }

    /// [`Consumer::next_batch`] for at most `wait`; none when nothing came. Zero only looks.
    ///
    /// # Errors
    /// As [`Consumer::next_batch`].
    pub async fn next_batch_within(&mut self, wait: Duration) -> Result<Option<FetchedRecords>> {
        tokio::time::timeout(wait, self.next_batch()).await.map_or(Ok(None), |result| result.map(Some))
    }

    /// The next record. Otherwise as [`Consumer::next_batch`]; the two can be mixed: `next_batch` then returns the rest
    /// of the batch. It costs a handle for each key, value and header; [`FetchedRecords::records`] costs nothing.
    ///
    /// # Errors
    /// As [`Consumer::next_batch`].
    pub async fn next(&mut self) -> Result<ConsumerRecord> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(record) = current.records.pop_front() {
                    return Ok(record);
                }
                self.current = None;
            }
            let batch = self.next_batch().await?;
            let records = batch.to_records().collect();
            self.current = Some(Current { batch, records });
        }
    }

    /// Goes on at `offset`. A failed partition goes on too.
    ///
    /// # Errors
    /// [`Error::NoSuchPartition`] for a partition that this consumer does not read.
    pub fn seek(&mut self, partition: Partition, offset: Offset) -> Result<()> {
        self.current.take_if(|current| current.batch.partition() == partition);
        if !self.shared.progress().seek(partition, offset) {
            let (topic, partitions) = (self.topic.name.as_str().into(), self.topic.partitions);
            return Err(Error::NoSuchPartition { topic, partition, partitions });
        }
        self.shared.wake_fetcher.notify_one();
        Ok(())
    }

    /// Hands out no records of these partitions until they are resumed. Those not read by this consumer do not matter.
    pub fn pause(&mut self, partitions: &[Partition]) {
        let is_current = |current: &mut Current| partitions.contains(&current.batch.partition());
        if let Some(current) = self.current.take_if(is_current)
            && let Some(next) = current.records.front()
        {
            self.shared.progress().put_back(current.batch.into_entry(), next.offset);
        }
        self.shared.progress().set_paused(partitions, true);
    }

    /// Undoes [`Consumer::pause`].
    pub fn resume(&mut self, partitions: &[Partition]) {
        self.shared.progress().set_paused(partitions, false);
        self.shared.wake_fetcher.notify_one();
        self.shared.ready.notify_one();
    }

    /// For every partition, the offset of the record that comes next, ordered by partition. A partition that began at
    /// "earliest" says 0 until its shard was heard of.
    pub fn positions(&self) -> Vec<(Partition, Offset)> {
        let progress = self.shared.progress();
        progress.positions().map(|(partition, position, _)| (partition, self.read_to(partition, position))).collect()
    }

    /// The offset after the last committed record, as last heard from the partition's shard. None: not heard yet, or not
    /// a partition of this consumer.
    pub fn committed_end(&self, partition: Partition) -> Option<Offset> {
        self.shared.progress().positions().find(|(of, ..)| *of == partition).and_then(|(.., end)| end)
    }

    /// Whether every partition has been read up to its committed end, as last heard. False until each was heard of.
    pub fn is_at_end(&self) -> bool {
        let progress = self.shared.progress();
        progress
            .positions()
            .all(|(partition, position, end)| end.is_some_and(|end| self.read_to(partition, position) >= end))
    }

    /// How many answers with records each node has given so far: where this consumer reads from ([`ReadFrom`]).
    pub fn fetches_by_node(&self) -> BTreeMap<NodeId, u64> {
        self.shared.progress().fetches_by_node().clone()
    }

    /// What was left out so far under [`OnDamage::Skip`], in the order in which it was met; the latest 1,024 stretches.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.shared.progress().skipped().to_vec()
    }

    /// The topic.
    pub fn topic(&self) -> &TopicDescription {
        &self.topic
    }

    fn try_next_batch(&mut self) -> Option<Result<FetchedRecords>> {
        loop {
            let (taken, may_fetch) = {
                let mut progress = self.shared.progress();
                (progress.take()?, progress.may_fetch())
            };
            if may_fetch {
                self.shared.wake_fetcher.notify_one();
            }
            let Taken { index, entry, position } = match taken {
                Ok(taken) => taken,
                Err(error) => return Some(Err(error)),
            };
            let (partition, offset) = (entry.header.partition, position.max(entry.header.base_offset));
            match FetchedRecords::open(entry, position) {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(reason) => {
                    let topic = self.topic.name.as_str().into();
                    let error = Error::Damaged { topic, partition, offset, reason: reason.into() };
                    self.shared.progress().fail(index, offset, error.clone());
                    return Some(Err(error));
                }
            }
        }
    }

    fn rest_of_current(&mut self) -> Option<FetchedRecords> {
        let Current { batch, records } = self.current.take()?;
        batch.starting_at(records.front()?.offset)
    }

    /// Within the batch that `next` is in the middle of, the position is finer than `progress` knows.
    fn read_to(&self, partition: Partition, position: Offset) -> Offset {
        let current = self.current.as_ref().filter(|current| current.batch.partition() == partition);
        current.and_then(|current| current.records.front()).map_or(position, |record| record.offset)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.fetcher.abort();
    }
}

/// Where each partition begins. "Earliest" asks nobody: it begins at 0, and the shards say where that is.
async fn starts(
    client: &Arc<ClientShared>,
    topic: &TopicDescription,
    options: &ConsumerOptions,
) -> Result<Vec<(Partition, Offset, bool)>> {
    let mut partitions = options.partitions.clone().unwrap_or_else(|| (0..topic.partitions).map(Partition).collect());
    partitions.sort_unstable();
    partitions.dedup();
    crate::offsets::check_partitions(topic, &partitions)?;
    let open: Vec<_> =
        partitions.iter().copied().filter(|partition| !options.start_offsets.contains_key(partition)).collect();
    let query = match options.start {
        StartAt::Latest => Some(OffsetQuery::Latest),
        StartAt::Time(time) => Some(OffsetQuery::AppendedAtOrAfter(time)),
        StartAt::Earliest | StartAt::Offset(_) => None,
    };
    let found: BTreeMap<_, _> = match query {
        Some(query) => client.clone().list_offsets(topic, &open, query).await?.into_iter().collect(),
        None => BTreeMap::new(),
    };
    let start = |partition: Partition| match (options.start_offsets.get(&partition).copied(), options.start) {
        (Some(offset), _) | (None, StartAt::Offset(offset)) => (partition, offset, false),
        (None, StartAt::Earliest) => (partition, Offset(0), true),
        (None, _) => (partition, found.get(&partition).copied().unwrap_or(Offset(0)), false),
    };
    Ok(partitions.into_iter().map(start).collect())
}
