//! Producers of a load, one generation after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use minikafka_checker::{RecordId, payload};
use minikafka_client::core::{Partition, checksum};
use minikafka_client::{Codec, Delivery, DeliveryFuture, Error, Producer, ProducerOptions, ProducerRecord};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::Shared;

/// Generations of one producer have numbers of their own below this.
const GENERATIONS_MAX: u32 = 100_000;
/// No outage of a test is longer.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// A record on its way.
type Sent = (RecordId, DeliveryFuture);

/// Produces until told to stop.
pub(super) async fn run(shared: Arc<Shared>, number: u32) -> Result<()> {
    let mut random = shared.setup.seed.part(u64::from(number));
    for generation in 0..GENERATIONS_MAX {
        if !shared.producing.load(Ordering::Relaxed) {
            break;
        }
        let name = number * GENERATIONS_MAX + generation;
        run_generation(&shared, name, &mut random).await.with_context(|| format!("producer {name}"))?;
    }
    Ok(())
}

async fn run_generation(shared: &Arc<Shared>, name: u32, random: &mut StdRng) -> Result<()> {
    let producer = shared.client.producer(&shared.setup.topic, options(random)).await?;
    let keyed = random.random();
    let (sent, waiting) = mpsc::channel(shared.setup.unanswered_max);
    let mut answers = tokio::spawn(hear_answers(shared.clone(), waiting));
    let records = random.random_range(200..5_000);
    for sequence in 0..records {
        if !shared.producing.load(Ordering::Relaxed) {
            break;
        }
        let (record, delivery) = send(shared, &producer, name, sequence, keyed, random).await?;
        if sent.send((record, delivery)).await.is_err() {
            break;
        }
    }
    let abandoned = random.random_ratio(1, 4) && shared.producing.load(Ordering::Relaxed);
    if abandoned {
        answers.abort();
        // What was heard so far counts; a failure before the end is one.
        return match (&mut answers).await {
            Ok(heard) => heard,
            Err(ended) if ended.is_cancelled() => Ok(()),
            Err(ended) => Err(ended.into()),
        };
    }
    drop(sent);
    let closed = producer.close().await;
    answers.await??;
    Ok(closed?)
}

async fn send(
    shared: &Shared,
    producer: &Producer,
    name: u32,
    sequence: u64,
    keyed: bool,
    random: &mut StdRng,
) -> Result<Sent> {
    let partitions = shared.setup.partitions;
    let mut id = RecordId { producer: name, partition: random.random_range(0..partitions), sequence };
    let bytes = value_bytes(random);
    let (key, value);
    if keyed {
        let bytes_of_key = payload::key(id);
        id.partition = checksum::partition_of_key(&bytes_of_key, partitions).0;
        (key, value) = (Some(bytes_of_key), payload::value(id, bytes));
    } else {
        (key, value) = (None, payload::keyless_value(id, bytes));
    }
    let record = ProducerRecord {
        partition: (!keyed).then_some(Partition(id.partition)),
        key: key.as_deref(),
        value: Some(&value),
        ..ProducerRecord::default()
    };
    shared.history().attempt(id);
    Ok((id, producer.send(record).await?))
}

/// Writes down what became of records, in the order in which they were sent.
async fn hear_answers(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Sent>) -> Result<()> {
    while let Some((record, delivery)) = waiting.recv().await {
        match delivery.await {
            Ok(delivery) => shared.heard(record, &delivery),
            Err(error) => {
                if !error.is_outcome_unknown() {
                    shared.history().failed(record);
                }
                return shared.failed(format!("{record} was not delivered: {}", describe(&error)));
            }
        }
    }
    Ok(())
}

impl Shared {
    /// Writes down that a record was acknowledged.
    pub(crate) fn heard(&self, record: RecordId, delivery: &Delivery) {
        match delivery.offset {
            Some(offset) => self.history().acknowledged(record, offset.0),
            None => self.history().stored(record),
        }
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn describe(error: &Error) -> String {
    let outcome = if error.is_outcome_unknown() { "outcome unknown" } else { "certainly not stored" };
    format!("{error} ({outcome})")
}

/// Mostly small, now and then large, rarely so large that the broker receives it straight into the buffer it writes.
fn value_bytes(random: &mut StdRng) -> usize {
    match random.random_range(0..2_000) {
        0 => random.random_range(300_000..700_000),
        1..=20 => random.random_range(4_000..40_000),
        _ => random.random_range(payload::VALUE_BYTES_MIN..300),
    }
}

fn options(random: &mut StdRng) -> ProducerOptions {
    ProducerOptions {
        batch_bytes_max: 1 << random.random_range(10..=19),
        linger: Duration::from_millis(random.random_range(0..=5)),
        send_when_idle: random.random(),
        buffer_bytes_max: 4 << 20,
        delivery_timeout: DELIVERY_TIMEOUT,
        in_flight_max: random.random_range(1..=8),
        codec: [Codec::None, Codec::Lz4, Codec::Zstd][random.random_range(0..3)],
        ..ProducerOptions::default()
    }
}
