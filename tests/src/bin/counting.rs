//! Measures what counting costs: of the samples of a busy shard's thread, those that lie in it (docs/OPERATIONS.md).
//!
//! One broker of one shard under three loads, the last with a record in each batch. `perf` takes the samples, `addr2line` tells
//! whose they are, inlined functions included. A busy machine makes the shares larger: caches are colder.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use minikafka_tests::process::{self, Node, NodeSetup};
use serde_json::Value;

/// Loads, by name: options of `bench produce`.
const LOADS: [(&str, &str); 3] = [
    ("1 KiB records, 256 KiB batches", "--record-bytes 1024 --batch-bytes 256K --connections 2"),
    ("1 KiB records, 16 KiB batches", "--record-bytes 1024 --batch-bytes 16K --connections 2 --in-flight 256"),
    ("one 100-byte record in each batch", "--record-bytes 100 --batch-records 1 --connections 8 --in-flight 256"),
];
const PARTITIONS: &str = "64";
/// Older records are deleted while it runs, as in any long run.
const PARTITION_BYTES: &str = "32M";
/// Samples a second: not a divisor of anything that ticks.
const SAMPLES_PER_SECOND: &str = "4999";
/// Sampling is over well before its load.
const SAMPLED: &str = "6";
const LOAD: [&str; 4] = ["--warm-up", "2s", "--duration", "9s"];
/// Files and functions that count. A look at the clock with which a time-out begins is among them: it cannot be told apart.
const COUNTING: [&str; 4] = ["core/src/histogram.rs", "broker/src/metrics", "Clock::counted_ns", "Clock::mark"];

/// Where the code of the binary is in memory, in its file, and in its own addresses.
#[derive(Clone, Copy)]
struct Code {
    loaded_at: u64,
    file_offset: u64,
    segment_offset: u64,
    segment_address: u64,
}

fn main() -> Result<()> {
    ensure!(std::env::args().count() == 1, "this takes no arguments");
    let directory = tempfile::tempdir_in(process::build_directory()?)?;
    let mut setup = NodeSetup::new(directory.path(), "server")?;
    setup.cores = 1;
    setup.more.extend(["--retention-check", "500ms"].map(String::from));
    let binary = setup.binary.canonicalize()?;
    let node = setup.start()?;
    let line = ["topic", "create", "counted", "--partitions", PARTITIONS, "--retention-bytes", PARTITION_BYTES];
    run(&[&line[..], &["--gateway", node.gateway()]].concat())?;
    for (name, options) in LOADS {
        let samples = directory.path().join("perf.data");
        let per_second = sample(&node, options, &samples)?;
        let addresses = addresses(&node, &binary, &samples)?;
        let all: u64 = addresses.values().sum();
        ensure!(all > 0, "no samples of the shard's thread");
        let counting = counting(&binary, &addresses)?;
        let share = 100.0 * counting as f64 / all as f64;
        println!("{name}: {share:.2} % of {all} samples, at {per_second:.0} batches a second");
    }
    node.stop()
}

/// Puts the broker under a load and takes samples of it; returns the batches a second.
fn sample(node: &Node, options: &str, into: &Path) -> Result<f64> {
    let mut line = vec!["bench", "produce", "--topic", "counted", "--limits", "off", "--json"];
    line.extend(options.split(' '));
    line.extend(LOAD);
    line.extend(["--gateway", node.gateway()]);
    let output = thread::scope(|scope| {
        let load = scope.spawn(|| run(&line));
        // What comes before the load is idle, and gives no samples of a busy thread.
        let pid = node.pid().to_string();
        let mut perf = Command::new("perf");
        perf.args(["record", "-q", "-F", SAMPLES_PER_SECOND, "-p", &pid, "-o"])
            .arg(into)
            .args(["--", "sleep", SAMPLED]);
        told(&mut perf)?;
        load.join().unwrap_or_else(|_| bail!("the load panicked"))
    })?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    report.pointer("/measured/totals/requests_per_second").and_then(Value::as_f64).context("no requests a second")
}

/// How many samples of the shard's thread lie at each address; those outside of the binary (the kernel, libraries) are at 0.
fn addresses(node: &Node, binary: &Path, samples: &Path) -> Result<HashMap<u64, u64>> {
    let code = Code::of(node, binary)?;
    let output = told(Command::new("perf").args(["script", "-F", "comm,ip,dso", "-i"]).arg(samples))?;
    let mut addresses = HashMap::new();
    let binary = format!("({})", binary.display());
    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.trim_start().starts_with("shard-")) {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(at), Some(object)) = (fields.next(), fields.next()) else { bail!("perf script said {line:?}") };
        let address = if object == binary { code.address(u64::from_str_radix(at, 16)?) } else { 0 };
        *addresses.entry(address).or_default() += 1;
    }
    Ok(addresses)
}

/// How many of the samples lie in what counts.
fn counting(binary: &Path, addresses: &HashMap<u64, u64>) -> Result<u64> {
    let asked: Vec<_> =
        addresses.keys().filter(|address| **address != 0).map(|address| format!("{address:#x}")).collect();
    let output = told(Command::new("addr2line").args(["-a", "-i", "-f", "-C", "-e"]).arg(binary).args(&asked))?;
    let (mut counting, mut left) = (0, 0);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(address) = line.strip_prefix("0x") {
            left = addresses.get(&u64::from_str_radix(address, 16)?).copied().unwrap_or_default();
        } else if COUNTING.iter().any(|what| line.contains(what)) {
            counting += std::mem::take(&mut left);
        }
    }
    Ok(counting)
}

impl Code {
    fn of(node: &Node, binary: &Path) -> Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", node.pid()))?;
        let path = binary.to_str().context("the binary's path is not UTF-8")?;
        let line = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with(path));
        let mut fields = line.with_context(|| format!("{path} is not mapped"))?.split_whitespace();
        let start = fields.next().and_then(|range| range.split('-').next()).context("no address")?;
        let offset = fields.nth(1).context("no offset")?;
        let headers = told(Command::new("readelf").args(["-lW"]).arg(binary))?;
        let headers = String::from_utf8_lossy(&headers.stdout).into_owned();
        let executable = |line: &&str| line.contains(" LOAD ") && line.contains(" R E ");
        let segment: Vec<_> = headers.lines().find(executable).context("no code")?.split_whitespace().collect();
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        Ok(Self {
            loaded_at: number(start)?,
            file_offset: number(offset)?,
            segment_offset: number(segment[1])?,
            segment_address: number(segment[2])?,
        })
    }

    /// An address as the binary's own symbols have it.
    fn address(&self, in_memory: u64) -> u64 {
        in_memory - self.loaded_at + self.file_offset - self.segment_offset + self.segment_address
    }
}

fn run(line: &[&str]) -> Result<Output> {
    let output = process::run(line, b"")?;
    ensure!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// Runs a tool of the machine.
fn told(command: &mut Command) -> Result<Output> {
    let program = PathBuf::from(command.get_program());
    let how = || {
        format!(
            "{}: install it (Debian: linux-perf, binutils), and be root or lower kernel.perf_event_paranoid",
            program.display()
        )
    };
    let output = command.output().with_context(how)?;
    ensure!(output.status.success(), "{}: {}", how(), String::from_utf8_lossy(&output.stderr));
    Ok(output)
}
