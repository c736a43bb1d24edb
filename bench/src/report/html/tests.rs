//! Reports are what their readers expect: text lines, JSON that parses, HTML whose tags close.

use super::super::ratio::tests::measured;
use super::super::ratio::{Binding, ratios};
use super::super::{LimitsReport, RunReport};
use super::*;
use crate::command::Asked;
use crate::driver::DriverNotes;
use crate::driver::speed::DriverSpeed;
use crate::limits::tests::limits as some_limits;
use crate::suite::verdict::judge;
use crate::suite::verdict::tests::samples;
use crate::suite::{ROWS, SuiteBench};
use crate::workload::tests::line;

fn reports() -> Vec<BenchReport> {
    let (load, records) = line("--rate 1000 --topic a<b&c>");
    let limits = some_limits(true);
    let run = |limits: Option<crate::limits::Limits>| RunReport {
        command: "produce",
        machine: Machine::examine(),
        asked: Asked { load: load.clone(), records: Some(records.clone()), fetch: None },
        measured: measured(),
        driver: DriverNotes {
            core_share: 0.25,
            failures: [("timed_out".to_owned(), 3)].into(),
            notes: vec!["a note with <brackets> & \"quotes\"".to_owned()],
        },
        ratios: limits.as_ref().map(|limits| ratios(&measured(), limits, Binding::Produce)).unwrap_or_default(),
        limits,
    };
    let driver = driver_speed();
    let alone = LimitsReport { machine: Machine::examine(), limits: limits.clone(), driver: driver.clone() };
    let suite = suite_report(driver.clone());
    vec![
        BenchReport::Suite(Box::new(suite)),
        BenchReport::Run(Box::new(run(Some(limits)))),
        BenchReport::Run(Box::new(run(None))),
        BenchReport::Limits(Box::new(alone)),
    ]
}

fn driver_speed() -> DriverSpeed {
    let (bytes_per_second, requests_per_second) = (6e9, 8e5);
    DriverSpeed { bytes_per_second, requests_per_second, bytes_per_core_second: 7e9, requests_per_core_second: 9e5 }
}

fn suite_report(driver: DriverSpeed) -> SuiteReport {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        bench: SuiteBench,
    }
    let Line { bench } = clap::Parser::parse_from(["suite", "--output", "a&b"]);
    let limits = some_limits(true);
    SuiteReport {
        machine: Machine::examine(),
        at_unix_seconds: 1_700_000_000,
        command: "bench suite --dir <disk>".to_owned(),
        scale: bench.scale(),
        options: bench,
        rows: judge(ROWS, &samples(), &limits, |_| true),
        limits,
        driver,
    }
}

/// Every tag is closed in order, every `<` begins one, and nothing is fetched from elsewhere.
pub(crate) fn check_markup(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.strip_prefix("<!doctype html>").expect("a page begins with its type");
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("an unclosed tag: <{piece}"));
        assert!(!text.contains('>'), "a stray > behind <{tag}>");
        let name = tag.trim_matches('/').split_whitespace().next().unwrap_or_default();
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another tag");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for foreign in ["http:", "https:", "src=", "<script", "url("] {
        assert!(!page.contains(foreign), "the page fetches something: {foreign}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf "), "a figure that is none");
}

#[test]
fn pages_are_well_formed_and_self_contained() {
    for report in reports() {
        let page = page(&report);
        check_markup(&page);
        if matches!(report, BenchReport::Run(_)) {
            assert_eq!(page.matches("<svg").count(), 3, "throughput, percentiles, latency over time");
            assert!(page.contains("&lt;brackets&gt; &amp; &quot;quotes&quot;"));
        }
    }
}

#[test]
fn broken_markup_is_noticed() {
    for bad in ["<p>", "<p></b>", "<p>a > b</p>", "<a href=\"x>y</a>", "<p>https://x</p>"] {
        let page = format!("<!doctype html>{bad}");
        assert!(std::panic::catch_unwind(|| check_markup(&page)).is_err(), "{bad}");
    }
}

#[test]
fn json_carries_every_figure() {
    for report in reports() {
        let text = serde_json::to_string(&report).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let limits = &json["limits"];
        match json["report"].as_str() {
            Some("run") => {
                assert_eq!(json["measured"]["totals"]["records"], 10_000);
                assert_eq!(json["measured"]["latency"]["count"], 1_000);
                assert_eq!(json["asked"]["records"]["rate"], 1000.0);
                assert_eq!(json["ratios"].as_array().map(Vec::len), Some(if limits.is_null() { 0 } else { 9 }));
            }
            Some("suite") => {
                assert_eq!(json["rows"].as_array().map(Vec::len), Some(ROWS.len()));
                assert_eq!((&json["rows"][0]["met"], &json["rows"][0]["ratio"]["ratio"]), (&true.into(), &0.9.into()));
            }
            Some("limits") => assert_eq!(limits["durable_write"]["shapes"][0]["median"], 2e9),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn text_sets_every_figure_beside_its_limit() {
    let [suite, with, without, alone] = &reports()[..] else { panic!("four reports") };
    let text = with.to_string();
    for expected in
        ["open loop", "10.0 MB/s", "0.005 x", "of 2.00 GB/s", "4.00", "FAILED           3 requests: timed_out", "disk "]
    {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    assert!(without.to_string().contains("stand alone"));
    let suite = suite.to_string();
    for expected in [
        "1b  stretch",
        "7   MISSED",
        "9d  met",
        "1.80 GB/s (1.62 GB/s .. 1.98 GB/s), 0.900 x of 2.00 GB/s",
        "at most 1.5 x, stretch 1.2 x",
    ] {
        assert!(suite.contains(expected), "{expected}:\n{suite}");
    }
    assert!(alone.to_string().contains("6.00 GB/s in batches of 1 MiB"));
}

#[test]
fn figures_have_units_that_suit_them() {
    for (value, unit, expected) in [
        (2.5e9, "bytes/s", "2.50 GB/s"),
        (81e6, "bytes/s", "81.0 MB/s"),
        (215.4, "us", "215 us"),
        (12_000.0, "us", "12.0 ms"),
        (3e7, "us", "30.0 s"),
        (4.2e6, "records/s", "4.20 M records/s"),
        (151_701.0, "requests/s", "151701 requests/s"),
        (f64::INFINITY, "us", "-"),
    ] {
        assert_eq!(show(value, unit), expected);
    }
}

/// The page for the repository: every row in a table whose cells hold no line of their own.
#[test]
fn markdown_has_a_line_for_every_row() {
    let text = super::super::markdown::suite(&suite_report(driver_speed()));
    for row in ROWS {
        let line =
            text.lines().find(|line| line.starts_with(&format!("| {} |", row.name))).expect("every row has a line");
        assert_eq!(line.matches('|').count(), 8, "{line}");
    }
    for expected in ["minikafka bench suite --dir <disk>", "pool: 30 recycled, 2 new", "6.00 GB/s", "2023-11-14"] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
}
