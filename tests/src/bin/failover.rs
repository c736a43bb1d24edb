//! Measures failover: cuts the head of chains under load again and again, and times each stage up to the next acknowledged
//! record (`docs/FAILOVER.md`).
//!
//! Three brokers, a gateway and an embedded coordinator in this process, over loopback. The coordinator is never told: what
//! is measured is how the chains, the controller and the clients find out by themselves, as long before a session expires.

use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use minikafka_client::core::coordination::{RingChunk, path};
use minikafka_client::core::{Partition, RangeId, RingId};
use minikafka_client::{Client, Producer, ProducerOptions, ProducerRecord, TopicOptions};
use minikafka_coordinator::CoordinatorClient;
use minikafka_tests::in_process::{Cluster, ClusterSetup, LOOK};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

const TOPIC: &str = "failover";
const REPLICATION: u16 = 3;
/// Partitions to which one record after the other is sent, each as soon as the one before is acknowledged.
const PROBES: u32 = 16;
/// Between two records of a probe.
const PROBE_PAUSE: Duration = Duration::from_millis(1);
/// Between two records of the load.
const LOAD_PAUSE: Duration = Duration::from_millis(1);
const VALUE: &[u8] = &[7; 100];
/// All is well for so long before the next cut.
const SETTLE: Duration = Duration::from_millis(500);
/// A head that falls silent stays so for longer than anybody waits for it.
const SILENCE: Duration = Duration::from_secs(8);
/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the command line says.
struct Arguments {
    kills: usize,
    partitions: u32,
    ranges: u32,
    directory: PathBuf,
    /// The head falls silent with its connections open, instead of being cut.
    silent: bool,
}

/// Stages of one failover, since the cut was ordered.
#[derive(Clone, Copy, Debug)]
struct Failover {
    /// The sockets are closed.
    closed: Duration,
    /// A change of a chain concerned is claimed in the record.
    claimed: Duration,
    /// The new chain of the last of them is in the record.
    committed: Duration,
    /// The first and the last of the probes concerned have an acknowledgement again.
    first: Duration,
    last: Duration,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let setup = ClusterSetup { ranges: arguments.ranges, ..ClusterSetup::default() };
    let mut cluster = Cluster::start(&arguments.directory, setup).await;
    let client = cluster.client().await;
    let partitions = arguments.partitions;
    client.create_topic(TOPIC, TopicOptions { partitions, ..TopicOptions::default() }).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(cluster.client().await, partitions, stop.clone()));
    let probes = Probes::start(&client, partitions.min(PROBES), &stop).await?;
    let session = cluster.session();
    let mut failovers = Vec::new();
    let mut all_probes = Vec::new();
    for kill in 0..arguments.kills {
        let (failover, outages) =
            timeout(PATIENCE, one(&mut cluster, &client, &session, &probes, arguments.silent)).await??;
        println!("{kill}: {failover:?}, {} chains", outages.len());
        failovers.push(failover);
        all_probes.extend(outages);
    }
    let how = if arguments.silent { "fell silent" } else { "were cut" };
    println!("partitions {partitions}, ranges {}, {} heads {how}; ms", arguments.ranges, arguments.kills);
    print("sockets closed", failovers.iter().map(|failover| failover.closed));
    print("change claimed", failovers.iter().map(|failover| failover.claimed));
    print("chains committed", failovers.iter().map(|failover| failover.committed));
    print("first chain acknowledges", failovers.iter().map(|failover| failover.first));
    print("last chain acknowledges", failovers.iter().map(|failover| failover.last));
    print("each chain acknowledges", all_probes.into_iter());
    stop.store(true, Ordering::Relaxed);
    load.await??;
    cluster.end().await;
    Ok(())
}

/// Cuts the head of the first probe's chain, times what follows, and puts everything back.
async fn one(
    cluster: &mut Cluster,
    client: &Client,
    session: &CoordinatorClient,
    probes: &Probes,
    silent: bool,
) -> Result<(Failover, Vec<Duration>)> {
    await_whole(session, probes).await?;
    sleep(SETTLE).await;
    let before = read_chunks(session).await?;
    let node = head(&before, probes.ranges[0]).context("the chain has a head")?;
    let concerned: Vec<usize> =
        (0..probes.ranges.len()).filter(|probe| head(&before, probes.ranges[*probe]) == Some(node)).collect();
    let address = cluster.brokers[&node].shard_addresses()[0].clone();
    let mut socket = TcpStream::connect(address)?;
    let closed = tokio::task::spawn_blocking(move || {
        // Whatever ends it: that is what is waited for.
        let _ = socket.read(&mut [0]);
        Instant::now()
    });
    let mut events = session.watch(path::RINGS);
    let start = Instant::now();
    let (cut, closed) = match silent {
        true => (cluster.silence(node, SILENCE), start),
        false => (cluster.cut(node), closed.await?),
    };
    let (mut claimed, mut committed) = (None, None);
    while committed.is_none() {
        let now = read_chunks(session).await?;
        let at = Instant::now();
        let epoch = |chunks: &[RingChunk], range| record(chunks, range).and_then(|r| Some(r.active.as_ref()?.epoch));
        let mut ranges = concerned.iter().map(|probe| probes.ranges[*probe]);
        let is_new = |range| epoch(&now, range) > epoch(&before, range);
        if ranges.clone().any(|range| is_new(range) || record(&now, range).is_some_and(|r| r.pending.is_some())) {
            claimed.get_or_insert(at);
        }
        if ranges.all(is_new) {
            committed = Some(at);
            break;
        }
        events.next().await;
    }
    let (claimed, committed) = (claimed.context("it is claimed")?, committed.context("it is committed")?);
    let mut outages = Vec::new();
    for probe in concerned {
        outages.push(probes.acknowledged_after(probe, claimed).await - start);
    }
    outages.sort_unstable();
    cut.await?;
    cluster.restart(node).await;
    // The next one begins with everybody's way to the new process known.
    client.refresh_map().await?;
    let failover = Failover {
        closed: closed - start,
        claimed: claimed - start,
        committed: committed - start,
        first: outages[0],
        last: outages[outages.len() - 1],
    };
    Ok((failover, outages))
}

async fn read_chunks(session: &CoordinatorClient) -> Result<Vec<RingChunk>> {
    let mut chunks = Vec::new();
    let replication = format!("{}/{REPLICATION}", path::RINGS);
    for name in session.children(&replication).await? {
        let chunk = session.read::<RingChunk>(&format!("{replication}/{name}")).await?;
        chunks.extend(chunk.map(|(chunk, _)| chunk));
    }
    Ok(chunks)
}

fn record(chunks: &[RingChunk], range: RangeId) -> Option<&minikafka_client::core::coordination::RangeRecord> {
    chunks.iter().find_map(|chunk| chunk.ranges.get(range.0.checked_sub(chunk.first.0)? as usize))
}

fn head(chunks: &[RingChunk], range: RangeId) -> Option<u32> {
    Some(record(chunks, range)?.active.as_ref()?.chain.first()?.node.0)
}

/// Waits until all chains have all their members, and none is being changed.
async fn await_whole(session: &CoordinatorClient, probes: &Probes) -> Result<()> {
    loop {
        let chunks = read_chunks(session).await?;
        let mut records = chunks.iter().flat_map(|chunk| &chunk.ranges);
        let is_whole = |record: &minikafka_client::core::coordination::RangeRecord| {
            let members = record.active.as_ref().map_or(0, |active| active.chain.len());
            record.pending.is_none() && members == usize::from(REPLICATION)
        };
        if records.all(is_whole) {
            let now = Instant::now();
            for probe in 0..probes.ranges.len() {
                probes.acknowledged_after(probe, now).await;
            }
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// One record after the other to each of some partitions.
struct Probes {
    ranges: Vec<RangeId>,
    /// When the last record was acknowledged.
    last: Arc<Vec<Mutex<Vec<Instant>>>>,
    changed: Arc<Notify>,
}

impl Probes {
    async fn start(client: &Client, count: u32, stop: &Arc<AtomicBool>) -> Result<Self> {
        let producer = Arc::new(client.producer(TOPIC, ProducerOptions::default()).await?);
        let (map, topic) = (client.refresh_map().await?, client.topic(TOPIC).await?);
        let range = |partition| map.range_of(&topic, Partition(partition)).map(|key| key.range);
        let ranges: Vec<RangeId> = (0..count).filter_map(range).collect();
        assert_eq!(topic.ring, RingId(REPLICATION), "the topic is in the ring of three");
        let last: Arc<Vec<Mutex<Vec<Instant>>>> = Arc::new((0..count).map(|_| Mutex::default()).collect());
        let changed = Arc::new(Notify::new());
        for partition in 0..count {
            let (producer, stop) = (producer.clone(), stop.clone());
            let (last, changed) = (last.clone(), changed.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if acknowledged(&producer, partition).await.is_ok() {
                        let mut times = last[partition as usize].lock().unwrap_or_else(PoisonError::into_inner);
                        times.push(Instant::now());
                        changed.notify_waiters();
                    }
                    sleep(PROBE_PAUSE).await;
                }
            });
        }
        Ok(Self { ranges, last, changed })
    }

    /// When the first record behind this time was acknowledged.
    async fn acknowledged_after(&self, probe: usize, after: Instant) -> Instant {
        loop {
            let changed = self.changed.notified();
            {
                let mut times = self.last[probe].lock().unwrap_or_else(PoisonError::into_inner);
                let at = times.partition_point(|time| *time <= after);
                times.drain(..at);
                if let Some(first) = times.first() {
                    return *first;
                }
            }
            // Also looks by itself: a notice between the two is missed otherwise.
            let _ = timeout(LOOK, changed).await;
        }
    }
}

async fn acknowledged(producer: &Producer, partition: u32) -> minikafka_client::Result<()> {
    producer.send(ProducerRecord::value(VALUE).to(Partition(partition))).await?.await.map(drop)
}

/// Records for all partitions in turn, whose acknowledgements nobody waits for.
async fn load(client: Client, partitions: u32, stop: Arc<AtomicBool>) -> Result<()> {
    let producer = client.producer(TOPIC, ProducerOptions::default()).await?;
    let mut partition = 0;
    while !stop.load(Ordering::Relaxed) {
        drop(producer.send(ProducerRecord::value(VALUE).to(Partition(partition))).await?);
        partition = (partition + 1) % partitions;
        sleep(LOAD_PAUSE).await;
    }
    producer.close().await?;
    Ok(())
}

fn print(what: &str, times: impl Iterator<Item = Duration>) {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let at = |part: f64| {
        let index = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(index).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    };
    println!("{what:>26}: p50 {:7.1}  p90 {:7.1}  p99 {:7.1}  max {:7.1}", at(0.5), at(0.9), at(0.99), at(1.0));
}

impl Arguments {
    fn parse() -> Result<Self> {
        let directory = std::env::current_exe()?.parent().context("a program lies somewhere")?.to_path_buf();
        let mut this = Self { kills: 20, partitions: 10, ranges: 256, directory, silent: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--kills" => this.kills = value.parse()?,
                "--partitions" => this.partitions = value.parse()?,
                "--ranges" => this.ranges = value.parse()?,
                "--silent" => this.silent = value.parse()?,
                "--directory" => this.directory = value.into(),
                _ => bail!("{name} is not known; there are --kills, --partitions, --ranges, --silent, --directory"),
            }
        }
        Ok(this)
    }
}
