//! [`WatchEvents`]: what a watch tells, coalesced so that a slow listener costs nothing and misses nothing.
//!
//! Events are hints, so equal ones are told once, and past a bound the paths collapse into the watched prefix.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minikafka_core::coordination::{CoordinatorEvent, CoordinatorWatcher};
use minikafka_core::limits;
use tokio::sync::Notify;

/// Events of one watch, waiting to be taken. Needs no particular executor.
#[derive(Debug)]
pub struct WatchEvents {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    prefix: String,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    session: Vec<CoordinatorEvent>,
    changed: BTreeSet<String>,
}

impl WatchEvents {
    /// A listener and the watcher that feeds it.
    pub fn new(prefix: &str) -> (Self, CoordinatorWatcher) {
        let shared = Arc::new(Shared {
            prefix: prefix.to_owned(),
            waiting: Mutex::new(Waiting::default()),
            arrived: Notify::new(),
        });
        let fed = Arc::clone(&shared);
        (Self { shared }, Box::new(move |event| fed.add(event)))
    }

    /// Waits until something is there, and takes all of it: first what befell the session, in order, then the changed
    /// paths, each once. Safe to drop while waiting.
    pub async fn next(&mut self) -> Vec<CoordinatorEvent> {
        loop {
            let arrived = self.shared.arrived.notified();
            let taken = self.shared.take();
            if !taken.is_empty() {
                return taken;
            }
            arrived.await;
        }
    }
}

impl Shared {
    fn add(&self, event: CoordinatorEvent) {
        let mut waiting = self.lock();
        match event {
            CoordinatorEvent::Changed { path } => {
                waiting.changed.insert(path);
                if waiting.changed.len() > limits::COORDINATOR_EVENTS_MAX {
                    waiting.changed = BTreeSet::from([self.prefix.clone()]);
                }
            }
            // Of a flapping session only the outcome matters, so the same news is kept once, at its last place.
            session => {
                waiting.session.retain(|earlier| *earlier != session);
                waiting.session.push(session);
            }
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<CoordinatorEvent> {
        let taken = std::mem::take(&mut *self.lock());
        let changed = taken.changed.into_iter().map(|path| CoordinatorEvent::Changed { path });
        taken.session.into_iter().chain(changed).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing here panics half way, so what a poisoned lock holds is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hints_are_told_once_and_many_collapse_into_the_prefix() {
        let (events, watcher) = WatchEvents::new("/topics");
        let changed = |path: &str| CoordinatorEvent::Changed { path: path.to_owned() };
        watcher(changed("/topics/1"));
        watcher(changed("/topics/1"));
        watcher(CoordinatorEvent::SessionExpired);
        assert_eq!(events.shared.take(), [CoordinatorEvent::SessionExpired, changed("/topics/1")]);
        for n in 0..=limits::COORDINATOR_EVENTS_MAX {
            watcher(changed(&format!("/topics/{n}")));
        }
        assert_eq!(events.shared.take(), [changed("/topics")]);
        assert!(events.shared.take().is_empty());
    }
}
