//! Where the cluster's few shared facts live.
//!
//! The trait and the records are `core::coordination`; here are its implementations and the handle others use:
//! [`embedded`] keeps everything in this process and in one file, [`CoordinatorClient`] turns callbacks into futures
//! that any executor can await. Nothing here decides anything about the cluster.

pub mod client;
pub mod embedded;
pub mod watch;

pub use client::CoordinatorClient;
pub use embedded::{EmbeddedCoordinator, EmbeddedSession, OpenError};
pub use watch::WatchEvents;
