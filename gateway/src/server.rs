//! The native port, and what was counted on it.

mod connection;
mod frames;
mod requests;

pub(crate) use requests::Refusal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;

use crate::accept::serve_each;
use crate::gateway::Shared;

/// Counts of the native port; only ever grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    connections: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    too_slow: AtomicU64,
    requests: AtomicU64,
}

/// What happened on the native port since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Connections accepted.
    pub connections: u64,
    /// Connections closed at once, because there were too many.
    pub refused: u64,
    /// Connections closed because of bytes that are no frame, or no message.
    pub malformed: u64,
    /// Connections closed because a deadline passed.
    pub too_slow: u64,
    /// Requests taken, hello included.
    pub requests: u64,
}

impl Counters {
    pub(crate) fn values(&self) -> CounterValues {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CounterValues {
            connections: value(&self.connections),
            refused: value(&self.refused),
            malformed: value(&self.malformed),
            too_slow: value(&self.too_slow),
            requests: value(&self.requests),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Serves the port until dropped.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let limit = shared.config.connections_max;
    let refused = |peer| {
        count(&shared.counters.refused);
        tracing::warn!(%peer, limit, "too many connections; this one is closed");
    };
    let serve = |stream, peer| {
        count(&shared.counters.connections);
        connection::run(shared.clone(), stream, peer)
    };
    serve_each(listener, limit, refused, serve).await;
}
