//! Creating a cluster: its id and the replication of its own state, written once.

use minikafka_coordinator::CoordinatorClient;
use minikafka_core::ClusterId;
use minikafka_core::coordination::{ClusterRecord, CoordinationError, KeyLife, path};

/// Creates the cluster's record, or reads the one that is there: whoever comes second finds the first one's. An
/// `Unknown` outcome is resolved by calling again.
pub async fn create_cluster(
    session: &CoordinatorClient,
    internal_replication: u16,
) -> Result<ClusterRecord, CoordinationError> {
    if let Some((record, _)) = session.read(path::CLUSTER).await? {
        return Ok(record);
    }
    let record =
        ClusterRecord { cluster: ClusterId(rand::random_range(1..=u64::MAX)), internal_replication, format: 1 };
    match session.create(path::CLUSTER, &record, KeyLife::Persistent).await {
        Ok(_) => Ok(record),
        Err(CoordinationError::Exists { path }) => match session.read(&path).await? {
            Some((record, _)) => Ok(record),
            None => Err(CoordinationError::Missing { path }),
        },
        Err(error) => Err(error),
    }
}
