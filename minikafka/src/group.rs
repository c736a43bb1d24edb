//! `minikafka group`: list, describe, reset and delete groups of consumers.

use std::fmt;

use clap::Subcommand;
use minikafka_client::Client;
use minikafka_client::core::ErrorCode;
use minikafka_gateway::admin::groups::{GroupSummary, GroupsStatus};
use serde::Serialize;

use crate::cli::GlobalOptions;
use crate::client;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Output};

mod describe;
mod reset;

use reset::ResetOptions;

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List every group.
    List,
    /// Show who is in a group, who reads which partition, and how far the group is behind.
    Describe {
        /// Which groups.
        #[arg(required = true, value_name = "GROUP")]
        names: Vec<String>,
    },
    /// Make a group go on elsewhere. Without --yes it only shows what would change.
    Reset(ResetOptions),
    /// Delete groups that have no members, and what they committed.
    Delete {
        /// Which groups.
        #[arg(required = true, value_name = "GROUP")]
        names: Vec<String>,
        /// Do not fail when a group does not exist.
        #[arg(long)]
        if_exists: bool,
    },
}

/// The list, for machines as over HTTP.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct GroupsShown(GroupsStatus);

/// What became of a group.
#[derive(Debug, Serialize)]
struct Done {
    group: String,
    done: &'static str,
}

/// Carries out a command about groups.
pub async fn run(command: &GroupCommand, global: &GlobalOptions, output: &mut Output) -> Outcome {
    let client = client::connect(global, false).await?;
    match command {
        GroupCommand::List => list(&client, output).await,
        GroupCommand::Describe { names } => {
            for name in names {
                output.show(&describe::describe(&client, name).await?)?;
            }
            Ok(())
        }
        GroupCommand::Reset(options) => reset::run(&client, options, output).await,
        GroupCommand::Delete { names, if_exists } => delete(&client, names, *if_exists, output).await,
    }
}

async fn list(client: &Client, output: &mut Output) -> Outcome {
    let groups = client.list_groups().await?.into_iter().map(GroupSummary::of).collect();
    output.show(&GroupsShown(GroupsStatus { groups }))
}

async fn delete(client: &Client, names: &[String], if_exists: bool, output: &mut Output) -> Outcome {
    for (position, name) in names.iter().enumerate() {
        let done = match client.delete_group(name).await {
            Ok(()) => "deleted",
            Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownGroup) => "did not exist",
            Err(error) if position == 0 => return Err(error.into()),
            Err(error) => return Err(Failure::from(error).partly(format!("{position} of {} are deleted", names.len()))),
        };
        output.show(&Done { group: name.clone(), done })?;
    }
    Ok(())
}

impl fmt::Display for GroupsShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.groups.is_empty() {
            return f.write_str("no groups yet");
        }
        let row = |shown: &GroupSummary| vec![shown.group.clone(), shown.state.clone(), shown.members.to_string()];
        let rows: Vec<_> = self.0.groups.iter().map(row).collect();
        f.write_str(&output::table(&["group", "state", "members"], &rows))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} {}", self.group, self.done)
    }
}
