//! Creating, altering and deleting topics: checks, one change of the bucket, then waiting for the driver.
//!
//! Only the controller changes buckets. Each request may be repeated: a creation that is under way with the same shape
//! is waited for, and so are a deletion and an alteration to the same settings.

use std::collections::BTreeMap;
use std::time::Duration;

use minikafka_core::coordination::{CoordinationError, KeyLife, TopicBucket, TopicRecord, path};
use minikafka_core::topic::{self, TopicConfig, TopicState};
use minikafka_core::wire::{AlterTopicRequest, CreateTopicRequest, DeleteTopicRequest, TopicDescription};
use minikafka_core::*;
use tokio::time::{Instant, timeout_at};

use crate::backoff::Backoff;
use crate::election::Leadership;
use crate::gateway::Shared;
use crate::resolve::describe;
use crate::server::Refusal;

/// Creates a topic and waits until every partition is open.
pub(crate) async fn create(shared: &Shared, request: &CreateTopicRequest) -> Result<TopicDescription, Refusal> {
    let until = deadline(request.timeout_ms);
    topic::check_name(&request.name).map_err(Refusal::of)?;
    require_controller(shared)?;
    let wanted = wanted(shared, request)?;
    let record = within(until, enter(shared, &request.name, wanted)).await??;
    within(until, until_ready(shared, &request.name, record.topic)).await?
}

/// Creates a topic with the defaults. Still on its way at `until`, it is described as it is then.
pub(crate) async fn create_by_default(
    shared: &Shared,
    name: &str,
    until: Instant,
) -> Result<TopicDescription, Refusal> {
    require_controller(shared)?;
    let request = CreateTopicRequest {
        name: name.to_owned(),
        partitions: 0,
        replication: 0,
        config: TopicConfig::default(),
        timeout_ms: 0,
    };
    let record = match within(until, enter(shared, name, wanted(shared, &request)?)).await? {
        Err(refusal) if refusal.code == ErrorCode::TopicExists => match shared.map.current().topic(name) {
            Some(record) => record.clone(),
            None => return Err(refusal),
        },
        entered => entered?,
    };
    match within(until, until_ready(shared, name, record.topic)).await {
        Ok(ready) => ready,
        Err(_) => Ok(describe(name, &record)),
    }
}

/// Deletes a topic and waits until it is gone.
pub(crate) async fn delete(shared: &Shared, request: &DeleteTopicRequest) -> Result<(), Refusal> {
    let until = deadline(request.timeout_ms);
    topic::check_name(&request.name).map_err(Refusal::of)?;
    require_controller(shared)?;
    let topic = within(until, mark_deleting(shared, &request.name)).await??;
    within(until, until_gone(shared, &request.name, topic)).await
}

/// Changes settings of a topic and waits until every partition has them. One that is still being created is waited for
/// first: its partitions are then all open, with the settings it was created with.
pub(crate) async fn alter(shared: &Shared, request: &AlterTopicRequest) -> Result<TopicDescription, Refusal> {
    let until = deadline(request.timeout_ms);
    topic::check_name(&request.name).map_err(Refusal::of)?;
    require_controller(shared)?;
    if request.change.is_empty() {
        return Err(Refusal::because(ErrorCode::InvalidArgument, "no setting to change is named"));
    }
    loop {
        match within(until, mark_altering(shared, request)).await?? {
            Marked::Altering(record) => {
                return within(until, until_altered(shared, &request.name, &record)).await?;
            }
            Marked::Creating(topic) => drop(within(until, until_ready(shared, &request.name, topic)).await??),
        }
    }
}

fn deadline(timeout_ms: u32) -> Instant {
    let asked = if timeout_ms == 0 { limits::TOPIC_WAIT_MS_DEFAULT } else { timeout_ms };
    Instant::now() + Duration::from_millis(asked.min(limits::TOPIC_WAIT_MS_MAX).into())
}

async fn within<T>(until: Instant, work: impl Future<Output = T>) -> Result<T, Refusal> {
    let late = |_| Refusal::because(ErrorCode::TimedOut, "not finished yet; it goes on, ask again");
    timeout_at(until, work).await.map_err(late)
}

/// The message of `not_controller` is the controller's address and nothing else.
pub(crate) fn require_controller(shared: &Shared) -> Result<(), Refusal> {
    match &*shared.leadership.borrow() {
        Leadership::Mine(_) => Ok(()),
        Leadership::Other { address, .. } => Err(Refusal::because(ErrorCode::NotController, address)),
        Leadership::Unknown => Err(Refusal::because(ErrorCode::NotController, "")),
    }
}

/// The record that a request asks for, checked.
fn wanted(shared: &Shared, request: &CreateTopicRequest) -> Result<TopicRecord, Refusal> {
    let invalid = |message: String| Refusal::because(ErrorCode::InvalidArgument, message);
    let partitions = if request.partitions == 0 { shared.config.default_partitions } else { request.partitions };
    if partitions > limits::TOPIC_PARTITIONS_MAX {
        return Err(invalid(format!("partitions is {partitions}: at most {}", limits::TOPIC_PARTITIONS_MAX)));
    }
    let replication = if request.replication == 0 { shared.default_replication() } else { request.replication };
    if usize::from(replication) > limits::CHAIN_MAX {
        return Err(invalid(format!("replication is {replication}: at most {}", limits::CHAIN_MAX)));
    }
    let map = shared.map.current();
    // The cluster's own rings come by themselves, so their topics only wait; another ring would wait forever.
    let is_usual = [shared.default_replication(), shared.cluster.internal_replication].contains(&replication);
    if !is_usual && map.ranges_total(replication).is_none() && usize::from(replication) > map.brokers.len() {
        let live = map.brokers.len();
        return Err(invalid(format!("replication is {replication}, which needs as many nodes: {live} are live")));
    }
    if let Some(defect) = request.config.defect() {
        return Err(invalid(defect));
    }
    Ok(TopicRecord {
        topic: TopicId(rand::random_range(1..=u64::MAX)),
        partitions,
        ring: RingId(replication),
        state: TopicState::Creating,
        config: request.config,
        config_version: ConfigVersion::FIRST,
        placement: BTreeMap::new(),
    })
}

/// Puts the record into its bucket, or finds the same creation under way there.
async fn enter(shared: &Shared, name: &str, wanted: TopicRecord) -> Result<TopicRecord, Refusal> {
    change_bucket(shared, name, |bucket| match bucket.topics.get(name) {
        None => {
            bucket.topics.insert(name.to_owned(), wanted.clone());
            Ok((Changed::Yes, wanted.clone()))
        }
        // Our own earlier attempt, whose outcome was unknown, or the same request again.
        Some(known) if known.topic == wanted.topic || is_same_creation(known, &wanted) => {
            Ok((Changed::No, known.clone()))
        }
        Some(_) => Err(Refusal::of(ErrorCode::TopicExists)),
    })
    .await
}

fn is_same_creation(known: &TopicRecord, wanted: &TopicRecord) -> bool {
    let shape = |record: &TopicRecord| (record.state, record.partitions, record.ring, record.config);
    shape(known) == shape(wanted)
}

/// What became of the wish to alter a topic.
enum Marked {
    /// Its record has the settings, under this version or because they were there before.
    Altering(TopicRecord),
    /// Not yet: it is still being created.
    Creating(TopicId),
}

async fn mark_altering(shared: &Shared, request: &AlterTopicRequest) -> Result<Marked, Refusal> {
    change_bucket(shared, &request.name, |bucket| {
        let record = bucket.topics.get_mut(&request.name).ok_or_else(|| Refusal::of(ErrorCode::UnknownTopic))?;
        match record.state {
            TopicState::Deleting => {
                return Err(Refusal::because(ErrorCode::UnknownTopic, "the topic is being deleted"));
            }
            TopicState::Creating => return Ok((Changed::No, Marked::Creating(record.topic))),
            TopicState::Ready | TopicState::Altering => {}
        }
        let config = request.change.applied_to(&record.config);
        if let Some(defect) = config.defect() {
            return Err(Refusal::because(ErrorCode::InvalidArgument, defect));
        }
        if config == record.config {
            return Ok((Changed::No, Marked::Altering(record.clone())));
        }
        (record.config, record.config_version) = (config, record.config_version.next());
        record.state = TopicState::Altering;
        Ok((Changed::Yes, Marked::Altering(record.clone())))
    })
    .await
}

async fn mark_deleting(shared: &Shared, name: &str) -> Result<TopicId, Refusal> {
    change_bucket(shared, name, |bucket| match bucket.topics.get_mut(name) {
        None => Err(Refusal::of(ErrorCode::UnknownTopic)),
        Some(record) if record.state == TopicState::Deleting => Ok((Changed::No, record.topic)),
        Some(record) => {
            record.state = TopicState::Deleting;
            Ok((Changed::Yes, record.topic))
        }
    })
    .await
}

enum Changed {
    Yes,
    No,
}

/// Changes a bucket by compare-and-set, from a fresh read each time; the caller's deadline bounds it.
async fn change_bucket<T>(
    shared: &Shared,
    name: &str,
    change: impl Fn(&mut TopicBucket) -> Result<(Changed, T), Refusal>,
) -> Result<T, Refusal> {
    let path = path::topic_bucket(name);
    let mut backoff = Backoff::default();
    loop {
        match try_change(shared, &path, &change).await {
            Ok(done) => return done,
            Err(CoordinationError::Conflict { .. } | CoordinationError::Exists { .. }) => {}
            Err(error @ CoordinationError::Unavailable { .. }) => {
                return Err(Refusal::because(ErrorCode::CoordinatorUnavailable, error.to_string()));
            }
            Err(CoordinationError::Malformed { reason, .. }) => {
                return Err(Refusal::because(ErrorCode::InvalidArgument, format!("the bucket of this name: {reason}")));
            }
            // Perhaps done: the next read tells.
            Err(error) => tracing::debug!(%path, %error, "trying a change of a topic again"),
        }
        backoff.wait().await;
    }
}

async fn try_change<T>(
    shared: &Shared,
    path: &str,
    change: &impl Fn(&mut TopicBucket) -> Result<(Changed, T), Refusal>,
) -> Result<Result<T, Refusal>, CoordinationError> {
    let found = shared.client.read::<TopicBucket>(path).await?;
    let (mut bucket, version) = found.map_or_else(Default::default, |(bucket, version)| (bucket, Some(version)));
    let done = match change(&mut bucket) {
        Err(refusal) => return Ok(Err(refusal)),
        Ok((Changed::No, done)) => return Ok(Ok(done)),
        Ok((Changed::Yes, done)) => done,
    };
    let version = match version {
        Some(version) => shared.client.compare_and_set(path, &bucket, version).await?,
        None => shared.client.create(path, &bucket, KeyLife::Persistent).await?.1,
    };
    shared.map.set_bucket(path, bucket, version);
    Ok(Ok(done))
}

async fn until_ready(shared: &Shared, name: &str, topic: TopicId) -> Result<TopicDescription, Refusal> {
    let mut map = shared.map.subscribe();
    loop {
        match map.borrow_and_update().topic(name).filter(|record| record.topic == topic) {
            Some(record) if matches!(record.state, TopicState::Ready | TopicState::Altering) => {
                return Ok(describe(name, record));
            }
            Some(record) if record.state == TopicState::Creating => {}
            _ => return Err(Refusal::because(ErrorCode::UnknownTopic, "the topic was deleted meanwhile")),
        }
        if map.changed().await.is_err() {
            return Err(Refusal::of(ErrorCode::ShuttingDown));
        }
    }
}

/// Waits until every partition has the settings of `altered`, or newer ones that somebody else asked for meanwhile.
async fn until_altered(shared: &Shared, name: &str, altered: &TopicRecord) -> Result<TopicDescription, Refusal> {
    let mut map = shared.map.subscribe();
    loop {
        match map.borrow_and_update().topic(name).filter(|record| record.topic == altered.topic) {
            Some(record) if record.config_version < altered.config_version => {}
            Some(record) if record.state == TopicState::Ready => return Ok(describe(name, record)),
            Some(record) if record.state == TopicState::Altering => {}
            _ => return Err(Refusal::because(ErrorCode::UnknownTopic, "the topic was deleted meanwhile")),
        }
        if map.changed().await.is_err() {
            return Err(Refusal::of(ErrorCode::ShuttingDown));
        }
    }
}

async fn until_gone(shared: &Shared, name: &str, topic: TopicId) {
    let mut map = shared.map.subscribe();
    // An error means that this gateway stops, and with it the connection that waits.
    drop(map.wait_for(|map| map.topic(name).is_none_or(|record| record.topic != topic)).await);
}
