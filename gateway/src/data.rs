//! The gateway as a client of its own cluster: what HTTP says about groups, and the queue over HTTP.
//!
//! One handle of the queue pushes and is in no group. Another one pulls; it joins with the first pull, and leaves when nobody
//! has pulled for a while, because a member that nobody asks would hold records back from those who are asked. What was
//! pulled with a lease is held here, and given out again when the lease ends, or when this gateway does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use minikafka_client::{Client, ClientOptions, Error, Pushed, Queue, QueueDelivery, QueueOptions};
use minikafka_core::{ErrorCode, limits};
use tokio::time::Instant;

/// Between two looks at leases and idleness.
const LOOK: Duration = Duration::from_millis(250);
/// How long it may take to leave the queue's group when the gateway ends.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// The client's own deadline, so that its error is told and not that of the HTTP port.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What the HTTP port needs of records.
#[derive(Debug)]
pub(crate) struct Data {
    gateway: String,
    client: OnceLock<Client>,
    pushing: tokio::sync::Mutex<Option<Queue>>,
    pulling: tokio::sync::Mutex<Option<Queue>>,
    /// Pulls that wait, and leases.
    users: Arc<AtomicUsize>,
    used: Mutex<Option<Instant>>,
    leases: Mutex<BTreeMap<u64, Leased>>,
}

/// A record that was pulled with a lease. Dropped, it is given out again.
#[derive(Debug)]
struct Leased {
    delivery: QueueDelivery,
    until: Instant,
    _using: Using,
}

/// As long as it is there, the gateway stays in the group.
#[derive(Debug)]
struct Using(Arc<AtomicUsize>);

/// What became of a lease that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Handled,
    Again,
    /// There is no such lease, or no more.
    Unknown,
}

impl Data {
    /// `native`: where this gateway's own port listens.
    pub(crate) fn new(native: SocketAddr) -> Self {
        let ip = match native.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Self {
            gateway: SocketAddr::new(ip, native.port()).to_string(),
            client: OnceLock::new(),
            pushing: tokio::sync::Mutex::default(),
            pulling: tokio::sync::Mutex::default(),
            users: Arc::default(),
            used: Mutex::default(),
            leases: Mutex::default(),
        }
    }

    /// The client, made when it is first needed.
    pub(crate) fn client(&self) -> Result<&Client, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let options = ClientOptions {
            client_name: "minikafka gateway".into(),
            request_timeout: REQUEST_TIMEOUT,
            create_missing_topics: false,
            ..ClientOptions::default()
        };
        let client = Client::builder([&self.gateway]).options(options).build()?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Stores a record in the queue.
    pub(crate) async fn push(&self, key: Option<&[u8]>, value: &[u8]) -> Result<Pushed, Error> {
        let queue = self.queue(&self.pushing).await?;
        let pushed = queue.push(key, value).await;
        self.forget_if_gone(&self.pushing, pushed.as_ref().err()).await;
        pushed
    }

    /// The next record of the queue within `wait`.
    pub(crate) async fn pull(&self, wait: Duration) -> Result<Option<QueueDelivery>, Error> {
        let _using = self.using();
        let pulling = async { self.queue(&self.pulling).await?.pull_delivery().await };
        let pulled = tokio::time::timeout(wait, pulling).await;
        // What it waited for so long still counts as use.
        self.touch();
        let Ok(pulled) = pulled else { return Ok(None) };
        self.forget_if_gone(&self.pulling, pulled.as_ref().err()).await;
        pulled.map(Some)
    }

    /// Holds a record until it is acknowledged, or the lease ends. None: too many are held.
    pub(crate) fn lease(&self, delivery: QueueDelivery, lease: Duration) -> Option<u64> {
        let (until, id) = (Instant::now() + lease, rand::random());
        let mut leases = self.leases();
        if leases.len() >= limits::QUEUE_LEASES_MAX {
            return None;
        }
        leases.insert(id, Leased { delivery, until, _using: self.using() });
        Some(id)
    }

    /// Ends a lease.
    pub(crate) fn end_lease(&self, id: u64, again: bool) -> LeaseEnd {
        let leased = self.leases().remove(&id);
        let Some(Leased { delivery, .. }) = leased.filter(|leased| leased.until > Instant::now()) else {
            return LeaseEnd::Unknown;
        };
        self.touch();
        if again {
            delivery.nack();
            return LeaseEnd::Again;
        }
        delivery.ack();
        LeaseEnd::Handled
    }

    /// Gives back what is out and leaves the queue's group, so that others need not wait for its session to end.
    pub(crate) async fn close(&self) {
        let out = std::mem::take(&mut *self.leases());
        drop(out);
        for slot in [&self.pulling, &self.pushing] {
            let Some(queue) = slot.lock().await.take() else { continue };
            match tokio::time::timeout(CLOSE_PATIENCE, queue.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the queue was not left in order"),
                Err(_) => tracing::debug!("the queue was not left in time"),
            }
        }
    }

    async fn queue(&self, slot: &tokio::sync::Mutex<Option<Queue>>) -> Result<Queue, Error> {
        let mut slot = slot.lock().await;
        if let Some(queue) = &*slot {
            return Ok(queue.clone());
        }
        let queue = self.client()?.queue(QueueOptions::default()).await?;
        Ok(slot.insert(queue).clone())
    }

    /// A topic that was deleted is created anew for the next one who asks.
    async fn forget_if_gone(&self, slot: &tokio::sync::Mutex<Option<Queue>>, error: Option<&Error>) {
        if error.is_some_and(|error| error.code() == Some(ErrorCode::UnknownTopic)) {
            slot.lock().await.take();
        }
    }

    fn using(&self) -> Using {
        self.users.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Using(self.users.clone())
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_idle(&self) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = Duration::from_millis(limits::QUEUE_IDLE_MS);
        self.users.load(Ordering::Relaxed) == 0 && used.is_some_and(|used| used.elapsed() >= idle)
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<u64, Leased>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends leases that nobody acknowledged, and leaves the queue's group when nobody pulls.
pub(crate) async fn tend(data: Arc<Data>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now = Instant::now();
        let ended: Vec<Leased> =
            data.leases().extract_if(.., |_, leased| leased.until <= now).map(|(_, of)| of).collect();
        drop(ended);
        let mut pulling = data.pulling.lock().await;
        // Whoever begins to use it now waits for the lock, and has a new one.
        if data.is_idle()
            && let Some(queue) = pulling.take()
        {
            drop(pulling);
            if let Err(error) = queue.close().await {
                tracing::debug!(%error, "the queue's group was not left in order");
            }
        }
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
