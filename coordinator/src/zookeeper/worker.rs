//! The thread of one coordinator session: a ZooKeeper session after the other, requests in their order, watchers.
//!
//! ```text
//!                 greeted, armed                 library: Connecting
//!   connecting ------------------> in contact <----------------------> suspended
//!       ^        SessionStarted        |        Changed / Suspended        |
//!       |                              | silent for a time-out             | expired at the server, or
//!       |         SessionExpired       v                                   v silent while a server is there
//!       +----------------------------- over <------------------------------+
//! ```
//! Requests wait while there is no contact, for a session time-out at most.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use minikafka_core::coordination::{
    CoordinationError, CoordinatorCallback, CoordinatorEvent, CoordinatorReply, CoordinatorRequest, CoordinatorWatcher,
};
use minikafka_core::limits;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until};
use zookeeper_async::{WatchedEventType, ZkState};

use super::address::ZooKeeperAddress;
use super::connection::{Connection, Failure, Note, QUESTIONS_IN_FLIGHT, RETRY};
use super::requests::{Session, Trouble};
use super::watches::Armed;
use crate::key::covers;

/// An idle session asks for a sign of life this many times in a session time-out.
const BEATS_PER_TIMEOUT: u32 = 3;

pub(super) enum Command {
    Submit { request: CoordinatorRequest, done: CoordinatorCallback },
    Watch { prefix: String, watcher: CoordinatorWatcher },
    Expire,
    Close,
}

/// How a ZooKeeper session ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// As asked: there is no next one.
    Closed,
    /// It expired, or is given up: another follows.
    Lost,
}

struct Watch {
    prefix: String,
    watcher: CoordinatorWatcher,
    /// Whether it has heard of this session.
    started: bool,
}

struct Waiting {
    request: CoordinatorRequest,
    done: CoordinatorCallback,
    deadline: Instant,
    /// It was asked already, and the reply is lost.
    doubtful: bool,
}

pub(super) struct Worker {
    address: ZooKeeperAddress,
    session_timeout: Duration,
    commands: UnboundedReceiver<Command>,
    /// Requests that are not answered; shared with those who submit.
    unanswered: Arc<AtomicUsize>,
    watches: Vec<Watch>,
    waiting: VecDeque<Waiting>,
    /// Ephemerals that the last session may have left.
    left: BTreeMap<String, i64>,
    /// Why there is no contact, as far as known.
    complaint: String,
}

impl Worker {
    pub(super) fn new(
        address: ZooKeeperAddress,
        session_timeout: Duration,
        commands: UnboundedReceiver<Command>,
        unanswered: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            address,
            session_timeout,
            commands,
            unanswered,
            watches: Vec::new(),
            waiting: VecDeque::new(),
            left: BTreeMap::new(),
            complaint: "no contact yet".to_owned(),
        }
    }

    /// Works until closed.
    pub(super) fn run(mut self) {
        loop {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(%error, "no runtime for a ZooKeeper session");
                    self.complaint = format!("no runtime: {error}");
                    break;
                }
            };
            let ended = runtime.block_on(self.live());
            // With it go all tasks of the library, wherever they hang.
            runtime.shutdown_background();
            if ended == Ended::Closed {
                self.complaint = "this session is closed".to_owned();
                break;
            }
            self.expire();
        }
        self.refuse_all();
    }

    /// One ZooKeeper session, from the first try to connect to its end.
    async fn live(&mut self) -> Ended {
        let (notes_in, mut notes) = unbounded_channel();
        let Some(connection) = self.connect(notes_in).await else { return Ended::Closed };
        let mut session = Session::new(connection, self.address.root());
        let ended = loop {
            if let Some(ended) = self.await_contact(&session, &mut notes).await {
                break ended;
            }
            let mut armed = Armed::default();
            // A failure shows in the contact.
            let begun = self.begin_contact(&mut session, &mut armed).await;
            if begun.is_ok()
                && let Some(ended) = self.serve(&mut session, &mut armed, &mut notes).await
            {
                break ended;
            }
            self.suspend();
        };
        if ended == Ended::Closed {
            session.leave().await;
        } else {
            self.left.extend(session.into_own());
        }
        ended
    }

    /// Opens a connection, however long it takes. `None`: closed meanwhile.
    async fn connect(&mut self, notes: UnboundedSender<Note>) -> Option<Connection> {
        loop {
            let opening = Connection::open(self.address.clone(), self.session_timeout, notes.clone());
            tokio::pin!(opening);
            let failed = loop {
                let deadline = self.next_deadline();
                tokio::select! {
                    opened = &mut opening => match opened {
                        Ok(connection) => return Some(connection),
                        Err(reason) => break reason,
                    },
                    command = self.commands.recv() => if !self.put_off(command) {
                        return None;
                    },
                    () = sleep_until(deadline) => self.refuse_overdue(),
                }
            };
            tracing::warn!(address = %self.address, reason = failed, "no contact with ZooKeeper");
            self.complaint = failed;
            sleep(RETRY).await;
        }
    }

    /// Waits until the library is connected and greeted. Otherwise tells how the session ended.
    async fn await_contact(&mut self, session: &Session, notes: &mut UnboundedReceiver<Note>) -> Option<Ended> {
        let mut patience = Instant::now() + self.session_timeout;
        let mut server_there = false;
        loop {
            if session.connection.is_over() {
                return Some(Ended::Lost);
            }
            let deadline = self.next_deadline().min(patience);
            tokio::select! {
                note = notes.recv() => match note {
                    Some(Note::State(ZkState::Connected)) => {
                        if session.connection.greet().await.is_ok() {
                            return None;
                        }
                    }
                    Some(Note::State(state)) if ends_session(state) => return Some(Ended::Lost),
                    Some(_) => {}
                    None => return Some(Ended::Lost),
                },
                command = self.commands.recv() => if !self.put_off(command) {
                    return Some(Ended::Closed);
                },
                () = sleep_until(deadline) => {
                    if Instant::now() >= patience {
                        // With no server there the session may yet be resumed. With one all the time, the library hangs.
                        match self.address.reachable().await {
                            Ok(_) if server_there => return Some(Ended::Lost),
                            Ok(_) => {
                                self.complaint = "a server takes connections and does not answer".to_owned();
                                server_there = true;
                            }
                            Err(reason) => (self.complaint, server_there) = (reason, false),
                        }
                        patience = Instant::now() + self.session_timeout;
                    }
                    self.refuse_overdue();
                }
            }
        }
    }

    /// Arms all watches, then tells everybody to read.
    async fn begin_contact(&mut self, session: &mut Session, armed: &mut Armed) -> Result<(), Failure> {
        session.sweep(&self.left).await?;
        self.left.clear();
        let roots = self.watches.iter().map(|watch| session.absolute(&watch.prefix)).collect();
        armed.arm(&session.connection, roots).await?;
        for watch in &mut self.watches {
            (watch.watcher)(if std::mem::replace(&mut watch.started, true) {
                CoordinatorEvent::Changed { path: watch.prefix.clone() }
            } else {
                CoordinatorEvent::SessionStarted
            });
        }
        tracing::info!(address = %self.address, "in contact with ZooKeeper");
        Ok(())
    }

    /// Serves as long as there is contact. Tells how the session ended, if it did.
    async fn serve(
        &mut self,
        session: &mut Session,
        armed: &mut Armed,
        notes: &mut UnboundedReceiver<Note>,
    ) -> Option<Ended> {
        let mut commands = Vec::new();
        loop {
            self.answer_waiting(session).await;
            if session.connection.is_over() {
                return Some(Ended::Lost);
            }
            if !session.connection.in_contact() {
                return None;
            }
            tokio::select! {
                note = notes.recv() => match note {
                    Some(Note::State(state)) if ends_session(state) => return Some(Ended::Lost),
                    Some(Note::State(_)) => {}
                    Some(Note::Fired(event, at)) => self.fired(session, armed, event, at).await,
                    None => return Some(Ended::Lost),
                },
                () = sleep(self.session_timeout / BEATS_PER_TIMEOUT) => session.connection.beat().await,
                taken = self.commands.recv_many(&mut commands, limits::COORDINATOR_BATCH_MAX) => {
                    if taken == 0 {
                        return Some(Ended::Closed);
                    }
                    for command in commands.drain(..) {
                        if !self.take(session, armed, command).await {
                            return Some(Ended::Closed);
                        }
                    }
                }
            }
        }
    }

    /// Does a command, after the requests before it. False: close.
    async fn take(&mut self, session: &mut Session, armed: &mut Armed, command: Command) -> bool {
        if matches!(command, Command::Submit { .. }) {
            return self.put_off(Some(command));
        }
        self.answer_waiting(session).await;
        match command {
            Command::Watch { prefix, watcher } => self.watch(session, armed, prefix, watcher).await,
            Command::Expire => session.connection.close().await,
            command => return self.put_off(Some(command)),
        }
        true
    }

    async fn watch(&mut self, session: &Session, armed: &mut Armed, prefix: String, watcher: CoordinatorWatcher) {
        let at = session.absolute(&prefix);
        let started = armed.arm(&session.connection, vec![at]).await.is_ok();
        if started {
            watcher(CoordinatorEvent::SessionStarted);
        }
        // Otherwise contact is lost, and the next one begins with it.
        self.watches.push(Watch { prefix, watcher, started });
    }

    async fn fired(&mut self, session: &Session, armed: &mut Armed, event: WatchedEventType, at: String) {
        let is_root = self.watches.iter().any(|watch| session.absolute(&watch.prefix) == at);
        // A failure is a lost contact, and the next one tells everybody.
        for at in armed.fired(&session.connection, event, at, is_root).await.unwrap_or_default() {
            let Some(path) = session.relative(&at) else { continue };
            for watch in self.watches.iter().filter(|watch| covers(&watch.prefix, &path)) {
                (watch.watcher)(CoordinatorEvent::Changed { path: path.clone() });
            }
        }
    }

    /// Does what waits, in order: reads side by side, changes one by one. Stops when contact is lost.
    async fn answer_waiting(&mut self, session: &mut Session) {
        while session.connection.in_contact() {
            let reads =
                self.waiting.iter().take(QUESTIONS_IN_FLIGHT).take_while(|waiting| is_read(&waiting.request)).count();
            if reads > 0 {
                let some: Vec<Waiting> = self.waiting.drain(..reads).collect();
                let outcomes = join_all(some.iter().map(|waiting| session.read(&waiting.request))).await;
                // Back to front, so that those put off are in their order again.
                let mut told = Vec::with_capacity(reads);
                for (waiting, outcome) in some.into_iter().zip(outcomes).rev() {
                    told.extend(self.settle_or_put_back(waiting, outcome));
                }
                told.into_iter().rev().for_each(|(done, outcome)| done(outcome));
                continue;
            }
            let Some(waiting) = self.waiting.pop_front() else { return };
            let outcome = match waiting.doubtful {
                false => session.change(&waiting.request).await,
                true => session.settle(&waiting.request).await,
            };
            if let Some((done, outcome)) = self.settle_or_put_back(waiting, outcome) {
                done(outcome);
            }
        }
    }

    /// What is to be told now; a request that must be asked (again) goes back to the front.
    fn settle_or_put_back(
        &mut self,
        waiting: Waiting,
        outcome: Result<CoordinatorReply, Trouble>,
    ) -> Option<(CoordinatorCallback, Result<CoordinatorReply, CoordinationError>)> {
        let doubtful = match outcome {
            Ok(reply) => return Some(self.answered(waiting.done, Ok(reply))),
            Err(Trouble::Told(error)) => return Some(self.answered(waiting.done, Err(error))),
            Err(Trouble::NotAsked) => false,
            Err(Trouble::Doubtful) => true,
        };
        self.waiting.push_front(Waiting { doubtful, ..waiting });
        None
    }

    fn answered<T>(&self, done: CoordinatorCallback, outcome: T) -> (CoordinatorCallback, T) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        (done, outcome)
    }

    /// Keeps a command until there is contact. False: close.
    fn put_off(&mut self, command: Option<Command>) -> bool {
        match command {
            None | Some(Command::Close) => return false,
            Some(Command::Submit { request, done }) => {
                let deadline = Instant::now() + self.session_timeout;
                self.waiting.push_back(Waiting { request, done, deadline, doubtful: false });
            }
            Some(Command::Watch { prefix, watcher }) => {
                self.watches.push(Watch { prefix, watcher, started: false });
            }
            // Without contact there is no session to lose.
            Some(Command::Expire) => {}
        }
        true
    }

    fn next_deadline(&self) -> Instant {
        let far = Instant::now() + self.session_timeout;
        self.waiting.front().map_or(far, |waiting| waiting.deadline)
    }

    fn refuse_overdue(&mut self) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|waiting| waiting.deadline <= now) {
            self.refuse_first();
        }
    }

    fn refuse_all(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.put_off(Some(command));
        }
        while !self.waiting.is_empty() {
            self.refuse_first();
        }
    }

    fn refuse_first(&mut self) {
        let Some(waiting) = self.waiting.pop_front() else { return };
        let reason = format!("{}: {}", self.address, self.complaint);
        let error = match waiting.doubtful {
            true => CoordinationError::Unknown { reason },
            false => CoordinationError::Unavailable { reason },
        };
        let (done, error) = self.answered(waiting.done, error);
        done(Err(error));
    }

    /// Contact is lost, the session perhaps not.
    fn suspend(&mut self) {
        self.complaint = "contact was lost".to_owned();
        tracing::warn!(address = %self.address, "lost contact with ZooKeeper");
        for watch in self.watches.iter().filter(|watch| watch.started) {
            (watch.watcher)(CoordinatorEvent::SessionSuspended);
        }
    }

    /// The session is over, and with it the doubt about what it made.
    fn expire(&mut self) {
        tracing::warn!(address = %self.address, "the ZooKeeper session is over; another begins");
        self.complaint = "the session is over, and another has not begun yet".to_owned();
        while self.waiting.front().is_some_and(|waiting| waiting.doubtful) {
            self.refuse_first();
        }
        for watch in &mut self.watches {
            if std::mem::replace(&mut watch.started, false) {
                (watch.watcher)(CoordinatorEvent::SessionExpired);
            }
        }
    }
}

fn is_read(request: &CoordinatorRequest) -> bool {
    matches!(request, CoordinatorRequest::Get { .. } | CoordinatorRequest::Children { .. })
}

/// The server said that the session expired, or it was closed.
#[allow(deprecated, reason = "the library itself uses it for exactly this")]
fn ends_session(state: ZkState) -> bool {
    matches!(state, ZkState::NotConnected | ZkState::Closed | ZkState::AuthFailed)
}
