//! What sealed segments with ten thousand partitions take in memory, counted by the allocator: little while they are not
//! read, and no more than the budget of the footer cache when they are.

mod history;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use history::*;
use minikafka_core::Offset;
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor};
use minikafka_storage::{Opened, Reader, RecoveryVisitor, StorageConfig};

const PARTITIONS: u32 = 10_000;
const SEGMENTS: u64 = 12;
/// Of the footer cache: a few footers fit.
const CACHE_BYTES: u64 = 6 << 20;

/// Counts what is allocated.
struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn config() -> StorageConfig {
    StorageConfig {
        segment_bytes_min: 16 << 20,
        segment_bytes_max: 16 << 20,
        flush_bytes_max: 1 << 20,
        footer_bytes_max: CACHE_BYTES,
        recent_bytes_max: 1,
        reserve_bytes: 0,
        ..StorageConfig::default()
    }
}

#[test]
fn ten_thousand_partitions_in_many_segments_take_bounded_memory() {
    let executor = SimExecutor::new(1);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let used = disk.clone();
    executor.run(async move {
        let first = storage(&used, &sim_dir(), config()).await;
        let Opened { log, .. } = open(&first, &mut RangeState::default()).await;
        let mut writer = Writer::new(1);
        for segment in 0..=SEGMENTS {
            for partition in 0..if segment == SEGMENTS { 1 } else { PARTITIONS } {
                log.append_space().await.expect("space");
                writer.append(&log, partition, 0, false).expect("append");
            }
            if segment < SEGMENTS {
                log.roll(writer.state.take_snapshot());
            }
        }
        durable(&log).await;
        log.set_committed(log.end().index);
        settled(&log).await;
        log.close().await.expect("close");
        drop((log, first));

        let shared = storage(&used, &sim_dir(), config()).await;
        let mut state = RangeState::default();
        let before = LIVE.load(Ordering::Relaxed);
        let Opened { log, report } = open(&shared, &mut state).await;
        assert_eq!((report.end, &state), (writer.state.end, &writer.state));
        state = RangeState::default();
        let opened = LIVE.load(Ordering::Relaxed) - before;
        let each = opened / SEGMENTS as i64;
        println!("{SEGMENTS} sealed segments of {PARTITIONS} partitions: {each} bytes each");
        assert!(each < 6 << 10, "{each} bytes for each sealed segment");

        let mut worst = 0;
        for partition in (0..PARTITIONS).step_by(1999) {
            let mut from = Offset(0);
            let mut reader = Reader::default();
            loop {
                let read = log.read_partition(key(partition), from, log.durable_index(), 1, &mut reader).await;
                let Some((header, _)) = entries(&read.expect("read")).pop() else { break };
                from = header.next_offset();
                worst = worst.max(LIVE.load(Ordering::Relaxed) - before - opened);
            }
            assert_eq!(from.0, writer.state.offsets[&partition], "partition {partition} is read whole");
        }
        println!("footers loaded: {worst} bytes of {CACHE_BYTES}");
        // A footer just being loaded comes on top: its body, its index.
        assert!(worst < CACHE_BYTES as i64 * 3 / 2, "{worst} bytes for loaded footers");
        assert!(worst > CACHE_BYTES as i64 / 3, "{worst} bytes: the test misses its aim");
        log.close().await.expect("close");
        drop(state);
    });
    executor.abandon();
}
