//! Structured logs on standard error: text on a terminal, one JSON object a line otherwise; their filter can be changed while
//! the process runs. In what serves, warnings and errors that repeat are limited ([`repeats`]).

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use minikafka_core::limits;
use minikafka_gateway::LogFilter;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::cli::{LogFormat, LogOptions};

mod repeats;

use repeats::{Limit, Repeats};

/// Says every packet at `info`, session passwords included; heard only by those who ask for it by name.
const TALKATIVE: &str = "zookeeper_async";

/// The logs of this process.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The filter as it was said last.
    said: Arc<Mutex<String>>,
    repeats: Arc<Repeats>,
}

/// Starts logging. `default` is the filter where nobody says any. What `serves` goes on for long: what repeats is limited.
pub fn start(options: &LogOptions, default: &str, serves: bool) -> Logs {
    let said = options.level.as_deref().filter(|level| !level.is_empty()).unwrap_or(default).to_owned();
    let (filter, handle) = reload::Layer::new(env_filter(&said));
    let repeats = Arc::new(Repeats::default());
    let limit = (serves && settle_by_itself(&repeats)).then(|| Limit(repeats.clone()));
    let lines = fmt::layer().with_writer(io::stderr).with_target(true);
    let lines = match options.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto if !io::stderr().is_terminal() => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto | LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(filter).with(limit).with(lines).init();
    Logs { filter: handle, said: Arc::new(Mutex::new(said)), repeats }
}

/// Ends every window in time. False: there is no thread for it, so nothing may be left out.
fn settle_by_itself(repeats: &Arc<Repeats>) -> bool {
    let repeats = repeats.clone();
    let settle = move || {
        loop {
            thread::sleep(Duration::from_millis(limits::LOG_WINDOW_MS));
            repeats.settle();
        }
    };
    thread::Builder::new().name("logs".to_owned()).spawn(settle).is_ok()
}

impl Logs {
    /// Tells what was left out and not told yet.
    pub fn finish(&self) {
        self.repeats.settle();
    }
}

impl LogFilter for Logs {
    fn current(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, wanted: &str) -> Result<(), String> {
        let wanted = filter(wanted)?;
        // Held until it is done: of two changes, the one that is told is the one that holds.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(env_filter(&wanted)).map_err(|error| error.to_string())?;
        *said = wanted;
        Ok(())
    }
}

/// A filter as an operator writes it, or what is wrong with it.
pub fn filter(text: &str) -> Result<String, String> {
    let how = "write a level (error, warn, info, debug, trace, off), or levels of targets, such as info,minikafka_broker=debug";
    // To the filter's own parser a word that is no level is a target: with a slip of the pen all logs would end.
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if !part.contains(['=', '[']) && part.parse::<LevelFilter>().is_err() {
            return Err(format!("{part:?} is no level; {how}"));
        }
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; {how}")),
    }
}

/// What a filter that was checked lets through.
fn env_filter(checked: &str) -> EnvFilter {
    let quiet = if checked.contains(TALKATIVE) { String::new() } else { format!(",{TALKATIVE}=warn") };
    EnvFilter::new(format!("{checked}{quiet}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_say_nothing_are_refused_with_what_is_wrong() {
        for good in
            ["info", "WARN", "off", "info,minikafka_broker=debug", "minikafka_net[connection{peer=a}]=trace", ""]
        {
            assert_eq!(filter(good).as_deref(), Ok(good));
        }
        for bad in ["inof", "info,minikafka_broker", "info,minikafka_broker=loud", "=", "a=b=c"] {
            let wrong = filter(bad).expect_err(bad);
            assert!(wrong.contains("minikafka_broker=debug"), "{wrong}");
        }
    }
}
