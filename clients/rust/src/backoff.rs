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

/// While the map is out of date, no wait is longer than this at first: a chain is changed within a fraction of a second, and
/// whoever waits doubly long finds out doubly late.
const MAP_LONGEST: Duration = Duration::from_millis(32);
/// So often; then waits double again, so that a cluster that stays away is not asked for its map all the time.
const MAP_ATTEMPTS: u32 = 32;

/// The wait before attempt `failures` + 1 when a newer map is what is missing.
pub(crate) fn wait_for_map(failures: u32, jitter: f64, server_asks: Duration) -> Duration {
    let doublings = MAP_LONGEST.as_millis().ilog2() - FIRST.as_millis().ilog2() + 1;
    let counted = failures.min(doublings).max(failures.saturating_sub(MAP_ATTEMPTS));
    wait_after(counted, jitter, server_asks)
}

/// [`wait_after`], or [`wait_for_map`] if a newer map is needed, with a random jitter.
pub(crate) fn random_wait(failures: u32, needs_map: bool, server_asks: Duration) -> Duration {
    match needs_map {
        true => wait_for_map(failures, rand::random(), server_asks),
        false => wait_after(failures, rand::random(), server_asks),
    }
}

/// [`wait_after`] with a random jitter.
pub(crate) fn random_wait_after(failures: u32, server_asks: Duration) -> Duration {
    wait_after(failures, rand::random(), server_asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_map_is_asked_for_often_at_first_and_then_more_and_more_rarely() {
        let wait = |failures| wait_for_map(failures, 1.0, Duration::ZERO);
        assert_eq!([wait(1), wait(2), wait(3), wait(4)], [FIRST, 2 * FIRST, MAP_LONGEST, MAP_LONGEST]);
        assert_eq!(wait(MAP_ATTEMPTS + 3), MAP_LONGEST);
        assert_eq!([wait(MAP_ATTEMPTS + 4), wait(u32::MAX)], [2 * MAP_LONGEST, LONGEST]);
        assert_eq!(wait_for_map(1, 0.0, Duration::from_millis(300)), Duration::from_millis(300));
    }

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
