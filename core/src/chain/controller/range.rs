//! One range of the machine: its phase, and what is remembered between phases.

use std::collections::{BTreeMap, BTreeSet};

use super::ControllerSettings;
use super::decide::Decision;
use super::need::AlertReason;
use crate::chain::ChainMember;
use crate::ids::*;
use crate::wire::SealReport;

/// Where a range is; the table is in the parent module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Idle,
    Claiming {
        epoch: Epoch,
        asked: Vec<ChainMember>,
    },
    Sealing {
        epoch: Epoch,
        asked: Vec<ChainMember>,
        sealed: BTreeMap<NodeId, SealReport>,
        lost: BTreeSet<NodeId>,
        until_ms: u64,
    },
    Reconciling {
        decision: Decision,
        missing: BTreeSet<NodeId>,
        until_ms: u64,
    },
    Decided {
        decision: Decision,
    },
    Activating {
        epoch: Epoch,
        missing: BTreeSet<NodeId>,
        until_ms: u64,
    },
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
}

impl RangeState {
    /// When time alone moves this range on.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Sealing { until_ms, .. }
            | Phase::Reconciling { until_ms, .. }
            | Phase::Activating { until_ms, .. } => Some(*until_ms),
            Phase::Idle => Some(self.retry_at_ms).filter(|at| *at != u64::MAX),
            Phase::Claiming { .. } | Phase::Decided { .. } => None,
        }
    }

    /// The epoch that is claimed for a change under way.
    pub(super) fn claimed(&self) -> Option<Epoch> {
        match &self.phase {
            Phase::Claiming { epoch, .. } | Phase::Sealing { epoch, .. } => Some(*epoch),
            Phase::Reconciling { decision, .. } | Phase::Decided { decision } => Some(decision.epoch),
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
        *self = Self { seen: self.seen.max(epoch), told: Some(epoch), ..Self::default() };
    }

    /// Who takes part in what is under way.
    pub(super) fn participants(&self) -> &[ChainMember] {
        match &self.phase {
            Phase::Claiming { asked, .. } | Phase::Sealing { asked, .. } => asked,
            Phase::Reconciling { decision, .. } => &decision.chain,
            Phase::Idle | Phase::Decided { .. } | Phase::Activating { .. } => &[],
        }
    }
}
