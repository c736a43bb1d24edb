//! A node's place in the coordinator: its record, created at start and again after every lost session.
//!
//! The record of this very data directory, left by a process that was killed, is removed at once: the lock on the directory
//! says that its owner is dead. The record of another directory is waited for as long as a dead process's session may
//! last; after that somebody else is alive under this node id. Absent: what the controller makes of any of it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use minikafka_coordinator::{CoordinatorClient, Registration};
use minikafka_core::coordination::{BrokerRecord, CoordinationError, Coordinator, KeyLife, path};

use crate::error::BrokerError;

/// Longer than a coordinator keeps the session of a dead process.
const FOREIGN_RECORD_KEPT: Duration = Duration::from_secs(15);
/// Between two looks at somebody else's record.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Registers a node, and blocks until it is; it stays registered until what is returned is dropped and the session ends.
pub(crate) fn register(coordinator: &Arc<dyn Coordinator>, record: &BrokerRecord) -> Result<Registration, BrokerError> {
    let key = path::broker(record.node);
    let value = serde_json::to_vec(record)
        .map_err(|error| CoordinationError::Malformed { path: key.clone(), reason: error.to_string() })?;
    let client = CoordinatorClient::new(coordinator.clone());
    take_place(&client, &key, record, FOREIGN_RECORD_KEPT)?;
    Ok(Registration::keep(coordinator, &key, value))
}

fn take_place(
    client: &CoordinatorClient,
    key: &str,
    record: &BrokerRecord,
    patience: Duration,
) -> Result<(), BrokerError> {
    let since = Instant::now();
    let mut told = false;
    loop {
        let Some(other) = future::block_on(try_place(client, key, record))? else { return Ok(()) };
        let address = other.shards.first().cloned().unwrap_or_default();
        if since.elapsed() >= patience {
            return Err(BrokerError::DuplicateNode { node: record.node, address });
        }
        if !std::mem::replace(&mut told, true) {
            let wait_s = patience.as_secs();
            tracing::warn!(
                node = %record.node, address, wait_s,
                "a broker with this node id and another data directory is registered; it may be dead, so waiting"
            );
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Creates the record, over one that this data directory left. The record of another directory is returned.
async fn try_place(
    client: &CoordinatorClient,
    key: &str,
    record: &BrokerRecord,
) -> Result<Option<BrokerRecord>, BrokerError> {
    loop {
        match client.create(key, record, KeyLife::Ephemeral).await {
            Ok(_) => return Ok(None),
            Err(CoordinationError::Exists { .. } | CoordinationError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Some((found, version)) = client.read::<BrokerRecord>(key).await? else { continue };
        if found.incarnation == record.incarnation {
            return Ok(None);
        }
        if found.store != record.store {
            return Ok(Some(found));
        }
        tracing::info!(node = %record.node, "the last process on this data directory is registered still; it is dead");
        match client.delete(key, version).await {
            Ok(())
            | Err(
                CoordinationError::Conflict { .. }
                | CoordinationError::Missing { .. }
                | CoordinationError::Unknown { .. },
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use minikafka_coordinator::EmbeddedCoordinator;
    use minikafka_core::{Incarnation, NodeId, StoreId};

    use super::*;

    fn record(store: u64, incarnation: u64) -> BrokerRecord {
        BrokerRecord {
            node: NodeId(7),
            shards: vec![format!("host-{store}:19100")],
            rack: String::new(),
            incarnation: Incarnation(incarnation),
            store: StoreId(store),
            version: "0".to_owned(),
        }
    }

    fn place(session: &CoordinatorClient, record: &BrokerRecord) -> Result<(), BrokerError> {
        take_place(session, &path::broker(record.node), record, Duration::ZERO)
    }

    fn registered(session: &CoordinatorClient) -> Incarnation {
        let read = future::block_on(session.read::<BrokerRecord>(&path::broker(NodeId(7))));
        read.expect("a coordinator in memory").expect("somebody is registered").0.incarnation
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_a_stranger_is_not() {
        let store = EmbeddedCoordinator::in_memory();
        let session = || CoordinatorClient::new(Arc::new(store.session()));
        let (killed, again, stranger) = (session(), session(), session());
        place(&killed, &record(1, 10)).expect("nobody else is there");
        place(&again, &record(1, 11)).expect("the lock on the data directory says that the first is dead");
        assert_eq!(registered(&again), Incarnation(11));
        place(&again, &record(1, 11)).expect("it is there already");

        let refused = place(&stranger, &record(2, 12)).expect_err("node 7 is alive");
        assert!(refused.to_string().contains("host-1:19100") && refused.to_string().contains("--node-id"), "{refused}");
        again.close();
        place(&stranger, &record(2, 12)).expect("it went");
        assert_eq!(registered(&stranger), Incarnation(12));
    }
}
