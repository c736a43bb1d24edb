//! One record after the other to some partitions, so that it is known when writes stop and resume.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use minikafka_client::core::{Partition, RangeId, RingId};
use minikafka_client::{Client, Producer, ProducerOptions, ProducerRecord};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{REPLICATION, TOPIC};
use crate::in_process::LOOK;

/// Between two records of a probe.
const PROBE_PAUSE: Duration = Duration::from_millis(1);
const VALUE: &[u8] = &[7; 100];

/// One record after the other to each of some partitions.
pub struct Probes {
    /// Of each probe's partition.
    pub ranges: Vec<RangeId>,
    /// When the last record was acknowledged.
    last: Arc<Vec<Mutex<Vec<Instant>>>>,
    changed: Arc<Notify>,
}

impl Probes {
    /// Starts probes of the first partitions of the topic, which run until `stop`.
    ///
    /// # Errors
    /// The topic is not known, or no gateway answers.
    ///
    /// # Panics
    /// The topic is in another ring.
    pub async fn start(client: &Client, count: u32, stop: &Arc<AtomicBool>) -> Result<Self> {
        let producer = Arc::new(client.producer(TOPIC, ProducerOptions::default()).await?);
        let (map, topic) = (client.refresh_map().await?, client.topic(TOPIC).await?);
        let range = |partition| map.range_of(&topic, Partition(partition)).map(|key| key.range);
        let ranges: Vec<RangeId> = (0..count).filter_map(range).collect();
        assert_eq!(topic.ring, RingId(REPLICATION), "the topic is in the ring of three");
        let last: Arc<Vec<Mutex<Vec<Instant>>>> = Arc::new((0..count).map(|_| Mutex::default()).collect());
        let changed = Arc::new(Notify::new());
        for partition in 0..count {
            let (producer, stop) = (producer.clone(), stop.clone());
            let (last, changed) = (last.clone(), changed.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if acknowledged(&producer, partition).await.is_ok() {
                        let mut times = last[partition as usize].lock().unwrap_or_else(PoisonError::into_inner);
                        times.push(Instant::now());
                        changed.notify_waiters();
                    }
                    sleep(PROBE_PAUSE).await;
                }
            });
        }
        Ok(Self { ranges, last, changed })
    }

    /// Of all probes: the times between two acknowledgements that follow each other, since they were asked last. What a
    /// client would see is this, less the pause between two records.
    pub fn take_gaps(&self) -> Vec<Duration> {
        let taken = |times: &Mutex<Vec<Instant>>| -> Vec<Duration> {
            let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let done = times.len().saturating_sub(1);
            times.drain(..done);
            gaps
        };
        self.last.iter().flat_map(taken).collect()
    }

    /// When the first record behind this time was acknowledged.
    pub async fn acknowledged_after(&self, probe: usize, after: Instant) -> Instant {
        loop {
            let changed = self.changed.notified();
            {
                let mut times = self.last[probe].lock().unwrap_or_else(PoisonError::into_inner);
                let at = times.partition_point(|time| *time <= after);
                times.drain(..at);
                if let Some(first) = times.first() {
                    return *first;
                }
            }
            // Also looks by itself: a notice between the two is missed otherwise.
            let _ = timeout(LOOK, changed).await;
        }
    }
}

async fn acknowledged(producer: &Producer, partition: u32) -> minikafka_client::Result<()> {
    producer.send(ProducerRecord::value(VALUE).to(Partition(partition))).await?.await.map(drop)
}
