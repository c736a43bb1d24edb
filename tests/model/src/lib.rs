//! Exhaustive model checking of small chains (`docs/REPLICATION.md`, "Model").
//!
//! The members are the shipping machines; disk, messages and the record are abstract, and so are the controllers: whatever
//! the rules let one do, some controller does at some time. Promise: every state that a case can reach within its budgets
//! is looked at, or the report says that it was not. Absent: time, damage, what happens with more of anything.

pub mod case;
pub mod cases;
pub mod check;
pub mod control;
pub mod decide;
pub mod entries;
pub mod intern;
pub mod model;
pub mod node;
pub mod reached;
pub mod world;
