//! A fake node: shard ports that answer seal, reconcile, activate and append-control from memory, by the rules.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use minikafka_client::connection::FrameReader;
use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
use minikafka_core::chain::ChainMember;
use minikafka_core::control::ControlEntry;
use minikafka_core::coordination::{BrokerRecord, KeyLife, path};
use minikafka_core::topic::TopicConfig;
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::*;
use minikafka_core::*;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::SECRET;

static NEXT: AtomicU64 = AtomicU64::new(1000);

fn fresh() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Disks by store, so that a node can copy from another one's.
static DISKS: Mutex<BTreeMap<StoreId, Disk>> = Mutex::new(BTreeMap::new());

/// What outlives the process.
#[derive(Clone, Debug)]
pub struct Disk {
    store: StoreId,
    ranges: Arc<Mutex<BTreeMap<RangeKey, RangeDisk>>>,
}

#[derive(Clone, Debug, Default)]
struct RangeDisk {
    promised: Epoch,
    marker: Epoch,
    /// The epoch of each entry.
    log: Vec<Epoch>,
    partitions: BTreeMap<PartitionKey, ControlEntry>,
}

pub struct FakeNode {
    pub broker: BrokerRecord,
    pub disk: Disk,
    /// While set, control entries are applied but never answered.
    pub mute: Arc<AtomicBool>,
    /// While set, it learns and never gets near.
    pub slow: Arc<AtomicBool>,
    process: Arc<Process>,
    session: CoordinatorClient,
    tasks: JoinSet<()>,
}

struct Process {
    node: NodeId,
    incarnation: Incarnation,
    disk: Disk,
    acting: Mutex<BTreeMap<RangeKey, (Epoch, ShardId)>>,
    opened_by: Mutex<BTreeMap<RangeKey, ShardId>>,
    mute: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
}

impl FakeNode {
    /// A node with an empty disk.
    pub async fn start(store: &EmbeddedCoordinator, node: NodeId, shards: u16) -> Self {
        let disk = Disk { store: StoreId(fresh()), ranges: Arc::default() };
        lock(&DISKS).insert(disk.store, disk.clone());
        Self::start_on(store, node, shards, disk).await
    }

    /// A new process on a disk.
    pub async fn start_on(store: &EmbeddedCoordinator, node: NodeId, shards: u16, disk: Disk) -> Self {
        let (mute, slow) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let process = Arc::new(Process {
            node,
            incarnation: Incarnation(fresh()),
            disk: disk.clone(),
            acting: Mutex::default(),
            opened_by: Mutex::default(),
            mute: mute.clone(),
            slow: slow.clone(),
        });
        let (mut tasks, mut addresses) = (JoinSet::new(), Vec::new());
        for shard in (0..shards).map(ShardId) {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push(listener.local_addr().expect("a bound socket").to_string());
            tasks.spawn(accept(process.clone(), shard, listener));
        }
        let broker = BrokerRecord {
            node,
            shards: addresses,
            rack: String::new(),
            incarnation: process.incarnation,
            store: disk.store,
            version: "test".into(),
        };
        let session = CoordinatorClient::new(Arc::new(store.session()));
        session.create(&path::broker(node), &broker, KeyLife::Ephemeral).await.expect("no other process of this node");
        Self { broker, disk, mute, slow, process, session, tasks }
    }

    /// Kills the process; its disk stays.
    pub async fn stop(mut self) -> Disk {
        self.session.close();
        self.tasks.shutdown().await;
        self.disk
    }

    /// Ranges of a ring that this process acts for.
    pub fn acting(&self, ring: RingId) -> usize {
        lock(&self.process.acting).keys().filter(|range| range.ring == ring).count()
    }

    /// Settings of the open partitions of a topic, as they were last told.
    pub fn settings(&self, topic: TopicId) -> Vec<(TopicConfig, ConfigVersion)> {
        let ranges = lock(&self.disk.ranges);
        let partitions = ranges.values().flat_map(|range| &range.partitions);
        let settings = partitions.filter(|(partition, _)| partition.topic == topic).map(|(_, entry)| match entry {
            ControlEntry::PartitionOpen { config, version, .. }
            | ControlEntry::PartitionConfig { config, version, .. } => (*config, *version),
            other => panic!("{other:?} is nothing that opens or alters"),
        });
        settings.collect()
    }

    /// Puts the settings of a topic back to the default ones, as if no alteration had arrived.
    pub fn forget_settings(&self, topic: TopicId) {
        for entry in lock(&self.disk.ranges).values_mut().flat_map(|range| range.partitions.values_mut()) {
            let partition = entry.partition().expect("entries of partitions only");
            if partition.topic == topic {
                let (config, version, start_offset) = (TopicConfig::default(), ConfigVersion::FIRST, Offset(0));
                *entry = ControlEntry::PartitionOpen { partition, config, version, start_offset, previous: None };
            }
        }
    }

    /// Open partitions of a topic.
    pub fn open_partitions(&self, topic: TopicId) -> usize {
        let ranges = lock(&self.disk.ranges);
        ranges.values().flat_map(|range| range.partitions.keys()).filter(|partition| partition.topic == topic).count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test thread panicked")
}

async fn accept(process: Arc<Process>, shard: ShardId, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(process.clone(), shard, stream));
    }
}

async fn serve(process: Arc<Process>, shard: ShardId, stream: TcpStream) {
    let (source, mut sink) = stream.into_split();
    let mut frames = FrameReader::new(source, FrameLimits::REPLY);
    let mut hello: Option<(Hello, [u8; 16])> = None;
    let mut proven = false;
    while let Ok(Some(frame)) = frames.next().await {
        let answer = match Api::from_number(frame.header.api) {
            Some(Api::Hello) => {
                let opener = Hello::from_bytes(&frame.head).expect("a hello");
                let nonce = [shard.0 as u8; 16];
                let reply = process.hello(&opener, shard, nonce);
                hello = Some((opener, nonce));
                Some(Ok(reply.to_bytes()))
            }
            Some(Api::Prove) => {
                let (opener, nonce) = hello.as_ref().expect("hello before proof");
                let proof = Proof::from_bytes(&frame.head).expect("a proof");
                proven = check_proof(&proof, SECRET, Prover::Opener, opener.role, &opener.nonce, nonce);
                assert!(proven, "the gateway knows the secret");
                Some(Ok(prove(SECRET, Prover::Server, opener.role, &opener.nonce, nonce).to_bytes()))
            }
            Some(api) if proven => process.answer(shard, api, &frame.head),
            _ => Some(Err(ErrorCode::NotAuthorized)),
        };
        let Some(answer) = answer else { continue };
        let (error, head) = match answer {
            Ok(head) => (None, head),
            Err(code) => (Some(code), ErrorReply::of(code).to_bytes()),
        };
        let mut out = Vec::new();
        encode_frame(&mut out, Envelope::reply(&frame.header, error), &head, 0);
        if sink.write_all(&out).await.is_err() {
            return;
        }
    }
}

impl Process {
    fn hello(&self, opener: &Hello, shard: ShardId, nonce: [u8; 16]) -> HelloReply {
        assert_eq!(opener.role, Role::Controller);
        HelloReply {
            protocol: 1,
            nonce,
            cluster: opener.cluster,
            node: self.node,
            shard,
            server_version: "test".into(),
            batch_body_bytes_max: 0,
            record_bytes_max: 0,
            in_flight_max: 100,
            idle_deadline_ms: 0,
        }
    }

    /// None: no answer at all.
    fn answer(&self, shard: ShardId, api: Api, head: &[u8]) -> Option<Result<Vec<u8>, ErrorCode>> {
        Some(Ok(match api {
            Api::Seal => {
                let request = SealRequest::from_bytes(head).expect("a seal");
                let ranges = request.ranges.iter().map(|range| self.seal(shard, &request, range)).collect();
                SealReply { incarnation: self.incarnation, store: self.disk.store, ranges }.to_bytes()
            }
            Api::Reconcile => {
                let request = ReconcileRequest::from_bytes(head).expect("a reconcile");
                let ranges = request.ranges.iter().map(|range| self.reconcile(&request, range)).collect();
                RangesReply { ranges }.to_bytes()
            }
            Api::Activate => {
                let request = ActivateRequest::from_bytes(head).expect("an activate");
                let ranges = request.ranges.iter().map(|range| self.activate(shard, request.ring, range)).collect();
                RangesReply { ranges }.to_bytes()
            }
            Api::Learn => {
                let request = LearnRequest::from_bytes(head).expect("a learn");
                let ranges = request.ranges.iter().map(|range| self.learn(range)).collect();
                LearnReply { incarnation: self.incarnation, store: self.disk.store, ranges }.to_bytes()
            }
            Api::Measure => {
                let request = MeasureRequest::from_bytes(head).expect("a measure");
                let size =
                    |range: &RangeId| MeasuredRange { range: *range, error: None, bytes: u64::from(range.0 + 1) << 30 };
                MeasureReply { ranges: request.ranges.iter().map(size).collect() }.to_bytes()
            }
            Api::AppendControl => {
                let request = AppendControlRequest::from_bytes(head).expect("control entries");
                let entries = request.entries.iter().map(|entry| self.append(shard, entry)).collect();
                if self.mute.load(Ordering::Relaxed) {
                    return None;
                }
                AppendControlReply { entries }.to_bytes()
            }
            _ => return Some(Err(ErrorCode::Misdirected)),
        }))
    }

    fn seal(&self, shard: ShardId, request: &SealRequest, asked: &SealRange) -> SealReport {
        assert_eq!(request.incarnation, self.incarnation, "a seal for another process");
        let key = RangeKey { ring: request.ring, range: asked.range };
        let opened = *lock(&self.opened_by).entry(key).or_insert(shard);
        assert_eq!(opened, shard, "range {key} is asked of two shards of one process");
        let mut ranges = lock(&self.disk.ranges);
        let disk = ranges.entry(key).or_default();
        let error = (asked.epoch < disk.promised).then_some(ErrorCode::Stale);
        if error.is_none() {
            disk.promised = asked.epoch;
            lock(&self.acting).retain(|range, (epoch, _)| *range != key || *epoch >= asked.epoch);
        }
        SealReport {
            range: asked.range,
            error,
            promised: disk.promised,
            marker: disk.marker,
            end: end(&disk.log),
            last_epoch: disk.log.last().copied().unwrap_or_default(),
            known_committed: LogIndex(disk.log.len() as u64),
            damaged: false,
        }
    }

    fn reconcile(&self, request: &ReconcileRequest, asked: &ReconcileRange) -> RangeOutcome {
        let key = RangeKey { ring: request.ring, range: asked.range };
        // Before its own disk is locked: others copy from here, too.
        let source = asked.source.filter(|source| source.store != self.disk.store);
        let copied = source.map(|source| {
            let disk = lock(&DISKS)[&source.store].clone();
            let range = lock(&disk.ranges).get(&key).cloned();
            range.unwrap_or_default()
        });
        let mut ranges = lock(&self.disk.ranges);
        let disk = ranges.entry(key).or_default();
        let fresh = disk.promised == asked.epoch && disk.marker < asked.epoch;
        let error = if request.incarnation != self.incarnation {
            Some(ErrorCode::NotOwner)
        } else {
            (!fresh).then_some(ErrorCode::Stale)
        };
        if error.is_none() {
            if let Some(copied) = copied {
                (disk.log, disk.partitions) = (copied.log, copied.partitions);
            }
            assert_eq!(end(&disk.log), asked.end, "a source has all that was decided");
            disk.marker = asked.epoch;
        }
        RangeOutcome { range: asked.range, error, epoch: disk.promised, end: LogIndex(0) }
    }

    /// Near at once, or never.
    fn learn(&self, asked: &LearnRange) -> LearnReport {
        let end = if self.slow.load(Ordering::Relaxed) { LogIndex(7) } else { LogIndex(1_000) };
        LearnReport { range: asked.range, error: None, promised: Epoch(0), end, limit: Some(LogIndex(1_000)) }
    }

    fn activate(&self, shard: ShardId, ring: RingId, asked: &ActivateRange) -> RangeOutcome {
        let key = RangeKey { ring, range: asked.range };
        let ranges = lock(&self.disk.ranges);
        let (promised, marker) = ranges.get(&key).map_or_else(Default::default, |disk| (disk.promised, disk.marker));
        let me = |m: &ChainMember| {
            m.node == self.node && m.shard == shard && m.store == self.disk.store && m.incarnation == self.incarnation
        };
        let error = if promised > asked.epoch {
            Some(ErrorCode::Stale)
        } else {
            (marker != asked.epoch || !asked.chain.iter().any(me)).then_some(ErrorCode::NotOwner)
        };
        if error.is_none() {
            lock(&self.acting).insert(key, (asked.epoch, shard));
        }
        RangeOutcome { range: asked.range, error, epoch: promised, end: LogIndex(0) }
    }

    fn append(&self, shard: ShardId, asked: &AppendControlRange) -> AppendControlOutcome {
        let acting = lock(&self.acting).get(&asked.range).copied();
        let outcome = |error, epoch| AppendControlOutcome { range: asked.range, error, epoch };
        let Some((epoch, _)) = acting.filter(|(_, owner)| *owner == shard) else {
            return outcome(Some(ErrorCode::NotOwner), Epoch(0));
        };
        if epoch != asked.epoch {
            return outcome(Some(ErrorCode::Stale), epoch);
        }
        let mut ranges = lock(&self.disk.ranges);
        let disk = ranges.entry(asked.range).or_default();
        let partition = asked.entry.partition().expect("entries of partitions only");
        match &asked.entry {
            ControlEntry::PartitionOpen { .. } if !disk.partitions.contains_key(&partition) => {
                disk.partitions.insert(partition, asked.entry.clone());
                disk.log.push(epoch);
            }
            ControlEntry::PartitionDelete { .. } => match disk.partitions.remove(&partition) {
                Some(_) => disk.log.push(epoch),
                None => return outcome(Some(ErrorCode::UnknownPartition), epoch),
            },
            ControlEntry::PartitionConfig { .. } => {
                assert!(disk.partitions.contains_key(&partition), "only what is open is altered");
                disk.partitions.insert(partition, asked.entry.clone());
                disk.log.push(epoch);
            }
            _ => {}
        }
        outcome(None, epoch)
    }
}

fn end(log: &[Epoch]) -> LogPoint {
    let hash = log.iter().fold(0u64, |hash, epoch| hash.wrapping_mul(31) ^ epoch.0);
    LogPoint { index: LogIndex(log.len() as u64), hash: RunningHash(hash) }
}
