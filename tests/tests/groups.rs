//! Consumer groups on real brokers: partitions are shared, move, and nothing is lost on the way.
//!
//! What crashes, cuts and zombies do to groups is searched by `tests/sim`; here it is shown that the same machines do it
//! over sockets, driven by the client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minikafka_client::core::{ErrorCode, Offset, Partition};
use minikafka_client::{
    Acknowledge, Client, Error, GroupConsumer, GroupConsumerOptions, GroupStart, ProducerOptions, ProducerRecord,
    TopicOptions, TopicPartition,
};
use minikafka_tests::in_process::{Cluster, ClusterSetup, LOOK};
use minikafka_tests::process;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 8;

async fn start(nodes: u32) -> Cluster {
    let parent = process::build_directory().expect("a directory beside the build");
    Cluster::start(&parent, ClusterSetup { nodes, ..ClusterSetup::default() }).await
}

async fn topic(client: &Client, name: &str) {
    let options = TopicOptions { partitions: PARTITIONS, replication: 1, ..TopicOptions::default() };
    client.create_topic(name, options).await.expect("it is created");
}

/// Writes so many records to each partition: their values are their numbers in it, from `first` on.
async fn produce(client: &Client, name: &str, numbers: std::ops::Range<u64>) {
    let producer = client.producer(name, ProducerOptions::default()).await.expect("a producer");
    for number in numbers {
        for partition in 0..PARTITIONS {
            let value = number.to_string();
            let record = ProducerRecord::value(value.as_bytes()).to(Partition(partition));
            drop(producer.send(record).await.expect("it is taken"));
        }
    }
    producer.close().await.expect("all are stored");
}

fn options() -> GroupConsumerOptions {
    GroupConsumerOptions {
        session_timeout: Duration::from_secs(3),
        commit_interval: Duration::from_millis(50),
        ..GroupConsumerOptions::default()
    }
}

async fn join(client: &Client, options: GroupConsumerOptions) -> GroupConsumer {
    client.group_consumer("readers", &["orders"], options).await.expect("a consumer")
}

/// Reads on until the condition holds.
async fn read_until(consumer: &mut GroupConsumer, mut done: impl FnMut(&str, u32, u64) -> bool) {
    let reading = async {
        loop {
            let record = consumer.next().await.expect("a record");
            if done(record.topic(), record.partition.0, record.offset.0) {
                return;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("it comes in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_goes_on_where_the_group_was() {
    let cluster = start(3).await;
    let client = cluster.client().await;
    topic(&client, "orders").await;
    produce(&client, "orders", 0..10).await;
    let mut consumer = join(&client, options()).await;
    let mut seen = 0;
    read_until(&mut consumer, |_, _, _| {
        seen += 1;
        seen == 40
    })
    .await;
    consumer.close().await.expect("it leaves");
    let committed: u64 = client.group_offsets("readers").await.expect("offsets").values().map(|at| at.0).sum();
    assert_eq!(committed, 40, "what was handed out before a close counts as handled");
    // The next one gets the rest, and nothing else.
    let mut consumer = join(&client, options()).await;
    let mut rest = BTreeSet::new();
    read_until(&mut consumer, |_, partition, offset| {
        assert!(rest.insert((partition, offset)), "once");
        rest.len() == 40
    })
    .await;
    assert_eq!(consumer.next_within(Duration::from_millis(200)).await.expect("nothing").map(|at| at.offset), None);
    consumer.commit().await.expect("it is committed");
    let committed = client.group_offsets("readers").await.expect("offsets");
    assert_eq!(committed.values().collect::<BTreeSet<_>>(), BTreeSet::from([&Offset(10)]));
    consumer.close().await.expect("it leaves");
    cluster.end().await;
}

/// Who reads what, as the callbacks tell: nobody begins to read what another one reads.
#[derive(Clone, Default)]
struct Owners(Arc<Mutex<BTreeMap<TopicPartition, usize>>>);

impl Owners {
    fn watch(&self, number: usize, consumer: &mut GroupConsumer) {
        let owners = self.clone();
        consumer.on_assigned(move |partitions| {
            for partition in partitions {
                let before = owners.0.lock().unwrap().insert(partition.clone(), number);
                assert_eq!(before, None, "{partition} is given to {number}");
            }
            std::future::ready(())
        });
        let owners = self.clone();
        consumer.on_revoked(move |partitions| {
            for partition in partitions {
                assert_eq!(owners.0.lock().unwrap().remove(&partition), Some(number), "{partition}");
            }
            std::future::ready(())
        });
    }

    fn loads(&self) -> Vec<usize> {
        let mut loads = BTreeMap::new();
        self.0.lock().unwrap().values().for_each(|number| *loads.entry(*number).or_default() += 1);
        let mut loads: Vec<usize> = loads.into_values().collect();
        loads.sort_unstable();
        loads
    }

    async fn await_loads(&self, wanted: &[usize]) {
        let waiting = async {
            while self.loads() != wanted {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("shared {:?}, not {wanted:?}", self.loads()));
    }
}

/// One record as a consumer had it: number of the consumer, partition, offset.
type Seen = (usize, u32, u64);

/// A consumer in a task of its own, until the returned channel is dropped; then it closes.
async fn run(client: &Client, number: usize, owners: &Owners, seen: mpsc::UnboundedSender<Seen>) -> Runner {
    let mut consumer = join(client, options()).await;
    owners.watch(number, &mut consumer);
    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = stopped.recv() => return consumer.close().await,
                record = consumer.next() => {
                    let record = record?;
                    // The test may have ended.
                    let _ = seen.send((number, record.partition.0, record.offset.0));
                }
            }
        }
    });
    Runner { stop, task }
}

struct Runner {
    stop: mpsc::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl Runner {
    async fn stop(self) {
        drop(self.stop);
        timeout(PATIENCE, self.task).await.expect("it ends").expect("a task").expect("in order");
    }
}

/// Takes what was seen until each of these offsets of every partition was; in order, partition by partition.
async fn await_all(seen: &mut mpsc::UnboundedReceiver<Seen>, all: &mut BTreeMap<u32, Vec<Seen>>, end: u64) {
    let is_done = |all: &BTreeMap<u32, Vec<Seen>>| {
        (0..PARTITIONS).all(|of| {
            let offsets: BTreeSet<u64> = all.get(&of).into_iter().flatten().map(|(_, _, offset)| *offset).collect();
            offsets.len() as u64 == end
        })
    };
    while !is_done(all) {
        let record = timeout(PATIENCE, seen.recv()).await.expect("it comes in time").expect("consumers run");
        all.entry(record.1).or_default().push(record);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_what_there_is_and_hand_it_over_without_a_gap_or_a_repetition() {
    let cluster = start(3).await;
    let client = cluster.client().await;
    topic(&client, "orders").await;
    let owners = Owners::default();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut all = BTreeMap::new();
    let first = run(&client, 1, &owners, sender.clone()).await;
    owners.await_loads(&[8]).await;
    produce(&client, "orders", 0..50).await;
    // While records are on their way, others come.
    let second = run(&client, 2, &owners, sender.clone()).await;
    let third = run(&client, 3, &owners, sender.clone()).await;
    owners.await_loads(&[2, 3, 3]).await;
    produce(&client, "orders", 50..100).await;
    await_all(&mut seen, &mut all, 100).await;
    second.stop().await;
    owners.await_loads(&[4, 4]).await;
    produce(&client, "orders", 100..150).await;
    await_all(&mut seen, &mut all, 150).await;
    // Whoever gives back commits before, so that nothing comes twice: each partition is seen as it is stored.
    for (partition, seen) in &all {
        let offsets: Vec<u64> = seen.iter().map(|(_, _, offset)| *offset).collect();
        assert_eq!(offsets, (0..150).collect::<Vec<_>>(), "partition {partition}: {seen:?}");
    }
    first.stop().await;
    third.stop().await;
    let described = client.describe_group("readers").await.expect("it is there");
    assert!(described.members.is_empty() && described.generation > 3, "{described:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_is_handed_out_again_and_nothing_before_it() {
    let cluster = start(3).await;
    let client = cluster.client().await;
    topic(&client, "orders").await;
    produce(&client, "orders", 0..4).await;
    let by_record = GroupConsumerOptions { acknowledge: Acknowledge::ByRecord, ..options() };
    let mut consumer = join(&client, by_record.clone()).await;
    let mut records = Vec::new();
    while records.len() < 4 * PARTITIONS as usize {
        records.push(timeout(PATIENCE, consumer.next()).await.expect("in time").expect("a record"));
    }
    // All but offset 2 of partition 3, and nothing of partition 5.
    for record in &records {
        if (record.partition.0, record.offset.0) != (3, 2) && record.partition.0 != 5 {
            record.ack();
        }
    }
    consumer.commit().await.expect("it is committed");
    // Dropped, it leaves in the background.
    drop(consumer);
    let mut consumer = join(&client, by_record).await;
    let mut again = BTreeSet::new();
    read_until(&mut consumer, |_, partition, offset| {
        again.insert((partition, offset));
        again.len() == 6
    })
    .await;
    assert_eq!(again, BTreeSet::from([(3, 2), (3, 3), (5, 0), (5, 1), (5, 2), (5, 3)]));
    // What its last owner handed out is not its business any more.
    records.iter().for_each(|record| record.ack());
    consumer.commit().await.expect("nothing is");
    let committed = client.group_offsets("readers").await.expect("offsets");
    assert_eq!(committed.values().map(|offset| offset.0).sum::<u64>(), 6 * 4 + 2, "{committed:?}");
    consumer.close().await.expect("it leaves");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_group_begins_is_its_users_choice() {
    let cluster = start(3).await;
    let client = cluster.client().await;
    topic(&client, "orders").await;
    produce(&client, "orders", 0..5).await;
    let begin = |start| GroupConsumerOptions { start, commit_interval: Duration::from_secs(3600), ..options() };
    let mut latest = client.group_consumer("latest", &["orders"], begin(GroupStart::Latest)).await.expect("a consumer");
    // Where it begins is committed before anything is read: it is where its successor goes on.
    let committed = async {
        loop {
            match client.group_offsets("latest").await {
                Ok(offsets) if offsets.len() == PARTITIONS as usize => return offsets,
                Ok(_) => {}
                Err(error) => assert_eq!(error.code(), Some(ErrorCode::UnknownGroup)),
            }
            sleep(LOOK).await;
        }
    };
    let attending = async { while latest.next_within(LOOK).await.expect("no error").is_none() {} };
    let committed = tokio::select! {
        committed = committed => committed,
        () = attending => panic!("nothing was written meanwhile"),
        () = sleep(PATIENCE) => panic!("its begin is not committed"),
    };
    assert!(committed.values().all(|offset| *offset == Offset(5)), "{committed:?}");
    produce(&client, "orders", 5..6).await;
    read_until(&mut latest, |_, _, offset| {
        assert_eq!(offset, 5);
        true
    })
    .await;
    latest.close().await.expect("it leaves");

    let mut strict = client.group_consumer("strict", &["orders"], begin(GroupStart::Error)).await.expect("a consumer");
    let mut refused = BTreeSet::new();
    while refused.len() < PARTITIONS as usize {
        match timeout(PATIENCE, strict.next()).await.expect("in time") {
            Err(Error::NoCommit { topic, partition }) => refused.insert((topic, partition)),
            other => panic!("{other:?}"),
        };
    }
    let place = TopicPartition { topic: "orders".into(), partition: Partition(2) };
    strict.seek(&place, Offset(3)).expect("it owns that");
    let record = timeout(PATIENCE, strict.next()).await.expect("in time").expect("a record");
    assert_eq!((record.partition, record.offset), (Partition(2), Offset(3)));
    strict.close().await.expect("it leaves");
    let committed = client.group_offsets("strict").await.expect("offsets");
    assert_eq!(committed, BTreeMap::from([(place, Offset(4))]));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_of_the_same_instance_fences_the_old_one_and_goes_on_at_once() {
    let cluster = start(3).await;
    let client = cluster.client().await;
    topic(&client, "orders").await;
    produce(&client, "orders", 0..3).await;
    // Nobody waits for the session of the old one.
    let session_timeout = Duration::from_secs(600);
    let options = GroupConsumerOptions { instance: Some("one".into()), session_timeout, ..options() };
    let mut old = join(&client, options.clone()).await;
    read_until(&mut old, |_, _, _| true).await;
    let mut new = join(&client, options).await;
    read_until(&mut new, |_, _, _| true).await;
    let error = timeout(PATIENCE, async {
        loop {
            if let Err(error) = old.next().await {
                return error;
            }
        }
    });
    let error = error.await.expect("it is told");
    assert_eq!(error.code(), Some(ErrorCode::MemberFenced), "{error}");
    assert_eq!(old.commit().await.expect_err("it is out").code(), Some(ErrorCode::MemberFenced));
    // What the old one does in the end does not matter to the new one.
    assert_eq!(old.close().await.expect_err("it is out").code(), Some(ErrorCode::MemberFenced));
    new.commit().await.expect("it is committed");
    let described = client.describe_group("readers").await.expect("it is there");
    let members: Vec<_> = described.members.iter().map(|member| (&*member.instance, member.owned.len())).collect();
    assert_eq!(members, [("one", PARTITIONS as usize)]);
    new.leave_for_good().await.expect("it leaves");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_coordinator_dies_nothing_moves_and_commits_go_on() {
    let mut cluster = start(3).await;
    let client = cluster.client().await;
    let options = TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() };
    client.create_topic("orders", options).await.expect("it is created");
    let owners = Owners::default();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut all = BTreeMap::new();
    let (first, second) = (run(&client, 1, &owners, sender.clone()).await, run(&client, 2, &owners, sender).await);
    owners.await_loads(&[4, 4]).await;
    produce(&client, "orders", 0..20).await;
    await_all(&mut seen, &mut all, 20).await;
    let generation = client.describe_group("readers").await.expect("it is there").generation;
    let owners_before = owners.0.lock().unwrap().clone();

    let name = minikafka_client::core::group::GroupName::new("readers").expect("a name");
    let map = client.map();
    let range = map.range_of_group(&name).expect("its range");
    let head = map.members_of(range).next().expect("a head").node.0;
    let closed = cluster.cut(head);
    produce(&client, "orders", 20..40).await;
    await_all(&mut seen, &mut all, 40).await;
    let after = timeout(PATIENCE, client.describe_group("readers")).await.expect("in time").expect("it is there");
    let head_now = client.map().members_of(range).next().expect("a head").node.0;
    assert_ne!(head_now, head, "somebody else coordinates");
    // Long enough for what a coordinator that knows nothing would do.
    sleep(self::options().session_timeout + Duration::from_secs(1)).await;
    let later = client.describe_group("readers").await.expect("it is there");
    assert_eq!(*owners.0.lock().unwrap(), owners_before, "nothing was revoked, lost or assigned");
    assert_eq!((generation, generation), (after.generation, later.generation), "{later:?}");
    for (partition, seen) in &all {
        let offsets: Vec<u64> = seen.iter().map(|(_, _, offset)| *offset).collect();
        assert_eq!(offsets, (0..40).collect::<Vec<_>>(), "partition {partition}: {seen:?}");
    }
    first.stop().await;
    second.stop().await;
    let committed = client.group_offsets("readers").await.expect("offsets");
    assert!(committed.values().all(|offset| *offset == Offset(40)), "{committed:?}");
    closed.await.expect("its files are closed");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_see_how_far_a_group_is_and_move_it_when_nobody_is_there() {
    let cluster = start(3).await;
    let client = cluster.client().await;
    topic(&client, "orders").await;
    produce(&client, "orders", 0..10).await;
    let unknown = client.describe_group("readers").await.expect_err("there is none");
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownGroup), "{unknown}");
    let mut consumer = join(&client, options()).await;
    read_until(&mut consumer, |_, partition, offset| (partition, offset) == (6, 3)).await;
    consumer.commit().await.expect("it is committed");
    let place = |partition| TopicPartition { topic: "orders".into(), partition: Partition(partition) };
    let refused = client.commit_group_offsets("readers", &BTreeMap::from([(place(6), Offset(0))])).await;
    assert_eq!(refused.expect_err("it is owned").code(), Some(ErrorCode::GroupNotEmpty));
    assert_eq!(client.delete_group("readers").await.expect_err("it is used").code(), Some(ErrorCode::GroupNotEmpty));

    let lags = client.group_lag("readers").await.expect("its lag");
    assert_eq!(lags.len(), PARTITIONS as usize);
    let lag = &lags[6];
    assert_eq!((&lag.place, lag.committed, lag.end, lag.records), (&place(6), Some(Offset(4)), Offset(10), 6));
    assert!(lag.owner.is_some() && lag.age.is_some_and(|age| age < PATIENCE), "{lag:?}");
    let listed = client.list_groups().await.expect("the groups");
    let listed: Vec<_> = listed.iter().map(|listed| (&*listed.group, listed.members)).collect();
    assert_eq!(listed, [("readers", 1)]);

    consumer.close().await.expect("it leaves");
    let back: BTreeMap<_, _> = (0..PARTITIONS).map(|partition| (place(partition), Offset(8))).collect();
    client.commit_group_offsets("readers", &back).await.expect("nobody is there");
    assert_eq!(client.group_offsets("readers").await.expect("offsets"), back);
    assert!(client.group_lag("readers").await.expect("its lag").iter().all(|lag| lag.records == 2));
    client.delete_group("readers").await.expect("nobody is there");
    assert_eq!(client.list_groups().await.expect("the groups"), []);
    cluster.end().await;
}
