//! Which way of making writes durable suits a device (`docs/decisions/0006-durable-writes.md`).
//!
//! O_DSYNC is the better one where the device has FUA or no volatile cache: one request instead of two. On a device with a
//! volatile cache and no FUA its completion runs in a kernel worker on the core that took the interrupt, and waits a whole
//! tick when that core is busy: there a short timing probe decides, under the load of this very core.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::DmaDisk;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, Durability};

/// Writes timed per way.
const PROBE_WRITES: u32 = 64;
/// O_DSYNC is taken unless its median is more than this many percent of the other's.
const DSYNC_PERCENT_MAX: u32 = 130;

/// Chooses the durability for the disk that holds `dir`; call it on the executor that will use it.
pub async fn choose(dir: &Path) -> io::Result<Durability> {
    if cache_is_harmless(dir) {
        return Ok(Durability::Dsync);
    }
    let dsync = probe(dir, Durability::Dsync).await?;
    let group = probe(dir, Durability::GroupFdatasync).await?;
    tracing::info!(?dsync, ?group, "medians of a durable 4 KiB write, by O_DSYNC and by fdatasync");
    Ok(if dsync * 100 <= group * DSYNC_PERCENT_MAX { Durability::Dsync } else { Durability::GroupFdatasync })
}

/// Whether the device says that it has FUA, or no volatile cache.
fn cache_is_harmless(dir: &Path) -> bool {
    let Some(queue) = queue_dir(dir) else { return false };
    let read = |name| std::fs::read_to_string(queue.join(name)).unwrap_or_default();
    read("fua").trim() == "1" || read("write_cache").trim() == "write through"
}

/// The sysfs queue of the device that holds `dir`; a partition's is its disk's.
fn queue_dir(dir: &Path) -> Option<PathBuf> {
    let device = std::fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    [block.join("queue"), block.parent()?.join("queue")].into_iter().find(|queue| queue.is_dir())
}

/// Median of a durable 4 KiB write to blocks that were written before.
async fn probe(dir: &Path, durability: Durability) -> io::Result<Duration> {
    let disk = DmaDisk::open(dir, durability).await?;
    let path = dir.join(format!("probe-{:016x}.tmp", disk.random_u64()));
    let bytes = u64::from(PROBE_WRITES) * BLOCK_BYTES as u64;
    let file = disk.create(&path, bytes).await?;
    let timed = time_writes(&disk, &file, bytes).await;
    file.close().await?;
    disk.remove(&path).await?;
    timed
}

async fn time_writes(disk: &DmaDisk, file: &super::DmaDiskFile, bytes: u64) -> io::Result<Duration> {
    let filled = |bytes: usize| {
        let mut buffer = disk.allocate(bytes);
        buffer.as_bytes_mut().fill(0x5a);
        Rc::new(buffer)
    };
    file.write_durable(filled(bytes as usize), 0).await?;
    let block = filled(BLOCK_BYTES);
    let mut times = Vec::new();
    for write in 0..PROBE_WRITES {
        let start = Instant::now();
        file.write_durable(block.clone(), u64::from(write) * BLOCK_BYTES as u64).await?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
