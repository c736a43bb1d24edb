//! A consumer group: processes with `core`'s member machine in them, and what goes wrong with them.
//!
//! The group reads all partitions of the world's topic; its coordinator is whoever heads its range, which crashes, is cut
//! off and replaced like all else. Processes are killed, freeze and wake up, begin under another one's instance name,
//! leave; their requests are lost, late, and arrive twice. What must never happen is in `truth`. Only some worlds have a
//! group, and all that it draws comes from numbers of its own, so that the others are what they would be without it.

mod process;
pub mod truth;

use std::collections::BTreeMap;
use std::rc::Rc;

use minikafka_core::chain::replica::Replica;
use minikafka_core::group::GroupName;
use minikafka_core::group::coordinator::Answer;
use minikafka_core::group::member::Input;
use minikafka_core::ring::group_range;
use minikafka_core::wire::{FetchReply, TopicSubscription};
use minikafka_core::*;
use minikafka_storage::disk::sim::SimRandom;

use crate::client::{ClusterMap, TOPIC};
use crate::invariants::Checked;
use crate::network::place;
use crate::node::Reply;
use crate::plan::Plan;
use crate::queue::{MS, SECOND, Time};
use crate::world::{Event, World};
use process::{Ending, Process};
use truth::GroupTruth;

/// One in so many worlds has a group.
const ONE_IN: u64 = 4;
/// A request that is not answered is given up after this, beyond what it may wait.
const ANSWER_WAIT: Time = SECOND;
/// Processes at once, at most.
const PROCESSES_MAX: usize = 7;

/// What the seed decides about its group.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// Processes to begin with.
    pub processes: usize,
    /// So many of them are static.
    pub statics: usize,
    /// Silent for so long, a member is expelled.
    pub session_ms: u32,
    /// How long heartbeats wait for news.
    pub wait_ms: u32,
    /// A process fetches, and perhaps commits, about this often.
    pub turn_us: Time,
    /// Something goes wrong with a process about this often.
    pub fault_us: Time,
    /// One in so many requests arrives a second time, late; 0: none.
    pub twice_one_in: u64,
}

/// The group of a world that has one.
pub struct Group {
    pub plan: GroupPlan,
    pub name: GroupName,
    pub range: RangeId,
    pub random: SimRandom,
    pub truth: GroupTruth,
    processes: BTreeMap<u64, Process>,
    started: u64,
}

/// What happens about the group.
pub enum GroupEvent {
    /// A process fetches, and perhaps commits.
    Turn { process: u64 },
    /// Something reaches a process.
    Told { process: u64, input: Box<Input> },
    /// A process has the map.
    Map { process: u64, map: Rc<ClusterMap>, resumes: Option<Box<Input>> },
    /// Records reach a process.
    Fetched { process: u64, request: u64, reply: Option<Box<(FetchReply, Vec<u8>)>> },
    /// Something goes wrong with a process.
    Fault,
}

/// What was asked in a process's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A heartbeat.
    Heartbeat(MemberId, GroupSequence),
    /// A commit.
    Commit(MemberId, GroupSequence),
    /// Records.
    Fetch(u64),
}

impl Group {
    /// The group of a seed, if it has one.
    pub fn of(seed: u64, plan: &Plan) -> Option<Self> {
        let mut random = SimRandom::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6709);
        if !random.one_in(ONE_IN) {
            return None;
        }
        let mut pick = |from: &[u64]| from[random.below(from.len() as u64) as usize];
        let processes = pick(&[2, 3, 3, 4]) as usize;
        let session_ms = pick(&[1_000, 1_000, 2_000, 5_000]) as u32;
        let group = GroupPlan {
            processes,
            statics: pick(&[0, 0, 1, 2]) as usize,
            session_ms,
            wait_ms: session_ms / pick(&[3, 6]) as u32,
            turn_us: pick(&[20, 50, 100]) * MS,
            fault_us: pick(&[200, 500, 2_000]) * MS,
            twice_one_in: pick(&[0, 10, 30]),
        };
        let name = GroupName::new("simulated").expect("a good name");
        let range = group_range(&name, plan.ranges);
        let truth = GroupTruth::new((plan.ranges * plan.partitions) as usize);
        Some(Self { plan: group, name, range, random, truth, processes: BTreeMap::new(), started: 0 })
    }

    /// A member of a range's chain moved.
    pub fn look(&mut self, range: RangeId, replica: &Replica) {
        let view = replica.view();
        if self.range != range || !view.is_head || view.acts_in.is_none() {
            return;
        }
        let state = replica.state().groups().get(&self.name);
        let committed = view.known_committed.index;
        if view.groups_at.index <= committed {
            self.truth.is_at(committed, state);
        } else {
            self.truth.appended(view.groups_at, state);
        }
    }

    /// What its processes subscribe to.
    fn topics(plan: &Plan) -> Vec<TopicSubscription> {
        vec![TopicSubscription { topic: TOPIC, partitions: plan.ranges * plan.partitions }]
    }
}

impl World {
    /// The group's first processes start.
    pub fn begin_group(&mut self) {
        let Some(group) = &self.group else { return };
        for place in 0..group.plan.processes {
            self.start_process(place);
        }
        self.plan_process_fault();
    }

    /// Something happens about the group.
    pub fn group_event(&mut self, event: GroupEvent) -> Checked {
        match event {
            GroupEvent::Turn { process } => self.process_turn(process),
            GroupEvent::Told { process, input } => self.tell_process(process, *input),
            GroupEvent::Map { process, map, resumes } => self.process_map(process, map, resumes),
            GroupEvent::Fetched { process, request, reply } => self.process_fetched(process, request, reply),
            GroupEvent::Fault => {
                self.process_fault();
                self.plan_process_fault();
                Ok(())
            }
        }
    }

    /// An answer is on its way to a process, or the news that there is none.
    pub fn group_reply(&mut self, process: u64, asked: Asked, reply: Reply) -> Checked {
        let now = self.queue.now();
        let event = match (asked, reply) {
            (Asked::Fetch(request), Reply::Fetched(reply, entries)) => {
                GroupEvent::Fetched { process, request, reply: Some(Box::new((reply, entries))) }
            }
            (Asked::Fetch(request), _) => GroupEvent::Fetched { process, request, reply: None },
            (asked, reply) => {
                let input = Box::new(process::input_of(asked, reply));
                GroupEvent::Told { process, input }
            }
        };
        self.queue.add(now, Event::Group(event));
        Ok(())
    }

    /// What a node tells a process leaves it: all of it is committed.
    pub fn check_group_told(&mut self, node: usize, asked: Asked, reply: &Reply) -> Checked {
        let (Some(group), Reply::Group(answer)) = (&mut self.group, reply) else { return Ok(()) };
        let active = self.coordinator.chunk.ranges[group.range.0 as usize].active.as_ref();
        let is_head = active.is_some_and(|active| active.chain.first().is_some_and(|head| place(head) == node));
        if let (Asked::Heartbeat(_, sequence), false) = (asked, is_head) {
            // Its successor did not hear it.
            group.processes.values_mut().for_each(|process| process.is_unheard(asked, sequence));
        }
        match (asked, answer) {
            (Asked::Heartbeat(member, _), Answer::Heartbeat(reply)) => group.truth.told(member, reply),
            (Asked::Commit(member, _), Answer::Committed(reply)) => group.truth.acknowledged(member, reply),
            _ => Ok(()),
        }
    }

    /// What the group's range has committed by now counts.
    pub fn follow_group(&mut self) -> Checked {
        let now = self.queue.now();
        let Some(group) = &mut self.group else { return Ok(()) };
        let committed = self.truth.committed(group.range);
        while let Some(change) = group.truth.next_committed(committed, |index| self.truth.hash_at(group.range, index)) {
            for (partition, from, to) in change.taken() {
                process::check_taken(&group.processes, &group.plan, now, (partition, from, to))?;
            }
            group.truth.apply(change)?;
        }
        process::note_returning(&mut group.processes, now);
        Ok(())
    }

    fn plan_process_fault(&mut self) {
        let now = self.queue.now();
        let Some(group) = self.group.as_mut().filter(|_| !self.is_healing) else { return };
        let next = Plan::around(&mut group.random, group.plan.fault_us);
        self.queue.add(now + next, Event::Group(GroupEvent::Fault));
    }

    fn process_fault(&mut self) {
        if self.is_healing {
            return;
        }
        let now = self.queue.now();
        let Some(group) = &mut self.group else { return };
        let ids: Vec<u64> = group.processes.keys().copied().collect();
        let Some(&id) = ids.get(group.random.below(ids.len().max(1) as u64) as usize) else {
            return self.start_process(usize::MAX);
        };
        let kind = group.random.below(6);
        let frozen = Plan::around(&mut group.random, u64::from(group.plan.session_ms) * MS);
        let Some(process) = group.processes.get_mut(&id) else { return };
        let place = process.place;
        self.trace.note(now, "process fault", [id, kind, 0, 0]);
        match kind {
            0 => {
                group.processes.remove(&id);
                self.start_process(place);
            }
            1 | 2 => process.frozen_until = now + frozen,
            3 => process.ends = Some(Ending::Leaves { for_good: false }),
            4 => process.ends = Some(Ending::Leaves { for_good: true }),
            _ if ids.len() < PROCESSES_MAX => self.start_process(place),
            _ => {}
        }
    }

    /// Nothing goes wrong with processes any more, and there are some.
    pub fn heal_group(&mut self) {
        let Some(group) = &mut self.group else { return };
        for process in group.processes.values_mut() {
            (process.frozen_until, process.ends) = (0, None);
        }
        while self.group.as_ref().is_some_and(|group| group.processes.len() < 2) {
            self.start_process(usize::MAX);
        }
    }

    /// What a healed group still lacks: all is read to its end by somebody, committed, and shared fairly.
    pub fn group_lacks(&self, ends: &[u64]) -> Option<String> {
        let group = self.group.as_ref()?;
        if let Some(what) = process::unshared(&group.processes, &group.truth) {
            return Some(what);
        }
        let behind = (0..ends.len()).find(|at| group.truth.commit_of(*at as u32).unwrap_or(0) < ends[*at])?;
        let at = group.truth.commit_of(behind as u32);
        Some(format!("the group is at {at:?} of partition {behind}, which ends at {}", ends[behind]))
    }
}
