//! Every bug that can be planted is caught: each is a way in which others lost data.
//!
//! Only with the feature `planted-bugs`: `cargo test --profile simulate -p minikafka-sim --features planted-bugs`. The
//! seeds begin at a number that was not picked for any of them. Bugs are planted in the whole process, so there is one
//! test here.
#![cfg(feature = "planted-bugs")]

use std::panic;
use std::time::Duration;

use minikafka_core::chain::planted::{PlantedBug, plant};
use minikafka_sim::{BatchOptions, BatchReport, RunOptions, run_batch};

/// The first seed for every bug.
const FIRST: u64 = 1_000_000;
/// Seeds after which a bug counts as missed.
const SEEDS_MAX: u64 = 1_000;
/// The same, in time.
const TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn every_planted_bug_is_caught() {
    // A planted bug may well trip an assert of the code it is planted in: that is a catch, and no news.
    panic::set_hook(Box::new(|_| {}));
    let missed: Vec<PlantedBug> = PlantedBug::ALL.into_iter().filter(|bug| !is_caught(*bug)).collect();
    drop(panic::take_hook());
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds from {FIRST} on: {missed:?}");
}

fn is_caught(bug: PlantedBug) -> bool {
    plant(Some(bug));
    let report = hunt();
    plant(None);
    match report.failures.first() {
        Some(failure) => {
            let what: String = failure.what.chars().take(160).collect();
            println!("{bug:?}: caught by seed {}, after {} seeds: {what}", failure.seed, report.seeds);
            true
        }
        None => {
            println!("{bug:?}: NOT caught in {} seeds", report.seeds);
            false
        }
    }
}

fn hunt() -> BatchReport {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let run = RunOptions { steps: 10_000, is_verbose: false };
    let (count, time_max) = (Some(SEEDS_MAX), Some(TIME_MAX));
    let options = BatchOptions { first: FIRST, count, time_max, jobs, twice_one_in: 0, failures_max: 1, run };
    run_batch(&options, &|_| {})
}
