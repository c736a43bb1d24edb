//! The scene of an attack: a node, a load that must not be disturbed, and a topic to aim at.

use minikafka_client::core::batch::{BatchBuilder, RecordRef};
use minikafka_client::core::topic::TopicConfig;
use minikafka_client::core::wire::{
    Api, DeleteRecordsPartition, FetchPartition, ListOffsetsPartition, ListOffsetsReply, ListOffsetsRequest,
    OffsetQuery, ProduceReply, ProduceRequest, Wire,
};
use minikafka_client::core::{
    Epoch, Offset, Partition, PartitionKey, ProducerEpoch, ProducerId, RangeKey, Sequence, Timestamp,
};
use minikafka_client::{Client, TopicOptions};
use minikafka_tests::load::{Load, LoadSetup};
use minikafka_tests::process::{self, Node, NodeSetup};
use minikafka_tests::raw::{Answer, RawClient, frame, frame_with};
use minikafka_tests::seed::Seed;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The topic under attack.
pub const TARGET: &str = "target";
/// Its partitions.
const PARTITIONS: u32 = 4;
/// Records that the load must get through to count as undisturbed.
const RECORDS_UNDISTURBED: u64 = 20;

/// A node, a load, and a target.
pub struct Scene {
    /// Where randomness begins.
    pub seed: Seed,
    /// The process under attack.
    pub node: Node,
    /// The partitions of [`TARGET`].
    pub targets: Vec<Target>,
    runtime: Runtime,
    client: Client,
    load: Option<Load>,
    _directory: TempDir,
}

/// A partition to aim at.
#[derive(Clone, Debug)]
pub struct Target {
    /// The shard that owns it.
    pub address: String,
    /// Its range.
    pub range: RangeKey,
    /// The epoch of its range.
    pub epoch: Epoch,
    /// Its name.
    pub partition: PartitionKey,
}

impl Scene {
    /// With a load under way.
    pub fn start() -> Self {
        let mut scene = Self::quiet();
        scene.start_load();
        scene
    }

    /// Without a load: for what measures the process.
    pub fn quiet() -> Self {
        let seed = Seed::from_environment();
        let directory = process::directory().expect("a directory beside the build");
        let mut setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
        // Without the probe of the disk it starts faster.
        setup.more = vec!["--durability".to_owned(), "dsync".to_owned()];
        let node = setup.start().expect("a node starts");
        let runtime = Runtime::new().expect("threads");
        let builder = Client::builder([node.gateway()]).client_name("scene");
        let client = runtime.block_on(builder.connect()).expect("a gateway answers");
        let options = TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() };
        let targets = runtime.block_on(create(&client, TARGET, options));
        Self { seed, node, targets, runtime, client, load: None, _directory: directory }
    }

    /// Puts the load under way.
    pub fn start_load(&mut self) {
        let setup = LoadSetup {
            gateways: vec![self.node.gateway().to_owned()],
            topic: "load".to_owned(),
            partitions: 3,
            replication: 0,
            producers: 2,
            consumers: 1,
            unanswered_max: 20,
            seed: self.seed,
        };
        self.load = Some(self.runtime.block_on(Load::start(setup)).expect("a load"));
        self.undisturbed();
    }

    /// The one partition of another topic, in which something may be stored.
    pub fn topic_of_one(&self, name: &str, batch_bytes_max: u32) -> Target {
        let config = TopicConfig { batch_bytes_max, ..TopicConfig::default() };
        let options = TopicOptions { partitions: 1, config, ..TopicOptions::default() };
        let mut targets = self.runtime.block_on(create(&self.client, name, options));
        targets.remove(0)
    }

    /// Whether the address is a gateway's, and the address: one port of each kind.
    pub fn ports(&self) -> [(bool, String); 2] {
        [(false, self.targets[0].address.clone()), (true, self.node.gateway().to_owned())]
    }

    /// Asserts that the load gets on.
    pub fn undisturbed(&mut self) {
        if let Some(load) = &mut self.load {
            let progress = self.runtime.block_on(load.progress(RECORDS_UNDISTURBED));
            progress.unwrap_or_else(|error| panic!("the load is disturbed: {error:#}\n{}", self.node.log_end()));
        }
    }

    /// Asserts that nothing was stored in the target, that it takes a good batch all the same, and that the load saw what
    /// it should.
    pub fn finish(mut self) {
        assert!(self.node.is_running(), "the node has ended:\n{}", self.node.log_end());
        for target in &self.targets {
            assert_eq!(target.offsets(), (Offset(0), Offset(0)), "something was stored in {target:?}");
            let mut client = RawClient::greeted(&target.address);
            let (request, body) = target.batch(&[b"good"]);
            let reply: ProduceReply = client.ask(&produce(&request, &body)).good();
            assert_eq!(reply.base_offset, Offset(0));
            assert_eq!(target.offsets(), (Offset(0), Offset(1)));
        }
        self.undisturbed();
        if let Some(load) = self.load.take() {
            let report = self.runtime.block_on(load.finish()).unwrap_or_else(|error| panic!("{error:#}"));
            report.assert_clean(&self.seed.to_string());
            println!("meanwhile: {report}");
        }
        self.node.stop().expect("an orderly end");
    }
}

async fn create(client: &Client, name: &str, options: TopicOptions) -> Vec<Target> {
    let topic = client.create_topic(name, options).await.expect("a new topic");
    let map = client.refresh_map().await.expect("a map");
    let target = |number: u32| {
        let range = map.range_of(&topic, Partition(number)).expect("the ring is known");
        let owner = map.owner_of(range).expect("the range has an owner");
        let partition = PartitionKey { topic: topic.topic, partition: Partition(number) };
        Target { address: owner.address.to_string(), range, epoch: owner.epoch, partition }
    };
    (0..topic.partitions).map(target).collect()
}

impl Target {
    /// A good batch of these values, to be spoiled.
    pub fn batch(&self, values: &[&[u8]]) -> (ProduceRequest, Vec<u8>) {
        let mut builder = BatchBuilder::with_capacity(0);
        for value in values {
            builder.push(RecordRef { value: Some(value), ..RecordRef::at(Timestamp(1)) }).expect("a record that fits");
        }
        let batch = builder.finish();
        let producer = (ProducerId::NONE, ProducerEpoch(0), Sequence(0));
        let header = batch.header(self.range, self.partition, producer);
        (ProduceRequest { epoch: self.epoch, timeout_ms: 10_000, header }, batch.body)
    }

    /// A fetch from the front.
    pub fn fetch(&self) -> FetchPartition {
        let (range, epoch, partition) = (self.range, self.epoch, self.partition);
        FetchPartition { range, epoch, partition, offset: Offset(0), bytes_max: 1 << 20 }
    }

    /// A deletion of everything in it.
    pub fn deletion(&self) -> DeleteRecordsPartition {
        let &Self { range, epoch, partition, .. } = self;
        DeleteRecordsPartition { range, epoch, partition, before: Offset(u64::MAX) }
    }

    /// A look-up of its end.
    pub fn latest(&self) -> ListOffsetsPartition {
        let (range, epoch, partition) = (self.range, self.epoch, self.partition);
        ListOffsetsPartition { range, epoch, partition, query: OffsetQuery::Latest }
    }

    /// Its first offset and its end.
    pub fn offsets(&self) -> (Offset, Offset) {
        let earliest = ListOffsetsPartition { query: OffsetQuery::Earliest, ..self.latest() };
        let request = ListOffsetsRequest { partitions: vec![earliest, self.latest()] };
        let answer: Answer = RawClient::greeted(&self.address).ask(&frame(Api::ListOffsets, 1, &request));
        let listed = answer.good::<ListOffsetsReply>().partitions;
        assert!(listed.iter().all(|offset| offset.error.is_none()), "{listed:?}");
        (listed[0].offset, listed[1].offset)
    }
}

/// The frame of a produce request.
pub fn produce(request: &ProduceRequest, body: &[u8]) -> Vec<u8> {
    frame_with(Api::Produce, 7, &request.to_bytes(), body)
}
