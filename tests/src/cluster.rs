//! A real cluster on this machine: one ZooKeeper, gateways and brokers, each a process of its own in a network namespace of
//! its own, to be killed, stopped, paused, cut off, slowed, wiped and started again.
//!
//! Everything about a cluster is in its directory: state, logs, data, the secret. So a cluster outlives the process that
//! started it, if that wants it (`scripts/cluster up`), and any other can go on with it; a cluster of a test ends with the
//! test, however that ends ([`guard`]).
//!
//! Where namespaces are not allowed the cluster runs on loopback, and faults of the network are refused ([`network`]). Disks
//! rot ([`crate::rot`]), fill up or are slow ([`disk`]); power is never lost: that is `tests/sim`'s and `storage`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process;

pub mod disk;
pub mod guard;
pub mod member;
pub mod monitoring;
pub mod network;
pub mod running;
pub mod state;
pub mod zookeeper;

use disk::SmallDisk;
pub use member::{Member, Others};
use network::Network;
use running::{LOOK_INTERVAL, Running};
use state::State;

/// Where every gateway listens.
pub const GATEWAY_PORT: u16 = 9000;
/// Where every gateway answers operators.
pub const HTTP_PORT: u16 = 9001;
/// Where every broker tells its metrics.
pub const BROKER_HTTP_PORT: u16 = 19_600;
/// Where the first shard of every broker listens.
pub const PORT_BASE: u16 = 19_100;
/// The cluster's root in ZooKeeper.
const ROOT: &str = "/minikafka";
/// Whoever takes longer than this to get ready is broken.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Whoever takes longer than this to end in order is broken.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// SIGSTOP stops all threads within this.
const PAUSE_DEADLINE: Duration = Duration::from_secs(10);
/// Lines of a log that a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterSetup {
    /// Where everything about it is kept; must not hold a cluster yet.
    pub directory: PathBuf,
    /// The binary; see [`process::binary`].
    pub binary: PathBuf,
    /// How many brokers: node 1, 2, …
    pub brokers: u8,
    /// How many gateways.
    pub gateways: u8,
    /// Shards of each broker.
    pub cores: u16,
    /// Whatever else stands on each broker's command line.
    pub broker_options: Vec<String>,
    /// How long it takes until a gateway or broker that the coordinator does not hear counts as gone, 2 s at least.
    pub session_timeout: Duration,
}

impl ClusterSetup {
    /// Three brokers of one shard each, and two gateways.
    pub fn new(directory: &Path) -> Result<Self> {
        let directory = std::path::absolute(directory)?;
        Ok(Self {
            directory,
            binary: process::binary()?,
            brokers: 3,
            gateways: 2,
            cores: 1,
            broker_options: ["--memory-per-shard", "64M", "--segment-bytes-max", "8M"].map(String::from).to_vec(),
            session_timeout: Duration::from_secs(10),
        })
    }
}

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its process runs.
    Running,
    /// Its process stands still.
    Paused,
    /// It was started, and its process ended by itself.
    Gone,
    /// It was ended on purpose, or never started.
    Stopped,
}

/// A cluster. Dropping it takes it down, unless [`Cluster::leave_running`] was called.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    state: State,
    /// Whether its processes end with this handle.
    owned: bool,
    guard: Option<guard::Guard>,
}

impl Cluster {
    /// Starts a cluster, and waits until all of it is ready. It ends with this handle, and with this process.
    pub fn up(setup: &ClusterSetup) -> Result<Self> {
        fs::create_dir_all(&setup.directory)?;
        let there = State::load(&setup.directory)?.is_some();
        ensure!(!there, "{} holds a cluster already: take it down first", setup.directory.display());
        let state = State {
            binary: setup.binary.clone(),
            network: Network::create()?,
            cores: setup.cores,
            broker_options: setup.broker_options.clone(),
            session_timeout_ms: setup.session_timeout.as_millis() as u64,
            nodes: (1..=setup.brokers).map(|number| (number, u32::from(number))).collect(),
            gateways: setup.gateways,
            running: BTreeMap::new(),
            cuts: BTreeSet::new(),
            slow: BTreeSet::new(),
            slow_disks: BTreeSet::new(),
            small_disks: BTreeSet::new(),
        };
        state.save(&setup.directory)?;
        let mut cluster = Self { directory: setup.directory.clone(), state, owned: true, guard: None };
        cluster.guard = Some(guard::Guard::set(&cluster.directory)?);
        cluster.start_all()?;
        Ok(cluster)
    }

    /// The cluster in a directory, if there is one; dropping the handle leaves it alone.
    pub fn open(directory: &Path) -> Result<Option<Self>> {
        let directory = std::path::absolute(directory)?;
        let state = State::load(&directory)?;
        Ok(state.map(|state| Self { directory, state, owned: false, guard: None }))
    }

    /// Takes over what another program has done to it by `scripts/cluster`.
    pub fn reload(&mut self) -> Result<()> {
        self.state = State::load(&self.directory)?.context("the cluster was taken down")?;
        Ok(())
    }

    /// The shell command that restarts a broker in order, as `systemctl restart` does on a machine of its own.
    pub fn restart_command(&self, number: u8) -> Result<String> {
        let program = format!("'{}'", process::program("cluster")?.display());
        let directory = format!("--directory '{}'", self.directory.display());
        Ok(format!("{program} stop {number} {directory} && {program} start {number} {directory}"))
    }

    /// Goes on running when this handle, and this process, end.
    pub fn leave_running(mut self) {
        self.owned = false;
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }

    /// Ends everything in order, gateways first, and takes the network away; the directory stays.
    pub fn down(mut self) -> Result<()> {
        self.heal()?;
        let started: Vec<Member> = self.state.running.keys().copied().collect();
        let gateways = |member: &Member| matches!(member, Member::Gateway(_));
        let brokers = |member: &Member| matches!(member, Member::Broker(_));
        self.end_in_order(started.iter().copied().filter(gateways));
        self.end_in_order(started.iter().copied().filter(brokers));
        self.destroy()
    }

    /// SIGTERM to all of these at once. Who does not end in time is killed later.
    fn end_in_order(&self, members: impl Iterator<Item = Member> + Clone) {
        let ending = members.filter_map(|member| self.state.running.get(&member).copied());
        ending.clone().for_each(|running| drop(running.signal(libc::SIGTERM)));
        for running in ending {
            let _ = running.ends_within(STOP_DEADLINE / 6);
        }
    }

    /// SIGKILL for everybody, and takes the network away; the directory stays.
    pub fn destroy(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.owned = false;
        let members = self.state.members();
        let mut ended = monitoring::stop(&self.directory);
        for running in std::mem::take(&mut self.state.running).into_values() {
            ended = ended.and(running.kill());
        }
        // Whoever was started and not yet written down.
        for pid in members.iter().flat_map(|&member| self.state.network.processes(member)) {
            // SAFETY: `kill` takes no memory. Nothing but this cluster's processes is in its namespaces.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        for number in std::mem::take(&mut self.state.slow_disks) {
            ended = ended.and(disk::release(&self.disk_group(number)));
        }
        for number in std::mem::take(&mut self.state.small_disks) {
            ended = ended.and(SmallDisk::at(&self.data_directory(number)).unmount());
        }
        self.state.network.remove(members);
        State::forget(&self.directory)?;
        ended
    }

    /// Where its state, logs and data are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The network it has.
    pub fn network(&self) -> &Network {
        &self.state.network
    }

    /// The binary that gateways and brokers run.
    pub fn binary(&self) -> &Path {
        &self.state.binary
    }

    /// `host:port` of every gateway.
    pub fn gateways(&self) -> Vec<String> {
        let address = |number| format!("{}:{GATEWAY_PORT}", self.state.network.address(Member::Gateway(number)));
        (1..=self.state.gateways).map(address).collect()
    }

    /// `host:port` at which every gateway answers operators.
    pub fn http(&self) -> Vec<String> {
        let address = |number| format!("{}:{HTTP_PORT}", self.state.network.address(Member::Gateway(number)));
        (1..=self.state.gateways).map(address).collect()
    }

    /// The brokers' numbers.
    pub fn brokers(&self) -> Vec<u8> {
        self.state.nodes.keys().copied().collect()
    }

    /// Where the coordinator is, as gateways and brokers are told.
    pub fn coordinator(&self) -> String {
        format!("zk://{}:{}{ROOT}", self.state.network.address(Member::ZooKeeper), zookeeper::PORT)
    }

    /// How every member is.
    pub fn status(&self) -> Vec<(Member, Health)> {
        self.state.members().into_iter().map(|member| (member, self.health(member))).collect()
    }

    /// How a member is.
    pub fn health(&self, member: Member) -> Health {
        match self.state.running.get(&member) {
            Some(running) if running.is_paused() => Health::Paused,
            Some(running) if running.is_running() => Health::Running,
            Some(_) => Health::Gone,
            None => Health::Stopped,
        }
    }

    /// Process id of a member that was started.
    pub fn pid(&self, member: Member) -> Option<i32> {
        self.state.running.get(&member).map(|running| running.pid())
    }

    /// Who is cut off from whom, by (sender, receiver).
    pub fn cuts(&self) -> &BTreeSet<(Member, Member)> {
        &self.state.cuts
    }

    /// Whose links are slow.
    pub fn slow(&self) -> &BTreeSet<Member> {
        &self.state.slow
    }

    /// SIGKILL. Returns the moment before the signal was sent.
    pub fn kill(&mut self, member: Member) -> Result<Instant> {
        self.kill_together(&[member])
    }

    /// SIGKILL for all of these at once. Returns the moment before the first signal was sent.
    pub fn kill_together(&mut self, members: &[Member]) -> Result<Instant> {
        let ending: Vec<Running> = members.iter().map(|&member| self.running(member)).collect::<Result<_>>()?;
        let killed = Instant::now();
        for running in &ending {
            running.signal(libc::SIGKILL)?;
        }
        for (member, running) in members.iter().zip(ending) {
            running.kill()?;
            self.state.running.remove(member);
        }
        self.save()?;
        Ok(killed)
    }

    /// SIGTERM, and waits for an orderly end.
    pub fn stop(&mut self, member: Member) -> Result<()> {
        let running = self.running(member)?;
        running.signal(libc::SIGTERM)?;
        ensure!(running.ends_within(STOP_DEADLINE), "{member} does not end; its log:\n{}", self.log_end(member));
        self.state.running.remove(&member);
        self.save()
    }

    /// Starts a member with the data it has, and waits until it is ready.
    pub fn start(&mut self, member: Member) -> Result<()> {
        self.launch(member)?;
        self.await_ready(member)
    }

    /// Starts a member with the data it has, and does not wait. ZooKeeper is waited for.
    pub fn launch(&mut self, member: Member) -> Result<()> {
        let health = self.health(member);
        ensure!(matches!(health, Health::Stopped | Health::Gone), "{member} runs already");
        self.state.network.join(member)?;
        fs::create_dir_all(self.member_directory(member))?;
        let running = match member {
            Member::ZooKeeper => {
                let directory = self.member_directory(member);
                zookeeper::start(&self.state.network, &directory)?
            }
            Member::Gateway(_) => self.start_process(member, &self.gateway_arguments(member))?,
            Member::Broker(number) => self.start_process(member, &self.broker_arguments(number)?)?,
            Member::Clients => bail!("clients are no process of the cluster"),
        };
        self.state.running.insert(member, running);
        self.save()
    }

    /// Waits until a member that was launched says that it is ready.
    pub fn await_ready(&self, member: Member) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while member != Member::ZooKeeper && !self.is_ready(member) {
            let log_end = || self.log_end(member);
            ensure!(self.health(member) != Health::Gone, "{member} ended while starting; its log:\n{}", log_end());
            ensure!(Instant::now() < deadline, "{member} does not get ready; its log:\n{}", log_end());
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Whether a member's process has said that it is ready.
    pub fn is_ready(&self, member: Member) -> bool {
        // The first whole line it prints; the file begins anew with each process.
        fs::read(self.member_directory(member).join("printed")).is_ok_and(|printed| printed.contains(&b'\n'))
    }

    /// SIGSTOP; returns when it stands still.
    pub fn pause(&mut self, member: Member) -> Result<()> {
        let running = self.running(member)?;
        running.signal(libc::SIGSTOP)?;
        let deadline = Instant::now() + PAUSE_DEADLINE;
        while !running.is_paused() {
            ensure!(Instant::now() < deadline, "{member} does not stand still");
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self, member: Member) -> Result<()> {
        self.running(member)?.signal(libc::SIGCONT)
    }

    /// Takes all data from a broker that does not run: it comes back with a new disk.
    pub fn wipe(&mut self, number: u8) -> Result<()> {
        let member = Member::Broker(number);
        ensure!(self.health(member) != Health::Running, "{member} runs: kill or stop it before its disk is wiped");
        let data = self.data_directory(number);
        let has_own_disk = self.state.small_disks.remove(&number);
        if has_own_disk {
            self.save()?;
            SmallDisk::at(&data).unmount()?;
        }
        fs::remove_dir_all(&data).with_context(|| data.display().to_string())
    }

    /// A broker that does not run loses its data, and gets a small disk of its own.
    pub fn change_to_small_disk(&mut self, number: u8) -> Result<()> {
        self.wipe(number)?;
        self.state.small_disks.insert(number);
        self.save()?;
        let image = self.member_directory(Member::Broker(number)).join("disk.image");
        SmallDisk::make(&image, &self.data_directory(number)).map(drop)
    }

    /// The small disk of a broker.
    pub fn small_disk(&self, number: u8) -> Result<SmallDisk> {
        ensure!(self.state.small_disks.contains(&number), "broker {number} has no small disk");
        Ok(SmallDisk::at(&self.data_directory(number)))
    }

    /// What a broker and its disk exchange is bounded to so many bytes a second.
    pub fn slow_disk(&mut self, number: u8, bytes_per_second: u64) -> Result<()> {
        let pid = self.running(Member::Broker(number))?.pid();
        self.state.slow_disks.insert(number);
        self.save()?;
        disk::throttle(&self.disk_group(number), pid, &self.data_directory(number), bytes_per_second)
    }

    /// The control group of a broker whose disk is slow.
    fn disk_group(&self, number: u8) -> String {
        self.state.network.namespace(Member::Broker(number))
    }

    /// Runs `minikafka cluster` with these words, and returns what it prints last.
    pub fn operate(&self, words: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new(self.binary());
        let output = command.arg("cluster").args(words).args(["--json", "--http", &self.http().join(",")]).output()?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(serde_json::from_str(text.lines().next_back().context("it prints something")?)?)
    }

    /// One broker more, as the next node. Returns its number.
    pub fn add(&mut self) -> Result<u8> {
        let number = self.next_number()?;
        self.add_as(u32::from(number))
    }

    /// One broker more, which claims to be this node, and is started without waiting if another one has that id. Returns its
    /// number.
    pub fn add_as(&mut self, node: u32) -> Result<u8> {
        let number = self.next_number()?;
        let is_impostor = self.state.nodes.values().any(|&other| other == node);
        self.state.nodes.insert(number, node);
        self.save()?;
        self.launch(Member::Broker(number))?;
        if !is_impostor {
            self.await_ready(Member::Broker(number))?;
        }
        Ok(number)
    }

    /// Forgets a broker that does not run, as if it had never been added; its data stay.
    pub fn forget(&mut self, number: u8) -> Result<()> {
        let member = Member::Broker(number);
        ensure!(self.health(member) != Health::Running, "{member} runs: kill or stop it before it is forgotten");
        self.state.network.leave(member);
        self.state.running.remove(&member);
        self.state.nodes.remove(&number);
        self.save()
    }

    /// Nobody hears the other one any more.
    pub fn partition(&mut self, a: Member, b: Member) -> Result<()> {
        self.cut([(a, b), (b, a)])
    }

    /// What the first one sends never arrives at the second one.
    pub fn one_way(&mut self, from: Member, to: Member) -> Result<()> {
        self.cut([(from, to)])
    }

    /// Cuts a member off from some of the others, both ways.
    pub fn isolate(&mut self, member: Member, others: Others) -> Result<()> {
        let is_meant = |other: &Member| match others {
            Others::Peers => matches!(other, Member::Broker(_)),
            Others::ZooKeeper => *other == Member::ZooKeeper,
            Others::Clients => *other == Member::Clients,
            Others::All => true,
        };
        let all = self.state.members().into_iter().chain([Member::Clients]);
        let meant: Vec<_> = all.filter(|other| *other != member && is_meant(other)).collect();
        self.cut(meant.into_iter().flat_map(|other| [(member, other), (other, member)]))
    }

    /// Bounds what a member sends and gets, in `tc`'s words: `5mbit`.
    pub fn slow_link(&mut self, member: Member, rate: &str) -> Result<()> {
        self.state.network.limit_rate(member, Some(rate))?;
        self.state.slow.insert(member);
        self.save()
    }

    /// Every link is whole and fast again, so is every disk, and nobody stands still. Who was killed or stopped stays so.
    pub fn heal(&mut self) -> Result<()> {
        let touched: BTreeSet<Member> = self.state.cuts.iter().flat_map(|&(from, to)| [from, to]).collect();
        self.state.cuts.clear();
        for member in touched.into_iter().filter(|member| *member != Member::Clients) {
            self.state.network.cut(member, &[], &[])?;
        }
        for member in std::mem::take(&mut self.state.slow) {
            self.state.network.limit_rate(member, None)?;
        }
        for number in std::mem::take(&mut self.state.slow_disks) {
            disk::release(&self.disk_group(number))?;
        }
        for running in self.state.running.values().filter(|running| running.is_paused()) {
            running.signal(libc::SIGCONT)?;
        }
        self.save()
    }

    /// What a member's process has logged.
    pub fn log(&self, member: Member) -> String {
        fs::read_to_string(self.member_directory(member).join("log")).unwrap_or_default()
    }

    /// The last lines of a member's log.
    pub fn log_end(&self, member: Member) -> String {
        let text = self.log(member);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn start_all(&mut self) -> Result<()> {
        self.start(Member::ZooKeeper)?;
        self.create()?;
        let others: Vec<Member> =
            self.state.members().into_iter().filter(|member| *member != Member::ZooKeeper).collect();
        for &member in &others {
            self.launch(member)?;
        }
        others.iter().try_for_each(|&member| self.await_ready(member))
    }

    /// The cluster's record, and its secret.
    fn create(&self) -> Result<()> {
        let mut command = self.state.network.command(Member::ZooKeeper, &self.state.binary);
        command.args(["cluster", "create", "--coordinator", &self.coordinator()]);
        command.args(["--nodes", &self.state.nodes.len().to_string(), "--secret-file"]).arg(self.secret_file());
        let output = quiet(&mut command).output().context("running the binary")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "cluster create: {}\n{errors}", output.status);
        Ok(())
    }

    fn start_process(&self, member: Member, arguments: &[String]) -> Result<Running> {
        let mut command = self.state.network.command(member, &self.state.binary);
        command.args(arguments);
        let directory = self.member_directory(member);
        Running::start(quiet(&mut command), &directory.join("printed"), &directory.join("log"))
    }

    fn gateway_arguments(&self, member: Member) -> Vec<String> {
        let address = self.state.network.address(member);
        let mut arguments = strings(&["gateway", "--json", "--listen"]);
        arguments.push(format!("{address}:{GATEWAY_PORT}"));
        arguments.extend(["--http".to_owned(), format!("{address}:{HTTP_PORT}")]);
        arguments.extend(self.membership());
        arguments
    }

    fn broker_arguments(&self, number: u8) -> Result<Vec<String>> {
        let node = self.state.nodes.get(&number).with_context(|| format!("there is no broker {number}"))?.to_string();
        let address = self.state.network.address(Member::Broker(number)).to_string();
        let (port, cores) = (PORT_BASE.to_string(), self.state.cores.to_string());
        let data = self.data_directory(number).display().to_string();
        let mut arguments = strings(&["broker", "--json", "--node-id", &node, "--host", &address]);
        let first_core = (u16::from(number.saturating_sub(1)) * self.state.cores).to_string();
        arguments.extend(strings(&["--advertise", &address, "--port-base", &port, "--cores", &cores]));
        arguments.extend(strings(&["--first-core", &first_core]));
        arguments.extend(strings(&["--data-dir", &data]));
        arguments.extend(self.membership());
        arguments.extend(self.state.broker_options.iter().cloned());
        Ok(arguments)
    }

    /// What gateways and brokers are told of the cluster.
    fn membership(&self) -> Vec<String> {
        let secret = self.secret_file().display().to_string();
        let timeout = format!("{}ms", self.state.session_timeout_ms);
        strings(&["--coordinator", &self.coordinator(), "--secret-file", &secret, "--session-timeout", &timeout])
    }

    fn secret_file(&self) -> PathBuf {
        self.directory.join("secret")
    }

    /// Where a broker keeps its data.
    pub fn data_directory(&self, number: u8) -> PathBuf {
        self.member_directory(Member::Broker(number)).join("data")
    }

    fn member_directory(&self, member: Member) -> PathBuf {
        self.directory.join(member.to_string())
    }

    fn next_number(&self) -> Result<u8> {
        let number = self.state.nodes.keys().max().map_or(1, |last| last + 1);
        ensure!(number <= member::NUMBER_MAX, "no more than {} brokers", member::NUMBER_MAX);
        Ok(number)
    }

    fn running(&self, member: Member) -> Result<Running> {
        let running = self.state.running.get(&member).with_context(|| format!("{member} was not started"))?;
        ensure!(running.is_running(), "{member} has ended by itself; its log:\n{}", self.log_end(member));
        Ok(*running)
    }

    fn cut(&mut self, cuts: impl IntoIterator<Item = (Member, Member)>) -> Result<()> {
        let cuts: Vec<_> = cuts.into_iter().collect();
        let members: BTreeSet<_> = self.state.members().into_iter().chain([Member::Clients]).collect();
        for &(from, to) in &cuts {
            ensure!(members.contains(&from) && members.contains(&to), "{from} or {to} is not in this cluster");
            ensure!(from != to, "{from} cannot be cut off from itself");
        }
        self.state.cuts.extend(&cuts);
        self.save()?;
        // On the receiver's side, and for what goes to clients on the sender's: the host's rules are its own.
        let places = cuts.iter().map(|&(from, to)| if to == Member::Clients { from } else { to });
        for place in places.collect::<BTreeSet<_>>() {
            let address = |member: Member| self.state.network.address(member);
            let from: Vec<Ipv4Addr> =
                self.state.cuts.iter().filter(|(_, to)| *to == place).map(|&(from, _)| address(from)).collect();
            let to_clients = self.state.cuts.contains(&(place, Member::Clients));
            let to: Vec<Ipv4Addr> = to_clients.then(|| address(Member::Clients)).into_iter().collect();
            self.state.network.cut(place, &from, &to)?;
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        self.state.save(&self.directory)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.owned {
            // Nothing more can be done about what cannot be ended.
            let _ = self.end();
        }
    }
}

/// Nothing of this process's environment decides what a member does.
fn quiet(command: &mut Command) -> &mut Command {
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name == "RUST_LOG" || name.to_string_lossy().starts_with("MINIKAFKA_")) {
        command.env_remove(name);
    }
    command
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
