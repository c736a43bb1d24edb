//! A node: a disk that stays, and lives of a broker on it that come and go.
//!
//! A life is what a process is: an executor, the shards that ship, and what they say to others, collected in an outbox. A
//! kill drops it between two polls and leaves of its disk what the medium kept.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use minikafka_broker::{Clock, Completion, GroupCompletion, ManualClock, Peers, RangeOwners, Shard, ShardSetup};
use minikafka_core::chain::ChainMember;
use minikafka_core::chain::controller::{Answer, Message};
use minikafka_core::chain::peer::{Complaint, PeerMessage};
use minikafka_core::chain::planted::{PlantedBug, is_planted};
use minikafka_core::chain::replica;
use minikafka_core::entry::EntryHeader;
use minikafka_core::wire::{
    AppendControlReply, AppendControlRequest, FetchRequest, GroupCommitRequest, GroupHeartbeatRequest,
};
use minikafka_core::*;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor, SimRandom};
use minikafka_storage::disk::{Disk, Durability};
use minikafka_storage::{Body, SharedSlice};

use crate::groups::Asked;
use crate::invariants::MemberLog;
use crate::plan::{Plan, Retention};
use crate::queue::Time;

/// Memory of a shard for fetches and for batches.
const BUDGET_BYTES: u64 = 32 << 20;
/// Wall time at the beginning of the world: somewhere in 2023.
const WALL_BEGINS_MS: i64 = 1_700_000_000_000;

/// Names a request to a node until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What a node is asked.
#[derive(Clone)]
pub enum Request {
    /// By a controller.
    Control(ShardId, Message),
    /// By the driver of topics.
    Append(AppendControlRequest),
    /// By a producer.
    Produce {
        /// As it is sent.
        header: EntryHeader,
        /// The body.
        body: Rc<Vec<u8>>,
        /// The epoch believed in.
        epoch: Epoch,
    },
    /// By a consumer.
    Fetch(FetchRequest),
    /// By a member of the group.
    Heartbeat(GroupHeartbeatRequest),
    /// By a member of the group.
    Commit(GroupCommitRequest),
}

/// What a node answers.
pub enum Reply {
    /// To a controller.
    Control(Answer),
    /// To the driver of topics.
    Append(AppendControlReply),
    /// To a producer.
    Produced(replica::Answer),
    /// To a consumer: the head, and the entries.
    Fetched(wire::FetchReply, Vec<u8>),
    /// To a member of the group.
    Group(group::coordinator::Answer),
    /// The connection broke first.
    Lost,
}

/// What a life says.
pub enum Outgoing {
    /// Its shards are open.
    Started,
    /// They could not be opened.
    StartFailed,
    /// To another member.
    Peer(ShardId, ChainMember, PeerMessage<SharedSlice>),
    /// To the controller.
    Complain(Complaint),
    /// To whoever asked.
    Replied(CallId, Reply),
}

type Outbox = Rc<RefCell<Vec<Outgoing>>>;
type Shards = Rc<RefCell<Vec<Rc<Shard<SimDisk>>>>>;

/// A node.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// How many shards it has.
    pub shards: u16,
    /// Its disk's identity.
    pub store: StoreId,
    /// What the last life left, on the executor of the next.
    pub disk: SimDisk,
    /// The process that runs, if one does.
    pub life: Option<Life>,
    /// Lives so far.
    pub lives: u32,
    /// What the last process was; only a planted bug asks.
    last: Option<Incarnation>,
    /// When the process that runs was started.
    pub started_at: Time,
    /// How wrong its wall clock is.
    pub wall_skew_ms: i64,
    /// It does nothing until then.
    pub paused_until: Time,
    /// Its disk completes nothing until then.
    pub disk_stalled_until: Time,
    /// Bytes of it rotted, and nobody wiped it yet.
    pub has_rot: bool,
    /// The directories of the ranges that rotted.
    pub rotten_dirs: Vec<PathBuf>,
    /// The same as `has_rot`, whatever came since: an answer of before may still be under way.
    pub had_rot: bool,
    /// It shall stay down until the healing.
    pub stays_down: bool,
}

/// A process.
pub struct Life {
    /// Counts the node's lives.
    pub number: u32,
    /// Drawn at its start.
    pub incarnation: Incarnation,
    /// Its tasks and timers.
    pub executor: SimExecutor,
    /// Its disk.
    pub disk: SimDisk,
    /// Shards that are being read from end to end.
    pub scrubs_left: Rc<Cell<usize>>,
    /// Who waits for it to answer what.
    pub calls: BTreeMap<CallId, Caller>,
    /// When its next timer is in the world's queue.
    pub timer_at: Time,
    /// What its ranges were at when last looked at.
    pub members: BTreeMap<RangeId, MemberLog>,
    shards: Shards,
    outbox: Outbox,
    hand: ManualClock,
    now: Time,
}

/// Who asked.
#[derive(Clone)]
pub enum Caller {
    /// A controller, which is given its question back.
    Controller(u64, ShardId, Box<Message>),
    /// The driver of topics, about a range.
    Topics(RangeId),
    /// A producer: which, on which of its streams, the batch, and the how-manieth attempt.
    Producer(usize, usize, Sequence, u32),
    /// A consumer: which, and its request.
    Consumer(usize, u64),
    /// A process of the group (0: nobody any more), and what.
    Group(u64, Asked),
}

struct SimPeers {
    shard: ShardId,
    outbox: Outbox,
}

impl Peers for SimPeers {
    fn send(&self, to: &ChainMember, message: PeerMessage<SharedSlice>) {
        self.outbox.borrow_mut().push(Outgoing::Peer(self.shard, *to, message));
    }

    fn complain(&self, complaint: Complaint) {
        self.outbox.borrow_mut().push(Outgoing::Complain(complaint));
    }
}

struct Produced {
    call: CallId,
    outbox: Outbox,
}

impl Completion for Produced {
    fn complete(self: Box<Self>, answer: replica::Answer) {
        self.outbox.borrow_mut().push(Outgoing::Replied(self.call, Reply::Produced(answer)));
    }
}

impl Drop for Node {
    /// Tasks hold the shards that hold them: without this nothing of a world would ever be freed.
    fn drop(&mut self) {
        if let Some(life) = &self.life {
            life.executor.abandon();
        }
    }
}

impl Node {
    /// A node with an empty disk that does not run yet.
    pub fn new(id: NodeId, shards: u16, random: &mut SimRandom) -> Self {
        let disk = empty_disk(random);
        Self {
            id,
            shards,
            store: StoreId(random.next_u64() | 1),
            disk,
            life: None,
            lives: 0,
            last: None,
            started_at: 0,
            wall_skew_ms: 0,
            paused_until: 0,
            disk_stalled_until: 0,
            has_rot: false,
            rotten_dirs: Vec::new(),
            had_rot: false,
            stays_down: false,
        }
    }

    /// Starts a process; its shards open in virtual time.
    pub fn start(&mut self, now: Time, plan: &Plan, random: &mut SimRandom) {
        assert!(self.life.is_none(), "node {} runs already", self.id);
        self.lives += 1;
        self.started_at = now;
        let disk = self.disk.clone();
        let executor = disk.executor().clone();
        executor.advance_to(Duration::from_micros(now));
        let (clock, hand) = Clock::manual();
        let fresh = Incarnation(random.next_u64() | 1);
        let incarnation = self.last.filter(|_| is_restart_forgotten()).unwrap_or(fresh);
        self.last = Some(incarnation);
        let (outbox, shards): (Outbox, Shards) = Default::default();
        let owners = RangeOwners::default();
        let setups: Vec<ShardSetup<SimDisk>> = (0..self.shards)
            .map(|shard| {
                let shard = ShardId(shard);
                ShardSetup {
                    disk: disk.clone(),
                    data_dir: PathBuf::from("/data"),
                    me: ChainMember { node: self.id, shard, store: self.store, incarnation },
                    shards: self.shards,
                    owners: owners.clone(),
                    storage: plan.storage.clone(),
                    budget_bytes: BUDGET_BYTES,
                    clock: clock.clone(),
                    peers: Rc::new(SimPeers { shard, outbox: outbox.clone() }),
                }
            })
            .collect();
        let (opened, said) = (shards.clone(), outbox.clone());
        let (retention, copy_rate) = (plan.retention, plan.copy_bytes_per_second);
        executor.spawn(async move {
            for setup in setups {
                match Shard::open(setup).await {
                    Ok(shard) => {
                        shard.set_copy_rate(copy_rate);
                        if let Some(retention) = retention {
                            shard.disk().spawn(keep_retention(shard.clone(), retention));
                        }
                        opened.borrow_mut().push(shard);
                    }
                    Err(_) => return said.borrow_mut().push(Outgoing::StartFailed),
                }
            }
            said.borrow_mut().push(Outgoing::Started);
        });
        self.life = Some(Life {
            number: self.lives,
            incarnation,
            executor,
            disk,
            scrubs_left: Rc::default(),
            calls: BTreeMap::new(),
            timer_at: Time::MAX,
            members: BTreeMap::new(),
            shards,
            outbox,
            hand,
            now: 0,
        });
    }

    /// The process, which runs, at a time.
    pub fn awake(&mut self, now: Time) -> &mut Life {
        let life = self.life.as_mut().expect("whoever asks looked whether it runs");
        life.advance(now, self.wall_skew_ms);
        life
    }

    /// Ends the process; `power` tells whether the power went with it. Gives who waited for an answer.
    pub fn end(&mut self, power: bool, random: &mut SimRandom) -> Vec<Caller> {
        let Some(life) = self.life.take() else { return Vec::new() };
        life.executor.abandon();
        let executor = SimExecutor::new(random.next_u64());
        self.disk = match power {
            true => life.disk.crash_now(random.next_u64(), &executor),
            false => life.disk.killed(&executor),
        };
        (self.paused_until, self.disk_stalled_until) = (0, 0);
        life.calls.into_values().collect()
    }

    /// Gives it an empty disk.
    pub fn wipe(&mut self, keeps_store: bool, random: &mut SimRandom) {
        assert!(self.life.is_none(), "a disk is wiped while nobody runs on it");
        self.disk = empty_disk(random);
        (self.has_rot, self.last) = (false, None);
        self.rotten_dirs.clear();
        if !keeps_store {
            self.store = StoreId(random.next_u64() | 1);
        }
    }

    /// Whether this very process runs.
    pub fn is_at(&self, incarnation: Incarnation) -> bool {
        self.life.as_ref().is_some_and(|life| life.incarnation == incarnation)
    }
}

impl Life {
    /// Goes to a time: its clocks and its executor.
    pub fn advance(&mut self, now: Time, wall_skew_ms: i64) {
        self.executor.advance_to(Duration::from_micros(now));
        if now > self.now {
            self.hand.advance(Duration::from_micros(now - self.now));
            self.now = now;
        }
        self.hand.set_wall(Timestamp(WALL_BEGINS_MS + wall_skew_ms + (now / 1_000) as i64));
    }

    /// Who it is as shard `shard`.
    pub fn shard(&self, shard: ShardId) -> Option<Rc<Shard<SimDisk>>> {
        self.shards.borrow().get(usize::from(shard.0)).cloned()
    }

    /// Its shards that are open.
    pub fn shards(&self) -> Vec<Rc<Shard<SimDisk>>> {
        self.shards.borrow().clone()
    }

    /// What it said since it was asked last.
    pub fn take_outbox(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outbox.borrow_mut())
    }

    /// Asks it something.
    pub fn ask(&mut self, call: CallId, caller: Caller, request: Request) {
        self.calls.insert(call, caller);
        match request {
            Request::Control(shard, message) => self.control(call, shard, message),
            Request::Append(request) => {
                let ranges: Vec<RangeKey> = request.entries.iter().map(|entry| entry.range).collect();
                let shard = ranges.first().and_then(|range| self.shard_with(*range));
                self.answer(call, shard, async move |shard| Reply::Append(shard.append_control(request).await));
            }
            Request::Produce { header, body, epoch } => self.produce(call, header, &body, epoch),
            Request::Heartbeat(request) => {
                let range = request.range;
                self.ask_group(call, range, |shard, done| shard.group_heartbeat(request, done));
            }
            Request::Commit(request) => {
                let range = request.range;
                self.ask_group(call, range, |shard, done| shard.group_commit(request, done));
            }
            Request::Fetch(request) => {
                let range = request.partitions[0].range;
                let shard = self.shard_with(range);
                self.answer(call, shard, async move |shard| {
                    let fetched = shard.fetch(None, &request, None).await;
                    let entries = fetched.entries.iter().flat_map(|slice| slice.iter().copied()).collect();
                    Reply::Fetched(fetched.reply, entries)
                });
            }
        }
    }

    /// The shard that has a range open; otherwise the first, which refuses.
    pub fn shard_with(&self, range: RangeKey) -> Option<Rc<Shard<SimDisk>>> {
        let shards = self.shards.borrow();
        shards.iter().find(|shard| shard.range(range).is_some()).or_else(|| shards.first()).cloned()
    }

    fn ask_group(&self, call: CallId, range: RangeKey, ask: impl FnOnce(&Shard<SimDisk>, GroupCompletion)) {
        let outbox = self.outbox.clone();
        match self.shard_with(range) {
            Some(shard) => {
                let done = move |answer| outbox.borrow_mut().push(Outgoing::Replied(call, Reply::Group(answer)));
                ask(&shard, Box::new(done));
            }
            None => outbox.borrow_mut().push(Outgoing::Replied(call, Reply::Lost)),
        }
    }

    fn control(&mut self, call: CallId, shard: ShardId, message: Message) {
        let shard = self.shard(shard);
        self.answer(call, shard, async move |shard| {
            Reply::Control(match message {
                Message::Seal(request) => Answer::Seal(shard.seal(request).await),
                Message::Reconcile(request) => Answer::Ranges(shard.reconcile(request).await),
                Message::Activate(request) => Answer::Ranges(shard.activate(request).await),
                Message::Learn(request) => Answer::Learn(shard.learn(request).await),
            })
        });
    }

    fn produce(&mut self, call: CallId, header: EntryHeader, body: &[u8], epoch: Epoch) {
        let range = self.shard_with(header.range).and_then(|shard| Some((shard.range(header.range)?, shard)));
        let done = Box::new(Produced { call, outbox: self.outbox.clone() });
        match range {
            Some((range, shard)) => {
                let deadline = shard.clock().monotonic() + Duration::from_secs(5);
                range.produce(header, epoch, Body::Copied(body), done, deadline);
            }
            None => done.complete(replica::Answer::Refused { code: ErrorCode::NotOwner, epoch: Epoch(0) }),
        }
    }

    fn answer(
        &mut self,
        call: CallId,
        shard: Option<Rc<Shard<SimDisk>>>,
        work: impl AsyncFnOnce(Rc<Shard<SimDisk>>) -> Reply + 'static,
    ) {
        let outbox = self.outbox.clone();
        match shard {
            Some(shard) => self.executor.spawn(async move {
                let reply = work(shard).await;
                outbox.borrow_mut().push(Outgoing::Replied(call, reply));
            }),
            None => outbox.borrow_mut().push(Outgoing::Replied(call, Reply::Lost)),
        }
    }
}

/// Whether a bug is planted for which a start is no new life.
fn is_restart_forgotten() -> bool {
    is_planted(PlantedBug::RestartWithoutNewEpoch) || is_planted(PlantedBug::PromiseNotPersisted)
}

/// What `Shard::keep_retention` does, as often as the plan wants it.
async fn keep_retention(shard: Rc<Shard<SimDisk>>, retention: Retention) {
    let stopping = Cell::new(false);
    loop {
        shard.disk().sleep(Duration::from_micros(retention.check_us)).await;
        shard.retention_round(true, &stopping).await;
    }
}

fn empty_disk(random: &mut SimRandom) -> SimDisk {
    let durability = if random.one_in(2) { Durability::Dsync } else { Durability::GroupFdatasync };
    SimDisk::without_history(&SimExecutor::new(random.next_u64()), durability)
}
