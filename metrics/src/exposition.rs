//! Values of metrics at one moment, merged and written in the text format of Prometheus.

use std::collections::BTreeMap;

use minikafka_core::histogram::{CountedDurations, DURATION_BOUNDS_NS};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::definition::{Definition, Kind};

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

const NS_PER_SECOND: f64 = 1e9;

/// Values of metrics. Made on the thread that counts, taken to the one that answers, merged there: values of the same series
/// add up.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<&'static str, Family>,
    /// Families that are not ours to define.
    foreign: Vec<MetricFamily>,
}

#[derive(Debug)]
struct Family {
    definition: &'static Definition,
    series: BTreeMap<Vec<String>, Value>,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Durations(Box<CountedDurations>),
}

impl Value {
    fn add(&mut self, more: Self) {
        match (self, more) {
            (Self::Number(sum), Self::Number(more)) => *sum += more,
            (Self::Durations(sum), Self::Durations(more)) => sum.add(&more),
            _ => unreachable!("values of one definition are of one kind"),
        }
    }
}

impl Exposition {
    /// Adds to a counter or a gauge.
    ///
    /// # Panics
    /// When the labels are not as many as the definition names, or it is of durations.
    pub fn add(&mut self, definition: &'static Definition, labels: &[&str], value: impl Into<Number>) {
        assert_ne!(definition.kind, Kind::Histogram, "{} takes durations", definition.name);
        self.put(definition, labels, Value::Number(value.into().0));
    }

    /// Adds to a histogram.
    ///
    /// # Panics
    /// When the labels are not as many as the definition names, or it is not of durations.
    pub fn add_durations(&mut self, definition: &'static Definition, labels: &[&str], counted: &CountedDurations) {
        assert_eq!(definition.kind, Kind::Histogram, "{} takes numbers", definition.name);
        self.put(definition, labels, Value::Durations(Box::new(counted.clone())));
    }

    fn put(&mut self, definition: &'static Definition, labels: &[&str], value: Value) {
        assert_eq!(labels.len(), definition.labels.len(), "labels of {}: {:?}", definition.name, definition.labels);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.put_owned(definition, labels, value);
    }

    fn put_owned(&mut self, definition: &'static Definition, labels: Vec<String>, value: Value) {
        let new = || Family { definition, series: BTreeMap::new() };
        let series = &mut self.families.entry(definition.name).or_insert_with(new).series;
        match series.entry(labels) {
            std::collections::btree_map::Entry::Occupied(mut there) => there.get_mut().add(value),
            std::collections::btree_map::Entry::Vacant(empty) => drop(empty.insert(value)),
        }
    }

    /// Takes what another thread has.
    pub fn merge(&mut self, other: Self) {
        for family in other.families.into_values() {
            for (labels, value) in family.series {
                self.put_owned(family.definition, labels, value);
            }
        }
        self.foreign.extend(other.foreign);
    }

    /// Takes families that somebody else defines.
    pub(crate) fn add_foreign(&mut self, families: Vec<MetricFamily>) {
        self.foreign.extend(families);
    }

    /// The text that Prometheus reads.
    pub fn text(self) -> String {
        let mut families: Vec<MetricFamily> = self.families.into_values().map(Family::encoded).collect();
        families.extend(self.foreign);
        let text = TextEncoder::new().encode_to_string(&families);
        // It refuses families without a name or without a series, and there are none.
        text.unwrap_or_else(|error| unreachable!("every family has a name and a series: {error}"))
    }
}

impl Family {
    fn encoded(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.definition.name.to_owned());
        family.set_help(self.definition.help.to_owned());
        family.set_field_type(match self.definition.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        let names = self.definition.labels;
        let kind = self.definition.kind;
        let metric = |(labels, value): (Vec<String>, Value)| {
            let mut metric = Metric::default();
            metric.set_label(names.iter().zip(labels).map(|(name, value)| label(name, value)).collect());
            match value {
                Value::Number(number) if kind == Kind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(number);
                    metric.set_counter(counter);
                }
                Value::Number(number) => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(number);
                    metric.set_gauge(gauge);
                }
                Value::Durations(counted) => metric.set_histogram(histogram(&counted)),
            }
            metric
        };
        family.set_metric(self.series.into_iter().map(metric).collect());
        family
    }
}

fn label(name: &str, value: String) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value);
    label
}

/// Buckets of Prometheus count what is at or below their bound.
fn histogram(counted: &CountedDurations) -> Histogram {
    let mut below = 0;
    let bucket = |(bound, count): (&u64, &u64)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / NS_PER_SECOND);
        bucket.set_cumulative_count(below);
        bucket
    };
    let buckets = DURATION_BOUNDS_NS.iter().zip(&counted.counts).map(bucket).collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(counted.total());
    histogram.set_sample_sum(counted.sum_ns as f64 / NS_PER_SECOND);
    histogram
}

/// What Prometheus counts in.
#[derive(Clone, Copy, Debug)]
pub struct Number(f64);

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        // Exact to 2^53, which is 9 petabytes.
        Self(value as f64)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Self {
        Self(f64::from(value))
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self(value as f64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self(f64::from(u8::from(value)))
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::histogram::DurationHistogram;

    use super::*;

    const TAKEN: Definition = Definition::counter("minikafka_taken_total", &["shard"], "How many were taken.");
    const OPEN: Definition = Definition::gauge("minikafka_open", &[], "How many are open.");
    const TOOK: Definition = Definition::histogram("minikafka_took_seconds", &["stage"], "How long it took.");

    #[test]
    fn shards_add_up_and_prometheus_reads_the_sum() {
        static DEFINITIONS: [Definition; 3] = [TAKEN, OPEN, TOOK];
        let [taken, open, took] = &DEFINITIONS;
        let durations = DurationHistogram::default();
        durations.record(2_000_000);
        let shard = |shard: &str| {
            let mut exposition = Exposition::default();
            exposition.add(taken, &[shard], 3_u64);
            exposition.add(open, &[], 2_u32);
            exposition.add_durations(took, &["reply"], &durations.counted());
            exposition
        };
        let mut all = shard("0");
        all.merge(shard("1"));
        let text = all.text();
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "# HELP minikafka_taken_total How many were taken.",
            "# TYPE minikafka_taken_total counter",
            "minikafka_taken_total{shard=\"0\"} 3",
            "minikafka_taken_total{shard=\"1\"} 3",
            "minikafka_open 4",
            "minikafka_took_seconds_bucket{stage=\"reply\",le=\"0.001\"} 0",
            "minikafka_took_seconds_bucket{stage=\"reply\",le=\"0.0025\"} 2",
            "minikafka_took_seconds_bucket{stage=\"reply\",le=\"+Inf\"} 2",
            "minikafka_took_seconds_sum{stage=\"reply\"} 0.004",
            "minikafka_took_seconds_count{stage=\"reply\"} 2",
        ] {
            assert!(lines.contains(&line), "{line:?} is missing in\n{text}");
        }
    }
}
