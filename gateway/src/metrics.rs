//! What a gateway tells Prometheus: the map, the controller's doings, the lag of groups, and its native port.

mod definitions;
pub(crate) mod lag;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use minikafka_core::chain::controller::{CasOutcome, Message};
use minikafka_core::coordination::OperationState;
use minikafka_core::limits;
use minikafka_metrics::Exposition;

use crate::election::Leadership;
use crate::gateway::Shared;
use crate::http::{is_controller, range_states};
use crate::map::ClusterMap;
pub use definitions::CHAPTERS;
use definitions::*;

/// Topics that are named.
const TOPICS_MAX: usize = 500;

/// What the controller did; only ever grows.
#[derive(Debug, Default)]
pub(crate) struct Actions([AtomicU64; ACTIONS_NAMES.len()]);

const ACTIONS_NAMES: [&str; 7] = ["seal", "reconcile", "activate", "learn", "cas_won", "cas_lost", "cas_unknown"];

impl Actions {
    /// A message to a shard.
    pub(crate) fn count_message(&self, message: &Message) {
        self.count(match message {
            Message::Seal(_) => 0,
            Message::Reconcile(_) => 1,
            Message::Activate(_) => 2,
            Message::Learn(_) => 3,
        });
    }

    /// A change of a ring's record.
    pub(crate) fn count_cas(&self, outcome: &CasOutcome) {
        self.count(match outcome {
            CasOutcome::Won(_) => 4,
            CasOutcome::Conflict => 5,
            CasOutcome::Unknown => 6,
        });
    }

    fn count(&self, at: usize) {
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything this gateway knows.
pub(crate) fn expose(shared: &Shared) -> Exposition {
    let mut to = Exposition::default();
    let map = shared.map.current();
    expose_cluster(&map, &mut to);
    expose_topics(&map, &mut to);
    expose_controller(shared, &mut to);
    shared.lag.lock().unwrap_or_else(PoisonError::into_inner).expose(&mut to);
    expose_gateway(shared, &mut to);
    to.merge(minikafka_metrics::process());
    to
}

fn expose_cluster(map: &ClusterMap, to: &mut Exposition) {
    let members = map.chunks.values().flat_map(|chunk| &chunk.record.ranges).filter_map(|range| range.active.as_ref());
    let members: BTreeSet<_> = members.flat_map(|active| active.chain.iter().map(|member| member.node)).collect();
    let away = members.iter().filter(|node| !map.brokers.contains_key(node)).count();
    to.add(&BROKERS, &["live"], map.brokers.len());
    to.add(&BROKERS, &["away"], away);
    let mut named = BTreeMap::from([(RANGE_UNDER_REPLICATED.name, 0), (RANGE_BELOW_MIN.name, 0)]);
    for range in range_states(map) {
        let (ring, number) = (range.key.ring.0.to_string(), range.key.range.0.to_string());
        let states = [
            ("total", true),
            ("under_replicated", range.is_under_replicated),
            ("below_min", range.is_below_min),
            ("pending", range.is_pending),
            ("never_active", range.was_never_active),
        ];
        for (state, holds) in states {
            to.add(&RING_RANGES, &[&ring, state], holds);
        }
        let troubles = [(&RANGE_UNDER_REPLICATED, range.is_under_replicated), (&RANGE_BELOW_MIN, range.is_below_min)];
        for (definition, _) in troubles.into_iter().filter(|(_, holds)| *holds) {
            let count = named.entry(definition.name).or_default();
            *count += 1;
            if *count <= limits::METRIC_TROUBLED_RANGES_MAX {
                to.add(definition, &[&ring, &number], 1_u64);
            }
        }
    }
    let running = map.operations.values().filter(|at| at.record.state == OperationState::Running).count();
    to.add(&OPERATIONS, &[], running);
}

fn expose_topics(map: &ClusterMap, to: &mut Exposition) {
    let topics: BTreeMap<_, _> = map.buckets.values().flat_map(|bucket| &bucket.record.topics).collect();
    to.add(&TOPICS, &[], topics.len());
    for (name, topic) in topics.into_iter().take(TOPICS_MAX) {
        let (id, ring) = (format!("{:016x}", topic.topic.0), topic.ring.0.to_string());
        to.add(&TOPIC_INFO, &[name, &id, &ring], topic.partitions);
    }
}

fn expose_controller(shared: &Shared, to: &mut Exposition) {
    to.add(&ELECTED, &[], is_controller(shared));
    to.add(&CONTROLLER_KNOWN, &[], *shared.leadership.borrow() != Leadership::Unknown);
    for (action, count) in ACTIONS_NAMES.iter().zip(&shared.actions.0) {
        to.add(&ACTIONS, &[action], count.load(Ordering::Relaxed));
    }
    let alerts = shared.alerts.lock().unwrap_or_else(PoisonError::into_inner);
    to.add(&ALERTS, &[], alerts.values().flatten().map(|alert| alert.ranges.len()).sum::<usize>());
    let learners = shared.learners.lock().unwrap_or_else(PoisonError::into_inner);
    to.add(&LEARNERS, &[], learners.values().map(Vec::len).sum::<usize>());
}

fn expose_gateway(shared: &Shared, to: &mut Exposition) {
    to.add(&GATEWAY_INFO, &[env!("CARGO_PKG_VERSION")], 1_u64);
    let counted = shared.counters.values();
    to.add(&CONNECTIONS, &["accepted"], counted.connections);
    to.add(&CONNECTIONS, &["refused"], counted.refused);
    to.add(&CONNECTIONS, &["malformed"], counted.malformed);
    to.add(&CONNECTIONS, &["too_slow"], counted.too_slow);
    to.add(&REQUESTS, &[], counted.requests);
    to.add(&COORDINATOR_CONNECTED, &[], shared.session.is_connected());
    for (event, count) in shared.session.events() {
        to.add(&COORDINATOR_SESSIONS, &[event], count);
    }
}
