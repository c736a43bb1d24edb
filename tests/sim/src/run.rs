//! One seed: harm, healing, and the demand that everything converges.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minikafka_core::coordination::{ActiveChain, RangeRecord};
use minikafka_core::limits::SCRUB_READ_BYTES;
use minikafka_core::{LogIndex, RangeId};
use minikafka_storage::{Damage, DamageKind};

use crate::client::consumer::Consumer;
use crate::client::range_of;
use crate::faults::FaultKind;
use crate::invariants::{Checked, Violation, ViolationKind};
use crate::network::place;
use crate::queue::{SECOND, Time};
use crate::running::RunningSeed;
use crate::world::{Event, World};

/// Virtual time of phase one, at most.
const HARM_TIME_MAX: Time = 600 * SECOND;
/// Virtual time in which a healed world must converge.
const HEALING_TIME_MAX: Time = 900 * SECOND;
/// Steps between two looks whether it has.
const LOOK_STEPS: u64 = 64;

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Steps of phase one.
    pub steps: u64,
    /// Print everything that happens.
    pub is_verbose: bool,
    /// Go on when a rule is broken, until data are.
    pub is_data_only: bool,
    /// Faults that happen again and again, and no others; none: what the seed says.
    pub only: Option<&'static [FaultKind]>,
}

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Events.
    pub steps: u64,
    /// Hash over all of them.
    pub trace_hash: u64,
    /// Entries committed.
    pub commits: u64,
    /// Chains activated.
    pub epochs: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Generations of consumer groups.
    pub generations: u64,
    /// Commits of theirs that moved a partition on.
    pub group_commits: u64,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// What was broken, if anything was.
    pub failure: Option<Failure>,
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// By which seed.
    pub seed: u64,
    /// In how many steps of phase one it was run.
    pub steps: u64,
    /// What sort of promise was broken.
    pub kind: ViolationKind,
    /// What was broken.
    pub what: String,
    /// The last that happened.
    pub trace: String,
    /// The world that the seed drew.
    pub plan: String,
}

/// Runs a seed to its end, or to its first violation.
pub fn run_seed(seed: u64, options: &RunOptions) -> Outcome {
    let _running = RunningSeed::begin(seed, options.steps);
    let mut world = World::new(seed, options);
    let run = catch_unwind(AssertUnwindSafe(|| world.run(options.steps)));
    let ended = run.unwrap_or_else(|panic| {
        let what = format!("panicked: {}", panic_text(&*panic));
        Err(Violation { kind: ViolationKind::Panic, what })
    });
    let failure = ended.err().map(|Violation { kind, what }| Failure {
        seed,
        steps: options.steps,
        kind,
        what,
        trace: world.trace.tail(),
        plan: format!("{:?}", world.plan),
    });
    let (generations, group_commits) = world.group.as_ref().map_or((0, 0), |group| group.truth.counts);
    Outcome {
        steps: world.steps,
        acknowledged: world.acknowledged,
        generations,
        group_commits,
        trace_hash: world.trace.hash(),
        commits: world.truth.commits,
        epochs: world.truth.epochs,
        faults: std::mem::take(&mut world.faults),
        failure,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

impl World {
    fn run(&mut self, steps: u64) -> Checked {
        while self.steps < steps && self.queue.now() < HARM_TIME_MAX {
            self.step()?;
        }
        self.note("healing", [0; 4]);
        self.heal();
        if self.is_beyond_promise {
            return Ok(());
        }
        self.converge("converges", |world| world.unconverged())?;
        self.read_everything()?;
        self.scrub();
        self.converge("is mended", |world| world.unmended())?;
        let ends: Vec<u64> = (0..self.plan.ranges * self.plan.partitions).map(|at| self.end_of(at)).collect();
        self.converge("lets the group read all", |world| world.group_lacks(&ends))?;
        self.judge()
    }

    /// Reads what nobody reads where disks rotted, so that all damage is met.
    fn scrub(&mut self) {
        let now = self.queue.now();
        for node in self.nodes.iter_mut().filter(|node| node.has_rot && node.life.is_some()) {
            let life = node.awake(now);
            for shard in life.shards() {
                let left = life.scrubs_left.clone();
                left.set(left.get() + 1);
                life.executor.spawn(async move {
                    for range in shard.ranges() {
                        let mut from = LogIndex(0);
                        while let Some((next, _)) = range.scrub_some(from, SCRUB_READ_BYTES).await {
                            from = next;
                        }
                    }
                    left.set(left.get() - 1);
                });
            }
        }
    }

    /// What the logs of chains' members still lack.
    fn unmended(&self) -> Option<String> {
        self.members().into_iter().find_map(|(range, node)| {
            let life = self.nodes[node].life.as_ref()?;
            if life.scrubs_left.get() > 0 {
                return Some(format!("node {} is read", node + 1));
            }
            let ranges = life.shards().into_iter().filter_map(|shard| shard.range(self.range_key(range)));
            // A footer whose state is in no other is done without: its entries are served all the same.
            let lacks = |damage: &Damage| {
                damage.first_index <= damage.last_index
                    && !matches!(damage.kind, DamageKind::Footer | DamageKind::FreedRuns)
            };
            let mendable = ranges.filter(|range| !range.is_beyond_mending());
            let (log, damage) = mendable
                .flat_map(|range| {
                    let log = range.log().clone();
                    range.log().damage().into_iter().map(move |damage| (log.clone(), damage))
                })
                .find(|(_, damage)| lacks(damage))?;
            let (first, end, stretch) = (log.first_index(), log.end().index, log.damaged_stretch(LogIndex(0)));
            let node = node + 1;
            Some(format!("range {range} of node {node}, entries {first} to {end}: {damage}; to be mended: {stretch:?}"))
        })
    }

    /// Goes on until nothing is left to wait for.
    fn converge(&mut self, what: &str, left: impl Fn(&Self) -> Option<String>) -> Checked {
        let deadline = self.queue.now() + HEALING_TIME_MAX;
        loop {
            for _ in 0..LOOK_STEPS {
                self.step()?;
            }
            self.restart_failed();
            let Some(left) = left(self) else { return Ok(()) };
            if self.queue.now() > deadline {
                let (alerts, damage) = (self.alerts(), self.damage());
                return Err(Violation::liveness(format!(
                    "healed and it never {what}: {left}; alerts: {alerts:?}; damage: {damage:?}"
                )));
            }
        }
    }

    /// What the logs of all nodes say about damage.
    fn damage(&self) -> Vec<String> {
        let lives = self.nodes.iter().filter_map(|node| Some((node.id, node.life.as_ref()?)));
        let ranges = lives.flat_map(|(id, life)| {
            life.shards().into_iter().flat_map(|shard| shard.ranges()).map(move |range| (id, range))
        });
        let noted = ranges.flat_map(|(id, range)| {
            let (key, loss) = (range.key(), range.log().loss());
            range
                .log()
                .damage()
                .into_iter()
                .map(move |damage| format!("node {id}, range {key}: {damage}; loss: {loss:?}"))
        });
        noted.collect()
    }

    /// What a healed world still lacks.
    fn unconverged(&self) -> Option<String> {
        if let Some(node) = self.nodes.iter().find(|node| node.life.is_none()) {
            return Some(format!("node {} does not run", node.id));
        }
        if !self.topics.are_open() {
            return Some("partitions are not open".to_owned());
        }
        let wanted = usize::from(self.plan.replication).min(self.nodes.len());
        for (at, record) in self.coordinator.chunk.ranges.iter().enumerate() {
            let range = RangeId(at as u32);
            let wish = self.wishes.get(&range);
            let is_wanted = |active: &&ActiveChain| match wish {
                Some(nodes) => active.chain.iter().map(|member| &member.node).eq(nodes),
                None => active.chain.len() == wanted,
            };
            let Some(active) = record.active.as_ref().filter(is_wanted) else {
                return Some(format!("range {at}, wanted on {wish:?}, is {record:?}"));
            };
            let committed = self.truth.committed(range);
            for member in &active.chain {
                let life = self.nodes[place(member)].life.as_ref();
                let view = life.and_then(|life| life.members.get(&range)).and_then(|log| log.view);
                let is_there = view.is_some_and(|view| {
                    view.acts_in == Some(active.epoch)
                        && view.known_committed.index == committed
                        && view.end.index == committed
                        && view.durable == committed
                });
                if !is_there {
                    return Some(format!("range {at}, {committed} committed in {active:?}: {member:?} is {view:?}"));
                }
            }
        }
        let producer = self.producers.iter().position(|producer| !producer.is_drained())?;
        Some(format!("producer {producer} has batches that are not answered"))
    }

    /// Every member of every chain serves everything, and the same; also those of chains that form in the meantime.
    fn read_everything(&mut self) -> Checked {
        let mut asked = Vec::new();
        loop {
            let news: Vec<_> = self.members().into_iter().filter(|member| !asked.contains(member)).collect();
            if news.is_empty() {
                return Ok(());
            }
            for member in news {
                asked.push(member);
                let consumer = self.consumers.len();
                let reader = Consumer::fixed(consumer, &self.plan, self.map.clone(), &mut self.history, member);
                self.consumers.push(reader);
                self.queue.add(self.queue.now(), Event::ConsumerTurn { consumer });
            }
            self.read_to_the_end()?;
        }
    }

    fn read_to_the_end(&mut self) -> Checked {
        let ends: Vec<u64> = (0..self.plan.ranges * self.plan.partitions).map(|at| self.end_of(at)).collect();
        self.converge("serves all", |world| {
            let members = world.members();
            world.consumers.iter().enumerate().find_map(|(at, consumer)| {
                // Who left the chain need not serve, nor who lost for good what others have.
                let is_excused = |fixed: &(RangeId, usize)| !members.contains(fixed) || world.is_beyond_mending(*fixed);
                consumer.fixed.filter(is_excused).map_or(Some(()), |_| None)?;
                let reads = |partition: &usize| {
                    consumer.fixed.is_none_or(|(range, _)| range_of(&world.plan, *partition as u32) == range)
                };
                let behind = (0..ends.len()).filter(reads).find(|at| consumer.positions[*at] < ends[*at])?;
                let (position, from) = (consumer.positions[behind], consumer.fixed.map(|(_, node)| node + 1));
                Some(format!(
                    "consumer {at} (of node {from:?}) is at {position} of partition {behind}, not {}",
                    ends[behind]
                ))
            })
        })
    }

    /// Whether a disk rotted so that no entries of others make up for it.
    fn is_beyond_mending(&self, (range, node): (RangeId, usize)) -> bool {
        let Some(life) = self.nodes[node].life.as_ref().filter(|_| self.nodes[node].has_rot) else { return false };
        let ranges = life.shards().into_iter().filter_map(|shard| shard.range(self.range_key(range)));
        ranges.into_iter().any(|range| range.is_beyond_mending())
    }

    /// Who is in the chain of which range.
    fn members(&self) -> Vec<(RangeId, usize)> {
        let members_of = |(at, record): (usize, &RangeRecord)| -> Vec<(RangeId, usize)> {
            let chain = record.active.iter().flat_map(|active| &active.chain);
            chain.map(|member| (RangeId(at as u32), place(member))).collect()
        };
        self.coordinator.chunk.ranges.iter().enumerate().flat_map(members_of).collect()
    }

    /// The committed end of a partition, at its head.
    fn end_of(&self, partition: u32) -> u64 {
        let range = range_of(&self.plan, partition);
        let active = self.coordinator.chunk.ranges[range.0 as usize].active.as_ref();
        let head = active.and_then(|active| active.chain.first());
        let shard = head.and_then(|head| self.nodes[place(head)].life.as_ref()?.shard(head.shard));
        let range = shard.and_then(|shard| shard.range(self.range_key(range)));
        let offsets = range.and_then(|range| range.offsets(crate::client::partition_key(partition)));
        offsets.map_or(0, |offsets| offsets.committed_end.0)
    }

    /// The whole history of the clients.
    fn judge(&mut self) -> Checked {
        self.truth.check_order()?;
        let members = self.members();
        for consumer in &self.consumers {
            for partition in 0..consumer.positions.len() {
                let range = range_of(&self.plan, partition as u32);
                let must_serve = |fixed: (RangeId, usize)| members.contains(&fixed) && !self.is_beyond_mending(fixed);
                if consumer.fixed.is_some_and(|fixed| fixed.0 == range && must_serve(fixed)) {
                    consumer.finish(partition, &mut self.history);
                }
            }
        }
        let mut history = std::mem::take(&mut self.history);
        self.dump_logs(&mut history)?;
        let report = history.check();
        if report.anomalies.is_empty() { Ok(()) } else { Err(Violation::data(report.to_string())) }
    }
}
