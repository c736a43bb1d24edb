//! The consumer that belongs to a group (`docs/GROUPS.md`): the group decides which partitions it reads, and remembers how far.
//!
//! `session`, a task, drives `core`'s member machine: heartbeats, commits, whatever the application does meanwhile;
//! `requests` are its messages, `commits` what it commits and when. What the group decides waits in `inbox` until the
//! application asks for a record; `reading` reads what is assigned; `handled` knows what of it may be committed. `admin` and
//! `lag` are for whoever looks at groups from outside.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::group::member::{Member, MemberSettings};
use minikafka_core::group::{GroupName, InstanceName};
use minikafka_core::limits::HEARTBEAT_WAIT_MS_MAX;
use minikafka_core::{MemberId, Offset, PartitionKey};
use tokio::sync::{mpsc, oneshot};
use tokio::task::coop::consume_budget;

use crate::client::{Client, ClientShared};
use crate::consumer::Prospect;
use crate::error::{Error, Result};

mod admin;
mod commits;
mod handled;
mod inbox;
mod lag;
mod options;
mod reading;
mod record;
mod requests;
mod session;
mod shared;

pub use admin::{GroupDescription, GroupMember, ListedGroup};
pub use lag::PartitionLag;
pub use options::{Acknowledge, GroupConsumerOptions, GroupStart};
pub use record::{GroupRecord, GroupRecords, TopicPartition};

use handled::Turn;
use inbox::{Begin, Notice};
use reading::{Piece, Reading};
use record::Ticket;
use session::Session;
use shared::{Command, Shared};

/// Reads topics together with the other consumers of its group: each partition is read by one of them at a time, and each
/// goes on where the last one committed. It belongs to one task; heartbeats, fetching and commits go on in the background.
///
/// Every record is handed out at least once: again after a crash, if it was not committed. When a record counts as handled
/// is the application's choice ([`Acknowledge`]).
///
/// What the group decides is carried out, and the callbacks run, while the application waits for the next record. One that
/// does not come back for a minute after a partition was asked back loses it to somebody else.
///
/// Dropped, it commits what was handled and leaves in the background; [`GroupConsumer::close`] waits for that.
///
/// ```no_run
/// use minikafka_client::{Client, GroupConsumerOptions};
///
/// # async fn run(client: Client) -> minikafka_client::Result<()> {
/// let mut consumer = client.group_consumer("billing", &["orders"], GroupConsumerOptions::default()).await?;
/// loop {
///     let record = consumer.next().await?;
///     println!("{} {} {:?}", record.topic(), record.offset, record.value);
/// }
/// # }
/// ```
pub struct GroupConsumer {
    group: GroupName,
    request_timeout: Duration,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    reading: Reading,
    callbacks: Callbacks,
    /// Kept here, so that dropping a future loses nothing.
    running: Option<Running>,
}

type CallbackFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
type Callback = Box<dyn FnMut(Vec<TopicPartition>) -> CallbackFuture + Send>;

#[derive(Default)]
struct Callbacks {
    assigned: Option<Callback>,
    revoked: Option<Callback>,
    lost: Option<Callback>,
}

/// A callback, and what follows it.
struct Running {
    callback: CallbackFuture,
    after: After,
}

enum After {
    Begin(Vec<(PartitionKey, Begin)>),
    GiveBack(Vec<(PartitionKey, Turn)>),
    Nothing,
}

impl Client {
    /// A consumer of these topics that belongs to a group. It joins at once.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; [`Error::Broker`] with `unknown_topic`, `invalid_topic_name`, or `invalid_argument` for
    /// the name of a group; [`Error::NoGateway`].
    pub async fn group_consumer(
        &self,
        group: &str,
        topics: &[&str],
        options: GroupConsumerOptions,
    ) -> Result<GroupConsumer> {
        let name = admin::group_name(group)?;
        let instance = options.instance.as_deref().unwrap_or_default();
        let instance = InstanceName::new(instance)
            .map_err(|_| Error::InvalidOption { option: "instance", reason: "it is no name".into() })?;
        let mut topics: Vec<Arc<str>> = topics.iter().map(|&topic| topic.into()).collect();
        topics.sort_unstable();
        topics.dedup();
        options.check(topics.len())?;
        for topic in &topics {
            self.topic(topic).await?;
        }
        Ok(GroupConsumer::start(self.shared().clone(), (name, instance), topics, &options))
    }
}

impl GroupConsumer {
    fn start(
        client: Arc<ClientShared>,
        (group, instance): (GroupName, InstanceName),
        topics: Vec<Arc<str>>,
        options: &GroupConsumerOptions,
    ) -> Self {
        let session_timeout_ms = options.session_timeout.as_millis() as u32;
        let settings = MemberSettings {
            group: group.clone(),
            instance,
            client_name: client.options.client_name.clone(),
            session_timeout_ms,
            wait_ms_max: HEARTBEAT_WAIT_MS_MAX.min(session_timeout_ms / 3),
        };
        let member = Member::new(settings, rand::random());
        let shared = Arc::new(Shared::new(options.acknowledge, member.id()));
        let reading = Reading::new(client.clone(), options.of_topic(topics.len()), shared.ready.clone());
        let request_timeout = client.options.request_timeout;
        let how = (options.start, options.commit_interval);
        let session = Session::new(client, shared.clone(), member, (group.clone(), topics), how);
        // Unbounded as a type: what is given back is bounded by what is owned, commits by those that may wait.
        let (commands, queue) = mpsc::unbounded_channel();
        tokio::spawn(session.run(queue));
        Self { group, request_timeout, shared, commands, reading, callbacks: Callbacks::default(), running: None }
    }

    /// Runs whenever partitions are assigned, before anything of them is read.
    pub fn on_assigned<F, A>(&mut self, callback: F)
    where
        F: FnMut(Vec<TopicPartition>) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        self.callbacks.assigned = Some(boxed(callback));
    }

    /// Runs whenever partitions are to be given back, and when the consumer is closed: nothing more of them is handed out.
    /// After it, what was handled is committed.
    pub fn on_revoked<F, A>(&mut self, callback: F)
    where
        F: FnMut(Vec<TopicPartition>) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        self.callbacks.revoked = Some(boxed(callback));
    }

    /// Runs whenever partitions were lost: they belong to others already, and nothing of them can be committed.
    pub fn on_lost<F, A>(&mut self, callback: F)
    where
        F: FnMut(Vec<TopicPartition>) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        self.callbacks.lost = Some(boxed(callback));
    }

    /// The next batch of any partition that it owns, topics and partitions taking turns. Waits as long as it takes for one;
    /// cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// `member_fenced` when another process uses its instance name, and what else ends a membership: again by every call.
    /// What a partition cannot go on with, as [`crate::Consumer::next_batch`]; [`Error::NoCommit`] under
    /// [`GroupStart::Error`].
    pub async fn next_batch(&mut self) -> Result<GroupRecords> {
        let (records, ticket) = self.next_piece(Reading::next_batch).await?;
        Ok(GroupRecords { records, ticket })
    }

    /// [`GroupConsumer::next_batch`] for at most `wait`; none when nothing came. Zero only looks.
    ///
    /// # Errors
    /// As [`GroupConsumer::next_batch`].
    pub async fn next_batch_within(&mut self, wait: Duration) -> Result<Option<GroupRecords>> {
        tokio::time::timeout(wait, self.next_batch()).await.map_or(Ok(None), |result| result.map(Some))
    }

    /// The next record. Otherwise as [`GroupConsumer::next_batch`]; the two can be mixed.
    ///
    /// # Errors
    /// As [`GroupConsumer::next_batch`].
    pub async fn next(&mut self) -> Result<GroupRecord> {
        let (record, ticket) = self.next_piece(Reading::next_record).await?;
        Ok(GroupRecord { record, ticket })
    }

    /// [`GroupConsumer::next`] for at most `wait`; none when nothing came. Zero only looks.
    ///
    /// # Errors
    /// As [`GroupConsumer::next_batch`].
    pub async fn next_within(&mut self, wait: Duration) -> Result<Option<GroupRecord>> {
        tokio::time::timeout(wait, self.next()).await.map_or(Ok(None), |result| result.map(Some))
    }

    async fn next_piece<T>(&mut self, take: impl Fn(&mut Reading) -> Option<Result<Piece<T>>>) -> Result<(T, Ticket)> {
        self.shared.state().handled.settle();
        // An application that always finds something must still let its own tasks run.
        consume_budget().await;
        loop {
            self.keep_up().await;
            if let Some(error) = self.end() {
                return Err(error);
            }
            if self.shared.state().handled.is_full() {
                self.shared.ready.notified().await;
                continue;
            }
            match take(&mut self.reading) {
                Some(piece) => {
                    if let Some(handed_out) = self.hand_out(piece?) {
                        return Ok(handed_out);
                    }
                }
                None => match self.reading.prospect() {
                    // Better told again than waited for in vain.
                    Prospect::Failures(error) => return Err(error),
                    Prospect::Records | Prospect::Nothing => self.shared.ready.notified().await,
                },
            }
        }
    }

    /// None: it belongs to somebody else by now.
    fn hand_out<T>(&mut self, piece: Piece<T>) -> Option<(T, Ticket)> {
        let Piece { partition, first, next, content } = piece;
        let turn = self.shared.state().handled.handed_out(partition, first, next)?;
        let topic = self.reading.name_of(partition)?.topic;
        Some((content, Ticket { shared: self.shared.clone(), topic, partition, turn, first }))
    }

    /// Commits everything that was handled, under [`Acknowledge::Automatic`] everything that was handed out, and waits for
    /// that.
    ///
    /// # Errors
    /// `not_assigned` when something of it belongs to others by now, which will hand it out again; the rest is committed.
    /// [`Error::DeadlineExceeded`] after the client's `request_timeout`.
    pub async fn commit(&mut self) -> Result<()> {
        self.shared.state().handled.settle();
        let (done, outcome) = oneshot::channel();
        self.command(Command::Commit(done))?;
        in_time(outcome, self.request_timeout, format!("commit in group {}", self.group)).await
    }

    /// Commits what was handled and leaves the group, whose other members go on at once; a static member's partitions wait
    /// for its next process, for its session time-out.
    ///
    /// # Errors
    /// What ended the membership before; [`Error::DeadlineExceeded`] after the client's `request_timeout`: then the session
    /// time-out will make it leave.
    pub async fn close(self) -> Result<()> {
        self.leave(false).await
    }

    /// [`GroupConsumer::close`], also as a static member: its partitions go to others at once.
    ///
    /// # Errors
    /// As [`GroupConsumer::close`].
    pub async fn leave_for_good(self) -> Result<()> {
        self.leave(true).await
    }

    async fn leave(mut self, for_good: bool) -> Result<()> {
        self.shared.state().handled.settle();
        self.keep_up().await;
        let partitions = self.reading.partitions();
        self.begin(Notice::Revoked(partitions));
        if let Some(running) = self.running.take() {
            running.callback.await;
        }
        let (done, outcome) = oneshot::channel();
        self.command(Command::Leave { for_good, done })?;
        in_time(outcome, self.request_timeout, format!("leaving group {}", self.group)).await
    }

    /// Goes on at `offset`, which is where the group goes on, too. A failed partition goes on.
    ///
    /// # Errors
    /// [`Error::Broker`] with `not_assigned` for a partition that it does not own.
    pub fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        let key = self.key_of(partition)?;
        self.shared.state().handled.seek(key, offset);
        self.reading.seek(key, offset)
    }

    /// Hands out no records of these partitions until they are resumed, or assigned anew. Those that it does not own do not
    /// matter.
    pub fn pause(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions.iter().filter_map(|partition| self.reading.key_of(partition)).collect::<Vec<_>>() {
            self.reading.set_paused(partition, true);
        }
    }

    /// Undoes [`GroupConsumer::pause`].
    pub fn resume(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions.iter().filter_map(|partition| self.reading.key_of(partition)).collect::<Vec<_>>() {
            self.reading.set_paused(partition, false);
        }
        self.shared.ready.notify_one();
    }

    /// What it owns and reads, as far as the application was told, with the offset of the record that comes next and the
    /// offset behind the last committed record, as last heard.
    pub fn positions(&self) -> Vec<(TopicPartition, Offset, Option<Offset>)> {
        self.reading.positions().collect()
    }

    /// Its group.
    pub fn group(&self) -> &str {
        self.group.as_str()
    }

    /// Who it is in the group, as [`Client::describe_group`] names it; somebody else after it was expelled.
    pub fn member(&self) -> MemberId {
        self.shared.state().member
    }

    /// Does what the group asks for, without handing out records, until it is dropped or the membership ends.
    pub(crate) async fn attend(&mut self) -> Error {
        loop {
            self.keep_up().await;
            if let Some(error) = self.end() {
                return error;
            }
            self.shared.ready.notified().await;
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    /// Nothing of a record's partition is handed out before it is [released](Self::release) or put back.
    pub(crate) fn hold(&mut self, record: &GroupRecord) {
        self.reading.set_paused(record.ticket.partition, true);
    }

    /// Undoes [`Self::hold`]; true: the record counts as handled.
    pub(crate) fn release(&mut self, record: &GroupRecord) -> bool {
        let Ticket { partition, turn, first, .. } = record.ticket;
        let mut state = self.shared.state();
        let counts = state.handled.acknowledged(partition, turn, first);
        let is_mine = state.handled.turn_of(partition) == Some(turn);
        drop(state);
        if is_mine {
            self.reading.set_paused(partition, false);
        }
        counts
    }

    /// Undoes [`Self::hold`]: the record is handed out again. False: by somebody else, whose it is by now.
    pub(crate) fn put_back(&mut self, record: GroupRecord) -> bool {
        let Ticket { partition, turn, first, .. } = record.ticket;
        let mut state = self.shared.state();
        if state.handled.turn_of(partition) != Some(turn) {
            return false;
        }
        state.handled.seek(partition, first);
        drop(state);
        let is_back = self.reading.put_back(partition, record.record).is_ok();
        self.reading.set_paused(partition, false);
        is_back
    }

    fn key_of(&self, partition: &TopicPartition) -> Result<PartitionKey> {
        let code = minikafka_core::ErrorCode::NotAssigned;
        self.reading.key_of(partition).ok_or_else(|| Error::broker(code, format!("topic partition {partition}")))
    }

    /// Why there will be nothing more.
    fn end(&self) -> Option<Error> {
        let ended = self.shared.state().inbox.ended().cloned();
        ended.or_else(|| self.commands.is_closed().then_some(Error::Closed("consumer")))
    }

    fn command(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::Closed("consumer"))
    }

    /// Carries out what the group has decided, callbacks included.
    async fn keep_up(&mut self) {
        loop {
            if let Some(running) = &mut self.running {
                running.callback.as_mut().await;
            }
            if let Some(Running { after, .. }) = self.running.take() {
                self.finish(after);
            }
            let notice = self.shared.state().inbox.take();
            match notice {
                Some(notice) => self.begin(notice),
                None => return,
            }
        }
    }

    fn begin(&mut self, notice: Notice) {
        let (partitions, after) = match notice {
            Notice::Assigned(assigned) => {
                let partitions: Vec<PartitionKey> = assigned.iter().map(|(partition, _)| *partition).collect();
                (partitions, After::Begin(assigned))
            }
            Notice::Revoked(partitions) => {
                let state = self.shared.state();
                let turn = |partition: &PartitionKey| Some((*partition, state.handled.turn_of(*partition)?));
                let given = partitions.iter().filter_map(turn).collect();
                (partitions, After::GiveBack(given))
            }
            // What was given back meanwhile is not lost to the application.
            Notice::Lost(mut partitions) => {
                let read = self.reading.partitions();
                partitions.retain(|partition| read.binary_search(partition).is_ok());
                (partitions, After::Nothing)
            }
        };
        let names: Vec<TopicPartition> =
            partitions.iter().filter_map(|partition| self.reading.name_of(*partition)).collect();
        let callback = match &after {
            After::Begin(_) => &mut self.callbacks.assigned,
            After::GiveBack(_) => &mut self.callbacks.revoked,
            After::Nothing => &mut self.callbacks.lost,
        };
        let callback: CallbackFuture = match callback {
            Some(callback) if !names.is_empty() => callback(names),
            _ => Box::pin(std::future::ready(())),
        };
        if !matches!(after, After::Begin(_)) {
            self.reading.unassign(&partitions);
        }
        self.running = Some(Running { callback, after });
    }

    fn finish(&mut self, after: After) {
        match after {
            After::Begin(assigned) => {
                assigned.into_iter().for_each(|(partition, begin)| self.reading.assign(partition, begin));
            }
            After::GiveBack(partitions) => {
                // A session that has ended has nothing to give back.
                let _ = self.command(Command::GiveBack(partitions));
            }
            After::Nothing => {}
        }
    }
}

async fn in_time(outcome: oneshot::Receiver<Result<()>>, within: Duration, what: String) -> Result<()> {
    match tokio::time::timeout(within, outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_ended)) => Err(Error::Closed("consumer")),
        Err(_) => Err(Error::DeadlineExceeded { what: what.into(), within, outcome_unknown: true }),
    }
}

fn boxed<F, A>(mut callback: F) -> Callback
where
    F: FnMut(Vec<TopicPartition>) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    Box::new(move |partitions| Box::pin(callback(partitions)))
}

impl fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("group", &self.group)
            .field("reading", &self.reading)
            .finish_non_exhaustive()
    }
}
