//! Who should have what: a pure function, sticky and balanced.
//!
//! 1. Whoever has a partition and still wants its topic keeps it.
//! 2. What nobody has goes, topic by topic, the least wanted first, to whoever wants it and has least.
//! 3. While a member has two more than another one to whom a partition can be handed on, directly or over others who then
//!    hand on one of theirs, that is done: the most loaded first, the shortest way to the least loaded.
//!
//! With equal subscriptions that gives everybody the same to within one, and no more is moved than that takes. With
//! different ones it ends where nothing is left to hand on (an optimal semi-matching, Harvey and others, "Semi-matchings for
//! bipartite graphs and load balancing", 2006). Ties go by member id, so equal questions have equal answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::*;
use crate::limits::ASSIGNMENT_WORK_MAX;

/// Whose each partition should be.
pub type Assignment = BTreeMap<PartitionKey, MemberId>;

/// A member that may have partitions.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who.
    pub member: MemberId,
    /// What it wants to read.
    pub topics: BTreeSet<TopicId>,
    /// Whether it may get what it does not have: not one that was not heard yet.
    pub takes: bool,
}

/// Computes who should have what.
///
/// `topics` has the number of partitions of each. `current` is whose each partition is now. Unless `moves`, nobody loses
/// what it has and wants.
pub fn assign(
    candidates: impl IntoIterator<Item = Candidate>,
    topics: &BTreeMap<TopicId, u32>,
    current: impl IntoIterator<Item = (PartitionKey, MemberId)>,
    moves: bool,
) -> Assignment {
    let mut shares = Shares::new(candidates, topics, current);
    shares.give_away_free();
    if moves {
        if shares.wants_are_equal() {
            let everybody = (0..shares.members.len()).collect();
            shares.level(everybody);
        } else {
            shares.hand_on();
            shares.level_equals();
        }
    }
    shares.into_assignment()
}

/// What each member has while it is worked out.
struct Shares {
    /// By id.
    members: Vec<Share>,
    /// Subscribers of each topic that is wanted by somebody, by place in `members`.
    subscribers: BTreeMap<TopicId, Vec<usize>>,
    /// Partitions that nobody has.
    free: BTreeMap<TopicId, Vec<Partition>>,
    /// Subscriptions that may still be looked at.
    work_left: usize,
}

struct Share {
    member: MemberId,
    wants: BTreeSet<TopicId>,
    takes: bool,
    /// By partition first: what is taken from the end is spread over topics.
    has: BTreeSet<(Partition, TopicId)>,
}

impl Share {
    fn load(&self) -> usize {
        self.has.len()
    }
}

impl Shares {
    fn new(
        candidates: impl IntoIterator<Item = Candidate>,
        topics: &BTreeMap<TopicId, u32>,
        current: impl IntoIterator<Item = (PartitionKey, MemberId)>,
    ) -> Self {
        let share = |Candidate { member, topics: mut wants, takes }: Candidate| {
            wants.retain(|topic| topics.contains_key(topic));
            Share { member, wants, takes, has: BTreeSet::new() }
        };
        let mut members: Vec<Share> = candidates.into_iter().map(share).collect();
        members.sort_by_key(|share| share.member);
        let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (place, share) in members.iter().enumerate() {
            share.wants.iter().for_each(|topic| subscribers.entry(*topic).or_default().push(place));
        }
        let mut kept: BTreeSet<PartitionKey> = BTreeSet::new();
        for (key, member) in current {
            let PartitionKey { topic, partition } = key;
            let exists = topics.get(&topic).is_some_and(|partitions| partition.0 < *partitions);
            let Ok(place) = members.binary_search_by_key(&member, |share| share.member) else { continue };
            if exists && members[place].wants.contains(&topic) && kept.insert(key) {
                members[place].has.insert((partition, topic));
            }
        }
        let is_free = |topic: TopicId| {
            let kept = &kept;
            move |partition: &Partition| !kept.contains(&PartitionKey { topic, partition: *partition })
        };
        let free_of = |topic: &TopicId| {
            let partitions = topics.get(topic).copied().unwrap_or_default();
            (*topic, (0..partitions).map(Partition).filter(is_free(*topic)).collect())
        };
        let free = subscribers.keys().map(free_of).collect();
        Self { members, subscribers, free, work_left: ASSIGNMENT_WORK_MAX }
    }

    /// What nobody has goes to whoever has least: topics that few want first, because others have a choice.
    fn give_away_free(&mut self) {
        let mut topics: Vec<TopicId> = self.free.keys().copied().collect();
        topics.sort_by_key(|topic| (self.subscribers[topic].len(), *topic));
        for topic in topics {
            let takers = self.subscribers[&topic].iter().copied().filter(|place| self.members[*place].takes);
            let mut by_load: BTreeSet<(usize, usize)> =
                takers.map(|place| (self.members[place].load(), place)).collect();
            for partition in self.free.remove(&topic).unwrap_or_default() {
                let Some((load, place)) = by_load.pop_first() else { break };
                self.members[place].has.insert((partition, topic));
                by_load.insert((load + 1, place));
            }
        }
    }

    fn wants_are_equal(&self) -> bool {
        self.members.windows(2).all(|pair| pair[0].wants == pair[1].wants)
    }

    /// Among members that want the same: from who has most to who has least.
    fn level(&mut self, places: Vec<usize>) {
        let mut by_load: BTreeSet<(usize, usize)> =
            places.into_iter().map(|place| (self.members[place].load(), place)).collect();
        // Of equals, the last gives and the first gets.
        while let (Some(&(least, to)), Some(&(most, from))) = (by_load.first(), by_load.last())
            && most >= least + 2
        {
            let Some(moved) = self.members[from].has.pop_last() else { break };
            self.members[to].has.insert(moved);
            by_load.remove(&(least, to));
            by_load.remove(&(most, from));
            by_load.insert((least + 1, to));
            by_load.insert((most - 1, from));
        }
    }

    /// The same for all that want the same, however far [`Self::hand_on`] came.
    fn level_equals(&mut self) {
        let mut equals: BTreeMap<&BTreeSet<TopicId>, Vec<usize>> = BTreeMap::new();
        for (place, share) in self.members.iter().enumerate() {
            equals.entry(&share.wants).or_default().push(place);
        }
        let equals: Vec<Vec<usize>> = equals.into_values().collect();
        equals.into_iter().for_each(|places| self.level(places));
    }

    /// From who has most, over as few as possible, to who has least.
    fn hand_on(&mut self) {
        let mut by_load: BTreeSet<(usize, usize)> =
            self.members.iter().enumerate().map(|(place, share)| (share.load(), place)).collect();
        // Whoever has nobody to hand on to has none later either: all whom it reaches have nearly as much as it has, so no
        // later way leads through any of them.
        while let Some((load, from)) = by_load.pop_last() {
            let Some(way) = self.way_down(from, load) else {
                if self.work_left == 0 {
                    return;
                }
                continue;
            };
            let Some(&(_, to)) = way.last() else { continue };
            let before = self.members[to].load();
            self.pass_along(from, &way);
            by_load.insert((load - 1, from));
            if by_load.remove(&(before, to)) {
                by_load.insert((before + 1, to));
            }
        }
    }

    /// The shortest way from a member to one that has at least two less, the least loaded of those at that distance: topics
    /// and who gets one of each.
    fn way_down(&mut self, from: usize, load: usize) -> Option<Vec<(TopicId, usize)>> {
        let mut came_from: BTreeMap<usize, (usize, TopicId)> = BTreeMap::new();
        let mut seen_topics: BTreeSet<TopicId> = BTreeSet::new();
        let mut border = VecDeque::from([from]);
        while !border.is_empty() {
            let mut next = VecDeque::new();
            for place in border {
                let topics: BTreeSet<TopicId> = self.members[place].has.iter().map(|(_, topic)| *topic).collect();
                for topic in topics {
                    if !seen_topics.insert(topic) {
                        continue;
                    }
                    for &other in &self.subscribers[&topic] {
                        self.work_left = self.work_left.saturating_sub(1);
                        if other != from && self.members[other].takes && !came_from.contains_key(&other) {
                            came_from.insert(other, (place, topic));
                            next.push_back(other);
                        }
                    }
                }
            }
            if self.work_left == 0 {
                return None;
            }
            let least = next.iter().copied().min_by_key(|place| (self.members[*place].load(), *place));
            if let Some(to) = least.filter(|place| self.members[*place].load() + 2 <= load) {
                return Some(way_back(&came_from, from, to));
            }
            border = next;
        }
        None
    }

    fn pass_along(&mut self, from: usize, way: &[(TopicId, usize)]) {
        let mut giver = from;
        let mut moves = Vec::new();
        for &(topic, taker) in way {
            moves.push((giver, topic, taker));
            giver = taker;
        }
        // The last one first: nobody hands on what it has just got.
        for (giver, topic, taker) in moves.into_iter().rev() {
            let last = self.members[giver].has.iter().rev().find(|(_, of)| *of == topic).copied();
            let Some(moved) = last else { continue };
            self.members[giver].has.remove(&moved);
            self.members[taker].has.insert(moved);
        }
    }

    fn into_assignment(self) -> Assignment {
        let of = |share: Share| {
            let member = share.member;
            share.has.into_iter().map(move |(partition, topic)| (PartitionKey { topic, partition }, member))
        };
        self.members.into_iter().flat_map(of).collect()
    }
}

fn way_back(came_from: &BTreeMap<usize, (usize, TopicId)>, from: usize, to: usize) -> Vec<(TopicId, usize)> {
    let mut way = Vec::new();
    let mut at = to;
    while at != from
        && let Some(&(before, topic)) = came_from.get(&at)
    {
        way.push((topic, at));
        at = before;
    }
    way.reverse();
    way
}

#[cfg(test)]
mod tests;
