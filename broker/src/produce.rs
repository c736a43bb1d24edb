//! Produce: from the frame to the range's machine.
//!
//! Everything about a batch is checked here, once: sizes, checksum, the shape of its columns. A small body is still in the
//! connection's receive buffer and is copied once, by the log; a large one is received into the memory that goes to disk.

use std::rc::Rc;
use std::time::Duration;

use minikafka_core::batch::{BatchError, BatchView};
use minikafka_core::chain::replica::Answer;
use minikafka_core::entry::{Codec, EntryHeader, EntryKind};
use minikafka_core::wire::{ErrorReply, ProduceReply, ProduceRequest};
use minikafka_core::{Epoch, ErrorCode, LogIndex, Offset, RunningHash, Timestamp, checksum, limits};
use minikafka_net::{Hangup, Reply, Request};
use minikafka_storage::Body;
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Permit;

use crate::range::{Completion, Range};
use crate::service::ShardService;
use crate::shard::Shard;

/// A batch that is refused, and what its client is told.
struct Refusal {
    code: ErrorCode,
    message: String,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: code.advice().to_owned() }
    }
}

impl<D: Disk> ShardService<D> {
    /// Takes one batch. Waits for memory and for the log to take more, which is what stops a fast producer.
    pub(crate) async fn produce(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        let message: ProduceRequest = request.message()?;
        let Request { bulk, reply, .. } = request;
        let range = match self.check_header(&message.header, bulk.len()) {
            Ok(range) => range,
            Err(refusal) => {
                self.refuse(reply, &refusal);
                return Ok(());
            }
        };
        let permit = self.shard.produce_budget.take(bulk.len() as u64).await;
        if let Some(body) = bulk.whole().filter(|body| body.len() < limits::UNCOPIED_BODY_BYTES_MIN as usize) {
            let checked = check_body(&message.header, checksum::crc32c(body), body);
            self.append(&range, &message, Body::Copied(body), checked, (reply, permit)).await;
        } else {
            let mut buffer = range.log().body_buffer(message.header.body_bytes);
            let crc = bulk.receive_into(buffer.body_mut()).await?;
            let checked = check_body(&message.header, crc, buffer.body());
            self.append(&range, &message, Body::Whole(buffer), checked, (reply, permit)).await;
        }
        Ok(())
    }

    /// What can be said before the body is here.
    fn check_header(&self, header: &EntryHeader, bulk_bytes: usize) -> Result<Rc<Range<D>>, Refusal> {
        let invalid = |what: &str| Refusal { code: ErrorCode::InvalidBatch, message: what.to_owned() };
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

    async fn append(
        &self,
        range: &Rc<Range<D>>,
        message: &ProduceRequest,
        body: Body<'_, D>,
        checked: Result<(), Refusal>,
        (reply, permit): (Reply, Permit),
    ) {
        range.append_space().await;
        if let Err(refusal) = checked {
            return self.refuse(reply, &refusal);
        }
        let header = message.header;
        let deadline = self.shard.clock().monotonic() + timeout(message.timeout_ms);
        let completion = ClientReply {
            reply,
            shard: self.shard.clone(),
            records: header.record_count,
            body_bytes: header.body_bytes,
            _permit: permit,
        };
        range.produce(header, message.epoch, body, Box::new(completion), deadline);
    }

    fn refuse(&self, reply: Reply, refusal: &Refusal) {
        self.shard.metrics.produce_refused.add(1);
        reply.fail_with(refusal.code, &ErrorReply::because(&refusal.message));
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
    let view = BatchView::parse(body, header).map_err(|error| Refusal {
        code: match error {
            BatchError::RecordBytes { .. } => ErrorCode::RecordTooLarge,
            _ => ErrorCode::InvalidBatch,
        },
        message: error.to_string(),
    })?;
    if !view.offset_delta_bytes().is_empty() {
        let message = "offset_deltas are written by compaction only".to_owned();
        return Err(Refusal { code: ErrorCode::InvalidBatch, message });
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
    _permit: Permit,
}

impl<D: Disk> Completion for ClientReply<D> {
    fn complete(self: Box<Self>, answer: Answer) {
        match answer {
            Answer::Done { base_offset, append_timestamp } => {
                self.shard.metrics.produced_records.add(self.records.into());
                self.shard.metrics.produced_bytes.add(self.body_bytes.into());
                self.reply.send(&ProduceReply { base_offset, append_timestamp });
            }
            Answer::Refused { code, epoch } => {
                self.shard.metrics.produce_refused.add(1);
                let error = ErrorReply::of(code).at_epoch(epoch).after_ms(retry_after_ms(code));
                self.reply.fail_with(code, &error);
            }
        }
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
