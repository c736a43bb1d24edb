//! Shipping controllers in the world: what they were told, what they asked for, and the coordinator's record.
//!
//! Everything they send stays in flight for ever, and so do the answers: late, twice and never are all there. The record
//! changes by compare-and-set; a reply may be lost, and one whose reply was lost may still land later. Time only passes
//! as "every deadline is over".

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::controller::{
    Answer, CasOutcome, ChunkController, ControllerSettings, Destination, Input, Message, Output,
};
use minikafka_core::chain::planted::{PlantedBug, is_planted};
use minikafka_core::coordination::{ActiveChain, BrokerRecord, KeyVersion, RangeRecord, RingChunk};
use minikafka_core::ids::*;
use minikafka_core::wire::{LearnReply, RangesReply, SealReply};

use crate::intern::{Id, Interner, Memo};
use crate::node::{ControllerAnswer, Decision, Event, RANGE};
use crate::world::NONE;

/// Controllers, at most.
pub const CONTROLLERS_MAX: usize = 2;
/// Longer than any wait.
const AGE_MS: u64 = 1 << 32;

/// All controllers, and the record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Control {
    /// The controllers, by number of their state.
    pub machines: [Id; CONTROLLERS_MAX],
    /// Deadlines that each has seen pass.
    pub ages: [u8; CONTROLLERS_MAX],
    /// Which wait for the record.
    pub reading: [bool; CONTROLLERS_MAX],
    /// The compare-and-set of each that has no outcome yet.
    pub cas: [Id; CONTROLLERS_MAX],
    /// The brokers each was told of last.
    pub brokers: [Id; CONTROLLERS_MAX],
    /// Compare-and-sets with an unknown outcome that may still land.
    pub ghosts: Vec<Id>,
    /// Outcomes that were lost.
    pub unknowns: u8,
    /// The record.
    pub record: Id,
    /// Its version.
    pub version: u8,
    /// Everything sent: by whom, what.
    pub sent: Vec<(u8, Id)>,
    /// Everything members answered.
    pub answers: Vec<Id>,
}

/// What happens to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlAction {
    /// The record is read.
    Read,
    /// The compare-and-set lands, or does not, and is answered.
    CasAnswered,
    /// Its answer is lost; it landed, or it is still under way.
    CasUnknown(bool),
    /// The live brokers are told.
    Brokers,
    /// This message arrives at a member.
    Deliver(Id),
    /// This message is answered with that.
    Answered(Id, Id),
    /// All deadlines pass.
    Deadlines,
}

/// A controller, its age, and what it is told.
type StepKey = (Id, u8, (u8, u64, u64));

/// What controllers say and hear, by number.
#[derive(Debug, Default)]
pub struct ControlTables {
    machines: Interner<ChunkController>,
    /// Messages.
    pub messages: Interner<(Destination, Message)>,
    /// What members answered, and who.
    pub answers: Interner<(ChainMember, ControllerAnswer)>,
    /// Records.
    pub records: Interner<RingChunk>,
    cas: Interner<(RingChunk, KeyVersion)>,
    brokers: Interner<Vec<BrokerRecord>>,
    steps: Memo<StepKey, Step>,
}

#[derive(Debug)]
struct Step {
    machine: Id,
    reads: bool,
    cas: Option<Id>,
    sends: Vec<Id>,
}

/// A compare-and-set that changed the record.
pub struct Landed {
    /// The chain it names, if that is another.
    pub activated: Option<ActiveChain>,
}

impl ControlTables {
    /// `count` controllers that know nothing, and the record of a chain that acts.
    pub fn begin(&self, count: usize, replication: u16, active: &Decision) -> Control {
        let active = ActiveChain { epoch: active.epoch, chain: active.chain.clone(), start: active.start };
        let record = RingChunk {
            ring: RANGE.ring,
            replication,
            ranges_total: 1,
            first: RANGE.range,
            ranges: vec![RangeRecord { active: Some(active), pending: None }],
        };
        let machine = |at: usize| match at < count {
            true => self.machines.id(ChunkController::new(WriterId(at as u64 + 1), ControllerSettings::default())),
            false => NONE,
        };
        Control {
            machines: std::array::from_fn(machine),
            ages: [0; CONTROLLERS_MAX],
            reading: [false; CONTROLLERS_MAX],
            cas: [NONE; CONTROLLERS_MAX],
            brokers: [NONE; CONTROLLERS_MAX],
            ghosts: Vec::new(),
            unknowns: 0,
            record: self.records.id(record),
            version: 1,
            sent: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// The number of a list of brokers.
    pub fn brokers(&self, members: impl Iterator<Item = ChainMember>) -> Id {
        let broker = |member: ChainMember| BrokerRecord {
            node: member.node,
            shards: vec![String::new()],
            rack: String::new(),
            incarnation: member.incarnation,
            store: member.store,
            version: String::new(),
        };
        self.brokers.id(members.map(broker).collect())
    }

    /// What can happen to one controller. Records beyond `epochs` are never landed.
    pub fn actions(
        &self,
        control: &Control,
        at: usize,
        brokers: Id,
        budgets: (u8, u8, u64),
        mut found: impl FnMut(ControlAction),
    ) {
        let (deadlines, unknowns, epochs) = budgets;
        if control.brokers[at] != brokers {
            found(ControlAction::Brokers);
        }
        if control.reading[at] {
            found(ControlAction::Read);
        }
        if control.cas[at] != NONE && self.epoch_of(control.cas[at]) <= epochs {
            found(ControlAction::CasAnswered);
            if control.unknowns < unknowns {
                found(ControlAction::CasUnknown(true));
                found(ControlAction::CasUnknown(false));
            }
        }
        if control.ages[at] < deadlines {
            found(ControlAction::Deadlines);
        }
        for (_, message) in control.sent.iter().filter(|(by, _)| usize::from(*by) == at) {
            found(ControlAction::Deliver(*message));
            for answer in control.answers.iter().filter(|answer| self.answers_it(*message, **answer)) {
                found(ControlAction::Answered(*message, *answer));
            }
        }
    }

    fn epoch_of(&self, cas: Id) -> u64 {
        let cas = self.cas.get(cas);
        cas.0.ranges[0].epoch_max().0
    }

    fn answers_it(&self, message: Id, answer: Id) -> bool {
        let ((to, message), (from, answer)) = (&*self.messages.get(message), &*self.answers.get(answer));
        let epoch = |epoch: &Epoch, asked: Option<Epoch>| asked == Some(*epoch);
        let incarnation = |asked: Incarnation| asked == from.incarnation;
        to.node == from.node
            && match (message, answer) {
                (Message::Seal(request), ControllerAnswer::Seal(of, _)) => {
                    incarnation(request.incarnation) && epoch(of, request.ranges.first().map(|range| range.epoch))
                }
                (Message::Reconcile(request), ControllerAnswer::Reconcile(of, _)) => {
                    incarnation(request.incarnation) && epoch(of, request.ranges.first().map(|range| range.epoch))
                }
                (Message::Learn(request), ControllerAnswer::Learn(of, _)) => {
                    incarnation(request.incarnation) && epoch(of, request.ranges.first().map(|range| range.epoch))
                }
                (Message::Activate(request), ControllerAnswer::Activate(of, _)) => {
                    epoch(of, request.ranges.first().map(|range| range.epoch))
                }
                _ => false,
            }
    }

    /// The event that a message is for the process it is meant for; none: another one answers, or nobody.
    pub fn event(&self, message: Id, me: ChainMember) -> Option<Event> {
        let (_, message) = &*self.messages.get(message);
        match message {
            Message::Seal(request) if request.incarnation == me.incarnation => {
                Some(Event::Seal(request.ranges.first()?.epoch))
            }
            Message::Reconcile(request) if request.incarnation == me.incarnation => {
                let range = request.ranges.first()?;
                let (epoch, source, start) = (range.epoch, range.source, range.end);
                Some(Event::Reconcile(Decision { epoch, source, start, log: NONE, chain: Vec::new() }.into()))
            }
            Message::Activate(request) => {
                let range = request.ranges.first()?;
                let (epoch, start, chain) = (range.epoch, range.start, range.chain.clone());
                Some(Event::Activate(Decision { epoch, source: None, start, log: NONE, chain }.into()))
            }
            Message::Learn(request) if request.incarnation == me.incarnation => {
                let range = request.ranges.first()?;
                let (epoch, source, chain) = (range.epoch, range.source, range.chain.clone());
                let place = chain.iter().position(|member| *member == source)?;
                let (start, log) = (LogPoint::START, NONE);
                Some(Event::Learn(Decision { epoch, source: None, start, log, chain }.into(), place))
            }
            _ => None,
        }
    }

    /// A step of a controller. What it sends is added to what is in flight; what landed is told.
    pub fn step(&self, control: &mut Control, at: usize, action: ControlAction, brokers: Id) -> Option<Landed> {
        let mut landed = None;
        let (key, input) = match action {
            ControlAction::Read => {
                control.reading[at] = false;
                let input = Input::ChunkRead {
                    chunk: (*self.records.get(control.record)).clone(),
                    version: KeyVersion(control.version.into()),
                };
                ((1, control.record.into(), control.version.into()), input)
            }
            ControlAction::CasAnswered => {
                let cas = std::mem::replace(&mut control.cas[at], NONE);
                landed = self.land(control, cas);
                let won = CasOutcome::Won(KeyVersion(control.version.into()));
                let outcome = if landed.is_some() { won } else { CasOutcome::Conflict };
                ((2, u64::from(landed.is_some()), control.version.into()), Input::CasDone(outcome))
            }
            ControlAction::CasUnknown(lands) => {
                let cas = std::mem::replace(&mut control.cas[at], NONE);
                control.unknowns += 1;
                if lands {
                    landed = self.land(control, cas);
                } else {
                    control.ghosts.push(cas);
                }
                ((3, 0, 0), Input::CasDone(CasOutcome::Unknown))
            }
            ControlAction::Brokers => {
                control.brokers[at] = brokers;
                ((4, brokers.into(), 0), Input::Brokers((*self.brokers.get(brokers)).clone()))
            }
            ControlAction::Answered(message, answer) => {
                let input = self.answered(message, answer);
                ((5, message.into(), answer.into()), input)
            }
            ControlAction::Deadlines => {
                control.ages[at] += 1;
                ((6, 0, 0), Input::Tick)
            }
            ControlAction::Deliver(_) => unreachable!("a delivery is a member's step"),
        };
        self.run(control, at, key, input);
        landed
    }

    fn answered(&self, message: Id, answer: Id) -> Input {
        let ((to, message), (from, answer)) = (&*self.messages.get(message), &*self.answers.get(answer));
        let (to, message) = (*to, message.clone());
        let answer = match answer {
            ControllerAnswer::Seal(_, report) => {
                let (incarnation, store, ranges) = (from.incarnation, from.store, vec![report.clone()]);
                Answer::Seal(SealReply { incarnation, store, ranges })
            }
            ControllerAnswer::Reconcile(_, outcome) | ControllerAnswer::Activate(_, outcome) => {
                Answer::Ranges(RangesReply { ranges: vec![outcome.clone()] })
            }
            ControllerAnswer::Learn(_, report) => {
                let (incarnation, store, ranges) = (from.incarnation, from.store, vec![report.clone()]);
                Answer::Learn(LearnReply { incarnation, store, ranges })
            }
        };
        Input::Answered { to, message, answer }
    }

    fn run(&self, control: &mut Control, at: usize, key: (u8, u64, u64), input: Input) {
        let (machine, age) = (control.machines[at], control.ages[at]);
        let step = self.steps.get((machine, age, key), machine as usize, || {
            let mut machine = (*self.machines.get(machine)).clone();
            let outputs = machine.step(u64::from(age) * AGE_MS, input);
            let mut step = Step { machine: NONE, reads: false, cas: None, sends: Vec::new() };
            for output in outputs {
                match output {
                    Output::ReadChunk => step.reads = true,
                    Output::Cas { chunk, version } => step.cas = Some(self.cas.id((chunk, version))),
                    Output::Send { to, message } => step.sends.push(self.messages.id((to, message))),
                    Output::Alert(_) => {}
                }
            }
            step.machine = self.machines.id(machine);
            step
        });
        control.machines[at] = step.machine;
        control.reading[at] |= step.reads;
        if let Some(cas) = step.cas {
            control.cas[at] = cas;
        }
        for message in &step.sends {
            insert(&mut control.sent, (at as u8, *message));
        }
    }

    /// A compare-and-set whose reply was lost lands after all, or turns out to be too late.
    pub fn ghost(&self, control: &mut Control, at: usize) -> Option<Landed> {
        let cas = control.ghosts.remove(at);
        self.land(control, cas)
    }

    fn land(&self, control: &mut Control, cas: Id) -> Option<Landed> {
        let (record, version) = &*self.cas.get(cas);
        if version.0 != i64::from(control.version) && !is_planted(PlantedBug::CasWithoutVersion) {
            return None;
        }
        let before = self.records.get(control.record);
        let active = |record: &RingChunk| record.ranges[0].active.clone();
        let activated = active(record).filter(|new| active(&before).as_ref() != Some(new));
        control.record = self.records.id(record.clone());
        control.version += 1;
        Some(Landed { activated })
    }

    /// A member answered.
    pub fn member_answered(&self, control: &mut Control, me: ChainMember, answer: &ControllerAnswer) {
        let answer = self.answers.id((me, answer.clone()));
        insert(&mut control.answers, answer);
    }

    /// Forgets what can have no effect any more: messages for processes that are gone, and, once their sender has gone on
    /// to a later epoch, messages below what the member promised and answers about them. `promised` says, by node, who is
    /// there and what it promised. Holds while promises are durable at once.
    pub fn forget(&self, control: &mut Control, promised: impl Fn(NodeId) -> (Incarnation, Epoch)) {
        let mut newest = [Epoch(0); CONTROLLERS_MAX];
        for (by, message) in &control.sent {
            let (_, _, epoch) = self.meant_for(*message);
            newest[usize::from(*by)] = newest[usize::from(*by)].max(epoch);
        }
        let is_awaited = |by: u8, epoch: Epoch| newest[usize::from(by)] <= epoch;
        control.sent.retain(|(by, message)| {
            let (node, incarnation, epoch) = self.meant_for(*message);
            let (current, promise) = promised(node);
            is_awaited(*by, epoch) || incarnation.is_none_or(|it| it == current) && promise <= epoch
        });
        let sent = std::mem::take(&mut control.sent);
        let is_of = |answer: Id| {
            sent.iter()
                .any(|(by, message)| is_awaited(*by, self.meant_for(*message).2) && self.answers_it(*message, answer))
        };
        control.answers.retain(|answer| is_of(*answer));
        control.sent = sent;
    }

    fn meant_for(&self, message: Id) -> (NodeId, Option<Incarnation>, Epoch) {
        let (to, message) = &*self.messages.get(message);
        let (incarnation, epoch) = match message {
            Message::Seal(request) => (Some(request.incarnation), request.ranges.first().map(|range| range.epoch)),
            Message::Reconcile(request) => (Some(request.incarnation), request.ranges.first().map(|range| range.epoch)),
            Message::Activate(request) => (None, request.ranges.first().map(|range| range.epoch)),
            Message::Learn(request) => (Some(request.incarnation), request.ranges.first().map(|range| range.epoch)),
        };
        (to.node, incarnation, epoch.unwrap_or_default())
    }

    /// Who is told to be the source of an epoch by this message, if it tells that.
    pub fn source_of(&self, message: Id) -> Option<(Epoch, ChainMember)> {
        let (_, message) = &*self.messages.get(message);
        let Message::Reconcile(request) = message else { return None };
        let range = request.ranges.first()?;
        Some((range.epoch, range.source?))
    }
}

fn insert<T: Ord>(set: &mut Vec<T>, value: T) {
    if let Err(place) = set.binary_search(&value) {
        set.insert(place, value);
    }
}
