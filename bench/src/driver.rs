//! Who speaks to the broker: [`wire`] as cheaply as can be, [`client`] as applications do.

pub mod client;
pub mod speed;
pub mod wire;

/// Requests that failed, by the name of their error.
pub type Failures = std::collections::BTreeMap<String, u64>;

/// What a driver says besides its measurements.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct DriverNotes {
    /// Share of one core that the driver took; near 1 it may be the limit itself.
    pub core_share: f64,
    /// Failed requests by error.
    pub failures: Failures,
    /// What a reader must know to judge the figures.
    pub notes: Vec<String>,
}
