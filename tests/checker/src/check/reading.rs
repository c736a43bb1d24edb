//! What readers got: whole records that were sent, offset after offset, one record at one place.

use super::view::{NO_RECORD, Seen, View};
use crate::Anomaly;
use crate::history::{History, Outcome, Read, Session};

/// Every session by itself, in the order in which its records came; returns what was seen.
pub(super) fn walk(history: &History, found: &mut Vec<Anomaly>) -> Vec<Seen> {
    let mut seen = Vec::with_capacity(history.sessions.iter().map(|session| session.reads.len()).sum());
    for (number, session) in (0u32..).zip(&history.sessions) {
        let mut log_start = history.log_starts.get(&session.partition).copied().unwrap_or(0);
        let (mut expected, mut polls_looked_at) = (session.from, 0);
        for read in &session.reads {
            while polls_looked_at <= read.poll as usize {
                log_start = log_start.max(session.polls[polls_looked_at].log_start.unwrap_or(0));
                polls_looked_at += 1;
            }
            judge_step(session, expected, log_start, read.offset, found);
            expected = read.offset.saturating_add(1);
            seen.push(Seen {
                partition: session.partition,
                offset: read.offset,
                number: judge_record(history, session, read, found),
                session: number,
                at: session.polls[read.poll as usize].returned,
            });
        }
    }
    seen
}

fn judge_step(session: &Session, expected: u64, log_start: u64, offset: u64, found: &mut Vec<Anomaly>) {
    let partition = session.partition;
    if offset < expected {
        found.push(Anomaly::Backwards { reader: session.reader.clone(), partition, expected, found: offset });
    } else if offset > expected.max(log_start) {
        found.push(Anomaly::Gap { reader: session.reader.clone(), partition, expected, found: offset });
    }
}

/// The attempt of a record that may be there.
fn judge_record(history: &History, session: &Session, read: &Read, found: &mut Vec<Anomaly>) -> u32 {
    let (partition, offset) = (session.partition, read.offset);
    let record = match &read.record {
        Ok(record) => *record,
        Err(damage) => {
            let (damage, reader) = (damage.clone(), session.reader.clone());
            found.push(Anomaly::Corrupted { partition, offset, damage, reader });
            return NO_RECORD;
        }
    };
    let sent = |&number: &u32| history.attempts[number as usize].answer.outcome != Outcome::Failed;
    match history.number(record).filter(sent) {
        Some(number) if record.partition == partition => number,
        _ => {
            found.push(Anomaly::Phantom { record, partition, offset });
            NO_RECORD
        }
    }
}

/// No offset has two records, and no record two offsets, and each is where it was acknowledged to be.
pub(super) fn judge_places(view: &View<'_>, found: &mut Vec<Anomaly>) {
    let valid = view.seen.iter().filter(|seen| seen.number != NO_RECORD);
    let mut first: Option<&Seen> = None;
    for seen in valid {
        match first {
            Some(first) if (first.partition, first.offset) == (seen.partition, seen.offset) => {
                if first.number != seen.number {
                    found.push(rewritten(view, first.number, seen));
                }
            }
            _ => first = Some(seen),
        }
    }
    for places in view.further_places.chunk_by(|a, b| a.0 == b.0) {
        let number = places[0].0 as usize;
        let offsets = view.places[number].into_iter().chain(places.iter().map(|&(_, offset)| offset)).collect();
        found.push(Anomaly::Duplicate { record: view.history.attempts[number].record, offsets });
    }
    for (number, attempt) in (0u32..).zip(&view.history.attempts) {
        if let Some(offset) = attempt.answer.outcome.offset() {
            judge_acknowledged_place(view, number, offset, found);
        }
    }
}

fn judge_acknowledged_place(view: &View<'_>, number: u32, offset: u64, found: &mut Vec<Anomaly>) {
    let record = view.history.attempts[number as usize].record;
    if let Some(place) = view.places[number as usize] {
        if place != offset && view.further_places.binary_search(&(number, offset)).is_err() {
            found.push(Anomaly::Misplaced { record, acknowledged: offset, found: place });
        }
        return;
    }
    let place = (record.partition, offset);
    let at = view.seen.partition_point(|seen| (seen.partition, seen.offset) < place);
    let there = view.seen[at..].iter().take_while(|seen| (seen.partition, seen.offset) == place);
    if let Some(other) = there.filter(|seen| seen.number != NO_RECORD).last() {
        found.push(rewritten(view, number, other));
    }
}

fn rewritten(view: &View<'_>, first: u32, then: &Seen) -> Anomaly {
    Anomaly::Rewritten {
        partition: then.partition,
        offset: then.offset,
        first: view.history.attempts[first as usize].record,
        then: view.history.attempts[then.number as usize].record,
        reader: view.history.sessions[then.session as usize].reader.clone(),
    }
}
