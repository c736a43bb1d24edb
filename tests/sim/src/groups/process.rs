//! A process of the group: it drives `core`'s member machine, reads what that says it may, and commits.

use std::collections::BTreeMap;
use std::rc::Rc;

use minikafka_core::entry::EntryHeader;
use minikafka_core::group::InstanceName;
use minikafka_core::group::coordinator::Answer;
use minikafka_core::group::member::{CommitId, Exchange, Failure, Input, Member, MemberSettings, Output};
use minikafka_core::limits::REVOCATION_TIMEOUT_MS;
use minikafka_core::wire::*;
use minikafka_core::*;

use super::truth::GroupTruth;
use super::{ANSWER_WAIT, Asked, Group, GroupEvent, GroupPlan};
use crate::client::{ClusterMap, partition_key, range_of};
use crate::invariants::{Checked, Violation};
use crate::network::place;
use crate::node::{Caller, Reply, Request};
use crate::plan::Plan;
use crate::queue::{MS, SECOND, Time};
use crate::world::{Event, World};

/// Entry bytes asked for.
const FETCH_BYTES: u32 = 8_000;

/// A process.
pub(super) struct Process {
    member: Member,
    instance: InstanceName,
    /// Those of one place below the plan's statics have one instance name.
    pub place: usize,
    /// It does nothing until then.
    pub frozen_until: Time,
    pub ends: Option<Ending>,
    map: Rc<ClusterMap>,
    asks_map: bool,
    /// The next offset of what it reads.
    positions: BTreeMap<u32, u64>,
    fetch: u64,
    fetches_until: Time,
    commits: u64,
    committing: BTreeMap<CommitId, Committing>,
    /// When the newest heartbeat that was answered was sent.
    heard_at: Time,
    sent_at: BTreeMap<GroupSequence, Time>,
    /// Since when it was asked for what.
    asked_back: BTreeMap<PartitionKey, Time>,
}

/// A commit that is not answered.
struct Committing {
    /// Who the process was.
    member: MemberId,
    offsets: Vec<CommittedOffset>,
    /// Given back when it is answered.
    returns: Vec<PartitionKey>,
}

/// How it ends, as soon as it can.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// It leaves.
    Leaves { for_good: bool },
}

impl Process {
    /// One of its heartbeats, if it is its, was heard only by a head that is one no more.
    pub fn is_unheard(&mut self, asked: Asked, sequence: GroupSequence) {
        if asked == Asked::Heartbeat(self.member.id(), sequence) {
            self.sent_at.remove(&sequence);
        }
    }
}

impl World {
    pub(super) fn start_process(&mut self, place: usize) {
        let (now, map) = (self.queue.now(), self.map.clone());
        let Some(group) = &mut self.group else { return };
        group.started += 1;
        let id = group.started;
        let name = if place < group.plan.statics { format!("place-{place}") } else { String::new() };
        let instance = InstanceName::new(&name).expect("a good name");
        let settings = MemberSettings {
            group: group.name.clone(),
            instance: instance.clone(),
            client_name: format!("process {id}"),
            session_timeout_ms: group.plan.session_ms,
            wait_ms_max: group.plan.wait_ms,
        };
        let process = Process {
            member: Member::new(settings, group.random.next_u64()),
            instance,
            place,
            frozen_until: 0,
            ends: None,
            map,
            asks_map: false,
            positions: BTreeMap::new(),
            fetch: 0,
            fetches_until: 0,
            commits: 0,
            committing: BTreeMap::new(),
            heard_at: now,
            sent_at: BTreeMap::new(),
            asked_back: BTreeMap::new(),
        };
        group.processes.insert(id, process);
        self.trace.note(now, "process starts", [id, place as u64 & 0xff, 0, 0]);
        let told = |input| Event::Group(GroupEvent::Told { process: id, input: Box::new(input) });
        self.queue.add(now + 1, told(Input::Subscribe { topics: Group::topics(&self.plan) }));
        self.queue.add(now + 2, Event::Group(GroupEvent::Turn { process: id }));
        self.ask_process_map(id, None);
    }

    /// The process, if it lives and is awake; a frozen one gets the event later.
    fn awake_process(&mut self, id: u64, again: impl FnOnce() -> GroupEvent) -> bool {
        let now = self.queue.now();
        let Some(process) = self.group.as_ref().and_then(|group| group.processes.get(&id)) else { return false };
        let until = process.frozen_until;
        if until > now {
            self.steps -= 1;
            self.queue.add(until, Event::Group(again()));
            return false;
        }
        true
    }

    pub(super) fn tell_process(&mut self, id: u64, input: Input) -> Checked {
        let held = input.clone();
        if !self.awake_process(id, || GroupEvent::Told { process: id, input: Box::new(held) }) {
            return Ok(());
        }
        let now = self.queue.now();
        let Some(process) = self.group.as_mut().and_then(|group| group.processes.get_mut(&id)) else { return Ok(()) };
        if let Input::HeartbeatAnswered { sequence, reply } = &input {
            let before = process.member.generation();
            if process.member.awaits(*sequence) && reply.generation < before {
                let what = format!("process {id} is told generation {}, after {before}", reply.generation);
                return Err(Violation::data(what));
            }
            let sent_at = process.sent_at.remove(sequence).unwrap_or_default();
            process.heard_at = process.heard_at.max(sent_at);
        }
        self.trace.note(now, name_of(&input), [id, process.member.id().0 & 0xffff, process.member.generation().0, 0]);
        self.trace.say(&format_args!("process {id}: {input:?}"));
        let mut out = Vec::new();
        process.member.step(input, &mut out);
        out.into_iter().try_for_each(|output| self.process_wants(id, output))
    }

    fn process_wants(&mut self, id: u64, output: Output) -> Checked {
        self.trace.say(&format_args!("process {id} wants {output:?}"));
        let now = self.queue.now();
        let Some(group) = &mut self.group else { return Ok(()) };
        let Some(process) = group.processes.get_mut(&id) else { return Ok(()) };
        match output {
            Output::SendHeartbeat(request) => {
                process.sent_at.insert(request.sequence, now);
                if process.sent_at.len() > 64 {
                    process.sent_at.pop_first();
                }
                let asked = Asked::Heartbeat(request.member, request.sequence);
                let gives_up = now + u64::from(request.wait_ms_max) * MS + ANSWER_WAIT;
                self.process_asks(id, asked, gives_up, request.range.range, Request::Heartbeat(request));
            }
            Output::SendCommit(request) => {
                let asked = Asked::Commit(request.member, request.sequence);
                self.process_asks(id, asked, now + ANSWER_WAIT, request.range.range, Request::Commit(request));
            }
            Output::Pause { exchange, failures, needs_map } => {
                let pause = (8 << failures.min(5)) * MS;
                let after = 1 + group.random.below(pause);
                let resume = Input::Resume(exchange);
                if needs_map {
                    self.ask_process_map(id, Some((after, resume)));
                } else {
                    let told = GroupEvent::Told { process: id, input: Box::new(resume) };
                    self.queue.add(now + after, Event::Group(told));
                }
            }
            Output::Assigned(assigned) => {
                for of in assigned {
                    let begins = of.committed.map_or(0, |offset| offset.0);
                    process.positions.insert(of.partition.partition.0, begins);
                }
            }
            Output::Revoke(partitions) => self.process_revokes(id, partitions)?,
            Output::Lost(partitions) => {
                process.positions.retain(|partition, _| !partitions.contains(&partition_key(*partition)));
            }
            Output::Committed { commit, partitions } => self.process_committed(id, commit, &partitions)?,
            Output::CommitFailed { commit, .. } => self.process_committed(id, commit, &[])?,
            Output::Left | Output::Failed(_) => {
                let place = process.place;
                group.processes.remove(&id);
                // Whoever was fenced ends; somebody starts another one for who left.
                if output == Output::Left {
                    self.start_process(place);
                }
            }
        }
        Ok(())
    }

    fn process_asks(&mut self, id: u64, asked: Asked, gives_up: Time, range: RangeId, request: Request) {
        let now = self.queue.now();
        let delay = self.plan.delay(&mut self.random);
        let Some(group) = &mut self.group else { return };
        let Some(process) = group.processes.get(&id) else { return };
        let unanswered = match asked {
            Asked::Heartbeat(_, sequence) => Some(Input::HeartbeatFailed { sequence, failure: Failure::Unanswered }),
            Asked::Commit(_, sequence) => Some(Input::CommitFailed { sequence, failure: Failure::Unanswered }),
            Asked::Fetch(_) => None,
        };
        if let Some(input) = unanswered {
            let told = GroupEvent::Told { process: id, input: Box::new(input) };
            self.queue.add(gives_up, Event::Group(told));
        }
        let Some((_, chain)) = process.map.range(range) else { return };
        let node = place(&chain[0]);
        let is_twice = Plan::once_in(&mut group.random, group.plan.twice_one_in) && !self.is_healing;
        if is_twice && !matches!(asked, Asked::Fetch(_)) {
            // On a connection that was given up: whatever answers it goes nowhere.
            let late = now + 1 + group.random.below(3 * SECOND);
            self.send_request(late, node, Caller::Group(0, asked), request.clone());
        }
        self.send_request(now + delay, node, Caller::Group(id, asked), request);
    }

    fn ask_process_map(&mut self, id: u64, resumes: Option<(Time, Input)>) {
        let now = self.queue.now();
        let (after, resumes) = resumes.map_or((0, None), |(after, input)| (after, Some(Box::new(input))));
        let Some(process) = self.group.as_mut().and_then(|group| group.processes.get_mut(&id)) else { return };
        if resumes.is_none() && std::mem::replace(&mut process.asks_map, true) {
            return;
        }
        let at = now + after + 2 * self.plan.delay(&mut self.random);
        // As it is when it is asked for; it may be out of date when it arrives.
        let map = self.map.clone();
        self.queue.add(at, Event::Group(GroupEvent::Map { process: id, map, resumes }));
    }

    pub(super) fn process_map(&mut self, id: u64, map: Rc<ClusterMap>, resumes: Option<Box<Input>>) -> Checked {
        let (held, resumes_later) = (map.clone(), resumes.clone());
        if !self.awake_process(id, || GroupEvent::Map { process: id, map: held, resumes: resumes_later }) {
            return Ok(());
        }
        let Some(group) = &mut self.group else { return Ok(()) };
        let key = RangeKey { ring: self.coordinator.chunk.ring, range: group.range };
        let Some(process) = group.processes.get_mut(&id) else { return Ok(()) };
        process.asks_map = false;
        process.map = map;
        let place = process.map.range(group.range).map(|(epoch, _)| *epoch);
        // Never back to an older epoch than one that was seen.
        let seen = process.member.place().map_or(Epoch(0), |(_, epoch)| epoch);
        match place.filter(|epoch| *epoch >= seen) {
            Some(epoch) => self.tell_process(id, Input::Coordinator { range: key, epoch })?,
            None if resumes.is_none() => self.ask_process_map(id, None),
            None => {}
        }
        resumes.map_or(Ok(()), |input| self.tell_process(id, *input))
    }

    // ---- Reading and committing ----

    pub(super) fn process_turn(&mut self, id: u64) -> Checked {
        if !self.awake_process(id, || GroupEvent::Turn { process: id }) {
            return Ok(());
        }
        let now = self.queue.now();
        let Some(group) = &mut self.group else { return Ok(()) };
        let next = Plan::around(&mut group.random, if self.is_healing { 20 * MS } else { group.plan.turn_us });
        self.queue.add(now + next, Event::Group(GroupEvent::Turn { process: id }));
        let commits = group.random.one_in(4);
        let Some(process) = group.processes.get_mut(&id) else { return Ok(()) };
        if process.member.place().is_none() {
            self.ask_process_map(id, None);
            return Ok(());
        }
        if let Some(Ending::Leaves { for_good }) = process.ends.filter(|_| process.committing.is_empty()) {
            process.ends = None;
            process.positions.clear();
            return self.tell_process(id, Input::Leave { for_good });
        }
        if commits && process.committing.len() < 3 {
            let reading: Vec<PartitionKey> = process.positions.keys().map(|number| partition_key(*number)).collect();
            self.process_commits(id, &reading, Vec::new())?;
        }
        self.process_fetches(id)
    }

    fn process_fetches(&mut self, id: u64) -> Checked {
        let now = self.queue.now();
        let Some(group) = &mut self.group else { return Ok(()) };
        let Some(process) = group.processes.get_mut(&id) else { return Ok(()) };
        if process.fetches_until > now || process.positions.is_empty() {
            return Ok(());
        }
        let turn = group.random.below(process.positions.len() as u64) as usize;
        let chosen = process.positions.keys().nth(turn).copied().unwrap_or_default();
        let range = range_of(&self.plan, chosen);
        let Some((epoch, _)) = process.map.range(range) else {
            self.ask_process_map(id, None);
            return Ok(());
        };
        let key = RangeKey { ring: self.coordinator.chunk.ring, range };
        let epoch = *epoch;
        let wanted = |(partition, offset): (&u32, &u64)| FetchPartition {
            range: key,
            epoch,
            partition: partition_key(*partition),
            offset: Offset(*offset),
            bytes_max: FETCH_BYTES,
        };
        let in_range = |(partition, _): &(&u32, &u64)| range_of(&self.plan, **partition) == range;
        let partitions = process.positions.iter().filter(in_range).map(wanted).collect();
        process.fetch += 1;
        process.fetches_until = now + SECOND;
        let request = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: FETCH_BYTES, partitions };
        let asked = Asked::Fetch(process.fetch);
        self.process_asks(id, asked, 0, range, Request::Fetch(request));
        Ok(())
    }

    pub(super) fn process_fetched(
        &mut self,
        id: u64,
        request: u64,
        reply: Option<Box<(FetchReply, Vec<u8>)>>,
    ) -> Checked {
        let held = reply.clone();
        if !self.awake_process(id, || GroupEvent::Fetched { process: id, request, reply: held }) {
            return Ok(());
        }
        let Some(process) = self.group.as_mut().and_then(|group| group.processes.get_mut(&id)) else { return Ok(()) };
        if process.fetch != request {
            return Ok(());
        }
        process.fetches_until = 0;
        let Some((reply, entries)) = reply.map(|reply| *reply) else {
            self.ask_process_map(id, None);
            return Ok(());
        };
        let (mut rest, mut needs_map) = (&entries[..], false);
        for fetched in &reply.partitions {
            let (mine, others) = rest.split_at(fetched.entries_bytes as usize);
            rest = others;
            needs_map |= fetched.error.is_some();
            self.process_reads(id, fetched, mine)?;
        }
        if needs_map {
            self.ask_process_map(id, None);
        }
        Ok(())
    }

    /// Hands records out to the application, which is done with them at once.
    fn process_reads(&mut self, id: u64, fetched: &FetchedPartition, mut entries: &[u8]) -> Checked {
        let has_retention = self.plan.retention.is_some();
        let Some(group) = &mut self.group else { return Ok(()) };
        let Some(process) = group.processes.get_mut(&id) else { return Ok(()) };
        let partition = fetched.partition.partition.0;
        // It may not be its own any more, or have been given to it anew.
        let Some(position) = process.positions.get_mut(&partition) else { return Ok(()) };
        if fetched.error == Some(ErrorCode::OffsetOutOfRange) && fetched.log_start.0 > *position && has_retention {
            group.truth.handed_out(partition, *position, fetched.log_start.0);
            *position = fetched.log_start.0;
        }
        while fetched.error.is_none() && !entries.is_empty() {
            let Ok(header) = EntryHeader::decode(entries) else {
                return Err(Violation::data(format!("process {id} is served what is no entry")));
            };
            let (first, next) = (header.base_offset.0, header.next_offset().0);
            if first <= *position && *position < next {
                group.truth.handed_out(partition, *position, next);
                *position = next;
            }
            entries = &entries[header.entry_bytes()..];
        }
        Ok(())
    }

    fn process_revokes(&mut self, id: u64, partitions: Vec<PartitionKey>) -> Checked {
        self.process_commits(id, &partitions.clone(), partitions)
    }

    fn process_commits(&mut self, id: u64, of: &[PartitionKey], returns: Vec<PartitionKey>) -> Checked {
        let Some(process) = self.group.as_mut().and_then(|group| group.processes.get_mut(&id)) else { return Ok(()) };
        let at = |partition: &PartitionKey| {
            let offset = Offset(*process.positions.get(&partition.partition.0)?);
            Some(CommittedOffset { partition: *partition, offset, metadata: String::new() })
        };
        let offsets: Vec<CommittedOffset> = of.iter().filter_map(at).collect();
        process.positions.retain(|partition, _| !returns.contains(&partition_key(*partition)));
        if offsets.is_empty() && returns.is_empty() {
            return Ok(());
        }
        process.commits += 1;
        let commit = CommitId(process.commits);
        let member = process.member.id();
        process.committing.insert(commit, Committing { member, offsets: offsets.clone(), returns });
        self.tell_process(id, Input::Commit { commit, offsets })
    }

    /// A commit is answered: what was acknowledged is there for ever, and what waited for it is given back.
    fn process_committed(&mut self, id: u64, commit: CommitId, outcomes: &[CommitOutcome]) -> Checked {
        let now = self.queue.now();
        let Some(group) = &mut self.group else { return Ok(()) };
        let Some(process) = group.processes.get_mut(&id) else { return Ok(()) };
        let Some(Committing { member, offsets, returns }) = process.committing.remove(&commit) else { return Ok(()) };
        for (committed, outcome) in offsets.iter().zip(outcomes) {
            if outcome.error.is_none() {
                group.truth.check_acknowledged(member, committed.partition, committed.offset)?;
            }
        }
        if !returns.is_empty() {
            let after = 1 + group.random.below(50 * MS);
            let input = Box::new(Input::Released { partitions: returns });
            self.queue.add(now + after, Event::Group(GroupEvent::Told { process: id, input }));
        }
        Ok(())
    }
}

/// What an answer means to the machine.
pub(super) fn input_of(asked: Asked, reply: Reply) -> Input {
    let failure = match &reply {
        Reply::Group(Answer::Refused(refusal)) => Failure::Refused(refusal.code),
        _ => Failure::Unanswered,
    };
    match (asked, reply) {
        (Asked::Heartbeat(_, sequence), Reply::Group(Answer::Heartbeat(reply))) => {
            Input::HeartbeatAnswered { sequence, reply }
        }
        (Asked::Commit(_, sequence), Reply::Group(Answer::Committed(reply))) => {
            Input::CommitAnswered { sequence, reply }
        }
        (Asked::Heartbeat(_, sequence), _) => Input::HeartbeatFailed { sequence, failure },
        (Asked::Commit(_, sequence), _) => Input::CommitFailed { sequence, failure },
        (Asked::Fetch(_), _) => Input::Resume(Exchange::Heartbeat),
    }
}

/// Nobody loses what it has without a cause: silence for its session, another process of its name, or having kept it too long.
pub(super) fn check_taken(
    processes: &BTreeMap<u64, Process>,
    plan: &GroupPlan,
    now: Time,
    (partition, from, to): (PartitionKey, MemberId, Option<MemberId>),
) -> Checked {
    let holder = processes.values().find(|process| process.member.id() == from && process.member.has(partition));
    let Some(holder) = holder else { return Ok(()) };
    // Coordinators count whole milliseconds.
    let is_silent = now.saturating_sub(holder.heard_at) + 2 * MS >= u64::from(plan.session_ms) * MS;
    let is_fenced = plan.statics > holder.place && !holder.instance.is_none();
    let asked_at = holder.asked_back.get(&partition).copied().unwrap_or(now);
    let is_overdue = now - asked_at + SECOND >= REVOCATION_TIMEOUT_MS * MS;
    if is_silent || is_fenced || is_overdue {
        return Ok(());
    }
    let heard = (now - holder.heard_at) / MS;
    let what =
        format!("{partition} is taken from member {from}, which has it and was heard {heard} ms ago, for {to:?}");
    Err(Violation::data(what))
}

pub(super) fn note_returning(processes: &mut BTreeMap<u64, Process>, now: Time) {
    for process in processes.values_mut() {
        let member = &process.member;
        process.asked_back.retain(|partition, _| member.has(*partition));
        for partition in member.returning() {
            process.asked_back.entry(partition).or_insert(now);
        }
    }
}

/// What is not read by a live member that owns it, or not shared fairly.
pub(super) fn unshared(processes: &BTreeMap<u64, Process>, truth: &GroupTruth) -> Option<String> {
    let mut loads: BTreeMap<MemberId, usize> = processes.values().map(|process| (process.member.id(), 0)).collect();
    for partition in 0..truth.partitions() {
        let owner = truth.owner_of(partition);
        let reads =
            |process: &&Process| Some(process.member.id()) == owner && process.positions.contains_key(&partition);
        let Some(reader) = processes.values().find(reads) else {
            return Some(format!("partition {partition}, which is {owner:?}'s, is read by none of {loads:?}"));
        };
        *loads.entry(reader.member.id()).or_default() += 1;
    }
    let (least, most) = (loads.values().min()?, loads.values().max()?);
    (most - least > 1).then(|| format!("partitions are shared {loads:?}"))
}

const fn name_of(input: &Input) -> &'static str {
    match input {
        Input::Coordinator { .. } => "  process: coordinator",
        Input::Subscribe { .. } => "  process: subscribe",
        Input::HeartbeatAnswered { .. } => "  process: answered",
        Input::HeartbeatFailed { .. } => "  process: not answered",
        Input::Released { .. } => "  process: released",
        Input::Commit { .. } => "  process: commits",
        Input::CommitAnswered { .. } => "  process: committed",
        Input::CommitFailed { .. } => "  process: not committed",
        Input::Leave { .. } => "  process: leaves",
        Input::Resume(_) => "  process: resumes",
    }
}
