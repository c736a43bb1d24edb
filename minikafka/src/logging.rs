//! Structured logs on standard error: text on a terminal, one JSON object a line otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::exit::{Failure, Outcome};

/// Says every packet at `info`, session passwords included; heard only by those who ask for it by name.
const TALKATIVE: &str = "zookeeper_async";

/// Starts logging. `level` (an `EnvFilter` expression) goes before `RUST_LOG`, which goes before `default`.
pub fn start(level: Option<&str>, default: &str) -> Outcome {
    let environment = std::env::var("RUST_LOG").ok();
    let level = level.or(environment.as_deref()).unwrap_or(default);
    let quiet = if level.contains(TALKATIVE) { String::new() } else { format!(",{TALKATIVE}=warn") };
    let filter = EnvFilter::try_new(format!("{level}{quiet}"));
    let filter = filter.map_err(|error| {
        Failure::usage(format!("--log-level or RUST_LOG: {error}; write a level such as info, or target=level pairs"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let builder = builder.with_span_events(FmtSpan::NONE).with_target(true);
    if io::stderr().is_terminal() {
        builder.init()
    } else {
        builder.json().flatten_event(true).init()
    }
    Ok(())
}
