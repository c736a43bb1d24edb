//! The border to the medium: everything the logs ask of a disk, in one trait with two implementations.
//!
//! Positions, lengths and buffers are multiples of [`BLOCK_BYTES`]; all methods complete or fail as a whole (short reads
//! and writes are the implementation's business). Randomness, time and waiting come from the disk as well, so that a log over
//! the simulated disk is deterministic. Absent: caching, retries of writes.

use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use minikafka_core::limits;

pub mod dma;
pub mod sim;

/// Direct I/O happens at multiples of this.
pub const BLOCK_BYTES: usize = limits::BLOCK_BYTES as usize;

/// Bytes that were read, shared without copying.
pub type SharedBytes = Rc<dyn AsRef<[u8]>>;

/// What makes a write durable on this device (`docs/decisions/0006-durable-writes.md` has the figures).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Files are opened with `O_DSYNC`: a write that completed is durable. Right for devices with FUA or without a
    /// volatile cache.
    Dsync,
    /// A plain write, then `fdatasync`, shared by the writes of one file that completed before it started.
    GroupFdatasync,
}

/// A disk, as one shard sees it. Handles are cheap to clone and stay on their thread.
pub trait Disk: Clone + 'static {
    /// An open file.
    type File: DiskFile<Buffer = Self::Buffer>;
    /// Aligned memory to write from; shared as `Rc<Buffer>` once filled.
    type Buffer: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// Memory of `bytes` (a multiple of [`BLOCK_BYTES`]), contents unspecified.
    fn allocate(&self, bytes: usize) -> Self::Buffer;

    /// Memory that a buffer of `bytes` takes, which may be more.
    fn allocation_bytes(bytes: usize) -> usize;

    /// Shortens a buffer to `bytes`, a multiple of [`BLOCK_BYTES`]; the memory stays allocated.
    fn trim(buffer: &mut Self::Buffer, bytes: usize);

    /// Creates a file that must not exist, with `bytes` allocated to it. Its name is durable after [`Disk::sync_dir`].
    fn create(&self, path: &Path, bytes: u64) -> impl Future<Output = io::Result<Self::File>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> impl Future<Output = io::Result<Self::File>>;

    /// Renames, replacing what is there. Durable once both directories are synced.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Names in a directory, sorted; empty when there is no such directory.
    fn list(&self, dir: &Path) -> impl Future<Output = io::Result<Vec<String>>>;

    /// Creates a directory with its parents, durably; does nothing when it is there.
    fn create_dir(&self, dir: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> impl Future<Output = io::Result<()>>;

    /// Bytes that can still be allocated on the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> impl Future<Output = io::Result<u64>>;

    /// A random number, for generations and identities.
    fn random_u64(&self) -> u64;

    /// Runs a task on this thread's executor, detached; it may be polled before this returns.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Time since some moment in the past; it never goes back.
    fn now(&self) -> Duration;

    /// Completes after at least `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
}

/// An open file of a [`Disk`]; clones share it.
pub trait DiskFile: Clone + 'static {
    /// The disk's buffer.
    type Buffer;

    /// Reads exactly `bytes` at `position`; fails with `UnexpectedEof` beyond the end of the file.
    fn read_at(&self, position: u64, bytes: usize) -> impl Future<Output = io::Result<SharedBytes>>;

    /// Makes the file `bytes` long, with space allocated to all of it; `StorageFull` when there is none, and nothing changed.
    fn grow(&self, bytes: u64) -> impl Future<Output = io::Result<()>>;

    /// Writes the whole buffer at `position`, growing the file when it ends beyond it; done means durable, with all that
    /// is needed to read it back. After an error nothing is known about these bytes.
    fn write_durable(&self, buffer: Rc<Self::Buffer>, position: u64) -> impl Future<Output = io::Result<()>>;

    /// Makes durable whatever was written to this file before, by whomever.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// Frees the blocks of `position..position + bytes`, which then read as zeros; the size stays.
    fn punch_hole(&self, position: u64, bytes: u64) -> impl Future<Output = io::Result<()>>;

    /// Bytes from the start to the end of the file.
    fn size(&self) -> impl Future<Output = io::Result<u64>>;

    /// Closes this handle; the file itself with the last one.
    fn close(self) -> impl Future<Output = io::Result<()>>;
}
