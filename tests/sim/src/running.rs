//! Which seed a thread runs: said when it panics, because a release ends with the first panic and reports nothing any more.

use std::cell::Cell;
use std::panic;

thread_local! {
    static RUNNING: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// While it lives, this thread runs a seed.
pub struct RunningSeed;

impl RunningSeed {
    /// This thread runs a seed from now on.
    pub fn begin(seed: u64, steps: u64) -> Self {
        RUNNING.set(Some((seed, steps)));
        Self
    }
}

impl Drop for RunningSeed {
    fn drop(&mut self) {
        RUNNING.set(None);
    }
}

/// From now on a panic of this process tells, before anything else, how to replay what it came of.
pub fn tell_seed_of_panic() {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if let Some(line) = replay() {
            eprintln!("{line}");
        }
        told(info);
    }));
}

/// How to replay what this thread runs, if it runs a seed.
fn replay() -> Option<String> {
    let (seed, steps) = RUNNING.get()?;
    Some(format!("seed {seed} panics; replay: minikafka sim --seed {seed} --steps {steps} --verbose"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_the_seed_that_it_runs_and_no_other() {
        assert_eq!(replay(), None);
        let running = RunningSeed::begin(7, 100);
        assert!(replay().is_some_and(|line| line.contains("--seed 7 --steps 100")));
        std::thread::spawn(|| assert_eq!(replay(), None)).join().expect("the other thread runs nothing");
        drop(running);
        assert_eq!(replay(), None);
    }
}
