//! What members hold in the end: each all that it must, and all the same.

use std::collections::BTreeMap;

use crate::history::{History, LogDump, Member, RecordDump};
use crate::{Anomaly, Content, Log};

/// One member's copy of a log.
struct Copy {
    member: Member,
    /// What it must have: from the first, up to before the end.
    first: u64,
    end: u64,
    /// By place.
    held: Vec<(u64, Content)>,
}

pub(super) fn judge(history: &History, found: &mut Vec<Anomaly>) {
    let mut logs: BTreeMap<Log, Vec<Copy>> = BTreeMap::new();
    for dump in &history.logs {
        logs.entry(Log::Range(dump.range)).or_default().push(copy_of_log(dump));
    }
    for dump in &history.records {
        logs.entry(Log::Partition(dump.partition)).or_default().push(copy_of_records(dump));
    }
    for (log, copies) in logs {
        judge_log(log, &copies, found);
    }
}

fn copy_of_log(dump: &LogDump) -> Copy {
    let content =
        |entry: &crate::history::LogEntry| (entry.index, Content::Entry { epoch: entry.epoch, hash: entry.hash });
    let held = dump.entries.iter().map(content).collect();
    Copy::new(dump.member, dump.first, dump.committed.saturating_add(1), held)
}

fn copy_of_records(dump: &RecordDump) -> Copy {
    let content = |(offset, record): &(u64, Result<crate::RecordId, crate::Damage>)| {
        let content = match record {
            Ok(record) => Content::Record(*record),
            Err(damage) => Content::Damaged(damage.clone()),
        };
        (*offset, content)
    };
    Copy::new(dump.member, dump.first, dump.end, dump.records.iter().map(content).collect())
}

impl Copy {
    fn new(member: Member, first: u64, end: u64, mut held: Vec<(u64, Content)>) -> Self {
        held.retain(|(at, _)| (first..end).contains(at));
        held.sort();
        Self { member, first, end, held }
    }

    /// The first place at which it has nothing, though it must.
    fn missing(&self) -> Option<u64> {
        let mut expected = self.first;
        for &(at, _) in &self.held {
            if at > expected {
                return Some(expected);
            }
            expected = at.saturating_add(1);
        }
        (expected < self.end).then_some(expected)
    }

    fn at(&self, place: u64) -> Content {
        let at = self.held.partition_point(|(at, _)| *at < place);
        let there = self.held.get(at).filter(|(at, _)| *at == place);
        there.map_or(Content::Nothing, |(_, content)| content.clone())
    }
}

fn judge_log(log: Log, copies: &[Copy], found: &mut Vec<Anomaly>) {
    let mut all: Vec<(u64, usize, &Content)> = Vec::new();
    for (number, copy) in copies.iter().enumerate() {
        all.extend(copy.held.iter().map(|(at, content)| (*at, number, content)));
    }
    all.sort_by_key(|&(at, number, _)| (at, number));
    // After the first difference all running hashes differ: a copy is told of once.
    let mut differs: Vec<Option<(u64, usize)>> = vec![None; copies.len()];
    for place in all.chunk_by(|a, b| a.0 == b.0) {
        let (at, reference, content) = place[0];
        for &(_, number, other) in &place[1..] {
            if other != content && differs[number].is_none() {
                differs[number] = Some((at, reference));
            }
        }
    }
    for (number, copy) in copies.iter().enumerate() {
        let missing = copy.missing().filter(|missing| differs[number].is_none_or(|(at, _)| *missing < at));
        if let Some(at) = missing {
            let has_it = |other: &usize| copies[*other].at(at) != Content::Nothing;
            differs[number] = Some((at, (0..copies.len()).find(has_it).unwrap_or(number)));
        }
        if let Some((at, other)) = differs[number] {
            let holders = [&copies[other], copy].map(|copy| (copy.member, copy.at(at)));
            found.push(Anomaly::Diverged { log, at, holders });
        }
    }
}
