//! A world for the controller: nodes with logs and promises, a record with a version, and messages in between that can
//! be reordered, dropped and doubled. It checks what must never happen while it runs.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::chain::ChainMember;
use crate::coordination::{ActiveChain, PendingChange, RangeRecord};
use crate::wire::{LearnRange, LearnReport, RangeOutcome, ReconcileRange, SealReport};

pub(super) const RING: RingId = RingId(1);

/// An entry: the epoch it was accepted in, and a value of its own.
type Log = Vec<(Epoch, u64)>;

/// What a node keeps of a range on its disk.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) promised: Epoch,
    pub(super) marker: Epoch,
    pub(super) log: Log,
    pub(super) known_committed: LogIndex,
    /// Entries of it are lost.
    pub(super) damaged: bool,
}

/// What a member that copies reads at its source, if that very process is there.
type Source = Option<Disk>;

/// Entries that one answer brings.
const COPIED_AT_ONCE: usize = 2;

pub(super) struct Node {
    pub(super) broker: BrokerRecord,
    pub(super) live: bool,
    pub(super) disks: BTreeMap<RangeId, Disk>,
    acting: BTreeMap<RangeId, ActiveChain>,
    /// Highest epoch sealed in this life.
    sealed: BTreeMap<RangeId, Epoch>,
    opened_by: BTreeMap<RangeId, ShardId>,
    /// Chains of several members: shards of a process may come to be chosen anew, and the process refuses.
    is_one_of_many: bool,
}

/// Something under way.
#[derive(Clone)]
pub(super) enum Event {
    Deliver { controller: usize, to: Destination, message: Message },
    Tell { controller: usize, input: Box<Input> },
    Cas { controller: usize, chunk: RingChunk, version: KeyVersion },
    Read { controller: usize },
}

pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) chunk: RingChunk,
    pub(super) version: KeyVersion,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) controllers: Vec<ChunkController>,
    pub(super) events: Vec<Event>,
    pub(super) alerts: Vec<Alert>,
    /// Messages delivered, for counting.
    pub(super) delivered: Vec<(Destination, Message)>,
    pub(super) committed: BTreeMap<RangeId, Log>,
    pub(super) cas_count: usize,
    /// (from, to): what the first has to say does not reach the second; the controller reaches both.
    pub(super) cuts: BTreeSet<(NodeId, NodeId)>,
    /// What each epoch decided: the end to reconcile to, and the chain.
    ends: BTreeMap<(RangeId, Epoch), LogPoint>,
    pub(super) actives: BTreeMap<(RangeId, Epoch), ActiveChain>,
    next: u64,
}

pub(super) fn end(log: &Log) -> LogPoint {
    let mix = |hash: u64, (epoch, value): &(Epoch, u64)| (hash ^ epoch.0 ^ value << 20).wrapping_mul(0x100_0000_01b3);
    LogPoint { index: LogIndex(log.len() as u64), hash: RunningHash(log.iter().fold(0, mix)) }
}

impl World {
    pub(super) fn new(replication: u16, ranges: u32, shards_of: &[u16]) -> Self {
        let chunk = RingChunk {
            ring: RING,
            replication,
            ranges_total: ranges,
            first: RangeId(0),
            ranges: vec![RangeRecord::default(); ranges as usize],
        };
        let mut world = Self {
            now_ms: 0,
            chunk,
            version: KeyVersion(0),
            nodes: BTreeMap::new(),
            controllers: Vec::new(),
            events: Vec::new(),
            alerts: Vec::new(),
            delivered: Vec::new(),
            committed: BTreeMap::new(),
            cas_count: 0,
            cuts: BTreeSet::new(),
            ends: BTreeMap::new(),
            actives: BTreeMap::new(),
            next: 100,
        };
        for (node, &shards) in (1..).zip(shards_of) {
            let store = StoreId(world.fresh());
            let broker = world.broker(NodeId(node), store, shards);
            let node = Node {
                broker,
                live: true,
                disks: BTreeMap::new(),
                acting: BTreeMap::new(),
                sealed: BTreeMap::new(),
                opened_by: BTreeMap::new(),
                is_one_of_many: shards_of.len() > 1,
            };
            world.nodes.insert(node.broker.node, node);
        }
        world
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn broker(&mut self, node: NodeId, store: StoreId, shards: u16) -> BrokerRecord {
        BrokerRecord {
            node,
            shards: (0..shards).map(|shard| format!("node-{node}:{shard}")).collect(),
            rack: String::new(),
            incarnation: Incarnation(self.fresh()),
            store,
            version: String::new(),
        }
    }

    pub(super) fn add_controller(&mut self) -> usize {
        let writer = WriterId(self.fresh());
        self.controllers.push(ChunkController::new(writer, ControllerSettings::default()));
        self.input(self.controllers.len() - 1, Input::Brokers(self.live()));
        self.controllers.len() - 1
    }

    fn live(&self) -> Vec<BrokerRecord> {
        self.nodes.values().filter(|node| node.live).map(|node| node.broker.clone()).collect()
    }

    pub(super) fn stop(&mut self, node: u32) {
        self.node(node).live = false;
        self.announce();
    }

    /// Another process on the same disk.
    pub(super) fn restart(&mut self, node: u32, shards: u16) {
        let store = self.node(node).broker.store;
        let broker = self.broker(NodeId(node), store, shards);
        let node = self.node(node);
        (node.broker, node.live) = (broker, true);
        node.acting.clear();
        node.sealed.clear();
        node.opened_by.clear();
        self.announce();
    }

    /// Another process on an empty disk.
    pub(super) fn wipe(&mut self, node: u32) {
        self.node(node).broker.store = StoreId(self.next + 1);
        self.next += 1;
        self.node(node).disks.clear();
        let shards = self.node(node).broker.shards.len() as u16;
        self.restart(node, shards);
    }

    pub(super) fn node(&mut self, node: u32) -> &mut Node {
        self.nodes.get_mut(&NodeId(node)).expect("a node of this world")
    }

    fn announce(&mut self) {
        let live = self.live();
        for controller in 0..self.controllers.len() {
            let input = Box::new(Input::Brokers(live.clone()));
            // Watches may skip states but the last one arrives.
            self.events.retain(|event| {
                !matches!(event, Event::Tell { controller: c, input } if *c == controller && matches!(**input, Input::Brokers(_)))
            });
            self.events.push(Event::Tell { controller, input });
        }
    }

    pub(super) fn input(&mut self, controller: usize, input: Input) {
        for output in self.controllers[controller].step(self.now_ms, input) {
            match output {
                Output::ReadChunk => self.events.push(Event::Read { controller }),
                Output::Cas { chunk, version } => self.events.push(Event::Cas { controller, chunk, version }),
                Output::Send { to, message } => {
                    self.check_decision(&message);
                    self.events.push(Event::Deliver { controller, to, message });
                }
                Output::Alert(alert) => self.alerts.push(alert),
            }
        }
    }

    /// One epoch, one decision, whoever sends it.
    fn check_decision(&mut self, message: &Message) {
        if let Message::Reconcile(request) = message {
            for range in &request.ranges {
                let end = *self.ends.entry((range.range, range.epoch)).or_insert(range.end);
                assert_eq!(end, range.end, "range {} was decided twice in epoch {}", range.range, range.epoch);
                self.check_source(request.writer, range);
            }
        }
    }

    /// As long as the change is not overtaken, its source is a survivor.
    fn check_source(&self, writer: WriterId, range: &ReconcileRange) {
        let Some(record) = position(&self.chunk, range.range).map(|at| &self.chunk.ranges[at]) else { return };
        let is_current = record.pending == Some(PendingChange { epoch: range.epoch, writer });
        let (Some(active), Some(source), true) = (&record.active, range.source, is_current) else { return };
        assert!(
            active.chain.iter().any(|m| (m.node, m.store) == (source.node, source.store)),
            "a stranger is the source"
        );
        let node = &self.nodes[&source.node];
        if node.broker.store == source.store {
            assert!(node.disks[&range.range].marker >= active.epoch, "who lost its log is the source");
        }
    }

    /// Carries one event out. `unknown`: the controller does not learn what came of a compare-and-set.
    pub(super) fn run(&mut self, event: Event, unknown: bool) {
        match event {
            Event::Tell { controller, input } => self.input(controller, *input),
            Event::Read { controller } => {
                let input = Input::ChunkRead { chunk: self.chunk.clone(), version: self.version };
                self.events.push(Event::Tell { controller, input: Box::new(input) });
            }
            Event::Cas { controller, chunk, version } => {
                let won = version == self.version;
                if won {
                    self.replace(chunk);
                }
                let outcome = match (unknown, won) {
                    (true, _) => CasOutcome::Unknown,
                    (false, true) => CasOutcome::Won(self.version),
                    (false, false) => CasOutcome::Conflict,
                };
                self.events.push(Event::Tell { controller, input: Box::new(Input::CasDone(outcome)) });
            }
            Event::Deliver { controller, to, message } => {
                let answer = self.deliver(to, &message);
                self.delivered.push((to, message.clone()));
                let input = Box::new(Input::Answered { to, message, answer });
                self.events.push(Event::Tell { controller, input });
            }
        }
    }

    fn replace(&mut self, chunk: RingChunk) {
        self.cas_count += 1;
        self.version = KeyVersion(self.version.0 + 1);
        for (at, (old, new)) in self.chunk.ranges.iter().zip(&chunk.ranges).enumerate() {
            assert!(new.epoch_max() >= old.epoch_max(), "the epoch of range {at} went back");
            assert!(old.active.is_none() || new.active.is_some(), "the active chain of range {at} was forgotten");
            if let Some(active) = &new.active {
                let known = self.actives.entry((range_id(&chunk, at), active.epoch)).or_insert_with(|| active.clone());
                assert_eq!(known, active, "range {at} was activated twice in one epoch");
            }
            if let Some(active) = new.active.as_ref().filter(|active| old.active.as_ref() != Some(active)) {
                let nodes: BTreeSet<NodeId> = active.chain.iter().map(|member| member.node).collect();
                let length = active.chain.len();
                assert_eq!(nodes.len(), length, "range {at}: one node twice in {active:?}");
                let lengths = min_in_sync(chunk.replication)..=usize::from(chunk.replication);
                assert!(lengths.contains(&length), "range {at}: {length} members");
                let committed = self.committed.get(&range_id(&chunk, at)).map_or(0, Vec::len) as u64;
                assert!(active.start.index.0 >= committed, "range {at}: {committed} are committed, not {active:?}");
            }
        }
        self.chunk = chunk;
    }

    fn deliver(&mut self, to: Destination, message: &Message) -> Answer {
        let disk = |source: ChainMember, range| -> Source {
            let node = self.nodes.get(&source.node).filter(|node| node.live)?;
            let is_it = (node.broker.store, node.broker.incarnation) == (source.store, source.incarnation);
            let is_cut = self.cuts.contains(&(source.node, to.node));
            node.disks.get(&range).filter(|_| is_it && !is_cut).cloned()
        };
        let sources: Vec<Source> = match message {
            Message::Reconcile(request) => {
                request.ranges.iter().map(|r| r.source.and_then(|source| disk(source, r.range))).collect()
            }
            Message::Learn(request) => request.ranges.iter().map(|r| disk(r.source, r.range)).collect(),
            _ => Vec::new(),
        };
        let cuts = self.cuts.clone();
        let Some(node) = self.nodes.get_mut(&to.node).filter(|node| node.live) else { return Answer::Lost };
        if usize::from(to.shard.0) >= node.broker.shards.len() {
            return Answer::Lost;
        }
        match message {
            Message::Seal(request) => {
                let ranges =
                    request.ranges.iter().map(|range| node.seal(request.incarnation, to.shard, range)).collect();
                Answer::Seal(SealReply { incarnation: node.broker.incarnation, store: node.broker.store, ranges })
            }
            Message::Reconcile(request) => Answer::Ranges(RangesReply {
                ranges: (request.ranges.iter().zip(&sources))
                    .map(|(range, source)| {
                        let is_cut = range.source.is_some_and(|source| cuts.contains(&(source.node, to.node)));
                        let outcome = node.reconcile(request.incarnation, range, source.as_ref());
                        let waits = outcome.error == Some(ErrorCode::CatchingUp);
                        if waits && is_cut {
                            RangeOutcome { error: Some(ErrorCode::TimedOut), ..outcome }
                        } else {
                            outcome
                        }
                    })
                    .collect(),
            }),
            Message::Learn(request) => {
                let ranges = (request.ranges.iter().zip(&sources))
                    .map(|(range, source)| node.learn(request.incarnation, to.shard, range, source.as_ref()))
                    .collect();
                Answer::Learn(LearnReply { incarnation: node.broker.incarnation, store: node.broker.store, ranges })
            }
            Message::Activate(request) => Answer::Ranges(RangesReply {
                ranges: request.ranges.iter().map(|range| node.activate(range)).collect(),
            }),
        }
    }

    /// A producer writes to whoever thinks to be the head of a range; what reaches the whole chain is committed.
    /// Controllers that were told of different drains propose different first chains, so that shards of a process may come to
    /// be chosen anew, also with chains of one.
    pub(super) fn let_seats_differ(&mut self) {
        self.nodes.values_mut().for_each(|node| node.is_one_of_many = true);
    }

    pub(super) fn write(&mut self, range: RangeId) {
        let value = self.fresh();
        let acting = self.nodes.values().filter(|node| node.live).filter_map(|node| {
            let chain = node.acting.get(&range)?;
            (chain.chain.first()?.node == node.broker.node).then(|| chain.clone())
        });
        for chain in acting.collect::<Vec<_>>() {
            let follows = |world: &Self, member: &ChainMember| {
                let is_cut = world.cuts.contains(&(chain.chain[0].node, member.node));
                !is_cut
                    && world.nodes[&member.node].live
                    && world.nodes[&member.node].acting.get(&range) == Some(&chain)
            };
            let reached = chain.chain.iter().take_while(|member| follows(self, member)).count();
            let mut log = self.nodes[&chain.chain[0].node].disks[&range].log.clone();
            log.push((chain.epoch, value));
            for member in &chain.chain[..reached] {
                let disk = self.node(member.node.0).disks.entry(range).or_default();
                assert!(log.starts_with(&disk.log), "range {range}: members of one epoch began at different points");
                disk.log.clone_from(&log);
            }
            if reached == chain.chain.len() {
                self.commit(range, &chain);
            }
        }
    }

    fn commit(&mut self, range: RangeId, chain: &ActiveChain) {
        let log = self.nodes[&chain.chain[0].node].disks[&range].log.clone();
        let before = self.committed.entry(range).or_default();
        assert!(log.starts_with(before), "range {range}: committed entries were lost in epoch {}", chain.epoch);
        *before = log;
        let committed = LogIndex(before.len() as u64);
        for member in &chain.chain {
            self.node(member.node.0).disks.entry(range).or_default().known_committed = committed;
        }
    }

    /// Whether every member of every active chain acts in it.
    pub(super) fn is_whole(&self) -> bool {
        self.chunk.ranges.iter().enumerate().all(|(at, record)| {
            let acts = |active: &ActiveChain, member: &ChainMember| {
                let node = &self.nodes[&member.node];
                node.live && node.acting.get(&range_id(&self.chunk, at)) == Some(active)
            };
            record.pending.is_none()
                && record.active.as_ref().is_some_and(|active| active.chain.iter().all(|m| acts(active, m)))
        })
    }

    /// Whether every chain has as many members as it should, besides.
    pub(super) fn is_full(&self) -> bool {
        let live = self.nodes.values().filter(|node| node.live).count();
        let wanted = usize::from(self.chunk.replication).min(live);
        let is_full = |record: &RangeRecord| record.active.as_ref().is_some_and(|a| a.chain.len() == wanted);
        self.is_whole() && self.chunk.ranges.iter().all(is_full)
    }

    /// Ranges that are not well, for a failed test's message.
    pub(super) fn unwell(&self) -> String {
        let is_well = |at: usize| {
            let active = self.chunk.ranges[at].active.as_ref();
            let is_told = |node: &Node| node.acting.get(&range_id(&self.chunk, at)) == active;
            let is_long = |a: &ActiveChain| a.chain.len() == usize::from(self.chunk.replication);
            active.is_some_and(|a| is_long(a) && a.chain.iter().all(|m| is_told(&self.nodes[&m.node])))
        };
        let unwell = (0..self.chunk.ranges.len()).filter(|at| !is_well(*at));
        unwell.map(|at| format!("{:?} {:?}\n", self.chunk.ranges[at], self.controllers[0].ranges[at])).collect()
    }

    /// Whether every range would still have a survivor if a node lost its disk, whatever is under way.
    pub(super) fn may_wipe(&self, node: NodeId) -> bool {
        let survives = |range, active: &ActiveChain, member: &ChainMember| {
            let other = &self.nodes[&member.node];
            member.node != node
                && other.broker.store == member.store
                && other.disks.get(&range).is_some_and(|disk| disk.marker >= active.epoch)
        };
        self.chunk.ranges.iter().enumerate().all(|(at, record)| {
            let range = range_id(&self.chunk, at);
            let active = record.active.as_ref();
            record.pending.is_none() && active.is_some_and(|a| a.chain.iter().any(|member| survives(range, a, member)))
        })
    }

    /// Runs everything in order and without faults until nothing happens, or for as long as `ms`.
    pub(super) fn settle(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            while !self.events.is_empty() {
                let event = self.events.remove(0);
                self.run(event, false);
            }
            let due = self.controllers.iter().filter_map(ChunkController::next_deadline_ms).min();
            match due.filter(|due| *due <= until) {
                Some(due) => self.now_ms = self.now_ms.max(due),
                None => break,
            }
            (0..self.controllers.len()).for_each(|controller| self.input(controller, Input::Tick));
        }
        self.now_ms = until;
    }
}

impl Node {
    fn seal(&mut self, incarnation: Incarnation, shard: ShardId, asked: &crate::wire::SealRange) -> SealReport {
        let (range, epoch) = (asked.range, asked.epoch);
        let disk = self.disks.entry(range).or_default();
        let opened = self.opened_by.get(&range).is_none_or(|opened| *opened == shard);
        let is_ours = incarnation == self.broker.incarnation;
        let error = if !is_ours || !opened {
            assert!(!is_ours || self.is_one_of_many, "two shards of one process were asked to open range {range}");
            Some(ErrorCode::NotOwner)
        } else {
            (epoch < disk.promised).then_some(ErrorCode::Stale)
        };
        if error.is_none() {
            self.opened_by.insert(range, shard);
            disk.promised = epoch;
            self.sealed.insert(range, epoch);
            if self.acting.get(&range).is_some_and(|acting| acting.epoch < epoch) {
                self.acting.remove(&range);
            }
        }
        SealReport {
            range,
            error,
            promised: disk.promised,
            marker: disk.marker,
            end: end(&disk.log),
            last_epoch: disk.log.last().map_or(Epoch(0), |(epoch, _)| *epoch),
            known_committed: disk.known_committed,
            damaged: disk.damaged,
        }
    }

    fn reconcile(&mut self, incarnation: Incarnation, asked: &ReconcileRange, source: Option<&Disk>) -> RangeOutcome {
        let disk = self.disks.entry(asked.range).or_default();
        let outcome = |error, epoch| RangeOutcome { range: asked.range, error, epoch, end: LogIndex(0) };
        if incarnation != self.broker.incarnation {
            return outcome(Some(ErrorCode::NotOwner), disk.promised);
        }
        // Asked again, it answers again.
        if (disk.promised, disk.marker) == (asked.epoch, asked.epoch) && end(&disk.log) == asked.end {
            return outcome(None, asked.epoch);
        }
        if disk.promised != asked.epoch || disk.marker >= asked.epoch {
            return outcome(Some(ErrorCode::Stale), disk.promised);
        }
        if asked.source.is_some() {
            let Some(source) = source.filter(|source| source.promised == asked.epoch) else {
                return outcome(Some(ErrorCode::CatchingUp), disk.promised);
            };
            copy(disk, &source.log[..(asked.end.index.0 as usize).min(source.log.len())]);
        }
        if end(&disk.log).index < asked.end.index && asked.source.is_some() {
            let end = end(&disk.log).index;
            return RangeOutcome { end, ..outcome(Some(ErrorCode::CatchingUp), disk.promised) };
        }
        if end(&disk.log) != asked.end {
            return outcome(Some(ErrorCode::RangeFailed), disk.promised);
        }
        disk.marker = asked.epoch;
        outcome(None, asked.epoch)
    }

    /// Copies in the background, unless it may be a survivor, or was sealed for something later.
    fn learn(
        &mut self,
        incarnation: Incarnation,
        shard: ShardId,
        asked: &LearnRange,
        source: Option<&Disk>,
    ) -> LearnReport {
        let range = asked.range;
        let disk = self.disks.entry(range).or_default();
        let sealed = self.sealed.get(&range).copied().unwrap_or_default();
        let opened = *self.opened_by.entry(range).or_insert(shard);
        let error = match source {
            _ if incarnation != self.broker.incarnation || opened != shard => Some(ErrorCode::NotOwner),
            _ if disk.marker >= asked.epoch || sealed > asked.epoch => Some(ErrorCode::Stale),
            Some(source) if source.marker < asked.epoch => Some(ErrorCode::Stale),
            Some(_) => None,
            None => Some(ErrorCode::RangeFailed),
        };
        let mut limit = None;
        if let (Some(source), None) = (source, error) {
            self.acting.remove(&range);
            let committed = source.known_committed;
            copy(disk, &source.log[..committed.0 as usize]);
            limit = Some(committed);
        }
        LearnReport { range, error, promised: disk.promised, end: end(&disk.log).index, limit }
    }

    fn activate(&mut self, asked: &crate::wire::ActivateRange) -> RangeOutcome {
        let disk = self.disks.entry(asked.range).or_default();
        let outcome = |error, epoch| RangeOutcome { range: asked.range, error, epoch, end: LogIndex(0) };
        let (store, incarnation) = (self.broker.store, self.broker.incarnation);
        let is_named = asked.chain.iter().any(|m| m.store == store && m.incarnation == incarnation);
        if disk.promised > asked.epoch {
            return outcome(Some(ErrorCode::Stale), disk.promised);
        }
        if disk.promised != asked.epoch || disk.marker != asked.epoch || !is_named {
            return outcome(Some(ErrorCode::NotOwner), disk.promised);
        }
        let chain = ActiveChain { epoch: asked.epoch, chain: asked.chain.clone(), start: asked.start };
        disk.known_committed = disk.known_committed.max(asked.start.index);
        self.acting.entry(asked.range).or_insert(chain);
        outcome(None, asked.epoch)
    }
}

/// Cuts a log to where it agrees with another one, and adds a little of what it lacks.
fn copy(disk: &mut Disk, source: &[(Epoch, u64)]) {
    let agreed = disk.log.iter().zip(source).take_while(|(ours, theirs)| ours == theirs).count();
    assert!(agreed as u64 >= disk.known_committed.0.min(source.len() as u64), "what is committed would be cut");
    if agreed < disk.log.len() {
        disk.log.truncate(agreed.max(disk.known_committed.0 as usize));
    }
    if disk.log.len() == agreed {
        disk.log.extend(source[agreed..].iter().take(COPIED_AT_ONCE));
    }
}
