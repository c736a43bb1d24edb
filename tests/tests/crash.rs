//! SIGKILL in a loop under load: nothing acknowledged is lost, and nothing comes twice, out of order, damaged or from
//! nowhere, however often and wherever the broker is killed.
//!
//! Producers and consumers of `minikafka_tests::load` go on through every restart. The broker is killed at random moments,
//! also while it recovers; now and then it is asked to stop instead. It comes back with another number of shards and
//! another way of writing durably, on the same data. In the end the producers finish what they have, the broker is killed
//! once more, and a new client reads everything.
//!
//! By default this takes about half a minute; `MINIKAFKA_CHAOS_SECONDS=600` goes on for so long. A failure prints the seed.
//! Proof that it can fail: with a broker that told its machine `Durable` when an entry was appended instead of when it was
//! written (an acknowledgement before it is true), five runs of five failed within 2 to 22 s, with 93 to 236 records lost
//! and as many offsets given twice; producers noticed by themselves (`out_of_order` for good). With a broker that took
//! every batch it had stored before for a new one, the run ended with 582 records stored twice.
//!
//! What a lost page cache or a torn write does to the files is not seen here, because a kill leaves the kernel alone: that
//! is `storage`'s simulated disk.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use minikafka_tests::load::{Load, LoadSetup};
use minikafka_tests::process::{self, Node, NodeSetup};
use minikafka_tests::seed::Seed;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

/// Environment variable that says how long to go on.
const SECONDS_VARIABLE: &str = "MINIKAFKA_CHAOS_SECONDS";
/// Without it: whichever comes first.
const SECONDS_DEFAULT: u64 = 25;
const ROUNDS_DEFAULT: u32 = 12;
/// The decisions of this file, apart from those of the load.
const SEED_PART: u64 = u64::MAX;

/// The broker and those who use it.
struct Chaos {
    setup: NodeSetup,
    node: Option<Node>,
    load: Load,
    runtime: Runtime,
    random: StdRng,
    kills: u32,
    stops: u32,
}

/// When to end.
struct Bound {
    seconds: u64,
    rounds: u32,
}

impl Bound {
    fn from_environment() -> Self {
        match std::env::var(SECONDS_VARIABLE) {
            Ok(text) => {
                let seconds = text.trim().parse().unwrap_or_else(|error| panic!("{SECONDS_VARIABLE}={text}: {error}"));
                Self { seconds, rounds: u32::MAX }
            }
            Err(_) => Self { seconds: SECONDS_DEFAULT, rounds: ROUNDS_DEFAULT },
        }
    }
}

impl Chaos {
    fn start(setup: NodeSetup, seed: Seed) -> Result<Self> {
        let node = Some(setup.start()?);
        let runtime = Runtime::new()?;
        let load = runtime.block_on(Load::start(LoadSetup {
            gateways: vec![setup.gateway()],
            topic: "chaos".to_owned(),
            partitions: 5,
            replication: 0,
            producers: 4,
            consumers: 2,
            unanswered_max: 200,
            seed,
        }))?;
        Ok(Self { setup, node, load, runtime, random: seed.part(SEED_PART), kills: 0, stops: 0 })
    }

    /// Round after round; then everybody finishes, and the broker is killed once more. Returns how many rounds.
    fn rounds(&mut self, bound: &Bound) -> Result<u32> {
        let started = Instant::now();
        let mut rounds = 0;
        while rounds < bound.rounds && started.elapsed() < Duration::from_secs(bound.seconds) {
            self.round().with_context(|| format!("round {rounds}"))?;
            rounds += 1;
        }
        self.runtime.block_on(self.load.stop_producers())?;
        self.node.take().context("a node runs")?.kill()?;
        self.kills += 1;
        self.restart()?;
        Ok(rounds)
    }

    /// What the history says after a client or the broker has failed.
    fn autopsy(mut self, error: anyhow::Error) -> anyhow::Error {
        let started = if self.node.is_none() { self.restart() } else { Ok(()) };
        let report = started.and_then(|()| self.runtime.block_on(self.load.autopsy()));
        let log_end = self.node.as_ref().map(Node::log_end).unwrap_or_default();
        match report {
            Ok(report) => error.context(format!("the broker's log:\n{log_end}\nthe history: {report}\n")),
            Err(unread) => error.context(format!("the broker's log:\n{log_end}\nthe history is unread: {unread:#}\n")),
        }
    }

    /// Lets everybody work for a while, and ends the broker in the middle of it.
    fn round(&mut self) -> Result<()> {
        let records = self.random.random_range(50..500);
        self.runtime.block_on(self.load.progress(records))?;
        // Not for something to happen: this is the random moment.
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..800)));
        let node = self.node.take().context("a node runs")?;
        if self.random.random_ratio(1, 6) {
            self.stops += 1;
            node.stop()?;
        } else {
            self.kills += 1;
            node.kill()?;
        }
        self.restart()
    }

    /// Starts the broker again, at times after it was killed on its way up.
    fn restart(&mut self) -> Result<()> {
        loop {
            self.setup.cores = self.random.random_range(1..=2);
            let durability = ["dsync", "group_fdatasync"][self.random.random_range(0..2)];
            self.setup.more = vec!["--durability".to_owned(), durability.to_owned()];
            if !self.random.random_ratio(1, 4) {
                break;
            }
            let launch = self.setup.launch()?;
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..600)));
            launch.kill()?;
            self.kills += 1;
        }
        self.node = Some(self.setup.start()?);
        Ok(())
    }
}

fn run(seed: Seed) -> Result<()> {
    let directory = process::directory()?;
    let mut chaos = Chaos::start(NodeSetup::new(directory.path(), "dev")?, seed)?;
    let started = Instant::now();
    let rounds = match chaos.rounds(&Bound::from_environment()) {
        Ok(rounds) => rounds,
        Err(error) => return Err(chaos.autopsy(error)),
    };
    let Chaos { load, runtime, kills, stops, node, .. } = chaos;
    let report = runtime.block_on(load.finish())?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{rounds} rounds, {kills} kills, {stops} stops in {seconds:.0} s: {report}");
    report.assert_clean(&seed.to_string());
    assert!(report.acknowledged > 1_000, "too little happened to mean anything: {report}");
    node.context("a node runs")?.stop()
}

#[test]
fn nothing_acknowledged_is_lost_however_often_the_broker_is_killed() {
    let seed = Seed::from_environment();
    run(seed).unwrap_or_else(|error| panic!("{error:#}\nreplay: {seed}"));
}
