//! What `scripts/chaos` runs: scenario after scenario, each on a cluster of its own, until the time is over.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use minikafka_tests::chaos::{self, Ended, Outages, Scenario, Size, named};
use minikafka_tests::seed::Seed;
use rand::seq::IndexedRandom;

const USAGE: &str = "usage: scripts/chaos [--minutes M] [--scenario NAME[,NAME…]] [--brief] [--list]";

/// What the command line says.
struct Arguments {
    /// No scenario begins later. Without it each runs once.
    minutes: Option<f64>,
    scenarios: Vec<&'static Scenario>,
    size: Size,
    /// Clusters of failed scenarios stay here.
    directory: PathBuf,
}

/// What all runs came to.
#[derive(Default)]
struct Totals {
    runs: u32,
    failed: Vec<&'static str>,
    skipped: Vec<&'static str>,
    acknowledged: usize,
    read: usize,
    anomalies: usize,
    outages: Outages,
}

fn main() -> ExitCode {
    match Arguments::parse().and_then(|arguments| arguments.map_or(Ok(true), |arguments| run(&arguments))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let (seed, began) = (Seed::from_environment(), Instant::now());
    let limit = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let is_over = || limit.is_some_and(|limit| began.elapsed() >= limit);
    let mut totals = Totals::default();
    for scenario in &arguments.scenarios {
        if !is_over() {
            run_one(scenario, arguments, seed, &mut totals)?;
        }
    }
    // Then by chance, for as long as there is time.
    let mut random = seed.part(u64::MAX - 1);
    while limit.is_some() && !is_over() && totals.skipped.len() < arguments.scenarios.len() {
        let scenario = arguments.scenarios.choose(&mut random).context("there is a scenario")?;
        run_one(scenario, arguments, seed, &mut totals)?;
    }
    println!(
        "\n{} runs in {:.0} s: {} records acknowledged, {} read, {} anomalies",
        totals.runs,
        began.elapsed().as_secs_f64(),
        totals.acknowledged,
        totals.read,
        totals.anomalies
    );
    if !totals.outages.is_empty() {
        println!("from SIGKILL to the next acknowledged record: {}", totals.outages);
    }
    if !totals.skipped.is_empty() {
        println!("skipped, because this machine does not allow them: {}", totals.skipped.join(", "));
    }
    if !totals.failed.is_empty() {
        println!("FAILED: {}; clusters are kept in {}", totals.failed.join(", "), arguments.directory.display());
    }
    Ok(totals.failed.is_empty())
}

fn run_one(scenario: &'static Scenario, arguments: &Arguments, seed: Seed, totals: &mut Totals) -> Result<()> {
    let directory = arguments.directory.join(format!("{}-{}", std::process::id(), totals.runs));
    totals.runs += 1;
    let ended = chaos::run(scenario, &directory, arguments.size, seed);
    let judged = match ended {
        Ok(Ended::Skipped(reason)) => {
            println!("  skipped: {reason}");
            totals.skipped.push(scenario.name);
            Ok(())
        }
        Ok(Ended::Judged(verdict)) => {
            println!("  {verdict}");
            totals.acknowledged += verdict.report.acknowledged;
            totals.read += verdict.report.reads;
            totals.anomalies += verdict.report.anomalies.len();
            totals.outages.extend(&verdict.outages);
            verdict.check()
        }
        Err(error) => Err(error),
    };
    match judged {
        Ok(()) => remove(&directory),
        Err(error) => {
            println!("  FAILED: {error:#}\n  its cluster's directory is kept: {}", directory.display());
            totals.failed.push(scenario.name);
            Ok(())
        }
    }
}

fn remove(directory: &Path) -> Result<()> {
    std::fs::remove_dir_all(directory).with_context(|| directory.display().to_string())
}

impl Arguments {
    /// None: it was answered.
    fn parse() -> Result<Option<Self>> {
        let (all, directory) = (chaos::all().iter().collect(), PathBuf::from(".chaos"));
        let mut parsed = Self { minutes: None, scenarios: all, size: Size::Full, directory };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--minutes" => parsed.minutes = Some(value()?.parse().context("--minutes takes a number")?),
                "--scenario" => parsed.scenarios = scenarios(&value()?)?,
                "--directory" => parsed.directory = value()?.into(),
                "--brief" => parsed.size = Size::Brief,
                "--list" => {
                    chaos::all().iter().for_each(|scenario| println!("{:<24} {}", scenario.name, scenario.promise));
                    return Ok(None);
                }
                other => bail!("unknown option {other}\n{USAGE}"),
            }
        }
        let minutes = parsed.minutes.unwrap_or(1.0);
        ensure!(minutes.is_finite() && minutes > 0.0, "--minutes {minutes} is no time");
        Ok(Some(parsed))
    }
}

fn scenarios(names: &str) -> Result<Vec<&'static Scenario>> {
    let find = |name: &str| named(name).with_context(|| format!("no scenario {name}; scripts/chaos --list has all"));
    names.split(',').map(find).collect()
}
