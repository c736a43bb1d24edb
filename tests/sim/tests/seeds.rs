//! A few seeds with the plain test command: nothing is broken, and each is replayed exactly.

use minikafka_sim::{BatchOptions, RunOptions, run_batch};

#[test]
fn a_few_seeds_break_nothing_and_are_replayed_exactly() {
    let run = RunOptions { steps: 2_000, is_verbose: false, is_data_only: false, only: None };
    let options =
        BatchOptions { first: 77, count: Some(6), time_max: None, jobs: 2, twice_one_in: 1, failures_max: 1, run };
    let report = run_batch(&options, &|_| {});
    if let Some(failure) = report.failures.first() {
        panic!("seed {}: {}\n{}", failure.seed, failure.what, failure.trace);
    }
    assert!(report.commits > 0 && report.acknowledged > 0, "nothing happened: {report:?}");
}
