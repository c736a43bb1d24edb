//! What is counted when.

use super::*;

const MS: Nanos = SECOND / 1000;

fn done(intended: Nanos) -> Done {
    Done { intended, records: 2, bytes: 10 }
}

#[test]
fn the_warm_up_is_not_counted_and_the_tail_is() {
    let mut recorder = Recorder::new((SECOND, 3 * SECOND));
    recorder.done(900 * MS, &done(100 * MS));
    // Meant in the warm-up, answered after it: throughput, not latency.
    recorder.done(1100 * MS, &done(900 * MS));
    recorder.done(2000 * MS, &done(1990 * MS));
    // Meant within the run, answered after it: latency, not throughput; twice.
    recorder.done(3500 * MS, &done(2500 * MS));
    recorder.done(3600 * MS, &done(2600 * MS));
    recorder.unanswered(5 * SECOND, 2900 * MS);
    let measured = recorder.finish(3 * SECOND);
    assert_eq!((measured.totals.requests, measured.totals.records, measured.totals.bytes), (2, 4, 20));
    assert!((measured.totals.seconds - 2.0).abs() < 1e-9 && (measured.totals.records_per_second - 2.0).abs() < 1e-9);
    assert_eq!((measured.latency.count, measured.unanswered, measured.all_records), (4, 1, 10));
    assert!((2_090_000.0..2_110_000.0).contains(&measured.latency.max_us), "{:?}", measured.latency);
    assert!((9_900.0..10_100.0).contains(&measured.latency.min_us));
}

#[test]
fn the_timeline_has_a_row_for_every_second() {
    let mut recorder = Recorder::new((SECOND, 4 * SECOND));
    recorder.done(500 * MS, &done(499 * MS));
    // Nothing happens in second 1 and 2.
    recorder.done(3100 * MS, &done(3000 * MS));
    recorder.cut(3500 * MS);
    let timeline = recorder.finish(3500 * MS).timeline;
    assert_eq!(timeline.iter().map(|row| row.requests).collect::<Vec<_>>(), [1, 0, 0, 1]);
    assert_eq!(timeline.iter().map(|row| row.warm_up).collect::<Vec<_>>(), [true, false, false, false]);
    assert!((timeline[3].seconds - 0.5).abs() < 1e-9 && timeline[3].p50_us > 90_000.0 && timeline[1].max_us == 0.0);
}

#[test]
fn percentiles_reach_the_rare_ones() {
    let mut recorder = Recorder::new((0, SECOND));
    for request in 0..100_000u64 {
        let latency = if request % 5_000 == 0 { 50 * MS } else { MS };
        recorder.done(latency, &done(0));
    }
    let latency = recorder.finish(SECOND).latency;
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.002;
    assert!(near(latency.p50_us, 1e3) && near(latency.p99_9_us, 1e3), "{latency:?}");
    assert!(near(latency.p99_99_us, 5e4) && near(latency.max_us, 5e4), "{latency:?}");
    assert!(latency.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{latency:?}");
}
