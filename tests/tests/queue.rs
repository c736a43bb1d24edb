//! The queue: push and pull on real brokers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minikafka_client::{Client, Queue, QueueOptions};
use minikafka_tests::in_process::{Cluster, ClusterSetup, LOOK};
use minikafka_tests::process;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing is there.
const MOMENT: Duration = Duration::from_millis(300);

async fn start() -> (Cluster, Client) {
    let parent = process::build_directory().expect("a directory beside the build");
    let cluster = Cluster::start(&parent, ClusterSetup::default()).await;
    let client = cluster.client().await;
    (cluster, client)
}

async fn queue(client: &Client) -> Queue {
    let options = QueueOptions {
        session_timeout: Duration::from_secs(2),
        commit_interval: Duration::from_millis(50),
        ..QueueOptions::default()
    };
    client.queue(options).await.expect("a queue")
}

async fn push(queue: &Queue, key: &str, value: u32) {
    queue.push(Some(key.as_bytes()), value.to_string().as_bytes()).await.expect("it is stored");
}

fn text(bytes: &Option<bytes::Bytes>) -> String {
    String::from_utf8(bytes.as_deref().expect("it is there").to_vec()).expect("text")
}

/// The next record that this handle pulls: key and value.
async fn pull(queue: &mut Queue) -> (String, u32) {
    let record = timeout(PATIENCE, queue.pull()).await.expect("in time").expect("a record");
    (text(&record.key), text(&record.value).parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_key_come_in_order_each_to_one_consumer() {
    let (cluster, client) = start().await;
    let other_client = cluster.client().await;
    let (mut one, mut other) = (queue(&client).await, queue(&other_client).await);
    assert_eq!(client.topic("queue").await.expect("it was created").partitions, 8);
    // The first pull joins; what is out while partitions move would come twice.
    let joined = async {
        loop {
            for queue in [&mut one, &mut other] {
                assert!(queue.pull_within(LOOK).await.expect("no error").is_none());
            }
            let members = client.describe_group("queue").await.map_or(Vec::new(), |group| group.members);
            if members.len() == 2 && members.iter().all(|member| member.owned.len() == 4) {
                return;
            }
        }
    };
    timeout(PATIENCE, joined).await.expect("both have their share");
    for value in 0..30 {
        for key in ["a", "b", "c", "d", "e", "f", "g"] {
            push(&one, key, value).await;
        }
    }
    let mut next: BTreeMap<String, u32> = BTreeMap::new();
    while next.values().sum::<u32>() < 210 {
        for queue in [&mut one, &mut other] {
            if let Some(record) = queue.pull_within(LOOK).await.expect("no error") {
                let (key, value): (_, u32) = (text(&record.key), text(&record.value).parse().expect("a number"));
                let expected = next.entry(key.clone()).or_default();
                assert_eq!(value, *expected, "{key}");
                *expected += 1;
            }
        }
    }
    one.close().await.expect("it leaves");
    other.close().await.expect("it leaves");
    let lags = client.group_lag("queue").await.expect("its lag");
    assert_eq!(lags.iter().map(|lag| lag.records).sum::<u64>(), 0, "all of it was acknowledged");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_out_holds_back_what_is_behind_it_and_comes_again_unless_it_is_acknowledged() {
    let (cluster, client) = start().await;
    let mut queue = queue(&client).await;
    for value in 0..3 {
        push(&queue, "a", value).await;
    }
    let first = timeout(PATIENCE, queue.pull_delivery()).await.expect("in time").expect("a record");
    assert_eq!(text(&first.value), "0");
    assert!(timeout(MOMENT, queue.pull_delivery()).await.is_err(), "those behind it wait");
    first.nack();
    // A pull that nobody waits for any more takes nothing with it.
    for _ in 0..20 {
        let _ = timeout(Duration::from_micros(300), queue.pull_delivery()).await;
    }
    let again = timeout(PATIENCE, queue.pull_delivery()).await.expect("in time").expect("a record");
    assert_eq!(text(&again.value), "0", "before those behind it");
    again.ack();
    assert_eq!(pull(&mut queue).await, ("a".to_owned(), 1));
    // The process ends without a word: what it pulled last was not acknowledged.
    drop(queue);
    let mut queue = self::queue(&client).await;
    assert_eq!(pull(&mut queue).await, ("a".to_owned(), 1));
    assert_eq!(pull(&mut queue).await, ("a".to_owned(), 2));
    queue.close().await.expect("it leaves");
    let mut queue = self::queue(&client).await;
    assert!(queue.pull_within(MOMENT).await.expect("no error").is_none(), "a close acknowledges what was pulled");
    queue.clone().close().await.expect("it leaves");
    assert!(queue.pull().await.is_err(), "it is closed for all");
    assert!(queue.push(None, b"late").await.is_err(), "also for whoever pushes");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_fails_has_its_record_again_and_others_go_on_meanwhile() {
    let (cluster, client) = start().await;
    let queue = queue(&client).await;
    for value in 0..4 {
        for key in ["a", "b"] {
            push(&queue, key, value).await;
        }
    }
    let (sender, mut seen) = mpsc::unbounded_channel();
    let failures = Arc::new(Mutex::new(3));
    let subscription = queue.subscribe(move |record| {
        let key_and_value = (text(&record.key), text(&record.value).parse::<u32>().expect("a number"));
        let is_bad = key_and_value == ("a".to_owned(), 1) && {
            let mut left = failures.lock().expect("no panic");
            *left -= i32::from(*left > 0);
            *left > 0
        };
        let sender = sender.clone();
        async move {
            // The test may have ended.
            let _ = sender.send(key_and_value);
            if is_bad { Err("not now") } else { Ok(()) }
        }
    });
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    while of_a.len() + of_b.len() < 10 {
        let (key, value) = timeout(PATIENCE, seen.recv()).await.expect("in time").expect("it runs");
        if key == "a" { &mut of_a } else { &mut of_b }.push(value);
    }
    assert_eq!(of_a, [0, 1, 1, 1, 2, 3]);
    assert_eq!(of_b, [0, 1, 2, 3]);
    timeout(PATIENCE, subscription.stop()).await.expect("in time").expect("it ends");
    queue.close().await.expect("it leaves");
    let lags = client.group_lag("queue").await.expect("its lag");
    assert_eq!(lags.iter().map(|lag| lag.records).sum::<u64>(), 0);
    cluster.end().await;
}
