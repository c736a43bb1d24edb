//! How fast the wire driver is against a sink: a driver that is not far above the broker would measure itself.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::wire::produce_into_sink;
use crate::error::Result;
use crate::limits::LimitOptions;
use crate::pace::Arrivals;
use crate::report::show;
use crate::workload::{Compression, DriverKind, KeyDistribution, Load, Records};

/// What the driver reaches by itself.
#[derive(Clone, Debug, Serialize)]
pub struct DriverSpeed {
    /// Bytes of records a second, in batches of 1 MiB.
    pub bytes_per_second: f64,
    /// Batches a second of one record of 100 bytes.
    pub requests_per_second: f64,
    /// Bytes of records in a second of the driver's own processor time: what it could send if it had its core to itself
    /// and a receiver that keeps up.
    pub bytes_per_core_second: f64,
    /// The same for batches of one record.
    pub requests_per_core_second: f64,
}

impl fmt::Display for DriverSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this load generator into a sink: {} in batches of 1 MiB ({} of its own processor time), {} of one record ({})",
            show(self.bytes_per_second, "bytes/s"),
            show(self.bytes_per_core_second, "bytes/s"),
            show(self.requests_per_second, "requests/s"),
            show(self.requests_per_core_second, "requests/s")
        )
    }
}

/// Measures both on one pair of cores.
pub fn measure(options: &LimitOptions, quick: bool) -> Result<DriverSpeed> {
    let seconds = |quickly, fully| Duration::from_millis(if quick { quickly } else { fully });
    let load = Load {
        topic: String::new(),
        partitions: 16,
        retention_bytes: None,
        driver: DriverKind::Wire,
        connections: 1,
        in_flight: 16,
        duration: seconds(200, 2000),
        warm_up: seconds(50, 500),
        bytes_max: None,
        cpu: options.load_cpu,
        seed: 1,
    };
    let records = Records {
        record_bytes: 1024,
        batch_bytes: 1 << 20,
        batch_records: None,
        keys: KeyDistribution::None,
        key_count: 1,
        compression: Compression::None,
        rate: None,
        arrivals: Arrivals::Even,
    };
    let (large, large_notes) = produce_into_sink(&load, &records, options.broker_cpu)?;
    let load = Load { connections: 8, in_flight: 256, partitions: 64, ..load };
    let records = Records { record_bytes: 100, batch_records: Some(1), ..records };
    let (small, small_notes) = produce_into_sink(&load, &records, options.broker_cpu)?;
    Ok(DriverSpeed {
        bytes_per_second: large.totals.bytes_per_second,
        requests_per_second: small.totals.requests_per_second,
        bytes_per_core_second: large.totals.bytes_per_second / large_notes.core_share,
        requests_per_core_second: small.totals.requests_per_second / small_notes.core_share,
    })
}
