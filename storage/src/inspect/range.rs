//! The verdict about one range's log: what its recovery would say, and what every byte of its segments says.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::entry::EntryHeader;
use minikafka_core::{Epoch, LogIndex, LogPoint, RangeId, RangeKey, RingId, ShardId};

use super::read_only_disk::ReadOnlyDisk;
use super::segment::{EntryImage, Footer, FooterImage, Piece, SegmentImage, entries_of};
use super::tally::Tally;
use super::{Fault, Finding, Findings, SnapshotCheck, owner, sealed};
use crate::error::{Damage, DamageKind, LogError};
use crate::flush::FLUSH_LENGTH_MAX;
use crate::freed_runs::{self, FreedRuns};
use crate::segment::{self, SegmentName};
use crate::{Opened, RangeLog, RecoveryReport, RecoveryVisitor, ShardStorage, StorageConfig};

/// What stands behind the log's end and was never acknowledged: the next start drops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornEnd {
    /// Bytes of entries.
    pub bytes: u64,
    /// Where it begins, when something is there that can be pointed at.
    pub place: Option<(PathBuf, u64)>,
}

/// What is known of a range's log, or of a single segment.
#[derive(Clone, Debug, Default)]
pub struct RangeVerdict {
    /// Directory, or segment file.
    pub path: PathBuf,
    /// Segment files.
    pub segments: u64,
    /// Those with a footer that verifies.
    pub sealed: u64,
    /// Bytes of the segment files.
    pub file_bytes: u64,
    /// Bytes of them that were given back: dead entries of sealed segments.
    pub freed_bytes: u64,
    /// First index that the log still has.
    pub first_index: LogIndex,
    /// Its last entry.
    pub end: LogPoint,
    /// Epoch of the last entry.
    pub last_epoch: Epoch,
    /// Epoch into which the log was last reconciled.
    pub marker: Epoch,
    /// Good entries.
    pub tally: Tally,
    /// What the next start drops.
    pub torn: Option<TornEnd>,
    /// What does not verify.
    pub findings: Findings,
}

/// A header that rotted, and the flush behind it.
struct RottenHeader {
    path: PathBuf,
    position: u64,
    next_flush: Option<u64>,
}

/// What lies in segments that have no footer.
#[derive(Default)]
struct Unsealed {
    rotten: Vec<RottenHeader>,
    /// Where an entry with this index should be and does not verify.
    bad_entries: Vec<(PathBuf, u64, LogIndex)>,
}

/// A list of freed runs has 1,024 rows of 48 bytes at most.
const SIDECAR_BYTES_MAX: u64 = 64 << 10;
/// Bad entries remembered to point at a torn end: the last ones count.
const BAD_ENTRIES_MAX: usize = 1_000;

/// Counts what recovery replays.
#[derive(Default)]
struct Replayed {
    /// Entries up to here are in sealed segments, and counted there.
    sealed_end: LogIndex,
    tally: Tally,
}

impl RecoveryVisitor for Replayed {
    fn snapshot(&mut self, _snapshot: Option<&[u8]>) {
        self.tally = Tally::default();
    }

    fn entry(&mut self, header: &EntryHeader, _body: &[u8]) {
        if header.index > self.sealed_end {
            self.tally.add(header);
        }
    }

    fn take_snapshot(&mut self) -> Vec<u8> {
        Vec::new()
    }

    // What is damaged is in the report, and no good entry.
    fn header(&mut self, _header: &EntryHeader) {}

    fn damaged(&mut self, _damage: &Damage) {}
}

/// Verifies the log of `range` in a directory of segment files; `None`: of the range that most of its entries are of.
/// `is_state` checks the snapshots in its footers.
pub fn verify_range(dir: &Path, range: Option<RangeKey>, is_state: Option<SnapshotCheck>) -> RangeVerdict {
    verify(dir, (dir, None), range, is_state)
}

/// Verifies a single segment file, whatever the log is around it.
pub fn verify_segment(path: &Path, is_state: Option<SnapshotCheck>) -> RangeVerdict {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return failed(path, "not the path of a file".to_owned());
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut verdict = verify(path, (dir, Some(name.to_string_lossy().into_owned())), None, is_state);
    // Where the log begins is not in this file.
    let starts_elsewhere = |finding: &Finding| finding.fault == Fault::Entries(DamageKind::Snapshot);
    verdict.findings.list.retain(|finding| !starts_elsewhere(finding));
    verdict
}

fn failed(path: &Path, reason: String) -> RangeVerdict {
    let mut verdict = RangeVerdict { path: path.to_owned(), ..RangeVerdict::default() };
    verdict.findings.push(Finding { path: path.to_owned(), position: 0, entries: None, fault: Fault::File(reason) });
    verdict
}

fn verify(
    path: &Path,
    (dir, only): (&Path, Option<String>),
    range: Option<RangeKey>,
    is_state: Option<SnapshotCheck>,
) -> RangeVerdict {
    let mut verdict = RangeVerdict { path: path.to_owned(), ..RangeVerdict::default() };
    let names = match segment_names(dir, only.as_deref()) {
        Ok(names) => names,
        Err(error) => return failed(path, format!("cannot be listed: {error}")),
    };
    // Where no entry is found, none can be of another range.
    let any = RangeKey { ring: RingId(0), range: RangeId(0) };
    let range = range.or_else(|| owner::range_of(dir, &names)).unwrap_or(any);
    let mut unsealed = Unsealed::default();
    let mut replayed = Replayed::default();
    for name in names {
        let file = dir.join(name.file_name());
        match look_into(&file, (range, is_state), &mut verdict, &mut unsealed) {
            Ok(sealed_end) => replayed.sealed_end = replayed.sealed_end.max(sealed_end),
            // A running broker gave it back to the pool meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => verdict.findings.push(Finding {
                path: file,
                position: 0,
                entries: None,
                fault: Fault::File(format!("cannot be read: {error}")),
            }),
        }
    }
    match recover(dir, only, range, &mut replayed) {
        Ok((disk, report)) => take_report(&mut verdict, &disk, report, &mut unsealed),
        Err(error) => verdict.findings.push(Finding {
            path: path.to_owned(),
            position: 0,
            entries: None,
            fault: Fault::File(error.to_string()),
        }),
    }
    for header in unsealed.rotten {
        verdict.findings.push(Finding {
            path: header.path,
            position: header.position,
            entries: None,
            fault: Fault::FlushHeader,
        });
    }
    verdict.tally.merge(&replayed.tally);
    verdict
}

/// Segments of a directory, oldest first.
fn segment_names(dir: &Path, only: Option<&str>) -> io::Result<Vec<SegmentName>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if only.is_none_or(|only| only == name) {
            names.extend(SegmentName::parse(&name));
        }
    }
    names.sort();
    drop(segment::take_replaced(&mut names));
    Ok(names)
}

/// Reads a segment from one end to the other. Returns its last index, if it is sealed.
fn look_into(
    path: &Path,
    (range, is_state): (RangeKey, Option<SnapshotCheck>),
    verdict: &mut RangeVerdict,
    unsealed: &mut Unsealed,
) -> io::Result<LogIndex> {
    let image = SegmentImage::open(path)?;
    verdict.segments += 1;
    verdict.file_bytes += image.bytes();
    let fault = match image.footer()? {
        FooterImage::Good(footer) => {
            verdict.sealed += 1;
            let freed = read_freed(path, &image, &mut verdict.findings)?;
            verdict.freed_bytes += freed.hole_bytes();
            let into = (&mut verdict.tally, &mut verdict.findings);
            sealed::check(path, &image, (&footer, &freed), range, is_state, into)?;
            return Ok(footer.end().index);
        }
        FooterImage::None => None,
        FooterImage::BadTrailer => Some((image.trailer_position(), Fault::Trailer)),
        FooterImage::BadBody { position } => Some((position, Fault::FooterBody)),
    };
    if let Some((position, fault)) = fault {
        verdict.findings.push(Finding { path: path.to_owned(), position, entries: None, fault });
    }
    let mut pieces = image.pieces(image.bytes());
    while let Some(piece) = pieces.next()? {
        match piece {
            Piece::RottenHeader { position } => {
                unsealed.rotten.push(RottenHeader { path: path.to_owned(), position, next_flush: None });
                if unsealed.rotten.len() > super::INSPECT_FINDINGS_MAX {
                    break;
                }
            }
            Piece::Flush(flush) => {
                if let Some(rotten) = unsealed.rotten.last_mut().filter(|rotten| rotten.path == path) {
                    rotten.next_flush.get_or_insert(flush.position);
                }
                let mut index = flush.header.first_index;
                for entry in flush.entries() {
                    let (bad, position) = match &entry {
                        Ok(entry) => (
                            entry.damage.is_some() || (entry.header.index, entry.header.range) != (index, range),
                            entry.position,
                        ),
                        Err(position) => (true, *position),
                    };
                    if bad {
                        if unsealed.bad_entries.len() >= BAD_ENTRIES_MAX {
                            unsealed.bad_entries.remove(0);
                        }
                        unsealed.bad_entries.push((path.to_owned(), position, index));
                    }
                    index = LogIndex(index.0.saturating_add(1));
                }
            }
        }
    }
    Ok(LogIndex(0))
}

/// What was freed of a segment: nothing, when there is no list.
fn read_freed(path: &Path, image: &SegmentImage<File>, findings: &mut Findings) -> io::Result<FreedRuns> {
    let sidecar = freed_runs::sidecar_path(path);
    let bytes = match fs::metadata(&sidecar) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FreedRuns::default()),
        Ok(metadata) if metadata.len() <= SIDECAR_BYTES_MAX => fs::read(&sidecar)?,
        Ok(_) => Vec::new(),
        Err(error) => return Err(error),
    };
    let runs = freed_runs::decode(&bytes, image.generation());
    if runs.is_none() {
        let fault = Fault::FreedRuns("it does not verify");
        findings.push(Finding { path: sidecar, position: 0, entries: None, fault });
    }
    Ok(runs.unwrap_or_default())
}

/// Gives `visit` every entry that is left in a sealed segment of which something was freed: where a flush's header is gone, too,
/// only the index leads to what is left of it. An error is the position of a header that does not verify. Returns whether
/// anything was freed; if not, [`SegmentImage::pieces`] finds everything.
pub fn visit_left(
    path: &Path,
    image: &SegmentImage<File>,
    footer: &Footer,
    visit: &mut dyn FnMut(Result<EntryImage<'_>, u64>),
) -> io::Result<bool> {
    let freed = read_freed(path, image, &mut Findings::default())?;
    if freed.iter().next().is_none() {
        return Ok(false);
    }
    let mut run = Vec::new();
    for span in footer.index.flushes() {
        for (position, bytes, _, last) in freed.pieces(span) {
            if bytes as usize > FLUSH_LENGTH_MAX {
                visit(Err(position));
                continue;
            }
            run.resize(bytes as usize, 0);
            image.read_at(position, &mut run)?;
            let is_live =
                |entry: &Result<EntryImage<'_>, u64>| entry.as_ref().map_or(true, |it| it.header.index <= last);
            entries_of(&run, 0, position).take_while(is_live).for_each(&mut *visit);
        }
    }
    Ok(true)
}

/// Runs the recovery over a disk that only reads.
fn recover(
    dir: &Path,
    only: Option<String>,
    range: RangeKey,
    replayed: &mut Replayed,
) -> Result<(ReadOnlyDisk, RecoveryReport), LogError> {
    let asked = PathBuf::from(format!("/data/{}/{}", range.ring, range.range));
    let disk = ReadOnlyDisk::new(dir, &asked, only);
    futures_lite::future::block_on(async {
        let storage = ShardStorage::open(disk.clone(), Path::new("/"), ShardId(0), 1, StorageConfig::default()).await?;
        let Opened { report, .. } = RangeLog::open(Rc::new(storage), range, replayed).await?;
        Ok((disk, report))
    })
}

fn take_report(verdict: &mut RangeVerdict, disk: &ReadOnlyDisk, report: RecoveryReport, unsealed: &mut Unsealed) {
    verdict.first_index = report.first_index;
    verdict.end = report.end;
    verdict.last_epoch = report.last_epoch;
    verdict.marker = report.marker;
    for damage in report.damage {
        let Damage { path, position, first_index, last_index, kind } = damage;
        let path = disk.real(&path);
        let mut position = position;
        if kind == DamageKind::Unreadable {
            // Recovery sees the flush behind the gap; what made the gap may be a header that rotted.
            let made = |header: &RottenHeader| header.path == path && header.next_flush == Some(position);
            if let Some(at) = unsealed.rotten.iter().position(made) {
                position = unsealed.rotten.remove(at).position;
            }
        }
        let entries = (first_index <= last_index).then_some((first_index, last_index));
        verdict.findings.push(Finding { path, position, entries, fault: Fault::Entries(kind) });
    }
    if report.torn_bytes > 0 {
        let next = report.end.index.next();
        let place = unsealed.bad_entries.iter().rev().find(|(_, _, index)| *index == next);
        let place = place.map(|(path, position, _)| (path.clone(), *position));
        verdict.torn = Some(TornEnd { bytes: report.torn_bytes, place });
    }
}
