//! The coordinator, step by step: what each kind of input leads to, and what it must never lead to.

use std::collections::BTreeMap;

use super::*;
use crate::control::ControlEntry;
use crate::group::InstanceName;
use crate::wire::group::*;

mod bounds;
mod commits;
mod failover;
mod joining;
mod statics;

/// A coordinator with its log. Entries wait until they are [committed](World::commit_log).
struct World {
    coordinator: Coordinator,
    now: u64,
    wall: i64,
    /// The fold of what is committed, kept apart from the coordinator's.
    log: GroupTable,
    on_its_way: Vec<(GroupName, ControlEntry)>,
    answers: BTreeMap<u64, Answer>,
    requests: u64,
    sequences: BTreeMap<u64, u64>,
    entries: usize,
}

fn name() -> GroupName {
    GroupName::new("g").expect("a good name")
}

fn partition(number: u32) -> PartitionKey {
    PartitionKey { topic: TopicId(7), partition: Partition(number) }
}

fn partitions(numbers: &[u32]) -> Vec<PartitionKey> {
    numbers.iter().copied().map(partition).collect()
}

/// What a test's heartbeat differs in from that of a member that wants all 4 partitions of topic 7.
#[derive(Clone)]
struct Says {
    member: u64,
    generation: u64,
    owned: Option<Vec<u32>>,
    subscribed: Option<Vec<(u64, u32)>>,
    instance: &'static str,
    intent: MemberIntent,
    wait_ms_max: u32,
}

/// A member that owns `owned`, as it believes in `generation`.
fn member(member: u64, generation: u64, owned: &[u32]) -> Says {
    Says {
        member,
        generation,
        owned: Some(owned.to_vec()),
        subscribed: Some(vec![(7, 4)]),
        instance: "",
        intent: MemberIntent::Stay,
        wait_ms_max: 3_000,
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            coordinator: Coordinator::new(),
            now: 1_000_000,
            wall: 1_790_000_000_000,
            log: GroupTable::default(),
            on_its_way: Vec::new(),
            answers: BTreeMap::new(),
            requests: 0,
            sequences: BTreeMap::new(),
            entries: 0,
        };
        world.activate();
        world
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.coordinator.step(self.now, input, &mut out);
        for output in out {
            match output {
                Output::Append { group, entry } => {
                    assert!(self.on_its_way.iter().all(|(other, _)| *other != group), "one entry of a group at a time");
                    self.on_its_way.push((group, entry));
                }
                Output::Answer { request, answer } => {
                    assert!(self.answers.insert(request.0, answer).is_none(), "a request is answered once");
                }
            }
        }
        assert_eq!(self.coordinator.waiting(), self.requests as usize - self.answers.len());
    }

    /// Another head takes over, whose log is what was committed.
    fn activate(&mut self) {
        self.on_its_way.clear();
        self.step(Input::Activated { groups: self.log.clone() });
    }

    /// Everything on its way is committed, and what follows from that, until nothing more follows.
    fn commit_log(&mut self) {
        while !self.on_its_way.is_empty() {
            let (group, entry) = self.on_its_way.remove(0);
            self.entries += 1;
            let appended = Timestamp(self.wall);
            self.log.apply(&entry, appended);
            self.step(Input::Written { group, appended });
            assert_eq!(*self.coordinator.table(), self.log, "the coordinator has what is committed");
        }
    }

    /// Time passes, with ticks; everything is committed at once.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.now += TICK_MS;
            self.wall += TICK_MS as i64;
            self.step(Input::Tick { wall: Timestamp(self.wall), hears_chain: true });
            self.commit_log();
        }
    }

    fn sequence(&mut self, member: u64) -> GroupSequence {
        let sequence = self.sequences.entry(member).or_default();
        *sequence += 1;
        GroupSequence(*sequence)
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn heartbeat_of(&mut self, says: &Says) -> GroupHeartbeatRequest {
        let subscription =
            |(topic, partitions): &(u64, u32)| TopicSubscription { topic: TopicId(*topic), partitions: *partitions };
        GroupHeartbeatRequest {
            range: RangeKey { ring: RingId(3), range: RangeId(0) },
            epoch: Epoch(1),
            group: name(),
            member: MemberId(says.member),
            sequence: self.sequence(says.member),
            generation: GroupGeneration(says.generation),
            instance: InstanceName::new(says.instance).expect("a good name"),
            client_name: "test".into(),
            session_timeout_ms: 10_000,
            wait_ms_max: says.wait_ms_max,
            intent: says.intent,
            subscribed: says.subscribed.as_ref().map(|topics| topics.iter().map(subscription).collect()),
            owned: says.owned.as_deref().map(partitions),
        }
    }

    /// Sends a heartbeat and leaves it and its entries on their way; gives its request.
    fn send(&mut self, says: &Says) -> u64 {
        let heartbeat = self.heartbeat_of(says);
        let request = self.request();
        self.step(Input::Heartbeat { request, heartbeat });
        request.0
    }

    /// Sends a heartbeat and commits what follows.
    fn heartbeat(&mut self, says: &Says) -> u64 {
        let request = self.send(says);
        self.commit_log();
        request
    }

    fn commit_of(&mut self, member: u64, offsets: &[(u32, u64)]) -> GroupCommitRequest {
        let committed = |(number, offset): &(u32, u64)| CommittedOffset {
            partition: partition(*number),
            offset: Offset(*offset),
            metadata: String::new(),
        };
        GroupCommitRequest {
            range: RangeKey { ring: RingId(3), range: RangeId(0) },
            epoch: Epoch(1),
            group: name(),
            member: MemberId(member),
            sequence: if member == 0 { GroupSequence(0) } else { self.sequence(member) },
            generation: GroupGeneration(if member == 0 { 0 } else { self.generation() }),
            offsets: offsets.iter().map(committed).collect(),
        }
    }

    fn send_commit(&mut self, member: u64, offsets: &[(u32, u64)]) -> u64 {
        let commit = self.commit_of(member, offsets);
        let request = self.request();
        self.step(Input::Commit { request, commit });
        request.0
    }

    fn commit(&mut self, member: u64, offsets: &[(u32, u64)]) -> Vec<Option<ErrorCode>> {
        let request = self.send_commit(member, offsets);
        self.commit_log();
        self.outcomes(request)
    }

    fn outcomes(&self, request: u64) -> Vec<Option<ErrorCode>> {
        match &self.answers[&request] {
            Answer::Committed(reply) => reply.partitions.iter().map(|outcome| outcome.error).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn is_waiting(&self, request: u64) -> bool {
        !self.answers.contains_key(&request)
    }

    /// Generation and assigned partitions of an answered heartbeat.
    #[track_caller]
    fn assigned(&self, request: u64) -> (u64, Vec<u32>) {
        let (generation, assigned) = self.told(request);
        (generation, assigned.into_iter().map(|(partition, _)| partition).collect())
    }

    /// The same, with where to go on.
    #[track_caller]
    fn told(&self, request: u64) -> (u64, Vec<(u32, Option<u64>)>) {
        match self.answers.get(&request) {
            Some(Answer::Heartbeat(reply)) => {
                let one = |of: &AssignedPartition| (of.partition.partition.0, of.committed.map(|offset| offset.0));
                (reply.generation.0, reply.assigned.iter().map(one).collect())
            }
            other => panic!("request {request}: {other:?}"),
        }
    }

    #[track_caller]
    fn refusal(&self, request: u64) -> ErrorCode {
        match self.answers.get(&request) {
            Some(Answer::Refused(refusal)) => refusal.code,
            other => panic!("request {request}: {other:?}"),
        }
    }

    /// Owners of the partitions 0, 1, … in the log; 0: nobody.
    fn owners(&self) -> Vec<u64> {
        let owner = |number| self.log.get(&name()).and_then(|state| state.ownership(partition(number)));
        (0..4).map(|number| owner(number).map_or(0, |owned| owned.member.0)).collect()
    }

    /// Two members, each of which has two partitions and reports so; gives the generation.
    fn settled(&mut self) -> u64 {
        let first = self.heartbeat(&member(1, 0, &[]));
        let (generation, _) = self.assigned(first);
        self.now += 1_000;
        self.heartbeat(&member(2, 0, &[]));
        self.heartbeat(&member(1, generation, &[0, 1, 2, 3]));
        let generation = self.generation();
        self.heartbeat(&member(1, generation, &[0, 1]));
        let generation = self.generation();
        self.heartbeat(&member(1, generation, &[0, 1]));
        self.heartbeat(&member(2, generation, &[2, 3]));
        assert_eq!(self.owners(), [1, 1, 2, 2]);
        generation
    }

    fn generation(&self) -> u64 {
        self.log.get(&name()).map_or(0, |state| state.generation().0)
    }

    fn phase(&self) -> GroupPhase {
        self.coordinator.describe(&name()).expect("a group").phase
    }
}
