//! What became of a coordinator session, for whoever watches a process from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use minikafka_core::coordination::{Coordinator, CoordinatorEvent};

/// Hears of a session for as long as the session lives.
#[derive(Debug, Default)]
pub struct SessionWatch {
    is_connected: AtomicBool,
    started: AtomicU64,
    suspended: AtomicU64,
    expired: AtomicU64,
}

impl SessionWatch {
    /// Begins to listen. Changes below `path` are heard and ignored: whoever watches hears of the session as well.
    pub fn begin(coordinator: &Arc<dyn Coordinator>, path: &str) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let heard = watch.clone();
        coordinator.watch(path, Box::new(move |event| heard.hear(&event)));
        watch
    }

    /// Whether the session works.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// How often sessions were started, suspended and expired.
    pub fn events(&self) -> [(&'static str, u64); 3] {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("started", count(&self.started)), ("suspended", count(&self.suspended)), ("expired", count(&self.expired))]
    }

    fn hear(&self, event: &CoordinatorEvent) {
        let (count, is_connected) = match event {
            CoordinatorEvent::Changed { .. } => return,
            CoordinatorEvent::SessionStarted => (&self.started, true),
            CoordinatorEvent::SessionSuspended => (&self.suspended, false),
            CoordinatorEvent::SessionExpired => (&self.expired, false),
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::EmbeddedCoordinator;

    #[test]
    fn a_session_that_is_there_already_counts_and_its_end_too() {
        let coordinator = EmbeddedCoordinator::in_memory();
        let session: Arc<dyn Coordinator> = Arc::new(coordinator.session());
        let watch = SessionWatch::begin(&session, "/brokers/1");
        // It is told by the coordinator's thread.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !watch.is_connected() {
            assert!(Instant::now() < deadline, "nobody tells that the session is there");
            std::thread::yield_now();
        }
        assert_eq!(watch.events()[0], ("started", 1));
        watch.hear(&CoordinatorEvent::SessionExpired);
        assert!(!watch.is_connected());
    }
}
