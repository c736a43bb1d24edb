//! Writing zeros into new segment files before they are used.
//!
//! A block that was written before becomes durable by itself; the first write to one that was only allocated takes the
//! file system's journal along and costs three times as long (`docs/decisions/0006-durable-writes.md`). Recycled files were
//! written before. So a few new ones of the smallest size are kept ready, and what is prepared ahead is written ahead: one
//! block after the other at a bounded rate, only while the disk has little else to do, and never once the file is in use. A
//! disk that is slow has no time for it: the first block is small, and one that takes long ends it for a while.

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
/// The first block of a file, which tells how fast the disk is now.
const FIRST_BYTES: u64 = 64 << 10;
/// A block that takes longer: what is to be kept would wait for zeros.
const SLOW: Duration = Duration::from_millis(100);
/// How long a slow disk is left alone.
const REST: Duration = Duration::from_secs(10);

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
        let zeros = |bytes: u64| {
            let mut zeros = self.disk.allocate(bytes as usize);
            zeros.as_mut().fill(0);
            Rc::new(zeros)
        };
        let (first, block) = (zeros(bytes.min(FIRST_BYTES)), zeros(bytes.min(ZERO_AHEAD_BYTES)));
        let mut at = 0;
        while at < bytes && !stop() {
            let block = if at == 0 { &first } else { &block };
            let began = self.disk.now();
            // The last one begins earlier rather than to end behind the file.
            let length = (**block).as_ref().len() as u64;
            file.write_durable(block.clone(), at.min(bytes - length)).await?;
            at += length;
            if self.disk.now() - began > SLOW {
                self.zeros_rest_until.set(self.disk.now() + REST);
            }
            self.disk.sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whether zeros should wait: the logs have much in flight, or the disk was slow.
    pub(crate) fn is_busy(&self) -> bool {
        self.flush_budget.bytes_used() > BUSY_BYTES || self.disk.now() < self.zeros_rest_until.get()
    }
}
