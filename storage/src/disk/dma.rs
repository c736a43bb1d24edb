//! The real disk: direct I/O through glommio's io_uring reactor.
//!
//! Every handle belongs to the executor it was made on. Traps this hides: buffers come only from an open
//! `DmaFile`, so one unlinked scratch file stays open; writes and reads may be short; `DmaFile`s must be closed; names and
//! sizes are asked of the kernel, not of glommio, which stats by a path that a rename makes stale.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::io::{Directory, DmaBuffer, DmaFile, OpenOptions, ReadResult};

use super::{BLOCK_BYTES, Disk, DiskFile, Durability, SharedBytes};
use crate::wait::Notify;

mod durability;

pub use durability::choose as choose_durability;

/// A directory's disk, as one glommio executor sees it.
#[derive(Clone)]
pub struct DmaDisk {
    scratch: Rc<DmaFile>,
    durability: Durability,
    opened: Instant,
}

/// An open file of a [`DmaDisk`].
#[derive(Clone)]
pub struct DmaDiskFile {
    file: Rc<DmaFile>,
    disk: DmaDisk,
    group: Rc<SyncGroup>,
    size: Rc<Cell<u64>>,
}

impl DmaDisk {
    /// The disk on which `dir` lies. [`choose_durability`] tells which durability suits it.
    pub async fn open(dir: &Path, durability: Durability) -> io::Result<Self> {
        learn_polling(dir).await?;
        let scratch = OpenOptions::new().read(true).write(true).create_new(true).tmpfile(true).dma_open(dir).await?;
        Ok(Self { scratch: Rc::new(scratch), durability, opened: Instant::now() })
    }

    /// How writes are made durable.
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.durability == Durability::Dsync {
            options.custom_flags(libc::O_DSYNC);
        }
        options
    }

    fn wrap(&self, file: DmaFile, size: u64) -> DmaDiskFile {
        DmaDiskFile { file: Rc::new(file), disk: self.clone(), group: Rc::default(), size: Rc::new(Cell::new(size)) }
    }
}

/// Lets glommio find out on a file with data whether the device can be polled. It asks once per thread and device, by
/// reading the first file that is opened: an empty one or a hole never reaches the device, which then counts as pollable,
/// and every later read fails with `EOPNOTSUPP`.
async fn learn_polling(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!("polling-{:016x}.tmp", rand::random::<u64>()));
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(&[0x5a; BLOCK_BYTES])?;
        file.sync_all()
    });
    let learned = match written {
        Ok(()) => async { Ok(DmaFile::open(&path).await?.close().await?) }.await,
        Err(error) => Err(error),
    };
    std::fs::remove_file(&path)?;
    learned
}

impl Disk for DmaDisk {
    type File = DmaDiskFile;
    type Buffer = DmaBuffer;

    fn allocate(&self, bytes: usize) -> DmaBuffer {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks, not {bytes} bytes");
        self.scratch.alloc_dma_buffer(bytes)
    }

    fn allocation_bytes(bytes: usize) -> usize {
        // glommio's pool is a buddy allocator.
        bytes.next_power_of_two()
    }

    fn trim(buffer: &mut DmaBuffer, bytes: usize) {
        assert!(bytes.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks, not {bytes} bytes");
        buffer.trim_to_size(bytes);
    }

    async fn create(&self, path: &Path, bytes: u64) -> io::Result<DmaDiskFile> {
        let file = self.options().create_new(true).dma_open(path).await?;
        if bytes > 0
            && let Err(error) = file.pre_allocate(bytes, false).await
        {
            file.close().await?;
            glommio::io::remove(path).await?;
            return Err(error.into());
        }
        Ok(self.wrap(file, bytes))
    }

    async fn open(&self, path: &Path) -> io::Result<DmaDiskFile> {
        let size = std::fs::metadata(path)?.size();
        Ok(self.wrap(self.options().dma_open(path).await?, size))
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(glommio::io::rename(from, to).await?)
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(glommio::io::remove(path).await?)
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = dir.to_owned();
        glommio::executor().spawn_blocking(move || list_blocking(&dir)).await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut ancestor = dir;
        while !ancestor.as_os_str().is_empty() && !ancestor.try_exists()? {
            missing.push(ancestor.to_owned());
            let Some(parent) = ancestor.parent() else { break };
            ancestor = parent;
        }
        for dir in missing.iter().rev() {
            Directory::create(std::path::absolute(dir)?).await?.close().await?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                self.sync_dir(parent).await?;
            }
        }
        Ok(())
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // glommio opens relative directories from descriptor -1, which is none.
        let directory = Directory::open(std::path::absolute(dir)?).await?;
        let synced = directory.sync().await;
        directory.close().await?;
        Ok(synced?)
    }

    async fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn random_u64(&self) -> u64 {
        rand::random()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }
}

fn list_blocking(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl DiskFile for DmaDiskFile {
    type Buffer = DmaBuffer;

    async fn read_at(&self, position: u64, bytes: usize) -> io::Result<SharedBytes> {
        let first = self.file.read_at_aligned(position, bytes).await?;
        if first.len() == bytes {
            return Ok(Rc::new(ReadBytes(first)));
        }
        let mut all = first.to_vec();
        while all.len() < bytes {
            let done = all.len() / BLOCK_BYTES * BLOCK_BYTES;
            all.truncate(done);
            let more = self.file.read_at_aligned(position + done as u64, bytes - done).await?;
            if more.len() < BLOCK_BYTES.min(bytes - done) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            all.extend_from_slice(&more);
        }
        Ok(Rc::new(all))
    }

    async fn grow(&self, bytes: u64) -> io::Result<()> {
        self.file.pre_allocate(bytes, false).await?;
        self.size.set(self.size.get().max(bytes));
        Ok(())
    }

    async fn write_durable(&self, buffer: Rc<DmaBuffer>, position: u64) -> io::Result<()> {
        let bytes = buffer.len();
        let mut written = self.file.write_rc_at(buffer.clone(), position).await?;
        while written < bytes {
            // A short write is rare enough to pay with a copy: glommio writes whole buffers only.
            let done = written / BLOCK_BYTES * BLOCK_BYTES;
            let mut rest = self.disk.allocate(bytes - done);
            rest.as_bytes_mut().copy_from_slice(&buffer.as_bytes()[done..]);
            let more = self.file.write_at(rest, position + done as u64).await?;
            if done + more <= written {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written = done + more;
        }
        self.size.set(self.size.get().max(position + bytes as u64));
        match self.disk.durability {
            Durability::Dsync => Ok(()),
            Durability::GroupFdatasync => self.group.sync(&self.file).await,
        }
    }

    async fn sync(&self) -> io::Result<()> {
        self.group.sync(&self.file).await
    }

    async fn punch_hole(&self, position: u64, bytes: u64) -> io::Result<()> {
        Ok(self.file.deallocate(position, bytes).await?)
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(self.size.get())
    }

    async fn close(self) -> io::Result<()> {
        self.file.close_rc().await?;
        Ok(())
    }
}

/// What glommio read, as shared bytes.
struct ReadBytes(ReadResult);

impl AsRef<[u8]> for ReadBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The fdatasyncs of one file: one at a time, each on behalf of all writes that completed before it started.
#[derive(Default)]
struct SyncGroup {
    started: Cell<u64>,
    finished: Cell<u64>,
    failed: RefCell<Option<(io::ErrorKind, String)>>,
    changed: Notify,
}

impl SyncGroup {
    async fn sync(&self, file: &DmaFile) -> io::Result<()> {
        let needed = self.started.get() + 1;
        loop {
            if let Some((kind, message)) = &*self.failed.borrow() {
                // The kernel reports a failed write-back once; whoever shares the file must not take silence for success.
                return Err(io::Error::new(*kind, message.clone()));
            }
            if self.finished.get() >= needed {
                return Ok(());
            }
            if self.started.get() == self.finished.get() {
                self.started.set(self.started.get() + 1);
                let result = file.fdatasync().await.map_err(io::Error::from);
                if let Err(error) = result {
                    *self.failed.borrow_mut() = Some((error.kind(), error.to_string()));
                }
                self.finished.set(self.started.get());
                self.changed.notify_all();
            } else {
                let running = self.finished.get();
                self.changed.wait_for(|| (self.finished.get() > running).then_some(())).await;
            }
        }
    }
}
