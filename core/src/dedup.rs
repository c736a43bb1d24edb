//! Deduplication of producers: which batches of whom are stored already.
//!
//! The table is a function of the log alone (the same entries give the same table, evictions included), so every member
//! of a chain has the same one, and a snapshot of it survives the loss of old segments. The rules of sequences are
//! Kafka's (KIP-98): a sequence counts records within one (producer, partition) and wraps from `i32::MAX` to 0.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::entry::EntryHeader;
use crate::ids::*;
use crate::limits;
use crate::wire::codec::{DecodeError, Reader, Wire, wire_struct};

/// Sequences less than this far behind are old, farther ones are ahead (they wrap at 2^31).
const BEHIND_MAX: u32 = 1 << 30;

wire_struct! {
    /// A batch whose outcome is remembered.
    StoredBatch {
        /// Sequence of its first record.
        base_sequence: Sequence,
        /// How many records.
        record_count: u32,
        /// Offset of its first record.
        base_offset: Offset,
        /// Its entry.
        index: LogIndex,
        /// When the head accepted it.
        append_timestamp: Timestamp,
    }
}

impl StoredBatch {
    fn of(header: &EntryHeader) -> Self {
        Self {
            base_sequence: header.base_sequence,
            record_count: header.record_count,
            base_offset: header.base_offset,
            index: header.index,
            append_timestamp: header.append_timestamp,
        }
    }
}

/// What the table says of a batch that wants to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DedupVerdict {
    /// Not seen before, and the next in its producer's order.
    New,
    /// Stored before: to be answered with this outcome, once its index is committed.
    Duplicate(StoredBatch),
    /// Stored before, so long ago that its offset is forgotten.
    DuplicateForgotten,
    /// An earlier batch of this producer is missing.
    OutOfOrder,
    /// Overlaps stored batches without being one of them: the producer cut its batches anew, which it must not.
    Overlaps,
    /// The producer is not remembered, and this is not its first batch.
    UnknownProducer,
    /// A newer instance of the producer has written.
    Fenced,
}

#[derive(Clone, Debug)]
struct Producer {
    epoch: ProducerEpoch,
    /// Newest last; never empty.
    batches: VecDeque<StoredBatch>,
    /// Under which index it stands in the table's orders: that of its newest batch, or an older one.
    filed: LogIndex,
}

impl Producer {
    fn new(epoch: ProducerEpoch, batches: VecDeque<StoredBatch>, filed: LogIndex) -> Self {
        Self { epoch, batches, filed }
    }

    fn newest(&self) -> &StoredBatch {
        self.batches.back().expect("a producer is remembered by at least one batch")
    }

    fn next_sequence(&self) -> Sequence {
        let newest = self.newest();
        newest.base_sequence.advance(newest.record_count)
    }
}

type ProducerKey = (PartitionKey, ProducerId);

/// The producers of one range.
///
/// Whom to forget first is asked for when there are too many, and batches come all the time: so the two orders tell where a
/// producer stood when it was last filed, which is at its place or before it, and are put right from the oldest on when
/// somebody must go.
#[derive(Clone, Debug, Default)]
pub struct ProducerTable {
    producers: HashMap<ProducerKey, Producer>,
    by_age: BTreeMap<LogIndex, ProducerKey>,
    per_partition: HashMap<PartitionKey, BTreeMap<LogIndex, ProducerId>>,
}

/// Where somebody is filed is not what a table says.
impl PartialEq for ProducerTable {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(key, producer): (&ProducerKey, &Producer)| {
            let other = other.producers.get(key);
            other.is_some_and(|other| (other.epoch, &other.batches) == (producer.epoch, &producer.batches))
        };
        self.producers.len() == other.producers.len() && self.producers.iter().all(is_same)
    }
}

impl Eq for ProducerTable {}

impl ProducerTable {
    /// What to do with a batch. `header` is as its producer sent it.
    pub fn check(&self, header: &EntryHeader) -> DedupVerdict {
        if !header.producer_id.is_idempotent() {
            return DedupVerdict::New;
        }
        let starts = header.base_sequence == Sequence(0);
        let Some(producer) = self.producers.get(&(header.partition_key(), header.producer_id)) else {
            return if starts { DedupVerdict::New } else { DedupVerdict::UnknownProducer };
        };
        if header.producer_epoch < producer.epoch {
            return DedupVerdict::Fenced;
        }
        if header.producer_epoch > producer.epoch {
            return if starts { DedupVerdict::New } else { DedupVerdict::OutOfOrder };
        }
        Self::check_sequence(producer, header)
    }

    fn check_sequence(producer: &Producer, header: &EntryHeader) -> DedupVerdict {
        let next = producer.next_sequence();
        if header.base_sequence == next {
            return DedupVerdict::New;
        }
        let same = |stored: &&StoredBatch| {
            stored.base_sequence == header.base_sequence && stored.record_count == header.record_count
        };
        if let Some(stored) = producer.batches.iter().rev().find(same) {
            return DedupVerdict::Duplicate(stored.clone());
        }
        let behind = (next.0 as u32).wrapping_sub(header.base_sequence.0 as u32) & 0x7fff_ffff;
        match behind {
            b if b >= BEHIND_MAX => DedupVerdict::OutOfOrder,
            b if b >= header.record_count => DedupVerdict::DuplicateForgotten,
            _ => DedupVerdict::Overlaps,
        }
    }

    /// Remembers a batch that was appended.
    pub fn apply(&mut self, header: &EntryHeader) {
        if !header.producer_id.is_idempotent() {
            return;
        }
        let key = (header.partition_key(), header.producer_id);
        let stored = StoredBatch::of(header);
        match self.producers.get_mut(&key) {
            Some(producer) if producer.epoch == header.producer_epoch => {
                if producer.batches.len() == limits::PRODUCER_IN_FLIGHT_MAX as usize {
                    producer.batches.pop_front();
                }
                producer.batches.push_back(stored);
            }
            Some(producer) => (producer.epoch, producer.batches) = (header.producer_epoch, VecDeque::from([stored])),
            None => {
                self.insert(key, Producer::new(header.producer_epoch, VecDeque::from([stored]), header.index));
                self.forget_surplus(key.0);
            }
        }
    }

    fn insert(&mut self, key: ProducerKey, producer: Producer) {
        self.file(key, producer.filed);
        self.producers.insert(key, producer);
    }

    fn file(&mut self, key: ProducerKey, index: LogIndex) {
        self.by_age.insert(index, key);
        self.per_partition.entry(key.0).or_default().insert(index, key.1);
    }

    fn forget_surplus(&mut self, partition: PartitionKey) {
        let of_partition = self.per_partition.get(&partition).map_or(0, BTreeMap::len);
        if of_partition > limits::PRODUCERS_PER_PARTITION_MAX as usize {
            self.forget_oldest(|table| {
                let (_, producer) = table.per_partition.get(&partition)?.first_key_value()?;
                Some((partition, *producer))
            });
        }
        if self.producers.len() > limits::PRODUCERS_PER_RANGE_MAX as usize {
            self.forget_oldest(|table| table.by_age.first_key_value().map(|(_, key)| *key));
        }
    }

    /// Forgets whom the order begins with, once that is where it belongs.
    fn forget_oldest(&mut self, first: impl Fn(&Self) -> Option<ProducerKey>) {
        while let Some(key) = first(self) {
            let Some(mut producer) = self.forget(key) else { return };
            let newest = producer.newest().index;
            if producer.filed == newest {
                return;
            }
            producer.filed = newest;
            self.insert(key, producer);
        }
    }

    fn forget(&mut self, key: ProducerKey) -> Option<Producer> {
        let producer = self.producers.remove(&key)?;
        self.by_age.remove(&producer.filed);
        if let Some(of_partition) = self.per_partition.get_mut(&key.0) {
            of_partition.remove(&producer.filed);
            if of_partition.is_empty() {
                self.per_partition.remove(&key.0);
            }
        }
        Some(producer)
    }

    /// Forgets everybody who wrote to a partition that is deleted.
    pub fn forget_partition(&mut self, partition: PartitionKey) {
        for producer in self.per_partition.get(&partition).cloned().unwrap_or_default().into_values() {
            self.forget((partition, producer));
        }
    }

    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }
}

wire_struct! {
    /// One producer in a snapshot.
    ProducerRow {
        /// To which partition it wrote.
        partition: PartitionKey,
        /// Who.
        producer: ProducerId,
        /// In which epoch of its own.
        epoch: ProducerEpoch,
        /// Newest last.
        batches: Vec<StoredBatch>,
    }
}

impl Wire for ProducerTable {
    fn put(&self, out: &mut Vec<u8>) {
        let row = |(key, producer): (&ProducerKey, &Producer)| {
            let batches = producer.batches.iter().cloned().collect();
            ProducerRow { partition: key.0, producer: key.1, epoch: producer.epoch, batches }
        };
        // Oldest first: the order is part of what a snapshot means, and makes equal tables equal bytes.
        let mut producers: Vec<_> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|(_, producer)| producer.newest().index);
        producers.into_iter().map(row).collect::<Vec<_>>().put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut table = Self::default();
        for row in reader.take::<Vec<ProducerRow>>()? {
            let newest = row.batches.last().ok_or(DecodeError::Field { field: "producer batches" })?.index;
            table.insert((row.partition, row.producer), Producer::new(row.epoch, row.batches.into(), newest));
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
