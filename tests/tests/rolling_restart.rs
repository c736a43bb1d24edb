//! A rolling upgrade as docs/OPERATIONS.md tells it: real brokers under load, restarted one after the other by `minikafka
//! cluster restart`. No error reaches a client beyond what it retries by itself, nothing is lost or doubled, every replica is
//! read in full, and every range has all its members again.
//!
//! Three brokers do it without a drain, which needs a node to spare; a fourth one makes it possible.

use minikafka_tests::chaos::{self, Ended, Size};
use minikafka_tests::process;
use minikafka_tests::seed::Seed;

#[test]
fn brokers_are_restarted_one_by_one_and_no_client_notices() {
    let seed = Seed::from_environment();
    for name in ["rolling-restart", "rolling-restart-drained"] {
        let directory = process::directory().expect("a directory beside the build");
        let scenario = chaos::named(name).expect("a scenario of this name");
        match chaos::run(scenario, &directory.path().join("cluster"), Size::Brief, seed) {
            Ok(Ended::Skipped(reason)) => println!("  skipped: {reason}"),
            Ok(Ended::Judged(verdict)) => {
                println!("  {verdict}");
                verdict.check().unwrap_or_else(|error| panic!("{name}: {error:#}\nreplay: {seed}"));
            }
            Err(error) => panic!("{name}: {error:#}\nreplay: {seed}"),
        }
    }
}
