//! What the controller changes: seal and activate; and the end of it all, a failed write (R5, R10, R11).

use super::role::{Active, Standing, Uncommitted};
use super::{Answer, Output, Replica, RequestId};
use crate::chain::ChainMember;
use crate::chain::peer::ComplaintReason;
use crate::chain::planted::{PlantedBug, is_planted, is_restart_forgotten};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::SEALS_WAITING_MAX;
use crate::wire::controller::SealReport;

/// A change is done.
pub(super) const DONE: Answer = Answer::Done { base_offset: Offset(0), append_timestamp: Timestamp(0) };

impl Replica {
    /// R5b. The same seal again gets the same report, until the controller decided in its epoch.
    pub(super) fn seal(&mut self, request: RequestId, epoch: Epoch, members: Vec<ChainMember>, out: &mut Vec<Output>) {
        self.mend_members = members;
        if epoch > self.promised {
            return self.promise(request, epoch, out);
        }
        if is_planted(PlantedBug::SecondDecisionTaken) && epoch == self.promised && self.marking.is_none() {
            self.forget_decision(out);
        }
        // A promise of an earlier life is not repeated: that process is out of every chain (R6).
        let is_repeated = epoch == self.promised && epoch == self.sealed && self.decided.is_none();
        if !is_repeated || !matches!(self.standing, Standing::Sealing | Standing::Sealed | Standing::Failed) {
            let report = self.seal_report(Some(ErrorCode::Stale));
            return out.push(Output::ReportSeal { request, report });
        }
        self.quiet_ticks = 0;
        if self.seals.len() == SEALS_WAITING_MAX {
            self.abandon_oldest_seal(out);
        }
        self.seals.push_back(request);
        self.report_seal_if_due(out);
    }

    /// Only with a planted bug.
    fn forget_decision(&mut self, out: &mut Vec<Output>) {
        if matches!(self.standing, Standing::Reconciling | Standing::Reconciled) && self.cutting.is_none() {
            self.abandon(ErrorCode::Stale, out);
            (self.standing, self.decided) = (Standing::Sealed, None);
        }
    }

    fn promise(&mut self, request: RequestId, epoch: Epoch, out: &mut Vec<Output>) {
        (self.promised, self.sealed) = (epoch, epoch);
        if !is_planted(PlantedBug::SealedHeadCommits) {
            self.refuse_waiting(ErrorCode::Stale, out);
        }
        self.abandon(ErrorCode::Stale, out);
        if self.standing != Standing::Failed {
            self.standing = Standing::Sealing;
        }
        self.decided = None;
        self.quiet_ticks = 0;
        self.seals.push_back(request);
        self.promising = true;
        out.push(Output::PersistPromise { epoch });
    }

    pub(super) fn promise_persisted(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        if epoch == self.promised {
            self.promising = false;
            self.report_seal_if_due(out);
        }
    }

    /// Reports once the promise is durable and everything in flight has finished: writes, a cut, a marker.
    pub(super) fn report_seal_if_due(&mut self, out: &mut Vec<Output>) {
        let failed = self.standing == Standing::Failed;
        let is_settled = self.durable == self.state.end().index && self.cutting.is_none() && self.marking.is_none();
        let is_sealed = matches!(self.standing, Standing::Sealing | Standing::Sealed) && is_settled;
        if self.promising || !(failed || is_sealed) {
            return;
        }
        if !failed {
            self.standing = Standing::Sealed;
        }
        let report = self.seal_report(failed.then_some(ErrorCode::RangeFailed));
        for request in self.seals.drain(..) {
            out.push(Output::ReportSeal { request, report: report.clone() });
        }
        self.mend_from_sealed(out);
    }

    fn seal_report(&self, error: Option<ErrorCode>) -> SealReport {
        SealReport {
            range: self.range.range,
            error,
            promised: self.promised,
            marker: self.marker,
            end: self.state.end(),
            last_epoch: self.state.last_epoch(),
            known_committed: self.committed.index,
            damaged: self.damaged,
        }
    }

    /// R1: promise, marker, identity and start must all agree.
    pub(super) fn activate(
        &mut self,
        request: RequestId,
        epoch: Epoch,
        chain: &[ChainMember],
        start: LogPoint,
        out: &mut Vec<Output>,
    ) {
        let repeated = matches!(&self.standing, Standing::Active(active) if active.epoch() == epoch);
        if repeated {
            return out.push(Output::Answer { request, answer: DONE });
        }
        let place = chain.iter().position(|member| *member == self.me);
        let agrees = self.standing == Standing::Reconciled && self.promised == epoch && self.marker == epoch;
        let is_longer = self.state.end().index > start.index;
        let is_whole = self.ends_at(start) || (is_longer && is_restart_forgotten());
        let Some(place) = place.filter(|_| agrees && is_whole) else {
            let answer = Answer::Refused { code: ErrorCode::Stale, epoch: self.promised };
            return out.push(Output::Answer { request, answer });
        };
        let mut active = Active::new(epoch, place, chain, start.index);
        if let Some(downstream) = &mut active.downstream
            && is_planted(PlantedBug::AcknowledgementsKeptAcrossEpochs)
        {
            downstream.acknowledged = self.kept_acknowledgement.max(start.index);
        }
        self.standing = Standing::Active(active);
        self.was_alone = chain.len() == 1;
        self.deleted_topics.clear();
        out.push(Output::Answer { request, answer: DONE });
        self.commit_start(start, out);
        if is_longer && is_restart_forgotten() {
            self.uncommitted.push_back(Uncommitted::end_of(self.state.end()));
        }
        self.take_early_stream(out);
        self.open_stream(out);
    }

    /// R11: nothing that is written later is trusted.
    pub(super) fn write_failed(&mut self, out: &mut Vec<Output>) {
        let is_news = self.standing != Standing::Failed;
        self.refuse_waiting(ErrorCode::RangeFailed, out);
        // Seals get their report, with the failure in it: it may have been their promise that was not written.
        let seals = std::mem::take(&mut self.seals);
        self.abandon(ErrorCode::RangeFailed, out);
        self.seals = seals;
        self.standing = Standing::Failed;
        (self.promising, self.cutting, self.marking) = (false, None, None);
        self.report_seal_if_due(out);
        if is_news {
            self.complain(self.me.node, ComplaintReason::WriteFailed, out);
        }
    }

    pub(super) fn refuse_waiting(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        let epoch = self.promised;
        for (_, request, _) in self.waiting.drain(..) {
            out.push(Output::Answer { request, answer: Answer::Refused { code, epoch } });
        }
    }

    /// Ends what was begun in an older epoch. What is being cut or marked on the disk goes on.
    pub(super) fn abandon(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        self.stop_acting(out);
        self.early_stream = None;
        self.copying = None;
        while !self.seals.is_empty() {
            self.abandon_oldest_seal(out);
        }
        if let Some(request) = self.reconcile.take() {
            out.push(Output::Answer { request, answer: Answer::Refused { code, epoch: self.promised } });
        }
    }

    fn abandon_oldest_seal(&mut self, out: &mut Vec<Output>) {
        if let Some(request) = self.seals.pop_front() {
            let report = self.seal_report(Some(ErrorCode::Stale));
            out.push(Output::ReportSeal { request, report });
        }
    }
}
