//! A figure beside the limit that binds it.

use serde::Serialize;

use crate::limits::Limits;
use crate::measure::Measured;

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// A rate: the limit is above it.
    MoreIsBetter,
    /// A time, or memory: the limit is below it.
    LessIsBetter,
}

/// A figure, and what it could be at best.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// What was measured.
    pub what: String,
    /// How much of it.
    pub figure: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The limit, in the same unit.
    pub limit: f64,
    /// What sets the limit.
    pub binds: String,
    /// The figure over the limit.
    pub ratio: f64,
    /// Which way it is good.
    pub sense: Sense,
}

impl Ratio {
    /// A figure beside its limit.
    pub fn new(what: &str, (figure, unit): (f64, &'static str), (limit, binds): (f64, &str), sense: Sense) -> Self {
        Self { what: what.to_owned(), figure, unit, limit, binds: binds.to_owned(), ratio: figure / limit, sense }
    }

    /// Whether the ratio is at least as good as a target's.
    pub fn meets(&self, target: f64) -> bool {
        match self.sense {
            Sense::MoreIsBetter => self.ratio >= target,
            Sense::LessIsBetter => self.ratio <= target,
        }
    }
}

/// What binds a kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Every byte is received, checksummed and written; every record waits for a durable write and a round trip.
    Produce,
    /// Every byte is received and checksummed; every reply waits for a round trip and for its own bytes.
    Consume,
}

/// Every figure of a run beside its limit.
pub fn ratios(measured: &Measured, limits: &Limits, binding: Binding) -> Vec<Ratio> {
    let totals = &measured.totals;
    let per = |bytes: u64, count: u64| if count == 0 { f64::INFINITY } else { bytes as f64 / count as f64 };
    let (bytes_limit, bytes_binds) = match binding {
        Binding::Produce => limits.producing(),
        Binding::Consume => (limits.receive.figure(), limits.receive.name),
    };
    let (time_limit, time_binds) = match binding {
        Binding::Produce => limits.durable_record(),
        Binding::Consume => {
            let transfer_us = per(totals.bytes, totals.requests) / limits.receive.figure() * 1e6;
            let transfer_us = if transfer_us.is_finite() { transfer_us } else { 0.0 };
            (
                limits.round_trip.figure() + transfer_us,
                "one round trip, and receiving one reply with CRC-32C on one core",
            )
        }
    };
    let rate = |what: &str, figure: f64, unit, bytes_each: f64| {
        Ratio::new(what, (figure, unit), (bytes_limit / bytes_each, bytes_binds), Sense::MoreIsBetter)
    };
    let time = |what: &str, us: f64| Ratio::new(what, (us, "us"), (time_limit, time_binds), Sense::LessIsBetter);
    let latency = &measured.latency;
    vec![
        rate("bytes of records", totals.bytes_per_second, "bytes/s", 1.0),
        rate("records", totals.records_per_second, "records/s", per(totals.bytes, totals.records)),
        rate("requests", totals.requests_per_second, "requests/s", per(totals.bytes, totals.requests)),
        time("latency p50", latency.p50_us),
        time("latency p90", latency.p90_us),
        time("latency p99", latency.p99_us),
        time("latency p99.9", latency.p99_9_us),
        time("latency p99.99", latency.p99_99_us),
        time("latency max", latency.max_us),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::limits::tests::limits;
    use crate::measure::{Done, Recorder};
    use crate::pace::SECOND;

    /// 1,000 requests of 10 records and 10,000 bytes in a second, 1 ms each.
    pub fn measured() -> Measured {
        let mut recorder = Recorder::new((0, SECOND));
        for request in 1..=1000u64 {
            let now = request * SECOND / 1001;
            recorder.done(now, &Done { intended: now.saturating_sub(1_000_000), records: 10, bytes: 10_000 });
        }
        recorder.finish(SECOND)
    }

    fn near(found: f64, expected: f64) -> bool {
        (found / expected - 1.0).abs() < 0.01
    }

    #[test]
    fn producing_is_bound_by_the_slower_of_disk_and_receive() {
        // 2 GB/s to disk, 4 GB/s to receive: the disk binds; without a disk, receiving does.
        let found = ratios(&measured(), &limits(true), Binding::Produce);
        assert!(near(found[0].ratio, 1e7 / 2e9) && found[0].binds.contains("durable"), "{:?}", found[0]);
        assert!(near(found[1].ratio, found[0].ratio) && near(found[2].ratio, found[0].ratio), "{found:?}");
        assert!(near(found[1].limit, 2e6) && near(found[2].limit, 2e5), "2 GB/s are 2 M records of 1,000 bytes");
        let found = ratios(&measured(), &limits(false), Binding::Produce);
        assert!(near(found[0].ratio, 1e7 / 4e9) && found[0].binds.contains("--dir"), "{:?}", found[0]);
    }

    #[test]
    fn latency_is_bound_by_one_write_and_one_round_trip() {
        // 200 us to write, 50 us there and back; 1 ms was measured.
        let found = ratios(&measured(), &limits(true), Binding::Produce);
        assert!(near(found[3].ratio, 4.0), "{:?}", found[3]);
        // Reading: 50 us there and back, 10,000 bytes at 4 GB/s.
        let found = ratios(&measured(), &limits(true), Binding::Consume);
        assert!(near(found[3].limit, 52.5), "{:?}", found[3]);
    }

    #[test]
    fn targets_are_met_from_their_own_side() {
        let ratio = |figure, sense| Ratio::new("x", (figure, "y"), (10.0, "z"), sense);
        assert!(ratio(8.0, Sense::MoreIsBetter).meets(0.8) && !ratio(7.9, Sense::MoreIsBetter).meets(0.8));
        assert!(ratio(15.0, Sense::LessIsBetter).meets(1.5) && !ratio(15.1, Sense::LessIsBetter).meets(1.5));
        assert!(!ratio(f64::NAN, Sense::MoreIsBetter).meets(0.8) && !ratio(f64::NAN, Sense::LessIsBetter).meets(1.5));
    }
}
