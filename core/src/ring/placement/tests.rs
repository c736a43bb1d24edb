//! Placement: right chains, level loads, little movement, over any history of joins and leaves.

use proptest::prelude::*;

use super::*;

/// Shards of `nodes`: each (number of shards, rack).
fn cluster(nodes: &[(u16, &str)]) -> Vec<Place> {
    let places = nodes.iter().zip(0..).flat_map(|(&(shards, rack), node)| {
        (0..shards).map(move |shard| Place { node: NodeId(node), shard: ShardId(shard), rack: rack.to_owned() })
    });
    places.collect()
}

fn loads(live: &[Place], chains: &[Vec<PlaceName>]) -> Vec<usize> {
    let load = |place: &Place| chains.iter().flatten().filter(|name| **name == (place.node, place.shard)).count();
    live.iter().map(load).collect()
}

/// Places of `after` that were not there before.
fn moved(before: &[Vec<PlaceName>], after: &[Vec<PlaceName>]) -> usize {
    let new =
        |(before, after): (&Vec<PlaceName>, &Vec<PlaceName>)| after.iter().filter(|n| !before.contains(n)).count();
    before.iter().zip(after).map(new).sum()
}

fn check_chains(live: &[Place], replication: usize, chains: &[Vec<PlaceName>]) {
    let nodes: BTreeSet<NodeId> = live.iter().map(|place| place.node).collect();
    let rack = |node: NodeId| match live.iter().find(|place| place.node == node).map(|place| place.rack.as_str()) {
        Some("") | None => format!("node {node}"),
        Some(rack) => rack.to_owned(),
    };
    let racks: BTreeSet<String> = nodes.iter().map(|node| rack(*node)).collect();
    for chain in chains {
        assert_eq!(chain.len(), replication.min(nodes.len()), "a chain is as long as it can be");
        let distinct: BTreeSet<NodeId> = chain.iter().map(|(node, _)| *node).collect();
        assert_eq!(distinct.len(), chain.len(), "one node twice in {chain:?}");
        let distinct: BTreeSet<String> = chain.iter().map(|(node, _)| rack(*node)).collect();
        assert!(racks.len() < replication || distinct.len() == chain.len(), "one rack twice in {chain:?}");
    }
}

fn empty(ranges: usize) -> Vec<Vec<PlaceName>> {
    vec![Vec::new(); ranges]
}

#[test]
fn one_node_spreads_ranges_over_its_shards_in_turn() {
    let chains = propose(&cluster(&[(4, "")]), 1, &empty(256));
    for (range, chain) in chains.iter().enumerate() {
        assert_eq!(chain, &[(NodeId(0), ShardId(range as u16 % 4))]);
    }
}

#[test]
fn equal_nodes_hold_equally_many_ranges_and_heads() {
    for replication in 1..=3 {
        let live = cluster(&[(3, ""), (3, ""), (3, ""), (3, "")]);
        let chains = propose(&live, replication, &empty(256));
        let loads = loads(&live, &chains);
        let (low, high) = (256 * replication / 12, (256 * replication).div_ceil(12));
        assert!(loads.iter().all(|load| (low..=high).contains(load)), "R={replication}: {loads:?}");
        let heads = live.iter().map(|p| chains.iter().filter(|c| c[0] == (p.node, p.shard)).count());
        assert!(heads.clone().max() <= heads.min().map(|least| least + 2), "R={replication}: heads are uneven");
    }
}

#[test]
fn racks_are_kept_apart_where_there_are_enough() {
    let live = cluster(&[(2, "a"), (2, "a"), (2, "b"), (2, "b"), (2, "c"), (2, "c")]);
    let chains = propose(&live, 3, &empty(64));
    check_chains(&live, 3, &chains);
    let loads = loads(&live, &chains);
    assert!(loads.iter().all(|load| *load == 16), "{loads:?}");
}

#[test]
fn no_live_shard_gives_empty_chains() {
    assert_eq!(propose(&[], 3, &empty(4)), empty(4));
}

#[test]
fn a_leaving_node_moves_only_what_it_held() {
    for replication in 1..=3 {
        let all = cluster(&[(2, ""), (2, ""), (2, ""), (2, ""), (2, "")]);
        let before = propose(&all, replication, &empty(256));
        let rest: Vec<Place> = all.iter().filter(|place| place.node != NodeId(2)).cloned().collect();
        let after = propose(&rest, replication, &before);
        let lost = before.iter().flatten().filter(|(node, _)| *node == NodeId(2)).count();
        check_chains(&rest, replication, &after);
        // One place may have to make room where the only idle shard is in the chain already.
        assert!(moved(&before, &after) <= lost + lost / 10, "R={replication}: {lost} lost");
    }
}

#[test]
fn a_joining_node_moves_only_what_it_takes() {
    for replication in 1..=3 {
        let all = cluster(&[(2, ""), (2, ""), (2, ""), (2, ""), (2, "")]);
        let four: Vec<Place> = all.iter().filter(|place| place.node != NodeId(4)).cloned().collect();
        let before = propose(&four, replication, &empty(256));
        let after = propose(&all, replication, &before);
        let taken = after.iter().flatten().filter(|(node, _)| *node == NodeId(4)).count();
        check_chains(&all, replication, &after);
        assert_eq!(moved(&before, &after), taken, "R={replication}");
        assert!(taken.abs_diff(256 * replication / 5) <= 2, "R={replication}: it takes its share, {taken}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever comes and goes: chains are right, quotas are met to ±1 where no bound interferes, and what is balanced
    /// stays as it is.
    #[test]
    fn any_history_stays_right_balanced_and_stable(
        shards in prop::collection::vec(1u16..4, 1..7),
        racks in prop::collection::vec(0usize..4, 7),
        steps in prop::collection::vec(any::<u8>(), 1..5),
        replication in 1usize..=3,
    ) {
        let names = ["", "a", "b", "c"];
        let nodes: Vec<(u16, &str)> = shards.iter().zip(&racks).map(|(&n, &rack)| (n, names[rack])).collect();
        let all = cluster(&nodes);
        let mut chains = empty(64);
        for step in steps {
            let lives = |place: &&Place| step & 1 << place.node.0 == 0;
            let live: Vec<Place> = all.iter().filter(lives).cloned().collect();
            chains = propose(&live, replication, &chains);
            check_chains(&live, replication, &chains);
            let again = propose(&live, replication, &chains);
            prop_assert_eq!(&again, &chains, "a balanced ring moved");
        }
    }

    /// Without racks and with equally large nodes, loads differ by at most one after any history.
    #[test]
    fn equal_nodes_stay_level(steps in prop::collection::vec(1u8..64, 1..6), replication in 1usize..=3) {
        let all = cluster(&[(2, ""); 6]);
        let mut chains = empty(100);
        for step in steps {
            let live: Vec<Place> = all.iter().filter(|place| step & 1 << place.node.0 != 0).cloned().collect();
            chains = propose(&live, replication, &chains);
            let loads = loads(&live, &chains);
            prop_assert!(loads.iter().max() <= loads.iter().min().map(|least| least + 1).as_ref(), "{:?}", loads);
        }
    }
}
