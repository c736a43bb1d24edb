//! Judges what clients saw: nothing acknowledged is lost, nothing comes twice, out of order, damaged or from nowhere.
//!
//! Clients write down what they attempt, what became of it, and everything they read; [`History::check`] then compares.
//! A record carries its own identity and checksum ([`payload`]), so the checker needs no other word than its bytes.
//!
//! Promises checked, for idempotent producers, per producer and partition:
//! - an acknowledged record is read, at the offset that was acknowledged;
//! - a record that failed for good is not read; one of unknown outcome is read once or not at all;
//! - no record is read at two offsets, and offsets follow the order in which its producer sent;
//! - every byte read is one that was sent, on the partition it was sent to;
//! - a reader's offsets go up by one, from the first it asked for; every reader sees the same record at an offset;
//! - what one reader saw (hence committed) the last reader sees too, across any crash between them.
//!
//! It does not judge the order between partitions or between producers: nothing is promised there.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

pub mod payload;

mod check;
#[cfg(test)]
mod tests;

pub use payload::{Damage, RecordId};

/// What became of a record, as its producer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// One reader's session on one partition: everything it got, in the order in which it came.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who read, for the report.
    pub reader: String,
    /// The partition.
    pub partition: u32,
    /// The first offset asked for.
    pub from: u64,
    /// Whether this session read to the end, after every producer had stopped.
    pub last: bool,
    reads: Vec<Read>,
}

#[derive(Clone, Debug)]
struct Read {
    offset: u64,
    record: Result<RecordId, Damage>,
}

/// Everything clients did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    attempts: HashMap<RecordId, Outcome>,
    sessions: Vec<Session>,
    told_twice: Vec<Anomaly>,
}

/// Names a session of a [`History`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(usize);

/// A promise broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Acknowledged, and not read by the last reader.
    Lost {
        /// Which record.
        record: RecordId,
        /// Where it should be, if that was told.
        offset: Option<u64>,
    },
    /// Read once, hence committed, and not there any more for the last reader.
    Vanished {
        /// Which record.
        record: RecordId,
        /// Where it was.
        offset: u64,
    },
    /// At more than one offset.
    Duplicate {
        /// Which record.
        record: RecordId,
        /// Where.
        offsets: Vec<u64>,
    },
    /// Behind a record that its producer sent later.
    Reordered {
        /// Sent earlier, and stored behind.
        record: RecordId,
        /// Sent later, and stored before it.
        after: RecordId,
    },
    /// Not the bytes that were sent.
    Corrupted {
        /// On which partition.
        partition: u32,
        /// Where.
        offset: u64,
        /// What is wrong with them.
        damage: Damage,
    },
    /// Never sent, or sent to another partition, or refused for good.
    Phantom {
        /// Which record.
        record: RecordId,
        /// Read on which partition.
        partition: u32,
        /// Where.
        offset: u64,
    },
    /// A reader was given an offset further on than the next.
    Gap {
        /// Who.
        reader: String,
        /// On which partition.
        partition: u32,
        /// The offset that should have come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// A reader was given an offset that it had passed.
    Backwards {
        /// Who.
        reader: String,
        /// On which partition.
        partition: u32,
        /// The offset that should have come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// Two readers, two records at one offset.
    Rewritten {
        /// On which partition.
        partition: u32,
        /// Where.
        offset: u64,
        /// What was there first.
        first: RecordId,
        /// What was there then.
        then: RecordId,
    },
    /// Read at another offset than the acknowledged one.
    Misplaced {
        /// Which record.
        record: RecordId,
        /// The offset that was acknowledged.
        acknowledged: u64,
        /// Where it is.
        found: u64,
    },
    /// One record acknowledged at two offsets, or two at one, or both acknowledged and refused.
    Contradiction {
        /// Which record.
        record: RecordId,
        /// What was told.
        told: String,
    },
    /// No session of this partition read to the end: nothing can be said about what is lost.
    Unread {
        /// Which partition.
        partition: u32,
    },
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Promises broken, sorted; empty is good.
    pub anomalies: Vec<Anomaly>,
    /// Records attempted.
    pub attempted: usize,
    /// Of them acknowledged.
    pub acknowledged: usize,
    /// Of them refused for good.
    pub failed: usize,
    /// Of unknown outcome, and read.
    pub unknown_read: usize,
    /// Of unknown outcome, and not read.
    pub unknown_unread: usize,
    /// Records that readers got, over all sessions.
    pub reads: usize,
}

impl History {
    /// A record is about to be sent. Each identity is attempted once; retries are the producer's own business.
    pub fn attempt(&mut self, record: RecordId) {
        if self.attempts.insert(record, Outcome::Unknown).is_some() {
            panic!("{record} is attempted twice: the test must number its records");
        }
    }

    /// The broker acknowledged a record.
    pub fn acknowledged(&mut self, record: RecordId, offset: u64) {
        self.told(record, Outcome::Acknowledged(offset));
    }

    /// The broker acknowledged a record as stored before, at an offset that it does not remember.
    pub fn stored(&mut self, record: RecordId) {
        self.told(record, Outcome::Stored);
    }

    /// A record was refused for good. Never for a timeout or a lost connection: those leave it unknown.
    pub fn failed(&mut self, record: RecordId) {
        self.told(record, Outcome::Failed);
    }

    /// A reader starts at an offset of a partition.
    pub fn session(&mut self, reader: impl Into<String>, partition: u32, from: u64) -> SessionId {
        let session = Session { reader: reader.into(), partition, from, last: false, reads: Vec::new() };
        self.sessions.push(session);
        SessionId(self.sessions.len() - 1)
    }

    /// A reader got a record: its key and value as they came.
    pub fn read(&mut self, session: SessionId, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let record = payload::decode(key, value);
        self.sessions[session.0].reads.push(Read { offset, record });
    }

    /// This session has read to the end, and every producer had stopped before that end was asked for.
    pub fn finished(&mut self, session: SessionId) {
        self.sessions[session.0].last = true;
    }

    /// How many records are acknowledged so far.
    pub fn acknowledged_count(&self) -> usize {
        self.attempts.values().filter(|outcome| outcome.offset().is_some()).count()
    }

    /// How many records are attempted so far.
    pub fn attempted_count(&self) -> usize {
        self.attempts.len()
    }

    fn told(&mut self, record: RecordId, outcome: Outcome) {
        let slot = self.attempts.get_mut(&record).unwrap_or_else(|| panic!("{record} was never attempted"));
        if *slot != Outcome::Unknown && *slot != outcome {
            let told = format!("{slot:?}, then {outcome:?}");
            self.told_twice.push(Anomaly::Contradiction { record, told });
        }
        *slot = outcome;
    }

    /// Compares what was done with what was seen.
    pub fn check(&self) -> Report {
        check::check(self)
    }
}

impl Report {
    /// Panics with everything found and `replay`, which says how to see it again.
    #[track_caller]
    pub fn assert_clean(&self, replay: &str) {
        assert!(self.anomalies.is_empty(), "{self}\nreplay: {replay}");
    }

    /// How many anomalies there are of each kind.
    pub fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        self.anomalies.iter().for_each(|anomaly| *kinds.entry(anomaly.kind()).or_default() += 1);
        kinds
    }
}

impl Outcome {
    /// Of an acknowledged record: its offset, if that was told.
    const fn offset(self) -> Option<Option<u64>> {
        match self {
            Self::Acknowledged(offset) => Some(Some(offset)),
            Self::Stored => Some(None),
            Self::Unknown | Self::Failed => None,
        }
    }
}

impl Anomaly {
    /// One word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Vanished { .. } => "vanished",
            Self::Duplicate { .. } => "duplicate",
            Self::Reordered { .. } => "reordered",
            Self::Corrupted { .. } => "corrupted",
            Self::Phantom { .. } => "phantom",
            Self::Gap { .. } => "gap",
            Self::Backwards { .. } => "backwards",
            Self::Rewritten { .. } => "rewritten",
            Self::Misplaced { .. } => "misplaced",
            Self::Contradiction { .. } => "contradiction",
            Self::Unread { .. } => "unread",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} attempted: {} acknowledged, {} failed, {} unknown and stored, {} unknown and not stored; {} read; ",
            self.attempted, self.acknowledged, self.failed, self.unknown_read, self.unknown_unread, self.reads
        )?;
        if self.anomalies.is_empty() {
            return write!(f, "no anomalies");
        }
        write!(f, "ANOMALIES: {:?}", self.kinds())?;
        // Enough to start with; a broken broker can break a million promises.
        self.anomalies.iter().take(20).try_for_each(|anomaly| write!(f, "\n  {anomaly:?}"))
    }
}
