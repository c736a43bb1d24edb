//! One member of one range's chain, as a pure machine: `step(now, input) -> outputs`.
//!
//! ```text
//!                                     learn(e)
//!         ┌──────── Idle ◄─ start ──────────────────► Learning(e) ◄─── learn(e), from whatever it did below e
//!         │           │                                   │
//!         │           │ seal(e > promised), from any state│
//!         │           ▼                                   ▼
//!         │        Sealing(e) ── promise durable, writes finished ──► Sealed(e)
//!         │                                                              │ reconcile(e)     ▲
//!         │                                                              ▼                  │ refused
//!         │                                                         Reconciling(e) ─────────┘
//!         │                                                              │ cut, copied, durable, then marker = e
//!         │                                                              ▼
//!         │        Active(e) ◄── activate(e), after the record ──── Reconciled(e)
//!         └── a failed durable write, in any state: Failed, for good
//! ```
//!
//! | state | takes writes | acknowledges | serves reads | lets others copy |
//! |---|---|---|---|---|
//! | Idle, Learning | no | no | no | no |
//! | Sealing | no | no | up to what it knew to be committed | no |
//! | Sealed, Reconciling, Reconciled | no | no | the same | reconcile: all of its log; learn: what it knows to be committed |
//! | Active | as head | yes | up to what it knows to be committed | what it knows to be committed |
//! | Failed | no | no | the same | no |
//!
//! A member whose log lost entries for which its state is not known (`Recovered::damaged`) goes through the same states and
//! says so in its seal report. It takes no writes in any of them, its end never moves, and it is no survivor of a chain
//! that has a better one (R12); the only member of a chain is activated all the same, so that what it has can be read. It is
//! mended from other members (`mending`), and is a member as any other then.
//!
//! The rules quoted as R1 … R12 are those of `docs/REPLICATION.md`. The machine does no I/O: it asks for appends,
//! promises and markers to be made durable, and is told when they are. It knows bodies only by their request. Absent:
//! connections and windows, which are the interpreter's; the choice of source, end and chain, which is the controller's.

mod alignment;
mod change;
mod commit;
mod copying;
mod follower;
mod head;
mod input;
mod learning;
mod mending;
mod output;
mod reconcile;
mod role;
mod segments;
mod starts;
mod stream;
mod view;

use std::collections::{HashMap, VecDeque};

use crate::chain::ChainMember;
use crate::chain::planted::is_restart_forgotten;
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::SILENCE_TICKS_MAX;
use crate::range_state::RangeState;
use copying::Copying;
pub use input::{Input, MendOutcome, RequestId};
use mending::Mending;
pub use output::{Answer, AppendBody, Output};
use role::Uncommitted;
pub use role::{Active, Standing};
use starts::UncommittedStarts;
use stream::EarlyStream;
pub use view::{MemberRole, MemberView};

/// What recovery found out about a range.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The fold of the log.
    pub state: RangeState,
    /// Highest promise.
    pub promised: Epoch,
    /// Last epoch into which the log was reconciled; 0 when it was lost with the log.
    pub marker: Epoch,
    /// The fold misses entries that had been durable: nothing may be appended behind it.
    pub damaged: bool,
}

/// One member of one range's chain.
#[derive(Clone, Debug)]
pub struct Replica {
    range: RangeKey,
    me: ChainMember,
    state: RangeState,
    /// The state misses entries that rotted.
    damaged: bool,
    /// While it does.
    mending: Mending,
    /// Who may have what it misses.
    mend_members: Vec<ChainMember>,
    standing: Standing,
    promised: Epoch,
    marker: Epoch,
    /// The own log is durable up to here.
    durable: LogIndex,
    /// Known to be committed.
    committed: LogPoint,
    /// Entries behind `committed`, oldest first, without a gap, unless `untracked`.
    uncommitted: VecDeque<Uncommitted>,
    /// Where the uncommitted records of a partition begin, for those that have any.
    uncommitted_from: HashMap<PartitionKey, Offset>,
    /// Which records lie behind `committed` is not known: they were recovered, or copied in great number.
    untracked: bool,
    uncommitted_starts: UncommittedStarts,
    /// The newest entry about a group that was folded in this life.
    groups_at: LogPoint,
    /// Topics deleted in this epoch, oldest first: a message from before the deletion may still arrive, and one of
    /// an older epoch is refused anyway.
    deleted_topics: VecDeque<TopicId>,
    /// Answered when their index is committed, oldest first.
    waiting: VecDeque<(LogIndex, RequestId, Answer)>,
    /// Highest promise asked for since this process began.
    sealed: Epoch,
    /// Seals that wait for what is in flight, oldest first.
    seals: VecDeque<RequestId>,
    /// The one end of the promised epoch, once the controller named it (R5d).
    decided: Option<LogPoint>,
    /// A reconcile that waits for something.
    reconcile: Option<RequestId>,
    /// While reconciling or learning from a source.
    copying: Option<Copying>,
    /// A promise is being made durable.
    promising: bool,
    /// The log is being brought to this end: cut, dropped, or continued by a whole segment.
    cutting: Option<LogPoint>,
    /// The highest epoch of an active chain that this process was told to learn from: with a marker below it, this member
    /// is a survivor of no active chain, now or later, unless it is reconciled again.
    learned: Epoch,
    /// A marker is being made durable.
    marking: Option<Epoch>,
    early_stream: Option<EarlyStream>,
    last_stream: StreamId,
    last_copy: CopyId,
    /// Ticks since the controller last spoke to it about the promised epoch.
    quiet_ticks: u32,
    /// The last chain that it acted in had no other member.
    was_alone: bool,
    /// Only for [`AcknowledgementsKeptAcrossEpochs`](crate::chain::planted::PlantedBug): nothing without it.
    kept_acknowledgement: LogIndex,
}

impl Replica {
    /// A member as it stands after a start: it acts in no epoch until the controller has made a new one (R6).
    pub fn new(range: RangeKey, me: ChainMember, recovered: Recovered) -> Self {
        let end = recovered.state.end().index;
        let resumes = is_restart_forgotten() && recovered.marker == recovered.promised && end > LogIndex(0);
        Self {
            range,
            me,
            state: recovered.state,
            damaged: recovered.damaged,
            mending: Mending::default(),
            mend_members: Vec::new(),
            standing: if resumes { Standing::Reconciled } else { Standing::Idle },
            promised: recovered.promised,
            marker: recovered.marker,
            durable: end,
            committed: LogPoint::START,
            uncommitted: VecDeque::new(),
            uncommitted_from: HashMap::new(),
            untracked: end > LogIndex(0),
            uncommitted_starts: UncommittedStarts::default(),
            groups_at: LogPoint::START,
            deleted_topics: VecDeque::new(),
            waiting: VecDeque::new(),
            sealed: Epoch(0),
            seals: VecDeque::new(),
            decided: None,
            reconcile: None,
            copying: None,
            promising: false,
            cutting: None,
            learned: Epoch(0),
            marking: None,
            early_stream: None,
            last_stream: StreamId(0),
            last_copy: CopyId(0),
            quiet_ticks: 0,
            was_alone: false,
            kept_acknowledgement: LogIndex(0),
        }
    }

    /// The fold of the log.
    pub const fn state(&self) -> &RangeState {
        &self.state
    }

    /// Where it stands.
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Who it is.
    pub const fn me(&self) -> ChainMember {
        self.me
    }

    /// Last epoch into which the log was reconciled, durably.
    pub const fn marker(&self) -> Epoch {
        self.marker
    }

    /// Known to be committed: what a stream to the successor tells along with its entries.
    pub const fn committed(&self) -> LogIndex {
        self.committed.index
    }

    /// Known to be committed and durable here: what may be read (R4).
    pub fn readable_index(&self) -> LogIndex {
        self.committed.index.min(self.durable)
    }

    /// The epoch a client should believe in.
    pub fn epoch(&self) -> Epoch {
        self.promised
    }

    /// Whether reads may be served, to a client that believes in `believed`.
    pub fn check_read(&self, believed: Epoch) -> Result<(), ErrorCode> {
        match &self.standing {
            Standing::Idle | Standing::Learning(_) => Err(ErrorCode::NotOwner),
            _ if believed != self.promised => Err(ErrorCode::Stale),
            // R4: nobody waits on one that is left out, nor on one that cannot say where a partition's committed end is.
            _ if self.is_silent() || self.untracked => Err(ErrorCode::Stale),
            _ => Ok(()),
        }
    }

    fn is_silent(&self) -> bool {
        match &self.standing {
            Standing::Active(active) => active.is_silent(),
            Standing::Failed => !self.was_alone && self.quiet_ticks >= SILENCE_TICKS_MAX,
            _ => self.quiet_ticks >= SILENCE_TICKS_MAX,
        }
    }

    /// Log start and committed end of a partition.
    pub fn offsets(&self, key: PartitionKey) -> Option<(Offset, Offset)> {
        let partition = self.state.partition(key)?;
        let committed_end = self.uncommitted_from.get(&key).copied().unwrap_or(partition.next_offset);
        Some((partition.log_start.min(committed_end), committed_end))
    }

    /// The epoch in which this member is the head of an active chain.
    pub fn head_epoch(&self) -> Option<Epoch> {
        match &self.standing {
            Standing::Active(active) if active.is_head() => Some(active.epoch()),
            _ => None,
        }
    }

    /// Whether it was lately heard from whoever stands behind it, if anybody does. A head that was not may be one no more.
    pub fn hears_chain(&self) -> bool {
        match &self.standing {
            Standing::Active(active) => active.hears_successor(),
            _ => false,
        }
    }

    /// Whether this member acts in a chain, as head or behind it: only then is `committed` known for the whole log.
    pub const fn acts(&self) -> bool {
        matches!(self.standing, Standing::Active(_))
    }

    /// Below this, records of a partition are gone for every member of the chain, whatever happens; none: all of them,
    /// because the partition is deleted, or was never here. What may be freed on a disk, while this member [acts].
    ///
    /// [acts]: Self::acts
    pub fn committed_log_start(&self, key: PartitionKey) -> Option<Offset> {
        self.uncommitted_starts.of(key, &self.state)
    }

    /// Grows whenever a [`Self::committed_log_start`] does, or a partition's deletion is committed.
    pub const fn log_starts_settled(&self) -> LogIndex {
        self.uncommitted_starts.settled()
    }

    /// Takes one input; what must follow is appended to `out`.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Produce { request, header, believed } => self.produce(now, request, header, believed, out),
            Input::AppendControl { request, entry, believed } => {
                self.append_control(now, request, entry, believed, out);
            }
            Input::Durable { index } => self.durable_advanced(index, out),
            Input::WriteFailed => self.write_failed(out),
            Input::Replicate { request, epoch, stream, header, control, committed } => {
                if self.takes_from(epoch, stream) {
                    self.replicate(request, header, control, committed, out);
                }
            }
            Input::CommittedAdvanced { epoch, stream, index } => {
                if self.takes_from(epoch, stream) {
                    self.committed_advanced(index, out);
                }
            }
            Input::SuccessorAcknowledged { epoch, stream, index } => {
                self.successor_acknowledged(epoch, stream, index, out);
            }
            Input::StreamRequested { epoch, stream, from, to } => self.stream_requested(epoch, stream, from, to, out),
            Input::StreamOpened { epoch, stream, end } => self.stream_opened(epoch, stream, end, out),
            Input::StreamRefused { epoch, stream, .. } => self.stream_refused(epoch, stream, out),
            Input::PeerLost { member } => self.peer_lost(member, out),
            Input::Seal { request, epoch, members } => self.seal(request, epoch, members, out),
            Input::PromiseDurable { epoch } => self.promise_persisted(epoch, out),
            Input::Reconcile { request, epoch, end, source } => self.reconcile(request, epoch, end, source, out),
            Input::Activate { request, epoch, chain, start } => self.activate(request, epoch, &chain, start, out),
            Input::Learn { request, epoch, chain, source } => self.learn(request, epoch, &chain, source, out),
            Input::Copied { request, copy, header, control } => self.copied(request, copy, header, control, out),
            Input::CopyEnded { copy, limit } => self.copy_ended(copy, limit, out),
            Input::SegmentPart { copy, limit, at } => self.segment_part(copy, limit, at, out),
            Input::SegmentReady { copy, limit, end } => self.segment_ready(copy, limit, end, out),
            Input::CopyGone { copy, limit } => self.copy_gone(copy, limit, out),
            Input::CopyDisagreed { copy, limit } => self.copy_disagreed(copy, limit, out),
            Input::CopyFailed { copy, code } => self.copy_failed(copy, code, out),
            Input::PointRead { index, point } => self.point_read(index, point, out),
            Input::Truncated { state } => self.truncated(*state, out),
            Input::CutRefused => self.cut_refused(out),
            Input::MarkerDurable { epoch } => self.marker_persisted(epoch, out),
            Input::Mended { outcome } => self.mended(outcome),
            Input::Tick => self.tick(out),
        }
    }

    fn tick(&mut self, out: &mut Vec<Output>) {
        self.quiet_ticks = (self.quiet_ticks + 1).min(SILENCE_TICKS_MAX);
        self.neighbours_tick(out);
        self.copy_tick(out);
        self.mending_tick(out);
    }
}

#[cfg(test)]
mod tests;
