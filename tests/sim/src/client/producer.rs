//! Producers: idempotent, several batches in flight, the same batch again with the same sequence until it is stored.

use std::collections::VecDeque;
use std::rc::Rc;

use minikafka_checker::{Outcome, RecordId, payload};
use minikafka_core::batch::{BatchBuilder, RecordRef};
use minikafka_core::chain::replica::Answer;
use minikafka_core::entry::EntryHeader;
use minikafka_core::*;

use super::{ClusterMap, partition_key, range_of};
use crate::invariants::{Checked, Violation};
use crate::network::place;
use crate::node::{Caller, Reply, Request};
use crate::plan::Plan;
use crate::queue::{MS, SECOND, Time};
use crate::world::{Event, World};

/// A producer.
pub struct Producer {
    /// One for each partition that it writes to.
    pub streams: Vec<Stream>,
    map: Rc<ClusterMap>,
    asked_map: bool,
}

/// A producer's way to one partition.
pub struct Stream {
    /// Which.
    pub partition: u32,
    /// Records that were made.
    records: u64,
    id: ProducerId,
    window: VecDeque<Batch>,
    /// Not before then is anything sent again.
    again_at: Time,
    /// Requests arrive in order, as on one connection.
    last_at: Time,
    /// Since when it knows that something of it is stored.
    stored_since: Time,
}

struct Batch {
    first: u64,
    header: EntryHeader,
    body: Rc<Vec<u8>>,
    attempt: u32,
    sent_at: Time,
    /// When its answer is given up; none: it waits to be sent.
    deadline: Option<Time>,
    is_done: bool,
}

impl Producer {
    /// A producer that has sent nothing.
    pub fn new(number: usize, seed: u64, plan: &Plan, map: Rc<ClusterMap>) -> Self {
        let partitions = plan.ranges * plan.partitions;
        let mut chosen = vec![number as u32 % partitions, (number as u32 * 7 + seed as u32 % 5 + 1) % partitions];
        chosen.dedup();
        let stream = |partition: u32| Stream {
            partition,
            records: 0,
            id: ProducerId(number as i64 + 1),
            window: VecDeque::new(),
            again_at: 0,
            last_at: 0,
            stored_since: Time::MAX,
        };
        Self { streams: chosen.into_iter().map(stream).collect(), map, asked_map: false }
    }

    /// Whether everything that was sent is answered.
    pub fn is_drained(&self) -> bool {
        self.streams.iter().all(|stream| stream.window.is_empty())
    }
}

impl World {
    /// A producer's turn: gives up, sends again, makes new batches.
    pub fn producer_turn(&mut self, producer: usize) -> Checked {
        let now = self.queue.now();
        let next = Plan::around(&mut self.random, self.plan.think_us);
        self.queue.add(now + next, Event::ProducerTurn { producer });
        for stream in 0..self.producers[producer].streams.len() {
            let at = &mut self.producers[producer].streams[stream];
            for batch in &mut at.window {
                if batch.deadline.is_some_and(|deadline| deadline <= now) {
                    batch.deadline = None;
                }
            }
            let is_open = at.window.len() < self.plan.window;
            if !self.is_healing && is_open && self.random.one_in(2) {
                self.make_batch(producer, stream);
            }
            self.send_waiting(producer, stream);
        }
        Ok(())
    }

    fn make_batch(&mut self, producer: usize, stream: usize) {
        let count = 1 + self.random.below(3);
        let bytes = 24 + self.random.below(self.plan.value_bytes);
        let at = &mut self.producers[producer].streams[stream];
        let (partition, first) = (at.partition, at.records);
        let mut builder = BatchBuilder::with_capacity(256);
        for sequence in first..first + count {
            let id = RecordId { producer: producer as u32, partition, sequence };
            self.history.attempt_at(id, self.queue.now());
            let value = payload::keyless_value(id, bytes as usize);
            let record = RecordRef { value: Some(&value), ..RecordRef::at(Timestamp(1)) };
            builder.push(record).expect("a small record fits");
        }
        at.records += count;
        let finished = builder.finish();
        let range = RangeKey { ring: self.coordinator.chunk.ring, range: range_of(&self.plan, partition) };
        let numbers = (at.id, ProducerEpoch(0), Sequence(first as i32));
        let header = finished.header(range, partition_key(partition), numbers);
        let body = Rc::new(finished.body);
        at.window.push_back(Batch { first, header, body, attempt: 0, sent_at: 0, deadline: None, is_done: false });
    }

    fn send_waiting(&mut self, producer: usize, stream: usize) {
        let now = self.queue.now();
        let Producer { streams, map, .. } = &mut self.producers[producer];
        let at = &mut streams[stream];
        let range = range_of(&self.plan, at.partition);
        if at.again_at > now || at.window.iter().all(|batch| batch.is_done || batch.deadline.is_some()) {
            return;
        }
        let Some((epoch, chain)) = map.range(range).cloned() else {
            at.again_at = now + 5 * MS;
            return self.ask_map(producer);
        };
        let mut sends = Vec::new();
        for batch in at.window.iter_mut().filter(|batch| !batch.is_done && batch.deadline.is_none()) {
            batch.attempt += 1;
            batch.sent_at = now;
            batch.deadline = Some(now + SECOND + self.random.below(SECOND));
            at.last_at = at.last_at.max(now + self.plan.delay(&mut self.random));
            let caller = Caller::Producer(producer, stream, batch.header.base_sequence, batch.attempt);
            sends.push((
                at.last_at,
                caller,
                Request::Produce { header: batch.header, body: batch.body.clone(), epoch },
            ));
        }
        for (at, caller, request) in sends {
            self.send_request(at, place(&chain[0]), caller, request);
        }
    }

    fn ask_map(&mut self, producer: usize) {
        if !std::mem::replace(&mut self.producers[producer].asked_map, true) {
            let (at, map) = self.map_for_client();
            self.queue.add(at, Event::ProducerMap { producer, map });
        }
    }

    /// A producer has the map.
    pub fn producer_map(&mut self, producer: usize, map: Rc<ClusterMap>) -> Checked {
        let at = &mut self.producers[producer];
        (at.map, at.asked_map) = (map, false);
        Ok(())
    }

    /// An answer to a batch.
    pub fn producer_reply(
        &mut self,
        producer: usize,
        stream: usize,
        sequence: Sequence,
        attempt: u32,
        reply: Reply,
    ) -> Checked {
        let now = self.queue.now();
        let at = &mut self.producers[producer].streams[stream];
        let Some(batch) = at.window.iter_mut().find(|batch| batch.header.base_sequence == sequence) else {
            return Ok(());
        };
        let (first, count) = (batch.first, u64::from(batch.header.record_count));
        let partition = at.partition;
        match reply {
            Reply::Produced(Answer::Done { base_offset, .. }) => {
                batch.is_done = true;
                at.stored_since = at.stored_since.min(now);
                at.retire();
                self.note("  acknowledged", [producer as u64, partition.into(), base_offset.0, first]);
                (0..count).try_for_each(|record| {
                    let id = RecordId { producer: producer as u32, partition, sequence: first + record };
                    self.answered(id, Outcome::Acknowledged(base_offset.0 + record));
                    self.truth.read(id, base_offset.0 + record)
                })
            }
            Reply::Produced(Answer::Refused { code: ErrorCode::DuplicateSequence, .. }) => {
                batch.is_done = true;
                at.stored_since = at.stored_since.min(now);
                at.retire();
                for sequence in first..first + count {
                    self.answered(RecordId { producer: producer as u32, partition, sequence }, Outcome::Stored);
                }
                Ok(())
            }
            Reply::Produced(Answer::Refused { code, epoch }) => {
                if code == ErrorCode::UnknownProducer && batch.attempt == attempt && batch.sent_at > at.stored_since {
                    let what = format!("producer {producer} has records there and is unknown");
                    return Err(Violation::data(format!("partition {partition}: {what}")));
                }
                if !code.is_retriable() && code != ErrorCode::UnknownProducer {
                    let what = format!("a batch of producer {producer} is refused: {code}");
                    return Err(Violation::rule(format!("partition {partition}: {what}")));
                }
                if batch.attempt == attempt {
                    batch.deadline = None;
                    at.again_at = now + 1 + self.random.below(20 * MS);
                }
                self.note("  refused", [producer as u64, partition.into(), code as u64, epoch.0]);
                if matches!(code, ErrorCode::NotOwner | ErrorCode::Stale | ErrorCode::RangeFailed | ErrorCode::TimedOut)
                {
                    self.ask_map(producer);
                }
                Ok(())
            }
            _ => {
                if batch.attempt == attempt {
                    batch.deadline = None;
                    at.again_at = now + 1 + self.random.below(20 * MS);
                }
                self.ask_map(producer);
                Ok(())
            }
        }
    }
}

impl World {
    fn answered(&mut self, record: RecordId, outcome: Outcome) {
        self.acknowledged += 1;
        self.history.answered(record, minikafka_checker::Answer { outcome, returned: self.queue.now(), owner: None });
    }
}

impl Stream {
    fn retire(&mut self) {
        while self.window.front().is_some_and(|batch| batch.is_done) {
            self.window.pop_front();
        }
    }
}
