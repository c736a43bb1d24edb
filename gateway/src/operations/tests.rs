//! Plans and progress on maps made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minikafka_core::chain::ChainMember;
use minikafka_core::coordination::*;
use minikafka_core::*;

use super::plan::{Plan, plan};
use super::progress::{Advance, advance, waits_for};
use super::*;
use crate::admin::{MoveRequest, RebalanceRequest};
use crate::http::range_states;
use crate::map::At;

/// Live nodes with one shard each, by number and rack.
fn brokers(nodes: &[(u32, &str)]) -> BTreeMap<NodeId, BrokerRecord> {
    let broker = |&(node, rack): &(u32, &str)| BrokerRecord {
        node: NodeId(node),
        shards: vec![format!("node-{node}:1")],
        rack: rack.to_owned(),
        incarnation: Incarnation(node.into()),
        store: StoreId(node.into()),
        version: String::new(),
    };
    nodes.iter().map(broker).map(|broker| (broker.node, broker)).collect()
}

fn active(nodes: &[u32]) -> RangeRecord {
    let member = |&node: &u32| ChainMember {
        node: NodeId(node),
        shard: ShardId(0),
        store: StoreId(node.into()),
        incarnation: Incarnation(node.into()),
    };
    let chain = nodes.iter().map(member).collect();
    RangeRecord { active: Some(ActiveChain { epoch: Epoch(1), chain, start: LogPoint::START }), pending: None }
}

/// Nodes 1 to `live`, and a ring of two copies with these chains.
fn map(live: u32, chains: &[&[u32]]) -> ClusterMap {
    let mut map = ClusterMap {
        brokers: brokers(&(1..=live).map(|node| (node, "")).collect::<Vec<_>>()),
        ..ClusterMap::default()
    };
    set_chains(&mut map, chains);
    map
}

fn set_chains(map: &mut ClusterMap, chains: &[&[u32]]) {
    let record = RingChunk {
        ring: RingId(2),
        replication: 2,
        ranges_total: chains.len() as u32,
        first: RangeId(0),
        ranges: chains.iter().map(|chain| active(chain)).collect(),
    };
    map.chunks.insert((2, 0), Arc::new(At { record, version: KeyVersion(1) }));
}

fn set(map: &mut ClusterMap, record: OperationRecord) {
    map.operations.insert(record.operation, Arc::new(At { record, version: KeyVersion(1) }));
}

fn begin(map: &mut ClusterMap, operation: u64, request: &PlanRequest) -> OperationRecord {
    let Plan { task, at_once, moves } = plan(map, request).expect("it can be done");
    let record = OperationRecord {
        operation: OperationId(operation),
        task,
        state: OperationState::Running,
        at_once,
        began: Timestamp(1),
        ended: None,
        moved_before: 0,
        moves,
    };
    set(map, record.clone());
    record
}

fn drain(node: u32) -> PlanRequest {
    PlanRequest { drain: Some(NodeId(node)), ..PlanRequest::default() }
}

fn rebalance() -> PlanRequest {
    PlanRequest { rebalance: Some(RebalanceRequest::default()), ..PlanRequest::default() }
}

fn move_to(range: u32, to: &[u32]) -> PlanRequest {
    let to = to.iter().copied().map(NodeId).collect();
    let move_range = Some(MoveRequest { ring: RingId(2), range: RangeId(range), to });
    PlanRequest { move_range, ..PlanRequest::default() }
}

fn to(record: &OperationRecord) -> Vec<Vec<u32>> {
    record.moves.iter().map(|wanted| wanted.to.iter().map(|node| node.0).collect()).collect()
}

fn wishes(advance: &Advance) -> Vec<(u32, Vec<u32>)> {
    let wish = |(range, nodes): (&RangeKey, &Vec<NodeId>)| (range.range.0, nodes.iter().map(|node| node.0).collect());
    advance.wishes.iter().map(wish).collect()
}

#[test]
fn a_drain_puts_others_in_the_place_of_the_node_evenly_and_fills_chains() {
    let mut four = map(4, &[&[1, 2], &[2, 1], &[1, 2], &[1]]);
    let record = begin(&mut four, 1, &drain(1));
    assert_eq!(to(&record), [[3, 2], [2, 4], [3, 2], [4, 3]]);
    // Racks are kept apart where that is possible.
    let mut racks = map(0, &[&[1, 2]]);
    racks.brokers = brokers(&[(1, "a"), (2, "b"), (3, "b"), (4, "c")]);
    let record = begin(&mut racks, 1, &drain(1));
    assert_eq!(to(&record), [[4, 2]]);
}

#[test]
fn what_is_moved_or_drained_already_is_not_planned_again() {
    let mut four = map(4, &[&[1, 2], &[3, 4]]);
    begin(&mut four, 7, &move_to(0, &[1, 3]));
    let seven = |refused| match refused {
        OperationError::Moving { operation, range } => (operation.0, range.range.0),
        other => panic!("{other}"),
    };
    assert_eq!(seven(plan(&four, &move_to(0, &[1, 4])).expect_err("it moves")), (7, 0));
    assert_eq!(seven(plan(&four, &drain(2)).expect_err("its range moves")), (7, 0));
    assert_eq!(seven(plan(&four, &drain(3)).expect_err("it is about to get a range")), (7, 0));
    begin(&mut four, 8, &drain(4));
    assert!(matches!(plan(&four, &drain(4)), Err(OperationError::Draining { .. })));
    assert!(matches!(plan(&four, &move_to(0, &[1, 4])), Err(OperationError::Draining { .. })));
    assert!(plan(&four, &move_to(0, &[1, 2])).expect("it is there").moves.is_empty());
}

#[test]
fn a_new_node_gets_its_share_and_nothing_else_moves() {
    let chains: Vec<Vec<u32>> = (0..12u32).map(|range| vec![range % 3 + 1, (range + 1) % 3 + 1]).collect();
    let chains: Vec<&[u32]> = chains.iter().map(Vec::as_slice).collect();
    let mut four = map(4, &chains);
    let record = begin(&mut four, 1, &rebalance());
    let newcomers: Vec<NodeId> = record
        .moves
        .iter()
        .flat_map(|wanted| wanted.to.iter().filter(|node| !wanted.from.contains(node)).copied())
        .collect();
    assert_eq!(newcomers, [NodeId(4); 6], "24 places on four nodes");
    set_chains(&mut four, &[&[1u32, 2][..]; 12]);
    four.brokers.remove(&NodeId(2));
    four.brokers.remove(&NodeId(3));
    four.brokers.remove(&NodeId(4));
    assert!(plan(&four, &rebalance()).expect("a plan").moves.is_empty(), "one node is too few for two copies");
}

#[test]
fn so_many_are_wished_for_in_order_and_those_that_are_done_make_room() {
    let mut three = map(3, &[&[1, 2], &[1, 2], &[1, 2]]);
    begin(&mut three, 1, &PlanRequest { at_once: Some(2), ..drain(1) });
    assert_eq!(wishes(&advance(&three, &BTreeSet::new())), [(0, vec![3, 2]), (1, vec![2, 3])], "heads are spread, too");
    set_chains(&mut three, &[&[3, 2], &[1, 2], &[1, 2]]);
    let next = advance(&three, &BTreeSet::new());
    assert_eq!(wishes(&next), [(1, vec![2, 3]), (2, vec![3, 2])]);
    assert_eq!(next.draining, BTreeSet::from([NodeId(1)]));
    let (record, _) = &next.changed[0];
    assert_eq!((record.moved(), record.state), (1, OperationState::Running));
    // However the node left a chain, that is what was wanted.
    set_chains(&mut three, &[&[2, 3], &[2], &[3, 2]]);
    let end = advance(&three, &BTreeSet::new());
    assert!(end.wishes.is_empty());
    assert_eq!((end.changed[0].0.state, end.changed[0].0.moved()), (OperationState::Done, 3));
}

#[test]
fn a_change_that_is_under_way_is_not_done() {
    let mut three = map(3, &[&[1, 2]]);
    begin(&mut three, 1, &move_to(0, &[3, 2]));
    let pending =
        RangeRecord { pending: Some(PendingChange { epoch: Epoch(2), writer: WriterId(1) }), ..active(&[3, 2]) };
    let chunk = three.chunks.get_mut(&(2, 0)).expect("the ring");
    Arc::get_mut(chunk).expect("nobody else has it").record.ranges[0] = pending;
    assert!(advance(&three, &BTreeSet::new()).changed.is_empty());
}

#[test]
fn a_drain_chooses_another_node_for_one_that_stays_away_and_anything_else_waits() {
    let mut four = map(4, &[&[1, 2], &[1, 2]]);
    let begun = begin(&mut four, 1, &drain(1));
    assert_eq!(to(&begun), [[3, 2], [4, 2]]);
    four.brokers.remove(&NodeId(3));
    let waiting = advance(&four, &BTreeSet::new());
    assert_eq!(wishes(&waiting), [(1, vec![4, 2])], "the one to the node that is away does not hold up the other");
    assert_eq!(waits_for(&four, &begun), BTreeSet::from([NodeId(3)]));
    let chosen = advance(&four, &BTreeSet::from([NodeId(3)]));
    assert_eq!(to(&chosen.changed[0].0), [[4, 2], [4, 2]]);
    let mut four = map(4, &[&[1, 2]]);
    begin(&mut four, 1, &move_to(0, &[3, 4]));
    four.brokers.remove(&NodeId(3));
    let waiting = advance(&four, &BTreeSet::from([NodeId(3)]));
    assert!(waiting.wishes.is_empty() && waiting.changed.is_empty());
}

#[test]
fn a_drain_goes_on_until_the_node_holds_nothing() {
    let mut three = map(3, &[&[1, 2], &[2, 3]]);
    begin(&mut three, 1, &drain(1));
    // A change that had begun before brought it one more.
    set_chains(&mut three, &[&[3, 2], &[2, 1]]);
    let more = advance(&three, &BTreeSet::new());
    let (record, _) = more.changed[0].clone();
    assert_eq!((record.state, record.moved(), record.moves_total()), (OperationState::Running, 1, 2));
    assert_eq!(wishes(&more), [(1, vec![2, 3])]);
    set_chains(&mut three, &[&[3, 2], &[2, 3]]);
    set(&mut three, record);
    let (done, _) = advance(&three, &BTreeSet::new()).changed[0].clone();
    assert_eq!((done.state, done.moved()), (OperationState::Done, 2));
    set(&mut three, done);
    set_chains(&mut three, &[&[1, 2], &[2, 3]]);
    let again = advance(&three, &BTreeSet::new());
    assert_eq!((again.changed[0].0.state, wishes(&again)), (OperationState::Running, vec![(0, vec![3, 2])]));
}

#[test]
fn an_aborted_operation_wishes_for_nothing_and_the_older_of_two_goes_first() {
    let mut four = map(4, &[&[1, 2]]);
    let mut first = begin(&mut four, 1, &move_to(0, &[1, 3]));
    // Two controllers that did not know of each other.
    let mut second = first.clone();
    (second.operation, second.moves[0].to) = (OperationId(2), vec![NodeId(1), NodeId(4)]);
    set(&mut four, second);
    assert_eq!(wishes(&advance(&four, &BTreeSet::new())), [(0, vec![1, 3])]);
    first.state = OperationState::Aborted;
    set(&mut four, first);
    assert_eq!(wishes(&advance(&four, &BTreeSet::new())), [(0, vec![1, 4])]);
}

/// A chain that has the process before says nothing of the one that came after it: what it missed it has not copied yet.
#[test]
fn a_node_that_started_again_is_no_member_until_its_chain_has_it_again() {
    let mut map = map(2, &[&[1, 2]]);
    let is_under_replicated = |map: &ClusterMap| range_states(map).any(|range| range.is_under_replicated);
    assert!(!is_under_replicated(&map));
    map.brokers.get_mut(&NodeId(2)).expect("it is live").incarnation = Incarnation(20);
    assert!(is_under_replicated(&map));
}
