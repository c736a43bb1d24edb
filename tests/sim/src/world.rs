//! The world: everything there is, and what one step of it does.
//!
//! A step is one event: a message that arrives, a timer of a node (mostly a disk operation that completed), a turn of a
//! client, an operation of the coordinator, a fault. After it, whatever node was touched is looked at
//! ([`crate::invariants`]), what it says is put on its way, and its next timer is put into the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use minikafka_checker::History;
use minikafka_core::chain::ChainMember;
use minikafka_core::chain::controller::{Answer, Destination, Input, Message};
use minikafka_core::coordination::BrokerRecord;
use minikafka_core::*;
use minikafka_storage::disk::sim::SimRandom;

use crate::client::consumer::Consumer;
use crate::client::producer::Producer;
use crate::client::{ClusterMap, Topics};
use crate::controller::{Controller, CoordinatorOperation};
use crate::coordinator::Coordinator;
use crate::faults::FaultKind;
use crate::groups::{Group, GroupEvent};
use crate::invariants::{Checked, Truth, Violation};
use crate::network::{Arrival, Network, Packet, place};
use crate::node::{CallId, Caller, Node, Outgoing, Reply, Request};
use crate::plan::Plan;
use crate::queue::{MS, Queue, SECOND, Time};
use crate::run::RunOptions;
use crate::trace::Trace;

/// Events that wait at once, in a world that does not run away.
const EVENTS_MAX: usize = 100_000;

/// What can happen.
pub enum Event {
    /// A timer of a life is due.
    NodeTimer { node: usize, life: u32 },
    /// [`limits::TICK_MS`] passed on a node.
    NodeTick { node: usize, life: u32 },
    /// A process starts.
    NodeStart { node: usize },
    /// A process is killed.
    NodeStop { node: usize },
    /// A message between members arrives.
    Peer(Box<Packet>),
    /// A life learns that a connection is gone.
    PeerLost { node: usize, life: u32, member: ChainMember },
    /// A request arrives at a node.
    Ask { node: usize, from: usize, caller: Box<Caller>, request: Box<Request> },
    /// A reply arrives.
    Replied { caller: Box<Caller>, node: usize, reply: Box<Reply> },
    /// A controller is told something.
    ToController { controller: u64, input: Box<Input> },
    /// A controller's deadline.
    ControllerTick { controller: u64, at: Time },
    /// Something arrives at the coordinator, or a controller looks at it.
    Coordinate { controller: u64, operation: Box<CoordinatorOperation> },
    /// A broker registers.
    Register { node: usize, life: u32 },
    /// A session ends.
    Expire { node: usize, session: u64 },
    /// The driver of topics looks what is to do.
    TopicTurn,
    /// A producer does something.
    ProducerTurn { producer: usize },
    /// A consumer does something.
    ConsumerTurn { consumer: usize },
    /// A client has the map.
    ProducerMap { producer: usize, map: Rc<ClusterMap> },
    /// A client has the map.
    ConsumerMap { consumer: usize, map: Rc<ClusterMap> },
    /// Something goes wrong.
    Fault,
    /// A cut of the network ends.
    NetworkFree { cut: Vec<(usize, usize)> },
    /// A full disk has room again.
    DiskRoom { node: usize },
    /// A controller that was replaced ends.
    ControllerEnd { controller: u64 },
    /// Something about the consumer group.
    Group(GroupEvent),
}

/// Everything there is.
pub struct World {
    /// As the seed decided.
    pub plan: Plan,
    /// Decides everything else.
    pub random: SimRandom,
    /// What happens next.
    pub queue: Queue<Event>,
    /// What happened.
    pub trace: Trace,
    /// What clients did and saw.
    pub history: History,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// What is true.
    pub truth: Truth,
    /// The nodes; the one with id n at n - 1.
    pub nodes: Vec<Node>,
    /// What is between them.
    pub network: Network,
    /// The coordinator.
    pub coordinator: Coordinator,
    /// The map that clients can get now.
    pub map: Rc<ClusterMap>,
    /// Controllers, by the number of their session.
    pub controllers: BTreeMap<u64, Controller>,
    /// Who opens partitions.
    pub topics: Topics,
    /// The producers.
    pub producers: Vec<Producer>,
    /// The consumers.
    pub consumers: Vec<Consumer>,
    /// The consumer group, where there is one.
    pub group: Option<Group>,
    /// Where the operator wants each range, if anywhere.
    pub wishes: BTreeMap<RangeId, Vec<NodeId>>,
    /// Healing takes from a range the last that it had: it need not come back.
    pub is_beyond_promise: bool,
    /// Nodes that shall get no ranges, as the operator says.
    pub draining: BTreeSet<NodeId>,
    /// Faults so far.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Phase two: nothing goes wrong any more, and nothing new is sent.
    pub is_healing: bool,
    /// Events so far.
    pub steps: u64,
    calls: u64,
}

impl World {
    /// A world of `seed`, at its beginning.
    pub fn new(seed: u64, options: &RunOptions) -> Self {
        // Seeds that lie side by side shall not give streams that do.
        let mut random = SimRandom::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5eed);
        let mut plan = Plan::draw(&mut random);
        if let Some(only) = options.only {
            plan.insist_on(only);
        }
        let shards = plan.shards;
        let nodes: Vec<Node> =
            (1..=plan.nodes as u32).map(|node| Node::new(NodeId(node), shards, &mut random)).collect();
        let partitions = (plan.ranges * plan.partitions) as usize;
        let coordinator = Coordinator::new(&plan);
        let map = Rc::new(ClusterMap::of(&coordinator.chunk));
        let mut world = Self {
            random,
            queue: Queue::new(),
            trace: Trace::new(options.is_verbose),
            history: History::default(),
            acknowledged: 0,
            truth: Truth::new(plan.ranges, partitions, options.is_data_only),
            network: Network::new(nodes.len(), usize::from(shards)),
            nodes,
            coordinator,
            map,
            controllers: BTreeMap::new(),
            topics: Topics::new(&plan),
            producers: Vec::new(),
            consumers: Vec::new(),
            group: Group::of(seed, &plan),
            wishes: BTreeMap::new(),
            is_beyond_promise: false,
            draining: BTreeSet::new(),
            faults: BTreeMap::new(),
            is_healing: false,
            steps: 0,
            calls: 0,
            plan,
        };
        world.begin(seed);
        world
    }

    fn begin(&mut self, seed: u64) {
        for node in 0..self.nodes.len() {
            self.queue.add(0, Event::NodeStart { node });
        }
        self.restart_controller(0);
        for producer in 0..self.plan.producers {
            self.producers.push(Producer::new(producer, seed, &self.plan, self.map.clone()));
            self.queue.add(10 * MS, Event::ProducerTurn { producer });
        }
        for consumer in 0..self.plan.consumers {
            self.consumers.push(Consumer::roaming(consumer, &self.plan, self.map.clone(), &mut self.history));
            self.queue.add(10 * MS, Event::ConsumerTurn { consumer });
        }
        self.queue.add(5 * MS, Event::TopicTurn);
        let first = 200 * MS + Plan::around(&mut self.random, self.plan.fault_us);
        self.queue.add(first, Event::Fault);
        self.begin_group();
    }

    /// The key of a range.
    pub fn range_key(&self, range: RangeId) -> RangeKey {
        RangeKey { ring: self.coordinator.chunk.ring, range }
    }

    /// Notes something in the trace.
    pub fn note(&mut self, what: &'static str, words: [u64; 4]) {
        self.trace.note(self.queue.now(), what, words);
    }

    /// Does the next thing.
    pub fn step(&mut self) -> Checked {
        if self.queue.len() > EVENTS_MAX {
            return Err(Violation::liveness(format!("{EVENTS_MAX} events wait: messages breed messages")));
        }
        let event = self.queue.take().expect("somebody always has a turn or a tick to come");
        self.steps += 1;
        match event {
            Event::NodeTimer { node, life } => self.node_timer(node, life),
            Event::NodeTick { node, life } => self.node_tick(node, life),
            Event::NodeStart { node } => self.start_node(node),
            Event::NodeStop { node } => {
                if !self.is_healing {
                    self.stop_node(node, false, true);
                }
                Ok(())
            }
            Event::Peer(packet) => self.peer(packet),
            Event::PeerLost { node, life, member } => self.peer_lost(node, life, member),
            Event::Ask { node, from, caller, request } => self.asked(node, from, caller, request),
            Event::Replied { caller, node, reply } => self.replied(*caller, node, *reply),
            Event::ToController { controller, input } => self.tell_controller(controller, *input),
            Event::ControllerTick { controller, at } => self.controller_tick(controller, at),
            Event::Coordinate { controller, operation } => self.coordinate(controller, *operation),
            Event::Register { node, life } => self.register(node, life),
            Event::Expire { node, session } => self.expire(node, session),
            Event::TopicTurn => self.topic_turn(),
            Event::ProducerTurn { producer } => self.producer_turn(producer),
            Event::ConsumerTurn { consumer } => self.consumer_turn(consumer),
            Event::ProducerMap { producer, map } => self.producer_map(producer, map),
            Event::ConsumerMap { consumer, map } => self.consumer_map(consumer, map),
            Event::Fault => {
                self.fault();
                Ok(())
            }
            Event::NetworkFree { cut } => {
                cut.into_iter().for_each(|(from, to)| self.network.block(from, to, false));
                self.free_network();
                Ok(())
            }
            Event::DiskRoom { node } => {
                if let Some(life) = &self.nodes[node].life {
                    life.disk.set_capacity(u64::MAX);
                }
                self.nodes[node].disk.set_capacity(u64::MAX);
                Ok(())
            }
            Event::ControllerEnd { controller } => {
                self.controllers.remove(&controller);
                Ok(())
            }
            Event::Group(event) => self.group_event(event),
        }
    }

    /// A number that no request had.
    pub fn next_call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    // ---- Nodes ----

    fn start_node(&mut self, node: usize) -> Checked {
        if self.nodes[node].life.is_some() || (self.nodes[node].stays_down && !self.is_healing) {
            return Ok(());
        }
        let now = self.queue.now();
        self.nodes[node].start(now, &self.plan, &mut self.random);
        let life = self.nodes[node].lives;
        self.note("start", [node as u64 + 1, life.into(), 0, 0]);
        self.queue.add(now + self.random.below(limits::TICK_MS * MS), Event::NodeTick { node, life });
        self.touch(node)
    }

    /// Ends a process, if one runs; `returns`: another one starts later.
    pub fn stop_node(&mut self, node: usize, power: bool, returns: bool) -> bool {
        let Some(life) = &self.nodes[node].life else { return false };
        let (now, me) = (self.queue.now(), self.identity(node));
        self.note(if power { "power loss" } else { "kill" }, [node as u64 + 1, life.number.into(), 0, 0]);
        let waiting = self.nodes[node].end(power, &mut self.random);
        for caller in waiting {
            let at = now + self.plan.delay(&mut self.random);
            self.queue.add(at, Event::Replied { caller: Box::new(caller), node, reply: Box::new(Reply::Lost) });
        }
        for other in 0..self.nodes.len() {
            if other != node {
                let drains = self.random.one_in(2);
                self.network.break_between(node, other, drains);
                // Without power nobody says goodbye.
                let scale = if power && self.random.one_in(2) { 3 * SECOND } else { 3 * MS };
                self.tell_lost(other, me.clone(), scale);
            }
        }
        if let Some((_, session)) = self.coordinator.brokers.get(&self.nodes[node].id).cloned() {
            let at = now + Plan::around(&mut self.random, 300 * MS);
            self.queue.add(at, Event::Expire { node, session });
        }
        if returns {
            let at = now + Plan::around(&mut self.random, self.plan.restart_us);
            self.queue.add(at, Event::NodeStart { node });
        }
        true
    }

    /// The members that a node's life is, as every shard.
    fn identity(&self, node: usize) -> Vec<ChainMember> {
        let Node { id, shards, store, life, .. } = &self.nodes[node];
        let Some(life) = life else { return Vec::new() };
        let member =
            |shard| ChainMember { node: *id, shard: ShardId(shard), store: *store, incarnation: life.incarnation };
        (0..*shards).map(member).collect()
    }

    /// Tells a life, within some time, that it lost others.
    fn tell_lost(&mut self, node: usize, members: Vec<ChainMember>, scale: Time) {
        let Some(life) = &self.nodes[node].life else { return };
        let life = life.number;
        for member in members {
            let at = self.queue.now() + 1 + self.random.below(scale);
            self.queue.add(at, Event::PeerLost { node, life, member });
        }
    }

    /// Breaks what is between two nodes; both will know.
    pub fn break_connection(&mut self, one: usize, other: usize) {
        let drains = self.random.one_in(2);
        self.network.break_between(one, other, drains);
        for (node, peer) in [(one, other), (other, one)] {
            let scale = if self.random.one_in(4) { SECOND } else { 5 * MS };
            let lost = self.identity(peer);
            self.tell_lost(node, lost, scale);
        }
        self.note("connection breaks", [one as u64 + 1, other as u64 + 1, drains.into(), 0]);
    }

    /// A second connection between two nodes while the first still delivers; each end may learn that the first is gone.
    pub fn connect_again(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            if self.random.one_in(3) {
                continue;
            }
            let until = self.queue.now() + Plan::around(&mut self.random, 20 * MS);
            self.network.connect_again(from, to, until);
            if self.random.one_in(2) {
                let lost = self.identity(to);
                self.tell_lost(from, lost, 50 * MS);
            }
        }
        self.note("second connection", [one as u64 + 1, other as u64 + 1, 0, 0]);
    }

    /// What was held back by a cut goes on, or its connection breaks.
    pub fn free_network(&mut self) {
        let breaks = self.random.one_in(2);
        for packet in self.network.released() {
            if breaks {
                let (from, to) = (place(&packet.from), place(&packet.to));
                self.network.break_between(from, to, false);
                let (lost_to, lost_from) = (self.identity(to), self.identity(from));
                self.tell_lost(from, lost_to, 5 * MS);
                self.tell_lost(to, lost_from, 5 * MS);
            } else {
                self.queue.add(self.queue.now() + 1, Event::Peer(Box::new(packet)));
            }
        }
    }

    /// Whether a life is this one and not paused; a paused one gets the event later.
    fn is_awake(&mut self, node: usize, life: u32, again: impl FnOnce() -> Event) -> bool {
        if self.nodes[node].life.as_ref().is_none_or(|now| now.number != life) {
            return false;
        }
        let until = self.nodes[node].paused_until;
        if until > self.queue.now() {
            self.steps -= 1;
            self.queue.add(until, again());
            return false;
        }
        true
    }

    fn node_timer(&mut self, node: usize, life: u32) -> Checked {
        if !self.is_awake(node, life, || Event::NodeTimer { node, life }) {
            return Ok(());
        }
        let now = self.queue.now();
        let stalled_until = self.nodes[node].disk_stalled_until;
        if stalled_until > now {
            self.steps -= 1;
            self.queue.add(stalled_until, Event::NodeTimer { node, life });
            return Ok(());
        }
        let skew = self.nodes[node].wall_skew_ms;
        let alive = self.nodes[node].life.as_mut().expect("it was looked at just now");
        alive.timer_at = Time::MAX;
        if alive.executor.next_timer().is_none_or(|due| due.as_micros() as Time > now) {
            self.steps -= 1;
            return self.touch(node);
        }
        alive.advance(now, skew);
        alive.executor.fire_timer();
        self.touch(node)
    }

    fn node_tick(&mut self, node: usize, life: u32) -> Checked {
        if !self.is_awake(node, life, || Event::NodeTick { node, life }) {
            return Ok(());
        }
        let now = self.queue.now();
        self.queue.add(now + limits::TICK_MS * MS, Event::NodeTick { node, life });
        let alive = self.nodes[node].awake(now);
        alive.shards().iter().for_each(|shard| shard.tick());
        self.touch(node)
    }

    fn peer(&mut self, packet: Box<Packet>) -> Checked {
        let node = place(&packet.to);
        let Some(life) = self.nodes[node].life.as_ref().map(|life| life.number) else { return Ok(()) };
        let until = self.nodes[node].paused_until;
        if until > self.queue.now() {
            self.steps -= 1;
            self.queue.add(until, Event::Peer(packet));
            return Ok(());
        }
        let packet = match self.network.arrive(self.queue.now(), *packet) {
            Arrival::Deliver(packet) => packet,
            Arrival::Later(until, packet) => {
                self.steps -= 1;
                self.queue.add(until, Event::Peer(Box::new(packet)));
                return Ok(());
            }
            Arrival::Nothing => return Ok(()),
        };
        if !self.nodes[node].is_at(packet.to.incarnation) {
            return Ok(());
        }
        let (from, kind) = (packet.from.node.0, crate::trace::kind_of(&packet.message));
        self.note(kind, [node as u64 + 1, from.into(), packet.message.epoch.0, life.into()]);
        let now = self.queue.now();
        let alive = self.nodes[node].awake(now);
        if let Some(shard) = alive.shard(packet.to.shard) {
            shard.receive(packet.message);
        }
        self.touch(node)
    }

    fn peer_lost(&mut self, node: usize, life: u32, member: ChainMember) -> Checked {
        if !self.is_awake(node, life, || Event::PeerLost { node, life, member }) {
            return Ok(());
        }
        self.note("peer lost", [node as u64 + 1, member.node.0.into(), 0, 0]);
        let now = self.queue.now();
        let alive = self.nodes[node].awake(now);
        alive.shards().iter().for_each(|shard| shard.peer_lost(member));
        self.touch(node)
    }

    /// After a life was touched: its ready tasks run, it is looked at, what it said goes on its way.
    pub fn touch(&mut self, node: usize) -> Checked {
        loop {
            let Some(alive) = &self.nodes[node].life else { return Ok(()) };
            alive.executor.run_ready();
            self.look(node)?;
            let Some(alive) = &self.nodes[node].life else { return Ok(()) };
            let said = alive.take_outbox();
            if said.is_empty() {
                break;
            }
            for outgoing in said {
                self.said(node, outgoing)?;
            }
        }
        let now = self.queue.now();
        let Some(alive) = &mut self.nodes[node].life else { return Ok(()) };
        if let Some(due) = alive.executor.next_timer() {
            let due = (due.as_micros() as Time).max(now);
            if due < alive.timer_at {
                alive.timer_at = due;
                let life = alive.number;
                self.queue.add(due, Event::NodeTimer { node, life });
            }
        }
        Ok(())
    }

    /// Holds every range of a node against what is true.
    fn look(&mut self, node: usize) -> Checked {
        let Node { id, store, has_rot, life: Some(alive), .. } = &mut self.nodes[node] else { return Ok(()) };
        let now = self.queue.now();
        for shard in alive.shards() {
            let me = ChainMember { node: *id, store: *store, ..shard.me() };
            for range in shard.ranges() {
                let key = range.key().range;
                let log = alive.members.entry(key).or_default();
                if range.with_member(|member| self.truth.member((&me, key), !*has_rot, log, member))? {
                    if let Some(group) = &mut self.group {
                        range.with_member(|member| group.look(key, member));
                    }
                    let view = log.view.expect("it was just looked at");
                    let words = [
                        id.0.into(),
                        key.0.into(),
                        view.known_committed.index.0,
                        view.end.index.0 << 32 | view.durable.0,
                    ];
                    self.trace.note(now, if view.acts_in.is_some() { "  acts" } else { "  member" }, words);
                }
            }
        }
        self.follow_group()
    }

    fn said(&mut self, node: usize, outgoing: Outgoing) -> Checked {
        let now = self.queue.now();
        match outgoing {
            Outgoing::Started => {
                let life = self.nodes[node].lives;
                let at = now + self.plan.delay(&mut self.random);
                self.queue.add(at, Event::Register { node, life });
            }
            Outgoing::StartFailed => {
                self.stop_node(node, false, true);
            }
            Outgoing::Peer(shard, to, message) => self.send_to_peer(node, shard, to, message),
            Outgoing::Complain(complaint) => self.complain(node, complaint),
            Outgoing::Replied(call, reply) => {
                let caller = self.nodes[node].life.as_mut().and_then(|life| life.calls.remove(&call));
                let Some(caller) = caller else { return Ok(()) };
                self.check_told(node, &caller, &reply)?;
                let mut at = now + self.plan.delay(&mut self.random);
                let mut reply = reply;
                if self.loses(node, &caller) {
                    (at, reply) = (now + SECOND, Reply::Lost);
                }
                self.queue.add(at, Event::Replied { caller: Box::new(caller), node, reply: Box::new(reply) });
            }
        }
        Ok(())
    }

    fn send_to_peer(
        &mut self,
        node: usize,
        shard: ShardId,
        to: ChainMember,
        message: minikafka_core::chain::peer::PeerMessage<minikafka_storage::SharedSlice>,
    ) {
        let now = self.queue.now();
        let Some(alive) = &self.nodes[node].life else { return };
        let life = alive.number;
        let (id, store, incarnation) = (self.nodes[node].id, self.nodes[node].store, alive.incarnation);
        let from = ChainMember { node: id, shard, store, incarnation };
        let delay = self.plan.delay(&mut self.random);
        if !self.nodes[place(&to)].is_at(to.incarnation) {
            self.queue.add(now + delay, Event::PeerLost { node, life, member: to });
            return;
        }
        let (at, connection) = self.network.send(now, delay, from, to);
        self.queue.add(at, Event::Peer(Box::new(Packet { connection, from, to, message })));
    }

    /// What a node tells a controller binds its disk.
    fn check_told(&mut self, node: usize, caller: &Caller, reply: &Reply) -> Checked {
        if let Caller::Group(_, asked) = caller {
            return self.check_group_told(node, *asked, reply);
        }
        let (Caller::Controller(_, _, asked), Reply::Control(answer)) = (caller, reply) else { return Ok(()) };
        let Some(me) = self.identity(node).first().copied().filter(|_| !self.nodes[node].has_rot) else {
            return Ok(());
        };
        match (&**asked, answer) {
            (_, Answer::Seal(reply)) => {
                let chunk = &self.coordinator.chunk;
                reply.ranges.iter().try_for_each(|report| self.truth.sealed(&me, chunk, report))
            }
            (Message::Reconcile(asked), Answer::Ranges(reply)) => {
                for (range, outcome) in asked.ranges.iter().zip(&reply.ranges) {
                    if outcome.error.is_none() {
                        self.truth.reconciled(me.store, range.range, range.epoch);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn loses(&mut self, node: usize, caller: &Caller) -> bool {
        let to = match caller {
            Caller::Controller(..) | Caller::Topics(..) => self.network.controllers(),
            Caller::Producer(..) | Caller::Consumer(..) | Caller::Group(..) => self.network.clients(),
        };
        self.network.is_blocked(node, to) || Plan::once_in(&mut self.random, self.plan.lost_one_in)
    }

    /// Sends a request to a node.
    pub fn send_request(&mut self, at: Time, node: usize, caller: Caller, request: Request) {
        let from = match &caller {
            Caller::Controller(..) | Caller::Topics(..) => self.network.controllers(),
            Caller::Producer(..) | Caller::Consumer(..) | Caller::Group(..) => self.network.clients(),
        };
        self.queue.add(at, Event::Ask { node, from, caller: Box::new(caller), request: Box::new(request) });
    }

    fn asked(&mut self, node: usize, from: usize, caller: Box<Caller>, request: Box<Request>) -> Checked {
        let now = self.queue.now();
        let until = self.nodes[node].paused_until;
        if self.nodes[node].life.is_some() && until > now {
            self.steps -= 1;
            self.queue.add(until, Event::Ask { node, from, caller, request });
            return Ok(());
        }
        let lost = self.network.is_blocked(from, node) || Plan::once_in(&mut self.random, self.plan.lost_one_in);
        if self.nodes[node].life.is_none() || lost {
            let after = if lost { SECOND } else { MS };
            self.queue.add(now + after, Event::Replied { caller, node, reply: Box::new(Reply::Lost) });
            return Ok(());
        }
        let call = self.next_call();
        self.note("asked", [node as u64 + 1, from as u64 + 1, call.0, 0]);
        let alive = self.nodes[node].awake(now);
        alive.ask(call, *caller, *request);
        self.touch(node)
    }

    fn replied(&mut self, caller: Caller, node: usize, reply: Reply) -> Checked {
        match (caller, reply) {
            (Caller::Controller(controller, shard, message), reply) => {
                let to = Destination { node: self.nodes[node].id, shard };
                let answer = match reply {
                    Reply::Control(answer) => answer,
                    _ => Answer::Lost,
                };
                self.trace.say(&format_args!("{to:?} answers {answer:?}"));
                self.tell_controller(controller, Input::Answered { to, message: *message, answer })
            }
            (Caller::Topics(range), reply) => self.topic_reply(range, reply),
            (Caller::Producer(producer, stream, sequence, attempt), reply) => {
                self.producer_reply(producer, stream, sequence, attempt, reply)
            }
            (Caller::Consumer(consumer, request), reply) => self.consumer_reply(consumer, request, node, reply),
            (Caller::Group(process, asked), reply) => self.group_reply(process, asked, reply),
        }
    }

    // ---- Brokers at the coordinator ----

    fn register(&mut self, node: usize, life: u32) -> Checked {
        let now = self.queue.now();
        if self.nodes[node].life.as_ref().is_none_or(|alive| alive.number != life) {
            return Ok(());
        }
        if self.coordinator.away_until > now {
            let at = self.coordinator.away_until + self.plan.delay(&mut self.random);
            self.queue.add(at, Event::Register { node, life });
            return Ok(());
        }
        let Node { id, shards, store, life: Some(alive), .. } = &self.nodes[node] else { return Ok(()) };
        let record = BrokerRecord {
            node: *id,
            shards: (0..*shards).map(|shard| format!("node-{id}:{shard}")).collect(),
            rack: self.plan.rack(*id),
            incarnation: alive.incarnation,
            store: *store,
            version: String::new(),
        };
        let session = self.coordinator.register(record);
        self.note("register", [node as u64 + 1, life.into(), session, 0]);
        self.brokers_changed();
        Ok(())
    }

    fn expire(&mut self, node: usize, session: u64) -> Checked {
        if self.coordinator.expire(self.nodes[node].id, session) {
            self.note("session ends", [node as u64 + 1, session, 0, 0]);
            self.brokers_changed();
        }
        Ok(())
    }

    /// A broker's session ends while it runs; it registers again.
    pub fn expire_session(&mut self, node: usize) -> bool {
        let Some((_, session)) = self.coordinator.brokers.get(&self.nodes[node].id) else { return false };
        let (now, session, life) = (self.queue.now(), *session, self.nodes[node].lives);
        self.queue.add(now, Event::Expire { node, session });
        let at = now + Plan::around(&mut self.random, 100 * MS);
        self.queue.add(at, Event::Register { node, life });
        true
    }

    // ---- Looking ----

    /// Whether a member acts in an epoch, in the very process that the chain names.
    pub fn acts(&self, member: &ChainMember, epoch: Epoch) -> bool {
        let node = &self.nodes[place(member)];
        let Some(alive) = node.life.as_ref().filter(|life| life.incarnation == member.incarnation) else {
            return false;
        };
        alive.shard(member.shard).is_some_and(|shard| {
            shard.ranges().iter().any(|range| range.with_member(|member| member.view().acts_in == Some(epoch)))
        })
    }
}
