//! Connections to shard ports, as controller: one per shard, opened when needed, opened again when it broke.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use minikafka_client::{ClusterSecret, ConnectOptions, Connection, Error};
use minikafka_core::coordination::BrokerRecord;
use minikafka_core::wire::{Api, Role, Wire};
use minikafka_core::*;
use thiserror::Error;

/// Why a shard did not answer. Whether it did what was asked is unknown.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// No such shard.
    #[error("node {node} has no shard {shard}")]
    NoShard { node: NodeId, shard: ShardId },
    /// Somebody else lives at that address.
    #[error("{address} is node {found_node} shard {found_shard}, not node {node} shard {shard}: check --advertise")]
    Stranger { address: String, node: NodeId, shard: ShardId, found_node: NodeId, found_shard: ShardId },
    /// The connection or the request failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// The connections of one gateway.
#[derive(Debug)]
pub(crate) struct ShardLinks {
    options: ConnectOptions,
    slots: Mutex<BTreeMap<String, Slot>>,
}

impl ShardLinks {
    pub(crate) fn new(cluster: ClusterId, secret: &[u8]) -> Self {
        let options = ConnectOptions {
            client_name: "minikafka gateway".into(),
            role: Role::Controller,
            cluster,
            secret: Some(ClusterSecret::new(secret)),
            connect_timeout: Duration::from_millis(limits::SHARD_CONNECT_WAIT_MS),
        };
        Self { options, slots: Mutex::default() }
    }

    /// Asks a shard and awaits its answer.
    pub(crate) async fn call<Q: Wire, A: Wire>(
        &self,
        broker: &BrokerRecord,
        shard: ShardId,
        api: Api,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, LinkError> {
        let no_shard = LinkError::NoShard { node: broker.node, shard };
        let address = broker.shards.get(usize::from(shard.0)).ok_or(no_shard)?;
        let connection = self.connection(address, broker.node, shard).await?;
        Ok(connection.call(api, request, deadline).await?)
    }

    /// Forgets connections to addresses that no live broker has.
    pub(crate) fn retain(&self, brokers: &BTreeMap<NodeId, BrokerRecord>) {
        let live: BTreeSet<&String> = brokers.values().flat_map(|broker| &broker.shards).collect();
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| live.contains(address));
    }

    async fn connection(&self, address: &str, node: NodeId, shard: ShardId) -> Result<Connection, LinkError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(address.to_owned()).or_default())
        };
        // Whoever comes second waits for the first one's connection instead of opening another.
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Connection::connect(address, &self.options).await?;
        let (found_node, found_shard) = (connection.server().node, connection.server().shard);
        if (found_node, found_shard) != (node, shard) {
            return Err(LinkError::Stranger { address: address.to_owned(), node, shard, found_node, found_shard });
        }
        Ok(slot.insert(connection).clone())
    }
}
