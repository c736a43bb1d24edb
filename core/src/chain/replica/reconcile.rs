//! Bringing the log to the exact end that the controller decided, and marking it (R5e).

use super::change::DONE;
use super::copying::Copying;
use super::role::Standing;
use super::{Answer, Output, Replica, RequestId};
use crate::chain::ChainMember;
use crate::chain::peer::CopyPurpose;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::range_state::RangeState;

impl Replica {
    pub(super) fn reconcile(
        &mut self,
        request: RequestId,
        epoch: Epoch,
        end: LogPoint,
        source: Option<ChainMember>,
        out: &mut Vec<Output>,
    ) {
        let refused = |code, epoch| Output::Answer { request, answer: Answer::Refused { code, epoch } };
        // R5d: one epoch, one decision.
        let is_another = self.decided.is_some_and(|decided| decided != end);
        let takes_another = is_planted(PlantedBug::SecondDecisionTaken);
        if epoch != self.promised || (is_another && !takes_another) {
            return out.push(refused(ErrorCode::Stale, self.promised));
        }
        self.quiet_ticks = 0;
        if self.is_being_mended() {
            return out.push(refused(ErrorCode::CatchingUp, self.promised));
        }
        match self.standing {
            Standing::Sealed if self.marker < epoch => {}
            Standing::Active(_) if is_planted(PlantedBug::LateReconcile) => {}
            Standing::Sealed if takes_another => {}
            Standing::Reconciling | Standing::Reconciled if is_another && self.cutting.is_none() => {}
            Standing::Reconciling => return self.report_progress(request, out),
            // Only the answer is repeated.
            Standing::Reconciled => return out.push(Output::Answer { request, answer: DONE }),
            _ => return out.push(refused(ErrorCode::Stale, self.promised)),
        }
        self.decided = Some(end);
        let source = source.filter(|source| *source != self.me);
        // Never below what is known to be committed. A damaged log is neither cut nor appended to: what is lost must stay
        // known to be lost (R12).
        let is_kept = self.damaged && source.is_none();
        if end.index < self.committed.index || (is_kept && end != self.state.end()) {
            return out.push(refused(ErrorCode::RangeFailed, self.promised));
        }
        if self.damaged && !is_kept && !self.drop_if_nobody_has(out) {
            self.mend_from_sealed(out);
            return out.push(refused(ErrorCode::CatchingUp, self.promised));
        }
        self.standing = Standing::Reconciling;
        self.reconcile = Some(request);
        self.copying = Some(Copying::new(source, epoch, CopyPurpose::Reconcile, end.index));
        self.advance_copy(out);
    }

    /// Asked again: the older question is answered with how far it is, the newer one waits.
    fn report_progress(&mut self, request: RequestId, out: &mut Vec<Output>) {
        if let Some(older) = self.reconcile.replace(request) {
            out.push(Output::ReportProgress { request: older, end: self.agreed_end() });
        }
    }

    /// The end is reached: the marker follows when all of it is durable (R10).
    pub(super) fn mark_if_durable(&mut self, out: &mut Vec<Output>) {
        let is_durable = self.durable == self.state.end().index;
        let too_soon = is_planted(PlantedBug::LearnerBeforeDurable);
        if is_durable || too_soon {
            self.marking = Some(self.promised);
            out.push(Output::PersistMarker { epoch: self.promised });
        }
        if too_soon {
            self.marker_persisted(self.promised, out);
        }
    }

    pub(super) fn marker_persisted(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        self.marker = self.marker.max(epoch);
        if self.marking != Some(epoch) {
            return;
        }
        self.marking = None;
        if self.standing == Standing::Reconciling && epoch == self.promised {
            self.standing = Standing::Reconciled;
            self.copying = None;
            if let Some(request) = self.reconcile.take() {
                out.push(Output::Answer { request, answer: DONE });
            }
        }
        self.report_seal_if_due(out);
    }

    /// The log was cut, dropped, or has another segment; what waited for that goes on.
    pub(super) fn truncated(&mut self, state: RangeState, out: &mut Vec<Output>) {
        let Some(wanted) = self.cutting.take() else { return };
        let end = state.end();
        self.durable = end.index;
        self.state = state;
        self.uncommitted.retain(|entry| entry.index <= end.index);
        let kept = self.uncommitted.iter().rev().filter_map(|entry| Some((entry.partition?, entry.base_offset)));
        self.uncommitted_from = kept.collect();
        self.uncommitted_starts.truncated(end.index);
        if let Some(copying) = &mut self.copying {
            copying.ahead = LogIndex(0);
        }
        self.report_seal_if_due(out);
        if end != wanted {
            return self.give_up_copy(ErrorCode::RangeFailed, out);
        }
        self.advance_copy(out);
    }

    /// The decided end cannot be reached from here: the member leaves the chain and says so.
    pub(super) fn refuse_reconcile(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        self.standing = Standing::Sealed;
        self.copying = None;
        if let Some(request) = self.reconcile.take() {
            let answer = Answer::Refused { code, epoch: self.promised };
            out.push(Output::Answer { request, answer });
        }
    }
}
