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
use minikafka_core::wire::{ReconcileRange, SealReport};
use minikafka_core::*;

/// What was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which sort of promise.
    pub kind: ViolationKind,
    /// In words.
    pub what: String,
}

/// Sorts of promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// What is committed, acknowledged or was read is lost, changed, doubled, or different elsewhere.
    Data,
    /// A rule of the protocol, without which data get lost sooner or later.
    Rule,
    /// An assert of the code itself.
    Panic,
    /// A healed world does not come to rest.
    Liveness,
    /// The same seed did something else.
    Replay,
}

impl Violation {
    /// Data are lost, changed, doubled, or different elsewhere.
    pub fn data(what: impl Into<String>) -> Self {
        Self { kind: ViolationKind::Data, what: what.into() }
    }

    /// A rule is broken.
    pub fn rule(what: impl Into<String>) -> Self {
        Self { kind: ViolationKind::Rule, what: what.into() }
    }

    /// A healed world does not come to rest.
    pub fn liveness(what: impl Into<String>) -> Self {
        Self { kind: ViolationKind::Liveness, what: what.into() }
    }
}

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
    /// A broken rule is nothing yet: only data count.
    is_data_only: bool,
}

#[derive(Default)]
struct RangeTruth {
    committed: LogIndex,
    /// By index - 1.
    hashes: Vec<Option<RunningHash>>,
    actives: BTreeMap<Epoch, ActiveChain>,
    /// The end that was decided.
    decisions: BTreeMap<Epoch, LogPoint>,
    /// What a member had durable while it acted in an epoch.
    durable: BTreeMap<(Epoch, NodeId), LogIndex>,
}

#[derive(Clone, Copy, Default)]
struct Told {
    promised: Epoch,
    marker: Epoch,
    /// The last report said that its log is damaged.
    was_damaged: bool,
    /// What it had durable while it acted.
    durable: LogIndex,
}

/// Epochs of which a range's facts are kept.
const EPOCHS_KEPT: usize = 64;

impl Truth {
    /// Nothing happened yet; `is_data_only`: a broken rule does not end the run, so that it shows what comes of it.
    pub fn new(ranges: u32, partitions: usize, is_data_only: bool) -> Self {
        Self {
            ranges: (0..ranges).map(|_| RangeTruth::default()).collect(),
            told: BTreeMap::new(),
            records: vec![Vec::new(); partitions],
            commits: 0,
            epochs: 0,
            is_data_only,
        }
    }

    /// A rule is broken.
    pub fn rule(&self, what: impl FnOnce() -> String) -> Checked {
        if self.is_data_only { Ok(()) } else { Err(Violation::rule(what())) }
    }

    /// Committed of a range.
    pub fn committed(&self, range: RangeId) -> LogIndex {
        self.ranges[range.0 as usize].committed
    }

    /// The hash at a committed index, if it was seen.
    pub fn hash_at(&self, range: RangeId, index: LogIndex) -> Option<RunningHash> {
        let at = (index.0 as usize).checked_sub(1)?;
        self.ranges[range.0 as usize].hashes.get(at).copied().flatten()
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
        let text = |what: String| format!("range {range}, node {} ({view:?}): {what}", me.node);
        log.follow(before, view, replica);
        // What it committed or acknowledged in the very step in which another write of its failed counts.
        let acted = match before {
            Some(MemberView { acts_in, is_head, .. }) if view.failed => MemberView { acts_in, is_head, ..view },
            _ => view,
        };
        self.acts_by_the_record((me, range), acted).or_else(|what| self.rule(|| text(what)))?;
        let truth = &mut self.ranges[range.0 as usize];
        let known_committed = view.known_committed.index;
        while let Some(point) = log.points.front().copied().filter(|point| point.index <= known_committed) {
            log.points.pop_front();
            if let Some(hash) = truth.disagrees(point) {
                let what = format!("has {point:?} committed, which was committed as {hash:?}");
                return Err(Violation::data(text(what)));
            }
        }
        if let Some(hash) = truth.disagrees(view.known_committed) {
            let what = format!("has another log committed, which has hash {hash:?} there");
            return Err(Violation::data(text(what)));
        }
        let committed = truth.committed;
        if known_committed > committed {
            self.rule(|| text(format!("knows more to be committed than is: {committed}")))?;
        }
        self.remembers((me, range), view, is_whole).or_else(|what| self.rule(|| text(what)))?;
        // What could not be read when it was opened counts as lost: it says so, and is no survivor.
        if is_whole && !view.damaged && view.durable < committed && self.is_survivor((me, range), view.marker) {
            self.rule(|| text(format!("is a survivor and lacks what is committed up to {committed}")))?;
        }
        Ok(true)
    }

    /// Whoever acts does so where the record put it, and a head commits only what all have.
    fn acts_by_the_record(&mut self, (me, range): (&ChainMember, RangeId), view: MemberView) -> Result<(), String> {
        let Some(epoch) = view.acts_in else { return Ok(()) };
        let truth = &mut self.ranges[range.0 as usize];
        let Some(active) = truth.actives.get(&epoch) else {
            return Err("acts in an epoch that the record never named".to_owned());
        };
        let place = active.chain.iter().position(|member| member == me);
        if place.is_none() || view.is_head != (place == Some(0)) {
            return Err(format!("acts in a place that {active:?} does not give it"));
        }
        truth.durable.insert((epoch, me.node), view.durable);
        let committed = view.known_committed.index;
        if !view.is_head || committed <= truth.committed {
            return Ok(());
        }
        self.commits += committed.0 - truth.committed.0;
        truth.committed = committed;
        for member in &active.chain {
            let durable = truth.durable.get(&(epoch, member.node)).copied().unwrap_or_default();
            if durable.max(active.start.index) < committed {
                return Err(format!("commits what node {} has durable only to {durable}", member.node));
            }
        }
        Ok(())
    }

    /// A disk keeps what was told of it.
    fn remembers(
        &mut self,
        (me, range): (&ChainMember, RangeId),
        view: MemberView,
        is_whole: bool,
    ) -> Result<(), String> {
        let told = self.told.entry((me.store, range)).or_default();
        if view.acts_in.is_some() {
            told.durable = told.durable.max(view.durable);
        }
        if told.was_damaged && view.marker == Epoch(0) {
            // Nobody counts on a log that was said to be damaged: it may be dropped, to copy another one.
            told.marker = Epoch(0);
        }
        // A power loss between "there is a log" and the first flush loses the marker, but nothing that was acknowledged.
        let had_nothing = told.durable == LogIndex(0) && view.marker == Epoch(0);
        // The marker of a former member is nobody's business any more, once it learns what others wrote.
        let actives = &self.ranges[range.0 as usize].actives;
        let matters = actives.last_key_value().is_some_and(|(epoch, _)| told.marker >= *epoch) && !had_nothing;
        if is_whole && (view.promised < told.promised || view.marker < told.marker && matters) {
            let Told { promised, marker, .. } = *told;
            return Err(format!("told of promise {promised} and marker {marker} before, and forgot"));
        }
        Ok(())
    }

    /// A seal report leaves a node whose disk is whole.
    pub fn sealed(&mut self, node: &ChainMember, chunk: &RingChunk, report: &SealReport) -> Checked {
        let told = self.told.entry((node.store, report.range)).or_default();
        if report.error.is_some() {
            return Ok(());
        }
        told.promised = told.promised.max(report.promised);
        told.was_damaged = report.damaged;
        let active = chunk.ranges[report.range.0 as usize].active.as_ref();
        let is_survivor = active.is_some_and(|active| {
            let is_member = |member: &ChainMember| member.node == node.node && member.store == node.store;
            report.marker >= active.epoch && active.chain.iter().any(is_member)
        });
        let committed = self.ranges[report.range.0 as usize].committed;
        if is_survivor && !report.damaged && report.end.index < committed {
            let (range, node) = (report.range, node.node);
            return self.rule(|| {
                format!("range {range}: {committed} is committed and the survivor on node {node} reports {report:?}")
            });
        }
        Ok(())
    }

    /// Whether a member with this marker would be a survivor of the last chain.
    fn is_survivor(&self, (me, range): (&ChainMember, RangeId), marker: Epoch) -> bool {
        let is_me = |member: &ChainMember| member.node == me.node && member.store == me.store;
        let last = self.ranges[range.0 as usize].actives.last_key_value();
        last.is_some_and(|(epoch, active)| marker >= *epoch && active.chain.iter().any(is_me))
    }

    /// A controller tells what it decided: the same to everybody, for ever (R5d).
    pub fn decided(&mut self, decision: &ReconcileRange) -> Checked {
        let ReconcileRange { range, epoch, end, .. } = *decision;
        let decisions = &mut self.ranges[range.0 as usize].decisions;
        let known = *decisions.entry(epoch).or_insert(end);
        while decisions.len() > EPOCHS_KEPT {
            decisions.pop_first();
        }
        if known == end {
            return Ok(());
        }
        self.rule(|| format!("range {range}: {known:?} was decided in epoch {epoch}, and then {end:?}"))
    }

    /// A node told that it is reconciled.
    pub fn reconciled(&mut self, store: StoreId, range: RangeId, epoch: Epoch) {
        let told = self.told.entry((store, range)).or_default();
        told.marker = told.marker.max(epoch);
    }

    /// The record changed.
    pub fn record(&mut self, old: &RingChunk, new: &RingChunk) -> Checked {
        for (at, (old, record)) in old.ranges.iter().zip(&new.ranges).enumerate() {
            if record.epoch_max() < old.epoch_max() {
                self.rule(|| format!("range {at}: the record goes back from {old:?} to {record:?}"))?;
            }
            if old.active.is_some() && record.active.is_none() {
                self.rule(|| format!("range {at}: its active chain was forgotten"))?;
            }
            let Some(active) = &record.active else { continue };
            if old.active.as_ref() == Some(active) {
                continue;
            }
            self.epochs += 1;
            let is_broken = self.ranges[at].is_misformed(active, new.replication);
            is_broken.map_or(Ok(()), |what| self.rule(|| format!("range {at}: {what} {active:?}")))?;
            // Of a damaged log that nobody else has, what is good is served, and nothing is added (R12).
            let is_damaged = |member: &ChainMember| {
                self.told.get(&(member.store, RangeId(at as u32))).is_some_and(|told| told.was_damaged)
            };
            let is_cut_short = active.chain.len() == 1 && active.chain.iter().any(is_damaged);
            let kept = self.ranges[at].activate(active, is_cut_short);
            kept.map_err(|what| Violation::data(format!("range {at}: {what} {active:?}")))?;
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
                let partition = record.partition;
                Err(Violation::data(format!("partition {partition}: offset {offset} was {known:?} and is {record:?}")))
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
                    return Err(Violation::data(format!(
                        "partition {partition}: producer {} has record {} at {offset}, behind {sequence} at {before}",
                        record.producer, record.sequence
                    )));
                }
            }
        }
        Ok(())
    }
}

impl RangeTruth {
    /// What is wrong with a chain in itself.
    fn is_misformed(&self, active: &ActiveChain, replication: u16) -> Option<&'static str> {
        let mut nodes: Vec<NodeId> = active.chain.iter().map(|member| member.node).collect();
        nodes.sort();
        nodes.dedup();
        match () {
            () if self.actives.contains_key(&active.epoch) => Some("was activated twice in one epoch:"),
            () if active.chain.len() < min_in_sync(replication) => Some("is below the floor:"),
            () if nodes.len() < active.chain.len() => Some("names a node twice:"),
            () => None,
        }
    }

    /// A chain begins where everything committed ends, or is cut short until its member's log is whole again.
    fn activate(&mut self, active: &ActiveChain, is_cut_short: bool) -> Result<(), String> {
        if active.start.index < self.committed && !is_cut_short {
            return Err(format!("loses what is committed up to {}:", self.committed));
        }
        self.committed = self.committed.max(active.start.index);
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
