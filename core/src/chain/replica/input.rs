//! What happens to a member: requests of clients and the controller, words of other members, news of the own disk, time.

#[cfg(doc)]
use super::Output;
use crate::chain::ChainMember;
use crate::control::ControlEntry;
use crate::entry::EntryHeader;
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::range_state::RangeState;

/// Names a request of the interpreter: the machine only gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// What came of mending a log that lost entries.
#[derive(Clone, Debug)]
pub enum MendOutcome {
    /// Nothing is missing any more; the fold of the log.
    Whole(Box<RangeState>),
    /// Everybody answered, and nobody has it.
    NobodyHas,
    /// Not now: somebody cannot be reached, or the disk is full.
    Later,
}

/// What happens to a member.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client wants a batch appended. `header` is as its producer sent it; the body is checked.
    Produce {
        /// To be answered.
        request: RequestId,
        /// As the producer sent it.
        header: EntryHeader,
        /// The epoch the client believes in.
        believed: Epoch,
    },
    /// The controller wants a control entry appended.
    AppendControl {
        /// To be answered.
        request: RequestId,
        /// What to append.
        entry: ControlEntry,
        /// The epoch the controller believes in.
        believed: Epoch,
    },
    /// The predecessor streams an entry.
    Replicate {
        /// Names the body for the interpreter.
        request: RequestId,
        /// The predecessor's epoch.
        epoch: Epoch,
        /// On which stream.
        stream: StreamId,
        /// As the head made it.
        header: EntryHeader,
        /// The decoded body of a control entry.
        control: Option<ControlEntry>,
        /// What the predecessor knows to be committed.
        committed: LogIndex,
    },
    /// The predecessor tells what is committed.
    CommittedAdvanced {
        /// The predecessor's epoch.
        epoch: Epoch,
        /// On which stream.
        stream: StreamId,
        /// Committed up to here.
        index: LogIndex,
    },
    /// The predecessor wants to stream entries.
    StreamRequested {
        /// In this epoch.
        epoch: Epoch,
        /// Its number.
        stream: StreamId,
        /// Who asks.
        from: ChainMember,
        /// Whom it means.
        to: ChainMember,
    },
    /// The successor takes the stream, from its end on.
    StreamOpened {
        /// In this epoch.
        epoch: Epoch,
        /// Which.
        stream: StreamId,
        /// The successor's end.
        end: LogPoint,
    },
    /// The successor does not take the stream, or not any more.
    StreamRefused {
        /// What the successor promised.
        epoch: Epoch,
        /// Which.
        stream: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// The connection to another member broke, or cannot be opened: what was sent and not answered is lost.
    PeerLost {
        /// Which member.
        member: ChainMember,
    },
    /// The successor holds everything up to here durably.
    SuccessorAcknowledged {
        /// The successor's epoch.
        epoch: Epoch,
        /// On which stream.
        stream: StreamId,
        /// Acknowledged up to here.
        index: LogIndex,
    },
    /// The own log is durable up to here.
    Durable {
        /// Durable up to here.
        index: LogIndex,
    },
    /// A durable write failed: R11.
    WriteFailed,
    /// The controller wants a promise.
    Seal {
        /// To be answered.
        request: RequestId,
        /// The epoch to promise.
        epoch: Epoch,
        /// Everybody who is asked.
        members: Vec<ChainMember>,
    },
    /// The promise asked for is durable.
    PromiseDurable {
        /// Which.
        epoch: Epoch,
    },
    /// The controller wants the log to end exactly here.
    Reconcile {
        /// To be answered.
        request: RequestId,
        /// The promised epoch.
        epoch: Epoch,
        /// The exact end.
        end: LogPoint,
        /// Where to copy from what is missing; none: this member is the source.
        source: Option<ChainMember>,
    },
    /// The controller wants the log copied in the background; answered at once with [`Output::ReportLearn`].
    Learn {
        /// To be answered.
        request: RequestId,
        /// The epoch of the active chain.
        epoch: Epoch,
        /// That chain.
        chain: Vec<ChainMember>,
        /// Whom to copy from.
        source: ChainMember,
    },
    /// One entry of a copy reply, in order.
    Copied {
        /// Names the body for the interpreter.
        request: RequestId,
        /// To which request.
        copy: CopyId,
        /// As the head made it.
        header: EntryHeader,
        /// The decoded body of a control entry.
        control: Option<ControlEntry>,
    },
    /// All entries of a copy reply were given; the logs agree at the point asked about.
    CopyEnded {
        /// To which request.
        copy: CopyId,
        /// How far the source would go.
        limit: LogIndex,
    },
    /// A part of a sealed segment came and is kept; there is more to come.
    SegmentPart {
        /// To which request.
        copy: CopyId,
        /// How far the source would go.
        limit: LogIndex,
        /// The segment is whole up to here.
        at: LogIndex,
    },
    /// All of a sealed segment came.
    SegmentReady {
        /// To which request.
        copy: CopyId,
        /// How far the source would go.
        limit: LogIndex,
        /// Where the log would end with it.
        end: LogPoint,
    },
    /// What the source was asked about, or what comes behind it, was freed there.
    CopyGone {
        /// To which request.
        copy: CopyId,
        /// How far the source would go.
        limit: LogIndex,
    },
    /// The logs differ at or below the point asked about.
    CopyDisagreed {
        /// To which request.
        copy: CopyId,
        /// How far the source would go.
        limit: LogIndex,
    },
    /// The source refused, or cannot read what it was asked for.
    CopyFailed {
        /// To which request.
        copy: CopyId,
        /// Why.
        code: ErrorCode,
    },
    /// The point of the own log that was asked for; none: it is not known here.
    PointRead {
        /// The index asked for.
        index: LogIndex,
        /// The point.
        point: Option<LogPoint>,
    },
    /// The log was cut as asked, or dropped, or has the segment; `state` is the fold of what there is now.
    Truncated {
        /// The fold.
        state: Box<RangeState>,
    },
    /// The log could not be cut as asked, and is as it was.
    CutRefused,
    /// The marker asked for is durable.
    MarkerDurable {
        /// Which.
        epoch: Epoch,
    },
    /// What came of [`Output::Mend`].
    Mended {
        /// Whether the log is whole.
        outcome: MendOutcome,
    },
    /// The record names this chain.
    Activate {
        /// To be answered.
        request: RequestId,
        /// Its epoch.
        epoch: Epoch,
        /// Head first.
        chain: Vec<ChainMember>,
        /// Committed from now on.
        start: LogPoint,
    },
    /// About [`TICK_MS`](crate::limits::TICK_MS) passed.
    Tick,
}
