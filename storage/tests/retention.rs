//! What retention may delete, against a model that knows every entry: never an entry that must stay, and of those that may
//! go, never more than a flush is kept.

mod history;

use history::*;
use minikafka_core::entry::EntryKind;
use minikafka_core::{LogIndex, Offset, Timestamp};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor, SimRandom};
use minikafka_storage::{Opened, RangeLog, RetentionPolicy, StorageConfig};

/// A batch of the partition that is asked about.
#[derive(Clone, Copy, Debug)]
struct Batch {
    first: u64,
    end: u64,
    bytes: u64,
    appended: Timestamp,
}

fn batches(writer: &Writer, partition: u32) -> Vec<Batch> {
    let book = writer.book.borrow();
    let path = book.path_to(writer.state.end);
    let headers = path.iter().map(|point| book.at(*point).expect("written").header);
    let own = headers.filter(|header| header.kind == EntryKind::Batch && header.partition.0 == partition);
    own.map(|header| Batch {
        first: header.base_offset.0,
        end: header.next_offset().0,
        bytes: header.entry_bytes() as u64,
        appended: header.append_timestamp,
    })
    .collect()
}

/// Whether a batch may go: it is too old, or those behind it are enough. Uncommitted ones do not count.
fn may_go(batch: &Batch, all: &[Batch], up_to: u64, policy: RetentionPolicy) -> bool {
    let newer: u64 = all.iter().filter(|b| b.first >= batch.end && b.end <= up_to).map(|b| b.bytes).sum();
    policy.delete_before.is_some_and(|time| batch.appended < time)
        || policy.bytes_max.is_some_and(|bytes_max| newer >= bytes_max)
}

/// One answer against the model; returns how many batches it lets go.
async fn check(log: &RangeLog<SimDisk>, writer: &Writer, random: &mut SimRandom, context: &str) -> usize {
    let partition = random.below(5) as u32;
    let all = batches(writer, partition);
    let end = all.last().map_or(0, |batch| batch.end);
    let up_to = if random.one_in(2) { end } else { random.below(end + 1) };
    let log_start = if random.one_in(2) { 0 } else { random.below(up_to + 1) };
    let total: u64 = all.iter().map(|batch| batch.bytes).sum();
    let time = Timestamp(900 + random.below((writer.clock - 800) as u64) as i64);
    let policy = RetentionPolicy {
        delete_before: (!random.one_in(3)).then_some(time),
        bytes_max: (!random.one_in(3)).then(|| random.below(total + 2)),
    };
    let context = format!("{context}: partition {partition} of {end} from {log_start} to {up_to}, {policy:?}");
    let start = log.retention_start(key(partition), Offset(log_start), Offset(up_to), policy).await;
    let start = start.unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = start.map_or(log_start, |start| start.0);
    assert!(start.is_none_or(|start| start.0 > log_start && start.0 <= up_to), "{context}: {start:?}");
    let gone: Vec<&Batch> =
        all.iter().filter(|batch| batch.end > log_start && batch.first < found && start.is_some()).collect();
    for batch in &gone {
        assert!(may_go(batch, &all, up_to, policy), "{context}: {start:?} lets {batch:?} go");
    }
    let kept = all.iter().filter(|batch| batch.first >= found && batch.end <= up_to);
    let too_much: u64 = kept.take_while(|batch| may_go(batch, &all, up_to, policy)).map(|batch| batch.bytes).sum();
    assert!(too_much <= 2 * (33 << 10), "{context}: {start:?} keeps {too_much} bytes that could go");
    gone.len()
}

#[test]
fn retention_keeps_what_it_must_and_little_more() {
    let count = std::env::var("RETENTION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(16);
    let mut gone = 0;
    for seed in 0..count {
        let executor = SimExecutor::new(seed);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        gone += executor.run(history(disk, seed));
        executor.abandon();
    }
    assert!(gone > 5000, "only {gone} batches were let go: the test misses its aim");
}

async fn history(disk: SimDisk, seed: u64) -> usize {
    let config = StorageConfig { flush_bytes_max: 16 << 10, ..small_config() };
    let storage = storage(&disk, &sim_dir(), config.clone()).await;
    let Opened { mut log, .. } = open(&storage, &mut RangeState::default()).await;
    let mut writer = Writer::new(seed);
    let mut random = SimRandom::new(seed ^ 0xabc);
    let mut gone = 0;
    for step in 0..40 {
        for _ in 0..random.below(20) {
            log.append_space().await.expect("space");
            let (partition, bytes) = (random.below(4) as u32, random.below(3000) as u32);
            if random.one_in(15) {
                writer.append_control(&log, partition).expect("append");
            }
            writer.append(&log, partition, bytes, random.one_in(12)).expect("append");
            writer.clock += random.below(40) as i64;
        }
        let context = format!("seed {seed}, step {step}");
        match random.below(8) {
            0 => log.roll(minikafka_storage::RecoveryVisitor::take_snapshot(&mut writer.state)),
            1 => {
                durable(&log).await;
                log.set_committed(LogIndex(random.below(log.end().index.0 + 1)));
            }
            2 => truncate(&log, &mut writer, &mut random).await,
            3 => {
                durable(&log).await;
                log.close().await.expect("close");
                let again = self::history::storage(&disk, &sim_dir(), config.clone()).await;
                log = open(&again, &mut RangeState::default()).await.log;
            }
            _ => {}
        }
        for _ in 0..8 {
            gone += check(&log, &writer, &mut random, &context).await;
        }
    }
    gone
}

/// Truncates by a few entries, where that is allowed.
async fn truncate(log: &RangeLog<SimDisk>, writer: &mut Writer, random: &mut SimRandom) {
    let path = writer.book.borrow().path_to(writer.state.end);
    let index = path.len().saturating_sub(random.below(12) as usize);
    let Some(point) = index.checked_sub(1).map(|at| path[at]) else { return };
    let mut state = RangeState::default();
    if log.truncate_to(point, &mut state).await.is_ok() {
        writer.state = state;
        writer.epoch = writer.epoch.next();
    }
}
