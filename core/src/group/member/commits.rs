//! What a member commits: one request at a time, so that no older one comes behind a newer one.

use std::collections::{BTreeMap, BTreeSet};

use super::input::{CommitId, Exchange, Failure, Output};
use super::{Member, needs_map};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::wire::group::{CommitOutcome, CommittedOffset, GroupCommitReply, GroupCommitRequest};

/// A commit that is not answered.
#[derive(Clone, Debug)]
pub(super) struct WaitingCommit {
    commit: CommitId,
    offsets: Vec<CommittedOffset>,
    /// Partitions that it lost or gave back since: they stay out, also if they become its own again, because then it begins
    /// where others went on.
    gone: BTreeSet<PartitionKey>,
}

impl WaitingCommit {
    fn is_open(&self, offset: &CommittedOffset, member: &Member) -> bool {
        member.has(offset.partition) && !self.gone.contains(&offset.partition)
    }
}

impl Member {
    pub(super) fn commit_wanted(&mut self, commit: CommitId, offsets: Vec<CommittedOffset>) {
        self.commits.push_back(WaitingCommit { commit, offsets, gone: BTreeSet::new() });
    }

    /// Partitions are not its own any more.
    pub(super) fn gone(&mut self, partitions: impl Iterator<Item = PartitionKey> + Clone) {
        for commit in &mut self.commits {
            commit.gone.extend(partitions.clone());
        }
    }

    /// Sends the oldest commit, if none is on its way. What it does not have any more is not even asked for.
    pub(super) fn send_commit(&mut self, out: &mut Vec<Output>) {
        while self.commit.asked.is_none() && !self.commit.is_pausing {
            let Some(waiting) = self.commits.front() else { return };
            let has: Vec<CommittedOffset> =
                waiting.offsets.iter().filter(|offset| waiting.is_open(offset, self)).cloned().collect();
            if !has.is_empty() {
                let Some((range, epoch)) = self.place else { return };
                let sequence = self.next_sequence();
                let (group, member) = (self.settings.group.clone(), self.id);
                let generation = self.generation;
                let request = GroupCommitRequest { range, epoch, group, member, sequence, generation, offsets: has };
                out.push(Output::SendCommit(request));
                self.commit.asked = Some(sequence);
                return;
            }
            let (commit, partitions) = (waiting.commit, outcomes(&waiting.offsets, &BTreeMap::new()));
            self.commits.pop_front();
            out.push(Output::Committed { commit, partitions });
        }
    }

    pub(super) fn commit_answered(&mut self, sequence: GroupSequence, reply: GroupCommitReply, out: &mut Vec<Output>) {
        if self.commit.asked != Some(sequence) {
            return;
        }
        (self.commit.asked, self.commit.failures) = (None, 0);
        let answered: BTreeMap<PartitionKey, Option<ErrorCode>> =
            reply.partitions.into_iter().map(|outcome| (outcome.partition, outcome.error)).collect();
        let lost: BTreeSet<PartitionKey> = answered
            .iter()
            .filter(|(partition, error)| **error == Some(ErrorCode::NotAssigned) && self.has(**partition))
            .map(|(partition, _)| *partition)
            .collect();
        if !lost.is_empty() {
            self.has.retain(|partition, _| !lost.contains(partition));
            self.gone(lost.iter().copied());
            self.is_urgent = true;
            out.push(Output::Lost(lost.into_iter().collect()));
        }
        if let Some(WaitingCommit { commit, offsets, .. }) = self.commits.pop_front() {
            out.push(Output::Committed { commit, partitions: outcomes(&offsets, &answered) });
        }
    }

    pub(super) fn commit_failed(&mut self, sequence: GroupSequence, failure: Failure, out: &mut Vec<Output>) {
        if self.commit.asked != Some(sequence) {
            return;
        }
        self.commit.asked = None;
        let code = match failure {
            Failure::Refused(code) => Some(code),
            Failure::Unanswered => None,
        };
        if let Some(code) = code.filter(|code| !code.is_retriable()) {
            if let Some(WaitingCommit { commit, .. }) = self.commits.pop_front() {
                out.push(Output::CommitFailed { commit, code });
            }
            return;
        }
        self.commit.is_pausing = true;
        self.commit.failures = self.commit.failures.saturating_add(1);
        let failures = self.commit.failures;
        out.push(Output::Pause { exchange: Exchange::Commit, failures, needs_map: needs_map(code) });
    }

    pub(super) fn fail_commits(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        for WaitingCommit { commit, .. } in self.commits.drain(..) {
            out.push(Output::CommitFailed { commit, code });
        }
    }
}

/// In the order of the commit; what was not even asked for is not its own any more.
fn outcomes(offsets: &[CommittedOffset], answered: &BTreeMap<PartitionKey, Option<ErrorCode>>) -> Vec<CommitOutcome> {
    let outcome = |offset: &CommittedOffset| {
        let partition = offset.partition;
        CommitOutcome { partition, error: answered.get(&partition).copied().unwrap_or(Some(ErrorCode::NotAssigned)) }
    };
    offsets.iter().map(outcome).collect()
}
