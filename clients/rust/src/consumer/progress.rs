//! How far each partition has been fetched and read: what to ask which shard, and what an answer means.
//!
//! Pure and synchronous: time, the map and answers come in; requests and batches come out. A partition is in at most one
//! request. What waits for the application is bounded: requests reserve their share of the prefetch memory before they
//! leave. Every failure is followed by a back-off, and so is an answer without data that came at once: nothing spins.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use minikafka_core::wire::{FetchPartition, FetchRequest, TopicDescription};
use minikafka_core::{Epoch, NodeId, Offset, Partition, PartitionKey, RangeKey, limits};

use super::entries::FetchedEntry;
use super::options::{ConsumerOptions, OnDamage, OutOfRangePolicy, ReadFrom, Skipped};
use crate::backoff;
use crate::error::Error;
use crate::map::{ClusterMap, RangeMember};

mod answers;
mod members;

pub(super) use answers::PartitionAnswer;
use members::Members;

/// Requests in flight to one shard for partitions that are behind; and as many that wait for data: one, and others for
/// partitions that were not in it.
const FETCHES_PER_SHARD_MAX: usize = 4;
/// With less memory than this, nothing is asked for.
const FETCH_BYTES_MIN: usize = 32 << 10;

/// A request to one shard.
#[derive(Debug)]
pub(super) struct ShardFetch {
    pub address: Arc<str>,
    pub request: FetchRequest,
    /// Whether to ask for an explanation.
    pub explain: bool,
    /// The partitions, in the order of the request.
    pub asked: Vec<Asked>,
    pub map_version: u64,
    /// Whether some of it is certainly there, so that the shard does not wait.
    is_behind: bool,
}

/// One partition of a request: an answer counts only while the partition is still in the same generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    index: usize,
    generation: u64,
    pub position: Offset,
    /// Who is asked.
    node: NodeId,
    is_head: bool,
    epoch: Epoch,
}

/// A partition by its index, who is asked, and what.
type Question = (usize, RangeMember, FetchPartition);
type Questions = Vec<Question>;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Progress {
    topic: Arc<TopicDescription>,
    prefetch_bytes_max: usize,
    partition_bytes_max: usize,
    fetch_wait: Duration,
    fetch_bytes_min: u32,
    out_of_range: OutOfRangePolicy,
    on_damage: OnDamage,
    read_from: ReadFrom,
    explain: bool,
    /// Answers with records; bounded by the nodes of the cluster.
    fetches_by_node: BTreeMap<NodeId, u64>,
    /// What was left out, the oldest first; bounded.
    skipped: Vec<Skipped>,
    partitions: Vec<PartitionProgress>,
    /// Partitions that are in no request, the longest waiting first.
    idle: VecDeque<usize>,
    /// Partitions with something for the application, each once.
    ready: VecDeque<usize>,
    buffered_bytes: usize,
    reserved_bytes: usize,
    /// Requests by address, and whether they are for something that is certainly there.
    in_flight: HashMap<(Arc<str>, bool), usize>,
    /// The newest map that has turned out to be out of date.
    outdated_map: Option<u64>,
}

#[derive(Debug)]
struct PartitionProgress {
    partition: Partition,
    /// Offset of the next record for the application.
    position: Offset,
    /// Offset of the next record to be fetched.
    fetch_from: Offset,
    batches: VecDeque<FetchedEntry>,
    buffered_bytes: usize,
    committed_end: Option<Offset>,
    /// It is read: always so without a group, and while a group's member owns it.
    is_assigned: bool,
    is_paused: bool,
    is_idle: bool,
    is_ready: bool,
    /// It began at "earliest": its first position may be below the log's start.
    is_starting: bool,
    /// Grows when the application seeks: answers to older questions do not count.
    generation: u64,
    /// Older offsets are in this range, below this offset.
    elsewhere: Option<(RangeKey, Offset)>,
    members: Members,
    hops: u32,
    failures: u32,
    damages: u32,
    empty_answers: u32,
    retry_at: Option<Instant>,
    /// It stands still until a seek.
    failed: Option<Error>,
    failure_was_told: bool,
}

/// Something for the application.
#[derive(Debug)]
pub(super) struct Taken {
    pub index: usize,
    pub entry: FetchedEntry,
    pub position: Offset,
}

/// What may come, as long as nobody seeks, resumes or assigns anything.
#[derive(Debug)]
pub(crate) enum Prospect {
    /// Records.
    Records,
    /// Nothing: no partition is read.
    Nothing,
    /// Nothing: all that is read stands still, one of them because of this.
    Failures(Error),
}

impl Progress {
    /// Partitions with their first positions; true: as early as possible.
    pub(super) fn new(
        topic: Arc<TopicDescription>,
        options: &ConsumerOptions,
        starts: impl IntoIterator<Item = (Partition, Offset, bool)>,
    ) -> Self {
        let partitions: Vec<_> = starts.into_iter().map(PartitionProgress::new).collect();
        Self {
            topic,
            prefetch_bytes_max: options.prefetch_bytes_max,
            partition_bytes_max: options.partition_fetch_bytes_max as usize,
            fetch_wait: options.fetch_wait,
            fetch_bytes_min: options.fetch_bytes_min.max(1),
            out_of_range: options.out_of_range,
            on_damage: options.on_damage,
            read_from: options.read_from.clone(),
            explain: options.explain,
            fetches_by_node: BTreeMap::new(),
            skipped: Vec::new(),
            idle: (0..partitions.len()).collect(),
            partitions,
            ready: VecDeque::new(),
            buffered_bytes: 0,
            reserved_bytes: 0,
            in_flight: HashMap::new(),
            outdated_map: None,
        }
    }

    /// The requests to be made now.
    pub(super) fn plan(&mut self, now: Instant, map: &ClusterMap) -> Vec<ShardFetch> {
        let mut shards: Vec<(Arc<str>, Questions)> = Vec::new();
        let mut shard_of: HashMap<Arc<str>, usize> = HashMap::new();
        let room = self.prefetch_bytes_max.saturating_sub(self.buffered_bytes + self.reserved_bytes);
        if room < FETCH_BYTES_MIN {
            return Vec::new();
        }
        for index in std::mem::take(&mut self.idle) {
            let Some(question) = self.question(index, now, map) else {
                self.idle.push_back(index);
                continue;
            };
            let address = question.1.address.clone();
            let shard = *shard_of.entry(address.clone()).or_insert_with(|| {
                shards.push((address, Vec::new()));
                shards.len() - 1
            });
            shards[shard].1.push(question);
        }
        let share = (room / shards.len().max(1)).min(limits::FETCH_BYTES_MAX as usize);
        shards.into_iter().map(|(address, asked)| self.fetch(address, asked, share as u32, map.version())).collect()
    }

    /// What to ask about a partition, if it is time to.
    fn question(&mut self, index: usize, now: Instant, map: &ClusterMap) -> Option<Question> {
        let partition = &mut self.partitions[index];
        let is_due = partition.retry_at.is_none_or(|at| at <= now);
        let has_room = partition.buffered_bytes < self.partition_bytes_max;
        if !partition.is_wanted() || partition.failed.is_some() || !is_due || !has_room {
            return None;
        }
        let topic = &self.topic;
        let known = map.topic(&topic.name).filter(|known| known.topic == topic.topic && known.error.is_none());
        let elsewhere = partition.elsewhere.map(|(range, _)| range);
        let range = elsewhere.or_else(|| map.range_of(known.unwrap_or(topic), partition.partition));
        let chosen = range.and_then(|range| {
            let place = (map, range, partition.partition);
            Some((range, partition.members.choose(now, &self.read_from, place)?))
        });
        let Some((range, member)) = chosen else {
            self.outdated_map = self.outdated_map.max(Some(map.version()));
            partition.back_off(now, true, Duration::ZERO);
            return None;
        };
        let kind = (member.address.clone(), partition.is_behind());
        if self.in_flight.get(&kind).is_some_and(|count| *count >= FETCHES_PER_SHARD_MAX) {
            return None;
        }
        let asked = FetchPartition {
            range,
            epoch: map.epoch_of(range),
            partition: PartitionKey { topic: topic.topic, partition: partition.partition },
            offset: partition.fetch_from,
            bytes_max: (self.partition_bytes_max - partition.buffered_bytes) as u32,
        };
        Some((index, member, asked))
    }

    fn fetch(&mut self, address: Arc<str>, mut asked: Questions, bytes_max: u32, map_version: u64) -> ShardFetch {
        // What does not fit in one request waits for the next turn.
        for (index, ..) in asked.split_off(asked.len().min(limits::REQUEST_PARTITIONS_MAX as usize)) {
            self.idle.push_back(index);
        }
        for (index, ..) in &asked {
            self.partitions[*index].is_idle = false;
        }
        // Reserved is what can come, so that requests that wait at the end leave the others their memory.
        let wanted: u64 = asked.iter().map(|(.., fetch)| u64::from(fetch.bytes_max)).sum();
        let bytes_max = u64::from(bytes_max).min(wanted) as u32;
        self.reserved_bytes += bytes_max as usize;
        let is_behind = asked.iter().any(|(index, ..)| self.partitions[*index].is_behind());
        *self.in_flight.entry((address.clone(), is_behind)).or_default() += 1;
        let asked_of = |(index, member, fetch): &Question| Asked {
            index: *index,
            generation: self.partitions[*index].generation,
            position: fetch.offset,
            node: member.node,
            is_head: member.is_head,
            epoch: fetch.epoch,
        };
        ShardFetch {
            address,
            explain: self.explain,
            asked: asked.iter().map(asked_of).collect(),
            request: FetchRequest {
                wait_ms_max: self.fetch_wait.as_millis() as u32,
                bytes_min: self.fetch_bytes_min,
                bytes_max,
                partitions: asked.into_iter().map(|(.., fetch)| fetch).collect(),
            },
            map_version,
            is_behind,
        }
    }

    /// When [`Progress::plan`] has something to do, if nothing else happens before.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waiting = self.idle.iter().map(|index| &self.partitions[*index]);
        let waiting = waiting.filter(|partition| partition.failed.is_none() && partition.is_wanted());
        waiting.filter_map(|partition| partition.retry_at).filter(|at| *at > now).min()
    }

    /// A map newer than this version is needed; said once per failure.
    pub(super) fn take_map_wish(&mut self) -> Option<u64> {
        self.outdated_map.take()
    }

    /// The next batch for the application, partitions taking turns; or the next failure, told once. None: nothing yet.
    pub(super) fn take(&mut self) -> Option<Result<Taken, Error>> {
        while let Some(index) = self.ready.pop_front() {
            let partition = &mut self.partitions[index];
            partition.is_ready = false;
            if !partition.is_wanted() {
                continue;
            }
            if let Some(entry) = partition.batches.pop_front() {
                let bytes = entry.buffered_bytes();
                partition.buffered_bytes -= bytes;
                self.buffered_bytes -= bytes;
                let position = partition.position;
                partition.position = position.max(entry.header.next_offset());
                if partition.batches.is_empty() {
                    // Behind it may be records that were skipped.
                    partition.position = partition.position.max(partition.fetch_from);
                }
                self.announce(index);
                return Some(Ok(Taken { index, entry, position }));
            }
            if let Some(error) = partition.failed.clone().filter(|_| !partition.failure_was_told) {
                partition.failure_was_told = true;
                return Some(Err(error));
            }
        }
        None
    }

    /// Whether anything can come.
    pub(super) fn prospect(&self) -> Prospect {
        let mut prospect = Prospect::Nothing;
        for partition in self.partitions.iter().filter(|partition| partition.is_wanted()) {
            match &partition.failed {
                None => return Prospect::Records,
                Some(error) => prospect = Prospect::Failures(error.clone()),
            }
        }
        prospect
    }

    /// Whether more can be fetched after the application has taken something.
    pub(super) fn may_fetch(&self) -> bool {
        !self.idle.is_empty()
    }

    /// A batch turned out to be unreadable: its partition goes back and stands still.
    pub(super) fn fail(&mut self, index: usize, position: Offset, error: Error) {
        self.restart(index, position);
        self.partitions[index].failed = Some(error);
        self.partitions[index].failure_was_told = true;
    }

    /// The application goes on at `position`. False: the partition is not read here.
    pub(super) fn seek(&mut self, partition: Partition, position: Offset) -> bool {
        let index = self.index_of(partition);
        if let Some(index) = index {
            self.restart(index, position);
        }
        index.is_some()
    }

    /// The same for all partitions of a topic, none of which is read before it is [assigned](Self::assign).
    pub(super) fn of_group(topic: Arc<TopicDescription>, options: &ConsumerOptions) -> Self {
        let all = (0..topic.partitions).map(|partition| (Partition(partition), Offset(0), false));
        let mut progress = Self::new(topic, options, all);
        progress.partitions.iter_mut().for_each(|partition| partition.is_assigned = false);
        progress
    }

    /// A partition is read from `position` on; `is_starting`: or from wherever its log begins. False: there is none.
    pub(super) fn assign(&mut self, partition: Partition, position: Offset, is_starting: bool) -> bool {
        let index = self.index_of(partition);
        if let Some(index) = index {
            self.restart(index, position);
            let partition = &mut self.partitions[index];
            (partition.is_assigned, partition.is_paused, partition.is_starting) = (true, false, is_starting);
        }
        index.is_some()
    }

    /// A partition is not read any more; what was fetched of it is gone.
    pub(super) fn unassign(&mut self, partition: Partition) {
        if let Some(index) = self.index_of(partition) {
            self.restart(index, Offset(0));
            self.partitions[index].is_assigned = false;
        }
    }

    /// A partition stands still, and says why.
    pub(super) fn refuse(&mut self, partition: Partition, error: Error) {
        if let Some(index) = self.index_of(partition) {
            self.partitions[index].failed = Some(error);
            self.announce(index);
        }
    }

    /// Puts back what was taken and not read.
    pub(super) fn put_back(&mut self, entry: FetchedEntry, position: Offset) {
        let Some(index) = self.index_of(entry.header.partition) else { return };
        let partition = &mut self.partitions[index];
        partition.position = position;
        partition.buffered_bytes += entry.buffered_bytes();
        self.buffered_bytes += entry.buffered_bytes();
        partition.batches.push_front(entry);
        self.announce(index);
    }

    pub(super) fn set_paused(&mut self, partitions: &[Partition], is_paused: bool) {
        for partition in partitions {
            if let Some(index) = self.index_of(*partition) {
                self.partitions[index].is_paused = is_paused;
                self.announce(index);
            }
        }
    }

    /// What was left out because it is damaged.
    pub(super) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// How many answers with records each node gave.
    pub(super) fn fetches_by_node(&self) -> &BTreeMap<NodeId, u64> {
        &self.fetches_by_node
    }

    /// Partition, position, committed end.
    pub(super) fn positions(&self) -> impl Iterator<Item = (Partition, Offset, Option<Offset>)> {
        let assigned = self.partitions.iter().filter(|partition| partition.is_assigned);
        assigned.map(|partition| (partition.partition, partition.position, partition.committed_end))
    }

    fn restart(&mut self, index: usize, position: Offset) {
        let partition = &mut self.partitions[index];
        self.buffered_bytes -= partition.buffered_bytes;
        let fresh = PartitionProgress {
            generation: partition.generation + 1,
            committed_end: partition.committed_end,
            is_assigned: partition.is_assigned,
            is_paused: partition.is_paused,
            is_ready: partition.is_ready,
            ..PartitionProgress::new((partition.partition, position, false))
        };
        // A request that is under way for the old position no longer counts, so the partition is free for a new one.
        let was_idle = std::mem::replace(partition, fresh).is_idle;
        if !was_idle {
            self.idle.push_front(index);
        }
    }

    fn announce(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        let has_something = !partition.batches.is_empty() || partition.failed.is_some() && !partition.failure_was_told;
        if has_something && !partition.is_ready && partition.is_wanted() {
            partition.is_ready = true;
            self.ready.push_back(index);
        }
    }

    fn index_of(&self, partition: Partition) -> Option<usize> {
        self.partitions.binary_search_by_key(&partition, |progress| progress.partition).ok()
    }
}

impl PartitionProgress {
    /// Whether there is certainly more to be fetched.
    fn is_behind(&self) -> bool {
        self.committed_end.is_some_and(|end| self.fetch_from < end)
    }

    fn new((partition, position, is_starting): (Partition, Offset, bool)) -> Self {
        Self {
            partition,
            position,
            fetch_from: position,
            batches: VecDeque::new(),
            buffered_bytes: 0,
            committed_end: None,
            is_assigned: true,
            is_paused: false,
            is_idle: true,
            is_ready: false,
            is_starting,
            generation: 0,
            elsewhere: None,
            members: Members::default(),
            hops: 0,
            failures: 0,
            damages: 0,
            empty_answers: 0,
            retry_at: None,
            failed: None,
            failure_was_told: false,
        }
    }

    fn is_wanted(&self) -> bool {
        self.is_assigned && !self.is_paused
    }

    fn back_off(&mut self, now: Instant, needs_map: bool, server_asks: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + backoff::random_wait(self.failures, needs_map, server_asks));
    }
}

#[cfg(test)]
mod tests;
