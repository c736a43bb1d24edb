//! What the controller does to a range: seal, reconcile, activate; and the durable facts they need (R10).

use std::rc::Rc;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::replica::{Answer, Input};
use minikafka_core::wire::SealReport;
use minikafka_core::{Epoch, ErrorCode, LogPoint};
use minikafka_storage::LogError;
use minikafka_storage::disk::Disk;

use super::recovery::StateVisitor;
use super::{LogPromise, Pending, Range};

impl<D: Disk> Range<D> {
    /// Promises an epoch; none when the broker stops meanwhile.
    pub async fn seal(self: &Rc<Self>, epoch: Epoch) -> Option<SealReport> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        let request = self.pending.borrow_mut().insert(Pending::Seal(sender));
        self.drive(Input::Seal { request, epoch });
        receiver.await.ok()
    }

    /// Brings the log to an exact end and marks it.
    pub async fn reconcile(self: &Rc<Self>, epoch: Epoch, end: LogPoint) -> Answer {
        self.ask(|request| Input::Reconcile { request, epoch, end }).await
    }

    /// Begins to act.
    pub async fn activate(self: &Rc<Self>, epoch: Epoch, chain: Vec<ChainMember>, start: LogPoint) -> Answer {
        if chain.len() > 1 {
            // Links between members are not there yet: refusing is safe, acting alone would not be.
            return Answer::Refused { code: ErrorCode::Unsupported, epoch };
        }
        self.ask(|request| Input::Activate { request, epoch, chain, start }).await
    }

    pub(super) fn persist_promise(self: &Rc<Self>, epoch: Epoch) {
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
            return Ok(());
        }
        self.shared.promises.update([self.promise(Epoch(0), epoch, false)]).await
    }

    pub(super) fn truncate(self: &Rc<Self>, end: LogPoint) {
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let mut visitor = StateVisitor::default();
            let cut = range.log.truncate_to(end, &mut visitor).await;
            match cut.and_then(|()| visitor.finish(range.key)) {
                Ok(state) => range.drive(Input::Truncated { state: Box::new(state) }),
                Err(error) => range.write_failed(&error),
            }
        });
    }
}
