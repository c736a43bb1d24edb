//! A few scenarios of `scripts/chaos`, as brief as they can be: a cluster of real processes, faults under load, and the
//! checker's verdict over every replica. docs/CHAOS.md tells what each shows; all of them run by `scripts/chaos`.
//!
//! One after the other: each needs the machine for itself, or its times would say nothing. A failure prints the seed, and
//! the ends of all logs.
//!
//! What it can and cannot find: docs/CHAOS.md, "The verdict".

use minikafka_tests::chaos::{self, Ended, Size};
use minikafka_tests::process;
use minikafka_tests::seed::Seed;

/// In order of what it would cost to be wrong; together a bit over a minute on a busy machine.
const SCENARIOS: [&str; 4] = ["kill-each", "kill-all", "kill-two-wipe-one", "cut-peers-then-kill"];

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_a_cluster() {
    let seed = Seed::from_environment();
    for name in SCENARIOS {
        let directory = process::directory().expect("a directory beside the build");
        let scenario = chaos::named(name).expect("a scenario of this name");
        let ended = chaos::run(scenario, &directory.path().join("cluster"), Size::Brief, seed);
        match ended {
            Ok(Ended::Skipped(reason)) => println!("  skipped: {reason}"),
            Ok(Ended::Judged(verdict)) => {
                println!("  {verdict}");
                verdict.check().unwrap_or_else(|error| panic!("{name}: {error:#}\nreplay: {seed}"));
            }
            Err(error) => panic!("{name}: {error:#}\nreplay: {seed}"),
        }
    }
}
