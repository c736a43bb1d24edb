//! One partition's log in memory, with the producers it remembers.

use std::collections::HashMap;

use bytes::Bytes;
use minikafka_client::core::batch::BatchView;
use minikafka_client::core::checksum::crc32c;
use minikafka_client::core::entry::{Codec, EntryHeader};
use minikafka_client::core::{
    Epoch, ErrorCode, LogIndex, Offset, ProducerId, RangeKey, RunningHash, Sequence, Timestamp,
};

/// See the module's description.
#[derive(Default)]
pub struct PartitionLog {
    pub entries: Vec<StoredEntry>,
    /// First offset that is there.
    pub start: u64,
    /// Offset after the last record.
    pub end: u64,
    /// Where older offsets are.
    pub previous: Option<RangeKey>,
    producers: HashMap<ProducerId, Remembered>,
}

pub struct StoredEntry {
    pub header: EntryHeader,
    pub body: Bytes,
}

#[derive(Default)]
struct Remembered {
    next: Sequence,
    stored: Vec<(Sequence, Offset, Timestamp)>,
}

impl PartitionLog {
    /// The log of a partition whose offsets below `start` are elsewhere.
    pub fn moved_from(previous: RangeKey, start: u64) -> Self {
        Self { start, end: start, previous: Some(previous), ..Self::default() }
    }

    /// Stores a batch, unless it is stored already.
    pub fn produce(
        &mut self,
        mut header: EntryHeader,
        body: Bytes,
        epoch: Epoch,
    ) -> Result<(Offset, Timestamp), ErrorCode> {
        if crc32c(&body) != header.body_crc {
            return Err(ErrorCode::CorruptBatch);
        }
        if header.codec == Codec::None && BatchView::parse(&body, &header).is_err() {
            return Err(ErrorCode::InvalidBatch);
        }
        if header.producer_id.is_idempotent()
            && let Some(known) = self.deduplicate(&header)?
        {
            return Ok(known);
        }
        let now = Timestamp(1_000_000 + self.entries.len() as i64);
        header.epoch = epoch;
        header.index = LogIndex(self.entries.len() as u64 + 1);
        header.base_offset = Offset(self.end);
        header.append_timestamp = now;
        let previous = self.entries.last().map_or(RunningHash(0), |last| last.header.running_hash);
        header.seal(previous);
        self.end = header.next_offset().0;
        self.entries.push(StoredEntry { header, body });
        if let Some(known) = self.producers.get_mut(&header.producer_id) {
            known.next = header.base_sequence.advance(header.record_count);
            known.stored.push((header.base_sequence, header.base_offset, now));
            let forgotten = known.stored.len().saturating_sub(8);
            known.stored.drain(..forgotten);
        }
        Ok((header.base_offset, now))
    }

    fn deduplicate(&mut self, header: &EntryHeader) -> Result<Option<(Offset, Timestamp)>, ErrorCode> {
        let sequence = header.base_sequence;
        let known = match sequence {
            Sequence(0) => self.producers.entry(header.producer_id).or_default(),
            _ => self.producers.get_mut(&header.producer_id).ok_or(ErrorCode::UnknownProducer)?,
        };
        if let Some((_, offset, time)) = known.stored.iter().find(|(stored, ..)| *stored == sequence) {
            return Ok(Some((*offset, *time)));
        }
        match sequence.cmp(&known.next) {
            std::cmp::Ordering::Less => Err(ErrorCode::DuplicateSequence),
            std::cmp::Ordering::Equal => Ok(None),
            std::cmp::Ordering::Greater => Err(ErrorCode::OutOfOrder),
        }
    }

    /// Forgets every producer.
    pub fn forget_producers(&mut self) {
        self.producers.clear();
    }

    /// The entries from the one that holds `offset` on, as they are sent: at least one, if there is one.
    pub fn read(&self, offset: u64, bytes_max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.header.next_offset().0 > offset) {
            if !out.is_empty() && out.len() + entry.header.entry_bytes() > bytes_max {
                break;
            }
            out.extend_from_slice(&entry.header.encode());
            out.extend_from_slice(&entry.body);
            out.resize(out.len().next_multiple_of(16), 0);
        }
        out
    }

    /// The values of all records.
    pub fn values(&self) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        for entry in &self.entries {
            let body = decompressed(entry);
            let view = BatchView::parse(&body, &entry.header).expect("stored batches are valid");
            values.extend(view.iter().map(|record| record.value.unwrap_or_default().to_vec()));
        }
        values
    }
}

fn decompressed(entry: &StoredEntry) -> Vec<u8> {
    let bytes = entry.header.uncompressed_bytes as usize;
    match entry.header.codec {
        Codec::None => entry.body.to_vec(),
        Codec::Lz4 => lz4_flex::block::decompress(&entry.body, bytes).expect("a good block"),
        Codec::Zstd => zstd::bulk::decompress(&entry.body, bytes).expect("a good frame"),
    }
}
