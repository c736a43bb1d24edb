//! Rot: any flipped bit is noticed, nothing wrong is ever returned, nothing that is good is lost with it, and the log's end stays.

mod history;

use history::*;
use minikafka_core::{LogIndex, Offset};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor, SimRandom};
use minikafka_storage::{AppendError, Opened, RangeLog, ReadError, Reader, StorageConfig};

/// Many small segments.
fn config() -> StorageConfig {
    StorageConfig { segment_bytes_max: 64 << 10, ..small_config() }
}

/// A closed log with sealed, rolled and active segments.
fn written(seed: u64) -> (SimDisk, Book, RangeState) {
    let executor = SimExecutor::new(seed);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let used = disk.clone();
    let (book, state) = executor.run(async move {
        let storage = storage(&used, &sim_dir(), config()).await;
        let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
        let mut writer = Writer::new(seed);
        for at in 0..90u32 {
            log.append_space().await.expect("space");
            writer.append(&log, at % 4, [30, 700, 3000, 12_000][at as usize % 4], at % 7 == 3).expect("append");
            if at % 10 == 9 {
                log.durable_above(LogIndex(u64::from(at))).await.expect("durable");
            }
            log.set_committed(LogIndex(u64::from(at).min(50)));
        }
        log.durable_above(LogIndex(89)).await.expect("durable");
        used.executor().clone().sleep(std::time::Duration::from_secs(1)).await;
        log.close().await.expect("close");
        (writer.book.borrow().clone(), writer.state.clone())
    });
    executor.abandon();
    (disk, book, state)
}

/// Opens a damaged log, reads all that can be read, and returns how many entries could not be.
async fn check_damaged(disk: &SimDisk, book: &Book, expected: &RangeState, context: &str) -> usize {
    let storage = storage(disk, &sim_dir(), config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&storage, &mut state).await;
    assert_eq!(log.end(), expected.end, "{context}: the end stays");
    let path = book.path_to(log.end());
    let mut unreadable = 0;
    for point in &path {
        match log.read_index(point.index, 1).await {
            Ok(slices) => {
                let found = entries(&slices);
                let written = book.at(*point).expect("written");
                assert_eq!(found.len(), 1, "{context}: entry {}", point.index);
                assert_eq!(found[0].1, stored(written), "{context}: entry {}", point.index);
            }
            Err(ReadError::Damaged(_)) => unreadable += 1,
            Err(error) => panic!("{context}: {error}"),
        }
    }
    check_partitions(&log, book, context).await;
    if state.damaged.is_empty() {
        assert_eq!(state.offsets, expected.offsets, "{context}: the state is rebuilt");
    }
    let noticed = !report.damage.is_empty() || !log.damage().is_empty();
    assert!(unreadable == 0 || noticed, "{context}: damage is reported");
    check_refusal(&log, expected, context);
    unreadable
}

/// A log whose end could not be rebuilt whole takes nothing new.
fn check_refusal(log: &RangeLog<SimDisk>, expected: &RangeState, context: &str) {
    if log.loss().is_some() {
        let mut writer = Writer::new(1);
        writer.state = expected.clone();
        let refused = writer.append(log, 0, 10, false);
        assert!(matches!(refused, Err(AppendError::Failed(_))), "{context}: appends are refused");
    }
}

/// Partition reads return what was written, in order and without gaps, until they meet damage.
async fn check_partitions(log: &RangeLog<SimDisk>, book: &Book, context: &str) {
    for partition in 0..4 {
        let expected: Vec<&Written> =
            book.entries.values().filter(|written| written.header.partition.0 == partition).collect();
        for start in [0, expected.len() / 2, expected.len() - 1] {
            let mut from = expected[start].header.base_offset;
            let mut at = start;
            let mut reader = Reader::default();
            while let Ok(slices) =
                log.read_partition(key(partition), from, log.durable_index(), 9000, &mut reader).await
            {
                let found = entries(&slices);
                if found.is_empty() {
                    assert_eq!(at, expected.len(), "{context}: partition {partition} ends early");
                    break;
                }
                for (header, bytes) in found {
                    assert_eq!(bytes, stored(expected[at]), "{context}: partition {partition} from {from}");
                    (from, at) = (header.next_offset(), at + 1);
                }
            }
        }
    }
    let beyond = log.read_partition(key(7), Offset(0), log.durable_index(), 9000, &mut Reader::default()).await;
    assert!(beyond.is_err() || entries(&beyond.expect("checked")).is_empty());
}

#[test]
fn any_flipped_bit_is_noticed_and_costs_no_more_than_its_flush() {
    let mut hits = 0;
    for seed in 0..3 {
        let (disk, book, state) = written(seed);
        let executor = SimExecutor::new(seed);
        let mut random = SimRandom::new(seed);
        let segments: Vec<_> =
            disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment")).collect();
        assert!(segments.len() > 4, "there are several segments");
        for flip in 0..150 {
            let path = &segments[random.below(segments.len() as u64) as usize];
            let contents = disk.contents(path);
            // Half of the flips go into the first bytes of a block, where headers are.
            let byte = loop {
                let byte = random.below(contents.len() as u64);
                let byte = if flip % 2 == 0 { byte / 4096 * 4096 + byte % 208 } else { byte };
                if contents[byte as usize] != 0 || flip % 10 == 0 {
                    break byte;
                }
            };
            let bit = random.below(8) as u8;
            let damaged = disk.killed(&executor);
            damaged.flip_bit(path, byte, bit);
            let context = format!("seed {seed}, flip {flip}: bit {bit} of byte {byte} of {}", path.display());
            let (book, state) = (book.clone(), state.clone());
            let unreadable = executor.run(async move { check_damaged(&damaged, &book, &state, &context).await });
            assert!(unreadable <= 24, "seed {seed}, flip {flip}: {unreadable} entries are lost with one bit");
            hits += usize::from(unreadable > 0);
            executor.abandon();
        }
    }
    assert!(hits > 200, "only {hits} flips hit an entry: the test misses its aim");
}

#[test]
fn a_missing_segment_is_noticed() {
    let (disk, book, state) = written(5);
    let segments: Vec<_> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment")).collect();
    for missing in &segments[..segments.len() - 1] {
        let executor = SimExecutor::new(5);
        let damaged = disk.killed(&executor);
        let (book, state, missing) = (book.clone(), state.clone(), missing.clone());
        executor.run(async move {
            minikafka_storage::disk::Disk::remove(&damaged, &missing).await.expect("remove");
            let storage = storage(&damaged, &sim_dir(), config()).await;
            let Opened { log, report } = open(&storage, &mut RangeState::default()).await;
            let is_oldest = report.damage.is_empty() && report.first_index > LogIndex(1);
            assert!(is_oldest || !report.damage.is_empty(), "{} is missed", missing.display());
            assert_eq!(log.end(), state.end);
            let _ = book;
        });
        executor.abandon();
    }
}
