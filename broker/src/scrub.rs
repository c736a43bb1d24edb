//! Scrubbing: reads what nobody reads, so that rot is met while other members still have what rotted.
//!
//! One task goes round all ranges at a bounded rate, in a queue of few shares. The log verifies what it reads and notes
//! damage; reading is the range's (`range/scrub.rs`), and so is mending (`range/mending.rs`). Absent: footers, which each start
//! verifies.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use minikafka_core::LogIndex;
use minikafka_core::limits::SCRUB_READ_BYTES;
use minikafka_storage::disk::Disk;
use quanta::Instant;

use crate::shard::Shard;

/// So often it is seen at least that the shard stops.
const PAUSE: Duration = Duration::from_millis(500);
/// A round takes at least this long, however little there is: a broker without work is idle.
const ROUND_MIN: Duration = Duration::from_secs(10);
/// What a read counts at least: ranges of a few small entries would otherwise be read thousands of times a second.
const READ_BYTES_MIN: u64 = 64 << 10;

impl<D: Disk> Shard<D> {
    /// Goes round until `stopping`, reading `bytes_per_second` at most.
    pub async fn scrub(self: Rc<Self>, bytes_per_second: u64, stopping: Rc<Cell<bool>>) {
        while !stopping.get() {
            let started = Instant::now();
            for range in self.ranges() {
                let mut from = LogIndex(0);
                let mut read_at = Instant::now();
                while !stopping.get()
                    && let Some((next, bytes)) = range.scrub_some(from, SCRUB_READ_BYTES).await
                {
                    from = next;
                    self.metrics.scrubbed_bytes.add(bytes);
                    let takes = Duration::from_secs_f64(bytes.max(READ_BYTES_MIN) as f64 / bytes_per_second as f64);
                    self.rest_from_scrubbing(takes.saturating_sub(read_at.elapsed()), &stopping).await;
                    read_at = Instant::now();
                }
            }
            self.rest_from_scrubbing(ROUND_MIN.saturating_sub(started.elapsed()), &stopping).await;
        }
    }

    async fn rest_from_scrubbing(&self, mut left: Duration, stopping: &Cell<bool>) {
        while !left.is_zero() && !stopping.get() {
            self.disk().sleep(left.min(PAUSE)).await;
            left = left.saturating_sub(PAUSE);
        }
    }
}
