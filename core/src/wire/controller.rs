//! What the controller asks of shards: seal, reconcile, activate, learn (`docs/REPLICATION.md`), control entries, and sizes.
//!
//! Each message carries many ranges, and a shard answers it after one durable promise write for all of them.

use super::codec::wire_struct;
use crate::chain::ChainMember;
use crate::control::ControlEntry;
use crate::error_code::ErrorCode;
use crate::ids::*;

wire_struct! {
    /// One range to seal.
    SealRange {
        /// The range.
        range: RangeId,
        /// The epoch to promise.
        epoch: Epoch,
        /// Everybody who is asked: whose log is damaged is mended from the others.
        members: Vec<ChainMember>,
    }
}

wire_struct! {
    /// Asks for promises. From its promise on, a member acknowledges nothing under an older epoch.
    SealRequest {
        /// Who holds the pending epochs.
        writer: WriterId,
        /// The process this is for; any other refuses with `not_owner`, because its shards may divide ranges otherwise.
        incarnation: Incarnation,
        /// The ring.
        ring: RingId,
        /// What to seal.
        ranges: Vec<SealRange>,
    }
}

wire_struct! {
    /// What a member has, told after its promise is durable.
    SealReport {
        /// The range.
        range: RangeId,
        /// `stale` when a higher epoch was promised before; then `promised` is that one.
        error: Option<ErrorCode>,
        /// Highest promise.
        promised: Epoch,
        /// Last epoch into which the log was reconciled.
        marker: Epoch,
        /// Durable end of the log.
        end: LogPoint,
        /// Epoch of the last entry; 0 for an empty log.
        last_epoch: Epoch,
        /// Highest index known committed.
        known_committed: LogIndex,
        /// Entries below the end rotted, and what they changed is not known: no survivor, unless there is no other member.
        damaged: bool,
    }
}

wire_struct! {
    /// Answer to a seal.
    SealReply {
        /// The process that answers.
        incarnation: Incarnation,
        /// Its disk.
        store: StoreId,
        /// In the order of the request.
        ranges: Vec<SealReport>,
    }
}

wire_struct! {
    /// One range to reconcile.
    ReconcileRange {
        /// The range.
        range: RangeId,
        /// The promised epoch.
        epoch: Epoch,
        /// The exact end the log must have.
        end: LogPoint,
        /// Where to copy from what is missing; none: the member itself is the source.
        source: Option<ChainMember>,
    }
}

wire_struct! {
    /// Brings logs to an exact end, and persists the marker.
    ReconcileRequest {
        /// Who holds the pending epochs.
        writer: WriterId,
        /// The process this is for; any other refuses.
        incarnation: Incarnation,
        /// The ring.
        ring: RingId,
        /// What to reconcile.
        ranges: Vec<ReconcileRange>,
    }
}

wire_struct! {
    /// One range to activate.
    ActivateRange {
        /// The range.
        range: RangeId,
        /// The epoch.
        epoch: Epoch,
        /// Head first.
        chain: Vec<ChainMember>,
        /// The end every member was reconciled to; committed from now on.
        start: LogPoint,
    }
}

wire_struct! {
    /// Tells that the record now names this chain.
    ActivateRequest {
        /// The ring.
        ring: RingId,
        /// What to activate.
        ranges: Vec<ActivateRange>,
    }
}

wire_struct! {
    /// What became of one range.
    RangeOutcome {
        /// The range.
        range: RangeId,
        /// None: done.
        error: Option<ErrorCode>,
        /// For `stale`: the epoch promised instead.
        epoch: Epoch,
        /// For `catching_up`: how far the log reaches by now.
        end: LogIndex,
    }
}

wire_struct! {
    /// Answer to reconcile and activate.
    RangesReply {
        /// In the order of the request.
        ranges: Vec<RangeOutcome>,
    }
}

wire_struct! {
    /// One range to copy in the background (R7).
    LearnRange {
        /// The range.
        range: RangeId,
        /// The epoch of the active chain, which the learner is no member of.
        epoch: Epoch,
        /// That chain, head first.
        chain: Vec<ChainMember>,
        /// Whom to copy from: one of them.
        source: ChainMember,
    }
}

wire_struct! {
    /// Lets a node learn ranges; asked again and again, because the reply tells how far it is.
    LearnRequest {
        /// The process this is for; any other refuses with `not_owner`.
        incarnation: Incarnation,
        /// The ring.
        ring: RingId,
        /// What to learn.
        ranges: Vec<LearnRange>,
    }
}

wire_struct! {
    /// How far a learner is with one range.
    LearnReport {
        /// The range.
        range: RangeId,
        /// None: it learns. Otherwise why not, or why its source does not help it.
        error: Option<ErrorCode>,
        /// Highest promise.
        promised: Epoch,
        /// How far the learner's log reaches.
        end: LogIndex,
        /// How far the source let it copy when it last answered; none: it has not answered yet.
        limit: Option<LogIndex>,
    }
}

wire_struct! {
    /// Answer to a learn request.
    LearnReply {
        /// The process that answers.
        incarnation: Incarnation,
        /// Its disk.
        store: StoreId,
        /// In the order of the request.
        ranges: Vec<LearnReport>,
    }
}

wire_struct! {
    /// One control entry to append.
    AppendControlRange {
        /// The range.
        range: RangeKey,
        /// The epoch believed in.
        epoch: Epoch,
        /// What to append; a head that holds its effect already answers without appending.
        entry: ControlEntry,
    }
}

wire_struct! {
    /// Appends control entries; answered when all are committed.
    AppendControlRequest {
        /// What to append.
        entries: Vec<AppendControlRange>,
    }
}

wire_struct! {
    /// What became of one control entry.
    AppendControlOutcome {
        /// The range.
        range: RangeKey,
        /// None: committed.
        error: Option<ErrorCode>,
        /// For `not_owner` and `stale`: the epoch to refresh to.
        epoch: Epoch,
    }
}

wire_struct! {
    /// Answer to append-control.
    AppendControlReply {
        /// In the order of the request.
        entries: Vec<AppendControlOutcome>,
    }
}

wire_struct! {
    /// Asks how much ranges hold; changes nothing.
    MeasureRequest {
        /// The ring.
        ring: RingId,
        /// Which ranges.
        ranges: Vec<RangeId>,
    }
}

wire_struct! {
    /// How much one range holds.
    MeasuredRange {
        /// The range.
        range: RangeId,
        /// None: measured. `not_owner`: it is not open on this shard.
        error: Option<ErrorCode>,
        /// Bytes of its entries as stored, those that are dead and not freed yet included: what a newcomer copies, about.
        bytes: u64,
    }
}

wire_struct! {
    /// Answer to measure.
    MeasureReply {
        /// In the order of the request.
        ranges: Vec<MeasuredRange>,
    }
}
