//! `minikafka log`: what is on disk, without a broker. Reads only; what verifies and what is damaged is decided in
//! `minikafka_storage::inspect`.

use clap::Subcommand;

use crate::exit::Outcome;
use crate::output::Output;

mod dump;
mod verify;

/// What to do with the files of a broker.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Verify every checksum, hash and index below a directory, or of one file; ends with 6 when something is damaged.
    Verify(verify::VerifyCommand),
    /// Print what is in the segment files, as it lies on disk.
    Dump(dump::DumpCommand),
}

/// Does what was asked with the files.
pub fn run(command: &LogCommand, output: &mut Output) -> Outcome {
    match command {
        LogCommand::Verify(command) => verify::run(command, output),
        LogCommand::Dump(command) => dump::run(command, output),
    }
}
