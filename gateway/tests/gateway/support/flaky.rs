//! A coordinator in bad weather: of the changes asked for, some are made and not confirmed, some are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minikafka_core::coordination::{
    CoordinationError, Coordinator, CoordinatorCallback, CoordinatorRequest, CoordinatorWatcher,
};

pub struct Flaky {
    session: Arc<dyn Coordinator>,
    changes: AtomicU64,
}

impl Flaky {
    pub fn new(session: impl Coordinator + 'static) -> Arc<Self> {
        Arc::new(Self { session: Arc::new(session), changes: AtomicU64::new(0) })
    }

    /// How many changes were asked for.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

impl Coordinator for Flaky {
    fn submit(&self, request: CoordinatorRequest, done: CoordinatorCallback) {
        let reason = || "bad weather".to_owned();
        if matches!(request, CoordinatorRequest::Get { .. } | CoordinatorRequest::Children { .. }) {
            return self.session.submit(request, done);
        }
        match self.changes.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => self
                .session
                .submit(request, Box::new(move |_| done(Err(CoordinationError::Unknown { reason: reason() })))),
            1 => done(Err(CoordinationError::Unavailable { reason: reason() })),
            _ => self.session.submit(request, done),
        }
    }

    fn watch(&self, prefix: &str, watcher: CoordinatorWatcher) {
        self.session.watch(prefix, watcher);
    }

    fn close(&self) {
        self.session.close();
    }
}
