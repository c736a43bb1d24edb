//! The promises of a shard's ranges in one crash-safe file (`docs/DATA_FILE.md`, section 6).
//!
//! A change writes the whole table into the first of two slots and, once that is durable, into the second; only then is it
//! told to anybody. A write torn in the first leaves the table before in the second, and nobody was told of the torn one; a
//! slot that rots later leaves its equal in the other. Changes that arrive while a write is under way share the next one:
//! one pair of durable writes serves the promises of many ranges. After a failed write the file takes nothing more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::limits::PROMISE_SLOT_BYTES_MAX;
use minikafka_core::{Epoch, RangeId, RangeKey, RingId, ShardId, checksum};

use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::{DiskError, DiskResult, LogError};
use crate::flush::Fields;
use crate::wait::Notify;

/// First four bytes of a slot: "MKp1".
pub const PROMISE_MAGIC: u32 = u32::from_le_bytes(*b"MKp1");
/// Version written today.
pub const PROMISE_VERSION: u16 = 1;

pub(crate) const SLOT_HEADER_BYTES: usize = 32;
pub(crate) const ROW_BYTES: usize = 24;
/// Slots begin with this; room for 680 ranges.
const SLOT_BYTES_MIN: usize = 16 << 10;
const HAS_LOG: u16 = 1;
/// Both hold the same table, but for a moment.
const SLOTS: u64 = 2;

/// What a node promised for one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The range.
    pub range: RangeKey,
    /// Highest epoch promised.
    pub promised: Epoch,
    /// Marker, for as long as the range has no log.
    pub marker: Epoch,
    /// Whether the range has a log; once true, a missing log is a lost one.
    pub has_log: bool,
}

impl Promise {
    /// Takes the higher of each field.
    fn merge(&mut self, other: &Self) {
        self.promised = self.promised.max(other.promised);
        self.marker = self.marker.max(other.marker);
        self.has_log |= other.has_log;
    }
}

pub(crate) type Table = BTreeMap<RangeKey, Promise>;

/// A shard's promise file. Clones share it.
#[derive(Clone)]
pub struct PromiseFile<D: Disk> {
    inner: Rc<Inner<D>>,
}

struct Inner<D: Disk> {
    disk: D,
    path: PathBuf,
    state: RefCell<State<D>>,
    changed: Notify,
}

struct State<D: Disk> {
    file: D::File,
    slot_bytes: usize,
    sequence: u64,
    durable: Table,
    wanted: Table,
    /// Changes merged into `wanted`, and how many of them are durable.
    wanted_count: u64,
    durable_count: u64,
    is_writing: bool,
    failure: Option<LogError>,
}

impl<D: Disk> PromiseFile<D> {
    /// Opens a shard's promise file, or creates it, merged with what is `known` of this shard's ranges from other files.
    pub async fn open(
        disk: D,
        data_dir: &Path,
        shard: ShardId,
        known: impl IntoIterator<Item = Promise>,
    ) -> Result<Self, LogError> {
        let dir = data_dir.join("promises");
        disk.create_dir(&dir).await.on("create directory", &dir)?;
        let name = format!("{shard}.promises");
        let path = dir.join(&name);
        if !disk.list(&dir).await.on("list", &dir)?.contains(&name) {
            let slot = encode_slot(&Table::new(), 1, SLOT_BYTES_MIN);
            replace(&disk, &path, &slot).await?.close().await.on("close", &path)?;
        }
        let file = disk.open(&path).await.on("open", &path)?;
        let Stored { sequence, table, slot_bytes, stale } = read_file(&file, &path).await?;
        // What is there may have been written by a process that was killed before it was durable, or into one slot only.
        file.sync().await.on("sync", &path)?;
        for slot in stale {
            let bytes = (SLOT_HEADER_BYTES + table.len() * ROW_BYTES).next_multiple_of(BLOCK_BYTES);
            let buffer = buffer_of(&disk, &encode_slot(&table, sequence, bytes));
            file.write_durable(buffer, slot * slot_bytes as u64).await.on("write", &path)?;
        }
        disk.sync_dir(&dir).await.on("sync directory", &dir)?;
        let state = State {
            file,
            slot_bytes,
            sequence,
            wanted: table.clone(),
            durable: table,
            wanted_count: 0,
            durable_count: 0,
            is_writing: false,
            failure: None,
        };
        let inner = Inner { disk, path, state: RefCell::new(state), changed: Notify::default() };
        let file = Self { inner: Rc::new(inner) };
        file.update(known).await?;
        Ok(file)
    }

    /// Reads all promise files of a store; per range the highest promise and marker, and any `has_log`, win.
    pub async fn read_all(disk: &D, data_dir: &Path) -> Result<BTreeMap<RangeKey, Promise>, LogError> {
        let dir = data_dir.join("promises");
        let mut all = Table::new();
        for name in disk.list(&dir).await.on("list", &dir)? {
            let path = dir.join(&name);
            if !name.ends_with(".promises") {
                continue;
            }
            let file = disk.open(&path).await.on("open", &path)?;
            let stored = read_file(&file, &path).await?;
            file.close().await.on("close", &path)?;
            for promise in stored.table.into_values() {
                all.entry(promise.range).or_insert(promise).merge(&promise);
            }
        }
        Ok(all)
    }

    /// Whether a write failed: nothing more is promised until the next start.
    pub fn has_failed(&self) -> bool {
        self.inner.state.borrow().failure.is_some()
    }

    /// What is durable for a range.
    pub fn get(&self, range: RangeKey) -> Option<Promise> {
        self.inner.state.borrow().durable.get(&range).copied()
    }

    /// Merges changes (every field only grows) and returns once they are durable.
    pub async fn update(&self, changes: impl IntoIterator<Item = Promise>) -> Result<(), LogError> {
        let Some(needed) = self.merge(changes) else { return Ok(()) };
        self.start_writing();
        self.inner
            .changed
            .wait_for(|| {
                let state = self.inner.state.borrow();
                match &state.failure {
                    Some(failure) => Some(Err(failure.clone())),
                    None => (state.durable_count >= needed).then_some(Ok(())),
                }
            })
            .await
    }

    /// Forgets a range that moved away, with the next update.
    pub fn forget(&self, range: RangeKey) {
        self.inner.state.borrow_mut().wanted.remove(&range);
    }

    /// Closes the file; updates under way must have returned.
    pub async fn close(self) -> Result<(), LogError> {
        let file = self.inner.state.borrow().file.clone();
        Ok(file.close().await.on("close", &self.inner.path)?)
    }

    /// Merges into the wanted table; the count to wait for, or `None` when nothing is new.
    fn merge(&self, changes: impl IntoIterator<Item = Promise>) -> Option<u64> {
        let mut state = self.inner.state.borrow_mut();
        let before = state.wanted.clone();
        for change in changes {
            state.wanted.entry(change.range).or_insert(change).merge(&change);
        }
        if state.wanted == before && state.wanted_count == state.durable_count && state.failure.is_none() {
            return None;
        }
        state.wanted_count += 1;
        Some(state.wanted_count)
    }

    fn start_writing(&self) {
        let must_start = !std::mem::replace(&mut self.inner.state.borrow_mut().is_writing, true);
        if must_start {
            self.inner.disk.spawn(self.inner.clone().write_all());
        }
    }
}

impl<D: Disk> Inner<D> {
    /// Writes until nothing new is wanted, or until it fails.
    async fn write_all(self: Rc<Self>) {
        loop {
            let (table, count, sequence) = {
                let mut state = self.state.borrow_mut();
                if state.failure.is_some() || state.wanted_count == state.durable_count {
                    state.is_writing = false;
                    return;
                }
                (state.wanted.clone(), state.wanted_count, state.sequence + 1)
            };
            let written = self.write(&table, sequence).await;
            let mut state = self.state.borrow_mut();
            match written {
                Ok(()) => {
                    state.sequence = sequence;
                    state.durable = table;
                    state.durable_count = count;
                }
                Err(error) => {
                    tracing::error!(%error, "promises cannot be written");
                    state.failure = Some(error);
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    async fn write(&self, table: &Table, sequence: u64) -> Result<(), LogError> {
        let (file, slot_bytes) = {
            let state = self.state.borrow();
            (state.file.clone(), state.slot_bytes)
        };
        let needed = SLOT_HEADER_BYTES + table.len() * ROW_BYTES;
        assert!(needed <= PROMISE_SLOT_BYTES_MAX, "{} ranges do not fit into a promise file", table.len());
        if needed <= slot_bytes {
            let buffer = buffer_of(&self.disk, &encode_slot(table, sequence, needed.next_multiple_of(BLOCK_BYTES)));
            // One after the other: whatever a crash leaves, one slot holds what was told last, or more.
            for slot in 0..SLOTS {
                file.write_durable(buffer.clone(), slot * slot_bytes as u64).await.on("write", &self.path)?;
            }
            return Ok(());
        }
        let slot_bytes = needed.next_power_of_two();
        let slot = encode_slot(table, sequence, slot_bytes);
        let larger = replace(&self.disk, &self.path, &slot).await?;
        {
            let mut state = self.state.borrow_mut();
            state.file = larger;
            state.slot_bytes = slot_bytes;
        }
        Ok(file.close().await.on("close", &self.path)?)
    }
}

/// Puts a file in place whose slots are both `slot`, durably, whatever a crash leaves in between.
async fn replace<D: Disk>(disk: &D, path: &Path, slot: &[u8]) -> Result<D::File, DiskError> {
    let temporary = path.with_extension("tmp");
    let dir = path.parent().unwrap_or(path);
    let names = disk.list(dir).await.on("list", dir)?;
    if temporary.file_name().is_some_and(|name| names.iter().any(|other| name == other.as_str())) {
        disk.remove(&temporary).await.on("remove", &temporary)?;
    }
    let file = disk.create(&temporary, SLOTS * slot.len() as u64).await.on("create", &temporary)?;
    let buffer = buffer_of(disk, slot);
    for number in 0..SLOTS {
        file.write_durable(buffer.clone(), number * slot.len() as u64).await.on("write", &temporary)?;
    }
    disk.rename(&temporary, path).await.on("rename", &temporary)?;
    disk.sync_dir(dir).await.on("sync directory", dir)?;
    Ok(file)
}

fn buffer_of<D: Disk>(disk: &D, bytes: &[u8]) -> Rc<D::Buffer> {
    let mut buffer = disk.allocate(bytes.len());
    buffer.as_mut().copy_from_slice(bytes);
    Rc::new(buffer)
}

/// What a promise file holds.
struct Stored {
    sequence: u64,
    table: Table,
    slot_bytes: usize,
    /// Slots that do not hold this table: to be written again before anybody is told of it.
    stale: Vec<u64>,
}

async fn read_file<F: DiskFile>(file: &F, path: &Path) -> Result<Stored, LogError> {
    let damaged = |reason: &str| LogError::Format {
        path: path.to_owned(),
        reason: format!("{reason}; promises are lost, so this store must not vote: wipe it and let it join as new"),
    };
    let bytes = file.size().await.on("ask for the size of", path)?;
    let slot_bytes = (bytes / SLOTS) as usize;
    let is_sane = slot_bytes >= BLOCK_BYTES && slot_bytes.is_multiple_of(BLOCK_BYTES);
    if !is_sane || slot_bytes > PROMISE_SLOT_BYTES_MAX {
        return Err(damaged(&format!("a promise file cannot be {bytes} bytes long")));
    }
    let mut slots: Vec<Option<(u64, Table)>> = Vec::new();
    for slot in 0..SLOTS {
        let position = slot * slot_bytes as u64;
        let decoded = match file.read_at(position, slot_bytes).await {
            Ok(read) => decode_slot((*read).as_ref()),
            Err(error) => {
                tracing::error!(path = %path.display(), position, %error, "a promise slot cannot be read");
                None
            }
        };
        if decoded.is_none() {
            tracing::warn!(path = %path.display(), position, "a promise slot does not verify: torn, or rot; the other one counts");
        }
        slots.push(decoded);
    }
    let newest = slots.iter().flatten().max_by_key(|(sequence, _)| *sequence).cloned();
    let (sequence, table) = newest.ok_or_else(|| damaged("no slot verifies"))?;
    let is_stale = |slot: &u64| slots[*slot as usize].as_ref().is_none_or(|(other, _)| *other != sequence);
    let stale = (0..SLOTS).filter(is_stale).collect();
    Ok(Stored { sequence, table, slot_bytes, stale })
}

pub(crate) fn encode_slot(table: &Table, sequence: u64, slot_bytes: usize) -> Vec<u8> {
    let mut slot = vec![0; SLOT_HEADER_BYTES];
    slot[0..4].copy_from_slice(&PROMISE_MAGIC.to_le_bytes());
    slot[8..10].copy_from_slice(&PROMISE_VERSION.to_le_bytes());
    slot[12..16].copy_from_slice(&(table.len() as u32).to_le_bytes());
    slot[16..24].copy_from_slice(&sequence.to_le_bytes());
    for promise in table.values() {
        slot.extend_from_slice(&promise.range.ring.0.to_le_bytes());
        slot.extend_from_slice(&if promise.has_log { HAS_LOG } else { 0 }.to_le_bytes());
        slot.extend_from_slice(&promise.range.range.0.to_le_bytes());
        slot.extend_from_slice(&promise.promised.0.to_le_bytes());
        slot.extend_from_slice(&promise.marker.0.to_le_bytes());
    }
    let crc = checksum::crc32c(&slot);
    slot[4..8].copy_from_slice(&crc.to_le_bytes());
    slot.resize(slot_bytes, 0);
    slot
}

pub(crate) fn decode_slot(slot: &[u8]) -> Option<(u64, Table)> {
    let fields = Fields(slot);
    if fields.u32(0) != PROMISE_MAGIC || fields.u16(8) != PROMISE_VERSION || fields.u16(10) != 0 || fields.u64(24) != 0
    {
        return None;
    }
    let end = SLOT_HEADER_BYTES + (fields.u32(12) as usize).checked_mul(ROW_BYTES)?;
    let mut zeroed = slot.get(..end)?.to_vec();
    zeroed[4..8].fill(0);
    if fields.u32(4) != checksum::crc32c(&zeroed) {
        return None;
    }
    let decode = |row: &[u8]| {
        let fields = Fields(row);
        let range = RangeKey { ring: RingId(fields.u16(0)), range: RangeId(fields.u32(4)) };
        let has_log = fields.u16(2) & HAS_LOG != 0;
        (range, Promise { range, promised: Epoch(fields.u64(8)), marker: Epoch(fields.u64(16)), has_log })
    };
    Some((fields.u64(16), zeroed[SLOT_HEADER_BYTES..].chunks_exact(ROW_BYTES).map(decode).collect()))
}

#[cfg(test)]
mod tests;
