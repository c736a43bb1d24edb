//! Freeing space, crashed at every step: sidecar, rename, punch, unlink, recycle. What is live is there, what is dead is told
//! as freed or is whole, and freeing again leaves what it would have left without the crash.
//!
//! Each of these was broken by hand and made tests here fail: the sidecar's name is not synced; holes are punched before
//! the sidecar is there; the newest sealed segment is dropped; a sidecar goes before its segment; recovery does not sync
//! the names it found; holes are not punched again after a crash.

mod history;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use history::*;
use minikafka_core::entry::EntryKind;
use minikafka_core::{LogIndex, LogPoint, Offset, PartitionKey};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::sim::{Faults, SimDisk, SimExecutor};
use minikafka_storage::{Freed, LogError, LogUsage, Opened, RangeLog, RecoveryVisitor};

/// What holds from a moment on.
#[derive(Clone, Debug)]
struct Fact {
    moment: usize,
    durable: LogPoint,
    starts: LogStarts,
}

struct History {
    disk: SimDisk,
    writer: Writer,
    starts: LogStarts,
    facts: Vec<Fact>,
}

impl History {
    fn draw(&mut self, bound: u64) -> u64 {
        self.writer.random.below(bound)
    }

    fn note(&mut self) {
        let (moment, durable) = (self.disk.moment(), self.writer.state.end);
        self.facts.push(Fact { moment, durable, starts: self.starts.clone() });
    }

    async fn append(&mut self, log: &RangeLog<SimDisk>, entries: u64) {
        // A stretch of one partition, then of another: so that dead runs come to be.
        let mut partition = 0;
        for at in 0..entries {
            if at % 9 == 0 {
                partition = self.draw(4) as u32;
            }
            log.append_space().await.expect("space");
            match self.draw(20) {
                0 => self.writer.append_control(log, partition).expect("append"),
                1 => drop(self.writer.append(log, partition, 70_000, true).expect("append")),
                2 => log.roll(self.writer.state.take_snapshot()),
                _ => {
                    let bytes = self.draw(6000) as u32;
                    self.writer.append(log, partition, bytes, false).expect("append");
                }
            }
        }
        durable(log).await;
        log.set_committed(log.end().index);
        settled(log).await;
        self.note();
    }

    /// Moves the log start of some partitions, to some entry's end or to the end of all.
    fn move_starts(&mut self) {
        if self.draw(5) == 0 {
            // Now and then all is dead: the newest footer must stay even so.
            self.starts = self.writer.state.offsets.clone();
        }
        let path = self.writer.book.borrow().path_to(self.writer.state.end);
        for partition in 0..4 {
            if self.draw(3) == 0 {
                continue;
            }
            let upper = LogIndex(self.draw(self.writer.state.end.index.0 + 1));
            let book = self.writer.book.borrow();
            let headers = path.iter().map(|point| book.at(*point).expect("written").header);
            let ends = headers
                .filter(|h| h.kind == EntryKind::Batch && h.partition.0 == partition && h.index <= upper)
                .map(|header| header.next_offset().0);
            let start = self.starts.entry(partition).or_default();
            *start = ends.fold(*start, u64::max);
        }
    }
}

async fn free(log: &RangeLog<SimDisk>, starts: &LogStarts) -> Result<Freed, LogError> {
    log.free_space(&|key: PartitionKey| Some(Offset(log_start(starts, key.partition.0)))).await
}

/// A history and the moment at which freeing began.
fn history(seed: u64) -> (SimDisk, Book, Vec<Fact>, usize) {
    let durability = if seed.is_multiple_of(2) { Durability::Dsync } else { Durability::GroupFdatasync };
    let executor = SimExecutor::new(seed);
    let disk = SimDisk::new(&executor, durability);
    let (used, writer) = (disk.clone(), Writer::new(seed ^ 0x5eed));
    let mut history = History { disk: disk.clone(), writer, starts: LogStarts::new(), facts: Vec::new() };
    let (book, facts, begun) = executor.run(async move {
        let storage = storage(&used, &sim_dir(), small_config()).await;
        let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
        history.append(&log, 120).await;
        let begun = used.moment();
        let mut total = Freed::default();
        for round in 0..6 {
            history.move_starts();
            history.note();
            let freed = free(&log, &history.starts).await.expect("free space");
            total.segments_dropped += freed.segments_dropped;
            total.bytes_punched += freed.bytes_punched;
            let book = history.writer.book.borrow().clone();
            let context = format!("seed {seed}, round {round}");
            check_live_by_index(&log, &book, &history.starts, &context).await;
            check_live_by_partition(&log, &book, 30_000, &history.starts, &context).await;
            check_no_leak(&storage, &log, &context).await;
            if round % 2 == 1 {
                history.append(&log, 20).await;
            }
        }
        assert!(total.segments_dropped > 0 && total.bytes_punched > 0, "seed {seed}: {total:?}");
        let book = history.writer.book.borrow().clone();
        (book, history.facts, begun)
    });
    executor.abandon();
    (disk, book, facts, begun)
}

/// Recovers what a crash left, and frees once more.
fn check_crash(disk: SimDisk, moment: usize, book: &Book, facts: &[Fact], context: &str) {
    let fact = facts.iter().rev().find(|fact| fact.moment <= moment).cloned().expect("a fact");
    let (book, context) = (book.clone(), context.to_owned());
    let executor = disk.executor().clone();
    executor.run(async move {
        let usage = open_and_free(&disk, &book, &fact, &context).await;
        // What the first life freed and did not say is freed by the second; the third finds nothing to do.
        let disk = disk.killed(disk.executor());
        assert_eq!(open_and_free(&disk, &book, &fact, &context).await, usage, "{context}: a second recovery");
    });
    executor.abandon();
}

async fn open_and_free(disk: &SimDisk, book: &Book, fact: &Fact, context: &str) -> LogUsage {
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&storage, &mut state).await;
    assert_eq!(report.damage, [], "{context}: a crash is not rot");
    let end = log.end();
    assert!(end.index >= fact.durable.index, "{context}: {:?} was durable, {end:?} is the end", fact.durable);
    assert_eq!(state, book.state_at(end), "{context}: the state is rebuilt");
    check_live_by_index(&log, book, &fact.starts, context).await;
    check_live_by_partition(&log, book, 30_000, &fact.starts, context).await;
    check_no_leak(&storage, &log, context).await;
    log.set_committed(end.index);
    settled(&log).await;
    free(&log, &fact.starts).await.expect("free space");
    check_live_by_index(&log, book, &fact.starts, context).await;
    check_live_by_partition(&log, book, 30_000, &fact.starts, context).await;
    check_no_leak(&storage, &log, context).await;
    check_holes(disk, context);
    check_pool(disk, storage.pool().bytes(), context);
    log.usage()
}

/// Whatever a sidecar lists is punched by now.
fn check_holes(disk: &SimDisk, context: &str) {
    for path in disk.paths().iter().filter(|path| path.extension().is_some_and(|end| end == "freed")) {
        let list = disk.contents(path);
        let segment = disk.contents(&path.with_extension(""));
        let field = |at: usize| u64::from_le_bytes(list[at..at + 8].try_into().expect("eight bytes"));
        let count = u32::from_le_bytes(list[20..24].try_into().expect("four bytes"));
        assert!(count > 0, "{context}: {} lists nothing", path.display());
        for row in 0..count as usize {
            let (position, bytes) = (field(32 + row * 48 + 16), field(32 + row * 48 + 24));
            let hole = position.next_multiple_of(4096) as usize..((position + bytes) / 4096 * 4096) as usize;
            let is_hole = hole.is_empty() || segment[hole.clone()].iter().all(|byte| *byte == 0);
            assert!(is_hole, "{context}: {hole:?} of {} is not punched", path.display());
        }
    }
}

/// Every file is in the range's directory or in the pool, which knows it.
fn check_pool(disk: &SimDisk, pool_bytes: u64, context: &str) {
    let paths = disk.paths();
    let range: BTreeSet<&Path> = [Path::new("/store/data/3/17")].into();
    let in_pool: Vec<&PathBuf> = paths.iter().filter(|path| path.starts_with("/store/pool/0")).collect();
    let others = paths.iter().filter(|path| !path.parent().is_some_and(|dir| range.contains(dir)));
    assert_eq!(others.count(), in_pool.len(), "{context}: {paths:?}");
    let bytes: u64 = in_pool.iter().map(|path| disk.contents(path).len() as u64).sum();
    assert_eq!(bytes, pool_bytes, "{context}: the pool knows its files");
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|seed| seed.parse::<u64>().ok());
    number("CRASH_SEED").map_or(0..number("CRASH_SEEDS").unwrap_or(default), |seed| seed..seed + 1)
}

#[test]
fn every_image_of_freeing_recovers() {
    for seed in seeds(2) {
        let (disk, book, facts, begun) = history(seed);
        for moment in begun..=disk.moment() {
            let pending = disk.medium_at(moment).pending();
            for kept in 0..1u64 << pending.min(4) {
                let executor = SimExecutor::new(seed + 1000);
                let image = disk.crash_keeping(moment, kept, &executor);
                check_crash(image, moment, &book, &facts, &format!("seed {seed}, moment {moment}, kept {kept:b}"));
            }
        }
    }
}

#[test]
fn freeing_survives_crashes_and_kills() {
    for seed in seeds(12) {
        let (disk, book, facts, begun) = history(seed + 100);
        for crash in 0..24 {
            let moment = begun + (disk.moment() - begun) * crash / 23;
            let executor = SimExecutor::new(seed + 1000);
            let image = match crash % 3 {
                0 => disk.killed_at(moment, &executor),
                _ => disk.crash_at(moment, seed ^ (crash as u64) << 32, &executor),
            };
            check_crash(image, moment, &book, &facts, &format!("seed {}, crash {crash} at {moment}", seed + 100));
        }
    }
}

/// A kill leaves a sidecar whose name is not durable, recovery uses it, the next life punches, and then the power fails.
#[test]
fn a_power_loss_after_a_kill_finds_what_recovery_relied_on() {
    for seed in seeds(8) {
        let (disk, book, facts, begun) = history(seed + 200);
        for step in 0..40 {
            let moment = begun + (disk.moment() - begun) * step / 39;
            let fact = facts.iter().rev().find(|fact| fact.moment <= moment).cloned().expect("a fact");
            let executor = SimExecutor::new(seed + 1000);
            let killed = disk.killed_at(moment, &executor);
            let (used, starts) = (killed.clone(), fact.starts.clone());
            executor.run(async move {
                let storage = storage(&used, &sim_dir(), small_config()).await;
                let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
                free(&log, &starts).await.expect("free space");
            });
            executor.abandon();
            let executor = SimExecutor::new(seed + 2000);
            let image = killed.crash_keeping(killed.moment(), 0, &executor);
            check_crash(image, moment, &book, &facts, &format!("seed {}, killed at {moment}", seed + 200));
        }
    }
}

/// A disk that refuses a step of freeing costs that step: the log goes on, and a later call does what was left.
#[test]
fn a_refused_write_is_tried_again() {
    let mut refused = 0;
    for fault in 0..6 {
        let executor = SimExecutor::new(fault);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        let (used, writer) = (disk.clone(), Writer::new(fault));
        let mut history = History { disk: disk.clone(), writer, starts: LogStarts::new(), facts: Vec::new() };
        refused += executor.run(async move {
            let storage = storage(&used, &sim_dir(), small_config()).await;
            let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
            history.append(&log, 120).await;
            history.move_starts();
            used.set_faults(Faults { write: Some(fault), ..Faults::default() });
            let first = free(&log, &history.starts).await;
            used.set_faults(Faults::default());
            assert!(log.failed().is_none(), "fault {fault}: entries are as durable as before");
            free(&log, &history.starts).await.expect("free space");
            let book = history.writer.book.borrow().clone();
            check_live_by_index(&log, &book, &history.starts, "refused").await;
            check_live_by_partition(&log, &book, 30_000, &history.starts, "refused").await;
            check_no_leak(&storage, &log, "refused").await;
            check_holes(&used, "refused");
            history.append(&log, 20).await;
            u32::from(first.is_err())
        });
        executor.abandon();
    }
    assert!(refused >= 3, "only {refused} calls met the fault");
}

/// Closing and deleting wait for a call that is under way, and it ends early.
#[test]
fn closing_and_deleting_end_a_call_under_way() {
    for seed in 0..20 {
        let executor = SimExecutor::new(seed);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        let (used, writer) = (disk.clone(), Writer::new(seed));
        let mut history = History { disk: disk.clone(), writer, starts: LogStarts::new(), facts: Vec::new() };
        executor.run(async move {
            let storage = storage(&used, &sim_dir(), small_config()).await;
            let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
            history.append(&log, 120).await;
            history.move_starts();
            let (freeing, starts) = (log.clone(), history.starts.clone());
            used.executor().spawn(async move {
                free(&freeing, &starts).await.expect("free space");
            });
            used.executor().clone().sleep(std::time::Duration::from_micros(seed * 150)).await;
            if seed % 2 == 0 {
                log.delete().await.expect("delete");
                check_no_leak(&storage, &log, "deleted").await;
                assert_eq!(log.usage(), LogUsage::default());
                check_pool(&used, storage.pool().bytes(), "deleted");
            } else {
                log.close().await.expect("close");
                assert_eq!(free(&log, &history.starts).await.expect("nothing"), Freed::default(), "closed");
            }
            let moment = used.moment();
            used.executor().clone().sleep(std::time::Duration::from_secs(1)).await;
            assert_eq!(used.moment(), moment, "seed {seed}: nothing happens afterwards");
        });
        executor.abandon();
    }
}
