//! The Rust side of the interop matrix (`tests/e2e/README.md`): sends what standard input says, prints what a topic has, one
//! JSON object a line. What a line is: `tests/e2e/python/peer.py`.

use std::io::{BufRead, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use minikafka_client::core::Timestamp;
use minikafka_client::{
    Client, Codec, ConsumerOptions, ConsumerRecord, GroupConsumerOptions, Producer, ProducerOptions, ProducerRecord,
};
use serde::{Deserialize, Serialize};

/// How often a member of a group looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// A record, bytes as hexadecimal digits.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(default)]
    partition: u32,
    #[serde(default)]
    offset: u64,
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["produce", gateways, topic, codec] => produce(&connect(gateways).await?, topic, codec).await,
        ["consume", gateways, topic, count] => consume(&connect(gateways).await?, topic, count.parse()?).await,
        ["group", gateways, topic, group] => share(&connect(gateways).await?, topic, group).await,
        _ => bail!(
            "usage: interop produce GATEWAYS TOPIC CODEC | consume GATEWAYS TOPIC COUNT | group GATEWAYS TOPIC GROUP"
        ),
    }
}

async fn connect(gateways: &str) -> Result<Client> {
    Ok(Client::builder(gateways.split(',')).client_name("interop").connect().await?)
}

async fn produce(client: &Client, topic: &str, codec: &str) -> Result<()> {
    let codec = match codec {
        "none" => Codec::None,
        "lz4" => Codec::Lz4,
        "zstd" => Codec::Zstd,
        other => bail!("{other} is no codec"),
    };
    let producer = client.producer(topic, ProducerOptions { codec, ..ProducerOptions::default() }).await?;
    // Reading blocks this thread; what was sent goes on its way on others.
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line == "flush" {
            producer.flush().await?;
            println!("flushed");
        } else {
            send(&producer, &serde_json::from_str(&line)?).await?;
        }
    }
    Ok(producer.close().await?)
}

async fn send(producer: &Producer, line: &Line) -> Result<()> {
    let key = line.key.as_deref().map(bytes).transpose()?;
    let value = line.value.as_deref().map(bytes).transpose()?;
    let headers: Vec<(&str, Vec<u8>)> =
        line.headers.iter().map(|(name, value)| Ok((name.as_str(), bytes(value)?))).collect::<Result<_>>()?;
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    let record = ProducerRecord {
        partition: None,
        key: key.as_deref(),
        value: value.as_deref(),
        timestamp: Some(Timestamp(line.timestamp)),
        headers: &headers,
    };
    drop(producer.send(record).await?);
    Ok(())
}

async fn consume(client: &Client, topic: &str, count: usize) -> Result<()> {
    let mut consumer = client.consumer(topic, ConsumerOptions::default()).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for _ in 0..count {
        serde_json::to_writer(&mut out, &line_of(&consumer.next().await?))?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Prints what comes to this member of a group, until standard input ends.
async fn share(client: &Client, topic: &str, group: &str) -> Result<()> {
    let options = GroupConsumerOptions {
        session_timeout: Duration::from_secs(2),
        commit_interval: Duration::from_millis(100),
        ..GroupConsumerOptions::default()
    };
    let mut consumer = client.group_consumer(group, &[topic], options).await?;
    let ending = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    while !ending.is_finished() {
        if let Some(record) = consumer.next_within(LOOK).await? {
            println!("{}", serde_json::to_string(&line_of(&record))?);
        }
    }
    Ok(consumer.close().await?)
}

fn line_of(record: &ConsumerRecord) -> Line {
    Line {
        partition: record.partition.0,
        offset: record.offset.0,
        timestamp: record.timestamp.0,
        key: record.key.as_deref().map(digits),
        value: record.value.as_deref().map(digits),
        headers: record.headers.iter().map(|(name, value)| (name.clone(), digits(value))).collect(),
    }
}

fn digits(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves.map(|half| char::from(DIGITS[usize::from(half)])).collect()
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    ensure!(digits.len().is_multiple_of(2), "an odd number of hexadecimal digits");
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair)?, 16).context("hexadecimal digits")).collect()
}
