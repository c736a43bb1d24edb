//! One small record after the other to each partition, so that it is known to the millisecond when writes stop and resume.
//!
//! A probe sends its next record when the last one is acknowledged, so the first one sent after a fault is acknowledged by
//! whoever owns the partition then. Probes are producers like the others: their records are in the history.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use minikafka_checker::{RecordId, payload};
use minikafka_client::core::Partition;
use minikafka_client::{Client, Producer, ProducerOptions, ProducerRecord};
use tokio::task::JoinSet;

use crate::load::Shared;

/// Between an acknowledgement and the next record: what the times are good for.
const INTERVAL: Duration = Duration::from_millis(2);
/// Bytes of a record.
const VALUE_BYTES: usize = 100;
/// Above the numbers of all other producers.
const FIRST_PRODUCER: u32 = 4_000_000_000;

/// A record that was acknowledged: when it was sent, and when the answer was there.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Handed to the producer.
    pub sent: Instant,
    /// The answer was there.
    pub heard: Instant,
}

/// Probes of all partitions at work.
#[derive(Debug)]
pub struct Probes {
    acknowledged: Vec<Arc<Mutex<Vec<Acknowledged>>>>,
    running: Arc<AtomicBool>,
    tasks: JoinSet<Result<()>>,
}

impl Probes {
    /// Starts a probe of each partition of the load's topic, by a client of their own.
    pub(crate) async fn start(shared: &Arc<Shared>) -> Result<Self> {
        let client = Client::builder(&shared.setup.gateways).client_name("probe").connect().await?;
        let running = Arc::new(AtomicBool::new(true));
        let mut probes = Self { acknowledged: Vec::new(), running, tasks: JoinSet::new() };
        for partition in 0..shared.setup.partitions {
            let acknowledged = Arc::<Mutex<Vec<Acknowledged>>>::default();
            probes.acknowledged.push(acknowledged.clone());
            let producer = client.producer(&shared.setup.topic, ProducerOptions::default()).await?;
            probes.tasks.spawn(probe(shared.clone(), producer, partition, acknowledged, probes.running.clone()));
        }
        Ok(probes)
    }

    /// The first record of a partition that was sent after a moment and is acknowledged.
    pub fn first_after(&self, partition: u32, moment: Instant) -> Option<Acknowledged> {
        let all = self.acknowledged[partition as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.partition_point(|acknowledged| acknowledged.sent < moment);
        all.get(first).copied()
    }

    /// How many records of a partition are acknowledged.
    pub fn count(&self, partition: u32) -> usize {
        self.acknowledged[partition as usize].lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Fails with the error of a probe that has ended by itself.
    pub async fn check(&mut self) -> Result<()> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.context("a probe panicked")??;
            ensure!(!self.running.load(Ordering::Relaxed), "a probe ended by itself");
        }
        Ok(())
    }

    /// Lets every probe hear of its last record, and ends it.
    pub async fn stop(&mut self) -> Result<()> {
        self.running.store(false, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a probe panicked")??;
        }
        Ok(())
    }
}

async fn probe(
    shared: Arc<Shared>,
    producer: Producer,
    partition: u32,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    running: Arc<AtomicBool>,
) -> Result<()> {
    for sequence in 0.. {
        if !running.load(Ordering::Relaxed) {
            break;
        }
        let record = RecordId { producer: FIRST_PRODUCER + partition, partition, sequence };
        let value = payload::keyless_value(record, VALUE_BYTES);
        shared.history().attempt(record);
        let sent = Instant::now();
        let delivery = producer.send(ProducerRecord::value(&value).to(Partition(partition))).await?;
        let delivery = delivery.await.with_context(|| format!("the probe's {record}"))?;
        let heard = Instant::now();
        shared.heard(record, &delivery);
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Acknowledged { sent, heard });
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(producer.close().await?)
}
