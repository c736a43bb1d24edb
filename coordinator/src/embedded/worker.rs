//! The coordinator's thread: apply, persist, answer, tell the watchers, in that order.

use std::collections::BTreeSet;

use minikafka_core::coordination::{
    CoordinationError, CoordinatorCallback, CoordinatorEvent, CoordinatorReply, CoordinatorRequest, CoordinatorWatcher,
};

use super::file::{CoordinatorFile, SaveError};
use super::queue::{Command, Queue};
use super::store::{SessionId, Store};
use crate::key::covers;

/// Serves until told to stop.
pub(super) fn run(queue: &Queue, store: Store, file: Option<CoordinatorFile>) {
    let mut worker = Worker { store, file, failed: None, open: BTreeSet::new(), watches: Vec::new() };
    loop {
        let mut batch = Vec::new();
        for command in queue.take() {
            match command {
                Command::Open { session } => drop(worker.open.insert(session)),
                Command::Submit { session, request, done } => batch.push((session, request, done)),
                Command::Watch { session, prefix, watcher } => worker.watch(session, prefix, watcher),
                Command::Expire { session } => worker.expire(session),
                Command::Close { session } => worker.close(session),
                Command::Stop => return,
            }
        }
        if !batch.is_empty() {
            worker.serve(batch);
        }
    }
}

struct Worker {
    store: Store,
    file: Option<CoordinatorFile>,
    /// Set when it is not known what the file holds; nothing is answered from then on.
    failed: Option<String>,
    open: BTreeSet<SessionId>,
    watches: Vec<Watch>,
}

struct Watch {
    session: SessionId,
    prefix: String,
    watcher: CoordinatorWatcher,
}

impl Worker {
    fn serve(&mut self, batch: Vec<(SessionId, CoordinatorRequest, CoordinatorCallback)>) {
        let before = self.store.clone();
        let mut changed = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for (session, request, done) in batch {
            answers.push((done, self.apply(session, request, &mut changed)));
        }
        if let Err(error) = self.persist(before) {
            answers.into_iter().for_each(|(done, _)| done(Err(error.clone())));
            return;
        }
        answers.into_iter().for_each(|(done, outcome)| done(outcome));
        self.tell(changed);
    }

    fn apply(
        &mut self,
        session: SessionId,
        request: CoordinatorRequest,
        changed: &mut Vec<String>,
    ) -> Result<CoordinatorReply, CoordinationError> {
        if let Some(reason) = &self.failed {
            return Err(CoordinationError::Unavailable { reason: reason.clone() });
        }
        if !self.open.contains(&session) {
            return Err(CoordinationError::Unavailable { reason: "this session is closed".into() });
        }
        self.store.apply(session, request, changed)
    }

    /// Makes what changed durable, or takes it all back. `before` is the state to go back to.
    fn persist(&mut self, before: Store) -> Result<(), CoordinationError> {
        let Some(file) = self.file.as_mut().filter(|_| self.store.durable_changes != before.durable_changes) else {
            return Ok(());
        };
        let Err(error) = file.save(&self.store) else { return Ok(()) };
        tracing::error!(%error, "the coordinator's file could not be written");
        self.store = before;
        match error {
            SaveError::NotDone(error) => Err(CoordinationError::Unavailable { reason: error.to_string() }),
            SaveError::Unknown(error) => {
                self.failed = Some(format!("its file is in an unknown state since {error}; restart the process"));
                Err(CoordinationError::Unknown { reason: error.to_string() })
            }
        }
    }

    fn watch(&mut self, session: SessionId, prefix: String, watcher: CoordinatorWatcher) {
        if self.open.contains(&session) {
            watcher(CoordinatorEvent::SessionStarted);
            self.watches.push(Watch { session, prefix, watcher });
        }
    }

    fn expire(&mut self, session: SessionId) {
        let mut changed = Vec::new();
        self.store.end_session(session, &mut changed);
        for watch in self.watches.iter().filter(|watch| watch.session == session) {
            (watch.watcher)(CoordinatorEvent::SessionExpired);
            (watch.watcher)(CoordinatorEvent::SessionStarted);
        }
        self.tell(changed);
    }

    fn close(&mut self, session: SessionId) {
        let mut changed = Vec::new();
        self.open.remove(&session);
        self.watches.retain(|watch| watch.session != session);
        self.store.end_session(session, &mut changed);
        self.tell(changed);
    }

    fn tell(&self, changed: Vec<String>) {
        for path in changed {
            for watch in self.watches.iter().filter(|watch| covers(&watch.prefix, &path)) {
                (watch.watcher)(CoordinatorEvent::Changed { path: path.clone() });
            }
        }
    }
}
