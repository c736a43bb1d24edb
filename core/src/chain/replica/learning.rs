//! Copying in the background before joining a chain, and letting others copy (R7).

use super::copying::{Copying, LEARN_UNTIL};
use super::role::Standing;
use super::{Output, Replica, RequestId};
use crate::chain::ChainMember;
use crate::chain::peer::CopyPurpose;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::wire::controller::LearnReport;

impl Replica {
    pub(super) fn learn(
        &mut self,
        request: RequestId,
        epoch: Epoch,
        chain: &[ChainMember],
        source: ChainMember,
        out: &mut Vec<Output>,
    ) {
        if let Err(code) = self.check_learn(epoch, chain, source) {
            let report = self.learn_report(Some(code));
            return out.push(Output::ReportLearn { request, report });
        }
        if self.damaged {
            self.mend_to_learn(chain, epoch, out);
            let report = self.learn_report(Some(ErrorCode::CatchingUp));
            return out.push(Output::ReportLearn { request, report });
        }
        if !matches!(self.standing, Standing::Learning(_)) {
            self.refuse_waiting(ErrorCode::Stale, out);
            self.abandon(ErrorCode::Stale, out);
            self.stop_tracking();
        }
        self.standing = Standing::Learning(epoch);
        self.learned = self.learned.max(epoch);
        match self.copying.as_mut().filter(|copying| copying.source == Some(source)) {
            Some(copying) => copying.epoch = epoch,
            None => self.copying = Some(Copying::new(Some(source), epoch, CopyPurpose::Learn, LEARN_UNTIL)),
        }
        let error = self.copying.as_mut().and_then(|copying| copying.error.take());
        out.push(Output::ReportLearn { request, report: self.learn_report(error) });
        self.advance_copy(out);
    }

    fn check_learn(&self, epoch: Epoch, chain: &[ChainMember], source: ChainMember) -> Result<(), ErrorCode> {
        if self.standing == Standing::Failed {
            return Err(ErrorCode::RangeFailed);
        }
        // It may be a survivor of a later chain, or have promised to wait for one.
        if self.marker >= epoch || self.sealed > epoch {
            return Err(ErrorCode::Stale);
        }
        if !chain.contains(&source) || source == self.me {
            return Err(ErrorCode::InvalidArgument);
        }
        match self.standing {
            Standing::Learning(current) if epoch < current => Err(ErrorCode::Stale),
            Standing::Learning(_) => Ok(()),
            // The disk is still busy with an older epoch.
            _ if self.cutting.is_some() || self.marking.is_some() => Err(ErrorCode::CatchingUp),
            _ => Ok(()),
        }
    }

    fn learn_report(&self, error: Option<ErrorCode>) -> LearnReport {
        let limit = self.copying.as_ref().and_then(|copying| copying.limit);
        LearnReport { range: self.range.range, error, promised: self.promised, end: self.agreed_end(), limit }
    }

    /// How far this member, as a source, lets another one copy in `epoch`. What is served must be appended here as well.
    pub fn copy_limit(&self, epoch: Epoch, purpose: CopyPurpose) -> Result<LogIndex, ErrorCode> {
        if purpose == CopyPurpose::Mend {
            // Whatever is here: who mends its log knows each entry by its place.
            return if self.cutting.is_some() { Err(ErrorCode::CatchingUp) } else { Ok(self.durable) };
        }
        let waits = matches!(self.standing, Standing::Sealed | Standing::Reconciling | Standing::Reconciled);
        match (&self.standing, purpose) {
            (Standing::Idle | Standing::Learning(_), _) => Err(ErrorCode::NotOwner),
            (Standing::Failed, _) => Err(ErrorCode::RangeFailed),
            (Standing::Sealing, _) => Err(ErrorCode::CatchingUp),
            _ if self.damaged => Err(ErrorCode::DataDamaged),
            _ if self.cutting.is_some() => Err(ErrorCode::CatchingUp),
            (_, CopyPurpose::Reconcile) if is_planted(PlantedBug::LearnerToCommittedOnly) => Ok(self.committed.index),
            (_, CopyPurpose::Reconcile) if waits && self.promised == epoch => Ok(self.state.end().index),
            // Whoever was never in a chain of this epoch or a later one knows too little of it.
            (_, CopyPurpose::Learn) if self.marker >= epoch => Ok(self.committed.index),
            _ => Err(ErrorCode::Stale),
        }
    }
}
