//! The entry header: 128 bytes in front of every body, the same on wire and disk (`docs/DATA_FILE.md`, "Entry").

use thiserror::Error;

use crate::chain::planted::{PlantedBug, is_planted};
use crate::checksum;
use crate::ids::*;
use crate::limits;

/// Bytes of an entry header.
pub const ENTRY_HEADER_BYTES: usize = 128;
/// First four bytes of every entry header: "MKe1".
pub const ENTRY_MAGIC: u32 = u32::from_le_bytes(*b"MKe1");
/// Version written today.
pub const ENTRY_VERSION: u8 = 1;
/// Entries start at multiples of this, so that an archive can be read in place.
pub const ENTRY_ALIGNMENT: usize = 16;
/// How many header bytes, after the previous hash, enter the running hash.
pub const ENTRY_HASHED_BYTES: usize = 112;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Records of one partition.
    Batch = 1,
    /// A [`crate::control::ControlEntry`].
    Control = 2,
}

/// How a body is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyFormat {
    /// A control entry.
    Control = 0,
    /// The columnar archive of `core::batch`.
    Columnar = 1,
}

/// How a body is compressed. Brokers never decompress on produce, replicate or fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    #[default]
    None = 0,
    /// One LZ4 block (no frame); its size is `uncompressed_bytes`.
    Lz4 = 1,
    /// One Zstandard frame.
    Zstd = 2,
}

impl Codec {
    /// The codec of a number from the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// An entry header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the entry is.
    pub kind: EntryKind,
    /// How the body is laid out.
    pub body_format: BodyFormat,
    /// How the body is compressed.
    pub codec: Codec,
    /// Bytes of the body as stored.
    pub body_bytes: u32,
    /// Bytes of the body once decompressed; equal to `body_bytes` without compression.
    pub uncompressed_bytes: u32,
    /// The range this entry belongs to.
    pub range: RangeKey,
    /// Reserved bits; 0 today.
    pub attributes: u16,
    /// Epoch in which the head accepted the entry.
    pub epoch: Epoch,
    /// Position in the range log.
    pub index: LogIndex,
    /// Topic; 0 for a control entry that concerns none.
    pub topic: TopicId,
    /// Partition.
    pub partition: Partition,
    /// Records in the batch; 0 for control entries.
    pub record_count: u32,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: u32,
    /// Sequence of the first record.
    pub base_sequence: Sequence,
    /// Producer's timestamp of the first record.
    pub base_timestamp: Timestamp,
    /// Largest producer's timestamp.
    pub max_timestamp: Timestamp,
    /// Head's clock when it accepted the entry; never decreases within a range.
    pub append_timestamp: Timestamp,
    /// Producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// CRC-32C of the body as stored, computed by the producer.
    pub body_crc: u32,
    /// Hash of the log up to and including this entry.
    pub running_hash: RunningHash,
}

/// Why 128 bytes are not an entry header.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Fewer than 128 bytes.
    #[error("an entry header is 128 bytes, only {0} are there")]
    Short(usize),
    /// Not an entry at all.
    #[error("entry magic is {0:#010x}, expected {ENTRY_MAGIC:#010x}")]
    Magic(u32),
    /// Written by a newer release.
    #[error("entry version {0} is not known to this release (knows {ENTRY_VERSION})")]
    Version(u8),
    /// The header's own checksum does not match.
    #[error("entry header checksum is {found:#010x}, computed {computed:#010x}")]
    HeaderCrc {
        /// As stored.
        found: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// A field is outside its range.
    #[error("entry field {field} is {value}, which is outside its range")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What was found.
        value: u64,
    },
}

/// Bytes from the start of an entry to the start of the next: header, body and zero padding to 16.
pub const fn entry_bytes(body_bytes: u32) -> usize {
    ENTRY_HEADER_BYTES + (body_bytes as usize).next_multiple_of(ENTRY_ALIGNMENT)
}

impl EntryHeader {
    /// Bytes this entry takes in a flush or a fetch reply, padding included.
    pub const fn entry_bytes(&self) -> usize {
        entry_bytes(self.body_bytes)
    }

    /// The partition this entry belongs to.
    pub const fn partition_key(&self) -> PartitionKey {
        PartitionKey { topic: self.topic, partition: self.partition }
    }

    /// Offset after the last record.
    pub const fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0 + self.last_offset_delta as u64 + 1)
    }

    /// Encodes the fields as a producer sends them: no checksum of the header (the frame has one).
    pub fn encode_unsealed(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &ENTRY_MAGIC.to_le_bytes());
        put(4, &[ENTRY_VERSION, self.kind as u8, self.body_format as u8, self.codec as u8]);
        put(8, &self.body_bytes.to_le_bytes());
        put(12, &self.uncompressed_bytes.to_le_bytes());
        put(16, &self.range.ring.0.to_le_bytes());
        put(18, &self.attributes.to_le_bytes());
        put(20, &self.range.range.0.to_le_bytes());
        put(24, &self.epoch.0.to_le_bytes());
        put(32, &self.index.0.to_le_bytes());
        put(40, &self.topic.0.to_le_bytes());
        put(48, &self.partition.0.to_le_bytes());
        put(52, &self.record_count.to_le_bytes());
        put(56, &self.base_offset.0.to_le_bytes());
        put(64, &self.last_offset_delta.to_le_bytes());
        put(68, &self.base_sequence.0.to_le_bytes());
        put(72, &self.base_timestamp.0.to_le_bytes());
        put(80, &self.max_timestamp.0.to_le_bytes());
        put(88, &self.append_timestamp.0.to_le_bytes());
        put(96, &self.producer_id.0.to_le_bytes());
        put(104, &self.producer_epoch.0.to_le_bytes());
        put(108, &self.body_crc.to_le_bytes());
        put(112, &self.running_hash.0.to_le_bytes());
        bytes
    }

    /// Encodes the header as logs hold it, with its checksum.
    pub fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = self.encode_unsealed();
        let crc = checksum::crc32c(&bytes);
        bytes[120..124].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Computes and sets the running hash of this entry behind `previous`, and returns it.
    pub fn seal(&mut self, previous: RunningHash) -> RunningHash {
        self.running_hash = self.hash_after(previous);
        self.running_hash
    }

    /// The running hash this entry must carry when it follows `previous`.
    pub fn hash_after(&self, previous: RunningHash) -> RunningHash {
        if is_planted(PlantedBug::HashWithoutEpoch) && (self.epoch != Epoch(0) || previous != RunningHash(0)) {
            return Self { epoch: Epoch(0), append_timestamp: Timestamp(0), ..*self }.hash_after(RunningHash(0));
        }
        let bytes = self.encode_unsealed();
        let prefix = bytes.first_chunk::<ENTRY_HASHED_BYTES>().expect("a header is longer than its hashed part");
        checksum::running_hash(previous, prefix)
    }

    /// Decodes a header from a log and verifies its checksum and fields.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let header = Self::decode_unsealed(bytes)?;
        let found = u32_at(bytes, 120);
        let mut zeroed = [0; ENTRY_HEADER_BYTES];
        zeroed.copy_from_slice(&bytes[..ENTRY_HEADER_BYTES]);
        zeroed[120..124].fill(0);
        let computed = checksum::crc32c(&zeroed);
        if found != computed {
            return Err(EntryError::HeaderCrc { found, computed });
        }
        Ok(header)
    }

    /// Decodes a header as a producer sends it: every field but the checksum is verified.
    pub fn decode_unsealed(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() < ENTRY_HEADER_BYTES {
            return Err(EntryError::Short(bytes.len()));
        }
        let magic = u32_at(bytes, 0);
        if magic != ENTRY_MAGIC {
            return Err(EntryError::Magic(magic));
        }
        if bytes[4] != ENTRY_VERSION {
            return Err(EntryError::Version(bytes[4]));
        }
        let field = |field, value| EntryError::Field { field, value };
        let kind = match bytes[5] {
            1 => EntryKind::Batch,
            2 => EntryKind::Control,
            other => return Err(field("kind", other.into())),
        };
        let body_format = match bytes[6] {
            0 => BodyFormat::Control,
            1 => BodyFormat::Columnar,
            other => return Err(field("body_format", other.into())),
        };
        let codec = Codec::from_number(bytes[7]).ok_or_else(|| field("codec", bytes[7].into()))?;
        let header = Self {
            kind,
            body_format,
            codec,
            body_bytes: u32_at(bytes, 8),
            uncompressed_bytes: u32_at(bytes, 12),
            range: RangeKey { ring: RingId(u16_at(bytes, 16)), range: RangeId(u32_at(bytes, 20)) },
            attributes: u16_at(bytes, 18),
            epoch: Epoch(u64_at(bytes, 24)),
            index: LogIndex(u64_at(bytes, 32)),
            topic: TopicId(u64_at(bytes, 40)),
            partition: Partition(u32_at(bytes, 48)),
            record_count: u32_at(bytes, 52),
            base_offset: Offset(u64_at(bytes, 56)),
            last_offset_delta: u32_at(bytes, 64),
            base_sequence: Sequence(u32_at(bytes, 68) as i32),
            base_timestamp: Timestamp(u64_at(bytes, 72) as i64),
            max_timestamp: Timestamp(u64_at(bytes, 80) as i64),
            append_timestamp: Timestamp(u64_at(bytes, 88) as i64),
            producer_id: ProducerId(u64_at(bytes, 96) as i64),
            producer_epoch: ProducerEpoch(u16_at(bytes, 104) as i16),
            body_crc: u32_at(bytes, 108),
            running_hash: RunningHash(u64_at(bytes, 112)),
        };
        let reserved = u64::from(u16_at(bytes, 106)) | u64::from(u32_at(bytes, 124)) << 16;
        if reserved != 0 {
            return Err(field("reserved", reserved));
        }
        header.check_fields().map(|()| header)
    }

    fn check_fields(&self) -> Result<(), EntryError> {
        let check = |ok: bool, field, value: u64| if ok { Ok(()) } else { Err(EntryError::Field { field, value }) };
        let is_control = self.kind == EntryKind::Control;
        check(is_control == (self.body_format == BodyFormat::Control), "body_format", self.body_format as u64)?;
        check(self.attributes == 0, "attributes", self.attributes.into())?;
        check(self.body_bytes <= limits::BATCH_BODY_BYTES_MAX, "body_bytes", self.body_bytes.into())?;
        check(
            self.uncompressed_bytes <= limits::BATCH_UNCOMPRESSED_BYTES_MAX
                && (self.codec != Codec::None || self.uncompressed_bytes == self.body_bytes),
            "uncompressed_bytes",
            self.uncompressed_bytes.into(),
        )?;
        check(self.record_count <= limits::BATCH_RECORDS_MAX, "record_count", self.record_count.into())?;
        check(is_control == (self.record_count == 0), "record_count", self.record_count.into())?;
        check(
            is_control || self.last_offset_delta >= self.record_count - 1,
            "last_offset_delta",
            self.last_offset_delta.into(),
        )?;
        check(self.index.0 <= limits::LOG_INDEX_MAX, "index", self.index.0)?;
        check(self.base_offset.0 <= i64::MAX as u64, "base_offset", self.base_offset.0)?;
        check(
            !self.producer_id.is_idempotent() || self.base_sequence.0 >= 0,
            "base_sequence",
            self.base_sequence.0 as u32 as u64,
        )
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
