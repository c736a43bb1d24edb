//! How each row is measured, once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use minikafka_core::limits;

use super::{Samples, Scale, SuiteBench};
use crate::broker::{Broker, Setup, directory_bytes};
use crate::command::{self, Asked, Context, Outcome};
use crate::driver::wire::FetchOptions;
use crate::error::{BenchError, Result};
use crate::pace::Arrivals;
use crate::target;
use crate::workload::{Compression, DriverKind, KeyDistribution, Load, Records};

/// The option for short latencies that row 4 tries as well.
const SPIN_US: u32 = 150;
/// Bytes of a topic that are kept, so that segments come back to the pool where the broker deletes.
const RETAINED_BYTES: u64 = 1 << 30;
/// Bytes in flight on each connection: the broker always has the next batch at hand.
const WINDOW_BYTES: u32 = 8 << 20;
/// Recent data that is surely still in the broker's memory (a quarter of 256 MiB).
const RECENT_BYTES: u64 = 32 << 20;
/// Longest wait for a broker to take a record after its start.
const FIRST_RECORD: Duration = Duration::from_secs(60);
/// One attempt at that: a map that was asked for before the ranges act is out of date.
const FIRST_ATTEMPT: Duration = Duration::from_millis(100);
/// How long the last load before a SIGKILL runs at most.
const LAST_LOAD: Duration = Duration::from_secs(1);

/// What is measured with what.
pub(super) struct Suite<'a> {
    setup: Setup,
    load_cpu: usize,
    scale: Scale,
    context: &'a Context,
    pub samples: Samples,
}

/// A load of the wire driver.
#[derive(Clone, Copy, Debug)]
struct Shape {
    record_bytes: u32,
    batch_bytes: u32,
    batch_records: Option<u32>,
    partitions: u32,
    connections: u32,
    in_flight: u32,
}

impl Shape {
    /// Batches of a size over two connections, with a window that keeps the broker busy.
    const fn batches(record_bytes: u32, batch_bytes: u32, partitions: u32) -> Self {
        let in_flight = WINDOW_BYTES / batch_bytes;
        Self { record_bytes, batch_bytes, batch_records: None, partitions, connections: 2, in_flight }
    }

    /// One record of 100 bytes in each batch.
    const fn single_records(partitions: u32, connections: u32, in_flight: u32) -> Self {
        Self { record_bytes: 100, batch_bytes: 1 << 10, batch_records: Some(1), partitions, connections, in_flight }
    }
}

impl<'a> Suite<'a> {
    pub fn new(bench: &SuiteBench, scale: Scale, context: &'a Context) -> Self {
        let dir: PathBuf = bench.dir.join("broker");
        let more = bench.server_options.split_whitespace().map(str::to_owned).collect();
        let setup = Setup { binary: context.binary.clone(), dir, cpu: bench.broker_cpu, more };
        Self { setup, load_cpu: bench.load_cpu, scale, context, samples: Samples::default() }
    }

    fn load(&self, shape: &Shape, duration: Duration, warm_up: Duration, bytes_max: Option<u64>) -> Load {
        Load {
            topic: "bench".to_owned(),
            partitions: shape.partitions,
            retention_bytes: Some(RETAINED_BYTES / u64::from(shape.partitions)),
            driver: DriverKind::Wire,
            connections: shape.connections,
            in_flight: shape.in_flight,
            duration,
            warm_up,
            bytes_max,
            cpu: Some(self.load_cpu),
            seed: 1,
        }
    }

    fn context(&self, broker: &Broker) -> Context {
        Context { gateways: vec![broker.gateway.clone()], ..self.context.clone() }
    }

    fn produce(&self, broker: &Broker, shape: &Shape, load: Load) -> Result<Outcome> {
        let records = Records {
            record_bytes: shape.record_bytes,
            batch_bytes: shape.batch_bytes,
            batch_records: shape.batch_records,
            keys: KeyDistribution::None,
            key_count: 1,
            compression: Compression::None,
            rate: None,
            arrivals: Arrivals::Even,
        };
        let (measured, notes) =
            command::produce(&Asked { load, records: Some(records), fetch: None }, &self.context(broker))?;
        if !notes.failures.is_empty() || measured.unanswered > 0 {
            let (failures, lost) = (&notes.failures, measured.unanswered);
            return Err(BenchError::failed(format!("requests failed, {lost} were not answered: {failures:?}")));
        }
        Ok((measured, notes))
    }

    /// Writes so many bytes, however long it takes.
    fn fill(&self, broker: &Broker, shape: &Shape, bytes: u64, retained: bool) -> Result<()> {
        let mut load = self.load(shape, Duration::from_secs(3600), Duration::ZERO, Some(bytes));
        if !retained {
            load.retention_bytes = None;
        }
        self.produce(broker, shape, load).map(|_| ())
    }

    /// A measured load.
    fn measure(&self, broker: &Broker, shape: &Shape) -> Result<Outcome> {
        self.produce(broker, shape, self.load(shape, self.scale.duration, self.scale.warm_up, None))
    }

    fn fetch(&self, broker: &Broker, shape: &Shape, duration: Duration, options: FetchOptions) -> Result<Outcome> {
        let warm_up = if options.until_end { Duration::ZERO } else { self.scale.warm_up };
        let load = self.load(shape, duration, warm_up, None);
        command::consume(&Asked { load, records: None, fetch: Some(options) }, &self.context(broker))
    }

    /// Stops a broker; its memory counts for row 10, its segment files are told.
    fn stop(&mut self, row: &'static str, broker: Broker) -> Result<()> {
        self.samples.add("10", broker.memory("VmHWM")?);
        let hits = broker.stop()?;
        let note = format!("segment files: {} recycled, {} new", hits.recycled, hits.created);
        self.samples.note(row, note);
        Ok(())
    }

    fn note_driver(&mut self, row: &'static str, (measured, notes): &Outcome) {
        let share = notes.core_share * 100.0;
        let (p50, p99) = (measured.latency.p50_us, measured.latency.p99_us);
        self.samples
            .note(row, format!("the driver took {share:.0} % of its core; latency p50 {p50:.0} us, p99 {p99:.0} us"));
    }

    /// A load on a fresh broker whose segment pool was written round four times.
    fn on_a_full_pool(&mut self, row: &'static str, shape: &Shape) -> Result<Outcome> {
        let broker = self.setup.start_fresh()?;
        self.fill(&broker, shape, self.scale.fill_bytes, true)?;
        let outcome = self.measure(&broker, shape)?;
        self.note_driver(row, &outcome);
        self.stop(row, broker)?;
        self.setup.clear()?;
        Ok(outcome)
    }
}

fn reading(fetch_bytes: u32) -> FetchOptions {
    FetchOptions {
        fetch_bytes,
        partition_fetch_bytes: 1 << 20,
        fetch_wait_ms: 500,
        only_partition: None,
        until_end: false,
        rewind: false,
        no_verify: false,
    }
}

pub(super) fn large_batches(suite: &mut Suite<'_>) -> Result<()> {
    for (row, batch_bytes) in [("1a", 256 << 10), ("1b", 1 << 20)] {
        let (measured, _) = suite.on_a_full_pool(row, &Shape::batches(1024, batch_bytes, 16))?;
        suite.samples.add(row, measured.totals.bytes_per_second);
    }
    Ok(())
}

pub(super) fn small_batches(suite: &mut Suite<'_>) -> Result<()> {
    let (measured, _) = suite.on_a_full_pool("2", &Shape::batches(1024, 16 << 10, 16))?;
    suite.samples.add("2", measured.totals.bytes_per_second);
    Ok(())
}

pub(super) fn small_records(suite: &mut Suite<'_>) -> Result<()> {
    let (measured, _) = suite.on_a_full_pool("3", &Shape::batches(100, 256 << 10, 16))?;
    suite.samples.add("3", measured.totals.records_per_second);
    Ok(())
}

pub(super) fn one_in_flight(suite: &mut Suite<'_>) -> Result<()> {
    let broker = suite.setup.start_fresh()?;
    let outcome = suite.measure(&broker, &Shape::single_records(1, 1, 1))?;
    suite.samples.add("4", outcome.0.latency.p50_us);
    suite.note_driver("4", &outcome);
    suite.stop("4", broker)?;
    let mut spinning = suite.setup.clone();
    spinning.more.extend(["--spin-us".to_owned(), SPIN_US.to_string()]);
    let broker = spinning.start_fresh()?;
    let outcome = suite.measure(&broker, &Shape::single_records(1, 1, 1))?;
    suite.samples.note("4", format!("with --spin-us {SPIN_US}: p50 {:.0} us", outcome.0.latency.p50_us));
    suite.stop("4", broker)
}

pub(super) fn single_records(suite: &mut Suite<'_>) -> Result<()> {
    let broker = suite.setup.start_fresh()?;
    let outcome = suite.measure(&broker, &Shape::single_records(64, 8, 256))?;
    suite.samples.add("5", outcome.0.totals.records_per_second);
    suite.note_driver("5", &outcome);
    suite.stop("5", broker)
}

pub(super) fn recent(suite: &mut Suite<'_>) -> Result<()> {
    let broker = suite.setup.start_fresh()?;
    let shape = Shape::batches(1024, 256 << 10, 16);
    suite.fill(&broker, &shape, RECENT_BYTES, false)?;
    let shape = Shape { in_flight: 4, ..shape };
    let options = FetchOptions { rewind: true, ..reading(4 << 20) };
    let outcome = suite.fetch(&broker, &shape, suite.scale.duration, options)?;
    suite.samples.add("6", outcome.0.totals.bytes_per_second);
    suite.note_driver("6", &outcome);
    suite.samples.note("6", format!("{} MiB in 16 partitions, read again and again", RECENT_BYTES >> 20));
    suite.stop("6", broker)
}

pub(super) fn catch_up(suite: &mut Suite<'_>) -> Result<()> {
    let broker = suite.setup.start_fresh()?;
    let shape = Shape::batches(1024, 64 << 10, 64);
    suite.fill(&broker, &shape, suite.scale.catch_up_bytes, false)?;
    suite.stop("7", broker)?;
    let broker = suite.setup.start()?;
    let shape = Shape { connections: 1, in_flight: 1, ..shape };
    let (mut bytes, mut seconds) = (0, 0.0);
    for partition in 0..suite.scale.catch_up_partitions {
        let options = FetchOptions {
            only_partition: Some(partition),
            until_end: true,
            partition_fetch_bytes: limits::FETCH_BYTES_MAX,
            ..reading(limits::FETCH_BYTES_MAX)
        };
        let (measured, _) = suite.fetch(&broker, &shape, Duration::from_secs(600), options)?;
        bytes += measured.totals.bytes;
        seconds += measured.totals.seconds;
    }
    if bytes == 0 || seconds <= 0.0 {
        return Err(BenchError::failed("nothing came back from the disk"));
    }
    suite.samples.add("7", bytes as f64 / seconds);
    let note = format!(
        "{} partitions, one after the other, out of {} MiB written before a restart; one fetch in flight",
        suite.scale.catch_up_partitions,
        suite.scale.catch_up_bytes >> 20
    );
    suite.samples.note("7", note);
    suite.stop("7", broker)?;
    suite.setup.clear()
}

/// With as much in flight as a connection takes: it is spread over some hundred logs.
pub(super) fn many_partitions(suite: &mut Suite<'_>) -> Result<()> {
    let over = |partitions| Shape {
        in_flight: limits::CONNECTION_IN_FLIGHT_MAX,
        ..Shape::batches(1024, 16 << 10, partitions)
    };
    let few = suite.on_a_full_pool("8", &over(16))?;
    let many = suite.on_a_full_pool("8", &over(suite.scale.many_partitions))?;
    suite.samples.own_limits.entry("8").or_default().push(few.0.totals.bytes_per_second);
    suite.samples.add("8", many.0.totals.bytes_per_second);
    Ok(())
}

pub(super) fn idle_and_start(suite: &mut Suite<'_>) -> Result<()> {
    idle(suite)?;
    start_up(suite)
}

/// Memory and processor time of partitions that nobody uses.
fn idle(suite: &mut Suite<'_>) -> Result<()> {
    let broker = suite.setup.start_fresh()?;
    let load =
        suite.load(&Shape::single_records(suite.scale.many_partitions, 1, 1), Duration::ZERO, Duration::ZERO, None);
    std::thread::sleep(suite.scale.idle / 4);
    let before = broker.memory("VmRSS")?;
    let gateways = vec![broker.gateway.clone()];
    let target = command::blocking(target::resolve(&gateways, &load, true))?;
    // Creating them takes buffers that are given back; what is left is what an idle partition costs.
    std::thread::sleep(suite.scale.idle / 2);
    let after = broker.memory("VmRSS")?;
    suite.samples.add("9a", (after - before).max(0.0) / target.partitions.len() as f64);
    suite.samples.note("9a", format!("{:.1} MiB resident before, whole process", before / f64::from(1 << 20)));
    let (started, used) = (Instant::now(), broker.processor_time()?);
    std::thread::sleep(suite.scale.idle);
    let used = broker.processor_time()?.saturating_sub(used);
    suite.samples.add("9d", used.as_secs_f64() / started.elapsed().as_secs_f64() * 100.0);
    suite.stop("9a", broker)
}

fn start_up(suite: &mut Suite<'_>) -> Result<()> {
    let shape = Shape::batches(1024, 256 << 10, 16);
    let broker = suite.setup.start_fresh()?;
    suite.fill(&broker, &shape, suite.scale.start_up_bytes, false)?;
    suite.stop("9b", broker)?;
    let log_bytes = directory_bytes(&suite.setup.dir);
    let broker = suite.setup.start()?;
    suite.samples.add("9b", broker.ready_after.as_secs_f64());
    let first = first_record(suite, &broker)?;
    suite.samples.note("9b", start_note(log_bytes, &broker, first));
    kill_under_load(suite, &broker, &shape)?;
    drop(broker);
    let broker = suite.setup.start()?;
    suite.samples.add("9c", broker.ready_after.as_secs_f64());
    let first = first_record(suite, &broker)?;
    suite.samples.note("9c", start_note(log_bytes, &broker, first));
    suite.stop("9c", broker)?;
    suite.setup.clear()
}

/// SIGKILL in the middle of a load, so that the log ends where it happened to be.
fn kill_under_load(suite: &Suite<'_>, broker: &Broker, shape: &Shape) -> Result<()> {
    let duration = LAST_LOAD.min(suite.scale.duration);
    std::thread::scope(|scope| {
        let killing = scope.spawn(|| {
            std::thread::sleep(duration / 2);
            broker.kill()
        });
        let load = suite.load(shape, duration, Duration::ZERO, None);
        // Ends with a lost connection, as it must.
        let cut_off = suite.produce(broker, shape, load).is_err();
        killing.join().map_err(|_| BenchError::failed("the killer ended by itself"))??;
        if cut_off { Ok(()) } else { Err(BenchError::failed("the load ended before the broker was killed")) }
    })
}

fn start_note(log_bytes: u64, broker: &Broker, first: Duration) -> String {
    let first = broker.ready_after + first;
    format!(
        "on {:.1} GiB of log; the first record was acknowledged after {:.2} s",
        log_bytes as f64 / f64::from(1 << 30),
        first.as_secs_f64()
    )
}

/// How long until a record is acknowledged.
fn first_record(suite: &Suite<'_>, broker: &Broker) -> Result<Duration> {
    let started = Instant::now();
    let shape = Shape::single_records(16, 1, 1);
    loop {
        let load = suite.load(&shape, FIRST_ATTEMPT, Duration::ZERO, Some(1));
        match suite.produce(broker, &shape, load) {
            Ok(_) => return Ok(started.elapsed()),
            Err(error) if started.elapsed() > FIRST_RECORD => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
