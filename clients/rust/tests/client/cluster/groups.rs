//! A shard's answers about groups: `core`'s own coordinator, whose entries are committed at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use minikafka_client::core::group::coordinator::{Answer as Outcome, Coordinator, Input, Output, Refusal, RequestId};
use minikafka_client::core::group::{Commit, GroupName, GroupTable};
use minikafka_client::core::wire::group::{
    CommittedOffset, GroupCommitRequest, GroupHeartbeatRequest, GroupOffsetsReply, GroupOffsetsRequest,
};
use minikafka_client::core::wire::{Api, ErrorReply, Wire};
use minikafka_client::core::{Epoch, ErrorCode, MemberId, PartitionKey, RangeKey, Timestamp};
use tokio::sync::oneshot;

use super::server::Answer;
use super::{Shared, State};

/// The groups of a cluster, wherever they are coordinated.
pub struct Groups {
    coordinator: Coordinator,
    /// Where the one group of a test is coordinated.
    range: Option<RangeKey>,
    epoch: Epoch,
    started: Instant,
    requests: u64,
    waiting: HashMap<RequestId, oneshot::Sender<Outcome>>,
}

impl Default for Groups {
    fn default() -> Self {
        let (coordinator, epoch, started) = (Coordinator::new(), Epoch(0), Instant::now());
        Self { coordinator, range: None, epoch, started, requests: 0, waiting: HashMap::new() }
    }
}

impl Groups {
    /// What is committed.
    pub fn table(&self) -> &GroupTable {
        self.coordinator.table()
    }

    /// Where a group goes on in a partition.
    pub fn committed(&self, group: &str, partition: PartitionKey) -> Option<u64> {
        let group = self.table().get(&GroupName::new(group).expect("a name"))?;
        group.commit(partition).map(|commit| commit.offset.0)
    }

    /// Who owns a partition.
    pub fn owner(&self, group: &str, partition: PartitionKey) -> Option<MemberId> {
        let group = self.table().get(&GroupName::new(group).expect("a name"))?;
        group.ownership(partition).map(|ownership| ownership.member)
    }

    /// It is a new coordinator in every epoch, which knows what the log says.
    fn begin(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            let groups = self.coordinator.table().clone();
            self.step(Input::Deposed { code: ErrorCode::Stale, epoch });
            self.step(Input::Activated { groups });
        }
    }

    fn ask(&mut self, input: impl FnOnce(RequestId) -> Input) -> oneshot::Receiver<Outcome> {
        self.requests += 1;
        let (answer, answered) = oneshot::channel();
        self.waiting.insert(RequestId(self.requests), answer);
        self.step(input(RequestId(self.requests)));
        answered
    }

    fn step(&mut self, input: Input) {
        let now = self.started.elapsed().as_millis() as u64;
        let mut out = Vec::new();
        self.coordinator.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Append { group, .. } => self.step(Input::Written { group, appended: Timestamp(0) }),
                Output::Answer { request, answer } => {
                    let waiting = self.waiting.remove(&request).expect("it waits");
                    // The connection may be gone.
                    let _ = waiting.send(answer);
                }
            }
        }
    }
}

/// Tells the coordinator of time, as long as the cluster is there.
pub async fn tick(shared: Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        {
            let mut state = shared.state.lock().expect("not poisoned");
            if let Some(range) = state.groups.range {
                let (_, epoch) = state.heads[range.range.0 as usize];
                state.groups.begin(epoch);
            }
            state.groups.step(Input::Tick { wall: Timestamp(0), hears_chain: true });
        }
        drop(shared);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl State {
    fn groups_of(&mut self, shard: usize, range: RangeKey, epoch: Epoch) -> Result<&mut Groups, Answer> {
        let owned = self.owned(shard, range, epoch);
        let epoch = owned.map_err(|(code, epoch)| Answer::refusal(code, ErrorReply::of(code).at_epoch(epoch)))?;
        self.groups.range = Some(range);
        self.groups.begin(epoch);
        Ok(&mut self.groups)
    }
}

/// The answer to a request about groups, whenever it comes.
pub async fn answer(shared: &Arc<Shared>, shard: Option<usize>, api: Api, head: &Bytes) -> Answer {
    let misdirected = || Answer::refusal(ErrorCode::Misdirected, ErrorReply::of(ErrorCode::Misdirected));
    let Some(shard) = shard else { return misdirected() };
    let asked = {
        let mut state = shared.state.lock().expect("not poisoned");
        match api {
            Api::GroupHeartbeat => {
                let heartbeat = GroupHeartbeatRequest::from_bytes(head).expect("a good request");
                state
                    .groups_of(shard, heartbeat.range, heartbeat.epoch)
                    .map(|groups| groups.ask(|request| Input::Heartbeat { request, heartbeat }))
            }
            Api::GroupCommit => {
                let commit = GroupCommitRequest::from_bytes(head).expect("a good request");
                state
                    .groups_of(shard, commit.range, commit.epoch)
                    .map(|groups| groups.ask(|request| Input::Commit { request, commit }))
            }
            Api::GroupOffsets => return offsets(&mut state, shard, head),
            _ => return misdirected(),
        }
    };
    shared.changed.send_modify(|changes| *changes += 1);
    let outcome = match asked {
        Ok(outcome) => outcome.await.expect("every request is answered"),
        Err(refused) => return refused,
    };
    shared.changed.send_modify(|changes| *changes += 1);
    match outcome {
        Outcome::Heartbeat(reply) => Answer::message(&reply),
        Outcome::Committed(reply) => Answer::message(&reply),
        Outcome::Deleted => Answer { error: None, head: Vec::new(), bulk: Vec::new() },
        Outcome::Refused(Refusal { code, epoch, .. }) => Answer::refusal(code, ErrorReply::of(code).at_epoch(epoch)),
    }
}

fn offsets(state: &mut State, shard: usize, head: &Bytes) -> Answer {
    let request = GroupOffsetsRequest::from_bytes(head).expect("a good request");
    let groups = match state.groups_of(shard, request.range, request.epoch) {
        Ok(groups) => groups,
        Err(refused) => return refused,
    };
    let Some(group) = groups.table().get(&request.group) else {
        return Answer::refusal(ErrorCode::UnknownGroup, ErrorReply::of(ErrorCode::UnknownGroup));
    };
    let committed = |(partition, commit): (PartitionKey, &Commit)| {
        let (offset, metadata) = (commit.offset, commit.metadata.to_string());
        CommittedOffset { partition, offset, metadata }
    };
    Answer::message(&GroupOffsetsReply { offsets: group.commits().map(committed).collect() })
}
