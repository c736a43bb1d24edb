//! What can be wrong with a batch, for the one who builds it and for the one who receives it.
//!
//! The names of received faults are a contract: the malformed vectors in `tests/vectors/batches.json` carry them, and
//! every language refuses the same bytes for the same reason.

use thiserror::Error;

use super::layout::{Column, ROOT_BYTES};
use crate::limits;

/// Why a record was not taken into a batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchBuildError {
    /// The record can never be sent.
    #[error("a record has {0} bytes of key, value and headers, the limit is {max}", max = limits::RECORD_BYTES_MAX)]
    RecordBytes(usize),
    /// The record can never be sent.
    #[error("a record has {0} headers, the limit is {max}", max = limits::RECORD_HEADERS_MAX)]
    RecordHeaders(usize),
    /// The record fits, but not in this batch: finish it and push the record again.
    #[error("the batch is full; finish it and push the record into the next one")]
    Full,
}

/// Why a body is not the batch its header announces.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The header announces something else than a columnar batch.
    #[error("the entry is not a columnar batch")]
    NotColumnar,
    /// The body (once decompressed) is not as long as its header says.
    #[error("the body has {found} bytes, its header announces {expected}")]
    BodyBytes {
        /// `uncompressed_bytes` of the header.
        expected: u32,
        /// Bytes at hand.
        found: usize,
    },
    /// Too short to end with a root.
    #[error("the body has {0} bytes, its root alone takes {ROOT_BYTES}")]
    Short(usize),
    /// A batch holds at least one record and at most [`limits::BATCH_RECORDS_MAX`].
    #[error("the header announces {0} records, a batch holds 1 to {max}", max = limits::BATCH_RECORDS_MAX)]
    RecordCount(u32),
    /// The root does not directly follow the columns.
    #[error("the root begins at {found}, the columns end at {expected}")]
    Root {
        /// Where the columns end.
        expected: usize,
        /// Where the root begins.
        found: usize,
    },
    /// A column breaks a rule of the format.
    #[error("column {column} {fault}")]
    Column {
        /// The column.
        column: Column,
        /// What is wrong with it.
        fault: ColumnFault,
    },
    /// The offset of the last record is not the announced one.
    #[error("the last record is at offset delta {found}, its header announces {expected}")]
    LastOffsetDelta {
        /// `last_offset_delta` of the header.
        expected: u32,
        /// As the records say.
        found: u32,
    },
    /// A record is larger than allowed.
    #[error("record {record} has {bytes} bytes in all, the limit is {max}", max = limits::RECORD_BYTES_MAX)]
    RecordBytes {
        /// Position of the record in the batch.
        record: u32,
        /// Its size.
        bytes: u32,
    },
    /// A record has more headers than allowed.
    #[error("record {record} has {count} headers, the limit is {max}", max = limits::RECORD_HEADERS_MAX)]
    RecordHeaders {
        /// Position of the record in the batch.
        record: u32,
        /// Its headers.
        count: u32,
    },
}

/// How a column breaks a rule of the format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ColumnFault {
    /// Part of it is not between the start of the body and the root.
    #[error("lies outside of the body")]
    Outside,
    /// It begins before its predecessor ends.
    #[error("overlaps the column before it")]
    Overlaps,
    /// It is not aligned, or a gap before it is wider than alignment asks for.
    #[error("begins at {found}, its place is {expected}")]
    Misplaced {
        /// The first aligned position after the preceding column.
        expected: usize,
        /// Where the root says it is.
        found: usize,
    },
    /// The gap before it hides something.
    #[error("has non-zero bytes in the gap before it")]
    Gap,
    /// It has the wrong number of elements.
    #[error("has {found} elements, not {expected}")]
    Length {
        /// What the records or headers ask for.
        expected: usize,
        /// What the root says.
        found: usize,
    },
    /// Its first element is not 0.
    #[error("does not start at 0")]
    Start,
    /// Its elements decrease, or do not grow where they must.
    #[error("decreases")]
    Decreases,
    /// Its last element is not the length of its data.
    #[error("ends at {found}, its data at {expected}")]
    End {
        /// Length of the data.
        expected: usize,
        /// The last element.
        found: usize,
    },
    /// A validity bit is set where there is no record.
    #[error("has a bit set beyond the last record")]
    BitBeyond,
    /// A key or value has bytes and is marked absent.
    #[error("marks record {0} absent, which has bytes")]
    AbsentWithBytes(u32),
    /// A header name is not text, or is cut inside of a character.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A timestamp leaves the range of 64 bits.
    #[error("overflows a timestamp")]
    TimestampOverflow,
}

impl BatchError {
    /// The fault's name, the same in every language and in the golden vectors.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotColumnar => "not_columnar",
            Self::BodyBytes { .. } => "body_bytes",
            Self::Short(_) => "short",
            Self::RecordCount(_) => "record_count",
            Self::Root { .. } => "root_misplaced",
            Self::Column { fault, .. } => fault.name(),
            Self::LastOffsetDelta { .. } => "last_offset_delta",
            Self::RecordBytes { .. } => "record_bytes",
            Self::RecordHeaders { .. } => "record_headers",
        }
    }

    /// The column at fault, if one is.
    pub const fn column(&self) -> Option<Column> {
        match self {
            Self::Column { column, .. } => Some(*column),
            _ => None,
        }
    }
}

impl ColumnFault {
    const fn name(&self) -> &'static str {
        match self {
            Self::Outside => "column_outside",
            Self::Overlaps => "column_overlaps",
            Self::Misplaced { .. } => "column_misplaced",
            Self::Gap => "gap_not_zero",
            Self::Length { .. } => "column_length",
            Self::Start => "offsets_start",
            Self::Decreases => "offsets_decrease",
            Self::End { .. } => "offsets_end",
            Self::BitBeyond => "validity_beyond",
            Self::AbsentWithBytes(_) => "absent_with_bytes",
            Self::NotUtf8 => "header_name_utf8",
            Self::TimestampOverflow => "timestamp_overflow",
        }
    }
}
