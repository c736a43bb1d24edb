//! The promises that can be broken, each with all that is needed to understand how.

use crate::history::{Member, Owner, Time};
use crate::payload::{Damage, RecordId};

/// A promise broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Acknowledged, and not in a final read that reaches back to it.
    Lost {
        /// Which record.
        record: RecordId,
        /// Where it should be, if that was told.
        offset: Option<u64>,
        /// Who did not find it.
        reader: String,
    },
    /// Read once, hence committed, and its offset is empty for a final reader.
    Vanished {
        /// Which record.
        record: RecordId,
        /// Where it was.
        offset: u64,
        /// Who did not find it.
        reader: String,
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
    /// Sent when another record was known to be stored, and stored before it.
    Overtook {
        /// Sent later, and stored before.
        record: RecordId,
        /// Where it is.
        offset: u64,
        /// When it was sent.
        invoked: Time,
        /// Known before that, and stored behind.
        known: RecordId,
        /// Where that one is.
        known_offset: u64,
        /// Since when it was acknowledged, or read.
        known_since: Time,
    },
    /// Not the bytes that were sent.
    Corrupted {
        /// On which partition.
        partition: u32,
        /// Where.
        offset: u64,
        /// What is wrong with them.
        damage: Damage,
        /// Who got them.
        reader: String,
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
    /// A reader was given an offset further on than the next, and retention does not explain it.
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
    /// Two records at one offset: of two readers, or of an acknowledgement and a reader (the acknowledged one is then
    /// found nowhere).
    Rewritten {
        /// On which partition.
        partition: u32,
        /// Where.
        offset: u64,
        /// What was there first, or was acknowledged to be there.
        first: RecordId,
        /// What was there then.
        then: RecordId,
        /// Who got the second.
        reader: String,
    },
    /// Read at another offset than the acknowledged one, and not there.
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
    /// No session of this partition read all of it to the end: nothing can be said about what is lost.
    Unread {
        /// Which partition.
        partition: u32,
    },
    /// A reader was answered in a lower epoch than before, by the same node.
    ReadEpochBack {
        /// Who.
        reader: String,
        /// On which partition.
        partition: u32,
        /// Who answered.
        member: Member,
        /// The highest epoch before.
        before: u64,
        /// The epoch then.
        then: u64,
        /// When that answer was there.
        at: Time,
    },
    /// A producer was acknowledged in a lower epoch than a record that it had back before it sent this one.
    ProduceEpochBack {
        /// Sent later.
        record: RecordId,
        /// Who acknowledged it.
        owner: Owner,
        /// Who acknowledged an earlier one.
        before: Owner,
    },
    /// A member told a lower committed end than before, in one life.
    CommitBack {
        /// Of which partition.
        partition: u32,
        /// Who told it.
        member: Member,
        /// The end before.
        before: u64,
        /// The end then.
        then: u64,
        /// When that answer was there.
        at: Time,
    },
    /// The committed end that final readers found is below one that was told before.
    CommitForgotten {
        /// Of which partition.
        partition: u32,
        /// The highest that was told.
        told: u64,
        /// To whom.
        reader: String,
        /// The end in the end.
        end: u64,
    },
    /// Two members, or two lives of one, acknowledged in one epoch.
    TwoOwners {
        /// Of which range.
        range: u32,
        /// In which epoch.
        epoch: u64,
        /// Who.
        heads: [Member; 2],
    },
    /// What was sent after a later epoch had acknowledged was acknowledged in an earlier one.
    StaleOwner {
        /// Who acknowledged too late.
        owner: Owner,
        /// When what it acknowledged was sent.
        invoked: Time,
        /// Who had acknowledged in a later epoch.
        later: Owner,
        /// When that was known.
        known_since: Time,
    },
    /// Two members hold different things at a place that both must have. The first such place of a member.
    Diverged {
        /// In which log.
        log: Log,
        /// At which index or offset.
        at: u64,
        /// Who holds what.
        holders: [(Member, Content); 2],
    },
}

/// A log of which members have copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// The entries of a range, by index.
    Range(u32),
    /// The records of a partition, by offset.
    Partition(u32),
}

/// What a member holds at a place of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// Nothing, though it must.
    Nothing,
    /// This entry.
    Entry {
        /// The epoch of its header.
        epoch: u64,
        /// The running hash through it.
        hash: u64,
    },
    /// This record.
    Record(RecordId),
    /// No record.
    Damaged(Damage),
}

impl Anomaly {
    /// One word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Vanished { .. } => "vanished",
            Self::Duplicate { .. } => "duplicate",
            Self::Reordered { .. } => "reordered",
            Self::Overtook { .. } => "overtook",
            Self::Corrupted { .. } => "corrupted",
            Self::Phantom { .. } => "phantom",
            Self::Gap { .. } => "gap",
            Self::Backwards { .. } => "backwards",
            Self::Rewritten { .. } => "rewritten",
            Self::Misplaced { .. } => "misplaced",
            Self::Contradiction { .. } => "contradiction",
            Self::Unread { .. } => "unread",
            Self::ReadEpochBack { .. } => "read_epoch_back",
            Self::ProduceEpochBack { .. } => "produce_epoch_back",
            Self::CommitBack { .. } => "commit_back",
            Self::CommitForgotten { .. } => "commit_forgotten",
            Self::TwoOwners { .. } => "two_owners",
            Self::StaleOwner { .. } => "stale_owner",
            Self::Diverged { .. } => "diverged",
        }
    }
}
