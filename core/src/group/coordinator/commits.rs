//! Commits, judged by who owns what; and the end of groups.

use std::collections::BTreeMap;

use super::group::{Group, Surroundings, Then};
use super::input::{Answer, Output, Refusal, RequestId};
use super::refuse;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::control::ControlEntry;
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::{COMMIT_ENTRY_BYTES_MAX, GROUP_PARTITIONS_MAX};
use crate::wire::group::{CommitOutcome, CommittedOffset, GroupCommitReply, GroupCommitRequest};

/// Bytes of an offset in an entry, without what is said besides.
const OFFSET_BYTES: usize = 12 + 8 + 2;

/// A commit that waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct WaitingCommit {
    pub request: RequestId,
    member: MemberId,
    /// The last generation that its member was told.
    told: GroupGeneration,
    offsets: Vec<CommittedOffset>,
}

impl WaitingCommit {
    fn bytes(&self) -> usize {
        self.offsets.iter().map(|offset| OFFSET_BYTES + offset.metadata.len()).sum()
    }
}

impl Group {
    /// Somebody commits.
    pub fn commit(&mut self, request: RequestId, commit: GroupCommitRequest, around: &mut Surroundings<'_>) {
        let GroupCommitRequest { member: id, sequence, generation: told, offsets, .. } = commit;
        if let Some(member) = self.members.get_mut(&id) {
            if sequence <= member.sequences.commit && !is_planted(PlantedBug::GroupCommitOvertaken) {
                // Overtaken: nobody listens to it any more, and it must not take back what a later one said.
                return refuse(request, Refusal::of(ErrorCode::TimedOut), around.out);
            }
            member.sequences.commit = sequence;
        }
        self.commits.push_back(WaitingCommit { request, member: id, told, offsets });
    }

    /// Puts the commits that wait on their way, as many as one entry takes; those that are refused whole are answered.
    pub fn settle_commits(&mut self, around: &mut Surroundings<'_>) {
        let mut accepted: BTreeMap<PartitionKey, CommittedOffset> = BTreeMap::new();
        let (mut answers, mut bytes, mut new_bytes) = (Vec::new(), 0, 0);
        while let Some(commit) = self.commits.front() {
            bytes += commit.bytes();
            if bytes > COMMIT_ENTRY_BYTES_MAX && !accepted.is_empty() {
                break;
            }
            let Some(WaitingCommit { request, member, told, offsets }) = self.commits.pop_front() else { break };
            let judge = |committed: CommittedOffset| {
                let partition = committed.partition;
                let is_new = around.committed.commit(partition).is_none() && !accepted.contains_key(&partition);
                new_bytes += if is_new { OFFSET_BYTES + committed.metadata.len() } else { 0 };
                let error = self
                    .refusal_of((member, told), partition, around)
                    .or_else(|| self.no_room(is_new, accepted.len(), new_bytes, around));
                if error.is_none() {
                    accepted.insert(partition, committed);
                }
                CommitOutcome { partition, error }
            };
            answers.push((request, offsets.into_iter().map(judge).collect()));
        }
        if accepted.is_empty() {
            for (request, partitions) in answers {
                let answer = Answer::Committed(GroupCommitReply { partitions });
                around.out.push(Output::Answer { request, answer });
            }
            return;
        }
        let (group, offsets) = (around.name.clone(), accepted.into_values().collect());
        self.append(ControlEntry::GroupCommit { group, offsets }, Then::Committed(answers), around);
    }

    fn no_room(&self, is_new: bool, accepted: usize, new_bytes: usize, around: &Surroundings<'_>) -> Option<ErrorCode> {
        match () {
            () if !is_new => None,
            () if around.committed.commit_count() + accepted >= GROUP_PARTITIONS_MAX => {
                Some(ErrorCode::InvalidArgument)
            }
            () if new_bytes as u64 > around.state_bytes_left => Some(ErrorCode::Overloaded),
            () => None,
        }
    }

    /// Somebody deletes the group.
    pub fn delete(&mut self, request: RequestId, _around: &mut Surroundings<'_>) {
        self.deletes.push(request);
    }

    /// Nobody used the group for a long time.
    pub fn expire(&mut self, _around: &mut Surroundings<'_>) {
        self.expires = true;
    }

    /// Puts the end of the group on its way, or says why not.
    pub fn settle_deletes(&mut self, around: &mut Surroundings<'_>) {
        let requests = std::mem::take(&mut self.deletes);
        self.expires = false;
        let code = match () {
            () if !self.members.is_empty() || around.committed.owners().next().is_some() => ErrorCode::GroupNotEmpty,
            () if !around.exists => ErrorCode::UnknownGroup,
            () => {
                let group = around.name.clone();
                return self.append(ControlEntry::GroupDelete { group }, Then::Deleted(requests), around);
            }
        };
        requests.into_iter().for_each(|request| refuse(request, Refusal::of(code), around.out));
    }

    /// Why a member may not commit for a partition, if it may not: only its owner may, once it was told so, and as long as it
    /// is a member; and a tool, while it has none. Who is gone is in the log as owner until the next one is committed, but
    /// nobody keeps its commits in order any more.
    fn refusal_of(
        &self,
        (member, told): (MemberId, GroupGeneration),
        partition: PartitionKey,
        around: &Surroundings<'_>,
    ) -> Option<ErrorCode> {
        let is_member = self.members.contains_key(&member);
        match around.committed.ownership(partition) {
            _ if is_planted(PlantedBug::GroupZombieCommits) => None,
            None if member == MemberId::NONE => None,
            Some(owned) if owned.member == member && is_member && owned.since <= told => None,
            Some(_) if member == MemberId::NONE => Some(ErrorCode::GroupNotEmpty),
            _ => Some(ErrorCode::NotAssigned),
        }
    }
}
