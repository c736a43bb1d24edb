//! Keeps the newest map: asks gateways, one question at a time however many need the answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use minikafka_core::ErrorCode;
use minikafka_core::wire::{Api, ResolveReply, ResolveRequest, TopicDescription};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use super::ClusterMap;
use crate::error::{Error, Result};
use crate::gateway::Gateways;

/// Two refreshes are at least this far apart, whoever asks for them.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Owns the current snapshot.
#[derive(Debug)]
pub(crate) struct MapKeeper {
    current: watch::Sender<Arc<ClusterMap>>,
    /// Names asked about so far: every refresh asks about all of them again.
    names: Mutex<BTreeSet<String>>,
    /// Held during a refresh; the time is the end of the last one.
    refreshing: AsyncMutex<Option<Instant>>,
    create_missing: bool,
}

impl MapKeeper {
    pub(crate) fn new(create_missing: bool) -> Self {
        Self {
            current: watch::Sender::new(Arc::default()),
            names: Mutex::default(),
            refreshing: AsyncMutex::default(),
            create_missing,
        }
    }

    /// The current snapshot.
    pub(crate) fn current(&self) -> Arc<ClusterMap> {
        self.current.borrow().clone()
    }

    /// Tells whenever there is another snapshot.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.current.subscribe()
    }

    /// A snapshot newer than `seen`: the one that is there already, the one that another caller is fetching, or one
    /// fetched now. Cancel-safe: whoever waits next takes over.
    pub(crate) async fn newer_than(&self, seen: u64, gateways: &Gateways) -> Result<Arc<ClusterMap>> {
        let mut last_refresh = self.refreshing.lock().await;
        if self.current().version() > seen {
            return Ok(self.current());
        }
        if let Some(last) = *last_refresh {
            tokio::time::sleep_until(last + REFRESH_INTERVAL_MIN).await;
        }
        let before = self.current();
        let refreshed = self.resolve(self.names(), gateways).await;
        *last_refresh = Some(Instant::now());
        if refreshed.as_ref().is_ok_and(|map| map.has_chains_of(&before)) {
            gateways.turn_to_next();
        }
        refreshed
    }

    /// A snapshot that was asked for no longer than `age_max` ago, whoever asked.
    pub(crate) async fn no_older_than(&self, age_max: Duration, gateways: &Gateways) -> Result<Arc<ClusterMap>> {
        let mut last_refresh = self.refreshing.lock().await;
        if last_refresh.is_some_and(|last| last.elapsed() < age_max) {
            return Ok(self.current());
        }
        let refreshed = self.resolve(self.names(), gateways).await;
        *last_refresh = Some(Instant::now());
        refreshed
    }

    fn names(&self) -> Vec<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// A topic's description, asked for if unknown, and created if it does not exist and client and cluster allow that.
    ///
    /// Any gateway knows what there is; only the controller creates, and it is waited for until the deadline: just after a
    /// start there is none yet.
    pub(crate) async fn topic(
        &self,
        name: &str,
        gateways: &Gateways,
        deadline: Instant,
    ) -> Result<Arc<TopicDescription>> {
        minikafka_core::topic::check_name(name).map_err(|code| Error::broker(code, format!("topic {name:?}")))?;
        let usable = |map: &ClusterMap| map.topic(name).filter(|topic| topic.error.is_none()).cloned();
        if let Some(topic) = usable(&self.current()) {
            return Ok(topic);
        }
        let mut last_refresh = self.refreshing.lock().await;
        if let Some(topic) = usable(&self.current()) {
            return Ok(topic);
        }
        let mut map = self.resolve(vec![name.to_owned()], gateways).await?;
        let is_unknown = |topic: &Arc<TopicDescription>| topic.error == Some(ErrorCode::UnknownTopic);
        if self.create_missing && map.topic(name).is_none_or(is_unknown) {
            let request = request(vec![name.to_owned()], true);
            let created = gateways.ask_controller(Api::Resolve, &request, deadline, &mut false).await?;
            map = self.take(created, &"the controller".into())?;
        }
        *last_refresh = Some(Instant::now());
        let target = || format!("topic {name}");
        let topic = map.topic(name).ok_or_else(|| Error::broker(ErrorCode::UnknownTopic, target()))?;
        if let Some(code) = topic.error {
            return Err(Error::broker(code, target()));
        }
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(topic.clone())
    }

    /// Takes what a create or describe has shown into the map, so that the next lookup finds it.
    pub(crate) fn learn(&self, topic: &TopicDescription) {
        if topic.error.is_some() || topic.partitions == 0 {
            return;
        }
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.name.clone());
        self.current.send_modify(|map| {
            let mut next = ClusterMap::clone(map);
            next.topics.insert(topic.name.as_str().into(), Arc::new(topic.clone()));
            *map = Arc::new(next);
        });
    }

    /// Forgets a deleted topic; a topic created again under its name is another one.
    pub(crate) fn forget(&self, name: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.current.send_modify(|map| {
            let mut next = ClusterMap::clone(map);
            next.topics.remove(name);
            *map = Arc::new(next);
        });
    }

    /// One question to the gateways; the caller holds `refreshing`.
    async fn resolve(&self, topics: Vec<String>, gateways: &Gateways) -> Result<Arc<ClusterMap>> {
        let (from, reply) = gateways.ask_any(Api::Resolve, &request(topics, false)).await?;
        self.take(reply, &from)
    }

    /// Takes an answer for the current snapshot's successor.
    fn take(&self, reply: ResolveReply, from: &Arc<str>) -> Result<Arc<ClusterMap>> {
        let mut outcome = Ok(());
        self.current.send_modify(|map| match map.succeeded_by(reply) {
            Ok(next) => *map = Arc::new(next),
            Err(reason) => outcome = Err(Error::malformed(from, "map", reason)),
        });
        outcome.map(|()| self.current())
    }
}

fn request(topics: Vec<String>, create_missing: bool) -> ResolveRequest {
    ResolveRequest { topics, all_topics: false, with_rings: true, create_missing }
}
