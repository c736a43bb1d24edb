//! Looking offsets up (earliest, latest, by time), and deleting what is before one.

use std::collections::BTreeMap;
use std::sync::Arc;

use minikafka_core::wire::{
    Api, DeleteRecordsPartition, DeleteRecordsReply, DeleteRecordsRequest, ListOffsetsPartition, ListOffsetsReply,
    ListOffsetsRequest, OffsetQuery, TopicDescription,
};
use minikafka_core::{Offset, Partition};

use crate::client::{Client, ClientShared};
use crate::error::{Error, Result};
use crate::partition_requests::{PartitionAnswer, PartitionOutcome, PartitionPlace, PartitionRequest};

impl Client {
    /// The offset that `query` means, for every partition of a topic, ordered by partition.
    ///
    /// # Errors
    /// [`Error::Broker`] (`unknown_topic`, …), or the last retriable error at the client's `request_timeout`.
    pub async fn list_offsets(&self, topic: &str, query: OffsetQuery) -> Result<Vec<(Partition, Offset)>> {
        let description = self.topic(topic).await?;
        let partitions: Vec<_> = (0..description.partitions).map(Partition).collect();
        self.shared().clone().list_offsets(&description, &partitions, query).await
    }

    /// The same for chosen partitions.
    ///
    /// # Errors
    /// As [`Client::list_offsets`], and [`Error::NoSuchPartition`].
    pub async fn list_offsets_of(
        &self,
        topic: &str,
        partitions: &[Partition],
        query: OffsetQuery,
    ) -> Result<Vec<(Partition, Offset)>> {
        let description = self.topic(topic).await?;
        check_partitions(&description, partitions)?;
        self.shared().clone().list_offsets(&description, partitions, query).await
    }

    /// Deletes the records of partitions below an offset each; one beyond the end means the end. Returns, once it is
    /// committed, the first offset that is left in each, ordered by partition. Repeating it does no harm.
    ///
    /// # Errors
    /// As [`Client::list_offsets_of`]; then some of the partitions may have lost their records all the same.
    pub async fn delete_records_of(
        &self,
        topic: &str,
        before: &BTreeMap<Partition, Offset>,
    ) -> Result<Vec<(Partition, Offset)>> {
        let description = self.topic(topic).await?;
        check_partitions(&description, &before.keys().copied().collect::<Vec<_>>())?;
        self.shared().clone().ask_partitions::<DeleteRecords>(&description, before).await
    }

    /// Deletes the records of one partition below an offset; returns the first one that is left.
    ///
    /// # Errors
    /// As [`Client::delete_records_of`].
    pub async fn delete_records(&self, topic: &str, partition: Partition, before: Offset) -> Result<Offset> {
        let deleted = self.delete_records_of(topic, &BTreeMap::from([(partition, before)])).await?;
        Ok(deleted.first().map_or(before, |(_, log_start)| *log_start))
    }
}

/// Refuses partitions that the topic does not have.
pub(crate) fn check_partitions(topic: &TopicDescription, partitions: &[Partition]) -> Result<()> {
    match partitions.iter().find(|partition| partition.0 >= topic.partitions) {
        None => Ok(()),
        Some(&partition) => {
            Err(Error::NoSuchPartition { topic: topic.name.as_str().into(), partition, partitions: topic.partitions })
        }
    }
}

impl ClientShared {
    /// The offset that `query` means in each of these partitions.
    pub(crate) async fn list_offsets(
        self: Arc<Self>,
        topic: &TopicDescription,
        partitions: &[Partition],
        query: OffsetQuery,
    ) -> Result<Vec<(Partition, Offset)>> {
        let wanted = partitions.iter().map(|&partition| (partition, query)).collect();
        self.ask_partitions::<ListOffsets>(topic, &wanted).await
    }
}

struct ListOffsets;

impl PartitionRequest for ListOffsets {
    const API: Api = Api::ListOffsets;
    const REPLY: &'static str = "list-offsets reply";
    type Wanted = OffsetQuery;
    type Request = ListOffsetsRequest;
    type Reply = ListOffsetsReply;

    fn request(wanted: &[(PartitionPlace, OffsetQuery)]) -> ListOffsetsRequest {
        let one = |&(PartitionPlace { range, epoch, partition }, query)| ListOffsetsPartition {
            range,
            epoch,
            partition,
            query,
        };
        ListOffsetsRequest { partitions: wanted.iter().map(one).collect() }
    }

    fn outcomes(reply: ListOffsetsReply) -> impl Iterator<Item = PartitionOutcome> {
        reply.partitions.into_iter().map(|listed| PartitionOutcome {
            partition: listed.partition,
            answer: PartitionAnswer::of(listed.error, listed.epoch, listed.offset),
        })
    }
}

struct DeleteRecords;

impl PartitionRequest for DeleteRecords {
    const API: Api = Api::DeleteRecords;
    const REPLY: &'static str = "delete-records reply";
    type Wanted = Offset;
    type Request = DeleteRecordsRequest;
    type Reply = DeleteRecordsReply;

    fn request(wanted: &[(PartitionPlace, Offset)]) -> DeleteRecordsRequest {
        let one = |&(PartitionPlace { range, epoch, partition }, before)| DeleteRecordsPartition {
            range,
            epoch,
            partition,
            before,
        };
        DeleteRecordsRequest { partitions: wanted.iter().map(one).collect() }
    }

    fn outcomes(reply: DeleteRecordsReply) -> impl Iterator<Item = PartitionOutcome> {
        reply.partitions.into_iter().map(|deleted| PartitionOutcome {
            partition: deleted.partition,
            answer: PartitionAnswer::of(deleted.error, deleted.epoch, deleted.log_start),
        })
    }
}
