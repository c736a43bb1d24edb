//! Consumer groups: who reads which partition, and where each goes on (`docs/GROUPS.md`).
//!
//! - `state`: what the log says of groups; a fold of control entries, part of a range's state.
//! - `coordinator`: the machine of the range's head, which decides and has its decisions put into the log.
//! - `assignment`: who should have what, sticky and balanced.
//! - `member`: the machine of a consumer.
//!
//! All of it is pure: time is passed in, entries and answers come out.

pub mod assignment;
pub mod coordinator;
pub mod member;
pub mod name;
pub mod state;

pub use name::{GroupName, InstanceName};
pub use state::{Commit, GroupState, GroupTable, Owner, Ownership};

#[cfg(test)]
mod tests;
