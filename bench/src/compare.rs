//! `bench compare`: two binaries under the same load, in turn, so that the machine's moods meet both.
//!
//! Every round starts each on an empty directory of its own, first the one and then the other, in the next round the other
//! way round. The median over the rounds of what one round says counts, not the ratio of two medians: what disturbs a round
//! disturbs both of its halves.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::broker::Setup;
use crate::command::{self, Asked, Context};
use crate::error::{BenchError, Result};
use crate::limits::median;
use crate::machine::Machine;
use crate::pin;
use crate::progress;
use crate::report::{BenchReport, show};
use crate::workload::{Load, Records};

/// Options of `bench compare`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct CompareBench {
    /// The binary that this one is compared with.
    #[arg(long, value_name = "BINARY")]
    pub baseline: PathBuf,
    /// The binary that is compared [default: this one].
    #[arg(long, value_name = "BINARY")]
    pub candidate: Option<PathBuf>,
    /// Where the brokers keep their data. Everything in it is the comparison's own.
    #[arg(long, value_name = "DIR", default_value = "bench-data")]
    pub dir: PathBuf,
    /// The broker's core [default: the first that may be used].
    #[arg(long, value_name = "CORE", default_value_t = pin::core_at(0), hide_default_value = true)]
    pub broker_cpu: usize,
    /// The load's core [default: the second that may be used].
    #[arg(long, value_name = "CORE", default_value_t = pin::core_at(1), hide_default_value = true)]
    pub load_cpu: usize,
    /// Rounds; the median counts.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    records: Records,
}

/// The result of `bench compare`.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    pub(crate) machine: Machine,
    options: CompareBench,
    /// In the order of the rounds.
    rounds: Vec<Round>,
}

/// What one round says of both.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    baseline: Figures,
    candidate: Figures,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    records_per_second: f64,
    /// Processor time of the broker, warm-up included, for each record.
    broker_ns_per_record: f64,
}

/// Runs the rounds.
pub(crate) fn run(bench: &CompareBench, context: &Context) -> Result<BenchReport> {
    let candidate = bench.candidate.as_ref().unwrap_or(&context.binary);
    let mut rounds = Vec::new();
    for number in 0..bench.rounds {
        if context.shows_progress {
            progress::line(&format!("round {} of {}", number + 1, bench.rounds));
        }
        // Who is first in one round is second in the next.
        rounds.push(if number % 2 == 0 {
            let baseline = measure(bench, &bench.baseline, context)?;
            Round { baseline, candidate: measure(bench, candidate, context)? }
        } else {
            let candidate = measure(bench, candidate, context)?;
            Round { baseline: measure(bench, &bench.baseline, context)?, candidate }
        });
    }
    let report = CompareReport { machine: Machine::examine(), options: bench.clone(), rounds };
    Ok(BenchReport::Compare(Box::new(report)))
}

/// One binary, from an empty directory to an orderly end.
fn measure(bench: &CompareBench, binary: &Path, context: &Context) -> Result<Figures> {
    let setup =
        Setup { binary: binary.to_owned(), dir: bench.dir.join("broker"), cpu: bench.broker_cpu, more: Vec::new() };
    let broker = setup.start_fresh()?;
    let context = Context { gateways: vec![broker.gateway.clone()], ..context.clone() };
    let load = Load { cpu: Some(bench.load_cpu), ..bench.load.clone() };
    let before = broker.processor_time()?;
    let (measured, notes) =
        command::produce(&Asked { load, records: Some(bench.records.clone()), fetch: None }, &context)?;
    let took = broker.processor_time()?.saturating_sub(before);
    broker.stop()?;
    setup.clear()?;
    if !notes.failures.is_empty() || measured.unanswered > 0 || measured.all_records == 0 {
        let (failures, lost) = (&notes.failures, measured.unanswered);
        return Err(BenchError::failed(format!("requests failed, {lost} were not answered: {failures:?}")));
    }
    Ok(Figures {
        records_per_second: measured.totals.records_per_second,
        broker_ns_per_record: took.as_nanos() as f64 / measured.all_records as f64,
    })
}

impl CompareReport {
    /// One figure of both: median of each, and of candidate over baseline round by round, with its quartiles.
    fn line(&self, unit: &str, figure: impl Fn(&Figures) -> f64) -> String {
        let of = |side: fn(&Round) -> &Figures| {
            median(&self.rounds.iter().map(|round| figure(side(round))).collect::<Vec<_>>())
        };
        let mut ratios: Vec<f64> =
            self.rounds.iter().map(|round| figure(&round.candidate) / figure(&round.baseline)).collect();
        ratios.sort_by(f64::total_cmp);
        let quartile = |quarters: usize| ratios[(ratios.len() - 1) * quarters / 4];
        format!(
            "baseline {}, candidate {}: {:.4} of it (quartiles {:.4} .. {:.4})",
            show(of(|round| &round.baseline), unit),
            show(of(|round| &round.candidate), unit),
            median(&ratios),
            quartile(1),
            quartile(3)
        )
    }
}

impl fmt::Display for CompareReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rounds", self.rounds.len())?;
        writeln!(f, "  throughput       {}", self.line("records/s", |figures| figures.records_per_second))?;
        writeln!(f, "  broker's core    {}", self.line("ns/record", |figures| figures.broker_ns_per_record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_was_disturbed_counts_for_both_and_does_not_decide() {
        let figures = |rate| Figures { records_per_second: rate, broker_ns_per_record: 1.0 };
        let round = |baseline, candidate| Round { baseline: figures(baseline), candidate: figures(candidate) };
        let text = throughput(vec![round(100.0, 90.0), round(50.0, 45.0), round(100.0, 200.0)]);
        assert!(text.contains("0.9000 of it (quartiles 0.9000 .. 0.9000)"), "{text}");
    }

    fn throughput(rounds: Vec<Round>) -> String {
        let options = <CompareOptions as clap::Parser>::parse_from(["compare", "--baseline", "b"]).bench;
        CompareReport { machine: Machine::examine(), options, rounds }.line("records/s", |f| f.records_per_second)
    }

    #[derive(clap::Parser)]
    struct CompareOptions {
        #[command(flatten)]
        bench: CompareBench,
    }
}
