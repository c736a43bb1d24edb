//! Reads what a member owns: one reader per topic, topics taking turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use minikafka_core::{Offset, PartitionKey, TopicId};
use tokio::sync::Notify;

use super::inbox::Begin;
use super::record::TopicPartition;
use crate::client::ClientShared;
use crate::consumer::reader::Reader;
use crate::consumer::{ConsumerOptions, ConsumerRecord, FetchedRecords, Prospect};
use crate::error::Result;

/// The readers of a member, and the batches that the application is in the middle of.
#[derive(Debug)]
pub(super) struct Reading {
    client: Arc<ClientShared>,
    options: ConsumerOptions,
    ready: Arc<Notify>,
    topics: BTreeMap<TopicId, ReadTopic>,
    /// The topic whose turn it was last.
    last: Option<TopicId>,
    begun: BTreeMap<PartitionKey, Begun>,
}

#[derive(Debug)]
struct ReadTopic {
    name: Arc<str>,
    reader: Reader,
}

/// A batch of which some records were handed out one by one.
#[derive(Debug)]
struct Begun {
    batch: FetchedRecords,
    records: VecDeque<ConsumerRecord>,
    is_paused: bool,
}

/// What is handed out, of which partition.
pub(super) struct Piece<T> {
    pub(super) partition: PartitionKey,
    pub(super) first: Offset,
    /// The position behind it.
    pub(super) next: Offset,
    pub(super) content: T,
}

impl Reading {
    pub(super) fn new(client: Arc<ClientShared>, options: ConsumerOptions, ready: Arc<Notify>) -> Self {
        Self { client, options, ready, topics: BTreeMap::new(), last: None, begun: BTreeMap::new() }
    }

    pub(super) fn assign(&mut self, partition: PartitionKey, begin: Begin) {
        let Some(reader) = self.reader(partition.topic) else { return };
        match begin {
            Begin::At(offset) => reader.assign(partition.partition, offset, false),
            Begin::Earliest => reader.assign(partition.partition, Offset(0), true),
            Begin::Refused(error) => reader.assign_refused(partition.partition, error),
        }
    }

    /// The reader of a topic, from now on. None: the topic is gone.
    fn reader(&mut self, topic: TopicId) -> Option<&mut Reader> {
        if !self.topics.contains_key(&topic) {
            let description = self.client.map.current().topic_by_id(topic)?.clone();
            let name: Arc<str> = description.name.as_str().into();
            let reader = Reader::of_group(self.client.clone(), description, &self.options, self.ready.clone());
            self.topics.insert(topic, ReadTopic { name, reader });
        }
        self.topics.get_mut(&topic).map(|topic| &mut topic.reader)
    }

    /// Stops reading; what was fetched is gone. A topic of which nothing is read any more costs nothing.
    pub(super) fn unassign(&mut self, partitions: &[PartitionKey]) {
        for partition in partitions {
            self.begun.remove(partition);
            if let Some(topic) = self.topics.get_mut(&partition.topic) {
                topic.reader.unassign(partition.partition);
            }
        }
        self.topics.retain(|_, topic| !topic.reader.positions().is_empty());
    }

    /// What is read, with position and committed end, ordered.
    pub(super) fn positions(&self) -> impl Iterator<Item = (TopicPartition, Offset, Option<Offset>)> {
        self.topics.iter().flat_map(move |(id, topic)| {
            topic.reader.positions().into_iter().map(move |(partition, position, end)| {
                let key = PartitionKey { topic: *id, partition };
                let begun = self.begun.get(&key).and_then(|begun| begun.records.front());
                let position = begun.map_or(position, |record| record.offset);
                (TopicPartition { topic: topic.name.clone(), partition }, position, end)
            })
        })
    }

    /// Everything that is read, sorted.
    pub(super) fn partitions(&self) -> Vec<PartitionKey> {
        let of = |(id, topic): (&TopicId, &ReadTopic)| {
            let topic_id = *id;
            topic.reader.positions().into_iter().map(move |(partition, ..)| PartitionKey { topic: topic_id, partition })
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// Its name; none: its topic is gone.
    pub(super) fn name_of(&self, partition: PartitionKey) -> Option<TopicPartition> {
        let read = self.topics.get(&partition.topic).map(|topic| topic.name.clone());
        let named = || Some(self.client.map.current().topic_by_id(partition.topic)?.name.as_str().into());
        Some(TopicPartition { topic: read.or_else(named)?, partition: partition.partition })
    }

    /// None: it is not read.
    pub(super) fn key_of(&self, partition: &TopicPartition) -> Option<PartitionKey> {
        let (topic, _) = self.topics.iter().find(|(_, topic)| topic.name == partition.topic)?;
        Some(PartitionKey { topic: *topic, partition: partition.partition })
    }

    pub(super) fn seek(&mut self, partition: PartitionKey, offset: Offset) -> Result<()> {
        self.begun.remove(&partition);
        self.topics.get_mut(&partition.topic).map_or(Ok(()), |topic| topic.reader.seek(partition.partition, offset))
    }

    /// Hands nothing out, or something again.
    pub(super) fn set_paused(&mut self, partition: PartitionKey, is_paused: bool) {
        if let Some(begun) = self.begun.get_mut(&partition) {
            begun.is_paused = is_paused;
        }
        if let Some(topic) = self.topics.get_mut(&partition.topic) {
            match is_paused {
                true => topic.reader.pause(&[partition.partition]),
                false => topic.reader.resume(&[partition.partition]),
            }
        }
    }

    /// A record was not handled: it comes again, before those behind it.
    pub(super) fn put_back(&mut self, partition: PartitionKey, record: ConsumerRecord) -> Result<()> {
        match self.begun.get_mut(&partition) {
            Some(begun) => {
                begun.records.push_front(record);
                Ok(())
            }
            None => self.seek(partition, record.offset),
        }
    }

    /// The next batch, or the rest of one; a failure is told once.
    pub(super) fn next_batch(&mut self) -> Option<Result<Piece<FetchedRecords>>> {
        let begun = self.begun.iter().find(|(_, begun)| !begun.is_paused).map(|(partition, _)| *partition);
        if let Some((partition, Begun { batch, records, .. })) =
            begun.and_then(|partition| Some((partition, self.begun.remove(&partition)?)))
            && let Some(batch) = records.front().and_then(|record| batch.starting_at(record.offset))
        {
            return Some(Ok(piece(partition, batch)));
        }
        let taken = self.take_turns()?;
        Some(taken.map(|(topic, batch)| piece(PartitionKey { topic, partition: batch.partition() }, batch)))
    }

    /// The next record; a failure is told once.
    pub(super) fn next_record(&mut self) -> Option<Result<Piece<ConsumerRecord>>> {
        loop {
            let mut begun = self.begun.iter_mut().filter(|(_, begun)| !begun.is_paused);
            if let Some((&partition, begun)) = begun.next() {
                let record = begun.records.pop_front();
                let following = begun.records.front().map(|record| record.offset);
                let next = following.unwrap_or_else(|| begun.batch.next_offset());
                if following.is_none() {
                    self.begun.remove(&partition);
                }
                let Some(record) = record else { continue };
                return Some(Ok(Piece { partition, first: record.offset, next, content: record }));
            }
            match self.take_turns()? {
                Ok((topic, batch)) => {
                    let partition = PartitionKey { topic, partition: batch.partition() };
                    let records = batch.to_records().collect();
                    self.begun.insert(partition, Begun { batch, records, is_paused: false });
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn take_turns(&mut self) -> Option<Result<(TopicId, FetchedRecords)>> {
        let last = self.last.unwrap_or_default();
        let (upto, behind): (Vec<_>, Vec<_>) = self.topics.iter_mut().partition(|(topic, _)| **topic <= last);
        for (topic, read) in behind.into_iter().chain(upto) {
            if let Some(taken) = read.reader.try_next_batch() {
                self.last = Some(*topic);
                return Some(taken.map(|batch| (*topic, batch)));
            }
        }
        None
    }

    /// Whether anything can come from what is read.
    pub(super) fn prospect(&self) -> Prospect {
        let mut prospect = Prospect::Nothing;
        for topic in self.topics.values() {
            match topic.reader.prospect() {
                Prospect::Records => return Prospect::Records,
                Prospect::Nothing => {}
                failures @ Prospect::Failures(_) => prospect = failures,
            }
        }
        prospect
    }
}

fn piece(partition: PartitionKey, batch: FetchedRecords) -> Piece<FetchedRecords> {
    Piece { partition, first: batch.first_offset(), next: batch.next_offset(), content: batch }
}
