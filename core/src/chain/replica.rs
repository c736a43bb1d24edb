//! One member of one range's chain, as a pure machine: `step(now, input) -> outputs`.
//!
//! ```text
//!              seal(e > promised)             promise durable,        reconcile(e),
//!            ┌──────────────────┐             writes finished         then marker durable
//!   Idle ────┤ from any state   ├──► Sealing(e) ──────────► Sealed(e) ──────────► Reconciled(e)
//!            └──────────────────┘        ▲                                             │ activate(e)
//!                                        └────────────── seal(e' > e) ◄──────── Active(e)
//!   a failed durable write, in any state: Failed, for good
//! ```
//!
//! | state | takes writes | commits | serves reads |
//! |---|---|---|---|
//! | Idle | no | no | no |
//! | Sealing, Sealed, Reconciled | no | no | up to what it knew to be committed |
//! | Active | as head | yes | up to what it knows to be committed |
//! | Failed | no | no | up to what it knew to be committed |
//!
//! A member whose log lost entries for which its state is not known (`Recovered::damaged`) goes through the same states and
//! says so in its seal report. It takes no writes in any of them, its end never moves, and it is no survivor of a chain
//! that has a better one (R12); the only member of a chain is activated all the same, so that what it has can be read.
//!
//! The rules quoted as R1 … R12 are those of `docs/REPLICATION.md`. The machine does no I/O: it asks for appends,
//! promises and markers to be made durable, and is told when they are. It knows bodies only by their request.

mod role;
mod starts;

use std::collections::{HashMap, VecDeque};

use crate::chain::ChainMember;
use crate::control::ControlEntry;
use crate::dedup::DedupVerdict;
use crate::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::DELETED_TOPICS_REMEMBERED_MAX;
use crate::range_state::RangeState;
use crate::wire::codec::Wire;
use crate::wire::controller::SealReport;
pub use role::Standing;
use role::{Active, Uncommitted};
use starts::UncommittedStarts;

/// Names a request of the interpreter: the machine only gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

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
        /// Committed up to here.
        index: LogIndex,
    },
    /// The successor holds everything up to here durably.
    SuccessorAcknowledged {
        /// The successor's epoch.
        epoch: Epoch,
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
    },
    /// The log was cut as asked; `state` is the fold of what is left.
    Truncated {
        /// The fold.
        state: Box<RangeState>,
    },
    /// The marker asked for is durable.
    MarkerDurable {
        /// Which.
        epoch: Epoch,
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
    /// Time has passed.
    Tick,
}

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
        /// Up to here.
        index: LogIndex,
    },
    /// Tell the successor what is committed.
    TellCommitted {
        /// In this epoch.
        epoch: Epoch,
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
    /// The predecessor sent what cannot follow: reset the link.
    ResetUpstream,
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
#[derive(Debug)]
pub struct Replica {
    range: RangeKey,
    me: ChainMember,
    state: RangeState,
    /// The state misses entries that rotted.
    damaged: bool,
    standing: Standing,
    promised: Epoch,
    marker: Epoch,
    /// The own log is durable up to here.
    durable: LogIndex,
    /// Known to be committed.
    committed: LogIndex,
    /// Entries behind `committed`, oldest first.
    uncommitted: VecDeque<Uncommitted>,
    /// Where the uncommitted records of a partition begin, for those that have any.
    uncommitted_from: HashMap<PartitionKey, Offset>,
    uncommitted_starts: UncommittedStarts,
    /// Topics deleted in this epoch, oldest first: a message from before the deletion may still arrive, and one of
    /// an older epoch is refused anyway.
    deleted_topics: VecDeque<TopicId>,
    /// Answered when their index is committed, oldest first.
    waiting: VecDeque<(LogIndex, RequestId, Answer)>,
    /// A seal, reconcile or activate that waits for something durable.
    change: Option<(RequestId, Option<LogPoint>)>,
    promise_durable: bool,
}

impl Replica {
    /// A member as it stands after a start: it acts in no epoch until the controller has made a new one (R6).
    pub fn new(range: RangeKey, me: ChainMember, recovered: Recovered) -> Self {
        let durable = recovered.state.end().index;
        Self {
            range,
            me,
            state: recovered.state,
            damaged: recovered.damaged,
            standing: Standing::Idle,
            promised: recovered.promised,
            marker: recovered.marker,
            durable,
            committed: LogIndex(0),
            uncommitted: VecDeque::new(),
            uncommitted_from: HashMap::new(),
            uncommitted_starts: UncommittedStarts::default(),
            deleted_topics: VecDeque::new(),
            waiting: VecDeque::new(),
            change: None,
            promise_durable: true,
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

    /// Known to be committed and durable here: what may be read (R4).
    pub fn readable_index(&self) -> LogIndex {
        self.committed.min(self.durable)
    }

    /// The epoch a client should believe in.
    pub fn epoch(&self) -> Epoch {
        self.promised
    }

    /// Whether reads may be served, to a client that believes in `believed`.
    pub fn check_read(&self, believed: Epoch) -> Result<(), ErrorCode> {
        match &self.standing {
            Standing::Idle => Err(ErrorCode::NotOwner),
            _ if believed != self.promised => Err(ErrorCode::Stale),
            _ => Ok(()),
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
            Standing::Active(active) if active.is_head() => Some(active.epoch),
            _ => None,
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
            Input::Replicate { request, epoch, header, control, committed } => {
                self.replicate(request, epoch, header, control, committed, out);
            }
            Input::CommittedAdvanced { epoch, index } => self.committed_advanced(epoch, index, out),
            Input::SuccessorAcknowledged { epoch, index } => self.successor_acknowledged(epoch, index, out),
            Input::Durable { index } => self.durable_advanced(index, out),
            Input::WriteFailed => self.write_failed(out),
            Input::Seal { request, epoch } => self.seal(request, epoch, out),
            Input::PromiseDurable { epoch } => self.promise_persisted(epoch, out),
            Input::Reconcile { request, epoch, end } => self.reconcile(request, epoch, end, out),
            Input::Truncated { state } => self.truncated(*state, out),
            Input::MarkerDurable { epoch } => self.marker_persisted(epoch, out),
            Input::Activate { request, epoch, chain, start } => self.activate(request, epoch, &chain, start, out),
            Input::Tick => self.tick(out),
        }
    }

    // ---- The head: R2 ----

    /// The epoch in which this member takes writes, or how to refuse one.
    fn writable(&self, believed: Epoch) -> Result<Epoch, Answer> {
        let refused = |code, epoch| Answer::Refused { code, epoch };
        match &self.standing {
            Standing::Idle => Err(refused(ErrorCode::NotOwner, self.promised)),
            Standing::Failed => Err(refused(ErrorCode::RangeFailed, self.promised)),
            Standing::Active(active) if !active.is_head() => Err(refused(ErrorCode::NotOwner, self.promised)),
            Standing::Active(_) if self.damaged => Err(refused(ErrorCode::RangeFailed, self.promised)),
            Standing::Active(active) if active.epoch == believed => Ok(active.epoch),
            _ => Err(refused(ErrorCode::Stale, self.promised)),
        }
    }

    fn produce(
        &mut self,
        now: Timestamp,
        request: RequestId,
        header: EntryHeader,
        believed: Epoch,
        out: &mut Vec<Output>,
    ) {
        let refuse = |code| Answer::Refused { code, epoch: Epoch(0) };
        let refusal = match self.writable(believed) {
            Err(answer) => Some(answer),
            Ok(_) => self.check_batch(&header).err().map(refuse),
        };
        if let Some(answer) = refusal {
            return out.push(Output::Answer { request, answer });
        }
        match self.state.producers().check(&header) {
            DedupVerdict::New => self.append_batch(now, request, header, out),
            DedupVerdict::Duplicate(stored) => {
                let (base_offset, append_timestamp) = (stored.base_offset, stored.append_timestamp);
                self.answer_when_committed(stored.index, request, Answer::Done { base_offset, append_timestamp }, out);
            }
            // Its offset is forgotten, but it may still be uncommitted only if its successors are: wait for them all.
            DedupVerdict::DuplicateForgotten => {
                let answer = refuse(ErrorCode::DuplicateSequence);
                self.answer_when_committed(self.state.end().index, request, answer, out);
            }
            verdict => out.push(Output::Answer { request, answer: refuse(refusal_of(&verdict)) }),
        }
    }

    fn check_batch(&self, header: &EntryHeader) -> Result<(), ErrorCode> {
        let partition = self.state.partition(header.partition_key()).ok_or(ErrorCode::PartitionNotReady)?;
        if header.kind != EntryKind::Batch || header.last_offset_delta != header.record_count - 1 {
            return Err(ErrorCode::InvalidBatch);
        }
        if header.body_bytes > partition.config.batch_bytes_max {
            return Err(ErrorCode::BatchTooLarge);
        }
        Ok(())
    }

    fn append_batch(&mut self, now: Timestamp, request: RequestId, mut header: EntryHeader, out: &mut Vec<Output>) {
        let partition = self.state.partition(header.partition_key()).expect("the batch was checked against it");
        header.base_offset = partition.next_offset;
        self.append(now, header, None, AppendBody::Request(request), out);
        let (index, base_offset, append_timestamp) = self.newest();
        self.waiting.push_back((index, request, Answer::Done { base_offset, append_timestamp }));
    }

    fn append_control(
        &mut self,
        now: Timestamp,
        request: RequestId,
        entry: ControlEntry,
        believed: Epoch,
        out: &mut Vec<Output>,
    ) {
        if let Err(answer) = self.writable(believed) {
            return out.push(Output::Answer { request, answer });
        }
        if let Err(code) = self.check_life(&entry) {
            return out.push(Output::Answer { request, answer: Answer::Refused { code, epoch: Epoch(0) } });
        }
        let done = Answer::Done { base_offset: Offset(0), append_timestamp: now };
        if self.state.holds(&entry) {
            return self.answer_when_committed(self.state.end().index, request, done, out);
        }
        let body = entry.to_bytes();
        let header = control_header(self.range, &entry, &body);
        self.append(now, header, Some(&entry), AppendBody::Control(body), out);
        self.waiting.push_back((self.state.end().index, request, done));
    }

    /// A topic id is never used again, so whatever opens a partition of a deleted one comes late.
    fn check_life(&mut self, entry: &ControlEntry) -> Result<(), ErrorCode> {
        let topic = entry.partition().topic;
        let is_deleted = self.deleted_topics.contains(&topic);
        match entry {
            ControlEntry::PartitionOpen { .. } if is_deleted => return Err(ErrorCode::UnknownTopic),
            ControlEntry::PartitionDelete { .. } if !is_deleted => {
                if self.deleted_topics.len() == DELETED_TOPICS_REMEMBERED_MAX {
                    self.deleted_topics.pop_front();
                }
                self.deleted_topics.push_back(topic);
            }
            _ => {}
        }
        Ok(())
    }

    /// Assigns index, epoch, time and hash, folds the entry in and asks for it to be written and forwarded.
    fn append(
        &mut self,
        now: Timestamp,
        mut header: EntryHeader,
        control: Option<&ControlEntry>,
        body: AppendBody,
        out: &mut Vec<Output>,
    ) {
        let Standing::Active(active) = &self.standing else { unreachable!("only an active head appends") };
        header.epoch = active.epoch;
        header.range = self.range;
        header.index = self.state.end().index.next();
        header.append_timestamp = now.max(self.state.last_append_timestamp());
        header.seal(self.state.end().hash);
        let forward = active.has_successor();
        self.fold(&header, control);
        out.push(Output::Append { header, body, forward });
    }

    fn fold(&mut self, header: &EntryHeader, control: Option<&ControlEntry>) {
        self.uncommitted_starts.note(&self.state, header.index, control);
        self.state.apply(header, control);
        let entry = Uncommitted::of(header);
        if let Some(partition) = entry.partition {
            self.uncommitted_from.entry(partition).or_insert(entry.base_offset);
        }
        self.uncommitted.push_back(entry);
    }

    fn newest(&self) -> (LogIndex, Offset, Timestamp) {
        let newest = self.uncommitted.back().expect("an entry was just folded in");
        (newest.index, newest.base_offset, newest.append_timestamp)
    }

    /// A duplicate is answered only when its original is committed.
    fn answer_when_committed(&mut self, index: LogIndex, request: RequestId, answer: Answer, out: &mut Vec<Output>) {
        if index <= self.committed {
            return out.push(Output::Answer { request, answer });
        }
        let place = self.waiting.partition_point(|(waiting, _, _)| *waiting <= index);
        self.waiting.insert(place, (index, request, answer));
    }

    // ---- Members behind the head: R1, R3 ----

    fn replicate(
        &mut self,
        request: RequestId,
        epoch: Epoch,
        header: EntryHeader,
        control: Option<ControlEntry>,
        committed: LogIndex,
        out: &mut Vec<Output>,
    ) {
        let Standing::Active(active) = &self.standing else { return };
        if active.epoch != epoch || active.is_head() {
            return;
        }
        if self.damaged {
            return out.push(Output::ResetUpstream);
        }
        let forward = active.has_successor();
        let end = self.state.end();
        if header.index <= end.index {
            // R1: at or below the end with an equal hash it is ignored; what was committed before is not asked again.
            let known = self.uncommitted.iter().find(|entry| entry.index == header.index);
            if known.is_some_and(|entry| entry.hash != header.running_hash) {
                out.push(Output::ResetUpstream);
            }
        } else if header.index == end.index.next() && header.hash_after(end.hash) == header.running_hash {
            self.fold(&header, control.as_ref());
            out.push(Output::Append { header, body: AppendBody::Request(request), forward });
        } else {
            return out.push(Output::ResetUpstream);
        }
        self.committed_advanced(epoch, committed, out);
    }

    fn committed_advanced(&mut self, epoch: Epoch, index: LogIndex, out: &mut Vec<Output>) {
        if matches!(&self.standing, Standing::Active(active) if active.epoch == epoch && !active.is_head()) {
            self.commit(index.min(self.state.end().index), out);
        }
    }

    fn successor_acknowledged(&mut self, epoch: Epoch, index: LogIndex, out: &mut Vec<Output>) {
        if let Standing::Active(active) = &mut self.standing
            && active.epoch == epoch
            && active.has_successor()
        {
            active.successor_acknowledged = active.successor_acknowledged.max(index);
            self.acknowledge(out);
        }
    }

    fn durable_advanced(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        debug_assert!(index <= self.state.end().index, "what was never appended cannot be durable");
        self.durable = self.durable.max(index);
        self.acknowledge(out);
        self.report_seal_if_due(out);
    }

    /// R3: acknowledges what is durable here and acknowledged behind, in this epoch; at the head, that is committed.
    fn acknowledge(&mut self, out: &mut Vec<Output>) {
        let Standing::Active(active) = &mut self.standing else { return };
        let held = active.held(self.durable);
        if active.is_head() {
            self.commit(held, out);
        } else if held > active.acknowledged_upstream {
            active.acknowledged_upstream = held;
            out.push(Output::AcknowledgeUpstream { epoch: active.epoch, index: held });
        }
    }

    fn commit(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        if index <= self.committed {
            return;
        }
        self.committed = index;
        while self.uncommitted.front().is_some_and(|entry| entry.index <= index) {
            let entry = self.uncommitted.pop_front().expect("its front was just looked at");
            self.uncommitted_from_moves_past(&entry);
        }
        out.push(Output::Committed { index });
        while self.waiting.front().is_some_and(|(waiting, _, _)| *waiting <= index) {
            let (_, request, answer) = self.waiting.pop_front().expect("its front was just looked at");
            out.push(Output::Answer { request, answer });
        }
    }

    fn uncommitted_from_moves_past(&mut self, entry: &Uncommitted) {
        let Some(partition) = entry.partition else {
            return self.uncommitted_starts.committed(entry.concerns, self.committed);
        };
        if self.state.partition(partition).is_some_and(|state| state.next_offset > entry.next_offset) {
            self.uncommitted_from.insert(partition, entry.next_offset);
        } else {
            self.uncommitted_from.remove(&partition);
        }
    }

    fn tick(&mut self, out: &mut Vec<Output>) {
        let committed = self.committed;
        if let Standing::Active(active) = &mut self.standing
            && active.has_successor()
            && active.told_committed < committed
        {
            active.told_committed = committed;
            out.push(Output::TellCommitted { epoch: active.epoch, index: committed });
        }
    }

    // ---- Change: R5, R10, R11 ----

    fn seal(&mut self, request: RequestId, epoch: Epoch, out: &mut Vec<Output>) {
        if epoch <= self.promised {
            let report = self.seal_report(Some(ErrorCode::Stale));
            return out.push(Output::ReportSeal { request, report });
        }
        self.abandon_change(out);
        if !matches!(self.standing, Standing::Failed) {
            self.standing = Standing::Sealing;
        }
        self.promised = epoch;
        self.promise_durable = false;
        self.change = Some((request, None));
        self.refuse_waiting(ErrorCode::Stale, out);
        out.push(Output::PersistPromise { epoch });
    }

    fn promise_persisted(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        if epoch == self.promised {
            self.promise_durable = true;
            self.report_seal_if_due(out);
        }
    }

    /// Reports once the promise is durable and every write in flight has finished.
    fn report_seal_if_due(&mut self, out: &mut Vec<Output>) {
        let failed = matches!(self.standing, Standing::Failed);
        let finished = failed || (self.standing == Standing::Sealing && self.durable == self.state.end().index);
        if !self.promise_durable || !finished {
            return;
        }
        let Some((request, _)) = self.change.take() else { return };
        let error = failed.then_some(ErrorCode::RangeFailed);
        if !failed {
            self.standing = Standing::Sealed;
        }
        out.push(Output::ReportSeal { request, report: self.seal_report(error) });
    }

    fn seal_report(&self, error: Option<ErrorCode>) -> SealReport {
        SealReport {
            range: self.range.range,
            error,
            promised: self.promised,
            marker: self.marker,
            end: self.state.end(),
            last_epoch: self.state.last_epoch(),
            known_committed: self.committed,
            damaged: self.damaged,
        }
    }

    fn reconcile(&mut self, request: RequestId, epoch: Epoch, end: LogPoint, out: &mut Vec<Output>) {
        let own = self.state.end();
        let refused = |code, epoch| Output::Answer { request, answer: Answer::Refused { code, epoch } };
        if self.standing != Standing::Sealed || epoch != self.promised || self.marker >= epoch {
            return out.push(refused(ErrorCode::Stale, self.promised));
        }
        // R5e: never below what is known to be committed; and what is missing must be copied first.
        // Nor is a damaged log cut: what is lost must stay known to be lost (R12).
        let is_cut = end.index < own.index;
        if end.index < self.committed
            || end.index > own.index
            || (end.index == own.index && end != own)
            || (is_cut && self.damaged)
        {
            return out.push(refused(ErrorCode::RangeFailed, self.promised));
        }
        self.change = Some((request, Some(end)));
        self.standing = Standing::Reconciling;
        out.push(if end == own { Output::PersistMarker { epoch } } else { Output::Truncate { end } });
    }

    fn truncated(&mut self, state: RangeState, out: &mut Vec<Output>) {
        let Some((request, Some(end))) = self.change else { return };
        self.durable = state.end().index;
        self.state = state;
        self.uncommitted.retain(|entry| entry.index <= end.index);
        let kept = self.uncommitted.iter().rev().filter_map(|entry| Some((entry.partition?, entry.base_offset)));
        self.uncommitted_from = kept.collect();
        self.uncommitted_starts.truncated(end.index);
        if self.state.end() == end {
            out.push(Output::PersistMarker { epoch: self.promised });
        } else {
            self.change = None;
            self.standing = Standing::Sealed;
            let answer = Answer::Refused { code: ErrorCode::RangeFailed, epoch: self.promised };
            out.push(Output::Answer { request, answer });
        }
    }

    fn marker_persisted(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        self.marker = self.marker.max(epoch);
        if self.standing == Standing::Reconciling && epoch == self.promised {
            self.standing = Standing::Reconciled;
            if let Some((request, _)) = self.change.take() {
                out.push(Output::Answer { request, answer: DONE });
            }
        }
    }

    fn activate(
        &mut self,
        request: RequestId,
        epoch: Epoch,
        chain: &[ChainMember],
        start: LogPoint,
        out: &mut Vec<Output>,
    ) {
        let repeated = matches!(&self.standing, Standing::Active(active) if active.epoch == epoch);
        if repeated {
            return out.push(Output::Answer { request, answer: DONE });
        }
        let place = chain.iter().position(|member| *member == self.me);
        // R1: promised, marker, identity and start must all agree.
        let agrees = self.standing == Standing::Reconciled && self.promised == epoch && self.marker == epoch;
        let Some(place) = place.filter(|_| agrees && self.state.end() == start) else {
            let answer = Answer::Refused { code: ErrorCode::Stale, epoch: self.promised };
            return out.push(Output::Answer { request, answer });
        };
        self.standing = Standing::Active(Active::new(epoch, place, chain.len(), start.index));
        self.deleted_topics.clear();
        out.push(Output::Answer { request, answer: DONE });
        self.commit(start.index, out);
    }

    fn write_failed(&mut self, out: &mut Vec<Output>) {
        self.standing = Standing::Failed;
        self.refuse_waiting(ErrorCode::RangeFailed, out);
        self.report_seal_if_due(out);
        self.abandon_change(out);
    }

    fn refuse_waiting(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        let epoch = self.promised;
        for (_, request, _) in self.waiting.drain(..) {
            out.push(Output::Answer { request, answer: Answer::Refused { code, epoch } });
        }
    }

    /// A higher seal, or a failure, ends what an earlier epoch began.
    fn abandon_change(&mut self, out: &mut Vec<Output>) {
        if let Some((request, target)) = self.change.take() {
            out.push(match target {
                None => Output::ReportSeal { request, report: self.seal_report(Some(ErrorCode::Stale)) },
                Some(_) => {
                    let answer = Answer::Refused { code: ErrorCode::Stale, epoch: self.promised };
                    Output::Answer { request, answer }
                }
            });
        }
    }
}

const DONE: Answer = Answer::Done { base_offset: Offset(0), append_timestamp: Timestamp(0) };

fn refusal_of(verdict: &DedupVerdict) -> ErrorCode {
    match verdict {
        DedupVerdict::OutOfOrder => ErrorCode::OutOfOrder,
        DedupVerdict::UnknownProducer => ErrorCode::UnknownProducer,
        DedupVerdict::Fenced => ErrorCode::ProducerFenced,
        _ => ErrorCode::InvalidBatch,
    }
}

fn control_header(range: RangeKey, entry: &ControlEntry, body: &[u8]) -> EntryHeader {
    let PartitionKey { topic, partition } = entry.partition();
    EntryHeader {
        kind: EntryKind::Control,
        body_format: BodyFormat::Control,
        codec: Codec::None,
        body_bytes: body.len() as u32,
        uncompressed_bytes: body.len() as u32,
        range,
        attributes: 0,
        epoch: Epoch(0),
        index: LogIndex(0),
        topic,
        partition,
        record_count: 0,
        base_offset: Offset(0),
        last_offset_delta: 0,
        base_sequence: Sequence(0),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        append_timestamp: Timestamp(0),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(0),
        body_crc: crate::checksum::crc32c(body),
        running_hash: RunningHash(0),
    }
}

#[cfg(test)]
mod tests;
