//! The simulator alone, without the rest of the binary: quick to build, and what `scripts/simulate` runs.

use std::process::ExitCode;

use clap::Parser;
use minikafka_sim::command::{SimCommand, run};

/// Brokers, controllers and clients in a hostile virtual world, replayed by seed.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    command: SimCommand,
}

fn main() -> ExitCode {
    if run(&Options::parse().command) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
