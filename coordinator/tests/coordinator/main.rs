//! Coordinators: one conformance suite for all of them, and what is particular to the embedded one.

mod conformance;
mod embedded;
