//! Cause: beside hundreds of other logs each wrote a flush of its own for nearly every batch, because none of *its own* was in
//! flight. Effect: 70,000 writes a second of 14 KiB each, a third of the throughput of a few logs. Fix: a log whose flush finds
//! no room in the shard's budget gathers entries until it is its turn.

#[macro_use]
mod history;

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use history::disks::{on_real_disk, on_simulated_disk};
use history::{RANGE, RangeState, Writer, durable, small_config, storage};
use minikafka_core::{LogIndex, RangeId, RangeKey};
use minikafka_storage::disk::dma::DmaDisk;
use minikafka_storage::disk::sim::SimDisk;
use minikafka_storage::disk::{Disk, Durability};
use minikafka_storage::{Opened, RangeLog, ShardStorage, StorageConfig};

/// One flush at a time takes the whole budget.
fn one_at_a_time() -> StorageConfig {
    let config = small_config();
    StorageConfig { flush_charge_bytes_min: config.flush_in_flight_bytes_max, ..config }
}

/// A log with one durable entry, so that its file is there.
async fn begun<D: Disk>(storage: &Rc<ShardStorage<D>>, range: u32) -> (RangeLog<D>, Writer) {
    let range = RangeKey { range: RangeId(range), ..RANGE };
    let opened = RangeLog::open(storage.clone(), range, &mut RangeState::default()).await;
    let Opened { log, .. } = opened.expect("open the log");
    let mut writer = Writer::of(range, u64::from(range.range.0));
    writer.append(&log, 0, 100, false).expect("append");
    durable(&log).await;
    (log, writer)
}

async fn a_log_gathers_until_it_is_its_turn<D: Disk>(disk: D, dir: PathBuf) {
    let shard = storage(&disk, &dir, one_at_a_time()).await;
    let ((first, mut of_first), (second, mut of_second)) = (begun(&shard, 1).await, begun(&shard, 2).await);
    let told_before_durable = Rc::new(Cell::new(false));
    let (told, reader) = (told_before_durable.clone(), second.clone());
    second.on_durable(move || {
        let (gathered, durable) = (reader.gathered_index(), reader.durable_index());
        told.set(told.get() || (gathered == LogIndex(4) && durable == LogIndex(1)));
    });
    of_first.append(&first, 0, 100, false).expect("append");
    assert_eq!(first.gathered_index(), LogIndex(2), "there is room: written at once");
    for _ in 0..3 {
        of_second.append(&second, 0, 100, false).expect("append");
        assert_eq!(second.gathered_index(), LogIndex(1), "it waits, and gathers");
    }
    durable(&first).await;
    durable(&second).await;
    assert!(told_before_durable.get(), "who reads the end is told when it is written, not when that is done");
    let read = second.read_index(LogIndex(2), 1 << 20).await.expect("read");
    assert_eq!(read.len(), 1, "three entries in one flush");
    first.close().await.expect("close");
    second.close().await.expect("close");
}

async fn what_waits_for_its_turn_is_cut_and_closed<D: Disk>(disk: D, dir: PathBuf) {
    let shard = storage(&disk, &dir, one_at_a_time()).await;
    let ((first, mut of_first), (second, mut of_second)) = (begun(&shard, 1).await, begun(&shard, 2).await);
    let kept = second.end();
    of_first.append(&first, 0, 100, false).expect("append");
    of_second.append(&second, 0, 100, false).expect("append");
    second.truncate_to(kept, &mut RangeState::default()).await.expect("truncate");
    assert_eq!(second.end(), kept);
    of_second.state = of_second.book.borrow().state_at(kept);
    of_first.append(&first, 0, 100, false).expect("append");
    of_second.append(&second, 0, 100, false).expect("append");
    second.close().await.expect("close");
    first.close().await.expect("close");
    let again = storage(&disk, &dir, one_at_a_time()).await;
    for writer in [of_first, of_second] {
        let mut state = RangeState::default();
        let opened = RangeLog::open(again.clone(), writer.range, &mut state).await.expect("open the log");
        assert_eq!((opened.log.end(), &state), (writer.state.end, &writer.state), "nothing that was appended is lost");
        opened.log.close().await.expect("close");
    }
}

on_every_disk! {
    a_log_gathers_until_it_is_its_turn;
    what_waits_for_its_turn_is_cut_and_closed;
}
