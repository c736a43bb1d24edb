//! Warnings and errors that come again and again are told a few times, then counted, and the count is told.
//!
//! A place in the code may tell so many in a window; what it leaves out is told by [`Repeats::settle`] at the window's end,
//! with the first message that was left out. Other levels are not limited: what is asked for in detail is wanted.
//! Places are bounded by the code. Who warns takes a lock, for an instant, as it does for standard error: nothing on the data
//! path warns.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};

use minikafka_core::limits;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// What was left out is told under this name, and always.
const TARGET: &str = "minikafka::repeats";

/// Counts what each place has told in this window.
#[derive(Debug, Default)]
pub struct Repeats {
    places: Mutex<HashMap<Identifier, Place>>,
}

/// Leaves out what is too much.
#[derive(Debug)]
pub struct Limit(pub Arc<Repeats>);

/// One place in the code that warns.
#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    told: u32,
    left_out: u64,
    /// The first message that was left out.
    message: String,
}

impl Repeats {
    /// Whether an event is told.
    fn admit(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || metadata.target() == TARGET {
            return true;
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Place { metadata, told: 0, left_out: 0, message: String::new() };
        let place = places.entry(metadata.callsite()).or_insert(new);
        if place.told < limits::LOG_REPEATS_MAX {
            place.told += 1;
            return true;
        }
        if place.left_out == 0 {
            event.record(&mut Message(&mut place.message));
        }
        place.left_out += 1;
        false
    }

    /// Ends a window: tells what was left out in it, and begins another one.
    pub fn settle(&self) {
        let places = std::mem::take(&mut *self.places.lock().unwrap_or_else(PoisonError::into_inner));
        for place in places.into_values().filter(|place| place.left_out > 0) {
            let Place { metadata, left_out, message, .. } = place;
            let (of, file) = (metadata.target(), metadata.file().unwrap_or_default());
            let line = metadata.line().unwrap_or_default();
            tracing::warn!(target: TARGET, left_out, of, file, line, repeated = message, "left out: the same again");
        }
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admit(event)
    }
}

/// Keeps the message of an event.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Keeps the fields of every event that is told.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    struct Fields(String);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            let _ = write!(self.0, "{}={value:?} ", field.name());
        }
    }

    impl<S: Subscriber> Layer<S> for Told {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }

    fn warn_often(times: u32) {
        for number in 0..times {
            tracing::warn!(number, "the disk is slow");
        }
    }

    #[test]
    fn what_repeats_is_told_a_few_times_and_then_counted() {
        let (repeats, told) = (Arc::new(Repeats::default()), Told::default());
        let subscriber = tracing_subscriber::registry().with(Limit(repeats.clone())).with(told.clone());
        let count = || told.0.lock().unwrap().len();
        tracing::subscriber::with_default(subscriber, || {
            warn_often(limits::LOG_REPEATS_MAX + 7);
            assert_eq!(count(), limits::LOG_REPEATS_MAX as usize);
            tracing::error!("another place has a count of its own");
            (0..100).for_each(|number| tracing::info!(number, "wanted in detail"));
            assert_eq!(count(), limits::LOG_REPEATS_MAX as usize + 101);
            repeats.settle();
            assert_eq!(count(), limits::LOG_REPEATS_MAX as usize + 102, "one line says what was left out");
            let last = told.0.lock().unwrap().last().cloned().unwrap();
            assert!(last.contains("left_out=7 ") && last.contains("the disk is slow"), "{last}");
            repeats.settle();
            warn_often(1);
            assert_eq!(count(), limits::LOG_REPEATS_MAX as usize + 103, "a new window, and nothing to tell of the old");
        });
    }
}
