//! Reads partitions of one topic ahead of the application: `progress`, its fetcher, and the way out.
//!
//! Absent: where each partition begins, and which are read, which is decided by who has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use minikafka_core::wire::TopicDescription;
use minikafka_core::{NodeId, Offset, Partition};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::progress::{Progress, Prospect, Taken};
use super::{ConsumerOptions, FetchedRecords, Skipped, fetcher};
use crate::client::ClientShared;
use crate::error::{Error, Result};

/// Reads partitions of one topic; its prefetching goes on in the background until it is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    topic: Arc<TopicDescription>,
    shared: Arc<fetcher::Shared>,
    fetcher: JoinHandle<()>,
}

impl Reader {
    pub(super) fn start(
        client: Arc<ClientShared>,
        topic: Arc<TopicDescription>,
        progress: Progress,
        ready: Arc<Notify>,
    ) -> Self {
        let shared = Arc::new(fetcher::Shared::new(progress, ready));
        let fetcher = tokio::spawn(fetcher::fetch_ahead(client, shared.clone()));
        Self { topic, shared, fetcher }
    }

    /// One that reads no partition before it is assigned.
    pub(crate) fn of_group(
        client: Arc<ClientShared>,
        topic: Arc<TopicDescription>,
        options: &ConsumerOptions,
        ready: Arc<Notify>,
    ) -> Self {
        let progress = Progress::of_group(topic.clone(), options);
        Self::start(client, topic, progress, ready)
    }

    /// The next batch, if one is there, partitions taking turns; or the next failure, told once.
    pub(crate) fn try_next_batch(&mut self) -> Option<Result<FetchedRecords>> {
        loop {
            let (taken, may_fetch) = {
                let mut progress = self.shared.progress();
                (progress.take()?, progress.may_fetch())
            };
            if may_fetch {
                self.shared.wake_fetcher.notify_one();
            }
            let Taken { index, entry, position } = match taken {
                Ok(taken) => taken,
                Err(error) => return Some(Err(error)),
            };
            let (partition, offset) = (entry.header.partition, position.max(entry.header.base_offset));
            match FetchedRecords::open(entry, position) {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(reason) => {
                    let topic = self.topic.name.as_str().into();
                    let error = Error::Damaged { topic, partition, offset, reason: reason.into() };
                    self.shared.progress().fail(index, offset, error.clone());
                    return Some(Err(error));
                }
            }
        }
    }

    /// Whether anything can come.
    pub(crate) fn prospect(&self) -> Prospect {
        self.shared.progress().prospect()
    }

    /// Notified when there may be something.
    pub(crate) fn ready(&self) -> &Notify {
        &self.shared.ready
    }

    /// Whether nothing will come any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.fetcher.is_finished()
    }

    /// Goes on at `offset`.
    pub(crate) fn seek(&mut self, partition: Partition, offset: Offset) -> Result<()> {
        if !self.shared.progress().seek(partition, offset) {
            let (topic, partitions) = (self.topic.name.as_str().into(), self.topic.partitions);
            return Err(Error::NoSuchPartition { topic, partition, partitions });
        }
        self.shared.wake_fetcher.notify_one();
        Ok(())
    }

    /// Reads a partition, from `position` on; `is_starting`: or from wherever its log begins.
    pub(crate) fn assign(&mut self, partition: Partition, position: Offset, is_starting: bool) {
        if self.shared.progress().assign(partition, position, is_starting) {
            self.shared.wake_fetcher.notify_one();
        }
    }

    /// Reads a partition no more.
    pub(crate) fn unassign(&mut self, partition: Partition) {
        self.shared.progress().unassign(partition);
    }

    /// Would read a partition, which stands still until a seek, and says why.
    pub(crate) fn assign_refused(&mut self, partition: Partition, error: Error) {
        let mut progress = self.shared.progress();
        progress.assign(partition, Offset(0), false);
        // At once, so that nothing of it is asked for.
        progress.refuse(partition, error);
    }

    /// Puts back what was taken and not read.
    pub(crate) fn put_back(&mut self, batch: FetchedRecords, next: Offset) {
        self.shared.progress().put_back(batch.into_entry(), next);
    }

    pub(crate) fn pause(&mut self, partitions: &[Partition]) {
        self.shared.progress().set_paused(partitions, true);
    }

    pub(crate) fn resume(&mut self, partitions: &[Partition]) {
        self.shared.progress().set_paused(partitions, false);
        self.shared.wake_fetcher.notify_one();
        self.shared.ready.notify_one();
    }

    /// Partition, position and committed end of all that is read.
    pub(crate) fn positions(&self) -> Vec<(Partition, Offset, Option<Offset>)> {
        self.shared.progress().positions().collect()
    }

    pub(crate) fn fetches_by_node(&self) -> BTreeMap<NodeId, u64> {
        self.shared.progress().fetches_by_node().clone()
    }

    pub(crate) fn skipped(&self) -> Vec<Skipped> {
        self.shared.progress().skipped().to_vec()
    }

    pub(crate) fn topic(&self) -> &Arc<TopicDescription> {
        &self.topic
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fetcher.abort();
    }
}
