//! `bench suite`: every promise about speed and size, measured on brokers of its own, beside the limits of the machine.
//!
//! A round measures the limits, then every row once on a fresh broker with an empty segment pool, then the limits again;
//! a row's figure is the median over the rounds. The broker is a process of its own on its own core, the load is on
//! another one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use minikafka_core::limits;
use serde::Serialize;

use crate::command::Context;
use crate::driver::speed;
use crate::error::{BenchError, Doing, Result};
use crate::limits::{Extent, LimitMeter, LimitOptions, Limits, Thoroughness};
use crate::machine::Machine;
use crate::pin;
use crate::progress;
use crate::quantity;
use crate::report::{BenchReport, html, markdown};

mod measuring;
mod rows;
pub(crate) mod verdict;

pub use rows::{ROWS, Target};
pub use verdict::{RowResult, SuiteReport};

/// Options of `bench suite`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct SuiteBench {
    /// Where the brokers keep their data, on the disk that is to be measured. Everything in it is the suite's own.
    #[arg(long, value_name = "DIR", default_value = "bench-data")]
    pub dir: PathBuf,
    /// Where README.md, results.json and report.html go.
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    pub output: PathBuf,
    /// The broker's core [default: the first that may be used].
    #[arg(long, value_name = "CORE", default_value_t = pin::core_at(0), hide_default_value = true)]
    pub broker_cpu: usize,
    /// The load's core [default: the second that may be used].
    #[arg(long, value_name = "CORE", default_value_t = pin::core_at(1), hide_default_value = true)]
    pub load_cpu: usize,
    /// Rounds; the median counts.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub runs: u32,
    /// Only these rows, by number: 1 to 10.
    #[arg(long, value_name = "ROW[,…]", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10))]
    pub rows: Vec<u32>,
    /// Little of everything, to see that it works: the figures mean nothing.
    #[arg(long)]
    pub quick: bool,
    /// How long a load is measured [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub duration: Option<Duration>,
    /// Bytes of the log that a broker starts on [default: 20G].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub start_up_bytes: Option<u64>,
    /// Bytes from which one partition of 64 is read [default: 16G].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub catch_up_bytes: Option<u64>,
    /// More options of `minikafka server`, as one text.
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    pub server_options: String,
}

/// How much of everything.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scale {
    /// Seconds of a measured load.
    pub duration: Duration,
    /// What runs before it, on top of `fill_bytes`.
    pub warm_up: Duration,
    /// Written before what is measured: four times what the segment pool keeps.
    pub fill_bytes: u64,
    /// Bytes of the whole log from which one partition is read.
    pub catch_up_bytes: u64,
    /// Partitions of it that are read, one after the other.
    pub catch_up_partitions: u32,
    /// Bytes of the log that a broker starts on.
    pub start_up_bytes: u64,
    /// What "ten thousand" is.
    pub many_partitions: u32,
    /// How long an idle broker is watched.
    pub idle: Duration,
}

impl SuiteBench {
    pub(crate) fn scale(&self) -> Scale {
        let seconds = Duration::from_secs;
        let mut scale = if self.quick {
            Scale {
                duration: Duration::from_millis(300),
                warm_up: Duration::from_millis(100),
                fill_bytes: 16 << 20,
                catch_up_bytes: 32 << 20,
                catch_up_partitions: 2,
                start_up_bytes: 32 << 20,
                many_partitions: 200,
                idle: Duration::from_millis(500),
            }
        } else {
            Scale {
                duration: seconds(10),
                warm_up: seconds(2),
                fill_bytes: 4 * limits::SEGMENT_POOL_BYTES_DEFAULT,
                catch_up_bytes: 16 << 30,
                catch_up_partitions: 8,
                start_up_bytes: 20 << 30,
                many_partitions: 10_000,
                idle: seconds(10),
            }
        };
        scale.duration = self.duration.unwrap_or(scale.duration);
        scale.start_up_bytes = self.start_up_bytes.unwrap_or(scale.start_up_bytes);
        scale.catch_up_bytes = self.catch_up_bytes.unwrap_or(scale.catch_up_bytes);
        scale
    }

    fn wants(&self, row: u32) -> bool {
        // Row 10 is the memory that the brokers of the others took.
        self.rows.is_empty() || self.rows.contains(&row)
    }

    fn limit_options(&self) -> LimitOptions {
        LimitOptions {
            dir: Some(self.dir.clone()),
            broker_cpu: Some(self.broker_cpu),
            load_cpu: Some(self.load_cpu),
            thoroughness: Thoroughness::Full,
        }
    }
}

/// Figures of each round by the name of their row, and what else is to be told.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// By row name: a figure for each round.
    pub figures: BTreeMap<&'static str, Vec<f64>>,
    /// By row name: limits that the row measured itself.
    pub own_limits: BTreeMap<&'static str, Vec<f64>>,
    /// By row name: what a reader must know.
    pub notes: BTreeMap<&'static str, Vec<String>>,
}

impl Samples {
    fn add(&mut self, row: &'static str, figure: f64) {
        self.figures.entry(row).or_default().push(figure);
    }

    fn note(&mut self, row: &'static str, note: String) {
        let notes = self.notes.entry(row).or_default();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
}

/// Runs the suite and writes its reports.
pub fn run(bench: &SuiteBench, context: &Context) -> Result<BenchReport> {
    fs::create_dir_all(&bench.dir).doing(|| format!("creating {}", bench.dir.display()))?;
    fs::create_dir_all(&bench.output).doing(|| format!("creating {}", bench.output.display()))?;
    let extent = if bench.quick { Extent::QUICK } else { Extent::FULL };
    let mut meter = LimitMeter::new(&bench.limit_options(), extent);
    let mut suite = measuring::Suite::new(bench, bench.scale(), context);
    for round in 0..bench.runs {
        say(context, &format!("round {} of {}: limits", round + 1, bench.runs));
        meter.round()?;
        for (number, row) in rows::MEASURED {
            if bench.wants(number) {
                say(context, &format!("round {} of {}: row {number}", round + 1, bench.runs));
                row(&mut suite).map_err(|error| BenchError::failed(format!("row {number}: {error}")))?;
            }
        }
        meter.round()?;
    }
    let driver = speed::measure(&bench.limit_options(), bench.quick)?;
    let limits: &Limits = meter.limits();
    let results = verdict::judge(ROWS, &suite.samples, limits, |row| bench.wants(row));
    let report = SuiteReport {
        machine: Machine::examine(),
        at_unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        options: bench.clone(),
        scale: bench.scale(),
        rows: results,
        limits: limits.clone(),
        driver,
    };
    write(bench, &report)?;
    Ok(BenchReport::Suite(Box::new(report)))
}

fn write(bench: &SuiteBench, report: &SuiteReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report).map_err(|error| BenchError::failed(error.to_string()))?;
    let page = html::page(&BenchReport::Suite(Box::new(report.clone())));
    for (name, text) in [("README.md", markdown::suite(report)), ("results.json", json + "\n"), ("report.html", page)] {
        let path = bench.output.join(name);
        fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Tells a person how far the suite is; it runs for minutes.
fn say(context: &Context, what: &str) {
    if context.shows_progress {
        progress::line(what);
    }
}
