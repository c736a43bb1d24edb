//! What the controller does to a range: seal, reconcile, activate, learn; and the durable facts they need (R10).

use std::rc::Rc;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::planted::{PlantedBug, is_planted};
use minikafka_core::chain::replica::{Answer, Input};
use minikafka_core::wire::{LearnReport, SealReport};
use minikafka_core::{Epoch, ErrorCode, LogPoint};
use minikafka_storage::LogError;
use minikafka_storage::disk::Disk;

use super::recovery::StateVisitor;
use super::{Changed, LogPromise, Pending, Range};

impl<D: Disk> Range<D> {
    /// Promises an epoch; none when the broker stops meanwhile.
    pub async fn seal(self: &Rc<Self>, epoch: Epoch, members: Vec<ChainMember>) -> Option<SealReport> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        let request = self.pending.borrow_mut().insert(Pending::Seal(sender));
        self.drive(Input::Seal { request, epoch, members });
        receiver.await.ok()
    }

    /// Brings the log to an exact end and marks it; what is missing comes from `source`.
    pub async fn reconcile(self: &Rc<Self>, epoch: Epoch, end: LogPoint, source: Option<ChainMember>) -> Changed {
        self.ask(|request| Input::Reconcile { request, epoch, end, source }).await
    }

    /// Copies in the background from a member of a chain it is not in; tells how far it is. None when the broker stops.
    pub async fn learn(
        self: &Rc<Self>,
        epoch: Epoch,
        chain: Vec<ChainMember>,
        source: ChainMember,
    ) -> Option<LearnReport> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        let request = self.pending.borrow_mut().insert(Pending::Learn(sender));
        self.drive(Input::Learn { request, epoch, chain, source });
        receiver.await.ok()
    }

    /// Begins to act.
    pub async fn activate(self: &Rc<Self>, epoch: Epoch, chain: Vec<ChainMember>, start: LogPoint) -> Answer {
        if chain.len() > 1 && !self.shared.peers.are_linked() {
            // Without links between members refusing is safe, acting alone would not be.
            return Answer::Refused { code: ErrorCode::Unsupported, epoch };
        }
        let members = chain.clone();
        let answer = self.ask(|request| Input::Activate { request, epoch, chain, start }).await.answer;
        // A late notice is of a chain that is none any more.
        if matches!(answer, Answer::Done { .. }) && self.epoch() == epoch {
            self.mending.set_members(members);
        }
        answer
    }

    pub(super) fn persist_promise(self: &Rc<Self>, epoch: Epoch) {
        self.outgoing.stop();
        if is_planted(PlantedBug::PromiseNotPersisted) {
            return self.inputs.borrow_mut().push_back(Input::PromiseDurable { epoch });
        }
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let has_log = range.log_promise.get() != LogPromise::Absent;
            match range.shared.promises.update([range.promise(epoch, Epoch(0), has_log)]).await {
                Ok(()) => range.drive(Input::PromiseDurable { epoch }),
                Err(error) => range.write_failed(&error),
            }
        });
    }

    pub(super) fn persist_marker(self: &Rc<Self>, epoch: Epoch) {
        let range = self.clone();
        self.shared.disk.spawn(async move {
            match range.write_marker(epoch).await {
                Ok(()) => range.drive(Input::MarkerDurable { epoch }),
                Err(error) => range.write_failed(&error),
            }
        });
    }

    /// In the log when there is one, else in the promise file: losing the log must lose the marker.
    async fn write_marker(&self, epoch: Epoch) -> Result<(), LogError> {
        if self.log.persist_marker(epoch).await? {
            // R10: a log that was just begun may be marked before it is promised.
            return match self.log_promise.get() {
                LogPromise::Durable => Ok(()),
                _ => self.shared.promises.update([self.promise(Epoch(0), Epoch(0), true)]).await,
            };
        }
        self.shared.promises.update([self.promise(Epoch(0), epoch, false)]).await
    }

    pub(super) fn truncate(self: &Rc<Self>, end: LogPoint) {
        self.inbox.set_truncating(true);
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let mut visitor = StateVisitor::default();
            let cut = range.log.truncate_to(end, &mut visitor).await;
            range.inbox.set_truncating(false);
            match cut.and_then(|()| visitor.finish(range.key)) {
                Ok(state) => range.drive(Input::Truncated { state: Box::new(state) }),
                Err(error @ LogError::Truncate { .. }) => {
                    tracing::error!(range = %range.key, %error, "cannot go back to where the source's log agrees");
                    range.drive(Input::CutRefused);
                }
                Err(error) => range.write_failed(&error),
            }
        });
    }
}
