//! A cluster whose heads die again and again, for measuring how long writes stand still (`docs/FAILOVER.md`).
//!
//! A [`Ground`] is either brokers in this process over an embedded coordinator, where nothing but the protocol takes time,
//! or real processes over a real ZooKeeper, killed by SIGKILL. Probes send one record after the other, each as soon as the
//! one before is acknowledged.

mod ground;
mod probes;

pub use ground::{Ground, Harm, SILENCE};
pub use probes::Probes;

/// Members of each chain.
pub const REPLICATION: u16 = 3;
/// The topic that is written to.
pub const TOPIC: &str = "failover";
