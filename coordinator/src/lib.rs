//! Where the cluster's few shared facts live.
//!
//! The trait and the records are `core::coordination`; here are its implementations and the handle others use:
//! [`embedded`] keeps everything in this process and in one file, [`zookeeper`] in an ensemble; [`CoordinatorClient`] turns
//! callbacks into futures that any executor can await, [`Registration`] keeps an ephemeral key through lost sessions.
//! Nothing here decides anything about the cluster.

pub mod client;
pub mod embedded;
mod key;
pub mod registration;
mod session_watch;
pub mod watch;
pub mod zookeeper;

pub use client::CoordinatorClient;
pub use embedded::{EmbeddedCoordinator, EmbeddedSession, OpenError};
pub use registration::Registration;
pub use session_watch::SessionWatch;
pub use watch::WatchEvents;
pub use zookeeper::{ZooKeeperAddress, ZooKeeperAddressError, ZooKeeperSession};
