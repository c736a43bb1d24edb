//! Segment files between uses: recycle always, fallocate on a miss, keep a bounded number.
//!
//! A file here is of exactly one size class, which its name tells. Whatever changes hands does so by a rename whose two
//! directories are synced before anyone relies on it: a crash leaves a file in one place or the other, and its old bytes do
//! not count, because its next use has another generation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use minikafka_core::ShardId;

use crate::disk::{Disk, DiskFile};
use crate::error::{DiskError, DiskResult};
use crate::shard_storage::StorageConfig;

/// Segment files waiting for their next use, for one shard.
pub struct SegmentPool<D: Disk> {
    disk: D,
    dir: PathBuf,
    bytes_max: u64,
    reserve_bytes: u64,
    class_bytes_min: u64,
    class_bytes_max: u64,
    /// Names by size class.
    free: RefCell<BTreeMap<u64, Vec<PathBuf>>>,
    bytes: Cell<u64>,
    taken: Cell<PoolCounts>,
}

/// Files given out since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Files that were in use before.
    pub recycled: u64,
    /// Files made because none of the size was there.
    pub created: u64,
}

impl<D: Disk> SegmentPool<D> {
    /// Lists what is in the pool directory of this shard, and of shards that no longer exist.
    pub async fn open(
        disk: D,
        data_dir: &Path,
        shard: ShardId,
        shards: u16,
        config: &StorageConfig,
    ) -> Result<Self, DiskError> {
        let root = data_dir.join("pool");
        let dir = root.join(shard.to_string());
        disk.create_dir(&dir).await.on("create directory", &dir)?;
        let pool = Self {
            dir,
            bytes_max: config.pool_bytes_max,
            reserve_bytes: config.reserve_bytes,
            class_bytes_min: config.segment_bytes_min,
            class_bytes_max: config.segment_bytes_max,
            free: RefCell::default(),
            bytes: Cell::new(0),
            taken: Cell::default(),
            disk,
        };
        pool.adopt(&pool.dir).await?;
        // After a kill, a file seen here may not be here durably: were it back in its log after a power loss, what was dropped
        // behind it since would be missing between.
        pool.disk.sync_dir(&pool.dir).await.on("sync directory", &pool.dir)?;
        for name in pool.disk.list(&root).await.on("list", &root)? {
            let other = name.parse::<u16>().unwrap_or(shard.0);
            if other >= shards && other % shards.max(1) == shard.0 {
                pool.adopt(&root.join(name)).await?;
            }
        }
        Ok(pool)
    }

    /// Bytes of the files that wait here.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// How many files were given out, and how many of them new.
    pub fn taken(&self) -> PoolCounts {
        self.taken.get()
    }

    /// Gives `target` a file of `bytes`: a recycled one, old bytes and all, or a new one. Its name is durable.
    /// Says as well whether the file is new, hence nothing was ever written to it.
    pub(crate) async fn take(&self, target: &Path, bytes: u64) -> Result<(D::File, bool), DiskError> {
        let dir = target.parent().unwrap_or(target);
        self.disk.create_dir(dir).await.on("create directory", dir)?;
        let recycled = self.free.borrow_mut().get_mut(&bytes).and_then(Vec::pop);
        let is_new = recycled.is_none();
        let file = match recycled {
            Some(path) => {
                self.bytes.set(self.bytes.get() - bytes);
                self.disk.rename(&path, target).await.on("rename", &path)?;
                self.disk.sync_dir(&self.dir).await.on("sync directory", &self.dir)?;
                let file = self.disk.open(target).await.on("open", target)?;
                if file.size().await.on("ask for the size of", target)? < bytes {
                    // It was prepared and never written to when a crash took its size.
                    file.grow(bytes).await.on("grow", target)?;
                }
                self.taken.set(PoolCounts { recycled: self.taken.get().recycled + 1, ..self.taken.get() });
                file
            }
            None => {
                self.check_reserve(target, bytes).await?;
                let file = self.disk.create(target, bytes).await.on("create", target)?;
                self.taken.set(PoolCounts { created: self.taken.get().created + 1, ..self.taken.get() });
                file
            }
        };
        self.disk.sync_dir(dir).await.on("sync directory", dir)?;
        Ok((file, is_new))
    }

    /// Files of the smallest size that wait here.
    pub(crate) fn smallest_free(&self) -> usize {
        self.free.borrow().get(&self.class_bytes_min).map_or(0, Vec::len)
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new file of the smallest size that counts once [`SegmentPool::add_spare`] was told; `None`: there is no room for it.
    pub(crate) async fn create_spare(&self) -> Result<Option<(D::File, PathBuf)>, DiskError> {
        let bytes = self.class_bytes_min;
        let path = self.dir.join(free_name(bytes, self.disk.random_u64()));
        match self.check_reserve(&path, bytes).await {
            _ if self.bytes.get() + bytes > self.bytes_max => return Ok(None),
            Err(error) if error.is_no_space() => return Ok(None),
            checked => checked?,
        }
        let file = self.disk.create(&path, bytes).await.on("create", &path)?;
        Ok(Some((file, path)))
    }

    /// Offers a file of [`SegmentPool::create_spare`], which is closed. Its name may be lost by a crash, which loses nothing.
    pub(crate) fn add_spare(&self, path: PathBuf) {
        self.bytes.set(self.bytes.get() + self.class_bytes_min);
        self.free.borrow_mut().entry(self.class_bytes_min).or_default().push(path);
    }

    /// Takes a file back that nothing refers to any more; unlinks it when it is of no size class or there are enough.
    pub(crate) async fn release(&self, path: &Path, bytes: u64) -> Result<(), DiskError> {
        let is_class = bytes.is_power_of_two() && (self.class_bytes_min..=self.class_bytes_max).contains(&bytes);
        let dir = path.parent().unwrap_or(path);
        if !is_class || self.bytes.get() + bytes > self.bytes_max {
            self.disk.remove(path).await.on("remove", path)?;
            return self.disk.sync_dir(dir).await.on("sync directory", dir);
        }
        self.bytes.set(self.bytes.get() + bytes);
        let free = self.dir.join(free_name(bytes, self.disk.random_u64()));
        self.disk.rename(path, &free).await.on("rename", path)?;
        self.disk.sync_dir(&self.dir).await.on("sync directory", &self.dir)?;
        self.disk.sync_dir(dir).await.on("sync directory", dir)?;
        self.free.borrow_mut().entry(bytes).or_default().push(free);
        Ok(())
    }

    async fn check_reserve(&self, target: &Path, bytes: u64) -> Result<(), DiskError> {
        let free = self.disk.free_bytes(&self.dir).await.on("ask for free space at", &self.dir)?;
        if free >= bytes.saturating_add(self.reserve_bytes) {
            return Ok(());
        }
        let reason = format!("{free} bytes are free, {bytes} needed above a reserve of {}", self.reserve_bytes);
        Err(DiskError::new("create", target, io::Error::new(io::ErrorKind::StorageFull, reason)))
    }

    async fn adopt(&self, dir: &Path) -> Result<(), DiskError> {
        for name in self.disk.list(dir).await.on("list", dir)? {
            let path = dir.join(&name);
            match parse_free_name(&name) {
                Some(bytes) if dir == self.dir && self.bytes.get() + bytes <= self.bytes_max => {
                    self.bytes.set(self.bytes.get() + bytes);
                    self.free.borrow_mut().entry(bytes).or_default().push(path);
                }
                Some(bytes) => self.release(&path, bytes).await?,
                None => tracing::warn!(path = %path.display(), "not a pool file, left alone"),
            }
        }
        Ok(())
    }
}

fn free_name(bytes: u64, random: u64) -> String {
    format!("{:02}-{random:016x}.free", bytes.ilog2())
}

pub(crate) fn parse_free_name(name: &str) -> Option<u64> {
    let (class, _) = name.strip_suffix(".free")?.split_once('-')?;
    1u64.checked_shl(class.parse().ok()?)
}
