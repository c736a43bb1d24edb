//! How long the entries of one range take to become durable here, and to be acknowledged by the successor.
//!
//! Both go on at the same time from the append on, and both end in order, so two queues of (index, when) are enough. When the
//! log is cut, or another epoch is promised, what was under way is forgotten: the same index would be another entry.

use std::cell::RefCell;
use std::collections::VecDeque;

use minikafka_core::LogIndex;
use minikafka_core::histogram::{COUNTED, DurationHistogram};

/// Entries under way that are remembered; of more, the later ones are not measured.
const UNDER_WAY_MAX: usize = 4_096;

/// Entries under way.
#[derive(Debug, Default)]
pub struct Stages {
    durable: Stage,
    successor: Stage,
}

#[derive(Debug, Default)]
struct Stage(RefCell<VecDeque<(LogIndex, u64)>>);

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

    /// When the oldest entry was appended that the successor has not acknowledged.
    pub fn unacknowledged_since_ns(&self) -> Option<u64> {
        self.successor.0.borrow().front().map(|(_, since)| *since)
    }
}

impl Stage {
    fn begin(&self, index: LogIndex, now_ns: u64) {
        let mut under_way = self.0.borrow_mut();
        if under_way.len() < UNDER_WAY_MAX {
            under_way.push_back((index, now_ns));
        }
    }

    /// The clock is read only if something ended.
    fn end(&self, index: LogIndex, now_ns: impl FnOnce() -> u64, took: &DurationHistogram) {
        let mut under_way = self.0.borrow_mut();
        if under_way.front().is_none_or(|(first, _)| *first > index) {
            return;
        }
        let now_ns = now_ns();
        while let Some((_, since)) = under_way.front().copied().filter(|(first, _)| *first <= index) {
            under_way.pop_front();
            took.record(now_ns.saturating_sub(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_measured_from_the_append() {
        let (stages, durable, successor) = <(Stages, DurationHistogram, DurationHistogram)>::default();
        (1..=3).for_each(|index| stages.appended(LogIndex(index), 100 * index, index > 1));
        stages.durable(LogIndex(2), || 1_000, &durable);
        stages.durable(LogIndex(2), || unreachable!("nothing ended"), &durable);
        assert_eq!((durable.counted().total(), durable.counted().sum_ns), (2, 900 + 800));
        assert_eq!(stages.unacknowledged_since_ns(), Some(200), "the first was not forwarded");
        stages.acknowledged(LogIndex(3), || 500, &successor);
        assert_eq!((successor.counted().total(), successor.counted().sum_ns), (2, 300 + 200));
        assert_eq!(stages.unacknowledged_since_ns(), None);
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
