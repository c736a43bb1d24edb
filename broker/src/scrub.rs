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

use crate::shard::Shard;

/// Between two rounds that found nothing to read, and so often it is seen at least that the shard stops.
const PAUSE: Duration = Duration::from_millis(500);

impl<D: Disk> Shard<D> {
    /// Goes round until `stopping`, reading `bytes_per_second` at most.
    pub async fn scrub(self: Rc<Self>, bytes_per_second: u64, stopping: Rc<Cell<bool>>) {
        while !stopping.get() {
            let mut bytes_read = 0;
            for range in self.ranges() {
                let mut from = LogIndex(0);
                while !stopping.get()
                    && let Some((next, bytes)) = range.scrub_some(from, SCRUB_READ_BYTES).await
                {
                    (from, bytes_read) = (next, bytes_read + bytes);
                    self.metrics.scrubbed_bytes.add(bytes);
                    self.rest_of_scrubbing(bytes, bytes_per_second, &stopping).await;
                }
            }
            if bytes_read == 0 {
                self.disk().sleep(PAUSE).await;
            }
        }
    }

    /// Waits for as long as reading so much may take.
    async fn rest_of_scrubbing(&self, bytes: u64, bytes_per_second: u64, stopping: &Cell<bool>) {
        let mut left = Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        while !left.is_zero() && !stopping.get() {
            self.disk().sleep(left.min(PAUSE)).await;
            left = left.saturating_sub(PAUSE);
        }
    }
}
