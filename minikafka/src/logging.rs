//! Structured logs on standard error: text on a terminal, one JSON object a line otherwise.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, LogOptions};

/// Says every packet at `info`, session passwords included; heard only by those who ask for it by name.
const TALKATIVE: &str = "zookeeper_async";

/// Starts logging. `default` is the filter where nobody says any.
pub fn start(options: &LogOptions, default: &str) {
    let said = options.level.as_deref().filter(|level| !level.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(env_filter(said.unwrap_or(default)));
    let builder = builder.with_writer(io::stderr).with_target(true);
    match options.format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Auto if !io::stderr().is_terminal() => builder.json().flatten_event(true).init(),
        LogFormat::Auto | LogFormat::Text => builder.init(),
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
