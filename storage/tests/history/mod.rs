//! What the tests of range logs share: a writer of entries that remembers all it wrote, and a state to be recovered.

#![allow(dead_code, unused_macros, reason = "each test binary uses its part")]

#[macro_use]
pub mod disks;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minikafka_core::checksum;
use minikafka_core::entry::{BodyFormat, Codec, ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use minikafka_core::{
    Epoch, LogIndex, LogPoint, Offset, Partition, PartitionKey, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId,
    RunningHash, Sequence, ShardId, Timestamp, TopicId,
};
use minikafka_storage::disk::Disk;
use minikafka_storage::disk::sim::SimRandom;
use minikafka_storage::{
    AppendError, Body, Damage, FreedRun, Opened, RangeLog, ReadError, Reader, RecoveryVisitor, ShardStorage,
    SharedSlice, StorageConfig,
};

/// The range all tests use.
pub const RANGE: RangeKey = RangeKey { ring: RingId(3), range: RangeId(17) };
/// The topic all tests use.
pub const TOPIC: TopicId = TopicId(0xfeed);

/// Sizes small enough that a short history meets every border.
pub fn small_config() -> StorageConfig {
    StorageConfig {
        segment_bytes_min: 64 << 10,
        segment_bytes_max: 256 << 10,
        flush_bytes_max: 32 << 10,
        flush_in_flight_bytes_max: 128 << 10,
        flush_charge_bytes_min: 0,
        undurable_bytes_max: 512 << 10,
        recent_bytes_max: 64 << 10,
        footer_bytes_max: 4 << 10,
        freed_run_bytes_min: 8 << 10,
        punch_patience_ms: 0,
        pool_bytes_max: 512 << 10,
        reserve_bytes: 0,
    }
}

/// The key of a partition.
pub fn key(partition: u32) -> PartitionKey {
    PartitionKey { topic: TOPIC, partition: Partition(partition) }
}

/// Opens a shard's storage.
pub async fn storage<D: Disk>(disk: &D, dir: &Path, config: StorageConfig) -> Rc<ShardStorage<D>> {
    let storage = ShardStorage::open(disk.clone(), dir, ShardId(0), 1, config).await;
    Rc::new(storage.expect("open the shard's storage"))
}

/// The state that the log rebuilds: where it ends, and every partition's next offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeState {
    pub end: LogPoint,
    pub offsets: BTreeMap<u32, u64>,
    pub damaged: Vec<Damage>,
}

impl RangeState {
    pub fn apply(&mut self, header: &EntryHeader) {
        if self.damaged.is_empty() {
            assert_eq!(header.index, self.end.index.next(), "entries come in order");
            assert_eq!(header.running_hash, header.hash_after(self.end.hash), "hashes follow");
        }
        self.end = LogPoint { index: header.index, hash: header.running_hash };
        if header.kind == EntryKind::Batch {
            self.offsets.insert(header.partition.0, header.next_offset().0);
        }
    }
}

impl RecoveryVisitor for RangeState {
    fn snapshot(&mut self, snapshot: Option<&[u8]>) {
        *self = Self::default();
        let mut words =
            snapshot.unwrap_or_default().chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        if let (Some(index), Some(hash)) = (words.next(), words.next()) {
            self.end = LogPoint { index: LogIndex(index), hash: RunningHash(hash) };
        }
        while let (Some(partition), Some(offset)) = (words.next(), words.next()) {
            self.offsets.insert(partition as u32, offset);
        }
    }

    fn entry(&mut self, header: &EntryHeader, body: &[u8]) {
        assert_eq!(checksum::crc32c(body), header.body_crc, "bodies are verified");
        self.apply(header);
    }

    fn header(&mut self, header: &EntryHeader) {
        self.apply(header);
    }

    fn take_snapshot(&mut self) -> Vec<u8> {
        let mut words = vec![self.end.index.0, self.end.hash.0];
        words.extend(self.offsets.iter().flat_map(|(partition, offset)| [u64::from(*partition), *offset]));
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn damaged(&mut self, damage: &Damage) {
        self.damaged.push(damage.clone());
    }
}

/// One entry that was appended at some time.
#[derive(Clone)]
pub struct Written {
    pub header: EntryHeader,
    pub body: Vec<u8>,
    pub previous: LogPoint,
    /// When a truncation of it was done, if it was.
    pub void_since: Option<usize>,
}

/// Everything that was ever appended, by point.
#[derive(Clone, Default)]
pub struct Book {
    pub entries: BTreeMap<(u64, u64), Written>,
}

impl Book {
    pub fn at(&self, point: LogPoint) -> Option<&Written> {
        self.entries.get(&(point.index.0, point.hash.0))
    }

    /// The points from the start to `end`.
    pub fn path_to(&self, end: LogPoint) -> Vec<LogPoint> {
        let mut path = Vec::new();
        let mut point = end;
        while point != LogPoint::START {
            path.push(point);
            point = self.at(point).expect("a point that was written").previous;
        }
        path.reverse();
        path
    }

    /// The state at `end`.
    pub fn state_at(&self, end: LogPoint) -> RangeState {
        let mut state = RangeState::default();
        for point in self.path_to(end) {
            state.apply(&self.at(point).expect("a point that was written").header);
        }
        state
    }
}

/// Appends to a log and remembers.
pub struct Writer {
    pub range: RangeKey,
    pub state: RangeState,
    pub book: Rc<RefCell<Book>>,
    pub epoch: Epoch,
    pub random: SimRandom,
    pub clock: i64,
}

impl Writer {
    pub fn new(seed: u64) -> Self {
        Self::of(RANGE, seed)
    }

    pub fn of(range: RangeKey, seed: u64) -> Self {
        Self {
            range,
            state: RangeState::default(),
            book: Rc::default(),
            epoch: Epoch(1),
            random: SimRandom::new(seed),
            clock: 1000,
        }
    }

    /// Appends a batch of `body_bytes` to a partition, rolling before where the log wants it.
    pub fn append<D: Disk>(
        &mut self,
        log: &RangeLog<D>,
        partition: u32,
        body_bytes: u32,
        whole: bool,
    ) -> Result<Option<SharedSlice>, AppendError> {
        let (header, body) = self.next(partition, body_bytes);
        self.append_entry(log, header, body, whole)
    }

    /// Appends a control entry about a partition.
    pub fn append_control<D: Disk>(&mut self, log: &RangeLog<D>, partition: u32) -> Result<(), AppendError> {
        let (mut header, body) = self.next(partition, 40);
        (header.kind, header.body_format) = (EntryKind::Control, BodyFormat::Control);
        (header.record_count, header.base_offset, header.last_offset_delta) = (0, Offset(0), 0);
        header.seal(self.state.end.hash);
        self.append_entry(log, header, body, false).map(drop)
    }

    fn append_entry<D: Disk>(
        &mut self,
        log: &RangeLog<D>,
        header: EntryHeader,
        body: Vec<u8>,
        whole: bool,
    ) -> Result<Option<SharedSlice>, AppendError> {
        if log.must_roll(header.entry_bytes()) {
            log.roll(self.state.take_snapshot());
        }
        let appended = if whole {
            let mut buffer = log.body_buffer(header.body_bytes);
            buffer.body_mut().copy_from_slice(&body);
            log.append(&header, Body::Whole(buffer))?
        } else {
            log.append(&header, Body::Copied(&body))?
        };
        let written = Written { header, body, previous: self.state.end, void_since: None };
        if let Some(entry) = &appended.entry {
            assert_eq!(&entry[..], &stored(&written)[..], "the shared entry is the stored one");
        }
        self.state.apply(&header);
        self.book.borrow_mut().entries.insert((header.index.0, header.running_hash.0), written);
        Ok(appended.entry)
    }

    fn next(&mut self, partition: u32, body_bytes: u32) -> (EntryHeader, Vec<u8>) {
        let mut body = vec![0; body_bytes as usize];
        self.random.fill(&mut body);
        self.clock += self.random.below(50) as i64;
        let records = 1 + self.random.below(5) as u32;
        let mut header = EntryHeader {
            kind: EntryKind::Batch,
            body_format: BodyFormat::Columnar,
            codec: Codec::None,
            body_bytes,
            uncompressed_bytes: body_bytes,
            range: self.range,
            attributes: 0,
            epoch: self.epoch,
            index: self.state.end.index.next(),
            topic: TOPIC,
            partition: Partition(partition),
            record_count: records,
            base_offset: Offset(self.state.offsets.get(&partition).copied().unwrap_or(0)),
            last_offset_delta: records - 1,
            base_sequence: Sequence(0),
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            append_timestamp: Timestamp(self.clock),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(0),
            body_crc: checksum::crc32c(&body),
            running_hash: RunningHash(0),
        };
        header.seal(self.state.end.hash);
        (header, body)
    }
}

/// An entry as it is stored.
pub fn stored(written: &Written) -> Vec<u8> {
    let mut bytes = written.header.encode().to_vec();
    bytes.extend_from_slice(&written.body);
    bytes.resize(written.header.entry_bytes(), 0);
    bytes
}

/// Splits what a read returned into entries.
pub fn entries(slices: &[SharedSlice]) -> Vec<(EntryHeader, Vec<u8>)> {
    let mut found = Vec::new();
    for slice in slices {
        let mut at = 0;
        while at < slice.len() {
            let header = EntryHeader::decode(&slice[at..]).expect("a read returns entries");
            let end = at + header.entry_bytes();
            found.push((header, slice[at..end].to_vec()));
            at = end;
        }
    }
    assert!(found.iter().all(|(_, bytes)| bytes.len() >= ENTRY_HEADER_BYTES));
    found
}

/// Opens the log; panics when that fails.
pub async fn open<D: Disk>(storage: &Rc<ShardStorage<D>>, state: &mut RangeState) -> Opened<D> {
    RangeLog::open(storage.clone(), RANGE, state).await.expect("open the log")
}

/// The first live offset of each partition; 0 for one that is not named.
pub type LogStarts = BTreeMap<u32, u64>;

/// The log start of a partition.
pub fn log_start(starts: &LogStarts, partition: u32) -> u64 {
    starts.get(&partition).copied().unwrap_or(0)
}

/// Whether an entry is still wanted. Control entries in sealed segments are not.
pub fn is_live(header: &EntryHeader, starts: &LogStarts) -> bool {
    header.kind == EntryKind::Batch && header.next_offset().0 > log_start(starts, header.partition.0)
}

/// Reads everything by index and compares it with the book; nothing of it may be freed.
pub async fn check_by_index<D: Disk>(log: &RangeLog<D>, book: &Book, context: &str) {
    let freed = check_live_by_index(log, book, &LogStarts::new(), context).await;
    assert_eq!(freed, 0, "{context}: nothing is freed");
}

/// Reads everything by index and compares it with the book; only what lies below the log starts may be gone. Returns how
/// many entries were met as freed.
pub async fn check_live_by_index<D: Disk>(log: &RangeLog<D>, book: &Book, starts: &LogStarts, context: &str) -> u64 {
    let end = log.end();
    let first = log.first_index();
    let path = book.path_to(end);
    let hash_at = |index: u64| if index == 0 { RunningHash(0) } else { path[index as usize - 1].hash };
    let header_at = |index: u64| book.at(path[index as usize - 1]).expect("a point of the path").header;
    let may_go = |from: LogIndex, to: LogIndex| (from.0..to.0).all(|index| !is_live(&header_at(index), starts));
    assert!(may_go(LogIndex(1), first) || starts.is_empty(), "{context}: live entries were dropped below {first}");
    let (mut next, mut freed) = (first, 0);
    while next <= end.index {
        let found = match log.read_index(next, 100_000).await {
            Err(ReadError::Freed { run }) => {
                assert!(run.contains(next) && run.last_index <= end.index, "{context}: {run:?} is the run at {next}");
                assert!(may_go(run.first_index, run.last_index.next()), "{context}: {run:?} has live entries");
                assert_eq!(run.hash_before, hash_at(run.first_index.0 - 1), "{context}: {run:?}");
                assert_eq!(run.hash_after, hash_at(run.last_index.0), "{context}: {run:?}");
                check_points(log, &path, &run, context).await;
                freed += run.last_index.0 - next.0 + 1;
                next = run.last_index.next();
                continue;
            }
            found => entries(&found.unwrap_or_else(|error| panic!("{context}: read entry {next}: {error}"))),
        };
        assert!(!found.is_empty(), "{context}: entry {next} of {end:?} is not found");
        for (header, bytes) in found {
            assert_eq!(header.index, next, "{context}: entries come in order");
            let written = book.at(path[next.0 as usize - 1]).expect("a point of the path");
            assert_eq!(bytes, stored(written), "{context}: entry {next} is what was written");
            next = next.next();
        }
    }
    assert_eq!(next, end.index.next(), "{context}: nothing above the end is found");
    freed
}

/// The points around a freed run are known, those within it are not.
async fn check_points<D: Disk>(log: &RangeLog<D>, path: &[LogPoint], run: &FreedRun, context: &str) {
    for index in [run.first_index.0 - 1, run.first_index.0, run.last_index.0 - 1, run.last_index.0] {
        let is_inside = index >= run.first_index.0 && index < run.last_index.0;
        let expected = if index == 0 { LogPoint::START } else { path[index as usize - 1] };
        let point = log.point_at(LogIndex(index)).await.expect("look a point up");
        assert_eq!(point, (!is_inside).then_some(expected), "{context}: point {index} of {run:?}");
    }
}

/// Reads every partition from `from_index` (the first the log has) and compares it with the book.
pub async fn check_by_partition<D: Disk>(log: &RangeLog<D>, book: &Book, max_bytes: usize, context: &str) {
    check_live_by_partition(log, book, max_bytes, &LogStarts::new(), context).await;
}

/// Reads every partition from its log start, or the first entry that the log has, and compares it with the book.
pub async fn check_live_by_partition<D: Disk>(
    log: &RangeLog<D>,
    book: &Book,
    max_bytes: usize,
    starts: &LogStarts,
    context: &str,
) {
    let first = log.first_index();
    let durable = log.durable_index();
    let path = book.path_to(log.end());
    for partition in 0..8 {
        let expected: Vec<&Written> = path
            .iter()
            .filter(|point| point.index >= first && point.index <= durable)
            .map(|point| book.at(*point).expect("a point of the path"))
            .filter(|written| written.header.partition == Partition(partition) && is_live(&written.header, starts))
            .collect();
        let mut reader = Reader::default();
        let mut at = 0;
        // From the middle of the first batch: the batch that contains the offset comes.
        let mut from = expected.first().map_or(Offset(log_start(starts, partition)), |w| {
            Offset(w.header.base_offset.0 + u64::from(w.header.last_offset_delta))
        });
        loop {
            let read = log.read_partition(key(partition), from, durable, max_bytes, &mut reader).await;
            let found = entries(&read.unwrap_or_else(|error| panic!("{context}: partition {partition}: {error}")));
            if found.is_empty() {
                break;
            }
            let total: usize = found.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(found.len() == 1 || total <= max_bytes, "{context}: {total} bytes were returned");
            for (header, bytes) in found {
                let written = expected.get(at).unwrap_or_else(|| panic!("{context}: {header:?} is too much"));
                assert_eq!(bytes, stored(written), "{context}: partition {partition}, entry {}", header.index);
                from = header.next_offset();
                at += 1;
            }
        }
        assert_eq!(at, expected.len(), "{context}: partition {partition} is read whole");
    }
}

/// Every file of the range is one that the log knows, or the list of what was freed of one.
pub async fn check_no_leak<D: Disk>(storage: &ShardStorage<D>, log: &RangeLog<D>, context: &str) {
    let names = storage.disk().list(log.dir()).await.expect("list");
    let segments: Vec<&String> = names.iter().filter(|name| name.ends_with(".segment")).collect();
    // One may be prepared ahead.
    let others = (segments.len() as u64).checked_sub(log.usage().segments);
    assert!(matches!(others, Some(0 | 1)), "{context}: {names:?} for {:?}", log.usage());
    for name in names.iter().filter(|name| !name.ends_with(".segment")) {
        let of = name.strip_suffix(".freed").unwrap_or_else(|| panic!("{context}: {name} is left over"));
        assert!(segments.iter().any(|segment| *segment == of), "{context}: {name} is left over");
    }
}

/// Waits until everything appended is durable.
pub async fn durable<D: Disk>(log: &RangeLog<D>) {
    let end = log.end().index;
    if end > log.durable_index() {
        log.durable_above(LogIndex(end.0 - 1)).await.expect("durable");
    }
}

/// Waits until every segment that may have a footer has it: a truncation to the end waits for one at a time, and does
/// nothing else.
pub async fn settled<D: Disk>(log: &RangeLog<D>) {
    for _ in 0..log.usage().segments {
        log.truncate_to(log.end(), &mut RangeState::default()).await.expect("settle");
    }
}

/// Where the tests' data is on the simulated disk.
pub fn sim_dir() -> PathBuf {
    PathBuf::from("/store")
}
