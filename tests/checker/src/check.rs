//! The comparison: what all readers saw is laid out once ([`view`]), then each kind of promise is judged by itself.

use crate::history::{History, Outcome};
use crate::report::Report;

mod keeping;
mod members;
mod order;
mod precedence;
mod reading;
mod replicas;
mod view;

use view::View;

pub(crate) fn check(history: &History) -> Report {
    let mut found = history.told_twice.clone();
    let reads = reading::walk(history, &mut found);
    let view = View::new(history, reads);
    reading::judge_places(&view, &mut found);
    keeping::judge(&view, &mut found);
    order::judge(&view, &mut found);
    members::judge(history, &mut found);
    replicas::judge(history, &mut found);
    found.sort();
    found.dedup();
    let mut report = Report { anomalies: found, attempted: history.attempts.len(), ..Report::default() };
    report.reads = history.sessions.iter().map(|session| session.reads.len()).sum();
    for (attempt, place) in history.attempts.iter().zip(&view.places) {
        match attempt.answer.outcome {
            Outcome::Acknowledged(_) | Outcome::Stored => report.acknowledged += 1,
            Outcome::Failed => report.failed += 1,
            Outcome::Unknown if place.is_some() => report.unknown_read += 1,
            Outcome::Unknown => report.unknown_unread += 1,
        }
    }
    report
}
