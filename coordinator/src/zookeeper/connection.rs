//! [`Connection`]: one instance of the client library, which is one ZooKeeper session, made trustworthy.
//!
//! What zookeeper-async 5 does by itself, and what is done about it here and in `worker`:
//!
//! - It never compares the number of a reply with that of its request. Bytes of an earlier connection that it had not
//!   taken yet can pass as the first of the next one; then every reply goes to the wrong request. So each new contact
//!   is greeted with two questions whose answers differ, and a reply counts only if the contact in which it came is
//!   the contact in which it was asked for.
//! - After an expiry it goes on with a new session without a word. Here an instance dies with its session.
//! - It neither sets watches again when it reconnects nor can it sync: `worker` arms them anew, and the greeting ends with a
//!   write that cannot succeed, after which this server knows everything that was answered before.
//! - It may hang for ever (a full channel while it reconnects, a write to a server that does not read, a server that
//!   drops packets): a question unanswered for a session time-out ends the instance, and an idle session asks too.
//! - Its tasks live as long as their runtime: each instance has a runtime of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use zookeeper_async::{ZkError, ZkResult, ZkState, ZooKeeper};

use super::address::ZooKeeperAddress;

/// Questions under way with one another. The library waits for itself when its queue of 64 is full.
pub(super) const QUESTIONS_IN_FLIGHT: usize = 48;
/// Pause between tries to connect.
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// How long saying goodbye may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// A key that never exists: deleting it changes nothing, in the order of all changes.
const BARRIER: &str = "/minikafka-no-such-key";

/// What the library tells by itself.
#[derive(Debug)]
pub(super) enum Note {
    /// The connection or the session is another, or gone: see [`Connection`].
    State(ZkState),
    /// A watch fired at this path, relative to nothing.
    Fired(zookeeper_async::WatchedEventType, String),
}

/// Why a question has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server said no, and nothing happened.
    Refused(ZkError),
    /// It was not asked: there is no contact.
    NotAsked,
    /// It was asked, and whatever was answered did not arrive or cannot be trusted. The contact is over.
    Lost,
}

pub(super) struct Connection {
    keeper: ZooKeeper,
    contact: Arc<Contact>,
    session_timeout: Duration,
}

/// Contacts of one instance are numbered; each begins with a greeting and ends with the first sign of trouble.
#[derive(Debug, Default)]
struct Contact {
    current: AtomicU64,
    greeted: AtomicU64,
    over: AtomicBool,
}

impl Connection {
    /// Connects to a server; the session begins with the first [`ZkState::Connected`] among the notes. The error says
    /// what each server answered.
    pub(super) async fn open(
        address: ZooKeeperAddress,
        session_timeout: Duration,
        notes: UnboundedSender<Note>,
    ) -> Result<Self, String> {
        let servers = address.reachable().await?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let fired = notes.clone();
        let watcher = move |event: zookeeper_async::WatchedEvent| {
            // Nobody listens any more: the instance is being dropped.
            drop(event.path.map(|path| fired.send(Note::Fired(event.event_type, path))));
        };
        let connecting = ZooKeeper::connect_with_retry_time(&servers, session_timeout, watcher, RETRY);
        let keeper = match timeout(session_timeout, connecting).await {
            Ok(Ok(keeper)) => keeper,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no connection within {session_timeout:?}")),
        };
        // Nothing was awaited since the library's tasks were spawned on this thread: no state was missed.
        let contact = Arc::new(Contact { current: AtomicU64::new(1), ..Contact::default() });
        let changed = Arc::clone(&contact);
        keeper.add_listener(move |state| {
            if state != ZkState::Connected {
                changed.current.fetch_add(1, Ordering::SeqCst);
            }
            drop(notes.send(Note::State(state)));
        });
        Ok(Self { keeper, contact, session_timeout })
    }

    /// Whether questions can be asked.
    pub(super) fn in_contact(&self) -> bool {
        let contact = &self.contact;
        !self.is_over() && contact.greeted.load(Ordering::SeqCst) == contact.current.load(Ordering::SeqCst)
    }

    /// Whether the instance is of no more use.
    pub(super) fn is_over(&self) -> bool {
        self.contact.over.load(Ordering::SeqCst)
    }

    /// Begins a contact: makes sure that answers belong to questions and that the server is up to date.
    pub(super) async fn greet(&self) -> Result<(), Failure> {
        let contact = self.contact.current.load(Ordering::SeqCst);
        // Sent in this order.
        let (root, barrier) = tokio::join!(
            timeout(self.session_timeout, self.keeper.exists("/", false)),
            timeout(self.session_timeout, self.keeper.delete(BARRIER, Some(i32::MAX))),
        );
        if self.contact.current.load(Ordering::SeqCst) != contact {
            return Err(Failure::Lost);
        }
        let root_is_there = matches!(root, Ok(Ok(Some(_))));
        if !root_is_there || !matches!(barrier, Ok(Err(ZkError::NoNode | ZkError::NoAuth))) {
            tracing::warn!(?root, ?barrier, "ZooKeeper's replies do not fit the requests: beginning anew");
            self.give_up();
            return Err(Failure::Lost);
        }
        self.contact.greeted.store(contact, Ordering::SeqCst);
        Ok(())
    }

    /// Asks, and makes sure that the answer is one to this question.
    pub(super) async fn ask<'a, T, F>(&'a self, question: impl FnOnce(&'a ZooKeeper) -> F) -> Result<T, Failure>
    where
        F: Future<Output = ZkResult<T>> + 'a,
    {
        if !self.in_contact() {
            return Err(Failure::NotAsked);
        }
        let contact = self.contact.current.load(Ordering::SeqCst);
        let answer = timeout(self.session_timeout, question(&self.keeper)).await;
        if self.contact.current.load(Ordering::SeqCst) != contact {
            return Err(Failure::Lost);
        }
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            // The contact is none any more, and the library does not know: its task has ended, the reply is garbage, the
            // session is another's, or there is no reply.
            Ok(Err(
                ZkError::ConnectionLoss | ZkError::SessionMoved | ZkError::SessionExpired | ZkError::MarshallingError,
            ))
            | Err(_) => {
                self.give_up();
                Err(Failure::Lost)
            }
            Ok(Err(refusal)) => Err(Failure::Refused(refusal)),
        }
    }

    /// Asks for nothing but an answer. Without one the contact is over.
    pub(super) async fn beat(&self) {
        drop(self.ask(|keeper| keeper.exists("/", false)).await);
    }

    /// Ends the session at the server. The library does not wait for the server's answer.
    pub(super) async fn close(&self) {
        let closed = timeout(CLOSE_WITHIN, self.keeper.close()).await;
        tracing::debug!(?closed, "ZooKeeper session");
    }

    fn give_up(&self) {
        self.contact.over.store(true, Ordering::SeqCst);
    }
}
