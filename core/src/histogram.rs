//! Durations counted in fixed buckets: what a shard keeps of how long things took.
//!
//! Plain cells of one thread: recording costs a look at two small tables and three additions, and allocates nothing. Bounds are
//! the same everywhere, so that what several shards, and several nodes, counted can be added up.

use std::cell::Cell;

/// Upper bounds of the buckets, in nanoseconds, each inclusive; what is above the last has a bucket of its own. From the
/// fastest write there is to the longest that a client waits.
pub const DURATION_BOUNDS_NS: [u64; 20] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

const BUCKETS: usize = DURATION_BOUNDS_NS.len() + 1;

/// For each number of bits, the bucket of the smallest number that has as many.
const FIRST_BUCKETS: [u8; u64::BITS as usize + 1] = {
    let mut buckets = [0; u64::BITS as usize + 1];
    let mut bits = 1;
    while bits < buckets.len() {
        let (smallest, mut bucket) = (1 << (bits - 1), buckets[bits - 1]);
        while (bucket as usize) < DURATION_BOUNDS_NS.len() && DURATION_BOUNDS_NS[bucket as usize] < smallest {
            bucket += 1;
        }
        buckets[bits] = bucket;
        bits += 1;
    }
    buckets
};

/// The bucket of a duration. Bounds at least double, so numbers of as many bits are in two buckets at most.
fn bucket_of(ns: u64) -> usize {
    let first = usize::from(FIRST_BUCKETS[(u64::BITS - ns.leading_zeros()) as usize]);
    first + usize::from(DURATION_BOUNDS_NS.get(first).is_some_and(|bound| *bound < ns))
}

/// False only in a build that is compared with a real one to see what counting costs (feature `uncounted`).
pub const COUNTED: bool = !cfg!(feature = "uncounted");

/// Counts durations on one thread.
#[derive(Debug, Default)]
pub struct DurationHistogram {
    counts: [Cell<u64>; BUCKETS],
    sum_ns: Cell<u64>,
}

impl DurationHistogram {
    /// Counts one duration.
    pub fn record(&self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Counts `times` things that took as long as each other.
    pub fn record_many(&self, ns: u64, times: u64) {
        if !COUNTED {
            return;
        }
        let bucket = &self.counts[bucket_of(ns)];
        bucket.set(bucket.get() + times);
        self.sum_ns.set(self.sum_ns.get().wrapping_add(ns.saturating_mul(times)));
    }

    /// What was counted so far.
    pub fn counted(&self) -> CountedDurations {
        let mut counts = [0; BUCKETS];
        for (count, cell) in counts.iter_mut().zip(&self.counts) {
            *count = cell.get();
        }
        CountedDurations { counts, sum_ns: self.sum_ns.get() }
    }
}

/// What a [`DurationHistogram`] counted, to be taken elsewhere and added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountedDurations {
    /// For each bound, and for what is above the last, how many durations were in that bucket alone.
    pub counts: [u64; BUCKETS],
    /// Sum of all durations.
    pub sum_ns: u64,
}

impl CountedDurations {
    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_reaches_it() {
        let histogram = DurationHistogram::default();
        for ns in [0, 10_000, 10_001, 30_000_000_000, 30_000_000_001] {
            histogram.record(ns);
        }
        let counted = histogram.counted();
        assert_eq!((counted.counts[0], counted.counts[1]), (2, 1), "bounds are inclusive");
        assert_eq!((counted.counts[BUCKETS - 2], counted.counts[BUCKETS - 1]), (1, 1));
        assert_eq!((counted.total(), counted.sum_ns), (5, 60_000_020_002));
    }

    #[test]
    fn every_bucket_is_the_one_that_a_search_finds() {
        let near = |number: u64| [number.saturating_sub(1), number, number.saturating_add(1)];
        let powers = (0..u64::BITS).map(|bit| 1 << bit);
        for ns in DURATION_BOUNDS_NS.into_iter().chain(powers).chain([0, u64::MAX]).flat_map(near) {
            assert_eq!(bucket_of(ns), DURATION_BOUNDS_NS.partition_point(|bound| *bound < ns), "{ns}");
        }
    }

    #[test]
    fn what_two_threads_counted_adds_up() {
        let (one, other) = (DurationHistogram::default(), DurationHistogram::default());
        one.record(20_000);
        other.record_many(20_000, 3);
        let mut both = one.counted();
        both.add(&other.counted());
        assert_eq!((both.counts[1], both.sum_ns), (4, 80_000));
    }
}
