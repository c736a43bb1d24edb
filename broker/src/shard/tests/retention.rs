//! Retention, deleted records and quotas of a shard over the simulated disk, with wall time that the test lets pass.

use super::*;

/// Every record as large, so that a few hundred fill several segments of [`config`].
const VALUE_BYTES: usize = 6_000;
const BATCHES: i32 = 600;

fn large(sequence: i32) -> Vec<u8> {
    sequence.to_le_bytes().into_iter().cycle().take(VALUE_BYTES).collect()
}

/// The same settings for ever: nothing goes by itself.
fn with(retention_ms: i64, retention_bytes: i64) -> TopicConfig {
    TopicConfig { retention_ms, retention_bytes, ..TopicConfig::default() }
}

impl Life {
    async fn begin_with(disk: SimDisk, config: TopicConfig) -> Self {
        let life = Self::begin(disk, 1, 1).await;
        assert_eq!(life.control(open_entry(PARTITION, config)).await, None);
        life
    }

    /// Produces batches of one record each and waits until all are committed.
    async fn produce_all(&self, sequences: std::ops::Range<i32>) {
        let answers = Answers::default();
        let count = sequences.len();
        for sequence in sequences {
            self.produce(sequence, &large(sequence), &answers).await;
        }
        let range = self.range();
        range.committed().wait_for(|| (answers.borrow().len() == count).then_some(())).await;
        assert_eq!(committed(&answers), count, "{:?}", answers.borrow());
    }

    async fn check_retention(&self) {
        let keeps_going = Cell::new(false);
        self.shard.retention_round(true, &keeps_going).await;
        // Footers are written in the background; what they seal is freed by the next round.
        self.shard.disk().sleep(Duration::from_secs(1)).await;
        self.shard.retention_round(true, &keeps_going).await;
    }

    async fn offset(&self, query: OffsetQuery) -> u64 {
        let wanted = ListOffsetsPartition { range: RANGE, epoch: self.epoch, partition: PARTITION, query };
        let listed = self.shard.list_offsets(&ListOffsetsRequest { partitions: vec![wanted] }).await;
        assert_eq!(listed.partitions[0].error, None);
        listed.partitions[0].offset.0
    }

    async fn log_start(&self) -> u64 {
        self.offset(OffsetQuery::Earliest).await
    }

    async fn delete_before(&self, before: u64) -> DeletedRecords {
        let before = Offset(before);
        let wanted = DeleteRecordsPartition { range: RANGE, epoch: self.epoch, partition: PARTITION, before };
        let reply = self.shard.delete_records(&DeleteRecordsRequest { partitions: vec![wanted] }).await;
        reply.partitions[0].clone()
    }

    /// A fetch below the log start is told so, and everything from it on is there without a gap.
    async fn check_suffix(&self, end: i32) {
        let start = self.log_start().await;
        if start > 0 {
            let refused = self.fetch_from(start - 1).await;
            assert_eq!((refused.error, refused.log_start), (Some(ErrorCode::OffsetOutOfRange), Offset(start)));
        }
        let values = self.read_from(start).await;
        let expected: Vec<_> = (start as i32..end).map(|at| (Offset(at as u64), large(at))).collect();
        assert!(values == expected, "from {start}: {} records, {} expected", values.len(), expected.len());
    }

    /// Returns the end, which may be above what was acknowledged.
    async fn check_after_crash(&self, acknowledged: i32, deleted: u64) -> i32 {
        let (start, end) = (self.log_start().await, self.offset(OffsetQuery::Latest).await as i32);
        assert!(end >= acknowledged, "{acknowledged} were acknowledged, {end} are there");
        assert!(start >= deleted, "{deleted} were deleted, the log starts at {start}");
        self.check_suffix(end).await;
        end
    }

    async fn fetch_from(&self, offset: u64) -> FetchedPartition {
        let offset = Offset(offset);
        let wanted = FetchPartition { range: RANGE, epoch: self.epoch, partition: PARTITION, offset, bytes_max: 1 };
        let request = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 1, partitions: vec![wanted] };
        self.shard.fetch(None, &request, None).await.reply.partitions[0].clone()
    }

    /// Bytes of the range's files.
    async fn file_bytes(&self) -> u64 {
        let (disk, dir) = (self.shard.disk(), Path::new(DIR).join("data/1/5"));
        let mut bytes = 0;
        for name in disk.list(&dir).await.expect("lists") {
            let file = disk.open(&dir.join(name)).await.expect("opens");
            bytes += file.size().await.expect("has a size");
            file.close().await.expect("closes");
        }
        bytes
    }
}

fn run<T: 'static, F: Future<Output = T> + 'static>(seed: u64, work: impl FnOnce(SimDisk) -> F) -> T {
    let executor = SimExecutor::new(seed);
    executor.run(work(SimDisk::new(&executor, Durability::Dsync)))
}

#[test]
fn what_is_too_old_goes_by_the_heads_clock_and_stays_gone() {
    run(1, async |disk| {
        let life = Life::begin_with(disk.clone(), with(60_000, -1)).await;
        life.produce_all(0..BATCHES).await;
        life.check_retention().await;
        assert_eq!(life.log_start().await, 0, "nothing is old yet");
        let before = life.file_bytes().await;
        life.time.advance(Duration::from_secs(61));
        life.produce_all(BATCHES..BATCHES + 20).await;
        life.check_retention().await;
        let start = life.log_start().await;
        // Whole flushes are looked at, so a little of what is old may stay, and nothing of what is new may go.
        assert!((BATCHES as u64 - 10..=BATCHES as u64).contains(&start), "{start}");
        life.check_suffix(BATCHES + 20).await;
        let (after, metrics) = (life.file_bytes().await, &life.shard.metrics);
        assert!(after < before / 2, "{before} bytes of files before, {after} after");
        assert!(metrics.segments_dropped.get() > 0 && metrics.log_starts_moved.get() > 0);
        // Nothing more is old.
        life.check_retention().await;
        assert_eq!(life.log_start().await, start);
        life.shard.close().await.expect("closes");
        let life = Life::begin(disk, 2, 2).await;
        assert_eq!(life.log_start().await, start, "also after a restart");
        life.check_suffix(BATCHES + 20).await;
        // Everything grows old in the end.
        life.time.advance(Duration::from_secs(3_600));
        life.check_retention().await;
        assert_eq!(life.log_start().await, BATCHES as u64 + 20);
        life.produce_all(BATCHES + 20..BATCHES + 21).await;
        life.check_suffix(BATCHES + 21).await;
    });
}

#[test]
fn bytes_bound_a_partition_and_its_files_for_as_long_as_it_is_written_to() {
    run(2, async |disk| {
        const KEPT: u64 = 600_000;
        let life = Life::begin_with(disk, with(-1, KEPT as i64)).await;
        let (mut end, mut files_max, mut last) = (0, 0, 0);
        for _ in 0..12 {
            life.produce_all(end..end + 100).await;
            end += 100;
            life.check_retention().await;
            let start = life.log_start().await;
            let kept = (end as u64 - start) * VALUE_BYTES as u64;
            assert!(start >= last, "a log start only grows");
            assert!(kept >= KEPT - 2 * VALUE_BYTES as u64, "{kept} bytes are kept");
            assert!(kept <= KEPT + (1 << 18), "{kept} bytes are kept");
            (last, files_max) = (start, life.file_bytes().await.max(files_max));
        }
        // What is kept, a segment that is being filled, one prepared, and the newest sealed one.
        assert!(files_max <= KEPT + 4 * (1 << 19), "{files_max} bytes of files for {KEPT} kept of 7,200,000 written");
        life.check_suffix(end).await;
    });
}

#[test]
fn records_are_deleted_up_to_what_is_committed_and_only_forwards() {
    run(3, async |disk| {
        let life = Life::begin_with(disk, with(-1, -1)).await;
        life.produce_all(0..50).await;
        let deleted = life.delete_before(20).await;
        assert_eq!((deleted.error, deleted.log_start, deleted.epoch), (None, Offset(20), Epoch(1)));
        let index = life.range().log().end().index;
        for before in [20, 7, 0] {
            assert_eq!(life.delete_before(before).await.log_start, Offset(20), "again, or below");
        }
        assert_eq!(life.range().log().end().index, index, "what holds already costs no entry");
        life.check_suffix(50).await;
        assert_eq!(life.delete_before(u64::MAX).await.log_start, Offset(50), "the committed end");
        life.check_suffix(50).await;
        life.produce_all(50..60).await;
        life.check_suffix(60).await;
        let stale =
            Life { shard: life.shard.clone(), epoch: Epoch(9), time: life.time.clone() }.delete_before(55).await;
        assert_eq!((stale.error, stale.epoch), (Some(ErrorCode::Stale), Epoch(1)));
        let other = PartitionKey { partition: Partition(77), ..PARTITION };
        let wanted = DeleteRecordsPartition { range: RANGE, epoch: Epoch(1), partition: other, before: Offset(1) };
        let reply = life.shard.delete_records(&DeleteRecordsRequest { partitions: vec![wanted] }).await;
        assert_eq!(reply.partitions[0].error, Some(ErrorCode::PartitionNotReady));
        assert_eq!(life.log_start().await, 50);
    });
}

#[test]
fn a_deleted_topic_gives_its_space_back() {
    run(4, async |disk| {
        let life = Life::begin_with(disk, with(-1, -1)).await;
        life.produce_all(0..BATCHES).await;
        let before = life.file_bytes().await;
        assert_eq!(life.control(ControlEntry::PartitionDelete { partition: PARTITION }).await, None);
        life.check_retention().await;
        life.check_retention().await;
        let after = life.file_bytes().await;
        assert!(after < before / 2, "{before} bytes of files before, {after} after");
    });
}

#[test]
fn only_an_acting_head_deletes() {
    run(5, async |disk| {
        let life = Life::begin_with(disk, with(0, -1)).await;
        life.produce_all(0..20).await;
        life.time.advance(Duration::from_secs(1));
        let me = life.shard.me();
        let ranges = vec![SealRange { range: RANGE.range, epoch: Epoch(2), members: Vec::new() }];
        let seal = SealRequest { writer: WriterId(1), incarnation: me.incarnation, ring: RANGE.ring, ranges };
        assert_eq!(life.shard.seal(seal).await.ranges[0].error, None);
        let end = life.range().log().end();
        life.check_retention().await;
        assert_eq!(life.range().log().end(), end, "sealed: nothing is appended");
        assert!(!life.range().owes_space(), "nor freed");
    });
}

/// Cause: a full disk refused every entry of a range whose segment was full, log starts and settings among them. Effect:
/// retention could never make room again. Fix: batches leave the end of the last segment to control entries.
#[test]
fn a_full_disk_refuses_batches_and_retention_makes_room_again() {
    run(6, async |disk| {
        let life = Life::begin_with(disk.clone(), with(-1, -1)).await;
        disk.set_capacity(StorageConfig::default().reserve_bytes + (4 << 20));
        let (mut end, mut refused) = (0, None);
        while refused.is_none() {
            assert!(end < 2 * BATCHES, "the disk is never full");
            let answers = Answers::default();
            life.produce(end, &large(end), &answers).await;
            life.range().committed().wait_for(|| (!answers.borrow().is_empty()).then_some(())).await;
            match answers.borrow()[0].1 {
                Answer::Done { .. } => end += 1,
                Answer::Refused { code, .. } => refused = Some(code),
            }
        }
        assert_eq!(refused, Some(ErrorCode::DiskFull));
        life.check_suffix(end).await;
        let (config, version) = (with(-1, 100_000), ConfigVersion(2));
        assert_eq!(life.control(ControlEntry::PartitionConfig { partition: PARTITION, config, version }).await, None);
        for _ in 0..3 {
            life.check_retention().await;
        }
        assert!(life.log_start().await > 0);
        life.check_suffix(end).await;
        life.produce_all(end..end + 50).await;
        life.check_suffix(end + 50).await;
    });
}

/// Deletes and produces, crashes somewhere, three times over: what was said to be deleted stays deleted, what was
/// acknowledged and not deleted is there, without a gap.
#[test]
fn deletions_survive_any_crash() {
    for seed in 0..20 {
        println!("seed {seed}");
        let executor = SimExecutor::new(seed);
        let mut disk = SimDisk::new(&executor, Durability::Dsync);
        let (mut acknowledged, mut deleted) = (0, 0);
        for life in 1..=4u64 {
            let (answers, told) = (Answers::default(), Rc::new(Cell::new(deleted)));
            let (disk_now, noted, starts) = (disk.clone(), answers.clone(), told.clone());
            let (produced, begun) = executor.run(async move {
                let life = Life::begin(disk_now, life, life).await;
                assert_eq!(life.control(open_entry(PARTITION, with(-1, -1))).await, None);
                let begun = life.check_after_crash(acknowledged, deleted).await;
                for sequence in begun..begun + 80 {
                    life.produce(sequence, &large(sequence), &noted).await;
                    if sequence % 16 == 0 {
                        starts.set(life.delete_before(sequence as u64).await.log_start.0);
                        life.shard.retention_round(true, &Cell::new(false)).await;
                    }
                }
                (life, begun)
            });
            for _ in 0..executor.random(|random| random.below(60)) {
                executor.step();
            }
            let moment = disk.moment();
            (acknowledged, deleted) = (begun + committed(&answers) as i32, told.get());
            executor.abandon();
            drop(produced);
            disk = disk.crash_at(moment, seed * 31 + life, &executor);
        }
        executor.run(async move {
            Life::begin(disk, 5, 5).await.check_after_crash(acknowledged, deleted).await;
        });
    }
}
