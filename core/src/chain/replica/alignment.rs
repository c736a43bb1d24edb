//! The highest point at which the own log and the source's agree, found by halving, and the cut to it.
//!
//! A running hash covers everything before it, so there is one such point: logs agree up to it and differ behind it. It
//! lies between the last point that agreed (at first what is known to be committed, which every log has) and the lowest
//! that did not. Nothing is cut before it is found.

use super::copying::Step;
use super::{Output, Replica};
use crate::error_code::ErrorCode;
use crate::ids::*;

/// Where the highest point lies at which the logs agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Search {
    /// The logs agree here.
    low: LogIndex,
    /// With this hash; none: what lies here is freed, which only happens to what is committed.
    hash: Option<RunningHash>,
    /// The logs differ here.
    high: LogIndex,
}

impl Search {
    pub const fn agreed(self) -> LogIndex {
        self.low
    }

    pub const fn agrees_at(&mut self, point: LogPoint) {
        (self.low, self.hash) = (point.index, Some(point.hash));
    }

    const fn unknown_at(&mut self, index: LogIndex) {
        (self.low, self.hash) = (index, None);
    }

    /// The index to compare next; none: found.
    fn middle(self) -> Option<LogIndex> {
        let between = self.high.0.saturating_sub(self.low.0);
        (between > 1).then_some(LogIndex(self.low.0 + between / 2))
    }
}

impl Replica {
    /// The logs differ at this index.
    pub(super) fn disagrees_at(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        let floor = self.committed;
        if index <= floor.index {
            return self.give_up_copy(ErrorCode::RangeFailed, out);
        }
        let Some(copying) = &mut self.copying else { return };
        let begin = Search { low: floor.index, hash: Some(floor.hash), high: index };
        copying.search = Some(Search { high: index, ..copying.search.unwrap_or(begin) });
        copying.step = Step::Due;
        self.advance_copy(out);
    }

    /// Compares the next point, or cuts at the one that was found.
    pub(super) fn search_on(&mut self, search: Search, out: &mut Vec<Output>) {
        if let Some(index) = search.middle() {
            return self.compare_own(index, out);
        }
        match search.hash {
            Some(hash) => self.cut_at(LogPoint { index: search.low, hash }, out),
            None => self.start_over(ErrorCode::RangeFailed, out),
        }
    }

    /// The source freed the point that was asked about: it was committed, and the logs may agree there. The search goes on
    /// above it; found there, the point of agreement proves that they do.
    pub(super) fn unknown_at(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        let Some(copying) = &mut self.copying else { return };
        if let Some(search) = &mut copying.search {
            search.unknown_at(index);
        }
        copying.step = Step::Due;
        self.advance_copy(out);
    }

    /// Compares the own point at `index`, which may have to be read first.
    pub(super) fn compare_own(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        if let Some(point) = self.own_point(index) {
            return self.compare(index, Some(point), out);
        }
        if let Some(copying) = &mut self.copying {
            copying.step = Step::Reading { index };
            out.push(Output::ReadPoint { index });
        }
    }

    pub(super) fn point_read(&mut self, index: LogIndex, point: Option<LogPoint>, out: &mut Vec<Output>) {
        if self.copying.as_ref().is_some_and(|copying| copying.step == Step::Reading { index }) {
            self.compare(index, point, out);
        }
    }

    /// While searching, the source is asked about the point; otherwise it is to be the decided end.
    fn compare(&mut self, index: LogIndex, point: Option<LogPoint>, out: &mut Vec<Output>) {
        let Some(copying) = &mut self.copying else { return };
        match (copying.search, point) {
            (None, Some(point)) if Some(point) == self.decided => self.cut_at(point, out),
            (None, _) => self.disagrees_at(index, out),
            (Some(_), Some(point)) => self.ask(point, index, out),
            (Some(_), None) => self.unknown_at(index, out),
        }
    }

    fn cut_at(&mut self, to: LogPoint, out: &mut Vec<Output>) {
        if let Some(copying) = &mut self.copying {
            copying.step = Step::CutDue { to };
            self.advance_copy(out);
        }
    }
}
