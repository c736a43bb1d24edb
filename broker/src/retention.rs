//! The upkeep of a shard's ranges: one task goes round, deletes what topics no longer want and frees its space.
//!
//! It runs beside everything else in a queue of few shares. Absent: any decision, which is the range's
//! (`range/retention.rs`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use minikafka_storage::disk::Disk;

use crate::shard::{Shard, TICK};

impl<D: Disk> Shard<D> {
    /// Goes round until `stopping`: every `interval` over all that topics limit, and at every tick over ranges that took
    /// another segment, or whose log starts were moved by somebody.
    pub async fn keep_retention(self: Rc<Self>, interval: Duration, stopping: Rc<Cell<bool>>) {
        let mut since = Duration::ZERO;
        while !stopping.get() {
            self.disk().sleep(TICK).await;
            since += TICK;
            let is_due = since >= interval;
            if is_due {
                since = Duration::ZERO;
            }
            self.retention_round(is_due, &stopping).await;
            self.stock_pool().await;
        }
    }

    /// Keeps a few segment files ready for new ranges.
    async fn stock_pool(&self) {
        if let Err(error) = self.storage.stock_pool().await {
            tracing::debug!(%error, "no segment file could be prepared; one will be made when it is needed");
        }
    }

    /// One round over the ranges; with `checks`, the settings of topics are applied as well.
    pub async fn retention_round(&self, checks: bool, stopping: &Cell<bool>) {
        for range in self.ranges() {
            if stopping.get() {
                return;
            }
            let checks = range.has_grown() || checks;
            if checks {
                self.metrics.log_starts_moved.add(range.retain(stopping).await as u64);
            }
            if checks || range.owes_space() {
                let freed = range.free_space().await;
                self.metrics.segments_dropped.add(freed.segments_dropped);
                self.metrics.bytes_dropped.add(freed.bytes_dropped);
                self.metrics.bytes_punched.add(freed.bytes_punched);
            }
            self.metrics.retention_failures.add(u64::from(checks && range.has_upkeep_trouble()));
        }
    }
}
