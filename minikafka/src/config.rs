//! The configuration file: one TOML file for broker, gateway, dev and server, and `minikafka config` to look at it.
//!
//! A flag goes before its environment variable, that before the file, that before the default. There is one definition of
//! each setting: its flag on the command line ([`keys`]). What the file says is given to the parser of the command line as
//! other defaults, so that it goes the way of a flag from there on.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Subcommand};

use crate::cli::Cli;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

mod file;
mod keys;
mod print;

use file::Settings;
use keys::COMMANDS;
use print::Printed;

/// Where the configuration file is, for every command that has one.
#[derive(Clone, Debug, Args)]
pub struct ConfigOptions {
    /// A file with settings: what neither a flag nor an environment variable says. `minikafka config print --defaults` shows all.
    #[arg(long, value_name = "FILE", env = "MINIKAFKA_CONFIG")]
    config: Option<PathBuf>,
}

/// What to do with configuration files.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file: each key is known, each value can be. Every mistake is told, with its line.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print every key with its meaning, unit and value, as a file.
    Print(PrintOptions),
}

/// Options of `minikafka config print`.
#[derive(Debug, Args)]
pub struct PrintOptions {
    /// The defaults, whatever file and environment say.
    #[arg(long)]
    defaults: bool,
    #[command(flatten)]
    config: ConfigOptions,
}

/// Reads the command line, over the configuration file that it, or the environment, names.
pub fn command_line(arguments: impl IntoIterator<Item = OsString>) -> Outcome<Cli> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = Cli::command();
    if let Some(file) = named_file(&arguments) {
        command = keys::with_defaults(command, &Settings::read(&file)?);
    }
    // Its own errors, and its help, are for whoever typed the line.
    let mut matches = command.try_get_matches_from_mut(arguments).unwrap_or_else(|error| error.exit());
    Ok(Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit()))
}

/// The configuration file of a command that has one. Whatever else is wrong with the line is told later.
fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok()?;
    let (name, matches) = matches.subcommand()?;
    let has_file = COMMANDS.contains(&name);
    has_file.then(|| matches.get_one::<PathBuf>("config").cloned()).flatten()
}

/// Does what was asked with a configuration file.
pub fn run(command: &ConfigCommand, output: &mut Output) -> Outcome {
    match command {
        ConfigCommand::Check { file } => {
            let settings = Settings::read(file)?;
            output.show(&print::Checked { file: file.display().to_string(), keys: settings.count() })
        }
        ConfigCommand::Print(options) if options.defaults => output.show(&Printed::defaults()),
        ConfigCommand::Print(options) => {
            let settings = options.config.config.as_deref().map(Settings::read).transpose()?;
            output.show(&Printed::effective(settings.as_ref(), |name| std::env::var(name).ok()))
        }
    }
}

/// What is wrong with a configuration is wrong with the command line.
fn wrong(message: String) -> Failure {
    Failure::usage(message)
}

#[cfg(test)]
mod tests;
