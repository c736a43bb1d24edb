//! The floors of the house: imports point down only, and the lowest floor is pure.
//!
//! ```text
//! 3  minikafka/   bench/   tests/              wiring only
//! 2  broker/   gateway/   clients/rust/        siblings, blind to each other
//! 1  storage/  net/  coordinator/  metrics/    siblings, blind to each other
//! 0  core/                                     no I/O, no clock, no threads, no randomness, no async
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use minikafka_tests::source::{self, SourceFile};

/// Which crate stands on which floor.
const FLOORS: [(&str, u8); 14] = [
    ("minikafka-core", 0),
    ("minikafka-storage", 1),
    ("minikafka-net", 1),
    ("minikafka-coordinator", 1),
    ("minikafka-metrics", 1),
    ("minikafka-broker", 2),
    ("minikafka-gateway", 2),
    ("minikafka-client", 2),
    ("minikafka", 3),
    ("minikafka-bench", 3),
    ("minikafka-tests", 3),
    ("minikafka-checker", 3),
    ("minikafka-model", 3),
    ("minikafka-sim", 3),
];

/// The only arrows that do not point down: (from, to, why).
const SIDEWAYS: [(&str, &str, &str); 5] = [
    ("minikafka", "minikafka-bench", "the subcommand that runs the benchmark"),
    ("minikafka", "minikafka-sim", "the subcommand that runs the simulator"),
    ("minikafka-sim", "minikafka-checker", "judges what simulated clients saw"),
    ("minikafka-tests", "minikafka-checker", "judges what real clients saw"),
    ("minikafka-gateway", "minikafka-client", "data over HTTP is produced and fetched by the client"),
];

/// All that `core` may stand on, for a reason each: pure computation.
const CORE_MAY_USE: [(&str, &str); 9] = [
    ("bitflags", "flag sets"),
    ("crc32c", "CRC-32C"),
    ("crc32fast", "CRC-32 of the partitioner"),
    ("hmac", "proof of the cluster secret"),
    ("rkyv", "the batch body"),
    ("serde", "coordination records"),
    ("sha2", "hashes of names and secrets"),
    ("thiserror", "error types"),
    ("xxhash-rust", "the running hash"),
];

/// What must not be below `core`, however deep: runtimes, I/O, randomness, clocks.
const CORE_NEVER: [&str; 12] = [
    "async-std",
    "futures",
    "futures-lite",
    "getrandom",
    "glommio",
    "mio",
    "quanta",
    "rand",
    "rand_core",
    "rustix",
    "socket2",
    "tokio",
];

/// What would make `core` impure, as it would stand in the source.
const CORE_NEVER_SAYS: [&str; 21] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::io",
    "std::process",
    "std::env",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime",
    "async fn",
    "async move",
    ".await",
    "Mutex",
    "RwLock",
    "Condvar",
    "thread_local!",
    "println!",
    "eprintln!",
    "RandomState",
];

type Arrows = BTreeSet<(String, String)>;

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(source::repository().join("Cargo.toml"))
        .other_options(["--filter-platform".into(), "x86_64-unknown-linux-gnu".into(), "--locked".into()])
        .exec()
        .expect("cargo metadata describes this workspace")
}

/// Arrows between the crates of this workspace. Dev-dependencies count: a test that needs a crate above its own
/// belongs above.
fn arrows(metadata: &Metadata) -> Arrows {
    let names: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let of_package = |package: &cargo_metadata::Package| {
        let from = package.name.to_string();
        let to = package.dependencies.iter().map(|dependency| dependency.name.clone()).filter(|to| names.contains(to));
        to.map(|to| (from.clone(), to)).collect::<Vec<_>>()
    };
    metadata.workspace_packages().into_iter().flat_map(of_package).collect()
}

/// The arrows that do not point down, in words.
fn wrong_arrows(arrows: &Arrows) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = FLOORS.into_iter().collect();
    let wrong = |(from, to): &&(String, String)| {
        let sideways = SIDEWAYS.iter().any(|(f, t, _)| f == from && t == to);
        !sideways && floors.get(from.as_str()) <= floors.get(to.as_str())
    };
    arrows.iter().filter(wrong).map(|(from, to)| format!("{from} -> {to}")).collect()
}

#[test]
fn every_crate_stands_on_a_floor() {
    let metadata = metadata();
    let found: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let known: BTreeSet<String> = FLOORS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(found, known, "give every crate a floor, and take away the ones that are gone");
}

#[test]
fn imports_point_down() {
    let wrong = wrong_arrows(&arrows(&metadata()));
    assert!(wrong.is_empty(), "these imports do not point down: {wrong:?}");
}

#[test]
fn core_stands_on_pure_computation_only() {
    let metadata = metadata();
    let core = metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == "minikafka-core");
    let core = core.expect("core is a member");
    let normal = core.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    let strange: Vec<_> =
        normal.filter(|dependency| !CORE_MAY_USE.iter().any(|(name, _)| *name == dependency.name)).collect();
    assert!(strange.is_empty(), "core depends on {strange:?}; if that is pure computation, say why in CORE_MAY_USE");

    // Not from the metadata: they follow optional dependencies that only another crate turns on.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "minikafka-core", "--edges", "normal", "--prefix", "none", "--format"])
        .arg("{p}")
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout);
    let reached: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let impure: Vec<_> = reached.iter().filter(|name| CORE_NEVER.contains(name)).collect();
    assert!(impure.is_empty(), "core stands on {impure:?}, which do I/O, tell time, or are random");
    assert!(reached.len() > CORE_MAY_USE.len() / 2, "only {} crates reached: the walk is broken", reached.len());
}

/// Where a file of core says what it must not say, outside tests.
fn impurities(file: &SourceFile) -> Vec<String> {
    let tests = file.test_regions();
    let outside = |at: &usize| !tests.iter().any(|region| region.contains(at));
    let of_word = |word: &&'static str| {
        let hits = file.find(word).into_iter().filter(outside);
        hits.map(|at| format!("{}:{}: {word}", file.path, file.line_of(at))).collect::<Vec<_>>()
    };
    CORE_NEVER_SAYS.iter().flat_map(of_word).collect()
}

#[test]
fn core_does_no_io_tells_no_time_and_waits_for_nothing() {
    let files = source::all();
    let core: Vec<_> = files.iter().filter(|file| file.path.starts_with("core/src/")).collect();
    assert!(core.len() >= 15, "only {} files of core found", core.len());
    let found: Vec<_> = core.into_iter().filter(|file| !file.is_test()).flat_map(impurities).collect();
    assert!(found.is_empty(), "core is pure; move this up:\n  {}", found.join("\n  "));
}

/// Each rule is seen to fail on a planted offence.
#[test]
fn planted_offences_are_found() {
    let arrow = |from: &str, to: &str| Arrows::from([(from.to_owned(), to.to_owned())]);
    for (from, to) in [
        ("minikafka-core", "minikafka-net"),
        ("minikafka-storage", "minikafka-net"),
        ("minikafka-broker", "minikafka-gateway"),
        ("minikafka-client", "minikafka-gateway"),
        ("minikafka-bench", "minikafka"),
    ] {
        assert_eq!(wrong_arrows(&arrow(from, to)).len(), 1, "{from} -> {to} must be refused");
    }
    for (from, to) in [("minikafka-gateway", "minikafka-client"), ("minikafka-tests", "minikafka-core")] {
        assert!(wrong_arrows(&arrow(from, to)).is_empty(), "{from} -> {to} must be allowed");
    }
    for line in
        ["use std::fs::File;", "async fn f() {}", "let t = std::time::Instant::now();", "std::thread::spawn(f);"]
    {
        assert!(!impurities(&SourceFile::new("core/src/a.rs", line)).is_empty(), "{line} must be refused");
    }
    assert!(impurities(&SourceFile::new("core/src/a.rs", "// std::fs\nlet a = \"std::net\";")).is_empty());
}
