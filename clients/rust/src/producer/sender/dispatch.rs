//! Getting a batch to the head of its range: address, connection, request, answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use minikafka_core::wire::{Api, ProduceReply, ProduceRequest, Wire};
use minikafka_core::{ErrorCode, Partition};

use super::{Attempt, Event, Sender};
use crate::connection::{Connection, PendingReply, Reply, TryRequestError};
use crate::error::{BrokerError, Error, Result};
use crate::explain::Explain;
use crate::map::RangeOwner;
use crate::overdue::{Addressed, OVERDUE};
use crate::pool::Lane as PoolLane;
use crate::producer::queue::Stored;

/// An answer may be late by this much before the connection counts as dead: the server keeps the deadline itself.
const ANSWER_SLACK: Duration = Duration::from_secs(2);

/// A connection that is not open after this counts as failed for now: a newer map may lead elsewhere.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// The map is looked at when one is not open after this: what a killed process had open may take connections for a while yet.
const CONNECT_DOUBT_AFTER: Duration = Duration::from_millis(50);

/// Why a batch was not sent.
enum NotSent {
    /// Its address cannot take it now: wait for that.
    Parked(Arc<str>),
    /// It goes to nobody now: back off, refresh, try again.
    Failed(Error),
}

impl Sender {
    /// Sends what the queue wants to be sent.
    pub(super) fn send_ready(&mut self, partition: Partition, now: Instant) {
        loop {
            let lane = &mut self.lanes[partition.0 as usize];
            if lane.is_parked {
                return;
            }
            let Some(attempt) = lane.queue.next_to_send() else { return };
            if lane.queue.get_mut(attempt.key).is_none_or(|batch| batch.sealed.is_none()) {
                return;
            }
            match self.try_send(partition, &attempt, now) {
                Ok((connection, pending, addressed)) => {
                    self.lanes[partition.0 as usize].queue.sent(&attempt);
                    self.await_answer(partition, attempt, (connection, pending, addressed), now);
                }
                Err(NotSent::Parked(address)) => {
                    self.lanes[partition.0 as usize].is_parked = true;
                    self.parked.entry(address).or_default().push(partition);
                    return;
                }
                Err(NotSent::Failed(error)) => {
                    let lane = &mut self.lanes[partition.0 as usize];
                    lane.queue.could_not_send(now, error, &mut self.resolved);
                    return;
                }
            }
        }
    }

    fn try_send(
        &mut self,
        partition: Partition,
        attempt: &Attempt,
        now: Instant,
    ) -> Result<(Connection, PendingReply, Addressed), NotSent> {
        let map = self.client.map.current();
        let lane = &mut self.lanes[partition.0 as usize];
        lane.map_version = map.version();
        let topic = &self.intake.topic;
        // The map's own description, if it is of the same topic: its placement is newer.
        let known = map.topic(&topic.name).filter(|known| known.topic == topic.topic && known.error.is_none());
        let range = map.range_of(known.unwrap_or(topic), partition);
        let Some((range, RangeOwner { address, epoch })) = range.and_then(|range| Some((range, map.owner_of(range)?)))
        else {
            let target = format!("topic {} partition {partition} has no owner in the map", topic.name);
            return Err(NotSent::Failed(Error::broker(ErrorCode::PartitionNotReady, target)));
        };
        let Some(connection) = self.client.pool.live(&address, PoolLane::Requests) else {
            self.await_connection(Addressed { address: address.clone(), range, epoch });
            return Err(NotSent::Parked(address));
        };
        let Some(sealed) = lane.queue.get_mut(attempt.key).and_then(|batch| batch.sealed.clone()) else {
            unreachable!("the caller has seen that the batch is sealed");
        };
        let mut header = sealed.header;
        (header.range, header.producer_id, header.base_sequence) = (range, attempt.producer_id, attempt.sequence);
        let timeout_ms = self.time_for(attempt, now).as_millis().clamp(1, u32::MAX.into()) as u32;
        let request = ProduceRequest { epoch, timeout_ms, header };
        let payload_bytes = sealed.body.len();
        let api = (Api::Produce, self.intake.options.explain);
        match connection.try_request_as(api, &request.to_bytes(), sealed.body) {
            Ok(pending) => Ok((connection, pending, Addressed { address, range, epoch })),
            Err(TryRequestError::Full) => {
                self.await_room(connection, payload_bytes);
                Err(NotSent::Parked(address))
            }
            Err(TryRequestError::Failed(error)) => Err(NotSent::Failed(error)),
        }
    }

    fn time_for(&self, attempt: &Attempt, now: Instant) -> Duration {
        self.intake.options.request_timeout.min(attempt.deadline.saturating_duration_since(now))
    }

    fn await_answer(
        &self,
        partition: Partition,
        attempt: Attempt,
        (connection, pending, addressed): (Connection, PendingReply, Addressed),
        now: Instant,
    ) {
        let deadline = self.time_for(&attempt, now) + ANSWER_SLACK;
        let target: Arc<str> =
            format!("topic {} partition {partition} at {}", self.intake.topic.name, connection.address()).into();
        let (client, events, sent_at) = (self.client.clone(), self.event_sender.clone(), Instant::now());
        tokio::spawn(async move {
            let answer = tokio::select! {
                answer = pending.within(Api::Produce, deadline) => answer,
                moved = client.moved(OVERDUE, std::slice::from_ref(&addressed)) => Err(moved),
            };
            let answer = match answer {
                Ok(reply) => stored(&connection, &reply, sent_at),
                Err(error) => Err(naming(target, error)),
            };
            if let Err(Error::DeadlineExceeded { .. } | Error::Malformed { .. }) = &answer {
                connection.end_because("a produce request was not answered properly in time");
            }
            // The sender may be gone: then nobody waits for this.
            let _ = events.send(Event::Answered { partition, attempt, answer });
        });
    }

    /// One task per address tells when it can be tried again.
    fn await_connection(&self, addressed: Addressed) {
        if self.parked.contains_key(&addressed.address) {
            return;
        }
        let (client, events) = (self.client.clone(), self.event_sender.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                opened = client.pool.connect_within(&addressed.address, PoolLane::Requests, CONNECT_PATIENCE) => opened.map(drop),
                moved = client.moved(CONNECT_DOUBT_AFTER, std::slice::from_ref(&addressed)) => Err(moved),
            };
            let _ = events.send(Event::Reachable { address: addressed.address, outcome });
        });
    }

    fn await_room(&self, connection: Connection, payload_bytes: usize) {
        let address = connection.address().clone();
        if self.parked.contains_key(&address) {
            return;
        }
        let events = self.event_sender.clone();
        tokio::spawn(async move {
            let outcome = connection.room(payload_bytes).await;
            let _ = events.send(Event::Reachable { address, outcome });
        });
    }

    /// Refreshes the map when the queue asks for it; true when somebody has done so since its last attempt.
    pub(super) fn follow_map(&mut self, partition: Partition, now: Instant) -> bool {
        let lane = &mut self.lanes[partition.0 as usize];
        if !lane.queue.take_map_wish() {
            return false;
        }
        if self.client.map.current().version() > lane.map_version {
            lane.queue.map_refreshed(now, &mut self.resolved);
            return true;
        }
        lane.waits_for_map = true;
        if !std::mem::replace(&mut self.is_refreshing, true) {
            let (client, seen, events) = (self.client.clone(), lane.map_version, self.event_sender.clone());
            tokio::spawn(async move {
                client.map_after(seen).await;
                let _ = events.send(Event::MapRefreshed);
            });
        }
        false
    }
}

fn stored(connection: &Connection, reply: &Reply, sent_at: Instant) -> Result<Stored> {
    let round_trip = sent_at.elapsed();
    let (ProduceReply { base_offset, append_timestamp }, told) = connection.decode_explained("produce reply", reply)?;
    let explain = told.map(|told| Arc::new(Explain { round_trip, hops: told.hops }));
    Ok(Stored { base_offset: Some(base_offset), append_timestamp: Some(append_timestamp), explain })
}

/// The same error, naming topic and partition.
fn naming(target: Arc<str>, error: Error) -> Error {
    match error {
        Error::Broker(broker) => Error::Broker(Arc::new(BrokerError { target, ..BrokerError::clone(&broker) })),
        other => other,
    }
}
