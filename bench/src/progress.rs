//! A line that shows that something is going on: on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::measure::Recorder;
use crate::pace::{Nanos, SECOND};

/// How often it is drawn at most.
const TICK: Nanos = SECOND / 10;

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    last: std::cell::Cell<(Nanos, u64, u64)>,
}

impl Progress {
    /// A run of `end` nanoseconds. Where nobody watches, nothing is shown.
    pub fn new(what: &str, end: Nanos, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(end / 1_000_000), target);
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(what.to_owned());
        Self { bar, last: std::cell::Cell::default() }
    }

    /// Shows the rate since it was shown before.
    pub fn show(&self, now: Nanos, recorder: &Recorder) {
        if self.bar.is_hidden() {
            return;
        }
        let (then, bytes, records) = self.last.get();
        if then > 0 && now < then + TICK {
            return;
        }
        self.last.set((now, recorder.bytes(), recorder.records()));
        let seconds = (now - then) as f64 / SECOND as f64;
        if seconds > 0.0 {
            let megabytes = (recorder.bytes() - bytes) as f64 / seconds / 1e6;
            let rate = (recorder.records() - records) as f64 / seconds;
            self.bar.set_message(format!("{megabytes:.0} MB/s, {rate:.0} records/s"));
        }
        self.bar.set_position(now / 1_000_000);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A spinner for work without a known end.
pub fn spinner(what: &str, shown: bool) -> ProgressBar {
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target).with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// One line on standard error.
pub fn line(what: &str) {
    eprintln!("{what}");
}
