//! A simulated disk: memory that tears, loses, reorders, rots, fills up and fails, all by seed.
//!
//! It runs on the [`SimExecutor`], whose seed also decides how long each operation takes. Everything that happens to the
//! medium is recorded; [`SimDisk::crash_at`] gives a new disk with what a power loss at any recorded moment may have left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::{BLOCK_BYTES, Disk, DiskFile, Durability, SharedBytes};

mod executor;
mod medium;
mod random;

pub use executor::SimExecutor;
pub use medium::{Event, Fate, FileId, Medium, SECTOR_BYTES, WriteId};
pub use random::SimRandom;

/// A simulated disk; clones share it.
#[derive(Clone)]
pub struct SimDisk {
    executor: SimExecutor,
    durability: Durability,
    state: Rc<State>,
}

struct State {
    base: Medium,
    now: RefCell<Medium>,
    /// None: only the present is kept.
    history: Option<RefCell<Vec<Event>>>,
    dirs: RefCell<BTreeSet<PathBuf>>,
    ids: Cell<u64>,
    capacity_bytes: Cell<u64>,
    faults: RefCell<Faults>,
}

/// What goes wrong next; counts are operations from now, 0 being the next one.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// This write fails with EIO; part of it may be on the medium.
    pub write: Option<u64>,
    /// This read fails with EIO.
    pub read: Option<u64>,
    /// Every operation takes so much longer.
    pub delay: Duration,
    /// Test of tests: writes are reported durable before they are.
    pub lies_about_durability: bool,
}

/// An open file of a [`SimDisk`].
#[derive(Clone)]
pub struct SimFile {
    disk: SimDisk,
    file: FileId,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(executor: &SimExecutor, durability: Durability) -> Self {
        Self::with_medium(executor, durability, Medium::default(), BTreeSet::new(), true)
    }

    /// An empty disk that keeps no history, for long simulations: it can crash now, not in its past.
    pub fn without_history(executor: &SimExecutor, durability: Durability) -> Self {
        Self::with_medium(executor, durability, Medium::default(), BTreeSet::new(), false)
    }

    fn with_medium(
        executor: &SimExecutor,
        durability: Durability,
        medium: Medium,
        dirs: BTreeSet<PathBuf>,
        has_history: bool,
    ) -> Self {
        let state = State {
            base: if has_history { medium.clone() } else { Medium::default() },
            now: RefCell::new(medium),
            history: has_history.then(RefCell::default),
            dirs: RefCell::new(dirs),
            ids: Cell::new(executor.random(|random| random.next_u64() >> 8)),
            capacity_bytes: Cell::new(u64::MAX),
            faults: RefCell::default(),
        };
        Self { executor: executor.clone(), durability, state: Rc::new(state) }
    }

    /// The executor it runs on.
    pub fn executor(&self) -> &SimExecutor {
        &self.executor
    }

    /// What happened so far, counted: a moment for [`SimDisk::crash_at`].
    pub fn moment(&self) -> usize {
        self.history().borrow().len()
    }

    /// A number that stands for everything that happened so far, in order: equal for two runs of one seed, whatever they ran
    /// on, or something in them is not deterministic.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.history().borrow().hash(&mut hasher);
        hasher.finish()
    }

    /// The medium as it was at `moment`.
    pub fn medium_at(&self, moment: usize) -> Medium {
        self.state.base.clone().replay(&self.history().borrow()[..moment])
    }

    fn history(&self) -> &RefCell<Vec<Event>> {
        self.state.history.as_ref().expect("this disk was made without a history")
    }

    /// A disk, on `executor`, with what a power loss at `moment` left; `seed` decides what that is.
    pub fn crash_at(&self, moment: usize, seed: u64, executor: &SimExecutor) -> Self {
        self.crash_of(&self.medium_at(moment), seed, executor)
    }

    /// The same, now; needs no history.
    pub fn crash_now(&self, seed: u64, executor: &SimExecutor) -> Self {
        self.crash_of(&self.state.now.borrow(), seed, executor)
    }

    fn crash_of(&self, medium: &Medium, seed: u64, executor: &SimExecutor) -> Self {
        let mut random = SimRandom::new(seed);
        let mut fates = random.clone();
        let mut fate = || match fates.below(8) {
            0..3 => Fate::Lost,
            3..5 => Fate::Kept,
            5 => Fate::TornSectors,
            6 => Fate::TornBlocks,
            _ => Fate::TornPrefix,
        };
        self.crashed(medium.crash(&mut fate, &mut random), executor)
    }

    /// Like [`SimDisk::crash_at`], with bit i of `kept` deciding whether the i-th pending change is there: enumerates all
    /// whole-write images as `kept` runs from 0 to 2^pending.
    pub fn crash_keeping(&self, moment: usize, kept: u64, executor: &SimExecutor) -> Self {
        let mut at = 0;
        let mut fate = || {
            at += 1;
            if at <= 64 && kept >> (at - 1) & 1 == 1 { Fate::Kept } else { Fate::Lost }
        };
        self.crashed(self.medium_at(moment).crash(&mut fate, &mut SimRandom::new(kept)), executor)
    }

    /// A disk, on `executor`, after the process was killed without a power loss: whatever completed can be
    /// read, and what was in flight completed or was never done; nothing more is durable than before.
    pub fn killed(&self, executor: &SimExecutor) -> Self {
        self.killed_with(self.state.now.borrow().clone(), executor)
    }

    /// Like [`SimDisk::killed`], at a moment of the past.
    pub fn killed_at(&self, moment: usize, executor: &SimExecutor) -> Self {
        self.killed_with(self.medium_at(moment), executor)
    }

    fn killed_with(&self, mut medium: Medium, executor: &SimExecutor) -> Self {
        medium.settle(&mut || executor.random(|random| random.one_in(2)));
        self.crashed(medium, executor)
    }

    fn crashed(&self, medium: Medium, executor: &SimExecutor) -> Self {
        let has_history = self.state.history.is_some();
        Self::with_medium(executor, self.durability, medium, self.state.dirs.borrow().clone(), has_history)
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.state.faults.borrow_mut() = faults;
    }

    /// Space that files take.
    pub fn used_bytes(&self) -> u64 {
        self.state.now.borrow().used_bytes()
    }

    /// Limits the space that files can take.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.capacity_bytes.set(bytes);
    }

    /// Flips a bit of a file, durably.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) {
        if let Some(file) = self.lookup(path) {
            self.record(Event::Flip(file, position, bit));
        }
    }

    /// Replaces bytes of a file, durably.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) {
        if let Some(file) = self.lookup(path) {
            self.record(Event::Overwrite(file, position, bytes.into()));
        }
    }

    /// Cuts a file off, durably.
    pub fn truncate(&self, path: &Path, bytes: u64) {
        if let Some(file) = self.lookup(path) {
            self.record(Event::Truncate(file, bytes));
        }
    }

    /// Makes the block at `position` unreadable (EIO) until it is written again, or [`SimDisk::unspoil`]ed.
    pub fn spoil(&self, path: &Path, position: u64) {
        if let Some(file) = self.lookup(path) {
            self.record(Event::Spoil(file, position));
        }
    }

    /// Makes the block at `position` readable again: the disk only failed for a while.
    pub fn unspoil(&self, path: &Path, position: u64) {
        if let Some(file) = self.lookup(path) {
            self.record(Event::Unspoil(file, position));
        }
    }

    /// All file names, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state.now.borrow().names().cloned().collect()
    }

    /// Everything a file holds, as reads see it.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let medium = self.state.now.borrow();
        medium.lookup(path).map(|file| medium.read(file, 0, medium.file_bytes(file) as usize)).unwrap_or_default()
    }

    fn lookup(&self, path: &Path) -> Option<FileId> {
        self.state.now.borrow().lookup(path)
    }

    fn record(&self, event: Event) {
        self.state.now.borrow_mut().apply(&event);
        if let Some(history) = &self.state.history {
            history.borrow_mut().push(event);
        }
    }

    fn next_id(&self) -> u64 {
        self.state.ids.set(self.state.ids.get() + 1);
        self.state.ids.get()
    }

    /// Lets some virtual time pass: mostly short, now and then long enough to be overtaken by much.
    async fn take_time(&self) {
        let micros = self.executor.random(|random| {
            let scale = if random.one_in(16) { 5000 } else { 300 };
            1 + random.below(scale)
        });
        let delay = self.state.faults.borrow().delay;
        self.executor.sleep(Duration::from_micros(micros) + delay).await;
    }

    fn has_space_for(&self, more: u64) -> bool {
        self.state.now.borrow().used_bytes().saturating_add(more) <= self.state.capacity_bytes.get()
    }

    fn fails(&self, fault: impl Fn(&mut Faults) -> &mut Option<u64>) -> bool {
        let mut faults = self.state.faults.borrow_mut();
        let fault = fault(&mut faults);
        match fault {
            Some(0) => {
                *fault = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {}", path.display()))
}

fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Disk for SimDisk {
    type File = SimFile;
    type Buffer = Vec<u8>;

    fn allocate(&self, bytes: usize) -> Vec<u8> {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks, not {bytes} bytes");
        // Not zeroed on a real disk: whoever relies on zeros shall see it here.
        vec![0xa5; bytes]
    }

    fn allocation_bytes(bytes: usize) -> usize {
        bytes
    }

    fn trim(buffer: &mut Vec<u8>, bytes: usize) {
        assert!(bytes.is_multiple_of(BLOCK_BYTES) && bytes <= buffer.len(), "cannot trim to {bytes} bytes");
        buffer.truncate(bytes);
    }

    async fn create(&self, path: &Path, bytes: u64) -> io::Result<SimFile> {
        self.take_time().await;
        let dir_exists = path.parent().is_some_and(|dir| self.state.dirs.borrow().contains(dir));
        if !dir_exists {
            return Err(not_found(path));
        }
        if self.lookup(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !self.has_space_for(bytes) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = self.next_id();
        self.record(Event::Create(file, path.to_owned(), bytes));
        Ok(SimFile { disk: self.clone(), file })
    }

    async fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.take_time().await;
        let file = self.lookup(path).ok_or_else(|| not_found(path))?;
        Ok(SimFile { disk: self.clone(), file })
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.take_time().await;
        self.lookup(from).ok_or_else(|| not_found(from))?;
        self.record(Event::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.take_time().await;
        self.lookup(path).ok_or_else(|| not_found(path))?;
        self.record(Event::Remove(path.to_owned()));
        Ok(())
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.take_time().await;
        let medium = self.state.now.borrow();
        let names: Vec<&PathBuf> = medium.names().collect();
        let dirs = self.state.dirs.borrow();
        let mut found: Vec<String> = names
            .into_iter()
            .chain(dirs.iter())
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        found.sort();
        Ok(found)
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.take_time().await;
        self.state.dirs.borrow_mut().extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.take_time().await;
        self.record(Event::SyncDir(dir.to_owned()));
        Ok(())
    }

    async fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.state.capacity_bytes.get().saturating_sub(self.state.now.borrow().used_bytes()))
    }

    fn random_u64(&self) -> u64 {
        self.executor.random(SimRandom::next_u64)
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }

    fn now(&self) -> Duration {
        self.executor.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.executor.sleep(duration).await;
    }
}

impl SimFile {
    fn check_alignment(position: u64, bytes: usize) {
        assert!(
            position.is_multiple_of(BLOCK_BYTES as u64) && bytes.is_multiple_of(BLOCK_BYTES),
            "direct I/O of {bytes} bytes at {position} is not aligned"
        );
    }
}

impl DiskFile for SimFile {
    type Buffer = Vec<u8>;

    async fn read_at(&self, position: u64, bytes: usize) -> io::Result<SharedBytes> {
        Self::check_alignment(position, bytes);
        self.disk.take_time().await;
        if self.disk.fails(|faults| &mut faults.read) {
            return Err(input_output_error());
        }
        let medium = self.disk.state.now.borrow();
        if position + bytes as u64 > medium.file_bytes(self.file) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if medium.is_spoiled(self.file, position, bytes) {
            return Err(input_output_error());
        }
        Ok(Rc::new(medium.read(self.file, position, bytes)))
    }

    async fn grow(&self, bytes: u64) -> io::Result<()> {
        self.disk.take_time().await;
        let more = bytes.saturating_sub(self.disk.state.now.borrow().file_bytes(self.file));
        if !self.disk.has_space_for(more) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.disk.record(Event::Grow(self.file, bytes));
        Ok(())
    }

    async fn write_durable(&self, buffer: Rc<Vec<u8>>, position: u64) -> io::Result<()> {
        Self::check_alignment(position, buffer.len());
        let disk = &self.disk;
        let id = disk.next_id();
        let end = position + buffer.len() as u64;
        let grows = end.saturating_sub(disk.state.now.borrow().file_bytes(self.file));
        if grows > 0 && !disk.has_space_for(grows) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        disk.record(Event::Submit(id, self.file, position, buffer.as_slice().into()));
        if disk.state.faults.borrow().lies_about_durability {
            disk.record(Event::Complete(id));
            return Ok(());
        }
        disk.take_time().await;
        if disk.fails(|faults| &mut faults.write) {
            return Err(input_output_error());
        }
        disk.record(Event::Complete(id));
        match disk.durability {
            Durability::Dsync => disk.record(Event::Durable(self.file, vec![id])),
            Durability::GroupFdatasync => self.sync().await?,
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        // What completes while the sync runs is not covered by it.
        let completed = self.disk.state.now.borrow().completed_writes(self.file);
        self.disk.take_time().await;
        self.disk.record(Event::Durable(self.file, completed));
        Ok(())
    }

    async fn punch_hole(&self, position: u64, bytes: u64) -> io::Result<()> {
        Self::check_alignment(position, bytes as usize);
        self.disk.take_time().await;
        self.disk.record(Event::Punch(self.file, position, bytes));
        Ok(())
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state.now.borrow().file_bytes(self.file))
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}
