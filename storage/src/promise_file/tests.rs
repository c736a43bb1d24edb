//! The promise file: merging, torn slots, restarts.

use super::*;
use crate::disk::Durability;
use crate::disk::sim::{SimDisk, SimExecutor};

fn promise(range: u32, promised: u64) -> Promise {
    let range = RangeKey { ring: RingId(3), range: RangeId(range) };
    Promise { range, promised: Epoch(promised), marker: Epoch(promised / 2), has_log: promised % 2 == 1 }
}

fn data_dir() -> &'static Path {
    Path::new("/store")
}

#[test]
fn a_slot_survives_the_round_trip_and_any_flipped_bit_is_noticed() {
    let table: Table = (0..5).map(|range| (promise(range, 9).range, promise(range, 9))).collect();
    let slot = encode_slot(&table, 4, 4096);
    assert_eq!(decode_slot(&slot), Some((4, table)));
    for bit in 0..(SLOT_HEADER_BYTES + 5 * ROW_BYTES) * 8 {
        let mut flipped = slot.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_slot(&flipped), None, "bit {bit}");
    }
}

#[test]
fn promises_that_were_reported_durable_survive_every_crash() {
    for seed in 0..16u64 {
        let durability = if seed.is_multiple_of(2) { Durability::Dsync } else { Durability::GroupFdatasync };
        let executor = SimExecutor::new(seed);
        let disk = SimDisk::new(&executor, durability);
        let told = Rc::new(RefCell::new(Vec::new()));
        let (used, telling) = (disk.clone(), told.clone());
        executor.run(async move {
            let file = PromiseFile::open(used.clone(), data_dir(), ShardId(0), []).await.expect("open");
            for epoch in 1..30u64 {
                // More and more ranges, so that the slots must grow on the way.
                let changes: Vec<Promise> = (0..epoch as u32 * 40).map(|range| promise(range, epoch)).collect();
                file.update(changes.clone()).await.expect("update");
                telling.borrow_mut().push((used.moment(), epoch));
            }
        });
        for crash in 0..60 {
            let moment = (disk.moment() * crash) / 60;
            let after = SimExecutor::new(seed);
            let crashed = disk.crash_at(moment, seed * 1000 + crash as u64, &after);
            let highest =
                told.borrow().iter().rev().find(|(told_at, _)| *told_at <= moment).map_or(0, |(_, epoch)| *epoch);
            let found = after.run(async move {
                let all = PromiseFile::read_all(&crashed, data_dir()).await.expect("read");
                let file = PromiseFile::open(crashed, data_dir(), ShardId(0), []).await.expect("open");
                assert_eq!(file.get(promise(0, 0).range), all.get(&promise(0, 0).range).copied());
                file.get(promise(0, 0).range).map_or(0, |promise| promise.promised.0)
            });
            assert!(found >= highest, "seed {seed}, crash {crash}: promised {highest}, found {found}");
        }
    }
}

#[test]
fn the_highest_promise_of_all_files_wins() {
    let executor = SimExecutor::new(1);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    executor.run(async move {
        let dir = data_dir();
        let first =
            PromiseFile::open(disk.clone(), dir, ShardId(0), [promise(1, 4), promise(2, 9)]).await.expect("open");
        PromiseFile::open(disk.clone(), dir, ShardId(1), [promise(1, 7)]).await.expect("open");
        let all = PromiseFile::read_all(&disk, dir).await.expect("read");
        assert_eq!(all[&promise(1, 0).range], Promise { has_log: true, ..promise(1, 7) });
        assert_eq!(all[&promise(2, 0).range], promise(2, 9));
        first.forget(promise(2, 9).range);
        first.update([promise(1, 8)]).await.expect("update");
        assert_eq!(first.get(promise(2, 9).range), None);
    });
}

#[test]
fn two_damaged_slots_are_an_error_and_not_an_empty_table() {
    let executor = SimExecutor::new(1);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    executor.run(async move {
        let file = PromiseFile::open(disk.clone(), data_dir(), ShardId(0), [promise(1, 4)]).await.expect("open");
        file.update([promise(1, 5)]).await.expect("update");
        let path = data_dir().join("promises/0.promises");
        for slot in 0..2 {
            disk.flip_bit(&path, slot * SLOT_BYTES_MIN as u64 + 40, 3);
        }
        let refused = PromiseFile::open(disk, data_dir(), ShardId(0), []).await;
        assert!(matches!(refused, Err(LogError::Format { .. })));
    });
}

/// Cause: each promise stood in one slot only, and a slot that rotted looked like one that was torn. Effect: the promise
/// before it counted again, and a member could acknowledge under an epoch that it had promised away. Fix: both slots.
#[test]
fn a_rotten_slot_never_takes_a_promise_back() {
    for slot in 0..SLOTS {
        for unreadable in [false, true] {
            let executor = SimExecutor::new(slot);
            let disk = SimDisk::new(&executor, Durability::Dsync);
            executor.run(async move {
                let path = data_dir().join("promises/0.promises");
                for epoch in 4..9 {
                    let file = PromiseFile::open(disk.clone(), data_dir(), ShardId(0), []).await.expect("open");
                    file.update([promise(1, epoch)]).await.expect("update");
                    file.close().await.expect("close");
                    let position = slot * SLOT_BYTES_MIN as u64;
                    if unreadable {
                        disk.spoil(&path, position);
                    } else {
                        disk.flip_bit(&path, position + 40, 3);
                    }
                    let all = PromiseFile::read_all(&disk, data_dir()).await.expect("one slot is good");
                    assert_eq!(all[&promise(1, 0).range].promised, Epoch(epoch), "slot {slot}");
                }
            });
        }
    }
}

#[test]
fn a_promise_found_in_one_slot_is_in_both_before_it_is_told() {
    for seed in 0..40u64 {
        let executor = SimExecutor::new(seed);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        let used = disk.clone();
        executor.run(async move {
            let file = PromiseFile::open(used, data_dir(), ShardId(0), []).await.expect("open");
            file.update([promise(1, 4)]).await.expect("update");
        });
        // Somewhere between the two writes.
        let moment = disk.moment() - 1 - seed as usize % 4;
        let after = SimExecutor::new(seed);
        let crashed = disk.crash_at(moment, seed, &after);
        after.run(async move {
            let file = PromiseFile::open(crashed.clone(), data_dir(), ShardId(0), []).await.expect("open");
            let told = file.get(promise(1, 0).range);
            crashed.flip_bit(&data_dir().join("promises/0.promises"), 40, 3);
            let file = PromiseFile::open(crashed, data_dir(), ShardId(0), []).await.expect("open");
            assert_eq!(file.get(promise(1, 0).range), told, "seed {seed}");
        });
    }
}
