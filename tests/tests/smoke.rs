//! The main paths of the product as a person takes them: one process, the command line, the Rust client.
//!
//! Every test has a node of its own. What crashes do under load is `crash.rs`; what bad clients do is `bad_input`.

use std::process::Output;
use std::time::{Duration, Instant};

use minikafka_client::core::{ErrorCode, Offset, Partition, Timestamp};
use minikafka_client::{
    Client, Codec, Consumer, ConsumerOptions, ConsumerRecord, Delivery, ProducerOptions, ProducerRecord, StartAt,
    TopicOptions,
};
use minikafka_tests::process::{self, Node, NodeSetup};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node and its directory.
struct Place {
    directory: TempDir,
    setup: NodeSetup,
    node: Option<Node>,
}

impl Place {
    fn start() -> Self {
        let directory = process::directory().expect("a directory beside the build");
        let setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
        let node = Some(setup.start().expect("a node starts"));
        Self { directory, setup, node }
    }

    fn stop(&mut self) {
        self.node.take().expect("a node runs").stop().expect("an orderly end");
    }

    fn kill(&mut self) {
        self.node.take().expect("a node runs").kill().expect("a process can be killed");
    }

    fn restart(&mut self) {
        self.node = Some(self.setup.start().expect("a node starts again"));
    }

    /// Runs the command line against this node.
    fn run(&self, line: &str, input: &[u8]) -> Output {
        let mut arguments: Vec<_> = line.split_whitespace().collect();
        let gateway = self.setup.gateway();
        arguments.extend(["--gateway", &gateway]);
        process::run(&arguments, input).expect("the binary runs")
    }

    /// The same, and it must succeed. Returns standard output.
    #[track_caller]
    fn ok(&self, line: &str, input: &[u8]) -> Vec<u8> {
        let output = self.run(line, input);
        assert!(output.status.success(), "{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The same, one JSON document a line.
    #[track_caller]
    fn json(&self, line: &str, input: &[u8]) -> Vec<Value> {
        let printed = self.ok(&format!("{line} --json"), input);
        let parse = |line: &[u8]| serde_json::from_slice(line).expect("a JSON document a line");
        printed.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(parse).collect()
    }

    /// The same, and it must fail with this exit code. Returns the error as JSON.
    #[track_caller]
    fn fails(&self, line: &str, exit: i32) -> Value {
        let output = self.run(&format!("{line} --json"), b"line\n");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{line}: {errors}");
        serde_json::from_str(errors.lines().last().unwrap_or_default()).expect("an error as JSON")
    }

    async fn client(&self) -> Client {
        Client::builder([self.setup.gateway()]).client_name("smoke").connect().await.expect("a gateway answers")
    }
}

#[tokio::main]
async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it must not take this long")
}

/// Lines of every shape: empty, long, with carriage returns, not UTF-8, and no line end at the end.
fn text() -> Vec<u8> {
    let mut text = b"first\n\nwith\rreturns\r\n\xff\xfe\x00\x80 not text\n\ttab \xc3\xa9\n".to_vec();
    text.extend((0..20_000).flat_map(|number| format!("line {number} {}\n", "x".repeat(number % 97)).into_bytes()));
    text.extend(vec![b'y'; 300_000]);
    text
}

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let place = Place::start();
    assert!(place.json("topic list", b"")[0]["topics"].as_array().expect("a list").is_empty());
    let created = place.json("topic create orders --partitions 3 --retention 1h --batch-bytes-max 64K", b"");
    assert_eq!((&created[0]["name"], &created[0]["partitions"]), (&"orders".into(), &3.into()));
    assert_eq!((&created[0]["retention_ms"], &created[0]["batch_bytes_max"]), (&3_600_000.into(), &65_536.into()));

    assert_eq!(place.fails("topic create orders", 1)["error"]["code"], "topic_exists");
    place.ok("topic create orders --if-not-exists", b"");
    assert_eq!(place.fails("topic create no/name", 2)["error"]["code"], "invalid_topic_name");

    place.ok("topic create another", b"");
    let listed = place.json("topic list", b"")[0]["topics"].clone();
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|topic| topic["name"].clone()).collect();
    assert_eq!(names, ["another", "orders"]);

    let described = &place.json("topic describe orders", b"")[0];
    let partitions = described["partition"].as_array().expect("partitions");
    assert_eq!(partitions.len(), 3);
    let shards = place.node.as_ref().expect("a node runs").shards();
    for (number, partition) in partitions.iter().enumerate() {
        assert_eq!((&partition["partition"], &partition["end"]), (&number.into(), &0.into()));
        assert!(shards.iter().any(|shard| partition["owner"] == shard.as_str()), "{partition} on {shards:?}");
    }

    place.ok("topic delete orders", b"");
    assert_eq!(place.fails("topic describe orders", 4)["error"]["code"], "unknown_topic");
    assert_eq!(place.fails("topic delete orders", 4)["error"]["code"], "unknown_topic");
    place.ok("topic delete orders --if-exists", b"");
    let people = String::from_utf8(place.ok("topic list", b"")).expect("text for people");
    assert!(people.contains("another") && !people.contains("orders"), "{people}");
}

#[test]
fn files_come_back_byte_for_byte() {
    let place = Place::start();
    let text = text();
    for (codec, topic) in [("none", "plain"), ("lz4", "fast"), ("zstd", "small")] {
        place.ok(&format!("topic create {topic} --partitions 1"), b"");
        let path = place.directory.path().join("input");
        std::fs::write(&path, &text).expect("a file can be written");
        let line = format!("produce {topic} {} --compression {codec} --batch-bytes 20K", path.display());
        let summary = &place.json(&line, b"")[0];
        assert_eq!(summary["records"], text.split(|&byte| byte == b'\n').count(), "{codec}");
        let mut back = place.ok(&format!("consume {topic} --until-end"), b"");
        assert_eq!(back.pop(), Some(b'\n'), "{codec}: a line end after every record");
        assert!(back == text, "{codec}: {} bytes came back of {}", back.len(), text.len());
    }
}

#[test]
fn a_consumer_begins_and_ends_where_it_is_told() {
    let place = Place::start();
    place.ok("topic create t --partitions 2", b"");
    let lines: Vec<u8> = (0..100).flat_map(|number| format!("k{}:v{number}\n", number % 10).into_bytes()).collect();
    place.ok("produce t --key-separator :", &lines);
    let all = place.json("consume t --until-end", b"");
    assert_eq!(all.len(), 100);
    assert!(all.iter().all(|record| record["topic"] == "t" && record["timestamp_ms"].is_i64()));
    let of = |partition: u32| all.iter().filter(move |record| record["partition"] == partition).cloned();
    let counts = [of(0).count(), of(1).count()];
    assert!(counts.iter().all(|&count| count >= 10), "ten keys lie on both partitions: {counts:?}");
    for (partition, count) in counts.into_iter().enumerate() {
        let one = place.json(&format!("consume t --until-end --partition {partition}"), b"");
        assert_eq!(one, of(partition as u32).collect::<Vec<_>>(), "the same records in the same order");
        assert_eq!(
            one.iter().filter_map(|record| record["offset"].as_u64()).sum::<u64>() as usize,
            count * (count - 1) / 2
        );
        let later = place.json(&format!("consume t --until-end --partition {partition} --offset 7"), b"");
        assert_eq!(later, one[7..]);
    }
    assert_eq!(
        place.ok("consume t --until-end --since 1h --format %v", b"").len(),
        place.ok("consume t --until-end --format %v", b"").len()
    );
    let stored = Instant::now();
    while stored.elapsed() < Duration::from_millis(50) {
        std::thread::yield_now();
    }
    assert!(place.ok("consume t --until-end --since 1ms", b"").is_empty(), "everything is older than that");
    assert_eq!(place.json("consume t --from-beginning --max-records 3", b"").len(), 3);
    assert_eq!(place.fails("consume t --until-end --partition 2", 4)["exit"], 4);
    assert_eq!(place.fails("consume t --partition 0 --offset 1000", 4)["error"]["code"], "offset_out_of_range");
}

#[test]
fn unknown_topics_are_not_found_and_dev_creates_what_is_produced_to() {
    let place = Place::start();
    for line in ["consume nowhere --until-end", "topic describe nowhere", "topic delete nowhere"] {
        assert_eq!(place.fails(line, 4)["error"]["code"], "unknown_topic", "{line}");
    }
    place.ok("produce somewhere", b"a\nb\n");
    let mut back = place.json("consume somewhere --until-end", b"");
    back.sort_by_key(|record| record["value"].to_string());
    assert_eq!(back.iter().map(|record| &record["value"]).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn restarts_keep_topics_and_records() {
    let mut place = Place::start();
    place.ok("topic create kept --partitions 4", b"");
    let text = text();
    place.ok("produce kept --key k", &text);
    let described = place.json("topic describe kept", b"")[0].clone();
    for round in ["SIGTERM", "SIGKILL", "SIGKILL again"] {
        if round == "SIGTERM" {
            place.stop()
        } else {
            place.kill()
        };
        place.restart();
        let after = place.json("topic describe kept", b"")[0].clone();
        assert_eq!(after["id"], described["id"], "{round}");
        let ends = |topic: &Value| -> Vec<Value> {
            topic["partition"].as_array().expect("partitions").iter().map(|it| it["end"].clone()).collect()
        };
        assert_eq!(ends(&after), ends(&described), "{round}");
        let mut back = place.ok("consume kept --until-end", b"");
        back.pop();
        assert!(back == text, "{round}: {} bytes came back of {}", back.len(), text.len());
    }
    place.ok("produce kept --key k", b"one more\n");
    assert!(place.ok("consume kept --until-end", b"").ends_with(b"\none more\n"));
}

#[test]
fn a_deleted_topic_is_gone_and_created_again_is_empty() {
    let mut place = Place::start();
    place.ok("topic create again --partitions 2", b"");
    let id = |place: &Place| place.json("topic describe again", b"")[0]["id"].clone();
    let first = id(&place);
    place.ok("produce again", b"old\n");
    place.ok("topic delete again", b"");
    place.ok("topic create again --partitions 2", b"");
    assert_ne!(id(&place), first, "another topic under the old name");
    assert!(place.ok("consume again --until-end", b"").is_empty());
    place.ok("produce again", b"new\n");
    place.kill();
    place.restart();
    assert_eq!(place.ok("consume again --until-end", b""), b"new\n");
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let place = Place::start();
    let other = NodeSetup::new(place.directory.path(), "dev").expect("other free ports");
    assert_eq!(other.data_dir, place.setup.data_dir);
    let error = other.start().expect_err("the directory is in use").to_string();
    let directory = place.setup.data_dir.display().to_string();
    assert!(error.contains("exit status: 1") && error.contains(&directory) && error.contains("process"), "{error}");
    place.ok("produce t", b"undisturbed\n");
    assert_eq!(place.ok("consume t --until-end", b""), b"undisturbed\n");
}

#[test]
fn ports_in_use_are_named() {
    let place = Place::start();
    let directory = process::directory().expect("a directory beside the build");
    let free = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
    let (gateway_port, port_base) = (place.setup.gateway_port, place.setup.port_base);
    for (setup, ports) in [
        (NodeSetup { gateway_port, ..free.clone() }, gateway_port..=gateway_port),
        (NodeSetup { port_base, ..free.clone() }, port_base..=port_base + free.cores - 1),
    ] {
        let error = setup.start().expect_err("the port is in use").to_string();
        let named = ports.into_iter().any(|port| error.contains(&format!("127.0.0.1:{port}: Address already in use")));
        assert!(named && error.contains("exit status: 1"), "{error}");
    }
    free.start().expect("nothing is left of the failed starts").stop().expect("an orderly end");
}

async fn consumer(client: &Client, topic: &str, start: StartAt) -> Consumer {
    let options = ConsumerOptions { start, ..ConsumerOptions::default() };
    client.consumer(topic, options).await.expect("a consumer")
}

#[test]
fn a_consumer_waits_for_a_record_that_comes_later() {
    let place = Place::start();
    within(async {
        let client = place.client().await;
        client.create_topic("t", TopicOptions { partitions: 2, ..TopicOptions::default() }).await.expect("created");
        let mut early = consumer(&client, "t", StartAt::Earliest).await;
        let mut latest = consumer(&client, "t", StartAt::Latest).await;
        assert!(timeout(Duration::from_millis(700), early.next()).await.is_err(), "there is nothing yet");
        assert!(timeout(Duration::from_millis(1), latest.next()).await.is_err(), "there is nothing yet");
        let producer = client.producer("t", ProducerOptions::default()).await.expect("a producer");
        for round in 0..3u8 {
            let delivery = producer.send(ProducerRecord::value(&[round])).await.expect("taken");
            let delivered = delivery.await.expect("delivered");
            for waiting in [&mut early, &mut latest] {
                let record = waiting.next().await.expect("a record");
                assert_eq!(record.value.as_deref(), Some(&[round][..]));
                assert_eq!((record.partition, Some(record.offset)), (delivered.partition, delivered.offset));
            }
        }
    });
}

#[test]
fn time_leads_to_the_first_batch_appended_then() {
    let place = Place::start();
    within(async {
        let client = place.client().await;
        client.create_topic("t", TopicOptions { partitions: 1, ..TopicOptions::default() }).await.expect("created");
        let producer = client.producer("t", ProducerOptions::default()).await.expect("a producer");
        let mut stored: Vec<Delivery> = Vec::new();
        while stored.len() < 5 {
            let delivery = producer.send(ProducerRecord::value(b"v")).await.expect("taken").await.expect("delivered");
            let is_later = stored.last().is_none_or(|last| last.append_timestamp < delivery.append_timestamp);
            assert!(is_later, "a millisecond lies between them");
            stored.push(delivery);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        for (offset, delivery) in stored.iter().enumerate() {
            let at = delivery.append_timestamp.expect("the broker remembers what it has just stored");
            for (time, expected) in [(at, offset), (Timestamp(at.0 - 1), offset)] {
                let mut consumer = consumer(&client, "t", StartAt::Time(time)).await;
                assert_eq!(consumer.next().await.expect("a record").offset, Offset(expected as u64), "{time}");
            }
        }
    });
}

/// Key, value, and headers of a record.
type Shape = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(&'static str, Vec<u8>)>);

/// Records of every shape.
fn shapes() -> Vec<Shape> {
    let mebibyte: Vec<u8> = (0..1u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    vec![
        (None, Some(b"plain".to_vec()), vec![]),
        (None, Some(Vec::new()), vec![]),
        (None, None, vec![]),
        (Some(Vec::new()), Some(Vec::new()), vec![]),
        (Some(b"tombstone".to_vec()), None, vec![]),
        (Some(b"\xff\x00\xfe".to_vec()), Some(b"\x80".to_vec()), vec![]),
        (Some(b"k".to_vec()), Some(mebibyte.clone()), vec![]),
        (Some(mebibyte), None, vec![]),
        (
            None,
            Some(b"h".to_vec()),
            vec![("a", b"1".to_vec()), ("a", Vec::new()), ("é", b"\xff".to_vec()), ("", vec![0; 9])],
        ),
    ]
}

#[test]
fn records_of_every_shape_come_back_as_they_were() {
    let mut place = Place::start();
    let shapes = shapes();
    within(async {
        let client = place.client().await;
        client
            .create_topic("shapes", TopicOptions { partitions: 3, ..TopicOptions::default() })
            .await
            .expect("created");
        for (partition, codec) in [Codec::None, Codec::Lz4, Codec::Zstd].into_iter().enumerate() {
            let options = ProducerOptions { codec, ..ProducerOptions::default() };
            let producer = client.producer("shapes", options).await.expect("a producer");
            for (number, (key, value, headers)) in shapes.iter().enumerate() {
                let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, &value[..])).collect();
                let record = ProducerRecord {
                    partition: Some(Partition(partition as u32)),
                    key: key.as_deref(),
                    value: value.as_deref(),
                    timestamp: Some(Timestamp(number as i64 - 3)),
                    headers: &headers,
                };
                drop(producer.send(record).await.expect("taken"));
            }
            producer.close().await.expect("all delivered");
        }
    });
    read_shapes(&place, &shapes);
    place.kill();
    place.restart();
    read_shapes(&place, &shapes);
    // And as the command line shows them.
    let printed = place.json("consume shapes --until-end --partition 2", b"");
    assert_eq!((&printed[2]["key"], &printed[2]["value"]), (&Value::Null, &Value::Null));
    assert_eq!((&printed[3]["key"], &printed[3]["value"]), (&"".into(), &"".into()));
    assert_eq!((&printed[5]["key_base64"], &printed[5]["value_base64"]), (&"/wD+".into(), &"gA==".into()));
    assert_eq!(printed[8]["headers"].as_array().map(Vec::len), Some(4));
}

#[tokio::main]
async fn read_shapes(place: &Place, shapes: &[Shape]) {
    let client = place.client().await;
    for partition in 0..3 {
        let partitions = Some(vec![Partition(partition)]);
        let options = ConsumerOptions { partitions, ..ConsumerOptions::default() };
        let mut consumer = client.consumer("shapes", options).await.expect("a consumer");
        for (number, (key, value, headers)) in shapes.iter().enumerate() {
            let record: ConsumerRecord =
                timeout(PATIENCE, consumer.next()).await.expect("not this long").expect("a record");
            assert_eq!(record.offset, Offset(number as u64));
            assert_eq!(record.timestamp, Timestamp(number as i64 - 3));
            assert!(record.key.as_deref() == key.as_deref(), "key of shape {number} on partition {partition}");
            assert!(record.value.as_deref() == value.as_deref(), "value of shape {number} on partition {partition}");
            let same = |(one, other): (&(String, _), &(&str, Vec<u8>))| one.0 == other.0 && one.1 == other.1[..];
            assert!(record.headers.len() == headers.len() && record.headers.iter().zip(headers).all(same), "{number}");
        }
    }
}

#[test]
fn a_record_over_the_limit_is_refused_before_it_is_sent() {
    let place = Place::start();
    within(async {
        let client = place.client().await;
        let producer = client.producer("t", ProducerOptions::default()).await.expect("a producer");
        let refused = producer.send(ProducerRecord::value(&vec![0; (2 << 20) + 1])).await;
        let error = refused.expect_err("two mebibytes are the limit");
        assert!(error.to_string().contains("2097152"), "{error}");
        let taken = producer.send(ProducerRecord::value(&vec![0; 2 << 20])).await.expect("just within the limit");
        taken.await.expect("delivered");
        let missing = client.producer("not/a/name", ProducerOptions::default()).await.expect_err("no such name");
        assert_eq!(missing.code(), Some(ErrorCode::InvalidTopicName));
    });
}
