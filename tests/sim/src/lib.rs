//! The simulator: brokers, controllers and clients in a hostile virtual world, replayed exactly by seed.
//!
//! What runs in it is what ships: `broker::Shard` over the simulated disk, with storage and its recovery, and
//! `core::chain::controller::ChunkController`. Made up are the network, the disks, the clocks, the coordinator and the
//! clients, and everything that goes wrong with them. Phase one does arbitrary harm and checks after every step what must
//! never happen (`invariants`); phase two heals everything and demands that the world converges; then the whole history
//! of the clients is judged. Absent: sockets, frames and the gateway's tasks, which have tests of their own.

mod batch;
mod client;
pub mod command;
mod controller;
mod coordinator;
mod faults;
mod groups;
mod invariants;
mod logs;
mod network;
mod node;
mod operator;
mod plan;
mod queue;
mod run;
mod running;
mod trace;
mod world;

pub use batch::{BatchOptions, BatchReport, run_batch};
pub use faults::FaultKind;
pub use invariants::ViolationKind;
pub use run::{Failure, Outcome, RunOptions, run_seed};
