//! Freeing space on the simulated disk and the real one: what is live is read as before, what is dead is told as freed, and
//! the file system gets its blocks back.

#[macro_use]
mod history;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use history::disks::{on_real_disk, on_simulated_disk};
use history::*;
use minikafka_core::entry::EntryKind;
use minikafka_core::{Epoch, LogIndex, Offset, PartitionKey, Timestamp};
use minikafka_storage::disk::dma::DmaDisk;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor};
use minikafka_storage::disk::{Disk, Durability};
use minikafka_storage::{
    DamageKind, Freed, Opened, RangeLog, ReadError, Reader, RecoveryVisitor, RetentionPolicy, ShardStorage,
    StorageConfig,
};

on_every_disk! {
    dead_runs_are_punched_and_told_as_freed;
    a_dead_segment_in_the_middle_keeps_only_its_footer;
    readers_at_live_offsets_never_meet_a_hole;
    a_cut_partition_dies_to_its_last_byte;
    rolling_frees_the_active_segment;
}

/// Large enough that holes of the real size fit.
fn config() -> StorageConfig {
    StorageConfig {
        segment_bytes_min: 1 << 20,
        segment_bytes_max: 1 << 20,
        flush_bytes_max: 256 << 10,
        freed_run_bytes_min: 64 << 10,
        pool_bytes_max: 8 << 20,
        recent_bytes_max: 1,
        ..small_config()
    }
}

async fn open_log<D: Disk>(disk: &D, dir: &Path) -> (Rc<ShardStorage<D>>, RangeLog<D>, RangeState) {
    let storage = storage(disk, dir, config()).await;
    let mut state = RangeState::default();
    let Opened { log, .. } = open(&storage, &mut state).await;
    (storage, log, state)
}

async fn free<D: Disk>(log: &RangeLog<D>, starts: &LogStarts) -> Freed {
    let log_start_of = |key: PartitionKey| starts.get(&key.partition.0).copied().map(Offset);
    log.free_space(&log_start_of).await.expect("free space")
}

/// Bytes of appends, to partition after partition, until so many segments are there; all of it committed and sealed.
async fn fill<D: Disk>(log: &RangeLog<D>, writer: &mut Writer, segments: u64, partition_of: impl Fn(u32) -> u32) {
    for at in 0.. {
        if log.usage().segments > segments {
            break;
        }
        log.append_space().await.expect("space");
        if at % 20 == 19 {
            writer.append_control(log, partition_of(at)).expect("append");
        }
        writer.append(log, partition_of(at), 3000 + at % 7 * 900, false).expect("append");
    }
    durable(log).await;
    log.set_committed(log.end().index);
    settled(log).await;
}

/// 512-byte blocks that the range's files really take.
fn blocks_of(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("list");
    files.map(|file| file.and_then(|file| file.metadata()).expect("metadata").blocks()).sum()
}

/// The log starts that keep all of some partitions and nothing of the others.
fn keep(writer: &Writer, kept: impl Fn(u32) -> bool) -> LogStarts {
    let start = |(partition, end): (&u32, &u64)| (*partition, if kept(*partition) { 0 } else { *end });
    writer.state.offsets.iter().map(start).collect()
}

async fn check<D: Disk>(log: &RangeLog<D>, writer: &Writer, starts: &LogStarts, context: &str) -> u64 {
    let book = writer.book.borrow().clone();
    for max_bytes in [1, 30_000, 1 << 20] {
        check_live_by_partition(log, &book, max_bytes, starts, context).await;
    }
    assert_eq!(log.damage(), [], "{context}");
    check_live_by_index(log, &book, starts, context).await
}

async fn dead_runs_are_punched_and_told_as_freed<D: Disk>(disk: D, dir: PathBuf) {
    let (storage, log, _) = open_log(&disk, &dir).await;
    let mut writer = Writer::new(1);
    // Long stretches of one partition, then short ones of all: only the long ones are worth a hole.
    fill(&log, &mut writer, 4, |at| if at / 60 % 2 == 0 { 1 } else { at % 4 }).await;
    assert_eq!(free(&log, &keep(&writer, |_| true)).await, Freed::default(), "nothing is dead");
    let starts = keep(&writer, |partition| partition != 1);
    let (before, blocks) = (log.usage(), blocks(log.dir()));
    let freed = free(&log, &starts).await;
    let after = log.usage();
    assert!(freed.bytes_punched >= 1 << 20 && freed.segments_dropped == 0, "{freed:?}");
    assert_eq!(after.freed_bytes, freed.bytes_punched);
    assert_eq!((after.file_bytes, after.segments), (before.file_bytes, before.segments));
    let gone = before.entry_bytes - after.entry_bytes;
    assert!(gone > freed.bytes_punched * 9 / 10 && gone < freed.bytes_punched * 12 / 10, "{gone} of {freed:?}");
    if blocks > 0 {
        let left = blocks_of(log.dir());
        // A sidecar of one block for each of four segments.
        assert!(left + freed.bytes_punched / 512 <= blocks + 4 * 8, "{left} blocks are left of {blocks}: {freed:?}");
    }
    let met = check(&log, &writer, &starts, "after freeing").await;
    assert!(met > 100, "{met} entries are freed");
    assert_eq!(free(&log, &starts).await, Freed::default(), "nothing more is dead");
    check_times(&log, &writer, &starts).await;
    log.close().await.expect("close");

    let (_, log, state) = open_log(&disk, &dir).await;
    assert_eq!((&state, log.usage()), (&writer.state, after), "the freed runs are found again");
    assert_eq!(check(&log, &writer, &starts, "opened again").await, met);
    assert_eq!(free(&log, &starts).await, Freed::default(), "holes are punched again without a word");
    check_no_leak(&storage, &log, "opened again").await;
    log.close().await.expect("close");
}

/// Blocks on the real disk; the simulated one has none.
fn blocks(dir: &Path) -> u64 {
    if dir.is_dir() { blocks_of(dir) } else { 0 }
}

/// Times lead to the first live offset at or after them, once clamped to the log start as the broker does.
async fn check_times<D: Disk>(log: &RangeLog<D>, writer: &Writer, starts: &LogStarts) {
    let book = writer.book.borrow().clone();
    for time in (900..writer.clock + 100).step_by(997) {
        for partition in 0..4 {
            let is_later = |written: &&Written| {
                let header = &written.header;
                header.partition.0 == partition
                    && header.kind == EntryKind::Batch
                    && header.append_timestamp >= Timestamp(time)
            };
            let first = book.entries.values().find(is_later).map(|written| written.header.base_offset.0);
            let start = log_start(starts, partition);
            let found = log.offset_at_time(key(partition), Timestamp(time)).await.expect("look up");
            let end = writer.state.offsets[&partition];
            let clamp = |offset: Option<u64>| offset.unwrap_or(end).max(start);
            assert_eq!(clamp(found.map(|offset| offset.0)), clamp(first), "partition {partition} at {time}");
        }
    }
}

async fn a_dead_segment_in_the_middle_keeps_only_its_footer<D: Disk>(disk: D, dir: PathBuf) {
    let (storage, log, _) = open_log(&disk, &dir).await;
    let mut writer = Writer::new(2);
    writer.append(&log, 0, 100, false).expect("append");
    fill(&log, &mut writer, 3, |_| 1).await;
    writer.append(&log, 2, 100, false).expect("append");
    fill(&log, &mut writer, 4, |_| 1).await;
    let starts = keep(&writer, |partition| partition == 0);
    let freed = free(&log, &starts).await;
    assert_eq!(freed.segments_dropped, 0, "the first segment has a live entry");
    let sealed = log.usage().segments - 1;
    let usage = log.usage();
    assert!(usage.freed_bytes > sealed * (900 << 10), "{usage:?} of {sealed} sealed segments is freed");
    if let blocks @ 1.. = blocks(log.dir()) {
        // The active segment has its megabyte; the others have a live block, tables, a snapshot, trailer and sidecar.
        assert!(blocks * 512 < (1 << 20) + sealed * (64 << 10), "{blocks} blocks are left");
    }
    check(&log, &writer, &starts, "dead in the middle").await;
    let nothing = keep(&writer, |_| false);
    let pooled = storage.pool().bytes();
    let freed = free(&log, &nothing).await;
    assert_eq!((freed.segments_dropped, log.usage().segments), (sealed - 1, 2), "all but the newest sealed one");
    assert_eq!(storage.pool().bytes(), pooled, "punched files are not used again");
    check_no_leak(&storage, &log, "dropped").await;
    let (point, first) = (log.end(), log.first_index());
    log.close().await.expect("close");
    let (_, log, state) = open_log(&disk, &dir).await;
    assert_eq!(
        (log.end(), log.first_index(), &state),
        (point, first, &writer.state),
        "the newest footer has the state"
    );
    check(&log, &writer, &nothing, "opened after dropping").await;
    log.delete().await.expect("delete");
    assert_eq!(disk.list(&storage.range_dir(RANGE)).await.expect("list"), Vec::<String>::new(), "sidecars go, too");
}

async fn readers_at_live_offsets_never_meet_a_hole<D: Disk>(disk: D, dir: PathBuf) {
    let (_storage, log, _) = open_log(&disk, &dir).await;
    let mut writer = Writer::new(3);
    fill(&log, &mut writer, 5, |at| at / 30 % 3).await;
    let book = Rc::new(writer.book.borrow().clone());
    let done = Rc::new(std::cell::Cell::new(0));
    for partition in 0..3 {
        let (log, book, done) = (log.clone(), book.clone(), done.clone());
        disk.spawn(async move {
            let starts = LogStarts::from([(partition, 0)]);
            let mut reader = Reader::default();
            let mut from = Offset(0);
            let durable = log.durable_index();
            loop {
                match log.read_partition(key(partition), from, durable, 20_000, &mut reader).await {
                    Ok(slices) if slices.is_empty() => break,
                    Ok(slices) => {
                        for (header, bytes) in entries(&slices) {
                            let written = &book.entries[&(header.index.0, header.running_hash.0)];
                            assert_eq!(bytes, stored(written));
                            assert!(is_live(&header, &starts));
                            from = header.next_offset();
                        }
                    }
                    // Dead while it was on its way: freed, not damaged. Partition 2 stays whole.
                    Err(ReadError::Freed { run }) if partition < 2 => {
                        assert!(run.last_index > LogIndex(0));
                        break;
                    }
                    Err(error) => panic!("partition {partition} from {from}: {error}"),
                }
            }
            done.set(done.get() + 1);
        });
    }
    for step in 1..=8 {
        let starts = writer.state.offsets.iter().map(|(p, end)| (*p, if *p == 2 { 0 } else { end * step / 8 }));
        free(&log, &starts.collect()).await;
    }
    while done.get() < 3 {
        disk.sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(log.damage(), []);
    check(&log, &writer, &keep(&writer, |partition| partition == 2), "after the readers").await;
    log.close().await.expect("close");
}

/// A truncation through a partition's last extent, and nothing of it ever after: its end must be known to the entry, or its
/// segment would be kept for ever.
async fn a_cut_partition_dies_to_its_last_byte<D: Disk>(disk: D, dir: PathBuf) {
    for opens_between in [false, true] {
        let dir = dir.join(opens_between.to_string());
        let (_storage, mut log, _) = open_log(&disk, &dir).await;
        let mut writer = Writer::new(4);
        writer.append(&log, 0, 100_000, true).expect("append");
        for _ in 0..10 {
            // One flush: the first is in flight.
            writer.append(&log, 1, 2000, false).expect("append");
        }
        durable(&log).await;
        let point = writer.book.borrow().path_to(writer.state.end)[4];
        let mut state = RangeState::default();
        log.truncate_to(point, &mut state).await.expect("truncate");
        writer.state = state;
        if opens_between {
            log.close().await.expect("close");
            (_, log, _) = open_log(&disk, &dir).await;
        }
        fill(&log, &mut writer, 3, |_| 0).await;
        let policy = RetentionPolicy { delete_before: Some(Timestamp(writer.clock + 1)), bytes_max: None };
        let end = Offset(writer.state.offsets[&1]);
        let start = log.retention_start(key(1), Offset(0), end, policy).await.expect("retention");
        assert_eq!(start, Some(end));
        let starts = LogStarts::from([(0, writer.state.offsets[&0]), (1, end.0)]);
        let freed = free(&log, &starts).await;
        assert_eq!((freed.segments_dropped, log.usage().segments), (2, 2), "{opens_between}: {freed:?}");
        // The void entries above the cut were the partition's as well, with offsets from `end` on.
        let again = writer.append(&log, 1, 100, false).map(drop);
        assert!(again.is_ok() && log.first_index() > LogIndex(5));
        durable(&log).await;
        log.close().await.expect("close");
    }
}

async fn rolling_frees_the_active_segment<D: Disk>(disk: D, dir: PathBuf) {
    let dir = dir.join("large");
    let config = StorageConfig { segment_bytes_min: 8 << 20, segment_bytes_max: 8 << 20, ..config() };
    let storage = storage(&disk, &dir, config).await;
    let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
    let mut writer = Writer::new(5);
    let append = async |writer: &mut Writer, partition: u32, bytes: u64| {
        let before = log.usage().entry_bytes;
        while log.usage().entry_bytes < before + bytes {
            log.append_space().await.expect("space");
            writer.append(&log, partition, 30_000, false).expect("append");
        }
        durable(&log).await;
        log.set_committed(log.end().index);
    };
    append(&mut writer, 0, 900 << 10).await;
    let gone = |writer: &Writer| keep(writer, |partition| partition != 0);
    assert!(!free(&log, &gone(&writer)).await.should_roll, "less than a megabyte is dead");
    append(&mut writer, 1, 1200 << 10).await;
    append(&mut writer, 0, 250 << 10).await;
    assert!(!free(&log, &gone(&writer)).await.should_roll, "less than half is dead");
    append(&mut writer, 0, 500 << 10).await;
    let freed = free(&log, &gone(&writer)).await;
    assert_eq!(freed, Freed { should_roll: true, ..Freed::default() });
    log.roll(writer.state.take_snapshot());
    settled(&log).await;
    let freed = free(&log, &gone(&writer)).await;
    assert!(freed.bytes_punched > 1500 << 10 && !freed.should_roll, "{freed:?}");
    let starts = gone(&writer);
    check(&log, &writer, &starts, "rolled and freed").await;
    log.close().await.expect("close");
}

/// A closed log on the simulated disk whose partition 1 was freed.
fn freed_disk(seed: u64) -> (SimDisk, Writer, LogStarts) {
    let executor = SimExecutor::new(seed);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let used = disk.clone();
    let found = executor.run(async move {
        let (_, log, _) = open_log(&used, &sim_dir()).await;
        let mut writer = Writer::new(seed);
        fill(&log, &mut writer, 3, |at| at / 60 % 2).await;
        let starts = keep(&writer, |partition| partition != 1);
        assert!(free(&log, &starts).await.bytes_punched > 0);
        log.close().await.expect("close");
        (writer, starts)
    });
    executor.abandon();
    (disk, found.0, found.1)
}

fn sidecars(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "freed")).collect()
}

/// A sidecar that rotted is not used: what it stood for is damage, what is live is served, and it is written anew.
#[test]
fn a_rotten_sidecar_costs_nothing_that_lives() {
    let (disk, writer, starts) = freed_disk(7);
    let writer = Rc::new(writer);
    let sidecars = sidecars(&disk);
    assert!(sidecars.len() >= 3);
    for bit in [0, 40, 32 * 8 + 3, 33 * 8, 4000 * 8] {
        let executor = SimExecutor::new(70);
        let rotten = disk.killed(&executor);
        rotten.flip_bit(&sidecars[0], bit / 8, (bit % 8) as u8);
        let (writer, starts, path) = (writer.clone(), starts.clone(), sidecars[0].clone());
        executor.run(async move {
            let storage = storage(&rotten, &sim_dir(), config()).await;
            let mut state = RangeState::default();
            let Opened { log, report } = open(&storage, &mut state).await;
            let found: Vec<_> = report.damage.iter().map(|damage| (damage.kind.clone(), damage.path.clone())).collect();
            assert_eq!(found, [(DamageKind::FreedRuns, path.clone())], "bit {bit}");
            assert_eq!((&state, log.failed().is_none()), (&writer.state, true), "bit {bit}: the state is whole");
            assert!(report.loss.is_none(), "bit {bit}: the log takes entries");
            let book = writer.book.borrow().clone();
            check_live_by_partition(&log, &book, 30_000, &starts, "rotten").await;
            let mut damaged = 0;
            for index in 1..=log.end().index.0 {
                match log.read_index(LogIndex(index), 1).await {
                    Ok(_) | Err(ReadError::Freed { .. }) => {}
                    Err(ReadError::Damaged(damage)) => {
                        assert!(damage.path.extension().is_some_and(|end| end == "segment"), "{damage}");
                        damaged += 1;
                    }
                    Err(error) => panic!("bit {bit}, entry {index}: {error}"),
                }
            }
            assert!(damaged > 0, "bit {bit}: a list that does not verify is not used");
            assert!(!free(&log, &starts).await.should_roll);
            check_live_by_partition(&log, &book, 30_000, &starts, "freed again").await;
        });
        executor.abandon();
    }
}

/// Cause: a list of freed entries was read at the start only. Effect: what it stands for was damage until the next start, also
/// when the disk had but failed for a while; who alone had the range could not be copied from. Fix: it is read again.
#[test]
fn a_sidecar_that_could_not_be_read_for_a_while_is_read_again() {
    let (disk, writer, starts) = freed_disk(7);
    let sidecars = sidecars(&disk);
    let executor = SimExecutor::new(71);
    let disk = disk.killed(&executor);
    executor.run(async move {
        disk.spoil(&sidecars[0], 0);
        let storage = storage(&disk, &sim_dir(), config()).await;
        let Opened { log, report } = open(&storage, &mut RangeState::default()).await;
        assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
        let damaged = async || {
            let mut damaged = Vec::new();
            for index in 1..=log.end().index.0 {
                match log.read_index(LogIndex(index), 1).await {
                    Ok(_) | Err(ReadError::Freed { .. }) => {}
                    Err(_) => damaged.push(index),
                }
            }
            damaged
        };
        assert!(!damaged().await.is_empty());
        assert_eq!(log.reread_sidecars().await.expect("reads"), 0, "the disk does not give it yet");
        assert!(log.has_unread_sidecars() && log.has_damage());
        disk.unspoil(&sidecars[0], 0);
        assert_eq!(log.reread_sidecars().await.expect("reads"), 1);
        assert!(!log.has_unread_sidecars() && !log.has_damage(), "{:?}", log.damage());
        assert_eq!(damaged().await, Vec::<u64>::new());
        let book = writer.book.borrow().clone();
        check_live_by_partition(&log, &book, 30_000, &starts, "read again").await;
    });
    executor.abandon();
}

/// Cause: between the planning of a read and its end its entries were freed, then their segment dropped as the log's oldest,
/// and with it the list of what was freed. Effect: zeros that nothing explained, told and noted as damage, which a consumer was
/// told of. Fix: what lies below the log's first entry was dropped, whatever is read of it.
#[test]
fn what_is_freed_and_then_dropped_while_it_is_read_is_not_damaged() {
    let dropped: usize = (0..20).map(read_while_dropping).sum();
    assert!(dropped > 0, "no read was overtaken: this shows nothing");
}

/// Returns how many reads of one entry were told that it was dropped after they had begun.
fn read_while_dropping(seed: u64) -> usize {
    let executor = SimExecutor::new(seed);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let dropped = executor.run(async move {
        let (_, log, _) = open_log(&disk, &sim_dir()).await;
        let mut writer = Writer::new(seed);
        fill(&log, &mut writer, 3, |at| at / 30 % 3).await;
        let dropped = Rc::new(std::cell::Cell::new(0));
        for step in 1..=8 {
            for index in (log.first_index().0..=log.end().index.0).step_by(5) {
                let (reading, told) = (log.clone(), dropped.clone());
                disk.spawn(async move {
                    match reading.read_index(LogIndex(index), 1).await {
                        Ok(_) | Err(ReadError::Freed { .. }) => {}
                        Err(ReadError::Dropped { .. }) => told.set(told.get() + 1),
                        Err(error) => panic!("entry {index}: {error}"),
                    }
                });
            }
            // Where partitions take turns, half of what is dropped next is freed first.
            for share in [2 * step - 1, 2 * step] {
                let starts = writer.state.offsets.iter().map(|(p, end)| (*p, end * share / 16));
                free(&log, &starts.collect()).await;
            }
        }
        settled(&log).await;
        assert_eq!(log.damage(), [], "seed {seed}");
        dropped.get()
    });
    executor.abandon();
    dropped
}

/// Cause: a segment that lost its footer is scanned, and where its end was punched, the scan finds nothing there. Effect: it
/// looked like a segment that was never used, or a torn end; the log ended below it and took entries that had been there
/// before. Fix: a sidecar proves that there was a footer, so what may have followed is lost.
#[test]
fn a_punched_segment_without_its_footer_is_a_loss() {
    for keeps in [true, false] {
        let (disk, writer, _) = freed_disk(7);
        let executor = SimExecutor::new(71);
        let disk = disk.killed(&executor);
        executor.run(async move {
            let (_, log, _) = open_log(&disk, &sim_dir()).await;
            free(&log, &keep(&writer, |partition| keeps && partition != 1)).await;
            log.close().await.expect("close");
            let newest = sidecars(&disk).pop().expect("something is freed").with_extension("");
            let behind = |path: &PathBuf| path.extension().is_some_and(|end| end == "segment") && *path > newest;
            for path in disk.paths().into_iter().filter(behind) {
                disk.remove(&path).await.expect("remove");
            }
            disk.flip_bit(&newest, disk.contents(&newest).len() as u64 - 4096 + 50, 2);
            for restart in 0..3 {
                let storage = storage(&disk, &sim_dir(), config()).await;
                let Opened { log, report } = open(&storage, &mut RangeState::default()).await;
                assert!(report.loss.is_some(), "keeps {keeps}, restart {restart}: {:?}", report.damage);
                assert!(disk.paths().contains(&newest), "keeps {keeps}: the evidence stays");
                log.persist_marker(Epoch(restart + 2)).await.expect("a marker");
                log.close().await.expect("close");
            }
        });
        executor.abandon();
    }
}

/// A sidecar whose segment is gone is removed; one of another generation is nobody's.
#[test]
fn orphans_are_removed() {
    let (disk, writer, starts) = freed_disk(8);
    let sidecar = sidecars(&disk).remove(0);
    let name = sidecar.file_name().expect("a name").to_string_lossy().into_owned();
    let other = sidecar.with_file_name(format!("{}-00000000000000ff.segment.freed", &name[..16]));
    let executor = SimExecutor::new(9);
    let disk = disk.killed(&executor);
    let used = disk.clone();
    executor.run(async move {
        drop(used.create(&other, 4096).await.expect("create"));
        let temporary = sidecar.with_extension("freed.tmp");
        drop(used.create(&temporary, 4096).await.expect("create"));
        let (storage, log, _) = open_log(&used, &sim_dir()).await;
        check_no_leak(&storage, &log, "opened").await;
        check(&log, &writer, &starts, "opened").await;
    });
    executor.abandon();
}
