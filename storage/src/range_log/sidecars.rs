//! Lists of freed runs that could not be read at the start are asked of the disk again, which may only have failed for a
//! while. Until then what they stand for counts as damage, which nobody else may have. Absent: when to ask.

use std::rc::Rc;

use super::state::{Inner, State};
use crate::disk::Disk;
use crate::error::LogError;
use crate::footer::Trailer;
use crate::freed_runs::{self, FreedRuns, sidecar_path};
use crate::index::SegmentIndex;
use crate::segment::{LogSegment, SegmentFile};

impl<D: Disk> Inner<D> {
    pub async fn reread_sidecars(&self) -> Result<u32, LogError> {
        let Some(_freeing) = self.begin_freeing()? else { return Ok(0) };
        let unread: Vec<_> = self.state.borrow().unread_sidecars().collect();
        let mut found = 0;
        for (file, trailer) in unread {
            let Some(runs) = freed_runs::read(&self.storage.disk, &file.path, &trailer).await? else { continue };
            let Ok(index) = self.load_index(&file, &trailer).await else { continue };
            self.state.borrow_mut().take_sidecar(&file, &runs, &index);
            tracing::info!(path = %sidecar_path(&file.path).display(), "a list of freed entries can be read again");
            found += 1;
        }
        Ok(found)
    }
}

impl<D: Disk> State<D> {
    /// Sealed segments that were punched, and whose lists are not known.
    pub fn unread_sidecars(&self) -> impl Iterator<Item = (Rc<SegmentFile<D>>, Trailer)> {
        let unread = self.segments.iter().filter(|segment| segment.sidecar_damage().is_some());
        unread.filter_map(|segment| Some((segment.file.clone(), segment.sealed()?.trailer)))
    }

    /// What is freed is not damaged any more.
    fn take_sidecar(&mut self, file: &Rc<SegmentFile<D>>, runs: &FreedRuns, index: &SegmentIndex) {
        let there = self.segment_mut(file.name.number).filter(|segment| Rc::ptr_eq(&segment.file, file));
        let Some(sealed) = there.and_then(LogSegment::sealed_mut) else { return };
        sealed.set_freed(runs.clone(), index.flushes().iter());
        sealed.holes_done = false;
        let sidecar = sidecar_path(&file.path);
        self.damage.retain(|damage| {
            damage.path != sidecar && runs.overlapping(damage.first_index, damage.last_index).is_none()
        });
    }
}
