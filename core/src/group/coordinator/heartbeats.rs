//! What members say: who joins, stays, takes another one's place, leaves; and what they released.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Group, Member, Surroundings, Wait};
use super::input::{Answer, Output, Refusal, RequestId};
use super::refuse;
use crate::error_code::ErrorCode;
use crate::group::InstanceName;
use crate::ids::*;
use crate::limits::*;
use crate::wire::group::{GroupHeartbeatReply, GroupHeartbeatRequest, MemberIntent, TopicSubscription};

/// What is wrong with a heartbeat in itself.
pub(super) fn defect(heartbeat: &GroupHeartbeatRequest) -> Option<&'static str> {
    let subscribed = heartbeat.subscribed.as_deref().unwrap_or_default();
    let partitions: u64 = subscribed.iter().map(|topic| u64::from(topic.partitions)).sum();
    match () {
        () if heartbeat.member == MemberId::NONE => Some("member 0 is nobody"),
        () if !(SESSION_TIMEOUT_MS_MIN..=SESSION_TIMEOUT_MS_MAX).contains(&heartbeat.session_timeout_ms) => {
            Some("a session time-out is 1 to 600 s")
        }
        () if subscribed.len() > GROUP_TOPICS_MAX => Some("a member subscribes to at most 4,096 topics"),
        () if subscribed.iter().any(|topic| topic.partitions > TOPIC_PARTITIONS_MAX) => {
            Some("a topic has at most 10,000 partitions")
        }
        () if partitions > GROUP_PARTITIONS_MAX as u64 => Some("a group has at most 65,536 partitions"),
        () if heartbeat.owned.as_ref().is_some_and(|owned| owned.len() > GROUP_PARTITIONS_MAX) => {
            Some("a member owns at most 65,536 partitions")
        }
        () => None,
    }
}

impl Group {
    /// A member says something, and waits for news.
    pub fn heartbeat(&mut self, request: RequestId, heartbeat: GroupHeartbeatRequest, around: &mut Surroundings<'_>) {
        let id = heartbeat.member;
        let topics = heartbeat.subscribed.as_deref().map(counts);
        if topics.as_ref().is_some_and(|topics| self.is_too_much(topics)) {
            let refusal = Refusal::because(ErrorCode::InvalidArgument, "a group has at most 65,536 partitions");
            return refuse(request, refusal, around.out);
        }
        let known = match self.members.get(&id) {
            None if heartbeat.intent != MemberIntent::Stay => return self.is_gone(request, around),
            None => self.join(&heartbeat, around),
            Some(member) => check_known(member, &heartbeat),
        };
        if let Err(refusal) = known {
            return refuse(request, refusal, around.out);
        }
        // Who shall come back reads nothing any more, and yet keeps it for its next process.
        let keeps = heartbeat.intent == MemberIntent::Leave && !heartbeat.instance.is_none();
        let says_what = heartbeat.owned.is_some();
        let may_release =
            !keeps && (says_what || self.members.get(&id).is_some_and(|m| m.told != heartbeat.generation));
        self.hear(&heartbeat, topics, around);
        if may_release {
            self.note_released(id, around);
        }
        match heartbeat.intent {
            MemberIntent::Leave if keeps => self.is_gone(request, around),
            MemberIntent::Leave | MemberIntent::LeaveForGood => {
                self.remove(id, Refusal::of(ErrorCode::TimedOut), around);
                self.leaving.push((request, id));
            }
            MemberIntent::Stay => self.wait(request, &heartbeat, around),
        }
    }

    /// Somebody leaves who has nothing to give back here, or shall come back.
    fn is_gone(&self, request: RequestId, around: &mut Surroundings<'_>) {
        let reply = GroupHeartbeatReply { generation: self.generation, assigned: Vec::new() };
        around.out.push(Output::Answer { request, answer: Answer::Heartbeat(reply) });
    }

    /// Somebody who is not known says something.
    fn join(&mut self, heartbeat: &GroupHeartbeatRequest, around: &mut Surroundings<'_>) -> Result<(), Refusal> {
        let id = heartbeat.member;
        let was_told = heartbeat.generation > GroupGeneration(0);
        if self.fenced.contains(&id) {
            return Err(Refusal::of(ErrorCode::MemberFenced));
        }
        let departed = around.departed.get(around.name, id);
        if departed.is_some_and(|departed| heartbeat.sequence <= departed.heartbeat) {
            // It was delayed, or comes again, and its member is gone since: it brings nobody back.
            return Err(Refusal::of(ErrorCode::TimedOut));
        }
        let (Some(_), Some(owned)) = (&heartbeat.subscribed, &heartbeat.owned) else {
            return Err(Refusal::of(ErrorCode::UnknownMember));
        };
        let namesake = self.namesake(&heartbeat.instance);
        match namesake {
            // The name is in use, and whoever was told something before is the older process.
            Some(_) if was_told => return Err(Refusal::of(ErrorCode::MemberFenced)),
            Some(_) => {}
            None if was_told && !owned.is_empty() => return Err(Refusal::of(ErrorCode::UnknownMember)),
            // Of a group of this name that was deleted.
            None if heartbeat.generation > self.generation => return Err(Refusal::of(ErrorCode::UnknownMember)),
            None if self.members.len() >= GROUP_MEMBERS_MAX => return Err(Refusal::of(ErrorCode::Overloaded)),
            None => {}
        }
        if let Some(older) = namesake {
            self.replace(older, id, around);
        }
        let member = Member {
            instance: heartbeat.instance.clone(),
            client_name: String::new(),
            session_timeout_ms: heartbeat.session_timeout_ms,
            heard_at: around.now,
            sequences: departed.unwrap_or_default(),
            told: GroupGeneration(0),
            topics: None,
            owned: BTreeSet::new(),
            assigned: BTreeSet::new(),
            assigned_since: GroupGeneration(0),
            waits: None,
        };
        self.members.insert(id, member);
        self.is_unsettled = true;
        Ok(())
    }

    /// The member that has this instance name.
    fn namesake(&self, instance: &InstanceName) -> Option<MemberId> {
        let mut others = self.members.iter().filter(|_| !instance.is_none());
        others.find(|(_, member)| member.instance == *instance).map(|(id, _)| *id)
    }

    /// A new process takes the place of an older one, which is fenced.
    fn replace(&mut self, older: MemberId, newer: MemberId, around: &mut Surroundings<'_>) {
        let before: Vec<MemberId> =
            self.successors.iter().filter(|(_, now)| **now == older).map(|(before, _)| *before).collect();
        self.remove(older, Refusal::of(ErrorCode::MemberFenced), around);
        self.successors.extend(before.into_iter().map(|before| (before, newer)));
        if self.fenced.len() == FENCED_MEMBERS_REMEMBERED_MAX {
            self.fenced.pop_front();
        }
        self.fenced.push_back(older);
        // What is, and was to be, the older one's is to be the newer one's.
        self.target.values_mut().filter(|owner| **owner == older).for_each(|owner| *owner = newer);
        self.successors.insert(older, newer);
    }

    /// Whether the group would have too many partitions if somebody wanted these. What nobody wants any more counts until
    /// the next target.
    fn is_too_much(&self, topics: &BTreeMap<TopicId, u32>) -> bool {
        let more = |(topic, partitions): (&TopicId, &u32)| {
            u64::from(partitions.saturating_sub(self.topics.get(topic).copied().unwrap_or_default()))
        };
        let there: u64 = self.topics.values().map(|partitions| u64::from(*partitions)).sum();
        there + topics.iter().map(more).sum::<u64>() > GROUP_PARTITIONS_MAX as u64
    }

    /// Notes what a member says.
    fn hear(
        &mut self,
        heartbeat: &GroupHeartbeatRequest,
        topics: Option<BTreeMap<TopicId, u32>>,
        around: &mut Surroundings<'_>,
    ) {
        let Some(member) = self.members.get_mut(&heartbeat.member) else { return };
        member.heard_at = around.now;
        member.sequences.heartbeat = heartbeat.sequence;
        member.told = heartbeat.generation;
        member.session_timeout_ms = heartbeat.session_timeout_ms;
        if member.client_name != heartbeat.client_name {
            member.client_name.clone_from(&heartbeat.client_name);
        }
        if let Some(topics) = topics
            && member.topics.as_ref() != Some(&topics)
        {
            for (topic, partitions) in &topics {
                let count = self.topics.entry(*topic).or_default();
                *count = (*count).max(*partitions);
            }
            member.topics = Some(topics);
            (self.needs_target, self.is_unsettled) = (true, true);
        }
        if let Some(owned) = &heartbeat.owned {
            member.owned = owned.iter().copied().collect();
        }
        if let Some(Wait { request, .. }) = member.waits.take() {
            // Overtaken: nobody listens to it any more.
            refuse(request, Refusal::of(ErrorCode::TimedOut), around.out);
        }
    }

    /// Of what a member owns by the log and was told to own, it does not report what it released.
    fn note_released(&mut self, id: MemberId, around: &Surroundings<'_>) {
        let Some(member) = self.members.get(&id) else { return };
        for (partition, ownership) in around.committed.ownerships() {
            let is_told = ownership.since <= member.told;
            if ownership.member == id
                && is_told
                && !member.owned.contains(&partition)
                && self.released.insert(partition)
            {
                self.is_unsettled = true;
            }
        }
    }

    fn wait(&mut self, request: RequestId, heartbeat: &GroupHeartbeatRequest, around: &mut Surroundings<'_>) {
        let most = HEARTBEAT_WAIT_MS_MAX.min(heartbeat.session_timeout_ms / 3);
        let until = around.now + u64::from(heartbeat.wait_ms_max.min(most));
        if let Some(member) = self.members.get_mut(&heartbeat.member) {
            member.waits = Some(Wait { request, until });
        }
        self.answer_news(heartbeat.member, around);
        if until <= around.now {
            self.answer_heartbeat(heartbeat.member, around);
        }
    }
}

/// Whether a known member's heartbeat counts.
fn check_known(member: &Member, heartbeat: &GroupHeartbeatRequest) -> Result<(), Refusal> {
    let says_all = heartbeat.subscribed.is_some() && heartbeat.owned.is_some();
    match () {
        () if heartbeat.sequence <= member.sequences.heartbeat => Err(Refusal::of(ErrorCode::TimedOut)),
        () if heartbeat.instance != member.instance => {
            Err(Refusal::because(ErrorCode::InvalidArgument, "a member keeps its instance name"))
        }
        () if member.topics.is_none() && !says_all && heartbeat.intent == MemberIntent::Stay => {
            Err(Refusal::of(ErrorCode::UnknownMember))
        }
        () => Ok(()),
    }
}

fn counts(subscribed: &[TopicSubscription]) -> BTreeMap<TopicId, u32> {
    let mut topics: BTreeMap<TopicId, u32> = BTreeMap::new();
    for TopicSubscription { topic, partitions } in subscribed {
        let count = topics.entry(*topic).or_default();
        *count = (*count).max(*partitions);
    }
    topics
}
