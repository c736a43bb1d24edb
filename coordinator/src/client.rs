//! [`CoordinatorClient`]: a coordinator session as futures and typed records.
//!
//! The futures need no particular executor: they are woken from the coordinator's own thread. Dropping one does not
//! take back what was asked.

use std::fmt;
use std::sync::Arc;

use minikafka_core::coordination::{
    CoordinationError, Coordinator, CoordinatorReply, CoordinatorRequest, KeyLife, KeyVersion, Versioned,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::watch::WatchEvents;

/// A handle to one coordinator session; clones share it.
///
/// ```
/// # use std::sync::Arc;
/// use minikafka_coordinator::{CoordinatorClient, EmbeddedCoordinator};
/// use minikafka_core::coordination::{KeyLife, TopicBucket};
///
/// let store = EmbeddedCoordinator::in_memory();
/// let client = CoordinatorClient::new(Arc::new(store.session()));
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// client.create("/topics/7", &TopicBucket::default(), KeyLife::Persistent).await?;
/// let (bucket, version) = client.read::<TopicBucket>("/topics/7").await?.expect("just created");
/// client.compare_and_set("/topics/7", &bucket, version).await?;
/// # Ok::<(), minikafka_core::coordination::CoordinationError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct CoordinatorClient {
    session: Arc<dyn Coordinator>,
}

impl fmt::Debug for CoordinatorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CoordinatorClient")
    }
}

impl CoordinatorClient {
    /// Speaks through `session`.
    pub fn new(session: Arc<dyn Coordinator>) -> Self {
        Self { session }
    }

    /// Asks anything. A coordinator that drops the question counts as [`CoordinationError::Unknown`].
    pub async fn ask(&self, request: CoordinatorRequest) -> Result<CoordinatorReply, CoordinationError> {
        let (sender, receiver) = oneshot::channel();
        // Nobody may be waiting any more: that is no fault of the coordinator's.
        self.session.submit(request, Box::new(move |outcome| drop(sender.send(outcome))));
        receiver.await.unwrap_or_else(|_| Err(unknown("the session ended before it answered")))
    }

    /// The bytes of a key, if it exists.
    pub async fn get(&self, path: &str) -> Result<Option<Versioned>, CoordinationError> {
        match self.ask(CoordinatorRequest::Get { path: path.to_owned() }).await? {
            CoordinatorReply::Value(value) => Ok(value),
            other => Err(strange(path, &other)),
        }
    }

    /// A record, if its key exists.
    ///
    /// # Errors
    /// [`CoordinationError::Malformed`] when the bytes are not such a record.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<Option<(T, KeyVersion)>, CoordinationError> {
        let Some(found) = self.get(path).await? else { return Ok(None) };
        let record = serde_json::from_slice(&found.value)
            .map_err(|error| CoordinationError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Some((record, found.version)))
    }

    /// Creates a key with a record as its value, and its parents where they are missing. Returns the path as created
    /// (sequential keys get a number) and the first version.
    pub async fn create<T: Serialize>(
        &self,
        path: &str,
        record: &T,
        life: KeyLife,
    ) -> Result<(String, KeyVersion), CoordinationError> {
        let request = CoordinatorRequest::Create { path: path.to_owned(), value: to_json(path, record)?, life };
        match self.ask(request).await? {
            CoordinatorReply::Created { path, version } => Ok((path, version)),
            other => Err(strange(path, &other)),
        }
    }

    /// Replaces a record if its key is still at `version`.
    ///
    /// # Errors
    /// [`CoordinationError::Conflict`]: somebody was faster. [`CoordinationError::Unknown`]: read before trying again.
    pub async fn compare_and_set<T: Serialize>(
        &self,
        path: &str,
        record: &T,
        version: KeyVersion,
    ) -> Result<KeyVersion, CoordinationError> {
        let request =
            CoordinatorRequest::CompareAndSet { path: path.to_owned(), value: to_json(path, record)?, version };
        match self.ask(request).await? {
            CoordinatorReply::Set(version) => Ok(version),
            other => Err(strange(path, &other)),
        }
    }

    /// Deletes a key if it is still at `version`.
    pub async fn delete(&self, path: &str, version: KeyVersion) -> Result<(), CoordinationError> {
        match self.ask(CoordinatorRequest::Delete { path: path.to_owned(), version }).await? {
            CoordinatorReply::Deleted => Ok(()),
            other => Err(strange(path, &other)),
        }
    }

    /// The names of a key's children, sorted; empty too where the key does not exist.
    pub async fn children(&self, path: &str) -> Result<Vec<String>, CoordinationError> {
        match self.ask(CoordinatorRequest::Children { path: path.to_owned() }).await? {
            CoordinatorReply::Children(names) => Ok(names),
            other => Err(strange(path, &other)),
        }
    }

    /// Watches everything at and below `prefix` until the session is closed.
    pub fn watch(&self, prefix: &str) -> WatchEvents {
        let (events, watcher) = WatchEvents::new(prefix);
        self.session.watch(prefix, watcher);
        events
    }

    /// Ends the session for all clones: its ephemerals go at once.
    pub fn close(&self) {
        self.session.close();
    }
}

fn to_json<T: Serialize>(path: &str, record: &T) -> Result<Vec<u8>, CoordinationError> {
    serde_json::to_vec(record)
        .map_err(|error| CoordinationError::Malformed { path: path.to_owned(), reason: error.to_string() })
}

fn unknown(reason: &str) -> CoordinationError {
    CoordinationError::Unknown { reason: reason.to_owned() }
}

fn strange(path: &str, reply: &CoordinatorReply) -> CoordinationError {
    unknown(&format!("about {path} it answered {reply:?}, which is no answer to this question"))
}
