//! The HTTP port: what it shows, and what it refuses.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::{Answer, Http};
use crate::support::*;
use minikafka_core::limits;
use minikafka_core::*;
use minikafka_gateway::admin::*;
use minikafka_gateway::{Deadlines, Gateway, GatewayConfig, GatewayError};

#[tokio::test]
async fn it_shows_cluster_brokers_rings_ranges_and_topics() {
    let cluster = Cluster::new(1).await;
    // Before the gateway, which makes the ring of who is there.
    let (one, two) = (cluster.node(1, 2).await, cluster.node(2, 1).await);
    let gateway = cluster.http_gateway(8).await;
    cluster.until_ring_acts(1, 1, &[&one, &two]).await;
    Client::new(&gateway).await.create(&create_request("orders", 3)).await.expect("a new topic");
    let http = Http::of(&gateway);

    let health: Health = http.get("/healthz").await.ok();
    assert_eq!(health, Health { ok: true, is_controller: true });
    let shown: ClusterStatus = http.get("/v1/cluster").await.ok();
    let controller = shown.controller.clone().expect("it is elected");
    assert_eq!((controller.http, controller.is_this), (http.0.to_string(), true));
    assert_eq!(controller.address, gateway.address().to_string());
    assert_eq!((shown.brokers, shown.rings, shown.ranges, shown.topics), (2, 1, 8, 1));
    assert_eq!((shown.ranges_under_replicated, shown.ranges_below_min), (0, 0));
    assert_eq!((shown.alerts, shown.operations_running, shown.cluster.len()), (Some(Vec::new()), 0, 16));

    let brokers: BrokersStatus = http.get("/v1/brokers").await.ok();
    let held: usize = brokers.brokers.iter().map(|broker| broker.ranges_member).sum();
    assert_eq!((brokers.brokers.len(), held), (2, 8));
    let first = &brokers.brokers[0];
    assert_eq!(
        (first.node, first.live, first.drain, &first.shards),
        (NodeId(1), true, DrainStatus::No, &one.broker.shards)
    );
    assert_eq!((first.ranges_head, first.version.as_str()), (first.ranges_member, "test"));

    let rings: RingsStatus = http.get("/v1/rings").await.ok();
    let ring = &rings.rings[0];
    assert_eq!((ring.ring, ring.ranges, ring.pending, ring.never_active, ring.members_min), (RingId(1), 8, 0, 0, 1));
    let ranges: RangesStatus = http.get("/v1/rings/1/ranges").await.ok();
    assert_eq!((ranges.ranges.len(), ranges.next), (8, None));
    let range = &ranges.ranges[0];
    assert_eq!((range.epoch, range.chain.len(), range.pending), (Epoch(1), 1, None));
    assert!(range.chain[0].live && !range.under_replicated && !range.below_min && range.moving.is_none());
    assert_eq!(range.learners, Some(Vec::new()));
    let page: RangesStatus = http.get("/v1/rings/1/ranges?from=3&limit=2").await.ok();
    let numbers: Vec<u32> = page.ranges.iter().map(|range| range.range.0).collect();
    assert_eq!((numbers, page.next), (vec![3, 4], Some(RangeId(5))));

    let topics: TopicsStatus = http.get("/v1/topics").await.ok();
    let topic = &topics.topics[0];
    assert_eq!((topic.name.as_str(), topic.partitions, topic.ring), ("orders", 3, RingId(1)));
    let operations: OperationsStatus = http.get("/v1/operations").await.ok();
    assert!(operations.operations.is_empty());
}

#[tokio::test]
async fn it_shows_what_is_missing() {
    let cluster = Cluster::new(1).await;
    let (one, two) = (cluster.node(1, 1).await, cluster.node(2, 1).await);
    let gateway = cluster.http_gateway(4).await;
    cluster.until_ring_acts(1, 1, &[&one, &two]).await;
    drop(two.stop().await);
    let http = Http::of(&gateway);
    let shown = until("the loss to show", || async {
        let shown: ClusterStatus = http.get("/v1/cluster").await.ok();
        (shown.brokers == 1 && shown.alerts.as_ref().is_some_and(|alerts| !alerts.is_empty())).then_some(shown)
    })
    .await;
    assert_eq!((shown.ranges_under_replicated, shown.ranges_below_min), (2, 2));
    let alerts = shown.alerts.expect("it is the controller");
    assert_eq!((alerts[0].ring, alerts[0].ranges), (RingId(1), 2));
    assert!(alerts[0].message.contains("node 2"), "{alerts:?}");
    let brokers: BrokersStatus = http.get("/v1/brokers").await.ok();
    assert_eq!(
        (brokers.brokers[1].node, brokers.brokers[1].live, brokers.brokers[1].ranges_member),
        (NodeId(2), false, 2)
    );
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_code() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.http_gateway(4).await;
    let (one, two) = (cluster.node(1, 1).await, cluster.node(2, 1).await);
    cluster.until_ring_acts(1, 1, &[&one, &two]).await;
    let http = Http::of(&gateway);
    let expect = |answer: Answer, status: u16, code: &str| {
        assert_eq!(answer.error(), (status, code.to_owned()), "{answer:?}");
    };
    expect(http.get("/").await, 404, "not_found");
    expect(http.get("/v2/cluster").await, 404, "not_found");
    expect(http.delete("/v1/cluster").await, 405, "method_not_allowed");
    expect(http.get("/v1/rings/9/ranges").await, 404, "unknown_ring");
    expect(http.get("/v1/rings/x/ranges").await, 404, "unknown_ring");
    expect(http.get("/v1/rings/1/ranges?from=x").await, 400, "invalid_request");
    expect(http.get("/v1/rings/1/ranges?form=1").await, 400, "invalid_request");
    expect(http.get("/v1/operations/1").await, 404, "unknown_operation");
    expect(http.delete("/v1/operations/1").await, 404, "unknown_operation");
    expect(http.delete("/v1/operations/%00").await, 404, "unknown_operation");
    for path in ["/v1/plans", "/v1/operations"] {
        expect(http.post_text(path, "application/json", "{").await, 400, "invalid_request");
        expect(http.post_text(path, "application/json", "").await, 400, "invalid_request");
        expect(http.post_text(path, "text/plain", r#"{"drain":1}"#).await, 415, "unsupported_media_type");
        let large = " ".repeat(limits::HTTP_BODY_BYTES_MAX + 1);
        expect(http.post_text(path, "application/json", &large).await, 413, "too_large");
        let to = |ring: u32, range: u32, to: Value| json!({ "move": { "ring": ring, "range": range, "to": to } });
        let bad = [
            (json!({}), 400, "invalid_request"),
            (json!({ "drain": 1, "rebalance": {} }), 400, "invalid_request"),
            (json!({ "drian": 1 }), 400, "invalid_request"),
            (json!({ "drain": "one" }), 400, "invalid_request"),
            (json!({ "rebalance": { "now": true } }), 400, "invalid_request"),
            (json!({ "rebalance": {}, "at_once": 0 }), 400, "invalid_request"),
            (json!({ "rebalance": {}, "at_once": 257 }), 400, "invalid_request"),
            (json!({ "drain": 9 }), 404, "unknown_node"),
            (to(2, 0, json!([1])), 404, "unknown_ring"),
            (to(1, 4, json!([1])), 404, "unknown_range"),
            (to(1, u32::MAX, json!([1])), 404, "unknown_range"),
            (to(1, 0, json!([9])), 404, "unknown_node"),
            (to(1, 0, json!([])), 400, "invalid_request"),
            (to(1, 0, json!([1, 2])), 400, "invalid_request"),
            (to(1, 0, json!([1, 1])), 400, "invalid_request"),
        ];
        for (body, status, code) in bad {
            expect(http.post(path, &body).await, status, code);
        }
    }
    let operations: OperationsStatus = http.get("/v1/operations").await.ok();
    assert!(operations.operations.is_empty(), "nothing of this was begun");
    // What is no HTTP at all is answered and closed, and nobody else notices.
    assert_eq!(http.send("nonsense\r\n\r\n").await.status, 400);
    assert_eq!(http.send(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20))).await.status / 100, 4);
    let health: Health = http.get("/healthz").await.ok();
    assert!(health.ok);
}

#[tokio::test]
async fn a_gateway_that_is_not_the_controller_answers_reads_and_redirects_changes() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.http_gateway(4).await;
    until_controller(&gateway).await;
    let other = cluster.http_gateway(4).await;
    let (one, two) = (cluster.node(1, 1).await, cluster.node(2, 1).await);
    cluster.until_ring_acts(1, 1, &[&one, &two]).await;
    let (http, elected) = (Http::of(&other), Http::of(&gateway));
    let shown = until("the election and the map to be known", || async {
        let shown: ClusterStatus = http.get("/v1/cluster").await.ok();
        (shown.controller.is_some() && shown.brokers == 2).then_some(shown)
    })
    .await;
    let controller = shown.controller.expect("just seen");
    assert_eq!((controller.http, controller.is_this, shown.alerts), (elected.0.to_string(), false, None));
    let ranges: RangesStatus = http.get("/v1/rings/1/ranges").await.ok();
    assert_eq!(ranges.ranges[0].learners, None, "only the controller knows");
    for path in ["/v1/plans", "/v1/operations"] {
        let answer = http.post(path, &json!({ "rebalance": {} })).await;
        assert_eq!(answer.error(), (307, "not_controller".to_owned()));
        assert!(answer.head.contains(&format!("location: http://{}{path}", elected.0)), "{answer:?}");
    }
    assert_eq!(http.delete("/v1/operations/1").await.status, 307);
}

#[tokio::test]
async fn the_slow_and_those_that_stay_for_long_are_closed() {
    let cluster = Cluster::new(1).await;
    let short = Duration::from_millis(100);
    let long = Duration::from_secs(600);
    for deadlines in [
        Deadlines { hello: short, idle: long, ..Deadlines::default() },
        Deadlines { hello: long, idle: short, write: short, ..Deadlines::default() },
    ] {
        let http_listen = Some("127.0.0.1:0".parse().expect("an address"));
        let gateway = Gateway::start(GatewayConfig { http_listen, deadlines, ..cluster.config() }).await;
        let gateway = gateway.expect("a gateway starts");
        let http = Http::of(&gateway);
        for begun in ["", "GET /healthz HTTP/1.1\r\nhost:"] {
            let answer = tokio::time::timeout(PATIENCE, http.send(begun)).await.expect("it is closed");
            assert!([0, 408].contains(&answer.status), "{answer:?}");
        }
        // Kept alive, and then not for ever.
        let answer = http.send("GET /v1/rings HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_unless_http_is_optional() {
    let cluster = Cluster::new(1).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let http_listen = Some(taken.local_addr().expect("it is bound"));
    let refused = Gateway::start(GatewayConfig { http_listen, ..cluster.config() }).await;
    assert!(matches!(refused, Err(GatewayError::Listen { port: "http", .. })), "{refused:?}");
    let config = GatewayConfig { http_listen, http_is_optional: true, ..cluster.config() };
    let gateway = Gateway::start(config).await.expect("it goes on without");
    assert_eq!(gateway.http_address(), None);
}
