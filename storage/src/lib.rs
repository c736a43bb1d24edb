//! Range logs on direct I/O, generic over an asynchronous, non-`Send` [`disk::Disk`]: glommio's ([`disk::dma`]) or a
//! simulated one ([`disk::sim`]) that tears, loses, flips and refuses, by seed.
//!
//! A shard opens one [`ShardStorage`], which holds what its logs share (segment pool, flush budget, recent data, loaded
//! footers), and one [`RangeLog`] per range it owns. Promises of all its ranges live in one [`PromiseFile`]; the data
//! directory as a whole belongs to one process through [`Store`].
//!
//! Promises: an index reported durable survives what `docs/DATA_FILE.md`, section 8, lets a medium do; bytes handed out
//! were verified; damage is reported by file and position and never cut away. Absent: no replication, no knowledge of
//! records, no clock but the disk's `sleep`.
//!
//! ```
//! use std::{path::Path, rc::Rc};
//! use minikafka_core::{LogIndex, RangeId, RangeKey, RingId, ShardId, entry::EntryHeader};
//! use minikafka_storage::disk::{Durability, sim::{SimDisk, SimExecutor}};
//! use minikafka_storage::{Damage, RangeLog, RecoveryVisitor, ShardStorage, StorageConfig};
//!
//! struct Count(u64);
//!
//! impl RecoveryVisitor for Count {
//!     fn snapshot(&mut self, snapshot: Option<&[u8]>) {
//!         self.0 = snapshot.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
//!     }
//!     fn entry(&mut self, _header: &EntryHeader, _body: &[u8]) {
//!         self.0 += 1;
//!     }
//!     fn header(&mut self, _header: &EntryHeader) {
//!         self.0 += 1;
//!     }
//!     fn take_snapshot(&mut self) -> Vec<u8> {
//!         self.0.to_le_bytes().to_vec()
//!     }
//!     fn damaged(&mut self, _damage: &Damage) {}
//! }
//!
//! let executor = SimExecutor::new(1);
//! let disk = SimDisk::new(&executor, Durability::Dsync);
//! executor.run(async move {
//!     let config = StorageConfig::default();
//!     let storage = ShardStorage::open(disk, Path::new("/data"), ShardId(0), 1, config).await?;
//!     let range = RangeKey { ring: RingId(3), range: RangeId(17) };
//!     let opened = RangeLog::open(Rc::new(storage), range, &mut Count(0)).await?;
//!     assert_eq!((opened.log.durable_index(), opened.log.has_file()), (LogIndex(0), false));
//!     opened.log.close().await
//! })?;
//! # Ok::<(), minikafka_storage::LogError>(())
//! ```

pub mod disk;
pub mod error;
pub mod flush;
pub mod footer;
pub mod freed_runs;
mod index;
pub mod inspect;
mod partition_filter;
pub mod promise_file;
pub mod range_log;
mod recent;
mod segment;
pub mod segment_pool;
pub mod shard_storage;
pub mod slice;
pub mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod vectors;
pub mod wait;
mod zero_ahead;

pub use error::{AppendError, Damage, DamageKind, DiskError, LogError, ReadError};
pub use freed_runs::FreedRun;
pub use promise_file::{Promise, PromiseFile};
pub use range_log::{
    Appended, Body, BodyBuffer, DamagedStretch, EntrySource, Freed, InstallError, LogUsage, Lost, MendError, Opened,
    RangeLog, Reader, RecoveryReport, RecoveryVisitor, RetentionPolicy, SegmentCopy,
};
pub use shard_storage::{ShardStorage, StorageConfig};
pub use slice::SharedSlice;
pub use store::Store;
