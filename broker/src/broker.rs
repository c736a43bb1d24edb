//! A broker process: its data directory, its shard threads, its place in the coordinator.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use futures_channel::mpsc as ended;
use futures_lite::{StreamExt, future};
use minikafka_coordinator::{Registration, SessionWatch};
use minikafka_core::coordination::{BrokerRecord, Coordinator, path};
use minikafka_core::{Incarnation, ShardId};
use minikafka_storage::Store;

use crate::complaints::ComplaintBox;
use crate::config::BrokerConfig;
use crate::directory::DirectoryKeeper;
use crate::error::BrokerError;
use crate::metrics::BrokerMetrics;
use crate::owners::RangeOwners;
use crate::registration;
use crate::shard_thread::{self, Ending, ShardThread};

/// How long a stop waits for requests in flight.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// Starts brokers.
pub struct Broker;

impl Broker {
    /// Opens the data directory, starts the shards and registers the node. Returns when all shards listen; their ranges
    /// come when the controller asks for them.
    pub fn start(config: BrokerConfig, coordinator: Arc<dyn Coordinator>) -> Result<BrokerHandle, BrokerError> {
        let store = Store::open(&config.data_dir, config.cluster)?;
        let incarnation = Incarnation(rand::random());
        let config = Arc::new(config);
        let owners = RangeOwners::default();
        let no_thread = |error: std::io::Error| BrokerError::Executor { shard: ShardId(0), reason: error.to_string() };
        let keeper = DirectoryKeeper::start(coordinator.clone()).map_err(no_thread)?;
        let secret = config.cluster_secret.clone();
        let complaints = ComplaintBox::start(config.cluster, secret, keeper.directory.clone()).map_err(no_thread)?;
        let session = SessionWatch::begin(&coordinator, &path::broker(config.node));
        let (metrics, asked) = BrokerMetrics::new(&config, session);
        let (ready, readies) = mpsc::channel();
        let (ended, endings) = ended::unbounded();
        let mut shards = Vec::new();
        for (shard, asked) in (0..config.shards).map(ShardId).zip(asked) {
            let start = shard_thread::Start {
                config: config.clone(),
                shard,
                store: store.store_id(),
                incarnation,
                owners: owners.clone(),
                directory: keeper.directory.clone(),
                complaints: complaints.clone(),
                ready: ready.clone(),
                asked,
                ended: ended.clone(),
            };
            shards.push(ShardThread::spawn(start)?);
        }
        drop(ready);
        let mut handle = BrokerHandle {
            shards,
            endings,
            addresses: Vec::new(),
            metrics,
            coordinator,
            registration: None,
            _keeper: keeper,
            _store: store,
        };
        handle.addresses = match await_readies(&config, &readies) {
            Ok(addresses) => addresses,
            Err(error) => {
                // The first failure is what the operator must see; the others only follow from it.
                let _ = handle.end_shards(Ending::Orderly);
                return Err(error);
            }
        };
        match registration::register(&handle.coordinator, &handle.record(&config, incarnation)) {
            Ok(registration) => handle.registration = Some(registration),
            Err(error) => {
                // Nothing was written yet: what matters is why.
                let _ = handle.end_shards(Ending::Orderly);
                return Err(error);
            }
        }
        Ok(handle)
    }
}

/// The advertised address of every shard, in order, once all listen.
fn await_readies(
    config: &BrokerConfig,
    readies: &mpsc::Receiver<Result<(ShardId, u16), BrokerError>>,
) -> Result<Vec<String>, BrokerError> {
    let mut addresses = vec![String::new(); config.shards.into()];
    for _ in 0..config.shards {
        let lost = |_| BrokerError::ShardLost { shard: ShardId(0) };
        let (shard, port) = readies.recv().map_err(lost)??;
        addresses[usize::from(shard.0)] = format!("{}:{port}", config.advertise_host);
    }
    Ok(addresses)
}

/// A running broker. Dropping it without [`BrokerHandle::stop`] is a crash, from which the next start recovers.
pub struct BrokerHandle {
    shards: Vec<ShardThread>,
    endings: ended::UnboundedReceiver<ShardId>,
    addresses: Vec<String>,
    metrics: BrokerMetrics,
    coordinator: Arc<dyn Coordinator>,
    /// The node's record, once it is registered.
    registration: Option<Registration>,
    /// Knows where the others are, for as long as it lives.
    _keeper: DirectoryKeeper,
    /// Holds the lock of the data directory.
    _store: Store,
}

impl BrokerHandle {
    /// `host:port` of shard 0, 1, … as others reach them.
    pub fn shard_addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where its figures are.
    pub fn metrics(&self) -> BrokerMetrics {
        self.metrics.clone()
    }

    /// Waits until a shard ends by itself, which it should not; then the process had better stop.
    pub async fn shard_ended(&mut self) -> ShardId {
        match self.endings.next().await {
            Some(shard) => shard,
            None => future::pending().await,
        }
    }

    /// Leaves the cluster, answers what is in flight, makes everything durable, closes the files.
    pub fn stop(mut self) -> Result<(), BrokerError> {
        drop(self.registration.take());
        self.coordinator.close();
        self.end_shards(Ending::Orderly)
    }

    /// Ends as a crash looks to everybody else: every connection is cut at once, nothing is answered, the coordinator is not
    /// told. Returns when the files are closed, so that the node can be started again in this process. For tests and
    /// measurements; dropping the handle does the same without waiting.
    pub fn cut(self) -> Result<(), BrokerError> {
        self.end_shards(Ending::Cut)
    }

    /// Ends as a process looks that is stopped, or cut off from everybody, for `pause`: its connections stay open and nothing
    /// is answered. Then as [`Self::cut`].
    pub fn fall_silent(self, pause: Duration) -> Result<(), BrokerError> {
        self.end_shards(Ending::Silent(pause))
    }

    fn end_shards(mut self, ending: Ending) -> Result<(), BrokerError> {
        for shard in &mut self.shards {
            shard.ask_to_end(ending);
        }
        let mut first = Ok(());
        for shard in self.shards {
            first = first.and(shard.join());
        }
        first
    }

    fn record(&self, config: &BrokerConfig, incarnation: Incarnation) -> BrokerRecord {
        BrokerRecord {
            node: config.node,
            shards: self.addresses.clone(),
            rack: config.rack.clone(),
            incarnation,
            store: self._store.store_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
