//! The commits of a session: now and then, when asked, and before partitions are given back.

use minikafka_core::group::member::{CommitId, Input};
use minikafka_core::limits::{COMMIT_PARTITIONS_MAX, COMMITS_WAITING_MAX};
use minikafka_core::wire::group::{CommitOutcome, CommittedOffset};
use minikafka_core::{ErrorCode, PartitionKey};
use tokio::sync::oneshot;

use super::handled::{Turn, Wanted};
use super::session::Session;
use crate::error::{Error, Result};

/// A commit that is not answered.
pub(super) struct Committing {
    purpose: Purpose,
    offsets: Vec<CommittedOffset>,
}

/// What it is for, and what follows.
enum Purpose {
    /// Time has passed.
    Interval,
    /// The application asked for it.
    Asked(oneshot::Sender<Result<()>>),
    /// Then these are free.
    GiveBack(Vec<(PartitionKey, Turn)>),
    /// Then it leaves.
    Leave { for_good: bool },
}

impl Session {
    pub(super) fn commit_now_and_then(&mut self) {
        // One that is not answered yet says why no other one helps.
        if !self.committing.values().any(|committing| matches!(committing.purpose, Purpose::Interval)) {
            self.commit(Purpose::Interval);
        }
    }

    pub(super) fn commit_asked(&mut self, done: oneshot::Sender<Result<()>>) {
        let ended = self.shared.state().inbox.ended().cloned();
        let refused = match ended {
            None if self.committing.len() < COMMITS_WAITING_MAX => return self.commit(Purpose::Asked(done)),
            None => Error::broker(ErrorCode::Overloaded, self.target()),
            Some(error) => error,
        };
        // Who asked may be gone.
        let _ = done.send(Err(refused));
    }

    pub(super) fn give_back(&mut self, mut partitions: Vec<(PartitionKey, Turn)>) {
        while !partitions.is_empty() {
            let rest = partitions.split_off(partitions.len().min(COMMIT_PARTITIONS_MAX));
            self.commit(Purpose::GiveBack(std::mem::replace(&mut partitions, rest)));
        }
    }

    pub(super) fn leave(&mut self, for_good: bool, done: Option<oneshot::Sender<Result<()>>>) {
        let ended = self.shared.state().inbox.ended().cloned();
        match (ended, done) {
            (Some(error), Some(done)) => {
                let _ = done.send(Err(error));
            }
            (Some(_), None) => {}
            (None, done) => {
                self.leaving = done;
                self.commit(Purpose::Leave { for_good });
            }
        }
    }

    fn commit(&mut self, purpose: Purpose) {
        let mut state = self.shared.state();
        let handled = &mut state.handled;
        let offsets = match &purpose {
            Purpose::Interval => handled.take_commits(Wanted::Unsaid, |_| true, COMMIT_PARTITIONS_MAX),
            Purpose::Asked(_) | Purpose::Leave { .. } => {
                handled.take_commits(Wanted::Uncommitted, |_| true, COMMIT_PARTITIONS_MAX)
            }
            Purpose::GiveBack(given) => {
                let mut open: Vec<PartitionKey> = given
                    .iter()
                    .filter(|(partition, turn)| handled.turn_of(*partition) == Some(*turn))
                    .map(|(partition, _)| *partition)
                    .collect();
                open.sort_unstable();
                let is_open = |partition: PartitionKey| open.binary_search(&partition).is_ok();
                handled.take_commits(Wanted::Uncommitted, is_open, COMMIT_PARTITIONS_MAX)
            }
        };
        drop(state);
        if offsets.is_empty() {
            return self.conclude(purpose, Ok(()), false);
        }
        self.commits += 1;
        let commit = CommitId(self.commits);
        self.committing.insert(commit, Committing { purpose, offsets: offsets.clone() });
        self.step(Input::Commit { commit, offsets });
    }

    /// A commit is answered: for each partition, or as a whole.
    pub(super) fn committed(&mut self, commit: CommitId, outcome: Result<Vec<CommitOutcome>, ErrorCode>) {
        let Some(Committing { purpose, offsets }) = self.committing.remove(&commit) else { return };
        let mut state = self.shared.state();
        let mut failed: Option<Error> = None;
        for (index, committed) in offsets.iter().enumerate() {
            let error = match &outcome {
                Ok(outcomes) => outcomes.get(index).and_then(|outcome| outcome.error),
                Err(code) => Some(*code),
            };
            state.handled.commit_answered(committed.partition, committed.offset, error.is_none());
            if let Some(code) = error {
                failed.get_or_insert_with(|| {
                    Error::broker(code, format!("{}, partition {}", self.target(), committed.partition))
                });
            }
        }
        drop(state);
        if let Some(error) = &failed {
            tracing::debug!(%error, "not everything was committed");
        }
        let is_full = offsets.len() == COMMIT_PARTITIONS_MAX;
        self.conclude(purpose, failed.map_or(Ok(()), Err), is_full);
    }

    /// A commit came to its end; what it was for goes on. `has_more`: there may be more to commit than one request takes.
    fn conclude(&mut self, purpose: Purpose, outcome: Result<()>, has_more: bool) {
        match purpose {
            Purpose::Interval => {}
            Purpose::Asked(_) | Purpose::Leave { .. } if has_more && outcome.is_ok() => self.commit(purpose),
            Purpose::Asked(done) => {
                // Who asked may be gone.
                let _ = done.send(outcome);
            }
            Purpose::GiveBack(given) => {
                let mut state = self.shared.state();
                let still = |(partition, turn): &(PartitionKey, Turn)| state.handled.turn_of(*partition) == Some(*turn);
                let partitions: Vec<PartitionKey> =
                    given.into_iter().filter(still).map(|(partition, _)| partition).collect();
                partitions.iter().for_each(|partition| state.handled.end(*partition));
                drop(state);
                self.step(Input::Released { partitions });
            }
            Purpose::Leave { for_good } => self.step(Input::Leave { for_good }),
        }
    }

    fn target(&self) -> String {
        format!("group {}", self.group)
    }
}
