//! `docs/METRICS.md` is what the definitions say, and the definitions follow the rules of Prometheus.
//!
//! After a change of a definition: `MINIKAFKA_WRITE_REFERENCE=1 cargo test -p minikafka-tests --test metrics_reference`.

use std::collections::BTreeSet;
use std::fs;

use minikafka_metrics::{Chapter, Definition, Kind, PROCESS, reference};
use minikafka_tests::source;

const PREFACE: &str = "\
Written from the definitions in `broker/src/metrics/definitions.rs` and `gateway/src/metrics/definitions.rs`; \
`tests/tests/metrics_reference.rs` looks after that. Do not edit.

Brokers tell at `http://HOST:19600/metrics` (`minikafka broker --http`; `dev` and `server`: `--broker-http-port`), gateways at \
`/metrics` of their HTTP port (`--http`). Names, units and kinds are those of Prometheus: counters end in `_total`, durations are \
in seconds, sizes in bytes. The shards of a broker count in cells of their own, which are added up when somebody asks; a series \
has the label `shard` where the difference between shards matters.

Durations are counted in buckets from 10 µs to 30 s. What the counting costs is in [OPERATIONS.md](OPERATIONS.md#watching-a-cluster).";

const WRITE: &str = "MINIKAFKA_WRITE_REFERENCE";

fn chapters() -> Vec<Chapter> {
    let process = Chapter {
        title: "Process",
        about: "Of the process, broker and gateway alike, as all programs name them.",
        definitions: PROCESS,
    };
    let chapters = minikafka_broker::METRICS.into_iter().chain(minikafka_gateway::METRICS);
    chapters.chain([process]).collect()
}

fn definitions() -> Vec<&'static Definition> {
    chapters().iter().flat_map(|chapter| chapter.definitions.iter().copied()).collect()
}

#[test]
fn the_reference_is_what_the_definitions_say() {
    let path = source::repository().join("docs/METRICS.md");
    let expected = reference(PREFACE, &chapters());
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &expected).expect("docs/ can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/METRICS.md is not what the definitions say; write it again with {WRITE}=1");
}

#[test]
fn names_are_those_of_prometheus() {
    let mut names = BTreeSet::new();
    for Definition { name, kind, labels, help } in definitions() {
        assert!(names.insert(name), "{name} is defined twice");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            *kind == Kind::Counter,
            "{name}: counters, and nothing else, end in _total"
        );
        assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}: durations are in seconds");
        for unit in ["_ms", "_us", "_ns", "_kb", "_mb", "_percent", "_count", "_sum", "_bucket"] {
            assert!(!name.trim_end_matches("_total").ends_with(unit), "{name}: {unit} is no base unit, or taken");
        }
        assert!(help.ends_with('.') && !help.contains('\n'), "{name}: help is a sentence");
        assert!(
            labels.iter().all(|label| !["le", "quantile", "instance", "job"].contains(label)),
            "{name}: {labels:?}"
        );
    }
}
