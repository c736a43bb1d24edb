//! Segment files of any bytes: through the inspection, and through recovery and reads on the simulated disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use minikafka_core::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use minikafka_core::{
    LogIndex, LogPoint, Offset, PartitionKey, RangeId, RangeKey, RingId, RunningHash, ShardId, Timestamp, checksum,
};
use minikafka_storage::disk::sim::{SimDisk, SimExecutor};
use minikafka_storage::disk::{BLOCK_BYTES, Disk, DiskFile, Durability};
use minikafka_storage::inspect::{FooterImage, Piece, SegmentImage};
use minikafka_storage::{Damage, Opened, RangeLog, Reader, RecoveryVisitor, ShardStorage, SharedSlice, StorageConfig};

use super::{GENERATION, REPAIR, repair};

/// The input's flags: set the footer right, too; chain running hashes from flush to flush; cut into two segments.
const CHAIN: u8 = 2;
const SPLIT: u8 = 4;
/// Larger files say nothing more.
const IMAGE_BYTES_MAX: usize = 64 << 10;
/// Reads of a log whose indexes may be anything.
const READS_MAX: usize = 64;

/// A segment, or two.
pub fn segment(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let mut image = bytes[..bytes.len().min(IMAGE_BYTES_MAX)].to_vec();
    image.resize(image.len().next_multiple_of(BLOCK_BYTES), 0);
    let split = if mode & SPLIT != 0 { image.len() / BLOCK_BYTES / 2 * BLOCK_BYTES } else { 0 };
    if mode & REPAIR != 0 {
        repair::segment(&mut image, GENERATION, mode & CHAIN != 0);
        let (first, second) = image.split_at_mut(split);
        repair::footer(first, GENERATION);
        repair::footer(second, GENERATION);
    }
    let (first, second) = image.split_at(split);
    let files: Vec<&[u8]> = [first, second].into_iter().filter(|file| !file.is_empty()).collect();
    files.iter().for_each(|file| inspect(file));
    recover(&files);
}

fn inspect(file: &[u8]) {
    let image = SegmentImage::new(file, GENERATION).expect("memory can be read");
    if let FooterImage::Good(footer) = image.footer().expect("memory can be read") {
        assert!(footer.position() + footer.body_bytes() <= image.trailer_position());
    }
    let mut pieces = image.pieces(image.bytes());
    let mut end = 0;
    while let Some(piece) = pieces.next().expect("memory can be read") {
        let Piece::Flush(flush) = piece else { continue };
        assert!(flush.position >= end, "flushes do not overlap");
        end = flush.position + flush.header.padded_bytes() as u64;
        for entry in flush.entries().flatten() {
            assert!(entry.position + entry.header.entry_bytes() as u64 <= end, "entries lie in their flush");
            if entry.damage.is_none() {
                assert_eq!(checksum::crc32c(entry.body), entry.header.body_crc, "a body that does not verify");
            }
        }
    }
}

/// What recovery delivers is verified, and in order.
#[derive(Default)]
struct Delivered {
    last: Option<LogPoint>,
    partitions: BTreeSet<PartitionKey>,
}

impl RecoveryVisitor for Delivered {
    fn snapshot(&mut self, _snapshot: Option<&[u8]>) {
        self.last = None;
    }

    fn entry(&mut self, header: &EntryHeader, body: &[u8]) {
        assert_eq!(checksum::crc32c(body), header.body_crc, "a body that does not verify");
        if let Some(last) = self.last {
            assert!(header.index > last.index, "entries come in order");
            if header.index == last.index.next() {
                assert_eq!(header.hash_after(last.hash), header.running_hash, "hashes follow");
            }
        }
        self.last = Some(LogPoint { index: header.index, hash: header.running_hash });
        if header.kind == EntryKind::Batch {
            self.partitions.insert(header.partition_key());
        }
    }

    fn take_snapshot(&mut self) -> Vec<u8> {
        self.last.unwrap_or(LogPoint { index: LogIndex(0), hash: RunningHash(0) }).index.0.to_le_bytes().to_vec()
    }

    fn header(&mut self, header: &EntryHeader) {
        assert!(self.last.is_none_or(|last| header.index > last.index), "headers come in order");
        self.last = Some(LogPoint { index: header.index, hash: header.running_hash });
    }

    fn damaged(&mut self, damage: &Damage) {
        assert!(damage.first_index <= damage.last_index, "only what concerns entries is told");
    }
}

fn recover(files: &[&[u8]]) {
    let executor = SimExecutor::new(1);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let files: Vec<Vec<u8>> = files.iter().map(|file| file.to_vec()).collect();
    executor.run(async move {
        put_files(&disk, &files).await;
        let storage = ShardStorage::open(disk, Path::new("/store"), ShardId(0), 1, small()).await;
        let storage = Rc::new(storage.expect("an empty pool opens"));
        let first = open_and_read(&storage).await;
        let again = open_and_read(&storage).await;
        assert!(first.is_none() || first == again, "a log that was closed is the same again: {first:?}, {again:?}");
    });
    executor.abandon();
}

fn small() -> StorageConfig {
    StorageConfig {
        segment_bytes_min: 64 << 10,
        segment_bytes_max: 64 << 10,
        pool_bytes_max: 0,
        reserve_bytes: 0,
        ..StorageConfig::default()
    }
}

async fn put_files(disk: &SimDisk, files: &[Vec<u8>]) {
    let dir = Path::new("/store/data/3/17");
    disk.create_dir(dir).await.expect("a simulated directory");
    for (number, bytes) in files.iter().enumerate() {
        let path = dir.join(format!("{:016x}-{:016x}.segment", number + 1, GENERATION.0));
        let file = disk.create(&path, bytes.len() as u64).await.expect("a simulated file");
        let mut buffer = disk.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        file.write_durable(Rc::new(buffer), 0).await.expect("a simulated write");
        file.close().await.expect("a simulated close");
    }
}

/// Recovers the log, reads some of it both ways, closes it. Returns its end; none when it does not open.
async fn open_and_read(storage: &Rc<ShardStorage<SimDisk>>) -> Option<LogPoint> {
    let range = RangeKey { ring: RingId(3), range: RangeId(17) };
    let mut delivered = Delivered::default();
    let Ok(Opened { log, report }) = RangeLog::open(storage.clone(), range, &mut delivered).await else { return None };
    assert!(report.first_index.0 <= report.end.index.0.saturating_add(1));
    let mut index = report.first_index;
    for _ in 0..READS_MAX {
        if index > report.end.index {
            break;
        }
        let read = log.read_index(index, 16 << 10).await;
        let last = read.ok().and_then(|slices| check(&slices)).map(|header| header.index);
        index = last.unwrap_or(index).next();
    }
    for partition in delivered.partitions.iter().take(4) {
        let mut reader = Reader::default();
        let mut from = Offset(0);
        for _ in 0..READS_MAX {
            let read = log.read_partition(*partition, from, report.end.index, 16 << 10, &mut reader).await;
            let Some(last) = read.ok().and_then(|slices| check(&slices)) else { break };
            assert!(last.next_offset() > from, "reading goes on");
            from = last.next_offset();
        }
    }
    for partition in delivered.partitions.iter().take(1) {
        let _ = log.offset_at_time(*partition, Timestamp(0)).await;
    }
    let _ = log.close().await;
    Some(report.end)
}

/// Whatever a read returns is whole entries that verify; returns the last one.
fn check(slices: &[SharedSlice]) -> Option<EntryHeader> {
    let mut last = None;
    for slice in slices {
        let mut at = 0;
        while at < slice.len() {
            let header = EntryHeader::decode(&slice[at..]).expect("a read returns entries");
            let body = &slice[at + ENTRY_HEADER_BYTES..][..header.body_bytes as usize];
            assert_eq!(checksum::crc32c(body), header.body_crc, "a body that does not verify");
            at += header.entry_bytes();
            last = Some(header);
        }
    }
    last
}
