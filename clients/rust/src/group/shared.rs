//! What the application's side of a member, its records and its session share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minikafka_core::{MemberId, Offset, PartitionKey};
use tokio::sync::{Notify, oneshot};

use super::handled::{Handled, Turn};
use super::inbox::Inbox;
use super::options::Acknowledge;
use crate::error::Result;

/// Shared by all sides of one member.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There may be something for the application: records, or news of the group.
    pub(super) ready: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) handled: Handled,
    pub(super) inbox: Inbox,
    /// Who the member is now.
    pub(super) member: MemberId,
}

/// What the application wants of its session.
#[derive(Debug)]
pub(super) enum Command {
    /// These are not read any more: what was handled of them is committed, then they are free.
    GiveBack(Vec<(PartitionKey, Turn)>),
    /// What was handled is committed.
    Commit(oneshot::Sender<Result<()>>),
    /// What was handled is committed, then it leaves.
    Leave { for_good: bool, done: oneshot::Sender<Result<()>> },
}

impl Shared {
    pub(super) fn new(acknowledge: Acknowledge, member: MemberId) -> Self {
        let state = State { handled: Handled::new(acknowledge), inbox: Inbox::default(), member };
        Self { state: Mutex::new(state), ready: Arc::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn acknowledge(&self, partition: PartitionKey, turn: Turn, first: Offset) {
        let mut state = self.state();
        let was_full = state.handled.is_full();
        state.handled.acknowledged(partition, turn, first);
        if was_full && !state.handled.is_full() {
            self.ready.notify_one();
        }
    }
}
