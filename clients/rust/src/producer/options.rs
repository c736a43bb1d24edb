//! Settings of a producer.

use std::time::Duration;

use minikafka_core::entry::Codec;
use minikafka_core::limits;

use crate::error::{Error, Result};

/// Settings of a [`super::Producer`]. Each is set by the application.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// A batch is sent when its body, uncompressed, has reached this. 1 KiB to 4 MiB; the topic's own limit and a single
    /// larger record go first. Default: 256 KiB.
    pub batch_bytes_max: u32,
    /// A batch is sent at the latest this long after its first record. Default: 5 ms.
    pub linger: Duration,
    /// Send a batch at once when nothing of its partition is in flight, whatever `linger` says: lowest latency at low
    /// rates, and batches grow with the rate. Default: true.
    pub send_when_idle: bool,
    /// Bytes of records accepted and not yet stored; past it, `send` waits. At least 1 KiB. Default: 64 MiB.
    pub buffer_bytes_max: usize,
    /// From acceptance to success or failure, retries included. Default: 2 min.
    pub delivery_timeout: Duration,
    /// One attempt of one batch; then its outcome is unknown and it is sent again. Default: 30 s.
    pub request_timeout: Duration,
    /// Batches of one partition in flight, 1 to 8. Without `idempotent` it counts as 1, because a retry would otherwise
    /// overtake. Default: 8.
    pub in_flight_max: u32,
    /// Number records so that a retry is never stored twice. Without it, a retry after a lost answer may be. Default:
    /// true.
    pub idempotent: bool,
    /// Compression of batch bodies. Default: none.
    pub codec: Codec,
    /// Level for Zstandard, 1 to 22. Default: 3.
    pub zstd_level: i32,
    /// Ask the brokers where the time of each batch went: [`super::Delivery::explain`]. Costs a kilobyte a batch. Default:
    /// false.
    pub explain: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            batch_bytes_max: 256 << 10,
            linger: Duration::from_millis(5),
            send_when_idle: true,
            buffer_bytes_max: 64 << 20,
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
            in_flight_max: limits::PRODUCER_IN_FLIGHT_MAX,
            idempotent: true,
            codec: Codec::None,
            zstd_level: 3,
            explain: false,
        }
    }
}

impl ProducerOptions {
    /// Refuses settings outside of their range.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.into() });
        if !(1 << 10..=limits::BATCH_BODY_BYTES_MAX).contains(&self.batch_bytes_max) {
            return refuse("batch_bytes_max", "it must be 1 KiB to 4 MiB");
        }
        if !(1 << 10..=u32::MAX as usize / 2).contains(&self.buffer_bytes_max) {
            return refuse("buffer_bytes_max", "it must be 1 KiB to 2 GiB");
        }
        if !(1..=limits::PRODUCER_IN_FLIGHT_MAX).contains(&self.in_flight_max) {
            return refuse("in_flight_max", "it must be 1 to 8");
        }
        if self.delivery_timeout.is_zero() || self.request_timeout.is_zero() {
            return refuse("request_timeout, delivery_timeout", "they must not be zero");
        }
        if !(1..=22).contains(&self.zstd_level) {
            return refuse("zstd_level", "it must be 1 to 22");
        }
        Ok(())
    }
}
