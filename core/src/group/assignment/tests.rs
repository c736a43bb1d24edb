//! What an assignment promises, for any members, subscriptions and owners.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

/// A question: members with what they want, topics, and whose each partition is now.
#[derive(Clone, Debug)]
struct Question {
    wants: BTreeMap<u64, BTreeSet<u64>>,
    topics: BTreeMap<TopicId, u32>,
    current: Assignment,
}

fn key(topic: u64, partition: u32) -> PartitionKey {
    PartitionKey { topic: TopicId(topic), partition: Partition(partition) }
}

fn candidates(wants: &BTreeMap<u64, BTreeSet<u64>>) -> Vec<Candidate> {
    let candidate = |(member, topics): (&u64, &BTreeSet<u64>)| Candidate {
        member: MemberId(*member),
        topics: topics.iter().copied().map(TopicId).collect(),
        takes: true,
    };
    wants.iter().map(candidate).collect()
}

impl Question {
    fn answer(&self) -> Assignment {
        assign(candidates(&self.wants), &self.topics, self.current.clone(), true)
    }

    /// The same members and topics, where everybody has what the answer says.
    fn after(&self, answer: Assignment) -> Self {
        Self { current: answer, ..self.clone() }
    }

    fn wants(&self, member: MemberId, topic: TopicId) -> bool {
        self.wants.get(&member.0).is_some_and(|wants| wants.contains(&topic.0))
    }

    fn loads(&self, answer: &Assignment) -> BTreeMap<u64, usize> {
        let mut loads: BTreeMap<u64, usize> = self.wants.keys().map(|member| (*member, 0)).collect();
        answer.values().for_each(|member| *loads.get_mut(&member.0).expect("a candidate") += 1);
        loads
    }

    /// What is kept by rule 1.
    fn kept(&self) -> Assignment {
        let kept = |(key, member): (&PartitionKey, &MemberId)| {
            let exists = self.topics.get(&key.topic).is_some_and(|partitions| key.partition.0 < *partitions);
            (exists && self.wants(*member, key.topic)).then_some((*key, *member))
        };
        self.current.iter().filter_map(kept).collect()
    }

    fn moved(&self, answer: &Assignment) -> usize {
        self.kept().iter().filter(|(key, member)| answer.get(key) != Some(member)).count()
    }

    /// Whom a member could hand a partition on to, by however many hands: by brute force.
    fn reached(&self, answer: &Assignment, from: u64) -> BTreeSet<u64> {
        let mut reached = BTreeSet::from([from]);
        loop {
            let topics: BTreeSet<TopicId> =
                answer.iter().filter(|(_, member)| reached.contains(&member.0)).map(|(key, _)| key.topic).collect();
            let more = self.wants.iter().filter(|(_, wants)| topics.iter().any(|topic| wants.contains(&topic.0)));
            let before = reached.len();
            reached.extend(more.map(|(member, _)| *member).collect::<Vec<_>>());
            if reached.len() == before {
                return reached;
            }
        }
    }
}

/// Everything that somebody wants is given to somebody who wants it, and nothing else.
fn check_complete(question: &Question, answer: &Assignment) -> Result<(), TestCaseError> {
    for (topic, partitions) in &question.topics {
        let is_wanted = question.wants.values().any(|wants| wants.contains(&topic.0));
        for partition in 0..*partitions {
            let owner = answer.get(&key(topic.0, partition));
            prop_assert_eq!(owner.is_some(), is_wanted, "topic {} partition {}", topic, partition);
            prop_assert!(owner.is_none_or(|owner| question.wants(*owner, *topic)));
        }
    }
    let existing = |key: &PartitionKey| question.topics.get(&key.topic).is_some_and(|count| key.partition.0 < *count);
    prop_assert!(answer.keys().all(existing));
    Ok(())
}

/// With equal subscriptions: the same for all to within one, and as few as possible moved.
fn check_equal(question: &Question, answer: &Assignment) -> Result<(), TestCaseError> {
    let loads = question.loads(answer);
    let (least, most) = (loads.values().min().copied(), loads.values().max().copied());
    prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{:?}", loads);
    let Some(least) = answer.len().checked_div(loads.len()) else { return Ok(()) };
    let most = least + usize::from(!answer.len().is_multiple_of(loads.len()));
    // Whoever has more than the most must give, and whoever cannot be filled up with what is free must get.
    let kept = question.loads(&question.kept());
    let too_many: usize = kept.values().map(|load| load.saturating_sub(most)).sum();
    let free = answer.len() - question.kept().len();
    let lacking: usize = kept.values().map(|load| least.saturating_sub(*load)).sum();
    prop_assert_eq!(question.moved(answer), too_many.max(lacking.saturating_sub(free)), "{:?} to {:?}", kept, loads);
    Ok(())
}

fn question(equal: bool) -> impl Strategy<Value = Question> {
    let topics = btree_map((1..6u64).prop_map(TopicId), 1..9u32, 1..5);
    let wants = btree_map(1..9u64, btree_set(1..7u64, 0..5), 0..7);
    let all = btree_set(1..7u64, 0..5);
    // Also members that are gone, topics that are gone, and partitions that never were.
    let current = vec((1..7u64, 0..10u32, 1..11u64), 0..30);
    (topics, wants, all, current).prop_map(move |(topics, mut wants, all, current)| {
        if equal {
            wants.values_mut().for_each(|wants| *wants = all.clone());
        }
        let current = current.into_iter().map(|(topic, partition, member)| (key(topic, partition), MemberId(member)));
        Question { wants, topics, current: current.collect() }
    })
}

proptest! {
    #[test]
    fn equals_have_the_same_to_within_one_and_no_more_moves_than_that_takes(question in question(true)) {
        let answer = question.answer();
        check_complete(&question, &answer)?;
        check_equal(&question, &answer)?;
        prop_assert_eq!(question.after(answer.clone()).answer(), answer, "what is balanced stays");
    }

    #[test]
    fn with_different_wishes_nobody_could_hand_on_to_somebody_with_two_less(question in question(false)) {
        let answer = question.answer();
        check_complete(&question, &answer)?;
        let loads = question.loads(&answer);
        for (member, load) in &loads {
            for reached in question.reached(&answer, *member) {
                prop_assert!(loads[&reached] + 2 > *load, "{} could hand on to {}: {:?}", member, reached, loads);
            }
        }
        prop_assert_eq!(question.after(answer.clone()).answer(), answer, "what is balanced stays");
    }

    #[test]
    fn the_order_of_the_question_does_not_matter(question in question(false)) {
        let mut reversed: Vec<_> = question.current.clone().into_iter().collect();
        reversed.reverse();
        let mut backwards = candidates(&question.wants);
        backwards.reverse();
        prop_assert_eq!(assign(backwards, &question.topics, reversed, true), question.answer());
    }

    /// While some were not heard yet: nobody loses what it wants, and only those that were heard get anything.
    #[test]
    fn without_moves_only_what_is_free_is_given_to_those_who_may_have_it(question in question(false), silent in btree_set(1..9u64, 0..4)) {
        let mut candidates = candidates(&question.wants);
        candidates.iter_mut().for_each(|candidate| candidate.takes = !silent.contains(&candidate.member.0));
        let answer = assign(candidates, &question.topics, question.current.clone(), false);
        let kept = question.kept();
        prop_assert!(kept.iter().all(|(key, member)| answer.get(key) == Some(member)), "somebody lost what it had");
        let given = answer.iter().filter(|(key, _)| !kept.contains_key(key));
        for (_, member) in given {
            prop_assert!(!silent.contains(&member.0), "{} was not heard", member);
        }
    }

    /// One that goes leaves only what it had; one that comes only gets.
    #[test]
    fn who_comes_and_who_goes_disturbs_no_others(question in question(true), other in 20..30u64) {
        let settled = question.after(question.answer());
        let mut joined = settled.clone();
        let wants = settled.wants.values().next().cloned().unwrap_or_default();
        joined.wants.insert(other, wants);
        let answer = joined.answer();
        for (key, member) in &answer {
            prop_assert!(member.0 == other || settled.current.get(key) == Some(member), "{} went to {}", key, member);
        }
        let mut left = joined.after(answer);
        left.wants.remove(&other);
        let after = left.answer();
        prop_assert!(left.kept().iter().all(|(key, member)| after.get(key) == Some(member)));
    }
}

/// As large as a group may be, it is worked out in little time: tens of milliseconds in a release.
#[test]
fn the_largest_groups_are_worked_out() {
    let (members, topics, partitions) = (1_024u64, 64u64, 1_024u32);
    let all: BTreeSet<u64> = (1..=topics).collect();
    let equal = Question {
        wants: (1..=members).map(|member| (member, all.clone())).collect(),
        topics: all.iter().map(|topic| (TopicId(*topic), partitions)).collect(),
        // All of it is the first one's.
        current: all.iter().flat_map(|t| (0..partitions).map(|p| (key(*t, p), MemberId(1)))).collect(),
    };
    let loads = equal.loads(&equal.answer());
    assert!(loads.values().all(|load| *load == 64), "{loads:?}");

    let mut different = equal.clone();
    different.wants.values_mut().enumerate().for_each(|(at, wants)| {
        wants.remove(&(at as u64 % topics + 1));
    });
    let loads = different.loads(&different.answer());
    assert_eq!(loads.values().sum::<usize>(), 65_536, "complete, although the work is bounded");
    for first in 1..=topics {
        let equals: Vec<usize> = (first..=members).step_by(topics as usize).map(|member| loads[&member]).collect();
        let (least, most) = (equals.iter().min(), equals.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{equals:?}");
    }
}

/// A has what only B could pass on to C: the way leads over B.
#[test]
fn a_partition_is_handed_on_over_others() {
    let wants = BTreeMap::from([(1, BTreeSet::from([1])), (2, BTreeSet::from([1, 2])), (3, BTreeSet::from([2]))]);
    let topics = BTreeMap::from([(TopicId(1), 4), (TopicId(2), 2)]);
    let current = [((1, 0), 1), ((1, 1), 1), ((1, 2), 1), ((1, 3), 2), ((2, 0), 2), ((2, 1), 3)];
    let current = current.map(|((topic, partition), member)| (key(topic, partition), MemberId(member))).into();
    let question = Question { wants, topics, current };
    let answer = question.answer();
    assert_eq!(question.loads(&answer), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
    assert_eq!(question.moved(&answer), 2);
}
