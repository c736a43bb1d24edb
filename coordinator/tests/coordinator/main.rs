//! Coordinators: one conformance suite for all of them, and what is particular to each.

mod conformance;
mod embedded;
mod zookeeper;
