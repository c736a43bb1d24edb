//! The gateway: answers who owns what; the elected one is the controller.
//!
//! It decides nothing by itself: chains are decided by `core::chain::controller`, which it interprets against the
//! coordinator and the shard ports; topics by their buckets in the coordinator. It keeps no state of its own.
//!
//! - `accept`: connections, a bounded number at a time, for both ports.
//! - `server`: the native port; `resolve` and `topics` answer.
//! - `http`: the HTTP port, in the shapes of [`admin`].
//! - `data`: this gateway as a client of its own cluster: groups and the queue over HTTP.
//! - `metrics`: what it tells Prometheus.
//! - `map`: a cache of the coordinator's records, kept fresh by watches.
//! - `operations`: what operators want done with ranges, planned and written down.
//! - `election`, then `controller`: chains, topics and operations, while this gateway is elected.

mod accept;
pub mod admin;
mod backoff;
pub mod cluster;
pub mod config;
mod controller;
mod data;
mod election;
pub mod gateway;
mod http;
mod links;
mod map;
mod metrics;
mod operations;
mod resolve;
mod server;
mod topics;

pub use cluster::{ClusterError, create_cluster, find_cluster};
pub use config::{Deadlines, GatewayConfig};
pub use gateway::{Gateway, GatewayError, GatewayHandle};
pub use http::{LogFilter, log_level_routes, serve_http};
pub use metrics::CHAPTERS as METRICS;
pub use server::CounterValues;
