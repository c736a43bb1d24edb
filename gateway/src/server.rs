//! The native port: accepting, and what was counted.

mod connection;
mod frames;
mod requests;

pub(crate) use requests::Refusal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::gateway::Shared;

/// After a failed accept (no file handles left), this much air for others to finish.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Accepts connections until dropped, and ends them then.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(shared.config.connections_max as usize));
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            count(&shared.counters.refused);
            tracing::warn!(%peer, limit = shared.config.connections_max, "too many connections; this one is closed");
            continue;
        };
        count(&shared.counters.connections);
        let shared = shared.clone();
        connections.spawn(async move {
            connection::run(shared, stream, peer).await;
            drop(place);
        });
    }
}
