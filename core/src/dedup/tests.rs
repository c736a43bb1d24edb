//! Verdicts, wrapping, forgetting, and snapshots of the producer table.

use super::*;
use crate::entry::{BodyFormat, Codec, EntryKind};

fn batch(producer: i64, epoch: i16, sequence: i32, count: u32, index: u64) -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Batch,
        body_format: BodyFormat::Columnar,
        codec: Codec::None,
        body_bytes: 0,
        uncompressed_bytes: 0,
        range: RangeKey { ring: RingId(1), range: RangeId(0) },
        attributes: 0,
        epoch: Epoch(1),
        index: LogIndex(index),
        topic: TopicId(1),
        partition: Partition(0),
        record_count: count,
        base_offset: Offset(index * 100),
        last_offset_delta: count - 1,
        base_sequence: Sequence(sequence),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        append_timestamp: Timestamp(index as i64),
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        body_crc: 0,
        running_hash: RunningHash(0),
    }
}

/// Appends 10 batches of 3 records each.
fn ten_batches() -> ProducerTable {
    let mut table = ProducerTable::default();
    for n in 0..10 {
        let header = batch(7, 1, n * 3, 3, n as u64 + 1);
        assert_eq!(table.check(&header), DedupVerdict::New);
        table.apply(&header);
    }
    table
}

#[test]
fn verdicts() {
    let table = ten_batches();
    let verdict = |epoch, sequence, count| table.check(&batch(7, epoch, sequence, count, 99));
    assert_eq!(verdict(1, 30, 5), DedupVerdict::New);
    assert!(matches!(verdict(1, 27, 3), DedupVerdict::Duplicate(stored) if stored.index == LogIndex(10)));
    assert!(matches!(verdict(1, 6, 3), DedupVerdict::Duplicate(stored) if stored.base_offset == Offset(300)));
    assert_eq!(verdict(1, 3, 3), DedupVerdict::DuplicateForgotten, "only eight are remembered");
    assert_eq!(verdict(1, 33, 3), DedupVerdict::OutOfOrder);
    assert_eq!(verdict(1, 28, 3), DedupVerdict::Overlaps);
    assert_eq!(verdict(0, 30, 3), DedupVerdict::Fenced);
    assert_eq!(verdict(2, 0, 3), DedupVerdict::New);
    assert_eq!(verdict(2, 1, 3), DedupVerdict::OutOfOrder);
    assert_eq!(table.check(&batch(8, 0, 1, 1, 99)), DedupVerdict::UnknownProducer);
    assert_eq!(table.check(&batch(8, 0, 0, 1, 99)), DedupVerdict::New);
    assert_eq!(table.check(&batch(-1, 0, 0, 1, 99)), DedupVerdict::New);
}

#[test]
fn sequences_wrap() {
    let mut table = ProducerTable::default();
    table.apply(&batch(7, 0, 0, 1, 1));
    let last = batch(7, 0, i32::MAX - 1, 3, 2);
    table.apply(&last);
    assert_eq!(table.check(&batch(7, 0, 1, 1, 3)), DedupVerdict::New);
    assert!(matches!(table.check(&last), DedupVerdict::Duplicate(_)));
    assert_eq!(table.check(&batch(7, 0, 2, 1, 3)), DedupVerdict::OutOfOrder);
}

#[test]
fn the_least_recently_heard_is_forgotten() {
    let mut table = ProducerTable::default();
    let max = i64::from(limits::PRODUCERS_PER_PARTITION_MAX);
    (0..max).for_each(|p| table.apply(&batch(p, 0, 0, 1, p as u64 + 1)));
    table.apply(&batch(0, 0, 1, 1, max as u64 + 1));
    table.apply(&batch(max, 0, 0, 1, max as u64 + 2));
    assert_eq!(table.len() as i64, max);
    assert_eq!(table.check(&batch(1, 0, 1, 1, 9999)), DedupVerdict::UnknownProducer);
    assert_eq!(table.check(&batch(0, 0, 2, 1, 9999)), DedupVerdict::New);
}

#[test]
fn a_snapshot_is_the_table() {
    let mut table = ten_batches();
    (20..30).for_each(|p| table.apply(&batch(p, 2, 0, 4, p as u64)));
    let restored = ProducerTable::from_bytes(&table.to_bytes()).expect("just written");
    assert_eq!(restored, table);
    assert_eq!(restored.to_bytes(), table.to_bytes());
    let mut emptied = restored;
    emptied.forget_partition(PartitionKey { topic: TopicId(1), partition: Partition(0) });
    assert_eq!(emptied, ProducerTable::default());
}

/// Who wrote last, put in order at every batch.
#[derive(Default)]
struct InOrder {
    newest: HashMap<ProducerKey, u64>,
    by_age: BTreeMap<u64, ProducerKey>,
}

impl InOrder {
    fn apply(&mut self, key: ProducerKey, index: u64) {
        match self.newest.insert(key, index) {
            Some(before) => drop(self.by_age.remove(&before)),
            None => self.forget_surplus(key),
        }
        self.by_age.insert(index, key);
    }

    /// The new one counts and is the youngest.
    fn forget_surplus(&mut self, new: ProducerKey) {
        let of_partition = self.newest.keys().filter(|key| key.0 == new.0).count();
        if of_partition > limits::PRODUCERS_PER_PARTITION_MAX as usize {
            self.forget_oldest(|key| key.0 == new.0);
        }
        if self.newest.len() > limits::PRODUCERS_PER_RANGE_MAX as usize {
            self.forget_oldest(|_| true);
        }
    }

    fn forget_oldest(&mut self, may_go: impl Fn(&ProducerKey) -> bool) {
        let oldest = self.by_age.iter().find(|(_, key)| may_go(key)).map(|(index, key)| (*index, *key));
        let (index, key) = oldest.expect("there are too many, so there is one");
        self.by_age.remove(&index);
        self.newest.remove(&key);
    }
}

#[test]
fn who_is_forgotten_is_who_was_silent_for_longest_whatever_was_restored_meanwhile() {
    let (mut table, mut expected) = <(ProducerTable, InOrder)>::default();
    let mut random = 1_u64;
    for index in 1..=40_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Two crowded partitions, and many that make the range a crowded one.
        let partition = if index < 10_000 { random >> 63 } else { (random >> 60) + 2 };
        let producer = (random >> 33) as i64 % 1_300;
        let header = EntryHeader { partition: Partition(partition as u32), ..batch(producer, 0, 0, 1, index) };
        table.apply(&header);
        expected.apply((header.partition_key(), header.producer_id), index);
        if index % 9_999 == 0 {
            table = ProducerTable::from_bytes(&table.to_bytes()).expect("just written");
        }
    }
    let bytes = table.to_bytes();
    let rows: Vec<ProducerRow> = Reader::new(&bytes).take().expect("just written");
    let kept = rows.iter().map(|row| (row.partition, row.producer));
    assert!(kept.eq(expected.by_age.into_values()), "the same ones, oldest first");
    assert_eq!(table.len(), limits::PRODUCERS_PER_RANGE_MAX as usize);
}
