//! A shard over the simulated disk, asked as the controller and clients ask it, killed at every kind of moment.
//!
//! Proof that it can fail: with `Faults::lies_about_durability` set in `crash_and_retry`, seed 0 ends with "60 were
//! acknowledged, 1 are there".

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use minikafka_core::batch::{BatchBuilder, RecordRef};
use minikafka_core::chain::replica::Answer;
use minikafka_core::control::ControlEntry;
use minikafka_core::entry::EntryHeader;
use minikafka_core::topic::TopicConfig;
use minikafka_core::wire::*;
use minikafka_core::*;
use minikafka_storage::disk::sim::{Faults, SimDisk, SimExecutor};
use minikafka_storage::disk::{DiskFile, Durability};
use minikafka_storage::{Body, StorageConfig};

use super::*;
use crate::clock::ManualClock;
use crate::peers::NoPeers;
use crate::range::Completion;

mod chain;
mod damage;
mod groups;
mod retention;

const RANGE: RangeKey = RangeKey { ring: RingId(1), range: RangeId(5) };
const PARTITION: PartitionKey = PartitionKey { topic: TopicId(0xabc), partition: Partition(0) };
const DIR: &str = "/data";

/// Small sizes, so that a short history rolls segments.
fn config() -> StorageConfig {
    StorageConfig {
        segment_bytes_min: 1 << 18,
        segment_bytes_max: 1 << 19,
        flush_bytes_max: 1 << 15,
        ..StorageConfig::default()
    }
}

/// One life of a shard: from a start to a crash.
struct Life {
    shard: Rc<Shard<SimDisk>>,
    epoch: Epoch,
    time: ManualClock,
}

/// What a shard of one is opened with, and the hand of its clock.
fn setup(disk: SimDisk, me: ChainMember) -> (ShardSetup<SimDisk>, ManualClock) {
    let (clock, time) = Clock::manual();
    let (data_dir, owners, peers) = (PathBuf::from(DIR), RangeOwners::default(), Rc::new(NoPeers));
    let storage = config();
    (ShardSetup { disk, data_dir, me, shards: 1, owners, storage, budget_bytes: 32 << 20, clock, peers }, time)
}

impl Life {
    async fn begin(disk: SimDisk, incarnation: u64, epoch: u64) -> Self {
        let me = ChainMember {
            node: NodeId(1),
            shard: ShardId(0),
            store: StoreId(7),
            incarnation: Incarnation(incarnation),
        };
        let (setup, time) = setup(disk, me);
        let shard = Shard::open(setup).await.expect("the disk is good");
        let life = Self { shard, epoch: Epoch(epoch), time };
        life.change_epoch().await;
        life
    }

    /// What the controller does at every start: seal, reconcile to the own end, activate.
    async fn change_epoch(&self) {
        self.change_epoch_of(RANGE).await;
    }

    async fn change_epoch_of(&self, RangeKey { ring, range }: RangeKey) {
        let (me, epoch) = (self.shard.me(), self.epoch);
        let (writer, incarnation) = (WriterId(1), me.incarnation);
        let seal =
            SealRequest { writer, incarnation, ring, ranges: vec![SealRange { range, epoch, members: Vec::new() }] };
        let sealed = self.shard.seal(seal).await;
        let report = &sealed.ranges[0];
        assert_eq!((report.error, report.promised), (None, epoch));
        assert!(epoch == Epoch(1) || report.marker == Epoch(epoch.0 - 1), "the marker of the last epoch is kept");
        let end = report.end;
        let ranges = vec![ReconcileRange { range, epoch, end, source: None }];
        let reconciled = self.shard.reconcile(ReconcileRequest { writer, incarnation, ring, ranges }).await;
        assert_eq!(reconciled.ranges[0].error, None);
        let ranges = vec![ActivateRange { range, epoch, chain: vec![me], start: end }];
        assert_eq!(self.shard.activate(ActivateRequest { ring, ranges }).await.ranges[0].error, None);
    }

    async fn open_partition(&self) -> Option<ErrorCode> {
        self.control(open_entry(PARTITION, TopicConfig::default())).await
    }

    async fn control(&self, entry: ControlEntry) -> Option<ErrorCode> {
        let entries = vec![AppendControlRange { range: RANGE, epoch: self.epoch, entry }];
        self.shard.append_control(AppendControlRequest { entries }).await.entries[0].error
    }

    fn range(&self) -> Rc<Range<SimDisk>> {
        self.shard.range(RANGE).expect("the range was opened by the seal")
    }

    /// Produces one record; its answer is noted in `answers`.
    async fn produce(&self, sequence: i32, value: &[u8], answers: &Answers) {
        let (header, body) = batch(sequence, value);
        let range = self.range();
        range.append_space().await;
        let deadline = self.shard.clock().monotonic() + Duration::from_secs(3_600);
        let note = Note { sequence, answers: answers.clone() };
        if body.len() < 8_000 {
            range.produce(header, self.epoch, Body::Copied(&body), Box::new(note), deadline);
        } else {
            let mut buffer = range.log().body_buffer(header.body_bytes);
            buffer.body_mut().copy_from_slice(&body);
            range.produce(header, self.epoch, Body::Whole(buffer), Box::new(note), deadline);
        }
    }

    /// Every value from the log start to the committed end.
    async fn read_all(&self) -> Vec<(Offset, Vec<u8>)> {
        self.read_from(0).await
    }

    /// The same from an offset on.
    async fn read_from(&self, offset: u64) -> Vec<(Offset, Vec<u8>)> {
        let (mut values, mut offset) = (Vec::new(), Offset(offset));
        loop {
            let wanted =
                FetchPartition { range: RANGE, epoch: self.epoch, partition: PARTITION, offset, bytes_max: 20_000 };
            let request = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 20_000, partitions: vec![wanted] };
            let fetched = self.shard.fetch(None, &request, None).await;
            assert_eq!(fetched.reply.partitions[0].error, None);
            let bytes: Vec<u8> = fetched.entries.iter().flat_map(|slice| slice.to_vec()).collect();
            if bytes.is_empty() {
                assert_eq!(fetched.reply.partitions[0].committed_end, offset);
                return values;
            }
            values.extend(values_of(&bytes));
            offset = Offset(values.last().expect("an entry has a record").0.0 + 1);
        }
    }
}

fn open_entry(partition: PartitionKey, config: TopicConfig) -> ControlEntry {
    let (version, start_offset) = (ConfigVersion::FIRST, Offset(0));
    ControlEntry::PartitionOpen { partition, config, version, start_offset, previous: None }
}

type Answers = Rc<RefCell<Vec<(i32, Answer)>>>;

struct Note {
    sequence: i32,
    answers: Answers,
}

impl Completion for Note {
    fn complete(self: Box<Self>, answer: Answer) {
        self.answers.borrow_mut().push((self.sequence, answer));
    }
}

fn batch(sequence: i32, value: &[u8]) -> (EntryHeader, Vec<u8>) {
    let mut builder = BatchBuilder::with_capacity(value.len());
    builder.push(RecordRef { value: Some(value), ..RecordRef::at(Timestamp(1)) }).expect("it fits");
    let finished = builder.finish();
    let header = finished.header(RANGE, PARTITION, (ProducerId(9), ProducerEpoch(0), Sequence(sequence)));
    (header, finished.body)
}

fn values_of(mut entries: &[u8]) -> Vec<(Offset, Vec<u8>)> {
    let mut values = Vec::new();
    while !entries.is_empty() {
        let header = EntryHeader::decode(entries).expect("entries are served as stored");
        let body = &entries[128..128 + header.body_bytes as usize];
        assert_eq!(checksum::crc32c(body), header.body_crc);
        let view = batch::BatchView::parse(body, &header).expect("the shape was checked");
        values.extend(view.iter().map(|record| (record.offset, record.value.unwrap_or_default().to_vec())));
        entries = &entries[header.entry_bytes()..];
    }
    values
}

/// The value of record `sequence`: told by its number, sometimes large.
fn value(sequence: i32) -> Vec<u8> {
    let bytes = if sequence % 7 == 3 { 9_000 } else { 10 + sequence as usize % 300 };
    sequence.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

fn committed(answers: &Answers) -> usize {
    answers.borrow().iter().filter(|(_, answer)| matches!(answer, Answer::Done { .. })).count()
}

#[test]
fn what_was_acknowledged_is_there_after_any_crash_and_retries_are_stored_once() {
    let seeds = std::env::var("MINIKAFKA_SEED").map_or(0..40, |seed| {
        let seed: u64 = seed.parse().expect("MINIKAFKA_SEED is a number");
        seed..seed + 1
    });
    for seed in seeds {
        println!("seed {seed}");
        crash_and_retry(seed);
    }
}

/// Produces, crashes somewhere, restarts, sends everything unacknowledged again, three times over.
fn crash_and_retry(seed: u64) {
    let executor = SimExecutor::new(seed);
    let durability = [Durability::Dsync, Durability::GroupFdatasync][seed as usize % 2];
    let mut disk = SimDisk::new(&executor, durability);
    let mut acknowledged = 0;
    for life in 1..=4u64 {
        let answers = Answers::default();
        let (disk_now, noted) = (disk.clone(), answers.clone());
        let (first, begun) = (acknowledged as i32, disk.moment());
        let produced = executor.run(async move {
            let life = Life::begin(disk_now, life, life).await;
            assert_eq!(life.open_partition().await, None);
            for sequence in first..first + 60 {
                life.produce(sequence, &value(sequence), &noted).await;
            }
            life
        });
        // Let some of the writes finish, and note what is acknowledged by the very moment of the crash.
        let steps = executor.random(|random| random.below(120));
        for _ in 0..steps {
            executor.step();
        }
        let moment = disk.moment();
        acknowledged += committed(&answers);
        assert!(moment > begun, "something was written");
        executor.abandon();
        drop(produced);
        disk = disk.crash_at(moment, seed * 31 + life, &executor);
    }
    check_all(&executor, disk, acknowledged);
}

fn check_all(executor: &SimExecutor, disk: SimDisk, acknowledged: usize) {
    let values = executor.run(async move { Life::begin(disk, 9, 5).await.read_all().await });
    assert!(values.len() >= acknowledged, "{acknowledged} were acknowledged, {} are there", values.len());
    for (at, (offset, found)) in values.iter().enumerate() {
        assert_eq!((offset.0, found), (at as u64, &value(at as i32)), "each once, in order, as it was sent");
    }
}

#[test]
fn a_failed_write_ends_acknowledgements_and_reads_go_on() {
    let executor = SimExecutor::new(3);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let answers = Answers::default();
    let (noted, failing) = (answers.clone(), disk.clone());
    let life = executor.run(async move {
        let life = Life::begin(failing.clone(), 1, 1).await;
        assert_eq!(life.open_partition().await, None);
        life.produce(0, &value(0), &noted).await;
        life.range().log().durable_above(LogIndex(1)).await.expect("the disk is good so far");
        failing.set_faults(Faults { write: Some(0), ..Faults::default() });
        life.produce(1, &value(1), &noted).await;
        life.produce(2, &value(2), &noted).await;
        life
    });
    executor.run_until_idle();
    let codes: Vec<_> = answers
        .borrow()
        .iter()
        .map(|(sequence, answer)| match answer {
            Answer::Done { .. } => (*sequence, None),
            Answer::Refused { code, .. } => (*sequence, Some(*code)),
        })
        .collect();
    assert_eq!(codes, [(0, None), (1, Some(ErrorCode::RangeFailed)), (2, Some(ErrorCode::RangeFailed))]);
    let values = executor.run(async move { life.read_all().await });
    assert_eq!(values, [(Offset(0), value(0))]);
}

#[test]
fn a_log_that_is_gone_took_its_marker_with_it() {
    let executor = SimExecutor::new(4);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let wiped = disk.clone();
    let report = executor.run(async move {
        let life = Life::begin(wiped.clone(), 1, 1).await;
        life.open_partition().await;
        life.shard.close().await.expect("closes");
        let dir = Path::new(DIR).join("data/1/5");
        for name in wiped.list(&dir).await.expect("lists") {
            wiped.remove(&dir.join(name)).await.expect("removes");
        }
        let me = ChainMember { incarnation: Incarnation(2), ..life.shard.me() };
        let shard = Shard::open(setup(wiped, me).0).await;
        let ranges = vec![SealRange { range: RANGE.range, epoch: Epoch(2), members: Vec::new() }];
        let seal = SealRequest { writer: WriterId(1), incarnation: me.incarnation, ring: RANGE.ring, ranges };
        shard.expect("opens").seal(seal).await
    });
    assert_eq!((report.ranges[0].marker, report.ranges[0].end), (Epoch(0), LogPoint::START));
}
