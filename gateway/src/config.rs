//! What a gateway is told at start.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::coordination::Coordinator;
use minikafka_core::limits;

use crate::http::LogFilter;

/// Settings of a gateway. [`GatewayConfig::new`] sets the defaults; change the fields that differ.
#[derive(Clone)]
pub struct GatewayConfig {
    /// Where the native port listens; port 0: any free one.
    pub listen: SocketAddr,
    /// `host:port` that others are told; none: the address it listens on.
    pub advertise: Option<String>,
    /// Where the HTTP port listens; port 0: any free one; none: there is none. Default: none.
    pub http_listen: Option<SocketAddr>,
    /// When the HTTP port cannot be had: go on without it, and say so in the log. Default: no, the gateway does not start.
    pub http_is_optional: bool,
    /// `host:port` of the HTTP port that others are told; none: the address it listens on.
    pub advertise_http: Option<String>,
    /// The cluster secret; every shard and gateway of a cluster has the same.
    pub secret: Vec<u8>,
    /// A session of its own; the gateway closes it at shutdown.
    pub coordinator: Arc<dyn Coordinator>,
    /// Create topics that a resolve asks for with `create_missing`. Default: no.
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say how many. Default: 8.
    pub default_partitions: u32,
    /// Members per chain of a topic that does not say how many; 0: the cluster's internal replication. Default: 0.
    pub default_replication: u16,
    /// Ranges of rings that this gateway creates, a power of two. Default: [`limits::RANGES_DEFAULT`].
    pub ranges: u32,
    /// Connections to the native port. Default: [`limits::CONNECTIONS_MAX`].
    pub connections_max: u32,
    /// What `/v1/log-level` shows and changes; none: there is no such path. Default: none.
    pub log_filter: Option<Arc<dyn LogFilter>>,
    /// How long a connection may take over what. Default: the values of [`limits`].
    pub deadlines: Deadlines,
}

/// How long a connection may take over what; then it is closed.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From accept to a complete hello (and proof, where the role needs one). Over HTTP: to the end of a request's head.
    pub hello: Duration,
    /// From the first byte of a frame to its last.
    pub frame: Duration,
    /// Without any frame. Over HTTP: for the whole connection, which is then closed between two requests.
    pub idle: Duration,
    /// For one reply to leave.
    pub write: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            hello: Duration::from_millis(limits::HELLO_DEADLINE_MS),
            frame: Duration::from_millis(limits::FRAME_DEADLINE_MS),
            idle: Duration::from_millis(limits::IDLE_DEADLINE_MS),
            write: Duration::from_millis(limits::WRITE_DEADLINE_MS),
        }
    }
}

impl GatewayConfig {
    /// The defaults, for what has none.
    pub fn new(listen: SocketAddr, secret: Vec<u8>, coordinator: Arc<dyn Coordinator>) -> Self {
        Self {
            listen,
            advertise: None,
            http_listen: None,
            http_is_optional: false,
            advertise_http: None,
            secret,
            coordinator,
            auto_create_topics: false,
            default_partitions: 8,
            default_replication: 0,
            ranges: limits::RANGES_DEFAULT,
            connections_max: limits::CONNECTIONS_MAX,
            log_filter: None,
            deadlines: Deadlines::default(),
        }
    }
}

impl fmt::Debug for GatewayConfig {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("http_listen", &self.http_listen)
            .field("auto_create_topics", &self.auto_create_topics)
            .field("default_partitions", &self.default_partitions)
            .field("default_replication", &self.default_replication)
            .field("ranges", &self.ranges)
            .finish_non_exhaustive()
    }
}
