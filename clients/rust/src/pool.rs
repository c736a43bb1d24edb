//! Connections shared by everything in one client: one per address and lane.
//!
//! Requests that wait for data (fetches) have a lane of their own, so that a large fetch reply does not delay the
//! acknowledgements behind it. Opening is coalesced: who asks while a connection is being opened gets its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::connection::{ConnectOptions, Connection};
use crate::error::{Error, Result};

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Produce, offsets, maps, topics: small replies.
    Requests,
    /// Fetches: large replies.
    Fetches,
    /// Of members of groups to their coordinator: given up within seconds, whatever else its shard is busy with.
    Groups,
}

/// One attempt to open a connection; all who wait share its outcome.
type Opening = Arc<OnceCell<Result<Connection>>>;

/// The connections of a client.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    options: ConnectOptions,
    openings: Mutex<HashMap<(Arc<str>, Lane), Opening>>,
}

impl ConnectionPool {
    pub(crate) fn new(options: ConnectOptions) -> Self {
        Self { options, openings: Mutex::default() }
    }

    /// The live connection, if there is one.
    pub(crate) fn live(&self, address: &Arc<str>, lane: Lane) -> Option<Connection> {
        let openings = self.openings();
        let connection = openings.get(&(address.clone(), lane))?.get()?.as_ref().ok()?;
        (!connection.is_closed()).then(|| connection.clone())
    }

    /// The live connection, or a new one.
    pub(crate) async fn connect(&self, address: &Arc<str>, lane: Lane) -> Result<Connection> {
        let opening = self.opening(address, lane);
        let outcome = opening.get_or_init(|| Connection::connect(address, &self.options)).await.clone();
        if outcome.is_err() {
            self.forget(address, lane, &opening);
        }
        outcome
    }

    /// [`Self::connect`], but given up as failed after `patience`; the attempt goes on, and who asks again joins it.
    pub(crate) async fn connect_within(
        self: &Arc<Self>,
        address: &Arc<str>,
        lane: Lane,
        patience: Duration,
    ) -> Result<Connection> {
        let (pool, to) = (self.clone(), address.clone());
        let opening = tokio::spawn(async move { pool.connect(&to, lane).await });
        match tokio::time::timeout(patience, opening).await {
            Ok(Ok(outcome)) => outcome,
            // Not in time; or its task ended with the runtime.
            Ok(Err(_)) | Err(_) => {
                let reason = format!("not open within {} ms, and still trying", patience.as_millis()).into();
                Err(Error::ConnectFailed { address: address.clone(), reason })
            }
        }
    }

    /// The attempt to join: the current one unless it has led to a connection that ended since.
    fn opening(&self, address: &Arc<str>, lane: Lane) -> Opening {
        let mut openings = self.openings();
        let is_over = |opening: &Opening| match opening.get() {
            None => false,
            Some(Ok(connection)) => connection.is_closed(),
            Some(Err(_)) => true,
        };
        // Ended connections leave whenever somebody asks for a new one, so the map is bounded by live addresses.
        openings.retain(|_, opening| !is_over(opening));
        openings.entry((address.clone(), lane)).or_default().clone()
    }

    fn forget(&self, address: &Arc<str>, lane: Lane, failed: &Opening) {
        let mut openings = self.openings();
        let key = (address.clone(), lane);
        if openings.get(&key).is_some_and(|opening| Arc::ptr_eq(opening, failed)) {
            openings.remove(&key);
        }
    }

    fn openings(&self) -> MutexGuard<'_, HashMap<(Arc<str>, Lane), Opening>> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
