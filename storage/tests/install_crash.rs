//! Copying sealed segments whole, crashed at every step: the log has the segment or has it not, its marker is its own, and
//! what is live at the source is live here.
//!
//! Each of these was broken by hand and made tests here fail: the segment is renamed before its sidecar is durable.

mod history;

use std::rc::Rc;

use history::*;
use minikafka_core::chain::peer::{SegmentCursor, SegmentItem};
use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::{Epoch, LogIndex, LogPoint, Offset, PartitionKey, Timestamp};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor};
use minikafka_storage::{InstallError, Opened, RangeLog, RecoveryVisitor, ShardStorage};

/// A log whose first segments are gone and that has holes; its log starts.
async fn source(disk: &SimDisk, seed: u64) -> (Rc<ShardStorage<SimDisk>>, RangeLog<SimDisk>, Writer, LogStarts) {
    let mut writer = Writer::new(seed ^ 0x5eed);
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
    log.persist_marker(Epoch(7)).await.expect("marker");
    for at in 0..160u32 {
        log.append_space().await.expect("space");
        if at % 25 == 24 {
            log.roll(writer.state.take_snapshot());
        }
        match at % 13 {
            0 => writer.append_control(&log, at / 10 % 3).expect("append"),
            _ => drop(writer.append(&log, at / 10 % 3, 3_000 + at * 7, false).expect("append")),
        }
    }
    durable(&log).await;
    log.persist_marker(Epoch(8)).await.expect("marker");
    log.roll(writer.state.take_snapshot());
    log.set_committed(log.end().index);
    settled(&log).await;
    let path = writer.book.borrow().path_to(writer.state.end);
    let mut starts = LogStarts::new();
    for (partition, upper) in [(0, 150), (1, 150), (2, 60)] {
        let book = writer.book.borrow();
        let headers = path.iter().map(|point| book.at(*point).expect("written").header);
        let of_it = |h: &EntryHeader| h.kind == EntryKind::Batch && h.partition.0 == partition && h.index.0 <= upper;
        starts.insert(partition, headers.filter(of_it).map(|h| h.next_offset().0).max().unwrap_or(0));
    }
    let known = starts.clone();
    let start_of = move |key: PartitionKey| Some(Offset(log_start(&known, key.partition.0)));
    let freed = log.free_space(&start_of).await.expect("free space");
    assert!(freed.segments_dropped > 0 && freed.bytes_punched > 0, "{freed:?}");
    (storage, log, writer, starts)
}

/// Entries of a run, one by one.
fn each_entry(run: &[u8]) -> Vec<(EntryHeader, Vec<u8>)> {
    let (mut found, mut rest) = (Vec::new(), run);
    while let Ok(header) = EntryHeader::decode(rest) {
        found.push((header, rest[..header.entry_bytes()].to_vec()));
        rest = &rest[header.entry_bytes()..];
    }
    found
}

/// Copies what comes next whole; false: the source offers nothing more.
async fn copy_one(from: &RangeLog<SimDisk>, to: &RangeLog<SimDisk>, last: (Epoch, Timestamp)) -> bool {
    let mut copy = None;
    let mut snapshot = Vec::new();
    let mut cursor = SegmentCursor { end: LogIndex(0), at: to.end(), snapshot_bytes: 0 };
    loop {
        let part = from.offer_segment(to.end(), cursor, from.end().index, 9_000).await.expect("the source is whole");
        let Some(part) = part else { return false };
        if copy.is_none() {
            copy = Some(to.begin_segment(part.start, part.end).await.expect("the log takes one"));
        }
        let copy_now = copy.as_mut().expect("just begun");
        assert_eq!((part.start, part.end, part.at), (copy_now.start(), copy_now.end(), copy_now.at()));
        for item in part.items {
            match item {
                SegmentItem::Entries(run) => {
                    for (header, bytes) in each_entry(&run) {
                        copy_now.add_entry(&header, &bytes).await.expect("it follows");
                    }
                }
                SegmentItem::Freed(to) => copy_now.add_freed(to).await.expect("it follows"),
                SegmentItem::Snapshot { total, bytes } => {
                    snapshot.extend_from_slice(&bytes);
                    if snapshot.len() as u64 == total {
                        to.install(copy.take().expect("begun"), snapshot, last).await.expect("it is whole");
                        return true;
                    }
                }
            }
        }
        let copy_now = copy.as_ref().expect("not installed yet");
        cursor = SegmentCursor { end: copy_now.end().index, at: copy_now.at(), snapshot_bytes: snapshot.len() as u64 };
    }
}

async fn learner(disk: &SimDisk) -> (Rc<ShardStorage<SimDisk>>, RangeLog<SimDisk>, RangeState) {
    let storage = storage(disk, &sim_dir(), small_config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&storage, &mut state).await;
    assert_eq!(report.damage, [], "a crash is not rot");
    (storage, log, state)
}

async fn check_same(log: &RangeLog<SimDisk>, book: &Book, starts: &LogStarts, context: &str) {
    check_live_by_index(log, book, starts, context).await;
    check_live_by_partition(log, book, 30_000, starts, context).await;
}

#[test]
fn a_copy_has_what_is_live_and_holes_where_the_source_has_them() {
    for seed in 0..4 {
        let executor = SimExecutor::new(seed);
        let (one, other) = (SimDisk::new(&executor, Durability::Dsync), SimDisk::new(&executor, Durability::Dsync));
        executor.run(async move {
            let (_storage, from, writer, starts) = source(&one, seed).await;
            let (_own, to, _) = learner(&other).await;
            let last = (from.last_epoch(), from.last_timestamp());
            let mut segments = 0;
            while copy_one(&from, &to, last).await {
                segments += 1;
            }
            assert!(segments > 1, "{segments} segments");
            assert_eq!((to.end(), to.first_index()), (from.end(), from.first_index()));
            assert!(to.marker() == Epoch(0) && from.marker() == Epoch(8), "the source's marker is the source's");
            assert!(to.usage().entry_bytes <= from.usage().entry_bytes);
            let book = writer.book.borrow().clone();
            let context = format!("seed {seed}");
            check_same(&to, &book, &starts, &context).await;
            to.close().await.expect("closes");
            // From the disk, and freed further like any log.
            let (_own, to, state) = learner(&other).await;
            assert_eq!(state, book.state_at(to.end()), "{context}: the state is the snapshot's");
            assert_eq!(to.marker(), Epoch(0));
            check_same(&to, &book, &starts, &context).await;
            let known = starts.clone();
            let start_of = move |key: PartitionKey| Some(Offset(log_start(&known, key.partition.0)));
            to.free_space(&start_of).await.expect("free space");
            check_same(&to, &book, &starts, &context).await;
            // Dropped altogether, and begun anew.
            to.start_over().await.expect("drops");
            assert_eq!((to.end(), to.has_file(), to.usage().segments), (LogPoint::START, false, 0));
            assert!(copy_one(&from, &to, last).await);
        });
        executor.abandon();
    }
}

#[test]
fn what_does_not_follow_is_refused() {
    let executor = SimExecutor::new(1);
    let (one, other) = (SimDisk::new(&executor, Durability::Dsync), SimDisk::new(&executor, Durability::Dsync));
    executor.run(async move {
        let (_storage, from, _, _) = source(&one, 1).await;
        let (_own, to, _) = learner(&other).await;
        let cursor = SegmentCursor { end: LogIndex(0), at: LogPoint::START, snapshot_bytes: 0 };
        let nothing_committed = from.offer_segment(LogPoint::START, cursor, LogIndex(1), 9_000).await.expect("reads");
        assert!(nothing_committed.is_none(), "only what ends at or below the limit is offered");
        let part = from.offer_segment(LogPoint::START, cursor, from.end().index, 9_000).await.expect("reads");
        let part = part.expect("the first segment");
        let mut copy = to.begin_segment(part.start, part.end).await.expect("begins");
        let beyond = LogPoint { index: part.end.index.next(), ..part.end };
        let other_end = LogPoint { hash: minikafka_core::RunningHash(1), ..part.end };
        for wrong in [part.start, beyond, other_end] {
            let refused = copy.add_freed(wrong).await;
            assert!(matches!(refused, Err(InstallError::DoesNotFollow(_))), "{wrong:?}");
        }
        for item in part.items {
            match item {
                SegmentItem::Freed(to) => copy.add_freed(to).await.expect("it follows"),
                SegmentItem::Entries(run) => {
                    for (header, bytes) in each_entry(&run) {
                        let mut changed = header;
                        changed.append_timestamp = Timestamp(header.append_timestamp.0 + 1);
                        let refused = copy.add_entry(&changed, &bytes).await;
                        assert!(matches!(refused, Err(InstallError::DoesNotFollow(_))), "another header");
                        copy.add_entry(&header, &bytes).await.expect("it follows");
                        let twice = copy.add_entry(&header, &bytes).await;
                        assert!(matches!(twice, Err(InstallError::DoesNotFollow(_))), "twice");
                    }
                }
                SegmentItem::Snapshot { .. } => {}
            }
        }
        copy.discard().await.expect("removes");
        let left = other.paths().into_iter().filter(|path| path.starts_with("/store/data")).count();
        assert_eq!(left, 0, "nothing is left of a copy that was given up");
        assert!(to.takes_segments() && to.end() == LogPoint::START);
    });
    executor.abandon();
}

#[test]
fn a_crash_leaves_the_segment_or_nothing_of_it() {
    let mut partial = 0;
    for seed in 0..6 {
        let executor = SimExecutor::new(seed + 50);
        let durability = if seed % 2 == 0 { Durability::Dsync } else { Durability::GroupFdatasync };
        let (one, other) = (SimDisk::new(&executor, durability), SimDisk::new(&executor, durability));
        let used = other.clone();
        let (book, starts, ends) = executor.run(async move {
            let (_storage, from, writer, starts) = source(&one, seed).await;
            let (_own, to, _) = learner(&used).await;
            let last = (from.last_epoch(), from.last_timestamp());
            let mut ends = vec![(used.moment(), LogPoint::START)];
            while copy_one(&from, &to, last).await {
                ends.push((used.moment(), to.end()));
            }
            to.start_over().await.expect("drops");
            ends.push((used.moment(), LogPoint::START));
            let book = writer.book.borrow().clone();
            (book, starts, ends)
        });
        executor.abandon();
        let moments = ends.last().expect("one at least").0;
        for crash in 0..40 {
            let moment = moments * crash / 39;
            let executor = SimExecutor::new(seed + 1_000);
            let image = match crash % 3 {
                0 => other.killed_at(moment, &executor),
                _ => other.crash_at(moment, seed ^ (crash as u64) << 32, &executor),
            };
            let (book, starts, ends) = (book.clone(), starts.clone(), ends.clone());
            let context = format!("seed {seed}, crash {crash} at {moment}");
            partial += executor.run(async move {
                let (storage, log, state) = learner(&image).await;
                let end = log.end();
                assert!(ends.iter().any(|(_, known)| *known == end), "{context}: {end:?} is no end of a segment");
                let at = ends.iter().rposition(|(known, _)| *known <= moment).unwrap_or(0);
                let is_dropping = at + 2 >= ends.len();
                assert!(is_dropping || end.index >= ends[at].1.index, "{context}: {end:?}, {:?} was done", ends[at]);
                assert_eq!(log.marker(), Epoch(0), "{context}");
                if end != LogPoint::START {
                    assert_eq!(state, book.state_at(end), "{context}: the state is the snapshot's");
                    check_same(&log, &book, &starts, &context).await;
                }
                check_no_leak(&storage, &log, &context).await;
                u32::from(end != LogPoint::START)
            });
            executor.abandon();
        }
    }
    assert!(partial > 20, "{partial} crashes left something");
}
