//! How much a plan copies: one live member of each range is asked how much it holds. Who does not answer leaves a size unknown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::coordination::{BrokerRecord, RangeMove};
use minikafka_core::wire::{Api, MeasureReply, MeasureRequest};
use minikafka_core::{RangeId, RangeKey, ShardId, limits};
use tokio::task::JoinSet;

use super::plan::key;
use crate::gateway::Shared;
use crate::map::ClusterMap;

/// Bytes of ranges, as far as they are known.
pub(crate) type Sizes = BTreeMap<RangeKey, u64>;

/// Asks for the sizes of all ranges that get a newcomer, each shard once and all at the same time.
pub(crate) async fn of_moves(shared: &Arc<Shared>, moves: &[RangeMove]) -> Sizes {
    let map = shared.map.current();
    let mut questions: BTreeMap<_, (BrokerRecord, MeasureRequest)> = BTreeMap::new();
    for wanted in moves.iter().filter(|wanted| newcomers(wanted) > 0) {
        let Some((broker, shard)) = member(&map, key(wanted)) else { continue };
        let empty = || (broker.clone(), MeasureRequest { ring: wanted.ring, ranges: Vec::new() });
        questions.entry((broker.node, shard, wanted.ring)).or_insert_with(empty).1.ranges.push(wanted.range);
    }
    let mut asking = JoinSet::new();
    for ((_, shard, ring), (broker, request)) in questions {
        let shared = Arc::clone(shared);
        asking.spawn(async move { (ring, ask(&shared, &broker, shard, &request).await) });
    }
    let mut sizes = Sizes::new();
    while let Some(asked) = asking.join_next().await {
        let (ring, measured) = asked.unwrap_or_default();
        sizes.extend(measured.into_iter().map(|(range, bytes)| (RangeKey { ring, range }, bytes)));
    }
    sizes
}

/// What the newcomers of a move copy, if that is known.
pub(crate) fn to_copy(sizes: &Sizes, wanted: &RangeMove) -> Option<u64> {
    match newcomers(wanted) {
        0 => Some(0),
        newcomers => sizes.get(&key(wanted)).map(|bytes| bytes.saturating_mul(newcomers)),
    }
}

/// How long moves of so many bytes take, when each begins as soon as one of `at_once` places is free.
pub(crate) fn expected_ms(moves: &[u64], at_once: u16) -> u64 {
    let mut places = vec![0u64; usize::from(at_once).max(1)];
    for bytes in moves {
        if let Some(place) = places.iter_mut().min() {
            *place = place.saturating_add(move_ms(*bytes));
        }
    }
    places.into_iter().max().unwrap_or_default()
}

/// Copying, and noticing that it is done.
fn move_ms(bytes: u64) -> u64 {
    let notice_ms = 2 * limits::PROGRESS_POLL_MS;
    notice_ms.saturating_add(bytes.saturating_mul(1_000) / limits::COPY_BYTES_PER_SECOND_ASSUMED)
}

fn newcomers(wanted: &RangeMove) -> u64 {
    wanted.to.iter().filter(|node| !wanted.from.contains(node)).count() as u64
}

/// The member from which newcomers copy, too: the last one that is there.
fn member(map: &ClusterMap, range: RangeKey) -> Option<(&BrokerRecord, ShardId)> {
    let (chunk, at) = map.chunk_of(range)?;
    let chain = &chunk.record.ranges[at].active.as_ref()?.chain;
    chain.iter().rev().find_map(|member| {
        let broker = map.brokers.get(&member.node).filter(|broker| broker.incarnation == member.incarnation)?;
        Some((broker, member.shard))
    })
}

async fn ask(shared: &Shared, broker: &BrokerRecord, shard: ShardId, request: &MeasureRequest) -> Vec<(RangeId, u64)> {
    let wait = Duration::from_millis(limits::MEASURE_WAIT_MS);
    match shared.links.call::<_, MeasureReply>(broker, shard, Api::Measure, request, wait).await {
        Ok(reply) => {
            let measured = reply.ranges.into_iter().filter(|range| range.error.is_none());
            measured.map(|range| (range.range, range.bytes)).collect()
        }
        Err(error) => {
            tracing::debug!(node = broker.node.0, shard = shard.0, %error, "a shard did not tell sizes");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minikafka_core::{NodeId, RingId};

    #[test]
    fn ranges_are_copied_as_soon_as_there_is_room() {
        let second = limits::COPY_BYTES_PER_SECOND_ASSUMED;
        let one_ms = 1_000 + 2 * limits::PROGRESS_POLL_MS;
        assert_eq!(expected_ms(&[], 4), 0);
        assert_eq!(expected_ms(&[second; 3], 1), 3 * one_ms);
        assert_eq!(expected_ms(&[second; 3], 2), 2 * one_ms);
        assert_eq!(expected_ms(&[second; 3], 9), one_ms);
        assert_eq!(expected_ms(&[0; 8], 4), 4 * limits::PROGRESS_POLL_MS, "that there is nothing is noticed as soon");
    }

    #[test]
    fn every_newcomer_copies_and_a_reorder_copies_nothing() {
        let wanted = |to: &[u32]| RangeMove {
            ring: RingId(3),
            range: RangeId(1),
            from: vec![NodeId(1), NodeId(2), NodeId(3)],
            to: to.iter().copied().map(NodeId).collect(),
            done: false,
        };
        let sizes = Sizes::from([(RangeKey { ring: RingId(3), range: RangeId(1) }, 10)]);
        assert_eq!(to_copy(&sizes, &wanted(&[4, 5, 1])), Some(20));
        assert_eq!(to_copy(&Sizes::new(), &wanted(&[4, 2, 3])), None);
        assert_eq!(to_copy(&Sizes::new(), &wanted(&[3, 2, 1])), Some(0));
    }
}
