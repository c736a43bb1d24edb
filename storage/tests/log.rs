//! One suite of ordinary use, on the simulated disk and on the real one (direct I/O through glommio, both durabilities).

#[macro_use]
mod history;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use history::disks::{on_real_disk, on_simulated_disk};
use history::*;
use minikafka_core::limits::READ_AHEAD_CHUNKS;
use minikafka_core::{Epoch, LogIndex, LogPoint, Offset, Timestamp};
use minikafka_storage::disk::dma::{DmaDisk, choose_durability};
use minikafka_storage::disk::sim::SimDisk;
use minikafka_storage::disk::{Disk, DiskFile, Durability};
use minikafka_storage::{Opened, RangeLog, Reader, RecoveryVisitor, ShardStorage, StorageConfig};

on_every_disk! {
    an_idle_range_has_no_file;
    what_is_appended_is_read_and_found_again;
    what_is_read_ahead_is_bounded_and_given_back;
    segments_are_rolled_sealed_dropped_and_recycled;
    time_leads_to_an_offset;
    truncation_and_marker_last;
    a_file_does_what_a_disk_promises;
    backlog_is_bounded_and_fair;
}

async fn fresh<D: Disk>(disk: &D, dir: &Path, config: StorageConfig) -> (Rc<ShardStorage<D>>, RangeLog<D>) {
    let storage = storage(disk, dir, config).await;
    let Opened { log, report } = open(&storage, &mut RangeState::default()).await;
    assert_eq!(report.end, LogPoint::START);
    (storage, log)
}

async fn an_idle_range_has_no_file<D: Disk>(disk: D, dir: PathBuf) {
    let (storage, log) = fresh(&disk, &dir, small_config()).await;
    assert!(!log.has_file() && !log.persist_marker(Epoch(3)).await.expect("no file"));
    assert_eq!(log.marker(), Epoch(3));
    assert!(log.read_index(LogIndex(1), 100).await.expect("read").is_empty());
    let read = log.read_partition(key(0), Offset(0), LogIndex(0), 100, &mut Reader::default()).await;
    assert!(read.expect("read").is_empty());
    log.seal_tail();
    log.close().await.expect("close");
    assert_eq!(disk.list(&storage.range_dir(RANGE)).await.expect("list"), Vec::<String>::new());
}

async fn what_is_appended_is_read_and_found_again<D: Disk>(disk: D, dir: PathBuf) {
    let (_storage, log) = fresh(&disk, &dir, small_config()).await;
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    log.on_durable(move || counted.set(counted.get() + 1));
    let mut writer = Writer::new(1);
    for at in 0..200u32 {
        log.append_space().await.expect("space");
        let bytes = [0, 1, 15, 16, 17, 900, 5000, 40_000][at as usize % 8];
        let shared = writer.append(&log, at % 5, bytes, at % 9 == 0).expect("append");
        assert_eq!(shared.is_some(), at % 9 == 0);
        if at % 40 == 39 {
            let book = writer.book.borrow().clone();
            check_by_index(&log, &book, "not yet durable").await;
        }
    }
    // Larger than everything: a flush, a segment, a read.
    durable(&log).await;
    writer.append(&log, 1, 1_500_000, true).expect("append");
    log.append_space().await.expect("space");
    writer.append(&log, 1, 300_000, false).expect("append");
    durable(&log).await;
    assert!(calls.get() > 0 && log.append_backlog_bytes() == 0);
    let book = writer.book.borrow().clone();
    check_by_partition(&log, &book, 30_000, "while open").await;
    log.close().await.expect("close");
    let again = storage(&disk, &dir, small_config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&again, &mut state).await;
    assert_eq!((log.end(), &state, report.torn_bytes), (writer.state.end, &writer.state, 0));
    assert_eq!((report.damage, report.has_file, report.last_timestamp), (vec![], true, Timestamp(writer.clock)));
    check_by_index(&log, &book, "opened again").await;
    for max_bytes in [1, 30_000, 10 << 20] {
        check_by_partition(&log, &book, max_bytes, "opened again").await;
    }
    log.close().await.expect("close");
}

async fn what_is_read_ahead_is_bounded_and_given_back<D: Disk>(disk: D, dir: PathBuf) {
    const BYTES_MAX: usize = 50_000;
    let (_storage, log) = fresh(&disk, &dir, small_config()).await;
    let mut writer = Writer::new(3);
    for at in 0..100u32 {
        log.append_space().await.expect("space");
        writer.append(&log, at % 2, 10_000, false).expect("append");
    }
    durable(&log).await;
    log.close().await.expect("close");
    let again = storage(&disk, &dir, small_config()).await;
    let Opened { log, .. } = open(&again, &mut RangeState::default()).await;
    let full = (READ_AHEAD_CHUNKS * BYTES_MAX) as u64;
    let (mut from, mut reader, mut reads) = (Offset(0), Reader::default(), 0);
    loop {
        let read = log.read_partition(key(0), from, log.durable_index(), BYTES_MAX, &mut reader).await.expect("read");
        let found = entries(&read);
        let Some((last, _)) = found.last() else { break };
        assert_eq!(found[0].0.base_offset, from);
        from = last.next_offset();
        reads += 1;
        while reads == 2 && again.read_ahead_bytes() < full {
            disk.sleep(Duration::from_millis(1)).await;
        }
        // Time enough to read more than may wait.
        disk.sleep(Duration::from_millis(5)).await;
        assert!(again.read_ahead_bytes() <= full, "{} bytes wait", again.read_ahead_bytes());
    }
    assert_eq!(from.0, writer.state.offsets[&0]);
    reader.forget_ahead();
    while again.read_ahead_bytes() > 0 {
        disk.sleep(Duration::from_millis(1)).await;
    }
    log.close().await.expect("close");
}

async fn segments_are_rolled_sealed_dropped_and_recycled<D: Disk>(disk: D, dir: PathBuf) {
    let (storage, log) = fresh(&disk, &dir, small_config()).await;
    let mut writer = Writer::new(2);
    let files = async || disk.list(&storage.range_dir(RANGE)).await.expect("list").len();
    while files().await < 6 {
        log.append_space().await.expect("space");
        writer.append(&log, 0, 7000, false).expect("append");
        durable(&log).await;
    }
    log.set_committed(log.end().index);
    assert_eq!(log.first_index(), LogIndex(1));
    settled(&log).await;
    let starts = LogStarts::from([(0, writer.state.offsets[&0])]);
    let freed = log.free_space(&|key| starts.get(&key.partition.0).copied().map(Offset)).await.expect("free space");
    assert!(freed.segments_dropped >= 2 && log.first_index() > LogIndex(1), "{freed:?}");
    assert!(storage.pool().bytes() > 0, "files went to the pool");
    let created = storage.pool().taken().created;
    let gone = log.read_index(LogIndex(1), 100).await;
    assert!(matches!(gone, Err(minikafka_storage::ReadError::Dropped { .. })));
    let pooled = storage.pool().bytes();
    for _ in 0..60 {
        log.append_space().await.expect("space");
        writer.append(&log, 0, 7000, false).expect("append");
        durable(&log).await;
    }
    assert_ne!(storage.pool().bytes(), pooled, "files came from the pool");
    assert!(storage.pool().taken().recycled > 0, "that is counted");
    assert!(created > 0, "and so are files that are new");
    let book = writer.book.borrow().clone();
    check_live_by_index(&log, &book, &starts, "after dropping").await;
    check_live_by_partition(&log, &book, 50_000, &starts, "after dropping").await;
    log.close().await.expect("close");
    let again = history::storage(&disk, &dir, small_config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&again, &mut state).await;
    assert_eq!((report.damage, &state), (vec![], &writer.state), "the state comes from a footer's snapshot");
    check_live_by_partition(&log, &book, 50_000, &starts, "opened after dropping").await;
    log.delete().await.expect("delete");
    let last = history::storage(&disk, &dir, small_config()).await;
    let Opened { report, .. } = open(&last, &mut RangeState::default()).await;
    assert_eq!((report.has_file, report.end), (false, LogPoint::START));
}

async fn time_leads_to_an_offset<D: Disk>(disk: D, dir: PathBuf) {
    let (_storage, log) = fresh(&disk, &dir, small_config()).await;
    let mut writer = Writer::new(4);
    for at in 0..300 {
        log.append_space().await.expect("space");
        writer.append(&log, at % 3, 1500, false).expect("append");
        if at % 7 == 0 {
            durable(&log).await;
            log.set_committed(log.end().index);
        }
    }
    durable(&log).await;
    let book = writer.book.borrow().clone();
    for time in (900..writer.clock + 100).step_by(97) {
        for partition in 0..4 {
            let of_partition = |written: &&Written| written.header.partition.0 == partition;
            let later = |written: &&Written| written.header.append_timestamp >= Timestamp(time);
            let expected = book.entries.values().filter(of_partition).find(later).map(|w| w.header.base_offset);
            let found = log.offset_at_time(key(partition), Timestamp(time)).await.expect("look up");
            assert_eq!(found, expected, "partition {partition} at {time}");
        }
    }
    log.close().await.expect("close");
}

async fn truncation_and_marker_last<D: Disk>(disk: D, dir: PathBuf) {
    let (_storage, log) = fresh(&disk, &dir, small_config()).await;
    let mut writer = Writer::new(5);
    for at in 0..50 {
        writer.append(&log, at % 2, 5000, false).expect("append");
        log.append_space().await.expect("space");
    }
    durable(&log).await;
    log.set_committed(LogIndex(10));
    let path = writer.book.borrow().path_to(writer.state.end);
    let mut state = RangeState::default();
    let wrong = LogPoint { index: LogIndex(20), hash: path[20].hash };
    assert!(log.truncate_to(wrong, &mut state).await.is_err(), "another hash");
    assert!(log.truncate_to(path[4], &mut state).await.is_err(), "below what is committed");
    let point = path[19];
    assert_eq!(log.point_at(LogIndex(20)).await.expect("read"), Some(point));
    assert!(log.must_roll(1 << 20), "more than a segment holds");
    {
        let mut cut = std::pin::pin!(log.truncate_to(point, &mut state));
        assert!(future::poll_once(cut.as_mut()).await.is_none());
        assert!(!log.must_roll(1 << 20), "while it is cut nothing is appended, so whoever asks need not roll it");
        cut.await.expect("truncate");
    }
    assert_eq!((log.end(), state.end, log.last_epoch()), (point, point, Epoch(1)));
    assert!(log.persist_marker(Epoch(2)).await.expect("a marker"));
    (writer.state, writer.epoch) = (state, Epoch(2));
    for at in 0..10 {
        writer.append(&log, at % 2, 100, false).expect("append");
    }
    durable(&log).await;
    let book = writer.book.borrow().clone();
    check_by_index(&log, &book, "after the truncation").await;
    check_by_partition(&log, &book, 10_000, "after the truncation").await;
    log.close().await.expect("close");
    let again = storage(&disk, &dir, small_config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&again, &mut state).await;
    assert_eq!((report.marker, report.last_epoch, report.end), (Epoch(2), Epoch(2), writer.state.end));
    assert_eq!(state, writer.state);
    check_by_partition(&log, &book, 10_000, "opened after the truncation").await;
    log.close().await.expect("close");
}

async fn a_file_does_what_a_disk_promises<D: Disk>(disk: D, dir: PathBuf) {
    let dir = dir.join("a/b/c");
    disk.create_dir(&dir).await.expect("create directories");
    let (path, other) = (dir.join("file"), dir.join("other"));
    let file = disk.create(&path, 64 << 10).await.expect("create");
    assert!(disk.create(&path, 4096).await.is_err(), "a file is created once");
    let mut buffer = disk.allocate(16 << 10);
    buffer.as_mut().fill(7);
    D::trim(&mut buffer, 8 << 10);
    file.write_durable(Rc::new(buffer), 4096).await.expect("write");
    let read = file.read_at(0, 16 << 10).await.expect("read");
    let expected = [vec![0; 4096], vec![7; 8192], vec![0; 4096]].concat();
    assert_eq!((*read).as_ref(), &expected[..]);
    assert!(file.read_at(60 << 10, 8192).await.is_err(), "reading beyond the end");
    file.punch_hole(4096, 4096).await.expect("punch");
    let read = file.read_at(4096, 8192).await.expect("read");
    assert_eq!((*read).as_ref(), &[vec![0; 4096], vec![7; 4096]].concat()[..]);
    let mut buffer = disk.allocate(4096);
    buffer.as_mut().fill(9);
    file.write_durable(Rc::new(buffer), 64 << 10).await.expect("grow");
    assert_eq!(file.size().await.expect("size"), 68 << 10);
    file.sync().await.expect("sync");
    let taken = disk.create(&path, 4096).await.err().map(|error| error.kind());
    assert_eq!(taken, Some(std::io::ErrorKind::AlreadyExists), "who replaces a sidecar asks for that");
    let missing = disk.remove(&other).await.err().map(|error| error.kind());
    assert_eq!(missing, Some(std::io::ErrorKind::NotFound), "and for that");
    file.close().await.expect("close");
    disk.rename(&path, &other).await.expect("rename");
    disk.sync_dir(&dir).await.expect("sync directory");
    assert_eq!(disk.list(&dir).await.expect("list"), ["other"]);
    let file = disk.open(&other).await.expect("open");
    assert_eq!(file.size().await.expect("size"), 68 << 10);
    file.close().await.expect("close");
    disk.remove(&other).await.expect("remove");
    assert!(disk.list(&dir).await.expect("list").is_empty() && disk.list(&other).await.expect("list").is_empty());
    assert!(disk.free_bytes(&dir).await.expect("free") > 0 && disk.random_u64() != disk.random_u64());
}

async fn backlog_is_bounded_and_fair<D: Disk>(disk: D, dir: PathBuf) {
    let config = StorageConfig { undurable_bytes_max: 64 << 10, ..small_config() };
    let (_storage, log) = fresh(&disk, &dir, config).await;
    let mut writer = Writer::new(6);
    while log.append_backlog_bytes() < 64 << 10 {
        writer.append(&log, 0, 10_000, false).expect("append");
    }
    let refused = writer.append(&log, 0, 10_000, false);
    assert!(matches!(refused, Err(minikafka_storage::AppendError::Backlog(_))));
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    let writer = Rc::new(std::cell::RefCell::new(writer));
    for waiter in 0..20 {
        let (log, order, writer) = (log.clone(), order.clone(), writer.clone());
        disk.spawn(async move {
            log.append_space().await.expect("space");
            order.borrow_mut().push(waiter);
            writer.borrow_mut().append(&log, 0, 30_000, false).expect("there is space");
        });
        disk.sleep(Duration::from_micros(1)).await;
    }
    while order.borrow().len() < 20 {
        disk.sleep(Duration::from_millis(1)).await;
    }
    assert!(order.borrow().is_sorted(), "first come, first served: {:?}", order.borrow());
    durable(&log).await;
    let book = writer.borrow().book.borrow().clone();
    check_by_index(&log, &book, "after the backlog").await;
    log.close().await.expect("close");
}

#[test]
fn a_durability_is_chosen() {
    on_real_disk(Durability::Dsync, |_, dir| async move {
        let chosen = choose_durability(&dir).await.expect("a choice");
        println!("this disk suits {chosen:?}");
        assert_eq!(std::fs::read_dir(&dir).expect("list").count(), 0, "the probe leaves nothing behind");
    });
}

#[test]
fn a_snapshot_is_taken_for_every_rolled_segment() {
    // Rolled but never committed: recovery finds several segments without a footer and asks for each one's state.
    on_simulated_disk(9, |disk, dir| async move {
        let (_storage, log) = fresh(&disk, &dir, small_config()).await;
        let mut writer = Writer::new(9);
        for at in 0..120 {
            log.append_space().await.expect("space");
            writer.append(&log, at % 3, 6000, false).expect("append");
        }
        durable(&log).await;
        log.close().await.expect("close");
        let again = storage(&disk, &dir, small_config()).await;
        let mut state = RangeState::default();
        let Opened { log, .. } = open(&again, &mut state).await;
        assert_eq!(state.take_snapshot(), writer.state.take_snapshot());
        log.set_committed(log.end().index);
        disk.sleep(Duration::from_secs(1)).await;
        log.close().await.expect("close");
        let last = storage(&disk, &dir, small_config()).await;
        let Opened { log, .. } = open(&last, &mut state).await;
        assert_eq!(state, writer.state, "the footers written after recovery hold the right states");
        let freed = log.free_space(&|_| None).await.expect("free space");
        assert!(freed.segments_dropped > 0, "they were written");
    });
}

/// Cause: a segment that was rolled without an entry got a footer that said epoch 0. Effect: after a restart the log forgot
/// the epoch and time of its last entry. Fix: a void segment carries on those of the log so far.
#[test]
fn a_void_sealed_segment_does_not_hide_the_last_entry() {
    on_simulated_disk(11, |disk, dir| async move {
        let (_storage, log) = fresh(&disk, &dir, small_config()).await;
        let mut writer = Writer::new(11);
        writer.append(&log, 0, 100, false).expect("append");
        log.roll(writer.state.take_snapshot());
        assert!(log.persist_marker(Epoch(2)).await.expect("a marker in the second segment"));
        log.roll(writer.state.take_snapshot());
        log.set_committed(LogIndex(1));
        assert!(log.persist_marker(Epoch(3)).await.expect("a marker in the third segment"));
        disk.sleep(Duration::from_secs(1)).await;
        log.close().await.expect("close");
        let again = storage(&disk, &dir, small_config()).await;
        let mut state = RangeState::default();
        let Opened { report, .. } = open(&again, &mut state).await;
        assert_eq!((report.end, &state, report.marker), (writer.state.end, &writer.state, Epoch(3)));
        assert_eq!((report.last_epoch, report.last_timestamp), (Epoch(1), Timestamp(writer.clock)));
    });
}
