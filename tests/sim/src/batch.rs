//! Many seeds on many threads.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::faults::FaultKind;
use crate::invariants::ViolationKind;
use crate::run::{Failure, Outcome, RunOptions, run_seed};

/// Which seeds, and how.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// The first seed.
    pub first: u64,
    /// How many; none: until the time is over.
    pub count: Option<u64>,
    /// Stop after this long.
    pub time_max: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// One in so many seeds is run twice, and must do the same; 0: none.
    pub twice_one_in: u64,
    /// Stop after so many failures.
    pub failures_max: usize,
    /// Each seed.
    pub run: RunOptions,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct BatchReport {
    /// Seeds run.
    pub seeds: u64,
    /// Events of all of them.
    pub steps: u64,
    /// Entries committed.
    pub commits: u64,
    /// Chains activated.
    pub epochs: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Generations of consumer groups.
    pub generations: u64,
    /// Commits of theirs that moved a partition on.
    pub group_commits: u64,
    /// Seeds that were run twice.
    pub twice: u64,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// What was broken.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs a batch; `watch` hears of it after every seed.
pub fn run_batch(options: &BatchOptions, watch: &(dyn Fn(&BatchReport) + Sync)) -> BatchReport {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let report = Mutex::new(BatchReport::default());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Relaxed);
                    let is_over = options.time_max.is_some_and(|most| began.elapsed() >= most);
                    if is_over || options.count.is_some_and(|count| at >= count) {
                        return;
                    }
                    let seed = options.first.wrapping_add(at);
                    let is_twice = options.twice_one_in > 0 && at.is_multiple_of(options.twice_one_in);
                    let outcome = if is_twice { run_twice(seed, &options.run) } else { run_seed(seed, &options.run) };
                    let Ok(mut report) = report.lock() else { return };
                    report.add(outcome, is_twice);
                    report.elapsed = began.elapsed();
                    watch(&report);
                    if report.failures.len() >= options.failures_max {
                        next.store(u64::MAX / 2, Relaxed);
                        return;
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.failures.sort_by_key(|failure| failure.seed);
    report.elapsed = began.elapsed();
    report
}

/// Runs a seed twice: the same must happen.
pub fn run_twice(seed: u64, options: &RunOptions) -> Outcome {
    let mut first = run_seed(seed, options);
    let second = run_seed(seed, &RunOptions { is_verbose: false, ..*options });
    if first.trace_hash != second.trace_hash && first.failure.is_none() {
        let what = format!("is not replayed: {:016x}, then {:016x}", first.trace_hash, second.trace_hash);
        let (steps, trace, plan) = (options.steps, String::new(), String::new());
        first.failure = Some(Failure { seed, steps, kind: ViolationKind::Replay, what, trace, plan });
    }
    first.steps += second.steps;
    first
}

impl BatchReport {
    fn add(&mut self, outcome: Outcome, is_twice: bool) {
        self.seeds += 1;
        self.twice += u64::from(is_twice);
        self.steps += outcome.steps;
        self.commits += outcome.commits;
        self.epochs += outcome.epochs;
        self.acknowledged += outcome.acknowledged;
        self.generations += outcome.generations;
        self.group_commits += outcome.group_commits;
        for (kind, count) in outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.failures.extend(outcome.failure);
    }

    /// Events in a second, all threads together.
    pub fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}
