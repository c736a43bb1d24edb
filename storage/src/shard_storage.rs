//! What the range logs of one shard share: the disk, the segment pool, and the budgets for flushes, recent data and footers.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minikafka_core::limits;
use minikafka_core::{RangeKey, ShardId};

use crate::disk::Disk;
use crate::error::LogError;
use crate::recent::{FooterCache, RecentCache};
use crate::segment_pool::SegmentPool;
use crate::wait::ByteBudget;

/// Sizes; the defaults are right but for tests and small memories.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Smallest segment file; a power of two.
    pub segment_bytes_min: u64,
    /// Largest segment file; a power of two.
    pub segment_bytes_max: u64,
    /// Coalesced flushes grow to this.
    pub flush_bytes_max: usize,
    /// Flushes in flight, all logs of the shard together.
    pub flush_in_flight_bytes_max: u64,
    /// What the smallest flush takes of them.
    pub flush_charge_bytes_min: u64,
    /// Appended and not yet durable, per log.
    pub undurable_bytes_max: u64,
    /// Recently written flushes kept in memory for readers, all logs of the shard together.
    pub recent_bytes_max: u64,
    /// Footers of sealed segments kept in memory, all logs of the shard together.
    pub footer_bytes_max: u64,
    /// Dead bytes that are worth a hole in a sealed segment; a few blocks at least.
    pub freed_run_bytes_min: u64,
    /// How long a segment of which more and more dies is left alone; 0: holes are punched at the first look.
    pub punch_patience_ms: i64,
    /// Segment files kept for recycling.
    pub pool_bytes_max: u64,
    /// Space on the file system that no new segment may take.
    pub reserve_bytes: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            segment_bytes_min: limits::SEGMENT_BYTES_MIN,
            segment_bytes_max: limits::SEGMENT_BYTES_DEFAULT,
            flush_bytes_max: limits::FLUSH_BYTES_MAX as usize,
            flush_in_flight_bytes_max: limits::FLUSH_IN_FLIGHT_BYTES_MAX.into(),
            flush_charge_bytes_min: limits::FLUSH_CHARGE_BYTES_MIN,
            undurable_bytes_max: limits::UNDURABLE_BYTES_MAX.into(),
            recent_bytes_max: limits::RECENT_BYTES_DEFAULT,
            footer_bytes_max: limits::FOOTER_CACHE_BYTES_DEFAULT,
            freed_run_bytes_min: limits::FREED_RUN_BYTES_MIN,
            punch_patience_ms: limits::PUNCH_PATIENCE_MS,
            pool_bytes_max: limits::SEGMENT_POOL_BYTES_DEFAULT,
            reserve_bytes: limits::DISK_RESERVE_BYTES_DEFAULT,
        }
    }
}

/// What the range logs of one shard share. Wrap it in an `Rc`.
pub struct ShardStorage<D: Disk> {
    pub(crate) disk: D,
    pub(crate) data_dir: PathBuf,
    pub(crate) config: StorageConfig,
    pub(crate) pool: SegmentPool<D>,
    pub(crate) flush_budget: ByteBudget,
    /// Memory of what is read ahead.
    pub(crate) read_ahead_budget: ByteBudget,
    /// No zeros are written ahead before then.
    pub(crate) zeros_rest_until: Cell<Duration>,
    pub(crate) recent: RecentCache,
    pub(crate) footers: FooterCache,
}

impl<D: Disk> ShardStorage<D> {
    /// What a flush of so many bytes takes of the budget for flushes in flight.
    pub(crate) fn flush_charge(&self, bytes: u64) -> u64 {
        bytes.max(self.config.flush_charge_bytes_min)
    }

    /// Opens the shared part of shard `shard` of `shards` in a data directory; adopts pool files of shards that no
    /// longer exist.
    pub async fn open(
        disk: D,
        data_dir: &Path,
        shard: ShardId,
        shards: u16,
        config: StorageConfig,
    ) -> Result<Self, LogError> {
        let pool = SegmentPool::open(disk.clone(), data_dir, shard, shards, &config).await?;
        Ok(Self {
            disk,
            data_dir: data_dir.to_owned(),
            pool,
            flush_budget: ByteBudget::new(config.flush_in_flight_bytes_max),
            read_ahead_budget: ByteBudget::new(limits::READ_AHEAD_BYTES_MAX),
            zeros_rest_until: Cell::default(),
            recent: RecentCache::new(config.recent_bytes_max),
            footers: FooterCache::new(config.footer_bytes_max),
            config,
        })
    }

    /// Where a range's segments are: `data/<ring>/<range>`.
    pub fn range_dir(&self, range: RangeKey) -> PathBuf {
        self.data_dir.join("data").join(range.ring.to_string()).join(range.range.to_string())
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Memory of what is read ahead now.
    pub fn read_ahead_bytes(&self) -> u64 {
        self.read_ahead_budget.bytes_used()
    }

    /// Whether another reader would find no memory to read ahead.
    pub fn is_read_ahead_full(&self) -> bool {
        self.read_ahead_bytes() + u64::from(limits::READ_AHEAD_CHUNK_BYTES) > self.read_ahead_budget.bytes_max()
    }

    /// The pool of segment files.
    pub fn pool(&self) -> &SegmentPool<D> {
        &self.pool
    }
}
