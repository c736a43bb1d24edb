//! `minikafka sim`: its options, its progress and its summary.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::batch::{BatchOptions, BatchReport, run_batch};
use crate::run::{Failure, RunOptions};
use crate::running::tell_seed_of_panic;

/// Options of `minikafka sim`.
#[derive(Clone, Debug, Args)]
pub struct SimCommand {
    /// The seed to run, or the first of many.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds, one after the other; without it one, or with --minutes as many as there is time for.
    #[arg(long)]
    pub seeds: Option<u64>,
    /// Stop after so many minutes.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Events of each seed before it is healed.
    #[arg(long, default_value_t = 10_000)]
    pub steps: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Run every seed twice and compare.
    #[arg(long)]
    pub twice: bool,
    /// Go on after violations, up to so many.
    #[arg(long, default_value_t = 1)]
    pub failures: usize,
    /// Print everything that happens.
    #[arg(long)]
    pub verbose: bool,
}

/// One in so many seeds is run twice anyway.
const TWICE_ONE_IN: u64 = 32;

/// Runs it and prints what came of it; false: something was broken.
pub fn run(command: &SimCommand) -> bool {
    tell_seed_of_panic();
    let options = BatchOptions {
        first: command.seed,
        count: command.seeds.or(command.minutes.is_none().then_some(1)),
        time_max: command.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0)),
        jobs: command.jobs,
        twice_one_in: if command.twice { 1 } else { TWICE_ONE_IN },
        failures_max: command.failures.max(1),
        run: RunOptions { steps: command.steps, is_verbose: command.verbose, is_data_only: false, only: None },
    };
    let bar = progress(&options);
    let report = run_batch(&options, &|report| {
        bar.set_position(match options.count {
            Some(_) => report.seeds,
            None => report.elapsed.as_secs(),
        });
        let rate = report.steps_per_second();
        bar.set_message(format!("{} seeds, {rate:.0} steps/s, {} violations", report.seeds, report.failures.len()));
    });
    bar.finish_and_clear();
    report.failures.iter().for_each(print_failure);
    print_summary(&report);
    report.failures.is_empty()
}

fn progress(options: &BatchOptions) -> ProgressBar {
    if !std::io::stderr().is_terminal() || options.run.is_verbose {
        return ProgressBar::hidden();
    }
    let seconds = options.time_max.map(|most| most.as_secs());
    let bar = ProgressBar::new(options.count.or(seconds).unwrap_or(1));
    let style = ProgressStyle::with_template("sim [{bar:30}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

fn print_failure(failure: &Failure) {
    println!("{}", failure.trace);
    println!("world: {}", failure.plan);
    println!("seed {} ({:?}): {}", failure.seed, failure.kind, failure.what);
    println!("replay: minikafka sim --seed {} --steps {} --verbose\n", failure.seed, failure.steps);
}

fn print_summary(report: &BatchReport) {
    let faults: Vec<String> = report.faults.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
    println!("faults: {}", faults.join(", "));
    println!(
        "{} seeds ({} of them twice), {} steps in {:.1} s ({:.0} steps/s), {} commits, {} epochs, {} records acknowledged, \
         {} generations and {} commits of groups, {} violations",
        report.seeds,
        report.twice,
        report.steps,
        report.elapsed.as_secs_f64(),
        report.steps_per_second(),
        report.commits,
        report.epochs,
        report.acknowledged,
        report.generations,
        report.group_commits,
        report.failures.len()
    );
}
