//! A shard's answers: produce, fetch, list offsets, delete records.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minikafka_client::core::wire::{
    DeleteRecordsReply, DeleteRecordsRequest, DeletedRecords, ErrorReply, FetchPartition, FetchReply, FetchRequest,
    FetchedPartition, ListOffsetsReply, ListOffsetsRequest, ListedOffset, OffsetQuery, ProduceReply, ProduceRequest,
    Wire,
};
use minikafka_client::core::{Epoch, ErrorCode, Offset, PartitionKey, RangeKey, Timestamp};

use super::server::Answer;
use super::{PartitionLog, Shared, State};

impl State {
    /// The epoch of a range, if this shard is its head in the epoch that the client believes in.
    pub fn owned(&self, shard: usize, range: RangeKey, epoch: Epoch) -> Result<Epoch, (ErrorCode, Epoch)> {
        match self.heads.get(range.range.0 as usize) {
            Some(&(head, current)) if head != shard => Err((ErrorCode::NotOwner, current)),
            Some(&(_, current)) if current != epoch => Err((ErrorCode::Stale, current)),
            Some(&(_, current)) => Ok(current),
            None => Err((ErrorCode::NotOwner, Epoch(0))),
        }
    }

    fn log(
        &mut self,
        shard: usize,
        range: RangeKey,
        epoch: Epoch,
        partition: PartitionKey,
    ) -> Result<(&mut PartitionLog, Epoch), (ErrorCode, Epoch)> {
        let epoch = self.owned(shard, range, epoch)?;
        let log = self.logs.get_mut(&(range, partition)).ok_or((ErrorCode::UnknownPartition, epoch))?;
        Ok((log, epoch))
    }
}

pub fn produce(shared: &Shared, shard: usize, head: &Bytes, body: Bytes) -> Answer {
    let request = ProduceRequest::from_bytes(head).expect("a good request");
    let header = request.header;
    let mut state = shared.state.lock().expect("not poisoned");
    let stored = state
        .log(shard, header.range, request.epoch, header.partition_key())
        .and_then(|(log, epoch)| log.produce(header, body, epoch).map_err(|code| (code, epoch)));
    drop(state);
    shared.changed.send_modify(|changes| *changes += 1);
    match stored {
        Ok((base_offset, append_timestamp)) => Answer::message(&ProduceReply { base_offset, append_timestamp }),
        Err((code, epoch)) => Answer::refusal(code, ErrorReply::of(code).at_epoch(epoch)),
    }
}

pub fn list_offsets(shared: &Shared, shard: usize, head: &Bytes) -> Answer {
    let request = ListOffsetsRequest::from_bytes(head).expect("a good request");
    let mut state = shared.state.lock().expect("not poisoned");
    let mut partitions = Vec::new();
    for asked in request.partitions {
        let listed = match state.log(shard, asked.range, asked.epoch, asked.partition) {
            Ok((log, epoch)) => ListedOffset {
                partition: asked.partition,
                error: None,
                epoch,
                offset: Offset(match asked.query {
                    OffsetQuery::Earliest => log.start,
                    OffsetQuery::Latest => log.end,
                    OffsetQuery::AppendedAtOrAfter(time) => first_at_or_after(log, time),
                }),
            },
            Err((code, epoch)) => {
                ListedOffset { partition: asked.partition, error: Some(code), epoch, offset: Offset(0) }
            }
        };
        partitions.push(listed);
    }
    Answer::message(&ListOffsetsReply { partitions })
}

pub fn delete_records(shared: &Shared, shard: usize, head: &Bytes) -> Answer {
    let request = DeleteRecordsRequest::from_bytes(head).expect("a good request");
    let mut state = shared.state.lock().expect("not poisoned");
    let mut partitions = Vec::new();
    for asked in request.partitions {
        let (error, epoch, log_start) = match state.log(shard, asked.range, asked.epoch, asked.partition) {
            Ok((log, epoch)) => {
                log.start = log.start.max(asked.before.0.min(log.end));
                (None, epoch, Offset(log.start))
            }
            Err((code, epoch)) => (Some(code), epoch, Offset(0)),
        };
        partitions.push(DeletedRecords { partition: asked.partition, error, epoch, log_start });
    }
    Answer::message(&DeleteRecordsReply { partitions })
}

fn first_at_or_after(log: &PartitionLog, time: Timestamp) -> u64 {
    let found = log.entries.iter().find(|entry| entry.header.append_timestamp >= time);
    found.map_or(log.end, |entry| entry.header.base_offset.0)
}

/// Waits for data as long as the client allows.
pub async fn fetch(shared: &Arc<Shared>, shard: Option<usize>, head: &Bytes) -> Answer {
    let Some(shard) = shard else {
        return Answer::refusal(ErrorCode::Misdirected, ErrorReply::of(ErrorCode::Misdirected));
    };
    let request = FetchRequest::from_bytes(head).expect("a good request");
    let mut changes = shared.changed.subscribe();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(request.wait_ms_max.into());
    loop {
        let (reply, bulk) = read(&mut shared.state.lock().expect("not poisoned"), shard, &request);
        let has_error = reply.partitions.iter().any(|fetched| fetched.error.is_some());
        let is_enough = bulk.len() >= request.bytes_min as usize;
        if has_error || is_enough || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return Answer { error: None, head: reply.to_bytes(), bulk };
        }
    }
}

fn read(state: &mut State, shard: usize, request: &FetchRequest) -> (FetchReply, Vec<u8>) {
    state.wait_ms_max_seen = state.wait_ms_max_seen.max(request.wait_ms_max);
    let (mut partitions, mut bulk) = (Vec::new(), Vec::new());
    for asked in &request.partitions {
        let (mut fetched, entries) = read_partition(state, shard, asked);
        if bulk.is_empty() || bulk.len() + entries.len() <= request.bytes_max as usize {
            fetched.entries_bytes = entries.len() as u32;
            bulk.extend_from_slice(&entries);
        }
        partitions.push(fetched);
    }
    (FetchReply { partitions }, bulk)
}

fn read_partition(state: &mut State, shard: usize, asked: &FetchPartition) -> (FetchedPartition, Vec<u8>) {
    let mut fetched = FetchedPartition {
        partition: asked.partition,
        error: None,
        epoch: Epoch(0),
        log_start: Offset(0),
        committed_end: Offset(0),
        previous: None,
        resume: None,
        entries_bytes: 0,
    };
    let log = match state.log(shard, asked.range, asked.epoch, asked.partition) {
        Ok((log, epoch)) => {
            (fetched.epoch, fetched.log_start, fetched.committed_end) = (epoch, Offset(log.start), Offset(log.end));
            log
        }
        Err((code, epoch)) => {
            (fetched.error, fetched.epoch) = (Some(code), epoch);
            return (fetched, Vec::new());
        }
    };
    if asked.offset.0 < log.start {
        fetched.previous = log.previous;
        let moved = log.previous.map_or(ErrorCode::OffsetOutOfRange, |_| ErrorCode::Moved);
        fetched.error = Some(moved);
        return (fetched, Vec::new());
    }
    if asked.offset.0 > log.end {
        fetched.error = Some(ErrorCode::OffsetOutOfRange);
        return (fetched, Vec::new());
    }
    (fetched, log.read(asked.offset.0, asked.bytes_max as usize))
}
