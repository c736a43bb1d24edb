//! `minikafka topic delete-records`: deletes the oldest records, after showing what that means.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use minikafka_client::core::{Offset, Partition, Timestamp};
use minikafka_client::{Client, OffsetQuery};
use serde::Serialize;

use crate::exit::Outcome;
use crate::output::{self, Output};
use crate::quantity;

/// Options of `minikafka topic delete-records`.
#[derive(Debug, Args)]
pub struct DeleteRecordsOptions {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Records before this go: an offset; latest: all that are there; or an age such as 7d: what was stored longer ago.
    #[arg(long, value_name = "OFFSET|latest|AGE", value_parser = Before::parse)]
    before: Before,
    /// Only this partition; may be repeated.
    #[arg(long = "partition", value_name = "P")]
    partitions: Vec<u32>,
    /// Do it; without this, it is only shown.
    #[arg(long)]
    yes: bool,
}

/// Up to where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Offset(u64),
    Latest,
    Age(Duration),
}

impl Before {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        text.parse()
            .map(Self::Offset)
            .or_else(|_| quantity::duration(text).map(Self::Age))
            .map_err(|_| format!("{text:?} is neither an offset, nor latest, nor an age: write 1000, latest or 7d"))
    }
}

/// What happened, or would happen.
#[derive(Debug, Serialize)]
struct Deletion {
    topic: String,
    deleted: bool,
    partition: Vec<PartitionDeletion>,
}

#[derive(Debug, Serialize)]
struct PartitionDeletion {
    partition: u32,
    log_start_before: u64,
    log_start: u64,
    records: u64,
}

/// Shows what would go, or deletes it.
pub async fn run(client: &Client, options: &DeleteRecordsOptions, output: &mut Output) -> Outcome {
    let name = &options.name;
    let partitions = match options.partitions.as_slice() {
        [] => (0..client.topic(name).await?.partitions).map(Partition).collect(),
        chosen => chosen.iter().copied().map(Partition).collect::<Vec<_>>(),
    };
    let starts = client.list_offsets_of(name, &partitions, OffsetQuery::Earliest).await?;
    let before = before(client, options, &partitions).await?;
    let after = if options.yes { client.delete_records_of(name, &before).await? } else { before.into_iter().collect() };
    let one = |((partition, start), (_, after)): (&(Partition, Offset), &(Partition, Offset))| {
        let log_start = after.0.max(start.0);
        let records = log_start - start.0;
        PartitionDeletion { partition: partition.0, log_start_before: start.0, log_start, records }
    };
    let partition = starts.iter().zip(&after).map(one).collect();
    output.show(&Deletion { topic: name.clone(), deleted: options.yes, partition })
}

/// The offset for each partition, as of now.
async fn before(
    client: &Client,
    options: &DeleteRecordsOptions,
    partitions: &[Partition],
) -> Outcome<BTreeMap<Partition, Offset>> {
    let ends = client.list_offsets_of(&options.name, partitions, OffsetQuery::Latest).await?;
    let offsets = match options.before {
        Before::Latest => ends,
        Before::Offset(offset) => ends.iter().map(|&(partition, end)| (partition, end.min(Offset(offset)))).collect(),
        Before::Age(age) => {
            let query = OffsetQuery::AppendedAtOrAfter(ago(age));
            client.list_offsets_of(&options.name, partitions, query).await?
        }
    };
    Ok(offsets.into_iter().collect())
}

fn ago(age: Duration) -> Timestamp {
    let then = SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH);
    let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl fmt::Display for Deletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |shown: &PartitionDeletion| {
            let PartitionDeletion { partition, log_start_before, log_start, records } = shown;
            [u64::from(*partition), *log_start_before, *log_start, *records].map(|number| number.to_string()).to_vec()
        };
        let rows: Vec<_> = self.partition.iter().map(row).collect();
        let table = output::table(&["partition", "log start", "new log start", "records"], &rows);
        let records = quantity::show_count(self.partition.iter().map(|partition| partition.records).sum());
        match self.deleted {
            true => write!(f, "{table}\n\ntopic {}: {records} records deleted", self.topic),
            false => {
                write!(f, "{table}\n\ntopic {}: {records} records would be deleted; say --yes to do it", self.topic)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_the_end_or_an_age() {
        assert_eq!(Before::parse("1000"), Ok(Before::Offset(1000)));
        assert_eq!(Before::parse("latest"), Ok(Before::Latest));
        assert_eq!(Before::parse("10m"), Ok(Before::Age(Duration::from_secs(600))));
        for bad in ["", "-1", "earliest", "10 apples"] {
            assert!(Before::parse(bad).is_err(), "{bad}");
        }
    }
}
