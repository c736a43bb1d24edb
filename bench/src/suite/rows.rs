//! The rows: what each one promises, and which function measures it.

use serde::Serialize;

use super::measuring::{self, Suite};
use crate::error::Result;
use crate::report::ratio::Sense;

/// Memory that the broker may take by default: 256 MiB a shard, and there is one.
pub const MEMORY_BOUND: f64 = (256u64 << 20) as f64;

/// What sets the limit of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The slower of durable write and receive; divided by the bytes of a record (1: bytes).
    Producing(u32),
    /// Loopback receive with CRC-32C on one core.
    Receiving,
    /// Aligned sequential read.
    Reading,
    /// One durable 4 KiB write and one round trip.
    DurableRecord,
    /// Another figure of the same row, measured in the same round.
    Own(&'static str),
    /// A fixed one.
    Fixed(u64, &'static str),
}

/// What a row promises.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A ratio to the limit: at least this, and this if it can be.
    Ratio(f64, f64),
    /// A figure of its own.
    Figure(f64, f64),
}

/// One row.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// By which it is chosen.
    pub number: u32,
    /// By which its figures are kept.
    pub name: &'static str,
    /// What it measures.
    pub what: &'static str,
    /// Unit of its figure.
    pub unit: &'static str,
    /// Which way it is good.
    pub sense: Sense,
    /// What limits it.
    pub bound: Bound,
    /// What it promises.
    pub target: Target,
}

const fn more(
    number: u32,
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    bound: Bound,
    target: Target,
) -> Row {
    Row { number, name, what, unit, sense: Sense::MoreIsBetter, bound, target }
}

const fn less(
    number: u32,
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    bound: Bound,
    target: Target,
) -> Row {
    Row { number, name, what, unit, sense: Sense::LessIsBetter, bound, target }
}

/// Every row, in order.
pub const ROWS: &[Row] = &[
    more(
        1,
        "1a",
        "1 KiB records in 256 KiB batches, durable",
        "bytes/s",
        Bound::Producing(1),
        Target::Ratio(0.8, 0.95),
    ),
    more(1, "1b", "1 KiB records in 1 MiB batches, durable", "bytes/s", Bound::Producing(1), Target::Ratio(0.8, 0.95)),
    more(2, "2", "1 KiB records in 16 KiB batches, durable", "bytes/s", Bound::Producing(1), Target::Ratio(0.75, 0.9)),
    more(
        3,
        "3",
        "100-byte records in 256 KiB batches, durable",
        "records/s",
        Bound::Producing(100),
        Target::Figure(4e6, 8e6),
    ),
    less(4, "4", "one 100-byte record in flight, durable, p50", "us", Bound::DurableRecord, Target::Ratio(1.5, 1.2)),
    more(
        5,
        "5",
        "one 100-byte record a batch, 8 connections, 256 in flight each, 64 partitions",
        "records/s",
        Bound::Producing(100),
        Target::Figure(2e5, 5e5),
    ),
    more(6, "6", "fetch of recent data", "bytes/s", Bound::Receiving, Target::Ratio(0.75, 0.9)),
    more(
        7,
        "7",
        "catch-up from disk: one partition of 64 written interleaved in 64 KiB batches",
        "bytes/s",
        Bound::Reading,
        Target::Ratio(0.5, 0.8),
    ),
    more(
        8,
        "8",
        "16 KiB batches over 10,000 partitions, against 16",
        "bytes/s",
        Bound::Own("the same load over 16 partitions"),
        Target::Ratio(0.7, 0.9),
    ),
    less(
        9,
        "9a",
        "resident memory of an idle partition, of 10,000",
        "bytes",
        Bound::Fixed(2048, "what an idle partition may take"),
        Target::Ratio(1.0, 1.0),
    ),
    less(
        9,
        "9b",
        "start-up on the log after a clean stop, process start to ready",
        "s",
        Bound::Fixed(1, "what a start may take"),
        Target::Ratio(1.0, 1.0),
    ),
    less(
        9,
        "9c",
        "start-up on the log after SIGKILL, process start to ready",
        "s",
        Bound::Fixed(1, "what a start may take"),
        Target::Ratio(1.0, 1.0),
    ),
    less(
        9,
        "9d",
        "processor time of an idle broker with 10,000 partitions",
        "% of a core",
        Bound::Fixed(1, "what an idle broker may take"),
        Target::Ratio(1.0, 1.0),
    ),
    less(
        10,
        "10",
        "peak resident memory of the broker's process over all rows",
        "bytes",
        Bound::Fixed(MEMORY_BOUND as u64, "the memory it was given, 256 MiB a shard"),
        Target::Ratio(1.0, 1.0),
    ),
];

/// Measures rows of one number once.
pub(super) type Measure = fn(&mut Suite<'_>) -> Result<()>;

/// What is measured, by number.
pub(super) const MEASURED: [(u32, Measure); 9] = [
    (1, measuring::large_batches),
    (2, measuring::small_batches),
    (3, measuring::small_records),
    (4, measuring::one_in_flight),
    (5, measuring::single_records),
    (6, measuring::recent),
    (7, measuring::catch_up),
    (8, measuring::many_partitions),
    (9, measuring::idle_and_start),
];
