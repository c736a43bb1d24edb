//! The consumer of a group when requests are lost, refused and overtaken, against `core`'s own coordinator.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minikafka_client::core::wire::{Api, TopicDescription};
use minikafka_client::core::{ErrorCode, Offset, Partition};
use minikafka_client::{
    Acknowledge, Client, ClientOptions, Error, GroupConsumer, GroupConsumerOptions, ProducerOptions, ProducerRecord,
};

use crate::cluster::{Cluster, Fault, key, within};

const PARTITIONS: u32 = 4;

/// A topic with `count` records in each partition.
async fn filled(name: &str, count: u64) -> (Cluster, TopicDescription, Client) {
    let cluster = Cluster::start(2).await;
    let topic = cluster.create_topic(name, PARTITIONS);
    let client = cluster.client().await;
    produce(&client, name, 0..count).await;
    (cluster, topic, client)
}

async fn produce(client: &Client, topic: &str, numbers: std::ops::Range<u64>) {
    let producer = client.producer(topic, ProducerOptions::default()).await.expect("a producer");
    for partition in 0..PARTITIONS {
        let values: Vec<_> = numbers.clone().map(u64::to_le_bytes).collect();
        let records = values.iter().map(|value| ProducerRecord::value(value));
        let sent = producer.send_batch(Some(Partition(partition)), records).await.expect("accepted");
        sent.await.expect("stored");
    }
}

fn options() -> GroupConsumerOptions {
    GroupConsumerOptions {
        session_timeout: Duration::from_secs(2),
        commit_interval: Duration::from_millis(20),
        ..GroupConsumerOptions::default()
    }
}

async fn join(client: &Client, options: GroupConsumerOptions) -> GroupConsumer {
    client.group_consumer("billing", &["orders"], options).await.expect("a consumer")
}

/// Reads until each of these offsets of every partition was there; returns what came, in order.
async fn read(consumer: &mut GroupConsumer, offsets: std::ops::Range<u64>) -> Vec<(u32, u64)> {
    let (mut all, mut open) = (Vec::new(), BTreeSet::new());
    open.extend((0..PARTITIONS).flat_map(|partition| offsets.clone().map(move |offset| (partition, offset))));
    while !open.is_empty() {
        let record = within("a record", consumer.next()).await.expect("a record");
        let seen = (record.partition.0, record.offset.0);
        open.remove(&seen);
        all.push(seen);
    }
    all
}

fn committed(cluster: &Cluster, topic: &TopicDescription) -> Vec<Option<u64>> {
    let state = cluster.state();
    (0..PARTITIONS).map(|partition| state.groups.committed("billing", key(topic, partition))).collect()
}

#[tokio::test]
async fn a_request_that_is_lost_or_refused_for_now_is_made_again() {
    let (cluster, topic, client) = filled("orders", 50).await;
    let passing = [
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::Refuse(ErrorCode::Stale),
        Fault::Refuse(ErrorCode::Overloaded),
        Fault::Deny(ErrorCode::TimedOut),
        Fault::Truncate,
        Fault::DamageHead,
    ];
    cluster.script(Api::GroupHeartbeat, passing.clone());
    cluster.script(Api::GroupCommit, passing);
    let mut consumer = join(&client, options()).await;
    let seen = read(&mut consumer, 0..50).await;
    assert_eq!(seen.len(), 200, "each once: nothing was lost to it");
    within("the commit", consumer.commit()).await.expect("it is committed");
    assert_eq!(committed(&cluster, &topic), [Some(50); PARTITIONS as usize]);
    assert_eq!((cluster.faults_left(Api::GroupHeartbeat), cluster.faults_left(Api::GroupCommit)), (0, 0));
    within("it leaves", consumer.close()).await.expect("it leaves");
    assert_eq!(cluster.state().groups.owner("billing", key(&topic, 0)), None);
}

#[tokio::test]
async fn a_coordinator_that_moves_is_followed_and_nothing_else_is() {
    let (cluster, topic, client) = filled("orders", 10).await;
    let mut consumer = join(&client, options()).await;
    let losses = Arc::new(Mutex::new(0));
    for_all_losses(&mut consumer, &losses);
    read(&mut consumer, 0..10).await;
    let name = minikafka_client::core::group::GroupName::new("billing").expect("a name");
    let range = client.map().range_of_group(&name).expect("its range");
    for shard in [1, 0, 1] {
        let owner = cluster.state().groups.owner("billing", key(&topic, 1));
        let before = cluster.requests(Api::GroupHeartbeat);
        cluster.move_range(range, shard);
        // What comes next is asked of the new one.
        within("it is heard there", async {
            while cluster.requests(Api::GroupHeartbeat) < before + 3 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        within("the commit", consumer.commit()).await.expect("it is committed");
        assert_eq!(cluster.state().groups.owner("billing", key(&topic, 1)), owner, "it goes on as it was");
    }
    produce(&client, "orders", 10..20).await;
    assert_eq!(read(&mut consumer, 10..20).await.len(), 40, "each once");
    assert_eq!(*losses.lock().expect("no panic"), 0);
}

/// Counts partitions that were lost, or asked back.
fn for_all_losses(consumer: &mut GroupConsumer, losses: &Arc<Mutex<usize>>) {
    let count = || {
        let losses = losses.clone();
        move |partitions: Vec<_>| {
            *losses.lock().expect("no panic") += partitions.len();
            std::future::ready(())
        }
    };
    consumer.on_lost(count());
    consumer.on_revoked(count());
}

#[tokio::test]
async fn whoever_is_unknown_drops_what_it_had_and_joins_anew() {
    let (cluster, topic, client) = filled("orders", 10).await;
    let mut consumer = join(&client, options()).await;
    let losses = Arc::new(Mutex::new(0));
    for_all_losses(&mut consumer, &losses);
    read(&mut consumer, 0..10).await;
    within("the commit", consumer.commit()).await.expect("it is committed");
    let before = cluster.state().groups.owner("billing", key(&topic, 0));
    // Once it says only what is new, once it says everything.
    cluster.script(
        Api::GroupHeartbeat,
        [Fault::Refuse(ErrorCode::UnknownMember), Fault::Refuse(ErrorCode::UnknownMember)],
    );
    within("it loses all", async {
        while *losses.lock().expect("no panic") == 0 {
            assert!(consumer.next_within(Duration::from_millis(5)).await.expect("no error").is_none());
        }
    })
    .await;
    produce(&client, "orders", 10..20).await;
    // The coordinator itself waits for the silence of who it was.
    read(&mut consumer, 10..20).await;
    let after = cluster.state().groups.owner("billing", key(&topic, 0));
    assert!(before.is_some() && after.is_some() && before != after, "{before:?} {after:?}");
    assert_eq!(*losses.lock().expect("no panic"), PARTITIONS as usize);
    within("the commit", consumer.commit()).await.expect("it is committed");
    assert_eq!(committed(&cluster, &topic), [Some(20); PARTITIONS as usize]);
}

#[tokio::test]
async fn dropping_a_wait_loses_nothing() {
    let (cluster, topic, client) = filled("orders", 200).await;
    let (mut first, mut seen) = (join(&client, options()).await, BTreeSet::new());
    let slow = |_| async { tokio::time::sleep(Duration::from_millis(3)).await };
    first.on_assigned(slow);
    first.on_revoked(slow);
    let mut second = None;
    within("all of them", async {
        while seen.len() < 4 * 200 {
            if second.is_none() && seen.len() > 100 {
                let mut consumer = join(&client, options()).await;
                consumer.on_assigned(slow);
                second = Some(consumer);
            }
            for consumer in [Some(&mut first), second.as_mut()].into_iter().flatten() {
                let waited = tokio::time::timeout(Duration::from_micros(200), consumer.next()).await;
                if let Ok(record) = waited {
                    let record = record.expect("a record");
                    assert!(seen.insert((record.partition, record.offset)), "{record:?} comes twice");
                }
            }
        }
    })
    .await;
    for consumer in [Some(first), second].into_iter().flatten() {
        within("it leaves", consumer.close()).await.expect("it leaves");
    }
    assert_eq!(committed(&cluster, &topic), [Some(200); PARTITIONS as usize]);
}

#[tokio::test]
async fn what_is_acknowledged_while_partitions_are_asked_back_counts() {
    let (cluster, topic, client) = filled("orders", 1).await;
    let options = GroupConsumerOptions { acknowledge: Acknowledge::ByRecord, ..options() };
    let mut first = join(&client, options.clone()).await;
    let held = Arc::new(Mutex::new(Vec::new()));
    while held.lock().expect("no panic").len() < PARTITIONS as usize {
        let record = within("a record", first.next()).await.expect("a record");
        held.lock().expect("no panic").push(record);
    }
    let (records, asked_back) = (held.clone(), Arc::new(Mutex::new(Vec::new())));
    let told = asked_back.clone();
    first.on_revoked(move |partitions| {
        records.lock().expect("no panic").iter().for_each(|record| record.ack());
        told.lock().expect("no panic").extend(partitions);
        std::future::ready(())
    });
    let second = join(&client, options).await;
    within("half of it moves", async {
        let is_half = || {
            let state = cluster.state();
            let owners: BTreeSet<_> =
                (0..PARTITIONS).filter_map(|of| state.groups.owner("billing", key(&topic, of))).collect();
            owners.len() == 2
        };
        while !is_half() {
            let waited = tokio::time::timeout(Duration::from_millis(5), first.next()).await;
            assert!(waited.is_err(), "there is nothing else");
        }
    })
    .await;
    let moved = asked_back.lock().expect("no panic").clone();
    assert_eq!(moved.len(), 2);
    let committed = committed(&cluster, &topic);
    assert!(moved.iter().all(|moved| committed[moved.partition.0 as usize] == Some(1)), "{moved:?} {committed:?}");
    drop(second);
}

#[tokio::test]
async fn a_topic_that_goes_is_given_up_and_the_others_go_on() {
    let (cluster, topic, client) = filled("orders", 5).await;
    cluster.create_topic("returns", PARTITIONS);
    produce(&client, "returns", 0..5).await;
    let mut consumer = client.group_consumer("billing", &["orders", "returns"], options()).await.expect("a consumer");
    let mut seen = 0;
    while seen < 40 {
        within("a record", consumer.next()).await.expect("a record");
        seen += 1;
    }
    client.delete_topic("returns").await.expect("it is deleted");
    within("it is given up", async {
        while consumer.positions().iter().any(|(place, ..)| &*place.topic == "returns") {
            // It may tell once that the topic is gone.
            let _ = tokio::time::timeout(Duration::from_millis(5), consumer.next()).await;
        }
    })
    .await;
    produce(&client, "orders", 5..10).await;
    let mut open: BTreeSet<_> = (0..PARTITIONS).flat_map(|of| (5..10).map(move |offset| (of, offset))).collect();
    while !open.is_empty() {
        if let Ok(record) = within("a record", consumer.next()).await {
            assert_eq!(record.topic(), "orders");
            open.remove(&(record.partition.0, record.offset.0));
        }
    }
    within("the commit", consumer.commit()).await.expect("it is committed");
    assert_eq!(committed(&cluster, &topic), [Some(10); PARTITIONS as usize]);
}

#[tokio::test]
async fn nobody_waits_for_a_coordinator_that_is_not_there_longer_than_asked() {
    let (cluster, _, client) = filled("orders", 5).await;
    let patience = Duration::from_millis(300);
    let options_of_client = ClientOptions { request_timeout: patience, ..ClientOptions::default() };
    let gateway = cluster.shared.gateway.clone();
    let impatient = Client::builder([gateway]).options(options_of_client).connect().await.expect("a client");
    let mut consumer =
        join(&impatient, GroupConsumerOptions { commit_interval: Duration::from_secs(60), ..options() }).await;
    read(&mut consumer, 0..5).await;
    cluster.script(Api::GroupCommit, vec![Fault::Silence; 100]);
    let error = within("it gives up", consumer.commit()).await.expect_err("nobody answers");
    assert!(matches!(error, Error::DeadlineExceeded { outcome_unknown: true, .. }), "{error}");
    let error = within("it gives up", consumer.close()).await.expect_err("nobody answers");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    // The bound of what may wait is not reached by that.
    drop(client);
}

#[tokio::test]
async fn options_and_names_are_checked() {
    let (_cluster, _, client) = filled("orders", 0).await;
    let refused = |options: GroupConsumerOptions| {
        let client = client.clone();
        async move { client.group_consumer("billing", &["orders"], options).await.expect_err("refused") }
    };
    let session_timeout = Duration::from_millis(999);
    for options in [
        GroupConsumerOptions { session_timeout, ..options() },
        GroupConsumerOptions { commit_interval: Duration::ZERO, ..options() },
        GroupConsumerOptions { instance: Some(String::new()), ..options() },
        GroupConsumerOptions { instance: Some("a b".into()), ..options() },
        GroupConsumerOptions { prefetch_bytes_max: 1, ..options() },
    ] {
        assert!(matches!(refused(options).await, Error::InvalidOption { .. }));
    }
    let error = client.group_consumer("billing", &[], options()).await.expect_err("refused");
    assert!(matches!(error, Error::InvalidOption { option: "topics", .. }), "{error}");
    for name in ["", "a b", ".."] {
        let error = client.group_consumer(name, &["orders"], options()).await.expect_err("refused");
        assert_eq!(error.code(), Some(ErrorCode::InvalidArgument), "{error}");
    }
    let error = client.group_consumer("billing", &["nothing"], options()).await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "{error}");
    let mut consumer = join(&client, options()).await;
    let place = minikafka_client::TopicPartition { topic: "orders".into(), partition: Partition(99) };
    assert_eq!(consumer.seek(&place, Offset(0)).expect_err("not its own").code(), Some(ErrorCode::NotAssigned));
}
