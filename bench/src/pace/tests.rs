//! Open loop against closed loop, with a server that stalls.

use super::*;
use crate::measure::{Done, Measured, Recorder};

const MILLISECOND: Nanos = SECOND / 1000;

/// A server that answers one request at a time in 100 us, and stands still from 1.0 s to 2.0 s.
fn against_a_stall(mut pace: Pace) -> Measured {
    let mut recorder = Recorder::new((0, 4 * SECOND));
    let mut now = 0;
    while now < 4 * SECOND {
        let Some(intended) = pace.take(now) else {
            now = pace.due().expect("an open loop always knows");
            continue;
        };
        let begins = if (SECOND..2 * SECOND).contains(&now) { 2 * SECOND } else { now };
        now = begins + MILLISECOND / 10;
        recorder.done(now, &Done { intended, records: 1, bytes: 100 });
    }
    recorder.finish(now)
}

#[test]
fn an_open_loop_sees_the_stall_in_every_request_that_was_meant_for_it() {
    let open = against_a_stall(Pace::Open(Schedule::new(0, 1000.0, Arrivals::Even, 1)));
    // A quarter of four seconds was a stall: the requests of that second waited between 0 and 1 s.
    assert!((3990..=4000).contains(&open.latency.count), "{:?}", open.latency);
    assert!((980_000.0..1_001_000.0).contains(&open.latency.max_us), "{:?}", open.latency);
    assert!((880_000.0..1_000_000.0).contains(&open.latency.p99_us), "{:?}", open.latency);
    assert!((550_000.0..750_000.0).contains(&open.latency.p90_us), "{:?}", open.latency);

    // The same stall in a closed loop is one request among tens of thousands: that is what an open loop is for.
    let closed = against_a_stall(Pace::Closed);
    assert!(closed.latency.max_us > 900_000.0 && closed.latency.p99_9_us < 200.0, "{:?}", closed.latency);
}

#[test]
fn arrivals_keep_their_rate_and_their_seed() {
    for arrivals in [Arrivals::Even, Arrivals::Poisson] {
        let times = |seed| {
            let mut schedule = Schedule::new(5, 10_000.0, arrivals, seed);
            let next = |_| {
                let due = schedule.due();
                schedule.advance();
                due
            };
            (0..100_000).map(next).collect::<Vec<_>>()
        };
        let first = times(1);
        assert_eq!((first[0], &first), (5, &times(1)), "the same seed, the same times");
        assert!(first.is_sorted());
        let seconds = (first[99_999] - 5) as f64 / SECOND as f64;
        assert!((9.8..10.2).contains(&seconds), "{arrivals:?}: {seconds} s for 100,000 at 10,000/s");
        assert_eq!(first == times(2), arrivals == Arrivals::Even);
    }
}

#[test]
fn nothing_is_sent_before_its_time() {
    let mut pace = Pace::Open(Schedule::new(0, 1000.0, Arrivals::Even, 1));
    assert_eq!((pace.take(0), pace.take(999_999)), (Some(0), None));
    // Late by three intervals: all three keep their own intended times.
    let late: Vec<_> = std::iter::from_fn(|| pace.take(3 * MILLISECOND)).collect();
    assert_eq!(late, [MILLISECOND, 2 * MILLISECOND, 3 * MILLISECOND]);
    assert_eq!(Pace::Closed.take(7), Some(7));
}
