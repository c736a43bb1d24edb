//! What a member wants done: writes, words to other members and the controller, answers.

#[cfg(doc)]
use super::Input;
use super::RequestId;
use crate::chain::ChainMember;
use crate::chain::peer::{Complaint, CopyPurpose};
use crate::entry::EntryHeader;
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::wire::controller::{LearnReport, SealReport};

/// What the interpreter must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Append to the own log and, with a successor, forward: R2, both at the same time.
    Append {
        /// Final.
        header: EntryHeader,
        /// Where the body is.
        body: AppendBody,
        /// Whether there is a successor to forward to.
        forward: bool,
    },
    /// Tell the predecessor that everything up to here is durable here and behind.
    AcknowledgeUpstream {
        /// In this epoch.
        epoch: Epoch,
        /// On this stream.
        stream: StreamId,
        /// The predecessor.
        to: ChainMember,
        /// Up to here.
        index: LogIndex,
    },
    /// Tell the successor what is committed.
    TellCommitted {
        /// In this epoch.
        epoch: Epoch,
        /// On this stream.
        stream: StreamId,
        /// The successor.
        to: ChainMember,
        /// Up to here.
        index: LogIndex,
    },
    /// Everything up to here is committed: readers may have it.
    Committed {
        /// Up to here.
        index: LogIndex,
    },
    /// Answer a produce, control, reconcile or activate request.
    Answer {
        /// Which.
        request: RequestId,
        /// How.
        answer: Answer,
    },
    /// Answer a seal request.
    ReportSeal {
        /// Which.
        request: RequestId,
        /// How.
        report: SealReport,
    },
    /// Make a promise durable, then say [`Input::PromiseDurable`]: R10.
    PersistPromise {
        /// Which.
        epoch: Epoch,
    },
    /// Cut the log durably, then say [`Input::Truncated`].
    Truncate {
        /// The new end.
        end: LogPoint,
    },
    /// Make a marker durable, then say [`Input::MarkerDurable`]: R10.
    PersistMarker {
        /// Which.
        epoch: Epoch,
    },
    /// Copy what the log lost from these, whoever has it, then say [`Input::Mended`]. Nothing is appended, cut or marked
    /// meanwhile.
    Mend {
        /// Other members, in any state.
        members: Vec<ChainMember>,
    },
    /// Ask the successor to take a stream of entries.
    OpenStream {
        /// In this epoch.
        epoch: Epoch,
        /// Its number.
        stream: StreamId,
        /// The successor.
        to: ChainMember,
    },
    /// Tell the predecessor that its stream is taken, from this end on. Older streams of this range are over.
    AcceptStream {
        /// In this epoch.
        epoch: Epoch,
        /// Which.
        stream: StreamId,
        /// The predecessor.
        to: ChainMember,
        /// The own end.
        end: LogPoint,
    },
    /// Tell who opened a stream that it is not taken, or over.
    RefuseStream {
        /// The highest that this member, or one behind it, is known to have promised.
        epoch: Epoch,
        /// Which.
        stream: StreamId,
        /// Who opened it.
        to: ChainMember,
        /// Why.
        code: ErrorCode,
    },
    /// Send the entries behind `after`, those that come later too, on this stream instead of any older one, in order, with
    /// what is committed by then, as far ahead of what is acknowledged as the window allows.
    StreamFrom {
        /// In this epoch.
        epoch: Epoch,
        /// Which.
        stream: StreamId,
        /// The successor.
        to: ChainMember,
        /// Behind this index.
        after: LogIndex,
    },
    /// Stop sending entries.
    StopStream,
    /// Ask a source for what comes behind a point.
    RequestCopy {
        /// The epoch it belongs to.
        epoch: Epoch,
        /// Its number.
        copy: CopyId,
        /// What for.
        purpose: CopyPurpose,
        /// Whom.
        source: ChainMember,
        /// Behind this point.
        after: LogPoint,
        /// Up to here at most; `after.index`: only compare.
        until: LogIndex,
    },
    /// Put the segment that was announced by [`Input::SegmentReady`] behind the log, durably, then say [`Input::Truncated`].
    InstallSegment,
    /// Drop the whole log, durably, then say [`Input::Truncated`].
    StartOver,
    /// Read a point of the own log, then say [`Input::PointRead`].
    ReadPoint {
        /// Its index.
        index: LogIndex,
    },
    /// Answer a reconcile request with `catching_up`: it is not done yet, and was asked for once more meanwhile.
    ReportProgress {
        /// Which.
        request: RequestId,
        /// How far the log reaches.
        end: LogIndex,
    },
    /// Answer a learn request.
    ReportLearn {
        /// Which.
        request: RequestId,
        /// How.
        report: LearnReport,
    },
    /// Tell the controller that the chain does not work (R8).
    Complain(Complaint),
}

/// Where the body of an appended entry is.
#[derive(Clone, Debug, PartialEq)]
pub enum AppendBody {
    /// It came with this request.
    Request(RequestId),
    /// Here.
    Control(Vec<u8>),
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Committed; of a control entry, reconcile or activate: done.
    Done {
        /// Offset of the batch's first record.
        base_offset: Offset,
        /// When the head accepted it.
        append_timestamp: Timestamp,
    },
    /// Not done, or its outcome is not known (the code's meaning says which).
    Refused {
        /// Why.
        code: ErrorCode,
        /// The epoch to refresh to, where the code asks for that.
        epoch: Epoch,
    },
}
