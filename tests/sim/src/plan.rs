//! What a seed decides about its world before it begins: sizes, speeds, and which faults there are at what rate.
//!
//! Each seed enables a subset of the faults of its own ("swarm testing": Groce and others, 2012), because faults hide each
//! other: where every node restarts all the time, nothing runs long enough for a slow one to matter.

use minikafka_core::NodeId;
use minikafka_core::chain::controller::ControllerSettings;
use minikafka_core::limits::COPY_BYTES_PER_SECOND_MIN;
use minikafka_core::topic::TopicConfig;
use minikafka_storage::StorageConfig;
use minikafka_storage::disk::sim::SimRandom;

use crate::faults::FaultKind;
use crate::queue::{MS, SECOND, Time};

/// What goes wrong goes wrong about this often, at most.
const FAULT_US_MIN: Time = 30 * MS;

/// The world of one seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Broker nodes, at most.
    pub nodes: usize,
    /// Shards of each.
    pub shards: u16,
    /// Racks over which the nodes are spread; 0: nobody said.
    pub racks: u32,
    /// Ranges of the one chunk.
    pub ranges: u32,
    /// Members of a chain.
    pub replication: u16,
    /// Partitions of each range.
    pub partitions: u32,
    /// Producers.
    pub producers: usize,
    /// Consumers.
    pub consumers: usize,
    /// Batches that a producer has in flight on one partition.
    pub window: usize,
    /// A producer makes a batch about this often.
    pub think_us: Time,
    /// A consumer asks about this often.
    pub poll_us: Time,
    /// A message takes about this long.
    pub delay_us: Time,
    /// One in so many messages takes much longer.
    pub slow_one_in: u64,
    /// One in so many messages of controllers and clients gets lost; 0: none.
    pub lost_one_in: u64,
    /// One in so many messages of controllers arrives twice; 0: none.
    pub twice_one_in: u64,
    /// One in so many replies of the coordinator gets lost; 0: none.
    pub unknown_one_in: u64,
    /// Something goes wrong about this often.
    pub fault_us: Time,
    /// How likely each kind of fault is.
    pub weights: Vec<(FaultKind, u64)>,
    /// A dead node comes back after about this long.
    pub restart_us: Time,
    /// Bytes of a record's value, at most.
    pub value_bytes: u64,
    /// How long controllers wait.
    pub controller: ControllerSettings,
    /// Sizes of logs.
    pub storage: StorageConfig,
    /// Whether wall clocks are wrong.
    pub clocks_lie: bool,
    /// What old records are deleted by, if they are.
    pub retention: Option<Retention>,
    /// What learners may copy from a shard in a second; none: as much as they can.
    pub copy_bytes_per_second: Option<u64>,
}

/// What is deleted, and how often that is looked at. Partitions differ, so that live records lie between dead ones.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Records older than this go; -1: none.
    pub ms: i64,
    /// Bytes that a partition keeps; -1: all.
    pub bytes: i64,
    /// Each shard looks this often.
    pub check_us: Time,
}

fn pick<T: Copy>(random: &mut SimRandom, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}

impl Plan {
    /// Draws a plan.
    pub fn draw(random: &mut SimRandom) -> Self {
        let nodes = pick(random, &[3, 3, 4, 4, 5]);
        let replication = pick(random, &[3, 3, 3, 3, 3, 2, 2, 1]);
        let weights = FaultKind::ALL
            .into_iter()
            .map(|kind| (kind, if random.below(100) < 45 { 1 + random.below(4) } else { 0 }))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        let quick = random.one_in(2);
        let controller = ControllerSettings {
            seal_wait_ms: if quick { 200 } else { ControllerSettings::default().seal_wait_ms },
            reconcile_wait_ms: if quick { 2_000 } else { ControllerSettings::default().reconcile_wait_ms },
            activate_wait_ms: if quick { 300 } else { ControllerSettings::default().activate_wait_ms },
            orphan_wait_ms: if quick { 100 } else { ControllerSettings::default().orphan_wait_ms },
            ..ControllerSettings::default()
        };
        Self {
            nodes,
            shards: if random.one_in(4) { 2 } else { 1 },
            racks: pick(random, &[0, 0, 2, 3]),
            ranges: pick(random, &[1, 1, 2, 4]),
            replication,
            partitions: 1 + random.below(3) as u32,
            producers: 2 + random.below(3) as usize,
            consumers: 1 + random.below(3) as usize,
            window: 1 + random.below(6) as usize,
            think_us: pick(random, &[2, 5, 10, 20, 50]) * MS,
            poll_us: pick(random, &[10, 30, 100]) * MS,
            delay_us: pick(random, &[50, 100, 300, 1_000, 3_000]),
            slow_one_in: pick(random, &[20, 100, 1_000]),
            lost_one_in: pick(random, &[0, 0, 20, 100]),
            twice_one_in: pick(random, &[0, 0, 10, 50]),
            unknown_one_in: pick(random, &[0, 3, 10]),
            fault_us: pick(random, &[FAULT_US_MIN, 100 * MS, 300 * MS, 1_000 * MS]),
            weights,
            restart_us: pick(random, &[5, 50, 500, 3_000]) * MS,
            value_bytes: pick(random, &[60, 60, 300, 6_000]),
            controller,
            storage: storage(random),
            clocks_lie: random.one_in(2),
            retention: if random.one_in(2) { Some(retention(random)) } else { None },
            copy_bytes_per_second: if random.one_in(4) { Some(COPY_BYTES_PER_SECOND_MIN) } else { None },
        }
    }

    /// Only these faults happen, as often as any seed has some.
    pub fn insist_on(&mut self, only: &[FaultKind]) {
        self.weights = only.iter().map(|kind| (*kind, 1)).collect();
        self.fault_us = FAULT_US_MIN;
    }

    /// Settings of a partition.
    pub fn config_of(&self, partition: u32) -> TopicConfig {
        match self.retention {
            Some(Retention { ms, bytes, .. }) if partition.is_multiple_of(2) => {
                TopicConfig { retention_ms: ms, retention_bytes: bytes, ..TopicConfig::default() }
            }
            Some(Retention { bytes, .. }) => {
                TopicConfig { retention_ms: -1, retention_bytes: bytes.saturating_mul(6), ..TopicConfig::default() }
            }
            None => TopicConfig::default(),
        }
    }

    /// Where a node is.
    pub fn rack(&self, node: NodeId) -> String {
        node.0.checked_rem(self.racks).map_or_else(String::new, |rack| format!("rack-{rack}"))
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        self.weights.clear();
        (self.lost_one_in, self.twice_one_in, self.unknown_one_in) = (0, 0, 0);
        self.delay_us = self.delay_us.min(MS);
        self.slow_one_in = 1_000;
    }

    /// Draws whether something that happens once in `n` times happens; never, when `n` is 0.
    pub fn once_in(random: &mut SimRandom, n: u64) -> bool {
        n > 0 && random.one_in(n)
    }

    /// How long one message takes.
    pub fn delay(&self, random: &mut SimRandom) -> Time {
        let scale = if random.one_in(self.slow_one_in) { self.delay_us * 40 } else { self.delay_us };
        1 + random.below(scale)
    }

    /// A time around `mean`, now and then much longer.
    pub fn around(random: &mut SimRandom, mean: Time) -> Time {
        let scale = if random.one_in(16) { mean * 8 } else { mean * 2 };
        1 + random.below(scale.min(100 * SECOND))
    }
}

fn retention(random: &mut SimRandom) -> Retention {
    Retention {
        ms: pick(random, &[-1, -1, 500, 3_000]),
        bytes: pick(random, &[1 << 13, 1 << 15, 1 << 17]),
        check_us: pick(random, &[50, 200, 1_000]) * MS,
    }
}

/// Small sizes, so that a short history rolls segments and waits for space.
fn storage(random: &mut SimRandom) -> StorageConfig {
    let segment_bytes_min = pick(random, &[1 << 16, 1 << 17, 1 << 18]);
    StorageConfig {
        segment_bytes_min,
        segment_bytes_max: segment_bytes_min * 4,
        flush_bytes_max: 1 << 15,
        flush_in_flight_bytes_max: 1 << 18,
        flush_charge_bytes_min: 1 << 12,
        undurable_bytes_max: pick(random, &[1 << 16, 1 << 18]),
        recent_bytes_max: pick(random, &[0, 1 << 16, 1 << 20]),
        footer_bytes_max: 1 << 18,
        freed_run_bytes_min: 1 << 14,
        punch_patience_ms: 0,
        pool_bytes_max: 1 << 20,
        reserve_bytes: 0,
    }
}
