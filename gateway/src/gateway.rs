//! Starting and stopping a gateway, and what its parts share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use minikafka_coordinator::{CoordinatorClient, SessionWatch};
use minikafka_core::chain::controller::{Alert, LearnerStatus};
use minikafka_core::chain::peer::Complaint;
use minikafka_core::coordination::{ClusterRecord, CoordinationError, path};
use minikafka_core::limits;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::cluster::{ClusterError, find_cluster};
use crate::config::GatewayConfig;
use crate::data::{self, Data};
use crate::election::{self, Leadership};
use crate::links::ShardLinks;
use crate::map::{MapStore, keeper};
use crate::metrics::Actions;
use crate::metrics::lag::{self, LagTable};
use crate::server::{self, Counters};
use crate::{controller, http, server::CounterValues};

/// Why a gateway does not start.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The native port, or the HTTP port, cannot be had.
    #[error("cannot listen for {port} clients on {address}: {source}")]
    Listen {
        /// Which one: `native` or `http`.
        port: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// It has no part in a cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A setting is outside its range.
    #[error("{0}")]
    Setting(String),
    /// The coordinator does not answer.
    #[error(transparent)]
    Coordinator(#[from] CoordinationError),
}

/// A gateway; see [`Gateway::start`].
#[derive(Debug)]
pub struct Gateway;

/// A running gateway. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct GatewayHandle {
    address: SocketAddr,
    http: Option<SocketAddr>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What the parts of a gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) advertised: Advertised,
    pub(crate) cluster: ClusterRecord,
    pub(crate) client: CoordinatorClient,
    pub(crate) map: Arc<MapStore>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) links: Arc<ShardLinks>,
    pub(crate) counters: Counters,
    pub(crate) data: Arc<Data>,
    /// What ranges wait for, by chunk; the controller's.
    pub(crate) alerts: Mutex<BTreeMap<(u16, u32), Vec<Alert>>>,
    /// Who learns what, by chunk; the controller's.
    pub(crate) learners: Mutex<BTreeMap<(u16, u32), Vec<LearnerStatus>>>,
    /// What the controller did.
    pub(crate) actions: Actions,
    /// How far groups are behind; the controller's.
    pub(crate) lag: Mutex<LagTable>,
    pub(crate) session: Arc<SessionWatch>,
    /// Held while an operation is planned and written down.
    pub(crate) beginning: tokio::sync::Mutex<()>,
    /// Where the controller takes complaints, while this gateway is elected.
    pub(crate) complaints: Mutex<Option<mpsc::Sender<Complaint>>>,
}

/// Where others find this gateway.
#[derive(Clone, Debug)]
pub(crate) struct Advertised {
    /// `host:port` of the native port.
    pub(crate) native: String,
    /// `host:port` of the HTTP port; empty: none.
    pub(crate) http: String,
}

impl Shared {
    /// Members per chain of a topic that does not say how many.
    pub(crate) fn default_replication(&self) -> u16 {
        match self.config.default_replication {
            0 => self.cluster.internal_replication,
            replication => replication,
        }
    }
}

impl Gateway {
    /// Starts a gateway on the current tokio runtime: it listens, stands for election, and once elected controls. When
    /// this returns, the map has been read once and requests are answered.
    ///
    /// # Errors
    /// [`GatewayError::Cluster`] before [`crate::create_cluster`], and with another secret; [`GatewayError::Setting`] names a
    /// bad setting.
    pub async fn start(config: GatewayConfig) -> Result<GatewayHandle, GatewayError> {
        check(&config)?;
        let client = CoordinatorClient::new(config.coordinator.clone());
        let cluster = find_cluster(&client, &config.secret).await?;
        let map = Arc::new(MapStore::new());
        keeper::read_all(&client, &map).await?;
        let (listener, address) = listen(config.listen, "native").await?;
        let http = listen_http(&config).await?;
        let http_address = http.as_ref().map(|(_, address)| *address);
        let told = |address: SocketAddr| config.advertise_http.clone().unwrap_or_else(|| address.to_string());
        let advertised = Advertised {
            native: config.advertise.clone().unwrap_or_else(|| address.to_string()),
            http: http_address.map(told).unwrap_or_default(),
        };
        let session = SessionWatch::begin(&config.coordinator, path::CLUSTER);
        let shared = Arc::new(Shared {
            links: Arc::new(ShardLinks::new(cluster.cluster, &config.secret)),
            config,
            advertised,
            cluster,
            client,
            map,
            leadership: watch::Sender::new(Leadership::Unknown),
            counters: Counters::default(),
            data: Arc::new(Data::new(address)),
            alerts: Mutex::default(),
            learners: Mutex::default(),
            actions: Actions::default(),
            lag: Mutex::default(),
            session,
            beginning: tokio::sync::Mutex::default(),
            complaints: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for prefix in keeper::PREFIXES {
            tasks.spawn(keeper::keep(shared.client.clone(), shared.map.clone(), prefix));
        }
        tasks.spawn(election::stand(shared.clone()));
        tasks.spawn(control_while_elected(shared.clone()));
        tasks.spawn(server::serve(shared.clone(), listener));
        if let Some((listener, _)) = http {
            tasks.spawn(http::serve(shared.clone(), listener));
            tasks.spawn(data::tend(shared.data.clone()));
            tasks.spawn(lag::watch(shared.clone()));
        }
        Ok(GatewayHandle { address, http: http_address, shared, tasks })
    }
}

impl GatewayHandle {
    /// Where the native port listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the HTTP port listens, if there is one.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Whether this gateway is the controller now.
    pub fn is_controller(&self) -> bool {
        matches!(*self.shared.leadership.borrow(), Leadership::Mine(_))
    }

    /// What happened on the native port since the start.
    pub fn counters(&self) -> CounterValues {
        self.shared.counters.values()
    }

    /// Ranges that wait for a node or an operator, and for what. Only the controller knows; others have none.
    pub fn alerts(&self) -> Vec<Alert> {
        self.shared.alerts.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }

    /// Leaves the queue's group, stops taking connections and changes, closes the coordinator session, and returns when all is quiet. What was
    /// under way is taken up by the next controller.
    pub async fn shutdown(mut self) {
        self.shared.data.close().await;
        self.shared.client.close();
        self.tasks.shutdown().await;
    }
}

impl Drop for GatewayHandle {
    fn drop(&mut self) {
        self.shared.client.close();
    }
}

/// Runs the controller whenever and as long as this gateway is elected.
async fn control_while_elected(shared: Arc<Shared>) {
    let mut leadership = shared.leadership.subscribe();
    let mut backoff = Backoff::default();
    loop {
        let now = leadership.borrow_and_update().clone();
        let Leadership::Mine(writer) = now else {
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        };
        let controller = AbortOnDrop(tokio::spawn(controller::run(shared.clone(), writer)));
        let lost = async { leadership.wait_for(|leadership| *leadership != Leadership::Mine(writer)).await.is_ok() };
        tokio::select! {
            goes_on = lost => {
                if !goes_on {
                    return;
                }
            }
            () = ended(controller) => {
                tracing::error!(writer = writer.0, "the controller stopped by itself; starting it again");
                backoff.wait().await;
            }
        }
    }
}

async fn ended(mut controller: AbortOnDrop) {
    // However it ended: its own panic message says why.
    drop((&mut controller.0).await);
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen(address: SocketAddr, port: &'static str) -> Result<(TcpListener, SocketAddr), GatewayError> {
    let failed = |source| GatewayError::Listen { port, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn listen_http(config: &GatewayConfig) -> Result<Option<(TcpListener, SocketAddr)>, GatewayError> {
    let Some(address) = config.http_listen else { return Ok(None) };
    match listen(address, "http").await {
        Err(error) if config.http_is_optional => {
            tracing::warn!(%error, "going on without HTTP");
            Ok(None)
        }
        listening => listening.map(Some),
    }
}

fn check(config: &GatewayConfig) -> Result<(), GatewayError> {
    let partitions = config.default_partitions;
    let bad = if !config.ranges.is_power_of_two() || config.ranges > limits::RANGES_MAX {
        format!("ranges is {}: it must be a power of two up to {}", config.ranges, limits::RANGES_MAX)
    } else if partitions == 0 || partitions > limits::TOPIC_PARTITIONS_MAX {
        format!("default_partitions is {partitions}: it must be 1 to {}", limits::TOPIC_PARTITIONS_MAX)
    } else if usize::from(config.default_replication) > limits::CHAIN_MAX {
        format!("default_replication is {}: it must be at most {}", config.default_replication, limits::CHAIN_MAX)
    } else if config.secret.is_empty() {
        "the cluster secret is empty".to_owned()
    } else {
        return Ok(());
    };
    Err(GatewayError::Setting(bad))
}
