//! Who should hold which range: a balanced assignment of chains that moves as little as it can.
//!
//! Promise: every chain has members on distinct nodes (distinct racks where there are enough of them), shards hold
//! equally many ranges to ±1 as far as distinctness allows, what is held stays unless balance needs it elsewhere, and
//! the same input gives the same answer everywhere. It only proposes: the record in the coordinator decides.
//!
//! It is a flow problem: shards give as many places as their quota says, ranges take `replication` of them. Vacant
//! places are filled, then surplus moves to shards below their quota, each along a shortest augmenting path (Ford and
//! Fulkerson), so a place moves only where another one gets right by it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::*;

/// A shard that may hold ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its node.
    pub node: NodeId,
    /// The shard.
    pub shard: ShardId,
    /// Where the node stands; empty: nobody said, then each such node counts as a rack of its own.
    pub rack: String,
}

/// A shard by name.
pub type PlaceName = (NodeId, ShardId);

/// Proposes a chain, head first, for each range. `current[r]` is what range r has now (empty: nothing); places that are
/// not in `live` are replaced. Chains are shorter than `replication` only when there are fewer live nodes.
pub fn propose(live: &[Place], replication: usize, current: &[Vec<PlaceName>]) -> Vec<Vec<PlaceName>> {
    let mut plan = Plan::new(live, replication, current);
    plan.fill_vacancies();
    plan.level();
    plan.into_chains(current)
}

/// A node that one more range could go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room<'a> {
    /// The node.
    pub node: NodeId,
    /// Where it stands; empty: nobody said.
    pub rack: &'a str,
    /// How many shards it has.
    pub shards: usize,
    /// Ranges that it holds, or is learning.
    pub held: usize,
}

/// Who should join a chain that lacks a member, without moving anything else: not of its nodes, of a rack of its own if
/// there is one, and then the node with the fewest ranges for each of its shards. `rack` tells those of the chain.
pub fn newcomer<'a>(rooms: &[Room<'_>], chain: &[NodeId], rack: impl Fn(NodeId) -> &'a str) -> Option<NodeId> {
    let is_taken = |room: &Room<'_>| !room.rack.is_empty() && chain.iter().any(|node| rack(*node) == room.rack);
    let load = |a: &Room<'_>, b: &Room<'_>| (a.held * b.shards).cmp(&(b.held * a.shards));
    let order = |a: &&Room<'_>, b: &&Room<'_>| {
        is_taken(a).cmp(&is_taken(b)).then_with(|| load(a, b)).then_with(|| a.node.cmp(&b.node))
    };
    rooms.iter().filter(|room| room.shards > 0 && !chain.contains(&room.node)).min_by(order).map(|room| room.node)
}

/// Shards and ranges are numbered here; `usize` are positions in `names` and `chains`.
struct Plan {
    names: Vec<PlaceName>,
    /// Two shards of one group never share a chain.
    groups: Vec<usize>,
    quota: Vec<usize>,
    held: Vec<BTreeSet<usize>>,
    /// Members of each range's chain, unordered.
    chains: Vec<Vec<usize>>,
    chain_len: usize,
}

/// A step of an augmenting path: `giver` leaves `range`, so that somebody else's need is met.
#[derive(Clone, Copy)]
struct Step {
    giver: usize,
    range: usize,
}

impl Plan {
    fn new(live: &[Place], replication: usize, current: &[Vec<PlaceName>]) -> Self {
        let mut sorted: Vec<&Place> = live.iter().collect();
        sorted.sort_by_key(|place| (place.shard, place.node));
        sorted.dedup_by_key(|place| (place.shard, place.node));
        let names: Vec<PlaceName> = sorted.iter().map(|place| (place.node, place.shard)).collect();
        let (groups, groups_total) = group(&sorted, replication);
        let shards = names.len();
        let mut plan = Self {
            names,
            groups,
            quota: Vec::new(),
            held: vec![BTreeSet::new(); shards],
            chains: vec![Vec::new(); current.len()],
            chain_len: replication.min(groups_total),
        };
        plan.keep(current);
        plan.quota = plan.quotas(groups_total);
        plan
    }

    /// Takes over what may stay.
    fn keep(&mut self, current: &[Vec<PlaceName>]) {
        let numbers: BTreeMap<PlaceName, usize> = self.names.iter().copied().zip(0..).collect();
        for (range, chain) in current.iter().enumerate() {
            for shard in chain.iter().filter_map(|name| numbers.get(name).copied()) {
                if self.chains[range].len() < self.chain_len && self.fits(shard, range, None) {
                    self.put(shard, range);
                }
            }
        }
    }

    /// How many ranges each shard should hold: equal to ±1, but a group holds no range twice. Who holds more now gets
    /// the larger share.
    fn quotas(&self, groups_total: usize) -> Vec<usize> {
        let ranges = self.chains.len();
        let mut quota = vec![0; self.names.len()];
        let mut group_sum = vec![0; groups_total];
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_by_key(|&shard| (std::cmp::Reverse(self.held[shard].len()), shard));
        let mut left = ranges * self.chain_len;
        // Each round raises every shard that still may by one level; rounds end because `chain_len` groups can take all.
        while left > 0 {
            let open = |shard: &&usize| group_sum[self.groups[**shard]] < ranges;
            let rising = order.iter().filter(open).count();
            assert!(rising > 0, "groups can take {ranges} ranges each, yet {left} places find none");
            let whole = self.whole_levels(left, ranges, &group_sum);
            for &shard in &order {
                let sum = &mut group_sum[self.groups[shard]];
                let share = whole.max(1).min(ranges - *sum).min(left);
                quota[shard] += share;
                *sum += share;
                left -= share;
            }
        }
        quota
    }

    /// Levels that all shards of open groups can rise by without any bound being touched.
    fn whole_levels(&self, left: usize, ranges: usize, group_sum: &[usize]) -> usize {
        let mut open = vec![0; group_sum.len()];
        self.groups.iter().filter(|&&group| group_sum[group] < ranges).for_each(|&group| open[group] += 1);
        let rising: usize = open.iter().sum();
        let room =
            open.iter().zip(group_sum).filter(|(shards, _)| **shards > 0).map(|(n, sum)| (ranges - sum) / n).min();
        (left / rising.max(1)).min(room.unwrap_or(0))
    }

    fn fill_vacancies(&mut self) {
        for range in 0..self.chains.len() {
            while self.chains[range].len() < self.chain_len {
                let first = (0..self.names.len()).filter(|&shard| self.fits(shard, range, None)).collect();
                let path = self.search(first, |plan, shard| plan.held[shard].len() < plan.quota[shard]);
                self.follow(path.expect("quotas add up to all places, so some shard can give one"), Some(range));
            }
        }
    }

    /// Moves surplus to shards below their quota until there is none.
    fn level(&mut self) {
        for needy in 0..self.names.len() {
            while self.held[needy].len() < self.quota[needy] {
                // Backwards: who may leave which range to `needy`, until one is found that has too many.
                let path = self.search_surplus(needy);
                let Some(path) = path else { break };
                self.follow_surplus(needy, path);
            }
        }
    }

    /// Whether `shard` may join `range` once `leaving` has left it.
    fn fits(&self, shard: usize, range: usize, leaving: Option<usize>) -> bool {
        let others = self.chains[range].iter().filter(|member| Some(**member) != leaving);
        others.into_iter().all(|&member| self.groups[member] != self.groups[shard])
    }

    fn put(&mut self, shard: usize, range: usize) {
        self.chains[range].push(shard);
        self.held[shard].insert(range);
    }

    fn take(&mut self, shard: usize, range: usize) {
        self.chains[range].retain(|member| *member != shard);
        self.held[shard].remove(&range);
    }

    /// Breadth first from shards that could meet a need: a shard that is `done` meets it at once, any other leaves one
    /// of its ranges to a shard that takes its place there. The path begins with the shard that meets the need.
    fn search(&self, first: Vec<usize>, done: impl Fn(&Self, usize) -> bool) -> Option<Vec<(usize, Option<Step>)>> {
        let mut from: Vec<Option<Option<Step>>> = vec![None; self.names.len()];
        let mut queue: VecDeque<usize> = self.neediest_first(first).into();
        queue.iter().for_each(|&shard| from[shard] = Some(None));
        while let Some(shard) = queue.pop_front() {
            if done(self, shard) {
                return Some(trace(&from, shard));
            }
            for &range in &self.held[shard] {
                let step = Step { giver: shard, range };
                let next = (0..self.names.len()).filter(|&n| from[n].is_none() && self.fits(n, range, Some(shard)));
                for n in self.neediest_first(next.collect()) {
                    from[n] = Some(Some(step));
                    queue.push_back(n);
                }
            }
        }
        None
    }

    /// The same for a surplus: from the shards that have too many, over the ranges they could leave, to `needy`.
    fn search_surplus(&self, needy: usize) -> Option<Vec<(usize, Option<Step>)>> {
        let first = (0..self.names.len()).filter(|&shard| self.held[shard].len() > self.quota[shard]).collect();
        self.search(first, |_, shard| shard == needy)
    }

    fn neediest_first(&self, mut shards: Vec<usize>) -> Vec<usize> {
        shards.sort_by_key(|&shard| (self.held[shard].len() as i64 - self.quota[shard] as i64, shard));
        shards
    }

    /// Carries a path out: each shard takes the place its predecessor on the path leaves; the first one takes `vacancy`.
    fn follow(&mut self, path: Vec<(usize, Option<Step>)>, vacancy: Option<usize>) {
        for &(taker, step) in &path {
            match step {
                Some(step) => {
                    self.take(step.giver, step.range);
                    self.put(taker, step.range);
                }
                None => {
                    if let Some(range) = vacancy {
                        self.put(taker, range);
                    }
                }
            }
        }
    }

    fn follow_surplus(&mut self, needy: usize, path: Vec<(usize, Option<Step>)>) {
        assert!(path.last().is_some_and(|(taker, _)| *taker == needy), "a surplus path ends at the shard in need");
        self.follow(path, None);
    }

    /// Orders each chain: who was there keeps the order, newcomers follow; then heads are spread, because a head works
    /// more than the others do.
    fn into_chains(self, current: &[Vec<PlaceName>]) -> Vec<Vec<PlaceName>> {
        let mut heads = vec![0usize; self.names.len()];
        let mut ordered = self.chains.clone();
        for (chain, current) in ordered.iter_mut().zip(current) {
            let place_now = |shard: &usize| current.iter().position(|name| *name == self.names[*shard]);
            chain.sort_by_key(|shard| (place_now(shard).unwrap_or(usize::MAX), *shard));
            if let Some(&head) = chain.first() {
                heads[head] += 1;
            }
        }
        let mut changed = true;
        while changed {
            changed = false;
            for chain in &mut ordered {
                let Some((at, &idlest)) = chain.iter().enumerate().min_by_key(|(at, shard)| (heads[**shard], *at))
                else {
                    continue;
                };
                if heads[chain[0]] > heads[idlest] + 1 {
                    heads[chain[0]] -= 1;
                    heads[idlest] += 1;
                    chain[..=at].rotate_right(1);
                    changed = true;
                }
            }
        }
        ordered.iter().map(|chain| chain.iter().map(|&shard| self.names[shard]).collect()).collect()
    }
}

/// The way from a first shard to `end`, first shard first.
fn trace(from: &[Option<Option<Step>>], end: usize) -> Vec<(usize, Option<Step>)> {
    let mut path = Vec::new();
    let mut at = Some(end);
    while let Some(shard) = at {
        let step = from[shard].expect("every shard on a path was reached from somewhere");
        path.push((shard, step));
        at = step.map(|step| step.giver);
    }
    path.reverse();
    path
}

/// Numbers the groups within which places must not share a chain: racks where there are enough, else nodes.
fn group(places: &[&Place], replication: usize) -> (Vec<usize>, usize) {
    let number = |keys: Vec<(bool, NodeId, &str)>| {
        let distinct: BTreeSet<_> = keys.iter().copied().collect();
        let numbers: BTreeMap<_, usize> = distinct.into_iter().zip(0..).collect();
        (keys.iter().map(|key| numbers[key]).collect::<Vec<_>>(), numbers.len())
    };
    let rack_of = |place: &&Place| match place.rack.is_empty() {
        true => (false, place.node),
        false => (true, NodeId(0)),
    };
    let by_rack = number(places.iter().map(|p| (rack_of(p).0, rack_of(p).1, p.rack.as_str())).collect());
    if by_rack.1 >= replication {
        return by_rack;
    }
    number(places.iter().map(|place| (false, place.node, "")).collect())
}

#[cfg(test)]
mod tests;
