//! How far consumer groups are behind, in records and in seconds.
//!
//! A group's commits are at the head of its own range and a partition's end at the head of another, so the controller asks
//! both, every [`ROUND`]: which groups there are, where they are, and where those partitions end. Seconds come from where the
//! partitions ended at earlier rounds: the record that a group has to read next was appended between the last round that
//! found the end at or below it and the next one. Absent: records, members.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use minikafka_core::group::GroupName;
use minikafka_core::wire::{
    Api, GroupListRange, GroupListReply, GroupListRequest, GroupOffsetsReply, GroupOffsetsRequest,
    ListOffsetsPartition, ListOffsetsReply, ListOffsetsRequest, OffsetQuery, Wire,
};
use minikafka_core::*;
use minikafka_metrics::Exposition;
use tokio::time::Instant;

use super::definitions::*;
use crate::gateway::Shared;
use crate::http::is_controller;
use crate::map::ClusterMap;

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_secs(10);
/// A shard that takes longer to answer is left out of this round.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Ends remembered of a partition.
const ENDS_MAX: usize = 120;
/// Partitions whose ends are asked for at once, and in all.
const PARTITIONS_AT_ONCE: usize = 512;
const PARTITIONS_MAX: usize = 10_000;

/// What is known of groups.
#[derive(Debug, Default)]
pub(crate) struct LagTable {
    lags: Vec<Lag>,
    groups: usize,
    ends: BTreeMap<PartitionKey, Ends>,
    /// The last round that succeeded.
    at: Option<Instant>,
}

/// A group's lag in a topic.
#[derive(Clone, Debug, PartialEq)]
struct Lag {
    group: GroupName,
    topic: String,
    records: u64,
    seconds: f64,
}

/// Where a partition ended, oldest first.
#[derive(Debug, Default)]
struct Ends(VecDeque<(Instant, u64)>);

impl Ends {
    fn push(&mut self, at: Instant, end: u64) {
        if self.0.len() == ENDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((at, end));
    }

    /// For how long there has been a record at `offset`; zero: there is none.
    fn age_of(&self, offset: u64, now: Instant) -> Duration {
        let behind = self.0.partition_point(|(_, end)| *end <= offset);
        let Some((seen, end)) = self.0.get(behind) else { return Duration::ZERO };
        let Some((before, end_before)) = behind.checked_sub(1).and_then(|at| self.0.get(at)) else {
            // It was there when this began to look.
            return now.saturating_duration_since(*seen);
        };
        let part = (offset - end_before) as f64 / (end - end_before) as f64;
        let appended = *before + seen.saturating_duration_since(*before).mul_f64(part);
        now.saturating_duration_since(appended)
    }
}

impl LagTable {
    /// Puts what is known into an exposition.
    pub(crate) fn expose(&self, to: &mut Exposition) {
        let Some(at) = self.at else { return };
        to.add(&GROUP_ROUND_AGE, &[], at.elapsed().as_secs_f64());
        to.add(&GROUPS_SEEN, &[], self.groups);
        for lag in self.lags.iter().take(limits::METRIC_GROUPS_MAX) {
            to.add(&GROUP_LAG, &[lag.group.as_str(), &lag.topic], lag.records);
            to.add(&GROUP_LAG_SECONDS, &[lag.group.as_str(), &lag.topic], lag.seconds);
        }
    }

    /// What one round found: where groups are, where partitions end, what topics are called.
    fn take(
        &mut self,
        now: Instant,
        commits: &[(GroupName, Vec<(PartitionKey, Offset)>)],
        ends: &BTreeMap<PartitionKey, Offset>,
        names: &BTreeMap<TopicId, String>,
    ) {
        self.ends.retain(|partition, _| ends.contains_key(partition));
        for (partition, end) in ends {
            self.ends.entry(*partition).or_default().push(now, end.0);
        }
        let mut lags: BTreeMap<(GroupName, TopicId), (u64, Duration)> = BTreeMap::new();
        for (group, offsets) in commits {
            for (partition, offset) in offsets {
                let Some(end) = ends.get(partition) else { continue };
                let age = self.ends.get(partition).map_or(Duration::ZERO, |ends| ends.age_of(offset.0, now));
                let (records, oldest) = lags.entry((group.clone(), partition.topic)).or_default();
                *records += end.0.saturating_sub(offset.0);
                *oldest = (*oldest).max(age);
            }
        }
        let named = lags.into_iter().filter_map(|((group, topic), (records, age))| {
            // A topic without a name is being deleted.
            Some(Lag { group, topic: names.get(&topic)?.clone(), records, seconds: age.as_secs_f64() })
        });
        self.lags = named.collect();
        self.lags.sort_by_key(|lag| std::cmp::Reverse(lag.records));
        (self.groups, self.at) = (commits.len(), Some(now));
    }
}

/// Asks, again and again, while this gateway controls; until dropped.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if !is_controller(&shared) {
            *shared.lag.lock().unwrap_or_else(PoisonError::into_inner) = LagTable::default();
            continue;
        }
        let map = shared.map.current();
        let commits = commits(&shared, &map).await;
        let ends = ends(&shared, &map, &commits).await;
        let topics = map.buckets.values().flat_map(|bucket| &bucket.record.topics);
        let names = topics.map(|(name, topic)| (topic.topic, name.clone())).collect();
        shared.lag.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), &commits, &ends, &names);
    }
}

/// Where a range's head is, and the epoch to believe in.
fn head(map: &ClusterMap, range: RangeKey) -> Option<(NodeId, ShardId, Epoch)> {
    let (chunk, at) = map.chunk_of(range)?;
    let active = chunk.record.ranges[at].active.as_ref()?;
    let head = active.chain.first()?;
    Some((head.node, head.shard, active.epoch))
}

async fn call<Q: Wire, A: Wire>(
    shared: &Shared,
    map: &ClusterMap,
    to: (NodeId, ShardId),
    api: Api,
    ask: &Q,
) -> Option<A> {
    let broker = map.brokers.get(&to.0)?;
    match shared.links.call(broker, to.1, api, ask, ANSWER_WAIT).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::debug!(node = to.0.0, shard = to.1.0, %error, "a shard did not tell of groups");
            None
        }
    }
}

/// Where each group is, of as many groups as there is room for.
async fn commits(shared: &Shared, map: &ClusterMap) -> Vec<(GroupName, Vec<(PartitionKey, Offset)>)> {
    let ring = RingId(shared.cluster.internal_replication);
    let ranges = (0..map.ranges_total(ring.0).unwrap_or(0)).map(|range| RangeKey { ring, range: RangeId(range) });
    let mut questions: BTreeMap<(NodeId, ShardId), Vec<GroupListRange>> = BTreeMap::new();
    for range in ranges {
        let Some((node, shard, epoch)) = head(map, range) else { continue };
        questions.entry((node, shard)).or_default().push(GroupListRange { range, epoch });
    }
    let mut found = Vec::new();
    for (to, ranges) in questions {
        let ask = GroupListRequest { ranges };
        let Some(listed) = call::<_, GroupListReply>(shared, map, to, Api::GroupList, &ask).await else { continue };
        let groups = listed.ranges.into_iter().flat_map(|listed| {
            let (range, epoch) = (listed.range, listed.epoch);
            listed.groups.into_iter().map(move |summary| (range, epoch, summary.group))
        });
        for (range, epoch, group) in groups {
            if found.len() == limits::METRIC_GROUPS_MAX {
                return found;
            }
            let ask = GroupOffsetsRequest { range, epoch, group: group.clone(), partitions: None };
            let Some(at) = call::<_, GroupOffsetsReply>(shared, map, to, Api::GroupOffsets, &ask).await else {
                continue;
            };
            found.push((group, at.offsets.into_iter().map(|at| (at.partition, at.offset)).collect()));
        }
    }
    found
}

/// Where those partitions end.
async fn ends(
    shared: &Shared,
    map: &ClusterMap,
    commits: &[(GroupName, Vec<(PartitionKey, Offset)>)],
) -> BTreeMap<PartitionKey, Offset> {
    let topics: BTreeMap<TopicId, _> = map
        .buckets
        .values()
        .flat_map(|bucket| bucket.record.topics.values())
        .map(|topic| (topic.topic, topic))
        .collect();
    let wanted: std::collections::BTreeSet<PartitionKey> =
        commits.iter().flat_map(|(_, offsets)| offsets.iter().map(|(partition, _)| *partition)).collect();
    let mut questions: BTreeMap<(NodeId, ShardId), Vec<ListOffsetsPartition>> = BTreeMap::new();
    for partition in wanted.into_iter().take(PARTITIONS_MAX) {
        let range = topics.get(&partition.topic).and_then(|topic| map.range_of(topic, partition.partition));
        let Some((range, (node, shard, epoch))) = range.and_then(|range| Some((range, head(map, range)?))) else {
            continue;
        };
        let ask = ListOffsetsPartition { range, epoch, partition, query: OffsetQuery::Latest };
        questions.entry((node, shard)).or_default().push(ask);
    }
    let mut ends = BTreeMap::new();
    for (to, partitions) in questions {
        for partitions in partitions.chunks(PARTITIONS_AT_ONCE) {
            let ask = ListOffsetsRequest { partitions: partitions.to_vec() };
            let Some(told) = call::<_, ListOffsetsReply>(shared, map, to, Api::ListOffsets, &ask).await else {
                continue;
            };
            let good = told.partitions.iter().filter(|told| told.error.is_none());
            ends.extend(good.map(|told| (told.partition, told.offset)));
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32) -> PartitionKey {
        PartitionKey { topic: TopicId(7), partition: Partition(number) }
    }

    #[test]
    fn a_record_is_as_old_as_the_rounds_say() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut ends = Ends::default();
        ends.push(at(0), 100);
        ends.push(at(10), 100);
        ends.push(at(20), 200);
        let age = |offset| ends.age_of(offset, at(20)).as_secs_f64();
        assert_eq!(age(200), 0.0, "all is read");
        assert_eq!((age(100), age(150)), (10.0, 5.0), "appended evenly between two rounds");
        assert_eq!(age(3), 20.0, "older than what is remembered: at least that old");
        (0..2 * ENDS_MAX as u64).for_each(|n| ends.push(at(30 + n), 200 + n));
        assert_eq!(ends.0.len(), ENDS_MAX);
    }

    #[test]
    fn a_group_s_lag_is_that_of_all_partitions_and_its_age_that_of_the_worst() {
        let group = GroupName::new("billing").expect("a good name");
        let names = BTreeMap::from([(TopicId(7), "orders".to_owned())]);
        let began = Instant::now();
        let mut table = LagTable::default();
        let round = |table: &mut LagTable, seconds, ends: [u64; 2], commits: [u64; 2]| {
            let ends = [0, 1].map(|at| (partition(at), Offset(ends[at as usize])));
            let commits = [0, 1].map(|at| (partition(at), Offset(commits[at as usize]))).to_vec();
            let commits = [(group.clone(), commits)];
            table.take(began + Duration::from_secs(seconds), &commits, &BTreeMap::from(ends), &names);
        };
        round(&mut table, 0, [10, 10], [10, 10]);
        round(&mut table, 10, [10, 30], [10, 10]);
        let lag = |records, seconds| Lag { group: group.clone(), topic: "orders".to_owned(), records, seconds };
        assert_eq!(table.lags, [lag(20, 10.0)]);
        round(&mut table, 20, [11, 30], [10, 30]);
        assert_eq!(table.lags, [lag(1, 10.0)]);
        round(&mut table, 30, [11, 30], [11, 30]);
        assert_eq!(table.lags, [lag(0, 0.0)]);
    }
}
