//! `minikafka group describe`: members, and each partition with its commit, its end, and what lies between.

use std::fmt;

use minikafka_client::Client;
use minikafka_gateway::admin::groups::{GroupMemberStatus, GroupPartitionStatus, GroupStatus};
use serde::Serialize;

use crate::exit::Outcome;
use crate::output;
use crate::quantity;

/// A group with all of its details, for machines as over HTTP.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct GroupShown(GroupStatus);

pub(super) async fn describe(client: &Client, name: &str) -> Outcome<GroupShown> {
    let described = client.describe_group(name).await?;
    let lags = client.group_lag(name).await?;
    Ok(GroupShown(GroupStatus::of(name, &described, &lags)))
}

fn member_row(shown: &GroupMemberStatus) -> Vec<String> {
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let (owned, target) = (shown.owned.len(), shown.target.len());
    // What it will have to give, or will get, is shown where it differs.
    let owned = if owned == target { owned.to_string() } else { format!("{owned} of {target}") };
    let (instance, client_name) = (or_none(&shown.instance), or_none(&shown.client_name));
    vec![shown.member.clone(), instance, client_name, seconds(shown.silent_ms), owned, shown.topics.join(" ")]
}

fn partition_row(shown: &GroupPartitionStatus) -> Vec<String> {
    let or_none = |field: Option<String>| field.unwrap_or_else(|| "-".to_owned());
    vec![
        shown.topic.clone(),
        shown.partition.to_string(),
        or_none(shown.committed.map(|offset| offset.to_string())),
        shown.end.to_string(),
        shown.lag.to_string(),
        or_none(shown.oldest_ms.map(seconds)),
        or_none(shown.member.clone()),
    ]
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

impl fmt::Display for GroupShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GroupStatus { group, state, generation, lag, members, partitions } = &self.0;
        write!(f, "group {group}: {state}, generation {generation}, {} records behind", quantity::show_count(*lag))?;
        if !members.is_empty() {
            let rows: Vec<_> = members.iter().map(member_row).collect();
            let head = ["member", "instance", "client", "silent", "partitions", "topics"];
            write!(f, "\n\n{}", output::table(&head, &rows))?;
        }
        if !partitions.is_empty() {
            let rows: Vec<_> = partitions.iter().map(partition_row).collect();
            let head = ["topic", "partition", "committed", "end", "lag", "oldest", "member"];
            write!(f, "\n\n{}", output::table(&head, &rows))?;
        }
        Ok(())
    }
}
