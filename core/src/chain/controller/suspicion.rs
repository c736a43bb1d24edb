//! Who of a range's chain is complained about, and who stays out of it for a while (R8). Pure.
//!
//! A complaint makes a change, in which whoever answers the seal stays. Who is complained about again in a later epoch
//! within [`EJECT_MS_MIN`] is left out where the floor allows, and stays out for a while that doubles. Who says that its own
//! disk failed is out until it is started again. Complaints are hints: a wrong one costs an epoch, never a record.

use std::collections::{BTreeMap, BTreeSet};

use super::ControllerSettings;
use crate::chain::ChainMember;
use crate::chain::peer::{Complaint, ComplaintReason};
use crate::coordination::{ActiveChain, BrokerRecord};
use crate::ids::*;
use crate::limits::{EJECT_MS_MAX, EJECT_MS_MIN};

/// What is held against nodes, for one range.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspicions {
    /// The active epoch that the complaints are about.
    epoch: Epoch,
    /// About whom, and by whom.
    complaints: BTreeSet<(NodeId, NodeId)>,
    /// Who was complained about in an earlier epoch, and when last.
    earlier_ms: BTreeMap<NodeId, u64>,
    /// When the newest epoch was first complained about.
    last_ms: u64,
    /// Epochs in a row in which somebody was complained about again.
    in_a_row: u32,
    left_out: BTreeMap<NodeId, LeftOut>,
    /// Processes whose disk failed them.
    failed: BTreeMap<NodeId, Incarnation>,
    /// Members that could not read what they were asked for.
    pub(super) bad_sources: BTreeSet<NodeId>,
    /// Sources that nobody could copy from, until when they are not asked to promise.
    out_of_reach: BTreeMap<NodeId, u64>,
}

/// Who stays out, until when.
#[derive(Clone, Copy, Debug)]
struct LeftOut {
    until_ms: u64,
    wait_ms: u64,
}

impl Suspicions {
    /// Takes a complaint of a member of the active chain. When a change is due for it: at once, unless the chain is
    /// complained about again and again.
    pub(super) fn complain(
        &mut self,
        now_ms: u64,
        active: &ActiveChain,
        complaint: &Complaint,
        settings: &ControllerSettings,
    ) -> Option<u64> {
        let member = |node| active.chain.iter().find(move |member: &&ChainMember| member.node == node);
        let (Some(about), Some(_)) = (member(complaint.about), member(complaint.by)) else { return None };
        if complaint.epoch != active.epoch {
            return None;
        }
        let is_own = complaint.by == complaint.about;
        if is_own && complaint.reason == ComplaintReason::WriteFailed {
            self.failed.insert(about.node, about.incarnation);
        } else if is_own {
            return None;
        }
        if self.epoch != active.epoch || self.complaints.is_empty() {
            self.begin(now_ms, active.epoch, complaint.about);
        }
        self.complaints.insert((complaint.about, complaint.by));
        let flaps = self.in_a_row.saturating_sub(1);
        let wait_ms = if flaps == 0 { 0 } else { settings.retry_ms_min.saturating_mul(1 << flaps.min(16)) };
        Some(self.last_ms + wait_ms.min(settings.retry_ms_max))
    }

    /// The first complaint about an epoch. A chain flaps when it is about one that was complained about a short while ago, and
    /// was not started again since; others may die one after the other without anybody waiting for it.
    fn begin(&mut self, now_ms: u64, epoch: Epoch, about: NodeId) {
        let is_soon = now_ms.saturating_sub(self.last_ms) < EJECT_MS_MIN && self.epoch != Epoch(0);
        self.earlier_ms.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) < EJECT_MS_MIN);
        for (about, _) in std::mem::take(&mut self.complaints) {
            if is_soon {
                self.earlier_ms.insert(about, self.last_ms);
            }
        }
        self.in_a_row = if self.earlier_ms.contains_key(&about) { self.in_a_row.saturating_add(1) } else { 0 };
        (self.epoch, self.last_ms) = (epoch, now_ms);
    }

    /// Whether an active chain should be changed for what is held against its members.
    pub(super) fn disturb(&self, active: &ActiveChain) -> bool {
        let failed = |member: &ChainMember| self.failed.get(&member.node) == Some(&member.incarnation);
        self.epoch == active.epoch && !self.complaints.is_empty() || active.chain.iter().any(failed)
    }

    /// Whether the disk of this very process failed.
    pub(super) fn has_failed(&self, broker: &BrokerRecord) -> bool {
        self.failed.get(&broker.node) == Some(&broker.incarnation)
    }

    /// Whether a node stays out for now.
    pub(super) fn is_left_out(&self, node: NodeId, now_ms: u64) -> bool {
        self.left_out.get(&node).is_some_and(|out| out.until_ms > now_ms)
    }

    /// When the next one may come back.
    pub(super) fn next_return_ms(&self, now_ms: u64) -> Option<u64> {
        self.left_out.values().map(|out| out.until_ms).filter(|until_ms| *until_ms > now_ms).min()
    }

    /// Whose seal is waited for but shortly.
    pub(super) fn doubtful(&self, active: &ActiveChain, now_ms: u64) -> BTreeSet<NodeId> {
        let about = self.complaints.iter().filter(|_| self.epoch == active.epoch).map(|(about, _)| *about);
        let out = self.left_out.keys().copied().filter(|node| self.is_left_out(*node, now_ms));
        about.chain(out).collect()
    }

    /// Members that the next chain should do without, the worst first: who stays out already, then who is complained about
    /// again. Of two that complain about each other only one: the one that more complain about, else the later one.
    pub(super) fn unwanted(&self, active: &ActiveChain, now_ms: u64) -> Vec<NodeId> {
        let members = || active.chain.iter().map(|member| member.node);
        let mut unwanted: Vec<NodeId> = members().filter(|node| self.is_left_out(*node, now_ms)).collect();
        let is_again = |(about, _): &&(NodeId, NodeId)| {
            self.earlier_ms.get(about).is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) < EJECT_MS_MIN)
        };
        let is_current = self.epoch == active.epoch;
        let mut again: BTreeSet<(NodeId, NodeId)> =
            self.complaints.iter().filter(|_| is_current).filter(is_again).copied().collect();
        for node in &unwanted {
            again.retain(|(about, by)| about != node && by != node);
        }
        while !again.is_empty() {
            let complainers = |node: &NodeId| again.iter().filter(|(about, _)| about == node).count();
            let Some(worst) = members().max_by_key(complainers).filter(|node| complainers(node) > 0) else { break };
            again.retain(|(about, by)| *about != worst && *by != worst);
            unwanted.push(worst);
        }
        unwanted
    }

    /// A node stays out from now on, longer each time.
    pub(super) fn leave_out(&mut self, node: NodeId, now_ms: u64) {
        let out = self.left_out.entry(node).or_insert(LeftOut { until_ms: now_ms, wait_ms: 0 });
        if out.until_ms > now_ms {
            return;
        }
        let was_recent = now_ms - out.until_ms < out.wait_ms;
        out.wait_ms = if was_recent { (out.wait_ms * 2).min(EJECT_MS_MAX) } else { EJECT_MS_MIN };
        out.until_ms = now_ms + out.wait_ms;
    }

    /// Nobody who was to copy from this source could reach it.
    pub(super) fn not_reached(&mut self, source: NodeId, now_ms: u64) {
        self.out_of_reach.insert(source, now_ms + EJECT_MS_MIN);
    }

    /// Whether a change should rather do without this member's log.
    pub(super) fn is_out_of_reach(&self, node: NodeId, now_ms: u64) -> bool {
        self.out_of_reach.get(&node).is_some_and(|until_ms| *until_ms > now_ms)
    }

    /// Another process, or none any more: nothing is held against it.
    pub(super) fn forgive(&mut self, node: NodeId) {
        self.out_of_reach.remove(&node);
        self.left_out.remove(&node);
        self.earlier_ms.remove(&node);
        self.complaints.retain(|(about, _)| *about != node);
        self.failed.remove(&node);
        self.bad_sources.remove(&node);
    }
}
