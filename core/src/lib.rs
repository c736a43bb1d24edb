//! The shared words of MiniKafka and its pure state machines.
//!
//! Everything here is synchronous and deterministic: no I/O, no clock, no threads, no randomness, no async. Time is
//! passed in, results come out; brokers interpret them on io_uring, the simulator on a virtual world.
//!
//! Formats are described byte by byte in `docs/DATA_FILE.md` and `docs/PROTOCOL.md`; the code cites their sections.

pub mod batch;
pub mod chain;
pub mod checksum;
pub mod control;
pub mod coordination;
pub mod dedup;
pub mod entry;
pub mod error_code;
pub mod group;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod range_state;
pub mod ring;
pub mod token_bucket;
pub mod topic;
pub mod wire;

pub use error_code::ErrorCode;
pub use ids::*;
