//! What a check found, in figures and in words.

use std::collections::BTreeMap;
use std::fmt;

use crate::Anomaly;

/// Anomalies shown in words: a broken broker can break a million promises.
const SHOWN_MAX: usize = 20;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Promises broken, sorted; empty is good.
    pub anomalies: Vec<Anomaly>,
    /// Records attempted.
    pub attempted: usize,
    /// Of them acknowledged.
    pub acknowledged: usize,
    /// Of them refused for good.
    pub failed: usize,
    /// Of unknown outcome, and read.
    pub unknown_read: usize,
    /// Of unknown outcome, and not read.
    pub unknown_unread: usize,
    /// Records that readers got, over all sessions.
    pub reads: usize,
}

impl Report {
    /// Panics with everything found and `replay`, which says how to see it again.
    #[track_caller]
    pub fn assert_clean(&self, replay: &str) {
        assert!(self.anomalies.is_empty(), "{self}\nreplay: {replay}");
    }

    /// How many anomalies there are of each kind.
    pub fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        self.anomalies.iter().for_each(|anomaly| *kinds.entry(anomaly.kind()).or_default() += 1);
        kinds
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} attempted: {} acknowledged, {} failed, {} unknown and stored, {} unknown and not stored; {} read; ",
            self.attempted, self.acknowledged, self.failed, self.unknown_read, self.unknown_unread, self.reads
        )?;
        if self.anomalies.is_empty() {
            return write!(f, "no anomalies");
        }
        write!(f, "ANOMALIES: {:?}", self.kinds())?;
        self.anomalies.iter().take(SHOWN_MAX).try_for_each(|anomaly| write!(f, "\n  {anomaly:?}"))
    }
}
