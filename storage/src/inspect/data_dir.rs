//! What lies where (`docs/DATA_FILE.md`, section 7): from a path that an operator names to the logs behind it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use minikafka_core::{ClusterId, RangeId, RangeKey, RingId, StoreId};

use super::promises::{PromiseTable, read_promises};
use super::{Fault, Finding};
use crate::segment::SegmentName;
use crate::segment_pool::parse_free_name;
use crate::store;

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Data directories of nodes: one, or those below the directory of a whole process.
    Nodes(Vec<PathBuf>),
    /// Ranges: of a ring, of a directory of rings, or one alone.
    Ranges(Vec<RangeDir>),
    /// A single segment file.
    Segment(PathBuf),
    /// A single promise file.
    Promises(PathBuf),
}

/// Where a range's segments are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeDir {
    /// The directory.
    pub path: PathBuf,
    /// The range, as the path says.
    pub range: Option<RangeKey>,
}

/// Segment files waiting for their next use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolFiles {
    /// How many.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A node's data directory, but for what is in its logs.
#[derive(Clone, Debug, Default)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Who it is, if its store file verifies.
    pub identity: Option<(StoreId, ClusterId)>,
    /// A process has it locked: its last flushes may be on their way.
    pub is_running: bool,
    /// The ranges that have a directory.
    pub ranges: Vec<RangeDir>,
    /// What the promise files hold, all together.
    pub promises: PromiseTable,
    /// Files that wait for their next use.
    pub pool: PoolFiles,
    /// What does not verify here: promises, identity, logs that are gone.
    pub findings: Vec<Finding>,
}

impl Place {
    /// Finds out what a path is.
    pub fn of(path: &Path) -> io::Result<Self> {
        if fs::metadata(path)?.is_file() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if SegmentName::parse(&name).is_some() {
                return Ok(Self::Segment(path.to_owned()));
            }
            if name.ends_with(".promises") {
                return Ok(Self::Promises(path.to_owned()));
            }
            return Err(nothing(path, "neither a segment file (<number>-<generation>.segment) nor a promise file"));
        }
        let names = names_in(path)?;
        let is_node =
            |names: &[String]| names.iter().any(|name| matches!(name.as_str(), "store" | "data" | "promises"));
        if is_node(&names) {
            return Ok(Self::Nodes(vec![path.to_owned()]));
        }
        let nodes: Vec<PathBuf> =
            names.iter().filter(|name| name.starts_with("node-")).map(|name| path.join(name)).collect();
        if !nodes.is_empty() {
            return Ok(Self::Nodes(nodes));
        }
        let ranges = ranges_below(path, 2)?;
        if ranges.is_empty() {
            return Err(nothing(path, "no data directory, and no segment file is in it or two directories below it"));
        }
        Ok(Self::Ranges(ranges))
    }
}

fn nothing(path: &Path, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: {reason}", path.display()))
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Directories with segment files, `depth` directories below `dir` at most, in order of ring and range.
fn ranges_below(dir: &Path, depth: usize) -> io::Result<Vec<RangeDir>> {
    let names = names_in(dir)?;
    if names.iter().any(|name| SegmentName::parse(name).is_some()) {
        return Ok(vec![RangeDir { path: dir.to_owned(), range: range_of(dir) }]);
    }
    if depth == 0 {
        return Ok(Vec::new());
    }
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers {
        let below = dir.join(number.to_string());
        if below.is_dir() {
            found.extend(ranges_below(&below, depth - 1)?);
        }
    }
    Ok(found)
}

/// The range that a directory `…/<ring>/<range>` is of.
fn range_of(dir: &Path) -> Option<RangeKey> {
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let ring = u16::try_from(number(dir.parent()?)?).ok()?;
    Some(RangeKey { ring: RingId(ring), range: RangeId(number(dir)?) })
}

impl DataDir {
    /// Looks a node's directory over; what is in the logs is for [`super::verify_range`].
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut found = Self { path: path.to_owned(), is_running: is_locked(path), ..Self::default() };
        found.read_store();
        found.read_all_promises()?;
        let data = path.join("data");
        if data.is_dir() {
            found.ranges = ranges_below(&data, 2)?;
        }
        found.count_pool()?;
        found.look_for_lost_logs();
        Ok(found)
    }

    fn read_store(&mut self) {
        let path = self.path.join("store");
        let fault = match fs::read(&path) {
            Ok(bytes) => match store::identity(&path, &bytes) {
                Ok(identity) => {
                    self.identity = Some(identity);
                    return;
                }
                Err(crate::LogError::Format { reason, .. }) => Fault::Store(reason),
                Err(error) => Fault::Store(error.to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.path.join("data").exists() => return,
            Err(error) => Fault::Store(format!("the identity of this directory cannot be read: {error}")),
        };
        self.findings.push(Finding { path, position: 0, entries: None, fault });
    }

    fn read_all_promises(&mut self) -> io::Result<()> {
        let dir = self.path.join("promises");
        if !dir.is_dir() {
            return Ok(());
        }
        for name in names_in(&dir)?.iter().filter(|name| name.ends_with(".promises")) {
            let (table, findings) = read_promises(&dir.join(name));
            self.promises.sequence = self.promises.sequence.max(table.sequence);
            self.promises.promises.extend(table.promises);
            self.findings.extend(findings);
        }
        Ok(())
    }

    fn count_pool(&mut self) -> io::Result<()> {
        let root = self.path.join("pool");
        if !root.is_dir() {
            return Ok(());
        }
        for shard in names_in(&root)? {
            let dir = root.join(shard);
            if dir.is_dir() {
                for bytes in names_in(&dir)?.iter().filter_map(|name| parse_free_name(name)) {
                    self.pool.files += 1;
                    self.pool.bytes += bytes;
                }
            }
        }
        Ok(())
    }

    /// A log that was there, as the promises say, and is not.
    fn look_for_lost_logs(&mut self) {
        for promise in self.promises.promises.iter().filter(|promise| promise.has_log) {
            let key = promise.range;
            if self.ranges.iter().any(|dir| dir.range == Some(key)) {
                continue;
            }
            let path = self.path.join("data").join(key.ring.to_string()).join(key.range.to_string());
            self.findings.push(Finding { path, position: 0, entries: None, fault: Fault::LostLog });
        }
    }
}

/// Whether a process has the directory locked, as the kernel tells; asking the lock itself could keep a broker from
/// starting at this very moment.
fn is_locked(dir: &Path) -> bool {
    let Ok(lock) = fs::metadata(dir.join("lock")) else { return false };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let inode = format!(":{}", lock.ino());
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.nth(3).is_some_and(|file| file.ends_with(&inode))
    })
}
