//! The client against a fake cluster in memory that speaks the real protocol, and misbehaves as it is told.
//!
//! Nothing here sleeps for correctness: tests wait for conditions, and every one has a deadline.

mod cluster;
mod connection;
mod consumer;
mod explain;
mod groups;
mod producer;
mod topics;
