//! `minikafka produce`: a record for each line of files or standard input.
//!
//! A thread reads and cuts lines, one task sends them, another waits for acknowledgements in the order of sending and
//! measures them. Between them are bounded queues: memory stays bounded whatever the input, and a slow broker slows the
//! reading down.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use minikafka_client::{Codec, DeliveryFuture, Error, Producer, ProducerOptions, ProducerRecord};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::cli::GlobalOptions;
use crate::exit::{Failure, Outcome};
use crate::explain::{self, Drawing, Slowest};
use crate::output::Output;
use crate::{client, quantity};

mod input;
mod lines;
mod progress;

use input::{Input, LineChunk};
use lines::LineRules;
use progress::Progress;

/// Records sent and not yet seen acknowledged; the producer's own bound on bytes is the one that matters.
const UNACKNOWLEDGED_RECORDS_MAX: usize = 1 << 17;

/// Options of `minikafka produce`.
#[derive(Debug, Args)]
pub struct ProduceCommand {
    /// The topic; `dev` creates it when it does not exist.
    topic: String,
    /// Files whose lines are sent; `-` or none is standard input. A line ends with \n, which is not sent; all else is.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Text that parts key from value at its first occurrence; a line without it has no key.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// The key of every record that has no key of its own.
    #[arg(long, value_name = "TEXT", conflicts_with = "key_from_path")]
    key: Option<String>,
    /// The path of its file is a record's key: a file's lines keep their order in one partition.
    #[arg(long)]
    key_from_path: bool,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// Batches are sent at this size.
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = quantity::bytes_u32)]
    batch_bytes: u32,
    /// Batches are sent at the latest after this many milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    linger_ms: u64,
    /// Lines longer than this end the command.
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = quantity::bytes_u32)]
    line_bytes_max: u32,
    /// Ask the brokers where the time goes, and draw it for the slowest batch, hop by hop.
    #[arg(long)]
    explain: bool,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
}

/// What was sent, and how fast.
#[derive(Debug, Serialize)]
struct Summary {
    topic: String,
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
    bytes_per_second: f64,
    /// From the moment a record was taken into a batch to the moment its acknowledgement was seen, in order.
    acknowledgement_us: Percentiles,
    /// With --explain: where the time of the slowest batch went.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Drawing>,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

/// A record that waits for its acknowledgement.
struct Sent {
    at: Instant,
    bytes: u64,
    delivery: DeliveryFuture,
}

/// What became of the records that were sent.
struct Tally {
    records: u64,
    bytes: u64,
    failed: u64,
    first_error: Option<Error>,
    latency_us: Histogram<u64>,
    slowest: Slowest,
}

/// Sends lines as records and tells how it went.
pub async fn run(command: &ProduceCommand, global: &GlobalOptions, output: &mut Output) -> Outcome {
    let input = Input::open(&command.files, command.rules(), command.key_from_path)?;
    let client = client::connect(global, true).await?;
    let producer = client.producer(&command.topic, command.options(global)).await?;
    let progress = Progress::new(&input, output.is_json());
    let started = Instant::now();

    let (to_tally, sent) = mpsc::channel(UNACKNOWLEDGED_RECORDS_MAX);
    let tally = tokio::spawn(tally(sent));
    let mut chunks = input.start();
    let sending = send_all(&producer, &mut chunks, to_tally, &progress).await;
    let closed = producer.close().await;
    let tally = tally.await.map_err(|error| Failure::failed(format!("waiting for acknowledgements: {error}")))?;
    progress.finish();

    let summary = Summary::new(&command.topic, &tally, started.elapsed());
    if tally.records > 0 {
        output.show(&summary)?;
    }
    if command.explain && tally.records > 0 && summary.explain.is_none() {
        explain::say_untold();
    }
    let first_error = tally.first_error.clone().map(Failure::from);
    let failure = first_error.or(sending.err()).or(closed.err().map(Failure::from));
    match failure {
        None if tally.records == 0 => output.show(&summary),
        None => Ok(()),
        Some(failure) if tally.records == 0 => Err(failure),
        Some(failure) => {
            let (stored, failed) = (quantity::show_count(tally.records), quantity::show_count(tally.failed));
            Err(failure.partly(format!("{stored} records are stored, {failed} failed or are unknown")))
        }
    }
}

/// Sends line after line; stops at the first that is refused.
async fn send_all(
    producer: &Producer,
    chunks: &mut mpsc::Receiver<Outcome<LineChunk>>,
    sent: mpsc::Sender<Sent>,
    progress: &Progress,
) -> Outcome {
    while let Some(chunk) = chunks.recv().await {
        let chunk = chunk?;
        for line in chunk.lines() {
            let record = ProducerRecord { key: line.key, value: Some(line.value), ..ProducerRecord::default() };
            let at = Instant::now();
            let delivery = producer.send(record).await?;
            let bytes = (line.value.len() + line.key.map_or(0, <[u8]>::len)) as u64;
            // The receiver ends early only after a failed delivery: no sense in sending more.
            if sent.send(Sent { at, bytes, delivery }).await.is_err() {
                return Ok(());
            }
        }
        progress.advance(chunk.input_bytes());
    }
    Ok(())
}

/// Waits for acknowledgements in the order of sending. After the first failure it takes no more, but waits for those
/// that are under way.
async fn tally(mut sent: mpsc::Receiver<Sent>) -> Tally {
    let latency_us =
        Histogram::new_with_max(3_600_000_000, 3).expect("an hour in microseconds at three digits is valid");
    let mut tally =
        Tally { records: 0, bytes: 0, failed: 0, first_error: None, latency_us, slowest: Slowest::default() };
    while let Some(record) = sent.recv().await {
        match record.delivery.await {
            Ok(delivery) => {
                tally.slowest.note(delivery.explain.as_ref());
                tally.records += 1;
                tally.bytes += record.bytes;
                tally.latency_us.saturating_record(u64::try_from(record.at.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                tally.failed += 1;
                tally.first_error.get_or_insert(error);
                sent.close();
            }
        }
    }
    tally
}

impl ProduceCommand {
    fn options(&self, global: &GlobalOptions) -> ProducerOptions {
        ProducerOptions {
            batch_bytes_max: self.batch_bytes,
            linger: Duration::from_millis(self.linger_ms),
            delivery_timeout: global.timeout,
            codec: match self.compression {
                Compression::None => Codec::None,
                Compression::Lz4 => Codec::Lz4,
                Compression::Zstd => Codec::Zstd,
            },
            explain: self.explain,
            ..ProducerOptions::default()
        }
    }

    fn rules(&self) -> LineRules {
        LineRules {
            key_separator: self.key_separator.clone().map(String::into_bytes),
            key: self.key.clone().map(String::into_bytes),
            line_bytes_max: self.line_bytes_max as usize,
        }
    }
}

impl Summary {
    fn new(topic: &str, tally: &Tally, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let at = |quantile| tally.latency_us.value_at_quantile(quantile);
        Self {
            topic: topic.to_owned(),
            records: tally.records,
            bytes: tally.bytes,
            seconds,
            records_per_second: tally.records as f64 / seconds,
            bytes_per_second: tally.bytes as f64 / seconds,
            acknowledgement_us: Percentiles {
                p50: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
                max: tally.latency_us.max(),
            },
            explain: tally.slowest.drawing(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(
            f,
            "{} records, {} stored in {} in {:.1} s: {} records/s, {}/s; acknowledged in {:.1} ms (p50), {:.1} ms (p99)",
            quantity::show_count(self.records),
            quantity::show_bytes(self.bytes),
            self.topic,
            self.seconds,
            quantity::show_count(self.records_per_second as u64),
            quantity::show_bytes(self.bytes_per_second as u64),
            ms(self.acknowledgement_us.p50),
            ms(self.acknowledgement_us.p99),
        )?;
        self.explain.as_ref().map_or(Ok(()), |drawing| write!(f, "\n\n{drawing}"))
    }
}
