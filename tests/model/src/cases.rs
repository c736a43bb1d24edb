//! The cases that are checked, smallest first.

use std::time::Duration;

use minikafka_core::chain::planted::PlantedBug;

use crate::case::{Case, Rule};
use crate::check::Limits;
use crate::node::DiskSteps;

/// A chain of one, stale controllers, crashes, a wipe.
pub fn one() -> Case {
    Case { epochs: 4, crashes: 2, wipes: 1, losses: 1, ..Case::alone("one member, crashes, wipe, lost log") }
}

/// A chain of two.
pub fn two() -> Case {
    let alone = Case::alone("two members, a crash");
    Case { nodes: 2, chain: 2, replication: 2, epochs: 3, crashes: 1, ticks: 10, both_orders: true, ..alone }
}

/// Three members and a spare.
pub fn three() -> Case {
    Case {
        nodes: 4,
        chain: 3,
        replication: 3,
        floor: 2,
        epochs: 3,
        crashes: 2,
        batches: 1,
        ticks: 10,
        disk: DiskSteps::LogOnly,
        quick: true,
        ..Case::alone("three members and a spare, two crashes")
    }
}

/// Three members and a spare, a crash, two epochs.
pub fn three_small() -> Case {
    Case { epochs: 2, crashes: 1, name: "three members and a spare, one change, a crash", ..three() }
}

/// The same with a wipe.
pub fn three_wiped() -> Case {
    Case { wipes: 1, name: "three members and a spare, one change, a crash, a wipe", ..three_small() }
}

/// Three members, two changes, two crashes.
pub fn three_alone() -> Case {
    Case { nodes: 3, name: "three members, two changes, two crashes", ..three() }
}

/// The same with a wipe in place of a crash: whoever is wiped is a learner under its old number.
pub fn three_alone_wiped() -> Case {
    Case { crashes: 1, wipes: 1, name: "three members, two changes, a crash, a wipe", ..three_alone() }
}

/// Three members and a spare, two changes, a crash.
pub fn three_once() -> Case {
    Case { crashes: 1, name: "three members and a spare, two changes, a crash", ..three() }
}

/// Two members and a spare that learns in the background, a connection that breaks.
pub fn learner() -> Case {
    Case {
        nodes: 2,
        epochs: 2,
        batches: 1,
        crashes: 1,
        breaks: 1,
        tick_bursts: 1,
        ticks: 2,
        learn: true,
        disk: DiskSteps::LogOnly,
        ..Case { replication: 2, ..Case::alone("one member and a spare that learns, a crash, a broken connection") }
    }
}

/// The shipping controller twice, over a chain of one.
pub fn controllers() -> Case {
    Case {
        epochs: 3,
        crashes: 1,
        batches: 1,
        controllers: 2,
        deadlines: 1,
        unknowns: 0,
        disk: DiskSteps::LogOnly,
        ..Case::alone("one member, two shipping controllers, a crash")
    }
}

/// One shipping controller, over a chain of one.
pub fn controller() -> Case {
    Case {
        controllers: 1,
        wipes: 1,
        unknowns: 1,
        name: "one member, a shipping controller, a crash, a wipe",
        ..controllers()
    }
}

/// One shipping controller, over two members.
pub fn controller_of_two() -> Case {
    let two = Case {
        nodes: 2,
        chain: 2,
        replication: 2,
        controllers: 1,
        unknowns: 1,
        ticks: 2,
        quick: true,
        ..controllers()
    };
    Case { name: "two members, a shipping controller, a crash", ..two }
}

/// What takes seconds.
pub fn quick() -> Vec<Case> {
    vec![one(), two(), three_small(), learner(), controller()]
}

/// Everything that is checked, smallest first.
pub fn all() -> Vec<Case> {
    let large = vec![
        controller_of_two(),
        three_wiped(),
        three_alone(),
        three_alone_wiped(),
        three_once(),
        controllers(),
        three(),
    ];
    quick().into_iter().chain(large).collect()
}

/// How long is looked for a bug that is there.
pub const HUNT: Limits = Limits { time: Duration::from_secs(600), steps: 4_000_000, threads: 1 };

/// Two members, no crash: where most bugs show.
fn pair(name: &'static str) -> Case {
    let alone = Case::alone(name);
    Case { nodes: 2, chain: 2, replication: 2, ticks: 2, both_orders: true, disk: DiskSteps::LogOnly, ..alone }
}

/// Bugs of the member machine, and a case in which each loses data.
pub fn planted() -> Vec<(PlantedBug, Case)> {
    let pair = pair("two members");
    let twice = Case { idempotent: true, epochs: 2, ..pair.clone() };
    let spare = Case { nodes: 3, epochs: 2, batches: 1, ..pair.clone() };
    vec![
        (PlantedBug::CommitBeforeAllDurable, pair.clone()),
        (PlantedBug::AcknowledgeBeforeDurable, pair.clone()),
        (PlantedBug::DuplicateBeforeOriginal, twice.clone()),
        (PlantedBug::SealedHeadCommits, twice),
        (PlantedBug::LateReconcile, Case { epochs: 2, batches: 1, ..pair.clone() }),
        (PlantedBug::LearnerBeforeDurable, spare.clone()),
        (PlantedBug::LearnerToCommittedOnly, spare),
        (PlantedBug::TruncationSkipped, Case { epochs: 3, ..pair.clone() }),
        (PlantedBug::HashWithoutEpoch, Case { idempotent: true, epochs: 3, batches: 1, ..pair }),
    ]
}

/// Rules of the controller, and a case in which data are lost without each.
pub fn rules_left_out() -> Vec<(Rule, Case)> {
    let without = |rule, case: Case| (rule, Case { without: Some(rule), ..case });
    let alone = Case { batches: 1, crashes: 1, disk: DiskSteps::LogOnly, ..Case::alone("one member") };
    vec![
        without(Rule::OnlySurvivors, Case { nodes: 2, epochs: 2, ..alone.clone() }),
        without(Rule::RecordFirst, Case { epochs: 2, ..alone.clone() }),
        without(Rule::OneDecision, Case { epochs: 2, batches: 1, ..pair("two members") }),
        without(Rule::SealedFirst, Case { epochs: 2, ..pair("two members") }),
        without(Rule::OwnPending, alone),
    ]
}

/// Rules without which nothing committed is lost in a small case: other rules cover for them.
pub fn rules_covered() -> Vec<(Rule, Case)> {
    let pair = pair("two members");
    let without = |rule| (rule, Case { without: Some(rule), epochs: 3, crashes: 1, batches: 1, ..pair.clone() });
    vec![without(Rule::Longest), without(Rule::AllReplied)]
}
