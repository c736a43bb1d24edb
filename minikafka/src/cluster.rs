//! `minikafka cluster`: what concerns a cluster as a whole.

use clap::Subcommand;

use crate::exit::Outcome;
use crate::output::Output;

mod create;

use create::CreateOptions;

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Write a new cluster's record to its coordinator and draw its secret; once, before any broker or gateway starts.
    Create(CreateOptions),
}

/// Does it.
pub fn run(command: &ClusterCommand, output: &mut Output) -> Outcome {
    match command {
        ClusterCommand::Create(options) => create::run(options, output),
    }
}
