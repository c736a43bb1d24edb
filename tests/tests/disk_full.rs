//! A disk that fills up: writes are refused with `disk_full` before the reserve is used, reads go on, and once there is
//! space the same producers resume by themselves, with nothing lost.
//!
//! The data directory is on an ext4 file system of its own, in a sparse file behind a loop device, that this test makes,
//! mounts and unmounts. That takes root and a loop device: without them the test says so and does nothing. What a full disk
//! does to the log by itself is in `storage/tests/crash.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use minikafka_client::core::limits::DISK_RESERVE_BYTES_DEFAULT;
use minikafka_client::{Client, ProducerOptions, ProducerRecord};
use minikafka_tests::cluster::disk::{self, SmallDisk};
use minikafka_tests::load::{Load, LoadSetup};
use minikafka_tests::process::{self, NodeSetup};
use minikafka_tests::seed::Seed;

/// Space that is left above the broker's reserve while the disk is nearly full: one segment of the smallest size, and not
/// the one after it, which is twice as large.
const SLACK_BYTES: u64 = 20 << 20;
/// Records of the probe that its first segment cannot hold.
const PROBE_RECORDS: usize = 20;
const TOPIC: &str = "full";
const PATIENCE: Duration = Duration::from_secs(120);

/// Unmounted with this handle, whatever happened.
struct Mounted(SmallDisk);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.0.unmount() {
            println!("still mounted: {error:#}");
        }
    }
}

/// What a producer of its own is told, with little patience, once its segment is full; none while it is not.
async fn refusal(gateway: &str) -> Result<Option<String>> {
    let client = Client::builder([gateway]).connect().await?;
    let options = ProducerOptions { delivery_timeout: Duration::from_secs(2), ..ProducerOptions::default() };
    let producer = client.producer("probe", options).await?;
    let value = vec![7; 1_000_000];
    for _ in 0..PROBE_RECORDS {
        let record = ProducerRecord { value: Some(&value), ..Default::default() };
        if let Err(error) = producer.send(record).await?.await {
            return Ok(Some(error.to_string()));
        }
    }
    Ok(None)
}

/// Waits until nothing more is acknowledged, and a producer is told why.
async fn wait_until_full(load: &mut Load, gateway: &str) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        ensure!(Instant::now() < deadline, "the disk never fills up");
        load.check().await?;
        let before = load.acknowledged();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if load.acknowledged() > before {
            continue;
        }
        if let Some(said) = refusal(gateway).await? {
            ensure!(said.contains("disk_full"), "refused for another reason: {said}");
            if load.acknowledged() == before {
                return Ok(before);
            }
        }
    }
}

/// Everything that was acknowledged can be read while the disk is full.
async fn read_all(gateway: &str, at_least: u64) -> Result<()> {
    let client = Client::builder([gateway]).connect().await?;
    let mut consumer = client.consumer(TOPIC, minikafka_client::ConsumerOptions::default()).await?;
    let mut read = 0;
    while read < at_least {
        let batch = tokio::time::timeout(PATIENCE, consumer.next_batch()).await.context("reads do not go on")??;
        read += batch.records().count() as u64;
    }
    Ok(())
}

async fn fill_and_resume(setup: &NodeSetup, disk: &SmallDisk, seed: Seed) -> Result<()> {
    let client = Client::builder([&setup.gateway()]).connect().await?;
    let one = minikafka_client::TopicOptions { partitions: 1, ..minikafka_client::TopicOptions::default() };
    client.create_topic("probe", one).await?;
    disk.add_ballast(DISK_RESERVE_BYTES_DEFAULT + SLACK_BYTES)?;
    let mut load = Load::start(LoadSetup {
        gateways: vec![setup.gateway()],
        topic: TOPIC.to_owned(),
        partitions: 1,
        replication: 0,
        producers: 3,
        consumers: 1,
        unanswered_max: 400,
        seed,
    })
    .await?;
    let acknowledged = wait_until_full(&mut load, &setup.gateway()).await?;
    let free = disk.free_bytes()?;
    ensure!(free >= DISK_RESERVE_BYTES_DEFAULT, "the reserve is not used: {free} bytes are free");
    read_all(&setup.gateway(), acknowledged).await?;
    ensure!(load.acknowledged() == acknowledged, "nothing is acknowledged while the disk is full");
    disk.drop_ballast()?;
    load.progress(1_000).await.context("after space came back")?;
    let report = load.finish().await?;
    report.assert_clean(&seed.to_string());
    ensure!(report.acknowledged as u64 > acknowledged, "the same producers went on: {report}");
    println!("full after {acknowledged} records; {report}");
    Ok(())
}

#[test]
fn a_full_disk_refuses_serves_and_recovers_by_itself() {
    let seed = Seed::from_environment();
    let run = || -> Result<()> {
        let directory = process::directory()?;
        if let Some(refusal) = disk::small_disk_refusal() {
            println!("skipped: {refusal}");
            return Ok(());
        }
        let mount = directory.path().join("disk");
        let disk = Mounted(SmallDisk::make(&directory.path().join("image"), &mount)?);
        let mut setup = NodeSetup::new(&mount, "dev")?;
        setup.cores = 1;
        let node = setup.start()?;
        let runtime = tokio::runtime::Runtime::new()?;
        let done = runtime.block_on(fill_and_resume(&setup, &disk.0, seed));
        let done = done.with_context(|| format!("the end of the broker's log:\n{}", node.log_end()));
        node.kill()?;
        done
    };
    run().unwrap_or_else(|error| panic!("{error:#}\nreplay: {seed}"));
}
