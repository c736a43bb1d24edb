//! Topics, offsets and the map.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use minikafka_client::core::topic::{TopicConfig, TopicConfigChange};
use minikafka_client::core::wire::Api;
use minikafka_client::core::{ErrorCode, Offset, Partition, Timestamp};
use minikafka_client::{Client, Error, OffsetQuery, ProducerOptions, ProducerRecord, TopicOptions};

use crate::cluster::{Cluster, Fault};

#[tokio::test]
async fn topics_are_created_described_listed_and_deleted() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let options = TopicOptions { partitions: 3, ..TopicOptions::default() };
    let topic = client.create_topic("orders", options).await.expect("created");
    assert_eq!((topic.name.as_str(), topic.partitions), ("orders", 3));
    let again = client.create_topic("orders", options).await.expect_err("it exists");
    assert_eq!(again.code(), Some(ErrorCode::TopicExists));
    let described = client.describe_topics(&["orders", "nothing"]).await.expect("described");
    assert_eq!(described[0], topic);
    assert_eq!(described[1].error, Some(ErrorCode::UnknownTopic));
    client.create_topic("a", options).await.expect("created");
    let names: Vec<_> = client.list_topics().await.expect("listed").into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["a", "orders"]);
    client.delete_topic("orders").await.expect("deleted");
    let gone = client.delete_topic("orders").await.expect_err("gone");
    assert_eq!(gone.code(), Some(ErrorCode::UnknownTopic));
    let gone = client.topic("orders").await.expect_err("gone");
    assert_eq!(gone.code(), Some(ErrorCode::UnknownTopic));
    let bad = client.create_topic("no spaces", options).await.expect_err("a bad name");
    assert_eq!(bad.code(), Some(ErrorCode::InvalidTopicName));
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_not_a_conflict() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    cluster.script(Api::CreateTopic, [Fault::CloseAfter]);
    let topic = client.create_topic("orders", TopicOptions { partitions: 3, ..TopicOptions::default() }).await;
    assert_eq!(topic.expect("created by the first attempt").partitions, 3);
    cluster.script(Api::DeleteTopic, [Fault::Refuse(ErrorCode::CoordinatorUnavailable), Fault::CloseAfter]);
    client.delete_topic("orders").await.expect("deleted by the second attempt");
    assert_eq!(cluster.faults_left(Api::DeleteTopic), 0);
}

#[tokio::test]
async fn missing_topics_are_created_where_the_cluster_does_so() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    assert_eq!(client.topic("auto-created").await.expect("created").partitions, 2);
    let error = client.producer("missing", ProducerOptions::default()).await.expect_err("not created");
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    assert!(error.to_string().contains("missing"), "{error}");
}

/// Cause: just after a start, or between two controllers, nobody may create a topic yet. Effect: the first producer of a
/// topic failed at once. Fix: the creation waits for a controller, as `create_topic` does.
#[tokio::test]
async fn a_missing_topic_waits_for_a_controller() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let nobody = || Fault::Refuse(ErrorCode::NotController);
    cluster.script(Api::Resolve, [Fault::None, nobody(), nobody(), nobody()]);
    assert_eq!(client.topic("auto-created").await.expect("created at the fourth attempt").partitions, 2);
    assert_eq!(cluster.faults_left(Api::Resolve), 0);
}

#[tokio::test]
async fn the_next_gateway_is_asked_when_one_is_gone() {
    let cluster = Cluster::start(1).await;
    let client = Client::builder(["127.0.0.1:1", &cluster.shared.gateway, "127.0.0.1:2"]).connect().await;
    let client = client.expect("one of three answers");
    assert_eq!(client.map().nodes().count(), 1);
    let error = Client::builder(["127.0.0.1:1", "127.0.0.1:2"]).connect().await.expect_err("none answers");
    assert!(matches!(&error, Error::NoGateway { tried, .. } if tried.contains("127.0.0.1:2")), "{error}");
}

#[tokio::test]
async fn a_gateway_that_never_answers_is_not_waited_for() {
    let cluster = Cluster::start(1).await;
    // The system takes connections for it, and nobody ever looks at them.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent_address = silent.local_addr().expect("it listens").to_string();
    let gateways = [silent_address.as_str(), &cluster.shared.gateway];
    for _ in 0..4 {
        // Whichever of them is asked first.
        let start = Instant::now();
        let client = Client::builder(gateways).connect().await.expect("one of them answers");
        client.refresh_map().await.expect("one of them answers");
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
    cluster.script(Api::Resolve, [Fault::Silence, Fault::Silence]);
    let client = Client::builder([&cluster.shared.gateway; 3]).connect().await.expect("the third time it answers");
    assert_eq!((client.map().nodes().count(), cluster.faults_left(Api::Resolve)), (1, 0));
}

#[tokio::test]
async fn the_controller_is_found_through_any_gateway() {
    let cluster = Cluster::start(1).await;
    let elsewhere = Cluster::start(1).await;
    let client = cluster.client().await;
    let names = || Fault::RefuseSaying(ErrorCode::NotController, elsewhere.shared.gateway.clone());
    cluster.script(Api::CreateTopic, [Fault::RefuseSaying(ErrorCode::NotController, String::new()), names()]);
    client.create_topic("there", TopicOptions::default()).await.expect("created by the controller");
    assert!(elsewhere.state().topics.contains_key("there"));
    cluster.script(Api::Resolve, [Fault::None, names()]);
    client.topic("auto-there").await.expect("created by the controller");
    assert!(elsewhere.state().topics.contains_key("auto-there"));
    cluster.script(Api::Resolve, [Fault::Refuse(ErrorCode::InvalidArgument)]);
    let error = client.list_topics().await.expect_err("refused for good");
    assert_eq!(error.code(), Some(ErrorCode::InvalidArgument));
}

#[tokio::test]
async fn many_refreshes_at_once_are_one_question() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let before = cluster.requests(Api::Resolve);
    let refreshes: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.refresh_map().await.map(|map| map.version()) })
        })
        .collect();
    for refresh in refreshes {
        assert_eq!(refresh.await.expect("no panic").expect("refreshed"), 2);
    }
    assert_eq!(cluster.requests(Api::Resolve), before + 1);
}

#[tokio::test]
async fn offsets_are_listed_across_shards_and_retried_where_a_range_has_moved() {
    let cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("orders", 6);
    let client = cluster.client().await;
    let producer = client.producer("orders", ProducerOptions::default()).await.expect("a producer");
    for partition in 0..6 {
        let record = ProducerRecord::value(b"x").to(Partition(partition));
        producer.send(record).await.expect("accepted").await.expect("stored");
    }
    let all = |offset| (0..6).map(|partition| (Partition(partition), Offset(offset))).collect::<Vec<_>>();
    assert_eq!(client.list_offsets("orders", OffsetQuery::Earliest).await.expect("listed"), all(0));
    for partition in 0..6 {
        let range = cluster.range_of(&topic, partition);
        let head = cluster.state().heads[range.range.0 as usize].0;
        cluster.move_range(range, (head + 1) % 3);
    }
    cluster.close_connections();
    assert_eq!(client.list_offsets("orders", OffsetQuery::Latest).await.expect("listed"), all(1));
    let late = OffsetQuery::AppendedAtOrAfter(Timestamp(i64::MAX));
    let one = client.list_offsets_of("orders", &[Partition(4)], late).await.expect("listed");
    assert_eq!(one, [(Partition(4), Offset(1))]);
    let error = client.list_offsets_of("orders", &[Partition(6)], OffsetQuery::Latest).await.expect_err("none");
    assert!(matches!(error, Error::NoSuchPartition { .. }), "{error}");
}

#[tokio::test]
async fn a_topic_is_altered_also_when_an_answer_is_lost() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    client.create_topic("orders", TopicOptions { partitions: 3, ..TopicOptions::default() }).await.expect("created");
    let change = TopicConfigChange { retention_ms: Some(5_000), ..TopicConfigChange::default() };
    cluster.script(Api::AlterTopic, [Fault::CloseAfter, Fault::Refuse(ErrorCode::TimedOut)]);
    let altered = client.alter_topic("orders", change).await.expect("altered");
    assert_eq!(altered.config, TopicConfig { retention_ms: 5_000, ..TopicConfig::default() });
    assert_eq!(cluster.faults_left(Api::AlterTopic), 0);
    assert_eq!(client.topic("orders").await.expect("known").config, altered.config, "the map has learned it");
    let error = client.alter_topic("nothing", change).await.expect_err("it is not there");
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
}

#[tokio::test]
async fn records_are_deleted_across_shards_and_again_where_a_range_has_moved() {
    let cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("orders", 6);
    let client = cluster.client().await;
    let producer = client.producer("orders", ProducerOptions::default()).await.expect("a producer");
    for number in 0..24 {
        let record = ProducerRecord::value(b"x").to(Partition(number % 6));
        producer.send(record).await.expect("accepted").await.expect("stored");
    }
    let moved = cluster.range_of(&topic, 2);
    let head = cluster.state().heads[moved.range.0 as usize].0;
    cluster.move_range(moved, (head + 1) % 3);
    let before: BTreeMap<_, _> = (0..6).map(|number| (Partition(number), Offset(number.into()))).collect();
    let left = client.delete_records_of("orders", &before).await.expect("deleted");
    let expected: Vec<_> = [0, 1, 2, 3, 4, 4].into_iter().map(Offset).enumerate().collect();
    let expected: Vec<_> = expected.into_iter().map(|(at, offset)| (Partition(at as u32), offset)).collect();
    assert_eq!(left, expected, "what is beyond the end means the end");
    assert_eq!(client.list_offsets("orders", OffsetQuery::Earliest).await.expect("listed"), expected);
    cluster.script(Api::DeleteRecords, [Fault::CloseAfter]);
    assert_eq!(client.delete_records("orders", Partition(3), Offset(2)).await.expect("again"), Offset(3));
    let error = client.delete_records("orders", Partition(6), Offset(0)).await.expect_err("none");
    assert!(matches!(error, Error::NoSuchPartition { .. }), "{error}");
}
