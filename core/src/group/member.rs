//! A member of a group, as a pure machine: `step(input) -> outputs` (`docs/GROUPS.md`, section 4). The Rust client drives it
//! on tokio, the simulator in its world. It needs no clock: whoever drives it waits where it asks for that.
//!
//! What it has of one partition:
//!
//! ```text
//!              assigned                       missing in an answer
//!     none ───────────────► reading ─────────────────────────────────► returning
//!      ▲                      │                                            │
//!      │ not its own any more │                                            │ released by the application,
//!      └──────────────────────┴────────────────────────────────────────────┘ or not its own any more
//!
//!     (assigned with an offset, what it has already was somebody else's meanwhile: it is lost, and read anew)
//! ```
//!
//! | input | what it does |
//! |---|---|
//! | the coordinator is (now) there | a heartbeat with everything it wants and has |
//! | answered | what is new is to be read, what is missing is to be given back; the next heartbeat |
//! | released, subscribed anew, leaves | a heartbeat at once, also while another one waits there: only the newest counts |
//! | refused, or not answered | asks for a pause (and a newer map), then again, with everything |
//! | `unknown_member`, having said everything | all it has is lost; joins anew under another id |
//! | `member_fenced`, what no pause helps against | all it has is lost; ends |
//! | commit | one at a time, in order; for what it does not have any more answered at once |
//!
//! Every request has a higher sequence than all before; an answer to a heartbeat that is not the newest is ignored, and so
//! is one with an older generation. Absent: which records were handled, timers, the map.

mod commits;
mod input;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{GroupName, InstanceName};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::wire::group::{
    AssignedPartition, GroupHeartbeatReply, GroupHeartbeatRequest, MemberIntent, TopicSubscription,
};
use commits::WaitingCommit;
pub use input::{CommitId, Exchange, Failure, Input, Output};

/// What its user decides.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    /// Its group.
    pub group: GroupName,
    /// Its instance name, if it is static.
    pub instance: InstanceName,
    /// For people.
    pub client_name: String,
    /// Silent for so long, it is expelled.
    pub session_timeout_ms: u32,
    /// How long a heartbeat waits for news at most.
    pub wait_ms_max: u32,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub struct Member {
    settings: MemberSettings,
    /// Its ids follow from it: a random number.
    seed: u64,
    joins: u64,
    id: MemberId,
    sequence: GroupSequence,
    generation: GroupGeneration,
    subscribed: Vec<TopicSubscription>,
    /// Where the coordinator is.
    place: Option<(RangeKey, Epoch)>,
    has: BTreeMap<PartitionKey, Having>,
    stage: Stage,
    heartbeat: Conversation,
    /// What the coordinator knows, if it answered the last heartbeat.
    known_there: Option<KnownThere>,
    /// Something must be said at once.
    is_urgent: bool,
    commits: VecDeque<WaitingCommit>,
    commit: Conversation,
}

/// What it does with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Having {
    Reading,
    Returning,
}

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    In,
    Leaving(MemberIntent),
    Ended,
}

/// One kind of request: there is at most one that counts.
#[derive(Clone, Copy, Debug, Default)]
struct Conversation {
    /// On its way.
    asked: Option<GroupSequence>,
    failures: u32,
    is_pausing: bool,
}

/// What was said in a heartbeat, and in which epoch.
#[derive(Clone, Debug)]
struct KnownThere {
    epoch: Epoch,
    sequence: GroupSequence,
    is_answered: bool,
    /// Nothing was left out.
    said_all: bool,
    subscribed: Vec<TopicSubscription>,
    owned: Vec<PartitionKey>,
}

impl Member {
    /// One that has not joined; `seed` is a random number.
    pub fn new(settings: MemberSettings, seed: u64) -> Self {
        let mut member = Self {
            settings,
            seed,
            joins: 0,
            id: MemberId::NONE,
            sequence: GroupSequence(0),
            generation: GroupGeneration(0),
            subscribed: Vec::new(),
            place: None,
            has: BTreeMap::new(),
            stage: Stage::In,
            heartbeat: Conversation::default(),
            known_there: None,
            is_urgent: false,
            commits: VecDeque::new(),
            commit: Conversation::default(),
        };
        member.draw_id();
        member
    }

    /// Who it is now.
    pub const fn id(&self) -> MemberId {
        self.id
    }

    /// The last generation that it was told.
    pub const fn generation(&self) -> GroupGeneration {
        self.generation
    }

    /// What it may read.
    pub fn reading(&self) -> impl Iterator<Item = PartitionKey> {
        self.having(Having::Reading)
    }

    /// What it was asked for and has not given back.
    pub fn returning(&self) -> impl Iterator<Item = PartitionKey> {
        self.having(Having::Returning)
    }

    /// Whether it has a partition, to read or to give back.
    pub fn has(&self, partition: PartitionKey) -> bool {
        self.has.contains_key(&partition)
    }

    /// Whether it left, or failed.
    pub fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether the answer to this heartbeat counts: it is the newest.
    pub fn awaits(&self, sequence: GroupSequence) -> bool {
        self.heartbeat.asked == Some(sequence)
    }

    /// Where its coordinator is, as it was told.
    pub const fn place(&self) -> Option<(RangeKey, Epoch)> {
        self.place
    }

    fn having(&self, having: Having) -> impl Iterator<Item = PartitionKey> {
        self.has.iter().filter(move |(_, is)| **is == having).map(|(partition, _)| *partition)
    }

    /// Takes one input; what must follow is appended to `out`.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        if self.stage == Stage::Ended {
            if let Input::Commit { commit, .. } = input {
                out.push(Output::CommitFailed { commit, code: ErrorCode::UnknownMember });
            }
            return;
        }
        match input {
            Input::Coordinator { range, epoch } => self.coordinator_is(range, epoch),
            Input::Subscribe { topics } => self.subscribe(topics),
            Input::HeartbeatAnswered { sequence, reply } => self.answered(sequence, reply, out),
            Input::HeartbeatFailed { sequence, failure } => self.failed(sequence, failure, out),
            Input::Released { partitions } => self.released(&partitions),
            Input::Commit { commit, offsets } => self.commit_wanted(commit, offsets),
            Input::CommitAnswered { sequence, reply } => self.commit_answered(sequence, reply, out),
            Input::CommitFailed { sequence, failure } => self.commit_failed(sequence, failure, out),
            Input::Leave { for_good } => self.leave(for_good),
            Input::Resume(Exchange::Heartbeat) => self.heartbeat.is_pausing = false,
            Input::Resume(Exchange::Commit) => self.commit.is_pausing = false,
        }
        self.speak(out);
        self.send_commit(out);
    }

    fn draw_id(&mut self) {
        self.joins += 1;
        self.id = MemberId(xxh3_64_with_seed(&self.joins.to_le_bytes(), self.seed).max(1));
        (self.generation, self.known_there) = (GroupGeneration(0), None);
    }

    fn coordinator_is(&mut self, range: RangeKey, epoch: Epoch) {
        if self.place != Some((range, epoch)) {
            self.place = Some((range, epoch));
            // Whatever was asked elsewhere is not waited for.
            self.is_urgent = true;
            self.commit.asked = None;
        }
    }

    fn subscribe(&mut self, mut topics: Vec<TopicSubscription>) {
        topics.sort_by_key(|topic| topic.topic);
        if self.subscribed != topics {
            self.subscribed = topics;
            self.is_urgent = true;
        }
    }

    fn released(&mut self, partitions: &[PartitionKey]) {
        for partition in partitions {
            if self.has.get(partition) == Some(&Having::Returning) {
                self.has.remove(partition);
                self.gone(std::iter::once(*partition));
                self.is_urgent = true;
            }
        }
    }

    fn leave(&mut self, for_good: bool) {
        let intent = if for_good { MemberIntent::LeaveForGood } else { MemberIntent::Leave };
        self.stage = Stage::Leaving(intent);
        self.has.clear();
        self.is_urgent = true;
    }

    /// Sends the next heartbeat, if it is time for one.
    fn speak(&mut self, out: &mut Vec<Output>) {
        let Some((range, epoch)) = self.place else { return };
        let is_due = self.heartbeat.asked.is_none() || self.is_urgent;
        if self.stage == Stage::Ended || self.heartbeat.is_pausing || !is_due {
            return;
        }
        self.is_urgent = false;
        let sequence = self.next_sequence();
        let owned: Vec<PartitionKey> = self.has.keys().copied().collect();
        let known = self.known_there.take().filter(|known| known.epoch == epoch && known.is_answered);
        let knows_topics = known.as_ref().is_some_and(|known| known.subscribed == self.subscribed);
        let knows_owned = known.as_ref().is_some_and(|known| known.owned == owned);
        let intent = match self.stage {
            Stage::Leaving(intent) => intent,
            Stage::In | Stage::Ended => MemberIntent::Stay,
        };
        out.push(Output::SendHeartbeat(GroupHeartbeatRequest {
            range,
            epoch,
            group: self.settings.group.clone(),
            member: self.id,
            sequence,
            generation: self.generation,
            instance: self.settings.instance.clone(),
            client_name: self.settings.client_name.clone(),
            session_timeout_ms: self.settings.session_timeout_ms,
            wait_ms_max: self.settings.wait_ms_max,
            intent,
            subscribed: (!knows_topics).then(|| self.subscribed.clone()),
            owned: (!knows_owned).then(|| owned.clone()),
        }));
        self.heartbeat.asked = Some(sequence);
        let (said_all, subscribed) = (!knows_topics && !knows_owned, self.subscribed.clone());
        self.known_there = Some(KnownThere { epoch, sequence, is_answered: false, said_all, subscribed, owned });
    }

    fn next_sequence(&mut self) -> GroupSequence {
        self.sequence = GroupSequence(self.sequence.0 + 1);
        self.sequence
    }

    fn answered(&mut self, sequence: GroupSequence, reply: GroupHeartbeatReply, out: &mut Vec<Output>) {
        if self.heartbeat.asked != Some(sequence) {
            return;
        }
        (self.heartbeat.asked, self.heartbeat.failures) = (None, 0);
        if let Some(known) = self.known_there.as_mut().filter(|known| known.sequence == sequence) {
            known.is_answered = true;
        }
        if let Stage::Leaving(_) = self.stage {
            return self.end(out, Output::Left);
        }
        if reply.generation < self.generation {
            return self.pause(None, out);
        }
        self.generation = reply.generation;
        self.take_assigned(reply.assigned, out);
    }

    fn take_assigned(&mut self, assigned: Vec<AssignedPartition>, out: &mut Vec<Output>) {
        let is_anew = |of: &&AssignedPartition| of.committed.is_some() && self.has.contains_key(&of.partition);
        let anew: Vec<PartitionKey> = assigned.iter().filter(is_anew).map(|of| of.partition).collect();
        if !anew.is_empty() {
            self.has.retain(|partition, _| !anew.contains(partition));
            self.gone(anew.iter().copied());
            out.push(Output::Lost(anew));
        }
        let told: BTreeSet<PartitionKey> = assigned.iter().map(|of| of.partition).collect();
        let new: Vec<AssignedPartition> =
            assigned.into_iter().filter(|of| !self.has.contains_key(&of.partition)).collect();
        let asked_back: Vec<PartitionKey> = self.reading().filter(|partition| !told.contains(partition)).collect();
        for partition in &asked_back {
            self.has.insert(*partition, Having::Returning);
        }
        for of in &new {
            self.has.insert(of.partition, Having::Reading);
        }
        if !asked_back.is_empty() {
            out.push(Output::Revoke(asked_back));
        }
        if !new.is_empty() {
            out.push(Output::Assigned(new));
        }
    }

    fn failed(&mut self, sequence: GroupSequence, failure: Failure, out: &mut Vec<Output>) {
        if self.heartbeat.asked != Some(sequence) {
            return;
        }
        self.heartbeat.asked = None;
        let said_all = self.known_there.take().is_none_or(|known| known.said_all);
        match failure {
            Failure::Refused(code) if code.is_retriable() => self.pause(Some(code), out),
            Failure::Unanswered => self.pause(None, out),
            Failure::Refused(_) if self.stage != Stage::In => self.end(out, Output::Left),
            // It was not known there: it says everything.
            Failure::Refused(ErrorCode::UnknownMember) if !said_all => {}
            Failure::Refused(ErrorCode::UnknownMember) => {
                self.lose_all(out);
                self.draw_id();
                if self.heartbeat.failures > 0 {
                    return self.pause(None, out);
                }
                self.heartbeat.failures = 1;
            }
            Failure::Refused(code) => {
                self.lose_all(out);
                self.end(out, Output::Failed(code));
            }
        }
    }

    fn pause(&mut self, code: Option<ErrorCode>, out: &mut Vec<Output>) {
        self.heartbeat.is_pausing = true;
        self.heartbeat.failures = self.heartbeat.failures.saturating_add(1);
        let (failures, needs_map) = (self.heartbeat.failures, needs_map(code));
        out.push(Output::Pause { exchange: Exchange::Heartbeat, failures, needs_map });
    }

    fn lose_all(&mut self, out: &mut Vec<Output>) {
        let lost: Vec<PartitionKey> = std::mem::take(&mut self.has).into_keys().collect();
        self.gone(lost.iter().copied());
        if !lost.is_empty() {
            out.push(Output::Lost(lost));
        }
    }

    fn end(&mut self, out: &mut Vec<Output>, last: Output) {
        self.stage = Stage::Ended;
        self.fail_commits(ErrorCode::UnknownMember, out);
        out.push(last);
    }
}

/// Whether a newer map may help; `code`: what was answered, if anything.
fn needs_map(code: Option<ErrorCode>) -> bool {
    code.is_none_or(|code| {
        matches!(
            code,
            ErrorCode::NotOwner
                | ErrorCode::Stale
                | ErrorCode::ShuttingDown
                | ErrorCode::RangeFailed
                | ErrorCode::BelowMinInSync
        )
    })
}

#[cfg(test)]
mod tests;
