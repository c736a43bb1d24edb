//! What goes wrong, and when: drawn from the seed, one fault at a time, each with its own end.
//!
//! No data are destroyed beyond what the protocol promises to survive: a disk is wiped, or rots, only while its ranges'
//! chains are whole and act, and never all of them ([`World::can_lose`]).

use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_broker::Shard;
use minikafka_core::chain::ChainMember;
use minikafka_core::{NodeId, RangeId};
use minikafka_storage::disk::BLOCK_BYTES;
use minikafka_storage::disk::sim::{Faults, SimDisk, SimRandom};

use crate::network::place;
use crate::plan::Plan;
use crate::queue::{MS, SECOND, Time};
use crate::world::{Event, World};

/// What a disk loses at once.
const SECTOR_BYTES: u64 = 512;

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A process is killed.
    Kill,
    /// A node loses power.
    PowerLoss,
    /// All nodes lose power.
    PowerLossOfAll,
    /// A process is killed again while it starts.
    KillRestarted,
    /// A disk is wiped.
    Wipe,
    /// Old data rot.
    Rot,
    /// A write fails.
    WriteError,
    /// A read fails.
    ReadError,
    /// A disk is full for a while.
    DiskFull,
    /// A disk completes nothing for a while, and perhaps the process is killed for it.
    DiskStall,
    /// A connection breaks.
    Break,
    /// Two nodes connect a second time.
    ConnectAgain,
    /// Two nodes do not hear each other for a while.
    CutPair,
    /// One direction between two places is cut.
    CutOneWay,
    /// A node is cut off from everybody.
    Isolate,
    /// A node and the controllers do not hear each other.
    CutController,
    /// A process stands still.
    Pause,
    /// A wall clock jumps.
    ClockJump,
    /// A broker's session ends while it runs.
    SessionExpiry,
    /// The coordinator answers nobody for a while.
    CoordinatorAway,
    /// The controller starts again.
    ControllerRestart,
    /// Another controller begins while the old one goes on for a while.
    SecondController,
    /// The operator wants a range elsewhere, or nowhere in particular: not wrong, but always at the wrong time.
    Wish,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Kill,
        Self::PowerLoss,
        Self::PowerLossOfAll,
        Self::KillRestarted,
        Self::Wipe,
        Self::Rot,
        Self::WriteError,
        Self::ReadError,
        Self::DiskFull,
        Self::DiskStall,
        Self::Break,
        Self::ConnectAgain,
        Self::CutPair,
        Self::CutOneWay,
        Self::Isolate,
        Self::CutController,
        Self::Pause,
        Self::ClockJump,
        Self::SessionExpiry,
        Self::CoordinatorAway,
        Self::ControllerRestart,
        Self::SecondController,
        Self::Wish,
    ];
}

/// An operator starts a node again that still lacks entries after so long.
const MENDING_TIME_MAX: Time = 30 * SECOND;

impl World {
    /// Something goes wrong, and the next thing is planned.
    pub fn fault(&mut self) {
        if self.is_healing {
            return;
        }
        let next = Plan::around(&mut self.random, self.plan.fault_us);
        self.queue.add(self.queue.now() + next, Event::Fault);
        let total: u64 = self.plan.weights.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return;
        }
        let mut drawn = self.random.below(total);
        let kind = self.plan.weights.iter().find(|(_, weight)| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        let kind = kind.expect("it is below the sum").0;
        let node = self.random.below(self.nodes.len() as u64) as usize;
        if self.inflict(kind, node) {
            *self.faults.entry(kind).or_default() += 1;
            self.note("fault", [kind as u64, node as u64 + 1, 0, 0]);
        }
    }

    fn inflict(&mut self, kind: FaultKind, node: usize) -> bool {
        let now = self.queue.now();
        let runs = self.nodes[node].life.is_some();
        match kind {
            FaultKind::Kill => runs && self.stop_node(node, false, true),
            FaultKind::PowerLoss => runs && self.stop_node(node, true, true),
            FaultKind::PowerLossOfAll => {
                for node in 0..self.nodes.len() {
                    self.stop_node(node, true, true);
                }
                true
            }
            FaultKind::KillRestarted => {
                // The next process is killed before it has done much.
                let at = now + 1 + self.random.below(20 * MS);
                let ended = runs && self.stop_node(node, false, false);
                if ended {
                    self.queue.add(now + 1, Event::NodeStart { node });
                    self.queue.add(at, Event::NodeStop { node });
                }
                ended
            }
            FaultKind::Wipe => self.lose_disk(node),
            FaultKind::Rot => runs && self.plan.replication > 2 && self.can_lose(node) && self.rot(node),
            FaultKind::WriteError | FaultKind::ReadError | FaultKind::DiskFull | FaultKind::DiskStall => {
                self.harm_disk(kind, node)
            }
            FaultKind::Pause => {
                let until = now + Plan::around(&mut self.random, SECOND);
                self.nodes[node].paused_until = until;
                runs
            }
            FaultKind::ClockJump => {
                let skew = self.random.below(7_200_000) as i64 - 3_600_000;
                self.nodes[node].wall_skew_ms = skew;
                self.plan.clocks_lie
            }
            FaultKind::SessionExpiry => self.expire_session(node),
            FaultKind::CoordinatorAway => {
                self.coordinator.away_until = now + Plan::around(&mut self.random, SECOND);
                true
            }
            FaultKind::ControllerRestart => {
                self.restart_controller(0);
                true
            }
            FaultKind::SecondController => {
                let both = Plan::around(&mut self.random, SECOND);
                self.restart_controller(both);
                true
            }
            FaultKind::Wish => {
                self.wish();
                true
            }
            FaultKind::Break
            | FaultKind::ConnectAgain
            | FaultKind::CutPair
            | FaultKind::CutOneWay
            | FaultKind::Isolate
            | FaultKind::CutController => self.harm_network(kind, node),
        }
    }

    fn harm_disk(&mut self, kind: FaultKind, node: usize) -> bool {
        let now = self.queue.now();
        let runs = self.nodes[node].life.is_some();
        match kind {
            FaultKind::WriteError | FaultKind::ReadError => {
                let after = Some(self.random.below(20));
                let is_write = kind == FaultKind::WriteError;
                let (write, read) = if is_write { (after, None) } else { (None, after) };
                self.on_disk(node, |disk| disk.set_faults(Faults { write, read, ..Faults::default() }))
            }
            FaultKind::DiskFull => {
                let room = self.random.below(300_000);
                self.queue.add(now + Plan::around(&mut self.random, SECOND), Event::DiskRoom { node });
                self.on_disk(node, |disk| disk.set_capacity(disk.used_bytes() + room))
            }
            FaultKind::DiskStall => {
                let long = Plan::around(&mut self.random, 100 * MS);
                self.nodes[node].disk_stalled_until = now + long;
                if runs && self.random.one_in(2) {
                    self.queue.add(now + 1 + self.random.below(long), Event::NodeStop { node });
                }
                runs
            }
            _ => unreachable!("{kind:?} is nothing that a disk does"),
        }
    }

    fn harm_network(&mut self, kind: FaultKind, node: usize) -> bool {
        let places = self.nodes.len() + 2;
        let other = (node + 1 + self.random.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        let cut: Vec<(usize, usize)> = match kind {
            FaultKind::Break => {
                self.break_connection(node, other);
                return true;
            }
            FaultKind::ConnectAgain => {
                self.connect_again(node, other);
                return true;
            }
            FaultKind::CutPair => vec![(node, other), (other, node)],
            FaultKind::CutOneWay => vec![(node, other)],
            FaultKind::CutController => {
                let controllers = self.network.controllers();
                if self.random.one_in(2) {
                    vec![(node, controllers), (controllers, node)]
                } else {
                    vec![(node, controllers)]
                }
            }
            _ => (0..places).flat_map(|place| [(node, place), (place, node)]).collect(),
        };
        for &(from, to) in &cut {
            self.network.block(from, to, true);
        }
        let at = self.queue.now() + Plan::around(&mut self.random, 2 * SECOND);
        self.queue.add(at, Event::NetworkFree { cut: cut.clone() });
        if self.random.one_in(2) {
            for (from, to) in cut {
                if from < self.nodes.len() && to < self.nodes.len() {
                    self.break_connection(from, to);
                }
            }
        }
        true
    }

    fn on_disk(&mut self, node: usize, harm: impl FnOnce(&SimDisk)) -> bool {
        match &self.nodes[node].life {
            Some(life) => {
                harm(&life.disk);
                true
            }
            None => false,
        }
    }

    /// Wipes the disk of one node or, with a chain of three, of two at once.
    fn lose_disk(&mut self, node: usize) -> bool {
        if !self.can_lose(node) {
            return false;
        }
        let mut lost = vec![node];
        if self.random.one_in(4) {
            let other = (node + 1) % self.nodes.len();
            if self.can_lose_both(node, other) {
                lost.push(other);
            }
        }
        let keeps =
            minikafka_core::chain::planted::is_planted(minikafka_core::chain::planted::PlantedBug::WipedDiskKeepsStore);
        for node in lost {
            self.stop_node(node, true, true);
            self.nodes[node].wipe(keeps, &mut self.random);
        }
        true
    }

    fn rot(&mut self, node: usize) -> bool {
        let Some(life) = &self.nodes[node].life else { return false };
        let paths = life.disk.paths();
        // A chain may come to consist of those whose disks rotted: of each range only one copy does.
        let others = self.nodes.iter().enumerate().filter(|(at, _)| *at != node);
        let taken: Vec<PathBuf> = others.flat_map(|(_, node)| node.rotten_dirs.iter().cloned()).collect();
        let is_free = |path: &PathBuf| path.starts_with("/data/data") && !taken.iter().any(|dir| path.starts_with(dir));
        let files: Vec<_> = paths.into_iter().filter(is_free).collect();
        if files.is_empty() {
            return false;
        }
        let path = &files[self.random.below(files.len() as u64) as usize];
        let bytes = life.disk.contents(path).len() as u64;
        if bytes == 0 {
            return false;
        }
        for _ in 0..=self.random.below(3) {
            rot_once(&life.disk, path, bytes, &mut self.random);
        }
        let dir = path.parent().unwrap_or(path).to_owned();
        self.nodes[node].rotten_dirs.push(dir);
        (self.nodes[node].has_rot, self.nodes[node].had_rot) = (true, true);
        true
    }

    /// Whether this node's data may go: its chains are whole and act, and somebody else has them.
    pub fn can_lose(&self, node: usize) -> bool {
        self.can_lose_both(node, node)
    }

    fn can_lose_both(&self, one: usize, other: usize) -> bool {
        let lost = |id: NodeId| {
            let at = id.0 as usize - 1;
            at == one || at == other || self.nodes[at].has_rot
        };
        self.plan.replication > 1
            && self.coordinator.chunk.ranges.iter().all(|record| {
                let Some(active) = &record.active else { return record.pending.is_none() };
                // Of a change under way nobody but its controller knows who takes part.
                let is_mine = record.pending.is_some() || active.chain.iter().any(|member| lost(member.node));
                let acts = active.chain.iter().all(|member| self.acts(member, active.epoch));
                !is_mine || (record.pending.is_none() && acts && active.chain.iter().any(|member| !lost(member.node)))
            })
    }

    /// Ends all harm: what an operator does who has a good day.
    pub fn heal(&mut self) {
        self.is_healing = true;
        self.plan.heal();
        self.network.unblock_all();
        self.free_network();
        self.coordinator.away_until = 0;
        for node in 0..self.nodes.len() {
            (self.nodes[node].paused_until, self.nodes[node].disk_stalled_until) = (0, 0);
            self.on_disk(node, |disk| {
                disk.set_faults(Faults::default());
                disk.set_capacity(u64::MAX);
            });
            if self.has_failed(node) || self.lacks_entries(node) || self.nodes[node].has_rot {
                self.stop_node(node, false, false);
            }
            if self.nodes[node].has_rot {
                self.is_beyond_promise |= !self.has_other_survivors(node);
                // An operator may give it an empty disk; if not, the others make up for what rotted.
                if self.random.one_in(2) {
                    self.nodes[node].wipe(false, &mut self.random);
                }
            }
            if self.nodes[node].life.is_none() {
                self.nodes[node].disk.set_faults(Faults::default());
                self.nodes[node].disk.set_capacity(u64::MAX);
                self.queue.add(self.queue.now() + 10 * MS, Event::NodeStart { node });
            }
        }
        self.restart_controller(0);
        self.wish_again();
        self.heal_group();
    }

    /// Whether every range of a node has a survivor elsewhere. An empty one may not: nothing of it was ever acknowledged, and a
    /// power loss may have cost the others its marker, since the rot.
    fn has_other_survivors(&self, node: usize) -> bool {
        self.coordinator.chunk.ranges.iter().enumerate().all(|(at, record)| {
            let Some(active) = &record.active else { return true };
            let survives = |member: &ChainMember| {
                let life = self.nodes[place(member)].life.as_ref();
                let view = life.and_then(|life| life.members.get(&RangeId(at as u32))?.view);
                place(member) != node && view.is_some_and(|view| view.marker >= active.epoch && !view.failed)
            };
            let holds = active.chain.iter().any(|member| place(member) == node);
            !holds || active.chain.iter().any(survives)
        })
    }

    fn has_failed(&self, node: usize) -> bool {
        let Some(life) = &self.nodes[node].life else { return false };
        let is_failed = life.members.values().any(|member| member.view.is_some_and(|view| view.failed));
        is_failed || life.shards().iter().any(|shard| shard.has_failed())
    }

    /// What could not be read when the range was opened counts as lost until others make up for it, or the node is started
    /// again.
    fn lacks_entries(&self, node: usize) -> bool {
        let Some(life) = &self.nodes[node].life else { return false };
        let lacks = |shard: &Rc<Shard<SimDisk>>| shard.ranges().iter().any(|range| range.log().loss().is_some());
        life.shards().iter().any(lacks)
    }

    /// Who was told of a failed write only after the healing is started again, too, and who is not mended for long.
    pub fn restart_failed(&mut self) {
        for node in 0..self.nodes.len() {
            let is_old = self.queue.now() > self.nodes[node].started_at + MENDING_TIME_MAX;
            if self.has_failed(node) || is_old && self.lacks_entries(node) {
                self.stop_node(node, false, false);
                self.queue.add(self.queue.now() + 10 * MS, Event::NodeStart { node });
            }
        }
    }
}

/// One of the ways in which media lie: a bit flips, sectors are lost, hold something else or cannot be read.
fn rot_once(disk: &SimDisk, path: &Path, bytes: u64, random: &mut SimRandom) {
    let position = random.below(bytes);
    let sector = position / SECTOR_BYTES * SECTOR_BYTES;
    let run = ((1 + random.below(8)) * SECTOR_BYTES).min(bytes - sector);
    match random.below(8) {
        0 => disk.overwrite(path, sector, &vec![0; run as usize]),
        1 => {
            let noise: Vec<u8> = (0..run).map(|_| random.next_u64() as u8).collect();
            disk.overwrite(path, sector, &noise);
        }
        2 => {
            // What was to go here went elsewhere, or the other way round.
            let from = (random.below(bytes) / SECTOR_BYTES * SECTOR_BYTES).min(bytes - run);
            let misplaced = disk.contents(path)[from as usize..(from + run) as usize].to_vec();
            disk.overwrite(path, sector, &misplaced);
        }
        3 => disk.spoil(path, position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64),
        _ => disk.flip_bit(path, position, random.below(8) as u8),
    }
}
