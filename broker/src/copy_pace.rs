//! How fast learners may copy from a shard, so that filling an empty replica leaves room for those who produce and fetch.
//!
//! One token bucket for all ranges of the shard, at the source, because that is where clients feel it. Requests have their
//! turns in the order in which they came; one whose turn would come too late is refused, and the learner asks again. What
//! repairs a chain (reconciling, mending) is not slowed down.

use std::cell::RefCell;
use std::time::Duration;

use minikafka_core::limits::{COPY_BYTES_MAX, COPY_BYTES_PER_SECOND_MIN, COPY_TURN_MS_MAX};
use minikafka_core::token_bucket::TokenBucket;

/// The pace of a shard; without a rate it is as fast as it can be.
#[derive(Debug, Default)]
pub struct CopyPace(RefCell<Option<TokenBucket>>);

impl CopyPace {
    /// Bytes that all learners together may copy per second; none: as many as they can.
    pub fn set_rate(&self, per_second: Option<u64>, now_ns: u64) {
        *self.0.borrow_mut() = per_second.map(|rate| TokenBucket::new(rate.max(COPY_BYTES_PER_SECOND_MIN), now_ns));
    }

    /// Takes a turn for one answer, and tells how long to wait for it. None: it would be too long.
    pub fn turn(&self, now_ns: u64) -> Option<Duration> {
        let mut bucket = self.0.borrow_mut();
        let Some(bucket) = &mut *bucket else { return Some(Duration::ZERO) };
        let wait = Duration::from_nanos(bucket.wait_ns(now_ns));
        let is_soon = wait <= Duration::from_millis(COPY_TURN_MS_MAX);
        is_soon.then(|| bucket.take(COPY_BYTES_MAX as u64, now_ns))?;
        Some(wait)
    }

    /// An answer had so many bytes: what is missing to a whole turn is there for others.
    pub fn answered(&self, bytes: u64) {
        if let Some(bucket) = &mut *self.0.borrow_mut() {
            bucket.give_back((COPY_BYTES_MAX as u64).saturating_sub(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn turns_follow_each_other_at_the_rate_and_nobody_waits_for_long() {
        let pace = CopyPace::default();
        assert_eq!(pace.turn(0), Some(Duration::ZERO), "without a rate nobody waits");
        pace.set_rate(Some(4 << 20), 0);
        // A second's worth passes at once, then four turns fit into the second that anybody waits for.
        let waits: Vec<_> = std::iter::from_fn(|| pace.turn(0)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 250, 500, 750]);
        assert_eq!(pace.turn(SECOND_NS / 2).map(|wait| wait.as_millis()), Some(500));
    }

    #[test]
    fn what_was_not_copied_is_there_for_others() {
        let pace = CopyPace::default();
        pace.set_rate(Some(1 << 20), 0);
        for _ in 0..1_000 {
            assert_eq!(pace.turn(0), Some(Duration::ZERO));
            pace.answered(0);
        }
    }
}
