//! The head: what clients and the controller want appended gets its place here (R2). Absent: checking bodies.

use super::role::Standing;
use super::{Answer, AppendBody, Output, Replica, RequestId};
use crate::chain::planted::{PlantedBug, is_planted};
use crate::control::ControlEntry;
use crate::dedup::DedupVerdict;
use crate::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::DELETED_TOPICS_REMEMBERED_MAX;
use crate::wire::codec::Wire;

impl Replica {
    /// The epoch in which this member takes writes, or how to refuse one of a client that believes in `believed`.
    ///
    /// # Errors
    /// The refusal.
    pub fn check_write(&self, believed: Epoch) -> Result<Epoch, Answer> {
        let refused = |code, epoch| Answer::Refused { code, epoch };
        match &self.standing {
            Standing::Idle | Standing::Learning(_) => Err(refused(ErrorCode::NotOwner, self.promised)),
            Standing::Failed => Err(refused(ErrorCode::RangeFailed, self.promised)),
            Standing::Active(active) if !active.is_head() => Err(refused(ErrorCode::NotOwner, self.promised)),
            Standing::Active(_) if self.damaged => Err(refused(ErrorCode::RangeFailed, self.promised)),
            Standing::Active(active) if active.epoch() == believed && active.overtaken_by.is_none() => {
                Ok(active.epoch())
            }
            _ => Err(refused(ErrorCode::Stale, self.promised)),
        }
    }

    pub(super) fn produce(
        &mut self,
        now: Timestamp,
        request: RequestId,
        header: EntryHeader,
        believed: Epoch,
        out: &mut Vec<Output>,
    ) {
        let refuse = |code| Answer::Refused { code, epoch: Epoch(0) };
        let refusal = match self.check_write(believed) {
            Err(answer) => Some(answer),
            Ok(_) => self.check_batch(&header).err().map(refuse),
        };
        if let Some(answer) = refusal {
            return out.push(Output::Answer { request, answer });
        }
        match self.state.producers().check(&header) {
            DedupVerdict::New => self.append_batch(now, request, header, out),
            DedupVerdict::Duplicate(stored) => {
                let (base_offset, append_timestamp) = (stored.base_offset, stored.append_timestamp);
                self.answer_when_committed(stored.index, request, Answer::Done { base_offset, append_timestamp }, out);
            }
            // Its offset is forgotten, but it may still be uncommitted only if its successors are: wait for them all.
            DedupVerdict::DuplicateForgotten => {
                let answer = refuse(ErrorCode::DuplicateSequence);
                self.answer_when_committed(self.state.end().index, request, answer, out);
            }
            verdict => out.push(Output::Answer { request, answer: refuse(refusal_of(&verdict)) }),
        }
    }

    fn check_batch(&self, header: &EntryHeader) -> Result<(), ErrorCode> {
        let partition = self.state.partition(header.partition_key()).ok_or(ErrorCode::PartitionNotReady)?;
        if header.kind != EntryKind::Batch || header.last_offset_delta != header.record_count - 1 {
            return Err(ErrorCode::InvalidBatch);
        }
        if header.body_bytes > partition.config.batch_bytes_max {
            return Err(ErrorCode::BatchTooLarge);
        }
        Ok(())
    }

    fn append_batch(&mut self, now: Timestamp, request: RequestId, mut header: EntryHeader, out: &mut Vec<Output>) {
        let partition = self.state.partition(header.partition_key()).expect("the batch was checked against it");
        header.base_offset = partition.next_offset;
        self.append(now, header, None, AppendBody::Request(request), out);
        let (index, base_offset, append_timestamp) = self.newest();
        self.waiting.push_back((index, request, Answer::Done { base_offset, append_timestamp }));
    }

    pub(super) fn append_control(
        &mut self,
        now: Timestamp,
        request: RequestId,
        entry: ControlEntry,
        believed: Epoch,
        out: &mut Vec<Output>,
    ) {
        if let Err(answer) = self.check_write(believed) {
            return out.push(Output::Answer { request, answer });
        }
        if let Err(code) = self.check_life(&entry) {
            return out.push(Output::Answer { request, answer: Answer::Refused { code, epoch: Epoch(0) } });
        }
        let done = Answer::Done { base_offset: Offset(0), append_timestamp: now };
        if self.state.holds(&entry) {
            return self.answer_when_committed(self.state.end().index, request, done, out);
        }
        let body = entry.to_bytes();
        let header = control_header(self.range, &entry, &body);
        self.append(now, header, Some(&entry), AppendBody::Control(body), out);
        let done = Answer::Done { base_offset: Offset(0), append_timestamp: self.state.last_append_timestamp() };
        self.waiting.push_back((self.state.end().index, request, done));
    }

    /// A topic id is never used again, so whatever opens a partition of a deleted one comes late.
    fn check_life(&mut self, entry: &ControlEntry) -> Result<(), ErrorCode> {
        let Some(PartitionKey { topic, .. }) = entry.partition() else { return Ok(()) };
        let is_deleted = self.deleted_topics.contains(&topic);
        match entry {
            ControlEntry::PartitionOpen { .. } if is_deleted => return Err(ErrorCode::UnknownTopic),
            ControlEntry::PartitionDelete { .. } if !is_deleted => {
                if self.deleted_topics.len() == DELETED_TOPICS_REMEMBERED_MAX {
                    self.deleted_topics.pop_front();
                }
                self.deleted_topics.push_back(topic);
            }
            _ => {}
        }
        Ok(())
    }

    /// Assigns index, epoch, time and hash, folds the entry in and asks for it to be written and forwarded.
    fn append(
        &mut self,
        now: Timestamp,
        mut header: EntryHeader,
        control: Option<&ControlEntry>,
        body: AppendBody,
        out: &mut Vec<Output>,
    ) {
        let Standing::Active(active) = &self.standing else { unreachable!("only an active head appends") };
        header.epoch = active.epoch();
        header.range = self.range;
        header.index = self.state.end().index.next();
        header.append_timestamp = now.max(self.state.last_append_timestamp());
        header.seal(self.state.end().hash);
        let forward = active.has_successor();
        self.fold(&header, control);
        out.push(Output::Append { header, body, forward });
    }

    fn newest(&self) -> (LogIndex, Offset, Timestamp) {
        let newest = self.uncommitted.back().expect("an entry was just folded in");
        (newest.index, newest.base_offset, newest.append_timestamp)
    }

    /// A duplicate is answered only when its original is committed.
    fn answer_when_committed(&mut self, index: LogIndex, request: RequestId, answer: Answer, out: &mut Vec<Output>) {
        if index <= self.committed.index || is_planted(PlantedBug::DuplicateBeforeOriginal) {
            return out.push(Output::Answer { request, answer });
        }
        let place = self.waiting.partition_point(|(waiting, _, _)| *waiting <= index);
        self.waiting.insert(place, (index, request, answer));
    }
}

fn refusal_of(verdict: &DedupVerdict) -> ErrorCode {
    match verdict {
        DedupVerdict::OutOfOrder => ErrorCode::OutOfOrder,
        DedupVerdict::UnknownProducer => ErrorCode::UnknownProducer,
        DedupVerdict::Fenced => ErrorCode::ProducerFenced,
        _ => ErrorCode::InvalidBatch,
    }
}

pub(super) fn control_header(range: RangeKey, entry: &ControlEntry, body: &[u8]) -> EntryHeader {
    // What concerns a group lies in no partition: topic 0 is nobody's.
    let nowhere = PartitionKey { topic: TopicId(0), partition: Partition(0) };
    let PartitionKey { topic, partition } = entry.partition().unwrap_or(nowhere);
    EntryHeader {
        kind: EntryKind::Control,
        body_format: BodyFormat::Control,
        codec: Codec::None,
        body_bytes: body.len() as u32,
        uncompressed_bytes: body.len() as u32,
        range,
        attributes: 0,
        epoch: Epoch(0),
        index: LogIndex(0),
        topic,
        partition,
        record_count: 0,
        base_offset: Offset(0),
        last_offset_delta: 0,
        base_sequence: Sequence(0),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        append_timestamp: Timestamp(0),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(0),
        body_crc: crate::checksum::crc32c(body),
        running_hash: RunningHash(0),
    }
}
