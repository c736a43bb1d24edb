//! The Rust client as a driver: what an application sees, on one thread.
//!
//! Every record has its own intended time and its own delivery; deliveries of one partition come in order, so one task a
//! partition awaits them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use minikafka_client::{Consumer, ConsumerOptions, DeliveryFuture, Producer, ProducerOptions, ProducerRecord, StartAt};
use minikafka_core::Partition;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::driver::DriverNotes;
use crate::driver::wire::FetchOptions;
use crate::error::{BenchError, Doing, Result};
use crate::measure::{Done, Measured, Recorder};
use crate::pace::{Clock, Nanos, Pace};
use crate::pin;
use crate::progress::Progress;
use crate::target;
use crate::workload::{KEY_BYTES, KeyDistribution, Keys, Load, Records, in_seconds, noise};

/// Bytes at the front of a value that say when the record was meant to be sent.
const STAMP_BYTES: usize = 8;
/// A request due sooner than this is waited for without sleeping: the runtime's timers are not that exact.
const SPIN: Nanos = 2_000_000;
/// Longest wait for a batch before the clock is looked at again.
const LOOK: Duration = Duration::from_millis(100);
/// What was sent and has not been received this long after the end is given up.
const DRAIN: Duration = Duration::from_secs(10);

/// What the tasks of a run share.
struct Run {
    clock: RefCell<Clock>,
    cpu: Cell<Duration>,
    end: Nanos,
    recorder: RefCell<Recorder>,
    progress: Progress,
    in_flight: Cell<u32>,
    freed: Notify,
    failed: RefCell<Option<BenchError>>,
    sent: Cell<u64>,
}

impl Run {
    /// Begins the run once everything is connected: what that took is nobody's latency.
    fn begin(&self) {
        self.cpu.set(pin::thread_time());
        *self.clock.borrow_mut() = Clock::start();
    }

    fn now(&self) -> Nanos {
        self.clock.borrow().now()
    }
}

/// Who records a record's latency.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measures {
    Deliveries,
    Receipts,
}

/// Produces through the client; latency from the intended send to the acknowledgement.
pub fn produce(gateways: &[String], load: &Load, records: &Records, show: bool) -> Result<(Measured, DriverNotes)> {
    run("produce", load, show, async |run| {
        let client = target::connect(gateways).await?;
        target::topic(&client, load, true).await?;
        let producer = client.producer(&load.topic, producer_options(records)).await?;
        run.begin();
        send(run, &producer, load, records, Measures::Deliveries).await?;
        producer.close().await?;
        Ok(vec![client_note(records)])
    })
}

/// Consumes through the client; latency of each wait for a batch.
pub fn consume(
    gateways: &[String],
    load: &Load,
    options: &FetchOptions,
    show: bool,
) -> Result<(Measured, DriverNotes)> {
    if options.rewind || options.no_verify {
        return Err(BenchError::Options(
            "--rewind and --no-verify are for the wire driver: the client always checks".to_owned(),
        ));
    }
    run("consume", load, show, async |run| {
        let client = target::connect(gateways).await?;
        let settings = ConsumerOptions {
            partitions: options.only_partition.map(|only| vec![Partition(only)]),
            partition_fetch_bytes_max: options.partition_fetch_bytes,
            fetch_wait: Duration::from_millis(options.fetch_wait_ms.into()),
            ..ConsumerOptions::default()
        };
        let mut consumer = client.consumer(&load.topic, settings).await?;
        let bytes_max = load.bytes_max.unwrap_or(u64::MAX);
        let is_done = |run: &Run, consumer: &Consumer| {
            let done = options.until_end && consumer.is_at_end();
            done || run.now() >= run.end || run.recorder.borrow().bytes() >= bytes_max
        };
        run.begin();
        while !is_done(run, &consumer) {
            let intended = run.now();
            if let Some(batch) = consumer.next_batch_within(LOOK).await? {
                let done = Done { intended, records: batch.len() as u32, bytes: batch.body().len() as u64 };
                run.recorder.borrow_mut().done(run.now(), &done);
            }
            run.progress.show(run.now(), &run.recorder.borrow());
        }
        Ok(vec!["client driver: the Rust client on one thread; every checksum was checked".to_owned()])
    })
}

/// Produces and consumes at once; latency from the intended send to the receipt.
pub fn end_to_end(gateways: &[String], load: &Load, records: &Records, show: bool) -> Result<(Measured, DriverNotes)> {
    let least = STAMP_BYTES + if records.keys == KeyDistribution::None { 0 } else { KEY_BYTES };
    if (records.record_bytes as usize) < least {
        return Err(BenchError::Options(format!(
            "--record-bytes {}: at least {least} are needed",
            records.record_bytes
        )));
    }
    run("end-to-end", load, show, async |run| {
        let client = target::connect(gateways).await?;
        target::topic(&client, load, true).await?;
        let settings = ConsumerOptions { start: StartAt::Latest, ..ConsumerOptions::default() };
        let mut consumer = client.consumer(&load.topic, settings).await?;
        let producer = client.producer(&load.topic, producer_options(records)).await?;
        let all_sent = Cell::new(false);
        run.begin();
        let receiving = async {
            let mut received = 0u64;
            let mut deadline = None;
            while !all_sent.get() || received < run.sent.get() {
                if all_sent.get() && *deadline.get_or_insert(run.now() + DRAIN.as_nanos() as Nanos) < run.now() {
                    break;
                }
                let Some(batch) = consumer.next_batch_within(LOOK).await? else { continue };
                received += batch.len() as u64;
                receive(run, &batch, records);
            }
            Ok::<_, BenchError>(run.sent.get().saturating_sub(received))
        };
        let sending = async {
            let sent = send(run, &producer, load, records, Measures::Receipts).await;
            all_sent.set(true);
            sent?;
            Ok::<_, BenchError>(producer.close().await?)
        };
        let (lost, sent) = tokio::join!(receiving, sending);
        sent?;
        let now = run.now();
        (0..lost?).for_each(|_| run.recorder.borrow_mut().unanswered(now, run.end));
        Ok(vec![client_note(records), "latency ends when the consumer hands the record out".to_owned()])
    })
}

/// Runs `work` on a runtime of its own, on the load's core.
fn run(
    what: &str,
    load: &Load,
    show: bool,
    work: impl AsyncFnOnce(&Rc<Run>) -> Result<Vec<String>>,
) -> Result<(Measured, DriverNotes)> {
    pin::pinned(load.cpu, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.doing(|| "starting a runtime".to_owned())?;
        let (_, end) = load.phases();
        let run = Rc::new(Run {
            clock: RefCell::new(Clock::start()),
            cpu: Cell::new(pin::thread_time()),
            end,
            recorder: RefCell::new(Recorder::new(load.phases())),
            progress: Progress::new(what, end, show),
            in_flight: Cell::new(0),
            freed: Notify::new(),
            failed: RefCell::new(None),
            sent: Cell::new(0),
        });
        let notes = LocalSet::new().block_on(&runtime, work(&run))?;
        if let Some(error) = run.failed.borrow_mut().take() {
            return Err(error);
        }
        let core_share = (pin::thread_time() - run.cpu.get()).as_secs_f64() / in_seconds(run.now());
        let recorder = run.recorder.replace(Recorder::new((0, 0)));
        let measured = recorder.finish(run.now());
        Ok((measured, DriverNotes { core_share, notes, ..DriverNotes::default() }))
    })
}

fn producer_options(records: &Records) -> ProducerOptions {
    ProducerOptions {
        batch_bytes_max: records.batch_bytes,
        codec: records.compression.into(),
        ..ProducerOptions::default()
    }
}

fn client_note(records: &Records) -> String {
    let batches = records.batch_bytes >> 10;
    format!(
        "client driver: the Rust client on one thread, idempotent, batches of at most {batches} KiB as it gathers them"
    )
}

/// Sends records until the end of the run.
async fn send(run: &Rc<Run>, producer: &Producer, load: &Load, records: &Records, measures: Measures) -> Result<()> {
    let mut pace = records.pace(1, load.seed);
    let mut keys = Keys::new(records.keys, records.key_count, load.seed);
    let keyed = records.keys != KeyDistribution::None;
    let mut value = noise(records.record_bytes as usize - if keyed { KEY_BYTES } else { 0 }, load.seed);
    let mut lines: HashMap<Partition, mpsc::UnboundedSender<(Nanos, DeliveryFuture)>> = HashMap::new();
    let bytes_max = load.bytes_max.unwrap_or(u64::MAX);
    while run.failed.borrow().is_none() && run.sent.get() * u64::from(records.record_bytes) < bytes_max {
        while run.in_flight.get() >= load.in_flight {
            run.freed.notified().await;
        }
        let Some(intended) = take_turn(run, &mut pace).await else { break };
        if value.len() >= STAMP_BYTES {
            value[..STAMP_BYTES].copy_from_slice(&intended.to_le_bytes());
        }
        let key = keys.draw().to_le_bytes();
        let record = ProducerRecord { key: keyed.then_some(&key[..]), ..ProducerRecord::value(&value) };
        let delivery = producer.send(record).await?;
        run.sent.set(run.sent.get() + 1);
        run.in_flight.set(run.in_flight.get() + 1);
        let line = lines.entry(delivery.partition()).or_insert_with(|| await_deliveries(run, records, measures));
        // The task at the other end lives as long as this line.
        let _ = line.send((intended, delivery));
    }
    drop(lines);
    while run.in_flight.get() > 0 && run.failed.borrow().is_none() {
        run.freed.notified().await;
    }
    Ok(())
}

/// Waits until a record may be sent; none at the end of the run.
async fn take_turn(run: &Run, pace: &mut Pace) -> Option<Nanos> {
    loop {
        let now = run.now();
        if pace.due().unwrap_or(now) >= run.end {
            return None;
        }
        if let Some(intended) = pace.take(now) {
            return Some(intended);
        }
        run.progress.show(now, &run.recorder.borrow());
        let wait = pace.due().unwrap_or(now).saturating_sub(now);
        match wait > SPIN {
            true => tokio::time::sleep(Duration::from_nanos(wait - SPIN)).await,
            false => tokio::task::yield_now().await,
        }
    }
}

/// Starts the task that awaits the deliveries of one partition.
fn await_deliveries(
    run: &Rc<Run>,
    records: &Records,
    measures: Measures,
) -> mpsc::UnboundedSender<(Nanos, DeliveryFuture)> {
    let (sender, mut deliveries) = mpsc::unbounded_channel::<(Nanos, DeliveryFuture)>();
    let (run, bytes) = (run.clone(), u64::from(records.record_bytes));
    tokio::task::spawn_local(async move {
        while let Some((intended, delivery)) = deliveries.recv().await {
            match delivery.await {
                Ok(_) if measures == Measures::Deliveries => {
                    run.recorder.borrow_mut().done(run.now(), &Done { intended, records: 1, bytes });
                }
                Ok(_) => {}
                Err(error) => *run.failed.borrow_mut() = Some(error.into()),
            }
            run.in_flight.set(run.in_flight.get() - 1);
            run.freed.notify_one();
        }
    });
    sender
}

/// Counts the records of a batch, each from its own intended time.
fn receive(run: &Run, batch: &minikafka_client::FetchedRecords, records: &Records) {
    let now = run.now();
    let mut recorder = run.recorder.borrow_mut();
    for record in batch.records() {
        let stamp = record.value.and_then(|value| value.first_chunk::<STAMP_BYTES>());
        let Some(stamp) = stamp else { continue };
        let intended = Nanos::from_le_bytes(*stamp);
        recorder.done(now, &Done { intended, records: 1, bytes: u64::from(records.record_bytes) });
    }
    run.progress.show(now, &recorder);
}
