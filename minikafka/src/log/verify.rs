//! `minikafka log verify`: every checksum below a directory, and what each damage means.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use minikafka_core::RangeKey;
use minikafka_storage::inspect::{
    self, DataDir, Finding, Place, RangeDir, RangeVerdict, Tally, read_promises, verify_range, verify_segment,
};
use serde::Serialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Output};
use crate::quantity;

/// With a broker at work, a flush on its way looks like damage: what is still there when looked at again is.
const LOOKS: usize = 3;

/// Options of `minikafka log verify`.
#[derive(Debug, Args)]
pub struct VerifyCommand {
    /// A data directory, a ring's or a range's directory, a segment file or a promise file.
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// Also list every partition found, with its records and offsets.
    #[arg(long)]
    partition_table: bool,
}

/// Everything that was verified.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Nothing is damaged.
    ok: bool,
    /// A broker had the directory locked: its tail may have moved meanwhile.
    running: bool,
    ranges: u64,
    segments: u64,
    sealed_segments: u64,
    file_bytes: u64,
    /// Of them, given back to the file system: dead entries.
    freed_bytes: u64,
    entries: u64,
    control_entries: u64,
    records: u64,
    entry_bytes: u64,
    partitions: u64,
    promises: u64,
    pool_files: u64,
    pool_bytes: u64,
    /// Never acknowledged; the next start drops them.
    torn: Vec<TornShown>,
    damage: Vec<DamageShown>,
    /// Damage beyond what is listed.
    damage_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_table: Option<Vec<PartitionShown>>,
}

#[derive(Debug, Serialize)]
struct TornShown {
    range: PathBuf,
    bytes: u64,
    after_index: u64,
    file: Option<PathBuf>,
    position: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DamageShown {
    file: PathBuf,
    position: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
    kind: &'static str,
    /// Whether something is lost on this disk.
    loss: bool,
    what: String,
    advice: &'static str,
    #[serde(skip)]
    line: String,
}

#[derive(Debug, Serialize)]
struct PartitionShown {
    range: String,
    topic: String,
    partition: u32,
    entries: u64,
    records: u64,
    bytes: u64,
    first_offset: u64,
    next_offset: u64,
}

/// Verifies what was named.
pub fn run(command: &VerifyCommand, output: &mut Output) -> Outcome {
    let place = Place::of(&command.path).map_err(|error| super::dump::path_failure(&command.path, &error))?;
    let mut summary = Summary { partition_table: command.partition_table.then(Vec::new), ..Summary::default() };
    match &place {
        Place::Nodes(nodes) => {
            for node in nodes {
                let dir = DataDir::read(node).map_err(|error| Failure::io(node.display(), &error))?;
                summary.take_node(&dir);
            }
        }
        Place::Ranges(ranges) => ranges.iter().for_each(|range| summary.take_range(range, None, false)),
        Place::Segment(path) => {
            let verdict = verify_segment(path, Some(inspect::is_range_state));
            summary.take_verdict(&path.display().to_string(), &verdict);
        }
        Place::Promises(path) => {
            let (table, findings) = read_promises(path);
            summary.promises += table.promises.len() as u64;
            summary.take_findings(&findings);
        }
    }
    summary.ok = summary.damage.is_empty();
    output.show(&summary)?;
    if summary.ok {
        return Ok(());
    }
    let count = summary.damage.len() as u64 + summary.damage_left_out;
    let message = format!("{}: {count} damaged; each is listed with what to do", command.path.display());
    Err(Failure::new(Exit::Damaged, message))
}

impl Summary {
    fn take_node(&mut self, dir: &DataDir) {
        self.running |= dir.is_running;
        self.promises += dir.promises.promises.len() as u64;
        self.pool_files += dir.pool.files;
        self.pool_bytes += dir.pool.bytes;
        self.take_findings(&dir.findings);
        for range in &dir.ranges {
            self.take_range(range, range.range, dir.is_running);
        }
    }

    /// `owner`: the range that it must be; a directory by itself may be a copy, whose path says nothing.
    fn take_range(&mut self, range: &RangeDir, owner: Option<RangeKey>, is_running: bool) {
        self.ranges += 1;
        let look = || verify_range(&range.path, owner, Some(inspect::is_range_state));
        let mut verdict = look();
        for _ in 1..LOOKS {
            if !is_running || verdict.findings.count() == 0 {
                break;
            }
            let again = look();
            verdict.findings.list.retain(|finding| again.findings.list.contains(finding));
        }
        let name = range.range.map_or_else(|| range.path.display().to_string(), |key| key.to_string());
        self.take_verdict(&name, &verdict);
    }

    fn take_verdict(&mut self, range: &str, verdict: &RangeVerdict) {
        self.segments += verdict.segments;
        self.sealed_segments += verdict.sealed;
        self.file_bytes += verdict.file_bytes;
        self.freed_bytes += verdict.freed_bytes;
        self.entries += verdict.tally.entries;
        self.control_entries += verdict.tally.control_entries;
        self.records += verdict.tally.records;
        self.entry_bytes += verdict.tally.bytes;
        self.partitions += verdict.tally.partitions.len() as u64;
        self.damage_left_out += verdict.findings.left_out;
        self.take_findings(&verdict.findings.list);
        if let Some(torn) = &verdict.torn {
            let (file, position) = torn.place.clone().unzip();
            let (range, after_index) = (verdict.path.clone(), verdict.end.index.0);
            self.torn.push(TornShown { range, bytes: torn.bytes, after_index, file, position });
        }
        if let Some(table) = &mut self.partition_table {
            table.extend(partitions(range, &verdict.tally));
        }
    }

    fn take_findings(&mut self, findings: &[Finding]) {
        self.damage.extend(findings.iter().map(|finding| DamageShown {
            file: finding.path.clone(),
            position: finding.position,
            first_index: finding.entries.map(|(first, _)| first.0),
            last_index: finding.entries.map(|(_, last)| last.0),
            kind: finding.fault.name(),
            loss: finding.is_loss(),
            what: finding.fault.to_string(),
            advice: finding.advice(),
            line: finding.to_string(),
        }));
    }
}

fn partitions<'a>(range: &'a str, tally: &'a Tally) -> impl Iterator<Item = PartitionShown> + use<'a> {
    tally.partitions.iter().map(|(key, found)| PartitionShown {
        range: range.to_owned(),
        topic: format!("{:016x}", key.topic.0),
        partition: key.partition.0,
        entries: found.entries,
        records: found.records,
        bytes: found.bytes,
        first_offset: found.first_offset.0,
        next_offset: found.next_offset.0,
    })
}

impl fmt::Display for TornShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path, position| format!("{}: byte {position}", path.display());
        let place = match (&self.file, self.position) {
            (Some(file), Some(position)) => shown(file, position),
            _ => self.range.display().to_string(),
        };
        write!(
            f,
            "torn: {place}: {} bytes behind entry {} were never acknowledged; the broker drops them when it starts",
            self.bytes, self.after_index
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = self.partition_table.as_ref().filter(|table| !table.is_empty()) {
            let head = ["range", "topic", "partition", "entries", "records", "bytes", "first offset", "next offset"];
            let rows: Vec<_> = table.iter().map(PartitionShown::row).collect();
            writeln!(f, "{}\n", output::table(&head, &rows))?;
        }
        for torn in &self.torn {
            writeln!(f, "{torn}")?;
        }
        for damage in &self.damage {
            writeln!(f, "damaged: {}", damage.line)?;
        }
        if self.running {
            writeln!(f, "a broker is running here: what it wrote meanwhile may be missing from the figures")?;
        }
        writeln!(
            f,
            "{} ranges, {} segments ({} sealed, {}, {} freed), {} promises, {} pool files ({})",
            self.ranges,
            self.segments,
            self.sealed_segments,
            quantity::show_bytes(self.file_bytes),
            quantity::show_bytes(self.freed_bytes),
            self.promises,
            self.pool_files,
            quantity::show_bytes(self.pool_bytes),
        )?;
        writeln!(
            f,
            "{} entries ({} control), {} records of {} partitions, {} of entries",
            self.entries,
            self.control_entries,
            self.records,
            self.partitions,
            quantity::show_bytes(self.entry_bytes),
        )?;
        match self.damage.len() as u64 + self.damage_left_out {
            0 => write!(f, "no damage"),
            count => write!(f, "{count} damaged, {} of them listed", self.damage.len()),
        }
    }
}

impl PartitionShown {
    fn row(&self) -> Vec<String> {
        let numbers = [self.entries, self.records, self.bytes, self.first_offset, self.next_offset];
        let names = [self.range.clone(), self.topic.clone(), self.partition.to_string()];
        names.into_iter().chain(numbers.map(|number| number.to_string())).collect()
    }
}
