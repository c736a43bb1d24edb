//! What waits for the coordinator's thread. Requests are bounded; what ends or begins a session always fits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use minikafka_core::coordination::{CoordinatorCallback, CoordinatorRequest, CoordinatorWatcher};
use minikafka_core::limits;

use super::store::SessionId;

pub(super) enum Command {
    Open { session: SessionId },
    Submit { session: SessionId, request: CoordinatorRequest, done: CoordinatorCallback },
    Watch { session: SessionId, prefix: String, watcher: CoordinatorWatcher },
    Expire { session: SessionId },
    Close { session: SessionId },
    Stop,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Command>>,
    arrived: Condvar,
}

impl Queue {
    /// Adds a command that must not be lost.
    pub(super) fn push(&self, command: Command) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        self.arrived.notify_one();
    }

    /// Adds a request, or gives it back when too many wait.
    pub(super) fn push_request(&self, command: Command) -> Result<(), Command> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= limits::COORDINATOR_REQUESTS_MAX {
            return Err(command);
        }
        waiting.push_back(command);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for the next command and takes it together with the requests right behind it, when it is one.
    pub(super) fn take(&self) -> Vec<Command> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.is_empty() {
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let is_submit = |command: &Command| matches!(command, Command::Submit { .. });
        let count = waiting.iter().take(limits::COORDINATOR_BATCH_MAX).take_while(|c| is_submit(c)).count().max(1);
        waiting.drain(..count).collect()
    }
}
