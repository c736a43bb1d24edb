//! A token bucket: how much may pass per second, with a burst of one second.
//!
//! Pure: time is passed in, in nanoseconds of any clock that never goes back. What passes is paid afterwards: whoever
//! finds tokens takes as many as it needs, also more than there are, and then everybody waits until the debt is paid. So
//! something larger than a second's worth passes too, and the rate holds over time.

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// A bucket of one rate. A full one is as good as a new one, so a table of buckets may forget those that are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    per_second: u64,
    /// Tokens times nanoseconds of a second, so that nothing is lost to rounding; negative: debt.
    scaled: i128,
    filled_at_ns: u64,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 is taken as 1: a bucket that never fills again would be a trap.
    pub fn new(per_second: u64, now_ns: u64) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, scaled: full(per_second), filled_at_ns: now_ns }
    }

    /// Changes the rate; what is in it, or owed, stays, up to the new burst.
    pub fn set_rate(&mut self, per_second: u64, now_ns: u64) {
        if self.per_second != per_second.max(1) {
            self.fill(now_ns);
            self.per_second = per_second.max(1);
            self.scaled = self.scaled.min(full(self.per_second));
        }
    }

    /// Takes `count` tokens if there are any, or tells after how many nanoseconds there will be.
    pub fn try_take(&mut self, count: u64, now_ns: u64) -> Result<(), u64> {
        match self.wait_ns(now_ns) {
            0 => {
                self.take(count, now_ns);
                Ok(())
            }
            wait_ns => Err(wait_ns),
        }
    }

    /// Takes `count` tokens, whether or not they are there.
    pub fn take(&mut self, count: u64, now_ns: u64) {
        self.fill(now_ns);
        self.scaled = self.scaled.saturating_sub(scaled(count));
    }

    /// Gives tokens back that were taken for nothing.
    pub fn give_back(&mut self, count: u64) {
        self.scaled = (self.scaled.saturating_add(scaled(count))).min(full(self.per_second));
    }

    /// Nanoseconds until there are tokens; 0: there are.
    pub fn wait_ns(&mut self, now_ns: u64) -> u64 {
        self.fill(now_ns);
        if self.scaled > 0 {
            return 0;
        }
        // One more than what is owed, so that something is there then.
        let missing = self.scaled.unsigned_abs() + 1;
        u64::try_from(missing.div_ceil(u128::from(self.per_second))).unwrap_or(u64::MAX)
    }

    /// Whether it is as good as new.
    pub fn is_full(&mut self, now_ns: u64) -> bool {
        self.fill(now_ns);
        self.scaled == full(self.per_second)
    }

    fn fill(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.filled_at_ns);
        self.filled_at_ns = self.filled_at_ns.max(now_ns);
        let came = i128::from(passed_ns).saturating_mul(self.per_second.into());
        self.scaled = (self.scaled.saturating_add(came)).min(full(self.per_second));
    }
}

/// Tokens as they are kept; a second's nanoseconds leave room for any 64-bit count.
fn scaled(tokens: u64) -> i128 {
    i128::from(tokens) * i128::from(SECOND_NS)
}

/// A second's worth.
fn full(per_second: u64) -> i128 {
    scaled(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_then_the_rate() {
        let mut bucket = TokenBucket::new(1_000, 0);
        assert_eq!(bucket.try_take(400, 0), Ok(()));
        assert_eq!(bucket.try_take(600, 0), Ok(()), "a second's worth is there at once");
        let wait = bucket.try_take(1, 0).expect_err("it is empty");
        assert!((1..=1_000_001).contains(&wait), "one token comes within a millisecond, not after {wait} ns");
        assert_eq!(bucket.try_take(1, wait), Ok(()));
        // Over a long time, whatever the size of the pieces, what passes is the rate and one burst.
        for piece in [1, 7, 999, 5_000] {
            let mut bucket = TokenBucket::new(1_000, 0);
            let (mut now, mut passed) = (0, 0);
            while now < 60 * SECOND_NS {
                match bucket.try_take(piece, now) {
                    Ok(()) => passed += piece,
                    Err(wait) => now += wait,
                }
            }
            assert!((60_000..=61_000 + piece).contains(&passed), "{passed} in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_larger_than_the_burst_passes_and_is_paid_for() {
        let mut bucket = TokenBucket::new(100, 0);
        assert_eq!(bucket.try_take(1_000, 0), Ok(()));
        let wait = bucket.wait_ns(0);
        assert!((9 * SECOND_NS..=9 * SECOND_NS + SECOND_NS / 10).contains(&wait), "900 tokens are owed: {wait} ns");
        assert_eq!(bucket.wait_ns(wait), 0);
    }

    #[test]
    fn it_never_holds_more_than_a_second_and_is_then_as_new() {
        let mut bucket = TokenBucket::new(10, 0);
        bucket.take(10, 0);
        assert!(!bucket.is_full(SECOND_NS - 1));
        assert!(bucket.is_full(SECOND_NS));
        assert!(bucket.is_full(1_000 * SECOND_NS));
        bucket.take(11, 1_000 * SECOND_NS);
        assert!(bucket.wait_ns(1_000 * SECOND_NS) > 0, "no more than the burst was saved up");
        bucket.give_back(500);
        assert_eq!(bucket, TokenBucket::new(10, 1_000 * SECOND_NS));
    }

    #[test]
    fn a_changed_rate_keeps_the_debt_and_time_may_stand_still_or_go_back() {
        let mut bucket = TokenBucket::new(100, 5);
        bucket.take(300, 5);
        let slow = bucket.wait_ns(3);
        bucket.set_rate(200, 4);
        let fast = bucket.wait_ns(5);
        assert!(fast > 0 && fast <= slow / 2 + 1, "{fast} of {slow}");
        bucket.set_rate(0, 5);
        assert!(bucket.wait_ns(5) < u64::MAX);
        assert!(TokenBucket::new(u64::MAX, 0).try_take(u64::MAX, u64::MAX).is_ok());
    }
}
