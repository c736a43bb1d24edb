//! Judges what clients saw: nothing acknowledged is lost, nothing comes twice, out of order, damaged or from nowhere, and
//! no two members of a chain tell different stories.
//!
//! Clients write down what they attempt, what became of it, and everything they read; [`History::check`] then compares.
//! A record carries its own identity and checksum ([`payload`]), so the checker needs no other word than its bytes. The
//! simulator, the crash tests and the chaos suite judge by this one checker.
//!
//! # What a history may hold
//! Attempts and answers, sessions of readers and what they got; and where somebody knows it: times, the member that
//! answered, epochs, committed ends, log starts, who owned a range, and what each replica holds in the end. What is not
//! told is not judged. Times are ticks of any clock that all clients share; A came before B only if A had ended at a
//! smaller tick than that at which B began, so that equal ticks, and times that were never told, say nothing.
//!
//! # What is judged
//! For idempotent producers, per partition (each variant of [`Anomaly`] says it in full):
//! - *Nothing is lost*: what was acknowledged, and what any reader got, is in every final read that reaches so far back.
//! - *Nothing is invented*: every byte read was sent, to that partition, and not refused for good.
//! - *Once*: no record has two offsets and no offset two records; of unknown outcome means once or not at all.
//! - *In order*: a producer's records are in the order in which it sent them, and what was known to be stored
//!   (acknowledged, or read) before another record was sent is before it.
//! - *Reading*: offsets go up by one from the first asked for, but for what retention took away.
//! - *Members*: the epoch that a reader or a producer is told, and the committed end that a member tells in one life,
//!   never go back; what was once told to be committed is not forgotten; an epoch has one owner, and none
//!   acknowledges what was sent after a later one acknowledged; replicas agree on what is committed.
//!
//! # What is not
//! Order between partitions: nothing is promised there. Liveness: a history in which nothing happened is right, so
//! whoever uses this asserts on the counts of the [`Report`]. Records below a log start that any answer told: they may be
//! gone (whether the log start itself was right is not judged). Whether a final read was complete is its caller's word;
//! only one that stops short of the committed end it was told is found out. Offsets are dense: a broker that leaves
//! holes by design is not judged by this.
//!
//! # Cost
//! O(n log n) in what the history holds, most of it sorts of what is nearly sorted; no map with a random order and no
//! clock, so that one history always gives one report. Values are decoded when they are read and not kept.

mod anomaly;
mod check;
mod history;
pub mod payload;
mod report;

#[cfg(test)]
mod tests;

pub use anomaly::{Anomaly, Content, Log};
pub use history::{
    Answer, History, LogDump, LogEntry, Member, Outcome, Owner, Poll, RecordDump, SessionId, TIME_UNTOLD, Time,
};
pub use payload::{Damage, RecordId};
pub use report::Report;
