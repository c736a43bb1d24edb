//! The Rust example of the README runs as it stands there. Those in Python and Go are run by the tests of their clients.

use std::fs;
use std::time::Duration;

use minikafka_client::{Client, ConsumerOptions, ProducerOptions, ProducerRecord};
use minikafka_tests::process::{self, NodeSetup};
use minikafka_tests::source;
use tokio::time::timeout;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(30);

#[rustfmt::skip] // It looks as it does in the README.
async fn example(gateway: &str) -> minikafka_client::Result<()> {
    // begin
    let client = Client::builder([gateway]).connect().await?;
    let producer = client.producer("orders", ProducerOptions::default()).await?;
    let stored = producer.send(ProducerRecord::keyed(b"user-7", b"bought")).await?.await?;
    let mut consumer = client.consumer("orders", ConsumerOptions::default()).await?;
    let record = consumer.next().await?;
    println!("{:?} at {:?}, stored at {:?}", record.value, record.offset, stored.offset);
    // end
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"user-7"[..]), Some(&b"bought"[..])));
    assert_eq!(Some(record.offset), stored.offset);
    Ok(())
}

#[tokio::test]
async fn the_example_runs() {
    let directory = process::directory().expect("a directory beside the build");
    let node =
        NodeSetup::new(directory.path(), "dev").expect("the binary and free ports").start().expect("a node starts");
    timeout(PATIENCE, example(node.gateway())).await.expect("it ends").expect("it works");
}

#[test]
fn the_example_is_the_one_of_the_readme() {
    let here = include_str!("readme.rs");
    let (_, rest) = here.split_once("// begin\n").expect("its begin");
    let (example, _) = rest.split_once("    // end\n").expect("its end");
    let example: String = example.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let readme = fs::read_to_string(source::repository().join("README.md")).expect("the README");
    let example = example.replace("[gateway]", "[\"localhost:9000\"]");
    assert!(readme.contains(&format!("```rust\n{example}```\n")), "the README has another example than\n{example}");
}
