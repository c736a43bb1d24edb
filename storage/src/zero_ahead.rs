//! Writing zeros into new segment files before they are used.
//!
//! A block that was written before becomes durable by itself; the first write to one that was only allocated takes the
//! file system's journal along and costs three times as long (`docs/decisions/0006-durable-writes.md`). Recycled files were
//! written before. So a few new ones of the smallest size are kept ready, and what is prepared ahead is written ahead: one
//! block after the other at a bounded rate, only while the disk has little else to do, and never once the file is in use.

use std::rc::Rc;
use std::time::Duration;

use minikafka_core::limits::{SEGMENT_STOCK_FILES, ZERO_AHEAD_BYTES};

use crate::disk::{Disk, DiskFile};
use crate::error::DiskError;
use crate::shard_storage::ShardStorage;

/// Between two writes: 300 MiB/s at most.
const PAUSE: Duration = Duration::from_millis(3);
/// More than so much of the budget for flushes in use: the disk has enough to do.
const BUSY_BYTES: u64 = 4 << 20;

impl<D: Disk> ShardStorage<D> {
    /// Makes one segment file of the smallest size and puts it into the pool, if there are too few, there is space, and the
    /// disk has little else to do. Returns whether it did.
    pub async fn stock_pool(&self) -> Result<bool, DiskError> {
        if self.is_busy() || self.pool.smallest_free() >= SEGMENT_STOCK_FILES {
            return Ok(false);
        }
        let Some((file, path)) = self.pool.create_spare().await? else { return Ok(false) };
        let bytes = self.config.segment_bytes_min;
        let written = self.write_zeros(&file, bytes, || self.is_busy()).await;
        let closed = file.close().await;
        self.pool.add_spare(path);
        written.and(closed).map(|()| true).map_err(|error| DiskError::new("write zeros into", self.pool.dir(), error))
    }

    /// Writes zeros from the beginning of a file that nobody uses yet, until its end or until `stop`.
    pub(crate) async fn write_zeros(&self, file: &D::File, bytes: u64, stop: impl Fn() -> bool) -> std::io::Result<()> {
        let chunk_bytes = bytes.min(ZERO_AHEAD_BYTES);
        let mut zeros = self.disk.allocate(chunk_bytes as usize);
        zeros.as_mut().fill(0);
        let zeros = Rc::new(zeros);
        for at in 0..bytes / chunk_bytes {
            if stop() {
                break;
            }
            file.write_durable(zeros.clone(), at * chunk_bytes).await?;
            self.disk.sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whether the logs have so much in flight that zeros should wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.flush_budget.bytes_used() > BUSY_BYTES
    }
}
