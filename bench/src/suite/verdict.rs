//! From the figures of all rounds to a verdict on each row.

use serde::Serialize;

use super::rows::{Bound, Row, Target};
use super::{Samples, Scale, SuiteBench};
use crate::driver::speed::DriverSpeed;
use crate::limits::{Limits, median};
use crate::machine::Machine;
use crate::report::ratio::{Ratio, Sense};

/// One row with what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct RowResult {
    /// What it promises.
    pub row: Row,
    /// The figure of each round.
    pub runs: Vec<f64>,
    /// Their median beside its limit.
    pub ratio: Ratio,
    /// Whether the promise is kept.
    pub met: bool,
    /// Whether more than that is reached.
    pub stretch_met: bool,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// The result of the suite.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteReport {
    /// What it ran on.
    pub machine: Machine,
    /// When it ended.
    pub at_unix_seconds: u64,
    /// The command line.
    pub command: String,
    /// As understood.
    pub options: SuiteBench,
    /// How much of everything.
    pub scale: Scale,
    /// Every row that was measured.
    pub rows: Vec<RowResult>,
    /// The limits.
    pub limits: Limits,
    /// The load generator by itself.
    pub driver: DriverSpeed,
}

/// Judges every row that has figures.
pub(crate) fn judge(rows: &[Row], samples: &Samples, limits: &Limits, wanted: impl Fn(u32) -> bool) -> Vec<RowResult> {
    let result = |row: &Row| {
        let runs = samples.figures.get(row.name).filter(|_| wanted(row.number))?.clone();
        let (limit, binds) = limit_of(row, samples, limits);
        // Memory that was ever taken is not better for having been less in other rounds.
        let figure = if row.name == "10" { runs.iter().copied().fold(0.0, f64::max) } else { median(&runs) };
        let ratio = Ratio::new(row.what, (figure, row.unit), (limit, &binds), row.sense);
        let meets = |target: Target, stretch: bool| match target {
            Target::Ratio(least, more) => ratio.meets(if stretch { more } else { least }),
            Target::Figure(least, more) => {
                let wanted = if stretch { more } else { least };
                if row.sense == Sense::MoreIsBetter { figure >= wanted } else { figure <= wanted }
            }
        };
        let (met, stretch_met) = (meets(row.target, false), meets(row.target, true));
        let notes = samples.notes.get(row.name).cloned().unwrap_or_default();
        Some(RowResult { row: *row, runs, ratio, met, stretch_met, notes })
    };
    rows.iter().filter_map(result).collect()
}

fn limit_of(row: &Row, samples: &Samples, limits: &Limits) -> (f64, String) {
    let of_disk = |limit: &Option<crate::limits::Limit>| {
        limit.as_ref().map_or((f64::NAN, String::new()), |limit| (limit.figure(), limit.name.to_owned()))
    };
    match row.bound {
        Bound::Producing(record_bytes) => {
            let (limit, binds) = limits.producing();
            (limit / f64::from(record_bytes), binds.to_owned())
        }
        Bound::Receiving => (limits.receive.figure(), limits.receive.name.to_owned()),
        Bound::Reading => of_disk(&limits.sequential_read),
        Bound::DurableRecord => {
            let (limit, binds) = limits.durable_record();
            (limit, binds.to_owned())
        }
        Bound::Own(name) => (samples.own_limits.get(row.name).map_or(f64::NAN, |runs| median(runs)), name.to_owned()),
        Bound::Fixed(limit, name) => (limit as f64, name.to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::ROWS;
    use super::*;
    use crate::limits::tests::limits;

    /// Figures for every row, good ones; of the limits, 2 GB/s to disk, 3 to read, 4 to receive, 250 us a record.
    pub(crate) fn samples() -> Samples {
        let mut samples = Samples::default();
        let figures = [
            ("1a", 1.8e9),
            ("1b", 1.95e9),
            ("2", 1.6e9),
            ("3", 5e6),
            ("4", 300.0),
            ("5", 3e5),
            ("6", 3.2e9),
            ("7", 1.4e9),
            ("8", 1.2e9),
            ("9a", 1000.0),
            ("9b", 0.3),
            ("9c", 1.2),
            ("9d", 0.5),
            ("10", 2e8),
        ];
        for (row, figure) in figures {
            [0.9, 1.0, 1.1].into_iter().for_each(|share| samples.add(row, figure * share));
        }
        samples.own_limits.insert("8", vec![1.6e9]);
        samples.note("1a", "pool: 30 recycled, 2 new".to_owned());
        samples
    }

    #[test]
    fn rows_are_judged_by_their_own_bounds() {
        let results = judge(ROWS, &samples(), &limits(true), |_| true);
        assert_eq!(results.len(), ROWS.len());
        let of = |name: &str| results.iter().find(|result| result.row.name == name).expect("it was measured");
        let verdict = |name: &str| (of(name).met, of(name).stretch_met);
        for (name, expected) in [
            ("1a", (true, false)),
            ("1b", (true, true)),
            ("2", (true, false)),
            ("3", (true, false)),
            ("4", (true, true)),
            ("5", (true, false)),
            ("6", (true, false)),
            ("7", (false, false)),
            ("8", (true, false)),
            ("9a", (true, true)),
            ("9c", (false, false)),
            ("9d", (true, true)),
            ("10", (true, true)),
        ] {
            assert_eq!(verdict(name), expected, "row {name}: {:?}", of(name).ratio);
        }
        // The median is judged, of memory the most.
        assert!((of("4").ratio.figure - 300.0).abs() < 1e-6 && (of("10").ratio.figure - 2.2e8).abs() < 1.0);
        assert!((of("3").ratio.limit - 2e7).abs() < 1.0, "2 GB/s are 20 M records of 100 bytes");
    }

    #[test]
    fn only_what_was_asked_for_is_told() {
        let results = judge(ROWS, &samples(), &limits(true), |row| row == 9);
        assert_eq!(results.iter().map(|result| result.row.name).collect::<Vec<_>>(), ["9a", "9b", "9c", "9d"]);
        assert!(judge(ROWS, &Samples::default(), &limits(true), |_| true).is_empty());
    }
}
