//! The disk through the broker's own stack: direct I/O on glommio, as `minikafka_storage` uses it, and nothing around it.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use glommio::io::DmaBuffer;
use glommio::{LocalExecutorBuilder, Placement};
use minikafka_storage::disk::dma::{DmaDisk, DmaDiskFile};
use minikafka_storage::disk::{BLOCK_BYTES, Disk, DiskFile, Durability};

use super::{Extent, median};
use crate::error::{BenchError, Doing, Result};
use crate::workload::noise;

/// One write or read: what the broker flushes and reads at once.
const IO_BYTES: usize = 1 << 20;
/// How many of them in flight.
const DEPTHS: [usize; 4] = [1, 2, 4, 8];
/// The same, of copies: each is a read or a write at a time.
const COPY_DEPTHS: [usize; 2] = [8, 16];
/// Both ways of making writes durable.
const DURABILITIES: [(Durability, &str); 2] =
    [(Durability::GroupFdatasync, "fdatasync"), (Durability::Dsync, "O_DSYNC")];

/// The figures of one round.
#[derive(Debug, Default)]
pub(super) struct DiskRound {
    pub writes: Vec<(String, f64)>,
    pub reads: Vec<(String, f64)>,
    pub copies: Vec<(String, f64)>,
    pub small_writes: Vec<(String, f64)>,
}

/// The files that are measured on; removed in the end.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    written: PathBuf,
    fresh: PathBuf,
}

impl Files {
    pub fn new(dir: &Path) -> Self {
        let path = |what| dir.join(format!("limits-{what}-{:016x}.tmp", rand::random::<u64>()));
        Self { dir: dir.to_owned(), written: path("written"), fresh: path("fresh") }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.written, &self.fresh] {
            // Not there when nothing was measured.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Measures every shape once, on one core.
pub(super) fn round(files: &Files, cpu: Option<usize>, extent: Extent) -> Result<DiskRound> {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let paths = (files.dir.clone(), files.written.clone(), files.fresh.clone());
    let failed = |error: String| BenchError::failed(format!("measuring the disk of {}: {error}", files.dir.display()));
    let executor = LocalExecutorBuilder::new(placement).name("limits").io_memory(64 << 20).spawn(move || async move {
        let (dir, written, fresh) = paths;
        DiskMeter { dir, written, fresh, extent }.round().await
    });
    let ended =
        executor.map_err(|error| failed(error.to_string()))?.join().map_err(|error| failed(error.to_string()))?;
    ended.doing(|| format!("measuring the disk of {}", files.dir.display()))
}

struct DiskMeter {
    dir: PathBuf,
    written: PathBuf,
    fresh: PathBuf,
    extent: Extent,
}

impl DiskMeter {
    async fn round(&self) -> io::Result<DiskRound> {
        self.prepare().await?;
        let mut round = DiskRound::default();
        for depth in DEPTHS {
            for (durability, how) in DURABILITIES {
                for fresh in [true, false] {
                    let figure = self
                        .with_file(durability, fresh, async |disk, file| self.write(disk, file, depth).await)
                        .await?;
                    round.writes.push((format!("{}, {how}, depth {depth}", file_kind(fresh)), figure));
                }
            }
            let read =
                self.with_file(Durability::GroupFdatasync, false, async |_, file| self.read(file, depth).await).await?;
            round.reads.push((format!("depth {depth}"), read));
        }
        for depth in COPY_DEPTHS {
            for (durability, how) in DURABILITIES {
                let figure =
                    self.with_file(durability, true, async |disk, file| self.copy(disk, file, depth).await).await?;
                round.copies.push((format!("into fallocated, {how}, depth {depth}"), figure));
            }
        }
        for (durability, how) in DURABILITIES {
            for fresh in [true, false] {
                let figure = self.with_file(durability, fresh, async |disk, file| self.small(disk, file).await).await?;
                round.small_writes.push((format!("{}, {how}", file_kind(fresh)), figure));
            }
        }
        Ok(round)
    }

    /// The file that is written over again and again, as recycled segments are.
    async fn prepare(&self) -> io::Result<()> {
        if self.written.try_exists()? {
            return Ok(());
        }
        let disk = DmaDisk::open(&self.dir, Durability::GroupFdatasync).await?;
        let file = disk.create(&self.written, self.extent.disk_bytes).await?;
        let written = self.write(&disk, &file, 4).await;
        file.close().await?;
        written.map(|_| ())
    }

    /// Runs `measure` on a fallocated file of its own, or on the one that was written before.
    async fn with_file(
        &self,
        durability: Durability,
        fresh: bool,
        measure: impl AsyncFnOnce(&DmaDisk, &DmaDiskFile) -> io::Result<f64>,
    ) -> io::Result<f64> {
        let disk = DmaDisk::open(&self.dir, durability).await?;
        let path = if fresh { &self.fresh } else { &self.written };
        let file = if fresh { disk.create(path, self.extent.disk_bytes).await? } else { disk.open(path).await? };
        let figure = measure(&disk, &file).await;
        file.close().await?;
        if fresh {
            disk.remove(path).await?;
        }
        figure
    }

    /// Bytes a second of durable writes.
    async fn write(&self, disk: &DmaDisk, file: &DmaDiskFile, depth: usize) -> io::Result<f64> {
        let buffer = filled(disk, IO_BYTES);
        let write = async |file: DmaDiskFile, at: u64| file.write_durable(buffer.clone(), at).await;
        self.sequential(file, depth, write).await
    }

    /// Bytes a second of reads.
    async fn read(&self, file: &DmaDiskFile, depth: usize) -> io::Result<f64> {
        let read = async |file: DmaDiskFile, at: u64| file.read_at(at, IO_BYTES).await.map(|_| ());
        self.sequential(file, depth, read).await
    }

    /// Bytes a second of reads from the file that was written before, each followed by a durable write to another one.
    async fn copy(&self, disk: &DmaDisk, to: &DmaDiskFile, depth: usize) -> io::Result<f64> {
        let from = disk.open(&self.written).await?;
        let buffer = filled(disk, IO_BYTES);
        let copy = async |to: DmaDiskFile, at: u64| {
            from.read_at(at, IO_BYTES).await?;
            to.write_durable(buffer.clone(), at).await
        };
        let figure = self.sequential(to, depth, copy).await;
        from.close().await?;
        figure
    }

    async fn sequential(
        &self,
        file: &DmaDiskFile,
        depth: usize,
        each: impl AsyncFn(DmaDiskFile, u64) -> io::Result<()>,
    ) -> io::Result<f64> {
        let (next, bytes) = (Cell::new(0), self.extent.disk_bytes);
        let started = Instant::now();
        let lane = async || {
            while next.get() + IO_BYTES as u64 <= bytes {
                let at = next.replace(next.get() + IO_BYTES as u64);
                each(file.clone(), at).await?;
            }
            Ok(())
        };
        let lanes: Vec<_> = (0..depth).map(|_| lane()).collect();
        minikafka_storage::wait::join_all(lanes).await.into_iter().collect::<io::Result<()>>()?;
        Ok(bytes as f64 / started.elapsed().as_secs_f64())
    }

    /// Median of a durable 4 KiB write, in microseconds.
    async fn small(&self, disk: &DmaDisk, file: &DmaDiskFile) -> io::Result<f64> {
        let buffer = filled(disk, BLOCK_BYTES);
        let mut times = Vec::new();
        for write in 0..u64::from(self.extent.repetitions) {
            let at = write * BLOCK_BYTES as u64 % self.extent.disk_bytes;
            let started = Instant::now();
            file.write_durable(buffer.clone(), at).await?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(&times))
    }
}

const fn file_kind(fresh: bool) -> &'static str {
    if fresh { "fallocated" } else { "pre-written" }
}

fn filled(disk: &DmaDisk, bytes: usize) -> Rc<DmaBuffer> {
    let mut buffer = disk.allocate(bytes);
    buffer.as_bytes_mut().copy_from_slice(&noise(bytes, 1));
    Rc::new(buffer)
}
