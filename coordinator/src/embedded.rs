//! The embedded coordinator: in this process, shared by several sessions, kept in one file.
//!
//! One thread owns everything. It takes the requests that wait, applies them in order, writes the file once for all of
//! them, and only then answers: an answered change survives a crash. Ephemeral keys live in memory only, so a
//! restart is the end of every session. A key's version is the number of the change that wrote it, over all keys.

mod file;
mod queue;
mod store;
mod worker;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use minikafka_core::coordination::{
    CoordinationError, Coordinator, CoordinatorCallback, CoordinatorRequest, CoordinatorWatcher,
};
use thiserror::Error;

use file::CoordinatorFile;
use queue::{Command, Queue};
use store::{SessionId, Store};

/// Name of the file in its directory.
pub const FILE_NAME: &str = "coordinator.state";

/// Why the embedded coordinator cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{directory} is in use by another process; stop that one first, or choose another data directory")]
    Locked {
        /// Which directory.
        directory: String,
    },
    /// The file is not what this release writes, or its bytes were damaged.
    #[error("{file} is damaged or of another release: {reason}; restore it from a backup")]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// The store that sessions share. Clones are the same store; it is closed when the last clone and session are gone.
#[derive(Clone, Debug)]
pub struct EmbeddedCoordinator {
    inner: Arc<Inner>,
}

/// One session with an [`EmbeddedCoordinator`]. Dropping it closes it.
#[derive(Debug)]
pub struct EmbeddedSession {
    session: SessionId,
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    sessions: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedCoordinator {
    /// Opens the store in `directory`, which is created where it is missing and locked against other processes.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let (file, store) = CoordinatorFile::open(directory)?;
        Self::start(Some(file), store)
    }

    /// A store that ends with the process. For tests.
    pub fn in_memory() -> Self {
        Self::start(None, Store::default()).expect("the system can start one more thread")
    }

    /// Begins a session.
    pub fn session(&self) -> EmbeddedSession {
        let session = SessionId(self.inner.sessions.fetch_add(1, Ordering::Relaxed));
        self.inner.queue.push(Command::Open { session });
        EmbeddedSession { session, inner: Arc::clone(&self.inner) }
    }

    fn start(file: Option<CoordinatorFile>, store: Store) -> Result<Self, OpenError> {
        let queue = Arc::new(Queue::default());
        let served = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("coordinator".into())
            .spawn(move || worker::run(&served, store, file))
            .map_err(|source| OpenError::Io { what: "starting the coordinator's thread".into(), source })?;
        let inner = Inner { queue, sessions: AtomicU64::new(1), thread: Mutex::new(Some(thread)) };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl EmbeddedSession {
    /// Loses the session as a network coordinator might: its ephemerals go, its watchers hear `SessionExpired` and
    /// `SessionStarted`, and it goes on as a new one. For tests.
    pub fn expire(&self) {
        self.inner.queue.push(Command::Expire { session: self.session });
    }
}

impl Coordinator for EmbeddedSession {
    fn submit(&self, request: CoordinatorRequest, done: CoordinatorCallback) {
        let refused = self.inner.queue.push_request(Command::Submit { session: self.session, request, done });
        if let Err(Command::Submit { done, .. }) = refused {
            done(Err(CoordinationError::Unavailable { reason: "too many requests wait already".into() }));
        }
    }

    /// The watcher hears `SessionStarted` at once: the moment to register and read everything.
    fn watch(&self, prefix: &str, watcher: CoordinatorWatcher) {
        self.inner.queue.push(Command::Watch { session: self.session, prefix: prefix.to_owned(), watcher });
    }

    fn close(&self) {
        self.inner.queue.push(Command::Close { session: self.session });
    }
}

impl Drop for EmbeddedSession {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for Inner {
    /// Waits for the thread, so that the directory is unlocked afterwards.
    fn drop(&mut self) {
        self.queue.push(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may go inside a callback: the thread cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("embedded coordinator")
    }
}
