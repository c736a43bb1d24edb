//! Jittered exponential back-off.

use std::time::Duration;

/// Wait before the second attempt, before jitter.
const FIRST: Duration = Duration::from_millis(8);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(1);

/// The wait before attempt `failures` + 1: doubles from 8 ms to 1 s, times `jitter` (0 to 1) mapped to 0.5..1, and at
/// least what the server asked for, within reason.
pub(crate) fn wait_after(failures: u32, jitter: f64, server_asks: Duration) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doubled = FIRST.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST);
    doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)).max(server_asks.min(2 * LONGEST))
}

/// [`wait_after`] with a random jitter.
pub(crate) fn random_wait_after(failures: u32, server_asks: Duration) -> Duration {
    wait_after(failures, rand::random(), server_asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_a_bound_and_respects_the_server() {
        let wait = |failures| wait_after(failures, 1.0, Duration::ZERO);
        assert_eq!((wait(0), wait(1), wait(2), wait(3)), (Duration::ZERO, FIRST, 2 * FIRST, 4 * FIRST));
        assert_eq!(wait(u32::MAX), LONGEST);
        assert_eq!(wait_after(1, 0.0, Duration::ZERO), FIRST / 2);
        assert_eq!(wait_after(1, 0.0, Duration::from_millis(300)), Duration::from_millis(300));
        assert_eq!(
            wait_after(1, 0.0, Duration::from_secs(9000)),
            2 * LONGEST,
            "a server cannot stop a client for long"
        );
    }
}
