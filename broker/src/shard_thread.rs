//! The thread of a shard: one glommio executor, from its start to its end.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use futures_channel::{mpsc as ended, oneshot};
use futures_lite::{StreamExt, future};
use glommio::timer::sleep;
use glommio::{
    ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares, executor, spawn_local, spawn_local_into,
};
use minikafka_core::chain::ChainMember;
use minikafka_core::{Incarnation, ShardId, StoreId};
use minikafka_metrics::Exposition;
use minikafka_net::{ClusterSecret, LinkConfig, Listener, NetStats, Server, ServerConfig, ServerIdentity};
use minikafka_storage::StorageConfig;
use minikafka_storage::disk::dma::{DmaDisk, choose_durability};

use crate::broker::DRAIN;
use crate::clock::Clock;
use crate::complaints::ComplaintBox;
use crate::config::BrokerConfig;
use crate::directory::Directory;
use crate::error::BrokerError;
use crate::metrics::{Asked, LoopDelay, expose_links, expose_loop, expose_net};
use crate::owners::RangeOwners;
use crate::peers::tcp::TcpPeers;
use crate::service::ShardService;
use crate::shard::{Shard, ShardSetup, TICK};

/// Reads get this many shares of the core where appends get 1,000: catching up does not slow the tail.
const READING_SHARES: usize = 250;
/// Deleting what is old may take its time.
const RETENTION_SHARES: usize = 100;
/// A controller's request must not wait behind a full queue of appends for longer than this.
const CHANGE_LATENCY: Duration = Duration::from_millis(10);

/// See [`beat`].
const HEARTBEAT: Duration = Duration::from_millis(20);
/// So much later than it should come it counts as a stall: producers feel that.
const STALL: Duration = Duration::from_millis(100);

/// What a shard's thread is started with.
pub(crate) struct Start {
    pub config: Arc<BrokerConfig>,
    pub shard: ShardId,
    pub store: StoreId,
    pub incarnation: Incarnation,
    pub owners: RangeOwners,
    pub directory: Arc<Directory>,
    pub complaints: ComplaintBox,
    /// Told once: the port it listens on, or why it does not.
    pub ready: mpsc::Sender<Result<(ShardId, u16), BrokerError>>,
    /// Who asks for its figures.
    pub asked: ended::Receiver<Asked>,
    /// Told when it ends.
    pub ended: ended::UnboundedSender<ShardId>,
}

/// How a shard ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What is in flight is answered first.
    Orderly,
    /// As a crash looks to everybody else: all connections are cut at once, and nothing is answered any more.
    Cut,
    /// The same, after the thread stood still for so long with all its connections open.
    Silent(Duration),
}

/// A running shard thread. Dropped without being asked to end, it ends as [`Ending::Cut`].
pub(crate) struct ShardThread {
    shard: ShardId,
    stop: Option<oneshot::Sender<Ending>>,
    join: ExecutorJoinHandle<Result<(), BrokerError>>,
}

impl ShardThread {
    pub fn spawn(start: Start) -> Result<Self, BrokerError> {
        let shard = start.shard;
        let (stop, stopped) = oneshot::channel();
        let executor = LocalExecutorBuilder::new(placement(&start.config, shard))
            .name(&format!("shard-{shard}"))
            .io_memory(start.config.memory_bytes_per_shard as usize / 2)
            .spin_before_park(start.config.spin)
            .spawn(move || run(start, stopped));
        let join = executor.map_err(|error| BrokerError::Executor { shard, reason: error.to_string() })?;
        Ok(Self { shard, stop: Some(stop), join })
    }

    pub fn ask_to_end(&mut self, ending: Ending) {
        if let Some(stop) = self.stop.take() {
            // A shard that ended before needs no asking.
            let _ = stop.send(ending);
        }
    }

    pub fn join(self) -> Result<(), BrokerError> {
        let shard = self.shard;
        self.join.join().map_err(|_| BrokerError::ShardLost { shard })?
    }
}

/// A core of its own for each shard, where the process may use enough of them.
fn placement(config: &BrokerConfig, shard: ShardId) -> Placement {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return Placement::Unbound };
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let is_enough = !cpus.is_empty() && cpus.len() >= usize::from(config.shards);
    let wanted = usize::from(config.first_core) + usize::from(shard.0);
    if is_enough { Placement::Fixed(cpus[wanted % cpus.len()]) } else { Placement::Unbound }
}

async fn run(start: Start, stopped: oneshot::Receiver<Ending>) -> Result<(), BrokerError> {
    let (shard, ready, ended) = (start.shard, start.ready.clone(), start.ended.clone());
    let event_loop = Rc::new(LoopDelay::default());
    let heartbeat = spawn_local(beat(event_loop.clone()));
    let result = match ShardRun::start(start, event_loop).await {
        Ok(running) => {
            let _ = ready.send(Ok((shard, running.server.local_addr().port())));
            drop(ready);
            match stopped.await {
                Ok(Ending::Orderly) => running.stop().await,
                // An error means that the handle was dropped.
                Ok(Ending::Cut) | Err(_) => running.cut().await,
                Ok(Ending::Silent(pause)) => {
                    std::thread::sleep(pause);
                    running.cut().await
                }
            }
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    };
    heartbeat.cancel().await;
    let _ = ended.unbounded_send(shard);
    result
}

/// Keeps the executor from sleeping for longer than a beat. glommio can miss the completion that should have woken it (2 of
/// 30 starts hung for good with a preemption timer of 1 ms, see `docs/decisions/0004-heartbeat.md`): a beat later it is seen.
///
/// How late it comes tells how long others had to wait as well.
async fn beat(event_loop: Rc<LoopDelay>) {
    loop {
        let since = Instant::now();
        sleep(HEARTBEAT).await;
        let late = since.elapsed().saturating_sub(HEARTBEAT);
        event_loop.delay.record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        event_loop.stalls.add(u64::from(late >= STALL));
    }
}

/// Answers who asks for the shard's figures.
async fn tell(shard: Rc<Shard<DmaDisk>>, mut asked: ended::Receiver<Asked>, seen: Seen) {
    let name = shard.me().shard.to_string();
    while let Some(answer) = asked.next().await {
        let mut exposition = Exposition::default();
        shard.expose(&mut exposition);
        expose_net(&name, &seen.net, &mut exposition);
        expose_loop(&name, &seen.event_loop, &mut exposition);
        expose_links(seen.peers.links_lost(), &mut exposition);
        // Who asked may have lost patience.
        let _ = answer.send(exposition);
    }
}

/// What is counted beside the shard.
struct Seen {
    net: Rc<NetStats>,
    event_loop: Rc<LoopDelay>,
    peers: Rc<TcpPeers>,
}

struct ShardRun {
    shard: Rc<Shard<DmaDisk>>,
    service: Rc<ShardService<DmaDisk>>,
    peers: Rc<TcpPeers>,
    server: Server,
    ticking: glommio::Task<()>,
    telling: glommio::Task<()>,
    retaining: glommio::Task<()>,
    /// Tells the retention task to end.
    retention_stops: Rc<Cell<bool>>,
}

impl ShardRun {
    async fn start(start: Start, event_loop: Rc<LoopDelay>) -> Result<Self, BrokerError> {
        let Start { config, shard: id, store, incarnation, owners, directory, complaints, asked, .. } = start;
        let failed = |reason: String| BrokerError::Executor { shard: id, reason };
        let durability = match config.durability {
            Some(durability) => durability,
            None => choose_durability(&config.data_dir).await.map_err(|error| failed(error.to_string()))?,
        };
        let disk = DmaDisk::open(&config.data_dir, durability).await.map_err(|error| failed(error.to_string()))?;
        let me = ChainMember { node: config.node, shard: id, store, incarnation };
        let budget_bytes = config.memory_bytes_per_shard / 4;
        let storage = StorageConfig {
            recent_bytes_max: budget_bytes,
            segment_bytes_max: config.segment_bytes_max,
            pool_bytes_max: config.recycled_bytes_max,
            ..StorageConfig::default()
        };
        let clock = Clock::new();
        let peers = TcpPeers::new(link_config(&config), directory, complaints, clock.clone());
        let setup = ShardSetup {
            disk,
            data_dir: config.data_dir.clone(),
            me,
            shards: config.shards,
            owners,
            storage,
            budget_bytes,
            clock,
            peers: peers.clone(),
        };
        let shard = Shard::open(setup).await?;
        spawn_local(peers.clone().tell_lost(Rc::downgrade(&shard))).detach();
        shard.set_copy_rate(config.copy_bytes_per_second);
        shard.quotas.set_per_connection(config.produce_quota_per_connection);
        shard.metrics.topics.set_topics_max(config.metric_topics.into());
        let queue = |shares, latency, name: &str| executor().create_task_queue(Shares::Static(shares), latency, name);
        let service = Rc::new(ShardService {
            shard: shard.clone(),
            reading: queue(READING_SHARES, Latency::NotImportant, "reading"),
            changing: queue(1_000, Latency::Matters(CHANGE_LATENCY), "changing"),
            stopping: Cell::new(false),
        });
        let address = listen_address(&config, id)?;
        let listener = Listener::bind(address).map_err(|source| BrokerError::Listen { shard: id, source })?;
        let server = Server::start(listener, server_config(&config, id), service.clone());
        let ticking = spawn_local(tick(shard.clone()));
        let retention_stops = Rc::new(Cell::new(false));
        let retaining = shard.clone().keep_retention(config.retention_check, retention_stops.clone());
        let background = queue(RETENTION_SHARES, Latency::NotImportant, "retention");
        let seen = Seen { net: server.stats(), event_loop, peers: peers.clone() };
        let telling = spawn_local_into(tell(shard.clone(), asked, seen), background);
        let telling = telling.map_err(|error| failed(error.to_string()))?;
        let scrubbing = {
            let (shard, stops) = (shard.clone(), retention_stops.clone());
            config.scrub_bytes_per_second.map(|rate| shard.scrub(rate, stops))
        };
        let upkeep = async move {
            match scrubbing {
                Some(scrubbing) => drop(future::zip(retaining, scrubbing).await),
                None => retaining.await,
            }
        };
        let retaining = spawn_local_into(upkeep, background).map_err(|error| failed(error.to_string()))?;
        tracing::info!(shard = %id, %address, ?durability, "shard listens");
        Ok(Self { shard, service, peers, server, ticking, telling, retaining, retention_stops })
    }

    async fn stop(self) -> Result<(), BrokerError> {
        self.service.stopping.set(true);
        self.retention_stops.set(true);
        self.shard.stop_groups();
        let report = self.server.stop(DRAIN).await;
        if report.cut_off > 0 {
            tracing::warn!(connections = report.cut_off, "cut connections off that were not done in time");
        }
        self.ticking.cancel().await;
        self.telling.cancel().await;
        self.peers.close();
        close(&self.shard, self.retaining).await
    }

    /// Others see what they see when the process is killed. Files are closed all the same, so that they can be opened again.
    async fn cut(self) -> Result<(), BrokerError> {
        self.retention_stops.set(true);
        self.peers.close();
        self.server.cut();
        self.service.stopping.set(true);
        self.server.stop(Duration::ZERO).await;
        self.ticking.cancel().await;
        self.telling.cancel().await;
        close(&self.shard, self.retaining).await
    }
}

/// With nobody connected any more: ends what goes on in the background, and closes the files.
async fn close(shard: &Shard<DmaDisk>, retaining: glommio::Task<()>) -> Result<(), BrokerError> {
    // What it began it finishes, so that no file is left open; a commit that does not come is not waited for.
    let late = async {
        sleep(DRAIN).await;
        tracing::warn!(shard = %shard.me().shard, "retention did not end in time");
    };
    future::or(retaining, late).await;
    shard.close().await?;
    let (metrics, segments) = (&shard.metrics, shard.segments_taken());
    tracing::info!(
        shard = %shard.me().shard,
        produced_records = metrics.produced_records.get(),
        produced_bytes = metrics.produced_bytes.get(),
        fetched_bytes = metrics.fetched_bytes.get(),
        segments_recycled = segments.recycled,
        segments_created = segments.created,
        "shard stopped; everything is durable and closed"
    );
    Ok(())
}

async fn tick(shard: Rc<Shard<DmaDisk>>) {
    loop {
        sleep(TICK).await;
        shard.tick();
    }
}

fn listen_address(config: &BrokerConfig, shard: ShardId) -> Result<SocketAddr, BrokerError> {
    let refused = |reason: &str| {
        let place = format!("cannot listen on {}, port {} + {shard}", config.listen_host, config.port_base);
        BrokerError::Listen { shard, source: io::Error::new(io::ErrorKind::InvalidInput, format!("{place}: {reason}")) }
    };
    let host: IpAddr = config.listen_host.parse().map_err(|_| refused("the host to listen on is no IP address"))?;
    // Port 0 asks the kernel for any free port, for every shard.
    let port = match config.port_base {
        0 => 0,
        base => base.checked_add(shard.0).ok_or_else(|| refused("the port is beyond 65535"))?,
    };
    Ok(SocketAddr::new(host, port))
}

fn link_config(config: &BrokerConfig) -> LinkConfig {
    LinkConfig {
        cluster: config.cluster,
        secret: ClusterSecret::new(config.cluster_secret.clone()),
        name: format!("minikafka broker {}", config.node),
        nonce: Box::new(rand::random),
        queue: executor().current_task_queue(),
    }
}

fn server_config(config: &BrokerConfig, shard: ShardId) -> ServerConfig {
    let secret = ClusterSecret::new(config.cluster_secret.clone());
    let identity = ServerIdentity::new(config.cluster, config.node, shard, Some(secret));
    ServerConfig { deadlines: config.deadlines, ..ServerConfig::new(identity, rand::random) }
}
