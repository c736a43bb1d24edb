//! How long the entries of one range take to become durable here, and to be acknowledged by the successor.
//!
//! Both go on at the same time from the append on, and both end in order, so two queues of (indexes, when) are enough. Entries
//! appended at nearly the same time are one element: where each is a single record there are hundreds of thousands a second.
//! When the log is cut, or another epoch is promised, what was under way is forgotten: the same index would be another entry.

use std::cell::RefCell;
use std::collections::VecDeque;

use minikafka_core::LogIndex;
use minikafka_core::histogram::{COUNTED, DURATION_BOUNDS_NS, DurationHistogram};

/// Groups of entries under way that are remembered; of more, the later ones are not measured.
const UNDER_WAY_MAX: usize = 4_096;
/// Entries appended within this time count by the mean of their times: the sum is exact, a single one is off by less than the
/// narrowest bucket.
const GROUP_NS: u64 = DURATION_BOUNDS_NS[0];

/// Entries under way.
#[derive(Debug, Default)]
pub struct Stages {
    durable: Stage,
    successor: Stage,
}

#[derive(Debug, Default)]
struct Stage(RefCell<VecDeque<Group>>);

/// Entries that follow each other, appended within [`GROUP_NS`].
#[derive(Debug)]
struct Group {
    first: LogIndex,
    last: LogIndex,
    /// When the first was appended.
    since_ns: u64,
    /// How much later the others were, added up.
    later_ns: u64,
}

impl Stages {
    /// An entry was appended; `is_forwarded`: a successor will acknowledge it.
    pub fn appended(&self, index: LogIndex, now_ns: u64, is_forwarded: bool) {
        if !COUNTED {
            return;
        }
        self.durable.begin(index, now_ns);
        if is_forwarded {
            self.successor.begin(index, now_ns);
        }
    }

    /// Everything up to `index` is durable here.
    pub fn durable(&self, index: LogIndex, now_ns: impl FnOnce() -> u64, took: &DurationHistogram) {
        self.durable.end(index, now_ns, took);
    }

    /// The successor acknowledged everything up to `index`.
    pub fn acknowledged(&self, index: LogIndex, now_ns: impl FnOnce() -> u64, took: &DurationHistogram) {
        self.successor.end(index, now_ns, took);
    }

    /// What is under way is not what it was.
    pub fn forget(&self) {
        self.durable.0.borrow_mut().clear();
        self.successor.0.borrow_mut().clear();
    }

    /// When the oldest entry was appended that the successor has not acknowledged, or one just before it.
    pub fn unacknowledged_since_ns(&self) -> Option<u64> {
        self.successor.0.borrow().front().map(|group| group.since_ns)
    }
}

impl Stage {
    fn begin(&self, index: LogIndex, now_ns: u64) {
        let mut under_way = self.0.borrow_mut();
        if under_way.back_mut().is_some_and(|group| group.take(index, now_ns)) {
            return;
        }
        if under_way.len() < UNDER_WAY_MAX {
            under_way.push_back(Group { first: index, last: index, since_ns: now_ns, later_ns: 0 });
        }
    }

    /// The clock is read only if something ended.
    fn end(&self, index: LogIndex, now_ns: impl FnOnce() -> u64, took: &DurationHistogram) {
        let mut under_way = self.0.borrow_mut();
        if under_way.front().is_none_or(|group| group.first > index) {
            return;
        }
        let now_ns = now_ns();
        while let Some(group) = under_way.front_mut().filter(|group| group.first <= index) {
            let entries = index.min(group.last).0 - group.first.0 + 1;
            took.record_many(now_ns.saturating_sub(group.mean_ns()), entries);
            if group.last > index {
                return group.drop_first(entries);
            }
            under_way.pop_front();
        }
    }
}

impl Group {
    /// Takes the next entry, if it belongs to this group.
    fn take(&mut self, index: LogIndex, now_ns: u64) -> bool {
        let later_ns = now_ns.saturating_sub(self.since_ns);
        let belongs = later_ns < GROUP_NS && index == self.last.next();
        if belongs {
            self.last = index;
            self.later_ns += later_ns;
        }
        belongs
    }

    fn entries(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    fn mean_ns(&self) -> u64 {
        self.since_ns + self.later_ns / self.entries()
    }

    /// Some ended; for the others the mean stays what it was.
    fn drop_first(&mut self, entries: u64) {
        let left = self.entries() - entries;
        self.later_ns = self.later_ns * left / self.entries();
        self.first = LogIndex(self.first.0 + entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough after one entry for the next one to be another group.
    const APART_NS: u64 = GROUP_NS;

    #[test]
    fn both_ends_are_measured_from_the_append() {
        let (stages, durable, successor) = <(Stages, DurationHistogram, DurationHistogram)>::default();
        (1..=3).for_each(|index| stages.appended(LogIndex(index), APART_NS * index, index > 1));
        stages.durable(LogIndex(2), || 10 * APART_NS, &durable);
        stages.durable(LogIndex(2), || unreachable!("nothing ended"), &durable);
        assert_eq!((durable.counted().total(), durable.counted().sum_ns), (2, (9 + 8) * APART_NS));
        assert_eq!(stages.unacknowledged_since_ns(), Some(2 * APART_NS), "the first was not forwarded");
        stages.acknowledged(LogIndex(3), || 5 * APART_NS, &successor);
        assert_eq!((successor.counted().total(), successor.counted().sum_ns), (2, (3 + 2) * APART_NS));
        assert_eq!(stages.unacknowledged_since_ns(), None);
    }

    #[test]
    fn entries_of_one_moment_are_counted_one_by_one() {
        let (stages, durable) = <(Stages, DurationHistogram)>::default();
        let appended = [(1, 1_000), (2, 2_000), (3, 3_000), (4, 6_000), (9, 6_000), (10, 6_000 + APART_NS)];
        appended.into_iter().for_each(|(index, now_ns)| stages.appended(LogIndex(index), now_ns, false));
        assert_eq!(stages.durable.0.borrow().len(), 3, "one that does not follow, and one that came later");
        stages.durable(LogIndex(1), || 10_000, &durable);
        assert_eq!((durable.counted().total(), durable.counted().sum_ns), (1, 7_000), "the mean is 3,000");
        stages.durable(LogIndex(10), || 20_000, &durable);
        assert_eq!((durable.counted().total(), durable.counted().sum_ns), (6, 7_000 + 3 * 17_000 + 14_000 + 4_000));
        assert!(stages.durable.0.borrow().is_empty());
    }

    #[test]
    fn an_index_that_comes_again_is_another_entry() {
        let (stages, durable) = <(Stages, DurationHistogram)>::default();
        stages.appended(LogIndex(7), 0, false);
        stages.forget();
        stages.appended(LogIndex(7), 900, false);
        stages.durable(LogIndex(7), || 1_000, &durable);
        assert_eq!((durable.counted().total(), durable.counted().sum_ns), (1, 100));
    }
}
