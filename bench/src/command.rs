//! What `minikafka bench` can do, and its options.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::compare::{self, CompareBench};
use crate::driver::wire::{self, FetchOptions};
use crate::driver::{DriverNotes, client};
use crate::error::{BenchError, Doing, Result};
use crate::limits::{Extent, LimitMeter, LimitOptions, Limits};
use crate::machine::Machine;
use crate::measure::Measured;
use crate::progress;
use crate::report::ratio::{Binding, ratios};
use crate::report::{BenchReport, LimitsReport, RunReport, html};
use crate::suite::{self, SuiteBench};
use crate::target;
use crate::workload::{DriverKind, Load, Records};

/// Loads and measurements.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Write records as fast as they are taken, or at a rate.
    Produce(ProduceBench),
    /// Read a topic as fast as it comes.
    Consume(ConsumeBench),
    /// Write and read at once through the Rust client; latency from the intended send to the receipt.
    EndToEnd(EndToEndBench),
    /// What this machine can do at all: disk, loopback, round trip, and this load generator by itself.
    Limits(LimitsBench),
    /// This binary beside another one, under the same load in turn.
    Compare(CompareBench),
    /// Everything that is promised, row by row, on brokers of its own; writes a report into a directory.
    Suite(SuiteBench),
}

/// Options of `bench produce`.
#[derive(Debug, Args)]
pub struct ProduceBench {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    records: Records,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// Options of `bench consume`.
#[derive(Debug, Args)]
pub struct ConsumeBench {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    fetch: FetchOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// Options of `bench end-to-end`.
#[derive(Debug, Args)]
pub struct EndToEndBench {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    records: Records,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// Options of `bench limits`.
#[derive(Debug, Args)]
pub struct LimitsBench {
    #[command(flatten)]
    limits: LimitOptions,
    /// Rounds over all shapes; the median counts.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Little of everything: to see that it works.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: OutputOptions,
}

/// Where a report goes besides standard output.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub struct OutputOptions {
    /// Write an HTML report with plots, in one file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What a command is run with.
#[derive(Clone, Debug)]
pub struct Context {
    /// `host:port` of gateways.
    pub gateways: Vec<String>,
    /// The binary whose `server` the suite starts.
    pub binary: PathBuf,
    /// Whether a person watches.
    pub shows_progress: bool,
}

/// What a load was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    pub load: Load,
    pub records: Option<Records>,
    pub fetch: Option<FetchOptions>,
}

/// Runs a command to its end.
///
/// # Errors
/// When the cluster refuses, the machine does, or the options contradict each other.
pub fn run(command: &BenchCommand, context: &Context) -> Result<BenchReport> {
    let (report, output) = match command {
        BenchCommand::Produce(bench) => {
            let asked = Asked::new(&bench.load, Some(&bench.records), None, &bench.limits);
            (beside_limits("produce", asked, &bench.limits, Binding::Produce, context, produce)?, &bench.output)
        }
        BenchCommand::Consume(bench) => {
            let asked = Asked::new(&bench.load, None, Some(&bench.fetch), &bench.limits);
            (beside_limits("consume", asked, &bench.limits, Binding::Consume, context, consume)?, &bench.output)
        }
        BenchCommand::EndToEnd(bench) => {
            let asked = Asked::new(&bench.load, Some(&bench.records), None, &bench.limits);
            (beside_limits("end-to-end", asked, &bench.limits, Binding::Produce, context, end_to_end)?, &bench.output)
        }
        BenchCommand::Limits(bench) => (limits(bench, context)?, &bench.output),
        BenchCommand::Compare(bench) => return compare::run(bench, context),
        BenchCommand::Suite(bench) => return suite::run(bench, context),
    };
    if let Some(path) = &output.html {
        fs::write(path, html::page(&report)).doing(|| format!("writing {}", path.display()))?;
    }
    Ok(report)
}

impl Asked {
    fn new(load: &Load, records: Option<&Records>, fetch: Option<&FetchOptions>, limits: &LimitOptions) -> Self {
        let load = Load { cpu: limits.load_cpu, ..load.clone() };
        Self { load, records: records.cloned(), fetch: fetch.cloned() }
    }

    fn records(&self) -> Result<&Records> {
        let records =
            self.records.as_ref().ok_or_else(|| BenchError::Options("nothing says what to write".to_owned()))?;
        records.check().map(|()| records)
    }

    fn fetch(&self) -> Result<&FetchOptions> {
        self.fetch.as_ref().ok_or_else(|| BenchError::Options("nothing says what to read".to_owned()))
    }
}

/// What a load and its driver say.
pub(crate) type Outcome = (Measured, DriverNotes);

/// Runs a load with rounds of the limits before and behind it.
fn beside_limits(
    command: &'static str,
    asked: Asked,
    options: &LimitOptions,
    binding: Binding,
    context: &Context,
    load: impl FnOnce(&Asked, &Context) -> Result<Outcome>,
) -> Result<BenchReport> {
    let (extent, rounds) = options.thoroughness.extent();
    let mut meter = LimitMeter::new(options, extent);
    measure_limits(&mut meter, rounds, context)?;
    let (measured, driver) = load(&asked, context)?;
    measure_limits(&mut meter, rounds, context)?;
    let limits = (rounds > 0).then(|| meter.limits().clone());
    let ratios = limits.as_ref().map(|limits| ratios(&measured, limits, binding)).unwrap_or_default();
    let machine = Machine::examine();
    Ok(BenchReport::Run(Box::new(RunReport { command, machine, asked, measured, driver, ratios, limits })))
}

fn measure_limits(meter: &mut LimitMeter, rounds: usize, context: &Context) -> Result<()> {
    let spinner = progress::spinner("measuring the limits", context.shows_progress && rounds > 0);
    for _ in 0..rounds {
        meter.round()?;
    }
    spinner.finish_and_clear();
    Ok(())
}

pub(crate) fn produce(asked: &Asked, context: &Context) -> Result<Outcome> {
    let (load, records) = (&asked.load, asked.records()?);
    match load.driver {
        DriverKind::Wire => {
            load.check_wire()?;
            let target = blocking(target::resolve(&context.gateways, load, true))?;
            wire::produce(&target, load, records, context.shows_progress)
        }
        DriverKind::Client => client::produce(&context.gateways, load, records, context.shows_progress),
    }
}

pub(crate) fn consume(asked: &Asked, context: &Context) -> Result<Outcome> {
    let (load, fetch) = (&asked.load, asked.fetch()?);
    match load.driver {
        DriverKind::Wire => {
            load.check_wire()?;
            let target = blocking(target::resolve(&context.gateways, load, false))?;
            wire::fetch(&target, load, fetch, context.shows_progress)
        }
        DriverKind::Client => client::consume(&context.gateways, load, fetch, context.shows_progress),
    }
}

fn end_to_end(asked: &Asked, context: &Context) -> Result<Outcome> {
    client::end_to_end(&context.gateways, &asked.load, asked.records()?, context.shows_progress)
}

fn limits(bench: &LimitsBench, context: &Context) -> Result<BenchReport> {
    let mut meter = LimitMeter::new(&bench.limits, if bench.quick { Extent::QUICK } else { Extent::FULL });
    measure_limits(&mut meter, bench.rounds as usize, context)?;
    let limits: Limits = meter.limits().clone();
    let driver = crate::driver::speed::measure(&bench.limits, bench.quick)?;
    Ok(BenchReport::Limits(Box::new(LimitsReport { machine: Machine::examine(), limits, driver })))
}

/// Asks the cluster from outside of any runtime.
pub(crate) fn blocking<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.doing(|| "starting a runtime".to_owned())?.block_on(future)
}
