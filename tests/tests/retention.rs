//! What goes from a real node, and how much may come: retention, deleted records and topics, altered settings, quotas.
//!
//! Times are short and sizes small; what is asserted are bounds that hold on a slow machine, and order.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use minikafka_client::core::limits::SEGMENT_STOCK_FILES;
use minikafka_client::core::topic::{TopicConfig, TopicConfigChange};
use minikafka_client::core::{ErrorCode, Offset, Partition};
use minikafka_client::{
    Client, ConsumerOptions, OffsetQuery, OutOfRangePolicy, Producer, ProducerOptions, ProducerRecord, StartAt,
    TopicOptions,
};
use minikafka_tests::process::{self, Node, NodeSetup};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(90);
const MIB: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = 8 * MIB;
const RECORD_BYTES: usize = 16 << 10;

/// A node of one shard with small segments that looks at retention all the time.
struct Place {
    _directory: TempDir,
    setup: NodeSetup,
    node: Option<Node>,
}

impl Place {
    fn start(more: &[&str]) -> Self {
        let directory = process::directory().expect("a directory beside the build");
        let mut setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
        setup.cores = 1;
        setup.more = ["--retention-check", "100ms", "--segment-bytes-max", "8M"].map(String::from).to_vec();
        setup.more.extend(more.iter().map(ToString::to_string));
        let node = Some(setup.start().expect("a node starts"));
        Self { _directory: directory, setup, node }
    }

    fn kill_and_restart(&mut self) {
        self.node.take().expect("a node runs").kill().expect("a process can be killed");
        self.node = Some(self.setup.start().expect("a node starts again"));
    }

    async fn client(&self) -> Client {
        Client::builder([self.setup.gateway()]).client_name("retention").connect().await.expect("a gateway answers")
    }

    fn run(&self, line: &str) -> Output {
        let mut arguments: Vec<_> = line.split_whitespace().collect();
        let gateway = self.setup.gateway();
        arguments.extend(["--json", "--gateway", &gateway]);
        process::run(&arguments, b"").expect("the binary runs")
    }

    /// Runs a command that must succeed with one JSON document.
    #[track_caller]
    fn json(&self, line: &str) -> Value {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a JSON document")
    }

    /// Bytes that the data directory takes of the disk.
    fn disk_bytes(&self) -> u64 {
        fn taken(path: &Path) -> u64 {
            // Files come and go while this looks.
            let Ok(found) = fs::symlink_metadata(path) else { return 0 };
            let below = fs::read_dir(path).into_iter().flatten().flatten();
            found.blocks() * 512 + below.map(|entry| taken(&entry.path())).sum::<u64>()
        }
        taken(&self.setup.data_dir)
    }
}

#[tokio::main]
async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it must not take this long")
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

async fn create(client: &Client, name: &str, config: TopicConfig) {
    let options = TopicOptions { partitions: 1, config, ..TopicOptions::default() };
    client.create_topic(name, options).await.expect("created");
}

async fn offset(client: &Client, topic: &str, query: OffsetQuery) -> u64 {
    client.list_offsets(topic, query).await.expect("listed")[0].1.0
}

/// The value of record `number`, which nothing compresses.
fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(RECORD_BYTES).collect()
}

/// Stores records `numbers`, several in flight.
async fn produce(producer: &Producer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        drop(producer.send(ProducerRecord::value(&value(number))).await.expect("taken"));
    }
    producer.flush().await.expect("stored");
}

/// Everything from the log start is there, without a gap, up to record `end`; returns the first that is.
async fn check_suffix(client: &Client, topic: &str, end: u64) -> u64 {
    let start = offset(client, topic, OffsetQuery::Earliest).await;
    // A check of retention that had begun may still move the start a little further.
    let options = ConsumerOptions { out_of_range: OutOfRangePolicy::Earliest, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(topic, options).await.expect("a consumer");
    let (mut first, mut next) = (start, start);
    while next < end {
        let record = consumer.next().await.expect("a record");
        if next == start {
            first = record.offset.0;
            assert!(first >= start, "record {first} below the log start {start}");
            next = first;
        }
        assert_eq!(record.offset, Offset(next), "no gap behind {first}");
        assert!(record.value.as_deref() == Some(&value(next)[..]), "record {next} is another one");
        next += 1;
    }
    first
}

#[test]
fn retention_by_bytes_bounds_the_disk_under_load_and_leaves_a_gapless_rest() {
    const KEPT: u64 = 16 * MIB;
    // What is kept, the active segment, one prepared ahead, the newest sealed one, some that wait for the next check, and
    // the files that a shard keeps ready.
    const BOUND: u64 = KEPT + (8 + SEGMENT_STOCK_FILES as u64) * SEGMENT_BYTES;
    let place = Place::start(&[]);
    within(async {
        let client = place.client().await;
        create(&client, "t", TopicConfig { retention_bytes: KEPT as i64, ..TopicConfig::default() }).await;
        let producer = client.producer("t", ProducerOptions::default()).await.expect("a producer");
        let (mut end, mut largest) = (0, 0);
        while end * RECORD_BYTES as u64 <= 4 * BOUND {
            produce(&producer, end..end + 256).await;
            end += 256;
            largest = largest.max(place.disk_bytes());
        }
        assert!(largest <= BOUND, "{} MiB of disk for {} MiB kept", largest / MIB, KEPT / MIB);
        // From here on nothing goes by itself.
        let forever = TopicConfigChange { retention_bytes: Some(-1), ..TopicConfigChange::default() };
        client.alter_topic("t", forever).await.expect("altered");
        let start = check_suffix(&client, "t", end).await;
        let kept = (end - start) * RECORD_BYTES as u64;
        assert!(start > 0 && kept + MIB >= KEPT, "{kept} bytes are kept");
        // A consumer that stood at the beginning is told, or goes on where its option says.
        let at_0 = |out_of_range| ConsumerOptions {
            start: StartAt::Offset(Offset(0)),
            out_of_range,
            ..ConsumerOptions::default()
        };
        let mut strict = client.consumer("t", at_0(OutOfRangePolicy::Error)).await.expect("a consumer");
        assert_eq!(strict.next().await.expect_err("deleted").code(), Some(ErrorCode::OffsetOutOfRange));
        let mut lenient = client.consumer("t", at_0(OutOfRangePolicy::Earliest)).await.expect("a consumer");
        assert!(lenient.next().await.expect("a record").offset >= Offset(start));
    });
}

#[test]
fn retention_by_time_deletes_what_is_old_while_new_records_come() {
    let place = Place::start(&[]);
    within(async {
        let client = place.client().await;
        create(&client, "t", TopicConfig { retention_ms: 1_000, ..TopicConfig::default() }).await;
        create(&client, "kept", TopicConfig::default()).await;
        let kept = client.producer("kept", ProducerOptions::default()).await.expect("a producer");
        produce(&kept, 0..10).await;
        let producer = client.producer("t", ProducerOptions::default()).await.expect("a producer");
        let before = Instant::now();
        produce(&producer, 0..100).await;
        let mut end = 100;
        while offset(&client, "t", OffsetQuery::Earliest).await < 100 {
            produce(&producer, end..end + 1).await;
            end += 1;
        }
        assert!(before.elapsed() >= Duration::from_millis(1_000), "nothing goes before its time");
        until("the rest to grow old", || async { offset(&client, "t", OffsetQuery::Earliest).await == end }).await;
        assert_eq!(check_suffix(&client, "kept", 10).await, 0, "another topic of the same shard keeps everything");
    });
}

#[test]
fn records_are_deleted_by_command_after_showing_what_goes() {
    let place = Place::start(&[]);
    within(async {
        let client = place.client().await;
        create(&client, "t", TopicConfig::default()).await;
        let producer = client.producer("t", ProducerOptions::default()).await.expect("a producer");
        produce(&producer, 0..50).await;
        let shown = place.json("topic delete-records t --before 20");
        assert_eq!((&shown["deleted"], &shown["partition"][0]["records"]), (&false.into(), &20.into()));
        assert_eq!(check_suffix(&client, "t", 50).await, 0, "shown is not done");
        let done = place.json("topic delete-records t --before 20 --yes");
        assert_eq!((&done["deleted"], &done["partition"][0]["log_start"]), (&true.into(), &20.into()));
        assert_eq!(check_suffix(&client, "t", 50).await, 20);
        assert_eq!(place.json("topic delete-records t --before 1h --yes")["partition"][0]["records"], 0);
        let wrong = place.run("topic delete-records t --before latest --partition 7 --yes");
        assert_eq!(wrong.status.code(), Some(4), "{}", String::from_utf8_lossy(&wrong.stderr));
        place.json("topic delete-records t --before latest --yes");
        assert_eq!(offset(&client, "t", OffsetQuery::Earliest).await, 50);
        assert_eq!(client.delete_records("t", Partition(0), Offset(3)).await.expect("done already"), Offset(50));
        produce(&producer, 50..51).await;
        assert_eq!(check_suffix(&client, "t", 51).await, 50);
    });
}

#[test]
fn a_deleted_topic_gives_its_space_back_to_the_file_system() {
    let place = Place::start(&["--recycled-bytes-max", "8M"]);
    within(async {
        let client = place.client().await;
        create(&client, "t", TopicConfig::default()).await;
        let producer = client.producer("t", ProducerOptions::default()).await.expect("a producer");
        produce(&producer, 0..64 * MIB / RECORD_BYTES as u64).await;
        let before = place.disk_bytes();
        assert!(before >= 64 * MIB);
        client.delete_topic("t").await.expect("deleted");
        // What may stay: a recycled file, one prepared ahead, the active one, and the newest sealed one with its holes.
        let most = before - 64 * MIB + 3 * SEGMENT_BYTES;
        until("the space to come back", || async { place.disk_bytes() <= most }).await;
    });
}

#[test]
fn a_live_topic_is_altered_and_nobody_notices_but_its_log() {
    let place = Place::start(&[]);
    within(async {
        let client = place.client().await;
        create(&client, "t", TopicConfig::default()).await;
        let (going, stored) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (go_on, count, other) = (going.clone(), stored.clone(), place.client().await);
        let producing = tokio::spawn(async move {
            let producer = other.producer("t", ProducerOptions::default()).await.expect("a producer");
            while go_on.load(Ordering::Relaxed) {
                let end = count.load(Ordering::Relaxed);
                produce(&producer, end..end + 16).await;
                count.store(end + 16, Ordering::Relaxed);
            }
        });
        until("some records", || async { stored.load(Ordering::Relaxed) > 200 }).await;
        assert_eq!(offset(&client, "t", OffsetQuery::Earliest).await, 0);
        let altered = place.json("topic alter t --retention-bytes 1M --retention 1h");
        assert_eq!((&altered["retention_bytes"], &altered["retention_ms"]), (&MIB.into(), &3_600_000.into()));
        assert_eq!(altered["state"], "ready");
        until("the log to begin later", || async { offset(&client, "t", OffsetQuery::Earliest).await > 0 }).await;
        let altered = place.json("topic alter t --retention-bytes none --default retention --produce-quota 1G");
        let described = place.json("topic describe t");
        for shown in [&altered, &described] {
            assert_eq!((&shown["retention_bytes"], &shown["retention_ms"]), (&(-1).into(), &(-1).into()));
            assert_eq!(shown["produce_bytes_per_second"], 1 << 30);
        }
        going.store(false, Ordering::Relaxed);
        producing.await.expect("the producer never noticed");
        check_suffix(&client, "t", stored.load(Ordering::Relaxed)).await;
        let refused = place.run("topic alter t --partitions 9");
        assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
        let smaller = TopicConfigChange { batch_bytes_max: Some(1_000), ..TopicConfigChange::default() };
        let options = ProducerOptions { batch_bytes_max: 64 << 10, ..ProducerOptions::default() };
        let before = client.producer("t", options).await.expect("a producer that knows the old limit");
        client.alter_topic("t", smaller).await.expect("altered");
        let sent = before.send(ProducerRecord::value(&value(0))).await.expect("taken");
        let refused = sent.await.expect_err("too large now");
        assert_eq!(refused.code(), Some(ErrorCode::BatchTooLarge));
        assert!(refused.to_string().contains("at most 1000"), "{refused}");
    });
}

#[test]
fn a_node_killed_while_it_deletes_and_frees_keeps_what_it_should() {
    let mut place = Place::start(&[]);
    within(async {
        let client = place.client().await;
        create(&client, "t", TopicConfig { retention_bytes: 4 * MIB as i64, ..TopicConfig::default() }).await;
        let (stored, other) = (Arc::new(AtomicU64::new(0)), place.client().await);
        let count = stored.clone();
        let producing = tokio::spawn(async move {
            let producer = other.producer("t", ProducerOptions::default()).await.expect("a producer");
            for end in (0..6_000).step_by(64) {
                produce(&producer, end..end + 64).await;
                count.store(end + 64, Ordering::Relaxed);
            }
        });
        for kill_at in [1_000, 2_500, 4_000, 5_000] {
            until("more records", || async { stored.load(Ordering::Relaxed) > kill_at }).await;
            place.kill_and_restart();
        }
        producing.await.expect("the producer lives through it");
        let forever = TopicConfigChange { retention_bytes: Some(-1), ..TopicConfigChange::default() };
        client.alter_topic("t", forever).await.expect("altered");
        let end = stored.load(Ordering::Relaxed);
        assert_eq!(offset(&client, "t", OffsetQuery::Latest).await, end, "each record once");
        let start = check_suffix(&client, "t", end).await;
        let kept = (end - start) * RECORD_BYTES as u64;
        assert!(start > 0 && kept + MIB >= 4 * MIB, "{kept} bytes are kept");
    });
}

/// Bytes stored by a producer that sends as fast as it may, for a while.
async fn greedy(client: Client, topic: &'static str, time: Duration) -> u64 {
    let options =
        ProducerOptions { batch_bytes_max: 64 << 10, buffer_bytes_max: 512 << 10, ..ProducerOptions::default() };
    let producer = client.producer(topic, options).await.expect("a producer");
    let (until, stored) = (Instant::now() + time, Arc::new(AtomicU64::new(0)));
    let mut number = 0;
    while Instant::now() < until {
        let sent = producer.send(ProducerRecord::value(&value(number))).await.expect("taken");
        let stored = stored.clone();
        tokio::spawn(async move {
            sent.await.expect("delayed perhaps, but stored");
            if Instant::now() < until {
                stored.fetch_add(RECORD_BYTES as u64, Ordering::Relaxed);
            }
        });
        number += 1;
    }
    producer.flush().await.expect("all of it is stored");
    assert_eq!(check_suffix(&client, topic, number).await, 0, "in order, each once");
    stored.load(Ordering::Relaxed)
}

#[test]
fn a_topic_gets_about_its_quota_and_another_what_it_likes() {
    const QUOTA: u64 = MIB;
    const TIME: Duration = Duration::from_secs(4);
    let place = Place::start(&[]);
    within(async {
        let client = place.client().await;
        create(&client, "slow", TopicConfig { produce_bytes_per_second: QUOTA, ..TopicConfig::default() }).await;
        create(&client, "fast", TopicConfig::default()).await;
        let slow = tokio::spawn(greedy(place.client().await, "slow", TIME));
        let fast = tokio::spawn(greedy(place.client().await, "fast", TIME));
        let (slow, fast) = (slow.await.expect("no panic"), fast.await.expect("no panic"));
        // The burst of a second, and one batch on credit.
        let most = QUOTA * (TIME.as_secs() + 1) + (64 << 10) + RECORD_BYTES as u64;
        assert!(slow <= most, "{slow} bytes in {TIME:?} with a quota of {QUOTA}");
        assert!(slow >= most / 2, "{slow} bytes in {TIME:?} with a quota of {QUOTA}");
        assert!(fast > 2 * slow, "{fast} bytes without a quota, {slow} with one");
    });
}

#[test]
fn a_connection_over_its_quota_waits_and_another_does_not() {
    const QUOTA: u64 = MIB;
    const TIME: Duration = Duration::from_secs(4);
    let place = Place::start(&["--produce-quota-per-connection", "1M"]);
    within(async {
        let client = place.client().await;
        create(&client, "greedy", TopicConfig::default()).await;
        create(&client, "modest", TopicConfig::default()).await;
        let greedy = tokio::spawn(greedy(place.client().await, "greedy", TIME));
        let modest = client.producer("modest", ProducerOptions::default()).await.expect("a producer");
        let (until, mut waits) = (Instant::now() + TIME, Vec::new());
        while Instant::now() < until {
            let sent = Instant::now();
            modest.send(ProducerRecord::value(b"small")).await.expect("taken").await.expect("stored");
            waits.push(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        waits.sort();
        let greedy = greedy.await.expect("no panic");
        let most = QUOTA * (TIME.as_secs() + 1) + (64 << 10) + RECORD_BYTES as u64;
        assert!(greedy <= most, "{greedy} bytes in {TIME:?} with a quota of {QUOTA}");
        assert!(greedy >= most / 2, "{greedy} bytes in {TIME:?} with a quota of {QUOTA}");
        let typical = waits[waits.len() / 2];
        assert!(typical < Duration::from_millis(200), "the other connection typically waited {typical:?}");
    });
}
