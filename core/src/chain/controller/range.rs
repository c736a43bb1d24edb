//! One range of the machine: its phase, and what is remembered between phases.

use std::collections::{BTreeMap, BTreeSet};

use super::ControllerSettings;
use super::alert::AlertReason;
use super::decide::Decision;
use super::learning::Learner;
use super::suspicion::Suspicions;
use crate::chain::ChainMember;
use crate::ids::*;
use crate::wire::SealReport;

/// Where a range is; the table is in the parent module.
#[derive(Clone, Debug, Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    Claiming {
        epoch: Epoch,
        asked: Vec<ChainMember>,
    },
    Sealing(Seal),
    Reconciling(Reconcile),
    Decided {
        decision: Decision,
    },
    Activating {
        epoch: Epoch,
        missing: BTreeSet<NodeId>,
        until_ms: u64,
    },
}

/// Promises that are being gathered, or held.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    pub(super) epoch: Epoch,
    pub(super) asked: Vec<ChainMember>,
    pub(super) sealed: BTreeMap<NodeId, SealReport>,
    pub(super) lost: BTreeSet<NodeId>,
    /// Who is waited for only until `doubtful_until_ms`.
    pub(super) doubtful: BTreeSet<NodeId>,
    pub(super) doubtful_until_ms: u64,
    /// When the wait is over; while holding, when they are asked again.
    pub(super) until_ms: u64,
    /// Below the floor: nothing is decided, and the sealed go on serving reads (R9).
    pub(super) is_holding: bool,
    /// Somebody holds the range at another shard than the one that was asked, or is another process by now: the next one is
    /// tried in another epoch.
    pub(super) is_elsewhere: bool,
}

impl Seal {
    fn deadline_ms(&self) -> u64 {
        if self.is_holding || self.unanswered().any(|node| !self.doubtful.contains(&node)) {
            return self.until_ms;
        }
        self.until_ms.min(self.doubtful_until_ms)
    }

    /// Who neither promised nor is known not to.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = NodeId> + '_ {
        let nodes = self.asked.iter().map(|member| member.node);
        nodes.filter(|node| !self.sealed.contains_key(node) && !self.lost.contains(node))
    }
}

/// A decision that is being carried out.
#[derive(Clone, Debug)]
pub(super) struct Reconcile {
    pub(super) decision: Decision,
    /// Who was asked: the sealed members and newcomers, for the next try.
    pub(super) asked: Vec<ChainMember>,
    /// Who is not done.
    pub(super) missing: BTreeMap<NodeId, Catching>,
    pub(super) poll_at_ms: u64,
}

/// How far a member is that is being reconciled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Catching {
    pub(super) end: LogIndex,
    pub(super) heard_ms: u64,
    pub(super) moved_ms: u64,
}

/// A range.
#[derive(Clone, Debug, Default)]
pub(super) struct RangeState {
    pub(super) phase: Phase,
    /// Highest epoch that anybody reported.
    pub(super) seen: Epoch,
    /// The active epoch that all members confirmed.
    pub(super) told: Option<Epoch>,
    /// A member refused to act: only a new epoch helps.
    pub(super) broken: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// When it is looked at next. `u64::MAX`: when a broker or the record changes.
    pub(super) retry_at_ms: u64,
    /// What it waits for.
    pub(super) alert: Option<AlertReason>,
    /// Who did not promise when last asked, and was not heard of since: not counted on.
    pub(super) silent: BTreeSet<NodeId>,
    /// Who copies it in the background.
    pub(super) learners: BTreeMap<NodeId, Learner>,
    /// When somebody who stays out may learn again.
    pub(super) return_at_ms: Option<u64>,
    /// What is held against its members.
    pub(super) suspicions: Suspicions,
}

impl RangeState {
    /// When time alone moves this range on.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Sealing(seal) => Some(seal.deadline_ms()),
            Phase::Reconciling(reconcile) => Some(reconcile.poll_at_ms),
            Phase::Activating { until_ms, .. } => Some(*until_ms),
            Phase::Idle => Some(self.retry_at_ms).filter(|at| *at != u64::MAX),
            Phase::Claiming { .. } | Phase::Decided { .. } => None,
        }
    }

    /// The epoch that is claimed for a change under way.
    pub(super) fn claimed(&self) -> Option<Epoch> {
        match &self.phase {
            Phase::Claiming { epoch, .. } => Some(*epoch),
            Phase::Sealing(seal) => Some(seal.epoch),
            Phase::Reconciling(Reconcile { decision, .. }) | Phase::Decided { decision } => Some(decision.epoch),
            Phase::Idle | Phase::Activating { .. } => None,
        }
    }

    /// Gives up for now; the next try waits, longer each time.
    pub(super) fn back_off(&mut self, now_ms: u64, settings: &ControllerSettings) {
        let wait = settings.retry_ms_min.saturating_mul(1 << self.failures.min(16)).min(settings.retry_ms_max);
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = now_ms.saturating_add(wait);
        self.phase = Phase::Idle;
    }

    /// All is well until a broker or the record changes.
    pub(super) fn rest(&mut self) {
        self.failures = 0;
        self.alert = None;
        self.wait_for_change();
    }

    /// Gives up until a broker or the record changes.
    pub(super) fn wait_for_change(&mut self) {
        self.retry_at_ms = u64::MAX;
        self.phase = Phase::Idle;
    }

    /// All members confirmed.
    pub(super) fn settled(&mut self, epoch: Epoch) {
        (self.told, self.broken) = (Some(epoch), false);
        self.seen = self.seen.max(epoch);
        (self.phase, self.failures, self.retry_at_ms, self.alert) = (Phase::Idle, 0, 0, None);
    }

    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }
}

impl Phase {
    /// Who takes part in what is under way.
    pub(super) fn participants(&self) -> &[ChainMember] {
        match self {
            Self::Claiming { asked, .. } => asked,
            Self::Sealing(seal) => &seal.asked,
            Self::Reconciling(reconcile) => &reconcile.decision.chain,
            Self::Idle | Self::Decided { .. } | Self::Activating { .. } => &[],
        }
    }
}
