//! Requests about many partitions of a topic, each to the shard that owns it, answered by one offset per partition.
//!
//! Every shard concerned is asked at once; what is retriable is asked again, of whoever owns the partition by then,
//! until the client's `request_timeout`. What is not retriable ends it for all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minikafka_core::wire::{Api, TopicDescription, Wire};
use minikafka_core::{Epoch, ErrorCode, Offset, Partition, PartitionKey, RangeKey};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff;
use crate::client::ClientShared;
use crate::error::{Error, Result};
use crate::map::ClusterMap;
use crate::pool::Lane;

/// Where a partition is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionPlace {
    pub(crate) range: RangeKey,
    pub(crate) epoch: Epoch,
    pub(crate) partition: PartitionKey,
}

/// What a shard answered about one partition.
#[derive(Debug)]
pub(crate) struct PartitionOutcome {
    pub(crate) partition: PartitionKey,
    pub(crate) answer: PartitionAnswer,
}

/// An offset, or why there is none.
#[derive(Debug)]
pub(crate) enum PartitionAnswer {
    Offset(Offset),
    Refused { code: ErrorCode, epoch: Epoch },
}

impl PartitionAnswer {
    pub(crate) fn of(error: Option<ErrorCode>, epoch: Epoch, offset: Offset) -> Self {
        error.map_or(Self::Offset(offset), |code| Self::Refused { code, epoch })
    }
}

/// A request of this kind.
pub(crate) trait PartitionRequest: 'static {
    const API: Api;
    /// The reply's name, for errors.
    const REPLY: &'static str;
    /// What is wanted of a partition.
    type Wanted: Copy + Send + Sync + 'static;
    type Request: Wire + Send + Sync;
    type Reply: Wire + Send;

    fn request(wanted: &[(PartitionPlace, Self::Wanted)]) -> Self::Request;
    /// In the order of the request.
    fn outcomes(reply: Self::Reply) -> impl Iterator<Item = PartitionOutcome>;
}

/// What is still wanted, and why it has not been answered yet.
type Open<W> = BTreeMap<Partition, (W, Option<Error>)>;

impl ClientShared {
    /// The answers for all partitions, ordered by partition.
    pub(crate) async fn ask_partitions<R: PartitionRequest>(
        self: Arc<Self>,
        topic: &TopicDescription,
        wanted: &BTreeMap<Partition, R::Wanted>,
    ) -> Result<Vec<(Partition, Offset)>> {
        let deadline = Instant::now() + self.options.request_timeout;
        let mut open: Open<R::Wanted> =
            wanted.iter().map(|(&partition, &wanted)| (partition, (wanted, None))).collect();
        let mut found = BTreeMap::new();
        for failures in 1.. {
            let map = self.map.current();
            self.clone().ask_shards::<R>(&map, topic, deadline, &mut open, &mut found).await?;
            let failed = open.values().find_map(|(_, error)| error.clone());
            let Some(error) = failed.or_else(|| no_owner(topic, &open)) else { break };
            let wait = backoff::random_wait(failures, error.wants_refresh(), error.retry_after());
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            self.map_after(map.version()).await;
        }
        Ok(found.into_iter().collect())
    }

    /// One round: moves what is answered from `open` to `found`.
    async fn ask_shards<R: PartitionRequest>(
        self: Arc<Self>,
        map: &ClusterMap,
        topic: &TopicDescription,
        deadline: Instant,
        open: &mut Open<R::Wanted>,
        found: &mut BTreeMap<Partition, Offset>,
    ) -> Result<()> {
        let mut by_shard: HashMap<Arc<str>, Vec<(PartitionPlace, R::Wanted)>> = HashMap::new();
        for (&partition, &(wanted, _)) in open.iter() {
            let Some(range) = map.range_of(topic, partition) else { continue };
            let Some(owner) = map.owner_of(range) else { continue };
            let partition = PartitionKey { topic: topic.topic, partition };
            let place = PartitionPlace { range, epoch: owner.epoch, partition };
            by_shard.entry(owner.address).or_default().push((place, wanted));
        }
        let mut asking = JoinSet::new();
        for (address, wanted) in by_shard {
            let shared = self.clone();
            asking.spawn(async move { shared.ask_shard::<R>(&address, &wanted, deadline).await });
        }
        // A task that panicked took its partitions along: they stay wanted.
        while let Some(answers) = asking.join_next().await {
            for (partition, outcome) in answers.unwrap_or_default() {
                match outcome {
                    Ok(offset) => {
                        open.remove(&partition);
                        found.insert(partition, offset);
                    }
                    Err(error) if error.is_retriable() => {
                        if let Some((_, reason)) = open.get_mut(&partition) {
                            *reason = Some(error);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The answer for each partition asked about; a failed request is the answer for all of them.
    async fn ask_shard<R: PartitionRequest>(
        &self,
        address: &Arc<str>,
        wanted: &[(PartitionPlace, R::Wanted)],
        deadline: Instant,
    ) -> Vec<(Partition, Result<Offset>)> {
        match self.try_ask_shard::<R>(address, wanted, deadline).await {
            Ok(outcomes) => outcomes.into_iter().map(result).collect(),
            Err(error) => wanted.iter().map(|(place, _)| (place.partition.partition, Err(error.clone()))).collect(),
        }
    }

    async fn try_ask_shard<R: PartitionRequest>(
        &self,
        address: &Arc<str>,
        wanted: &[(PartitionPlace, R::Wanted)],
        deadline: Instant,
    ) -> Result<Vec<PartitionOutcome>> {
        let connection = self.pool.connect(address, Lane::Requests).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let reply: R::Reply = connection.call(R::API, &R::request(wanted), left).await?;
        let outcomes: Vec<_> = R::outcomes(reply).collect();
        let answered = outcomes.iter().map(|outcome| outcome.partition);
        if !answered.eq(wanted.iter().map(|(place, _)| place.partition)) {
            return Err(Error::malformed(address, R::REPLY, "it lists other partitions than asked for"));
        }
        Ok(outcomes)
    }
}

fn result(PartitionOutcome { partition, answer }: PartitionOutcome) -> (Partition, Result<Offset>) {
    let result = match answer {
        PartitionAnswer::Offset(offset) => Ok(offset),
        PartitionAnswer::Refused { code, epoch } => {
            Err(Error::broker_with(code, partition.to_string(), String::new(), epoch))
        }
    };
    (partition.partition, result)
}

/// Why partitions that were not even asked about are missing.
fn no_owner<W>(topic: &TopicDescription, open: &Open<W>) -> Option<Error> {
    let (partition, _) = open.first_key_value()?;
    let target = format!("topic {} partition {partition}", topic.name);
    Some(Error::broker(ErrorCode::PartitionNotReady, target))
}
