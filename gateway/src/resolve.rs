//! Resolve: the map, as clients need it.

use std::collections::BTreeMap;
use std::time::Duration;

use minikafka_core::coordination::{RangeRecord, TopicBucket, TopicRecord, path};
use minikafka_core::topic::{self, TopicConfig, TopicState};
use minikafka_core::wire::{
    ChainPlace, NodeAddress, Placement, RangeChain, ResolveReply, ResolveRequest, RingMap, TopicDescription, Wire,
};
use minikafka_core::*;
use tokio::time::Instant;

use crate::gateway::Shared;
use crate::map::ClusterMap;
use crate::server::Refusal;
use crate::topics;

/// Answers a resolve; what it creates on the way has [`limits::AUTO_CREATE_WAIT_MS`] to become ready.
pub(crate) async fn resolve(shared: &Shared, request: ResolveRequest) -> Result<Vec<u8>, Refusal> {
    if request.topics.len() > limits::REQUEST_PARTITIONS_MAX as usize {
        let most = limits::REQUEST_PARTITIONS_MAX;
        return Err(Refusal::because(ErrorCode::InvalidArgument, format!("a resolve names at most {most} topics")));
    }
    let mut topics = Vec::new();
    if request.all_topics {
        let map = shared.map.current();
        let all = map.buckets.values().flat_map(|bucket| &bucket.record.topics);
        topics.extend(all.map(|(name, record)| describe(name, record)));
    } else {
        let until = Instant::now() + Duration::from_millis(limits::AUTO_CREATE_WAIT_MS.into());
        for name in &request.topics {
            topics.push(find(shared, name, request.create_missing, until).await?);
        }
    }
    let map = shared.map.current();
    let reply = ResolveReply {
        cluster: shared.cluster.cluster,
        internal_ring: RingId(shared.cluster.internal_replication),
        nodes: if request.with_rings { nodes(&map) } else { Vec::new() },
        rings: if request.with_rings { rings(&map) } else { Vec::new() },
        topics,
    };
    let head = reply.to_bytes();
    if head.len() > limits::FRAME_HEAD_BYTES_MAX as usize {
        return Err(Refusal::because(
            ErrorCode::Unsupported,
            "the map is too large for one reply: ask for topics by name",
        ));
    }
    Ok(head)
}

/// One topic by name. Unknown ones are looked up once more in the coordinator, because the map may be a moment behind.
async fn find(shared: &Shared, name: &str, create: bool, until: Instant) -> Result<TopicDescription, Refusal> {
    if let Err(code) = topic::check_name(name) {
        return Ok(failed(name, code));
    }
    if let Some(record) = shared.map.current().topic(name) {
        return Ok(describe(name, record));
    }
    let path = path::topic_bucket(name);
    if let Ok(Some((bucket, version))) = shared.client.read::<TopicBucket>(&path).await {
        shared.map.set_bucket(&path, bucket, version);
    }
    if let Some(record) = shared.map.current().topic(name) {
        return Ok(describe(name, record));
    }
    if !create || !shared.config.auto_create_topics {
        return Ok(failed(name, ErrorCode::UnknownTopic));
    }
    match topics::create_by_default(shared, name, until).await {
        Ok(description) => Ok(description),
        // The whole request belongs to the controller.
        Err(refusal) if refusal.code == ErrorCode::NotController => Err(refusal),
        Err(refusal) => Ok(failed(name, refusal.code)),
    }
}

/// A topic as its record says.
pub(crate) fn describe(name: &str, record: &TopicRecord) -> TopicDescription {
    let placement = record.placement.iter().map(|(&partition, &range)| Placement { partition, range });
    TopicDescription {
        name: name.to_owned(),
        error: None,
        topic: record.topic,
        partitions: record.partitions,
        ring: record.ring,
        state: record.state,
        config: record.config,
        placement: placement.collect(),
    }
}

fn failed(name: &str, code: ErrorCode) -> TopicDescription {
    TopicDescription {
        name: name.to_owned(),
        error: Some(code),
        topic: TopicId(0),
        partitions: 0,
        ring: RingId(0),
        state: TopicState::Creating,
        config: TopicConfig::default(),
        placement: Vec::new(),
    }
}

fn nodes(map: &ClusterMap) -> Vec<NodeAddress> {
    let address = |broker: &coordination::BrokerRecord| NodeAddress {
        node: broker.node,
        rack: broker.rack.clone(),
        shards: broker.shards.clone(),
    };
    map.brokers.values().map(address).collect()
}

/// Rings with all their ranges; those of chunks that are not there yet were never active.
fn rings(map: &ClusterMap) -> Vec<RingMap> {
    let mut rings: BTreeMap<u16, RingMap> = BTreeMap::new();
    for (&(replication, _), chunk) in &map.chunks {
        let chunk = &chunk.record;
        let ring = rings.entry(replication).or_insert_with(|| RingMap {
            ring: chunk.ring,
            replication,
            chains: vec![RangeChain { epoch: Epoch(0), places: Vec::new() }; chunk.ranges_total as usize],
        });
        for (place, record) in ring.chains.iter_mut().skip(chunk.first.0 as usize).zip(&chunk.ranges) {
            *place = chain(record);
        }
    }
    rings.into_values().collect()
}

fn chain(record: &RangeRecord) -> RangeChain {
    let Some(active) = &record.active else { return RangeChain { epoch: Epoch(0), places: Vec::new() } };
    let places = active.chain.iter().map(|member| ChainPlace { node: member.node, shard: member.shard }).collect();
    RangeChain { epoch: active.epoch, places }
}
