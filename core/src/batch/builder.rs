//! Building a batch: the fast path of a producer.
//!
//! Records are appended to flat columns, and a column that says nothing yet (no key so far, no tombstone, no header,
//! every timestamp the same) does not exist: it appears, filled for the records before, with the first record that
//! needs it. So a batch of plain values costs two appends a record, and its body carries two columns.
//!
//! [`BatchBuilder::body_bytes`] is exact at any moment, because a producer cuts its batches by it.

use super::error::BatchBuildError;
use super::layout::{Column, ColumnLengths, Columns, ROOT_BYTES, body_bytes};
use crate::checksum;
use crate::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use crate::ids::*;
use crate::limits;

/// A record to be pushed, borrowed from the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Key, if any. An empty key is a key.
    pub key: Option<&'a [u8]>,
    /// Value; none makes the record a tombstone. An empty value is a value.
    pub value: Option<&'a [u8]>,
    /// Producer's clock.
    pub timestamp: Timestamp,
    /// Headers, in order; names may repeat.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl RecordRef<'_> {
    /// A record without key, value and headers, to be completed by struct update.
    pub const fn at(timestamp: Timestamp) -> Self {
        Self { key: None, value: None, timestamp, headers: &[] }
    }

    /// Bytes of key, value and headers together, which [`limits::RECORD_BYTES_MAX`] bounds.
    #[inline]
    pub fn record_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}

/// Gathers records into the columns of one batch; reusable after every [`BatchBuilder::finish`].
#[derive(Debug)]
pub struct BatchBuilder {
    columns: Columns,
    record_count: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

/// A batch ready to be sent.
///
/// A caller that compresses replaces `body` and sets `codec`; everything else stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedBatch {
    /// The body as it will be sent and stored.
    pub body: Vec<u8>,
    /// How `body` is compressed; [`Codec::None`] as finished.
    pub codec: Codec,
    /// Bytes of the body once decompressed.
    pub uncompressed_bytes: u32,
    /// Records in the batch, at least one.
    pub record_count: u32,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: u32,
    /// Timestamp of the first record.
    pub base_timestamp: Timestamp,
    /// Largest timestamp.
    pub max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty builder with memory for values of `bytes` bytes in total.
    pub fn with_capacity(bytes: usize) -> Self {
        let columns = Columns { values: Vec::with_capacity(bytes), ..Columns::default() };
        let mut builder =
            Self { columns, record_count: 0, base_timestamp: Timestamp(0), max_timestamp: Timestamp(i64::MIN) };
        builder.clear();
        builder
    }

    /// Appends a record and returns its offset relative to the first of the batch.
    ///
    /// # Errors
    /// [`BatchBuildError::Full`] when it would fit in an empty batch, but not in this one; the other errors when it
    /// would fit in none. The batch is as it was before.
    #[inline]
    pub fn push(&mut self, record: RecordRef<'_>) -> Result<u32, BatchBuildError> {
        if record.headers.len() > limits::RECORD_HEADERS_MAX as usize {
            return Err(BatchBuildError::RecordHeaders(record.headers.len()));
        }
        let record_bytes = record.record_bytes();
        if record_bytes > limits::RECORD_BYTES_MAX as usize {
            return Err(BatchBuildError::RecordBytes(record_bytes));
        }
        let timestamp_delta = match self.timestamp_delta(record.timestamp) {
            Some(delta) if self.has_room(&record, record_bytes, limits::BATCH_BODY_BYTES_MAX) => delta,
            _ => return Err(BatchBuildError::Full),
        };
        let index = self.record_count as usize;
        if index == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.push_key(index, record.key);
        self.push_value(index, record.value);
        if timestamp_delta != 0 || !self.columns.timestamp_deltas.is_empty() {
            self.columns.timestamp_deltas.resize(index, 0);
            self.columns.timestamp_deltas.push(timestamp_delta);
        }
        if !record.headers.is_empty() || !self.columns.header_counts.is_empty() {
            self.push_headers(index, record.headers);
        }
        self.record_count += 1;
        Ok(self.record_count - 1)
    }

    /// Records pushed since the last finish.
    pub const fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Size of the body that [`BatchBuilder::finish`] would give now, at a constant cost.
    pub fn body_bytes(&self) -> usize {
        self.columns.body_bytes()
    }

    /// Whether [`BatchBuilder::push`] of `record` would leave a body of at most `max_body_bytes`.
    ///
    /// When it says yes, a push fails only if no batch could take the record.
    #[inline]
    pub fn would_fit(&self, record: &RecordRef<'_>, max_body_bytes: u32) -> bool {
        let max_body_bytes = max_body_bytes.min(limits::BATCH_BODY_BYTES_MAX);
        self.timestamp_delta(record.timestamp).is_some() && self.has_room(record, record.record_bytes(), max_body_bytes)
    }

    /// Writes the body and leaves the builder empty, with its memory.
    ///
    /// # Panics
    /// When no record was pushed: a batch holds at least one.
    pub fn finish(&mut self) -> FinishedBatch {
        self.finish_into(Vec::new())
    }

    /// [`BatchBuilder::finish`] into the memory of an earlier body, whose contents are dropped. Fresh memory of a large
    /// body costs more than writing it: the kernel clears its pages first.
    ///
    /// # Panics
    /// When no record was pushed: a batch holds at least one.
    pub fn finish_into(&mut self, memory: Vec<u8>) -> FinishedBatch {
        assert!(self.record_count > 0, "a batch must hold a record before it is finished");
        let body = self.columns.encode_into(memory);
        assert!(body.len() <= limits::BATCH_BODY_BYTES_MAX as usize, "push must keep a body within its limit");
        let batch = FinishedBatch {
            codec: Codec::None,
            uncompressed_bytes: body.len() as u32,
            body,
            record_count: self.record_count,
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
        };
        self.clear();
        batch
    }

    /// Forgets every record and keeps the memory.
    pub fn clear(&mut self) {
        self.columns.clear();
        self.columns.value_offsets.push(0);
        self.record_count = 0;
        self.max_timestamp = Timestamp(i64::MIN);
    }

    /// None when the two timestamps are too far apart for one batch.
    #[inline]
    fn timestamp_delta(&self, timestamp: Timestamp) -> Option<i64> {
        if self.record_count == 0 { Some(0) } else { timestamp.0.checked_sub(self.base_timestamp.0) }
    }

    /// Whether one more record leaves a body of at most `max_body_bytes`: first by a bound that costs next to nothing
    /// and is met until the batch is nearly full, then exactly.
    #[inline]
    fn has_room(&self, record: &RecordRef<'_>, record_bytes: usize, max_body_bytes: u32) -> bool {
        /// Elements of every column that one more record can add, and up to 7 bytes of padding for each of them.
        const PER_RECORD: usize = 4 + 4 + 1 + 1 + 8 + 4;
        const PER_HEADER: usize = 4 + 4;
        const PER_BATCH: usize = ROOT_BYTES + PER_RECORD + PER_HEADER + 7 * Column::ALL.len();
        let columns = &self.columns;
        let records = self.record_count as usize + 1;
        let headers = columns.header_name_offsets.len() + record.headers.len();
        let data = columns.keys.len() + columns.values.len() + columns.header_names.len() + columns.header_values.len();
        let at_most = PER_BATCH + records * PER_RECORD + headers * PER_HEADER + data + record_bytes;
        records <= limits::BATCH_RECORDS_MAX as usize
            && (at_most <= max_body_bytes as usize || body_bytes(&self.lengths_with(record)) <= max_body_bytes as usize)
    }

    /// Lengths of the columns once `record` is pushed.
    #[cold]
    fn lengths_with(&self, record: &RecordRef<'_>) -> ColumnLengths {
        let columns = &self.columns;
        let records = self.record_count as usize + 1;
        let has_keys = record.key.is_some() || !columns.key_offsets.is_empty();
        let has_absent_keys = has_keys
            && (record.key.is_none()
                || !columns.key_validity.is_empty()
                || (columns.key_offsets.is_empty() && records > 1));
        let has_tombstones = record.value.is_none() || !columns.value_validity.is_empty();
        let has_timestamps = self.timestamp_delta(record.timestamp) != Some(0) || !columns.timestamp_deltas.is_empty();
        let has_headers = !record.headers.is_empty() || !columns.header_counts.is_empty();
        let headers = columns.header_name_offsets.len().max(1) + record.headers.len();
        let name_bytes: usize = record.headers.iter().map(|(name, _)| name.len()).sum();
        let value_bytes: usize = record.headers.iter().map(|(_, value)| value.len()).sum();
        let length_if = |exists: bool, length: usize| if exists { length } else { 0 };
        [
            length_if(has_keys, records + 1),
            columns.keys.len() + record.key.map_or(0, <[u8]>::len),
            records + 1,
            columns.values.len() + record.value.map_or(0, <[u8]>::len),
            length_if(has_absent_keys, records.div_ceil(8)),
            length_if(has_tombstones, records.div_ceil(8)),
            length_if(has_timestamps, records),
            length_if(has_headers, records + 1),
            length_if(has_headers, headers),
            columns.header_names.len() + name_bytes,
            length_if(has_headers, headers),
            columns.header_values.len() + value_bytes,
            0,
        ]
    }

    #[inline]
    fn push_key(&mut self, index: usize, key: Option<&[u8]>) {
        let columns = &mut self.columns;
        if columns.key_offsets.is_empty() {
            if key.is_none() {
                return;
            }
            columns.key_offsets.resize(index + 1, 0);
            columns.key_validity.resize(index.div_ceil(8), 0);
        }
        push_validity(&mut columns.key_validity, index, key.is_some());
        columns.keys.extend_from_slice(key.unwrap_or_default());
        columns.key_offsets.push(columns.keys.len() as i32);
    }

    #[inline]
    fn push_value(&mut self, index: usize, value: Option<&[u8]>) {
        let columns = &mut self.columns;
        push_validity(&mut columns.value_validity, index, value.is_some());
        columns.values.extend_from_slice(value.unwrap_or_default());
        columns.value_offsets.push(columns.values.len() as i32);
    }

    fn push_headers(&mut self, index: usize, headers: &[(&str, &[u8])]) {
        let columns = &mut self.columns;
        if columns.header_counts.is_empty() {
            columns.header_counts.resize(index + 1, 0);
            columns.header_name_offsets.push(0);
            columns.header_value_offsets.push(0);
        }
        for (name, value) in headers {
            columns.header_names.extend_from_slice(name.as_bytes());
            columns.header_name_offsets.push(columns.header_names.len() as i32);
            columns.header_values.extend_from_slice(value);
            columns.header_value_offsets.push(columns.header_values.len() as i32);
        }
        columns.header_counts.push(columns.header_name_offsets.len() as i32 - 1);
    }
}

impl FinishedBatch {
    /// The header a producer sends in front of the body: with the body's checksum, without what the head fills in.
    pub fn header(
        &self,
        range: RangeKey,
        partition: PartitionKey,
        (producer_id, producer_epoch, base_sequence): (ProducerId, ProducerEpoch, Sequence),
    ) -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Batch,
            body_format: BodyFormat::Columnar,
            codec: self.codec,
            body_bytes: self.body.len() as u32,
            uncompressed_bytes: self.uncompressed_bytes,
            range,
            attributes: 0,
            epoch: Epoch(0),
            index: LogIndex(0),
            topic: partition.topic,
            partition: partition.partition,
            record_count: self.record_count,
            base_offset: Offset(0),
            last_offset_delta: self.last_offset_delta,
            base_sequence,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            append_timestamp: Timestamp(0),
            producer_id,
            producer_epoch,
            body_crc: checksum::crc32c(&self.body),
            running_hash: RunningHash(0),
        }
    }
}

/// Appends bit `index` to a bitmap that does not exist as long as every bit is 1.
#[inline]
fn push_validity(validity: &mut Vec<u8>, index: usize, present: bool) {
    if validity.is_empty() {
        if present {
            return;
        }
        validity.resize(index / 8, 0xff);
        if !index.is_multiple_of(8) {
            validity.push((1 << (index % 8)) - 1);
        }
    }
    if index.is_multiple_of(8) {
        validity.push(0);
    }
    validity[index / 8] |= u8::from(present) << (index % 8);
}

// A record that passes its own limits fits in an empty batch, so "full" always means "not in this one".
const _: () = {
    let headers = limits::RECORD_HEADERS_MAX as usize * 8;
    assert!(limits::RECORD_BYTES_MAX as usize + headers + ROOT_BYTES + 256 <= limits::BATCH_BODY_BYTES_MAX as usize);
};

#[cfg(test)]
mod tests;
