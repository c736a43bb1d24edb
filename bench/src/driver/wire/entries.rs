//! Fetched entries, checked as they stream by: no reply is ever whole in memory.

use minikafka_core::checksum;
use minikafka_core::entry::{ENTRY_HEADER_BYTES, EntryHeader};

use crate::error::{BenchError, Result};

/// Where in an entry the stream is.
#[derive(Debug)]
pub(super) struct EntryStream {
    /// Whether bodies are checked against their checksum; headers always are.
    verifies: bool,
    header: [u8; ENTRY_HEADER_BYTES],
    header_bytes: usize,
    current: Option<EntryHeader>,
    body_left: usize,
    padding_left: usize,
    crc: u32,
}

impl EntryStream {
    pub fn new(verifies: bool) -> Self {
        let header = [0; ENTRY_HEADER_BYTES];
        Self { verifies, header, header_bytes: 0, current: None, body_left: 0, padding_left: 0, crc: 0 }
    }

    /// Whether the last entry is complete.
    pub fn is_between_entries(&self) -> bool {
        self.current.is_none() && self.header_bytes == 0
    }

    /// Takes more bytes; tells of every entry that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut complete: impl FnMut(&EntryHeader) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            if self.current.is_none() {
                let taken = bytes.len().min(ENTRY_HEADER_BYTES - self.header_bytes);
                self.header[self.header_bytes..self.header_bytes + taken].copy_from_slice(&bytes[..taken]);
                self.header_bytes += taken;
                bytes = &bytes[taken..];
                if self.header_bytes < ENTRY_HEADER_BYTES {
                    return Ok(());
                }
                self.begin()?;
            }
            let taken = bytes.len().min(self.body_left);
            let (body, rest) = bytes.split_at(taken);
            if self.verifies {
                self.crc = checksum::crc32c_append(self.crc, body);
            }
            self.body_left -= taken;
            let padding = rest.len().min(self.padding_left);
            bytes = &rest[padding..];
            self.padding_left -= padding;
            if self.body_left == 0 && self.padding_left == 0 {
                self.end(&mut complete)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let header = EntryHeader::decode(&self.header)
            .map_err(|error| BenchError::failed(format!("a fetched entry is damaged: {error}")))?;
        self.body_left = header.body_bytes as usize;
        self.padding_left = header.entry_bytes() - ENTRY_HEADER_BYTES - self.body_left;
        self.crc = checksum::crc32c(&[]);
        self.current = Some(header);
        Ok(())
    }

    fn end(&mut self, complete: &mut impl FnMut(&EntryHeader) -> Result<()>) -> Result<()> {
        let Some(header) = self.current.take() else { return Ok(()) };
        self.header_bytes = 0;
        if self.verifies && self.crc != header.body_crc {
            return Err(BenchError::failed(format!(
                "the body at offset {} of partition {} does not match its checksum",
                header.base_offset, header.partition
            )));
        }
        complete(&header)
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::batch::{BatchBuilder, RecordRef};
    use minikafka_core::{
        Partition, PartitionKey, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, Sequence, Timestamp, TopicId,
    };

    use super::*;

    fn entries(count: u64) -> Vec<u8> {
        let (range, key) = (
            RangeKey { ring: RingId(1), range: RangeId(0) },
            PartitionKey { topic: TopicId(1), partition: Partition(0) },
        );
        let mut bytes = Vec::new();
        for entry in 0..count {
            let mut builder = BatchBuilder::with_capacity(1000);
            let value = vec![entry as u8; 100 + entry as usize];
            builder.push(RecordRef { value: Some(&value), ..RecordRef::at(Timestamp(1)) }).unwrap();
            let batch = builder.finish();
            let header = batch.header(range, key, (ProducerId::NONE, ProducerEpoch(0), Sequence(0)));
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&batch.body);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        bytes
    }

    #[test]
    fn entries_are_counted_and_damage_is_found_whatever_the_pieces() {
        let good = entries(9);
        for piece in [1, 100, 127, 4096] {
            let feed = |bytes: &[u8], verifies: bool| {
                let (mut stream, mut count) = (EntryStream::new(verifies), 0);
                for piece in bytes.chunks(piece) {
                    stream.feed(piece, |_| {
                        count += 1;
                        Ok(())
                    })?;
                }
                Ok::<_, BenchError>((count, stream.is_between_entries()))
            };
            assert_eq!(feed(&good, true).unwrap(), (9, true));
            assert_eq!(feed(&good[..good.len() - 1], true).unwrap(), (8, false));
            let mut bad = good.clone();
            bad[130] ^= 1;
            assert!(feed(&bad, true).is_err(), "a flipped bit of a body");
            assert_eq!(feed(&bad, false).unwrap(), (9, true), "not looked for when switched off");
            bad[60] ^= 1;
            assert!(feed(&bad, false).is_err(), "a flipped bit of a header is always found");
        }
    }
}
