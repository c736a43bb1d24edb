//! Rot, as disks do it: bits of a broker's files flip and blocks change places, while it runs or before it starts.
//!
//! What is hit is known by its entries, so that members can be damaged in different places: entries are numbered alike on
//! all of them, wherever their files have them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minikafka_storage::flush::{FLUSH_HEADER_BYTES, FlushHeader};
use rand::Rng;
use rand::seq::IndexedRandom;

const BLOCK: u64 = 4096;
/// Entries of a window: one member at a time is damaged in it.
const WINDOW_ENTRIES: u64 = 16;
/// Windows at the end of a log that are left alone: rot in the newest flush of a killed broker looks like a torn write.
const NEWEST_WINDOWS: u64 = 2;

/// Which part of all entries is hit: every `of`th window, beginning with `number`.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// From 0.
    pub number: u64,
    /// How many shares there are.
    pub of: u64,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bits flipped.
    pub flips: usize,
    /// Pairs of blocks swapped.
    pub swaps: usize,
    /// Logs of ranges hit.
    pub logs: usize,
    /// Files hit.
    pub files: BTreeSet<PathBuf>,
}

/// A flush of a file.
struct Flush {
    path: PathBuf,
    position: u64,
    bytes: u64,
}

/// Flips about `flips` bits of each range's log below a data directory, and swaps blocks of it once, within the share.
pub fn spoil(data: &Path, share: Share, flips: usize, random: &mut impl Rng) -> Result<Damage> {
    let mut damage = Damage::default();
    for paths in logs(data)?.into_values() {
        let within = flushes_within(&paths, share)?;
        if within.is_empty() {
            continue;
        }
        damage.logs += 1;
        for _ in 0..flips {
            let flush = within.choose(random).context("there are some")?;
            // A header alone is not missed, and not mended: the footer knows what is in the segment.
            let at = flush.position + random.random_range(FLUSH_HEADER_BYTES as u64..flush.bytes);
            flip(&flush.path, at, random.random_range(0..8))?;
            damage.files.insert(flush.path.clone());
            damage.flips += 1;
        }
        if let [first, .., last] = &within[..] {
            swap_blocks(first, last)?;
            damage.files.extend([first, last].map(|flush| flush.path.clone()));
            damage.swaps += 1;
        }
    }
    Ok(damage)
}

/// What the logs of ranges below a data directory take.
pub fn log_bytes(data: &Path) -> Result<u64> {
    // One that was freed or mended meanwhile has another name.
    let sizes = logs(data)?.into_values().flatten().filter_map(|path| Some(fs::metadata(path).ok()?.len()));
    Ok(sizes.sum())
}

/// Segment files below a directory, oldest first, by the directory of their range.
fn logs(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<PathBuf>>> {
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "segment") {
                found.entry(directory.clone()).or_default().push(path);
            }
        }
    }
    found.values_mut().for_each(|paths| paths.sort());
    Ok(found)
}

/// Flushes all of whose entries are in one window of the share.
fn flushes_within(paths: &[PathBuf], share: Share) -> Result<Vec<Flush>> {
    let mut flushes = Vec::new();
    for path in paths {
        // One that was mended, freed or sealed meanwhile has another name.
        let Ok(bytes) = fs::read(path) else { continue };
        let blocks = (0..bytes.len()).step_by(BLOCK as usize);
        let headers = blocks.filter_map(|at| {
            let header = FlushHeader::decode(bytes.get(at..at + FLUSH_HEADER_BYTES)?)?;
            // A recycled file has blocks of an older life behind its end: rot there harms nothing.
            (Some(header.generation.0) == generation_of(path)).then_some((at as u64, header))
        });
        flushes.extend(headers.map(|(position, header)| (path, position, header)));
    }
    let end = flushes.iter().map(|(_, _, header)| header.first_index.0).max().unwrap_or_default();
    let newest = (end / WINDOW_ENTRIES).saturating_sub(NEWEST_WINDOWS);
    let within = flushes.windows(2).filter_map(|pair| {
        let [(path, position, header), (_, _, next)] = pair else { return None };
        let (first, behind) = (header.first_index.0, next.first_index.0);
        let window = first / WINDOW_ENTRIES;
        let is_one = behind > first && (behind - 1) / WINDOW_ENTRIES == window;
        let is_ours = is_one && window < newest && window % share.of == share.number;
        let has_entries = u64::from(header.length) > FLUSH_HEADER_BYTES as u64;
        (is_ours && has_entries).then(|| Flush {
            path: (*path).clone(),
            position: *position,
            bytes: u64::from(header.length),
        })
    });
    Ok(within.collect())
}

/// `<number>-<generation>.segment`
fn generation_of(path: &Path) -> Option<u64> {
    let (_, generation) = path.file_stem()?.to_str()?.split_once('-')?;
    u64::from_str_radix(generation, 16).ok()
}

fn flip(path: &Path, position: u64, bit: u32) -> Result<()> {
    let mut byte = [0];
    File::open(path)?.read_exact_at(&mut byte, position)?;
    write(path, position, &[byte[0] ^ 1 << bit])
}

fn swap_blocks(one: &Flush, other: &Flush) -> Result<()> {
    let read = |flush: &Flush| -> Result<Vec<u8>> {
        let mut block = vec![0; BLOCK as usize];
        File::open(&flush.path)?.read_exact_at(&mut block, flush.position)?;
        Ok(block)
    };
    let (first, second) = (read(one)?, read(other)?);
    write(&one.path, one.position, &second)?;
    write(&other.path, other.position, &first)
}

fn write(path: &Path, position: u64, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path).with_context(|| path.display().to_string())?;
    file.write_all_at(bytes, position)?;
    Ok(file.sync_all()?)
}
