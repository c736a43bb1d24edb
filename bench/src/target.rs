//! Where the load goes: a topic's partitions and the shards that own them, asked once through the client.

use std::sync::Arc;
use std::time::Duration;

use minikafka_client::{Client, ClientOptions, OffsetQuery, TopicOptions};
use minikafka_core::topic::TopicConfig;
use minikafka_core::wire::TopicDescription;
use minikafka_core::{Epoch, ErrorCode, Partition, PartitionKey, RangeKey};

use crate::error::{BenchError, Result};
use crate::workload::Load;

/// Creating ten thousand partitions takes a while.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(120);

/// A partition and who owns it.
#[derive(Clone, Copy, Debug)]
pub struct TargetPartition {
    /// Topic and partition.
    pub key: PartitionKey,
    /// Its range.
    pub range: RangeKey,
    /// The epoch of its range.
    pub epoch: Epoch,
    /// Index of its shard's address in [`Target::addresses`].
    pub shard: usize,
}

/// A topic, ready to be loaded.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of every shard that owns a partition.
    pub addresses: Vec<Arc<str>>,
    /// Partition 0, 1, …
    pub partitions: Vec<TargetPartition>,
}

/// A client for the cluster behind these gateways.
pub async fn connect(gateways: &[String]) -> Result<Client> {
    let options = ClientOptions {
        client_name: "minikafka-bench".into(),
        request_timeout: TOPIC_TIMEOUT,
        create_missing_topics: false,
        ..ClientOptions::default()
    };
    Ok(Client::builder(gateways).options(options).connect().await?)
}

/// The topic as the load wants it; created when it is missing and `may_create`.
pub async fn topic(client: &Client, load: &Load, may_create: bool) -> Result<Arc<TopicDescription>> {
    let options = TopicOptions {
        partitions: load.partitions,
        config: TopicConfig {
            retention_bytes: load.retention_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            ..TopicConfig::default()
        },
        ..TopicOptions::default()
    };
    if may_create {
        match client.create_topic(&load.topic, options).await {
            Err(error) if error.code() != Some(ErrorCode::TopicExists) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(client.topic(&load.topic).await?)
}

/// Who owns what of a topic.
pub async fn resolve(gateways: &[String], load: &Load, may_create: bool) -> Result<Target> {
    let client = connect(gateways).await?;
    let topic = topic(&client, load, may_create).await?;
    // A broker that has just started may not act for its ranges yet, and then a map is out of date at once.
    client.list_offsets(&topic.name, OffsetQuery::Latest).await?;
    let map = client.refresh_map().await?;
    let mut target = Target { addresses: Vec::new(), partitions: Vec::new() };
    for partition in (0..topic.partitions).map(Partition) {
        let unowned = || BenchError::failed(format!("partition {partition} of {} has no owner", topic.name));
        let range = map.range_of(&topic, partition).ok_or_else(unowned)?;
        let owner = map.owner_of(range).ok_or_else(unowned)?;
        let known = target.addresses.iter().position(|address| *address == owner.address);
        let shard = known.unwrap_or_else(|| {
            target.addresses.push(owner.address.clone());
            target.addresses.len() - 1
        });
        let key = PartitionKey { topic: topic.topic, partition };
        target.partitions.push(TargetPartition { key, range, epoch: owner.epoch, shard });
    }
    Ok(target)
}
