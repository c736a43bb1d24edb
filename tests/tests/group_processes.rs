//! Groups of real consumer processes on a cluster of real brokers: processes are killed, and nothing is lost.
//!
//! Members are `minikafka consume --group`, each a process of its own, so that SIGKILL means what it means. One cluster serves
//! all of it, one scenario after the other; where namespaces are not allowed it runs on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use minikafka_client::core::group::GroupName;
use minikafka_client::core::{MemberId, Offset, Partition};
use minikafka_client::{
    Client, GroupDescription, GroupPhase, ProducerOptions, ProducerRecord, TopicOptions, TopicPartition,
};
use minikafka_tests::cluster::{Cluster, ClusterSetup, Member};
use minikafka_tests::process;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at something that takes a while.
const LOOK: Duration = Duration::from_millis(50);
const PARTITIONS: u32 = 8;

#[test]
fn groups_of_processes_lose_nothing_whoever_is_killed() {
    let directory = process::directory().expect("a directory beside the build");
    let setup = ClusterSetup::new(&directory.path().join("cluster")).expect("the binary");
    let mut cluster = Cluster::up(&setup).expect("a cluster starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(async {
        let client = Client::builder(cluster.gateways()).connect().await.expect("a gateway answers");
        println!("  a member is killed: others go on with what it had");
        a_killed_member_is_replaced(&cluster, &client).await;
        println!("  a static member is killed and comes back: nothing moves");
        a_static_member_comes_back(&cluster, &client).await;
        println!("  the coordinator is killed: nothing moves");
        a_killed_coordinator_moves_nothing(&mut cluster, &client).await;
    });
    cluster.destroy().expect("it ends");
}

async fn a_killed_member_is_replaced(cluster: &Cluster, client: &Client) {
    let topic = "orders";
    create(client, topic).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let join = |number| Reader::start(cluster, topic, "killed", number, &["--session-timeout", "3s"], &sender);
    let (one, two, three) = (join(1), join(2), join(3));
    let described = settled(client, "killed", 3).await;
    let mut loads: Vec<usize> = described.members.iter().map(|member| member.owned.len()).collect();
    loads.sort_unstable();
    assert_eq!(loads, [2, 3, 3], "{described:?}");

    produce(client, topic, 0..50).await;
    let mut all = Seen::default();
    all.read_until(&mut seen, 50).await;
    committed(client, "killed", 50).await;
    // From here on records come all the time, and in the middle of that it dies.
    let stop = Arc::new(AtomicBool::new(false));
    let producing = tokio::spawn(produce_until(client.clone(), topic, 50, stop.clone()));
    all.read_until(&mut seen, 60).await;
    two.kill();
    let commits = client.group_offsets("killed").await.expect("offsets");
    let after = settled(client, "killed", 2).await;
    assert!(after.members.iter().all(|member| member.owned.len() == 4), "{after:?}");
    stop.store(true, Ordering::Relaxed);
    let end = producing.await.expect("every record is stored");
    all.read_until(&mut seen, end).await;
    committed(client, "killed", end).await;
    // What the dead one committed nobody reads again; what it did not, somebody does.
    all.assert_in_order_from(2, &commits);
    all.assert_no_repetition_among(&[1, 3]);
    one.stop();
    three.stop();
}

async fn a_static_member_comes_back(cluster: &Cluster, client: &Client) {
    let topic = "payments";
    create(client, topic).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    // Nobody waits for this: it comes back at once, or the test fails.
    let join = |number, instance| {
        let more = ["--session-timeout", "10m", "--instance", instance];
        Reader::start(cluster, topic, "static", number, &more, &sender)
    };
    let (first, second) = (join(1, "first"), join(2, "second"));
    let before = settled(client, "static", 2).await;
    produce(client, topic, 0..20).await;
    let mut all = Seen::default();
    all.read_until(&mut seen, 20).await;
    committed(client, "static", 20).await;
    first.kill();
    produce(client, topic, 20..40).await;
    let first = join(3, "first");
    all.read_until(&mut seen, 40).await;
    let after = settled(client, "static", 2).await;
    assert_eq!(by_instance(&before), by_instance(&after), "nothing moves");
    let second_before = before.members.iter().find(|member| member.instance == "second").map(|member| member.member);
    let second_after = after.members.iter().find(|member| member.instance == "second").map(|member| member.member);
    assert_eq!(second_before, second_after, "the other one did not notice");
    all.assert_no_repetition_among(&[2]);
    // It left nothing undone, so the new process has only what came later.
    assert!(all.0.values().flatten().all(|(reader, offset)| *reader != 3 || *offset >= 20), "{:?}", all.0);
    first.stop();
    second.stop();
}

async fn a_killed_coordinator_moves_nothing(cluster: &mut Cluster, client: &Client) {
    let topic = "invoices";
    create(client, topic).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let join = |number| Reader::start(cluster, topic, "steady", number, &["--session-timeout", "10s"], &sender);
    let (one, two) = (join(1), join(2));
    let before = settled(client, "steady", 2).await;
    produce(client, topic, 0..20).await;
    let mut all = Seen::default();
    all.read_until(&mut seen, 20).await;
    committed(client, "steady", 20).await;

    let head = coordinator(client, "steady").await;
    cluster.kill(Member::Broker(head)).expect("it runs");
    produce(client, topic, 20..60).await;
    all.read_until(&mut seen, 60).await;
    committed(client, "steady", 60).await;
    let after = settled(client, "steady", 2).await;
    assert_ne!(coordinator(client, "steady").await, head, "somebody else coordinates");
    assert_eq!((before.generation, by_member(&before)), (after.generation, by_member(&after)), "nothing moves");
    all.assert_no_repetition_among(&[1, 2]);
    one.stop();
    two.stop();
    cluster.start(Member::Broker(head)).expect("it starts again");
}

/// A member: `minikafka consume --group`. Dropping it kills it.
struct Reader(Child);

/// A record as a process printed it: number of the process, partition, offset.
type Printed = (u32, u32, u64);

impl Reader {
    fn start(
        cluster: &Cluster,
        topic: &str,
        group: &str,
        number: u32,
        more: &[&str],
        seen: &mpsc::UnboundedSender<Printed>,
    ) -> Self {
        let mut command = Command::new(cluster.binary());
        command.args(["consume", topic, "--group", group, "--from-beginning", "--json"]).args(more);
        command.args(["--gateway", &cluster.gateways().join(",")]).env_remove("MINIKAFKA_GATEWAY");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary runs");
        let (lines, seen) = (BufReader::new(child.stdout.take().expect("it is piped")), seen.clone());
        std::thread::spawn(move || {
            // A line that is cut off by a kill was not printed.
            for line in lines.lines().map_while(Result::ok) {
                let Ok(record) = serde_json::from_str::<Value>(&line) else { return };
                let number_of = |field: &str| record[field].as_u64().expect("a number");
                // The test may have ended.
                let _ = seen.send((number, number_of("partition") as u32, number_of("offset")));
            }
        });
        Self(child)
    }

    /// SIGKILL, and it is gone.
    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }

    /// SIGTERM, and an orderly end.
    fn stop(mut self) {
        // SAFETY: `kill` takes no memory, and the process is this one's child that was not waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) }, 0);
        let status = self.0.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Ended already, or ended now: either is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was printed, by partition, in the order in which it came: which process, which offset.
#[derive(Default)]
struct Seen(BTreeMap<u32, Vec<(u32, u64)>>);

impl Seen {
    /// Takes what is printed until every offset below `end` of every partition was.
    async fn read_until(&mut self, seen: &mut mpsc::UnboundedReceiver<Printed>, end: u64) {
        let reading = async {
            while !(0..PARTITIONS).all(|partition| self.has_all(partition, end)) {
                let (reader, partition, offset) = seen.recv().await.expect("readers run");
                self.0.entry(partition).or_default().push((reader, offset));
            }
        };
        let in_time = timeout(PATIENCE, reading).await.is_ok();
        let missing: Vec<u32> = (0..PARTITIONS).filter(|partition| !self.has_all(*partition, end)).collect();
        assert!(in_time, "up to {end}, something of these partitions did not come: {missing:?}");
    }

    fn has_all(&self, partition: u32, end: u64) -> bool {
        let offsets: BTreeSet<u64> = self.0.get(&partition).into_iter().flatten().map(|(_, offset)| *offset).collect();
        offsets.range(..end).count() as u64 == end
    }

    /// Whatever others read of what the dead one had committed, they read before it had the partition.
    fn assert_in_order_from(&self, dead: u32, commits: &BTreeMap<TopicPartition, Offset>) {
        for (place, commit) in commits {
            let printed = &self.0[&place.partition.0];
            let Some(last) = printed.iter().rposition(|(reader, _)| *reader == dead) else { continue };
            let again = printed[last..].iter().find(|(reader, offset)| *reader != dead && *offset < commit.0);
            assert_eq!(again, None, "{place}: {commit} was committed when {dead} died; {printed:?}");
        }
    }

    /// None of these gets what another one of them had.
    fn assert_no_repetition_among(&self, readers: &[u32]) {
        for (partition, printed) in &self.0 {
            let mut offsets = BTreeSet::new();
            for (_, offset) in printed.iter().filter(|(reader, _)| readers.contains(reader)) {
                assert!(offsets.insert(*offset), "partition {partition}: {offset} comes twice: {printed:?}");
            }
        }
    }
}

async fn create(client: &Client, topic: &str) {
    let options = TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() };
    client.create_topic(topic, options).await.expect("it is created");
}

/// Writes so many records to each partition.
async fn produce(client: &Client, topic: &str, numbers: std::ops::Range<u64>) {
    let producer = client.producer(topic, ProducerOptions::default()).await.expect("a producer");
    for number in numbers {
        for partition in 0..PARTITIONS {
            let value = number.to_string();
            let record = ProducerRecord::value(value.as_bytes()).to(Partition(partition));
            drop(producer.send(record).await.expect("it is taken"));
        }
    }
    producer.close().await.expect("all are stored");
}

/// Goes on writing a record to each partition at a time; returns where they end.
async fn produce_until(client: Client, topic: &'static str, first: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        produce(&client, topic, number..number + 1).await;
        number += 1;
    }
    number
}

/// Waits until a group has so many members, and everybody has what it should have.
async fn settled(client: &Client, group: &str, members: usize) -> GroupDescription {
    let mut last = None;
    let settling = async {
        loop {
            match client.describe_group(group).await {
                Ok(described) if described.phase == GroupPhase::Stable && described.members.len() == members => {
                    return described;
                }
                other => last = Some(other),
            }
            sleep(LOOK).await;
        }
    };
    let settled = timeout(PATIENCE, settling).await;
    settled.unwrap_or_else(|_| panic!("{group} does not settle with {members} members: {last:?}"))
}

/// Waits until a group goes on at `end` in every partition.
async fn committed(client: &Client, group: &str, end: u64) {
    let mut last = BTreeMap::new();
    let committing = async {
        loop {
            last = client.group_offsets(group).await.expect("offsets");
            if last.len() == PARTITIONS as usize && last.values().all(|offset| offset.0 == end) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    let in_time = timeout(PATIENCE, committing).await.is_ok();
    assert!(in_time, "{group} goes on at {end} nowhere else than: {last:?}");
}

/// The number of the broker that coordinates a group.
async fn coordinator(client: &Client, group: &str) -> u8 {
    let map = client.refresh_map().await.expect("a map");
    let range = map.range_of_group(&GroupName::new(group).expect("a name")).expect("its range");
    let head = map.members_of(range).find(|member| member.is_head).expect("a head");
    u8::try_from(head.node.0).expect("nodes are few")
}

fn by_member(described: &GroupDescription) -> BTreeMap<MemberId, Vec<TopicPartition>> {
    described.members.iter().map(|member| (member.member, member.owned.clone())).collect()
}

fn by_instance(described: &GroupDescription) -> BTreeMap<String, Vec<TopicPartition>> {
    described.members.iter().map(|member| (member.instance.clone(), member.owned.clone())).collect()
}
