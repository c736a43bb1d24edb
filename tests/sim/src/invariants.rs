//! What must never happen, looked at after every step: cheap, because only what moved is compared.
//!
//! The world remembers what each range committed, index by index, from the moment the head of the active chain could
//! know it, and holds every member, record and reader to that for ever after.

use std::collections::{BTreeMap, VecDeque};

use minikafka_checker::RecordId;
use minikafka_core::chain::ChainMember;
use minikafka_core::chain::controller::min_in_sync;
use minikafka_core::chain::replica::{MemberView, Replica};
use minikafka_core::coordination::{ActiveChain, RingChunk};
use minikafka_core::wire::SealReport;
use minikafka_core::*;

/// What was broken, in words.
pub type Violation = String;
/// Fine, or not.
pub type Checked = Result<(), Violation>;

/// A member's log as it was seen to grow.
#[derive(Default)]
pub struct MemberLog {
    /// When last looked at.
    pub view: Option<MemberView>,
    /// Seen, and not yet known there to be committed.
    points: VecDeque<LogPoint>,
}

/// What is true, whatever anybody believes.
pub struct Truth {
    ranges: Vec<RangeTruth>,
    /// Promises and markers that were told, by disk.
    told: BTreeMap<(StoreId, RangeId), Told>,
    /// Of each partition: the record at each offset that anybody was told of.
    records: Vec<Vec<Option<RecordId>>>,
    /// Entries committed.
    pub commits: u64,
    /// Epochs activated.
    pub epochs: u64,
}

#[derive(Default)]
struct RangeTruth {
    committed: LogIndex,
    /// By index - 1.
    hashes: Vec<Option<RunningHash>>,
    actives: BTreeMap<Epoch, ActiveChain>,
    /// What a member had durable while it acted in an epoch.
    durable: BTreeMap<(Epoch, NodeId), LogIndex>,
}

#[derive(Clone, Copy, Default)]
struct Told {
    promised: Epoch,
    marker: Epoch,
    /// What it had durable while it acted.
    durable: LogIndex,
}

/// Epochs of which a range's facts are kept.
const EPOCHS_KEPT: usize = 64;

impl Truth {
    /// Nothing happened yet.
    pub fn new(ranges: u32, partitions: usize) -> Self {
        Self {
            ranges: (0..ranges).map(|_| RangeTruth::default()).collect(),
            told: BTreeMap::new(),
            records: vec![Vec::new(); partitions],
            commits: 0,
            epochs: 0,
        }
    }

    /// Committed of a range.
    pub fn committed(&self, range: RangeId) -> LogIndex {
        self.ranges[range.0 as usize].committed
    }

    /// Looks at a member that may have moved; true when it did. `is_whole`: nothing on its disk rotted.
    pub fn member(
        &mut self,
        (me, range): (&ChainMember, RangeId),
        is_whole: bool,
        log: &mut MemberLog,
        replica: &Replica,
    ) -> Result<bool, Violation> {
        let view = replica.view();
        if log.view == Some(view) {
            return Ok(false);
        }
        let before = log.view.replace(view);
        let truth = &mut self.ranges[range.0 as usize];
        let said = |what: String| Err(format!("range {range}, node {} ({view:?}): {what}", me.node));
        log.follow(before, view, replica);
        let known_committed = view.known_committed.index;
        if let Some(epoch) = view.acts_in {
            let Some(active) = truth.actives.get(&epoch) else {
                return said("acts in an epoch that the record never named".to_owned());
            };
            let place = active.chain.iter().position(|member| member == me);
            if place.is_none() || view.is_head != (place == Some(0)) {
                return said(format!("acts in a place that {active:?} does not give it"));
            }
            truth.durable.insert((epoch, me.node), view.durable);
            if view.is_head && known_committed > truth.committed {
                for member in &active.chain {
                    let durable = truth.durable.get(&(epoch, member.node)).copied().unwrap_or_default();
                    if durable.max(active.start.index) < known_committed {
                        return said(format!("commits what node {} has durable only to {durable}", member.node));
                    }
                }
                self.commits += known_committed.0 - truth.committed.0;
                truth.committed = known_committed;
            }
        }
        if let Some(epoch) = before.and_then(|before| before.acts_in).filter(|_| view.failed) {
            // What it acknowledged in the very step in which another write of its failed counts.
            truth.durable.insert((epoch, me.node), view.durable);
        }
        if known_committed > truth.committed {
            return said(format!("knows more to be committed than is: {}", truth.committed));
        }
        while let Some(point) = log.points.front().copied().filter(|point| point.index <= known_committed) {
            log.points.pop_front();
            if let Some(hash) = truth.disagrees(point) {
                return said(format!("has {point:?} committed, which was committed as {hash:?}"));
            }
        }
        if let Some(hash) = truth.disagrees(view.known_committed) {
            return said(format!("has another log committed, which has hash {hash:?} there"));
        }
        let told = self.told.entry((me.store, range)).or_default();
        if view.acts_in.is_some() {
            told.durable = told.durable.max(view.durable);
        }
        // A power loss between "there is a log" and the first flush loses the marker, but nothing that was acknowledged.
        let had_nothing = told.durable == LogIndex(0) && view.marker == Epoch(0);
        // The marker of a former member is nobody's business any more, once it learns what others wrote.
        let matters = truth.actives.last_key_value().is_some_and(|(epoch, _)| told.marker >= *epoch) && !had_nothing;
        if is_whole && (view.promised < told.promised || view.marker < told.marker && matters) {
            let Told { promised, marker, .. } = *told;
            return said(format!("told of promise {promised} and marker {marker} before, and forgot"));
        }
        Ok(true)
    }

    /// A seal report leaves a node whose disk is whole.
    pub fn sealed(&mut self, node: &ChainMember, chunk: &RingChunk, report: &SealReport) -> Checked {
        let told = self.told.entry((node.store, report.range)).or_default();
        if report.error.is_some() {
            return Ok(());
        }
        told.promised = told.promised.max(report.promised);
        let active = chunk.ranges[report.range.0 as usize].active.as_ref();
        let is_survivor = active.is_some_and(|active| {
            let is_member = |member: &ChainMember| member.node == node.node && member.store == node.store;
            report.marker >= active.epoch && active.chain.iter().any(is_member)
        });
        let committed = self.ranges[report.range.0 as usize].committed;
        if is_survivor && !report.damaged && report.end.index < committed {
            return Err(format!(
                "range {}: {committed} is committed and the survivor on node {} reports {report:?}",
                report.range, node.node
            ));
        }
        Ok(())
    }

    /// A node told that it is reconciled.
    pub fn reconciled(&mut self, store: StoreId, range: RangeId, epoch: Epoch) {
        let told = self.told.entry((store, range)).or_default();
        told.marker = told.marker.max(epoch);
    }

    /// The record changed.
    pub fn record(&mut self, old: &RingChunk, new: &RingChunk) -> Checked {
        for (at, (old, record)) in old.ranges.iter().zip(&new.ranges).enumerate() {
            let truth = &mut self.ranges[at];
            if record.epoch_max() < old.epoch_max() {
                return Err(format!("range {at}: the record goes back from {old:?} to {record:?}"));
            }
            if old.active.is_some() && record.active.is_none() {
                return Err(format!("range {at}: its active chain was forgotten"));
            }
            let Some(active) = &record.active else { continue };
            if old.active.as_ref() == Some(active) {
                continue;
            }
            self.epochs += 1;
            truth.activate(active, new.replication).map_err(|what| format!("range {at}: {what} {active:?}"))?;
        }
        Ok(())
    }

    /// Somebody was told that a record is at an offset.
    pub fn read(&mut self, record: RecordId, offset: u64) -> Checked {
        let records = &mut self.records[record.partition as usize];
        if records.len() <= offset as usize {
            records.resize(offset as usize + 1, None);
        }
        match records[offset as usize].replace(record) {
            Some(known) if known != record => {
                Err(format!("partition {}: offset {offset} was {known:?} and is {record:?}", record.partition))
            }
            _ => Ok(()),
        }
    }

    /// Each once, and in the order of its producer.
    pub fn check_order(&self) -> Checked {
        for (partition, records) in self.records.iter().enumerate() {
            let mut last: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
            for (offset, record) in records.iter().enumerate() {
                let Some(record) = record else { continue };
                if let Some((sequence, before)) = last.insert(record.producer, (record.sequence, offset))
                    && sequence >= record.sequence
                {
                    return Err(format!(
                        "partition {partition}: producer {} has record {} at {offset}, behind {sequence} at {before}",
                        record.producer, record.sequence
                    ));
                }
            }
        }
        Ok(())
    }
}

impl RangeTruth {
    fn activate(&mut self, active: &ActiveChain, replication: u16) -> Checked {
        if self.actives.contains_key(&active.epoch) {
            return Err("was activated twice in one epoch:".to_owned());
        }
        if active.chain.len() < min_in_sync(replication) {
            return Err("is below the floor:".to_owned());
        }
        let mut nodes: Vec<NodeId> = active.chain.iter().map(|member| member.node).collect();
        nodes.sort();
        nodes.dedup();
        if nodes.len() < active.chain.len() {
            return Err("names a node twice:".to_owned());
        }
        if active.start.index < self.committed {
            return Err(format!("loses what is committed up to {}:", self.committed));
        }
        self.committed = active.start.index;
        if let Some(hash) = self.disagrees(active.start) {
            return Err(format!("changes what is committed with hash {hash:?}:"));
        }
        self.actives.insert(active.epoch, active.clone());
        while self.actives.len() > EPOCHS_KEPT {
            self.actives.pop_first();
        }
        let oldest = *self.actives.first_key_value().expect("one was just added").0;
        self.durable = self.durable.split_off(&(oldest, NodeId(0)));
        Ok(())
    }

    /// What is committed at a point, if it is something else; remembers the point otherwise.
    fn disagrees(&mut self, point: LogPoint) -> Option<RunningHash> {
        let at = (point.index.0 as usize).checked_sub(1)?;
        if self.hashes.len() <= at {
            self.hashes.resize(at + 1, None);
        }
        let known = *self.hashes[at].get_or_insert(point.hash);
        (known != point.hash).then_some(known)
    }
}

impl MemberLog {
    /// Takes in what was appended and cut since.
    fn follow(&mut self, before: Option<MemberView>, view: MemberView, replica: &Replica) {
        if before.is_some_and(|before| view.end.index < before.end.index) {
            self.points.retain(|point| point.index < view.end.index);
        }
        let from = self.points.back().map_or(LogIndex(0), |point| point.index.next());
        self.points.extend(replica.uncommitted_points(from));
        if self.points.back().is_none_or(|point| point.index < view.end.index) && view.end.index > LogIndex(0) {
            self.points.push_back(view.end);
        }
    }
}
