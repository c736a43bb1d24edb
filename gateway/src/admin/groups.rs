//! The shapes of groups and of the queue.

use minikafka_client::{GroupDescription, GroupPhase, ListedGroup, PartitionLag, TopicPartition};
use minikafka_core::MemberId;
use serde::{Deserialize, Serialize};

/// `GET /v1/groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsStatus {
    /// By name.
    pub groups: Vec<GroupSummary>,
}

/// A group of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// Its name.
    pub group: String,
    /// `empty`, `stable` or `rebalancing`.
    pub state: String,
    /// How many members it has.
    pub members: u32,
}

/// `GET /v1/groups/{group}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// `empty`, `stable` or `rebalancing`.
    pub state: String,
    /// It grows whenever partitions change hands.
    pub generation: u64,
    /// Records that are not handled, of all partitions.
    pub lag: u64,
    /// Who is in it.
    pub members: Vec<GroupMemberStatus>,
    /// Every partition of the topics that it reads or has commits of.
    pub partitions: Vec<GroupPartitionStatus>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMemberStatus {
    /// Its id, 16 hexadecimal digits.
    pub member: String,
    /// Its instance name; empty: it has none.
    pub instance: String,
    /// Its program; empty: not told.
    pub client_name: String,
    /// For how long it was silent.
    pub silent_ms: u64,
    /// What it subscribes to.
    pub topics: Vec<String>,
    /// What it owns.
    pub owned: Vec<PlaceStatus>,
    /// What it should have.
    pub target: Vec<PlaceStatus>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceStatus {
    /// The topic's name.
    pub topic: String,
    /// Which of its partitions.
    pub partition: u32,
}

/// How far a group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPartitionStatus {
    /// The topic's name.
    pub topic: String,
    /// Which of its partitions.
    pub partition: u32,
    /// Where the group goes on; null: it has committed nothing.
    pub committed: Option<u64>,
    /// The first record that is there.
    pub log_start: u64,
    /// Behind the last one.
    pub end: u64,
    /// Records that are not handled.
    pub lag: u64,
    /// For how long the oldest of them has been there; null: there is none, or it was not found out.
    pub oldest_ms: Option<u64>,
    /// The member that owns it.
    pub member: Option<String>,
}

/// Body of `POST /v1/groups/{group}/offsets`: where a group goes on in partitions that no member owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupOffsets {
    /// Partitions and offsets.
    pub offsets: Vec<GroupOffset>,
}

/// Where a group goes on in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupOffset {
    /// The topic's name.
    pub topic: String,
    /// Which of its partitions.
    pub partition: u32,
    /// The offset of the next record.
    pub offset: u64,
}

/// Body of `POST /push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// Base64; records of one key keep their order. Null: none.
    #[serde(default)]
    pub key: Option<String>,
    /// Base64.
    pub value: String,
}

/// Answer to `POST /push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedStatus {
    /// Where it is stored.
    pub partition: u32,
    /// Its offset; null: it is stored, but the broker no longer remembers where.
    pub offset: Option<u64>,
}

/// Answer to `GET /pull` and `POST /pull`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledRecord {
    /// Where it is stored.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// When it was produced, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Base64; null: none.
    pub key: Option<String>,
    /// Base64; null: none.
    pub value: Option<String>,
    /// With what it is acknowledged; absent: it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
}

/// Body of `POST /ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckRequest {
    /// As it was pulled.
    pub lease: String,
    /// It is not handled, and shall be given out again at once.
    #[serde(default)]
    pub again: bool,
}

impl GroupSummary {
    /// A group of a list.
    pub fn of(listed: ListedGroup) -> Self {
        Self { group: listed.group, state: state_name(listed.phase).to_owned(), members: listed.members }
    }
}

impl GroupStatus {
    /// What is known of a group.
    pub fn of(group: &str, described: &GroupDescription, lags: &[PartitionLag]) -> Self {
        let places = |places: &[TopicPartition]| places.iter().map(PlaceStatus::of).collect();
        let members = described.members.iter().map(|member| GroupMemberStatus {
            member: member_id(member.member),
            instance: member.instance.clone(),
            client_name: member.client_name.clone(),
            silent_ms: member.silent.as_millis() as u64,
            topics: member.topics.iter().map(|topic| topic.to_string()).collect(),
            owned: places(&member.owned),
            target: places(&member.target),
        });
        let partitions = lags.iter().map(|lag| GroupPartitionStatus {
            topic: lag.place.topic.to_string(),
            partition: lag.place.partition.0,
            committed: lag.committed.map(|offset| offset.0),
            log_start: lag.log_start.0,
            end: lag.end.0,
            lag: lag.records,
            oldest_ms: lag.age.map(|age| age.as_millis() as u64),
            member: lag.owner.map(member_id),
        });
        Self {
            group: group.to_owned(),
            state: state_name(described.phase).to_owned(),
            generation: described.generation,
            lag: lags.iter().map(|lag| lag.records).sum(),
            members: members.collect(),
            partitions: partitions.collect(),
        }
    }
}

impl PlaceStatus {
    fn of(place: &TopicPartition) -> Self {
        Self { topic: place.topic.to_string(), partition: place.partition.0 }
    }
}

fn member_id(member: MemberId) -> String {
    format!("{:016x}", member.0)
}

const fn state_name(phase: GroupPhase) -> &'static str {
    match phase {
        GroupPhase::Empty => "empty",
        GroupPhase::Stable => "stable",
        GroupPhase::Rebalancing => "rebalancing",
    }
}
