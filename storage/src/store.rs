//! The data directory's identity and its exclusive lock (`docs/DATA_FILE.md`, section 7). Blocking: used once, at start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use minikafka_core::{ClusterId, StoreId, checksum};
use rustix::fs::FlockOperation;

use crate::disk::BLOCK_BYTES;
use crate::error::{DiskResult, LogError};
use crate::flush::Fields;

/// First four bytes of the `store` file: "MKd1".
pub const STORE_MAGIC: u32 = u32::from_le_bytes(*b"MKd1");
/// Format version of everything in a data directory.
pub const STORE_VERSION: u16 = 1;

/// A data directory that belongs to this process for as long as this lives.
#[derive(Debug)]
pub struct Store {
    store_id: StoreId,
    cluster_id: ClusterId,
    /// Holds the lock.
    _lock: File,
}

impl Store {
    /// Locks the directory, created when missing, and reads its identity, or gives it one; refuses another cluster's, or
    /// another process's.
    pub fn open(data_dir: &Path, cluster_id: ClusterId) -> Result<Self, LogError> {
        fs::create_dir_all(data_dir).on("create directory", data_dir)?;
        let lock = lock(data_dir)?;
        let path = data_dir.join("store");
        let store_id = match fs::read(&path) {
            Ok(bytes) => decode(&path, &bytes, cluster_id)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir, cluster_id)?,
            Err(error) => return Err(crate::DiskError::new("read", &path, error).into()),
        };
        Ok(Self { store_id, cluster_id, _lock: lock })
    }

    /// Random, drawn when the directory was first used.
    pub const fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The cluster whose data this is.
    pub const fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }
}

fn lock(data_dir: &Path) -> Result<File, LogError> {
    let path = data_dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).on("open", &path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let reason = "another process uses this data directory; stop it, or give this one a directory of its own";
            Err(LogError::Format { path, reason: reason.to_owned() })
        }
        Err(error) => Err(crate::DiskError::new("lock", &path, error.into()).into()),
    }
}

fn create(data_dir: &Path, cluster_id: ClusterId) -> Result<StoreId, LogError> {
    if data_dir.join("data").exists() {
        let reason =
            "this directory has data but no store file; restore the file, or move the data away to start empty";
        return Err(LogError::Format { path: data_dir.join("store"), reason: reason.to_owned() });
    }
    let store_id = StoreId(rand::random::<u64>().max(1));
    let (path, temporary) = (data_dir.join("store"), data_dir.join("store.tmp"));
    let mut file = File::create(&temporary).on("create", &temporary)?;
    file.write_all(&encode(store_id, cluster_id)).on("write", &temporary)?;
    file.sync_all().on("sync", &temporary)?;
    fs::rename(&temporary, &path).on("rename", &temporary)?;
    File::open(data_dir).and_then(|dir| dir.sync_all()).on("sync directory", data_dir)?;
    Ok(store_id)
}

fn encode(store_id: StoreId, cluster_id: ClusterId) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK_BYTES];
    bytes[0..4].copy_from_slice(&STORE_MAGIC.to_le_bytes());
    bytes[8..10].copy_from_slice(&STORE_VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&store_id.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&cluster_id.0.to_le_bytes());
    let crc = checksum::crc32c(&bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(path: &Path, bytes: &[u8], cluster_id: ClusterId) -> Result<StoreId, LogError> {
    let (store_id, found) = identity(path, bytes)?;
    if found != cluster_id {
        let reason = format!("this data belongs to cluster {:016x}, not to {:016x}", found.0, cluster_id.0);
        return Err(LogError::Format { path: path.to_owned(), reason });
    }
    Ok(store_id)
}

/// What a store file says.
pub(crate) fn identity(path: &Path, bytes: &[u8]) -> Result<(StoreId, ClusterId), LogError> {
    let refuse = |reason: String| Err(LogError::Format { path: path.to_owned(), reason });
    if bytes.len() != BLOCK_BYTES || Fields(bytes).u32(0) != STORE_MAGIC {
        return refuse("not a store file; is this a MiniKafka data directory?".to_owned());
    }
    let fields = Fields(bytes);
    let mut zeroed = bytes.to_vec();
    zeroed[4..8].fill(0);
    if fields.u32(4) != checksum::crc32c(&zeroed) {
        return refuse("the store file is damaged; wipe the directory and let the node join as new".to_owned());
    }
    if fields.u16(8) != STORE_VERSION {
        return refuse(format!(
            "format version {} is not known to this release (knows {STORE_VERSION})",
            fields.u16(8)
        ));
    }
    Ok((StoreId(fields.u64(16)), ClusterId(fields.u64(24))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity_and_its_one_owner() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path(), ClusterId(7)).expect("a new store");
        let refused = Store::open(dir.path(), ClusterId(7)).expect_err("a second owner");
        assert!(refused.to_string().contains("another process"), "{refused}");
        let store_id = store.store_id();
        drop(store);
        assert_eq!(Store::open(dir.path(), ClusterId(7)).expect("the same store").store_id(), store_id);
        let refused = Store::open(dir.path(), ClusterId(8)).expect_err("another cluster");
        assert!(refused.to_string().contains("belongs to cluster"), "{refused}");
    }

    #[test]
    fn any_flipped_bit_of_the_identity_is_noticed() {
        let bytes = encode(StoreId(3), ClusterId(7));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(Path::new("store"), &flipped, ClusterId(7)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn data_without_identity_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("data")).expect("a data directory");
        assert!(Store::open(dir.path(), ClusterId(7)).is_err());
    }
}
