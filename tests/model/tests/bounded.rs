//! The cases that take seconds, to the last state; and every rule left out, to see that the model would notice.

use std::time::Duration;

use minikafka_model::cases;
use minikafka_model::check::{Limits, check};

#[test]
fn small_chains_keep_every_promise() {
    let limits = Limits { time: Duration::from_secs(300), steps: usize::MAX, threads: 2 };
    for case in cases::quick() {
        let verdict = check(case, limits, || {});
        println!("{verdict}");
        assert!(verdict.broken.is_none(), "a promise is broken:\n{verdict}");
        assert!(verdict.exhausted, "there are more states than this machine looked at:\n{verdict}");
        assert!(verdict.missing.is_empty(), "the case does too little:\n{verdict}");
    }
}

#[test]
fn a_rule_left_out_loses_data() {
    for (rule, case) in cases::rules_left_out() {
        let verdict = check(case, cases::HUNT, || {});
        assert!(verdict.broken.is_some(), "nothing is lost without {rule:?}:\n{verdict}");
    }
}
