//! Consumers of a load, one session after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use minikafka_checker::SessionId;
use minikafka_client::core::{Offset, Partition};
use minikafka_client::{Consumer, ConsumerOptions};
use rand::Rng;
use rand::rngs::StdRng;

use super::{LOOK_INTERVAL, Shared};

/// Parts of the seed from here on are the consumers'.
const SEED_PARTS: u64 = 1 << 32;

/// Where to go on, per partition.
type Positions = BTreeMap<Partition, Offset>;

/// Consumes until told to stop.
pub(super) async fn run(shared: Arc<Shared>, number: u32) -> Result<()> {
    let mut random = shared.setup.seed.part(SEED_PARTS + u64::from(number));
    let beginning: Positions =
        (0..shared.setup.partitions).map(|partition| (Partition(partition), Offset(0))).collect();
    let mut positions = beginning.clone();
    let mut session = 0;
    while shared.consuming.load(Ordering::Relaxed) {
        session += 1;
        let name = format!("consumer {number}, session {session}");
        run_session(&shared, &name, &mut positions, &mut random).await.context(name)?;
        if random.random_ratio(1, 8) {
            positions = beginning.clone();
        }
    }
    Ok(())
}

async fn run_session(shared: &Shared, name: &str, positions: &mut Positions, random: &mut StdRng) -> Result<()> {
    let options = ConsumerOptions {
        start_offsets: positions.clone(),
        prefetch_bytes_max: 1 << random.random_range(18..=23),
        partition_fetch_bytes_max: 1 << random.random_range(12..=20),
        ..ConsumerOptions::default()
    };
    let mut consumer = shared.client.consumer(&shared.setup.topic, options).await?;
    let sessions: BTreeMap<Partition, SessionId> = {
        let mut history = shared.history();
        positions.iter().map(|(&partition, at)| (partition, history.session(name, partition.0, at.0))).collect()
    };
    for _ in 0..random.random_range(1_000..50_000) {
        let Some(record) = next(shared, &mut consumer).await? else { break };
        let session = sessions[&record.partition];
        shared.history().read(session, record.offset.0, record.key.as_deref(), record.value.as_deref());
        positions.insert(record.partition, Offset(record.offset.0 + 1));
        shared.read.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The next record, or none when it is time to stop.
async fn next(shared: &Shared, consumer: &mut Consumer) -> Result<Option<minikafka_client::ConsumerRecord>> {
    while shared.consuming.load(Ordering::Relaxed) {
        if let Ok(record) = tokio::time::timeout(LOOK_INTERVAL * 20, consumer.next()).await {
            return Ok(Some(record?));
        }
    }
    Ok(None)
}
