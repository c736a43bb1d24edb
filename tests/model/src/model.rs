//! The model: what can happen in a world, what comes of it, and what must hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::PeerBody;
use minikafka_core::ids::*;
use stateright::{Model, Property};

use crate::case::{Case, Rule};
use crate::control::{ControlAction, ControlTables, Landed};
use crate::decide;
use crate::entries::{Entries, NO_ENTRY};
use crate::intern::{Id, Interner, Memo};
use crate::node::{ControllerAnswer, Decision, Effects, Event, Interpreter, Message, Node, Report};
use crate::world::{Attempt, NODES_MAX, NONE, World};

/// What must hold in every state.
pub const PROMISES: [&str; 12] = [
    "what is committed is in the log of every survivor",
    "a committed index has one content",
    "nothing is known to be committed that is not",
    "what is committed is durable on every member of the chain",
    "what is acknowledged is committed",
    "every later chain starts at or behind what is committed",
    "committed never goes back",
    "nobody commits what is not in its log",
    "what is readable was said to be committed",
    "the machines' own assertions hold",
    "an epoch has at most one active chain",
    "only a survivor is the source",
];

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// R5a: a controller wins the next epoch.
    Claim,
    /// R5b: a seal of this epoch arrives at this node.
    Seal(u8, u8),
    /// R5c, R5d: this decision is made, by its number.
    Decide(u8, Id),
    /// R5e: the decision arrives at this node.
    Reconcile(u8, u8),
    /// R5f: the record changes.
    Commit(u8),
    /// The record's chain of this epoch is told to this node.
    Activate(u8, u8),
    /// R7: this node shall learn from that place of the chain.
    Learn(u8, u8, u8),
    /// The next message from one node to another arrives.
    Deliver(u8, u8),
    /// The connection between two nodes breaks.
    Break(u8, u8),
    /// A client's next batch arrives at this node, or the one before again.
    Produce(u8, u32),
    /// This node's log is durable up to this index.
    Flushed(u8, u64),
    /// This node's promise is durable.
    PromiseDone(u8),
    /// This node's marker is durable.
    MarkerDone(u8),
    /// This node's log is cut.
    CutDone(u8),
    /// Time passes at this node.
    Ticks(u8),
    /// A write fails.
    WriteFails(u8),
    /// This node is killed and starts again; of what was under way this is kept: log index, promise, marker, cut.
    Crash(u8, u64, [bool; 3]),
    /// This node starts again on an empty disk.
    Wipe(u8),
    /// This node starts again without its log.
    LoseLog(u8),
    /// Something happens to this shipping controller.
    Controller(u8, ControlAction),
    /// This compare-and-set whose reply was lost lands, or is too late.
    Ghost(u8),
}

/// How often clients that count send a batch again, in a whole run.
const RESENDS_MAX: u8 = 2;

/// One case, and what was computed of it.
#[derive(Debug)]
pub struct Chains {
    /// The case.
    pub case: Case,
    entries: Entries,
    nodes: Interner<Node>,
    messages: Interner<(ChainMember, Message)>,
    reports: Interner<Report>,
    decisions: Interner<Decision>,
    steps: Memo<(Id, EventKey), Step>,
    control: ControlTables,
    start: World,
    found: AtomicU32,
}

type EventKey = (u8, u64, u64);

#[derive(Debug)]
struct Step {
    node: Id,
    sends: Vec<(u8, Id)>,
    reports: Vec<(u8, Id)>,
    reconciled: Vec<u8>,
    answers: Vec<ControllerAnswer>,
    committed: Option<(Id, Option<u8>)>,
    acknowledged: Vec<u32>,
    broken: u8,
}

impl Chains {
    /// The model of a case, from its chain in epoch 1 with an open partition on.
    pub fn new(case: Case) -> Self {
        let mut model = Self {
            case,
            entries: Entries::default(),
            nodes: Interner::default(),
            messages: Interner::default(),
            reports: Interner::default(),
            decisions: Interner::default(),
            steps: Memo::default(),
            control: ControlTables::default(),
            start: World::new([NONE; NODES_MAX]),
            found: AtomicU32::new(0),
        };
        model.start = model.first_world();
        model
    }

    /// Whether this is the first time that something of this number is found: the checker would keep the last path to it,
    /// and the first is the shortest.
    pub(crate) fn is_first(&self, number: u32) -> bool {
        self.found.fetch_or(1 << number, Ordering::Relaxed) & 1 << number == 0
    }

    /// How many different states of one node there were.
    pub fn node_states(&self) -> usize {
        self.nodes.count()
    }

    fn interpreter(&self) -> Interpreter<'_> {
        Interpreter { entries: &self.entries, disk: self.case.disk, idempotent: self.case.idempotent }
    }

    /// Begins the chain of epoch 1, opens the partition, and lets everything settle.
    fn first_world(&self) -> World {
        let mut world = World::new([NONE; NODES_MAX]);
        for at in 0..self.case.nodes {
            world.nodes[at] = self.nodes.id(Node::new(at as u32));
        }
        let chain: Vec<ChainMember> = (0..self.case.chain).map(|at| self.nodes.get(world.nodes[at]).me).collect();
        let decision = Decision { epoch: Epoch(1), source: None, start: LogPoint::START, log: NO_ENTRY, chain };
        let id = self.decisions.id(decision.clone());
        world.attempts[0] = Attempt { decision: id, activated: true, ..Attempt::NEW };
        let decision = Arc::new(decision);
        let (controllers, replication) = (self.case.controllers, self.case.replication as u16);
        let control = (controllers > 0).then(|| Box::new(self.control.begin(controllers, replication, &decision)));
        for event in [Event::Seal(Epoch(1)), Event::Reconcile(Arc::clone(&decision)), Event::Activate(decision)] {
            for at in 0..self.case.chain as u8 {
                world = self.fresh(&world, at, &event);
                world = self.settle(world);
            }
        }
        world = self.fresh(&world, 0, &Event::OpenPartition);
        world = self.settle(world);
        for _ in 0..3 {
            for at in 0..self.case.chain as u8 {
                world = self.settle(self.fresh(&world, at, &Event::Ticks(self.case.ticks)));
            }
        }
        assert_eq!(world.broken, 0, "the beginning breaks a promise: {}", self.broken_promise(&world));
        assert_eq!(self.entries.index(world.ledger), LogIndex(1), "the partition is open and committed");
        world.attempts[0] = Attempt { decision: id, activated: true, ..Attempt::NEW };
        world.control = control;
        world
    }

    /// Whatever is under way ends well, in some order.
    fn settle(&self, mut world: World) -> World {
        loop {
            let mut actions = Vec::new();
            self.local_actions(&world, &mut actions);
            self.peer_actions(&world, &mut actions);
            let benign = |action: &&Action| {
                use Action::{CutDone, Deliver, Flushed, MarkerDone, PromiseDone};
                matches!(action, Deliver(..) | Flushed(..) | PromiseDone(_) | MarkerDone(_) | CutDone(_))
            };
            let Some(next) = actions.iter().filter(benign).find_map(|action| self.next_state(&world, *action)) else {
                return world;
            };
            world = next;
        }
    }

    /// A step that is not worth remembering.
    fn fresh(&self, world: &World, at: u8, event: &Event) -> World {
        let node = self.nodes.get(world.nodes[usize::from(at)]);
        let (node, effects) = self.interpreter().step(&node, event);
        let step = self.step_of(node, effects);
        let mut world = world.clone();
        self.take(&mut world, at, &step);
        world
    }

    fn node(&self, world: &World, at: u8) -> Arc<Node> {
        self.nodes.get(world.nodes[usize::from(at)])
    }

    fn step_of(&self, node: Node, effects: Effects) -> Step {
        let place = |name: &str| PROMISES.iter().position(|promise| *promise == name).map_or(0, |at| at as u8 + 1);
        let me = node.me;
        let send = |(to, message): (ChainMember, Message)| (to.node.0 as u8, self.messages.id((me, message)));
        Step {
            node: self.nodes.id(node),
            sends: effects.sends.into_iter().map(send).collect(),
            reports: effects.reports.into_iter().map(|(e, report)| (e.0 as u8, self.reports.id(report))).collect(),
            reconciled: effects.reconciled.into_iter().map(|epoch| epoch.0 as u8).collect(),
            answers: if self.case.controllers > 0 { effects.answers } else { Vec::new() },
            committed: effects.committed.map(|(log, epoch)| (log, epoch.map(|epoch| epoch.0 as u8))),
            acknowledged: effects.acknowledged,
            broken: effects.broken.map_or(0, place),
        }
    }

    fn event(&self, world: &World, action: Action) -> (u8, EventKey, Event) {
        let decision = |epoch: u8| {
            let id = world.attempt(epoch).decision;
            (u64::from(id), self.decisions.get(id))
        };
        match action {
            Action::Seal(epoch, at) => (at, (1, epoch.into(), 0), Event::Seal(Epoch(epoch.into()))),
            Action::Reconcile(epoch, at) => {
                let (id, decision) = decision(epoch);
                (at, (2, id, 0), Event::Reconcile(decision))
            }
            Action::Activate(epoch, at) => {
                let (id, decision) = decision(epoch);
                (at, (3, id, 0), Event::Activate(decision))
            }
            Action::Learn(epoch, at, place) => {
                let (id, decision) = decision(epoch);
                (at, (4, id, place.into()), Event::Learn(decision, place.into()))
            }
            Action::Produce(at, value) => (at, (5, value.into(), 0), Event::Produce(value)),
            Action::Flushed(at, index) => (at, (6, index, 0), Event::Flushed(LogIndex(index))),
            Action::PromiseDone(at) => (at, (7, 0, 0), Event::PromiseDone),
            Action::MarkerDone(at) => (at, (8, 0, 0), Event::MarkerDone),
            Action::CutDone(at) => (at, (9, 0, 0), Event::CutDone),
            Action::Ticks(at) => (at, (10, 0, 0), Event::Ticks(self.case.ticks)),
            Action::WriteFails(at) => (at, (11, 0, 0), Event::WriteFails),
            Action::Crash(at, kept, [promise, marker, cut]) => {
                let bits = u64::from(promise) | u64::from(marker) << 1 | u64::from(cut) << 2;
                (at, (12, kept, bits), Event::Crash { kept: LogIndex(kept), promise, marker, cut })
            }
            Action::Wipe(at) => (at, (13, 0, 0), Event::Wipe),
            Action::LoseLog(at) => (at, (14, 0, 0), Event::LoseLog),
            Action::Deliver(from, to) => {
                let at = world.links.iter().find(|link| (link.0, link.1) == (from, to)).map_or(NONE, |link| link.2);
                let message = self.messages.get(at);
                (to, (15, at.into(), 0), Event::Peer(message.0, Arc::new(message.1.clone())))
            }
            _ => unreachable!("of no node"),
        }
    }

    fn run(&self, world: &mut World, at: u8, key: EventKey, event: &Event) {
        let id = world.nodes[usize::from(at)];
        let step = self.steps.get((id, key), id as usize, || {
            let node = self.nodes.get(id);
            let step = || self.interpreter().step(&node, event);
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(step)) {
                Ok((node, effects)) => self.step_of(node, effects),
                Err(_) => {
                    let broken = Some("the machines' own assertions hold");
                    self.step_of((*node).clone(), Effects { broken, ..Effects::default() })
                }
            }
        });
        self.take(world, at, &step);
    }

    /// What a step leads to in the world.
    fn take(&self, world: &mut World, at: u8, step: &Step) {
        let changed = world.nodes[usize::from(at)] != step.node;
        world.nodes[usize::from(at)] = step.node;
        world.links.extend(step.sends.iter().map(|(to, message)| (at, *to, *message)));
        for (epoch, report) in &step.reports {
            let attempt = world.attempt_mut(*epoch);
            // Nobody asks for reports once it has decided (R5d).
            if attempt.decision == NONE || self.case.without == Some(Rule::OneDecision) {
                attempt.reports[usize::from(at)] = *report;
            }
        }
        if let Some(control) = &mut world.control {
            let me = self.nodes.get(step.node).me;
            step.answers.iter().for_each(|answer| self.control.member_answered(control, me, answer));
        }
        for epoch in &step.reconciled {
            let attempt = world.attempt_mut(*epoch);
            if !attempt.activated {
                attempt.done |= 1 << at;
            }
        }
        if step.broken != 0 {
            world.broken = step.broken;
        }
        if let Some((log, head)) = step.committed {
            self.committed(world, log, head);
        }
        if step.acknowledged.iter().any(|value| !self.entries.holds_batch(world.ledger, *value)) {
            world.broken = 5;
        }
        if changed {
            self.check_survivors(world);
        }
    }

    /// The ledger grows by what a head commits; everybody else may know of it afterwards.
    fn committed(&self, world: &mut World, log: Id, head: Option<u8>) {
        if self.entries.begins(log, world.ledger) {
            return;
        }
        if !self.entries.begins(world.ledger, log) {
            world.broken = 2;
            return;
        }
        let Some(epoch) = head else {
            world.broken = 3;
            return;
        };
        world.ledger = log;
        let decision = self.decisions.get(world.attempt(epoch).decision);
        for member in &decision.chain {
            let node = self.node(world, member.node.0 as u8);
            let has_its_log = node.me.store == member.store && node.marker.0 >= decision.epoch;
            if has_its_log && !self.entries.begins(log, node.durable) {
                world.broken = 4;
            }
        }
        self.check_survivors(world);
    }

    fn check_survivors(&self, world: &mut World) {
        let decision = self.decisions.get(world.attempt(world.active).decision);
        for member in &decision.chain {
            let node = self.node(world, member.node.0 as u8);
            let survives = node.me.store == member.store && node.marker.0 >= decision.epoch;
            if survives && world.broken == 0 && !self.entries.begins(world.ledger, node.durable) {
                world.broken = 1;
            }
        }
    }

    /// What of [`PROMISES`] does not hold.
    pub fn broken_promise(&self, world: &World) -> &'static str {
        world.broken.checked_sub(1).map_or("none", |at| PROMISES[usize::from(at)])
    }

    // ---- What can happen ----

    fn controller_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let case = &self.case;
        if usize::from(world.claimed) < case.epochs {
            actions.push(Action::Claim);
        }
        for epoch in 1..=world.claimed {
            let attempt = world.attempt(epoch);
            if epoch > 1 && !attempt.activated {
                self.decide_actions(world, epoch, actions);
            }
            for at in 0..case.nodes as u8 {
                let node = self.node(world, at);
                if epoch > 1 && node.hears_seal(Epoch(epoch.into())) {
                    actions.push(Action::Seal(epoch, at));
                }
                if attempt.decision == NONE {
                    continue;
                }
                let decision = self.decisions.get(attempt.decision);
                let is_named = decision.chain.contains(&node.me);
                if is_named && epoch > 1 {
                    actions.push(Action::Reconcile(epoch, at));
                }
                if is_named && (attempt.activated || case.without == Some(Rule::RecordFirst)) {
                    actions.push(Action::Activate(epoch, at));
                }
                if case.learn && attempt.activated && !is_named {
                    actions.extend((0..decision.chain.len() as u8).map(|place| Action::Learn(epoch, at, place)));
                }
            }
        }
    }

    fn live_brokers(&self, world: &World) -> Id {
        self.control.brokers((0..self.case.nodes as u8).map(|at| self.node(world, at).me))
    }

    fn shipping_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let Some(control) = &world.control else { return };
        let brokers = self.live_brokers(world);
        let budgets = (self.case.deadlines, self.case.unknowns, self.case.epochs as u64);
        for at in 0..self.case.controllers {
            let found = |action| actions.push(Action::Controller(at as u8, action));
            self.control.actions(control, at, brokers, budgets, found);
        }
        actions.extend((0..control.ghosts.len() as u8).map(Action::Ghost));
    }

    fn controller_step(&self, world: &mut World, at: u8, action: ControlAction) {
        if let ControlAction::Deliver(message) = action {
            let to = self.control.messages.get(message).0.node.0 as u8;
            if let Some(event) = self.control.event(message, self.node(world, to).me) {
                self.run(world, to, (17, message.into(), 0), &event);
            }
            return;
        }
        let brokers = self.live_brokers(world);
        let Some(mut control) = world.control.take() else { return };
        let known = control.sent.clone();
        let landed = self.control.step(&mut control, at.into(), action, brokers);
        let sources = control.sent.iter().filter(|sent| !known.contains(sent));
        let sources: Vec<_> = sources.filter_map(|(_, message)| self.control.source_of(*message)).collect();
        world.control = Some(control);
        for (epoch, source) in sources {
            let active = self.decisions.get(world.attempt(world.active_before(epoch.0 as u8)).decision);
            if !active.chain.iter().any(|member| (member.node, member.store) == (source.node, source.store)) {
                world.broken = 12;
            }
        }
        self.landed(world, landed);
    }

    /// The record changed by a compare-and-set of a shipping controller.
    fn landed(&self, world: &mut World, landed: Option<Landed>) {
        let Some(active) = landed.and_then(|landed| landed.activated) else { return };
        let epoch = active.epoch.0 as u8;
        let log = self.entries.at(active.start).unwrap_or(NO_ENTRY);
        let (start, chain) = (active.start, active.chain);
        let decision = self.decisions.id(Decision { epoch: active.epoch, source: None, start, log, chain });
        let attempt = world.attempt_mut(epoch);
        let is_second = attempt.activated && attempt.decision != decision;
        attempt.decision = decision;
        if is_second || epoch < world.active {
            world.broken = 11;
            return;
        }
        self.commit(world, epoch);
    }

    fn decide_actions(&self, world: &World, epoch: u8, actions: &mut Vec<Action>) {
        let attempt = world.attempt(epoch);
        let again = self.case.without == Some(Rule::OneDecision);
        if attempt.decision == NONE || again {
            let reports: Vec<Arc<Report>> =
                attempt.reports.iter().filter(|id| **id != NONE).map(|id| self.reports.get(*id)).collect();
            let mut sealed: Vec<&Report> = reports.iter().map(|report| &**report).collect();
            let unsealed = self.unsealed_reports(world);
            if self.case.without == Some(Rule::SealedFirst) {
                sealed = unsealed.iter().collect();
            }
            let before = world.attempt(world.active_before(epoch)).decision;
            if before == NONE {
                // Everybody ignores this attempt, and what it was about is forgotten.
                return;
            }
            let active = self.decisions.get(before);
            let found = decide::decisions(&self.case, Epoch(epoch.into()), &active, &sealed);
            actions.extend(found.into_iter().map(|decision| Action::Decide(epoch, self.decisions.id(decision))));
        }
        if attempt.decision == NONE {
            return;
        }
        let decision = self.decisions.get(attempt.decision);
        let all_replied = decision.chain.iter().all(|member| attempt.done & 1 << member.node.0 != 0);
        let is_own = world.pending == epoch;
        if (all_replied || self.case.without == Some(Rule::AllReplied))
            && (is_own || self.case.without == Some(Rule::OwnPending))
        {
            actions.push(Action::Commit(epoch));
        }
    }

    /// What everybody would say who was asked without being sealed: for the case that breaks that rule.
    fn unsealed_reports(&self, world: &World) -> Vec<Report> {
        if self.case.without != Some(Rule::SealedFirst) {
            return Vec::new();
        }
        let report = |at| {
            let node = self.node(world, at);
            let seal = minikafka_core::wire::SealReport {
                range: crate::node::RANGE.range,
                error: None,
                promised: node.promise.0,
                marker: node.marker.0,
                end: self.entries.point(node.durable),
                last_epoch: node.replica.state().last_epoch(),
                known_committed: node.committed,
                damaged: false,
            };
            Report { member: node.me, seal, log: node.durable }
        };
        (0..self.case.nodes as u8).map(report).collect()
    }

    fn peer_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let mut seen = [[false; NODES_MAX]; NODES_MAX];
        for (from, to, _) in &world.links {
            let seen = &mut seen[usize::from(*from)][usize::from(*to)];
            if !std::mem::replace(seen, true) {
                actions.push(Action::Deliver(*from, *to));
            }
        }
        if world.spent.breaks < self.case.breaks {
            for a in 0..self.case.nodes as u8 {
                actions.extend((a + 1..self.case.nodes as u8).map(|b| Action::Break(a, b)));
            }
        }
    }

    fn local_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let (case, spent) = (&self.case, &world.spent);
        for at in 0..case.nodes as u8 {
            let node = self.node(world, at);
            let (durable, end) = (self.entries.index(node.durable).0, self.entries.index(node.log).0);
            if durable < end && node.cut.is_none() {
                actions.push(Action::Flushed(at, durable + 1));
                if durable + 1 < end {
                    actions.push(Action::Flushed(at, end));
                }
            }
            actions.extend(node.promise.1.map(|_| Action::PromiseDone(at)));
            actions.extend(node.marker.1.map(|_| Action::MarkerDone(at)));
            actions.extend(node.cut.map(|_| Action::CutDone(at)));
            if node.head_epoch().is_some() {
                self.produce_actions(world, at, actions);
            }
            if spent.tick_bursts < case.tick_bursts && node.counts_time() {
                actions.push(Action::Ticks(at));
            }
            if spent.write_failures < case.write_failures {
                actions.push(Action::WriteFails(at));
            }
            if spent.crashes < case.crashes {
                crash_actions(&node, at, durable..=end, actions);
            }
            if spent.wipes < case.wipes {
                actions.push(Action::Wipe(at));
            }
            if spent.losses < case.losses {
                actions.push(Action::LoseLog(at));
            }
        }
    }

    fn produce_actions(&self, world: &World, at: u8, actions: &mut Vec<Action>) {
        let sent = u32::from(world.spent.batches);
        if sent < self.case.batches {
            actions.push(Action::Produce(at, sent));
        }
        if self.case.idempotent && world.spent.resends < RESENDS_MAX {
            actions.extend((0..sent).map(|value| Action::Produce(at, value)));
        }
    }

    /// Connections with a process that is no more are broken, and whoever was at their other end hears of it.
    fn disconnect(&self, world: &mut World, at: u8, was: ChainMember) {
        world.links.retain(|(from, to, _)| *from != at && *to != at);
        for other in (0..self.case.nodes as u8).filter(|other| *other != at) {
            self.lose_peer(world, other, was);
        }
    }

    fn lose_peer(&self, world: &mut World, at: u8, peer: ChainMember) {
        let key = (16, peer.store.0, peer.incarnation.0);
        self.run(world, at, key, &Event::PeerLost(peer));
    }

    fn commit(&self, world: &mut World, epoch: u8) {
        let decision = self.decisions.get(world.attempt(epoch).decision);
        let attempt = world.attempt_mut(epoch);
        (attempt.activated, attempt.done, attempt.reports) = (true, 0, [NONE; NODES_MAX]);
        (world.active, world.pending) = (epoch, 0);
        if !self.entries.begins(world.ledger, decision.log) {
            world.broken = 6;
            return;
        }
        world.ledger = decision.log;
        self.check_survivors(world);
    }
}

fn crash_actions(node: &Node, at: u8, kept: std::ops::RangeInclusive<u64>, actions: &mut Vec<Action>) {
    let choices = |is_under_way: bool| if is_under_way { &[false, true][..] } else { &[false][..] };
    for index in kept {
        for promise in choices(node.promise.1.is_some()) {
            for marker in choices(node.marker.1.is_some()) {
                for cut in choices(node.cut.is_some()) {
                    actions.push(Action::Crash(at, index, [*promise, *marker, *cut]));
                }
            }
        }
    }
}

/// Forgetting what can have no effect any more, so that states that differ only in that are one.
impl Chains {
    fn forget(&self, world: &mut World) {
        let mut promised = [(Epoch(0), Epoch(0)); NODES_MAX];
        for (at, promised) in promised.iter_mut().enumerate().take(self.case.nodes) {
            let node = self.node(world, at as u8);
            *promised = (node.replica.epoch(), node.promise.0);
        }
        // A message below what its receiver promised is refused; the refusal only stops a stream that leads nowhere. That
        // the machine does refuse it is checked by the cases that do not hurry.
        world.links.retain(|(_, to, message)| {
            if !self.case.quick {
                return true;
            }
            let message = &self.messages.get(*message).1;
            let is_copy = matches!(message.body, PeerBody::CopyRequest { .. } | PeerBody::CopyReply { .. });
            is_copy || message.epoch >= promised[usize::from(*to)].0
        });
        if world.spent.wipes == self.case.wipes && world.control.is_none() {
            self.forget_attempts(world, &promised[..self.case.nodes]);
        }
    }

    /// Copies, and the words that open a stream, arrive at once.
    fn hurry(&self, world: &mut World) {
        loop {
            let is_first = |at: usize| {
                let (from, to, _) = world.links[at];
                world.links[..at].iter().all(|link| (link.0, link.1) != (from, to))
            };
            let is_quick = |at: &usize| {
                use PeerBody::{CopyReply, CopyRequest, OpenStream, StreamOpened, StreamRefused};
                let body = &self.messages.get(world.links[*at].2).1.body;
                let waits = !matches!(
                    body,
                    CopyRequest { .. }
                        | CopyReply { .. }
                        | OpenStream { .. }
                        | StreamOpened { .. }
                        | StreamRefused { .. }
                );
                !waits && is_first(*at)
            };
            let Some(at) = (0..world.links.len()).find(is_quick) else { return };
            let (from, to, _) = world.links[at];
            let before = world.clone();
            self.node_step(&before, world, Action::Deliver(from, to));
            self.forget(world);
        }
    }

    /// An attempt that everybody promised to ignore, for good, can change nothing: its seals, reconciles and notices are
    /// refused, and its claim on the record is gone.
    fn forget_attempts(&self, world: &mut World, promised: &[(Epoch, Epoch)]) {
        let is_over = |epoch: u8| promised.iter().all(|(now, durable)| now.0.min(durable.0) > epoch.into());
        let over: Vec<u8> = (1..=world.claimed).filter(|epoch| is_over(*epoch)).collect();
        if self.case.without.is_some() {
            return;
        }
        let needed: Vec<u8> = (1..=world.claimed)
            .filter(|epoch| !over.contains(epoch) || [world.pending, world.active].contains(epoch))
            .map(|epoch| world.active_before(epoch))
            .collect();
        for epoch in over {
            let is_named = epoch == world.active || epoch == world.pending || needed.contains(&epoch);
            if !is_named {
                *world.attempt_mut(epoch) = Attempt { activated: world.attempt(epoch).activated, ..Attempt::NEW };
            }
        }
    }
}

impl Model for Chains {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // What comes after a broken promise says nothing new.
        if world.broken == 0 {
            if world.control.is_some() {
                self.shipping_actions(world, actions);
            } else {
                self.controller_actions(world, actions);
            }
            self.peer_actions(world, actions);
            self.local_actions(world, actions);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Claim => {
                world.claimed += 1;
                world.pending = world.claimed;
            }
            Action::Decide(epoch, decision) => {
                let attempt = world.attempt_mut(epoch);
                attempt.decision = decision;
                if self.case.without != Some(Rule::OneDecision) {
                    attempt.reports = [NONE; NODES_MAX];
                }
            }
            Action::Commit(epoch) => self.commit(&mut world, epoch),
            Action::Controller(at, action) => self.controller_step(&mut world, at, action),
            Action::Ghost(at) => {
                if let Some(mut control) = world.control.take() {
                    let landed = self.control.ghost(&mut control, at.into());
                    world.control = Some(control);
                    self.landed(&mut world, landed);
                }
            }
            Action::Break(a, b) => {
                world.spent.breaks += 1;
                world.links.retain(|(from, to, _)| (*from, *to) != (a, b) && (*from, *to) != (b, a));
                let (at_a, at_b) = (self.node(before, a).me, self.node(before, b).me);
                self.lose_peer(&mut world, a, at_b);
                self.lose_peer(&mut world, b, at_a);
            }
            other => self.node_step(before, &mut world, other),
        }
        self.forget(&mut world);
        if self.case.quick {
            self.hurry(&mut world);
        }
        if let Some(mut control) = world.control.take() {
            let promised = |node: NodeId| {
                let node = self.node(&world, node.0 as u8);
                (node.me.incarnation, node.replica.epoch())
            };
            self.control.forget(&mut control, promised);
            world.control = Some(control);
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! always {
            ($($at:literal)*) => {
                vec![$(Property::<Self>::always(PROMISES[$at], |model, world| world.broken != $at + 1 || !model.is_first($at))),*]
            };
        }
        let mut properties = always![0 1 2 3 4 5 6 7 8 9 10 11];
        properties.extend(crate::reached::properties(&self.case));
        properties
    }
}

impl Chains {
    fn node_step(&self, before: &World, world: &mut World, action: Action) {
        let (at, key, event) = self.event(before, action);
        let was = self.node(before, at).me;
        let spent = &mut world.spent;
        match action {
            Action::Deliver(from, to) => {
                if let Some(first) = world.links.iter().position(|link| (link.0, link.1) == (from, to)) {
                    world.links.remove(first);
                }
            }
            Action::Produce(_, value) if value < spent.batches.into() => spent.resends += 1,
            Action::Produce(..) => spent.batches += 1,
            Action::Ticks(_) => spent.tick_bursts += 1,
            Action::WriteFails(_) => spent.write_failures += 1,
            Action::Crash(..) => spent.crashes += 1,
            Action::Wipe(_) => spent.wipes += 1,
            Action::LoseLog(_) => spent.losses += 1,
            _ => {}
        }
        let restarts = matches!(action, Action::Crash(..) | Action::Wipe(_) | Action::LoseLog(_));
        if restarts {
            world.links.retain(|(from, to, _)| *from != at && *to != at);
        }
        self.run(world, at, key, &event);
        if restarts {
            self.disconnect(world, at, was);
        }
    }

    /// The header of the last committed entry, and the decisions of the active chain and the one before: for what must be
    /// reached.
    pub(crate) fn reached(&self, world: &World) -> Reached {
        let last = self.entries.last(world.ledger).header;
        let active = self.decisions.get(world.attempt(world.active).decision);
        let before = world.active_before(world.active);
        let has_learner = before != 0 && {
            let before = self.decisions.get(world.attempt(before).decision);
            let held = |m: &ChainMember| before.chain.iter().any(|b| (b.node, b.store) == (m.node, m.store));
            !active.chain.iter().all(held)
        };
        let is_current = |member: &ChainMember| self.node(world, member.node.0 as u8).me == *member;
        Reached {
            committed_epoch: last.map_or(0, |header| header.epoch.0 as u8),
            has_learner,
            members: active.chain.len(),
            all_current: active.chain.iter().all(is_current),
        }
    }
}

/// What a state shows that the model does something.
pub(crate) struct Reached {
    pub committed_epoch: u8,
    pub has_learner: bool,
    pub members: usize,
    pub all_current: bool,
}
