//! Deleting the oldest records of a partition because a client says so.

use minikafka_core::chain::replica::Answer;
use minikafka_core::control::ControlEntry;
use minikafka_core::wire::{DeleteRecordsPartition, DeleteRecordsReply, DeleteRecordsRequest, DeletedRecords};
use minikafka_core::{Epoch, ErrorCode, Offset};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::join_all;

use crate::shard::Shard;

impl<D: Disk> Shard<D> {
    /// Moves log starts; answers when each is committed. The space comes back with the next round of upkeep.
    pub async fn delete_records(&self, request: &DeleteRecordsRequest) -> DeleteRecordsReply {
        let one = async |wanted: &DeleteRecordsPartition| {
            let (error, epoch, log_start) = match self.delete_before(wanted).await {
                Ok((epoch, log_start)) => (None, epoch, log_start),
                Err((code, epoch)) => (Some(code), epoch, Offset(0)),
            };
            DeletedRecords { partition: wanted.partition, error, epoch, log_start }
        };
        DeleteRecordsReply { partitions: join_all(request.partitions.iter().map(one)).await }
    }

    async fn delete_before(&self, wanted: &DeleteRecordsPartition) -> Result<(Epoch, Offset), (ErrorCode, Epoch)> {
        let partition = wanted.partition;
        let (range, offsets) = self.readable(wanted.range, partition, wanted.epoch)?;
        // What is not committed may still vanish, and what comes after the request is not meant.
        let log_start = wanted.before.min(offsets.committed_end);
        match range.append_control(ControlEntry::LogStart { partition, log_start }, wanted.epoch).await {
            Answer::Done { .. } => {
                let start = range.offsets(partition).map_or(log_start, |offsets| offsets.log_start.max(log_start));
                Ok((range.epoch(), start))
            }
            Answer::Refused { code, epoch } => Err((code, epoch)),
        }
    }
}
