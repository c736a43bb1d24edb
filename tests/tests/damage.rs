//! A killed broker whose files rot before it comes back: whatever is good arrives, whatever is not is named, and a
//! consumer that was not told to skip stops with an error that says what to do.
//!
//! One broker is filled and killed once; each case starts it on a fresh copy of the data directory after changing files of
//! one partition's range. The other partition is in another range and must not be disturbed. Every cause by itself, with
//! random logs, is in `storage/tests/damage_causes.rs`; here are the real process, the real disk and the client.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use minikafka_client::core::{Offset, Partition};
use minikafka_client::{
    Client, ConsumerOptions, OnDamage, Producer, ProducerOptions, ProducerRecord, Skipped, TopicOptions,
};
use minikafka_tests::process::{self, Node, NodeSetup};

const TOPIC: &str = "orders";
const BLOCK: u64 = 4096;
/// Enough for several segments of the smallest size.
const RECORDS: u64 = 9_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// What was acknowledged: partition and offset of each value's number.
type Acknowledged = BTreeMap<(u32, u64), u64>;

fn value(number: u64) -> Vec<u8> {
    let bytes = 3_000 + number as usize % 1_000;
    let mut state = number;
    let mut value = number.to_le_bytes().to_vec();
    while value.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value
}

async fn producer(gateway: &str, delivery_timeout: Duration) -> Result<Producer> {
    let client = Client::builder([gateway]).connect().await?;
    let options = ProducerOptions {
        batch_bytes_max: 16 << 10,
        delivery_timeout,
        linger: Duration::ZERO,
        ..ProducerOptions::default()
    };
    Ok(client.producer(TOPIC, options).await?)
}

async fn fill(gateway: &str) -> Result<Acknowledged> {
    let client = Client::builder([gateway]).connect().await?;
    client.create_topic(TOPIC, TopicOptions { partitions: 2, ..TopicOptions::default() }).await?;
    let producer = producer(gateway, PATIENCE).await?;
    let mut waiting = Vec::new();
    for number in 0..RECORDS {
        // The second partition is only there to be left alone.
        let partition = u32::from(number % 50 == 0);
        let value = value(number);
        let record =
            ProducerRecord { partition: Some(Partition(partition)), value: Some(&value), ..Default::default() };
        waiting.push((partition, number, producer.send(record).await?));
    }
    let mut acknowledged = Acknowledged::new();
    for (partition, number, delivery) in waiting {
        let offset = delivery.await?.offset.context("an offset")?;
        acknowledged.insert((partition, offset.0), number);
    }
    Ok(acknowledged)
}

/// Segment files below a directory, oldest first, by the directory of their range.
fn ranges(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<PathBuf>>> {
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|end| end == "segment") {
                found.entry(dir.clone()).or_default().push(path);
            }
        }
    }
    found.values_mut().for_each(|paths| paths.sort());
    Ok(found)
}

/// Positions of the flushes of a segment.
fn flushes(path: &Path) -> Result<Vec<u64>> {
    let bytes = fs::read(path)?;
    let blocks = bytes.chunks(BLOCK as usize).enumerate();
    Ok(blocks.filter(|(_, block)| block.starts_with(b"MKf1")).map(|(at, _)| at as u64 * BLOCK).collect())
}

fn read_at(path: &Path, position: u64, bytes: usize) -> Result<Vec<u8>> {
    let mut found = vec![0; bytes];
    fs::File::open(path)?.read_exact_at(&mut found, position)?;
    Ok(found)
}

fn write_at(path: &Path, position: u64, bytes: &[u8]) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, position)?;
    Ok(file.sync_all()?)
}

/// The files of the range to be damaged, oldest first, and those of the other one.
struct Files {
    own: Vec<PathBuf>,
    other: Vec<PathBuf>,
}

impl Files {
    fn of(dir: &Path) -> Result<Self> {
        let mut ranges: Vec<_> = ranges(dir)?.into_values().collect();
        ranges.sort_by_key(Vec::len);
        let (own, other) = (ranges.pop().context("a range")?, ranges.pop().context("another range")?);
        ensure!(own.len() >= 3, "there are sealed segments: {own:?}");
        Ok(Self { own, other })
    }

    /// The last segment that has flushes.
    fn active(&self) -> Result<(&Path, Vec<u64>)> {
        for path in self.own.iter().rev() {
            let flushes = flushes(path)?;
            if flushes.len() > 8 {
                return Ok((path, flushes));
            }
        }
        anyhow::bail!("no segment has flushes")
    }
}

fn flip(path: &Path, position: u64) -> Result<()> {
    let byte = read_at(path, position, 1)?[0];
    write_at(path, position, &[byte ^ 4])
}

/// Changes files; the file that the log must name.
type Change = fn(&Files) -> Result<PathBuf>;

fn flipped_bit(files: &Files) -> Result<PathBuf> {
    flip(&files.own[0], flushes(&files.own[0])?[20] + 1_000)?;
    Ok(files.own[0].clone())
}

fn swapped_blocks(files: &Files) -> Result<PathBuf> {
    let (path, flushes) = (&files.own[0], flushes(&files.own[0])?);
    let [one, other] = [flushes[10], flushes[30]];
    let (first, second) = (read_at(path, one, BLOCK as usize)?, read_at(path, other, BLOCK as usize)?);
    write_at(path, one, &second)?;
    write_at(path, other, &first)?;
    Ok(path.clone())
}

fn stale_blocks(files: &Files) -> Result<PathBuf> {
    let position = flushes(&files.own[0])?[15];
    write_at(&files.own[0], position, &read_at(&files.other[0], 0, 2 * BLOCK as usize)?)?;
    Ok(files.own[0].clone())
}

fn truncated_segment(files: &Files) -> Result<PathBuf> {
    let file = fs::OpenOptions::new().write(true).open(&files.own[0])?;
    file.set_len(5 << 20)?;
    Ok(files.own[0].clone())
}

fn zeroed_region(files: &Files) -> Result<PathBuf> {
    write_at(&files.own[0], 2 << 20, &[0; 256 << 10])?;
    Ok(files.own[0].clone())
}

fn damaged_trailer(files: &Files) -> Result<PathBuf> {
    let end = fs::metadata(&files.own[0])?.len();
    flip(&files.own[0], end - BLOCK + 60)?;
    Ok(files.own[0].clone())
}

fn damaged_footer_body(files: &Files) -> Result<PathBuf> {
    let end = fs::metadata(&files.own[0])?.len();
    let trailer = read_at(&files.own[0], end - BLOCK, 32)?;
    let position = u64::from_le_bytes(trailer[24..32].try_into()?);
    flip(&files.own[0], position + 50)?;
    Ok(files.own[0].clone())
}

fn zeroed_header_behind_the_footers(files: &Files) -> Result<PathBuf> {
    let (path, flushes) = files.active()?;
    write_at(path, flushes[flushes.len() / 2], &[0; BLOCK as usize])?;
    Ok(path.to_owned())
}

/// A cause, how many records it may cost, and whether writes go on.
const CASES: &[(&str, Change, Range<u64>, bool)] = &[
    ("flipped bit", flipped_bit, 1..40, true),
    ("swapped blocks", swapped_blocks, 2..400, true),
    ("stale blocks", stale_blocks, 1..400, true),
    ("truncated segment", truncated_segment, 100..RECORDS, true),
    ("zeroed region", zeroed_region, 20..600, true),
    ("damaged trailer", damaged_trailer, 0..1, true),
    ("damaged footer body", damaged_footer_body, 0..1, true),
    ("zeroed header behind the footers", zeroed_header_behind_the_footers, 1..400, false),
];

/// Everything a consumer gets that skips damage.
async fn consume(gateway: &str) -> Result<(Acknowledged, Vec<Skipped>)> {
    let client = Client::builder([gateway]).connect().await?;
    let options = ConsumerOptions { on_damage: OnDamage::Skip, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(TOPIC, options).await?;
    let mut found = Acknowledged::new();
    while !consumer.is_at_end() {
        let Some(batch) = consumer.next_batch_within(Duration::from_millis(500)).await? else { continue };
        for record in batch.records() {
            let bytes = record.value.context("a value")?;
            let number = u64::from_le_bytes(bytes[..8].try_into()?);
            ensure!(bytes == value(number), "record {number} is what was sent");
            found.insert((batch.partition().0, record.offset.0), number);
        }
    }
    Ok((found, consumer.skipped()))
}

fn judge(acknowledged: &Acknowledged, found: &Acknowledged, skipped: &[Skipped], bound: &Range<u64>) -> Result<()> {
    let is_skipped = |partition: u32, offset: u64| {
        skipped.iter().any(|s| s.partition.0 == partition && (s.from.0..s.to.0).contains(&offset))
    };
    let mut lost = 0;
    for (&(partition, offset), number) in acknowledged {
        match found.get(&(partition, offset)) {
            Some(other) => ensure!(other == number, "offset {offset} of partition {partition} is another record"),
            None => {
                ensure!(partition == 0, "the other partition is not disturbed");
                ensure!(is_skipped(partition, offset), "offset {offset} is missing and nobody says so: {skipped:?}");
                lost += 1;
            }
        }
    }
    ensure!(bound.contains(&lost), "{lost} records are lost, {bound:?} were to be: {skipped:?}");
    ensure!(found.keys().all(|place| acknowledged.contains_key(place)), "nothing comes from nowhere");
    Ok(())
}

/// The command line stops at damage with an error, and goes on when it is told to.
fn check_command_line(gateway: &str, is_lossy: bool) -> Result<()> {
    let consume = ["consume", TOPIC, "--until-end", "--gateway", gateway];
    let stopped = process::run(&consume, b"")?;
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    ensure!(stopped.status.success() != is_lossy, "without --skip-damaged: {}: {said}", stopped.status);
    if is_lossy {
        let words = [TOPIC, "partition 0", "from offset", "damaged on the broker's disk", "--skip-damaged"];
        ensure!(words.iter().all(|word| said.contains(word)), "the error is not clear: {said}");
    }
    let skipping = process::run(&[&consume[..], &["--skip-damaged"]].concat(), b"")?;
    let said = String::from_utf8_lossy(&skipping.stderr).into_owned();
    ensure!(skipping.status.success(), "with --skip-damaged: {said}");
    ensure!(said.contains("were skipped") == is_lossy, "what was left out is told: {said}");
    Ok(())
}

async fn check_writes(gateway: &str, are_taken: bool) -> Result<()> {
    let producer = producer(gateway, Duration::from_secs(3)).await?;
    let value = value(RECORDS);
    let record = ProducerRecord { partition: Some(Partition(0)), value: Some(&value), ..Default::default() };
    let delivered = producer.send(record).await?.await;
    match (delivered, are_taken) {
        (Ok(delivery), true) => ensure!(delivery.offset > Some(Offset(0)), "at the end: {delivery:?}"),
        (Err(error), false) => {
            let said = error.to_string();
            let words = ["range_failed", ".segment is damaged at byte", "takes no writes", "restore"];
            ensure!(words.iter().all(|word| said.contains(word)), "the refusal is not clear: {said}");
        }
        (other, _) => anyhow::bail!("writes are taken: {are_taken}; {other:?}"),
    }
    Ok(())
}

fn case(setup: &NodeSetup, acknowledged: &Acknowledged, case: &(&str, Change, Range<u64>, bool)) -> Result<()> {
    let (name, change, bound, takes_writes) = case;
    let log_file = setup.data_dir.with_file_name("node.log");
    fs::write(&log_file, b"")?;
    let named = change(&Files::of(&setup.data_dir)?)?;
    let node: Node = setup.start()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let work = async {
        let (found, skipped) = consume(node.gateway()).await?;
        judge(acknowledged, &found, &skipped, bound)
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.context("the consumer never ends")? })?;
    // Reading everything three times is slow: once where something is lost, and once where nothing is.
    if matches!(*name, "flipped bit" | "damaged trailer") {
        check_command_line(node.gateway(), bound.start > 0)?;
    }
    runtime.block_on(check_writes(node.gateway(), *takes_writes))?;
    node.kill()?;
    let log = fs::read_to_string(&log_file)?;
    let file = named.file_name().and_then(|file| file.to_str()).context("a name")?;
    let is_named = log.lines().any(|line| line.contains(file) && line.contains("damaged at byte"));
    ensure!(is_named, "the log does not name {file}:\n{log}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let status = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

#[test]
fn what_is_good_arrives_and_what_is_damaged_is_named() {
    let run = || -> Result<()> {
        let directory = process::directory()?;
        let mut setup = NodeSetup::new(directory.path(), "dev")?;
        setup.cores = 1;
        let node = setup.start()?;
        let acknowledged = tokio::runtime::Runtime::new()?.block_on(fill(node.gateway()))?;
        ensure!(acknowledged.len() as u64 == RECORDS, "everything is acknowledged");
        node.kill()?;
        let pristine = directory.path().join("pristine");
        copy(&setup.data_dir, &pristine)?;
        for each in CASES {
            copy(&pristine, &setup.data_dir)?;
            case(&setup, &acknowledged, each).with_context(|| each.0)?;
            println!("{}: good", each.0);
        }
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
