//! What is written down while clients run: attempts and answers, polls and records, and what members are known to hold.
//!
//! It only records. The one thing it refuses are a test's own mistakes (one record attempted twice, an answer to none).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::payload::{self, Damage, RecordId};
use crate::report::Report;
use crate::{Anomaly, check};

/// A tick of whatever clock all clients of a history share.
pub type Time = u64;

/// When something returned that nobody looked at the clock for: before nothing.
pub const TIME_UNTOLD: Time = Time::MAX;

/// A member of a chain in one life: a restart is another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its node.
    pub node: u32,
    /// Its incarnation, or anything else that a restart changes.
    pub life: u64,
}

/// Who answered for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The range, by a number of its own in this history.
    pub range: u32,
    /// The epoch in which it acknowledged.
    pub epoch: u64,
    /// The head that acknowledged.
    pub head: Member,
}

/// What became of a record, as its producer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Sent, and nothing certain heard: the process may have died on either side.
    Unknown,
    /// Acknowledged at this offset.
    Acknowledged(u64),
    /// Acknowledged without an offset: stored before, and the broker has forgotten where.
    Stored,
    /// Refused for good: it is certain that it was not stored.
    Failed,
}

/// What a producer was told about a record, and when, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// When the producer had the answer; [`TIME_UNTOLD`] if nobody looked.
    pub returned: Time,
    /// Who acknowledged, if that is known.
    pub owner: Option<Owner>,
}

/// The answer to one fetch, but for its records, which follow by [`History::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// When it was asked; 0 if nobody looked.
    pub invoked: Time,
    /// When the answer was there; [`TIME_UNTOLD`] if nobody looked.
    pub returned: Time,
    /// Who answered, if that is known.
    pub member: Option<Member>,
    /// The epoch in which it answered. Without a member neither this nor that the committed end went back is judged.
    pub epoch: Option<u64>,
    /// The committed end of the partition that it told: one above the last offset that may be read.
    pub committed: Option<u64>,
    /// The first offset that is still there, as it told.
    pub log_start: Option<u64>,
}

/// An entry of a range log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// The epoch that its header carries.
    pub epoch: u64,
    /// The running hash through it.
    pub hash: u64,
}

/// The log of a range as one member has it in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDump {
    /// Which range.
    pub range: u32,
    /// Who has it.
    pub member: Member,
    /// The first index that this member must have.
    pub first: u64,
    /// The last index that this member must have and in which all must agree: for a member of the active chain all that
    /// is committed, for any other what it knew to be committed.
    pub committed: u64,
    /// What it has, by index.
    pub entries: Vec<LogEntry>,
}

/// The records of a partition as one member has them in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordDump {
    /// Which partition.
    pub partition: u32,
    /// Who has it.
    pub member: Member,
    /// The first offset that this member must have.
    pub first: u64,
    /// The committed end of this member: all must agree on the offsets below it.
    pub end: u64,
    /// What it has, by offset.
    pub records: Vec<(u64, Result<RecordId, Damage>)>,
}

/// Names a session of a [`History`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(usize);

/// Everything clients did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub(crate) attempts: Vec<Attempt>,
    /// Where a record is in `attempts`.
    numbers: HashMap<RecordId, u32, BuildHasherDefault<RecordHasher>>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) told_twice: Vec<Anomaly>,
    /// Acknowledgements by others than the clients of this history: (who, invoked, returned).
    pub(crate) owners: Vec<(Owner, Time, Time)>,
    pub(crate) log_starts: BTreeMap<u32, u64>,
    pub(crate) logs: Vec<LogDump>,
    pub(crate) records: Vec<RecordDump>,
}

/// A record that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub record: RecordId,
    pub invoked: Time,
    pub answer: Answer,
}

/// One reader's session on one partition: everything it got, in the order in which it came.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub reader: String,
    pub partition: u32,
    pub from: u64,
    pub last: bool,
    pub polls: Vec<Poll>,
    pub reads: Vec<Read>,
}

/// A record that a reader got.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub offset: u64,
    /// Which of its session's polls brought it.
    pub poll: u32,
    pub record: Result<RecordId, Damage>,
}

impl History {
    /// A record is about to be sent. Each identity is attempted once; retries are the producer's own business.
    ///
    /// # Panics
    /// When that record was attempted before.
    pub fn attempt(&mut self, record: RecordId) {
        self.attempt_at(record, 0);
    }

    /// A record is about to be sent for the first time, at this tick.
    ///
    /// # Panics
    /// When that record was attempted before.
    pub fn attempt_at(&mut self, record: RecordId, invoked: Time) {
        let number = u32::try_from(self.attempts.len()).expect("a history has less than 2^32 attempts");
        if self.numbers.insert(record, number).is_some() {
            panic!("{record} is attempted twice: the test must number its records");
        }
        let answer = Answer { outcome: Outcome::Unknown, returned: TIME_UNTOLD, owner: None };
        self.attempts.push(Attempt { record, invoked, answer });
    }

    /// The producer was told what became of a record. Nothing need be said of an outcome that stays unknown.
    ///
    /// # Panics
    /// When that record was never attempted.
    pub fn answered(&mut self, record: RecordId, answer: Answer) {
        let Some(number) = self.number(record) else { panic!("{record} was never attempted") };
        let had = &mut self.attempts[number as usize].answer;
        if had.outcome != Outcome::Unknown && had.outcome != answer.outcome {
            let told = format!("{:?}, then {:?}", had.outcome, answer.outcome);
            self.told_twice.push(Anomaly::Contradiction { record, told });
        }
        *had = answer;
    }

    /// The broker acknowledged a record.
    pub fn acknowledged(&mut self, record: RecordId, offset: u64) {
        self.answered(record, Answer::untimed(Outcome::Acknowledged(offset)));
    }

    /// The broker acknowledged a record as stored before, at an offset that it does not remember.
    pub fn stored(&mut self, record: RecordId) {
        self.answered(record, Answer::untimed(Outcome::Stored));
    }

    /// A record was refused for good. Never for a timeout or a lost connection: those leave it unknown.
    pub fn failed(&mut self, record: RecordId) {
        self.answered(record, Answer::untimed(Outcome::Failed));
    }

    /// A reader starts at an offset of a partition. Sessions of one reader on one partition follow each other; readers
    /// that go on side by side have different names.
    pub fn session(&mut self, reader: impl Into<String>, partition: u32, from: u64) -> SessionId {
        let (polls, reads) = (Vec::new(), Vec::new());
        self.sessions.push(Session { reader: reader.into(), partition, from, last: false, polls, reads });
        SessionId(self.sessions.len() - 1)
    }

    /// A reader got an answer; the records in it, if any, are told next.
    pub fn poll(&mut self, session: SessionId, poll: Poll) {
        self.sessions[session.0].polls.push(poll);
    }

    /// A reader got a record: its key and value as they came.
    pub fn read(&mut self, session: SessionId, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.read_record(session, offset, payload::decode(key, value));
    }

    /// A reader got a record that is decoded already.
    pub fn read_record(&mut self, session: SessionId, offset: u64, record: Result<RecordId, Damage>) {
        let session = &mut self.sessions[session.0];
        if session.polls.is_empty() {
            session.polls.push(Poll::default());
        }
        let poll = u32::try_from(session.polls.len() - 1).expect("a session has less than 2^32 polls");
        session.reads.push(Read { offset, poll, record });
    }

    /// This session has read to the end, and every producer had stopped before that end was asked for.
    pub fn finished(&mut self, session: SessionId) {
        self.sessions[session.0].last = true;
    }

    /// Retention may have deleted everything below this offset of a partition.
    pub fn log_start(&mut self, partition: u32, offset: u64) {
        let highest = self.log_starts.entry(partition).or_default();
        *highest = offset.max(*highest);
    }

    /// Somebody who is not a producer of this history knows of an acknowledgement: of what was sent at `invoked`,
    /// known at `returned`. Answers with an owner need not be told again.
    pub fn owner(&mut self, owner: Owner, invoked: Time, returned: Time) {
        self.owners.push((owner, invoked, returned));
    }

    /// What the log of a range is in the end, on one member.
    pub fn log_dump(&mut self, dump: LogDump) {
        self.logs.push(dump);
    }

    /// What a partition is in the end, on one member.
    pub fn record_dump(&mut self, dump: RecordDump) {
        self.records.push(dump);
    }

    /// How many records are acknowledged so far.
    pub fn acknowledged_count(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.answer.outcome.is_acknowledged()).count()
    }

    /// How many records are attempted so far.
    pub fn attempted_count(&self) -> usize {
        self.attempts.len()
    }

    /// Compares what was done with what was seen.
    pub fn check(&self) -> Report {
        check::check(self)
    }

    /// Where a record is among the attempts.
    pub(crate) fn number(&self, record: RecordId) -> Option<u32> {
        self.numbers.get(&record).copied()
    }
}

impl Answer {
    /// An answer for which nobody looked at the clock.
    pub const fn untimed(outcome: Outcome) -> Self {
        Self { outcome, returned: TIME_UNTOLD, owner: None }
    }
}

impl Outcome {
    /// Whether the broker promised to keep the record.
    pub const fn is_acknowledged(self) -> bool {
        matches!(self, Self::Acknowledged(_) | Self::Stored)
    }

    /// The offset that was acknowledged, if one was told.
    pub const fn offset(self) -> Option<u64> {
        match self {
            Self::Acknowledged(offset) => Some(offset),
            Self::Unknown | Self::Stored | Self::Failed => None,
        }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self { invoked: 0, returned: TIME_UNTOLD, member: None, epoch: None, committed: None, log_start: None }
    }
}

/// A few multiplications: records are named by tests, not by strangers, and the order of the map is never used.
#[derive(Clone, Default)]
struct RecordHasher(u64);

impl Hasher for RecordHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
