//! What members of a chain say to each other about one range (`docs/REPLICATION.md`, "Between members").
//!
//! A *stream* carries entries from a member to its successor, in order; its predecessor opens it, and the newest one wins.
//! A *copy* brings a learner, or a member that is reconciled, what it lacks: it asks, the source answers, nobody remembers
//! anything in between. Generic over how bytes are held, because nothing here looks into them. Absent: connections, which
//! only promise order as long as they live.

use serde::{Deserialize, Serialize};

use crate::chain::ChainMember;
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::wire::Hop;

/// A message from one member of a range to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage<B> {
    /// The range.
    pub range: RangeKey,
    /// The epoch of the stream or copy; of a refusal, the highest that the refuser, or one behind it, promised.
    pub epoch: Epoch,
    /// What is said.
    pub body: PeerBody<B>,
}

/// What a [`PeerMessage`] says. Entries are whole: header and body, as they are stored, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerBody<B> {
    /// Predecessor to successor: entries shall come on this stream.
    OpenStream {
        /// Its number.
        stream: StreamId,
        /// Who opens it.
        from: ChainMember,
        /// The very process it is for.
        to: ChainMember,
    },
    /// Successor to predecessor: the stream begins behind this end.
    StreamOpened {
        /// Which.
        stream: StreamId,
        /// Where the successor's log ends, durable or not.
        end: LogPoint,
    },
    /// Successor to predecessor: not on this stream, or not any more.
    StreamRefused {
        /// Which.
        stream: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// Predecessor to successor: the next entries.
    Entries {
        /// On this stream.
        stream: StreamId,
        /// Known to be committed.
        committed: LogIndex,
        /// The entries, one after the other.
        entries: Vec<B>,
    },
    /// Predecessor to successor: known to be committed; also the sign of life of an idle stream.
    Committed {
        /// On this stream.
        stream: StreamId,
        /// Committed up to here.
        index: LogIndex,
    },
    /// Successor to predecessor: durable here and at everybody behind, in this epoch.
    Acknowledged {
        /// On this stream.
        stream: StreamId,
        /// Up to here.
        index: LogIndex,
    },
    /// Predecessor to successor, in front of the entries with this one: how long it takes is asked for (explain).
    Explain {
        /// On this stream.
        stream: StreamId,
        /// The entry.
        index: LogIndex,
    },
    /// Successor to predecessor, in front of the acknowledgement of this entry: how long it took.
    Explained {
        /// On this stream.
        stream: StreamId,
        /// The entry.
        index: LogIndex,
        /// The successor, and everybody behind it, in the order of the chain.
        hops: Vec<Hop>,
    },
    /// Learner or member to its source: what comes behind this point.
    CopyRequest {
        /// Its number.
        copy: CopyId,
        /// Who asks.
        from: ChainMember,
        /// The very process that is asked.
        to: ChainMember,
        /// What for.
        purpose: CopyPurpose,
        /// Where the asker's log ends, or a point in it that is to be compared.
        after: LogPoint,
        /// Entries up to this one at most; equal to `after.index`: only compare.
        until: LogIndex,
        /// The asker's log could take what comes next as a whole sealed segment.
        segment: Option<SegmentCursor>,
    },
    /// Source to who asked.
    CopyReply {
        /// To which request.
        copy: CopyId,
        /// What came of it.
        outcome: CopyOutcome<B>,
    },
}

/// What a copy is for, which decides how far the source lets it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CopyPurpose {
    /// Background copying (R7): up to what the source knows to be committed.
    Learn,
    /// Reconciling in the epoch of the message (R5e): up to the source's end.
    Reconcile,
    /// Mending a log that lost entries (R12): whatever is there, in any epoch.
    Mend,
}

/// What came of a copy request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyOutcome<B> {
    /// The logs agree at the point asked about.
    Agreed {
        /// How far the source would go.
        limit: LogIndex,
        /// The entries behind the point, as many as fit into one reply.
        entries: Vec<B>,
    },
    /// What comes behind the point is in a sealed segment: a part of it.
    Segment {
        /// How far the source would go.
        limit: LogIndex,
        /// The part.
        part: SegmentPart<B>,
    },
    /// The logs differ at or below the point asked about.
    Disagreed {
        /// How far the source would go.
        limit: LogIndex,
    },
    /// The source freed what it was asked about, or what comes behind it: that was committed, and is not there any more.
    Gone {
        /// How far the source would go.
        limit: LogIndex,
    },
    /// Not now, or not from here.
    Refused {
        /// Why.
        code: ErrorCode,
    },
}

/// Where who copies stands in a segment that it takes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentCursor {
    /// Last index of the segment; 0: which one comes next is not known.
    pub end: LogIndex,
    /// It has everything up to here.
    pub at: LogPoint,
    /// And so many bytes of the state as of the end.
    pub snapshot_bytes: u64,
}

/// A part of a sealed segment, or of what of one lies behind the asker's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPart<B> {
    /// The log before it: where the asker's log ends, or where the source's begins, when the asker has nothing.
    pub start: LogPoint,
    /// The log with it, all of it committed.
    pub end: LogPoint,
    /// Where the items begin: `start`, when the cursor was of another segment.
    pub at: LogPoint,
    /// What comes behind `at`, in order.
    pub items: Vec<SegmentItem<B>>,
}

/// One item of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentItem<B> {
    /// Whole entries, one after the other.
    Entries(B),
    /// Everything up to this point was freed.
    Freed(LogPoint),
    /// Behind the last entry: the next bytes of the range's state as of the segment's end.
    Snapshot {
        /// Bytes of the state.
        total: u64,
        /// The next ones.
        bytes: B,
    },
}

/// A member tells the controller that its chain does not work (R8). A hint: losing it, or making one up, costs no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Complaint {
    /// The range.
    pub range: RangeKey,
    /// In this epoch.
    pub epoch: Epoch,
    /// Who complains.
    pub by: NodeId,
    /// About whom; the complainer itself when its own disk failed it.
    pub about: NodeId,
    /// Why.
    pub reason: ComplaintReason,
}

/// Why a member complains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComplaintReason {
    /// The connection broke, or cannot be opened.
    LinkLost,
    /// Nothing was acknowledged for too long, although something was sent.
    Stalled,
    /// Nothing was heard from the predecessor for too long.
    Silent,
    /// An own durable write failed (R11).
    WriteFailed,
}
