//! Well-behaved clients under way while something bad happens: producers and consumers of one topic, whose every deed
//! and every read goes into a [`History`].
//!
//! Producers differ by seed: keyed or not, each codec, small and large batches and records, few or many in flight. Some
//! end in order; others are dropped with records under way, whose outcome then stays unknown, and a new one follows.
//! Consumers read everything, stop, and go on in a new session at their position or at the beginning.
//!
//! Clients live through restarts of the broker: a delivery or a fetch that fails is a failure of the test.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use minikafka_checker::{History, Report};
use minikafka_client::core::Offset;
use minikafka_client::{Client, ConsumerOptions, OffsetQuery, TopicOptions};
use tokio::task::JoinSet;

use crate::seed::Seed;

mod consuming;
mod producing;

/// Clients that get nothing done for this long are stuck.
pub const STALL_MAX: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What is put under way.
#[derive(Clone, Debug)]
pub struct LoadSetup {
    /// `host:port` of every gateway.
    pub gateways: Vec<String>,
    /// The topic, which is created.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Members of its chains; 0: the cluster's default.
    pub replication: u16,
    /// Producers at a time.
    pub producers: u32,
    /// Consumers at a time.
    pub consumers: u32,
    /// Records of one producer that may be unanswered: with the time of an answer, this bounds the rate.
    pub unanswered_max: usize,
    /// Where all decisions begin.
    pub seed: Seed,
}

/// Clients under way.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    producers: JoinSet<Result<()>>,
    consumers: JoinSet<Result<()>>,
}

/// What all of them have.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) setup: LoadSetup,
    pub(crate) client: Client,
    history: Mutex<History>,
    acknowledged: AtomicU64,
    read: AtomicU64,
    producing: AtomicBool,
    consuming: AtomicBool,
}

impl Shared {
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Creates the topic and starts all clients.
    pub async fn start(setup: LoadSetup) -> Result<Self> {
        let client = Client::builder(&setup.gateways).client_name("load").connect().await?;
        let (partitions, replication) = (setup.partitions, setup.replication);
        let options = TopicOptions { partitions, replication, ..TopicOptions::default() };
        client.create_topic(&setup.topic, options).await?;
        let shared = Arc::new(Shared {
            setup,
            client,
            history: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            read: AtomicU64::new(0),
            producing: AtomicBool::new(true),
            consuming: AtomicBool::new(true),
        });
        let (mut producers, mut consumers) = (JoinSet::new(), JoinSet::new());
        for number in 0..shared.setup.producers {
            producers.spawn(producing::run(shared.clone(), number));
        }
        for number in 0..shared.setup.consumers {
            consumers.spawn(consuming::run(shared.clone(), number));
        }
        Ok(Self { shared, producers, consumers })
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Records read so far, over all consumers.
    pub fn read(&self) -> u64 {
        self.shared.read.load(Ordering::Relaxed)
    }

    /// Waits until so many records more are acknowledged, and as many read.
    pub async fn progress(&mut self, records: u64) -> Result<()> {
        let (acknowledged, read) = (self.acknowledged() + records, self.read() + records);
        let deadline = Instant::now() + STALL_MAX;
        while self.acknowledged() < acknowledged || self.read() < read {
            self.check().await?;
            let (done, seen) = (self.acknowledged(), self.read());
            ensure!(Instant::now() < deadline, "stuck at {done} of {acknowledged} acknowledged, {seen} of {read} read");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Fails with the error of a client that has ended by itself.
    pub async fn check(&mut self) -> Result<()> {
        for (clients, running) in
            [(&mut self.producers, &self.shared.producing), (&mut self.consumers, &self.shared.consuming)]
        {
            if let Some(ended) = clients.try_join_next() {
                ended.context("a client panicked")??;
                ensure!(!running.load(Ordering::Relaxed), "a client ended by itself");
            }
        }
        Ok(())
    }

    /// Lets every producer finish what it has, and end.
    pub async fn stop_producers(&mut self) -> Result<()> {
        self.shared.producing.store(false, Ordering::Relaxed);
        join(&mut self.producers, "producers").await
    }

    /// Ends all clients, reads everything from the beginning with a new one, and compares.
    pub async fn finish(mut self) -> Result<Report> {
        self.stop().await?;
        self.read_and_check().await
    }

    /// Reads everything from the beginning with a new client, and compares.
    pub(crate) async fn read_and_check(&self) -> Result<Report> {
        self.shared.read_all().await?;
        Ok(self.shared.history().check())
    }

    /// Lets all clients finish what they have, and end.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop_producers().await?;
        self.shared.consuming.store(false, Ordering::Relaxed);
        join(&mut self.consumers, "consumers").await
    }

    /// What all clients have, for others that write into the same history.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// After a failure: stops all clients where they are, reads and compares, because what they saw until then may tell
    /// why they failed.
    pub async fn autopsy(mut self) -> Result<Report> {
        self.producers.shutdown().await;
        self.consumers.shutdown().await;
        self.shared.read_all().await?;
        Ok(self.shared.history().check())
    }
}

async fn join(clients: &mut JoinSet<Result<()>>, what: &str) -> Result<()> {
    let all = async {
        while let Some(ended) = clients.join_next().await {
            ended.context("a client panicked")??;
        }
        Ok(())
    };
    tokio::time::timeout(STALL_MAX, all).await.with_context(|| format!("the {what} do not end"))?
}

impl Shared {
    /// The last reader: everything there is, by a client that knows nothing yet.
    async fn read_all(&self) -> Result<()> {
        let (topic, gateways) = (&self.setup.topic, &self.setup.gateways);
        let client = Client::builder(gateways).client_name("last reader").connect().await?;
        for (partition, start) in client.list_offsets(topic, OffsetQuery::Earliest).await? {
            ensure!(start == Offset(0), "partition {partition} begins at {start}, though nothing was deleted");
        }
        let ends = client.list_offsets(topic, OffsetQuery::Latest).await?;
        let mut left: u64 = ends.iter().map(|(_, end)| end.0).sum();
        let sessions: Vec<_> = {
            let mut history = self.history();
            ends.iter().map(|(partition, _)| history.session("last reader", partition.0, 0)).collect()
        };
        let mut consumer = client.consumer(topic, ConsumerOptions::default()).await?;
        while left > 0 {
            let next = tokio::time::timeout(STALL_MAX, consumer.next()).await;
            let record = next.with_context(|| format!("{left} records are there and do not come"))??;
            let (_, end) = ends[record.partition.0 as usize];
            if record.offset >= end {
                // Of a producer that was dropped: stored after the end was asked for.
                continue;
            }
            let session = sessions[record.partition.0 as usize];
            self.history().read(session, record.offset.0, record.key.as_deref(), record.value.as_deref());
            left -= 1;
        }
        sessions.into_iter().for_each(|session| self.history().finished(session));
        Ok(())
    }

    fn failed(&self, what: String) -> Result<()> {
        bail!("{what}; {}", self.setup.seed)
    }
}
