//! One range as this shard has it: interprets the pure [`Replica`] over the range's log.
//!
//! Whatever happens to the range is an [`Input`]; [`Range::drive`] steps the machine and carries its [`Output`]s out. The
//! machine decides, this file only does: it appends, persists promises and markers, answers. Two facts live here because
//! they are about files and not about the protocol: that a range's first acknowledgement waits until "this range has a
//! log" is durable in the promise file, and that a segment's snapshot is taken before the entry that rolls it.

mod change;
mod copy;
mod entries;
mod explain;
mod groups;
mod inbox;
mod mending;
mod pending;
mod recovery;
mod retention;
mod scrub;
mod segments;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{Complaint, PeerBody, PeerMessage};
use minikafka_core::chain::replica::{Answer, AppendBody, Input, Output, Replica, RequestId};
use minikafka_core::control::ControlEntry;
use minikafka_core::entry::{EntryHeader, entry_bytes};
use minikafka_core::topic::TopicConfig;
use minikafka_core::wire::Wire;
use minikafka_core::{Epoch, ErrorCode, LogIndex, Offset, PartitionKey, RangeKey};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Notify;
use minikafka_storage::{AppendError, Body, LogError, Promise, PromiseFile, RangeLog, SharedSlice};
use quanta::Instant;

use crate::clock::Clock;
use crate::copy_pace::CopyPace;
use crate::explain::Trace;
use crate::metrics::{ShardMetrics, Stages};
use crate::peers::{Peers, Room};
use explain::Explained;
pub use groups::GroupCompletion;
use groups::Groups;
use inbox::Inbox;
use mending::Mending;
pub use pending::{Changed, Completion};
use pending::{Pending, PendingRequests};
use retention::Upkeep;
use segments::CopiedSegment;
use stream::Outgoing;

/// No control entry about a partition is longer.
const PARTITION_CONTROL_BYTES_MAX: usize = 256;
/// While the disk is full, batches leave this much of the last segment to control entries: without a log start, nothing
/// would ever be deleted and no space come back.
const CONTROL_ROOM_BYTES: usize = 256 << 10;

/// Whether "this range has a log" is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogPromise {
    /// There is no log, or nobody said yet that there is.
    Absent,
    /// Being written.
    Writing,
    /// Durable: acknowledgements may go out.
    Durable,
}

/// What may be read of a partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionOffsets {
    /// First offset that can be fetched.
    pub log_start: Offset,
    /// Offset after the last committed record.
    pub committed_end: Offset,
    /// Offset after the last appended record.
    pub next_offset: Offset,
    /// Where older offsets are, if anywhere.
    pub previous: Option<RangeKey>,
}

/// What the ranges of a shard share.
pub struct RangeShared<D: Disk> {
    /// Who this shard is.
    pub me: ChainMember,
    /// Where promises are kept.
    pub promises: PromiseFile<D>,
    /// The disk, to spawn on.
    pub disk: D,
    /// The clock.
    pub clock: Clock,
    /// What it reaches other members by.
    pub peers: Rc<dyn Peers>,
    /// What happens is counted here.
    pub metrics: Rc<ShardMetrics>,
    /// How fast learners may copy from this shard.
    pub copy_pace: CopyPace,
    /// How much of this shard's logs in use was mended so far: what tells before and after of it.
    pub mended: Cell<u64>,
}

/// What an entry is appended from.
struct Appending<'a, D: Disk> {
    body: Body<'a, D>,
    /// Who asked how long it takes.
    trace: Option<Rc<Trace>>,
}

/// One range.
pub struct Range<D: Disk> {
    key: RangeKey,
    shared: Rc<RangeShared<D>>,
    log: RangeLog<D>,
    replica: RefCell<Replica>,
    pending: RefCell<PendingRequests>,
    inputs: RefCell<VecDeque<Input>>,
    /// Empty between inputs; kept for its memory.
    outputs: RefCell<Vec<Output>>,
    driving: Cell<bool>,
    log_promise: Cell<LogPromise>,
    committed: Notify,
    upkeep: Upkeep,
    groups: Groups,
    inbox: Inbox,
    outgoing: Outgoing,
    copies_answered: Cell<usize>,
    /// A sealed segment of a source that is not in the log yet.
    copied_segment: RefCell<Option<CopiedSegment<D>>>,
    mending: Mending,
    stages: Stages,
    explained: Explained,
}

impl<D: Disk> Range<D> {
    /// The range's name.
    pub const fn key(&self) -> RangeKey {
        self.key
    }

    /// Its log, to read from.
    pub const fn log(&self) -> &RangeLog<D> {
        &self.log
    }

    /// Notified whenever more became readable, or a new epoch began.
    pub const fn committed(&self) -> &Notify {
        &self.committed
    }

    /// The epoch a client should believe in.
    pub fn epoch(&self) -> Epoch {
        self.replica.borrow().epoch()
    }

    /// Where its machine is, for a simulation that compares members.
    pub fn with_member<T>(&self, look: impl FnOnce(&Replica) -> T) -> T {
        look(&self.replica.borrow())
    }

    /// Requests that wait for a commit, or for a change of the chain.
    pub fn requests_waiting(&self) -> usize {
        self.pending.borrow().len()
    }

    /// When the oldest entry was appended that the successor has not acknowledged, by the shard's clock.
    pub fn unacknowledged_since_ns(&self) -> Option<u64> {
        self.stages.unacknowledged_since_ns()
    }

    /// Whether reads may be served to a client that believes in `believed`.
    pub fn check_read(&self, believed: Epoch) -> Result<(), ErrorCode> {
        self.replica.borrow().check_read(believed)
    }

    /// What may be read.
    pub fn readable_index(&self) -> LogIndex {
        self.replica.borrow().readable_index()
    }

    /// What may be read of a partition; none when it is not open here.
    pub fn offsets(&self, key: PartitionKey) -> Option<PartitionOffsets> {
        let replica = self.replica.borrow();
        let (log_start, committed_end) = replica.offsets(key)?;
        let state = replica.state().partition(key)?;
        Some(PartitionOffsets { log_start, committed_end, next_offset: state.next_offset, previous: state.previous })
    }

    /// Settings of a partition; none when it is not open here.
    pub fn config_of(&self, key: PartitionKey) -> Option<TopicConfig> {
        self.replica.borrow().state().partition(key).map(|state| state.config)
    }

    /// Waits, first come first served, until the log takes more, and says whether it had to; a log that takes nothing any
    /// more says so at the append.
    pub async fn append_space(&self) -> bool {
        let mut has_waited = false;
        while matches!(self.log.check_append(), Err(AppendError::Backlog(_))) {
            has_waited = true;
            if self.log.append_space().await.is_err() {
                break;
            }
        }
        has_waited
    }

    /// Appends a batch whose body is checked; `reply` is answered when it is committed, or why not.
    pub fn produce(
        self: &Rc<Self>,
        header: EntryHeader,
        believed: Epoch,
        body: Body<'_, D>,
        reply: Box<dyn Completion>,
        deadline: Instant,
    ) {
        if let Err(code) = self.make_room_for_batch(header.entry_bytes()) {
            return reply.complete(Answer::Refused { code, epoch: Epoch(0) });
        }
        let trace = reply.trace();
        let request = self.pending.borrow_mut().insert(Pending::Produce { reply, deadline });
        self.drive_with(Input::Produce { request, header, believed }, Some(Appending { body, trace }));
    }

    /// Appends a control entry and waits until it is committed.
    pub async fn append_control(self: &Rc<Self>, entry: ControlEntry, believed: Epoch) -> Answer {
        self.append_space().await;
        let body_bytes = match entry.group() {
            Some(_) => entry.to_bytes().len(),
            None => PARTITION_CONTROL_BYTES_MAX,
        };
        if let Err(code) = self.make_room(entry_bytes(body_bytes as u32)) {
            return Answer::Refused { code, epoch: Epoch(0) };
        }
        self.ask(|request| Input::AppendControl { request, entry, believed }).await.answer
    }

    /// Rolls the segment if it must be, and makes sure that the log will take the entry: once the machine has folded an
    /// entry in, there is no way back.
    fn make_room(&self, bytes: usize) -> Result<(), ErrorCode> {
        if matches!(self.log.check_append(), Err(AppendError::Failed(_))) {
            return Err(ErrorCode::RangeFailed);
        }
        if self.log.must_roll(bytes) {
            self.roll();
        }
        self.log.check_append().map_err(|error| match error {
            AppendError::NoSpace => ErrorCode::DiskFull,
            AppendError::Backlog(_) => ErrorCode::Overloaded,
            AppendError::Failed(_) => ErrorCode::RangeFailed,
        })
    }

    fn make_room_for_batch(&self, bytes: usize) -> Result<(), ErrorCode> {
        if self.log.next_waits_for_space() && self.log.must_roll(bytes + CONTROL_ROOM_BYTES) {
            return Err(ErrorCode::DiskFull);
        }
        self.make_room(bytes)
    }

    /// Ends the active segment; called between entries, when the fold is that of the log's end.
    fn roll(&self) {
        self.log.roll(self.replica.borrow().state().snapshot());
    }

    /// What a client is told that is refused with `code`: for a range that takes no writes, why, naming file and place.
    pub fn refusal(&self, code: ErrorCode) -> String {
        let loss = self.log.loss().map(LogError::Damaged);
        match loss.or_else(|| self.log.failed()) {
            Some(reason) if code == ErrorCode::RangeFailed => format!("range {}: {reason}", self.key),
            _ => code.advice().to_owned(),
        }
    }

    /// Answers `timed_out` to whom waited too long; returns how many.
    pub fn expire(&self, now: Instant) -> usize {
        self.pending.borrow_mut().expire(now)
    }

    /// Time has passed.
    pub fn tick(self: &Rc<Self>) {
        self.log.seal_tail();
        self.mend_if_due();
        self.reread_sidecars_if_due();
        self.drive(Input::Tick);
        self.tick_groups();
    }

    /// Waits for what is in flight and closes the log.
    pub async fn close(self: Rc<Self>) -> Result<(), LogError> {
        self.stop_groups();
        self.pending.borrow_mut().close(ErrorCode::ShuttingDown);
        self.inbox.close();
        self.outgoing.stop();
        self.log.close_with_checkpoint(|| self.replica.borrow().state().snapshot()).await
    }

    /// Steps the machine and carries out what follows.
    fn drive(self: &Rc<Self>, input: Input) {
        self.drive_with(input, None);
    }

    /// The same; `body` belongs to the request of `input`. Inputs that arise on the way are taken in turn, so that the
    /// machine is never entered twice.
    fn drive_with(self: &Rc<Self>, input: Input, mut body: Option<Appending<'_, D>>) {
        assert!(body.is_none() || !self.driving.get(), "a body is borrowed, so its input cannot wait in the queue");
        self.inputs.borrow_mut().push_back(input);
        if self.driving.replace(true) {
            return;
        }
        let mut outputs = self.outputs.take();
        loop {
            let Some(input) = self.inputs.borrow_mut().pop_front() else { break };
            let is_acknowledgement = matches!(input, Input::SuccessorAcknowledged { .. });
            self.replica.borrow_mut().step(self.shared.clock.wall(), input, &mut outputs);
            if is_acknowledgement {
                self.measure_successor();
            }
            for output in outputs.drain(..) {
                self.carry_out(output, &mut body);
            }
        }
        self.outputs.replace(outputs);
        self.driving.set(false);
        self.follow_role();
    }

    fn carry_out(self: &Rc<Self>, output: Output, body: &mut Option<Appending<'_, D>>) {
        match output {
            Output::Append { header, body: AppendBody::Request(request), forward } => {
                let body = body.take().unwrap_or_else(|| panic!("request {request:?} came without its body"));
                self.append(&header, body, forward);
            }
            Output::Append { header, body: AppendBody::Control(bytes), forward } => {
                self.shared.clock.counted_ns();
                self.append(&header, Appending { body: Body::Copied(&bytes), trace: None }, forward);
            }
            Output::Committed { index } => {
                self.log.set_committed(index);
                self.explained.committed(index);
                self.committed.notify_all();
            }
            Output::Answer { request, answer } => self.pending.borrow_mut().answer(request, answer),
            Output::ReportSeal { request, report } => {
                self.pending.borrow_mut().report_seal(request, report);
                self.committed.notify_all();
            }
            Output::ReportLearn { request, report } => self.pending.borrow_mut().report_learn(request, report),
            Output::ReportProgress { request, end } => self.pending.borrow_mut().report_progress(request, end),
            Output::PersistPromise { epoch } => {
                self.shared.metrics.promises.add(1);
                self.forget_stages();
                self.persist_promise(epoch);
            }
            Output::PersistMarker { epoch } => self.persist_marker(epoch),
            Output::Truncate { end } => {
                self.forget_stages();
                self.truncate(end);
            }
            Output::ReadPoint { index } => self.read_point(index),
            Output::InstallSegment => self.install_segment(),
            Output::StartOver => {
                self.forget_stages();
                self.start_over();
            }
            Output::Mend { members } => self.mend(members),
            Output::StreamFrom { epoch, stream, to, after } => self.stream_from(epoch, stream, to, after),
            Output::StopStream => self.outgoing.stop(),
            Output::Complain(complaint) => self.complain(complaint),
            output => self.tell(output),
        }
    }

    /// What is said to another member, and nothing else.
    fn tell(&self, output: Output) {
        let from = self.shared.me;
        let (to, epoch, body) = match output {
            Output::OpenStream { epoch, stream, to } => (to, epoch, PeerBody::OpenStream { stream, from, to }),
            Output::AcceptStream { epoch, stream, to, end } => {
                self.inbox.accepted(to);
                (to, epoch, PeerBody::StreamOpened { stream, end })
            }
            Output::RefuseStream { epoch, stream, to, code } => (to, epoch, PeerBody::StreamRefused { stream, code }),
            Output::AcknowledgeUpstream { epoch, stream, to, index } => {
                self.explain_to(&to, epoch, stream, index);
                (to, epoch, PeerBody::Acknowledged { stream, index })
            }
            Output::TellCommitted { epoch, stream, to, index } => (to, epoch, PeerBody::Committed { stream, index }),
            Output::RequestCopy { epoch, copy, purpose, source, after, until } => {
                let segment = self.segment_cursor(after, until);
                (source, epoch, PeerBody::CopyRequest { copy, from, to: source, purpose, after, until, segment })
            }
            output => unreachable!("carried out before: {output:?}"),
        };
        self.say(&to, epoch, body);
    }

    fn say_with(&self, to: &ChainMember, epoch: Epoch, body: PeerBody<SharedSlice>, room: Room) {
        self.shared.peers.send_with(to, PeerMessage { range: self.key, epoch, body }, room);
    }

    fn say(&self, to: &ChainMember, epoch: Epoch, body: PeerBody<SharedSlice>) {
        self.shared.peers.send(to, PeerMessage { range: self.key, epoch, body });
    }

    fn append(self: &Rc<Self>, header: &EntryHeader, Appending { body, trace }: Appending<'_, D>, forward: bool) {
        if let Err(error) = self.log.append(header, body) {
            tracing::error!(range = %self.key, %error, "cannot append; this range takes nothing more");
            return self.inputs.borrow_mut().push_back(Input::WriteFailed);
        }
        let now_ns = self.shared.clock.marked_ns();
        self.stages.appended(header.index, now_ns, forward);
        if let Some(trace) = trace {
            trace.appended(now_ns);
            self.explained.appended(header.index, trace);
        }
        if forward {
            self.outgoing.look();
        }
    }

    /// What is under way is not what it was.
    fn forget_stages(&self) {
        self.stages.forget();
        self.explained.forget();
    }

    fn measure_successor(&self) {
        let acknowledged = self.replica.borrow().successor_acknowledged_index();
        if let Some(index) = acknowledged {
            let now_ns = || self.shared.clock.counted_ns();
            self.stages.acknowledged(index, now_ns, &self.shared.metrics.took.successor);
        }
    }

    fn complain(&self, complaint: Complaint) {
        self.shared.metrics.count_complaint(complaint.reason);
        self.shared.peers.complain(complaint);
    }

    /// `has_log` is durable before the first acknowledgement, so that a log missing later means a lost marker (R10).
    fn promise_log(self: &Rc<Self>) {
        self.log_promise.set(LogPromise::Writing);
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let promise = range.promise(Epoch(0), Epoch(0), true);
            match range.shared.promises.update([promise]).await {
                Ok(()) => {
                    range.log_promise.set(LogPromise::Durable);
                    range.log_moved();
                }
                Err(error) => range.write_failed(&error),
            }
        });
    }

    /// Promises and markers only grow, so a zero leaves what is there.
    fn promise(&self, promised: Epoch, marker: Epoch, has_log: bool) -> Promise {
        Promise { range: self.key, promised, marker, has_log }
    }

    /// The log's durable index grew, or it failed.
    fn log_moved(self: &Rc<Self>) {
        if let Some(error) = self.log.failed() {
            return self.write_failed(&error);
        }
        self.outgoing.look();
        let now_ns = || self.shared.clock.counted_ns();
        self.stages.durable(self.log.durable_index(), now_ns, &self.shared.metrics.took.durable);
        self.explained.durable(self.log.durable_index(), now_ns);
        if self.log_promise.get() == LogPromise::Absent && self.log.durable_index() > LogIndex(0) {
            // Not before there is something to lose: a power loss in between would cost the marker of an empty range.
            self.promise_log();
        }
        if self.log_promise.get() == LogPromise::Durable {
            self.drive(Input::Durable { index: self.log.durable_index() });
        }
    }

    fn write_failed(self: &Rc<Self>, error: &LogError) {
        self.shared.metrics.durable_write_errors.add(1);
        tracing::error!(range = %self.key, %error, "a durable write failed; this range acknowledges nothing more");
        self.drive(Input::WriteFailed);
    }

    /// Gives a request to the machine and waits for its answer.
    async fn ask(self: &Rc<Self>, input: impl FnOnce(RequestId) -> Input) -> Changed {
        let (sender, receiver) = futures_channel::oneshot::channel();
        let request = self.pending.borrow_mut().insert(Pending::Change(sender));
        self.drive(input(request));
        let gone = Answer::Refused { code: ErrorCode::ShuttingDown, epoch: Epoch(0) };
        receiver.await.unwrap_or(gone.into())
    }
}
