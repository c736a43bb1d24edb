//! Fetching: which partitions are asked for, and what their answers mean.
//!
//! The partitions of a connection are dealt out to groups; each group has one fetch in flight, because only its answer
//! says where the next one begins.

use clap::Args;
use minikafka_core::wire::frame::Envelope;
use minikafka_core::wire::{
    Api, ErrorReply, FetchPartition, FetchReply, FetchRequest, FetchedPartition, FrameHeader, Wire, encode_frame,
};
use minikafka_core::{ErrorCode, Offset, Partition, limits};
use serde::Serialize;

use super::connection::Connection;
use super::entries::EntryStream;
use super::outgoing::Outgoing;
use super::{Traffic, drive};
use crate::driver::{DriverNotes, Failures};
use crate::error::{BenchError, Result};
use crate::measure::{Done, Measured, Recorder};
use crate::pace::{Clock, Nanos};
use crate::pin;
use crate::progress::Progress;
use crate::quantity;
use crate::target::{Target, TargetPartition};
use crate::workload::{Load, in_seconds};

/// Options of reading.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Reading")]
pub struct FetchOptions {
    /// Bytes of one fetch at most.
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = quantity::bytes_u32)]
    pub fetch_bytes: u32,
    /// Bytes of one partition in one fetch at most.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = quantity::bytes_u32)]
    pub partition_fetch_bytes: u32,
    /// Milliseconds that a shard may hold a fetch for which nothing is there.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=limits::FETCH_WAIT_MS_MAX as i64))]
    pub fetch_wait_ms: u32,
    /// Read this partition only.
    #[arg(long, value_name = "NUMBER")]
    pub only_partition: Option<u32>,
    /// End when everything that is there has been read.
    #[arg(long)]
    pub until_end: bool,
    /// Begin again at the start of a partition whose end is reached: reads of recent data from memory, again and again.
    #[arg(long)]
    pub rewind: bool,
    /// Do not check bodies against their checksums.
    #[arg(long)]
    pub no_verify: bool,
}

/// How far a partition is read.
#[derive(Debug)]
struct Reading {
    target: TargetPartition,
    next: Offset,
    start: Offset,
    end: Option<Offset>,
}

/// Partitions that are asked for together.
#[derive(Debug)]
struct Group {
    partitions: Vec<usize>,
    asked: Option<Nanos>,
}

/// One connection.
#[derive(Debug)]
struct Side {
    groups: Vec<Group>,
    stream: EntryStream,
    /// The group whose bulk is coming in, with records and bytes so far.
    receiving: Option<(usize, u32, u64)>,
}

struct Fetching {
    options: FetchOptions,
    readings: Vec<Reading>,
    sides: Vec<Side>,
    recorder: Recorder,
    failures: Failures,
    in_flight: usize,
    bytes_max: u64,
    empty: u64,
}

/// Fetches as the load says.
pub fn fetch(target: &Target, load: &Load, options: &FetchOptions, show: bool) -> Result<(Measured, DriverNotes)> {
    pin::pinned(load.cpu, || {
        let count = (load.connections as usize).max(target.addresses.len());
        let address = |at: usize| &target.addresses[at % target.addresses.len()];
        let mut connections = (0..count).map(|at| Connection::open(address(at))).collect::<Result<Vec<_>>>()?;
        let mut fetching = Fetching::new(target, load, options, count)?;
        let (_, end) = load.phases();
        let progress = Progress::new("consume", end, show);
        let (clock, cpu) = (Clock::start(), pin::thread_time());
        let ended = drive(&mut fetching, &mut connections, &clock, end, &progress)?;
        let core_share = (pin::thread_time() - cpu).as_secs_f64() / in_seconds(clock.now());
        Ok(fetching.finish(ended, core_share))
    })
}

impl Fetching {
    fn new(target: &Target, load: &Load, options: &FetchOptions, connections: usize) -> Result<Self> {
        let wanted = |partition: &&TargetPartition| {
            options.only_partition.is_none_or(|only| partition.key.partition == Partition(only))
        };
        let start = Offset(0);
        let reading = |&target: &TargetPartition| Reading { target, next: start, start, end: None };
        let readings: Vec<_> = target.partitions.iter().filter(wanted).map(reading).collect();
        if readings.is_empty() {
            return Err(BenchError::Options("--only-partition names no partition of the topic".to_owned()));
        }
        let shards = target.addresses.len();
        let per_shard = |shard: usize| (connections - shard).div_ceil(shards);
        let mut dealt: Vec<Vec<usize>> = vec![Vec::new(); connections];
        let mut turns = vec![0; shards];
        for (at, reading) in readings.iter().enumerate() {
            let shard = reading.target.shard;
            dealt[shard + turns[shard] % per_shard(shard) * shards].push(at);
            turns[shard] += 1;
        }
        let sides =
            dealt.into_iter().map(|partitions| Side::new(&partitions, load.in_flight as usize, !options.no_verify));
        Ok(Self {
            options: options.clone(),
            sides: sides.collect(),
            readings,
            recorder: Recorder::new(load.phases()),
            failures: Failures::new(),
            in_flight: 0,
            bytes_max: load.bytes_max.unwrap_or(u64::MAX),
            empty: 0,
        })
    }

    fn request(&self, group: &Group) -> FetchRequest {
        let partition = |&at: &usize| {
            let Reading { target, next, .. } = &self.readings[at];
            let bytes_max = self.options.partition_fetch_bytes;
            FetchPartition { range: target.range, epoch: target.epoch, partition: target.key, offset: *next, bytes_max }
        };
        FetchRequest {
            wait_ms_max: self.options.fetch_wait_ms,
            bytes_min: 1,
            bytes_max: self.options.fetch_bytes,
            partitions: group.partitions.iter().map(partition).collect(),
        }
    }

    /// What a reply says about one partition besides its entries.
    fn heard(&mut self, at: usize, fetched: &FetchedPartition) -> Result<()> {
        let (rewind, reading) = (self.options.rewind, &mut self.readings[at]);
        if reading.target.key != fetched.partition {
            return Err(BenchError::failed("a fetch was answered with other partitions than were asked for"));
        }
        match fetched.error {
            None => {}
            Some(ErrorCode::OffsetOutOfRange) if reading.next < fetched.log_start => reading.next = fetched.log_start,
            Some(code) if code.is_retriable() => {
                // The offsets beside an error may mean nothing: a shard that does not own the range knows none.
                *self.failures.entry(code.to_string()).or_default() += 1;
                return Ok(());
            }
            Some(code) => {
                return Err(BenchError::failed(format!(
                    "partition {}: {code}: {}",
                    fetched.partition.partition,
                    code.advice()
                )));
            }
        }
        reading.start = reading.start.max(fetched.log_start);
        reading.end = Some(fetched.committed_end);
        if rewind && fetched.entries_bytes == 0 && reading.next >= fetched.committed_end {
            reading.next = reading.start;
        }
        Ok(())
    }

    fn answered(&mut self, at: usize, now: Nanos) {
        let Some((group, records, bytes)) = self.sides[at].receiving.take() else { return };
        let Some(intended) = self.sides[at].groups[group].asked.take() else { return };
        self.in_flight -= 1;
        if records > 0 {
            self.recorder.done(now, &Done { intended, records, bytes });
        } else {
            self.empty += 1;
        }
        if self.options.rewind {
            for &partition in &self.sides[at].groups[group].partitions {
                let reading = &mut self.readings[partition];
                if reading.end.is_some_and(|end| reading.next >= end) {
                    reading.next = reading.start;
                }
            }
        }
    }

    fn finish(self, ended: Nanos, core_share: f64) -> (Measured, DriverNotes) {
        let fetches: usize = self.sides.iter().map(|side| side.groups.len()).sum();
        let checks = if self.options.no_verify {
            "bodies were NOT checked against their checksums"
        } else {
            "every checksum was checked"
        };
        let mut notes = vec![
            format!(
                "wire driver: {} connections, {fetches} fetches in flight all together; {checks}",
                self.sides.len()
            ),
            "bytes are those of batch bodies as stored".to_owned(),
        ];
        if self.options.rewind {
            notes.push("partitions were read again from their start whenever their end was reached".to_owned());
        }
        if self.empty > 0 {
            notes.push(format!("{} replies were empty and are not counted", self.empty));
        }
        (self.recorder.finish(ended), DriverNotes { core_share, failures: self.failures, notes })
    }
}

impl Traffic for Fetching {
    fn fill(&mut self, at: usize, out: &mut Outgoing, now: Nanos) -> Result<bool> {
        for group in 0..self.sides[at].groups.len() {
            if self.sides[at].groups[group].asked.is_none() {
                let request = self.request(&self.sides[at].groups[group]);
                let mut frame = Vec::new();
                encode_frame(&mut frame, Envelope::request(Api::Fetch, group as u64), &request.to_bytes(), 0);
                out.push(&frame);
                self.sides[at].groups[group].asked = Some(now);
                self.in_flight += 1;
            }
        }
        Ok(false)
    }

    fn head(&mut self, at: usize, header: &FrameHeader, head: &[u8], now: Nanos) -> Result<()> {
        if let Some(code) = header.error {
            let message = ErrorReply::from_bytes(head).map_or_else(|_| String::new(), |reply| reply.message);
            return Err(BenchError::failed(format!("a fetch was refused: {code}: {message}")));
        }
        let group = header.correlation as usize;
        let Some(partitions) = self.sides[at].groups.get(group).map(|group| group.partitions.clone()) else {
            return Err(BenchError::failed("a reply answers nothing that was asked"));
        };
        let reply = FetchReply::from_bytes(head)
            .map_err(|error| BenchError::failed(format!("a fetch was answered with what is no answer: {error}")))?;
        if reply.partitions.len() != partitions.len() {
            return Err(BenchError::failed("a fetch was answered with other partitions than were asked for"));
        }
        for (&partition, fetched) in partitions.iter().zip(&reply.partitions) {
            self.heard(partition, fetched)?;
        }
        self.sides[at].receiving = Some((group, 0, 0));
        if header.bulk_bytes == 0 {
            self.answered(at, now);
        }
        Ok(())
    }

    fn bulk(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let Self { sides, readings, .. } = self;
        let Side { groups, stream, receiving } = &mut sides[at];
        let Some((group, records, record_bytes)) = receiving else {
            return Err(BenchError::failed("bulk came without a head"));
        };
        let partitions = &groups[*group].partitions;
        stream.feed(bytes, |header| {
            let key = header.partition_key();
            let reading = partitions.iter().copied().find(|&at| readings[at].target.key == key);
            let reading = reading.map(|at| &mut readings[at]);
            let Some(reading) = reading.filter(|it| (header.base_offset..header.next_offset()).contains(&it.next))
            else {
                return Err(BenchError::failed(format!(
                    "offset {} of partition {} came, which is not what follows",
                    header.base_offset, header.partition
                )));
            };
            reading.next = header.next_offset();
            *records += header.record_count;
            *record_bytes += u64::from(header.body_bytes);
            Ok(())
        })
    }

    fn end(&mut self, at: usize, now: Nanos) -> Result<()> {
        if !self.sides[at].stream.is_between_entries() {
            return Err(BenchError::failed("a fetch reply ends within an entry"));
        }
        self.answered(at, now);
        Ok(())
    }

    fn due(&self) -> Option<Nanos> {
        None
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn is_done(&self) -> bool {
        let at_end = |reading: &Reading| reading.end.is_some_and(|end| reading.next >= end);
        self.recorder.bytes() >= self.bytes_max || self.options.until_end && self.readings.iter().all(at_end)
    }

    fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    fn give_up(&mut self, now: Nanos, _owed: Nanos) {
        for asked in self.sides.iter().flat_map(|side| &side.groups).filter_map(|group| group.asked) {
            self.recorder.unanswered(now, asked);
        }
    }
}

impl Side {
    fn new(partitions: &[usize], groups_max: usize, verifies: bool) -> Self {
        let count = groups_max.min(partitions.len());
        let mut groups: Vec<Group> = (0..count).map(|_| Group { partitions: Vec::new(), asked: None }).collect();
        for (turn, &partition) in partitions.iter().enumerate() {
            groups[turn % count].partitions.push(partition);
        }
        Self { groups, stream: EntryStream::new(verifies), receiving: None }
    }
}
