//! Batches encoded beforehand: one body for all, one frame head for each partition, patched for every send.

use std::rc::Rc;

use minikafka_core::batch::{BatchBuilder, FinishedBatch, RecordRef};
use minikafka_core::checksum;
use minikafka_core::entry::Codec;
use minikafka_core::wire::frame::{Envelope, FRAME_HEADER_BYTES, encode_frame};
use minikafka_core::wire::{Api, PRODUCE_HEAD_BYTES, ProduceRequest, Wire};
use minikafka_core::{ProducerEpoch, ProducerId, Sequence, Timestamp};

use crate::error::{BenchError, Doing, Result};
use crate::target::TargetPartition;
use crate::workload::{Compression, KEY_BYTES, KeyDistribution, Keys, Records, noise};

/// Bytes of a produce frame without its body.
const HEAD_BYTES: usize = FRAME_HEADER_BYTES + PRODUCE_HEAD_BYTES;
/// Where the entry header begins in the frame.
const ENTRY_AT: usize = FRAME_HEADER_BYTES + PRODUCE_HEAD_BYTES - minikafka_core::entry::ENTRY_HEADER_BYTES;
/// Where in the frame what changes lies (`docs/PROTOCOL.md` section 1, `docs/DATA_FILE.md` section 2).
const CORRELATION_AT: usize = 16;
const CRC_AT: usize = 28;
const SEQUENCE_AT: usize = ENTRY_AT + 68;
const BASE_TIMESTAMP_AT: usize = ENTRY_AT + 72;
const MAX_TIMESTAMP_AT: usize = ENTRY_AT + 80;
const PRODUCER_AT: usize = ENTRY_AT + 96;

/// A frame without its body.
pub(super) type Head = [u8; HEAD_BYTES];

/// The batch that is sent again and again.
#[derive(Debug)]
pub(super) struct Batches {
    batch: FinishedBatch,
    pub body: Rc<[u8]>,
    /// Bytes of keys and values of one batch.
    pub record_bytes: u64,
    /// The frame for partition 0, 1, …
    heads: Vec<Head>,
}

/// What is different about each send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub correlation: u64,
    pub producer: ProducerId,
    pub sequence: Sequence,
    pub timestamp: Timestamp,
}

impl Batches {
    /// Encodes the batch and the frames of all partitions.
    pub fn build(records: &Records, partitions: &[TargetPartition], seed: u64) -> Result<Self> {
        let batch = fill(records, seed)?;
        let record_bytes = u64::from(batch.record_count) * u64::from(records.record_bytes);
        let body: Rc<[u8]> = batch.body.as_slice().into();
        let mut batches = Self { batch, body, record_bytes, heads: Vec::new() };
        batches.heads = partitions.iter().map(|partition| batches.head(partition)).collect();
        Ok(batches)
    }

    /// Records of each batch.
    pub fn record_count(&self) -> u32 {
        self.batch.record_count
    }

    /// The frame of one send, its body excluded.
    #[inline]
    pub fn stamped(&self, partition: usize, stamp: &Stamp) -> Head {
        let mut head = self.heads[partition];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(CORRELATION_AT, &stamp.correlation.to_le_bytes());
        put(SEQUENCE_AT, &stamp.sequence.0.to_le_bytes());
        put(PRODUCER_AT, &stamp.producer.0.to_le_bytes());
        put(BASE_TIMESTAMP_AT, &stamp.timestamp.0.to_le_bytes());
        put(MAX_TIMESTAMP_AT, &stamp.timestamp.0.to_le_bytes());
        let crc = checksum::crc32c_append(checksum::crc32c(&head[..CRC_AT]), &head[FRAME_HEADER_BYTES..]);
        head[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        head
    }

    fn head(&self, partition: &TargetPartition) -> Head {
        let producer = (ProducerId(0), ProducerEpoch(0), Sequence(0));
        let header = self.batch.header(partition.range, partition.key, producer);
        let request = ProduceRequest { epoch: partition.epoch, timeout_ms: 0, header };
        let mut frame = Vec::with_capacity(HEAD_BYTES);
        let envelope = Envelope::request(Api::Produce, 0);
        encode_frame(&mut frame, envelope, &request.to_bytes(), self.body.len() as u32);
        frame.try_into().expect("the head of a produce request is of a fixed length")
    }
}

/// As many records as fit, or as were asked for.
fn fill(records: &Records, seed: u64) -> Result<FinishedBatch> {
    let keyed = records.keys != KeyDistribution::None;
    let mut keys = Keys::new(records.keys, records.key_count, seed);
    let value_bytes = records.record_bytes as usize - if keyed { KEY_BYTES } else { 0 };
    let values = noise(value_bytes + 4096, seed);
    let most = records.batch_records.unwrap_or(u32::MAX).max(1);
    let mut builder = BatchBuilder::with_capacity(records.batch_bytes as usize);
    while builder.record_count() < most {
        let key = keys.draw().to_le_bytes();
        let from = builder.record_count() as usize % 4096;
        let value = &values[from..from + value_bytes];
        let record = RecordRef { key: keyed.then_some(&key[..]), value: Some(value), ..RecordRef::at(Timestamp(0)) };
        if builder.record_count() > 0 && !builder.would_fit(&record, records.batch_bytes) {
            break;
        }
        let refused = |error| BenchError::Options(format!("a record of {} bytes: {error}", records.record_bytes));
        builder.push(record).map_err(refused)?;
    }
    compress(builder.finish(), records.compression)
}

fn compress(mut batch: FinishedBatch, compression: Compression) -> Result<FinishedBatch> {
    batch.codec = compression.into();
    batch.body = match batch.codec {
        Codec::None => return Ok(batch),
        Codec::Lz4 => lz4_flex::block::compress(&batch.body),
        Codec::Zstd => zstd::bulk::compress(&batch.body, 3).doing(|| "compressing a batch".to_owned())?,
    };
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use minikafka_core::batch::BatchView;
    use minikafka_core::wire::FrameHeader;
    use minikafka_core::wire::frame::FrameLimits;
    use minikafka_core::{Epoch, Partition, PartitionKey, RangeId, RangeKey, RingId, TopicId};

    use super::*;
    use crate::workload::tests::records;

    /// A patched frame is the frame that encoding it anew gives, and its body is what its header says.
    #[test]
    fn a_stamped_frame_is_a_good_frame() {
        for (keys, batch_records) in [(KeyDistribution::None, Some(1)), (KeyDistribution::Zipf, None)] {
            let records = records(&format!(
                "--record-bytes 100 --batch-bytes 16K --keys {}",
                match keys {
                    KeyDistribution::None => "none",
                    _ => "zipf",
                }
            ));
            let records = Records { batch_records, ..records };
            let range = RangeKey { ring: RingId(1), range: RangeId(9) };
            let key = PartitionKey { topic: TopicId(77), partition: Partition(3) };
            let target = TargetPartition { key, range, epoch: Epoch(5), shard: 0 };
            let batches = Batches::build(&records, &[target], 1).unwrap();
            let (producer, sequence, timestamp) = (ProducerId(11), Sequence(12), Timestamp(13));
            let frame = batches.stamped(0, &Stamp { correlation: 10, producer, sequence, timestamp });

            let bytes = frame.first_chunk().unwrap();
            let header = FrameHeader::decode(bytes, FrameLimits::REQUEST).unwrap();
            header.verify(bytes, &frame[FRAME_HEADER_BYTES..]).unwrap();
            assert_eq!((header.correlation, header.bulk_bytes as usize), (10, batches.body.len()));
            let request = ProduceRequest::from_bytes(&frame[FRAME_HEADER_BYTES..]).unwrap();
            let entry = request.header;
            assert_eq!((request.epoch, entry.range, entry.partition_key()), (Epoch(5), range, key));
            assert_eq!((entry.producer_id, entry.base_sequence), (producer, sequence));
            assert_eq!((entry.base_timestamp, entry.max_timestamp), (timestamp, timestamp));
            assert_eq!(entry.body_crc, checksum::crc32c(&batches.body));
            let view = BatchView::parse(&batches.body, &entry).unwrap();
            let bytes: usize =
                view.iter().map(|record| record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)).sum();
            assert_eq!((view.len() as u32, bytes as u64), (batches.record_count(), batches.record_bytes));
            assert_eq!(view.len() == 1, batch_records.is_some());
        }
    }
}
