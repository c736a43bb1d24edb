//! Consumers: they read any range from any member of its chain, in order, and never accept another record at an offset.

use std::rc::Rc;

use minikafka_checker::{History, Member, Poll, SessionId, payload};
use minikafka_core::batch::BatchView;
use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::wire::{FetchPartition, FetchReply, FetchRequest, FetchedPartition};
use minikafka_core::*;

use super::{ClusterMap, partition_key, range_of};
use crate::invariants::{Checked, Violation};
use crate::network::place;
use crate::node::{Caller, Reply, Request};
use crate::plan::Plan;
use crate::queue::{MS, SECOND, Time};
use crate::world::{Event, World};

/// Entry bytes asked for.
const FETCH_BYTES: u32 = 20_000;

/// A consumer.
pub struct Consumer {
    /// The next offset of each partition that is not read.
    pub positions: Vec<u64>,
    /// It reads this range from this node only, and to the end.
    pub fixed: Option<(RangeId, usize)>,
    map: Rc<ClusterMap>,
    asked_map: bool,
    /// Of each partition.
    sessions: Vec<SessionId>,
    request: u64,
    asked_at: Time,
    /// Until then it waits for the answer to it.
    waits_until: Time,
}

impl Consumer {
    /// One that reads everything from anybody.
    pub fn roaming(name: usize, plan: &Plan, map: Rc<ClusterMap>, history: &mut History) -> Self {
        let partitions = plan.ranges * plan.partitions;
        let session = |partition| history.session(format!("consumer {name}"), partition, 0);
        let sessions = (0..partitions).map(session).collect();
        let positions = vec![0; partitions as usize];
        Self { positions, fixed: None, map, asked_map: false, sessions, request: 0, asked_at: 0, waits_until: 0 }
    }

    /// One that reads a range from one node, from the beginning.
    pub fn fixed(
        name: usize,
        plan: &Plan,
        map: Rc<ClusterMap>,
        history: &mut History,
        (range, node): (RangeId, usize),
    ) -> Self {
        Self { fixed: Some((range, node)), ..Self::roaming(name, plan, map, history) }
    }

    /// It has read this partition to the end, after all producers had stopped.
    pub fn finish(&self, partition: usize, history: &mut History) {
        history.finished(self.sessions[partition]);
    }
}

impl World {
    /// A consumer's turn: asks for more unless it waits.
    pub fn consumer_turn(&mut self, consumer: usize) -> Checked {
        let now = self.queue.now();
        let next = Plan::around(&mut self.random, if self.is_healing { 10 * MS } else { self.plan.poll_us });
        self.queue.add(now + next, Event::ConsumerTurn { consumer });
        let at = &self.consumers[consumer];
        if at.waits_until > now {
            return Ok(());
        }
        let range = match at.fixed {
            Some((range, _)) => range,
            None => RangeId(self.random.below(self.plan.ranges.into()) as u32),
        };
        let map = at.map.clone();
        let Some((epoch, chain)) = map.range(range) else {
            self.ask_map_to_read(consumer);
            return Ok(());
        };
        let node = match at.fixed {
            Some((_, node)) => node,
            None => place(&chain[self.random.below(chain.len() as u64) as usize]),
        };
        let key = self.range_key(range);
        let (epoch, positions) = (*epoch, &at.positions);
        let wanted = |partition: u32| FetchPartition {
            range: key,
            epoch,
            partition: partition_key(partition),
            offset: Offset(positions[partition as usize]),
            bytes_max: FETCH_BYTES,
        };
        let first = range.0 * self.plan.partitions;
        let partitions = (first..first + self.plan.partitions).map(wanted).collect();
        let wait_ms_max = if self.random.one_in(2) { 0 } else { 30 };
        let request = FetchRequest { wait_ms_max, bytes_min: 1, bytes_max: FETCH_BYTES, partitions };
        let at = &mut self.consumers[consumer];
        at.request += 1;
        (at.asked_at, at.waits_until) = (now, now + SECOND);
        let caller = Caller::Consumer(consumer, at.request);
        let arrives = now + self.plan.delay(&mut self.random);
        self.send_request(arrives, node, caller, Request::Fetch(request));
        Ok(())
    }

    fn ask_map_to_read(&mut self, consumer: usize) {
        if !std::mem::replace(&mut self.consumers[consumer].asked_map, true) {
            let (at, map) = self.map_for_client();
            self.queue.add(at, Event::ConsumerMap { consumer, map });
        }
    }

    /// A consumer has the map.
    pub fn consumer_map(&mut self, consumer: usize, map: Rc<ClusterMap>) -> Checked {
        let at = &mut self.consumers[consumer];
        (at.map, at.asked_map) = (map, false);
        Ok(())
    }

    /// An answer to a fetch; one that was given up is ignored.
    pub fn consumer_reply(&mut self, consumer: usize, request: u64, node: usize, reply: Reply) -> Checked {
        let at = &mut self.consumers[consumer];
        if at.request != request {
            return Ok(());
        }
        at.waits_until = 0;
        let Reply::Fetched(reply, entries) = reply else {
            self.ask_map_to_read(consumer);
            return Ok(());
        };
        self.take_fetched(consumer, node, &reply, &entries)
    }

    fn take_fetched(&mut self, consumer: usize, node: usize, reply: &FetchReply, mut entries: &[u8]) -> Checked {
        for fetched in &reply.partitions {
            let partition = fetched.partition.partition.0;
            let (mine, rest) = entries.split_at(fetched.entries_bytes as usize);
            entries = rest;
            let position = self.consumers[consumer].positions[partition as usize];
            let is_deleted = fetched.error == Some(ErrorCode::OffsetOutOfRange)
                && self.plan.retention.is_some()
                && fetched.log_start.0 > position;
            if fetched.error.is_none() || is_deleted {
                self.polled(consumer, node, fetched);
            }
            match fetched.error {
                Some(_) if is_deleted => self.consumers[consumer].positions[partition as usize] = fetched.log_start.0,
                None => self.take_entries(consumer, node, partition, mine)?,
                Some(ErrorCode::OffsetOutOfRange | ErrorCode::Moved | ErrorCode::UnknownPartition) => {
                    let offset = self.consumers[consumer].positions[partition as usize];
                    let what = format!("node {} refuses offset {offset}: {fetched:?}", node + 1);
                    return Err(Violation::data(format!("partition {partition}: {what}")));
                }
                Some(ErrorCode::DataDamaged) if !self.nodes[node].had_rot && !self.is_unreadable(node, partition) => {
                    let what = format!("node {} says its data are damaged: {fetched:?}", node + 1);
                    self.truth.rule(|| format!("partition {partition}: {what}"))?;
                    self.ask_map_to_read(consumer);
                }
                Some(_) => self.ask_map_to_read(consumer),
            }
        }
        Ok(())
    }

    /// Whether a member could not read all of its log when it was opened, so that some of it counts as lost.
    fn is_unreadable(&self, node: usize, partition: u32) -> bool {
        let life = self.nodes[node].life.as_ref();
        let member = life.and_then(|life| life.members.get(&range_of(&self.plan, partition)));
        member.and_then(|log| log.view).is_some_and(|view| view.damaged)
    }

    fn polled(&mut self, consumer: usize, node: usize, fetched: &FetchedPartition) {
        let member =
            self.nodes[node].life.as_ref().map(|life| Member { node: node as u32 + 1, life: life.incarnation.0 });
        let at = &self.consumers[consumer];
        let poll = Poll {
            invoked: at.asked_at,
            returned: self.queue.now(),
            // The life that answered may be over by now: then nobody says who it was.
            member: member.filter(|_| self.nodes[node].started_at < at.asked_at),
            epoch: Some(fetched.epoch.0),
            committed: Some(fetched.committed_end.0),
            log_start: Some(fetched.log_start.0),
        };
        self.history.poll(at.sessions[fetched.partition.partition.0 as usize], poll);
    }

    fn take_entries(&mut self, consumer: usize, node: usize, partition: u32, mut entries: &[u8]) -> Checked {
        let range = range_of(&self.plan, partition);
        let broken = |what: &str| {
            let node = node + 1;
            Err(Violation::data(format!("partition {partition} of range {range}: node {node} serves {what}")))
        };
        while !entries.is_empty() {
            let Ok(header) = EntryHeader::decode(entries) else { return broken("what is no entry") };
            if header.kind != EntryKind::Batch || header.partition_key() != partition_key(partition) {
                return broken("an entry of another partition");
            }
            let body = &entries[entry::ENTRY_HEADER_BYTES..][..header.body_bytes as usize];
            if checksum::crc32c(body) != header.body_crc {
                return broken("a damaged body");
            }
            let Ok(view) = BatchView::parse(body, &header) else { return broken("a body that is no batch") };
            for record in view.iter() {
                let position = self.consumers[consumer].positions[partition as usize];
                if record.offset.0 < position {
                    continue;
                }
                let Ok(id) = payload::decode(None, record.value) else { return broken("a damaged record") };
                if record.offset.0 > position || id.partition != partition {
                    return broken("a record that is not the next one of the partition");
                }
                self.truth.read(id, position)?;
                self.history.read_record(self.consumers[consumer].sessions[partition as usize], position, Ok(id));
                self.consumers[consumer].positions[partition as usize] += 1;
            }
            entries = &entries[header.entry_bytes()..];
        }
        let position = self.consumers[consumer].positions[partition as usize];
        self.note("  read", [consumer as u64, node as u64 + 1, partition.into(), position]);
        Ok(())
    }
}
