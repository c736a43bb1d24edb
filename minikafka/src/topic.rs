//! `minikafka topic`: create, list, describe, alter, delete; its settings and oldest records are in modules below.

use std::fmt;

use clap::{Args, Subcommand};
use minikafka_client::core::topic::{TopicConfig, TopicState};
use minikafka_client::core::wire::TopicDescription;
use minikafka_client::core::{ErrorCode, Partition, limits};
use minikafka_client::{Client, Error, OffsetQuery, TopicOptions};
use serde::Serialize;

use crate::cli::GlobalOptions;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Output};
use crate::{client, quantity};

mod delete_records;
mod settings;

use delete_records::DeleteRecordsOptions;
use settings::{AlterOptions, SettingOptions};

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic; returns once every partition takes records.
    Create(CreateOptions),
    /// List every topic.
    List,
    /// Show a topic's partitions: who owns them, and which offsets they hold.
    Describe {
        /// Which topics.
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
    },
    /// Change settings of a topic that is in use; what is not named stays as it is.
    Alter(AlterOptions),
    /// Delete the oldest records of a topic. Without --yes it only shows what would go.
    DeleteRecords(DeleteRecordsOptions),
    /// Delete topics with all their records.
    Delete {
        /// Which topics.
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// Do not fail when a topic does not exist.
        #[arg(long)]
        if_exists: bool,
    },
}

/// Options of `minikafka topic create`.
#[derive(Debug, Args)]
pub struct CreateOptions {
    /// Its name: 1 to 249 letters, digits, '.', '_' or '-'.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// How many partitions, at most 10,000 [default: the server's].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=limits::TOPIC_PARTITIONS_MAX as i64))]
    partitions: Option<u32>,
    /// On how many nodes each record lies [default: the cluster's].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=limits::CHAIN_MAX as i64))]
    replication: Option<u16>,
    #[command(flatten)]
    settings: SettingOptions,
    /// Do not fail when the topic exists already.
    #[arg(long)]
    if_not_exists: bool,
}

/// A topic as it is printed.
#[derive(Debug, Serialize)]
struct TopicShown {
    name: String,
    id: String,
    partitions: u32,
    state: TopicState,
    #[serde(flatten)]
    config: TopicConfig,
}

/// Topics as they are printed.
#[derive(Debug, Serialize)]
struct TopicsShown {
    topics: Vec<TopicShown>,
}

/// A topic and its partitions as they are printed.
#[derive(Debug, Serialize)]
struct TopicDetail {
    #[serde(flatten)]
    topic: TopicShown,
    partition: Vec<PartitionShown>,
}

#[derive(Debug, Serialize)]
struct PartitionShown {
    partition: u32,
    range: Option<String>,
    epoch: Option<u64>,
    owner: Option<String>,
    log_start: u64,
    end: u64,
}

/// One line about what was done.
#[derive(Debug, Serialize)]
struct Done {
    topic: String,
    done: &'static str,
}

/// Does what was asked with topics.
pub async fn run(command: &TopicCommand, global: &GlobalOptions, output: &mut Output) -> Outcome {
    let client = client::connect(global, false).await?;
    match command {
        TopicCommand::Create(options) => create(&client, options, output).await,
        TopicCommand::List => {
            let topics = client.list_topics().await?.iter().map(TopicShown::of).collect();
            output.show(&TopicsShown { topics })
        }
        TopicCommand::Describe { names } => {
            for name in names {
                let detail = describe(&client, name).await?;
                output.show(&detail)?;
            }
            Ok(())
        }
        TopicCommand::Alter(options) => settings::alter(&client, options, output).await,
        TopicCommand::DeleteRecords(options) => delete_records::run(&client, options, output).await,
        TopicCommand::Delete { names, if_exists } => delete(&client, names, *if_exists, output).await,
    }
}

async fn create(client: &Client, options: &CreateOptions, output: &mut Output) -> Outcome {
    let config = options.settings.change().applied_to(&TopicConfig::default());
    let asked = TopicOptions {
        partitions: options.partitions.unwrap_or(0),
        replication: options.replication.unwrap_or(0),
        config,
    };
    let done = match client.create_topic(&options.name, asked).await {
        Ok(topic) => return output.show(&TopicShown::of(&topic)),
        Err(error) if options.if_not_exists && error.code() == Some(ErrorCode::TopicExists) => "existed already",
        Err(error) => return Err(error.into()),
    };
    output.show(&Done { topic: options.name.clone(), done })
}

async fn delete(client: &Client, names: &[String], if_exists: bool, output: &mut Output) -> Outcome {
    for (position, name) in names.iter().enumerate() {
        let done = match client.delete_topic(name).await {
            Ok(()) => "deleted",
            Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownTopic) => "did not exist",
            Err(error) if position == 0 => return Err(error.into()),
            Err(error) => return Err(Failure::from(error).partly(format!("{position} of {} are deleted", names.len()))),
        };
        output.show(&Done { topic: name.clone(), done })?;
    }
    Ok(())
}

async fn describe(client: &Client, name: &str) -> Outcome<TopicDetail> {
    let topics = client.describe_topics(&[name]).await?;
    let topic = topics.into_iter().find(|topic| topic.name == name);
    let topic = topic.ok_or_else(|| Error::broker(ErrorCode::UnknownTopic, format!("topic {name}")))?;
    if let Some(code) = topic.error {
        return Err(Error::broker(code, format!("topic {name}")).into());
    }
    let starts = client.list_offsets(name, OffsetQuery::Earliest).await?;
    let ends = client.list_offsets(name, OffsetQuery::Latest).await?;
    let map = client.map();
    let shown = |((partition, start), (_, end)): (&(Partition, _), &(Partition, _))| {
        let range = map.range_of(&topic, *partition);
        let owner = range.and_then(|range| map.owner_of(range));
        PartitionShown {
            partition: partition.0,
            range: range.map(|range| range.to_string()),
            epoch: owner.as_ref().map(|owner| owner.epoch.0),
            owner: owner.map(|owner| owner.address.to_string()),
            log_start: minikafka_client::core::Offset::get(*start),
            end: minikafka_client::core::Offset::get(*end),
        }
    };
    let partition = starts.iter().zip(&ends).map(shown).collect();
    Ok(TopicDetail { topic: TopicShown::of(&topic), partition })
}

impl TopicShown {
    fn of(topic: &TopicDescription) -> Self {
        Self {
            name: topic.name.clone(),
            id: format!("{:016x}", topic.topic.0),
            partitions: topic.partitions,
            state: topic.state,
            config: topic.config,
        }
    }

    fn row(&self) -> Vec<String> {
        let unlimited = |value: i64, show: fn(u64) -> String| u64::try_from(value).map_or_else(|_| "-".into(), show);
        vec![
            self.name.clone(),
            self.partitions.to_string(),
            format!("{:?}", self.state).to_lowercase(),
            unlimited(self.config.retention_ms, |ms| format!("{} s", ms / 1000)),
            unlimited(self.config.retention_bytes, quantity::show_bytes),
            quantity::show_bytes(self.config.batch_bytes_max.into()),
            match self.config.produce_bytes_per_second {
                0 => "-".into(),
                rate => format!("{}/s", quantity::show_bytes(rate)),
            },
            self.id.clone(),
        ]
    }
}

const TOPIC_HEAD: [&str; 8] =
    ["topic", "partitions", "state", "retention", "retention bytes", "batch max", "produce quota", "id"];

impl fmt::Display for TopicShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&output::table(&TOPIC_HEAD, &[self.row()]))
    }
}

impl fmt::Display for TopicsShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.topics.iter().map(TopicShown::row).collect();
        f.write_str(&if rows.is_empty() { "no topics yet".to_owned() } else { output::table(&TOPIC_HEAD, &rows) })
    }
}

impl fmt::Display for TopicDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |shown: &PartitionShown| {
            let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "none".into());
            let numbers = [shown.log_start, shown.end].map(|offset| offset.to_string());
            let [start, end] = numbers;
            vec![shown.partition.to_string(), start, end, text(&shown.owner), text(&shown.range)]
        };
        let rows: Vec<_> = self.partition.iter().map(row).collect();
        let partitions = output::table(&["partition", "log start", "end", "owner", "range"], &rows);
        write!(f, "{}\n\n{partitions}", self.topic)
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {} {}", self.topic, self.done)
    }
}
