//! Measures failover: cuts the head of chains under load again and again, and times each stage up to the next acknowledged
//! record (`docs/FAILOVER.md`).
//!
//! Three brokers with gateway and coordinator, as threads of this process or as processes of their own. The coordinator is
//! never told: what is measured is how the chains, the controller and the clients find out by themselves, as long before a
//! session expires.

use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use minikafka_client::core::coordination::{RangeRecord, RingChunk, path};
use minikafka_client::core::{Partition, RangeId};
use minikafka_client::{Client, ProducerOptions, ProducerRecord, TopicOptions};
use minikafka_coordinator::CoordinatorClient;
use minikafka_tests::failover::{Ground, Harm, Probes, REPLICATION, TOPIC};
use minikafka_tests::in_process::LOOK;
use minikafka_tests::process;
use tokio::time::{sleep, timeout};

/// Partitions to which one record after the other is sent.
const PROBES: u32 = 16;
/// Between two records of the load.
const LOAD_PAUSE: Duration = Duration::from_millis(1);
const VALUE: &[u8] = &[7; 100];
/// All is well for so long before the next cut.
const SETTLE: Duration = Duration::from_millis(500);
/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the command line says.
struct Arguments {
    kills: usize,
    partitions: u32,
    ranges: u32,
    directory: PathBuf,
    harm: Harm,
    /// Real processes and ZooKeeper, instead of threads.
    processes: bool,
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
    let mut ground = match arguments.processes {
        true => Ground::processes(&arguments.directory).await?,
        false => Ground::threads(&arguments.directory, arguments.ranges).await,
    };
    let client = ground.client().await?;
    let partitions = arguments.partitions;
    client.create_topic(TOPIC, TopicOptions { partitions, ..TopicOptions::default() }).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(ground.client().await?, partitions, stop.clone()));
    let probes = Probes::start(&client, partitions.min(PROBES), &stop).await?;
    let session = ground.session()?;
    let mut failovers = Vec::new();
    let mut all_probes = Vec::new();
    for kill in 0..arguments.kills {
        let (failover, outages) =
            timeout(PATIENCE, one(&mut ground, &client, &session, &probes, arguments.harm)).await??;
        println!("{kill}: {failover:?}, {} chains", outages.len());
        failovers.push(failover);
        all_probes.extend(outages);
    }
    let how = if arguments.harm == Harm::Silence { "fell silent" } else { "died" };
    let what = if arguments.processes { "processes" } else { "threads" };
    println!("{what}, partitions {partitions}, {} heads {how}; ms", arguments.kills);
    print("sockets closed", failovers.iter().map(|failover| failover.closed));
    print("change claimed", failovers.iter().map(|failover| failover.claimed));
    print("chains committed", failovers.iter().map(|failover| failover.committed));
    print("first chain acknowledges", failovers.iter().map(|failover| failover.first));
    print("last chain acknowledges", failovers.iter().map(|failover| failover.last));
    print("each chain acknowledges", all_probes.into_iter());
    stop.store(true, Ordering::Relaxed);
    load.await??;
    drop((probes, session));
    ground.end().await
}

/// Cuts the head of the first probe's chain, times what follows, and puts everything back.
async fn one(
    ground: &mut Ground,
    client: &Client,
    session: &CoordinatorClient,
    probes: &Probes,
    harm: Harm,
) -> Result<(Failover, Vec<Duration>)> {
    await_whole(session, probes).await?;
    sleep(SETTLE).await;
    let before = read_chunks(session).await?;
    let node = head(&before, probes.ranges[0]).context("the chain has a head")?;
    let concerned: Vec<usize> =
        (0..probes.ranges.len()).filter(|probe| head(&before, probes.ranges[*probe]) == Some(node)).collect();
    let address = ground.shard_address(node);
    let mut socket = TcpStream::connect(address)?;
    let closed = tokio::task::spawn_blocking(move || {
        // Whatever ends it: that is what is waited for.
        let _ = socket.read(&mut [0]);
        Instant::now()
    });
    let mut events = session.watch(path::RINGS);
    let start = Instant::now();
    let over = ground.harm(node, harm);
    let closed = if harm == Harm::Death { closed.await? } else { start };
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
    over.await??;
    ground.restart(node).await?;
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

fn record(chunks: &[RingChunk], range: RangeId) -> Option<&RangeRecord> {
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
        let is_whole = |record: &RangeRecord| {
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
        let directory = process::build_directory()?;
        let mut this = Self { kills: 20, partitions: 10, ranges: 256, directory, harm: Harm::Death, processes: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--kills" => this.kills = value.parse()?,
                "--partitions" => this.partitions = value.parse()?,
                "--ranges" => this.ranges = value.parse()?,
                "--silent" => this.harm = if value.parse()? { Harm::Silence } else { Harm::Death },
                "--processes" => this.processes = value.parse()?,
                "--directory" => this.directory = value.into(),
                _ => bail!(
                    "{name} is not known; there are --kills, --partitions, --ranges, --silent, --processes, --directory"
                ),
            }
        }
        Ok(this)
    }
}
