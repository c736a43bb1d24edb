//! Topics: created, described, listed, altered, deleted.

use std::time::Duration;

use minikafka_core::ErrorCode;
use minikafka_core::topic::{TopicConfig, TopicConfigChange, check_name};
use minikafka_core::wire::{
    AlterTopicRequest, Api, CreateTopicRequest, DecodeError, DeleteTopicRequest, Reader, ResolveReply, ResolveRequest,
    TopicDescription, Wire,
};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, Result};

/// How a topic is made. Set by whoever creates it; zeros leave the choice to the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicOptions {
    /// How many partitions, at most 10,000. Default: 0, the server's default.
    pub partitions: u32,
    /// Members of every chain. Default: 0, the cluster's default.
    pub replication: u16,
    /// Retention, batch size, quota. Default: keep everything, 4 MiB, no quota.
    pub config: TopicConfig,
}

/// The reply to a deletion: no fields.
struct Nothing;

impl Wire for Nothing {
    fn put(&self, _: &mut Vec<u8>) {}
    fn take(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

impl Client {
    /// Creates a topic and returns once every partition is open.
    ///
    /// # Errors
    /// [`Error::Broker`]: `topic_exists`, `invalid_topic_name`, `invalid_argument`, or what did not pass before the
    /// client's `request_timeout` (then the creation goes on); [`Error::ConnectFailed`] and the like.
    pub async fn create_topic(&self, name: &str, options: TopicOptions) -> Result<TopicDescription> {
        check(name)?;
        let (deadline, timeout_ms) = self.topic_deadline();
        let (partitions, replication, config) = (options.partitions, options.replication, options.config);
        let request = CreateTopicRequest { name: name.to_owned(), partitions, replication, config, timeout_ms };
        let mut maybe_done = false;
        let created =
            self.shared().gateways.ask_controller(Api::CreateTopic, &request, deadline, &mut maybe_done).await;
        let topic = match created {
            // An earlier attempt, whose answer was lost, may have created it: then it looks as we asked.
            Err(error) if maybe_done && error.code() == Some(ErrorCode::TopicExists) => {
                let existing = self.describe_topics(&[name]).await?.into_iter().find(|topic| topic.error.is_none());
                let is_ours = |topic: &TopicDescription| {
                    topic.config == config && (partitions == 0 || topic.partitions == partitions)
                };
                existing.filter(is_ours).ok_or(error)?
            }
            created => created?,
        };
        if let Some(code) = topic.error {
            return Err(Error::broker(code, format!("topic {name}")));
        }
        self.shared().map.learn(&topic);
        Ok(topic)
    }

    /// Changes settings of a topic and returns once every partition has them. Producers that run already keep to the batch
    /// size that they began with; a smaller one refuses their larger batches.
    ///
    /// # Errors
    /// [`Error::Broker`]: `unknown_topic`, `invalid_argument`, or what did not pass before the client's `request_timeout`
    /// (then the change goes on); [`Error::ConnectFailed`] and the like.
    pub async fn alter_topic(&self, name: &str, change: TopicConfigChange) -> Result<TopicDescription> {
        check(name)?;
        let (deadline, timeout_ms) = self.topic_deadline();
        let request = AlterTopicRequest { name: name.to_owned(), change, timeout_ms };
        // Made twice it is as made once, so it does not matter whether an attempt without an answer was carried out.
        let mut maybe_done = false;
        let topic: TopicDescription =
            self.shared().gateways.ask_controller(Api::AlterTopic, &request, deadline, &mut maybe_done).await?;
        if let Some(code) = topic.error {
            return Err(Error::broker(code, format!("topic {name}")));
        }
        self.shared().map.learn(&topic);
        Ok(topic)
    }

    /// Deletes a topic with all its records and returns once none of them can be read any more.
    ///
    /// # Errors
    /// [`Error::Broker`]: `unknown_topic`, or what did not pass before the client's `request_timeout` (then the deletion
    /// goes on); [`Error::ConnectFailed`] and the like.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        check(name)?;
        let (deadline, timeout_ms) = self.topic_deadline();
        let request = DeleteTopicRequest { name: name.to_owned(), timeout_ms };
        let mut maybe_done = false;
        let deleted: Result<Nothing> =
            self.shared().gateways.ask_controller(Api::DeleteTopic, &request, deadline, &mut maybe_done).await;
        match deleted {
            Err(error) if !(maybe_done && error.code() == Some(ErrorCode::UnknownTopic)) => return Err(error),
            _ => self.shared().map.forget(name),
        }
        Ok(())
    }

    /// Describes topics by name, in any order; one that does not exist has its `error` set.
    ///
    /// # Errors
    /// [`Error::NoGateway`].
    pub async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>> {
        self.resolve_topics(names.iter().map(|&name| name.to_owned()).collect(), false).await
    }

    /// Every topic of the cluster, ordered by name.
    ///
    /// # Errors
    /// [`Error::NoGateway`].
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>> {
        let mut topics = self.resolve_topics(Vec::new(), true).await?;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    async fn resolve_topics(&self, topics: Vec<String>, all_topics: bool) -> Result<Vec<TopicDescription>> {
        let request = ResolveRequest { topics, all_topics, with_rings: false, create_missing: false };
        let (_, reply): (_, ResolveReply) = self.shared().gateways.ask_any(Api::Resolve, &request).await?;
        Ok(reply.topics)
    }

    /// When to give up, and how long the server may take: a little less, so that its answer still arrives.
    fn topic_deadline(&self) -> (Instant, u32) {
        let timeout = self.shared().options.request_timeout;
        let server_timeout = timeout.saturating_sub(Duration::from_millis(500)).max(timeout / 2);
        (Instant::now() + timeout, u32::try_from(server_timeout.as_millis()).unwrap_or(u32::MAX))
    }
}

fn check(name: &str) -> Result<()> {
    check_name(name).map_err(|code| Error::broker(code, format!("topic {name:?}")))
}
