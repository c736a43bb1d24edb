//! How far a group is behind: in records, and in the age of the oldest one that it has not handled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minikafka_core::wire::{OffsetQuery, TopicDescription};
use minikafka_core::{MemberId, Offset, Partition, PartitionKey, Timestamp, TopicId};
use tokio::time::Instant;

use super::record::TopicPartition;
use crate::client::Client;
use crate::consumer::{ConsumerOptions, OnDamage, OutOfRangePolicy};
use crate::error::Result;

/// How far a group is behind in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// Which.
    pub place: TopicPartition,
    /// Where the group goes on. None: it has committed nothing.
    pub committed: Option<Offset>,
    /// The first record that is there.
    pub log_start: Offset,
    /// Behind the last one.
    pub end: Offset,
    /// How many records are not handled: from the commit on, or from the first one when there is none.
    pub records: u64,
    /// For how long the oldest of them has been there. None: there is none, or it was not found out in time.
    pub age: Option<Duration>,
    /// The member that owns it.
    pub owner: Option<MemberId>,
}

/// What a group has to do with one topic.
#[derive(Debug, Default)]
struct TopicUse {
    committed: BTreeMap<Partition, Offset>,
    owners: BTreeMap<Partition, MemberId>,
}

impl Client {
    /// How far a group is behind, for every partition of the topics that it reads or has commits of, ordered. Topics that
    /// are gone are left out.
    ///
    /// # Errors
    /// [`crate::Error::Broker`] with `unknown_group`; [`crate::Error::NoGateway`] and the like at the client's
    /// `request_timeout`.
    pub async fn group_lag(&self, group: &str) -> Result<Vec<PartitionLag>> {
        let (description, offsets) = tokio::try_join!(self.group_description(group), self.committed_offsets(group))?;
        let mut uses: BTreeMap<TopicId, TopicUse> = BTreeMap::new();
        for committed in offsets {
            let PartitionKey { topic, partition } = committed.partition;
            uses.entry(topic).or_default().committed.insert(partition, committed.offset);
        }
        for member in description.members {
            for topic in member.topics {
                uses.entry(topic).or_default();
            }
            for PartitionKey { topic, partition } in member.owned {
                uses.entry(topic).or_default().owners.insert(partition, member.member);
            }
        }
        let mut lags = Vec::new();
        for topic in self.list_topics().await? {
            if let Some(of) = uses.remove(&topic.topic) {
                lags.extend(self.topic_lag(topic, of).await?);
            }
        }
        Ok(lags)
    }

    async fn topic_lag(&self, topic: TopicDescription, of: TopicUse) -> Result<Vec<PartitionLag>> {
        let name: Arc<str> = topic.name.as_str().into();
        // The map may not have the topic yet, or still have one of this name that is gone.
        self.shared().map.learn(&topic);
        let (starts, ends) = tokio::try_join!(
            self.list_offsets(&name, OffsetQuery::Earliest),
            self.list_offsets(&name, OffsetQuery::Latest)
        )?;
        let lag = |((partition, log_start), (_, end)): (&(Partition, Offset), &(Partition, Offset))| {
            let committed = of.committed.get(partition).copied();
            let next = committed.unwrap_or_default().max(*log_start);
            PartitionLag {
                place: TopicPartition { topic: name.clone(), partition: *partition },
                committed,
                log_start: *log_start,
                end: *end,
                records: end.0.saturating_sub(next.0),
                age: None,
                owner: of.owners.get(partition).copied(),
            }
        };
        let mut lags: Vec<PartitionLag> = starts.iter().zip(&ends).map(lag).collect();
        let behind = lags.iter().filter(|lag| lag.records > 0);
        let oldest = behind.map(|lag| (lag.place.partition, lag.committed.unwrap_or_default().max(lag.log_start)));
        let stored = self.stored_at(&name, oldest.collect()).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for lag in &mut lags {
            let stored = stored.get(&lag.place.partition).and_then(|stored| u64::try_from(stored.0).ok());
            lag.age = stored.map(|stored| now.saturating_sub(Duration::from_millis(stored)));
        }
        Ok(lags)
    }

    /// When the record at an offset of each partition was stored, as far as that can be found out in time.
    async fn stored_at(
        &self,
        topic: &str,
        oldest: BTreeMap<Partition, Offset>,
    ) -> Result<BTreeMap<Partition, Timestamp>> {
        let mut open: BTreeSet<Partition> = oldest.keys().copied().collect();
        let mut stored = BTreeMap::new();
        if open.is_empty() {
            return Ok(stored);
        }
        let options = ConsumerOptions {
            partitions: Some(open.iter().copied().collect()),
            start_offsets: oldest,
            // One batch of each partition is enough, however small this is.
            partition_fetch_bytes_max: 4 << 10,
            out_of_range: OutOfRangePolicy::Earliest,
            on_damage: OnDamage::Skip,
            ..ConsumerOptions::default()
        };
        let mut consumer = self.consumer(topic, options).await?;
        let deadline = Instant::now() + self.shared().options.request_timeout;
        let mut failures_left = open.len();
        while !open.is_empty() && failures_left > 0 {
            match consumer.next_batch_within(deadline.saturating_duration_since(Instant::now())).await {
                Ok(Some(batch)) => {
                    if open.remove(&batch.partition()) {
                        stored.insert(batch.partition(), batch.append_timestamp());
                    }
                    consumer.pause(&[batch.partition()]);
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(topic, %error, "the oldest record of a partition was not found");
                    failures_left -= 1;
                }
            }
        }
        Ok(stored)
    }
}
