//! What the application gets: batches that are decompressed and validated, and records cut out of them.

use std::sync::Arc;

use bytes::Bytes;
use minikafka_core::batch::{BatchView, RecordView};
use minikafka_core::entry::{Codec, EntryHeader};
use minikafka_core::{Offset, Partition, Timestamp};

use super::entries::FetchedEntry;
use crate::explain::Explain;

/// A record, with cheap handles on the fetched bytes: as long as one lives, its whole batch stays in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Producer's clock, ms since the Unix epoch.
    pub timestamp: Timestamp,
    /// The head's clock when it accepted the record; never decreases within a partition.
    pub append_timestamp: Timestamp,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value; none marks a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

/// Records of one partition, as one validated batch: at least one, offsets growing.
#[derive(Clone, Debug)]
pub struct FetchedRecords {
    header: EntryHeader,
    /// Uncompressed.
    body: Bytes,
    /// Index of the first record that was asked for; the ones before it were read earlier.
    first: usize,
    first_offset: Offset,
    explain: Option<Arc<Explain>>,
}

impl FetchedRecords {
    /// The records of a batch as it is stored: for tools that read data files. Its checksums are for whoever read it to
    /// verify; everything else is verified here, as for a batch that was fetched.
    pub fn of_stored(header: EntryHeader, body: impl Into<Bytes>) -> Result<Self, String> {
        let entry = FetchedEntry { header, body: body.into(), explain: None };
        Self::open(entry, header.base_offset)?.ok_or_else(|| "the batch has no records".to_owned())
    }

    /// Decompresses and validates. None: the batch has no record at `position` or behind it.
    pub(super) fn open(entry: FetchedEntry, position: Offset) -> Result<Option<Self>, String> {
        let FetchedEntry { mut header, body, explain } = entry;
        let body = decompressed(&header, body)?;
        // From here on the header speaks of the uncompressed body.
        (header.codec, header.body_bytes) = (Codec::None, header.uncompressed_bytes);
        let view = BatchView::parse(&body, &header).map_err(|error| error.to_string())?;
        let offset_at = |index| view.get(index).map_or(Offset(u64::MAX), |record| record.offset);
        // Without compaction the guess is right; with it, offsets grow faster than indexes.
        let mut first = position.0.saturating_sub(header.base_offset.0).min(view.len() as u64) as usize;
        while first > 0 && offset_at(first - 1) >= position {
            first -= 1;
        }
        let first_offset = offset_at(first);
        let has_any = first < view.len();
        Ok(has_any.then_some(Self { header, body, first, first_offset, explain }))
    }

    /// Their partition.
    pub fn partition(&self) -> Partition {
        self.header.partition
    }

    /// Offset of the first record.
    pub fn first_offset(&self) -> Offset {
        self.first_offset
    }

    /// The position after the last record.
    pub fn next_offset(&self) -> Offset {
        self.header.next_offset()
    }

    /// How many records.
    #[allow(clippy::len_without_is_empty, reason = "there is at least one record")]
    pub fn len(&self) -> usize {
        self.header.record_count as usize - self.first
    }

    /// The head's clock when it accepted the batch.
    pub fn append_timestamp(&self) -> Timestamp {
        self.header.append_timestamp
    }

    /// Where the time of the fetch went that brought this batch, and perhaps others. None: nobody asked
    /// ([`super::ConsumerOptions::explain`]), or the broker is of a release that cannot tell.
    pub fn explain(&self) -> Option<&Arc<Explain>> {
        self.explain.as_ref()
    }

    /// The batch's header, as if it had not been compressed. It may announce records before [`Self::first_offset`].
    pub fn header(&self) -> &EntryHeader {
        &self.header
    }

    /// The whole body, uncompressed: columns as `docs/DATA_FILE.md` section 1 draws them, for
    /// [`BatchView::parse`] with [`Self::header`], or for Apache Arrow.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The records, borrowed from the body, in order.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        let view = BatchView::parse(&self.body, &self.header).ok();
        debug_assert!(view.is_some(), "the same bytes were parsed when the batch was opened");
        view.into_iter().flat_map(|view| view.iter()).skip(self.first)
    }

    /// The records with handles of their own.
    pub fn to_records(&self) -> impl Iterator<Item = ConsumerRecord> {
        self.records().map(|record| {
            let own = |bytes: &[u8]| self.body.slice_ref(bytes);
            ConsumerRecord {
                partition: self.header.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                append_timestamp: self.header.append_timestamp,
                key: record.key.map(own),
                value: record.value.map(own),
                headers: record.headers.map(|(name, value)| (name.to_owned(), own(value))).collect(),
            }
        })
    }

    /// The same records from `offset` on; none when there are none.
    pub(crate) fn starting_at(self, offset: Offset) -> Option<Self> {
        let (skipped, first_offset) = {
            let mut wanted = self.records().enumerate().skip_while(|(_, record)| record.offset < offset);
            let (skipped, first) = wanted.next()?;
            (skipped, first.offset)
        };
        Some(Self { first: self.first + skipped, first_offset, ..self })
    }

    /// Back into the form in which batches wait.
    pub(super) fn into_entry(self) -> FetchedEntry {
        FetchedEntry { header: self.header, body: self.body, explain: self.explain }
    }
}

/// The body as its producer wrote it. `uncompressed_bytes` is bounded by the header's check, so a lying one cannot make
/// us take more than 32 MiB.
fn decompressed(header: &EntryHeader, body: Bytes) -> Result<Bytes, String> {
    let expected = header.uncompressed_bytes as usize;
    let plain = match header.codec {
        Codec::None => return Ok(body),
        Codec::Lz4 => {
            let mut plain = vec![0; expected];
            let written = lz4_flex::block::decompress_into(&body, &mut plain).map_err(|error| error.to_string())?;
            plain.truncate(written);
            plain
        }
        Codec::Zstd => zstd::bulk::decompress(&body, expected).map_err(|error| error.to_string())?,
    };
    if plain.len() != expected {
        return Err(format!("a body has {} bytes once decompressed, its header announces {expected}", plain.len()));
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::super::entries::tests::{PARTITION, entries};
    use super::super::entries::verified;
    use super::*;

    fn entry() -> FetchedEntry {
        verified(&entries(10, &[5]).into(), PARTITION, Offset(10)).0.remove(0)
    }

    fn offsets(records: &FetchedRecords) -> Vec<u64> {
        records.records().map(|record| record.offset.0).collect()
    }

    #[test]
    fn records_below_the_position_are_skipped() {
        let open = |position| FetchedRecords::open(entry(), Offset(position)).expect("a good batch");
        for (position, expected) in [(0, 10..15), (10, 10..15), (12, 12..15), (14, 14..15)] {
            let records = open(position).expect("records");
            assert_eq!(offsets(&records), expected.clone().collect::<Vec<_>>());
            assert_eq!((records.first_offset().0, records.len() as u64), (expected.start, 15 - expected.start));
            assert_eq!(records.to_records().count(), records.len());
        }
        assert!(open(15).is_none());
        let rest = open(11).and_then(|records| records.starting_at(Offset(13))).expect("two are left");
        assert_eq!((offsets(&rest), rest.first_offset()), (vec![13, 14], Offset(13)));
        assert!(rest.starting_at(Offset(15)).is_none());
    }

    #[test]
    fn compressed_bodies_are_opened_and_lying_sizes_refused() {
        let plain = entry();
        for codec in [Codec::Lz4, Codec::Zstd] {
            let mut entry = plain.clone();
            entry.body = match codec {
                Codec::Lz4 => lz4_flex::block::compress(&plain.body).into(),
                _ => zstd::bulk::compress(&plain.body, 3).expect("compressed").into(),
            };
            (entry.header.codec, entry.header.body_bytes) = (codec, entry.body.len() as u32);
            let records = FetchedRecords::open(entry.clone(), Offset(10)).expect("a good batch").expect("records");
            assert_eq!(offsets(&records), [10, 11, 12, 13, 14]);
            for lie in [-1_i32, 1, 1000] {
                let mut lying = entry.clone();
                lying.header.uncompressed_bytes = lying.header.uncompressed_bytes.wrapping_add_signed(lie);
                assert!(FetchedRecords::open(lying, Offset(10)).is_err(), "{codec:?} {lie}");
            }
            entry.body = entry.body.slice(..entry.body.len() / 2);
            assert!(FetchedRecords::open(entry, Offset(10)).is_err(), "{codec:?} cut");
        }
    }
}
