//! The controllers: sessions that run `core`'s machine, as the elected gateway does, over a lossy world.
//!
//! Two may run at once. A compare-and-set whose reply is lost is told as unknown, and may be done before that, long
//! afterwards, or never. Watches fire once, late, and show the state as it is by then.

use std::collections::BTreeMap;

use minikafka_core::chain::controller::{Answer, CasOutcome, ChunkController, Destination, Input, Message, Output};
use minikafka_core::chain::planted::{PlantedBug, is_planted};
use minikafka_core::coordination::{BrokerRecord, KeyVersion, RingChunk};
use minikafka_core::*;

use crate::client::ClusterMap;
use crate::invariants::Checked;
use crate::node::{Caller, Request};
use crate::plan::Plan;
use crate::queue::{MS, SECOND, Time};
use crate::world::{Event, World};

/// A controller session.
pub struct Controller {
    machine: ChunkController,
    /// When its deadline is in the queue.
    tick_at: Time,
    /// A look at the brokers is on its way.
    looks_at_brokers: bool,
    /// A look at the record is on its way.
    looks_at_record: bool,
    /// The brokers that it knows.
    brokers: BTreeMap<NodeId, BrokerRecord>,
}

/// What arrives at the coordinator.
pub enum CoordinatorOperation {
    /// Reads the record because the machine asked for it.
    Read,
    /// A watch fired: looks at the record.
    LookAtRecord,
    /// A watch fired: looks at the brokers.
    LookAtBrokers,
    /// Replaces the record; `told`: the reply is lost, and the machine was told so.
    Replace { chunk: RingChunk, version: KeyVersion, told: bool },
}

impl World {
    /// Another controller session; the ones that run end after `both`.
    pub fn restart_controller(&mut self, both: Time) {
        let now = self.queue.now();
        let running: Vec<u64> = self.controllers.keys().copied().collect();
        for controller in running {
            if both == 0 {
                self.controllers.remove(&controller);
            } else {
                self.queue.add(now + both, Event::ControllerEnd { controller });
            }
        }
        let id = self.next_call().0;
        let machine = ChunkController::new(WriterId(id), self.plan.controller);
        let session = Controller {
            machine,
            tick_at: Time::MAX,
            looks_at_brokers: true,
            looks_at_record: true,
            brokers: BTreeMap::new(),
        };
        self.controllers.insert(id, session);
        self.note("controller", [id, 0, 0, 0]);
        if !self.is_healing && self.random.one_in(2) {
            // Whoever wished may notice that nobody knows of it any more.
            let wishes: Vec<_> = self.wishes.iter().map(|(range, nodes)| (*range, nodes.clone())).collect();
            wishes.into_iter().for_each(|(range, nodes)| self.tell_wish(range, Some(nodes)));
            if !self.draining.is_empty() {
                self.tell_draining();
            }
        }
        let at = now + self.plan.delay(&mut self.random);
        self.queue.add(at, operation(id, CoordinatorOperation::LookAtBrokers));
        self.queue.add(at, operation(id, CoordinatorOperation::LookAtRecord));
    }

    /// What the controllers wait for, in words.
    pub fn alerts(&self) -> Vec<String> {
        let alerts = self.controllers.values().flat_map(|session| session.machine.alerts());
        alerts.map(|alert| format!("ranges {:?}: {}", alert.ranges, alert.reason)).collect()
    }

    /// Gives a controller an input and carries out what it wants.
    pub fn tell_controller(&mut self, id: u64, input: Input) -> Checked {
        let now = self.queue.now();
        let Some(session) = self.controllers.get_mut(&id) else { return Ok(()) };
        let outputs = session.machine.step(now / MS, input);
        let due = session.machine.next_deadline_ms().map(|due| (due * MS).max(now + MS));
        if let Some(due) = due.filter(|due| *due < session.tick_at) {
            session.tick_at = due;
            self.queue.add(due, Event::ControllerTick { controller: id, at: due });
        }
        for output in outputs {
            match output {
                Output::ReadChunk => {
                    let at = now + self.plan.delay(&mut self.random);
                    self.queue.add(at, operation(id, CoordinatorOperation::Read));
                }
                Output::Cas { chunk, version } => self.compare_and_set(id, chunk, version),
                Output::Send { to, message } => {
                    if let Message::Reconcile(request) = &message {
                        request.ranges.iter().try_for_each(|decision| self.truth.decided(decision))?;
                    }
                    self.send_to_shard(id, to, message);
                }
                Output::Alert(alert) => {
                    let range = alert.ranges.first().map_or(0, |range| range.0.into());
                    self.note("alert", [id, range, alert.ranges.len() as u64, 0]);
                    self.trace.say(&alert.reason);
                }
            }
        }
        Ok(())
    }

    /// A deadline of a controller; one that another input has moved is nothing.
    pub fn controller_tick(&mut self, id: u64, at: Time) -> Checked {
        match self.controllers.get_mut(&id) {
            Some(session) if session.tick_at == at => session.tick_at = Time::MAX,
            _ => {
                self.steps -= 1;
                return Ok(());
            }
        }
        self.tell_controller(id, Input::Tick)
    }

    fn compare_and_set(&mut self, id: u64, chunk: RingChunk, version: KeyVersion) {
        let now = self.queue.now();
        let told = Plan::once_in(&mut self.random, self.plan.unknown_one_in);
        let mut at = now + self.plan.delay(&mut self.random);
        if told {
            let input = Box::new(Input::CasDone(CasOutcome::Unknown));
            let unknown_at = now + 1 + self.random.below(200 * MS);
            self.queue.add(unknown_at, Event::ToController { controller: id, input });
            match self.random.below(4) {
                0 => return,
                1 => at = now + self.random.below(2 * SECOND),
                _ => {}
            }
        }
        self.queue.add(at, operation(id, CoordinatorOperation::Replace { chunk, version, told }));
    }

    fn send_to_shard(&mut self, id: u64, to: Destination, message: Message) {
        let now = self.queue.now();
        let knows = self.controllers.get(&id).is_some_and(|session| session.brokers.contains_key(&to.node));
        let at = now + self.plan.delay(&mut self.random);
        if !knows {
            let input = Box::new(Input::Answered { to, message, answer: Answer::Lost });
            return self.queue.add(at, Event::ToController { controller: id, input });
        }
        let node = to.node.0 as usize - 1;
        let kind = match &message {
            Message::Seal(_) => "send seal",
            Message::Reconcile(_) => "send reconcile",
            Message::Activate(_) => "send activate",
            Message::Learn(_) => "send learn",
        };
        self.note(kind, [id, node as u64 + 1, 0, 0]);
        let caller = Caller::Controller(id, to.shard, Box::new(message.clone()));
        let request = Request::Control(to.shard, message);
        if Plan::once_in(&mut self.random, self.plan.twice_one_in) {
            let late = if self.random.one_in(2) { 100 * MS } else { 3 * SECOND };
            let again = now + 1 + self.random.below(late);
            self.send_request(again, node, caller.clone(), request.clone());
        }
        self.send_request(at, node, caller, request);
    }

    /// Something arrives at the coordinator.
    pub fn coordinate(&mut self, id: u64, asked: CoordinatorOperation) -> Checked {
        let now = self.queue.now();
        let away = self.coordinator.away_until;
        if away > now {
            match asked {
                CoordinatorOperation::Replace { told: true, .. } => {}
                CoordinatorOperation::Replace { .. } => {
                    let input = Box::new(Input::CasDone(CasOutcome::Conflict));
                    self.queue.add(now + MS, Event::ToController { controller: id, input });
                }
                other => self.queue.add(away + 1 + self.random.below(20 * MS), operation(id, other)),
            }
            return Ok(());
        }
        match asked {
            CoordinatorOperation::Read => self.show_record(id),
            CoordinatorOperation::LookAtRecord => {
                if let Some(session) = self.controllers.get_mut(&id) {
                    session.looks_at_record = false;
                }
                self.show_record(id)
            }
            CoordinatorOperation::LookAtBrokers => self.show_brokers(id),
            CoordinatorOperation::Replace { chunk, version, told } => self.replace(id, chunk, version, told),
        }
    }

    fn show_record(&mut self, id: u64) -> Checked {
        let (chunk, version) = (self.coordinator.chunk.clone(), self.coordinator.version);
        let at = self.queue.now() + self.plan.delay(&mut self.random);
        let input = Box::new(Input::ChunkRead { chunk, version });
        self.queue.add(at, Event::ToController { controller: id, input });
        Ok(())
    }

    fn show_brokers(&mut self, id: u64) -> Checked {
        let live = self.coordinator.live();
        let Some(session) = self.controllers.get_mut(&id) else { return Ok(()) };
        session.looks_at_brokers = false;
        session.brokers = live.into_iter().map(|record| (record.node, record)).collect();
        let brokers = session.brokers.values().cloned().collect();
        self.tell_controller(id, Input::Brokers(brokers))
    }

    fn replace(&mut self, id: u64, chunk: RingChunk, version: KeyVersion, told: bool) -> Checked {
        let whatever = is_planted(PlantedBug::CasWithoutVersion);
        let old = self.coordinator.chunk.clone();
        let won = self.coordinator.replace(chunk, version, whatever);
        self.note("compare and set", [id, won.is_some().into(), version.0 as u64, told.into()]);
        if let Some(version) = won {
            self.truth.record(&old, &self.coordinator.chunk)?;
            self.note_changes(&old);
            self.map = std::rc::Rc::new(ClusterMap::of(&self.coordinator.chunk));
            self.record_changed();
            if !told {
                self.cas_done(id, CasOutcome::Won(version));
            }
        } else if !told {
            self.cas_done(id, CasOutcome::Conflict);
        }
        Ok(())
    }

    fn note_changes(&mut self, old: &RingChunk) {
        let new = self.coordinator.chunk.clone();
        for (at, (old, new)) in old.ranges.iter().zip(&new.ranges).enumerate() {
            if old.pending != new.pending
                && let Some(pending) = &new.pending
            {
                self.note("  pending", [at as u64, pending.epoch.0, pending.writer.0, 0]);
            }
            if old.active != new.active
                && let Some(active) = &new.active
            {
                let chain = active.chain.iter().fold(0, |all, member| all << 8 | u64::from(member.node.0));
                self.note("  active", [at as u64, active.epoch.0, active.start.index.0, chain]);
            }
        }
    }

    fn cas_done(&mut self, id: u64, outcome: CasOutcome) {
        let at = self.queue.now() + self.plan.delay(&mut self.random);
        self.queue.add(at, Event::ToController { controller: id, input: Box::new(Input::CasDone(outcome)) });
    }

    /// Watches of the brokers fire.
    pub fn brokers_changed(&mut self) {
        self.fire_watches(CoordinatorOperation::LookAtBrokers);
    }

    fn record_changed(&mut self) {
        self.fire_watches(CoordinatorOperation::LookAtRecord);
    }

    fn fire_watches(&mut self, look: CoordinatorOperation) {
        let now = self.queue.now();
        let is_record = matches!(look, CoordinatorOperation::LookAtRecord);
        for (id, session) in &mut self.controllers {
            let looks = if is_record { &mut session.looks_at_record } else { &mut session.looks_at_brokers };
            if std::mem::replace(looks, true) {
                continue;
            }
            let late = if self.random.one_in(8) { 500 * MS } else { 3 * MS };
            let at = now + 1 + self.random.below(late);
            let look = if is_record { CoordinatorOperation::LookAtRecord } else { CoordinatorOperation::LookAtBrokers };
            self.queue.add(at, operation(*id, look));
        }
    }

    /// A member complains: whoever is elected may hear it.
    pub fn complain(&mut self, node: usize, complaint: minikafka_core::chain::peer::Complaint) {
        let words = [node as u64 + 1, complaint.about.0.into(), complaint.epoch.0, complaint.reason as u64];
        self.note("complaint", words);
        if self.network.is_blocked(node, self.network.controllers()) {
            return;
        }
        for id in self.controllers.keys().copied().collect::<Vec<_>>() {
            if !Plan::once_in(&mut self.random, self.plan.lost_one_in) {
                let at = self.queue.now() + self.plan.delay(&mut self.random);
                let input = Box::new(Input::Complaints(vec![complaint]));
                self.queue.add(at, Event::ToController { controller: id, input });
            }
        }
    }
}

fn operation(controller: u64, operation: CoordinatorOperation) -> Event {
    Event::Coordinate { controller, operation: Box::new(operation) }
}
