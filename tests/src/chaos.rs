//! Chaos: real clusters under load while processes die, freeze and are cut off; then everything is healed, every replica is
//! read in full, and the checker judges what all clients saw.
//!
//! A [`Scenario`] is a function that does harm to a [`World`] and waits for what was promised to happen all the same; it says
//! which promise that is (docs/CHAOS.md has the list). Each runs on a cluster of its own. Waiting is for conditions, with
//! deadlines; time alone passes only where a fault is to last. The verdict is the checker's, never a scenario's.
//!
//! Not here: what power does to disks (`storage`, `tests/sim`), and search for rare interleavings (`tests/sim`).

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use minikafka_checker::Report;

use crate::seed::Seed;

mod outages;
mod probes;
mod replicas;
mod scenarios;
mod world;

pub use outages::Outages;
pub use replicas::Replicas;
pub use scenarios::all;
pub use world::{Size, World};

/// Less than this says nothing.
const ACKNOWLEDGED_MIN: usize = 500;

/// What a scenario needs beside processes and signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Processes,
    /// Links that can be cut or slowed: not possible on loopback.
    Links,
    /// File systems of its own.
    SmallDisks,
    /// Disks that can be throttled.
    SlowDisks,
}

/// Something that happens to a cluster, and what is promised all the same.
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What it does, and what it shows.
    pub promise: &'static str,
    /// Brokers of its cluster.
    pub brokers: u8,
    /// What not every machine and user has.
    pub needs: Needs,
    /// What happens.
    pub run: fn(&mut World) -> Result<()>,
}

/// What a run of a scenario came to.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the checker found nothing, and its counts.
    pub report: Report,
    /// How long writes stood still after kills.
    pub outages: Outages,
    /// What each member was found to hold.
    pub replicas: Replicas,
    /// How long it took.
    pub took: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// It ran to its end.
    Judged(Verdict),
    /// It needs what this machine does not allow.
    Skipped(&'static str),
}

/// The scenario of this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}

/// Runs a scenario on a new cluster in this directory, which must be empty.
pub fn run(scenario: &Scenario, directory: &Path, size: Size, seed: Seed) -> Result<Ended> {
    println!("{}: {}", scenario.name, scenario.promise);
    let mut world = World::start(scenario, directory, size, seed)?;
    if let Some(refusal) = world.refusal(scenario.needs) {
        return Ok(Ended::Skipped(refusal));
    }
    match (scenario.run)(&mut world) {
        Ok(()) => world.conclude().map(Ended::Judged),
        Err(error) => Err(world.autopsy(error)),
    }
}

impl Verdict {
    /// Fails with everything that was found.
    pub fn check(&self) -> Result<()> {
        ensure!(self.report.anomalies.is_empty(), "{}", self.report);
        ensure!(self.report.acknowledged >= ACKNOWLEDGED_MIN, "too little happened to mean anything: {}", self.report);
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replicas { copies, records } = self.replicas;
        write!(f, "{:.1} s: {}; {records} records in {copies} replicas", self.took.as_secs_f64(), self.report)?;
        if self.outages.is_empty() { Ok(()) } else { write!(f, "\n  writes resumed: {}", self.outages) }
    }
}
