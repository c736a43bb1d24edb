//! The cluster's record: its id, the replication of its own state, and a check of its secret; written once.

use minikafka_coordinator::CoordinatorClient;
use minikafka_core::ClusterId;
use minikafka_core::coordination::{ClusterRecord, CoordinationError, KeyLife, RECORDS_FORMAT, path};
use minikafka_core::wire::secret_check;
use thiserror::Error;

/// Why a process has no part in a cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// There is none in this coordinator, at this path.
    #[error(
        "the coordinator knows no cluster here; create it once with `minikafka cluster create`, or correct the path"
    )]
    None,
    /// It was created with another secret.
    #[error(
        "this is not the secret of cluster {0:016x}: every broker and gateway needs the file that `minikafka cluster \
         create` wrote (--secret-file)"
    )]
    WrongSecret(u64),
    /// It was created by another release.
    #[error(
        "the records of cluster {cluster:016x} have format {found}, this release knows {RECORDS_FORMAT}: run a matching one"
    )]
    Incompatible {
        /// Which.
        cluster: u64,
        /// The format of its records.
        found: u16,
    },
    /// The coordinator does not answer, or refuses.
    #[error(transparent)]
    Coordinator(#[from] CoordinationError),
}

/// The record of the cluster that this coordinator keeps, for a process that has `secret`.
pub async fn find_cluster(session: &CoordinatorClient, secret: &[u8]) -> Result<ClusterRecord, ClusterError> {
    let (record, _) = session.read::<ClusterRecord>(path::CLUSTER).await?.ok_or(ClusterError::None)?;
    let cluster = record.cluster;
    if record.format != RECORDS_FORMAT {
        return Err(ClusterError::Incompatible { cluster: cluster.0, found: record.format });
    }
    match record.secret_check.is_empty() || record.secret_check == secret_check(secret, cluster) {
        true => Ok(record),
        false => Err(ClusterError::WrongSecret(cluster.0)),
    }
}

/// Creates the cluster's record, or finds the one that is there: whoever comes second finds the first one's. An
/// `Unknown` outcome is resolved by calling again.
pub async fn create_cluster(
    session: &CoordinatorClient,
    secret: &[u8],
    internal_replication: u16,
) -> Result<ClusterRecord, ClusterError> {
    match find_cluster(session, secret).await {
        Err(ClusterError::None) => {}
        found => return found,
    }
    let cluster = ClusterId(rand::random_range(1..=u64::MAX));
    let secret_check = secret_check(secret, cluster);
    let record = ClusterRecord { cluster, internal_replication, format: RECORDS_FORMAT, secret_check };
    match session.create(path::CLUSTER, &record, KeyLife::Persistent).await {
        Ok(_) => Ok(record),
        Err(CoordinationError::Exists { .. }) => find_cluster(session, secret).await,
        Err(error) => Err(error.into()),
    }
}
