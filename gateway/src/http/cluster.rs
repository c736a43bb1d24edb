//! What is: cluster, brokers, rings, ranges, topics, read from the map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use minikafka_core::chain::controller::min_in_sync;
use minikafka_core::coordination::{OperationState, RangeRecord, RingChunk};
use minikafka_core::{Epoch, NodeId, OperationId, RangeId, RangeKey, RingId, limits};
use serde::Deserialize;

use super::error::{Code, HttpError};
use crate::admin::*;
use crate::election::Leadership;
use crate::gateway::Shared;
use crate::map::ClusterMap;

pub(super) async fn health(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Health>) {
    let leadership = shared.leadership.borrow().clone();
    let ok = leadership != Leadership::Unknown;
    let health = Health { ok, is_controller: matches!(leadership, Leadership::Mine(_)) };
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(health))
}

pub(super) async fn cluster(State(shared): State<Arc<Shared>>) -> Json<ClusterStatus> {
    let map = shared.map.current();
    let controller = match &*shared.leadership.borrow() {
        Leadership::Unknown => None,
        Leadership::Other { address, http } => {
            Some(ControllerStatus { address: address.clone(), http: http.clone(), is_this: false })
        }
        Leadership::Mine(_) => {
            let (address, http) = (shared.advertised.native.clone(), shared.advertised.http.clone());
            Some(ControllerStatus { address, http, is_this: true })
        }
    };
    let alerts = is_controller(&shared).then(|| {
        let alerts = shared.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |alert: &minikafka_core::chain::controller::Alert| AlertStatus {
            ring: alert.ring,
            ranges: alert.ranges.len(),
            first: alert.ranges.first().copied().unwrap_or_default(),
            message: alert.reason.to_string(),
        };
        alerts.values().flatten().map(shown).collect()
    });
    let rings = ring_statuses(&map);
    let running = |state| state == OperationState::Running;
    Json(ClusterStatus {
        cluster: format!("{:016x}", shared.cluster.cluster.0),
        internal_replication: shared.cluster.internal_replication,
        controller,
        brokers: map.brokers.len(),
        rings: rings.len(),
        ranges: rings.iter().map(|ring| ring.ranges as usize).sum(),
        ranges_under_replicated: rings.iter().map(|ring| ring.under_replicated).sum(),
        ranges_below_min: rings.iter().map(|ring| ring.below_min).sum(),
        topics: map.buckets.values().map(|bucket| bucket.record.topics.len()).sum(),
        operations_running: map.operations.values().filter(|at| running(at.record.state)).count(),
        alerts,
    })
}

pub(super) async fn brokers(State(shared): State<Arc<Shared>>) -> Json<BrokersStatus> {
    let map = shared.map.current();
    let mut held: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for active in map.chunks.values().flat_map(|chunk| &chunk.record.ranges).filter_map(|range| range.active.as_ref()) {
        for (place, member) in active.chain.iter().enumerate() {
            let (head, all) = held.entry(member.node).or_default();
            *head += usize::from(place == 0);
            *all += 1;
        }
    }
    let drains: BTreeMap<NodeId, OperationState> =
        map.operations.values().filter_map(|at| Some((at.record.draining()?, at.record.state))).collect();
    let nodes: BTreeSet<NodeId> = map.brokers.keys().chain(held.keys()).chain(drains.keys()).copied().collect();
    let shown = |node: NodeId| {
        let broker = map.brokers.get(&node);
        let (ranges_head, ranges_member) = held.get(&node).copied().unwrap_or_default();
        BrokerStatus {
            node,
            live: broker.is_some(),
            rack: broker.map_or_else(String::new, |broker| broker.rack.clone()),
            shards: broker.map_or_else(Vec::new, |broker| broker.shards.clone()),
            incarnation: broker.map_or_else(String::new, |broker| format!("{:016x}", broker.incarnation.0)),
            version: broker.map_or_else(String::new, |broker| broker.version.clone()),
            ranges_head,
            ranges_member,
            drain: match drains.get(&node) {
                None => DrainStatus::No,
                Some(OperationState::Running) => DrainStatus::Draining,
                Some(_) => DrainStatus::Drained,
            },
        }
    };
    Json(BrokersStatus { brokers: nodes.into_iter().map(shown).collect() })
}

pub(super) async fn rings(State(shared): State<Arc<Shared>>) -> Json<RingsStatus> {
    Json(RingsStatus { rings: ring_statuses(&shared.map.current()) })
}

/// Which ranges are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    from: u32,
    limit: Option<u32>,
}

pub(super) async fn ranges(
    State(shared): State<Arc<Shared>>,
    Path(ring): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<RangesStatus>, HttpError> {
    let Query(page) = page?;
    let map = shared.map.current();
    let unknown = || HttpError::new(Code::UnknownRing, format!("there is no ring {ring}"));
    let ring: u16 = ring.parse().map_err(|_| unknown())?;
    let total = map.ranges_total(ring).ok_or_else(unknown)?;
    let limit = page.limit.unwrap_or(limits::HTTP_RANGES_MAX).min(limits::HTTP_RANGES_MAX);
    let until = page.from.saturating_add(limit).min(total);
    let learners = is_controller(&shared).then(|| learners(&shared, ring));
    let moving = moving(&map);
    let mut ranges = Vec::new();
    for range in (page.from..until).map(RangeId) {
        let key = RangeKey { ring: RingId(ring), range };
        let Some((chunk, at)) = map.chunk_of(key) else { continue };
        let mut status = range_status(&map, &chunk.record, range, &chunk.record.ranges[at]);
        status.moving = moving.get(&key).map(|(operation, to)| MovingStatus { operation: *operation, to: to.to_vec() });
        status.learners = learners.as_ref().map(|learners| learners.get(&range).cloned().unwrap_or_default());
        ranges.push(status);
    }
    Ok(Json(RangesStatus { ring: RingId(ring), ranges, next: (until < total).then_some(RangeId(until)) }))
}

pub(super) async fn topics(State(shared): State<Arc<Shared>>) -> Json<TopicsStatus> {
    let map = shared.map.current();
    let topics = map.buckets.values().flat_map(|bucket| &bucket.record.topics);
    let mut topics: Vec<TopicStatus> = topics
        .map(|(name, topic)| TopicStatus {
            name: name.clone(),
            id: format!("{:016x}", topic.topic.0),
            partitions: topic.partitions,
            ring: topic.ring,
            state: topic.state,
            config: topic.config,
            config_version: topic.config_version,
        })
        .collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    Json(TopicsStatus { topics })
}

pub(crate) fn is_controller(shared: &Shared) -> bool {
    matches!(*shared.leadership.borrow(), Leadership::Mine(_))
}

/// Who learns which range of a ring, as the controller knows.
pub(super) fn learners(shared: &Shared, ring: u16) -> BTreeMap<RangeId, Vec<LearnerView>> {
    let all = shared.learners.lock().unwrap_or_else(PoisonError::into_inner);
    let mut of_ring: BTreeMap<RangeId, Vec<LearnerView>> = BTreeMap::new();
    for learner in all.range((ring, 0)..=(ring, u32::MAX)).flat_map(|(_, learners)| learners) {
        let view = LearnerView { node: learner.node, end: learner.end, limit: learner.limit, ready: learner.is_ready };
        of_ring.entry(learner.range).or_default().push(view);
    }
    of_ring
}

/// Moves that running operations list and that are not done.
fn moving(map: &ClusterMap) -> BTreeMap<RangeKey, (OperationId, &[NodeId])> {
    let running = map.operations.values().filter(|at| at.record.state == OperationState::Running).rev();
    let moves = running.flat_map(|at| at.record.moves.iter().map(|wanted| (at.record.operation, wanted)));
    let open = moves.filter(|(_, wanted)| !wanted.done);
    open.map(|(id, wanted)| (RangeKey { ring: wanted.ring, range: wanted.range }, (id, &wanted.to[..]))).collect()
}

fn ring_statuses(map: &ClusterMap) -> Vec<RingStatus> {
    let mut rings: BTreeMap<u16, RingStatus> = BTreeMap::new();
    for chunk in map.chunks.values().map(|chunk| &chunk.record) {
        let ring = rings.entry(chunk.ring.0).or_insert_with(|| RingStatus {
            ring: chunk.ring,
            replication: chunk.replication,
            members_min: min_in_sync(chunk.replication),
            ranges: chunk.ranges_total,
            never_active: 0,
            pending: 0,
            under_replicated: 0,
            below_min: 0,
        });
        for record in &chunk.ranges {
            let live = live(map, record);
            ring.never_active += usize::from(record.active.is_none());
            ring.pending += usize::from(record.pending.is_some());
            ring.under_replicated += usize::from(live < usize::from(chunk.replication));
            ring.below_min += usize::from(live < min_in_sync(chunk.replication));
        }
    }
    rings.into_values().collect()
}

/// A range, as far as it matters to whoever counts ranges.
pub(crate) struct RangeState {
    pub(crate) key: RangeKey,
    pub(crate) is_under_replicated: bool,
    pub(crate) is_below_min: bool,
    pub(crate) is_pending: bool,
    pub(crate) was_never_active: bool,
}

/// Every range of every ring.
pub(crate) fn range_states(map: &ClusterMap) -> impl Iterator<Item = RangeState> + '_ {
    map.chunks.values().map(|chunk| &chunk.record).flat_map(|chunk| {
        chunk.ranges.iter().enumerate().map(|(at, record)| {
            let live = live(map, record);
            RangeState {
                key: RangeKey { ring: chunk.ring, range: RangeId(chunk.first.0 + at as u32) },
                is_under_replicated: live < usize::from(chunk.replication),
                is_below_min: live < min_in_sync(chunk.replication),
                is_pending: record.pending.is_some(),
                was_never_active: record.active.is_none(),
            }
        })
    })
}

fn range_status(map: &ClusterMap, chunk: &RingChunk, range: RangeId, record: &RangeRecord) -> RangeStatus {
    let live = live(map, record);
    RangeStatus {
        range,
        epoch: record.active.as_ref().map_or(Epoch(0), |active| active.epoch),
        chain: members(map, record).collect(),
        pending: record.pending.map(|pending| pending.epoch),
        under_replicated: live < usize::from(chunk.replication),
        below_min: live < min_in_sync(chunk.replication),
        moving: None,
        learners: None,
    }
}

fn live(map: &ClusterMap, record: &RangeRecord) -> usize {
    members(map, record).filter(|member| member.live).count()
}

fn members<'a>(map: &'a ClusterMap, record: &'a RangeRecord) -> impl Iterator<Item = MemberStatus> + 'a {
    record.active.iter().flat_map(|active| &active.chain).map(|member| MemberStatus {
        node: member.node,
        shard: member.shard,
        // A process that started again is no member until its chains have it again, whatever is on its disk.
        live: map
            .brokers
            .get(&member.node)
            .is_some_and(|broker| (broker.store, broker.incarnation) == (member.store, member.incarnation)),
    })
}
