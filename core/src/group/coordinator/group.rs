//! One group: its members, what they should have, and what is on its way into the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::commits::WaitingCommit;
use super::departed::{Departed, Sequences};
use super::input::{Answer, Output, Refusal, RequestId};
use super::refuse;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::control::ControlEntry;
use crate::error_code::ErrorCode;
use crate::group::assignment::Assignment;
use crate::group::{GroupName, GroupState, InstanceName};
use crate::ids::*;
use crate::wire::group::{AssignedPartition, CommitOutcome, GroupCommitReply, GroupHeartbeatReply};

/// What a member takes of memory at least, and each topic or partition in one of its lists.
const MEMBER_BYTES: u64 = 512;
const ITEM_BYTES: u64 = 32;

/// What a group sees of the coordinator.
pub(super) struct Surroundings<'a> {
    /// Awake time.
    pub now: u64,
    pub name: &'a GroupName,
    /// Whether the log has the group.
    pub exists: bool,
    /// What the log has of it.
    pub committed: &'a GroupState,
    /// What groups may still add to the range's snapshots.
    pub state_bytes_left: u64,
    pub departed: &'a mut Departed,
    pub out: &'a mut Vec<Output>,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub members: BTreeMap<MemberId, Member>,
    /// What members want, and how many partitions each topic has.
    pub topics: BTreeMap<TopicId, u32>,
    /// Whose each partition should be.
    pub target: Assignment,
    /// Somebody came, went, or wants something else.
    pub needs_target: bool,
    pub targeted_at: Option<u64>,
    /// Ownership may not be as it should be.
    pub is_unsettled: bool,
    /// The last generation.
    pub generation: GroupGeneration,
    /// Since when partitions are asked back from their owners.
    pub asked_back: BTreeMap<PartitionKey, u64>,
    /// Partitions that their owners do not read any more.
    pub released: BTreeSet<PartitionKey>,
    /// Processes whose instance names went to others, oldest first.
    pub fenced: VecDeque<MemberId>,
    /// Who takes over what older processes of the same instance name own, until the log says so.
    pub successors: BTreeMap<MemberId, MemberId>,
    /// Members that left and wait until they own nothing.
    pub leaving: Vec<(RequestId, MemberId)>,
    pub commits: VecDeque<WaitingCommit>,
    pub deletes: Vec<RequestId>,
    /// Nobody used it for a long time.
    pub expires: bool,
    pub on_its_way: Option<OnItsWay>,
    memory_bytes: u64,
}

/// An entry that is not committed yet.
#[derive(Clone, Debug)]
pub(super) struct OnItsWay {
    pub entry: ControlEntry,
    pub then: Then,
}

/// What follows when it is.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// Members have this, which they did not have before.
    Assigned(BTreeMap<MemberId, BTreeSet<PartitionKey>>),
    /// Commits are answered.
    Committed(Vec<(RequestId, Vec<CommitOutcome>)>),
    /// The group is gone.
    Deleted(Vec<RequestId>),
}

/// A member, as it was last heard; or as the log has it, until it is heard.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub instance: InstanceName,
    pub client_name: String,
    pub session_timeout_ms: u32,
    pub heard_at: u64,
    pub sequences: Sequences,
    /// The last one that it was told, as it says.
    pub told: GroupGeneration,
    /// Topics, with the number of their partitions. None: not heard yet.
    pub topics: Option<BTreeMap<TopicId, u32>>,
    /// What it reads, or is not done with.
    pub owned: BTreeSet<PartitionKey>,
    /// What it may read.
    pub assigned: BTreeSet<PartitionKey>,
    /// The generation since which it is that.
    pub assigned_since: GroupGeneration,
    pub waits: Option<Wait>,
}

/// A heartbeat that waits for news.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub request: RequestId,
    pub until: u64,
}

impl Member {
    pub fn is_silent(&self, now: u64) -> bool {
        now.saturating_sub(self.heard_at) >= u64::from(self.session_timeout_ms)
    }

    fn memory_bytes(&self) -> u64 {
        let items = self.topics.as_ref().map_or(0, BTreeMap::len) + self.owned.len() + self.assigned.len();
        MEMBER_BYTES + ITEM_BYTES * items as u64
    }
}

impl Group {
    /// A group as the log has it: its owners are members that were not heard yet.
    pub fn new(around: &Surroundings<'_>) -> Self {
        let mut group = Self { generation: around.committed.generation(), ..Self::default() };
        if is_planted(PlantedBug::GroupGenerationForgotten) {
            group.generation = GroupGeneration(0);
        }
        for (id, owner) in around.committed.owners() {
            let member = Member {
                instance: owner.instance.clone(),
                client_name: String::new(),
                session_timeout_ms: owner.session_timeout_ms,
                heard_at: around.now,
                sequences: Sequences::default(),
                told: GroupGeneration(0),
                topics: None,
                owned: BTreeSet::new(),
                assigned: BTreeSet::new(),
                assigned_since: group.generation,
                waits: None,
            };
            group.members.insert(id, member);
        }
        for (partition, ownership) in around.committed.ownerships() {
            if let Some(member) = group.members.get_mut(&ownership.member) {
                member.assigned.insert(partition);
                group.target.insert(partition, ownership.member);
            }
        }
        if is_planted(PlantedBug::GroupOwnersForgotten) {
            group.members.clear();
            group.is_unsettled = true;
        }
        group
    }

    pub fn entry_on_its_way(&self) -> Option<&ControlEntry> {
        self.on_its_way.as_ref().map(|on_its_way| &on_its_way.entry)
    }

    /// Nothing is left that the log does not have.
    pub fn is_idle(&self) -> bool {
        self.members.is_empty()
            && self.on_its_way.is_none()
            && self.leaving.is_empty()
            && self.commits.is_empty()
            && self.deletes.is_empty()
            && !self.is_unsettled
            && !self.expires
    }

    pub const fn memory_counted(&self) -> u64 {
        self.memory_bytes
    }

    pub fn count_memory(&mut self) -> u64 {
        let members: u64 = self.members.values().map(Member::memory_bytes).sum();
        let items =
            self.topics.len() + self.target.len() + self.asked_back.len() + self.released.len() + self.fenced.len();
        self.memory_bytes = members + ITEM_BYTES * items as u64;
        self.memory_bytes
    }

    /// Everybody who waits.
    pub fn into_requests(self) -> Vec<RequestId> {
        let waits = self.members.into_values().filter_map(|member| Some(member.waits?.request));
        let leaving = self.leaving.into_iter().map(|(request, _)| request);
        let commits = self.commits.into_iter().map(|commit| commit.request);
        let mut requests: Vec<RequestId> = waits.chain(leaving).chain(commits).chain(self.deletes).collect();
        match self.on_its_way.map(|on_its_way| on_its_way.then) {
            Some(Then::Committed(answers)) => requests.extend(answers.into_iter().map(|(request, _)| request)),
            Some(Then::Deleted(deletes)) => requests.extend(deletes),
            Some(Then::Assigned(_)) | None => {}
        }
        requests
    }

    /// Puts what the group wants next on its way, unless something is; and tells members of news.
    pub fn settle(&mut self, around: &mut Surroundings<'_>) {
        if self.on_its_way.is_none() {
            self.settle_ownership(around);
        }
        while self.on_its_way.is_none() && !self.commits.is_empty() {
            self.settle_commits(around);
        }
        if self.on_its_way.is_none() && (!self.deletes.is_empty() || self.expires) {
            self.settle_deletes(around);
        }
        self.answer_leaving(around);
    }

    /// Puts an entry on its way.
    pub fn append(&mut self, entry: ControlEntry, then: Then, around: &mut Surroundings<'_>) {
        around.out.push(Output::Append { group: around.name.clone(), entry: entry.clone() });
        self.on_its_way = Some(OnItsWay { entry, then });
    }

    /// The entry on its way counts: it is part of what is committed around.
    pub fn written(&mut self, around: &mut Surroundings<'_>) {
        let Some(OnItsWay { entry, then }) = self.on_its_way.take() else { return };
        match then {
            Then::Assigned(assigned) => {
                self.assigned(&entry, assigned, around);
                let members: Vec<MemberId> = self.members.keys().copied().collect();
                members.into_iter().for_each(|member| self.answer_news(member, around));
            }
            Then::Committed(answers) => {
                for (request, partitions) in answers {
                    let answer = Answer::Committed(GroupCommitReply { partitions });
                    around.out.push(Output::Answer { request, answer });
                }
            }
            Then::Deleted(requests) => {
                // Whoever joined meanwhile begins a new life of the group.
                self.generation = GroupGeneration(0);
                self.is_unsettled = true;
                for request in requests {
                    around.out.push(Output::Answer { request, answer: Answer::Deleted });
                }
            }
        }
    }

    /// The entry was not appended: whoever waits for it is told, owners are tried again at the next tick.
    pub fn write_refused(&mut self, refusal: Refusal, out: &mut Vec<Output>) {
        let requests: Vec<RequestId> = match self.on_its_way.take().map(|on_its_way| on_its_way.then) {
            Some(Then::Assigned(_)) => {
                self.is_unsettled = true;
                self.leaving.drain(..).map(|(request, _)| request).collect()
            }
            Some(Then::Committed(answers)) => answers.into_iter().map(|(request, _)| request).collect(),
            Some(Then::Deleted(requests)) => requests,
            None => Vec::new(),
        };
        requests.into_iter().for_each(|request| refuse(request, refusal, out));
    }

    /// Tells a member that waits of what it was not told yet.
    pub fn answer_news(&mut self, id: MemberId, around: &mut Surroundings<'_>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.told < member.assigned_since {
            self.answer_heartbeat(id, around);
        }
    }

    /// Tells a member that waits what it has.
    pub fn answer_heartbeat(&mut self, id: MemberId, around: &mut Surroundings<'_>) {
        let generation = self.generation;
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(Wait { request, .. }) = member.waits.take() else { return };
        let assigned = |partition: &PartitionKey| {
            let commit = around.committed.commit(*partition).map(|commit| commit.offset);
            let since = around.committed.ownership(*partition).map(|owned| owned.since);
            let reads_it = member.owned.contains(partition) && since.is_some_and(|since| since <= member.told);
            let committed = commit.filter(|_| !reads_it);
            AssignedPartition { partition: *partition, committed }
        };
        // What it has just given back is on its way to somebody, perhaps to itself: until that is certain it is not its own.
        let kept = member.assigned.iter().filter(|partition| !self.released.contains(partition));
        let assigned = kept.map(assigned).collect();
        let answer = Answer::Heartbeat(GroupHeartbeatReply { generation, assigned });
        around.out.push(Output::Answer { request, answer });
    }

    /// Nobody waits for news here any more.
    pub fn refuse_heartbeats(&mut self, refusal: Refusal, out: &mut Vec<Output>) {
        for member in self.members.values_mut() {
            if let Some(Wait { request, .. }) = member.waits.take() {
                refuse(request, refusal, out);
            }
        }
    }

    /// Whoever left is told once nothing is its own any more.
    fn answer_leaving(&mut self, around: &mut Surroundings<'_>) {
        let generation = self.generation;
        let has_nothing = |member: MemberId| around.committed.owner(member).is_none();
        let (gone, leaving) = self.leaving.drain(..).partition(|(_, member)| has_nothing(*member));
        self.leaving = leaving;
        let gone: Vec<(RequestId, MemberId)> = gone;
        for (request, _) in gone {
            let answer = Answer::Heartbeat(GroupHeartbeatReply { generation, assigned: Vec::new() });
            around.out.push(Output::Answer { request, answer });
        }
    }

    /// Time passed: who is silent is expelled, and waits end.
    pub fn tick(&mut self, around: &mut Surroundings<'_>) {
        let now = around.now;
        let silent: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| member.is_silent(now)).map(|(id, _)| *id).collect();
        for id in silent {
            self.remove(id, Refusal::of(ErrorCode::UnknownMember), around);
        }
        let is_over = |member: &Member| member.waits.is_some_and(|wait| wait.until <= now);
        let over: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| is_over(member)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.answer_heartbeat(id, around));
        if self.asked_back.values().any(|since| self.is_overdue(*since, now)) {
            self.is_unsettled = true;
        }
    }

    /// A member is gone; its partitions go on.
    pub fn remove(&mut self, id: MemberId, refusal: Refusal, around: &mut Surroundings<'_>) {
        let Some(member) = self.members.remove(&id) else { return };
        around.departed.note(around.name, id, member.sequences);
        if let Some(Wait { request, .. }) = member.waits {
            refuse(request, refusal, around.out);
        }
        self.successors.retain(|_, successor| *successor != id);
        (self.needs_target, self.is_unsettled) = (true, true);
    }
}
