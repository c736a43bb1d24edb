//! How much may be produced per second: to a topic on this shard, and over one connection.
//!
//! Both are token buckets with a burst of one second (`core::token_bucket`). A topic over its quota is refused and told
//! when to come again; a connection over its quota is not read for a while, which its client feels as a full socket.
//! Only buckets that are not full are kept, so the tables hold what was active within about a second.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use minikafka_core::token_bucket::TokenBucket;
use minikafka_core::{ErrorCode, TopicId, limits};
use minikafka_net::ReplyQueue;
use minikafka_storage::disk::Disk;

use crate::service::ShardService;
use crate::shard::Shard;

/// The quotas of a shard.
#[derive(Default)]
pub struct Quotas {
    topics: Buckets<TopicId>,
    connections: Buckets<Option<SocketAddr>>,
    per_connection: Cell<Option<u64>>,
}

/// Buckets by what they are for.
struct Buckets<K>(RefCell<HashMap<K, TokenBucket>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn with<T>(&self, key: K, per_second: u64, now_ns: u64, work: impl FnOnce(&mut TokenBucket) -> T) -> T {
        let mut buckets = self.0.borrow_mut();
        let bucket = buckets.entry(key).or_insert_with(|| TokenBucket::new(per_second, now_ns));
        bucket.set_rate(per_second, now_ns);
        work(bucket)
    }
}

impl Quotas {
    /// Body bytes that each connection may produce per second; none: as many as it likes.
    pub fn set_per_connection(&self, per_second: Option<u64>) {
        self.per_connection.set(per_second);
    }

    /// Whether connections have quotas.
    pub fn are_per_connection(&self) -> bool {
        self.per_connection.get().is_some()
    }

    /// Takes `bytes` of what a topic may take, or tells after how many milliseconds to ask again.
    pub fn take(&self, topic: TopicId, per_second: u64, bytes: u64, now_ns: u64) -> Result<(), u32> {
        let taken = self.topics.with(topic, per_second, now_ns, |bucket| bucket.try_take(bytes, now_ns));
        taken.map_err(|wait_ns| {
            let wait_ms = u32::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(u32::MAX);
            wait_ms.clamp(1, limits::THROTTLE_WAIT_MS_MAX)
        })
    }

    fn give_back(&self, topic: TopicId, bytes: u64) {
        // Forgotten: full, so there is nothing to give back to.
        if let Some(bucket) = self.topics.0.borrow_mut().get_mut(&topic) {
            bucket.give_back(bytes);
        }
    }

    /// Counts what a connection has produced; nanoseconds until it may be read on.
    fn connection_wait_ns(&self, peer: Option<SocketAddr>, bytes: u64, now_ns: u64) -> u64 {
        let Some(per_second) = self.per_connection.get() else { return 0 };
        self.connections.with(peer, per_second, now_ns, |bucket| {
            bucket.take(bytes, now_ns);
            bucket.wait_ns(now_ns)
        })
    }

    /// Forgets buckets that are as good as new.
    pub fn forget_full(&self, now_ns: u64) {
        self.topics.0.borrow_mut().retain(|_, bucket| !bucket.is_full(now_ns));
        self.connections.0.borrow_mut().retain(|_, bucket| !bucket.is_full(now_ns));
    }
}

/// Taken of a topic's quota for a batch; given back when dropped before it is spent.
pub struct Charge<D: Disk> {
    shard: Rc<Shard<D>>,
    topic: TopicId,
    bytes: u64,
    is_spent: bool,
}

impl<D: Disk> Charge<D> {
    /// Takes `bytes` of a topic's quota, or tells after how many milliseconds to ask again.
    pub fn take(shard: &Rc<Shard<D>>, topic: TopicId, per_second: u64, bytes: u64) -> Result<Self, u32> {
        shard.quotas.take(topic, per_second, bytes, shard.clock().monotonic_ns())?;
        Ok(Self { shard: shard.clone(), topic, bytes, is_spent: false })
    }

    /// The batch was stored (no code), or refused with a code that may leave it stored all the same.
    pub fn settle(mut self, refused: Option<ErrorCode>) {
        use ErrorCode::{RangeFailed, ShuttingDown, Stale, TimedOut};
        self.is_spent = matches!(refused, None | Some(Stale | TimedOut | RangeFailed | ShuttingDown));
    }
}

impl<D: Disk> Drop for Charge<D> {
    fn drop(&mut self) {
        if !self.is_spent {
            self.shard.quotas.give_back(self.topic, self.bytes);
        }
    }
}

impl<D: Disk> ShardService<D> {
    /// Counts what a connection has produced, and returns when it may be read on. Its replies leave meanwhile, and
    /// nobody else waits.
    pub(crate) async fn pace(&self, peer: Option<SocketAddr>, bytes: u64, connection: &ReplyQueue) {
        let shard = &self.shard;
        let mut wait_ns = shard.quotas.connection_wait_ns(peer, bytes, shard.clock().monotonic_ns());
        shard.metrics.connection_pauses.add(u64::from(wait_ns > 0));
        while wait_ns > 0 && !self.stopping.get() && connection.is_open() {
            let look = Duration::from_millis(limits::QUOTA_LOOK_MS);
            shard.disk().sleep(Duration::from_nanos(wait_ns).min(look)).await;
            wait_ns = shard.quotas.connection_wait_ns(peer, 0, shard.clock().monotonic_ns());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_topic_over_its_quota_is_told_when_to_come_again_and_others_are_not_concerned() {
        let quotas = Quotas::default();
        assert_eq!(quotas.take(TopicId(1), 1_000, 1_500, 0), Ok(()), "what is too much is owed");
        assert_eq!(quotas.take(TopicId(1), 1_000, 1, 0), Err(501));
        assert_eq!(quotas.take(TopicId(2), 1_000, 1, 0), Ok(()));
        assert_eq!(quotas.take(TopicId(1), 1_000, 1, SECOND_NS), Ok(()));
        assert_eq!(quotas.take(TopicId(3), 1, 1_000_000, 0), Ok(()));
        assert_eq!(
            quotas.take(TopicId(3), 1, 1, 0),
            Err(limits::THROTTLE_WAIT_MS_MAX),
            "a client comes and asks again"
        );
        // Altered, the quota holds from now on: what is owed is paid at the new rate.
        assert_eq!(quotas.take(TopicId(3), 10_000_000, 1, SECOND_NS), Err(100));
    }

    #[test]
    fn what_was_taken_for_nothing_is_given_back() {
        let quotas = Quotas::default();
        assert_eq!(quotas.take(TopicId(1), 1_000, 2_000, 0), Ok(()));
        quotas.give_back(TopicId(1), 2_000);
        assert_eq!(quotas.take(TopicId(1), 1_000, 1_000, 0), Ok(()));
        assert!(quotas.take(TopicId(1), 1_000, 1, 0).is_err(), "no more than there was");
    }

    #[test]
    fn idle_buckets_are_forgotten_and_active_ones_are_not() {
        let quotas = Quotas::default();
        quotas.set_per_connection(Some(1_000));
        assert!(quotas.connection_wait_ns(None, 1_000, 0) > 0, "the burst is used up");
        assert_eq!(quotas.take(TopicId(1), 1_000, 5_000, 0), Ok(()));
        quotas.forget_full(2 * SECOND_NS);
        assert_eq!((quotas.topics.0.borrow().len(), quotas.connections.0.borrow().len()), (1, 0));
        assert!(quotas.take(TopicId(1), 1_000, 1, 2 * SECOND_NS).is_err(), "its debt is not forgotten");
        quotas.forget_full(6 * SECOND_NS);
        assert_eq!(quotas.topics.0.borrow().len(), 0);
    }
}
