//! Groups as seen from outside: listed, described, moved, deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minikafka_core::group::GroupName;
use minikafka_core::limits::COMMIT_PARTITIONS_MAX;
use minikafka_core::wire::group::{
    CommittedOffset, GroupCommitReply, GroupCommitRequest, GroupDeleteRequest, GroupDescribeReply,
    GroupDescribeRequest, GroupListRange, GroupListReply, GroupListRequest, GroupOffsetsReply, GroupOffsetsRequest,
    GroupPhase, ListedGroups, MemberDescription,
};
use minikafka_core::wire::{Api, DecodeError, Reader, Wire};
use minikafka_core::{
    Epoch, ErrorCode, GroupGeneration, GroupSequence, MemberId, Offset, PartitionKey, RangeKey, TopicId,
};
use tokio::time::Instant;

use super::record::TopicPartition;
use crate::backoff;
use crate::client::{Client, ClientShared};
use crate::error::{Error, Result};
use crate::overdue::{Addressed, OVERDUE};
use crate::pool::Lane;

/// A group of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub group: String,
    /// What it is at.
    pub phase: GroupPhase,
    /// How many members it has.
    pub members: u32,
}

/// Who is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its generation: it grows whenever partitions change hands.
    pub generation: u64,
    /// What it is at.
    pub phase: GroupPhase,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id, which it draws whenever it joins.
    pub member: MemberId,
    /// Its instance name; empty: it has none.
    pub instance: String,
    /// Its program; empty: not told.
    pub client_name: String,
    /// For how long it was silent.
    pub silent: Duration,
    /// What it subscribes to.
    pub topics: Vec<Arc<str>>,
    /// What it owns.
    pub owned: Vec<TopicPartition>,
    /// What it should have.
    pub target: Vec<TopicPartition>,
}

/// Names of topics by id; one that is gone is called by its id.
pub(super) struct TopicNames(HashMap<TopicId, Arc<str>>);

/// The reply to a deletion: no fields.
struct Nothing;

impl Wire for Nothing {
    fn put(&self, _: &mut Vec<u8>) {}
    fn take(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

impl Client {
    /// Every group of the cluster, by name.
    ///
    /// # Errors
    /// [`Error::NoGateway`], or the last retriable error at the client's `request_timeout`.
    pub async fn list_groups(&self) -> Result<Vec<ListedGroup>> {
        let deadline = Instant::now() + self.shared().options.request_timeout;
        let mut groups = Vec::new();
        let mut done: BTreeSet<RangeKey> = BTreeSet::new();
        for failures in 0_u32.. {
            let map = self.map();
            let open: Vec<RangeKey> = map.group_ranges().filter(|range| !done.contains(range)).collect();
            if open.is_empty() && !done.is_empty() {
                break;
            }
            let (listed, error) = self.shared().clone().list_groups_of(open, deadline).await;
            // A range that had no room in an answer is asked for again at once: others were answered.
            let has_news = !listed.is_empty();
            for ListedGroups { range, groups: found, .. } in listed {
                done.insert(range);
                groups.extend(found);
            }
            let Some(error) = error else { continue };
            let wait = match has_news {
                true => Duration::ZERO,
                false => backoff::random_wait(failures + 1, error.wants_refresh(), error.retry_after()),
            };
            if !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            if !has_news || error.wants_refresh() {
                self.shared().map_after(map.version()).await;
            }
        }
        let shown = groups.into_iter().map(|group| ListedGroup {
            group: group.group.to_string(),
            phase: group.phase,
            members: group.members,
        });
        let mut shown: Vec<ListedGroup> = shown.collect();
        shown.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(shown)
    }

    /// Who is in a group, and has what.
    ///
    /// # Errors
    /// [`Error::Broker`] with `unknown_group`; [`Error::NoGateway`] and the like at the client's `request_timeout`.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let described = self.group_description(group).await?;
        let names = self.topic_names().await?;
        let member = |member: MemberDescription| GroupMember {
            member: member.member,
            instance: member.instance.to_string(),
            client_name: member.client_name,
            silent: Duration::from_millis(member.silent_ms),
            topics: member.topics.iter().map(|topic| names.of(*topic)).collect(),
            owned: names.all(&member.owned),
            target: names.all(&member.target),
        };
        Ok(GroupDescription {
            generation: described.generation.0,
            phase: described.phase,
            members: described.members.into_iter().map(member).collect(),
        })
    }

    /// Where a group goes on: the offset of the next record, for every partition of which it committed something.
    ///
    /// # Errors
    /// As [`Client::describe_group`].
    pub async fn group_offsets(&self, group: &str) -> Result<BTreeMap<TopicPartition, Offset>> {
        let offsets = self.committed_offsets(group).await?;
        let names = self.topic_names().await?;
        Ok(offsets.into_iter().map(|committed| (names.partition(committed.partition), committed.offset)).collect())
    }

    /// Makes a group go on elsewhere in partitions that no member owns. One that does not exist exists from then on.
    ///
    /// # Errors
    /// [`Error::Broker`] with `group_not_empty` when a member owns one of them (the others are committed),
    /// `unknown_topic`; [`Error::NoSuchPartition`]; as [`Client::describe_group`] otherwise.
    pub async fn commit_group_offsets(&self, group: &str, offsets: &BTreeMap<TopicPartition, Offset>) -> Result<()> {
        let mut wanted = Vec::with_capacity(offsets.len());
        for (place, offset) in offsets {
            let topic = self.topic(&place.topic).await?;
            crate::offsets::check_partitions(&topic, &[place.partition])?;
            let partition = PartitionKey { topic: topic.topic, partition: place.partition };
            wanted.push((place, CommittedOffset { partition, offset: *offset, metadata: String::new() }));
        }
        let name = group_name(group)?;
        for chunk in wanted.chunks(COMMIT_PARTITIONS_MAX) {
            let offsets: Vec<CommittedOffset> = chunk.iter().map(|(_, committed)| committed.clone()).collect();
            let request = |range, epoch| GroupCommitRequest {
                range,
                epoch,
                group: name.clone(),
                member: MemberId::NONE,
                sequence: GroupSequence(0),
                generation: GroupGeneration(0),
                offsets: offsets.clone(),
            };
            let reply: GroupCommitReply =
                self.shared().ask_coordinator(&name, Api::GroupCommit, request, &mut false).await?;
            for ((place, _), outcome) in chunk.iter().zip(reply.partitions) {
                if let Some(code) = outcome.error {
                    return Err(Error::broker(code, format!("group {group}, topic partition {place}")));
                }
            }
        }
        Ok(())
    }

    /// Deletes a group without members, its commits included.
    ///
    /// # Errors
    /// [`Error::Broker`] with `unknown_group` or `group_not_empty`; as [`Client::describe_group`] otherwise.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let name = group_name(group)?;
        let request = |range, epoch| GroupDeleteRequest { range, epoch, group: name.clone() };
        let mut maybe_done = false;
        let deleted: Result<Nothing> =
            self.shared().ask_coordinator(&name, Api::GroupDelete, request, &mut maybe_done).await;
        match deleted {
            // An earlier attempt, whose answer was lost, did it.
            Err(error) if maybe_done && error.code() == Some(ErrorCode::UnknownGroup) => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    pub(super) async fn group_description(&self, group: &str) -> Result<GroupDescribeReply> {
        let name = group_name(group)?;
        let request = |range, epoch| GroupDescribeRequest { range, epoch, group: name.clone() };
        self.shared().ask_coordinator(&name, Api::GroupDescribe, request, &mut false).await
    }

    pub(super) async fn committed_offsets(&self, group: &str) -> Result<Vec<CommittedOffset>> {
        let name = group_name(group)?;
        let request = |range, epoch| GroupOffsetsRequest { range, epoch, group: name.clone(), partitions: None };
        let reply: GroupOffsetsReply =
            self.shared().ask_coordinator(&name, Api::GroupOffsets, request, &mut false).await?;
        Ok(reply.offsets)
    }

    async fn topic_names(&self) -> Result<TopicNames> {
        let topics = self.list_topics().await?;
        Ok(TopicNames(topics.into_iter().map(|topic| (topic.topic, topic.name.into())).collect()))
    }
}

impl TopicNames {
    fn of(&self, topic: TopicId) -> Arc<str> {
        self.0.get(&topic).cloned().unwrap_or_else(|| topic.to_string().into())
    }

    fn partition(&self, partition: PartitionKey) -> TopicPartition {
        TopicPartition { topic: self.of(partition.topic), partition: partition.partition }
    }

    fn all(&self, partitions: &[PartitionKey]) -> Vec<TopicPartition> {
        partitions.iter().map(|partition| self.partition(*partition)).collect()
    }
}

impl ClientShared {
    /// Asks the coordinator of a group, whoever that is by now, again and again until the client's `request_timeout`.
    /// `maybe_done`: an attempt before the last one may have been carried out without an answer.
    async fn ask_coordinator<Q: Wire, A: Wire>(
        &self,
        group: &GroupName,
        api: Api,
        request: impl Fn(RangeKey, Epoch) -> Q,
        maybe_done: &mut bool,
    ) -> Result<A> {
        let deadline = Instant::now() + self.options.request_timeout;
        for failures in 1.. {
            let map = self.map.current();
            let range = map.range_of_group(group);
            let owner = range.and_then(|range| Some((range, map.owner_of(range)?)));
            let answered = match owner {
                Some((range, owner)) => {
                    let addressed = Addressed { address: owner.address, range, epoch: owner.epoch };
                    self.ask_head(api, &request(range, owner.epoch), addressed, deadline).await
                }
                None => Err(Error::broker(ErrorCode::NotOwner, format!("the coordinator of group {group}"))),
            };
            let error = match answered {
                Ok(answer) => return Ok(answer),
                Err(error) => about(error, group),
            };
            let wait = backoff::random_wait(failures, error.wants_refresh(), error.retry_after());
            if !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            *maybe_done |= error.is_outcome_unknown();
            tokio::time::sleep(wait).await;
            if error.wants_refresh() {
                self.map_after(map.version()).await;
            }
        }
        unreachable!("the loop above ends by returning")
    }

    async fn ask_head<A: Wire>(
        &self,
        api: Api,
        request: &impl Wire,
        addressed: Addressed,
        deadline: Instant,
    ) -> Result<A> {
        let connection = self.pool.connect(&addressed.address, Lane::Requests).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let (head, addressed) = (request.to_bytes(), [addressed]);
        let reply = tokio::select! {
            reply = connection.request(api, &head, Bytes::new(), left) => reply?,
            moved = self.moved(OVERDUE, &addressed) => return Err(moved),
        };
        connection.decode("reply", &reply.head)
    }

    /// The ranges whose groups were told, and why others were not.
    async fn list_groups_of(
        self: Arc<Self>,
        ranges: Vec<RangeKey>,
        deadline: Instant,
    ) -> (Vec<ListedGroups>, Option<Error>) {
        let map = self.map.current();
        let mut by_head: HashMap<Arc<str>, Vec<GroupListRange>> = HashMap::new();
        let mut failed = ranges.is_empty().then(|| Error::broker(ErrorCode::NotOwner, "the ring of the groups"));
        for range in ranges {
            match map.owner_of(range) {
                Some(owner) => {
                    by_head.entry(owner.address).or_default().push(GroupListRange { range, epoch: owner.epoch });
                }
                None => failed = Some(Error::broker(ErrorCode::NotOwner, format!("range {range}"))),
            }
        }
        let mut asking = tokio::task::JoinSet::new();
        for (address, ranges) in by_head {
            let client = self.clone();
            asking.spawn(async move {
                let first = &ranges[0];
                let addressed = Addressed { address: address.clone(), range: first.range, epoch: first.epoch };
                let reply: Result<GroupListReply> =
                    client.ask_head(Api::GroupList, &GroupListRequest { ranges }, addressed, deadline).await;
                reply
            });
        }
        let mut listed = Vec::new();
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok(Ok(reply)) => {
                    for range in reply.ranges {
                        match range.error {
                            None => listed.push(range),
                            Some(code) => failed = Some(Error::broker(code, format!("range {}", range.range))),
                        }
                    }
                }
                Ok(Err(error)) => failed = Some(error),
                Err(_panicked) => failed = Some(Error::Closed("client")),
            }
        }
        (listed, failed)
    }
}

/// What a server says of a group is about the group, not about the server.
fn about(error: Error, group: &GroupName) -> Error {
    match error {
        Error::Broker(broker) if !broker.code.is_retriable() => {
            Error::broker_with(broker.code, format!("group {group}"), broker.message.clone(), broker.epoch)
        }
        error => error,
    }
}

pub(super) fn group_name(group: &str) -> Result<GroupName> {
    GroupName::new(group).map_err(|code| {
        let message = "a group's name has 1 to 249 letters, digits, '.', '_' or '-'".to_owned();
        Error::broker_with(code, format!("group {group:?}"), message, Epoch(0))
    })
}
