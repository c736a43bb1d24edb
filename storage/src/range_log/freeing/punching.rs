//! Holes in sealed segments: which, the hashes around them, the sidecar, and only then the punch.

use std::collections::{BTreeMap, BTreeSet};

use minikafka_core::limits::FREED_RUNS_MAX;
use minikafka_core::{LogIndex, RunningHash};

use super::gaps::{self, Gap};
use super::{Candidate, Freed, Inner};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::error::{DiskResult, LogError, ReadError};
use crate::freed_runs::{self, FreedBytes, FreedRun, FreedRuns};
use crate::segment::{LogSegment, SealedSegment};

impl<D: Disk> Inner<D> {
    /// Punches the gaps that are worth it, after a durable sidecar listed them; and the holes of before when a crash may
    /// have come between the two.
    pub(super) async fn punch(
        &self,
        candidate: &Candidate<D>,
        gaps: Vec<Gap>,
        freed: &mut Freed,
    ) -> Result<(), LogError> {
        let Candidate { file, trailer, freed: before, index } = candidate;
        let number = file.name.number;
        let mut chosen = gaps::worth_punching(gaps, before, trailer, self.storage.config.freed_run_bytes_min);
        chosen.sort_by_key(|gap| std::cmp::Reverse(gap.hole().1));
        chosen.truncate(FREED_RUNS_MAX.saturating_sub(before.iter().count()).max(1));
        let added = self.runs_of_gaps(candidate, &chosen).await?;
        let mut holes_done = true;
        self.with_sealed(number, |sealed| holes_done = sealed.holes_done);
        if added.is_empty() && holes_done {
            return Ok(());
        }
        let is_within = |old: &FreedBytes, new: &FreedBytes| new.position <= old.position && old.end() <= new.end();
        let left = before.iter().filter(|old| !added.iter().any(|new| is_within(old, new)));
        let runs = FreedRuns::new(left.chain(&added).copied().collect());
        if !added.is_empty() {
            file.set_punched();
            freed_runs::write(&self.storage.disk, &file.path, trailer.generation, &runs).await?;
        }
        // Readers know before the bytes go.
        self.with_sealed(number, |sealed| {
            sealed.set_freed(runs.clone(), index.flushes().iter());
            sealed.holes_done = false;
        });
        let to_punch = if holes_done { FreedRuns::new(added) } else { runs.clone() };
        self.punch_holes(candidate, &to_punch).await?;
        freed.bytes_punched += runs.hole_bytes() - before.hole_bytes();
        self.with_sealed(number, |sealed| sealed.holes_done = true);
        Ok(())
    }

    fn with_sealed(&self, number: u64, change: impl FnOnce(&mut SealedSegment)) {
        let mut state = self.state.borrow_mut();
        if let Some(sealed) = state.segment_mut(number).and_then(LogSegment::sealed_mut) {
            change(sealed);
        }
    }

    /// The gaps as runs; without those whose hashes cannot be read.
    async fn runs_of_gaps(&self, candidate: &Candidate<D>, gaps: &[Gap]) -> Result<Vec<FreedBytes>, LogError> {
        let before = |gap: &Gap| LogIndex(gap.first_index.0 - 1);
        let wanted = gaps.iter().flat_map(|gap| [before(gap), gap.last_index]).collect();
        let hashes = self.hashes_at(candidate, &wanted).await?;
        let runs = gaps.iter().filter_map(|gap| {
            let (hash_before, hash_after) = (*hashes.get(&before(gap))?, *hashes.get(&gap.last_index)?);
            let (first_index, last_index) = (gap.first_index, gap.last_index);
            let run = FreedRun { first_index, last_index, hash_before, hash_after };
            Some(FreedBytes { run, position: gap.position, bytes: gap.end - gap.position })
        });
        Ok(runs.collect())
    }

    /// The running hashes at `wanted`: from the tables where they have them, else from the entries, each flush read once.
    async fn hashes_at(
        &self,
        candidate: &Candidate<D>,
        wanted: &BTreeSet<LogIndex>,
    ) -> Result<BTreeMap<LogIndex, RunningHash>, LogError> {
        let Candidate { file, trailer, freed, index } = candidate;
        let borders = freed.iter().flat_map(|freed| freed.run.borders()).chain([trailer.start, trailer.end]);
        let flushes = index.flushes().iter();
        let known = borders.map(|point| (point.index, point.hash));
        let known = known.chain(flushes.map(|flush| (LogIndex(flush.first_index.0 - 1), flush.previous_hash)));
        let mut hashes: BTreeMap<_, _> = known.filter(|(index, _)| wanted.contains(index)).collect();
        for piece in index.flushes().iter().flat_map(|flush| freed.pieces(flush)) {
            let (_, _, first_index, last_index) = piece;
            if wanted.range(first_index..=last_index).all(|index| hashes.contains_key(index)) {
                continue;
            }
            let run = self.state.borrow().run(file, piece);
            let fetched = match self.fetch(vec![run]).await {
                Ok(fetched) => fetched,
                Err(ReadError::Disk(error)) => return Err(error.into()),
                Err(_) => continue,
            };
            for fetched in fetched {
                // Where an entry does not verify, what is behind it stays unknown: those gaps are left.
                let _ = self.walk(&fetched, |entry, _| {
                    if wanted.contains(&entry.header.index) {
                        hashes.insert(entry.header.index, entry.header.running_hash);
                    }
                    Ok(false)
                });
            }
        }
        Ok(hashes)
    }

    async fn punch_holes(&self, candidate: &Candidate<D>, runs: &FreedRuns) -> Result<(), LogError> {
        let Candidate { file, trailer, .. } = candidate;
        let open = file.file(&self.storage.disk).await?;
        // The file will not be used again: neither will what lies between its footer and its trailer.
        let footer_end = trailer.footer_position + trailer.padded_body_bytes();
        let trailer_position = file.size(&self.storage.disk).await?.saturating_sub(BLOCK_BYTES as u64);
        let holes = runs.iter().map(FreedBytes::hole);
        let unused = (footer_end, trailer_position.saturating_sub(footer_end));
        for (position, bytes) in holes.chain([unused]).filter(|(_, bytes)| *bytes > 0) {
            open.punch_hole(position, bytes).await.on("punch a hole into", &file.path)?;
        }
        Ok(())
    }
}
