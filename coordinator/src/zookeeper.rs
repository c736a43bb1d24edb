//! The coordinator in ZooKeeper 3.8 or later: one [`ZooKeeperSession`] is one thread and one connection.
//!
//! It keeps the promises of `docs/COORDINATOR.md`: answers in the order of the requests, a lost reply to a change told as
//! unknown and never as failed, an ephemeral that was created without a reply recognised by its owner, everybody told to
//! read again after every gap. It does not create ephemerals again after a session is lost: who owns one hears
//! `SessionStarted` and decides ([`crate::Registration`] does it).

mod address;
mod connection;
mod requests;
mod watches;
mod worker;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use minikafka_core::coordination::{
    CoordinationError, Coordinator, CoordinatorCallback, CoordinatorRequest, CoordinatorWatcher,
};
use minikafka_core::limits;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub use address::{ZooKeeperAddress, ZooKeeperAddressError};
use worker::{Command, Worker};

/// Session time-out asked of the ensemble by [`ZooKeeperSession::open`]: how long a broker that froze counts as alive.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest session time-out: the library counts its reading time-out in whole seconds of two thirds of it.
pub const SESSION_TIMEOUT_MIN: Duration = Duration::from_secs(2);

/// A session with ZooKeeper; after an expiry it goes on with the next one. Dropping it closes it.
#[derive(Debug)]
pub struct ZooKeeperSession {
    commands: UnboundedSender<Command>,
    unanswered: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ZooKeeperSession {
    /// Begins a session. Returns at once: requests wait for contact up to the session time-out and are `Unavailable`
    /// after it, with what each server answered.
    ///
    /// # Errors
    /// The system cannot start one more thread.
    pub fn open(address: &ZooKeeperAddress) -> io::Result<Self> {
        Self::open_with(address, SESSION_TIMEOUT)
    }

    /// As [`ZooKeeperSession::open`], with another session time-out. The ensemble may grant another one still: between 2
    /// and 20 of its ticks.
    ///
    /// # Panics
    /// Below [`SESSION_TIMEOUT_MIN`].
    ///
    /// # Errors
    /// The system cannot start one more thread.
    pub fn open_with(address: &ZooKeeperAddress, session_timeout: Duration) -> io::Result<Self> {
        assert!(session_timeout >= SESSION_TIMEOUT_MIN, "{session_timeout:?} is too short for a session");
        let (commands, received) = unbounded_channel();
        let unanswered = Arc::new(AtomicUsize::new(0));
        let worker = Worker::new(address.clone(), session_timeout, received, Arc::clone(&unanswered));
        let thread = std::thread::Builder::new().name("coordinator".into()).spawn(move || worker.run())?;
        Ok(Self { commands, unanswered, thread: Mutex::new(Some(thread)) })
    }

    /// Loses the session as an expiry does: its ephemerals go, its watchers hear `SessionExpired` and `SessionStarted`, and
    /// it goes on as a new one. For tests.
    pub fn expire(&self) {
        drop(self.commands.send(Command::Expire));
    }
}

impl Coordinator for ZooKeeperSession {
    fn submit(&self, request: CoordinatorRequest, done: CoordinatorCallback) {
        let unavailable = |reason: &str| Err(CoordinationError::Unavailable { reason: reason.to_owned() });
        if self.unanswered.fetch_add(1, Ordering::Relaxed) >= limits::COORDINATOR_REQUESTS_MAX {
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
            return done(unavailable("too many requests wait already"));
        }
        if let Err(refused) = self.commands.send(Command::Submit { request, done })
            && let Command::Submit { done, .. } = refused.0
        {
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
            done(unavailable("this session is closed"));
        }
    }

    /// The watcher hears `SessionStarted` as soon as it is told of every change: the moment to register and read.
    fn watch(&self, prefix: &str, watcher: CoordinatorWatcher) {
        drop(self.commands.send(Command::Watch { prefix: prefix.to_owned(), watcher }));
    }

    /// Without contact the ephemerals stay until the session times out.
    fn close(&self) {
        drop(self.commands.send(Command::Close));
    }
}

impl Drop for ZooKeeperSession {
    /// Waits for the thread, so that the ephemerals are gone afterwards.
    fn drop(&mut self) {
        self.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may go inside a callback: the thread cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Submit { .. } => "Submit",
            Command::Watch { .. } => "Watch",
            Command::Expire => "Expire",
            Command::Close => "Close",
        })
    }
}
