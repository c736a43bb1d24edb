//! The embedded coordinator's file (`docs/DATA_FILE.md`, "Coordinator state"): written anew for every batch of changes.
//!
//! Write a temporary file, sync it, rename it over the old one, sync the directory: whoever is killed at any point
//! leaves the old state or the new one. The directory is locked as long as this lives.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minikafka_core::checksum;
use minikafka_core::coordination::KeyVersion;
use minikafka_core::wire::{DecodeError, Reader};
use rustix::fs::FlockOperation;

use super::store::{Key, Store};
use super::{FILE_NAME, OpenError};

const MAGIC: [u8; 4] = *b"MKc1";
const VERSION: u16 = 1;
const TEMPORARY_NAME: &str = "coordinator.state.new";

pub(super) struct CoordinatorFile {
    path: PathBuf,
    temporary: PathBuf,
    /// Holds the lock.
    directory: File,
}

/// Why a state was not saved.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaveError {
    /// The old state is still in place.
    #[error("{0}; the change was not made")]
    NotDone(io::Error),
    /// Old or new: only a restart tells.
    #[error("{0}; whether the change was made is unknown")]
    Unknown(io::Error),
}

impl CoordinatorFile {
    pub(super) fn open(directory: &Path) -> Result<(Self, Store), OpenError> {
        let failed = |what: &str, source| OpenError::Io { what: format!("{what} {}", directory.display()), source };
        fs::create_dir_all(directory).map_err(|error| failed("creating", error))?;
        let locked = File::open(directory).map_err(|error| failed("opening", error))?;
        rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => OpenError::Locked { directory: directory.display().to_string() },
            other => failed("locking", other.into()),
        })?;
        let file =
            Self { path: directory.join(FILE_NAME), temporary: directory.join(TEMPORARY_NAME), directory: locked };
        let store = file.load()?;
        Ok((file, store))
    }

    /// Makes `store` the durable state.
    pub(super) fn save(&mut self, store: &Store) -> Result<(), SaveError> {
        self.write_temporary(&encode(store)).map_err(SaveError::NotDone)?;
        fs::rename(&self.temporary, &self.path).map_err(SaveError::Unknown)?;
        self.directory.sync_all().map_err(SaveError::Unknown)
    }

    fn write_temporary(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(&self.temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn load(&self) -> Result<Store, OpenError> {
        let name = || self.path.display().to_string();
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => file.read_to_end(&mut bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Store::default()),
            Err(error) => Err(error),
        }
        .map_err(|source| OpenError::Io { what: format!("reading {}", name()), source })?;
        decode(&bytes).map_err(|reason| OpenError::Damaged { file: name(), reason })
    }
}

fn encode(store: &Store) -> Vec<u8> {
    let keys = || store.keys.iter().filter(|(_, key)| key.owner.is_none());
    let mut out = Vec::with_capacity(keys().map(|(path, key)| 20 + path.len() + key.value.len()).sum::<usize>() + 32);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&store.changes.to_le_bytes());
    out.extend_from_slice(&(keys().count() as u64).to_le_bytes());
    for (path, key) in keys() {
        out.extend_from_slice(&key.version.0.to_le_bytes());
        out.extend_from_slice(&(path.len() as u32).to_le_bytes());
        out.extend_from_slice(&(key.value.len() as u32).to_le_bytes());
        out.extend_from_slice(path.as_bytes());
        out.extend_from_slice(&key.value);
    }
    let crc = checksum::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<Store, String> {
    let (covered, crc) = bytes.split_last_chunk::<4>().ok_or("it is shorter than its checksum")?;
    let (found, computed) = (u32::from_le_bytes(*crc), checksum::crc32c(covered));
    if found != computed {
        return Err(format!("its checksum is {found:#010x}, computed {computed:#010x}"));
    }
    let mut reader = Reader::new(covered);
    if reader.bytes(4).map_err(told)? != MAGIC {
        return Err("it does not begin with the coordinator's magic".into());
    }
    let (version, reserved) = (reader.take::<u16>().map_err(told)?, reader.take::<u16>().map_err(told)?);
    if version != VERSION || reserved != 0 {
        return Err(format!("it has format version {version}, this release reads {VERSION}"));
    }
    let mut store = Store { changes: reader.take().map_err(told)?, ..Store::default() };
    let count: u64 = reader.take().map_err(told)?;
    for _ in 0..count {
        let (path, key) = decode_key(&mut reader).map_err(told)?;
        store.keys.insert(path, key);
    }
    reader.finish().map_err(told)?;
    Ok(store)
}

fn decode_key(reader: &mut Reader<'_>) -> Result<(Arc<str>, Key), DecodeError> {
    let version = KeyVersion(reader.take()?);
    let (path_bytes, value_bytes) = (reader.take::<u32>()? as usize, reader.take::<u32>()? as usize);
    let path = std::str::from_utf8(reader.bytes(path_bytes)?).map_err(|_| DecodeError::Field { field: "path" })?;
    let value = reader.bytes(value_bytes)?.into();
    Ok((path.into(), Key { value, version, owner: None }))
}

fn told(error: DecodeError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use minikafka_core::coordination::{CoordinatorRequest, KeyLife};

    use super::super::store::SessionId;
    use super::*;

    fn filled() -> Store {
        let mut store = Store::default();
        for (path, life) in [("/a/b", KeyLife::Persistent), ("/brokers/1", KeyLife::Ephemeral)] {
            let request = CoordinatorRequest::Create { path: path.into(), value: b"value".to_vec(), life };
            store.apply(SessionId(1), request, &mut Vec::new()).expect("a free path");
        }
        store
    }

    #[test]
    fn a_state_comes_back_without_its_ephemerals() {
        let store = decode(&encode(&filled())).expect("just encoded");
        let paths: Vec<&str> = store.keys.keys().map(|path| &**path).collect();
        assert_eq!(paths, ["/a", "/a/b", "/brokers"]);
        assert_eq!(store.changes, filled().changes);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&filled());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
        assert!((0..good.len()).all(|cut| decode(&good[..cut]).is_err()));
    }
}
