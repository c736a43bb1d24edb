//! Entries as another member sent them: told apart, and checked before anything of them is believed.
//!
//! Pure. Checked here is what an entry says of itself: header and body checksums, padding, its range, a control entry's
//! form. Whether it follows the log's end is the machine's to say.

use minikafka_core::RangeKey;
use minikafka_core::chain::peer::{CopyOutcome, SegmentItem};
use minikafka_core::control::ControlEntry;
use minikafka_core::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use minikafka_core::wire::Wire;
use minikafka_core::{LogIndex, checksum};
use minikafka_storage::SharedSlice;

/// A whole, good entry.
pub(super) struct Entry {
    pub header: EntryHeader,
    /// The decoded body of a control entry.
    pub control: Option<ControlEntry>,
}

/// Walks the entries of a run, in order; after the first bad one there is nothing more.
pub(super) struct Entries<'a> {
    range: RangeKey,
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    pub const fn of(range: RangeKey, run: &'a [u8]) -> Self {
        Self { range, rest: run }
    }

    fn take(&mut self) -> Result<Entry, String> {
        let header = EntryHeader::decode(self.rest).map_err(|error| error.to_string())?;
        let index = header.index;
        let Some((entry, rest)) = self.rest.split_at_checked(header.entry_bytes()) else {
            return Err(format!("entry {index} ends beyond what was sent"));
        };
        let (body, padding) = entry[ENTRY_HEADER_BYTES..].split_at(header.body_bytes as usize);
        if header.range != self.range {
            return Err(format!("entry {index} is of range {}", header.range));
        }
        if checksum::crc32c(body) != header.body_crc {
            return Err(format!("the body of entry {index} does not match its checksum"));
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(format!("the padding of entry {index} is not zero"));
        }
        let control = match header.kind {
            EntryKind::Batch => None,
            EntryKind::Control => match ControlEntry::from_bytes(body) {
                Ok(control) => Some(control),
                Err(error) => return Err(format!("control entry {index}: {error}")),
            },
        };
        self.rest = rest;
        Ok(Entry { header, control })
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

/// The part of `runs`, just read from the own log, that ends with entry `up_to`, and the last entry in it.
pub(super) fn up_to(runs: Vec<SharedSlice>, up_to: LogIndex) -> (Vec<SharedSlice>, Option<LogIndex>) {
    let (mut kept, mut last) = (Vec::with_capacity(runs.len()), None);
    for run in runs {
        let mut at = 0;
        // The log verified what it handed out; this only finds the entries' borders.
        while let Ok(header) = EntryHeader::decode_unsealed(&run[at..]) {
            let end = at + header.entry_bytes();
            if header.index > up_to || end > run.len() {
                break;
            }
            (last, at) = (Some(header.index), end);
        }
        let is_cut = at < run.len();
        if at > 0 {
            kept.push(run.slice(0..at));
        }
        if is_cut {
            break;
        }
    }
    (kept, last)
}

/// Bytes that an answer to a copy request brings.
pub(super) fn copied_bytes(outcome: &CopyOutcome<SharedSlice>) -> u64 {
    let of_item = |item: &SegmentItem<SharedSlice>| match item {
        SegmentItem::Entries(bytes) | SegmentItem::Snapshot { bytes, .. } => bytes.len() as u64,
        SegmentItem::Freed(_) => 0,
    };
    match outcome {
        CopyOutcome::Agreed { entries, .. } => total_bytes(entries),
        CopyOutcome::Segment { part, .. } => part.items.iter().map(of_item).sum(),
        CopyOutcome::Disagreed { .. } | CopyOutcome::Gone { .. } | CopyOutcome::Refused { .. } => 0,
    }
}

/// Bytes of entries.
pub(super) fn total_bytes(runs: &[SharedSlice]) -> u64 {
    runs.iter().map(|run| run.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use minikafka_core::batch::{BatchBuilder, RecordRef};
    use minikafka_core::{
        Partition, PartitionKey, ProducerEpoch, ProducerId, RangeId, RingId, RunningHash, Sequence, Timestamp, TopicId,
    };

    use super::*;

    const RANGE: RangeKey = RangeKey { ring: RingId(1), range: RangeId(5) };

    /// A batch and a control entry, indexes 1 and 2.
    fn run() -> Vec<u8> {
        let partition = PartitionKey { topic: TopicId(7), partition: Partition(0) };
        let mut builder = BatchBuilder::with_capacity(10);
        builder.push(RecordRef { value: Some(b"abc"), ..RecordRef::at(Timestamp(1)) }).expect("it fits");
        let finished = builder.finish();
        let mut batch = finished.header(RANGE, partition, (ProducerId(9), ProducerEpoch(0), Sequence(0)));
        batch.index = LogIndex(1);
        let hash = batch.seal(RunningHash(0));
        let body = ControlEntry::PartitionDelete { partition }.to_bytes();
        let mut control = EntryHeader {
            kind: EntryKind::Control,
            body_format: minikafka_core::entry::BodyFormat::Control,
            body_bytes: body.len() as u32,
            uncompressed_bytes: body.len() as u32,
            record_count: 0,
            last_offset_delta: 0,
            index: LogIndex(2),
            body_crc: checksum::crc32c(&body),
            ..batch
        };
        control.seal(hash);
        let mut bytes = Vec::new();
        for (header, body) in [(batch, &finished.body), (control, &body)] {
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        bytes
    }

    fn indexes(range: RangeKey, run: &[u8]) -> Vec<Result<u64, ()>> {
        Entries::of(range, run).map(|entry| entry.map(|entry| entry.header.index.0).map_err(|_| ())).collect()
    }

    #[test]
    fn entries_are_told_apart_and_control_entries_decoded() {
        let run = run();
        assert_eq!(indexes(RANGE, &run), [Ok(1), Ok(2)]);
        let controls: Vec<_> = Entries::of(RANGE, &run).flatten().map(|entry| entry.control.is_some()).collect();
        assert_eq!(controls, [false, true]);
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed() {
        let run = run();
        for bit in 0..run.len() * 8 {
            let mut flipped = run.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = indexes(RANGE, &flipped);
            assert_eq!(found.last(), Some(&Err(())), "bit {bit}: nothing comes behind what is wrong");
        }
        for length in 1..run.len() {
            let found = indexes(RANGE, &run[..length]);
            assert!(found.last() == Some(&Err(())) || found == [Ok(1)], "cut to {length}: {found:?}");
        }
        assert_eq!(indexes(RangeKey { range: RangeId(6), ..RANGE }, &run), [Err(())], "another range's");
    }

    #[test]
    fn what_is_read_is_cut_at_an_index() {
        let bytes = run();
        let length = bytes.len();
        let first = EntryHeader::decode(&bytes).expect("an entry").entry_bytes();
        let whole = || vec![SharedSlice::new(Rc::new(bytes.clone()), 0..length)];
        let cut = |index| {
            let (runs, last) = up_to(whole(), LogIndex(index));
            (total_bytes(&runs) as usize, last)
        };
        assert_eq!(cut(0), (0, None));
        assert_eq!(cut(1), (first, Some(LogIndex(1))));
        assert_eq!(cut(2), (length, Some(LogIndex(2))));
        assert_eq!(cut(u64::MAX), (length, Some(LogIndex(2))));
    }
}
