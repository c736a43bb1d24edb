//! Clients: what they know of the cluster, and who opens partitions for them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::controller::Input;
use minikafka_core::control::ControlEntry;
use minikafka_core::coordination::RingChunk;
use minikafka_core::wire::{AppendControlRange, AppendControlRequest};
use minikafka_core::*;

use crate::invariants::Checked;
use crate::network::place;
use crate::node::{Caller, Reply, Request};
use crate::plan::Plan;
use crate::queue::{MS, SECOND, Time};
use crate::world::{Event, World};

pub mod consumer;
pub mod producer;

/// An opening that is not answered is asked for again, as the gateway does.
const OPENING_TIME_MAX: Time = 2 * SECOND;

/// The world's one topic.
pub const TOPIC: TopicId = TopicId(0xabc);

/// Epoch and chain of each range, as the record had them at some time.
pub struct ClusterMap {
    ranges: Vec<Option<(Epoch, Vec<ChainMember>)>>,
}

impl ClusterMap {
    /// Of a record.
    pub fn of(chunk: &RingChunk) -> Self {
        let ranges =
            chunk.ranges.iter().map(|range| range.active.as_ref().map(|active| (active.epoch, active.chain.clone())));
        Self { ranges: ranges.collect() }
    }

    /// Who has a range.
    pub fn range(&self, range: RangeId) -> Option<&(Epoch, Vec<ChainMember>)> {
        self.ranges[range.0 as usize].as_ref()
    }
}

/// The key of one of the world's partitions.
pub const fn partition_key(partition: u32) -> PartitionKey {
    PartitionKey { topic: TOPIC, partition: Partition(partition) }
}

/// The range in which it lies.
pub const fn range_of(plan: &Plan, partition: u32) -> RangeId {
    RangeId(partition / plan.partitions)
}

/// Opens the partitions, range by range, as the gateway does.
pub struct Topics {
    unopened: BTreeSet<u32>,
    /// Until when an answer is waited for.
    asked: BTreeMap<RangeId, Time>,
}

impl Topics {
    /// Nothing is open.
    pub fn new(plan: &Plan) -> Self {
        Self { unopened: (0..plan.ranges * plan.partitions).collect(), asked: BTreeMap::new() }
    }

    /// Whether all are open.
    pub fn are_open(&self) -> bool {
        self.unopened.is_empty()
    }
}

impl World {
    /// Opens what is not open.
    pub fn topic_turn(&mut self) -> Checked {
        if self.topics.are_open() {
            return Ok(());
        }
        let now = self.queue.now();
        self.queue.add(now + 20 * MS, Event::TopicTurn);
        for range in (0..self.plan.ranges).map(RangeId) {
            let mine = |partition: &&u32| range_of(&self.plan, **partition) == range;
            let entries: Vec<u32> = self.topics.unopened.iter().filter(mine).copied().collect();
            let map = self.map.clone();
            let Some((epoch, chain)) = map.range(range).filter(|_| !entries.is_empty()) else { continue };
            if self.topics.asked.get(&range).is_some_and(|until| *until > now) {
                continue;
            }
            self.topics.asked.insert(range, now + OPENING_TIME_MAX);
            let key = self.range_key(range);
            self.note("open partitions", [chain[0].node.0.into(), range.0.into(), epoch.0, entries.len() as u64]);
            let open = |partition: u32| AppendControlRange {
                range: key,
                epoch: *epoch,
                entry: ControlEntry::PartitionOpen {
                    partition: partition_key(partition),
                    config: self.plan.config_of(partition),
                    version: ConfigVersion::FIRST,
                    start_offset: Offset(0),
                    previous: None,
                },
            };
            let request = AppendControlRequest { entries: entries.into_iter().map(open).collect() };
            let at = now + self.plan.delay(&mut self.random);
            self.send_request(at, place(&chain[0]), Caller::Topics(range), Request::Append(request));
        }
        Ok(())
    }

    /// What came of opening.
    pub fn topic_reply(&mut self, range: RangeId, reply: Reply) -> Checked {
        self.topics.asked.remove(&range);
        self.note("  opened", [0, range.0.into(), 0, u64::from(matches!(reply, Reply::Append(_)))]);
        let Reply::Append(reply) = reply else { return Ok(()) };
        let unopened: Vec<u32> = self
            .topics
            .unopened
            .iter()
            .copied()
            .filter(|partition| range_of(&self.plan, *partition) == range)
            .collect();
        for (partition, outcome) in unopened.into_iter().zip(reply.entries) {
            match outcome.error {
                None => drop(self.topics.unopened.remove(&partition)),
                Some(ErrorCode::NotOwner | ErrorCode::Stale) => {
                    for id in self.controllers.keys().copied().collect::<Vec<_>>() {
                        self.tell_controller(id, Input::ControlRefused { range, epoch: outcome.epoch })?;
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The map as a client gets it now, and when.
    fn map_for_client(&mut self) -> (u64, Rc<ClusterMap>) {
        let at = self.queue.now() + 2 * self.plan.delay(&mut self.random);
        (at, self.map.clone())
    }
}
