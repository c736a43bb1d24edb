//! `minikafka bench`: the load generator, which lives in the bench crate.

use minikafka_bench::{BenchCommand, BenchError, Context};

use crate::cli::GlobalOptions;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::process_limits;

/// Runs a measurement and shows what came of it.
pub fn run(command: &BenchCommand, global: &GlobalOptions, output: &mut Output) -> Outcome {
    // The disk is measured as a broker uses it, with buffers that the kernel may pin.
    process_limits::raise();
    let binary = std::env::current_exe().map_err(|error| Failure::io("looking for this binary", &error))?;
    let context = Context { gateways: global.gateway.clone(), binary, shows_progress: !global.json };
    let report = minikafka_bench::run(command, &context).map_err(failure)?;
    output.show(&report)
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Client(error) => error.into(),
        BenchError::Options(message) => Failure::usage(message),
        other => Failure::failed(other.to_string()),
    }
}
