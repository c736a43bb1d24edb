//! What the simulated medium holds: names and bytes, durable or still at the mercy of a crash.
//!
//! A medium is the fold of its [`Event`]s, so a recorded history gives the medium at any moment, and [`Medium::crash`] gives
//! what a power loss at that moment may leave (`docs/DATA_FILE.md`, section 8): any subset of the sectors of writes that
//! were not durable, in any order, and any subset of the unsynced changes to directories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::random::SimRandom;
use crate::disk::BLOCK_BYTES;

/// What a device writes as a whole.
pub const SECTOR_BYTES: usize = 512;

/// Number of a file, whatever its name.
pub type FileId = u64;

/// One thing that happened to the medium.
#[derive(Clone, Debug, Hash)]
pub enum Event {
    /// A file came to be, `bytes` long.
    Create(FileId, PathBuf, u64),
    /// A file got another name, replacing what was there.
    Rename(PathBuf, PathBuf),
    /// A name went away.
    Remove(PathBuf),
    /// The names of a directory became durable.
    SyncDir(PathBuf),
    /// A write was handed to the device: from now on a crash may leave any part of it.
    Submit(WriteId, FileId, u64, Rc<[u8]>),
    /// It completed: reads see it.
    Complete(WriteId),
    /// These writes, and their file's size, are durable.
    Durable(FileId, Vec<WriteId>),
    /// Blocks were freed.
    Punch(FileId, u64, u64),
    /// A file became longer; durable with the next durable write to it.
    Grow(FileId, u64),
    /// A bit rotted.
    Flip(FileId, u64, u8),
    /// Bytes became others.
    Overwrite(FileId, u64, Rc<[u8]>),
    /// The file lost what lay behind.
    Truncate(FileId, u64),
    /// A block cannot be read any more, until it is written or can be read again.
    Spoil(FileId, u64),
    /// It can be read again.
    Unspoil(FileId, u64),
}

/// Number of a write.
pub type WriteId = u64;

type Pages = BTreeMap<u64, Rc<[u8; BLOCK_BYTES]>>;

/// Names and bytes.
#[derive(Clone, Default)]
pub struct Medium {
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    unsynced_names: Vec<NameChange>,
    files: BTreeMap<FileId, FileState>,
}

#[derive(Clone)]
struct NameChange {
    file: FileId,
    removed: Option<PathBuf>,
    added: Option<PathBuf>,
    unsynced_dirs: Vec<PathBuf>,
}

#[derive(Clone, Default)]
struct FileState {
    bytes: u64,
    durable_bytes: u64,
    current: Pages,
    durable: Pages,
    writes: Vec<PendingWrite>,
    /// Numbers of blocks that cannot be read.
    spoiled: BTreeSet<u64>,
}

#[derive(Clone)]
struct PendingWrite {
    id: WriteId,
    position: u64,
    bytes: Rc<[u8]>,
    completed: bool,
}

impl Medium {
    /// The medium after `events`, on top of this one.
    pub fn replay<'a>(mut self, events: impl IntoIterator<Item = &'a Event>) -> Self {
        events.into_iter().for_each(|event| self.apply(event));
        self
    }

    /// Takes one event into account.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(file, path, bytes) => {
                self.files.insert(*file, FileState { bytes: *bytes, ..FileState::default() });
                self.change_name(*file, None, Some(path));
            }
            Event::Rename(from, to) => {
                if let Some(file) = self.names.get(from).copied() {
                    self.change_name(file, Some(from), Some(to));
                }
            }
            Event::Remove(path) => {
                if let Some(file) = self.names.get(path).copied() {
                    self.change_name(file, Some(path), None);
                }
            }
            Event::SyncDir(dir) => self.sync_dir(dir),
            Event::Submit(id, file, position, bytes) => {
                let write = PendingWrite { id: *id, position: *position, bytes: bytes.clone(), completed: false };
                self.file_mut(*file).writes.push(write);
            }
            Event::Complete(id) => self.complete(*id),
            Event::Durable(file, ids) => self.file_mut(*file).make_durable(ids),
            Event::Punch(file, position, bytes) => self.file_mut(*file).punch(*position, *bytes),
            Event::Grow(file, bytes) => {
                let state = self.file_mut(*file);
                state.bytes = state.bytes.max(*bytes);
            }
            Event::Flip(file, position, bit) => {
                let state = self.file_mut(*file);
                flip(&mut state.current, *position, *bit);
                flip(&mut state.durable, *position, *bit);
            }
            Event::Overwrite(file, position, bytes) => {
                let state = self.file_mut(*file);
                overwrite(&mut state.current, *position, bytes);
                overwrite(&mut state.durable, *position, bytes);
            }
            Event::Truncate(file, bytes) => self.file_mut(*file).truncate(*bytes),
            Event::Spoil(file, position) => {
                self.file_mut(*file).spoiled.insert(*position / BLOCK_BYTES as u64);
            }
            Event::Unspoil(file, position) => {
                self.file_mut(*file).spoiled.remove(&(*position / BLOCK_BYTES as u64));
            }
        }
    }

    /// How many choices a crash has here: writes and changes of names that are not durable.
    pub fn pending(&self) -> usize {
        self.unsynced_names.len() + self.files.values().map(|file| file.writes.len()).sum::<usize>()
    }

    /// What a power loss leaves when `fate` decides about every pending change in turn.
    pub fn crash(&self, fate: &mut dyn FnMut() -> Fate, random: &mut SimRandom) -> Self {
        let mut names = self.durable_names.clone();
        for change in &self.unsynced_names {
            if fate() != Fate::Lost {
                change.apply(&mut names);
            }
        }
        let mut files = BTreeMap::new();
        for (id, file) in &self.files {
            let after = file.crash(fate, random);
            if names.values().any(|named| named == id) {
                files.insert(*id, after);
            }
        }
        names.retain(|_, file| files.contains_key(file));
        Self { durable_names: names.clone(), names, unsynced_names: Vec::new(), files }
    }

    /// The file behind a name.
    pub fn lookup(&self, path: &Path) -> Option<FileId> {
        self.names.get(path).copied()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &PathBuf> {
        self.names.keys()
    }

    /// Bytes from start to end of a file.
    pub fn file_bytes(&self, file: FileId) -> u64 {
        self.files.get(&file).map_or(0, |state| state.bytes)
    }

    /// Bytes that files with a name take.
    pub fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.file_bytes(*file)).sum()
    }

    /// What a read sees.
    pub fn read(&self, file: FileId, position: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        if let Some(state) = self.files.get(&file) {
            for (at, chunk) in out.chunks_mut(BLOCK_BYTES).enumerate() {
                if let Some(page) = state.current.get(&(position / BLOCK_BYTES as u64 + at as u64)) {
                    chunk.copy_from_slice(&page[..chunk.len()]);
                }
            }
        }
        out
    }

    /// Whether any of these bytes cannot be read.
    pub fn is_spoiled(&self, file: FileId, position: u64, bytes: usize) -> bool {
        let blocks = position / BLOCK_BYTES as u64..(position + bytes as u64).div_ceil(BLOCK_BYTES as u64);
        self.files.get(&file).is_some_and(|state| state.spoiled.range(blocks).next().is_some())
    }

    /// Writes that completed and are not durable.
    pub fn completed_writes(&self, file: FileId) -> Vec<WriteId> {
        let writes = self.files.get(&file).map_or(&[][..], |state| &state.writes);
        writes.iter().filter(|write| write.completed).map(|write| write.id).collect()
    }

    /// Ends every write in flight, as the kernel does when it ends a process: each completes, or was never done.
    pub fn settle(&mut self, completes: &mut dyn FnMut() -> bool) {
        let in_flight: Vec<WriteId> = self
            .files
            .values()
            .flat_map(|state| &state.writes)
            .filter(|write| !write.completed)
            .map(|write| write.id)
            .collect();
        for id in in_flight {
            if completes() {
                self.complete(id);
            }
        }
        for state in self.files.values_mut() {
            state.writes.retain(|write| write.completed);
        }
    }

    fn file_mut(&mut self, file: FileId) -> &mut FileState {
        self.files.entry(file).or_default()
    }

    fn change_name(&mut self, file: FileId, removed: Option<&Path>, added: Option<&Path>) {
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        let mut unsynced_dirs: Vec<PathBuf> = removed.into_iter().chain(added).filter_map(parent).collect();
        unsynced_dirs.dedup();
        let change =
            NameChange { file, removed: removed.map(Path::to_owned), added: added.map(Path::to_owned), unsynced_dirs };
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn sync_dir(&mut self, dir: &Path) {
        let durable = &mut self.durable_names;
        self.unsynced_names.retain_mut(|change| {
            change.unsynced_dirs.retain(|unsynced| unsynced != dir);
            if change.unsynced_dirs.is_empty() {
                change.apply(durable);
            }
            !change.unsynced_dirs.is_empty()
        });
    }

    fn complete(&mut self, id: WriteId) {
        for state in self.files.values_mut() {
            if let Some(write) = state.writes.iter_mut().find(|write| write.id == id) {
                write.completed = true;
                overwrite(&mut state.current, write.position, &write.bytes);
                let first = write.position / BLOCK_BYTES as u64;
                let written = first..first + (write.bytes.len() / BLOCK_BYTES) as u64;
                state.spoiled.retain(|block| !written.contains(block));
                state.bytes = state.bytes.max(write.position + write.bytes.len() as u64);
            }
        }
    }
}

/// What a crash does to one change that was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it is there.
    Lost,
    /// All of it is there.
    Kept,
    /// Some of its sectors are there.
    TornSectors,
    /// Some of its 4 KiB blocks are there.
    TornBlocks,
    /// A first part of it is there.
    TornPrefix,
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        if let Some(removed) = &self.removed
            && names.get(removed) == Some(&self.file)
        {
            names.remove(removed);
        }
        if let Some(added) = &self.added {
            names.insert(added.clone(), self.file);
        }
    }
}

impl FileState {
    fn make_durable(&mut self, ids: &[WriteId]) {
        let (durable, pending) =
            std::mem::take(&mut self.writes).into_iter().partition(|write| ids.contains(&write.id));
        self.writes = pending;
        let durable: Vec<PendingWrite> = durable;
        for write in durable {
            overwrite(&mut self.durable, write.position, &write.bytes);
        }
        self.durable_bytes = self.bytes;
    }

    fn punch(&mut self, position: u64, bytes: u64) {
        let blocks = position / BLOCK_BYTES as u64..(position + bytes) / BLOCK_BYTES as u64;
        self.current.retain(|block, _| !blocks.contains(block));
        self.durable.retain(|block, _| !blocks.contains(block));
    }

    fn truncate(&mut self, bytes: u64) {
        let blocks = bytes.div_ceil(BLOCK_BYTES as u64);
        for pages in [&mut self.current, &mut self.durable] {
            pages.retain(|block, _| *block < blocks);
        }
        self.bytes = bytes;
        self.durable_bytes = self.durable_bytes.min(bytes);
    }

    fn crash(&self, fate: &mut dyn FnMut() -> Fate, random: &mut SimRandom) -> Self {
        let mut pages = self.durable.clone();
        let mut bytes = self.durable_bytes;
        let mut writes: Vec<&PendingWrite> = self.writes.iter().collect();
        for at in (1..writes.len()).rev() {
            writes.swap(at, random.below(at as u64 + 1) as usize);
        }
        for write in writes {
            let fate = fate();
            let kept = write.tear(fate, random, &mut pages);
            if kept {
                bytes = bytes.max(write.position + write.bytes.len() as u64);
            }
        }
        if bytes < self.bytes && random.one_in(2) {
            bytes = self.bytes;
        }
        let bytes = bytes.next_multiple_of(BLOCK_BYTES as u64);
        Self {
            bytes,
            durable_bytes: bytes,
            current: pages.clone(),
            durable: pages,
            writes: Vec::new(),
            spoiled: self.spoiled.clone(),
        }
    }
}

impl PendingWrite {
    /// Writes what `fate` leaves of this; false when that is nothing.
    fn tear(&self, fate: Fate, random: &mut SimRandom, pages: &mut Pages) -> bool {
        let unit = match fate {
            Fate::Lost => return false,
            Fate::Kept => {
                overwrite(pages, self.position, &self.bytes);
                return true;
            }
            Fate::TornBlocks => BLOCK_BYTES,
            Fate::TornSectors | Fate::TornPrefix => SECTOR_BYTES,
        };
        let units = self.bytes.len() / unit;
        let prefix = random.below(units as u64 + 1) as usize;
        for (at, chunk) in self.bytes.chunks(unit).enumerate() {
            let kept = if fate == Fate::TornPrefix { at < prefix } else { random.one_in(2) };
            if kept {
                overwrite(pages, self.position + (at * unit) as u64, chunk);
            }
        }
        true
    }
}

fn overwrite(pages: &mut Pages, position: u64, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let (block, within) = ((position + at as u64) / BLOCK_BYTES as u64, (position as usize + at) % BLOCK_BYTES);
        let count = (BLOCK_BYTES - within).min(bytes.len() - at);
        let page = pages.entry(block).or_insert_with(|| Rc::new([0; BLOCK_BYTES]));
        Rc::make_mut(page)[within..within + count].copy_from_slice(&bytes[at..at + count]);
        at += count;
    }
}

fn flip(pages: &mut Pages, position: u64, bit: u8) {
    let page = pages.entry(position / BLOCK_BYTES as u64).or_insert_with(|| Rc::new([0; BLOCK_BYTES]));
    Rc::make_mut(page)[position as usize % BLOCK_BYTES] ^= 1 << bit;
}
