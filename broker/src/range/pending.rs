//! Requests of a range that wait for their answer.

use std::rc::Rc;

use futures_channel::oneshot;
use minikafka_core::chain::replica::{Answer, RequestId};
use minikafka_core::wire::{LearnReport, SealReport};
use minikafka_core::{Epoch, ErrorCode, LogIndex};
use quanta::Instant;
use slab::Slab;

use crate::explain::Trace;

/// Takes the outcome of a produce request to its client.
pub trait Completion {
    /// Called exactly once.
    fn complete(self: Box<Self>, answer: Answer);

    /// Where the client wants its stages noted, if it asked for them.
    fn trace(&self) -> Option<Rc<Trace>> {
        None
    }
}

/// What a controller's change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whether it is done.
    pub answer: Answer,
    /// How far the log reaches, when it is `catching_up`.
    pub end: LogIndex,
}

impl From<Answer> for Changed {
    fn from(answer: Answer) -> Self {
        Self { answer, end: LogIndex(0) }
    }
}

/// Who waits.
pub(super) enum Pending {
    /// A client; it is told `timed_out` at `deadline`.
    Produce { reply: Box<dyn Completion>, deadline: Instant },
    /// A client that was told already; the machine's answer goes nowhere.
    Expired,
    /// A controller, for a reconcile, an activate or a control entry.
    Change(oneshot::Sender<Changed>),
    /// A controller, for a seal.
    Seal(oneshot::Sender<SealReport>),
    /// A controller, for a learner's progress.
    Learn(oneshot::Sender<LearnReport>),
}

/// The table of them. Its bound is the sum of the connections' windows.
#[derive(Default)]
pub(super) struct PendingRequests {
    table: Slab<Pending>,
    /// Everybody was told that the range closes; what the machine answers from then on goes nowhere.
    closed: bool,
}

impl PendingRequests {
    /// How many wait; those that were told `timed_out` are forgotten when the machine answers.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn insert(&mut self, pending: Pending) -> RequestId {
        RequestId(self.table.insert(pending) as u64)
    }

    pub fn answer(&mut self, request: RequestId, answer: Answer) {
        if self.closed {
            return;
        }
        match self.table.try_remove(request.0 as usize) {
            Some(Pending::Produce { reply, .. }) => reply.complete(answer),
            // A controller that went away needs no answer.
            Some(Pending::Change(sender)) => drop(sender.send(answer.into())),
            Some(Pending::Expired) => {}
            Some(Pending::Seal(_) | Pending::Learn(_)) | None => {
                unreachable!("the machine answers a request once, and as it was asked")
            }
        }
    }

    pub fn report_seal(&mut self, request: RequestId, report: SealReport) {
        match self.table.try_remove(request.0 as usize) {
            Some(Pending::Seal(sender)) => drop(sender.send(report)),
            None if self.closed => {}
            _ => unreachable!("the machine reports a seal once, to whom asked for it"),
        }
    }

    pub fn report_learn(&mut self, request: RequestId, report: LearnReport) {
        match self.table.try_remove(request.0 as usize) {
            Some(Pending::Learn(sender)) => drop(sender.send(report)),
            None if self.closed => {}
            _ => unreachable!("the machine reports a learner's progress once, to whom asked for it"),
        }
    }

    pub fn report_progress(&mut self, request: RequestId, end: LogIndex) {
        let answer = Answer::Refused { code: ErrorCode::CatchingUp, epoch: Epoch(0) };
        match self.table.try_remove(request.0 as usize) {
            Some(Pending::Change(sender)) => drop(sender.send(Changed { answer, end })),
            None if self.closed => {}
            _ => unreachable!("the machine reports a reconcile's progress once, to whom asked for it"),
        }
    }

    pub fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        for (_, pending) in &mut self.table {
            if matches!(pending, Pending::Produce { deadline, .. } if *deadline <= now)
                && let Pending::Produce { reply, .. } = std::mem::replace(pending, Pending::Expired)
            {
                reply.complete(Answer::Refused { code: ErrorCode::TimedOut, epoch: Epoch(0) });
                expired += 1;
            }
        }
        expired
    }

    /// Tells everybody who waits, because the range closes. Writes may still be under way, and the machine hears of them.
    pub fn close(&mut self, code: ErrorCode) {
        self.closed = true;
        for pending in self.table.drain() {
            if let Pending::Produce { reply, .. } = pending {
                reply.complete(Answer::Refused { code, epoch: Epoch(0) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range that closed with a write under way panicked when that write was durable: its request was told already.
    #[test]
    fn answers_after_the_close_go_nowhere() {
        let mut requests = PendingRequests::default();
        let (sender, mut receiver) = oneshot::channel();
        let request = requests.insert(Pending::Change(sender));
        requests.close(ErrorCode::ShuttingDown);
        assert!(receiver.try_recv().is_err(), "a controller hears that its request is over");
        let refused = Answer::Refused { code: ErrorCode::Stale, epoch: Epoch(1) };
        requests.answer(request, refused);
        requests.report_progress(request, LogIndex(1));
    }
}
