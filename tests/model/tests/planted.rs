//! Every bug planted in a member is found. One test, because a bug is planted in the whole process.

#![cfg(feature = "planted-bugs")]

use minikafka_core::chain::planted::plant;
use minikafka_model::cases;
use minikafka_model::check::check;

#[test]
fn planted_bugs_are_found() {
    for (bug, case) in cases::planted() {
        let sound = check(case.clone(), cases::HUNT, || {});
        assert!(sound.broken.is_none() && sound.exhausted, "the case is broken without {bug:?}:\n{sound}");
        let verdict = check(case, cases::HUNT, || plant(Some(bug)));
        plant(None);
        assert!(verdict.broken.is_some(), "{bug:?} is not found:\n{verdict}");
        println!("{bug:?}: {verdict}");
    }
}
