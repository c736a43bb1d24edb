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

/// Nodes of two shards each, of which those in `mask` are live.
fn live_of(all: &[Place], mask: u8) -> Vec<Place> {
    all.iter().filter(|place| mask & 1 << place.node.0 != 0).cloned().collect()
}

fn difference(loads: &[usize]) -> usize {
    loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Equal nodes, three of them or more than a chain has members: loads are equal to ±1 for each shard, and chains have
    /// distinct nodes. Where every rack has equally many nodes, this holds with distinct racks too.
    #[test]
    fn equal_nodes_are_level_with_distinct_nodes_and_racks(
        racks in 3usize..=4,
        nodes_per_rack in 1usize..=3,
        shards in 1u16..=4,
        ranges in prop::sample::select(vec![1usize, 16, 64, 100]),
        replication in 1usize..=3,
        with_racks in any::<bool>(),
    ) {
        let names = ["a", "b", "c", "d"];
        let rack = |node: usize| if with_racks { names[node % racks] } else { "" };
        let nodes: Vec<(u16, &str)> = (0..racks * nodes_per_rack).map(|node| (shards, rack(node))).collect();
        let live = cluster(&nodes);
        let chains = propose(&live, replication, &empty(ranges));
        check_chains(&live, replication, &chains);
        prop_assert!(difference(&loads(&live, &chains)) <= 1, "{:?}", loads(&live, &chains));
    }

    /// A node that leaves moves its own places, and at most half as many others, plus one for each shard that is left: those
    /// make room where the shard with the fewest ranges is on a node that the chain has already.
    #[test]
    fn a_leave_moves_little(gone in 0u32..6, mask in any::<u8>(), replication in 1usize..=3) {
        let all = cluster(&[(2, ""); 6]);
        let before_live = live_of(&all, mask | 1 << gone | 0b11_1000);
        let before = propose(&before_live, replication, &empty(64));
        let rest: Vec<Place> = before_live.iter().filter(|place| place.node != NodeId(gone)).cloned().collect();
        prop_assume!(rest.len() / 2 > replication);
        let after = propose(&rest, replication, &before);
        let lost = before.iter().flatten().filter(|(node, _)| *node == NodeId(gone)).count();
        prop_assert!(moved(&before, &after) <= lost + lost / 2 + rest.len(), "{} moved, {} lost", moved(&before, &after), lost);
        prop_assert!(difference(&loads(&rest, &after)) <= 1);
    }

    /// A node that joins takes its share, and nothing else moves.
    #[test]
    fn a_join_moves_only_what_the_newcomer_takes(new in 0u32..6, mask in any::<u8>(), replication in 1usize..=3) {
        let all = cluster(&[(2, ""); 6]);
        let after_live = live_of(&all, mask | 1 << new | 0b11_1000);
        let before_live: Vec<Place> = after_live.iter().filter(|place| place.node != NodeId(new)).cloned().collect();
        prop_assume!(before_live.len() / 2 >= replication);
        let before = propose(&before_live, replication, &empty(64));
        let after = propose(&after_live, replication, &before);
        let taken = after.iter().flatten().filter(|(node, _)| *node == NodeId(new)).count();
        prop_assert_eq!(moved(&before, &after), taken);
        prop_assert!(difference(&loads(&after_live, &after)) <= 1);
    }

    /// The order in which places are named does not matter.
    #[test]
    fn the_same_input_gives_the_same_answer(rotate in 0usize..12, replication in 1usize..=3) {
        let live = cluster(&[(2, "a"), (2, "a"), (2, "b"), (2, "b"), (2, "c"), (2, "c")]);
        let mut turned = live.clone();
        turned.rotate_left(rotate);
        let chains = propose(&live, replication, &empty(64));
        prop_assert_eq!(&propose(&turned, replication, &empty(64)), &chains);
    }

    /// One newcomer for each chain that lost a member: of no node of the chain, of a rack of its own where there is one,
    /// and nodes of equal size end up with equally many ranges to ±1.
    #[test]
    fn newcomers_are_spread(ranges in 1usize..200, spares in 2u32..6, racks in any::<bool>()) {
        let rack = |node: NodeId| if racks { ["a", "b", "c"][node.0 as usize % 3] } else { "" };
        let mut held = vec![0usize; 2 + spares as usize];
        for _ in 0..ranges {
            let rooms: Vec<Room<'_>> = (2..2 + spares)
                .map(|node| Room { node: NodeId(node), rack: rack(NodeId(node)), shards: 2, held: held[node as usize] })
                .collect();
            let chain = [NodeId(0), NodeId(1)];
            let node = newcomer(&rooms, &chain, rack).expect("there are spares");
            prop_assert!(!chain.contains(&node));
            prop_assert!(!racks || rack(node) == "c", "the third rack is there: node 2, and perhaps 5");
            held[node.0 as usize] += 1;
        }
        let equals: Vec<usize> = (2..held.len()).filter(|n| !racks || n % 3 == 2).map(|n| held[n]).collect();
        prop_assert!(difference(&equals) <= 1, "{:?}", held);
    }
}
