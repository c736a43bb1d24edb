//! A shard whose disk rots or fails: what is good is served, what is damaged is named with where to go on, and writes are
//! taken exactly where the range's state is whole. What rot does to files by itself is tested in `storage`.

use super::*;
use minikafka_storage::flush::FlushHeader;

/// A shard with `records` records in a closed log of several segments, one flush each.
async fn write_and_close(disk: &SimDisk, records: i32) {
    let answers = Answers::default();
    let life = Life::begin(disk.clone(), 1, 1).await;
    assert_eq!(life.open_partition().await, None);
    for sequence in 0..records {
        life.produce(sequence, &value(sequence), &answers).await;
        life.range().log().durable_above(LogIndex(sequence as u64 + 1)).await.expect("the disk is good");
    }
    life.shard.close().await.expect("closes");
    assert_eq!(committed(&answers), records as usize);
}

/// Takes away what a clean stop leaves, as if the process had been killed behind its last flush: the next start scans.
async fn forget_clean_stop(disk: &SimDisk) {
    let checkpoint = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "checkpoint");
    let path = disk.paths().into_iter().find(checkpoint).expect("a clean stop leaves a checkpoint");
    disk.remove(&path).await.expect("removes");
}

/// Every segment file, oldest first.
fn segments(disk: &SimDisk) -> Vec<std::path::PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment")).collect()
}

/// Where the flush of entry `index` begins.
fn flush_of(disk: &SimDisk, index: u64) -> (std::path::PathBuf, u64) {
    let blocks = segments(disk).into_iter().flat_map(|path| {
        let contents = disk.contents(&path);
        (0..contents.len() / 4096)
            .map(move |block| (path.clone(), block as u64 * 4096, contents[block * 4096..].to_vec()))
    });
    let is_it = |bytes: &[u8]| {
        FlushHeader::decode(bytes).is_some_and(|header| header.first_index.0 == index && header.length > 64)
    };
    let found = blocks.into_iter().find(|(_, _, bytes)| is_it(bytes)).expect("every record has a flush of its own");
    (found.0, found.1)
}

/// What a consumer gets that skips damage, and the stretches it was told of; `None`: damaged at the end.
async fn read_skipping(life: &Life) -> (Vec<(Offset, Vec<u8>)>, Vec<(u64, Option<u64>)>) {
    let (mut values, mut skipped, mut offset) = (Vec::new(), Vec::new(), Offset(0));
    loop {
        let wanted =
            FetchPartition { range: RANGE, epoch: life.epoch, partition: PARTITION, offset, bytes_max: 20_000 };
        let request = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 20_000, partitions: vec![wanted] };
        let fetched = life.shard.fetch(None, &request, None).await;
        let answer = &fetched.reply.partitions[0];
        if answer.error == Some(ErrorCode::DataDamaged) {
            skipped.push((offset.0, answer.resume.map(|resume| resume.0)));
            let Some(resume) = answer.resume else { return (values, skipped) };
            assert!(resume > offset, "there is a way on");
            offset = resume;
            continue;
        }
        if answer.error == Some(ErrorCode::CatchingUp) {
            // It is looked at again first.
            pass_ticks(life, 1).await;
            continue;
        }
        assert_eq!(answer.error, None);
        let bytes: Vec<u8> = fetched.entries.iter().flat_map(|slice| slice.to_vec()).collect();
        if bytes.is_empty() {
            return (values, skipped);
        }
        values.extend(values_of(&bytes));
        offset = Offset(values.last().expect("an entry has a record").0.0 + 1);
    }
}

/// All records but those of `lost`.
fn all_but(records: i32, lost: std::ops::Range<i32>) -> Vec<(Offset, Vec<u8>)> {
    (0..records).filter(|at| !lost.contains(at)).map(|at| (Offset(at as u64), value(at))).collect()
}

fn codes(answers: &Answers) -> Vec<Option<ErrorCode>> {
    let code = |(_, answer): &(i32, Answer)| match answer {
        Answer::Done { .. } => None,
        Answer::Refused { code, .. } => Some(*code),
    };
    answers.borrow().iter().map(code).collect()
}

/// Produces one record and waits until it is answered.
async fn produce_one(life: &Life, sequence: i32) -> Option<ErrorCode> {
    let answers = Answers::default();
    life.produce(sequence, &value(sequence), &answers).await;
    while answers.borrow().is_empty() {
        life.shard.disk().sleep(Duration::from_millis(1)).await;
    }
    codes(&answers)[0]
}

/// Time passes, with what a shard does at each tick.
async fn pass_ticks(life: &Life, ticks: u32) {
    for _ in 0..ticks {
        life.shard.tick();
        life.shard.disk().sleep(Duration::from_millis(limits::TICK_MS)).await;
    }
}

fn on_a_disk(seed: u64, test: impl AsyncFnOnce(SimDisk) + 'static) {
    let executor = SimExecutor::new(seed);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    executor.run(async move { test(disk).await });
}

#[test]
fn a_damaged_body_costs_its_batch_and_writes_go_on() {
    for index in [3, 40, 200] {
        on_a_disk(1, async move |disk| {
            write_and_close(&disk, 220).await;
            let (path, position) = flush_of(&disk, index);
            disk.flip_bit(&path, position + 64 + 128 + 60, 2);
            let life = Life::begin(disk, 2, 2).await;
            // Entry 1 opened the partition.
            let lost = index as i32 - 2;
            let (values, skipped) = read_skipping(&life).await;
            assert_eq!(skipped, [(lost as u64, Some(lost as u64 + 1))]);
            assert!(values == all_but(220, lost..lost + 1), "everything else is served");
            assert_eq!(produce_one(&life, 220).await, None, "offsets and producers are known from headers");
            assert_eq!(life.range().offsets(PARTITION).expect("open").committed_end, Offset(221));
        });
    }
}

#[test]
fn damage_below_the_newest_footer_costs_its_entries_and_writes_go_on() {
    for has_footer in [true, false] {
        on_a_disk(2, async move |disk| {
            write_and_close(&disk, 220).await;
            assert!(segments(&disk).len() > 2, "the first segment is sealed, and so is another");
            let (path, position) = flush_of(&disk, 20);
            disk.overwrite(&path, position, &[0; 4096]);
            if !has_footer {
                // Then the segment is scanned, and what it lost is met at the start.
                disk.flip_bit(&path, disk.contents(&path).len() as u64 - 4096 + 50, 2);
            }
            let life = Life::begin(disk, 2, 2).await;
            let (values, skipped) = read_skipping(&life).await;
            assert_eq!(skipped, [(18, Some(19))]);
            assert!(values == all_but(220, 18..19), "everything else is served");
            assert_eq!(produce_one(&life, 220).await, None, "footer: {has_footer}");
        });
    }
}

#[test]
fn a_lost_header_above_the_newest_footer_leaves_a_range_that_is_only_read() {
    on_a_disk(3, async |disk| {
        write_and_close(&disk, 220).await;
        forget_clean_stop(&disk).await;
        let (path, position) = flush_of(&disk, 200);
        disk.overwrite(&path, position, &[0; 4096]);
        // Again and again: the marker of such a range must not hide what was lost.
        for restart in 2..5 {
            let life = Life::begin(disk.clone(), restart, restart).await;
            let (values, skipped) = read_skipping(&life).await;
            assert_eq!(skipped, [(198, Some(199))], "restart {restart}");
            assert!(values == all_but(220, 198..199), "everything else is served");
            assert_eq!(produce_one(&life, 220).await, Some(ErrorCode::RangeFailed));
            assert_eq!(life.open_partition().await, Some(ErrorCode::RangeFailed));
            let why = life.range().refusal(ErrorCode::RangeFailed);
            let names = [path.to_str().expect("text"), "entries 200 to 200", "restore", &format!("byte {position}")];
            assert!(names.iter().all(|name| why.contains(name)), "{why}");
            life.shard.close().await.expect("closes");
        }
    });
}

/// The state of a range that stopped cleanly is known whatever happened to its entries meanwhile: nothing is scanned, reads
/// tell what is damaged, and writes go on.
#[test]
fn after_a_clean_stop_damage_above_the_newest_footer_costs_its_entries_only() {
    for (records, index) in [(220, 200), (20, 1), (20, 21)] {
        on_a_disk(3, async move |disk| {
            write_and_close(&disk, records).await;
            let (path, position) = flush_of(&disk, index);
            disk.overwrite(&path, position, &[0; 4096]);
            // Entry 1 opened the partition.
            let lost = (index as i32 - 2).max(0)..index as i32 - 1;
            let told: Vec<_> = lost.clone().map(|at| (at as u64, Some(at as u64 + 1))).collect();
            for restart in 2..5 {
                let life = Life::begin(disk.clone(), restart, restart).await;
                let (values, skipped) = read_skipping(&life).await;
                assert_eq!(skipped, told, "entry {index}, restart {restart}");
                let written = records + restart as i32 - 2;
                assert!(values == all_but(written, lost.clone()), "entry {index}, restart {restart}");
                assert_eq!(produce_one(&life, written).await, None, "entry {index}, restart {restart}");
                life.shard.close().await.expect("closes");
            }
        });
    }
}

/// Nobody else has the range, so only its own disk can make up for what it did not read.
#[test]
fn who_is_alone_looks_again_at_what_its_disk_could_not_read() {
    for index in [20, 219] {
        on_a_disk(8, async move |disk| {
            write_and_close(&disk, 220).await;
            let (path, position) = flush_of(&disk, index);
            disk.spoil(&path, position);
            let life = Life::begin(disk.clone(), 2, 2).await;
            let lost = index as i32 - 2;
            assert_eq!(read_skipping(&life).await.0, all_but(220, lost..lost + 1), "everything else is served");
            // The active segment is rolled first, and then there is nobody to ask.
            pass_ticks(&life, 100).await;
            let (values, skipped) = read_skipping(&life).await;
            assert_eq!(
                skipped,
                [(lost as u64, Some(lost as u64 + 1))],
                "it was looked for in vain, and is called lost"
            );
            assert_eq!(values, all_but(220, lost..lost + 1));
            disk.unspoil(&path, position);
            assert!(life.range().log().has_damage(), "it is not looked at all the time");
            pass_ticks(&life, limits::MEND_HOPELESS_TICKS).await;
            assert!(!life.range().log().has_damage(), "{:?}", life.range().log().damage());
            assert_eq!(read_skipping(&life).await, (all_but(220, 0..0), Vec::new()));
            assert_eq!(produce_one(&life, 220).await, None);
        });
    }
}

/// The entry that opened the partition is lost: batches tell that it is open, and where it stands.
#[test]
fn a_partition_whose_opening_is_lost_is_read_all_the_same() {
    on_a_disk(4, async |disk| {
        write_and_close(&disk, 20).await;
        forget_clean_stop(&disk).await;
        let (path, position) = flush_of(&disk, 1);
        disk.flip_bit(&path, position + 64 + 128 + 3, 2);
        let life = Life::begin(disk, 2, 2).await;
        let (values, skipped) = read_skipping(&life).await;
        assert_eq!(skipped, []);
        assert!(values == all_but(20, 0..0), "every batch is good");
        assert_eq!(produce_one(&life, 20).await, Some(ErrorCode::RangeFailed), "its settings are not known");
    });
}

#[test]
fn records_that_may_have_been_last_are_said_to_be_damaged() {
    on_a_disk(5, async |disk| {
        write_and_close(&disk, 20).await;
        forget_clean_stop(&disk).await;
        let (path, position) = flush_of(&disk, 21);
        disk.overwrite(&path, position, &[0; 4096]);
        let life = Life::begin(disk, 2, 2).await;
        let (values, skipped) = read_skipping(&life).await;
        assert_eq!(skipped, [(19, None)], "whether the lost entry was of this partition is not known");
        assert!(values == all_but(20, 19..20), "everything else is served");
    });
}

/// Cause: a log that begins above what a reader wants may have dropped it as dead, and the log itself cannot tell. Effect: a
/// lost segment was called an offset out of range, and consumers went on at the end. Fix: the range knows its log start.
#[test]
fn a_missing_oldest_segment_is_no_silence() {
    for is_clean in [true, false] {
        on_a_disk(6, async move |disk| {
            write_and_close(&disk, 220).await;
            if !is_clean {
                forget_clean_stop(&disk).await;
            }
            disk.remove(&segments(&disk)[0]).await.expect("removes");
            let life = Life::begin(disk, 2, 2).await;
            let (values, skipped) = read_skipping(&life).await;
            let (first, resume) = skipped[0];
            assert_eq!((first, skipped.len()), (0, 1));
            assert!(values == all_but(220, 0..resume.expect("there is more") as i32), "everything else is served");
            assert_eq!(produce_one(&life, 220).await, None, "the snapshot has the state");
        });
    }
}

#[test]
fn after_a_failed_write_other_ranges_go_on_and_a_restart_finds_what_was_acknowledged() {
    on_a_disk(7, async |disk| {
        let life = Life::begin(disk.clone(), 1, 1).await;
        let other = RangeKey { range: RangeId(6), ..RANGE };
        life.change_epoch_of(other).await;
        assert_eq!(life.open_partition().await, None);
        for sequence in 0..5 {
            assert_eq!(produce_one(&life, sequence).await, None);
        }
        disk.set_faults(Faults { write: Some(0), ..Faults::default() });
        assert_eq!(produce_one(&life, 5).await, Some(ErrorCode::RangeFailed));
        for sequence in 6..10 {
            assert_eq!(
                produce_one(&life, sequence).await,
                Some(ErrorCode::RangeFailed),
                "also when the disk is good again"
            );
        }
        let why = life.range().refusal(ErrorCode::RangeFailed);
        assert!(why.contains("cannot write") && why.contains(".segment"), "{why}");
        assert!(read_skipping(&life).await.0 == all_but(5, 0..0), "reads go on, and nothing unacknowledged is read");
        let entry = ControlEntry::PartitionOpen {
            partition: PARTITION,
            config: TopicConfig::default(),
            version: minikafka_core::ConfigVersion(1),
            start_offset: Offset(0),
            previous: None,
        };
        let entries = vec![AppendControlRange { range: other, epoch: life.epoch, entry }];
        let opened = life.shard.append_control(AppendControlRequest { entries }).await;
        assert_eq!(opened.entries[0].error, None, "another range of the shard goes on");
        drop(life.shard.close().await);
        let life = Life::begin(disk, 2, 2).await;
        let values = read_skipping(&life).await.0;
        assert!(values.len() >= 5 && values[..5] == all_but(5, 0..0)[..], "what was acknowledged is there");
        assert_eq!(produce_one(&life, values.len() as i32).await, None, "and the range takes writes again");
    });
}
