//! Bugs that can be planted, to prove that the simulator catches each of them: ways in which others lost data.
//!
//! Without the feature `planted-bugs` (test-only, never in a release) [`is_planted`] is a constant `false` and nothing of
//! this is compiled into the code that asks.

/// A known way to lose data, one for each clause of `docs/REPLICATION.md` that forbids it; and ways in which the members of
/// a group, or its commits, come into each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PlantedBug {
    /// A promise is reported before it is durable, and a clean restart keeps its epoch (R6, R10).
    PromiseNotPersisted = 1,
    /// The head commits what is durable on itself alone (R3).
    CommitBeforeAllDurable,
    /// A member that ends beyond the source is not cut (R5e).
    TruncationSkipped,
    /// A restarted member goes on in the epoch it had (R6).
    RestartWithoutNewEpoch,
    /// The controller overwrites the record whatever its version is (R5a, R5f).
    CasWithoutVersion,
    /// A member acknowledges what is appended and not yet durable (R3, R10).
    AcknowledgeBeforeDurable,
    /// A duplicate is answered before its original is committed (R2).
    DuplicateBeforeOriginal,
    /// What a successor acknowledged counts in the next epoch too (R3).
    AcknowledgementsKeptAcrossEpochs,
    /// A sealed head still commits what is acknowledged to it (R3, R5b).
    SealedHeadCommits,
    /// Logs are compared by index and hash of the body, without the epoch (R1).
    HashWithoutEpoch,
    /// A learner counts as reconciled before what it copied is durable (R5e, R10).
    LearnerBeforeDurable,
    /// A learner is filled up to what is known to be committed only, not to the source's end (R7).
    LearnerToCommittedOnly,
    /// A duplicate or late reconcile cuts an active member (R5e).
    LateReconcile,
    /// The controller decides a second time in one epoch (R5d).
    SecondDecision,
    /// A returning former member is taken as the source (R5c).
    FormerMemberAsSource,
    /// The only member of a chain of one is replaced without being sealed (R7).
    OnlyMemberNotSealed,
    /// A wiped disk comes back under its old store id (R7).
    WipedDiskKeepsStore,
    /// Producers are forgotten when the segment they wrote to goes (R2).
    DedupLostWithSegment,
    /// A compare-and-set whose reply was lost is sent again at the version read afterwards (R5).
    LostCasApplied,
    /// A watch that skipped states is taken for the whole history (R5, R8).
    WatchSkippedStates,
    /// The shortest survivor is the source, not the longest (R5c). Costs nothing that is acknowledged, so it is no bug of its
    /// own, but it is what makes up for others: planted along with [`Self::AcknowledgementsKeptAcrossEpochs`].
    ShortestSurvivorAsSource,
    /// A member forgets what was decided in an epoch, and takes another decision of it (R5d). Harmless while controllers decide
    /// once: planted along with [`Self::SecondDecision`].
    SecondDecisionTaken,
    /// A group's coordinator takes an entry for committed when it is appended (GROUPS, section 2).
    GroupToldBeforeCommitted,
    /// A partition is given to its next owner when it is asked back, not when it is released (GROUPS, section 3).
    GroupReleasedWithoutReport,
    /// A commit is taken from anybody (GROUPS, section 3).
    GroupZombieCommits,
    /// A new coordinator counts generations from the beginning (GROUPS, section 2).
    GroupGenerationForgotten,
    /// A new coordinator takes owners that it has not heard yet for gone (GROUPS, section 2).
    GroupOwnersForgotten,
    /// A commit counts although a later one of the same member came before it (GROUPS, section 3).
    GroupCommitOvertaken,
}

impl PlantedBug {
    /// Those of consumer groups: what they break is who may read what, and where a group goes on.
    pub const OF_GROUPS: [Self; 6] = [
        Self::GroupToldBeforeCommitted,
        Self::GroupReleasedWithoutReport,
        Self::GroupZombieCommits,
        Self::GroupGenerationForgotten,
        Self::GroupOwnersForgotten,
        Self::GroupCommitOvertaken,
    ];

    /// All that lose data.
    pub const ALL: [Self; 20] = [
        Self::PromiseNotPersisted,
        Self::CommitBeforeAllDurable,
        Self::TruncationSkipped,
        Self::RestartWithoutNewEpoch,
        Self::CasWithoutVersion,
        Self::AcknowledgeBeforeDurable,
        Self::DuplicateBeforeOriginal,
        Self::AcknowledgementsKeptAcrossEpochs,
        Self::SealedHeadCommits,
        Self::HashWithoutEpoch,
        Self::LearnerBeforeDurable,
        Self::LearnerToCommittedOnly,
        Self::LateReconcile,
        Self::SecondDecision,
        Self::FormerMemberAsSource,
        Self::OnlyMemberNotSealed,
        Self::WipedDiskKeepsStore,
        Self::DedupLostWithSegment,
        Self::LostCasApplied,
        Self::WatchSkippedStates,
    ];
}

/// One bit for each bug that is planted.
#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Plants one bug in this process, instead of any other; `None` removes it.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<PlantedBug>) {
    plant_all(bug.as_slice());
}

/// Plants several bugs in this process, instead of any other: where one rule makes up for what another one forbids, only
/// both together do harm.
#[cfg(feature = "planted-bugs")]
pub fn plant_all(bugs: &[PlantedBug]) {
    let mask = bugs.iter().fold(0, |mask, bug| mask | 1 << *bug as u32);
    PLANTED.store(mask, std::sync::atomic::Ordering::Relaxed);
}

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: PlantedBug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) & 1 << bug as u32 != 0
}

/// Whether this bug is planted: never, without the feature.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_bug: PlantedBug) -> bool {
    false
}

/// Whether a bug is planted for which a start is no new life: a member takes up the epoch of its marker again.
pub fn is_restart_forgotten() -> bool {
    is_planted(PlantedBug::RestartWithoutNewEpoch) || is_planted(PlantedBug::PromiseNotPersisted)
}
