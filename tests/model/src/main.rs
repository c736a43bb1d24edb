//! Checks cases and prints a table: `--all`, `--planted` (with the feature `planted-bugs`), `--rules`, or a case's name.
//! A second argument says how many seconds a case may take.

use std::time::Duration;

use minikafka_model::cases;
use minikafka_model::check::{Limits, check};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1800);
    println!("| case | states | steps | depth | states of a node | time | end |\n|---|---|---|---|---|---|---|");
    match what.as_str() {
        "--planted" => planted(),
        "--rules" => rules(),
        name => {
            let limits = Limits { time: Duration::from_secs(seconds), steps: usize::MAX, threads: 2 };
            for case in cases::all().into_iter().filter(|case| name == "--all" || case.name == name) {
                println!("{}", check(case, limits, || {}));
            }
        }
    }
}

#[cfg(feature = "planted-bugs")]
fn planted() {
    for (bug, case) in cases::planted() {
        let verdict = check(case, cases::HUNT, || minikafka_core::chain::planted::plant(Some(bug)));
        minikafka_core::chain::planted::plant(None);
        println!("{bug:?}: {verdict}");
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn planted() {
    eprintln!("build with --features planted-bugs");
}

fn rules() {
    for (rule, case) in cases::rules_left_out().into_iter().chain(cases::rules_covered()) {
        println!("without {rule:?}: {}", check(case, cases::HUNT, || {}));
    }
}
