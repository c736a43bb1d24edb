//! `docs/METRICS.md` is what the definitions say, the definitions follow the rules of Prometheus, and every alert has its
//! paragraph in `docs/RUNBOOK.md`.
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

#[test]
fn every_alert_has_its_paragraph() {
    let read = |path: &str| fs::read_to_string(source::repository().join(path)).expect("it is there");
    let (rules, runbook) = (read("deploy/prometheus/rules.yml"), read("docs/RUNBOOK.md"));
    let alerts: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let paragraphs: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(alerts, paragraphs, "alerts of deploy/prometheus/rules.yml, and headings of docs/RUNBOOK.md");
    for alert in alerts {
        let link = format!("runbook: docs/RUNBOOK.md#{}", alert.to_lowercase());
        assert_eq!(rules.matches(&format!("{link}\n")).count(), 1, "{link}");
    }
    for word in ["**Means**", "**Look at**", "**Do**"] {
        assert_eq!(runbook.matches(word).count(), paragraphs.len(), "each paragraph says {word}");
    }
}

/// What rules and dashboards ask for exists: a metric that was renamed leaves no alert that never fires.
#[test]
fn rules_and_dashboards_ask_for_what_is_defined() {
    let directory = source::repository().join("deploy");
    let mut texts = vec![directory.join("prometheus/rules.yml")];
    let dashboards = fs::read_dir(directory.join("grafana/dashboards")).expect("there are dashboards");
    texts.extend(dashboards.map(|entry| entry.expect("it can be read").path()));
    let defined: BTreeSet<&str> = definitions().iter().map(|definition| definition.name).collect();
    for path in texts {
        let text = fs::read_to_string(&path).expect("it can be read");
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':');
        let metrics = words.filter(|word| word.starts_with("minikafka_") && !word.contains(':'));
        for metric in metrics {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| metric.strip_suffix(suffix));
            let is_there = defined.contains(metric) || base.is_some_and(|base| defined.contains(base));
            assert!(is_there, "{}: there is no metric {metric}", path.display());
        }
    }
}
