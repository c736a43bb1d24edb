//! What a source gives of a sealed segment to who copies it whole: its live entries, its freed runs, its snapshot.
//!
//! A segment of which entries were freed cannot be copied entry by entry: what the freed ones did to the range's state is
//! only in the snapshot at its end. Each part is found anew from where the asker stands. Absent: whoever copies.

use std::rc::Rc;

use minikafka_core::chain::peer::{SegmentCursor, SegmentItem, SegmentPart};
use minikafka_core::{LogIndex, LogPoint};

use super::read::Pick;
use super::recovery::{Footer, read_footer};
use super::runs::Wanted;
use super::state::{Inner, State};
use crate::disk::Disk;
use crate::error::{Damage, DamageKind, ReadError};
use crate::footer;
use crate::segment::SegmentFile;
use crate::slice::SharedSlice;

/// A sealed segment that is offered, from `start` on.
struct Offered<D: Disk> {
    file: Rc<SegmentFile<D>>,
    start: LogPoint,
    end: LogPoint,
}

type Items = Vec<SegmentItem<SharedSlice>>;

impl<D: Disk> Inner<D> {
    pub async fn offer_segment(
        &self,
        after: LogPoint,
        cursor: SegmentCursor,
        up_to: LogIndex,
        bytes_max: usize,
    ) -> Result<Option<SegmentPart<SharedSlice>>, ReadError> {
        let Some(Offered { file, start, end }) = self.state.borrow().offered(after, up_to) else { return Ok(None) };
        if after != LogPoint::START && self.point_at(after.index).await? != Some(after) {
            return Ok(None);
        }
        let is_known = cursor.end == end.index && (start.index..=end.index).contains(&cursor.at.index);
        let (at, snapshot_from) = if is_known { (cursor.at, cursor.snapshot_bytes) } else { (start, 0) };
        let items = if at.index < end.index {
            self.offer_entries(file.name.number, at.index, end.index, bytes_max).await?
        } else {
            vec![self.offer_snapshot(&file, start, end, snapshot_from, bytes_max).await?]
        };
        Ok((!items.is_empty()).then_some(SegmentPart { start, end, at, items }))
    }

    /// Freed runs behind `at`, and the entries behind them.
    async fn offer_entries(
        &self,
        number: u64,
        mut at: LogIndex,
        end: LogIndex,
        bytes_max: usize,
    ) -> Result<Items, ReadError> {
        let mut items = Items::new();
        let next_run = |at: LogIndex| {
            let freed = self.state.borrow().freed_of(number);
            freed.at_or_above(at.next()).map(|freed| freed.run)
        };
        let mut run = next_run(at);
        while let Some(freed) = run.filter(|run| run.contains(at.next())) {
            items.push(SegmentItem::Freed(freed.borders()[1]));
            at = freed.last_index;
            run = next_run(at);
        }
        if at >= end {
            return Ok(items);
        }
        let up_to = run.map_or(end, |run| end.min(run.borders()[0].index));
        let pick = Pick { wanted: Wanted::Everything, after: at, up_to, bytes_max, is_gapless: true };
        match self.find(pick).await {
            Ok(found) => items.extend(found.slices.into_iter().map(SegmentItem::Entries)),
            // It was freed just now; what is asked for next knows.
            Err(ReadError::Freed { .. }) if !items.is_empty() => {}
            Err(error) => return Err(error),
        }
        Ok(items)
    }

    async fn offer_snapshot(
        &self,
        file: &SegmentFile<D>,
        start: LogPoint,
        end: LogPoint,
        from: u64,
        bytes_max: usize,
    ) -> Result<SegmentItem<SharedSlice>, ReadError> {
        let Footer::Good(trailer, body) = read_footer(&self.storage.disk, file).await? else {
            let (first_index, last_index) = (start.index.next(), end.index);
            let damage =
                Damage { path: file.path.clone(), position: 0, first_index, last_index, kind: DamageKind::Footer };
            self.state.borrow_mut().note_damage(&damage);
            return Err(ReadError::Damaged(damage));
        };
        let snapshot = footer::snapshot(&trailer, &body);
        let from = (from as usize).min(snapshot.len());
        let bytes = snapshot[from..(from + bytes_max).min(snapshot.len())].to_vec();
        let length = bytes.len();
        Ok(SegmentItem::Snapshot { total: snapshot.len() as u64, bytes: SharedSlice::new(Rc::new(bytes), 0..length) })
    }
}

impl<D: Disk> State<D> {
    /// The sealed segment in which the entry behind `after` is.
    fn offered(&self, after: LogPoint, up_to: LogIndex) -> Option<Offered<D>> {
        let segment = match after {
            LogPoint::START => self.segments.front(),
            _ => self.segments.iter().find(|segment| segment.end.index > after.index),
        }?;
        let begins = after == LogPoint::START || segment.start.index <= after.index;
        let is_offered = segment.sealed().is_some() && begins && segment.end.index <= up_to;
        let start = if after == LogPoint::START { segment.start } else { after };
        let is_offered = is_offered && segment.end.index > start.index;
        is_offered.then(|| Offered { file: segment.file.clone(), start, end: segment.end })
    }
}
