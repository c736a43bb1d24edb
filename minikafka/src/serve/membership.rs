//! How a process of a cluster finds it: the coordinator's address, the cluster secret, and the check that they belong together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use minikafka_coordinator::zookeeper::SESSION_TIMEOUT_MIN;
use minikafka_coordinator::{CoordinatorClient, ZooKeeperAddress, ZooKeeperSession};
use minikafka_core::coordination::{ClusterRecord, CoordinationError};
use minikafka_gateway::{ClusterError, find_cluster};

use crate::cluster_secret;
use crate::exit::{Exit, Failure, Outcome};
use crate::quantity;

/// Options of every process of a cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct MembershipOptions {
    /// Where the cluster's few shared facts are, such as zk://zk1:2181,zk2:2181/minikafka.
    #[arg(long, value_name = "zk://HOST:PORT[,…][/PATH]", env = "MINIKAFKA_COORDINATOR")]
    pub coordinator: ZooKeeperAddress,
    /// The file with the cluster secret, which `minikafka cluster create` wrote; the same for every process of the cluster.
    #[arg(long, value_name = "FILE", env = "MINIKAFKA_SECRET_FILE")]
    pub secret_file: PathBuf,
    /// How long the coordinator keeps this process's place when it is not heard, 2s at least; ZooKeeper's own bounds apply.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = session_timeout, env = "MINIKAFKA_SESSION_TIMEOUT")]
    session_timeout: Duration,
}

/// A process's part in a cluster.
pub struct Membership {
    /// Its session, for whatever serves.
    pub session: Arc<ZooKeeperSession>,
    /// The cluster.
    pub cluster: ClusterRecord,
    /// Its secret.
    pub secret: Vec<u8>,
}

impl MembershipOptions {
    /// A session of its own with the coordinator.
    pub fn open_session(&self) -> Outcome<Arc<ZooKeeperSession>> {
        let session = ZooKeeperSession::open_with(&self.coordinator, self.session_timeout);
        session.map(Arc::new).map_err(|error| Failure::io("starting the coordinator's thread", &error))
    }

    /// Finds the cluster, and makes sure that the secret is its own.
    pub async fn join(&self) -> Outcome<Membership> {
        let secret = cluster_secret::load(&self.secret_file)?;
        let session = self.open_session()?;
        let client = CoordinatorClient::new(session.clone());
        let cluster = find_cluster(&client, &secret).await.map_err(|error| self.failure(&error))?;
        Ok(Membership { session, cluster, secret })
    }

    /// What the coordinator said, with where it is.
    pub fn failure(&self, error: &ClusterError) -> Failure {
        let exit = match error {
            ClusterError::Coordinator(CoordinationError::Unavailable { .. }) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("{}: {error}", self.coordinator))
    }
}

fn session_timeout(text: &str) -> Result<Duration, String> {
    let timeout = quantity::duration(text)?;
    match timeout >= SESSION_TIMEOUT_MIN {
        true => Ok(timeout),
        false => Err(format!("{text:?} is too short: {} s at least", SESSION_TIMEOUT_MIN.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use minikafka_coordinator::zookeeper::SESSION_TIMEOUT;

    use super::*;

    #[test]
    fn the_default_is_the_coordinators_and_too_short_ones_are_refused() {
        assert_eq!(session_timeout("10s"), Ok(SESSION_TIMEOUT));
        assert!(session_timeout("1s").is_err());
    }
}
