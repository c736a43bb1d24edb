//! `minikafka log verify` and `minikafka log dump` on what a real broker wrote.
//!
//! Promise: a data directory that was closed in order is clean and gives back its records; a flipped bit anywhere that
//! matters is named by file and byte, with exit code 6. What recovery makes of the same damage is storage's own test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use minikafka_tests::process::{self, NodeSetup};
use serde_json::Value;
use tempfile::TempDir;

/// Enough for a sealed segment of 8 MiB and more behind it.
const LARGE_LINES: usize = 300;
const LARGE_LINE_BYTES: usize = 60_000;

/// A data directory with small records in one topic and large ones in another, closed in order.
fn written() -> (TempDir, PathBuf) {
    let directory = process::directory().expect("a directory beside the build");
    let setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
    let node = setup.start().expect("a node starts");
    let gateway = setup.gateway();
    let ok = |line: &str, input: &[u8]| {
        let mut arguments: Vec<_> = line.split_whitespace().collect();
        arguments.extend(["--gateway", &gateway]);
        let output = process::run(&arguments, input).expect("the binary runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ok("topic create small --partitions 2", b"");
    ok("topic create large --partitions 1", b"");
    let small: String = (0..40).map(|at| format!("key-{at}:value {at}\n")).collect();
    ok("produce small --key-separator : --compression none", small.as_bytes());
    ok("produce small --compression zstd", "packed\n".repeat(100).as_bytes());
    let large: String = (0..LARGE_LINES).map(|at| format!("{at:06}{}\n", "x".repeat(LARGE_LINE_BYTES))).collect();
    ok("produce large --compression none", large.as_bytes());
    let running = log(&["verify", &setup.data_dir.display().to_string(), "--json"]);
    assert_eq!(json(&running)["running"], true, "a running broker is noticed: {}", text(&running.stderr));
    assert_eq!(running.status.code(), Some(0), "{}", text(&running.stdout));
    node.stop().expect("an orderly end");
    (directory, setup.data_dir)
}

fn log(arguments: &[&str]) -> Output {
    process::run(&[&["log"], arguments].concat(), b"").expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr));
    })
}

/// Lines of a dump as JSON.
fn dumped(dir: &Path, more: &[&str]) -> Vec<Value> {
    let dir = dir.display().to_string();
    let output = log(&[&["dump", &dir, "--json"], more].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} of {value}"))
}

#[test]
fn what_was_written_verifies_and_comes_back() {
    let (_directory, data) = written();
    let dir = data.display().to_string();
    let output = log(&["verify", &dir, "--json", "--partition-table"]);
    let summary = json(&output);
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!((&summary["ok"], &summary["running"]), (&Value::from(true), &Value::from(false)), "{summary}");
    assert_eq!(number(&summary, "records"), 140 + LARGE_LINES as u64, "{summary}");
    assert!(number(&summary, "sealed_segments") > 0, "the large topic fills a segment: {summary}");
    assert_eq!(summary["partition_table"].as_array().map(Vec::len), Some(3), "{summary}");
    let human = log(&["verify", &dir]);
    assert!(text(&human.stdout).contains("no damage"), "{}", text(&human.stdout));

    let records = dumped(&data, &["--records"]);
    let values: Vec<_> = records.iter().filter_map(|record| record["value"].as_str()).collect();
    assert_eq!(values.iter().filter(|value| **value == "packed").count(), 100, "compressed bodies are opened");
    for at in 0..40 {
        assert!(values.contains(&format!("value {at}").as_str()), "value {at} is not dumped");
    }
    let keys: Vec<_> = records.iter().filter_map(|record| record["key"].as_str()).collect();
    assert!(keys.contains(&"key-7"), "{keys:?}");
    let large: Vec<_> = values.iter().filter(|value| value.len() > LARGE_LINE_BYTES).collect();
    assert_eq!(large.len(), LARGE_LINES);
    assert!(large.is_sorted(), "records come in the order of the log");

    let entries = dumped(&data, &["--entries"]);
    assert!(entries.iter().all(|entry| entry["state"] == "ok" && entry["crc_ok"] == true));
    let offsets = |more: &[&str]| dumped(&data, more).iter().map(|entry| number(entry, "base_offset")).max();
    let topic = entries.iter().find(|entry| number(entry, "bytes") > 50_000).expect("a large batch")["topic"].clone();
    let topic = topic.as_str().expect("an id");
    assert!(offsets(&["--topic-id", topic, "--partition", "0"]) > Some(100));
    assert_eq!(dumped(&data, &["--topic-id", topic, "--from-offset", "299", "--records"]).len(), 1);
    assert_eq!(dumped(&data, &["--limit", "3"]).len(), 3);
    assert!(dumped(&data, &["--flushes"]).len() > 3 && !dumped(&data, &["--footers"]).is_empty());
    let nothing = log(&["verify", "/proc/self"]);
    assert_eq!(nothing.status.code(), Some(4), "{}", text(&nothing.stderr));
}

/// A place to flip a bit at, and what must be said of it.
struct Flip {
    what: &'static str,
    file: PathBuf,
    at: u64,
    /// The position that is named.
    named: u64,
    kinds: &'static [&'static str],
}

fn path(value: &Value) -> PathBuf {
    PathBuf::from(value["file"].as_str().expect("a file"))
}

/// Flips in a flush and its entry, given as dumped.
fn flips_in_flush(flush: &Value, entry: &Value) -> Vec<Flip> {
    let (start, at) = (number(flush, "position"), number(entry, "position"));
    let body_end = at + 128 + number(entry, "body_bytes");
    let flip = |what, at, named, kinds| Flip { what, file: path(entry), at, named, kinds };
    let mut flips = vec![
        flip("flush header", start + 33, start, &["flush_header", "unreadable"]),
        flip("flush header's magic", start, start, &["flush_header", "unreadable"]),
        flip("entry header", at + 40, at, &["unreadable"]),
        flip("body", at + 128 + 5, at, &["body"]),
    ];
    if !body_end.is_multiple_of(16) {
        flips.push(flip("entry padding", body_end, at, &["padding"]));
    }
    let end = start + number(flush, "length");
    if !end.is_multiple_of(4096) {
        flips.push(flip("flush padding", end + 1, end, &["padding"]));
    }
    flips
}

fn all_flips(data: &Path) -> Vec<Flip> {
    let (flushes, entries) = (dumped(data, &["--flushes"]), dumped(data, &["--entries"]));
    let footers = dumped(data, &["--footers"]);
    let footer = &footers[0];
    let in_flush = |entry: &&Value, flush: &Value| {
        let (start, at) = (number(flush, "position"), number(entry, "position"));
        entry["file"] == flush["file"] && (start..start + number(flush, "length")).contains(&at)
    };
    let pairs = |is_sealed: bool| {
        flushes.iter().filter(move |flush| (flush["file"] == footer["file"]) == is_sealed).filter_map(|flush| {
            let entry = entries.iter().filter(|entry| entry["records"] != 0).find(|entry| in_flush(entry, flush))?;
            Some((flush, entry))
        })
    };
    let mut flips = Vec::new();
    for is_sealed in [true, false] {
        let (flush, entry) = pairs(is_sealed).next().expect("a flush with records");
        flips.extend(flips_in_flush(flush, entry));
    }
    let file = path(footer);
    let (position, bytes) = (number(footer, "position"), fs::metadata(&file).expect("a file").len());
    let trailer = bytes - 4096;
    flips.push(Flip { what: "footer", file: file.clone(), at: position + 3, named: position, kinds: &["footer_body"] });
    for (what, at) in [("trailer", trailer + 48), ("trailer's zeros", bytes - 1), ("trailer's magic", trailer)] {
        flips.push(Flip { what, file: file.clone(), at, named: trailer, kinds: &["trailer"] });
    }
    let node = data.join("node-1");
    let promises = node.join("promises/0.promises");
    let slots = fs::read(&promises).expect("a promise file");
    for slot in 0..2 {
        let start = slot * slots.len() / 2;
        if slots[start..start + 4] == *b"MKp1" {
            let kinds = &["promise_slot", "promises"];
            let (what, at) = ("promise", start as u64 + 17);
            flips.push(Flip { what, file: promises.clone(), at, named: start as u64, kinds });
        }
    }
    flips.push(Flip { what: "store", file: node.join("store"), at: 20, named: 0, kinds: &["store"] });
    flips
}

#[test]
fn a_flipped_bit_is_named_by_file_and_byte() {
    let (_directory, data) = written();
    let flips = all_flips(&data);
    assert!(flips.len() >= 14, "{}", flips.len());
    let whats: Vec<_> = flips.iter().map(|flip| flip.what).collect();
    assert!(whats.contains(&"entry padding") && whats.contains(&"flush padding"), "{whats:?}");
    for flip in &flips {
        let good = fs::read(&flip.file).expect("read");
        let mut bad = good.clone();
        bad[flip.at as usize] ^= 4;
        fs::write(&flip.file, &bad).expect("write");
        let output = log(&["verify", &data.display().to_string(), "--json"]);
        let summary = json(&output);
        let context = format!("{} at byte {} of {}: {summary}", flip.what, flip.at, flip.file.display());
        assert_eq!(output.status.code(), Some(6), "{context}");
        let damage = summary["damage"].as_array().expect("a list");
        let named = damage.iter().find(|damage| path(damage) == flip.file && number(damage, "position") == flip.named);
        let named = named.unwrap_or_else(|| panic!("not named at {}: {context}", flip.named));
        assert!(flip.kinds.iter().any(|kind| named["kind"] == *kind), "{context}");
        assert!(named["advice"].as_str().is_some_and(|advice| advice.len() > 20), "{context}");
        assert!(dumped(&data, &[]).len() > 3, "a dump goes on behind damage: {context}");
        fs::write(&flip.file, &good).expect("write");
    }
    let output = log(&["verify", &data.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "all is as it was: {}", text(&output.stdout));
}
