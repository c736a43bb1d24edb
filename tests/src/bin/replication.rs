//! Measures what replication costs: processor time per GB, throughput and latency of a chain of three beside a chain of one
//! (`docs/BENCHMARKS.md`).
//!
//! One process of three nodes with one shard each, everything over loopback and on one disk, so that three copies are three
//! times the writes of one disk. Rounds alternate between the two topics; ratios are taken within a round. Processor time is
//! that of the nodes' process and of the load together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use minikafka_tests::process::{self, Node, NodeSetup};
use serde_json::Value;

/// Loads, by name: options of `bench produce`, which has a connection to each of the three shards and by default 32 batches
/// in flight on each. The first two are of the client, as in an application, whose `--in-flight` is in records; the others are
/// of a load that sends one batch again and again, which costs next to nothing beside a broker.
const LOADS: [(&str, &str); 6] = [
    (
        "1 KiB records of the client, 256 KiB batches, 24 MiB in flight",
        "--driver client --record-bytes 1024 --batch-bytes 256K --in-flight 24576",
    ),
    (
        "1 KiB records of the client, 16 KiB batches, 24 MiB in flight",
        "--driver client --record-bytes 1024 --batch-bytes 16K --in-flight 24576",
    ),
    ("1 KiB records, 256 KiB batches, 24 MiB in flight", "--record-bytes 1024 --batch-bytes 256K"),
    ("1 KiB records, 16 KiB batches, 24 MiB in flight", "--record-bytes 1024 --batch-bytes 16K --in-flight 512"),
    ("1 KiB records, 16 KiB batches, 1.5 MiB in flight", "--record-bytes 1024 --batch-bytes 16K"),
    ("one 1 KiB record in flight", "--record-bytes 1024 --batch-records 1 --connections 1 --in-flight 1"),
];
const RECORD_BYTES: f64 = 1024.0;
const PARTITIONS: &str = "16";
/// Older records are deleted while it runs: segments are recycled as in any long run, and the disk does not fill.
const PARTITION_BYTES: &str = "128M";
const NODES: &str = "3";

struct Arguments {
    rounds: usize,
    duration: String,
    directory: PathBuf,
}

/// What is told of one load on one topic.
const FIGURES: [&str; 4] = ["MB/s", "processor s per GB", "p50 us", "p99 us"];
type Sample = [f64; FIGURES.len()];

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let directory = tempfile::tempdir_in(&arguments.directory)?;
    let mut setup = NodeSetup::new(directory.path(), "dev")?;
    // Node k listens from there on plus 100 k, so ports next to each other are not what is needed.
    setup.cores = 1;
    setup.more.extend(["--nodes", NODES, "--retention-check", "500ms"].map(String::from));
    let node = setup.start()?;
    for replication in [1, 3] {
        let topic = topic(replication);
        let replication = replication.to_string();
        let line = ["topic", "create", &topic, "--partitions", PARTITIONS, "--replication", &replication];
        let more = ["--retention-bytes", PARTITION_BYTES, "--gateway", node.gateway()];
        let output = process::run(&[&line[..], &more].concat(), b"")?;
        ensure!(output.status.success(), "topic create: {}", String::from_utf8_lossy(&output.stderr));
    }
    for (name, options) in LOADS {
        println!("{name}");
        let mut rounds = Vec::new();
        for round in 0..arguments.rounds {
            let one = measure(&node, 1, options, &arguments.duration)?;
            let three = measure(&node, 3, options, &arguments.duration)?;
            println!("  round {round}: {} | {}", shown(&one), shown(&three));
            rounds.push((one, three));
        }
        for (figure, what) in FIGURES.iter().enumerate() {
            let of = |pick: fn(&(Sample, Sample)) -> Sample| rounds.iter().map(|round| pick(round)[figure]).collect();
            let ratios = rounds.iter().map(|(one, three)| three[figure] / one[figure]).collect();
            let (one, three) = (spread(of(|round| round.0)), spread(of(|round| round.1)));
            println!("  {what:>22}: one copy {one}, three {three}, ratio {}", spread(ratios));
        }
    }
    node.stop()
}

fn shown(sample: &Sample) -> String {
    let figures: Vec<_> = FIGURES.iter().zip(sample).map(|(what, figure)| format!("{figure:.2} {what}")).collect();
    figures.join(", ")
}

fn topic(replication: u32) -> String {
    format!("copies-{replication}")
}

fn measure(node: &Node, replication: u32, options: &str, duration: &str) -> Result<Sample> {
    let topic = topic(replication);
    let mut line = vec!["bench", "produce", "--topic", &topic, "--duration", duration, "--warm-up", "1s"];
    line.extend(options.split(' '));
    line.extend(["--limits", "off", "--json", "--gateway", node.gateway()]);
    let before = node.usage()?.processor + of_children()?;
    let output = process::run(&line, b"")?;
    let processor = node.usage()?.processor + of_children()? - before;
    ensure!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).with_context(|| format!("{path}: {report}"));
    let bytes = number("/measured/all_records")? * RECORD_BYTES;
    Ok([
        number("/measured/totals/bytes_per_second")? / 1e6,
        processor.as_secs_f64() / (bytes / 1e9),
        number("/measured/latency/p50_us")?,
        number("/measured/latency/p99_us")?,
    ])
}

/// Processor time of all processes that this one has waited for.
fn of_children() -> Result<Duration> {
    // SAFETY: all zeros is a value of this struct of numbers, and the call fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        ensure!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) == 0, std::io::Error::last_os_error());
        usage
    };
    let time = |time: libc::timeval| Duration::from_micros(time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64);
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// Median, and the least and the most.
fn spread(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    match (figures.get(figures.len() / 2), figures.first(), figures.last()) {
        (Some(median), Some(least), Some(most)) => format!("{median:.2} ({least:.2} to {most:.2})"),
        _ => "nothing".to_owned(),
    }
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut this = Self { rounds: 5, duration: "5s".to_owned(), directory: process::build_directory()? };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => this.rounds = value.parse()?,
                "--duration" => this.duration = value,
                "--directory" => this.directory = value.into(),
                _ => bail!("{name} is not known; there are --rounds, --duration, --directory"),
            }
        }
        ensure!(this.rounds > 0, "--rounds must be 1 at least");
        Ok(this)
    }
}
