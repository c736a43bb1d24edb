//! A disk for the recovery of one log that must not change anything: it reads, and only pretends to have synced, renamed
//! and removed. Nothing that needs a write is ever run: spawned tasks (the sealing of segments) are dropped.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::disk::{Disk, DiskFile, SharedBytes};

/// The files of one directory, or only one of them, to be read and never written. Paths count by their file names, so that a
/// copy of a range's directory can be looked at wherever it is.
#[derive(Clone, Debug)]
pub struct ReadOnlyDisk {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Where the files are.
    dir: PathBuf,
    /// The directory that the log asks for.
    asked: PathBuf,
    /// The only file to be seen, if not all.
    only: Option<String>,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct ReadOnlyFile(Rc<File>);

impl ReadOnlyDisk {
    /// Shows the files of `dir` (or `only` one of them) in the directory `asked`; all others are empty.
    pub fn new(dir: &Path, asked: &Path, only: Option<String>) -> Self {
        Self { inner: Rc::new(Inner { dir: dir.to_owned(), asked: asked.to_owned(), only }) }
    }

    /// The real path of one that the log was shown.
    pub fn real(&self, path: &Path) -> PathBuf {
        path.file_name().map_or_else(|| self.inner.dir.clone(), |name| self.inner.dir.join(name))
    }
}

/// What the checkpoint of a clean stop ends with.
const CHECKPOINT_SUFFIX: &str = ".checkpoint";

/// What may stand behind the name of the only file: nothing, or what makes it its list of freed runs.
fn is_of(suffix: &str) -> bool {
    suffix.is_empty() || suffix == ".freed"
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "an inspection does not write")
}

impl Disk for ReadOnlyDisk {
    type File = ReadOnlyFile;
    type Buffer = Vec<u8>;

    fn allocate(&self, bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    fn allocation_bytes(bytes: usize) -> usize {
        bytes
    }

    fn trim(buffer: &mut Vec<u8>, bytes: usize) {
        buffer.truncate(bytes);
    }

    async fn create(&self, _path: &Path, _bytes: u64) -> io::Result<ReadOnlyFile> {
        Err(refused())
    }

    async fn open(&self, path: &Path) -> io::Result<ReadOnlyFile> {
        File::open(self.real(path)).map(|file| ReadOnlyFile(Rc::new(file)))
    }

    async fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if dir != self.inner.asked {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.inner.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // The checkpoint of a clean stop would spare the scan that an inspection is for.
            if name.ends_with(CHECKPOINT_SUFFIX) {
                continue;
            }
            if self.inner.only.as_ref().is_none_or(|only| name.strip_prefix(only.as_str()).is_some_and(is_of)) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    async fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(0)
    }

    fn random_u64(&self) -> u64 {
        0
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(task);
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _duration: Duration) {}
}

impl DiskFile for ReadOnlyFile {
    type Buffer = Vec<u8>;

    async fn read_at(&self, position: u64, bytes: usize) -> io::Result<SharedBytes> {
        let mut buffer = vec![0; bytes];
        self.0.read_exact_at(&mut buffer, position)?;
        Ok(Rc::new(buffer))
    }

    async fn write_durable(&self, _buffer: Rc<Vec<u8>>, _position: u64) -> io::Result<()> {
        Err(refused())
    }

    async fn grow(&self, _bytes: u64) -> io::Result<()> {
        Err(refused())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn punch_hole(&self, _position: u64, _bytes: u64) -> io::Result<()> {
        Err(refused())
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}
