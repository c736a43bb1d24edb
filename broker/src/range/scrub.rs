//! Reading entries only to see whether they can be read.

use minikafka_core::LogIndex;
use minikafka_storage::ReadError;
use minikafka_storage::disk::Disk;

use super::{Range, entries};

impl<D: Disk> Range<D> {
    /// Reads about `bytes_max` bytes from entry `from` on: where to go on, and what was read. None at the end, and while the
    /// disk refuses.
    pub async fn scrub_some(&self, from: LogIndex, bytes_max: usize) -> Option<(LogIndex, u64)> {
        let from = from.max(self.log.first_index());
        // What is not durable yet is in memory, and was just written.
        if from > self.log.durable_index() {
            return None;
        }
        match self.log.read_index(from, bytes_max).await {
            Ok(runs) => {
                let bytes = entries::total_bytes(&runs);
                Some((entries::up_to(runs, LogIndex(u64::MAX)).1?.next(), bytes))
            }
            // It is noted, and mended if it can be.
            Err(ReadError::Damaged(damage)) => Some((damage.last_index.max(from).next(), 0)),
            Err(ReadError::Freed { run }) => Some((run.last_index.next(), 0)),
            Err(ReadError::Dropped { first, .. }) => Some((first, 0)),
            Err(ReadError::Disk(error)) => {
                tracing::warn!(range = %self.key, %error, "cannot scrub");
                None
            }
        }
    }
}
