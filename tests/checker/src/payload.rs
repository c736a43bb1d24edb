//! Records that carry their own identity: any byte that changes on the way shows.
//!
//! Value: producer u32, partition u32, sequence u64, bytes u32 (all little-endian), keyed u8 (0 or 1), filler that follows
//! from the identity, and a CRC-32C of all before it. Key: `producer-sequence` in decimal, or none.

use std::fmt;

/// Bytes of a value without any filler.
pub const VALUE_BYTES_MIN: usize = HEADER_BYTES + CRC_BYTES;
const HEADER_BYTES: usize = 21;
const KEYED_AT: usize = 20;
const CRC_BYTES: usize = 4;

/// Who sent a record, where to, and as the how-manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The producer; a restarted one is another.
    pub producer: u32,
    /// The partition it was sent to.
    pub partition: u32,
    /// Counts this producer's records of this partition in the order of sending.
    pub sequence: u64,
}

/// What is wrong with a record's bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// There is no value, though every record has one.
    NoValue,
    /// Too short, or another length than the value itself says.
    Length(usize),
    /// The checksum does not match.
    Checksum,
    /// The value is whole but the key is another record's, or is missing, or should be.
    Key,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of producer {} on partition {}", self.sequence, self.producer, self.partition)
    }
}

/// The key of a record.
pub fn key(record: RecordId) -> Vec<u8> {
    format!("{}-{}", record.producer, record.sequence).into_bytes()
}

/// The value of a record that is sent with its [`key`], `bytes` long (but at least [`VALUE_BYTES_MIN`]).
pub fn value(record: RecordId, bytes: usize) -> Vec<u8> {
    encode(record, bytes, true)
}

/// The same for a record that is sent without a key.
pub fn keyless_value(record: RecordId, bytes: usize) -> Vec<u8> {
    encode(record, bytes, false)
}

fn encode(record: RecordId, bytes: usize, keyed: bool) -> Vec<u8> {
    let bytes = bytes.max(VALUE_BYTES_MIN);
    let mut value = Vec::with_capacity(bytes);
    value.extend_from_slice(&record.producer.to_le_bytes());
    value.extend_from_slice(&record.partition.to_le_bytes());
    value.extend_from_slice(&record.sequence.to_le_bytes());
    value.extend_from_slice(&u32::try_from(bytes).expect("a record is smaller than 4 GiB").to_le_bytes());
    value.push(u8::from(keyed));
    let mut state = record.sequence ^ u64::from(record.producer) << 32 ^ 0x9E37_79B9_7F4A_7C15;
    while value.len() < bytes - CRC_BYTES {
        // SplitMix64: cheap, and no two records share a stretch.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let left = bytes - CRC_BYTES - value.len();
        value.extend_from_slice(&mixed.to_le_bytes()[..left.min(8)]);
    }
    let crc = crc32c::crc32c(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

/// The identity of a record that was read, or what is wrong with it.
pub fn decode(record_key: Option<&[u8]>, record_value: Option<&[u8]>) -> Result<RecordId, Damage> {
    let bytes = record_value.ok_or(Damage::NoValue)?;
    if bytes.len() < VALUE_BYTES_MIN || u32_at(bytes, 16) as usize != bytes.len() {
        return Err(Damage::Length(bytes.len()));
    }
    let body = bytes.len() - CRC_BYTES;
    if crc32c::crc32c(&bytes[..body]) != u32_at(bytes, body) {
        return Err(Damage::Checksum);
    }
    let sequence = u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32;
    let record = RecordId { producer: u32_at(bytes, 0), partition: u32_at(bytes, 4), sequence };
    // A key is not under the value's checksum, so it is compared instead.
    let expected = (bytes[KEYED_AT] != 0).then(|| key(record));
    if record_key == expected.as_deref() { Ok(record) } else { Err(Damage::Key) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
