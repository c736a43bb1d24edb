//! A gateway as controller: chains from first start over restarts, topics from creation to deletion, election.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::flaky::Flaky;
use crate::support::node::FakeNode;
use crate::support::*;
use minikafka_core::chain::controller::AlertReason;
use minikafka_core::coordination::{ClusterRecord, RECORDS_FORMAT, path};
use minikafka_core::topic::{TopicConfig, TopicState};
use minikafka_core::wire::{CreateTopicRequest, ResolveRequest};
use minikafka_core::*;
use minikafka_gateway::{ClusterError, Gateway, GatewayConfig, GatewayError, create_cluster};

fn whole_map() -> ResolveRequest {
    ResolveRequest { topics: Vec::new(), all_topics: true, with_rings: true, create_missing: false }
}

#[tokio::test]
async fn a_first_start_activates_every_range_and_tells_clients() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(7, 4).await;
    cluster.until_ring_acts(1, 1, &[&node]).await;
    let client = Client::new(&gateway).await;
    let map = until("the map", || async {
        let map = client.resolve(&whole_map()).await.expect("a map");
        (map.rings.len() == 1 && map.rings[0].chains.iter().all(|chain| chain.epoch == Epoch(1))).then_some(map)
    })
    .await;
    assert_eq!(map.nodes.len(), 1);
    assert_eq!((map.nodes[0].node, &map.nodes[0].shards), (NodeId(7), &node.broker.shards));
    assert_eq!((map.rings[0].ring, map.rings[0].replication, map.rings[0].chains.len()), (RingId(1), 1, 256));
    for (range, chain) in map.rings[0].chains.iter().enumerate() {
        assert_eq!(chain.places.len(), 1);
        assert_eq!(chain.places[0].shard, ShardId(range as u16 % 4));
    }
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_restarted_node_is_readmitted_also_with_another_number_of_shards() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(1, 4).await;
    cluster.until_ring_acts(1, 1, &[&node]).await;
    let client = Client::new(&gateway).await;
    let topic = client.create(&create_request("orders", 16)).await.expect("a new topic");
    let disk = node.stop().await;
    let node = FakeNode::start_on(&cluster.store, NodeId(1), 2, disk).await;
    let ring = cluster.until_ring_acts(1, 2, &[&node]).await;
    let member = |range: usize| ring.ranges[range].active.as_ref().expect("active").chain[0];
    assert!((0..256).all(|range| member(range).incarnation == node.broker.incarnation && member(range).shard.0 < 2));
    assert_eq!(node.open_partitions(topic.topic), 16);
    // And it goes on to serve.
    client.create(&create_request("more", 3)).await.expect("another topic");
}

#[tokio::test]
async fn a_wiped_node_waits() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(1, 2).await;
    let before = cluster.until_ring_acts(1, 1, &[&node]).await;
    drop(node.stop().await);
    let wiped = cluster.node(1, 2).await;
    let alert = until("the alert", || async {
        gateway.alerts().into_iter().find(|alert| alert.reason == AlertReason::WipedDisk { node: NodeId(1) })
    })
    .await;
    assert_eq!(alert.ranges.len(), 256);
    assert_eq!(cluster.ring(1).await, Some(before), "nothing is created again");
    assert_eq!(wiped.acting(RingId(1)), 0);
}

#[tokio::test]
async fn a_topic_is_created_described_and_deleted() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(1, 2).await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    let config = TopicConfig {
        retention_ms: 60_000,
        retention_bytes: 1 << 30,
        batch_bytes_max: 1 << 20,
        produce_bytes_per_second: 5_000_000,
    };
    let request = CreateTopicRequest { config, ..create_request("orders", 0) };
    let created = client.create(&request).await.expect("a new topic");
    assert_eq!((created.partitions, created.state, created.config), (8, TopicState::Ready, config));
    assert_ne!(created.topic, TopicId(0));
    assert_eq!(node.open_partitions(created.topic), 8);
    assert_eq!(client.describe("orders", false).await, created);
    assert_eq!(client.create(&request).await.map_err(|(code, _)| code), Err(ErrorCode::TopicExists));
    client.delete("orders").await.expect("it is there");
    assert_eq!(node.open_partitions(created.topic), 0);
    assert_eq!(client.describe("orders", false).await.error, Some(ErrorCode::UnknownTopic));
    assert!(cluster.bucket("orders").await.topics.is_empty());
    let again = client.create(&request).await.expect("the name is free again");
    assert_ne!(again.topic, created.topic);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_code() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let _node = cluster.node(1, 1).await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    let base = || create_request("good", 1);
    let bad = [
        (CreateTopicRequest { name: "no spaces".into(), ..base() }, ErrorCode::InvalidTopicName),
        (CreateTopicRequest { partitions: limits::TOPIC_PARTITIONS_MAX + 1, ..base() }, ErrorCode::InvalidArgument),
        (CreateTopicRequest { replication: 8, ..base() }, ErrorCode::InvalidArgument),
        (CreateTopicRequest { replication: 3, ..base() }, ErrorCode::InvalidArgument),
        (
            CreateTopicRequest { config: TopicConfig { batch_bytes_max: 0, ..TopicConfig::default() }, ..base() },
            ErrorCode::InvalidArgument,
        ),
        (
            CreateTopicRequest {
                config: TopicConfig { batch_bytes_max: u32::MAX, ..TopicConfig::default() },
                ..base()
            },
            ErrorCode::InvalidArgument,
        ),
    ];
    for (request, expected) in bad {
        assert_eq!(client.create(&request).await.map_err(|(code, _)| code), Err(expected), "{request:?}");
    }
    assert_eq!(client.delete("absent").await.map_err(|(code, _)| code), Err(ErrorCode::UnknownTopic));
    assert_eq!(client.delete("..").await.map_err(|(code, _)| code), Err(ErrorCode::InvalidTopicName));
    assert_eq!(client.describe("bad name", true).await.error, Some(ErrorCode::InvalidTopicName));
    assert_eq!(client.describe("absent", true).await.error, Some(ErrorCode::UnknownTopic), "not unless allowed");
}

#[tokio::test]
async fn missing_topics_are_created_where_that_is_allowed() {
    let cluster = Cluster::new(1).await;
    let mut config = cluster.config();
    (config.auto_create_topics, config.default_partitions) = (true, 3);
    let gateway = Gateway::start(config).await.expect("a gateway");
    let _node = cluster.node(1, 1).await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    assert_eq!(client.describe("queue", false).await.error, Some(ErrorCode::UnknownTopic));
    let created = client.describe("queue", true).await;
    assert_eq!((created.error, created.partitions, created.state), (None, 3, TopicState::Ready));
    assert_eq!(client.describe("queue", true).await, created);
}

#[tokio::test]
async fn a_creation_that_takes_too_long_goes_on_and_survives_its_controller() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(1, 2).await;
    cluster.until_ring_acts(1, 1, &[&node]).await;
    node.mute.store(true, Ordering::Relaxed);
    let client = Client::new(&gateway).await;
    let request = CreateTopicRequest { timeout_ms: 200, ..create_request("slow", 5) };
    assert_eq!(client.create(&request).await.map_err(|(code, _)| code), Err(ErrorCode::TimedOut));
    assert_eq!(cluster.bucket("slow").await.topics["slow"].state, TopicState::Creating);
    drop(gateway);
    node.mute.store(false, Ordering::Relaxed);
    let gateway = cluster.gateway().await;
    let client = Client::new(&gateway).await;
    let ready = until("the creation to be resumed", || async {
        let topic = client.describe("slow", false).await;
        (topic.state == TopicState::Ready).then_some(topic)
    })
    .await;
    assert_eq!(node.open_partitions(ready.topic), 5);
}

#[tokio::test]
async fn a_deletion_is_resumed_too() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let node = cluster.node(1, 2).await;
    until_controller(&gateway).await;
    let client = Client::new(&gateway).await;
    let topic = client.create(&create_request("gone", 5)).await.expect("a new topic").topic;
    node.mute.store(true, Ordering::Relaxed);
    let deletion = tokio::spawn(async move { client.delete("gone").await });
    until("the mark", || async {
        (cluster.bucket("gone").await.topics["gone"].state == TopicState::Deleting).then_some(())
    })
    .await;
    deletion.abort();
    drop(gateway);
    node.mute.store(false, Ordering::Relaxed);
    let _gateway = cluster.gateway().await;
    until("the deletion to be resumed", || async { cluster.bucket("gone").await.topics.is_empty().then_some(()) })
        .await;
    assert_eq!(node.open_partitions(topic), 0);
}

#[tokio::test]
async fn of_two_gateways_one_controls_and_the_other_takes_over() {
    let cluster = Cluster::new(1).await;
    let first = cluster.gateway().await;
    until_controller(&first).await;
    let second = cluster.gateway().await;
    let node = cluster.node(1, 2).await;
    cluster.until_ring_acts(1, 1, &[&node]).await;
    let client = Client::new(&second).await;
    let refused = until("the second to know the first", || async {
        let refused = client.create(&create_request("orders", 2)).await.expect_err("only the controller creates");
        (!refused.1.is_empty()).then_some(refused)
    })
    .await;
    assert_eq!(refused, (ErrorCode::NotController, first.address().to_string()));
    assert!(!second.is_controller());
    let topic = Client::new(&first).await.create(&create_request("orders", 2)).await.expect("a new topic");
    until("the second to see it", || async { (client.describe("orders", false).await == topic).then_some(()) }).await;
    first.shutdown().await;
    until_controller(&second).await;
    client.create(&create_request("more", 2)).await.expect("the new controller creates");
    let disk = node.stop().await;
    let node = FakeNode::start_on(&cluster.store, NodeId(1), 2, disk).await;
    cluster.until_ring_acts(1, 2, &[&node]).await;
}

#[tokio::test]
async fn a_lost_session_costs_the_election_and_nothing_else() {
    let cluster = Cluster::new(1).await;
    let session = Arc::new(cluster.store.session());
    let gateway = Gateway::start(cluster.config_with(session.clone())).await.expect("a gateway");
    until_controller(&gateway).await;
    let rival = cluster.gateway().await;
    let _node = cluster.node(1, 1).await;
    until("both to be candidates", || async {
        (cluster.client.children(path::GATEWAYS).await.expect("a coordinator").len() == 2).then_some(())
    })
    .await;
    session.expire();
    until_controller(&rival).await;
    until("the first to know", || async { (!gateway.is_controller()).then_some(()) }).await;
    Client::new(&rival).await.create(&create_request("orders", 2)).await.expect("a new topic");
    rival.shutdown().await;
    until_controller(&gateway).await;
    Client::new(&gateway).await.create(&create_request("more", 2)).await.expect("a new topic");
}

#[tokio::test]
async fn a_cluster_is_created_once() {
    let cluster = Cluster::new(3).await;
    let record = create_cluster(&cluster.client, SECRET, 1).await.expect("it is there");
    assert_eq!(record.internal_replication, 3, "the first one's");
    assert_ne!(record.cluster, ClusterId(0));
    let empty = minikafka_coordinator::EmbeddedCoordinator::in_memory();
    let started = Gateway::start(cluster.config_with(Arc::new(empty.session()))).await;
    assert!(matches!(started, Err(GatewayError::Cluster(ClusterError::None))));
    let stranger = GatewayConfig { secret: b"another".to_vec(), ..cluster.config() };
    let refused = Gateway::start(stranger).await.expect_err("another cluster's secret");
    assert!(refused.to_string().contains("--secret-file"), "{refused}");
    assert!(create_cluster(&cluster.client, b"another", 3).await.is_err());
}

#[tokio::test]
async fn a_cluster_of_another_format_is_left_alone() {
    let cluster = Cluster::new(1).await;
    let (record, version) = cluster.client.read::<ClusterRecord>(path::CLUSTER).await.expect("it").expect("is there");
    let newer = ClusterRecord { format: RECORDS_FORMAT + 1, ..record };
    cluster.client.compare_and_set(path::CLUSTER, &newer, version).await.expect("nobody else writes");
    let refused = Gateway::start(cluster.config()).await.expect_err("it would not understand the records");
    assert!(matches!(refused, GatewayError::Cluster(ClusterError::Incompatible { found: 2, .. })), "{refused}");
}

#[tokio::test]
async fn changes_that_are_not_confirmed_or_refused_are_found_out_and_made() {
    let cluster = Cluster::new(1).await;
    let weather = Flaky::new(cluster.store.session());
    let gateway = Gateway::start(cluster.config_with(weather.clone())).await.expect("a gateway");
    let node = cluster.node(1, 2).await;
    until("every range to act", || async { (node.acting(RingId(1)) == 256).then_some(()) }).await;
    let client = Client::new(&gateway).await;
    for name in ["one", "two", "three", "four"] {
        until("a creation", || async {
            match client.create(&create_request(name, 4)).await {
                Ok(_) | Err((ErrorCode::TopicExists, _)) => Some(()),
                Err((code, _)) => {
                    assert!(code.is_retriable(), "{code}");
                    None
                }
            }
        })
        .await;
        let topic = client.describe(name, false).await;
        assert_eq!((topic.state, node.open_partitions(topic.topic)), (TopicState::Ready, 4), "{name}");
    }
    assert!(weather.changes() > 10);
}
