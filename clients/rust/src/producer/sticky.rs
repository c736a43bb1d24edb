//! Which partition takes the records that have no key.
//!
//! They stick to one partition while a batch of it fills, so that batches are large (KIP-480). The next one is chosen
//! when a batch leaves after enough bytes or enough time (KIP-794): at high rates a batch that left early, because
//! nothing was in flight, does not scatter the records over ever more tiny batches; at low rates every record that
//! comes alone goes to another partition.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use minikafka_core::Partition;

/// A partition is left after this long, at the end of a batch.
const STAY_MAX: Duration = Duration::from_millis(20);

/// The current choice.
#[derive(Debug)]
pub(super) struct Sticky {
    current: AtomicU32,
    partitions: u32,
    bytes_max: usize,
    stay: Mutex<Stay>,
}

#[derive(Debug)]
struct Stay {
    bytes: usize,
    since: Instant,
}

impl Sticky {
    /// Begins at a random partition, so that producers do not move in step.
    pub(super) fn new(partitions: u32, bytes_max: usize, now: Instant) -> Self {
        let current = AtomicU32::new(rand::random_range(0..partitions.max(1)));
        Self { current, partitions: partitions.max(1), bytes_max, stay: Mutex::new(Stay { bytes: 0, since: now }) }
    }

    pub(super) fn current(&self) -> Partition {
        Partition(self.current.load(Ordering::Relaxed))
    }

    /// A batch of `partition` has left with so many bytes.
    pub(super) fn batch_left(&self, partition: Partition, bytes: usize, now: Instant) {
        if partition != self.current() || self.partitions == 1 {
            return;
        }
        let mut stay = self.stay.lock().unwrap_or_else(PoisonError::into_inner);
        stay.bytes += bytes;
        if stay.bytes >= self.bytes_max || now.saturating_duration_since(stay.since) >= STAY_MAX {
            *stay = Stay { bytes: 0, since: now };
            self.current.store((partition.0 + 1) % self.partitions, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_on_after_enough_bytes_or_enough_time() {
        let start = Instant::now();
        let sticky = Sticky::new(3, 1000, start);
        let first = sticky.current();
        sticky.batch_left(first, 400, start);
        assert_eq!(sticky.current(), first);
        sticky.batch_left(first, 600, start);
        let second = sticky.current();
        assert_eq!(second.0, (first.0 + 1) % 3);
        sticky.batch_left(first, 5000, start);
        assert_eq!(sticky.current(), second, "batches of other partitions do not count");
        sticky.batch_left(second, 1, start + STAY_MAX);
        assert_ne!(sticky.current(), second);
    }
}
