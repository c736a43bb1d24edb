//! Produce: from the frame to the range's machine.
//!
//! Everything about a batch is checked here, once: sizes, checksum, the shape of its columns. A small body is still in the
//! connection's receive buffer and is copied once, by the log; a large one is received into the memory that goes to disk.

use std::rc::{Rc, Weak};
use std::time::Duration;

use minikafka_core::batch::{BatchError, BatchView};
use minikafka_core::chain::replica::Answer;
use minikafka_core::entry::{Codec, EntryHeader, EntryKind};
use minikafka_core::wire::{ErrorReply, Explained, ProduceReply, ProduceRequest, Stage};
use minikafka_core::{Epoch, ErrorCode, LogIndex, Offset, PartitionKey, RunningHash, Timestamp, checksum, limits};
use minikafka_net::{Hangup, Reply, Request};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Permit;
use minikafka_storage::{Body, BodyBuffer};
use quanta::Instant;

use crate::explain::Trace;
use crate::quota::Charge;
use crate::range::{Completion, Range};
use crate::service::ShardService;
use crate::shard::Shard;

/// A batch that is refused, and what its client is told.
struct Refusal {
    code: ErrorCode,
    message: String,
    retry_after_ms: u32,
}

impl Refusal {
    fn because(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0 }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::because(code, code.advice())
    }
}

/// When a batch came, and where its client wants its stages noted, if it asked for them.
struct Arrival {
    began_ns: u64,
    trace: Option<Rc<Trace>>,
}

impl<D: Disk> ShardService<D> {
    /// Takes one batch. Waits for memory and for the log to take more, which is what stops a fast producer.
    pub(crate) async fn produce(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        let began_ns = self.shard.clock().counted_ns();
        let message: ProduceRequest = request.message()?;
        let trace = request.header.explain.then(|| Rc::new(Trace::begin(began_ns)));
        let arrival = Arrival { began_ns, trace };
        let Request { bulk, reply, .. } = request;
        let checked = self.check_header(&message.header, bulk.len());
        let charged = checked.and_then(|range| Ok((self.charge(&range, &message.header)?, range)));
        let (charge, range) = match charged {
            Ok(charged) => charged,
            Err(refusal) => {
                self.refuse(reply, &refusal);
                return Ok(());
            }
        };
        if let Some(body) = bulk.whole().filter(|body| body.len() < limits::UNCOPIED_BODY_BYTES_MIN as usize) {
            let (permit, received_ns) = match self.shard.produce_budget.try_take(body.len() as u64) {
                Some(permit) => (permit, arrival.began_ns),
                None => (self.shard.produce_budget.take(body.len() as u64).await, self.shard.clock().counted_ns()),
            };
            self.received(&arrival, received_ns);
            let checked = check_body(&message.header, checksum::crc32c(body), body);
            let checked = self.checked(&arrival, received_ns, checked);
            self.append(&range, &message, Body::Copied(body), checked, (reply, permit, charge, arrival)).await;
        } else {
            // The buffer may take up to twice as much as is in it.
            let memory_bytes = BodyBuffer::<D>::memory_bytes(message.header.body_bytes);
            let permit = self.shard.produce_budget.take(memory_bytes).await;
            let mut buffer = range.log().body_buffer(message.header.body_bytes);
            let crc = bulk.receive_into(buffer.body_mut()).await?;
            let received_ns = self.shard.clock().counted_ns();
            self.received(&arrival, received_ns);
            let checked = check_body(&message.header, crc, buffer.body());
            let checked = self.checked(&arrival, received_ns, checked);
            self.append(&range, &message, Body::Whole(buffer), checked, (reply, permit, charge, arrival)).await;
        }
        Ok(())
    }

    /// The body is in memory.
    fn received(&self, Arrival { began_ns, trace }: &Arrival, now_ns: u64) {
        self.shard.metrics.took.receive.record(now_ns.saturating_sub(*began_ns));
        if let Some(trace) = trace {
            trace.ended(Stage::Receive, now_ns);
        }
    }

    /// The body was looked at; when, if it is good.
    fn checked(&self, arrival: &Arrival, received_ns: u64, checked: Result<(), Refusal>) -> Result<Instant, Refusal> {
        let now = self.shard.clock().mark();
        let now_ns = self.shard.clock().marked_ns();
        self.shard.metrics.took.checksum.record(now_ns.saturating_sub(received_ns));
        if let Some(trace) = &arrival.trace {
            trace.ended(Stage::Checksum, now_ns);
        }
        checked.map(|()| now)
    }

    /// What can be said before the body is here.
    fn check_header(&self, header: &EntryHeader, bulk_bytes: usize) -> Result<Rc<Range<D>>, Refusal> {
        let invalid = |what: &str| Refusal::because(ErrorCode::InvalidBatch, what);
        if header.kind != EntryKind::Batch {
            return Err(invalid("only batches can be produced"));
        }
        if header.body_bytes as usize != bulk_bytes {
            return Err(invalid("the entry header announces another body length than the frame"));
        }
        let filled_by_head = header.epoch == Epoch(0)
            && header.index == LogIndex(0)
            && header.base_offset == Offset(0)
            && header.append_timestamp == Timestamp(0)
            && header.running_hash == RunningHash(0);
        if !filled_by_head {
            return Err(invalid(
                "epoch, index, base_offset, append_timestamp and running_hash are the broker's to fill",
            ));
        }
        self.shard.range(header.range).ok_or_else(|| ErrorCode::NotOwner.into())
    }

    /// Takes the batch's part of its topic's quota, if the topic has one.
    fn charge(&self, range: &Range<D>, header: &EntryHeader) -> Result<Option<Charge<D>>, Refusal> {
        let config = range.config_of(header.partition_key());
        let Some(per_second) = config.map(|config| config.produce_bytes_per_second).filter(|&rate| rate > 0) else {
            return Ok(None);
        };
        match Charge::take(&self.shard, header.topic, per_second, header.body_bytes.into()) {
            Ok(charge) => Ok(Some(charge)),
            Err(retry_after_ms) => {
                self.shard.metrics.produce_throttled.add(1);
                let message = format!("the topic's quota on this shard is {per_second} bytes a second");
                Err(Refusal { code: ErrorCode::Throttled, message, retry_after_ms })
            }
        }
    }

    async fn append(
        &self,
        range: &Rc<Range<D>>,
        message: &ProduceRequest,
        body: Body<'_, D>,
        checked: Result<Instant, Refusal>,
        (reply, permit, charge, arrival): (Reply, Permit, Option<Charge<D>>, Arrival),
    ) {
        let has_waited = range.append_space().await;
        let checked_at = match checked {
            Ok(checked_at) => checked_at,
            Err(refusal) => return self.refuse(reply, &refusal),
        };
        // A look at the clock costs as much as the checksum of a small batch.
        let now = if has_waited { self.shard.clock().mark() } else { checked_at };
        let header = message.header;
        let deadline = now + timeout(message.timeout_ms);
        let completion = ClientReply {
            reply,
            shard: self.shard.clone(),
            records: header.record_count,
            body_bytes: header.body_bytes,
            range: Rc::downgrade(range),
            partition: header.partition_key(),
            charge,
            arrival,
            _permit: permit,
        };
        range.produce(header, message.epoch, body, Box::new(completion), deadline);
    }

    fn refuse(&self, reply: Reply, refusal: &Refusal) {
        self.shard.metrics.produce_refused.add(1);
        reply.fail_with(refusal.code, &ErrorReply::because(&refusal.message).after_ms(refusal.retry_after_ms));
    }
}

/// The checksum of any body, and the shape of an uncompressed one.
fn check_body(header: &EntryHeader, crc: u32, body: &[u8]) -> Result<(), Refusal> {
    if crc != header.body_crc {
        return Err(ErrorCode::CorruptBatch.into());
    }
    if header.codec != Codec::None {
        return Ok(());
    }
    let view = BatchView::parse(body, header).map_err(|error| {
        let code = match error {
            BatchError::RecordBytes { .. } => ErrorCode::RecordTooLarge,
            _ => ErrorCode::InvalidBatch,
        };
        Refusal::because(code, error.to_string())
    })?;
    if !view.offset_delta_bytes().is_empty() {
        return Err(Refusal::because(ErrorCode::InvalidBatch, "offset_deltas are written by compaction only"));
    }
    Ok(())
}

fn timeout(timeout_ms: u32) -> Duration {
    let ms = if timeout_ms == 0 { limits::PRODUCE_TIMEOUT_MS_MAX } else { timeout_ms };
    Duration::from_millis(ms.min(limits::PRODUCE_TIMEOUT_MS_MAX).into())
}

/// A client that waits for its batch, and the memory its batch takes until it is answered.
struct ClientReply<D: Disk> {
    reply: Reply,
    shard: Rc<Shard<D>>,
    records: u32,
    body_bytes: u32,
    /// Weak, because the range holds those who wait.
    range: Weak<Range<D>>,
    partition: PartitionKey,
    charge: Option<Charge<D>>,
    arrival: Arrival,
    _permit: Permit,
}

impl<D: Disk> Completion for ClientReply<D> {
    fn trace(&self) -> Option<Rc<Trace>> {
        self.arrival.trace.clone()
    }

    fn complete(mut self: Box<Self>, answer: Answer) {
        if let Some(charge) = self.charge.take() {
            charge.settle(refusal_of(&answer));
        }
        let metrics = &self.shard.metrics;
        // What was done was just told by the disk or the successor, and that was marked.
        let now_ns = match answer {
            Answer::Done { .. } => self.shard.clock().marked_ns(),
            Answer::Refused { .. } => self.shard.clock().counted_ns(),
        };
        metrics.took.produce.record(now_ns.saturating_sub(self.arrival.began_ns));
        match answer {
            Answer::Done { base_offset, append_timestamp } => {
                let (records, bytes) = (u64::from(self.records), u64::from(self.body_bytes));
                metrics.produced_records.add(records);
                metrics.produced_bytes.add(bytes);
                metrics.topics.count(self.partition.topic, |counts| {
                    counts.produced_records += records;
                    counts.produced_bytes += bytes;
                });
                let message = ProduceReply { base_offset, append_timestamp };
                let Some(trace) = &self.arrival.trace else { return self.reply.send(&message) };
                trace.ended(Stage::Answer, now_ns);
                let explanation = trace.explanation(self.shard.me(), now_ns);
                self.reply.send_explained(&Explained { message, explanation }, Vec::new());
            }
            Answer::Refused { code, epoch } => {
                metrics.produce_refused.add(1);
                let error = match code {
                    ErrorCode::BatchTooLarge => ErrorReply::because(self.too_large()),
                    code => match self.range.upgrade() {
                        Some(range) => ErrorReply::because(range.refusal(code)),
                        None => ErrorReply::of(code),
                    },
                };
                let error = error.at_epoch(epoch).after_ms(retry_after_ms(code));
                self.reply.fail_with(code, &error);
            }
        }
    }
}

impl<D: Disk> ClientReply<D> {
    fn too_large(&self) -> String {
        let config = self.range.upgrade().and_then(|range| range.config_of(self.partition));
        let most = config.map_or(limits::BATCH_BODY_BYTES_MAX, |config| config.batch_bytes_max);
        format!("the batch has {} bytes, its topic takes at most {most}", self.body_bytes)
    }
}

fn refusal_of(answer: &Answer) -> Option<ErrorCode> {
    match answer {
        Answer::Done { .. } => None,
        Answer::Refused { code, .. } => Some(*code),
    }
}

/// How long a client waits before it tries again, where the client's own back-off would be too short.
const fn retry_after_ms(code: ErrorCode) -> u32 {
    match code {
        ErrorCode::DiskFull => 1_000,
        ErrorCode::Overloaded => 50,
        _ => 0,
    }
}
