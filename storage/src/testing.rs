//! What the tests of this crate share: entries that follow one another.

use minikafka_core::checksum;
use minikafka_core::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use minikafka_core::{
    Epoch, LogIndex, Offset, Partition, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, RunningHash, Sequence,
    Timestamp, TopicId,
};

/// The range all tests use.
pub(crate) const RANGE: RangeKey = RangeKey { ring: RingId(1), range: RangeId(7) };

/// A batch header of one record, not sealed.
pub(crate) fn batch_header(partition: u32, body_bytes: u32) -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Batch,
        body_format: BodyFormat::Columnar,
        codec: Codec::None,
        body_bytes,
        uncompressed_bytes: body_bytes,
        range: RANGE,
        attributes: 0,
        epoch: Epoch(1),
        index: LogIndex(1),
        topic: TopicId(0xabc),
        partition: Partition(partition),
        record_count: 1,
        base_offset: Offset(0),
        last_offset_delta: 0,
        base_sequence: Sequence(0),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        append_timestamp: Timestamp(0),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(0),
        body_crc: checksum::crc32c(&[]),
        running_hash: RunningHash(0),
    }
}
