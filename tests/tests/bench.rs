//! The load generator as people run it: short loads on a real node, limits of this machine, and the suite in little.
//!
//! The figures mean nothing here; what is promised is that they are figures, that what was produced is what is consumed,
//! and that reports say what they must.

use std::path::Path;

use minikafka_tests::process::{self, NodeSetup};
use serde_json::Value;

/// Runs a bench command and returns its report.
#[track_caller]
fn bench(line: &str, gateway: &str) -> Value {
    let mut arguments = vec!["bench"];
    arguments.extend(line.split_whitespace());
    arguments.extend(["--gateway", gateway, "--json"]);
    let output = process::run(&arguments, b"").expect("the binary runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "bench {line}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("bench {line}: {error}"))
}

#[track_caller]
fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no figure at {path} of {report}"))
}

/// Records of the whole run: warm-up, what is measured, and what came after its end.
fn all_records(report: &Value) -> f64 {
    number(report, "/measured/all_records")
}

/// Every figure stands beside its limit, nothing failed, nothing was lost.
#[track_caller]
fn check(report: &Value) {
    for ratio in report["ratios"].as_array().filter(|ratios| ratios.len() == 9).expect("nine figures") {
        assert!(number(ratio, "/ratio") >= 0.0 && number(ratio, "/limit") > 0.0, "{ratio}");
    }
    assert!(number(report, "/measured/latency/count") > 0.0, "{report}");
    assert!(number(report, "/measured/latency/p99_99_us") >= number(report, "/measured/latency/p50_us"), "{report}");
    assert_eq!(number(report, "/measured/unanswered"), 0.0, "{report}");
    assert_eq!(report["driver"]["failures"], serde_json::json!({}), "{report}");
}

#[test]
fn what_is_produced_is_what_is_consumed() {
    let directory = process::directory().expect("a directory");
    let node = NodeSetup::new(directory.path(), "dev").expect("a setup").start().expect("the node starts");
    let (gateway, data) = (node.gateway().to_owned(), directory.path().join("data"));
    let limits = format!("--dir {}", data.display());

    let closed = bench(&format!("produce --topic t --duration 3s --warm-up 100ms {limits}"), &gateway);
    let single = "--batch-records 1 --record-bytes 100 --keys zipf --rate 2000 --connections 3";
    let open = bench(&format!("produce --topic t --duration 1s --warm-up 0s {single} {limits}"), &gateway);
    let count = number(&open, "/measured/latency/count");
    assert_eq!(count, 2_000.0, "an open loop sends what it was told, whatever comes back and however late");
    let client = "--driver client --record-bytes 500 --in-flight 200 --bytes-max 1M";
    let client = bench(&format!("produce --topic t --duration 3s --warm-up 0s {client} {limits}"), &gateway);
    [&closed, &open, &client].into_iter().for_each(check);

    let produced: f64 = [&closed, &open, &client].into_iter().map(all_records).sum();
    let page = directory.path().join("report.html");
    for driver in ["wire", "client"] {
        let line = format!(
            "consume --topic t --until-end --duration 1m --warm-up 0s --driver {driver} --html {}",
            page.display()
        );
        let consumed = bench(&line, &gateway);
        assert_eq!(all_records(&consumed), produced, "{driver} driver");
        check(&consumed);
        let html = std::fs::read_to_string(&page).expect("a page was written");
        assert!(html.starts_with("<!doctype html>") && html.contains("<svg"), "{html}");
    }
    node.stop().expect("an orderly end");
}

#[test]
fn every_record_arrives_end_to_end() {
    let directory = process::directory().expect("a directory");
    let node = NodeSetup::new(directory.path(), "dev").expect("a setup").start().expect("the node starts");
    let line = "end-to-end --topic e --rate 2000 --record-bytes 100 --duration 1s --warm-up 200ms --keys uniform";
    let report = bench(line, node.gateway());
    check(&report);
    assert_eq!(all_records(&report), 2_400.0, "every record that was meant to be sent is received once");
    node.stop().expect("an orderly end");
}

#[test]
fn limits_are_measured() {
    let directory = process::directory().expect("a directory");
    let report = bench(&format!("limits --quick --rounds 1 --dir {}", directory.path().display()), "127.0.0.1:9");
    for limit in ["durable_write", "sequential_read", "small_write", "receive", "round_trip"] {
        let shapes = report["limits"][limit]["shapes"].as_array().unwrap_or_else(|| panic!("no {limit} in {report}"));
        assert!(!shapes.is_empty() && shapes.iter().all(|shape| number(shape, "/median") > 0.0), "{limit}: {shapes:?}");
    }
    assert!(number(&report, "/driver/bytes_per_second") > 0.0 && number(&report, "/driver/requests_per_second") > 0.0);
}

#[test]
fn the_suite_runs_and_writes_its_reports() {
    let directory = process::directory().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (data, output) = (path("data"), path("output"));
    let report = bench(&format!("suite --quick --runs 1 --dir {data} --output {output}"), "127.0.0.1:9");
    let rows = report["rows"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().filter_map(|row| row["row"]["name"].as_str()).collect();
    assert_eq!(names, ["1a", "1b", "2", "3", "4", "5", "6", "7", "8", "9a", "9b", "9c", "9d", "10"]);
    for row in rows {
        let is_memory = row["row"]["name"] == "9a";
        assert!(number(row, "/ratio/figure") > 0.0 || is_memory, "{row}");
        assert!(row["met"].is_boolean() && number(row, "/ratio/limit") > 0.0, "{row}");
    }
    let notes = rows[0]["notes"].to_string();
    assert!(notes.contains("segment files: ") && !notes.contains("0 recycled, 0 new"), "{notes}");
    for (file, expected) in [("README.md", "| 1a |"), ("results.json", "\"rows\""), ("report.html", "<!doctype html>")]
    {
        let text = std::fs::read_to_string(Path::new(&output).join(file)).expect("a report was written");
        assert!(text.contains(expected), "{file}: {text}");
    }
}

#[test]
fn two_binaries_are_measured_in_turn() {
    let directory = process::directory().expect("a directory");
    let (data, binary) = (directory.path().join("data"), process::binary().expect("a binary"));
    let line = format!(
        "compare --baseline {} --dir {} --rounds 2 --duration 200ms --warm-up 100ms --record-bytes 100",
        binary.display(),
        data.display()
    );
    let report = bench(&line, "127.0.0.1:9");
    let rounds = report["rounds"].as_array().expect("rounds");
    assert_eq!(rounds.len(), 2, "{report}");
    for side in ["/baseline", "/candidate"] {
        for figure in ["records_per_second", "broker_ns_per_record"] {
            assert!(rounds.iter().all(|round| number(round, &format!("{side}/{figure}")) > 0.0), "{report}");
        }
    }
}

#[test]
fn contradictions_are_the_command_lines_fault() {
    for line in
        ["produce --record-bytes 3M", "produce --in-flight 2000", "consume --driver client --rewind", "suite --rows 11"]
    {
        let mut arguments = vec!["bench"];
        arguments.extend(line.split_whitespace());
        arguments
            .extend(["--limits", "off", "--gateway", "127.0.0.1:9"].into_iter().filter(|_| !line.contains("suite")));
        let output = process::run(&arguments, b"").expect("the binary runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "bench {line}: {errors}");
    }
}
