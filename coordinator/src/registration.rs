//! [`Registration`]: an ephemeral key that comes back after every lost session, until its owner gives up.
//!
//! It needs no executor and no timer: every event that may have taken the key away (a new session, a gap, the key's own
//! deletion) is answered by an attempt to create it. Where it is already there nothing happens, also when it is one of
//! an earlier session that is about to go: its going is an event. It does not tell who owns a key that exists.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use minikafka_core::coordination::{
    CoordinationError, Coordinator, CoordinatorEvent, CoordinatorReply, CoordinatorRequest, KeyLife, KeyVersion,
};

/// Keeps one ephemeral key. Dropping it gives up: the key is not created again, and goes with its session.
pub struct Registration {
    kept: Arc<Kept>,
}

struct Kept {
    session: Weak<dyn Coordinator>,
    path: String,
    value: Vec<u8>,
    given_up: AtomicBool,
}

impl Registration {
    /// Registers now and whenever the key may be gone. To be told that somebody else has the key, create it first: this
    /// waits until it is free.
    pub fn keep(session: &Arc<dyn Coordinator>, path: &str, value: Vec<u8>) -> Self {
        let kept = Arc::new(Kept {
            session: Arc::downgrade(session),
            path: path.to_owned(),
            value,
            given_up: AtomicBool::new(false),
        });
        // The watcher lives as long as the session: it must not hold what was given up.
        let weak = Arc::downgrade(&kept);
        let watcher = move |event| {
            if let Some(kept) = weak.upgrade() {
                kept.hear(&event);
            }
        };
        session.watch(path, Box::new(watcher));
        Self { kept }
    }

    /// Gives up, and deletes the key where it is still there with this value.
    pub fn withdraw(self) {
        self.kept.given_up.store(true, Ordering::SeqCst);
        let Some(session) = self.kept.session.upgrade() else { return };
        let kept = Arc::clone(&self.kept);
        let found = move |outcome| {
            if let Ok(CoordinatorReply::Value(Some(found))) = outcome {
                let found: minikafka_core::coordination::Versioned = found;
                if found.value == kept.value {
                    kept.delete(found.version);
                }
            }
        };
        session.submit(CoordinatorRequest::Get { path: self.kept.path.clone() }, Box::new(found));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.kept.given_up.store(true, Ordering::SeqCst);
    }
}

impl Kept {
    fn hear(&self, event: &CoordinatorEvent) {
        match event {
            CoordinatorEvent::SessionStarted | CoordinatorEvent::Changed { .. } => self.create(),
            CoordinatorEvent::SessionSuspended | CoordinatorEvent::SessionExpired => {}
        }
    }

    fn create(&self) {
        let Some(session) = self.session.upgrade() else { return };
        if self.given_up.load(Ordering::SeqCst) {
            return;
        }
        let path = self.path.clone();
        let request =
            CoordinatorRequest::Create { path: path.clone(), value: self.value.clone(), life: KeyLife::Ephemeral };
        let done = move |outcome| match outcome {
            Ok(_) => tracing::info!(path, "registered with the coordinator"),
            Err(CoordinationError::Exists { .. }) => {}
            // Contact is lost: its return is an event.
            Err(error) => tracing::warn!(path, %error, "not registered with the coordinator"),
        };
        session.submit(request, Box::new(done));
    }

    fn delete(&self, version: KeyVersion) {
        let Some(session) = self.session.upgrade() else { return };
        let request = CoordinatorRequest::Delete { path: self.path.clone(), version };
        // Whoever was faster deleted it.
        session.submit(request, Box::new(drop));
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("path", &self.kept.path).finish_non_exhaustive()
    }
}
