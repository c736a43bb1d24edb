//! `minikafka group reset`: makes a group go on elsewhere, after showing what that means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use minikafka_client::core::{ErrorCode, Offset, Partition, Timestamp};
use minikafka_client::{Client, Error, GroupDescription, OffsetQuery, TopicPartition};
use serde::Serialize;

use crate::exit::{Failure, Outcome};
use crate::output::{self, Output};
use crate::quantity;

/// Options of `minikafka group reset`.
#[derive(Debug, Args)]
pub struct ResetOptions {
    /// The group. One that does not exist exists from then on, with this commit.
    #[arg(value_name = "GROUP")]
    group: String,
    /// Where it shall go on: earliest, latest, an offset, a time such as 2026-11-30T08:00:00Z, or an age such as 2h: with
    /// what was stored since then.
    #[arg(long, value_name = "earliest|latest|OFFSET|TIME|AGE", value_parser = Target::parse)]
    to: Target,
    /// Only this topic; may be repeated [default: all that it reads or has commits of].
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only this partition of each topic; may be repeated.
    #[arg(long = "partition", value_name = "P")]
    partitions: Vec<u32>,
    /// Do it; without this, it is only shown.
    #[arg(long)]
    yes: bool,
}

/// Where a group shall go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(u64),
    Time(Timestamp),
    Age(Duration),
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let offset = text.parse().map(Self::Offset).ok();
        let time = || quantity::utc_time(text).ok().map(|ms| Self::Time(Timestamp(ms)));
        let age = || quantity::duration(text).ok().map(Self::Age);
        offset.or_else(time).or_else(age).ok_or_else(|| {
            format!("{text:?} is no place in a log: write earliest, latest, 1000, 2026-11-30T08:00:00Z or 2h")
        })
    }

    /// What to ask for; none: this offset, wherever the log begins and ends.
    fn query(self) -> Result<OffsetQuery, Offset> {
        match self {
            Self::Earliest => Ok(OffsetQuery::Earliest),
            Self::Latest => Ok(OffsetQuery::Latest),
            Self::Offset(offset) => Err(Offset(offset)),
            Self::Time(time) => Ok(OffsetQuery::AppendedAtOrAfter(time)),
            Self::Age(age) => Ok(OffsetQuery::AppendedAtOrAfter(ago(age))),
        }
    }
}

/// What happened, or would happen.
#[derive(Debug, Serialize)]
struct Reset {
    group: String,
    reset: bool,
    partitions: Vec<PartitionReset>,
}

#[derive(Debug, Serialize)]
struct PartitionReset {
    topic: String,
    partition: u32,
    committed: Option<u64>,
    new: u64,
    /// Records behind the new place.
    lag: u64,
    /// A member has it: nobody else can commit.
    owned: bool,
}

/// What is known of a group, if it exists.
#[derive(Default)]
struct Known {
    committed: BTreeMap<TopicPartition, Offset>,
    topics: BTreeSet<String>,
    owned: BTreeSet<TopicPartition>,
}

/// Shows where the group would go on, or makes it.
pub async fn run(client: &Client, options: &ResetOptions, output: &mut Output) -> Outcome {
    let group = &options.group;
    let known = look(client, group, !options.topics.is_empty()).await?;
    let topics: Vec<String> = match options.topics.as_slice() {
        [] => known.topics.iter().cloned().collect(),
        chosen => chosen.to_vec(),
    };
    let mut partitions = Vec::new();
    for topic in &topics {
        partitions.extend(of_topic(client, options, &known, topic).await?);
    }
    if options.yes {
        if let Some(owned) = partitions.iter().find(|partition| partition.owned) {
            let place = format!("group {group}, topic partition {} {}", owned.topic, owned.partition);
            return Err(Error::broker(ErrorCode::GroupNotEmpty, place).into());
        }
        let offset = |reset: &PartitionReset| {
            let (topic, partition) = (reset.topic.as_str().into(), Partition(reset.partition));
            (TopicPartition { topic, partition }, Offset(reset.new))
        };
        client.commit_group_offsets(group, &partitions.iter().map(offset).collect()).await?;
    }
    output.show(&Reset { group: group.clone(), reset: options.yes, partitions })
}

/// `may_be_new`: the group need not exist.
async fn look(client: &Client, group: &str, may_be_new: bool) -> Outcome<Known> {
    let found = match client.describe_group(group).await {
        Ok(GroupDescription { members, .. }) => Some((members, client.group_offsets(group).await?)),
        Err(error) if may_be_new && error.code() == Some(ErrorCode::UnknownGroup) => None,
        Err(error) => return Err(error.into()),
    };
    let Some((members, committed)) = found else { return Ok(Known::default()) };
    let there: BTreeSet<String> = client.list_topics().await?.into_iter().map(|topic| topic.name).collect();
    let read = members.iter().flat_map(|member| &member.topics).chain(committed.keys().map(|place| &place.topic));
    let topics: BTreeSet<String> = read.map(|topic| topic.to_string()).filter(|topic| there.contains(topic)).collect();
    if topics.is_empty() && !may_be_new {
        return Err(Failure::usage(format!("group {group} has no topic that is there: name one with --topic")));
    }
    let owned = members.into_iter().flat_map(|member| member.owned).collect();
    Ok(Known { committed, topics, owned })
}

async fn of_topic(client: &Client, options: &ResetOptions, known: &Known, topic: &str) -> Outcome<Vec<PartitionReset>> {
    let partitions: Vec<Partition> = match options.partitions.as_slice() {
        [] => (0..client.topic(topic).await?.partitions).map(Partition).collect(),
        chosen => BTreeSet::from_iter(chosen.iter().copied()).into_iter().map(Partition).collect(),
    };
    let starts = client.list_offsets_of(topic, &partitions, OffsetQuery::Earliest).await?;
    let ends = client.list_offsets_of(topic, &partitions, OffsetQuery::Latest).await?;
    let wanted = match options.to.query() {
        Ok(query) => client.list_offsets_of(topic, &partitions, query).await?,
        Err(offset) => partitions.iter().map(|partition| (*partition, offset)).collect(),
    };
    let mut resets = Vec::with_capacity(partitions.len());
    for (((partition, wanted), (_, start)), (_, end)) in wanted.into_iter().zip(starts).zip(ends) {
        let place = TopicPartition { topic: topic.into(), partition };
        let new = wanted.max(start).min(end.max(start));
        resets.push(PartitionReset {
            topic: topic.to_owned(),
            partition: partition.0,
            committed: known.committed.get(&place).map(|offset| offset.0),
            new: new.0,
            lag: end.0.saturating_sub(new.0),
            owned: known.owned.contains(&place),
        });
    }
    Ok(resets)
}

fn ago(age: Duration) -> Timestamp {
    let then = SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH);
    let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |shown: &PartitionReset| {
            let committed = shown.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            vec![
                shown.topic.clone(),
                shown.partition.to_string(),
                committed,
                shown.new.to_string(),
                shown.lag.to_string(),
            ]
        };
        let rows: Vec<_> = self.partitions.iter().map(row).collect();
        let table = output::table(&["topic", "partition", "committed", "new", "lag"], &rows);
        write!(f, "{table}\n\n")?;
        if self.reset {
            return write!(f, "group {} goes on there", self.group);
        }
        write!(f, "group {} would go on there; say --yes to do it", self.group)?;
        match self.partitions.iter().any(|partition| partition.owned) {
            true => write!(f, ", once its members are stopped"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_log_is_said_in_five_ways() {
        for (text, target) in [
            ("earliest", Target::Earliest),
            ("latest", Target::Latest),
            ("1000", Target::Offset(1000)),
            ("2h", Target::Age(Duration::from_secs(7200))),
            ("1970-01-02T00:00:01Z", Target::Time(Timestamp(86_401_000))),
        ] {
            assert_eq!(Target::parse(text), Ok(target), "{text}");
        }
        for bad in ["", "-1", "newest", "1970-01-02", "2 apples"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_only_shown_says_how_it_is_done() {
        let partition =
            |owned| PartitionReset { topic: "orders".to_owned(), partition: 3, committed: None, new: 7, lag: 5, owned };
        let shown =
            |reset, owned| Reset { group: "billing".to_owned(), reset, partitions: vec![partition(owned)] }.to_string();
        assert!(shown(false, false).ends_with("say --yes to do it"));
        assert!(shown(false, true).ends_with("once its members are stopped"));
        assert!(shown(true, false).ends_with("goes on there"));
    }
}
