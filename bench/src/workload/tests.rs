//! Options and distributions.

use std::collections::HashMap;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    records: Records,
}

/// Options as a command line gives them.
pub(crate) fn line(text: &str) -> (Load, Records) {
    let line = Line::try_parse_from(std::iter::once("bench").chain(text.split_whitespace())).unwrap();
    (line.load, line.records)
}

/// The options of records alone.
pub(crate) fn records(text: &str) -> Records {
    line(text).1
}

fn counts(distribution: KeyDistribution, keys: u64, draws: usize) -> HashMap<u64, usize> {
    let mut drawn = HashMap::new();
    let mut source = Keys::new(distribution, keys, 7);
    (0..draws).for_each(|_| *drawn.entry(source.draw()).or_default() += 1);
    drawn
}

#[test]
fn keys_in_turn_come_equally_often() {
    let counts = counts(KeyDistribution::Sequential, 100, 1_000);
    assert!(counts.len() == 100 && counts.values().all(|&count| count == 10));
}

#[test]
fn uniform_keys_come_about_equally_often() {
    let counts = counts(KeyDistribution::Uniform, 100, 100_000);
    assert!(counts.len() == 100 && counts.values().all(|&count| (800..1_200).contains(&count)), "{counts:?}");
}

/// Key k comes 1 / (k + 1)^0.99 as often as key 0.
#[test]
fn zipf_keys_come_by_their_rank() {
    let counts = counts(KeyDistribution::Zipf, 1_000, 1_000_000);
    let of = |key| counts.get(&key).copied().unwrap_or_default() as f64;
    for rank in [2.0f64, 10.0, 100.0] {
        let (found, expected) = (of(rank as u64 - 1) / of(0), rank.powf(-0.99));
        assert!((found / expected - 1.0).abs() < 0.15, "rank {rank}: {found} of the first, expected {expected}");
    }
    assert!(counts.keys().all(|&key| key < 1_000));
}

#[test]
fn what_cannot_be_is_refused() {
    for bad in [
        "--record-bytes 3M",
        "--record-bytes 4 --keys zipf",
        "--batch-bytes 512",
        "--batch-bytes 5M",
        "--key-count 0",
        "--rate 0",
    ] {
        assert!(records(bad).check().is_err(), "{bad}");
    }
    assert!(records("--record-bytes 100 --keys uniform --rate 5000").check().is_ok());
}

#[test]
fn a_rate_of_records_is_a_pace_of_batches() {
    let Pace::Open(mut schedule) = records("--rate 1000").pace(10, 1) else { panic!("a rate is an open loop") };
    assert_eq!(schedule.due(), 0);
    assert_eq!(
        Pace::Open({
            schedule = Schedule::new(3, 100.0, Arrivals::Even, 1);
            schedule
        })
        .due(),
        Some(3)
    );
    assert!(matches!(records("").pace(10, 1), Pace::Closed));
}
