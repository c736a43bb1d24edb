//! Measures what it takes to fill an empty replica and to bring data to a new node, and what clients notice of it
//! (`docs/BENCHMARKS.md`).
//!
//! Real processes and ZooKeeper on one machine, chains of three: a member loses its disk and comes back; then a fourth node
//! joins and gets its share. Probes send one record after the other meanwhile; the first time nothing else runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use minikafka_client::{Client, TopicOptions};
use minikafka_tests::cluster::{Cluster, ClusterSetup, Member};
use minikafka_tests::failover::{Probes, REPLICATION, TOPIC};
use minikafka_tests::in_process::LOOK;
use minikafka_tests::process;
use serde_json::Value;
use tokio::runtime::Runtime;

const PROBES: u32 = 16;
/// The member that loses its disk.
const EMPTIED: u8 = 3;
/// How long probes are watched while nothing happens.
const QUIET: Duration = Duration::from_secs(5);
/// What a member got when its copying has surely begun: the other processes say much less to it.
const FIRST_BYTES: u64 = 8 << 20;
/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(600);

struct Arguments {
    bytes: u64,
    partitions: u32,
    at_once: u32,
    /// The brokers' `--copy-rate`.
    copy_rate: Option<String>,
    directory: PathBuf,
}

struct Bench {
    cluster: Cluster,
    runtime: Runtime,
    client: Client,
    /// None: nothing else runs.
    probes: Option<Probes>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let directory = tempfile::tempdir_in(&arguments.directory)?;
    let copy_rate = arguments.copy_rate.iter().flat_map(|rate| ["--copy-rate".to_owned(), rate.clone()]);
    let limit_before = copy_limit(&process::binary()?, directory.path())?;
    let setup =
        ClusterSetup { broker_options: copy_rate.collect(), ..ClusterSetup::new(&directory.path().join("cluster"))? };
    let cluster = Cluster::up(&setup)?;
    fill(&cluster, &arguments)?;
    let runtime = Runtime::new()?;
    let client = runtime.block_on(Client::builder(cluster.gateways()).connect())?;
    let mut bench = Bench { cluster, runtime, client, probes: None };
    bench.await_chains(&[])?;
    let rate = bench.refill()?;
    let stop = Arc::new(AtomicBool::new(false));
    bench.start_probes(&stop)?;
    bench.await_chains(&[])?;
    bench.tell_probes("nothing happens", || std::thread::sleep(QUIET));
    bench.refill()?;
    bench.grow(&arguments)?;
    stop.store(true, Ordering::Relaxed);
    let Bench { cluster, runtime, client, probes } = bench;
    drop((probes, client));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let binary = cluster.binary().to_owned();
    cluster.down()?;
    std::fs::remove_dir_all(directory.path().join("cluster"))?;
    let limits = [limit_before, copy_limit(&binary, directory.path())?];
    let [before, after] = limits.map(|limit| limit / 1e6);
    let ratio = rate / limits.iter().sum::<f64>() * 2.0;
    println!(
        "the disk alone copies {before:.0} MB/s before and {after:.0} behind this: the empty replica got {ratio:.2} of that"
    );
    Ok(())
}

/// Bytes a second at which the disk of a directory reads and durably writes at the same time.
fn copy_limit(binary: &Path, directory: &Path) -> Result<f64> {
    let line = ["--json", "bench", "limits", "--rounds", "1", "--dir"];
    let output = Command::new(binary).args(line).arg(directory).output()?;
    ensure!(output.status.success(), "bench limits: {}", String::from_utf8_lossy(&output.stderr));
    let limits: Value = serde_json::from_slice(&output.stdout)?;
    let shapes = limits.pointer("/limits/disk_copy/shapes").and_then(Value::as_array).context("limits of copying")?;
    shapes.iter().filter_map(|shape| shape["median"].as_f64()).max_by(f64::total_cmp).context("a shape")
}

impl Bench {
    fn start_probes(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        let client = self.client.clone();
        self.probes = Some(self.runtime.block_on(async {
            let options = TopicOptions { partitions: PROBES, replication: REPLICATION, ..TopicOptions::default() };
            client.create_topic(TOPIC, options).await?;
            Probes::start(&client, PROBES, stop).await
        })?);
        Ok(())
    }

    fn forget_gaps(&self) {
        if let Some(probes) = &self.probes {
            probes.take_gaps();
        }
    }

    /// A member loses its disk. Returns the bytes a second that it was filled with.
    fn refill(&mut self) -> Result<f64> {
        self.cluster.kill(Member::Broker(EMPTIED))?;
        self.await_without(EMPTIED)?;
        // Others wait, too, while the file system frees gigabytes.
        self.cluster.wipe(EMPTIED)?;
        std::thread::sleep(QUIET);
        self.forget_gaps();
        let (began, before) = (Instant::now(), received(&self.cluster, EMPTIED)?);
        self.cluster.start(Member::Broker(EMPTIED))?;
        // Its old session has to end first.
        while received(&self.cluster, EMPTIED)? < before + FIRST_BYTES {
            ensure!(began.elapsed() < PATIENCE, "nothing is copied to broker {EMPTIED}");
            std::thread::sleep(LOOK);
        }
        let (waited, copying) = (began.elapsed().as_secs_f64(), Instant::now());
        self.await_chains(&[EMPTIED])?;
        let took = copying.elapsed().as_secs_f64();
        let copied = received(&self.cluster, EMPTIED)? - before;
        let rate = (copied - FIRST_BYTES) as f64 / took;
        let when = if self.probes.is_some() { "beside probes" } else { "alone" };
        println!(
            "an empty replica, {when}: {waited:.1} s until it copies; got {copied} bytes in {took:.1} s until all chains are whole: {:.0} MB/s",
            rate / 1e6
        );
        self.tell_gaps("while it is filled");
        Ok(rate)
    }

    /// A fourth node gets its share.
    fn grow(&mut self, arguments: &Arguments) -> Result<()> {
        let new = self.cluster.add()?;
        let at_once = arguments.at_once.to_string();
        let plan = self.plan_with(new, &at_once)?;
        let planned = plan["bytes"].as_u64().context("a plan tells bytes")?;
        let moves = plan["moves"].as_array().map_or(0, Vec::len);
        self.forget_gaps();
        let (began, before) = (Instant::now(), received(&self.cluster, new)?);
        self.cluster.operate(&["rebalance", "--wait", "--timeout", "60m", "--at-once", &at_once])?;
        let took = began.elapsed().as_secs_f64();
        let moved = received(&self.cluster, new)? - before;
        let share = arguments.bytes * u64::from(REPLICATION) / (u64::from(REPLICATION) + 1);
        println!(
            "a fourth node: {moves} ranges in {took:.1} s; got {moved} bytes, the ranges hold {planned}, a quarter of all copies is {share}"
        );
        self.tell_gaps("while ranges move");
        Ok(())
    }

    /// How everything gets its share, the new node included.
    fn plan_with(&self, new: u8, at_once: &str) -> Result<Value> {
        let plan = self.cluster.operate(&["plan", "rebalance", "--at-once", at_once])?;
        let is_in = |wanted: &Value| wanted["to"].as_array().is_some_and(|to| to.contains(&Value::from(new)));
        ensure!(
            plan["moves"].as_array().is_some_and(|moves| moves.iter().any(is_in)),
            "node {new} gets nothing: {plan}"
        );
        ensure!(plan["unknown_sizes"] == 0, "members did not tell how much they hold: {plan}");
        Ok(plan)
    }

    fn tell_probes(&self, when: &str, happens: impl FnOnce()) {
        self.forget_gaps();
        happens();
        self.tell_gaps(when);
    }

    fn tell_gaps(&self, when: &str) {
        let Some(probes) = &self.probes else { return };
        let mut gaps = probes.take_gaps();
        gaps.sort_unstable();
        let at = |part: f64| {
            let index = ((gaps.len() as f64 * part) as usize).min(gaps.len().saturating_sub(1));
            gaps.get(index).copied().unwrap_or_default().as_secs_f64() * 1_000.0
        };
        let count = gaps.len();
        let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
        println!(
            "  {when}: {count} records one after the other, ms between: p50 {p50:.1}, p99 {p99:.1}, longest {max:.1}"
        );
    }

    /// Waits until all chains have all their members, these among them.
    fn await_chains(&self, with: &[u8]) -> Result<()> {
        let is_whole = |chain: &[u32]| {
            chain.len() == usize::from(REPLICATION) && with.iter().all(|node| chain.contains(&u32::from(*node)))
        };
        self.await_every_chain("whole", is_whole)
    }

    fn await_without(&self, node: u8) -> Result<()> {
        self.await_every_chain("without the member", |chain| !chain.contains(&u32::from(node)))
    }

    fn await_every_chain(&self, what: &str, is_so: impl Fn(&[u32]) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let map = self.runtime.block_on(self.client.refresh_map())?;
            let ring = map.rings().find(|ring| ring.ring.0 == REPLICATION).context("the ring of three")?;
            let nodes =
                ring.chains.iter().map(|chain| chain.places.iter().map(|place| place.node.0).collect::<Vec<_>>());
            if nodes.into_iter().all(|nodes| is_so(&nodes)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not all chains are {what} in {PATIENCE:?}");
            std::thread::sleep(LOOK);
        }
    }
}

/// Writes so many bytes to a topic of its own.
fn fill(cluster: &Cluster, arguments: &Arguments) -> Result<()> {
    let gateways = cluster.gateways().join(",");
    let (partitions, bytes) = (arguments.partitions.to_string(), arguments.bytes.to_string());
    let replication = REPLICATION.to_string();
    let run = |line: &[&str]| -> Result<()> {
        let output = Command::new(cluster.binary()).args(line).args(["--gateway", &gateways]).output()?;
        ensure!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    run(&["topic", "create", "filled", "--partitions", &partitions, "--replication", &replication])?;
    let load = ["bench", "produce", "--topic", "filled", "--record-bytes", "1024", "--batch-bytes", "256K"];
    run(&[&load[..], &["--duration", "60m", "--warm-up", "0s", "--limits", "off", "--bytes-max", &bytes]].concat())
}

/// Bytes that a broker got over the network since it joined it.
fn received(cluster: &Cluster, broker: u8) -> Result<u64> {
    let output = cluster.network().command(Member::Broker(broker), Path::new("cat")).arg("/proc/net/dev").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Name, colon, received bytes; behind two lines of titles.
    let lines = text.lines().filter_map(|line| line.trim().split_once(':')).filter(|(name, _)| *name != "lo");
    let bytes = lines.filter_map(|(_, counts)| counts.split_whitespace().next()?.parse::<u64>().ok());
    Ok(bytes.sum())
}

impl Arguments {
    fn parse() -> Result<Self> {
        let directory = process::build_directory()?;
        let mut this = Self { bytes: 4 << 30, partitions: 64, at_once: 16, copy_rate: None, directory };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--bytes" => this.bytes = value.parse()?,
                "--partitions" => this.partitions = value.parse()?,
                "--at-once" => this.at_once = value.parse()?,
                "--copy-rate" => this.copy_rate = Some(value),
                "--directory" => this.directory = value.into(),
                _ => bail!("{name} is not known; there are --bytes, --partitions, --at-once, --copy-rate, --directory"),
            }
        }
        Ok(this)
    }
}
