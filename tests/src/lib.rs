//! What the tests of the whole stand on: real processes, clusters of them, load and faults on them, sockets that misbehave,
//! and a reader of this repository's own source.
//!
//! Nothing here runs in production; the crates below never see it.

pub mod chaos;
pub mod cluster;
pub mod failover;
pub mod fuzzing;
pub mod in_process;
pub mod load;
pub mod process;
pub mod quickstart;
pub mod raw;
pub mod rot;
pub mod seed;
pub mod source;
pub mod stand_ins;
