//! Counting what was done and how long it took: an HDR histogram for the whole run, a row for every second.
//!
//! Throughput counts what is *answered* between the end of the warm-up and the end of the run; latency counts what was
//! *meant to be sent* in that time, also when the answer comes later: a stall at the end is not lost.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::pace::{Nanos, SECOND};
use crate::workload::in_seconds;

/// Longer than any deadline of the protocol; what is longer still counts as this long.
const LATENCY_MAX: Nanos = 600 * SECOND;
/// Significant digits of the latencies of the run: an error of at most 0.1 %.
const DIGITS: u8 = 3;
/// The same for one second of the timeline.
const DIGITS_OF_A_SECOND: u8 = 2;
/// Quantiles of the plotted curve.
const CURVE: [f64; 16] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 1.0];

/// Latencies in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// The shortest.
    pub min_us: f64,
    /// The arithmetic mean.
    pub mean_us: f64,
    /// The median.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p99_9_us: f64,
    /// 99.99 %.
    pub p99_99_us: f64,
    /// The longest.
    pub max_us: f64,
    /// (quantile, microseconds), for the plot.
    pub curve: Vec<(f64, f64)>,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let us = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            min_us: us(histogram.min()),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: us(histogram.max()),
            curve: CURVE.iter().map(|&quantile| (quantile, at(quantile))).collect(),
        }
    }
}

/// One second of a run; the last one may be shorter.
#[derive(Clone, Debug, Serialize)]
pub struct Interval {
    /// When it began, in seconds since the start.
    pub at_s: f64,
    /// How long it is.
    pub seconds: f64,
    /// Whether it belongs to the warm-up.
    pub warm_up: bool,
    /// Requests answered.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of those records.
    pub bytes: u64,
    /// Median latency of what was answered.
    pub p50_us: f64,
    /// 99 % of it.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// What was counted in a stretch of time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// How long it was.
    pub seconds: f64,
    /// Requests answered.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of those records: keys and values.
    pub bytes: u64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Records a second.
    pub records_per_second: f64,
    /// Bytes of records a second.
    pub bytes_per_second: f64,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Without the warm-up.
    pub totals: Totals,
    /// Of what was meant to be sent after the warm-up.
    pub latency: Percentiles,
    /// Second by second, warm-up included.
    pub timeline: Vec<Interval>,
    /// Records answered in the whole run: warm-up, what is measured, and what came after its end.
    pub all_records: u64,
    /// Requests that had no answer when the run was given up; their latency is counted as the time until then.
    pub unanswered: u64,
}

/// Something that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// When it was meant to be sent.
    pub intended: Nanos,
    /// Its records.
    pub records: u32,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    records: u64,
    bytes: u64,
}

impl Counts {
    fn add(&mut self, done: &Done) {
        self.requests += 1;
        self.records += u64::from(done.records);
        self.bytes += done.bytes;
    }
}

/// Counts as it goes.
#[derive(Debug)]
pub struct Recorder {
    measured: (Nanos, Nanos),
    latencies: Histogram<u64>,
    counted: Counts,
    all: Counts,
    second: Histogram<u64>,
    second_counts: Counts,
    second_start: Nanos,
    timeline: Vec<Interval>,
    unanswered: u64,
}

impl Recorder {
    /// Counts what lies between the two times.
    pub fn new(measured: (Nanos, Nanos)) -> Self {
        let histogram = |digits| {
            Histogram::new_with_bounds(1, LATENCY_MAX, digits).expect("the bounds are constants that it takes")
        };
        Self {
            measured,
            latencies: histogram(DIGITS),
            counted: Counts::default(),
            all: Counts::default(),
            second: histogram(DIGITS_OF_A_SECOND),
            second_counts: Counts::default(),
            second_start: 0,
            timeline: Vec::new(),
            unanswered: 0,
        }
    }

    /// Something was answered at `now`.
    #[inline]
    pub fn done(&mut self, now: Nanos, done: &Done) {
        while now >= self.second_start + SECOND {
            self.end_second(self.second_start + SECOND);
        }
        let latency = now.saturating_sub(done.intended);
        let (from, to) = self.measured;
        if (from..to).contains(&done.intended) {
            self.latencies.saturating_record(latency);
        }
        if (from..to).contains(&now) {
            self.counted.add(done);
        }
        self.all.add(done);
        self.second.saturating_record(latency);
        self.second_counts.add(done);
    }

    /// A request was given up at `now` without an answer.
    pub fn unanswered(&mut self, now: Nanos, intended: Nanos) {
        self.unanswered += 1;
        if (self.measured.0..self.measured.1).contains(&intended) {
            self.latencies.saturating_record(now.saturating_sub(intended));
        }
    }

    /// Bytes of records so far, warm-up included.
    pub fn bytes(&self) -> u64 {
        self.all.bytes
    }

    /// Records so far, warm-up included.
    pub fn records(&self) -> u64 {
        self.all.records
    }

    /// Ends the run early: from now on nothing is counted.
    pub fn cut(&mut self, now: Nanos) {
        self.measured.1 = self.measured.1.min(now);
    }

    /// The result. `now`: when the run ended.
    pub fn finish(mut self, now: Nanos) -> Measured {
        let (from, to) = (self.measured.0, self.measured.1.min(now));
        while to > self.second_start {
            self.end_second(to.min(self.second_start + SECOND));
        }
        let seconds = in_seconds(to.saturating_sub(from));
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let Counts { requests, records, bytes } = self.counted;
        let totals = Totals {
            seconds,
            requests,
            records,
            bytes,
            requests_per_second: rate(requests),
            records_per_second: rate(records),
            bytes_per_second: rate(bytes),
        };
        Measured {
            totals,
            latency: Percentiles::of(&self.latencies),
            timeline: self.timeline,
            all_records: self.all.records,
            unanswered: self.unanswered,
        }
    }

    fn end_second(&mut self, end: Nanos) {
        let us = |nanos: u64| nanos as f64 / 1e3;
        let Counts { requests, records, bytes } = std::mem::take(&mut self.second_counts);
        self.timeline.push(Interval {
            at_s: in_seconds(self.second_start),
            seconds: in_seconds(end - self.second_start),
            warm_up: self.second_start < self.measured.0,
            requests,
            records,
            bytes,
            p50_us: us(self.second.value_at_quantile(0.5)),
            p99_us: us(self.second.value_at_quantile(0.99)),
            max_us: us(self.second.max()),
        });
        self.second.reset();
        self.second_start = end;
    }
}

#[cfg(test)]
mod tests;
