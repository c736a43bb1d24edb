//! The rules a received body must keep (`docs/DATA_FILE.md` section 1), one function each.
//!
//! Bytes here come from strangers: nothing may panic, read outside of the body, or cost more than one pass over each
//! column. The columns are slices of little-endian chunks, so alignment in memory does not matter; the loops have no
//! early exit, so that they compile to vector instructions.

use super::error::{BatchError, ColumnFault};
use super::layout::{Column, ROOT_BYTES};
use crate::ids::Timestamp;
use crate::limits;

/// A column of i32 or u32.
pub(super) type Words<'a> = &'a [[u8; 4]];
/// A column of i64.
pub(super) type LongWords<'a> = &'a [[u8; 8]];

/// The columns of a body, cut out of it by its root; only their places are verified so far.
pub(super) struct RawColumns<'a> {
    bytes: [&'a [u8]; Column::ALL.len()],
}

impl<'a> RawColumns<'a> {
    /// Reads the root and cuts the columns out.
    pub(super) fn cut(body: &'a [u8]) -> Result<Self, BatchError> {
        let Some((data, root)) = body.split_last_chunk::<ROOT_BYTES>() else {
            return Err(BatchError::Short(body.len()));
        };
        let mut columns = Self { bytes: [&[]; Column::ALL.len()] };
        let mut end = 0;
        for column in Column::ALL {
            let bytes = cut_column(column, data, root, end).map_err(|fault| BatchError::Column { column, fault })?;
            end = column.place_after(end) + bytes.len();
            columns.bytes[column as usize] = bytes;
        }
        if end != data.len() {
            return Err(BatchError::Root { expected: end, found: data.len() });
        }
        Ok(columns)
    }

    pub(super) fn bytes(&self, column: Column) -> &'a [u8] {
        self.bytes[column as usize]
    }

    pub(super) fn words(&self, column: Column) -> Words<'a> {
        self.bytes(column).as_chunks().0
    }

    pub(super) fn long_words(&self, column: Column) -> LongWords<'a> {
        self.bytes(column).as_chunks().0
    }
}

fn cut_column<'a>(
    column: Column,
    data: &'a [u8],
    root: &[u8; ROOT_BYTES],
    predecessor_end: usize,
) -> Result<&'a [u8], ColumnFault> {
    let described = &root[column.root_offset()..][..8];
    let relative = i32::from_le_bytes([described[0], described[1], described[2], described[3]]);
    let elements = u32::from_le_bytes([described[4], described[5], described[6], described[7]]);
    // Neither sum can overflow: all terms are far below 2^62.
    let start = (data.len() + column.root_offset()) as i64 + i64::from(relative);
    let end = start + i64::from(elements) * column.element_bytes() as i64;
    if start < 0 || end > data.len() as i64 {
        return Err(ColumnFault::Outside);
    }
    let (start, end) = (start as usize, end as usize);
    if start < predecessor_end {
        return Err(ColumnFault::Overlaps);
    }
    let place = column.place_after(predecessor_end);
    if start != place {
        return Err(ColumnFault::Misplaced { expected: place, found: start });
    }
    if data[predecessor_end..start].iter().any(|byte| *byte != 0) {
        return Err(ColumnFault::Gap);
    }
    Ok(&data[start..end])
}

/// A column must have `expected` elements.
pub(super) fn length(found: usize, expected: usize) -> Result<(), ColumnFault> {
    if found == expected { Ok(()) } else { Err(ColumnFault::Length { expected, found }) }
}

/// A column must have `expected` elements or none.
pub(super) fn length_or_empty(found: usize, expected: usize) -> Result<(), ColumnFault> {
    if found == 0 { Ok(()) } else { length(found, expected) }
}

/// Offsets must run from 0 to `data_len` and never decrease. Empty columns pass when the data are empty too.
pub(super) fn offsets(offsets: Words<'_>, data_len: usize) -> Result<(), ColumnFault> {
    let last = running(offsets)?;
    if last == data_len { Ok(()) } else { Err(ColumnFault::End { expected: data_len, found: last }) }
}

/// Running totals must start at 0 and never decrease; the result is the last one.
pub(super) fn running(totals: Words<'_>) -> Result<usize, ColumnFault> {
    let (Some(first), Some(last)) = (totals.first(), totals.last()) else {
        return Ok(0);
    };
    if i32::from_le_bytes(*first) != 0 {
        return Err(ColumnFault::Start);
    }
    // The sign of this is set when any element is negative or below its predecessor: two elements that are not
    // negative cannot overflow in their difference.
    let signs = totals.iter().zip(&totals[1..]).fold(0, |signs, (before, after)| {
        let (before, after) = (i32::from_le_bytes(*before), i32::from_le_bytes(*after));
        signs | after | after.wrapping_sub(before)
    });
    if signs < 0 { Err(ColumnFault::Decreases) } else { Ok(i32::from_le_bytes(*last) as usize) }
}

/// A bitmap must have no bit beyond the last record, and an absent record's bytes must be none.
pub(super) fn validity(validity: &[u8], offsets: Words<'_>, records: usize) -> Result<(), ColumnFault> {
    let Some(last) = validity.last() else {
        return Ok(());
    };
    if !records.is_multiple_of(8) && last >> (records % 8) != 0 {
        return Err(ColumnFault::BitBeyond);
    }
    for (at, byte) in validity.iter().enumerate().filter(|(_, byte)| **byte != 0xff) {
        for index in (at * 8..records.min(at * 8 + 8)).filter(|index| byte >> (index % 8) & 1 == 0) {
            if offsets[index] != offsets[index + 1] {
                return Err(ColumnFault::AbsentWithBytes(index as u32));
            }
        }
    }
    Ok(())
}

/// Header names must be UTF-8, each by itself.
pub(super) fn header_names<'a>(names: &'a [u8], offsets: Words<'_>) -> Result<&'a str, ColumnFault> {
    let names = str::from_utf8(names).map_err(|_| ColumnFault::NotUtf8)?;
    let splits_none = offsets.iter().all(|offset| names.is_char_boundary(u32::from_le_bytes(*offset) as usize));
    if splits_none { Ok(names) } else { Err(ColumnFault::NotUtf8) }
}

/// Timestamps must stay within 64 bits.
pub(super) fn timestamps(deltas: LongWords<'_>, base: Timestamp) -> Result<(), ColumnFault> {
    // A sum overflows exactly when its sign differs from both terms' signs.
    let signs = deltas.iter().fold(0, |signs, delta| {
        let delta = i64::from_le_bytes(*delta);
        let sum = base.0.wrapping_add(delta);
        signs | ((sum ^ base.0) & (sum ^ delta))
    });
    if signs < 0 { Err(ColumnFault::TimestampOverflow) } else { Ok(()) }
}

/// Offset deltas must start at 0 and grow; the result is the last one.
pub(super) fn offset_deltas(deltas: Words<'_>) -> Result<Option<u32>, ColumnFault> {
    let (Some(first), Some(last)) = (deltas.first(), deltas.last()) else {
        return Ok(None);
    };
    if u32::from_le_bytes(*first) != 0 {
        return Err(ColumnFault::Start);
    }
    let grows = deltas
        .iter()
        .zip(&deltas[1..])
        .fold(true, |grows, (before, after)| grows & (u32::from_le_bytes(*before) < u32::from_le_bytes(*after)));
    if grows { Ok(Some(u32::from_le_bytes(*last))) } else { Err(ColumnFault::Decreases) }
}

/// A record must not have more headers than allowed.
pub(super) fn record_headers(counts: Words<'_>) -> Result<(), BatchError> {
    for record in 0..counts.len().saturating_sub(1) {
        let count = difference(counts, record);
        if count > limits::RECORD_HEADERS_MAX {
            return Err(BatchError::RecordHeaders { record: record as u32, count });
        }
    }
    Ok(())
}

/// Element `index + 1` minus element `index` of verified running totals.
pub(super) fn difference(totals: Words<'_>, index: usize) -> u32 {
    u32::from_le_bytes(totals[index + 1]).wrapping_sub(u32::from_le_bytes(totals[index]))
}
