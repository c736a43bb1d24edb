//! Mending damaged segments from another member, crashed at every step: the log has the old file or the new one, what is
//! good is served all the time, and mending again ends where it would have ended.
//!
//! Each of these was broken by hand and made tests here fail: the mended file is renamed before its footer is durable; the
//! old file's sidecar is kept for the new one; flushes in memory are looked up by their place in the old file; an entry of
//! the source is taken unverified. Absent: which damage can be made up for (`damage_causes.rs`).

mod history;

use std::rc::Rc;

use history::*;
use minikafka_core::entry::EntryKind;
use minikafka_core::{LogIndex, LogPoint, Offset, PartitionKey};
use minikafka_storage::disk::sim::{SimDisk, SimExecutor, SimRandom};
use minikafka_storage::disk::{Disk, Durability};
use minikafka_storage::{EntrySource, Lost, MendError, Opened, RangeLog, ReadError, RecoveryVisitor, SharedSlice};

const BLOCK: u64 = 4096;

/// A log with sealed segments, some of them with holes, and one that is active.
async fn written(disk: &SimDisk, seed: u64) -> (Book, LogStarts, RangeState) {
    let mut writer = Writer::new(seed ^ 0x5eed);
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
    for at in 0..150u32 {
        log.append_space().await.expect("space");
        if at % 25 == 24 {
            log.roll(writer.state.take_snapshot());
        }
        match at % 13 {
            0 => writer.append_control(&log, at / 10 % 3).expect("append"),
            _ => drop(writer.append(&log, at / 10 % 3, 2_000 + at * 7, false).expect("append")),
        }
    }
    durable(&log).await;
    log.set_committed(log.end().index);
    settled(&log).await;
    let path = writer.book.borrow().path_to(writer.state.end);
    let mut starts = LogStarts::new();
    for (partition, upper) in [(0, 120), (1, 40)] {
        let book = writer.book.borrow();
        let headers = path.iter().map(|point| book.at(*point).expect("written").header);
        let of_it = |h: &minikafka_core::entry::EntryHeader| {
            h.kind == EntryKind::Batch && h.partition.0 == partition && h.index.0 <= upper
        };
        starts.insert(partition, headers.filter(of_it).map(|h| h.next_offset().0).max().unwrap_or(0));
    }
    let known = starts.clone();
    let start_of = move |key: PartitionKey| Some(Offset(log_start(&known, key.partition.0)));
    let freed = log.free_space(&start_of).await.expect("free space");
    assert!(freed.bytes_punched > 0, "{freed:?}");
    log.close().await.expect("close");
    (writer.book.borrow().clone(), starts, writer.state.clone())
}

/// Flips bits in entries, in every other stretch of blocks, so that two members with other parities have everything between
/// them. Footers are left alone: the state before what was freed is in no entry.
fn damage(disk: &SimDisk, random: &mut SimRandom, parity: u64, how_many: u64) {
    let segments = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment"));
    let segments: Vec<_> = segments.collect();
    for _ in 0..how_many {
        let path = &segments[random.below(segments.len() as u64 - 1) as usize];
        let contents = disk.contents(path);
        let is_flush = |block: &u64| contents[(block * BLOCK) as usize..].starts_with(b"MKf1");
        // One that was prepared, or freed altogether, has none.
        let stretches = (0..contents.len() as u64 / BLOCK).rfind(is_flush).map_or(0, |last| last / 4 + 1);
        let stretches = (0..stretches).filter(|stretch| stretch % 2 == parity).collect::<Vec<_>>();
        if !stretches.is_empty() {
            let block = stretches[random.below(stretches.len() as u64) as usize] * 4;
            disk.flip_bit(path, block * BLOCK + random.below(BLOCK), random.below(8) as u8);
        }
    }
}

/// Another member's log, as it is.
struct Neighbour(RangeLog<SimDisk>);

impl EntrySource for Neighbour {
    async fn entries_behind(&self, after: LogPoint, until: LogIndex) -> Option<Lost> {
        let runs = match self.0.read_index(after.index.next(), 20_000).await {
            Err(ReadError::Freed { run }) => return Some(Lost::Freed(run.borders()[1])),
            read => read.ok()?,
        };
        let mut kept = Vec::new();
        for (header, bytes) in entries(&runs) {
            if header.index <= until {
                let length = bytes.len();
                kept.push(SharedSlice::new(Rc::new(bytes), 0..length));
            }
        }
        (!kept.is_empty()).then_some(Lost::Entries(kept))
    }
}

/// Mends what can be mended; how many stretches could not.
async fn mend(log: &RangeLog<SimDisk>, from: &impl EntrySource) -> usize {
    let (mut after, mut left) = (LogIndex(0), 0);
    while let Some(stretch) = log.damaged_stretch(after) {
        if stretch.is_sealed || log.loss().is_some() {
            match log.mend(&stretch, from, &mut RangeState::default()).await {
                Ok(()) => {}
                Err(MendError::Nobody(_) | MendError::Foreign(_)) => left += 1,
                Err(error) => panic!("{stretch:?}: {error}"),
            }
        }
        after = stretch.end.index;
    }
    if log.loss().is_some() {
        log.recover_again(&mut RangeState::default()).await.expect("recovery");
    }
    left
}

/// Meets all damage that can be met by reading.
async fn read_all(log: &RangeLog<SimDisk>) {
    let mut next = log.first_index();
    while next <= log.end().index {
        next = match log.read_index(next, 9_000).await {
            Ok(runs) => entries(&runs).last().map_or(next, |(header, _)| header.index).next(),
            Err(ReadError::Damaged(damage)) => damage.last_index.max(next).next(),
            Err(ReadError::Freed { run }) => run.last_index.next(),
            Err(error) => panic!("{error}"),
        };
    }
}

async fn check_whole(log: &RangeLog<SimDisk>, book: &Book, starts: &LogStarts, context: &str) {
    check_live_by_index(log, book, starts, context).await;
    check_live_by_partition(log, book, 30_000, starts, context).await;
}

#[test]
fn members_with_damage_in_different_places_make_up_for_each_other() {
    for seed in 0..10 {
        let executor = SimExecutor::new(seed);
        let (one, other) = (SimDisk::new(&executor, Durability::Dsync), SimDisk::new(&executor, Durability::Dsync));
        executor.run(async move {
            let context = format!("seed {seed}");
            let (book, starts, _) = written(&one, seed).await;
            written(&other, seed).await;
            let mut random = SimRandom::new(seed);
            damage(&one, &mut random, 0, 12);
            damage(&other, &mut random, 1, 12);
            let (one_storage, other_storage) =
                (storage(&one, &sim_dir(), small_config()).await, storage(&other, &sim_dir(), small_config()).await);
            let one = open(&one_storage, &mut RangeState::default()).await.log;
            let other = Neighbour(open(&other_storage, &mut RangeState::default()).await.log);
            let end = one.end();
            read_all(&one).await;
            read_all(&other.0).await;
            assert!(one.damaged_stretch(LogIndex(0)).is_some() && other.0.damaged_stretch(LogIndex(0)).is_some());
            assert_eq!(mend(&one, &other).await, 0, "{context}");
            let one = Neighbour(one);
            assert_eq!(mend(&other.0, &one).await, 0, "{context}");
            assert_eq!((one.0.end(), other.0.end()), (end, end), "{context}");
            check_whole(&one.0, &book, &starts, &context).await;
            check_whole(&other.0, &book, &starts, &context).await;
            check_no_leak(&one_storage, &one.0, &context).await;
        });
        executor.abandon();
    }
}

/// A source that gives something else, or half of it.
struct Liar<'a>(&'a Book, u64);

impl EntrySource for Liar<'_> {
    async fn entries_behind(&self, after: LogPoint, _until: LogIndex) -> Option<Lost> {
        let written = self.0.entries.values().find(|written| written.header.index == after.index.next())?;
        let mut bytes = stored(written);
        match self.1 % 4 {
            0 => bytes.clear(),
            1 => bytes.truncate(bytes.len() - 16),
            2 => bytes[140] ^= 1,
            _ => bytes = stored(self.0.entries.values().find(|other| other.header.index == LogIndex(3))?),
        }
        let length = bytes.len();
        Some(Lost::Entries(vec![SharedSlice::new(Rc::new(bytes), 0..length)]))
    }
}

#[test]
fn what_is_not_the_entry_is_not_taken() {
    for seed in 0..8 {
        let executor = SimExecutor::new(seed);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        executor.run(async move {
            let (book, _, _) = written(&disk, seed).await;
            damage(&disk, &mut SimRandom::new(seed), 1, 12);
            let shard = storage(&disk, &sim_dir(), small_config()).await;
            let log = open(&shard, &mut RangeState::default()).await.log;
            read_all(&log).await;
            let before: Vec<_> = disk.list(log.dir()).await.expect("list");
            let stretch = log.damaged_stretch(LogIndex(0)).expect("there is damage");
            let result = log.mend(&stretch, &Liar(&book, seed), &mut RangeState::default()).await;
            assert!(matches!(result, Err(MendError::Foreign(_))), "seed {seed}: {result:?}");
            assert_eq!(disk.list(log.dir()).await.expect("list"), before, "nothing is left behind");
        });
        executor.abandon();
    }
}

#[test]
fn a_crash_leaves_the_old_file_or_the_new_one() {
    for seed in 0..6 {
        let executor = SimExecutor::new(seed);
        let (one, other) = (SimDisk::new(&executor, Durability::Dsync), SimDisk::new(&executor, Durability::Dsync));
        let (made, from) = (one.clone(), other.clone());
        let (book, starts, begun) = executor.run(async move {
            let (book, starts, _) = written(&made, seed).await;
            written(&from, seed).await;
            damage(&made, &mut SimRandom::new(seed), 0, 10);
            let begun = made.moment();
            let shard = storage(&made, &sim_dir(), small_config()).await;
            let log = open(&shard, &mut RangeState::default()).await.log;
            let neighbour_storage = storage(&from, &sim_dir(), small_config()).await;
            let neighbour = Neighbour(open(&neighbour_storage, &mut RangeState::default()).await.log);
            read_all(&log).await;
            assert_eq!(mend(&log, &neighbour).await, 0);
            (book, starts, begun)
        });
        executor.abandon();
        let moments = one.moment() - begun;
        assert!(moments > 20, "{moments}");
        for at in 0..60 {
            let moment = begun + moments * at / 59;
            let context = format!("seed {seed}, crash at {moment} of {}", one.moment());
            // Another seed than before, so that new files are no old ones.
            let executor = SimExecutor::new(!seed - at as u64 * 1000);
            let crashed = one.crash_at(moment, seed + at as u64, &executor);
            let from = other.killed(&executor);
            let (book, starts) = (book.clone(), starts.clone());
            executor.run(async move {
                let shard = storage(&crashed, &sim_dir(), small_config()).await;
                let Opened { log, report } = open(&shard, &mut RangeState::default()).await;
                let end = *book.path_to(report.end).last().expect("entries");
                assert_eq!(end.index.0, book.entries.len() as u64, "{context}: nothing is cut");
                let neighbour_storage = storage(&from, &sim_dir(), small_config()).await;
                let neighbour = Neighbour(open(&neighbour_storage, &mut RangeState::default()).await.log);
                read_all(&log).await;
                assert_eq!(mend(&log, &neighbour).await, 0, "{context}");
                check_whole(&log, &book, &starts, &context).await;
                check_no_leak(&shard, &log, &context).await;
            });
            executor.abandon();
        }
    }
}

/// One log, truncated within flushes again and again: what a truncation left void still follows the entries before it.
async fn written_with_void(disk: &SimDisk, seed: u64) -> Book {
    let mut writer = Writer::new(seed ^ 0x501d);
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
    for round in 0..60u32 {
        // Without a pause, so they are in one flush.
        for at in 0..4 {
            log.append_space().await.expect("space");
            writer.append(&log, at % 3, 1_000 + round * 31 + at * 7, false).expect("append");
        }
        durable(&log).await;
        if round % 20 == 19 {
            log.roll(writer.state.take_snapshot());
        } else if round % 3 == 1 {
            let path = writer.book.borrow().path_to(writer.state.end);
            let point = path[path.len() - 3];
            log.truncate_to(point, &mut writer.state).await.expect("truncate");
            writer.state = writer.book.borrow().state_at(point);
        }
    }
    durable(&log).await;
    log.set_committed(log.end().index);
    settled(&log).await;
    log.close().await.expect("close");
    writer.book.borrow().clone()
}

/// Two members that wrote the same, and `harm` done to the first one's disk: all of it is mended from the second. `look` sees
/// the log before that.
fn check_mended(harm: fn(&SimDisk, u64), look: impl AsyncFn(&RangeLog<SimDisk>, &str) + Copy + 'static) {
    for seed in 0..10 {
        let executor = SimExecutor::new(seed);
        let (one, other) = (SimDisk::new(&executor, Durability::Dsync), SimDisk::new(&executor, Durability::Dsync));
        executor.run(async move {
            let book = written_with_void(&one, seed).await;
            written_with_void(&other, seed).await;
            harm(&one, seed);
            let (one_storage, other_storage) =
                (storage(&one, &sim_dir(), small_config()).await, storage(&other, &sim_dir(), small_config()).await);
            let neighbour = Neighbour(open(&other_storage, &mut RangeState::default()).await.log);
            let log = open(&one_storage, &mut RangeState::default()).await.log;
            let context = format!("seed {seed}");
            look(&log, &context).await;
            assert_eq!(mend(&log, &neighbour).await, 0, "{context}: {:?}", log.damaged_stretch(LogIndex(0)));
            check_by_index(&log, &book, &context).await;
            log.close().await.expect("close");
            neighbour.0.close().await.expect("close");
        });
    }
}

#[test]
fn what_a_truncation_left_void_is_not_taken_for_what_follows() {
    check_mended(|disk, seed| damage(disk, &mut SimRandom::new(seed), 0, 12), async |log, _| read_all(log).await);
}

/// Of the oldest file the footer rotted and the first flush: nothing was deleted below it, so what is missing is lost.
#[test]
fn a_lost_beginning_is_not_taken_for_what_retention_dropped() {
    let harm = |disk: &SimDisk, seed: u64| {
        let oldest = disk.paths().into_iter().find(|path| path.extension().is_some_and(|end| end == "segment"));
        let oldest = oldest.expect("segments are named in order");
        let trailer = disk.contents(&oldest).len() as u64 - BLOCK;
        for block in [0, trailer] {
            disk.flip_bit(&oldest, block + seed * 7, seed as u8 % 8);
        }
    };
    check_mended(harm, async |log, context| {
        assert_eq!(log.first_index(), LogIndex(1), "{context}");
        assert!(log.loss().is_none(), "{context}: the state comes from a later footer");
    });
}
