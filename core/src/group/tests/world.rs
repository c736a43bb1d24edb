//! A group's world, and what must never happen in it.

use std::collections::BTreeMap;

use crate::control::ControlEntry;
use crate::error_code::ErrorCode;
use crate::group::coordinator::{Answer, Coordinator, Input, Output, RequestId};
use crate::group::member::{self, CommitId, Failure, Member, MemberSettings};
use crate::group::{GroupName, GroupTable, InstanceName};
use crate::ids::*;
use crate::limits::{REVOCATION_TIMEOUT_MS, SESSION_TIMEOUT_MS_DEFAULT, TICK_MS};
use crate::wire::group::*;

const PARTITIONS: u32 = 8;
/// Processes that may run; some are static.
const PROCESSES: usize = 5;
const RANGE: RangeKey = RangeKey { ring: RingId(3), range: RangeId(0) };
/// An answer that does not come within this is not waited for.
const ANSWER_WAIT_MS: u64 = 5_000;

/// A number generator as small as it can be (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

enum Request {
    Heartbeat(GroupHeartbeatRequest),
    Commit(GroupCommitRequest),
}

enum Event {
    /// A request arrives at a coordinator.
    Asked {
        process: u64,
        request: Request,
    },
    /// An answer, or the news that there is none, arrives at a process.
    Told {
        process: u64,
        input: member::Input,
    },
    /// What was on its way into the log of an epoch is committed.
    Logged {
        epoch: Epoch,
        group: GroupName,
    },
    /// An application gives a partition back.
    Released {
        process: u64,
        partition: PartitionKey,
    },
    Tick,
    /// An application goes on.
    Turn {
        process: u64,
    },
    /// Something goes wrong.
    Fault,
}

struct Process {
    member: Member,
    instance: InstanceName,
    frozen_until: u64,
    /// The next offset of what it reads.
    positions: BTreeMap<PartitionKey, u64>,
    commits: u64,
    /// Given back when they are answered.
    returning: BTreeMap<CommitId, Vec<PartitionKey>>,
}

/// What coordinators heard of a member.
#[derive(Clone, Copy, Default)]
struct Heard {
    /// When, last.
    at: u64,
    /// Its newest heartbeat.
    sequence: GroupSequence,
    /// When it came after more than its session time-out.
    late_at: u64,
}

pub struct World {
    random: Random,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    numbers: u64,
    coordinator: Coordinator,
    epoch: Epoch,
    activated_at: u64,
    log: GroupTable,
    on_its_way: Vec<ControlEntry>,
    /// Who asked what; answered requests are gone.
    requests: BTreeMap<RequestId, (u64, GroupSequence)>,
    processes: BTreeMap<u64, Process>,
    /// When each member was last heard, and its newest heartbeat.
    heard: BTreeMap<MemberId, Heard>,
    /// When processes of each instance name were last heard.
    namesakes: BTreeMap<InstanceName, BTreeMap<MemberId, u64>>,
    /// Since when a partition's owner is told to give it back.
    asked_back: BTreeMap<PartitionKey, u64>,
    is_healed: bool,
}

fn group() -> GroupName {
    GroupName::new("g").expect("a good name")
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now: 0,
            events: BTreeMap::new(),
            numbers: 0,
            coordinator: Coordinator::new(),
            epoch: Epoch(0),
            activated_at: 0,
            log: GroupTable::default(),
            on_its_way: Vec::new(),
            requests: BTreeMap::new(),
            processes: BTreeMap::new(),
            heard: BTreeMap::new(),
            namesakes: BTreeMap::new(),
            asked_back: BTreeMap::new(),
            is_healed: false,
        };
        world.fail_over();
        world.add(0, Event::Tick);
        world.add(500, Event::Fault);
        for at in 0..PROCESSES as u64 {
            world.start_process(at);
        }
        world
    }

    fn add(&mut self, after: u64, event: Event) {
        self.numbers += 1;
        self.events.insert((self.now + after, self.numbers), event);
    }

    fn delay(&mut self) -> u64 {
        if !self.is_healed && self.random.one_in(40) { self.random.below(20_000) } else { 1 + self.random.below(20) }
    }

    /// Lets time pass.
    pub fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some((&(at, _), _)) = self.events.first_key_value()
            && at <= until
        {
            let (_, event) = self.events.pop_first().expect("it was just looked at");
            self.now = at;
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.add(TICK_MS, Event::Tick);
                self.coordinate(Input::Tick { wall: Timestamp(self.now as i64), hears_chain: true });
            }
            Event::Fault => self.fault(),
            Event::Asked { process, request } => self.asked(process, request),
            Event::Logged { epoch, group } => self.logged(epoch, &group),
            Event::Told { process, input } => self.tell(process, input),
            Event::Turn { process } => self.turn(process),
            Event::Released { process, partition } => {
                self.tell(process, member::Input::Released { partitions: vec![partition] });
            }
        }
    }

    // ---- Processes ----

    fn start_process(&mut self, place: u64) {
        self.numbers += 1;
        let id = self.numbers;
        let is_static = place < 2;
        let instance = if is_static { format!("instance-{place}") } else { String::new() };
        let instance = InstanceName::new(&instance).expect("a good name");
        let settings = MemberSettings {
            group: group(),
            instance: instance.clone(),
            client_name: String::new(),
            session_timeout_ms: SESSION_TIMEOUT_MS_DEFAULT,
            wait_ms_max: 3_000,
        };
        let process = Process {
            member: Member::new(settings, self.random.next()),
            instance,
            frozen_until: 0,
            positions: BTreeMap::new(),
            commits: 0,
            returning: BTreeMap::new(),
        };
        self.processes.insert(id, process);
        self.add(0, Event::Turn { process: id });
        let topics = vec![TopicSubscription { topic: TopicId(7), partitions: PARTITIONS }];
        self.tell(id, member::Input::Subscribe { topics });
        self.tell(id, member::Input::Coordinator { range: RANGE, epoch: self.epoch });
    }

    fn tell(&mut self, id: u64, input: member::Input) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.frozen_until > self.now {
            let until = process.frozen_until - self.now;
            return self.add(until, Event::Told { process: id, input });
        }
        let mut out = Vec::new();
        process.member.step(input, &mut out);
        for output in out {
            self.carry_out(id, output);
        }
    }

    fn carry_out(&mut self, id: u64, output: member::Output) {
        match output {
            member::Output::SendHeartbeat(request) => self.ask(id, Request::Heartbeat(request)),
            member::Output::SendCommit(request) => self.ask(id, Request::Commit(request)),
            member::Output::Pause { exchange, failures, needs_map } => {
                let pause = 8 << failures.min(7);
                if needs_map {
                    let input = member::Input::Coordinator { range: RANGE, epoch: self.epoch };
                    self.add(pause, Event::Told { process: id, input });
                }
                self.add(pause, Event::Told { process: id, input: member::Input::Resume(exchange) });
            }
            member::Output::Assigned(assigned) => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                for of in assigned {
                    process.positions.insert(of.partition, of.committed.map_or(0, |offset| offset.0));
                }
            }
            member::Output::Revoke(partitions) => self.revoke(id, partitions),
            member::Output::Lost(partitions) => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                process.positions.retain(|partition, _| !partitions.contains(partition));
            }
            member::Output::Committed { commit, .. } | member::Output::CommitFailed { commit, .. } => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                for partition in process.returning.remove(&commit).unwrap_or_default() {
                    let is_slow = self.random.one_in(30) && !self.is_healed;
                    let after = if is_slow { 90_000 } else { self.random.below(500) };
                    self.add(after, Event::Released { process: id, partition });
                }
            }
            member::Output::Left | member::Output::Failed(_) => {
                let process = self.processes.remove(&id);
                // Somebody starts the next process of a static member; whoever was fenced ends.
                let is_named = process.is_some_and(|process| !process.instance.is_none());
                if !is_named {
                    self.start_process(9);
                }
            }
        }
    }

    /// The application stops reading, commits, and gives them back.
    fn revoke(&mut self, id: u64, partitions: Vec<PartitionKey>) {
        let commit = self.commit_of(id, &partitions);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.positions.retain(|partition, _| !partitions.contains(partition));
        process.returning.insert(commit.0, partitions);
        self.tell(id, member::Input::Commit { commit: commit.0, offsets: commit.1 });
    }

    fn commit_of(&mut self, id: u64, partitions: &[PartitionKey]) -> (CommitId, Vec<CommittedOffset>) {
        let Some(process) = self.processes.get_mut(&id) else { return (CommitId(0), Vec::new()) };
        process.commits += 1;
        let at = |partition: &PartitionKey| {
            let offset = Offset(*process.positions.get(partition)?);
            Some(CommittedOffset { partition: *partition, offset, metadata: String::new() })
        };
        (CommitId(process.commits), partitions.iter().filter_map(at).collect())
    }

    /// The application reads on, and commits now and then.
    fn turn(&mut self, id: u64) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.frozen_until <= self.now {
            process.positions.values_mut().for_each(|position| *position += 3);
            let partitions: Vec<PartitionKey> = process.positions.keys().copied().collect();
            if self.random.one_in(3) {
                let (commit, offsets) = self.commit_of(id, &partitions);
                self.tell(id, member::Input::Commit { commit, offsets });
            }
        }
        let after = 100 + self.random.below(1_000);
        self.add(after, Event::Turn { process: id });
    }

    // ---- Requests ----

    fn ask(&mut self, process: u64, request: Request) {
        if !self.is_healed && self.random.one_in(100) {
            // It comes again, late, on a connection that is given up.
            let again = self.random.below(30_000);
            let copy = match &request {
                Request::Heartbeat(request) => Request::Heartbeat(request.clone()),
                Request::Commit(request) => Request::Commit(request.clone()),
            };
            self.add(again, Event::Asked { process: 0, request: copy });
        }
        let unanswered = unanswered(&request);
        self.add(ANSWER_WAIT_MS, Event::Told { process, input: unanswered });
        if self.is_healed || !self.random.one_in(20) {
            let delay = self.delay();
            self.add(delay, Event::Asked { process, request });
        }
    }

    fn asked(&mut self, process: u64, request: Request) {
        self.numbers += 1;
        let number = RequestId(self.numbers);
        let epoch = match &request {
            Request::Heartbeat(heartbeat) => heartbeat.epoch,
            Request::Commit(commit) => commit.epoch,
        };
        if epoch != self.epoch {
            let failure = Failure::Refused(ErrorCode::Stale);
            let input = failed(&request, failure);
            let delay = self.delay();
            return self.add(delay, Event::Told { process, input });
        }
        match request {
            Request::Heartbeat(heartbeat) => {
                self.requests.insert(number, (process, heartbeat.sequence));
                self.namesakes.entry(heartbeat.instance.clone()).or_default().insert(heartbeat.member, self.now);
                let began = self.activated_at;
                let heard = self.heard.entry(heartbeat.member).or_default();
                if heard.sequence < heartbeat.sequence {
                    if self.now - heard.at.max(began) >= u64::from(SESSION_TIMEOUT_MS_DEFAULT) {
                        heard.late_at = self.now;
                    }
                    (heard.at, heard.sequence) = (self.now, heartbeat.sequence);
                }
                self.coordinate(Input::Heartbeat { request: number, heartbeat });
            }
            Request::Commit(commit) => {
                self.requests.insert(number, (process, commit.sequence));
                self.coordinate(Input::Commit { request: number, commit });
            }
        }
    }

    // ---- Coordinators ----

    fn coordinate(&mut self, input: Input) {
        let mut out = Vec::new();
        self.coordinator.step(self.now, input, &mut out);
        for output in out {
            match output {
                Output::Append { group, entry } => {
                    self.on_its_way.push(entry);
                    let (delay, epoch) = (1 + self.random.below(30), self.epoch);
                    self.add(delay, Event::Logged { epoch, group });
                }
                Output::Answer { request, answer } => self.answered(request, answer),
            }
        }
    }

    fn answered(&mut self, request: RequestId, answer: Answer) {
        let (process, sequence) = self.requests.remove(&request).expect("a request is answered once");
        let input = match answer {
            Answer::Heartbeat(reply) => {
                self.check_told(&reply);
                member::Input::HeartbeatAnswered { sequence, reply }
            }
            Answer::Committed(reply) => member::Input::CommitAnswered { sequence, reply },
            Answer::Deleted => return,
            Answer::Refused(refusal) => {
                let failure = Failure::Refused(refusal.code);
                // Of which kind it was, only the process knows: the other one is not waited for.
                let commit = member::Input::CommitFailed { sequence, failure };
                let delay = self.delay();
                self.add(delay, Event::Told { process, input: commit });
                member::Input::HeartbeatFailed { sequence, failure }
            }
        };
        if self.is_healed || !self.random.one_in(20) {
            let delay = self.delay();
            self.add(delay, Event::Told { process, input });
        }
    }

    fn logged(&mut self, epoch: Epoch, group: &GroupName) {
        if epoch != self.epoch || self.on_its_way.is_empty() {
            return;
        }
        let entry = self.on_its_way.remove(0);
        self.apply(&entry);
        self.coordinate(Input::Written { group: group.clone(), appended: Timestamp(self.now as i64) });
        assert_eq!(*self.coordinator.table(), self.log, "the coordinator has what is committed");
    }

    /// An entry is committed.
    fn apply(&mut self, entry: &ControlEntry) {
        self.check_entry(entry);
        self.log.apply(entry, Timestamp(self.now as i64));
    }

    /// Another coordinator takes over; of what was on its way, a part may be committed.
    fn fail_over(&mut self) {
        let input = Input::Deposed { code: ErrorCode::NotOwner, epoch: self.epoch };
        self.coordinate(input);
        let kept = self.random.below(self.on_its_way.len() as u64 + 1) as usize;
        for entry in std::mem::take(&mut self.on_its_way).into_iter().take(kept) {
            self.apply(&entry);
        }
        self.epoch = self.epoch.next();
        self.activated_at = self.now;
        self.coordinate(Input::Activated { groups: self.log.clone() });
    }

    // ---- What goes wrong ----

    fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let after = self.random.below(6_000);
        self.add(after, Event::Fault);
        let ids: Vec<u64> = self.processes.keys().copied().collect();
        let Some(&id) = ids.get(self.random.below(ids.len().max(1) as u64) as usize) else {
            return self.start_process(9);
        };
        match self.random.below(5) {
            0 => self.fail_over(),
            1 => {
                let long = self.random.below(25_000);
                let process = self.processes.get_mut(&id).expect("one of those");
                process.frozen_until = self.now + long;
            }
            2 => {
                // Killed; the next process of its place starts.
                let process = self.processes.remove(&id).expect("one of those");
                let place = process.instance.as_str().strip_prefix("instance-").and_then(|at| at.parse().ok());
                self.start_process(place.unwrap_or(9));
            }
            3 => {
                // A second process under the same name, while the first one goes on.
                let instance = self.processes[&id].instance.clone();
                if let Some(place) = instance.as_str().strip_prefix("instance-").and_then(|at| at.parse().ok()) {
                    self.start_process(place);
                }
            }
            _ => {
                let for_good = self.random.one_in(2);
                self.tell(id, member::Input::Leave { for_good });
            }
        }
    }

    /// Nothing goes wrong any more, and everybody is awake.
    pub fn heal(&mut self) {
        self.is_healed = true;
        while self.processes.len() < 3 {
            self.start_process(9);
        }
        self.processes.values_mut().for_each(|process| process.frozen_until = 0);
        // What was delayed and is not there yet never comes; nor does the end of a very long revocation.
        let late = self.now + ANSWER_WAIT_MS;
        let is_lost = |event: &Event| matches!(event, Event::Asked { .. });
        self.events.retain(|(at, _), event| *at <= late || !is_lost(event));
        let released: Vec<(u64, u64)> = self
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Released { .. }))
            .map(|(at, _)| *at)
            .collect();
        for at in released {
            let event = self.events.remove(&at).expect("it was just found");
            self.add(1, event);
        }
    }

    // ---- What must never happen ----

    /// Whatever is told is committed.
    fn check_told(&self, reply: &GroupHeartbeatReply) {
        let Some(state) = self.log.get(&group()) else {
            return assert!(reply.assigned.is_empty(), "{reply:?} of a group that is not in the log");
        };
        assert_eq!(reply.generation, state.generation());
        for of in &reply.assigned {
            let commit = state.commit(of.partition).map(|commit| commit.offset);
            assert!(of.committed.is_none() || of.committed == commit);
            assert!(state.ownership(of.partition).is_some(), "{of:?} is nobody's");
        }
    }

    fn check_entry(&mut self, entry: &ControlEntry) {
        let before = self.log.get(&group()).cloned().unwrap_or_default();
        match entry {
            ControlEntry::GroupOwners { generation, owners, .. } => {
                assert_eq!(*generation, before.generation().next(), "generations are counted one by one");
                for change in owners {
                    for partition in &change.partitions {
                        if let Some(owned) = before.ownership(*partition) {
                            self.check_taken(*partition, owned.member, change.member);
                        }
                    }
                }
            }
            ControlEntry::GroupCommit { offsets, .. } => {
                for committed in offsets {
                    let at = before.commit(committed.partition).map(|commit| commit.offset);
                    assert!(at.is_none_or(|at| at <= committed.offset), "{committed:?} goes back from {at:?}");
                }
            }
            _ => {}
        }
        self.note_asked_back();
    }

    /// Nobody loses what it has without a cause.
    fn check_taken(&self, partition: PartitionKey, from: MemberId, to: MemberId) {
        let Some(holder) = self.processes.values().find(|process| process.member.id() == from) else { return };
        if from == to || !holder.member.has(partition) {
            return;
        }
        let heard = self.heard.get(&from).copied().unwrap_or_default();
        let heard_at = heard.at.max(self.activated_at);
        // The entry may have been on its way when it came after all.
        let came_too_late = heard.late_at > 0 && self.now - heard.late_at <= 10 * TICK_MS;
        let is_silent = came_too_late || self.now - heard_at + TICK_MS >= u64::from(SESSION_TIMEOUT_MS_DEFAULT);
        // One that begins, or began and was never told, under the same name, and was heard by this coordinator.
        let is_rival = |(member, at): (&MemberId, &u64)| *member != from && *at >= self.activated_at;
        let is_fenced = !holder.instance.is_none() && self.namesakes[&holder.instance].iter().any(is_rival);
        let asked_at = self.asked_back.get(&partition).copied().unwrap_or(self.now);
        let is_overdue = self.now - asked_at + 2 * TICK_MS >= REVOCATION_TIMEOUT_MS;
        assert!(
            is_silent || is_fenced || is_overdue,
            "{partition} is taken from {from}, who has it, and given to {to}; heard {} ms ago",
            self.now - heard_at
        );
    }

    fn note_asked_back(&mut self) {
        let returning: Vec<PartitionKey> =
            self.processes.values().flat_map(|process| process.member.returning()).collect();
        self.asked_back.retain(|partition, _| returning.contains(partition));
        for partition in returning {
            self.asked_back.entry(partition).or_insert(self.now);
        }
    }

    /// Every partition is read by one live member, and nobody has two more than another.
    pub fn check_shared_fairly(&self) {
        let description = self.coordinator.describe(&group());
        let state = self.log.get(&group()).expect("somebody joined");
        let mut loads = BTreeMap::new();
        for process in self.processes.values().filter(|process| !process.member.has_ended()) {
            loads.insert(process.member.id(), process.member.reading().count());
            for partition in process.member.reading() {
                let owner = state.ownership(partition).map(|owned| owned.member);
                assert_eq!(owner, Some(process.member.id()), "who reads {partition}: {description:?}");
            }
        }
        let (least, most) = (loads.values().min(), loads.values().max());
        let is_fair = most.zip(least).is_some_and(|(most, least)| most - least <= 1);
        assert!(is_fair && loads.values().sum::<usize>() == PARTITIONS as usize, "{loads:?} {description:?}");
    }
}

fn failed(request: &Request, failure: Failure) -> member::Input {
    match request {
        Request::Heartbeat(request) => member::Input::HeartbeatFailed { sequence: request.sequence, failure },
        Request::Commit(request) => member::Input::CommitFailed { sequence: request.sequence, failure },
    }
}

fn unanswered(request: &Request) -> member::Input {
    failed(request, Failure::Unanswered)
}
