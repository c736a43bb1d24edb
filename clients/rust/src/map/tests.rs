//! What is computed from a map, and that it never goes back.

use minikafka_core::topic::{TopicConfig, TopicState};
use minikafka_core::wire::{ChainPlace, NodeAddress, Placement, RangeChain};
use minikafka_core::{ErrorCode, ShardId};

use super::*;

fn reply(epoch: u64, head: u32) -> ResolveReply {
    let chain = RangeChain { epoch: Epoch(epoch), places: vec![ChainPlace { node: NodeId(head), shard: ShardId(1) }] };
    let node = |node| NodeAddress {
        node: NodeId(node),
        rack: String::new(),
        shards: vec![format!("n{node}:0"), format!("n{node}:1")],
    };
    ResolveReply {
        cluster: ClusterId(9),
        internal_ring: RingId(3),
        nodes: vec![node(1), node(2)],
        rings: vec![RingMap { ring: RingId(3), replication: 3, chains: vec![chain; 4] }],
        topics: vec![TopicDescription {
            name: "orders".into(),
            error: None,
            topic: TopicId(1 << 62),
            partitions: 4,
            ring: RingId(3),
            state: TopicState::Ready,
            config: TopicConfig::default(),
            placement: vec![Placement { partition: Partition(2), range: RangeId(3) }],
        }],
    }
}

#[test]
fn a_partition_leads_to_the_head_of_its_range() {
    let map = ClusterMap::default().succeeded_by(reply(5, 1)).expect("a good reply");
    let topic = map.topic("orders").expect("just resolved");
    let range = |partition| map.range_of(topic, Partition(partition)).expect("the ring is known");
    assert_eq!(range(0), RangeKey { ring: RingId(3), range: RangeId(1) }, "by its token");
    assert_eq!(range(2), RangeKey { ring: RingId(3), range: RangeId(3) }, "by its placement");
    assert_eq!(map.owner_of(range(0)), Some(RangeOwner { address: "n1:1".into(), epoch: Epoch(5) }));
    assert_eq!(map.owner_of(RangeKey { ring: RingId(3), range: RangeId(4) }), None);
    assert!(map.topic_by_id(TopicId(1 << 62)).is_some());
}

#[test]
fn a_lagging_gateway_does_not_take_the_map_back() {
    let map = ClusterMap::default().succeeded_by(reply(5, 1)).expect("a good reply");
    let range = RangeKey { ring: RingId(3), range: RangeId(0) };
    let older = map.succeeded_by(reply(4, 2)).expect("a good reply");
    assert_eq!((older.version(), older.epoch_of(range)), (2, Epoch(5)));
    let newer = older.succeeded_by(reply(6, 2)).expect("a good reply");
    assert_eq!(newer.owner_of(range), Some(RangeOwner { address: "n2:1".into(), epoch: Epoch(6) }));
}

#[test]
fn replies_that_would_break_the_arithmetic_are_refused() {
    let refused = |change: fn(&mut ResolveReply)| {
        let mut bad = reply(1, 1);
        change(&mut bad);
        ClusterMap::default().succeeded_by(bad).is_err()
    };
    assert!(refused(|reply| drop(reply.rings[0].chains.pop())));
    assert!(refused(|reply| reply.rings[0].chains.clear()));
    assert!(refused(|reply| reply.topics[0].partitions = 0));
    assert!(refused(|reply| reply.topics[0].placement[0].range = RangeId(4)));
    assert!(!refused(|reply| {
        reply.topics[0].partitions = 0;
        reply.topics[0].error = Some(ErrorCode::UnknownTopic);
    }));
}
