//! Where the columns of a batch body stand (`docs/DATA_FILE.md` section 1), and how they are written.
//!
//! ```text
//! 0        key_offsets | keys | value_offsets | … | offset_deltas     each aligned to its element, gaps zero
//! end-104  root: 13 × (i32 position relative to this field, u32 elements), in the same order
//! end
//! ```
//!
//! [`Columns`] is the struct whose rkyv archive this is. [`Columns::encode`] writes the archive by hand, as an encoder
//! in another language does: joins and a root, of a size known beforehand, into memory the caller may bring. It gives
//! exactly the bytes of rkyv's serializer, and the tests hold it to that.

use std::fmt;
use std::mem::{align_of, offset_of, size_of};

use rkyv::{Archive, Serialize};

/// Bytes of the root, which ends every body.
pub const ROOT_BYTES: usize = 104;

/// The columns of a batch, owned. [`Columns::encode`] takes them as they are: what they mean is the builder's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize)]
pub struct Columns {
    /// Key i is `keys[key_offsets[i]..key_offsets[i + 1]]`; empty when no record has a key.
    pub key_offsets: Vec<i32>,
    /// Keys, one after the other.
    pub keys: Vec<u8>,
    /// As for keys; never empty.
    pub value_offsets: Vec<i32>,
    /// Values, one after the other.
    pub values: Vec<u8>,
    /// Bit i (least significant first) is 1 when key i is present; empty when all are.
    pub key_validity: Vec<u8>,
    /// The same for values; an absent value is a tombstone.
    pub value_validity: Vec<u8>,
    /// Record timestamp minus the header's base timestamp, in milliseconds; empty when all are 0.
    pub timestamp_deltas: Vec<i64>,
    /// Record i has the headers `header_counts[i]..header_counts[i + 1]`; empty when there is no header.
    pub header_counts: Vec<i32>,
    /// Where header names are in `header_names`, as for keys.
    pub header_name_offsets: Vec<i32>,
    /// Header names, UTF-8, one after the other.
    pub header_names: Vec<u8>,
    /// Where header values are in `header_values`, as for keys.
    pub header_value_offsets: Vec<i32>,
    /// Header values, one after the other.
    pub header_values: Vec<u8>,
    /// Record offset minus the header's base offset; empty when they are 0, 1, 2, …
    pub offset_deltas: Vec<u32>,
}

/// A column, by its place in the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Column {
    /// [`Columns::key_offsets`].
    KeyOffsets,
    /// [`Columns::keys`].
    Keys,
    /// [`Columns::value_offsets`].
    ValueOffsets,
    /// [`Columns::values`].
    Values,
    /// [`Columns::key_validity`].
    KeyValidity,
    /// [`Columns::value_validity`].
    ValueValidity,
    /// [`Columns::timestamp_deltas`].
    TimestampDeltas,
    /// [`Columns::header_counts`].
    HeaderCounts,
    /// [`Columns::header_name_offsets`].
    HeaderNameOffsets,
    /// [`Columns::header_names`].
    HeaderNames,
    /// [`Columns::header_value_offsets`].
    HeaderValueOffsets,
    /// [`Columns::header_values`].
    HeaderValues,
    /// [`Columns::offset_deltas`].
    OffsetDeltas,
}

impl Column {
    /// Every column, in the order of the root and of the data.
    pub const ALL: [Self; ROOT_BYTES / 8] = [
        Self::KeyOffsets,
        Self::Keys,
        Self::ValueOffsets,
        Self::Values,
        Self::KeyValidity,
        Self::ValueValidity,
        Self::TimestampDeltas,
        Self::HeaderCounts,
        Self::HeaderNameOffsets,
        Self::HeaderNames,
        Self::HeaderValueOffsets,
        Self::HeaderValues,
        Self::OffsetDeltas,
    ];

    /// Bytes of one element, which is also what its data are aligned to.
    pub const fn element_bytes(self) -> usize {
        match self {
            Self::Keys | Self::Values | Self::HeaderNames | Self::HeaderValues => 1,
            Self::KeyValidity | Self::ValueValidity => 1,
            Self::TimestampDeltas => 8,
            Self::KeyOffsets | Self::ValueOffsets | Self::HeaderCounts => 4,
            Self::HeaderNameOffsets | Self::HeaderValueOffsets | Self::OffsetDeltas => 4,
        }
    }

    /// The column's name in the format's description.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyOffsets => "key_offsets",
            Self::Keys => "keys",
            Self::ValueOffsets => "value_offsets",
            Self::Values => "values",
            Self::KeyValidity => "key_validity",
            Self::ValueValidity => "value_validity",
            Self::TimestampDeltas => "timestamp_deltas",
            Self::HeaderCounts => "header_counts",
            Self::HeaderNameOffsets => "header_name_offsets",
            Self::HeaderNames => "header_names",
            Self::HeaderValueOffsets => "header_value_offsets",
            Self::HeaderValues => "header_values",
            Self::OffsetDeltas => "offset_deltas",
        }
    }

    /// Where in the root the column is described.
    pub const fn root_offset(self) -> usize {
        self as usize * 8
    }

    /// Where its data begin when the column before it ends at `end`.
    pub(super) const fn place_after(self, end: usize) -> usize {
        end.next_multiple_of(self.element_bytes())
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Elements of each column: all that the size of a body depends on.
pub(super) type ColumnLengths = [usize; Column::ALL.len()];

/// Bytes of a body whose columns have these lengths.
pub(super) fn body_bytes(lengths: &ColumnLengths) -> usize {
    let ends = |end, column: Column| column.place_after(end) + lengths[column as usize] * column.element_bytes();
    // The last column has elements of four bytes, so the root that follows it is aligned.
    Column::ALL.into_iter().fold(0, ends) + ROOT_BYTES
}

impl Columns {
    /// Exact size of [`Columns::encode`], at the cost of a few additions.
    pub fn body_bytes(&self) -> usize {
        body_bytes(&self.lengths())
    }

    /// Writes the batch body into `memory`, whose contents are dropped.
    pub fn encode_into(&self, memory: Vec<u8>) -> Vec<u8> {
        let mut body = BodyWriter::new(memory, self.body_bytes());
        body.put(Column::KeyOffsets, &self.key_offsets, i32::to_le_bytes);
        body.put_bytes(Column::Keys, &self.keys);
        body.put(Column::ValueOffsets, &self.value_offsets, i32::to_le_bytes);
        body.put_bytes(Column::Values, &self.values);
        body.put_bytes(Column::KeyValidity, &self.key_validity);
        body.put_bytes(Column::ValueValidity, &self.value_validity);
        body.put(Column::TimestampDeltas, &self.timestamp_deltas, i64::to_le_bytes);
        body.put(Column::HeaderCounts, &self.header_counts, i32::to_le_bytes);
        body.put(Column::HeaderNameOffsets, &self.header_name_offsets, i32::to_le_bytes);
        body.put_bytes(Column::HeaderNames, &self.header_names);
        body.put(Column::HeaderValueOffsets, &self.header_value_offsets, i32::to_le_bytes);
        body.put_bytes(Column::HeaderValues, &self.header_values);
        body.put(Column::OffsetDeltas, &self.offset_deltas, u32::to_le_bytes);
        body.finish()
    }

    /// Writes the batch body into fresh memory.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_into(Vec::new())
    }

    /// Empties every column and keeps its memory.
    pub fn clear(&mut self) {
        self.key_offsets.clear();
        self.keys.clear();
        self.value_offsets.clear();
        self.values.clear();
        self.key_validity.clear();
        self.value_validity.clear();
        self.timestamp_deltas.clear();
        self.header_counts.clear();
        self.header_name_offsets.clear();
        self.header_names.clear();
        self.header_value_offsets.clear();
        self.header_values.clear();
        self.offset_deltas.clear();
    }

    pub(super) fn lengths(&self) -> ColumnLengths {
        [
            self.key_offsets.len(),
            self.keys.len(),
            self.value_offsets.len(),
            self.values.len(),
            self.key_validity.len(),
            self.value_validity.len(),
            self.timestamp_deltas.len(),
            self.header_counts.len(),
            self.header_name_offsets.len(),
            self.header_names.len(),
            self.header_value_offsets.len(),
            self.header_values.len(),
            self.offset_deltas.len(),
        ]
    }
}

/// A body under construction: columns are appended in order, the root at the end.
struct BodyWriter {
    body: Vec<u8>,
    body_bytes: usize,
    root: [u8; ROOT_BYTES],
}

impl BodyWriter {
    fn new(mut memory: Vec<u8>, body_bytes: usize) -> Self {
        memory.clear();
        memory.reserve_exact(body_bytes);
        Self { body: memory, body_bytes, root: [0; ROOT_BYTES] }
    }

    /// Appends a column of numbers; the loop compiles to a copy on little-endian hosts.
    fn put<T: Copy, const N: usize>(&mut self, column: Column, elements: &[T], to_bytes: fn(T) -> [u8; N]) {
        let at = self.begin(column, elements.len());
        self.body.resize(at + elements.len() * N, 0);
        let (slots, _) = self.body[at..].as_chunks_mut::<N>();
        for (slot, element) in slots.iter_mut().zip(elements) {
            *slot = to_bytes(*element);
        }
    }

    fn put_bytes(&mut self, column: Column, bytes: &[u8]) {
        self.begin(column, bytes.len());
        self.body.extend_from_slice(bytes);
    }

    /// Pads to the column's place, describes it in the root, and returns the place.
    fn begin(&mut self, column: Column, elements: usize) -> usize {
        let at = column.place_after(self.body.len());
        self.body.resize(at, 0);
        let described_at = self.body_bytes - ROOT_BYTES + column.root_offset();
        let relative = at as i64 - described_at as i64;
        let relative = i32::try_from(relative).expect("columns must stay below 2 GiB, which limits see to");
        let elements = u32::try_from(elements).expect("columns must stay below 2 GiB, which limits see to");
        let described = &mut self.root[column.root_offset()..][..8];
        described[..4].copy_from_slice(&relative.to_le_bytes());
        described[4..].copy_from_slice(&elements.to_le_bytes());
        at
    }

    fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(&self.root);
        assert_eq!(self.body.len(), self.body_bytes, "the computed size of a body must be its size");
        self.body
    }
}

// The format names every position; these are the proof that rkyv agrees.
const _: () = assert!(size_of::<ArchivedColumns>() == ROOT_BYTES && align_of::<ArchivedColumns>() == 4);
const _: () = assert!(Column::ALL.len() * 8 == ROOT_BYTES && Column::OffsetDeltas as usize == Column::ALL.len() - 1);
const _: () = {
    assert!(offset_of!(ArchivedColumns, key_offsets) == Column::KeyOffsets.root_offset());
    assert!(offset_of!(ArchivedColumns, keys) == Column::Keys.root_offset());
    assert!(offset_of!(ArchivedColumns, value_offsets) == Column::ValueOffsets.root_offset());
    assert!(offset_of!(ArchivedColumns, values) == Column::Values.root_offset());
    assert!(offset_of!(ArchivedColumns, key_validity) == Column::KeyValidity.root_offset());
    assert!(offset_of!(ArchivedColumns, value_validity) == Column::ValueValidity.root_offset());
    assert!(offset_of!(ArchivedColumns, timestamp_deltas) == Column::TimestampDeltas.root_offset());
    assert!(offset_of!(ArchivedColumns, header_counts) == Column::HeaderCounts.root_offset());
    assert!(offset_of!(ArchivedColumns, header_name_offsets) == Column::HeaderNameOffsets.root_offset());
    assert!(offset_of!(ArchivedColumns, header_names) == Column::HeaderNames.root_offset());
    assert!(offset_of!(ArchivedColumns, header_value_offsets) == Column::HeaderValueOffsets.root_offset());
    assert!(offset_of!(ArchivedColumns, header_values) == Column::HeaderValues.root_offset());
    assert!(offset_of!(ArchivedColumns, offset_deltas) == Column::OffsetDeltas.root_offset());
};
