//! The consumer of one topic.
//!
//! `fetcher`, a task, asks every shard concerned, ahead of the application and within a bound of memory; `progress`,
//! pure, decides what to ask and what an answer means; `entries` verifies every fetched byte; `records` decompresses,
//! validates and cuts; `reader` is all of that, for a consumer without a group and for one with a group (`crate::group`). A
//! batch's way: shard → `fetcher` → `entries` → `progress` → `reader` → [`Consumer::next_batch`] → `records`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::wire::{OffsetQuery, TopicDescription};
use minikafka_core::{NodeId, Offset, Partition};
use tokio::task::coop::consume_budget;

use crate::client::ClientShared;
use crate::error::{Error, Result};
use crate::explain::Explain;

mod entries;
mod fetcher;
mod options;
mod progress;
pub(crate) mod reader;
mod records;

pub use options::{ConsumerOptions, OnDamage, OutOfRangePolicy, ReadFrom, Skipped, StartAt};
pub use records::{ConsumerRecord, FetchedRecords};

pub(crate) use progress::Prospect;

use progress::Progress;
use reader::Reader;

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
    reader: Reader,
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
        Ok(Self { reader: Reader::start(client, topic, progress, Arc::default()), current: None })
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
            if let Some(result) = self.reader.try_next_batch() {
                return result;
            }
            // Better told again than waited for in vain.
            if let Prospect::Failures(error) = self.reader.prospect() {
                return Err(error);
            }
            if self.reader.has_ended() {
                return Err(Error::Closed("consumer"));
            }
            self.reader.ready().notified().await;
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
        self.reader.seek(partition, offset)
    }

    /// Hands out no records of these partitions until they are resumed. Those not read by this consumer do not matter.
    pub fn pause(&mut self, partitions: &[Partition]) {
        let is_current = |current: &mut Current| partitions.contains(&current.batch.partition());
        if let Some(current) = self.current.take_if(is_current)
            && let Some(next) = current.records.front()
        {
            self.reader.put_back(current.batch, next.offset);
        }
        self.reader.pause(partitions);
    }

    /// Undoes [`Consumer::pause`].
    pub fn resume(&mut self, partitions: &[Partition]) {
        self.reader.resume(partitions);
    }

    /// For every partition, the offset of the record that comes next, ordered by partition. A partition that began at
    /// "earliest" says 0 until its shard was heard of.
    pub fn positions(&self) -> Vec<(Partition, Offset)> {
        let positions = self.reader.positions().into_iter();
        positions.map(|(partition, position, _)| (partition, self.read_to(partition, position))).collect()
    }

    /// The offset after the last committed record, as last heard from the partition's shard. None: not heard yet, or not
    /// a partition of this consumer.
    pub fn committed_end(&self, partition: Partition) -> Option<Offset> {
        self.reader.positions().into_iter().find(|(of, ..)| *of == partition).and_then(|(.., end)| end)
    }

    /// Whether every partition has been read up to its committed end, as last heard. False until each was heard of.
    pub fn is_at_end(&self) -> bool {
        let is_read = |(partition, position, end): (Partition, Offset, Option<Offset>)| {
            end.is_some_and(|end| self.read_to(partition, position) >= end)
        };
        self.reader.positions().into_iter().all(is_read)
    }

    /// How many answers with records each node has given so far: where this consumer reads from ([`ReadFrom`]).
    pub fn fetches_by_node(&self) -> BTreeMap<NodeId, u64> {
        self.reader.fetches_by_node()
    }

    /// What was left out so far under [`OnDamage::Skip`], in the order in which it was met; the latest 1,024 stretches.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.reader.skipped()
    }

    /// Where the time of the fetch went that brought the record which [`Consumer::next`] returned last;
    /// [`FetchedRecords::explain`] is the same for a batch. None as there.
    pub fn explain(&self) -> Option<&Arc<Explain>> {
        self.current.as_ref().and_then(|current| current.batch.explain())
    }

    /// The topic.
    pub fn topic(&self) -> &TopicDescription {
        self.reader.topic()
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
