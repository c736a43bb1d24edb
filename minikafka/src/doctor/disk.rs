//! The disk under the data directory: direct I/O, file system, space, and what its cache means for durability.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Check;
use crate::quantity;

/// Size and alignment that every direct write has.
const BLOCK_BYTES: usize = 4096;
/// Less free space than this is soon used up.
const FREE_BYTES_GOOD: u64 = 2 << 30;
/// `f_type` of file systems that live in memory (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

pub fn examine(data_dir: &Path) -> Vec<Check> {
    let Some(directory) = nearest_existing(data_dir) else {
        let found = format!("nothing of {} exists", data_dir.display());
        return vec![Check::missing("data directory", found, "Create it, or choose another with --data-dir.")];
    };
    vec![persistence(&directory), direct_io(&directory), free_space(&directory), durability(&directory)]
}

/// The directory itself, or the one in which it would be created.
fn nearest_existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find(|ancestor| ancestor.is_dir()).map(Path::to_path_buf)
}

fn persistence(directory: &Path) -> Check {
    let name = "file system";
    match rustix::fs::statfs(directory) {
        Ok(stat) if matches!(stat.f_type as u64, TMPFS_MAGIC | RAMFS_MAGIC) => Check::warning(
            name,
            format!("{} lies in memory: records do not survive a restart of the machine", directory.display()),
            "Choose a directory on a disk (ext4 or XFS) with --data-dir.",
        ),
        Ok(_) => Check::ok(name, format!("{} is on a disk", directory.display())),
        Err(error) => unusable(name, directory, &error.into()),
    }
}

/// Writes one block past the page cache, as a shard does.
fn direct_io(directory: &Path) -> Check {
    let name = "direct I/O";
    let path = directory.join(format!(".minikafka-doctor-{}", std::process::id()));
    let written = write_directly(&path);
    // Also there when only the write failed.
    let _ = fs::remove_file(&path);
    match written {
        Ok(()) => Check::ok(name, "a block was written past the page cache"),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Check::missing(
            name,
            format!("the file system of {} does not support O_DIRECT", directory.display()),
            "Choose a directory on ext4 or XFS with --data-dir; in a container, mount a volume there.",
        ),
        Err(error) => unusable(name, directory, &error),
    }
}

fn write_directly(path: &Path) -> io::Result<()> {
    // Twice the size holds an aligned block wherever the allocation begins.
    let mut memory = vec![0u8; 2 * BLOCK_BYTES];
    let aligned = memory.as_ptr().align_offset(BLOCK_BYTES);
    let block = &mut memory[aligned..aligned + BLOCK_BYTES];
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_DIRECT).open(path)?;
    file.write_all(block)?;
    file.sync_data()
}

fn free_space(directory: &Path) -> Check {
    let name = "free space";
    match rustix::fs::statvfs(directory) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} in {}", quantity::show_bytes(free), directory.display());
            if free >= FREE_BYTES_GOOD {
                return Check::ok(name, found);
            }
            Check::warning(
                name,
                found,
                "Free some, or choose another disk with --data-dir: writes stop when it is full.",
            )
        }
        Err(error) => unusable(name, directory, &error.into()),
    }
}

/// What the device's cache means for the choice between O_DSYNC writes and a flush for several writes at once.
fn durability(directory: &Path) -> Check {
    let name = "durability";
    let Some(queue) = device_queue(directory) else {
        return Check::ok(
            name,
            "no block device to be seen: a probe at start chooses between dsync and group_fdatasync",
        );
    };
    let read = |file: &str| fs::read_to_string(queue.join(file)).map(|text| text.trim().to_owned()).unwrap_or_default();
    let (cache, fua) = (read("write_cache"), read("fua"));
    let found = if fua == "1" || cache == "write through" {
        format!("cache {cache}, FUA {fua}: every write is made durable by itself (dsync)")
    } else {
        format!("cache {cache}, FUA {fua}: a probe at start chooses between dsync and group_fdatasync")
    };
    Check::ok(name, found)
}

/// `/sys` directory of the queue of the device (or of the disk that the partition is part of).
fn device_queue(directory: &Path) -> Option<PathBuf> {
    let device = fs::metadata(directory).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    [device.join("queue"), device.parent()?.join("queue")].into_iter().find(|queue| queue.is_dir())
}

fn unusable(name: &'static str, directory: &Path, error: &io::Error) -> Check {
    let found = format!("{} is not usable: {error}", directory.display());
    Check::missing(name, found, "Give this user the right to write there, or choose another directory with --data-dir.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let missing = directory.path().join("a/b/c");
        assert_eq!(nearest_existing(&missing).as_deref(), Some(directory.path()));
        assert!(examine(&missing).iter().all(|check| check.verdict != Verdict::Missing));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the probe cleans up");
    }

    #[test]
    fn memory_is_not_a_disk() {
        if Path::new("/dev/shm").is_dir() {
            assert_eq!(persistence(Path::new("/dev/shm")).verdict, Verdict::Warning);
        }
    }

    #[test]
    fn what_cannot_be_written_is_missing() {
        assert_eq!(direct_io(Path::new("/proc")).verdict, Verdict::Missing);
    }
}
