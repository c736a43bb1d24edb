//! Operations over HTTP, by a real controller and fake nodes: what moves, what waits, what outlives whom.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Http;
use crate::support::node::FakeNode;
use crate::support::*;
use minikafka_core::coordination::{OperationRecord, OperationState, path};
use minikafka_core::*;
use minikafka_gateway::GatewayHandle;
use minikafka_gateway::admin::*;

/// Nodes with one shard each, which hold a ring of one copy.
async fn nodes(cluster: &Cluster, count: u32) -> Vec<FakeNode> {
    let mut nodes = Vec::new();
    for node in 1..=count {
        nodes.push(cluster.node(node, 1).await);
    }
    nodes
}

/// A gateway with a ring of eight ranges on so many nodes.
async fn spread(cluster: &Cluster, count: u32) -> (GatewayHandle, Vec<FakeNode>) {
    let nodes = nodes(cluster, count).await;
    let gateway = cluster.http_gateway(8).await;
    cluster.until_ring_acts(1, 1, &nodes.iter().collect::<Vec<_>>()).await;
    (gateway, nodes)
}

async fn held(cluster: &Cluster, ring: u16, node: u32) -> usize {
    let ring = cluster.ring(ring).await.expect("a ring");
    let members = ring.ranges.iter().flat_map(|range| range.active.iter().flat_map(|active| &active.chain));
    members.filter(|member| member.node == NodeId(node)).count()
}

async fn begin(http: &Http, body: Value) -> OperationStatus {
    let answer = http.post("/v1/operations", &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.ok()
}

async fn show(http: &Http, operation: OperationId) -> OperationStatus {
    http.get(&format!("/v1/operations/{operation}")).await.ok()
}

async fn until_state(http: &Http, operation: OperationId, state: OperationState) -> OperationStatus {
    until(&format!("operation {operation} to be {state:?}"), || async {
        Some(show(http, operation).await).filter(|shown| shown.state == state)
    })
    .await
}

async fn drain_of(http: &Http, node: u32) -> DrainStatus {
    let brokers: BrokersStatus = http.get("/v1/brokers").await.ok();
    brokers.brokers.iter().find(|broker| broker.node == NodeId(node)).expect("it is known").drain
}

#[tokio::test]
async fn a_plan_says_what_an_operation_would_do_and_does_nothing() {
    let cluster = Cluster::new(1).await;
    let (gateway, _nodes) = spread(&cluster, 3).await;
    let http = Http::of(&gateway);
    let before = cluster.ring(1).await;
    let held_before = held(&cluster, 1, 2).await;
    let plan: PlanStatus = http.post("/v1/plans", &json!({ "drain": 2 })).await.ok();
    assert_eq!((plan.moves.len(), plan.at_once), (held_before, limits::MOVES_AT_ONCE_DEFAULT));
    assert!(plan.moves.iter().all(|wanted| wanted.from == [NodeId(2)] && wanted.to != [NodeId(2)]));
    let sizes: Vec<_> = plan.moves.iter().map(|wanted| Some(u64::from(wanted.range.0 + 1) << 30)).collect();
    assert_eq!(plan.moves.iter().map(|wanted| wanted.bytes).collect::<Vec<_>>(), sizes, "as its members told");
    assert_eq!((plan.bytes, plan.unknown_sizes), (sizes.iter().flatten().sum(), 0));
    let (least, speed) = (plan.bytes / u64::from(plan.at_once), plan.copy_bytes_per_second);
    assert!(plan.expected_seconds >= least / speed && plan.expected_seconds <= plan.bytes / speed + 8, "{plan:?}");
    let to: Vec<_> = plan.moves.iter().map(|wanted| wanted.to[0]).collect();
    assert!(to.contains(&NodeId(1)) && to.contains(&NodeId(3)), "spread over those that stay: {to:?}");
    let plan: PlanStatus = http.post("/v1/plans", &json!({ "rebalance": {} })).await.ok();
    assert!(plan.moves.is_empty(), "all is even: {plan:?}");
    assert_eq!(cluster.ring(1).await, before);
    assert!(cluster.client.children(path::OPERATIONS).await.expect("a list").is_empty());
}

#[tokio::test]
async fn a_drained_node_loses_its_ranges_and_gets_none_until_it_is_given_back() {
    let cluster = Cluster::new(1).await;
    let (gateway, nodes) = spread(&cluster, 3).await;
    let http = Http::of(&gateway);
    let topic = Client::new(&gateway).await.create(&create_request("orders", 16)).await.expect("a new topic");
    let begun = begin(&http, json!({ "drain": 2, "at_once": 2 })).await;
    assert_eq!((begun.operation, begun.state, begun.at_once), (OperationId(1), OperationState::Running, 2));
    let again = http.post("/v1/operations", &json!({ "drain": 2 })).await;
    assert_eq!(again.error(), (409, "conflict".to_owned()));
    let done = until_state(&http, begun.operation, OperationState::Done).await;
    assert_eq!((done.moved, done.ranges), (begun.ranges, begun.ranges));
    assert!(done.ended_unix_ms >= Some(done.began_unix_ms));
    assert!(done.moves.expect("they are listed").iter().all(|wanted| wanted.done));
    assert_eq!(held(&cluster, 1, 2).await, 0);
    assert_eq!(drain_of(&http, 2).await, DrainStatus::Drained);
    let open: usize = [&nodes[0], &nodes[2]].iter().map(|node| node.open_partitions(topic.topic)).sum();
    assert!(open >= 16, "what it had is where its ranges are");
    // A new ring of two copies is made of the others.
    let two = CreateTopicReplicated("pairs", 2);
    two.create(&gateway).await;
    assert_eq!(held(&cluster, 2, 2).await, 0);
    // And a plan brings nothing to it either.
    let plan: PlanStatus = http.post("/v1/plans", &json!({ "rebalance": {} })).await.ok();
    assert!(plan.moves.iter().all(|wanted| !wanted.to.contains(&NodeId(2))));
    let explicit = http.post("/v1/plans", &json!({ "move": { "ring": 1, "range": 0, "to": [2] } })).await;
    assert_eq!(explicit.error(), (409, "conflict".to_owned()));
    // Given back, it gets its share.
    let ended: OperationStatus = http.delete("/v1/operations/1").await.ok();
    assert_eq!(ended.state, OperationState::Aborted);
    assert_eq!(http.delete("/v1/operations/1").await.error(), (409, "operation_ended".to_owned()));
    assert_eq!(drain_of(&http, 2).await, DrainStatus::No);
    let back = begin(&http, json!({ "rebalance": {} })).await;
    until_state(&http, back.operation, OperationState::Done).await;
    assert!(held(&cluster, 1, 2).await >= 2, "8 ranges over 3 nodes");
}

/// A topic of so many copies.
struct CreateTopicReplicated(&'static str, u16);

impl CreateTopicReplicated {
    async fn create(&self, gateway: &GatewayHandle) {
        let request = minikafka_core::wire::CreateTopicRequest { replication: self.1, ..create_request(self.0, 2) };
        Client::new(gateway).await.create(&request).await.expect("a new topic");
    }
}

#[tokio::test]
async fn a_drain_that_would_leave_too_few_nodes_is_refused() {
    let cluster = Cluster::new(2).await;
    let nodes = nodes(&cluster, 2).await;
    let gateway = cluster.http_gateway(4).await;
    cluster.until_ring_acts(2, 1, &nodes.iter().collect::<Vec<_>>()).await;
    let http = Http::of(&gateway);
    for path in ["/v1/plans", "/v1/operations"] {
        let refused = http.post(path, &json!({ "drain": 1 })).await;
        assert_eq!(refused.error(), (409, "below_replication".to_owned()));
        assert!(refused.body.contains("ring 2 keeps 2 copies") && refused.body.contains("only 1 live"), "{refused:?}");
    }
    // With one more it is possible, and then the next one is not.
    let third = cluster.node(3, 1).await;
    let begun = until("the third node to be known", || async {
        let answer = http.post("/v1/operations", &json!({ "drain": 1 })).await;
        (answer.status == 202).then(|| answer.ok::<OperationStatus>())
    })
    .await;
    until_state(&http, begun.operation, OperationState::Done).await;
    assert_eq!(held(&cluster, 2, 1).await, 0);
    assert_eq!(http.post("/v1/plans", &json!({ "drain": 2 })).await.error().1, "below_replication");
    // Not even in the place of one that is lost does it get a range.
    drop(third.stop().await);
    until("the loss to be repaired as far as it can be", || async {
        let ranges: RangesStatus = http.get("/v1/rings/2/ranges").await.ok();
        let is_alone = |range: &RangeStatus| range.pending.is_none() && range.chain.len() == 1;
        ranges.ranges.iter().all(is_alone).then_some(())
    })
    .await;
    Client::new(&gateway).await.create(&create_request("after", 1)).await.expect("a new topic");
    let ranges: RangesStatus = http.get("/v1/rings/2/ranges").await.ok();
    assert!(ranges.ranges.iter().all(|range| range.learners == Some(Vec::new()) && range.under_replicated));
    assert_eq!(held(&cluster, 2, 1).await, 0);
    http.delete(&format!("/v1/operations/{}", begun.operation)).await.ok::<OperationStatus>();
    until("it to help once it is given back", || async { (held(&cluster, 2, 1).await == 4).then_some(()) }).await;
}

#[tokio::test]
async fn no_more_than_so_many_ranges_move_at_once_and_an_abort_leaves_them_where_they_are() {
    let cluster = Cluster::new(1).await;
    let (gateway, nodes) = spread(&cluster, 2).await;
    let http = Http::of(&gateway);
    nodes[1].slow.store(true, Ordering::Relaxed);
    let before = cluster.ring(1).await;
    let begun = begin(&http, json!({ "drain": 1, "at_once": 3 })).await;
    let (copied, waiting) = until("learners", || async {
        let moves = show(&http, begun.operation).await.moves.expect("they are listed");
        let learner = |wanted: &MoveStatus| wanted.learners.as_ref().expect("it is the controller").first().copied();
        let heard = moves.iter().filter_map(learner).filter(|at| at.limit > LogIndex(0)).count();
        let waiting = moves.iter().filter(|wanted| learner(wanted).is_none()).count();
        (heard >= 3).then_some((heard, waiting))
    })
    .await;
    assert_eq!((copied, waiting), (3, 1));
    let ranges: RangesStatus = http.get("/v1/rings/1/ranges").await.ok();
    let moving = ranges.ranges.iter().filter_map(|range| range.moving.as_ref());
    assert_eq!(moving.filter(|moving| moving.operation == begun.operation && moving.to == [NodeId(2)]).count(), 4);
    let learners = ranges.ranges.iter().flat_map(|range| range.learners.iter().flatten());
    let told: Vec<_> = learners.map(|at| (at.node, at.end, at.limit, at.ready)).collect();
    assert_eq!(told, vec![(NodeId(2), LogIndex(7), LogIndex(1_000), false); 3]);
    let conflict = http.post("/v1/plans", &json!({ "move": { "ring": 1, "range": 0, "to": [2] } })).await;
    let is_node_1s = ranges.ranges[0].chain[0].node == NodeId(1);
    assert_eq!(conflict.status, if is_node_1s { 409 } else { 200 });

    let aborted: OperationStatus = http.delete(&format!("/v1/operations/{}", begun.operation)).await.ok();
    assert_eq!((aborted.state, aborted.moved), (OperationState::Aborted, 0));
    until("the learners to be gone", || async {
        let ranges: RangesStatus = http.get("/v1/rings/1/ranges").await.ok();
        ranges.ranges.iter().all(|range| range.learners == Some(Vec::new())).then_some(())
    })
    .await;
    nodes[1].slow.store(false, Ordering::Relaxed);
    // A topic is settled by the same controller, after anything that it was told before.
    Client::new(&gateway).await.create(&create_request("after", 1)).await.expect("a new topic");
    assert_eq!(cluster.ring(1).await, before);
}

#[tokio::test]
async fn an_operation_goes_on_with_the_next_controller() {
    let cluster = Cluster::new(1).await;
    let (gateway, nodes) = spread(&cluster, 3).await;
    let next = cluster.http_gateway(8).await;
    let http = Http::of(&gateway);
    [&nodes[0], &nodes[2]].iter().for_each(|node| node.slow.store(true, Ordering::Relaxed));
    let begun = begin(&http, json!({ "drain": 2 })).await;
    gateway.shutdown().await;
    until_controller(&next).await;
    let http = Http::of(&next);
    assert_eq!(drain_of(&http, 2).await, DrainStatus::Draining);
    [&nodes[0], &nodes[2]].iter().for_each(|node| node.slow.store(false, Ordering::Relaxed));
    let done = until_state(&http, begun.operation, OperationState::Done).await;
    assert_eq!((done.moved, held(&cluster, 1, 2).await), (begun.ranges, 0));
}

#[tokio::test]
async fn a_move_to_a_node_that_is_away_waits_for_it_and_keeps_nobody_else_waiting() {
    let cluster = Cluster::new(1).await;
    let (gateway, mut nodes) = spread(&cluster, 3).await;
    let http = Http::of(&gateway);
    let ring = cluster.ring(1).await.expect("a ring");
    let of = |node: u32| {
        let head = |at: &usize| ring.ranges[*at].active.as_ref().expect("active").chain[0].node == NodeId(node);
        (0..8).find(head).expect("it has some") as u32
    };
    nodes[2].slow.store(true, Ordering::Relaxed);
    let moved = begin(&http, json!({ "move": { "ring": 1, "range": of(1), "to": [3] } })).await;
    let disk = nodes.remove(2).stop().await;
    let waiting = until("it to wait", || async {
        Some(show(&http, moved.operation).await).filter(|shown| !shown.waits_for.is_empty())
    })
    .await;
    assert_eq!((waiting.waits_for, waiting.state), (vec![NodeId(3)], OperationState::Running));
    let other = begin(&http, json!({ "move": { "ring": 1, "range": of(2), "to": [1] } })).await;
    until_state(&http, other.operation, OperationState::Done).await;
    let _back = FakeNode::start_on(&cluster.store, NodeId(3), 1, disk).await;
    until_state(&http, moved.operation, OperationState::Done).await;
    let chain = cluster.ring(1).await.expect("a ring").ranges[of(1) as usize].active.clone().expect("active").chain;
    assert_eq!(chain[0].node, NodeId(3));
}

#[tokio::test]
async fn ended_operations_make_room_and_what_is_written_can_be_read() {
    let cluster = Cluster::new(1).await;
    let (gateway, _nodes) = spread(&cluster, 2).await;
    let http = Http::of(&gateway);
    for number in 1..=limits::OPERATIONS_MAX as u64 + 2 {
        let begun = begin(&http, json!({ "rebalance": {} })).await;
        assert_eq!(begun.operation, OperationId(number));
        until_state(&http, begun.operation, OperationState::Done).await;
    }
    let kept: OperationsStatus = http.get("/v1/operations").await.ok();
    assert_eq!(kept.operations.len(), limits::OPERATIONS_MAX);
    assert_eq!(kept.operations[0].operation, OperationId(3));
    let read = cluster.client.read::<OperationRecord>(&path::operation(OperationId(5))).await.expect("a coordinator");
    let (record, _) = read.expect("it is kept");
    assert_eq!((record.operation, record.state, record.moves.len()), (OperationId(5), OperationState::Done, 0));
    tokio::time::timeout(Duration::from_secs(5), gateway.shutdown()).await.expect("it stops");
}
