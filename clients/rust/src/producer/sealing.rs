//! From records to the bytes that are sent: encoding, compression, checksum. Memory is used again.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use minikafka_core::batch::{BatchBuilder, FinishedBatch};
use minikafka_core::entry::{Codec, EntryHeader};
use minikafka_core::{PartitionKey, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, Sequence};

/// Builders and bodies that are kept for the next batch, each.
const KEPT_MAX: usize = 32;
/// Bodies of this size and more are compressed on another thread.
pub(super) const LARGE_BODY_BYTES: usize = 16 << 10;

/// A batch as it is sent. Range, producer and sequence are put into the header at every attempt.
#[derive(Clone, Debug)]
pub(super) struct SealedBatch {
    pub header: EntryHeader,
    pub body: Bytes,
}

/// Memory between two batches: fresh memory costs more than filling it, because the kernel clears it first.
#[derive(Debug)]
pub(super) struct Recycler {
    kept: Mutex<Kept>,
    /// What was larger is not kept, so that one large batch does not cost memory forever.
    body_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    builders: Vec<BatchBuilder>,
    bodies: Vec<Vec<u8>>,
}

impl Recycler {
    pub(super) fn new(batch_bytes_max: u32) -> Self {
        Self { kept: Mutex::default(), body_bytes_max: 2 * batch_bytes_max as usize }
    }

    /// An empty builder.
    pub(super) fn builder(&self) -> BatchBuilder {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).builders.pop();
        kept.unwrap_or_else(|| BatchBuilder::with_capacity(4 << 10))
    }

    /// The batch that `builder` holds, uncompressed; the builder is kept.
    pub(super) fn finish(&self, mut builder: BatchBuilder) -> FinishedBatch {
        let memory = self.kept.lock().unwrap_or_else(PoisonError::into_inner).bodies.pop();
        let finished = builder.finish_into(memory.unwrap_or_default());
        if finished.body.len() <= self.body_bytes_max {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.builders.len() < KEPT_MAX {
                kept.builders.push(builder);
            }
        }
        finished
    }

    /// Takes the memory of a body back when nobody else holds it.
    pub(super) fn take_back(&self, body: Bytes) {
        if body.is_unique() && body.len() <= self.body_bytes_max {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.bodies.len() < KEPT_MAX {
                kept.bodies.push(Vec::from(body));
            }
        }
    }
}

/// Computes checksum and header.
pub(super) fn seal(finished: FinishedBatch, partition: PartitionKey) -> SealedBatch {
    let nowhere = RangeKey { ring: RingId(0), range: RangeId(0) };
    let header = finished.header(nowhere, partition, (ProducerId::NONE, ProducerEpoch(0), Sequence(0)));
    SealedBatch { header, body: finished.body.into() }
}

/// Compresses the body; leaves it as it is when that would not make it smaller.
pub(super) fn compress(mut finished: FinishedBatch, codec: Codec, zstd_level: i32) -> FinishedBatch {
    let compressed = match codec {
        Codec::None => return finished,
        Codec::Lz4 => lz4_flex::block::compress(&finished.body),
        Codec::Zstd => match zstd::bulk::compress(&finished.body, zstd_level) {
            Ok(compressed) => compressed,
            Err(error) => {
                tracing::warn!(%error, "batch is sent uncompressed");
                return finished;
            }
        },
    };
    if compressed.len() < finished.body.len() {
        finished.body = compressed;
        finished.codec = codec;
    }
    finished
}
