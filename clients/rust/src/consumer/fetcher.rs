//! The fetcher of a consumer: one task that makes the requests which `progress` plans, and hands it the answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use minikafka_core::wire::{Api, FetchPartition, FetchReply, Wire};
use tokio::sync::{Notify, mpsc};

use super::entries::verified;
use super::progress::{PartitionAnswer, Progress, ShardFetch};
use crate::client::ClientShared;
use crate::error::{Error, Result};
use crate::explain::Explain;
use crate::overdue::{Addressed, OVERDUE};
use crate::pool::Lane;

/// An answer may be late by this much, beyond what the shard was asked to wait, before its connection counts as dead.
const ANSWER_SLACK: Duration = Duration::from_secs(10);
/// A connection that is not open after this counts as failed for now.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// A partition with less than one in so many bytes of an answer gets a copy of them, so that its few bytes do not keep
/// the whole answer in memory.
const SLICE_SHARE: usize = 4;

/// What a consumer shares with its fetcher.
#[derive(Debug)]
pub(super) struct Shared {
    progress: Mutex<Progress>,
    /// The application has taken something, or wants something else.
    pub wake_fetcher: Notify,
    /// There may be something for the application: in this topic, or in another one of the same group.
    pub ready: Arc<Notify>,
}

impl Shared {
    pub(super) fn new(progress: Progress, ready: Arc<Notify>) -> Self {
        Self { progress: Mutex::new(progress), wake_fetcher: Notify::new(), ready }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event for the fetcher. Bounded by the requests in flight.
enum Event {
    Answered { fetch: ShardFetch, sent_at: Instant, answer: Result<Vec<PartitionAnswer>> },
    MapRefreshed,
}

/// However the fetcher ends, an application that waits for it must look again.
struct TellEnd(Arc<Shared>);

impl Drop for TellEnd {
    fn drop(&mut self) {
        self.0.ready.notify_one();
    }
}

/// Fetches until the task is aborted.
pub(super) async fn fetch_ahead(client: Arc<ClientShared>, shared: Arc<Shared>) {
    let _tell_end = TellEnd(shared.clone());
    let (event_sender, mut events) = mpsc::unbounded_channel();
    let mut is_refreshing = false;
    loop {
        let now = Instant::now();
        let map = client.map.current();
        let (fetches, outdated_map, wake_at) = {
            let mut progress = shared.progress();
            (progress.plan(now, &map), progress.take_map_wish(), progress.wake_at(now))
        };
        for fetch in fetches {
            let (client, events) = (client.clone(), event_sender.clone());
            tokio::spawn(async move {
                let sent_at = Instant::now();
                let answer = ask(&client, &fetch).await;
                // The consumer may be gone.
                let _ = events.send(Event::Answered { fetch, sent_at, answer });
            });
        }
        if let Some(seen) = outdated_map.filter(|seen| map.version() <= *seen)
            && !std::mem::replace(&mut is_refreshing, true)
        {
            let (client, events) = (client.clone(), event_sender.clone());
            tokio::spawn(async move {
                client.map_after(seen).await;
                let _ = events.send(Event::MapRefreshed);
            });
        }
        tokio::select! {
            Some(event) = events.recv() => match event {
                Event::Answered { fetch, sent_at, answer } => {
                    shared.progress().absorb(Instant::now(), sent_at, fetch, answer);
                    shared.ready.notify_one();
                }
                Event::MapRefreshed => is_refreshing = false,
            },
            () = shared.wake_fetcher.notified() => {}
            () = tokio::time::sleep_until(wake_at.unwrap_or(now).into()), if wake_at.is_some() => {}
        }
    }
}

/// Makes one request and verifies its answer.
async fn ask(client: &ClientShared, fetch: &ShardFetch) -> Result<Vec<PartitionAnswer>> {
    let connection = client.pool.connect_within(&fetch.address, Lane::Fetches, CONNECT_PATIENCE).await?;
    let wait = Duration::from_millis(fetch.request.wait_ms_max.into());
    let head = fetch.request.to_bytes();
    let addressed: Vec<Addressed> = fetch.request.partitions.iter().map(|asked| addressed(fetch, asked)).collect();
    let sent_at = Instant::now();
    let answer = tokio::select! {
        answer = connection.request_as((Api::Fetch, fetch.explain), &head, Bytes::new(), wait + ANSWER_SLACK) => answer,
        moved = client.moved(wait + OVERDUE, &addressed) => Err(moved),
    };
    let answers = answer.and_then(|reply| {
        let round_trip = sent_at.elapsed();
        let (fetched, told) = connection.decode_explained("fetch reply", &reply)?;
        let explain = told.map(|told| Arc::new(Explain { round_trip, hops: told.hops }));
        answers(fetch, fetched, &reply.bulk, explain.as_ref())
            .map_err(|reason| Error::malformed(&fetch.address, "fetch reply", reason))
    });
    if let Err(Error::DeadlineExceeded { .. } | Error::Malformed { .. }) = &answers {
        connection.end_because("a fetch was not answered properly in time");
    }
    answers
}

fn addressed(fetch: &ShardFetch, asked: &FetchPartition) -> Addressed {
    Addressed { address: fetch.address.clone(), range: asked.range, epoch: asked.epoch }
}

/// Cuts an answer into those of its partitions.
fn answers(
    fetch: &ShardFetch,
    reply: FetchReply,
    bulk: &Bytes,
    explain: Option<&Arc<Explain>>,
) -> Result<Vec<PartitionAnswer>, &'static str> {
    let asked = fetch.request.partitions.iter().map(|asked| asked.partition);
    if !reply.partitions.iter().map(|fetched| fetched.partition).eq(asked) {
        return Err("it is about other partitions than were asked for");
    }
    let total: u64 = reply.partitions.iter().map(|fetched| u64::from(fetched.entries_bytes)).sum();
    if total != bulk.len() as u64 {
        return Err("its partitions' bytes do not add up to the bytes that came");
    }
    let mut at = 0;
    let answer = |(fetched, asked): (minikafka_core::wire::FetchedPartition, &super::progress::Asked)| {
        let end = at + fetched.entries_bytes as usize;
        let mut bytes = bulk.slice(at..end);
        at = end;
        if bytes.len() < bulk.len() / SLICE_SHARE {
            bytes = Bytes::copy_from_slice(&bytes);
        }
        let (mut entries, damage) = verified(&bytes, fetched.partition, asked.position);
        if explain.is_some() {
            entries.iter_mut().for_each(|entry| entry.explain = explain.cloned());
        }
        PartitionAnswer { fetched, entries, damage }
    };
    Ok(reply.partitions.into_iter().zip(&fetch.asked).map(answer).collect())
}
