//! What is counted by topic, for a bounded number of topics: whoever comes first gets a series, and keeps it.
//!
//! The busiest ones of each moment would be nicer to look at, but a series that comes and goes makes the rest jump: a counter
//! must not go back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use minikafka_core::TopicId;
use minikafka_core::histogram::COUNTED;

/// Counts of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicCounts {
    /// Records acknowledged.
    pub produced_records: u64,
    /// Body bytes acknowledged.
    pub produced_bytes: u64,
    /// Entry bytes sent to consumers.
    pub fetched_bytes: u64,
}

/// Counts of the topics of a shard.
#[derive(Debug, Default)]
pub struct TopicTable {
    topics_max: Cell<usize>,
    counts: RefCell<HashMap<TopicId, TopicCounts>>,
    others: Cell<TopicCounts>,
}

impl TopicTable {
    /// How many topics get a series of their own; those that have one keep it.
    pub fn set_topics_max(&self, topics: usize) {
        self.topics_max.set(topics);
    }

    /// Counts something of a topic.
    pub fn count(&self, topic: TopicId, count: impl FnOnce(&mut TopicCounts)) {
        if !COUNTED {
            return;
        }
        let mut counts = self.counts.borrow_mut();
        let has_room = counts.len() < self.topics_max.get();
        match counts.get_mut(&topic) {
            Some(counts) => count(counts),
            None if has_room => count(counts.entry(topic).or_default()),
            None => {
                let mut others = self.others.get();
                count(&mut others);
                self.others.set(others);
            }
        }
    }

    /// Everything, with what the series is called.
    pub fn for_each(&self, mut look: impl FnMut(&str, TopicCounts)) {
        for (topic, counts) in &*self.counts.borrow() {
            look(&format!("{:016x}", topic.0), *counts);
        }
        if self.others.get() != TopicCounts::default() {
            look("other", self.others.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_topics_have_no_thousand_series() {
        let table = TopicTable::default();
        table.set_topics_max(2);
        for topic in (1..=1_000).chain([2]) {
            table.count(TopicId(topic), |counts| counts.produced_records += 1);
        }
        let mut series = Vec::new();
        table.for_each(|name, counts| series.push((name.to_owned(), counts.produced_records)));
        series.sort();
        let expected = [("0000000000000001", 1), ("0000000000000002", 2), ("other", 998)];
        assert_eq!(series, expected.map(|(name, count)| (name.to_owned(), count)));
    }
}
