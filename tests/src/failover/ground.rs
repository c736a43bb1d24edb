//! Where heads die: threads of this process, or processes of their own.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use minikafka_client::Client;
use minikafka_coordinator::{CoordinatorClient, ZooKeeperSession};
use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cluster::{self, Health, Member, Others};
use crate::{in_process, process};

/// A head that falls silent stays so for longer than anybody waits for it, and for less than its session.
pub const SILENCE: Duration = Duration::from_secs(8);

/// What happens to a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It dies, and its connections with it.
    Death,
    /// Nothing is heard of it any more, and its connections stay.
    Silence,
}

/// Three brokers, numbered from 1, with a gateway at least and a coordinator.
pub enum Ground {
    /// All in this process.
    Threads(Box<in_process::Cluster>),
    /// Each a process, in a network of its own.
    Processes(Processes),
}

/// A cluster of processes, and the directory that goes with it.
pub struct Processes {
    cluster: Arc<Mutex<cluster::Cluster>>,
    _directory: TempDir,
}

fn locked(cluster: &Mutex<cluster::Cluster>) -> MutexGuard<'_, cluster::Cluster> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ground {
    /// Brokers in this process, in a directory of their own below `parent`.
    pub async fn threads(parent: &Path, ranges: u32) -> Self {
        let setup = in_process::ClusterSetup { ranges, ..in_process::ClusterSetup::default() };
        Self::Threads(Box::new(in_process::Cluster::start(parent, setup).await))
    }

    /// Processes, in a directory of their own below `parent`.
    ///
    /// # Errors
    /// The cluster does not start.
    pub async fn processes(parent: &Path) -> Result<Self> {
        let directory = tempfile::tempdir_in(parent)?;
        let setup =
            cluster::ClusterSetup { binary: process::binary()?, ..cluster::ClusterSetup::new(directory.path())? };
        let cluster = spawn_blocking(move || cluster::Cluster::up(&setup)).await??;
        Ok(Self::Processes(Processes { cluster: Arc::new(Mutex::new(cluster)), _directory: directory }))
    }

    /// A client that knows all gateways.
    ///
    /// # Errors
    /// No gateway answers.
    pub async fn client(&self) -> Result<Client> {
        match self {
            Self::Threads(cluster) => Ok(cluster.client().await),
            Self::Processes(processes) => {
                let gateways = locked(&processes.cluster).gateways();
                Ok(Client::builder(gateways).connect().await?)
            }
        }
    }

    /// A session of its own with the coordinator.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn session(&self) -> Result<CoordinatorClient> {
        match self {
            Self::Threads(cluster) => Ok(cluster.session()),
            Self::Processes(processes) => {
                let address = locked(&processes.cluster).coordinator().parse()?;
                Ok(CoordinatorClient::new(Arc::new(ZooKeeperSession::open(&address)?)))
            }
        }
    }

    /// Where the first shard of a broker listens.
    pub fn shard_address(&self, node: u32) -> String {
        match self {
            Self::Threads(cluster) => cluster.brokers[&node].shard_addresses()[0].clone(),
            Self::Processes(processes) => {
                let address = locked(&processes.cluster).network().address(Member::Broker(node as u8));
                format!("{address}:{}", cluster::PORT_BASE)
            }
        }
    }

    /// Harms a broker, from now on or from when the returned task runs; that is done when the harm is over.
    pub fn harm(&mut self, node: u32, harm: Harm) -> JoinHandle<Result<()>> {
        match self {
            Self::Threads(cluster) => {
                let over = match harm {
                    Harm::Death => cluster.cut(node),
                    Harm::Silence => cluster.silence(node, SILENCE),
                };
                tokio::spawn(async move { over.await.context("a broker panicked") })
            }
            Self::Processes(processes) => {
                let cluster = processes.cluster.clone();
                let member = Member::Broker(node as u8);
                spawn_blocking(move || match harm {
                    Harm::Death => locked(&cluster).kill(member).map(drop),
                    Harm::Silence => {
                        locked(&cluster).isolate(member, Others::All)?;
                        std::thread::sleep(SILENCE);
                        locked(&cluster).heal()
                    }
                })
            }
        }
    }

    /// Starts a broker that was harmed, unless it lived through it, with the disk it had.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self, node: u32) -> Result<()> {
        match self {
            Self::Threads(cluster) => cluster.restart(node).await,
            Self::Processes(processes) => {
                let (cluster, member) = (processes.cluster.clone(), Member::Broker(node as u8));
                let start = move || {
                    let mut cluster = locked(&cluster);
                    match cluster.health(member) {
                        Health::Running => Ok(()),
                        _ => cluster.start(member),
                    }
                };
                spawn_blocking(start).await??;
            }
        }
        Ok(())
    }

    /// Ends everything.
    ///
    /// # Errors
    /// Something of it does not end.
    pub async fn end(self) -> Result<()> {
        match self {
            Self::Threads(cluster) => cluster.end().await,
            Self::Processes(Processes { cluster, _directory }) => {
                let cluster = Arc::into_inner(cluster).context("nobody harms the cluster any more")?;
                let cluster = cluster.into_inner().unwrap_or_else(PoisonError::into_inner);
                spawn_blocking(move || cluster.down()).await??;
            }
        }
        Ok(())
    }
}
