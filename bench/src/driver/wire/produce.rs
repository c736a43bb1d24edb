//! Producing: which batch goes where, and what its answer means.
//!
//! Producers are idempotent. A lane is one producer id and partition on one connection, with at most as many batches in
//! flight as the protocol allows; a connection has as many producer ids as its window needs.

use std::time::{SystemTime, UNIX_EPOCH};

use minikafka_core::checksum::partition_of_key;
use minikafka_core::wire::{ErrorReply, FrameHeader, Wire};
use minikafka_core::{ProducerId, Sequence, Timestamp, limits};

use super::batches::{Batches, Stamp};
use super::connection::Connection;
use super::outgoing::Outgoing;
use super::{Traffic, drive};
use crate::driver::{DriverNotes, Failures};
use crate::error::{BenchError, Result};
use crate::measure::{Done, Measured, Recorder};
use crate::pace::{Clock, Nanos, Pace};
use crate::pin;
use crate::progress::Progress;
use crate::target::Target;
use crate::workload::{KeyDistribution, Keys, Load, Records, in_seconds};

/// A lane should seldom be full, so a connection has so many times the producers that its window needs at least.
const PRODUCERS_SURPLUS: usize = 2;
/// Keys drawn before a batch goes to any partition with room: the popular ones may all be full.
const DRAWS_MAX: usize = 16;

/// One producer id and partition.
#[derive(Debug)]
struct Lane {
    partition: u32,
    producer: ProducerId,
    next: Sequence,
    in_flight: u32,
    /// A batch failed: what stands behind it fails too, and then the lane begins anew under another producer id.
    broken: bool,
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
struct Slot {
    lane: u32,
    intended: Nanos,
    used: bool,
}

/// One connection's lanes and window.
#[derive(Debug)]
struct Side {
    lanes: Vec<Lane>,
    /// Lanes of one producer id; the partition's place among them.
    partitions: usize,
    cursor: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// Which partition the next batch goes to.
#[derive(Debug)]
enum Picking {
    InTurn,
    /// Partition of key 0, 1, …
    ByKey {
        keys: Keys,
        partition_of: Vec<u32>,
    },
}

struct Producing {
    batches: Batches,
    sides: Vec<Side>,
    /// For each partition, its place among those of its shard.
    places: Vec<u32>,
    /// For each partition, its shard; for each side, its shard.
    shards: (Vec<usize>, Vec<usize>),
    picking: Picking,
    pace: Pace,
    recorder: Recorder,
    failures: Failures,
    in_flight: usize,
    bytes_max: u64,
    started_ms: i64,
    diverted: u64,
}

/// Produces as the load says.
pub fn produce(target: &Target, load: &Load, records: &Records, show: bool) -> Result<(Measured, DriverNotes)> {
    pin::pinned(load.cpu, || {
        let count = (load.connections as usize).max(target.addresses.len());
        let address = |at: usize| &target.addresses[at % target.addresses.len()];
        let mut connections = (0..count).map(|at| Connection::open(address(at))).collect::<Result<Vec<_>>>()?;
        let mut producing = Producing::new(target, load, records, count)?;
        let (_, end) = load.phases();
        let progress = Progress::new("produce", end, show);
        let (clock, cpu) = (Clock::start(), pin::thread_time());
        let ended = drive(&mut producing, &mut connections, &clock, end, &progress)?;
        let core_share = (pin::thread_time() - cpu).as_secs_f64() / in_seconds(clock.now());
        Ok(producing.finish(ended, core_share))
    })
}

impl Producing {
    fn new(target: &Target, load: &Load, records: &Records, connections: usize) -> Result<Self> {
        records.check()?;
        let batches = Batches::build(records, &target.partitions, load.seed)?;
        let mut of_shard: Vec<Vec<u32>> = vec![Vec::new(); target.addresses.len()];
        let mut places = Vec::new();
        for (at, partition) in target.partitions.iter().enumerate() {
            places.push(of_shard[partition.shard].len() as u32);
            of_shard[partition.shard].push(at as u32);
        }
        let side_shards: Vec<usize> = (0..connections).map(|at| at % target.addresses.len()).collect();
        let side = |&shard: &usize| Side::new(&of_shard[shard], load.in_flight as usize);
        let sides: Vec<Side> = side_shards.iter().map(side).collect();
        let most = sides.iter().map(Side::producers).max().unwrap_or(1) * connections;
        if most > limits::PRODUCERS_PER_PARTITION_MAX as usize {
            return Err(BenchError::Options(format!(
                "{connections} connections with {} in flight over {} partitions take {most} producer ids; a partition \
                 remembers {}: use more partitions or a smaller window",
                load.in_flight,
                target.partitions.len(),
                limits::PRODUCERS_PER_PARTITION_MAX
            )));
        }
        let shards = (target.partitions.iter().map(|partition| partition.shard).collect(), side_shards);
        Ok(Self {
            pace: records.pace(batches.record_count(), load.seed),
            picking: Picking::new(records, load.seed, target.partitions.len() as u32),
            batches,
            sides,
            places,
            shards,
            recorder: Recorder::new(load.phases()),
            failures: Failures::new(),
            in_flight: 0,
            bytes_max: load.bytes_max.unwrap_or(u64::MAX),
            started_ms: wall_clock_ms(),
            diverted: 0,
        })
    }

    /// A lane of this side that has room; none when all are full.
    fn pick(&mut self, at: usize) -> Option<usize> {
        if let Picking::ByKey { keys, partition_of } = &mut self.picking {
            for _ in 0..DRAWS_MAX {
                let partition = partition_of[keys.draw() as usize % partition_of.len()] as usize;
                if self.shards.0[partition] == self.shards.1[at]
                    && let Some(lane) = self.sides[at].lane_of(self.places[partition] as usize)
                {
                    return Some(lane);
                }
            }
            self.diverted += 1;
        }
        self.sides[at].next_lane()
    }

    fn refused(&mut self, at: usize, lane: usize, header: &FrameHeader, head: &[u8]) -> Result<()> {
        let Some(code) = header.error else { return Ok(()) };
        let message = ErrorReply::from_bytes(head).map_or_else(|_| String::new(), |reply| reply.message);
        if !code.is_retriable() {
            return Err(BenchError::failed(format!("a batch was refused for good: {code}: {message}")));
        }
        *self.failures.entry(code.to_string()).or_default() += 1;
        self.sides[at].lanes[lane].broken = true;
        Ok(())
    }

    fn finish(self, ended: Nanos, core_share: f64) -> (Measured, DriverNotes) {
        let side = &self.sides[0];
        let (connections, producers) = (self.sides.len(), side.producers());
        let mut notes = vec![
            format!(
                "wire driver: {connections} connections with {} in flight each, {producers} idempotent producer ids a \
                 connection, at most {} batches in flight for each of them and partition",
                side.slots.len(),
                limits::PRODUCER_IN_FLIGHT_MAX
            ),
            format!(
                "every batch is the same {} records in {} bytes of body, encoded once",
                self.batches.record_count(),
                self.batches.body.len()
            ),
        ];
        if self.diverted > 0 {
            notes.push(format!(
                "{} batches went to another partition than their key's, whose window was full",
                self.diverted
            ));
        }
        (self.recorder.finish(ended), DriverNotes { core_share, failures: self.failures, notes })
    }
}

impl Traffic for Producing {
    fn fill(&mut self, at: usize, out: &mut Outgoing, now: Nanos) -> Result<bool> {
        while out.is_short() {
            if self.sides[at].free.is_empty() || self.pace.due().is_some_and(|due| due > now) {
                return Ok(false);
            }
            let Some(lane_at) = self.pick(at) else { return Ok(false) };
            let Some(intended) = self.pace.take(now) else { return Ok(false) };
            let side = &mut self.sides[at];
            let Some(slot) = side.free.pop() else { return Ok(false) };
            let lane = &mut side.lanes[lane_at];
            side.slots[slot as usize] = Slot { lane: lane_at as u32, intended, used: true };
            let timestamp = Timestamp(self.started_ms + (now / 1_000_000) as i64);
            let stamp = Stamp { correlation: slot.into(), producer: lane.producer, sequence: lane.next, timestamp };
            out.push(&self.batches.stamped(lane.partition as usize, &stamp));
            out.push_body(&self.batches.body);
            lane.next = lane.next.advance(self.batches.record_count());
            lane.in_flight += 1;
            self.in_flight += 1;
        }
        Ok(true)
    }

    #[inline]
    fn head(&mut self, at: usize, header: &FrameHeader, head: &[u8], now: Nanos) -> Result<()> {
        let side = &mut self.sides[at];
        let slot = usize::try_from(header.correlation).ok().and_then(|slot| side.slots.get_mut(slot));
        let Some(slot) = slot.filter(|slot| slot.used) else {
            return Err(BenchError::failed(format!("reply {} answers nothing that was asked", header.correlation)));
        };
        slot.used = false;
        let Slot { lane, intended, .. } = *slot;
        let lane = lane as usize;
        side.free.push(header.correlation as u32);
        side.lanes[lane].in_flight -= 1;
        self.in_flight -= 1;
        if header.error.is_none() {
            let (records, bytes) = (self.batches.record_count(), self.batches.record_bytes);
            self.recorder.done(now, &Done { intended, records, bytes });
        } else {
            self.refused(at, lane, header, head)?;
        }
        self.sides[at].lanes[lane].mend();
        Ok(())
    }

    fn due(&self) -> Option<Nanos> {
        self.pace.due()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn is_done(&self) -> bool {
        self.recorder.bytes() >= self.bytes_max
    }

    fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    fn give_up(&mut self, now: Nanos, owed: Nanos) {
        while self.pace.due().is_some_and(|due| due < owed)
            && let Some(intended) = self.pace.take(owed)
        {
            self.recorder.unanswered(now, intended);
        }
        for slot in self.sides.iter().flat_map(|side| &side.slots).filter(|slot| slot.used) {
            self.recorder.unanswered(now, slot.intended);
        }
    }
}

impl Picking {
    fn new(records: &Records, seed: u64, partitions: u32) -> Self {
        if records.keys == KeyDistribution::None {
            return Self::InTurn;
        }
        let partition_of =
            (0..records.key_count).map(|key| partition_of_key(&key.to_le_bytes(), partitions).0).collect();
        Self::ByKey { keys: Keys::new(records.keys, records.key_count, seed), partition_of }
    }
}

impl Side {
    fn new(partitions: &[u32], in_flight: usize) -> Self {
        let per_producer = partitions.len().max(1) * limits::PRODUCER_IN_FLIGHT_MAX as usize;
        let producers = (in_flight * PRODUCERS_SURPLUS).div_ceil(per_producer).max(1);
        let mut lanes = Vec::with_capacity(producers * partitions.len());
        for _ in 0..producers {
            let producer = random_producer();
            lanes.extend(partitions.iter().map(|&partition| Lane::new(partition, producer)));
        }
        let slots = vec![Slot { lane: 0, intended: 0, used: false }; in_flight];
        Self { lanes, partitions: partitions.len(), cursor: 0, slots, free: (0..in_flight as u32).rev().collect() }
    }

    fn producers(&self) -> usize {
        self.lanes.len() / self.partitions.max(1)
    }

    /// The next lane in turn that has room.
    fn next_lane(&mut self) -> Option<usize> {
        for _ in 0..self.lanes.len() {
            let at = self.cursor;
            self.cursor = if at + 1 == self.lanes.len() { 0 } else { at + 1 };
            if self.lanes[at].has_room() {
                return Some(at);
            }
        }
        None
    }

    /// A lane of a partition that has room.
    fn lane_of(&self, place: usize) -> Option<usize> {
        (place..self.lanes.len()).step_by(self.partitions).find(|&at| self.lanes[at].has_room())
    }
}

impl Lane {
    fn new(partition: u32, producer: ProducerId) -> Self {
        Self { partition, producer, next: Sequence(0), in_flight: 0, broken: false }
    }

    fn has_room(&self) -> bool {
        !self.broken && self.in_flight < limits::PRODUCER_IN_FLIGHT_MAX
    }

    /// Begins anew once nothing of the old numbering is under way.
    fn mend(&mut self) {
        if self.broken && self.in_flight == 0 {
            *self = Self::new(self.partition, random_producer());
        }
    }
}

fn random_producer() -> ProducerId {
    ProducerId(rand::random_range(1..i64::MAX))
}

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or_default()
}
