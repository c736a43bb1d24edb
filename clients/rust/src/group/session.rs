//! The session of a member: a task that drives `core`'s member machine, whatever the application does meanwhile.
//!
//! It makes the machine's requests, waits where that asks for it, follows the map, commits now and then, and leaves what
//! concerns the application in its inbox. When the consumer is gone, it commits what was handled, leaves, and ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::group::GroupName;
use minikafka_core::group::member::{CommitId, Exchange, Input, Member, Output};
use minikafka_core::wire::group::{AssignedPartition, TopicSubscription};
use minikafka_core::{ErrorCode, Offset, Partition, PartitionKey, TopicId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::commits::Committing;
use super::handled::Turn;
use super::inbox::Begin;
use super::options::GroupStart;
use super::requests::{self, Answered};
use super::shared::{Command, Shared};
use crate::backoff;
use crate::client::ClientShared;
use crate::error::{Error, Result};
use crate::map::ClusterMap;

/// Topics that went or came are noticed after this, if nothing else makes the map be asked for.
const MAP_AGE_MAX: Duration = Duration::from_secs(30);
/// Once its consumer was dropped, this long it tries to leave; then its session time-out does.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// The task's state.
pub(super) struct Session {
    pub(super) client: Arc<ClientShared>,
    pub(super) shared: Arc<Shared>,
    pub(super) group: GroupName,
    /// By name: a topic that is created anew is another one.
    pub(super) topics: Vec<Arc<str>>,
    pub(super) start: GroupStart,
    pub(super) commit_interval: Duration,
    pub(super) member: Member,
    pub(super) outputs: VecDeque<Output>,
    pub(super) jobs: JoinSet<Done>,
    pub(super) committing: BTreeMap<CommitId, Committing>,
    pub(super) commits: u64,
    pub(super) leaving: Option<oneshot::Sender<Result<()>>>,
    requests: Requests,
    /// As it was when the machine was told of it.
    map: Arc<ClusterMap>,
    /// Maps in a row in which no coordinator has a place.
    maps_without_ring: u32,
    /// The consumer is gone; at this time the task ends in any case.
    abandoned: Option<Instant>,
}

/// What is on its way, and how long the last answer asked to wait.
#[derive(Default)]
struct Requests {
    heartbeat: Option<AbortHandle>,
    commit: Option<AbortHandle>,
    server_asks: Duration,
}

/// A job has ended.
pub(super) enum Done {
    /// A request, or a pause.
    Answered(Answered),
    /// Where the logs of partitions end.
    Ends(Vec<(PartitionKey, Turn)>, Result<Vec<(Partition, Offset)>>),
    /// The map may be newer.
    Map,
}

impl Session {
    pub(super) fn new(
        client: Arc<ClientShared>,
        shared: Arc<Shared>,
        member: Member,
        (group, topics): (GroupName, Vec<Arc<str>>),
        (start, commit_interval): (GroupStart, Duration),
    ) -> Self {
        Self {
            client,
            shared,
            group,
            topics,
            start,
            commit_interval,
            member,
            outputs: VecDeque::new(),
            jobs: JoinSet::new(),
            committing: BTreeMap::new(),
            commits: 0,
            leaving: None,
            requests: Requests::default(),
            map: Arc::default(),
            maps_without_ring: 0,
            abandoned: None,
        }
    }

    /// Runs until the consumer is gone and the member has left.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut maps = self.client.map.changes();
        let ticks = |period| {
            let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut commit_ticks, mut map_ticks) = (ticks(self.commit_interval), ticks(MAP_AGE_MAX));
        loop {
            self.look_at_map();
            while let Some(output) = self.outputs.pop_front() {
                self.act(output);
            }
            let gives_up_at = self.abandoned;
            if gives_up_at.is_some() && self.member.has_ended() {
                return;
            }
            tokio::select! {
                command = commands.recv(), if gives_up_at.is_none() => self.command(command),
                Some(done) = self.jobs.join_next() => done.into_iter().for_each(|done| self.done(done)),
                Ok(()) = maps.changed() => {}
                _ = commit_ticks.tick() => self.commit_now_and_then(),
                _ = map_ticks.tick() => self.refresh_map(),
                () = tokio::time::sleep_until(gives_up_at.unwrap_or_else(Instant::now)), if gives_up_at.is_some() => return,
            }
        }
    }

    /// Tells the machine where its coordinator is and which topics there are, if that may have changed.
    fn look_at_map(&mut self) {
        let map = self.client.map.current();
        // Topics come and go without a new version.
        if Arc::ptr_eq(&std::mem::replace(&mut self.map, map.clone()), &map) {
            return;
        }
        let known = self.topics.iter().filter_map(|name| map.topic(name)).filter(|topic| topic.error.is_none());
        let topics = known.map(|topic| TopicSubscription { topic: topic.topic, partitions: topic.partitions });
        let subscribe = Input::Subscribe { topics: topics.collect() };
        self.step(subscribe);
        match map.range_of_group(&self.group) {
            Some(range) => {
                self.maps_without_ring = 0;
                self.step(Input::Coordinator { range, epoch: map.epoch_of(range) });
            }
            None => {
                self.maps_without_ring = self.maps_without_ring.saturating_add(1);
                self.pause(Exchange::Heartbeat, self.maps_without_ring, true);
            }
        }
    }

    fn refresh_map(&mut self) {
        let client = self.client.clone();
        self.jobs.spawn(async move {
            // Without a gateway, what is known goes on to count.
            let _ = client.map.no_older_than(MAP_AGE_MAX / 2, &client.gateways).await;
            Done::Map
        });
    }

    /// None: the consumer is gone.
    fn command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::GiveBack(partitions)) => self.give_back(partitions),
            Some(Command::Commit(done)) => self.commit_asked(done),
            Some(Command::Leave { for_good, done }) => self.leave(for_good, Some(done)),
            None => {
                self.abandoned = Some(Instant::now() + LEAVE_PATIENCE);
                self.leave(false, None);
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Answered((input, server_asks)) => {
                self.requests.server_asks = server_asks;
                // What it says next shall go to where the map sends it by now.
                self.look_at_map();
                self.step(input);
            }
            Done::Ends(partitions, found) => self.begin_at_ends(partitions, found),
            Done::Map => {}
        }
    }

    /// One input; what follows from it is done in its turn.
    pub(super) fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.member.step(input, &mut outputs);
        self.shared.state().member = self.member.id();
        self.outputs.extend(outputs);
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::SendHeartbeat(request) => {
                let client = self.client.clone();
                let job = self.jobs.spawn(async { Done::Answered(requests::heartbeat(client, request).await) });
                // The newest is the one that counts.
                self.requests.heartbeat.replace(job).inspect(AbortHandle::abort);
            }
            Output::SendCommit(request) => {
                let client = self.client.clone();
                let job = self.jobs.spawn(async { Done::Answered(requests::commit(client, request).await) });
                self.requests.commit.replace(job).inspect(AbortHandle::abort);
            }
            Output::Pause { exchange, failures, needs_map } => self.pause(exchange, failures, needs_map),
            Output::Assigned(partitions) => self.assigned(partitions),
            Output::Revoke(partitions) => self.revoked(partitions),
            Output::Lost(partitions) => self.lost(&partitions),
            Output::Committed { commit, partitions } => self.committed(commit, Ok(partitions)),
            Output::CommitFailed { commit, code } => self.committed(commit, Err(code)),
            Output::Left => self.ended(Error::Closed("consumer"), Ok(())),
            Output::Failed(code) => {
                let error = Error::broker(code, format!("group {}", self.group));
                tracing::warn!(%error, "the consumer is out of its group");
                self.ended(error.clone(), Err(error));
            }
        }
    }

    fn pause(&mut self, exchange: Exchange, failures: u32, needs_map: bool) {
        let (client, seen) = (self.client.clone(), self.map.version());
        let wait = backoff::random_wait(failures, needs_map, self.requests.server_asks);
        self.jobs.spawn(async move {
            tokio::time::sleep(wait).await;
            if needs_map {
                client.map_after(seen).await;
            }
            Done::Answered((Input::Resume(exchange), Duration::ZERO))
        });
    }

    fn assigned(&mut self, partitions: Vec<AssignedPartition>) {
        let mut ends: BTreeMap<TopicId, Vec<(PartitionKey, Turn)>> = BTreeMap::new();
        let mut state = self.shared.state();
        for AssignedPartition { partition, committed } in partitions {
            let turn = state.handled.begin(partition, committed);
            let begin = match (committed, self.start) {
                (Some(offset), _) => Some(Begin::At(offset)),
                (None, GroupStart::Earliest) => Some(Begin::Earliest),
                (None, GroupStart::Error) => Some(Begin::Refused(self.no_commit(partition))),
                (None, GroupStart::Latest) => None,
            };
            if begin.is_none() {
                ends.entry(partition.topic).or_default().push((partition, turn));
            }
            state.inbox.assigned(partition, begin);
        }
        drop(state);
        self.shared.ready.notify_one();
        ends.into_values().for_each(|partitions| self.find_ends(partitions, 0));
    }

    fn no_commit(&self, partition: PartitionKey) -> Error {
        let map = self.client.map.current();
        let topic = map.topic_by_id(partition.topic).map_or("", |topic| &topic.name);
        Error::NoCommit { topic: topic.into(), partition: partition.partition }
    }

    /// Looks up where the logs of partitions of one topic end: that is where they begin.
    fn find_ends(&mut self, partitions: Vec<(PartitionKey, Turn)>, failures: u32) {
        let Some(topic) = partitions.first().map(|(partition, _)| partition.topic) else { return };
        let client = self.client.clone();
        self.jobs.spawn(async move {
            tokio::time::sleep(backoff::random_wait_after(failures, Duration::ZERO)).await;
            let numbers: Vec<Partition> = partitions.iter().map(|(partition, _)| partition.partition).collect();
            let found = match client.map.current().topic_by_id(topic).cloned() {
                Some(topic) => client.list_offsets(&topic, &numbers, minikafka_core::wire::OffsetQuery::Latest).await,
                None => Err(Error::broker(ErrorCode::UnknownTopic, format!("topic {topic}"))),
            };
            Done::Ends(partitions, found)
        });
    }

    fn begin_at_ends(&mut self, mut partitions: Vec<(PartitionKey, Turn)>, found: Result<Vec<(Partition, Offset)>>) {
        let mut state = self.shared.state();
        partitions.retain(|(partition, turn)| state.handled.turn_of(*partition) == Some(*turn));
        let found: BTreeMap<Partition, Offset> = match found {
            Err(error) if error.is_retriable() => {
                tracing::debug!(%error, "where partitions end was not found out");
                drop(state);
                return self.find_ends(partitions, 8);
            }
            Err(error) => {
                for (partition, _) in partitions {
                    state.inbox.begins(partition, Begin::Refused(error.clone()));
                }
                drop(state);
                return self.shared.ready.notify_one();
            }
            Ok(found) => found.into_iter().collect(),
        };
        for (partition, _) in partitions {
            if let Some(offset) = found.get(&partition.partition)
                && state.inbox.begins(partition, Begin::At(*offset))
            {
                state.handled.seek(partition, *offset);
            }
        }
        drop(state);
        self.shared.ready.notify_one();
        // Whoever has it next goes on from here, not from where it ends by then.
        self.commit_now_and_then();
    }

    fn revoked(&mut self, partitions: Vec<PartitionKey>) {
        let mut state = self.shared.state();
        let (told, free): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|partition| state.inbox.revoked(*partition));
        free.iter().for_each(|partition| state.handled.end(*partition));
        drop(state);
        if !told.is_empty() {
            self.shared.ready.notify_one();
        }
        if !free.is_empty() {
            self.step(Input::Released { partitions: free });
        }
    }

    fn lost(&mut self, partitions: &[PartitionKey]) {
        let mut state = self.shared.state();
        for partition in partitions {
            state.handled.end(*partition);
            state.inbox.lost(*partition);
        }
        drop(state);
        self.shared.ready.notify_one();
    }

    fn ended(&mut self, error: Error, outcome: Result<()>) {
        self.shared.state().inbox.end(error);
        self.shared.ready.notify_one();
        if let Some(done) = self.leaving.take() {
            // Who asked may be gone.
            let _ = done.send(outcome);
        }
    }
}
