//! What members said of themselves: epochs and committed ends that only grow, and one owner per epoch.

use super::precedence::{Span, overtaken};
use crate::Anomaly;
use crate::history::{History, Member, Owner, Poll, Session, Time};
use crate::payload::RecordId;

/// An answer by a known member, and where it stands in its reader's order.
#[derive(Clone, Copy)]
struct Told<'h> {
    session: &'h Session,
    /// Sessions, then polls, in the order in which they were written down.
    order: (usize, usize),
    poll: &'h Poll,
    member: Member,
}

/// Something that was acknowledged by a known owner.
#[derive(Clone, Copy)]
struct Owned {
    owner: Owner,
    invoked: Time,
    known: Time,
    record: Option<RecordId>,
}

pub(super) fn judge(history: &History, found: &mut Vec<Anomaly>) {
    let mut told = Vec::new();
    for (number, session) in history.sessions.iter().enumerate() {
        for (at, poll) in session.polls.iter().enumerate() {
            told.extend(poll.member.map(|member| Told { session, order: (number, at), poll, member }));
        }
    }
    judge_epochs(&mut told, found);
    judge_commits(&mut told, found);
    judge_owners(history, found);
}

/// Per reader, partition and node.
fn judge_epochs(told: &mut [Told<'_>], found: &mut Vec<Anomaly>) {
    let group = |told: &Told<'_>| (told.session.partition, told.member.node);
    told.sort_by(|a, b| {
        let reader = || a.session.reader.cmp(&b.session.reader);
        group(a).cmp(&group(b)).then_with(reader).then_with(|| a.order.cmp(&b.order))
    });
    for answers in told.chunk_by(|a, b| group(a) == group(b) && a.session.reader == b.session.reader) {
        let mut before = 0;
        for told in answers {
            let Some(then) = told.poll.epoch else { continue };
            if then < before {
                found.push(Anomaly::ReadEpochBack {
                    reader: told.session.reader.clone(),
                    partition: told.session.partition,
                    member: told.member,
                    before,
                    then,
                    at: told.poll.returned,
                });
            }
            before = before.max(then);
        }
    }
}

/// Per partition and member in one life: in the order of each session, and over all of them by time.
fn judge_commits(told: &mut [Told<'_>], found: &mut Vec<Anomaly>) {
    told.sort_by_key(|told| (told.session.partition, told.member, told.order));
    let mut went_back = |told: &Told<'_>, before: u64, then: u64| {
        let (partition, member, at) = (told.session.partition, told.member, told.poll.returned);
        found.push(Anomaly::CommitBack { partition, member, before, then, at });
    };
    for answers in told.chunk_by(|a, b| (a.session.partition, a.member) == (b.session.partition, b.member)) {
        for in_session in answers.chunk_by(|a, b| a.order.0 == b.order.0) {
            let mut before = 0;
            for told in in_session {
                let Some(then) = told.poll.committed else { continue };
                if then < before {
                    went_back(told, before, then);
                }
                before = before.max(then);
            }
        }
        let span = |(item, told): (u32, &Told<'_>)| {
            let (invoked, known) = (told.poll.invoked, told.poll.returned);
            told.poll.committed.map(|value| Span { invoked, known, value, item })
        };
        let spans: Vec<Span> = (0u32..).zip(answers).filter_map(span).collect();
        overtaken(&spans, |later, earlier| {
            let [later_told, earlier_told] = [later, earlier].map(|span| &answers[span.item as usize]);
            // Within one session it is told above.
            if later_told.order.0 != earlier_told.order.0 {
                went_back(later_told, earlier.value, later.value);
            }
        });
    }
}

fn judge_owners(history: &History, found: &mut Vec<Anomaly>) {
    let answered = history.attempts.iter().filter(|attempt| attempt.answer.outcome.is_acknowledged());
    let mut owned: Vec<Owned> = answered
        .filter_map(|attempt| {
            let (invoked, known, record) = (attempt.invoked, attempt.answer.returned, Some(attempt.record));
            attempt.answer.owner.map(|owner| Owned { owner, invoked, known, record })
        })
        .collect();
    let others = history.owners.iter();
    owned.extend(others.map(|&(owner, invoked, known)| Owned { owner, invoked, known, record: None }));
    owned.sort_by_key(|owned| owned.owner);
    for pair in owned.windows(2) {
        let [one, other] = [pair[0].owner, pair[1].owner];
        if (one.range, one.epoch) == (other.range, other.epoch) && one.head != other.head {
            found.push(Anomaly::TwoOwners { range: one.range, epoch: one.epoch, heads: [one.head, other.head] });
        }
    }
    for of_range in owned.chunk_by(|a, b| a.owner.range == b.owner.range) {
        let span = |(item, owned): (u32, &Owned)| Span {
            invoked: owned.invoked,
            known: owned.known,
            value: owned.owner.epoch,
            item,
        };
        let spans: Vec<Span> = (0u32..).zip(of_range).map(span).collect();
        overtaken(&spans, |stale, later| found.push(stale_owner(of_range, stale, later)));
    }
}

fn stale_owner(owned: &[Owned], stale: &Span, later: &Span) -> Anomaly {
    let [stale, later] = [stale, later].map(|span| &owned[span.item as usize]);
    match (stale.record, later.record) {
        (Some(record), Some(earlier)) if record.producer == earlier.producer => {
            Anomaly::ProduceEpochBack { record, owner: stale.owner, before: later.owner }
        }
        _ => {
            let (owner, invoked) = (stale.owner, stale.invoked);
            Anomaly::StaleOwner { owner, invoked, later: later.owner, known_since: later.known }
        }
    }
}
