//! The client: where an application begins.
//!
//! One [`Client`] per cluster is enough: it holds the map and the connections that its producers and consumers share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::ClusterId;
use minikafka_core::wire::TopicDescription;
use tokio::time::Instant;

use crate::connection::{ConnectOptions, Connection};
use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::{Error, Result};
use crate::gateway::Gateways;
use crate::map::{ClusterMap, MapKeeper};
use crate::pool::{ConnectionPool, Lane};
use crate::producer::{Producer, ProducerOptions};

/// A handle on one cluster. Cheap to clone; all clones share map and connections.
///
/// ```no_run
/// use minikafka_client::{Client, ConsumerOptions, ProducerOptions, ProducerRecord};
///
/// # async fn run() -> minikafka_client::Result<()> {
/// let client = Client::builder(["localhost:9000"]).client_name("greeter").connect().await?;
/// let producer = client.producer("greetings", ProducerOptions::default()).await?;
/// let delivery = producer.send(ProducerRecord::value(b"hello")).await?;
/// println!("stored at {:?}", delivery.await?);
/// producer.close().await?;
///
/// let mut consumer = client.consumer("greetings", ConsumerOptions::default()).await?;
/// let record = consumer.next().await?;
/// println!("{:?}", record.value);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<ClientShared>,
}

/// What producers and consumers need of their client.
#[derive(Debug)]
pub(crate) struct ClientShared {
    pub(crate) options: ClientOptions,
    pub(crate) pool: Arc<ConnectionPool>,
    pub(crate) gateways: Gateways,
    pub(crate) map: MapKeeper,
}

/// Settings of a client. Each is set by the application; [`Client::builder`] begins with the defaults.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Name of the program, for the servers' logs. Default: empty.
    pub client_name: String,
    /// The cluster expected; 0: any. Default: 0.
    pub cluster: ClusterId,
    /// Time to open one connection, hello included. Default: 5 s.
    pub connect_timeout: Duration,
    /// Time for a request about topics or offsets, retries included. Default: 30 s.
    pub request_timeout: Duration,
    /// Whether a producer or consumer of an unknown topic asks the cluster to create it. Clusters decide whether they do
    /// (`dev` does, others only if configured). Default: true.
    pub create_missing_topics: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_name: String::new(),
            cluster: ClusterId(0),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            create_missing_topics: true,
        }
    }
}

/// Gathers the settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    gateways: Vec<Arc<str>>,
    options: ClientOptions,
}

impl ClientBuilder {
    /// Name of the program, for the servers' logs.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.options.client_name = name.into();
        self
    }

    /// Replaces all settings.
    #[must_use]
    pub fn options(mut self, options: ClientOptions) -> Self {
        self.options = options;
        self
    }

    /// Asks a gateway for the map, so that a wrong address is found now and not with the first record.
    ///
    /// # Errors
    /// [`Error::NoGateway`] when none answers, [`Error::InvalidOption`] without an address.
    pub async fn connect(self) -> Result<Client> {
        let client = self.build()?;
        client.refresh_map().await?;
        Ok(client)
    }

    /// The client without any I/O; the map is fetched when it is first needed.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] without a gateway address.
    pub fn build(self) -> Result<Client> {
        if self.gateways.is_empty() {
            return Err(Error::InvalidOption { option: "gateways", reason: "at least one host:port is needed".into() });
        }
        let pool = Arc::new(ConnectionPool::new(ConnectOptions {
            client_name: self.options.client_name.clone(),
            cluster: self.options.cluster,
            connect_timeout: self.options.connect_timeout,
            ..ConnectOptions::default()
        }));
        let gateways = Gateways::new(self.gateways, pool.clone());
        let map = MapKeeper::new(self.options.create_missing_topics);
        Ok(Client { shared: Arc::new(ClientShared { options: self.options, pool, gateways, map }) })
    }
}

impl Client {
    /// Begins a client of the cluster that any of these gateways (`host:port`) belongs to.
    pub fn builder<S: AsRef<str>>(gateways: impl IntoIterator<Item = S>) -> ClientBuilder {
        let gateways = gateways.into_iter().map(|address| Arc::from(address.as_ref())).collect();
        ClientBuilder { gateways, options: ClientOptions::default() }
    }

    /// A producer for one topic.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; [`Error::Broker`] with `unknown_topic` or `invalid_topic_name`; [`Error::NoGateway`].
    pub async fn producer(&self, topic: &str, options: ProducerOptions) -> Result<Producer> {
        let description = self.topic(topic).await?;
        Producer::start(self.shared.clone(), description, options)
    }

    /// A consumer of one topic.
    ///
    /// # Errors
    /// As [`Client::producer`], and [`Error::NoSuchPartition`].
    pub async fn consumer(&self, topic: &str, options: ConsumerOptions) -> Result<Consumer> {
        let description = self.topic(topic).await?;
        Consumer::start(self.shared.clone(), description, options).await
    }

    /// A topic as the map has it; asked for, and if allowed created, when the map does not have it.
    ///
    /// # Errors
    /// As [`Client::producer`].
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicDescription>> {
        let deadline = Instant::now() + self.shared.options.request_timeout;
        self.shared.map.topic(name, &self.shared.gateways, deadline).await
    }

    /// The current map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.shared.map.current()
    }

    /// A map newer than the current one.
    ///
    /// # Errors
    /// [`Error::NoGateway`] or [`Error::Malformed`].
    pub async fn refresh_map(&self) -> Result<Arc<ClusterMap>> {
        self.shared.map.newer_than(self.map().version(), &self.shared.gateways).await
    }

    /// The shared connection to a shard or gateway, opened if need be: for requests that this crate has no method for.
    ///
    /// # Errors
    /// As [`Connection::connect`].
    pub async fn connection(&self, address: &str) -> Result<Connection> {
        self.shared.pool.connect(&address.into(), Lane::Requests).await
    }

    pub(crate) fn shared(&self) -> &Arc<ClientShared> {
        &self.shared
    }
}

impl ClientShared {
    /// A map newer than `seen`; when no gateway answers, the current one: the data path goes on with what is known.
    pub(crate) async fn map_after(&self, seen: u64) -> Arc<ClusterMap> {
        match self.map.newer_than(seen, &self.gateways).await {
            Ok(map) => map,
            Err(error) => {
                tracing::warn!(%error, "map not refreshed");
                self.map.current()
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
