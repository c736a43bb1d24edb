//! How long writes stood still after members were killed.

use std::fmt;
use std::time::Duration;

/// Times from SIGKILL to the next acknowledged record, one for each partition that was struck.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    /// Of partitions whose head was killed.
    pub heads: Vec<Duration>,
    /// Of partitions of whose chain another member was killed.
    pub others: Vec<Duration>,
}

impl Outages {
    /// Takes over the times of another run.
    pub fn extend(&mut self, other: &Self) {
        self.heads.extend(&other.heads);
        self.others.extend(&other.others);
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.others.is_empty()
    }
}

/// The time that so many of a hundred do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).clamp(1, sorted.len()) - 1]
}

impl fmt::Display for Outages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = false;
        for (times, whose) in [(&self.heads, "head"), (&self.others, "another member")] {
            if times.is_empty() {
                continue;
            }
            let mut sorted = times.clone();
            sorted.sort();
            let at = |percent| percentile(&sorted, percent).as_secs_f64() * 1000.0;
            let separator = if std::mem::replace(&mut told, true) { "; " } else { "" };
            write!(
                f,
                "{separator}{whose} killed, {} times: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
                sorted.len(),
                at(50),
                at(99),
                at(100)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let at = |percent| percentile(&times, percent).as_millis();
        assert_eq!((at(50), at(99), at(100)), (100, 198, 200));
        assert_eq!(percentile(&times[..1], 50), Duration::from_millis(1));
        let outages = Outages { heads: times, others: Vec::new() };
        assert_eq!(outages.to_string(), "head killed, 200 times: p50 100 ms, p99 198 ms, max 200 ms");
    }
}
