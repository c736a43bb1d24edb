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
//!   │ idle │          │ claiming │      │ sealing │ ◄──┐             │ reconciling │ ◄──┐
//!   └──────┘ ◄─────── └──────────┘      └─────────┘    │ poll        └─────────────┘    │ poll
//!    │   ▲    not won                      │  ▲  │     │ (holding)     │  │  │          │
//!    │   │                                 │  │  └─────┘ below floor   │  │  └──────────┘ not all done
//!    │   │                                 │  └─ another one answers   │  │
//!    │   │        refused, stale, someone answers to learn             │  │ all done
//!    │   ├─────────────────────────────────┴───────────────────────────┘  ▼
//!    │   │ all told, or deadline   ┌────────────┐  won                 ┌─────────┐
//!    │   ├──────────────────────── │ activating │ ◄─────────────────── │ decided │
//!    │   │                         └────────────┘                      └─────────┘
//!    │   └───── pending is another's ─── ▲ ──────────────────────────────── │
//!    └───────────────────────────────────┘
//!      active, intact, not yet told
//! ```
//!
//! | phase | input | next | and |
//! |---|---|---|---|
//! | idle | a change is due, no compare-and-set in flight | claiming | `pending = {max(seen) + 1, me}` of all due ranges, one compare-and-set |
//! | idle | active and intact, members not told | activating | activate |
//! | claiming | won | sealing | seal, one message per shard |
//! | claiming | conflict, unknown | idle | read the record again; the epoch is never used |
//! | sealing | everybody replied or is lost, or the deadline (a short one if only suspects are missing) | reconciling | decide once, reconcile |
//! | sealing | the same, below the floor | sealing (holding) | alert; seal again at every poll, so that reads go on |
//! | sealing | the same, and somebody not asked answers to learn | idle | back off; a higher epoch with it |
//! | sealing | stale, no decision possible | idle | back off or wait, alert; a higher epoch next time |
//! | holding | another of those asked promises | reconciling | decide once, reconcile |
//! | holding | a learner answers, a member comes back, who was asked is another process by now | idle | a change is due |
//! | reconciling | poll: not all done | reconciling | reconcile again, the same to the same |
//! | reconciling | all done | decided | `active = decision` of all decided ranges, one compare-and-set |
//! | reconciling | refused, silent for too long, stands still for too long | idle | who is to blame is left out for a while; back off; a higher epoch |
//! | decided | won | activating | activate |
//! | decided | conflict, unknown | decided | read again; if pending is still ours, the same decision again |
//! | activating | all done | idle | told |
//! | activating | lost, deadline | idle | back off, activate again; after some times a change is due |
//! | activating | refused | idle | back off; a change is due |
//! | activating, idle | a member complains about this epoch | idle | a change is due |
//! | sealing … decided | record read: pending is not ours | idle | abandon |
//! | sealing … reconciling, activating | a participant is away or has another incarnation | idle | a change is due |
//!
//! Due is a change when a member is away, started again, complained about or refuses to act, when `pending` is orphaned,
//! when a learner is ready, or when the operator wants other nodes and all of them are ready.
//!
//! Beside all this, in any phase, nodes learn (`learning`): as many as the chain lacks, and those that the operator wants.
//! A learner is polled, becomes ready, and is taken into the next change; what stands still or is silent is replaced.
//! A node that the operator drains learns nothing but what it is wished for, and is in no first chain.
//!
//! A range whose members are all away, wiped or below the floor stays as it is and says so: it is never created again.

mod alert;
mod decide;
mod learning;
mod machine;
mod need;
mod outbox;
mod range;
mod reconciling;
mod sealing;
mod seats;
mod suspicion;

use std::collections::{BTreeMap, BTreeSet};

use crate::chain::peer::Complaint;
use crate::coordination::{BrokerRecord, KeyVersion, RingChunk};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits;
use crate::wire::{ActivateRequest, LearnReply, LearnRequest, RangesReply, ReconcileRequest, SealReply, SealRequest};

pub use alert::AlertReason;
pub use decide::Decision;
pub use learning::LearnerStatus;

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
    /// To copy in the background, and how far that is.
    Learn(LearnRequest),
}

/// What came of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a seal.
    Seal(SealReply),
    /// To reconcile and activate.
    Ranges(RangesReply),
    /// To learn.
    Learn(LearnReply),
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
    /// Members complain about their chains (R8). What comes together is changed together.
    Complaints(Vec<Complaint>),
    /// The range shall be held by exactly these nodes, in this order: as many as the ring replicates, distinct. Takes the
    /// place of any earlier wish, and is forgotten with this machine.
    Desired {
        /// The range.
        range: RangeId,
        /// The nodes, head first; none: no wish any more.
        nodes: Option<Vec<NodeId>>,
    },
    /// The operator drains these nodes: they keep what they hold until it is moved, and get no range that they do not hold,
    /// but by an explicit wish. Takes the place of what was said before, and is forgotten with this machine.
    Draining(BTreeSet<NodeId>),
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
#[derive(Clone, Debug)]
pub struct ChunkController {
    writer: WriterId,
    settings: ControllerSettings,
    known: Option<Known>,
    /// A read was asked for; nothing is claimed before it is there.
    reading: bool,
    /// The record as it will be when the compare-and-set in flight is won.
    in_flight: Option<RingChunk>,
    brokers: BTreeMap<NodeId, BrokerRecord>,
    /// The process that each node was last seen to run, also of those that are away.
    processes: BTreeMap<NodeId, Incarnation>,
    /// What the operator wants.
    desired: BTreeMap<RangeId, Vec<NodeId>>,
    /// Nodes that get no ranges.
    draining: BTreeSet<NodeId>,
    /// Only with a planted bug: what was proposed when the outcome got lost.
    unknown: Option<RingChunk>,
    seats: seats::SeatBook,
    /// By position in the chunk.
    ranges: Vec<range::RangeState>,
}

#[derive(Clone, Debug)]
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
            processes: BTreeMap::new(),
            desired: BTreeMap::new(),
            draining: BTreeSet::new(),
            unknown: None,
            seats: seats::SeatBook::new(),
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
            Input::Complaints(complaints) => complaints.iter().for_each(|said| self.complained(now_ms, said)),
            Input::Desired { range, nodes } => self.desire(now_ms, range, nodes),
            Input::Draining(nodes) => self.drain(now_ms, nodes),
            Input::Tick => {}
        }
        self.expire(now_ms, &mut outbox);
        self.teach(now_ms, &mut outbox);
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
        let counts = |state: &&range::RangeState| !(waits_for_record && state.is_idle());
        let phases = self.ranges.iter().filter(counts).filter_map(range::RangeState::deadline_ms);
        phases.chain(self.ranges.iter().filter_map(range::RangeState::learning_deadline_ms)).min()
    }

    /// The record as last known.
    pub fn chunk(&self) -> Option<&RingChunk> {
        self.known.as_ref().map(|known| &known.chunk)
    }

    /// The version of the record as last known.
    pub fn version(&self) -> Option<KeyVersion> {
        self.known.as_ref().map(|known| known.version)
    }

    /// Who copies which range in the background, and how far they are.
    pub fn learners(&self) -> Vec<LearnerStatus> {
        let Some(Known { chunk, .. }) = &self.known else { return Vec::new() };
        let of_range = |(at, state): (usize, &range::RangeState)| {
            let range = range_id(chunk, at);
            state.learners.values().map(|learner| learner.status(range)).collect::<Vec<_>>()
        };
        self.ranges.iter().enumerate().flat_map(of_range).collect()
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
