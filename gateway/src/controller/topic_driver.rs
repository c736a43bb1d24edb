//! One topic on its way to being ready, or gone.
//!
//! ```text
//!              every partition opened               every partition deleted
//!  creating ────────────────────────► ready     deleting ────────────────────────► (removed)
//!     │                               │  ▲         ▲
//!     │                         alter │  │ every partition has the newest settings
//!     │                               ▼  │         │
//!     │                             altering       │
//!     └──────────────── delete ───────┴────────────┘
//! ```
//!
//! The bucket says where a topic is; the control entries are idempotent. So whoever finds a topic unsettled, after any
//! crash, sends all of them again and then moves the record on. It goes on until the topic is settled: callers who
//! wait have deadlines of their own. Altered again while it is altering, it starts over with the newer settings; heads
//! go by the version, so that an older message that comes late does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use minikafka_core::control::ControlEntry;
use minikafka_core::coordination::{CoordinationError, TopicBucket, TopicRecord, path};
use minikafka_core::topic::TopicState;
use minikafka_core::wire::{Api, AppendControlOutcome, AppendControlRange, AppendControlReply, AppendControlRequest};
use minikafka_core::*;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::gateway::Shared;
use crate::map::ClusterMap;

/// A head that refused a control entry, and the epoch it named.
#[derive(Debug)]
pub(crate) struct ControlRefusal {
    pub(crate) range: RangeKey,
    pub(crate) epoch: Epoch,
}

/// Drives a topic until it is ready or gone.
pub(crate) async fn settle(shared: &Shared, name: &str, topic: TopicId, refusals: &mpsc::Sender<ControlRefusal>) {
    let mut backoff = Backoff::default();
    let mut work: Option<Work> = None;
    loop {
        match step(shared, name, topic, &mut work, refusals).await {
            Ok(Progress::Settled) => return,
            Ok(Progress::Moved) => backoff.reset(),
            Ok(Progress::Stuck) => {}
            Err(error) => tracing::warn!(topic = name, %error, "cannot move the topic on"),
        }
        backoff.wait().await;
    }
}

enum Progress {
    Settled,
    Moved,
    Stuck,
}

/// What is left to do in a state, with settings of a version.
struct Work {
    state: TopicState,
    config_version: ConfigVersion,
    partitions: BTreeSet<Partition>,
}

async fn step(
    shared: &Shared,
    name: &str,
    topic: TopicId,
    work: &mut Option<Work>,
    refusals: &mpsc::Sender<ControlRefusal>,
) -> Result<Progress, CoordinationError> {
    let path = path::topic_bucket(name);
    let Some((mut bucket, version)) = shared.client.read::<TopicBucket>(&path).await? else {
        return Ok(Progress::Settled);
    };
    let record = match bucket.topics.get(name).filter(|record| record.topic == topic) {
        Some(record) if record.state != TopicState::Ready => record.clone(),
        _ => {
            shared.map.set_bucket(&path, bucket, version);
            return Ok(Progress::Settled);
        }
    };
    let (state, config_version) = (record.state, record.config_version);
    let all = || Work { state, config_version, partitions: (0..record.partitions).map(Partition).collect() };
    let left = match work {
        Some(work) if (work.state, work.config_version) == (state, config_version) => work,
        _ => work.insert(all()),
    };
    let before = left.partitions.len();
    append(shared, &record, left, refusals).await;
    if !left.partitions.is_empty() {
        return Ok(if left.partitions.len() < before { Progress::Moved } else { Progress::Stuck });
    }
    match record.state {
        TopicState::Deleting => drop(bucket.topics.remove(name)),
        _ => drop(bucket.topics.insert(name.to_owned(), TopicRecord { state: TopicState::Ready, ..record })),
    }
    match shared.client.compare_and_set(&path, &bucket, version).await {
        Ok(version) => {
            shared.map.set_bucket(&path, bucket, version);
            Ok(Progress::Settled)
        }
        // Another topic of the bucket changed, or this one is to be deleted: look again.
        Err(CoordinationError::Conflict { .. }) => Ok(Progress::Moved),
        Err(error) => Err(error),
    }
}

/// Sends what is left to the heads that are known, all at once, and strikes out what is committed.
async fn append(shared: &Shared, record: &TopicRecord, left: &mut Work, refusals: &mpsc::Sender<ControlRefusal>) {
    let map = shared.map.current();
    let mut messages = JoinSet::new();
    for ((node, shard), entries) in by_head(&map, record, left) {
        let Some(broker) = map.brokers.get(&node).cloned() else { continue };
        for entries in entries.chunks(limits::CONTROL_ENTRIES_MAX) {
            let request = AppendControlRequest { entries: entries.to_vec() };
            let (links, broker) = (shared.links.clone(), broker.clone());
            messages.spawn(async move {
                let wait = Duration::from_millis(limits::CONTROL_WAIT_MS);
                let reply = links.call(&broker, shard, Api::AppendControl, &request, wait).await;
                (request, reply)
            });
        }
    }
    while let Some(done) = messages.join_next().await {
        match done {
            Ok((request, Ok(reply))) => strike_out(left, &request, reply, refusals),
            Ok((_, Err(error))) => tracing::debug!(%error, "control entries were not acknowledged"),
            Err(error) => tracing::error!(%error, "sending control entries failed"),
        }
    }
}

/// The entries that are left, by the head that appends them. Ranges without a chain have to wait.
fn by_head(
    map: &ClusterMap,
    record: &TopicRecord,
    left: &Work,
) -> BTreeMap<(NodeId, ShardId), Vec<AppendControlRange>> {
    let mut heads: BTreeMap<_, Vec<AppendControlRange>> = BTreeMap::new();
    for &partition in &left.partitions {
        let Some(range) = map.range_of(record, partition) else { continue };
        let Some((chunk, at)) = map.chunk_of(range) else { continue };
        let Some(active) = &chunk.record.ranges[at].active else { continue };
        let Some(head) = active.chain.first() else { continue };
        let entry = entry(record, partition);
        heads.entry((head.node, head.shard)).or_default().push(AppendControlRange {
            range,
            epoch: active.epoch,
            entry,
        });
    }
    heads
}

fn entry(record: &TopicRecord, partition: Partition) -> ControlEntry {
    let partition = PartitionKey { topic: record.topic, partition };
    let (config, version) = (record.config, record.config_version);
    match record.state {
        TopicState::Deleting => ControlEntry::PartitionDelete { partition },
        TopicState::Altering => ControlEntry::PartitionConfig { partition, config, version },
        TopicState::Creating | TopicState::Ready => {
            ControlEntry::PartitionOpen { partition, config, version, start_offset: Offset(0), previous: None }
        }
    }
}

fn strike_out(
    left: &mut Work,
    request: &AppendControlRequest,
    reply: AppendControlReply,
    refusals: &mpsc::Sender<ControlRefusal>,
) {
    let is_deleting = left.state == TopicState::Deleting;
    for (asked, outcome) in request.entries.iter().zip(reply.entries) {
        let AppendControlOutcome { range, error, epoch } = outcome;
        let Some(PartitionKey { partition, .. }) = asked.entry.partition() else { continue };
        match error {
            _ if range != asked.range => tracing::error!(%range, "a shard answered about another range"),
            None => drop(left.partitions.remove(&partition)),
            // Never opened, or deleted before: what was wanted.
            Some(ErrorCode::UnknownPartition) if is_deleting => {
                left.partitions.remove(&partition);
            }
            Some(ErrorCode::NotOwner | ErrorCode::Stale) => {
                // Only a hint: it comes again while it is true.
                let _ = refusals.try_send(ControlRefusal { range, epoch });
            }
            Some(error) => tracing::debug!(%range, %error, "a control entry was refused"),
        }
    }
}
