//! Structured logs on standard error: text on a terminal, one JSON object a line otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::exit::{Failure, Outcome};

/// Starts logging. `level` (an `EnvFilter` expression) goes before `RUST_LOG`, which goes before `default`.
pub fn start(level: Option<&str>, default: &str) -> Outcome {
    let filter = match level {
        Some(level) => EnvFilter::try_new(level),
        None => EnvFilter::try_new(std::env::var("RUST_LOG").as_deref().unwrap_or(default)),
    };
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
