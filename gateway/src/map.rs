//! The map: what this gateway knows of brokers, rings, topics and operations.
//!
//! A cache of coordinator records, kept fresh by watches ([`keeper`]) and by this gateway's own changes, whichever comes
//! first; versions decide, so it never goes back. Readers take a snapshot and keep it as long as they like.

pub(crate) mod keeper;

use std::collections::BTreeMap;
use std::sync::Arc;

use minikafka_core::coordination::{
    BrokerRecord, KeyVersion, OperationRecord, RingChunk, TopicBucket, TopicRecord, path,
};
use minikafka_core::topic::TopicState;
use minikafka_core::*;
use tokio::sync::watch;

/// A record and the version it was read at.
#[derive(Debug)]
pub(crate) struct At<T> {
    pub(crate) record: T,
    pub(crate) version: KeyVersion,
}

/// A snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterMap {
    /// The live ones.
    pub(crate) brokers: BTreeMap<NodeId, BrokerRecord>,
    /// By replication and chunk number.
    pub(crate) chunks: BTreeMap<(u16, u32), Arc<At<RingChunk>>>,
    /// By path.
    pub(crate) buckets: BTreeMap<String, Arc<At<TopicBucket>>>,
    /// What operators want or wanted.
    pub(crate) operations: BTreeMap<OperationId, Arc<At<OperationRecord>>>,
}

impl ClusterMap {
    /// A topic by name.
    pub(crate) fn topic(&self, name: &str) -> Option<&TopicRecord> {
        self.buckets.get(&path::topic_bucket(name))?.record.topics.get(name)
    }

    /// Topics on their way to being ready or gone, with the paths of their buckets.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = (&str, &TopicRecord)> {
        let topics = self.buckets.values().flat_map(|bucket| &bucket.record.topics);
        topics.filter(|(_, topic)| topic.state != TopicState::Ready).map(|(name, topic)| (name.as_str(), topic))
    }

    /// How many ranges a ring has, if it exists.
    pub(crate) fn ranges_total(&self, replication: u16) -> Option<u32> {
        let mut chunks = self.chunks.range((replication, 0)..=(replication, u32::MAX));
        chunks.next().map(|(_, chunk)| chunk.record.ranges_total)
    }

    /// The chunk that holds a range, and the range's position in it.
    pub(crate) fn chunk_of(&self, key: RangeKey) -> Option<(&At<RingChunk>, usize)> {
        let chunk = self.chunks.get(&(key.ring.0, key.range.0 / limits::RANGES_PER_CHUNK))?;
        let at = key.range.0.checked_sub(chunk.record.first.0)? as usize;
        (at < chunk.record.ranges.len()).then_some((&**chunk, at))
    }

    /// The range that holds a partition of a topic.
    pub(crate) fn range_of(&self, topic: &TopicRecord, partition: Partition) -> Option<RangeKey> {
        let ranges = self.ranges_total(topic.ring.0).filter(|ranges| ranges.is_power_of_two())?;
        let token = ring::token(PartitionKey { topic: topic.topic, partition });
        let range = topic.placement.get(&partition).copied().unwrap_or_else(|| ring::range_of_token(token, ranges));
        Some(RangeKey { ring: topic.ring, range })
    }
}

/// The one place where the map is changed.
#[derive(Debug)]
pub(crate) struct MapStore {
    map: watch::Sender<Arc<ClusterMap>>,
}

impl MapStore {
    pub(crate) fn new() -> Self {
        Self { map: watch::Sender::new(Arc::default()) }
    }

    /// The map as it is now.
    pub(crate) fn current(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    /// The map as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    pub(crate) fn set_brokers(&self, brokers: BTreeMap<NodeId, BrokerRecord>) {
        self.change(|map| {
            let changed = map.brokers != brokers;
            map.brokers = brokers;
            changed
        });
    }

    pub(crate) fn set_chunk(&self, replication: u16, chunk: u32, record: RingChunk, version: KeyVersion) {
        self.change(|map| newer(&mut map.chunks, (replication, chunk), record, version));
    }

    pub(crate) fn set_bucket(&self, path: &str, record: TopicBucket, version: KeyVersion) {
        self.change(|map| newer(&mut map.buckets, path.to_owned(), record, version));
    }

    pub(crate) fn set_operation(&self, record: OperationRecord, version: KeyVersion) {
        self.change(|map| newer(&mut map.operations, record.operation, record, version));
    }

    /// An operation is gone for good: its number is not used again while a later one is there.
    pub(crate) fn remove_operation(&self, operation: OperationId) {
        self.change(|map| map.operations.remove(&operation).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut ClusterMap) -> bool) {
        self.map.send_if_modified(|map| change(Arc::make_mut(map)));
    }
}

/// Puts a record in unless a newer one is there.
fn newer<K: Ord, T>(records: &mut BTreeMap<K, Arc<At<T>>>, key: K, record: T, version: KeyVersion) -> bool {
    if records.get(&key).is_some_and(|known| known.version >= version) {
        return false;
    }
    records.insert(key, Arc::new(At { record, version }));
    true
}
