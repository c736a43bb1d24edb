//! What the machine can do at all, measured as a broker would use it: the same stack, the same directory, the same cores.
//!
//! Every limit has several shapes; each round measures each shape once, in turn, so that a change of the machine's mood
//! meets all of them; the median over the rounds counts, and the best shape is the limit.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::error::Result;

mod device;
mod disk;
mod receive;
mod round_trip;

pub use device::Device;

/// Options of the limits.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// A directory on the disk that holds the broker's data; without it, nothing is said about the disk.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The core on which the limits of a broker are measured: the broker's [default: any].
    #[arg(long, value_name = "CORE")]
    pub broker_cpu: Option<usize>,
    /// The core of the load [default: any].
    #[arg(long, value_name = "CORE")]
    pub load_cpu: Option<usize>,
    /// How thoroughly limits are measured beside a load, half of the rounds before it and half behind.
    #[arg(long = "limits", value_enum, default_value_t)]
    pub thoroughness: Thoroughness,
}

/// How thoroughly limits are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Thoroughness {
    /// Not at all: figures stand alone.
    Off,
    /// Two short rounds.
    #[default]
    Quick,
    /// Six rounds of what is worth comparing with.
    Full,
}

impl Thoroughness {
    /// How much is measured, and how many rounds before a load; as many follow behind it.
    pub const fn extent(self) -> (Extent, usize) {
        match self {
            Self::Off => (Extent::QUICK, 0),
            Self::Quick => (Extent::QUICK, 1),
            Self::Full => (Extent::FULL, 3),
        }
    }
}

/// How much is measured in a round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Extent {
    /// Bytes written or read by each shape.
    pub disk_bytes: u64,
    /// Bytes received by each shape.
    pub receive_bytes: u64,
    /// Times of each latency.
    pub repetitions: u32,
}

impl Extent {
    /// A second or two a round.
    pub const FULL: Self = Self { disk_bytes: 2 << 30, receive_bytes: 1 << 30, repetitions: 500 };
    /// A glance: for tests, and to have something beside the figures of a short run.
    pub const QUICK: Self = Self { disk_bytes: 32 << 20, receive_bytes: 128 << 20, repetitions: 50 };
}

/// One way of doing something, and how well it went.
#[derive(Clone, Debug, Serialize)]
pub struct Shape {
    /// What it is.
    pub name: String,
    /// The figure of each round.
    pub runs: Vec<f64>,
    /// Their median.
    pub median: f64,
}

/// All shapes of one limit.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// What it limits.
    pub name: &'static str,
    /// `bytes/s` or `us`.
    pub unit: Unit,
    /// In the order in which they were measured.
    pub shapes: Vec<Shape>,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// More is better.
    #[serde(rename = "bytes/s")]
    BytesPerSecond,
    /// Less is better.
    #[serde(rename = "us")]
    Microseconds,
}

/// The limits of a machine. Those of the disk are missing when no directory was named.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// How it was measured.
    pub options: LimitOptions,
    /// How much was measured in each round.
    pub extent: Extent,
    /// How many rounds.
    pub rounds: usize,
    /// The disk.
    pub device: Option<Device>,
    /// Durable sequential writes of 1 MiB.
    pub durable_write: Option<Limit>,
    /// Aligned sequential reads of 1 MiB.
    pub sequential_read: Option<Limit>,
    /// Reads of 1 MiB, and durable writes of the same at the same time: what a replica is filled with where source and
    /// replica share a disk.
    pub disk_copy: Option<Limit>,
    /// One durable write of 4 KiB.
    pub small_write: Option<Limit>,
    /// Receiving from the loopback and checksumming, on one core.
    pub receive: Limit,
    /// A small request and its reply.
    pub round_trip: Limit,
}

impl Limit {
    fn new(name: &'static str, unit: Unit) -> Self {
        Self { name, unit, shapes: Vec::new() }
    }

    /// Adds a round's figures.
    fn add(&mut self, figures: Vec<(String, f64)>) {
        for (at, (name, figure)) in figures.into_iter().enumerate() {
            if at == self.shapes.len() {
                self.shapes.push(Shape { name, runs: Vec::new(), median: 0.0 });
            }
            let shape = &mut self.shapes[at];
            shape.runs.push(figure);
            shape.median = median(&shape.runs);
        }
    }

    /// The best shape.
    pub fn best(&self) -> Option<&Shape> {
        let better = |a: &&Shape, b: &&Shape| match self.unit {
            Unit::BytesPerSecond => a.median.total_cmp(&b.median),
            Unit::Microseconds => b.median.total_cmp(&a.median),
        };
        self.shapes.iter().max_by(better)
    }

    /// The figure of the best shape.
    pub fn figure(&self) -> f64 {
        self.best().map_or(f64::NAN, |shape| shape.median)
    }
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Measures limits, round by round.
#[derive(Debug)]
pub struct LimitMeter {
    limits: Limits,
    files: Option<disk::Files>,
}

impl LimitMeter {
    /// Nothing is measured yet.
    pub fn new(options: &LimitOptions, extent: Extent) -> Self {
        let has_disk = options.dir.is_some();
        let of_disk = |name, unit| has_disk.then(|| Limit::new(name, unit));
        let limits = Limits {
            device: options.dir.as_deref().map(Device::examine),
            options: options.clone(),
            extent,
            rounds: 0,
            durable_write: of_disk("durable sequential write", Unit::BytesPerSecond),
            sequential_read: of_disk("aligned sequential read", Unit::BytesPerSecond),
            disk_copy: of_disk("copying within the disk, durably", Unit::BytesPerSecond),
            small_write: of_disk("one durable 4 KiB write", Unit::Microseconds),
            receive: Limit::new("loopback receive with CRC-32C on one core", Unit::BytesPerSecond),
            round_trip: Limit::new("one round trip over the loopback", Unit::Microseconds),
        };
        Self { limits, files: None }
    }

    /// Measures every shape once.
    pub fn round(&mut self) -> Result<()> {
        let LimitOptions { dir, broker_cpu, load_cpu, .. } = self.limits.options.clone();
        let extent = self.limits.extent;
        if let Some(dir) = dir {
            let files = self.files.get_or_insert_with(|| disk::Files::new(&dir));
            let round = disk::round(files, broker_cpu, extent)?;
            let limits = &mut self.limits;
            let into =
                |limit: &mut Option<Limit>, figures| limit.iter_mut().for_each(|limit| limit.add(Vec::clone(&figures)));
            into(&mut limits.durable_write, round.writes);
            into(&mut limits.sequential_read, round.reads);
            into(&mut limits.disk_copy, round.copies);
            into(&mut limits.small_write, round.small_writes);
        }
        self.limits.receive.add(receive::round(broker_cpu, load_cpu, extent.receive_bytes)?);
        self.limits.round_trip.add(round_trip::round(broker_cpu, load_cpu, extent.repetitions * 4)?);
        self.limits.rounds += 1;
        Ok(())
    }

    /// What was measured so far.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Limits {
    /// Those of the disk, as far as they were measured.
    pub fn of_disk(&self) -> impl Iterator<Item = &Limit> {
        [&self.durable_write, &self.sequential_read, &self.disk_copy, &self.small_write].into_iter().flatten()
    }

    /// Bytes a second that a producer cannot exceed, and which limit that is.
    pub fn producing(&self) -> (f64, &'static str) {
        let receive = (self.receive.figure(), self.receive.name);
        match &self.durable_write {
            Some(write) if write.figure() < receive.0 => (write.figure(), write.name),
            Some(_) => receive,
            None => (receive.0, "loopback receive with CRC-32C on one core (the disk was not measured: --dir)"),
        }
    }

    /// Microseconds that a durable record cannot go below, and what that is.
    pub fn durable_record(&self) -> (f64, &'static str) {
        match &self.small_write {
            Some(write) => (write.figure() + self.round_trip.figure(), "one durable 4 KiB write and one round trip"),
            None => (self.round_trip.figure(), "one round trip (the disk was not measured: --dir)"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 2 GB/s to write, 3 GB/s to read, 4 GB/s to receive; 200 us to write, 50 us there and back.
    pub(crate) fn limits(with_disk: bool) -> Limits {
        let dir = with_disk.then(|| PathBuf::from("."));
        let options = LimitOptions { dir, broker_cpu: Some(0), load_cpu: Some(1), thoroughness: Thoroughness::Quick };
        let mut limits = LimitMeter::new(&options, Extent::QUICK).limits;
        let add = |limit: &mut Limit, figure| limit.add(vec![("one way".to_owned(), figure)]);
        limits.durable_write.iter_mut().for_each(|limit| add(limit, 2e9));
        limits.sequential_read.iter_mut().for_each(|limit| add(limit, 3e9));
        limits.small_write.iter_mut().for_each(|limit| add(limit, 200.0));
        add(&mut limits.receive, 4e9);
        add(&mut limits.round_trip, 50.0);
        limits.rounds = 1;
        limits
    }

    #[test]
    fn the_best_shape_is_the_limit() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9 && (median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        for (unit, expected) in [(Unit::BytesPerSecond, "b"), (Unit::Microseconds, "a")] {
            let mut limit = Limit::new("test", unit);
            for (a, b) in [(1.0, 90.0), (2.0, 5.0), (3.0, 6.0)] {
                limit.add(vec![("a".to_owned(), a), ("b".to_owned(), b)]);
            }
            assert_eq!(limit.best().map(|shape| (shape.name.as_str(), shape.runs.len())), Some((expected, 3)));
        }
    }

    /// Every limit, on the real disk and loopback, with next to nothing of each.
    #[test]
    fn everything_is_measured() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let thoroughness = Thoroughness::Quick;
        let options = LimitOptions { dir: Some(dir.path().to_owned()), broker_cpu: None, load_cpu: None, thoroughness };
        let extent = Extent { disk_bytes: 4 << 20, receive_bytes: 8 << 20, repetitions: 5 };
        let mut meter = LimitMeter::new(&options, extent);
        (0..2).for_each(|_| meter.round().unwrap());
        let limits = meter.limits().clone();
        drop(meter);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the files are removed");
        let Limits { receive, round_trip, .. } = &limits;
        let all: Vec<_> = limits.of_disk().chain([receive, round_trip]).collect();
        assert_eq!(all.len(), 6);
        for (limit, shapes) in all.into_iter().zip([16, 4, 4, 4, 6, 1]) {
            assert_eq!(limit.shapes.len(), shapes, "{limit:?}");
            assert!(limit.shapes.iter().all(|shape| shape.runs.len() == 2 && shape.median > 0.0), "{limit:?}");
        }
        assert!(limits.producing().0 <= receive.figure());
        assert!(limits.durable_record().0 > round_trip.figure());
    }
}
