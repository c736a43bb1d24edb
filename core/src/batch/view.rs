//! Reading a batch body in place.
//!
//! A [`BatchView`] borrows the body, wherever in memory it starts: numbers are read with `from_le_bytes`, so a slice of
//! a receive buffer is as good as an aligned one. [`BatchView::parse`] proves every rule of the format once; after it,
//! no accessor can fail.

use std::iter::FusedIterator;
use std::ops::Range;

use super::check::{self, LongWords, RawColumns, Words};
use super::error::{BatchError, ColumnFault};
use super::layout::Column;
use crate::entry::{BodyFormat, EntryHeader, EntryKind};
use crate::ids::{Offset, Timestamp};
use crate::limits;

/// A validated batch body, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    record_count: u32,
    base_offset: Offset,
    base_timestamp: Timestamp,
    keys: BinaryColumn<'a>,
    values: BinaryColumn<'a>,
    timestamp_deltas: LongWords<'a>,
    header_counts: Words<'a>,
    headers: HeaderColumns<'a>,
    offset_deltas: Words<'a>,
}

/// Byte strings of a batch in Apache Arrow's variable-binary layout: validity, offsets, data.
#[derive(Clone, Copy, Debug)]
pub struct BinaryColumn<'a> {
    validity: &'a [u8],
    offsets: Words<'a>,
    data: &'a [u8],
}

/// A record of a [`BatchView`].
#[derive(Clone, Debug)]
pub struct RecordView<'a> {
    /// Offset in the partition. Meaningful once the head has assigned the batch's offset.
    pub offset: Offset,
    /// Producer's clock.
    pub timestamp: Timestamp,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; none marks a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: Headers<'a>,
}

/// The headers of one record: pairs of name and value.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    columns: HeaderColumns<'a>,
    range: Range<usize>,
}

/// The records of a batch, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    view: BatchView<'a>,
    range: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
struct HeaderColumns<'a> {
    name_offsets: Words<'a>,
    names: &'a str,
    values: BinaryColumn<'a>,
}

impl<'a> BatchView<'a> {
    /// Validates `body` against its header; costs one pass over each column but the data themselves.
    ///
    /// `body` is uncompressed: the caller of a compressed batch decompresses it first, to at most
    /// `header.uncompressed_bytes`. Its CRC is not looked at.
    ///
    /// # Errors
    /// A [`BatchError`] names the first broken rule.
    pub fn parse(body: &'a [u8], header: &EntryHeader) -> Result<Self, BatchError> {
        if header.kind != EntryKind::Batch || header.body_format != BodyFormat::Columnar {
            return Err(BatchError::NotColumnar);
        }
        if body.len() != header.uncompressed_bytes as usize {
            return Err(BatchError::BodyBytes { expected: header.uncompressed_bytes, found: body.len() });
        }
        if header.record_count == 0 || header.record_count > limits::BATCH_RECORDS_MAX {
            return Err(BatchError::RecordCount(header.record_count));
        }
        let raw = RawColumns::cut(body)?;
        let records = header.record_count as usize;
        let value_offsets = raw.words(Column::ValueOffsets);
        at(Column::ValueOffsets, check::length(value_offsets.len(), records + 1))?;
        let key_offsets = raw.words(Column::KeyOffsets);
        at(Column::KeyOffsets, check::length_or_empty(key_offsets.len(), records + 1))?;
        let timestamp_deltas = raw.long_words(Column::TimestampDeltas);
        at(Column::TimestampDeltas, check::length_or_empty(timestamp_deltas.len(), records))?;
        at(Column::TimestampDeltas, check::timestamps(timestamp_deltas, header.base_timestamp))?;
        let view = Self {
            record_count: header.record_count,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            keys: binary(&raw, Column::KeyOffsets, Column::Keys, Some(Column::KeyValidity))?,
            values: binary(&raw, Column::ValueOffsets, Column::Values, Some(Column::ValueValidity))?,
            timestamp_deltas,
            header_counts: raw.words(Column::HeaderCounts),
            headers: header_columns(&raw, records)?,
            offset_deltas: offset_deltas(&raw, header)?,
        };
        view.check_record_bytes()?;
        Ok(view)
    }

    /// Records in the batch; never 0.
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub const fn len(&self) -> usize {
        self.record_count as usize
    }

    /// The record at `index`, counted from 0 within the batch.
    #[inline]
    pub fn get(&self, index: usize) -> Option<RecordView<'a>> {
        if index >= self.len() {
            return None;
        }
        let headers = match self.header_counts.get(index..index + 2) {
            Some([start, end]) => u32::from_le_bytes(*start) as usize..u32::from_le_bytes(*end) as usize,
            _ => 0..0,
        };
        let timestamp_delta = self.timestamp_deltas.get(index).map_or(0, |delta| i64::from_le_bytes(*delta));
        Some(RecordView {
            offset: Offset(self.base_offset.0 + u64::from(self.offset_delta(index))),
            timestamp: Timestamp(self.base_timestamp.0 + timestamp_delta),
            key: self.keys.get(index),
            value: self.values.get(index),
            headers: Headers { columns: self.headers, range: headers },
        })
    }

    /// All records, in order.
    pub fn iter(&self) -> Records<'a> {
        Records { view: *self, range: 0..self.len() }
    }

    /// Keys as a column; without elements when no record has a key.
    pub const fn keys_column(&self) -> BinaryColumn<'a> {
        self.keys
    }

    /// Values as a column.
    pub const fn values_column(&self) -> BinaryColumn<'a> {
        self.values
    }

    /// Little-endian i64 milliseconds to be added to the base timestamp, one per record; empty when all are 0.
    pub fn timestamp_delta_bytes(&self) -> &'a [u8] {
        self.timestamp_deltas.as_flattened()
    }

    /// Little-endian u32 to be added to the base offset, one per record; empty when they are 0, 1, 2, …
    ///
    /// Only compaction writes this column: in a batch that is being produced, it is a mistake.
    pub fn offset_delta_bytes(&self) -> &'a [u8] {
        self.offset_deltas.as_flattened()
    }

    #[inline]
    fn offset_delta(&self, index: usize) -> u32 {
        self.offset_deltas.get(index).map_or(index as u32, |delta| u32::from_le_bytes(*delta))
    }

    /// No record may be larger than allowed, which a body that is small as a whole need not prove record by record.
    fn check_record_bytes(&self) -> Result<(), BatchError> {
        let data =
            self.keys.data.len() + self.values.data.len() + self.headers.names.len() + self.headers.values.data.len();
        if data <= limits::RECORD_BYTES_MAX as usize {
            return Ok(());
        }
        let span = |offsets: Words<'_>, range: &Range<usize>| match offsets.is_empty() {
            true => 0,
            false => u32::from_le_bytes(offsets[range.end]) - u32::from_le_bytes(offsets[range.start]),
        };
        for (index, record) in self.iter().enumerate() {
            let headers = &record.headers.range;
            let bytes = span(self.keys.offsets, &(index..index + 1))
                + span(self.values.offsets, &(index..index + 1))
                + span(self.headers.name_offsets, headers)
                + span(self.headers.values.offsets, headers);
            if bytes > limits::RECORD_BYTES_MAX {
                return Err(BatchError::RecordBytes { record: index as u32, bytes });
            }
        }
        Ok(())
    }
}

/// Names the column in which a rule is broken.
fn at<T>(column: Column, result: Result<T, ColumnFault>) -> Result<T, BatchError> {
    result.map_err(|fault| BatchError::Column { column, fault })
}

/// A verified binary column; the length of its offsets is the caller's to check.
fn binary<'a>(
    raw: &RawColumns<'a>,
    offsets_column: Column,
    data_column: Column,
    validity_column: Option<Column>,
) -> Result<BinaryColumn<'a>, BatchError> {
    let (offsets, data) = (raw.words(offsets_column), raw.bytes(data_column));
    if offsets.is_empty() {
        at(data_column, check::length(data.len(), 0))?;
    }
    at(offsets_column, check::offsets(offsets, data.len()))?;
    let Some(validity_column) = validity_column else {
        return Ok(BinaryColumn { validity: &[], offsets, data });
    };
    let validity = raw.bytes(validity_column);
    let elements = offsets.len().saturating_sub(1);
    at(validity_column, check::length_or_empty(validity.len(), elements.div_ceil(8)))?;
    at(validity_column, check::validity(validity, offsets, elements))?;
    Ok(BinaryColumn { validity, offsets, data })
}

fn header_columns<'a>(raw: &RawColumns<'a>, records: usize) -> Result<HeaderColumns<'a>, BatchError> {
    let counts = raw.words(Column::HeaderCounts);
    at(Column::HeaderCounts, check::length_or_empty(counts.len(), records + 1))?;
    let headers = at(Column::HeaderCounts, check::running(counts))?;
    check::record_headers(counts)?;
    let offsets_length = if counts.is_empty() { 0 } else { headers + 1 };
    for column in [Column::HeaderNameOffsets, Column::HeaderValueOffsets] {
        at(column, check::length(raw.words(column).len(), offsets_length))?;
    }
    let names = binary(raw, Column::HeaderNameOffsets, Column::HeaderNames, None)?;
    let values = binary(raw, Column::HeaderValueOffsets, Column::HeaderValues, None)?;
    let text = at(Column::HeaderNames, check::header_names(names.data, names.offsets))?;
    Ok(HeaderColumns { name_offsets: names.offsets, names: text, values })
}

fn offset_deltas<'a>(raw: &RawColumns<'a>, header: &EntryHeader) -> Result<Words<'a>, BatchError> {
    let deltas = raw.words(Column::OffsetDeltas);
    at(Column::OffsetDeltas, check::length_or_empty(deltas.len(), header.record_count as usize))?;
    let last = at(Column::OffsetDeltas, check::offset_deltas(deltas))?.unwrap_or(header.record_count - 1);
    match last == header.last_offset_delta {
        true => Ok(deltas),
        false => Err(BatchError::LastOffsetDelta { expected: header.last_offset_delta, found: last }),
    }
}

impl<'a> BinaryColumn<'a> {
    /// The bytes at `index`; none when they are absent or the column has no such element.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let [start, end] = self.offsets.get(index..index + 2)? else { return None };
        let is_present = self.validity.is_empty() || self.validity[index / 8] >> (index % 8) & 1 == 1;
        is_present.then(|| &self.data[u32::from_le_bytes(*start) as usize..u32::from_le_bytes(*end) as usize])
    }

    /// Validity bitmap, least significant bit first; empty when every element is present.
    pub const fn validity(&self) -> &'a [u8] {
        self.validity
    }

    /// Little-endian i32 offsets into the data, one more than elements; empty when there is no element.
    pub fn offset_bytes(&self) -> &'a [u8] {
        self.offsets.as_flattened()
    }

    /// All elements, one after the other.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.range.next()?;
        let offset = |index: usize| u32::from_le_bytes(self.columns.name_offsets[index]) as usize;
        let name = &self.columns.names[offset(index)..offset(index + 1)];
        Some((name, self.columns.values.get(index)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.view.get(self.range.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl ExactSizeIterator for Records<'_> {}
impl FusedIterator for Records<'_> {}

impl<'a> IntoIterator for &BatchView<'a> {
    type Item = RecordView<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}
