//! A cluster under load, and what can be done to it: each deed is told in a line, each wait has a deadline.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use minikafka_client::core::Partition;
use minikafka_client::{Client, ClusterMap};
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

use super::outages::Outages;
use super::probes::Probes;
use super::{Needs, Scenario, Verdict, replicas};
use crate::cluster::{Cluster, ClusterSetup, Health, Member, Others, disk};
use crate::load::{Load, LoadSetup};
use crate::seed::Seed;

mod disks;
mod operations;

/// The longest that anything may take that happens by itself.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A silent member counts as gone after this, so that faults that outlast it stay short.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two looks at something that takes a while.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Members of each chain.
const REPLICATION: u16 = 3;
/// Partitions of the topic.
const PARTITIONS: u32 = 6;
/// Records that clients must get done to count as at work.
const AT_WORK_RECORDS: u64 = 200;
/// Much more than by default: rot is waited for.
const SCRUB_BYTES_PER_SECOND: u64 = 32 << 20;
const TOPIC: &str = "chaos";
/// The decisions of scenarios, apart from those of the load.
const SEED_PART: u64 = u64::MAX;

/// How much of a scenario is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As little as shows the promise.
    Brief,
    /// More rounds, longer faults.
    Full,
}

/// A cluster under load.
pub struct World {
    cluster: Cluster,
    runtime: Runtime,
    load: Load,
    probes: Probes,
    client: Client,
    outages: Outages,
    /// Kills after which nobody has looked yet whether writes resumed.
    struck: Vec<Struck>,
    /// Files that were damaged and not yet seen to be replaced.
    rotten: BTreeSet<PathBuf>,
    began: Instant,
    /// How much is wanted.
    pub size: Size,
    /// Decides what chance decides.
    pub random: StdRng,
}

/// What a kill did to partitions.
struct Struck {
    killed: Instant,
    heads: Vec<u32>,
    others: Vec<u32>,
}

impl World {
    /// A new cluster, with clients at work on it.
    pub(super) fn start(scenario: &Scenario, directory: &Path, size: Size, seed: Seed) -> Result<Self> {
        let began = Instant::now();
        let brokers = scenario.brokers;
        let mut setup = ClusterSetup { brokers, session_timeout: SESSION_TIMEOUT, ..ClusterSetup::new(directory)? };
        setup.broker_options.extend(["--scrub-rate".to_owned(), SCRUB_BYTES_PER_SECOND.to_string()]);
        let cluster = Cluster::up(&setup)?;
        let runtime = Runtime::new()?;
        let load_setup = LoadSetup {
            gateways: cluster.gateways(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            replication: REPLICATION,
            producers: 2,
            consumers: 2,
            unanswered_max: 50,
            seed,
        };
        let (load, probes, client) = runtime.block_on(async {
            let load = Load::start(load_setup).await.context("starting the load")?;
            let probes = Probes::start(load.shared()).await.context("starting the probes")?;
            let client = Client::builder(cluster.gateways()).client_name("observer").connect().await?;
            Ok::<_, anyhow::Error>((load, probes, client))
        })?;
        let (outages, struck, random) = (Outages::default(), Vec::new(), seed.part(SEED_PART));
        let rotten = BTreeSet::new();
        let mut world = Self { cluster, runtime, load, probes, client, outages, struck, rotten, began, size, random };
        world.at_work()?;
        world.say(&format!("{brokers} brokers, {}", world.cluster.network()));
        Ok(world)
    }

    /// Why a scenario's needs cannot be met here, if they cannot.
    pub(super) fn refusal(&self, needs: Needs) -> Option<&'static str> {
        match needs {
            Needs::Processes => None,
            Needs::Links => self.cluster.network().refusal(),
            Needs::SmallDisks => disk::small_disk_refusal(),
            Needs::SlowDisks => disk::throttle_refusal(),
        }
    }

    /// Tells what happens, with the time.
    pub fn say(&self, what: &str) {
        println!("  [{:6.2} s] {what}", self.began.elapsed().as_secs_f64());
    }

    /// One number for a brief run, another for a full one.
    pub fn rounds(&self, brief: u32, full: u32) -> u32 {
        if self.size == Size::Brief { brief } else { full }
    }

    /// The nodes of a partition's chain, head first.
    pub fn chain(&mut self, partition: u32) -> Result<Vec<u8>> {
        Ok(self.chains()?.swap_remove(partition as usize))
    }

    /// The nodes of each partition's chain, head first.
    pub fn chains(&mut self) -> Result<Vec<Vec<u8>>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let client = self.client.clone();
            let asked = self.runtime.block_on(async move {
                let map = client.refresh_map().await?;
                chains(&client, &map).await
            });
            match asked {
                Ok(chains) => return Ok(chains),
                Err(error) if Instant::now() > deadline => return Err(error.context("no gateway tells the map")),
                Err(_) => std::thread::sleep(LOOK_INTERVAL),
            }
        }
    }

    /// SIGKILL for these brokers, all at the same moment.
    pub fn kill(&mut self, brokers: &[u8]) -> Result<()> {
        let chains = self.chains()?;
        let members: Vec<_> = brokers.iter().copied().map(Member::Broker).collect();
        let killed = self.cluster.kill_together(&members)?;
        let (mut heads, mut others) = (Vec::new(), Vec::new());
        for (partition, chain) in (0..).zip(&chains) {
            match chain.iter().position(|node| brokers.contains(node)) {
                Some(0) => heads.push(partition),
                Some(_) => others.push(partition),
                None => {}
            }
        }
        self.say(&format!(
            "SIGKILL for {}; heads of {} partitions, members of {} more",
            list(brokers),
            heads.len(),
            others.len()
        ));
        self.struck.push(Struck { killed, heads, others });
        Ok(())
    }

    /// SIGKILL for somebody who holds no records.
    pub fn kill_member(&mut self, member: Member) -> Result<()> {
        self.cluster.kill(member)?;
        self.say(&format!("SIGKILL for {member}"));
        Ok(())
    }

    /// Starts members at the same time, with what they have on their disks, and waits until all are ready.
    pub fn start_again(&mut self, members: &[Member]) -> Result<()> {
        for &member in members {
            self.cluster.launch(member)?;
        }
        members.iter().try_for_each(|&member| self.cluster.await_ready(member))?;
        let names: Vec<_> = members.iter().map(ToString::to_string).collect();
        self.say(&format!("{} started again", names.join(", ")));
        Ok(())
    }

    /// Starts brokers again.
    pub fn start_brokers(&mut self, brokers: &[u8]) -> Result<()> {
        self.start_again(&brokers.iter().copied().map(Member::Broker).collect::<Vec<_>>())
    }

    /// SIGTERM, and the orderly end.
    pub fn stop(&mut self, broker: u8) -> Result<()> {
        self.cluster.stop(Member::Broker(broker))?;
        self.say(&format!("broker {broker} stopped in order"));
        Ok(())
    }

    /// SIGSTOP.
    pub fn pause(&mut self, broker: u8) -> Result<()> {
        self.cluster.pause(Member::Broker(broker))?;
        self.say(&format!("broker {broker} stands still (SIGSTOP)"));
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self, broker: u8) -> Result<()> {
        self.cluster.resume(Member::Broker(broker))?;
        self.say(&format!("broker {broker} goes on (SIGCONT)"));
        Ok(())
    }

    /// Takes all data from a broker that is dead.
    pub fn wipe(&mut self, broker: u8) -> Result<()> {
        self.cluster.wipe(broker)?;
        self.say(&format!("the disk of broker {broker} is wiped"));
        Ok(())
    }

    /// Cuts a broker off from some of the others.
    pub fn isolate(&mut self, broker: u8, others: Others) -> Result<()> {
        self.cluster.isolate(Member::Broker(broker), others)?;
        self.say(&format!("broker {broker} is cut off from: {others:?}"));
        Ok(())
    }

    /// Cuts two brokers off from each other.
    pub fn partition(&mut self, a: u8, b: u8) -> Result<()> {
        self.cluster.partition(Member::Broker(a), Member::Broker(b))?;
        self.say(&format!("brokers {a} and {b} do not hear each other"));
        Ok(())
    }

    /// What the first one sends never arrives at the second one.
    pub fn one_way(&mut self, from: u8, to: u8) -> Result<()> {
        self.cluster.one_way(Member::Broker(from), Member::Broker(to))?;
        self.say(&format!("broker {to} does not hear broker {from}"));
        Ok(())
    }

    /// Bounds what a broker sends and gets.
    pub fn slow_link(&mut self, broker: u8, rate: &str) -> Result<()> {
        self.cluster.slow_link(Member::Broker(broker), rate)?;
        self.say(&format!("the link of broker {broker} has {rate}"));
        Ok(())
    }

    /// All links are whole and fast, and nobody stands still.
    pub fn heal(&mut self) -> Result<()> {
        self.cluster.heal()?;
        self.say("healed");
        Ok(())
    }

    /// A broker more.
    pub fn add(&mut self) -> Result<u8> {
        let number = self.cluster.add()?;
        self.say(&format!("broker {number} added"));
        Ok(number)
    }

    /// A process with a disk of its own that claims to be this node. Returns its number.
    pub fn add_impostor(&mut self, node: u8) -> Result<u8> {
        let number = self.cluster.add_as(u32::from(node))?;
        self.say(&format!("another process claims to be node {node}"));
        Ok(number)
    }

    /// Waits until a broker's process has ended by itself.
    pub fn await_end_of(&mut self, broker: u8) -> Result<()> {
        self.wait("its process ends", |world| Ok(world.cluster.health(Member::Broker(broker)) == Health::Gone))?;
        self.say(&format!("its process has ended by itself:\n{}", self.cluster.log_end(Member::Broker(broker))));
        Ok(())
    }

    /// Forgets a broker that is dead: it is not started again in the end.
    pub fn forget(&mut self, broker: u8) -> Result<()> {
        self.cluster.forget(broker)
    }

    /// Lets a fault last. What is judged never depends on it.
    pub fn last(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Waits until every partition that kills have struck takes writes again, and writes down how long it took.
    pub fn await_writes(&mut self) -> Result<()> {
        for struck in std::mem::take(&mut self.struck) {
            let mut longest = Duration::ZERO;
            for (partitions, is_head) in [(&struck.heads, true), (&struck.others, false)] {
                for &partition in partitions {
                    let took = self.await_write_after(partition, struck.killed)?;
                    longest = longest.max(took);
                    if is_head { self.outages.heads.push(took) } else { self.outages.others.push(took) }
                }
            }
            self.say(&format!(
                "all partitions take writes; the last resumed {:.0} ms after the kill",
                longest.as_secs_f64() * 1e3
            ));
        }
        Ok(())
    }

    /// Waits until a record is acknowledged that was sent to a partition from now on.
    pub fn await_write(&mut self, partition: u32) -> Result<()> {
        let took = self.await_write_after(partition, Instant::now())?;
        self.say(&format!("partition {partition} takes writes, after {:.0} ms", took.as_secs_f64() * 1e3));
        Ok(())
    }

    fn await_write_after(&mut self, partition: u32, moment: Instant) -> Result<Duration> {
        let what = format!("partition {partition} takes writes");
        self.wait(&what, |world| Ok(world.probes.first_after(partition, moment).is_some()))?;
        let first = self.probes.first_after(partition, moment).context("it was there just now")?;
        Ok(first.heard - moment)
    }

    /// How many probes of a partition are acknowledged.
    pub fn probed(&self, partition: u32) -> usize {
        self.probes.count(partition)
    }

    /// Waits until records are acknowledged and read, on whatever partitions.
    pub fn at_work(&mut self) -> Result<()> {
        self.work(AT_WORK_RECORDS)
    }

    /// Waits until so many records are acknowledged and read, on whatever partitions.
    pub fn work(&mut self, records: u64) -> Result<()> {
        self.runtime.block_on(self.load.progress(records))
    }

    /// Waits until records are read, acknowledged or not.
    pub fn await_reads(&mut self, records: u64) -> Result<()> {
        let wanted = self.load.read() + records;
        self.wait("consumers read", |world| Ok(world.load.read() >= wanted))
    }

    /// Waits until every chain has so many members, none of which is among `without`.
    pub fn await_chains(&mut self, members: usize, without: &[u8]) -> Result<()> {
        self.wait_for_chains(&format!("all chains have {members} members without {without:?}"), |chains| {
            chains.iter().all(|chain| chain.len() == members && !chain.iter().any(|node| without.contains(node)))
        })?;
        self.say(&format!("all chains have {members} members"));
        Ok(())
    }

    /// Waits until the chains are as wanted.
    pub fn wait_for_chains(&mut self, what: &str, are_so: impl Fn(&[Vec<u8>]) -> bool) -> Result<()> {
        let mut last = Vec::new();
        let waited = self.wait(what, |world| {
            last = world.chains()?;
            Ok(are_so(&last))
        });
        waited.with_context(|| format!("chains: {last:?}"))
    }

    /// Waits for something, with all clients under observation.
    pub fn wait(&mut self, what: &str, is_so: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        self.wait_within(PATIENCE, what, is_so)
    }

    /// The same, for what takes longer.
    pub fn wait_within(
        &mut self,
        patience: Duration,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !is_so(self)? {
            self.check()?;
            ensure!(Instant::now() < deadline, "not within {} s: {what}", patience.as_secs());
            std::thread::sleep(LOOK_INTERVAL.min(Duration::from_millis(5)));
        }
        Ok(())
    }

    /// Fails with the error of a client that has ended by itself.
    fn check(&mut self) -> Result<()> {
        self.runtime.block_on(async {
            self.load.check().await?;
            self.probes.check().await
        })
    }

    /// Heals and starts everything, waits until all chains are whole, ends all clients, reads all replicas, and judges.
    pub(super) fn conclude(mut self) -> Result<Verdict> {
        match self.judge() {
            Ok(verdict) => {
                self.cluster.destroy()?;
                Ok(verdict)
            }
            Err(error) => Err(self.autopsy(error)),
        }
    }

    fn judge(&mut self) -> Result<Verdict> {
        self.cluster.heal()?;
        let down: Vec<_> = self.cluster.status().into_iter().filter(|(_, health)| *health != Health::Running).collect();
        let down: Vec<_> = down.into_iter().map(|(member, _)| member).collect();
        if !down.is_empty() {
            self.start_again(&down)?;
        }
        self.await_chains(usize::from(REPLICATION), &[])?;
        self.at_work()?;
        self.say("ending the clients, reading all replicas");
        let (load, probes, cluster) = (&mut self.load, &mut self.probes, &self.cluster);
        // A process id tells lives of a node apart well enough.
        let life = |node: u32| {
            let member = u8::try_from(node).map(Member::Broker);
            member
                .ok()
                .and_then(|member| cluster.pid(member))
                .and_then(|pid| u64::try_from(pid).ok())
                .unwrap_or_default()
        };
        let (replicas, report) = self.runtime.block_on(async {
            probes.stop().await?;
            load.stop().await?;
            let replicas = replicas::read(load.shared(), life).await?;
            Ok::<_, anyhow::Error>((replicas, load.read_and_check().await?))
        })?;
        let (outages, took) = (std::mem::take(&mut self.outages), self.began.elapsed());
        Ok(Verdict { report, outages, replicas, took })
    }

    /// What there is to see after a failure: everybody's state, chains and logs.
    pub(super) fn autopsy(mut self, error: anyhow::Error) -> anyhow::Error {
        let status: Vec<_> =
            self.cluster.status().iter().map(|(member, health)| format!("{member} {health:?}")).collect();
        let logs = self
            .cluster
            .status()
            .into_iter()
            .map(|(member, _)| format!("--- {member}, the end of its log:\n{}", self.cluster.log_end(member)));
        let logs: Vec<_> = logs.collect();
        let client = self.client.clone();
        let chains = self.runtime.block_on(async move { chains(&client, &client.map()).await });
        let report = self.runtime.block_on(self.load.check()).err();
        let seen = report.map(|error| format!("\na client failed: {error:#}")).unwrap_or_default();
        error.context(format!(
            "{}\n{}\nchains as last known: {chains:?}{seen}\nit failed because",
            logs.join("\n"),
            status.join(", ")
        ))
    }
}

/// The nodes of the topic's chains.
async fn chains(client: &Client, map: &ClusterMap) -> Result<Vec<Vec<u8>>> {
    let topic = client.topic(TOPIC).await?;
    let chain = |partition| {
        let range = map.range_of(&topic, Partition(partition))?;
        let ring = map.rings().find(|ring| ring.ring == range.ring)?;
        let places = &ring.chains.get(range.range.0 as usize)?.places;
        places.iter().map(|place| u8::try_from(place.node.0).ok()).collect::<Option<Vec<u8>>>()
    };
    let chains: Option<Vec<_>> = (0..PARTITIONS).map(chain).collect();
    match chains {
        Some(chains) => Ok(chains),
        None => bail!("the map has no chain for some partition"),
    }
}

fn list(brokers: &[u8]) -> String {
    let names: BTreeSet<_> = brokers.iter().map(|number| format!("broker {number}")).collect();
    names.into_iter().collect::<Vec<_>>().join(" and ")
}
