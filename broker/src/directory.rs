//! Where the other brokers' shards and the elected gateway are, as the coordinator last said.
//!
//! One thread of the process watches `/brokers` and `/gateways` and resolves names; shards look addresses up and never
//! wait. What is no longer in the coordinator is kept until something else takes its place: a broker whose session is gone
//! may well be there, and data goes on without the coordinator. Absent: who is alive, which only a connection can tell.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use futures_lite::future;
use minikafka_coordinator::CoordinatorClient;
use minikafka_core::chain::ChainMember;
use minikafka_core::coordination::{BrokerRecord, CoordinationError, Coordinator, GatewayRecord, path};
use minikafka_core::{Incarnation, NodeId};

/// Between two attempts to read. Short, because a stop is noticed only then.
const RETRY: Duration = Duration::from_millis(100);

/// What the shards of a process look addresses up in.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    brokers: BTreeMap<NodeId, KnownBroker>,
    gateway: Option<String>,
}

#[derive(Debug)]
struct KnownBroker {
    record: BrokerRecord,
    /// Of shard 0, 1, …; none: its name does not resolve.
    shards: Vec<Option<SocketAddr>>,
}

impl Directory {
    /// Where a member's shard listens; none of a process that is not, or no longer, known.
    pub fn address(&self, member: &ChainMember) -> Option<SocketAddr> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let broker = known.brokers.get(&member.node)?;
        let is_same_process = broker.record.incarnation == member.incarnation;
        broker.shards.get(usize::from(member.shard.0)).copied().flatten().filter(|_| is_same_process)
    }

    /// The process that a node runs, as far as is known.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.brokers.get(&node).map(|broker| broker.record.incarnation)
    }

    /// `host:port` of the gateway that is the controller.
    pub fn gateway(&self) -> Option<String> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).gateway.clone()
    }

    fn broker_is(&self, record: BrokerRecord) {
        let is_known = |known: &Known| known.brokers.get(&record.node).is_some_and(|broker| broker.record == record);
        if is_known(&self.known.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        // Names are resolved without the lock: that may take a while.
        let shards = record.shards.iter().map(|address| resolve(address)).collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.brokers.insert(record.node, KnownBroker { record, shards });
    }

    fn gateway_is(&self, address: String) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).gateway = Some(address);
    }
}

fn resolve(address: &str) -> Option<SocketAddr> {
    let found = address.to_socket_addrs().map(|mut addresses| addresses.next());
    found.unwrap_or_else(|error| {
        tracing::warn!(address, %error, "cannot resolve a shard's address; check --advertise of that broker");
        None
    })
}

/// Keeps a [`Directory`] up to date until it is dropped.
pub(crate) struct DirectoryKeeper {
    pub directory: Arc<Directory>,
    _stop: oneshot::Sender<()>,
}

impl DirectoryKeeper {
    /// Starts the thread.
    pub fn start(coordinator: Arc<dyn Coordinator>) -> io::Result<Self> {
        let directory = Arc::new(Directory::default());
        let (stop, stopped) = oneshot::channel();
        let kept = directory.clone();
        let keeping = move || {
            let stopped = async {
                let _ = stopped.await;
            };
            future::block_on(future::or(stopped, keep(&kept, CoordinatorClient::new(coordinator))));
        };
        thread::Builder::new().name("directory".to_owned()).spawn(keeping)?;
        Ok(Self { directory, _stop: stop })
    }
}

async fn keep(directory: &Directory, client: CoordinatorClient) {
    let (mut brokers, mut gateways) = (client.watch(path::BROKERS), client.watch(path::GATEWAYS));
    loop {
        match read(directory, &client).await {
            Ok(()) => drop(future::or(brokers.next(), gateways.next()).await),
            Err(error) => {
                tracing::debug!(%error, "cannot read where the other brokers are");
                // This thread has nothing else to do, and whoever stops it does not wait for it.
                thread::sleep(RETRY);
                future::yield_now().await;
            }
        }
    }
}

async fn read(directory: &Directory, client: &CoordinatorClient) -> Result<(), CoordinationError> {
    for name in client.children(path::BROKERS).await? {
        match client.read::<BrokerRecord>(&format!("{}/{name}", path::BROKERS)).await {
            Ok(Some((record, _))) => directory.broker_is(record),
            Ok(None) => {}
            Err(error @ CoordinationError::Malformed { .. }) => tracing::error!(%error, "a broker cannot be reached"),
            Err(error) => return Err(error),
        }
    }
    let mut names = client.children(path::GATEWAYS).await?;
    names.sort_by_key(|name| sequence(name));
    for name in names {
        // The lowest is elected; one that goes while it is read makes room for the next.
        if let Some((record, _)) = client.read::<GatewayRecord>(&format!("{}/{name}", path::GATEWAYS)).await? {
            directory.gateway_is(record.address);
            break;
        }
    }
    Ok(())
}

/// The number behind the last dash; a name without one comes last.
fn sequence(name: &str) -> u64 {
    name.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use minikafka_core::{ShardId, StoreId};

    use super::*;

    fn record(incarnation: u64, port: u16) -> BrokerRecord {
        BrokerRecord {
            node: NodeId(1),
            shards: vec![format!("127.0.0.1:{port}"), "no address".to_owned()],
            rack: String::new(),
            incarnation: Incarnation(incarnation),
            store: StoreId(3),
            version: String::new(),
        }
    }

    fn member(shard: u16, incarnation: u64) -> ChainMember {
        let incarnation = Incarnation(incarnation);
        ChainMember { node: NodeId(1), shard: ShardId(shard), store: StoreId(3), incarnation }
    }

    #[test]
    fn only_the_process_that_is_meant_has_an_address() {
        let directory = Directory::default();
        assert_eq!(directory.address(&member(0, 7)), None);
        directory.broker_is(record(7, 19_100));
        assert_eq!(directory.address(&member(0, 7)), Some(([127, 0, 0, 1], 19_100).into()));
        assert_eq!((directory.address(&member(1, 7)), directory.address(&member(2, 7))), (None, None));
        directory.broker_is(record(8, 19_200));
        assert_eq!(directory.address(&member(0, 7)), None, "it started again");
        assert_eq!(directory.address(&member(0, 8)), Some(([127, 0, 0, 1], 19_200).into()));
    }
}
