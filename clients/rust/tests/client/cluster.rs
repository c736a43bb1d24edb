//! A cluster in memory: one gateway, any number of shards, real TCP and real frames.
//!
//! Shards keep logs, deduplicate as `docs/PROTOCOL.md` says, and refuse what they do not own. A test scripts faults:
//! what happens to the next requests of an api instead of, before or after what should.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use minikafka_client::Client;
use minikafka_client::core::ring::{range_of_token, token};
use minikafka_client::core::topic::{TopicConfig, TopicState};
use minikafka_client::core::wire::{Api, ChainPlace, NodeAddress, Placement, RangeChain, RingMap, TopicDescription};
use minikafka_client::core::{
    Epoch, ErrorCode, NodeId, Partition, PartitionKey, RangeId, RangeKey, RingId, ShardId, TopicId,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

mod gateway;
mod groups;
pub mod log;
pub mod server;
mod shard;

pub use log::PartitionLog;

/// Ranges of the one ring.
const RANGES: u32 = 8;
pub const RING: RingId = RingId(1);

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing special.
    None,
    /// The connection closes before the request is looked at.
    CloseBefore,
    /// The request is carried out, then the connection closes without a reply.
    CloseAfter,
    /// The request is not carried out.
    Refuse(ErrorCode),
    /// The same, with this message.
    RefuseSaying(ErrorCode, String),
    /// The request is not carried out, and may come again after so many milliseconds.
    Throttle(u32),
    /// The request is carried out, the reply is an error.
    Deny(ErrorCode),
    /// The request is carried out, the reply waits until the gate opens.
    Hold(Arc<Notify>),
    /// No reply ever.
    Silence,
    /// A bit of the reply's head is flipped.
    DamageHead,
    /// A bit in the middle of the reply's bulk is flipped.
    DamageBulk,
    /// The reply breaks off in the middle and the connection closes.
    Truncate,
    /// The reply announces more bytes than allowed.
    LieAboutSize,
    /// The reply names another correlation.
    WrongCorrelation,
}

/// A running cluster; it ends with the test.
#[derive(Clone)]
pub struct Cluster {
    pub shared: Arc<Shared>,
}

pub struct Shared {
    pub state: Mutex<State>,
    /// Counts appends and moves: what long polls wait for.
    pub changed: watch::Sender<u64>,
    pub gateway: String,
    pub shards: Vec<String>,
}

#[derive(Default)]
pub struct State {
    pub topics: HashMap<String, TopicDescription>,
    /// Head (as index of a shard) and epoch of each range.
    pub heads: Vec<(usize, Epoch)>,
    /// What the gateway believes; a lagging one believes older things.
    pub published: Option<Vec<(usize, Epoch)>>,
    pub logs: HashMap<(RangeKey, PartitionKey), PartitionLog>,
    pub faults: HashMap<u16, VecDeque<Fault>>,
    /// Requests seen, by api.
    pub requests: HashMap<u16, usize>,
    /// Bumped to close every connection.
    pub generation: u64,
    pub next_topic: u64,
    pub wait_ms_max_seen: u32,
    /// Of a release without explain.
    pub is_older: bool,
    /// Requests that asked to be explained.
    pub explains: usize,
    pub groups: groups::Groups,
}

impl Cluster {
    /// Starts `shards` shards, each on a node of its own, and a gateway.
    pub async fn start(shards: usize) -> Self {
        let listen = || async { TcpListener::bind("127.0.0.1:0").await.expect("a free port") };
        let address = |listener: &TcpListener| listener.local_addr().expect("it listens").to_string();
        let gateway = listen().await;
        let mut listeners = Vec::new();
        for _ in 0..shards {
            listeners.push(listen().await);
        }
        let state =
            State { heads: (0..RANGES as usize).map(|range| (range % shards, Epoch(1))).collect(), ..State::default() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            gateway: address(&gateway),
            shards: listeners.iter().map(address).collect(),
        });
        tokio::spawn(server::serve(shared.clone(), gateway, None));
        tokio::spawn(groups::tick(Arc::downgrade(&shared)));
        for (shard, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(server::serve(shared.clone(), listener, Some(shard)));
        }
        Self { shared }
    }

    /// A client of this cluster.
    pub async fn client(&self) -> Client {
        Client::builder([&self.shared.gateway]).client_name("test").connect().await.expect("the gateway answers")
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics while it holds the state")
    }

    /// What happens to the next requests of an api.
    pub fn script(&self, api: Api, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(api as u16).or_default().extend(faults);
    }

    /// How many scripted faults have not happened yet.
    pub fn faults_left(&self, api: Api) -> usize {
        self.state().faults.get(&(api as u16)).map_or(0, VecDeque::len)
    }

    pub fn requests(&self, api: Api) -> usize {
        self.state().requests.get(&(api as u16)).copied().unwrap_or(0)
    }

    /// Creates a topic behind the clients' back.
    pub fn create_topic(&self, name: &str, partitions: u32) -> TopicDescription {
        self.state().create_topic(name, partitions, TopicConfig::default())
    }

    pub fn range_of(&self, topic: &TopicDescription, partition: u32) -> RangeKey {
        range_of(topic, Partition(partition))
    }

    /// Moves a range to another shard in a new epoch; the log goes along.
    pub fn move_range(&self, range: RangeKey, to: usize) {
        {
            let mut state = self.state();
            let head = &mut state.heads[range.range.0 as usize];
            *head = (to, head.1.next());
        }
        self.shared.changed.send_modify(|changes| *changes += 1);
    }

    /// Closes every connection, to shards and gateway.
    pub fn close_connections(&self) {
        self.state().generation += 1;
        self.shared.changed.send_modify(|changes| *changes += 1);
    }

    /// The values of a partition's records, in order.
    pub fn values(&self, topic: &TopicDescription, partition: u32) -> Vec<Vec<u8>> {
        let key = (self.range_of(topic, partition), key(topic, partition));
        self.state().logs.get(&key).map_or(Vec::new(), PartitionLog::values)
    }

    /// Waits for a condition on the state; panics after 10 seconds.
    pub async fn wait_until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let mut changes = self.shared.changed.subscribe();
        let waiting = async {
            while !condition(&self.state()) {
                changes.changed().await.expect("the cluster lives");
            }
        };
        within(what, waiting).await;
    }
}

/// Waits for something that must happen within 10 seconds.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

pub fn key(topic: &TopicDescription, partition: u32) -> PartitionKey {
    PartitionKey { topic: topic.topic, partition: Partition(partition) }
}

pub fn range_of(topic: &TopicDescription, partition: Partition) -> RangeKey {
    let placed = topic.placement.iter().find(|placement| placement.partition == partition);
    let by_token = || range_of_token(token(PartitionKey { topic: topic.topic, partition }), RANGES);
    RangeKey { ring: RING, range: placed.map_or_else(by_token, |placement| placement.range) }
}

impl State {
    pub fn create_topic(&mut self, name: &str, partitions: u32, config: TopicConfig) -> TopicDescription {
        self.next_topic += 1;
        let topic = TopicDescription {
            name: name.to_owned(),
            error: None,
            topic: TopicId(self.next_topic.wrapping_mul(0x1234_5678_9abc_def1)),
            partitions,
            ring: RING,
            state: TopicState::Ready,
            config,
            placement: Vec::new(),
        };
        self.topics.insert(name.to_owned(), topic.clone());
        for partition in 0..partitions {
            let range = range_of(&topic, Partition(partition));
            self.logs.insert((range, key(&topic, partition)), PartitionLog::default());
        }
        topic
    }

    /// Places a partition in another range from its current end on; older offsets stay where they are.
    pub fn replace(&mut self, name: &str, partition: u32, range: RangeId) {
        let topic = self.topics.get_mut(name).expect("the topic exists");
        let old = range_of(topic, Partition(partition));
        topic.placement.push(Placement { partition: Partition(partition), range });
        let key = key(topic, partition);
        let end = self.logs[&(old, key)].end;
        let log = PartitionLog::moved_from(old, end);
        self.logs.insert((RangeKey { ring: RING, range }, key), log);
    }

    /// The map as the gateway tells it.
    fn ring(&self) -> RingMap {
        let heads = self.published.as_ref().unwrap_or(&self.heads);
        let chain = |(shard, epoch): &(usize, Epoch)| RangeChain {
            epoch: *epoch,
            places: vec![ChainPlace { node: NodeId(*shard as u32), shard: ShardId(0) }],
        };
        RingMap { ring: RING, replication: 1, chains: heads.iter().map(chain).collect() }
    }

    fn next_fault(&mut self, api: u16) -> Fault {
        *self.requests.entry(api).or_default() += 1;
        self.faults.get_mut(&api).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
    }
}

impl Shared {
    fn nodes(&self) -> Vec<NodeAddress> {
        let node = |(shard, address): (usize, &String)| NodeAddress {
            node: NodeId(shard as u32),
            rack: String::new(),
            shards: vec![address.clone()],
        };
        self.shards.iter().enumerate().map(node).collect()
    }
}
