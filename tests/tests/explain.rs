//! A produce and a fetch are explained over real sockets and disks, by three brokers, and drawn by the command line.

use std::time::Duration;

use minikafka_client::{Consumer, ConsumerOptions, Explain, Hop, ProducerOptions, ProducerRecord, Stage, TopicOptions};
use minikafka_tests::in_process::{Cluster, ClusterSetup, await_chains, chain};
use minikafka_tests::process;
use serde_json::Value;
use tokio::time::timeout;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start() -> (Cluster, minikafka_client::Client) {
    let parent = process::build_directory().expect("a directory beside the build");
    let cluster = Cluster::start(&parent, ClusterSetup::default()).await;
    let client = cluster.client().await;
    client.create_topic("orders", TopicOptions { partitions: 1, ..TopicOptions::default() }).await.expect("created");
    await_chains(&client, "orders", 1, 3, None).await;
    (cluster, client)
}

fn stages(hop: &Hop) -> Vec<&'static str> {
    let mut names: Vec<_> = hop.stages.iter().map(|span| span.stage.name()).collect();
    names.sort_unstable();
    names
}

/// Stages that follow each other take no longer than their hop, and each hop no longer than was waited for it.
fn check(explain: &Explain) {
    let mut waited_us = explain.round_trip.as_micros() as u64;
    for hop in &explain.hops {
        let took_us = |stage| u64::from(hop.took_us(stage).unwrap_or(0));
        let beside = took_us(Stage::Durable).min(took_us(Stage::Successor));
        let sum: u64 = hop.stages.iter().map(|span| u64::from(span.took_us)).sum();
        assert!(sum - beside <= hop.whole_us.into(), "{hop:?}");
        // Clocks of this machine are one clock, but each end is rounded by itself.
        assert!(u64::from(hop.whole_us) <= waited_us + 2, "{explain:?}");
        waited_us = took_us(Stage::Successor);
    }
}

async fn read(consumer: &mut Consumer) -> Explain {
    let batch = timeout(PATIENCE, consumer.next_batch()).await.expect("in time").expect("a batch");
    batch.explain().expect("it was asked for").as_ref().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_a_chain_of_three_tells_its_stages() {
    let (cluster, client) = start().await;
    let options = ProducerOptions { explain: true, ..ProducerOptions::default() };
    let producer = client.producer("orders", options).await.expect("a producer");
    let nodes = chain(&client, "orders", 0).await;
    for bytes in [5, 300_000] {
        let value = vec![7; bytes];
        let sent = producer.send(ProducerRecord::value(&value)).await.expect("taken");
        let delivery = timeout(PATIENCE, sent).await.expect("in time").expect("stored");
        let explain = delivery.explain.expect("it was asked for");
        check(&explain);
        assert_eq!(explain.hops.iter().map(|hop| hop.node.0).collect::<Vec<_>>(), nodes);
        let names = [
            &["answer", "append", "checksum", "durable", "receive", "successor"][..],
            &["answer", "append", "durable", "receive", "successor"],
            &["answer", "append", "durable", "receive"],
        ];
        assert_eq!(explain.hops.iter().map(stages).collect::<Vec<_>>(), names);
    }
    let options = ConsumerOptions { explain: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer("orders", options).await.expect("a consumer");
    let explain = read(&mut consumer).await;
    check(&explain);
    assert_eq!((explain.hops.len(), explain.hops[0].node.0), (1, nodes[0]));
    assert!([Stage::Memory, Stage::Read, Stage::Room].iter().all(|&stage| explain.hops[0].took_us(stage).is_some()));
    drop((producer, consumer));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_draws_it() {
    let (cluster, client) = start().await;
    let nodes = chain(&client, "orders", 0).await;
    let gateway = cluster.gateways[0].as_ref().expect("it runs").address().to_string();
    let run = async |line: &str| {
        let mut arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        arguments.extend(["--gateway".to_owned(), gateway.clone()]);
        let ran = tokio::task::spawn_blocking(move || {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            process::run(&arguments, b"bought\n").expect("the binary runs")
        });
        let output = ran.await.expect("a thread");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        assert!(output.status.success(), "{line}: {}", text(output.stderr));
        (text(output.stdout), text(output.stderr))
    };
    let (drawn, _) = run("produce orders --explain").await;
    for node in &nodes {
        assert_eq!(drawn.matches(&format!("\nnode {node} shard 0")).count(), 1, "{drawn}");
    }
    assert_eq!((drawn.matches(" durable ").count(), drawn.matches(" successor ").count()), (3, 2), "{drawn}");

    let (told, _) = run("produce orders --explain --json").await;
    let told: Value = serde_json::from_str(&told).expect("one JSON document");
    let hops = told["explain"]["hops"].as_array().expect("hops");
    assert_eq!(
        hops.iter().map(|hop| hop["node"].as_u64()).collect::<Vec<_>>(),
        nodes.iter().map(|&node| Some(node.into())).collect::<Vec<_>>()
    );

    let (records, drawn) = run("consume orders --until-end --explain").await;
    assert_eq!(records, "bought\nbought\n");
    assert!(drawn.contains(&format!("\nnode {} shard 0", nodes[0])) && drawn.contains(" read "), "{drawn}");
    let (_, told) = run("consume orders --until-end --explain --json").await;
    let told: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("one JSON document");
    assert_eq!(told["explain"]["hops"].as_array().map(Vec::len), Some(1));
    let (plain, _) = run("produce orders").await;
    assert!(!plain.contains("shard"), "{plain}");
    drop(client);
    cluster.end().await;
}
