//! The monitoring that is shipped, against a real cluster under load: a real Prometheus scrapes three brokers and two
//! gateways, every query of every dashboard has an answer, every rule can be evaluated and asks for series that are there; and
//! when a broker is killed, the alerts that say so fire, for that broker and no other.
//!
//! Only waiting is shortened: Prometheus looks every second, and alerts fire after two (`Watching`); in dashboards,
//! `$__rate_interval` is 20 s. Where there is no Prometheus, nothing is tested, and that is said.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use minikafka_client::core::group::GroupName;
use minikafka_client::core::wire::{Api, CommittedOffset, GroupCommitReply, GroupCommitRequest};
use minikafka_client::core::{GroupGeneration, GroupSequence, MemberId, Offset, Partition, PartitionKey};
use minikafka_client::{Client, ConsumerOptions, ProducerOptions, ProducerRecord, StartAt, TopicOptions};
use minikafka_tests::cluster::monitoring::{self, Prometheus, Watching};
use minikafka_tests::cluster::{BROKER_HTTP_PORT, Cluster, ClusterSetup, Member};
use minikafka_tests::{process, source};
use serde_json::Value;
use tokio::time::sleep;

/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(300);
const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const PARTITIONS: u32 = 4;
/// Between two records: load, not a measurement.
const PAUSE: Duration = Duration::from_millis(5);
/// What is recorded only while something is wrong: a disk that does not fill has no time left.
const MAY_BE_EMPTY: [&str; 1] = ["minikafka:disk_left:seconds"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboards_and_alerts_say_what_happens_to_a_real_cluster() -> Result<()> {
    if monitoring::program("prometheus")?.is_none() {
        println!("skipped: {}", monitoring::HOW_TO_INSTALL);
        return Ok(());
    }
    let directory = process::directory()?;
    let setup = ClusterSetup {
        session_timeout: Duration::from_secs(2),
        ..ClusterSetup::new(&directory.path().join("cluster"))?
    };
    let mut cluster = Cluster::up(&setup)?;
    let watching = Watching {
        interval: Duration::from_secs(1),
        for_max: Some(Duration::from_secs(2)),
        port: process::free_ports(1)?,
    };
    let prometheus = Prometheus::start(&cluster, watching)?;
    let client = Client::builder(cluster.gateways()).connect().await?;
    client.create_topic(TOPIC, TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() }).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load =
        [tokio::spawn(produce(client.clone(), stop.clone())), tokio::spawn(consume(client.clone(), stop.clone()))];

    every_query_is_answered(&prometheus)?;
    nothing_fires(&prometheus)?;

    let victim = format!("{}:{BROKER_HTTP_PORT}", cluster.network().address(Member::Broker(3)));
    cluster.kill(Member::Broker(3))?;
    let down = |samples: &[monitoring::Sample]| {
        let instances: Vec<&str> =
            samples.iter().filter_map(|(labels, _)| Some(labels.get("instance")?.as_str())).collect();
        instances == [victim.as_str()]
    };
    await_query(&prometheus, &firing("MiniKafkaBrokerDown"), down)?;
    await_query(&prometheus, &firing("MiniKafkaRangeUnderReplicated"), |samples| samples.len() == 1)?;
    let others = "ALERTS{alertstate=\"firing\",alertname=~\"MiniKafka(Durable.*|Rot|DiskFilling|Gateway.*|NoController|CoordinatorLost)\"}";
    ensure!(prometheus.query(others)?.is_empty(), "only what happened is told: {:?}", prometheus.query(others)?);

    cluster.start(Member::Broker(3))?;
    await_query(&prometheus, &firing("MiniKafkaBrokerDown"), <[_]>::is_empty)?;
    await_query(&prometheus, &firing("MiniKafkaRangeUnderReplicated"), <[_]>::is_empty)?;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await??;
    }
    cluster.down()
}

fn firing(alert: &str) -> String {
    format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}")
}

/// Records to all partitions, until told to stop.
async fn produce(client: Client, stop: Arc<AtomicBool>) -> Result<()> {
    let producer = client.producer(TOPIC, ProducerOptions::default()).await?;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let value = b"a record of some length";
        // Whether it is stored nobody asks here.
        drop(producer.send(ProducerRecord::value(value).to(Partition(number % PARTITIONS))).await?);
        number += 1;
        sleep(PAUSE).await;
    }
    Ok(producer.close().await?)
}

/// Reads them, and commits for a group that lags behind: the first record of each partition, again and again.
async fn consume(client: Client, stop: Arc<AtomicBool>) -> Result<()> {
    let options = ConsumerOptions { start: StartAt::Earliest, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(TOPIC, options).await?;
    let topic = client.topic(TOPIC).await?.topic;
    while !stop.load(Ordering::Relaxed) {
        drop(consumer.next_batch_within(LOOK).await?);
        // While the chain of the group changes it is refused; it comes again.
        let _ = commit(&client, |partition| PartitionKey { topic, partition: Partition(partition) }).await;
    }
    Ok(())
}

async fn commit(client: &Client, partition: impl Fn(u32) -> PartitionKey) -> Result<GroupCommitReply> {
    let map = client.refresh_map().await?;
    let group = GroupName::new(GROUP).expect("it is a good name");
    let range = map.range_of_group(&group).context("the ring of groups")?;
    let owner = map.owner_of(range).context("a head")?;
    let offset = |number| CommittedOffset { partition: partition(number), offset: Offset(1), metadata: String::new() };
    let request = GroupCommitRequest {
        range,
        epoch: owner.epoch,
        group,
        member: MemberId(0),
        sequence: GroupSequence(0),
        generation: GroupGeneration(0),
        offsets: (0..PARTITIONS).map(offset).collect(),
    };
    Ok(client.connection(&owner.address).await?.call(Api::GroupCommit, &request, LOOK * 10).await?)
}

/// Every panel has something to show; every rule works, and what it looks at is there.
fn every_query_is_answered(prometheus: &Prometheus) -> Result<()> {
    let panels = panels()?;
    ensure!(panels.len() > 50, "{} queries in the dashboards", panels.len());
    for (place, query) in &panels {
        await_query(prometheus, query, |samples| !samples.is_empty()).with_context(|| place.clone())?;
    }
    let rules = prometheus.rules()?;
    ensure!(rules.iter().filter(|rule| rule.kind == "alerting").count() >= 14, "alerts: {rules:?}");
    for rule in &rules {
        ensure!(rule.health == "ok", "{}: {}", rule.name, rule.last_error);
        prometheus.query(&rule.query).with_context(|| rule.name.clone())?;
        for selector in selectors(&rule.query).into_iter().filter(|selector| !MAY_BE_EMPTY.contains(selector)) {
            await_query(prometheus, selector, |samples| !samples.is_empty()).with_context(|| rule.name.clone())?;
        }
    }
    println!("{} queries of dashboards and {} rules have answers", panels.len(), rules.len());
    Ok(())
}

/// A cluster at work alarms nobody, once it has started. What a busy machine alone can cause is not asked for: shards that have
/// no processor, a disk that others fill.
fn nothing_fires(prometheus: &Prometheus) -> Result<()> {
    await_query(
        prometheus,
        "ALERTS{alertstate=\"firing\",alertname!~\"MiniKafka(DiskFull|MemberLag|EventLoopStalled)\"}",
        <[_]>::is_empty,
    )
}

/// The queries of all dashboards, and where they stand.
fn panels() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(source::repository().join("deploy/grafana/dashboards"))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let title = |value: &Value| value["title"].as_str().unwrap_or_default().to_owned();
        for panel in dashboard["panels"].as_array().context("panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().context("a query")?;
                let query = query.replace("$__rate_interval", "20s").replace("$instance", ".*");
                ensure!(!query.contains('$'), "{query}: the test knows no such variable");
                let place = format!("{}: {}, {}", title(&dashboard), title(panel), target["refId"]);
                ensure!(found.insert(place.clone(), query).is_none(), "{place} is there twice");
            }
        }
    }
    Ok(found)
}

/// What a query reads: names of metrics with their labels in braces.
fn selectors(query: &str) -> Vec<&str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(length) =
        query[at..].bytes().position(|byte| !is_name(byte)).or((at < query.len()).then(|| query.len() - at))
    {
        let word = &query[at..at + length];
        let mut end = at + length;
        if word.starts_with("minikafka") || word == "up" {
            if query[end..].starts_with('{') {
                end += query[end..].find('}').map_or(0, |close| close + 1);
            }
            found.push(&query[at..end]);
        }
        at = end + usize::from(end < query.len() && !is_name(query.as_bytes()[end]));
    }
    found
}

fn await_query(prometheus: &Prometheus, query: &str, good: impl Fn(&[monitoring::Sample]) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let samples = prometheus.query(query)?;
        if good(&samples) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{query}: {samples:?}");
        std::thread::sleep(LOOK);
    }
}

#[test]
fn what_a_query_reads_is_found() {
    let query = "max by (ring) (minikafka_ring_ranges{state=\"below_min\"}) > 0 or deriv(minikafka:group_lag_records:max[10m]) and up";
    let expected = ["minikafka_ring_ranges{state=\"below_min\"}", "minikafka:group_lag_records:max", "up"];
    assert_eq!(selectors(query), expected);
}
