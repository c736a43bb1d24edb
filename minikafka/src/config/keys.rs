//! Every setting, taken from the definitions of the command line, so that there is no second list that could say something
//! else.
//!
//! A key is called as its flag. Its table is the heading under which the help shows it (`Cluster`, `Shards`, `Log`: what
//! several commands have), or else its command; a table's name in front of the flag's is left out (`--log-level` is
//! `level` in `[log]`).

use std::error::Error;

use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory};

use super::file::Settings;
use crate::cli::{Cli, LOG_HEADING};

/// The commands that have a configuration file.
pub const COMMANDS: [&str; 4] = ["broker", "gateway", "dev", "server"];
/// The option that names the file is no setting.
const FILE_OPTION: &str = "config";

/// A setting.
#[derive(Clone, Debug)]
pub struct Key {
    /// The table it stands in.
    pub table: String,
    /// Its name in there.
    pub name: String,
    /// Its definition.
    pub argument: Arg,
}

/// All of them, table by table.
pub fn all() -> Vec<Key> {
    let root = Cli::command();
    let commands = COMMANDS.iter().filter_map(|name| root.find_subcommand(name)).chain([&root]);
    let mut keys: Vec<Key> = Vec::new();
    for command in commands {
        for argument in command.get_arguments() {
            let Some((table, name)) = place(command.get_name(), argument) else { continue };
            if keys.iter().any(|key| key.table == table && key.name == name) {
                continue;
            }
            let behind_its_table = keys.iter().rposition(|key| key.table == table).map_or(keys.len(), |at| at + 1);
            keys.insert(behind_its_table, Key { table, name, argument: argument.clone() });
        }
    }
    keys
}

/// The command line, where what the settings say is the default.
pub fn with_defaults(root: Command, settings: &Settings) -> Command {
    let set = |command: &str, argument: Arg| {
        let value = place(command, &argument).and_then(|(table, name)| settings.get(&table, &name));
        match value {
            Some(value) => argument.required(false).default_value(value.to_owned()),
            None => argument,
        }
    };
    let name = root.get_name().to_owned();
    root.mut_args(|argument| set(&name, argument)).mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        if COMMANDS.contains(&name.as_str()) { command.mut_args(|argument| set(&name, argument)) } else { command }
    })
}

/// Table and name of an option of a command, if it is a setting.
fn place(command: &str, argument: &Arg) -> Option<(String, String)> {
    let long = argument.get_long().filter(|&long| long != FILE_OPTION)?;
    let table = match argument.get_help_heading() {
        Some(heading) => heading.to_lowercase(),
        None => command.to_owned(),
    };
    // Of the options that every command has, only those of the log are settings of a process that serves.
    let is_setting = COMMANDS.contains(&command) || argument.get_help_heading() == Some(LOG_HEADING);
    let name = long.strip_prefix(&format!("{table}-")).unwrap_or(long).to_owned();
    is_setting.then_some((table, name))
}

impl Key {
    /// Its flag, without dashes.
    pub fn flag(&self) -> &str {
        self.argument.get_long().unwrap_or_default()
    }

    /// Its environment variable.
    pub fn environment(&self) -> Option<&str> {
        self.argument.get_env().and_then(|name| name.to_str())
    }

    /// What it is when nobody says anything; none: see its meaning.
    pub fn default(&self) -> Option<&str> {
        self.argument.get_default_values().first().and_then(|value| value.to_str())
    }

    /// What is written there: a unit, or the choices.
    pub fn unit(&self) -> String {
        let choices = self.argument.get_possible_values();
        if choices.is_empty() {
            let names = self.argument.get_value_names().unwrap_or_default();
            return names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        }
        choices.iter().map(|choice| choice.get_name()).collect::<Vec<_>>().join("|")
    }

    /// What it is for.
    pub fn meaning(&self) -> String {
        self.argument.get_help().map(ToString::to_string).unwrap_or_default()
    }

    /// Whether the command line would take this value; if not, why.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let argument = self.argument.clone().required(false).global(false).env(Resettable::Reset);
        let command = Command::new("check").no_binary_name(true).arg(argument);
        let Err(error) = command.try_get_matches_from([format!("--{}={value}", self.flag())]) else { return Ok(()) };
        Err(match error.source() {
            Some(reason) => reason.to_string(),
            None => format!("{value:?} is none of {}", self.unit()),
        })
    }
}
