//! Keeps the map fresh: reads everything when a session begins, and what changed when a watch says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minikafka_coordinator::CoordinatorClient;
use minikafka_core::coordination::{BrokerRecord, CoordinationError, CoordinatorEvent, path};
use minikafka_core::{NodeId, OperationId};

use super::MapStore;
use crate::backoff::Backoff;

/// What the map is made of.
pub(crate) const PREFIXES: [&str; 4] = [path::BROKERS, path::RINGS, path::TOPICS, path::OPERATIONS];

/// Reads everything once.
pub(crate) async fn read_all(client: &CoordinatorClient, map: &MapStore) -> Result<(), CoordinationError> {
    for prefix in PREFIXES {
        read(client, map, prefix).await?;
    }
    Ok(())
}

/// Follows one of the prefixes until dropped. A coordinator that is away is asked again and again; meanwhile the
/// map stays as it is.
pub(crate) async fn keep(client: CoordinatorClient, map: Arc<MapStore>, prefix: &'static str) {
    let mut events = client.watch(prefix);
    loop {
        for path in paths_to_read(events.next().await, prefix) {
            let mut backoff = Backoff::default();
            while let Err(error) = read(&client, &map, &path).await {
                tracing::warn!(%path, %error, "cannot refresh the map");
                backoff.wait().await;
            }
        }
    }
}

/// What events ask to be read: everything when it is not known what changed.
fn paths_to_read(events: Vec<CoordinatorEvent>, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for event in events {
        match event {
            CoordinatorEvent::Changed { path } => paths.push(path),
            CoordinatorEvent::SessionStarted => paths.push(prefix.to_owned()),
            CoordinatorEvent::SessionSuspended | CoordinatorEvent::SessionExpired => {}
        }
    }
    if prefix == path::BROKERS || paths.iter().any(|path| path == prefix) {
        paths.truncate(0);
        paths.push(prefix.to_owned());
    }
    paths
}

/// Reads a path, and whatever lies below it.
pub(crate) async fn read(client: &CoordinatorClient, map: &MapStore, changed: &str) -> Result<(), CoordinationError> {
    let names: Vec<&str> = changed.split('/').skip(1).collect();
    match names[..] {
        ["brokers", ..] => {
            map.set_brokers(brokers(client).await?);
            Ok(())
        }
        ["rings"] => {
            for replication in client.children(path::RINGS).await? {
                read_ring(client, map, &replication).await?;
            }
            Ok(())
        }
        ["rings", replication] => read_ring(client, map, replication).await,
        ["rings", replication, chunk] => read_chunk(client, map, replication, chunk).await,
        ["topics"] => {
            for bucket in client.children(path::TOPICS).await? {
                read_bucket(client, map, &format!("{}/{bucket}", path::TOPICS)).await?;
            }
            Ok(())
        }
        ["topics", _] => read_bucket(client, map, changed).await,
        ["operations"] => {
            let listed = client.children(path::OPERATIONS).await?.into_iter().filter_map(|name| name.parse().ok());
            let known = map.current().operations.keys().map(|operation| operation.0).collect::<Vec<_>>();
            for operation in listed.chain(known).collect::<BTreeSet<u64>>() {
                read_operation(client, map, OperationId(operation)).await?;
            }
            Ok(())
        }
        ["operations", operation] => match operation.parse() {
            Ok(operation) => read_operation(client, map, OperationId(operation)).await,
            Err(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The brokers that are registered now.
pub(crate) async fn brokers(client: &CoordinatorClient) -> Result<BTreeMap<NodeId, BrokerRecord>, CoordinationError> {
    let mut brokers = BTreeMap::new();
    for name in client.children(path::BROKERS).await? {
        let read = client.read::<BrokerRecord>(&format!("{}/{name}", path::BROKERS)).await;
        if let Some((broker, _)) = skip_malformed(read)?.flatten() {
            brokers.insert(broker.node, broker);
        }
    }
    Ok(brokers)
}

async fn read_ring(client: &CoordinatorClient, map: &MapStore, replication: &str) -> Result<(), CoordinationError> {
    for chunk in client.children(&format!("{}/{replication}", path::RINGS)).await? {
        read_chunk(client, map, replication, &chunk).await?;
    }
    Ok(())
}

async fn read_chunk(
    client: &CoordinatorClient,
    map: &MapStore,
    replication: &str,
    chunk: &str,
) -> Result<(), CoordinationError> {
    let (Ok(replication), Ok(chunk)) = (replication.parse(), chunk.parse()) else { return Ok(()) };
    if let Some((record, version)) = skip_malformed(client.read(&path::ring_chunk(replication, chunk)).await)?.flatten()
    {
        map.set_chunk(replication, chunk, record, version);
    }
    Ok(())
}

async fn read_bucket(client: &CoordinatorClient, map: &MapStore, path: &str) -> Result<(), CoordinationError> {
    if let Some((record, version)) = skip_malformed(client.read(path).await)?.flatten() {
        map.set_bucket(path, record, version);
    }
    Ok(())
}

async fn read_operation(
    client: &CoordinatorClient,
    map: &MapStore,
    operation: OperationId,
) -> Result<(), CoordinationError> {
    match skip_malformed(client.read(&path::operation(operation)).await)? {
        Some(Some((record, version))) => map.set_operation(record, version),
        Some(None) => map.remove_operation(operation),
        None => {}
    }
    Ok(())
}

/// A record that cannot be read must not keep the others from being read: it is told and left out.
fn skip_malformed<T>(read: Result<T, CoordinationError>) -> Result<Option<T>, CoordinationError> {
    match read {
        Err(error @ CoordinationError::Malformed { .. }) => {
            tracing::error!(%error, "a record in the coordinator is left out");
            Ok(None)
        }
        other => other.map(Some),
    }
}
