//! One node: the shipping member machine, an abstract disk, and an interpreter that does what the machine asks.
//!
//! The disk keeps what a crash may take apart: how far the log is durable, a promise, a marker and a cut under way. What
//! is under way ends by a step of its own, or a crash comes first and decides. What goes to others is handed out, so that
//! the world may deliver it as it likes.

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{CopyOutcome, CopyPurpose, PeerBody, PeerMessage};
use minikafka_core::chain::planted::{PlantedBug, is_planted};
use minikafka_core::chain::replica::{Answer, AppendBody, Input, Output, Recovered, Replica, RequestId, Standing};
use minikafka_core::control::ControlEntry;
use minikafka_core::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use minikafka_core::error_code::ErrorCode;
use minikafka_core::ids::*;
use minikafka_core::topic::TopicConfig;
use minikafka_core::wire::codec::Wire;
use minikafka_core::wire::controller::LearnReport;
use minikafka_core::wire::{RangeOutcome, SealReport};

use crate::entries::{Entries, NO_ENTRY};
use crate::intern::Id;

/// A message between members; entries by their number.
pub type Message = PeerMessage<Id>;

/// The range of the model.
pub const RANGE: RangeKey = RangeKey { ring: RingId(3), range: RangeId(0) };
/// Its partition.
pub const PARTITION: PartitionKey = PartitionKey { topic: TopicId(9), partition: Partition(0) };
const NOW: Timestamp = Timestamp(1_000);

/// What an epoch was decided to be (R5d), with logs by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The epoch.
    pub epoch: Epoch,
    /// Who has the log that counts; none: all logs are empty.
    pub source: Option<ChainMember>,
    /// The source's end.
    pub start: LogPoint,
    /// The source's log.
    pub log: Id,
    /// Head first.
    pub chain: Vec<ChainMember>,
}

/// What a sealed member reported, and who it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The process.
    pub member: ChainMember,
    /// What it said.
    pub seal: SealReport,
    /// Its log.
    pub log: Id,
}

/// A node as it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The machine.
    pub replica: Replica,
    /// Who it is.
    pub me: ChainMember,
    /// Its log.
    pub log: Id,
    /// How far that is durable.
    pub durable: Id,
    /// The promise on disk, and the one on its way there.
    pub promise: (Epoch, Option<Epoch>),
    /// The marker on disk, and the one on its way there.
    pub marker: (Epoch, Option<Epoch>),
    /// The log to which a cut under way will lead.
    pub cut: Option<Id>,
    /// The stream of entries to the successor.
    sender: Option<Sender>,
    /// The highest index this process said was committed.
    pub committed: LogIndex,
}

#[derive(Clone, Debug)]
struct Sender {
    epoch: Epoch,
    stream: StreamId,
    to: ChainMember,
    sent: LogIndex,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// The controller's message.
    Seal(Epoch),
    /// The controller's message.
    Reconcile(std::sync::Arc<Decision>),
    /// The controller's message, or anybody's who read the record.
    Activate(std::sync::Arc<Decision>),
    /// The controller's message, naming the source by its place.
    Learn(std::sync::Arc<Decision>, usize),
    /// Another member's message.
    Peer(ChainMember, std::sync::Arc<Message>),
    /// The connection to another member broke.
    PeerLost(ChainMember),
    /// A batch of a client.
    Produce(u32),
    /// The partition is opened.
    OpenPartition,
    /// The log is durable up to this index.
    Flushed(LogIndex),
    /// The promise under way is durable.
    PromiseDone,
    /// The marker under way is durable.
    MarkerDone,
    /// The cut under way is done.
    CutDone,
    /// Time passed.
    Ticks(u32),
    /// A write failed.
    WriteFails,
    /// The process is killed and starts again; of what was under way this much is on disk.
    Crash {
        /// The log reaches this index.
        kept: LogIndex,
        /// The promise.
        promise: bool,
        /// The marker.
        marker: bool,
        /// The cut.
        cut: bool,
    },
    /// Starts again on an empty disk.
    Wipe,
    /// Starts again without its log; its promises and its store are there.
    LoseLog,
}

/// What a step led to.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Messages to other members.
    pub sends: Vec<(ChainMember, Message)>,
    /// Seal reports.
    pub reports: Vec<(Epoch, Report)>,
    /// Epochs whose reconcile was answered as done.
    pub reconciled: Vec<Epoch>,
    /// Every answer to the controller, for those that wait for one.
    pub answers: Vec<ControllerAnswer>,
    /// The highest log that the machine said was committed; and the epoch, when a head said so.
    pub committed: Option<(Id, Option<Epoch>)>,
    /// Clients' batches that were answered as done.
    pub acknowledged: Vec<u32>,
    /// A rule that a node alone can see broken.
    pub broken: Option<&'static str>,
}

/// What a member answered to the controller, about an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerAnswer {
    /// To a seal, or to one that failed.
    Seal(Epoch, SealReport),
    /// To reconcile.
    Reconcile(Epoch, RangeOutcome),
    /// To activate.
    Activate(Epoch, RangeOutcome),
    /// To learn.
    Learn(Epoch, LearnReport),
}

/// What of the disk is made durable at once, because nothing can be seen of the time between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskSteps {
    /// Log writes, promises, markers and cuts each take a step.
    All,
    /// Only log writes do.
    LogOnly,
}

/// Does what machines ask.
#[derive(Clone, Copy, Debug)]
pub struct Interpreter<'a> {
    /// All entries.
    pub entries: &'a Entries,
    /// How fine the disk is.
    pub disk: DiskSteps,
    /// Whether batches carry a producer and its sequence.
    pub idempotent: bool,
}

const SEAL: u64 = 1 << 32;
const RECONCILE: u64 = 2 << 32;
const PRODUCE: u64 = 3 << 32;
const ACTIVATE: u64 = 4 << 32;
const LEARN: u64 = 5 << 32;
const OTHER: u64 = 6 << 32;

impl Node {
    /// A node with an empty disk.
    pub fn new(number: u32) -> Self {
        let me = ChainMember {
            node: NodeId(number),
            shard: ShardId(0),
            store: StoreId(u64::from(number) * 100),
            incarnation: Incarnation(u64::from(number) * 100),
        };
        let recovered = Recovered { state: Default::default(), promised: Epoch(0), marker: Epoch(0), damaged: false };
        Self {
            replica: Replica::new(RANGE, me, recovered),
            me,
            log: NO_ENTRY,
            durable: NO_ENTRY,
            promise: (Epoch(0), None),
            marker: (Epoch(0), None),
            cut: None,
            sender: None,
            committed: LogIndex(0),
        }
    }

    /// Whether it acts as a head, and in which epoch.
    pub fn head_epoch(&self) -> Option<Epoch> {
        self.replica.head_epoch()
    }

    /// Whether the passing of time means anything to it.
    pub fn counts_time(&self) -> bool {
        matches!(self.replica.standing(), Standing::Active(_) | Standing::Learning(_) | Standing::Reconciling)
    }

    /// Whether a seal of this epoch may lead to something: also one that was answered before.
    pub fn hears_seal(&self, epoch: Epoch) -> bool {
        let promised = self.replica.epoch();
        promised < epoch || promised == epoch && *self.replica.standing() == Standing::Sealed
    }
}

impl Interpreter<'_> {
    /// One step of a node.
    pub fn step(&self, node: &Node, event: &Event) -> (Node, Effects) {
        let (mut node, mut effects) = (node.clone(), Effects::default());
        match event {
            Event::Crash { kept, promise, marker, cut } => self.crash(&mut node, *kept, [*promise, *marker, *cut]),
            Event::Wipe => self.wipe(&mut node),
            Event::LoseLog => self.lose_log(&mut node),
            Event::Peer(from, message) => self.peer(&mut node, *from, message, &mut effects),
            Event::Ticks(count) => (0..*count).for_each(|_| self.feed(&mut node, Input::Tick, &mut effects)),
            other => {
                let input = self.input_of(&mut node, other);
                self.feed(&mut node, input, &mut effects);
            }
        }
        self.pump(&mut node, &mut effects);
        (node, effects)
    }

    fn input_of(&self, node: &mut Node, event: &Event) -> Input {
        match event {
            Event::Seal(epoch) => {
                Input::Seal { request: RequestId(SEAL + epoch.0), epoch: *epoch, members: Vec::new() }
            }
            Event::Reconcile(decision) => Input::Reconcile {
                request: RequestId(RECONCILE + decision.epoch.0),
                epoch: decision.epoch,
                end: decision.start,
                source: decision.source.filter(|source| *source != node.me),
            },
            Event::Activate(decision) => Input::Activate {
                request: RequestId(ACTIVATE + decision.epoch.0),
                epoch: decision.epoch,
                chain: decision.chain.clone(),
                start: decision.start,
            },
            Event::Learn(decision, place) => Input::Learn {
                request: RequestId(LEARN + decision.epoch.0),
                epoch: decision.epoch,
                chain: decision.chain.clone(),
                source: decision.chain[*place],
            },
            Event::PeerLost(member) => Input::PeerLost { member: *member },
            Event::Produce(value) => Input::Produce {
                request: RequestId(PRODUCE + u64::from(*value)),
                header: self.batch(*value),
                believed: node.replica.epoch(),
            },
            Event::OpenPartition => Input::AppendControl {
                request: RequestId(OTHER),
                entry: ControlEntry::PartitionOpen {
                    partition: PARTITION,
                    config: TopicConfig::default(),
                    version: ConfigVersion::FIRST,
                    start_offset: Offset(0),
                    previous: None,
                },
                believed: node.replica.epoch(),
            },
            Event::Flushed(index) => {
                node.durable = self.entries.cut(node.log, *index);
                Input::Durable { index: *index }
            }
            Event::PromiseDone => {
                node.promise = (node.promise.1.take().unwrap_or(node.promise.0), None);
                Input::PromiseDurable { epoch: node.promise.0 }
            }
            Event::MarkerDone => {
                node.marker = (node.marker.1.take().unwrap_or(node.marker.0), None);
                Input::MarkerDurable { epoch: node.marker.0 }
            }
            Event::CutDone => {
                self.cut_done(node);
                Input::Truncated { state: Box::new(self.entries.fold(node.log)) }
            }
            Event::WriteFails => Input::WriteFailed,
            Event::Peer(..) | Event::Ticks(_) | Event::Crash { .. } | Event::Wipe | Event::LoseLog => Input::Tick,
        }
    }

    fn cut_done(&self, node: &mut Node) {
        if let Some(end) = node.cut.take() {
            (node.log, node.durable) = (end, end);
        }
    }

    // ---- Starts ----

    fn crash(&self, node: &mut Node, kept: LogIndex, [promise, marker, cut]: [bool; 3]) {
        node.log = self.entries.cut(node.log, kept);
        if cut {
            self.cut_done(node);
        }
        if promise {
            node.promise.0 = node.promise.1.unwrap_or(node.promise.0);
        }
        if marker {
            node.marker.0 = node.marker.1.unwrap_or(node.marker.0);
        }
        self.start(node);
    }

    fn wipe(&self, node: &mut Node) {
        (node.log, node.promise.0, node.marker.0) = (NO_ENTRY, Epoch(0), Epoch(0));
        if !is_planted(PlantedBug::WipedDiskKeepsStore) {
            node.me.store.0 += 1;
        }
        self.start(node);
    }

    fn lose_log(&self, node: &mut Node) {
        (node.log, node.marker.0) = (NO_ENTRY, Epoch(0));
        self.start(node);
    }

    /// A new process on what the disk has.
    fn start(&self, node: &mut Node) {
        node.me.incarnation.0 += 1;
        (node.durable, node.cut, node.sender, node.committed) = (node.log, None, None, LogIndex(0));
        (node.promise.1, node.marker.1) = (None, None);
        let (promised, marker) = (node.promise.0, node.marker.0);
        let recovered = Recovered { state: self.entries.fold(node.log), promised, marker, damaged: false };
        node.replica = Replica::new(RANGE, node.me, recovered);
    }

    // ---- What the machine asks ----

    fn feed(&self, node: &mut Node, input: Input, effects: &mut Effects) {
        let mut out = Vec::new();
        node.replica.step(NOW, input, &mut out);
        for output in out {
            self.interpret(node, output, effects);
        }
        if node.replica.readable_index() > node.committed {
            effects.broken = Some("what is readable was said to be committed");
        }
    }

    fn interpret(&self, node: &mut Node, output: Output, effects: &mut Effects) {
        match output {
            Output::Append { header, body, .. } => {
                let control = match (header.kind, body) {
                    (EntryKind::Control, AppendBody::Control(body)) => ControlEntry::from_bytes(&body).ok(),
                    // It came from another member, and is known by its body.
                    (EntryKind::Control, AppendBody::Request(RequestId(id))) => {
                        self.entries.last(id as Id).control.clone()
                    }
                    (EntryKind::Batch, _) => None,
                };
                node.log = self.entries.append(node.log, header, control);
            }
            Output::Committed { index } => self.committed(node, index, effects),
            Output::Answer { request, answer } => answered(request, answer, effects),
            Output::ReportSeal { request, report } => {
                let epoch = Epoch(request.0 & (SEAL - 1));
                effects.answers.push(ControllerAnswer::Seal(epoch, report.clone()));
                if report.error.is_none() {
                    effects.reports.push((epoch, Report { member: node.me, seal: report, log: node.log }));
                }
            }
            Output::PersistPromise { epoch } => {
                node.promise.1 = Some(epoch);
                self.at_once(node, Event::PromiseDone, effects);
            }
            Output::PersistMarker { epoch } => {
                node.marker.1 = Some(epoch);
                self.at_once(node, Event::MarkerDone, effects);
            }
            Output::Truncate { end } => {
                node.cut = Some(self.entries.cut(node.log, end.index));
                self.at_once(node, Event::CutDone, effects);
            }
            Output::InstallSegment | Output::StartOver => unreachable!("nothing is freed in the model"),
            Output::ReadPoint { index } => {
                let point = self.entries.point(self.entries.cut(node.log, index));
                let point = Some(point).filter(|point| point.index == index);
                self.feed(node, Input::PointRead { index, point }, effects);
            }
            Output::StreamFrom { epoch, stream, to, after } => {
                node.sender = Some(Sender { epoch, stream, to, sent: after });
            }
            Output::StopStream => node.sender = None,
            Output::ReportLearn { request, report } => {
                effects.answers.push(ControllerAnswer::Learn(Epoch(request.0 & (SEAL - 1)), report));
            }
            Output::ReportProgress { request, end } => {
                let range = RANGE.range;
                let outcome =
                    RangeOutcome { range, error: Some(ErrorCode::CatchingUp), epoch: node.replica.epoch(), end };
                effects.answers.push(ControllerAnswer::Reconcile(Epoch(request.0 & (SEAL - 1)), outcome));
            }
            Output::Complain(_) => {}
            message => self.send(node, message, effects),
        }
    }

    fn send(&self, node: &Node, output: Output, effects: &mut Effects) {
        let (to, epoch, body) = match output {
            Output::OpenStream { epoch, stream, to } => (to, epoch, PeerBody::OpenStream { stream, from: node.me, to }),
            Output::AcceptStream { epoch, stream, to, end } => (to, epoch, PeerBody::StreamOpened { stream, end }),
            Output::RefuseStream { epoch, stream, to, code } => (to, epoch, PeerBody::StreamRefused { stream, code }),
            Output::AcknowledgeUpstream { epoch, stream, to, index } => {
                (to, epoch, PeerBody::Acknowledged { stream, index })
            }
            Output::TellCommitted { epoch, stream, to, index } => (to, epoch, PeerBody::Committed { stream, index }),
            Output::RequestCopy { epoch, copy, purpose, source, after, until } => {
                let body =
                    PeerBody::CopyRequest { copy, from: node.me, to: source, purpose, after, until, segment: None };
                (source, epoch, body)
            }
            _ => return,
        };
        effects.sends.push((to, PeerMessage { range: RANGE, epoch, body }));
    }

    fn at_once(&self, node: &mut Node, done: Event, effects: &mut Effects) {
        if self.disk == DiskSteps::LogOnly {
            let input = self.input_of(node, &done);
            self.feed(node, input, effects);
        }
    }

    fn committed(&self, node: &mut Node, index: LogIndex, effects: &mut Effects) {
        if index < node.committed {
            effects.broken = Some("committed never goes back");
        }
        if index > self.entries.index(node.log) {
            effects.broken = Some("nobody commits what is not in its log");
        }
        node.committed = index;
        effects.committed = Some((self.entries.cut(node.log, index), node.head_epoch()));
    }

    /// Sends what the log has beyond what was sent.
    fn pump(&self, node: &mut Node, effects: &mut Effects) {
        let committed = node.replica.committed();
        let Some(sender) = &mut node.sender else { return };
        for id in self.entries.behind(node.log, sender.sent) {
            sender.sent = self.entries.index(id);
            let body = PeerBody::Entries { stream: sender.stream, committed, entries: vec![id] };
            effects.sends.push((sender.to, PeerMessage { range: RANGE, epoch: sender.epoch, body }));
        }
    }

    // ---- What others say ----

    fn peer(&self, node: &mut Node, from: ChainMember, message: &Message, effects: &mut Effects) {
        let epoch = message.epoch;
        match message.body.clone() {
            PeerBody::OpenStream { stream, from, to } => {
                self.feed(node, Input::StreamRequested { epoch, stream, from, to }, effects);
            }
            PeerBody::StreamOpened { stream, end } => {
                self.feed(node, Input::StreamOpened { epoch, stream, end }, effects);
            }
            PeerBody::StreamRefused { stream, code } => {
                self.feed(node, Input::StreamRefused { epoch, stream, code }, effects);
            }
            PeerBody::Entries { stream, committed, entries } => {
                for id in entries {
                    let entry = self.entries.last(id);
                    let Some(header) = entry.header else { continue };
                    let (request, control) = (RequestId(u64::from(id)), entry.control.clone());
                    let input = Input::Replicate { request, epoch, stream, header, control, committed };
                    self.feed(node, input, effects);
                }
            }
            PeerBody::Committed { stream, index } => {
                self.feed(node, Input::CommittedAdvanced { epoch, stream, index }, effects);
            }
            PeerBody::Acknowledged { stream, index } => {
                self.feed(node, Input::SuccessorAcknowledged { epoch, stream, index }, effects);
            }
            PeerBody::Explain { .. } | PeerBody::Explained { .. } => unreachable!("nobody here asks for that"),
            PeerBody::CopyRequest { copy, to, purpose, after, until, .. } => {
                let outcome = self.serve(node, epoch, to, purpose, after, until);
                let epoch = node.replica.epoch();
                effects
                    .sends
                    .push((from, PeerMessage { range: RANGE, epoch, body: PeerBody::CopyReply { copy, outcome } }));
            }
            PeerBody::CopyReply { copy, outcome } => self.copied(node, copy, outcome, effects),
        }
    }

    fn copied(&self, node: &mut Node, copy: CopyId, outcome: CopyOutcome<Id>, effects: &mut Effects) {
        match outcome {
            CopyOutcome::Agreed { limit, entries } => {
                for id in entries {
                    let entry = self.entries.last(id);
                    let Some(header) = entry.header else { continue };
                    let (request, control) = (RequestId(u64::from(id)), entry.control.clone());
                    self.feed(node, Input::Copied { request, copy, header, control }, effects);
                }
                self.feed(node, Input::CopyEnded { copy, limit }, effects);
            }
            CopyOutcome::Disagreed { limit } => self.feed(node, Input::CopyDisagreed { copy, limit }, effects),
            CopyOutcome::Refused { code } => self.feed(node, Input::CopyFailed { copy, code }, effects),
            CopyOutcome::Segment { .. } | CopyOutcome::Gone { .. } => unreachable!("nothing is freed in the model"),
        }
    }

    /// Answers a copy request as far as the machine lets it.
    fn serve(
        &self,
        node: &Node,
        epoch: Epoch,
        to: ChainMember,
        purpose: CopyPurpose,
        after: LogPoint,
        until: LogIndex,
    ) -> CopyOutcome<Id> {
        let limit = match node.replica.copy_limit(epoch, purpose) {
            _ if to != node.me => return CopyOutcome::Refused { code: ErrorCode::NotOwner },
            Ok(limit) => limit,
            Err(code) => return CopyOutcome::Refused { code },
        };
        if after.index > limit || self.entries.point(self.entries.cut(node.log, after.index)) != after {
            return CopyOutcome::Disagreed { limit };
        }
        let end = self.entries.cut(node.log, limit.min(until));
        CopyOutcome::Agreed { limit, entries: self.entries.behind(end, after.index) }
    }

    fn batch(&self, value: u32) -> EntryHeader {
        let PartitionKey { topic, partition } = PARTITION;
        EntryHeader {
            kind: EntryKind::Batch,
            body_format: BodyFormat::Columnar,
            codec: Codec::None,
            body_bytes: 1,
            uncompressed_bytes: 1,
            range: RANGE,
            attributes: 0,
            epoch: Epoch(0),
            index: LogIndex(0),
            topic,
            partition,
            record_count: 1,
            base_offset: Offset(0),
            last_offset_delta: 0,
            base_sequence: Sequence(if self.idempotent { value as i32 } else { 0 }),
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            append_timestamp: Timestamp(0),
            producer_id: if self.idempotent { ProducerId(7) } else { ProducerId::NONE },
            producer_epoch: ProducerEpoch(0),
            body_crc: value,
            running_hash: RunningHash(0),
        }
    }
}

fn answered(request: RequestId, answer: Answer, effects: &mut Effects) {
    let number = request.0 & (SEAL - 1);
    let (error, epoch) = match answer {
        Answer::Done { .. } => (None, Epoch(0)),
        Answer::Refused { code, epoch } => (Some(code), epoch),
    };
    let outcome = RangeOutcome { range: RANGE.range, error, epoch, end: LogIndex(0) };
    match request.0 & !(SEAL - 1) {
        PRODUCE if error.is_none() => effects.acknowledged.push(number as u32),
        RECONCILE => {
            effects.reconciled.extend(error.is_none().then_some(Epoch(number)));
            effects.answers.push(ControllerAnswer::Reconcile(Epoch(number), outcome));
        }
        ACTIVATE => effects.answers.push(ControllerAnswer::Activate(Epoch(number), outcome)),
        _ => {}
    }
}
