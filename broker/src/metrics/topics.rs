//! What is counted by topic, for a bounded number of topics: whoever comes first gets a series, and keeps it.
//!
//! The busiest ones of each moment would be nicer to look at, but a series that comes and goes makes the rest jump: a counter
//! must not go back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

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
    /// Where in `counts` a topic is that has a series of its own.
    places: RefCell<HashMap<TopicId, usize>>,
    counts: RefCell<Vec<TopicCounts>>,
    others: Cell<TopicCounts>,
    /// The last one that was looked up: batches of one topic come in a row.
    last: Cell<Option<(TopicId, usize)>>,
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
        if let Some(place) = self.place(topic) {
            return count(&mut self.counts.borrow_mut()[place]);
        }
        let mut others = self.others.get();
        count(&mut others);
        self.others.set(others);
    }

    /// Where a topic's counts are; `None`: it has no series of its own.
    fn place(&self, topic: TopicId) -> Option<usize> {
        if let Some((_, place)) = self.last.get().filter(|(last, _)| *last == topic) {
            return Some(place);
        }
        let mut places = self.places.borrow_mut();
        let next = places.len();
        let place = match places.entry(topic) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if next >= self.topics_max.get() => return None,
            Entry::Vacant(new) => {
                self.counts.borrow_mut().push(TopicCounts::default());
                *new.insert(next)
            }
        };
        self.last.set(Some((topic, place)));
        Some(place)
    }

    /// Everything, with what the series is called.
    pub fn for_each(&self, mut look: impl FnMut(&str, TopicCounts)) {
        let counts = self.counts.borrow();
        for (topic, place) in &*self.places.borrow() {
            look(&format!("{:016x}", topic.0), counts[*place]);
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
        for topic in (1..=1_000).chain([2, 2, 3]) {
            table.count(TopicId(topic), |counts| counts.produced_records += 1);
        }
        let mut series = Vec::new();
        table.for_each(|name, counts| series.push((name.to_owned(), counts.produced_records)));
        series.sort();
        let expected = [("0000000000000001", 1), ("0000000000000002", 3), ("other", 999)];
        assert_eq!(series, expected.map(|(name, count)| (name.to_owned(), count)));
    }
}
