//! The honest controller of the world: one change after another, by the letter of R5, whose messages come late or twice.

use super::*;

/// The record.
#[derive(Clone)]
struct Record {
    epoch: Epoch,
    chain: Vec<ChainMember>,
    start: LogPoint,
}

#[derive(Clone)]
enum Phase {
    Idle,
    Sealing { reports: BTreeMap<usize, (ChainMember, SealReport)> },
    Reconciling { decision: Record, source: ChainMember, done: Vec<ChainMember> },
}

/// A message on its way to the process that it is meant for.
#[derive(Clone)]
struct Ask {
    at: usize,
    meant: ChainMember,
    what: What,
}

#[derive(Clone)]
enum What {
    Seal(Epoch),
    Reconcile(Epoch, LogPoint, Option<ChainMember>),
    Activate(Record),
    Learn(Record, ChainMember),
}

pub(super) struct Controller {
    record: Record,
    history: BTreeMap<Epoch, Vec<ChainMember>>,
    seen: Epoch,
    phase: Phase,
    asks: Vec<Ask>,
    /// Steps that the change under way may still take.
    patience: usize,
    pub complaints: usize,
}

impl Controller {
    pub fn new(chain: Vec<ChainMember>) -> Self {
        Self {
            record: Record { epoch: Epoch(0), chain, start: LogPoint::START },
            history: BTreeMap::new(),
            seen: Epoch(0),
            phase: Phase::Idle,
            asks: Vec::new(),
            patience: 0,
            complaints: 0,
        }
    }

    pub fn chain_of(&self, epoch: Epoch) -> Vec<ChainMember> {
        self.history.get(&epoch).cloned().unwrap_or_default()
    }

    pub fn record_chain(&self) -> Vec<ChainMember> {
        self.record.chain.clone()
    }

    /// Whether the record's chain acts as a whole and holds the same log.
    pub fn is_settled(&self, nodes: &[Node]) -> bool {
        let acting = |member: &ChainMember| {
            nodes
                .iter()
                .find(|node| node.me() == *member && node.replica.acts() && node.replica.epoch() == self.record.epoch)
        };
        let members: Vec<_> = self.record.chain.iter().filter_map(acting).collect();
        let ends = |node: &&Node| (node.replica.state().end(), node.durable as u64);
        members.len() == self.record.chain.len() && members.windows(2).all(|pair| ends(&pair[0]) == ends(&pair[1]))
    }

    pub fn describe(&self, nodes: &[Node]) -> String {
        let phase = match &self.phase {
            Phase::Idle => "idle".to_owned(),
            Phase::Sealing { reports } => format!("sealing, {reports:?}"),
            Phase::Reconciling { decision, source, done } => {
                format!("reconciling to {:?} from {source:?}, done {done:?}", decision.start)
            }
        };
        let nodes: Vec<_> = nodes.iter().map(|node| format!("{:?}\n", node.replica)).collect();
        format!("{phase}, record {:?} {:?}, {nodes:#?}", self.record.epoch, self.record.chain)
    }

    fn ask(&mut self, at: usize, meant: ChainMember, what: What) {
        self.asks.push(Ask { at, meant, what });
    }
}

impl World {
    pub(super) fn controller_step(&mut self) {
        match self.random.below(10) {
            0..6 => self.deliver_ask(),
            6 => self.ask_to_learn(),
            _ => self.advance_change(),
        }
    }

    fn deliver_ask(&mut self) {
        if self.controller.asks.is_empty() {
            return;
        }
        let at = self.random.below(self.controller.asks.len());
        // Some stay, to come again much later.
        let ask =
            if self.random.one_in(8) { self.controller.asks[at].clone() } else { self.controller.asks.swap_remove(at) };
        if self.random.one_in(12) || self.weather.deaf[ask.at] || self.nodes[ask.at].me() != ask.meant {
            return;
        }
        let at = ask.at;
        match ask.what {
            What::Seal(epoch) => {
                let request = self.request(at, Asked::Change { epoch });
                self.input(at, Input::Seal { request, epoch, members: Vec::new() });
            }
            What::Reconcile(epoch, end, source) => {
                let request = self.request(at, Asked::Change { epoch });
                self.input(at, Input::Reconcile { request, epoch, end, source });
            }
            What::Activate(Record { epoch, chain, start }) => {
                let request = self.request(at, Asked::Control);
                self.input(at, Input::Activate { request, epoch, chain, start });
            }
            What::Learn(Record { epoch, chain, .. }, source) => {
                let request = self.request(at, Asked::Learn);
                self.input(at, Input::Learn { request, epoch, chain, source });
            }
        }
    }

    fn ask_to_learn(&mut self) {
        let record = self.controller.record.clone();
        let at = self.random.below(NODES);
        let me = self.nodes[at].me();
        if record.epoch > Epoch(0) && record.chain.iter().all(|member| member.store != me.store) {
            let source = record.chain[self.random.below(record.chain.len())];
            self.controller.ask(at, me, What::Learn(record, source));
        }
    }

    fn advance_change(&mut self) {
        self.controller.patience = self.controller.patience.saturating_sub(1);
        match self.controller.phase.clone() {
            Phase::Idle => self.begin_change(),
            Phase::Sealing { reports } => self.decide(&reports),
            Phase::Reconciling { decision, source, done } => self.reconcile_or_commit(decision, source, &done),
        }
    }

    /// Tells the chain to act, or begins another one: when it does not work, or for no reason at all.
    fn begin_change(&mut self) {
        let record = self.controller.record.clone();
        let intact = record.epoch > Epoch(0) && record.chain.iter().all(|member| self.place(member).is_some());
        let complained = std::mem::take(&mut self.controller.complaints) > 0 && self.random.one_in(4);
        if intact && !complained && !self.random.one_in(60) {
            let at = self.random.below(record.chain.len());
            let member = record.chain[at];
            if let Some(place) = self.place(&member)
                && (!self.nodes[place].replica.acts() || self.random.one_in(20))
            {
                self.controller.ask(place, member, What::Activate(record));
            }
            return;
        }
        self.controller.seen = self.controller.seen.next();
        self.controller.phase = Phase::Sealing { reports: BTreeMap::new() };
        self.controller.patience = 40;
        self.ask_for_seals();
    }

    fn ask_for_seals(&mut self) {
        let epoch = self.controller.seen;
        for at in 0..NODES {
            let me = self.nodes[at].me();
            let is_member = self.controller.record.chain.iter().any(|member| member.store == me.store);
            let learns = matches!(self.nodes[at].replica.standing(), Standing::Learning(_) | Standing::Sealed);
            if is_member || learns {
                self.controller.ask(at, me, What::Seal(epoch));
            }
        }
    }

    pub(super) fn seal_reported(&mut self, at: usize, request: RequestId, report: SealReport) {
        let Some((_, Asked::Change { epoch })) = self.requests.remove(&request.0) else { return };
        let me = self.nodes[at].me();
        if let Phase::Sealing { reports } = &mut self.controller.phase
            && epoch == self.controller.seen
            && report.error.is_none()
        {
            reports.insert(at, (me, report));
        }
    }

    /// R5c, R5d.
    fn decide(&mut self, reports: &BTreeMap<usize, (ChainMember, SealReport)>) {
        if self.controller.patience == 0 {
            self.controller.phase = Phase::Idle;
            return;
        }
        if reports.len() < 2 || self.random.one_in(2) {
            return self.ask_for_seals();
        }
        let record = self.controller.record.clone();
        let survives = |(member, report): &&(ChainMember, SealReport)| {
            report.marker >= record.epoch && record.chain.iter().any(|named| named.store == member.store)
        };
        let best = reports.values().filter(survives).max_by_key(|(_, report)| (report.last_epoch, report.end.index));
        let Some((source, best)) = best else { return };
        let committed = reports.values().map(|(_, report)| report.known_committed).max().unwrap_or_default();
        let ahead = reports.values().any(|(_, report)| report.last_epoch > record.epoch);
        assert!(best.end.index >= committed.max(record.start.index), "the source ends at {:?}", best.end);
        assert!(!ahead, "an epoch that was never active has entries");
        let mut chain: Vec<_> = reports.values().map(|(member, _)| *member).collect();
        for last in (1..chain.len()).rev() {
            let other = self.random.below(last + 1);
            chain.swap(last, other);
        }
        chain.truncate(2 + self.random.below(2));
        let decision = Record { epoch: self.controller.seen, chain, start: best.end };
        self.controller.phase = Phase::Reconciling { decision, source: *source, done: Vec::new() };
        self.controller.patience = 200;
    }

    /// R5e, R5f.
    fn reconcile_or_commit(&mut self, decision: Record, source: ChainMember, done: &[ChainMember]) {
        if self.controller.patience == 0 {
            self.controller.phase = Phase::Idle;
            return;
        }
        if decision.chain.iter().all(|member| done.contains(member)) {
            self.controller.history.insert(decision.epoch, decision.chain.clone());
            self.controller.phase = Phase::Idle;
            for member in &decision.chain {
                if let Some(at) = self.place(member) {
                    self.controller.ask(at, *member, What::Activate(decision.clone()));
                }
            }
            self.controller.record = decision;
            return;
        }
        let waiting: Vec<_> = decision.chain.iter().filter(|member| !done.contains(member)).copied().collect();
        let member = waiting[self.random.below(waiting.len())];
        if let Some(at) = self.place(&member)
            && self.random.one_in(3)
        {
            let source = (source != member).then_some(source);
            self.controller.ask(at, member, What::Reconcile(decision.epoch, decision.start, source));
        }
    }

    pub(super) fn change_answered(&mut self, at: usize, epoch: Epoch, answer: Answer) {
        let me = self.nodes[at].me();
        if let Phase::Reconciling { decision, done, .. } = &mut self.controller.phase
            && decision.epoch == epoch
            && matches!(answer, Answer::Done { .. })
            && !done.contains(&me)
        {
            done.push(me);
        }
    }
}
