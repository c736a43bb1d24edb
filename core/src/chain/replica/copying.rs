//! Copying what the own log lacks from a source, one request at a time, for reconciling and for learning.
//!
//! ```text
//!            ask             agreed, entries
//!   ┌─ due ─────► asked ───────────────────────► due, or resting when nothing came
//!   │   ▲           │ differs                     failed, lost, no answer: resting
//!   │   │           ▼
//!   │   └──────── search (see `alignment`): reading own points, asking about them, then cutting the log
//!   └─ the decided end is reached: marker
//! ```
//!
//! What the source freed in part comes as whole segments (`segments`).
//!
//! What is copied follows by index and running hash, so it does not matter how far a source can be trusted. Absent: how
//! many bytes a reply has, and reading them, which are the interpreter's.

use super::alignment::Search;
use super::{AppendBody, Output, Replica, RequestId};
use crate::chain::ChainMember;
use crate::chain::peer::CopyPurpose;
use crate::control::ControlEntry;
use crate::entry::EntryHeader;
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::{
    COPIED_ENTRIES_TRACKED_MAX, COPY_REQUESTS_LOST_MAX, LOG_INDEX_MAX, PEER_RETRY_TICKS, STALL_TICKS_MAX,
};

/// A learner copies as far as its source lets it.
pub(super) const LEARN_UNTIL: LogIndex = LogIndex(LOG_INDEX_MAX);

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something can be done as soon as the disk has caught up.
    Due,
    /// The source was asked about this point, so many ticks ago.
    Asked { after: LogPoint, ticks: u32 },
    /// A point of the own log is being read.
    Reading { index: LogIndex },
    /// The log is to be cut here, once its writes have finished.
    CutDue { to: LogPoint },
    /// The source is asked again after so many ticks.
    Resting { ticks: u32 },
}

/// A copy that is going on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying {
    /// None: this member is the source.
    pub source: Option<ChainMember>,
    pub epoch: Epoch,
    pub purpose: CopyPurpose,
    /// Up to here.
    until: LogIndex,
    /// How far the source would go when it last answered; none: it did not answer yet.
    pub limit: Option<LogIndex>,
    /// Requests that were lost, or not answered in time.
    pub lost: u32,
    /// What went wrong and was not told yet.
    pub error: Option<ErrorCode>,
    /// The newest request; 0: none yet.
    pub copy: CopyId,
    pub step: Step,
    pub search: Option<Search>,
    /// A sealed segment that is not in the log yet is whole up to here.
    pub ahead: LogIndex,
    /// The next request for entries waits until the log is durable up to here, so that replies do not pile up.
    pub durable_first: LogIndex,
}

impl Copying {
    pub fn new(source: Option<ChainMember>, epoch: Epoch, purpose: CopyPurpose, until: LogIndex) -> Self {
        Self {
            source,
            epoch,
            purpose,
            until,
            limit: None,
            lost: 0,
            error: None,
            copy: CopyId(0),
            step: Step::Due,
            search: None,
            ahead: LogIndex(0),
            durable_first: LogIndex(0),
        }
    }

    /// The point asked about, if this is the answer to the newest request.
    pub fn asked(&self, copy: CopyId) -> Option<LogPoint> {
        match self.step {
            Step::Asked { after, .. } if self.copy == copy => Some(after),
            _ => None,
        }
    }

    /// This attempt failed: the source is asked again from the beginning, a little later.
    pub fn rest(&mut self, error: Option<ErrorCode>) {
        self.error = error.or(self.error);
        self.search = None;
        self.step = Step::Resting { ticks: PEER_RETRY_TICKS };
    }
}

impl Replica {
    /// How far the own log is known to agree with the source's.
    pub(super) fn agreed_end(&self) -> LogIndex {
        let search = self.copying.as_ref().and_then(|copying| copying.search);
        let ahead = self.copying.as_ref().map_or(LogIndex(0), |copying| copying.ahead);
        search.map_or(self.state.end().index.max(ahead), |search| search.agreed())
    }

    /// Does what can be done now.
    pub(super) fn advance_copy(&mut self, out: &mut Vec<Output>) {
        if self.cutting.is_some() || self.marking.is_some() {
            return;
        }
        let Some(copying) = &mut self.copying else { return };
        match (copying.step, copying.search) {
            (Step::CutDue { to }, _) if self.durable == self.state.end().index => {
                debug_assert!(to.index >= self.committed.index, "what is committed is never cut");
                (copying.step, copying.search, copying.durable_first) = (Step::Due, None, LogIndex(0));
                self.cutting = Some(to);
                out.push(Output::Truncate { end: to });
            }
            (Step::Due, Some(search)) => self.search_on(search, out),
            (Step::Due, None) => self.copy_on(out),
            _ => {}
        }
    }

    fn copy_on(&mut self, out: &mut Vec<Output>) {
        let Some(copying) = self.copying else { return };
        let own = self.state.end();
        if copying.purpose == CopyPurpose::Reconcile
            && let Some(end) = self.decided
        {
            if self.ends_at(end) {
                return self.mark_if_durable(out);
            }
            if own.index >= end.index {
                return self.compare_own(end.index, out);
            }
        }
        if self.durable >= copying.durable_first {
            self.ask(own, copying.until, out);
        }
    }

    /// Asks the source for what comes behind a point, up to `until`.
    pub(super) fn ask(&mut self, after: LogPoint, until: LogIndex, out: &mut Vec<Output>) {
        let copy = CopyId(self.last_copy.0 + 1);
        let Some(Copying { source: Some(source), epoch, purpose, .. }) = self.copying else {
            return self.give_up_copy(ErrorCode::RangeFailed, out);
        };
        self.last_copy = copy;
        if let Some(copying) = &mut self.copying {
            (copying.copy, copying.step) = (copy, Step::Asked { after, ticks: 0 });
        }
        out.push(Output::RequestCopy { epoch, copy, purpose, source, after, until });
    }

    pub(super) fn copied(
        &mut self,
        request: RequestId,
        copy: CopyId,
        header: EntryHeader,
        control: Option<ControlEntry>,
        out: &mut Vec<Output>,
    ) {
        let own = self.state.end();
        let Some(copying) = self.copying.as_mut().filter(|copying| copying.asked(copy).is_some()) else { return };
        let is_wanted = copying.search.is_none() && header.index <= copying.until;
        if is_wanted && header.index == own.index.next() && header.hash_after(own.hash) == header.running_hash {
            if self.uncommitted.len() >= COPIED_ENTRIES_TRACKED_MAX {
                self.stop_tracking();
            }
            self.fold(&header, control.as_ref());
            return out.push(Output::Append { header, body: AppendBody::Request(request), forward: false });
        }
        let known = LogPoint { index: header.index, hash: header.running_hash };
        if self.own_point(header.index) != Some(known)
            && let Some(copying) = &mut self.copying
        {
            copying.rest(Some(ErrorCode::OutOfOrder));
        }
    }

    pub(super) fn copy_ended(&mut self, copy: CopyId, limit: LogIndex, out: &mut Vec<Output>) {
        let own = self.state.end();
        let Some(copying) = &mut self.copying else { return };
        let Some(after) = copying.asked(copy) else { return };
        copying.limit = Some(limit);
        if let Some(search) = &mut copying.search {
            search.agrees_at(after);
            copying.step = Step::Due;
        } else if own.index > after.index {
            (copying.step, copying.durable_first) = (Step::Due, after.index);
        } else {
            copying.rest(None);
        }
        self.advance_copy(out);
    }

    pub(super) fn copy_disagreed(&mut self, copy: CopyId, limit: LogIndex, out: &mut Vec<Output>) {
        let Some(copying) = &mut self.copying else { return };
        let Some(after) = copying.asked(copy) else { return };
        copying.limit = Some(limit);
        self.disagrees_at(after.index, out);
    }

    pub(super) fn copy_failed(&mut self, copy: CopyId, code: ErrorCode, out: &mut Vec<Output>) {
        let Some(copying) = self.copying.as_mut().filter(|copying| copying.asked(copy).is_some()) else { return };
        copying.rest(Some(code));
        // What the source cannot read it will not read the next time: only another decision helps (R5d).
        if code == ErrorCode::DataDamaged && copying.purpose == CopyPurpose::Reconcile {
            self.refuse_reconcile(code, out);
        }
    }

    pub(super) fn copy_source_lost(&mut self, member: ChainMember, out: &mut Vec<Output>) {
        if let Some(copying) = self.copying.as_mut().filter(|copying| copying.source == Some(member))
            && matches!(copying.step, Step::Asked { .. })
        {
            self.copy_lost(out);
        }
    }

    pub(super) fn copy_tick(&mut self, out: &mut Vec<Output>) {
        let Some(copying) = &mut self.copying else { return };
        match &mut copying.step {
            Step::Asked { ticks, .. } => {
                *ticks += 1;
                if *ticks >= STALL_TICKS_MAX {
                    self.copy_lost(out);
                }
            }
            Step::Resting { ticks } => {
                *ticks = ticks.saturating_sub(1);
                if *ticks == 0 {
                    copying.step = Step::Due;
                    self.advance_copy(out);
                }
            }
            _ => {}
        }
    }

    /// The newest request, or its answer, was lost. A source that never answered may be one that this member cannot reach,
    /// though the controller can: a member that is reconciled says so, because only another decision helps (R5d).
    fn copy_lost(&mut self, out: &mut Vec<Output>) {
        let Some(copying) = &mut self.copying else { return };
        copying.lost += 1;
        copying.rest(Some(ErrorCode::TimedOut));
        let is_out_of_reach = copying.limit.is_none() && copying.lost >= COPY_REQUESTS_LOST_MAX;
        if is_out_of_reach && copying.purpose == CopyPurpose::Reconcile {
            self.refuse_reconcile(ErrorCode::TimedOut, out);
        }
    }

    /// The source cannot help: a member that is reconciled says so, a learner asks again later, perhaps another source.
    pub(super) fn give_up_copy(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        match &mut self.copying {
            Some(copying) if copying.purpose == CopyPurpose::Learn => copying.rest(Some(code)),
            Some(_) => self.refuse_reconcile(code, out),
            None => {}
        }
    }
}
