//! The settings of a topic on the command line, and `minikafka topic alter`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use minikafka_client::Client;
use minikafka_client::core::topic::{TopicConfig, TopicConfigChange};

use super::TopicShown;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::quantity::{self, Limit};

/// Settings that a topic is created with, or that are changed.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct SettingOptions {
    /// Records older than this are deleted; none: never [default: none].
    #[arg(long, value_name = "DURATION|none", value_parser = quantity::duration_or_none)]
    retention: Option<Limit<Duration>>,
    /// The oldest records are deleted while a partition is larger than this; none: never [default: none].
    #[arg(long, value_name = "SIZE|none", value_parser = quantity::bytes_or_none)]
    retention_bytes: Option<Limit<u64>>,
    /// Largest batch that producers may send [default: 4M].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes_u32)]
    batch_bytes_max: Option<u32>,
    /// Batch bytes that each shard takes per second, for all its partitions of the topic together, such as 10M; producers
    /// wait for their turn [default: none].
    #[arg(long, value_name = "RATE|none", value_parser = quantity::rate)]
    produce_quota: Option<u64>,
}

/// Options of `minikafka topic alter`.
#[derive(Debug, Args)]
pub struct AlterOptions {
    /// Its name.
    #[arg(value_name = "TOPIC")]
    name: String,
    #[command(flatten)]
    settings: SettingOptions,
    /// Put a setting back to its default; may be repeated.
    #[arg(long, value_name = "SETTING")]
    default: Vec<Setting>,
    /// Not possible: the number of partitions stays as it was created. Says what to do instead.
    #[arg(long, value_name = "COUNT")]
    partitions: Option<u32>,
    /// Not possible: the replication stays as it was created. Says what to do instead.
    #[arg(long, value_name = "COUNT")]
    replication: Option<u16>,
}

/// A setting by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Setting {
    /// How old records get.
    Retention,
    /// How large a partition gets.
    RetentionBytes,
    /// Largest batch.
    BatchBytesMax,
    /// Bytes per second.
    ProduceQuota,
}

impl SettingOptions {
    /// The change of what is named.
    pub fn change(&self) -> TopicConfigChange {
        let number = |value: u128| i64::try_from(value).unwrap_or(i64::MAX);
        TopicConfigChange {
            retention_ms: self.retention.map(|limit| match limit {
                Limit::None => -1,
                Limit::At(duration) => number(duration.as_millis()),
            }),
            retention_bytes: self.retention_bytes.map(|limit| match limit {
                Limit::None => -1,
                Limit::At(bytes) => number(bytes.into()),
            }),
            batch_bytes_max: self.batch_bytes_max,
            produce_bytes_per_second: self.produce_quota,
        }
    }
}

impl AlterOptions {
    fn change(&self) -> Outcome<TopicConfigChange> {
        let instead = "create another topic with it, copy the records over (minikafka consume | minikafka produce) and move \
                       its producers and consumers there";
        if self.partitions.is_some() {
            return Err(Failure::usage(format!(
                "--partitions: a topic keeps its number of partitions, because keys would change their partition and \
                 records of one key their order; {instead}"
            )));
        }
        if self.replication.is_some() {
            return Err(Failure::usage(format!(
                "--replication: a topic keeps its replication in this release; {instead}"
            )));
        }
        let (mut change, default) = (self.settings.change(), TopicConfig::default());
        for setting in &self.default {
            let is_named_twice = match setting {
                Setting::Retention => change.retention_ms.replace(default.retention_ms).is_some(),
                Setting::RetentionBytes => change.retention_bytes.replace(default.retention_bytes).is_some(),
                Setting::BatchBytesMax => change.batch_bytes_max.replace(default.batch_bytes_max).is_some(),
                Setting::ProduceQuota => {
                    change.produce_bytes_per_second.replace(default.produce_bytes_per_second).is_some()
                }
            };
            if is_named_twice {
                let name = setting.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
                return Err(Failure::usage(format!("{name} is named twice: leave out --{name} or --default {name}")));
            }
        }
        if change.is_empty() {
            return Err(Failure::usage(
                "nothing to change: name a setting, such as --retention 7d, or --default retention",
            ));
        }
        Ok(change)
    }
}

/// Changes settings of a topic.
pub async fn alter(client: &Client, options: &AlterOptions, output: &mut Output) -> Outcome {
    let change = options.change()?;
    let topic = client.alter_topic(&options.name, change).await?;
    output.show(&TopicShown::of(&topic))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::exit::Exit;
    use crate::topic::TopicCommand;

    fn change(line: &str) -> Outcome<TopicConfigChange> {
        let line = format!("minikafka topic alter orders {line}");
        match Cli::try_parse_from(line.split_whitespace()).expect("a good command line").command {
            Command::Topic(TopicCommand::Alter(options)) => options.change(),
            other => unreachable!("{other:?} does not alter"),
        }
    }

    #[test]
    fn settings_are_changed_and_put_back() {
        let changed = change("--retention 2m --retention-bytes none --default produce-quota").expect("a change");
        let expected = TopicConfigChange {
            retention_ms: Some(120_000),
            retention_bytes: Some(-1),
            batch_bytes_max: None,
            produce_bytes_per_second: Some(0),
        };
        assert_eq!(changed, expected);
        let rate = change("--produce-quota 10M/s --batch-bytes-max 1M").expect("a change");
        assert_eq!((rate.produce_bytes_per_second, rate.batch_bytes_max), (Some(10 << 20), Some(1 << 20)));
    }

    #[test]
    fn what_cannot_be_changed_is_refused_with_what_to_do_instead() {
        for line in ["--partitions 9", "--replication 3 --retention 5s"] {
            let refused = change(line).expect_err("it cannot be");
            assert_eq!(refused.kind, Exit::Usage);
            assert!(refused.message.contains("create another topic"), "{}", refused.message);
        }
        assert!(change("").expect_err("nothing").message.contains("nothing to change"));
        assert!(change("--retention 5s --default retention").expect_err("twice").message.contains("named twice"));
    }
}
