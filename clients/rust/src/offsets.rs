//! Looking offsets up: earliest, latest, by time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minikafka_core::wire::{
    Api, ListOffsetsPartition, ListOffsetsReply, ListOffsetsRequest, ListedOffset, OffsetQuery, TopicDescription,
};
use minikafka_core::{ErrorCode, Offset, Partition, PartitionKey};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff;
use crate::client::{Client, ClientShared};
use crate::error::{Error, Result};
use crate::map::ClusterMap;
use crate::pool::Lane;

/// What is still to be found of one partition, and why it has not been found yet.
type Wanted = BTreeMap<Partition, Option<Error>>;

impl Client {
    /// The offset that `query` means, for every partition of a topic, ordered by partition.
    ///
    /// # Errors
    /// [`Error::Broker`] (`unknown_topic`, …), or the last retriable error at the client's `request_timeout`.
    pub async fn list_offsets(&self, topic: &str, query: OffsetQuery) -> Result<Vec<(Partition, Offset)>> {
        let description = self.topic(topic).await?;
        let partitions: Vec<_> = (0..description.partitions).map(Partition).collect();
        self.shared().clone().list_offsets(&description, &partitions, query).await
    }

    /// The same for chosen partitions.
    ///
    /// # Errors
    /// As [`Client::list_offsets`], and [`Error::NoSuchPartition`].
    pub async fn list_offsets_of(
        &self,
        topic: &str,
        partitions: &[Partition],
        query: OffsetQuery,
    ) -> Result<Vec<(Partition, Offset)>> {
        let description = self.topic(topic).await?;
        check_partitions(&description, partitions)?;
        self.shared().clone().list_offsets(&description, partitions, query).await
    }
}

/// Refuses partitions that the topic does not have.
pub(crate) fn check_partitions(topic: &TopicDescription, partitions: &[Partition]) -> Result<()> {
    match partitions.iter().find(|partition| partition.0 >= topic.partitions) {
        None => Ok(()),
        Some(&partition) => {
            Err(Error::NoSuchPartition { topic: topic.name.as_str().into(), partition, partitions: topic.partitions })
        }
    }
}

impl ClientShared {
    /// Asks every shard concerned at once, and again where the answer is retriable.
    pub(crate) async fn list_offsets(
        self: Arc<Self>,
        topic: &TopicDescription,
        partitions: &[Partition],
        query: OffsetQuery,
    ) -> Result<Vec<(Partition, Offset)>> {
        let deadline = Instant::now() + self.options.request_timeout;
        let mut wanted: Wanted = partitions.iter().map(|&partition| (partition, None)).collect();
        let mut found = BTreeMap::new();
        for failures in 1.. {
            let map = self.map.current();
            self.clone().ask_shards(&map, topic, query, deadline, &mut wanted, &mut found).await?;
            let Some(error) = wanted.values().flatten().next().cloned().or_else(|| no_owner(topic, &wanted)) else {
                break;
            };
            let wait = backoff::random_wait_after(failures, error.retry_after());
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            self.map_after(map.version()).await;
        }
        Ok(found.into_iter().collect())
    }

    /// One round: moves what is found from `wanted` to `found`.
    async fn ask_shards(
        self: Arc<Self>,
        map: &ClusterMap,
        topic: &TopicDescription,
        query: OffsetQuery,
        deadline: Instant,
        wanted: &mut Wanted,
        found: &mut BTreeMap<Partition, Offset>,
    ) -> Result<()> {
        let mut by_shard: HashMap<Arc<str>, Vec<ListOffsetsPartition>> = HashMap::new();
        for (&partition, _) in wanted.iter() {
            let Some(range) = map.range_of(topic, partition) else { continue };
            let Some(owner) = map.owner_of(range) else { continue };
            let partition = PartitionKey { topic: topic.topic, partition };
            let asked = ListOffsetsPartition { range, epoch: owner.epoch, partition, query };
            by_shard.entry(owner.address).or_default().push(asked);
        }
        let mut asking = JoinSet::new();
        for (address, partitions) in by_shard {
            let shared = self.clone();
            asking.spawn(async move { shared.ask_shard(&address, ListOffsetsRequest { partitions }, deadline).await });
        }
        // A task that panicked took its partitions along: they stay wanted.
        while let Some(answers) = asking.join_next().await {
            for (partition, outcome) in answers.unwrap_or_default() {
                match outcome {
                    Ok(offset) => {
                        wanted.remove(&partition);
                        found.insert(partition, offset);
                    }
                    Err(error) if error.is_retriable() => drop(wanted.insert(partition, Some(error))),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The answer for each partition asked about; a failed request is the answer for all of them.
    async fn ask_shard(
        &self,
        address: &Arc<str>,
        request: ListOffsetsRequest,
        deadline: Instant,
    ) -> Vec<(Partition, Result<Offset>)> {
        match self.try_ask_shard(address, &request, deadline).await {
            Ok(reply) => {
                reply.partitions.into_iter().map(|listed| (listed.partition.partition, outcome(listed))).collect()
            }
            Err(error) => {
                request.partitions.iter().map(|asked| (asked.partition.partition, Err(error.clone()))).collect()
            }
        }
    }

    async fn try_ask_shard(
        &self,
        address: &Arc<str>,
        request: &ListOffsetsRequest,
        deadline: Instant,
    ) -> Result<ListOffsetsReply> {
        let connection = self.pool.connect(address, Lane::Requests).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let reply: ListOffsetsReply = connection.call(Api::ListOffsets, request, left).await?;
        let answered = reply.partitions.iter().map(|listed| listed.partition);
        if !answered.eq(request.partitions.iter().map(|asked| asked.partition)) {
            return Err(Error::malformed(address, "list-offsets reply", "it lists other partitions than asked for"));
        }
        Ok(reply)
    }
}

fn outcome(listed: ListedOffset) -> Result<Offset> {
    match listed.error {
        None => Ok(listed.offset),
        Some(code) => Err(Error::broker_with(code, listed.partition.to_string(), String::new(), listed.epoch)),
    }
}

/// Why partitions that were not even asked about are missing.
fn no_owner(topic: &TopicDescription, wanted: &Wanted) -> Option<Error> {
    let (partition, _) = wanted.first_key_value()?;
    let target = format!("topic {} partition {partition}", topic.name);
    Some(Error::broker(ErrorCode::PartitionNotReady, target))
}
