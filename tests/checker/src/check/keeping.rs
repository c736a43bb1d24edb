//! What was acknowledged or read is there in the end, for every final reader, unless retention explains it.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{NO_RECORD, Seen, View};
use crate::Anomaly;
use crate::history::{History, Session};

pub(super) fn judge(view: &View<'_>, found: &mut Vec<Anomaly>) {
    judge_acknowledgements(view, found);
    let mut read_whole = BTreeSet::new();
    // Which session an attempt was last seen in: one list for all of them, so that many short ones cost nothing.
    let mut seen_in = vec![usize::MAX; view.history.attempts.len()];
    for (number, session) in view.history.sessions.iter().enumerate().filter(|(_, session)| session.last) {
        let partition = session.partition;
        let records = session.reads.iter().filter_map(|read| read.record.as_ref().ok());
        let of_here = records.filter(|record| record.partition == partition);
        for attempt in of_here.filter_map(|&record| view.history.number(record)) {
            seen_in[attempt as usize] = number;
        }
        judge_lost(view, session, |attempt| seen_in[attempt as usize] == number, found);
        judge_vanished(view, session, found);
        if stops_short(session) {
            found.push(Anomaly::Unread { partition });
        }
        if session.from <= view.log_start(partition) {
            read_whole.insert(partition);
        }
    }
    let attempted: BTreeSet<u32> = view.history.attempts.iter().map(|attempt| attempt.record.partition).collect();
    found.extend(attempted.difference(&read_whole).map(|&partition| Anomaly::Unread { partition }));
    judge_committed_ends(view.history, found);
}

/// No offset is acknowledged to two records.
fn judge_acknowledgements(view: &View<'_>, found: &mut Vec<Anomaly>) {
    let acknowledged = |attempt: &crate::history::Attempt| {
        attempt.answer.outcome.offset().map(|offset| (attempt.record.partition, offset, attempt.record))
    };
    let mut places: Vec<_> = view.history.attempts.iter().filter_map(acknowledged).collect();
    places.sort();
    for pair in places.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        let told = format!("acknowledged at offset {}, and so was {}", pair[0].1, pair[0].2);
        found.push(Anomaly::Contradiction { record: pair[1].2, told });
    }
}

fn judge_lost(view: &View<'_>, session: &Session, there: impl Fn(u32) -> bool, found: &mut Vec<Anomaly>) {
    let reach = session.from.max(view.log_start(session.partition));
    for &number in view.attempts_of(session.partition) {
        let attempt = &view.history.attempts[number as usize];
        let outcome = attempt.answer.outcome;
        // Whose offset nobody knows may be below the log start, if there is one.
        let in_reach = outcome.offset().or(view.places[number as usize]).map_or(reach == 0, |offset| offset >= reach);
        if outcome.is_acknowledged() && in_reach && !there(number) {
            let (record, reader) = (attempt.record, session.reader.clone());
            found.push(Anomaly::Lost { record, offset: outcome.offset(), reader });
        }
    }
}

fn judge_vanished(view: &View<'_>, session: &Session, found: &mut Vec<Anomaly>) {
    let reach = session.from.max(view.log_start(session.partition));
    let mut there: Vec<u64> = session.reads.iter().map(|read| read.offset).collect();
    there.sort();
    let mut there = there.into_iter().peekable();
    let once_read = |seen: &&Seen| seen.number != NO_RECORD && seen.offset >= reach;
    for seen in view.seen_of(session.partition).iter().filter(once_read) {
        while there.next_if(|&offset| offset < seen.offset).is_some() {}
        if there.peek() != Some(&seen.offset) {
            let record = view.history.attempts[seen.number as usize].record;
            found.push(Anomaly::Vanished { record, offset: seen.offset, reader: session.reader.clone() });
        }
    }
}

/// Where a session stands after all that it got.
fn position(session: &Session) -> u64 {
    session.reads.iter().map(|read| read.offset.saturating_add(1)).max().unwrap_or(0).max(session.from)
}

fn told_end(session: &Session) -> Option<u64> {
    session.polls.iter().filter_map(|poll| poll.committed).max()
}

/// A session that says it read to the end, and did not.
fn stops_short(session: &Session) -> bool {
    let log_start = session.polls.iter().filter_map(|poll| poll.log_start).max().unwrap_or(0);
    told_end(session).is_some_and(|end| position(session).max(log_start) < end)
}

/// The committed end that final readers found is not below any that was told.
fn judge_committed_ends(history: &History, found: &mut Vec<Anomaly>) {
    let mut final_ends: BTreeMap<u32, u64> = BTreeMap::new();
    for session in history.sessions.iter().filter(|session| session.last) {
        // Its last word counts: an end that it was told before and that went back is what is looked for.
        let last_told = session.polls.iter().rev().find_map(|poll| poll.committed);
        let end = final_ends.entry(session.partition).or_default();
        *end = last_told.unwrap_or_else(|| position(session)).max(*end);
    }
    let mut told: BTreeMap<u32, (u64, &str)> = BTreeMap::new();
    for session in &history.sessions {
        if let Some(end) = told_end(session) {
            let highest = told.entry(session.partition).or_insert((end, &session.reader));
            if end > highest.0 {
                *highest = (end, &session.reader);
            }
        }
    }
    for (partition, (told, reader)) in told {
        if let Some(&end) = final_ends.get(&partition)
            && end < told
        {
            found.push(Anomaly::CommitForgotten { partition, told, reader: reader.to_owned(), end });
        }
    }
}
