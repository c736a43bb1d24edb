//! What is sent: sizes, keys, partitions, windows, times. Options of every load, and what follows from them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use minikafka_core::entry::Codec;
use minikafka_core::limits;
use rand::distr::{Distribution, Uniform};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Serialize, Serializer};

use crate::error::{BenchError, Result};
use crate::pace::{Arrivals, Nanos, Pace, SECOND, Schedule};
use crate::quantity;

/// Exponent of the zipf distribution: the classic one of the YCSB benchmarks.
const ZIPF_EXPONENT: f64 = 0.99;
/// Distinct keys at most: their weights are kept as a table.
const KEYS_MAX: u64 = 1 << 22;

/// Who speaks to the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// The wire protocol on bare sockets with batches encoded beforehand: costs next to nothing.
    #[default]
    Wire,
    /// The Rust client: what an application sees.
    Client,
}

/// How often each key comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyDistribution {
    /// Records without keys, partitions in turn.
    #[default]
    None,
    /// Keys in turn.
    Sequential,
    /// Every key as likely as any other.
    Uniform,
    /// A few keys most of the time (exponent 0.99).
    Zipf,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard, level 3.
    Zstd,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}

/// Options of every load.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Load")]
pub struct Load {
    /// The topic; created with --partitions if it does not exist.
    #[arg(long, value_name = "NAME", default_value = "bench")]
    pub topic: String,
    /// Partitions of a topic that is created; an existing one keeps its own.
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=limits::TOPIC_PARTITIONS_MAX as i64))]
    pub partitions: u32,
    /// Bytes of a partition that are kept, of a topic that is created.
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub retention_bytes: Option<u64>,
    /// Who speaks to the broker.
    #[arg(long, value_enum, default_value_t)]
    pub driver: DriverKind,
    /// Connections, spread over the shards.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Requests in flight on each connection (driver client: records in flight, all together).
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// How long is measured.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = quantity::duration)]
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// How long runs before what is measured.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = quantity::duration)]
    #[serde(serialize_with = "seconds")]
    pub warm_up: Duration,
    /// End early after this many bytes of records, warm-up included.
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub bytes_max: Option<u64>,
    /// The core on which the load runs, as `--load-cpu` says.
    #[arg(skip)]
    pub cpu: Option<usize>,
    /// Seed of keys, values and arrivals.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

/// Options about records and their pace.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Records")]
pub struct Records {
    /// Bytes of a record, its key included.
    #[arg(long, value_name = "SIZE", default_value = "1024", value_parser = quantity::bytes_u32)]
    pub record_bytes: u32,
    /// Bytes of a batch's body at most, before compression.
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = quantity::bytes_u32)]
    pub batch_bytes: u32,
    /// Records of a batch at most.
    #[arg(long, value_name = "COUNT")]
    pub batch_records: Option<u32>,
    /// Which keys come how often. The wire driver draws one for each batch, which chooses the partition.
    #[arg(long, value_enum, default_value_t)]
    pub keys: KeyDistribution,
    /// Distinct keys.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub key_count: u64,
    /// Compression of the bodies.
    #[arg(long, value_enum, default_value_t)]
    pub compression: Compression,
    /// Records a second: an open loop, latency from the intended time. Without it: a closed loop.
    #[arg(long, value_name = "RECORDS")]
    pub rate: Option<f64>,
    /// How the requests of an open loop are spread over time.
    #[arg(long, value_enum, default_value_t)]
    pub arrivals: Arrivals,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Load {
    /// Refuses what the wire driver cannot do.
    pub fn check_wire(&self) -> Result<()> {
        if self.in_flight <= limits::CONNECTION_IN_FLIGHT_MAX {
            return Ok(());
        }
        let most = limits::CONNECTION_IN_FLIGHT_MAX;
        Err(BenchError::Options(format!("--in-flight {}: a connection takes at most {most} requests", self.in_flight)))
    }

    /// When the run begins to count and when it ends.
    pub fn phases(&self) -> (Nanos, Nanos) {
        let warm_up = self.warm_up.as_nanos() as Nanos;
        (warm_up, warm_up + self.duration.as_nanos() as Nanos)
    }
}

impl Records {
    /// Refuses what cannot be.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(BenchError::Options(what));
        let key_bytes = if self.keys == KeyDistribution::None { 0 } else { KEY_BYTES as u32 };
        if self.record_bytes > limits::RECORD_BYTES_MAX || self.record_bytes < key_bytes {
            let (least, most) = (key_bytes, limits::RECORD_BYTES_MAX);
            return refuse(format!("--record-bytes {} is not between {least} and {most}", self.record_bytes));
        }
        if !(1 << 10..=limits::BATCH_BODY_BYTES_MAX).contains(&self.batch_bytes) {
            return refuse(format!("--batch-bytes {} is not between 1K and 4M", self.batch_bytes));
        }
        if !(1..=KEYS_MAX).contains(&self.key_count) {
            return refuse(format!("--key-count {} is not between 1 and {KEYS_MAX}", self.key_count));
        }
        match self.rate {
            Some(rate) if !(rate > 0.0 && rate.is_finite()) => refuse(format!("--rate {rate} is no rate")),
            _ => Ok(()),
        }
    }

    /// The pace of requests that hold `records` each.
    pub fn pace(&self, records: u32, seed: u64) -> Pace {
        match self.rate {
            None => Pace::Closed,
            Some(rate) => Pace::Open(Schedule::new(0, rate / f64::from(records), self.arrivals, seed)),
        }
    }

    /// Whether requests have times of their own.
    pub const fn is_open_loop(&self) -> bool {
        self.rate.is_some()
    }
}

/// Bytes of a key: the number of the key, little-endian.
pub const KEY_BYTES: usize = 8;

/// Draws keys; the same ones for the same seed.
#[derive(Debug)]
pub struct Keys {
    draw: Draw,
    random: SmallRng,
}

#[derive(Debug)]
enum Draw {
    InTurn {
        next: u64,
        count: u64,
    },
    Uniform(Uniform<u64>),
    /// Cumulative weights of key 0, 1, …
    Zipf(Vec<f64>),
}

impl Keys {
    /// Keys 0 to `count` less one. Without a distribution they come in turn.
    pub fn new(distribution: KeyDistribution, count: u64, seed: u64) -> Self {
        assert!((1..=KEYS_MAX).contains(&count), "{count} keys were refused when the options were read");
        let draw = match distribution {
            KeyDistribution::None | KeyDistribution::Sequential => Draw::InTurn { next: 0, count },
            KeyDistribution::Uniform => {
                Draw::Uniform(Uniform::new(0, count).expect("the range holds at least one key"))
            }
            KeyDistribution::Zipf => {
                let mut sum = 0.0;
                let weight = |rank: u64| (rank as f64).powf(-ZIPF_EXPONENT);
                Draw::Zipf(
                    (1..=count)
                        .map(|rank| {
                            sum += weight(rank);
                            sum
                        })
                        .collect(),
                )
            }
        };
        Self { draw, random: SmallRng::seed_from_u64(seed) }
    }

    /// The next key.
    pub fn draw(&mut self) -> u64 {
        match &mut self.draw {
            Draw::InTurn { next, count } => {
                let key = *next;
                *next = if key + 1 == *count { 0 } else { key + 1 };
                key
            }
            Draw::Uniform(uniform) => uniform.sample(&mut self.random),
            Draw::Zipf(sums) => {
                let total = sums.last().copied().unwrap_or_default();
                let point = self.random.random::<f64>() * total;
                (sums.partition_point(|&sum| sum <= point) as u64).min(sums.len() as u64 - 1)
            }
        }
    }
}

/// Bytes that do not compress and are the same for the same seed.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    SmallRng::seed_from_u64(seed).fill(&mut noise[..]);
    noise
}

/// The share of a second that `nanos` are.
pub fn in_seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}

#[cfg(test)]
pub(crate) mod tests;
