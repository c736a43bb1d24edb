//! What clients ask of shards: produce, fetch, list offsets, delete records.

use super::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use crate::error_code::ErrorCode;
use crate::ids::*;

/// Bytes of a produce request's head: fixed, so that a receiver knows where the body begins before it has it.
pub const PRODUCE_HEAD_BYTES: usize = 16 + ENTRY_HEADER_BYTES;

/// Appends one batch. The bulk is the batch body, exactly `header.body_bytes` long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The epoch of the range that the client believes in.
    pub epoch: Epoch,
    /// When not committed by then the answer is `timed_out`, outcome unknown. 0: the server's longest.
    pub timeout_ms: u32,
    /// The entry header as a producer sends it (`docs/DATA_FILE.md`, section 2).
    pub header: EntryHeader,
}

impl Wire for ProduceRequest {
    fn put(&self, out: &mut Vec<u8>) {
        self.epoch.put(out);
        self.timeout_ms.put(out);
        0u32.put(out);
        out.extend_from_slice(&self.header.encode_unsealed());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let epoch = reader.take()?;
        let timeout_ms = reader.take()?;
        if reader.take::<u32>()? != 0 {
            return Err(DecodeError::Field { field: "produce flags" });
        }
        let header = EntryHeader::decode_unsealed(reader.bytes(ENTRY_HEADER_BYTES)?)
            .map_err(|_| DecodeError::Field { field: "entry header" })?;
        Ok(Self { epoch, timeout_ms, header })
    }
}

wire_struct! {
    /// The batch is committed.
    ProduceReply {
        /// Offset of its first record.
        base_offset: Offset,
        /// The head's clock when it accepted the batch.
        append_timestamp: Timestamp,
    }
}

wire_struct! {
    /// One partition of a fetch.
    FetchPartition {
        /// Its range.
        range: RangeKey,
        /// The epoch of the range that the client believes in.
        epoch: Epoch,
        /// Topic and partition.
        partition: PartitionKey,
        /// First offset wanted.
        offset: Offset,
        /// Entry bytes wanted at most; one entry is always sent.
        bytes_max: u32,
    }
}

wire_struct! {
    /// Reads batches of several partitions of one shard.
    FetchRequest {
        /// Answer after this long with whatever is there.
        wait_ms_max: u32,
        /// Answer as soon as this many entry bytes are there; 0: at once.
        bytes_min: u32,
        /// Entry bytes of the whole answer at most; one entry is always sent.
        bytes_max: u32,
        /// What is wanted, in order of preference.
        partitions: Vec<FetchPartition>,
    }
}

wire_struct! {
    /// One partition of a fetch reply; its entries stand in the bulk, in the order of the partitions.
    FetchedPartition {
        /// Topic and partition.
        partition: PartitionKey,
        /// What went wrong with this partition; the others are not concerned.
        error: Option<ErrorCode>,
        /// Epoch of the range at the server; for `not_owner` and `stale`, the one to refresh to.
        epoch: Epoch,
        /// First offset that can be fetched.
        log_start: Offset,
        /// Offset after the last committed record.
        committed_end: Offset,
        /// For `moved`: where the older offsets are.
        previous: Option<RangeKey>,
        /// For `data_damaged`: the first offset behind the damage that can be read; none: nothing behind it can.
        resume: Option<Offset>,
        /// Bytes of this partition's entries in the bulk: whole entries (header, body, padding to 16), contiguous, the
        /// first one holding the offset wanted.
        entries_bytes: u32,
    }
}

wire_struct! {
    /// Answer to a fetch.
    FetchReply {
        /// In the order of the request.
        partitions: Vec<FetchedPartition>,
    }
}

/// Which offset is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The first that can be fetched.
    Earliest,
    /// The one after the last committed.
    Latest,
    /// The first of the first batch appended at or after a time; latest, if there is none.
    AppendedAtOrAfter(Timestamp),
}

impl Wire for OffsetQuery {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, timestamp) = match self {
            Self::Earliest => (0u8, Timestamp(0)),
            Self::Latest => (1, Timestamp(0)),
            Self::AppendedAtOrAfter(timestamp) => (2, *timestamp),
        };
        kind.put(out);
        timestamp.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind: u8 = reader.take()?;
        let timestamp = reader.take()?;
        match kind {
            0 => Ok(Self::Earliest),
            1 => Ok(Self::Latest),
            2 => Ok(Self::AppendedAtOrAfter(timestamp)),
            _ => Err(DecodeError::Field { field: "offset query" }),
        }
    }
}

wire_struct! {
    /// One partition of a list-offsets request.
    ListOffsetsPartition {
        /// Its range.
        range: RangeKey,
        /// The epoch of the range that the client believes in.
        epoch: Epoch,
        /// Topic and partition.
        partition: PartitionKey,
        /// Which offset.
        query: OffsetQuery,
    }
}

wire_struct! {
    /// Looks offsets up.
    ListOffsetsRequest {
        /// What is wanted.
        partitions: Vec<ListOffsetsPartition>,
    }
}

wire_struct! {
    /// One partition of a list-offsets reply.
    ListedOffset {
        /// Topic and partition.
        partition: PartitionKey,
        /// What went wrong with this partition.
        error: Option<ErrorCode>,
        /// Epoch of the range at the server.
        epoch: Epoch,
        /// The offset found.
        offset: Offset,
    }
}

wire_struct! {
    /// Answer to list-offsets.
    ListOffsetsReply {
        /// In the order of the request.
        partitions: Vec<ListedOffset>,
    }
}

wire_struct! {
    /// One partition of a delete-records request.
    DeleteRecordsPartition {
        /// Its range.
        range: RangeKey,
        /// The epoch of the range that the client believes in.
        epoch: Epoch,
        /// Topic and partition.
        partition: PartitionKey,
        /// Records below this are to go; beyond the committed end it means that end.
        before: Offset,
    }
}

wire_struct! {
    /// Deletes the oldest records of partitions.
    DeleteRecordsRequest {
        /// Which.
        partitions: Vec<DeleteRecordsPartition>,
    }
}

wire_struct! {
    /// One partition of a delete-records reply.
    DeletedRecords {
        /// Topic and partition.
        partition: PartitionKey,
        /// What went wrong with this partition.
        error: Option<ErrorCode>,
        /// Epoch of the range at the server; for `not_owner` and `stale`, the one to refresh to.
        epoch: Epoch,
        /// First offset that is left: at least what was asked for, as far as it is committed.
        log_start: Offset,
    }
}

wire_struct! {
    /// Answer to delete-records; every log start in it is committed.
    DeleteRecordsReply {
        /// In the order of the request.
        partitions: Vec<DeletedRecords>,
    }
}
