//! Several nodes of one shard each, on one simulated executor: disks, links, clocks, and a controller done by hand.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use futures_lite::future;
use minikafka_core::chain::peer::{Complaint, PeerBody, PeerMessage};
use minikafka_storage::SharedSlice;

use super::super::*;
use crate::peers::Peers;

const LINK_DELAY_MICROS_MAX: u64 = 400;
const WAIT_MS_MAX: u64 = 20_000;
const WRITER: WriterId = WriterId(1);

type Message = PeerMessage<SharedSlice>;
type Link = (NodeId, NodeId);

/// One life of one node.
struct Node {
    shard: Rc<Shard<SimDisk>>,
    disk: SimDisk,
    time: ManualClock,
}

/// All nodes, and what connects them. Clones share it.
#[derive(Clone)]
pub struct Scene(Rc<Inner>);

struct Inner {
    executor: SimExecutor,
    nodes: RefCell<BTreeMap<NodeId, Node>>,
    /// Messages on their way, by direction.
    links: RefCell<BTreeMap<Link, VecDeque<Message>>>,
    broken: RefCell<BTreeSet<Link>>,
    /// Nodes of a release without explain.
    older: RefCell<BTreeSet<NodeId>>,
    complaints: RefCell<Vec<Complaint>>,
    trace: RefCell<DefaultHasher>,
    /// The range that the controller changes.
    range: Cell<RangeId>,
}

/// A node's end of its links.
struct Links {
    me: ChainMember,
    scene: Scene,
}

impl Peers for Links {
    fn send(&self, to: &ChainMember, message: Message) {
        self.scene.send(self.me, *to, message);
    }

    fn knows_explain(&self, to: &ChainMember) -> bool {
        !self.scene.0.older.borrow().contains(&to.node)
    }

    fn complain(&self, complaint: Complaint) {
        complaint.hash(&mut *self.scene.0.trace.borrow_mut());
        self.scene.0.complaints.borrow_mut().push(complaint);
    }
}

impl Scene {
    /// Nodes 1 to `count` on empty disks, and time that passes.
    pub async fn begin(executor: SimExecutor, count: u32) -> Self {
        let inner = Inner {
            executor: executor.clone(),
            nodes: RefCell::default(),
            links: RefCell::default(),
            broken: RefCell::default(),
            older: RefCell::default(),
            complaints: RefCell::default(),
            trace: RefCell::new(DefaultHasher::new()),
            range: Cell::new(RANGE.range),
        };
        let scene = Self(Rc::new(inner));
        for node in 1..=count {
            scene.start(NodeId(node), SimDisk::new(&executor, Durability::Dsync), 1).await;
        }
        let ticking = scene.clone();
        executor.spawn(async move {
            loop {
                ticking.0.executor.sleep(TICK).await;
                ticking.tick();
            }
        });
        scene
    }

    async fn start(&self, node: NodeId, disk: SimDisk, life: u64) {
        self.start_on(node, disk, StoreId(u64::from(node.0)), life).await;
    }

    async fn start_on(&self, node: NodeId, disk: SimDisk, store: StoreId, life: u64) {
        let incarnation = Incarnation(u64::from(node.0) * 100 + life);
        let me = ChainMember { node, shard: ShardId(0), store, incarnation };
        let (setup, time) = setup(disk.clone(), me);
        let peers: Rc<dyn Peers> = Rc::new(Links { me, scene: self.clone() });
        let shard = Shard::open(ShardSetup { peers, ..setup }).await.expect("the disk is good");
        self.0.nodes.borrow_mut().insert(node, Node { shard, disk, time });
    }

    fn tick(&self) {
        let shards: Vec<_> =
            self.0.nodes.borrow().values().map(|node| (node.shard.clone(), node.time.clone())).collect();
        for (shard, time) in shards {
            time.advance(TICK);
            shard.tick();
        }
    }

    /// Kills a node and starts it again on what its disk then holds.
    pub async fn restart(&self, node: u32, life: u64) {
        let node = NodeId(node);
        let Some(old) = self.0.nodes.borrow_mut().remove(&node) else { panic!("node {node} runs") };
        // What it still has in flight goes to a disk that nobody looks at any more, and its messages nowhere.
        self.lose_links_of(old.shard.me());
        let disk = old.disk.killed(&self.0.executor);
        self.start(node, disk, life).await;
    }

    /// Kills a node and starts it again on an empty disk.
    pub async fn wipe(&self, node: u32, life: u64) {
        let node = NodeId(node);
        let Some(old) = self.0.nodes.borrow_mut().remove(&node) else { panic!("node {node} runs") };
        self.lose_links_of(old.shard.me());
        let disk = SimDisk::new(&self.0.executor, Durability::Dsync);
        self.start_on(node, disk, StoreId(1_000 * life + u64::from(node.0)), life).await;
    }

    /// Lets wall time pass everywhere.
    pub fn advance(&self, time: Duration) {
        self.0.nodes.borrow().values().for_each(|node| node.time.advance(time));
    }

    fn lose_links_of(&self, member: ChainMember) {
        self.0.links.borrow_mut().retain(|(from, to), _| *from != member.node && *to != member.node);
        for shard in self.shards() {
            shard.peer_lost(member);
        }
    }

    fn shards(&self) -> Vec<Rc<Shard<SimDisk>>> {
        self.0.nodes.borrow().values().map(|node| node.shard.clone()).collect()
    }

    pub fn shard(&self, node: u32) -> Rc<Shard<SimDisk>> {
        self.0.nodes.borrow().get(&NodeId(node)).expect("the node runs").shard.clone()
    }

    pub fn disk(&self, node: u32) -> SimDisk {
        self.0.nodes.borrow().get(&NodeId(node)).expect("the node runs").disk.clone()
    }

    pub fn range(&self, node: u32) -> Rc<Range<SimDisk>> {
        self.shard(node).range(RANGE).expect("the range is open there")
    }

    pub fn member(&self, node: u32) -> ChainMember {
        self.shard(node).me()
    }

    /// Cuts a link in one direction, without a word to anybody.
    pub fn silence(&self, from: u32, to: u32) {
        self.0.broken.borrow_mut().insert((NodeId(from), NodeId(to)));
        self.0.links.borrow_mut().remove(&(NodeId(from), NodeId(to)));
    }

    /// Cuts a link in both directions; both ends notice.
    pub fn cut(&self, a: u32, b: u32) {
        self.silence(a, b);
        self.silence(b, a);
        self.shard(a).peer_lost(self.member(b));
        self.shard(b).peer_lost(self.member(a));
    }

    /// A node is of a release without explain.
    pub fn is_older(&self, node: u32) {
        self.0.older.borrow_mut().insert(NodeId(node));
    }

    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(work);
    }

    /// Links work again.
    pub fn heal(&self) {
        self.0.broken.borrow_mut().clear();
    }

    pub fn complaints(&self) -> Vec<Complaint> {
        self.0.complaints.borrow().clone()
    }

    /// Stands for every message and complaint so far.
    pub fn trace(&self) -> u64 {
        self.0.trace.borrow().finish()
    }

    pub async fn sleep(&self, ms: u64) {
        self.0.executor.sleep(Duration::from_millis(ms)).await;
    }

    /// Waits for an answer, for some seconds of virtual time.
    async fn in_time<T>(&self, what: &str, answer: impl Future<Output = T>) -> T {
        let late = async {
            self.sleep(WAIT_MS_MAX).await;
            panic!("{what}: there is no answer");
        };
        future::or(answer, late).await
    }

    /// Waits until `done`, for some seconds of virtual time.
    pub async fn until(&self, what: &str, done: impl Fn() -> bool) {
        for _ in 0..WAIT_MS_MAX {
            if done() {
                return;
            }
            self.sleep(1).await;
        }
        panic!("{what}: it does not come");
    }

    fn send(&self, from: ChainMember, to: ChainMember, message: Message) {
        let link = (from.node, to.node);
        note(&mut self.0.trace.borrow_mut(), link, &message);
        let runs = self.0.nodes.borrow().get(&from.node).is_some_and(|node| node.shard.me() == from);
        if !runs {
            return;
        }
        let is_lost = self.0.broken.borrow().contains(&link) || !self.0.nodes.borrow().contains_key(&to.node);
        if !is_lost {
            self.0.links.borrow_mut().entry(link).or_default().push_back(message);
        }
        let scene = self.clone();
        let micros = self.0.executor.random(|random| 1 + random.below(LINK_DELAY_MICROS_MAX));
        self.0.executor.spawn(async move {
            scene.0.executor.sleep(Duration::from_micros(micros)).await;
            scene.deliver(link);
        });
    }

    /// Whoever is woken first delivers what was sent first.
    fn deliver(&self, link: Link) {
        let message = self.0.links.borrow_mut().get_mut(&link).and_then(VecDeque::pop_front);
        let to = self.0.nodes.borrow().get(&link.1).map(|node| node.shard.clone());
        if let (Some(message), Some(to)) = (message, to) {
            to.receive(message);
        }
    }

    // ---- The controller ----

    /// From now on the controller changes this range.
    pub fn turn_to(&self, range: RangeId) {
        self.0.range.set(range);
    }

    pub async fn seal(&self, node: u32, epoch: u64) -> SealReport {
        let (incarnation, ring) = (self.member(node).incarnation, RANGE.ring);
        let ranges = vec![SealRange { range: self.0.range.get(), epoch: Epoch(epoch), members: Vec::new() }];
        let request = SealRequest { writer: WRITER, incarnation, ring, ranges };
        let reply = self.in_time("seal", self.shard(node).seal(request)).await;
        let report = reply.ranges.into_iter().next().expect("one was asked for");
        assert_eq!(report.error, None, "node {node} promises epoch {epoch}");
        report
    }

    pub async fn reconcile(&self, node: u32, epoch: u64, end: LogPoint, source: u32) {
        let (incarnation, ring) = (self.member(node).incarnation, RANGE.ring);
        let source = (source != node).then(|| self.member(source));
        let one = ReconcileRange { range: self.0.range.get(), epoch: Epoch(epoch), end, source };
        let request = ReconcileRequest { writer: WRITER, incarnation, ring, ranges: vec![one] };
        let reply = self.in_time("reconcile", self.shard(node).reconcile(request)).await;
        assert_eq!(reply.ranges[0].error, None, "node {node} is reconciled in epoch {epoch}");
    }

    /// Makes `chain` the chain of an epoch; the first of `survivors` with the longest log is the source.
    pub async fn change(&self, epoch: u64, chain: &[u32], survivors: &[u32]) {
        let mut reports = BTreeMap::new();
        for &node in chain {
            reports.insert(node, self.seal(node, epoch).await);
        }
        let source = survivors.iter().copied().max_by_key(|node| (reports[node].last_epoch, reports[node].end.index));
        let source = source.expect("somebody survived");
        let start = reports[&source].end;
        let reconciled = chain.iter().map(|&node| self.reconcile(node, epoch, start, source));
        join_all(reconciled).await;
        let members: Vec<_> = chain.iter().map(|&node| self.member(node)).collect();
        for &node in chain {
            let one = ActivateRange { range: self.0.range.get(), epoch: Epoch(epoch), chain: members.clone(), start };
            let request = ActivateRequest { ring: RANGE.ring, ranges: vec![one] };
            assert_eq!(self.shard(node).activate(request).await.ranges[0].error, None, "node {node} acts");
        }
    }

    pub async fn learn(&self, node: u32, epoch: u64, chain: &[u32], source: u32) -> LearnReport {
        let members = chain.iter().map(|&node| self.member(node)).collect();
        let one = LearnRange { range: RANGE.range, epoch: Epoch(epoch), chain: members, source: self.member(source) };
        let (incarnation, ring) = (self.member(node).incarnation, RANGE.ring);
        let reply = self.shard(node).learn(LearnRequest { incarnation, ring, ranges: vec![one] }).await;
        reply.ranges.into_iter().next().expect("one was asked for")
    }

    // ---- Clients ----

    /// Opens the partition at the head.
    pub async fn open_partition(&self, head: u32, epoch: u64) {
        let entry = open_entry(PARTITION, TopicConfig::default());
        let entries = vec![AppendControlRange { range: RANGE, epoch: Epoch(epoch), entry }];
        let reply = self.shard(head).append_control(AppendControlRequest { entries }).await;
        assert_eq!(reply.entries[0].error, None);
    }

    /// Produces records at the head, without waiting for their commit.
    pub async fn produce(&self, head: u32, epoch: u64, sequences: std::ops::Range<i32>, answers: &Answers) {
        for sequence in sequences {
            self.life(head, epoch).produce(sequence, &value(sequence), answers).await;
        }
    }

    pub fn life(&self, node: u32, epoch: u64) -> Life {
        let time = self.0.nodes.borrow()[&NodeId(node)].time.clone();
        Life { shard: self.shard(node), epoch: Epoch(epoch), time }
    }

    /// Waits until all of `nodes` know all that is appended at the first to be committed, and compares their bytes.
    pub async fn agree(&self, nodes: &[u32]) {
        let end = self.range(nodes[0]).log().end();
        let all = || nodes.iter().all(|&node| self.range(node).readable_index() == end.index);
        self.until("everything is committed everywhere", all).await;
        let first = self.bytes(nodes[0]).await;
        for &node in nodes {
            assert_eq!(self.range(node).log().end(), end, "node {node}");
            assert!(self.bytes(node).await == first, "node {node} has the same bytes");
        }
    }

    async fn bytes(&self, node: u32) -> Vec<u8> {
        let log = self.range(node).log().clone();
        let (mut bytes, mut next, end) = (Vec::new(), LogIndex(1), log.end().index);
        while next <= end {
            let read = log.read_index(next, 1 << 20).await.expect("the log can be read");
            for run in read {
                let mut rest = &run[..];
                while let Ok(header) = EntryHeader::decode(rest) {
                    next = header.index.next();
                    rest = &rest[header.entry_bytes()..];
                }
                bytes.extend_from_slice(&run);
            }
        }
        bytes
    }
}

fn note(trace: &mut DefaultHasher, link: Link, message: &Message) {
    link.hash(trace);
    let PeerMessage { epoch, body, .. } = message;
    epoch.hash(trace);
    match body {
        PeerBody::Entries { entries, .. } => entries.iter().for_each(|run| run[..].hash(trace)),
        body => format!("{body:?}").hash(trace),
    }
}
