//! Sending a corpus, and comparing what comes back with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use minikafka_client::core::Offset;
use minikafka_client::{
    Client, ConsumerOptions, ConsumerRecord, DeliveryFuture, OffsetQuery, Producer, ProducerOptions, ProducerRecord,
};
use tokio::sync::mpsc;

use super::corpus::Corpus;

/// Lines sent and not yet seen acknowledged.
const UNACKNOWLEDGED_MAX: usize = 1 << 17;
/// A consumer that hears nothing for this long hears nothing any more.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How the sending went.
#[derive(Debug)]
pub struct Sent {
    /// Lines acknowledged: all of them.
    pub lines: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// From the first line to the last acknowledgement.
    pub elapsed: Duration,
    /// From taking a line to seeing its acknowledgement, µs; seen in the order of sending.
    pub acknowledgement_us: Histogram<u64>,
}

/// How the comparison went.
#[derive(Debug)]
pub struct Compared {
    /// Lines that came back: all, each once.
    pub lines: u64,
    /// Bytes compared.
    pub bytes: u64,
    /// From the first fetch to the last line.
    pub elapsed: Duration,
}

/// Sends every line of a corpus and waits for every acknowledgement; `acknowledged` counts along.
pub async fn send(client: &Client, topic: &str, corpus: &Corpus, acknowledged: Arc<AtomicU64>) -> Result<Sent> {
    let producer = client.producer(topic, ProducerOptions::default()).await?;
    let started = Instant::now();
    let (to_wait, waiting) = mpsc::channel(UNACKNOWLEDGED_MAX);
    let waited = tokio::spawn(wait_for_all(waiting, acknowledged));
    let sent = send_lines(&producer, corpus, to_wait).await;
    let acknowledgement_us = waited.await?.context("waiting for acknowledgements")?;
    let bytes = sent?;
    producer.close().await?;
    let lines = corpus.lines();
    ensure!(acknowledgement_us.len() == lines, "{} of {lines} lines were acknowledged", acknowledgement_us.len());
    Ok(Sent { lines, bytes, elapsed: started.elapsed(), acknowledgement_us })
}

type Waiting = (Instant, DeliveryFuture);

async fn send_lines(producer: &Producer, corpus: &Corpus, waiting: mpsc::Sender<Waiting>) -> Result<u64> {
    let mut bytes = 0;
    for file in &corpus.files {
        for line in file.lines() {
            let taken = Instant::now();
            let delivery = producer.send(ProducerRecord::keyed(file.path.as_bytes(), line)).await?;
            bytes += (file.path.len() + line.len()) as u64;
            if waiting.send((taken, delivery)).await.is_err() {
                bail!("an acknowledgement failed: see there");
            }
        }
    }
    Ok(bytes)
}

async fn wait_for_all(mut waiting: mpsc::Receiver<Waiting>, acknowledged: Arc<AtomicU64>) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_max(3_600_000_000, 3)?;
    while let Some((taken, delivery)) = waiting.recv().await {
        delivery.await?;
        acknowledged.fetch_add(1, Ordering::Relaxed);
        latency.saturating_record(u64::try_from(taken.elapsed().as_micros())?);
    }
    Ok(latency)
}

/// Reads a topic from its beginning to its end and compares it with a corpus: every file whole, in order, once.
pub async fn compare(client: &Client, topic: &str, corpus: &Corpus) -> Result<Compared> {
    let ends = client.list_offsets(topic, OffsetQuery::Latest).await?;
    let stored: u64 = ends.iter().map(|(_, end)| Offset::get(*end)).sum();
    let mut consumer = client.consumer(topic, ConsumerOptions::default()).await?;
    let mut comparison = Comparison::new(corpus);
    let started = Instant::now();
    for lines in 0..stored {
        let record = tokio::time::timeout(SILENCE_MAX, consumer.next()).await;
        let record = record.with_context(|| format!("no record for {SILENCE_MAX:?}, after {lines} of {stored}"))??;
        comparison.take(&record)?;
    }
    let elapsed = started.elapsed();
    comparison.finish()?;
    Ok(Compared { lines: stored, bytes: corpus.bytes(), elapsed })
}

/// Compares records with the files that they must be, without a second copy of those.
#[derive(Debug)]
pub struct Comparison<'a> {
    corpus: &'a Corpus,
    by_key: HashMap<&'a [u8], usize>,
    compared_bytes: Vec<usize>,
}

impl<'a> Comparison<'a> {
    /// Nothing has come back yet.
    pub fn new(corpus: &'a Corpus) -> Self {
        let by_key = corpus.files.iter().enumerate().map(|(at, file)| (file.path.as_bytes(), at)).collect();
        Self { corpus, by_key, compared_bytes: vec![0; corpus.files.len()] }
    }

    /// A record must be the next line of its file.
    pub fn take(&mut self, record: &ConsumerRecord) -> Result<()> {
        let place = || format!("partition {} offset {}", record.partition, record.offset);
        let (Some(key), Some(value)) = (&record.key, &record.value) else {
            bail!("{}: a record without key or value was never sent", place());
        };
        let Some(&at) = self.by_key.get(&key[..]) else {
            bail!("{}: there is no file {:?}", place(), String::from_utf8_lossy(key));
        };
        let (file, compared) = (&self.corpus.files[at], &mut self.compared_bytes[at]);
        let is_next = file.bytes[*compared..].starts_with(value) && !value.is_empty();
        ensure!(is_next, "{}: differs from {} at byte {compared}", place(), file.path);
        *compared += value.len();
        Ok(())
    }

    /// Every file must have come back whole.
    pub fn finish(&self) -> Result<()> {
        for (file, compared) in self.corpus.files.iter().zip(&self.compared_bytes) {
            ensure!(
                *compared == file.bytes.len(),
                "{}: only {compared} of {} bytes came back",
                file.path,
                file.bytes.len()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use minikafka_client::core::{Partition, Timestamp};

    use super::*;
    use crate::quickstart::corpus::TextFile;

    fn corpus() -> Corpus {
        let file = |path: &str, text: &[u8]| TextFile { path: path.into(), bytes: text.to_vec() };
        Corpus { files: vec![file("a", b"1\n\n2"), file("b", b"x\r\n")], crates: 1, left_out: 0 }
    }

    type Line = (&'static str, &'static [u8]);

    fn outcome(lines: &[Line]) -> Result<()> {
        let corpus = corpus();
        let mut comparison = Comparison::new(&corpus);
        for (offset, (key, value)) in lines.iter().enumerate() {
            comparison.take(&ConsumerRecord {
                partition: Partition(0),
                offset: Offset(offset as u64),
                timestamp: Timestamp(0),
                append_timestamp: Timestamp(0),
                key: Some(key.as_bytes().to_vec().into()),
                value: Some(value.to_vec().into()),
                headers: Vec::new(),
            })?;
        }
        comparison.finish()
    }

    #[test]
    fn every_difference_is_found() {
        let right: [Line; 4] = [("a", b"1\n"), ("b", b"x\r\n"), ("a", b"\n"), ("a", b"2")];
        outcome(&right).expect("all of it, in order");
        let wrong = |change: &dyn Fn(&mut Vec<Line>)| {
            let mut lines = right.to_vec();
            change(&mut lines);
            outcome(&lines).expect_err("must be found").to_string()
        };
        assert!(wrong(&|lines| lines.truncate(3)).contains("only 3 of 4"), "lost");
        assert!(wrong(&|lines| lines.push(("b", b"x\r\n"))).contains("differs"), "twice");
        assert!(wrong(&|lines| lines.swap(0, 2)).contains("differs"), "out of order");
        assert!(wrong(&|lines| lines[1].1 = b"x\n").contains("differs"), "changed");
        assert!(wrong(&|lines| lines[1].0 = "c").contains("no file"), "never sent");
    }
}
