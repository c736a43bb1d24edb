//! One metric, in words.

/// Defines the metrics of a chapter: a static for each, and the list of all.
///
/// ```
/// minikafka_metrics::definitions! { TAKING:
///     counter TAKEN "minikafka_taken_total" ["shard"] "How many were taken.";
///     gauge OPEN "minikafka_open" [] "How many are open.";
/// }
/// assert_eq!(TAKING[0], &TAKEN);
/// ```
#[macro_export]
macro_rules! definitions {
    ($chapter:ident: $($kind:ident $ident:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $ident: $crate::Definition = $crate::Definition::$kind($name, &[$($label),*], $help);
        )+
        /// The metrics of this chapter, in the order of the reference.
        pub const $chapter: &[&$crate::Definition] = &[$(&$ident),+];
    };
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// How much of something there is now.
    Gauge,
    /// Durations in buckets, in seconds.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric: what it is called, what distinguishes its series, what it means.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name: `minikafka_`, base unit last, `_total` for counters.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, in one sentence or two.
    pub help: &'static str,
}

impl Definition {
    /// A number that only grows.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A number that goes up and down.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    /// Durations.
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, labels, help }
    }
}
