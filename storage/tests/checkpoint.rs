//! Clean stops: the checkpoint they leave is used once, is never needed, and hides nothing that happened after it.
//!
//! Broken by hand, each made a test here fail: the checkpoint is not removed when it is taken; its body is not verified; a
//! flush behind what it describes is not looked for; it is taken though a file it describes is too short, or
//! though the sealed segments before it do not follow from one another. (That its removal is synced, and that it is written after the last
//! flush, are seen by the crashes of `crash.rs` only together with the first of these, because each catches the other.)

mod history;

use std::path::PathBuf;
use std::time::Duration;

use history::*;
use minikafka_core::LogIndex;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor};
use minikafka_storage::disk::{Disk, Durability};
use minikafka_storage::{Opened, RangeLog, RecoveryReport, RecoveryVisitor};

/// A log of `entries` entries that stopped cleanly.
async fn stopped(disk: &SimDisk, entries: u32) -> Writer {
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
    let mut writer = Writer::new(disk.executor().seed());
    append(&log, &mut writer, entries).await;
    log.close_with_checkpoint(|| writer.state.clone().take_snapshot()).await.expect("close");
    writer
}

async fn append(log: &RangeLog<SimDisk>, writer: &mut Writer, entries: u32) {
    for at in 0..entries {
        log.append_space().await.expect("space");
        writer.append(log, at % 4, 700 + at * 13, at % 7 == 3).expect("append");
        log.durable_above(LogIndex(writer.state.end.index.0 - 1)).await.expect("durable");
    }
}

async fn opened(disk: &SimDisk) -> (RangeLog<SimDisk>, RecoveryReport, RangeState) {
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&storage, &mut state).await;
    (log, report, state)
}

fn checkpoint(disk: &SimDisk) -> PathBuf {
    let is_checkpoint = |path: &PathBuf| path.extension().is_some_and(|end| end == "checkpoint");
    disk.paths().into_iter().find(is_checkpoint).expect("a clean stop leaves a checkpoint")
}

fn with_disk<T: 'static, F: Future<Output = T> + 'static>(seed: u64, work: impl FnOnce(SimDisk) -> F) -> T {
    let executor = SimExecutor::new(seed);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let result = executor.run(work(disk));
    executor.abandon();
    result
}

#[test]
fn a_damaged_checkpoint_only_costs_a_scan() {
    let bits = with_disk(1, async |disk| {
        stopped(&disk, 60).await;
        disk.contents(&checkpoint(&disk)).len() as u64
    });
    for flip in 0..120 {
        with_disk(1, async move |disk| {
            let writer = stopped(&disk, 60).await;
            let position = flip * 7919 % bits;
            disk.flip_bit(&checkpoint(&disk), position, (flip % 8) as u8);
            let (log, report, state) = opened(&disk).await;
            assert!(!report.from_checkpoint, "byte {position} is under a checksum");
            assert_eq!((report.damage, &state), (vec![], &writer.state), "byte {position}");
            let book = writer.book.borrow().clone();
            check_by_index(&log, &book, "after the scan").await;
        });
    }
}

#[test]
fn a_checkpoint_is_used_once() {
    with_disk(2, async |disk| {
        let writer = stopped(&disk, 60).await;
        let (log, report, state) = opened(&disk).await;
        assert!(report.from_checkpoint);
        assert_eq!(state, writer.state);
        let book = writer.book.borrow().clone();
        check_by_index(&log, &book, "from the checkpoint").await;
        log.close().await.expect("close");
        let (_, report, state) = opened(&disk).await;
        assert!(!report.from_checkpoint, "it is gone");
        assert_eq!(state, writer.state);
    });
}

/// Without the removal of the checkpoint, the damaged flush would be taken for a torn end, and what follows it for nothing.
#[test]
fn rot_right_behind_a_clean_stop_is_rot() {
    with_disk(3, async |disk| {
        let mut writer = stopped(&disk, 20).await;
        let before = writer.state.end.index;
        let (log, report, _) = opened(&disk).await;
        assert!(report.from_checkpoint);
        let path = log.dir().join(disk.list(log.dir()).await.expect("list").pop().expect("a segment"));
        let magic = u32::from_le_bytes(*b"MKf1").to_le_bytes();
        let flushes = |disk: &SimDisk| {
            let contents = disk.contents(&path);
            let is_flush = |at: &usize| contents[*at..*at + 4] == magic;
            (0..contents.len()).step_by(4096).filter(is_flush).collect::<Vec<_>>()
        };
        let known = flushes(&disk);
        append(&log, &mut writer, 8).await;
        log.close().await.expect("close");
        let first = flushes(&disk).into_iter().find(|at| !known.contains(at)).expect("a flush was written");
        disk.flip_bit(&path, first as u64 + 8, 0);
        let (log, report, _) = opened(&disk).await;
        assert!(report.end.index > before, "the entries behind the damage are there");
        assert!(!report.damage.is_empty() && !log.damage().is_empty(), "the damage is reported");
    });
}

/// A copy of a data directory may hold a checkpoint that is older than its segments.
#[test]
fn a_checkpoint_older_than_its_log_is_not_believed() {
    with_disk(4, async |disk| {
        let mut writer = stopped(&disk, 20).await;
        let old = disk.contents(&checkpoint(&disk));
        let path = checkpoint(&disk);
        let (log, ..) = opened(&disk).await;
        append(&log, &mut writer, 3).await;
        log.close().await.expect("close");
        let file = disk.create(&path, old.len() as u64).await.expect("create");
        let mut buffer = disk.allocate(old.len());
        buffer.copy_from_slice(&old);
        minikafka_storage::disk::DiskFile::write_durable(&file, std::rc::Rc::new(buffer), 0).await.expect("write");
        let (_, report, state) = opened(&disk).await;
        assert!(!report.from_checkpoint);
        assert_eq!((report.damage, state), (vec![], writer.state.clone()));
    });
}

/// Segment files, oldest first.
fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment")).collect()
}

/// A log with sealed and rolled segments that stopped cleanly.
async fn stopped_with_footers(disk: &SimDisk) -> Writer {
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
    let mut writer = Writer::new(disk.executor().seed());
    append(&log, &mut writer, 300).await;
    log.set_committed(LogIndex(230));
    append(&log, &mut writer, 1).await;
    disk.executor().clone().sleep(Duration::from_secs(1)).await;
    log.close_with_checkpoint(|| writer.state.clone().take_snapshot()).await.expect("close");
    writer
}

/// Opens a log whose segment files may not be what they were. What was taken from the checkpoint must be whole: then the
/// result is true. Otherwise the scan has its say.
async fn is_whole_or_scanned(disk: &SimDisk, writer: &Writer, context: &str) -> bool {
    let (log, report, state) = opened(disk).await;
    if report.from_checkpoint {
        assert_eq!((&state, report.end), (&writer.state, writer.state.end), "{context}");
        let book = writer.book.borrow().clone();
        check_by_index(&log, &book, context).await;
    }
    report.from_checkpoint
}

/// Segment files that are missing or cut off make the checkpoint one of another log. (A lost oldest segment
/// that is sealed looks like one that was dropped as dead; the range, which knows what is dead, tells by its reads.)
#[test]
fn a_checkpoint_does_not_stand_for_files_that_are_gone() {
    let count = with_disk(5, async |disk| {
        stopped_with_footers(&disk).await;
        segments(&disk).len()
    });
    assert!(count >= 6, "{count} segments");
    let mut taken = 0;
    for at in 0..count {
        for what in ["missing", "empty", "one block", "half", "its last flush"] {
            taken += usize::from(with_disk(5, async move |disk| {
                let writer = stopped_with_footers(&disk).await;
                let path = segments(&disk).remove(at);
                let magic = u32::from_le_bytes(*b"MKf1").to_le_bytes();
                let contents = disk.contents(&path);
                let is_flush = |at: &usize| contents[*at..*at + 4] == magic;
                let last = (0..contents.len()).step_by(4096).rfind(is_flush).expect("a flush") as u64;
                match what {
                    "missing" => disk.remove(&path).await.expect("remove"),
                    "empty" => disk.truncate(&path, 0),
                    "one block" => disk.truncate(&path, 4096),
                    "half" => disk.truncate(&path, contents.len() as u64 / 2 / 4096 * 4096),
                    _ => disk.truncate(&path, last),
                }
                let context = format!("segment {at} of {count}: {what}");
                let from_checkpoint = is_whole_or_scanned(&disk, &writer, &context).await;
                let may_be = what == "missing" && at == 0 || what == "half" && at + 1 == count;
                assert!(may_be || !from_checkpoint, "{context}");
                from_checkpoint
            }));
        }
    }
    assert!(taken >= 1, "the test misses its aim where no checkpoint is taken at all");
}
