//! Copying sealed segments whole, and starting over: what a learner does about entries that its source freed (R7).
//!
//! ```text
//!   asked ── part of a segment ──► due (asks for the next part)
//!     │ ──── the last part ──────► installing ─► due
//!     │ ──── gone, while searching: the search goes on above
//!     └───── gone ───────────────► dropping the own log ─► due (from nothing), or refused
//! ```
//!
//! The segment lies beside the log until it is whole; then the log ends with it, at once. Promise: a log is dropped only by a
//! member that is a survivor of no chain and cannot become one. Absent: the parts themselves, which the interpreter keeps.

use super::copying::Step;
use super::{Output, Replica};
use crate::error_code::ErrorCode;
use crate::ids::*;

impl Replica {
    /// Whether the answer to this request is still waited for.
    pub fn awaits_copy(&self, copy: CopyId) -> bool {
        self.copying.as_ref().is_some_and(|copying| copying.asked(copy).is_some())
    }

    /// Also a sign of life: the source is asked for the next part.
    pub(super) fn segment_part(&mut self, copy: CopyId, limit: LogIndex, at: LogIndex, out: &mut Vec<Output>) {
        let Some(copying) = self.copying.as_mut().filter(|copying| copying.asked(copy).is_some()) else { return };
        (copying.limit, copying.ahead, copying.step) = (Some(limit), at, Step::Due);
        self.advance_copy(out);
    }

    pub(super) fn segment_ready(&mut self, copy: CopyId, limit: LogIndex, end: LogPoint, out: &mut Vec<Output>) {
        let own = self.state.end();
        let Some(copying) = self.copying.as_mut().filter(|copying| copying.asked(copy).is_some()) else { return };
        if copying.search.is_some() || end.index <= own.index || self.durable != own.index {
            return copying.rest(Some(ErrorCode::OutOfOrder));
        }
        (copying.limit, copying.ahead, copying.step) = (Some(limit), end.index, Step::Due);
        // Which of its records lie behind what is known to be committed nobody tells.
        self.stop_tracking();
        self.cutting = Some(end);
        out.push(Output::InstallSegment);
    }

    pub(super) fn copy_gone(&mut self, copy: CopyId, limit: LogIndex, out: &mut Vec<Output>) {
        let Some(copying) = &mut self.copying else { return };
        let Some(after) = copying.asked(copy) else { return };
        copying.limit = Some(limit);
        match copying.search {
            Some(_) => self.unknown_at(after.index, out),
            None => self.start_over(ErrorCode::RangeFailed, out),
        }
    }

    /// The log cannot be continued from the source, nor cut to where it could: it is dropped, and copied from nothing. Only
    /// by a member that was told to learn from an active chain of which it is no survivor, which it then never becomes but by
    /// being reconciled: nobody counts on its log.
    pub(super) fn start_over(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        let is_due = self.durable == self.state.end().index && self.cutting.is_none() && self.marking.is_none();
        if self.learned <= self.marker || self.damaged {
            return self.give_up_copy(code, out);
        }
        let has_nothing = self.state.end() == LogPoint::START;
        let Some(copying) = &mut self.copying else { return };
        if !is_due {
            // Asked again once the disk has caught up.
            return copying.rest(None);
        }
        match has_nothing {
            // Nothing but what is left of cuts and markers, which no segment goes behind; or the source is not ready.
            true => copying.rest(Some(code)),
            false => (copying.step, copying.search) = (Step::Due, None),
        }
        (copying.ahead, copying.durable_first) = (LogIndex(0), LogIndex(0));
        self.drop_log(out);
    }

    /// Drops the log, of which nobody needs anything.
    pub(super) fn drop_log(&mut self, out: &mut Vec<Output>) {
        self.stop_tracking();
        self.cutting = Some(LogPoint::START);
        // Losing the log loses the marker.
        self.marker = Epoch(0);
        out.push(Output::StartOver);
    }

    /// A segment that was copied is none; or what was to be cut away is in sealed segments, hence was committed: then the
    /// source has another log.
    pub(super) fn cut_refused(&mut self, out: &mut Vec<Output>) {
        let Some(wanted) = self.cutting.take() else { return };
        self.report_seal_if_due(out);
        if wanted.index > self.state.end().index {
            return self.give_up_copy(ErrorCode::CorruptBatch, out);
        }
        self.start_over(ErrorCode::RangeFailed, out);
    }
}
