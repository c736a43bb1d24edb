//! The controller of one ring chunk: up to 256 ranges, one record, one machine (`docs/REPLICATION.md`).
//!
//! It reads records and brokers, decides which range needs a change, and carries changes through: claim an epoch, seal,
//! decide, reconcile, commit the record, tell the members. Synchronous and deterministic: the interpreter does the
//! compare-and-sets and sends the messages, and brings what came of them back, in any order, late, twice or never.
//! Safety rests on three things only, whatever the interpreter loses: nothing is sent under an epoch before its
//! claim is known to be won, an epoch is used for one decision, and the record changes only at the version that was read.
//! Two controllers may run at once; the record lets one of them win each epoch.
//!
//! One range:
//!
//! ```text
//!              due                won               all or deadline
//!   ┌──────┐ ───────► ┌──────────┐ ───► ┌─────────┐ ───────────────► ┌─────────────┐
//!   │ idle │          │ claiming │      │ sealing │                  │ reconciling │
//!   └──────┘ ◄─────── └──────────┘      └─────────┘                  └─────────────┘
//!    │   ▲    not won                        │ refused, lost, stale         │ all replied
//!    │   ├───────────────────────────────────┴──────────┐                   ▼
//!    │   │ all told, or deadline   ┌────────────┐  won  │ failed       ┌─────────┐
//!    │   └──────────────────────── │ activating │ ◄─────┼───────────── │ decided │
//!    └───────────────────────────► └────────────┘       └───────────── └─────────┘
//!      active, intact, not yet told                        pending is another's
//! ```
//!
//! | phase | input | next | and |
//! |---|---|---|---|
//! | idle | a change is due, no compare-and-set in flight | claiming | `pending = {max(seen) + 1, me}` of all due ranges, one compare-and-set |
//! | idle | active and intact, members not told | activating | activate |
//! | claiming | won | sealing | seal, one message per shard |
//! | claiming | conflict, unknown | idle | read the record again; the epoch is never used |
//! | sealing | everybody replied or is lost, or the deadline | reconciling | decide once, reconcile |
//! | sealing | stale, no decision possible | idle | back off, alert; a higher epoch next time |
//! | reconciling | all done | decided | `active = decision` of all decided ranges, one compare-and-set |
//! | reconciling | refused, lost, deadline | idle | back off; a higher epoch next time |
//! | decided | won | activating | activate |
//! | decided | conflict, unknown | decided | read again; if pending is still ours, the same decision again |
//! | activating | all done | idle | told |
//! | activating | lost, deadline | idle | back off, activate again: it only repeats what the record says |
//! | activating | refused | idle | back off; a change is due |
//! | sealing … decided | record read: pending is not ours | idle | abandon |
//! | sealing … activating | a participant has another incarnation | idle | a change is due |
//!
//! A range whose members are all away, wiped or below the floor stays as it is and says so: it is never created again.

mod decide;
mod machine;
mod need;
mod outbox;
mod range;

use std::collections::BTreeMap;

use crate::coordination::{BrokerRecord, KeyVersion, RingChunk};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits;
use crate::wire::{ActivateRequest, RangesReply, ReconcileRequest, SealReply, SealRequest};

pub use decide::Decision;
pub use need::AlertReason;

/// How long the controller waits for what.
#[derive(Clone, Copy, Debug)]
pub struct ControllerSettings {
    /// For seal replies.
    pub seal_wait_ms: u64,
    /// For reconcile replies.
    pub reconcile_wait_ms: u64,
    /// For activate replies.
    pub activate_wait_ms: u64,
    /// Before the first retry; doubles with each failure.
    pub retry_ms_min: u64,
    /// Between retries, at most.
    pub retry_ms_max: u64,
    /// Before a change that another controller began meanwhile is taken over.
    pub orphan_wait_ms: u64,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            seal_wait_ms: limits::SEAL_WAIT_MS,
            reconcile_wait_ms: limits::RECONCILE_WAIT_MS,
            activate_wait_ms: limits::ACTIVATE_WAIT_MS,
            retry_ms_min: limits::CHANGE_RETRY_MS_MIN,
            retry_ms_max: limits::CHANGE_RETRY_MS_MAX,
            orphan_wait_ms: limits::ORPHAN_WAIT_MS,
        }
    }
}

/// The shard port a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
}

/// What a shard is asked, many ranges at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// For promises.
    Seal(SealRequest),
    /// To bring logs to an exact end.
    Reconcile(ReconcileRequest),
    /// To act.
    Activate(ActivateRequest),
}

/// What came of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a seal.
    Seal(SealReply),
    /// To reconcile and activate.
    Ranges(RangesReply),
    /// Nothing will come: not sent, connection lost, answered with an error, or too late. It may have been done.
    Lost,
}

/// What came of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// Done; the new version.
    Won(KeyVersion),
    /// Not done: somebody was faster, or the coordinator is away.
    Conflict,
    /// Perhaps done.
    Unknown,
}

/// What the controller is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The record was read; answers [`Output::ReadChunk`], and may come unasked.
    ChunkRead {
        /// The record.
        chunk: RingChunk,
        /// Its version.
        version: KeyVersion,
    },
    /// The compare-and-set in flight ended. Exactly one for each [`Output::Cas`].
    CasDone(CasOutcome),
    /// All live brokers, whenever one of them changed.
    Brokers(Vec<BrokerRecord>),
    /// A message ended. At least one for each [`Output::Send`]; late and repeated ones do no harm.
    Answered {
        /// Who was asked.
        to: Destination,
        /// What was asked.
        message: Message,
        /// What came.
        answer: Answer,
    },
    /// A head refused a control entry as `not_owner` or `stale`.
    ControlRefused {
        /// The range.
        range: RangeId,
        /// The epoch it named.
        epoch: Epoch,
    },
    /// Time passed.
    Tick,
}

/// What the controller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read the record (again, until it can be read) and bring it as [`Input::ChunkRead`].
    ReadChunk,
    /// Replace the record at this version. At most one is in flight.
    Cas {
        /// The new record.
        chunk: RingChunk,
        /// The version it must have.
        version: KeyVersion,
    },
    /// Send a message to a shard port.
    Send {
        /// To whom.
        to: Destination,
        /// What.
        message: Message,
    },
    /// Tell the operator. Said once, until it changes.
    Alert(Alert),
}

/// Ranges that wait for something, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The ring.
    pub ring: RingId,
    /// Which ranges.
    pub ranges: Vec<RangeId>,
    /// For what.
    pub reason: AlertReason,
}

/// The controller of one chunk. Drop it when the election is lost: it needs no farewell.
#[derive(Debug)]
pub struct ChunkController {
    writer: WriterId,
    settings: ControllerSettings,
    known: Option<Known>,
    /// A read was asked for; nothing is claimed before it is there.
    reading: bool,
    /// The record as it will be when the compare-and-set in flight is won.
    in_flight: Option<RingChunk>,
    brokers: BTreeMap<NodeId, BrokerRecord>,
    seats: need::SeatBook,
    /// By position in the chunk.
    ranges: Vec<range::RangeState>,
}

#[derive(Debug)]
struct Known {
    chunk: RingChunk,
    version: KeyVersion,
}

impl ChunkController {
    /// The controller that writes as `writer`, which must be unique among all controller sessions ever. Its first step
    /// asks for the record.
    pub fn new(writer: WriterId, settings: ControllerSettings) -> Self {
        Self {
            writer,
            settings,
            known: None,
            reading: false,
            in_flight: None,
            brokers: BTreeMap::new(),
            seats: need::SeatBook::new(),
            ranges: Vec::new(),
        }
    }

    /// Takes one input and says what to do now. `now_ms` never goes back.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Output> {
        let mut outbox = outbox::Outbox::default();
        match input {
            Input::ChunkRead { chunk, version } => self.chunk_read(now_ms, chunk, version, &mut outbox),
            Input::CasDone(outcome) => self.cas_done(now_ms, outcome, &mut outbox),
            Input::Brokers(brokers) => self.brokers_changed(now_ms, brokers),
            Input::Answered { to, message, answer } => self.answered(now_ms, to, &message, answer, &mut outbox),
            Input::ControlRefused { range, epoch } => self.control_refused(now_ms, range, epoch, &mut outbox),
            Input::Tick => {}
        }
        self.expire(now_ms, &mut outbox);
        self.start_what_is_due(now_ms, &mut outbox);
        self.compare_and_set(&mut outbox);
        if self.known.is_none() && !self.reading {
            self.reading = true;
            outbox.read();
        }
        outbox.into_outputs(self.writer, self.known.as_ref().map_or(RingId(0), |known| known.chunk.ring))
    }

    /// When the next [`Input::Tick`] is due, if nothing else happens.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let waits_for_record = self.reading || self.in_flight.is_some();
        let counts = |state: &&range::RangeState| !(waits_for_record && state.phase == range::Phase::Idle);
        self.ranges.iter().filter(counts).filter_map(range::RangeState::deadline_ms).min()
    }

    /// The record as last known.
    pub fn chunk(&self) -> Option<&RingChunk> {
        self.known.as_ref().map(|known| &known.chunk)
    }

    /// The version of the record as last known.
    pub fn version(&self) -> Option<KeyVersion> {
        self.known.as_ref().map(|known| known.version)
    }

    /// What waits for an operator or a node, now.
    pub fn alerts(&self) -> Vec<Alert> {
        let mut outbox = outbox::Outbox::default();
        let Some(Known { chunk, .. }) = &self.known else { return Vec::new() };
        for (at, state) in self.ranges.iter().enumerate() {
            if let Some(reason) = &state.alert {
                outbox.alert(range_id(chunk, at), reason.clone());
            }
        }
        outbox.into_alerts(chunk.ring)
    }
}

/// The range at a position of a chunk.
fn range_id(chunk: &RingChunk, at: usize) -> RangeId {
    RangeId(chunk.first.0 + at as u32)
}

/// The position of a range in a chunk, if it lies there.
fn position(chunk: &RingChunk, range: RangeId) -> Option<usize> {
    range.0.checked_sub(chunk.first.0).map(|at| at as usize).filter(|at| *at < chunk.ranges.len())
}

/// Fewest members with which a chain of `replication` may act.
pub const fn min_in_sync(replication: u16) -> usize {
    if replication >= 3 { 2 } else { 1 }
}

/// Whether an error means that the record should be read again.
const fn is_stale(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::Stale)
}

#[cfg(test)]
mod tests;
