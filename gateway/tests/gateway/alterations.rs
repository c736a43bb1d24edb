//! Altering a topic: every head gets the newest settings, whatever happens to the controller on the way.

use std::sync::atomic::Ordering;

use crate::support::node::FakeNode;
use crate::support::*;
use minikafka_core::topic::{TopicConfig, TopicConfigChange, TopicState};
use minikafka_core::wire::CreateTopicRequest;
use minikafka_core::*;

fn retention(retention_ms: i64) -> TopicConfigChange {
    TopicConfigChange { retention_ms: Some(retention_ms), ..TopicConfigChange::default() }
}

fn with_retention(retention_ms: i64) -> TopicConfig {
    TopicConfig { retention_ms, ..TopicConfig::default() }
}

#[tokio::test]
async fn an_alteration_reaches_every_partition_and_names_what_changes_only() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(1, 2).await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    let topic = client.create(&create_request("orders", 9)).await.expect("a new topic").topic;
    let altered = client.alter("orders", retention(5_000), 10_000).await.expect("it is there");
    assert_eq!((altered.config, altered.state), (with_retention(5_000), TopicState::Ready));
    let quota = TopicConfigChange { produce_bytes_per_second: Some(1_000), ..TopicConfigChange::default() };
    let altered = client.alter("orders", quota, 10_000).await.expect("it is there");
    let both = TopicConfig { produce_bytes_per_second: 1_000, ..with_retention(5_000) };
    assert_eq!(altered.config, both);
    assert_eq!(node.settings(topic), vec![(both, ConfigVersion(3)); 9]);
    assert_eq!(client.describe("orders", false).await, altered);
    // The same again changes nothing, and so is no new version.
    assert_eq!(client.alter("orders", quota, 10_000).await.expect("it is so"), altered);
    assert_eq!(cluster.bucket("orders").await.topics["orders"].config_version, ConfigVersion(3));
    // Settings can be taken back.
    let none = TopicConfigChange { produce_bytes_per_second: Some(0), ..retention(-1) };
    assert_eq!(client.alter("orders", none, 10_000).await.expect("it is there").config, TopicConfig::default());
}

#[tokio::test]
async fn what_cannot_be_altered_is_refused_with_its_code() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let _node = cluster.node(1, 1).await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    client.create(&create_request("orders", 1)).await.expect("a new topic");
    let code = async |name: &str, change| client.alter(name, change, 10_000).await.map_err(|(code, _)| code).err();
    assert_eq!(code("absent", retention(1)).await, Some(ErrorCode::UnknownTopic));
    assert_eq!(code("..", retention(1)).await, Some(ErrorCode::InvalidTopicName));
    assert_eq!(code("orders", TopicConfigChange::default()).await, Some(ErrorCode::InvalidArgument));
    for bad in [0, u32::MAX] {
        let change = TopicConfigChange { batch_bytes_max: Some(bad), ..TopicConfigChange::default() };
        assert_eq!(code("orders", change).await, Some(ErrorCode::InvalidArgument));
    }
    assert_eq!(cluster.bucket("orders").await.topics["orders"].config, TopicConfig::default());
}

#[tokio::test]
async fn an_alteration_survives_its_controller() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(1, 2).await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    let topic = client.create(&create_request("orders", 5)).await.expect("a new topic").topic;
    // The bucket is changed, and no head ever confirms: that is where the controller dies.
    node.mute.store(true, Ordering::Relaxed);
    let refused = client.alter("orders", retention(7_000), 200).await.expect_err("nobody confirms");
    assert_eq!(refused.0, ErrorCode::TimedOut);
    let record = cluster.bucket("orders").await.topics["orders"].clone();
    assert_eq!((record.state, record.config), (TopicState::Altering, with_retention(7_000)));
    drop(gateway);
    node.forget_settings(topic);
    node.mute.store(false, Ordering::Relaxed);
    let gateway = cluster.gateway().await;
    let client = Client::new(&gateway).await;
    let ready = until("the alteration to be resumed", || async {
        let topic = client.describe("orders", false).await;
        (topic.state == TopicState::Ready).then_some(topic)
    })
    .await;
    assert_eq!(ready.config, with_retention(7_000));
    assert_eq!(node.settings(topic), vec![(with_retention(7_000), ConfigVersion(2)); 5]);
}

#[tokio::test]
async fn altered_again_meanwhile_the_newest_settings_win_and_a_deletion_wins_over_all() {
    let cluster = Cluster::new(1).await;
    // Before the gateway, which makes the ring of who is there.
    let (stays, goes) = (cluster.node(1, 2).await, cluster.node(2, 2).await);
    let gateway = cluster.gateway().await;
    cluster.until_ring_acts(1, 1, &[&stays, &goes]).await;
    let client = Client::new(&gateway).await;
    let topic = client.create(&create_request("orders", 32)).await.expect("a new topic").topic;
    let here = stays.open_partitions(topic);
    assert!(here > 0 && goes.open_partitions(topic) > 0, "both nodes hold some of it");
    // Half of the partitions can be altered, the others have to wait.
    let disk = goes.stop().await;
    for (retention_ms, version) in [(1_000, 2), (2_000, 3)] {
        let refused = client.alter("orders", retention(retention_ms), 200).await.expect_err("one is away");
        assert_eq!(refused.0, ErrorCode::TimedOut);
        until("those that are there to be altered", || async {
            let altered = vec![(with_retention(retention_ms), ConfigVersion(version)); here];
            (stays.settings(topic) == altered).then_some(())
        })
        .await;
    }
    let goes = FakeNode::start_on(&cluster.store, NodeId(2), 2, disk).await;
    let altered = client.alter("orders", retention(2_000), 10_000).await.expect("waits for the one under way");
    assert_eq!((altered.config, altered.state), (with_retention(2_000), TopicState::Ready));
    let all = [stays.settings(topic), goes.settings(topic)].concat();
    assert_eq!(all, vec![(with_retention(2_000), ConfigVersion(3)); 32]);

    let disk = goes.stop().await;
    let refused = client.alter("orders", retention(3_000), 200).await.expect_err("one is away");
    assert_eq!(refused.0, ErrorCode::TimedOut);
    let goes = FakeNode::start_on(&cluster.store, NodeId(2), 2, disk).await;
    client.delete("orders").await.expect("an altering topic can be deleted");
    assert_eq!(stays.open_partitions(topic) + goes.open_partitions(topic), 0);
    assert!(cluster.bucket("orders").await.topics.is_empty());
}

#[tokio::test]
async fn a_topic_that_is_being_created_is_altered_when_it_is_there() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    let request = CreateTopicRequest { timeout_ms: 200, ..create_request("slow", 3) };
    assert_eq!(client.create(&request).await.map_err(|(code, _)| code), Err(ErrorCode::TimedOut));
    let refused = client.alter("slow", retention(9_000), 200).await.expect_err("it is not there yet");
    assert_eq!(refused.0, ErrorCode::TimedOut);
    let node = cluster.node(1, 1).await;
    let altered = client.alter("slow", retention(9_000), 10_000).await.expect("once it is there");
    assert_eq!((altered.config, altered.state), (with_retention(9_000), TopicState::Ready));
    assert_eq!(node.settings(altered.topic), vec![(with_retention(9_000), ConfigVersion(2)); 3]);
}
