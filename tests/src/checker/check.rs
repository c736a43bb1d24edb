//! The comparison itself: one pass over the reads, then one over the attempts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Anomaly, History, Outcome, RecordId, Report, Session};

/// What is stored, as all readers together saw it.
#[derive(Default)]
struct Seen {
    /// (partition, offset) → the record first seen there.
    at: BTreeMap<(u32, u64), RecordId>,
    /// Record → every offset where it was seen.
    offsets: HashMap<RecordId, BTreeSet<u64>>,
    /// What sessions that read to the end saw, per partition, by offset.
    last: BTreeMap<u32, BTreeMap<u64, RecordId>>,
}

pub(super) fn check(history: &History) -> Report {
    let mut anomalies: BTreeSet<Anomaly> = history.told_twice.iter().cloned().collect();
    let mut seen = Seen::default();
    for session in &history.sessions {
        read_session(history, session, &mut seen, &mut anomalies);
    }
    judge_attempts(history, &seen, &mut anomalies);
    judge_places(&seen, &mut anomalies);
    judge_order(&seen, &mut anomalies);
    summarise(history, &seen, anomalies)
}

fn read_session(history: &History, session: &Session, seen: &mut Seen, anomalies: &mut BTreeSet<Anomaly>) {
    let partition = session.partition;
    let mut expected = session.from;
    if session.last {
        seen.last.entry(partition).or_default();
    }
    for read in &session.reads {
        let (offset, reader) = (read.offset, session.reader.clone());
        if offset > expected {
            anomalies.insert(Anomaly::Gap { reader, partition, expected, found: offset });
        } else if offset < expected {
            anomalies.insert(Anomaly::Backwards { reader, partition, expected, found: offset });
        }
        expected = offset + 1;
        let record = match &read.record {
            Ok(record) => *record,
            Err(damage) => {
                anomalies.insert(Anomaly::Corrupted { partition, offset, damage: damage.clone() });
                continue;
            }
        };
        let sent = history.attempts.get(&record).is_some_and(|outcome| *outcome != Outcome::Failed);
        if !sent || record.partition != partition {
            anomalies.insert(Anomaly::Phantom { record, partition, offset });
            continue;
        }
        let first = *seen.at.entry((partition, offset)).or_insert(record);
        if first != record {
            anomalies.insert(Anomaly::Rewritten { partition, offset, first, then: record });
        }
        seen.offsets.entry(record).or_default().insert(offset);
        if session.last {
            seen.last.entry(partition).or_default().insert(offset, record);
        }
    }
}

/// Every acknowledged record is where it was acknowledged to be.
fn judge_attempts(history: &History, seen: &Seen, anomalies: &mut BTreeSet<Anomaly>) {
    let last: BTreeSet<RecordId> = seen.last.values().flat_map(BTreeMap::values).copied().collect();
    let mut acknowledged_at: HashMap<(u32, u64), RecordId> = HashMap::new();
    for (&record, outcome) in &history.attempts {
        if !seen.last.contains_key(&record.partition) {
            anomalies.insert(Anomaly::Unread { partition: record.partition });
            continue;
        }
        let Some(offset) = outcome.offset() else { continue };
        if let Some(offset) = offset
            && let Some(other) = acknowledged_at.insert((record.partition, offset), record)
        {
            let told = format!("acknowledged at offset {offset}, and so was {other}");
            anomalies.insert(Anomaly::Contradiction { record: record.max(other), told });
        }
        let found = seen.offsets.get(&record);
        if !last.contains(&record) {
            anomalies.insert(Anomaly::Lost { record, offset });
        } else if let Some(offset) = offset
            && let Some(&found) = found.and_then(|offsets| offsets.iter().find(|&&found| found != offset))
        {
            anomalies.insert(Anomaly::Misplaced { record, acknowledged: offset, found });
        }
    }
}

/// No record has two places, and what was read once is still there at the end.
fn judge_places(seen: &Seen, anomalies: &mut BTreeSet<Anomaly>) {
    for (&record, offsets) in &seen.offsets {
        if offsets.len() > 1 {
            anomalies.insert(Anomaly::Duplicate { record, offsets: offsets.iter().copied().collect() });
        }
    }
    for (&(partition, offset), &record) in &seen.at {
        if seen.last.get(&partition).is_some_and(|last| !last.contains_key(&offset)) {
            anomalies.insert(Anomaly::Vanished { record, offset });
        }
    }
}

/// Per producer and partition, sequences go up with offsets.
fn judge_order(seen: &Seen, anomalies: &mut BTreeSet<Anomaly>) {
    let mut newest: HashMap<(u32, u32), RecordId> = HashMap::new();
    for (&(partition, _), &record) in &seen.at {
        let newest = newest.entry((record.producer, partition)).or_insert(record);
        if record.sequence < newest.sequence {
            anomalies.insert(Anomaly::Reordered { record, after: *newest });
        } else {
            *newest = record;
        }
    }
}

fn summarise(history: &History, seen: &Seen, anomalies: BTreeSet<Anomaly>) -> Report {
    let mut report = Report { anomalies: anomalies.into_iter().collect(), ..Report::default() };
    report.attempted = history.attempts.len();
    report.reads = history.sessions.iter().map(|session| session.reads.len()).sum();
    for (record, outcome) in &history.attempts {
        match outcome {
            Outcome::Acknowledged(_) | Outcome::Stored => report.acknowledged += 1,
            Outcome::Failed => report.failed += 1,
            Outcome::Unknown if seen.offsets.contains_key(record) => report.unknown_read += 1,
            Outcome::Unknown => report.unknown_unread += 1,
        }
    }
    report
}
